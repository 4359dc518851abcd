/* cuda_linear.cu - y = x W^T, of one or several W at once, and what follows from each sum alone. One kernel in many tile sizes; which one runs changes
 * no bit (see kernels.h).
 *
 * A block computes BM columns of y (rows of W) for BN rows of x. Both operands come through a ring of stages in shared memory, 32 * KB values
 * of k at a time, by asynchronous copies. With few rows of x the tiles are small and the pieces of k go to different blocks, so that the
 * copies in flight keep the memory busy; with many rows a block takes all pieces and multiplies in registers.
 *
 * GeGLU needs gate's and up's sum of a column in one place. Their rows alternate, 8 and 8: the row v, counted through, is row v / 16 * 8 + v % 8 of gate,
 * or of up where v % 16 >= 8. A thread has the sums of rows v and v + 8. */
#include "cuda_mma.cuh"
#include "cuda_reduce.cuh"
#include "kernels.h"

#include <cuda_bf16.h>
#include <limits.h>

namespace {

enum { STEP = 32, MOST_PIECE = 1024 }; /* k per step of an accumulator; most k in one piece */

/* One W of a launch. Those not used begin at a tile that no block has. */
struct linear_matrix {
    const void *w;
    float *y;
    int64_t m, partial_at; /* floats into args.partial */
    unsigned first_tile;   /* of blockIdx.y */
};
struct linear_args {
    const void *x;
    linear_matrix matrix[PVA_MOST_LINEARS];
    float *partial;    /* of each W: [n_pieces, n, m]; NULL: a block takes all pieces */
    unsigned *arrived; /* [tiles]: blocks that have written their piece */
    int64_t n, k, piece;
    int n_pieces;
    bool wide; /* rows of x and of all W are aligned to 16 bytes */
    struct pva_cuda_end end;
};

/* ---- operands ---- */

__device__ __forceinline__ void four_of(const float *p, float (&v)[4]) {
    const float4 f = *reinterpret_cast<const float4 *>(p);
    v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
}
__device__ __forceinline__ void four_of(const __nv_bfloat16 *p, float (&v)[4]) {
    const uint2 h = *reinterpret_cast<const uint2 *>(p);
    v[0] = __uint_as_float(h.x << 16), v[1] = __uint_as_float(h.x & 0xffff0000u);
    v[2] = __uint_as_float(h.y << 16), v[3] = __uint_as_float(h.y & 0xffff0000u);
}
__device__ __forceinline__ void clear(float *p) { *p = 0; }
__device__ __forceinline__ void clear(__nv_bfloat16 *p) { *p = __ushort_as_bfloat16(0); }

/* Tensor cores. In a stage, a row's 32 values are 64 bytes and rows are adjacent: lanes 4 g + q read quarter q of row g, eight lanes
 * all 128 bytes of the banks. Lane q's eight values are k = 8q .. 8q+7: four go to the first product, four to the second. */
struct tensor_cores {
    typedef __nv_bfloat16 X, W;
    enum { X_PITCH = 64, W_PITCH = 64 };
    template <int MT, int NT>
    static __device__ __forceinline__ void step(float (&acc)[MT][NT][4], const char *w, const char *x, int group, int quad) {
        uint4 b[NT];
#pragma unroll
        for (int j = 0; j < NT; j++) b[j] = *reinterpret_cast<const uint4 *>(x + (j * 8 + group) * X_PITCH + quad * 16);
#pragma unroll
        for (int i = 0; i < MT; i++) {
            const uint4 low = *reinterpret_cast<const uint4 *>(w + (i * 16 + group) * W_PITCH + quad * 16);
            const uint4 high = *reinterpret_cast<const uint4 *>(w + (i * 16 + group + 8) * W_PITCH + quad * 16);
#pragma unroll
            for (int j = 0; j < NT; j++) mma_bf16(acc[i][j], low.x, high.x, low.y, high.y, b[j].x, b[j].y);
#pragma unroll
            for (int j = 0; j < NT; j++) mma_bf16(acc[i][j], low.z, high.z, low.w, high.w, b[j].z, b[j].w);
        }
    }
};

/* Fused multiply-adds, k ascending, on the same outputs per lane. */
template <typename XT, typename WT> struct multiply_adds {
    typedef XT X;
    typedef WT W;
    enum { X_PITCH = STEP * sizeof(X) + 16, W_PITCH = STEP * sizeof(W) + 16 };
    template <int MT, int NT>
    static __device__ __forceinline__ void step(float (&acc)[MT][NT][4], const char *w, const char *x, int group, int quad) {
        for (int k = 0; k < STEP; k += 4) {
            float a[MT][2][4], b[NT][2][4];
#pragma unroll
            for (int i = 0; i < 2 * MT; i++) four_of(reinterpret_cast<const W *>(w + (i * 8 + group) * W_PITCH) + k, a[i / 2][i % 2]);
#pragma unroll
            for (int j = 0; j < 2 * NT; j++) four_of(reinterpret_cast<const X *>(x + (j / 2 * 8 + quad * 2 + j % 2) * X_PITCH) + k, b[j / 2][j % 2]);
#pragma unroll
            for (int e = 0; e < 4; e++)
#pragma unroll
                for (int i = 0; i < MT; i++)
#pragma unroll
                    for (int j = 0; j < NT; j++)
#pragma unroll
                        for (int o = 0; o < 4; o++) acc[i][j][o] = fmaf(a[i][o / 2][e], b[j][o % 2][e], acc[i][j][o]);
        }
    }
};

/* ROWS rows from row0 on, k from k0 to `end`, into [KB][ROWS][PITCH]; what is missing becomes 0. PAIRED: rows of src and of `other` in turn. */
template <typename T, int ROWS, int KB, int PITCH, int THREADS, bool PAIRED = false>
__device__ __forceinline__ void load_rows(char *stage, const T *src, int64_t row0, int64_t rows, int64_t k, int64_t k0, int64_t end, bool wide,
                                          const T *other = nullptr) {
    constexpr int EACH = 16 / sizeof(T), PER_STEP = STEP / EACH, PER_ROW = PER_STEP * KB;
#pragma unroll
    for (int i = 0; i < (ROWS * PER_ROW + THREADS - 1) / THREADS; i++) {
        const int at = i * THREADS + (int)threadIdx.x, row = at / PER_ROW, c = at % PER_ROW;
        if (ROWS * PER_ROW % THREADS && at >= ROWS * PER_ROW) break;
        char *to = stage + (c / PER_STEP * ROWS + row) * PITCH + c % PER_STEP * 16;
        const int64_t from = k0 + c * EACH;
        const int64_t of = PAIRED ? row0 / 2 + row / 16 * 8 + row % 8 : row0 + row;
        const int64_t left = of < rows && from < end ? (end - from < EACH ? end - from : EACH) : 0;
        const T *p = left ? (PAIRED && row & 8 ? other : src) + of * k + from : src;
        if (wide) {
            copy_async(to, p, (int)left * (int)sizeof(T));
        } else {
            for (int e = 0; e < EACH; e++)
                if (e < left) reinterpret_cast<T *>(to)[e] = p[e];
                else clear(reinterpret_cast<T *>(to) + e);
        }
    }
}

template <class P, int BM, int BN, int KB> struct stage_of {
    enum { W_BYTES = KB * BM * P::W_PITCH, X_BYTES = KB * BN * P::X_PITCH, BYTES = W_BYTES + X_BYTES };
};

/* The sum of a row and column, of a pair both sums, to where it goes. */
template <enum pva_cuda_ending END> __device__ __forceinline__ void put(const struct pva_cuda_end &end, float *y, int64_t at, float sum, float other) {
    if (END == PVA_END_PLAIN) {
        y[at] = sum;
    } else if (END == PVA_END_SOFTCAP) {
        y[at] = capped(sum, end.cap);
    } else {
        const float v = gelu_times(sum, other);
        if (end.y_type == PVA_BF16) reinterpret_cast<__nv_bfloat16 *>(end.y)[at] = __float2bfloat16_rn(v);
        else reinterpret_cast<float *>(end.y)[at] = v;
    }
}

template <class P, enum pva_cuda_ending END, int BM, int BN, int WM, int WN, int KB, int STAGES>
__global__ void __launch_bounds__(WM *WN * 32, BM == 128 ? 2 : 1) linear_tile(const linear_args a) {
    typedef stage_of<P, BM, BN, KB> S;
    constexpr int THREADS = WM * WN * 32, MT = BM / WM / 16, NT = BN / WN / 8;
    constexpr bool PAIRED = END == PVA_END_GEGLU;
    PVA_DYNAMIC_SHARED(char, ring);
    __shared__ unsigned is_last;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, quad = lane % 4;
    const int warp_m = warp % WM * (BM / WM), warp_n = warp / WM * (BN / WN);
    linear_matrix of = a.matrix[0];
    if (!PAIRED)
#pragma unroll
        for (int i = 1; i < PVA_MOST_LINEARS; i++)
            if (blockIdx.y >= a.matrix[i].first_tile) of = a.matrix[i];
    const int64_t n0 = (int64_t)blockIdx.x * BN, m0 = (int64_t)(blockIdx.y - of.first_tile) * BM;
    const int64_t cols = PAIRED ? (of.m + 7) / 8 * 16 : of.m; /* of a row of `partial` */
    float *const partial = a.partial + of.partial_at;
    const int first = a.partial ? (int)blockIdx.z : 0, pieces = a.partial ? 1 : a.n_pieces;
    const int per_piece = (int)((a.piece + STEP * KB - 1) / (STEP * KB));
    /* the last piece may be shorter */
    const int64_t last_k0 = (int64_t)(first + pieces - 1) * a.piece, last_length = a.k - last_k0 < a.piece ? a.k - last_k0 : a.piece;
    const int steps = (pieces - 1) * per_piece + (int)((last_length + STEP * KB - 1) / (STEP * KB));
    float acc[MT][NT][4] = {};
    float4 *total = reinterpret_cast<float4 *>(ring + STAGES * S::BYTES); /* [MT * NT][THREADS], each thread its own */

    auto load = [&](int s) {
        char *stage = ring + s % STAGES * S::BYTES;
        const int64_t start = (int64_t)(first + s / per_piece) * a.piece, k0 = start + (int64_t)(s % per_piece) * (STEP * KB);
        const int64_t end = start + a.piece < a.k ? start + a.piece : a.k;
        load_rows<typename P::W, BM, KB, P::W_PITCH, THREADS, PAIRED>(stage, (const typename P::W *)of.w, m0, of.m, a.k, k0, end, a.wide,
                                                                      (const typename P::W *)a.matrix[1].w);
        load_rows<typename P::X, BN, KB, P::X_PITCH, THREADS>(stage + S::W_BYTES, (const typename P::X *)a.x, n0, a.n, a.k, k0, end, a.wide);
    };

    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) load(s);
        copy_commit();
    }
    int in_piece = 0, piece = 0;
    for (int s = 0; s < steps; s++) {
        copy_wait<STAGES - 2>();
        __syncthreads(); /* stage s is there, and nobody reads stage s - 1 any more */
        if (s + STAGES - 1 < steps) load(s + STAGES - 1);
        copy_commit();
        const char *stage = ring + s % STAGES * S::BYTES;
        const int64_t length = piece + 1 < pieces ? a.piece : last_length;
#pragma unroll
        for (int b = 0; b < KB; b++) /* no step of zeros: every tile size must do the same steps */
            if ((int64_t)(in_piece * KB + b) * STEP < length)
                P::template step<MT, NT>(acc, stage + (b * BM + warp_m) * P::W_PITCH, stage + S::W_BYTES + (b * BN + warp_n) * P::X_PITCH, group, quad);
        if (++in_piece < per_piece && s + 1 < steps) continue;
        in_piece = 0;
        if (pieces > 1) {
            const bool more = s + 1 < steps;
#pragma unroll
            for (int i = 0; i < MT * NT; i++) {
                float *c = acc[i / NT][i % NT];
                float4 *kept = total + i * THREADS + threadIdx.x, v = make_float4(c[0], c[1], c[2], c[3]);
                if (piece) {
                    const float4 t = *kept;
                    v = make_float4(t.x + v.x, t.y + v.y, t.z + v.z, t.w + v.w);
                }
                if (more) *kept = v;
                c[0] = more ? 0 : v.x, c[1] = more ? 0 : v.y, c[2] = more ? 0 : v.z, c[3] = more ? 0 : v.w;
            }
        }
        piece++;
    }
    copy_wait<0>();

    if (END != PVA_END_PLAIN && !a.partial) { /* by way of shared memory: one copy of the arithmetic, and not one for each accumulator */
#pragma unroll
        for (int i = 0; i < MT * NT; i++) {
            const float *c = acc[i / NT][i % NT];
            total[i * THREADS + threadIdx.x] = make_float4(c[0], c[1], c[2], c[3]);
        }
#pragma unroll 1
        for (int i = 0; i < MT * NT; i++) {
            const float4 t = total[i * THREADS + threadIdx.x];
            const float c[4] = {t.x, t.y, t.z, t.w};
#pragma unroll
            for (int o = 0; o < (PAIRED ? 2 : 4); o++) {
                const int in_tile = warp_m + i / NT * 16 + (PAIRED ? 0 : group + o / 2 * 8);
                const int64_t row = n0 + warp_n + i % NT * 8 + quad * 2 + o % 2, col = PAIRED ? (m0 + in_tile) / 2 + group : m0 + in_tile;
                if (row < a.n && col < of.m) put<END>(a.end, of.y, row * of.m + col, c[o], c[(o + 2) % 4]);
            }
        }
        return;
    }
    float *const out = a.partial ? partial + (int64_t)first * a.n * cols : of.y;
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int j = 0; j < NT; j++)
#pragma unroll
            for (int o = 0; o < 4; o++) {
                const int64_t row = n0 + warp_n + j * 8 + quad * 2 + o % 2, col = m0 + warp_m + i * 16 + group + o / 2 * 8;
                if (row < a.n && col < cols) out[row * cols + col] = acc[i][j][o];
            }
    if (!a.partial) return;

    /* The last block of a tile to arrive adds its pieces, in their order. */
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned *arrived = a.arrived + (int64_t)blockIdx.y * gridDim.x + blockIdx.x;
        is_last = atomicAdd(arrived, 1u) + 1 == (unsigned)a.n_pieces;
        if (is_last) *arrived = 0; /* for the next product */
    }
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    auto sum_of = [&](int64_t at) {
        float sum = __ldcg(partial + at);
        for (int p = 1; p < a.n_pieces; p++) sum += __ldcg(partial + (int64_t)p * a.n * cols + at);
        return sum;
    };
    constexpr int WIDTH = PAIRED ? BM / 2 : BM; /* columns of y */
    for (int at = threadIdx.x; at < WIDTH * BN; at += THREADS) {
        const int in_tile = at % WIDTH;
        const int64_t row = n0 + at / WIDTH, col = (PAIRED ? m0 / 2 : m0) + in_tile;
        if (row >= a.n || col >= of.m) continue;
        const int64_t from = row * cols + m0 + (PAIRED ? in_tile / 8 * 16 + in_tile % 8 : in_tile);
        const float sum = sum_of(from), other = PAIRED ? sum_of(from + 8) : 0;
        put<END>(a.end, of.y, row * of.m + col, sum, other);
    }
}

