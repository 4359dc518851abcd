/* cuda_norm.cu - RMS norm: alone, added to the residual stream, and followed by the next norm. One block per row. */
#include "cuda_reduce.cuh"
#include "kernels.h"

namespace {

/* The fours of a row that stay in the registers of the thread that read them, 8192 elements with 512 threads; the rest of a longer
 * row is read again. */
enum { KEPT = 4 };
enum kind { NORM, ADD, ADD_NORM };

__device__ __forceinline__ float sum_squares(float sum, float4 v) {
    return fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
}
__device__ __forceinline__ float inverse_rms(float sum, int64_t d, float eps) { return 1.0f / sqrtf(sum / (float)d + eps); }
__device__ __forceinline__ float4 scaled(float4 v, float r, float4 w) {
    return make_float4(v.x * r * (1.0f + w.x), v.y * r * (1.0f + w.y), v.z * r * (1.0f + w.z), v.w * r * (1.0f + w.w));
}
__device__ __forceinline__ float4 sum_of(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

/* NORM: y = norm(x) by w. ADD: resid += norm(x). ADD_NORM: that, then y = norm(resid) by w_next. */
template <typename Y, int KIND, bool WIDE>
__global__ void __launch_bounds__(512)
    rmsnorm_row(const float *x, const float *w, const float *w_next, float eps, int64_t d, float *resid, Y *y) {
    __shared__ float partial[32];
    const int64_t first = 4 * (int64_t)threadIdx.x, step = 4 * (int64_t)blockDim.x, row = (int64_t)blockIdx.x * d, rest = first + KEPT * step;
    float4 kept[KEPT];
    float sum = 0;
    x += row;
#pragma unroll
    for (int e = 0; e < KEPT; e++) {
        const int64_t i = first + e * step;
        if (i < d) sum = sum_squares(sum, kept[e] = load_four<WIDE>(x + i, d - i));
    }
    for (int64_t i = rest; i < d; i += step) sum = sum_squares(sum, load_four<WIDE>(x + i, d - i));
    float r = inverse_rms(block_sum(sum, partial), d, eps);

    if (KIND != NORM) {
        resid += row;
        sum = 0;
#pragma unroll
        for (int e = 0; e < KEPT; e++) {
            const int64_t i = first + e * step;
            if (i >= d) continue;
            kept[e] = sum_of(load_four<WIDE>(resid + i, d - i), scaled(kept[e], r, load_four<WIDE>(w + i, d - i)));
            store_four<WIDE>(resid + i, d - i, kept[e]);
            if (KIND == ADD_NORM) sum = sum_squares(sum, kept[e]);
        }
        for (int64_t i = rest; i < d; i += step) {
            const float4 v = scaled(load_four<WIDE>(x + i, d - i), r, load_four<WIDE>(w + i, d - i));
            const float4 added = sum_of(load_four<WIDE>(resid + i, d - i), v);
            store_four<WIDE>(resid + i, d - i, added);
            if (KIND == ADD_NORM) sum = sum_squares(sum, added);
        }
        if (KIND == ADD) return;
        r = inverse_rms(block_sum(sum, partial), d, eps);
        x = resid; /* each thread reads again only what it wrote itself */
        w = w_next;
    }
    y += row;
#pragma unroll
    for (int e = 0; e < KEPT; e++) {
        const int64_t i = first + e * step;
        if (i < d) store_four<WIDE>(y + i, d - i, scaled(kept[e], r, load_four<WIDE>(w + i, d - i)));
    }
    for (int64_t i = rest; i < d; i += step)
        store_four<WIDE>(y + i, d - i, scaled(load_four<WIDE>(x + i, d - i), r, load_four<WIDE>(w + i, d - i)));
}

template <typename Y, int KIND>
int launch(const float *x, const float *w, const float *w_next, float eps, int64_t n, int64_t d, float *resid, Y *y, cudaStream_t stream) {
    const bool wide = fours_fit(x, 4, d) && fours_fit(w, 4, d) && fours_fit(w_next, 4, d) && fours_fit(resid, 4, d) && fours_fit(y, sizeof(Y), d);
    const unsigned rows = (unsigned)n, threads = row_threads(d);
    if (n == 0 || d == 0) return 0;
    if (wide) PVA_LAUNCH((rmsnorm_row<Y, KIND, true>), rows, threads, 0, stream, x, w, w_next, eps, d, resid, y);
    else PVA_LAUNCH((rmsnorm_row<Y, KIND, false>), rows, threads, 0, stream, x, w, w_next, eps, d, resid, y);
    return launch_status();
}

} // namespace

int pva_cuda_rmsnorm(const float *x, const float *w, float eps, int64_t n, int64_t d, void *y, enum pva_dtype y_type, cudaStream_t stream) {
    if (y_type == PVA_BF16) return launch<__nv_bfloat16, NORM>(x, w, nullptr, eps, n, d, nullptr, (__nv_bfloat16 *)y, stream);
    return launch<float, NORM>(x, w, nullptr, eps, n, d, nullptr, (float *)y, stream);
}

int pva_cuda_rmsnorm_add(const float *x, const float *w, float eps, int64_t n, int64_t d, float *resid, cudaStream_t stream) {
    return launch<float, ADD>(x, w, nullptr, eps, n, d, resid, nullptr, stream);
}

int pva_cuda_rmsnorm_add_rmsnorm(const float *x, const float *w, const float *w_next, float eps, int64_t n, int64_t d, float *resid, void *y,
                                 enum pva_dtype y_type, cudaStream_t stream) {
    if (y_type == PVA_BF16) return launch<__nv_bfloat16, ADD_NORM>(x, w, w_next, eps, n, d, resid, (__nv_bfloat16 *)y, stream);
    return launch<float, ADD_NORM>(x, w, w_next, eps, n, d, resid, (float *)y, stream);
}
