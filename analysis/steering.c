#include "pva/steering.h"

#include "pva/power.h"
#include "pva/rates.h"
#include "pva/tables.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double pva_token_similarity(const int32_t *a, int64_t n, const int32_t *b, int64_t m) {
    int64_t head = 0, tail = 0, longest = n > m ? n : m;
    /* What begins and ends alike is no edit; most completions differ in a part only. */
    while (head < n && head < m && a[head] == b[head]) head++;
    while (tail < n - head && tail < m - head && a[n - 1 - tail] == b[m - 1 - tail]) tail++;
    a += head, b += head, n -= head + tail, m -= head + tail;
    if (n == 0 || m == 0) return longest ? 1 - (double)(n + m) / (double)longest : 1;
    int32_t *row = malloc((size_t)(m + 1) * sizeof *row);
    if (!row) return NAN;
    for (int64_t j = 0; j <= m; j++) row[j] = (int32_t)j;
    for (int64_t i = 1; i <= n; i++) {
        int32_t diagonal = row[0];
        row[0] = (int32_t)i;
        for (int64_t j = 1; j <= m; j++) {
            int32_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    double similarity = 1 - (double)row[m] / (double)longest;
    free(row);
    return similarity;
}

struct pva_steering_counts pva_steering_count(const unsigned char *used, const unsigned char *before, const unsigned char *after,
                                              const unsigned char *degenerate, const double *similarity, int64_t n) {
    struct pva_steering_counts c = {0};
    double all = 0, by_class[2] = {0};
    for (int64_t i = 0; i < n; i++) {
        if ((used && !used[i]) || before[i] >= PVA_N_VERDICTS || after[i] >= PVA_N_VERDICTS) continue;
        int was = before[i] == PVA_PASS, is = after[i] == PVA_PASS;
        c.n++;
        c.pairs.both += was && is, c.pairs.lost += was && !is, c.pairs.gained += !was && is, c.pairs.neither += !was && !is;
        c.degenerate += degenerate[i] != 0;
        c.same += similarity[i] == 1;
        all += similarity[i], by_class[was] += similarity[i];
        c.shift[before[i]][after[i]]++;
    }
    int64_t passing = c.pairs.both + c.pairs.lost, failing = c.n - passing;
    c.similarity = c.n ? all / (double)c.n : NAN;
    c.similarity_failing = failing ? by_class[0] / (double)failing : NAN;
    c.similarity_passing = passing ? by_class[1] / (double)passing : NAN;
    return c;
}

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double ratio(int64_t k, int64_t n) { return n > 0 ? (double)k / (double)n : NAN; }

int pva_effect(int64_t k, int64_t n, const int64_t *control_k, const int64_t *control_n, int64_t n_controls, double level, double alpha, double power,
               struct pva_effect *out, struct pva_error *err) {
    double *rates = malloc((size_t)(n_controls + 1) * sizeof *rates);
    if (!rates) return pva_fail(err, PVA_IO, "out of memory");
    *out = (struct pva_effect){.k = k, .n = n, .rate = ratio(k, n), .interval = pva_rate_clopper_pearson(k, n, level)};
    for (int64_t i = 0; i < n_controls; i++) {
        if (control_n[i] <= 0) continue;
        rates[out->n_controls++] = ratio(control_k[i], control_n[i]);
        out->control_k += control_k[i];
        out->control_n += control_n[i];
    }
    int64_t m = out->n_controls;
    qsort(rates, (size_t)m, sizeof *rates, rising);
    out->control_rate = ratio(out->control_k, out->control_n);
    out->control_least = m ? rates[0] : NAN;
    out->control_most = m ? rates[m - 1] : NAN;
    out->control_median = m ? (rates[(m - 1) / 2] + rates[m / 2]) / 2 : NAN;
    out->difference = pva_rates_newcombe(k, n, out->control_k, out->control_n, level);
    out->p0 = m == 0 ? NAN : out->control_k ? out->control_rate : 1 / ((double)out->control_n + 1);
    out->p_binomial = out->p_fisher = out->p_rank = out->power_tenth = out->mde = NAN;
    if (m && n > 0) {
        out->p_binomial = pva_rate_binomial_test(k, n, out->p0, PVA_GREATER);
        out->p_fisher = pva_table_fisher(k, n, out->control_k, out->control_n, PVA_GREATER);
        out->p_rank = pva_rank_p(out->rate, rates, m, PVA_GREATER);
        out->power_tenth = pva_power_binomial(n, out->p0, out->p0 + 0.1 < 1 ? out->p0 + 0.1 : 1, alpha, PVA_GREATER);
        out->mde = pva_mde_binomial(n, out->p0, alpha, power);
    }
    free(rates);
    return PVA_OK;
}
