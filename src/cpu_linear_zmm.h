/* cpu_linear_zmm.h - the kernel that avx512 and avx512bf16 share: sixteen 32-bit lanes, in each of which one value of k
 * (float32) or two (a pair of bfloat16) are multiplied and added. The file that includes it defines before:
 *
 *   TARGET                      the attribute its functions carry
 *   multiply_add(sum, w, x)     one step of sixteen lanes
 *   PAIRS                       0: a lane is a float32; 1: a pair of bfloat16
 *
 * Both ways through w keep the order of cpu_linear.h. With few rows of x the sixteen lanes of a register are the sixteen lanes
 * of one output, added up at the end. With many rows they are sixteen outputs: the lanes of the sum then come one after
 * the other (all steps of lane 0, all steps of lane 1, ...), each a matrix product of its own, and the sixteen partial results are
 * added in the same tree. So nothing is summed across a register, and an element of x, once broadcast, serves 48 outputs.
 */
#ifndef CPU_LINEAR_ZMM_H
#define CPU_LINEAR_ZMM_H

#include <string.h>

#define INLINE TARGET static inline __attribute__((always_inline))

enum {
    LANES = 16,
#ifndef FEWN
#define FEWN 16
#endif
    FEW = FEWN,    /* up to here w goes straight into the registers */
    TILE = 8,    /* rows of x in a register tile */
    VECTORS = 3, /* registers of 16 rows of w in it: 24 sums, 3 + 1 operands of the 32 registers */
    PIECE = VECTORS * LANES,
    BLOCK = 64,                             /* rows of x that share a panel of w */
    STEPS = 72,                             /* a block of k: so that the panel's share of a lane (14 KiB) stays in the first cache */
    STEP_VALUES = LANES * (1 + PAIRS),      /* values of k in a step */
    K_BLOCK = STEPS * STEP_VALUES,
    LANE_STRIDE = STEPS * PIECE + LANES, /* floats; not a multiple of 4 KiB, so that the lanes of a step fall in different sets */
};

struct piece {
    float panel[LANES * LANE_STRIDE];              /* [lane][step][VECTORS][16 rows of w] */
    float sums[LANES * BLOCK * PIECE];             /* [lane][tile of x][VECTORS][TILE][16 rows of w] */
};

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Few rows of x are cut into equal tiles, and k into spans of which a tile's part (16 KiB) stays in the first cache. */
static int64_t few_rows(int64_t n) {
    int64_t tiles = (n + TILE - 1) / TILE;
    return (n + tiles - 1) / tiles;
}
static int64_t few_span(int64_t tile) { return 256 / tile; }

/* Bytes 0 .. width of p, then zeros: nothing behind the last weight is touched. */
INLINE __m512 load_bytes(const char *p, int64_t width) {
    if (width >= 64) return _mm512_loadu_ps(p);
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi8(((uint64_t)1 << width) - 1, p));
}

/* out[i] = lane i of the sixteen inputs. */
INLINE void transpose(__m512 r[LANES]) {
    __m512 t[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i += 4) { /* r[i + q]: lane 4l + q of rows i .. i+3, for each quarter l */
        r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 16
    for (int q = 0; q < 4; q++) {
        __m512 even_low = _mm512_shuffle_f32x4(r[q], r[4 + q], 0x88), odd_low = _mm512_shuffle_f32x4(r[q], r[4 + q], 0xdd);
        __m512 even_high = _mm512_shuffle_f32x4(r[8 + q], r[12 + q], 0x88), odd_high = _mm512_shuffle_f32x4(r[8 + q], r[12 + q], 0xdd);
        t[q] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
        t[8 + q] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
        t[4 + q] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
        t[12 + q] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) r[i] = t[i];
}

/* ---- few rows of x */

/* Sixteen outputs, each spread over sixteen lanes, to a register of outputs. */
INLINE __m512 fold_lanes(const float *lanes) {
    __m512 four[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) { /* outputs j, j+4, j+8, j+12: each becomes four sums in its own quarter */
        const float *p = lanes + j * LANES;
        __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + 4 * LANES), c = _mm512_loadu_ps(p + 8 * LANES),
               d = _mm512_loadu_ps(p + 12 * LANES);
        __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
        __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
        four[j] = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    }
    __m512 r = _mm512_add_ps(_mm512_shuffle_ps(four[0], four[1], 0x44), _mm512_shuffle_ps(four[0], four[1], 0xee));
    __m512 s = _mm512_add_ps(_mm512_shuffle_ps(four[2], four[3], 0x44), _mm512_shuffle_ps(four[2], four[3], 0xee));
    return _mm512_add_ps(_mm512_shuffle_ps(r, s, 0x88), _mm512_shuffle_ps(r, s, 0xdd));
}

