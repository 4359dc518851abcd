#include "cpu_sae.h"

#include "pva/backend.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STREAMED = 16 }; /* rows */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

struct work {
    const struct cpu_sae_args *a;
    const struct cpu_sae_kernel *kernel;
    int64_t width, n_groups; /* latents per group, a multiple of the kernel's width */
    int streaming;
    int32_t *tallies;        /* [n_groups, n, 3] */
    size_t z_floats, pack_floats; /* each thread's scratch */
};

/* Rows k0 .. k0 + k of a group's `count` columns, piece after piece of the kernel's width; what lies beyond the last column is zero. */
static void pack(const struct work *w, const char *from, int64_t k, int64_t count, float *out) {
    int64_t width = w->kernel->width, pieces = (count + width - 1) / width;
    size_t step = (size_t)w->a->stride * sizeof(float);
    for (int64_t i = 0; i < k; i++, from += step) {
        /* The next rows are pages away: no hardware prefetcher finds them. */
        if (i + 8 < k)
            for (int64_t line = 0; line < count; line += 16) __builtin_prefetch(from + 8 * step + line * (int64_t)sizeof(float));
        for (int64_t p = 0; p < pieces; p++) {
            int64_t n = smaller(width, count - p * width);
            float *to = out + (p * k + i) * width;
            memcpy(to, from + p * width * (int64_t)sizeof(float), (size_t)n * sizeof(float));
            if (n < width) memset(to + n, 0, (size_t)(width - n) * sizeof(float));
        }
    }
}

static void compute_group(const struct work *w, int64_t g, float *z, float *packed) {
    const struct cpu_sae_args *a = w->a;
    const struct cpu_sae_kernel *kernel = w->kernel;
    int64_t first = g * w->width, count = smaller(w->width, a->count - first), step = kernel->width;
    for (int64_t k0 = 0; k0 < a->d; k0 += CPU_SAE_CHUNK) {
        int64_t k = smaller(CPU_SAE_CHUNK, a->d - k0);
        const char *from = a->w + (k0 * a->stride + first) * (int64_t)sizeof(float);
        if (w->streaming && count % 16 == 0) {
            kernel->stream(a->x + k0, a->n, a->d, k, from, a->stride, count, k0 ? packed : z, w->width);
            for (int64_t i = 0; k0 && i < a->n * w->width; i++) z[i] += packed[i];
            continue;
        }
        pack(w, from, k, count, packed);
        for (int64_t c = 0; c < count; c += step)
            kernel->multiply(a->x + k0, a->n, a->d, k, (const char *)(packed + c * k), step, z + c, w->width, k0 == 0);
    }
    for (int64_t i = 0; i < a->n; i++) {
        int32_t *tally = w->tallies + (g * a->n + i) * PVA_JUMPRELU_TALLIES;
        memcpy(tally, (int32_t[]){0, 0, -1}, sizeof(int32_t[PVA_JUMPRELU_TALLIES]));
        kernel->threshold(z + i * w->width, a->bias + first, a->threshold + first, a->first + first, count, a->indices + i * a->count + first,
                          a->values + i * a->count + first, tally);
    }
}

/* Each group left a row's entries at the start of its own part of the row; they move to the front, one row after another. */
static void close_gaps(const struct work *w) {
    const struct cpu_sae_args *a = w->a;
    int64_t at = 0;
    for (int64_t i = 0; i < a->n; i++) {
        int32_t total[PVA_JUMPRELU_TALLIES] = {0, 0, -1};
        for (int64_t g = 0; g < w->n_groups; g++) {
            const int32_t *tally = w->tallies + (g * a->n + i) * PVA_JUMPRELU_TALLIES;
            int64_t n = tally[PVA_JUMPRELU_ACTIVE], from = i * a->count + g * w->width;
            if (n && at != from) {
                memmove(a->indices + at, a->indices + from, (size_t)n * sizeof *a->indices);
                memmove(a->values + at, a->values + from, (size_t)n * sizeof *a->values);
            }
            at += n;
            total[PVA_JUMPRELU_ACTIVE] += (int32_t)n;
            total[PVA_JUMPRELU_NEAR] += tally[PVA_JUMPRELU_NEAR];
            if (total[PVA_JUMPRELU_BAD] < 0) total[PVA_JUMPRELU_BAD] = tally[PVA_JUMPRELU_BAD];
        }
        memcpy(a->tallies + i * PVA_JUMPRELU_TALLIES, total, sizeof total);
    }
}

int cpu_sae_encode(const struct cpu_sae_args *a, struct pva_error *err) {
    struct work w = {.a = a, .kernel = a->isa == CPU_C ? &cpu_sae_c : a->isa == CPU_AVX2 ? &cpu_sae_avx2 : &cpu_sae_avx512};
    if (a->n == 0) return PVA_OK;
    /* With few rows the time goes into reading W: longer runs of each of its rows. With many, the sums shall stay in the cache. */
    w.streaming = a->n <= MOST_STREAMED;
    w.width = w.streaming ? (a->n <= 8 ? 1024 : 512) : a->n <= 64 ? 512 : 128;
    while (w.width > w.kernel->width && a->count / w.width < 4 * a->n_threads) w.width /= 2;
    w.n_groups = (a->count + w.width - 1) / w.width;
    w.z_floats = ((size_t)(a->n * w.width) + 15) / 16 * 16;
    int64_t rows = smaller(CPU_SAE_CHUNK, a->d);
    w.pack_floats = (size_t)((w.streaming && rows < a->n ? a->n : rows) * w.width);
    float *scratch = aligned_alloc(64, (size_t)a->n_threads * (w.z_floats + w.pack_floats) * sizeof *scratch);
    w.tallies = malloc((size_t)(w.n_groups * a->n + 1) * PVA_JUMPRELU_TALLIES * sizeof *w.tallies);
    if (!scratch || !w.tallies) {
        free(scratch);
        free(w.tallies);
        return pva_fail(err, PVA_IO, "out of memory to encode %lld rows", (long long)a->n);
    }
#pragma omp parallel for num_threads(a->n_threads) schedule(dynamic)
    for (int64_t g = 0; g < w.n_groups; g++) {
        float *mine = scratch + (size_t)omp_get_thread_num() * (w.z_floats + w.pack_floats);
        compute_group(&w, g, mine, mine + w.z_floats);
    }
    close_gaps(&w);
    free(scratch);
    free(w.tallies);
    return PVA_OK;
}
