#include "engine.h"

#include "model.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* bytes of zeroed memory on the device; the first failure stays in e->late. */
static void *take(struct spd_engine *e, size_t bytes) {
    void *p = NULL;
    if (!e->late.code) e->graph.device.ops->alloc(e->graph.device.own, bytes, &p, &e->late);
    return p;
}

/* The host's copy of what lies on the device: the same memory there. */
static void *twin_of(struct spd_engine *e, void *on_device, size_t bytes) {
    if (e->graph.device.ops->is_host) return on_device;
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p && !e->late.code) pva_fail(&e->late, PVA_IO, "out of memory");
    return p;
}

enum { MOST_COLUMNS = 1024 }; /* of a chunk, anywhere */

#define OPS (e->graph.device.ops)
#define OWN (e->graph.device.own)

/* Whether work on parameters alone is worth waking threads for. */
static int is_wide(const struct spd_engine *e) { return e->threads > 1 && e->n_params > 20000; }

/* Modules in the order of the computation; `order` remembers how the patterns name them. */
static int find_modules(struct spd_engine *e, struct pva_error *err) {
    const struct pva_spd_config *c = e->config;
    const struct pva_spd_target *t = e->target;
    int by_layer[PVA_SPD_MAX_MODULES];
    for (int l = 0; l < t->n_layers; l++) {
        by_layer[l] = -1;
        for (int p = 0; p < c->n_patterns && by_layer[l] < 0; p++)
            if (!fnmatch(c->patterns[p], t->layers[l].name, 0)) by_layer[l] = e->n_modules;
        if (by_layer[l] < 0) continue;
        struct spd_module *m = &e->modules[e->n_modules++];
        *m = (struct spd_module){.layer = l, .d_in = t->layers[l].n_in, .d_out = t->layers[l].n_out, .tied_to = -1};
        strcpy(m->path, t->layers[l].name);
    }
    if (t->tied && by_layer[0] >= 0 && by_layer[t->n_layers - 1] >= 0)
        e->modules[by_layer[t->n_layers - 1]].tied_to = by_layer[0];
    int n = 0;
    for (int p = 0; p < c->n_patterns; p++) {
        int found = 0;
        for (int i = 0; i < e->n_modules; i++) {
            if (fnmatch(c->patterns[p], e->modules[i].path, 0)) continue;
            found = 1;
            int seen = 0;
            for (int k = 0; k < n; k++) seen |= e->order[k] == i;
            if (!seen) e->order[n++] = i;
        }
        if (!found)
            return pva_fail(err, PVA_INPUT, "target_module_patterns: no module of the target matches \"%s\"", c->patterns[p]);
    }
    return PVA_OK;
}

static int shape_gates(struct spd_engine *e, struct pva_error *err) {
    const struct pva_spd_config *c = e->config;
    for (int i = 0; i < e->n_modules; i++) {
        struct spd_gate_shape *g = &e->modules[i].shape;
        g->n_layers = c->n_gate_hidden + 1;
        g->d[0] = c->gate_vector ? e->modules[i].d_in : 1;
        g->d[g->n_layers] = 1;
        int total = 1;
        for (int l = 0; l < c->n_gate_hidden; l++) total += g->d[l + 1] = c->gate_hidden[l];
        for (int l = 0; l < g->n_layers; l++) g->n_params += g->d[l] * g->d[l + 1] + g->d[l + 1];
        if (total > SPD_MAX_GATE_WIDTH)
            return pva_fail(err, PVA_INPUT, "gate_hidden_dims: %d in all, at most %d are supported", total - 1,
                            SPD_MAX_GATE_WIDTH - 1);
    }
    return PVA_OK;
}

static void copy_constants(struct spd_engine *e) {
    const struct pva_spd_target *t = e->target;
    size_t n = t->residual ? 2 * (size_t)t->n_features * (size_t)t->n_embed : (size_t)t->n_features, at = 0;
    for (int l = 0; l < t->n_layers; l++) n += (size_t)t->layers[l].n_in * (size_t)t->layers[l].n_out;
    e->on.constants = take(e, n * sizeof(real));
    real *host = malloc(n * sizeof *host + 1);
    if (!host && !e->late.code) pva_fail(&e->late, PVA_IO, "out of memory");
    if (e->late.code) {
        free(host);
        return;
    }
    if (!t->residual)
        for (int f = 0; f < t->n_features; f++) host[at++] = t->bias[f];
    for (int l = 0; l < t->n_layers; l++) {
        for (int i = 0; i < e->n_modules; i++)
            if (e->modules[i].layer == l) e->modules[i].weight = e->on.constants + at;
        for (size_t i = 0; i < (size_t)t->layers[l].n_in * (size_t)t->layers[l].n_out; i++) host[at++] = t->layers[l].weight[i];
    }
    for (size_t i = 0; t->residual && i < (size_t)t->n_features * (size_t)t->n_embed; i++) host[at++] = t->embed[i];
    for (size_t i = 0; t->residual && i < (size_t)t->n_features * (size_t)t->n_embed; i++) host[at++] = t->readout[i];
    OPS->upload(OWN, e->on.constants, host, n * sizeof *host);
    free(host);
}

