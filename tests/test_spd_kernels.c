/* The tables of kernels give the same bits; against plain sums in double they are as exact as float32 allows; GELU against erf;
 * the draws against Philox itself. */
#include "check.h"
#include "cpu_isa.h"
#include "pva/rng.h"
#include "spd/data.h"
#include "spd/kernels.h"

enum { N = 80, LD = 96, IN = 7, OUT = 9 };

static float noise(void) {
    static uint32_t state = 7;
    state = state * 1664525u + 1013904223u;
    return (float)(int32_t)state / 2147483648.f;
}

static void fill(float *p, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = noise();
}

struct outputs {
    float matmul[OUT * LD], outer[IN * OUT], product[IN * OUT], raw[LD], cache[5 * LD], draw_in[LD], dparams[3 * 5 + 1],
        deep_raw[LD], deep_d[200], deep_in[IN * LD], sigmoid[6 * LD], dsigmoid[6 * LD], mask[LD], da[LD], dg[LD], uniform[4 * LD],
        dy[LD], p[LD], m[LD], v[LD];
    double squares, sum, count;
};

static void run(const struct spd_kernels *k, struct outputs *o) {
    static float e[IN * OUT], in[IN * LD], dout[OUT * LD], params[3 * 5 + 1], deep[200], x[LD], g[LD], r[LD], w[LD];
    static uint32_t samples[LD];
    static int once;
    struct spd_gate_shape one = {2, {1, 5, 1}, 16}, many = {3, {IN, 4, 3, 1}, IN * 4 + 4 + 4 * 3 + 3 + 3 + 1};
    if (!once++) {
        fill(e, IN * OUT), fill(in, IN * LD), fill(dout, OUT * LD), fill(params, 16), fill(deep, 200), fill(x, LD), fill(g, LD),
            fill(r, LD);
        for (int i = 0; i < LD; i++) x[i] *= 3, samples[i] = (uint32_t)(1000 + 3 * i), w[i] = i % 5 ? 1 : i % 2 ? 0 : 12;
    }
    memset(o, 0, sizeof *o);
    k->matmul(N, LD, IN, OUT, e, OUT, 1, in, o->matmul);
    k->outer(N, LD, IN, OUT, in, dout, o->outer);
    k->product(IN, N, OUT, in, LD, 1, dout, 1, LD, o->product, OUT);
    k->gate_forward(N, LD, &one, params, x, o->raw, o->cache);
    k->gate_backward(N, LD, &one, params, x, o->cache, dout, o->dparams, o->draw_in);
    float again[16] = {0}, in_again[LD] = {0}; /* without the cache: the same */
    k->gate_backward(N, LD, &one, params, x, NULL, dout, again, in_again);
    CHECK(!memcmp(again, o->dparams, sizeof again) && !memcmp(in_again, o->draw_in, sizeof in_again));
    k->gate_forward(N, LD, &many, deep, in, o->deep_raw, NULL);
    k->gate_backward(N, LD, &many, deep, in, NULL, dout, o->deep_d, o->deep_in);
    for (int t = 0; t < 6; t++) {
        k->sigmoid(N, (enum spd_sigmoid)t, x, o->sigmoid + t * LD);
        k->sigmoid_backward(N, (enum spd_sigmoid)t, x, dout, o->dsigmoid + t * LD);
    }
    k->mask(N, x, g, r, o->mask);
    k->mask_backward(N, x, g, r, dout, o->da, o->dg);
    k->uniform(N, LD, 0x0123456789abcdefu, 17, samples, 5, 9, 4, o->uniform);
    k->squares(N, x, g, w, 0.25f, o->dy, &o->squares);
    struct spd_adam a = {1e-3f, 0.9f, 0.999f, 1e-8f, 0.01f, 0.1f, 0.001f};
    memcpy(o->p, x, sizeof x);
    for (int i = 0; i < 3; i++) k->adam(N, &a, dout, o->m, o->v, o->p);
    o->sum = k->weighted_sum(N, w, x);
    o->count = k->weighted_count(N, w, x, 0.1f);

    if (k != &spd_kernels_c) return;
    double worst = 0;
    for (int j = 0; j < OUT; j++)
        for (int s = 0; s < N; s++) {
            double sum = 0;
            for (int i = 0; i < IN; i++) sum += (double)e[i * OUT + j] * (double)in[i * LD + s];
            worst = fmax(worst, fabs(sum - (double)o->matmul[j * LD + s]));
        }
    CHECK(worst < 7 * 0x1p-24 * IN);
    for (int i = 0; i < IN; i++)
        for (int j = 0; j < OUT; j++) {
            double sum = 0;
            for (int s = 0; s < N; s++) sum += (double)in[i * LD + s] * (double)dout[j * LD + s];
            CHECK_NEAR(o->outer[i * OUT + j], sum, 0x1p-24 * N);
            CHECK_NEAR(o->product[i * OUT + j], sum, 0x1p-24 * N);
        }
    for (int s = 0; s < N; s++) {
        double raw = (double)params[15];
        for (int h = 0; h < 5; h++) {
            double z = (double)params[h] * (double)x[s] + (double)params[5 + h];
            raw += (double)params[10 + h] * z * 0.5 * erfc(-z * M_SQRT1_2);
        }
        CHECK_NEAR(o->raw[s], raw, 3e-6);
        uint32_t counter[4] = {17, samples[s], 5, 9}, key[2] = {0x89abcdefu, 0x01234567u}, words[4];
        pva_philox(counter, key, words);
        for (int i = 0; i < 4; i++) CHECK(o->uniform[i * LD + s] == (float)(words[i] >> 8) * 0x1p-24f);
    }
    for (int i = 0; i < IN * OUT; i++) CHECK(o->outer[i] != 0);
}

