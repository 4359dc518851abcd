#include "pva/threshold.h"

#include "pva/auroc.h"

#include "order.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

int pva_confusion_count(const double *scores, const unsigned char *labels, int64_t n, double threshold, struct pva_confusion *out,
                        struct pva_error *err) {
    *out = (struct pva_confusion){0, 0, 0, 0};
    if (isnan(threshold)) return pva_fail(err, PVA_INPUT, "confusion: the threshold is NaN");
    for (int64_t i = 0; i < n; i++) {
        if (isnan(scores[i]))
            return pva_fail(err, PVA_INPUT, "confusion: score: item %" PRId64 " of %" PRId64 " is NaN; scores must be numbers", i,
                            n);
        int64_t *cell = scores[i] > threshold ? labels[i] ? &out->true_positives : &out->false_positives
                        : labels[i]           ? &out->false_negatives
                                              : &out->true_negatives;
        ++*cell;
    }
    return 0;
}

static double ratio(int64_t part, int64_t whole) { return whole > 0 ? (double)part / (double)whole : NAN; }

double pva_confusion_precision(const struct pva_confusion *c) {
    return ratio(c->true_positives, c->true_positives + c->false_positives);
}

double pva_confusion_recall(const struct pva_confusion *c) {
    return ratio(c->true_positives, c->true_positives + c->false_negatives);
}

double pva_confusion_specificity(const struct pva_confusion *c) {
    return ratio(c->true_negatives, c->true_negatives + c->false_positives);
}

double pva_confusion_accuracy(const struct pva_confusion *c) {
    return ratio(c->true_positives + c->true_negatives,
                 c->true_positives + c->true_negatives + c->false_positives + c->false_negatives);
}

double pva_confusion_f1(const struct pva_confusion *c) {
    return ratio(2 * c->true_positives, 2 * c->true_positives + c->false_positives + c->false_negatives);
}

double pva_confusion_balanced_accuracy(const struct pva_confusion *c) {
    return (pva_confusion_recall(c) + pva_confusion_specificity(c)) / 2;
}

double pva_confusion_mcc(const struct pva_confusion *c) {
    double tp = (double)c->true_positives, fp = (double)c->false_positives, tn = (double)c->true_negatives,
           fn = (double)c->false_negatives;
    double margins = sqrt(tp + fp) * sqrt(tp + fn) * sqrt(tn + fp) * sqrt(tn + fn);
    return margins > 0 ? (tp * tn - fp * fn) / margins : NAN;
}

int pva_threshold_best_f1(const double *scores, const unsigned char *labels, int64_t n, struct pva_best_threshold *out,
                          struct pva_error *err) {
    int64_t n_points = 0, n_positive = 0;
    *out = (struct pva_best_threshold){NAN, NAN, {0, 0, 0, 0}};
    struct pva_curve_point *points = order_array(n < 0 || n == INT64_MAX ? n : n + 1, sizeof *points, "best threshold", err);
    if (!points || pva_auroc_curve(scores, labels, n, points, &n_points, err)) goto done;
    for (int64_t i = 0; i < n; i++) n_positive += labels[i] != 0;
    for (int64_t i = 0; i < n_points && n_positive > 0; i++) { /* thresholds fall, so > keeps the highest of equals */
        int64_t tp = points[i].true_positives, fp = points[i].false_positives;
        struct pva_confusion c = {tp, fp, n - n_positive - fp, n_positive - tp};
        double f1 = pva_confusion_f1(&c);
        if (i == 0 || f1 > out->f1) *out = (struct pva_best_threshold){points[i].threshold, f1, c};
    }
done:
    free(points);
    return err->code;
}

struct pva_baseline pva_baseline(int64_t n_positive, int64_t n) {
    if (n < 1 || n_positive < 0 || n_positive > n) return (struct pva_baseline){NAN, NAN, NAN};
    double p = (double)n_positive / (double)n;
    return (struct pva_baseline){p, 2 * p / (1 + p), fmax(p, 1 - p)};
}