static void describe_data(struct spd_engine *e) {
    const struct pva_spd_config *c = e->config;
    const char *const exact[] = {"exactly_one_active", "exactly_two_active", "exactly_three_active", "exactly_four_active",
                                 "exactly_five_active"};
    e->data = (struct spd_data){.n_features = e->target->n_features,
                                .probability = (real)c->feature_probability,
                                .low = e->target->residual ? -1 : 0,
                                .high = 1};
    for (int i = 0; i < 5; i++)
        if (!strcmp(c->data_type, exact[i])) e->data.n_active = i + 1;
    if (c->n_synced) e->data.synced = c->synced;
}

static void lay_out_parameters(struct spd_engine *e) {
    size_t n = 0;
    const size_t C = (size_t)e->C;
    for (int i = 0; i < e->n_modules; i++) {
        struct spd_module *m = &e->modules[i];
        m->v = n, n += (size_t)m->d_in * C;
        m->u = n, n += (size_t)m->d_out * C;
        m->gate = n, n += C * (size_t)m->shape.n_params;
    }
    e->n_params = n;
    for (int i = 0; i < e->n_modules; i++) e->modules[i].norms = n, n += C;
    e->graph.n_slots = (ptrdiff_t)n;
    const size_t bytes = e->n_params * sizeof(real);
    e->on.params = take(e, bytes), e->on.m = take(e, bytes), e->on.v = take(e, bytes);
    e->params = twin_of(e, e->on.params, bytes), e->m = twin_of(e, e->on.m, bytes), e->v = twin_of(e, e->on.v, bytes);
}

/* Columns per chunk: on the processor enough to keep the vector units fed, few enough that a chunk's nodes stay in the
 * second-level cache. Elsewhere as many as a share can have. */
static int columns(const struct spd_engine *e) {
    const struct pva_spd_config *c = e->config;
    if (OPS->is_host) return e->C <= 64 ? 128 : 64;
    int64_t largest = c->batch_size > c->eval_batch_size ? c->batch_size : c->eval_batch_size, share = largest / SPD_SHARES + 2;
    PVA_ASSERT(OPS->chunk <= MOST_COLUMNS);
    return share < OPS->chunk ? spd_padded((int)share) : OPS->chunk;
}

static void make_buffers(struct spd_engine *e) {
    const size_t C = (size_t)e->C, chunk = (size_t)e->graph.chunk, arena = e->graph.n_rows * chunk;
    size_t largest = 0, widest = C > (size_t)e->target->n_features ? C : (size_t)e->target->n_features;
    for (int i = 0; i < e->n_modules; i++) {
        size_t n = (size_t)e->modules[i].d_in * (size_t)e->modules[i].d_out;
        if (n > largest) largest = n;
    }
    e->on.grads = take(e, SPD_SHARES * (size_t)e->graph.n_slots * sizeof(real));
    e->on.arenas = take(e, (size_t)e->threads * arena * sizeof(real));
    e->on.rest = take(e, largest * sizeof(real));
    e->on.samples = take(e, chunk * sizeof *e->on.samples), e->on.weights = take(e, chunk * sizeof(real));
    e->on.scalars = take(e, SPD_SHARES * sizeof(double));
    e->on.numbers = take(e, SPD_SHARES * sizeof *e->numbers);
    e->on.active = take(e, (size_t)SPD_SHARES * (size_t)e->n_modules * C * sizeof *e->active);
    e->numbers = twin_of(e, e->on.numbers, SPD_SHARES * sizeof *e->numbers);
    e->active = twin_of(e, e->on.active, (size_t)SPD_SHARES * (size_t)e->n_modules * C * sizeof *e->active);
    real *ones = malloc(widest * chunk * sizeof *ones);
    if (!ones && !e->late.code) pva_fail(&e->late, PVA_IO, "out of memory");
    for (size_t i = 0; ones && i < C * chunk; i++) ones[i] = 1;
    for (int th = 0; th < e->threads && !e->late.code; th++)
        OPS->upload(OWN, spd_value(&e->graph, e->on.arenas + (size_t)th * arena, e->ones), ones, C * chunk * sizeof *ones);
    if (OPS->is_host) free(ones);
    else e->staged = ones;
}

