/* cpu_linear_zmm.h - the kernel that avx512 and avx512bf16 share: sixteen 32-bit lanes, in each of which one value of k
 * (float32) or two (a pair of bfloat16) are multiplied and added. The file that includes it defines before:
 *
 *   TARGET                    the attribute its functions carry
 *   PAIRS                     0: a lane is a float32; 1: a pair of bfloat16
 *   MULTIPLY_ADD(sum, w, x)   one step of sixteen lanes
 *   KEEP(v)                   has v in a register once, instead of as the memory operand of every product it is in
 *
 * Both ways through w keep the order of cpu_linear.h. With few rows of x the sixteen lanes of a register are the sixteen lanes
 * of one output, added up at the end. With many rows they are sixteen outputs: the lanes of the sum then come one after
 * the other (all steps of lane 0, all steps of lane 1, ...), each a matrix product of its own, and the sixteen partial results
 * are added in the same tree. So nothing is summed across a register, and a value of x, once broadcast, serves 48 outputs. The
 * price is a transposed copy of a panel of w, which pays from some 32 rows of x on.
 */
#ifndef CPU_LINEAR_ZMM_H
#define CPU_LINEAR_ZMM_H

#define INLINE TARGET static inline __attribute__((always_inline))
#include "cpu_linear_transpose.h"

enum {
    LINE = 64,   /* bytes of a register and of a cache line */
    FEW = 32,    /* rows of x up to which w goes straight into the registers */
    TILE = 8,    /* rows of x in a register tile */
    VECTORS = 3, /* registers of 16 rows of w in it: 24 sums, 3 + 1 operands of the 32 registers */
    PIECE = VECTORS * LANES,
    BLOCK = 128,                        /* rows of x that share a panel of w */
    SPAN = 72,                          /* steps of k at most in a panel: a lane's part (14 KiB) stays in the first cache */
    FEW_SPAN = 288,                     /* the same for few rows, times the rows of a tile (18 KiB) */
    STEP_VALUES = LANES * (1 + PAIRS),  /* values of k in a step */
    LANE_STRIDE = SPAN * PIECE + LANES, /* floats; not a multiple of 4 KiB, so that the lanes of a step fall in different sets */
};

struct piece {
    float panel[LANES * LANE_STRIDE];  /* [lane][step][VECTORS][16 rows of w] */
    float sums[LANES * BLOCK * PIECE]; /* few: [row of x][row of w][lane]; else [lane][tile of x][VECTORS][TILE][16 rows of w] */
};

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t steps_of(int64_t k) { return (k + STEP_VALUES - 1) / STEP_VALUES; }

/* Few rows are cut into equal tiles. */
static int64_t tile_rows(int64_t n) {
    if (n > FEW) return TILE;
    int64_t tiles = (n + TILE - 1) / TILE;
    return (n + tiles - 1) / tiles;
}

/* k is cut into equal spans of at most `most` steps; an even number, because 64 bytes of bfloat16 can be two steps. */
static int64_t span_of(int64_t k, int64_t most) {
    int64_t steps = steps_of(k), spans = (steps + most - 1) / most, span = (steps + spans - 1) / spans;
    return span + span % 2;
}

/* The first `bytes` bytes, then zeros: nothing behind the last weight is touched. */
INLINE __m512 load_bytes(const char *p, int64_t bytes) {
    if (bytes >= LINE) return _mm512_loadu_ps(p);
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi8(((uint64_t)1 << bytes) - 1, p));
}

/* ---- few rows of x */

#if !PAIRS
/* Sixteen bfloat16 as float32, by one shuffle of a doubled load. Lanes come as 0-3, 8-11, 4-7, 12-15, x is packed alike. */
INLINE __m512 widen(const char *p, int64_t bytes) {
    const __m512i high_halves =
        _mm512_set_epi32(0x0f0e8080, 0x0d0c8080, 0x0b0a8080, 0x09088080, 0x0f0e8080, 0x0d0c8080, 0x0b0a8080, 0x09088080,
                         0x07068080, 0x05048080, 0x03028080, 0x01008080, 0x07068080, 0x05048080, 0x03028080, 0x01008080);
    __m256i v =
        bytes >= LINE / 2 ? _mm256_loadu_si256((const __m256i *)p) : _mm256_maskz_loadu_epi8(((uint32_t)1 << bytes) - 1, p);
    return _mm512_castsi512_ps(_mm512_shuffle_epi8(_mm512_broadcast_i64x4(v), high_halves));
}
#endif

