#include "pva/firing.h"

#include "pva/bits.h"
#include "pva/permute.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Latents with one observed statistic and one K: a row of pva_maxt's groups. */
struct group {
    int32_t first, n; /* among the distinct patterns */
    int32_t active;   /* K */
    int32_t level;
};
_Static_assert(sizeof(struct group) == PVA_MAXT_GROUP * sizeof(int32_t), "rows of a tensor");

enum { SETS, GROUPS, SCORES, LABELS, COUNTS, N_BUFFERS };
enum { PIECE = 8192 }; /* permutations that the device gets at once */

struct pva_firing {
    unsigned char *labels; /* [n_items] 0 or 1 */
    int64_t n_items, n_words, n1;
    enum pva_firing_statistic statistic;
    int64_t n_patterns, n_hypotheses, n_distinct, n_groups, n_levels;
    uint64_t *distinct; /* [n_distinct, n_words] */
    struct group *groups; /* [n_groups], level rising */
    double *scores;     /* [n_levels], rising */
    int32_t *level;     /* [n_patterns]; -1: no hypothesis */

    const struct pva_backend_ops *ops;
    struct pva_backend *be;
    struct pva_buffer *buffers[N_BUFFERS];
    struct pva_maxt maxt; /* distinct, groups and scores on the device */
};

enum { BLOCK = PVA_MAXT_BLOCK };

double pva_firing_score(enum pva_firing_statistic statistic, int64_t active1, int64_t n1, int64_t active, int64_t n) {
    return pva_maxt_statistic(statistic == PVA_FIRING_STUDENTISED, active1 * n - active * n1, active, n);
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
        if (new_group) f->groups[f->n_groups++] = (struct group){(int32_t)f->n_distinct, 0, (int32_t)e->active, (int32_t)(f->n_levels - 1)};
        f->level[e->index] = (int32_t)(f->n_levels - 1);
        const uint64_t *pattern = patterns + e->index * f->n_words;
        fold(f, pattern, pva_bits_count(pattern, f->n_words), folded);
        size_t bytes = (size_t)f->n_words * sizeof *folded;
        if (!new_group && !memcmp(folded, f->distinct + (f->n_distinct - 1) * f->n_words, bytes)) continue;
        memcpy(f->distinct + f->n_distinct++ * f->n_words, folded, bytes);
        f->groups[f->n_groups - 1].n++;
    }
}

/* What does not change between permutations goes to the device once; a CPU reads it where it lies. */
static int place(struct pva_firing *f, struct pva_error *err) {
    const struct {
        const void *host;
        enum pva_dtype type;
        int64_t rows, cols;
        struct pva_tensor *out;
    } t[] = {{f->distinct, PVA_U64, f->n_distinct, f->n_words, &f->maxt.sets},
             {f->groups, PVA_I32, f->n_groups, PVA_MAXT_GROUP, &f->maxt.groups},
             {f->scores, PVA_F64, f->n_levels, 1, &f->maxt.scores}};
    for (int i = 0; i < 3; i++) {
        if (f->ops->bind(f->be, t[i].host, (size_t)(t[i].rows * t[i].cols) * pva_dtype_size(t[i].type), &f->buffers[i], err)) break;
        *t[i].out = (struct pva_tensor){f->buffers[i], 0, t[i].type, t[i].rows, t[i].cols};
    }
    if (err->code || f->ops->alloc(f->be, (size_t)(f->n_words * PIECE) * sizeof(uint64_t), &f->buffers[LABELS], err) ||
        f->ops->alloc(f->be, (size_t)f->n_levels * sizeof(int64_t), &f->buffers[COUNTS], err))
        return pva_error_prefix(err, "max-T");
    f->maxt.n_items = f->n_items, f->maxt.n1 = f->n1, f->maxt.studentised = f->statistic == PVA_FIRING_STUDENTISED;
    return PVA_OK;
}

int pva_firing_create(const unsigned char *labels, int64_t n_items, const uint64_t *patterns, int64_t n_patterns, enum pva_firing_statistic statistic,
                      const struct pva_backend_ops *ops, struct pva_backend *be, struct pva_firing **out, struct pva_error *err) {
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
        f->ops = ops, f->be = be;
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
    if (place(f, err)) pva_firing_free(&f);
    *out = f;
    return err->code;
no_memory:
    free(label_bits), free(folded), free(entries);
    pva_firing_free(&f);
    return pva_fail(err, PVA_IO, "max-T: no memory for %" PRId64 " latents: %zu MB", n_patterns, pva_firing_bytes(n_items, n_patterns) / 1000000);
}

