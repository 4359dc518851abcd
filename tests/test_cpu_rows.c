/* The vector code against plain float64 formulas, and each instruction set against the others, bit for bit. */
#include "check.h"
#include "cpu_rows.h"
#include "pva/rng.h"

struct isa {
    const char *name;
    const struct cpu_rows *rows;
    int here;
};

static struct isa isas[3];

static void fill(float *x, int64_t n, uint32_t item, double scale) {
    for (int64_t i = 0; i < n; i++) x[i] = (float)(scale * pva_rng_normal(1, PVA_RNG_WEIGHTS, item, 0, (uint32_t)i));
}

static void poison(float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = NAN;
}

static const int64_t sizes[] = {1, 2, 15, 16, 17, 31, 48, 97, 256, 2304};
enum { N_SIZES = sizeof sizes / sizeof *sizes, MOST = 2304 };

static void test_rmsnorm(void) {
    static float x[MOST], w[MOST], y[3][MOST + 1], resid[3][MOST];
    static uint16_t y16[3][MOST];
    for (int s = 0; s < N_SIZES; s++) {
        int64_t d = sizes[s];
        fill(x, d, 1, 3), fill(w, d, 2, 0.5);
        double mean = 0;
        for (int64_t i = 0; i < d; i++) mean += (double)x[i] * x[i] / (double)d;
        for (int k = 0; k < 3; k++) {
            if (!isas[k].here) continue;
            poison(y[k], MOST + 1);
            fill(resid[k], d, 3, 1);
            isas[k].rows->rmsnorm(x, w, 1e-6f, d, y[k], NULL, NULL);
            isas[k].rows->rmsnorm(x, w, 1e-6f, d, NULL, y16[k], NULL);
            isas[k].rows->rmsnorm(x, w, 1e-6f, d, NULL, NULL, resid[k]);
            CHECK(isnan(y[k][d]));
            for (int64_t i = 0; i < d; i++) {
                double want = x[i] / sqrt(mean + 1e-6) * (1 + (double)w[i]);
                CHECK_NEAR(y[k][i], want, 1e-6 * fabs(want) + 1e-7);
                CHECK_INT(y16[k][i], pva_f32_to_bf16(y[k][i]));
            }
            CHECK(!memcmp(y[k], y[0], (size_t)d * 4));
            CHECK(!memcmp(resid[k], resid[0], (size_t)d * 4));
        }
    }
}

static double gelu(double x) { return x / 2 * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x))); }

static void test_elementwise(void) {
    enum { N = 4099 };
    static float a[N], b[N], y[3][N], cap[3][N], e[3][N];
    for (int i = 0; i < N; i++) a[i] = (float)(i - N / 2) * 0.01f;
    fill(b, N, 5, 1);
    a[7] = -0.0f, a[8] = 1e-20f, a[9] = 3e4f, a[10] = -3e4f;
    for (int k = 0; k < 3; k++) {
        if (!isas[k].here) continue;
        isas[k].rows->geglu(a, b, N, y[k], NULL);
        memcpy(cap[k], a, sizeof a);
        isas[k].rows->softcap(cap[k], N, 5.0f);
        isas[k].rows->exp_scaled(a, N, 21.0f, 0.7f, e[k]);
        double sum = 0;
        for (int i = 0; i < N; i++) {
            double g = gelu(a[i]) * b[i], c = 5 * tanh(a[i] / 5.0), x = exp(((double)a[i] - 21) / (double)0.7f);
            /* 1 + tanh cancels for negative x: the error is absolute in tanh, an ulp of 1 times |x b| */
            CHECK_NEAR(y[k][i], g, 3e-7 * fabs(g) + 1.2e-7 * fabs((double)a[i] * b[i]));
            CHECK_NEAR(cap[k][i], c, 4e-7 * fabs(c));
            if (i != 9) {
                CHECK_NEAR(e[k][i], x, 2e-7 * x + fabs(((double)a[i] - 21) / 0.7) * 1.2e-7 * x + 1.3e-38);
                sum += x;
            }
        }
        a[9] = -1;
        CHECK_NEAR(isas[k].rows->sum_exp(a, N, 21.0f, 0.7f), sum + exp(-22 / (double)0.7f), 1e-5 * sum);
        a[9] = 3e4f;
        CHECK(!memcmp(y[k], y[0], sizeof a) && !memcmp(cap[k], cap[0], sizeof a) && !memcmp(e[k], e[0], sizeof a));
    }
    float bad[3] = {NAN, INFINITY, 1};
    for (int k = 0; k < 3; k++) {
        if (!isas[k].here) continue;
        float out[3];
        memcpy(out, bad, sizeof bad);
        isas[k].rows->softcap(out, 3, 30);
        CHECK(isnan(out[0]));
        CHECK_NEAR(out[1], 30, 1e-5);
        CHECK_NEAR(out[2], 30 * tanh(1 / 30.0), 1e-6);
    }
}

