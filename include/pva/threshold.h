/* threshold.h - scores turned into predictions. There is ONE comparison in this project: predicted positive means score >
 * threshold.
 *
 * Conventions: stats.h. Ratios with an empty denominator are NaN (no prediction, no positive, ...), never 0.
 */
#ifndef PVA_THRESHOLD_H
#define PVA_THRESHOLD_H

#include "pva/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

struct pva_confusion {
    int64_t true_positives, false_positives, true_negatives, false_negatives;
};

/* Counts at a threshold; labels[n]: nonzero = positive. A NaN score, or a NaN threshold, is PVA_INPUT. */
int pva_confusion_count(const double *scores, const unsigned char *labels, int64_t n, double threshold, struct pva_confusion *out,
                        struct pva_error *err);

double pva_confusion_precision(const struct pva_confusion *c);         /* TP / (TP + FP) */
double pva_confusion_recall(const struct pva_confusion *c);            /* TP / (TP + FN) */
double pva_confusion_specificity(const struct pva_confusion *c);       /* TN / (TN + FP) */
double pva_confusion_accuracy(const struct pva_confusion *c);          /* (TP + TN) / n */
double pva_confusion_f1(const struct pva_confusion *c);                /* 2 TP / (2 TP + FP + FN) */
double pva_confusion_balanced_accuracy(const struct pva_confusion *c); /* (recall + specificity) / 2 */
double
pva_confusion_mcc(const struct pva_confusion *c); /* (TP TN - FP FN) / sqrt of the product of the four margins (Matthews 1975) */

struct pva_best_threshold {
    double threshold, f1; /* both NaN without positives */
    struct pva_confusion confusion;
};

/* The threshold with the highest F1 among all that predict differently: every distinct score, and -inf (all positive). Equal F1:
 * the higher threshold, which predicts fewer positives. -inf as the answer says that the score is no better than none. A NaN
 * score is PVA_INPUT. */
int pva_threshold_best_f1(const double *scores, const unsigned char *labels, int64_t n, struct pva_best_threshold *out,
                          struct pva_error *err);

/* What needs no score, for a share p of positives: always-positive has precision p, recall 1, F1 = 2p / (1 + p); its accuracy is
 * p; MCC undefined, balanced accuracy 1/2, AUROC 1/2, average precision p. A coin that says positive with probability q has
 * expected precision p, recall q. */
struct pva_baseline {
    double base_rate, f1_always_positive, accuracy_majority; /* max(p, 1 - p) */
};

/* NaN for n < 1 or a count outside [0, n]. */
struct pva_baseline pva_baseline(int64_t n_positive, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
