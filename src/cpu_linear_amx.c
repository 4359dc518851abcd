/* AMX tiles on weights as they lie. TDPBF16PS multiplies a tile of rows by a tile whose k runs downwards in pairs. Weights in
 * [m][k] are rows already, so they are the first operand, loaded from where they are mapped with the matrix's own stride; what is
 * packed into pairs is the small x. A tile of results is then y transposed, and is turned over when it is stored.
 *
 * One row of x is padded to a tile of sixteen like any other number, so every row is summed in the same order. */
#include "cpu_linear.h"

#include <string.h>

#if defined(__x86_64__) || defined(INTRIN_EMULATION_H) /* the tests compile this file against intrinsics in plain C */
#if !defined(INTRIN_EMULATION_H)
#include <immintrin.h>
#define TARGET __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#endif
#define INLINE TARGET static inline __attribute__((always_inline))
#include "cpu_linear_transpose.h"

enum {
    STEP = 32, /* values of k in a tile of w */
    LINE = 64, /* bytes of a tile's row */
    TILE_BYTES = LANES * LINE,
    FEW = 2 * LANES,   /* rows of x that two tiles hold: w is read once, nothing is gained by keeping it near */
    BLOCK = 256,       /* rows of x that share a piece of w in the second cache */
    PIECE = 2 * LANES, /* rows of w: two tiles by two of x, four sums */
    SPAN = 16,         /* steps of k at most: the piece's part of w (32 KiB) stays in the first cache while x passes by */
    FEW_SPAN = 64,
};

struct piece {
    float sums[BLOCK / LANES][2][LANES * LANES]; /* [tile of x][tile of w][row of w][row of x], between spans of k */
    char rows[2][LANES * FEW_SPAN * LINE];       /* the last rows of w, filled up to a tile with zeros */
    char end[2][TILE_BYTES];                     /* the last values of sixteen rows, filled up with zeros */
};

/* A span of sixteen rows of w, and where its last, incomplete step stands. */
struct operand {
    const char *w, *end;
    int64_t stride, end_stride;
};

/* What to fetch from memory at each step: `count` lines from `at` on. */
struct fetch {
    const char *at;
    int64_t line_stride, step_stride;
    int count;
};

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t span_of(int few) { return few ? FEW_SPAN : SPAN; }

/* Eight tiles of 16 rows of 64 bytes: palette 1. */
static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} shape __attribute__((aligned(64))) = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

TARGET static void enter(void) { _tile_loadconfig(&shape); }
TARGET static void leave(void) { _tile_release(); }

/* Tiles 0 to 3: sums; 4, 5: w; 6, 7: x. */
#define STEP_OF(w0, stride0, w1, stride1, x) \
    do { \
        _tile_loadd(4, w0, stride0); \
        _tile_loadd(6, x, LINE); \
        if (wt > 1) _tile_loadd(5, w1, stride1); \
        if (xt > 1) _tile_loadd(7, (x) + x_tile, LINE); \
        _tile_dpbf16ps(0, 4, 6); \
        if (xt > 1) _tile_dpbf16ps(1, 4, 7); \
        if (wt > 1) _tile_dpbf16ps(2, 5, 6); \
        if (wt > 1 && xt > 1) _tile_dpbf16ps(3, 5, 7); \
    } while (0)

/* sums[xt][wt] += a span of wt tiles of w times xt tiles of x, these x_tile bytes apart. */
INLINE void multiply(const char *x, int64_t x_tile, const struct operand w[2], int64_t steps, int end,
                     float (*sums)[2][LANES * LANES], int first, struct fetch f, const int wt, const int xt) {
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums[0][0], LINE);
        if (xt > 1) _tile_loadd(1, sums[1][0], LINE);
        if (wt > 1) _tile_loadd(2, sums[0][1], LINE);
        if (wt > 1 && xt > 1) _tile_loadd(3, sums[1][1], LINE);
    }
    for (int64_t s = 0; s < steps; s++, x += TILE_BYTES, f.at += f.step_stride) {
        for (int i = 0; i < f.count; i++) _mm_prefetch(f.at + i * f.line_stride, _MM_HINT_T1);
        STEP_OF(w[0].w + s * LINE, w[0].stride, w[1].w + s * LINE, w[1].stride, x);
    }
    if (end) STEP_OF(w[0].end, w[0].end_stride, w[1].end, w[1].end_stride, x);
    _tile_stored(0, sums[0][0], LINE);
    if (xt > 1) _tile_stored(1, sums[1][0], LINE);
    if (wt > 1) _tile_stored(2, sums[0][1], LINE);
    if (wt > 1 && xt > 1) _tile_stored(3, sums[1][1], LINE);
}

