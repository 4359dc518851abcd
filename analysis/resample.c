#include "pva/resample.h"

#include "pva/rng.h"

#include "distribution.h"
#include "order.h"

#include <gsl/gsl_sort_double.h>
#include <gsl/gsl_statistics_double.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void pva_bootstrap_draw(uint64_t seed, uint32_t stream, uint32_t replicate, int64_t n_clusters, int32_t *times) {
    memset(times, 0, (size_t)n_clusters * sizeof *times);
    for (int64_t i = 0; i < n_clusters; i++)
        times[pva_rng_below(seed, PVA_RNG_BOOTSTRAP, replicate, stream, (uint32_t)i, (uint64_t)n_clusters)]++;
}

static double quantile(const double *sorted, int64_t n, double p) {
    return gsl_stats_quantile_from_sorted_data(sorted, 1, (size_t)n, p);
}

struct pva_interval pva_bootstrap_bca(double estimate, double *replicates, int64_t n_replicates, const double *jackknife,
                                      int64_t n_clusters, double level, double *bias, double *acceleration) {
    struct pva_interval out = {NAN, NAN};
    *bias = *acceleration = NAN;
    double z = level_z(level);
    if (isnan(z) || isnan(estimate) || n_replicates < 1 || n_clusters < 2) return out;
    int64_t below = 0, tied = 0;
    for (int64_t i = 0; i < n_replicates; i++) below += replicates[i] < estimate, tied += replicates[i] == estimate;
    *bias = normal_quantile(((double)below + (double)tied / 2) / (double)n_replicates);
    double mean = 0, cubes = 0, squares = 0;
    for (int64_t i = 0; i < n_clusters; i++) mean += jackknife[i];
    mean /= (double)n_clusters;
    for (int64_t i = 0; i < n_clusters; i++) {
        double d = mean - jackknife[i];
        squares += d * d, cubes += d * d * d;
    }
    *acceleration = squares > 0 ? cubes / (6 * squares * sqrt(squares)) : 0;
    gsl_sort(replicates, 1, (size_t)n_replicates);
    if (isinf(*bias)) return out;
    double low = *bias - z, high = *bias + z;
    out.low = quantile(replicates, n_replicates, pva_normal_p(*bias + low / (1 - *acceleration * low), PVA_LESS));
    out.high = quantile(replicates, n_replicates, pva_normal_p(*bias + high / (1 - *acceleration * high), PVA_LESS));
    return out;
}

/* Drops NaN, keeping the order; returns how many are left. */
static int64_t keep_numbers(double *values, int64_t n) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (!isnan(values[i])) values[kept++] = values[i];
    return kept;
}

int pva_bootstrap(pva_bootstrap_statistic statistic, const void *context, int64_t n_clusters, int64_t n_replicates, double level,
                  uint64_t seed, uint32_t stream, double *replicates, struct pva_bootstrap *out, struct pva_error *err) {
    *out = (struct pva_bootstrap){NAN, NAN, {NAN, NAN}, {NAN, NAN}, NAN, NAN, n_replicates, 0};
    if (n_clusters < 1 || n_clusters > INT32_MAX)
        return pva_fail(err, PVA_INPUT, "bootstrap: %" PRId64 " clusters, expected 1 to 2^31 - 1", n_clusters);
    if (n_replicates < 1 || n_replicates > INT32_MAX)
        return pva_fail(err, PVA_INPUT, "bootstrap: %" PRId64 " replicates, expected 1 to 2^31 - 1", n_replicates);
    if (!(level > 0 && level < 1)) return pva_fail(err, PVA_INPUT, "bootstrap: level %g is not between 0 and 1", level);
    /* Values of the replicates, then of the samples without one cluster, then of the whole. */
    int64_t n_values = n_replicates + n_clusters + 1;
    double *values = order_array(n_values, sizeof *values, "bootstrap", err);
    int failed = 0;
    if (!values) return err->code;
#pragma omp parallel
    {
        int32_t *times = malloc((size_t)n_clusters * sizeof *times);
#pragma omp for schedule(dynamic, 16) reduction(| : failed)
        for (int64_t v = 0; v < n_values; v++) {
            if (!times) {
                failed = 1;
                continue;
            }
            if (v < n_replicates) {
                pva_bootstrap_draw(seed, stream, (uint32_t)v, n_clusters, times);
            } else {
                for (int64_t c = 0; c < n_clusters; c++) times[c] = 1;
                if (v < n_values - 1) times[v - n_replicates] = 0;
            }
            values[v] = statistic(times, context);
        }
        free(times);
    }
    if (failed) {
        free(values);
        return pva_fail(err, PVA_IO, "bootstrap: no memory for %" PRId64 " clusters per thread", n_clusters);
    }
    if (replicates) memcpy(replicates, values, (size_t)n_replicates * sizeof *values);
    out->estimate = values[n_values - 1];
    double *jackknife = values + n_replicates;
    int64_t kept = keep_numbers(values, n_replicates), n_jackknife = keep_numbers(jackknife, n_clusters);
    out->n_undefined = n_replicates - kept;
    if (kept > 1) out->standard_error = gsl_stats_sd(values, 1, (size_t)kept);
    if (kept > 0) {
        out->bca = pva_bootstrap_bca(out->estimate, values, kept, jackknife, n_jackknife, level, &out->bias, &out->acceleration);
        gsl_sort(values, 1, (size_t)kept);
        out->percentile = (struct pva_interval){quantile(values, kept, (1 - level) / 2), quantile(values, kept, (1 + level) / 2)};
    }
    free(values);
    return 0;
}