/* ---- choosing ---- */

struct plan {
    int64_t piece, tiles_m, tiles_n;
    int n_pieces, bm, bn;
    bool split;
};

int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t tiles_of(const struct pva_cuda_product *products, int count, int64_t bm) {
    int64_t tiles = 0;
    for (int i = 0; i < count; i++) tiles += up(products[i].m, bm);
    return tiles;
}

/* More blocks than the largest devices run at once are enough to keep them busy. */
enum { ENOUGH = 264 };

plan make_plan(int64_t n, const struct pva_cuda_product *products, int count, int64_t k, bool tensor, const struct pva_cuda_tile *tile) {
    plan p = {};
    p.piece = up(up(k, up(k, MOST_PIECE)), STEP) * STEP; /* by k alone */
    p.n_pieces = (int)up(k, p.piece);
    p.bn = n <= 8 ? 8 : n <= 16 ? 16 : n <= 32 && tensor ? 32 : 64;
    p.bm = 64;
    if (tensor && n > 64 && tiles_of(products, count, 128) * up(n, 128) >= ENOUGH) p.bm = p.bn = 128;
    while (p.bn == 8 && p.bm > 16 && tiles_of(products, count, p.bm) * p.n_pieces < ENOUGH) p.bm /= 2;
    if (tile) p.bm = tile->bm, p.bn = tile->bn;
    p.tiles_m = tiles_of(products, count, p.bm), p.tiles_n = up(n, p.bn);
    p.split = p.n_pieces > 1 && (tile ? tile->split != 0 : p.tiles_m * p.tiles_n < (p.bn < 64 ? 2 * ENOUGH : ENOUGH));
    return p;
}