/* A step of one row of w; w_bf16 says that float32 lanes are widened from bfloat16. */
INLINE __m512 step_of(const char *w, int w_bf16, int64_t left) {
#if !PAIRS
    if (w_bf16) {
        __m256i half = left >= LANES ? _mm256_loadu_si256((const __m256i *)w)
                                     : _mm256_maskz_loadu_epi16((__mmask16)((1u << left) - 1), w);
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    }
#endif
    return load_bytes(w, left * (64 / STEP_VALUES));
}

INLINE void stream_step(const float *x, const char *w, int64_t stride, int64_t left, int w_bf16, __m512 s[4][TILE],
                        const int rows, const int n) {
    __m512 v[4];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        _mm_prefetch(w + (rows + r) * stride, _MM_HINT_T0); /* the same place in the next rows: memory is read in order */
        v[r] = step_of(w + r * stride, w_bf16, left);
    }
#pragma GCC unroll 8
    for (int c = 0; c < n; c++) {
        __m512 xc = _mm512_loadu_ps(x + c * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) s[r][c] = multiply_add(s[r][c], v[r], xc);
    }
}

/* sums[n][PIECE][16] += one span of `rows` rows of w times n rows of x. */
INLINE void stream_rows(const float *x, const char *w, int64_t stride, int64_t k, int w_bf16, float *sums, int first,
                        const int rows, const int n) {
    int64_t size = w_bf16 ? 2 : 4;
    __m512 s[4][TILE];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < n; c++) s[r][c] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + (c * PIECE + r) * LANES);
    for (; k >= STEP_VALUES; k -= STEP_VALUES, w += STEP_VALUES * size, x += n * LANES)
        stream_step(x, w, stride, STEP_VALUES, w_bf16, s, rows, n);
    if (k) stream_step(x, w, stride, k, w_bf16, s, rows, n);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < n; c++) _mm512_storeu_ps(sums + (c * PIECE + r) * LANES, s[r][c]);
}

INLINE void stream_tile(const float *x, const char *w, int64_t stride, int64_t rows, int64_t k, int w_bf16, float *sums, int first,
                        const int n) {
    const int step = n <= 6 ? 4 : 3;
    int64_t r = 0;
    for (; r + step <= rows; r += step) stream_rows(x, w + r * stride, stride, k, w_bf16, sums + r * LANES, first, step, n);
    for (; r < rows; r++) stream_rows(x, w + r * stride, stride, k, w_bf16, sums + r * LANES, first, 1, n);
}

TARGET static void stream(const struct cpu_linear_block *b, int64_t m0, int64_t rows, float *sums) {
    int w_bf16 = PAIRS || b->w_type == PVA_BF16;
    int64_t size = w_bf16 ? 2 : 4, stride = b->k * size, tile = few_rows(b->n), span = few_span(tile) * STEP_VALUES;
    const char *w = (const char *)b->w + m0 * stride;
    const float *x = b->x;
    for (int64_t k0 = 0; k0 < b->k; k0 += span) {
        int64_t k = smaller(span, b->k - k0), steps = (k + STEP_VALUES - 1) / STEP_VALUES;
        for (int64_t c = 0; c < b->n; c += tile) {
            int64_t n = smaller(tile, b->n - c);
            float *s = sums + c * PIECE * LANES;
            switch (n) {
#define CASE(n) \
    case n: \
        if (w_bf16) stream_tile(x, w + k0 * size, stride, rows, k, 1, s, k0 == 0, n); \
        else stream_tile(x, w + k0 * size, stride, rows, k, 0, s, k0 == 0, n); \
        break;
                CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
            }
            x += n * steps * LANES;
        }
    }
    for (int64_t c = 0; c < b->n; c++)
        for (int64_t r = 0; r < rows; r += LANES) {
            __mmask16 mask = (__mmask16)(rows - r < LANES ? (1u << (rows - r)) - 1 : 0xffffu);
            _mm512_mask_storeu_ps(b->y + c * b->m + m0 + r, mask, fold_lanes(sums + (c * PIECE + r) * LANES));
        }
}

/* ---- many rows of x */