static void test_directions(void) {
    static float x[MOST], before[MOST], d[MOST], y[3][MOST];
    fill(before, MOST, 7, 2), fill(d, MOST, 8, 1);
    double norm = 0;
    for (int i = 0; i < MOST; i++) norm += (double)d[i] * d[i];
    for (int i = 0; i < MOST; i++) d[i] = (float)(d[i] / sqrt(norm));
    for (int k = 0; k < 3; k++) {
        if (!isas[k].here) continue;
        memcpy(x, before, sizeof x);
        isas[k].rows->add_scaled(x, d, 0.0f, MOST);
        CHECK(!memcmp(x, before, sizeof x));
        isas[k].rows->add_scaled(x, d, 1.7f, 1031);
        for (int i = 0; i < MOST; i++) CHECK(x[i] == (i < 1031 ? before[i] + 1.7f * d[i] : before[i]));
        memcpy(y[k], before, sizeof x);
        isas[k].rows->ablate(y[k], d, MOST);
        double along = 0;
        for (int i = 0; i < MOST; i++) along += (double)y[k][i] * d[i];
        CHECK_NEAR(along, 0, 1e-5);
        CHECK(!memcmp(y[k], y[0], sizeof x));
    }
}

/* Attention over paged keys, against softmax in float64; and the same bits whatever the page size and whatever stands in the
 * pages outside first..last. */
enum { HEADS = 3, PAGES = 40, CAPACITY = 256 };

static void test_attention(int bf16, int page_size, int d, int64_t first, int64_t last, float cap, float *result) {
    static float keys[200][512], values[200][512], q[HEADS * 512], out[3][HEADS * 512], scores[HEADS * CAPACITY];
    static char pool[2][PAGES * 16 * 512 * 4];
    int32_t table[PAGES];
    size_t row = (size_t)d * (bf16 ? 2 : 4), stride = row * (size_t)page_size;
    fill(q, HEADS * d, 11, 2);
    memset(pool, 0xff, sizeof pool); /* NaN in both types: nothing outside may be read into a sum */
    for (int i = 0; i < PAGES; i++) table[i] = (i * 7 + 3) % PAGES;
    for (int64_t p = first; p <= last; p++) {
        fill(keys[p], d, 100 + (uint32_t)p, 1), fill(values[p], d, 1000 + (uint32_t)p, 1);
        for (int i = 0; i < d; i++)
            for (int s = 0; s < 2; s++) {
                float *v = s ? &values[p][i] : &keys[p][i];
                char *at = pool[s] + (size_t)table[p / page_size] * stride + (size_t)(p % page_size) * row;
                uint16_t h = pva_f32_to_bf16(*v);
                if (bf16) *v = pva_bf16_to_f32(h), memcpy(at + i * 2, &h, 2);
                else memcpy(at + i * 4, v, 4);
            }
    }
    struct cpu_pages pages = {pool[0], pool[1], stride, table, page_size, d, bf16};
    float scale = 1 / sqrtf((float)d);
    for (int k = 0; k < 3; k++) {
        if (!isas[k].here) continue;
        poison(out[k], HEADS * 512);
        isas[k].rows->attention(q, HEADS, &pages, first, last, scale, cap, scores, CAPACITY, out[k], NULL);
        CHECK(!memcmp(out[k], out[0], sizeof out[0]));
        CHECK(isnan(out[k][HEADS * d]) || d == 512);
    }
    for (int h = 0; h < HEADS; h++) {
        double s[200], total = 0;
        for (int64_t p = first; p <= last; p++) {
            double dot = 0;
            for (int i = 0; i < d; i++) dot += (double)q[h * d + i] * keys[p][i];
            s[p] = dot * scale;
            if (cap > 0) s[p] = cap * tanh(s[p] / cap);
            total += s[p] = exp(s[p]);
        }
        for (int i = 0; i < d; i++) {
            double want = 0;
            for (int64_t p = first; p <= last; p++) want += s[p] / total * values[p][i];
            CHECK_NEAR(out[0][h * d + i], want, 5e-6);
        }
    }
    memcpy(result, out[0], sizeof(float) * (size_t)(HEADS * d));
}

static void test_attention_pages(int bf16, int d, int64_t first, int64_t last, float cap) {
    static float in_16[HEADS * 512], in_5[HEADS * 512];
    test_attention(bf16, 16, d, first, last, cap, in_16);
    test_attention(bf16, 5, d, first, last, cap, in_5);
    CHECK(!memcmp(in_16, in_5, sizeof(float) * (size_t)(HEADS * d)));
}

int main(void) {
    isas[0] = (struct isa){"c", &cpu_rows_c, 1};
    isas[1] = (struct isa){"avx2", &cpu_rows_avx2, 0};
    isas[2] = (struct isa){"avx512", &cpu_rows_avx512, 0};
#if defined(__x86_64__)
    isas[1].here = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    isas[2].here = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#endif
    for (int k = 0; k < 3; k++)
        if (!isas[k].here) CHECK_SKIP("%s: this processor does not have it", isas[k].name);
    test_rmsnorm();
    test_elementwise();
    test_directions();
    int dims[] = {4, 16, 24, 80, 256};
    for (int i = 0; i < 5; i++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            test_attention_pages(bf16, dims[i], 0, 0, 0);
            test_attention_pages(bf16, dims[i], 0, 33, 2);
            test_attention_pages(bf16, dims[i], 21, 37, 0);
            test_attention_pages(bf16, dims[i], 48, 150, 50);
        }
    return check_report("test_cpu_rows");
}
