/* The operations of a decomposition on the processor: whole nodes, row by row with the loops of one instruction set. */
#include "device.h"

#include <stdlib.h>
#include <string.h>

#define K ((const struct spd_kernels *)own)
#define ROW(x) ((x) + (size_t)r * (size_t)ld)

static int cpu_alloc(void *own, size_t bytes, void **out, struct pva_error *err) {
    (void)own;
    size_t whole = bytes ? (bytes + 63) / 64 * 64 : 64;
    *out = aligned_alloc(64, whole);
    if (!*out) return pva_fail(err, PVA_IO, "out of memory");
    memset(*out, 0, whole);
    return PVA_OK;
}

static void cpu_free(void *own, void *p) {
    (void)own;
    free(p);
}

static void cpu_upload(void *own, void *to, const void *host, size_t bytes) {
    (void)own;
    if (to != host && bytes) memcpy(to, host, bytes);
}

static int cpu_download(void *own, void *host, const void *from, size_t bytes, struct pva_error *err) {
    (void)own, (void)err;
    if (host != from && bytes) memcpy(host, from, bytes);
    return PVA_OK;
}

static void zero(void *own, void *p, size_t bytes) {
    (void)own;
    memset(p, 0, bytes);
}

/* ---- element by element ---- */

static void clear(void *own, int dim, int n, int ld, real *x) {
    (void)own;
    for (int r = 0; r < dim; r++) memset(ROW(x), 0, (size_t)n * sizeof *x);
}

static void copy(void *own, int dim, int n, int ld, const real *in, real *out) {
    (void)own;
    for (int r = 0; r < dim; r++) memcpy(ROW(out), ROW(in), (size_t)n * sizeof *out);
}

static void add(void *own, int dim, int n, int ld, const real *in, real *out) {
    (void)own;
    for (int r = 0; r < dim; r++) {
        const real *x = ROW(in);
        real *y = ROW(out);
        for (int s = 0; s < n; s++) y[s] += x[s];
    }
}

static void relu(void *own, int dim, int n, int ld, const real *in, const real *bias, real *out) {
    (void)own;
    for (int r = 0; r < dim; r++) {
        const real b = bias ? bias[r] : 0, *x = ROW(in);
        real *y = ROW(out);
        for (int s = 0; s < n; s++) y[s] = x[s] + b > 0 ? x[s] + b : 0;
    }
}

static void relu_backward(void *own, int dim, int n, int ld, const real *out, const real *dout, real *din) {
    (void)own;
    for (int r = 0; r < dim; r++) {
        const real *y = ROW(out), *d = ROW(dout);
        real *dx = ROW(din);
        for (int s = 0; s < n; s++) dx[s] += y[s] > 0 ? d[s] : 0;
    }
}

static void absolute(void *own, int dim, int n, int ld, const real *in, real *out) {
    (void)own;
    for (int r = 0; r < dim; r++) {
        const real *x = ROW(in);
        real *y = ROW(out);
        for (int s = 0; s < n; s++) y[s] = x[s] < 0 ? -x[s] : x[s];
    }
}

static void absolute_backward(void *own, int dim, int n, int ld, const real *in, const real *dout, real *din) {
    (void)own;
    for (int r = 0; r < dim; r++) {
        const real *x = ROW(in), *d = ROW(dout);
        real *dx = ROW(din);
        for (int s = 0; s < n; s++) dx[s] += x[s] < 0 ? -d[s] : x[s] > 0 ? d[s] : 0;
    }
}

static void sigmoid(void *own, int dim, int n, int ld, enum spd_sigmoid type, const real *x, real *y) {
    for (int r = 0; r < dim; r++) K->sigmoid(n, type, ROW(x), ROW(y));
}

static void sigmoid_backward(void *own, int dim, int n, int ld, enum spd_sigmoid type, const real *x, const real *dy, real *dx) {
    for (int r = 0; r < dim; r++) K->sigmoid_backward(n, type, ROW(x), ROW(dy), ROW(dx));
}

static void mask(void *own, int dim, int n, int ld, const real *a, const real *g, const real *m, real *s) {
    for (int r = 0; r < dim; r++) K->mask(n, ROW(a), ROW(g), ROW(m), ROW(s));
}

static void mask_backward(void *own, int dim, int n, int ld, const real *a, const real *g, const real *m, const real *ds,
                          real *da, real *dg) {
    for (int r = 0; r < dim; r++) K->mask_backward(n, ROW(a), ROW(g), ROW(m), ROW(ds), ROW(da), ROW(dg));
}

static void uniform(void *own, int dim, int n, int ld, uint64_t seed, uint32_t step, const uint32_t *sample, uint32_t c2,
                    uint32_t c3, real *out) {
    for (int r = 0; r < dim; r += 4)
        K->uniform(n, ld, seed, step, sample, c2 + (uint32_t)r / 4, c3, dim - r < 4 ? dim - r : 4, ROW(out));
}

/* ---- products and gates ---- */

