#include "engine.h"

#include "model.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static real *reals(size_t n) {
    size_t bytes = (n * sizeof(real) + 63) / 64 * 64;
    real *p = aligned_alloc(64, bytes ? bytes : 64);
    PVA_ASSERT(p);
    memset(p, 0, bytes ? bytes : 64);
    return p;
}

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
    size_t n = t->residual ? 2 * (size_t)t->n_features * (size_t)t->n_embed : (size_t)t->n_features;
    for (int l = 0; l < t->n_layers; l++) n += (size_t)t->layers[l].n_in * (size_t)t->layers[l].n_out;
    real *p = e->constants = reals(n);
    if (!t->residual)
        for (int f = 0; f < t->n_features; f++) *p++ = t->bias[f];
    for (int l = 0; l < t->n_layers; l++)
        for (size_t i = 0; i < (size_t)t->layers[l].n_in * (size_t)t->layers[l].n_out; i++) *p++ = t->layers[l].weight[i];
    if (!t->residual) return;
    for (size_t i = 0; i < (size_t)t->n_features * (size_t)t->n_embed; i++) *p++ = t->embed[i];
    for (size_t i = 0; i < (size_t)t->n_features * (size_t)t->n_embed; i++) *p++ = t->readout[i];
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

int spd_engine_create(const struct pva_spd_config *c, const struct pva_spd_target *t, int threads, int shortcuts,
                      struct spd_engine **out, struct pva_error *err) {
    struct spd_engine *e = calloc(1, sizeof *e);
    if (!e) return pva_fail(err, PVA_IO, "out of memory");
    *out = e;
    e->config = c;
    e->target = t;
    e->kernels = spd_kernels_best();
    e->C = (int)c->components;
    e->threads = e->most_threads = threads < 1 ? 1 : threads > SPD_SHARES ? SPD_SHARES : threads;
    e->shortcuts = shortcuts;
    if (c->residual != t->residual)
        pva_fail(err, PVA_INPUT, "task_config.task_name does not fit the target, which is a %s",
                 t->residual ? "residual MLP" : "TMS");
    if (err->code || find_modules(e, err) || shape_gates(e, err)) {
        spd_engine_free(out);
        return err->code;
    }
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
    e->params = reals(e->n_params);
    e->m = reals(e->n_params);
    e->v = reals(e->n_params);
    copy_constants(e);
    describe_data(e);
    if (spd_model_build(e, err)) {
        spd_engine_free(out);
        return err->code;
    }
    /* Columns per chunk: enough to keep the vector units fed, few enough that a chunk's nodes stay in the second-level cache. */
    spd_graph_finish(&e->graph, e->C <= 64 ? 128 : 64);
    e->grads = reals(SPD_SHARES * (size_t)e->graph.n_slots);
    e->arenas = reals((size_t)e->threads * e->graph.n_rows * (size_t)e->graph.chunk);
    e->active = calloc((size_t)SPD_SHARES * (size_t)e->n_modules * C, sizeof *e->active);
    PVA_ASSERT(e->active);
    for (int th = 0; th < e->threads; th++) {
        real *arena = e->arenas + (size_t)th * e->graph.n_rows * (size_t)e->graph.chunk,
             *ones = spd_value(&e->graph, arena, e->ones);
        for (size_t i = 0; i < C * (size_t)e->graph.chunk; i++) ones[i] = 1;
    }
    return PVA_OK;
}

void spd_engine_free(struct spd_engine **engine) {
    struct spd_engine *e = *engine;
    if (!e) return;
    spd_graph_free(&e->graph);
    free(e->draws);
    free(e->params);
    free(e->m);
    free(e->v);
    free(e->constants);
    free(e->grads);
    free(e->arenas);
    free(e->batches);
    free(e->active);
    free(e);
    *engine = NULL;
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
    double terms[SPD_MAX_GROUPS], importance[PVA_SPD_MAX_MODULES], schatten;
    double *active;
    const unsigned char *on, *back; /* groups computed, and differentiated */
    const double *norms;            /* [n_modules][C] squared lengths, for the schatten norm */
};

static real power(real x, double p) {
    return p == 1 ? x : p == 2 ? x * x : sizeof(real) == 4 ? (real)powf((float)x, (float)p) : (real)pow(x, p);
}