/* s[rows][n] += the next `bytes` (at most 64) of each row of w times x. */
INLINE void stream_line(const float *x, int64_t x_step, const char *w, int64_t stride, int64_t bytes, int wide, __m512 s[4][TILE],
                        const int rows, const int n) {
    const int step_bytes = wide ? LINE / 2 : LINE;
#pragma GCC unroll 2
    for (int at = 0; at < bytes; at += step_bytes, x += x_step) {
        __m512 v[4];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const char *p = w + r * stride + at;
            if (at == 0 && !(PAIRS && n == 1)) /* there a line is one load and one product: its loads alone run far enough ahead */
                _mm_prefetch(p + 2 * rows * stride, _MM_HINT_T0); /* the same place two groups on: memory is read in order */
#if !PAIRS
            if (wide) v[r] = widen(p, bytes - at);
            else
#endif
                v[r] = load_bytes(p, bytes - at);
        }
#pragma GCC unroll 8
        for (int c = 0; c < n; c++) {
            __m512 xc = _mm512_loadu_ps(x + c * LANES);
            KEEP(xc);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) s[r][c] = MULTIPLY_ADD(s[r][c], v[r], xc);
        }
    }
}

/* sums[n][PIECE][16] += `bytes` bytes of `rows` rows of w times n rows of x. */
INLINE void stream_rows(const float *x, int64_t x_step, const char *w, int64_t stride, int64_t bytes, int wide, float *sums,
                        int first, const int rows, const int n) {
    __m512 s[4][TILE];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < n; c++) s[r][c] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + (c * PIECE + r) * LANES);
    for (; bytes >= LINE; bytes -= LINE, w += LINE, x += (1 + wide) * x_step)
        stream_line(x, x_step, w, stride, LINE, wide, s, rows, n);
    if (bytes) stream_line(x, x_step, w, stride, bytes, wide, s, rows, n);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < n; c++) _mm512_storeu_ps(sums + (c * PIECE + r) * LANES, s[r][c]);
}

INLINE void stream_tile(const float *x, int64_t x_step, const char *w, int64_t stride, int64_t rows, int64_t bytes, int wide,
                        float *sums, int first, const int n) {
    const int group = n <= 6 ? 4 : 3;
    int64_t r = 0;
    for (; r + group <= rows; r += group)
        stream_rows(x, x_step, w + r * stride, stride, bytes, wide, sums + r * LANES, first, group, n);
    for (; r < rows; r++) stream_rows(x, x_step, w + r * stride, stride, bytes, wide, sums + r * LANES, first, 1, n);
}

/* Sixteen outputs, each spread over sixteen lanes, to a register of outputs: the tree of cpu_linear.h. */
INLINE __m512 fold_lanes(const float *lanes, int wide) {
    __m512 four[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) { /* outputs j, j+4, j+8, j+12: each becomes four sums in its own quarter */
        const float *p = lanes + j * LANES;
        __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + 4 * LANES), c = _mm512_loadu_ps(p + 8 * LANES),
               d = _mm512_loadu_ps(p + 12 * LANES), ab, cd;
        if (wide) {
            ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
            cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x88), _mm512_shuffle_f32x4(c, d, 0xdd));
        } else {
            ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
            cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
        }
        four[j] = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    }
    __m512 r = _mm512_add_ps(_mm512_shuffle_ps(four[0], four[1], 0x44), _mm512_shuffle_ps(four[0], four[1], 0xee));
    __m512 s = _mm512_add_ps(_mm512_shuffle_ps(four[2], four[3], 0x44), _mm512_shuffle_ps(four[2], four[3], 0xee));
    return _mm512_add_ps(_mm512_shuffle_ps(r, s, 0x88), _mm512_shuffle_ps(r, s, 0xdd));
}

TARGET static void stream(const struct cpu_linear_block *b, int64_t m0, int64_t rows, float *sums) {
    int wide = !PAIRS && b->w_type == PVA_BF16;
    int64_t size = cpu_linear_size(b->w_type), stride = b->k * size, tile = b->tile_rows;
    int64_t span = span_of(b->k, FEW_SPAN / tile) * STEP_VALUES;
    const char *w = (const char *)b->w + m0 * stride;
    const float *x = b->x;
    for (int64_t k0 = 0; k0 < b->k; k0 += span) {
        int64_t k = smaller(span, b->k - k0), bytes = k * size;
        for (int64_t c = 0; c < b->n; c += tile) {
            int64_t n = smaller(tile, b->n - c);
            float *s = sums + c * PIECE * LANES;
            switch (n) {
#define CASE(n) \
    case n: \
        if (wide) stream_tile(x, tile *LANES, w + k0 * size, stride, rows, bytes, 1, s, k0 == 0, n); \
        else stream_tile(x, tile *LANES, w + k0 * size, stride, rows, bytes, 0, s, k0 == 0, n); \
        break;
                CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
            }
            x += tile * steps_of(k) * LANES;
        }
    }
    for (int64_t c = 0; c < b->n; c++)
        for (int64_t r = 0; r < rows; r += LANES) {
            const float *lanes = sums + (c * PIECE + r) * LANES;
            _mm512_mask_storeu_ps(b->y + c * b->m + m0 + r, first_lanes(rows - r),
                                  wide ? fold_lanes(lanes, 1) : fold_lanes(lanes, 0));
        }
}

