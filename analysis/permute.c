#include "pva/permute.h"

#include "pva/rng.h"

#include "order.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void pva_permute_labels(uint64_t seed, uint32_t stream, uint32_t permutation, const unsigned char *labels, int64_t n,
                        unsigned char *out) {
    memcpy(out, labels, (size_t)n);
    if (permutation == 0) return;
    for (int64_t i = n - 1; i > 0; i--) {
        uint64_t j = pva_rng_below(seed, PVA_RNG_PERMUTATION, permutation, stream, (uint32_t)i, (uint64_t)i + 1);
        unsigned char kept = out[i];
        out[i] = out[j];
        out[j] = kept;
    }
}

void pva_maxt_start(double *running, int64_t n_permutations) {
    for (int64_t b = 0; b < n_permutations; b++) running[b] = -INFINITY;
}

void pva_maxt_add(double *running, int64_t n_permutations, const double *observed, const double *permuted, int64_t n_hypotheses,
                  int64_t *n_at_least) {
    for (int64_t h = 0; h < n_hypotheses; h++) {
        const double *row = permuted + h * n_permutations;
        double limit = isnan(observed[h]) ? -INFINITY : observed[h];
        int64_t count = 0;
        for (int64_t b = 0; b < n_permutations; b++) {
            if (row[b] > running[b]) running[b] = row[b]; /* false for NaN */
            count += running[b] >= limit;
        }
        n_at_least[h] = count;
    }
}

void pva_maxt_finish(const int64_t *n_at_least, int64_t n_hypotheses, int64_t n_permutations, double *p) {
    double least = 0;
    for (int64_t h = n_hypotheses - 1; h >= 0; h--)
        p[h] = least = fmax(least, (double)(1 + n_at_least[h]) / (double)(1 + n_permutations));
}

/* Positions of the hypotheses with the statistic rising and NaN, as -inf, first. */
static size_t *rising(const double *observed, int64_t n, struct pva_error *err) {
    size_t *order = order_array(n, sizeof *order, "max-T", err);
    double *numbers = order_array(n, sizeof *numbers, "max-T", err);
    if (order && numbers) {
        for (int64_t h = 0; h < n; h++) numbers[h] = isnan(observed[h]) ? -INFINITY : observed[h];
        order_rising("max-T: statistic", numbers, n, order, err);
    } else {
        free(order);
        order = NULL;
    }
    free(numbers);
    return order;
}

/* counts in the order of `order` to p in the order of `observed`. */
static void spread(const double *observed, const size_t *order, const int64_t *n_at_least, double *sorted, int64_t n,
                   int64_t n_permutations, double *p) {
    pva_maxt_finish(n_at_least, n, n_permutations, sorted);
    for (int64_t h = 0; h < n; h++) p[order[h]] = isnan(observed[order[h]]) ? NAN : sorted[h];
}

int pva_maxt_matrix(const double *observed, const double *permuted, int64_t n_hypotheses, int64_t n_permutations, double *p,
                    struct pva_error *err) {
    size_t *order = rising(observed, n_hypotheses, err);
    double *running = order_array(n_permutations, sizeof *running, "max-T", err),
           *sorted = order_array(n_hypotheses, sizeof *sorted, "max-T", err);
    int64_t *n_at_least = order_array(n_hypotheses, sizeof *n_at_least, "max-T", err);
    if (order && running && sorted && n_at_least) {
        pva_maxt_start(running, n_permutations);
        for (int64_t h = 0; h < n_hypotheses; h++)
            pva_maxt_add(running, n_permutations, &observed[order[h]], permuted + (int64_t)order[h] * n_permutations, 1,
                         &n_at_least[h]);
        spread(observed, order, n_at_least, sorted, n_hypotheses, n_permutations, p);
    }
    free(order);
    free(running);
    free(sorted);
    free(n_at_least);
    return err->code;
}

int pva_maxt_labels(pva_label_statistics statistics, const void *context, const unsigned char *labels, int64_t n,
                    int64_t n_hypotheses, int64_t n_permutations, uint64_t seed, uint32_t stream, double *observed, double *p,
                    struct pva_error *err) {
    if (n < 0 || n_hypotheses < 0)
        return pva_fail(err, PVA_INPUT, "max-T: %" PRId64 " labels and %" PRId64 " hypotheses; neither can be negative", n,
                        n_hypotheses);
    if (n_permutations < 1 || n_permutations > INT32_MAX)
        return pva_fail(err, PVA_INPUT, "max-T: %" PRId64 " permutations, expected 1 to 2^31 - 1", n_permutations);
    statistics(labels, observed, context);
    size_t *order = rising(observed, n_hypotheses, err);
    int64_t *n_at_least = order_array(n_hypotheses, sizeof *n_at_least, "max-T", err);
    double *sorted = order_array(n_hypotheses, sizeof *sorted, "max-T", err);
    int failed = 0;
    if (!order || !n_at_least || !sorted) goto done;
    memset(n_at_least, 0, (size_t)n_hypotheses * sizeof *n_at_least);
#pragma omp parallel
    {
        unsigned char *permuted = malloc((size_t)n + 1);
        double *values = malloc(((size_t)n_hypotheses + 1) * sizeof *values);
        int64_t *counts = calloc((size_t)n_hypotheses + 1, sizeof *counts);
        int ready = permuted && values && counts;
#pragma omp for schedule(static)
        for (int64_t b = 1; b <= n_permutations; b++) {
            if (!ready) continue;
            pva_permute_labels(seed, stream, (uint32_t)b, labels, n, permuted);
            statistics(permuted, values, context);
            double running = -INFINITY;
            for (int64_t h = 0; h < n_hypotheses; h++) {
                double limit = observed[order[h]];
                if (values[order[h]] > running) running = values[order[h]];
                counts[h] += isnan(limit) || running >= limit;
            }
        }
#pragma omp critical
        {
            failed |= !ready;
            for (int64_t h = 0; ready && h < n_hypotheses; h++)
                n_at_least[h] += counts[h]; /* whole numbers: any order gives the same */
        }
        free(permuted);
        free(values);
        free(counts);
    }
    if (failed) pva_fail(err, PVA_IO, "max-T: no memory for %" PRId64 " statistics per thread", n_hypotheses);
    else spread(observed, order, n_at_least, sorted, n_hypotheses, n_permutations, p);
done:
    free(order);
    free(n_at_least);
    free(sorted);
    return err->code;
}