/* Importance minimality and schatten norm of one module's chunk, and their gradients. */
static void count_importance(struct share *s, int index, int n, const real *weights) {
    struct spd_engine *e = s->e;
    const struct spd_module *m = &e->modules[index];
    const int ld = e->graph.chunk;
    const real *value = spd_value(&e->graph, s->arena, m->importance);
    real *d = spd_gradient(&e->graph, s->arena, m->importance), terms[256];
    const double p = s->p->p, coeff = e->config->importance_minimality / s->p->batch;
    const int schatten = !isnan(e->config->schatten);
    for (int c = 0; c < e->C; c++) {
        const real *g = value + (size_t)c * ld;
        for (int i = 0; i < n; i++) terms[i] = power(g[i] + (real)1e-12, p);
        s->importance[index] += e->kernels->weighted_sum(n, weights, terms);
        if (s->p->gradients)
            for (int i = 0; i < n; i++)
                d[(size_t)c * ld + i] += (real)(coeff * p) * weights[i] *
                                         (p == 1   ? 1
                                          : p == 2 ? g[i] + (real)1e-12
                                                   : power(g[i] + (real)1e-12, p - 1));
        if (!schatten) continue;
        double norm = s->norms[index * e->C + c];
        for (int i = 0; i < n; i++) terms[i] = power(g[i], p);
        double sum = e->kernels->weighted_sum(n, weights, terms);
        s->schatten += sum * norm;
        if (!s->p->gradients) continue;
        s->grad[m->norms + (size_t)c] += (real)sum;
        for (int i = 0; i < n; i++)
            if (g[i] > 0)
                d[(size_t)c * ld + i] += (real)(e->config->schatten / s->p->batch * p * norm) * weights[i] * power(g[i], p - 1);
    }
}

static void run_chunk(struct share *s, int n, const uint32_t *samples, const real *weights) {
    struct spd_engine *e = s->e;
    struct spd_graph *g = &e->graph;
    const int ld = g->chunk, padded = spd_padded(n), F = e->target->n_features;
    for (int i = 0; i < e->n_draws; i++) {
        const struct spd_draw *d = &e->draws[i];
        if (!s->on[d->group]) continue;
        real *rows = spd_value(g, s->arena, d->node);
        for (int c = 0; c < e->C; c += 4)
            e->kernels->uniform(padded, ld, s->p->seed, s->p->step, samples, (uint32_t)d->module << 24 | (uint32_t)c / 4,
                                spd_draw_use(SPD_DRAW_MASK, (uint32_t)d->use), e->C - c < 4 ? e->C - c : 4,
                                rows + (size_t)c * ld);
    }
    spd_graph_forward(g, e->kernels, s->arena, padded, s->on);
    if (s->p->gradients) spd_graph_clear(g, s->arena);
    const real *target = spd_value(g, s->arena, e->target_out);
    for (int k = 0; k < e->n_groups; k++) {
        const struct spd_group *group = &e->groups[k];
        if (!s->on[k]) continue;
        const real *y = spd_value(g, s->arena, group->output);
        real *dy = s->p->gradients && s->back[k] ? spd_gradient(g, s->arena, group->output) : NULL;
        for (int f = 0; f < F; f++)
            e->kernels->squares(padded, y + (size_t)f * ld, target + (size_t)f * ld, weights,
                                (real)(2 * group->coeff * group->share / ((double)s->p->batch * F)),
                                dy ? dy + (size_t)f * ld : NULL, &s->terms[k]);
    }
    for (int m = 0; m < e->n_modules; m++) {
        const real *lower = spd_value(g, s->arena, e->modules[m].lower);
        count_importance(s, m, padded, weights);
        for (int c = 0; c < e->C; c++)
            s->active[m * e->C + c] +=
                e->kernels->weighted_count(padded, weights, lower + (size_t)c * ld, (real)e->config->alive_threshold);
        if (s->p->seen) s->p->seen(s->p->user, s->index, m, padded, ld, lower, weights);
    }
    if (s->p->gradients) spd_graph_backward(g, e->kernels, s->arena, padded, s->back, s->grad);
}

/* An all-zero input has zero inner activations, and every masked network gives it the target's output exactly: only its
 * importances matter, and they are the same for all such samples. One of them, with their number as its weight, stands for all.
 */
