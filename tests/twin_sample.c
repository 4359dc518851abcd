/* Soft-cap: the CPU's bits. Sampling: the CPU's token, for draws everywhere and right beside the places where the token changes. */
#include "twin.h"

static void check_softcap(int64_t n, float cap, size_t shift) {
    struct pva_error err = {0};
    static const float special[] = {INFINITY, -INFINITY, NAN, 0.0f, -0.0f, 1e-40f, 30.0f, -18.75f};
    TWIN_ARRAY(float, x, n);
    TWIN_ARRAY(float, got, n);
    TWIN_ARRAY(float, want, n);
    twin_shift = shift;
    twin_fill(x, (size_t)n, 1, 20);
    for (int64_t i = 0; i < 8 && n > 20; i++) x[n - 1 - i] = special[i];
    struct twin_buffer dx = twin_new(x, (size_t)n * 4);
    CHECK_CUDA(pva_cuda_softcap((float *)dx.p, n, cap, NULL));
    twin_read(&dx, got);
    struct pva_tensor t = twin_cpu(x, PVA_F32, 1, n);
    CHECK_OK(pva_backend_cpu.softcap(twin_backend, t, cap, &err), err);
    twin_cpu_read(t, want);
    CHECK_INT(twin_differ_bits(got, want, (size_t)n), 0);
    twin_cpu_clear();
    twin_free(&dx), free(x), free(got), free(want);
}

/* Rows of logits with their temperatures and draws, both ways. The number of rows whose tokens differ. */
static int tokens_differ(const float *logits, int64_t n, int64_t v, const float *temperatures, const double *draws, int32_t *tokens) {
    struct pva_error err = {0};
    TWIN_ARRAY(int32_t, want, n);
    struct twin_buffer dl = twin_new(logits, (size_t)(n * v) * 4), dt = twin_new(temperatures, (size_t)n * 4), dd, work, dtoken = twin_new(NULL, (size_t)n * 4);
    size_t shift = twin_shift;
    twin_shift = shift / 8 * 8; /* draws are doubles, the scratch asks for 8 */
    dd = twin_new(draws, (size_t)n * 8), work = twin_new(NULL, pva_cuda_sample_bytes(n, v));
    CHECK_CUDA(pva_cuda_sample((float *)dl.p, n, v, (float *)dt.p, (double *)dd.p, (int32_t *)dtoken.p, work.p, NULL));
    twin_read(&work, NULL), twin_read(&dd, NULL);
    twin_free(&dd), twin_free(&work);
    twin_shift = shift;
    twin_read(&dtoken, tokens), twin_read(&dl, NULL), twin_read(&dt, NULL);
    struct pva_tensor token = twin_cpu(NULL, PVA_I32, n, 1);
    CHECK_OK(pva_backend_cpu.sample(twin_backend, twin_cpu(logits, PVA_F32, n, v), twin_cpu(temperatures, PVA_F32, n, 1), twin_cpu(draws, PVA_F64, n, 1), token, &err), err);
    twin_cpu_read(token, want);
    int wrong = 0;
    for (int64_t i = 0; i < n; i++) wrong += tokens[i] != want[i];
    twin_cpu_clear();
    twin_free(&dl), twin_free(&dt), twin_free(&dtoken), free(want);
    return wrong;
}

static void check_sample(int64_t n, int64_t v, size_t shift) {
    TWIN_ARRAY(float, logits, n *v);
    TWIN_ARRAY(float, temperatures, n);
    TWIN_ARRAY(double, draws, n);
    TWIN_ARRAY(int32_t, tokens, n);
    twin_shift = shift;
    for (int64_t i = 0; i < n * v; i++) logits[i] = (float)(4 * pva_rng_normal(1, PVA_RNG_WEIGHTS, 9, 0, (uint32_t)i));
    for (int64_t i = 0; i < n; i++) {
        temperatures[i] = i % 4 == 0 ? 0.0f : 0.3f * (float)(i % 4);
        draws[i] = i % 5 == 4 ? 0x1.fffffffffffffp-1 : (double)i / (double)n; /* the largest below 1 among them */
        if (v > 3 && i % 7 == 3) logits[i * v + v - 1] = logits[i * v + 1] = 60; /* a tie, far apart */
        if (i % 11 == 5) logits[i * v + v / 2] = NAN;
        if (v > 1 && i % 11 == 6) logits[i * v] = INFINITY;
        if (v > 1 && i % 11 == 7) logits[i * v] = -INFINITY;
    }
    CHECK_INT(tokens_differ(logits, n, v, temperatures, draws, tokens), 0);
    for (int64_t i = 0; i < n; i++)
        if (i % 11 == 5) CHECK_INT(tokens[i], -1);
    free(logits), free(temperatures), free(draws), free(tokens);
}

/* The draws at which the CPU's token changes: each token k of a row is chosen from the cumulated weight of k - 1 to its own. */
static void check_edges(int64_t v, float temperature) {
    enum { ROWS = 120 };
    TWIN_ARRAY(float, logits, ROWS *v);
    float temperatures[ROWS];
    double draws[ROWS], total = 0, below = 0, max = -1e9;
    int32_t tokens[ROWS];
    twin_shift = 0;
    for (int64_t i = 0; i < v; i++) logits[i] = (float)(2 * pva_rng_normal(1, PVA_RNG_WEIGHTS, 12, 0, (uint32_t)i)), max = fmax(max, logits[i]);
    for (int64_t i = 0; i < v; i++) total += exp((logits[i] - max) / (double)temperature);
    for (int r = 1; r < ROWS; r++) memcpy(logits + r * v, logits, (size_t)v * 4);
    for (int r = 0; r < ROWS; r++) temperatures[r] = temperature;
    int r = 0;
    for (int64_t i = 0; i < v && r < ROWS; i++) {
        below += exp((logits[i] - max) / (double)temperature);
        if (i % (v / 38) == 0 || i % 1024 == 1023)
            for (int side = -1; side <= 1 && r < ROWS; side++) draws[r++] = fmin(below / total * (1 + side * 3e-7), 0x1.fffffffffffffp-1);
    }
    while (r < ROWS) draws[r++] = 0;
    CHECK_INT(tokens_differ(logits, ROWS, v, temperatures, draws, tokens), 0);
    int distinct = 0;
    for (r = 1; r < ROWS; r++) distinct += tokens[r] != tokens[r - 1];
    CHECK(distinct > 20);
    free(logits);
}

int main(void) {
    twin_start();
    twin_check_comparators();
    for (int i = 0; twin_order(i); i++) {
        check_softcap(0, 30, 0);
        check_softcap(1, 30, 0);
        check_softcap(1009, 30, 4);
        check_softcap(4096, 50, 0);
        check_sample(0, 100, 0);
        check_sample(3, 1, 0);
        check_sample(40, 7, 4);
        check_sample(23, 1024, 0);
        check_sample(23, 1025, 4);
        check_sample(13, 5003, 0);
        check_edges(3001, 0.8f);
    }
    check_sample(2, 256000, 0);
    return check_report("twin_sample");
}
