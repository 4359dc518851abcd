/* A decomposition's operations: the CPU's bits, for shapes that end inside of every tile. Columns beyond n, and what lies around a result, must stay as they
 * were. Only exp may differ, and only on a device. */
#include "cuda_spd.h"
#include "spd/device.h"
#include "twin.h"

static const struct spd_kernels *const cpu = &spd_kernels_c;
static uint32_t next_item;

struct chunk {
    int n, ld;
};
static const struct chunk chunks[] = {{16, 16}, {80, 96}, {144, 160}, {0, 16}};

/* Numbers of this scale in the columns in use, the rest poison. */
static float *node(int dim, struct chunk k, float scale) {
    size_t all = (size_t)dim * (size_t)k.ld;
    float *x = twin_alloc(all * sizeof *x);
    memset(x, TWIN_POISON, all * sizeof *x);
    next_item++;
    for (int r = 0; r < dim; r++)
        for (int s = 0; s < k.n; s++) {
            float *v = &x[(size_t)r * (size_t)k.ld + (size_t)s];
            *v = scale * (float)pva_rng_normal(9, PVA_RNG_WEIGHTS, next_item, 0, (uint32_t)(r * k.ld + s));
            if ((r * 7 + s + 3 * (int)next_item) % 41 == 5) *v = (float)(s % 3) - 1; /* -1, 0, 1: where functions have their corners */
        }
    return x;
}
static float *vector(size_t n, float scale) { return node(1, (struct chunk){(int)n, (int)n}, scale); }
static float *copy_of(const float *x, size_t n) { return memcpy(twin_alloc(n * sizeof *x), x, n * sizeof *x); }

static struct twin_buffer up(const void *host, size_t n) { return twin_new(host, n * sizeof(float)); }
#define AT(buffer) ((float *)(buffer).p)

/* All of a buffer, bit for bit. */
static void same(const struct twin_buffer *b, const void *want) {
    char *got = twin_alloc(b->bytes);
    memset(got, 0, b->bytes);
    twin_read(b, got);
    CHECK(!memcmp(got, want, b->bytes));
    free(got);
}
static void release(struct twin_buffer *const *list, int n) {
    for (int i = 0; i < n; i++) twin_read(list[i], NULL), twin_free(list[i]);
}
#define RELEASE(...) release((struct twin_buffer *const[]){__VA_ARGS__}, (int)(sizeof((struct twin_buffer *[]){__VA_ARGS__}) / sizeof(struct twin_buffer *)))

/* ---- products ---- */

static void check_products(struct chunk k, int n_in, int n_out) {
    const size_t ld = (size_t)k.ld, n_e = (size_t)(n_in * n_out);
    float *e = vector(n_e, 1), *in = node(n_in, k, 1), *out = node(n_out, k, 1), *de = vector(n_e, 1);
    float *want = copy_of(out, (size_t)n_out * ld), *back = copy_of(in, (size_t)n_in * ld), *want_de = copy_of(de, n_e);
    cpu->matmul(k.n, k.ld, n_in, n_out, e, n_out, 1, in, want);
    cpu->matmul(k.n, k.ld, n_out, n_in, e, 1, n_out, out, back); /* the transposed matrix, as backwards */
    cpu->outer(k.n, k.ld, n_in, n_out, in, out, want_de);
    struct twin_buffer de_ = up(de, n_e), e_ = up(e, n_e), in_ = up(in, (size_t)n_in * ld), out_ = up(out, (size_t)n_out * ld), out2 = up(out, (size_t)n_out * ld);
    CHECK_CUDA(pva_cuda_spd_outer(k.n, k.ld, n_in, n_out, AT(in_), AT(out_), AT(de_), NULL));
    CHECK_CUDA(pva_cuda_spd_matmul(k.n, k.ld, n_in, n_out, AT(e_), n_out, 1, AT(in_), AT(out2), NULL));
    CHECK_CUDA(pva_cuda_spd_matmul(k.n, k.ld, n_out, n_in, AT(e_), 1, n_out, AT(out_), AT(in_), NULL));
    same(&de_, want_de), same(&out2, want), same(&in_, back);
    RELEASE(&de_, &e_, &in_, &out_, &out2);
    free(e), free(in), free(out), free(de), free(want), free(back), free(want_de);
}