int spd_engine_create_on(const struct pva_backend_ops *ops, struct pva_backend *be, const struct pva_spd_config *c,
                         const struct pva_spd_target *t, int threads, int shortcuts, struct spd_engine **out,
                         struct pva_error *err) {
    struct spd_engine *e = calloc(1, sizeof *e);
    if (!e) return pva_fail(err, PVA_IO, "out of memory");
    *out = e;
    e->config = c;
    e->target = t;
    e->kernels = spd_kernels_best();
    e->graph.device = be ? (struct spd_device){ops->spd, NULL} : spd_device_cpu(e->kernels);
    e->C = (int)c->components;
    e->threads = e->most_threads = threads < 1 || be ? 1 : threads > SPD_SHARES ? SPD_SHARES : threads;
    e->shortcuts = shortcuts;
    if (c->residual != t->residual)
        pva_fail(err, PVA_INPUT, "task_config.task_name does not fit the target, which is a %s",
                 t->residual ? "residual MLP" : "TMS");
    else if (be && !isnan(c->schatten))
        pva_fail(err, PVA_INPUT, "schatten_coeff: is computed on the processor alone; leave --no-cpu out");
    if (!err->code && !find_modules(e, err) && !shape_gates(e, err) && (!be || !OPS->open(be, &OWN, err))) {
        lay_out_parameters(e);
        copy_constants(e);
        describe_data(e);
        if (!e->late.code && !spd_model_build(e, err) && !spd_graph_finish(&e->graph, columns(e), err)) make_buffers(e);
        if (!err->code) *err = e->late;
    }
    if (err->code) spd_engine_free(out);
    return err->code;
}

void spd_engine_free(struct spd_engine **engine) {
    struct spd_engine *e = *engine;
    if (!e) return;
    void *const on_device[] = {e->on.params, e->on.m,       e->on.v,       e->on.constants, e->on.grads,  e->on.arenas,
                               e->on.rest,   e->on.samples, e->on.weights, e->on.numbers,   e->on.active, e->on.scalars};
    void *const twins[] = {e->params, e->m, e->v, e->numbers, e->active};
    if (!OPS->is_host)
        for (size_t i = 0; i < sizeof twins / sizeof *twins; i++) free(twins[i]);
    if (OWN) {
        for (size_t i = 0; i < sizeof on_device / sizeof *on_device; i++) OPS->free(OWN, on_device[i]);
        struct spd_device device = e->graph.device;
        spd_graph_free(&e->graph);
        if (device.ops->close) device.ops->close(&device.own);
    }
    free(e->draws);
    free(e->batches);
    free(e->staged);
    free(e);
    *engine = NULL;
}

void spd_engine_place(struct spd_engine *e) {
    OPS->upload(OWN, e->on.params, e->params, e->n_params * sizeof(real));
    OPS->upload(OWN, e->on.m, e->m, e->n_params * sizeof(real));
    OPS->upload(OWN, e->on.v, e->v, e->n_params * sizeof(real));
}

int spd_engine_fetch(struct spd_engine *e, struct pva_error *err) {
    if (OPS->download(OWN, e->params, e->on.params, e->n_params * sizeof(real), err) ||
        OPS->download(OWN, e->m, e->on.m, e->n_params * sizeof(real), err))
        return err->code;
    return OPS->download(OWN, e->v, e->on.v, e->n_params * sizeof(real), err);
}

/* ---- initial values ---- */

static void normalise(double *first, size_t stride, size_t n) {
    double norm = 0;
    for (size_t i = 0; i < n; i++) norm += first[i * stride] * first[i * stride];
    norm = sqrt(norm);
    for (size_t i = 0; i < n; i++) first[i * stride] /= norm;
}

static void initialise_gates(struct spd_engine *e, const struct spd_module *m, uint64_t seed, uint32_t use) {
    const struct spd_gate_shape *g = &m->shape;
    double *d = malloc((size_t)e->C * (size_t)g->n_params * sizeof *d);
    PVA_ASSERT(d);
    spd_draw_normal(seed, use, (size_t)e->C * (size_t)g->n_params, d);
    for (int c = 0; c < e->C; c++) {
        real *p = e->params + m->gate + (size_t)c * (size_t)g->n_params;
        const double *from = d + (size_t)c * (size_t)g->n_params;
        for (int l = 0; l < g->n_layers; l++) {
            /* Kaiming: gain sqrt 2 before a GELU, 1 before the sigmoid; biases 0 */
            double std = sqrt((l < g->n_layers - 1 ? 2.0 : 1.0) / g->d[l]);
            int n = g->d[l] * g->d[l + 1];
            for (int i = 0; i < n; i++) p[i] = (real)(float)(std * from[i]);
            p += n + g->d[l + 1];
            from += n + g->d[l + 1];
        }
    }
    free(d);
}

