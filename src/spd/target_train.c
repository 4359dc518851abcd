/* Training of target models: batches of sparse inputs in eight shares, AdamW, the recipes of the reference. */
#include "data.h"
#include "graph.h"
#include "target.h"

#include <math.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

enum { SHARES = 8, CHUNK = 128, MOST_TRIES = 32 };

double spd_schedule(const char *kind, double halflife, double warmup, int64_t step, int64_t steps) {
    int64_t warm = (int64_t)(warmup * (double)steps), t = step - warm, total = steps - warm;
    if (t < 0) return (double)step / (double)warm;
    if (!strcmp(kind, "linear")) return 1 - (double)t / (double)total;
    /* A quarter of a period, as the reference had it; it ends at 0. */
    if (!strcmp(kind, "cosine")) return total > 1 ? cos(0.5 * 3.14159265358979323846 * (double)t / (double)(total - 1)) : 1;
    if (!strcmp(kind, "exponential")) return pow(0.5, (double)t / halflife);
    return 1;
}

static void uniform_within(double limit, uint64_t seed, uint32_t use, size_t n, float *out) {
    double *d = malloc(n * sizeof *d);
    PVA_ASSERT(d);
    spd_draw_uniform(seed, use, n, d);
    for (size_t i = 0; i < n; i++) out[i] = (float)((2 * d[i] - 1) * limit);
    free(d);
}

void spd_target_initialise(struct pva_spd_target *t, int64_t seed, int zero_bias) {
    const int f = t->n_features, h = t->n_hidden, last = t->n_layers - 1;
    t->seed = seed;
    for (int i = 0; i < t->n_layers; i++) {
        struct pva_spd_layer *l = &t->layers[i];
        uniform_within(1 / sqrt(l->n_in), (uint64_t)seed, (uint32_t)i, (size_t)l->n_in * (size_t)l->n_out, l->weight);
        if (!t->residual && i > 0 && i < last)
            for (int a = 0; a < h; a++)
                for (int b = 0; b < h; b++) l->weight[a * h + b] = a == b;
    }
    if (!t->residual) {
        for (int i = 0; i < f; i++)
            for (int j = 0; j < h; j++) t->layers[last].weight[j * f + i] = t->layers[0].weight[i * h + j];
        if (!zero_bias) uniform_within(1 / sqrt(h), (uint64_t)seed, 100, (size_t)f, t->bias);
        return;
    }
    size_t n = (size_t)f * (size_t)t->n_embed;
    double *d = malloc(n * sizeof *d);
    PVA_ASSERT(d);
    spd_draw_normal((uint64_t)seed, 101, n, d);
    for (int i = 0; i < f; i++) {
        double *row = d + (size_t)i * (size_t)t->n_embed, norm = 0;
        for (int j = 0; j < t->n_embed; j++) norm += row[j] * row[j];
        norm = sqrt(norm);
        for (int j = 0; j < t->n_embed; j++)
            t->embed[(size_t)i * (size_t)t->n_embed + j] = t->readout[(size_t)j * (size_t)f + i] = (float)(row[j] / norm);
        t->label_coeffs[i] = 1; /* trivial coefficients */
    }
    free(d);
}

struct trainer {
    struct pva_spd_target *t;
    const struct spd_recipe *recipe;
    const struct spd_kernels *kernels;
    struct spd_graph graph;
    struct spd_data data;
    int x, y; /* nodes */
    size_t n_params, at[PVA_SPD_MAX_MODULES], bias_at;
    real *params, *m, *v, *constants, *grads; /* grads [SHARES][n_slots] */
    real *arenas;                             /* [threads][n_rows * CHUNK] */
    double loss[SHARES];
};

static real *reals(size_t n) {
    real *p = calloc(n ? n : 1, sizeof *p);
    PVA_ASSERT(p);
    return p;
}

