#include "model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a forward pass carries from layer to layer: a sum of node * matrix. For a TMS it is one node; the residual stream of a
 * residual MLP is collapsed into its terms, or, without shortcuts, kept as one wide node. */
enum { MAX_TERMS = 2 * PVA_SPD_MAX_MODULES };
struct stream {
    int n, node[MAX_TERMS], matrix[MAX_TERMS]; /* matrix -1: the node itself */
};

struct builder {
    struct spd_engine *e;
    struct spd_graph *g;
    int weight[PVA_SPD_MAX_MODULES], v[PVA_SPD_MAX_MODULES],
        u[PVA_SPD_MAX_MODULES];      /* matrices by layer; v, u: -1 when not decomposed */
    int module[PVA_SPD_MAX_MODULES]; /* by layer, -1 */
    int embed, readout;
    int embedded;                         /* node x E, without shortcuts */
    int target_node[PVA_SPD_MAX_MODULES]; /* by layer: the target's output of a TMS layer, or a block's pre-activation's relu */
    int act[PVA_SPD_MAX_MODULES];         /* by block: relu of the target */
    struct {
        int in, matrix, out;
    } first[64]; /* products of x alone, shared by all passes */
    int n_first;
};

static int is_dense(const struct builder *b) { return !b->e->shortcuts || b->e->config->gate_vector; }

/* in * matrix as a node of its own, once for all passes: only for inputs that do not depend on the pass. */
static int shared_product(struct builder *b, int in, int matrix) {
    for (int i = 0; i < b->n_first; i++)
        if (b->first[i].in == in && b->first[i].matrix == matrix) return b->first[i].out;
    int out = spd_graph_matmul(b->g, in, matrix, -1);
    PVA_ASSERT(b->n_first < 64);
    b->first[b->n_first].in = in;
    b->first[b->n_first].matrix = matrix;
    b->first[b->n_first++].out = out;
    return out;
}

static int through(struct builder *b, int factor, int matrix) {
    return factor < 0 ? matrix : spd_graph_product(b->g, factor, matrix);
}

/* The stream times a matrix. The first term is x's (or, dense, the only one). */
static int stream_read(struct builder *b, const struct stream *s, int matrix, int group) {
    int first_is_shared = s->node[0] == b->e->x || s->node[0] == b->embedded;
    if (s->n == 1) {
        int m = through(b, s->matrix[0], matrix);
        return first_is_shared ? shared_product(b, s->node[0], m) : spd_graph_matmul(b->g, s->node[0], m, group);
    }
    int base = shared_product(b, s->node[0], through(b, s->matrix[0], matrix)), trained = b->g->nodes[base].trained;
    int products[MAX_TERMS];
    for (int i = 1; i < s->n; i++) {
        products[i] = through(b, s->matrix[i], matrix);
        trained |= b->g->nodes[s->node[i]].trained || b->g->matrices[products[i]].grad >= 0;
    }
    int out = spd_graph_node(b->g, b->g->nodes[base].dim, trained);
    spd_graph_op(b->g, SPD_COPY, base, out, group);
    for (int i = 1; i < s->n; i++) spd_graph_op(b->g, SPD_MATMUL, s->node[i], out, group)->matrix = products[i];
    return out;
}

/* stream += node * matrix */
static void stream_add(struct builder *b, struct stream *s, int node, int matrix, int group) {
    if (!is_dense(b)) {
        PVA_ASSERT(s->n < MAX_TERMS);
        s->node[s->n] = node;
        s->matrix[s->n++] = matrix;
        return;
    }
    int trained = b->g->nodes[s->node[0]].trained || b->g->nodes[node].trained || b->g->matrices[matrix].grad >= 0;
    int out = spd_graph_node(b->g, b->g->nodes[s->node[0]].dim, trained);
    spd_graph_op(b->g, SPD_COPY, s->node[0], out, group);
    spd_graph_op(b->g, SPD_MATMUL, node, out, group)->matrix = matrix;
    s->node[0] = out;
}

static struct stream stream_start(struct builder *b) {
    struct stream s = {.n = 1, .node = {b->e->x}, .matrix = {-1}};
    if (!b->e->target->residual) return s;
    if (is_dense(b)) s.node[0] = b->embedded;
    else s.matrix[0] = b->embed;
    return s;
}

static int relu(struct builder *b, int in, const real *bias, int group) {
    int out = spd_graph_node(b->g, b->g->nodes[in].dim, b->g->nodes[in].trained);
    spd_graph_op(b->g, SPD_RELU, in, out, group)->bias = bias;
    return out;
}

/* ---- the target, its inner activations and gates ---- */

