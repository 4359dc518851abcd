/* cpu_rows_body.h - the code behind struct cpu_rows, included once per instruction set after CPU_LANES_x and CPU_ROWS_TABLE
 * (the table's name) are defined. */
#include "cpu_lanes.h"
#include "cpu_rows.h"

static lanes load_any(const float *p, int64_t left) { return left >= LANES ? lanes_load(p) : lanes_load_part(p, left); }

static void store32(float *p, lanes a, int64_t left) {
    if (left >= LANES) lanes_store(p, a);
    else lanes_store_part(p, a, left);
}

static void store16(uint16_t *p, lanes a, int64_t left) {
    if (left >= LANES) lanes_store_bf16(p, a);
    else lanes_store_part_bf16(p, a, left);
}

static void store_either(float *y32, uint16_t *y16, int64_t at, lanes a, int64_t left) {
    if (y32) store32(y32 + at, a, left);
    else store16(y16 + at, a, left);
}

static void rmsnorm(const float *x, const float *w, float eps, int64_t d, float *y32, uint16_t *y16, float *resid) {
    lanes sum = lanes_set(0);
    for (int64_t i = 0; i < d; i += LANES) {
        lanes v = load_any(x + i, d - i);
        sum = lanes_fma(v, v, sum);
    }
    lanes r = lanes_set(1.0f / sqrtf(lanes_sum(sum) / (float)d + eps)), one = lanes_set(1);
    for (int64_t i = 0; i < d; i += LANES) {
        lanes v = lanes_mul(lanes_mul(load_any(x + i, d - i), r), lanes_add(one, load_any(w + i, d - i)));
        if (resid) store32(resid + i, lanes_add(load_any(resid + i, d - i), v), d - i);
        else store_either(y32, y16, i, v, d - i);
    }
}

static lanes load_kv(const void *p, int bf16, int64_t i, int64_t left) {
    if (bf16) {
        const uint16_t *h = (const uint16_t *)p + i;
        return left >= LANES ? lanes_load_bf16(h) : lanes_load_part_bf16(h, left);
    }
    return load_any((const float *)p + i, left);
}

static const void *page_row(const char *base, const struct cpu_pages *g, int64_t position) {
    size_t element = g->bf16 ? 2 : 4, row = (size_t)(position % g->page_size) * (size_t)g->d_head * element;
    return base + (size_t)g->table[position / g->page_size] * g->page_stride + row;
}

/* The largest of n scores, n a multiple of 16. Exact, so its order does not matter. */
static float row_max(const float *s, int64_t n) {
    lanes m = lanes_load(s);
    for (int64_t i = LANES; i < n; i += LANES) m = lanes_max(lanes_load(s + i), m);
    float v[LANES], best;
    lanes_store(v, m);
    best = v[0];
    for (int j = 1; j < LANES; j++)
        if (v[j] > best) best = v[j];
    return best;
}

/* Scores are kept at index (position - base), base = first rounded down to a multiple of 16, so that the lane in which a
 * weight is summed depends on its position alone. */
static void attention(const float *q, int n_q, const struct cpu_pages *g, int64_t first, int64_t last, float scale, float softcap,
                      float *scores, int64_t capacity, float *out32, uint16_t *out16) {
    int64_t d = g->d_head, base = first / LANES * LANES, n = (last - base + LANES) / LANES * LANES;
    for (int h = 0; h < n_q; h++) {
        float *s = scores + h * capacity;
        for (int64_t i = 0; i < n; i += LANES) lanes_store(s + i, lanes_set(-INFINITY));
    }
    for (int64_t p = first; p <= last; p++) {
        const void *k = page_row(g->k, g, p);
        for (int h = 0; h < n_q; h++) {
            const float *qh = q + h * d;
            lanes sum = lanes_set(0);
            for (int64_t i = 0; i < d; i += LANES) sum = lanes_fma(load_any(qh + i, d - i), load_kv(k, g->bf16, i, d - i), sum);
            scores[h * capacity + p - base] = lanes_sum(sum) * scale;
        }
    }
    for (int h = 0; h < n_q; h++) {
        float *s = scores + h * capacity;
        if (softcap > 0) {
            lanes cap = lanes_set(softcap);
            for (int64_t i = 0; i < n; i += LANES) lanes_store(s + i, lanes_mul(cap, lanes_tanh(lanes_div(lanes_load(s + i), cap))));
            for (int64_t p = base; p < first; p++) s[p - base] = -INFINITY;
            for (int64_t p = last + 1; p < base + n; p++) s[p - base] = -INFINITY;
        }
        lanes max = lanes_set(row_max(s, n)), sum = lanes_set(0);
        for (int64_t i = 0; i < n; i += LANES) lanes_store(s + i, lanes_exp(lanes_sub(lanes_load(s + i), max)));
        for (int64_t p = base; p < first; p++) s[p - base] = 0;
        for (int64_t p = last + 1; p < base + n; p++) s[p - base] = 0;
        for (int64_t i = 0; i < n; i += LANES) sum = lanes_add(sum, lanes_load(s + i));
        lanes inverse = lanes_set(1.0f / lanes_sum(sum));
        for (int64_t i = 0; i < n; i += LANES) lanes_store(s + i, lanes_mul(lanes_load(s + i), inverse));
    }
    /* Values in the order of their positions, one accumulator per element: four vectors of the row at a time stay in registers. */
    for (int h = 0; h < n_q; h++) {
        const float *s = scores + h * capacity;
        for (int64_t i = 0; i < d; i += 4 * LANES) {
            lanes a[4] = {lanes_set(0), lanes_set(0), lanes_set(0), lanes_set(0)};
            int64_t blocks = d - i >= 4 * LANES ? 4 : (d - i + LANES - 1) / LANES;
            for (int64_t p = first; p <= last; p++) {
                const void *v = page_row(g->v, g, p);
                lanes weight = lanes_set(s[p - base]);
                if (blocks == 4 && d - i >= 4 * LANES) {
                    for (int b = 0; b < 4; b++) a[b] = lanes_fma(weight, load_kv(v, g->bf16, i + b * LANES, LANES), a[b]);
                } else {
                    for (int b = 0; b < blocks; b++)
                        a[b] = lanes_fma(weight, load_kv(v, g->bf16, i + b * LANES, d - i - b * LANES), a[b]);
                }
            }
            for (int b = 0; b < blocks; b++) store_either(out32, out16, h * d + i + b * LANES, a[b], d - i - b * LANES);
        }
    }
}

