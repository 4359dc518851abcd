/* The matrix product: against float64 and the CPU backend's; every tile size and batch size gives the same bits; teeth. */
#include "cpu_linear.h"
#include "twin.h"

struct kind {
    enum pva_dtype x, w;
    enum pva_cuda_path path;
    const char *name;
};
static const struct kind kinds[] = {
    {PVA_BF16, PVA_BF16, PVA_TENSOR_CORES, "tensor cores"},
    {PVA_BF16, PVA_BF16, PVA_PORTABLE, "portable bf16"},
    {PVA_F32, PVA_F32, PVA_PORTABLE, "f32"},
    {PVA_F32, PVA_BF16, PVA_PORTABLE, "f32 with bf16 weights"},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };
static const struct pva_cuda_tile tiles[] = {{16, 8, 0}, {16, 8, 1}, {32, 8, 1}, {64, 8, 0}, {64, 8, 1}, {64, 16, 0}, {64, 16, 1}, {64, 64, 0},
                                             {64, 64, 1}, {64, 32, 0}, {64, 32, 1}, {128, 128, 0}, {128, 128, 1}};
enum { PORTABLE_TILES = 9, ALL_TILES = sizeof tiles / sizeof *tiles };

static const struct pva_cuda_end plain = {PVA_END_PLAIN, 0, NULL, PVA_F32};

static size_t size_of(enum pva_dtype t) { return t == PVA_F32 ? 4 : 2; }
static double value(const void *p, enum pva_dtype t, int64_t i) {
    return t == PVA_F32 ? (double)((const float *)p)[i] : (double)pva_bf16_to_f32(((const uint16_t *)p)[i]);
}
static void put(void *p, enum pva_dtype t, int64_t i, float v) {
    if (t == PVA_F32) ((float *)p)[i] = v;
    else ((uint16_t *)p)[i] = pva_f32_to_bf16(v);
}

static void *matrix(enum pva_dtype t, int64_t rows, int64_t cols, uint32_t item) {
    void *p = twin_alloc((size_t)(rows * cols) * size_of(t));
    for (int64_t i = 0; i < rows * cols; i++) put(p, t, i, (float)pva_rng_normal(1, PVA_RNG_WEIGHTS, item, 0, (uint32_t)i));
    return p;
}

/* Device work memory as the launchers want it: zero at first. They must leave the counters zero. */
static struct twin_buffer work_new(size_t bytes) {
    struct twin_buffer b = twin_new(NULL, bytes);
    CHECK_CUDA(cudaMemset(b.p, 0, PVA_CUDA_COUNTERS));
    return b;
}
static void work_free(struct twin_buffer *b) {
    char *host = twin_alloc(b->bytes);
    static const char zero[PVA_CUDA_COUNTERS];
    twin_read(b, host);
    CHECK(memcmp(host, zero, sizeof zero) == 0);
    free(host);
    twin_free(b);
}

static size_t most_work(int64_t n, int64_t m, int64_t k) { return PVA_CUDA_COUNTERS + (size_t)(n * m * ((k + 1023) / 1024)) * 4; }

static void run(const struct kind *t, const struct pva_cuda_tile *tile, const void *x, const void *w, int64_t n, int64_t m, int64_t k, float *y) {
    size_t shift = twin_shift;
    struct twin_buffer dx = twin_new(x, (size_t)(n * k) * size_of(t->x)), dw = twin_new(w, (size_t)(m * k) * size_of(t->w));
    struct twin_buffer dy = twin_new(NULL, (size_t)(n * m) * 4);
    twin_shift = 0;
    const struct pva_cuda_product product = {dw.p, (float *)dy.p, m};
    struct twin_buffer work = work_new(tile ? most_work(n, m, k) : pva_cuda_linear_bytes(n, &product, 1, k));
    twin_shift = shift;
    if (tile) CHECK_CUDA(pva_cuda_linear_with(tile, dx.p, t->x, &product, 1, t->w, n, k, &plain, t->path, work.p, NULL));
    else CHECK_CUDA(pva_cuda_linear(dx.p, t->x, &product, 1, t->w, n, k, &plain, t->path, work.p, NULL));
    twin_read(&dy, y);
    twin_read(&dx, NULL), twin_read(&dw, NULL);
    work_free(&work);
    twin_free(&dx), twin_free(&dw), twin_free(&dy);
}

