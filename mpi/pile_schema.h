/* pile_schema.h - what pile-activations.h5 (one slot per document) and pile.h5 (one slot per layer) hold. */
#ifndef PILE_SCHEMA_H
#define PILE_SCHEMA_H

#include "store.h"

#include "pva/hook.h"

enum pile_document_field { PILE_N_TOKENS, PILE_POSITION, PILE_RESID, PILE_N_DOCUMENT_FIELDS };
enum pile_layer_field {
    PILE_N_FIRED,
    PILE_SUM,
    PILE_MEAN_L0,
    PILE_LABEL_L0,
    PILE_UNEXPLAINED,
    PILE_N_NEAR,
    PILE_SAE_SHA256,
    PILE_SAE_PATH,
    PILE_N_LAYER_FIELDS
};
enum { PILE_PATH_SIZE = 512 };

/* What decides the activations of a document. */
struct pile_identity {
    char model_sha256[65], pile_sha256[65];
    const char *operand, *backend; /* "f32"; "cpu" */
    int64_t seed, max_tokens;
    enum pva_point point;
    const char *isa; /* recorded, not compared */
};

struct pile_schema {
    struct store_schema store;
    struct store_field fields[PILE_N_LAYER_FIELDS];
    struct store_coordinate coordinates[2];
    struct store_attribute attributes[16];
    int32_t layers[256];
};

/* documents: [n_documents] places in the file, from 0. captured: marks [n_layers]. resid: STORE_F32 or STORE_BF16. Arrays must live until store_open has returned. */
void pile_documents_schema(struct pile_schema *s, const struct pile_identity *id, const int32_t *documents, int64_t n_documents, int n_layers,
                           const unsigned char *captured, int64_t d_model, enum store_type resid);
/* saes_sha256: over the fingerprints of all autoencoders, in the layers' order. */
void pile_layers_schema(struct pile_schema *s, const struct pile_identity *id, int64_t n_documents, int n_layers, const unsigned char *captured, int64_t n_latents,
                        const char *saes_sha256);
/* For readers of pile.h5: every size is whatever the file has. */
void pile_layers_any(struct pile_schema *s);

#endif