/* Layers of a TMS in between are the identity and not trained: x passes them unchanged. */
static void build(struct trainer *tr, int threads) {
    struct pva_spd_target *t = tr->t;
    struct spd_graph *g = &tr->graph;
    g->device = spd_device_cpu(tr->kernels);
    size_t n = 0;
    for (int i = 0; i < t->n_layers; i++) {
        tr->at[i] = n;
        if (t->residual || i == 0 || i == t->n_layers - 1) n += (size_t)t->layers[i].n_in * (size_t)t->layers[i].n_out;
    }
    tr->bias_at = n;
    if (!t->residual) n += (size_t)t->n_features;
    tr->n_params = n;
    g->n_slots = (ptrdiff_t)n;
    tr->params = reals(n), tr->m = reals(n), tr->v = reals(n);
    for (int i = 0; i < t->n_layers; i++)
        if (t->residual || i == 0 || i == t->n_layers - 1)
            for (size_t j = 0; j < (size_t)t->layers[i].n_in * (size_t)t->layers[i].n_out; j++)
                tr->params[tr->at[i] + j] = t->layers[i].weight[j];
    tr->x = spd_graph_node(g, t->n_features, 0);
    if (!t->residual) {
        for (int f = 0; f < t->n_features; f++) tr->params[tr->bias_at + (size_t)f] = t->bias[f];
        int last = t->n_layers - 1;
        int first = spd_graph_matrix(g, t->n_features, t->n_hidden, tr->params, 0);
        int second = spd_graph_matrix(g, t->n_hidden, t->n_features, tr->params + tr->at[last], (ptrdiff_t)tr->at[last]);
        int before = spd_graph_matmul(g, spd_graph_matmul(g, tr->x, first, -1), second, -1);
        tr->y = spd_graph_node(g, t->n_features, 1);
        struct spd_op *relu = spd_graph_op(g, SPD_RELU, before, tr->y, -1);
        relu->bias = tr->params + tr->bias_at;
        relu->bias_grad = (ptrdiff_t)tr->bias_at;
    } else {
        size_t e = (size_t)t->n_features * (size_t)t->n_embed;
        tr->constants = reals(2 * e);
        for (size_t i = 0; i < e; i++) tr->constants[i] = t->embed[i], tr->constants[e + i] = t->readout[i];
        int embed = spd_graph_matrix(g, t->n_features, t->n_embed, tr->constants, -1),
            readout = spd_graph_matrix(g, t->n_embed, t->n_features, tr->constants + e, -1);
        int acts[PVA_SPD_MAX_MODULES], outs[PVA_SPD_MAX_MODULES];
        for (int b = 0; b <= t->n_blocks; b++) { /* the last round reads the stream out */
            int in = readout;
            if (b < t->n_blocks) {
                in = spd_graph_matrix(g, t->n_embed, t->n_hidden, tr->params + tr->at[2 * b], (ptrdiff_t)tr->at[2 * b]);
                outs[b] =
                    spd_graph_matrix(g, t->n_hidden, t->n_embed, tr->params + tr->at[2 * b + 1], (ptrdiff_t)tr->at[2 * b + 1]);
            }
            int sum = spd_graph_node(g, g->matrices[in].n_out, 1);
            spd_graph_op(g, SPD_MATMUL, tr->x, sum, -1)->matrix = spd_graph_product(g, embed, in);
            for (int j = 0; j < b; j++) {
                int product = spd_graph_product(g, outs[j], in);
                spd_graph_op(g, SPD_MATMUL, acts[j], sum, -1)->matrix = product;
            }
            if (b == t->n_blocks) tr->y = sum;
            else {
                acts[b] = spd_graph_node(g, t->n_hidden, 1);
                spd_graph_op(g, SPD_RELU, sum, acts[b], -1);
            }
        }
    }
    struct pva_error err = {0};
    PVA_ASSERT(!spd_graph_finish(g, CHUNK, &err));
    tr->grads = reals(SHARES * (size_t)g->n_slots);
    tr->arenas = reals((size_t)threads * g->n_rows * CHUNK);
}

