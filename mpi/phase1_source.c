#include "phase1_source.h"

#include "commands.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the file has is asked of HDF5 itself: the type of resid and its number of dimensions are the run's choice. */
static int look_at_resid(const char *path, enum pva_dtype *type, int *n_dims, struct pva_error *err) {
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), d = file < 0 ? -1 : H5Dopen2(file, "resid", H5P_DEFAULT);
    hid_t t = d < 0 ? -1 : H5Dget_type(d), space = d < 0 ? -1 : H5Dget_space(d);
    if (t < 0 || space < 0) pva_fail(err, PVA_INPUT, "%s: cannot be opened, or has no dataset /resid", path);
    else *type = H5Tget_size(t) == 2 ? PVA_BF16 : PVA_F32, *n_dims = H5Sget_simple_extent_ndims(space);
    if (space >= 0) H5Sclose(space);
    if (t >= 0) H5Tclose(t);
    if (d >= 0) H5Dclose(d);
    if (file >= 0) H5Fclose(file);
    H5Eclear2(H5E_DEFAULT);
    return err->code;
}

static int open_store(struct phase1_source *s, struct pva_error *err) {
    struct phase1_schema schema;
    int n_dims = 0;
    phase1_schema_any(&schema);
    /* First without resid: whatever is wrong with the file is said in the store's words. */
    if (store_open_read(s->path, &schema.store, &s->store, err) || store_close(&s->store, err) || look_at_resid(s->path, &s->resid_type, &n_dims, err))
        return err->code;
    schema.fields[PHASE1_RESID].type = s->resid_type == PVA_BF16 ? STORE_BF16 : STORE_F32;
    if (n_dims > 3) phase1_schema_positions(&schema, "generated", 0);
    schema.store.n_fields = n_dims > 3 ? PHASE1_MOST_FIELDS : PHASE1_N_FIELDS;
    return store_open_read(s->path, &schema.store, &s->store, err);
}

static int read_identity(struct phase1_source *s, struct pva_error *err) {
    struct phase1_identity *id = &s->identity;
    int64_t preload = 0;
    static const char *const names[] = {"operand", "extraction", "resid_position", "backend", "isa", "python", "resid_point"};
    char sandbox[400];
    for (int i = 0; i < 7; i++)
        if (store_text(s->store, names[i], s->texts[i], sizeof s->texts[i], err)) return err->code;
    if (store_text(s->store, "model_sha256", id->model_sha256, sizeof id->model_sha256, err) ||
        store_text(s->store, "problems_sha256", id->problems_sha256, sizeof id->problems_sha256, err) ||
        store_text(s->store, "prompt_template", id->prompt_template, sizeof id->prompt_template, err) ||
        store_text(s->store, "prompt_template_sha256", id->prompt_sha256, sizeof id->prompt_sha256, err) ||
        store_text(s->store, "sandbox", sandbox, sizeof sandbox, err) || store_integer(s->store, "seed", &id->seed, err) ||
        store_integer(s->store, "max_tokens", &id->max_tokens, err) || store_real(s->store, "temperature", &id->temperature, err) ||
        store_integer(s->store, "preload_imports", &preload, err) || pva_point_parse(s->texts[6], &id->point, err))
        return err->code;
    id->operand = s->texts[0], id->extraction = s->texts[1], id->positions = s->texts[2], id->backend = s->texts[3], id->isa = s->texts[4];
    id->python = s->texts[5];
    id->sandbox = "";
    id->preload_imports = (int)preload;
    struct pva_error none = {0};
    if (store_text(s->store, "regraded_from", s->regraded_from, sizeof s->regraded_from, &none)) s->regraded_from[0] = 0;
    return PVA_OK;
}

