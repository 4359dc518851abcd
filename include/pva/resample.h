/* resample.h - the bootstrap over clusters: whole problems are drawn with replacement, with all their samples.
 *
 * Conventions: stats.h. Draw i of replicate r is pva_rng_below(seed, PVA_RNG_BOOTSTRAP, r, stream, i, n_clusters): a replicate is
 * the same on every rank, for any number of threads. `stream` < 2^24 keeps analyses with one seed apart; two analyses with the
 * same stream see the same resamples, which is right for comparing them.
 */
#ifndef PVA_RESAMPLE_H
#define PVA_RESAMPLE_H

#include "pva/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The statistic of a sample in which cluster c occurs times[c] times. NaN where the sample leaves it undefined (one class drawn).
 * Called from several threads at once: it must depend on its arguments alone and write to nothing else. */
typedef double (*pva_bootstrap_statistic)(const int32_t *times, const void *context);

struct pva_bootstrap {
    double estimate;                   /* every cluster once */
    double standard_error;             /* standard deviation of the replicates */
    struct pva_interval bca;           /* bias-corrected and accelerated */
    struct pva_interval percentile;    /* plain quantiles */
    double bias, acceleration;         /* z0 and a of the formula below */
    int64_t n_replicates, n_undefined; /* drawn, and how many of them gave NaN: they are left out of everything */
};

/* n_replicates in 1 .. 2^31, n_clusters in 1 .. 2^31; else PVA_INPUT; no memory is PVA_IO. replicates: NULL or [n_replicates],
 * receives the statistic of each in order. With one cluster, or an estimate or bca that is undefined, those fields are NaN and
 * the status is 0. */
int pva_bootstrap(pva_bootstrap_statistic statistic, const void *context, int64_t n_clusters, int64_t n_replicates, double level,
                  uint64_t seed, uint32_t stream, double *replicates, struct pva_bootstrap *out, struct pva_error *err);

/* The times[n_clusters] of one replicate. */
void pva_bootstrap_draw(uint64_t seed, uint32_t stream, uint32_t replicate, int64_t n_clusters, int32_t *times);

/* BCa (Efron, JASA 82:171, 1987) from given replicates and leave-one-cluster-out values, neither with NaN; replicates are sorted
 * in place. z0 = quantile of the share of replicates below the estimate, ties half; a = sum d^3 / (6 (sum d^2)^1.5) with d = mean
 * of the jackknife - its values (0 when they are all equal); limits are the replicates' quantiles at Phi(z0 + (z0 + z) / (1 - a
 * (z0 + z))), z = quantile of (1 -+ level) / 2. Quantiles interpolate linearly (numpy's default, R's type 7). NaN when all
 * replicates lie on one side of the estimate. */
struct pva_interval pva_bootstrap_bca(double estimate, double *replicates, int64_t n_replicates, const double *jackknife,
                                      int64_t n_clusters, double level, double *bias, double *acceleration);

/* --- Statistics for pva_bootstrap ----------------------------------------------------------------------------------------- */

/* The mean over items, sum(times x sum) / sum(times x count): pass rates, pass@k (count = 1). NaN when nothing counts. */
struct pva_clustered_sums {
    const double *sum, *count; /* [n_clusters] */
    int64_t n_clusters;
};
double pva_clustered_mean(const int32_t *times, const void *clustered_sums);

/* AUROC: sorted once, so a replicate costs one pass. Arrays of n items; clusters are numbered 0 .. n_clusters - 1; labels:
 * nonzero = positive. A NaN score or a cluster out of range is PVA_INPUT. The arrays are copied. NaN for a sample with one class.
 */
struct pva_clustered_scores;
int pva_clustered_scores_create(const double *scores, const unsigned char *labels, const int32_t *clusters, int64_t n,
                                int64_t n_clusters, struct pva_clustered_scores **out, struct pva_error *err);
void pva_clustered_scores_free(struct pva_clustered_scores **s);
double pva_clustered_auroc(const int32_t *times, const void *clustered_scores);

#ifdef __cplusplus
}
#endif
#endif
