/* bench_linear.c - rates of the CPU matrix product, beside what bounds it and beside oneDNN, in one run.
 *
 *     bench_linear [--rounds N] [--isa NAME] [--threads N] [--rows N]
 *
 * The shape is the largest matrix of Gemma 2 2B, [9216, 2304]. "cold" walks over 12 copies of it, so that weights come from
 * memory; "hot" uses one. All kernels of a line are timed in turn in every round and a ratio is taken within its round, so that
 * the machine's other work hits both sides; what is printed is the median over the rounds.
 *
 * "of bound" compares with the longer of two times: the arithmetic at the measured rate of fused multiply-adds (as wide as the
 * kernel's), and, when cold, reading the weights at the measured bandwidth. For kernels that multiply bfloat16 in hardware only
 * the reading counts.
 */
#include "cpu_linear.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(BENCH_DNNL)
#include <dnnl.h>
#endif

enum { M = 9216, K = 2304, COPIES = 12, MAX_ROUNDS = 99, MAX_N = 512 };
enum side { READ, FMA_256, FMA_512, DNNL_BF16, DNNL_F32, OURS, N_SIDES = OURS + CPU_ISA_COUNT };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int n) {
    double sorted[MAX_ROUNDS];
    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    return n % 2 ? sorted[n / 2] : 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]);
}

/* Pages of 4 KiB, as a mapped weight file has them. */
static void *pages(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        perror("bench_linear: memory");
        exit(4);
    }
    return p;
}

/* ---- what the machine can do */

#if defined(__x86_64__)
__attribute__((target("avx2"))) static int read_all(const char *p, size_t bytes) {
    __m256i s[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t i = 0; i + 128 <= bytes; i += 128) {
        _mm_prefetch(p + i + 4096, _MM_HINT_T0);
        _mm_prefetch(p + i + 4096 + 64, _MM_HINT_T0);
        for (int j = 0; j < 4; j++) s[j] = _mm256_or_si256(s[j], _mm256_loadu_si256((const __m256i *)(p + i + j * 32)));
    }
    __m256i all = _mm256_or_si256(_mm256_or_si256(s[0], s[1]), _mm256_or_si256(s[2], s[3]));
    return _mm256_extract_epi32(all, 0) | _mm256_extract_epi32(all, 5);
}

#define FMA_LOOP(name, isa, vector, op, set, lanes) \
    __attribute__((target(isa), noinline)) static double name(int64_t n) { \
        vector s[12], a = set(0.5f), b = set(1.0f); \
        _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) s[i] = set((float)i); \
        for (int64_t k = 0; k < n; k++) { \
            _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) s[i] = op(s[i], a, b); \
        } \
        volatile vector keep; \
        for (int i = 0; i < 12; i++) keep = s[i]; \
        (void)keep; \
        return 2.0 * 12 * lanes * (double)n; \
    }
FMA_LOOP(fma_512, "avx512f", __m512, _mm512_fmadd_ps, _mm512_set1_ps, 16)
FMA_LOOP(fma_256, "avx2,fma", __m256, _mm256_fmadd_ps, _mm256_set1_ps, 8)

static double fma_rate(int threads, int wide) {
    if (!cpu_isa_available(wide ? CPU_AVX512 : CPU_AVX2)) return 0;
    double flops = 0, t = now();
#pragma omp parallel num_threads(threads) reduction(+ : flops)
    flops += wide ? fma_512(1500000) : fma_256(3000000);
    return flops / (now() - t);
}
#else
static int read_all(const char *p, size_t bytes) {
    uint64_t s = 0, v;
    for (size_t i = 0; i + 8 <= bytes; i += 8) memcpy(&v, p + i, 8), s |= v;
    return (int)s;
}
static double fma_rate(int threads, int wide) { return 0; } /* not known: the bound is the memory's alone */
#endif

static double read_rate(const char *p, size_t bytes, int threads) {
    int seen = 0;
    double t = now();
#pragma omp parallel num_threads(threads) reduction(| : seen)
    {
        size_t share = bytes / (size_t)omp_get_num_threads();
        seen |= read_all(p + share * (size_t)omp_get_thread_num(), share);
    }
    t = now() - t;
    return seen ? (double)bytes / t : 0; /* the weights are not all zero */
}

