/* tables.h - two independent groups: k1 successes of n1 against k2 of n2, exact.
 *
 * Conventions: stats.h. PVA_GREATER asks whether the first group's rate is the higher one. Work grows with n1 + n2
 * (pva_table_boschloo: with its square; about 0.1 s at 500 + 500).
 */
#ifndef PVA_TABLES_H
#define PVA_TABLES_H

#include "pva/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fisher's exact test: all margins fixed, X = successes of group 1 is hypergeometric. PVA_GREATER: P(X >= k1), PVA_LESS: P(X <=
 * k1), PVA_TWO_SIDED: the sum of all P(X = x) that are not above P(X = k1) by more than a relative 1e-7 (R's fisher.test, scipy's
 * fisher_exact). 1 where a margin is 0; NaN also when memory runs out. */
double pva_table_fisher(int64_t k1, int64_t n1, int64_t k2, int64_t n2, enum pva_alternative alternative);

/* Boschloo's test: Fisher's one-sided p as a test statistic, its tail probability maximised over the unknown common rate; never
 * above Fisher's p. Two-sided: twice the smaller one-sided p, at most 1 (as scipy). The maximum is searched on a grid in
 * arcsin(sqrt(rate)) and refined around every local one. 1 where a group is empty; NaN also when memory runs out. */
double pva_table_boschloo(int64_t k1, int64_t n1, int64_t k2, int64_t n2, enum pva_alternative alternative);

struct pva_odds_ratio {
    double sample;                /* k1 (n2 - k2) / (k2 (n1 - k1)); NaN for 0/0, infinite for x/0 */
    double conditional;           /* the conditional maximum-likelihood estimate, as R and scipy give it */
    struct pva_interval interval; /* exact conditional interval (Cornfield 1956): each limit is where a one-sided Fisher test has
                                     p = (1 - level) / 2 */
};

/* [0, inf] and a NaN estimate where a margin is 0. NaN throughout also when memory runs out. */
struct pva_odds_ratio pva_table_odds_ratio(int64_t k1, int64_t n1, int64_t k2, int64_t n2, double level);

#ifdef __cplusplus
}
#endif
#endif
