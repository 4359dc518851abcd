/* RMS norm, its two fusions: against the CPU backend's and against float64. */
#include "cpu_rows.h"
#include "twin.h"

static const float eps = 1e-6f;

/* |result - exact| in units of |exact|: the mean of d squares in T lanes loses at most (4 ceil(d / 4T) + log2 T + 1) roundings, halved by the
 * root; then root, division, and three products and sums, half a unit each (the sum 1 + w may cancel: taken from its own size below). */
static double roundings(int64_t d) {
    int64_t lanes = d <= 512 ? 128 : 512;
    return ((double)((d + 4 * lanes - 1) / (4 * lanes) * 4) + 12) / 2 + 6;
}
static double cpu_roundings(int64_t d) { return ((double)(d + 15) / 16 + 6) / 2 + 6; }

static void exact_norm(const float *x, const float *w, int64_t d, double *y) {
    double sum = 0;
    for (int64_t i = 0; i < d; i++) sum += (double)x[i] * x[i];
    for (int64_t i = 0; i < d; i++) y[i] = x[i] / sqrt(sum / (double)d + (double)eps) * (1 + (double)w[i]);
}

static void check_shape(int64_t n, int64_t d, double scale, size_t shift) {
    size_t all = (size_t)(n * d), bytes = all * 4;
    twin_shift = shift;
    float *x = twin_alloc(bytes), *resid = twin_alloc(bytes), *w = twin_alloc((size_t)d * 4), *next = twin_alloc((size_t)d * 4);
    float *y = twin_alloc(bytes), *sum = twin_alloc(bytes), *fused_sum = twin_alloc(bytes), *fused = twin_alloc(bytes), *cpu = twin_alloc(bytes);
    uint16_t *y16 = twin_alloc(all * 2), *rounded = twin_alloc(all * 2), *fused16 = twin_alloc(all * 2);
    double *want = twin_alloc(all * 8), *added = twin_alloc(all * 8);
    twin_fill(x, all, 1, scale), twin_fill(resid, all, 2, 1);
    /* In the last row nothing stands out, so that every element counts in the sum. */
    for (int64_t i = 0; n && i < d; i++) x[(n - 1) * d + i] = (float)(scale * (1 + 0.5 * sin((double)(3 * i))));
    for (int64_t i = 0; i < d; i++) w[i] = (float)(0.3 * sin((double)i)), next[i] = (float)(0.2 * cos((double)i));
    struct twin_buffer dx = twin_new(x, bytes), dw = twin_new(w, (size_t)d * 4), dnext = twin_new(next, (size_t)d * 4);
    struct twin_buffer dy = twin_new(NULL, bytes), dy16 = twin_new(NULL, all * 2), dresid = twin_new(resid, bytes);
    struct twin_buffer fresid = twin_new(resid, bytes), fy = twin_new(NULL, bytes), fresid2 = twin_new(resid, bytes), fy16 = twin_new(NULL, all * 2);
    struct twin_buffer dsecond = twin_new(NULL, bytes);
    const float *px = (float *)dx.p, *pw = (float *)dw.p, *pnext = (float *)dnext.p;

    CHECK_CUDA(pva_cuda_rmsnorm(px, pw, eps, n, d, dy.p, PVA_F32, NULL));
    CHECK_CUDA(pva_cuda_rmsnorm(px, pw, eps, n, d, dy16.p, PVA_BF16, NULL));
    CHECK_CUDA(pva_cuda_rmsnorm_add(px, pw, eps, n, d, (float *)dresid.p, NULL));
    CHECK_CUDA(pva_cuda_rmsnorm((float *)dresid.p, pnext, eps, n, d, dsecond.p, PVA_F32, NULL));
    CHECK_CUDA(pva_cuda_rmsnorm_add_rmsnorm(px, pw, pnext, eps, n, d, (float *)fresid.p, fy.p, PVA_F32, NULL));
    CHECK_CUDA(pva_cuda_rmsnorm_add_rmsnorm(px, pw, pnext, eps, n, d, (float *)fresid2.p, fy16.p, PVA_BF16, NULL));
    twin_read(&dy, y), twin_read(&dy16, y16), twin_read(&dresid, sum), twin_read(&fresid, fused_sum);
    twin_read(&dx, NULL), twin_read(&dw, NULL), twin_read(&dnext, NULL);

    const double unit = 0x1p-24 * 1.01, tolerance = roundings(d) * unit;
    for (int64_t i = 0; i < n; i++) exact_norm(x + i * d, w, d, want + i * d);
    CHECK_INT(twin_differ(y, want, all, tolerance, 1e-37), 0);
    for (size_t i = 0; i < all; i++) rounded[i] = pva_f32_to_bf16(y[i]);
    CHECK_INT(twin_differ_bits_bf16(y16, rounded, all), 0);
    /* The twin: both are within their own bounds of the exact value. */
    for (int64_t i = 0; i < n; i++) cpu_rows_c.rmsnorm(x + i * d, w, eps, d, cpu + i * d, NULL, NULL);
    for (size_t i = 0; i < all; i++) want[i] = cpu[i];
    CHECK_INT(twin_differ(y, want, all, tolerance + cpu_roundings(d) * unit, 1e-37), 0);
    /* The sum with the residual stream is one more operation on y. */
    for (size_t i = 0; i < all; i++) cpu[i] = resid[i] + y[i];
    CHECK_INT(twin_differ_bits(sum, cpu, all), 0);
    CHECK_INT(twin_differ_bits(fused_sum, sum, all), 0);
    twin_read(&fresid2, fused_sum);
    CHECK_INT(twin_differ_bits(fused_sum, sum, all), 0);
    /* The fusion has the bits of its parts. */
    twin_read(&dsecond, y), twin_read(&fy, fused), twin_read(&fy16, fused16);
    CHECK_INT(twin_differ_bits(fused, y, all), 0);
    for (size_t i = 0; i < all; i++) rounded[i] = pva_f32_to_bf16(y[i]);
    CHECK_INT(twin_differ_bits_bf16(fused16, rounded, all), 0);

    struct twin_buffer *buffers[] = {&dx, &dw, &dnext, &dy, &dy16, &dresid, &fresid, &fy, &fresid2, &fy16, &dsecond};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) twin_free(buffers[i]);
    void *host[] = {x, resid, w, next, y, sum, fused_sum, fused, cpu, y16, rounded, fused16, want, added};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++) free(host[i]);
}