/* 64 bytes (or fewer, then zeros) of sixteen rows of w (or fewer) to one vector of one or two steps of the panel. */
INLINE void pack_square(const char *w, int64_t stride, int w_bf16, int64_t rows, int64_t bytes, int vectors, float *out) {
    __m512 r[LANES];
    if (rows >= LANES && bytes >= 64) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) r[i] = _mm512_loadu_ps(w + i * stride);
    } else {
        for (int i = 0; i < LANES; i++) r[i] = i < rows ? load_bytes(w + i * stride, bytes) : _mm512_setzero_ps();
    }
    transpose(r);
#if !PAIRS
    if (w_bf16) { /* r[i] has the values 2i and 2i + 1 of two steps */
        const __m512i high = _mm512_set1_epi32((int)0xffff0000u);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) {
            float *even = out + 2 * (i % 8) * LANE_STRIDE + (i / 8) * vectors * LANES;
            __m512i pair = _mm512_castps_si512(r[i]);
            _mm512_storeu_ps(even, _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)));
            _mm512_storeu_ps(even + LANE_STRIDE, _mm512_castsi512_ps(_mm512_and_si512(pair, high)));
        }
        return;
    }
#endif
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) _mm512_storeu_ps(out + i * LANE_STRIDE, r[i]);
}

/* k values of `rows` rows of w to the panel. */
INLINE void pack_panel(const char *w, int64_t stride, int w_bf16, int64_t rows, int64_t k, int vectors, float *panel) {
    int64_t size = w_bf16 ? 2 : 4, width = 64 / size, steps = width / STEP_VALUES;
    for (int v = 0; v < vectors; v++) {
        const char *p = w + v * LANES * stride;
        float *out = panel + v * LANES;
        for (int64_t k0 = 0; k0 < k; k0 += width, p += 64, out += steps * vectors * LANES) {
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) {
#ifdef PFW
                _mm_prefetch(p + i * stride + 64*PFW, _MM_HINT_T0);
#endif
#ifndef NOPF
                _mm_prefetch((const char *)(out + (i * LANE_STRIDE + steps * vectors * LANES)), _MM_HINT_T0);
                if (steps == 2) _mm_prefetch((const char *)(out + (i * LANE_STRIDE + (steps + 1) * vectors * LANES)), _MM_HINT_T0);
#endif
            }
            pack_square(p, stride, w_bf16, rows - v * LANES, smaller(64, (k - k0) * size), vectors, out);
        }
    }
}

/* sums[vectors][TILE][16] += panel[steps][vectors][16] x[steps][TILE]. Meanwhile lines `ahead`, `ahead` + stride, ... are fetched. */
INLINE void multiply_tile(const float *x, const float *panel, int64_t steps, float *sums, int first, const char *ahead,
                          int64_t stride, const int vectors, const int n) {
    __m512 s[VECTORS][TILE];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++)
#pragma GCC unroll 8
        for (int c = 0; c < n; c++) s[v][c] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + (v * TILE + c) * LANES);
    for (int64_t i = 0; i < steps; i++, x += TILE, panel += vectors * LANES, ahead += stride) {
        __m512 w[VECTORS];
        _mm_prefetch(ahead, _MM_HINT_T1);
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) w[v] = _mm512_loadu_ps(panel + v * LANES);
#pragma GCC unroll 8
        for (int c = 0; c < n; c++) {
            __m512 xc = _mm512_set1_ps(x[c]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) s[v][c] = multiply_add(s[v][c], w[v], xc);
        }
    }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++)
#pragma GCC unroll 8
        for (int c = 0; c < n; c++) _mm512_storeu_ps(sums + (v * TILE + c) * LANES, s[v][c]);
}

#define TILES(vectors) \
    TARGET static void multiply_tile_##vectors(const float *x, const float *panel, int64_t steps, float *sums, int first, \
                                               const char *ahead, int64_t stride, int64_t n) { \
        switch (n) { \
        case 1: multiply_tile(x, panel, steps, sums, first, ahead, stride, vectors, 1); break; \
        case 2: multiply_tile(x, panel, steps, sums, first, ahead, stride, vectors, 2); break; \
        case 3: multiply_tile(x, panel, steps, sums, first, ahead, stride, vectors, 3); break; \
        case 4: multiply_tile(x, panel, steps, sums, first, ahead, stride, vectors, 4); break; \
        case 5: multiply_tile(x, panel, steps, sums, first, ahead, stride, vectors, 5); break; \
        case 6: multiply_tile(x, panel, steps, sums, first, ahead, stride, vectors, 6); break; \
        case 7: multiply_tile(x, panel, steps, sums, first, ahead, stride, vectors, 7); break; \
        default: multiply_tile(x, panel, steps, sums, first, ahead, stride, vectors, 8); \
        } \
    }
