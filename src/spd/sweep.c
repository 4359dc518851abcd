/* A grid of settings: `global:` and one section per experiment, deep-merged (the experiment wins; lists are replaced), every
 * combination. */
#include "yaml.h"

#include "pva/spd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_AXES = 32, MAX_RUNS = 100000 };

struct axis {
    char key[200]; /* dotted */
    json_t *values;
};

static int is_leaf(const json_t *o) { return json_is_object(o) && json_object_get(o, "values"); }

static void merge(json_t *into, const json_t *from) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)from, key, v) {
        json_t *old = json_object_get(into, key);
        if (json_is_object(old) && json_is_object(v) && !is_leaf(old) && !is_leaf(v)) merge(old, v);
        else json_object_set_new(into, key, json_deep_copy(v));
    }
}

static int flatten(const char *path, const json_t *o, const char *prefix, struct axis *axes, int *n, struct pva_error *err) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v) {
        char full[200];
        if (snprintf(full, sizeof full, "%s%s%s", prefix, *prefix ? "." : "", key) >= (int)sizeof full)
            return pva_fail(err, PVA_INPUT, "%s: %s: the key is too long", path, key);
        if (is_leaf(v)) {
            json_t *values = json_object_get(v, "values");
            if (json_object_size(v) != 1 || !json_is_array(values) || !json_array_size(values))
                return pva_fail(err, PVA_INPUT, "%s: %s: expected {values: [...]} with at least one value", path, full);
            if (*n == MAX_AXES) return pva_fail(err, PVA_INPUT, "%s: more than %d settings vary", path, MAX_AXES);
            snprintf(axes[*n].key, sizeof axes[*n].key, "%s", full);
            axes[(*n)++].values = values;
        } else if (json_is_object(v) && json_object_size(v)) {
            if (flatten(path, v, full, axes, n, err)) return err->code;
        } else {
            return pva_fail(err, PVA_INPUT, "%s: %s: expected {values: [...]}", path, full);
        }
    }
    return PVA_OK;
}

