/* Target models: what they are, their files. Training is in target_train.c. */
#include "target.h"

#include "yaml.h"

#include "pva/tensorfile.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const struct spd_recipe recipes[] = {
    /* key, residual, F, H or d_mlp, identities or blocks, d_embed, bias to zero, steps, batch, lr, cosine, probability */
    {"tms_5-2", 0, 5, 2, 0, 0, 0, 10000, 1024, 5e-3, 0, 0.05},
    {"tms_5-2-id", 0, 5, 2, 1, 0, 0, 10000, 1024, 5e-3, 0, 0.05},
    {"tms_40-10", 0, 40, 10, 0, 0, 1, 10000, 8192, 5e-3, 0, 0.05},
    {"tms_40-10-id", 0, 40, 10, 1, 0, 1, 10000, 8192, 5e-3, 0, 0.05},
    {"resid_mlp1", 1, 100, 50, 1, 1000, 0, 1000, 2048, 3e-3, 1, 0.01},
    {"resid_mlp2", 1, 100, 25, 2, 1000, 0, 1000, 2048, 3e-3, 1, 0.01},
    {"resid_mlp3", 1, 102, 17, 3, 1000, 0, 10000, 2048, 3e-3, 1, 0.01},
};

int spd_recipe_find(const char *key, const struct spd_recipe **out, struct pva_error *err) {
    char list[300] = "";
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        if (!strcmp(recipes[i].key, key)) {
            *out = &recipes[i];
            return PVA_OK;
        }
        strcat(strcat(list, i ? ", " : ""), recipes[i].key);
    }
    return pva_fail(err, PVA_USAGE, "there is no target \"%s\"; there are %s", key, list);
}

static float *numbers(size_t n) { return calloc(n ? n : 1, sizeof(float)); }

int spd_target_shape(int residual, int n_features, int n_hidden, int n_extra, int n_embed, struct pva_spd_target *t,
                     struct pva_error *err) {
    memset(t, 0, sizeof *t);
    t->residual = residual;
    t->n_features = n_features;
    t->n_hidden = n_hidden;
    t->n_embed = n_embed;
    t->n_blocks = residual ? n_extra : 0;
    t->tied = !residual;
    t->n_layers = residual ? 2 * n_extra : 2 + n_extra;
    if (t->n_layers > PVA_SPD_MAX_MODULES || n_features < 1 || n_features > 512 || n_hidden < 1 || n_hidden > 4096 ||
        n_extra < residual || (residual && n_embed < 1) || n_embed > 65536)
        return pva_fail(err, PVA_INPUT,
                        "a target with %d features, %d hidden dimensions and %d layers is beyond what is supported", n_features,
                        n_hidden, t->n_layers);
    int ok = 1;
    for (int i = 0; i < t->n_layers; i++) {
        struct pva_spd_layer *l = &t->layers[i];
        if (residual) {
            snprintf(l->name, sizeof l->name, "layers.%d.mlp_%s", i / 2, i % 2 ? "out" : "in");
            l->n_in = i % 2 ? n_hidden : n_embed;
            l->n_out = i % 2 ? n_embed : n_hidden;
        } else {
            if (i == 0) strcpy(l->name, "linear1");
            else if (i == t->n_layers - 1) strcpy(l->name, "linear2");
            else snprintf(l->name, sizeof l->name, "hidden_layers.%d", i - 1);
            l->n_in = i ? n_hidden : n_features;
            l->n_out = i < t->n_layers - 1 ? n_hidden : n_features;
        }
        ok &= (l->weight = numbers((size_t)l->n_in * (size_t)l->n_out)) != NULL;
    }
    if (residual) {
        ok &= (t->embed = numbers((size_t)n_features * (size_t)n_embed)) != NULL;
        ok &= (t->readout = numbers((size_t)n_features * (size_t)n_embed)) != NULL;
        ok &= (t->label_coeffs = numbers((size_t)n_features)) != NULL;
    } else {
        ok &= (t->bias = numbers((size_t)n_features)) != NULL;
    }
    if (ok) return PVA_OK;
    pva_spd_target_free(t);
    return pva_fail(err, PVA_IO, "out of memory for a target model");
}

