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

/* The n_marked-th block of m rows of a capture. */
static struct pva_tensor block_of(struct pva_tensor t, int64_t block, int64_t m) {
    t.offset += (size_t)(block * m * t.cols) * pva_dtype_size(t.dtype);
    t.rows = m;
    return t;
}

static int at_point(const struct pva_model *m, struct pva_workspace *ws, enum pva_point point, int layer, int64_t n, struct pva_hook *hooks,
                    int n_hooks, struct pva_error *err) {
    struct pva_tensor stream = rows_of(ws->resid, n);
    ws->visits[point] += n;
    for (int i = 0; i < n_hooks; i++) {
        struct pva_hook *h = &hooks[i];
        if (h->point != point || !h->layers[layer]) continue;
        switch (h->action) {
        case PVA_HOOK_CAPTURE: {
            int64_t block = 0, count = h->rows.rows;
            for (int l = 0; l < layer; l++) block += h->layers[l];
            if (count) TRY(m->ops->gather_rows(m->be, stream, h->rows, block_of(h->captured, block, count), err));
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

static int block(const struct pva_model *m, struct pva_workspace *ws, const struct pva_kv_cache *kv, int layer, int64_t n, struct pva_hook *hooks,
                 int n_hooks, struct pva_error *err) {
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

    TRY(at_point(m, ws, PVA_RESID_PRE, layer, n, hooks, n_hooks, err));
    TRY(op->rmsnorm(be, resid, w->input_norm, eps, normed, err));
    TRY(op->linear(be, normed, w->q, q, err));
    TRY(op->linear(be, normed, w->k, k, err));
    TRY(op->linear(be, normed, w->v, v, err));
    TRY(op->rope_store(be, q, k, v, slots, positions, (float)c->rope_theta, &shape, kv, layer, err));
    TRY(op->attention(be, q, slots, positions, &shape, kv, layer, mixed, err));
    TRY(op->linear(be, mixed, w->o, branch, err));
    TRY(op->rmsnorm_add(be, branch, w->post_attention_norm, eps, resid, err));

    TRY(at_point(m, ws, PVA_RESID_MID, layer, n, hooks, n_hooks, err));
    TRY(op->rmsnorm(be, resid, w->pre_feedforward_norm, eps, normed, err));
    TRY(op->linear(be, normed, w->gate, gate, err));
    TRY(op->linear(be, normed, w->up, up, err));
    TRY(op->geglu(be, gate, up, hidden, err));
    TRY(op->linear(be, hidden, w->down, branch, err));
    TRY(op->rmsnorm_add(be, branch, w->post_feedforward_norm, eps, resid, err));

    return at_point(m, ws, PVA_RESID_POST, layer, n, hooks, n_hooks, err);
}

int pva_model_forward(const struct pva_model *m, struct pva_workspace *ws, const struct pva_kv_cache *kv, int64_t n_rows, const int32_t *tokens,
                      const int32_t *slots, const int32_t *positions, struct pva_hook *hooks, int n_hooks, int stop_layer,
                      struct pva_error *err) {
    PVA_ASSERT(ws->model == m && n_rows <= ws->max_rows && stop_layer <= m->config.n_layers);
    const struct pva_backend_ops *op = m->ops;
    if (n_rows == 0) return PVA_OK;
    TRY(op->upload(m->be, rows_of(ws->tokens, n_rows), tokens, err));
    TRY(op->upload(m->be, rows_of(ws->slots, n_rows), slots, err));
    TRY(op->upload(m->be, rows_of(ws->positions, n_rows), positions, err));
    TRY(op->embed(m->be, rows_of(ws->tokens, n_rows), m->embedding, m->embedding_scale, m->operand == PVA_BF16, rows_of(ws->resid, n_rows), err));
    for (int layer = 0; layer < stop_layer; layer++)
        if (block(m, ws, kv, layer, n_rows, hooks, n_hooks, err)) return pva_error_prefix(err, "layer %d", layer);
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
