#include "steer_report.h"

#include "pva/table.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const mode_names[] = {"add", "ablate", "gated"};

/* ---- the table ---- */

static const char *percent(char *out, size_t size, int64_t k, int64_t n, struct pva_interval i) {
    if (n == 0) snprintf(out, size, "none to change");
    else snprintf(out, size, "%lld/%lld %5.1f %% [%.1f, %.1f]", (long long)k, (long long)n, 100.0 * (double)k / (double)n, 100 * i.low, 100 * i.high);
    return out;
}

static const char *p_text(char *out, size_t size, double p) {
    if (isnan(p)) snprintf(out, size, "-");
    else if (p < 0.0001) snprintf(out, size, "%.1e", p);
    else snprintf(out, size, "%.4f", p);
    return out;
}

static void print_arm(const struct steer_arm *a, const struct steer_arm_result *x, FILE *out) {
    char correction[64], corruption[64], p[24], holm[24];
    const struct pva_pairs *pairs = &x->counts.pairs;
    fprintf(out, "  %-9s %-8s %-20.20s %+7.3g %9.4g  %-29s %-29s %5.1f %% %6.3f  %-8s %s\n", steer_side_name(a->side), steer_kind_name(a->kind), a->name, a->coefficient,
            a->raw, percent(correction, sizeof correction, pairs->gained, pairs->gained + pairs->neither, x->correction),
            percent(corruption, sizeof corruption, pairs->lost, pairs->lost + pairs->both, x->corruption),
            x->counts.n ? 100.0 * (double)x->counts.degenerate / (double)x->counts.n : 0.0, x->counts.similarity, p_text(p, sizeof p, x->mcnemar),
            p_text(holm, sizeof holm, x->holm));
}

static void print_stage(const char *title, const struct steer_stage *stage, const struct steer_result *r, FILE *out) {
    fprintf(out, "%s: %lld problems: %lld fail, %lld pass unsteered", title, (long long)r->n, (long long)r->n_failing, (long long)r->n_passing);
    if (r->n_open < r->n) fprintf(out, "; the gate opens for %lld", (long long)r->n_open);
    fprintf(out, "\n  %-9s %-8s %-20s %7s %9s  %-29s %-29s %7s %6s  %-8s %s\n", "side", "arm", "direction", "coeff.", "raw", "correction", "corruption", "degen.", "simil.",
            "McNemar", "Holm");
    for (int a = 0; a < stage->n_arms; a++)
        if (stage->arms[a].kind != STEER_RANDOM && stage->arms[a].kind != STEER_MATCHED) print_arm(&stage->arms[a], &r->arms[a], out);
}

static void print_controls(const char *what, const struct pva_effect *e, FILE *out) {
    char fisher[24], rank[24], binomial[24];
    if (!e->n_controls) return;
    fprintf(out, "      %-12s %lld arms: pooled %lld/%lld %.1f %%, arms %.1f to %.1f %%, median %.1f; difference %+.1f [%+.1f, %+.1f]; p binomial %s, Fisher %s, rank %s\n", what,
            (long long)e->n_controls, (long long)e->control_k, (long long)e->control_n, 100 * e->control_rate, 100 * e->control_least, 100 * e->control_most,
            100 * e->control_median, 100 * (e->rate - e->control_rate), 100 * e->difference.low, 100 * e->difference.high, p_text(binomial, sizeof binomial, e->p_binomial),
            p_text(fisher, sizeof fisher, e->p_fisher), p_text(rank, sizeof rank, e->p_rank));
}

