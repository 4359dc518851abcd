/* forward: one pass over one sequence; logits and the residual stream at all three points of every layer, to an HDF5 file. */
#include "commands.h"
#include "engine.h"

#include "pva/session.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct pva_option pva_forward_options[] = {
    {"text", PVA_OPT_TEXT, "TEXT", NULL, "the text; BOS is put before it", NULL, 0, 0},
    {"tokens", PVA_OPT_TEXT, "LIST", NULL, "token ids instead, as they are: 2,651,...", NULL, 0, 0},
    {"out", PVA_OPT_TEXT, "FILE", NULL, "HDF5 file to write: tokens, logits, resid_pre, resid_mid, resid_post", NULL, 0, 0},
    {"overwrite", PVA_OPT_FLAG, NULL, "no", "replace FILE if it exists", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

enum { CHUNK = 64 }; /* rows per pass: bounds the memory for logits of a 256,000-token vocabulary to 64 MB */

struct output {
    hid_t file, logits, resid[PVA_N_POINTS];
};

static int parse_tokens(const char *list, int64_t n_vocab, int32_t **ids, size_t *n, struct pva_error *err) {
    size_t most = strlen(list) / 2 + 1;
    *ids = malloc(most * sizeof **ids);
    if (!*ids) return pva_fail(err, PVA_IO, "out of memory");
    *n = 0;
    for (const char *p = list;; p++) {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || (*end && *end != ',')) return pva_fail(err, PVA_USAGE, "--tokens: \"%.20s\" is no token id", p);
        if (v < 0 || v >= n_vocab) return pva_fail(err, PVA_USAGE, "--tokens: %ld is outside the vocabulary of %lld", v, (long long)n_vocab);
        (*ids)[(*n)++] = (int32_t)v;
        if (!*end) return PVA_OK;
        p = end;
    }
}

static hid_t create(hid_t file, const char *name, int rank, const hsize_t *shape, hid_t type) {
    hid_t space = H5Screate_simple(rank, shape, NULL);
    hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Sclose(space);
    return set;
}

/* Rows [first, first + count) of one layer of a [n_layers, n, width] dataset, or of a [n, width] one when layer < 0. */
static int write_rows(hid_t set, int layer, hsize_t first, hsize_t count, hsize_t width, const float *data) {
    hsize_t start3[3] = {(hsize_t)(layer < 0 ? 0 : layer), first, 0}, count3[3] = {1, count, width};
    int skip = layer < 0;
    hid_t space = H5Dget_space(set), memory = H5Screate_simple(3 - skip, count3 + skip, NULL);
    herr_t bad = H5Sselect_hyperslab(space, H5S_SELECT_SET, start3 + skip, NULL, count3 + skip, NULL);
    if (bad >= 0) bad = H5Dwrite(set, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, data);
    H5Sclose(memory);
    H5Sclose(space);
    return bad < 0;
}

static int open_output(struct output *out, const char *path, const struct pva_model_config *c, const int32_t *ids, size_t n, struct pva_error *err) {
    hsize_t resid[3] = {(hsize_t)c->n_layers, n, (hsize_t)c->d_model}, logits[2] = {n, (hsize_t)c->n_vocab};
    out->file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (out->file < 0) return pva_fail(err, PVA_IO, "%s: cannot be created", path);
    hid_t tokens = create(out->file, "tokens", 1, resid + 1, H5T_STD_I32LE);
    herr_t bad = H5Dwrite(tokens, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, ids);
    H5Dclose(tokens);
    out->logits = create(out->file, "logits", 2, logits, H5T_IEEE_F32LE);
    for (int p = 0; p < PVA_N_POINTS; p++) out->resid[p] = create(out->file, pva_point_name((enum pva_point)p), 3, resid, H5T_IEEE_F32LE);
    if (bad < 0 || out->logits < 0 || out->resid[0] < 0 || out->resid[1] < 0 || out->resid[2] < 0)
        return pva_fail(err, PVA_IO, "%s: cannot be written", path);
    return PVA_OK;
}

static int close_output(struct output *out) {
    herr_t bad = 0;
    if (out->logits > 0) bad |= H5Dclose(out->logits);
    for (int p = 0; p < PVA_N_POINTS; p++)
        if (out->resid[p] > 0) bad |= H5Dclose(out->resid[p]);
    if (out->file > 0) bad |= H5Fclose(out->file);
    memset(out, 0, sizeof *out);
    return bad < 0;
}

