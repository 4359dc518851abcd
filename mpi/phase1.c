/* phase1: generate a program for each problem, capture the residual stream, run the tests, store. */
#include "commands.h"
#include "dispatch.h"
#include "engine.h"
#include "phase1_item.h"
#include "phase1_plan.h"
#include "run.h"
#include "stop.h"

#include "pva/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    {"host-memory", PVA_OPT_BYTES, "SIZE", NULL, "memory one rank may take besides the weights", NULL, 0, 0},
    {"checkpoint-every", PVA_OPT_INT, "N", "50", "records between two syncs to disk, per rank", NULL, 1, 1e9},
    {"autosave-every", PVA_OPT_INT, "N", "100", "records between two snapshots", NULL, 1, 1e9},
    {"autosave-keep", PVA_OPT_INT, "N", "3", "snapshots kept", NULL, 1, 1000},
    {"resume", PVA_OPT_TEXT, "HOW", "auto", "auto, never (an existing result is kept aside), or a snapshot's path", NULL, 0, 0},
    {"grace", PVA_OPT_REAL, "SECONDS", "8", "after a stop signal, time for the sequences in flight", NULL, 0, 3600},
    {"grade-jobs", PVA_OPT_INT, "N", "1", "programs graded at once per rank", NULL, 1, 64},
    {"python", PVA_OPT_TEXT, "PATH", NULL, "interpreter for the graded programs", NULL, 0, 0},
    {"require-sandbox", PVA_OPT_CHOICE, "LEVEL", "basic", "refuse to run programs with less", "basic|strong", 0, 0},
    {"sandbox", PVA_OPT_CHOICE, "MODE", "auto", "none-i-understand runs hostile code without seccomp", "auto|none-i-understand", 0, 0},
    {"dry-run", PVA_OPT_FLAG, NULL, "no", "print the plan and stop", NULL, 0, 0},
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
    struct store *results, *diagnostics;
    uint8_t *states; /* [n] as found at the start */
    struct pva_generator *generator;
    struct phase1_item **items; /* [n], those of this rank */
    int64_t in_flight, grading, committed, new_tokens;
    double start, last_count;
    int64_t done_at_start;
    int quiet, snapshot_at;
    struct pva_error *err; /* what a callback found */
};

/* ---- what the generator tells ---- */

static int on_token(void *user, int64_t id, const int32_t *tokens, int64_t n) {
    struct phase1 *ph = user;
    int stop = 0;
    ph->new_tokens++;
    if (phase1_item_token(ph->items[id], ph->engine.tokenizer, ph->plan.stop_strings, tokens, n, &stop, ph->err)) return 1;
    return stop;
}

static void on_capture(void *user, int64_t id, int64_t position, const float *rows) {
    struct phase1 *ph = user;
    (void)position;
    if (!ph->err->code) phase1_item_capture(ph->items[id], rows, ph->plan.resid_values, ph->err);
}

static void on_done(void *user, const struct pva_completion *c) {
    struct phase1 *ph = user;
    struct phase1_item *item = ph->items[c->id];
    ph->in_flight--;
    if (c->finish == PVA_FINISH_CANCELLED || ph->err->code) {
        phase1_item_free(&ph->items[c->id]);
        return;
    }
    if (phase1_item_complete(item, ph->engine.tokenizer, ph->plan.stop_strings, ph->plan.rule, c, ph->err)) return;
    struct pva_grade_job job = {.id = c->id, .problem = ph->plan.problem[c->id], .program = item->program, .n_program = item->n_program};
    if (!pva_grader_submit(ph->grader, &job, ph->err)) ph->grading++;
}

/* ---- the main loop's parts ---- */

static int start_item(struct phase1 *ph, int64_t slot, struct pva_error *err) {
    const struct phase1_prompt *prompt = &ph->plan.prompts[slot];
    if (prompt->n >= ph->plan.max_tokens) {
        if (phase1_store_too_long(slot, prompt, ph->par.rank, ph->results, ph->diagnostics, err)) return err->code;
        pva_log(PVA_LOG_WARNING, "problem %s: its prompt has %lld tokens, the limit is %lld", ph->plan.problem[slot]->task_id, (long long)prompt->n,
                (long long)ph->plan.max_tokens);
        ph->committed++;
        return PVA_OK;
    }
    struct pva_request request = {
        .id = slot,
        .seed = (uint64_t)ph->plan.seed,
        .item = (uint32_t)ph->plan.problems.index[slot],
        .prompt = prompt->ids,
        .n_prompt = prompt->n,
        .max_tokens = ph->plan.max_tokens,
        .temperature = (float)ph->plan.temperature,
        .intervention = -1,
    };
    if (phase1_item_create(slot, prompt, ph->plan.rule, ph->plan.resid_values, ph->plan.max_positions > 0, &ph->items[slot], err)) return err->code;
    ph->in_flight++;
    return pva_generator_submit(ph->generator, &request, err);
}

