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

/* ---- the answer in words ---- */

static void sentence(struct report *r, const char *what, const json_t *effects) {
    const json_t *rate = json_object_get(effects, "rate"), *controls = json_object_get(effects, "controls");
    if (!count(rate, "n")) {
        pva_html_paragraph(r->page, "", "%s: no problem that could change.", what);
        return;
    }
    double p = number(effects, "holm"), mde = number(controls, "mde");
    char found[200] = "";
    if (!(p <= 0.05) && !isnan(mde)) snprintf(found, sizeof found, " A rate of %.1f %% would have been found with probability 0.8.", 100 * mde);
    pva_html_paragraph(r->page, "", "%s: %lld of %lld, %.1f %% (95 %%: %.1f to %.1f); the controls changed %.1f %% (arms %.1f to %.1f %%). Binomial p against the pooled controls %.2g after Holm, "
                       "rank among the controls %.2g, Fisher %.2g.%s", what, count(rate, "k"), count(rate, "n"), 100 * number(rate, "rate"), 100 * end_of(rate, "interval", 0),
                       100 * end_of(rate, "interval", 1), 100 * number(controls, "rate"), 100 * number(controls, "least"), 100 * number(controls, "most"), p,
                       number(controls, "p_rank"), number(controls, "p_fisher"), found);
}

/* ---- pictures ---- */

static void dose_picture(struct report *r, const json_t *stage, const char *side, const char *direction) {
    double x[MOST_ARMS], correction[MOST_ARMS], corruption[MOST_ARMS], degenerate[MOST_ARMS];
    const json_t *arms = json_object_get(stage, "arms");
    int64_t n = 0;
    const double unit[] = {0, 1};
    for (size_t i = 0; i < json_array_size(arms) && n < MOST_ARMS; i++) {
        const json_t *a = json_array_get(arms, i);
        if ((!is(a, side, "treated") && !is(a, side, "zero")) || strcmp(text(a, "direction"), direction)) continue;
        x[n] = number(a, "coefficient");
        correction[n] = number(json_object_get(a, "correction"), "rate"), corruption[n] = number(json_object_get(a, "corruption"), "rate");
        degenerate[n++] = number(a, "degenerate") / number(a, "problems");
    }
    if (n < 2) return;
    char name[60], title[120];
    snprintf(name, sizeof name, "dose-%s", side);
    snprintf(title, sizeof title, "Dose and response of %s (tuning part)", direction);
    const struct pva_series series[] = {
        {.label = "corrected, of failing", .kind = PVA_SERIES_LINEPOINTS, .colour = PVA_BLUE, .n = n, .x = x, .y = correction},
        {.label = "corrupted, of passing", .kind = PVA_SERIES_LINEPOINTS, .colour = PVA_RED, .n = n, .x = x, .y = corruption},
        {.label = "degenerate, of all", .kind = PVA_SERIES_LINEPOINTS, .colour = PVA_GREY, .dashed = 1, .n = n, .x = x, .y = degenerate},
    };
    const struct pva_figure f = {.title = title, .x_label = "coefficient", .y_label = "fraction of problems", .y_range = unit, .series = series, .n_series = 3};
    report_picture(r, name, &f, "Correction, corruption and degenerate output against the coefficient of steering.",
                   "Degenerate: loops, or no code. A corruption that comes with degenerate output is damage, not knowledge.");
}

