#include "pva/paired.h"

#include "pva/rates.h"

#include "distribution.h"

#include <math.h>

struct pva_pairs pva_pairs_count(const unsigned char *before, const unsigned char *after, int64_t n) {
    struct pva_pairs out = {0, 0, 0, 0};
    for (int64_t i = 0; i < n; i++) {
        int64_t *cell = before[i] ? after[i] ? &out.both : &out.lost : after[i] ? &out.gained : &out.neither;
        ++*cell;
    }
    return out;
}

/* Tail probability, with `half` of the observed outcome taken off. */
static double mcnemar(int64_t gained, int64_t lost, enum pva_alternative alternative, double half) {
    if (gained < 0 || lost < 0 || gained > INT64_MAX - lost) return NAN;
    int64_t n = gained + lost, k = gained;
    if (alternative == PVA_TWO_SIDED) k = gained < lost ? gained : lost;
    double observed = binomial_density((double)k, (double)n, 0.5, 0.5);
    double p = (alternative == PVA_GREATER ? binomial_at_least(k, n, 0.5) : binomial_at_most(k, n, 0.5)) - half * observed;
    return alternative == PVA_TWO_SIDED ? fmin(1, 2 * p) : p;
}

double pva_pairs_mcnemar(int64_t gained, int64_t lost, enum pva_alternative alternative) {
    return mcnemar(gained, lost, alternative, 0);
}

double pva_pairs_mcnemar_mid_p(int64_t gained, int64_t lost, enum pva_alternative alternative) {
    return gained == 0 && lost == 0 ? 1 : mcnemar(gained, lost, alternative, 0.5);
}

struct pva_interval pva_pairs_newcombe(const struct pva_pairs *pairs, double level) {
    const struct pva_interval undefined = {NAN, NAN};
    int64_t most = INT64_C(1) << 60;
    if (pairs->both < 0 || pairs->lost < 0 || pairs->gained < 0 || pairs->neither < 0) return undefined;
    if (pairs->both > most || pairs->lost > most || pairs->gained > most || pairs->neither > most) return undefined;
    int64_t n = pairs->both + pairs->lost + pairs->gained + pairs->neither, k1 = pairs->both + pairs->gained,
            k2 = pairs->both + pairs->lost;
    struct pva_interval after = pva_rate_wilson(k1, n, level), before = pva_rate_wilson(k2, n, level);
    if (isnan(after.low)) return undefined;
    if (n == 0) return (struct pva_interval){-1, 1};
    double a = (double)pairs->both, b = (double)pairs->gained, c = (double)pairs->lost, d = (double)pairs->neither;
    double margins = (a + b) * (c + d) * (a + c) * (b + d), phi = 0;
    if (margins > 0) {
        double numerator = a * d - b * c;
        if (numerator > 0) numerator = fmax(0, numerator - (double)n / 2);
        phi = numerator / sqrt(margins);
    }
    double p1 = (double)k1 / (double)n, p2 = (double)k2 / (double)n, difference = (b - c) / (double)n;
    double l1 = p1 - after.low, u1 = after.high - p1, l2 = p2 - before.low, u2 = before.high - p2;
    double low2 = l1 * l1 - 2 * phi * l1 * u2 + u2 * u2, high2 = u1 * u1 - 2 * phi * u1 * l2 + l2 * l2;
    return (struct pva_interval){difference - sqrt(fmax(0, low2)), difference + sqrt(fmax(0, high2))};
}

double pva_pairs_odds(int64_t gained, int64_t lost, double level, struct pva_interval *interval) {
    if (gained < 0 || lost < 0 || gained > INT64_MAX - lost || !(level > 0 && level < 1)) {
        *interval = (struct pva_interval){NAN, NAN};
        return NAN;
    }
    /* high / (1 - high) by way of the interval of the other rate, so that a high near 1 keeps its digits. */
    struct pva_interval p = pva_rate_clopper_pearson(gained, gained + lost, level),
                        q = pva_rate_clopper_pearson(lost, gained + lost, level);
    *interval = (struct pva_interval){p.low / q.high, p.high / q.low};
    return (double)gained / (double)lost;
}

double pva_pairs_cohen_g(int64_t gained, int64_t lost) {
    if (gained < 0 || lost < 0 || gained > INT64_MAX - lost) return NAN;
    return ((double)gained - (double)lost) / (2 * (double)(gained + lost));
}

struct pva_cochran_q pva_cochran_q(const unsigned char *passed, int64_t n, int64_t k) {
    struct pva_cochran_q out = {NAN, NAN, NAN};
    if (k < 2 || n < 0) return out;
    double columns2 = 0, rows2 = 0, total = 0, kd = (double)k;
    for (int64_t j = 0; j < k; j++) {
        double column = 0;
        for (int64_t i = 0; i < n; i++) column += passed[i * k + j] != 0;
        columns2 += column * column;
    }
    for (int64_t i = 0; i < n; i++) {
        double row = 0;
        for (int64_t j = 0; j < k; j++) row += passed[i * k + j] != 0;
        rows2 += row * row;
        total += row;
    }
    double within = kd * total - rows2; /* 0 exactly when every row is all pass or all fail: whole numbers in doubles */
    out.df = kd - 1;
    out.q = within > 0 ? (kd - 1) * (kd * columns2 - total * total) / within : 0;
    out.p = within > 0 ? chi_square_p(out.q, out.df) : 1;
    return out;
}