static void run_share(struct share *s, real *x) {
    struct spd_engine *e = s->e;
    const int ld = e->graph.chunk, F = e->target->n_features;
    const int first = (int)((int64_t)s->p->batch * s->index / SPD_SHARES),
              n = (int)((int64_t)s->p->batch * (s->index + 1) / SPD_SHARES) - first, stride = spd_padded(n ? n : 1);
    uint32_t samples[256 + SPD_LANES] = {0};
    real weights[256 + SPD_LANES];
    int filled = 0, n_zero = 0;
    real *rows = spd_value(&e->graph, s->arena, e->x);
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
            run_chunk(s, filled, samples, weights);
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

/* What ranks exchange about one share, after its gradient. */
struct share_numbers {
    double terms[SPD_MAX_GROUPS], importance[PVA_SPD_MAX_MODULES], schatten;
};

/* Every rank gets every share's gradient and numbers, and joins them as a single rank would. */
static int exchange(struct spd_engine *e, const struct spd_pass *p, const struct pva_spd_ranks *ranks, struct share *shares,
                    struct pva_error *err) {
    const int per_rank = SPD_SHARES / ranks->size, mine = per_rank * ranks->rank;
    const size_t n_slots = (size_t)e->graph.n_slots, n_active = (size_t)e->n_modules * (size_t)e->C;
    struct share_numbers numbers[SPD_SHARES];
    for (int i = 0; i < SPD_SHARES; i++) {
        memcpy(numbers[i].terms, shares[i].terms, sizeof numbers[i].terms);
        memcpy(numbers[i].importance, shares[i].importance, sizeof numbers[i].importance);
        numbers[i].schatten = shares[i].schatten;
    }
    struct share_numbers all[SPD_SHARES];
    if (ranks->gather(ranks->user, &numbers[mine], (size_t)per_rank * sizeof *numbers, all, err)) return err->code;
    for (int i = 0; i < SPD_SHARES; i++) {
        memcpy(shares[i].terms, all[i].terms, sizeof all[i].terms);
        memcpy(shares[i].importance, all[i].importance, sizeof all[i].importance);
        shares[i].schatten = all[i].schatten;
    }
    double *active = malloc(SPD_SHARES * n_active * sizeof *active);
    if (!active) return pva_fail(err, PVA_IO, "out of memory");
    int status = ranks->gather(ranks->user, e->active + (size_t)mine * n_active, (size_t)per_rank * n_active * sizeof *active,
                               active, err);
    if (!status) memcpy(e->active, active, SPD_SHARES * n_active * sizeof *active);
    free(active);
    if (status || !p->gradients) return status;
    real *grads = malloc(SPD_SHARES * n_slots * sizeof *grads);
    if (!grads) return pva_fail(err, PVA_IO, "out of memory");
    status =
        ranks->gather(ranks->user, e->grads + (size_t)mine * n_slots, (size_t)per_rank * n_slots * sizeof *grads, grads, err);
    if (!status) memcpy(e->grads, grads, SPD_SHARES * n_slots * sizeof *grads);
    free(grads);
    return status;
}

static void join(struct spd_engine *e, const struct spd_pass *p, const struct share *shares, struct spd_sums *out) {
    const size_t n_slots = (size_t)e->graph.n_slots, n_active = (size_t)e->n_modules * (size_t)e->C;
    const double samples = p->batch, outputs = samples * e->target->n_features;
    double *active = out->active;
    memset(out, 0, sizeof *out);
    out->active = active;
    for (int i = 0; i < SPD_SHARES; i++) {
        for (int k = 0; k < e->n_groups; k++) out->terms[e->groups[k].term] += e->groups[k].share * shares[i].terms[k] / outputs;
        for (int m = 0; m < e->n_modules; m++) out->importance[m] += shares[i].importance[m] / samples;
        out->schatten += shares[i].schatten / samples;
        for (size_t k = 0; k < n_active && active; k++) active[k] = (i ? active[k] : 0) + e->active[(size_t)i * n_active + k];
    }
    if (!p->gradients) return;
#pragma omp parallel for schedule(static) num_threads(e->threads) if (is_wide(e))
    for (size_t block = 0; block < n_slots; block += 4096) {
        size_t end = block + 4096 < n_slots ? block + 4096 : n_slots;
        for (int i = 1; i < SPD_SHARES; i++) {
            const real *from = e->grads + (size_t)i * n_slots;
            for (size_t k = block; k < end; k++) e->grads[k] += from[k];
        }
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
        e->batches = reals(capacity * (size_t)e->most_threads);
        e->batch_capacity = capacity;
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
    memset(e->active, 0, SPD_SHARES * n_active * sizeof *e->active);
    if (p->gradients) memset(e->grads + (size_t)first * n_slots, 0, (size_t)count * n_slots * sizeof *e->grads);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (int part = 0; part < threads; part++) spd_graph_form_products(&e->graph, e->kernels, part, threads);
#pragma omp for schedule(static)
        for (int part = 0; part < threads; part++) /* a thread's buffers go with its part of the shares, in order */
            for (int i = first + count * part / threads; i < first + count * (part + 1) / threads; i++) {
                struct share *s = &shares[i];
                s->e = e;
                s->p = p;
                s->index = i;
                s->arena = e->arenas + (size_t)part * arena;
                s->grad = e->grads + (size_t)i * n_slots;
                s->active = e->active + (size_t)i * n_active;
                s->on = on;
                s->back = back;
                s->norms = norms;
                run_share(s, e->batches + (size_t)part * e->batch_capacity);
            }
    }
    free(norms);
    if (size > 1 && exchange(e, p, ranks, shares, err)) return err->code;
    join(e, p, shares, out);
    return PVA_OK;
}

/* ---- what needs no samples ---- */

double spd_engine_weights_loss(struct spd_engine *e, int gradients) {
    const size_t C = (size_t)e->C;
    size_t n_weights = 0, largest = 0;
    for (int i = 0; i < e->n_modules; i++) {
        size_t n = (size_t)e->modules[i].d_in * (size_t)e->modules[i].d_out;
        n_weights += n;
        if (n > largest) largest = n;
    }
    if (gradients) {
#pragma omp parallel for schedule(static) num_threads(e->threads) if (is_wide(e))
        for (int part = 0; part < e->threads; part++)
            spd_graph_return_products(&e->graph, e->kernels, e->grads, part, e->threads);
    }
    real *rest = malloc(largest * sizeof *rest); /* V U - W, times 2 coeff / N for the gradient */
    PVA_ASSERT(rest);
    double total = 0;
    const double coeff = isnan(e->config->faithfulness) ? 0 : e->config->faithfulness;
    for (int i = 0; i < e->n_modules; i++) {
        const struct spd_module *m = &e->modules[i];
        const float *w = e->target->layers[m->layer].weight;
        const real *v = e->params + m->v, *u = e->params + m->u, scale = (real)(2 * coeff / (double)n_weights);
        real *dv = e->grads + m->v, *du = e->grads + m->u;
        const int d_in = m->d_in, d_out = m->d_out, n_c = e->C, parts = e->threads;
        double sums[SPD_SHARES] = {0};
#pragma omp parallel for schedule(static) num_threads(e->threads) if (is_wide(e))
        for (int part = 0; part < SPD_SHARES;
             part++) { /* eight parts whatever the number of threads: the sum is taken in their order */
            int first = (int)((int64_t)d_in * part / SPD_SHARES), last = (int)((int64_t)d_in * (part + 1) / SPD_SHARES);
            real *r = rest + (size_t)first * (size_t)d_out;
            for (size_t k = 0; k < (size_t)(last - first) * (size_t)d_out; k++)
                r[k] = -(real)w[(size_t)first * (size_t)d_out + k];
            e->kernels->product(last - first, n_c, d_out, v + (size_t)first * C, n_c, 1, u, d_out, 1, r, d_out);
            double sum = 0;
            for (size_t k = 0; k < (size_t)(last - first) * (size_t)d_out; k++) {
                sum += (double)r[k] * (double)r[k];
                r[k] *= scale;
            }
            sums[part] = sum;
            if (gradients && coeff)
                e->kernels->product(last - first, d_out, n_c, r, d_out, 1, u, 1, d_out, dv + (size_t)first * C, n_c);
        }
        for (int part = 0; part < SPD_SHARES; part++) total += sums[part];
        if (!gradients || !coeff) continue;
#pragma omp parallel for schedule(static) num_threads(e->threads) if (is_wide(e))
        for (int part = 0; part < parts; part++) {
            int first = (int)((int64_t)n_c * part / parts), last = (int)((int64_t)n_c * (part + 1) / parts);
            e->kernels->product(last - first, d_in, d_out, v + first, 1, n_c, rest, d_out, 1, du + (size_t)first * (size_t)d_out,
                                d_out);
        }
    }
    free(rest);
    if (gradients && !isnan(e->config->schatten) && e->config->schatten != 0) {
        for (int i = 0; i < e->n_modules; i++) {
            const struct spd_module *m = &e->modules[i];
            for (int c = 0; c < e->C; c++) {
                real k = (real)(2 * e->config->schatten / (double)e->config->batch_size) * e->grads[m->norms + (size_t)c];
                for (int a = 0; a < m->d_in; a++)
                    e->grads[m->v + (size_t)a * C + (size_t)c] += k * e->params[m->v + (size_t)a * C + (size_t)c];
                for (int b = 0; b < m->d_out; b++)
                    e->grads[m->u + (size_t)c * (size_t)m->d_out + (size_t)b] +=
                        k * e->params[m->u + (size_t)c * (size_t)m->d_out + (size_t)b];
            }
        }
    }
    return total / (double)n_weights;
}

static void transpose(int n, int m, const real *from, real *to) { /* from [n][m] */
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++) to[(size_t)j * (size_t)n + (size_t)i] = from[(size_t)i * (size_t)m + (size_t)j];
}

