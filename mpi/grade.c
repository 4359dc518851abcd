/* pva-mpi grade: samples in, verdicts out, one line per sample in the samples' order. Starts no MPI: one process, --jobs programs
 * at once. */
#include "commands.h"

#include "pva/extract.h"
#include "pva/grade.h"
#include "pva/log.h"
#include "pva/problems.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

const struct pva_option pva_grade_options[] = {
    {.name = "problems",
     .type = PVA_OPT_TEXT,
     .argument = "FILE",
     .help = "MBPP or HumanEval: JSON lines or a hub export, also .gz"},
    {.name = "samples",
     .type = PVA_OPT_TEXT,
     .argument = "FILE",
     .help = "JSON lines: task_id, and completion (extracted first) or solution (the program)"},
    {.name = "out",
     .type = PVA_OPT_TEXT,
     .argument = "FILE",
     .help = "verdicts as JSON lines; a file begun earlier is continued"},
    {.name = "overwrite", .type = PVA_OPT_FLAG, .fallback = "no", .help = "begin the file given by --out anew"},
    {.name = "jobs",
     .type = PVA_OPT_INT,
     .argument = "N",
     .fallback = "0",
     .help = "programs at once; 0: one per CPU",
     .min = 0,
     .max = 64},
    {.name = "extract",
     .type = PVA_OPT_CHOICE,
     .argument = "RULE",
     .fallback = "program",
     .choices = "program|first-function",
     .help = "from completion to program"},
    {.name = "python",
     .type = PVA_OPT_TEXT,
     .argument = "PATH",
     .help = "interpreter, 3.8 or newer; default: the first python3 on PATH that works in the sandbox"},
    {.name = "preload-imports",
     .type = PVA_OPT_FLAG,
     .fallback = "no",
     .help = "put the usual standard imports before each program"},
    {.name = "challenge-tests", .type = PVA_OPT_FLAG, .fallback = "no", .help = "run MBPP's challenge tests too"},
    {.name = "cpu-seconds",
     .type = PVA_OPT_REAL,
     .argument = "S",
     .fallback = "10",
     .help = "CPU time of a program, or 4 times its reference's if that is more",
     .min = 0.05,
     .max = 86400},
    {.name = "memory", .type = PVA_OPT_BYTES, .argument = "SIZE", .fallback = "1G", .help = "address space of a program"},
    {.name = "calibrate",
     .type = PVA_OPT_FLAG,
     .fallback = "no",
     .help = "time all references on this node first, instead of those that turn out to matter"},
    {.name = "require-sandbox",
     .type = PVA_OPT_CHOICE,
     .argument = "LEVEL",
     .fallback = "basic",
     .choices = "basic|strong",
     .help = "refuse to run with less"},
    {.name = "sandbox",
     .type = PVA_OPT_CHOICE,
     .argument = "HOW",
     .fallback = "auto",
     .choices = "auto|none-i-understand",
     .help = "none-i-understand: run even where the kernel cannot confine programs"},
    {.name = NULL},
};

struct sample {
    const struct pva_problem *problem;
    json_t *task_id; /* as given: text or number */
    char *program;
    size_t n_program;
    uint64_t hash; /* of the program */
};

struct run {
    const struct pva_options *options;
    struct pva_problems *problems;
    struct sample *samples; /* [n] */
    size_t n, room;
    int out;        /* R, open for appending */
    size_t written; /* lines of R */
    char **lines;   /* [n] results that wait for an earlier one, NULL otherwise */
    size_t counts[PVA_N_VERDICTS], graded, began_with;
    double started;
};

static volatile sig_atomic_t stop_signal;

static void on_signal(int number) { stop_signal = number; }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- Samples ---- */

static uint64_t hash_of(const char *bytes, size_t n) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    return h;
}

