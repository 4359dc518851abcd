/* probe.h - the reference predictor: a logistic regression on the dense residual stream, against which single latents are
 * measured.
 *
 * Conventions: stats.h. Minimises |w|^2 / 2 + C sum of log(1 + exp(-+(w x + intercept))), the intercept not penalised:
 * scikit-learn's LogisticRegression(C, penalty "l2"), same C. Solved by Newton steps to rounding, in the d weights or, where d >=
 * n, in one number per item (the Gram matrix is then all that is needed of x), so that d = 3584 with n = 500 takes about a second
 * for a whole selection. x is [n, d] row by row; labels: nonzero = positive.
 */
#ifndef PVA_PROBE_H
#define PVA_PROBE_H

#include "pva/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

struct pva_probe_settings {
    const double *c; /* [n_c] what to choose C from, rising; NULL: 1e-5, 1e-4, ... 1e5 */
    int64_t n_c;
    int32_t n_folds; /* 0: 5 */
    int standardise; /* nonzero: each feature less its mean, over its standard deviation (1 / n; 1 for a constant feature), of the
                        items fitted on */
    uint64_t seed;   /* of the folds */
    uint32_t stream; /* < 2^24 */
};

struct pva_probe {
    int64_t d;
    double *weights; /* [d], for x as it is given: standardisation is folded in */
    double intercept;
    double c;      /* the C fitted with */
    int converged; /* else the solver stopped after 200 steps */
    int64_t n_c;   /* 0 after pva_probe_fit */
    double *grid;  /* [n_c] */
    double *auroc; /* [n_c] mean over the folds of the AUROC on the fold left out */
};

/* Fits with a given C > 0. PVA_INPUT: a class is missing, a value of x is not finite (the message says which), d or n below 1;
 * PVA_IO: no memory. */
int pva_probe_fit(const float *x, const unsigned char *labels, int64_t n, int64_t d, double c, int standardise,
                  struct pva_probe **out, struct pva_error *err);

/* Chooses C by stratified cross-validation, then fits all items with it: the highest mean AUROC, of equals the smallest C.
 * Standardisation is redone inside every fold, so nothing of a fold left out is seen. Also PVA_INPUT: a class with fewer items
 * than folds, fewer than 2 folds, a grid that does not rise. Independent of the number of threads. */
int pva_probe_select(const float *x, const unsigned char *labels, int64_t n, int64_t d, const struct pva_probe_settings *settings,
                     struct pva_probe **out, struct pva_error *err);

void pva_probe_free(struct pva_probe **probe);

/* scores[n] = w x + intercept, the log odds. */
void pva_probe_scores(const struct pva_probe *probe, const float *x, int64_t n, double *scores);

/* fold[n] in 0 .. n_folds - 1: each class is shuffled (Fisher-Yates; step i draws pva_rng_below(seed, PVA_RNG_PERMUTATION, 0,
 * stream, i or, for the negatives, n_positive + i, i + 1): permutation 0, which permute.h never draws) and dealt in turn, the
 * negatives from where the positives ended. So folds differ by at most one item, in all and per class. */
int pva_probe_folds(uint64_t seed, uint32_t stream, const unsigned char *labels, int64_t n, int32_t n_folds, int32_t *fold,
                    struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
