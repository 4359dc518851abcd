/* AVX2 with FMA: the order of the FMA family with two registers for the sixteen lanes of an output. Widening bfloat16 is a
 * shuffle, which has a port of its own beside the two of the products, so w is widened again for every tile of x instead of being
 * copied. */
#include "cpu_linear.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))

/* Has v in a register once, instead of as the memory operand of every product it is in. */
#define KEEP(v) __asm__("" : "+x"(v))

enum {
    LANES = 16,
    TILE = 3,   /* rows of x in a register tile: with 2 of w 12 sums, 2 + 1 operands of the 16 registers */
    PIECE = 48, /* rows of w that meet a tile of x while it is in the first cache */
    BLOCK = 96, /* rows of x that share a piece of w */
    SPAN = 192, /* steps of k at most, times the rows of a tile: 12 KiB of x */
};

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t steps_of(int64_t k) { return (k + LANES - 1) / LANES; }

static int64_t tile_rows(int64_t n) {
    int64_t tiles = (n + TILE - 1) / TILE;
    return n > BLOCK ? TILE : (n + tiles - 1) / tiles;
}

static int64_t span_of(int64_t k, int64_t most) {
    int64_t steps = steps_of(k), spans = (steps + most - 1) / most;
    return (steps + spans - 1) / spans;
}

/* Lanes 0-7 (half 0) or 8-15 of the step at w. */
INLINE __m256 load_half(const char *w, int wide, int half) {
    if (!wide) return _mm256_loadu_ps((const float *)w + 8 * half);
    const __m256i high_halves =
        _mm256_set_epi32(0x0f0e8080, 0x0d0c8080, 0x0b0a8080, 0x09088080, 0x07068080, 0x05048080, 0x03028080, 0x01008080);
    __m256i eight = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(w + 16 * half)));
    return _mm256_castsi256_ps(_mm256_shuffle_epi8(eight, high_halves));
}

INLINE void stream_step(const float *x, const char *w, int64_t stride, int wide, __m256 s[2][4][TILE], const int rows,
                        const int n) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        __m256 v[4];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            v[r] = load_half(w + r * stride, wide, half);
            KEEP(v[r]);
        }
#pragma GCC unroll 4
        for (int c = 0; c < n; c++) {
            __m256 xc = _mm256_loadu_ps(x + c * LANES + 8 * half);
            KEEP(xc);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) s[half][r][c] = _mm256_fmadd_ps(v[r], xc, s[half][r][c]);
        }
    }
}

/* sums[n][PIECE][16] += k values of `rows` rows of w times n rows of x. */
INLINE void stream_rows(const float *x, int64_t x_step, const char *w, int64_t stride, int64_t k, int wide, float *sums,
                        int first, const int rows, const int n) {
    const int64_t step_bytes = LANES * (wide ? 2 : 4);
    __m256 s[2][4][TILE];
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int c = 0; c < n; c++)
                s[half][r][c] = first ? _mm256_setzero_ps() : _mm256_loadu_ps(sums + (c * PIECE + r) * LANES + 8 * half);
    for (; k >= LANES; k -= LANES, w += step_bytes, x += x_step) {
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) _mm_prefetch(w + (r + 2 * rows) * stride, _MM_HINT_T0); /* memory is read in order */
        stream_step(x, w, stride, wide, s, rows, n);
    }
    if (k) { /* nothing behind the last weight is touched */
        float last[4][LANES] = {{0}};
        for (int r = 0; r < rows; r++) __builtin_memcpy(last[r], w + r * stride, (size_t)(k * (wide ? 2 : 4)));
        stream_step(x, (const char *)last, sizeof last[0], wide, s, rows, n);
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int c = 0; c < n; c++) _mm256_storeu_ps(sums + (c * PIECE + r) * LANES + 8 * half, s[half][r][c]);
}

INLINE void stream_tile(const float *x, int64_t x_step, const char *w, int64_t stride, int64_t rows, int64_t k, int wide,
                        float *sums, int first, const int n) {
    const int group = n == 1 ? 4 : n == 2 ? 3 : 2;
    int64_t r = 0;
    for (; r + group <= rows; r += group)
        stream_rows(x, x_step, w + r * stride, stride, k, wide, sums + r * LANES, first, group, n);
    for (; r < rows; r++) stream_rows(x, x_step, w + r * stride, stride, k, wide, sums + r * LANES, first, 1, n);
}

