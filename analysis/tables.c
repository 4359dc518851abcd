#include "pva/tables.h"

#include "distribution.h"

#include <math.h>
#include <stdlib.h>

static int valid(int64_t k1, int64_t n1, int64_t k2, int64_t n2) {
    /* The bound keeps every sum and every size of an array of doubles far from overflow. */
    return k1 >= 0 && k1 <= n1 && k2 >= 0 && k2 <= n2 && n1 < INT64_C(1) << 40 && n2 < INT64_C(1) << 40;
}

static int64_t support(int64_t n1, int64_t n2, int64_t s) { return (s < n1 ? s : n1) - (s > n2 ? s - n2 : 0) + 1; }

/* The sum of p[from..to], small terms first: from the end that is further from the mode. */
static double sum_up(const double *p, int64_t from, int64_t to) {
    double sum = 0;
    if (from > to) return 0;
    if (p[from] < p[to])
        for (int64_t i = from; i <= to; i++) sum += p[i];
    else
        for (int64_t i = to; i >= from; i--) sum += p[i];
    return sum;
}

static double fisher_tail(const double *p, int64_t at, int64_t n, enum pva_alternative alternative) {
    double sum = 0, limit = p[at] * (1 + 1e-7);
    if (alternative == PVA_LESS) sum = sum_up(p, 0, at);
    if (alternative == PVA_GREATER) sum = sum_up(p, at, n - 1);
    if (alternative == PVA_TWO_SIDED) {
        int64_t below = 0, above = n;
        while (below < n && p[below] <= limit) below++;
        while (above > below && p[above - 1] <= limit) above--;
        sum = sum_up(p, 0, below - 1) + sum_up(p, above, n - 1);
    }
    return sum < 1 ? sum : 1;
}

double pva_table_fisher(int64_t k1, int64_t n1, int64_t k2, int64_t n2, enum pva_alternative alternative) {
    if (!valid(k1, n1, k2, n2)) return NAN;
    int64_t n = support(n1, n2, k1 + k2), first, last;
    double *p = malloc((size_t)n * sizeof *p);
    if (!p) return NAN;
    hypergeometric(n1, n2, k1 + k2, 0, &first, &last, p);
    double out = fisher_tail(p, k1 - first, n, alternative);
    free(p);
    return out;
}

/* --- Boschloo ------------------------------------------------------------------------------------------------------------- */

struct boschloo {
    int64_t n1, n2;
    const int64_t *highest; /* [n1 + 1]: tables (x1, x2) with x2 <= highest[x1] are at least as extreme; -1 for none */
    double *density1, *density2;
};

static double rejected(const struct boschloo *b, double angle) {
    double rate = sin(angle) * sin(angle), sum = 0, cumulated = 0;
    int64_t next = 0;
    binomial_all(b->n1, rate, b->density1);
    binomial_all(b->n2, rate, b->density2);
    for (int64_t x1 = 0; x1 <= b->n1; x1++) { /* highest never falls with x1 */
        while (next <= b->highest[x1]) cumulated += b->density2[next++];
        sum += b->density1[x1] * cumulated;
    }
    return sum;
}

static double refine(const struct boschloo *b, double low, double high) {
    const double golden = 0.6180339887498949;
    double x1 = high - golden * (high - low), x2 = low + golden * (high - low), f1 = rejected(b, x1), f2 = rejected(b, x2);
    while (high - low > 1e-9) { /* the maximum is flat: its height is then known to 1e-15 */
        if (f1 < f2) low = x1, x1 = x2, f1 = f2, x2 = low + golden * (high - low), f2 = rejected(b, x2);
        else high = x2, x2 = x1, f2 = f1, x1 = high - golden * (high - low), f1 = rejected(b, x1);
    }
    return fmax(f1, f2);
}

/* For each x1 the largest x2 whose one-sided Fisher p is at most the observed one: a staircase, so each step continues from the
 * last. */
static int staircase(int64_t k1, int64_t n1, int64_t k2, int64_t n2, int64_t *highest) {
    double observed = pva_table_fisher(k1, n1, k2, n2, PVA_GREATER) * (1 + 1e-13);
    int64_t x2 = -1;
    for (int64_t x1 = 0; x1 <= n1; x1++) {
        while (x2 < n2) {
            double p = pva_table_fisher(x1, n1, x2 + 1, n2, PVA_GREATER);
            if (isnan(p)) return 0;
            if (p > observed) break;
            x2++;
        }
        highest[x1] = x2;
    }
    return !isnan(observed);
}

