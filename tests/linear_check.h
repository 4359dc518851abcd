/* linear_check.h - what every kernel of cpu_linear.h must stand, shared by the tests of the real and of the emulated ones.
 *
 * The oracle sums in float64, exact for products of two float32. The limit is per output and derived: a sum whose terms each pass
 * through at most d rounded operations is within d u / (1 - d u) of sum |x w|, u = 2^-24, and
 *   FMA family:  d = ceil(k / 16) multiply-adds in a lane + 4 levels of the tree
 *   avx512bf16:  d = 2 ceil(k / 32) + 4
 *   amx:         d = 16 multiply-adds + 1 for even plus odd + ceil(k / 32) sums
 * A kernel that flushes denormals loses at most 2^-126 in each operation besides. */
#ifndef LINEAR_CHECK_H
#define LINEAR_CHECK_H

#include "check.h"
#include "cpu_linear.h"

#include <sys/mman.h>
#include <unistd.h>

struct subject {
    const char *name;
    const struct cpu_linear_kernel *kernel; /* an emulated one; NULL: what cpu_linear chooses for isa */
    enum cpu_isa isa;
    int slow; /* leave out what takes long */
};

struct shape {
    int64_t n, m, k;
    enum pva_dtype x_type, w_type;
};

/* ---- memory that ends where the next byte faults, at whatever alignment that gives */

struct fenced {
    char *data;
    size_t bytes, mapped;
    char *map;
};