void spd_engine_initialise(struct spd_engine *e, uint64_t seed) {
    const size_t C = (size_t)e->C;
    for (int i = 0; i < e->n_modules; i++) {
        struct spd_module *m = &e->modules[i];
        const size_t d_in = (size_t)m->d_in, d_out = (size_t)m->d_out;
        if (m->tied_to >= 0) {
            const struct spd_module *o = &e->modules[m->tied_to]; /* V2 = U1^T, U2 = V1^T */
            for (size_t a = 0; a < d_in; a++)
                for (size_t c = 0; c < C; c++) e->params[m->v + a * C + c] = e->params[o->u + c * d_in + a];
            for (size_t c = 0; c < C; c++)
                for (size_t b = 0; b < d_out; b++) e->params[m->u + c * d_out + b] = e->params[o->v + b * C + c];
        } else {
            double *v = malloc(d_in * C * sizeof *v), *u = malloc(d_out * C * sizeof *u);
            PVA_ASSERT(v && u);
            const float *w = e->target->layers[m->layer].weight;
            spd_draw_normal(seed, 16 * (uint32_t)i, d_in * C, v);
            spd_draw_normal(seed, 16 * (uint32_t)i + 1, d_out * C, u);
            for (size_t c = 0; c < C; c++) {
                normalise(v + c, C, d_in);
                normalise(u + c * d_out, 1, d_out);
                double s = 0; /* v W u: how much of the target lies along the pair */
                for (size_t a = 0; a < d_in; a++) {
                    double row = 0;
                    for (size_t b = 0; b < d_out; b++) row += (double)w[a * d_out + b] * u[c * d_out + b];
                    s += v[a * C + c] * row;
                }
                for (size_t b = 0; b < d_out; b++) u[c * d_out + b] *= s;
            }
            for (size_t k = 0; k < d_in * C; k++) e->params[m->v + k] = (real)(float)v[k];
            for (size_t k = 0; k < d_out * C; k++) e->params[m->u + k] = (real)(float)u[k];
            free(v);
            free(u);
        }
        initialise_gates(e, m, seed, 16 * (uint32_t)i + 2);
    }
}

/* ---- a pass over a batch ---- */

struct share {
    struct spd_engine *e;
    const struct spd_pass *p;
    int index;
    real *arena, *grad;
    struct spd_numbers *numbers;    /* on the device */
    double *active;                 /* likewise */
    const unsigned char *on, *back; /* groups computed, and differentiated */
    const double *norms;            /* [n_modules][C] squared lengths, for the schatten norm; NULL without */
};

/* One module's chunk and its gradients. Only on the host. */
static void count_schatten(struct share *s, int index, int n, const real *weights) {
    struct spd_engine *e = s->e;
    const struct spd_module *m = &e->modules[index];
    const int ld = e->graph.chunk;
    const real *value = spd_value(&e->graph, s->arena, m->importance);
    real *d = spd_gradient(&e->graph, s->arena, m->importance), terms[SPD_MOST_COLUMNS];
    const double p = s->p->p;
    for (int c = 0; c < e->C; c++) {
        const real *g = value + (size_t)c * ld;
        double norm = s->norms[index * e->C + c];
        for (int i = 0; i < n; i++) terms[i] = spd_power(g[i], p);
        double sum = e->kernels->weighted_sum(n, weights, terms);
        s->numbers->schatten += sum * norm;
        if (!s->p->gradients) continue;
        s->grad[m->norms + (size_t)c] += (real)sum;
        for (int i = 0; i < n; i++)
            if (g[i] > 0)
                d[(size_t)c * ld + i] +=
                    (real)(e->config->schatten / s->p->batch * p * norm) * weights[i] * spd_power(g[i], p - 1);
    }
}

/* [C][chunk] of a module where the caller can read it, until the next call. */
static const real *read_rows(struct spd_engine *e, const real *rows) {
    if (OPS->is_host) return rows;
    if (!e->late.code) OPS->download(OWN, e->staged, rows, (size_t)e->C * (size_t)e->graph.chunk * sizeof *rows, &e->late);
    return e->staged;
}