static double boschloo_greater(int64_t k1, int64_t n1, int64_t k2, int64_t n2) {
    const double right_angle = 1.5707963267948966;
    double best = NAN, *density = malloc((size_t)(n1 + n2 + 2) * sizeof *density), *grid = NULL;
    int64_t *highest = malloc((size_t)(n1 + 1) * sizeof *highest), n_grid = 4 * (n1 + n2) < 400    ? 400
                                                                            : 4 * (n1 + n2) > 4000 ? 4000
                                                                                                   : 4 * (n1 + n2);
    struct boschloo b = {n1, n2, highest, density, density ? density + n1 + 1 : NULL};
    if (!density || !highest || !staircase(k1, n1, k2, n2, highest)) goto done;
    grid = malloc((size_t)(n_grid + 1) * sizeof *grid);
    if (!grid) goto done;
    best = 0;
    for (int64_t i = 0; i <= n_grid; i++) {
        grid[i] = rejected(&b, right_angle * (double)i / (double)n_grid);
        best = fmax(best, grid[i]);
    }
    for (int64_t i = 0; i <= n_grid; i++) {
        int64_t before = i > 0 ? i - 1 : i, after = i < n_grid ? i + 1 : i;
        if (grid[i] < grid[before] || grid[i] < grid[after] || grid[i] < 0.9 * best) continue;
        best =
            fmax(best, refine(&b, right_angle * (double)before / (double)n_grid, right_angle * (double)after / (double)n_grid));
    }
    best = fmin(best, 1);
done:
    free(density);
    free(highest);
    free(grid);
    return best;
}

double pva_table_boschloo(int64_t k1, int64_t n1, int64_t k2, int64_t n2, enum pva_alternative alternative) {
    if (!valid(k1, n1, k2, n2)) return NAN;
    if (n1 == 0 || n2 == 0) return 1;
    double greater = alternative != PVA_LESS ? boschloo_greater(k1, n1, k2, n2) : 1;
    double less = alternative != PVA_GREATER ? boschloo_greater(k2, n2, k1, n1) : 1;
    if (isnan(greater) || isnan(less)) return NAN;
    if (alternative == PVA_TWO_SIDED) return fmin(1, 2 * fmin(greater, less));
    return alternative == PVA_GREATER ? greater : less;
}

/* --- Odds ratio ----------------------------------------------------------------------------------------------------------- */

struct odds {
    int64_t k1, n1, n2, s;
    double target, *p;
};

static double odds_mean(double log_odds, const void *context) {
    const struct odds *o = context;
    int64_t first, last;
    double mean = 0;
    hypergeometric(o->n1, o->n2, o->s, log_odds, &first, &last, o->p);
    for (int64_t x = first; x <= last; x++) mean += (double)(x - o->k1) * o->p[x - first];
    return mean;
}

static double odds_above(double log_odds, const void *context) {
    const struct odds *o = context;
    int64_t first, last;
    hypergeometric(o->n1, o->n2, o->s, log_odds, &first, &last, o->p);
    return sum_up(o->p, o->k1 - first, last - first) - o->target;
}

static double odds_below(double log_odds, const void *context) {
    const struct odds *o = context;
    int64_t first, last;
    hypergeometric(o->n1, o->n2, o->s, log_odds, &first, &last, o->p);
    return sum_up(o->p, 0, o->k1 - first) - o->target;
}

struct pva_odds_ratio pva_table_odds_ratio(int64_t k1, int64_t n1, int64_t k2, int64_t n2, double level) {
    struct pva_odds_ratio out = {NAN, NAN, {NAN, NAN}};
    if (!valid(k1, n1, k2, n2) || !(level > 0 && level < 1)) return out;
    int64_t s = k1 + k2, n = support(n1, n2, s), first = s > n2 ? s - n2 : 0, last = first + n - 1;
    double *p = malloc((size_t)n * sizeof *p);
    if (!p) return out;
    struct odds o = {k1, n1, n2, s, (1 - level) / 2, p};
    const double far = 700; /* exp(700) is near the largest double */
    out.sample = (double)k1 * (double)(n2 - k2) / ((double)k2 * (double)(n1 - k1));
    out.interval = (struct pva_interval){0, INFINITY};
    if (n > 1) { /* else only one table has these margins, and it says nothing */
        out.conditional = k1 == first ? 0 : k1 == last ? INFINITY : exp(solve_monotone(odds_mean, &o, -far, far));
        if (k1 > first) out.interval.low = exp(solve_monotone(odds_above, &o, -far, far));
        if (k1 < last) out.interval.high = exp(solve_monotone(odds_below, &o, -far, far));
    }
    free(p);
    return out;
}
