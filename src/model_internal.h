/* model_internal.h - what the loader (model_weights.c) binds and the graph (model_forward.c) reads. */
#ifndef MODEL_INTERNAL_H
#define MODEL_INTERNAL_H

#include "pva/model.h"
#include "pva/tensorfile.h"

struct layer_weights {
    struct pva_tensor input_norm, post_attention_norm, pre_feedforward_norm, post_feedforward_norm; /* f32 [1, d_model] */
    struct pva_tensor q, k, v, o;                                                                    /* [out, in] */
    struct pva_tensor gate, up, down;
};

struct pva_model {
    const struct pva_backend_ops *ops;
    struct pva_backend *be;
    struct pva_model_config config;
    enum pva_dtype operand;
    float embedding_scale; /* sqrt(d_model); rounded to bfloat16 in bf16 mode, as the model was trained */

    struct pva_tensor embedding, final_norm; /* [n_vocab, d_model] (also the head), f32 [1, d_model] */
    struct layer_weights *layers;            /* [n_layers] */

    struct pva_tensorfile *file; /* stays open: bound tensors point into it */
    struct pva_buffer **buffers; /* everything bound or allocated, to be freed */
    size_t n_buffers, converted, weight_bytes;
};
#endif
