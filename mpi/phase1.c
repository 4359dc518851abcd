/* phase1: generate a program for each problem, capture the residual stream, run the tests, store. */
#include "campaign.h"
#include "commands.h"
#include "dispatch.h"
#include "stop.h"

#include "pva/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct pva_option pva_phase1_options[] = {
    {"run", PVA_OPT_TEXT, "DIR", NULL, "run directory; made if needed, resumed if it holds the same run", NULL, 0, 0},
    {"problems", PVA_OPT_TEXT, "FILE", NULL, "MBPP or HumanEval, JSONL or JSON, optionally gzip", NULL, 0, 0},
    {"start", PVA_OPT_INT, "I", "0", "first problem, counted from 0 in the file", NULL, 0, 1e9},
    {"end", PVA_OPT_INT, "J", NULL, "last problem, included; default: the file's last", NULL, 0, 1e9},
    {"batch-size", PVA_OPT_INT, "N", "0", "sequences at once per rank; 0: 16, or as many as the memory limits allow", NULL, 0, 256},
    {"max-tokens", PVA_OPT_INT, "N", "2000", "longest sequence, prompt included", NULL, 2, 1 << 20},
    {"temperature", PVA_OPT_REAL, "T", "0", "0: greedy", NULL, 0, 100},
    {"seed", PVA_OPT_INT, "S", "42", "of the split and of every draw", NULL, 0, 9007199254740991.0},
    {"prompt-template", PVA_OPT_TEXT, "NAME", "pva", "pva, mbpp-3shot, docstring, or a file", NULL, 0, 0},
    {"extraction", PVA_OPT_CHOICE, "RULE", "program", "from completion to program", "program|first-function", 0, 0},
    {"preload-imports", PVA_OPT_FLAG, NULL, "no", "the usual imports before each program", NULL, 0, 0},
    {"hook", PVA_OPT_CHOICE, "POINT", "resid_post", "what to capture", "resid_pre|resid_mid|resid_post", 0, 0},
    {"positions", PVA_OPT_CHOICE, "P", "last", "where: the last prompt token, the last computed one, every generated one, all", "last|last-generated|generated|all", 0, 0},
    {"layers", PVA_OPT_TEXT, "SET", "all", "all, 3, 0-5,8", NULL, 0, 0},
    {"resid-dtype", PVA_OPT_CHOICE, "TYPE", "f32", "how the residual stream is stored", "f32|bf16", 0, 0},
    {"autosave-every", PVA_OPT_INT, "N", "100", "records between two snapshots", NULL, 1, 1e9},
    {"resume", PVA_OPT_TEXT, "HOW", "auto", "auto, never (an existing result is kept aside), or a snapshot's path", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

struct phase1 {
    const struct pva_options *options;
    struct par par;
    struct pva_grader *grader;
    struct pva_sandbox sandbox;
    struct run run;
    struct engine engine;
    struct phase1_plan plan;
    struct phase1_schema schema;
    struct diagnostics_schema diagnostics_schema;
    struct campaign campaign;
    int quiet;
};

static int store_item(void *user, const struct phase1_item *item, const struct pva_grade_result *grade, struct pva_error *err) {
    struct phase1 *ph = user;
    return phase1_item_store(item, grade, ph->par.rank, ph->plan.max_tokens, ph->campaign.results, ph->campaign.diagnostics, err);
}

static int store_too_long(void *user, int64_t slot, const struct phase1_prompt *prompt, struct pva_error *err) {
    struct phase1 *ph = user;
    return phase1_store_too_long(slot, prompt, ph->par.rank, ph->campaign.results, ph->campaign.diagnostics, err);
}

static void fill_identity(struct phase1 *ph, struct phase1_identity *id) {
    struct pva_backend_info info;
    ph->engine.ops->describe(ph->engine.be, &info);
    phase1_plan_identity(&ph->plan, ph->options, id);
    id->backend = ph->engine.ops->name;
    snprintf(ph->plan.isa, sizeof ph->plan.isa, "%s", info.isa);
    id->isa = ph->plan.isa;
    id->sandbox = ph->sandbox.text;
    id->python = ph->sandbox.version;
}

static int open_campaign(struct phase1 *ph, struct pva_error *err) {
    struct phase1_identity id;
    fill_identity(ph, &id);
    phase1_schema_fill(&ph->schema, &id, &ph->plan.problems, pva_model_get_config(ph->engine.model), ph->plan.layers, ph->plan.resid_type);
    diagnostics_schema_fill(&ph->diagnostics_schema, &ph->plan.problems);
    struct campaign_what what = {
        .phase = "phase1",
        .unit = "problems",
        .file = "phase1.h5",
        .diagnostics_file = "phase1-diagnostics.h5",
        .results = &ph->schema.store,
        .diagnostics = &ph->diagnostics_schema.store,
        .verdict_field = PHASE1_VERDICT,
        .n = ph->plan.problems.n,
        .costs = ph->plan.costs,
        .capture = 1,
        .user = ph,
        .store = store_item,
        .store_too_long = store_too_long,
    };
    return campaign_open(&ph->campaign, &what, ph->options, &ph->par, &ph->run, &ph->engine, &ph->plan, ph->grader, err);
}

/* ---- the command ---- */

static int print_summary(struct phase1 *ph, struct pva_error *err) {
    if (ph->par.rank) return PVA_OK;
    struct phase1_counts c;
    if (phase1_count(ph->campaign.results, &c, err)) return err->code;
    char text[4096];
    double seconds = engine_now() - ph->campaign.start;
    snprintf(text, sizeof text, "%lld of %lld problems: %lld pass (%.1f %%), %lld fail, %lld too long; %lld new tokens; %.1f s on %d rank%s; %s/phase1.h5",
             (long long)(c.done + c.too_long), (long long)c.n, (long long)c.passed, c.done ? 100.0 * (double)c.passed / (double)c.done : 0.0,
             (long long)(c.done - c.passed), (long long)c.too_long, (long long)c.new_tokens, seconds, ph->par.size, ph->par.size > 1 ? "s" : "",
             ph->run.directory);
    pva_log(PVA_LOG_INFO, "%s", text);
    if (!ph->quiet) fprintf(stderr, "pva-mpi: phase1: %s\n", text);
    return PVA_OK;
}

static int run_phase(struct phase1 *ph, struct pva_error *err) {
    char hosts[2048];
    int outcome = DISPATCH_COMPLETE;
    if (phase1_plan_check_disk(&ph->plan, &ph->par, ph->options, err)) return err->code;
    if (run_open(&ph->par, pva_options_text(ph->options, "run"), "phase1", &ph->run, err)) return err->code;
    run_list_hosts(&ph->par, hosts, sizeof hosts);
    if (open_campaign(ph, err)) return err->code;
    if (ph->par.rank == 0 && !run_write_config(&ph->run, "phase1", ph->options, err))
        run_write_manifest(&ph->run, &ph->par, "phase1", hosts, phase1_plan_facts(&ph->plan, ph->options, &ph->sandbox), err);
    if (par_agree(&ph->par, "write manifest", err)) return err->code;
    if (campaign_run(&ph->campaign, &outcome, err)) return err->code;
    print_summary(ph, err);
    if (par_agree(&ph->par, "count", err)) return err->code;
    if (outcome & DISPATCH_STOPPED) return pva_fail(err, PVA_STOPPED, "stopped; everything finished is stored, run the same command to go on");
    return PVA_OK;
}

int pva_command_phase1(const struct pva_options *o, struct pva_error *err) {
    struct phase1 ph = {.options = o, .quiet = pva_options_flag(o, "quiet")};
    struct pva_error late = {0};
    stop_install();        /* first of all: a stop during the start is a stop, too */
    campaign_open_grader(o, pva_options_flag(o, "preload-imports"), &ph.grader, &ph.sandbox, err); /* forks: before MPI and before any thread */
    if (par_open(&ph.par, &late)) {
        campaign_close_grader(&ph.grader);
        return pva_fail(err, late.code, "%s", late.msg);
    }
    if (ph.par.rank) pva_log_screen(PVA_LOG_ERROR);
    if (!err->code && !pva_options_flag(o, "dry-run")) pva_options_require(o, "run", err);
    if (!err->code) pva_options_require(o, "problems", err);
    if (!par_agree(&ph.par, "start", err) && !engine_open_shared(&ph.par, o, 1, &ph.engine, err) &&
        !phase1_plan_make(&ph.plan, &ph.par, o, &ph.engine, err)) {
        if (!pva_options_flag(o, "dry-run")) run_phase(&ph, err);
        else {
            if (ph.par.rank == 0) phase1_plan_print(&ph.plan, &ph.par, &ph.engine, &ph.sandbox, stdout);
            phase1_plan_check_disk(&ph.plan, &ph.par, o, err);
        }
    }
    /* From here on each rank frees its own; a failure to flush is reported, the first one found. */
    campaign_close(&ph.campaign, &late);
    phase1_plan_free(&ph.plan);
    engine_close(&ph.engine);
    run_close(&ph.run);
    campaign_close_grader(&ph.grader);
    par_agree(&ph.par, "close", &late);
    if (late.code && !err->code) *err = late;
    if (err->code) campaign_explain_stop(&ph.par, err);
    if (ph.par.rank) err->msg[0] = 0; /* rank 0 says it */
    par_close(&ph.par);
    return err->code;
}
