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

/* All of a layer but the last point. */
static int block(const struct pva_model *m, struct pva_workspace *ws, const struct pva_stage *stage, int layer, int64_t n, struct pva_hook *hooks,
                 int n_hooks, struct pva_error *err) {
    const struct pva_kv_cache *kv = &stage->kv;
    const struct pva_backend_ops *op = m->ops;
    struct pva_backend *be = m->be;
    const struct layer_weights *w = &m->layers[layer];
    const struct pva_model_config *c = &m->config;
    const float eps = (float)c->rms_eps;
    struct pva_tensor resid = rows_of(ws->resid, n), branch = rows_of(ws->branch, n), normed = rows_of(ws->normed, n);
    struct pva_tensor q = rows_of(ws->q, n), k = rows_of(ws->k, n), v = rows_of(ws->v, n), mixed = rows_of(ws->mixed, n);
    struct pva_tensor gate = rows_of(ws->gate, n), up = rows_of(ws->up, n), hidden = rows_of(ws->hidden, n);
    struct pva_tensor slots = rows_of(ws->slots, n), positions = rows_of(ws->positions, n);
    const struct pva_attention_shape shape = {
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .d_head = c->d_head,
        .scale = (float)(1.0 / sqrt(c->query_pre_attn_scalar)),
        .softcap = (float)c->attn_softcap,
        .window = layer % 2 == 0 ? c->window : 0,
    };

    TRY(at_point(m, ws, PVA_RESID_PRE, layer, n, n, hooks, n_hooks, err));
    TRY(op->rmsnorm(be, resid, w->input_norm, eps, normed, err));
    TRY(op->linear(be, normed, w->q, q, err));
    TRY(op->linear(be, normed, w->k, k, err));
    TRY(op->linear(be, normed, w->v, v, err));
    TRY(op->rope_store(be, q, k, v, slots, positions, (float)c->rope_theta, &shape, kv, layer - stage->first_layer, err));
    TRY(op->attention(be, q, slots, positions, &shape, kv, layer - stage->first_layer, mixed, err));
    TRY(op->linear(be, mixed, w->o, branch, err));
    TRY(op->rmsnorm_add(be, branch, w->post_attention_norm, eps, resid, err));

    TRY(at_point(m, ws, PVA_RESID_MID, layer, n, n, hooks, n_hooks, err));
    TRY(op->rmsnorm(be, resid, w->pre_feedforward_norm, eps, normed, err));
    TRY(op->linear(be, normed, w->gate, gate, err));
    TRY(op->linear(be, normed, w->up, up, err));
    TRY(op->geglu(be, gate, up, hidden, err));
    TRY(op->linear(be, hidden, w->down, branch, err));
    return op->rmsnorm_add(be, branch, w->post_feedforward_norm, eps, resid, err);
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

int pva_model_forward(const struct pva_model *m, struct pva_workspace *ws, const struct pva_stage *stages, int n_stages, const int32_t *tokens,
                      const int32_t *slots, const int32_t *positions, struct pva_hook *hooks, int n_hooks, struct pva_error *err) {
    const struct pva_backend_ops *op = m->ops;
    const struct pva_stage *stage = stages, *end = stages + n_stages;
    int64_t n = stage->n_rows, all = end[-1].n_rows;
    PVA_ASSERT(ws->model == m && all <= ws->max_rows && stage->first_layer == 0);
    if (all == 0) return PVA_OK;
    TRY(op->upload(m->be, rows_of(ws->tokens, all), tokens, err));
    TRY(op->upload(m->be, rows_of(ws->slots, all), slots, err));
    TRY(op->upload(m->be, rows_of(ws->positions, all), positions, err));
    if (n) TRY(op->embed(m->be, rows_of(ws->tokens, n), m->embedding, m->embedding_scale, m->operand == PVA_BF16, rows_of(ws->resid, n), err));
    for (int layer = 0; layer < m->config.n_layers; layer++) {
        if (n && block(m, ws, stage, layer, n, hooks, n_hooks, err)) return pva_error_prefix(err, "layer %d", layer);
        int64_t computed = n;
        if (stage + 1 < end && stage[1].first_layer == layer + 1) {
            stage++;
            TRY(cross(m, ws, stage, n, err));
            n = stage->n_rows;
        }
        if (n && at_point(m, ws, PVA_RESID_POST, layer, computed, n, hooks, n_hooks, err)) return pva_error_prefix(err, "layer %d", layer);
    }
    return PVA_OK;
}

int pva_model_logits(const struct pva_model *m, struct pva_workspace *ws, const int32_t *rows, int64_t n, struct pva_error *err) {
    PVA_ASSERT(n <= ws->max_logits);
    if (n == 0) return PVA_OK;
    const struct pva_backend_ops *op = m->ops;
    struct pva_tensor in = rows_of(ws->head_in, n), normed = rows_of(ws->head_normed, n), logits = rows_of(ws->logits, n);
    TRY(op->upload(m->be, rows_of(ws->logit_rows, n), rows, err));
    TRY(op->gather_rows(m->be, ws->resid, rows_of(ws->logit_rows, n), in, err));
    TRY(op->rmsnorm(m->be, in, m->final_norm, (float)m->config.rms_eps, normed, err));
    TRY(op->linear(m->be, normed, m->embedding, logits, err));
    if (m->config.final_softcap > 0) TRY(op->softcap(m->be, logits, (float)m->config.final_softcap, err));
    return PVA_OK;
}
