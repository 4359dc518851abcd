/* The kernels, once for every instruction set: the including file defines SPD_KERNELS, the table's name, and may define
 * SPD_AVX512 or SPD_AVX2. Products and sums fuse only in vfma, so that each lane is rounded alike everywhere. */
#include "kernels.h"

#include <math.h>
#include <string.h>

#if defined(SPD_AVX512) || defined(SPD_AVX2)
#include <immintrin.h>
#endif

typedef real vreal __attribute__((vector_size(SPD_LANES * sizeof(real)), aligned(sizeof(real))));
typedef int32_t vint __attribute__((vector_size(SPD_LANES * 4)));
typedef uint32_t vuint __attribute__((vector_size(SPD_LANES * 4), aligned(4)));
#ifdef SPD_DOUBLE
typedef int64_t vmask __attribute__((vector_size(SPD_LANES * 8)));
#else
typedef int32_t vmask __attribute__((vector_size(SPD_LANES * 4)));
#endif

static inline vreal vset(real x) { return x - (vreal){0}; }
static inline vreal vload(const real *p) { return *(const vreal *)p; }
static inline void vstore(real *p, vreal a) { *(vreal *)p = a; }
#define vwhere(m, yes, no) ((vreal)(((vmask)(yes) & (m)) | ((vmask)(no) & ~(m))))

#if defined(SPD_AVX512)
enum { WIDE = 4 }; /* vectors of samples per block of the matrix product */
static inline vreal vfma(vreal a, vreal b, vreal c) { return (vreal)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
static inline vreal vmin(vreal a, vreal b) { return (vreal)_mm512_min_ps((__m512)a, (__m512)b); }
static inline vreal vmax(vreal a, vreal b) { return (vreal)_mm512_max_ps((__m512)a, (__m512)b); }
#elif defined(SPD_AVX2)
enum { WIDE = 1 };
union halves {
    vreal v;
    __m256 h[2];
};
#define BY_HALVES(x, call0, call1) ((union halves){.h = {call0, call1}}.v)
static inline vreal vfma(vreal a, vreal b, vreal c) {
    union halves x = {a}, y = {b}, z = {c};
    return BY_HALVES(x, _mm256_fmadd_ps(x.h[0], y.h[0], z.h[0]), _mm256_fmadd_ps(x.h[1], y.h[1], z.h[1]));
}
static inline vreal vmin(vreal a, vreal b) {
    union halves x = {a}, y = {b};
    return BY_HALVES(x, _mm256_min_ps(x.h[0], y.h[0]), _mm256_min_ps(x.h[1], y.h[1]));
}
static inline vreal vmax(vreal a, vreal b) {
    union halves x = {a}, y = {b};
    return BY_HALVES(x, _mm256_max_ps(x.h[0], y.h[0]), _mm256_max_ps(x.h[1], y.h[1]));
}
#else
enum { WIDE = 1 };
static inline vreal vfma(vreal a, vreal b, vreal c) {
    vreal r;
    for (int l = 0; l < SPD_LANES; l++)
        r[l] = sizeof(real) == 4 ? (real)fmaf((float)a[l], (float)b[l], (float)c[l]) : (real)fma(a[l], b[l], c[l]);
    return r;
}
static inline vreal vmin(vreal a, vreal b) { return vwhere(a < b, a, b); }
static inline vreal vmax(vreal a, vreal b) { return vwhere(a > b, a, b); }
#endif

/* Lanes of two vectors by number, the second one's from 16 on. */
#ifdef __clang__
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (vmask){__VA_ARGS__})
#endif

