/* Family-wise p values of firing latents: equal to the generic step-down max-T digit by digit; the family-wise error is what it claims under the null; planted
 * latents, rare ones too, are found and nothing else. */
#include "check.h"

#include "pva/bits.h"
#include "pva/firing.h"
#include "pva/permute.h"
#include "pva/rates.h"
#include "pva/rng.h"

#include <omp.h>

static struct pva_error err;

struct data {
    int64_t n_items, n_patterns, n_words;
    unsigned char *labels;
    uint64_t *patterns;
    enum pva_firing_statistic statistic;
};

static double draw(uint32_t seed, uint32_t a, uint32_t b) { return pva_rng_uniform(seed, PVA_RNG_CONTROL, a, 0, b); }

static struct data make(int64_t n_items, int64_t n_patterns) {
    struct data d = {n_items, n_patterns, pva_bits_words(n_items), calloc((size_t)n_items + 1, 1), NULL, PVA_FIRING_STUDENTISED};
    d.patterns = calloc((size_t)(n_patterns * d.n_words) + 1, sizeof *d.patterns);
    CHECK_FATAL(d.labels && d.patterns);
    return d;
}
static void drop(struct data *d) { free(d->labels), free(d->patterns); }
static void fire(struct data *d, int64_t pattern, int64_t item) { d->patterns[pattern * d->n_words + item / 64] |= (uint64_t)1 << item % 64; }

/* Rates from rare to always; in families that share their draws and so are correlated; none of it depends on the labels. */
static void fill_null(struct data *d, uint32_t seed, double pass_rate) {
    for (int64_t i = 0; i < d->n_items; i++) d->labels[i] = draw(seed, 1u << 30, (uint32_t)i) < pass_rate;
    for (int64_t h = 0; h < d->n_patterns; h++) {
        double rate = pow(draw(seed, 1u << 29, (uint32_t)h), 3);
        for (int64_t i = 0; i < d->n_items; i++)
            if (draw(seed, (uint32_t)(h / 4), (uint32_t)i) * 0.7 + draw(seed, 1u << 20 | (uint32_t)h, (uint32_t)i) * 0.3 < rate) fire(d, h, i);
    }
}

static void p_values(const struct data *d, int64_t n_permutations, int n_parts, double *p) {
    struct pva_firing *f = NULL;
    struct pva_backend *be = NULL;
    CHECK_OK(pva_backend_cpu.open(&(struct pva_backend_settings){0}, &be, &err), err);
    CHECK_OK(pva_firing_create(d->labels, d->n_items, d->patterns, d->n_patterns, d->statistic, &pva_backend_cpu, be, &f, &err), err);
    CHECK_FATAL(f != NULL);
    int64_t *counts = calloc((size_t)pva_firing_levels(f) + 1, sizeof *counts);
    for (int k = 0; k < n_parts; k++) { /* as ranks share them out */
        int64_t first = 1 + n_permutations * k / n_parts, end = 1 + n_permutations * (k + 1) / n_parts;
        CHECK_OK(pva_firing_count(f, 11, 3, first, end - first, counts, &err), err);
    }
    CHECK_OK(pva_firing_finish(f, counts, n_permutations, p, &err), err);
    CHECK(pva_firing_distinct(f) <= pva_firing_hypotheses(f) && pva_firing_levels(f) <= pva_firing_hypotheses(f));
    free(counts);
    pva_firing_free(&f);
    CHECK(f == NULL);
    pva_backend_cpu.close(&be);
}

static void statistics(const unsigned char *labels, double *out, const void *context) {
    const struct data *d = context;
    int64_t n1 = 0;
    for (int64_t i = 0; i < d->n_items; i++) n1 += labels[i];
    for (int64_t h = 0; h < d->n_patterns; h++) {
        int64_t active = 0, active1 = 0;
        for (int64_t i = 0; i < d->n_items; i++) {
            int fires = (int)(d->patterns[h * d->n_words + i / 64] >> i % 64 & 1);
            active += fires, active1 += fires && labels[i];
        }
        out[h] = pva_firing_score(d->statistic, active1, n1, active, d->n_items);
    }
}

static void test_equals_generic(void) {
    static const struct { int64_t n_items, n_patterns, n_permutations; } sizes[] = {{50, 200, 300}, {64, 60, 129}, {129, 150, 128}, {3, 8, 20}, {489, 40, 100}};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        for (int statistic = 0; statistic < 2; statistic++) {
            struct data d = make(sizes[k].n_items, sizes[k].n_patterns);
            d.statistic = (enum pva_firing_statistic)statistic;
            fill_null(&d, (uint32_t)(k + 5), 0.3);
            for (int64_t i = 0; i < d.n_items; i++) {
                if (d.labels[i] || i % 9 == 0) fire(&d, 0, i); /* something to find */
                fire(&d, 2, i);                                /* always */
            }
            d.labels[0] = 1;
            memset(d.patterns + d.n_words, 0, (size_t)d.n_words * 8);                             /* never */
            memcpy(d.patterns + 4 * d.n_words, d.patterns + 3 * d.n_words, (size_t)d.n_words * 8); /* twice */
            size_t n = (size_t)d.n_patterns;
            double *observed = malloc(n * sizeof *observed), *expected = malloc(n * sizeof *expected), *p = malloc(n * sizeof *p);
            CHECK_OK(pva_maxt_labels(statistics, &d, d.labels, d.n_items, d.n_patterns, sizes[k].n_permutations, 11, 3, observed, expected, &err), err);
            for (int way = 0; way < 4; way++) {
                static const char *const isa[] = {"c", "avx2", "avx512", NULL};
                struct pva_error absent = {0};
                if (pva_bits_choose(isa[way], &absent)) continue;
                omp_set_num_threads(way + 1);
                p_values(&d, sizes[k].n_permutations, way + 1, p);
                CHECK(memcmp(p, expected, n * sizeof *p) == 0);
            }
            CHECK_NEAR(p[1], 1, 0);
            CHECK_NEAR(p[2], 1, 0);
            CHECK(p[3] == p[4]);
            free(observed), free(expected), free(p);
            drop(&d);
        }
}

