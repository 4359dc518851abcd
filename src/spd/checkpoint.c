#include "run.h"

#include "pva/tensorfile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_TENSORS = 4 };

static const char *const names[N_TENSORS] = {"params", "adam_m", "adam_v", "since_fired"};

static void describe(const struct spd_run *r, int i, enum pva_dtype *dtype, int64_t *n, void **data) {
    struct spd_engine *e = r->engine;
    void *const all[N_TENSORS] = {e->params, e->m, e->v, r->since_fired};
    *dtype = i < 3 && sizeof(real) == 4 ? PVA_F32 : PVA_F64;
    *n = i < 3 ? (int64_t)e->n_params : (int64_t)e->n_modules * e->C;
    *data = all[i];
}

static int add_number(struct pva_tensorfile_writer *w, const char *key, int64_t value, struct pva_error *err) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return pva_tensorfile_metadata_add(w, key, text, err);
}

int spd_checkpoint_write(struct spd_run *r, int64_t next_step, struct pva_error *err) {
    char path[4096];
    struct pva_tensorfile_writer *w = NULL;
    if (!r->writes) return PVA_OK;
    if (spd_engine_fetch(r->engine, err)) return err->code;
    if (fflush(r->metrics) || fsync(fileno(r->metrics))) return pva_fail(err, PVA_IO, "metrics.jsonl: %s", strerror(errno));
    int status = pva_tensorfile_create(spd_run_path(r, "checkpoint.safetensors", path), &w, err);
    if (status) return status;
    for (int i = 0; i < N_TENSORS && !status; i++) {
        enum pva_dtype dtype;
        int64_t n;
        void *data;
        describe(r, i, &dtype, &n, &data);
        status = pva_tensorfile_declare(w, names[i], dtype, 1, &n, err);
    }
    if (!status) status = add_number(w, "next_step", next_step, err);
    if (!status) status = add_number(w, "metrics_bytes", ftell(r->metrics), err);
    if (!status) status = pva_tensorfile_metadata_add(w, "config", r->config->json, err);
    for (int i = 0; i < N_TENSORS && !status; i++) {
        enum pva_dtype dtype;
        int64_t n;
        void *data;
        describe(r, i, &dtype, &n, &data);
        status = pva_tensorfile_append(w, data, (size_t)n * pva_dtype_size(dtype), err);
    }
    if (!status) return pva_tensorfile_finish(&w, err);
    pva_tensorfile_discard(&w);
    return status;
}

/* The first setting that differs, for the message. */
static int refuse_other(const char *path, const char *theirs, const char *ours, struct pva_error *err) {
    json_t *a = json_loads(theirs, 0, NULL), *b = json_loads(ours, 0, NULL), *v;
    const char *key;
    json_object_foreach(b, key, v) {
        if (json_equal(v, json_object_get(a, key))) continue;
        pva_fail(err, PVA_REFUSED,
                 "%s: was written with another %s; give the run another directory, or --resume never to begin again", path, key);
        break;
    }
    if (!err->code) pva_fail(err, PVA_REFUSED, "%s: was written with other settings", path);
    json_decref(a);
    json_decref(b);
    return err->code;
}

int spd_checkpoint_read(struct spd_run *r, int64_t *next_step, struct pva_error *err) {
    char path[4096];
    struct pva_tensorfile *file;
    *next_step = 0;
    if (access(spd_run_path(r, "checkpoint.safetensors", path), F_OK)) return PVA_OK;
    if (pva_tensorfile_open(path, &file, err)) return err->code;
    const char *config = pva_tensorfile_metadata(file, "config"), *step = pva_tensorfile_metadata(file, "next_step"),
               *bytes = pva_tensorfile_metadata(file, "metrics_bytes");
    int status = PVA_OK;
    if (!config || !step || !bytes) status = pva_fail(err, PVA_INPUT, "%s: is no checkpoint of spd-run", path);
    else if (strcmp(config, r->config->json)) status = refuse_other(path, config, r->config->json, err);
    for (int i = 0; i < N_TENSORS && !status; i++) {
        const struct pva_tensor_view *view = pva_tensorfile_find(file, names[i]);
        enum pva_dtype dtype;
        int64_t n;
        void *data;
        describe(r, i, &dtype, &n, &data);
        if (!view || view->dtype != dtype || view->n_elements != n)
            status = pva_fail(err, PVA_INPUT, "%s: tensor %s does not hold %lld numbers", path, names[i], (long long)n);
        else memcpy(data, view->data, view->bytes);
    }
    if (!status) *next_step = strtoll(step, NULL, 10);
    /* What was logged after the checkpoint is computed, and logged, again. */
    if (!status && r->writes && truncate(spd_run_path(r, "metrics.jsonl", path), strtoll(bytes, NULL, 10)))
        status = pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    pva_tensorfile_close(&file);
    return status;
}