/* rows [features][chunk], samples and weights are on the host. */
static void run_chunk(struct share *s, int n, const real *rows, const uint32_t *samples, const real *weights) {
    struct spd_engine *e = s->e;
    struct spd_graph *g = &e->graph;
    const int ld = g->chunk, padded = spd_padded(n), F = e->target->n_features;
    const uint32_t *on_samples = samples;
    const real *on_weights = weights;
    if (!OPS->is_host) {
        OPS->upload(OWN, spd_value(g, s->arena, e->x), rows, (size_t)F * (size_t)ld * sizeof *rows);
        OPS->upload(OWN, e->on.samples, samples, (size_t)padded * sizeof *samples);
        OPS->upload(OWN, e->on.weights, weights, (size_t)padded * sizeof *weights);
        on_samples = e->on.samples, on_weights = e->on.weights;
    }
    for (int i = 0; i < e->n_draws; i++) {
        const struct spd_draw *d = &e->draws[i];
        if (s->on[d->group])
            OPS->uniform(OWN, e->C, padded, ld, s->p->seed, s->p->step, on_samples, (uint32_t)d->module << 24,
                         spd_draw_use(SPD_DRAW_MASK, (uint32_t)d->use), spd_value(g, s->arena, d->node));
    }
    spd_graph_forward(g, s->arena, padded, s->on);
    if (s->p->gradients) spd_graph_clear(g, s->arena);
    for (int k = 0; k < e->n_groups; k++) {
        const struct spd_group *group = &e->groups[k];
        if (s->on[k])
            OPS->squares(OWN, F, padded, ld, spd_value(g, s->arena, group->output), spd_value(g, s->arena, e->target_out),
                         on_weights, (real)(2 * group->coeff * group->share / ((double)s->p->batch * F)),
                         s->p->gradients && s->back[k] ? spd_gradient(g, s->arena, group->output) : NULL, &s->numbers->terms[k]);
    }
    for (int m = 0; m < e->n_modules; m++) {
        const struct spd_module *module = &e->modules[m];
        const real *lower = spd_value(g, s->arena, module->lower);
        OPS->importance(OWN, e->C, padded, ld, on_weights, spd_value(g, s->arena, module->importance), s->p->p,
                        (real)(e->config->importance_minimality / s->p->batch * s->p->p),
                        s->p->gradients ? spd_gradient(g, s->arena, module->importance) : NULL, &s->numbers->importance[m]);
        if (s->norms) count_schatten(s, m, padded, weights);
        OPS->weighted_count(OWN, e->C, padded, ld, on_weights, lower, (real)e->config->alive_threshold, s->active + m * e->C);
        if (s->p->seen) s->p->seen(s->p->user, s->index, m, padded, ld, read_rows(e, lower), weights);
    }
    if (s->p->gradients) spd_graph_backward(g, s->arena, padded, s->back, s->grad);
}

/* An all-zero input has zero inner activations, and every masked network gives it the target's output exactly: only its
 * importances matter, and they are the same for all such samples. One of them, with their number as its weight, stands for all.
 */
static void run_share(struct share *s, real *x) {
    struct spd_engine *e = s->e;
    const int ld = e->graph.chunk, F = e->target->n_features;
    const int first = (int)((int64_t)s->p->batch * s->index / SPD_SHARES),
              n = (int)((int64_t)s->p->batch * (s->index + 1) / SPD_SHARES) - first, stride = spd_padded(n ? n : 1);
    uint32_t samples[MOST_COLUMNS] = {0};
    real weights[MOST_COLUMNS];
    int filled = 0, n_zero = 0;
    real *rows = OPS->is_host ? spd_value(&e->graph, s->arena, e->x) : e->staged;
    spd_data_fill(&e->data, e->kernels, s->p->seed, s->p->step, s->p->stream, s->p->first_sample + (uint32_t)first, n, stride, x);
    for (int i = 0; i <= n; i++) {
        int zero = e->shortcuts && i < n;
        for (int f = 0; f < F && zero; f++) zero = x[(size_t)f * stride + i] == 0;
        n_zero += zero;
        if (i == n ? n_zero : !zero) {
            for (int f = 0; f < F; f++) rows[(size_t)f * ld + filled] = i == n ? 0 : x[(size_t)f * stride + i];
            samples[filled] = s->p->first_sample + (uint32_t)(first + i);
            weights[filled++] = i == n ? (real)n_zero : 1;
        }
        if (filled == ld || (i == n && filled)) {
            for (int k = filled; k < spd_padded(filled); k++) {
                weights[k] = 0;
                for (int f = 0; f < F; f++) rows[(size_t)f * ld + k] = 0;
            }
            run_chunk(s, filled, rows, samples, weights);
            filled = 0;
        }
    }
}

static void measure_norms(const struct spd_engine *e, double *norms) {
    for (int i = 0; i < e->n_modules; i++) {
        const struct spd_module *m = &e->modules[i];
        for (int c = 0; c < e->C; c++) {
            double sum = 0;
            for (int a = 0; a < m->d_in; a++)
                sum += (double)e->params[m->v + (size_t)a * (size_t)e->C + (size_t)c] *
                       (double)e->params[m->v + (size_t)a * (size_t)e->C + (size_t)c];
            for (int b = 0; b < m->d_out; b++)
                sum += (double)e->params[m->u + (size_t)c * (size_t)m->d_out + (size_t)b] *
                       (double)e->params[m->u + (size_t)c * (size_t)m->d_out + (size_t)b];
            norms[i * e->C + c] = sum;
        }
    }
}

