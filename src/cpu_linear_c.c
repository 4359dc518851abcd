#include "cpu_linear.h"

#include <math.h>
#include <string.h>

enum { LANES = 16 };

/* Sixteen weights, filled up with zeros. */
static void widen(const char *w, enum pva_dtype type, int64_t width, float *out) {
    if (type == PVA_F32) {
        memcpy(out, w, (size_t)width * sizeof(float));
    } else {
        uint16_t half[LANES];
        memcpy(half, w, (size_t)width * sizeof *half);
        for (int64_t j = 0; j < width; j++) out[j] = pva_bf16_to_f32(half[j]);
    }
    for (int64_t j = width; j < LANES; j++) out[j] = 0;
}

static float dot(const float *x, const char *w, enum pva_dtype type, int64_t k) {
    float lanes[LANES] = {0}, v[LANES];
    for (int64_t k0 = 0; k0 < k; k0 += LANES, w += LANES * cpu_linear_size(type)) {
        widen(w, type, k - k0 < LANES ? k - k0 : LANES, v);
        for (int j = 0; j < LANES; j++) lanes[j] = fmaf(v[j], x[k0 + j], lanes[j]);
    }
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

static int64_t tile_rows(int64_t n) { return 1; }

static size_t tile_bytes(int64_t tile_rows, int64_t k) { return (size_t)((k + LANES - 1) / LANES * LANES) * sizeof(float); }

static void pack(const struct cpu_linear_rows *x, int few, void *block) {
    static const int in_order[4] = {0, 1, 2, 3};
    cpu_linear_pack_across(x, 0, INT64_MAX, in_order, block);
}

static void product(const struct cpu_linear_block *b, int64_t m0, int64_t m1, void *scratch) {
    const char *w = (const char *)b->w + m0 * b->k * cpu_linear_size(b->w_type);
    for (int64_t r = m0; r < m1; r++, w += b->k * cpu_linear_size(b->w_type))
        for (int64_t c = 0; c < b->n; c++)
            b->y[c * b->m + r] = dot((const float *)b->x + c * ((b->k + LANES - 1) / LANES * LANES), w, b->w_type, b->k);
}

const struct cpu_linear_kernel cpu_linear_c = {
    .tile_rows = tile_rows,
    .block_rows = 64,
    .m_rows = 64,
    .tile_bytes = tile_bytes,
    .pack = pack,
    .product = product,
};
