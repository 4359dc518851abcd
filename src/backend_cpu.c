/* backend_cpu.c - the table of operations on the CPU: checks shapes, divides rows among threads, calls the row code of the chosen
 * instruction set. Every operation has finished when it returns, so sync has nothing to wait for. */
#include "cpu_isa.h"
#include "cpu_linear.h"
#include "cpu_maxt.h"
#include "cpu_rows.h"
#include "cpu_sae.h"
#include "pva/backend.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct pva_buffer {
    char *data;
    size_t bytes, mapped; /* mapped: bytes of our own mapping, 0 for bound memory */
};

struct pva_backend {
    int n_threads;
    enum cpu_isa isa;
    const struct cpu_rows *rows;
    struct cpu_scratch linear_scratch;
    size_t used, limit;

    float *scores; /* attention scratch: [n_threads, scores_each] */
    size_t scores_each;

    float *cosines, *sines; /* [rope_positions, rope_half] of the last theta and head size asked for */
    int64_t rope_positions, rope_half;
    float rope_theta;
};

/* Below this many elements a parallel region costs more than it saves. */
enum { ELEMENTS_WORTH_THREADS = 1 << 15 };
#define THREADS(be, elements) num_threads((elements) >= ELEMENTS_WORTH_THREADS ? (be)->n_threads : 1)

static size_t tensor_bytes(struct pva_tensor t) { return (size_t)t.rows * (size_t)t.cols * pva_dtype_size(t.dtype); }

static void *data_of(struct pva_tensor t) {
    PVA_ASSERT(t.buffer && t.rows >= 0 && t.cols >= 0 && t.offset + tensor_bytes(t) <= t.buffer->bytes);
    return t.buffer->data + t.offset;
}

static float *f32_of(struct pva_tensor t) {
    PVA_ASSERT(t.dtype == PVA_F32);
    return data_of(t);
}

static int32_t *i32_of(struct pva_tensor t, int64_t n) {
    PVA_ASSERT(t.dtype == PVA_I32 && t.rows == n && t.cols == 1);
    return data_of(t);
}

/* An output that may be float32 or bfloat16: one of the two pointers is set. */
struct either {
    float *f32;
    uint16_t *bf16;
};
static struct either either_of(struct pva_tensor t) {
    PVA_ASSERT(t.dtype == PVA_F32 || t.dtype == PVA_BF16);
    void *p = data_of(t);
    return t.dtype == PVA_F32 ? (struct either){p, NULL} : (struct either){NULL, p};
}
static float *f32_at(struct either e, int64_t i) { return e.f32 ? e.f32 + i : NULL; }
static uint16_t *bf16_at(struct either e, int64_t i) { return e.bf16 ? e.bf16 + i : NULL; }

/* ---- device ---- */

static int cpu_open(const struct pva_backend_settings *settings, struct pva_backend **out, struct pva_error *err) {
    enum cpu_isa isa = cpu_isa_best();
    if (settings->isa && cpu_isa_parse(settings->isa, &isa, err)) return err->code;
    struct pva_backend *be = calloc(1, sizeof *be);
    if (!be) return pva_fail(err, PVA_IO, "out of memory");
    be->n_threads = settings->n_threads > 0 ? settings->n_threads : omp_get_max_threads();
    be->isa = isa;
    be->rows = isa == CPU_C ? &cpu_rows_c : isa == CPU_AVX2 ? &cpu_rows_avx2 : &cpu_rows_avx512;
    be->limit = settings->memory_limit;
    *out = be;
    return PVA_OK;
}

static void cpu_close(struct pva_backend **be) {
    if (!*be) return;
    cpu_scratch_free(&(*be)->linear_scratch);
    free((*be)->scores);
    free((*be)->cosines);
    free((*be)->sines);
    free(*be);
    *be = NULL;
}

