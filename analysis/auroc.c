#include "pva/auroc.h"

#include "distribution.h"
#include "order.h"

#include <math.h>
#include <stdlib.h>

/* Twice the placement of every item: for a positive, twice the number of negatives below it, ties half; for a negative, of
 * positives above it. A whole number, so areas are exact up to one division. Returns their sum over the positives, 2 U. */
static int64_t placements(const double *scores, const unsigned char *labels, const size_t *order, int64_t n, int64_t n_positive,
                          int64_t *twice) {
    int64_t positives = 0, negatives = 0, u2 = 0;
    for (int64_t i = 0, end; i < n; i = end) {
        int64_t tied_positive = 0;
        end = order_tie_end(scores, order, i, n);
        for (int64_t j = i; j < end; j++) tied_positive += labels[order[j]] != 0;
        int64_t tied_negative = end - i - tied_positive;
        for (int64_t j = i; j < end; j++)
            twice[order[j]] = labels[order[j]] ? 2 * negatives + tied_negative : 2 * (n_positive - positives) - tied_positive;
        u2 += tied_positive * (2 * negatives + tied_negative);
        positives += tied_positive, negatives += tied_negative;
    }
    return u2;
}

static int64_t count_positive(const unsigned char *labels, int64_t n) {
    int64_t out = 0;
    for (int64_t i = 0; i < n; i++) out += labels[i] != 0;
    return out;
}

/* The covariance of two areas: that of the placements within each class over the size of the class. */
static double delong(const int64_t *twice1, const int64_t *twice2, const unsigned char *labels, int64_t n, int64_t n_positive,
                     int64_t n_negative) {
    double out = 0;
    if (n_positive < 2 || n_negative < 2) return NAN;
    for (int class = 0; class < 2; class ++) {
        double size = (double)(class ? n_positive : n_negative), others = (double)(class ? n_negative : n_positive);
        double mean1 = 0, mean2 = 0, sum = 0;
        for (int64_t i = 0; i < n; i++)
            if ((labels[i] != 0) == class) mean1 += (double)twice1[i], mean2 += (double)twice2[i];
        mean1 /= size, mean2 /= size;
        for (int64_t i = 0; i < n; i++)
            if ((labels[i] != 0) == class) sum += ((double)twice1[i] - mean1) * ((double)twice2[i] - mean2);
        out += sum / (4 * others * others) / (size - 1) / size;
    }
    return out;
}

static struct pva_interval around(double centre, double variance, double level, double least, double most) {
    double half = level_z(level) * sqrt(variance);
    if (isnan(centre) || isnan(half)) return (struct pva_interval){NAN, NAN};
    return (struct pva_interval){fmax(least, centre - half), fmin(most, centre + half)};
}

static double average_precision(const double *scores, const unsigned char *labels, const size_t *order, int64_t n,
                                int64_t n_positive) {
    double out = 0;
    int64_t found = 0;
    for (int64_t end = n, i; end > 0; end = i) {
        int64_t gained = 0;
        for (i = end; i > 0 && scores[order[i - 1]] == scores[order[end - 1]]; i--) gained += labels[order[i - 1]] != 0;
        found += gained;
        out += (double)gained * ((double)found / (double)(n - i));
    }
    return out / (double)n_positive;
}

int pva_auroc(const double *scores, const unsigned char *labels, int64_t n, double level, struct pva_auroc *out,
              struct pva_error *err) {
    *out = (struct pva_auroc){NAN, NAN, {NAN, NAN}, NAN, 0, 0};
    size_t *order = order_array(n, sizeof *order, "auroc", err);
    int64_t *twice = order_array(n, sizeof *twice, "auroc", err);
    if (!order || !twice || order_rising("auroc: score", scores, n, order, err)) goto done;
    out->n_positive = count_positive(labels, n);
    out->n_negative = n - out->n_positive;
    if (out->n_positive > 0) out->average_precision = average_precision(scores, labels, order, n, out->n_positive);
    if (out->n_positive > 0 && out->n_negative > 0) {
        int64_t u2 = placements(scores, labels, order, n, out->n_positive, twice);
        out->auroc = (double)u2 / (2 * (double)out->n_positive * (double)out->n_negative);
        out->variance = delong(twice, twice, labels, n, out->n_positive, out->n_negative);
        out->interval = around(out->auroc, out->variance, level, 0, 1);
    }
done:
    free(order);
    free(twice);
    return err->code;
}

