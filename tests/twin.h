/* twin.h - what a twin test needs: fenced device memory full of NaN, and comparators that cannot be satisfied by accident.
 *
 * A twin runs an operation on the CPU and by its kernel and compares. The same source is linked with the kernels built for the CPU
 * (tests/simt, under sanitizers) and, on a machine with a GPU, with the real ones. */
#ifndef TWIN_H
#define TWIN_H

#include "check.h"
#include "kernels.h"
#include "pva/backend.h"
#include "pva/rng.h"

#include <cuda_runtime.h>

#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#define TWIN_FENCE(p, bytes) __asan_poison_memory_region(p, bytes)
#define TWIN_OPEN(p, bytes) __asan_unpoison_memory_region(p, bytes)
#else
#define TWIN_FENCE(p, bytes) ((void)0)
#define TWIN_OPEN(p, bytes) ((void)0)
#endif

#define CHECK_CUDA(call) CHECK_INT(call, cudaSuccess)

enum { TWIN_FENCE_BYTES = 256, TWIN_POISON = 0xff }; /* 0xff bytes are a NaN in every float type, and -1 */

/* Bytes that every buffer's start is moved from a multiple of 256: what a window on a larger buffer may do. */
static size_t twin_shift;

struct twin_buffer {
    char *base, *p; /* device memory; fences before p and after p + bytes */
    size_t bytes, total;
};

static inline void twin_start(void) {
    int n = 0;
    cudaError_t status = cudaGetDeviceCount(&n);
    if (status == cudaSuccess && n > 0) return;
    printf("SKIP no CUDA device: %s\n", status ? cudaGetErrorString(status) : "none found");
    exit(77);
}

/* for (int i = 0; twin_order(i); i++) checks: on the CPU once for each order of threads (a race changes the result), on a device once. */
static inline int twin_order(int i) {
#ifdef PVA_SIMT
    simt_set_order((unsigned)i);
    return i < 3 && !check_failures; /* one order is enough to fail */
#else
    return i < 1;
#endif
}

/* A copy of host memory, or NaN without. */
static inline struct twin_buffer twin_new(const void *host, size_t bytes) {
    struct twin_buffer b = {NULL, NULL, bytes, bytes + 2 * TWIN_FENCE_BYTES + twin_shift};
    CHECK_FATAL(cudaMalloc((void **)&b.base, b.total) == cudaSuccess);
    CHECK_CUDA(cudaMemset(b.base, TWIN_POISON, b.total));
    b.p = b.base + TWIN_FENCE_BYTES + twin_shift;
    if (host && bytes) CHECK_CUDA(cudaMemcpy(b.p, host, bytes, cudaMemcpyHostToDevice));
    TWIN_FENCE(b.base, TWIN_FENCE_BYTES + twin_shift);
    TWIN_FENCE(b.p + bytes, TWIN_FENCE_BYTES);
    return b;
}

static inline int twin_is_poison(const unsigned char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != TWIN_POISON) return 0;
    return 1;
}

/* Waits, copies to the host, and looks at the fences. */
static inline void twin_read(const struct twin_buffer *b, void *host) {
    unsigned char *all = malloc(b->total);
    CHECK_FATAL(all);
    CHECK_CUDA(cudaDeviceSynchronize());
    TWIN_OPEN(b->base, b->total);
    CHECK_CUDA(cudaMemcpy(all, b->base, b->total, cudaMemcpyDeviceToHost));
    TWIN_FENCE(b->base, TWIN_FENCE_BYTES + twin_shift);
    TWIN_FENCE(b->p + b->bytes, TWIN_FENCE_BYTES);
    size_t before = (size_t)(b->p - b->base);
    CHECK(twin_is_poison(all, before));
    CHECK(twin_is_poison(all + before + b->bytes, b->total - before - b->bytes));
    if (host && b->bytes) memcpy(host, all + before, b->bytes);
    free(all);
}

static inline void twin_free(struct twin_buffer *b) {
    TWIN_OPEN(b->base, b->total);
    CHECK_CUDA(cudaFree(b->base));
    *b = (struct twin_buffer){0};
}

/* ---- the CPU backend's side ---- */

static struct pva_backend *twin_backend;
static struct pva_buffer *twin_cpu_buffers[64];
static int twin_n_cpu_buffers;

