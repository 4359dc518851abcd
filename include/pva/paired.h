/* paired.h - the same problems under two or more conditions: did it pass before, does it pass after?
 *
 * Conventions: stats.h. In a paired comparison only the discordant problems speak: `gained` went from fail to pass, `lost` from
 * pass to fail.
 */
#ifndef PVA_PAIRED_H
#define PVA_PAIRED_H

#include "pva/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How n problems fared under two conditions. */
struct pva_pairs {
    int64_t both, lost, gained, neither; /* passes before and after; before alone; after alone; never */
};

/* before[n], after[n]: nonzero = passed. */
struct pva_pairs pva_pairs_count(const unsigned char *before, const unsigned char *after, int64_t n);

/* McNemar's exact test: given gained + lost, gained is binomial with rate 1/2. PVA_GREATER: more were gained than lost.
 * Two-sided: twice the smaller tail, at most 1. 1 when nothing changed. `mid_p` is the same with half the probability of the
 * observed outcome: less conservative, not guaranteed (Fagerland, Lydersen, Laake, BMC Med. Res. Methodol. 13:91, 2013). */
double pva_pairs_mcnemar(int64_t gained, int64_t lost, enum pva_alternative alternative);
double pva_pairs_mcnemar_mid_p(int64_t gained, int64_t lost, enum pva_alternative alternative);

/* The net rate (gained - lost) / n, the difference of the two pass rates, with Newcombe's square-and-add interval for paired data
 * (Stat. Med. 17:2635, 1998, method 10: Wilson limits, and the correlation phi with its continuity correction). [-1, 1] when
 * there are no problems. */
struct pva_interval pva_pairs_newcombe(const struct pva_pairs *pairs, double level);

/* The odds gained / lost (NaN for 0/0, infinite for x/0) and its exact interval, p / (1 - p) of the Clopper-Pearson limits of
 * gained / (gained + lost). */
double pva_pairs_odds(int64_t gained, int64_t lost, double level, struct pva_interval *interval);

/* Cohen's g, gained / (gained + lost) - 1/2: 0.05 small, 0.15 medium, 0.25 large. NaN when nothing changed. */
double pva_pairs_cohen_g(int64_t gained, int64_t lost);

struct pva_cochran_q {
    double q, df, p; /* chi-square with df = k - 1 */
};

/* Cochran's Q: do n problems pass equally often under k conditions? passed is [n, k], nonzero = passed. With T_j the column sums,
 * R_i the row sums and N their total: Q = (k - 1) (k sum T_j^2 - N^2) / (k N - sum R_i^2). p is asymptotic. q = 0 and p = 1 when
 * no problem differs between conditions; NaN for k < 2. */
struct pva_cochran_q pva_cochran_q(const unsigned char *passed, int64_t n, int64_t k);

#ifdef __cplusplus
}
#endif
#endif
