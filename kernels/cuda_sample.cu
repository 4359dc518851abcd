/* cuda_sample.cu - logits to tokens: soft-cap, the largest, and the draw, in the CPU's pieces, lanes and order of sums, so that the same
 * logits give the same token on both backends.
 *
 * Three passes over pieces of 1024 ids: the largest of each piece; the sum of exp((l - max) / T) of each piece; then one block per row
 * adds the pieces, finds the one in which the draw falls, and walks through it. */
#include "cuda_reduce.cuh"
#include "kernels.h"

namespace {

enum { PIECE = 1024, THREADS = 256, LANES = 16, MOST_PIECES = 11 << 10 /* what fits into shared memory as floats, beside the rest */ };

template <bool WIDE> __global__ void __launch_bounds__(THREADS) softcap(float *x, int64_t n, float cap) {
    const int64_t step = 4 * (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x); i < n; i += step) {
        const float4 v = load_four<WIDE>(x + i, n - i);
        store_four<WIDE>(x + i, n - i, make_float4(capped(v.x, cap), capped(v.y, cap), capped(v.z, cap), capped(v.w, cap)));
    }
}

/* The largest value with the lowest id; id -1 once a NaN was seen. */
struct top {
    float value;
    int32_t id;
};
__device__ __forceinline__ top better(top a, top b) {
    if (a.id < 0 || b.id < 0) return {NAN, -1};
    return b.value > a.value || (b.value == a.value && b.id < a.id) ? b : a;
}

/* Of the whole block, in every thread. shared: one per warp. */
__device__ __forceinline__ top block_top(top t, top *shared) {
    for (int half = 16; half; half /= 2) {
        const top other = {__shfl_xor_sync(PVA_FULL_WARP, t.value, half), __shfl_xor_sync(PVA_FULL_WARP, t.id, half)};
        t = better(t, other);
    }
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = t;
    __syncthreads();
    t = shared[0];
    for (unsigned w = 1; w < blockDim.x / 32; w++) t = better(t, shared[w]);
    __syncthreads(); /* before `shared` is used again */
    return t;
}

/* The row's largest from its pieces'. */
__device__ __forceinline__ top row_top(const top *pieces, int n_pieces, top *shared) {
    top t = pieces[0];
    for (int p = threadIdx.x; p < n_pieces; p += blockDim.x) t = better(t, pieces[p]);
    return block_top(t, shared);
}

/* blockIdx.x: row; blockIdx.y: piece. */
__global__ void __launch_bounds__(THREADS) piece_tops(const float *logits, int64_t n_vocab, top *tops) {
    __shared__ top shared[THREADS / 32];
    const int64_t first = (int64_t)blockIdx.y * PIECE, end = min(first + PIECE, n_vocab);
    logits += (int64_t)blockIdx.x * n_vocab;
    top t = {logits[first], (int32_t)first};
    if (t.value != t.value) t.id = -1;
    for (int64_t i = first + threadIdx.x; i < end; i += blockDim.x) {
        const float v = logits[i];
        t = better(t, {v, v == v ? (int32_t)i : -1});
    }
    t = block_top(t, shared);
    if (threadIdx.x == 0) tops[(int64_t)blockIdx.x * gridDim.y + blockIdx.y] = t;
}

/* weight[0 .. PIECE) of ids first, first + 1, ...; zero beyond the vocabulary. */
__device__ __forceinline__ void piece_weights(const float *logits, int64_t first, int64_t n_vocab, float max, float temperature, float *weight) {
    for (int i = threadIdx.x; i < PIECE; i += blockDim.x)
        weight[i] = first + i < n_vocab ? exp_same((logits[first + i] - max) / temperature) : 0.0f;
}

__global__ void __launch_bounds__(THREADS)
    piece_sums(const float *logits, int64_t n_vocab, const float *temperatures, const top *tops, float *sums) {
    __shared__ top shared[THREADS / 32];
    __shared__ float weight[PIECE];
    const int64_t row = blockIdx.x;
    const float temperature = temperatures[row];
    const int n_pieces = (int)gridDim.y;
    if (temperature <= 0) return;
    const top t = row_top(tops + row * n_pieces, n_pieces, shared);
    if (t.id < 0) return;
    piece_weights(logits + row * n_vocab, (int64_t)blockIdx.y * PIECE, n_vocab, t.value, temperature, weight);
    __syncthreads();
    if (threadIdx.x >= 32) return;
    float sum = 0; /* the warp's second half does what the first does */
    for (int i = threadIdx.x % LANES; i < PIECE; i += LANES) sum = sum + weight[i];
    for (int half = LANES / 2; half; half /= 2) sum += __shfl_xor_sync(PVA_FULL_WARP, sum, half);
    if (threadIdx.x == 0) sums[row * n_pieces + blockIdx.y] = sum;
}

