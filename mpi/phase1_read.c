#include "phase1_read.h"

#include "pva/grade.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void *array(int64_t n, size_t size, struct pva_error *err) {
    void *p = calloc((size_t)n + 1, size);
    if (!p && !err->code) pva_fail(err, PVA_IO, "out of memory");
    return p;
}

static int read_columns(struct phase1_data *d, struct pva_error *err) {
    size_t n = (size_t)d->n;
    d->task_ids = array(d->n, sizeof *d->task_ids, err);
    d->index = array(d->n, sizeof *d->index, err), d->difficulty = array(d->n, sizeof *d->difficulty, err);
    d->part = array(d->n, 1, err), d->states = array(d->n, 1, err), d->verdicts = array(d->n, 1, err);
    d->layers = array(d->n_layers, sizeof *d->layers, err);
    if (!err->code && !store_read_coordinate(d->store, "task_id", STORE_BYTES, d->task_ids, n * sizeof *d->task_ids, err) &&
        !store_read_coordinate(d->store, "index", STORE_I32, d->index, n * sizeof *d->index, err) &&
        !store_read_coordinate(d->store, "difficulty", STORE_I32, d->difficulty, n * sizeof *d->difficulty, err) &&
        !store_read_coordinate(d->store, "part", STORE_U8, d->part, n, err) &&
        !store_read_coordinate(d->store, "layer", STORE_I32, d->layers, (size_t)d->n_layers * sizeof *d->layers, err) &&
        !store_states(d->store, d->states, err))
        store_read_range(d->store, PHASE1_VERDICT, 0, d->n, d->verdicts, err);
    for (int64_t i = 0; i < d->n && !err->code; i++) {
        d->task_ids[i][PHASE1_TASK_ID - 1] = 0;
        d->n_done += d->states[i] != STORE_EMPTY;
        if (d->verdicts[i] >= PVA_N_VERDICTS) pva_fail(err, PVA_INPUT, "record %lld of phase 1 has no valid verdict", (long long)i);
    }
    return err->code;
}

/* The residual stream's type and shape are the run's choice, and whether there is a field n_positions follows from the shape. */
static int open_store(struct phase1_data *d, struct pva_error *err) {
    struct phase1_schema schema;
    struct pva_error ignored = {0};
    int64_t shape[STORE_MAX_DIMS];
    phase1_schema_any(&schema);
    schema.fields[PHASE1_RESID].type = STORE_ANY_FLOAT;
    schema.fields[PHASE1_RESID].n_dims = STORE_ANY_DIMS;
    schema.store.n_fields = PHASE1_N_FIELDS;
    if (store_open_read(d->path, &schema.store, &d->store, err)) return err->code;
    int n_dims = store_field_shape(d->store, PHASE1_RESID, shape);
    if (n_dims != 2 && n_dims != 3) return pva_fail(err, PVA_INPUT, "%s: /resid has %d dimensions, expected 3 or 4", d->path, n_dims + 1);
    d->has_positions = n_dims == 3;
    d->n_positions = d->has_positions ? shape[0] : 1;
    d->n_layers = shape[n_dims - 2], d->d_model = shape[n_dims - 1];
    d->resid_type = store_field_text_size(d->store, PHASE1_RESID) == 2 ? PVA_BF16 : PVA_F32;
    if (!d->has_positions) return PVA_OK;
    store_close(&d->store, &ignored);
    schema.store.n_fields = PHASE1_MOST_FIELDS;
    return store_open_read(d->path, &schema.store, &d->store, err);
}

int phase1_open(const char *run, struct phase1_data *d, struct pva_error *err) {
    struct stat st;
    *d = (struct phase1_data){0};
    snprintf(d->path, sizeof d->path, !stat(run, &st) && S_ISDIR(st.st_mode) ? "%s/phase1.h5" : "%s", run);
    if (stat(d->path, &st)) return pva_fail(err, PVA_INPUT, "%s: there is no phase 1 here; run pva-mpi phase1 first", d->path);
    if (!open_store(d, err)) d->n = store_n_slots(d->store);
    if (!err->code && !store_text(d->store, "model_sha256", d->model_sha256, sizeof d->model_sha256, err) &&
        !store_text(d->store, "resid_point", d->point, sizeof d->point, err) &&
        !store_text(d->store, "resid_position", d->positions, sizeof d->positions, err))
        read_columns(d, err);
    if (err->code) phase1_close(d);
    return err->code;
}

void phase1_close(struct phase1_data *d) {
    struct pva_error ignored = {0};
    if (d->store) store_close(&d->store, &ignored);
    free(d->task_ids), free(d->index), free(d->difficulty), free(d->part), free(d->states), free(d->verdicts), free(d->layers);
    *d = (struct phase1_data){0};
}

int phase1_require_complete(const struct phase1_data *d, const char *run, struct pva_error *err) {
    if (d->n_done == d->n) return PVA_OK;
    return pva_fail(err, PVA_INPUT, "%s: phase 1 has %lld of %lld records; run pva-mpi phase1 --run %s again to finish it", run, (long long)d->n_done,
                    (long long)d->n, run);
}

int phase1_resid(struct phase1_data *d, int64_t slot, float *out, struct pva_error *err) {
    return store_read_floats(d->store, PHASE1_RESID, slot, 1, out, err);
}

int phase1_resid_layer(struct phase1_data *d, int layer, const int64_t *slots, int64_t n, float *out, struct pva_error *err) {
    int64_t at = 0;
    while (at < d->n_layers && d->layers[at] != layer) at++;
    if (at == d->n_layers) return pva_fail(err, PVA_INPUT, "layer %d was not captured in phase 1", layer);
    if (d->n_positions != 1)
        return pva_fail(err, PVA_INPUT, "phase 1 captured several positions (%s); this needs one per problem: --positions last or last-generated", d->positions);
    for (int64_t i = 0; i < n; i++)
        if (store_read_elements(d->store, slots[i], PHASE1_RESID, at * d->d_model, d->d_model, out + i * d->d_model, err)) return err->code;
    return PVA_OK;
}
