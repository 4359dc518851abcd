#include "pva/firing.h"

#include "pva/bits.h"
#include "pva/permute.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Latents with one observed statistic and one K. */
struct group {
    int64_t first, n; /* among the distinct patterns */
    int64_t active;   /* K */
    int64_t level;
};

struct pva_firing {
    unsigned char *labels; /* [n_items] 0 or 1 */
    int64_t n_items, n_words, n1;
    enum pva_firing_statistic statistic;
    int64_t n_patterns, n_hypotheses, n_distinct, n_groups, n_levels;
    uint64_t *distinct; /* [n_distinct, n_words] */
    struct group *groups; /* [n_groups], level rising */
    double *scores;     /* [n_levels], rising */
    int32_t *level;     /* [n_patterns]; -1: no hypothesis */
};

enum { BLOCK = 4 * PVA_BITS_COLUMNS }; /* permutations at once: their labels fit into the first-level cache */

static double score_of(enum pva_firing_statistic statistic, int64_t m, int64_t active, int64_t n) {
    if (statistic == PVA_FIRING_SEPARATION) return (double)(m < 0 ? -m : m);
    int64_t spread = active * (n - active);
    return spread > 0 ? (double)(m * m) / (double)spread : 0;
}

double pva_firing_score(enum pva_firing_statistic statistic, int64_t active1, int64_t n1, int64_t active, int64_t n) {
    return score_of(statistic, active1 * n - active * n1, active, n);
}

struct entry {
    double score;
    uint64_t hash;
    int64_t active, index;
};

