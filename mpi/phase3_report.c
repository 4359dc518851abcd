/* Phase 3 as a table, phase3-summary.json, exports/phase3-predictors.csv and exports/phase3-scores.csv. */
#include "phase3_result.h"

#include "pva/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const bin_names[PVA_N_DIFFICULTIES] = {"complexity 1", "2 or 3", "4 and more"};

/* ---- the table ---- */

static const char *figure(char *out, size_t size, double x) {
    if (isnan(x)) snprintf(out, size, "-");
    else snprintf(out, size, "%.3f", x);
    return out;
}

static const char *area(char *out, size_t size, const struct phase3_metrics *m) {
    if (m->n == 0) snprintf(out, size, "no problem");
    else if (m->one_class) snprintf(out, size, "one class only");
    else if (isnan(m->auroc.interval.low)) snprintf(out, size, "%.3f (too few for an interval)", m->auroc.auroc);
    else snprintf(out, size, "%.3f [%.3f, %.3f]", m->auroc.auroc, m->auroc.interval.low, m->auroc.interval.high);
    return out;
}

static void print_predictor(const struct phase3_predictor *p, const struct phase3_score *s, FILE *out) {
    char a[40], ap[16], f1[16], trivial[16], mcc[16], balanced[16];
    const struct phase3_metrics *m = &s->validation;
    fprintf(out, "  %-14s %-20s %-6s %-22s %6s %9.3f %6s %7s %6s %6s", p->name, p->list, p->predicts_failure ? "failed" : "passed", area(a, sizeof a, m),
            figure(ap, sizeof ap, m->auroc.average_precision), m->baseline.base_rate, figure(f1, sizeof f1, m->f1), figure(trivial, sizeof trivial, m->baseline.f1_always_positive),
            figure(mcc, sizeof mcc, m->mcc), figure(balanced, sizeof balanced, m->balanced_accuracy));
    if (isnan(s->against_probe.difference)) fprintf(out, "  -\n");
    else fprintf(out, "  %+.3f [%+.3f, %+.3f] p %.3g\n", s->against_probe.difference, s->against_probe.interval.low, s->against_probe.interval.high, s->against_probe.p);
}

static void print_difficulties(const struct phase3_result *r, FILE *out) {
    char a[40];
    fprintf(out, "difficulty (AUROC on validation, same threshold):\n");
    for (int d = 0; d < PVA_N_DIFFICULTIES; d++) {
        const struct phase3_metrics *any = &r->scores[0].by_difficulty[d];
        int64_t passed = r->predictors[0].predicts_failure ? any->n - any->n_positive : any->n_positive;
        fprintf(out, "  %-14s %lld problems, %lld pass\n", bin_names[d], (long long)any->n, (long long)passed);
        for (int i = 0; i < r->n_predictors && any->n; i++) {
            const struct phase3_metrics *m = &r->scores[i].by_difficulty[d];
            fprintf(out, "    %-14s %s", r->predictors[i].name, area(a, sizeof a, m));
            if (!isnan(m->f1)) fprintf(out, ", F1 %.3f (always positive %.3f)", m->f1, m->baseline.f1_always_positive);
            fprintf(out, "\n");
        }
    }
}

static void print_temperatures(const struct phase3_result *r, FILE *out) {
    fprintf(out, "temperature:\n");
    for (int t = 0; t < r->n_temperatures; t++) {
        const struct phase3_temperature *x = &r->temperatures[t];
        fprintf(out, "  T %-4g %lld problems x %lld: pass rate %.1f %% [%.1f, %.1f]", x->temperature, (long long)x->n_problems, (long long)x->n_samples, 100 * x->pass_rate.mean,
                100 * x->pass_rate.interval.low, 100 * x->pass_rate.interval.high);
        if (x->n_samples > 1) fprintf(out, ", pass@%lld %.1f %%", (long long)x->n_samples, 100 * x->pass_at[x->n_samples - 1]);
        for (int i = 0; i < r->n_predictors; i++) {
            const struct phase3_at_temperature *a = &r->scores[i].temperatures[t];
            if (a->one_class) fprintf(out, "; %s one class only", r->predictors[i].name);
            else if (isnan(a->auroc.bca.low)) fprintf(out, "; %s AUROC %.3f (too few for an interval)", r->predictors[i].name, a->auroc.estimate);
            else fprintf(out, "; %s AUROC %.3f [%.3f, %.3f]", r->predictors[i].name, a->auroc.estimate, a->auroc.bca.low, a->auroc.bca.high);
        }
        fprintf(out, "\n");
    }
    if (r->n_temperatures < 2) return;
    fprintf(out, "  Cochran's Q over first samples %.3f, p %.3g; Page's trend of pass fractions z %+.3f, p falling %.3g, rising %.3g\n", r->cochran.q, r->cochran.p, r->page.z,
            r->page.p_falling, r->page.p_rising);
}

