/* model_forward.c - the forward graph. Reads like the model's definition; everything else is the backend's. */
#include "model_internal.h"

#include <math.h>

#define TRY(call) \
    do { \
        if (call) return err->code; \
    } while (0)

static struct pva_tensor rows_of(struct pva_tensor t, int64_t n) {
    t.rows = n;
    return t;
}

static struct pva_tensor window(struct pva_tensor t, int64_t first, int64_t n) {
    PVA_ASSERT(first >= 0 && first + n <= t.rows);
    t.offset += (size_t)(first * t.cols) * pva_dtype_size(t.dtype);
    t.rows = n;
    return t;
}

/* n rows are here, of which the first `computed` have passed the layer. */
static int at_point(const struct pva_model *m, struct pva_workspace *ws, enum pva_point point, int layer, int64_t computed, int64_t n, struct pva_hook *hooks,
                    int n_hooks, struct pva_error *err) {
    struct pva_tensor stream = rows_of(ws->resid, n);
    ws->visits[point] += computed;
    for (int i = 0; i < n_hooks; i++) {
        struct pva_hook *h = &hooks[i];
        if (h->point != point || !h->layers[layer]) continue;
        switch (h->action) {
        case PVA_HOOK_CAPTURE: {
            int64_t block = 0, count = h->rows.rows;
            for (int l = 0; l < layer; l++) block += h->layers[l];
            if (count) TRY(m->ops->gather_rows(m->be, stream, h->rows, window(h->captured, block * count, count), err));
            h->calls += count;
            break;
        }
        case PVA_HOOK_ADD:
            TRY(m->ops->add_direction(m->be, stream, h->directions, rows_of(h->which, n), rows_of(h->coefficients, n), err));
            h->calls += n;
            break;
        case PVA_HOOK_ABLATE:
            TRY(m->ops->ablate_direction(m->be, stream, h->directions, rows_of(h->which, n), err));
            h->calls += n;
            break;
        }
    }
    return PVA_OK;
}

/* Whether a hook changes the stream at this point. */
static int changed_at(enum pva_point point, int layer, const struct pva_hook *hooks, int n_hooks) {
    for (int i = 0; i < n_hooks; i++)
        if (hooks[i].point == point && hooks[i].action != PVA_HOOK_CAPTURE && hooks[i].layers[layer]) return 1;
    return 0;
}

/* Between two stages: the stream is kept, then rows enter. n rows have come so far. */
static int cross(const struct pva_model *m, struct pva_workspace *ws, const struct pva_stage *stage, int64_t n, struct pva_error *err) {
    for (int64_t i = 0; i < stage->n_keep; i++) {
        const struct pva_kept_rows *k = &stage->keep[i];
        TRY(m->ops->gather_rows(m->be, ws->resid, window(ws->numbers, k->row, k->n), window(stage->stream, k->to, k->n), err));
    }
    if (stage->n_rows == n) return PVA_OK;
    return m->ops->gather_rows(m->be, stage->stream, stage->enter, window(ws->resid, n, stage->n_rows - n), err);
}

/* The end of a sublayer and the start of the next: resid += norm(branch), the rows of `entering` (NULL: none come here) join the n that came before, the hooks,
 * normed = norm(resid) by `next` (NULL: nothing follows). The norms are one operation where nothing changes the stream between them. */
static int join(const struct pva_model *m, struct pva_workspace *ws, enum pva_point point, int layer, struct pva_tensor weight, const struct pva_tensor *next,
                const struct pva_stage *entering, int64_t n, struct pva_hook *hooks, int n_hooks, struct pva_error *err) {
    const struct pva_backend_ops *op = m->ops;
    const float eps = (float)m->config.rms_eps;
    const int64_t all = entering ? entering->n_rows : n;
    struct pva_tensor resid = rows_of(ws->resid, n), branch = rows_of(ws->branch, n);
    int pre = point == PVA_RESID_POST && next; /* the next layer's resid_pre is this stream */
    int apart = !next || entering || changed_at(point, layer, hooks, n_hooks) || (pre && changed_at(PVA_RESID_PRE, layer + 1, hooks, n_hooks));
    if (n && apart) TRY(op->rmsnorm_add(m->be, branch, weight, eps, resid, err));
    if (n && !apart) TRY(op->rmsnorm_add_rmsnorm(m->be, branch, weight, *next, eps, resid, rows_of(ws->normed, n), err));
    if (entering) TRY(cross(m, ws, entering, n, err));
    if (!all) return PVA_OK;
    TRY(at_point(m, ws, point, layer, n, all, hooks, n_hooks, err));
    if (pre) TRY(at_point(m, ws, PVA_RESID_PRE, layer + 1, all, all, hooks, n_hooks, err));
    if (apart && next) TRY(op->rmsnorm(m->be, rows_of(ws->resid, all), *next, eps, rows_of(ws->normed, all), err));
    return PVA_OK;
}