static void print_effect(const char *what, const struct steer_effects *e, double alpha, FILE *out) {
    char rate[64], holm[24];
    const struct pva_effect *all = &e->all;
    fprintf(out, "    %-10s %s", what, percent(rate, sizeof rate, all->k, all->n, all->interval));
    if (all->n_controls && all->n) fprintf(out, "; binomial p after Holm %s", p_text(holm, sizeof holm, e->holm));
    fprintf(out, "\n");
    if (all->n == 0) return;
    print_controls("all controls", all, out);
    print_controls("random", &e->random, out);
    print_controls("matched", &e->matched, out);
    if (all->n_controls && !(e->holm <= alpha)) {
        fprintf(out, "      not significant at %g: ", alpha);
        if (isnan(all->mde)) fprintf(out, "no rate could have been found with power 0.8");
        else fprintf(out, "a rate of %.1f %% could have been found with power 0.8", 100 * all->mde);
        fprintf(out, "; power at %.0f points above the controls: %.2f\n", 10.0, all->power_tenth);
    }
}

static void print_shift(const struct pva_steering_counts *c, FILE *out) {
    int first = 1;
    for (int v = 0; v < PVA_N_VERDICTS; v++) {
        int64_t before = 0, after = 0;
        for (int w = 0; w < PVA_N_VERDICTS; w++) before += c->shift[v][w], after += c->shift[w][v];
        if (!before && !after) continue;
        fprintf(out, "%s%s %lld -> %lld", first ? "    verdicts   " : ", ", pva_verdict_name((enum pva_verdict)v), (long long)before, (long long)after);
        first = 0;
    }
    if (!first) fprintf(out, "\n");
}

static void print_side(const struct steer_report *r, int side, FILE *out) {
    const struct steer_side_result *s = &r->results[STEER_VALIDATION].sides[side];
    if (s->treated < 0) return;
    const struct steer_arm *arm = &r->stages[STEER_VALIDATION].arms[s->treated];
    const struct steer_arm_result *x = &r->results[STEER_VALIDATION].arms[s->treated];
    const struct pva_pairs *pairs = &x->counts.pairs;
    char p[24], mid[24];
    fprintf(out, "  %s: %s, layer %d, coefficient %+g (%.6g along the unit vector)\n", steer_side_name(side), arm->name, arm->layer, arm->coefficient, arm->raw);
    if (s->zero >= 0) {
        const struct pva_steering_counts *zero = &r->results[STEER_VALIDATION].arms[s->zero].counts;
        int64_t flips = zero->pairs.gained + zero->pairs.lost;
        fprintf(out, "    placebo    coefficient 0: %lld flips, %lld of %lld completions the same%s\n", (long long)flips, (long long)zero->same, (long long)zero->n,
                flips || zero->same != zero->n ? "  <-- must be 0 and all: something else than steering changes results" : "");
    }
    print_effect("correction", &s->correction, r->alpha, out);
    print_effect("corruption", &s->corruption, r->alpha, out);
    if (pairs->lost + pairs->both)
        fprintf(out, "    preserved  %lld/%lld passing problems still pass\n", (long long)pairs->both, (long long)(pairs->lost + pairs->both));
    fprintf(out, "    net        %+lld of %lld (%lld gained, %lld lost): %+.1f points [%+.1f, %+.1f]; McNemar p %s, mid-p %s", (long long)(pairs->gained - pairs->lost),
            (long long)x->counts.n, (long long)pairs->gained, (long long)pairs->lost, 100.0 * (double)(pairs->gained - pairs->lost) / (double)x->counts.n, 100 * x->net.low,
            100 * x->net.high, p_text(p, sizeof p, x->mcnemar), p_text(mid, sizeof mid, x->mid_p));
    if (x->mcnemar > r->alpha && !isnan(s->mde_mcnemar)) fprintf(out, "; could have found %.1f %% gained with power 0.8", 100 * s->mde_mcnemar);
    fprintf(out, "\n    degenerate %lld of %lld; similarity to the unsteered completion %.3f\n", (long long)x->counts.degenerate, (long long)x->counts.n, x->counts.similarity);
    print_shift(&x->counts, out);
}

