#include "pva/rates.h"

#include "distribution.h"

#include <math.h>

static const struct pva_interval UNDEFINED = {NAN, NAN};

static int valid(int64_t k, int64_t n) { return k >= 0 && k <= n; }

struct tail {
    int64_t k, n;
    double target;
};

static double excess_above(double p, const void *context) {
    const struct tail *t = context;
    return binomial_at_least(t->k, t->n, p) - t->target;
}

static double excess_below(double p, const void *context) {
    const struct tail *t = context;
    return binomial_at_most(t->k, t->n, p) - t->target;
}

struct pva_interval pva_rate_clopper_pearson(int64_t k, int64_t n, double level) {
    if (!valid(k, n) || !(level > 0 && level < 1)) return UNDEFINED;
    struct tail t = {k, n, (1 - level) / 2};
    struct pva_interval out = {0, 1};
    if (k > 0) out.low = solve_monotone(excess_above, &t, 0, 1);
    if (k < n) out.high = solve_monotone(excess_below, &t, 0, 1);
    return out;
}

struct pva_interval pva_rate_wilson(int64_t k, int64_t n, double level) {
    double z = level_z(level);
    if (!valid(k, n) || isnan(z)) return UNDEFINED;
    if (n == 0) return (struct pva_interval){0, 1};
    double p = (double)k / (double)n, q = (double)(n - k) / (double)n, z2 = z * z / (double)n;
    double centre = p + z2 / 2, half = z / sqrt((double)n) * sqrt(p * q + z2 / 4), scale = 1 + z2;
    /* low high = p^2 / scale: the small end of each side by the product of the roots, which does not cancel. */
    double high = (centre + half) / scale, low = p * p / (centre + half), miss = q + z2 / 2 + half;
    if (high > 0.5) high = 1 - q * q / miss;
    if (low > 0.5) low = 1 - miss / scale;
    return (struct pva_interval){low, k == n ? 1 : high};
}

struct pva_interval pva_rates_newcombe(int64_t k1, int64_t n1, int64_t k2, int64_t n2, double level) {
    struct pva_interval a = pva_rate_wilson(k1, n1, level), b = pva_rate_wilson(k2, n2, level);
    if (isnan(a.low) || isnan(b.low)) return UNDEFINED;
    if (n1 == 0 || n2 == 0) return (struct pva_interval){-1, 1};
    double p1 = (double)k1 / (double)n1, p2 = (double)k2 / (double)n2;
    return (struct pva_interval){p1 - p2 - hypot(p1 - a.low, b.high - p2), p1 - p2 + hypot(a.high - p1, p2 - b.low)};
}

/* The number of outcomes i in [from, to) whose probability is at most `limit`, where probabilities fall with i (step = 1) or
 * rise. */
static int64_t first_at_most(int64_t n, double p0, int64_t from, int64_t to, int falling, double limit) {
    while (from < to) {
        int64_t i = from + (to - from) / 2;
        int small = binomial_density((double)i, (double)n, p0, 1 - p0) <= limit;
        if (small == falling) to = i;
        else from = i + 1;
    }
    return from;
}

double pva_rate_binomial_test(int64_t k, int64_t n, double p0, enum pva_alternative alternative) {
    if (!valid(k, n) || !(p0 >= 0 && p0 <= 1)) return NAN;
    if (alternative == PVA_GREATER) return binomial_at_least(k, n, p0);
    if (alternative == PVA_LESS) return binomial_at_most(k, n, p0);
    double mean = (double)n * p0, limit = binomial_density((double)k, (double)n, p0, 1 - p0) * (1 + 1e-7), p;
    if ((double)k == mean) return 1;
    if ((double)k < mean) { /* the outcomes above the mean that are as improbable: i >= upper */
        int64_t upper = first_at_most(n, p0, (int64_t)ceil(mean), n + 1, 1, limit);
        p = binomial_at_most(k, n, p0) + binomial_at_least(upper, n, p0);
    } else {
        int64_t above = first_at_most(n, p0, 0, (int64_t)floor(mean) + 1, 0, limit);
        p = binomial_at_least(k, n, p0) + binomial_at_most(above - 1, n, p0);
    }
    return p < 1 ? p : 1;
}

double pva_pass_at_k(int64_t n, int64_t c, int64_t k) {
    if (!valid(c, n) || k < 1 || k > n) return NAN;
    double fail = 1;
    for (int64_t i = n - c + 1; i <= n && fail > 0; i++) fail *= i - k > 0 ? 1 - (double)k / (double)i : 0;
    return 1 - fail;
}

double pva_rank_p(double value, const double *controls, int64_t n, enum pva_alternative alternative) {
    int64_t above = 0, below = 0;
    if (isnan(value) || n < 0) return NAN;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(controls[i])) return NAN;
        above += controls[i] >= value;
        below += controls[i] <= value;
    }
    if (alternative == PVA_TWO_SIDED) return fmin(1, 2 * (double)(1 + (above < below ? above : below)) / (double)(1 + n));
    return (double)(1 + (alternative == PVA_GREATER ? above : below)) / (double)(1 + n);
}