/* Rounding of a chain of k products: (k + pieces) half units of the sum of sizes. A tensor core cuts off instead of rounding, up to a unit for each of
 * the 17 terms it adds at a time and in no known order: 2 (17 ceil(k / 16) + pieces) half units. */
static double limit_of(const struct kind *t, int64_t k) {
    double pieces = (double)((k + 1023) / 1024), chain = t->path == PVA_TENSOR_CORES ? 2 * 17 * (double)((k + 15) / 16) : (double)k;
    double du = (chain + pieces) * 0x1p-24;
    return du / (1 - du);
}

static int64_t count_wrong(const struct kind *t, const void *x, const void *w, int64_t n, int64_t m, int64_t k, const float *y) {
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            double sum = 0, size = 0;
            for (int64_t e = 0; e < k; e++) {
                double p = value(x, t->x, i * k + e) * value(w, t->w, j * k + e);
                sum += p, size += fabs(p);
            }
            wrong += isnan(sum) ? !isnan(y[i * m + j]) : !(fabs((double)y[i * m + j] - sum) <= limit_of(t, k) * size);
        }
    return wrong;
}

static void check_shape(const struct kind *t, int64_t n, int64_t m, int64_t k) {
    void *x = matrix(t->x, n, k, 1), *w = matrix(t->w, m, k, 2);
    float *y = twin_alloc((size_t)(n * m) * 4), *cpu = twin_alloc((size_t)(n * m) * 4);
    for (int o = 0; twin_order(o); o++) {
        run(t, NULL, x, w, n, m, k, y);
        int64_t wrong = count_wrong(t, x, w, n, m, k, y);
        if (wrong) fprintf(stderr, "%s: n %d m %d k %d: %d wrong\n", t->name, (int)n, (int)m, (int)k, (int)wrong);
        CHECK_INT(wrong, 0);
        if (n * m * k > 100000) break;
    }
    /* The CPU's product, which has passed the same oracle. */
    struct cpu_scratch scratch = {0};
    cpu_linear(&(struct cpu_linear_args){.x = x, .x_type = t->x, .w = w, .w_type = t->w, .y = cpu, .n = n, .k = k, .m = m, .isa = CPU_C, .n_threads = 1,
                                         .scratch = &scratch});
    CHECK_INT(count_wrong(t, x, w, n, m, k, cpu), 0);
    cpu_scratch_free(&scratch);
    free(x), free(w), free(y), free(cpu);
}

/* A row alone, first in a batch, in the middle: the same bits, whatever the tile. */
static void check_invariance(const struct kind *t, int64_t m, int64_t k) {
    enum { EVERY = 18 }; /* rows looked at */
    static const int64_t counts[] = {1, 2, 7, 16, 33, 64, 200};
    const int64_t most = 200;
    void *x = matrix(t->x, most, k, 3), *w = matrix(t->w, m, k, 4), *turned = twin_alloc((size_t)(most * k) * size_of(t->x));
    size_t x_row = (size_t)k * size_of(t->x), y_row = (size_t)m * 4;
    float *y = twin_alloc((size_t)(most * m) * 4), *alone = twin_alloc((size_t)(most * m) * 4);
    for (int64_t i = 0; i < most; i++) {
        memcpy((char *)turned + (most - 1 - i) * (int64_t)x_row, (char *)x + i * (int64_t)x_row, x_row);
        if (i % EVERY == 0) run(t, NULL, (char *)x + i * (int64_t)x_row, w, 1, m, k, alone + i * m);
    }
    for (size_t c = 0; c < sizeof counts / sizeof *counts && !check_failures; c++) {
        int64_t n = counts[c], wrong = 0;
        run(t, NULL, x, w, n, m, k, y);
        for (int64_t i = 0; i < n; i += EVERY) wrong += memcmp(y + i * m, alone + i * m, y_row) != 0;
        run(t, NULL, (char *)turned + (most - n) * (int64_t)x_row, w, n, m, k, y);
        for (int64_t i = 0; i < n; i += EVERY) wrong += memcmp(y + (n - 1 - i) * m, alone + i * m, y_row) != 0;
        CHECK_INT(wrong, 0);
    }
    int64_t n = 19;
    for (int i = 0; i < (t->path == PVA_TENSOR_CORES ? ALL_TILES : PORTABLE_TILES); i++) {
        int64_t wrong = 0;
        run(t, &tiles[i], x, w, n, m, k, y);
        for (int64_t r = 0; r < n; r += EVERY) wrong += memcmp(y + r * m, alone + r * m, y_row) != 0;
        if (wrong) fprintf(stderr, "%s: tile %dx%d split %d\n", t->name, tiles[i].bm, tiles[i].bn, tiles[i].split);
        CHECK_INT(wrong, 0);
    }
    free(x), free(w), free(turned), free(y), free(alone);
}