#define TILES(n) \
    TARGET static void stream_tile_##n(const float *x, int64_t x_step, const char *w, int64_t stride, int64_t rows, int64_t k, \
                                       int wide, float *sums, int first) { \
        if (wide) stream_tile(x, x_step, w, stride, rows, k, 1, sums, first, n); \
        else stream_tile(x, x_step, w, stride, rows, k, 0, sums, first, n); \
    }
TILES(1)
TILES(2) TILES(3)

    /* Eight outputs, each spread over sixteen lanes, to a register of outputs: the tree of cpu_linear.h. */
    INLINE __m256 fold_lanes(const float *lanes) {
    __m256 two[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) { /* outputs j and j+4: each becomes four sums in its own half */
        const float *p = lanes + j * LANES, *q = p + 4 * LANES;
        __m256 a = _mm256_add_ps(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8));
        __m256 b = _mm256_add_ps(_mm256_loadu_ps(q), _mm256_loadu_ps(q + 8));
        two[j] = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    }
    __m256 r = _mm256_add_ps(_mm256_shuffle_ps(two[0], two[1], 0x44), _mm256_shuffle_ps(two[0], two[1], 0xee));
    __m256 s = _mm256_add_ps(_mm256_shuffle_ps(two[2], two[3], 0x44), _mm256_shuffle_ps(two[2], two[3], 0xee));
    return _mm256_add_ps(_mm256_shuffle_ps(r, s, 0x88), _mm256_shuffle_ps(r, s, 0xdd));
}

TARGET static void product(const struct cpu_linear_block *b, int64_t m0, int64_t m1, void *scratch) {
    int wide = b->w_type == PVA_BF16;
    int64_t size = cpu_linear_size(b->w_type), stride = b->k * size, rows = m1 - m0, tile = b->tile_rows;
    int64_t span = span_of(b->k, SPAN / tile) * LANES;
    const char *w = (const char *)b->w + m0 * stride;
    const float *x = b->x;
    float *sums = scratch; /* [n][PIECE][16] */
    for (int64_t k0 = 0; k0 < b->k; k0 += span) {
        int64_t k = smaller(span, b->k - k0);
        for (int64_t c = 0; c < b->n; c += tile, x += tile * steps_of(k) * LANES) {
            int64_t n = smaller(tile, b->n - c);
            float *s = sums + c * PIECE * LANES;
            if (n == 3) stream_tile_3(x, tile * LANES, w + k0 * size, stride, rows, k, wide, s, k0 == 0);
            else if (n == 2) stream_tile_2(x, tile * LANES, w + k0 * size, stride, rows, k, wide, s, k0 == 0);
            else stream_tile_1(x, tile * LANES, w + k0 * size, stride, rows, k, wide, s, k0 == 0);
        }
    }
    for (int64_t c = 0; c < b->n; c++)
        for (int64_t r = 0; r < rows; r += 8) {
            float eight[8], *y = b->y + c * b->m + m0 + r;
            __m256 v = fold_lanes(sums + (c * PIECE + r) * LANES);
            if (rows - r >= 8) {
                _mm256_storeu_ps(y, v);
            } else {
                _mm256_storeu_ps(eight, v);
                for (int64_t i = 0; i < rows - r; i++) y[i] = eight[i];
            }
        }
}

static size_t tile_bytes(int64_t tile_rows, int64_t k) { return (size_t)(steps_of(k) * LANES * tile_rows) * sizeof(float); }

static void pack(const struct cpu_linear_rows *x, int few, void *block) {
    static const int in_order[4] = {0, 1, 2, 3};
    cpu_linear_pack_across(x, 0, span_of(x->k, SPAN / x->tile_rows), in_order, block);
}

const struct cpu_linear_kernel cpu_linear_avx2 = {
    .few = BLOCK,
    .tile_rows = tile_rows,
    .block_rows = BLOCK,
    .m_rows = PIECE,
    .tile_bytes = tile_bytes,
    .pack = pack,
    .thread_bytes = sizeof(float) * BLOCK * PIECE * LANES,
    .product = product,
};
#endif