template <class P, enum pva_cuda_ending END, int BM, int BN, int WM, int WN, int KB, int STAGES>
int launch(const plan &p, const linear_args &a, cudaStream_t stream) {
    enum { RING = STAGES * stage_of<P, BM, BN, KB>::BYTES };
    static int allowed_on = -1;
    auto kernel = linear_tile<P, END, BM, BN, WM, WN, KB, STAGES>;
    const size_t shared = RING + (!p.split && (p.n_pieces > 1 || END != PVA_END_PLAIN) ? BM * BN * sizeof(float) : 0);
    int device = 0;
    if (RING + BM * BN * sizeof(float) > 48 << 10 && (cudaGetDevice(&device), device != allowed_on)) {
        const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, RING + BM * BN * (int)sizeof(float));
        if (status) return cudaGetLastError(), (int)status;
        allowed_on = device;
    }
    const dim3 grid((unsigned)p.tiles_n, (unsigned)p.tiles_m, p.split ? (unsigned)p.n_pieces : 1);
    PVA_LAUNCH(kernel, grid, WM * WN * 32, shared, stream, a);
    return (int)cudaGetLastError();
}

#define PVA_TILE(P, BM, BN, WM, WN, KB, STAGES) \
    if (p.bm == BM && p.bn == BN) return launch<P, END, BM, BN, WM, WN, KB, STAGES>(p, a, stream)

