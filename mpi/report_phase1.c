/* The report on phase 1: how many problems were solved, which, how long it took. */
#include "phase1_read.h"
#include "report.h"

#include "pva/grade.h"
#include "pva/split.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const bin_names[PVA_N_DIFFICULTIES] = {"1", "2-3", "4 and more"};

struct counts {
    int64_t n[PVA_N_PARTS + 1][PVA_N_DIFFICULTIES + 1], passed[PVA_N_PARTS + 1][PVA_N_DIFFICULTIES + 1]; /* the last row and column: all */
    int64_t verdicts[PVA_N_VERDICTS];
    int64_t done, too_long;
};

static void count(const struct phase1_data *d, struct counts *c) {
    for (int64_t i = 0; i < d->n; i++) {
        if (d->states[i] == PHASE1_TOO_LONG) c->too_long++;
        if (d->states[i] != STORE_DONE || d->part[i] >= PVA_N_PARTS) continue;
        int passed = d->verdicts[i] == PVA_PASS, part = d->part[i], bin = pva_difficulty_bin(d->difficulty[i]);
        c->done++;
        c->verdicts[d->verdicts[i]]++;
        c->n[part][bin]++, c->n[PVA_N_PARTS][bin]++, c->n[part][PVA_N_DIFFICULTIES]++, c->n[PVA_N_PARTS][PVA_N_DIFFICULTIES]++;
        c->passed[part][bin] += passed, c->passed[PVA_N_PARTS][bin] += passed;
        c->passed[part][PVA_N_DIFFICULTIES] += passed, c->passed[PVA_N_PARTS][PVA_N_DIFFICULTIES] += passed;
    }
}

static void split_table(struct report *r, const struct counts *c) {
    enum { ROWS = PVA_N_PARTS + 1, BINS = PVA_N_DIFFICULTIES + 1 };
    const char *parts[ROWS];
    int64_t problems[ROWS], passed[ROWS];
    double rate[ROWS], low[ROWS], high[ROWS], bins[PVA_N_DIFFICULTIES][ROWS];
    for (int p = 0; p < ROWS; p++) {
        int64_t n = c->n[p][PVA_N_DIFFICULTIES];
        struct pva_interval wilson = pva_rate_wilson(c->passed[p][PVA_N_DIFFICULTIES], n, 0.95);
        parts[p] = p < PVA_N_PARTS ? pva_part_name((enum pva_part)p) : "all";
        problems[p] = n, passed[p] = c->passed[p][PVA_N_DIFFICULTIES];
        rate[p] = n ? 100.0 * (double)passed[p] / (double)n : NAN, low[p] = 100 * wilson.low, high[p] = 100 * wilson.high;
        for (int b = 0; b < PVA_N_DIFFICULTIES; b++) bins[b][p] = c->n[p][b] ? 100.0 * (double)c->passed[p][b] / (double)c->n[p][b] : NAN;
    }
    const struct pva_column columns[] = {
        {"part", PVA_COLUMN_TEXT, parts},       {"problems", PVA_COLUMN_I64, problems},   {"passed", PVA_COLUMN_I64, passed},
        {"pass rate %", PVA_COLUMN_F64, rate},  {"95\xc2\xa0% from", PVA_COLUMN_F64, low},       {"to", PVA_COLUMN_F64, high},
        {"% at complexity 1", PVA_COLUMN_F64, bins[0]}, {"at 2-3", PVA_COLUMN_F64, bins[1]}, {"at 4 and more", PVA_COLUMN_F64, bins[2]},
    };
    const char *const formats[] = {NULL, NULL, NULL, "%.1f", "%.1f", "%.1f", "%.1f", "%.1f", "%.1f"};
    const struct pva_table table = {ROWS, sizeof columns / sizeof *columns, columns};
    pva_html_table(r->page, "Latents are chosen on the selection part, thresholds and coefficients on the tuning part; results are reported on the validation part. "
                            "Intervals: Wilson. Complexity: decisions in the reference solution and one (McCabe).", &table, formats, NULL);
}