static void processor_name(char *out, size_t size) {
    char line[256];
    snprintf(out, size, "CPU");
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (!f) return;
    while (fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        colon[strcspn(colon, "\n")] = 0;
        snprintf(out, size, "%s", colon + 2);
        break;
    }
    fclose(f);
}

static void cpu_describe(const struct pva_backend *be, struct pva_backend_info *info) {
    memset(info, 0, sizeof *info);
    char name[64];
    processor_name(name, sizeof name);
    snprintf(info->isa, sizeof info->isa, "%s", cpu_isa_name(be->isa));
    snprintf(info->device, sizeof info->device, "%s (%s, %d thread%s)", name, info->isa, be->n_threads, be->n_threads > 1 ? "s" : "");
    info->n_threads = be->n_threads;
    info->memory_total = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    info->memory_used = be->used;
}

/* ---- memory ---- */

static int cpu_alloc(struct pva_backend *be, size_t bytes, struct pva_buffer **out, struct pva_error *err) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), mapped = (bytes + page - 1) / page * page;
    if (mapped < bytes || mapped == 0) mapped = page;
    if (be->limit && (be->used > be->limit || mapped > be->limit - be->used))
        return pva_fail(err, PVA_IO, "%.2f GiB more would pass the memory limit of %.2f GiB (%.2f GiB in use)", (double)bytes / 0x1p30,
                        (double)be->limit / 0x1p30, (double)be->used / 0x1p30);
    struct pva_buffer *b = calloc(1, sizeof *b);
    void *data = b ? mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
    if (data == MAP_FAILED) {
        free(b);
        return pva_fail(err, PVA_IO, "no %.2f GiB of memory: %s", (double)bytes / 0x1p30, strerror(errno));
    }
    if (mapped >= 4u << 20) madvise(data, mapped, MADV_HUGEPAGE);
    *b = (struct pva_buffer){data, bytes, mapped};
    be->used += mapped;
    *out = b;
    return PVA_OK;
}

static int cpu_bind(struct pva_backend *be, const void *host, size_t bytes, struct pva_buffer **out, struct pva_error *err) {
    (void)be;
    struct pva_buffer *b = calloc(1, sizeof *b);
    if (!b) return pva_fail(err, PVA_IO, "out of memory");
    *b = (struct pva_buffer){(char *)host, bytes, 0};
    *out = b;
    return PVA_OK;
}

static void cpu_free(struct pva_backend *be, struct pva_buffer **buffer) {
    if (!*buffer) return;
    if ((*buffer)->mapped) {
        munmap((*buffer)->data, (*buffer)->mapped);
        be->used -= (*buffer)->mapped;
    }
    free(*buffer);
    *buffer = NULL;
}

static int cpu_upload(struct pva_backend *be, struct pva_tensor dst, const void *host, struct pva_error *err) {
    (void)be, (void)err;
    if (tensor_bytes(dst)) memcpy(data_of(dst), host, tensor_bytes(dst));
    return PVA_OK;
}

static int cpu_download(struct pva_backend *be, struct pva_tensor src, void *host, struct pva_error *err) {
    (void)be, (void)err;
    if (tensor_bytes(src)) memcpy(host, data_of(src), tensor_bytes(src));
    return PVA_OK;
}

static int cpu_sync(struct pva_backend *be, struct pva_error *err) {
    (void)be, (void)err;
    return PVA_OK;
}

/* The copy is made at once: there is nothing that would go on beside it. */
struct pva_readback {
    size_t bytes;
    char host[];
};

static int cpu_readback_open(struct pva_backend *be, size_t bytes, struct pva_readback **out, struct pva_error *err) {
    (void)be;
    *out = malloc(sizeof **out + bytes);
    if (!*out) return pva_fail(err, PVA_IO, "out of memory");
    (*out)->bytes = bytes;
    return PVA_OK;
}
static int cpu_readback_begin(struct pva_backend *be, struct pva_readback *r, struct pva_tensor src, struct pva_error *err) {
    PVA_ASSERT(tensor_bytes(src) <= r->bytes);
    return cpu_download(be, src, r->host, err);
}
static int cpu_readback_wait(struct pva_backend *be, struct pva_readback *r, const void **host, struct pva_error *err) {
    (void)be, (void)err;
    *host = r->host;
    return PVA_OK;
}
static void cpu_readback_close(struct pva_backend *be, struct pva_readback **r) {
    (void)be;
    free(*r);
    *r = NULL;
}