template <enum pva_cuda_ending END> int launch_tensor(const plan &p, const linear_args &a, cudaStream_t stream) {
    PVA_TILE(tensor_cores, 128, 128, 2, 2, 1, 3);
    PVA_TILE(tensor_cores, 64, 64, 2, 2, 1, 5);
    PVA_TILE(tensor_cores, 64, 32, 4, 1, 2, 5);
    PVA_TILE(tensor_cores, 64, 16, 4, 1, 2, 6);
    PVA_TILE(tensor_cores, 64, 8, 4, 1, 2, 6);
    PVA_TILE(tensor_cores, 32, 8, 2, 1, 2, 8);
    PVA_TILE(tensor_cores, 16, 8, 1, 1, 2, 8);
    return (int)cudaErrorInvalidValue;
}

template <enum pva_cuda_ending END, typename X, typename W> int launch_portable(const plan &p, const linear_args &a, cudaStream_t stream) {
    typedef multiply_adds<X, W> portable;
    PVA_TILE(portable, 64, 64, 2, 2, 1, 3);
    PVA_TILE(portable, 64, 16, 4, 1, 1, 4);
    PVA_TILE(portable, 64, 8, 4, 1, 1, 4);
    PVA_TILE(portable, 32, 8, 2, 1, 1, 6);
    PVA_TILE(portable, 16, 8, 1, 1, 1, 6);
    return (int)cudaErrorInvalidValue;
}

