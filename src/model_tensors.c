/* The one table of tensor names and shapes. */
#include "pva/model_config.h"

#include <stdio.h>
#include <string.h>

enum size { NONE, D_MODEL, D_FF, N_VOCAB, D_QUERY, D_KEY };

static const struct {
    const char *name; /* within the layer; the full name for the two that belong to no layer */
    enum size rows, cols;
} table[PVA_N_TENSOR_ROLES] = {
    [PVA_EMBED] = {"model.embed_tokens.weight", N_VOCAB, D_MODEL},
    [PVA_INPUT_NORM] = {"input_layernorm.weight", D_MODEL, NONE},
    [PVA_Q_PROJ] = {"self_attn.q_proj.weight", D_QUERY, D_MODEL},
    [PVA_K_PROJ] = {"self_attn.k_proj.weight", D_KEY, D_MODEL},
    [PVA_V_PROJ] = {"self_attn.v_proj.weight", D_KEY, D_MODEL},
    [PVA_O_PROJ] = {"self_attn.o_proj.weight", D_MODEL, D_QUERY},
    [PVA_POST_ATTENTION_NORM] = {"post_attention_layernorm.weight", D_MODEL, NONE},
    [PVA_PRE_FEEDFORWARD_NORM] = {"pre_feedforward_layernorm.weight", D_MODEL, NONE},
    [PVA_GATE_PROJ] = {"mlp.gate_proj.weight", D_FF, D_MODEL},
    [PVA_UP_PROJ] = {"mlp.up_proj.weight", D_FF, D_MODEL},
    [PVA_DOWN_PROJ] = {"mlp.down_proj.weight", D_MODEL, D_FF},
    [PVA_POST_FEEDFORWARD_NORM] = {"post_feedforward_layernorm.weight", D_MODEL, NONE},
    [PVA_FINAL_NORM] = {"model.norm.weight", D_MODEL, NONE},
};
enum { PER_LAYER = PVA_FINAL_NORM - PVA_INPUT_NORM };

static int64_t length(const struct pva_model_config *c, enum size size) {
    switch (size) {
    case D_MODEL: return c->d_model;
    case D_FF: return c->d_ff;
    case N_VOCAB: return c->n_vocab;
    case D_QUERY: return (int64_t)c->n_heads * c->d_head;
    case D_KEY: return (int64_t)c->n_kv_heads * c->d_head;
    case NONE: break;
    }
    return 1;
}

int pva_model_config_n_tensors(const struct pva_model_config *c) { return 2 + PER_LAYER * c->n_layers; }

int pva_model_config_tensor_index(const struct pva_model_config *c, enum pva_tensor_role role, int layer) {
    PVA_ASSERT((unsigned)role < PVA_N_TENSOR_ROLES);
    if (role == PVA_EMBED) return 0;
    if (role == PVA_FINAL_NORM) return pva_model_config_n_tensors(c) - 1;
    PVA_ASSERT(layer >= 0 && layer < c->n_layers);
    return 1 + PER_LAYER * layer + (int)(role - PVA_INPUT_NORM);
}

void pva_model_config_tensor(const struct pva_model_config *c, int i, struct pva_model_tensor *out) {
    PVA_ASSERT(i >= 0 && i < pva_model_config_n_tensors(c));
    out->layer = -1;
    if (i == 0) {
        out->role = PVA_EMBED;
    } else if (i == pva_model_config_n_tensors(c) - 1) {
        out->role = PVA_FINAL_NORM;
    } else {
        out->role = (enum pva_tensor_role)(PVA_INPUT_NORM + (i - 1) % PER_LAYER);
        out->layer = (i - 1) / PER_LAYER;
    }
    if (out->layer < 0) snprintf(out->name, sizeof out->name, "%s", table[out->role].name);
    else snprintf(out->name, sizeof out->name, "model.layers.%d.%s", out->layer, table[out->role].name);
    out->n_dims = table[out->role].cols == NONE ? 1 : 2;
    out->shape[0] = length(c, table[out->role].rows);
    out->shape[1] = length(c, table[out->role].cols);
    out->n_elements = out->shape[0] * out->shape[1];
}

int pva_model_config_tensor_find(const struct pva_model_config *c, const char *name) {
    static const char prefix[] = "model.layers.";
    for (int i = 0; i < 2; i++)
        if (!strcmp(name, table[i ? PVA_FINAL_NORM : PVA_EMBED].name))
            return pva_model_config_tensor_index(c, i ? PVA_FINAL_NORM : PVA_EMBED, -1);
    if (strncmp(name, prefix, sizeof prefix - 1)) return -1;
    const char *digits = name + sizeof prefix - 1, *p = digits;
    int layer = 0;
    while (*p >= '0' && *p <= '9' && layer <= c->n_layers) layer = 10 * layer + (*p++ - '0');
    if (p == digits || *p != '.' || layer >= c->n_layers || (*digits == '0' && p > digits + 1)) return -1;
    for (int role = PVA_INPUT_NORM; role < PVA_FINAL_NORM; role++)
        if (!strcmp(p + 1, table[role].name)) return pva_model_config_tensor_index(c, (enum pva_tensor_role)role, layer);
    return -1;
}

int64_t pva_model_config_n_parameters(const struct pva_model_config *c) {
    struct pva_model_tensor t;
    int64_t total = 0;
    for (int i = 0; i < pva_model_config_n_tensors(c); i++) {
        pva_model_config_tensor(c, i, &t);
        total += t.n_elements;
    }
    return total;
}