void pva_spd_target_free(struct pva_spd_target *t) {
    for (int i = 0; i < t->n_layers; i++) free(t->layers[i].weight);
    free(t->bias);
    free(t->embed);
    free(t->readout);
    free(t->label_coeffs);
    memset(t, 0, sizeof *t);
}

int pva_spd_target_random(int residual, int n_features, int n_hidden, int n_extra, int n_embed, int64_t seed,
                          struct pva_spd_target *t, struct pva_error *err) {
    if (spd_target_shape(residual, n_features, n_hidden, n_extra, n_embed, t, err)) return err->code;
    spd_target_initialise(t, seed, 0);
    return PVA_OK;
}

/* out += in w; w: [n_in, n_out] */
static void multiply(int n_in, int n_out, const float *w, const double *in, double *out) {
    for (int i = 0; i < n_in; i++)
        for (int j = 0; j < n_out; j++) out[j] += in[i] * (double)w[(size_t)i * (size_t)n_out + (size_t)j];
}

static void relu(int n, double *x) {
    for (int i = 0; i < n; i++) x[i] = x[i] > 0 ? x[i] : 0;
}

void pva_spd_target_apply(const struct pva_spd_target *t, const double *x, double *y) {
    const int f = t->n_features, h = t->n_hidden, width = t->residual ? t->n_embed : f > h ? f : h;
    double *stream = calloc((size_t)width, sizeof *stream), *inner = calloc((size_t)(h > width ? h : width), sizeof *inner);
    PVA_ASSERT(stream && inner);
    memset(y, 0, (size_t)f * sizeof *y);
    if (t->residual) {
        multiply(f, t->n_embed, t->embed, x, stream);
        for (int b = 0; b < t->n_blocks; b++) {
            memset(inner, 0, (size_t)h * sizeof *inner);
            multiply(t->n_embed, h, t->layers[2 * b].weight, stream, inner);
            relu(h, inner);
            multiply(h, t->n_embed, t->layers[2 * b + 1].weight, inner, stream);
        }
        multiply(t->n_embed, f, t->readout, stream, y);
    } else {
        memcpy(stream, x, (size_t)f * sizeof *x);
        for (int l = 0; l < t->n_layers; l++) {
            const struct pva_spd_layer *layer = &t->layers[l];
            memset(inner, 0, (size_t)layer->n_out * sizeof *inner);
            multiply(layer->n_in, layer->n_out, layer->weight, stream, inner);
            memcpy(stream, inner, (size_t)layer->n_out * sizeof *inner);
        }
        for (int i = 0; i < f; i++) y[i] = stream[i] + (double)t->bias[i];
        relu(f, y);
    }
    free(stream);
    free(inner);
}

/* ---- files ---- */

/* One tensor of the file: where its numbers are in the struct, and whether the file holds it transposed (torch: [out, in]). */
struct entry {
    char name[64];
    int n_rows, n_cols, transposed; /* as in the struct */
    float *data;
};

static int list_entries(const struct pva_spd_target *t, struct entry *e) {
    int n = 0;
    for (int i = 0; i < t->n_layers; i++) {
        const struct pva_spd_layer *l = &t->layers[i];
        e[n] = (struct entry){.n_rows = l->n_in, .n_cols = l->n_out, .transposed = 1, .data = l->weight};
        snprintf(e[n++].name, sizeof e->name, "%.48s.weight", l->name);
    }
    if (t->bias) e[n++] = (struct entry){"linear2.bias", t->n_features, 0, 0, t->bias};
    if (t->residual) {
        e[n++] = (struct entry){"W_E", t->n_features, t->n_embed, 0, t->embed};
        e[n++] = (struct entry){"W_U", t->n_embed, t->n_features, 0, t->readout};
        e[n++] = (struct entry){"label_coeffs", t->n_features, 0, 0, t->label_coeffs};
    }
    return n;
}