/* A row's result does not depend on the rows beside it, and a NaN stays in its row. */
static void check_rows_alone(void) {
    enum { N = 5, D = 2304 };
    static float x[N * D], w[D], all[N * D], one[D];
    twin_shift = 0;
    twin_fill(x, N * D, 3, 1), twin_fill(w, D, 4, 0.1);
    x[2 * D + 100] = NAN;
    struct twin_buffer dx = twin_new(x, sizeof x), dw = twin_new(w, sizeof w), dy = twin_new(NULL, sizeof x), done = twin_new(NULL, sizeof one);
    CHECK_CUDA(pva_cuda_rmsnorm((float *)dx.p, (float *)dw.p, eps, N, D, dy.p, PVA_F32, NULL));
    twin_read(&dy, all);
    for (int i = 0; i < N; i++) {
        CHECK_CUDA(pva_cuda_rmsnorm((float *)dx.p + i * D, (float *)dw.p, eps, 1, D, done.p, PVA_F32, NULL));
        twin_read(&done, one);
        CHECK_INT(twin_differ_bits(all + i * D, one, D), 0);
        int nan = 0;
        for (int j = 0; j < D; j++) nan += isnan(one[j]) != 0;
        CHECK_INT(nan, i == 2 ? D : 0);
    }
    twin_free(&dx), twin_free(&dw), twin_free(&dy), twin_free(&done);
}

int main(void) {
    twin_start();
    twin_check_comparators();
    for (int i = 0; twin_order(i); i++) {
        check_shape(0, 2304, 1, 0);
        check_shape(3, 1, 1, 0);
        check_shape(3, 7, 1, 0);
        check_shape(3, 7, 1, 4);
        check_shape(2, 509, 30, 4);
        check_shape(2, 512, 1e-4, 0);
        check_shape(2, 1031, 1, 0);
        check_shape(2, 2304, 3, 0);
        check_shape(2, 2304, 3, 4);
        check_shape(1, 3584, 100, 0);
        check_shape(1, 4608, 1, 0);
        check_shape(1, 8192, 1, 0);
        check_shape(1, 10007, 1, 0); /* longer than what stays in registers */
        check_shape(1, 12288, 1, 0);
        check_rows_alone();
    }
    return check_report("twin_norm");
}
