/* rates.h - one rate, or the difference of two independent ones: k successes in n trials.
 *
 * Conventions: stats.h. Invalid counts give NaN.
 */
#ifndef PVA_RATES_H
#define PVA_RATES_H

#include "pva/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The exact interval: low solves P(X >= k | low) = (1 - level) / 2, high solves P(X <= k | high) = (1 - level) / 2 (Clopper,
 * Pearson 1934). Covers at least `level` for every true rate. low is 0 at k = 0, high is 1 at k = n; [0, 1] for n = 0. */
struct pva_interval pva_rate_clopper_pearson(int64_t k, int64_t n, double level);

/* The score interval (Wilson 1927): the rates p with |k - n p| <= z sqrt(n p (1 - p)). Covers `level` on average. [0, 1] for n =
 * 0. */
struct pva_interval pva_rate_wilson(int64_t k, int64_t n, double level);

/* k1 / n1 - k2 / n2 for independent groups: Newcombe's hybrid score interval (Stat. Med. 17:873, 1998, method 10), from the
 * Wilson limits l and u of each rate p: low = d - sqrt((p1 - l1)^2 + (u2 - p2)^2), high = d + sqrt((u1 - p1)^2 + (p2 - l2)^2).
 * [-1, 1] where a group is empty. */
struct pva_interval pva_rates_newcombe(int64_t k1, int64_t n1, int64_t k2, int64_t n2, double level);

/* Exact test that the rate is p0. PVA_GREATER: P(X >= k), PVA_LESS: P(X <= k), PVA_TWO_SIDED: the sum of all P(X = i) that are
 * not above P(X = k) by more than a relative 1e-7, which keeps outcomes that tie in exact arithmetic (as scipy and R do). 1 for n
 * = 0. p0 is taken as known: for a rate measured on controls use tables.h. */
double pva_rate_binomial_test(int64_t k, int64_t n, double p0, enum pva_alternative alternative);

/* pass@k of n samples of which c passed: 1 - C(n - c, k) / C(n, k), the unbiased estimate (Chen et al., arXiv 2107.03374). NaN
 * unless 1 <= k <= n. The figure for a set of problems is the mean over problems. */
double pva_pass_at_k(int64_t n, int64_t c, int64_t k);

/* Rank of a value among n controls: (1 + number of controls >= value) / (1 + n), the p value of the hypothesis that the value is
 * one more control. PVA_LESS counts those <= value; PVA_TWO_SIDED doubles the smaller of both, at most 1. 1 without controls; NaN
 * when a value is NaN. */
double pva_rank_p(double value, const double *controls, int64_t n, enum pva_alternative alternative);

#ifdef __cplusplus
}
#endif
#endif