double spd_engine_update(struct spd_engine *e, double lr, int64_t count) {
    const struct spd_adam a = {(real)lr,
                               (real)0.9,
                               (real)0.999,
                               (real)1e-8,
                               0,
                               (real)(1 - pow(0.9, (double)count + 1)),
                               (real)(1 - pow(0.999, (double)count + 1))};
    double norm = 0;
    for (size_t i = 0; i < e->n_params; i++) norm += (double)e->grads[i] * (double)e->grads[i];
    const int parts = e->threads;
#pragma omp parallel for schedule(static) num_threads(parts) if (is_wide(e))
    for (int part = 0; part < parts; part++) {
        size_t first = e->n_params * (size_t)part / (size_t)parts, last = e->n_params * (size_t)(part + 1) / (size_t)parts;
        for (int i = 0; i < e->n_modules; i++) { /* tied matrices wait for their partners */
            const struct spd_module *m = &e->modules[i];
            size_t lo = m->tied_to >= 0 ? m->gate : m->v, hi = m->gate + (size_t)e->C * (size_t)m->shape.n_params;
            if (lo < first) lo = first;
            if (hi > last) hi = last;
            if (lo < hi) e->kernels->adam(hi - lo, &a, e->grads + lo, e->m + lo, e->v + lo, e->params + lo);
        }
    }
    for (int i = 0; i < e->n_modules; i++) {
        const struct spd_module *m = &e->modules[i];
        if (m->tied_to < 0) continue;
        const struct spd_module *o = &e->modules[m->tied_to];
        transpose(e->C, m->d_in, e->params + o->u, e->params + m->v);
        transpose(o->d_in, e->C, e->params + o->v, e->params + m->u);
        e->kernels->adam(m->gate - m->v, &a, e->grads + m->v, e->m + m->v, e->v + m->v, e->params + m->v);
        transpose(m->d_in, e->C, e->params + m->v, e->params + o->u);
        transpose(e->C, m->d_out, e->params + m->u, e->params + o->v);
    }
    return sqrt(norm);
}

