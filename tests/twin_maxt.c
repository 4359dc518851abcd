/* The step-down max-T on permuted labels: the CPU's counts, by the launcher and through the backend's table, for shapes that end inside of every tile, groups
 * of one set and groups that reach over several blocks. */
#include "backend_cuda.h"
#include "twin.h"

struct shape {
    int64_t n_items, n_sets, n; /* n: permutations */
    int n_groups;
    size_t shift;
};

struct data {
    struct shape shape;
    int64_t n_words, n_levels, n1;
    uint64_t *sets, *labels;
    int32_t *groups;
    double *scores;
};

static uint32_t state;
static uint32_t below(uint32_t n) {
    state = state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)state * n >> 32);
}

static int bit(const uint64_t *words, int64_t i, int64_t step) { return (int)(words[i / 64 * step] >> i % 64 & 1); }

static void fill_labels(struct data *d) {
    for (int64_t b = 0; b < d->shape.n; b++)
        for (int64_t i = 0; i < d->shape.n_items; i++)
            d->labels[(b / PVA_MAXT_BLOCK * d->n_words + i / 64) * PVA_MAXT_BLOCK + b % PVA_MAXT_BLOCK] |= (uint64_t)(below(5) < 2) << i % 64;
}

/* A set of K items, and the statistic that permutation 0 gives it. */
static double fill_set(const struct data *d, uint64_t *set, int64_t active, int studentised) {
    const int64_t n = d->shape.n_items;
    int64_t both = 0;
    for (int64_t left = active; left;) {
        int64_t i = below((uint32_t)n);
        if (bit(set, i, 1)) continue;
        set[i / 64] |= (uint64_t)1 << i % 64;
        both += d->shape.n > 0 && bit(d->labels, i, PVA_MAXT_BLOCK);
        left--;
    }
    return pva_maxt_statistic(studentised, both * n - active * d->n1, active, n);
}

/* Every third group is large; two of five share their level with the one before. Observed is what permutation 0 gives: equal ones occur, and about half of the
 * others lie above. */
static void fill_groups(struct data *d, int studentised) {
    int64_t at = 0;
    double observed = 0;
    d->n_levels = 0;
    for (int g = 0; g < d->shape.n_groups; g++) {
        int64_t left = d->shape.n_sets - at, others = d->shape.n_groups - 1 - g, count = others == 0 ? left : g % 3 == 1 ? 1 + (left - others) / 2 : 1;
        int32_t *row = d->groups + g * PVA_MAXT_GROUP, active = (int32_t)(1 + below((uint32_t)d->shape.n_items - 1));
        if (g == 0 || below(5) > 1) d->n_levels++;
        row[PVA_MAXT_FIRST] = (int32_t)at, row[PVA_MAXT_SETS] = (int32_t)count, row[PVA_MAXT_ACTIVE] = active, row[PVA_MAXT_LEVEL] = (int32_t)d->n_levels - 1;
        for (int64_t i = 0; i < count; i++) observed = fmax(observed, fill_set(d, d->sets + (at + i) * d->n_words, active, studentised));
        d->scores[d->n_levels - 1] = observed;
        at += count;
    }
}

static void on_cpu(const struct data *d, int studentised, int64_t *want) {
    struct pva_error err = {0};
    const struct shape *s = &d->shape;
    const int64_t blocks = (s->n + PVA_MAXT_BLOCK - 1) / PVA_MAXT_BLOCK;
    const struct pva_maxt m = {twin_cpu(d->sets, PVA_U64, s->n_sets, d->n_words), twin_cpu(d->groups, PVA_I32, s->n_groups, PVA_MAXT_GROUP),
                               twin_cpu(d->scores, PVA_F64, d->n_levels, 1), s->n_items, d->n1, studentised};
    struct pva_tensor labels = twin_cpu(d->labels, PVA_U64, blocks * d->n_words, PVA_MAXT_BLOCK), out = twin_cpu(NULL, PVA_I64, d->n_levels, 1);
    CHECK_OK(pva_backend_cpu.maxt_count(twin_backend, &m, labels, s->n, out, &err), err);
    twin_cpu_read(out, want);
    twin_cpu_clear();
}

static void by_launcher(const struct data *d, int studentised, size_t work_bytes, int64_t *got) {
    const struct shape *s = &d->shape;
    const int64_t blocks = (s->n + PVA_MAXT_BLOCK - 1) / PVA_MAXT_BLOCK;
    twin_shift = s->shift;
    struct twin_buffer sets = twin_new(d->sets, (size_t)(s->n_sets * d->n_words) * 8), labels = twin_new(d->labels, (size_t)(blocks * d->n_words) * PVA_MAXT_BLOCK * 8);
    struct twin_buffer groups = twin_new(d->groups, (size_t)s->n_groups * PVA_MAXT_GROUP * 4), scores = twin_new(d->scores, (size_t)d->n_levels * 8);
    struct twin_buffer out = twin_new(NULL, (size_t)d->n_levels * 8), work = twin_new(NULL, work_bytes);
    const struct pva_cuda_maxt m = {(uint64_t *)sets.p, (int32_t *)groups.p, (double *)scores.p, s->n_sets, d->n_words, s->n_groups, d->n_levels, s->n_items,
                                    d->n1, studentised};
    CHECK_CUDA(pva_cuda_maxt_count(&m, (uint64_t *)labels.p, s->n, (int64_t *)out.p, work.p, work_bytes, NULL));
    twin_read(&out, got);
    struct twin_buffer *all[] = {&sets, &labels, &groups, &scores, &out, &work};
    for (int i = 0; i < 6; i++) twin_read(all[i], NULL), twin_free(all[i]);
}