/* Every rank gets every share's gradient and numbers, and joins them as a single rank would. */
static int exchange(struct spd_engine *e, const struct spd_pass *p, const struct pva_spd_ranks *ranks, struct pva_error *err) {
    const int per_rank = SPD_SHARES / ranks->size, mine = per_rank * ranks->rank;
    const size_t n_slots = (size_t)e->graph.n_slots, n_active = (size_t)e->n_modules * (size_t)e->C;
    struct spd_numbers all[SPD_SHARES];
    if (ranks->gather(ranks->user, &e->numbers[mine], (size_t)per_rank * sizeof *all, all, err)) return err->code;
    memcpy(e->numbers, all, sizeof all);
    double *active = malloc(SPD_SHARES * n_active * sizeof *active);
    if (!active) return pva_fail(err, PVA_IO, "out of memory");
    int status = ranks->gather(ranks->user, e->active + (size_t)mine * n_active, (size_t)per_rank * n_active * sizeof *active,
                               active, err);
    if (!status) memcpy(e->active, active, SPD_SHARES * n_active * sizeof *active);
    free(active);
    if (status || !p->gradients) return status;
    const size_t own = (size_t)per_rank * n_slots;
    real *from = e->on.grads + (size_t)mine * n_slots, *grads = malloc(SPD_SHARES * n_slots * sizeof *grads), *sent = from;
    if (!OPS->is_host) sent = malloc(own * sizeof *sent);
    if (!grads || !sent) status = pva_fail(err, PVA_IO, "out of memory");
    if (!status) status = OPS->download(OWN, sent, from, own * sizeof *sent, err);
    if (!status) status = ranks->gather(ranks->user, sent, own * sizeof *sent, grads, err);
    if (!status) OPS->upload(OWN, e->on.grads, grads, SPD_SHARES * n_slots * sizeof *grads);
    free(grads);
    if (!OPS->is_host) free(sent);
    return status;
}

static void join(struct spd_engine *e, const struct spd_pass *p, struct spd_sums *out) {
    const size_t n_slots = (size_t)e->graph.n_slots, n_active = (size_t)e->n_modules * (size_t)e->C;
    const double samples = p->batch, outputs = samples * e->target->n_features;
    double *active = out->active;
    memset(out, 0, sizeof *out);
    out->active = active;
    for (int i = 0; i < SPD_SHARES; i++) {
        for (int k = 0; k < e->n_groups; k++)
            out->terms[e->groups[k].term] += e->groups[k].share * e->numbers[i].terms[k] / outputs;
        for (int m = 0; m < e->n_modules; m++) out->importance[m] += e->numbers[i].importance[m] / samples;
        out->schatten += e->numbers[i].schatten / samples;
        for (size_t k = 0; k < n_active && active; k++) active[k] = (i ? active[k] : 0) + e->active[(size_t)i * n_active + k];
    }
    if (!p->gradients) return;
    const size_t piece = OPS->is_host ? 4096 : n_slots; /* stays in a cache while the shares are added */
#pragma omp parallel for schedule(static) num_threads(e->threads) if (is_wide(e))
    for (size_t block = 0; block < n_slots; block += piece) {
        int n = (int)(block + piece < n_slots ? piece : n_slots - block);
        for (int i = 1; i < SPD_SHARES; i++)
            OPS->add(OWN, 1, n, n, e->on.grads + (size_t)i * n_slots + block, e->on.grads + block);
    }
}

int spd_engine_pass(struct spd_engine *e, const struct spd_pass *p, const struct pva_spd_ranks *ranks, struct spd_sums *out,
                    struct pva_error *err) {
    const size_t capacity = (size_t)spd_padded(p->batch / SPD_SHARES + 1) * (size_t)e->target->n_features,
                 n_slots = (size_t)e->graph.n_slots;
    const size_t n_active = (size_t)e->n_modules * (size_t)e->C, arena = e->graph.n_rows * (size_t)e->graph.chunk;
    unsigned char on[SPD_MAX_GROUPS] = {0}, back[SPD_MAX_GROUPS] = {0};
    if (capacity > e->batch_capacity) {
        free(e->batches);
        e->batches = malloc(capacity * (size_t)e->most_threads * sizeof *e->batches + 1);
        e->batch_capacity = e->batches ? capacity : 0;
        if (!e->batches) return pva_fail(err, PVA_IO, "out of memory");
    }
    for (int k = 0; k < e->n_groups; k++) {
        on[k] = p->report >= 0 && (p->report || e->groups[k].coeff != 0);
        back[k] = on[k] && e->groups[k].coeff != 0;
    }
    double *norms = NULL;
    if (!isnan(e->config->schatten)) {
        norms = malloc(n_active * sizeof *norms);
        if (!norms) return pva_fail(err, PVA_IO, "out of memory");
        measure_norms(e, norms);
    }
    const int size = ranks ? ranks->size : 1, first = SPD_SHARES / size * (ranks ? ranks->rank : 0), count = SPD_SHARES / size;
    const int threads = e->threads < count ? e->threads : count;
    struct share shares[SPD_SHARES];
    memset(shares, 0, sizeof shares);
    OPS->zero(OWN, e->on.active, SPD_SHARES * n_active * sizeof *e->active);
    OPS->zero(OWN, e->on.numbers, SPD_SHARES * sizeof *e->numbers);
    if (p->gradients) OPS->zero(OWN, e->on.grads + (size_t)first * n_slots, (size_t)count * n_slots * sizeof(real));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (int part = 0; part < threads; part++) spd_graph_form_products(&e->graph, part, threads);
#pragma omp for schedule(static)
        for (int part = 0; part < threads; part++) /* a thread's buffers go with its part of the shares, in order */
            for (int i = first + count * part / threads; i < first + count * (part + 1) / threads; i++) {
                struct share *s = &shares[i];
                s->e = e;
                s->p = p;
                s->index = i;
                s->arena = e->on.arenas + (size_t)part * arena;
                s->grad = e->on.grads + (size_t)i * n_slots;
                s->numbers = e->on.numbers + i;
                s->active = e->on.active + (size_t)i * n_active;
                s->on = on;
                s->back = back;
                s->norms = norms;
                run_share(s, e->batches + (size_t)part * e->batch_capacity);
            }
    }
    free(norms);
    if (!err->code) *err = e->late;
    if (err->code || OPS->download(OWN, e->numbers, e->on.numbers, SPD_SHARES * sizeof *e->numbers, err) ||
        OPS->download(OWN, e->active, e->on.active, SPD_SHARES * n_active * sizeof *e->active, err))
        return err->code;
    if (size > 1 && exchange(e, p, ranks, err)) return err->code;
    join(e, p, out);
    return PVA_OK;
}