static int cpu_convert(struct pva_backend *be, struct pva_tensor src, struct pva_tensor dst, struct pva_error *err) {
    (void)err;
    enum { PIECE = 1 << 14 };
    int64_t n = src.rows * src.cols, pieces = (n + PIECE - 1) / PIECE;
    PVA_ASSERT(n == dst.rows * dst.cols);
    const struct pva_tensor_view view = {.dtype = src.dtype, .n_elements = n, .bytes = tensor_bytes(src), .data = data_of(src)};
    struct either y = either_of(dst);
#pragma omp parallel for THREADS(be, n) schedule(static)
    for (int64_t p = 0; p < pieces; p++) {
        float piece[PIECE];
        int64_t first = p * PIECE, count = n - first < PIECE ? n - first : PIECE;
        if (y.f32) {
            pva_tensor_to_f32(&view, first, count, y.f32 + first);
        } else {
            pva_tensor_to_f32(&view, first, count, piece);
            be->rows->to_bf16(piece, count, y.bf16 + first);
        }
    }
    return PVA_OK;
}

/* ---- the transformer ---- */

static int cpu_embed(struct pva_backend *be, struct pva_tensor ids, struct pva_tensor table, float scale, int round_bf16, struct pva_tensor y,
                     struct pva_error *err) {
    int64_t n = y.rows, d = y.cols;
    PVA_ASSERT(table.cols == d && (table.dtype == PVA_F32 || table.dtype == PVA_BF16));
    const int32_t *id = i32_of(ids, n);
    const char *weights = data_of(table);
    float *out = f32_of(y);
    size_t element = pva_dtype_size(table.dtype);
    for (int64_t i = 0; i < n; i++)
        if (id[i] < 0 || id[i] >= table.rows)
            return pva_fail(err, PVA_INPUT, "token id %d is outside the vocabulary of %lld", id[i], (long long)table.rows);
#pragma omp parallel for THREADS(be, n * d) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const struct pva_tensor_view row = {.dtype = table.dtype, .n_elements = d, .data = weights + (size_t)id[i] * (size_t)d * element};
        pva_tensor_to_f32(&row, 0, d, out + i * d);
        for (int64_t j = 0; j < d; j++) {
            float v = out[i * d + j] * scale;
            out[i * d + j] = round_bf16 ? pva_bf16_to_f32(pva_f32_to_bf16(v)) : v;
        }
    }
    return PVA_OK;
}

static int cpu_rmsnorm(struct pva_backend *be, struct pva_tensor x, struct pva_tensor w, float eps, struct pva_tensor y, struct pva_error *err) {
    (void)err;
    int64_t n = x.rows, d = x.cols;
    PVA_ASSERT(w.rows == 1 && w.cols == d && y.rows == n && y.cols == d);
    const float *in = f32_of(x), *weight = f32_of(w);
    struct either out = either_of(y);
#pragma omp parallel for THREADS(be, n * d) schedule(static)
    for (int64_t i = 0; i < n; i++) be->rows->rmsnorm(in + i * d, weight, eps, d, f32_at(out, i * d), bf16_at(out, i * d), NULL);
    return PVA_OK;
}

