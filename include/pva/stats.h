/* stats.h - what all statistics share (rates.h, tables.h, paired.h, separation.h, auroc.h, threshold.h, cluster.h, resample.h,
 * permute.h, multiple.h, trend.h, probe.h, power.h).
 *
 * They are pure functions over arrays: they keep no state, any number of threads may call them, and what they return depends
 * neither on the number of threads nor on earlier calls. Rates and probabilities are fractions in [0, 1], not per cent. `level`
 * is a confidence level, strictly between 0 and 1 (0.95).
 *
 * What is undefined is NaN, never a number that looks like a result. So is everything computed from an argument that cannot be:
 * a count below 0, a count above its total, a probability outside [0, 1], a level outside (0, 1), a NaN. A test without data
 * has p = 1, an interval without data is the whole range; each function says what else it makes of its edges.
 * Functions that allocate, and functions that take arrays of scores, where a NaN is somebody's mistake, return a status instead.
 */
#ifndef PVA_STATS_H
#define PVA_STATS_H

#include <stdint.h>

#include "pva/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct pva_interval {
    double low, high;
};

/* What is tested: a difference at all, or one in the direction each function names. */
enum pva_alternative { PVA_TWO_SIDED, PVA_GREATER, PVA_LESS };

/* P(T beyond t) of Student's distribution, df > 0 real: both tails, the upper (PVA_GREATER) or the lower one. t may be infinite.
 */
double pva_student_p(double t, double df, enum pva_alternative alternative);

/* Likewise for the standard normal distribution. */
double pva_normal_p(double z, enum pva_alternative alternative);

/* GSL aborts the process on its first error unless somebody installs another handler. This installs one that keeps the message
 * instead; GSL's functions then return their NaN or status. The statistics call it themselves before they call GSL; it costs one
 * atomic load after the first time. Underflow is no error: the result is 0, which is right. */
void pva_gsl_guard(void);

/* How many errors GSL has reported on this thread so far, and the last one ("beta.c: domain error", "" if there was none). The
 * text belongs to the thread and lives until its next error. `last` may be NULL. */
int64_t pva_gsl_errors(const char **last);

#ifdef __cplusplus
}
#endif
#endif