static struct fenced fenced_new(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = (bytes + 64 + page - 1) / page * page;
    struct fenced f = {.bytes = bytes, .mapped = inside + page};
    f.map = mmap(NULL, f.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK_FATAL(f.map != MAP_FAILED);
    int fence = mprotect(f.map + inside, page, PROT_NONE);
    CHECK_FATAL(fence == 0);
    memset(f.map, 0xa5, inside);
    f.data = f.map + inside - bytes;
    return f;
}

static void fenced_free(struct fenced *f) {
    int intact = 1;
    for (char *p = f->map; p < f->data; p++) intact &= *p == (char)0xa5;
    CHECK(intact); /* nothing was written before the beginning */
    munmap(f->map, f->mapped);
}

/* ---- operands: uniform in [-1, 1), from the seed and the position */

static float random_value(uint64_t seed, int64_t i) {
    uint64_t z = (seed + 1) * 0x9E3779B97F4A7C15u + (uint64_t)i * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (float)((double)((z ^ z >> 31) >> 40) * 0x1p-23 - 1.0);
}

static void put(char *data, enum pva_dtype type, int64_t i, float value) {
    if (type == PVA_F32) {
        memcpy(data + 4 * i, &value, 4);
    } else {
        uint16_t half = pva_f32_to_bf16(value);
        memcpy(data + 2 * i, &half, 2);
    }
}

static float get(const char *data, enum pva_dtype type, int64_t i) {
    float value;
    uint16_t half;
    if (type == PVA_F32) {
        memcpy(&value, data + 4 * i, 4);
        return value;
    }
    memcpy(&half, data + 2 * i, 2);
    return pva_bf16_to_f32(half);
}

static struct fenced random_matrix(enum pva_dtype type, int64_t rows, int64_t cols, uint64_t seed) {
    struct fenced f = fenced_new((size_t)(rows * cols * cpu_linear_size(type)));
    for (int64_t i = 0; i < rows * cols; i++) put(f.data, type, i, random_value(seed, i));
    return f;
}

/* ---- running and judging */

static struct cpu_scratch scratch; /* one for all calls: it must serve any sequence of shapes */

static void run(const struct subject *s, const struct shape *d, const void *x, const void *w, void *y, int threads) {
    struct cpu_linear_args a = {x, w, y, d->x_type, d->w_type, d->n, d->m, d->k, s->isa, threads, &scratch};
    for (int64_t i = 0; i < d->n * d->m; i++) memcpy((char *)y + 4 * i, &(uint32_t){0x7fc0dead}, 4); /* a NaN */
    if (s->kernel) cpu_linear_with(&a, s->kernel);
    else cpu_linear(&a);
}

static int in_hardware_bf16(const struct subject *s, const struct shape *d) {
    return s->isa >= CPU_AVX512BF16 && d->x_type == PVA_BF16 && d->w_type == PVA_BF16;
}

static double depth(const struct subject *s, const struct shape *d) {
    if (!in_hardware_bf16(s, d)) return (double)((d->k + 15) / 16) + 4;
    double steps = (double)((d->k + 31) / 32);
    return s->isa == CPU_AMX ? 17 + steps : 2 * steps + 4;
}

/* Outputs beyond the limit, looking at every `every`-th row of w; the first one's index in *where. */
static int64_t count_wrong(const struct subject *s, const struct shape *d, const char *x, const char *w, const char *y,
                           int64_t every, int64_t *where) {
    int64_t wrong = 0;
    double du = depth(s, d) * 0x1p-24, limit = du / (1 - du),
           flushed = in_hardware_bf16(s, d) ? 3.0 * (double)d->k * 0x1p-126 : 0;
    double *row = malloc((size_t)(d->k + 1) * sizeof *row);
    CHECK_FATAL(row != NULL);
    for (int64_t j = 0; j < d->m; j += every) {
        for (int64_t k = 0; k < d->k; k++) row[k] = (double)get(w, d->w_type, j * d->k + k);
        for (int64_t i = 0; i < d->n; i++) {
            double sum = 0, size = 0;
            for (int64_t k = 0; k < d->k; k++) {
                double p = row[k] * (double)get(x, d->x_type, i * d->k + k);
                sum += p;
                size += fabs(p);
            }
            float actual = get(y, PVA_F32, i * d->m + j);
            int good = isnan(sum)   ? isnan(actual)
                       : isinf(sum) ? (double)actual == sum
                                    : fabs((double)actual - sum) <= limit * size + flushed;
            if (!good && wrong++ == 0) *where = i * d->m + j;
        }
    }
    free(row);
    return wrong;
}

static void check_shape(const struct subject *s, struct shape d, int64_t every) {
    struct fenced x = random_matrix(d.x_type, d.n, d.k, 1), w = random_matrix(d.w_type, d.m, d.k, 2);
    struct fenced y = fenced_new((size_t)(d.n * d.m) * 4);
    int64_t where = -1, wrong;
    run(s, &d, x.data, w.data, y.data, 2);
    wrong = count_wrong(s, &d, x.data, w.data, y.data, every, &where);
    check_count++;
    if (wrong) {
        check_fail();
        fprintf(stderr, "%s: n %d m %d k %d x %s w %s: %d outputs beyond the limit, first at row %d column %d\n", s->name,
                (int)d.n, (int)d.m, (int)d.k, d.x_type == PVA_F32 ? "F32" : "BF16", d.w_type == PVA_F32 ? "F32" : "BF16",
                (int)wrong, (int)(where / d.m), (int)(where % d.m));
    }
    int written = 1;
    for (int64_t i = 0; i < d.n * d.m; i++) written &= !isnan(get(y.data, PVA_F32, i));
    CHECK(written);
    fenced_free(&x);
    fenced_free(&w);
    fenced_free(&y);
}

static const enum pva_dtype operand_types[3][2] = {{PVA_F32, PVA_F32}, {PVA_F32, PVA_BF16}, {PVA_BF16, PVA_BF16}};

/* How many of operand_types an emulated kernel takes: only the last. */
static int first_types(const struct subject *s) { return s->kernel ? 2 : 0; }

static void check_oracle(const struct subject *s) {
    static const int64_t small[][3] = {
        {1, 1, 1},   {1, 16, 15},  {2, 17, 16},   {3, 31, 17},  {4, 33, 31},   {5, 48, 33},   {7, 49, 32},   {8, 97, 63},
        {9, 13, 64}, {16, 50, 65}, {17, 100, 97}, {31, 29, 95}, {33, 47, 130}, {40, 16, 600}, {63, 64, 127}, {129, 35, 200},
    };
    static const int64_t gemma[][3] = {
        {1, 2304, 2304}, {1, 1024, 9216}, {16, 512, 2304}, {2, 9216, 257},
        {64, 208, 2304}, {6, 64, 9216},   {1, 256000, 16}, {150, 80, 2310},
    };
    for (int t = first_types(s); t < 3; t++) {
        for (size_t i = 0; i < sizeof small / sizeof *small; i++)
            check_shape(s, (struct shape){small[i][0], small[i][1], small[i][2], operand_types[t][0], operand_types[t][1]}, 1);
        for (size_t i = 0; i < sizeof gemma / sizeof *gemma; i++)
            if (!s->slow || gemma[i][0] * gemma[i][1] * gemma[i][2] < 10000000)
                check_shape(s, (struct shape){gemma[i][0], gemma[i][1], gemma[i][2], operand_types[t][0], operand_types[t][1]},
                            7);
    }
}

/* Nothing to do, nothing done; and an empty sum is 0. */
static void check_empty(const struct subject *s) {
    for (int t = first_types(s); t < 3; t++) {
        enum pva_dtype xt = operand_types[t][0], wt = operand_types[t][1];
        struct fenced x = random_matrix(xt, 5, 40, 3), w = random_matrix(wt, 20, 40, 4), y = fenced_new(5 * 20 * 4);
        char before[5 * 20 * 4];
        memcpy(before, y.data, sizeof before);
        run(s, &(struct shape){0, 20, 40, xt, wt}, x.data, w.data, y.data, 1);
        run(s, &(struct shape){5, 0, 40, xt, wt}, x.data, w.data, y.data, 2);
        CHECK(memcmp(before, y.data, sizeof before) == 0);
        run(s, &(struct shape){5, 20, 0, xt, wt}, x.data, w.data, y.data, 1);
        memset(before, 0, sizeof before);
        CHECK(memcmp(before, y.data, sizeof before) == 0);
        fenced_free(&x);
        fenced_free(&w);
        fenced_free(&y);
    }
}

/* The same bits for every n, every place in the batch, every number of threads. The reference is each row alone. */
static void check_invariance(const struct subject *s, int64_t m, int64_t k) {
    static const int64_t counts[] = {2, 3, 5, 8, 9, 16, 17, 32, 33, 64, 129, 300};
    const int64_t most = 300;
    for (int t = first_types(s); t < 3; t++) {
        struct shape d = {1, m, k, operand_types[t][0], operand_types[t][1]};
        size_t x_row = (size_t)(k * cpu_linear_size(d.x_type)), y_row = (size_t)m * 4;
        struct fenced x = random_matrix(d.x_type, most, k, 5), w = random_matrix(d.w_type, m, k, 6);
        struct fenced turned = fenced_new((size_t)most * x_row), alone = fenced_new((size_t)most * y_row),
                      y = fenced_new((size_t)most * y_row);
        for (int64_t i = 0; i < most; i++) {
            run(s, &d, x.data + (size_t)i * x_row, w.data, alone.data + (size_t)i * y_row, 1);
            memcpy(turned.data + (size_t)(most - 1 - i) * x_row, x.data + (size_t)i * x_row, x_row);
        }
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
            for (int threads = 1; threads <= 3; threads++) {
                d.n = counts[c];
                run(s, &d, x.data, w.data, y.data, threads);
                CHECK(memcmp(y.data, alone.data, (size_t)d.n * y_row) == 0);
                if (s->slow && c % 3) continue;
                run(s, &d, turned.data, w.data, y.data, threads);
                int same = 1;
                for (int64_t i = 0; i < d.n; i++)
                    same &= memcmp(y.data + (size_t)i * y_row, alone.data + (size_t)(most - 1 - i) * y_row, y_row) == 0;
                CHECK(same);
            }
        fenced_free(&x);
        fenced_free(&w);
        fenced_free(&turned);
        fenced_free(&alone);
        fenced_free(&y);
    }
}

/* More rows than are packed at a time. */
static void check_many_rows(const struct subject *s) {
    struct shape d = {2100, 19, 35, PVA_BF16, PVA_BF16};
    struct fenced x = random_matrix(d.x_type, d.n, d.k, 7), w = random_matrix(d.w_type, d.m, d.k, 8),
                  y = fenced_new((size_t)(d.n * d.m) * 4);
    float one[19];
    int same = 1;
    int64_t where;
    run(s, &d, x.data, w.data, y.data, 2);
    CHECK_INT(count_wrong(s, &d, x.data, w.data, y.data, 1, &where), 0);
    for (int64_t i = 0; i < d.n; i++) {
        struct shape row = {1, d.m, d.k, d.x_type, d.w_type};
        run(s, &row, x.data + i * d.k * 2, w.data, one, 1);
        same &= memcmp(one, y.data + i * d.m * 4, sizeof one) == 0;
    }
    CHECK(same);
    fenced_free(&x);
    fenced_free(&w);
    fenced_free(&y);
}

/* What is not finite stays in its own row of x or its own row of w, and everything else keeps its bits. */
static void check_not_finite(const struct subject *s, int64_t n) {
    for (int t = first_types(s); t < 3; t++) {
        struct shape d = {n, 37, 75, operand_types[t][0], operand_types[t][1]};
        struct fenced x = random_matrix(d.x_type, n, d.k, 9), w = random_matrix(d.w_type, d.m, d.k, 10);
        struct fenced clean = fenced_new((size_t)(n * d.m) * 4), y = fenced_new((size_t)(n * d.m) * 4);
        const int64_t bad_row = n / 2, bad_column = 20;
        run(s, &d, x.data, w.data, clean.data, 1);
        for (int kind = 0; kind < 4; kind++) {
            const float value = kind % 2 ? NAN : -INFINITY;
            char *data = kind < 2 ? x.data : w.data;
            enum pva_dtype type = kind < 2 ? d.x_type : d.w_type;
            int64_t at = kind < 2 ? bad_row * d.k + 74 : bad_column * d.k + 74, elsewhere = 0, here = 0; /* 74 is in the tail */
            float old = get(data, type, at);
            put(data, type, at, value);
            run(s, &d, x.data, w.data, y.data, 2);
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = 0; j < d.m; j++) {
                    float f = get(y.data, PVA_F32, i * d.m + j);
                    if (kind < 2 ? i != bad_row : j != bad_column)
                        elsewhere += memcmp(y.data + 4 * (i * d.m + j), clean.data + 4 * (i * d.m + j), 4) != 0;
                    else
                        here += kind % 2 ? !isnan(f)
                                         : f != (get(kind < 2 ? w.data : x.data, kind < 2 ? d.w_type : d.x_type,
                                                     (kind < 2 ? j : i) * d.k + 74) < 0
                                                     ? INFINITY
                                                     : -INFINITY);
                }
            CHECK_INT(elsewhere, 0);
            CHECK_INT(here, 0);
            put(data, type, at, old);
        }
        fenced_free(&x);
        fenced_free(&w);
        fenced_free(&clean);
        fenced_free(&y);
    }
}