/* A tensor of the CPU backend with a copy of host memory, zero without. It lives until twin_cpu_clear. */
static inline struct pva_tensor twin_cpu(const void *host, enum pva_dtype dtype, int64_t rows, int64_t cols) {
    struct pva_error err = {0};
    const struct pva_backend_settings settings = {.n_threads = 1};
    if (!twin_backend) CHECK_OK(pva_backend_cpu.open(&settings, &twin_backend, &err), err);
    CHECK_FATAL(twin_n_cpu_buffers < 64);
    struct pva_buffer **b = &twin_cpu_buffers[twin_n_cpu_buffers++];
    CHECK_OK(pva_backend_cpu.alloc(twin_backend, (size_t)(rows * cols) * pva_dtype_size(dtype), b, &err), err);
    struct pva_tensor t = {*b, 0, dtype, rows, cols};
    if (host) CHECK_OK(pva_backend_cpu.upload(twin_backend, t, host, &err), err);
    return t;
}

static inline void twin_cpu_read(struct pva_tensor t, void *host) {
    struct pva_error err = {0};
    CHECK_OK(pva_backend_cpu.download(twin_backend, t, host, &err), err);
}

static inline void twin_cpu_clear(void) {
    while (twin_n_cpu_buffers) pva_backend_cpu.free(twin_backend, &twin_cpu_buffers[--twin_n_cpu_buffers]);
    if (twin_backend) pva_backend_cpu.close(&twin_backend);
}

/* ---- comparators: the number of elements that differ ---- */

/* Bit for bit, but any NaN equals any other. */
static inline size_t twin_differ_bits(const float *a, const float *b, size_t n) {
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++) wrong += !(isnan(a[i]) && isnan(b[i])) && memcmp(a + i, b + i, sizeof *a) != 0;
    return wrong;
}

static inline size_t twin_differ_bits_bf16(const uint16_t *a, const uint16_t *b, size_t n) {
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++) wrong += !(isnan(pva_bf16_to_f32(a[i])) && isnan(pva_bf16_to_f32(b[i]))) && a[i] != b[i];
    return wrong;
}

/* |a - want| <= relative * |want| + absolute. NaN first, then infinities, then the difference; written so that only a proven closeness passes. */
static inline size_t twin_differ(const float *a, const double *want, size_t n, double relative, double absolute) {
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++) {
        if (isnan(want[i])) wrong += !isnan(a[i]);
        else if (isinf(want[i])) wrong += !(a[i] == want[i]);
        else wrong += !(fabs(a[i] - want[i]) <= relative * fabs(want[i]) + absolute);
    }
    return wrong;
}

/* ---- inputs ---- */

/* Normal numbers of this scale, and every 97th a huge, tiny, negative or zero one. */
static inline void twin_fill(float *x, size_t n, uint32_t item, double scale) {
    static const float odd[] = {1e4f, -1e4f, 1e-20f, -1e-30f, 0.0f, -0.0f, 300.0f, -0.5f};
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)(scale * pva_rng_normal(1, PVA_RNG_WEIGHTS, item, 0, (uint32_t)i));
        if (i % 97 == 13) x[i] = odd[i / 97 % 8];
    }
}

/* Zeroed host memory for n elements. */
#define TWIN_ARRAY(type, name, n) type *name = calloc((size_t)(n) + 1, sizeof *name); CHECK_FATAL(name)

static inline void *twin_alloc(size_t bytes) {
    void *p = malloc(bytes ? bytes : 1);
    CHECK_FATAL(p);
    return p;
}

/* The comparators themselves must be able to fail: each twin's main calls this. */
static inline void twin_check_comparators(void) {
    enum { N = 100 };
    float a[N], b[N];
    double want[N];
    uint16_t h[N], g[N];
    for (int i = 0; i < N; i++) a[i] = b[i] = (float)i + 0.5f, want[i] = a[i], h[i] = g[i] = pva_f32_to_bf16(a[i]);
    CHECK_INT(twin_differ_bits(a, b, N) + twin_differ(a, want, N, 1e-6, 0) + twin_differ_bits_bf16(h, g, N), 0);
    const float bad[] = {NAN, INFINITY, -INFINITY, 0, nextafterf(50.5f, 60)};
    for (int k = 0; k < 5; k++) {
        b[50] = bad[k], h[50] = pva_f32_to_bf16(k == 4 ? 50.75f : bad[k]);
        CHECK_INT(twin_differ_bits(b, a, N), 1);
        CHECK_INT(twin_differ_bits(a, b, N), 1);
        CHECK_INT(twin_differ_bits_bf16(h, g, N), 1);
        CHECK_INT(twin_differ(b, want, N, k == 4 ? 1e-8 : 1e-6, 0), 1);
        b[50] = a[50], want[50] = bad[k];
        CHECK_INT(twin_differ(b, want, N, k == 4 ? 1e-8 : 1e-6, 0), 1);
        want[50] = a[50];
    }
    want[50] = a[50] + 1e-4;
    CHECK_INT(twin_differ(a, want, N, 0, 0.9e-4), 1);
}

#endif