int pva_auroc_compare(const double *scores1, const double *scores2, const unsigned char *labels, int64_t n, double level,
                      struct pva_auroc_difference *out, struct pva_error *err) {
    *out = (struct pva_auroc_difference){NAN, NAN, {NAN, NAN}, NAN, NAN};
    size_t *order = order_array(n, sizeof *order, "auroc", err);
    int64_t *twice1 = order_array(n, sizeof *twice1, "auroc", err), *twice2 = order_array(n, sizeof *twice2, "auroc", err);
    if (!order || !twice1 || !twice2) goto done;
    int64_t n_positive = count_positive(labels, n), n_negative = n - n_positive;
    if (order_rising("auroc: first score", scores1, n, order, err)) goto done;
    int64_t u1 = placements(scores1, labels, order, n, n_positive, twice1);
    if (order_rising("auroc: second score", scores2, n, order, err)) goto done;
    int64_t u2 = placements(scores2, labels, order, n, n_positive, twice2);
    if (n_positive == 0 || n_negative == 0) goto done;
    out->difference = (double)(u1 - u2) / (2 * (double)n_positive * (double)n_negative);
    /* The variance of the difference directly, as that of the differences of placements: no cancellation, and exactly 0 for equal
     * rankings. */
    for (int64_t i = 0; i < n; i++) twice1[i] -= twice2[i];
    out->variance = delong(twice1, twice1, labels, n, n_positive, n_negative);
    out->interval = around(out->difference, out->variance, level, -1, 1);
    if (out->variance > 0) out->z = out->difference / sqrt(out->variance);
    else if (out->variance == 0) out->z = out->difference == 0 ? 0 : copysign(INFINITY, out->difference);
    out->p = isnan(out->z) ? NAN : pva_normal_p(out->z, PVA_TWO_SIDED);
done:
    free(order);
    free(twice1);
    free(twice2);
    return err->code;
}

struct pva_interval pva_auroc_hanley_mcneil(double auroc, int64_t n_positive, int64_t n_negative, double level) {
    if (!(auroc >= 0 && auroc <= 1) || n_positive < 1 || n_negative < 1) return (struct pva_interval){NAN, NAN};
    double a2 = auroc * auroc, q1 = auroc / (2 - auroc), q2 = 2 * a2 / (1 + auroc);
    double variance = auroc * (1 - auroc) + (double)(n_positive - 1) * (q1 - a2) + (double)(n_negative - 1) * (q2 - a2);
    return around(auroc, fmax(0, variance) / ((double)n_positive * (double)n_negative), level, 0, 1);
}

int pva_auroc_curve(const double *scores, const unsigned char *labels, int64_t n, struct pva_curve_point *points,
                    int64_t *n_points, struct pva_error *err) {
    int64_t used = 0;
    struct pva_curve_point point = {-INFINITY, 0, 0};
    size_t *order = order_array(n, sizeof *order, "curve", err);
    *n_points = 0;
    if (!order || order_rising("curve: score", scores, n, order, err)) goto done;
    for (int64_t end = n, i; end > 0; end = i) {
        points[used++] = (struct pva_curve_point){scores[order[end - 1]], point.true_positives, point.false_positives};
        for (i = end; i > 0 && scores[order[i - 1]] == scores[order[end - 1]]; i--) {
            if (labels[order[i - 1]]) point.true_positives++;
            else point.false_positives++;
        }
    }
    if (n == 0 || scores[order[0]] > -INFINITY) points[used++] = point; /* nothing lets a score of -inf pass */
    *n_points = used;
done:
    free(order);
    return err->code;
}
