/* Attention over the paged cache: against float64 and the CPU backend, with whatever no row may see full of NaN; the same bits alone, in a
 * prompt, in a large batch; teeth. */
#include "twin.h"

struct setup {
    int n_heads, n_kv_heads, d, page_size, n_slots, max_pages, window;
    float softcap;
    enum pva_dtype type;
    int lengths[4];
};

struct cache {
    struct pva_attention_shape shape;
    int n_pages, n_layers;
    size_t bytes;
    void *k, *v;
    int32_t *table;
    struct twin_buffer dk, dv, dtable;
    struct pva_cuda_kv kv;
};
enum { LAYER = 1, LAYERS = 2 };

static float value(const void *p, enum pva_dtype t, size_t i) { return t == PVA_F32 ? ((const float *)p)[i] : pva_bf16_to_f32(((const uint16_t *)p)[i]); }
static void put(void *p, enum pva_dtype t, size_t i, float v) {
    if (t == PVA_F32) ((float *)p)[i] = v;
    else ((uint16_t *)p)[i] = pva_f32_to_bf16(v);
}

static size_t place(const struct setup *s, const struct cache *c, int slot, int position, int head) {
    size_t page = (size_t)c->table[slot * s->max_pages + position / s->page_size];
    return (((LAYER * (size_t)c->n_pages + page) * (size_t)s->n_kv_heads + (size_t)head) * (size_t)s->page_size + (size_t)(position % s->page_size)) * (size_t)s->d;
}

/* Keys and values of `lengths` positions in shuffled pages; everything else is NaN, and table entries of no use are far outside. */
static void cache_open(const struct setup *s, struct cache *c) {
    int used = 0;
    memset(c, 0, sizeof *c);
    for (int i = 0; i < s->n_slots; i++) used += (s->lengths[i] + s->page_size - 1) / s->page_size;
    c->n_pages = used + 3;
    c->shape = (struct pva_attention_shape){s->n_heads, s->n_kv_heads, s->d, (float)(1 / sqrt(s->d)), s->softcap, s->window};
    size_t size = s->type == PVA_F32 ? 4 : 2, n = (size_t)LAYERS * (size_t)c->n_pages * (size_t)s->n_kv_heads * (size_t)s->page_size * (size_t)s->d;
    c->bytes = n * size;
    c->k = twin_alloc(c->bytes), c->v = twin_alloc(c->bytes);
    memset(c->k, TWIN_POISON, c->bytes), memset(c->v, TWIN_POISON, c->bytes);
    c->table = twin_alloc((size_t)(s->n_slots * s->max_pages) * 4);
    for (int i = 0; i < s->n_slots * s->max_pages; i++) c->table[i] = 1 << 30;
    int taken = 0, step = 7;
    while (c->n_pages % step == 0) step++;
    for (int slot = 0; slot < s->n_slots; slot++)
        for (int p = 0; p < s->lengths[slot]; p++) {
            if (p % s->page_size == 0) c->table[slot * s->max_pages + p / s->page_size] = (int32_t)(++taken * step % c->n_pages);
            for (int h = 0; h < s->n_kv_heads; h++)
                for (int i = 0; i < s->d; i++) {
                    size_t at = place(s, c, slot, p, h) + (size_t)i;
                    put(c->k, s->type, at, (float)pva_rng_normal(2, PVA_RNG_WEIGHTS, (uint32_t)(slot * 2), (uint32_t)p, (uint32_t)(h * s->d + i)));
                    put(c->v, s->type, at, (float)pva_rng_normal(2, PVA_RNG_WEIGHTS, (uint32_t)(slot * 2 + 1), (uint32_t)p, (uint32_t)(h * s->d + i)));
                }
        }
    c->dk = twin_new(c->k, c->bytes), c->dv = twin_new(c->v, c->bytes), c->dtable = twin_new(c->table, (size_t)(s->n_slots * s->max_pages) * 4);
    c->kv = (struct pva_cuda_kv){c->dk.p, c->dv.p, s->type, (int32_t *)c->dtable.p, s->n_slots, s->max_pages, LAYERS, c->n_pages, s->page_size,
                                 s->n_kv_heads, s->d};
}

static void cache_close(struct cache *c) {
    twin_read(&c->dk, NULL), twin_read(&c->dv, NULL), twin_read(&c->dtable, NULL);
    twin_free(&c->dk), twin_free(&c->dv), twin_free(&c->dtable);
    free(c->k), free(c->v), free(c->table);
}

