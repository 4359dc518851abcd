/* kernels.h - the loops in which spd-run spends its time, one table per instruction set; all tables give the same bits.
 *
 * A chunk of samples lies as [dimension][sample]: row r of a node is `ld` numbers long, the first n of them in use, n a multiple
 * of SPD_LANES. Sums over samples are kept in SPD_LANES partial sums (sample s belongs to lane s % SPD_LANES) and joined in one
 * fixed tree. With SPD_DOUBLE the same sources compute in double: the tests compare gradients with central differences that way.
 */
#ifndef SPD_KERNELS_H
#define SPD_KERNELS_H

#ifdef SPD_DOUBLE
#define PVA_SPD_REAL double
#endif
#include "pva/spd_device.h"

#include <stddef.h>
#include <stdint.h>

typedef pva_spd_real real;

struct spd_kernels {
    /* out[j] += sum_i e[i * stride_in + j * stride_out] * in[i], for all samples */
    void (*matmul)(int n, int ld, int n_in, int n_out, const real *e, int stride_in, int stride_out, const real *in, real *out);
    /* de[i * n_out + j] += sum over samples of in[i] * dout[j] */
    void (*outer)(int n, int ld, int n_in, int n_out, const real *in, const real *dout, real *de);
    /* out[i][j] += sum_k a[i * a_row + k * a_col] * b[k * b_row + j * b_col], each in the order of k; for matrices, not samples
     */
    void (*product)(int n_i, int n_k, int n_j, const real *a, ptrdiff_t a_row, ptrdiff_t a_col, const real *b, ptrdiff_t b_row,
                    ptrdiff_t b_col, real *out, ptrdiff_t out_row);
    /* one component's gate: raw[s] from in[d0][s]; backward adds to dparams and, unless din is NULL, to din[d0][s]. cache, unless
     * NULL, is [hidden][s] and keeps Phi of a scalar gate's single hidden layer from forward to backward. */
    void (*gate_forward)(int n, int ld, const struct spd_gate_shape *g, const real *params, const real *in, real *raw,
                         real *cache);
    void (*gate_backward)(int n, int ld, const struct spd_gate_shape *g, const real *params, const real *in, const real *cache,
                          const real *draw, real *dparams, real *din);
    /* forward: the function's value; backward: dx += dy * slope, with the slope that the method prescribes (not always the
     * derivative) */
    void (*sigmoid)(int n, enum spd_sigmoid type, const real *x, real *y);
    void (*sigmoid_backward)(int n, enum spd_sigmoid type, const real *x, const real *dy, real *dx);
    /* s = a * (g + (1 - g) * r); backward: da += ds * m, dg += ds * a * (1 - r) */
    void (*mask)(int n, const real *a, const real *g, const real *r, real *s);
    void (*mask_backward)(int n, const real *a, const real *g, const real *r, const real *ds, real *da, real *dg);
    /* Four rows of uniform draws in [0, 1), multiples of 2^-24: Philox of counter {step, sample[s], c2, c3}, word w to row w <
     * n_rows */
    void (*uniform)(int n, int ld, uint64_t seed, uint32_t step, const uint32_t *sample, uint32_t c2, uint32_t c3, int n_rows,
                    real *out);
    /* (y - t)^2 summed with weight w[s] != 0 ? 1 : 0 into *sum; unless NULL, dy = scale * (y - t) on those samples and 0
     * elsewhere */
    void (*squares)(int n, const real *y, const real *t, const real *w, real scale, real *dy, double *sum);
    void (*adam)(size_t n, const struct spd_adam *a, const real *grad, real *m, real *v, real *p);
    /* sum over samples of w[s] * a[s]; and of w[s] where a[s] > limit */
    double (*weighted_sum)(int n, const real *w, const real *a);
    double (*weighted_count)(int n, const real *w, const real *a, real limit);
};

extern const struct spd_kernels spd_kernels_c, spd_kernels_avx2, spd_kernels_avx512;
const struct spd_kernels *spd_kernels_best(void);

#endif