static void add_gate(struct builder *b, int layer, int input) {
    struct spd_engine *e = b->e;
    struct spd_module *m = &e->modules[b->module[layer]];
    const char *type = e->config->sigmoid_type;
    const enum spd_sigmoid types[] = {SPD_NORMAL,           SPD_HARD,      SPD_LEAKY_HARD, SPD_UPPER_LEAKY_HARD,
                                      SPD_LOWER_LEAKY_HARD, SPD_SWISH_HARD};
    const char *const names[] = {"normal", "hard", "leaky_hard", "upper_leaky_hard", "lower_leaky_hard", "swish_hard"};
    enum spd_sigmoid lower = SPD_NORMAL;
    for (int i = 0; i < 6; i++)
        if (!strcmp(type, names[i])) lower = types[i];
    m->raw = spd_graph_node(b->g, e->C, 1);
    struct spd_op *op = spd_graph_op(b->g, SPD_GATE, e->config->gate_vector ? input : m->h, m->raw, -1);
    op->shape = &m->shape;
    op->params = e->on.params + m->gate;
    op->params_grad = (ptrdiff_t)m->gate;
    /* Kept as long as it stays near the processor: a third-level cache's worth would cost more than computing it again. */
    if (!e->config->gate_vector && m->shape.n_layers == 2 && (int64_t)e->C * m->shape.d[1] * e->n_modules <= 12288)
        op->cache = spd_graph_node(b->g, e->C * m->shape.d[1], 0);
    m->lower = spd_graph_node(b->g, e->C, 1);
    m->importance = spd_graph_node(b->g, e->C, 1);
    /* leaky_hard is two functions of one raw value: one leaks below for the masks, the other above for the importance loss. */
    int split = lower == SPD_LEAKY_HARD;
    spd_graph_op(b->g, SPD_SIGMOID, m->raw, m->lower, -1)->sigmoid = split ? SPD_LOWER_LEAKY_HARD : lower;
    if (split) spd_graph_op(b->g, SPD_SIGMOID, m->raw, m->importance, -1)->sigmoid = SPD_UPPER_LEAKY_HARD;
    else spd_graph_op(b->g, SPD_ABS, m->lower, m->importance, -1);
}

/* The node a module reads, as a node: needed by gates that look at it whole. */
static int as_node(const struct stream *s) { return s->node[0]; }

static void build_target(struct builder *b) {
    struct spd_engine *e = b->e;
    const struct pva_spd_target *t = e->target;
    struct stream s = stream_start(b);
    int current = e->x;
    for (int l = 0; l < t->n_layers; l++) {
        int from_stream = t->residual && l % 2 == 0;
        int input = t->residual ? (from_stream ? as_node(&s) : b->act[l / 2]) : current;
        if (b->module[l] >= 0) {
            struct spd_module *m = &e->modules[b->module[l]];
            m->h = from_stream ? stream_read(b, &s, b->v[l], -1) : shared_product(b, input, b->v[l]);
            add_gate(b, l, input);
        }
        if (!t->residual) current = b->target_node[l] = shared_product(b, current, b->weight[l]);
        else if (from_stream) b->act[l / 2] = relu(b, stream_read(b, &s, b->weight[l], -1), NULL, -1);
        else stream_add(b, &s, b->act[l / 2], b->weight[l], -1);
    }
    e->target_out = t->residual ? stream_read(b, &s, b->readout, -1) : relu(b, current, e->on.constants, -1);
}

/* ---- a network with some modules replaced by masked components ---- */

struct variant {
    unsigned char replaced[PVA_SPD_MAX_MODULES]; /* by layer */
    int kind;                                    /* 0: masks are g; 1: drawn; 2: ones */
    int use, group;
};

static int masked(struct builder *b, const struct variant *v, int layer, int inner) {
    struct spd_engine *e = b->e;
    const struct spd_module *m = &e->modules[b->module[layer]];
    int draw = v->kind == 2 ? e->ones : e->zeros;
    if (v->kind == 1) {
        draw = spd_graph_node(b->g, e->C, 0);
        e->draws = realloc(e->draws, (size_t)(e->n_draws + 1) * sizeof *e->draws);
        PVA_ASSERT(e->draws);
        e->draws[e->n_draws++] = (struct spd_draw){draw, b->module[layer], v->use, v->group};
    }
    int out = spd_graph_node(b->g, e->C, 1);
    struct spd_op *op = spd_graph_op(b->g, SPD_MASK, inner, out, v->group);
    op->gate = m->lower;
    op->draw = draw;
    return out;
}

