/* cuda_sae.cu - JumpReLU encoding: product with W_enc, threshold and compaction; the dense [n, n_latents] is never written.
 *
 * encode_tile computes ROWS rows by COLUMNS latents and leaves each row's active ones at the start of that row's COLUMNS places of the
 * output; close_gaps moves them together in each row, join_rows the rows. All orders are fixed, so the result is. */
#include "cuda_mma.cuh"
#include "cuda_reduce.cuh"
#include "kernels.h"

#include <float.h>

namespace {

enum { COLUMNS = 128, ROWS = 32, THREADS = 128, EACH = ROWS / (THREADS / 32), DEPTH = 32, STAGES = 3, CHUNK = 256, X_PITCH = ROWS + 4 };
enum { RING = STAGES * (DEPTH * COLUMNS + DEPTH * X_PITCH) * (int)sizeof(float) };
enum { MOVERS = 1024 };

struct encode_args {
    const float *x, *w, *bias, *threshold;
    int32_t *indices, *tallies, *tile_tallies; /* tile_tallies [n, blocks of columns, 3] */
    float *values;
    int64_t n, d, n_latents, first, count;
    bool wide;
};

__global__ void __launch_bounds__(THREADS) encode_tile(const encode_args a) {
    PVA_DYNAMIC_SHARED(float, ring);
    float *x_ring = ring + STAGES * DEPTH * COLUMNS;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t row0 = (int64_t)blockIdx.x * ROWS, column0 = (int64_t)blockIdx.y * COLUMNS;
    const int steps = (int)((a.d + DEPTH - 1) / DEPTH);

    auto load = [&](int s) {
        float *w = ring + s % STAGES * DEPTH * COLUMNS, *x = x_ring + s % STAGES * DEPTH * X_PITCH;
        const int64_t k0 = (int64_t)s * DEPTH;
        for (int k = warp; k < DEPTH; k += THREADS / 32) {
            const int64_t column = column0 + lane * 4, left = k0 + k < a.d && column < a.count ? a.count - column : 0;
            const float *from = left ? a.w + (k0 + k) * a.n_latents + a.first + column : a.w;
            float *to = w + k * COLUMNS + lane * 4;
            if (a.wide) {
                copy_async(to, from, left >= 4 ? 16 : (int)left * 4);
            } else {
                for (int e = 0; e < 4; e++) to[e] = e < left ? from[e] : 0.0f;
            }
        }
        for (int r = warp; r < ROWS; r += THREADS / 32) x[lane * X_PITCH + r] = row0 + r < a.n && k0 + lane < a.d ? a.x[(row0 + r) * a.d + k0 + lane] : 0.0f;
    };

    float sum[EACH][4] = {}, z[EACH][4] = {};
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) load(s);
        copy_commit();
    }
    for (int s = 0; s < steps; s++) {
        copy_wait<STAGES - 2>();
        __syncthreads();
        if (s + STAGES - 1 < steps) load(s + STAGES - 1);
        copy_commit();
        const float *w = ring + s % STAGES * DEPTH * COLUMNS + lane * 4, *x = x_ring + s % STAGES * DEPTH * X_PITCH + warp * EACH;
        const int depth = a.d - (int64_t)s * DEPTH < DEPTH ? (int)(a.d - (int64_t)s * DEPTH) : DEPTH;
#pragma unroll 4
        for (int k = 0; k < depth; k++) { /* not beyond d: adding 0 would turn -0 into 0 */
            const float4 column = *reinterpret_cast<const float4 *>(w + k * COLUMNS);
            const float c[4] = {column.x, column.y, column.z, column.w};
#pragma unroll
            for (int r = 0; r < EACH; r += 4) {
                const float4 four = *reinterpret_cast<const float4 *>(x + k * X_PITCH + r);
                const float v[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int e = 0; e < 4; e++) sum[r + i][e] = fmaf(v[i], c[e], sum[r + i][e]);
            }
        }
        if ((s + 1) % (CHUNK / DEPTH) && s + 1 < steps) continue;
#pragma unroll
        for (int r = 0; r < EACH; r++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                z[r][e] = s < CHUNK / DEPTH ? sum[r][e] : z[r][e] + sum[r][e];
                sum[r][e] = 0;
            }
    }
    copy_wait<0>();

    const unsigned before = (1u << lane) - 1;
    const int64_t blocks = gridDim.y;
#pragma unroll
    for (int r = 0; r < EACH; r++) {
        const int64_t row = row0 + warp * EACH + r;
        if (row >= a.n) break; /* the whole warp */
        int count = 0, near = 0, at = 0;
        int32_t bad = INT32_MAX;
        bool active[4];
        float value[4];
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int64_t column = column0 + lane * 4 + e;
            active[e] = false;
            value[e] = 0;
            if (column < a.count) {
                const float theta = a.threshold[a.first + column];
                value[e] = z[r][e] + a.bias[a.first + column];
                const bool finite = fabsf(value[e]) <= FLT_MAX;
                active[e] = finite && value[e] > theta;
                near += finite && fabsf(value[e] - theta) < 1e-3f * theta;
                if (!finite && bad == INT32_MAX) bad = (int32_t)(a.first + column);
            }
            const unsigned votes = __ballot_sync(PVA_FULL_WARP, active[e]);
            at += __popc(votes & before);
            count += __popc(votes);
        }
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (active[e]) {
                a.indices[row * a.count + column0 + at] = (int32_t)(a.first + column0 + lane * 4 + e);
                a.values[row * a.count + column0 + at] = value[e];
                at++;
            }
        for (int half = 16; half; half /= 2) {
            const int32_t other = __shfl_xor_sync(PVA_FULL_WARP, bad, half);
            near += __shfl_xor_sync(PVA_FULL_WARP, near, half);
            if (other < bad) bad = other;
        }
        if (lane == 0) {
            int32_t *tally = a.tile_tallies + (row * blocks + blockIdx.y) * PVA_JUMPRELU_TALLIES;
            tally[PVA_JUMPRELU_ACTIVE] = count, tally[PVA_JUMPRELU_NEAR] = near, tally[PVA_JUMPRELU_BAD] = bad;
        }
    }
}

