/* The matrix product of the CPU against a float64 oracle, with each instruction set this machine has forced in turn; bit for bit the same
 * rows in every batch, at every place, with every number of threads; and the portable sets bit-equal to each other. */
#include "check.h"
#include "cpu_linear.h"
#include "pva/rng.h"

#include <float.h>

static struct cpu_scratch scratch;

static void fill(void *p, enum pva_dtype type, int64_t n, uint32_t item) {
    for (int64_t i = 0; i < n; i++) {
        float v = (float)pva_rng_normal(3, PVA_RNG_WEIGHTS, item, (uint32_t)(i >> 20), (uint32_t)i);
        if (i % 97 == 5) v *= 50;
        if (i % 89 == 7) v *= 1e-4f;
        if (type == PVA_F32) memcpy((char *)p + i * 4, &v, 4);
        else {
            uint16_t h = pva_f32_to_bf16(v);
            memcpy((char *)p + i * 2, &h, 2);
        }
    }
}

static double value(const void *p, enum pva_dtype type, int64_t i) {
    float v;
    uint16_t h;
    if (type == PVA_F32) return memcpy(&v, (const char *)p + i * 4, 4), v;
    return memcpy(&h, (const char *)p + i * 2, 2), pva_bf16_to_f32(h);
}

static size_t size_of(enum pva_dtype type) { return type == PVA_F32 ? 4 : 2; }

static void product(enum cpu_isa isa, const void *x, enum pva_dtype xt, const void *w, enum pva_dtype wt, float *y, int64_t n, int64_t k, int64_t m,
                    int threads) {
    struct cpu_linear_args a = {.x = x, .x_type = xt, .w = w, .w_type = wt, .y = y, .n = n, .k = k, .m = m, .isa = isa, .n_threads = threads, .scratch = &scratch};
    cpu_linear(&a);
}

/* How many of the results are off. A sum of k products in float32, in any order, is within k eps sum|x w| of the exact one (Higham,
 * Accuracy and Stability of Numerical Algorithms, section 3.1); sixteen lanes make it k/16 + 5 roundings. */
static int64_t count_wrong(const float *y, const void *x, enum pva_dtype xt, const void *w, enum pva_dtype wt, int64_t n, int64_t k, int64_t m,
                           int64_t roundings) {
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            double sum = 0, size = 0;
            for (int64_t l = 0; l < k; l++) {
                double p = value(x, xt, i * k + l) * value(w, wt, j * k + l);
                sum += p, size += fabs(p);
            }
            wrong += !(fabs(y[i * m + j] - sum) <= (double)roundings * FLT_EPSILON * size);
        }
    return wrong;
}

static const enum pva_dtype pairs[3][2] = {{PVA_F32, PVA_F32}, {PVA_F32, PVA_BF16}, {PVA_BF16, PVA_BF16}};

static void test_shape(enum cpu_isa isa, int64_t n, int64_t k, int64_t m) {
    enum { GUARD = 64 };
    for (int p = 0; p < 3; p++) {
        enum pva_dtype xt = pairs[p][0], wt = pairs[p][1];
        /* Odd addresses: a mapped file promises no more than the element's own alignment, and not even that. */
        char *x_memory = malloc((size_t)(n * k) * 4 + 64), *w_memory = malloc((size_t)(m * k) * 4 + 64), *x = x_memory + 2, *w = w_memory + 6;
        size_t cells = (size_t)(n * m);
        float *y = malloc((cells + 2 * GUARD) * sizeof *y), *portable = malloc((cells + 1) * sizeof *portable);
        fill(x, xt, n * k, 1), fill(w, wt, m * k, 2);
        for (size_t i = 0; i < cells + 2 * GUARD; i++) y[i] = NAN;
        product(isa, x, xt, w, wt, y + GUARD, n, k, m, 2);
        for (int i = 0; i < GUARD; i++) CHECK(isnan(y[i]) && isnan(y[GUARD + cells + (size_t)i]));
        int hardware = isa >= CPU_AVX512BF16 && xt == PVA_BF16;
        int64_t roundings = hardware ? k / 8 + 8 : k / 16 + 6;
        CHECK_INT(count_wrong(y + GUARD, x, xt, w, wt, n, k, m, roundings), 0);
        if (!hardware && cells) {
            product(CPU_C, x, xt, w, wt, portable, n, k, m, 1);
            CHECK(!memcmp(portable, y + GUARD, cells * sizeof *y));
        }
        free(x_memory), free(w_memory), free(y), free(portable);
    }
}