/* Two and three products of one x in one launch, in every tile size: the bits of each alone, and nothing beside them. */
static void check_together(const struct kind *t, int64_t n, int64_t k) {
    static const int64_t m[][PVA_MOST_LINEARS] = {{67, 33, 40}, {16, 1, 129}, {5, 70, 0}, {0, 20, 31}};
    void *x = matrix(t->x, n, k, 9);
    for (size_t s = 0; s < sizeof m / sizeof *m && !check_failures; s++) {
        struct twin_buffer dx = twin_new(x, (size_t)(n * k) * size_of(t->x)), dw[PVA_MOST_LINEARS], dy[PVA_MOST_LINEARS];
        struct pva_cuda_product products[PVA_MOST_LINEARS];
        float *alone[PVA_MOST_LINEARS], *together = twin_alloc((size_t)(n * 129) * 4);
        int64_t all = 0;
        for (int i = 0; i < PVA_MOST_LINEARS; i++) {
            void *w = matrix(t->w, m[s][i], k, 10 + (uint32_t)i);
            alone[i] = twin_alloc((size_t)(n * m[s][i]) * 4 + 4);
            run(t, NULL, x, w, n, m[s][i], k, alone[i]);
            dw[i] = twin_new(w, (size_t)(m[s][i] * k) * size_of(t->w));
            all += m[s][i];
            free(w);
        }
        for (int tile = -1; tile < (t->path == PVA_TENSOR_CORES ? ALL_TILES : PORTABLE_TILES); tile += 3)
            for (int count = 2; count <= PVA_MOST_LINEARS; count++) {
                for (int i = 0; i < PVA_MOST_LINEARS; i++) {
                    dy[i] = twin_new(NULL, (size_t)(n * m[s][i]) * 4);
                    products[i] = (struct pva_cuda_product){dw[i].p, (float *)dy[i].p, m[s][i]};
                }
                struct twin_buffer work = work_new(tile >= 0 ? most_work(n, all, k) : pva_cuda_linear_bytes(n, products, count, k));
                CHECK_CUDA(pva_cuda_linear_with(tile >= 0 ? &tiles[tile] : NULL, dx.p, t->x, products, count, t->w, n, k, &plain, t->path, work.p, NULL));
                for (int i = 0; i < PVA_MOST_LINEARS; i++) {
                    twin_read(&dy[i], together);
                    if (i < count) CHECK(memcmp(together, alone[i], (size_t)(n * m[s][i]) * 4) == 0);
                    else CHECK(twin_is_poison((unsigned char *)together, (size_t)(n * m[s][i]) * 4));
                    twin_free(&dy[i]);
                }
                work_free(&work);
            }
        twin_free(&dx);
        for (int i = 0; i < PVA_MOST_LINEARS; i++) twin_free(&dw[i]), free(alone[i]);
        free(together);
    }
    free(x);
}

