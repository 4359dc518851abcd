/* bench sae: encoding one autoencoder's file, beside reading the file and beside a float32 product of the same shape. */
#include "bench.h"
#include "engine.h"

#include "pva/sae.h"
#include "pva/tensorfile.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_ROWS = 487 }; /* the original's selection split */

/* Random weights in SAELens' layout: with z of unit variance, 0.3 % of the latents are above 2.75. */
static int make_file(const char *path, int64_t d, int64_t m, struct pva_error *err) {
    struct pva_tensorfile_writer *w = NULL;
    const struct {
        const char *name;
        int n_dims;
        int64_t shape[2];
        float value; /* NaN: random */
    } arrays[] = {{"W_enc", 2, {d, m}, NAN}, {"W_dec", 2, {m, d}, NAN}, {"b_dec", 1, {d, 0}, 0}, {"b_enc", 1, {m, 0}, 0}, {"threshold", 1, {m, 0}, 2.75f}};
    enum { PIECE = 1 << 16 };
    float *piece = malloc(PIECE * sizeof *piece), scale = sqrtf(12.0f / (float)d);
    uint32_t state = 1;
    if (!piece) return pva_fail(err, PVA_IO, "out of memory");
    if (!pva_tensorfile_create(path, &w, err))
        for (int i = 0; i < 5 && !err->code; i++) pva_tensorfile_declare(w, arrays[i].name, PVA_F32, arrays[i].n_dims, arrays[i].shape, err);
    for (int i = 0; i < 5 && !err->code; i++)
        for (int64_t left = arrays[i].shape[0] * (arrays[i].n_dims > 1 ? arrays[i].shape[1] : 1); left > 0 && !err->code; left -= PIECE) {
            int64_t n = left < PIECE ? left : PIECE;
            for (int64_t j = 0; j < n; j++) {
                state = state * 1664525u + 1013904223u;
                piece[j] = isnan(arrays[i].value) ? ((float)(state >> 8) * 0x1p-24f - 0.5f) * scale : arrays[i].value;
            }
            pva_tensorfile_append(w, piece, (size_t)n * sizeof *piece, err);
        }
    if (!err->code) pva_tensorfile_finish(&w, err);
    else pva_tensorfile_discard(&w);
    free(piece);
    return err->code;
}