/* The program that is graded. A solution is one already; a HumanEval completion continues its prompt. */
static int make_program(struct run *r, struct sample *s, const json_t *text, int is_solution, struct pva_error *err) {
    size_t n = json_string_length(text);
    const char *given = json_string_value(text);
    if (is_solution) {
        s->n_program = n;
        s->program = malloc(n + 1);
        if (!s->program) return pva_fail(err, PVA_IO, "out of memory");
        memcpy(s->program, given, n + 1);
    } else {
        enum pva_extract_rule rule;
        struct pva_extract *x = NULL;
        int rc = pva_extract_rule_parse(pva_options_text(r->options, "extract"), &rule, err);
        rc = rc ? rc : pva_extract_create(rule, &x, err);
        if (!rc && s->problem->kind == PVA_HUMANEVAL) rc = pva_extract_feed(x, s->problem->text, strlen(s->problem->text), err);
        rc = rc ? rc : pva_extract_feed(x, given, n, err);
        rc = rc ? rc : pva_extract_program(x, &s->program, &s->n_program, err);
        if (x) pva_extract_free(&x);
        if (rc) return rc;
    }
    s->hash = hash_of(s->program, s->n_program);
    return PVA_OK;
}

static int read_sample(struct run *r, const json_t *o, struct pva_error *err) {
    const json_t *solution = json_object_get(o, "solution"), *completion = json_object_get(o, "completion");
    json_t *id = json_object_get(o, "task_id");
    char digits[32];
    if (!json_is_object(o)) return pva_fail(err, PVA_INPUT, "expected a JSON object");
    if (json_is_integer(id)) snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(id));
    const char *name = json_is_integer(id) ? digits : json_string_value(id);
    if (!name) return pva_fail(err, PVA_INPUT, "\"task_id\" is missing, expected a text or a number");
    const json_t *text = solution && !json_is_null(solution) ? solution : completion;
    if (!json_is_string(text)) return pva_fail(err, PVA_INPUT, "neither \"solution\" nor \"completion\" is a text");
    const struct pva_problem *p = pva_problems_find(r->problems, name);
    if (!p) return pva_fail(err, PVA_INPUT, "task_id \"%.100s\" is not among the problems", name);
    if (r->n == r->room) {
        size_t room = r->room ? 2 * r->room : 1024;
        struct sample *grown = realloc(r->samples, room * sizeof *grown);
        if (!grown) return pva_fail(err, PVA_IO, "out of memory");
        r->samples = grown;
        r->room = room;
    }
    struct sample *s = &r->samples[r->n];
    *s = (struct sample){.problem = p};
    int rc = make_program(r, s, text, text == solution, err);
    if (rc) return rc;
    s->task_id = json_incref(id);
    r->n++;
    return PVA_OK;
}

/* Every line is read before anything is graded: a bad one must not show after an hour. */
static int read_samples(struct run *r, const char *path, struct pva_error *err) {
    char *text;
    size_t n, line = 1;
    int rc = pva_read_text(path, &text, &n, err);
    if (rc) return rc;
    for (const char *p = text, *end = text + n; p < end && !rc; line++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p)), *stop = newline ? newline : end;
        size_t blanks = 0;
        while (p + blanks < stop && (p[blanks] == ' ' || p[blanks] == '\t' || p[blanks] == '\r')) blanks++;
        if (p + blanks < stop) {
            json_error_t bad;
            json_t *o = json_loadb(p, (size_t)(stop - p), JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &bad);
            rc = o ? read_sample(r, o, err) : pva_fail(err, PVA_INPUT, "not a JSON object: %s (column %d)", bad.text, bad.column);
            json_decref(o);
            if (rc) {
                struct pva_error placed = {0};
                pva_fail(&placed, rc, "%s:%zu: %s", path, line, err->msg);
                *err = placed;
            }
        }
        p = newline ? newline + 1 : end;
    }
    free(text);
    if (!rc && !r->n) rc = pva_fail(err, PVA_INPUT, "%s: no sample in the file", path);
    return rc;
}

/* ---- Results ---- */

