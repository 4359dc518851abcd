/* permute.h - label permutations, and family-wise p values over many hypotheses at once: Westfall and Young's step-down max-T
 * ("Resampling-Based Multiple Testing", 1993, algorithm 4.1). Strong control of the family-wise error under any dependence,
 * without assuming a distribution.
 *
 * Conventions: stats.h. A statistic is the larger the more it speaks against its hypothesis: two-sided tests hand in absolute
 * values. The observed statistic is one more permutation: p = (1 + number of permutations whose maximum is >= observed) / (1 +
 * number of permutations). Permuted and observed statistics must come from the same code, so that values equal in exact
 * arithmetic are equal. A NaN statistic counts as -inf.
 *
 * Three ways in, from the bottom:
 *   1. pva_maxt_start / add / finish: a stream of hypotheses, observed statistics rising. Memory: one double per permutation. A
 * part that is known to lie below all candidates (most latents) may enter as its per-permutation maximum alone, and such maxima
 * combine by max over ranks.
 *   2. pva_maxt_matrix: all permuted statistics in memory.
 *   3. pva_maxt_labels: a callback computes all statistics for given labels; permutations run in parallel.
 */
#ifndef PVA_PERMUTE_H
#define PVA_PERMUTE_H

#include "pva/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Permutation number `permutation` of labels[n], n < 2^32, into out[n] (not labels itself): Fisher-Yates; step i draws
 * pva_rng_below(seed, PVA_RNG_PERMUTATION, permutation, stream, i, i + 1). Number 0 is the labels as they are. stream < 2^24. */
void pva_permute_labels(uint64_t seed, uint32_t stream, uint32_t permutation, const unsigned char *labels, int64_t n,
                        unsigned char *out);

/* running[n_permutations] = -inf. */
void pva_maxt_start(double *running, int64_t n_permutations);

/* The next n_hypotheses, observed[] not falling, also not since the last call: permuted is [n_hypotheses, n_permutations]. Raises
 * running to the maxima over everything handled so far and writes n_at_least[n_hypotheses]. */
void pva_maxt_add(double *running, int64_t n_permutations, const double *observed, const double *permuted, int64_t n_hypotheses,
                  int64_t *n_at_least);

/* n_at_least of all hypotheses in the order they were added (observed rising) to p values in that order, made monotone: a larger
 * statistic never has a larger p. Hypotheses that entered as maxima alone have p >= that of the least hypothesis here. */
void pva_maxt_finish(const int64_t *n_at_least, int64_t n_hypotheses, int64_t n_permutations, double *p);

/* observed[n_hypotheses] in any order, permuted [n_hypotheses, n_permutations]; p[n_hypotheses] in the same order, NaN where
 * observed is NaN. p is never smaller than the p value of the hypothesis alone. PVA_IO when there is no memory. */
int pva_maxt_matrix(const double *observed, const double *permuted, int64_t n_hypotheses, int64_t n_permutations, double *p,
                    struct pva_error *err);

/* Fills statistics[n_hypotheses] for labels[n]. Called from several threads at once: it must write to nothing else. */
typedef void (*pva_label_statistics)(const unsigned char *labels, double *statistics, const void *context);

/* observed[n_hypotheses] receives the statistics of the labels as they are; permutations 1 .. n_permutations of `stream` make the
 * null distribution. The result does not depend on the number of threads. PVA_INPUT for a negative size or n_permutations outside
 * 1 .. 2^31 - 1, PVA_IO when there is no memory. */
int pva_maxt_labels(pva_label_statistics statistics, const void *context, const unsigned char *labels, int64_t n,
                    int64_t n_hypotheses, int64_t n_permutations, uint64_t seed, uint32_t stream, double *observed, double *p,
                    struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