/* ---- oneDNN: weights reordered once to the layout it prefers */

#if defined(BENCH_DNNL) && DNNL_VERSION_MAJOR == 2
#define DNNL_OK(call) \
    do { \
        dnnl_status_t dnnl_s = (call); \
        if (dnnl_s != dnnl_success) { \
            fprintf(stderr, "bench_linear: %s: status %d\n", #call, (int)dnnl_s); \
            exit(1); \
        } \
    } while (0)

struct dnnl {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t product;
    dnnl_primitive_desc_t description;
    dnnl_memory_t x, y, w[COPIES];
    void *w_data[COPIES];
    size_t w_bytes;
};

/* 0 when this oneDNN has no such product for this CPU. */
static int dnnl_make(struct dnnl *d, dnnl_data_type_t type, int64_t n, void *x, void *y) {
    dnnl_dims_t x_dims = {n, K}, w_dims = {K, M}, y_dims = {n, M};
    dnnl_memory_desc_t x_md, w_md, y_md, plain_md;
    dnnl_matmul_desc_t op;
    if (!d->engine) {
        DNNL_OK(dnnl_engine_create(&d->engine, dnnl_cpu, 0));
        DNNL_OK(dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags));
    }
    DNNL_OK(dnnl_memory_desc_init_by_tag(&x_md, 2, x_dims, type, dnnl_ab));
    DNNL_OK(dnnl_memory_desc_init_by_tag(&w_md, 2, w_dims, type, dnnl_format_tag_any));
    DNNL_OK(dnnl_memory_desc_init_by_tag(&plain_md, 2, w_dims, type, dnnl_ba));
    DNNL_OK(dnnl_memory_desc_init_by_tag(&y_md, 2, y_dims, dnnl_f32, dnnl_ab));
    DNNL_OK(dnnl_matmul_desc_init(&op, &x_md, &w_md, NULL, &y_md));
    if (dnnl_primitive_desc_create(&d->description, &op, NULL, d->engine, NULL) != dnnl_success) return 0;
    DNNL_OK(dnnl_primitive_create(&d->product, d->description));
    const dnnl_memory_desc_t *chosen = dnnl_primitive_desc_query_md(d->description, dnnl_query_weights_md, 0);
    size_t bytes = dnnl_memory_desc_get_size(chosen);
    for (int i = 0; i < COPIES; i++) {
        if (d->w_bytes < bytes) d->w_data[i] = pages(bytes);
        for (size_t j = 0; j < bytes; j += 2) ((uint16_t *)d->w_data[i])[j / 2] = type == dnnl_bf16 || j % 4 ? 0x3c12 : 0;
        DNNL_OK(dnnl_memory_create(&d->w[i], chosen, d->engine, d->w_data[i]));
    }
    if (d->w_bytes < bytes) d->w_bytes = bytes;
    DNNL_OK(dnnl_memory_create(&d->x, &x_md, d->engine, x));
    DNNL_OK(dnnl_memory_create(&d->y, &y_md, d->engine, y));
    return 1;
}

static void dnnl_drop(struct dnnl *d) {
    for (int i = 0; i < COPIES; i++) dnnl_memory_destroy(d->w[i]);
    dnnl_memory_destroy(d->x);
    dnnl_memory_destroy(d->y);
    dnnl_primitive_destroy(d->product);
    dnnl_primitive_desc_destroy(d->description);
}

static void dnnl_run(struct dnnl *d, int copy) {
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, d->x}, {DNNL_ARG_WEIGHTS, d->w[copy]}, {DNNL_ARG_DST, d->y}};
    DNNL_OK(dnnl_primitive_execute(d->product, d->stream, 3, args));
    DNNL_OK(dnnl_stream_wait(d->stream));
}
#endif

/* ---- the measurement */

struct bench {
    char *w;      /* COPIES of [M, K] bfloat16 */
    uint16_t *x;  /* [MAX_N, K] */
    float *x_f32; /* the same */
    float *y;
    struct cpu_scratch scratch;
#if defined(BENCH_DNNL) && DNNL_VERSION_MAJOR == 2
    struct dnnl dnnl[2];
#endif
    int use[N_SIDES];
};

