/* spd_device.h - what a decomposition (spd.h) asks of the device that computes it. src/spd/ops_cpu.c and kernels/backend_cuda_spd.c fill the table.
 *
 * A chunk of samples lies as [dimension][sample]: row r of a node is `ld` numbers long, the first n of them in use, n a multiple of SPD_LANES. Sums over
 * samples are kept in SPD_LANES partial sums (sample s belongs to lane s % SPD_LANES), each in the order of the samples, and joined in one tree: lane l with
 * l + 8, then 4, 2, 1. Every device that keeps to it has the same bits, but for exp and pow.
 */
#ifndef PVA_SPD_DEVICE_H
#define PVA_SPD_DEVICE_H

#include "pva/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef PVA_SPD_REAL
#define PVA_SPD_REAL float /* the test of the gradients compiles the CPU's side in double */
#endif
typedef PVA_SPD_REAL pva_spd_real;

enum { SPD_LANES = 16 };

enum spd_sigmoid { SPD_NORMAL, SPD_HARD, SPD_LEAKY_HARD, SPD_UPPER_LEAKY_HARD, SPD_LOWER_LEAKY_HARD, SPD_SWISH_HARD };

/* A small network per component: widths d[0] -> d[1] -> ... -> d[n] = 1, exact GELU between. Its numbers lie together: for each
 * layer the matrix [d[l]][d[l+1]], then the bias [d[l+1]]. */
enum { SPD_MAX_GATE_LAYERS = 6, SPD_MAX_GATE_WIDTH = 1024 };
struct spd_gate_shape {
    int n_layers; /* matrices */
    int d[SPD_MAX_GATE_LAYERS + 1];
    int n_params; /* per component */
};

struct spd_adam {
    pva_spd_real lr, beta1, beta2, eps, decay; /* decay: p *= 1 - lr * decay first (AdamW) */
    pva_spd_real correction1, correction2;     /* 1 - beta^t */
};

/* Addresses are the device's own. `own` is what open gave. An operation starts and returns; what fails is told by the next download, which waits. "sum" and
 * "counts" are doubles on the device, added to. A node is [dim][ld] with n samples. */
struct pva_spd_ops {
    int is_host; /* the device's memory is the host's */
    int chunk;   /* samples of a chunk at most, a multiple of SPD_LANES; 0: what fits a processor's caches */

    int (*open)(struct pva_backend *be, void **own, struct pva_error *err);
    void (*close)(void **own);
    int (*alloc)(void *own, size_t bytes, void **out, struct pva_error *err); /* zeroed, aligned to 64 */
    void (*free)(void *own, void *p);
    void (*upload)(void *own, void *to, const void *host, size_t bytes); /* the host's memory may be reused at once */
    int (*download)(void *own, void *host, const void *from, size_t bytes, struct pva_error *err);
    void (*zero)(void *own, void *p, size_t bytes);

    void (*clear)(void *own, int dim, int n, int ld, pva_spd_real *x);
    void (*copy)(void *own, int dim, int n, int ld, const pva_spd_real *in, pva_spd_real *out);
    void (*add)(void *own, int dim, int n, int ld, const pva_spd_real *in, pva_spd_real *out);
    /* max(in + bias, 0), bias [dim] or NULL; backward: din += dout where out > 0 */
    void (*relu)(void *own, int dim, int n, int ld, const pva_spd_real *in, const pva_spd_real *bias, pva_spd_real *out);
    void (*relu_backward)(void *own, int dim, int n, int ld, const pva_spd_real *out, const pva_spd_real *dout, pva_spd_real *din);
    /* |in|, with slope 0 at 0 */
    void (*absolute)(void *own, int dim, int n, int ld, const pva_spd_real *in, pva_spd_real *out);
    void (*absolute_backward)(void *own, int dim, int n, int ld, const pva_spd_real *in, const pva_spd_real *dout, pva_spd_real *din);