/* Soft-cap and GeGLU as the end of a product, in every tile size: the bits of the product followed by the operation, and nothing beside them. */
static void check_ends(const struct kind *t, int64_t n, int64_t m, int64_t k) {
    enum { CAP = 5 }; /* the sums pass it */
    const size_t count = (size_t)(n * m);
    void *x = matrix(t->x, n, k, 20), *w[2] = {matrix(t->w, m, k, 21), matrix(t->w, m, k, 22)};
    float *sums[2] = {twin_alloc(count * 4), twin_alloc(count * 4)}, *got = twin_alloc(count * 4);
    struct twin_buffer dx = twin_new(x, (size_t)(n * k) * size_of(t->x)), dw[2], dsum[2];
    for (int i = 0; i < 2; i++) {
        run(t, NULL, x, w[i], n, m, k, sums[i]);
        dw[i] = twin_new(w[i], (size_t)(m * k) * size_of(t->w)), dsum[i] = twin_new(sums[i], count * 4);
    }
    static const struct {
        enum pva_cuda_ending how;
        enum pva_dtype type;
    } ends[] = {{PVA_END_SOFTCAP, PVA_F32}, {PVA_END_GEGLU, PVA_F32}, {PVA_END_GEGLU, PVA_BF16}};
    for (size_t e = 0; e < sizeof ends / sizeof *ends; e++) {
        const int products = ends[e].how == PVA_END_GEGLU ? 2 : 1;
        const size_t bytes = count * size_of(ends[e].type);
        char *want = twin_alloc(bytes);
        struct twin_buffer apart = products == 2 ? twin_new(NULL, bytes) : twin_new(sums[0], bytes);
        if (products == 2) CHECK_CUDA(pva_cuda_geglu((float *)dsum[0].p, (float *)dsum[1].p, n * m, apart.p, ends[e].type, NULL));
        else CHECK_CUDA(pva_cuda_softcap((float *)apart.p, n * m, CAP, NULL));
        twin_read(&apart, want);
        twin_free(&apart);
        for (int tile = -1; tile < (t->path == PVA_TENSOR_CORES ? ALL_TILES : PORTABLE_TILES); tile++) {
            struct twin_buffer y = twin_new(NULL, bytes), own[2] = {twin_new(NULL, count * 4), twin_new(NULL, count * 4)};
            const struct pva_cuda_product product[2] = {{dw[0].p, (float *)(products == 1 ? y.p : own[0].p), m}, {dw[1].p, (float *)own[1].p, m}};
            const struct pva_cuda_end end = {ends[e].how, CAP, products == 2 ? y.p : NULL, ends[e].type};
            struct twin_buffer work = work_new(tile >= 0 ? most_work(n, (m + 7) / 8 * 16, k) : pva_cuda_linear_bytes(n, product, products, k));
            CHECK_CUDA(pva_cuda_linear_with(tile >= 0 ? &tiles[tile] : NULL, dx.p, t->x, product, products, t->w, n, k, &end, t->path, work.p, NULL));
            twin_read(&y, got);
            if (memcmp(got, want, bytes)) fprintf(stderr, "%s: end %d, type %d, n %d m %d, tile %d\n", t->name, ends[e].how, ends[e].type, (int)n, (int)m, tile);
            CHECK(memcmp(got, want, bytes) == 0);
            for (int i = 0; i < 2; i++) {
                twin_read(&own[i], got);
                CHECK(twin_is_poison((unsigned char *)got, count * 4));
                twin_free(&own[i]);
            }
            work_free(&work);
            twin_free(&y);
        }
        free(want);
    }
    for (int i = 0; i < 2; i++) twin_free(&dw[i]), twin_free(&dsum[i]), free(w[i]), free(sums[i]);
    twin_free(&dx);
    free(x), free(got);
}

/* What is not finite stays in its row of x and its row of w. */
static void check_not_finite(const struct kind *t) {
    enum { N = 11, M = 21, K = 75 };
    void *x = matrix(t->x, N, K, 5), *w = matrix(t->w, M, K, 6);
    float clean[N * M], y[N * M];
    run(t, NULL, x, w, N, M, K, clean);
    for (int kind = 0; kind < 2; kind++) {
        float old = (float)value(kind ? w : x, kind ? t->w : t->x, 5 * K + 74);
        int wrong = 0;
        put(kind ? w : x, kind ? t->w : t->x, 5 * K + 74, NAN);
        run(t, NULL, x, w, N, M, K, y);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < M; j++)
                wrong += (kind ? j : i) == 5 ? !isnan(y[i * M + j]) : memcmp(&y[i * M + j], &clean[i * M + j], 4) != 0;
        CHECK_INT(wrong, 0);
        put(kind ? w : x, kind ? t->w : t->x, 5 * K + 74, old);
    }
    free(x), free(w);
}

