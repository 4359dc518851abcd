/* JumpReLU encoding: the CPU backend's bits, for shapes that end inside of every tile, with what is not finite reported. */
#include "cpu_sae.h"
#include "twin.h"

struct shape {
    int64_t n, d, m, first, count;
    size_t shift;
};

static void check(const struct shape *s, float scale, int bad) {
    size_t cells = (size_t)(s->n * s->count);
    float *x = twin_alloc((size_t)(s->n * s->d) * 4), *w = twin_alloc((size_t)(s->d * s->m) * 4), *b = twin_alloc((size_t)s->m * 4), *t = twin_alloc((size_t)s->m * 4);
    int32_t *want = twin_alloc(cells * 4), *indices = twin_alloc(cells * 4), *want_tallies = twin_alloc((size_t)s->n * 12), *tallies = twin_alloc((size_t)s->n * 12);
    float *want_values = twin_alloc(cells * 4), *values = twin_alloc(cells * 4);
    for (int64_t i = 0; i < s->n * s->d; i++) x[i] = scale * (float)pva_rng_normal(4, PVA_RNG_WEIGHTS, 1, 0, (uint32_t)i);
    for (int64_t i = 0; i < s->d * s->m; i++) w[i] = (float)pva_rng_normal(4, PVA_RNG_WEIGHTS, 2, 0, (uint32_t)i);
    for (int64_t i = 0; i < s->m; i++) {
        b[i] = (float)pva_rng_normal(4, PVA_RNG_WEIGHTS, 3, 0, (uint32_t)i);
        t[i] = i % 5 == 0 ? 0 : (float)fabs(2 * pva_rng_normal(4, PVA_RNG_WEIGHTS, 4, 0, (uint32_t)i));
    }
    if (bad) w[(s->d - 1) * s->m + s->first + s->count / 2] = bad == 1 ? NAN : INFINITY;
    if (bad) x[(s->n - 1) * s->d] = 1e38f, w[s->first + s->count - 1] = -1e38f;
    const struct cpu_sae_args a = {.x = x, .n = s->n, .d = s->d, .w = (const char *)(w + s->first), .stride = s->m, .first = s->first, .count = s->count,
                                   .bias = b + s->first, .threshold = t + s->first, .indices = want, .values = want_values, .tallies = want_tallies,
                                   .n_threads = 1, .isa = CPU_C};
    /* A threshold exactly at a latent's value: it is not active. */
    struct pva_error err = {0};
    CHECK_OK(cpu_sae_encode(&a, &err), err);
    if (!bad && s->n > 0 && want_tallies[0] > 0) {
        t[want[0]] = want_values[0];
        CHECK_OK(cpu_sae_encode(&a, &err), err);
    }
    twin_shift = s->shift;
    struct twin_buffer dx = twin_new(x, (size_t)(s->n * s->d) * 4), dw = twin_new(w, (size_t)(s->d * s->m) * 4), db = twin_new(b, (size_t)s->m * 4);
    struct twin_buffer dt = twin_new(t, (size_t)s->m * 4), di = twin_new(NULL, cells * 4), dv = twin_new(NULL, cells * 4), dn = twin_new(NULL, (size_t)s->n * 12);
    struct twin_buffer work = twin_new(NULL, pva_cuda_jumprelu_bytes(s->n, s->count));
    for (int o = 0; twin_order(o); o++) {
        CHECK_CUDA(pva_cuda_jumprelu((float *)dx.p, s->n, s->d, (float *)dw.p, (float *)db.p, (float *)dt.p, s->m, s->first, s->count, (int32_t *)di.p,
                                     (float *)dv.p, (int32_t *)dn.p, work.p, NULL));
        twin_read(&di, indices), twin_read(&dv, values), twin_read(&dn, tallies), twin_read(&work, NULL);
        size_t active = 0, wrong = memcmp(tallies, want_tallies, (size_t)s->n * 12) != 0;
        for (int64_t r = 0; r < s->n && !wrong; r++) active += (size_t)tallies[r * 3 + PVA_JUMPRELU_ACTIVE];
        wrong += memcmp(indices, want, active * 4) != 0;
        wrong += memcmp(values, want_values, active * 4) != 0;
        CHECK_INT(wrong, 0);
        CHECK(cells < 50 || active > cells / 20); /* there was something to compare */
    }
    struct twin_buffer *all[] = {&dx, &dw, &db, &dt, &di, &dv, &dn, &work};
    for (int i = 0; i < 8; i++) twin_free(all[i]);
    void *host[] = {x, w, b, t, want, indices, want_tallies, tallies, want_values, values};
    for (int i = 0; i < 10; i++) free(host[i]);
}

int main(void) {
    static const struct shape shapes[] = {
        {1, 1, 1, 0, 1, 0},         {1, 31, 127, 0, 127, 0},   {3, 257, 1203, 0, 1203, 4}, {33, 300, 260, 4, 200, 0},
        {5, 513, 300, 3, 290, 0},   {2, 64, 2500, 0, 2500, 0}, {4, 1, 140, 0, 140, 0},     {2, 10, 30, 30, 0, 0},
        {0, 16, 128, 0, 128, 0},    {2, 256, 128, 0, 128, 0},
    };
    twin_start();
    twin_check_comparators();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check(&shapes[i], 0.05f, 0);
    check(&shapes[3], 0.05f, 1);
    check(&shapes[4], 0.05f, 2);
    return check_report("twin_sae");
}
