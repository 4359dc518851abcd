/* cuda_spd_rows.cu - a decomposition's element-wise operations, its draws, its losses and the step of its parameters. */
#include "cuda_spd_math.cuh"

#include <math.h>

namespace {

enum { THREADS = 256, PIECE = 1024 };

/* Every (row, sample) of a node, in strides of the grid. */
#define FOR_EACH(i, dim, n, ld) \
    for (int64_t at_ = (int64_t)blockIdx.x * THREADS + threadIdx.x, all_ = (int64_t)(dim) * (n); at_ < all_; at_ += (int64_t)gridDim.x * THREADS) \
        for (int64_t i = at_ / (n) * (ld) + at_ % (n), once_ = 1; once_; once_ = 0)

/* ---- sigmoids ---- */

__device__ __forceinline__ float logistic(float x) { return 1.0f / (1.0f + expf(-x)); }

/* x * sigmoid(10 x), x * sigmoid(-10 x), and their derivatives */
__device__ __forceinline__ float swish(float z) { return z * logistic(10.0f * z); }
__device__ __forceinline__ float swish_slope(float z) {
    const float l = logistic(10.0f * z);
    return l + 10.0f * z * l * (1.0f - l);
}
__device__ __forceinline__ float swish_down(float z) { return z * logistic(-10.0f * z); }
__device__ __forceinline__ float swish_down_slope(float z) {
    const float l = logistic(-10.0f * z);
    return l - 10.0f * z * l * (1.0f - l);
}

__device__ __forceinline__ float value_of(int type, float x) {
    const float leak = 0.01f, above = x < 0.0f ? 0.0f : x;
    if (type == SPD_NORMAL) return logistic(x);
    if (type == SPD_LEAKY_HARD) return x > 0.0f ? (x > 1.0f ? 1.0f : x) : leak * x;
    if (type == SPD_UPPER_LEAKY_HARD) return above > 1.0f ? 1.0f + leak * (above - 1.0f) : above;
    if (type == SPD_SWISH_HARD) {
        const float z = x - 0.5f, a = z - 0.5f, b = z + 0.5f;
        return 0.5f + (swish_down(a) - swish(z)) + (swish(b) - swish_down(z));
    }
    return above > 1.0f ? 1.0f : above; /* hard; lower-leaky hard has its leak in the backward pass alone */
}

__device__ __forceinline__ float sloped(int type, float x, float dy) {
    const float leak = 0.01f;
    if (type == SPD_NORMAL) {
        const float l = logistic(x);
        return dy * l * (1.0f - l);
    }
    if (type == SPD_SWISH_HARD) {
        const float z = x - 0.5f, a = z - 0.5f, b = z + 0.5f;
        return dy * (swish_down_slope(a) - swish_slope(z) + swish_slope(b) - swish_down_slope(z));
    }
    if (type == SPD_HARD) return dy * (x < 0.0f ? 0.0f : x > 1.0f ? 0.0f : 1.0f); /* a clamp passes the gradient at its ends too */
    if (type == SPD_UPPER_LEAKY_HARD) return dy * (x > 1.0f ? leak : x < 0.0f ? 0.0f : 1.0f);
    return dy * (x <= 0.0f ? leak : x > 1.0f ? 0.0f : 1.0f);
}

__global__ void __launch_bounds__(THREADS) sigmoid(int dim, int n, int ld, int type, const float *x, float *y) {
    FOR_EACH(i, dim, n, ld) y[i] = value_of(type, x[i]);
}
__global__ void __launch_bounds__(THREADS) sigmoid_backward(int dim, int n, int ld, int type, const float *x, const float *dy, float *dx) {
    FOR_EACH(i, dim, n, ld) dx[i] += sloped(type, x[i], dy[i]);
}

/* ---- zero, copy, sum, relu, absolute value ---- */

__global__ void __launch_bounds__(THREADS) clear(int dim, int n, int ld, float *x) {
    FOR_EACH(i, dim, n, ld) x[i] = 0;
}
__global__ void __launch_bounds__(THREADS) copy(int dim, int n, int ld, const float *in, float *out) {
    FOR_EACH(i, dim, n, ld) out[i] = in[i];
}
__global__ void __launch_bounds__(THREADS) add(int dim, int n, int ld, const float *in, float *out) {
    FOR_EACH(i, dim, n, ld) out[i] += in[i];
}
__global__ void __launch_bounds__(THREADS) relu(int dim, int n, int ld, const float *in, const float *bias, float *out) {
    FOR_EACH(i, dim, n, ld) {
        const float x = in[i] + (bias ? bias[i / ld] : 0.0f);
        out[i] = x > 0.0f ? x : 0.0f;
    }
}
__global__ void __launch_bounds__(THREADS) relu_backward(int dim, int n, int ld, const float *out, const float *dout, float *din) {
    FOR_EACH(i, dim, n, ld) din[i] += out[i] > 0.0f ? dout[i] : 0.0f;
}
__global__ void __launch_bounds__(THREADS) absolute(int dim, int n, int ld, const float *in, float *out) {
    FOR_EACH(i, dim, n, ld) out[i] = in[i] < 0.0f ? -in[i] : in[i];
}
__global__ void __launch_bounds__(THREADS) absolute_backward(int dim, int n, int ld, const float *in, const float *dout, float *din) {
    FOR_EACH(i, dim, n, ld) din[i] += in[i] < 0.0f ? -dout[i] : in[i] > 0.0f ? dout[i] : 0.0f;
}

/* ---- masks, draws ---- */

__global__ void __launch_bounds__(THREADS) mask(int dim, int n, int ld, const float *a, const float *g, const float *r, float *s) {
    FOR_EACH(i, dim, n, ld) s[i] = a[i] * (g[i] + (1.0f - g[i]) * r[i]);
}
__global__ void __launch_bounds__(THREADS) mask_backward(int dim, int n, int ld, const float *a, const float *g, const float *r, const float *ds, float *da,
                                                          float *dg) {
    FOR_EACH(i, dim, n, ld) {
        const float m = g[i] + (1.0f - g[i]) * r[i];
        da[i] += ds[i] * m;
        dg[i] += ds[i] * a[i] * (1.0f - r[i]);
    }
}

/* A thread draws the four numbers of one sample and four rows. */
__global__ void __launch_bounds__(THREADS) uniform(int dim, int n, int ld, uint32_t k0, uint32_t k1, uint32_t step, const uint32_t *sample, uint32_t c2,
                                                    uint32_t c3, float *out) {
    const int64_t all = (int64_t)((dim + 3) / 4) * n;
    for (int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x; at < all; at += (int64_t)gridDim.x * THREADS) {
        const int four = (int)(at / n), s = (int)(at % n);
        uint32_t w[4] = {step, sample[s], c2 + (uint32_t)four, c3}, key0 = k0, key1 = k1;
#pragma unroll
        for (int round = 0; round < 10; round++) {
            const uint32_t h0 = __umulhi(0xD2511F53u, w[0]), l0 = 0xD2511F53u * w[0], h1 = __umulhi(0xCD9E8D57u, w[2]), l1 = 0xCD9E8D57u * w[2];
            w[0] = h1 ^ w[1] ^ key0;
            w[1] = l1;
            w[2] = h0 ^ w[3] ^ key1;
            w[3] = l0;
            key0 += 0x9E3779B9u;
            key1 += 0xBB67AE85u;
        }
#pragma unroll
        for (int r = 0; r < 4; r++)
            if (4 * four + r < dim) out[(int64_t)(4 * four + r) * ld + s] = (float)(w[r] >> 8) * 0x1p-24f;
    }
}

/* ---- sums over samples ---- */

/* The row of these sixteen threads. One beyond the last reads the last one again and must not write. */
__device__ __forceinline__ int row_of(int dim, bool *exists) {
    const int row = (int)blockIdx.x * SPD_SUMS + (int)threadIdx.x / SPD_LANES;
    *exists = row < dim;
    return row < dim ? row : dim - 1;
}

__global__ void __launch_bounds__(SPD_THREADS) squares(int dim, int n, int ld, const float *y, const float *t, const float *w, float scale, float *dy,
                                                        float *row_sums) {
    bool exists;
    const int row = row_of(dim, &exists), lane = (int)threadIdx.x % SPD_LANES;
    const int64_t first = (int64_t)row * ld;
    float sum = 0;
    for (int s = lane; s < n; s += SPD_LANES) {
        const float d = w[s] != 0.0f ? y[first + s] - t[first + s] : 0.0f;
        sum = fmaf(d, d, sum);
        if (dy && exists) dy[first + s] = scale * d;
    }
    sum = join_lanes(sum);
    if (exists && lane == 0) row_sums[row] = sum;
}

__device__ __forceinline__ float power(float x, float p) { return p == 1.0f ? x : p == 2.0f ? x * x : powf(x, p); }

/* lower: p - 1, taken in double before it is rounded. */
__global__ void __launch_bounds__(SPD_THREADS) importance(int dim, int n, int ld, const float *w, const float *g, float p, float lower, float scale,
                                                           float *dg, float *row_sums) {
    bool exists;
    const int row = row_of(dim, &exists), lane = (int)threadIdx.x % SPD_LANES;
    const int64_t first = (int64_t)row * ld;
    float sum = 0;
    for (int s = lane; s < n; s += SPD_LANES) {
        const float x = g[first + s] + 1e-12f;
        sum = fmaf(w[s], power(x, p), sum);
        if (dg && exists) dg[first + s] += scale * w[s] * (p == 1.0f ? 1.0f : p == 2.0f ? x : power(x, lower));
    }
    sum = join_lanes(sum);
    if (exists && lane == 0) row_sums[row] = sum;
}

__global__ void __launch_bounds__(SPD_THREADS) weighted_count(int dim, int n, int ld, const float *w, const float *a, float limit, double *counts) {
    bool exists;
    const int row = row_of(dim, &exists), lane = (int)threadIdx.x % SPD_LANES;
    float sum = 0;
    for (int s = lane; s < n; s += SPD_LANES) sum += a[(int64_t)row * ld + s] > limit ? w[s] : 0.0f;
    sum = join_lanes(sum);
    if (exists && lane == 0) counts[row] += (double)sum;
}

/* One after the other, as the rows come on the CPU. */
__global__ void add_up(int dim, const float *row_sums, double *sum) {
    double total = *sum;
    for (int r = 0; r < dim; r++) total += (double)row_sums[r];
    *sum = total;
}

/* ---- vectors ---- */

#define FOR_ALL(i, n) for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < (n); i += (int64_t)gridDim.x * THREADS)

__global__ void __launch_bounds__(THREADS) negated(int64_t n, const float *x, float *y) {
    FOR_ALL(i, n) y[i] = -x[i];
}
__global__ void __launch_bounds__(THREADS) scaled(int64_t n, float k, float *x) {
    FOR_ALL(i, n) x[i] *= k;
}
__global__ void __launch_bounds__(THREADS) transpose(int n, int m, const float *from, float *to) {
    FOR_ALL(i, (int64_t)n * m) to[i] = from[i % n * m + i / n];
}

/* The sum over a block, in its first thread: pairwise. */
__device__ __forceinline__ double block_total(double mine, double *parts) {
    parts[threadIdx.x] = mine;
    for (int half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    return parts[0];
}

/* A block adds up PIECE numbers, or the next PIECE after those of all blocks, and so on. */
__global__ void __launch_bounds__(THREADS) sum_squares(int64_t n, const float *x, double *block_sums) {
    __shared__ double parts[THREADS];
    double mine = 0;
    for (int64_t first = (int64_t)blockIdx.x * PIECE; first < n; first += (int64_t)gridDim.x * PIECE)
        for (int64_t i = first + threadIdx.x; i < first + PIECE && i < n; i += THREADS) mine += (double)x[i] * (double)x[i];
    const double total = block_total(mine, parts);
    if (threadIdx.x == 0) block_sums[blockIdx.x] = total;
}

__global__ void __launch_bounds__(THREADS) add_blocks(int n_blocks, const double *block_sums, double *sum) {
    __shared__ double parts[THREADS];
    const double total = block_total((int)threadIdx.x < n_blocks ? block_sums[threadIdx.x] : 0.0, parts);
    if (threadIdx.x == 0) *sum += total;
}

__global__ void __launch_bounds__(THREADS) adam(int64_t n, float b1, float b2, float rate, float keep, float root, float eps, const float *grad, float *m,
                                                 float *v, float *p) {
    FOR_ALL(i, n) {
        m[i] = b1 * m[i] + (1.0f - b1) * grad[i];
        v[i] = b2 * v[i] + (1.0f - b2) * grad[i] * grad[i];
        p[i] = keep * p[i] - rate * m[i] / (sqrtf(v[i]) / root + eps);
    }
}

unsigned rows_grid(int dim) { return (unsigned)((dim + SPD_SUMS - 1) / SPD_SUMS); }

} // namespace

#define NODE(kernel, ...) \
    if (dim == 0 || n == 0) return 0; \
    PVA_LAUNCH(kernel, grid_for((int64_t)dim * n, THREADS), THREADS, 0, stream, dim, n, ld, __VA_ARGS__); \
    return launch_status()

int pva_cuda_spd_clear(int dim, int n, int ld, float *x, cudaStream_t stream) { NODE(clear, x); }
int pva_cuda_spd_copy(int dim, int n, int ld, const float *in, float *out, cudaStream_t stream) { NODE(copy, in, out); }
int pva_cuda_spd_add(int dim, int n, int ld, const float *in, float *out, cudaStream_t stream) { NODE(add, in, out); }
int pva_cuda_spd_relu(int dim, int n, int ld, const float *in, const float *bias, float *out, cudaStream_t stream) { NODE(relu, in, bias, out); }
int pva_cuda_spd_relu_backward(int dim, int n, int ld, const float *out, const float *dout, float *din, cudaStream_t stream) {
    NODE(relu_backward, out, dout, din);
}
int pva_cuda_spd_absolute(int dim, int n, int ld, const float *in, float *out, cudaStream_t stream) { NODE(absolute, in, out); }
int pva_cuda_spd_absolute_backward(int dim, int n, int ld, const float *in, const float *dout, float *din, cudaStream_t stream) {
    NODE(absolute_backward, in, dout, din);
}

int pva_cuda_spd_sigmoid(int dim, int n, int ld, enum spd_sigmoid type, const float *x, float *y, cudaStream_t stream) {
    NODE(sigmoid, (int)type, x, y);
}

int pva_cuda_spd_sigmoid_backward(int dim, int n, int ld, enum spd_sigmoid type, const float *x, const float *dy, float *dx, cudaStream_t stream) {
    NODE(sigmoid_backward, (int)type, x, dy, dx);
}

int pva_cuda_spd_mask(int dim, int n, int ld, const float *a, const float *g, const float *r, float *s, cudaStream_t stream) {
    NODE(mask, a, g, r, s);
}

int pva_cuda_spd_mask_backward(int dim, int n, int ld, const float *a, const float *g, const float *r, const float *ds, float *da, float *dg,
                               cudaStream_t stream) {
    NODE(mask_backward, a, g, r, ds, da, dg);
}

int pva_cuda_spd_uniform(int dim, int n, int ld, uint64_t seed, uint32_t step, const uint32_t *sample, uint32_t c2, uint32_t c3, float *out,
                         cudaStream_t stream) {
    if (dim == 0 || n == 0) return 0;
    const int64_t threads = (int64_t)((dim + 3) / 4) * n;
    PVA_LAUNCH(uniform, grid_for(threads, THREADS), THREADS, 0, stream, dim, n, ld, (uint32_t)seed, (uint32_t)(seed >> 32), step, sample, c2, c3, out);
    return launch_status();
}

static int add_rows(int dim, const float *row_sums, double *sum, cudaStream_t stream) {
    const int status = launch_status();
    if (status) return status;
    PVA_LAUNCH(add_up, 1, 1, 0, stream, dim, row_sums, sum);
    return launch_status();
}

int pva_cuda_spd_squares(int dim, int n, int ld, const float *y, const float *t, const float *w, float scale, float *dy, float *row_sums, double *sum,
                         cudaStream_t stream) {
    if (dim == 0) return 0;
    PVA_LAUNCH(squares, rows_grid(dim), SPD_THREADS, 0, stream, dim, n, ld, y, t, w, scale, dy, row_sums);
    return add_rows(dim, row_sums, sum, stream);
}

int pva_cuda_spd_importance(int dim, int n, int ld, const float *w, const float *g, double p, float scale, float *dg, float *row_sums, double *sum,
                            cudaStream_t stream) {
    if (dim == 0) return 0;
    PVA_LAUNCH(importance, rows_grid(dim), SPD_THREADS, 0, stream, dim, n, ld, w, g, (float)p, (float)(p - 1), scale, dg, row_sums);
    return add_rows(dim, row_sums, sum, stream);
}

int pva_cuda_spd_weighted_count(int dim, int n, int ld, const float *w, const float *a, float limit, double *counts, cudaStream_t stream) {
    if (dim == 0) return 0;
    PVA_LAUNCH(weighted_count, rows_grid(dim), SPD_THREADS, 0, stream, dim, n, ld, w, a, limit, counts);
    return launch_status();
}

#define VECTOR(kernel, n, ...) \
    if ((n) == 0) return 0; \
    PVA_LAUNCH(kernel, grid_for((int64_t)(n), THREADS), THREADS, 0, stream, __VA_ARGS__); \
    return launch_status()

int pva_cuda_spd_negated(size_t n, const float *x, float *y, cudaStream_t stream) { VECTOR(negated, n, (int64_t)n, x, y); }
int pva_cuda_spd_scaled(size_t n, float k, float *x, cudaStream_t stream) { VECTOR(scaled, n, (int64_t)n, k, x); }
int pva_cuda_spd_transpose(int n, int m, const float *from, float *to, cudaStream_t stream) { VECTOR(transpose, (int64_t)n * m, n, m, from, to); }

int pva_cuda_spd_sum_squares(size_t n, const float *x, double *block_sums, double *sum, cudaStream_t stream) {
    const size_t pieces = (n + PIECE - 1) / PIECE;
    const int blocks = (int)(pieces < (size_t)PVA_CUDA_SPD_SUMS ? pieces : (size_t)PVA_CUDA_SPD_SUMS);
    if (n == 0) return 0;
    PVA_LAUNCH(sum_squares, (unsigned)blocks, THREADS, 0, stream, (int64_t)n, x, block_sums);
    const int status = launch_status();
    if (status) return status;
    PVA_LAUNCH(add_blocks, 1, THREADS, 0, stream, blocks, block_sums, sum);
    return launch_status();
}

int pva_cuda_spd_adam(size_t n, const struct spd_adam *a, const float *grad, float *m, float *v, float *p, cudaStream_t stream) {
    const float b1 = a->beta1, b2 = a->beta2, rate = a->lr / a->correction1, keep = 1.0f - a->lr * a->decay, root = sqrtf(a->correction2), eps = a->eps;
    VECTOR(adam, n, (int64_t)n, b1, b2, rate, keep, root, eps, grad, m, v, p);
}
