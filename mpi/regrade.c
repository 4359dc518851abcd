/* regrade: extraction and tests again from the completions of a finished phase 1, without the model, into a new run directory. */
#include "campaign.h"
#include "commands.h"
#include "dispatch.h"
#include "engine.h"
#include "phase1_count.h"
#include "phase1_item.h"
#include "phase1_source.h"
#include "run.h"
#include "stop.h"

#include "pva/hash.h"
#include "pva/log.h"
#include "pva/prompt.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct pva_option pva_regrade_options[] = {
    {"run", PVA_OPT_TEXT, "DIR", NULL, "run directory (or give it without --run); only read", NULL, 0, 0},
    {"out", PVA_OPT_TEXT, "DIR", NULL, "new run directory; continued if it holds this very regrading", NULL, 0, 0},
    {"problems", PVA_OPT_TEXT, "FILE", NULL, "the run's problem file, if it is elsewhere now", NULL, 0, 0},
    {"prompt-template", PVA_OPT_TEXT, "NAME", NULL, "the run's template file, if it is elsewhere now", NULL, 0, 0},
    {"extraction", PVA_OPT_CHOICE, "RULE", NULL, "from completion to program; default: as the run had it", "program|first-function", 0, 0},
    {"preload-imports", PVA_OPT_FLAG, NULL, NULL, "the usual imports before each program; default: as the run had it", NULL, 0, 0},
    {"python", PVA_OPT_TEXT, "PATH", NULL, "interpreter for the programs; default: as the run had it", NULL, 0, 0},
    {"require-sandbox", PVA_OPT_CHOICE, "LEVEL", "basic", "refuse to run programs with less", "basic|strong", 0, 0},
    {"sandbox", PVA_OPT_CHOICE, "MODE", "auto", "none-i-understand runs hostile code without seccomp", "auto|none-i-understand", 0, 0},
    {"grade-jobs", PVA_OPT_INT, "N", "0", "programs graded at once per rank; 0: half of the processors that it may use, at most 16", NULL, 0, 64},
    {"checkpoint-every", PVA_OPT_INT, "N", "50", "records between two syncs to disk, per rank", NULL, 1, 1e9},
    {"grace", PVA_OPT_REAL, "SECONDS", "8", "after a stop signal, time for the programs in flight", NULL, 0, 3600},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

struct regrade {
    const struct pva_options *options;
    const char *from;                /* the run directory as given */
    char from_path[3072];            /* the same, absolute */
    struct pva_options *run_options; /* what phase 1 was given */
    struct par par;
    struct pva_grader *grader;
    struct pva_sandbox sandbox;
    struct run run;
    struct phase1_source source;
    struct store *source_diagnostics; /* NULL: there is none */
    struct phase1_identity identity;  /* of the new file */
    struct phase1_schema schema;
    struct diagnostics_schema diagnostics_schema;
    struct store *results, *diagnostics;
    uint8_t *states; /* [n] of the new file at the start */
    struct pva_problems *problems;
    struct pva_prompt_template *template;
    enum pva_extract_rule rule;
    char **programs; /* [n] of this rank, while graded */
    size_t *n_programs;
    void *buffer;    /* the largest field of a slot */
    int64_t grading, committed;
    double start, last_count;
};

/* ---- what it starts from ---- */

static const char *run_of(const struct pva_options *o, struct pva_error *err) {
    const char *const *words, *run = pva_options_text(o, "run");
    size_t n = pva_options_positional(o, &words);
    if (!run && n == 1) return words[0];
    if (run && n == 0) return run;
    pva_fail(err, PVA_USAGE, "name one run directory");
    return NULL;
}

static const char *choose(const struct regrade *r, const char *name) {
    return pva_options_is_set(r->options, name) ? pva_options_text(r->options, name) : pva_options_text(r->run_options, name);
}

