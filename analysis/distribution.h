/* distribution.h - the distributions behind the tests, accurate relative to the value also far out in a tail.
 *
 * GSL's own binomial and beta tails lose a digit per factor of ten in n, and its Student tail is good to 1e-7 only where df > 30
 * (a Cornish-Fisher expansion), so those are computed here; the normal and chi-square ones are GSL's, which are good to 1e-14. */
#ifndef DISTRIBUTION_H
#define DISTRIBUTION_H

#include <stdint.h>

#include "pva/stats.h"

/* C(n, x) p^x q^(n-x) for real 0 <= x <= n, with q = 1 - p given apart so that neither is rounded. Loader's saddle-point form
 * ("Fast and accurate computation of binomial probabilities", 2000): the large logarithms that cancel are never formed. */
double binomial_density(double x, double n, double p, double q);

/* I_x(a, b) and 1 - I_x(a, b), the regularised incomplete beta function, for a, b > 0 and y = 1 - x (DLMF 8.17.22, Lentz's
 * method). */
void beta_tails(double a, double b, double x, double y, double *lower, double *upper);

double binomial_at_most(int64_t k, int64_t n, double p);  /* P(X <= k); any k */
double binomial_at_least(int64_t k, int64_t n, double p); /* P(X >= k); any k */

double normal_quantile(double p);             /* z with P(Z <= z) = p; -inf and inf at 0 and 1 */
double student_quantile(double p, double df); /* likewise for Student's t */
double chi_square_p(double x, double df);     /* P(X >= x) */

/* z of a two-sided interval; NaN when the level is not in (0, 1). */
double level_z(double level);

/* The root in [low, high] of f, which rises or falls monotonically and may be a step at the root; found by bisection, to the last
 * digit. */
double solve_monotone(double (*f)(double x, const void *context), const void *context, double low, double high);

/* Hypergeometric weights: for a table with group sizes n1, n2 and s successes in all, the probability of x successes in group 1
 * when the odds ratio is exp(log_odds). Fills p[x - *first] for *first <= x <= *last and returns 0; p must hold min(n1, s) -
 * max(0, s - n2) + 1. */
void hypergeometric(int64_t n1, int64_t n2, int64_t s, double log_odds, int64_t *first, int64_t *last, double *p);

/* All n + 1 probabilities of a binomial distribution. */
void binomial_all(int64_t n, double p, double *density);

#endif