/* A value as it stands in a run's name. */
static void name_value(const json_t *v, char *out, size_t size) {
    if (json_is_string(v)) {
        snprintf(out, size, "%s", json_string_value(v));
        return;
    }
    char *text = json_is_real(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    if (json_is_real(v)) snprintf(out, size, "%.10g", json_real_value(v));
    else snprintf(out, size, "%s", text ? text : "");
    free(text);
    for (char *c = out; *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", *c)) *c = '-';
}

static int set_dotted(json_t *o, const char *key, json_t *value) {
    char part[200];
    snprintf(part, sizeof part, "%.199s", key);
    char *name = part;
    for (char *dot; (dot = strchr(name, '.')); name = dot + 1) {
        *dot = 0;
        if (!(o = json_object_get(o, name))) return 1;
    }
    return json_object_set(o, name, value);
}

/* Combination number `index` of the axes, the last varying fastest. */
static int make_run(const char *path, const struct pva_spd_experiment *x, const struct axis *axes, int n_axes, int64_t index,
                    struct pva_spd_sweep_run *out, struct pva_error *err) {
    json_t *config, *parameters = json_object();
    char name[1000];
    if (spd_yaml_parse(x->config, x->key, &config, NULL, err)) return json_decref(parameters), err->code;
    int64_t choice[MAX_AXES];
    for (int a = n_axes - 1; a >= 0; a--) {
        choice[a] = index % (int64_t)json_array_size(axes[a].values);
        index /= (int64_t)json_array_size(axes[a].values);
    }
    size_t at = (size_t)snprintf(name, sizeof name, "%s", x->key);
    for (int a = 0; a < n_axes; a++) {
        json_t *v = json_array_get(axes[a].values, (size_t)choice[a]);
        char text[100];
        name_value(v, text, sizeof text);
        if (at < sizeof name) at += (size_t)snprintf(name + at, sizeof name - at, "%s%s-%s", a ? "_" : "-", axes[a].key, text);
        json_object_set(parameters, axes[a].key, v);
        if (set_dotted(config, axes[a].key, v)) pva_fail(err, PVA_INPUT, "%s: %s is no setting of %s", path, axes[a].key, x->key);
    }
    out->name = strdup(name);
    out->experiment = strdup(x->key);
    out->config = spd_yaml_print(config);
    out->parameters = json_dumps(parameters, JSON_COMPACT | JSON_REAL_PRECISION(12));
    json_decref(config);
    json_decref(parameters);
    if (!err->code && (!out->name || !out->experiment || !out->config || !out->parameters))
        pva_fail(err, PVA_IO, "out of memory");
    if (err->code) return err->code;
    struct pva_spd_config checked;
    if (at >= sizeof name)
        return pva_fail(err, PVA_INPUT, "%s: the names of runs would be longer than %zu bytes", path, sizeof name);
    if (pva_spd_config_parse(out->config, name, NULL, &checked, err)) return err->code;
    pva_spd_config_free(&checked);
    return PVA_OK;
}

static int expand_one(const char *path, const json_t *grid, const char *key, struct pva_spd_sweep_run **runs, int *n_runs,
                      struct pva_error *err) {
    const struct pva_spd_experiment *x;
    struct axis axes[MAX_AXES];
    int n_axes = 0;
    int64_t count = 1;
    if (pva_spd_experiment_find(key, &x, err)) return err->code;
    json_t *merged = json_object();
    merge(merged, json_object_get(grid, "global"));
    merge(merged, json_object_get(grid, key));
    if (!json_object_size(merged)) pva_fail(err, PVA_INPUT, "%s: neither `global` nor `%s` varies anything", path, key);
    else flatten(path, merged, "", axes, &n_axes, err);
    for (int a = 0; a < n_axes && count <= MAX_RUNS; a++) count *= (int64_t)json_array_size(axes[a].values);
    if (!err->code && *n_runs + count > MAX_RUNS) pva_fail(err, PVA_INPUT, "%s: more than %d runs", path, MAX_RUNS);
    if (!err->code) {
        struct pva_spd_sweep_run *more = realloc(*runs, (size_t)(*n_runs + count) * sizeof *more);
        if (!more) pva_fail(err, PVA_IO, "out of memory");
        else *runs = more;
    }
    for (int64_t i = 0; i < count && !err->code; i++) {
        memset(&(*runs)[*n_runs], 0, sizeof **runs);
        make_run(path, x, axes, n_axes, i, &(*runs)[(*n_runs)++], err);
    }
    json_decref(merged);
    return err->code;
}

int pva_spd_sweep_expand(const char *path, const char *const *keys, int n_keys, struct pva_spd_sweep_run **runs, int *n_runs,
                         struct pva_error *err) {
    json_t *grid;
    const char *section;
    json_t *v;
    *runs = NULL;
    *n_runs = 0;
    if (spd_yaml_read(path, &grid, NULL, err)) return err->code;
    if (!json_is_object(grid)) pva_fail(err, PVA_INPUT, "%s: expected sections `global:` and experiments' names", path);
    json_object_foreach(grid, section, v) {
        const struct pva_spd_experiment *x;
        if (!err->code && strcmp(section, "global") && pva_spd_experiment_find(section, &x, err)) {
            err->code = PVA_INPUT;
            pva_error_prefix(err, "%s", path);
        }
        if (!err->code && !json_is_object(v)) pva_fail(err, PVA_INPUT, "%s: %s: a mapping is expected", path, section);
    }
    for (int i = 0; i < n_keys && !err->code; i++) expand_one(path, grid, keys[i], runs, n_runs, err);
    json_decref(grid);
    if (err->code) pva_spd_sweep_free(runs, *n_runs);
    return err->code;
}

void pva_spd_sweep_free(struct pva_spd_sweep_run **runs, int n_runs) {
    for (int i = 0; *runs && i < n_runs; i++) {
        free((*runs)[i].name);
        free((*runs)[i].experiment);
        free((*runs)[i].config);
        free((*runs)[i].parameters);
    }
    free(*runs);
    *runs = NULL;
}