/* Before MPI: the run and its settings. Nothing here is collective. */
static int open_source(struct regrade *r, struct pva_error *err) {
    if (!(r->from = run_of(r->options, err)) || pva_options_require(r->options, "out", err) || phase1_source_open(r->from, &r->source, err)) return err->code;
    if (r->source.n_empty)
        return pva_fail(err, PVA_INPUT, "%s: phase 1 is not finished: %lld of %lld problems are missing; run it to its end first", r->from,
                        (long long)r->source.n_empty, (long long)r->source.data.n);
    char *path = realpath(r->from, NULL);
    if (!path || strlen(path) >= sizeof r->from_path) pva_fail(err, PVA_IO, "%s: has no absolute name of less than %zu characters", r->from, sizeof r->from_path);
    else snprintf(r->from_path, sizeof r->from_path, "%s", path);
    free(path);
    return err->code ? err->code : phase1_source_options(r->from, &r->run_options, err);
}

static int open_grader(struct regrade *r, struct pva_error *err) {
    int preload = pva_options_is_set(r->options, "preload-imports") ? pva_options_flag(r->options, "preload-imports") : r->source.identity.preload_imports;
    struct pva_grader_settings settings = {
        .python = choose(r, "python"),
        .n_jobs = campaign_grade_jobs(r->options),
        .preload_imports = preload,
        .require = strcmp(pva_options_text(r->options, "require-sandbox"), "strong") ? PVA_SANDBOX_BASIC : PVA_SANDBOX_STRONG,
        .allow_none = !strcmp(pva_options_text(r->options, "sandbox"), "none-i-understand"),
    };
    r->identity = r->source.identity;
    r->identity.preload_imports = preload;
    if (pva_options_is_set(r->options, "extraction")) r->identity.extraction = pva_options_text(r->options, "extraction");
    if (pva_extract_rule_parse(r->identity.extraction, &r->rule, err) || pva_grader_open(&settings, &r->grader, &r->sandbox, err)) return err->code;
    r->identity.sandbox = r->sandbox.text;
    r->identity.python = r->sandbox.version;
    return PVA_OK;
}

/* The tests and the strings that end a completion must be the run's own. */
static int open_problems(struct regrade *r, struct pva_error *err) {
    const char *path = choose(r, "problems"), *template = choose(r, "prompt-template");
    char sha256[65];
    if (!path) return pva_fail(err, PVA_USAGE, "--problems is needed: the run does not say where its problem file is");
    if (pva_sha256_file(path, sha256, NULL, err)) return err->code;
    if (strcmp(sha256, r->identity.problems_sha256))
        return pva_fail(err, PVA_REFUSED, "%s: is not the problem file of the run: its SHA-256 is %.12s..., the run's %.12s...", path, sha256,
                        r->identity.problems_sha256);
    if (pva_problems_load(path, &r->problems, err) || pva_prompt_template_open(template, r->problems, &r->template, err)) return err->code;
    if (strcmp(pva_prompt_template_sha256(r->template), r->identity.prompt_sha256))
        return pva_fail(err, PVA_REFUSED, "%s: is not the prompt template of the run: its SHA-256 is %.12s..., the run's %.12s...", template,
                        pva_prompt_template_sha256(r->template), r->identity.prompt_sha256);
    for (int64_t i = 0; i < r->source.data.n; i++)
        if (r->source.problems.index[i] < 0 || (size_t)r->source.problems.index[i] >= pva_problems_count(r->problems))
            return pva_fail(err, PVA_INPUT, "%s: record %lld belongs to problem %d of %zu", r->source.data.path, (long long)i, r->source.problems.index[i],
                            pva_problems_count(r->problems));
    return PVA_OK;
}

/* ---- where it goes ---- */

/* Rank 0. A new or empty directory, this very regrading begun earlier, or what a kill left before its file was there. */
static void check_out(const struct regrade *r, struct pva_error *err) {
    static const char *const known[] = {".", "..", ".lock", "logs", "checkpoints", "exports"};
    const char *out = pva_options_text(r->options, "out");
    struct phase1_source earlier = {0};
    struct pva_error none = {0};
    int same = !phase1_source_open(out, &earlier, &none) && !strcmp(earlier.regraded_from, r->from_path);
    phase1_source_close(&earlier);
    DIR *d = same ? NULL : opendir(out);
    if (!same && !d && errno != ENOENT) pva_fail(err, PVA_IO, "--out %s: %s", out, strerror(errno));
    for (struct dirent *e; d && !err->code && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        int fine = (n > 8 && !strcmp(e->d_name + n - 8, ".partial")) || (n > 5 && !strcmp(e->d_name + n - 5, ".lock"));
        for (int i = 0; i < 6; i++) fine |= !strcmp(e->d_name, known[i]);
        if (!fine) pva_fail(err, PVA_REFUSED, "--out %s: exists already and is no regrading of %s: name a new directory", out, r->from);
    }
    if (d) closedir(d);
}