static char *result_line(const struct sample *s, const struct pva_grade_result *g) {
    char hash[17];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)s->hash);
    json_t *o = json_pack("{s:O, s:s, s:f, s:s, s:s, s:f, s:f, s:I, s:s, s:s, s:s}", "task_id", s->task_id, "verdict",
                          pva_verdict_name(g->verdict), "seconds", g->cpu_seconds, "detail", g->detail, "exception", g->kind,
                          "wall_seconds", g->wall_seconds, "cpu_limit", g->cpu_limit, "peak_memory", (json_int_t)g->peak_memory,
                          "stdout", g->out, "stderr", g->err, "program_hash", hash);
    if (o) json_object_set_new(o, "failed_test", g->failed_test < 0 ? json_null() : json_integer(g->failed_test));
    char *text = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(o);
    size_t n = text ? strlen(text) : 0;
    char *line = text ? realloc(text, n + 2) : NULL;
    if (!line) return free(text), NULL;
    memcpy(line + n, "\n", 2);
    return line;
}

static enum pva_verdict verdict_of(const json_t *o) {
    const char *name = json_string_value(json_object_get(o, "verdict"));
    for (int v = 0; v < PVA_N_VERDICTS && name; v++)
        if (!strcmp(name, pva_verdict_name((enum pva_verdict)v))) return (enum pva_verdict)v;
    return PVA_N_VERDICTS;
}

/* Takes over the whole lines of a file begun earlier; each must belong to its sample. A torn last line goes. */
static int take_over(struct run *r, const char *path, struct pva_error *err) {
    char *text;
    size_t n, kept = 0;
    int rc = pva_read_text(path, &text, &n, err);
    if (rc) return rc;
    for (char *p = text, *newline; !rc && (newline = memchr(p, '\n', n - (size_t)(p - text))); p = newline + 1) {
        json_t *o = json_loadb(p, (size_t)(newline - p), JSON_ALLOW_NUL, NULL);
        const char *hash = json_string_value(json_object_get(o, "program_hash"));
        enum pva_verdict v = verdict_of(o);
        if (r->written == r->n || v == PVA_N_VERDICTS || !hash || strtoull(hash, NULL, 16) != r->samples[r->written].hash ||
            !json_equal(json_object_get(o, "task_id"), r->samples[r->written].task_id))
            rc = pva_fail(err, PVA_REFUSED,
                          "%s:%zu: not the verdict on this sample; the file is from other samples or another --extract. "
                          "Name another file, or --overwrite to begin anew",
                          path, r->written + 1);
        else {
            r->counts[v]++;
            r->written++;
            kept = (size_t)(newline - text) + 1;
        }
        json_decref(o);
    }
    free(text);
    if (!rc && kept < n && ftruncate(r->out, (off_t)kept))
        rc = pva_fail(err, PVA_IO, "%s: cannot drop its torn last line: %s", path, strerror(errno));
    return rc;
}