static size_t entry_count(const struct entry *e) { return (size_t)e->n_rows * (size_t)(e->n_cols ? e->n_cols : 1); }
static void entry_shape(const struct entry *e, int64_t shape[2], int *n_dims) {
    *n_dims = e->n_cols ? 2 : 1;
    shape[0] = e->transposed ? e->n_cols : e->n_rows;
    shape[1] = e->transposed ? e->n_rows : e->n_cols;
}

static int write_tensors(const struct pva_spd_target *t, const char *path, struct pva_error *err) {
    struct entry e[PVA_SPD_MAX_MODULES + 4];
    int n = list_entries(t, e), status;
    struct pva_tensorfile_writer *w = NULL;
    if ((status = pva_tensorfile_create(path, &w, err))) return status;
    for (int i = 0; i < n && !status; i++) {
        int64_t shape[2];
        int n_dims;
        entry_shape(&e[i], shape, &n_dims);
        status = pva_tensorfile_declare(w, e[i].name, PVA_F32, n_dims, shape, err);
    }
    for (int i = 0; i < n && !status; i++) {
        float *copy = numbers(entry_count(&e[i]));
        if (!copy) status = pva_fail(err, PVA_IO, "%s: out of memory", path);
        for (int r = 0; copy && r < e[i].n_rows; r++)
            for (int c = 0; c < (e[i].n_cols ? e[i].n_cols : 1); c++)
                copy[e[i].transposed ? c * e[i].n_rows + r : r * (e[i].n_cols ? e[i].n_cols : 1) + c] =
                    e[i].data[r * (e[i].n_cols ? e[i].n_cols : 1) + c];
        if (!status) status = pva_tensorfile_append(w, copy, entry_count(&e[i]) * sizeof *copy, err);
        free(copy);
    }
    if (!status) return pva_tensorfile_finish(&w, err);
    pva_tensorfile_discard(&w);
    return status;
}

int spd_write_text(const char *path, const char *text, struct pva_error *err) {
    char partial[4096];
    snprintf(partial, sizeof partial, "%.4080s.partial", path);
    FILE *f = fopen(partial, "wb");
    int bad = !f || fputs(text, f) < 0;
    if (f) bad |= fclose(f) != 0;
    if (bad || rename(partial, path)) return pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    return PVA_OK;
}

int spd_make_directory(const char *path, struct pva_error *err) {
    char part[4096];
    snprintf(part, sizeof part, "%.4090s", path);
    for (char *p = part + 1;; p++) {
        if (*p && *p != '/') continue;
        char kept = *p;
        *p = 0;
        if (mkdir(part, 0777) && errno != EEXIST) return pva_fail(err, PVA_IO, "%s: %s", part, strerror(errno));
        if (!kept) return PVA_OK;
        *p = kept;
    }
}

int pva_spd_target_save(const struct pva_spd_target *t, const char *directory, struct pva_error *err) {
    char path[4096];
    if (spd_make_directory(directory, err)) return err->code;
    snprintf(path, sizeof path, "%.4000s/target.safetensors", directory);
    if (write_tensors(t, path, err)) return err->code;
    json_t *o = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:b, s:I, s:f}", "model", t->residual ? "resid_mlp" : "tms", "recipe",
                          t->recipe, "n_features", t->n_features, "n_hidden", t->n_hidden, "n_embed", t->n_embed,
                          t->residual ? "n_blocks" : "n_hidden_layers", t->residual ? t->n_blocks : t->n_layers - 2, "tied",
                          t->tied, "seed", (json_int_t)t->seed, "loss", t->loss);
    char *text = o ? spd_yaml_print(o) : NULL;
    json_decref(o);
    if (!text) return pva_fail(err, PVA_IO, "%s: out of memory", directory);
    snprintf(path, sizeof path, "%.4000s/target_config.yaml", directory);
    int status = spd_write_text(path, text, err);
    free(text);
    return status;
}