/* Sixteen rows of w of which `rows` exist, k values each. */
static struct operand operand_of(const char *w, int64_t stride, int64_t rows, int64_t k, char *copy, char *end) {
    int64_t steps = (k + STEP - 1) / STEP, whole = k / STEP;
    if (rows < LANES) {
        memset(copy, 0, (size_t)(LANES * steps * LINE));
        for (int64_t r = 0; r < rows; r++) memcpy(copy + r * steps * LINE, w + r * stride, (size_t)k * 2);
        return (struct operand){copy, copy + whole * LINE, steps * LINE, steps * LINE};
    }
    if (k % STEP) {
        memset(end, 0, TILE_BYTES);
        for (int64_t r = 0; r < LANES; r++) memcpy(end + r * LINE, w + r * stride + whole * LINE, (size_t)(k % STEP) * 2);
    }
    return (struct operand){w, end, stride, LINE};
}

/* Transposed tiles to y: `n` rows of x, `rows` rows of w. */
TARGET static void store(const float *sums, int64_t n, int64_t rows, float *y, int64_t y_stride) {
    __m512 r[LANES];
    for (int i = 0; i < LANES; i++) r[i] = _mm512_loadu_ps(sums + i * LANES);
    transpose(r);
    for (int i = 0; i < n; i++) _mm512_mask_storeu_ps(y + i * y_stride, first_lanes(rows), r[i]);
}

TARGET static void product(const struct cpu_linear_block *b, int64_t m0, int64_t m1, void *scratch) {
    struct piece *t = scratch;
    int64_t stride = b->k * 2, rows = m1 - m0, x_tiles = (b->n + LANES - 1) / LANES, span = span_of(b->few) * STEP;
    const char *w = (const char *)b->w + m0 * stride, *x = b->x;
    for (int64_t k0 = 0; k0 < b->k; k0 += span) {
        int64_t k = smaller(span, b->k - k0), whole = k / STEP, x_tile = (k + STEP - 1) / STEP * TILE_BYTES;
        struct operand o[2];
        for (int i = 0; i < 2; i++)
            o[i] = operand_of(w + i * LANES * stride + k0 * 2, stride, rows > i * LANES ? rows - i * LANES : 0, k, t->rows[i],
                              t->end[i]);
        __asm__ volatile("" ::: "memory"); /* the copies are written before a tile is loaded, which the compiler does not see */

        /* Few rows of x are gone through once: the next piece of w is fetched as it lies. Else each pass of x fetches some rows
         * of the next span. */
        int64_t pairs = (x_tiles + 1) / 2, share = (PIECE + pairs - 1) / pairs;
        const char *next = k0 + span < b->k ? w + (k0 + span) * 2 : w + PIECE * stride;
        for (int64_t c = 0; c < x_tiles; c += 2, x += 2 * x_tile) {
            struct fetch f = {next + c / 2 * share * stride, stride, LINE,
                              (int)smaller(share, PIECE - smaller(PIECE, c / 2 * share))};
            if (b->few) f = (struct fetch){w + PIECE * stride + k0 * LINE, LINE, PIECE * LINE, PIECE};
            int two = c + 1 < x_tiles, end = whole * STEP < k;
            if (rows > LANES && two) multiply(x, x_tile, o, whole, end, t->sums + c, k0 == 0, f, 2, 2);
            else if (rows > LANES) multiply(x, x_tile, o, whole, end, t->sums + c, k0 == 0, f, 2, 1);
            else if (two) multiply(x, x_tile, o, whole, end, t->sums + c, k0 == 0, f, 1, 2);
            else multiply(x, x_tile, o, whole, end, t->sums + c, k0 == 0, f, 1, 1);
        }
        if (x_tiles % 2) x -= x_tile; /* the last pair had one tile */
    }
    for (int64_t c = 0; c < x_tiles; c++)
        for (int64_t r = 0; r < rows; r += LANES)
            store(t->sums[c][r / LANES], smaller(LANES, b->n - c * LANES), rows - r, b->y + c * LANES * b->m + m0 + r, b->m);
}

static int64_t tile_rows(int64_t n) { return LANES; }

static size_t tile_bytes(int64_t tile_rows, int64_t k) { return (size_t)((k + STEP - 1) / STEP) * TILE_BYTES; }

static void pack(const struct cpu_linear_rows *x, int few, void *block) { cpu_linear_pack_down(x, 1, span_of(few), block); }

const struct cpu_linear_kernel cpu_linear_amx = {
    .few = FEW,
    .tile_rows = tile_rows,
    .block_rows = BLOCK,
    .m_rows = PIECE,
    .tile_bytes = tile_bytes,
    .pack = pack,
    .thread_bytes = sizeof(struct piece),
    .product = product,
    .enter = enter,
    .leave = leave,
};
#endif
