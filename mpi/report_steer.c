/* The report on steering: what pushing along a latent changes, beside what pushing along anything changes. */
#include "phase1_read.h"
#include "record.h"
#include "report.h"

#include "pva/grade.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_ARMS = 400, MOST_SIDES = 3, EXAMPLES = 2 };

static double number(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}
static double end_of(const json_t *o, const char *key, size_t end) {
    const json_t *v = json_array_get(json_object_get(o, key), end);
    return json_is_number(v) ? json_number_value(v) : NAN;
}
static const char *text(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}
static long long count(const json_t *o, const char *key) { return json_integer_value(json_object_get(o, key)); }

static int is(const json_t *arm, const char *side, const char *kind) { return !strcmp(text(arm, "side"), side) && !strcmp(text(arm, "arm"), kind); }

/* ---- the answer ---- */

static void effect_table(struct report *r, const json_t *side) {
    static const char *const keys[2] = {"correction", "corruption"}, *const names[2] = {"failing that pass", "passing that fail"};
    int64_t changed[2], of[2];
    double column[10][2];
    for (int i = 0; i < 2; i++) {
        const json_t *e = json_object_get(side, keys[i]), *rate = json_object_get(e, "rate"), *c = json_object_get(e, "controls");
        changed[i] = count(rate, "k"), of[i] = count(rate, "n");
        const double values[10] = {100 * number(rate, "rate"), 100 * end_of(rate, "interval", 0), 100 * end_of(rate, "interval", 1), 100 * number(c, "rate"), 100 * number(c, "least"),
                                   100 * number(c, "most"),    number(e, "holm"),                 number(c, "p_rank"),               number(c, "p_fisher"), 100 * number(c, "mde")};
        for (int k = 0; k < 10; k++) column[k][i] = of[i] ? values[k] : NAN;
    }
    const struct pva_column columns[] = {
        {"problems", PVA_COLUMN_TEXT, names},          {"changed", PVA_COLUMN_I64, changed},        {"of", PVA_COLUMN_I64, of},
        {"%", PVA_COLUMN_F64, column[0]},              {"95\xc2\xa0% from", PVA_COLUMN_F64, column[1]},    {"to", PVA_COLUMN_F64, column[2]},
        {"controls %", PVA_COLUMN_F64, column[3]},     {"least", PVA_COLUMN_F64, column[4]},        {"most", PVA_COLUMN_F64, column[5]},
        {"p (binomial, Holm)", PVA_COLUMN_F64, column[6]}, {"p (rank)", PVA_COLUMN_F64, column[7]}, {"p (Fisher)", PVA_COLUMN_F64, column[8]},
        {"detectable %", PVA_COLUMN_F64, column[9]},
    };
    const char *const formats[] = {NULL, NULL, NULL, "%.1f", "%.1f", "%.1f", "%.1f", "%.1f", "%.1f", "p", "p", "p", "%.1f"};
    const struct pva_table table = {2, sizeof columns / sizeof *columns, columns};
    pva_html_table(r->page, "On the validation part. Controls: all random and matched arms together, and the least and the most of a single one. Binomial p against the pooled controls, "
                            "after Holm; rank among the arms; Fisher's exact test. Detectable: what would have been found with probability 0.8.", &table, formats, NULL);
}

/* ---- pictures ---- */

/* One coefficient of the dose-response: rates of the direction, and the least and the most of its controls. */
struct dose {
    double coefficient, own[3], least[2], most[2]; /* correction, corruption, degenerate */
};
static int by_coefficient(const void *a, const void *b) {
    double x = ((const struct dose *)a)->coefficient, y = ((const struct dose *)b)->coefficient;
    return (x > y) - (x < y);
}