static int open_results(struct run *r, const char *path, struct pva_error *err) {
    r->out = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    struct stat st;
    if (r->out < 0 || fstat(r->out, &st)) return pva_fail(err, PVA_IO, "%s: cannot write: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return pva_fail(err, PVA_USAGE, "%s: not a regular file", path);
    if (flock(r->out, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return pva_fail(err, PVA_REFUSED, "%s: another process is writing it", path);
    if (pva_options_flag(r->options, "overwrite") && ftruncate(r->out, 0))
        return pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    return take_over(r, path, err);
}

static int write_all(int fd, const char *text, const char *path, struct pva_error *err) {
    for (size_t n = strlen(text); n;) {
        ssize_t k = write(fd, text, n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0)
            return pva_fail(err, PVA_IO, "%s: cannot write: %s; run the same command again to go on", path, strerror(errno));
        text += k;
        n -= (size_t)k;
    }
    return PVA_OK;
}

/* Writes what is complete from the front, so that the order is the samples'. */
static int write_ready(struct run *r, const char *path, struct pva_error *err) {
    int rc = PVA_OK;
    while (!rc && r->written < r->n && r->lines[r->written]) {
        rc = write_all(r->out, r->lines[r->written], path, err);
        free(r->lines[r->written]);
        r->lines[r->written++] = NULL;
    }
    return rc;
}

/* ---- The work ---- */

static void show_calibration(size_t done, size_t n) { pva_log_progress("timing references: %zu/%zu", done, n); }

static int calibrate(struct run *r, struct pva_grader *g, struct pva_error *err) {
    size_t total = pva_problems_count(r->problems), n = 0, failing = 0;
    const struct pva_problem **wanted = calloc(total, sizeof *wanted);
    char *seen = calloc(total, 1);
    double *seconds = calloc(total, sizeof *seconds);
    int rc = wanted && seen && seconds ? PVA_OK : pva_fail(err, PVA_IO, "out of memory");
    for (size_t i = r->written; i < r->n && !rc; i++) { /* only the problems that samples are about */
        size_t at = (size_t)(r->samples[i].problem - pva_problems_at(r->problems, 0));
        if (!seen[at]++) wanted[n++] = r->samples[i].problem;
    }
    rc = rc ? rc : pva_grader_calibrate(g, wanted, n, seconds, show_calibration, err);
    pva_log_progress_end();
    for (size_t i = 0; i < n && !rc; i++)
        if (seconds[i] < 0) {
            if (!failing++)
                pva_log(PVA_LOG_WARNING, "the reference of task %s does not pass its own tests here", wanted[i]->task_id);
        }
    if (failing > 1) pva_log(PVA_LOG_WARNING, "nor do those of %zu more tasks; their programs get the default time", failing - 1);
    free(wanted), free(seen), free(seconds);
    return rc;
}

static void show_progress(const struct run *r) {
    double elapsed = now() - r->started, rate = elapsed > 0 ? (double)r->graded / elapsed : 0;
    size_t done = r->began_with + r->graded;
    pva_log_progress("graded %zu/%zu, %.0f/s, pass %.1f %%, %.0f s left", done, r->n, rate,
                     done ? 100.0 * (double)r->counts[PVA_PASS] / (double)done : 0.0,
                     rate > 0 ? (double)(r->n - done) / rate : 0.0);
}

static int grade_all(struct run *r, struct pva_grader *g, const char *path, struct pva_error *err) {
    size_t next = r->written, open_limit = 4096; /* results that may wait for an earlier one */
    int rc = PVA_OK;
    while (!rc && r->written < r->n && !stop_signal) {
        while (!rc && next < r->n && pva_grader_pending(g) < 256 && next < r->written + open_limit) {
            const struct sample *s = &r->samples[next];
            struct pva_grade_job job = {.id = (int64_t)next,
                                        .problem = s->problem,
                                        .program = s->program,
                                        .n_program = s->n_program,
                                        .with_challenge = pva_options_flag(r->options, "challenge-tests")};
            rc = pva_grader_submit(g, &job, err);
            next++;
        }
        struct pva_grade_result result;
        int got = 0;
        rc = rc ? rc : pva_grader_poll(g, 200, &result, &got, err);
        if (!rc && got) {
            r->counts[result.verdict]++;
            r->graded++;
            if (!(r->lines[result.id] = result_line(&r->samples[result.id], &result)))
                rc = pva_fail(err, PVA_IO, "out of memory");
            if (result.verdict == PVA_UNGRADED)
                pva_log(PVA_LOG_WARNING, "sample %lld (task %s) could not be graded: %s", (long long)result.id + 1,
                        r->samples[result.id].problem->task_id, result.detail);
        }
        rc = rc ? rc : write_ready(r, path, err);
        show_progress(r);
    }
    pva_log_progress_end();
    if (!rc && fsync(r->out)) rc = pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    return rc;
}

static void summarise(const struct run *r, const struct pva_sandbox *sandbox, const char *path) {
    double elapsed = now() - r->started;
    printf("%zu samples, %zu pass (%.1f %%)", r->n, r->counts[PVA_PASS], 100.0 * (double)r->counts[PVA_PASS] / (double)r->n);
    for (int v = 1; v < PVA_N_VERDICTS; v++)
        if (r->counts[v]) printf(", %zu %s", r->counts[v], pva_verdict_name((enum pva_verdict)v));
    printf("; %zu graded in %.1f s (%.0f/s) with Python %s, sandbox %.*s; %s\n", r->graded, elapsed,
           elapsed > 0 ? (double)r->graded / elapsed : 0.0, sandbox->version, (int)strcspn(sandbox->text, ":"), sandbox->text,
           path);
}

static int grade_rest(struct run *r, struct pva_error *err) {
    const char *path = pva_options_text(r->options, "out"), *level = pva_options_text(r->options, "require-sandbox");
    struct pva_grader_settings settings = {
        .python = pva_options_text(r->options, "python"),
        .n_jobs = (int)pva_options_int(r->options, "jobs"),
        .cpu_seconds = pva_options_real(r->options, "cpu-seconds"),
        .memory = pva_options_bytes(r->options, "memory"),
        .preload_imports = pva_options_flag(r->options, "preload-imports"),
        .require = strcmp(level, "strong") ? PVA_SANDBOX_BASIC : PVA_SANDBOX_STRONG,
        .allow_none = !strcmp(pva_options_text(r->options, "sandbox"), "none-i-understand"),
    };
    struct pva_grader *g = NULL;
    struct pva_sandbox sandbox;
    struct sigaction stop = {.sa_handler = on_signal}, before[3];
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1};
    int rc = pva_grader_open(&settings, &g, &sandbox, err);
    if (rc) return rc;
    pva_log(PVA_LOG_INFO, "sandbox %s; %s (Python %s)", sandbox.text, sandbox.python, sandbox.version);
    if (sandbox.level == PVA_SANDBOX_NONE) pva_log(PVA_LOG_WARNING, "programs run unconfined: %s", sandbox.text);
    for (int i = 0; i < 3; i++) sigaction(signals[i], &stop, &before[i]);
    r->started = now();
    if (pva_options_flag(r->options, "calibrate")) rc = calibrate(r, g, err);
    rc = rc ? rc : grade_all(r, g, path, err);
    pva_grader_close(&g);
    for (int i = 0; i < 3; i++) sigaction(signals[i], &before[i], NULL);
    if (!rc && r->written < r->n)
        rc = pva_fail(err, PVA_STOPPED, "stopped by signal %d after %zu of %zu samples; run the same command to go on",
                      (int)stop_signal, r->written, r->n);
    if (!rc) summarise(r, &sandbox, path);
    return rc;
}

int pva_command_grade(const struct pva_options *o, struct pva_error *err) {
    struct run r = {.options = o, .out = -1};
    int rc = pva_options_require(o, "problems", err);
    rc = rc ? rc : pva_options_require(o, "samples", err);
    rc = rc ? rc : pva_options_require(o, "out", err);
    stop_signal = 0;
    rc = rc ? rc : pva_problems_load(pva_options_text(o, "problems"), &r.problems, err);
    rc = rc ? rc : read_samples(&r, pva_options_text(o, "samples"), err);
    rc = rc ? rc : open_results(&r, pva_options_text(o, "out"), err);
    if (!rc && !(r.lines = calloc(r.n, sizeof *r.lines))) rc = pva_fail(err, PVA_IO, "out of memory");
    r.began_with = r.written;
    if (!rc && r.written == r.n)
        printf("%zu samples, all graded before, %zu pass; %s\n", r.n, r.counts[PVA_PASS], pva_options_text(o, "out"));
    else if (!rc) rc = grade_rest(&r, err);
    for (size_t i = 0; i < r.n; i++) {
        json_decref(r.samples[i].task_id);
        free(r.samples[i].program);
        if (r.lines) free(r.lines[i]);
    }
    free(r.samples);
    free(r.lines);
    if (r.out >= 0) close(r.out);
    pva_problems_free(&r.problems);
    return rc;
}