/* What the original's manifest says of phase 1 goes along, so that the new run explains itself. */
static void copy_manifest(const struct regrade *r, struct pva_error *err) {
    char path[4200];
    json_error_t why;
    if (!access(run_path(&r->run, "manifest.json", path), F_OK)) return;
    char from[4200];
    snprintf(from, sizeof from, "%s/manifest.json", r->from);
    json_t *old = json_load_file(from, 0, &why), *new = json_object();
    static const char *const kept[] = {"phase1", "starts"};
    for (int i = 0; i < 2; i++)
        if (json_object_get(old, kept[i])) json_object_set(new, kept[i], json_object_get(old, kept[i]));
    char *text = json_dumps(new, JSON_INDENT(2));
    if (text) run_publish(path, text, strlen(text), err);
    free(text);
    json_decref(old);
    json_decref(new);
}

static void write_manifest(struct regrade *r, const char *hosts, struct pva_error *err) {
    copy_manifest(r, err);
    json_t *facts = json_pack("{s:s,s:{s:s,s:s},s:{s:b,s:b},s:{s:s,s:s},s:s,s:s}", "from", r->from_path, "extraction", "before", r->source.identity.extraction,
                              "now", r->identity.extraction, "preload_imports", "before", r->source.identity.preload_imports, "now",
                              r->identity.preload_imports, "python", "before", r->source.identity.python, "now", r->identity.python, "interpreter",
                              r->sandbox.python, "sandbox", r->sandbox.text);
    if (!err->code) run_write_manifest(&r->run, &r->par, "regrade", hosts, facts, err);
    else json_decref(facts);
    /* The new directory is a run like another: its settings are the run's, with what changed. */
    if (!err->code && !pva_options_set(r->run_options, "run", r->run.directory, err) &&
        !pva_options_set(r->run_options, "extraction", r->identity.extraction, err) &&
        !pva_options_set(r->run_options, "preload-imports", r->identity.preload_imports ? "yes" : "no", err) &&
        !pva_options_set(r->run_options, "problems", choose(r, "problems"), err))
        run_write_config(&r->run, "phase1", r->run_options, err);
}

static int open_stores(struct regrade *r, struct pva_error *err) {
    char path[4096], history[4200], old[4200];
    phase1_source_schema(&r->source, &r->identity, &r->source.problems, &r->schema);
    struct store_schema *s = &r->schema.store;
    r->schema.attributes[s->n_attributes++] = (struct store_attribute){.name = "regraded_from", .kind = STORE_TEXT, .text = r->from_path, .identity = 1};
    snprintf(history, sizeof history, "regraded from %s: extraction %s (was %s), preload_imports %d (was %d), python %s (was %s)", r->from_path,
             r->identity.extraction, r->source.identity.extraction, r->identity.preload_imports, r->source.identity.preload_imports, r->identity.python,
             r->source.identity.python);
    s->history = history;
    s->source = "pva-mpi regrade";
    diagnostics_schema_fill(&r->diagnostics_schema, &r->source.problems);
    snprintf(old, sizeof old, "%s/phase1-diagnostics.h5", r->from);
    struct pva_error none = {0};
    if (store_open_read(old, &r->diagnostics_schema.store, &r->source_diagnostics, &none)) r->source_diagnostics = NULL;
    if (store_open(&r->par, run_path(&r->run, "phase1.h5", path), s, STORE_RESUME, &r->results, err) ||
        store_open(&r->par, run_path(&r->run, "phase1-diagnostics.h5", path), &r->diagnostics_schema.store, STORE_RESUME, &r->diagnostics, err))
        return err->code;
    int64_t *damaged = NULL, n_damaged = 0, n = r->source.data.n;
    if (store_verify(&r->par, r->results, &damaged, &n_damaged, err)) return err->code;
    free(damaged);
    size_t largest = 1;
    for (int f = 0; f < r->schema.store.n_fields; f++)
        if (store_field_bytes(r->results, f) > largest) largest = store_field_bytes(r->results, f);
    r->buffer = malloc(largest);
    r->states = malloc((size_t)n);
    r->programs = calloc((size_t)n, sizeof *r->programs);
    r->n_programs = calloc((size_t)n, sizeof *r->n_programs);
    if (!r->buffer || !r->states || !r->programs || !r->n_programs) pva_fail(err, PVA_IO, "out of memory");
    else store_states(r->results, r->states, err);
    if (par_agree(&r->par, "read states", err)) return err->code;
    return store_retain(&r->par, r->diagnostics, r->states, err); /* diagnostics of a slot that did not get its result are written again */
}

