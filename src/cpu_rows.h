/* cpu_rows.h - everything the CPU backend does besides matrix products, one row or one range at a time.
 * Built once per instruction set (cpu_rows_*.c include cpu_rows_body.h); the same bits from each. Threads are the caller's. */
#ifndef CPU_ROWS_H
#define CPU_ROWS_H

#include "pva/backend.h"

#include <stdint.h>

/* Where one query row finds keys and values of one kv head: page after page. */
struct cpu_pages {
    const char *k, *v;       /* the layer's first page of this kv head */
    size_t page_stride;      /* bytes from one page to the next */
    const int32_t *table;    /* page numbers of the slot */
    int page_size, d_head;
    int bf16;                /* else float32 */
};

struct cpu_rows {
    /* y = x * r * (1 + w), r = 1 / sqrt(mean(x^2) + eps). Exactly one of y32, y16 and resid is not NULL; resid is added to. */
    void (*rmsnorm)(const float *x, const float *w, float eps, int64_t d, float *y32, uint16_t *y16, float *resid);

    /* Scores of n_q query heads over keys first..last, capped, soft-maxed, and the weighted sum of values.
     * q, out: n_q rows of d_head; scores: n_q rows of `capacity` >= last - first + 1 + 16 floats of scratch. */
    void (*attention)(const float *q, int n_q, const struct cpu_pages *pages, int64_t first, int64_t last, float scale, float softcap,
                      float *scores, int64_t capacity, float *out32, uint16_t *out16);

    void (*geglu)(const float *gate, const float *up, int64_t n, float *y32, uint16_t *y16);
    void (*softcap)(float *x, int64_t n, float cap);
    void (*add_scaled)(float *x, const float *direction, float coefficient, int64_t n);
    void (*ablate)(float *x, const float *direction, int64_t n);
    void (*to_bf16)(const float *x, int64_t n, uint16_t *y);

    /* Sum of exp((x[i] - max) / temperature) for i < n, in lanes. */
    float (*sum_exp)(const float *x, int64_t n, float max, float temperature);
    void (*exp_scaled)(const float *x, int64_t n, float max, float temperature, float *y);
};

extern const struct cpu_rows cpu_rows_c, cpu_rows_avx2, cpu_rows_avx512;
#endif
