#include "distribution.h"

#include <gsl/gsl_cdf.h>
#include <math.h>

/* log n! less Stirling's formula, for real n > 0. */
static double stirling_error(double n) {
    if (n < 15) {
        int sign;
        return lgamma_r(n + 1, &sign) - (n + 0.5) * log(n) + n - 0.91893853320467274178; /* log(2 pi) / 2 */
    }
    double s = 1 / (n * n);
    return (1 / 12.0 - (1 / 360.0 - (1 / 1260.0 - (1 / 1680.0 - s / 1188) * s) * s) * s) / n;
}

/* x log(x / m) + m - x without cancellation when x is near m. */
static double deviance(double x, double m) {
    if (fabs(x - m) >= 0.1 * (x + m)) return x * log(x / m) + m - x;
    double v = (x - m) / (x + m), sum = (x - m) * v, term = 2 * x * v, before;
    int j = 1;
    do {
        before = sum;
        term *= v * v;
        sum += term / (2 * j++ + 1);
    } while (sum != before);
    return sum;
}

double binomial_density(double x, double n, double p, double q) {
    if (p == 0) return x == 0;
    if (q == 0) return x == n;
    if (n == 0) return 1;
    if (x == 0) return exp(n * (p < q ? log1p(-p) : log(q)));
    if (x == n) return exp(n * (q < p ? log1p(-q) : log(p)));
    double log_density =
        stirling_error(n) - stirling_error(x) - stirling_error(n - x) - deviance(x, n * p) - deviance(n - x, n * q);
    return exp(log_density) * sqrt(n / (6.2831853071795864769 * x * (n - x)));
}

