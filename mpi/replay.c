/* replay: one record of a run again, with the run's own settings, side by side with what is stored. */
#include "commands.h"
#include "engine.h"
#include "phase1_item.h"
#include "phase1_plan.h"
#include "phase1_source.h"

#include "pva/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct pva_option pva_replay_options[] = {
    {"run", PVA_OPT_TEXT, "DIR", NULL, "run directory (or give it without --run); only read", NULL, 0, 0},
    {"task", PVA_OPT_TEXT, "ID", NULL, "task id of the record", NULL, 0, 0},
    {"model", PVA_OPT_TEXT, "DIR", NULL, "the run's model, if it is elsewhere now", NULL, 0, 0},
    {"problems", PVA_OPT_TEXT, "FILE", NULL, "the run's problem file, if it is elsewhere now", NULL, 0, 0},
    {"prompt-template", PVA_OPT_TEXT, "NAME", NULL, "the run's template file, if it is elsewhere now", NULL, 0, 0},
    {"backend", PVA_OPT_CHOICE, "NAME", NULL, "another place to compute; default: the run's", "auto|cpu|cuda", 0, 0},
    {"isa", PVA_OPT_CHOICE, "SET", NULL, "another instruction set; default: the run's", "c|avx2|avx512|avx512bf16|amx|portable", 0, 0},
    {"threads", PVA_OPT_INT, "N", "0", "CPU threads; 0: as many as this process may use", NULL, 0, 4096},
    {"python", PVA_OPT_TEXT, "PATH", NULL, "interpreter for the program; default: the run's", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

struct replay {
    const struct pva_options *options;
    const char *from;
    struct pva_options *run_options;
    struct par par;
    struct pva_grader *grader;
    struct pva_sandbox sandbox;
    struct phase1_source source;
    int64_t slot; /* in the run */
    struct engine engine;
    struct phase1_plan plan; /* of this one problem */
    struct pva_generator *generator;
    struct phase1_item *item;
    int done;
    struct store *again, *diagnostics; /* the new record: files of one slot, removed at the end */
    char directory[512];
    struct pva_error *err;             /* what a callback found */
};

/* ---- what it starts from ---- */

static int open_source(struct replay *r, struct pva_error *err) {
    static const char *const chosen[] = {"model", "problems", "prompt-template", "backend", "isa", "python"};
    const char *const *words, *run = pva_options_text(r->options, "run"), *task = pva_options_text(r->options, "task");
    size_t n = pva_options_positional(r->options, &words);
    char number[32];
    if ((run != NULL) + n != 1) return pva_fail(err, PVA_USAGE, "name one run directory");
    r->from = run ? run : words[0];
    if (pva_options_require(r->options, "task", err)) return err->code;
    if (par_launched_with_others()) return pva_fail(err, PVA_USAGE, "one record is the work of one process: start it without mpirun or srun");
    if (phase1_source_open(r->from, &r->source, err)) return err->code;
    if (r->source.regraded_from[0])
        return pva_fail(err, PVA_INPUT, "%s: was made by regrade; replay the run its completions come from, %s", r->from, r->source.regraded_from);
    r->slot = phase1_source_find(&r->source, task);
    if (r->slot < 0)
        return pva_fail(err, PVA_INPUT, "--task %s: %s has no such record; its %lld task ids go from %s to %s", task, r->source.data.path, (long long)r->source.data.n,
                        r->source.problems.task_ids[0], r->source.problems.task_ids[r->source.data.n - 1]);
    if (r->source.data.states[r->slot] == STORE_EMPTY)
        return pva_fail(err, PVA_INPUT, "--task %s: %s is not finished and this record is not there yet", task, r->source.data.path);
    if (phase1_source_options(r->from, &r->run_options, err)) return err->code;
    for (int i = 0; i < 6; i++)
        if (pva_options_is_set(r->options, chosen[i]) && pva_options_set(r->run_options, chosen[i], pva_options_text(r->options, chosen[i]), err)) return err->code;
    const char *threads = pva_options_text(r->options, "threads");
    snprintf(number, sizeof number, "%d", (int)r->source.problems.index[r->slot]);
    if (pva_options_set(r->run_options, "start", number, err) || pva_options_set(r->run_options, "end", number, err) ||
        pva_options_set(r->run_options, "threads", threads, err) || pva_options_set(r->run_options, "batch-size", "1", err))
        return err->code;
    /* As the run resolved it: the model may have allowed less than was asked for. */
    snprintf(number, sizeof number, "%lld", (long long)r->source.identity.max_tokens);
    return pva_options_set(r->run_options, "max-tokens", number, err);
}

static int open_grader(struct replay *r, struct pva_error *err) {
    struct pva_grader_settings settings = {
        .python = pva_options_text(r->run_options, "python"),
        .n_jobs = 1,
        .preload_imports = r->source.identity.preload_imports,
        .require = strcmp(pva_options_text(r->run_options, "require-sandbox"), "strong") ? PVA_SANDBOX_BASIC : PVA_SANDBOX_STRONG,
        .allow_none = !strcmp(pva_options_text(r->run_options, "sandbox"), "none-i-understand"),
    };
    return pva_grader_open(&settings, &r->grader, &r->sandbox, err);
}

static int check_same(const char *what, const char *stored, const char *here, struct pva_error *err) {
    if (!strcmp(stored, here)) return PVA_OK;
    return pva_fail(err, PVA_REFUSED, "%s is not the run's: %.64s here, %.64s in the run; give the one it was made with", what, here, stored);
}

/* Model, problems and prompts by their hashes: with others the record would be another one, and differ for no news. */
static int check_identity(struct replay *r, struct pva_error *err) {
    struct phase1_identity id;
    const struct phase1_identity *stored = &r->source.identity;
    phase1_plan_identity(&r->plan, r->run_options, &id);
    if (check_same("the model (--model)", stored->model_sha256, id.model_sha256, err) ||
        check_same("the problem file (--problems)", stored->problems_sha256, id.problems_sha256, err) ||
        check_same("the prompt template (--prompt-template)", stored->prompt_sha256, id.prompt_sha256, err) ||
        check_same("config-phase1.yaml: dtype", stored->operand, id.operand, err) ||
        check_same("config-phase1.yaml: extraction", stored->extraction, id.extraction, err) ||
        check_same("config-phase1.yaml: positions", stored->positions, id.positions, err) ||
        check_same("config-phase1.yaml: hook", pva_point_name(stored->point), pva_point_name(id.point), err))
        return err->code;
    if (stored->seed != id.seed || stored->temperature != id.temperature || stored->preload_imports != id.preload_imports)
        return pva_fail(err, PVA_REFUSED, "%s/config-phase1.yaml: seed, temperature or preload-imports are not those in phase1.h5", r->from);
    int n = 0;
    for (int l = 0; l < r->source.n_layers; l++) n += r->plan.layers[l] == r->source.layers[l];
    if (n != r->source.n_layers || r->source.data.n_layers != r->plan.n_layers)
        return pva_fail(err, PVA_REFUSED, "%s/config-phase1.yaml: layers are not those in phase1.h5", r->from);
    return PVA_OK;
}

/* ---- the record again ---- */

static int on_token(void *user, int64_t id, const int32_t *tokens, int64_t n) {
    struct replay *r = user;
    int stop = 0;
    return phase1_item_token(r->item, r->engine.tokenizer, r->plan.stop_strings, tokens, n, &stop, r->err) || stop;
}

static void on_capture(void *user, int64_t id, int64_t position, const float *rows) {
    struct replay *r = user;
    if (!r->err->code) phase1_item_capture(r->item, rows, r->plan.resid_values, r->err);
}

static void on_done(void *user, const struct pva_completion *c) {
    struct replay *r = user;
    r->done = 1;
    if (!r->err->code) phase1_item_complete(r->item, r->engine.tokenizer, r->plan.stop_strings, r->plan.rule, c, r->err);
}

static int generate(struct replay *r, struct pva_error *err) {
    struct pva_generator_settings settings = phase1_plan_generator(&r->plan);
    const struct phase1_prompt *prompt = &r->plan.prompts[0];
    settings.events = (struct pva_generator_events){.user = r, .on_token = on_token, .on_capture = on_capture, .on_done = on_done};
    r->err = err;
    struct pva_request request = {
        .seed = (uint64_t)r->plan.seed,
        .item = (uint32_t)r->plan.problems.index[0],
        .prompt = prompt->ids,
        .n_prompt = prompt->n,
        .max_tokens = r->plan.max_tokens,
        .temperature = (float)r->plan.temperature,
        .intervention = -1,
    };
    if (phase1_item_create(0, prompt, r->plan.rule, r->plan.resid_values, r->plan.max_positions > 0, &r->item, err) ||
        pva_generator_open(r->engine.model, &settings, &r->generator, err) || pva_generator_submit(r->generator, &request, err))
        return err->code;
    for (int busy = 1; !r->done && busy && !err->code;) pva_generator_step(r->generator, &busy, err);
    return err->code;
}

/* Files of one slot with the run's shapes, so that the new record goes the way every record goes and can be compared byte by byte. */
static int open_stores(struct replay *r, struct pva_error *err) {
    const char *tmp = getenv("TMPDIR");
    char path[600];
    struct phase1_schema schema;
    struct diagnostics_schema diagnostics;
    phase1_source_schema(&r->source, &r->source.identity, &r->plan.problems, &schema);
    diagnostics_schema_fill(&diagnostics, &r->plan.problems);
    snprintf(r->directory, sizeof r->directory, "%.400s/pva-replay-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(r->directory)) {
        pva_fail(err, PVA_IO, "%s: %s", r->directory, strerror(errno));
        r->directory[0] = 0;
        return err->code;
    }
    snprintf(path, sizeof path, "%s/phase1.h5", r->directory);
    if (store_open(&r->par, path, &schema.store, STORE_FRESH, &r->again, err)) return err->code;
    snprintf(path, sizeof path, "%s/diagnostics.h5", r->directory);
    return store_open(&r->par, path, &diagnostics.store, STORE_FRESH, &r->diagnostics, err);
}

static void close_stores(struct replay *r) {
    static const char *const names[] = {"phase1.h5", "diagnostics.h5", "phase1.h5.lock", "diagnostics.h5.lock", "phase1.h5.partial", "diagnostics.h5.partial"};
    struct pva_error ignored = {0};
    char path[600];
    store_close(&r->again, &ignored);
    store_close(&r->diagnostics, &ignored);
    for (int i = 0; i < 6 && r->directory[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", r->directory, names[i]);
        unlink(path);
    }
    if (r->directory[0]) rmdir(r->directory);
}

/* *state: how the record ended. */
static int compute(struct replay *r, int *state, struct pva_error *err) {
    if (open_stores(r, err)) return err->code;
    *state = STORE_DONE;
    if (r->plan.prompts[0].n >= r->plan.max_tokens) {
        *state = PHASE1_TOO_LONG;
        return phase1_store_too_long(0, &r->plan.prompts[0], 0, r->again, r->diagnostics, err);
    }
    if (generate(r, err)) return err->code;
    struct pva_grade_job job = {.problem = r->plan.problem[0], .program = r->item->program, .n_program = r->item->n_program};
    struct pva_grade_result result;
    if (pva_grader_run(r->grader, &job, &result, err)) return err->code;
    return phase1_item_store(r->item, &result, 0, r->plan.max_tokens, r->again, r->diagnostics, err);
}

/* ---- side by side ---- */

enum { COLUMN = 60 };

/* The next line of a text: what fits of it into a column. Characters are counted as bytes; others than ASCII make the column narrower. */
static const char *take_line(const char *at, char line[COLUMN + 1]) {
    size_t n = strcspn(at, "\n"), shown = n < COLUMN ? n : COLUMN;
    memcpy(line, at, shown);
    while (n > COLUMN && shown && ((unsigned char)at[shown] & 0xc0) == 0x80) shown--; /* not in the middle of a character */
    line[shown] = 0;
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f) *p = ' ';
    return at[n] ? at + n + 1 : at + n;
}

static void print_texts(const char *name, const char *stored, const char *again, int differs) {
    char a[COLUMN + 1], b[COLUMN + 1];
    printf("\n%s: %s\n", name, differs ? "DIFFERS" : "equal");
    while (*stored || *again) {
        const char *x = stored, *y = again;
        stored = take_line(stored, a), again = take_line(again, b);
        size_t n = (size_t)(stored - x), m = (size_t)(again - y);
        int same = n == m && !memcmp(x, y, n);
        printf("  %-*s %c %s\n", COLUMN, a, same ? ' ' : '!', b);
    }
}

static void print_tokens(const int32_t *stored, const int32_t *again, int64_t n) {
    char a[COLUMN + 40], b[COLUMN + 40];
    printf("\ntokens\n");
    for (int64_t i = 0; i < n;) {
        size_t u = 0, v = 0;
        int same = 1;
        for (; i < n && u + 8 < COLUMN && v + 8 < COLUMN; i++) {
            u += (size_t)snprintf(a + u, sizeof a - u, "%d ", stored[i]), v += (size_t)snprintf(b + v, sizeof b - v, "%d ", again[i]);
            same &= stored[i] == again[i];
        }
        printf("  %-*s %c %s\n", COLUMN, a, same ? ' ' : '!', b);
    }
}

static void describe_value(const struct store *s, const char *name, const void *data, char *out, size_t size) {
    static const char *const finishes[] = {"end of text", "token limit", "program final", "repetition", "not numbers"};
    int field = store_field_index(s, name);
    int32_t number = 0;
    uint8_t byte = 0;
    if (field == PHASE1_EXCEPTION || field == PHASE1_PROMPT_SHA256) {
        snprintf(out, size, "%.*s", (int)store_field_bytes(s, field), (const char *)data);
        if (!*out) snprintf(out, size, "-");
    } else if (field == PHASE1_VERDICT || field == PHASE1_FINISH) {
        memcpy(&byte, data, 1);
        snprintf(out, size, "%s", field == PHASE1_VERDICT ? byte < PVA_N_VERDICTS ? pva_verdict_name((enum pva_verdict)byte) : "?" : byte < 5 ? finishes[byte] : "?");
    } else {
        memcpy(&number, data, sizeof number);
        snprintf(out, size, "%d", number);
    }
}

/* Where two fields differ first, and by how much. */
static void describe_difference(const struct store *s, int field, const void *a, const void *b, size_t bytes, char *out, size_t size) {
    size_t width = field == PHASE1_TEXT || field == PHASE1_PROGRAM ? 1 : (size_t)store_field_text_size(s, field), n = 0, first = 0;
    for (size_t i = bytes / width; i-- > 0;)
        if (memcmp((const char *)a + i * width, (const char *)b + i * width, width)) n++, first = i;
    snprintf(out, size, "DIFFERS in %zu of %zu values, from %zu on", n, bytes / width, first);
}

/* Prints everything; `different` gets the names of what differs. */
static int compare(struct replay *r, int state, char *different, size_t size, struct pva_error *err) {
    static const int values[] = {PHASE1_PROMPT_SHA256, PHASE1_N_PROMPT, PHASE1_N_NEW, PHASE1_FINISH, PHASE1_N_TEXT, PHASE1_N_PROGRAM, PHASE1_VERDICT,
                                 PHASE1_FAILED_TEST, PHASE1_EXCEPTION, PHASE1_N_POSITIONS};
    static const char *const names[] = {"n_prompt", "n_new", "tokens", "finish", "n_text", "text", "n_program", "program", "verdict", "failed_test", "exception",
                                        "prompt_sha256", "resid", "n_positions"};
    static const char *const states[] = {"empty", "done", "prompt-too-long"};
    void *stored[PHASE1_MOST_FIELDS] = {NULL}, *again[PHASE1_MOST_FIELDS] = {NULL};
    int differs[PHASE1_MOST_FIELDS] = {0}, old_state = r->source.data.states[r->slot], n_fields = r->source.identity.max_positions ? PHASE1_MOST_FIELDS : PHASE1_N_FIELDS;
    char a[200], b[200];
    different[0] = 0;
    if (old_state != state) snprintf(different, size, "state");
    for (int f = 0; f < n_fields && !err->code; f++) {
        size_t bytes = store_field_bytes(r->source.data.store, f);
        stored[f] = calloc(1, bytes + 1), again[f] = calloc(1, bytes + 1);
        if (!stored[f] || !again[f]) pva_fail(err, PVA_IO, "out of memory");
        else if (!store_read(r->source.data.store, r->slot, f, stored[f], err) && !store_read(r->again, 0, f, again[f], err) &&
                 (differs[f] = memcmp(stored[f], again[f], bytes) != 0)) {
            size_t used = strlen(different);
            snprintf(different + used, size - used, "%s%s", used ? ", " : "", names[f]);
        }
    }
    if (!err->code) {
        printf("task %s, record %lld of %s\n", r->source.problems.task_ids[r->slot], (long long)r->slot, r->source.data.path);
        if (strcmp(r->source.identity.isa, r->plan.isa) || strcmp(r->source.identity.backend, r->engine.ops->name))
            printf("stored by %s %s, computed again by %s %s: residual streams need not be equal to the last bit\n", r->source.identity.backend,
                   r->source.identity.isa, r->engine.ops->name, r->plan.isa);
        if (strcmp(r->source.identity.python, r->sandbox.version))
            printf("graded with Python %s, now with %s\n", r->source.identity.python, r->sandbox.version);
        printf("\n%-14s %-*s   %s\n%-14s %-*s %c %s\n", "", COLUMN - 14, "stored", "again", "state", COLUMN - 14, old_state < 3 ? states[old_state] : "?",
               old_state == state ? ' ' : '!', states[state]);
        for (int i = 0; i < 10; i++) {
            int f = values[i];
            if (f >= n_fields) continue;
            describe_value(r->source.data.store, names[f], stored[f], a, sizeof a), describe_value(r->source.data.store, names[f], again[f], b, sizeof b);
            printf("%-14s %-*.*s %c %.*s\n", names[f], COLUMN - 14, COLUMN - 14, a, differs[f] ? '!' : ' ', COLUMN - 14, b);
        }
        const int arrays[] = {PHASE1_TOKENS, PHASE1_RESID};
        for (int i = 0; i < 2; i++) {
            int f = arrays[i];
            size_t bytes = store_field_bytes(r->source.data.store, f);
            snprintf(a, sizeof a, "%zu bytes equal", bytes);
            if (differs[f]) describe_difference(r->source.data.store, f, stored[f], again[f], bytes, a, sizeof a);
            printf("%-14s %s\n", names[f], a);
        }
        int32_t n[4] = {0};
        memcpy(&n[0], stored[PHASE1_N_PROMPT], 4), memcpy(&n[1], stored[PHASE1_N_NEW], 4), memcpy(&n[2], again[PHASE1_N_PROMPT], 4), memcpy(&n[3], again[PHASE1_N_NEW], 4);
        int64_t from = n[0] < n[2] ? n[0] : n[2], to = (int64_t)n[0] + n[1] > (int64_t)n[2] + n[3] ? (int64_t)n[0] + n[1] : (int64_t)n[2] + n[3];
        if (from >= 0 && to <= r->source.identity.max_tokens && from < to)
            print_tokens((const int32_t *)stored[PHASE1_TOKENS] + from, (const int32_t *)again[PHASE1_TOKENS] + from, to - from);
        print_texts("completion", stored[PHASE1_TEXT], again[PHASE1_TEXT], differs[PHASE1_TEXT]);
        print_texts("program", stored[PHASE1_PROGRAM], again[PHASE1_PROGRAM], differs[PHASE1_PROGRAM]);
        printf("\n%s%s\n", different[0] ? "differs: " : "equal in every byte", different);
    }
    for (int f = 0; f < n_fields; f++) free(stored[f]), free(again[f]);
    return err->code;
}

/* ---- the command ---- */

int pva_command_replay(const struct pva_options *o, struct pva_error *err) {
    struct replay r = {.options = o};
    struct pva_error late = {0};
    char different[300] = "";
    int state = STORE_EMPTY;
    if (!open_source(&r, err)) open_grader(&r, err); /* forks: before MPI */
    if (err->code) goto done;
    if (par_open(&r.par, &late)) {
        *err = late;
        goto done;
    }
    if (!engine_open_shared(&r.par, r.run_options, 1, &r.engine, err) && !phase1_plan_make(&r.plan, &r.par, r.run_options, &r.engine, err) &&
        !check_identity(&r, err)) {
        struct pva_backend_info info;
        r.engine.ops->describe(r.engine.be, &info);
        snprintf(r.plan.isa, sizeof r.plan.isa, "%s", info.isa);
        if (!compute(&r, &state, err)) compare(&r, state, different, sizeof different, err);
    }
done:
    pva_generator_close(&r.generator);
    if (r.item) phase1_item_free(&r.item);
    close_stores(&r);
    phase1_plan_free(&r.plan);
    engine_close(&r.engine);
    phase1_source_close(&r.source);
    pva_options_free(&r.run_options);
    pva_grader_close(&r.grader);
    par_close(&r.par);
    if (err->code) return err->code;
    return different[0] ? pva_fail(err, PVA_CHECK, "the record differs from what is stored in: %s", different) : PVA_OK;
}