/* Beside each coefficient: what the direction does on the tuning split, and what the controls do. */
static void print_dose(const struct steer_report *r, FILE *out) {
    const struct steer_stage *tuning = &r->stages[STEER_TUNING], *dose = &r->stages[STEER_DOSE];
    if (!dose->n_arms) return;
    fprintf(out, "dose-response beside controls, %lld problems of the tuning split, per cent (controls: least to most of an arm)\n", (long long)r->results[STEER_DOSE].n);
    fprintf(out, "  %-9s %-20s %7s %5s  %-24s %-24s %s\n", "side", "direction", "coeff.", "arms", "correction", "corruption", "degenerate");
    for (int i = 0; i < r->n_dose; i++) {
        const struct steer_dose_point *p = &r->dose[i];
        const struct steer_arm *a = &tuning->arms[p->arm];
        const double own[] = {p->correction.rate, p->corruption.rate, p->degenerate}, least[] = {p->correction.control_least, p->corruption.control_least, p->degenerate_least},
                     most[] = {p->correction.control_most, p->corruption.control_most, p->degenerate_most};
        char texts[3][64];
        for (int k = 0; k < 3; k++) {
            if (isnan(own[k])) snprintf(texts[k], sizeof texts[k], "none to change");
            else if (isnan(least[k])) snprintf(texts[k], sizeof texts[k], "%5.1f", 100 * own[k]);
            else snprintf(texts[k], sizeof texts[k], "%5.1f (%.1f to %.1f)", 100 * own[k], 100 * least[k], 100 * most[k]);
        }
        fprintf(out, "  %-9s %-20.20s %+7.3g %5d  %-24s %-24s %s\n", steer_side_name(a->side), a->name, a->coefficient, p->n_controls, texts[0], texts[1], texts[2]);
    }
}

void steer_report_print(const struct steer_report *r, FILE *out) {
    fprintf(out, "steering: %s at %s, positions %s, units %s; intervals %.0f %%\n", mode_names[r->plan->mode], pva_point_name(r->plan->point),
            pva_positions_name(r->plan->positions), pva_coefficient_units_name(r->plan->units), 100 * r->level);
    print_stage("tuning", &r->stages[STEER_TUNING], &r->results[STEER_TUNING], out);
    print_dose(r, out);
    print_stage("validation", &r->stages[STEER_VALIDATION], &r->results[STEER_VALIDATION], out);
    for (int side = 0; side < STEER_N_SIDES; side++) print_side(r, side, out);
}

/* ---- JSON ---- */

