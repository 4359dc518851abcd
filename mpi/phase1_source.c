#include "phase1_source.h"

#include "commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int read_identity(struct phase1_source *s, struct pva_error *err) {
    struct phase1_identity *id = &s->identity;
    int64_t preload = 0;
    static const char *const names[] = {"operand", "extraction", "resid_position", "backend", "isa", "python", "resid_point"};
    for (int i = 0; i < 7; i++)
        if (store_text(s->data.store, names[i], s->texts[i], sizeof s->texts[i], err)) return err->code;
    if (store_text(s->data.store, "model_sha256", id->model_sha256, sizeof id->model_sha256, err) ||
        store_text(s->data.store, "problems_sha256", id->problems_sha256, sizeof id->problems_sha256, err) ||
        store_text(s->data.store, "prompt_template", id->prompt_template, sizeof id->prompt_template, err) ||
        store_text(s->data.store, "prompt_template_sha256", id->prompt_sha256, sizeof id->prompt_sha256, err) ||
        store_integer(s->data.store, "seed", &id->seed, err) ||
        store_integer(s->data.store, "max_tokens", &id->max_tokens, err) || store_real(s->data.store, "temperature", &id->temperature, err) ||
        store_integer(s->data.store, "preload_imports", &preload, err) || pva_point_parse(s->texts[6], &id->point, err))
        return err->code;
    id->operand = s->texts[0], id->extraction = s->texts[1], id->positions = s->texts[2], id->backend = s->texts[3], id->isa = s->texts[4];
    id->python = s->texts[5];
    id->sandbox = "";
    id->preload_imports = (int)preload;
    struct pva_error none = {0};
    if (store_text(s->data.store, "regraded_from", s->regraded_from, sizeof s->regraded_from, &none)) s->regraded_from[0] = 0;
    return PVA_OK;
}

static int mark_layers(struct phase1_source *s, struct pva_error *err) {
    const struct phase1_data *d = &s->data;
    for (int64_t i = 0; i < d->n_layers; i++) {
        if (d->layers[i] < 0 || d->layers[i] > 255) return pva_fail(err, PVA_INPUT, "%s: layer %d cannot be", d->path, (int)d->layers[i]);
        if (d->layers[i] >= s->n_layers) s->n_layers = d->layers[i] + 1;
    }
    if (!(s->layers = calloc((size_t)s->n_layers + 1, 1))) return pva_fail(err, PVA_IO, "out of memory");
    for (int64_t i = 0; i < d->n_layers; i++) s->layers[d->layers[i]] = 1;
    return PVA_OK;
}

int phase1_source_open(const char *run_directory, struct phase1_source *s, struct pva_error *err) {
    struct phase1_data *d = &s->data;
    memset(s, 0, sizeof *s);
    if (access(run_directory, F_OK)) return pva_fail(err, PVA_INPUT, "%s: there is no such run", run_directory);
    if (phase1_open(run_directory, d, err) || read_identity(s, err) || mark_layers(s, err)) return err->code;
    s->problems = (struct phase1_problems){.n = d->n, .task_ids = d->task_ids, .index = d->index, .part = d->part, .difficulty = d->difficulty};
    s->n_empty = d->n - d->n_done;
    s->identity.max_positions = d->has_positions ? d->n_positions : 0;
    return PVA_OK;
}

void phase1_source_close(struct phase1_source *s) {
    phase1_close(&s->data);
    free(s->layers);
    memset(s, 0, sizeof *s);
}

int64_t phase1_source_find(const struct phase1_source *s, const char *task_id) {
    int64_t found = -1;
    for (int64_t i = 0; i < s->data.n; i++)
        if (!strcmp(s->problems.task_ids[i], task_id)) return i;
    /* "Mbpp/17" and "17" are one problem, as long as no other ends like that. */
    const char *number = strrchr(task_id, '/') ? strrchr(task_id, '/') + 1 : task_id;
    for (int64_t i = 0; i < s->data.n; i++) {
        const char *stored = s->problems.task_ids[i], *slash = strrchr(stored, '/');
        if (strcmp(slash ? slash + 1 : stored, number) || (slash && number != task_id)) continue;
        if (found >= 0) return -1;
        found = i;
    }
    return found;
}

void phase1_source_schema(const struct phase1_source *s, const struct phase1_identity *identity, const struct phase1_problems *problems,
                          struct phase1_schema *schema) {
    const struct pva_model_config shape = {.n_layers = s->n_layers, .d_model = (int)s->data.d_model};
    phase1_schema_fill(schema, identity, problems, &shape, s->layers, s->data.resid_type);
}

int phase1_source_options(const char *run_directory, struct pva_options **out, struct pva_error *err) {
    static const struct pva_option *const tables[] = {pva_common_options, pva_engine_options, pva_phase1_options, pva_campaign_options, NULL};
    char path[4096];
    snprintf(path, sizeof path, "%s/config-phase1.yaml", run_directory);
    *out = NULL;
    if (access(path, R_OK)) return pva_fail(err, PVA_INPUT, "%s: cannot be read; it says with what settings the run was made", path);
    return pva_options_read_file("phase1", tables, path, out, err);
}