/* ---- what needs no samples ---- */

/* Adds to sums[part] on the device; the rest V U - W of the module, times 2 coeff / N, stays in e->on.rest. Eight parts whatever
 * the number of threads: the sum is taken in their order. */
static void measure_rest(struct spd_engine *e, const struct spd_module *m, real scale, int gradients) {
    const size_t C = (size_t)e->C, d_out = (size_t)m->d_out;
    const real *v = e->on.params + m->v, *u = e->on.params + m->u;
    real *dv = e->on.grads + m->v;
    const int n_c = e->C;
#pragma omp parallel for schedule(static) num_threads(e->threads) if (is_wide(e))
    for (int part = 0; part < SPD_SHARES; part++) {
        int first = (int)((int64_t)m->d_in * part / SPD_SHARES), last = (int)((int64_t)m->d_in * (part + 1) / SPD_SHARES);
        real *r = e->on.rest + (size_t)first * d_out;
        const size_t n = (size_t)(last - first) * d_out;
        OPS->negated(OWN, n, m->weight + (size_t)first * d_out, r);
        OPS->product(OWN, last - first, n_c, m->d_out, v + (size_t)first * C, n_c, 1, u, m->d_out, 1, r, m->d_out);
        OPS->sum_squares(OWN, n, r, &e->on.scalars[part]);
        OPS->scaled(OWN, n, scale, r);
        if (gradients)
            OPS->product(OWN, last - first, m->d_out, n_c, r, m->d_out, 1, u, 1, m->d_out, dv + (size_t)first * C, n_c);
    }
}

/* Only on the host. */
static void return_schatten(struct spd_engine *e) {
    const size_t C = (size_t)e->C;
    for (int i = 0; i < e->n_modules; i++) {
        const struct spd_module *m = &e->modules[i];
        for (int c = 0; c < e->C; c++) {
            real k = (real)(2 * e->config->schatten / (double)e->config->batch_size) * e->on.grads[m->norms + (size_t)c];
            for (int a = 0; a < m->d_in; a++)
                e->on.grads[m->v + (size_t)a * C + (size_t)c] += k * e->params[m->v + (size_t)a * C + (size_t)c];
            for (int b = 0; b < m->d_out; b++)
                e->on.grads[m->u + (size_t)c * (size_t)m->d_out + (size_t)b] +=
                    k * e->params[m->u + (size_t)c * (size_t)m->d_out + (size_t)b];
        }
    }
}

double spd_engine_weights_loss(struct spd_engine *e, int gradients) {
    size_t n_weights = 0;
    for (int i = 0; i < e->n_modules; i++) n_weights += (size_t)e->modules[i].d_in * (size_t)e->modules[i].d_out;
    if (gradients) {
#pragma omp parallel for schedule(static) num_threads(e->threads) if (is_wide(e))
        for (int part = 0; part < e->threads; part++) spd_graph_return_products(&e->graph, e->on.grads, part, e->threads);
    }
    double total = 0;
    const double coeff = isnan(e->config->faithfulness) ? 0 : e->config->faithfulness;
    for (int i = 0; i < e->n_modules; i++) {
        const struct spd_module *m = &e->modules[i];
        const int d_in = m->d_in, d_out = m->d_out, n_c = e->C, parts = e->threads, carries = gradients && coeff != 0;
        const real *v = e->on.params + m->v;
        real *du = e->on.grads + m->u;
        double sums[SPD_SHARES] = {0};
        OPS->zero(OWN, e->on.scalars, sizeof sums);
        measure_rest(e, m, (real)(2 * coeff / (double)n_weights), carries);
        if (!e->late.code) OPS->download(OWN, sums, e->on.scalars, sizeof sums, &e->late);
        for (int part = 0; part < SPD_SHARES; part++) total += sums[part];
        if (!carries) continue;
#pragma omp parallel for schedule(static) num_threads(e->threads) if (is_wide(e))
        for (int part = 0; part < parts; part++) {
            int first = (int)((int64_t)n_c * part / parts), last = (int)((int64_t)n_c * (part + 1) / parts);
            OPS->product(OWN, last - first, d_in, d_out, v + first, 1, n_c, e->on.rest, d_out, 1,
                         du + (size_t)first * (size_t)d_out, d_out);
        }
    }
    if (gradients && !isnan(e->config->schatten) && e->config->schatten != 0) return_schatten(e);
    return total / (double)n_weights;
}