static int run_pass(const struct engine *e, const int32_t *ids, size_t n, struct output *out, const char *path, struct pva_error *err) {
    const struct pva_model_config *c = pva_model_get_config(e->model);
    int chunk = n < CHUNK ? (int)n : CHUNK;
    struct pva_session_settings settings = {.n_slots = 1, .max_positions = (int64_t)n, .max_rows = chunk, .max_logits = chunk, .hook_values = 1};
    struct pva_session *s = NULL;
    struct pva_buffer *stream[PVA_N_POINTS] = {0};
    size_t resid_values = (size_t)c->n_layers * (size_t)chunk * (size_t)c->d_model, logit_values = (size_t)chunk * (size_t)c->n_vocab;
    float *host = malloc((resid_values > logit_values ? resid_values : logit_values) * sizeof *host);
    unsigned char *layers = malloc((size_t)c->n_layers);
    int32_t rows[CHUNK], slots[CHUNK];
    if (!host || !layers) {
        pva_fail(err, PVA_IO, "out of memory");
        goto done;
    }
    memset(layers, 1, (size_t)c->n_layers);
    if (pva_session_open(e->model, &settings, &s, err)) goto done;
    for (int p = 0; p < PVA_N_POINTS; p++)
        if (e->ops->alloc(e->be, resid_values * sizeof(float), &stream[p], err)) goto done;
    int slot = pva_session_claim(s);
    PVA_ASSERT(pva_session_reserve(s, slot, (int64_t)n));
    for (int i = 0; i < CHUNK; i++) rows[i] = i, slots[i] = slot;
    for (size_t first = 0; first < n; first += (size_t)chunk) {
        int64_t m = (int64_t)(n - first < (size_t)chunk ? n - first : (size_t)chunk);
        const struct pva_tensor index = pva_session_send(s, PVA_I32, rows, m);
        struct pva_hook hooks[PVA_N_POINTS];
        for (int p = 0; p < PVA_N_POINTS; p++)
            hooks[p] = (struct pva_hook){
                .point = (enum pva_point)p,
                .action = PVA_HOOK_CAPTURE,
                .layers = layers,
                .rows = index,
                .captured = {stream[p], 0, PVA_F32, c->n_layers * m, c->d_model},
            };
        pva_session_want(s, rows, m, NULL, NULL);
        if (pva_session_append(s, m, ids + first, slots, hooks, PVA_N_POINTS, err) || pva_session_read_logits(s, m, host, err))
            goto done;
        int bad = write_rows(out->logits, -1, first, (hsize_t)m, (hsize_t)c->n_vocab, host);
        for (int p = 0; p < PVA_N_POINTS; p++) {
            if (e->ops->download(e->be, hooks[p].captured, host, err)) goto done;
            for (int l = 0; l < c->n_layers; l++)
                bad |= write_rows(out->resid[p], l, first, (hsize_t)m, (hsize_t)c->d_model, host + (size_t)l * (size_t)(m * c->d_model));
        }
        if (bad) {
            pva_fail(err, PVA_IO, "%s: cannot be written: is the disk full?", path);
            goto done;
        }
    }
done:
    for (int p = 0; p < PVA_N_POINTS; p++) e->ops->free(e->be, &stream[p]);
    pva_session_close(&s);
    free(layers);
    free(host);
    return err->code;
}

int pva_command_forward(const struct pva_options *o, struct pva_error *err) {
    const char *text = pva_options_text(o, "text"), *tokens = pva_options_text(o, "tokens"), *path = pva_options_text(o, "out");
    struct engine e = {0};
    struct output out = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    char partial[4096] = "";
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* its stack of messages is noise to a user; ours names the file */
    if (!text == !tokens) return pva_fail(err, PVA_USAGE, "give --text TEXT or --tokens LIST");
    if (pva_options_require(o, "out", err)) return err->code;
    if (!pva_options_flag(o, "overwrite") && access(path, F_OK) == 0)
        return pva_fail(err, PVA_REFUSED, "%s exists; --overwrite replaces it", path);
    if (engine_open(o, text != NULL, &e, err)) goto done;
    const struct pva_model_config *c = pva_model_get_config(e.model);
    if (text ? engine_encode_prompt(&e, text, strlen(text), &ids, &n, err) : parse_tokens(tokens, c->n_vocab, &ids, &n, err)) goto done;
    if ((int64_t)n > c->max_positions) {
        pva_fail(err, PVA_INPUT, "%zu tokens, the model takes %lld", n, (long long)c->max_positions);
        goto done;
    }
    if ((size_t)snprintf(partial, sizeof partial, "%s.partial", path) >= sizeof partial) {
        pva_fail(err, PVA_USAGE, "--out: the name is too long");
        goto done;
    }
    if (!open_output(&out, partial, c, ids, n, err)) run_pass(&e, ids, n, &out, partial, err);
    if (close_output(&out) && !err->code) pva_fail(err, PVA_IO, "%s: cannot be written: is the disk full?", partial);
    if (!err->code && rename(partial, path)) pva_fail(err, PVA_IO, "%s: cannot be renamed to %s", partial, path);
    if (err->code) unlink(partial);
    else if (!pva_options_flag(o, "quiet")) fprintf(stderr, "pva-mpi: %zu tokens, %d layers: %s\n", n, c->n_layers, path);
done:
    free(ids);
    engine_close(&e);
    return err->code;
}
