/* model_weights.c - from the tensors of a file to buffers of a backend, and the workspace of a pass. */
#include "model_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The stored type if a matrix product can read it beside this operand type, else what it must be converted to. */
static enum pva_dtype matrix_type(enum pva_dtype stored, enum pva_dtype operand) {
    if (stored == PVA_BF16 || stored == operand) return stored;
    return operand;
}

static struct pva_tensor *place_of(struct pva_model *m, const struct pva_model_tensor *t) {
    struct layer_weights *w = t->layer >= 0 ? &m->layers[t->layer] : NULL;
    switch (t->role) {
    case PVA_EMBED: return &m->embedding;
    case PVA_FINAL_NORM: return &m->final_norm;
    case PVA_INPUT_NORM: return &w->input_norm;
    case PVA_Q_PROJ: return &w->q;
    case PVA_K_PROJ: return &w->k;
    case PVA_V_PROJ: return &w->v;
    case PVA_O_PROJ: return &w->o;
    case PVA_POST_ATTENTION_NORM: return &w->post_attention_norm;
    case PVA_PRE_FEEDFORWARD_NORM: return &w->pre_feedforward_norm;
    case PVA_GATE_PROJ: return &w->gate;
    case PVA_UP_PROJ: return &w->up;
    case PVA_DOWN_PROJ: return &w->down;
    case PVA_POST_FEEDFORWARD_NORM: return &w->post_feedforward_norm;
    case PVA_N_TENSOR_ROLES: break;
    }
    PVA_ASSERT(!"a tensor role without a place");
    return NULL;
}

static int load_tensor(struct pva_model *m, const struct pva_model_tensor *t, struct pva_error *err) {
    const struct pva_tensor_view *view;
    if (pva_tensorfile_require(m->file, t->name, t->n_dims, t->shape, &view, err)) return err->code;
    int64_t rows = t->n_dims == 2 ? t->shape[0] : 1, cols = t->shape[t->n_dims - 1];
    enum pva_dtype type = t->n_dims == 1 ? PVA_F32 : matrix_type(view->dtype, m->operand);
    struct pva_tensor *place = place_of(m, t);
    struct pva_buffer *stored = NULL;
    if (m->ops->bind(m->be, view->data, view->bytes, &stored, err)) return err->code;
    *place = (struct pva_tensor){stored, 0, type, rows, cols};
    if (view->dtype != type) {
        size_t bytes = (size_t)t->n_elements * pva_dtype_size(type);
        place->buffer = NULL;
        if (!m->ops->alloc(m->be, bytes, &place->buffer, err))
            m->ops->convert(m->be, (struct pva_tensor){stored, 0, view->dtype, rows, cols}, *place, err);
        m->ops->free(m->be, &stored);
        m->converted += bytes;
    }
    if (place->buffer) m->buffers[m->n_buffers++] = place->buffer;
    m->weight_bytes += (size_t)t->n_elements * pva_dtype_size(type);
    return err->code;
}

/* A tensor that the model does not know would be silently ignored: a fine-tune with an untied head, say, would give wrong text. */
static int refuse_unexpected(const struct pva_model *m, struct pva_error *err) {
    for (size_t i = 0; i < pva_tensorfile_count(m->file); i++) {
        const struct pva_tensor_view *view = pva_tensorfile_at(m->file, i);
        if (pva_model_config_tensor_find(&m->config, view->name) < 0)
            return pva_fail(err, PVA_INPUT, "%s: tensor %s does not belong to a %d-layer %s", view->file, view->name, m->config.n_layers,
                            m->config.architecture);
    }
    return PVA_OK;
}

int pva_model_open(const char *directory, const struct pva_backend_ops *ops, struct pva_backend *be, enum pva_dtype dtype, struct pva_model **out,
                   struct pva_error *err) {
    PVA_ASSERT(dtype == PVA_F32 || dtype == PVA_BF16);
    struct pva_model *m = calloc(1, sizeof *m);
    if (!m) return pva_fail(err, PVA_IO, "out of memory");
    m->ops = ops;
    m->be = be;
    m->operand = dtype;
    if (pva_model_config_read(directory, &m->config, err)) goto fail;
    int n = pva_model_config_n_tensors(&m->config);
    m->embedding_scale = (float)sqrt(m->config.d_model);
    if (dtype == PVA_BF16) m->embedding_scale = pva_bf16_to_f32(pva_f32_to_bf16(m->embedding_scale));
    m->layers = calloc((size_t)m->config.n_layers, sizeof *m->layers);
    m->buffers = calloc((size_t)n, sizeof *m->buffers);
    if (!m->layers || !m->buffers) {
        pva_fail(err, PVA_IO, "out of memory");
        goto fail;
    }
    if (pva_tensorfile_open(directory, &m->file, err)) goto fail;
    for (int i = 0; i < n; i++) {
        struct pva_model_tensor t;
        pva_model_config_tensor(&m->config, i, &t);
        if (load_tensor(m, &t, err)) goto fail;
    }
    if (refuse_unexpected(m, err)) goto fail;
    *out = m;
    return PVA_OK;
fail:
    pva_model_close(&m);
    return err->code;
}

