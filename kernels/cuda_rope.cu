/* cuda_rope.cu - rotates queries in place and keys on their way into the paged cache; stores values. One block per row and head. */
#include "cuda_reduce.cuh"
#include "kernels.h"

namespace {

__device__ __forceinline__ void put(float *p, float v) { *p = v; }
__device__ __forceinline__ void put(__nv_bfloat16 *p, float v) { *p = __float2bfloat16_rn(v); }

/* blockIdx.x: row; blockIdx.y: the query heads, then the kv heads. */
template <typename T>
__global__ void __launch_bounds__(128) rope_store(float *q, const float *k, const float *v, const int32_t *slots, const int32_t *positions,
                                                  int n_heads, const float *cosines, const float *sines, int64_t n_positions,
                                                  pva_cuda_kv kv, int layer, int32_t *fault) {
    const int64_t row = blockIdx.x, position = positions[row];
    const int half = kv.d_head / 2, slot = slots[row], head = blockIdx.y;
    const int64_t page_index = position / kv.page_size;
    int64_t page = -1;
    if (position >= 0 && position < n_positions && slot >= 0 && slot < kv.n_slots && page_index < kv.max_pages)
        page = kv.page_table[(int64_t)slot * kv.max_pages + page_index];
    if (page < 0 || page >= kv.n_pages) {
        if (threadIdx.x == 0) report_fault(fault, PVA_FAULT_PAGE, (int32_t)position);
        return;
    }
    cosines += position * half;
    sines += position * half;
    if (head < n_heads) {
        q += (row * n_heads + head) * kv.d_head;
        for (int i = threadIdx.x; i < half; i += blockDim.x) {
            const float a = q[i], b = q[i + half], c = cosines[i], s = sines[i];
            q[i] = a * c - b * s;
            q[i + half] = b * c + a * s;
        }
        return;
    }
    const int64_t from = (row * kv.n_kv_heads + head - n_heads) * kv.d_head;
    const int64_t to = (((layer * (int64_t)kv.n_pages + page) * kv.n_kv_heads + head - n_heads) * kv.page_size + position % kv.page_size) * kv.d_head;
    k += from;
    v += from;
    T *keys = (T *)kv.k + to, *values = (T *)kv.v + to;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        const float a = k[i], b = k[i + half], c = cosines[i], s = sines[i];
        put(keys + i, a * c - b * s);
        put(keys + i + half, b * c + a * s);
        put(values + i, v[i]);
        put(values + i + half, v[i + half]);
    }
}

} // namespace

int pva_cuda_rope_store(float *q, const float *k, const float *v, const int32_t *slots, const int32_t *positions, int64_t n, int n_heads,
                        const float *cosines, const float *sines, int64_t n_positions, const struct pva_cuda_kv *kv, int layer, int32_t *fault,
                        cudaStream_t stream) {
    const dim3 grid((unsigned)n, (unsigned)(n_heads + kv->n_kv_heads));
    const unsigned threads = kv->d_head <= 64 ? 32 : kv->d_head <= 128 ? 64 : 128;
    const pva_cuda_kv cache = *kv;
    if (n == 0) return 0;
    if (kv->type == PVA_BF16)
        PVA_LAUNCH(rope_store<__nv_bfloat16>, grid, threads, 0, stream, q, k, v, slots, positions, n_heads, cosines, sines, n_positions, cache,
                   layer, fault);
    else
        PVA_LAUNCH(rope_store<float>, grid, threads, 0, stream, q, k, v, slots, positions, n_heads, cosines, sines, n_positions, cache, layer,
                   fault);
    return launch_status();
}