/* Each operand as it is and transposed; the output's rows lie further apart than they are long. */
static void check_product(int n_i, int n_k, int n_j) {
    const ptrdiff_t apart = n_j + 3;
    const struct chunk wide = {n_j, (int)apart};
    float *a = vector((size_t)(n_i * n_k), 1), *b = vector((size_t)(n_k * n_j), 1), *out = node(n_i, wide, 1);
    for (int way = 0; way < 4; way++) {
        const ptrdiff_t a_row = way & 1 ? 1 : n_k, a_col = way & 1 ? n_i : 1, b_row = way & 2 ? 1 : n_j, b_col = way & 2 ? n_k : 1;
        float *want = copy_of(out, (size_t)(n_i * apart));
        cpu->product(n_i, n_k, n_j, a, a_row, a_col, b, b_row, b_col, want, apart);
        struct twin_buffer a_ = up(a, (size_t)(n_i * n_k)), b_ = up(b, (size_t)(n_k * n_j)), out_ = up(out, (size_t)(n_i * apart));
        CHECK_CUDA(pva_cuda_spd_product(n_i, n_k, n_j, AT(a_), a_row, a_col, AT(b_), b_row, b_col, AT(out_), apart, NULL));
        same(&out_, want);
        RELEASE(&a_, &b_, &out_);
        free(want);
    }
    free(a), free(b), free(out);
}

/* 0 times a negative number, added to -0, is -0: nothing may be added beyond the last k. */
static void check_negative_zero(void) {
    const float a[5] = {0}, b[5] = {-1, -2, -3, -4, -5}, zero = -0.0f;
    struct twin_buffer a_ = up(a, 5), b_ = up(b, 5), out_ = up(&zero, 1);
    CHECK_CUDA(pva_cuda_spd_product(1, 5, 1, AT(a_), 5, 1, AT(b_), 1, 1, AT(out_), 1, NULL));
    same(&out_, &zero);
    RELEASE(&a_, &b_, &out_);
}

/* ---- gates ---- */

/* cached: the forward pass keeps what the backward pass reads. all_at_once: else the work memory has room for one component. */
static void check_gate(struct chunk k, int C, struct spd_gate_shape g, int shared, int cached, int with_din, int all_at_once) {
    g.n_params = 0;
    for (int l = 0; l < g.n_layers; l++) g.n_params += (g.d[l] + 1) * g.d[l + 1];
    const int in_step = shared ? 0 : k.ld, n_in = shared ? g.d[0] : C;
    const size_t ld = (size_t)k.ld, n_params = (size_t)(C * g.n_params), n_cache = cached ? (size_t)(C * g.d[1]) * ld : 0;
    float *params = vector(n_params, 1), *in = node(n_in, k, 1.5f), *draw = node(C, k, 1), *din = node(n_in, k, 1), *dparams = vector(n_params, 1);
    float *raw = node(C, (struct chunk){0, k.ld}, 1), *cache = node(cached ? C * g.d[1] : 0, (struct chunk){0, k.ld}, 1);
    struct twin_buffer params_ = up(params, n_params), in_ = up(in, (size_t)n_in * ld), draw_ = up(draw, (size_t)C * ld), din_ = up(din, (size_t)n_in * ld);
    struct twin_buffer dparams_ = up(dparams, n_params), raw_ = up(raw, (size_t)C * ld), cache_ = up(cache, n_cache);
    const size_t whole = pva_cuda_spd_gate_bytes(k.n, C, &g), bytes = all_at_once || C == 0 ? whole : pva_cuda_spd_gate_bytes(k.n, 1, &g) + 12;
    struct twin_buffer work = twin_new(NULL, bytes);
    CHECK_CUDA(pva_cuda_spd_gate_forward(k.n, k.ld, C, &g, AT(params_), AT(in_), in_step, AT(raw_), cached ? AT(cache_) : NULL, work.p, bytes, NULL));
    CHECK_CUDA(pva_cuda_spd_gate_backward(k.n, k.ld, C, &g, AT(params_), AT(in_), in_step, cached ? AT(cache_) : NULL, AT(draw_), AT(dparams_),
                                          with_din ? AT(din_) : NULL, work.p, bytes, NULL));
    for (int c = 0; c < C; c++) {
        const float *p = params + c * g.n_params, *x = in + c * in_step;
        float *own = cached ? cache + (size_t)(c * g.d[1]) * ld : NULL;
        cpu->gate_forward(k.n, k.ld, &g, p, x, raw + (size_t)c * ld, own);
        cpu->gate_backward(k.n, k.ld, &g, p, x, own, draw + (size_t)c * ld, dparams + c * g.n_params, with_din ? din + c * in_step : NULL);
    }
    same(&raw_, raw), same(&cache_, cache), same(&dparams_, dparams), same(&din_, din);
    RELEASE(&params_, &in_, &draw_, &din_, &dparams_, &raw_, &cache_, &work);
    free(params), free(in), free(draw), free(din), free(dparams), free(raw), free(cache);
}

