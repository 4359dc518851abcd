/* cuda_spd_math.cuh - sums over samples and GELU, operation by operation as in src/spd/kernels_body.h. */
#ifndef PVA_CUDA_SPD_MATH_CUH
#define PVA_CUDA_SPD_MATH_CUH

#include "cuda_reduce.cuh"
#include "cuda_spd.h"

/* Sixteen threads have the lanes of a sum; a warp has two sums. */
enum { SPD_THREADS = 128, SPD_SUMS = SPD_THREADS / SPD_LANES };

/* The sum of sixteen lanes, in each of them. (xor: both partners add the same two numbers.) */
static __device__ __forceinline__ float join_lanes(float v) {
    for (int half = SPD_LANES / 2; half; half /= 2) v += __shfl_xor_sync(PVA_FULL_WARP, v, half, SPD_LANES);
    return v;
}

/* The normal distribution function: 1/2 + z P(t), t = 2 z^2 / 25 - 1, for |z| <= 5 and constant beyond. */
static __device__ __forceinline__ float normal_cdf(float z) {
    const float p[15] = {0.141363804f,   -0.0702968707f, 0.0515193377f,  -0.0404243519f, 0.0314542314f,   -0.0234285721f, 0.0163712535f,   -0.0105684603f,
                         0.0063803454f,  -0.00375802441f, 0.00194099657f, -0.000691844836f, 0.000323448813f, -0.00030304189f, 0.000117693593f};
    z = z < 5.0f ? z : 5.0f;
    z = z > -5.0f ? z : -5.0f;
    const float t = fmaf(z * z, 0.08f, -1.0f);
    float r = p[14];
#pragma unroll
    for (int k = 13; k >= 0; k--) r = fmaf(r, t, p[k]);
    return fmaf(z, r, 0.5f);
}

/* Its derivative: 2^k 2^f, f in [-1/2, 1/2], by the series of 2^f. */
static __device__ __forceinline__ float normal_density(float z) {
    float y = z * z * -0.72134752f;
    y = y > -126.0f ? y : -126.0f;
    const float k = (y + 12582912.0f) - 12582912.0f, f = y - k; /* k: nearest whole number */
    float r = 1.5403530e-4f;
    r = fmaf(r, f, 1.3333558e-3f);
    r = fmaf(r, f, 9.6181291e-3f);
    r = fmaf(r, f, 5.5504109e-2f);
    r = fmaf(r, f, 2.4022651e-1f);
    r = fmaf(r, f, 6.9314718e-1f);
    r = fmaf(r, f, 1.0f);
    return r * __int_as_float(((int)k + 127) << 23) * 0.39894228f;
}

#endif