static void dose_picture(struct report *r, const json_t *side) {
    static const char *const keys[3] = {"correction", "corruption", "degenerate"};
    const json_t *points = json_object_get(side, "dose_response");
    struct dose dose[MOST_ARMS];
    double x[MOST_ARMS], own[3][MOST_ARMS], low[2][MOST_ARMS], high[2][MOST_ARMS], most[2] = {NAN, NAN}, rivals[2] = {NAN, NAN};
    const double unit[] = {0, 1};
    int64_t n = 0, arms = 0;
    for (size_t i = 0; i < json_array_size(points) && n < MOST_ARMS; i++) {
        const json_t *p = json_array_get(points, i);
        struct dose *d = &dose[n++];
        d->coefficient = number(p, "coefficient");
        if (count(p, "controls") > arms) arms = count(p, "controls");
        for (int k = 0; k < 2; k++) {
            const json_t *e = json_object_get(p, keys[k]), *c = json_object_get(e, "controls");
            d->own[k] = number(json_object_get(e, "rate"), "rate");
            /* Not pushed at all, every direction does the same. */
            d->least[k] = d->coefficient == 0 ? d->own[k] : number(c, "least"), d->most[k] = d->coefficient == 0 ? d->own[k] : number(c, "most");
        }
        d->own[2] = number(json_object_get(p, "degenerate"), "rate");
    }
    if (n < 2) return;
    qsort(dose, (size_t)n, sizeof *dose, by_coefficient);
    for (int64_t i = 0; i < n; i++) {
        x[i] = dose[i].coefficient;
        for (int k = 0; k < 3; k++) own[k][i] = dose[i].own[k];
        for (int k = 0; k < 2; k++) {
            low[k][i] = dose[i].least[k], high[k][i] = dose[i].most[k];
            most[k] = fmax(most[k], own[k][i]), rivals[k] = fmax(rivals[k], high[k][i]);
        }
    }
    char name[60], title[120], alt[400], caption[400];
    snprintf(name, sizeof name, "dose-%s", text(side, "side"));
    snprintf(title, sizeof title, "Dose and response of %s (tuning part)", text(side, "direction"));
    snprintf(alt, sizeof alt, "%lld coefficients from %g to %g:", (long long)n, x[0], x[n - 1]);
    for (int k = 0; k < 2; k++) {
        if (isnan(most[k])) continue;
        report_add(alt, sizeof alt, " %s at most %.3f", keys[k], most[k]);
        if (arms) report_add(alt, sizeof alt, ", of a control %.3f", rivals[k]);
        report_add(alt, sizeof alt, ";");
    }
    alt[strlen(alt) - 1] = '.';
    if (arms)
        snprintf(caption, sizeof caption, "Bands: from the least to the most of %lld control arms with the same coefficient (random directions and matched latents), for corrected and for "
                                          "corrupted. Degenerate: loops, or no code. A corruption that comes with degenerate output is damage, not knowledge.", (long long)arms);
    else
        snprintf(caption, sizeof caption, "No controls were run along the coefficients (steer --dose-controls), so there is no band. Degenerate: loops, or no code. A corruption that comes "
                                          "with degenerate output is damage, not knowledge.");
    const struct pva_series series[] = {
        {.label = "controls, corrected", .kind = PVA_SERIES_BAND, .colour = PVA_BLUE, .n = arms ? n : 0, .x = x, .low = low[0], .high = high[0]},
        {.label = "controls, corrupted", .kind = PVA_SERIES_BAND, .colour = PVA_RED, .n = arms ? n : 0, .x = x, .low = low[1], .high = high[1]},
        {.label = "corrected, of failing", .kind = PVA_SERIES_LINEPOINTS, .colour = PVA_BLUE, .n = n, .x = x, .y = own[0]},
        {.label = "corrupted, of passing", .kind = PVA_SERIES_LINEPOINTS, .colour = PVA_RED, .n = n, .x = x, .y = own[1]},
        {.label = "degenerate, of all", .kind = PVA_SERIES_LINEPOINTS, .colour = PVA_GREY, .dashed = 1, .n = n, .x = x, .y = own[2]},
    };
    const int bands = arms ? 0 : 2; /* without controls their names would stand in the key for nothing */
    const struct pva_figure f = {.title = title, .x_label = "coefficient", .y_label = "fraction of problems", .y_range = unit, .series = series + bands, .n_series = 5 - bands};
    report_picture(r, name, &f, alt, caption);
}