/* ---- many rows of x */

/* 64 bytes (or fewer, then zeros) of sixteen rows of w (or fewer) to one vector of one or two steps of the panel. */
INLINE void pack_square(const char *w, int64_t stride, int wide, int64_t rows, int64_t bytes, int vectors, float *out) {
    __m512 r[LANES];
    if (rows >= LANES && bytes >= LINE) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) r[i] = _mm512_loadu_ps(w + i * stride);
    } else {
        for (int i = 0; i < LANES; i++) r[i] = i < rows ? load_bytes(w + i * stride, bytes) : _mm512_setzero_ps();
    }
    transpose(r);
#if !PAIRS
    if (wide) { /* r[i] has the values 2i and 2i + 1 of two steps */
        const __m512i high_half = _mm512_set1_epi32((int)0xffff0000u);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) {
            float *even = out + 2 * (i % 8) * LANE_STRIDE + (i / 8) * vectors * LANES;
            __m512i pair = _mm512_castps_si512(r[i]);
            _mm512_storeu_ps(even, _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)));
            _mm512_storeu_ps(even + LANE_STRIDE, _mm512_castsi512_ps(_mm512_and_si512(pair, high_half)));
        }
        return;
    }
#endif
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) _mm512_storeu_ps(out + i * LANE_STRIDE, r[i]);
}

/* `bytes` bytes of `rows` rows of w to the panel. */
INLINE void pack_panel(const char *w, int64_t stride, int wide, int64_t rows, int64_t bytes, int vectors, float *panel) {
    for (int v = 0; v < vectors; v++) {
        const char *p = w + v * LANES * stride;
        float *out = panel + v * LANES;
        for (int64_t at = 0; at < bytes; at += LINE, out += (1 + wide) * vectors * LANES) {
            for (int i = 0; i < LANES; i++) /* the stores of the next square would otherwise wait for their lines */
                for (int h = 1; h <= 1 + wide; h++)
                    _mm_prefetch((const char *)(out + i * LANE_STRIDE + (h + wide) * vectors * LANES), _MM_HINT_T0);
            pack_square(p + at, stride, wide, rows - v * LANES, smaller(LINE, bytes - at), vectors, out);
        }
    }
}

/* sums[vectors][TILE][16] += panel[steps][vectors][16] x[steps][TILE], while the memory at `ahead` is fetched. */
INLINE void multiply_tile(const float *x, const float *panel, int64_t steps, float *sums, int first, const char *ahead,
                          int64_t ahead_step, const int vectors, const int n) {
    __m512 s[VECTORS][TILE];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++)
#pragma GCC unroll 8
        for (int c = 0; c < n; c++) s[v][c] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + (v * TILE + c) * LANES);
    for (int64_t i = 0; i < steps; i++, x += TILE, panel += vectors * LANES, ahead += ahead_step) {
        __m512 w[VECTORS];
        _mm_prefetch(ahead, _MM_HINT_T1);
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) w[v] = _mm512_loadu_ps(panel + v * LANES);
#pragma GCC unroll 8
        for (int c = 0; c < n; c++) {
            __m512 xc = _mm512_set1_ps(x[c]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) s[v][c] = MULTIPLY_ADD(s[v][c], w[v], xc);
        }
    }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++)
#pragma GCC unroll 8
        for (int c = 0; c < n; c++) _mm512_storeu_ps(sums + (v * TILE + c) * LANES, s[v][c]);
}

