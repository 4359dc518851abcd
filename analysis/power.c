#include "pva/power.h"

#include "pva/rates.h"

#include "distribution.h"

#include <math.h>
#include <stdlib.h>

static int is_probability(double p) { return p >= 0 && p <= 1; }

static int is_alpha(double alpha) { return alpha > 0 && alpha < 1; }

double pva_power_mcnemar(int64_t n, double gain, double loss, double alpha) {
    double discordant = gain + loss;
    if (n < 0 || !is_alpha(alpha) || !(gain >= 0) || !(loss >= 0) || !(discordant <= 1 + 1e-12)) return NAN;
    if (discordant > 1) discordant = 1;
    if (discordant == 0) return 0;
    double sum = 0, share = gain / (gain + loss), mean = (double)n * discordant, reach = 40 * sqrt(mean * (1 - discordant)) + 40;
    int64_t first = mean > reach ? (int64_t)(mean - reach) : 0, last = mean + reach < (double)n ? (int64_t)(mean + reach) : n,
            critical = -1;
    for (int64_t m = first; m <= last; m++) {                                   /* outside, the weights are below 1e-300 or so */
        while (2 * binomial_at_most(critical + 1, m, 0.5) <= alpha) critical++; /* never falls with m */
        if (critical < 0) continue;
        double weight = binomial_density((double)m, (double)n, discordant, 1 - discordant);
        sum += weight * (binomial_at_most(critical, m, share) + binomial_at_least(m - critical, m, share));
    }
    return fmin(1, sum);
}

struct target {
    int64_t n1, n2;
    double other, alpha, power;
};

/* The least effect in [from, to] at which `missing` (power - wanted) is not negative. */
static double least_effect(double (*missing)(double, const void *), const struct target *t, double from, double to) {
    if (!(t->power > 0 && t->power < 1) || !(missing(to, t) >= 0)) return NAN;
    return solve_monotone(missing, t, from, to);
}

static double mcnemar_missing(double gain, const void *context) {
    const struct target *t = context;
    return pva_power_mcnemar(t->n1, gain, t->other, t->alpha) - t->power;
}

double pva_mde_mcnemar(int64_t n, double loss, double alpha, double power) {
    if (!is_probability(loss) || loss >= 0.5) return NAN;
    return least_effect(mcnemar_missing, &(struct target){n, 0, loss, alpha, power}, loss, 1 - loss);
}

double pva_power_binomial(int64_t n, double p0, double p1, double alpha, enum pva_alternative alternative) {
    if (n < 0 || !is_probability(p0) || !is_probability(p1) || !is_alpha(alpha)) return NAN;
    /* Rejected are all k < below and all k >= above; p rises towards the mean, so both ends are found by bisection. */
    int64_t below = 0, above = n + 1, mean = (int64_t)floor((double)n * p0);
    if (alternative != PVA_GREATER) {
        for (int64_t end = mean + 1; below < end;) {
            int64_t k = below + (end - below) / 2;
            if (pva_rate_binomial_test(k, n, p0, alternative) <= alpha) below = k + 1;
            else end = k;
        }
    }
    if (alternative != PVA_LESS) {
        for (int64_t start = mean; start < above;) {
            int64_t k = start + (above - start) / 2;
            if (k <= n && pva_rate_binomial_test(k, n, p0, alternative) <= alpha) above = k;
            else start = k + 1;
        }
    }
    if (above < below) return 1;
    return fmin(1, binomial_at_most(below - 1, n, p1) + binomial_at_least(above, n, p1));
}

static double binomial_missing(double p1, const void *context) {
    const struct target *t = context;
    return pva_power_binomial(t->n1, t->other, p1, t->alpha, PVA_GREATER) - t->power;
}

double pva_mde_binomial(int64_t n, double p0, double alpha, double power) {
    if (!is_probability(p0)) return NAN;
    return least_effect(binomial_missing, &(struct target){n, 0, p0, alpha, power}, p0, 1);
}

/* Takes outcomes away from both ends of p[lo..hi] for as long as the test rejects them; the rest, [*lo, *hi], is not rejected. */
static void fisher_region(const double *p, int64_t *lo, int64_t *hi, double alpha, enum pva_alternative alternative) {
    double sum = 0;
    while (*lo <= *hi) {
        int64_t l = *lo, h = *hi;
        double low = alternative == PVA_GREATER ? INFINITY : p[l], high = alternative == PVA_LESS ? INFINITY : p[h],
               limit = fmin(low, high) * (1 + 1e-7);
        /* One-sided: one outcome at a time from its end. Two-sided: the least probable, with what ties. */
        if (low <= limit) sum += p[l++];
        while (alternative == PVA_TWO_SIDED && l <= h && p[l] <= limit) sum += p[l++];
        if (high <= limit && h >= l) sum += p[h--];
        while (alternative == PVA_TWO_SIDED && h >= l && p[h] <= limit) sum += p[h--];
        if (sum > alpha) break;
        *lo = l, *hi = h;
    }
}

double pva_power_fisher(double p1, int64_t n1, double p2, int64_t n2, double alpha, enum pva_alternative alternative) {
    if (n1 < 0 || n2 < 0 || n1 > INT32_MAX || n2 > INT32_MAX || !is_probability(p1) || !is_probability(p2) || !is_alpha(alpha))
        return NAN;
    size_t n = (size_t)(n1 + n2 + 2);
    double *density1 = malloc(n * sizeof *density1), *p = malloc(n * sizeof *p), sum = NAN;
    if (density1 && p) {
        double *density2 = density1 + n1 + 1;
        binomial_all(n1, p1, density1);
        binomial_all(n2, p2, density2);
        sum = 0;
        for (int64_t s = 0; s <= n1 + n2; s++) {
            int64_t first, last;
            hypergeometric(n1, n2, s, 0, &first, &last, p);
            int64_t lo = 0, hi = last - first;
            fisher_region(p, &lo, &hi, alpha, alternative);
            for (int64_t i = 0; i <= last - first; i++)
                if (i < lo || i > hi) sum += density1[first + i] * density2[s - first - i];
        }
    }
    free(density1);
    free(p);
    return sum > 1 ? 1 : sum;
}

double pva_power_rates(double p1, int64_t n1, double p2, int64_t n2, double alpha) {
    if (n1 < 1 || n2 < 1 || !is_probability(p1) || !is_probability(p2) || !is_alpha(alpha)) return NAN;
    double a = (double)n1, b = (double)n2, pooled = (a * p1 + b * p2) / (a + b), d = p1 - p2, z = normal_quantile(1 - alpha / 2);
    double s0 = sqrt(pooled * (1 - pooled) * (1 / a + 1 / b)), s1 = sqrt(p1 * (1 - p1) / a + p2 * (1 - p2) / b);
    if (s1 == 0) return fabs(d) > z * s0;
    return pva_normal_p((z * s0 - d) / s1, PVA_GREATER) + pva_normal_p((-z * s0 - d) / s1, PVA_LESS);
}

static double rates_missing(double p1, const void *context) {
    const struct target *t = context;
    return pva_power_rates(p1, t->n1, t->other, t->n2, t->alpha) - t->power;
}

double pva_mde_rates(int64_t n1, double p2, int64_t n2, double alpha, double power) {
    if (!is_probability(p2)) return NAN;
    return least_effect(rates_missing, &(struct target){n1, n2, p2, alpha, power}, p2, 1);
}