static int take_verdicts(struct phase1 *ph, int timeout_ms, struct pva_error *err) {
    for (int n = 1; n && ph->grading;) {
        struct pva_grade_result result;
        if (pva_grader_poll(ph->grader, timeout_ms, &result, &n, err)) return err->code;
        if (!n) return PVA_OK;
        timeout_ms = 0;
        ph->grading--;
        struct phase1_item *item = ph->items[result.id];
        if (phase1_item_store(item, &result, ph->par.rank, ph->plan.max_tokens, ph->results, ph->diagnostics, err)) return err->code;
        pva_log(PVA_LOG_DEBUG, "%s: %s%s%s, %lld tokens", ph->plan.problem[result.id]->task_id, pva_verdict_name(result.verdict), result.kind[0] ? " " : "",
                result.kind, (long long)item->n_new);
        phase1_item_free(&ph->items[result.id]);
        ph->committed++;
        if (ph->committed % pva_options_int(ph->options, "checkpoint-every")) continue;
        if (store_checkpoint(ph->diagnostics, err) || store_checkpoint(ph->results, err)) return err->code;
        pva_log(PVA_LOG_DEBUG, "checkpoint after %lld records of this rank", (long long)ph->committed);
    }
    return PVA_OK;
}

/* Rank 0: progress, and a snapshot whenever another hundred is complete. */
static int watch(struct phase1 *ph, struct pva_error *err) {
    double t = engine_now();
    if (ph->par.rank || t - ph->last_count < 1) return PVA_OK;
    ph->last_count = t;
    int64_t n = ph->plan.problems.n, done = 0, passed = 0;
    uint8_t *states = malloc((size_t)n), *verdicts = malloc((size_t)n);
    if (!states || !verdicts) pva_fail(err, PVA_IO, "out of memory");
    else if (!store_states(ph->results, states, err) && !store_read_range(ph->results, PHASE1_VERDICT, 0, n, verdicts, err)) {
        for (int64_t i = 0; i < n; i++) done += states[i] != STORE_EMPTY, passed += states[i] == STORE_DONE && verdicts[i] == PVA_PASS;
        double rate = (double)(done - ph->done_at_start) / (t - ph->start);
        if (!ph->quiet)
            pva_log_progress("phase1  %lld/%lld  %.2f problems/s  %.0f tokens/s here  pass %.1f %%  %s left", (long long)done, (long long)n, rate,
                             (double)ph->new_tokens / (t - ph->start), done ? 100.0 * (double)passed / (double)done : 0.0, phase1_time_left(n - done, rate));
        int64_t every = pva_options_int(ph->options, "autosave-every");
        if (done / every > ph->snapshot_at) {
            ph->snapshot_at = (int)(done / every);
            store_snapshot_start(ph->results, done / every * every, (int)pva_options_int(ph->options, "autosave-keep"), err);
        }
    }
    free(states);
    free(verdicts);
    struct pva_error late = {0};
    int running;
    if (!err->code && store_snapshot_poll(ph->results, &running, &late))
        pva_log(PVA_LOG_WARNING, "a snapshot could not be written (the run goes on): %s", late.msg);
    return err->code;
}

static int run_loop(struct phase1 *ph, struct dispatch *d, struct pva_error *err) {
    int64_t items[DISPATCH_MOST];
    int busy = 0, stopping = 0;
    double stop_at = 0;
    ph->err = err;
    while (!err->code && (!dispatch_finished(d) || ph->in_flight || ph->grading)) {
        int64_t n_free = ph->plan.batch - ph->in_flight, n = 0;
        if (ph->in_flight || ph->grading) n = dispatch_next(d, n_free, items);
        else n = dispatch_wait(d, n_free, items);
        if (dispatch_stopping(d) && !stopping) {
            stopping = 1;
            stop_at = engine_now() + pva_options_real(ph->options, "grace");
            pva_log(PVA_LOG_INFO, "asked to stop%s%s: finishing what is in flight", stop_requested() ? " by " : "", stop_signal_name());
        }
        for (int64_t i = 0; i < n && !stopping && !err->code; i++) start_item(ph, items[i], err);
        if (stopping && ph->in_flight && engine_now() > stop_at) pva_generator_cancel_all(ph->generator);
        if (!err->code && ph->in_flight && pva_generator_step(ph->generator, &busy, err)) break;
        /* With nothing to compute, wait for verdicts instead of spinning; not long, rank 0 has others to answer. */
        if (!err->code) take_verdicts(ph, ph->in_flight ? 0 : 20, err);
        if (!err->code) watch(ph, err);
        if (stopping && !ph->in_flight && ph->grading && engine_now() > stop_at + 20) break; /* a slow program; it is graded again on resume */
    }
    pva_log_progress_end();
    if (err->code) dispatch_fail(d);
    return err->code;
}

