/* auroc.h - how well a score ranks positives above negatives.
 *
 * Conventions: stats.h. scores[n] may hold infinities; labels[n]: nonzero = positive. A NaN score is PVA_INPUT and the message
 * names its index; no memory is PVA_IO. With only one class present (or n = 0) the status is 0, the counts are right, and what is
 * undefined is NaN.
 */
#ifndef PVA_AUROC_H
#define PVA_AUROC_H

#include "pva/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

struct pva_auroc {
    double auroc;                 /* (pairs ranked rightly + tied pairs / 2) / pairs: the Mann-Whitney U with midranks */
    double variance;              /* DeLong; NaN where a class has fewer than 2 items */
    struct pva_interval interval; /* auroc -+ z sqrt(variance), cut to [0, 1]. Perfect separation has variance 0: an interval of
                                     no width, not of no doubt */
    double average_precision; /* sum over distinct scores, falling, of (recall gained) x precision, as scikit-learn; NaN without
                                 positives */
    int64_t n_positive, n_negative;
};

/* DeLong, DeLong, Clarke-Pearson (Biometrics 44:837, 1988), by midranks (Sun, Xu, IEEE Signal Process. Lett. 21:1389, 2014):
 * the variance of the positives' placements / n_positive + that of the negatives' / n_negative. O(n log n). */
int pva_auroc(const double *scores, const unsigned char *labels, int64_t n, double level, struct pva_auroc *out,
              struct pva_error *err);

struct pva_auroc_difference {
    double difference, variance;  /* auroc1 - auroc2 on the same items */
    struct pva_interval interval; /* cut to [-1, 1] */
    double z, p;                  /* two-sided, normal. Variance 0: z = 0, p = 1 for no difference, else z = +-inf, p = 0 */
};

/* Two scores of the same items: DeLong's test, with the covariance of the placements. */
int pva_auroc_compare(const double *scores1, const double *scores2, const unsigned char *labels, int64_t n, double level,
                      struct pva_auroc_difference *out, struct pva_error *err);

/* The interval from the area alone (Hanley, McNeil, Radiology 143:29, 1982), cut to [0, 1]: for published areas.
 * variance = (A (1 - A) + (n_positive - 1) (A / (2 - A) - A^2) + (n_negative - 1) (2 A^2 / (1 + A) - A^2)) / (n_positive
 * n_negative). */
struct pva_interval pva_auroc_hanley_mcneil(double auroc, int64_t n_positive, int64_t n_negative, double level);

/* One point of the ROC and precision-recall curves: what is predicted positive by score > threshold. */
struct pva_curve_point {
    double threshold;
    int64_t true_positives, false_positives;
};

/* All points, thresholds falling: the distinct scores, then -inf, which predicts everything positive (left out when a score is
 * itself -inf). points must hold n + 1. The first point predicts nothing. False-positive rate = false_positives / n_negative,
 * recall = true_positives / n_positive, precision = true_positives / both. */
int pva_auroc_curve(const double *scores, const unsigned char *labels, int64_t n, struct pva_curve_point *points,
                    int64_t *n_points, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