void pva_firing_free(struct pva_firing **f) {
    if (!*f) return;
    for (int i = 0; i < N_BUFFERS; i++) (*f)->ops->free((*f)->be, &(*f)->buffers[i]);
    free((*f)->labels), free((*f)->distinct), free((*f)->groups), free((*f)->scores), free((*f)->level);
    free(*f);
    *f = NULL;
}

int64_t pva_firing_hypotheses(const struct pva_firing *f) { return f->n_hypotheses; }
int64_t pva_firing_distinct(const struct pva_firing *f) { return f->n_distinct; }
int64_t pva_firing_levels(const struct pva_firing *f) { return f->n_levels; }

/* Permuted labels in blocks, words side by side. Columns beyond n stay 0. Without room for its labels a thread does nothing. */
static void fill_labels(const struct pva_firing *f, uint64_t seed, uint32_t stream, int64_t first, int64_t n, unsigned char *permuted, uint64_t *labels) {
#pragma omp for schedule(static)
    for (int64_t b = 0; b < n; b++) {
        if (!permuted) continue;
        uint64_t *column = labels + b / BLOCK * f->n_words * BLOCK + b % BLOCK;
        pva_permute_labels(seed, stream, (uint32_t)(first + b), f->labels, f->n_items, permuted);
        for (int64_t i = 0; i < f->n_items; i++) column[i / 64 * BLOCK] |= (uint64_t)permuted[i] << i % 64;
    }
}

/* labels, counts: room on the host for those of a piece. */
static int count_piece(const struct pva_firing *f, uint64_t seed, uint32_t stream, int64_t first, int64_t n, uint64_t *labels, int64_t *counts,
                       struct pva_error *err) {
    int64_t n_blocks = (n + BLOCK - 1) / BLOCK;
    int failed = 0;
    memset(labels, 0, (size_t)(n_blocks * f->n_words * BLOCK) * sizeof *labels);
#pragma omp parallel reduction(| : failed)
    {
        unsigned char *permuted = malloc((size_t)f->n_items + 1);
        failed |= !permuted;
        fill_labels(f, seed, stream, first, n, permuted, labels);
        free(permuted);
    }
    if (failed) return pva_fail(err, PVA_IO, "max-T: no memory for %" PRId64 " labels", f->n_items);
    struct pva_tensor on_device = {f->buffers[LABELS], 0, PVA_U64, n_blocks * f->n_words, BLOCK}, result = {f->buffers[COUNTS], 0, PVA_I64, f->n_levels, 1};
    if (f->ops->upload(f->be, on_device, labels, err) || f->ops->maxt_count(f->be, &f->maxt, on_device, n, result, err)) return err->code;
    return f->ops->download(f->be, result, counts, err);
}

int pva_firing_count(const struct pva_firing *f, uint64_t seed, uint32_t stream, int64_t first, int64_t n, int64_t *n_at_least, struct pva_error *err) {
    if (first < 0 || n < 0 || first > INT32_MAX || n > INT32_MAX - first)
        return pva_fail(err, PVA_INPUT, "max-T: permutations %" PRId64 " and %" PRId64 " more, expected below 2^31", first, n);
    uint64_t *labels = malloc((size_t)(f->n_words * PIECE + 1) * sizeof *labels);
    int64_t *counts = malloc((size_t)(f->n_levels + 1) * sizeof *counts);
    if (!labels || !counts) pva_fail(err, PVA_IO, "max-T: no memory for %" PRId64 " counts", f->n_levels);
    for (int64_t at = 0; at < n && !err->code; at += PIECE) {
        if (count_piece(f, seed, stream, first + at, n - at < PIECE ? n - at : PIECE, labels, counts, err)) break;
        for (int64_t l = 0; l < f->n_levels; l++) n_at_least[l] += counts[l];
    }
    free(labels), free(counts);
    return err->code;
}

int pva_firing_finish(const struct pva_firing *f, const int64_t *n_at_least, int64_t n_permutations, double *p, struct pva_error *err) {
    double *by_level = malloc(((size_t)f->n_levels + 1) * sizeof *by_level);
    if (!by_level) return pva_fail(err, PVA_IO, "max-T: no memory for %" PRId64 " p values", f->n_levels);
    pva_maxt_finish(n_at_least, f->n_levels, n_permutations, by_level);
    for (int64_t i = 0; i < f->n_patterns; i++) p[i] = f->level[i] < 0 ? 1 : by_level[f->level[i]];
    free(by_level);
    return PVA_OK;
}