/* The continued fraction for I_x(a, b) where x is below the mean, so that it converges in about sqrt(a + b) steps. */
static double beta_lower(double a, double b, double x, double y) {
    const double tiny = 1e-300, sum = a + b;
    double c = 1, d = 1 - sum * x / (a + 1), f;
    d = 1 / (fabs(d) < tiny ? tiny : d);
    f = d;
    for (int m = 1; m < 1000000; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
               odd = -(a + m) * (sum + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 + even * d, c = 1 + even / c;
        d = 1 / (fabs(d) < tiny ? tiny : d), c = fabs(c) < tiny ? tiny : c;
        f *= d * c;
        d = 1 + odd * d, c = 1 + odd / c;
        d = 1 / (fabs(d) < tiny ? tiny : d), c = fabs(c) < tiny ? tiny : c;
        f *= d * c;
        if (fabs(d * c - 1) < 4e-16) break;
    }
    /* x^a y^b / (a B(a, b)) by way of the binomial density. */
    return binomial_density(a, sum, x, y) * b / sum * f;
}

/* The power series for I_x(a, b) (DLMF 8.17.8 with 15.8.1), all terms positive. */
static double beta_series(double a, double b, double x, double y) {
    double term = 1, sum = 1;
    for (int n = 0; term > 1e-17 * sum; n++) {
        term *= x * (a + b + n) / (a + 1 + n);
        sum += term;
    }
    return binomial_density(a, a + b, x, y) * b / (a + b) * sum;
}

/* One parameter small, the other perhaps huge, and not far above the mean: the fraction would creep (a step changes it by less
 * than a rounding long before it has arrived), the series takes at most some hundred terms. */
static int takes_series(double a, double b, double x) { return a < 100 && a + b > 1000 && x * (a + b) <= a + 3; }

void beta_tails(double a, double b, double x, double y, double *lower, double *upper) {
    if (x <= 0 || y <= 0) {
        *lower = x > 0, *upper = !(x > 0);
    } else if (takes_series(a, b, x)) {
        *lower = beta_series(a, b, x, y);
        *upper = 1 - *lower;
    } else if (takes_series(b, a, y)) {
        *upper = beta_series(b, a, y, x);
        *lower = 1 - *upper;
    } else if (x < (a + 1) / (a + b + 2)) {
        *lower = beta_lower(a, b, x, y);
        *upper = 1 - *lower;
    } else {
        *upper = beta_lower(b, a, y, x);
        *lower = 1 - *upper;
    }
}

double binomial_at_least(int64_t k, int64_t n, double p) {
    double lower, upper;
    if (k <= 0) return 1;
    if (k > n) return 0;
    beta_tails((double)k, (double)(n - k + 1), p, 1 - p, &lower, &upper);
    return lower;
}

double binomial_at_most(int64_t k, int64_t n, double p) {
    double lower, upper;
    if (k < 0) return 0;
    if (k >= n) return 1;
    beta_tails((double)(k + 1), (double)(n - k), p, 1 - p, &lower, &upper);
    return upper;
}

double pva_student_p(double t, double df, enum pva_alternative alternative) {
    if (isnan(t) || !(df > 0) || isinf(df)) return isinf(df) && df > 0 ? pva_normal_p(t, alternative) : NAN;
    double beyond, within, t2 = t * t;
    if (isinf(t2)) beyond = 0, within = 1;
    else beta_tails(df / 2, 0.5, df / (df + t2), t2 / (df + t2), &beyond, &within);
    if (alternative == PVA_TWO_SIDED) return beyond;
    return (alternative == PVA_GREATER) == (t > 0) ? beyond / 2 : 0.5 + within / 2;
}

double pva_normal_p(double z, enum pva_alternative alternative) {
    pva_gsl_guard();
    if (alternative == PVA_TWO_SIDED) return 2 * gsl_cdf_ugaussian_Q(fabs(z));
    return gsl_cdf_ugaussian_Q(alternative == PVA_GREATER ? z : -z);
}

double normal_quantile(double p) {
    pva_gsl_guard();
    return gsl_cdf_ugaussian_Pinv(p);
}

double student_quantile(double p, double df) {
    pva_gsl_guard();
    return gsl_cdf_tdist_Pinv(p, df);
}

double chi_square_p(double x, double df) {
    pva_gsl_guard();
    return gsl_cdf_chisq_Q(x, df);
}

double level_z(double level) { return level > 0 && level < 1 ? normal_quantile(0.5 + level / 2) : NAN; }

double solve_monotone(double (*f)(double x, const void *context), const void *context, double low, double high) {
    int rising = f(high, context) > 0;
    for (int i = 0; i < 2000; i++) {
        double middle = low + (high - low) / 2;
        if (!(middle > low && middle < high)) break;
        if ((f(middle, context) > 0) == rising) high = middle;
        else low = middle;
        if (high - low <= 1e-16 * fabs(high)) break;
    }
    return low + (high - low) / 2;
}

/* Weights by their ratios, outwards from the mode, divided by their sum: no factorial is formed and nothing overflows. */
void hypergeometric(int64_t n1, int64_t n2, int64_t s, double log_odds, int64_t *first, int64_t *last, double *p) {
    int64_t lo = s > n2 ? s - n2 : 0, hi = s < n1 ? s : n1, mode = lo;
    double odds = exp(log_odds), sum = 1;
    /* The weight of x + 1 over that of x falls with x, so the mode is where it crosses 1: by bisection. */
    for (int64_t a = lo, b = hi; a < b;) {
        int64_t x = a + (b - a) / 2;
        double log_ratio =
            log_odds + log((double)(n1 - x)) + log((double)(s - x)) - log((double)(x + 1)) - log((double)(n2 - s + x + 1));
        if (log_ratio > 0) a = x + 1;
        else b = x;
        mode = a;
    }
    p[mode - lo] = 1;
    for (int64_t x = mode; x < hi; x++) {
        double w = p[x - lo] * odds * ((double)(n1 - x) / (double)(x + 1)) * ((double)(s - x) / (double)(n2 - s + x + 1));
        p[x + 1 - lo] = w;
        sum += w;
    }
    for (int64_t x = mode; x > lo; x--) {
        double w = p[x - lo] / odds * ((double)x / (double)(n1 - x + 1)) * ((double)(n2 - s + x) / (double)(s - x + 1));
        p[x - 1 - lo] = w;
        sum += w;
    }
    for (int64_t x = lo; x <= hi; x++) p[x - lo] /= sum;
    *first = lo, *last = hi;
}

void binomial_all(int64_t n, double p, double *density) {
    double q = 1 - p;
    if (p <= 0 || q <= 0) {
        for (int64_t x = 0; x <= n; x++) density[x] = x == (p <= 0 ? 0 : n);
        return;
    }
    int64_t mode = (int64_t)((double)(n + 1) * p);
    if (mode > n) mode = n;
    density[mode] = binomial_density((double)mode, (double)n, p, q);
    for (int64_t x = mode; x < n; x++) density[x + 1] = density[x] * ((double)(n - x) / (double)(x + 1)) * (p / q);
    for (int64_t x = mode; x > 0; x--) density[x - 1] = density[x] * ((double)x / (double)(n - x + 1)) * (q / p);
}
