/* model.h - Gemma 2 (2B, 9B, 27B): weights bound to a backend, and the forward graph, written once over its operations.
 *
 * Arithmetic: embedding times sqrt(d_model); RMSNorm with (1 + w); layers of even index see a sliding window; scores are soft-capped
 * before the mask, logits before the temperature; the head is the embedding table, unscaled. Types: backend.h, "Numeric policy".
 */
#ifndef PVA_MODEL_H
#define PVA_MODEL_H

#include "pva/backend.h"
#include "pva/hook.h"
#include "pva/model_config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Weights on a device. Immutable after open; several workspaces may share it. */
struct pva_model;

/* directory: config.json and safetensors as the hub lays them out. dtype: PVA_BF16 or PVA_F32, the operand type. Tensors whose
 * stored type the device can read as they are stay in the mapped file; others are converted once (pva_model_converted says how
 * many bytes). The backend must outlive the model. */
int pva_model_open(const char *directory, const struct pva_backend_ops *ops, struct pva_backend *be, enum pva_dtype dtype,
                   struct pva_model **out, struct pva_error *err);
void pva_model_close(struct pva_model **model);

const struct pva_model_config *pva_model_get_config(const struct pva_model *m);
const struct pva_backend_ops *pva_model_ops(const struct pva_model *m);
struct pva_backend *pva_model_backend(const struct pva_model *m);
enum pva_dtype pva_model_dtype(const struct pva_model *m);
int64_t pva_model_parameters(const struct pva_model *m);
size_t pva_model_weight_bytes(const struct pva_model *m);  /* read per decoded token, head included */
size_t pva_model_converted(const struct pva_model *m);     /* bytes that had to be converted into memory of our own */

/* Whether opening this model with this operand type would convert matrices into memory of each process's own. */
int pva_model_needs_conversion(const char *directory, enum pva_dtype operand, int *needs, struct pva_error *err);
/* A copy (config.json, model.safetensors) with bfloat16 matrices, in an existing directory: processes of a node that map it share one
 * copy in memory. Rounds as pva_model_open does. */
int pva_model_write_bf16(const char *directory, const char *out_directory, struct pva_error *err);

/* The buffers of one forward pass, sized once. */
struct pva_workspace {
    const struct pva_model *model;
    int64_t max_rows, max_logits;
    struct pva_buffer *memory;                 /* everything below lies in it */
    struct pva_tensor numbers;                 /* i32 [max_rows, 1]: 0, 1, ... */
    struct pva_tensor resid, branch;           /* f32 [max_rows, d_model] */
    struct pva_tensor normed;                  /* operand [max_rows, d_model] */
    struct pva_tensor q, k, v;                 /* f32 [max_rows, heads * d_head] */
    struct pva_tensor mixed;                   /* operand [max_rows, n_heads * d_head] */
    struct pva_tensor gate, up, hidden;        /* f32, f32, operand [max_rows, d_ff] */
    struct pva_tensor head_in, head_normed, logits; /* [max_logits, d_model | d_model | n_vocab] */
    struct pva_tensor sampled;                 /* i32 [max_logits, 1] */
    int64_t visits[PVA_N_POINTS];              /* (layer, row) pairs computed, at each point */
};

int pva_workspace_create(const struct pva_model *m, int64_t max_rows, int64_t max_logits, struct pva_workspace **out, struct pva_error *err);
void pva_workspace_free(struct pva_workspace **ws);
size_t pva_workspace_bytes(const struct pva_model_config *c, enum pva_dtype operand, int64_t max_rows, int64_t max_logits);

/* The rows of a pass, on the device: i32 [n, 1] each. */
struct pva_rows {
    struct pva_tensor tokens, slots, positions;
};

/* Rows row .. row + n - 1 of a pass, kept as rows to .. of a stage's stream. */
struct pva_kept_rows {
    int64_t row, to, n;
};

/* Consecutive layers with a key/value cache of their own, up to the next stage's. The residual stream before a later stage can be kept, and a row can enter
 * there with a kept stream instead of being computed from its token: what other sequences have in common with it is then computed once. */
struct pva_stage {
    int first_layer;            /* 0 in the first stage */
    int64_t n_rows;             /* of this pass, entered here or before: never fewer than in the stage before */
    struct pva_kv_cache kv;     /* of its layers; all stages have the same slots and page size */
    /* Not in the first stage. */
    struct pva_tensor stream;   /* f32 [any, d_model], the stream between the layers, before hooks act there */
    const struct pva_kept_rows *keep; /* taken first ... */
    int64_t n_keep;
    struct pva_tensor enter;    /* ... then i32 [n_rows here - n_rows before, 1]: the row of `stream` that each entering row begins with */
};

/* One pass over the last stage's n_rows <= max_rows tokens, each with its own slot and position; the rows that enter at a stage come after those that entered
 * before. Everything before a row's position is in the caches of the layers that it passes already, or is a row of the same pass. Keys and values go into
 * the caches; ws->resid holds resid_post of the last layer. A row that enters at layer L passes resid_post of layer L - 1 (hooks act on it there), but is
 * not counted as a visit of it. */
int pva_model_forward(const struct pva_model *m, struct pva_workspace *ws, const struct pva_stage *stages, int n_stages, const struct pva_rows *rows,
                      struct pva_hook *hooks, int n_hooks, struct pva_error *err);

/* Soft-capped logits of n <= max_logits rows of the last pass, i32 [n, 1] on the device, into the first n rows of ws->logits. */
int pva_model_logits(const struct pva_model *m, struct pva_workspace *ws, struct pva_tensor rows, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