/* One block per row. MOVERS places at a time are read by all before any is written, and what is written lies before what is still to be read. */
__global__ void __launch_bounds__(MOVERS) close_gaps(const encode_args a, int64_t blocks) {
    const int64_t row = blockIdx.x;
    const int place = threadIdx.x % COLUMNS, mine = threadIdx.x / COLUMNS;
    int64_t done = 0;
    int near = 0;
    int32_t bad = INT32_MAX;
    for (int64_t b = 0; b < blocks; b += MOVERS / COLUMNS) {
        int64_t at = done;
        int count = 0;
        for (int i = 0; i < MOVERS / COLUMNS && b + i < blocks; i++) {
            const int32_t *tally = a.tile_tallies + (row * blocks + b + i) * PVA_JUMPRELU_TALLIES;
            if (i < mine) at += tally[PVA_JUMPRELU_ACTIVE];
            if (i == mine) count = tally[PVA_JUMPRELU_ACTIVE];
            done += tally[PVA_JUMPRELU_ACTIVE];
            near += tally[PVA_JUMPRELU_NEAR];
            if (tally[PVA_JUMPRELU_BAD] < bad) bad = tally[PVA_JUMPRELU_BAD];
        }
        const int64_t from = row * a.count + (b + mine) * COLUMNS + place;
        const bool moves = place < count;
        const int32_t index = moves ? a.indices[from] : 0;
        const float value = moves ? a.values[from] : 0.0f;
        __syncthreads();
        if (moves) a.indices[row * a.count + at + place] = index, a.values[row * a.count + at + place] = value;
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        int32_t *tally = a.tallies + row * PVA_JUMPRELU_TALLIES;
        tally[PVA_JUMPRELU_ACTIVE] = (int32_t)done, tally[PVA_JUMPRELU_NEAR] = near;
        tally[PVA_JUMPRELU_BAD] = bad == INT32_MAX ? -1 : bad;
    }
}

/* One block, row after row: what a row has is read before it is written, further to the front, over places that are of no more use. */
__global__ void __launch_bounds__(MOVERS) join_rows(const encode_args a) {
    int64_t to = a.tallies[PVA_JUMPRELU_ACTIVE];
    for (int64_t row = 1; row < a.n; row++) {
        const int64_t count = a.tallies[row * PVA_JUMPRELU_TALLIES + PVA_JUMPRELU_ACTIVE];
        for (int64_t first = 0; first < count; first += MOVERS) {
            const int64_t i = first + threadIdx.x;
            const bool moves = i < count;
            const int32_t index = moves ? a.indices[row * a.count + i] : 0;
            const float value = moves ? a.values[row * a.count + i] : 0.0f;
            __syncthreads();
            if (moves) a.indices[to + i] = index, a.values[to + i] = value;
            __syncthreads();
        }
        to += count;
    }
}

int64_t blocks_of(int64_t count) { return (count + COLUMNS - 1) / COLUMNS; }

} // namespace

size_t pva_cuda_jumprelu_bytes(int64_t n, int64_t count) { return (size_t)n * (size_t)blocks_of(count) * PVA_JUMPRELU_TALLIES * sizeof(int32_t); }

int pva_cuda_jumprelu(const float *x, int64_t n, int64_t d, const float *w_enc, const float *b_enc, const float *threshold, int64_t n_latents,
                      int64_t first, int64_t count, int32_t *indices, float *values, int32_t *tallies, void *work, cudaStream_t stream) {
    if (n == 0) return 0;
    encode_args a = {};
    a.x = x, a.w = w_enc, a.bias = b_enc, a.threshold = threshold, a.indices = indices, a.values = values, a.tallies = tallies;
    a.tile_tallies = (int32_t *)work;
    a.n = n, a.d = d, a.n_latents = n_latents, a.first = first, a.count = count;
    a.wide = reinterpret_cast<uintptr_t>(w_enc) % 16 == 0 && n_latents % 4 == 0 && first % 4 == 0;
    if (count) {
        static int allowed_on = -1;
        int device = 0;
        if (cudaGetDevice(&device), device != allowed_on) {
            const cudaError_t status = cudaFuncSetAttribute(encode_tile, cudaFuncAttributeMaxDynamicSharedMemorySize, RING);
            if (status) return cudaGetLastError(), (int)status;
            allowed_on = device;
        }
        const dim3 grid((unsigned)((n + ROWS - 1) / ROWS), (unsigned)blocks_of(count));
        PVA_LAUNCH(encode_tile, grid, THREADS, RING, stream, a);
        const int status = (int)cudaGetLastError();
        if (status) return status;
    }
    PVA_LAUNCH(close_gaps, (unsigned)n, MOVERS, 0, stream, a, blocks_of(count));
    const int status = (int)cudaGetLastError();
    if (status || n == 1 || count == 0) return status;
    PVA_LAUNCH(join_rows, 1, MOVERS, 0, stream, a);
    return (int)cudaGetLastError();
}
