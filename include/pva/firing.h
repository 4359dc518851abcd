/* firing.h - family-wise p values for "this latent fires more often in one class than in the other", over hundreds of thousands of latents: Westfall and
 * Young's step-down max-T (permute.h) for data that are bits.
 *
 * A latent is a set of items (bits.h). With N items, n1 of them in class 1, a latent that fires on K items, a of them in class 1, has the separation
 *     a / n1 - (K - a) / (N - n1) = m / (n1 (N - n1)),   m = a N - K n1,
 * and under permutation of the labels a is hypergeometric: its variance is K (N - K) n1 (N - n1) / (N^2 (N - 1)), which depends on K alone. Two statistics:
 *     studentised   |separation| / its standard error with the pooled rate: |m| / sqrt(K (N - K)) up to a factor common to all latents. The default. All latents have
 *                   the same variance under the null, so a rare latent that fires on one class only can be found. Compared as m^2 / (K (N - K)), a quotient
 *                   of two exact integers, which IEEE division makes equal where the fractions are equal.
 *     separation    |m|: what the ranking by score orders by. Its null maximum is that of the latents that fire on half of the items, so a rare latent needs
 *                   far more evidence than a common one; latents are in the order of the score, though, and so are their p values.
 * Both are two-sided. Comparisons are exact, so that equal observed and permuted values count as equal whatever the compiler.
 *
 * How it is fast: latents are ordered by observed statistic and grouped by (statistic, K); in a group the largest and the least a over the members give the
 * group's maximum, so the inner loop counts bits and keeps two integers; a set and its complement, and equal sets, are one. Permutations are independent:
 * ranks share them out and add up the counts, which are integers: equal results however it is divided.
 * A latent that never or always fires can say nothing: it is no hypothesis, p = 1.
 */
#ifndef PVA_FIRING_H
#define PVA_FIRING_H

#include "pva/backend.h"
#include "pva/stats.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pva_firing_statistic { PVA_FIRING_STUDENTISED, PVA_FIRING_SEPARATION };
enum { PVA_FIRING_ITEMS = 16384 }; /* more would make m^2 inexact in a double */

/* What is compared: m^2 / (K (N - K)), 0 for K = 0 and K = N; or |m|. active1 of n1, active of n. */
double pva_firing_score(enum pva_firing_statistic statistic, int64_t active1, int64_t n1, int64_t active, int64_t n);

struct pva_firing;

/* labels [n_items]: nonzero is class 1. patterns [n_patterns, pva_bits_words(n_items)], not kept. ops, be: the device that counts (maxt_count of backend.h),
 * open until pva_firing_free. PVA_INPUT for more than PVA_FIRING_ITEMS items, PVA_IO when there is no memory: pva_firing_bytes. */
int pva_firing_create(const unsigned char *labels, int64_t n_items, const uint64_t *patterns, int64_t n_patterns, enum pva_firing_statistic statistic,
                      const struct pva_backend_ops *ops, struct pva_backend *be, struct pva_firing **out, struct pva_error *err);
void pva_firing_free(struct pva_firing **f);
/* At most, while it is made. */
size_t pva_firing_bytes(int64_t n_items, int64_t n_patterns);

int64_t pva_firing_hypotheses(const struct pva_firing *f); /* patterns that fire on some items and not on all */
int64_t pva_firing_distinct(const struct pva_firing *f);   /* different ones of those */
int64_t pva_firing_levels(const struct pva_firing *f);     /* different observed statistics */

/* Adds to n_at_least[levels] what permutations first .. first + n - 1 (pva_permute_labels; number 0 is the observed labelling: start with 1) say. The
 * device has all its threads for it; labels are permuted on OpenMP's. */
int pva_firing_count(const struct pva_firing *f, uint64_t seed, uint32_t stream, int64_t first, int64_t n, int64_t *n_at_least, struct pva_error *err);

/* p [n_patterns], in the order of the patterns. */
int pva_firing_finish(const struct pva_firing *f, const int64_t *n_at_least, int64_t n_permutations, double *p, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