static void test_invariance(enum cpu_isa isa) {
    enum { N = 67, K = 211, M = 93 };
    static const int64_t batches[] = {1, 2, 3, 5, 8, 16, 17, 33, 64, 67};
    for (int p = 0; p < 3; p++) {
        enum pva_dtype xt = pairs[p][0], wt = pairs[p][1];
        static char x[N * K * 4], w[M * K * 4];
        static float all[N * M], y[N * M];
        fill(x, xt, N * K, 4), fill(w, wt, M * K, 5);
        product(isa, x, xt, w, wt, all, N, K, M, 1);
        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++)
            for (int64_t first = 0; first + batches[b] <= N; first += 13)
                for (int threads = 1; threads <= 3; threads++) {
                    product(isa, x + (size_t)(first * K) * size_of(xt), xt, w, wt, y, batches[b], K, M, threads);
                    CHECK(!memcmp(y, all + first * M, (size_t)(batches[b] * M) * sizeof *y));
                }
        /* What is no number stays in its own row. */
        float bad[2] = {NAN, INFINITY};
        uint16_t bad16[2] = {0x7fc0, 0x7f80};
        for (int i = 0; i < 2; i++)
            memcpy(x + (size_t)((20 + i) * K + 7) * size_of(xt), xt == PVA_F32 ? (void *)&bad[i] : (void *)&bad16[i], size_of(xt));
        product(isa, x, xt, w, wt, y, N, K, M, 2);
        for (int i = 0; i < N; i++)
            if (i == 20 || i == 21) {
                for (int j = 0; j < M; j++) CHECK(!isfinite(y[i * M + j]));
            } else {
                CHECK(!memcmp(y + i * M, all + i * M, M * sizeof *y));
            }
    }
}

static void test_teeth(void) {
    static char x[3 * 40 * 4], w[5 * 40 * 4];
    float y[15];
    fill(x, PVA_F32, 120, 6), fill(w, PVA_F32, 200, 7);
    product(CPU_C, x, PVA_F32, w, PVA_F32, y, 3, 40, 5, 1);
    CHECK_INT(count_wrong(y, x, PVA_F32, w, PVA_F32, 3, 40, 5, 40 / 16 + 6), 0);
    y[7] *= 1.001f;
    CHECK_INT(count_wrong(y, x, PVA_F32, w, PVA_F32, 3, 40, 5, 40 / 16 + 6), 1);
    y[3] = NAN;
    CHECK_INT(count_wrong(y, x, PVA_F32, w, PVA_F32, 3, 40, 5, 40 / 16 + 6), 2);
}

int main(void) {
    static const int64_t ks[] = {1, 2, 15, 16, 17, 31, 32, 33, 64, 127, 2304};
    static const int64_t ns[] = {1, 2, 7, 16, 19}, ms[] = {1, 5, 16, 37};
    for (int isa = 0; isa < CPU_ISA_COUNT; isa++) {
        if (!cpu_isa_available((enum cpu_isa)isa)) {
            CHECK_SKIP("%s: this processor does not have it", cpu_isa_name((enum cpu_isa)isa));
            continue;
        }
        for (size_t k = 0; k < sizeof ks / sizeof *ks; k++)
            for (size_t n = 0; n < sizeof ns / sizeof *ns; n++)
                for (size_t m = 0; m < sizeof ms / sizeof *ms; m++)
                    if (ks[k] < 1000 || (n % 2 == 0 && m % 2 == 1)) test_shape((enum cpu_isa)isa, ns[n], ks[k], ms[m]);
        test_shape((enum cpu_isa)isa, 130, 96, 70);
        test_shape((enum cpu_isa)isa, 0, 8, 4);
        test_shape((enum cpu_isa)isa, 4, 8, 0);
        test_shape((enum cpu_isa)isa, 4, 0, 3);
        test_invariance((enum cpu_isa)isa);
    }
    test_teeth();
    enum cpu_isa parsed;
    struct pva_error err = {0};
    CHECK_OK(cpu_isa_parse("c", &parsed, &err), err);
    CHECK_INT(parsed, CPU_C);
    CHECK_INT(cpu_isa_parse("sse9", &parsed, &err), PVA_USAGE);
    CHECK_HAS(err.msg, "avx512bf16");
    cpu_scratch_free(&scratch);
    return check_report("test_cpu_linear");
}
