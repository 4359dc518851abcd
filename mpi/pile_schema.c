#include "pile_schema.h"

#include <string.h>

enum { VERSION = 1 };

static struct store_attribute text(const char *name, const char *value, int identity) {
    return (struct store_attribute){.name = name, .kind = STORE_TEXT, .text = value, .identity = identity};
}

static struct store_attribute integer(const char *name, int64_t value) {
    return (struct store_attribute){.name = name, .kind = STORE_INTEGER, .integer = value, .identity = 1};
}

static int fill_identity(struct pile_schema *s, const struct pile_identity *id) {
    int n = 0;
    s->attributes[n++] = text("model_sha256", id->model_sha256, 1);
    s->attributes[n++] = text("pile_sha256", id->pile_sha256, 1);
    s->attributes[n++] = text("operand", id->operand, 1);
    s->attributes[n++] = text("backend", id->backend, 1);
    s->attributes[n++] = text("resid_point", pva_point_name(id->point), 1);
    s->attributes[n++] = integer("seed", id->seed);
    s->attributes[n++] = integer("max_tokens", id->max_tokens);
    s->attributes[n++] = text("isa", id->isa, 0);
    return n;
}

static int64_t fill_layers(struct pile_schema *s, int n_layers, const unsigned char *captured) {
    int64_t n = 0;
    for (int l = 0; l < n_layers; l++)
        if (captured[l]) s->layers[n++] = l;
    s->coordinates[0] = (struct store_coordinate){
        {.name = "layer", .type = STORE_I32, .n_dims = 1, .dims = {{"layer", n}}, .long_name = "layer of the model, from 0"}, s->layers, 1};
    return n;
}

void pile_documents_schema(struct pile_schema *s, const struct pile_identity *id, const int32_t *documents, int64_t n_documents, int n_layers,
                           const unsigned char *captured, int64_t d_model, enum store_type resid) {
    memset(s, 0, sizeof *s);
    int64_t layers = fill_layers(s, n_layers, captured);
    const struct store_field all[PILE_N_DOCUMENT_FIELDS] = {
        [PILE_N_TOKENS] = {.name = "n_tokens", .type = STORE_I32, .units = "token", .long_name = "tokens of the document, BOS included, at most max_tokens"},
        [PILE_POSITION] = {.name = "position", .type = STORE_I32, .units = "token", .long_name = "the position drawn; BOS is 0 and is never drawn"},
        [PILE_RESID] = {.name = "resid", .type = resid, .n_dims = 2, .dims = {{"layer", layers}, {"model", d_model}},
                        .long_name = "residual stream at that position; the point is an attribute of the file"},
    };
    memcpy(s->fields, all, sizeof all);
    s->coordinates[1] = (struct store_coordinate){
        {.name = "index", .type = STORE_I32, .n_dims = 1, .dims = {{"document", n_documents}}, .long_name = "place in the text file, from 0"}, documents, 1};
    s->store = (struct store_schema){
        .name = "pva-pile-activations",
        .version = VERSION,
        .title = "residual streams on general text, one position per document",
        .source = "pva-mpi pile",
        .slot = {"document", n_documents},
        .fields = s->fields,
        .n_fields = PILE_N_DOCUMENT_FIELDS,
        .coordinates = s->coordinates,
        .n_coordinates = 2,
        .attributes = s->attributes,
        .n_attributes = fill_identity(s, id),
    };
}

static void fill_layer_fields(struct pile_schema *s, int64_t n_latents, int64_t path_size) {
    struct store_dim latent = {"latent", n_latents};
    const struct store_field all[PILE_N_LAYER_FIELDS] = {
        [PILE_N_FIRED] = {.name = "n_fired", .type = STORE_I64, .n_dims = 1, .dims = {latent}, .units = "document", .long_name = "documents on which the latent was active"},
        [PILE_SUM] = {.name = "sum", .type = STORE_F64, .n_dims = 1, .dims = {latent}, .long_name = "sum of its activations over these documents"},
        [PILE_MEAN_L0] = {.name = "mean_l0", .type = STORE_F64, .units = "latent", .long_name = "active latents per position"},
        [PILE_LABEL_L0] = {.name = "label_l0", .type = STORE_F64, .units = "latent", .long_name = "average L0 in the name of the autoencoder's folder; NaN: none"},
        [PILE_UNEXPLAINED] = {.name = "unexplained", .type = STORE_F64, .long_name = "fraction of variance unexplained, over the first 1024 documents"},
        [PILE_N_NEAR] = {.name = "n_near", .type = STORE_I64, .long_name = "pairs of document and latent with |z - threshold| < 1e-3 threshold"},
        [PILE_SAE_SHA256] = {.name = "sae_sha256", .type = STORE_BYTES, .text_size = 64, .long_name = "fingerprint of the autoencoder"},
        [PILE_SAE_PATH] = {.name = "sae_path", .type = STORE_BYTES, .text_size = path_size, .long_name = "its file, or the end of a longer name"},
    };
    memcpy(s->fields, all, sizeof all);
    s->store = (struct store_schema){
        .name = "pva-pile",
        .version = VERSION,
        .title = "how often latents fire on general text",
        .source = "pva-mpi pile",
        .fields = s->fields,
        .n_fields = PILE_N_LAYER_FIELDS,
    };
}

void pile_layers_schema(struct pile_schema *s, const struct pile_identity *id, int64_t n_documents, int n_layers, const unsigned char *captured, int64_t n_latents,
                        const char *saes_sha256) {
    memset(s, 0, sizeof *s);
    fill_layer_fields(s, n_latents, PILE_PATH_SIZE);
    s->store.slot = (struct store_dim){"layer", fill_layers(s, n_layers, captured)};
    s->store.coordinates = s->coordinates, s->store.n_coordinates = 1;
    int n = fill_identity(s, id);
    s->attributes[n++] = text("saes_sha256", saes_sha256, 1);
    s->attributes[n++] = integer("n_documents", n_documents);
    s->store.attributes = s->attributes, s->store.n_attributes = n;
}

void pile_layers_any(struct pile_schema *s) {
    memset(s, 0, sizeof *s);
    fill_layer_fields(s, 0, 0);
    s->store.slot = (struct store_dim){"layer", 0};
}