static void by_table(const struct data *d, int studentised, int64_t *got) {
    struct pva_error err = {0};
    struct pva_backend *be = NULL;
    struct pva_buffer *b[5] = {0};
    const struct pva_backend_ops *op = pva_backend_cuda_find(&err);
    const struct shape *s = &d->shape;
    const int64_t rows = (s->n + PVA_MAXT_BLOCK - 1) / PVA_MAXT_BLOCK * d->n_words;
    CHECK_FATAL(op);
    CHECK_OK(op->open(&(struct pva_backend_settings){0}, &be, &err), err);
    CHECK_OK(op->bind(be, d->sets, (size_t)(s->n_sets * d->n_words) * 8, &b[0], &err), err);
    CHECK_OK(op->bind(be, d->groups, (size_t)s->n_groups * PVA_MAXT_GROUP * 4, &b[1], &err), err);
    CHECK_OK(op->bind(be, d->scores, (size_t)d->n_levels * 8, &b[2], &err), err);
    CHECK_OK(op->bind(be, d->labels, (size_t)rows * PVA_MAXT_BLOCK * 8, &b[3], &err), err);
    CHECK_OK(op->alloc(be, (size_t)d->n_levels * 8, &b[4], &err), err);
    const struct pva_maxt m = {{b[0], 0, PVA_U64, s->n_sets, d->n_words}, {b[1], 0, PVA_I32, s->n_groups, PVA_MAXT_GROUP}, {b[2], 0, PVA_F64, d->n_levels, 1},
                               s->n_items, d->n1, studentised};
    struct pva_tensor out = {b[4], 0, PVA_I64, d->n_levels, 1};
    CHECK_OK(op->maxt_count(be, &m, (struct pva_tensor){b[3], 0, PVA_U64, rows, PVA_MAXT_BLOCK}, s->n, out, &err), err);
    CHECK_OK(op->download(be, out, got, &err), err);
    for (int i = 0; i < 5; i++) op->free(be, &b[i]);
    op->close(&be);
}

static void check(const struct shape *s, int studentised) {
    struct data d = {.shape = *s, .n_words = (s->n_items + 63) / 64, .n1 = s->n_items * 2 / 5};
    state = (uint32_t)(s->n_items + s->n_sets);
    d.sets = calloc((size_t)(s->n_sets * d.n_words) + 1, 8);
    d.labels = calloc((size_t)((s->n + PVA_MAXT_BLOCK - 1) / PVA_MAXT_BLOCK * d.n_words) * PVA_MAXT_BLOCK + 1, 8);
    d.groups = calloc((size_t)s->n_groups + 1, PVA_MAXT_GROUP * 4);
    d.scores = calloc((size_t)s->n_groups + 1, 8);
    CHECK_FATAL(d.sets && d.labels && d.groups && d.scores);
    fill_labels(&d);
    fill_groups(&d, studentised);
    TWIN_ARRAY(int64_t, want, d.n_levels);
    TWIN_ARRAY(int64_t, got, d.n_levels);
    on_cpu(&d, studentised, want);
    for (int o = 0; twin_order(o); o++) { /* with room for one block of permutations at a time */
        by_launcher(&d, studentised, (size_t)s->n_groups * 1024 + 100, got);
        CHECK(!memcmp(got, want, (size_t)d.n_levels * 8));
    }
    by_launcher(&d, studentised, pva_cuda_maxt_bytes(s->n_groups, s->n), got);
    CHECK(!memcmp(got, want, (size_t)d.n_levels * 8));
    memset(got, 0, (size_t)d.n_levels * 8);
    by_table(&d, studentised, got);
    CHECK(!memcmp(got, want, (size_t)d.n_levels * 8));
    int inside = 0; /* there was something to compare */
    for (int64_t l = 0; l < d.n_levels; l++) inside += want[l] > 0 && want[l] < s->n;
    CHECK(s->n < 100 || s->n_items < 10 || inside > 0);
    free(d.sets), free(d.labels), free(d.groups), free(d.scores), free(want), free(got);
}

int main(void) {
    static const struct shape shapes[] = {
        {2, 1, 1, 1, 0}, {64, 13, 128, 5, 0}, {65, 600, 129, 7, 8}, {489, 300, 257, 40, 0}, {100, 31, 50, 31, 0}, {50, 0, 10, 0, 0}, {30, 9, 0, 3, 0},
    };
    twin_start();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int studentised = 0; studentised < 2; studentised++) check(&shapes[i], studentised);
    CHECK(pva_cuda_maxt_bytes(3, 257) == 3 * 384 * 8);
    CHECK(pva_cuda_maxt_bytes(1 << 15, 100000) == 256 << 20);
    CHECK(pva_cuda_maxt_bytes(1 << 19, 100000) == (size_t)1 << 29);
    return check_report("twin_maxt");
}