/* ---- one record ---- */

static const int from_grading[] = {PHASE1_N_PROGRAM, PHASE1_PROGRAM, PHASE1_VERDICT, PHASE1_FAILED_TEST, PHASE1_EXCEPTION};

static int copy_fields(struct regrade *r, int64_t slot, int all, struct pva_error *err) {
    for (int f = 0; f < r->schema.store.n_fields; f++) {
        int skip = 0;
        for (int i = 0; i < 5; i++) skip |= f == from_grading[i] && !all;
        if (!skip && (store_read(r->source.data.store, slot, f, r->buffer, err) || store_write(r->results, slot, f, r->buffer, err))) return err->code;
    }
    return PVA_OK;
}

static int start_item(struct regrade *r, int64_t slot, struct pva_error *err) {
    if (r->source.data.states[slot] != STORE_DONE) { /* a prompt that did not fit: there is nothing to grade */
        int32_t rank = r->par.rank;
        if (store_write(r->diagnostics, slot, DIAGNOSTICS_RANK, &rank, err) || store_commit(r->diagnostics, slot, STORE_DONE, err) ||
            copy_fields(r, slot, 1, err))
            return err->code;
        r->committed++;
        return store_commit(r->results, slot, r->source.data.states[slot], err);
    }
    int32_t n_text = 0;
    size_t room = store_field_bytes(r->source.data.store, PHASE1_TEXT);
    if (store_read(r->source.data.store, slot, PHASE1_N_TEXT, &n_text, err) || store_read(r->source.data.store, slot, PHASE1_TEXT, r->buffer, err)) return err->code;
    if (n_text < 0) return pva_fail(err, PVA_INPUT, "%s: record %lld is damaged", r->source.data.path, (long long)slot);
    size_t n = (size_t)n_text < room ? (size_t)n_text : room;
    if (n < (size_t)n_text) pva_log(PVA_LOG_WARNING, "%s: its completion was cut when it was stored", r->source.problems.task_ids[slot]);
    size_t end = phase1_find_stop(r->buffer, n, pva_prompt_template_stops(r->template));
    if (pva_extract(r->rule, r->buffer, end, &r->programs[slot], &r->n_programs[slot], err)) return err->code;
    struct pva_grade_job job = {.id = slot, .problem = pva_problems_at(r->problems, (size_t)r->source.problems.index[slot]), .program = r->programs[slot],
                                .n_program = r->n_programs[slot]};
    if (!pva_grader_submit(r->grader, &job, err)) r->grading++;
    return err->code;
}

static int store_item(struct regrade *r, const struct pva_grade_result *g, struct pva_error *err) {
    int64_t slot = g->id;
    double prefill = 0, decode = 0;
    if (r->source_diagnostics && (store_read(r->source_diagnostics, slot, DIAGNOSTICS_PREFILL_SECONDS, &prefill, err) ||
                                  store_read(r->source_diagnostics, slot, DIAGNOSTICS_DECODE_SECONDS, &decode, err)))
        return err->code;
    if (phase1_store_diagnostics(r->diagnostics, slot, r->par.rank, prefill, decode, g, err) || copy_fields(r, slot, 0, err) ||
        phase1_write_grade(r->results, slot, r->programs[slot], r->n_programs[slot], g, err) || store_commit(r->results, slot, STORE_DONE, err))
        return err->code;
    free(r->programs[slot]);
    r->programs[slot] = NULL;
    r->committed++;
    if (r->committed % pva_options_int(r->options, "checkpoint-every")) return PVA_OK;
    return store_checkpoint(r->diagnostics, err) ? err->code : store_checkpoint(r->results, err);
}

