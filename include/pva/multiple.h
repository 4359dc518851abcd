/* multiple.h - p values when many hypotheses are tested at once.
 *
 * Conventions: stats.h. All take p[n] and write adjusted[n] (which may be p itself), in the order of the input. NaN entries stay
 * NaN and do not count as hypotheses (as R's p.adjust). An entry outside [0, 1] is PVA_INPUT and the message names its index; no
 * memory is PVA_IO.
 */
#ifndef PVA_MULTIPLE_H
#define PVA_MULTIPLE_H

#include "pva/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

enum pva_adjustment {
    PVA_HOLM, /* family-wise error, any dependence (Holm 1979): max over i <= k of (n - i + 1) p_(i) */
    PVA_BH, /* false discovery rate, independent or positively dependent (Benjamini, Hochberg 1995): min over i >= k of n p_(i) /
               i */
    PVA_BY, /* false discovery rate, any dependence (Benjamini, Yekutieli 2001): BH x (1 + 1/2 + ... + 1/n) */
};

/* Adjusted p values (q values for BH and BY), at most 1: reject where adjusted <= alpha. */
int pva_adjust(enum pva_adjustment adjustment, const double *p, int64_t n, double *adjusted, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