static void control_picture(struct report *r, const json_t *stage, const char *side) {
    static const char *const kinds[] = {"treated", "flipped", "zero", "random", "matched"}, *const names[] = {"the latent", "flipped", "zero", "random", "matched"};
    static const enum pva_colour colours[] = {PVA_BLUE, PVA_ORANGE, PVA_GREEN, PVA_GREY, PVA_GREY};
    enum { RANDOM = 3, MATCHED };
    double x[5][MOST_ARMS], y[2][5][MOST_ARMS];
    int64_t n[5] = {0};
    double most[2] = {-1, -1}, band[2][2] = {{1, 0}, {1, 0}}; /* of all arms, below 0 where no problem could change; least and most of the controls */
    const json_t *arms = json_object_get(stage, "arms");
    for (int k = 0; k < 5; k++)
        for (size_t i = 0; i < json_array_size(arms) && n[k] < MOST_ARMS; i++) {
            const json_t *a = json_array_get(arms, i);
            if (!is(a, side, kinds[k])) continue;
            x[k][n[k]] = k + (k > 2 ? 0.5 * ((double)(n[k] % 10) / 9 - 0.5) : 0); /* spread, so that arms with equal rates show */
            y[0][k][n[k]] = number(json_object_get(a, "correction"), "rate"), y[1][k][n[k]] = number(json_object_get(a, "corruption"), "rate");
            for (int w = 0; w < 2; w++) {
                most[w] = fmax(most[w], y[w][k][n[k]]);
                if (k >= RANDOM) band[w][0] = fmin(band[w][0], y[w][k][n[k]]), band[w][1] = fmax(band[w][1], y[w][k][n[k]]);
            }
            n[k]++;
        }
    static const char *const what[2] = {"correction", "corruption"}, *const titles[2] = {"Failing problems that pass when steered", "Passing problems that fail when steered"};
    for (int w = 0; w < 2; w++) {
        if (most[w] < 0 || !n[0]) continue;
        const double range[2] = {0, most[w] > 0 ? fmin(1, 1.05 * most[w]) : 1};
        const double everywhere[2] = {-0.6, 4.6}, low[2] = {band[w][0], band[w][0]}, high[2] = {band[w][1], band[w][1]};
        struct pva_series series[7];
        char name[80], alt[160];
        series[0] = (struct pva_series){.kind = PVA_SERIES_BAND, .colour = PVA_GREY, .n = n[RANDOM] + n[MATCHED] ? 2 : 0, .x = everywhere, .low = low, .high = high};
        series[1] = (struct pva_series){.kind = PVA_SERIES_LEVEL, .colour = PVA_BLUE, .dashed = 1, .y = y[w][0]};
        for (int k = 0; k < 5; k++) series[2 + k] = (struct pva_series){.kind = PVA_SERIES_POINTS, .colour = colours[k], .n = n[k], .x = x[k], .y = y[w][k]};
        const struct pva_figure f = {.title = titles[w], .y_label = "fraction", .y_range = range, .x_names = names, .n_x_names = 5, .series = series, .n_series = 7};
        snprintf(name, sizeof name, "controls-%s-%s", side, what[w]);
        snprintf(alt, sizeof alt, "The %s rate of the latent, %.3f, beside those of its controls, %.3f to %.3f.", what[w], y[w][0][0], band[w][0], band[w][1]);
        report_picture(r, name, &f, alt, "Validation part; one point an arm; the dashed line is the latent, the grey band the controls. Every control pushes as hard at the same "
                                         "layer and positions; random ones along random directions, matched ones along latents that fire as often.");
    }
}

/* ---- examples: programs before and after ---- */

struct programs {
    struct store *s;
    struct phase1_data *d;
    int32_t *phase1_slot;
    int64_t n_problems;
    size_t n_arms;
    char *before, *after;
};