TILES(1) TILES(2) TILES(3)
#undef TILES

/* The sixteen partial results of each output to y. */
TARGET static void fold_partials(const float *sums, int64_t n, int64_t rows, int vectors, float *y, int64_t y_stride) {
    int64_t lane_stride = (n + TILE - 1) / TILE * vectors * TILE * LANES;
    for (int64_t c = 0; c < n; c++)
        for (int v = 0; v < vectors; v++) {
            const float *p = sums + (c / TILE * vectors * TILE + v * TILE + c % TILE) * LANES;
            __m512 s[LANES];
#pragma GCC unroll 16
            for (int j = 0; j < LANES; j++) s[j] = _mm512_loadu_ps(p + j * lane_stride);
#pragma GCC unroll 16
            for (int half = LANES / 2; half; half /= 2)
#pragma GCC unroll 16
                for (int j = 0; j < half; j++) s[j] = _mm512_add_ps(s[j], s[j + half]);
            int64_t left = rows - v * LANES;
            _mm512_mask_storeu_ps(y + c * y_stride + v * LANES, (__mmask16)(left < LANES ? (1u << left) - 1 : 0xffffu), s[0]);
        }
}

TARGET static void blocked(const struct cpu_linear_block *b, int64_t m0, int64_t rows, struct piece *t) {
    int w_bf16 = PAIRS || b->w_type == PVA_BF16, vectors = (int)((rows + LANES - 1) / LANES);
    int64_t size = w_bf16 ? 2 : 4, stride = b->k * size, sum_size = vectors * TILE * LANES;
    const char *w = (const char *)b->w + m0 * stride;
    const float *x = b->x;
    for (int64_t k0 = 0; k0 < b->k; k0 += K_BLOCK) {
        int64_t k = smaller(K_BLOCK, b->k - k0), steps = (k + STEP_VALUES - 1) / STEP_VALUES;
        if (w_bf16) pack_panel(w + k0 * size, stride, 1, rows, k, vectors, t->panel);
        else pack_panel(w + k0 * size, stride, 0, rows, k, vectors, t->panel);
        const char *next = k0 + K_BLOCK < b->k ? w + (k0 + K_BLOCK) * size : w + PIECE * stride; /* where the next panel begins */
        float *sums = t->sums;
        for (int lane = 0; lane < LANES; lane++)
            for (int64_t c = 0; c < b->n; c += TILE, sums += sum_size, x += steps * TILE) {
                const float *panel = t->panel + lane * LANE_STRIDE;
                const char *ahead = next;
                int64_t n = smaller(TILE, b->n - c);
                next += 64;
                if (vectors == 3) multiply_tile_3(x, panel, steps, sums, k0 == 0, ahead, stride, n);
                else if (vectors == 2) multiply_tile_2(x, panel, steps, sums, k0 == 0, ahead, stride, n);
                else multiply_tile_1(x, panel, steps, sums, k0 == 0, ahead, stride, n);
            }
    }
    fold_partials(t->sums, b->n, rows, vectors, b->y + m0, b->m);
}

TARGET static void product(const struct cpu_linear_block *b, int64_t m0, int64_t m1, void *scratch) {
    struct piece *t = scratch;
    if (b->few) {
        stream(b, m0, m1 - m0, t->sums);
        return;
    }
    blocked(b, m0, m1 - m0, t);
}

static size_t tile_bytes(int64_t tile_rows, int64_t k) {
    return (size_t)((k + STEP_VALUES - 1) / STEP_VALUES * LANES * tile_rows) * sizeof(float);
}

static void pack(const void *x, enum pva_dtype type, int64_t rows, int64_t k, int few, int64_t tile, int64_t n_tiles,
                 void *block) {
    if (few) cpu_linear_pack_few(x, type, rows, k, PAIRS, few_rows(rows), few_span(few_rows(rows)), block);
    else cpu_linear_pack_tile(x, type, rows, k, PAIRS, TILE, STEPS, tile, n_tiles, block);
}

#define CPU_LINEAR_KERNEL \
    { \
        .few = FEW, .tile_rows = TILE, .block_rows = BLOCK, .m_rows = PIECE, .tile_bytes = tile_bytes, .pack = pack, \
        .thread_bytes = sizeof(struct piece), .product = product, \
    }

#endif