void phase3_report_print(const struct phase3_result *r, const struct phase3_settings *settings, FILE *out) {
    fprintf(out, "prediction on %lld validation problems, thresholds from %lld tuning problems; intervals %.0f %%\n", (long long)r->n_validation, (long long)r->n_tuning,
            100 * settings->level);
    fprintf(out, "  %-14s %-20s %-6s %-22s %6s %9s %6s %7s %6s %6s  %s\n", "predictor", "list", "label", "AUROC (DeLong)", "AP", "base rate", "F1", "trivial", "MCC", "bal.",
            "AUROC less the probe's");
    for (int i = 0; i < r->n_predictors; i++) print_predictor(&r->predictors[i], &r->scores[i], out);
    if (r->probe_layer >= 0)
        fprintf(out, "  probe: logistic regression on the whole stream at layer %d, C %g: AUROC %.3f over 5 folds of the selection split\n", r->probe_layer, r->probe_c, r->probe_cv);
    else fprintf(out, "  no probe: the selection split has too few problems of one class\n");
    print_difficulties(r, out);
    print_temperatures(r, out);
}

/* ---- JSON ---- */

static json_t *real(double x) { return isfinite(x) ? json_real(x) : json_null(); }
static json_t *interval(struct pva_interval i) { return json_pack("[o,o]", real(i.low), real(i.high)); }

static json_t *metrics_json(const struct phase3_metrics *m) {
    json_t *o = json_pack("{s:I,s:I,s:b}", "n", (json_int_t)m->n, "positive", (json_int_t)m->n_positive, "one_class", m->one_class);
    json_object_set_new(o, "auroc", real(m->auroc.auroc));
    json_object_set_new(o, "auroc_interval", interval(m->auroc.interval));
    json_object_set_new(o, "average_precision", real(m->auroc.average_precision));
    json_object_set_new(o, "f1", real(m->f1));
    json_object_set_new(o, "precision", real(m->precision));
    json_object_set_new(o, "recall", real(m->recall));
    json_object_set_new(o, "mcc", real(m->mcc));
    json_object_set_new(o, "balanced_accuracy", real(m->balanced_accuracy));
    json_object_set_new(o, "base_rate", real(m->baseline.base_rate));
    json_object_set_new(o, "f1_always_positive", real(m->baseline.f1_always_positive));
    json_object_set_new(o, "accuracy_majority", real(m->baseline.accuracy_majority));
    json_object_set_new(o, "confusion", json_pack("{s:I,s:I,s:I,s:I}", "true_positives", (json_int_t)m->confusion.true_positives, "false_positives",
                                                  (json_int_t)m->confusion.false_positives, "true_negatives", (json_int_t)m->confusion.true_negatives, "false_negatives",
                                                  (json_int_t)m->confusion.false_negatives));
    return o;
}

static json_t *predictor_json(const struct phase3_result *r, int i) {
    const struct phase3_predictor *p = &r->predictors[i];
    const struct phase3_score *s = &r->scores[i];
    json_t *bins = json_array(), *temperatures = json_array();
    for (int d = 0; d < PVA_N_DIFFICULTIES; d++) {
        json_t *m = metrics_json(&s->by_difficulty[d]);
        json_object_set_new(m, "bin", json_string(bin_names[d]));
        json_array_append_new(bins, m);
    }
    for (int t = 0; t < r->n_temperatures; t++) {
        const struct phase3_at_temperature *a = &s->temperatures[t];
        json_array_append_new(temperatures, json_pack("{s:f,s:b,s:o,s:o,s:o,s:I}", "temperature", a->temperature, "one_class", a->one_class, "auroc", real(a->auroc.estimate),
                                                      "interval", interval(a->auroc.bca), "standard_error", real(a->auroc.standard_error), "replicates",
                                                      (json_int_t)a->auroc.n_replicates));
    }
    json_t *o = json_pack("{s:s,s:s,s:i,s:I,s:s}", "predictor", p->name, "list", p->list, "layer", p->layer, "latent", (json_int_t)p->latent, "label",
                          p->predicts_failure ? "failed" : "passed");
    /* -inf, "always positive", is no JSON number. */
    json_object_set_new(o, "threshold", isinf(s->tuning.threshold) ? json_string("-inf") : real(s->tuning.threshold));
    json_object_set_new(o, "tuning", metrics_json(&s->on_tuning));
    json_object_set_new(o, "validation", metrics_json(&s->validation));
    json_object_set_new(o, "against_probe", json_pack("{s:o,s:o,s:o,s:o}", "difference", real(s->against_probe.difference), "interval", interval(s->against_probe.interval), "z",
                                                      real(s->against_probe.z), "p", real(s->against_probe.p)));
    json_object_set_new(o, "difficulty", bins);
    json_object_set_new(o, "temperatures", temperatures);
    return o;
}