/* Out of the page cache, where the file system lets go of it. */
static void forget(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    (void)fsync(fd);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

/* Seconds to read the first `bytes` of a file from start to end with read(). */
static double read_file(const char *path, size_t bytes) {
    enum { PIECE = 1 << 20 };
    char *piece = malloc(PIECE);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    double start = engine_now();
    for (ssize_t n = 1; piece && fd >= 0 && n > 0 && bytes > 0; bytes -= (size_t)n) n = read(fd, piece, bytes < PIECE ? bytes : PIECE);
    double seconds = engine_now() - start;
    if (fd >= 0) close(fd);
    free(piece);
    return seconds;
}

/* As a phase does it: open, encode, close. */
static int encode_once(const char *path, const struct engine *e, const float *x, int64_t n, double *seconds, double *l0, struct pva_error *err) {
    struct pva_sae *sae = NULL;
    struct pva_sparse a = {0};
    double start = engine_now();
    if (!pva_sae_open(path, &sae, err)) {
        pva_sae_read_ahead(sae);
        pva_sae_encode(sae, e->ops, e->be, x, n, &a, err);
    }
    *seconds = engine_now() - start;
    if (!err->code) *l0 = (double)a.indptr[n] / (double)n;
    pva_sparse_free(&a);
    pva_sae_close(&sae);
    return err->code;
}

/* Seconds of the backend's float32 product x W^T of the same shape. */
static int product_once(const struct engine *e, const float *x, int64_t n, int64_t d, int64_t m, double *seconds, struct pva_error *err) {
    struct pva_buffer *b[3] = {0};
    if (!e->ops->alloc(e->be, (size_t)(n * d) * 4, &b[0], err) && !e->ops->alloc(e->be, (size_t)(m * d) * 4, &b[1], err) &&
        !e->ops->alloc(e->be, (size_t)(n * m) * 4, &b[2], err)) {
        struct pva_tensor tx = {b[0], 0, PVA_F32, n, d}, tw = {b[1], 0, PVA_F32, m, d}, ty = {b[2], 0, PVA_F32, n, m};
        for (int r = 0; r < 4 && !e->ops->upload(e->be, tx, x, err); r++) {
            double start = engine_now();
            if (!e->ops->linear(e->be, tx, tw, ty, err)) e->ops->sync(e->be, err);
            double took = engine_now() - start;
            if (r == 0 || took < *seconds) *seconds = took;
        }
    }
    for (int i = 0; i < 3; i++) e->ops->free(e->be, &b[i]);
    return err->code;
}

static int measure(const char *path, const struct engine *e, const float *x, int64_t d, int64_t m, int repeats, struct pva_error *err) {
    static const int64_t rows[] = {1, 16, MOST_ROWS};
    size_t bytes = (size_t)(d * m + 2 * m + d) * sizeof(float);
    double cold_read = INFINITY, warm_read = INFINITY, l0 = 0;
    for (int r = 0; r < 3; r++) { /* below this system there may be another cache: the first time is not the rate of the others */
        forget(path);
        double t = read_file(path, bytes);
        if (t < cold_read) cold_read = t;
    }
    for (int r = 0; r < repeats; r++) {
        double t = read_file(path, bytes);
        if (t < warm_read) warm_read = t;
    }
    printf("[%lld, %lld], %.1f MB to read; read(): %.2f GB/s from disk, %.2f GB/s from the page cache\n", (long long)d, (long long)m, (double)bytes / 1e6,
           (double)bytes / cold_read / 1e9, (double)bytes / warm_read / 1e9);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t n = rows[i];
        double product = 0, cold, warm = INFINITY, t;
        if (product_once(e, x, n, d, m, &product, err)) return err->code;
        forget(path);
        if (encode_once(path, e, x, n, &cold, &l0, err)) return err->code;
        for (int r = 0; r < repeats; r++) {
            if (encode_once(path, e, x, n, &t, &l0, err)) return err->code;
            if (t < warm) warm = t;
        }
        double flops = 2.0 * (double)n * (double)d * (double)m;
        for (int in_cache = 0; in_cache < 2; in_cache++) {
            double took = in_cache ? warm : cold, reading = in_cache ? warm_read : cold_read, limit = reading > product ? reading : product;
            printf("%4lld rows, %-15s %8.1f ms, %6.2f GB/s, %7.1f GFLOP/s; limit %8.1f ms (%s): %.0f %% of it\n", (long long)n, in_cache ? "from page cache:" : "from disk:",
                   1e3 * took, (double)bytes / took / 1e9, flops / took / 1e9, 1e3 * limit, reading > product ? "reading" : "float32 product", 100 * limit / took);
        }
    }
    printf("mean L0 %.1f\n", l0);
    return PVA_OK;
}

int bench_sae(const struct pva_options *o, struct pva_error *err) {
    struct engine e = {0};
    struct pva_sae *sae = NULL;
    struct pva_backend_info info;
    const char *given = pva_options_text(o, "sae"), *base = getenv("TMPDIR");
    char path[4096];
    int64_t d = 2304, m = 16384;
    float *x = NULL;
    snprintf(path, sizeof path, "%.3000s/pva-bench-%ld.safetensors", base && *base ? base : "/tmp", (long)getpid());
    if (engine_open_backend(o, &e, err) || (!given && make_file(path, d, m, err))) goto done;
    if (given) {
        if (pva_sae_open(given, &sae, err)) goto done;
        snprintf(path, sizeof path, "%s", pva_sae_path(sae));
        d = pva_sae_d_model(sae), m = pva_sae_n_latents(sae);
        pva_sae_close(&sae);
    }
    if (!(x = malloc((size_t)(MOST_ROWS * d) * sizeof *x))) {
        pva_fail(err, PVA_IO, "out of memory");
        goto done;
    }
    uint32_t state = 7;
    for (int64_t i = 0; i < MOST_ROWS * d; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = ((float)(state >> 8) * 0x1p-24f - 0.5f) * 3.4641f; /* unit variance */
    }
    e.ops->describe(e.be, &info);
    printf("%s\n", info.device);
    measure(path, &e, x, d, m, (int)pva_options_int(o, "repeats"), err);
done:
    if (!given) unlink(path);
    free(x);
    engine_close(&e);
    return err->code;
}