double pva_clustered_mean(const int32_t *times, const void *clustered_sums) {
    const struct pva_clustered_sums *s = clustered_sums;
    double sum = 0, count = 0;
    for (int64_t c = 0; c < s->n_clusters; c++) sum += times[c] * s->sum[c], count += times[c] * s->count[c];
    return count > 0 ? sum / count : NAN;
}

/* --- AUROC of clusters ---------------------------------------------------------------------------------------------------- */

struct pva_clustered_scores {
    int64_t n;
    struct item {
        int32_t cluster;
        unsigned char positive, tie_ends; /* the next item has a higher score */
    } items[];                            /* [n], scores rising */
};

int pva_clustered_scores_create(const double *scores, const unsigned char *labels, const int32_t *clusters, int64_t n,
                                int64_t n_clusters, struct pva_clustered_scores **out, struct pva_error *err) {
    *out = NULL;
    for (int64_t i = 0; i < n; i++)
        if (clusters[i] < 0 || clusters[i] >= n_clusters)
            return pva_fail(err, PVA_INPUT,
                            "clustered scores: item %" PRId64 " is in cluster %" PRId32 ", expected 0 to %" PRId64, i,
                            clusters[i], n_clusters - 1);
    size_t *order = order_array(n, sizeof *order, "clustered scores", err);
    if (!order) return err->code;
    if (!order_rising("clustered scores: score", scores, n, order, err)) {
        size_t bytes;
        struct pva_clustered_scores *s = NULL;
        if (!__builtin_mul_overflow((size_t)n, sizeof *s->items, &bytes) && !__builtin_add_overflow(bytes, sizeof *s, &bytes))
            s = malloc(bytes);
        if (!s) {
            pva_fail(err, PVA_IO, "clustered scores: no memory for %" PRId64 " items", n);
        } else {
            s->n = n;
            for (int64_t i = 0; i < n; i++)
                s->items[i] = (struct item){clusters[order[i]], labels[order[i]] != 0,
                                            i + 1 == n || scores[order[i + 1]] != scores[order[i]]};
            *out = s;
        }
    }
    free(order);
    return err->code;
}

void pva_clustered_scores_free(struct pva_clustered_scores **s) {
    free(*s);
    *s = NULL;
}

/* Whole numbers throughout: below 2^63 as long as items times clusters is below 2^31, each. */
double pva_clustered_auroc(const int32_t *times, const void *clustered_scores) {
    const struct pva_clustered_scores *s = clustered_scores;
    int64_t positives = 0, negatives = 0, tied_positive = 0, tied_negative = 0;
    double u2 = 0;
    for (int64_t i = 0; i < s->n; i++) {
        const struct item *item = &s->items[i];
        if (item->positive) tied_positive += times[item->cluster];
        else tied_negative += times[item->cluster];
        if (!item->tie_ends) continue;
        u2 += (double)tied_positive * (double)(2 * negatives + tied_negative);
        positives += tied_positive, negatives += tied_negative;
        tied_positive = tied_negative = 0;
    }
    return positives > 0 && negatives > 0 ? u2 / (2 * (double)positives * (double)negatives) : NAN;
}
