/* separation.h - does a latent fire, or is it larger, more often in one class than in the other? From sums gathered in one pass.
 *
 * Conventions: stats.h. Sums of parts merge to the sums of the whole; floating-point addition is not associative, so whoever
 * needs equal bits for any number of ranks adds items in a fixed order and merges parts in a fixed order.
 */
#ifndef PVA_SEPARATION_H
#define PVA_SEPARATION_H

#include "pva/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One latent in one class. Zero-initialised: nothing seen. */
struct pva_sums {
    int64_t n, n_active; /* items; items with activation > 0 */
    double sum, sum_sq;  /* of the activations and of their squares */
};

/* A NaN activation counts as an item that is not active and makes every mean NaN from then on. */
static inline void pva_sums_add(struct pva_sums *s, double activation) {
    s->n++;
    s->n_active += activation > 0;
    s->sum += activation;
    s->sum_sq += activation * activation;
}

static inline void pva_sums_merge(struct pva_sums *into, const struct pva_sums *part) {
    into->n += part->n;
    into->n_active += part->n_active;
    into->sum += part->sum;
    into->sum_sq += part->sum_sq;
}

/* sum / n; NaN for n = 0. */
double pva_sums_mean(const struct pva_sums *s);

/* The unbiased variance (sum_sq - sum^2 / n) / (n - 1); NaN for n < 2. The subtraction loses a relative (mean^2 / variance) of
 * the last digits, so what is not above the rounding of the sums, 2^-52 n sum_sq, is 0: a constant activation has variance 0.
 * Fine for activations, whose deviation is of the order of their mean; not for numbers whose deviation is below a millionth of
 * it. */
double pva_sums_variance(const struct pva_sums *s);

struct pva_welch {
    double t, df;           /* Welch's t = (mean1 - mean2) / standard_error and the Welch-Satterthwaite degrees of freedom */
    double p;               /* two-sided; one-sided: pva_student_p(t, df, ...) */
    double mean_difference; /* mean1 - mean2 */
    double standard_error;  /* sqrt(v1 / n1 + v2 / n2) */
};

/* Two-sample t test without the assumption of equal variances (Welch 1947). Defined edges: a group with n < 2 gives NaN for all
 * but the mean difference (n = 0: for all). Both variances 0: t = 0, p = 1 when the means are equal (a latent that never fires),
 * else t = +-inf, p = 0; df is NaN in both cases. */
struct pva_welch pva_welch(const struct pva_sums *group1, const struct pva_sums *group2);

struct pva_separation {
    double f1, f2;                /* firing fractions; NaN for an empty class */
    double score;                 /* f1 - f2; the score for the other direction is its negative */
    struct pva_interval interval; /* Newcombe (rates.h) */
};

struct pva_separation pva_separation(int64_t active1, int64_t n1, int64_t active2, int64_t n2, double level);

#ifdef __cplusplus
}
#endif
#endif