template <enum pva_cuda_ending END>
int launch_any(bool tensor, enum pva_dtype x_type, enum pva_dtype w_type, const plan &p, const linear_args &a, cudaStream_t stream) {
    if (tensor) return launch_tensor<END>(p, a, stream);
    if (x_type == PVA_F32 && w_type == PVA_F32) return launch_portable<END, float, float>(p, a, stream);
    if (x_type == PVA_F32) return launch_portable<END, float, __nv_bfloat16>(p, a, stream);
    return launch_portable<END, __nv_bfloat16, __nv_bfloat16>(p, a, stream);
}

bool aligned(const void *p, int64_t row_bytes) { return reinterpret_cast<uintptr_t>(p) % 16 == 0 && row_bytes % 16 == 0; }

static_assert(2 * ENOUGH * sizeof(unsigned) <= PVA_CUDA_COUNTERS, "a split product has fewer tiles");

size_t bytes_of(int64_t n, const struct pva_cuda_product *products, int count, int64_t k) {
    size_t most = 0, m = 0;
    for (int i = 0; i < count; i++) m += (size_t)products[i].m;
    for (int tensor = 0; tensor < 2 && n && m && k; tensor++) {
        const plan p = make_plan(n, products, count, k, tensor, nullptr);
        const size_t bytes = p.split ? (size_t)p.n_pieces * (size_t)n * m * sizeof(float) : 0;
        if (bytes > most) most = bytes;
    }
    return most;
}