static void check_gates(struct chunk k) {
    const struct spd_gate_shape one = {2, {1, 5, 1}, 0}, deep = {3, {1, 4, 3, 1}, 0}, linear = {1, {7, 1}, 0}, wide = {2, {7, 5, 1}, 0}, both = {3, {3, 6, 2, 1}, 0};
    check_gate(k, 7, one, 0, 1, 1, 1);
    check_gate(k, 1, one, 0, 0, 1, 1);
    check_gate(k, 9, one, 0, 0, 0, 1);
    check_gate(k, 3, one, 1, 0, 1, 1); /* one input feature and gates that read the whole input */
    check_gate(k, 5, deep, 0, 0, 1, 1);
    check_gate(k, 3, deep, 0, 0, 1, 0);
    check_gate(k, 6, linear, 1, 0, 1, 0);
    check_gate(k, 5, wide, 1, 0, 1, 1);
    check_gate(k, 4, both, 1, 0, 0, 0);
}

/* ---- element by element ---- */

/* exp is the device's own, within 2 units in the last place; of the numbers below at most 20 such errors and roundings meet, times at most 10 z < 60. */
static void near(const struct twin_buffer *b, const float *want, double tolerance) {
#ifdef PVA_SIMT
    (void)tolerance;
    same(b, want);
#else
    size_t n = b->bytes / sizeof(float);
    float *got = twin_alloc(b->bytes);
    double *wide = twin_alloc(n * sizeof *wide);
    twin_read(b, got);
    for (size_t i = 0; i < n; i++) wide[i] = (double)want[i];
    CHECK_INT(twin_differ(got, wide, n, 4 * 0x1p-23, tolerance), 0);
    free(got), free(wide);
#endif
}

static void check_rows(struct chunk k, int dim) {
    const size_t ld = (size_t)k.ld, all = (size_t)dim * ld;
    float *x = node(dim, k, 1.5f), *dy = node(dim, k, 1), *dx = node(dim, k, 1), *g = node(dim, k, 0.5f), *r = node(dim, k, 0.5f);
    float *empty = node(dim, (struct chunk){0, k.ld}, 1);
    struct twin_buffer x_ = up(x, all), dy_ = up(dy, all), g_ = up(g, all), r_ = up(r, all);
    for (int t = SPD_NORMAL; t <= SPD_SWISH_HARD; t++) {
        const int smooth = t == SPD_NORMAL || t == SPD_SWISH_HARD;
        float *want = copy_of(empty, all), *want_dx = copy_of(dx, all);
        struct twin_buffer y_ = up(empty, all), dx_ = up(dx, all);
        for (int i = 0; i < dim; i++) {
            cpu->sigmoid(k.n, (enum spd_sigmoid)t, x + (size_t)i * ld, want + (size_t)i * ld);
            cpu->sigmoid_backward(k.n, (enum spd_sigmoid)t, x + (size_t)i * ld, dy + (size_t)i * ld, want_dx + (size_t)i * ld);
        }
        CHECK_CUDA(pva_cuda_spd_sigmoid(dim, k.n, k.ld, (enum spd_sigmoid)t, AT(x_), AT(y_), NULL));
        CHECK_CUDA(pva_cuda_spd_sigmoid_backward(dim, k.n, k.ld, (enum spd_sigmoid)t, AT(x_), AT(dy_), AT(dx_), NULL));
        if (smooth) near(&y_, want, 20 * 0x1p-23 * 6), near(&dx_, want_dx, 20 * 0x1p-23 * 60);
        else same(&y_, want), same(&dx_, want_dx);
        RELEASE(&y_, &dx_);
        free(want), free(want_dx);
    }
    struct twin_buffer s_ = up(empty, all), da_ = up(dx, all), dg_ = up(x, all);
    CHECK_CUDA(pva_cuda_spd_mask(dim, k.n, k.ld, AT(x_), AT(g_), AT(r_), AT(s_), NULL));
    CHECK_CUDA(pva_cuda_spd_mask_backward(dim, k.n, k.ld, AT(x_), AT(g_), AT(r_), AT(dy_), AT(da_), AT(dg_), NULL));
    float *dg = copy_of(x, all);
    for (int i = 0; i < dim; i++) {
        const size_t at = (size_t)i * ld;
        cpu->mask(k.n, x + at, g + at, r + at, empty + at);
        cpu->mask_backward(k.n, x + at, g + at, r + at, dy + at, dx + at, dg + at);
    }
    same(&s_, empty), same(&da_, dx), same(&dg_, dg);
    RELEASE(&x_, &dy_, &g_, &r_, &s_, &da_, &dg_);
    free(x), free(dy), free(dx), free(g), free(r), free(empty), free(dg);
}