static json_t *temperature_json(const struct phase3_temperature *t) {
    json_t *pass_at = json_array();
    for (int64_t k = 0; k < t->n_samples; k++)
        json_array_append_new(pass_at, json_pack("{s:I,s:o,s:o}", "k", (json_int_t)k + 1, "rate", real(t->pass_at[k]), "interval", interval(t->pass_at_interval[k])));
    return json_pack("{s:f,s:I,s:I,s:I,s:o,s:o,s:o,s:o}", "temperature", t->temperature, "problems", (json_int_t)t->n_problems, "samples", (json_int_t)t->n_samples, "passed",
                     (json_int_t)t->passed, "pass_rate", real(t->pass_rate.mean), "interval", interval(t->pass_rate.interval), "standard_error",
                     real(t->pass_rate.standard_error), "pass_at_k", pass_at);
}

static json_t *summary_json(const struct phase3_result *r, const struct followup *f, const struct phase3_settings *settings) {
    json_t *predictors = json_array(), *temperatures = json_array(), *layers = json_array();
    for (int i = 0; i < r->n_predictors; i++) json_array_append_new(predictors, predictor_json(r, i));
    for (int t = 0; t < r->n_temperatures; t++) json_array_append_new(temperatures, temperature_json(&r->temperatures[t]));
    for (int64_t l = 0; r->probe_layer >= 0 && l < f->phase1.n_layers; l++)
        json_array_append_new(layers, json_pack("{s:i,s:o}", "layer", (int)f->phase1.layers[l], "auroc", real(r->probe_cv_by_layer[l])));
    return json_pack("{s:f,s:I,s:I,s:I,s:o,s:{s:i,s:o,s:o,s:o},s:o,s:{s:o,s:o,s:o},s:{s:o,s:o,s:o,s:o}}", "level", settings->level, "replicates",
                     (json_int_t)settings->replicates, "tuning", (json_int_t)r->n_tuning, "validation", (json_int_t)r->n_validation, "predictors", predictors, "probe", "layer",
                     r->probe_layer, "c", real(r->probe_c), "cross_validated_auroc", real(r->probe_cv), "layers", layers, "temperatures", temperatures, "cochran_q", "q",
                     real(r->cochran.q), "df", real(r->cochran.df), "p", real(r->cochran.p), "page_trend", "z", real(r->page.z), "p", real(r->page.p), "p_falling",
                     real(r->page.p_falling), "p_rising", real(r->page.p_rising));
}

/* ---- CSV ---- */

static int publish_table(const struct pva_table *table, const struct followup *f, const char *name, struct pva_error *err) {
    char path[4096], *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    if (!out) return pva_fail(err, PVA_IO, "out of memory");
    pva_table_write(table, PVA_TABLE_CSV, out, err);
    fclose(out);
    if (!err->code) run_publish(run_path(&f->run, name, path), text, n, err);
    free(text);
    return err->code;
}