static int cpu_rmsnorm_add(struct pva_backend *be, struct pva_tensor x, struct pva_tensor w, float eps, struct pva_tensor resid,
                           struct pva_error *err) {
    (void)err;
    int64_t n = x.rows, d = x.cols;
    PVA_ASSERT(w.rows == 1 && w.cols == d && resid.rows == n && resid.cols == d);
    const float *in = f32_of(x), *weight = f32_of(w);
    float *out = f32_of(resid);
#pragma omp parallel for THREADS(be, n * d) schedule(static)
    for (int64_t i = 0; i < n; i++) be->rows->rmsnorm(in + i * d, weight, eps, d, NULL, NULL, out + i * d);
    return PVA_OK;
}

static int cpu_rmsnorm_add_rmsnorm(struct pva_backend *be, struct pva_tensor x, struct pva_tensor w, struct pva_tensor w_next, float eps,
                                   struct pva_tensor resid, struct pva_tensor y, struct pva_error *err) {
    return cpu_rmsnorm_add(be, x, w, eps, resid, err) || cpu_rmsnorm(be, resid, w_next, eps, y, err) ? err->code : PVA_OK;
}

static int cpu_linear_op(struct pva_backend *be, struct pva_tensor x, struct pva_tensor w, struct pva_tensor y, struct pva_error *err) {
    PVA_ASSERT(x.cols == w.cols && y.rows == x.rows && y.cols == w.rows);
    (void)err;
    int64_t products = x.rows * x.cols * w.rows;
    const struct cpu_linear_args args = {
        .x = data_of(x), .x_type = x.dtype, .w = data_of(w), .w_type = w.dtype, .y = f32_of(y), .n = x.rows, .k = x.cols, .m = w.rows,
        .isa = be->isa, .n_threads = products >= 8 * ELEMENTS_WORTH_THREADS ? be->n_threads : 1, .scratch = &be->linear_scratch,
    };
    cpu_linear(&args);
    return PVA_OK;
}

static int cpu_linears(struct pva_backend *be, struct pva_tensor x, const struct pva_tensor *w, const struct pva_tensor *y, int count, struct pva_error *err) {
    PVA_ASSERT(count <= PVA_MOST_LINEARS);
    for (int i = 0; i < count; i++)
        if (cpu_linear_op(be, x, w[i], y[i], err)) return err->code;
    return PVA_OK;
}

/* Angles as the reference takes them: exponent, power and product each rounded to float32. */
static int rope_table(struct pva_backend *be, int64_t positions, int64_t half, float theta, struct pva_error *err) {
    if (positions <= be->rope_positions && half == be->rope_half && theta == be->rope_theta) return PVA_OK;
    positions = (positions + 1023) / 1024 * 1024;
    size_t bytes = (size_t)(positions * half) * sizeof(float);
    float *cosines = malloc(bytes), *sines = malloc(bytes);
    if (!cosines || !sines) {
        free(cosines);
        free(sines);
        return pva_fail(err, PVA_IO, "out of memory for %lld positions", (long long)positions);
    }
    for (int64_t i = 0; i < half; i++) {
        float exponent = (float)(2 * i) / (float)(2 * half), inverse = 1.0f / (float)pow(theta, exponent);
        for (int64_t p = 0; p < positions; p++) {
            double angle = (float)p * inverse;
            cosines[p * half + i] = (float)cos(angle);
            sines[p * half + i] = (float)sin(angle);
        }
    }
    free(be->cosines);
    free(be->sines);
    be->cosines = cosines, be->sines = sines;
    be->rope_positions = positions, be->rope_half = half, be->rope_theta = theta;
    return PVA_OK;
}

static void rotate(float *v, const float *cosines, const float *sines, int64_t half) {
    for (int64_t i = 0; i < half; i++) {
        float a = v[i], b = v[i + half];
        v[i] = a * cosines[i] - b * sines[i];
        v[i + half] = b * cosines[i] + a * sines[i];
    }
}

static size_t kv_offset(const struct pva_kv_cache *kv, int layer, int64_t page, int head, int64_t row) {
    size_t per_head = (size_t)kv->page_size * (size_t)kv->d_head;
    return (((size_t)layer * (size_t)kv->n_pages + (size_t)page) * (size_t)kv->n_kv_heads + (size_t)head) * per_head + (size_t)row * (size_t)kv->d_head;
}

