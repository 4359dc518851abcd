/* cluster.h - means over items that come in clusters: several samples of one problem are not independent.
 *
 * Conventions: stats.h.
 */
#ifndef PVA_CLUSTER_H
#define PVA_CLUSTER_H

#include "pva/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

struct pva_cluster_mean {
    double mean;           /* over items; NaN for n = 0 */
    double standard_error; /* sqrt(G / (G - 1) sum over clusters of (sum of its items' deviations from the mean)^2) / n; NaN for G
                              < 2 */
    struct pva_interval interval;         /* mean -+ Student quantile(G - 1) x standard error */
    double standard_error_if_independent; /* s / sqrt(n), for comparison; NaN for n < 2 */
    int64_t n, n_clusters;
};

/* The cluster-robust (sandwich) standard error with the usual finite-sample factor G / (G - 1): what statsmodels gives for OLS on
 * a constant with cov_type="cluster" (Miller, arXiv 2411.00640, section 2.2, without the factor). With one item per cluster it is
 * s / sqrt(n). values[n]; clusters[n]: any numbers, equal = same cluster, in any order. A NaN value is PVA_INPUT and the message
 * names its index; no memory is PVA_IO. */
int pva_cluster_mean(const double *values, const int64_t *clusters, int64_t n, double level, struct pva_cluster_mean *out,
                     struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