static void control_picture(struct report *r, const json_t *stage, const char *side) {
    static const char *const kinds[] = {"treated", "flipped", "zero", "random", "matched"}, *const names[] = {"the latent", "flipped", "zero", "random", "matched"};
    static const enum pva_colour colours[] = {PVA_BLUE, PVA_ORANGE, PVA_GREEN, PVA_GREY, PVA_GREY};
    double x[5][MOST_ARMS], y[2][5][MOST_ARMS];
    int64_t n[5] = {0};
    const json_t *arms = json_object_get(stage, "arms");
    for (int k = 0; k < 5; k++)
        for (size_t i = 0; i < json_array_size(arms) && n[k] < MOST_ARMS; i++) {
            const json_t *a = json_array_get(arms, i);
            if (!is(a, side, kinds[k])) continue;
            x[k][n[k]] = k + (k > 2 ? 0.5 * ((double)(n[k] % 10) / 9 - 0.5) : 0); /* spread, so that arms with equal rates show */
            y[0][k][n[k]] = number(json_object_get(a, "correction"), "rate"), y[1][k][n[k]++] = number(json_object_get(a, "corruption"), "rate");
        }
    static const char *const what[2] = {"correction", "corruption"}, *const titles[2] = {"Failing problems that pass when steered", "Passing problems that fail when steered"};
    for (int w = 0; w < 2; w++) {
        struct pva_series series[5];
        char name[80], alt[160];
        for (int k = 0; k < 5; k++) series[k] = (struct pva_series){.kind = PVA_SERIES_POINTS, .colour = colours[k], .n = n[k], .x = x[k], .y = y[w][k]};
        const struct pva_figure f = {.title = titles[w], .y_label = "fraction", .x_names = names, .n_x_names = 5, .series = series, .n_series = 5};
        snprintf(name, sizeof name, "controls-%s-%s", side, what[w]);
        snprintf(alt, sizeof alt, "The %s rate of the latent beside those of its controls, one point per arm.", what[w]);
        report_picture(r, name, &f, alt, "Validation part; every control pushes as hard at the same layer and positions.");
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
    if (!p->s) return PVA_OK;
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

static void shift_table(struct report *r, const json_t *arm) {
    const char *names[PVA_N_VERDICTS];
    int64_t before[PVA_N_VERDICTS] = {0}, after[PVA_N_VERDICTS] = {0}, n = 0;
    const json_t *rows = json_object_get(arm, "verdicts");
    for (int v = 0; v < PVA_N_VERDICTS; v++) {
        const char *name = pva_verdict_name((enum pva_verdict)v), *key;
        json_t *row, *value;
        int64_t b = 0, a = 0;
        json_object_foreach(json_object_get(rows, name), key, value) b += json_integer_value(value);
        json_object_foreach((json_t *)rows, key, row) a += json_integer_value(json_object_get(row, name));
        if (b || a) names[n] = name, before[n] = b, after[n++] = a;
    }
    const struct pva_column columns[] = {{"verdict", PVA_COLUMN_TEXT, names}, {"unsteered", PVA_COLUMN_I64, before}, {"steered", PVA_COLUMN_I64, after}};
    const struct pva_table table = {n, 3, columns};
    pva_html_table(r->page, NULL, &table, NULL, NULL);
}

static int one_side(struct report *r, const json_t *o, const json_t *side, struct programs *p, struct pva_error *err) {
    const json_t *stage = json_object_get(o, "validation"), *arms = json_object_get(stage, "arms"), *placebo = json_object_get(side, "placebo");
    const char *name = text(side, "side"), *direction = text(side, "direction");
    char title[160];
    size_t arm = 0;
    while (arm < json_array_size(arms) && !is(json_array_get(arms, arm), name, "treated")) arm++;
    snprintf(title, sizeof title, "%s, at layer %lld, coefficient %+.3g", direction, count(side, "layer"), number(side, "coefficient"));
    pva_html_heading(r->page, title);
    pva_html_paragraph(r->page, "note", "Direction: %s; %.4g along the unit vector, chosen on the tuning part.", text(side, "formula"), number(side, "raw"));
    if (placebo && (count(placebo, "flips") || count(placebo, "same") != count(placebo, "problems")))
        pva_html_paragraph(r->page, "warning", "With coefficient 0, %lld verdicts changed and %lld of %lld completions are the same. It must be 0 and all of them: something else than steering "
                           "changes results.", count(placebo, "flips"), count(placebo, "same"), count(placebo, "problems"));
    else if (placebo) pva_html_paragraph(r->page, "", "Coefficient 0 changed nothing: %lld of %lld completions are the same, token by token.", count(placebo, "same"), count(placebo, "problems"));
    sentence(r, "Corrected", json_object_get(side, "correction"));
    sentence(r, "Corrupted", json_object_get(side, "corruption"));
    pva_html_row_begin(r->page);
    dose_picture(r, json_object_get(o, "tuning"), name, direction);
    control_picture(r, stage, name);
    pva_html_row_end(r->page);
    if (arm < json_array_size(arms)) {
        shift_table(r, json_array_get(arms, arm));
        examples(r, p, arm, direction, err);
    }
    return err->code;
}

static void summarise(struct report *r, const json_t *sides) {
    struct report_summary *s = &r->summary;
    for (size_t i = 0; i < json_array_size(sides); i++) {
        const json_t *side = json_array_get(sides, i), *up = json_object_get(json_object_get(side, "correction"), "rate"), *down = json_object_get(json_object_get(side, "corruption"), "rate");
        double p[2] = {number(json_object_get(side, "correction"), "holm"), number(json_object_get(side, "corruption"), "holm")};
        if (!strcmp(text(side, "side"), "incorrect")) {
            s->corruption = number(down, "rate"), s->corruption_low = end_of(down, "interval", 0), s->corruption_high = end_of(down, "interval", 1), s->corruption_p = p[1];
            continue;
        }
        s->correction = number(up, "rate"), s->correction_low = end_of(up, "interval", 0), s->correction_high = end_of(up, "interval", 1), s->correction_p = p[0];
        if (isnan(s->corruption)) s->corruption = number(down, "rate"), s->corruption_low = end_of(down, "interval", 0), s->corruption_high = end_of(down, "interval", 1), s->corruption_p = p[1];
    }
}

int report_steer(struct report *r, struct pva_error *err) {
    struct phase1_data d;
    struct programs p;
    struct report_summary *s = &r->summary;
    s->correction = s->corruption = s->correction_p = s->corruption_p = NAN;
    json_t *o = report_json(r, "steer-summary.json", err);
    if (err->code) return err->code;
    if (!o) return report_missing(r, "steering", "Steering", "steer"), PVA_OK;
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
    pva_html_paragraph(r->page, "note", "All arms: exports/steer-arms.csv.");
    json_decref(o);
    return err->code;
}