/* GELU over its whole range: raw = gelu(z) when the gate is z -> gelu(z). Beyond |z| = 5 the error is that of a constant
 * Phi, 2.9e-7 |z|, besides the 1.2e-7 |z| that Phi's own rounding gives everywhere. */
static void test_gelu(const struct spd_kernels *k) {
    const struct spd_gate_shape one = {2, {1, 1, 1}, 4};
    const float identity[4] = {1, 0, 1, 0};
    double worst = 0, slope = 0;
    for (int block = 0; block < 100; block++) {
        float z[16], raw[16], d[16] = {0}, ones[16], dparams[4] = {0};
        for (int i = 0; i < 16; i++) z[i] = -8 + (float)(block * 16 + i) * 0.01f, ones[i] = 1;
        k->gate_forward(16, 16, &one, identity, z, raw, NULL);
        k->gate_backward(16, 16, &one, identity, z, NULL, ones, dparams, d);
        for (int i = 0; i < 16; i++) {
            double x = (double)z[i], cdf = 0.5 * erfc(-x * M_SQRT1_2), pdf = exp(-x * x / 2) / sqrt(2 * M_PI);
            worst = fmax(worst, fabs((double)raw[i] - x * cdf) / fmax(1, fabs(x)));
            slope = fmax(slope, fabs((double)d[i] - (cdf + x * pdf)));
        }
    }
    CHECK(worst <= 4.2e-7);
    CHECK(slope <= 4e-7);
}

/* Rows are shared out to samples by index alone, and rates are what they should be. */
static void test_data(const struct spd_kernels *k) {
    enum { S = 4096, F = 5 };
    static float x[F * S], y[F * 64];
    struct spd_data d = {.n_features = F, .probability = 0.05f, .low = 0, .high = 1};
    spd_data_fill(&d, k, 3, 7, SPD_DRAW_TRAIN, 0, S, S, x);
    spd_data_fill(&d, k, 3, 7, SPD_DRAW_TRAIN, 1000, 50, 64, y);
    int active = 0, zero = 0;
    for (int s = 0; s < S; s++) {
        int any = 0;
        for (int f = 0; f < F; f++) any += x[f * S + s] != 0;
        active += any;
        zero += !any;
    }
    CHECK_NEAR(active, 0.05 * F * S, 4 * sqrt(0.05 * 0.95 * F * S)); /* four standard errors of a fixed draw */
    CHECK_NEAR(zero, 0.7738 * S, 4 * sqrt(0.7738 * 0.2262 * S));
    for (int f = 0; f < F; f++)
        for (int s = 0; s < 64; s++) CHECK(y[f * 64 + s] == (s < 50 ? x[f * S + 1000 + s] : 0));
    for (int n = 1; n <= 5; n++) {
        d.n_active = n;
        spd_data_fill(&d, k, 3, 7, SPD_DRAW_TRAIN, 0, 320, S, x);
        for (int s = 0; s < 320; s++) {
            int any = 0;
            for (int f = 0; f < F; f++) any += x[f * S + s] != 0;
            CHECK_INT(any, n);
        }
    }
    const int groups[F] = {0, -1, 0, 1, 1};
    d = (struct spd_data){.n_features = F, .probability = 0.2f, .low = -1, .high = 1, .synced = groups};
    spd_data_fill(&d, k, 3, 7, SPD_DRAW_TRAIN, 0, 512, S, x);
    int together = 0;
    for (int s = 0; s < 512; s++) {
        CHECK((x[s] != 0) == (x[2 * S + s] != 0));
        CHECK((x[3 * S + s] != 0) == (x[4 * S + s] != 0));
        together += x[s] != 0;
    }
    CHECK_NEAR(together, 512 * 0.36, 4 * sqrt(512 * 0.36 * 0.64));
}

int main(void) {
    static struct outputs plain, other;
    run(&spd_kernels_c, &plain);
    test_gelu(&spd_kernels_c);
    test_data(&spd_kernels_c);
    const struct {
        enum cpu_isa isa;
        const struct spd_kernels *table;
    } fast[] = {{CPU_AVX2, &spd_kernels_avx2}, {CPU_AVX512, &spd_kernels_avx512}};
    for (int i = 0; i < 2; i++) {
        if (!cpu_isa_available(fast[i].isa)) {
            CHECK_SKIP("%s: this machine does not have it", cpu_isa_name(fast[i].isa));
            continue;
        }
        run(fast[i].table, &other);
        CHECK(!memcmp(&plain, &other, sizeof plain));
        test_gelu(fast[i].table);
        test_data(fast[i].table);
    }
    return check_report("test_spd_kernels");
}
