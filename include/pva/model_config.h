/* model_config.h - the shape of a Gemma 2 model: config.json in, one table of its tensors out.
 *
 * The table (pva_model_config_tensor) drives everything that walks a model's weights: loading, checking, listing, making
 * synthetic ones. Names and shapes are those of the hub's checkpoints; projections are [out, in].
 */
#ifndef PVA_MODEL_CONFIG_H
#define PVA_MODEL_CONFIG_H

#include "pva/error.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PVA_MAX_EOS = 16 };

/* In brackets the key of config.json and, where one exists, the default transformers gives it when absent. */
struct pva_model_config {
    char architecture[32]; /* "Gemma2ForCausalLM" [architectures] */
    int n_layers;          /* [num_hidden_layers] */
    int d_model;           /* width of the residual stream [hidden_size] */
    int d_ff;              /* width inside the MLP [intermediate_size] */
    int n_heads;           /* query heads [num_attention_heads] */
    int n_kv_heads;        /* divides n_heads; query head h reads kv head h / (n_heads / n_kv_heads) [num_key_value_heads] */
    int d_head;            /* even; n_heads * d_head need not be d_model [head_dim] */
    int n_vocab;           /* [vocab_size] */
    int max_positions;     /* [max_position_embeddings, 8192] */
    int window;            /* even layers (0, 2, ...) see keys j in (i - window, i]; odd layers see all [sliding_window, 4096] */
    double query_pre_attn_scalar; /* scores are scaled by its power -1/2 [same name, 256] */
    double attn_softcap;          /* c in c * tanh(s / c); 0: none [attn_logit_softcapping, 50; null is none] */
    double final_softcap;         /* [final_logit_softcapping, 30; null is none] */
    double rms_eps;               /* [rms_norm_eps, 1e-6] */
    double rope_theta;            /* [rope_theta, or rope_parameters.rope_theta; 10000] */
    int bos_id;                   /* -1: none [bos_token_id, 2] */
    int pad_id;                   /* -1: none [pad_token_id, 0] */
    int n_eos;                    /* 0..PVA_MAX_EOS */
    int eos_ids[PVA_MAX_EOS];     /* any of these ends a text [eos_token_id, a number or a list; 1] */
    char
        hidden_activation[24]; /* "gelu_pytorch_tanh", the only one [hidden_activation; hidden_act when that is null or absent] */
    char torch_dtype[12]; /* "float32", "bfloat16", "float16": what the checkpoint was saved in [torch_dtype or dtype, float32] */
};

/* path: a config.json, or a directory that holds one. In a directory, generation_config.json's eos_token_id, when there, replaces
 * config.json's: this is how the -it models say that <end_of_turn> ends a text too.
 * Also refused, because it would change the arithmetic: tie_word_embeddings false, attention_bias true, bidirectional attention,
 * RoPE scaling, quantised weights, layer_types other than sliding on even and full on odd layers. */
int pva_model_config_read(const char *path, struct pva_model_config *out, struct pva_error *err);

/* The same for the bytes of a config.json; `name` stands for the file in messages. */
int pva_model_config_parse(const char *name, const char *json, size_t n_bytes, struct pva_model_config *out,
                           struct pva_error *err);

/* Types aside, everything pva_model_config_read checks: ranges, divisibility, ids within the vocabulary. */
int pva_model_config_check(const char *name, const struct pva_model_config *config, struct pva_error *err);

/* "gemma-2-2b", "gemma-2-9b" or "gemma-2-27b": the published shapes. Anything else fails with PVA_USAGE and the list. */
int pva_model_config_preset(const char *name, struct pva_model_config *out, struct pva_error *err);

/* DIR/config.json and DIR/generation_config.json, so that pva_model_config_read and transformers read the same model back. */
int pva_model_config_write(const struct pva_model_config *config, const char *directory, struct pva_error *err);

/* ---- tensors ---- */

enum pva_tensor_role {
    PVA_EMBED,                 /* [n_vocab, d_model], also the output head */
    PVA_INPUT_NORM,            /* [d_model]; before attention */
    PVA_Q_PROJ,                /* [n_heads * d_head, d_model] */
    PVA_K_PROJ,                /* [n_kv_heads * d_head, d_model] */
    PVA_V_PROJ,                /* [n_kv_heads * d_head, d_model] */
    PVA_O_PROJ,                /* [d_model, n_heads * d_head] */
    PVA_POST_ATTENTION_NORM,   /* [d_model]; on attention's output, before it is added */
    PVA_PRE_FEEDFORWARD_NORM,  /* [d_model]; before the MLP */
    PVA_GATE_PROJ,             /* [d_ff, d_model] */
    PVA_UP_PROJ,               /* [d_ff, d_model] */
    PVA_DOWN_PROJ,             /* [d_model, d_ff] */
    PVA_POST_FEEDFORWARD_NORM, /* [d_model]; on the MLP's output, before it is added */
    PVA_FINAL_NORM,            /* [d_model] */
    PVA_N_TENSOR_ROLES
};

struct pva_model_tensor {
    enum pva_tensor_role role;
    int layer; /* -1 for PVA_EMBED and PVA_FINAL_NORM */
    char name[80];
    int n_dims; /* 1 or 2 */
    int64_t shape[2];
    int64_t n_elements;
};

/* 2 + 11 * n_layers. */
int pva_model_config_n_tensors(const struct pva_model_config *config);

/* Tensor i of 0..n_tensors-1, in the order of a forward pass: embedding, layer 0 in the order of the enum, layer 1, ..., final
 * norm. */
void pva_model_config_tensor(const struct pva_model_config *config, int i, struct pva_model_tensor *out);

/* The i of a role in a layer (layer is ignored for PVA_EMBED and PVA_FINAL_NORM). */
int pva_model_config_tensor_index(const struct pva_model_config *config, enum pva_tensor_role role, int layer);

/* The i of a name; -1 when the model has no such tensor. */
int pva_model_config_tensor_find(const struct pva_model_config *config, const char *name);

/* Elements of all tensors: the model's parameters. */
int64_t pva_model_config_n_parameters(const struct pva_model_config *config);

#ifdef __cplusplus
}
#endif
#endif