static void run_once(struct bench *b, int side, int64_t n, int threads, int copy) {
#if defined(BENCH_DNNL) && DNNL_VERSION_MAJOR == 2
    if (side == DNNL_BF16 || side == DNNL_F32) {
        dnnl_run(&b->dnnl[side - DNNL_BF16], copy);
        return;
    }
#endif
    struct cpu_linear_args a = {.x = b->x,
                                .w = b->w + (size_t)copy * M * K * 2,
                                .y = b->y,
                                .x_type = PVA_BF16,
                                .w_type = PVA_BF16,
                                .n = n,
                                .m = M,
                                .k = K,
                                .isa = (enum cpu_isa)(side - OURS),
                                .n_threads = threads,
                                .scratch = &b->scratch};
    cpu_linear(&a);
}

/* Floating-point operations per second over `calls` products. */
static double rate(struct bench *b, int side, int64_t n, int threads, int cold, int calls, int *next) {
    double t = now();
    for (int i = 0; i < calls; i++) {
        run_once(b, side, n, threads, cold ? *next : 0);
        if (cold) *next = (*next + 1) % COPIES;
    }
    return 2.0 * (double)n * M * K * calls / (now() - t);
}

/* Is this kernel timed with n rows? Plain C is left out where it would take minutes. */
static int timed(const struct bench *b, int side, int64_t n) { return b->use[side] && !(side == OURS + CPU_C && n > 16); }

/* What bounds a kernel's rate in one round; 0: nothing known. */
static double bound_of(int isa, int64_t n, int cold, double read, double fma_256, double fma_512) {
    double flops = 2.0 * (double)n * M * K, seconds = cold ? (double)M * K * 2 / read : 0;
    double fma = isa <= CPU_AVX2 ? fma_256 : isa == CPU_AVX512 ? fma_512 : 0;
    if (fma > 0 && flops / fma > seconds) seconds = flops / fma;
    return seconds > 0 ? flops / seconds : 0;
}

static void print_rate(double flops_per_second) {
    if (flops_per_second > 0) printf("| %.1f ", flops_per_second / 1e9);
    else printf("| - ");
}

static void print_ratio(const double *a, const double *b, int rounds) {
    double ratio[MAX_ROUNDS];
    for (int r = 0; r < rounds; r++) {
        if (!(b[r] > 0)) {
            printf("| - ");
            return;
        }
        ratio[r] = a[r] / b[r];
    }
    printf("| %.2f ", median(ratio, rounds));
}

static void measure(struct bench *b, int64_t n, int threads, int cold, int rounds) {
    static double got[N_SIDES][MAX_ROUNDS];
    double best[MAX_ROUNDS], bound[MAX_ROUNDS];
    int next = 0;
    memset(got, 0, sizeof got);
    omp_set_num_threads(threads);
    for (int side = DNNL_BF16; side < N_SIDES; side++)
        if (timed(b, side, n)) run_once(b, side, n, threads, 0);
    for (int r = 0; r < rounds; r++) {
        got[READ][r] = read_rate(b->w, (size_t)COPIES / 2 * M * K * 2, threads);
        got[FMA_256][r] = fma_rate(threads, 0);
        got[FMA_512][r] = fma_rate(threads, 1);
        for (int side = DNNL_BF16; side < N_SIDES; side++) {
            int calls = side == OURS + CPU_C ? 1 : n <= 16 ? COPIES : n <= 64 ? 4 : 1;
            if (timed(b, side, n)) got[side][r] = rate(b, side, n, threads, cold, calls, &next);
        }
        best[r] = got[DNNL_BF16][r] > got[DNNL_F32][r] ? got[DNNL_BF16][r] : got[DNNL_F32][r];
    }
    for (int isa = 0; isa < CPU_ISA_COUNT; isa++) {
        const double *ours = got[OURS + isa];
        if (!timed(b, OURS + isa, n)) continue;
        for (int r = 0; r < rounds; r++) bound[r] = bound_of(isa, n, cold, got[READ][r], got[FMA_256][r], got[FMA_512][r]);
        printf("| %s | %d | %d | %s ", cpu_isa_name((enum cpu_isa)isa), threads, (int)n, cold ? "cold" : "hot");
        print_rate(median(ours, rounds));
        print_rate(median(ours, rounds) / (double)n); /* two operations and two bytes a weight: GFLOP/s at one row are GB/s */
        print_rate(median(got[READ], rounds));
        print_rate(median(got[isa <= CPU_AVX2 ? FMA_256 : FMA_512], rounds));
        print_rate(median(got[DNNL_BF16], rounds));
        print_rate(median(got[DNNL_F32], rounds));
        print_ratio(ours, bound, rounds);
        print_ratio(ours, best, rounds);
        printf("|\n");
    }
    fflush(stdout);
}