static int by_score(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? -1 : 1;
    if (x->active != y->active) return x->active < y->active ? -1 : 1;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* The rarer one of a set and its complement, whose statistics are the same. */
static void fold(const struct pva_firing *f, const uint64_t *pattern, int64_t active, uint64_t *out) {
    uint64_t flip = 2 * active > f->n_items || (2 * active == f->n_items && (pattern[0] & 1)) ? ~(uint64_t)0 : 0;
    for (int64_t w = 0; w < f->n_words; w++) out[w] = pattern[w] ^ flip;
    if (flip && f->n_items % 64) out[f->n_words - 1] &= ((uint64_t)1 << f->n_items % 64) - 1;
}

static uint64_t hash_of(const uint64_t *words, int64_t n) {
    uint64_t h = 0x9e3779b97f4a7c15u;
    for (int64_t w = 0; w < n; w++) {
        h = (h ^ words[w]) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h;
}

size_t pva_firing_bytes(int64_t n_items, int64_t n_patterns) {
    return (size_t)n_patterns * (sizeof(struct entry) + sizeof(int32_t) + sizeof(struct group) + sizeof(double) + 8 * (size_t)pva_bits_words(n_items));
}

static struct entry *make_entries(struct pva_firing *f, const uint64_t *patterns, const uint64_t *labels, uint64_t *folded) {
    struct entry *entries = malloc(((size_t)f->n_patterns + 1) * sizeof *entries);
    if (!entries) return NULL;
    for (int64_t i = 0; i < f->n_patterns; i++) {
        const uint64_t *pattern = patterns + i * f->n_words;
        int64_t active = pva_bits_count(pattern, f->n_words);
        f->level[i] = -1;
        if (active == 0 || active == f->n_items) continue;
        fold(f, pattern, active, folded);
        active = pva_bits_count(folded, f->n_words);
        int64_t active1 = pva_bits_count_and(folded, labels, f->n_words);
        entries[f->n_hypotheses++] = (struct entry){pva_firing_score(f->statistic, active1, f->n1, active, f->n_items), hash_of(folded, f->n_words), active, i};
    }
    qsort(entries, (size_t)f->n_hypotheses, sizeof *entries, by_score);
    return entries;
}

/* Sorted entries to levels, groups and the distinct patterns. Equal patterns have equal hashes and so lie side by side; different ones with the same hash
 * between them are merely counted twice. */
static void make_groups(struct pva_firing *f, const uint64_t *patterns, const struct entry *entries, uint64_t *folded) {
    for (int64_t i = 0; i < f->n_hypotheses; i++) {
        const struct entry *e = &entries[i];
        int new_level = i == 0 || e->score != e[-1].score, new_group = new_level || e->active != e[-1].active;
        if (new_level) f->scores[f->n_levels++] = e->score;
        if (new_group) f->groups[f->n_groups++] = (struct group){f->n_distinct, 0, e->active, f->n_levels - 1};
        f->level[e->index] = (int32_t)(f->n_levels - 1);
        const uint64_t *pattern = patterns + e->index * f->n_words;
        fold(f, pattern, pva_bits_count(pattern, f->n_words), folded);
        size_t bytes = (size_t)f->n_words * sizeof *folded;
        if (!new_group && !memcmp(folded, f->distinct + (f->n_distinct - 1) * f->n_words, bytes)) continue;
        memcpy(f->distinct + f->n_distinct++ * f->n_words, folded, bytes);
        f->groups[f->n_groups - 1].n++;
    }
}

int pva_firing_create(const unsigned char *labels, int64_t n_items, const uint64_t *patterns, int64_t n_patterns, enum pva_firing_statistic statistic,
                      struct pva_firing **out, struct pva_error *err) {
    *out = NULL;
    if (n_items < 0 || n_items > PVA_FIRING_ITEMS || n_patterns < 0 || n_patterns > INT32_MAX)
        return pva_fail(err, PVA_INPUT, "max-T: %" PRId64 " items and %" PRId64 " latents, expected at most %d and 2^31 - 1", n_items, n_patterns, PVA_FIRING_ITEMS);
    struct pva_firing *f = calloc(1, sizeof *f);
    int64_t n_words = pva_bits_words(n_items);
    size_t n = (size_t)n_patterns + 1, row = (size_t)n_words * sizeof(uint64_t) + 8;
    uint64_t *label_bits = calloc(1, row), *folded = calloc(1, row);
    struct entry *entries = NULL;
    if (f) {
        f->n_items = n_items, f->n_words = n_words, f->n_patterns = n_patterns, f->statistic = statistic;
        f->labels = calloc((size_t)n_items + 1, 1);
        f->level = malloc(n * sizeof *f->level);
    }
    if (!f || !label_bits || !folded || !f->labels || !f->level) goto no_memory;
    for (int64_t i = 0; i < n_items; i++) {
        f->labels[i] = labels[i] != 0;
        f->n1 += f->labels[i];
        label_bits[i / 64] |= (uint64_t)f->labels[i] << i % 64;
    }
    entries = make_entries(f, patterns, label_bits, folded);
    if (!entries) goto no_memory;
    size_t m = (size_t)f->n_hypotheses + 1;
    f->distinct = malloc(m * row);
    f->groups = malloc(m * sizeof *f->groups);
    f->scores = malloc(m * sizeof *f->scores);
    if (!f->distinct || !f->groups || !f->scores) goto no_memory;
    make_groups(f, patterns, entries, folded);
    free(label_bits), free(folded), free(entries);
    *out = f;
    return PVA_OK;
no_memory:
    free(label_bits), free(folded), free(entries);
    pva_firing_free(&f);
    return pva_fail(err, PVA_IO, "max-T: no memory for %" PRId64 " latents: %zu MB", n_patterns, pva_firing_bytes(n_items, n_patterns) / 1000000);
}

void pva_firing_free(struct pva_firing **f) {
    if (!*f) return;
    free((*f)->labels), free((*f)->distinct), free((*f)->groups), free((*f)->scores), free((*f)->level);
    free(*f);
    *f = NULL;
}

int64_t pva_firing_hypotheses(const struct pva_firing *f) { return f->n_hypotheses; }
int64_t pva_firing_distinct(const struct pva_firing *f) { return f->n_distinct; }
int64_t pva_firing_levels(const struct pva_firing *f) { return f->n_levels; }

/* Permuted labels of one block, words side by side. Columns beyond n repeat nothing: they stay 0 and are not counted. */
static void fill_columns(const struct pva_firing *f, uint64_t seed, uint32_t stream, int64_t first, int64_t n, unsigned char *permuted, uint64_t *columns) {
    memset(columns, 0, (size_t)f->n_words * BLOCK * sizeof *columns);
    for (int64_t b = 0; b < n; b++) {
        pva_permute_labels(seed, stream, (uint32_t)(first + b), f->labels, f->n_items, permuted);
        for (int64_t i = 0; i < f->n_items; i++) columns[i / 64 * BLOCK + b] |= (uint64_t)permuted[i] << i % 64;
    }
}

static void raise_running(const struct pva_firing *f, const struct group *g, const int64_t *high, const int64_t *low, double *running) {
    int64_t expected = g->active * f->n1;
    for (int b = 0; b < BLOCK; b++) {
        int64_t up = high[b] * f->n_items - expected, down = expected - low[b] * f->n_items;
        double s = score_of(f->statistic, up > down ? up : down, g->active, f->n_items);
        if (s > running[b]) running[b] = s;
    }
}

static void count_block(const struct pva_firing *f, const uint64_t *columns, int64_t n, int64_t *n_at_least) {
    double running[BLOCK];
    int64_t high[BLOCK], low[BLOCK];
    for (int b = 0; b < BLOCK; b++) running[b] = -INFINITY;
    for (int64_t i = 0; i < f->n_groups; i++) {
        const struct group *g = &f->groups[i];
        for (int b = 0; b < BLOCK; b++) high[b] = 0, low[b] = INT32_MAX;
        pva_bits_extremes(f->distinct + g->first * f->n_words, g->n, f->n_words, columns, BLOCK, high, low);
        raise_running(f, g, high, low, running);
        if (i + 1 < f->n_groups && f->groups[i + 1].level == g->level) continue;
        int64_t count = 0;
        for (int64_t b = 0; b < n; b++) count += running[b] >= f->scores[g->level];
        n_at_least[g->level] += count;
    }
}

int pva_firing_count(const struct pva_firing *f, uint64_t seed, uint32_t stream, int64_t first, int64_t n, int64_t *n_at_least, struct pva_error *err) {
    if (first < 0 || n < 0 || first > INT32_MAX || n > INT32_MAX - first)
        return pva_fail(err, PVA_INPUT, "max-T: permutations %" PRId64 " and %" PRId64 " more, expected below 2^31", first, n);
    int failed = 0;
#pragma omp parallel
    {
        unsigned char *permuted = malloc((size_t)f->n_items + 1);
        uint64_t *columns = aligned_alloc(64, ((size_t)f->n_words + 1) * BLOCK * sizeof *columns);
        int64_t *counts = calloc((size_t)f->n_levels + 1, sizeof *counts);
        int ready = permuted && columns && counts;
#pragma omp for schedule(dynamic)
        for (int64_t at = 0; at < n; at += BLOCK) {
            if (!ready) continue;
            int64_t size = n - at < BLOCK ? n - at : BLOCK;
            fill_columns(f, seed, stream, first + at, size, permuted, columns);
            count_block(f, columns, size, counts);
        }
#pragma omp critical
        {
            failed |= !ready;
            for (int64_t l = 0; ready && l < f->n_levels; l++) n_at_least[l] += counts[l];
        }
        free(permuted), free(columns), free(counts);
    }
    return failed ? pva_fail(err, PVA_IO, "max-T: no memory for %" PRId64 " counts per thread", f->n_levels) : PVA_OK;
}

int pva_firing_finish(const struct pva_firing *f, const int64_t *n_at_least, int64_t n_permutations, double *p, struct pva_error *err) {
    double *by_level = malloc(((size_t)f->n_levels + 1) * sizeof *by_level);
    if (!by_level) return pva_fail(err, PVA_IO, "max-T: no memory for %" PRId64 " p values", f->n_levels);
    pva_maxt_finish(n_at_least, f->n_levels, n_permutations, by_level);
    for (int64_t i = 0; i < f->n_patterns; i++) p[i] = f->level[i] < 0 ? 1 : by_level[f->level[i]];
    free(by_level);
    return PVA_OK;
}
