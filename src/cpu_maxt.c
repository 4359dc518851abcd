#include "cpu_maxt.h"

#include "pva/bits.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = PVA_MAXT_BLOCK }; /* their labels fit into the first-level cache */
_Static_assert(BLOCK % PVA_BITS_COLUMNS == 0, "pva_bits_extremes takes whole vectors");

static void raise_running(const struct cpu_maxt_args *a, int64_t active, const int64_t *high, const int64_t *low, double *running) {
    int64_t expected = active * a->n1;
    for (int b = 0; b < BLOCK; b++) {
        int64_t up = high[b] * a->n_items - expected, down = expected - low[b] * a->n_items;
        double s = pva_maxt_statistic(a->studentised, up > down ? up : down, active, a->n_items);
        if (s > running[b]) running[b] = s;
    }
}

static void count_block(const struct cpu_maxt_args *a, const uint64_t *labels, int64_t n, int64_t *n_at_least) {
    double running[BLOCK];
    int64_t high[BLOCK], low[BLOCK];
    for (int b = 0; b < BLOCK; b++) running[b] = -INFINITY;
    for (int64_t i = 0; i < a->n_groups; i++) {
        const int32_t *g = a->groups + i * PVA_MAXT_GROUP;
        for (int b = 0; b < BLOCK; b++) high[b] = 0, low[b] = INT32_MAX;
        pva_bits_extremes(a->sets + g[PVA_MAXT_FIRST] * a->n_words, g[PVA_MAXT_SETS], a->n_words, labels, BLOCK, high, low);
        raise_running(a, g[PVA_MAXT_ACTIVE], high, low, running);
        int32_t level = g[PVA_MAXT_LEVEL];
        if (i + 1 < a->n_groups && g[PVA_MAXT_GROUP + PVA_MAXT_LEVEL] == level) continue;
        int64_t count = 0;
        for (int64_t b = 0; b < n; b++) count += running[b] >= a->scores[level];
        n_at_least[level] += count;
    }
}

int cpu_maxt_count(const struct cpu_maxt_args *a, struct pva_error *err) {
    int failed = 0;
    memset(a->n_at_least, 0, (size_t)a->n_levels * sizeof *a->n_at_least);
#pragma omp parallel num_threads(a->n_threads)
    {
        int64_t *counts = calloc((size_t)a->n_levels + 1, sizeof *counts);
#pragma omp for schedule(dynamic)
        for (int64_t at = 0; at < a->n; at += BLOCK)
            if (counts) count_block(a, a->labels + at * a->n_words, a->n - at < BLOCK ? a->n - at : BLOCK, counts);
#pragma omp critical
        {
            failed |= !counts;
            for (int64_t l = 0; counts && l < a->n_levels; l++) a->n_at_least[l] += counts[l];
        }
        free(counts);
    }
    return failed ? pva_fail(err, PVA_IO, "max-T: no memory for %" PRId64 " counts per thread", a->n_levels) : PVA_OK;
}
