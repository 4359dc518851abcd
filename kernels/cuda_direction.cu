/* cuda_direction.cu - steering: a direction added to a row, or removed from it. One block per row; rows that name none cost a look. */
#include "cuda_reduce.cuh"
#include "kernels.h"

namespace {

/* The row's direction, or NULL. */
__device__ __forceinline__ const float *direction_of(const float *directions, int64_t n_directions, int64_t d, const int32_t *which,
                                                     int32_t *fault) {
    const int32_t w = which[blockIdx.x];
    if (w >= n_directions && threadIdx.x == 0) report_fault(fault, PVA_FAULT_DIRECTION, w);
    return w < 0 || w >= n_directions ? nullptr : directions + (int64_t)w * d;
}

/* Product, then sum or difference, each rounded: coefficient 0 changes nothing. */
__device__ __forceinline__ float4 plus(float4 x, float c, float4 u) { return make_float4(x.x + c * u.x, x.y + c * u.y, x.z + c * u.z, x.w + c * u.w); }
__device__ __forceinline__ float4 minus(float4 x, float c, float4 u) { return make_float4(x.x - c * u.x, x.y - c * u.y, x.z - c * u.z, x.w - c * u.w); }

template <bool WIDE>
__global__ void __launch_bounds__(512) add_direction(float *x, int64_t d, const float *directions, int64_t n_directions, const int32_t *which,
                                                     const float *coefficients, int32_t *fault) {
    const float *u = direction_of(directions, n_directions, d, which, fault);
    if (!u) return;
    const float c = coefficients[blockIdx.x];
    x += (int64_t)blockIdx.x * d;
    for (int64_t i = 4 * (int64_t)threadIdx.x; i < d; i += 4 * (int64_t)blockDim.x)
        store_four<WIDE>(x + i, d - i, plus(load_four<WIDE>(x + i, d - i), c, load_four<WIDE>(u + i, d - i)));
}

template <bool WIDE>
__global__ void __launch_bounds__(512) ablate_direction(float *x, int64_t d, const float *directions, int64_t n_directions,
                                                        const int32_t *which, int32_t *fault) {
    __shared__ float partial[32];
    const float *u = direction_of(directions, n_directions, d, which, fault);
    if (!u) return; /* the whole block */
    float sum = 0;
    x += (int64_t)blockIdx.x * d;
    for (int64_t i = 4 * (int64_t)threadIdx.x; i < d; i += 4 * (int64_t)blockDim.x) {
        const float4 a = load_four<WIDE>(x + i, d - i), b = load_four<WIDE>(u + i, d - i);
        sum = fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
    }
    const float along = block_sum(sum, partial);
    for (int64_t i = 4 * (int64_t)threadIdx.x; i < d; i += 4 * (int64_t)blockDim.x)
        store_four<WIDE>(x + i, d - i, minus(load_four<WIDE>(x + i, d - i), along, load_four<WIDE>(u + i, d - i)));
}

} // namespace

int pva_cuda_add_direction(float *x, int64_t n, int64_t d, const float *directions, int64_t n_directions, const int32_t *which,
                           const float *coefficients, int32_t *fault, cudaStream_t stream) {
    const unsigned rows = (unsigned)n, threads = row_threads(d);
    if (n == 0 || d == 0) return 0;
    if (fours_fit(x, 4, d) && fours_fit(directions, 4, d))
        PVA_LAUNCH(add_direction<true>, rows, threads, 0, stream, x, d, directions, n_directions, which, coefficients, fault);
    else PVA_LAUNCH(add_direction<false>, rows, threads, 0, stream, x, d, directions, n_directions, which, coefficients, fault);
    return launch_status();
}

int pva_cuda_ablate_direction(float *x, int64_t n, int64_t d, const float *directions, int64_t n_directions, const int32_t *which,
                              int32_t *fault, cudaStream_t stream) {
    const unsigned rows = (unsigned)n, threads = row_threads(d);
    if (n == 0 || d == 0) return 0;
    if (fours_fit(x, 4, d) && fours_fit(directions, 4, d))
        PVA_LAUNCH(ablate_direction<true>, rows, threads, 0, stream, x, d, directions, n_directions, which, fault);
    else PVA_LAUNCH(ablate_direction<false>, rows, threads, 0, stream, x, d, directions, n_directions, which, fault);
    return launch_status();
}