/* Where the draw falls. One thread walks, as the order of the sums is part of the contract; the others fetch for it. */
struct walk {
    double below, target;
    int piece, token;
};

/* The first id of a piece whose cumulated weight exceeds the target, else its last id with a weight, else -1. Eight at a time: as no weight
 * is negative, a sum of eight that stays below has all its parts below. */
__device__ __forceinline__ int walk_piece(double *below, double target, const float *weight) {
    int last = -1;
    for (int i = 0; i < PIECE; i += 8) {
        double next = *below;
        int last_here = last;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            next += (double)weight[i + j];
            if (weight[i + j] > 0) last_here = i + j;
        }
        if (next > target) {
            for (int j = 0; j < 8; j++) {
                *below += (double)weight[i + j];
                if (weight[i + j] > 0) last = i + j;
                if (*below > target) return last;
            }
        }
        *below = next, last = last_here;
    }
    return last;
}

__global__ void __launch_bounds__(THREADS) choose(const float *logits, int64_t n_vocab, int n_pieces, const float *temperatures,
                                                  const double *draws, const top *tops, const float *sums, int32_t *tokens) {
    __shared__ top shared[THREADS / 32];
    __shared__ float weight[PIECE];
    __shared__ walk w;
    PVA_DYNAMIC_SHARED(float, sum); /* [n_pieces] */
    const int64_t row = blockIdx.x;
    const float temperature = temperatures[row];
    const top t = row_top(tops + row * n_pieces, n_pieces, shared);
    if (t.id < 0 || temperature <= 0) {
        if (threadIdx.x == 0) tokens[row] = t.id;
        return;
    }
    logits += row * n_vocab;
    for (int p = threadIdx.x; p < n_pieces; p += blockDim.x) sum[p] = sums[row * n_pieces + p];
    __syncthreads();
    if (threadIdx.x == 0) {
        double total = 0;
        for (int p = 0; p < n_pieces; p++) total += (double)sum[p];
        w = {0, draws[row] * total, 0, -1};
    }
    for (;;) {
        if (threadIdx.x == 0)
            while (w.piece + 1 < n_pieces && w.below + (double)sum[w.piece] <= w.target) w.below += (double)sum[w.piece++];
        __syncthreads();
        const int piece = w.piece;
        piece_weights(logits, (int64_t)piece * PIECE, n_vocab, t.value, temperature, weight);
        __syncthreads();
        if (threadIdx.x == 0) {
            double below = w.below;
            const int found = walk_piece(&below, w.target, weight);
            w.below = below;
            if (found >= 0) w.token = piece * PIECE + found;
            else if (piece + 1 == n_pieces) w.token = t.id;
            else w.piece++;
        }
        __syncthreads();
        if (w.token >= 0) break;
        __syncthreads(); /* all have read the token before thread 0 goes on */
    }
    if (threadIdx.x == 0) tokens[row] = w.token;
}

int64_t pieces_of(int64_t n_vocab) { return (n_vocab + PIECE - 1) / PIECE; }

} // namespace

int pva_cuda_softcap(float *logits, int64_t n_elements, float cap, cudaStream_t stream) {
    const unsigned blocks = grid_for((n_elements + 3) / 4, THREADS);
    if (n_elements == 0) return 0;
    if (fours_fit(logits, 4, n_elements)) PVA_LAUNCH(softcap<true>, blocks, THREADS, 0, stream, logits, n_elements, cap);
    else PVA_LAUNCH(softcap<false>, blocks, THREADS, 0, stream, logits, n_elements, cap);
    return launch_status();
}

size_t pva_cuda_sample_bytes(int64_t n, int64_t n_vocab) { return (size_t)(n * pieces_of(n_vocab)) * (sizeof(top) + sizeof(float)); }

int pva_cuda_sample(const float *logits, int64_t n, int64_t n_vocab, const float *temperatures, const double *draws, int32_t *tokens, void *work,
                    cudaStream_t stream) {
    const int64_t n_pieces = pieces_of(n_vocab);
    const dim3 grid((unsigned)n, (unsigned)n_pieces);
    top *tops = (top *)work;
    float *sums = (float *)(tops + n * n_pieces);
    if (n == 0) return 0;
    if (n_pieces < 1 || n_pieces > MOST_PIECES) return (int)cudaErrorInvalidValue;
    PVA_LAUNCH(piece_tops, grid, THREADS, 0, stream, logits, n_vocab, tops);
    PVA_LAUNCH(piece_sums, grid, THREADS, 0, stream, logits, n_vocab, temperatures, tops, sums);
    PVA_LAUNCH(choose, (unsigned)n, THREADS, (size_t)n_pieces * sizeof(float), stream, logits, n_vocab, (int)n_pieces, temperatures, draws, tops, sums,
               tokens);
    return launch_status();
}