/* Lane l of the result is the sum of v[l]'s lanes: fifteen additions of two vectors each. */
static inline vreal sum_each(const vreal *v) {
    vreal a[8], b[4], c[2];
    for (int i = 0; i < 8; i++)
        a[i] = PICK(v[2 * i], v[2 * i + 1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
               PICK(v[2 * i], v[2 * i + 1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    for (int i = 0; i < 4; i++)
        b[i] = PICK(a[2 * i], a[2 * i + 1], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
               PICK(a[2 * i], a[2 * i + 1], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    for (int i = 0; i < 2; i++)
        c[i] = PICK(b[2 * i], b[2 * i + 1], 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +
               PICK(b[2 * i], b[2 * i + 1], 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
    return PICK(c[0], c[1], 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) + PICK(c[0], c[1], 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

static inline real sum_one(vreal v) {
    for (int h = SPD_LANES / 2; h; h /= 2)
        for (int l = 0; l < h; l++) v[l] += v[l + h];
    return v[0];
}

/* ---- matrix products ---- */

static inline __attribute__((always_inline)) void matmul_block(int ld, int n_in, int n_j, int n_v, const real *e, int stride_in,
                                                               int stride_out, const real *in, real *out) {
    vreal acc[4][4];
    for (int j = 0; j < n_j; j++)
        for (int v = 0; v < n_v; v++) acc[j][v] = vload(out + (size_t)j * ld + v * SPD_LANES);
    for (int i = 0; i < n_in; i++) {
        vreal x[4];
        for (int v = 0; v < n_v; v++) x[v] = vload(in + (size_t)i * ld + v * SPD_LANES);
        for (int j = 0; j < n_j; j++) {
            vreal w = vset(e[(size_t)i * stride_in + (size_t)j * stride_out]);
            for (int v = 0; v < n_v; v++) acc[j][v] = vfma(w, x[v], acc[j][v]);
        }
    }
    for (int j = 0; j < n_j; j++)
        for (int v = 0; v < n_v; v++) vstore(out + (size_t)j * ld + v * SPD_LANES, acc[j][v]);
}

static void matmul(int n, int ld, int n_in, int n_out, const real *e, int stride_in, int stride_out, const real *in, real *out) {
    int v = 0, n_vectors = n / SPD_LANES;
    for (; v + WIDE <= n_vectors; v += WIDE) {
        int j = 0;
        for (; j + 4 <= n_out; j += 4)
            matmul_block(ld, n_in, 4, WIDE, e + (size_t)j * stride_out, stride_in, stride_out, in + v * SPD_LANES,
                         out + (size_t)j * ld + v * SPD_LANES);
        for (; j < n_out; j++)
            matmul_block(ld, n_in, 1, WIDE, e + (size_t)j * stride_out, stride_in, stride_out, in + v * SPD_LANES,
                         out + (size_t)j * ld + v * SPD_LANES);
    }
    for (; v < n_vectors; v++) {
        int j = 0;
        for (; j + 4 <= n_out; j += 4)
            matmul_block(ld, n_in, 4, 1, e + (size_t)j * stride_out, stride_in, stride_out, in + v * SPD_LANES,
                         out + (size_t)j * ld + v * SPD_LANES);
        for (; j < n_out; j++)
            matmul_block(ld, n_in, 1, 1, e + (size_t)j * stride_out, stride_in, stride_out, in + v * SPD_LANES,
                         out + (size_t)j * ld + v * SPD_LANES);
    }
}

static inline __attribute__((always_inline)) void outer_block(int n, int ld, int n_i, int n_j, const real *in, const real *dout,
                                                              real *de, int n_out) {
    vreal acc[16];
    for (int k = 0; k < 16; k++) acc[k] = vset(0);
    for (int s = 0; s < n; s += SPD_LANES) {
        vreal x[4], y[4];
        for (int i = 0; i < n_i; i++) x[i] = vload(in + (size_t)i * ld + s);
        for (int j = 0; j < n_j; j++) y[j] = vload(dout + (size_t)j * ld + s);
        for (int i = 0; i < n_i; i++)
            for (int j = 0; j < n_j; j++) acc[i * 4 + j] = vfma(x[i], y[j], acc[i * 4 + j]);
    }
    real sums[SPD_LANES];
    vstore(sums, sum_each(acc));
    for (int i = 0; i < n_i; i++)
        for (int j = 0; j < n_j; j++) de[(size_t)i * n_out + j] += sums[i * 4 + j];
}

static void outer(int n, int ld, int n_in, int n_out, const real *in, const real *dout, real *de) {
    for (int i = 0; i < n_in; i += 4) {
        int n_i = n_in - i < 4 ? n_in - i : 4;
        for (int j = 0; j < n_out; j += 4) {
            int n_j = n_out - j < 4 ? n_out - j : 4;
            const real *x = in + (size_t)i * ld, *y = dout + (size_t)j * ld;
            real *d = de + (size_t)i * n_out + j;
            if (n_i == 4 && n_j == 4) outer_block(n, ld, 4, 4, x, y, d, n_out);
            else outer_block(n, ld, n_i, n_j, x, y, d, n_out);
        }
    }
}

/* n_i rows of out from a panel of WIDE vectors of b's columns, [n_k][WIDE * SPD_LANES]. */
static inline __attribute__((always_inline)) void product_block(int n_i, int n_k, int n_j, const real *a, ptrdiff_t a_row,
                                                                ptrdiff_t a_col, const real *panel, real *out,
                                                                ptrdiff_t out_row) {
    enum { COLUMNS = WIDE * SPD_LANES };
    vreal acc[4][WIDE];
    real edge[COLUMNS];
    for (int i = 0; i < n_i; i++) {
        memcpy(edge, out + i * out_row, (size_t)n_j * sizeof *edge);
        memset(edge + n_j, 0, (size_t)(COLUMNS - n_j) * sizeof *edge);
        for (int v = 0; v < WIDE; v++) acc[i][v] = vload(edge + v * SPD_LANES);
    }
    for (int k = 0; k < n_k; k++) {
        vreal x[WIDE];
        for (int v = 0; v < WIDE; v++) x[v] = vload(panel + (size_t)k * COLUMNS + v * SPD_LANES);
        for (int i = 0; i < n_i; i++) {
            vreal w = vset(a[i * a_row + k * a_col]);
            for (int v = 0; v < WIDE; v++) acc[i][v] = vfma(w, x[v], acc[i][v]);
        }
    }
    for (int i = 0; i < n_i; i++) {
        for (int v = 0; v < WIDE; v++) vstore(edge + v * SPD_LANES, acc[i][v]);
        memcpy(out + i * out_row, edge, (size_t)n_j * sizeof *edge);
    }
}

static void product(int n_i, int n_k, int n_j, const real *a, ptrdiff_t a_row, ptrdiff_t a_col, const real *b, ptrdiff_t b_row,
                    ptrdiff_t b_col, real *out, ptrdiff_t out_row) {
    enum { COLUMNS = WIDE * SPD_LANES, DEPTH = 128 };
    real panel[DEPTH * COLUMNS];
    for (int j = 0; j < n_j; j += COLUMNS) {
        int columns = n_j - j < COLUMNS ? n_j - j : COLUMNS;
        for (int k = 0; k < n_k; k += DEPTH) {
            int depth = n_k - k < DEPTH ? n_k - k : DEPTH, i = 0;
            for (int m = 0; m < depth; m++)
                for (int c = 0; c < COLUMNS; c++) panel[m * COLUMNS + c] = c < columns ? b[(k + m) * b_row + (j + c) * b_col] : 0;
            for (; i + 4 <= n_i; i += 4)
                product_block(4, depth, columns, a + i * a_row + k * a_col, a_row, a_col, panel, out + i * out_row + j, out_row);
            for (; i < n_i; i++)
                product_block(1, depth, columns, a + i * a_row + k * a_col, a_row, a_col, panel, out + i * out_row + j, out_row);
        }
    }
}

/* ---- GELU: z * Phi(z) with the normal distribution function Phi; its derivative is Phi + z * phi ---- */

#ifdef SPD_DOUBLE
static inline vreal normal_cdf(vreal z) {
    vreal r;
    for (int l = 0; l < SPD_LANES; l++) r[l] = 0.5 * erfc(-z[l] * 0.70710678118654752440);
    return r;
}
static inline vreal normal_density(vreal z) {
    vreal r;
    for (int l = 0; l < SPD_LANES; l++) r[l] = 0.39894228040143267794 * exp(-0.5 * z[l] * z[l]);
    return r;
}
#else
/* Phi(z) = 1/2 + z P(t), t = 2 z^2 / 25 - 1, for |z| <= 5 and constant beyond. P is the Chebyshev interpolant of degree 14; with
 * the rounding of float32 the error of Phi is at most 1.2e-7, which is an ulp at 1 (tests/test_spd_kernels.c measures it against
 * erf). */
static inline vreal normal_cdf(vreal z) {
    static const real p[15] = {0.141363804f,   -0.0702968707f,   0.0515193377f,   -0.0404243519f,  0.0314542314f,
                               -0.0234285721f, 0.0163712535f,    -0.0105684603f,  0.0063803454f,   -0.00375802441f,
                               0.00194099657f, -0.000691844836f, 0.000323448813f, -0.00030304189f, 0.000117693593f};
    z = vmax(vmin(z, vset(5)), vset(-5));
    vreal t = vfma(z * z, vset(0.08f), vset(-1)), r = vset(p[14]);
    for (int k = 13; k >= 0; k--) r = vfma(r, t, vset(p[k]));
    return vfma(z, r, vset(0.5f));
}
/* exp(-z^2/2) / sqrt(2 pi) as 2^k 2^f, f in [-1/2, 1/2], by the Taylor series of 2^f to f^6; the relative error is below 3e-7 */
static inline vreal normal_density(vreal z) {
    vreal y = vmax(z * z * vset(-0.72134752f), vset(-126));
    vreal k = (y + vset(12582912.f)) - vset(12582912.f); /* nearest whole number */
    vreal f = y - k, r = vset(1.5403530e-4f);
    r = vfma(r, f, vset(1.3333558e-3f));
    r = vfma(r, f, vset(9.6181291e-3f));
    r = vfma(r, f, vset(5.5504109e-2f));
    r = vfma(r, f, vset(2.4022651e-1f));
    r = vfma(r, f, vset(6.9314718e-1f));
    r = vfma(r, f, vset(1));
    vint scale = (__builtin_convertvector(k, vint) + 127) << 23;
    return r * (vreal)scale * vset(0.39894228f);
}
#endif

/* Scalar in, one hidden layer: the shape of all registered toys. */
static void gate_forward_one(int n, int ld, int n_hidden, const real *params, const real *in, real *raw, real *cache) {
    const real *w0 = params, *b0 = params + n_hidden, *w1 = params + 2 * n_hidden;
    for (int s = 0; s < n; s += SPD_LANES) {
        vreal h = vload(in + s), sum = vset(params[3 * n_hidden]);
        for (int k = 0; k < n_hidden; k++) {
            vreal z = vfma(vset(w0[k]), h, vset(b0[k]));
            vreal cdf = normal_cdf(z);
            if (cache) vstore(cache + (size_t)k * ld + s, cdf);
            sum = vfma(vset(w1[k]) * z, cdf, sum);
        }
        vstore(raw + s, sum);
    }
}

static void gate_backward_one(int n, int ld, int n_hidden, const real *params, const real *in, const real *cache,
                              const real *draw, real *dparams, real *din) {
    const real *w0 = params, *b0 = params + n_hidden, *w1 = params + 2 * n_hidden;
    vreal bias = vset(0);
    for (int s = 0; s < n; s += SPD_LANES) bias += vload(draw + s);
    dparams[3 * n_hidden] += sum_one(bias);
    for (int first = 0; first < n_hidden; first += SPD_LANES) {
        int n_k = n_hidden - first < SPD_LANES ? n_hidden - first : SPD_LANES;
        vreal a0[SPD_LANES], a1[SPD_LANES], ab[SPD_LANES];
        for (int k = 0; k < SPD_LANES; k++) a0[k] = a1[k] = ab[k] = vset(0);
        for (int k = 0; k < n_k; k++) {
            vreal w = vset(w0[first + k]), b = vset(b0[first + k]), u = vset(w1[first + k]), s0 = vset(0), s1 = vset(0),
                  sb = vset(0);
            for (int s = 0; s < n; s += SPD_LANES) {
                vreal h = vload(in + s), d = vload(draw + s), z = vfma(w, h, b);
                vreal cdf = cache ? vload(cache + (size_t)(first + k) * ld + s) : normal_cdf(z);
                s1 = vfma(d, z * cdf, s1);
                vreal dz = d * u * vfma(z, normal_density(z), cdf);
                sb += dz;
                s0 = vfma(dz, h, s0);
                if (din) vstore(din + s, vfma(dz, w, vload(din + s)));
            }
            a0[k] = s0, a1[k] = s1, ab[k] = sb;
        }
        real sums[SPD_LANES];
        vstore(sums, sum_each(a0));
        for (int k = 0; k < n_k; k++) dparams[first + k] += sums[k];
        vstore(sums, sum_each(ab));
        for (int k = 0; k < n_k; k++) dparams[n_hidden + first + k] += sums[k];
        vstore(sums, sum_each(a1));
        for (int k = 0; k < n_k; k++) dparams[2 * n_hidden + first + k] += sums[k];
    }
}

/* Any depth, any input width: z of every layer for SPD_LANES samples at a time. Returns the raw value. */
static vreal gate_run(int ld, const struct spd_gate_shape *g, const real *params, const real *in, vreal *z) {
    const real *w = params;
    const vreal *below = NULL;
    for (int l = 0; l < g->n_layers; l++) {
        int a = g->d[l], b = g->d[l + 1];
        for (int k = 0; k < b; k++) z[k] = vset(w[(size_t)a * b + k]);
        for (int i = 0; i < a; i++) {
            vreal x = l ? below[i] * normal_cdf(below[i]) : vload(in + (size_t)i * ld);
            for (int k = 0; k < b; k++) z[k] = vfma(vset(w[(size_t)i * b + k]), x, z[k]);
        }
        below = z;
        z += b;
        w += (size_t)a * b + b;
    }
    return below[0];
}

static void gate_forward(int n, int ld, const struct spd_gate_shape *g, const real *params, const real *in, real *raw,
                         real *cache) {
    if (g->n_layers == 2 && g->d[0] == 1) {
        gate_forward_one(n, ld, g->d[1], params, in, raw, cache);
        return;
    }
    vreal z[SPD_MAX_GATE_WIDTH];
    for (int s = 0; s < n; s += SPD_LANES) vstore(raw + s, gate_run(ld, g, params, in + s, z));
}

static void gate_backward(int n, int ld, const struct spd_gate_shape *g, const real *params, const real *in, const real *cache,
                          const real *draw, real *dparams, real *din) {
    if (g->n_layers == 2 && g->d[0] == 1) {
        gate_backward_one(n, ld, g->d[1], params, in, cache, draw, dparams, din);
        return;
    }
    vreal z[SPD_MAX_GATE_WIDTH], dz[SPD_MAX_GATE_WIDTH];
    for (int s = 0; s < n; s += SPD_LANES) {
        gate_run(ld, g, params, in + s, z);
        int top = 0, at = g->n_params;
        for (int l = 0; l < g->n_layers - 1; l++) top += g->d[l + 1];
        dz[top] = vload(draw + s);
        for (int l = g->n_layers - 1; l >= 0; l--) { /* dz[top..] belongs to this layer's output */
            int a = g->d[l], b = g->d[l + 1], below = top - a;
            at -= a * b + b;
            for (int k = 0; k < b; k++) dparams[at + a * b + k] += sum_one(dz[top + k]);
            for (int i = 0; i < a; i++) {
                vreal x, dx = vset(0), cdf = vset(0);
                if (l) cdf = normal_cdf(z[below + i]), x = z[below + i] * cdf;
                else x = vload(in + (size_t)i * ld + s);
                for (int k = 0; k < b; k++) {
                    dparams[at + i * b + k] += sum_one(dz[top + k] * x);
                    dx = vfma(vset(params[at + i * b + k]), dz[top + k], dx);
                }
                if (l) dz[below + i] = dx * vfma(z[below + i], normal_density(z[below + i]), cdf);
                else if (din) vstore(din + (size_t)i * ld + s, vload(din + (size_t)i * ld + s) + dx);
            }
            top = below;
        }
    }
}

/* ---- sigmoids ---- */

static inline real logistic(real x) { return 1 / (1 + (real)(sizeof(real) == 4 ? expf((float)-x) : exp(-x))); }

/* x * sigmoid(10 x), and its derivative */
static inline real swish(real z) { return z * logistic(10 * z); }
static inline real swish_slope(real z) {
    real l = logistic(10 * z);
    return l + 10 * z * l * (1 - l);
}
static inline real swish_down(real z) { return z * logistic(-10 * z); }
static inline real swish_down_slope(real z) {
    real l = logistic(-10 * z);
    return l - 10 * z * l * (1 - l);
}

static void sigmoid(int n, enum spd_sigmoid type, const real *x, real *y) {
    const real leak = (real)0.01;
    switch (type) {
    case SPD_NORMAL:
        for (int s = 0; s < n; s++) y[s] = logistic(x[s]);
        break;
    case SPD_HARD:
    case SPD_LOWER_LEAKY_HARD: /* its leak is in the backward pass alone */
        for (int s = 0; s < n; s++) {
            real v = x[s] < 0 ? 0 : x[s];
            y[s] = v > 1 ? 1 : v;
        }
        break;
    case SPD_LEAKY_HARD:
        for (int s = 0; s < n; s++) y[s] = x[s] > 0 ? (x[s] > 1 ? 1 : x[s]) : leak * x[s];
        break;
    case SPD_UPPER_LEAKY_HARD:
        for (int s = 0; s < n; s++) {
            real v = x[s] < 0 ? 0 : x[s];
            y[s] = v > 1 ? 1 + leak * (v - 1) : v;
        }
        break;
    case SPD_SWISH_HARD:
        for (int s = 0; s < n; s++) {
            real z = x[s] - (real)0.5, a = z - (real)0.5, b = z + (real)0.5;
            y[s] = (real)0.5 + (swish_down(a) - swish(z)) + (swish(b) - swish_down(z));
        }
        break;
    }
}

static void sigmoid_backward(int n, enum spd_sigmoid type, const real *x, const real *dy, real *dx) {
    const real leak = (real)0.01;
    switch (type) {
    case SPD_NORMAL:
        for (int s = 0; s < n; s++) {
            real l = logistic(x[s]);
            dx[s] += dy[s] * l * (1 - l);
        }
        break;
    case SPD_HARD: /* a clamp passes the gradient at its ends too */
        for (int s = 0; s < n; s++) dx[s] += dy[s] * (x[s] < 0 ? (real)0 : x[s] > 1 ? (real)0 : (real)1);
        break;
    case SPD_LOWER_LEAKY_HARD:
    case SPD_LEAKY_HARD:
        for (int s = 0; s < n; s++) dx[s] += dy[s] * (x[s] <= 0 ? leak : x[s] > 1 ? (real)0 : (real)1);
        break;
    case SPD_UPPER_LEAKY_HARD:
        for (int s = 0; s < n; s++) dx[s] += dy[s] * (x[s] > 1 ? leak : x[s] < 0 ? (real)0 : (real)1);
        break;
    case SPD_SWISH_HARD:
        for (int s = 0; s < n; s++) {
            real z = x[s] - (real)0.5, a = z - (real)0.5, b = z + (real)0.5;
            dx[s] += dy[s] * (swish_down_slope(a) - swish_slope(z) + swish_slope(b) - swish_down_slope(z));
        }
        break;
    }
}

/* ---- masks, draws, losses ---- */

static void mask(int n, const real *a, const real *g, const real *r, real *s) {
    for (int i = 0; i < n; i++) s[i] = a[i] * (g[i] + (1 - g[i]) * r[i]);
}

static void mask_backward(int n, const real *a, const real *g, const real *r, const real *ds, real *da, real *dg) {
    for (int i = 0; i < n; i++) {
        real m = g[i] + (1 - g[i]) * r[i];
        da[i] += ds[i] * m;
        dg[i] += ds[i] * a[i] * (1 - r[i]);
    }
}

/* High and low words of a * b, for a constant a. */
static inline void multiply(uint32_t a, vuint b, vuint *high, vuint *low) {
#if defined(SPD_AVX512)
    __m512i x = (__m512i)b, c = _mm512_set1_epi64(a);
    __m512i even = _mm512_mul_epu32(x, c), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), c);
    *low = (vuint)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
    *high = (vuint)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
#else
    for (int l = 0; l < SPD_LANES; l++) {
        uint64_t p = (uint64_t)a * b[l];
        (*high)[l] = (uint32_t)(p >> 32);
        (*low)[l] = (uint32_t)p;
    }
#endif
}

static void uniform(int n, int ld, uint64_t seed, uint32_t step, const uint32_t *sample, uint32_t c2, uint32_t c3, int n_rows,
                    real *out) {
    for (int s = 0; s < n; s += SPD_LANES) {
        vuint w0 = step - (vuint){0}, w1 = *(const vuint *)(sample + s), w2 = c2 - (vuint){0}, w3 = c3 - (vuint){0};
        uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
        for (int round = 0; round < 10; round++) {
            vuint h0, l0, h1, l1;
            multiply(0xD2511F53u, w0, &h0, &l0);
            multiply(0xCD9E8D57u, w2, &h1, &l1);
            w0 = h1 ^ w1 ^ k0;
            w2 = h0 ^ w3 ^ k1;
            w1 = l1;
            w3 = l0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        vuint w[4] = {w0, w1, w2, w3};
        for (int r = 0; r < n_rows; r++)
            vstore(out + (size_t)r * ld + s, __builtin_convertvector((vint)(w[r] >> 8), vreal) * vset((real)0x1p-24));
    }
}

static void squares(int n, const real *y, const real *t, const real *w, real scale, real *dy, double *sum) {
    vreal acc = vset(0);
    for (int s = 0; s < n; s += SPD_LANES) {
        vreal d = vwhere(vload(w + s) != vset(0), vload(y + s) - vload(t + s), vset(0));
        acc = vfma(d, d, acc);
        if (dy) vstore(dy + s, vset(scale) * d);
    }
    *sum += (double)sum_one(acc);
}

static void adam(size_t n, const struct spd_adam *a, const real *grad, real *m, real *v, real *p) {
    const real b1 = a->beta1, b2 = a->beta2, rate = a->lr / a->correction1, keep = 1 - a->lr * a->decay, eps = a->eps;
    const real root = sizeof(real) == 4 ? (real)sqrtf((float)a->correction2) : (real)sqrt(a->correction2);
    for (size_t i = 0; i < n; i++) {
        m[i] = b1 * m[i] + (1 - b1) * grad[i];
        v[i] = b2 * v[i] + (1 - b2) * grad[i] * grad[i];
        real r = sizeof(real) == 4 ? (real)sqrtf((float)v[i]) : (real)sqrt(v[i]);
        p[i] = keep * p[i] - rate * m[i] / (r / root + eps);
    }
}

static double weighted_sum(int n, const real *w, const real *a) {
    vreal acc = vset(0);
    for (int s = 0; s < n; s += SPD_LANES) acc = vfma(vload(w + s), vload(a + s), acc);
    return (double)sum_one(acc);
}

static double weighted_count(int n, const real *w, const real *a, real limit) {
    vreal acc = vset(0);
    for (int s = 0; s < n; s += SPD_LANES) acc += vwhere(vload(a + s) > vset(limit), vload(w + s), vset(0));
    return (double)sum_one(acc);
}

const struct spd_kernels SPD_KERNELS = {matmul,           outer,         product,       gate_forward, gate_backward, sigmoid,
                                        sigmoid_backward, mask,          mask_backward, uniform,      squares,       adam,
                                        weighted_sum,     weighted_count};