static void kv_store(const struct cpu_rows *rows, struct pva_tensor cache, size_t at, const float *v, int d) {
    if (cache.dtype == PVA_BF16) rows->to_bf16(v, d, (uint16_t *)data_of(cache) + at);
    else memcpy((float *)data_of(cache) + at, v, (size_t)d * sizeof *v);
}

static const int32_t *slot_pages(const struct pva_kv_cache *kv, int32_t slot, int64_t position) {
    PVA_ASSERT(slot >= 0 && slot < kv->page_table.rows && position >= 0 && position / kv->page_size < kv->page_table.cols);
    return (const int32_t *)data_of(kv->page_table) + slot * kv->page_table.cols;
}

static int cpu_rope_store(struct pva_backend *be, struct pva_tensor q, struct pva_tensor k, struct pva_tensor v, struct pva_tensor slots,
                          struct pva_tensor positions, float theta, const struct pva_attention_shape *shape, const struct pva_kv_cache *kv,
                          int layer, struct pva_error *err) {
    int64_t n = q.rows, half = shape->d_head / 2, last = 0;
    int d = shape->d_head;
    PVA_ASSERT(d % 2 == 0 && q.cols == shape->n_heads * d && k.cols == shape->n_kv_heads * d && v.cols == k.cols && k.rows == n && v.rows == n);
    PVA_ASSERT(kv->d_head == d && kv->n_kv_heads == shape->n_kv_heads && layer >= 0 && layer < kv->n_layers);
    const int32_t *slot = i32_of(slots, n), *position = i32_of(positions, n);
    for (int64_t i = 0; i < n; i++)
        if (position[i] > last) last = position[i];
    if (rope_table(be, last + 1, half, theta, err)) return err->code;
    float *q_data = f32_of(q), *k_data = f32_of(k), *v_data = f32_of(v);
#pragma omp parallel for THREADS(be, n * q.cols) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const float *cosines = be->cosines + position[i] * half, *sines = be->sines + position[i] * half;
        int64_t page = slot_pages(kv, slot[i], position[i])[position[i] / kv->page_size], row = position[i] % kv->page_size;
        PVA_ASSERT(page >= 0 && page < kv->n_pages);
        for (int h = 0; h < shape->n_heads; h++) rotate(q_data + i * q.cols + h * d, cosines, sines, half);
        for (int h = 0; h < shape->n_kv_heads; h++) {
            size_t at = kv_offset(kv, layer, page, h, row);
            rotate(k_data + i * k.cols + h * d, cosines, sines, half);
            kv_store(be->rows, kv->k, at, k_data + i * k.cols + h * d, d);
            kv_store(be->rows, kv->v, at, v_data + i * v.cols + h * d, d);
        }
    }
    return PVA_OK;
}

static int64_t first_visible(int64_t position, int window) { return window > 0 && position >= window ? position - window + 1 : 0; }

