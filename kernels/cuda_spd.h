/* cuda_spd.h - launchers of a decomposition's operations (pva/spd_device.h): src/spd/kernels.h again, for whole nodes.
 *
 * As in kernels.h: device pointers, a stream, 0 or a cudaError_t; nothing is checked that the graph has checked. A node is [dim][ld], n of ld in use, n a
 * multiple of SPD_LANES. The CPU's bits wherever an operation has no exp and no pow: the same partial sums, joined in the same tree, one fused multiply-add
 * where the CPU has one. */
#ifndef PVA_CUDA_SPD_H
#define PVA_CUDA_SPD_H

#include "pva/spd_device.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

/* ---- cuda_spd_product.cu ---- */

/* out[j] += sum_i e[i * stride_in + j * stride_out] * in[i], for all samples, in the order of i */
int pva_cuda_spd_matmul(int n, int ld, int n_in, int n_out, const float *e, int stride_in, int stride_out, const float *in, float *out,
                        struct CUstream_st *stream);
/* de[i * n_out + j] += sum over samples of in[i] * dout[j] */
int pva_cuda_spd_outer(int n, int ld, int n_in, int n_out, const float *in, const float *dout, float *de, struct CUstream_st *stream);
/* out[i][j] += sum_k a[i * a_row + k * a_col] * b[k * b_row + j * b_col], in the order of k; for matrices, not samples */
int pva_cuda_spd_product(int n_i, int n_k, int n_j, const float *a, ptrdiff_t a_row, ptrdiff_t a_col, const float *b, ptrdiff_t b_row, ptrdiff_t b_col,
                         float *out, ptrdiff_t out_row, struct CUstream_st *stream);

/* ---- cuda_spd_gate.cu ---- */

/* The gates of n_components components, parameters side by side. Component c reads in + c * in_step: in_step is ld where each has an input row of its own, 0
 * where all read the same [d[0]][ld]. raw, draw [n_components][ld]; cache, unless NULL, [n_components][hidden][ld] for a scalar gate with one hidden layer.
 * Backward adds to dparams and, unless din is NULL, to din, component after component where they share it. work: work_bytes, aligned to 4, what
 * pva_cuda_spd_gate_bytes says or at least that of one component. */
int pva_cuda_spd_gate_forward(int n, int ld, int n_components, const struct spd_gate_shape *g, const float *params, const float *in, int in_step, float *raw,
                              float *cache, void *work, size_t work_bytes, struct CUstream_st *stream);
int pva_cuda_spd_gate_backward(int n, int ld, int n_components, const struct spd_gate_shape *g, const float *params, const float *in, int in_step,
                               const float *cache, const float *draw, float *dparams, float *din, void *work, size_t work_bytes,
                               struct CUstream_st *stream);
size_t pva_cuda_spd_gate_bytes(int n, int n_components, const struct spd_gate_shape *g);

/* ---- cuda_spd_rows.cu: [dim][ld] each ---- */

/* exp: SPD_NORMAL and SPD_SWISH_HARD have the device's. backward: dx += dy * slope */
int pva_cuda_spd_sigmoid(int dim, int n, int ld, enum spd_sigmoid type, const float *x, float *y, struct CUstream_st *stream);
int pva_cuda_spd_sigmoid_backward(int dim, int n, int ld, enum spd_sigmoid type, const float *x, const float *dy, float *dx, struct CUstream_st *stream);
/* s = a * (g + (1 - g) * r); backward: da += ds * m, dg += ds * a * (1 - r) */
int pva_cuda_spd_mask(int dim, int n, int ld, const float *a, const float *g, const float *r, float *s, struct CUstream_st *stream);
int pva_cuda_spd_mask_backward(int dim, int n, int ld, const float *a, const float *g, const float *r, const float *ds, float *da, float *dg,
                               struct CUstream_st *stream);
/* Uniform draws in [0, 1), multiples of 2^-24: row r is word r % 4 of Philox of counter {step, sample[s], c2 + r / 4, c3} */
int pva_cuda_spd_uniform(int dim, int n, int ld, uint64_t seed, uint32_t step, const uint32_t *sample, uint32_t c2, uint32_t c3, float *out,
                         struct CUstream_st *stream);

int pva_cuda_spd_clear(int dim, int n, int ld, float *x, struct CUstream_st *stream);
int pva_cuda_spd_copy(int dim, int n, int ld, const float *in, float *out, struct CUstream_st *stream);
int pva_cuda_spd_add(int dim, int n, int ld, const float *in, float *out, struct CUstream_st *stream);
/* max(in + bias, 0), bias [dim] or NULL; backward: din += dout where out > 0 */
int pva_cuda_spd_relu(int dim, int n, int ld, const float *in, const float *bias, float *out, struct CUstream_st *stream);
int pva_cuda_spd_relu_backward(int dim, int n, int ld, const float *out, const float *dout, float *din, struct CUstream_st *stream);
int pva_cuda_spd_absolute(int dim, int n, int ld, const float *in, float *out, struct CUstream_st *stream);
int pva_cuda_spd_absolute_backward(int dim, int n, int ld, const float *in, const float *dout, float *din, struct CUstream_st *stream);

/* Below: row_sums [dim] floats of work memory; *sum += the rows' sums in their order, in double. */

/* (y - t)^2 where w[s] != 0; unless NULL, dy = scale * (y - t) on those samples and 0 elsewhere */
int pva_cuda_spd_squares(int dim, int n, int ld, const float *y, const float *t, const float *w, float scale, float *dy, float *row_sums, double *sum,
                         struct CUstream_st *stream);
/* w[s] * x^p with x = g + 1e-12; unless NULL, dg += scale * w[s] * x^(p - 1). pow: the device's where p or p - 1 is not 1 or 2. */
int pva_cuda_spd_importance(int dim, int n, int ld, const float *w, const float *g, double p, float scale, float *dg, float *row_sums, double *sum,
                            struct CUstream_st *stream);
/* counts[r] += sum over samples of w[s] where a[s] > limit */
int pva_cuda_spd_weighted_count(int dim, int n, int ld, const float *w, const float *a, float limit, double *counts, struct CUstream_st *stream);

/* ---- vectors ---- */

int pva_cuda_spd_negated(size_t n, const float *x, float *y, struct CUstream_st *stream);
int pva_cuda_spd_scaled(size_t n, float k, float *x, struct CUstream_st *stream);
/* In double, block_sums [PVA_CUDA_SPD_SUMS] of work memory: 1,024 numbers to a block, 256 threads each, joined pairwise. Not the CPU's order. */
enum { PVA_CUDA_SPD_SUMS = 256 };
int pva_cuda_spd_sum_squares(size_t n, const float *x, double *block_sums, double *sum, struct CUstream_st *stream);
/* to [m][n] = from [n][m] */
int pva_cuda_spd_transpose(int n, int m, const float *from, float *to, struct CUstream_st *stream);
int pva_cuda_spd_adam(size_t n, const struct spd_adam *a, const float *grad, float *m, float *v, float *p, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
#endif