static void share(struct trainer *tr, int64_t step, int s, real *arena) {
    const struct spd_graph *g = &tr->graph;
    const int f = tr->t->n_features, batch = (int)tr->recipe->batch, end = (int)((int64_t)batch * (s + 1) / SHARES);
    real *grad = tr->grads + (size_t)s * (size_t)g->n_slots, ones[CHUNK], label[CHUNK];
    unsigned char on[1] = {1};
    memset(grad, 0, (size_t)g->n_slots * sizeof *grad);
    tr->loss[s] = 0;
    for (int first = (int)((int64_t)batch * s / SHARES); first < end; first += CHUNK) {
        int n = end - first < CHUNK ? end - first : CHUNK, padded = spd_padded(n);
        real *x = spd_value(g, arena, tr->x), *y = spd_value(g, arena, tr->y), *dy = spd_gradient(g, arena, tr->y);
        spd_data_fill(&tr->data, tr->kernels, (uint64_t)tr->t->seed, (uint32_t)step, SPD_DRAW_TRAIN, (uint32_t)first, n, CHUNK,
                      x);
        spd_graph_forward(g, arena, padded, on);
        spd_graph_clear(g, arena);
        for (int i = 0; i < CHUNK; i++) ones[i] = i < n;
        for (int i = 0; i < f; i++) {
            for (int c = 0; c < padded; c++) {
                real v = x[i * CHUNK + c], scaled = tr->t->residual ? (real)tr->t->label_coeffs[i] * v : 0;
                label[c] = tr->t->residual ? v + (scaled > 0 ? scaled : 0) : v < 0 ? -v : v;
            }
            tr->kernels->squares(padded, y + i * CHUNK, label, ones, (real)(2.0 / ((double)batch * f)), dy + i * CHUNK,
                                 &tr->loss[s]);
        }
        spd_graph_backward(g, arena, padded, on, grad);
    }
}

static void copy_transposed(int n, int m, const real *from, real *to) { /* from [n][m] */
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++) to[j * n + i] = from[i * m + j];
}

static double run_step(struct trainer *tr, int64_t step, int threads) {
    const struct spd_graph *g = &tr->graph;
    const struct pva_spd_target *t = tr->t;
    spd_graph_form_products(&tr->graph, 0, 1);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int s = 0; s < SHARES; s++) {
        /* Each thread owns a contiguous run of shares, so its arena is known from the share. */
        share(tr, step, s, tr->arenas + (size_t)(s * threads / SHARES) * g->n_rows * CHUNK);
    }
    double loss = 0;
    for (int s = 0; s < SHARES; s++) {
        loss += tr->loss[s];
        const real *from = tr->grads + (size_t)s * (size_t)g->n_slots;
        if (s)
            for (ptrdiff_t i = 0; i < g->n_slots; i++) tr->grads[i] += from[i];
    }
    spd_graph_return_products(g, tr->grads, 0, 1);
    double scale = tr->recipe->cosine ? spd_schedule("cosine", 0, 0, step, tr->recipe->steps) : 1;
    struct spd_adam a = {(real)(tr->recipe->lr * scale),
                         (real)0.9,
                         (real)0.999,
                         (real)1e-8,
                         (real)0.01,
                         (real)(1 - pow(0.9, (double)step + 1)),
                         (real)(1 - pow(0.999, (double)step + 1))};
    if (t->tied) { /* two parameters over one storage: both updates in turn */
        size_t second = tr->at[t->n_layers - 1], n = (size_t)t->n_features * (size_t)t->n_hidden;
        tr->kernels->adam(n, &a, tr->grads, tr->m, tr->v, tr->params);
        copy_transposed(t->n_features, t->n_hidden, tr->params, tr->params + second);
        tr->kernels->adam(tr->n_params - second, &a, tr->grads + second, tr->m + second, tr->v + second, tr->params + second);
        copy_transposed(t->n_hidden, t->n_features, tr->params + second, tr->params);
    } else {
        tr->kernels->adam(tr->n_params, &a, tr->grads, tr->m, tr->v, tr->params);
    }
    return loss / ((double)tr->recipe->batch * t->n_features);
}