int main(int argc, char **argv) {
    int rounds = 7, only_threads = 0, only_n = 0;
    const char *only = NULL;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--rounds") && i + 1 < argc) rounds = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--isa") && i + 1 < argc) only = argv[++i];
        else if (!strcmp(argv[i], "--threads") && i + 1 < argc) only_threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--rows") && i + 1 < argc) only_n = atoi(argv[++i]);
        else {
            fprintf(stderr, "usage: bench_linear [--rounds N] [--isa NAME] [--threads N] [--rows N]\n");
            return 2;
        }
    }
    if (rounds < 1 || rounds > MAX_ROUNDS || only_n < 0 || only_n > MAX_N || only_threads < 0) {
        fprintf(stderr, "bench_linear: --rounds is 1 to %d, --rows 1 to %d\n", MAX_ROUNDS, MAX_N);
        return 2;
    }

    struct bench b = {.w = pages((size_t)COPIES * M * K * 2),
                      .x = pages((size_t)MAX_N * K * 2),
                      .x_f32 = pages((size_t)MAX_N * K * 4),
                      .y = pages((size_t)MAX_N * M * 4)};
    for (size_t i = 0; i < (size_t)COPIES * M * K; i++)
        ((uint16_t *)b.w)[i] = pva_f32_to_bf16((float)(i % 4093) / 4093.0f - 0.5f);
    for (size_t i = 0; i < (size_t)MAX_N * K; i++) {
        b.x[i] = pva_f32_to_bf16((float)(i % 509) / 509.0f - 0.5f);
        b.x_f32[i] = pva_bf16_to_f32(b.x[i]);
    }
    for (int isa = 0; isa < CPU_ISA_COUNT; isa++)
        b.use[OURS + isa] = cpu_isa_available((enum cpu_isa)isa) && (!only || !strcmp(only, cpu_isa_name((enum cpu_isa)isa)));

#if defined(BENCH_DNNL) && DNNL_VERSION_MAJOR == 2
    printf("oneDNN %d.%d.%d\n\n", dnnl_version()->major, dnnl_version()->minor, dnnl_version()->patch);
#else
    printf("oneDNN 2 was not found when this was built: its columns are empty\n\n");
#endif
    printf("| kernel | threads | rows | weights | GFLOP/s | weights GB/s | read GB/s | FMA GFLOP/s | oneDNN bf16 | oneDNN f32 | "
           "of bound | of best oneDNN |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    const int rows[] = {1, 16, 64, 512};
    for (int i = 0; i < 4; i++) {
        int n = only_n ? only_n : rows[i];
        for (int threads = 1; threads <= 2; threads++) {
            if (only_threads && threads != only_threads) continue;
#if defined(BENCH_DNNL) && DNNL_VERSION_MAJOR == 2
            omp_set_num_threads(threads); /* oneDNN plans for the threads it sees when the product is made */
            b.use[DNNL_BF16] = dnnl_make(&b.dnnl[0], dnnl_bf16, n, b.x, b.y);
            b.use[DNNL_F32] = dnnl_make(&b.dnnl[1], dnnl_f32, n, b.x_f32, b.y);
#endif
            for (int cold = 1; cold >= 0; cold--) measure(&b, n, threads, cold, rounds);
#if defined(BENCH_DNNL) && DNNL_VERSION_MAJOR == 2
            for (int d = 0; d < 2; d++)
                if (b.use[DNNL_BF16 + d]) dnnl_drop(&b.dnnl[d]);
#endif
        }
        if (only_n) break;
    }
    cpu_scratch_free(&b.scratch);
    return 0;
}