static int read_coordinates(struct phase1_source *s, struct pva_error *err) {
    struct phase1_problems *p = &s->problems;
    size_t n = (size_t)(p->n = s->n);
    int64_t n_captured = store_dim_size(s->store, "layer");
    int32_t *layers = malloc((size_t)(n_captured + 1) * sizeof *layers);
    s->states = malloc(n), p->task_ids = malloc(n * PHASE1_TASK_ID), p->index = malloc(n * sizeof *p->index), p->part = malloc(n);
    p->difficulty = malloc(n * sizeof *p->difficulty);
    if (!layers || !s->states || !p->task_ids || !p->index || !p->part || !p->difficulty) pva_fail(err, PVA_IO, "out of memory");
    else if (!store_states(s->store, s->states, err) && !store_read_coordinate(s->store, "task_id", STORE_BYTES, p->task_ids, n * PHASE1_TASK_ID, err) &&
             !store_read_coordinate(s->store, "index", STORE_I32, p->index, n * sizeof *p->index, err) &&
             !store_read_coordinate(s->store, "part", STORE_U8, p->part, n, err) &&
             !store_read_coordinate(s->store, "difficulty", STORE_I32, p->difficulty, n * sizeof *p->difficulty, err))
        store_read_coordinate(s->store, "layer", STORE_I32, layers, (size_t)n_captured * sizeof *layers, err);
    for (int64_t i = 0; i < n_captured && !err->code; i++) {
        if (layers[i] < 0 || layers[i] > 255) pva_fail(err, PVA_INPUT, "%s: layer %d cannot be", s->path, (int)layers[i]);
        else if (layers[i] >= s->n_layers) s->n_layers = layers[i] + 1;
    }
    if (!err->code && !(s->layers = calloc((size_t)s->n_layers + 1, 1))) pva_fail(err, PVA_IO, "out of memory");
    for (int64_t i = 0; i < n_captured && !err->code; i++) s->layers[layers[i]] = 1;
    for (int64_t i = 0; i < s->n && !err->code; i++) {
        p->task_ids[i][PHASE1_TASK_ID - 1] = 0;
        s->n_empty += s->states[i] == STORE_EMPTY;
    }
    free(layers);
    return err->code;
}

int phase1_source_open(const char *run_directory, struct phase1_source *s, struct pva_error *err) {
    memset(s, 0, sizeof *s);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    if (access(run_directory, F_OK)) return pva_fail(err, PVA_INPUT, "%s: there is no such run", run_directory);
    snprintf(s->path, sizeof s->path, "%s/phase1.h5", run_directory);
    if (access(s->path, F_OK)) return pva_fail(err, PVA_INPUT, "%s: there is no phase1.h5 in it: phase 1 has not run", run_directory);
    if (open_store(s, err)) return err->code;
    s->n = store_n_slots(s->store);
    s->d_model = store_dim_size(s->store, "model");
    if (read_identity(s, err) || read_coordinates(s, err)) return err->code;
    int64_t rows = store_dim_size(s->store, "generated");
    s->identity.max_positions = rows > 0 ? rows : 0;
    return PVA_OK;
}

void phase1_source_close(struct phase1_source *s) {
    struct pva_error ignored = {0};
    if (s->store) store_close(&s->store, &ignored);
    free(s->states), free(s->layers);
    free(s->problems.task_ids), free(s->problems.index), free(s->problems.part), free(s->problems.difficulty);
    memset(s, 0, sizeof *s);
}

int64_t phase1_source_find(const struct phase1_source *s, const char *task_id) {
    int64_t found = -1;
    for (int64_t i = 0; i < s->n; i++)
        if (!strcmp(s->problems.task_ids[i], task_id)) return i;
    /* "Mbpp/17" and "17" are one problem, as long as no other ends like that. */
    const char *number = strrchr(task_id, '/') ? strrchr(task_id, '/') + 1 : task_id;
    for (int64_t i = 0; i < s->n; i++) {
        const char *stored = s->problems.task_ids[i], *slash = strrchr(stored, '/');
        if (strcmp(slash ? slash + 1 : stored, number) || (slash && number != task_id)) continue;
        if (found >= 0) return -1;
        found = i;
    }
    return found;
}

void phase1_source_schema(const struct phase1_source *s, const struct phase1_identity *identity, const struct phase1_problems *problems,
                          struct phase1_schema *schema) {
    const struct pva_model_config shape = {.n_layers = s->n_layers, .d_model = (int)s->d_model};
    phase1_schema_fill(schema, identity, problems, &shape, s->layers, s->resid_type);
}

int phase1_source_options(const char *run_directory, struct pva_options **out, struct pva_error *err) {
    static const struct pva_option *const tables[] = {pva_common_options, pva_engine_options, pva_phase1_options, pva_campaign_options, NULL};
    char path[4096];
    snprintf(path, sizeof path, "%s/config-phase1.yaml", run_directory);
    *out = NULL;
    if (access(path, R_OK)) return pva_fail(err, PVA_INPUT, "%s: cannot be read; it says with what settings the run was made", path);
    return pva_options_read_file("phase1", tables, path, out, err);
}