static void check_draws(struct chunk k, int dim) {
    const size_t ld = (size_t)k.ld, all = (size_t)dim * ld;
    uint32_t *sample = twin_alloc(ld * sizeof *sample);
    float *want = node(dim, (struct chunk){0, k.ld}, 1);
    for (int s = 0; s < k.ld; s++) sample[s] = 4000000000u + 7 * (uint32_t)s;
    struct twin_buffer sample_ = up(sample, ld), out_ = up(want, all);
    CHECK_CUDA(pva_cuda_spd_uniform(dim, k.n, k.ld, 0x0123456789abcdefu, 17, (uint32_t *)sample_.p, 3u << 24, 9, AT(out_), NULL));
    for (int r = 0; r < dim; r += 4)
        cpu->uniform(k.n, k.ld, 0x0123456789abcdefu, 17, sample, (3u << 24) + (uint32_t)r / 4, 9, dim - r < 4 ? dim - r : 4, want + (size_t)r * ld);
    same(&out_, want);
    RELEASE(&sample_, &out_);
    free(sample), free(want);
}

/* ---- losses ---- */

static void check_losses(struct chunk k, int dim) {
    const size_t ld = (size_t)k.ld, all = (size_t)dim * ld;
    float *y = node(dim, k, 1), *t = node(dim, k, 1), *w = node(1, k, 1), *dy = node(dim, (struct chunk){0, k.ld}, 1);
    for (int s = 0; s < k.n; s++) w[s] = s % 5 ? 1 : s % 2 ? 0 : 12;
    double sums[2] = {0.25, 1e9}, *counts = twin_alloc((size_t)dim * sizeof *counts);
    for (int r = 0; r < dim; r++) counts[r] = r * 0.5;
    struct twin_buffer y_ = up(y, all), t_ = up(t, all), w_ = up(w, ld), dy_ = up(dy, all), sums_ = twin_new(sums, sizeof sums), rows_ = up(NULL, (size_t)dim);
    struct twin_buffer counts_ = twin_new(counts, (size_t)dim * sizeof *counts);
    double *out = (double *)sums_.p;
    CHECK_CUDA(pva_cuda_spd_squares(dim, k.n, k.ld, AT(y_), AT(t_), AT(w_), 0.3f, AT(dy_), AT(rows_), out, NULL));
    CHECK_CUDA(pva_cuda_spd_squares(dim, k.n, k.ld, AT(t_), AT(y_), AT(w_), 0.3f, NULL, AT(rows_), out + 1, NULL));
    CHECK_CUDA(pva_cuda_spd_weighted_count(dim, k.n, k.ld, AT(w_), AT(y_), 0.1f, (double *)counts_.p, NULL));
    for (int r = 0; r < dim; r++) {
        const size_t at = (size_t)r * ld;
        cpu->squares(k.n, y + at, t + at, w, 0.3f, dy + at, &sums[0]);
        cpu->squares(k.n, t + at, y + at, w, 0.3f, NULL, &sums[1]);
        counts[r] += cpu->weighted_count(k.n, w, y + at, 0.1f);
    }
    same(&sums_, sums), same(&dy_, dy), same(&counts_, counts);
    CHECK(k.n == 0 || sums[0] > 1);
    RELEASE(&y_, &t_, &w_, &dy_, &sums_, &rows_, &counts_);
    free(y), free(t), free(w), free(dy), free(counts);
}

