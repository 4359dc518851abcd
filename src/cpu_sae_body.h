/* cpu_sae_body.h - the code behind struct cpu_sae_kernel, included once per instruction set after CPU_LANES_x, CPU_SAE_KERNEL (its name),
 * CPU_SAE_ROWS and CPU_SAE_LANES (the tile of sums that the registers hold) are defined. */
#include "cpu_lanes.h"
#include "cpu_sae.h"
#include "pva/backend.h"

#include <float.h>

static inline lanes load_anywhere(const char *p) {
#if defined(CPU_LANES_C)
    lanes a;
    memcpy(a.v, p, sizeof a.v);
    return a;
#else
    return lanes_load((const float *)(const void *)p); /* the vector load takes any address */
#endif
}

static inline __attribute__((always_inline)) void tile(const float *x, const int rows, int64_t ldx, int64_t k, const char *w, int64_t w_step, float *z,
                                                       int64_t ldz, int begin) {
    lanes sum[CPU_SAE_ROWS][CPU_SAE_LANES];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < CPU_SAE_LANES; c++) sum[r][c] = lanes_set(0);
    for (int64_t i = 0; i < k; i++, w += w_step * (int64_t)sizeof(float)) {
        lanes column[CPU_SAE_LANES];
        for (int c = 0; c < CPU_SAE_LANES; c++) column[c] = load_anywhere(w + c * (LANES * (int)sizeof(float)));
        for (int r = 0; r < rows; r++) {
            lanes v = lanes_set(x[r * ldx + i]);
            for (int c = 0; c < CPU_SAE_LANES; c++) sum[r][c] = lanes_fma(v, column[c], sum[r][c]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < CPU_SAE_LANES; c++) {
            float *at = z + r * ldz + c * LANES;
            lanes_store(at, begin ? sum[r][c] : lanes_add(lanes_load(at), sum[r][c]));
        }
}

static void multiply(const float *x, int64_t n, int64_t ldx, int64_t k, const char *w, int64_t w_step, float *z, int64_t ldz, int begin) {
    int64_t i = 0;
    for (; i + CPU_SAE_ROWS <= n; i += CPU_SAE_ROWS) tile(x + i * ldx, CPU_SAE_ROWS, ldx, k, w, w_step, z + i * ldz, ldz, begin);
    /* The number of rows is a constant in each, so that the sums stay in registers. */
#define REST(r) \
    case r: tile(x + i * ldx, (r) < CPU_SAE_ROWS ? (r) : 0, ldx, k, w, w_step, z + i * ldz, ldz, begin); break
    switch (n - i) {
        REST(1);
        REST(2);
        REST(3);
        REST(4);
        REST(5);
    }
#undef REST
}

/* Eight rows of W at a time: each sum is loaded and stored once for eight products. */
static inline __attribute__((always_inline)) void stream_rows(const float *x, int64_t n, int64_t ldx, const char *w, int64_t step, const int rows, int64_t columns,
                                                              float *z, int64_t ldz, int begin) {
    for (int64_t c = 0; c < columns; c += LANES, w += LANES * sizeof(float)) {
        lanes column[8];
        for (int i = 0; i < rows; i++) {
            column[i] = load_anywhere(w + i * step);
            __builtin_prefetch(w + (i + rows) * step); /* the rows of the next turn: pages away */
        }
        for (int64_t r = 0; r < n; r++) {
            lanes sum = begin ? lanes_set(0) : lanes_load(z + r * ldz + c);
            for (int i = 0; i < rows; i++) sum = lanes_fma(lanes_set(x[r * ldx + i]), column[i], sum);
            lanes_store(z + r * ldz + c, sum);
        }
    }
}

static void stream(const float *x, int64_t n, int64_t ldx, int64_t k, const char *w, int64_t w_step, int64_t columns, float *z, int64_t ldz) {
    int64_t i = 0, step = w_step * (int64_t)sizeof(float);
    for (; i + 8 <= k; i += 8) stream_rows(x + i, n, ldx, w + i * step, step, 8, columns, z, ldz, i == 0);
    for (; i < k; i++) stream_rows(x + i, n, ldx, w + i * step, step, 1, columns, z, ldz, i == 0);
}

static void threshold_one(float z, float theta, int64_t latent, int32_t *indices, float *values, int32_t *tally) {
    if (!(fabsf(z) <= FLT_MAX)) {
        if (tally[PVA_JUMPRELU_BAD] < 0) tally[PVA_JUMPRELU_BAD] = (int32_t)latent;
        return;
    }
    tally[PVA_JUMPRELU_NEAR] += fabsf(z - theta) < 1e-3f * theta;
    if (z > theta) {
        int32_t at = tally[PVA_JUMPRELU_ACTIVE]++;
        indices[at] = (int32_t)latent;
        values[at] = z;
    }
}

/* Nearly all latents are far below their thresholds: sixteen of those at a time are passed over. */
static void threshold(const float *z, const float *bias, const float *theta, int64_t first, int64_t count, int32_t *indices, float *values, int32_t *tally) {
    const lanes lowest = lanes_set(-FLT_MAX), below = lanes_set(0.99f);
    for (int64_t j = 0; j < count; j += LANES) {
        int64_t n = count - j < LANES ? count - j : LANES;
        float sum[LANES];
        if (n == LANES) {
            lanes s = lanes_add(lanes_load(z + j), lanes_load(bias + j));
            if ((lanes_mask_less(s, lanes_mul(lanes_load(theta + j), below)) & lanes_mask_less(lowest, s)) == 0xffff) continue;
            lanes_store(sum, s);
        } else {
            for (int64_t i = 0; i < n; i++) sum[i] = z[j + i] + bias[j + i];
        }
        for (int64_t i = 0; i < n; i++) threshold_one(sum[i], theta[j + i], first + j + i, indices, values, tally);
    }
}

const struct cpu_sae_kernel CPU_SAE_KERNEL = {CPU_SAE_LANES * LANES, CPU_SAE_ROWS, multiply, stream, threshold};
