/* cuda_convert.cu - element types, for weights at load; of the same type it is the device's copy, beside which `bench` holds its figures. */
#include "cuda_reduce.cuh"
#include "kernels.h"

namespace {

struct half_bits {
    uint16_t bits;
};

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }
/* binary16, by its fields: exact, subnormals included. */
__device__ __forceinline__ float to_float(half_bits h) {
    const unsigned sign = (h.bits & 0x8000u) << 16, exponent = h.bits >> 10 & 31, fraction = h.bits & 0x3ff;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
    if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13); /* 112: the difference of the biases */
    return __uint_as_float(sign | __float_as_uint((float)fraction * 0x1p-24f));
}
__device__ __forceinline__ void put(float *p, float v) { *p = v; }
__device__ __forceinline__ void put(__nv_bfloat16 *p, float v) { *p = __float2bfloat16_rn(v); }

template <typename From, typename To> __global__ void __launch_bounds__(256) convert(const From *src, To *dst, int64_t n) {
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) put(dst + i, to_float(src[i]));
}

template <typename From> int launch(const void *src, void *dst, enum pva_dtype dst_type, int64_t n, cudaStream_t stream) {
    const unsigned blocks = grid_for(n, 256);
    if (n == 0) return 0;
    if (dst_type == PVA_BF16) PVA_LAUNCH((convert<From, __nv_bfloat16>), blocks, 256, 0, stream, (const From *)src, (__nv_bfloat16 *)dst, n);
    else PVA_LAUNCH((convert<From, float>), blocks, 256, 0, stream, (const From *)src, (float *)dst, n);
    return launch_status();
}

} // namespace

int pva_cuda_convert(const void *src, enum pva_dtype src_type, void *dst, enum pva_dtype dst_type, int64_t n_elements, cudaStream_t stream) {
    if ((dst_type != PVA_F32 && dst_type != PVA_BF16) || n_elements < 0) return (int)cudaErrorInvalidValue;
    if (src_type == dst_type)
        return (int)cudaMemcpyAsync(dst, src, (size_t)n_elements * (src_type == PVA_F32 ? 4 : 2), cudaMemcpyDeviceToDevice, stream);
    if (src_type == PVA_F32) return launch<float>(src, dst, dst_type, n_elements, stream);
    if (src_type == PVA_BF16) return launch<__nv_bfloat16>(src, dst, dst_type, n_elements, stream);
    if (src_type == PVA_F16) return launch<half_bits>(src, dst, dst_type, n_elements, stream);
    return (int)cudaErrorInvalidValue;
}