static void check_importance(struct chunk k, int dim, double p) {
    const struct spd_device d = spd_device_cpu(cpu);
    const size_t ld = (size_t)k.ld, all = (size_t)dim * ld;
    float *g = node(dim, k, 1), *w = node(1, k, 1), *dg = node(dim, k, 1);
    for (int r = 0; r < dim; r++)
        for (int s = 0; s < k.n; s++) g[(size_t)r * ld + (size_t)s] = fabsf(g[(size_t)r * ld + (size_t)s]);
    double sum[2] = {0.5, 0.25}, got[2];
    struct twin_buffer g_ = up(g, all), w_ = up(w, ld), dg_ = up(dg, all), sum_ = twin_new(sum, sizeof sum), rows_ = up(NULL, (size_t)dim);
    double *out = (double *)sum_.p;
    CHECK_CUDA(pva_cuda_spd_importance(dim, k.n, k.ld, AT(w_), AT(g_), p, 0.3f, AT(dg_), AT(rows_), out, NULL));
    CHECK_CUDA(pva_cuda_spd_importance(dim, k.n, k.ld, AT(w_), AT(g_), p, 0.3f, NULL, AT(rows_), out + 1, NULL));
    d.ops->importance(d.own, dim, k.n, k.ld, w, g, p, 0.3f, dg, &sum[0]);
    d.ops->importance(d.own, dim, k.n, k.ld, w, g, p, 0.3f, NULL, &sum[1]);
    if (p == 1 || p == 2) {
        same(&sum_, sum), same(&dg_, dg);
    } else { /* pow is the device's own, within 4 units in the last place; then two products */
        near(&dg_, dg, 8 * 0x1p-23 * 10);
        twin_read(&sum_, got);
        for (int i = 0; i < 2; i++) CHECK_NEAR(got[i], sum[i], 1e-5 * (1 + fabs(sum[i]) + k.n * dim));
    }
    RELEASE(&g_, &w_, &dg_, &sum_, &rows_);
    free(g), free(w), free(dg);
}

/* What has no arithmetic to speak of. */
static void check_plain(struct chunk k, int dim) {
    const struct spd_device d = spd_device_cpu(cpu);
    const size_t all = (size_t)dim * (size_t)k.ld;
    float *x = node(dim, k, 1), *dy = node(dim, k, 1), *bias = vector((size_t)dim, 0.3f), *want[7];
    struct twin_buffer x_ = up(x, all), dy_ = up(dy, all), bias_ = up(bias, (size_t)dim), out[7];
    for (int i = 0; i < 7; i++) want[i] = node(dim, k, 1), out[i] = up(want[i], all);
    CHECK_CUDA(pva_cuda_spd_clear(dim, k.n, k.ld, AT(out[0]), NULL));
    CHECK_CUDA(pva_cuda_spd_copy(dim, k.n, k.ld, AT(x_), AT(out[1]), NULL));
    CHECK_CUDA(pva_cuda_spd_add(dim, k.n, k.ld, AT(x_), AT(out[2]), NULL));
    CHECK_CUDA(pva_cuda_spd_relu(dim, k.n, k.ld, AT(x_), dim % 2 ? AT(bias_) : NULL, AT(out[3]), NULL));
    CHECK_CUDA(pva_cuda_spd_relu_backward(dim, k.n, k.ld, AT(x_), AT(dy_), AT(out[4]), NULL));
    CHECK_CUDA(pva_cuda_spd_absolute(dim, k.n, k.ld, AT(x_), AT(out[5]), NULL));
    CHECK_CUDA(pva_cuda_spd_absolute_backward(dim, k.n, k.ld, AT(x_), AT(dy_), AT(out[6]), NULL));
    d.ops->clear(d.own, dim, k.n, k.ld, want[0]);
    d.ops->copy(d.own, dim, k.n, k.ld, x, want[1]);
    d.ops->add(d.own, dim, k.n, k.ld, x, want[2]);
    d.ops->relu(d.own, dim, k.n, k.ld, x, dim % 2 ? bias : NULL, want[3]);
    d.ops->relu_backward(d.own, dim, k.n, k.ld, x, dy, want[4]);
    d.ops->absolute(d.own, dim, k.n, k.ld, x, want[5]);
    d.ops->absolute_backward(d.own, dim, k.n, k.ld, x, dy, want[6]);
    for (int i = 0; i < 7; i++) same(&out[i], want[i]), twin_free(&out[i]), free(want[i]);
    RELEASE(&x_, &dy_, &bias_);
    free(x), free(dy), free(bias);
}