/* A layer up to what its MLP adds, which is left in ws->branch. Begins with the norm of its input in ws->normed. */
static int block(const struct pva_model *m, struct pva_workspace *ws, const struct pva_stage *stage, const struct pva_rows *rows, int layer, int64_t n,
                 struct pva_hook *hooks, int n_hooks, struct pva_error *err) {
    const struct pva_kv_cache *kv = &stage->kv;
    const struct pva_backend_ops *op = m->ops;
    struct pva_backend *be = m->be;
    const struct layer_weights *w = &m->layers[layer];
    const struct pva_model_config *c = &m->config;
    struct pva_tensor branch = rows_of(ws->branch, n), normed = rows_of(ws->normed, n);
    struct pva_tensor q = rows_of(ws->q, n), k = rows_of(ws->k, n), v = rows_of(ws->v, n), mixed = rows_of(ws->mixed, n);
    struct pva_tensor gate = rows_of(ws->gate, n), up = rows_of(ws->up, n), hidden = rows_of(ws->hidden, n);
    struct pva_tensor slots = rows_of(rows->slots, n), positions = rows_of(rows->positions, n);
    const struct pva_attention_shape shape = {
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .d_head = c->d_head,
        .scale = (float)(1.0 / sqrt(c->query_pre_attn_scalar)),
        .softcap = (float)c->attn_softcap,
        .window = layer % 2 == 0 ? c->window : 0,
    };

    TRY(op->linears(be, normed, (struct pva_tensor[]){w->q, w->k, w->v}, (struct pva_tensor[]){q, k, v}, 3, err));
    TRY(op->rope_store(be, q, k, v, slots, positions, (float)c->rope_theta, &shape, kv, layer - stage->first_layer, err));
    TRY(op->attention(be, q, slots, positions, &shape, kv, layer - stage->first_layer, mixed, err));
    TRY(op->linear(be, mixed, w->o, branch, err));
    TRY(join(m, ws, PVA_RESID_MID, layer, w->post_attention_norm, &w->pre_feedforward_norm, NULL, n, hooks, n_hooks, err));

    TRY(op->linears(be, normed, (struct pva_tensor[]){w->gate, w->up}, (struct pva_tensor[]){gate, up}, 2, err));
    TRY(op->geglu(be, gate, up, hidden, err));
    return op->linear(be, hidden, w->down, branch, err);
}

int pva_model_forward(const struct pva_model *m, struct pva_workspace *ws, const struct pva_stage *stages, int n_stages, const struct pva_rows *rows,
                      struct pva_hook *hooks, int n_hooks, struct pva_error *err) {
    const struct pva_backend_ops *op = m->ops;
    const struct pva_stage *stage = stages, *end = stages + n_stages;
    int64_t n = stage->n_rows, all = end[-1].n_rows;
    PVA_ASSERT(ws->model == m && all <= ws->max_rows && stage->first_layer == 0 && rows->tokens.rows == all);
    if (all == 0) return PVA_OK;
    if (n) {
        TRY(op->embed(m->be, rows_of(rows->tokens, n), m->embedding, m->embedding_scale, m->operand == PVA_BF16, rows_of(ws->resid, n), err));
        TRY(at_point(m, ws, PVA_RESID_PRE, 0, n, n, hooks, n_hooks, err));
        TRY(op->rmsnorm(m->be, rows_of(ws->resid, n), m->layers[0].input_norm, (float)m->config.rms_eps, rows_of(ws->normed, n), err));
    }
    for (int layer = 0; layer < m->config.n_layers; layer++) {
        const struct pva_tensor *next = layer + 1 < m->config.n_layers ? &m->layers[layer + 1].input_norm : NULL;
        const struct pva_stage *entering = stage + 1 < end && stage[1].first_layer == layer + 1 ? stage + 1 : NULL;
        if ((n && block(m, ws, stage, rows, layer, n, hooks, n_hooks, err)) ||
            join(m, ws, PVA_RESID_POST, layer, m->layers[layer].post_feedforward_norm, next, entering, n, hooks, n_hooks, err))
            return pva_error_prefix(err, "layer %d", layer);
        if (entering) stage = entering, n = stage->n_rows;
    }
    return PVA_OK;
}

int pva_model_logits(const struct pva_model *m, struct pva_workspace *ws, struct pva_tensor rows, struct pva_error *err) {
    const int64_t n = rows.rows;
    PVA_ASSERT(n <= ws->max_logits);
    if (n == 0) return PVA_OK;
    const struct pva_backend_ops *op = m->ops;
    struct pva_tensor in = rows_of(ws->head_in, n), normed = rows_of(ws->head_normed, n), logits = rows_of(ws->logits, n);
    TRY(op->gather_rows(m->be, ws->resid, rows, in, err));
    TRY(op->rmsnorm(m->be, in, m->final_norm, (float)m->config.rms_eps, normed, err));
    TRY(op->linear(m->be, normed, m->embedding, logits, err));
    if (m->config.final_softcap > 0) TRY(op->softcap(m->be, logits, (float)m->config.final_softcap, err));
    return PVA_OK;
}