double spd_engine_gradient_norm(struct spd_engine *e) {
    double sum = 0;
    OPS->zero(OWN, e->on.scalars, sizeof sum);
    OPS->sum_squares(OWN, e->n_params, e->on.grads, e->on.scalars);
    if (!e->late.code) OPS->download(OWN, &sum, e->on.scalars, sizeof sum, &e->late);
    return sqrt(sum);
}

double spd_engine_update(struct spd_engine *e, double lr, int64_t count) {
    const struct spd_adam a = {(real)lr,
                               (real)0.9,
                               (real)0.999,
                               (real)1e-8,
                               0,
                               (real)(1 - pow(0.9, (double)count + 1)),
                               (real)(1 - pow(0.999, (double)count + 1))};
    const double norm = spd_engine_gradient_norm(e);
    const int parts = e->threads;
#pragma omp parallel for schedule(static) num_threads(parts) if (is_wide(e))
    for (int part = 0; part < parts; part++) {
        size_t first = e->n_params * (size_t)part / (size_t)parts, last = e->n_params * (size_t)(part + 1) / (size_t)parts;
        for (int i = 0; i < e->n_modules; i++) { /* tied matrices wait for their partners */
            const struct spd_module *m = &e->modules[i];
            size_t lo = m->tied_to >= 0 ? m->gate : m->v, hi = m->gate + (size_t)e->C * (size_t)m->shape.n_params;
            if (lo < first) lo = first;
            if (hi > last) hi = last;
            if (lo < hi) OPS->adam(OWN, hi - lo, &a, e->on.grads + lo, e->on.m + lo, e->on.v + lo, e->on.params + lo);
        }
    }
    for (int i = 0; i < e->n_modules; i++) {
        const struct spd_module *m = &e->modules[i];
        if (m->tied_to < 0) continue;
        const struct spd_module *o = &e->modules[m->tied_to];
        real *p = e->on.params;
        OPS->transpose(OWN, e->C, m->d_in, p + o->u, p + m->v);
        OPS->transpose(OWN, o->d_in, e->C, p + o->v, p + m->u);
        OPS->adam(OWN, m->gate - m->v, &a, e->on.grads + m->v, e->on.m + m->v, e->on.v + m->v, p + m->v);
        OPS->transpose(OWN, m->d_in, e->C, p + m->v, p + o->u);
        OPS->transpose(OWN, e->C, m->d_out, p + m->u, p + o->v);
    }
    return norm;
}

static void copy_importances(struct spd_engine *e, int node, int first, int count, double *out) {
    const real *rows = read_rows(e, spd_value(&e->graph, e->on.arenas, node));
    for (int s = 0; s < count; s++)
        for (int c = 0; c < e->C; c++)
            out[(size_t)(first + s) * (size_t)e->C + (size_t)c] = (double)rows[(size_t)c * (size_t)e->graph.chunk + (size_t)s];
}

int spd_engine_importances(struct spd_engine *e, int n, const double *x, double **lower, double **upper, struct pva_error *err) {
    struct spd_graph *g = &e->graph;
    const int F = e->target->n_features, ld = g->chunk;
    unsigned char off[SPD_MAX_GROUPS] = {0};
    spd_graph_form_products(g, 0, 1);
    real *on_device = spd_value(g, e->on.arenas, e->x), *rows = OPS->is_host ? on_device : e->staged;
    for (int first = 0; first < n; first += ld) {
        int count = n - first < ld ? n - first : ld;
        for (int f = 0; f < F; f++)
            for (int s = 0; s < ld; s++)
                rows[(size_t)f * ld + s] = s < count ? (real)x[(size_t)(first + s) * (size_t)F + (size_t)f] : 0;
        OPS->upload(OWN, on_device, rows, (size_t)F * (size_t)ld * sizeof *rows);
        spd_graph_forward(g, e->on.arenas, spd_padded(count), off);
        for (int m = 0; m < e->n_modules; m++) {
            copy_importances(e, e->modules[m].lower, first, count, lower[m]);
            copy_importances(e, e->modules[m].importance, first, count, upper[m]);
        }
    }
    *err = e->late;
    return err->code;
}