static void run(const struct setup *s, const struct cache *c, const float *q, const int32_t *slots, const int32_t *positions, int64_t n, void *out,
                enum pva_dtype out_type, int fault_expected) {
    static const char zero[PVA_CUDA_COUNTERS];
    size_t cols = (size_t)(s->n_heads * s->d), bytes = pva_cuda_attention_bytes(n, s->n_heads, &c->kv, s->window);
    struct twin_buffer dq = twin_new(q, (size_t)n * cols * 4), dslots = twin_new(slots, (size_t)n * 4), dpositions = twin_new(positions, (size_t)n * 4);
    struct twin_buffer dout = twin_new(NULL, (size_t)n * cols * (out_type == PVA_F32 ? 4 : 2)), work = twin_new(NULL, bytes);
    int32_t fault[2] = {0, 0};
    struct twin_buffer dfault = twin_new(fault, sizeof fault);
    CHECK_CUDA(cudaMemset(work.p, 0, PVA_CUDA_COUNTERS));
    CHECK_CUDA(pva_cuda_attention((float *)dq.p, (int32_t *)dslots.p, (int32_t *)dpositions.p, n, &c->shape, &c->kv, LAYER, dout.p, out_type, work.p,
                                  (int32_t *)dfault.p, NULL));
    twin_read(&dout, out), twin_read(&dq, NULL), twin_read(&dfault, fault);
    CHECK_INT(fault[0], fault_expected);
    char *host = twin_alloc(bytes);
    twin_read(&work, host);
    CHECK(memcmp(host, zero, sizeof zero) == 0);
    free(host);
    struct twin_buffer *all[] = {&dq, &dslots, &dpositions, &dout, &work, &dfault};
    for (int i = 0; i < 6; i++) twin_free(all[i]);
}

/* The CPU backend's own attention over the same bytes. */
static void run_cpu(const struct setup *s, const struct cache *c, const float *q, const int32_t *slots, const int32_t *positions, int64_t n, float *out) {
    const struct pva_backend_ops *op = &pva_backend_cpu;
    struct pva_backend_settings settings = {.n_threads = 1, .isa = "c"};
    struct pva_error err = {0};
    struct pva_backend *be = NULL;
    struct pva_buffer *b[6] = {0};
    const void *host[] = {q, slots, positions, c->k, c->v, c->table};
    size_t cols = (size_t)(s->n_heads * s->d), bytes[] = {(size_t)n * cols * 4, (size_t)n * 4, (size_t)n * 4, c->bytes, c->bytes, (size_t)(s->n_slots * s->max_pages) * 4};
    CHECK_OK(op->open(&settings, &be, &err), err);
    for (int i = 0; i < 6; i++) CHECK_OK(op->bind(be, host[i], bytes[i], &b[i], &err), err);
    int64_t rows = (int64_t)LAYERS * c->n_pages * s->n_kv_heads * s->page_size;
    struct pva_kv_cache kv = {{b[3], 0, s->type, rows, s->d}, {b[4], 0, s->type, rows, s->d}, {b[5], 0, PVA_I32, s->n_slots, s->max_pages}, LAYERS,
                              c->n_pages, s->page_size, s->n_kv_heads, s->d};
    struct pva_buffer *o = NULL;
    CHECK_OK(op->bind(be, out, (size_t)n * cols * 4, &o, &err), err);
    CHECK_OK(op->attention(be, (struct pva_tensor){b[0], 0, PVA_F32, n, (int64_t)cols}, (struct pva_tensor){b[1], 0, PVA_I32, n, 1},
                           (struct pva_tensor){b[2], 0, PVA_I32, n, 1}, &c->shape, &kv, LAYER, (struct pva_tensor){o, 0, PVA_F32, n, (int64_t)cols}, &err),
             err);
    for (int i = 0; i < 6; i++) op->free(be, &b[i]);
    op->free(be, &o);
    op->close(&be);
}

/* Elements outside of the bound: a score is off by (d + 2) half units of the sum of sizes (a soft-cap adds 8 of its own), so is the exponent of a
 * weight and, twice, its share; then the sums over the positions seen, each term rescaled once per part. */
