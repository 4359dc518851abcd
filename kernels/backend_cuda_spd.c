/* backend_cuda_spd.c - the table of a decomposition's operations on one GPU: starts the kernels of cuda_spd*.cu on the backend's stream.
 *
 * One table at a time: whoever uses the backend's other operations meanwhile downloads what they gave first. Nothing returns a status but what allocates
 * and what waits: the first failure is kept, nothing more is started, and the next download tells it. */
#include "backend_cuda_spd.h"
#include "backend_cuda.h"
#include "cuda_spd.h"

#include <cuda_runtime.h>
#include <stdlib.h>

struct spd_cuda {
    struct pva_backend *be;
    const struct pva_backend_ops *ops;
    struct pva_buffer **buffers;
    int n_buffers;
    struct pva_error late;
};

/* ---- memory ---- */

static int open_spd(struct pva_backend *be, void **own, struct pva_error *err) {
    struct spd_cuda *d = calloc(1, sizeof *d);
    if (!d) return pva_fail(err, PVA_IO, "out of memory");
    d->be = be;
    d->ops = pva_backend_cuda_find(err);
    if (!d->ops || d->ops->sync(be, err)) free(d); /* nothing of the other table is under way when this one is used */
    else *own = d;
    return err->code;
}

static void close_spd(void **own) {
    struct spd_cuda *d = *own;
    if (!d) return;
    for (int i = 0; i < d->n_buffers; i++) d->ops->free(d->be, &d->buffers[i]);
    free(d->buffers);
    free(d);
    *own = NULL;
}

static int alloc_spd(void *own, size_t bytes, void **out, struct pva_error *err) {
    struct spd_cuda *d = own;
    struct pva_buffer **grown = realloc(d->buffers, (size_t)(d->n_buffers + 1) * sizeof *grown);
    if (!grown) return pva_fail(err, PVA_IO, "out of memory");
    d->buffers = grown;
    grown[d->n_buffers] = NULL;
    if (d->ops->alloc(d->be, bytes, &grown[d->n_buffers], err)) return err->code;
    *out = pva_cuda_address(grown[d->n_buffers++]);
    return PVA_OK;
}

static void free_spd(void *own, void *p) {
    struct spd_cuda *d = own;
    for (int i = 0; p && i < d->n_buffers; i++) {
        if (pva_cuda_address(d->buffers[i]) != p) continue;
        d->ops->free(d->be, &d->buffers[i]);
        d->buffers[i] = d->buffers[--d->n_buffers];
        return;
    }
}

static void upload_spd(void *own, void *to, const void *host, size_t bytes) {
    struct spd_cuda *d = own;
    if (!d->late.code) pva_cuda_send(d->be, to, host, bytes, &d->late);
}

static int download_spd(void *own, void *host, const void *from, size_t bytes, struct pva_error *err) {
    struct spd_cuda *d = own;
    if (!d->late.code) pva_cuda_receive(d->be, host, from, bytes, &d->late);
    *err = d->late;
    return err->code;
}

/* ---- operations ---- */

static void ran(struct spd_cuda *d, int status, const char *stage) {
    if (status) pva_cuda_started(d->be, status, stage, &d->late);
}

