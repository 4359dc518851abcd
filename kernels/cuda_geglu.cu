/* cuda_geglu.cu - gelu_tanh(gate) * up, element by element, in the CPU's operations and order: where it is not the end of the product (cuda_linear.cu). */
#include "cuda_reduce.cuh"
#include "kernels.h"

namespace {

template <typename Y, bool WIDE> __global__ void __launch_bounds__(256) geglu(const float *gate, const float *up, int64_t n, Y *y) {
    const int64_t step = 4 * (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x); i < n; i += step) {
        const float4 g = load_four<WIDE>(gate + i, n - i), u = load_four<WIDE>(up + i, n - i);
        store_four<WIDE>(y + i, n - i, make_float4(gelu_times(g.x, u.x), gelu_times(g.y, u.y), gelu_times(g.z, u.z), gelu_times(g.w, u.w)));
    }
}

template <typename Y> int launch(const float *gate, const float *up, int64_t n, Y *y, cudaStream_t stream) {
    const unsigned blocks = grid_for((n + 3) / 4, 256);
    if (n == 0) return 0;
    if (fours_fit(gate, 4, n) && fours_fit(up, 4, n) && fours_fit(y, sizeof(Y), n))
        PVA_LAUNCH((geglu<Y, true>), blocks, 256, 0, stream, gate, up, n, y);
    else PVA_LAUNCH((geglu<Y, false>), blocks, 256, 0, stream, gate, up, n, y);
    return launch_status();
}

} // namespace

int pva_cuda_geglu(const float *gate, const float *up, int64_t n_elements, void *y, enum pva_dtype y_type, cudaStream_t stream) {
    if (y_type == PVA_BF16) return launch(gate, up, n_elements, (__nv_bfloat16 *)y, stream);
    return launch(gate, up, n_elements, (float *)y, stream);
}