static int cpu_attention(struct pva_backend *be, struct pva_tensor q, struct pva_tensor slots, struct pva_tensor positions,
                         const struct pva_attention_shape *shape, const struct pva_kv_cache *kv, int layer, struct pva_tensor out,
                         struct pva_error *err) {
    int64_t n = q.rows, longest = 0, work = 0;
    int d = shape->d_head, group = shape->n_heads / shape->n_kv_heads;
    PVA_ASSERT(q.cols == shape->n_heads * d && out.rows == n && out.cols == q.cols && layer >= 0 && layer < kv->n_layers);
    const int32_t *slot = i32_of(slots, n), *position = i32_of(positions, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t seen = position[i] - first_visible(position[i], shape->window) + 1;
        if (seen > longest) longest = seen;
        work += seen * q.cols;
    }
    int64_t capacity = (longest + 2 * 16 - 1) / 16 * 16;
    if ((size_t)(capacity * group) > be->scores_each) {
        size_t each = (size_t)(capacity * group) * 2;
        float *scores = malloc(each * (size_t)be->n_threads * sizeof *scores);
        if (!scores) return pva_fail(err, PVA_IO, "out of memory for attention over %lld positions", (long long)longest);
        free(be->scores);
        be->scores = scores, be->scores_each = each;
    }
    const float *q_data = f32_of(q);
    struct either o = either_of(out);
    size_t element = pva_dtype_size(kv->k.dtype);
    char *k_base = data_of(kv->k), *v_base = data_of(kv->v);
#pragma omp parallel for THREADS(be, work) schedule(dynamic)
    for (int64_t task = 0; task < n * shape->n_kv_heads; task++) {
        int64_t i = task / shape->n_kv_heads;
        int head = (int)(task % shape->n_kv_heads);
        size_t base = kv_offset(kv, layer, 0, head, 0) * element;
        struct cpu_pages pages = {
            .k = k_base + base, .v = v_base + base, .page_stride = kv_offset(kv, 0, 1, 0, 0) * element,
            .table = slot_pages(kv, slot[i], position[i]), .page_size = kv->page_size, .d_head = d, .bf16 = kv->k.dtype == PVA_BF16,
        };
        int64_t at = i * q.cols + (int64_t)head * group * d;
        be->rows->attention(q_data + at, group, &pages, first_visible(position[i], shape->window), position[i], shape->scale, shape->softcap,
                            be->scores + (size_t)omp_get_thread_num() * be->scores_each, capacity, f32_at(o, at), bf16_at(o, at));
    }
    return PVA_OK;
}

static int cpu_geglu(struct pva_backend *be, struct pva_tensor gate, struct pva_tensor up, struct pva_tensor y, struct pva_error *err) {
    (void)err;
    int64_t n = gate.rows, d = gate.cols;
    PVA_ASSERT(up.rows == n && up.cols == d && y.rows == n && y.cols == d);
    const float *g = f32_of(gate), *u = f32_of(up);
    struct either out = either_of(y);
    enum { PIECE = 4096 };
    int64_t pieces = (n * d + PIECE - 1) / PIECE;
#pragma omp parallel for THREADS(be, n * d) schedule(static)
    for (int64_t p = 0; p < pieces; p++) {
        int64_t at = p * PIECE, count = n * d - at < PIECE ? n * d - at : PIECE;
        be->rows->geglu(g + at, u + at, count, f32_at(out, at), bf16_at(out, at));
    }
    return PVA_OK;
}

static int cpu_gather_rows(struct pva_backend *be, struct pva_tensor src, struct pva_tensor rows, struct pva_tensor dst, struct pva_error *err) {
    (void)be, (void)err;
    PVA_ASSERT(src.cols == dst.cols);
    const int32_t *row = i32_of(rows, dst.rows);
    const float *in = f32_of(src);
    float *out = f32_of(dst);
    for (int64_t i = 0; i < dst.rows; i++) {
        PVA_ASSERT(row[i] >= 0 && row[i] < src.rows);
        memcpy(out + i * dst.cols, in + row[i] * src.cols, (size_t)src.cols * sizeof *in);
    }
    return PVA_OK;
}

static int cpu_add_direction(struct pva_backend *be, struct pva_tensor x, struct pva_tensor directions, struct pva_tensor which,
                             struct pva_tensor coefficients, struct pva_error *err) {
    (void)err;
    PVA_ASSERT(directions.cols == x.cols && coefficients.rows == x.rows && coefficients.cols == 1);
    const int32_t *w = i32_of(which, x.rows);
    const float *c = f32_of(coefficients), *d = f32_of(directions);
    float *data = f32_of(x);
    for (int64_t i = 0; i < x.rows; i++) {
        PVA_ASSERT(w[i] < directions.rows);
        if (w[i] >= 0) be->rows->add_scaled(data + i * x.cols, d + w[i] * x.cols, c[i], x.cols);
    }
    return PVA_OK;
}