static void difficulty_picture(struct report *r, const struct counts *c) {
    double x[PVA_N_DIFFICULTIES], rate[PVA_N_DIFFICULTIES], low[PVA_N_DIFFICULTIES], high[PVA_N_DIFFICULTIES], zero_to_one[] = {0, 1};
    for (int b = 0; b < PVA_N_DIFFICULTIES; b++) {
        struct pva_interval i = pva_rate_wilson(c->passed[PVA_N_PARTS][b], c->n[PVA_N_PARTS][b], 0.95);
        x[b] = b, low[b] = i.low, high[b] = i.high;
        rate[b] = c->n[PVA_N_PARTS][b] ? (double)c->passed[PVA_N_PARTS][b] / (double)c->n[PVA_N_PARTS][b] : NAN;
    }
    const struct pva_series s = {.kind = PVA_SERIES_INTERVALS, .colour = PVA_BLUE, .n = PVA_N_DIFFICULTIES, .x = x, .y = rate, .low = low, .high = high};
    const struct pva_figure f = {.title = "Pass rate by difficulty", .x_label = "cyclomatic complexity of the reference solution", .y_label = "fraction solved",
                                 .y_range = zero_to_one, .x_names = bin_names, .n_x_names = PVA_N_DIFFICULTIES, .series = &s, .n_series = 1};
    char alt[300] = "Fraction of problems solved by complexity of the reference:";
    for (int b = 0; b < PVA_N_DIFFICULTIES; b++)
        if (!isnan(rate[b])) report_add(alt, sizeof alt, " %.2f at %s;", rate[b], bin_names[b]);
    alt[strlen(alt) - 1] = '.';
    report_picture(r, "pass-rate-difficulty", &f, alt, "With 95 % Wilson intervals.");
}

static const char *const meanings[PVA_N_VERDICTS] = {
    [PVA_PASS] = "all tests hold",
    [PVA_ASSERTION] = "a test does not hold",
    [PVA_EXCEPTION] = "the program or a test raised one",
    [PVA_SYNTAX] = "Python cannot compile it",
    [PVA_TIMEOUT] = "it did not end in time",
    [PVA_MEMORY] = "it wanted too much memory",
    [PVA_SANDBOX] = "it tried what the sandbox forbids",
    [PVA_NO_CODE] = "the model wrote no program",
    [PVA_UNGRADED] = "the grader failed, which says nothing about the program",
};

static void verdict_picture(struct report *r, const struct counts *c) {
    const char *names[PVA_N_VERDICTS];
    double x[PVA_N_VERDICTS], y[PVA_N_VERDICTS];
    int n = 0;
    char alt[500] = "Number of problems by verdict:", caption[700] = "What became of each program.";
    for (int v = 0; v < PVA_N_VERDICTS; v++) {
        if (!c->verdicts[v]) continue;
        names[n] = pva_verdict_name((enum pva_verdict)v), x[n] = n, y[n] = (double)c->verdicts[v];
        report_add(alt, sizeof alt, " %s %.0f,", names[n], y[n]);
        report_add(caption, sizeof caption, " %s: %s;", names[n], meanings[v]);
        n++;
    }
    alt[strlen(alt) - 1] = caption[strlen(caption) - 1] = '.';
    const struct pva_series s = {.kind = PVA_SERIES_BARS, .colour = PVA_BLUE, .n = n, .x = x, .y = y};
    const struct pva_figure f = {.title = "Verdicts", .y_label = "problems", .x_names = names, .n_x_names = n, .series = &s, .n_series = 1};
    report_picture(r, "verdicts", &f, alt, caption);
}

/* Which exceptions: the most frequent first, equal ones by name. */
struct kind {
    char name[PHASE1_EXCEPTION_SIZE + 1];
    int64_t n;
};
static int more_frequent(const void *a, const void *b) {
    const struct kind *x = a, *y = b;
    return x->n != y->n ? (x->n < y->n) - (x->n > y->n) : strcmp(x->name, y->name);
}

static int exception_table(struct report *r, struct phase1_data *d, struct pva_error *err) {
    struct kind *kinds = calloc((size_t)d->n + 1, sizeof *kinds);
    int64_t n = 0;
    if (!kinds) return pva_fail(err, PVA_IO, "out of memory");
    for (int64_t i = 0; i < d->n && !err->code; i++) {
        char name[PHASE1_EXCEPTION_SIZE + 1] = "";
        if (d->states[i] != STORE_DONE || d->verdicts[i] != PVA_EXCEPTION || store_read(d->store, i, PHASE1_EXCEPTION, name, err)) continue;
        int64_t k = 0;
        while (k < n && strcmp(kinds[k].name, name)) k++;
        if (k == n) memcpy(kinds[n++].name, name, sizeof name);
        kinds[k].n++;
    }
    qsort(kinds, (size_t)n, sizeof *kinds, more_frequent);
    if (n > 10) n = 10;
    const char *names[10];
    int64_t counts[10];
    for (int64_t k = 0; k < n; k++) names[k] = kinds[k].name, counts[k] = kinds[k].n;
    const struct pva_column columns[] = {{"exception", PVA_COLUMN_TEXT, names}, {"problems", PVA_COLUMN_I64, counts}};
    const struct pva_table table = {n, 2, columns};
    if (n && !err->code) pva_html_table(r->page, "The exceptions programs died of, the ten most frequent.", &table, NULL, NULL);
    free(kinds);
    return err->code;
}