static int64_t count_wrong(const struct setup *s, const struct cache *c, const float *q, const int32_t *slots, const int32_t *positions, int64_t n,
                           const float *out) {
    const double u = 0x1p-24;
    int group = s->n_heads / s->n_kv_heads;
    int64_t wrong = 0;
    double *w = twin_alloc(10000 * sizeof *w);
    for (int64_t r = 0; r < n; r++)
        for (int h = 0; h < s->n_heads; h++) {
            const float *query = q + (r * s->n_heads + h) * s->d;
            int last = positions[r], first = s->window > 0 && last >= s->window ? last - s->window + 1 : 0;
            double max = -INFINITY, sum = 0, off = 0;
            for (int p = first; p <= last; p++) {
                double dot = 0, size = 0;
                for (int i = 0; i < s->d; i++) {
                    double product = (double)query[i] * (double)value(c->k, s->type, place(s, c, slots[r], p, h / group) + (size_t)i);
                    dot += product, size += fabs(product);
                }
                dot *= (double)c->shape.scale, size *= (double)c->shape.scale;
                w[p - first] = s->softcap > 0 ? (double)s->softcap * tanh(dot / (double)s->softcap) : dot;
                max = fmax(max, w[p - first]);
                off = fmax(off, (s->d + 2) * u * size + (s->softcap > 0 ? 8 * u * (double)s->softcap : 0));
            }
            for (int p = first; p <= last; p++) sum += w[p - first] = exp(w[p - first] - max);
            double relative = 2 * (exp(2 * off + 8 * u) - 1) + (last - first + 20 + 4 * (last / 64 + 1)) * u;
            for (int i = 0; i < s->d; i++) {
                double want = 0, size = 0;
                for (int p = first; p <= last; p++) {
                    double term = w[p - first] / sum * (double)value(c->v, s->type, place(s, c, slots[r], p, h / group) + (size_t)i);
                    want += term, size += fabs(term);
                }
                wrong += !(fabs((double)out[(r * s->n_heads + h) * s->d + i] - want) <= relative * size);
            }
        }
    free(w);
    return wrong;
}

static float *queries(const struct setup *s, int64_t n, float gain) {
    size_t all = (size_t)n * (size_t)(s->n_heads * s->d);
    float *q = twin_alloc(all * 4);
    for (size_t i = 0; i < all; i++) q[i] = gain * (float)pva_rng_normal(3, PVA_RNG_WEIGHTS, 9, 0, (uint32_t)i);
    return q;
}

static void check(const struct setup *s, const int32_t *slots, const int32_t *positions, int64_t n, float gain) {
    struct cache c;
    cache_open(s, &c);
    size_t cols = (size_t)(s->n_heads * s->d), all = (size_t)n * cols;
    float *q = queries(s, n, gain), *out = twin_alloc(all * 4), *alone = twin_alloc(cols * 4), *cpu = twin_alloc(all * 4);
    uint16_t *out16 = twin_alloc(all * 2), *rounded = twin_alloc(all * 2);
    for (int o = 0; twin_order(o); o++) {
        run(s, &c, q, slots, positions, n, out, PVA_F32, 0);
        CHECK_INT(count_wrong(s, &c, q, slots, positions, n, out), 0);
        if (n > 8) break;
    }
    run_cpu(s, &c, q, slots, positions, n, cpu);
    CHECK_INT(count_wrong(s, &c, q, slots, positions, n, cpu), 0);
    run(s, &c, q, slots, positions, n, out16, PVA_BF16, 0);
    for (size_t i = 0; i < all; i++) rounded[i] = pva_f32_to_bf16(out[i]);
    CHECK_INT(twin_differ_bits_bf16(out16, rounded, all), 0);
    for (int64_t r = 0; r < n; r += n > 20 ? 11 : 1) {
        run(s, &c, q + r * (int64_t)cols, slots + r, positions + r, 1, alone, PVA_F32, 0);
        CHECK_INT(twin_differ_bits(alone, out + r * (int64_t)cols, cols), 0);
    }
    cache_close(&c);
    free(q), free(out), free(alone), free(cpu), free(out16), free(rounded);
}

/* A prompt's rows share a block: the last row's NaN, in keys and in values, must not reach the rows before it. */
static void check_not_finite(enum pva_dtype type) {
    enum { N = 13, COLS = 4 * 16 };
    const struct setup s = {4, 2, 16, 8, 1, 4, 0, 50, type, {N}};
    int32_t slots[N] = {0}, positions[N];
    float clean[N * COLS], out[N * COLS];
    for (int i = 0; i < N; i++) positions[i] = i;
    float *q = queries(&s, N, 1);
    for (int which = 0; which < 3; which++) {
        struct cache c;
        cache_open(&s, &c);
        if (which == 0) {
            run(&s, &c, q, slots, positions, N, clean, PVA_F32, 0);
            cache_close(&c);
            continue;
        }
        put(which == 1 ? c.k : c.v, type, place(&s, &c, 0, N - 1, 1) + 3, NAN);
        CHECK_CUDA(cudaMemcpy(which == 1 ? c.dk.p : c.dv.p, which == 1 ? c.k : c.v, c.bytes, cudaMemcpyHostToDevice));
        run(&s, &c, q, slots, positions, N, out, PVA_F32, 0);
        CHECK_INT(twin_differ_bits(out, clean, (N - 1) * COLS), 0);
        CHECK(isnan(out[(N - 1) * COLS + 2 * 16 + 3]));
        CHECK(!isnan(out[(N - 1) * COLS + 3]));
        cache_close(&c);
    }
    free(q);
}

