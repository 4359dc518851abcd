#include "pva/trend.h"

#include "distribution.h"
#include "order.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

static const struct pva_trend UNDEFINED = {NAN, NAN, NAN, NAN, NAN};

/* A variance of 0 means that nothing varied: no evidence. */
static struct pva_trend trend(double statistic, double deviation, double variance) {
    if (!(variance > 0)) return (struct pva_trend){statistic, 0, 1, 1, 1};
    double z = deviation / sqrt(variance);
    return (struct pva_trend){statistic, z, pva_normal_p(z, PVA_TWO_SIDED), pva_normal_p(z, PVA_GREATER),
                              pva_normal_p(z, PVA_LESS)};
}

struct pva_trend pva_trend_cochran_armitage(const int64_t *passed, const int64_t *n, const double *dose, int64_t n_groups) {
    double all = 0, total = 0, mean = 0, statistic = 0, spread = 0;
    for (int64_t g = 0; g < n_groups; g++) {
        if (passed[g] < 0 || passed[g] > n[g] || isnan(dose[g])) return UNDEFINED;
        if (n[g] == 0) continue;
        all += (double)passed[g];
        total += (double)n[g];
        mean += (double)n[g] * dose[g];
    }
    if (total == 0) return trend(0, 0, 0);
    mean /= total;
    double p = all / total;
    for (int64_t g = 0; g < n_groups; g++) {
        if (n[g] == 0) continue;
        double d = dose[g] - mean;
        statistic += ((double)passed[g] - (double)n[g] * p) * d;
        spread += (double)n[g] * d * d;
    }
    return trend(statistic, statistic, p * ((total - all) / total) * spread);
}

struct pva_trend pva_trend_page(const double *values, int64_t n_blocks, int64_t k) {
    if (k < 2 || n_blocks < 0) return UNDEFINED;
    double l = 0, deviation = 0, ties = 0, kd = (double)k;
    for (int64_t b = 0; b < n_blocks; b++) {
        const double *row = values + b * k;
        for (int64_t j = 0; j < k; j++) {
            int64_t below = 0, tied = 0; /* k is a handful of conditions: counting is simplest */
            if (isnan(row[j])) return UNDEFINED;
            for (int64_t i = 0; i < k; i++) below += row[i] < row[j], tied += row[i] == row[j];
            double rank = (double)below + (double)(tied + 1) / 2, centred = rank - (kd + 1) / 2;
            l += (double)(j + 1) * rank;
            deviation += ((double)(j + 1) - (kd + 1) / 2) * centred;
            ties += centred * centred;
        }
    }
    return trend(l, deviation, kd * (kd + 1) / 12 * ties);
}

/* sum over ties of size t: t(t-1)(2t+5), t(t-1)(t-2), t(t-1). */
struct tie_sums {
    double cubic, triple, pairs;
};

static void add_tie(struct tie_sums *s, double t) {
    s->cubic += t * (t - 1) * (2 * t + 5);
    s->triple += t * (t - 1) * (t - 2);
    s->pairs += t * (t - 1);
}

struct pva_trend pva_trend_jonckheere(const double *values, const int32_t *group, int64_t n) {
    struct tie_sums value_ties = {0, 0, 0}, group_ties = {0, 0, 0};
    double j = 0, s = 0, nd = (double)n;
    for (int64_t i = 0; i < n; i++) {
        int64_t same_value = 0, same_group = 0, first_value = 1, first_group = 1;
        if (isnan(values[i])) return UNDEFINED;
        for (int64_t m = 0; m < n; m++) {
            same_value += values[m] == values[i], same_group += group[m] == group[i];
            if (m < i) first_value &= values[m] != values[i], first_group &= group[m] != group[i];
            if (group[m] <= group[i]) continue;
            j += values[m] > values[i] ? 1 : values[m] == values[i] ? 0.5 : 0;
            s += (values[m] > values[i]) - (values[m] < values[i]);
        }
        if (first_value) add_tie(&value_ties, (double)same_value);
        if (first_group) add_tie(&group_ties, (double)same_group);
    }
    double variance = (nd * (nd - 1) * (2 * nd + 5) - value_ties.cubic - group_ties.cubic) / 18;
    if (n > 2) variance += value_ties.triple * group_ties.triple / (9 * nd * (nd - 1) * (nd - 2));
    if (n > 1) variance += value_ties.pairs * group_ties.pairs / (2 * nd * (nd - 1));
    int varies = n > 1 && value_ties.pairs < nd * (nd - 1) && group_ties.pairs < nd * (nd - 1);
    return trend(j, s, varies ? variance : 0);
}

int pva_isotonic(const double *values, const double *weights, int64_t n, double *fitted, struct pva_error *err) {
    struct block {
        double mean, weight;
        int64_t end;
    } *blocks = order_array(n, sizeof *blocks, "isotonic", err);
    int64_t n_blocks = 0;
    if (!blocks) return err->code;
    for (int64_t i = 0; i < n; i++) {
        double w = weights ? weights[i] : 1;
        if (!isfinite(values[i]) || !(w > 0 && isfinite(w))) {
            pva_fail(err, PVA_INPUT,
                     "isotonic: item %" PRId64 " of %" PRId64
                     " has value %g and weight %g; expected a finite number and a weight above 0",
                     i, n, values[i], w);
            free(blocks);
            return err->code;
        }
        blocks[n_blocks++] = (struct block){values[i], w, i + 1};
        while (n_blocks > 1 && blocks[n_blocks - 2].mean >= blocks[n_blocks - 1].mean) {
            struct block *a = &blocks[n_blocks - 2], *b = &blocks[n_blocks - 1];
            a->mean = (a->weight * a->mean + b->weight * b->mean) / (a->weight + b->weight);
            a->weight += b->weight;
            a->end = b->end;
            n_blocks--;
        }
    }
    for (int64_t b = 0, i = 0; b < n_blocks; b++)
        while (i < blocks[b].end) fitted[i++] = blocks[b].mean;
    free(blocks);
    return 0;
}