static int build_variant(struct builder *b, const struct variant *v) {
    const struct pva_spd_target *t = b->e->target;
    struct stream s = stream_start(b);
    int current = b->e->x, changed = 0; /* changed: what follows no longer equals the target's */
    for (int l = 0; l < t->n_layers; l++) {
        int from_stream = t->residual && l % 2 == 0;
        if (v->replaced[l]) {
            const struct spd_module *m = &b->e->modules[b->module[l]];
            int inner = !changed      ? m->h
                        : from_stream ? stream_read(b, &s, b->v[l], v->group)
                                      : spd_graph_matmul(b->g, current, b->v[l], v->group);
            int weighted = masked(b, v, l, inner);
            changed = 1;
            if (t->residual && !from_stream) stream_add(b, &s, weighted, b->u[l], v->group);
            else current = spd_graph_matmul(b->g, weighted, b->u[l], v->group);
        } else if (!t->residual) {
            current = changed ? spd_graph_matmul(b->g, current, b->weight[l], v->group) : b->target_node[l];
        } else if (from_stream) {
            if (changed) current = stream_read(b, &s, b->weight[l], v->group);
        } else {
            stream_add(b, &s, current, b->weight[l], changed ? v->group : -1);
        }
        if (from_stream) current = changed ? relu(b, current, NULL, v->group) : b->act[l / 2];
    }
    return t->residual ? stream_read(b, &s, b->readout, v->group) : relu(b, current, b->e->on.constants, v->group);
}

static int add_group(struct builder *b, enum spd_term term, double coeff, double share, int kind, int only, int *use,
                     struct pva_error *err) {
    struct spd_engine *e = b->e;
    if (e->n_groups == SPD_MAX_GROUPS)
        return pva_fail(err, PVA_INPUT,
                        "n_mask_samples times the number of modules asks for more than %d masked networks per step",
                        SPD_MAX_GROUPS);
    struct variant v = {.kind = term == SPD_OUT_RECON ? 2 : kind, .use = *use, .group = e->n_groups};
    if (kind == 1) (*use)++;
    for (int l = 0; l < e->target->n_layers; l++) v.replaced[l] = b->module[l] >= 0 && (only < 0 || b->module[l] == only);
    e->groups[e->n_groups] = (struct spd_group){.term = term, .share = share, .coeff = coeff};
    int output = build_variant(b, &v);
    e->groups[e->n_groups++].output = output;
    return PVA_OK;
}

int spd_model_build(struct spd_engine *e, struct pva_error *err) {
    const struct pva_spd_config *c = e->config;
    const struct pva_spd_target *t = e->target;
    struct spd_graph *g = &e->graph;
    struct builder b = {.e = e, .g = g, .embed = -1, .readout = -1, .embedded = -1};
    const real *constant = e->on.constants + (t->residual ? 0 : t->n_features); /* after the bias */
    e->x = spd_graph_node(g, t->n_features, 0);
    e->zeros = spd_graph_node(g, e->C, 0);
    e->ones = spd_graph_node(g, e->C, 0);
    for (int l = 0; l < t->n_layers; l++) {
        b.weight[l] = spd_graph_matrix(g, t->layers[l].n_in, t->layers[l].n_out, constant, -1);
        constant += (size_t)t->layers[l].n_in * (size_t)t->layers[l].n_out;
        b.module[l] = b.v[l] = b.u[l] = -1;
    }
    if (t->residual) {
        b.embed = spd_graph_matrix(g, t->n_features, t->n_embed, constant, -1);
        constant += (size_t)t->n_features * (size_t)t->n_embed;
        b.readout = spd_graph_matrix(g, t->n_embed, t->n_features, constant, -1);
        if (is_dense(&b)) b.embedded = spd_graph_matmul(g, e->x, b.embed, -1);
    }
    for (int i = 0; i < e->n_modules; i++) {
        struct spd_module *m = &e->modules[i];
        b.module[m->layer] = i;
        b.v[m->layer] = spd_graph_matrix(g, m->d_in, e->C, e->on.params + m->v, (ptrdiff_t)m->v);
        b.u[m->layer] = spd_graph_matrix(g, e->C, m->d_out, e->on.params + m->u, (ptrdiff_t)m->u);
    }
    build_target(&b);
    const int n = e->n_modules, S = (int)c->n_mask_samples;
    int use = 0, status = PVA_OK;
    if (!isnan(c->recon)) status = add_group(&b, SPD_RECON, c->recon, 1, 0, -1, &use, err);
    for (int s = 0; s < S && !status && !isnan(c->stochastic_recon); s++)
        status = add_group(&b, SPD_STOCHASTIC_RECON, c->stochastic_recon, 1.0 / S, 1, -1, &use, err);
    for (int i = 0; i < n && !status && !isnan(c->recon_layerwise); i++)
        status = add_group(&b, SPD_RECON_LAYERWISE, c->recon_layerwise, 1.0 / n, 0, i, &use, err);
    for (int s = 0; s < S && !isnan(c->stochastic_recon_layerwise); s++)
        for (int i = 0; i < n && !status; i++)
            status = add_group(&b, SPD_STOCHASTIC_RECON_LAYERWISE, c->stochastic_recon_layerwise, 1.0 / (n * S), 1, i, &use, err);
    if (!status && !isnan(c->out_recon)) status = add_group(&b, SPD_OUT_RECON, c->out_recon, 1, 2, -1, &use, err);
    return status;
}
