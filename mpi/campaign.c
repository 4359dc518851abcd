#include "campaign.h"
#include "commands.h"
#include "dispatch.h"
#include "stop.h"

#include "pva/log.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct pva_option pva_campaign_options[] = {
    {"host-memory", PVA_OPT_BYTES, "SIZE", NULL, "memory one rank may take besides the weights", NULL, 0, 0},
    {"checkpoint-every", PVA_OPT_INT, "N", "50", "records between two syncs to disk, per rank", NULL, 1, 1e9},
    {"autosave-keep", PVA_OPT_INT, "N", "3", "snapshots kept", NULL, 1, 1000},
    {"grace", PVA_OPT_REAL, "SECONDS", "8", "after a stop signal, time for the sequences in flight", NULL, 0, 3600},
    {"grade-jobs", PVA_OPT_INT, "N", "0", "programs graded at once per rank; 0: half of the processors that it may use, at most 16", NULL, 0, 64},
    {"python", PVA_OPT_TEXT, "PATH", NULL, "interpreter for the graded programs", NULL, 0, 0},
    {"require-sandbox", PVA_OPT_CHOICE, "LEVEL", "basic", "refuse to run programs with less", "basic|strong", 0, 0},
    {"sandbox", PVA_OPT_CHOICE, "MODE", "auto", "none-i-understand runs hostile code without seccomp", "auto|none-i-understand", 0, 0},
    {"dry-run", PVA_OPT_FLAG, NULL, "no", "print the plan and stop", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

/* ---- what the generator tells ---- */

static int on_token(void *user, int64_t id, const int32_t *tokens, int64_t n) {
    struct campaign *c = user;
    int stop = 0;
    c->new_tokens++;
    if (phase1_item_token(c->items[id], c->engine->tokenizer, c->plan->stop_strings, tokens, n, &stop, c->err)) return 1;
    return stop;
}

static void on_capture(void *user, int64_t id, int64_t position, const float *rows) {
    struct campaign *c = user;
    (void)position;
    if (!c->err->code) phase1_item_capture(c->items[id], rows, c->plan->resid_values, c->err);
}

static int64_t problem_of(const struct campaign *c, int64_t slot) { return c->what.problem ? c->what.problem(c->what.user, slot) : slot; }

static void on_done(void *user, const struct pva_completion *done) {
    struct campaign *c = user;
    struct phase1_item *item = c->items[done->id];
    c->in_flight--;
    if (done->finish == PVA_FINISH_CANCELLED || c->err->code) {
        phase1_item_free(&c->items[done->id]);
        return;
    }
    if (phase1_item_complete(item, c->engine->tokenizer, c->plan->stop_strings, c->plan->rule, done, c->err)) return;
    struct pva_grade_job job = {
        .id = done->id, .problem = c->plan->problem[problem_of(c, done->id)], .program = item->program, .n_program = item->n_program};
    if (!pva_grader_submit(c->grader, &job, c->err)) c->grading++;
}

/* ---- the main loop's parts ---- */

static int start_item(struct campaign *c, int64_t slot, struct pva_error *err) {
    const struct phase1_plan *plan = c->plan;
    int64_t problem = problem_of(c, slot);
    const struct phase1_prompt *prompt = &plan->prompts[problem];
    if (prompt->n >= plan->max_tokens) {
        if (c->what.store_too_long(c->what.user, slot, prompt, err)) return err->code;
        pva_log(PVA_LOG_WARNING, "problem %s: its prompt has %lld tokens, the limit is %lld", plan->problem[problem]->task_id, (long long)prompt->n,
                (long long)plan->max_tokens);
        c->committed++;
        return PVA_OK;
    }
    struct pva_request request = {
        .id = slot,
        .seed = (uint64_t)plan->seed,
        .item = (uint32_t)plan->problems.index[problem],
        .prompt = prompt->ids,
        .n_prompt = prompt->n,
        .max_tokens = plan->max_tokens,
        .temperature = (float)plan->temperature,
        .intervention = -1,
    };
    if (c->what.request) c->what.request(c->what.user, slot, &request);
    if (phase1_item_create(slot, prompt, plan->rule, c->what.capture ? plan->resid_values : 0, c->what.capture && plan->max_positions > 0, &c->items[slot], err))
        return err->code;
    c->in_flight++;
    return pva_generator_submit(c->generator, &request, err);
}

static int take_verdicts(struct campaign *c, int timeout_ms, struct pva_error *err) {
    for (int n = 1; n && c->grading;) {
        struct pva_grade_result result;
        if (pva_grader_poll(c->grader, timeout_ms, &result, &n, err)) return err->code;
        if (!n) return PVA_OK;
        timeout_ms = 0;
        c->grading--;
        struct phase1_item *item = c->items[result.id];
        if (c->what.store(c->what.user, item, &result, err)) return err->code;
        pva_log(PVA_LOG_DEBUG, "%s: %s%s%s, %lld tokens", c->plan->problem[problem_of(c, result.id)]->task_id, pva_verdict_name(result.verdict),
                result.kind[0] ? " " : "", result.kind, (long long)item->n_new);
        phase1_item_free(&c->items[result.id]);
        c->committed++;
        if (c->committed % pva_options_int(c->options, "checkpoint-every")) continue;
        if ((c->diagnostics && store_checkpoint(c->diagnostics, err)) || store_checkpoint(c->results, err)) return err->code;
        pva_log(PVA_LOG_DEBUG, "checkpoint after %lld records of this rank", (long long)c->committed);
    }
    return PVA_OK;
}

/* Rank 0: progress, and a snapshot whenever another hundred is complete. */
static int watch(struct campaign *c, struct pva_error *err) {
    double t = engine_now();
    if (c->par->rank || t - c->last_count < 1) return PVA_OK;
    c->last_count = t;
    int64_t n = c->what.n, done = 0, passed = 0;
    uint8_t *states = malloc((size_t)n), *verdicts = malloc((size_t)n);
    struct pva_error late = {0};
    if (!states || !verdicts) pva_fail(err, PVA_IO, "out of memory");
    else if (!store_states(c->results, states, err) && !store_read_range(c->results, c->what.verdict_field, 0, n, verdicts, err)) {
        for (int64_t i = 0; i < n; i++) done += states[i] != STORE_EMPTY, passed += states[i] == STORE_DONE && verdicts[i] == PVA_PASS;
        double rate = (double)(done - c->done_at_start) / (t - c->start);
        if (!c->quiet)
            pva_log_progress("%s  %lld/%lld  %.2f %s/s  %.0f tokens/s here  pass %.1f %%  %s left", c->what.phase, (long long)done, (long long)n, rate,
                             c->what.unit, (double)c->new_tokens / (t - c->start), done ? 100.0 * (double)passed / (double)done : 0.0,
                             phase1_time_left(n - done, rate));
        int64_t every = pva_options_int(c->options, "autosave-every");
        if (done / every > c->snapshot_at) {
            c->snapshot_at = done / every;
            /* A snapshot is a second net: without it the run goes on. This call may also be the one that hears of the last one's failure. */
            if (store_snapshot_start(c->results, done / every * every, (int)pva_options_int(c->options, "autosave-keep"), &late))
                pva_log(PVA_LOG_WARNING, "a snapshot could not be written (the run goes on): %s", late.msg);
        }
    }
    free(states);
    free(verdicts);
    late = (struct pva_error){0};
    int running;
    if (!err->code && store_snapshot_poll(c->results, &running, &late))
        pva_log(PVA_LOG_WARNING, "a snapshot could not be written (the run goes on): %s", late.msg);
    return err->code;
}

static int run_loop(struct campaign *c, struct dispatch *d, struct pva_error *err) {
    int64_t items[DISPATCH_MOST];
    int busy = 0, stopping = 0;
    double stop_at = 0;
    c->err = err;
    while (!err->code && (!dispatch_finished(d) || c->in_flight || c->grading)) {
        int64_t n_free = c->plan->batch - c->in_flight, n = 0;
        if (c->in_flight || c->grading) n = dispatch_next(d, n_free, items);
        else n = dispatch_wait(d, n_free, items);
        if (dispatch_stopping(d) && !stopping) {
            stopping = 1;
            stop_at = engine_now() + pva_options_real(c->options, "grace");
            pva_log(PVA_LOG_INFO, "asked to stop%s%s: finishing what is in flight", stop_requested() ? " by " : "", stop_signal_name());
        }
        for (int64_t i = 0; i < n && !stopping && !err->code; i++) start_item(c, items[i], err);
        if (stopping && c->in_flight && engine_now() > stop_at) pva_generator_cancel_all(c->generator);
        if (!err->code && c->in_flight && pva_generator_step(c->generator, &busy, err)) break;
        /* With nothing to compute, wait for verdicts instead of spinning; not long, rank 0 has others to answer. */
        if (!err->code) take_verdicts(c, c->in_flight ? 0 : 20, err);
        if (!err->code) watch(c, err);
        if (stopping && !c->in_flight && c->grading && engine_now() > stop_at + 20) break; /* a slow program; it is graded again on resume */
    }
    pva_log_progress_end();
    if (err->code) dispatch_fail(d);
    return err->code;
}

/* ---- opening ---- */

static struct pva_grader *kept;
static struct pva_sandbox kept_sandbox;

int campaign_grade_jobs(const struct pva_options *o) {
    enum { MOST = 16 };
    int asked = (int)pva_options_int(o, "grade-jobs");
    cpu_set_t cpus;
    if (asked) return asked;
    int half = sched_getaffinity(0, sizeof cpus, &cpus) ? 1 : CPU_COUNT(&cpus) / 2;
    return half < 1 ? 1 : half > MOST ? MOST : half;
}

int campaign_open_grader(const struct pva_options *o, int preload_imports, struct pva_grader **grader, struct pva_sandbox *sandbox, struct pva_error *err) {
    if (kept) {
        *grader = kept;
        *sandbox = kept_sandbox;
        return PVA_OK;
    }
    struct pva_grader_settings settings = {
        .python = pva_options_text(o, "python"),
        .n_jobs = campaign_grade_jobs(o),
        .preload_imports = preload_imports,
        .require = strcmp(pva_options_text(o, "require-sandbox"), "strong") ? PVA_SANDBOX_BASIC : PVA_SANDBOX_STRONG,
        .allow_none = !strcmp(pva_options_text(o, "sandbox"), "none-i-understand"),
    };
    if (!pva_options_flag(o, "dry-run")) return pva_grader_open(&settings, grader, sandbox, err);
    return pva_sandbox_probe(&settings, sandbox, err);
}

void campaign_close_grader(struct pva_grader **grader) {
    if (*grader == kept) *grader = NULL;
    pva_grader_close(grader);
}

int campaign_keep_grader(const struct pva_options *o, int preload_imports, struct pva_error *err) {
    return campaign_open_grader(o, preload_imports, &kept, &kept_sandbox, err);
}

void campaign_end_grader(void) { pva_grader_close(&kept); }

static int open_stores(struct campaign *c, struct pva_error *err) {
    char path[4096], diagnostics[4096];
    const struct campaign_what *w = &c->what;
    const char *how = pva_options_text(c->options, "resume");
    int named = strcmp(how, "auto") && strcmp(how, "never");
    enum store_mode mode = !strcmp(how, "never") ? STORE_REPLACE : STORE_RESUME;
    run_path(c->run, w->file, path);
    if (named && store_copy(c->par, how, path, w->results, err)) return err->code;
    if (store_open(c->par, path, w->results, mode, &c->results, err)) return err->code;
    if (w->diagnostics_file && store_open(c->par, run_path(c->run, w->diagnostics_file, diagnostics), w->diagnostics, mode, &c->diagnostics, err))
        return err->code;
    int64_t *damaged = NULL, n_damaged = 0;
    if (store_verify(c->par, c->results, &damaged, &n_damaged, err)) return err->code;
    if (n_damaged && c->par->rank == 0) pva_log(PVA_LOG_WARNING, "%lld stored records were damaged and are computed again", (long long)n_damaged);
    free(damaged);
    c->states = malloc((size_t)w->n + 1);
    if (!c->states) pva_fail(err, PVA_IO, "out of memory");
    else store_states(c->results, c->states, err);
    if (par_agree(c->par, "read states", err)) return err->code;
    for (int64_t i = 0; i < w->n; i++) c->done_at_start += c->states[i] != STORE_EMPTY;
    /* Diagnostics without their result: the job died between the two, or the results came from a snapshot. They are written again. */
    return c->diagnostics ? store_retain(c->par, c->diagnostics, c->states, err) : PVA_OK;
}

static int open_generator(struct campaign *c, struct pva_error *err) {
    struct pva_generator_settings settings = phase1_plan_generator(c->plan);
    if (!c->what.capture) settings.capture.layers = NULL;
    settings.interventions = c->what.interventions;
    settings.n_interventions = c->what.n_interventions;
    settings.events = (struct pva_generator_events){.user = c, .on_token = on_token, .on_capture = on_capture, .on_done = on_done};
    c->items = calloc((size_t)c->what.n + 1, sizeof *c->items);
    if (!c->items) pva_fail(err, PVA_IO, "out of memory");
    else pva_generator_open(c->engine->model, &settings, &c->generator, err);
    return par_agree(c->par, "open session", err);
}

int campaign_open(struct campaign *c, const struct campaign_what *what, const struct pva_options *o, const struct par *par, const struct run *run,
                  const struct engine *engine, const struct phase1_plan *plan, struct pva_grader *grader, struct pva_error *err) {
    *c = (struct campaign){.what = *what, .options = o, .par = par, .run = run, .engine = engine, .plan = plan, .grader = grader};
    c->quiet = pva_options_flag(o, "quiet");
    if (!open_stores(c, err)) open_generator(c, err);
    return err->code;
}

void campaign_close(struct campaign *c, struct pva_error *err) {
    pva_generator_close(&c->generator);
    for (int64_t i = 0; c->items && i < c->what.n; i++) phase1_item_free(&c->items[i]);
    free(c->items);
    free(c->states);
    if (c->diagnostics) store_close(&c->diagnostics, err);
    if (c->results) store_close(&c->results, err);
    memset(c, 0, sizeof *c);
}

/* ---- running ---- */

/* Items of one problem go together: they have the prompt in common. */
static int plan_work(const struct campaign *c, struct schedule **schedule, struct pva_error *err) {
    int64_t *problems = malloc(((size_t)c->what.n + 1) * sizeof *problems);
    if (!problems) return pva_fail(err, PVA_IO, "out of memory");
    for (int64_t i = 0; i < c->what.n; i++) problems[i] = problem_of(c, i);
    schedule_create(c->what.n, c->what.costs, problems, c->states, c->par->size, schedule, err);
    free(problems);
    return err->code;
}

static void log_work(const struct campaign *c) {
    struct pva_generator_stats s;
    pva_generator_get_stats(c->generator, &s);
    double visits = (double)pva_session_visits(pva_generator_session(c->generator), PVA_RESID_PRE), all = visits + (double)s.shared_visits;
    pva_log(PVA_LOG_INFO,
            "this rank: %lld new tokens; of prompts %lld tokens computed and %lld shared; %.1f %% of %.0f (layer, position) pairs shared; %lld evictions",
            (long long)s.new_tokens, (long long)s.prompt_tokens, (long long)s.shared_tokens, all > 0 ? 100 * (double)s.shared_visits / all : 0.0, all,
            (long long)s.evictions);
}

int campaign_run(struct campaign *c, int *outcome, struct pva_error *err) {
    struct schedule *schedule = NULL;
    *outcome = DISPATCH_COMPLETE;
    if (c->par->rank == 0) plan_work(c, &schedule, err);
    if (par_agree(c->par, "plan work", err)) return err->code;
    if (c->done_at_start && c->par->rank == 0 && !c->quiet)
        fprintf(stderr, "pva-mpi: %s: resuming: %lld of %lld %s are done\n", c->what.phase, (long long)c->done_at_start, (long long)c->what.n, c->what.unit);
    struct dispatch *d = dispatch_open(c->par, schedule, c->plan->batch / 4 + 1, stop_requested);
    c->start = engine_now();
    run_loop(c, d, err);
    *outcome = dispatch_close(&d);
    schedule_free(&schedule);
    log_work(c);
    struct pva_error late = {0};
    if (c->par->rank == 0 && store_snapshot_wait(c->results, &late)) pva_log(PVA_LOG_WARNING, "a snapshot could not be written: %s", late.msg);
    return par_agree(c->par, "compute", err);
}

void campaign_explain_stop(const struct par *par, struct pva_error *err) {
    int mine = stop_requested() != 0, any = 0;
    PAR_CHECK(par, MPI_Allreduce(&mine, &any, 1, MPI_INT, MPI_MAX, par->comm));
    if (!any || err->code != PVA_IO) return;
    pva_log(PVA_LOG_INFO, "stopped, with what was in flight lost: %s", err->msg);
    memset(err, 0, sizeof *err);
    pva_fail(err, PVA_STOPPED, "stopped; what was in flight is computed again, everything stored is kept: run the same command to go on");
}