#define RUN(name, ...) \
    struct spd_cuda *d = own; \
    if (!d->late.code) ran(d, pva_cuda_spd_##name(__VA_ARGS__, pva_cuda_stream(d->be)), "decomposition: " #name)

static void zero_spd(void *own, void *p, size_t bytes) {
    struct spd_cuda *d = own;
    if (!d->late.code) ran(d, (int)cudaMemsetAsync(p, 0, bytes, pva_cuda_stream(d->be)), "decomposition: zero");
}

static void clear_spd(void *own, int dim, int n, int ld, float *x) { RUN(clear, dim, n, ld, x); }
static void copy_spd(void *own, int dim, int n, int ld, const float *in, float *out) { RUN(copy, dim, n, ld, in, out); }
static void add_spd(void *own, int dim, int n, int ld, const float *in, float *out) { RUN(add, dim, n, ld, in, out); }
static void relu_spd(void *own, int dim, int n, int ld, const float *in, const float *bias, float *out) { RUN(relu, dim, n, ld, in, bias, out); }
static void relu_backward_spd(void *own, int dim, int n, int ld, const float *out, const float *dout, float *din) {
    RUN(relu_backward, dim, n, ld, out, dout, din);
}
static void absolute_spd(void *own, int dim, int n, int ld, const float *in, float *out) { RUN(absolute, dim, n, ld, in, out); }
static void absolute_backward_spd(void *own, int dim, int n, int ld, const float *in, const float *dout, float *din) {
    RUN(absolute_backward, dim, n, ld, in, dout, din);
}
static void matmul_spd(void *own, int n, int ld, int n_in, int n_out, const float *e, int stride_in, int stride_out, const float *in, float *out) {
    RUN(matmul, n, ld, n_in, n_out, e, stride_in, stride_out, in, out);
}
static void outer_spd(void *own, int n, int ld, int n_in, int n_out, const float *in, const float *dout, float *de) {
    RUN(outer, n, ld, n_in, n_out, in, dout, de);
}
static void product_spd(void *own, int n_i, int n_k, int n_j, const float *a, ptrdiff_t a_row, ptrdiff_t a_col, const float *b, ptrdiff_t b_row,
                        ptrdiff_t b_col, float *out, ptrdiff_t out_row) {
    RUN(product, n_i, n_k, n_j, a, a_row, a_col, b, b_row, b_col, out, out_row);
}
static void sigmoid_spd(void *own, int dim, int n, int ld, enum spd_sigmoid type, const float *x, float *y) { RUN(sigmoid, dim, n, ld, type, x, y); }
static void sigmoid_backward_spd(void *own, int dim, int n, int ld, enum spd_sigmoid type, const float *x, const float *dy, float *dx) {
    RUN(sigmoid_backward, dim, n, ld, type, x, dy, dx);
}
static void mask_spd(void *own, int dim, int n, int ld, const float *a, const float *g, const float *r, float *s) {
    RUN(mask, dim, n, ld, a, g, r, s);
}
static void mask_backward_spd(void *own, int dim, int n, int ld, const float *a, const float *g, const float *r, const float *ds, float *da,
                              float *dg) {
    RUN(mask_backward, dim, n, ld, a, g, r, ds, da, dg);
}
static void uniform_spd(void *own, int dim, int n, int ld, uint64_t seed, uint32_t step, const uint32_t *sample, uint32_t c2, uint32_t c3,
                        float *out) {
    RUN(uniform, dim, n, ld, seed, step, sample, c2, c3, out);
}
static void weighted_count_spd(void *own, int dim, int n, int ld, const float *w, const float *a, float limit, double *counts) {
    RUN(weighted_count, dim, n, ld, w, a, limit, counts);
}
static void negated_spd(void *own, size_t n, const float *x, float *y) { RUN(negated, n, x, y); }
static void scaled_spd(void *own, size_t n, float k, float *x) { RUN(scaled, n, k, x); }
static void adam_spd(void *own, size_t n, const struct spd_adam *a, const float *grad, float *m, float *v, float *p) {
    RUN(adam, n, a, grad, m, v, p);
}
static void transpose_spd(void *own, int n, int m, const float *from, float *to) { RUN(transpose, n, m, from, to); }

/* ---- with work memory ---- */

static void *work_of(struct spd_cuda *d, size_t bytes) {
    void *work = NULL;
    return d->late.code || pva_cuda_work(d->be, bytes, &work, &d->late) ? NULL : work;
}

static void gate_forward_spd(void *own, int n, int ld, int C, const struct spd_gate_shape *g, const float *params, const float *in, int in_step, float *raw,
                             float *cache) {
    const size_t bytes = pva_cuda_spd_gate_bytes(n, C, g);
    void *work = work_of(own, bytes);
    RUN(gate_forward, n, ld, C, g, params, in, in_step, raw, cache, work, bytes);
}

static void gate_backward_spd(void *own, int n, int ld, int C, const struct spd_gate_shape *g, const float *params, const float *in, int in_step,
                              const float *cache, const float *draw, float *dparams, float *din) {
    const size_t bytes = pva_cuda_spd_gate_bytes(n, C, g);
    void *work = work_of(own, bytes);
    RUN(gate_backward, n, ld, C, g, params, in, in_step, cache, draw, dparams, din, work, bytes);
}

static void squares_spd(void *own, int dim, int n, int ld, const float *y, const float *t, const float *w, float scale, float *dy, double *sum) {
    float *row_sums = work_of(own, (size_t)dim * sizeof *row_sums);
    RUN(squares, dim, n, ld, y, t, w, scale, dy, row_sums, sum);
}

static void importance_spd(void *own, int dim, int n, int ld, const float *w, const float *g, double p, float scale, float *dg, double *sum) {
    float *row_sums = work_of(own, (size_t)dim * sizeof *row_sums);
    RUN(importance, dim, n, ld, w, g, p, scale, dg, row_sums, sum);
}

static void sum_squares_spd(void *own, size_t n, const float *x, double *sum) {
    double *block_sums = work_of(own, PVA_CUDA_SPD_SUMS * sizeof *block_sums);
    RUN(sum_squares, n, x, block_sums, sum);
}

const struct pva_spd_ops pva_spd_ops_cuda = {
    .chunk = 1024,
    .open = open_spd,
    .close = close_spd,
    .alloc = alloc_spd,
    .free = free_spd,
    .upload = upload_spd,
    .download = download_spd,
    .zero = zero_spd,
    .clear = clear_spd,
    .copy = copy_spd,
    .add = add_spd,
    .relu = relu_spd,
    .relu_backward = relu_backward_spd,
    .absolute = absolute_spd,
    .absolute_backward = absolute_backward_spd,
    .matmul = matmul_spd,
    .outer = outer_spd,
    .product = product_spd,
    .gate_forward = gate_forward_spd,
    .gate_backward = gate_backward_spd,
    .sigmoid = sigmoid_spd,
    .sigmoid_backward = sigmoid_backward_spd,
    .mask = mask_spd,
    .mask_backward = mask_backward_spd,
    .uniform = uniform_spd,
    .squares = squares_spd,
    .importance = importance_spd,
    .weighted_count = weighted_count_spd,
    .negated = negated_spd,
    .scaled = scaled_spd,
    .sum_squares = sum_squares_spd,
    .adam = adam_spd,
    .transpose = transpose_spd,
};
