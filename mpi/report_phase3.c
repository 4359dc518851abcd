/* The report on phase 3: how well the latents predict on problems they were not chosen on. */
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PREDICTORS = 12, MOST_TEMPERATURES = 16 };

static double number(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}
static double at(const json_t *array, size_t i) {
    const json_t *v = json_array_get(array, i);
    return json_is_number(v) ? json_number_value(v) : NAN;
}
static const char *text(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static int is_probe(const json_t *predictor) { return !strcmp(text(predictor, "list"), "probe"); }

/* Predictor k has the same look in every picture; the probe, which is the last one, its own. */
static struct pva_series look(const json_t *predictors, size_t k) {
    static const enum pva_colour colours[] = {PVA_BLUE, PVA_RED, PVA_ORANGE, PVA_PURPLE};
    int probe = is_probe(json_array_get(predictors, k));
    return (struct pva_series){.colour = probe ? PVA_GREEN : colours[k % 4], .dashed = !probe && k >= 4};
}

static void predictor_table(struct report *r, const json_t *predictors) {
    const char *names[MOST_PREDICTORS], *lists[MOST_PREDICTORS], *labels[MOST_PREDICTORS];
    double column[9][MOST_PREDICTORS];
    static const char *const keys[] = {"average_precision", "base_rate", "f1", "f1_always_positive", "mcc", "balanced_accuracy"};
    size_t n = json_array_size(predictors);
    if (n > MOST_PREDICTORS) n = MOST_PREDICTORS;
    for (size_t i = 0; i < n; i++) {
        const json_t *p = json_array_get(predictors, i), *v = json_object_get(p, "validation");
        names[i] = text(p, "predictor"), lists[i] = text(p, "list"), labels[i] = text(p, "label");
        column[0][i] = number(v, "auroc"), column[1][i] = at(json_object_get(v, "auroc_interval"), 0), column[2][i] = at(json_object_get(v, "auroc_interval"), 1);
        for (int k = 0; k < 6; k++) column[3 + k][i] = number(v, keys[k]);
    }
    const struct pva_column columns[] = {
        {"predictor", PVA_COLUMN_TEXT, names},       {"best by", PVA_COLUMN_TEXT, lists},        {"predicts", PVA_COLUMN_TEXT, labels},      {"AUROC", PVA_COLUMN_F64, column[0]},
        {"95\xc2\xa0% from", PVA_COLUMN_F64, column[1]},    {"to", PVA_COLUMN_F64, column[2]},          {"average precision", PVA_COLUMN_F64, column[3]},
        {"base rate", PVA_COLUMN_F64, column[4]},    {"F1", PVA_COLUMN_F64, column[5]},          {"F1 of always yes", PVA_COLUMN_F64, column[6]},
        {"MCC", PVA_COLUMN_F64, column[7]},          {"balanced accuracy", PVA_COLUMN_F64, column[8]},
    };
    const char *const formats[] = {NULL, NULL, NULL, "%.3f", "%.3f", "%.3f", "%.3f", "%.3f", "%.3f", "%.3f", "%.3f", "%.3f"};
    const struct pva_table table = {(int64_t)n, sizeof columns / sizeof *columns, columns};
    pva_html_table(r->page, "On the validation part; DeLong intervals; the threshold of F1 comes from the tuning part. An AUROC of 0.5, an average precision at the base rate and an F1 "
                            "at that of always saying yes are what no knowledge gives. Best by: the list of phase 2 that the latent heads (t: Welch's). MCC: Matthews' correlation; a dash where all "
                            "are predicted alike.", &table, formats, NULL);
}

/* ---- ROC and precision-recall, from exports/phase3-scores.csv ---- */

struct scores {
    int64_t n;
    double *score;      /* [n_predictors, n] */
    unsigned char *passed; /* [n] */
    int n_predictors;
    char names[MOST_PREDICTORS][60];
};

/* Our own file: the first four columns are task_id, part, difficulty, passed; no field holds a comma. It has every problem; the table's are the first ones of the
 * validation part, fewer with --limit. 0 unless all of these are there. */
static int read_scores(const struct report *r, struct scores *s) {
    char path[4096], *line = NULL;
    size_t room = 0;
    snprintf(path, sizeof path, "%s/exports/phase3-scores.csv", r->run);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    int64_t most = r->summary.n_validation > 0 && r->summary.n_validation < 1 << 20 ? r->summary.n_validation : 1;
    s->score = malloc((size_t)most * MOST_PREDICTORS * sizeof *s->score), s->passed = malloc((size_t)most);
    for (int row = 0; s->score && s->passed && getline(&line, &room, f) > 0 && s->n < most; row++) {
        char *save, *cell = strtok_r(line, ",\n", &save), *cells[4 + MOST_PREDICTORS] = {0};
        int n = 0;
        for (; cell && n < 4 + MOST_PREDICTORS; cell = strtok_r(NULL, ",\n", &save)) cells[n++] = cell;
        if (row == 0) {
            s->n_predictors = n > 4 ? n - 4 : 0;
            for (int k = 0; k < s->n_predictors; k++) snprintf(s->names[k], sizeof s->names[k], "%s", cells[4 + k]);
        } else if (n == 4 + s->n_predictors && !strcmp(cells[1], "validation")) {
            for (int k = 0; k < s->n_predictors; k++) s->score[k * most + s->n] = strtod(cells[4 + k], NULL);
            s->passed[s->n++] = cells[3][0] == '1';
        }
    }
    for (int k = 1; k < s->n_predictors && s->score; k++) memmove(s->score + k * s->n, s->score + k * most, (size_t)s->n * sizeof *s->score);
    fclose(f);
    free(line);
    return s->n > 1 && s->n == r->summary.n_validation;
}

struct pair {
    double score;
    int positive;
};
static int falling(const void *a, const void *b) {
    double x = ((const struct pair *)a)->score, y = ((const struct pair *)b)->score;
    return (x < y) - (x > y);
}

/* Points of both curves, one per distinct score; tied items move together. */
static int64_t curves(const double *score, const unsigned char *passed, int64_t n, int failed_is_positive, double *fpr, double *tpr, double *precision) {
    struct pair *p = malloc((size_t)n * sizeof *p);
    int64_t positives = 0, points = 0;
    if (!p) return 0;
    for (int64_t i = 0; i < n; i++) p[i] = (struct pair){score[i], failed_is_positive ? !passed[i] : passed[i]}, positives += p[i].positive;
    qsort(p, (size_t)n, sizeof *p, falling);
    fpr[0] = tpr[0] = 0, precision[0] = NAN, points = 1;
    int64_t tp = 0;
    for (int64_t i = 0; i < n; i++) {
        tp += p[i].positive;
        if (i + 1 < n && p[i + 1].score == p[i].score) continue;
        fpr[points] = (double)(i + 1 - tp) / (double)(n - positives), tpr[points] = (double)tp / (double)positives;
        precision[points++] = (double)tp / (double)(i + 1);
    }
    free(p);
    return points;
}

static void curve_pictures(struct report *r, const json_t *predictors) {
    struct scores s = {0};
    const double unit[] = {0, 1};
    if (!read_scores(r, &s))
        pva_html_paragraph(r->page, "note", "No curves: exports/phase3-scores.csv is missing or not whole; pva-mpi phase3 --run %s writes it again.", r->run);
    else {
        struct pva_series roc[MOST_PREDICTORS + 1], precision[MOST_PREDICTORS], f1[MOST_PREDICTORS];
        double *room = malloc((size_t)s.n_predictors * 5 * (size_t)(s.n + 1) * sizeof *room);
        int n = room ? s.n_predictors : 0;
        for (int k = 0; k < n; k++) {
            double *fpr = room + 5 * k * (s.n + 1), *tpr = fpr + s.n + 1, *ppv = tpr + s.n + 1, *said = ppv + s.n + 1, *score = said + s.n + 1;
            int failed = !strcmp(text(json_array_get(predictors, (size_t)k), "label"), "failed");
            int64_t points = curves(s.score + k * s.n, s.passed, s.n, failed, fpr, tpr, ppv);
            int64_t positives = 0;
            for (int64_t i = 0; i < s.n; i++) positives += failed ? !s.passed[i] : s.passed[i];
            for (int64_t i = 0; i < points; i++) {
                double hits = tpr[i] * (double)positives, all = hits + fpr[i] * (double)(s.n - positives);
                said[i] = all / (double)s.n, score[i] = 2 * hits / (all + (double)positives);
            }
            struct pva_series line = look(predictors, (size_t)k);
            line.label = s.names[k], line.kind = PVA_SERIES_LINE, line.n = points;
            roc[k] = precision[k] = f1[k] = line;
            roc[k].x = fpr, roc[k].y = tpr, precision[k].x = tpr, precision[k].y = ppv, f1[k].x = said, f1[k].y = score;
        }
        roc[n] = (struct pva_series){.label = "chance", .kind = PVA_SERIES_LINE, .colour = PVA_GREY, .dashed = 1, .n = 2, .x = unit, .y = unit};
        const struct pva_figure a = {.title = "ROC", .x_label = "false positive rate", .y_label = "true positive rate", .x_range = unit, .y_range = unit, .width = 460, .height = 420,
                                     .series = roc, .n_series = n + 1};
        const struct pva_figure b = {.title = "Precision and recall", .x_label = "recall", .y_label = "precision", .x_range = unit, .y_range = unit, .width = 460, .height = 420,
                                     .series = precision, .n_series = n};
        const struct pva_figure c = {.title = "F1 by threshold", .x_label = "fraction of problems above the threshold", .y_label = "F1", .x_range = unit, .y_range = unit, .series = f1,
                                     .n_series = n};
        char alts[3][600] = {"ROC curves on the validation part, with the areas below them:", "Precision against recall on the validation part, with average precision beside base rate:",
                             "F1 against the fraction of validation problems above the threshold, with the F1 at the tuned threshold beside that of calling everything positive:"};
        for (int k = 0; k < n; k++) {
            const json_t *v = json_object_get(json_array_get(predictors, (size_t)k), "validation");
            if (isnan(number(v, "auroc"))) continue;
            report_add(alts[0], sizeof alts[0], " %s %.3f,", s.names[k], number(v, "auroc"));
            report_add(alts[1], sizeof alts[1], " %s %.3f beside %.3f,", s.names[k], number(v, "average_precision"), number(v, "base_rate"));
            report_add(alts[2], sizeof alts[2], " %s %.3f beside %.3f,", s.names[k], number(v, "f1"), number(v, "f1_always_positive"));
        }
        for (int i = 0; i < 3; i++) alts[i][strlen(alts[i]) - 1] = '.';
        report_picture(r, "roc", &a, alts[0], "The probe is a logistic regression on the whole residual stream: what a linear reader could know.");
        report_picture(r, "precision-recall", &b, alts[1], "A predictor's level at recall 1 is its base rate.");
        report_picture(r, "threshold", &c, alts[2],
                       "At 1 everything is called positive: what is not clearly above the right end is not prediction.");
        free(room);
    }
    free(s.score), free(s.passed);
}

/* " L3-712: 0.61 at 0, 0.58 at 1;", places named or numbered; those without an area are left out. */
static void add_areas(char *out, size_t size, const char *predictor, const double *area, size_t n, const char *const *names, const double *numbers) {
    char place[40];
    report_add(out, size, " %s:", predictor);
    for (size_t i = 0; i < n; i++) {
        if (isnan(area[i])) continue;
        if (names) snprintf(place, sizeof place, "%s", names[i]);
        else snprintf(place, sizeof place, "%g", numbers[i]);
        report_add(out, size, " %.2f at %s,", area[i], place);
    }
    out[strlen(out) - 1] = ';';
}

static void temperature_pictures(struct report *r, const json_t *summary) {
    static const char *const keys[2] = {"pass_rate", "auroc"};
    const json_t *temperatures = json_object_get(summary, "temperatures"), *predictors = json_object_get(summary, "predictors");
    double x[MOST_TEMPERATURES], rate[MOST_TEMPERATURES], low[MOST_TEMPERATURES], high[MOST_TEMPERATURES];
    double values[3][MOST_PREDICTORS][MOST_TEMPERATURES], shifted[MOST_PREDICTORS][MOST_TEMPERATURES];
    size_t n = json_array_size(temperatures), k = json_array_size(predictors);
    if (n > MOST_TEMPERATURES) n = MOST_TEMPERATURES;
    if (k > MOST_PREDICTORS) k = MOST_PREDICTORS;
    if (n < 2) return;
    const double unit[] = {0, 1}, half = 0.5, range[2] = {-0.1, 0.1 + number(json_array_get(temperatures, n - 1), "temperature")};
    for (size_t i = 0; i < n; i++) {
        const json_t *t = json_array_get(temperatures, i);
        x[i] = number(t, "temperature"), rate[i] = number(t, keys[0]);
        low[i] = fmax(0, at(json_object_get(t, "interval"), 0)), high[i] = fmin(1, at(json_object_get(t, "interval"), 1));
    }
    struct pva_series series[MOST_PREDICTORS + 1];
    for (size_t j = 0; j < k; j++) {
        const json_t *p = json_array_get(predictors, j), *ts = json_object_get(p, "temperatures");
        for (size_t i = 0; i < n; i++) {
            const json_t *t = json_array_get(ts, i);
            values[0][j][i] = number(t, keys[1]), values[1][j][i] = at(json_object_get(t, "interval"), 0), values[2][j][i] = at(json_object_get(t, "interval"), 1);
            shifted[j][i] = x[i] + 0.02 * ((double)j - (double)(k - 1) / 2);
        }
        series[j] = look(predictors, j);
        series[j].label = text(p, "predictor"), series[j].kind = PVA_SERIES_INTERVALS, series[j].n = (int64_t)n;
        series[j].x = shifted[j], series[j].y = values[0][j], series[j].low = values[1][j], series[j].high = values[2][j];
    }
    series[k] = (struct pva_series){.label = "chance", .kind = PVA_SERIES_LEVEL, .colour = PVA_GREY, .dashed = 1, .y = &half};
    const struct pva_series passes = {.kind = PVA_SERIES_INTERVALS, .colour = PVA_BLUE, .n = (int64_t)n, .x = x, .y = rate, .low = low, .high = high};
    const struct pva_figure a = {.title = "Pass rate by temperature", .x_label = "temperature", .y_label = "fraction solved", .x_range = range, .y_range = unit, .series = &passes, .n_series = 1};
    const struct pva_figure b = {.title = "AUROC by temperature", .x_label = "temperature", .y_label = "AUROC", .x_range = range, .y_range = unit, .series = series, .n_series = (int)k + 1};
    char alt[300] = "Fraction of problems solved by temperature:", areas[800] = "AUROC by temperature:";
    for (size_t i = 0; i < n; i++) report_add(alt, sizeof alt, " %.2f at %g%s", rate[i], x[i], i + 1 < n ? "," : ".");
    for (size_t j = 0; j < k; j++)
        add_areas(areas, sizeof areas, text(json_array_get(predictors, j), "predictor"), values[0][j], n, NULL, x);
    areas[strlen(areas) - 1] = '.';
    report_picture(r, "pass-rate-temperature", &a, alt, "Intervals clustered by problem: samples of one problem are not independent. Where nothing passes there is none.");
    report_picture(r, "auroc-temperature", &b, areas, "The activations are the prompt's and do not depend on the temperature; the labels do. Missing: one class only.");
}

static void difficulty_picture(struct report *r, const json_t *predictors) {
    enum { BINS = 3 };
    const char *bins[BINS] = {"", "", ""};
    double x[MOST_PREDICTORS][BINS], auroc[MOST_PREDICTORS][BINS], low[MOST_PREDICTORS][BINS], high[MOST_PREDICTORS][BINS];
    struct pva_series series[MOST_PREDICTORS + 1];
    const double unit[] = {0, 1}, half = 0.5;
    size_t k = json_array_size(predictors);
    if (k > MOST_PREDICTORS) k = MOST_PREDICTORS;
    for (size_t j = 0; j < k; j++) {
        const json_t *p = json_array_get(predictors, j), *all = json_object_get(p, "difficulty");
        for (size_t b = 0; b < BINS; b++) {
            const json_t *d = json_array_get(all, b), *interval = json_object_get(d, "auroc_interval");
            if (*text(d, "bin")) bins[b] = text(d, "bin");
            x[j][b] = (double)b + 0.06 * ((double)j - (double)(k - 1) / 2), auroc[j][b] = number(d, "auroc"), low[j][b] = at(interval, 0), high[j][b] = at(interval, 1);
        }
        series[j] = look(predictors, j);
        series[j].label = text(p, "predictor"), series[j].kind = PVA_SERIES_INTERVALS, series[j].n = BINS;
        series[j].x = x[j], series[j].y = auroc[j], series[j].low = low[j], series[j].high = high[j];
    }
    series[k] = (struct pva_series){.label = "chance", .kind = PVA_SERIES_LEVEL, .colour = PVA_GREY, .dashed = 1, .y = &half};
    const struct pva_figure f = {.title = "AUROC by difficulty", .y_label = "AUROC", .y_range = unit, .x_names = bins, .n_x_names = BINS, .series = series, .n_series = (int)k + 1};
    char alt[800] = "AUROC by difficulty, with intervals:";
    for (size_t j = 0; j < k; j++) add_areas(alt, sizeof alt, text(json_array_get(predictors, j), "predictor"), auroc[j], BINS, bins, NULL);
    alt[strlen(alt) - 1] = '.';
    report_picture(r, "auroc-difficulty", &f, alt,
                   "What predicts only because hard problems fail more is at chance within each. DeLong intervals. Missing: one class only.");
}

static void difficulty_table(struct report *r, const json_t *predictors) {
    enum { MOST = 3 * MOST_PREDICTORS };
    const char *bins[MOST], *names[MOST];
    int64_t problems[MOST], positive[MOST], n = 0;
    double auroc[MOST], low[MOST], high[MOST];
    for (size_t j = 0; j < json_array_size(predictors) && j < MOST_PREDICTORS; j++) {
        const json_t *p = json_array_get(predictors, j), *all = json_object_get(p, "difficulty");
        for (size_t i = 0; i < json_array_size(all) && i < 3; i++, n++) {
            const json_t *d = json_array_get(all, i);
            names[n] = text(p, "predictor"), bins[n] = text(d, "bin");
            problems[n] = json_integer_value(json_object_get(d, "n")), positive[n] = json_integer_value(json_object_get(d, "positive"));
            auroc[n] = number(d, "auroc"), low[n] = at(json_object_get(d, "auroc_interval"), 0), high[n] = at(json_object_get(d, "auroc_interval"), 1);
        }
    }
    const struct pva_column columns[] = {{"predictor", PVA_COLUMN_TEXT, names}, {"difficulty", PVA_COLUMN_TEXT, bins}, {"problems", PVA_COLUMN_I64, problems},
                                         {"positive", PVA_COLUMN_I64, positive}, {"AUROC", PVA_COLUMN_F64, auroc},      {"95\xc2\xa0% from", PVA_COLUMN_F64, low},
                                         {"to", PVA_COLUMN_F64, high}};
    const char *const formats[] = {NULL, NULL, NULL, NULL, "%.3f", "%.3f", "%.3f"};
    const struct pva_table table = {n, sizeof columns / sizeof *columns, columns};
    pva_html_details_begin(r->page, "Numbers by difficulty");
    pva_html_table(r->page, "A dash: all problems of the bin are of one class.", &table, formats, NULL);
    pva_html_details_end(r->page);
}

int report_phase3(struct report *r, struct pva_error *err) {
    struct report_summary *s = &r->summary;
    s->auroc = s->auroc_low = s->auroc_high = s->probe_auroc = s->probe_low = s->probe_high = NAN;
    json_t *o = report_json(r, "phase3-summary.json", "predictors", err);
    if (err->code) return err->code;
    if (!o) return report_missing(r, "prediction", "Prediction", "phase3", ""), PVA_OK;
    const json_t *predictors = json_object_get(o, "predictors");
    for (size_t i = 0; i < json_array_size(predictors); i++) {
        const json_t *p = json_array_get(predictors, i), *v = json_object_get(p, "validation"), *interval = json_object_get(v, "auroc_interval");
        double auroc = number(v, "auroc");
        if (is_probe(p)) {
            s->probe_auroc = auroc, s->probe_low = at(interval, 0), s->probe_high = at(interval, 1);
            continue;
        }
        s->n_predictors++;
        if (!isnan(s->auroc) && !(auroc > s->auroc)) continue;
        s->auroc = auroc, s->auroc_low = at(interval, 0), s->auroc_high = at(interval, 1);
        snprintf(s->best_predictor, sizeof s->best_predictor, "%s", text(p, "predictor"));
    }
    s->n_validation = json_integer_value(json_object_get(o, "validation"));
    pva_html_section(r->page, "prediction", "Prediction");
    pva_html_paragraph(r->page, "", "%lld validation problems, which played no part in choosing the latents; thresholds from %lld tuning problems.",
                       (long long)s->n_validation, (long long)json_integer_value(json_object_get(o, "tuning")));
    predictor_table(r, predictors);
    pva_html_row_begin(r->page);
    curve_pictures(r, predictors);
    difficulty_picture(r, predictors);
    temperature_pictures(r, o);
    pva_html_row_end(r->page);
    difficulty_table(r, predictors);
    json_decref(o);
    return PVA_OK;
}
