/* bench maxt: how long family-wise p values over a whole search space take, beside the generic step-down max-T on the same latents and the rate at which
 * this processor can count. */
#include "bench.h"

#include "pva/bits.h"
#include "pva/firing.h"
#include "pva/permute.h"
#include "pva/rng.h"

#include "engine.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct space {
    int64_t n_items, n_latents, n_words;
    unsigned char *labels;
    uint64_t *patterns;
};

/* Firing rates as autoencoders have them: most latents rare, a few on half of the items; a tenth never fires. */
static void fill_space(struct space *s) {
    for (int64_t i = 0; i < s->n_items; i++) s->labels[i] = pva_rng_uniform(1, PVA_RNG_CONTROL, (uint32_t)i, 1, 0) < 0.4;
#pragma omp parallel for schedule(dynamic, 256)
    for (int64_t h = 0; h < s->n_latents; h++) {
        double u = pva_rng_uniform(2, PVA_RNG_CONTROL, (uint32_t)h, 2, 0), rate = u < 0.1 ? 0 : pow(10, -3.2 + 3.1 * (u - 0.1) / 0.9);
        uint32_t r[4], limit = (uint32_t)(rate * 4294967295.0);
        for (int64_t i = 0; i < s->n_items; i++) {
            if (i % 4 == 0) pva_rng_block(3, PVA_RNG_CONTROL, (uint32_t)h, 3, (uint32_t)(i / 4), r);
            s->patterns[h * s->n_words + i / 64] |= (uint64_t)(r[i % 4] < limit) << i % 64;
        }
    }
}

static void count_statistics(const unsigned char *labels, double *out, const void *context) {
    const struct space *s = context;
    uint64_t bits[PVA_FIRING_ITEMS / 64] = {0};
    int64_t n1 = 0;
    for (int64_t i = 0; i < s->n_items; i++) bits[i / 64] |= (uint64_t)labels[i] << i % 64, n1 += labels[i];
    for (int64_t h = 0; h < s->n_latents; h++) {
        const uint64_t *pattern = s->patterns + h * s->n_words;
        out[h] = pva_firing_score(PVA_FIRING_STUDENTISED, pva_bits_count_and(pattern, bits, s->n_words), n1, pva_bits_count(pattern, s->n_words), s->n_items);
    }
}

/* Pairs (latent, permutation) a second. */
static int generic_rate(const struct space *s, double *rate, struct pva_error *err) {
    enum { PERMUTATIONS = 64 };
    struct space part = *s;
    if (part.n_latents > 20000) part.n_latents = 20000;
    double *observed = malloc((size_t)(part.n_latents + 1) * sizeof *observed), *p = malloc((size_t)(part.n_latents + 1) * sizeof *p), start = engine_now();
    if (!observed || !p) pva_fail(err, PVA_IO, "out of memory");
    else pva_maxt_labels(count_statistics, &part, part.labels, part.n_items, part.n_latents, PERMUTATIONS, 1, 1, observed, p, err);
    *rate = (double)part.n_latents * PERMUTATIONS / (engine_now() - start);
    free(observed), free(p);
    return err->code;
}

/* The same for the inner loop alone, everything in the first-level cache. */
static double kernel_rate(const struct space *s) {
    enum { ROWS = 32, COLUMNS = 4 * PVA_BITS_COLUMNS, REPEATS = 30000 };
    double start = engine_now(), seconds;
    int64_t rows = s->n_latents < ROWS ? s->n_latents : ROWS;
#pragma omp parallel
    {
        uint64_t *columns = calloc((size_t)(s->n_words * COLUMNS), sizeof *columns);
        int64_t high[COLUMNS] = {0}, low[COLUMNS] = {0};
        for (int r = 0; columns && r < REPEATS; r++) pva_bits_extremes(s->patterns, rows, s->n_words, columns, COLUMNS, high, low);
        free(columns);
    }
    seconds = engine_now() - start;
    return (double)rows * COLUMNS * REPEATS * omp_get_max_threads() / seconds;
}

static int measure(const struct space *s, int64_t n_permutations, const struct engine *e, struct pva_error *err) {
    struct pva_firing *f = NULL;
    double start = engine_now(), made, counted, generic;
    if (generic_rate(s, &generic, err)) return err->code;
    start = engine_now();
    if (pva_firing_create(s->labels, s->n_items, s->patterns, s->n_latents, PVA_FIRING_STUDENTISED, e->ops, e->be, &f, err)) return err->code;
    made = engine_now() - start;
    int64_t *counts = calloc((size_t)pva_firing_levels(f) + 1, sizeof *counts);
    double *p = malloc((size_t)(s->n_latents + 1) * sizeof *p);
    if (!counts || !p) pva_fail(err, PVA_IO, "out of memory");
    else if (!pva_firing_count(f, 1, 1, 1, n_permutations, counts, err)) pva_firing_finish(f, counts, n_permutations, p, err);
    counted = engine_now() - start - made;
    double pairs = (double)s->n_latents * (double)n_permutations, distinct = (double)pva_firing_distinct(f) * (double)n_permutations, peak = kernel_rate(s);
    if (!err->code) {
        struct pva_backend_info info;
        e->ops->describe(e->be, &info);
        printf("%s\n", info.device);
        printf("max-T, %lld latents x %lld items x %lld permutations, %d threads, %s\n", (long long)s->n_latents, (long long)s->n_items, (long long)n_permutations,
               omp_get_max_threads(), pva_bits_isa());
        printf("%lld latents fire, %lld differ, %lld values of the statistic; ordering %.2f s, permutations %.2f s, %.0f MB\n", (long long)pva_firing_hypotheses(f),
               (long long)pva_firing_distinct(f), (long long)pva_firing_levels(f), made, counted, (double)pva_firing_bytes(s->n_items, s->n_latents) / 1e6);
        printf("%.3g pairs/s; %.3g of different latents; the processor's counting alone, in cache: %.3g: %.1f %% of it\n", pairs / counted, distinct / counted, peak,
               100 * distinct / counted / peak);
        printf("the generic max-T (permute.h): %.3g pairs/s, %.0f s for all: %.0f times as long\n", generic, pairs / generic, pairs / generic / (made + counted));
    }
    free(counts), free(p);
    pva_firing_free(&f);
    return err->code;
}

int bench_maxt(const struct pva_options *o, struct pva_error *err) {
    struct space s = {.n_items = pva_options_int(o, "items"), .n_latents = pva_options_int(o, "latents")};
    struct engine e = {0};
    if (pva_options_int(o, "threads")) omp_set_num_threads((int)pva_options_int(o, "threads"));
    if (engine_open_backend(o, &e, err)) return err->code;
    s.n_words = pva_bits_words(s.n_items);
    s.labels = calloc((size_t)s.n_items + 1, 1);
    s.patterns = calloc((size_t)(s.n_latents * s.n_words) + 1, sizeof *s.patterns);
    if (!s.labels || !s.patterns) pva_fail(err, PVA_IO, "out of memory");
    else if (strcmp(e.ops->name, "cpu") || !pva_bits_choose(pva_options_text(o, "isa"), err)) { /* on a GPU --isa is not of the processor */
        fill_space(&s);
        measure(&s, pva_options_int(o, "permutations"), &e, err);
    }
    free(s.labels), free(s.patterns);
    engine_close(&e);
    return err->code;
}