void pva_model_close(struct pva_model **model) {
    struct pva_model *m = *model;
    if (!m) return;
    for (size_t i = 0; i < m->n_buffers; i++) m->ops->free(m->be, &m->buffers[i]);
    pva_tensorfile_close(&m->file);
    free(m->buffers);
    free(m->layers);
    free(m);
    *model = NULL;
}

const struct pva_model_config *pva_model_get_config(const struct pva_model *m) { return &m->config; }
const struct pva_backend_ops *pva_model_ops(const struct pva_model *m) { return m->ops; }
struct pva_backend *pva_model_backend(const struct pva_model *m) { return m->be; }
enum pva_dtype pva_model_dtype(const struct pva_model *m) { return m->operand; }
int64_t pva_model_parameters(const struct pva_model *m) { return pva_model_config_n_parameters(&m->config); }
size_t pva_model_weight_bytes(const struct pva_model *m) { return m->weight_bytes; }
size_t pva_model_converted(const struct pva_model *m) { return m->converted; }

/* ---- workspace ---- */

struct part {
    struct pva_tensor *place;
    enum pva_dtype dtype;
    int64_t rows, cols;
};

enum { N_PARTS = 15, ALIGN = 256 };

static void list_parts(struct pva_workspace *ws, const struct pva_model_config *c, enum pva_dtype operand, struct part *parts) {
    int64_t r = ws->max_rows, l = ws->max_logits, q = (int64_t)c->n_heads * c->d_head, kv = (int64_t)c->n_kv_heads * c->d_head;
    const struct part all[N_PARTS] = {
        {&ws->numbers, PVA_I32, r, 1},          {&ws->resid, PVA_F32, r, c->d_model},
        {&ws->branch, PVA_F32, r, c->d_model},  {&ws->normed, operand, r, c->d_model},
        {&ws->q, PVA_F32, r, q},                {&ws->k, PVA_F32, r, kv},
        {&ws->v, PVA_F32, r, kv},               {&ws->mixed, operand, r, q},
        {&ws->gate, PVA_F32, r, c->d_ff},       {&ws->up, PVA_F32, r, c->d_ff},
        {&ws->hidden, operand, r, c->d_ff},     {&ws->head_in, PVA_F32, l, c->d_model},
        {&ws->head_normed, operand, l, c->d_model}, {&ws->logits, PVA_F32, l, c->n_vocab},
        {&ws->sampled, PVA_I32, l, 1},
    };
    memcpy(parts, all, sizeof all);
}

static size_t part_bytes(const struct part *p) {
    return ((size_t)p->rows * (size_t)p->cols * pva_dtype_size(p->dtype) + ALIGN - 1) / ALIGN * ALIGN;
}

size_t pva_workspace_bytes(const struct pva_model_config *c, enum pva_dtype operand, int64_t max_rows, int64_t max_logits) {
    struct pva_workspace ws = {.max_rows = max_rows, .max_logits = max_logits};
    struct part parts[N_PARTS];
    list_parts(&ws, c, operand, parts);
    size_t bytes = 0;
    for (int i = 0; i < N_PARTS; i++) bytes += part_bytes(&parts[i]);
    return bytes;
}

int pva_workspace_create(const struct pva_model *m, int64_t max_rows, int64_t max_logits, struct pva_workspace **out, struct pva_error *err) {
    struct pva_workspace *ws = calloc(1, sizeof *ws);
    if (!ws) return pva_fail(err, PVA_IO, "out of memory");
    ws->model = m;
    ws->max_rows = max_rows;
    ws->max_logits = max_logits;
    size_t bytes = pva_workspace_bytes(&m->config, m->operand, max_rows, max_logits), at = 0;
    if (m->ops->alloc(m->be, bytes, &ws->memory, err)) {
        free(ws);
        return pva_error_prefix(err, "workspace of %lld rows", (long long)max_rows);
    }
    struct part parts[N_PARTS];
    list_parts(ws, &m->config, m->operand, parts);
    for (int i = 0; i < N_PARTS; i++) {
        *parts[i].place = (struct pva_tensor){ws->memory, at, parts[i].dtype, parts[i].rows, parts[i].cols};
        at += part_bytes(&parts[i]);
    }
    *out = ws;
    return PVA_OK;
}

void pva_workspace_free(struct pva_workspace **ws) {
    if (!*ws) return;
    (*ws)->model->ops->free((*ws)->model->be, &(*ws)->memory);
    free(*ws);
    *ws = NULL;
}