static json_t *real(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *interval(struct pva_interval i) { return json_pack("[o,o]", real(i.low), real(i.high)); }

static json_t *rate(int64_t k, int64_t n, struct pva_interval i) {
    return json_pack("{s:I,s:I,s:o,s:o}", "k", (json_int_t)k, "n", (json_int_t)n, "rate", real(n ? (double)k / (double)n : NAN), "interval", interval(i));
}

static json_t *shift_json(const struct pva_steering_counts *c) {
    json_t *rows = json_object();
    for (int v = 0; v < PVA_N_VERDICTS; v++) {
        json_t *row = json_object();
        for (int w = 0; w < PVA_N_VERDICTS; w++)
            if (c->shift[v][w]) json_object_set_new(row, pva_verdict_name((enum pva_verdict)w), json_integer((json_int_t)c->shift[v][w]));
        if (json_object_size(row)) json_object_set_new(rows, pva_verdict_name((enum pva_verdict)v), row);
        else json_decref(row);
    }
    return rows;
}

static json_t *arm_json(const struct steer_arm *a, const struct steer_arm_result *x) {
    const struct pva_pairs *p = &x->counts.pairs;
    int64_t failing = p->gained + p->neither, passing = p->lost + p->both;
    json_t *o = json_pack("{s:s,s:s,s:s,s:i,s:I,s:o,s:o,s:o,s:o}", "side", steer_side_name(a->side), "arm", steer_kind_name(a->kind), "direction", a->name, "layer",
                          a->layer, "number", (json_int_t)a->number, "coefficient", real(a->coefficient), "raw", real(a->raw), "correction",
                          rate(p->gained, failing, x->correction), "corruption", rate(p->lost, passing, x->corruption));
    json_object_set_new(o, "preservation", real(passing ? (double)p->both / (double)passing : NAN));
    json_object_set_new(o, "problems", json_integer((json_int_t)x->counts.n));
    json_object_set_new(o, "net", json_pack("{s:I,s:o,s:o}", "gained_less_lost", (json_int_t)(p->gained - p->lost), "rate",
                                            real(x->counts.n ? (double)(p->gained - p->lost) / (double)x->counts.n : NAN), "interval", interval(x->net)));
    json_object_set_new(o, "mcnemar", json_pack("{s:o,s:o,s:o}", "p", real(x->mcnemar), "mid_p", real(x->mid_p), "holm", real(x->holm)));
    json_object_set_new(o, "degenerate", json_integer((json_int_t)x->counts.degenerate));
    json_object_set_new(o, "same", json_integer((json_int_t)x->counts.same));
    json_object_set_new(o, "similarity", json_pack("{s:o,s:o,s:o}", "all", real(x->counts.similarity), "failing", real(x->counts.similarity_failing), "passing",
                                                   real(x->counts.similarity_passing)));
    json_object_set_new(o, "verdicts", shift_json(&x->counts));
    return o;
}

static json_t *effect_json(const struct pva_effect *e) {
    json_t *o = json_pack("{s:I,s:I,s:I,s:o}", "arms", (json_int_t)e->n_controls, "k", (json_int_t)e->control_k, "n", (json_int_t)e->control_n, "rate", real(e->control_rate));
    json_object_set_new(o, "least", real(e->control_least));
    json_object_set_new(o, "median", real(e->control_median));
    json_object_set_new(o, "most", real(e->control_most));
    json_object_set_new(o, "difference", interval(e->difference));
    json_object_set_new(o, "p0", real(e->p0));
    json_object_set_new(o, "p_binomial", real(e->p_binomial));
    json_object_set_new(o, "p_fisher", real(e->p_fisher));
    json_object_set_new(o, "p_rank", real(e->p_rank));
    json_object_set_new(o, "power_tenth", real(e->power_tenth));
    json_object_set_new(o, "mde", real(e->mde));
    return o;
}

static json_t *effects_json(const struct steer_effects *e) {
    return json_pack("{s:o,s:o,s:o,s:o,s:o}", "rate", rate(e->all.k, e->all.n, e->all.interval), "controls", effect_json(&e->all), "random", effect_json(&e->random),
                     "matched", effect_json(&e->matched), "holm", real(e->holm));
}

static json_t *stage_json(const struct steer_stage *stage, const struct steer_result *r) {
    json_t *arms = json_array();
    for (int a = 0; a < stage->n_arms; a++) json_array_append_new(arms, arm_json(&stage->arms[a], &r->arms[a]));
    return json_pack("{s:I,s:I,s:I,s:I,s:o}", "problems", (json_int_t)r->n, "steered", (json_int_t)r->n_open, "failing", (json_int_t)r->n_failing, "passing",
                     (json_int_t)r->n_passing, "arms", arms);
}

static json_t *dose_json(const struct steer_report *r, int side) {
    json_t *list = json_array();
    for (int i = 0; i < r->n_dose; i++) {
        const struct steer_dose_point *p = &r->dose[i];
        const struct steer_arm *a = &r->stages[STEER_TUNING].arms[p->arm];
        if (a->side != side) continue;
        const struct pva_effect *both[] = {&p->correction, &p->corruption};
        json_t *o = json_pack("{s:o,s:o,s:i}", "coefficient", real(a->coefficient), "raw", real(a->raw), "controls", p->n_controls);
        for (int k = 0; k < 2; k++)
            json_object_set_new(o, k ? "corruption" : "correction", json_pack("{s:o,s:o}", "rate", rate(both[k]->k, both[k]->n, both[k]->interval), "controls", effect_json(both[k])));
        json_object_set_new(o, "degenerate", json_pack("{s:o,s:{s:o,s:o}}", "rate", real(p->degenerate), "controls", "least", real(p->degenerate_least), "most",
                                                       real(p->degenerate_most)));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *summary_json(const struct steer_report *r) {
    json_t *grid = json_array(), *sides = json_array();
    for (int i = 0; i < r->plan->n_grid; i++) json_array_append_new(grid, json_real(r->plan->grid[i]));
    for (int side = 0; side < STEER_N_SIDES; side++) {
        const struct steer_side_result *s = &r->results[STEER_VALIDATION].sides[side];
        if (s->treated < 0) continue;
        const struct steer_arm *arm = &r->stages[STEER_VALIDATION].arms[s->treated];
        const struct steer_candidate *c = &r->plan->candidates[arm->candidate];
        json_t *o = json_pack("{s:s,s:s,s:s,s:s,s:i,s:I,s:o,s:o,s:o,s:o,s:o}", "side", steer_side_name(side), "direction", arm->name, "source",
                              pva_direction_source_name(c->direction.source), "formula", c->direction.formula, "layer", arm->layer, "number", (json_int_t)arm->number,
                              "coefficient", real(arm->coefficient), "raw", real(arm->raw), "scale", real(c->scale), "correction", effects_json(&s->correction), "corruption",
                              effects_json(&s->corruption));
        if (s->zero >= 0) {
            const struct pva_steering_counts *zero = &r->results[STEER_VALIDATION].arms[s->zero].counts;
            json_object_set_new(o, "placebo", json_pack("{s:I,s:I,s:I}", "flips", (json_int_t)(zero->pairs.gained + zero->pairs.lost), "same", (json_int_t)zero->same,
                                                        "problems", (json_int_t)zero->n));
        }
        json_object_set_new(o, "dose_response", dose_json(r, side));
        json_object_set_new(o, "separation", real(c->separation));
        json_object_set_new(o, "firing_rate", real(c->firing_rate));
        json_object_set_new(o, "mde_mcnemar", real(s->mde_mcnemar));
        json_array_append_new(sides, o);
    }
    json_t *o = json_pack("{s:s,s:s,s:s,s:s,s:s,s:f,s:f,s:o,s:o,s:o,s:o}", "mode", mode_names[r->plan->mode], "point", pva_point_name(r->plan->point), "positions",
                          pva_positions_name(r->plan->positions), "units", pva_coefficient_units_name(r->plan->units), "alignment", r->plan->alignment, "level",
                          r->level, "alpha", r->alpha, "coefficients", grid, "tuning",
                          stage_json(&r->stages[STEER_TUNING], &r->results[STEER_TUNING]), "validation",
                          stage_json(&r->stages[STEER_VALIDATION], &r->results[STEER_VALIDATION]), "sides", sides);
    if (r->stages[STEER_DOSE].n_arms) json_object_set_new(o, "dose", stage_json(&r->stages[STEER_DOSE], &r->results[STEER_DOSE]));
    if (r->plan->open)
        json_object_set_new(o, "gate", json_pack("{s:i,s:I,s:o,s:o}", "layer", r->plan->gate_layer, "latent", (json_int_t)r->plan->gate_latent, "threshold",
                                                 real(r->plan->gate_threshold), "f1", real(r->plan->gate_f1)));
    return o;
}

/* ---- CSV ---- */

struct column_data {
    const char **stage, **side, **kind, **name;
    int32_t *layer;
    int64_t *counts; /* [8 columns, n] */
    double *reals;   /* [7 columns, n] */
};

static int write_table(const struct steer_report *r, struct pva_error *err) {
    static const char *const count_names[] = {"number", "failing", "corrected", "passing", "corrupted", "degenerate", "same", "problems"};
    static const char *const real_names[] = {"coefficient", "raw", "correction", "corruption", "similarity", "mcnemar_p", "mcnemar_holm"};
    enum { N_TEXTS = 5, N_COUNTS = 8, N_REALS = 7 };
    static const char *const stage_names[STEER_N_STAGES] = {"tuning", "validation", "dose"};
    int64_t n = 0, i = 0;
    for (int s = 0; s < STEER_N_STAGES; s++) n += r->stages[s].n_arms;
    size_t rows = (size_t)n;
    struct column_data d = {malloc(rows * sizeof *d.stage), malloc(rows * sizeof *d.side),  malloc(rows * sizeof *d.kind),
                            malloc(rows * sizeof *d.name),  malloc(rows * sizeof *d.layer), malloc(rows * N_COUNTS * sizeof *d.counts),
                            malloc(rows * N_REALS * sizeof *d.reals)};
    char path[4096], *text = NULL;
    size_t n_text = 0;
    FILE *f = open_memstream(&text, &n_text);
    if (!d.stage || !d.side || !d.kind || !d.name || !d.layer || !d.counts || !d.reals || !f) pva_fail(err, PVA_IO, "out of memory");
    for (int s = 0; s < STEER_N_STAGES && !err->code; s++)
        for (int a = 0; a < r->stages[s].n_arms; a++, i++) {
            const struct steer_arm *arm = &r->stages[s].arms[a];
            const struct steer_arm_result *x = &r->results[s].arms[a];
            const struct pva_pairs *p = &x->counts.pairs;
            const int64_t failing = p->gained + p->neither, passing = p->lost + p->both;
            const int64_t counts[N_COUNTS] = {arm->number, failing, p->gained, passing, p->lost, x->counts.degenerate, x->counts.same, x->counts.n};
            const double reals[N_REALS] = {arm->coefficient, arm->raw, failing ? (double)p->gained / (double)failing : NAN,
                                           passing ? (double)p->lost / (double)passing : NAN, x->counts.similarity, x->mcnemar, x->holm};
            d.stage[i] = stage_names[s], d.side[i] = steer_side_name(arm->side), d.kind[i] = steer_kind_name(arm->kind), d.name[i] = arm->name;
            d.layer[i] = arm->layer;
            for (int k = 0; k < N_COUNTS; k++) d.counts[k * n + i] = counts[k];
            for (int k = 0; k < N_REALS; k++) d.reals[k * n + i] = reals[k];
        }
    if (!err->code) {
        struct pva_column columns[N_TEXTS + N_COUNTS + N_REALS] = {{"stage", PVA_COLUMN_TEXT, d.stage}, {"side", PVA_COLUMN_TEXT, d.side}, {"arm", PVA_COLUMN_TEXT, d.kind},
                                                                   {"direction", PVA_COLUMN_TEXT, d.name}, {"layer", PVA_COLUMN_I32, d.layer}};
        for (int k = 0; k < N_COUNTS; k++) columns[N_TEXTS + k] = (struct pva_column){count_names[k], PVA_COLUMN_I64, d.counts + k * n};
        for (int k = 0; k < N_REALS; k++) columns[N_TEXTS + N_COUNTS + k] = (struct pva_column){real_names[k], PVA_COLUMN_F64, d.reals + k * n};
        const struct pva_table table = {n, N_TEXTS + N_COUNTS + N_REALS, columns};
        pva_table_write(&table, PVA_TABLE_CSV, f, err);
    }
    if (f) fclose(f);
    if (!err->code) run_publish(run_path(&r->followup->run, "exports/steer-arms.csv", path), text, n_text, err);
    free(text);
    free(d.stage), free(d.side), free(d.kind), free(d.name), free(d.layer), free(d.counts), free(d.reals);
    return err->code;
}

int steer_report_write(const struct steer_report *r, FILE *json, struct pva_error *err) {
    char path[4096];
    json_t *o = summary_json(r);
    char *text = o ? json_dumps(o, JSON_INDENT(1) | JSON_PRESERVE_ORDER) : NULL;
    if (!text) pva_fail(err, PVA_IO, "out of memory");
    else run_publish(run_path(&r->followup->run, "steer-summary.json", path), text, strlen(text), err);
    if (json && !err->code) fprintf(json, "%s\n", text);
    free(text);
    json_decref(o);
    return err->code ? err->code : write_table(r, err);
}