static int cpu_ablate_direction(struct pva_backend *be, struct pva_tensor x, struct pva_tensor directions, struct pva_tensor which,
                                struct pva_error *err) {
    (void)err;
    PVA_ASSERT(directions.cols == x.cols);
    const int32_t *w = i32_of(which, x.rows);
    const float *d = f32_of(directions);
    float *data = f32_of(x);
    for (int64_t i = 0; i < x.rows; i++) {
        PVA_ASSERT(w[i] < directions.rows);
        if (w[i] >= 0) be->rows->ablate(data + i * x.cols, d + w[i] * x.cols, x.cols);
    }
    return PVA_OK;
}

static int cpu_softcap(struct pva_backend *be, struct pva_tensor logits, float cap, struct pva_error *err) {
    (void)err;
    float *x = f32_of(logits);
    enum { PIECE = 8192 };
    int64_t n = logits.rows * logits.cols, pieces = (n + PIECE - 1) / PIECE;
#pragma omp parallel for THREADS(be, n) schedule(static)
    for (int64_t p = 0; p < pieces; p++) be->rows->softcap(x + p * PIECE, n - p * PIECE < PIECE ? n - p * PIECE : PIECE, cap);
    return PVA_OK;
}

static int32_t argmax(const float *x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(x[i])) return -1;
        if (x[i] > x[best]) best = i;
    }
    return (int32_t)best;
}

static int32_t draw_token(const struct cpu_rows *rows, const float *x, int64_t n, float temperature, double draw) {
    enum { PIECE = 1024 };
    int64_t top = argmax(x, n), pieces = (n + PIECE - 1) / PIECE, last = -1;
    if (top < 0 || temperature <= 0) return (int32_t)top;
    double total = 0, below = 0;
    for (int64_t p = 0; p < pieces; p++)
        total += rows->sum_exp(x + p * PIECE, n - p * PIECE < PIECE ? n - p * PIECE : PIECE, x[top], temperature);
    double target = draw * total;
    for (int64_t p = 0; p < pieces; p++) {
        int64_t first = p * PIECE, count = n - first < PIECE ? n - first : PIECE;
        double piece = rows->sum_exp(x + first, count, x[top], temperature);
        if (below + piece <= target && p + 1 < pieces) {
            below += piece;
            continue;
        }
        float weight[PIECE];
        rows->exp_scaled(x + first, count, x[top], temperature, weight);
        for (int64_t i = 0; i < count; i++) {
            below += weight[i];
            if (weight[i] > 0) last = first + i;
            if (below > target) return (int32_t)last;
        }
        if (last >= 0) return (int32_t)last; /* the piece's sum and its elements' differ in the last bits: its last id is meant */
    }
    return (int32_t)top;
}

static int cpu_sample(struct pva_backend *be, struct pva_tensor logits, struct pva_tensor temperatures, struct pva_tensor draws,
                      struct pva_tensor tokens, struct pva_error *err) {
    (void)err;
    int64_t n = logits.rows, v = logits.cols;
    PVA_ASSERT(v > 0 && temperatures.rows == n && draws.rows == n && draws.dtype == PVA_F64);
    const float *x = f32_of(logits), *temperature = f32_of(temperatures);
    const double *draw = data_of(draws);
    int32_t *token = i32_of(tokens, n);
#pragma omp parallel for THREADS(be, n * v) schedule(static)
    for (int64_t i = 0; i < n; i++) token[i] = draw_token(be->rows, x + i * v, v, temperature[i], draw[i]);
    return PVA_OK;
}