/* ---- opening ---- */

static void open_grader(struct phase1 *ph, struct pva_error *err) {
    struct pva_grader_settings settings = {
        .python = pva_options_text(ph->options, "python"),
        .n_jobs = (int)pva_options_int(ph->options, "grade-jobs"),
        .preload_imports = pva_options_flag(ph->options, "preload-imports"),
        .require = strcmp(pva_options_text(ph->options, "require-sandbox"), "strong") ? PVA_SANDBOX_BASIC : PVA_SANDBOX_STRONG,
        .allow_none = !strcmp(pva_options_text(ph->options, "sandbox"), "none-i-understand"),
    };
    if (!pva_options_flag(ph->options, "dry-run")) pva_grader_open(&settings, &ph->grader, &ph->sandbox, err);
    else pva_sandbox_probe(&settings, &ph->sandbox, err);
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

/* A diagnostics slot without its result: the job died between the two. It is written again. */
static int reopen_diagnostics(struct phase1 *ph, struct pva_error *err) {
    uint8_t *states = malloc((size_t)ph->plan.problems.n);
    if (!states) return pva_fail(err, PVA_IO, "out of memory");
    if (ph->par.rank == 0 && !store_states(ph->diagnostics, states, err))
        for (int64_t i = 0; i < ph->plan.problems.n && !err->code; i++)
            if (states[i] != STORE_EMPTY && ph->states[i] == STORE_EMPTY) store_reopen(ph->diagnostics, i, err);
    free(states);
    return err->code;
}

static int open_stores(struct phase1 *ph, struct pva_error *err) {
    char path[4096], diagnostics[4096];
    const char *how = pva_options_text(ph->options, "resume");
    struct phase1_identity id;
    fill_identity(ph, &id);
    phase1_schema_fill(&ph->schema, &id, &ph->plan.problems, pva_model_get_config(ph->engine.model), ph->plan.layers, ph->plan.resid_type);
    diagnostics_schema_fill(&ph->diagnostics_schema, &ph->plan.problems);
    run_path(&ph->run, "phase1.h5", path);
    run_path(&ph->run, "phase1-diagnostics.h5", diagnostics);
    int named = strcmp(how, "auto") && strcmp(how, "never");
    enum store_mode mode = !strcmp(how, "never") ? STORE_REPLACE : STORE_RESUME;
    if (named && store_copy(&ph->par, how, path, &ph->schema.store, err)) return err->code;
    if (store_open(&ph->par, path, &ph->schema.store, mode, &ph->results, err) ||
        store_open(&ph->par, diagnostics, &ph->diagnostics_schema.store, mode, &ph->diagnostics, err))
        return err->code;
    int64_t *damaged = NULL, n_damaged = 0;
    if (store_verify(&ph->par, ph->results, &damaged, &n_damaged, err)) return err->code;
    if (n_damaged && ph->par.rank == 0) pva_log(PVA_LOG_WARNING, "%lld stored records were damaged and are computed again", (long long)n_damaged);
    free(damaged);
    ph->states = malloc((size_t)ph->plan.problems.n + 1);
    if (!ph->states) pva_fail(err, PVA_IO, "out of memory");
    else if (!store_states(ph->results, ph->states, err)) reopen_diagnostics(ph, err);
    for (int64_t i = 0; !err->code && i < ph->plan.problems.n; i++) ph->done_at_start += ph->states[i] != STORE_EMPTY;
    return par_agree(&ph->par, "read states", err);
}

static int open_generator(struct phase1 *ph, struct pva_error *err) {
    struct pva_generator_settings settings = phase1_plan_generator(&ph->plan);
    settings.events = (struct pva_generator_events){.user = ph, .on_token = on_token, .on_capture = on_capture, .on_done = on_done};
    ph->items = calloc((size_t)ph->plan.problems.n + 1, sizeof *ph->items);
    if (!ph->items) pva_fail(err, PVA_IO, "out of memory");
    else pva_generator_open(ph->engine.model, &settings, &ph->generator, err);
    return par_agree(&ph->par, "open session", err);
}

/* A signal during the start can end a helper process before it is out of its reach; that is a stop, not a failure. Collective. */
static void explain_stop(struct phase1 *ph, struct pva_error *err) {
    int mine = stop_requested() != 0, any = 0;
    PAR_CHECK(&ph->par, MPI_Allreduce(&mine, &any, 1, MPI_INT, MPI_MAX, ph->par.comm));
    if (!any || err->code != PVA_IO) return;
    pva_log(PVA_LOG_INFO, "stopped while starting: %s", err->msg);
    memset(err, 0, sizeof *err);
    pva_fail(err, PVA_STOPPED, "stopped while starting; run the same command to go on");
}

/* ---- the command ---- */

static int compute(struct phase1 *ph, int *outcome, struct pva_error *err) {
    struct schedule *schedule = NULL;
    if (ph->par.rank == 0) schedule_create(ph->plan.problems.n, ph->plan.costs, ph->states, ph->par.size, &schedule, err);
    if (par_agree(&ph->par, "plan work", err)) return err->code;
    struct dispatch *d = dispatch_open(&ph->par, schedule, ph->plan.batch / 4 + 1, stop_requested);
    ph->start = engine_now();
    run_loop(ph, d, err);
    *outcome = dispatch_close(&d);
    schedule_free(&schedule);
    struct pva_error late = {0};
    if (ph->par.rank == 0 && store_snapshot_wait(ph->results, &late)) pva_log(PVA_LOG_WARNING, "a snapshot could not be written: %s", late.msg);
    return par_agree(&ph->par, "compute", err);
}

static int print_summary(struct phase1 *ph, struct pva_error *err) {
    if (ph->par.rank) return PVA_OK;
    struct phase1_counts c;
    if (phase1_count(ph->results, &c, err)) return err->code;
    char text[4096];
    double seconds = engine_now() - ph->start;
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
    if (open_stores(ph, err) || open_generator(ph, err)) return err->code;
    if (ph->par.rank == 0 && !run_write_config(&ph->run, "phase1", ph->options, err))
        run_write_manifest(&ph->run, &ph->par, "phase1", hosts, phase1_plan_facts(&ph->plan, &ph->sandbox), err);
    if (par_agree(&ph->par, "write manifest", err)) return err->code;
    if (ph->done_at_start && ph->par.rank == 0 && !ph->quiet)
        fprintf(stderr, "pva-mpi: phase1: resuming: %lld of %lld problems are done\n", (long long)ph->done_at_start, (long long)ph->plan.problems.n);
    if (compute(ph, &outcome, err)) return err->code;
    print_summary(ph, err);
    if (par_agree(&ph->par, "count", err)) return err->code;
    if (outcome & DISPATCH_STOPPED) return pva_fail(err, PVA_STOPPED, "stopped; everything finished is stored, run the same command to go on");
    return PVA_OK;
}

int pva_command_phase1(const struct pva_options *o, struct pva_error *err) {
    struct phase1 ph = {.options = o, .quiet = pva_options_flag(o, "quiet")};
    struct pva_error late = {0};
    stop_install();        /* first of all: a stop during the start is a stop, too */
    open_grader(&ph, err); /* forks: before MPI and before any thread */
    if (par_open(&ph.par, &late)) {
        pva_grader_close(&ph.grader);
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
    pva_generator_close(&ph.generator);
    for (int64_t i = 0; ph.items && i < ph.plan.problems.n; i++) phase1_item_free(&ph.items[i]);
    free(ph.items);
    free(ph.states);
    if (ph.diagnostics) store_close(&ph.diagnostics, &late);
    if (ph.results) store_close(&ph.results, &late);
    phase1_plan_free(&ph.plan);
    engine_close(&ph.engine);
    run_close(&ph.run);
    pva_grader_close(&ph.grader);
    par_agree(&ph.par, "close", &late);
    if (late.code && !err->code) *err = late;
    if (err->code) explain_stop(&ph, err);
    if (ph.par.rank) err->msg[0] = 0; /* rank 0 says it */
    par_close(&ph.par);
    return err->code;
}