static int open_programs(struct report *r, struct phase1_data *d, size_t n_arms, struct programs *p, struct pva_error *err) {
    struct store_field fields[RECORD_N_FIELDS];
    char path[4096];
    record_fields(fields, 0);
    const struct store_schema schema = {.name = "pva-steer", .version = 1, .slot = {"item", 0}, .fields = fields, .n_fields = RECORD_N_FIELDS};
    snprintf(path, sizeof path, "%s/steer.h5", r->run);
    *p = (struct programs){.d = d, .n_arms = n_arms};
    if (access(path, F_OK) || store_open_read(path, &schema, &p->s, err)) return err->code;
    if (!n_arms || store_n_slots(p->s) % (int64_t)n_arms) return pva_fail(err, PVA_INPUT, "%s: does not belong to steer-summary.json; run pva-mpi steer --run %s again", path, r->run);
    p->n_problems = store_n_slots(p->s) / (int64_t)n_arms;
    p->phase1_slot = calloc((size_t)p->n_problems + 1, sizeof *p->phase1_slot);
    p->before = calloc(1, store_field_bytes(d->store, PHASE1_PROGRAM) + 1), p->after = calloc(1, store_field_bytes(p->s, RECORD_PROGRAM) + 1);
    if (!p->phase1_slot || !p->before || !p->after) return pva_fail(err, PVA_IO, "out of memory");
    return store_read_coordinate(p->s, "phase1_slot", STORE_I32, p->phase1_slot, (size_t)p->n_problems * sizeof *p->phase1_slot, err);
}

static void close_programs(struct programs *p) {
    struct pva_error ignored = {0};
    if (p->s) store_close(&p->s, &ignored);
    free(p->phase1_slot), free(p->before), free(p->after);
}

static int examples(struct report *r, struct programs *p, size_t arm, const char *direction, struct pva_error *err) {
    int shown[2] = {0, 0};
    if (!p->s) {
        pva_html_paragraph(r->page, "note", "No programs to show: steer.h5 is missing.");
        return PVA_OK;
    }
    for (int64_t i = 0; i < p->n_problems && !err->code; i++) {
        uint8_t verdict = 0;
        int64_t before = p->phase1_slot[i], slot = i * (int64_t)p->n_arms + (int64_t)arm;
        if (before < 0 || before >= p->d->n || store_read(p->s, slot, RECORD_VERDICT, &verdict, err)) continue;
        int passed = p->d->verdicts[before] == PVA_PASS, passes = verdict == PVA_PASS;
        if (passed == passes || verdict >= PVA_N_VERDICTS || shown[passed]++ >= EXAMPLES) continue;
        if (store_read(p->d->store, before, PHASE1_PROGRAM, p->before, err) || store_read(p->s, slot, RECORD_PROGRAM, p->after, err)) break;
        char title[200];
        snprintf(title, sizeof title, "Problem %s, %s: %s became %s", p->d->task_ids[before], direction, pva_verdict_name((enum pva_verdict)p->d->verdicts[before]),
                 pva_verdict_name((enum pva_verdict)verdict));
        pva_html_difference(r->page, title, p->before, p->after);
    }
    return err->code;
}

/* ---- the section ---- */

/* Verdicts without steering by verdicts with it. */
static void shift_table(struct report *r, const json_t *arm) {
    const json_t *rows = json_object_get(arm, "verdicts");
    const char *names[PVA_N_VERDICTS];
    int64_t cells[PVA_N_VERDICTS][PVA_N_VERDICTS] = {0};
    int n = 0;
    for (int v = 0; v < PVA_N_VERDICTS; v++) {
        const char *name = pva_verdict_name((enum pva_verdict)v), *key;
        json_t *row;
        int64_t any = (int64_t)json_object_size(json_object_get(rows, name));
        json_object_foreach((json_t *)rows, key, row) any += count(row, name);
        if (any) names[n++] = name;
    }
    struct pva_column columns[PVA_N_VERDICTS + 1] = {{"unsteered", PVA_COLUMN_TEXT, names}};
    for (int to = 0; to < n; to++) {
        for (int from = 0; from < n; from++) cells[to][from] = count(json_object_get(rows, names[from]), names[to]);
        columns[to + 1] = (struct pva_column){names[to], PVA_COLUMN_I64, cells[to]};
    }
    const struct pva_table table = {n, n + 1, columns};
    pva_html_table(r->page, "Where each verdict went: a row is the verdict without steering, a column the one with it.", &table, NULL, NULL);
}

