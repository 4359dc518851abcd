#include "cpu_linear.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64, CHUNK_BLOCKS = 8 };

void cpu_scratch_free(struct cpu_scratch *scratch) {
    free(scratch->data);
    scratch->data = NULL;
    scratch->bytes = 0;
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static size_t aligned(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static size_t product_of(size_t a, size_t b) {
    size_t r;
    PVA_ASSERT(!__builtin_mul_overflow(a, b, &r));
    return r;
}

static void *scratch_reserve(struct cpu_scratch *scratch, size_t bytes) {
    if (scratch->bytes < bytes) {
        cpu_scratch_free(scratch);
        scratch->data = aligned_alloc(ALIGNMENT, bytes);
        PVA_ASSERT(scratch->data != NULL);
        scratch->bytes = bytes;
    }
    return scratch->data;
}

static int64_t steps_of(int64_t k, int pairs) { return (k + 16 * (1 + pairs) - 1) / (16 * (1 + pairs)); }

/* The sixteen lanes of one step of a row, as bits. */
static inline void lanes_of(const struct cpu_linear_rows *x, int pairs, int64_t row, int64_t step, uint32_t lanes[16]) {
    int64_t size = cpu_linear_size(x->type), first = step * 16 * (1 + pairs), left = x->k - first;
    const char *p = (const char *)x->x + (row * x->k + first) * size;
    int whole = left >= 16 * (1 + pairs);
    if (x->type == PVA_F32 || pairs) {
        if (!whole) memset(lanes, 0, 64);
        memcpy(lanes, p, whole ? 64 : (size_t)(left * size));
        return;
    }
    uint16_t half[16] = {0};
    memcpy(half, p, whole ? 32 : (size_t)(left * size));
    for (int i = 0; i < 16; i++) lanes[i] = (uint32_t)half[i] << 16;
}

void cpu_linear_pack_across(const struct cpu_linear_rows *x, int pairs, int64_t span, const int quarters[4], void *block) {
    int64_t n_steps = steps_of(x->k, pairs);
    uint32_t lanes[16];
    for (int64_t s0 = 0; s0 < n_steps; s0 += span) {
        int64_t steps = smaller(span, n_steps - s0);
        uint32_t *out = (uint32_t *)block + (s0 * x->n_tiles + x->tile * steps) * x->tile_rows * 16;
        for (int64_t s = s0; s < s0 + steps; s++)
            for (int64_t r = 0; r < x->tile_rows; r++, out += 16) {
                if (r < x->rows) lanes_of(x, pairs, r, s, lanes);
                else memset(lanes, 0, sizeof lanes);
                for (int q = 0; q < 4; q++) memcpy(out + 4 * q, lanes + 4 * quarters[q], 16);
            }
    }
}

void cpu_linear_pack_along(const struct cpu_linear_rows *x, int pairs, int64_t span, void *block) {
    enum { BATCH = 8, MOST_ROWS = 16 }; /* some steps at a time, so that each lane's place gets more than one line */
    int64_t n_steps = steps_of(x->k, pairs), tile_rows = x->tile_rows;
    uint32_t batch[BATCH][MOST_ROWS][16] = {0};
    PVA_ASSERT(tile_rows <= MOST_ROWS);
    for (int64_t s0 = 0; s0 < n_steps; s0 += span) {
        int64_t steps = smaller(span, n_steps - s0);
        for (int64_t b0 = 0; b0 < steps; b0 += BATCH) {
            int64_t count = smaller(BATCH, steps - b0);
            for (int64_t s = 0; s < count; s++)
                for (int64_t r = 0; r < x->rows; r++) lanes_of(x, pairs, r, s0 + b0 + s, batch[s][r]);
            for (int64_t lane = 0; lane < 16; lane++) {
                uint32_t *out = (uint32_t *)block + ((s0 * 16 + lane * steps) * x->n_tiles + x->tile * steps + b0) * tile_rows;
                for (int64_t s = 0; s < count; s++)
                    for (int64_t r = 0; r < tile_rows; r++) *out++ = batch[s][r][lane];
            }
        }
    }
}

void cpu_linear_pack_down(const struct cpu_linear_rows *x, int pairs, int64_t span, void *block) {
    int64_t n_steps = steps_of(x->k, pairs), tile_rows = x->tile_rows;
    uint32_t lanes[16];
    for (int64_t s0 = 0; s0 < n_steps; s0 += span) {
        int64_t steps = smaller(span, n_steps - s0);
        uint32_t *out = (uint32_t *)block + (s0 * x->n_tiles + x->tile * steps) * 16 * tile_rows;
        for (int64_t s = s0; s < s0 + steps; s++, out += 16 * tile_rows)
            for (int64_t r = 0; r < tile_rows; r++) {
                if (r < x->rows) lanes_of(x, pairs, r, s, lanes);
                else memset(lanes, 0, sizeof lanes);
                for (int64_t lane = 0; lane < 16; lane++) out[lane * tile_rows + r] = lanes[lane];
            }
    }
}

static const struct cpu_linear_kernel *kernel_for(const struct cpu_linear_args *a) {
#if defined(__x86_64__)
    int both_bf16 = a->x_type == PVA_BF16 && a->w_type == PVA_BF16;
    switch (a->isa) {
    case CPU_AVX2: return &cpu_linear_avx2;
    case CPU_AVX512: return &cpu_linear_avx512;
    case CPU_AVX512BF16: return both_bf16 ? &cpu_linear_avx512bf16 : &cpu_linear_avx512;
    case CPU_AMX: return both_bf16 ? &cpu_linear_amx : &cpu_linear_avx512;
    default: break;
    }
#endif
    PVA_ASSERT(a->isa == CPU_C);
    return &cpu_linear_c;
}

void cpu_linear(const struct cpu_linear_args *a) { cpu_linear_with(a, kernel_for(a)); }

/* Rows of w in one piece of work: what the kernel likes, less when the threads would otherwise get unequal shares. */
static int64_t rows_per_piece(const struct cpu_linear_kernel *kernel, int64_t m, int n_threads) {
    int64_t rows = kernel->m_rows;
    while (rows > CPU_LINEAR_GROUP && (m + rows - 1) / rows < 8 * (int64_t)n_threads) rows -= CPU_LINEAR_GROUP;
    return rows;
}

void cpu_linear_with(const struct cpu_linear_args *a, const struct cpu_linear_kernel *kernel) {
    PVA_ASSERT(a->n >= 0 && a->m >= 0 && a->k >= 0 && a->n_threads >= 1);
    PVA_ASSERT(a->x_type == PVA_F32 || (a->x_type == PVA_BF16 && a->w_type == PVA_BF16));
    PVA_ASSERT(a->w_type == PVA_F32 || a->w_type == PVA_BF16);
    if (a->n == 0 || a->m == 0) return;
    if (a->k == 0) {
        memset(a->y, 0, product_of(product_of((size_t)a->n, (size_t)a->m), sizeof(float)));
        return;
    }

    /* A chunk of rows is packed, then each block of rows in it meets each piece of w. */
    int few = a->n <= kernel->few;
    int64_t tile_rows = kernel->tile_rows(a->n), chunk = smaller(a->n, CHUNK_BLOCKS * kernel->block_rows);
    int64_t block_tiles = (kernel->block_rows + tile_rows - 1) / tile_rows; /* few rows are one block, however they are cut */
    size_t tile_bytes = aligned(kernel->tile_bytes(tile_rows, a->k)), thread_bytes = aligned(kernel->thread_bytes);
    size_t x_bytes = product_of(tile_bytes, (size_t)((chunk + tile_rows - 1) / tile_rows));
    char *packed = scratch_reserve(a->scratch, x_bytes + product_of(thread_bytes, (size_t)a->n_threads));
    size_t x_row = product_of((size_t)a->k, (size_t)cpu_linear_size(a->x_type));
    int64_t piece = rows_per_piece(kernel, a->m, a->n_threads), n_pieces = (a->m + piece - 1) / piece;

#pragma omp parallel num_threads(a->n_threads) if (a->n_threads > 1)
    {
        void *own = packed + x_bytes + thread_bytes * (size_t)omp_get_thread_num();
        if (kernel->enter) kernel->enter();
        for (int64_t i0 = 0; i0 < a->n; i0 += chunk) {
            int64_t rows = smaller(chunk, a->n - i0), n_tiles = (rows + tile_rows - 1) / tile_rows;
            int64_t n_blocks = (rows + kernel->block_rows - 1) / kernel->block_rows;
            int64_t claim = n_blocks * n_pieces / (8 * a->n_threads) + 1; /* neighbours: a kernel fetches the next piece ahead */
#pragma omp for schedule(static)
            for (int64_t t = 0; t < n_tiles; t++) {
                int64_t first = t / block_tiles * block_tiles;
                struct cpu_linear_rows x = {
                    .x = (const char *)a->x + (size_t)(i0 + t * tile_rows) * x_row,
                    .type = a->x_type,
                    .w_type = a->w_type,
                    .rows = smaller(tile_rows, rows - t * tile_rows),
                    .k = a->k,
                    .tile_rows = tile_rows,
                    .tile = t - first,
                    .n_tiles = smaller(block_tiles, n_tiles - first),
                };
                kernel->pack(&x, few, packed + (size_t)first * tile_bytes);
            }
#pragma omp for schedule(dynamic, claim)
            for (int64_t p = 0; p < n_blocks * n_pieces; p++) {
                int64_t first = p / n_pieces * kernel->block_rows, m0 = p % n_pieces * piece;
                struct cpu_linear_block b = {
                    .x = packed + (size_t)(first / tile_rows) * tile_bytes,
                    .tile_rows = tile_rows,
                    .few = few,
                    .w = a->w,
                    .w_type = a->w_type,
                    .y = a->y + (i0 + first) * a->m,
                    .n = smaller(kernel->block_rows, rows - first),
                    .m = a->m,
                    .k = a->k,
                };
                kernel->product(&b, m0, smaller(m0 + piece, a->m), own);
            }
        }
        if (kernel->leave) kernel->leave();
    }
}