/* ---- the model's own file ---- */

struct part {
    char name[160];
    int n_dims;
    int64_t shape[3];
    size_t first, stride, run; /* of the C components' runs in the parameters; run 0: one block */
};

static int list_parts(const struct spd_engine *e, struct part *parts) {
    int n = 0;
    for (int i = 0; i < e->n_modules; i++) {
        const struct spd_module *m = &e->modules[i];
        char dashed[100] = "";
        for (size_t from = 0, to = 0; m->path[from]; from++) {
            dashed[to++] = m->path[from] == '.' ? '-' : m->path[from];
            if (m->path[from] == '.') dashed[to++] = '>';
        }
        parts[n] = (struct part){.n_dims = 2, .shape = {m->d_in, e->C}, .first = m->v};
        snprintf(parts[n++].name, sizeof parts->name, "patched_model.%s.components.V", m->path);
        parts[n] = (struct part){.n_dims = 2, .shape = {e->C, m->d_out}, .first = m->u};
        snprintf(parts[n++].name, sizeof parts->name, "patched_model.%s.components.U", m->path);
        size_t at = 0;
        for (int l = 0; l < m->shape.n_layers; l++) { /* every second place is the GELU between */
            int a = m->shape.d[l], b = m->shape.d[l + 1];
            parts[n] = (struct part){.n_dims = 3,
                                     .shape = {e->C, a, b},
                                     .first = m->gate + at,
                                     .stride = (size_t)m->shape.n_params,
                                     .run = (size_t)(a * b)};
            snprintf(parts[n++].name, sizeof parts->name, "_gates.%s.layers.%d.W", dashed, 2 * l);
            at += (size_t)(a * b);
            parts[n] = (struct part){
                .n_dims = 2, .shape = {e->C, b}, .first = m->gate + at, .stride = (size_t)m->shape.n_params, .run = (size_t)b};
            snprintf(parts[n++].name, sizeof parts->name, "_gates.%s.layers.%d.b", dashed, 2 * l);
            at += (size_t)b;
        }
    }
    return n;
}

int spd_model_write(const struct spd_run *r, int64_t step, struct pva_error *err) {
    const struct spd_engine *e = r->engine;
    struct part parts[PVA_SPD_MAX_MODULES * (2 + 2 * SPD_MAX_GATE_LAYERS)];
    char path[4096], name[64];
    struct pva_tensorfile_writer *w = NULL;
    if (!r->writes) return PVA_OK;
    if (spd_engine_fetch(r->engine, err)) return err->code;
    snprintf(name, sizeof name, "model_%lld.safetensors", (long long)step);
    int n = list_parts(e, parts), status = pva_tensorfile_create(spd_run_path(r, name, path), &w, err);
    if (status) return status;
    for (int i = 0; i < n && !status; i++)
        status = pva_tensorfile_declare(w, parts[i].name, PVA_F32, parts[i].n_dims, parts[i].shape, err);
    for (int i = 0; i < n && !status; i++) {
        size_t count = 1, k = 0;
        for (int d = 0; d < parts[i].n_dims; d++) count *= (size_t)parts[i].shape[d];
        float *copy = malloc(count * sizeof *copy);
        if (!copy) status = pva_fail(err, PVA_IO, "%s: out of memory", path);
        for (int c = 0; copy && parts[i].run && c < e->C; c++)
            for (size_t j = 0; j < parts[i].run; j++)
                copy[k++] = (float)e->params[parts[i].first + (size_t)c * parts[i].stride + j];
        for (; copy && k < count; k++) copy[k] = (float)e->params[parts[i].first + k];
        if (!status) status = pva_tensorfile_append(w, copy, count * sizeof *copy, err);
        free(copy);
    }
    if (!status) return pva_tensorfile_finish(&w, err);
    pva_tensorfile_discard(&w);
    return status;
}