static int read_config(const char *path, struct pva_spd_target *t, struct pva_error *err) {
    json_t *o, *lines;
    if (spd_yaml_read(path, &o, &lines, err)) return err->code;
    const char *model = json_string_value(json_object_get(o, "model")), *recipe = json_string_value(json_object_get(o, "recipe"));
    int residual = model && !strcmp(model, "resid_mlp"), status;
    if (!model || (!residual && strcmp(model, "tms"))) {
        status = spd_yaml_fail(lines, path, "model", err, "expected tms or resid_mlp");
    } else {
#define N(key) (int)json_integer_value(json_object_get(o, key))
        status = spd_target_shape(residual, N("n_features"), N("n_hidden"), residual ? N("n_blocks") : N("n_hidden_layers"),
                                  N("n_embed"), t, err);
#undef N
        if (status) pva_error_prefix(err, "%s", path);
        else {
            snprintf(t->recipe, sizeof t->recipe, "%s", recipe ? recipe : "");
            t->tied = json_is_true(json_object_get(o, "tied"));
            t->seed = json_integer_value(json_object_get(o, "seed"));
            t->loss = json_number_value(json_object_get(o, "loss"));
        }
    }
    json_decref(o);
    json_decref(lines);
    return status;
}

int pva_spd_target_load(const char *directory, struct pva_spd_target *t, struct pva_error *err) {
    char path[4096];
    memset(t, 0, sizeof *t);
    snprintf(path, sizeof path, "%.4000s/target_config.yaml", directory);
    if (read_config(path, t, err)) return err->code;
    struct entry e[PVA_SPD_MAX_MODULES + 4];
    int n = list_entries(t, e);
    struct pva_tensorfile *file = NULL;
    snprintf(path, sizeof path, "%.4000s/target.safetensors", directory);
    int status = pva_tensorfile_open(path, &file, err);
    for (int i = 0; i < n && !status; i++) {
        const struct pva_tensor_view *view;
        int64_t shape[2];
        int n_dims;
        entry_shape(&e[i], shape, &n_dims);
        if ((status = pva_tensorfile_require(file, e[i].name, n_dims, shape, &view, err))) break;
        float *copy = numbers(entry_count(&e[i]));
        if (!copy) {
            status = pva_fail(err, PVA_IO, "%s: out of memory", path);
            break;
        }
        pva_tensor_to_f32(view, 0, view->n_elements, copy);
        const int cols = e[i].n_cols ? e[i].n_cols : 1;
        for (int r = 0; r < e[i].n_rows; r++)
            for (int c = 0; c < cols; c++) e[i].data[r * cols + c] = copy[e[i].transposed ? c * e[i].n_rows + r : r * cols + c];
        for (size_t j = 0; j < entry_count(&e[i]) && !status; j++)
            if (!isfinite(copy[j]))
                status = pva_fail(err, PVA_INPUT, "%s: tensor %s holds a number that is not finite", path, e[i].name);
        free(copy);
    }
    if (file) pva_tensorfile_close(&file);
    if (!status && t->tied) /* the tie is by shared storage: a file in which it is broken is another model */
        for (int i = 0; i < t->n_features && !status; i++)
            for (int h = 0; h < t->n_hidden && !status; h++)
                if (t->layers[0].weight[i * t->n_hidden + h] != t->layers[t->n_layers - 1].weight[h * t->n_features + i])
                    status = pva_fail(
                        err, PVA_INPUT,
                        "%s: linear2.weight is not the transpose of linear1.weight, as \"tied\" in target_config.yaml says",
                        path);
    if (status) pva_spd_target_free(t);
    return status;
}
