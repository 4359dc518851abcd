/* doctor: what this machine can do, one line each; exit 1 when something needed is missing. */
#include "commands.h"
#include "engine.h"

#include <gnu/libc-version.h>
#include <hdf5.h>
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct pva_option pva_doctor_options[] = {
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

enum verdict { FINE, ABSENT, FAILED }; /* absent: optional and not there */

static int failures;

static void line(enum verdict v, const char *what, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void line(enum verdict v, const char *what, const char *fmt, ...) {
    static const char *const words[] = {"ok", "-", "FAIL"};
    va_list ap;
    printf("%-5s %-10s ", words[v], what);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    fflush(stdout);
    failures += v == FAILED;
}

static void check_libraries(void) {
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
    int n = 0;
    unsigned major = 0, minor = 0, release = 0;
    MPI_Get_library_version(mpi, &n);
    mpi[strcspn(mpi, ",\n")] = 0;
    line(FINE, "mpi", "%s", mpi);
    H5get_libversion(&major, &minor, &release);
#ifdef H5_HAVE_PARALLEL
    line(FINE, "hdf5", "%u.%u.%u, parallel", major, minor, release);
#else
    line(FAILED, "hdf5", "%u.%u.%u is a serial build; the parallel one is needed", major, minor, release);
#endif
}

static void check_memory(void) {
    long pages = sysconf(_SC_PHYS_PAGES), free_pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
    line(FINE, "host", "%d cores for this process, %.1f GiB memory (%.1f free), glibc %s", cores, (double)pages * (double)page / 0x1p30,
         (double)free_pages * (double)page / 0x1p30, gnu_get_libc_version());
}

/* A product of a 7B model's MLP shape, 512 rows, in bfloat16. */
static void check_matmul(const struct engine *e) {
    enum { N = 512, K = 2304, M = 9216 };
    struct pva_error err = {0};
    struct pva_buffer *x = NULL, *w = NULL, *y = NULL;
    double best = 1e30;
    if (!e->ops->alloc(e->be, N * K * 2, &x, &err) && !e->ops->alloc(e->be, (size_t)M * K * 2, &w, &err) && !e->ops->alloc(e->be, (size_t)N * M * 4, &y, &err)) {
        for (int r = 0; r < 3 && !err.code; r++) {
            double start = engine_now();
            if (!e->ops->linear(e->be, (struct pva_tensor){x, 0, PVA_BF16, N, K}, (struct pva_tensor){w, 0, PVA_BF16, M, K},
                                (struct pva_tensor){y, 0, PVA_F32, N, M}, &err))
                e->ops->sync(e->be, &err);
            if (engine_now() - start < best) best = engine_now() - start;
        }
    }
    e->ops->free(e->be, &x);
    e->ops->free(e->be, &w);
    e->ops->free(e->be, &y);
    if (err.code) line(FAILED, "matmul", "%s", err.msg);
    else line(FINE, "matmul", "bf16 %d x %d x %d: %.0f GFLOP/s", N, K, M, 2.0 * N * K * M / best / 1e9);
}

static void check_backend(const struct pva_options *o) {
    struct engine e = {0};
    struct pva_error err = {0};
    struct pva_backend_info info;
    if (engine_open_backend(o, &e, &err)) {
        line(FAILED, "backend", "%s", err.msg);
        return;
    }
    e.ops->describe(e.be, &info);
    line(FINE, "backend", "%s: %s", e.ops->name, info.device);
    check_matmul(&e);
    engine_close(&e);
    if (pva_backend_find("cuda", &err)) return;
    line(ABSENT, "gpu", "%s", err.msg);
}

static void check_model(const struct pva_options *o) {
    struct engine e = {0};
    struct pva_error err = {0};
    if (!pva_options_text(o, "model")) return;
    if (engine_open(o, 0, &e, &err)) {
        line(FAILED, "model", "%s", err.msg);
        engine_close(&e);
        return;
    }
    const struct pva_model_config *c = pva_model_get_config(e.model);
    line(FINE, "model", "%s, %d layers, d_model %d, %.3f G parameters, %.2f GB read per token, opened in %.3f s, %.2f GB converted", c->architecture,
         c->n_layers, c->d_model, (double)pva_model_parameters(e.model) / 1e9, (double)pva_model_weight_bytes(e.model) / 1e9, e.open_seconds,
         (double)pva_model_converted(e.model) / 1e9);
    if (e.tokenizer) line(FINE, "tokenizer", "%d tokens", pva_tokenizer_n_vocab(e.tokenizer));
    else line(ABSENT, "tokenizer", "no tokenizer.model in the directory: only token ids can be given");
    engine_close(&e);
}

int pva_command_doctor(const struct pva_options *o, struct pva_error *err) {
    (void)err;
    failures = 0;
    printf("pva-mpi %s\n", PVA_VERSION);
    check_memory();
    check_libraries();
    check_backend(o);
    check_model(o);
    return failures ? PVA_CHECK : PVA_OK;
}
