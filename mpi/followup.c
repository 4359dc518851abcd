#include "followup.h"
#include "commands.h"
#include "stop.h"

#include "pva/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct pva_option pva_followup_options[] = {
    {"run", PVA_OPT_TEXT, "DIR", NULL, "run directory with a finished phase 1", NULL, 0, 0},
    {"problems", PVA_OPT_TEXT, "FILE", NULL, "the problem file, if it is not where phase 1 found it", NULL, 0, 0},
    {"limit", PVA_OPT_INT, "N", "0", "at most so many problems of each part of the split; 0: all", NULL, 0, 1e9},
    {"batch-size", PVA_OPT_INT, "N", "0", "sequences at once per rank; 0: as in phase 1", NULL, 0, 256},
    {"autosave-every", PVA_OPT_INT, "N", "1000", "records between two snapshots", NULL, 1, 1e9},
    {"resume", PVA_OPT_TEXT, "HOW", "auto", "auto, or never (an existing result is kept aside)", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

/* Phase 1's options: its file, then what the user gives now. */
static int read_base(struct followup *f, struct pva_error *err) {
    static const char *const passed_on[] = {"model", "dtype", "backend", "threads", "isa", "gpu-memory", "problems", "batch-size", "host-memory", "python"};
    static const struct pva_option *const tables[] = {pva_common_options, pva_engine_options, pva_phase1_options, pva_campaign_options, NULL};
    enum { MOST = 20, SIZE = 4200 };
    char *argv[MOST] = {NULL}, path[4096], name[64];
    int argc = 0;
    if (pva_options_require(f->options, "run", err)) return err->code;
    const char *run = pva_options_text(f->options, "run");
    snprintf(path, sizeof path, "%s/phase1.h5", run);
    if (access(path, F_OK)) return pva_fail(err, PVA_INPUT, "%s: there is no phase 1 here; run pva-mpi phase1 first", path);
    snprintf(path, sizeof path, "%s/config-phase1.yaml", run);
    if (access(path, F_OK)) return pva_fail(err, PVA_INPUT, "%s: is missing: the settings of phase 1", path);
    for (int i = 0; i < MOST; i++)
        if (!(argv[i] = malloc(SIZE))) pva_fail(err, PVA_IO, "out of memory");
    if (!err->code) {
        snprintf(argv[argc++], SIZE, "phase1");
        snprintf(argv[argc++], SIZE, "--config=%s", path);
        for (size_t i = 0; i < sizeof passed_on / sizeof *passed_on; i++)
            if (pva_options_is_set(f->options, passed_on[i]))
                snprintf(argv[argc++], SIZE, "--%s=%s", passed_on[i], pva_options_text(f->options, passed_on[i]));
        if (pva_options_flag(f->options, "allow-shared-gpu")) snprintf(argv[argc++], SIZE, "--allow-shared-gpu");
        snprintf(name, sizeof name, "%s", f->phase);
        pva_options_parse(name, tables, argc, argv, &f->base, err);
    }
    for (int i = 0; i < MOST; i++) free(argv[i]);
    return err->code;
}

/* The stored phase 1 is the one these settings give. */
static int match_phase1(struct followup *f, struct pva_error *err) {
    struct phase1_schema *schema = malloc(sizeof *schema);
    struct store *s = NULL;
    struct pva_error ignored = {0};
    char path[4096];
    const char *run = pva_options_text(f->options, "run");
    if (!schema) return pva_fail(err, PVA_IO, "out of memory");
    phase1_plan_identity(&f->plan, f->base, &f->identity);
    f->identity.backend = f->engine.ops->name;
    f->identity.sandbox = f->sandbox.text;
    f->identity.python = f->sandbox.version;
    phase1_schema_fill(schema, &f->identity, &f->plan.problems, pva_model_get_config(f->engine.model), f->plan.layers, f->plan.resid_type);
    snprintf(path, sizeof path, "%s/phase1.h5", run);
    store_open_read(path, &schema->store, &s, err);
    store_close(&s, &ignored);
    free(schema);
    if (err->code || phase1_open(run, &f->phase1, err)) return err->code;
    return phase1_require_complete(&f->phase1, run, err);
}

/* For the plan's estimate; where phase 1's diagnostics are gone there is none. */
static void read_pace(struct followup *f) {
    struct diagnostics_schema schema;
    struct store *s = NULL;
    struct pva_error ignored = {0};
    char path[4096];
    int64_t n = f->plan.problems.n;
    double *seconds = malloc((size_t)n * 3 * sizeof *seconds), generating = 0, grading = 0;
    f->seconds_per_item = NAN;
    diagnostics_schema_fill(&schema, &f->plan.problems);
    snprintf(path, sizeof path, "%s/phase1-diagnostics.h5", pva_options_text(f->options, "run"));
    if (seconds && !store_open_read(path, &schema.store, &s, &ignored) &&
        !store_read_range(s, DIAGNOSTICS_PREFILL_SECONDS, 0, n, seconds, &ignored) &&
        !store_read_range(s, DIAGNOSTICS_DECODE_SECONDS, 0, n, seconds + n, &ignored) &&
        !store_read_range(s, DIAGNOSTICS_GRADE_WALL_SECONDS, 0, n, seconds + 2 * n, &ignored)) {
        for (int64_t i = 0; i < n; i++) generating += seconds[i] + seconds[n + i], grading += seconds[2 * n + i];
        generating /= f->plan.batch, grading /= campaign_grade_jobs(f->options); /* at the same time */
        f->seconds_per_item = (generating > grading ? generating : grading) / (double)n;
    }
    store_close(&s, &ignored);
    free(seconds);
}

int followup_open(struct followup *f, const char *phase, const struct pva_options *o, struct pva_error *err) {
    struct pva_error mpi = {0};
    *f = (struct followup){.phase = phase, .options = o, .quiet = pva_options_flag(o, "quiet"), .dry_run = pva_options_flag(o, "dry-run")};
    stop_install();
    if (!read_base(f, err)) campaign_open_grader(o, pva_options_flag(f->base, "preload-imports"), &f->grader, &f->sandbox, err); /* before MPI: it forks */
    if (par_open(&f->par, &mpi)) return pva_fail(err, mpi.code, "%s", mpi.msg);
    if (f->par.rank) pva_log_screen(PVA_LOG_ERROR);
    if (par_agree(&f->par, "start", err) || engine_open_shared(&f->par, f->base, 1, &f->engine, err) ||
        phase1_plan_make(&f->plan, &f->par, f->base, &f->engine, err))
        return err->code;
    if (!match_phase1(f, err)) read_pace(f);
    return par_agree(&f->par, "read phase 1", err);
}

int followup_open_run(struct followup *f, json_t *facts, struct pva_error *err) {
    char hosts[2048];
    if (run_open(&f->par, pva_options_text(f->options, "run"), f->phase, &f->run, err)) {
        json_decref(facts);
        return err->code;
    }
    run_list_hosts(&f->par, hosts, sizeof hosts);
    if (f->par.rank == 0 && !run_write_config(&f->run, f->phase, f->options, err)) run_write_manifest(&f->run, &f->par, f->phase, hosts, facts, err);
    return par_agree(&f->par, "write manifest", err);
}

int followup_close(struct followup *f, struct pva_error *late, struct pva_error *err) {
    phase1_close(&f->phase1);
    phase1_plan_free(&f->plan);
    engine_close(&f->engine);
    run_close(&f->run);
    campaign_close_grader(&f->grader);
    pva_options_free(&f->base);
    if (f->par.size == 0) return err->code; /* MPI never started */
    par_agree(&f->par, "close", late);
    if (late->code && !err->code) *err = *late;
    if (err->code) campaign_explain_stop(&f->par, err);
    if (f->par.rank) err->msg[0] = 0; /* rank 0 says it */
    par_close(&f->par);
    return err->code;
}

int followup_slots(const struct followup *f, int part, int64_t limit, int64_t **slots, int64_t *n, struct pva_error *err) {
    *n = 0;
    *slots = malloc((size_t)(f->phase1.n + 1) * sizeof **slots);
    if (!*slots) return pva_fail(err, PVA_IO, "out of memory");
    for (int64_t i = 0; i < f->phase1.n && (limit == 0 || *n < limit); i++)
        if (f->phase1.part[i] == part && f->phase1.states[i] == STORE_DONE) (*slots)[(*n)++] = i;
    return PVA_OK;
}

const char *followup_estimate(const struct followup *f, int64_t n) {
    static char text[64];
    double rate = f->par.size / f->seconds_per_item;
    if (!(rate > 0) || !isfinite(rate)) return "?";
    snprintf(text, sizeof text, "about %s", phase1_time_left(n, rate));
    return text;
}

int followup_attributes(const struct followup *f, struct store_attribute *a) {
    const struct phase1_identity *id = &f->identity;
    const struct store_attribute all[] = {
        {.name = "model_sha256", .kind = STORE_TEXT, .text = id->model_sha256, .identity = 1},
        {.name = "problems_sha256", .kind = STORE_TEXT, .text = id->problems_sha256, .identity = 1},
        {.name = "prompt_template", .kind = STORE_TEXT, .text = id->prompt_template, .identity = 1},
        {.name = "prompt_template_sha256", .kind = STORE_TEXT, .text = id->prompt_sha256, .identity = 1},
        {.name = "operand", .kind = STORE_TEXT, .text = id->operand, .identity = 1},
        {.name = "seed", .kind = STORE_INTEGER, .integer = id->seed, .identity = 1},
        {.name = "max_tokens", .kind = STORE_INTEGER, .integer = id->max_tokens, .identity = 1},
        {.name = "extraction", .kind = STORE_TEXT, .text = id->extraction, .identity = 1},
        {.name = "preload_imports", .kind = STORE_INTEGER, .integer = id->preload_imports, .identity = 1},
        {.name = "backend", .kind = STORE_TEXT, .text = id->backend, .identity = 1},
        {.name = "sandbox", .kind = STORE_TEXT, .text = id->sandbox},
        {.name = "python", .kind = STORE_TEXT, .text = id->python},
    };
    memcpy(a, all, sizeof all);
    return sizeof all / sizeof *all;
}
