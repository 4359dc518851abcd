/* power.h - what a test could have found: printed beside every null result.
 *
 * Conventions: stats.h. alpha in (0, 1) is the significance level; all powers are exact (sums over outcomes) but pva_power_rates.
 * The minimum detectable effect (mde) is the least effect that reaches `power`; NaN when none does.
 */
#ifndef PVA_POWER_H
#define PVA_POWER_H

#include "pva/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

/* McNemar's exact two-sided test on n problems of which each is gained with probability `gain` and lost with probability `loss`
 * (gain + loss <= 1): the sum over the number m of discordant problems, binomial(n, gain + loss), of the probability that
 * binomial(m, gain / (gain + loss)) falls in the region where twice the smaller tail is at most alpha. 0 for gain + loss = 0. */
double pva_power_mcnemar(int64_t n, double gain, double loss, double alpha);

/* The least gain > loss that this test finds with probability `power`. */
double pva_mde_mcnemar(int64_t n, double loss, double alpha, double power);

/* pva_rate_binomial_test of k in n against p0, when the true rate is p1. */
double pva_power_binomial(int64_t n, double p0, double p1, double alpha, enum pva_alternative alternative);

/* The least p1 > p0 that the one-sided (PVA_GREATER) test finds with probability `power`. */
double pva_mde_binomial(int64_t n, double p0, double alpha, double power);

/* pva_table_fisher on two groups with true rates p1 and p2: the sum over all n1 x n2 outcomes. About 0.1 s at 500 + 500. NaN also
 * when memory runs out. */
double pva_power_fisher(double p1, int64_t n1, double p2, int64_t n2, double alpha, enum pva_alternative alternative);

/* Two-sided z test of two rates, normal approximation with the pooled rate under the null: quick, for planning. With d = p1 - p2,
 * s0 and s1 the standard errors under the null and the alternative: P(Z > (z s0 - d) / s1) + P(Z < (-z s0 - d) / s1). */
double pva_power_rates(double p1, int64_t n1, double p2, int64_t n2, double alpha);

/* The least p1 > p2 for which pva_power_rates reaches `power`. */
double pva_mde_rates(int64_t n1, double p2, int64_t n2, double alpha, double power);

#ifdef __cplusplus
}
#endif
#endif
