/* steering.h - did an intervention change what passes, and more than controls do?
 *
 * Conventions: stats.h. A problem is judged before (the unsteered completion) and after. correction = fail -> pass among those that failed,
 * corruption = pass -> fail among those that passed, preservation = 1 - corruption.
 */
#ifndef PVA_STEERING_H
#define PVA_STEERING_H

#include "pva/grade.h"
#include "pva/paired.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 1 - edit distance / the longer length, over tokens (Levenshtein 1966: insert, delete, replace, each at cost 1). 1 exactly when both are the same,
 * two empty ones included. NaN without memory. O(n m) time. */
double pva_token_similarity(const int32_t *a, int64_t n, const int32_t *b, int64_t m);

struct pva_steering_counts {
    int64_t n;                         /* problems judged */
    struct pva_pairs pairs;            /* paired.h */
    int64_t degenerate;                /* completions that loop, have no code, or end in logits that are no numbers */
    int64_t same;                      /* completions equal to the unsteered one, token by token */
    double similarity;                 /* mean; NaN for n = 0 */
    double similarity_failing, similarity_passing; /* of the problems that failed, passed before */
    int64_t shift[PVA_N_VERDICTS][PVA_N_VERDICTS]; /* problems by verdict before, after */
};

/* Arrays [n]; used: nonzero marks what counts (NULL: all); before, after: enum pva_verdict; degenerate: nonzero; similarity: in [0, 1].
 * Verdicts out of range do not count. */
struct pva_steering_counts pva_steering_count(const unsigned char *used, const unsigned char *before, const unsigned char *after,
                                              const unsigned char *degenerate, const double *similarity, int64_t n);

/* A rate k / n of one arm against the same rate of control arms. */
struct pva_effect {
    int64_t k, n;
    double rate;                    /* NaN for n = 0, as all that follows from it */
    struct pva_interval interval;   /* Clopper-Pearson */
    int64_t n_controls, control_k, control_n; /* arms; pooled counts */
    double control_rate;            /* pooled; NaN without controls */
    double control_least, control_median, control_most; /* of the arms' rates */
    struct pva_interval difference; /* Newcombe, of rate - control_rate */
    double p0;                      /* what p_binomial tests against: control_rate, but 1 / (control_n + 1) where no control changed anything */
    double p_binomial;              /* exact, one-sided: rate > p0, p0 taken as known */
    double p_fisher;                /* exact, one-sided, against the pooled counts */
    double p_rank;                  /* one-sided, of the rate among the arms' rates: not below 1 / (n_controls + 1) */
    double power_tenth;             /* of p_binomial, were the true rate p0 + 0.1 (at most 1) */
    double mde;                     /* the least true rate that p_binomial finds with probability `power` */
};

/* control_k, control_n: [n_controls], arms with n = 0 are left out. Without controls the p values are NaN. alpha, power: of the sensitivity figures.
 * PVA_IO without memory. */
int pva_effect(int64_t k, int64_t n, const int64_t *control_k, const int64_t *control_n, int64_t n_controls, double level, double alpha, double power,
               struct pva_effect *out, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