    /* out[j] += sum_i e[i * stride_in + j * stride_out] * in[i], for all samples */
    void (*matmul)(void *own, int n, int ld, int n_in, int n_out, const pva_spd_real *e, int stride_in, int stride_out, const pva_spd_real *in,
                   pva_spd_real *out);
    /* de[i * n_out + j] += sum over samples of in[i] * dout[j] */
    void (*outer)(void *own, int n, int ld, int n_in, int n_out, const pva_spd_real *in, const pva_spd_real *dout, pva_spd_real *de);
    /* out[i][j] += sum_k a[i * a_row + k * a_col] * b[k * b_row + j * b_col], in the order of k; for matrices, not samples */
    void (*product)(void *own, int n_i, int n_k, int n_j, const pva_spd_real *a, ptrdiff_t a_row, ptrdiff_t a_col, const pva_spd_real *b, ptrdiff_t b_row,
                    ptrdiff_t b_col, pva_spd_real *out, ptrdiff_t out_row);

    /* The gates of C components, parameters side by side. Component c reads in + c * in_step: ld, or 0 where all read the same [d[0]][ld]. raw, draw
     * [C][ld]; cache, unless NULL, [C][hidden][ld] for a scalar gate with one hidden layer. Backward adds to dparams and, unless NULL, to din. */
    void (*gate_forward)(void *own, int n, int ld, int C, const struct spd_gate_shape *g, const pva_spd_real *params, const pva_spd_real *in, int in_step,
                         pva_spd_real *raw, pva_spd_real *cache);
    void (*gate_backward)(void *own, int n, int ld, int C, const struct spd_gate_shape *g, const pva_spd_real *params, const pva_spd_real *in, int in_step,
                          const pva_spd_real *cache, const pva_spd_real *draw, pva_spd_real *dparams, pva_spd_real *din);

    /* backward: dx += dy * slope, with the slope that the method prescribes */
    void (*sigmoid)(void *own, int dim, int n, int ld, enum spd_sigmoid type, const pva_spd_real *x, pva_spd_real *y);
    void (*sigmoid_backward)(void *own, int dim, int n, int ld, enum spd_sigmoid type, const pva_spd_real *x, const pva_spd_real *dy, pva_spd_real *dx);
    /* s = a * (g + (1 - g) * r); backward: da += ds * m, dg += ds * a * (1 - r) */
    void (*mask)(void *own, int dim, int n, int ld, const pva_spd_real *a, const pva_spd_real *g, const pva_spd_real *r, pva_spd_real *s);
    void (*mask_backward)(void *own, int dim, int n, int ld, const pva_spd_real *a, const pva_spd_real *g, const pva_spd_real *r, const pva_spd_real *ds,
                          pva_spd_real *da, pva_spd_real *dg);
    /* Uniform draws in [0, 1), multiples of 2^-24: row r is word r % 4 of Philox of counter {step, sample[s], c2 + r / 4, c3} */
    void (*uniform)(void *own, int dim, int n, int ld, uint64_t seed, uint32_t step, const uint32_t *sample, uint32_t c2, uint32_t c3, pva_spd_real *out);

    /* (y - t)^2 where w[s] != 0; unless NULL, dy = scale * (y - t) on those samples and 0 elsewhere. Rows are added in their order, in double. */
    void (*squares)(void *own, int dim, int n, int ld, const pva_spd_real *y, const pva_spd_real *t, const pva_spd_real *w, pva_spd_real scale,
                    pva_spd_real *dy, double *sum);
    /* w[s] * x^p with x = g + 1e-12, rows as above; unless NULL, dg += scale * w[s] * x^(p - 1) */
    void (*importance)(void *own, int dim, int n, int ld, const pva_spd_real *w, const pva_spd_real *g, double p, pva_spd_real scale, pva_spd_real *dg,
                       double *sum);
    /* counts[r] += sum over samples of w[s] where a[s] > limit */
    void (*weighted_count)(void *own, int dim, int n, int ld, const pva_spd_real *w, const pva_spd_real *a, pva_spd_real limit, double *counts);

    /* Vectors: y = -x; x *= k; the sum of squares in double, in an order of the device; AdamW. to [m][n] = from [n][m] transposed */
    void (*negated)(void *own, size_t n, const pva_spd_real *x, pva_spd_real *y);
    void (*scaled)(void *own, size_t n, pva_spd_real k, pva_spd_real *x);
    void (*sum_squares)(void *own, size_t n, const pva_spd_real *x, double *sum);
    void (*adam)(void *own, size_t n, const struct spd_adam *a, const pva_spd_real *grad, pva_spd_real *m, pva_spd_real *v, pva_spd_real *p);
    void (*transpose)(void *own, int n, int m, const pva_spd_real *from, pva_spd_real *to);
};

#ifdef __cplusplus
}
#endif
#endif