static void check_empty(const struct kind *t) {
    float y[40], nothing[40] = {0};
    int same = 1;
    run(t, NULL, nothing, nothing, 3, 5, 0, y);
    for (int i = 0; i < 15; i++) same &= y[i] == 0;
    CHECK(same);
    run(t, NULL, nothing, nothing, 0, 5, 8, y);
    run(t, NULL, nothing, nothing, 5, 0, 8, y);
}

/* The oracle sees one missing weight, one output a thousandth off, one unwritten. */
static void check_teeth(const struct kind *t) {
    enum { N = 3, M = 20, K = 500 };
    void *x = matrix(t->x, N, K, 7), *w = matrix(t->w, M, K, 8);
    float y[N * M], *wrong;
    for (int64_t i = 0; i < N; i++) put(x, t->x, i * K + 333, 0.5f);
    put(w, t->w, 17 * K + 333, 0);
    run(t, NULL, x, w, N, M, K, y);
    CHECK_INT(count_wrong(t, x, w, N, M, K, y), 0);
    put(w, t->w, 17 * K + 333, 0.5f);
    CHECK_INT(count_wrong(t, x, w, N, M, K, y), N);
    put(w, t->w, 17 * K + 333, 0);
    wrong = &y[2 * M + 5];
    *wrong += 0.1f;
    CHECK_INT(count_wrong(t, x, w, N, M, K, y), 1);
    *wrong = NAN;
    CHECK_INT(count_wrong(t, x, w, N, M, K, y), 1);
    struct pva_cuda_tile odd = {48, 8, 0};
    const struct pva_cuda_product product = {w, y, M};
    CHECK_INT(pva_cuda_linear_with(&odd, x, t->x, &product, 1, t->w, N, K, &plain, t->path, y, NULL), cudaErrorInvalidValue);
    CHECK_INT(pva_cuda_linear_with(NULL, x, t->x, &product, PVA_MOST_LINEARS + 1, t->w, N, K, &plain, t->path, y, NULL), cudaErrorInvalidValue);
    const struct pva_cuda_product two[] = {{w, y, M}, {w, y, M - 1}};
    const struct pva_cuda_end cap = {PVA_END_SOFTCAP, 30, NULL, PVA_F32}, geglu = {PVA_END_GEGLU, 0, y, PVA_F32};
    CHECK_INT(pva_cuda_linear(x, t->x, two, 2, t->w, N, K, &cap, t->path, y, NULL), cudaErrorInvalidValue);
    CHECK_INT(pva_cuda_linear(x, t->x, two, 1, t->w, N, K, &geglu, t->path, y, NULL), cudaErrorInvalidValue);
    CHECK_INT(pva_cuda_linear(x, t->x, two, 2, t->w, N, K, &geglu, t->path, y, NULL), cudaErrorInvalidValue);
    free(x), free(w);
}

int main(void) {
    static const int64_t shapes[][3] = {
        {1, 1, 1},    {1, 17, 31},   {2, 16, 32},  {3, 5, 64},    {5, 31, 97},   {7, 67, 129},  {8, 64, 8},
        {9, 13, 65},  {13, 29, 256}, {16, 70, 40}, {31, 37, 127}, {1, 48, 1025}, {2, 20, 2304}, {33, 19, 104},
        {70, 131, 24}, {4, 33, 3100},
    };
    twin_start();
    twin_check_comparators();
    for (int t = 0; t < N_KINDS && !check_failures; t++) {
        check_ends(&kinds[t], 3, 37, 1100);
        if (!check_failures) check_ends(&kinds[t], 19, 72, 40);
        if (!check_failures) check_ends(&kinds[t], 2, 5, 0);
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes && !check_failures; s++) {
            twin_shift = s % 3 == 2 ? 4 : 0; /* not aligned for wide copies */
            check_shape(&kinds[t], shapes[s][0], shapes[s][1], shapes[s][2]);
        }
        twin_shift = 0;
        check_empty(&kinds[t]);
        check_not_finite(&kinds[t]);
        check_teeth(&kinds[t]);
        if (!check_failures) check_invariance(&kinds[t], 19, 1032);
        if (!check_failures) check_together(&kinds[t], 3, 1100);
        if (!check_failures) check_together(&kinds[t], 70, 40);
    }
    return check_report("twin_linear");
}
