/* cuda_reduce.cuh - sums and maxima over a warp and a block in one fixed order, and the scalar arithmetic shared with the CPU. */
#ifndef PVA_CUDA_REDUCE_CUH
#define PVA_CUDA_REDUCE_CUH

#include "cuda_check.h"

#include <cuda_bf16.h>
#include <stdint.h>

#define PVA_FULL_WARP 0xffffffffu

/* Pairwise: lane i with lane i + 16, then 8, 4, 2, 1; every lane gets the sum. (xor, so both partners add the same two numbers.) */
static __device__ __forceinline__ float warp_sum(float v) {
    for (int half = 16; half; half /= 2) v += __shfl_xor_sync(PVA_FULL_WARP, v, half);
    return v;
}

static __device__ __forceinline__ float warp_max(float v) {
    for (int half = 16; half; half /= 2) v = fmaxf(v, __shfl_xor_sync(PVA_FULL_WARP, v, half));
    return v;
}

/* The sum over a block of a multiple of 32 threads, at most 1024, in every thread: warps pairwise, then the warps' sums pairwise.
 * shared: 32 floats that nobody else uses between the barriers before and after. */
static __device__ __forceinline__ float block_sum(float v, float *shared) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warps = blockDim.x / 32;
    v = warp_sum(v);
    if (lane == 0) shared[warp] = v;
    __syncthreads();
    v = warp_sum(lane < n_warps ? shared[lane] : 0.0f);
    __syncthreads(); /* before `shared` is used again */
    return v;
}

/* Four neighbours of which `left` exist; WIDE: all four do, and p is aligned to them. The others read as zero. */
template <bool WIDE> static __device__ __forceinline__ float4 load_four(const float *p, int64_t left) {
    if (WIDE) return *reinterpret_cast<const float4 *>(p);
    else return make_float4(p[0], left > 1 ? p[1] : 0.0f, left > 2 ? p[2] : 0.0f, left > 3 ? p[3] : 0.0f);
}
template <bool WIDE> static __device__ __forceinline__ float4 load_four(const __nv_bfloat16 *p, int64_t left) {
    __nv_bfloat16 h[4];
    if (WIDE) {
        const uint2 u = *reinterpret_cast<const uint2 *>(p);
        h[0] = __ushort_as_bfloat16((unsigned short)(u.x & 0xffff)), h[1] = __ushort_as_bfloat16((unsigned short)(u.x >> 16));
        h[2] = __ushort_as_bfloat16((unsigned short)(u.y & 0xffff)), h[3] = __ushort_as_bfloat16((unsigned short)(u.y >> 16));
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++) h[j] = j < left ? p[j] : __ushort_as_bfloat16(0);
    }
    return make_float4(__bfloat162float(h[0]), __bfloat162float(h[1]), __bfloat162float(h[2]), __bfloat162float(h[3]));
}
template <bool WIDE> static __device__ __forceinline__ void store_four(float *p, int64_t left, float4 v) {
    if (WIDE) {
        *reinterpret_cast<float4 *>(p) = v;
    } else {
        p[0] = v.x;
        if (left > 1) p[1] = v.y;
        if (left > 2) p[2] = v.z;
        if (left > 3) p[3] = v.w;
    }
}
template <bool WIDE> static __device__ __forceinline__ void store_four(__nv_bfloat16 *p, int64_t left, float4 v) {
    const __nv_bfloat16 h[4] = {__float2bfloat16_rn(v.x), __float2bfloat16_rn(v.y), __float2bfloat16_rn(v.z), __float2bfloat16_rn(v.w)};
    if (WIDE) {
        *reinterpret_cast<uint2 *>(p) = make_uint2((unsigned)__bfloat16_as_ushort(h[0]) | (unsigned)__bfloat16_as_ushort(h[1]) << 16,
                                                   (unsigned)__bfloat16_as_ushort(h[2]) | (unsigned)__bfloat16_as_ushort(h[3]) << 16);
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (j < left) p[j] = h[j];
    }
}
/* May rows of d elements of this size, the first at p, be taken four at a time? NULL may. */
static inline bool fours_fit(const void *p, size_t element, int64_t d) { return reinterpret_cast<uintptr_t>(p) % (4 * element) == 0 && d % 4 == 0; }

/* exp and tanh as src/cpu_lanes.h computes them, operation by operation, so that a token or a capped logit is the same on both
 * backends. NaN: fminf and fmaxf would drop it, the comparisons below keep it. */
static __device__ __forceinline__ float exp_same(float x) {
    x = -87.3f > x ? -87.3f : x; /* the second operand when the two do not compare */
    x = 88.0f < x ? 88.0f : x;
    const float n = rintf(x * 1.44269504f);
    float r = fmaf(n, -0.693359375f, x);
    r = fmaf(n, 2.12194440e-4f, r);
    float p = 1.3981999e-3f;
    p = fmaf(p, r, 8.3334519e-3f);
    p = fmaf(p, r, 4.16657962e-2f);
    p = fmaf(p, r, 1.66666657e-1f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return n == n ? p * __int_as_float(((int)n + 127) << 23) : n;
}

static __device__ __forceinline__ float tanh_same(float x) {
    const float size = 0.0f - x > x ? 0.0f - x : x, x2 = x * x;
    if (size < 0.625f) {
        float p = -5.70498872745e-3f;
        p = fmaf(p, x2, 2.06390887954e-2f);
        p = fmaf(p, x2, -5.37397155531e-2f);
        p = fmaf(p, x2, 1.33314422036e-1f);
        p = fmaf(p, x2, -3.33332819422e-1f);
        return fmaf(p * x2, x, x);
    }
    const float big = 1.0f - 2.0f / (exp_same(size + size) + 1.0f);
    return x < 0.0f ? 0.0f - big : big;
}

static __device__ __forceinline__ float capped(float x, float cap) { return cap * tanh_same(x / cap); }

/* gelu_tanh(x) * up. */
static __device__ __forceinline__ float gelu_times(float x, float up) {
    const float cube = x * x * x, t = tanh_same(0.797884560802865f * fmaf(0.044715f, cube, x));
    return 0.5f * x * (1.0f + t) * up;
}

/* Threads for a row of d elements that is summed: by d alone, as a row's sum must not depend on what else is in the batch. */
static inline unsigned row_threads(int64_t d) { return d <= 512 ? 128 : 512; }

/* Blocks for a loop over n items that strides by the grid; enough to fill any device, and the result does not depend on it. */
static inline unsigned grid_for(int64_t n, unsigned threads) {
    const int64_t blocks = (n + threads - 1) / threads;
    return (unsigned)(blocks < 2048 ? blocks : 2048);
}

/* The first fault stays. */
static __device__ __forceinline__ void report_fault(int32_t *fault, int what, int32_t value) {
    if (fault && atomicCAS(fault, 0, what) == 0) fault[1] = value;
}

static inline int launch_status(void) { return (int)cudaGetLastError(); }

#endif