/* The rows of a pair, counted through. */
struct pva_cuda_product paired(const struct pva_cuda_product *products) { return {nullptr, nullptr, up(products[0].m, 8) * 16}; }

} // namespace

size_t pva_cuda_linear_bytes(int64_t n, const struct pva_cuda_product *products, int count, int64_t k) {
    size_t most = bytes_of(n, products, count, k);
    if (count == 2 && products[0].m == products[1].m) {
        const struct pva_cuda_product pair = paired(products);
        const size_t bytes = bytes_of(n, &pair, 1, k);
        if (bytes > most) most = bytes;
    }
    return PVA_CUDA_COUNTERS + most;
}

int pva_cuda_linear(const void *x, enum pva_dtype x_type, const struct pva_cuda_product *products, int count, enum pva_dtype w_type, int64_t n, int64_t k,
                    const struct pva_cuda_end *end, enum pva_cuda_path path, void *work, cudaStream_t stream) {
    return pva_cuda_linear_with(nullptr, x, x_type, products, count, w_type, n, k, end, path, work, stream);
}

int pva_cuda_linear_with(const struct pva_cuda_tile *tile, const void *x, enum pva_dtype x_type, const struct pva_cuda_product *products, int count,
                         enum pva_dtype w_type, int64_t n, int64_t k, const struct pva_cuda_end *end, enum pva_cuda_path path, void *work,
                         cudaStream_t stream) {
    const bool pair = end->how == PVA_END_GEGLU;
    if (count < 1 || count > PVA_MOST_LINEARS || (end->how == PVA_END_SOFTCAP && count != 1)) return (int)cudaErrorInvalidValue;
    if (pair && (count != 2 || products[0].m != products[1].m)) return (int)cudaErrorInvalidValue;
    if (n == 0 || tiles_of(products, count, 1) == 0) return 0;
    if (k == 0) {
        if (pair) return (int)cudaMemsetAsync(end->y, 0, (size_t)n * (size_t)products[0].m * (end->y_type == PVA_BF16 ? 2 : 4), stream);
        for (int i = 0; i < count; i++) {
            const cudaError_t status = cudaMemsetAsync(products[i].y, 0, (size_t)n * (size_t)products[i].m * sizeof(float), stream);
            if (status) return (int)status;
        }
        return 0;
    }
    const bool tensor = path == PVA_TENSOR_CORES && x_type == PVA_BF16 && w_type == PVA_BF16;
    const struct pva_cuda_product both = paired(products);
    const plan p = pair ? make_plan(n, &both, 1, k, tensor, tile) : make_plan(n, products, count, k, tensor, tile);
    if (p.split && p.tiles_m * p.tiles_n > PVA_CUDA_COUNTERS / (int64_t)sizeof(unsigned)) return (int)cudaErrorInvalidValue;
    linear_args a = {};
    a.x = x, a.n = n, a.k = k, a.piece = p.piece, a.n_pieces = p.n_pieces, a.end = *end;
    a.arrived = (unsigned *)work;
    a.partial = p.split ? (float *)((char *)work + PVA_CUDA_COUNTERS) : nullptr;
    a.wide = aligned(x, k * (x_type == PVA_F32 ? 4 : 2));
    int64_t tiles = 0, partial_at = 0;
    for (int i = 0; i < PVA_MOST_LINEARS; i++) {
        a.matrix[i].first_tile = i < count ? (unsigned)tiles : UINT_MAX;
        if (i >= count) continue;
        a.matrix[i].w = products[i].w, a.matrix[i].y = products[i].y, a.matrix[i].m = products[i].m;
        a.matrix[i].partial_at = p.split ? partial_at : 0;
        a.wide = a.wide && aligned(products[i].w, k * (w_type == PVA_F32 ? 4 : 2));
        tiles += up(products[i].m, p.bm), partial_at += p.n_pieces * n * products[i].m;
    }
    switch (end->how) {
    case PVA_END_PLAIN: return launch_any<PVA_END_PLAIN>(tensor, x_type, w_type, p, a, stream);
    case PVA_END_SOFTCAP: return launch_any<PVA_END_SOFTCAP>(tensor, x_type, w_type, p, a, stream);
    case PVA_END_GEGLU: return launch_any<PVA_END_GEGLU>(tensor, x_type, w_type, p, a, stream);
    }
    return (int)cudaErrorInvalidValue;
}
