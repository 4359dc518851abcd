#include "pile_read.h"

#include "pile_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The layer's slot, finished; or what to do about it. */
static int open_layer(const char *run, int layer, struct store **s, int64_t *slot, struct pva_error *err) {
    struct pile_schema schema;
    char path[4096];
    snprintf(path, sizeof path, "%s/pile.h5", run);
    if (access(path, F_OK)) return pva_fail(err, PVA_INPUT, "%s: there are no firing rates here; run pva-mpi pile first", path);
    pile_layers_any(&schema);
    if (store_open_read(path, &schema.store, s, err)) return err->code;
    int64_t n = store_n_slots(*s);
    int32_t *layers = malloc((size_t)(n + 1) * sizeof *layers);
    uint8_t *states = malloc((size_t)n + 1);
    if (!layers || !states) pva_fail(err, PVA_IO, "out of memory");
    else if (!store_read_coordinate(*s, "layer", STORE_I32, layers, (size_t)n * sizeof *layers, err) && !store_states(*s, states, err)) {
        for (*slot = 0; *slot < n && layers[*slot] != layer;) ++*slot;
        if (*slot == n) pva_fail(err, PVA_INPUT, "%s: has no layer %d; run pva-mpi pile with it", path, layer);
        else if (states[*slot] == STORE_EMPTY) pva_fail(err, PVA_INPUT, "%s: layer %d is not finished; run pva-mpi pile again", path, layer);
    }
    free(layers);
    free(states);
    if (err->code) {
        struct pva_error ignored = {0};
        store_close(s, &ignored);
    }
    return err->code;
}

int pile_rates(const char *run_directory, int layer, double *rates, int64_t n_latents, int64_t *n_documents, struct pva_error *err) {
    struct store *s = NULL;
    int64_t slot = 0, documents = 0;
    if (open_layer(run_directory, layer, &s, &slot, err)) return err->code;
    int64_t n = store_dim_size(s, "latent"), *fired = malloc((size_t)(n + 1) * sizeof *fired);
    if (!fired) pva_fail(err, PVA_IO, "out of memory");
    else if (n != n_latents)
        pva_fail(err, PVA_INPUT, "%s/pile.h5: layer %d has %lld latents, expected %lld: it was made with another autoencoder", run_directory, layer, (long long)n,
                 (long long)n_latents);
    else if (!store_integer(s, "n_documents", &documents, err) && !store_read(s, slot, PILE_N_FIRED, fired, err))
        for (int64_t i = 0; i < n; i++) rates[i] = documents ? (double)fired[i] / (double)documents : 0;
    if (n_documents) *n_documents = documents;
    free(fired);
    store_close(&s, err);
    return err->code;
}

int pile_layer(const char *run_directory, int layer, struct pile_layer *out, struct pva_error *err) {
    struct store *s = NULL;
    int64_t slot = 0;
    memset(out, 0, sizeof *out);
    if (open_layer(run_directory, layer, &s, &slot, err)) return err->code;
    size_t path = store_field_bytes(s, PILE_SAE_PATH);
    char *text = calloc(1, path + 1);
    out->n_latents = store_dim_size(s, "latent");
    if (!text) pva_fail(err, PVA_IO, "out of memory");
    else if (!store_integer(s, "n_documents", &out->n_documents, err) && !store_text(s, "model_sha256", out->model_sha256, sizeof out->model_sha256, err) &&
             !store_text(s, "resid_point", out->point, sizeof out->point, err) && !store_read(s, slot, PILE_MEAN_L0, &out->mean_l0, err) &&
             !store_read(s, slot, PILE_LABEL_L0, &out->label_l0, err) && !store_read(s, slot, PILE_UNEXPLAINED, &out->unexplained, err) &&
             !store_read(s, slot, PILE_N_NEAR, &out->n_near, err) && !store_read(s, slot, PILE_SAE_SHA256, out->sae_sha256, err) &&
             !store_read(s, slot, PILE_SAE_PATH, text, err))
        snprintf(out->sae_path, sizeof out->sae_path, "%s", text);
    free(text);
    store_close(&s, err);
    return err->code;
}
