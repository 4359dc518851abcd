/* cuda_attention.cu - attention over the paged cache: one order of summation for a prompt's rows and for decoding.
 *
 * The order (kernels.h) is by position alone: scores are chains over d_head; every PART positions, counted from 0, have their own maximum, their
 * own weights and their own sums; parts are joined ascending. A block takes one key/value head and up to ROWS query rows that share it: the
 * heads of its group, and with a prompt several neighbouring tokens of one slot. Keys and values are read once for all of them, TILE positions at
 * a time through a ring in shared memory. With few rows the parts go to different blocks, and the last one to finish joins them. */
#include "cuda_mma.cuh"
#include "cuda_reduce.cuh"
#include "kernels.h"

namespace {

enum { PART = 64, TILE = 32, ROWS = 16, THREADS = 128, WARPS = THREADS / 32, STAGES = 3, WEIGHT_PITCH = ROWS + 4, MOST_HEAD = 256 };

struct attention_args {
    const float *q;
    const int32_t *slots, *positions;
    const void *k, *v; /* of the layer */
    const int32_t *page_table;
    float *out32;
    __nv_bfloat16 *out16;
    float *partial; /* [n, n_heads, gridDim.z, d + 2]: maximum, sum, values; NULL: a block takes all parts */
    unsigned *arrived;
    int32_t *fault;
    float scale, softcap;
    int n, n_heads, n_kv_heads, d, window, n_slots, max_pages, n_pages, page_size;
    bool wide;
};

__device__ __forceinline__ int first_visible(int position, int window) { return window > 0 && position >= window ? position - window + 1 : 0; }

__device__ __forceinline__ void read_eight(const __nv_bfloat16 *p, float (&v)[8]) {
    const uint4 h = *reinterpret_cast<const uint4 *>(p);
    const unsigned pair[4] = {h.x, h.y, h.z, h.w};
#pragma unroll
    for (int i = 0; i < 4; i++) v[2 * i] = __uint_as_float(pair[i] << 16), v[2 * i + 1] = __uint_as_float(pair[i] & 0xffff0000u);
}
__device__ __forceinline__ void read_eight(const float *p, float (&v)[8]) {
    const float4 a = reinterpret_cast<const float4 *>(p)[0], b = reinterpret_cast<const float4 *>(p)[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
__device__ __forceinline__ float2 read_two(const __nv_bfloat16 *p) {
    const unsigned h = *reinterpret_cast<const unsigned *>(p);
    return make_float2(__uint_as_float(h << 16), __uint_as_float(h & 0xffff0000u));
}
__device__ __forceinline__ float2 read_two(const float *p) { return *reinterpret_cast<const float2 *>(p); }
__device__ __forceinline__ void zero(float *p) { *p = 0; }
__device__ __forceinline__ void zero(__nv_bfloat16 *p) { *p = __ushort_as_bfloat16(0); }

/* A part (m, l, o) joins what came before it: o = o * *old + its o * *its. */
struct joined {
    float max, sum;
    bool any;
};
__device__ __forceinline__ void join(joined &t, float m, float l, float *old, float *its) {
    const float max = !t.any || m > t.max ? m : t.max;
    *old = t.any ? exp_same(t.max - max) : 0.0f;
    *its = exp_same(m - max);
    t.sum = fmaf(t.sum, *old, l * *its);
    t.max = max;
    t.any = true;
}

__device__ __forceinline__ void store_out(const attention_args &a, int64_t at, float v) {
    if (a.out32) a.out32[at] = v;
    else a.out16[at] = __float2bfloat16_rn(v);
}

template <typename T> __global__ void __launch_bounds__(THREADS, 2) attention_rows(const attention_args a) {
    PVA_DYNAMIC_SHARED(char, memory);
    __shared__ float part_max[ROWS], part_sum[ROWS], old_factor[ROWS], its_factor[ROWS], final_factor[ROWS];
    __shared__ unsigned is_last;
    const int first_row = blockIdx.x, head = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int group = a.n_heads / a.n_kv_heads, tokens_most = ROWS / group;
    const int slot = a.slots[first_row], first_position = a.positions[first_row];

    /* The tokens of a block: neighbours in the batch, in the slot and in position, cut at multiples of tokens_most. */
    if (first_row > 0 && first_position % tokens_most && a.slots[first_row - 1] == slot && a.positions[first_row - 1] == first_position - 1) return;
    int tokens = 1;
    while (first_row + tokens < a.n && (first_position + tokens) % tokens_most && a.slots[first_row + tokens] == slot &&
           a.positions[first_row + tokens] == first_position + tokens)
        tokens++;
    const int rows = tokens * group, last_position = first_position + tokens - 1;
    const bool known = slot >= 0 && slot < a.n_slots && first_position >= 0 && last_position / a.page_size < a.max_pages;
    if (!known && threadIdx.x == 0) report_fault(a.fault, PVA_FAULT_PAGE, slot);
    const int low = known ? first_visible(first_position, a.window) : 0, high = known ? last_position : 0;
    int part = low / PART, last_part = high / PART;
    const int parts = last_part - part + 1;
    if (a.partial) {
        part += blockIdx.z;
        if (part > last_part) return;
        last_part = part;
    }

    const int d8 = (a.d + 7) / 8 * 8, pitch = d8 * (int)sizeof(T) + 16;
    const int stage_bytes = TILE * pitch;
    char *ring = memory;
    float *weights = reinterpret_cast<float *>(memory + STAGES * stage_bytes); /* [PART][WEIGHT_PITCH]: scores, then weights */
    float *queries = weights + PART * WEIGHT_PITCH;                            /* [rows][d8] */
    for (int r = warp; r < rows; r += WARPS) {
        const float *from = a.q + ((int64_t)(first_row + r / group) * a.n_heads + head * group + r % group) * a.d;
        for (int i = lane; i < d8; i += 32) queries[r * d8 + i] = i < a.d ? from[i] : 0.0f;
    }

    auto first_tile = [&](int p) { return (low > p * PART ? low : p * PART) / TILE; };
    auto last_tile = [&](int p) { return (high < p * PART + PART - 1 ? high : p * PART + PART - 1) / TILE; };
    /* A warp copies whole rows, so that it looks for a page once. Positions that no row sees arrive as zero. */
    auto load = [&](int stage, bool values, int tile) {
        const T *base = static_cast<const T *>(values ? a.v : a.k);
#pragma unroll 4
        for (int i = warp; i < TILE; i += WARPS) {
            const int position = tile * TILE + i;
            char *to = ring + stage * stage_bytes + i * pitch;
            const bool there = known && position >= low && position <= high;
            const int page = there ? a.page_table[(int64_t)slot * a.max_pages + position / a.page_size] : -1;
            const bool sound = page >= 0 && page < a.n_pages;
            if (there && !sound && lane == 0) report_fault(a.fault, PVA_FAULT_PAGE, page);
            const T *from = sound ? base + (((int64_t)page * a.n_kv_heads + head) * a.page_size + position % a.page_size) * a.d : base;
            constexpr int EACH = 16 / sizeof(T);
            if (a.wide) {
                for (int c = lane; c < a.d / EACH; c += 32) copy_async(to + c * 16, from + (sound ? c * EACH : 0), sound ? 16 : 0);
            } else {
                for (int c = lane; c < d8; c += 32)
                    if (sound && c < a.d) reinterpret_cast<T *>(to)[c] = from[c];
                    else zero(reinterpret_cast<T *>(to) + c);
            }
        }
    };
    /* What is loaded next: the keys of a part, its values, the keys of the next part ... */
    int next_part = part, next_tile = first_tile(part), stage = 0, next_stage = 0;
    bool next_values = false;
    auto load_next = [&]() {
        if (next_part <= last_part) {
            load(next_stage, next_values, next_tile);
            if (++next_tile > last_tile(next_part)) {
                if (next_values) next_part++;
                next_values = !next_values;
                next_tile = first_tile(next_part);
            }
        }
        copy_commit();
        next_stage = (next_stage + 1) % STAGES;
    };
    for (int s = 0; s < STAGES - 1; s++) load_next();

    const int column = 2 * threadIdx.x;
    float total[ROWS][2] = {};
    joined state = {0, 0, false}; /* of row threadIdx.x */
    for (; part <= last_part; part++) {
        const int base = part * PART;
        for (int tile = first_tile(part); tile <= last_tile(part); tile++) {
            copy_wait<STAGES - 2>();
            __syncthreads();
            load_next();
            /* Scores: a lane has one key, a warp every fourth row. */
            const T *key = reinterpret_cast<const T *>(ring + stage * stage_bytes + lane * pitch);
            float dot[ROWS / WARPS] = {};
            for (int i = 0; i < d8; i += 8) {
                float kv[8];
                read_eight(key + i, kv);
#pragma unroll
                for (int j = 0; j < ROWS / WARPS; j++)
                    if (warp + j * WARPS < rows) {
                        float qv[8];
                        read_eight(queries + (warp + j * WARPS) * d8 + i, qv);
#pragma unroll
                        for (int e = 0; e < 8; e++) dot[j] = fmaf(qv[e], kv[e], dot[j]);
                    }
            }
#pragma unroll
            for (int j = 0; j < ROWS / WARPS; j++)
                if (warp + j * WARPS < rows) {
                    float s = dot[j] * a.scale;
                    if (a.softcap > 0) s = a.softcap * tanh_same(s / a.softcap);
                    weights[(tile * TILE + lane - base) * WEIGHT_PITCH + warp + j * WARPS] = s;
                }
            stage = (stage + 1) % STAGES;
        }
        __syncthreads();

        /* Weights: a warp has every fourth row, lane j the positions j, j + 32, ... */
        const int from = first_tile(part) * TILE, to = (last_tile(part) + 1) * TILE;
        for (int r = warp; r < rows; r += WARPS) {
            const int position = first_position + r / group, seen = first_visible(position, a.window);
            float max = -INFINITY, sum = 0;
            for (int p = from + lane; p < to; p += 32)
                if (p >= seen && p <= position) max = fmaxf(max, weights[(p - base) * WEIGHT_PITCH + r]);
            max = warp_max(max);
            for (int p = from + lane; p < to; p += 32) {
                float *w = &weights[(p - base) * WEIGHT_PITCH + r];
                *w = p >= seen && p <= position ? exp_same(*w - max) : 0.0f;
                sum += *w;
            }
            sum = warp_sum(sum);
            if (lane == 0) part_max[r] = max, part_sum[r] = sum;
        }

        float o[ROWS][2] = {};
        for (int tile = first_tile(part); tile <= last_tile(part); tile++) {
            copy_wait<STAGES - 2>();
            __syncthreads();
            load_next();
            const T *values = reinterpret_cast<const T *>(ring + stage * stage_bytes) + column;
            const float *w = weights + (tile * TILE - base) * WEIGHT_PITCH;
            /* Where rows see different positions, a weight of 0 is a position not seen: whatever lies there must not touch the row. */
            const bool ragged = tile * TILE < first_visible(last_position, a.window) || tile * TILE + TILE - 1 > first_position;
            if (column < a.d) {
                for (int i = 0; i < TILE; i++) {
                    const float2 v = read_two(reinterpret_cast<const T *>(reinterpret_cast<const char *>(values) + i * pitch));
#pragma unroll
                    for (int r = 0; r < ROWS; r += 4)
                        if (r < rows) {
                            const float4 four = *reinterpret_cast<const float4 *>(w + i * WEIGHT_PITCH + r);
                            const float x[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
                            for (int e = 0; e < 4; e++)
                                if (!ragged || x[e] != 0.0f) {
                                    o[r + e][0] = fmaf(x[e], v.x, o[r + e][0]);
                                    o[r + e][1] = fmaf(x[e], v.y, o[r + e][1]);
                                }
                        }
                }
            }
            stage = (stage + 1) % STAGES;
        }

        if (a.partial) {
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                if (r < rows) {
                    const int64_t at = ((int64_t)(first_row + r / group) * a.n_heads + head * group + r % group) * gridDim.z + blockIdx.z;
                    float *p = a.partial + at * (a.d + 2);
                    if (threadIdx.x == 0) p[0] = part_max[r], p[1] = part_sum[r];
                    if (column < a.d) p[2 + column] = o[r][0], p[3 + column] = o[r][1];
                }
            break;
        }
        if ((int)threadIdx.x < rows) {
            const int position = first_position + (int)threadIdx.x / group;
            old_factor[threadIdx.x] = 1, its_factor[threadIdx.x] = 0; /* no position of this part is seen */
            if (base + PART > first_visible(position, a.window) && base <= position)
                join(state, part_max[threadIdx.x], part_sum[threadIdx.x], &old_factor[threadIdx.x], &its_factor[threadIdx.x]);
            final_factor[threadIdx.x] = 1.0f / state.sum;
        }
        __syncthreads();
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (r < rows && its_factor[r] != 0.0f)
                for (int e = 0; e < 2; e++) total[r][e] = fmaf(total[r][e], old_factor[r], o[r][e] * its_factor[r]);
    }
    copy_wait<0>();

    if (!a.partial) {
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (r < rows && column < a.d) {
                const int64_t at = ((int64_t)(first_row + r / group) * a.n_heads + head * group + r % group) * a.d + column;
                store_out(a, at, total[r][0] * final_factor[r]), store_out(a, at + 1, total[r][1] * final_factor[r]);
            }
        return;
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned *arrived = a.arrived + (int64_t)first_row * a.n_kv_heads + head;
        is_last = atomicAdd(arrived, 1u) + 1 == (unsigned)parts;
        if (is_last) *arrived = 0;
    }
    __syncthreads();
    if (!is_last || column >= a.d) return;
    __threadfence();
    for (int r = 0; r < rows; r++) {
        const int64_t row = (int64_t)(first_row + r / group) * a.n_heads + head * group + r % group;
        const int position = first_position + r / group;
        const int begin = known ? first_visible(position, a.window) / PART : 0, end = known ? position / PART : 0;
        joined t = {0, 0, false};
        float x = 0, y = 0;
        for (int p = begin; p <= end; p++) {
            const float *from = a.partial + (row * gridDim.z + (p - low / PART)) * (a.d + 2);
            float old, its;
            join(t, __ldcg(from), __ldcg(from + 1), &old, &its);
            x = fmaf(x, old, __ldcg(from + 2 + column) * its);
            y = fmaf(y, old, __ldcg(from + 3 + column) * its);
        }
        const float r_sum = 1.0f / t.sum;
        store_out(a, row * a.d + column, x * r_sum), store_out(a, row * a.d + column + 1, y * r_sum);
    }
}

/* Fewer blocks than this leave large devices idle. */
enum { ENOUGH = 264 };

int64_t parts_most(const struct pva_cuda_kv *kv, int window) {
    const int64_t all = ((int64_t)kv->max_pages * kv->page_size + PART - 1) / PART;
    const int64_t seen = window > 0 ? ((int64_t)window + ROWS + PART - 2) / PART + 1 : all;
    return seen < all ? seen : all;
}

bool splits(int64_t n, const struct pva_cuda_kv *kv, int window) { return n * kv->n_kv_heads < ENOUGH && parts_most(kv, window) > 1; }

template <typename T> int launch(const attention_args &a, dim3 grid, cudaStream_t stream) {
    static int allowed_on = -1;
    auto kernel = attention_rows<T>;
    auto bytes = [](int d) { return STAGES * TILE * (d * (int)sizeof(T) + 16) + (PART * WEIGHT_PITCH + ROWS * d) * (int)sizeof(float); };
    int device = 0;
    if (cudaGetDevice(&device), device != allowed_on) {
        const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes(MOST_HEAD));
        if (status) return cudaGetLastError(), (int)status;
        allowed_on = device;
    }
    PVA_LAUNCH(kernel, grid, THREADS, (size_t)bytes((a.d + 7) / 8 * 8), stream, a);
    return (int)cudaGetLastError();
}

} // namespace

size_t pva_cuda_attention_bytes(int64_t n, int n_heads, const struct pva_cuda_kv *kv, int window) {
    const size_t each = (size_t)parts_most(kv, window) * (size_t)(kv->d_head + 2) * sizeof(float);
    return PVA_CUDA_COUNTERS + (splits(n, kv, window) ? (size_t)n * (size_t)n_heads * each : 0);
}

int pva_cuda_attention(const float *q, const int32_t *slots, const int32_t *positions, int64_t n, const struct pva_attention_shape *shape,
                       const struct pva_cuda_kv *kv, int layer, void *out, enum pva_dtype out_type, void *work, int32_t *fault,
                       cudaStream_t stream) {
    const int group = shape->n_heads / shape->n_kv_heads;
    if (n == 0) return 0;
    if (group < 1 || group > ROWS || shape->d_head > MOST_HEAD || shape->d_head % 2) return (int)cudaErrorInvalidValue;
    const size_t element = kv->type == PVA_BF16 ? 2 : 4;
    const size_t layer_bytes = (size_t)kv->n_pages * (size_t)kv->n_kv_heads * (size_t)kv->page_size * (size_t)kv->d_head * element;
    attention_args a = {};
    a.q = q, a.slots = slots, a.positions = positions, a.n = (int)n;
    a.k = (const char *)kv->k + (size_t)layer * layer_bytes, a.v = (const char *)kv->v + (size_t)layer * layer_bytes;
    a.page_table = kv->page_table, a.n_slots = kv->n_slots, a.max_pages = kv->max_pages, a.n_pages = kv->n_pages, a.page_size = kv->page_size;
    (out_type == PVA_F32 ? (void *&)a.out32 : (void *&)a.out16) = out;
    a.scale = shape->scale, a.softcap = shape->softcap, a.window = shape->window;
    a.n_heads = shape->n_heads, a.n_kv_heads = shape->n_kv_heads, a.d = shape->d_head, a.fault = fault;
    a.wide = reinterpret_cast<uintptr_t>(a.k) % 16 == 0 && reinterpret_cast<uintptr_t>(a.v) % 16 == 0 && a.d % 8 == 0;
    dim3 grid((unsigned)n, (unsigned)shape->n_kv_heads, 1);
    if (splits(n, kv, shape->window)) {
        a.arrived = (unsigned *)work;
        a.partial = (float *)((char *)work + PVA_CUDA_COUNTERS);
        grid.z = (unsigned)parts_most(kv, shape->window);
    }
    return kv->type == PVA_BF16 ? launch<__nv_bfloat16>(a, grid, stream) : launch<float>(a, grid, stream);
}
