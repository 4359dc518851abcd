/* trend.h - does something rise or fall with temperature, difficulty or the coefficient?
 *
 * Conventions: stats.h. z > 0 means rising. p values are asymptotic.
 */
#ifndef PVA_TREND_H
#define PVA_TREND_H

#include "pva/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

struct pva_trend {
    double statistic, z;
    double p, p_rising, p_falling; /* two-sided, and for either direction alone */
};

/* Cochran-Armitage: rates passed[g] / n[g] of independent groups with scores dose[g]. With p = all passed / N and d = the mean
 * dose over items: statistic = sum over groups of (passed_g - n_g p) (dose_g - d), z = statistic / sqrt(p (1 - p) sum n_g (dose_g
 * - d)^2), which is sqrt(N) times the correlation of outcome and dose. A group with n = 0 does not count. z = 0, p = 1 when
 * outcomes or doses do not vary; NaN for invalid counts or a NaN dose. */
struct pva_trend pva_trend_cochran_armitage(const int64_t *passed, const int64_t *n, const double *dose, int64_t n_groups);

/* Page's L for the same problems under ordered conditions: values [n_blocks, k], conditions in the order expected to rise.
 * statistic L = sum over conditions of j x (sum over blocks of the midrank within its block). z = (L - E) / sqrt(V), E = n k (k +
 * 1)^2 / 4, V = sum over blocks of the exact permutation variance given that block's ties, (k + 1) k / 12 x sum (midrank -
 * mean)^2; without ties n k^2 (k + 1)^2 (k - 1) / 144, Page's own (JASA 58:216, 1963). Blocks in which all values tie add
 * nothing; if all do, z = 0 and p = 1. NaN for k < 2 or when a value is NaN (conditions must be complete). */
struct pva_trend pva_trend_page(const double *values, int64_t n_blocks, int64_t k);

/* Jonckheere-Terpstra for independent groups: statistic J = pairs from different groups in which the value of the later group is
 * larger, ties half. z with the tie-corrected variance (Hollander, Wolfe, "Nonparametric Statistical Methods", 6.2), as that of
 * Kendall's S with ties on both sides: S = 2 J - pairs. values[n], group[n]: groups ordered by their number. O(n^2). z = 0, p = 1
 * when groups or values do not vary; NaN when a value is NaN. */
struct pva_trend pva_trend_jonckheere(const double *values, const int32_t *group, int64_t n);

/* Isotonic regression: fitted[n] never falls and minimises sum weight (value - fitted)^2, by pooling adjacent violators. weights
 * NULL: all 1; else > 0. For a falling fit negate the values. A value that is not finite or a weight that is not above 0 is
 * PVA_INPUT, no memory PVA_IO. fitted may be values. */
int pva_isotonic(const double *values, const double *weights, int64_t n, double *fitted, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