/* Pages and slots that do not exist are faults, and nothing else is touched (the fences and the sanitizer see it). */
static void check_faults(void) {
    const struct setup s = {2, 1, 8, 4, 1, 4, 0, 0, PVA_F32, {7}};
    struct cache c;
    cache_open(&s, &c);
    float *q = queries(&s, 1, 1), out[16];
    run(&s, &c, q, (int32_t[]){0}, (int32_t[]){9}, 1, out, PVA_F32, PVA_FAULT_PAGE);
    run(&s, &c, q, (int32_t[]){1}, (int32_t[]){3}, 1, out, PVA_F32, PVA_FAULT_PAGE);
    run(&s, &c, q, (int32_t[]){-1}, (int32_t[]){3}, 1, out, PVA_F32, PVA_FAULT_PAGE);
    run(&s, &c, q, (int32_t[]){0}, (int32_t[]){400}, 1, out, PVA_F32, PVA_FAULT_PAGE);
    run(&s, &c, q, (int32_t[]){0}, (int32_t[]){-3}, 1, out, PVA_F32, PVA_FAULT_PAGE);
    cache_close(&c);
    free(q);
}

/* The oracle sees a window one too wide, a missing soft-cap, the wrong head, an unwritten element. */
static void check_teeth(void) {
    struct setup s = {4, 2, 16, 8, 1, 8, 5, 5, PVA_F32, {40}}, other;
    int32_t slots[1] = {0}, positions[1] = {37};
    struct cache c;
    cache_open(&s, &c);
    float *q = queries(&s, 1, 12), out[64];
    run(&s, &c, q, slots, positions, 1, out, PVA_F32, 0);
    CHECK_INT(count_wrong(&s, &c, q, slots, positions, 1, out), 0);
    for (int i = 0; i < 3; i++) {
        other = s;
        if (i == 0) other.window = 6;
        if (i == 1) other.softcap = 0;
        if (i == 2) other.n_kv_heads = 1;
        CHECK(count_wrong(&other, &c, q, slots, positions, 1, out) > 30);
    }
    out[17] = NAN;
    CHECK_INT(count_wrong(&s, &c, q, slots, positions, 1, out), 1);
    cache_close(&c);
    free(q);
}

int main(void) {
    twin_start();
    twin_check_comparators();
    for (int bf16 = 0; bf16 < 2; bf16++) {
        enum pva_dtype t = bf16 ? PVA_BF16 : PVA_F32;
        /* one position; primes and odd heads; ragged slots in no order */
        check(&(struct setup){1, 1, 2, 32, 1, 1, 0, 0, t, {1}}, (int32_t[]){0}, (int32_t[]){0}, 1, 1);
        check(&(struct setup){6, 2, 18, 5, 3, 20, 0, 50, t, {31, 97, 2}}, (int32_t[]){1, 0, 2, 1}, (int32_t[]){95, 30, 1, 96}, 4, 1);
        check(&(struct setup){5, 1, 22, 7, 2, 9, 11, 5, t, {53, 60}}, (int32_t[]){0, 1, 1}, (int32_t[]){52, 10, 11}, 3, 8);
        /* Gemma's heads, decoding, two parts, window inside and across */
        check(&(struct setup){4, 2, 256, 32, 2, 16, 0, 50, t, {300, 258}}, (int32_t[]){0, 1}, (int32_t[]){299, 257}, 2, 4);
        check(&(struct setup){4, 2, 256, 32, 1, 16, 40, 50, t, {300}}, (int32_t[]){0, 0}, (int32_t[]){275, 276}, 2, 4);
    }
    /* A prompt across the border of two parts beside a decoding row, in few blocks and (many heads) in enough that no part is split off. */
    int32_t slots[61], positions[61];
    for (int i = 0; i < 60; i++) slots[i] = 0, positions[i] = 220 + i;
    slots[60] = 1, positions[60] = 299;
    check(&(struct setup){4, 2, 16, 32, 2, 10, 0, 50, PVA_BF16, {280, 300}}, slots, positions, 61, 3);
    check(&(struct setup){4, 2, 16, 32, 2, 10, 23, 0, PVA_BF16, {280, 300}}, slots, positions, 61, 3);
    check(&(struct setup){10, 5, 8, 32, 2, 10, 0, 50, PVA_BF16, {280, 300}}, slots, positions, 61, 3);
    check(&(struct setup){5, 5, 8, 32, 2, 10, 100, 0, PVA_F32, {280, 300}}, slots, positions, 61, 3);
    check_not_finite(PVA_F32), check_not_finite(PVA_BF16);
    check_faults();
    check_teeth();
    return check_report("twin_attention");
}