static int take_verdicts(struct regrade *r, struct pva_error *err) {
    int timeout_ms = 20; /* not long: rank 0 has others to answer */
    for (int n = 1; n && r->grading; timeout_ms = 0) {
        struct pva_grade_result result;
        if (pva_grader_poll(r->grader, timeout_ms, &result, &n, err)) return err->code;
        if (!n) return PVA_OK;
        r->grading--;
        if (store_item(r, &result, err)) return err->code;
    }
    return PVA_OK;
}

static void show_progress(struct regrade *r) {
    double t = engine_now();
    struct pva_error ignored = {0};
    if (r->par.rank || t - r->last_count < 1 || pva_options_flag(r->options, "quiet")) return;
    r->last_count = t;
    uint8_t *states = malloc((size_t)r->source.data.n);
    int64_t done = 0;
    if (states && !store_states(r->results, states, &ignored)) {
        for (int64_t i = 0; i < r->source.data.n; i++) done += states[i] != STORE_EMPTY;
        pva_log_progress("regrade  %lld/%lld", (long long)done, (long long)r->source.data.n);
    }
    free(states);
}

static void run_loop(struct regrade *r, struct dispatch *d, struct pva_error *err) {
    int64_t items[DISPATCH_MOST], most = 2 * campaign_grade_jobs(r->options);
    double stop_at = 0;
    while (!err->code && (!dispatch_finished(d) || r->grading)) {
        int64_t n = r->grading ? dispatch_next(d, most - r->grading, items) : dispatch_wait(d, most, items);
        if (dispatch_stopping(d) && !stop_at) stop_at = engine_now() + pva_options_real(r->options, "grace");
        for (int64_t i = 0; i < n && !stop_at && !err->code; i++) start_item(r, items[i], err);
        if (!err->code) take_verdicts(r, err);
        if (stop_at && engine_now() > stop_at) break;
        show_progress(r);
    }
    pva_log_progress_end();
    if (err->code) dispatch_fail(d);
}

/* ---- the outcome ---- */

static void print_table(int64_t counts[PVA_N_VERDICTS][PVA_N_VERDICTS]) {
    int64_t columns[PVA_N_VERDICTS] = {0};
    for (int a = 0; a < PVA_N_VERDICTS; a++)
        for (int b = 0; b < PVA_N_VERDICTS; b++) columns[b] += counts[a][b];
    printf("%-10s", "old \\ new");
    for (int b = 0; b < PVA_N_VERDICTS; b++)
        if (columns[b]) printf(" %10s", pva_verdict_name((enum pva_verdict)b));
    printf("\n");
    for (int a = 0; a < PVA_N_VERDICTS; a++) {
        int64_t sum = 0;
        for (int b = 0; b < PVA_N_VERDICTS; b++) sum += counts[a][b];
        if (!sum) continue;
        printf("%-10s", pva_verdict_name((enum pva_verdict)a));
        for (int b = 0; b < PVA_N_VERDICTS; b++)
            if (columns[b]) printf(" %10lld", (long long)counts[a][b]);
        printf("\n");
    }
}

static int print_changes(struct regrade *r, struct pva_error *err) {
    int64_t counts[PVA_N_VERDICTS][PVA_N_VERDICTS] = {{0}}, done = 0, verdicts = 0, programs = 0, gained = 0, lost = 0;
    size_t bytes = store_field_bytes(r->results, PHASE1_PROGRAM);
    char *old_program = malloc(bytes), *new_program = malloc(bytes);
    if (!old_program || !new_program) pva_fail(err, PVA_IO, "out of memory");
    for (int64_t i = 0; i < r->source.data.n && !err->code; i++) {
        uint8_t a = 0, b = 0;
        if (r->source.data.states[i] != STORE_DONE) continue;
        if (store_read(r->source.data.store, i, PHASE1_VERDICT, &a, err) || store_read(r->results, i, PHASE1_VERDICT, &b, err) ||
            store_read(r->source.data.store, i, PHASE1_PROGRAM, old_program, err) || store_read(r->results, i, PHASE1_PROGRAM, new_program, err))
            break;
        if (a >= PVA_N_VERDICTS || b >= PVA_N_VERDICTS) {
            pva_fail(err, PVA_INPUT, "%s: record %lld is damaged", r->source.data.path, (long long)i);
            break;
        }
        done++;
        counts[a][b]++;
        verdicts += a != b;
        programs += memcmp(old_program, new_program, bytes) != 0;
        gained += a != PVA_PASS && b == PVA_PASS;
        lost += a == PVA_PASS && b != PVA_PASS;
    }
    free(old_program), free(new_program);
    if (err->code) return err->code;
    printf("%lld records: %lld verdicts changed (%lld pass now, %lld pass no longer), %lld programs changed; %s/phase1.h5\n", (long long)done,
           (long long)verdicts, (long long)gained, (long long)lost, (long long)programs, r->run.directory);
    print_table(counts);
    return PVA_OK;
}