static void test_edges(void) {
    double p[4];
    struct data d = make(10, 4);
    fill_null(&d, 1, 0.5);
    memset(d.labels, 0, 10); /* one class: nothing can be said */
    p_values(&d, 50, 1, p);
    for (int i = 0; i < 4; i++) CHECK_NEAR(p[i], 1, 0);
    d.n_patterns = 0;
    p_values(&d, 50, 1, p);
    d.n_patterns = 4, d.n_items = 0, d.n_words = 0;
    p_values(&d, 50, 1, p);
    CHECK_NEAR(p[0], 1, 0);
    struct pva_firing *f = NULL;
    CHECK_INT(pva_firing_create(d.labels, PVA_FIRING_ITEMS + 1, d.patterns, 1, 0, &pva_backend_cpu, NULL, &f, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "16385 items");
    err.code = 0;
    drop(&d);
}

/* Fraction of null data sets in which anything has p <= 0.05: with 199 permutations, at most 10 / 200, and less only by ties. */
static void test_null(enum pva_firing_statistic statistic, double pass_rate) {
    enum { SETS = 500, PERMUTATIONS = 199, LATENTS = 160 };
    int64_t n_false = 0;
    double p[LATENTS];
    for (uint32_t s = 0; s < SETS; s++) {
        struct data d = make(60, LATENTS);
        d.statistic = statistic;
        fill_null(&d, 1000 + s, pass_rate);
        p_values(&d, PERMUTATIONS, 1, p);
        double least = 1;
        for (int h = 0; h < LATENTS; h++) least = fmin(least, p[h]);
        n_false += least <= 0.05;
        drop(&d);
    }
    struct pva_interval limits = pva_rate_clopper_pearson(n_false, SETS, 0.998);
    printf("null data, statistic %d, pass rate %.1f: %lld of %d with a false finding at 0.05 (%.3f)\n", statistic, pass_rate, (long long)n_false, SETS,
           (double)n_false / SETS);
    CHECK(limits.low <= 0.05);               /* not more than it claims */
    CHECK((double)n_false / SETS >= 0.01); /* and it is a test, not a constant */
}

/* Planted in 2,000 latents over 120 items, 40 % of class 1: three that fire on nearly all of class 1, one in reverse, and rare ones that
 * fire on 14 items of class 1 and none of the other (Fisher's p 1e-6). */
static void test_planted(void) {
    enum { LATENTS = 2000, ITEMS = 120, PLANTED = 6, ONES = 48 };
    static const int64_t place[PLANTED] = {7, 300, 301, 999, 1500, 1999};
    double p[2][LATENTS];
    struct data d = make(ITEMS, LATENTS);
    fill_null(&d, 77, 0.4);
    memset(d.labels, 0, ITEMS);
    for (int i = 0, n = 0; n < ONES; i += 7, n++) d.labels[i % ITEMS] = 1; /* 7 and 120 have no common factor */
    for (int k = 0; k < PLANTED; k++) {
        memset(d.patterns + place[k] * d.n_words, 0, (size_t)d.n_words * 8);
        int rare = 0;
        for (int i = 0; i < ITEMS; i++) {
            double u = draw(5, (uint32_t)k, (uint32_t)i);
            int fires = k < 3 ? (d.labels[i] ? u < 0.85 : u < 0.15) : k == 3 ? (d.labels[i] ? u < 0.1 : u < 0.8) : d.labels[i] && i % 2 == k % 2 && rare++ < 14;
            if (fires) fire(&d, place[k], i);
        }
    }
    for (int statistic = 0; statistic < 2; statistic++) {
        d.statistic = (enum pva_firing_statistic)statistic;
        p_values(&d, 999, 1, p[statistic]);
        int found = 0, hits = 0;
        for (int h = 0; h < LATENTS; h++) {
            if (p[statistic][h] >= 0.05) continue;
            found++;
            for (int k = 0; k < PLANTED; k++) hits += place[k] == h;
        }
        printf("planted, statistic %d: %d found, %d of them planted\n", statistic, found, hits);
        CHECK_INT(found - hits, 0);
        CHECK_INT(hits, statistic == PVA_FIRING_STUDENTISED ? PLANTED : PLANTED - 2); /* the rare ones need the studentised statistic */
    }
    drop(&d);
}

int main(void) {
    test_equals_generic();
    test_edges();
    test_planted();
    omp_set_num_threads(2);
    test_null(PVA_FIRING_STUDENTISED, 0.5);
    test_null(PVA_FIRING_STUDENTISED, 0.2);
    test_null(PVA_FIRING_SEPARATION, 0.3);
    return check_report("firing");
}