/* Where the time went. Sums over all ranks; sequences of a batch share their passes, so they are not the wall time. */
static int throughput(struct report *r, const struct phase1_data *d, struct pva_error *err) {
    struct diagnostics_schema schema;
    const struct phase1_problems any = {0};
    struct store *s = NULL;
    char path[4096];
    struct pva_error late = {0};
    snprintf(path, sizeof path, "%s/phase1-diagnostics.h5", r->run);
    diagnostics_schema_fill(&schema, &any);
    schema.store.n_coordinates = 0;
    int64_t new_tokens = 0, prompt_tokens = 0, n = 0;
    double seconds[3] = {0};
    const int fields[3] = {DIAGNOSTICS_PREFILL_SECONDS, DIAGNOSTICS_DECODE_SECONDS, DIAGNOSTICS_GRADE_WALL_SECONDS};
    if (access(path, F_OK)) {
        pva_html_paragraph(r->page, "note", "No times: phase1-diagnostics.h5 is missing.");
        return PVA_OK;
    }
    if (store_open_read(path, &schema.store, &s, err)) return err->code;
    for (int64_t i = 0; i < d->n && i < store_n_slots(s) && !err->code; i++) {
        int32_t n_new = 0, n_prompt = 0;
        if (d->states[i] != STORE_DONE) continue;
        store_read(d->store, i, PHASE1_N_NEW, &n_new, err);
        store_read(d->store, i, PHASE1_N_PROMPT, &n_prompt, err);
        new_tokens += n_new, prompt_tokens += n_prompt, n++;
        for (int k = 0; k < 3 && !err->code; k++) {
            double t = 0;
            store_read(s, i, fields[k], &t, err);
            seconds[k] += t;
        }
    }
    store_close(&s, &late);
    if (err->code || !n) return err->code;
    pva_html_paragraph(r->page, "", "%lld prompt tokens were read and %lld tokens written, %.0f a problem. On average a problem took %.2f s to its first token and %.2f s from there to its last "
                       "(%.1f tokens a second beside the others of its batch), and its program %.0f ms to grade while the next ones were generated.", (long long)prompt_tokens,
                       (long long)new_tokens, (double)new_tokens / (double)n, seconds[0] / (double)n, seconds[1] / (double)n, (double)new_tokens / fmax(seconds[1], 1e-9),
                       1000 * seconds[2] / (double)n);
    return PVA_OK;
}

int report_phase1(struct report *r, struct pva_error *err) {
    struct phase1_data d;
    struct counts c = {0};
    if (phase1_open(r->run, &d, err)) return err->code;
    count(&d, &c);
    int64_t passed = c.passed[PVA_N_PARTS][PVA_N_DIFFICULTIES];
    r->summary.n_problems = c.done, r->summary.n_passed = passed, r->summary.d_model = d.d_model;
    r->summary.pass_rate = pva_rate_wilson(passed, c.done, 0.95);
    pva_html_section(r->page, "solutions", "Solutions");
    if (d.n_done < d.n)
        pva_html_paragraph(r->page, "warning", "Phase 1 is not finished: %lld of %lld problems. What follows is about those.", (long long)d.n_done, (long long)d.n);
    if (c.too_long) pva_html_paragraph(r->page, "note", "%lld prompts did not fit into the token limit and have no solution.", (long long)c.too_long);
    if (c.done) {
        split_table(r, &c);
        pva_html_row_begin(r->page);
        difficulty_picture(r, &c);
        verdict_picture(r, &c);
        pva_html_row_end(r->page);
        if (!exception_table(r, &d, err)) throughput(r, &d, err);
    }
    phase1_close(&d);
    return err->code;
}