static int write_predictors(const struct phase3_result *r, const struct followup *f, struct pva_error *err) {
    enum { N_REALS = 14 };
    static const char *const names[N_REALS] = {"threshold", "auroc", "auroc_low", "auroc_high", "average_precision", "base_rate", "f1", "f1_always_positive",
                                               "precision", "recall", "mcc", "balanced_accuracy", "difference_to_probe", "p_to_probe"};
    size_t n = (size_t)r->n_predictors;
    const char **name = malloc(n * sizeof *name), **list = malloc(n * sizeof *list), **label = malloc(n * sizeof *label);
    double *reals = malloc(n * N_REALS * sizeof *reals);
    struct pva_column columns[3 + N_REALS];
    if (!name || !list || !label || !reals) pva_fail(err, PVA_IO, "out of memory");
    for (size_t i = 0; i < n && !err->code; i++) {
        const struct phase3_score *s = &r->scores[i];
        const struct phase3_metrics *m = &s->validation;
        const double row[N_REALS] = {s->tuning.threshold, m->auroc.auroc, m->auroc.interval.low, m->auroc.interval.high, m->auroc.average_precision, m->baseline.base_rate, m->f1,
                                     m->baseline.f1_always_positive, m->precision, m->recall, m->mcc, m->balanced_accuracy, s->against_probe.difference, s->against_probe.p};
        name[i] = r->predictors[i].name, list[i] = r->predictors[i].list, label[i] = r->predictors[i].predicts_failure ? "failed" : "passed";
        for (int k = 0; k < N_REALS; k++) reals[(size_t)k * n + i] = row[k];
    }
    if (!err->code) {
        columns[0] = (struct pva_column){"predictor", PVA_COLUMN_TEXT, name}, columns[1] = (struct pva_column){"list", PVA_COLUMN_TEXT, list};
        columns[2] = (struct pva_column){"label", PVA_COLUMN_TEXT, label};
        for (int k = 0; k < N_REALS; k++) columns[3 + k] = (struct pva_column){names[k], PVA_COLUMN_F64, reals + (size_t)k * n};
        const struct pva_table table = {r->n_predictors, 3 + N_REALS, columns};
        publish_table(&table, f, "exports/phase3-predictors.csv", err);
    }
    free(name), free(list), free(label), free(reals);
    return err->code;
}

/* One line per problem that phase 1 graded: its part, difficulty, outcome, and every predictor's score. */
static int write_scores(const struct phase3_result *r, const struct followup *f, struct pva_error *err) {
    static const char *const parts[] = {"selection", "tuning", "validation", "?"};
    size_t n = 0, all = (size_t)f->phase1.n, p = (size_t)r->n_predictors;
    const char **task = malloc((all + 1) * sizeof *task), **part = malloc((all + 1) * sizeof *part);
    int32_t *difficulty = malloc((all + 1) * sizeof *difficulty);
    uint8_t *passed = malloc(all + 1);
    double *scores = malloc((all * p + 1) * sizeof *scores);
    struct pva_column *columns = calloc(4 + p, sizeof *columns);
    if (!task || !part || !difficulty || !passed || !scores || !columns) pva_fail(err, PVA_IO, "out of memory");
    for (size_t i = 0; i < all && !err->code; i++) {
        if (f->phase1.states[i] != STORE_DONE) continue;
        task[n] = f->phase1.task_ids[i], part[n] = parts[f->phase1.part[i] < 3 ? f->phase1.part[i] : 3];
        difficulty[n] = f->phase1.difficulty[i], passed[n] = f->phase1.verdicts[i] == PVA_PASS;
        for (size_t k = 0; k < p; k++) scores[k * all + n] = r->predictors[k].scores[i];
        n++;
    }
    if (!err->code) {
        columns[0] = (struct pva_column){"task_id", PVA_COLUMN_TEXT, task}, columns[1] = (struct pva_column){"part", PVA_COLUMN_TEXT, part};
        columns[2] = (struct pva_column){"difficulty", PVA_COLUMN_I32, difficulty}, columns[3] = (struct pva_column){"passed", PVA_COLUMN_BOOL, passed};
        for (size_t k = 0; k < p; k++) columns[4 + k] = (struct pva_column){r->predictors[k].name, PVA_COLUMN_F64, scores + k * all};
        const struct pva_table table = {(int64_t)n, 4 + (int)p, columns};
        publish_table(&table, f, "exports/phase3-scores.csv", err);
    }
    free(task), free(part), free(difficulty), free(passed), free(scores), free(columns);
    return err->code;
}

int phase3_report_write(const struct phase3_result *r, const struct followup *f, const struct phase3_settings *settings, FILE *json, struct pva_error *err) {
    char path[4096];
    json_t *o = summary_json(r, f, settings);
    char *text = o ? json_dumps(o, JSON_INDENT(1) | JSON_PRESERVE_ORDER) : NULL;
    if (write_predictors(r, f, err) || write_scores(r, f, err)) goto done;
    /* Last: it is the sign that the phase is complete. */
    if (!text) pva_fail(err, PVA_IO, "out of memory");
    else run_publish(run_path(&f->run, "phase3-summary.json", path), text, strlen(text), err);
    if (json && !err->code) fprintf(json, "%s\n", text);
done:
    free(text);
    json_decref(o);
    return err->code;
}