static int is_good(const struct pva_spd_target *t) {
    if (t->residual) return 1;
    for (int f = 0; f < t->n_features; f++) {
        double norm = 0;
        for (int h = 0; h < t->n_hidden; h++)
            norm += (double)t->layers[0].weight[f * t->n_hidden + h] * (double)t->layers[0].weight[f * t->n_hidden + h];
        if (!(sqrt(norm) > 0.5)) return 0;
    }
    return 1;
}

static int train_once(const struct spd_recipe *r, int64_t seed, int threads,
                      int (*progress)(void *user, int64_t step, int64_t steps, double loss), void *user, struct pva_spd_target *t,
                      struct pva_error *err) {
    if (spd_target_shape(r->residual, r->n_features, r->n_hidden, r->n_extra, r->n_embed, t, err)) return err->code;
    spd_target_initialise(t, seed, r->zero_bias);
    snprintf(t->recipe, sizeof t->recipe, "%s", r->key);
    struct trainer tr = {.t = t, .recipe = r, .kernels = spd_kernels_best()};
    tr.data = (struct spd_data){.n_features = t->n_features,
                                .probability = (real)r->probability,
                                .low = r->residual ? -1 : 0,
                                .high = 1};
    build(&tr, threads);
    int status = PVA_OK;
    double mean = 0;
    for (int64_t step = 0; step < r->steps && !status; step++) {
        double loss = run_step(&tr, step, threads);
        mean = step ? mean + (loss - mean) * (step < 100 ? 1.0 / (double)(step + 1) : 0.01) : loss; /* one batch alone is noisy */
        if (step % 50 == 49 && progress && progress(user, step + 1, r->steps, mean)) status = PVA_STOPPED;
    }
    t->loss = mean;
    for (int i = 0; i < t->n_layers; i++)
        if (t->residual || i == 0 || i == t->n_layers - 1)
            for (size_t j = 0; j < (size_t)t->layers[i].n_in * (size_t)t->layers[i].n_out; j++)
                t->layers[i].weight[j] = (float)tr.params[tr.at[i] + j];
    if (!t->residual)
        for (int f = 0; f < t->n_features; f++) t->bias[f] = (float)tr.params[tr.bias_at + (size_t)f];
    free(tr.params);
    free(tr.m);
    free(tr.v);
    free(tr.constants);
    free(tr.grads);
    free(tr.arenas);
    spd_graph_free(&tr.graph);
    if (status) {
        pva_spd_target_free(t);
        pva_fail(err, PVA_STOPPED, "stopped while the target was trained; nothing of it is kept");
    }
    return status;
}

int pva_spd_target_train(const char *key, int64_t seed, int threads,
                         int (*progress)(void *user, int64_t step, int64_t steps, double loss), void *user,
                         struct pva_spd_target *out, struct pva_error *err) {
    const struct spd_recipe *r;
    memset(out, 0, sizeof *out);
    if (spd_recipe_find(key, &r, err)) return err->code;
    threads = threads < 1 ? 1 : threads > SHARES ? SHARES : threads;
    while (SHARES % threads) threads--; /* equal runs of shares */
    for (int try = 0; try < MOST_TRIES; try++) {
        if (train_once(r, seed + try, threads, progress, user, out, err)) return err->code;
        if (is_good(out)) return PVA_OK;
        pva_spd_target_free(out);
    }
    return pva_fail(err, PVA_CHECK, "target %s: none of the seeds %lld to %lld represents every feature", key, (long long)seed,
                    (long long)seed + MOST_TRIES - 1);
}