/* ---- the command ---- */

static int regrade(struct regrade *r, struct pva_error *err) {
    char hosts[2048];
    int outcome = DISPATCH_COMPLETE;
    int64_t *damaged = NULL, n_damaged = 0;
    if (r->par.rank == 0) {
        check_out(r, err);
        if (!err->code && !store_check(r->source.data.store, &damaged, &n_damaged, err) && n_damaged)
            pva_fail(err, PVA_INPUT, "%s: %lld records are damaged; run phase1 on it again, it computes them anew", r->source.data.path, (long long)n_damaged);
        free(damaged);
    }
    if (par_agree(&r->par, "check", err) || run_open(&r->par, pva_options_text(r->options, "out"), "regrade", &r->run, err)) return err->code;
    run_list_hosts(&r->par, hosts, sizeof hosts);
    if (open_stores(r, err)) return err->code;
    if (r->par.rank == 0) write_manifest(r, hosts, err);
    if (par_agree(&r->par, "write manifest", err)) return err->code;
    struct schedule *schedule = NULL;
    int64_t *costs = calloc((size_t)r->source.data.n, sizeof *costs);
    if (!costs) pva_fail(err, PVA_IO, "out of memory");
    for (int64_t i = 0; costs && i < r->source.data.n; i++) costs[i] = 1;
    if (!err->code && r->par.rank == 0) schedule_create(r->source.data.n, costs, NULL, r->states, r->par.size, &schedule, err);
    free(costs);
    if (par_agree(&r->par, "plan work", err)) return err->code;
    struct dispatch *d = dispatch_open(&r->par, schedule, 2, stop_requested);
    r->start = engine_now();
    run_loop(r, d, err);
    outcome = dispatch_close(&d);
    schedule_free(&schedule);
    if (par_agree(&r->par, "regrade", err)) return err->code;
    if (outcome & DISPATCH_STOPPED) return pva_fail(err, PVA_STOPPED, "stopped; everything finished is stored, run the same command to go on");
    if (r->par.rank == 0) print_changes(r, err);
    return par_agree(&r->par, "count", err);
}

int pva_command_regrade(const struct pva_options *o, struct pva_error *err) {
    struct regrade r = {.options = o};
    struct pva_error late = {0};
    stop_install();
    if (!open_source(&r, err)) open_grader(&r, err); /* forks: before MPI */
    if (par_open(&r.par, &late)) {
        pva_grader_close(&r.grader);
        return pva_fail(err, late.code, "%s", late.msg);
    }
    if (r.par.rank) pva_log_screen(PVA_LOG_ERROR);
    if (!err->code) open_problems(&r, err);
    if (!par_agree(&r.par, "start", err)) regrade(&r, err);
    for (int64_t i = 0; r.programs && i < r.source.data.n; i++) free(r.programs[i]);
    free(r.programs), free(r.n_programs), free(r.states), free(r.buffer);
    if (r.diagnostics) store_close(&r.diagnostics, &late);
    if (r.results) store_close(&r.results, &late);
    if (r.source_diagnostics) store_close(&r.source_diagnostics, &late);
    phase1_source_close(&r.source);
    pva_prompt_template_free(&r.template);
    pva_problems_free(&r.problems);
    pva_options_free(&r.run_options);
    run_close(&r.run);
    pva_grader_close(&r.grader);
    par_agree(&r.par, "close", &late);
    if (late.code && !err->code) *err = late;
    if (r.par.rank) err->msg[0] = 0; /* rank 0 says it */
    par_close(&r.par);
    return err->code;
}