static void geglu(const float *gate, const float *up, int64_t n, float *y32, uint16_t *y16) {
    lanes half = lanes_set(0.5f), one = lanes_set(1), c = lanes_set(0.044715f), root = lanes_set(0.797884560802865f);
    for (int64_t i = 0; i < n; i += LANES) {
        lanes x = load_any(gate + i, n - i), cube = lanes_mul(lanes_mul(x, x), x);
        lanes t = lanes_tanh(lanes_mul(root, lanes_fma(c, cube, x)));
        lanes gelu = lanes_mul(lanes_mul(half, x), lanes_add(one, t));
        store_either(y32, y16, i, lanes_mul(gelu, load_any(up + i, n - i)), n - i);
    }
}

static void softcap(float *x, int64_t n, float cap) {
    lanes c = lanes_set(cap);
    for (int64_t i = 0; i < n; i += LANES)
        store32(x + i, lanes_mul(c, lanes_tanh(lanes_div(load_any(x + i, n - i), c))), n - i);
}

static void add_scaled(float *x, const float *direction, float coefficient, int64_t n) {
    lanes c = lanes_set(coefficient);
    for (int64_t i = 0; i < n; i += LANES)
        store32(x + i, lanes_add(load_any(x + i, n - i), lanes_mul(c, load_any(direction + i, n - i))), n - i);
}

static void ablate(float *x, const float *direction, int64_t n) {
    lanes sum = lanes_set(0);
    for (int64_t i = 0; i < n; i += LANES) sum = lanes_fma(load_any(x + i, n - i), load_any(direction + i, n - i), sum);
    lanes along = lanes_set(lanes_sum(sum));
    for (int64_t i = 0; i < n; i += LANES)
        store32(x + i, lanes_sub(load_any(x + i, n - i), lanes_mul(along, load_any(direction + i, n - i))), n - i);
}

static void to_bf16(const float *x, int64_t n, uint16_t *y) {
    for (int64_t i = 0; i < n; i += LANES) store16(y + i, load_any(x + i, n - i), n - i);
}

static void exp_scaled(const float *x, int64_t n, float max, float temperature, float *y) {
    lanes m = lanes_set(max), t = lanes_set(temperature);
    for (int64_t i = 0; i < n; i += LANES)
        store32(y + i, lanes_exp(lanes_div(lanes_sub(load_any(x + i, n - i), m), t)), n - i);
}

static float sum_exp(const float *x, int64_t n, float max, float temperature) {
    lanes m = lanes_set(max), t = lanes_set(temperature), sum = lanes_set(0);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) sum = lanes_add(sum, lanes_exp(lanes_div(lanes_sub(lanes_load(x + i), m), t)));
    if (i < n) {
        float part[LANES] = {0};
        exp_scaled(x + i, n - i, max, temperature, part);
        sum = lanes_add(sum, lanes_load(part));
    }
    return lanes_sum(sum);
}

const struct cpu_rows CPU_ROWS_TABLE = {
    .rmsnorm = rmsnorm,
    .attention = attention,
    .geglu = geglu,
    .softcap = softcap,
    .add_scaled = add_scaled,
    .ablate = ablate,
    .to_bf16 = to_bf16,
    .sum_exp = sum_exp,
    .exp_scaled = exp_scaled,
};