static void matmul(void *own, int n, int ld, int n_in, int n_out, const real *e, int stride_in, int stride_out, const real *in,
                   real *out) {
    K->matmul(n, ld, n_in, n_out, e, stride_in, stride_out, in, out);
}

static void outer(void *own, int n, int ld, int n_in, int n_out, const real *in, const real *dout, real *de) {
    K->outer(n, ld, n_in, n_out, in, dout, de);
}

static void product(void *own, int n_i, int n_k, int n_j, const real *a, ptrdiff_t a_row, ptrdiff_t a_col, const real *b,
                    ptrdiff_t b_row, ptrdiff_t b_col, real *out, ptrdiff_t out_row) {
    K->product(n_i, n_k, n_j, a, a_row, a_col, b, b_row, b_col, out, out_row);
}

static void gate_forward(void *own, int n, int ld, int C, const struct spd_gate_shape *g, const real *params, const real *in,
                         int in_step, real *raw, real *cache) {
    for (int r = 0; r < C; r++)
        K->gate_forward(n, ld, g, params + (size_t)r * (size_t)g->n_params, in + (size_t)r * (size_t)in_step, ROW(raw),
                        cache ? ROW(cache) + (size_t)r * (size_t)(g->d[1] - 1) * (size_t)ld : NULL);
}

static void gate_backward(void *own, int n, int ld, int C, const struct spd_gate_shape *g, const real *params, const real *in,
                          int in_step, const real *cache, const real *draw, real *dparams, real *din) {
    for (int r = 0; r < C; r++)
        K->gate_backward(n, ld, g, params + (size_t)r * (size_t)g->n_params, in + (size_t)r * (size_t)in_step,
                         cache ? ROW(cache) + (size_t)r * (size_t)(g->d[1] - 1) * (size_t)ld : NULL, ROW(draw),
                         dparams + (size_t)r * (size_t)g->n_params, din ? din + (size_t)r * (size_t)in_step : NULL);
}

/* ---- losses ---- */

static void squares(void *own, int dim, int n, int ld, const real *y, const real *t, const real *w, real scale, real *dy,
                    double *sum) {
    for (int r = 0; r < dim; r++) K->squares(n, ROW(y), ROW(t), w, scale, dy ? ROW(dy) : NULL, sum);
}

static void importance(void *own, int dim, int n, int ld, const real *w, const real *g, double p, real scale, real *dg,
                       double *sum) {
    real terms[SPD_MOST_COLUMNS];
    for (int r = 0; r < dim; r++) {
        const real *x = ROW(g);
        for (int s = 0; s < n; s++) terms[s] = spd_power(x[s] + (real)1e-12, p);
        *sum += K->weighted_sum(n, w, terms);
        real *d = dg ? ROW(dg) : NULL;
        for (int s = 0; s < n && d; s++)
            d[s] += scale * w[s] * (p == 1 ? 1 : p == 2 ? x[s] + (real)1e-12 : spd_power(x[s] + (real)1e-12, p - 1));
    }
}

static void weighted_count(void *own, int dim, int n, int ld, const real *w, const real *a, real limit, double *counts) {
    for (int r = 0; r < dim; r++) counts[r] += K->weighted_count(n, w, ROW(a), limit);
}

/* ---- vectors ---- */

static void negated(void *own, size_t n, const real *x, real *y) {
    (void)own;
    for (size_t i = 0; i < n; i++) y[i] = -x[i];
}

static void scaled(void *own, size_t n, real k, real *x) {
    (void)own;
    for (size_t i = 0; i < n; i++) x[i] *= k;
}

static void sum_squares(void *own, size_t n, const real *x, double *sum) {
    (void)own;
    double total = *sum;
    for (size_t i = 0; i < n; i++) total += (double)x[i] * (double)x[i];
    *sum = total;
}

static void adam(void *own, size_t n, const struct spd_adam *a, const real *grad, real *m, real *v, real *p) {
    K->adam(n, a, grad, m, v, p);
}

static void transpose(void *own, int n, int m, const real *from, real *to) {
    (void)own;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++) to[(size_t)j * (size_t)n + (size_t)i] = from[(size_t)i * (size_t)m + (size_t)j];
}

static const struct pva_spd_ops ops_cpu = {
    .is_host = 1,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_upload,
    .download = cpu_download,
    .zero = zero,
    .clear = clear,
    .copy = copy,
    .add = add,
    .relu = relu,
    .relu_backward = relu_backward,
    .absolute = absolute,
    .absolute_backward = absolute_backward,
    .matmul = matmul,
    .outer = outer,
    .product = product,
    .gate_forward = gate_forward,
    .gate_backward = gate_backward,
    .sigmoid = sigmoid,
    .sigmoid_backward = sigmoid_backward,
    .mask = mask,
    .mask_backward = mask_backward,
    .uniform = uniform,
    .squares = squares,
    .importance = importance,
    .weighted_count = weighted_count,
    .negated = negated,
    .scaled = scaled,
    .sum_squares = sum_squares,
    .adam = adam,
    .transpose = transpose,
};

struct spd_device spd_device_cpu(const struct spd_kernels *k) {
    return (struct spd_device){&ops_cpu, (void *)k};
}