static int one_side(struct report *r, const json_t *o, const json_t *side, struct programs *p, struct pva_error *err) {
    const json_t *stage = json_object_get(o, "validation"), *arms = json_object_get(stage, "arms"), *placebo = json_object_get(side, "placebo");
    const char *name = text(side, "side"), *direction = text(side, "direction");
    char title[160];
    size_t arm = 0;
    while (arm < json_array_size(arms) && !is(json_array_get(arms, arm), name, "treated")) arm++;
    snprintf(title, sizeof title, "%s, coefficient %+.3g", direction, number(side, "coefficient"));
    pva_html_heading(r->page, title);
    pva_html_paragraph(r->page, "note", "Direction: %s; %.4g along the unit vector, chosen on the tuning part.", text(side, "formula"), number(side, "raw"));
    if (placebo && (count(placebo, "flips") || count(placebo, "same") != count(placebo, "problems")))
        pva_html_paragraph(r->page, "warning", "With coefficient 0, %lld verdicts changed and %lld of %lld completions are the same. It must be 0 and all of them: something else than steering "
                           "changes results.", count(placebo, "flips"), count(placebo, "same"), count(placebo, "problems"));
    else if (placebo) pva_html_paragraph(r->page, "", "Coefficient 0 changed nothing: %lld of %lld completions are the same, token by token.", count(placebo, "same"), count(placebo, "problems"));
    effect_table(r, side);
    pva_html_row_begin(r->page);
    control_picture(r, stage, name);
    dose_picture(r, side);
    if (arm < json_array_size(arms)) shift_table(r, json_array_get(arms, arm));
    pva_html_row_end(r->page);
    if (arm < json_array_size(arms)) examples(r, p, arm, direction, err);
    return err->code;
}

static struct report_effect effect_of(const json_t *side, const char *key) {
    const json_t *e = json_object_get(side, key), *rate = json_object_get(e, "rate");
    struct report_effect out = {.k = count(rate, "k"), .n = count(rate, "n"), .rate = number(rate, "rate"), .low = end_of(rate, "interval", 0), .high = end_of(rate, "interval", 1),
                                .p = number(e, "holm"), .controls = number(json_object_get(e, "controls"), "rate")};
    snprintf(out.direction, sizeof out.direction, "%s", text(side, "direction"));
    return out;
}

/* Correction along the correct side's latent, corruption along the incorrect side's; where only the correct one's was tried, both along it. */
static void summarise(struct report *r, const json_t *sides) {
    struct report_summary *s = &r->summary;
    for (size_t i = 0; i < json_array_size(sides); i++) {
        const json_t *side = json_array_get(sides, i);
        int incorrect = !strcmp(text(side, "side"), "incorrect");
        if (!incorrect) s->correction = effect_of(side, "correction");
        if (incorrect || isnan(s->corruption.rate)) s->corruption = effect_of(side, "corruption");
    }
}

int report_steer(struct report *r, struct pva_error *err) {
    struct phase1_data d;
    struct programs p;
    struct report_summary *s = &r->summary;
    s->correction.rate = s->corruption.rate = s->correction.p = s->corruption.p = NAN;
    json_t *o = report_json(r, "steer-summary.json", "sides", err);
    if (err->code) return err->code;
    if (!o) return report_missing(r, "steering", "Steering", "steer", ""), PVA_OK;
    const json_t *sides = json_object_get(o, "sides"), *arms = json_object_get(json_object_get(o, "validation"), "arms");
    pva_html_section(r->page, "steering", "Steering");
    pva_html_paragraph(r->page, "", "The residual stream is changed (%s, positions: %s) while the program is written, and the program is graded again. Each direction is compared with coefficient 0, with "
                       "its opposite, with random directions and with latents that fire as often and separate nothing: what these do as well is not knowledge of correctness.",
                       text(o, "mode"), text(o, "positions"));
    if (!phase1_open(r->run, &d, err)) {
        if (!open_programs(r, &d, json_array_size(arms), &p, err))
            for (size_t i = 0; i < json_array_size(sides) && !err->code; i++) one_side(r, o, json_array_get(sides, i), &p, err);
        close_programs(&p);
        phase1_close(&d);
    }
    summarise(r, sides);
    pva_html_file(r->page, "All arms", "exports/steer-arms.csv");
    json_decref(o);
    return err->code;
}