static int cpu_jumprelu_encode(struct pva_backend *be, struct pva_tensor x, const struct pva_jumprelu *sae, struct pva_tensor indices,
                               struct pva_tensor values, struct pva_tensor tallies, struct pva_error *err) {
    int64_t n = x.rows, d = x.cols, m = sae->w_enc.cols;
    PVA_ASSERT(sae->w_enc.dtype == PVA_F32 && sae->w_enc.rows == d && sae->b_enc.cols == m && sae->threshold.cols == m);
    PVA_ASSERT(sae->first >= 0 && sae->count >= 0 && sae->first <= m && sae->count <= m - sae->first);
    PVA_ASSERT(indices.dtype == PVA_I32 && indices.rows == n && indices.cols == sae->count && values.rows == n && values.cols == sae->count);
    PVA_ASSERT(tallies.dtype == PVA_I32 && tallies.rows == n && tallies.cols == PVA_JUMPRELU_TALLIES);
    const struct cpu_sae_args args = {
        .x = f32_of(x), .n = n, .d = d, .w = (const char *)data_of(sae->w_enc) + sae->first * (int64_t)sizeof(float), .stride = m, .first = sae->first,
        .count = sae->count, .bias = f32_of(sae->b_enc) + sae->first, .threshold = f32_of(sae->threshold) + sae->first, .indices = data_of(indices),
        .values = f32_of(values), .tallies = data_of(tallies), .n_threads = be->n_threads, .isa = be->isa,
    };
    return cpu_sae_encode(&args, err);
}

static int cpu_maxt(struct pva_backend *be, const struct pva_maxt *m, struct pva_tensor labels, int64_t n, struct pva_tensor n_at_least,
                    struct pva_error *err) {
    int64_t blocks = (n + PVA_MAXT_BLOCK - 1) / PVA_MAXT_BLOCK;
    PVA_ASSERT(m->sets.dtype == PVA_U64 && m->groups.dtype == PVA_I32 && m->groups.cols == PVA_MAXT_GROUP && m->scores.dtype == PVA_F64 && m->scores.cols == 1);
    PVA_ASSERT(labels.dtype == PVA_U64 && labels.cols == PVA_MAXT_BLOCK && labels.rows == blocks * m->sets.cols);
    PVA_ASSERT(n_at_least.dtype == PVA_I64 && n_at_least.rows == m->scores.rows && n_at_least.cols == 1);
    const struct cpu_maxt_args args = {
        .sets = data_of(m->sets), .n_words = m->sets.cols, .groups = data_of(m->groups), .n_groups = m->groups.rows, .scores = data_of(m->scores),
        .n_levels = m->scores.rows, .n_items = m->n_items, .n1 = m->n1, .studentised = m->studentised, .labels = data_of(labels), .n = n,
        .n_at_least = data_of(n_at_least), .n_threads = be->n_threads,
    };
    return cpu_maxt_count(&args, err);
}

const struct pva_backend_ops pva_backend_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .alloc = cpu_alloc,
    .bind = cpu_bind,
    .free = cpu_free,
    .upload = cpu_upload,
    .download = cpu_download,
    .sync = cpu_sync,
    .readback_open = cpu_readback_open,
    .readback_begin = cpu_readback_begin,
    .readback_wait = cpu_readback_wait,
    .readback_close = cpu_readback_close,
    .convert = cpu_convert,
    .embed = cpu_embed,
    .rmsnorm = cpu_rmsnorm,
    .rmsnorm_add = cpu_rmsnorm_add,
    .rmsnorm_add_rmsnorm = cpu_rmsnorm_add_rmsnorm,
    .linear = cpu_linear_op,
    .linears = cpu_linears,
    .rope_store = cpu_rope_store,
    .attention = cpu_attention,
    .geglu = cpu_geglu,
    .gather_rows = cpu_gather_rows,
    .add_direction = cpu_add_direction,
    .ablate_direction = cpu_ablate_direction,
    .softcap = cpu_softcap,
    .sample = cpu_sample,
    .jumprelu_encode = cpu_jumprelu_encode,
    .maxt_count = cpu_maxt,
};
