/* cuda_embed.cu - rows of a table: the embedding (scaled, perhaps rounded) and plain copies of chosen rows (capture). One block per row. */
#include "cuda_reduce.cuh"
#include "kernels.h"

namespace {

enum rounding { COPY, SCALE, SCALE_BF16 };

__device__ __forceinline__ float4 scaled(float4 v, float s) { return make_float4(v.x * s, v.y * s, v.z * s, v.w * s); }
__device__ __forceinline__ float rounded(float v) { return __bfloat162float(__float2bfloat16_rn(v)); }

template <typename T, int ROUNDING, bool WIDE>
__global__ void __launch_bounds__(256)
    take_row(const T *table, int64_t n_rows, int64_t d, const int32_t *which, float scale, float *y, int what, int32_t *fault) {
    const int32_t id = which[blockIdx.x];
    const bool inside = id >= 0 && id < n_rows;
    if (!inside && threadIdx.x == 0) report_fault(fault, what, id);
    y += (int64_t)blockIdx.x * d;
    if (inside) table += (int64_t)id * d;
    for (int64_t i = 4 * (int64_t)threadIdx.x; i < d; i += 4 * (int64_t)blockDim.x) {
        float4 v = make_float4(NAN, NAN, NAN, NAN);
        if (inside) v = load_four<WIDE>(table + i, d - i);
        if (inside && ROUNDING != COPY) v = scaled(v, scale);
        if (inside && ROUNDING == SCALE_BF16) v = make_float4(rounded(v.x), rounded(v.y), rounded(v.z), rounded(v.w));
        store_four<WIDE>(y + i, d - i, v);
    }
}

template <typename T, int ROUNDING>
int launch(const T *table, int64_t n_rows, int64_t d, const int32_t *which, int64_t n, float scale, float *y, int what, int32_t *fault,
           cudaStream_t stream) {
    const unsigned threads = d <= 512 ? 128 : 256;
    if (n == 0 || d == 0) return 0;
    if (fours_fit(table, sizeof(T), d) && fours_fit(y, 4, d))
        PVA_LAUNCH((take_row<T, ROUNDING, true>), (unsigned)n, threads, 0, stream, table, n_rows, d, which, scale, y, what, fault);
    else PVA_LAUNCH((take_row<T, ROUNDING, false>), (unsigned)n, threads, 0, stream, table, n_rows, d, which, scale, y, what, fault);
    return launch_status();
}

template <typename T>
int embed(const void *table, int64_t n_vocab, int64_t d, const int32_t *ids, int64_t n, float scale, int round_bf16, float *y, int32_t *fault,
          cudaStream_t stream) {
    if (round_bf16) return launch<T, SCALE_BF16>((const T *)table, n_vocab, d, ids, n, scale, y, PVA_FAULT_TOKEN, fault, stream);
    return launch<T, SCALE>((const T *)table, n_vocab, d, ids, n, scale, y, PVA_FAULT_TOKEN, fault, stream);
}

} // namespace

int pva_cuda_embed(const int32_t *ids, int64_t n, const void *table, enum pva_dtype table_type, int64_t n_vocab, int64_t d, float scale,
                   int round_bf16, float *y, int32_t *fault, cudaStream_t stream) {
    if (table_type == PVA_BF16) return embed<__nv_bfloat16>(table, n_vocab, d, ids, n, scale, round_bf16, y, fault, stream);
    return embed<float>(table, n_vocab, d, ids, n, scale, round_bf16, y, fault, stream);
}

int pva_cuda_gather_rows(const float *src, int64_t n_src, int64_t d, const int32_t *rows, int64_t m, float *dst, int32_t *fault,
                         cudaStream_t stream) {
    return launch<float, COPY>(src, n_src, d, rows, m, 1.0f, dst, PVA_FAULT_ROW, fault, stream);
}