#define TILES(vectors) \
    TARGET static void multiply_tile_##vectors(const float *x, const float *panel, int64_t steps, float *sums, int first, \
                                               const char *ahead, int64_t ahead_step, int64_t n) { \
        switch (n) { \
        case 1: multiply_tile(x, panel, steps, sums, first, ahead, ahead_step, vectors, 1); break; \
        case 2: multiply_tile(x, panel, steps, sums, first, ahead, ahead_step, vectors, 2); break; \
        case 3: multiply_tile(x, panel, steps, sums, first, ahead, ahead_step, vectors, 3); break; \
        case 4: multiply_tile(x, panel, steps, sums, first, ahead, ahead_step, vectors, 4); break; \
        case 5: multiply_tile(x, panel, steps, sums, first, ahead, ahead_step, vectors, 5); break; \
        case 6: multiply_tile(x, panel, steps, sums, first, ahead, ahead_step, vectors, 6); break; \
        case 7: multiply_tile(x, panel, steps, sums, first, ahead, ahead_step, vectors, 7); break; \
        default: multiply_tile(x, panel, steps, sums, first, ahead, ahead_step, vectors, 8); \
        } \
    }
TILES(1)
TILES(2) TILES(3)
#undef TILES

    /* The sixteen partial results of each output, added in the tree of cpu_linear.h, to y. */
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
            _mm512_mask_storeu_ps(y + c * y_stride + v * LANES, first_lanes(rows - v * LANES), s[0]);
        }
}

TARGET static void blocked(const struct cpu_linear_block *b, int64_t m0, int64_t rows, struct piece *t) {
    int wide = !PAIRS && b->w_type == PVA_BF16, vectors = (int)((rows + LANES - 1) / LANES);
    int64_t size = cpu_linear_size(b->w_type), stride = b->k * size, sum_size = vectors * TILE * LANES;
    int64_t span = span_of(b->k, SPAN) * STEP_VALUES, calls = LANES * ((b->n + TILE - 1) / TILE);
    const char *w = (const char *)b->w + m0 * stride;
    const float *x = b->x;
    for (int64_t k0 = 0; k0 < b->k; k0 += span) {
        int64_t k = smaller(span, b->k - k0), bytes = k * size, steps = steps_of(k);
        if (wide) pack_panel(w + k0 * size, stride, 1, rows, bytes, vectors, t->panel);
        else pack_panel(w + k0 * size, stride, 0, rows, bytes, vectors, t->panel);

        /* Meanwhile each tile fetches a run of the next panel's rows. */
        const char *next = k0 + span < b->k ? w + (k0 + span) * size : w + PIECE * stride;
        int64_t runs = calls > rows ? calls / rows : 1, run = bytes / runs, call = 0; /* runs per row */
        float *sums = t->sums;
        for (int lane = 0; lane < LANES; lane++)
            for (int64_t c = 0; c < b->n; c += TILE, call++, sums += sum_size, x += steps * TILE) {
                const float *panel = t->panel + lane * LANE_STRIDE;
                int64_t n = smaller(TILE, b->n - c), r = call / runs, ahead_step = r < rows ? (run + steps - 1) / steps : 0;
                const char *ahead = next + (r < rows ? r * stride + call % runs * run : 0);
                if (vectors == 3) multiply_tile_3(x, panel, steps, sums, k0 == 0, ahead, ahead_step, n);
                else if (vectors == 2) multiply_tile_2(x, panel, steps, sums, k0 == 0, ahead, ahead_step, n);
                else multiply_tile_1(x, panel, steps, sums, k0 == 0, ahead, ahead_step, n);
            }
    }
    fold_partials(t->sums, b->n, rows, vectors, b->y + m0, b->m);
}

TARGET static void product(const struct cpu_linear_block *b, int64_t m0, int64_t m1, void *scratch) {
    struct piece *t = scratch;
    if (b->few) stream(b, m0, m1 - m0, t->sums);
    else blocked(b, m0, m1 - m0, t);
}

static size_t tile_bytes(int64_t tile_rows, int64_t k) { return (size_t)(steps_of(k) * LANES * tile_rows) * sizeof(float); }

static void pack(const struct cpu_linear_rows *x, int few, void *block) {
    static const int in_order[4] = {0, 1, 2, 3}, widened[4] = {0, 2, 1, 3};
    if (few)
        cpu_linear_pack_across(x, PAIRS, span_of(x->k, FEW_SPAN / x->tile_rows),
                               !PAIRS && x->w_type == PVA_BF16 ? widened : in_order, block);
    else cpu_linear_pack_along(x, PAIRS, span_of(x->k, SPAN), block);
}

#define CPU_LINEAR_KERNEL \
    { \
        .few = FEW, .tile_rows = tile_rows, .block_rows = BLOCK, .m_rows = PIECE, .tile_bytes = tile_bytes, .pack = pack, \
        .thread_bytes = sizeof(struct piece), .product = product, \
    }

#endif