void spd_engine_importances(struct spd_engine *e, int n, const double *x, double **lower, double **upper) {
    struct spd_graph *g = &e->graph;
    const int F = e->target->n_features, ld = g->chunk;
    unsigned char off[SPD_MAX_GROUPS] = {0};
    spd_graph_form_products(g, e->kernels, 0, 1);
    real *rows = spd_value(g, e->arenas, e->x);
    for (int first = 0; first < n; first += ld) {
        int count = n - first < ld ? n - first : ld;
        for (int f = 0; f < F; f++)
            for (int s = 0; s < ld; s++)
                rows[(size_t)f * ld + s] = s < count ? (real)x[(size_t)(first + s) * (size_t)F + (size_t)f] : 0;
        spd_graph_forward(g, e->kernels, e->arenas, spd_padded(count), off);
        for (int m = 0; m < e->n_modules; m++) {
            const real *a = spd_value(g, e->arenas, e->modules[m].lower), *b = spd_value(g, e->arenas, e->modules[m].importance);
            for (int s = 0; s < count; s++)
                for (int c = 0; c < e->C; c++) {
                    lower[m][(size_t)(first + s) * (size_t)e->C + (size_t)c] = (double)a[(size_t)c * ld + s];
                    upper[m][(size_t)(first + s) * (size_t)e->C + (size_t)c] = (double)b[(size_t)c * ld + s];
                }
        }
    }
}