/* The comparator has teeth: a product that leaves out one weight, one output off by 1e-4 of its size, one left unwritten. */
static void check_teeth(const struct subject *s) {
    struct shape d = {3, 40, 2304, PVA_BF16, PVA_BF16};
    struct fenced x = random_matrix(d.x_type, d.n, d.k, 11), w = random_matrix(d.w_type, d.m, d.k, 12),
                  y = fenced_new((size_t)(d.n * d.m) * 4);
    int64_t where = -1, weight = 17 * d.k + 1000;
    for (int64_t i = 0; i < d.n; i++) put(x.data, d.x_type, i * d.k + 1000, 0.5f);
    put(w.data, d.w_type, weight, 0);
    run(s, &d, x.data, w.data, y.data, 1);
    CHECK_INT(count_wrong(s, &d, x.data, w.data, y.data, 1, &where), 0);
    put(w.data, d.w_type, weight, 0.5f);
    CHECK_INT(count_wrong(s, &d, x.data, w.data, y.data, 1, &where), d.n);
    CHECK_INT(where, 17);
    put(w.data, d.w_type, weight, 0);
    put(y.data, PVA_F32, 2 * d.m + 5, NAN);
    CHECK_INT(count_wrong(s, &d, x.data, w.data, y.data, 1, &where), 1);
    CHECK_INT(where, 2 * d.m + 5);
    fenced_free(&x);
    fenced_free(&w);
    fenced_free(&y);
}

static void check_subject(const struct subject *s) {
    check_oracle(s);
    check_empty(s);
    check_invariance(s, 70, s->slow ? 75 : 1300); /* more rows than a piece, more k than a span */
    check_many_rows(s);
    check_not_finite(s, 3);
    check_not_finite(s, 40);
    check_teeth(s);
}

#endif
