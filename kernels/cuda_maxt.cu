/* cuda_maxt.cu - what permuted labels say about firing sets: the step-down max-T by counting bits.
 *
 * extremes: one thread per permutation takes ROWS sets after the other, EACH at a time, and keeps the most and the fewest items that a set of the
 * current group shares with its labels; a group may begin and end in several blocks, which is what the atomic maxima are for.
 * step_down: one thread per permutation goes through the groups and raises its largest statistic. Everything is integers and quotients of exact
 * integers, so the order of the blocks changes nothing. */
#include "cuda_reduce.cuh"
#include "kernels.h"

#include <math.h>

namespace {

enum { BLOCK = PVA_MAXT_BLOCK, ROWS = 256, EACH = 8, NONE_YET = 0x7f7f7f7f };
const size_t MOST_WORK = (size_t)256 << 20;

/* The group of a set. */
__device__ __forceinline__ int64_t group_of(const int32_t *groups, int64_t n_groups, int64_t set) {
    int64_t low = 0, high = n_groups;
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (groups[middle * PVA_MAXT_GROUP + PVA_MAXT_FIRST] <= set) low = middle;
        else high = middle;
    }
    return low;
}

/* high, low [n_groups, columns], of the blocks blockIdx.y of labels. */
__global__ void __launch_bounds__(BLOCK) extremes(const pva_cuda_maxt m, const uint64_t *labels, int64_t columns, int32_t *high, int32_t *low) {
    const int64_t first = (int64_t)blockIdx.x * ROWS, end = first + ROWS < m.n_sets ? first + ROWS : m.n_sets;
    const int64_t column = (int64_t)blockIdx.y * BLOCK + threadIdx.x;
    const uint64_t *mine = labels + (int64_t)blockIdx.y * m.n_words * BLOCK + threadIdx.x;
    int64_t group = group_of(m.groups, m.n_groups, first);
    int64_t group_end = m.groups[group * PVA_MAXT_GROUP + PVA_MAXT_FIRST] + m.groups[group * PVA_MAXT_GROUP + PVA_MAXT_SETS];
    int most = 0, least = NONE_YET;
    for (int64_t r = first; r < end; r += EACH) {
        int sum[EACH] = {};
        const uint64_t *set[EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++) set[i] = m.sets + (r + i < end ? r + i : end - 1) * m.n_words;
        for (int64_t w = 0; w < m.n_words; w++) {
            const uint64_t label = mine[w * BLOCK];
#pragma unroll
            for (int i = 0; i < EACH; i++) sum[i] += __popcll(label & set[i][w]);
        }
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            if (r + i >= end) break;
            if (r + i >= group_end) {
                atomicMax(&high[group * columns + column], most);
                atomicMin(&low[group * columns + column], least);
                group++;
                group_end += m.groups[group * PVA_MAXT_GROUP + PVA_MAXT_SETS];
                most = 0, least = NONE_YET;
            }
            most = sum[i] > most ? sum[i] : most;
            least = sum[i] < least ? sum[i] : least;
        }
    }
    atomicMax(&high[group * columns + column], most);
    atomicMin(&low[group * columns + column], least);
}

/* n: columns that count. */
template <bool STUDENTISED>
__global__ void __launch_bounds__(BLOCK) step_down(const pva_cuda_maxt m, const int32_t *high, const int32_t *low, int64_t columns, int64_t n,
                                                    unsigned long long *n_at_least) {
    const int64_t column = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    const bool counts = column < n;
    const int32_t *group = m.groups, n_items = (int32_t)m.n_items, n1 = (int32_t)m.n1;
    double running = -INFINITY;
    high += column, low += column;
    for (int left = (int)m.n_groups; left; left--, group += PVA_MAXT_GROUP, high += columns, low += columns) {
        const int32_t active = group[PVA_MAXT_ACTIVE], expected = active * n1; /* at most 2^28 */
        const int32_t up = *high * n_items - expected, down = expected - *low * n_items;
        const double most = up > down ? up : down;
        const double s = STUDENTISED ? most * most / (double)(active * (n_items - active)) : most;
        running = s > running ? s : running;
        const int32_t level = group[PVA_MAXT_LEVEL];
        if (left > 1 && group[PVA_MAXT_GROUP + PVA_MAXT_LEVEL] == level) continue;
        const unsigned votes = __ballot_sync(PVA_FULL_WARP, counts && running >= m.scores[level]);
        if (votes && threadIdx.x % 32 == 0) atomicAdd(&n_at_least[level], (unsigned long long)__popc(votes));
    }
}

/* For one block of permutations. */
size_t block_bytes(int64_t n_groups) { return (size_t)n_groups * BLOCK * 2 * sizeof(int32_t); }

} // namespace

size_t pva_cuda_maxt_bytes(int64_t n_groups, int64_t n) {
    const size_t one = block_bytes(n_groups), all = one * (size_t)((n + BLOCK - 1) / BLOCK);
    return all <= MOST_WORK ? all : one > MOST_WORK ? one : MOST_WORK;
}

int pva_cuda_maxt_count(const struct pva_cuda_maxt *m, const uint64_t *labels, int64_t n, int64_t *n_at_least, void *work, size_t work_bytes,
                        cudaStream_t stream) {
    if (m->n_levels == 0) return 0;
    const pva_cuda_maxt args = *m; /* goes with the launch, and *m need not outlive this call */
    int status = (int)cudaMemsetAsync(n_at_least, 0, (size_t)m->n_levels * sizeof *n_at_least, stream);
    const int64_t at_once = (int64_t)(work_bytes / block_bytes(m->n_groups)), n_blocks = (n + BLOCK - 1) / BLOCK;
    for (int64_t b = 0; b < n_blocks && !status; b += at_once) {
        const int64_t blocks = n_blocks - b < at_once ? n_blocks - b : at_once, columns = blocks * BLOCK;
        int32_t *high = (int32_t *)work, *low = high + columns * m->n_groups;
        const size_t bytes = (size_t)(columns * m->n_groups) * sizeof *high;
        const uint64_t *first = labels + b * m->n_words * BLOCK;
        status = (int)cudaMemsetAsync(high, 0, bytes, stream);
        if (!status) status = (int)cudaMemsetAsync(low, NONE_YET & 0xff, bytes, stream);
        if (status) break;
        const dim3 grid((unsigned)((m->n_sets + ROWS - 1) / ROWS), (unsigned)blocks);
        PVA_LAUNCH(extremes, grid, BLOCK, 0, stream, args, first, columns, high, low);
        status = launch_status();
        if (status) break;
        unsigned long long *counts = (unsigned long long *)n_at_least;
        if (m->studentised) PVA_LAUNCH(step_down<true>, (unsigned)blocks, BLOCK, 0, stream, args, high, low, columns, n - b * BLOCK, counts);
        else PVA_LAUNCH(step_down<false>, (unsigned)blocks, BLOCK, 0, stream, args, high, low, columns, n - b * BLOCK, counts);
        status = launch_status();
    }
    return status;
}