static void check_vectors(int n, int m) {
    const struct spd_device d = spd_device_cpu(cpu);
    const size_t all = (size_t)(n * m);
    float *x = vector(all, 1), *y = vector(all, 1), *z = vector(all, 1), *turned = vector(all, 1);
    double sum = 0.5, got;
    struct twin_buffer x_ = up(x, all), y_ = up(y, all), z_ = up(z, all), turned_ = up(turned, all), sum_ = twin_new(&sum, sizeof sum);
    struct twin_buffer blocks = twin_new(NULL, PVA_CUDA_SPD_SUMS * sizeof(double));
    CHECK_CUDA(pva_cuda_spd_negated(all, AT(x_), AT(y_), NULL));
    CHECK_CUDA(pva_cuda_spd_scaled(all, 0.3f, AT(z_), NULL));
    CHECK_CUDA(pva_cuda_spd_transpose(n, m, AT(x_), AT(turned_), NULL));
    CHECK_CUDA(pva_cuda_spd_sum_squares(all, AT(x_), (double *)blocks.p, (double *)sum_.p, NULL));
    d.ops->negated(d.own, all, x, y);
    d.ops->scaled(d.own, all, 0.3f, z);
    d.ops->transpose(d.own, n, m, x, turned);
    d.ops->sum_squares(d.own, all, x, &sum);
    same(&y_, y), same(&z_, z), same(&turned_, turned);
    twin_read(&sum_, &got);
    CHECK_NEAR(got, sum, 2 * (double)(all + 1) * 0x1p-53 * sum); /* both orders' roundings, of terms that are all positive */
    RELEASE(&x_, &y_, &z_, &turned_, &sum_, &blocks);
    free(x), free(y), free(z), free(turned);
}

static void check_adam(size_t n) {
    const struct spd_adam a = {1e-3f, 0.9f, 0.999f, 1e-8f, 0.01f, 0.271f, 0.003f};
    float *grad = vector(n, 1), *m = vector(n, 0.1f), *v = vector(n, 0.1f), *p = vector(n, 1);
    for (size_t i = 0; i < n; i++) v[i] = v[i] * v[i];
    struct twin_buffer grad_ = up(grad, n), m_ = up(m, n), v_ = up(v, n), p_ = up(p, n);
    CHECK_CUDA(pva_cuda_spd_adam(n, &a, AT(grad_), AT(m_), AT(v_), AT(p_), NULL));
    cpu->adam(n, &a, grad, m, v, p);
    same(&m_, m), same(&v_, v), same(&p_, p);
    RELEASE(&grad_, &m_, &v_, &p_);
    free(grad), free(m), free(v), free(p);
}

int main(void) {
    twin_start();
    twin_check_comparators();
    for (int o = 0; twin_order(o); o++) {
        for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
            const struct chunk k = chunks[i];
            twin_shift = i % 2 ? 8 : 0; /* of the doubles' alignment */
            check_products(k, 7, 9), check_products(k, 1, 18);
            check_gates(k);
            check_rows(k, 5), check_rows(k, 1), check_draws(k, 6), check_draws(k, 8), check_draws(k, 1);
            check_losses(k, 11), check_losses(k, 1), check_losses(k, 8);
            check_importance(k, 9, 1), check_importance(k, 3, 2), check_importance(k, 10, 1.7);
            check_plain(k, 5), check_plain(k, 2);
        }
        check_product(1, 1, 1), check_product(33, 70, 35), check_product(5, 31, 64), check_product(2, 0, 3), check_negative_zero();
        check_vectors(1, 1), check_vectors(0, 3), check_vectors(31, 83);
        check_adam(0), check_adam(1), check_adam(515);
    }
    return check_report("twin_spd");
}
