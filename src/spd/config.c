/* Settings of a decomposition: one table of keys, checked strictly, defaults filled in, then read into the struct. */
#include "yaml.h"

#include "pva/spd.h"

#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

enum type { TEXT, COUNT, REAL, FLAG, COUNTS, TEXTS, METRICS, TASK };

struct key {
    const char *name;
    enum type type;
    int nullable;
    const char *fallback; /* JSON; NULL: required */
    double min, max;      /* of numbers */
    const char *choices;  /* of texts, separated by '|' */
};

static const struct key keys[] = {
    {"wandb_project", TEXT, 1, "null", 0, 0, NULL},
    {"wandb_run_name", TEXT, 1, "null", 0, 0, NULL},
    {"wandb_run_name_prefix", TEXT, 0, "\"\"", 0, 0, NULL},
    {"seed", COUNT, 0, "0", 0, 9e15, NULL},
    {"C", COUNT, 0, NULL, 1, 100000, NULL},
    {"n_mask_samples", COUNT, 0, "1", 1, 8, NULL},
    {"gate_type", TEXT, 0, "\"vector_mlp\"", 0, 0, "mlp|vector_mlp"},
    {"gate_hidden_dims", COUNTS, 0, "[8]", 1, 1024, NULL},
    {"sigmoid_type", TEXT, 0, "\"leaky_hard\"", 0, 0, "normal|hard|leaky_hard|upper_leaky_hard|lower_leaky_hard|swish_hard"},
    {"target_module_patterns", TEXTS, 0, NULL, 0, 0, NULL},
    {"faithfulness_coeff", REAL, 1, "1.0", 0, 1e12, NULL},
    {"recon_coeff", REAL, 1, "null", 0, 1e12, NULL},
    {"stochastic_recon_coeff", REAL, 1, "null", 0, 1e12, NULL},
    {"recon_layerwise_coeff", REAL, 1, "null", 0, 1e12, NULL},
    {"stochastic_recon_layerwise_coeff", REAL, 1, "null", 0, 1e12, NULL},
    {"importance_minimality_coeff", REAL, 0, NULL, 0, 1e12, NULL},
    {"schatten_coeff", REAL, 1, "null", 0, 1e12, NULL},
    {"out_recon_coeff", REAL, 1, "null", 0, 1e12, NULL},
    {"embedding_recon_coeff", REAL, 1, "null", 0, 1e12, NULL},
    {"is_embed_unembed_recon", FLAG, 0, "false", 0, 0, NULL},
    {"pnorm", REAL, 0, NULL, 1e-6, 100, NULL},
    {"p_anneal_start_frac", REAL, 0, "1.0", 0, 1, NULL},
    {"p_anneal_final_p", REAL, 1, "null", 1e-6, 100, NULL},
    {"p_anneal_end_frac", REAL, 0, "1.0", 0, 1, NULL},
    {"output_loss_type", TEXT, 0, NULL, 0, 0, "mse|kl"},
    {"lr", REAL, 0, NULL, 1e-30, 1e6, NULL},
    {"steps", COUNT, 0, NULL, 1, 4e9, NULL},
    {"batch_size", COUNT, 0, NULL, 1, 1 << 24, NULL},
    {"gradient_accumulation_steps", COUNT, 0, "1", 1, 1024, NULL},
    {"lr_schedule", TEXT, 0, "\"constant\"", 0, 0, "constant|linear|cosine|exponential"},
    {"lr_exponential_halflife", REAL, 1, "null", 1e-9, 1e18, NULL},
    {"lr_warmup_pct", REAL, 0, "0.0", 0, 1, NULL},
    {"out_dir", TEXT, 1, "null", 0, 0, NULL},
    {"train_log_freq", COUNT, 0, NULL, 1, 1e15, NULL},
    {"eval_freq", COUNT, 0, NULL, 1, 1e15, NULL},
    {"eval_batch_size", COUNT, 0, NULL, 1, 1 << 24, NULL},
    {"slow_eval_freq", COUNT, 0, NULL, 1, 1e15, NULL},
    {"n_eval_steps", COUNT, 0, NULL, 1, 1e9, NULL},
    {"slow_eval_on_first_step", FLAG, 0, "true", 0, 0, NULL},
    {"save_freq", COUNT, 1, "null", 1, 1e15, NULL},
    {"eval_metrics", METRICS, 0, "[]", 0, 0, NULL},
    {"ci_alive_threshold", REAL, 0, "0.0", 0, 1, NULL},
    {"n_examples_until_dead", COUNT, 0, NULL, 1, 1e15, NULL},
    {"pretrained_model_class", TEXT, 0, NULL, 0, 0, NULL},
    {"pretrained_model_path", TEXT, 1, "null", 0, 0, NULL},
    {"pretrained_model_name_hf", TEXT, 1, "null", 0, 0, NULL},
    {"pretrained_model_output_attr", TEXT, 1, "null", 0, 0, NULL},
    {"tokenizer_name", TEXT, 1, "null", 0, 0, NULL},
    {"task_config", TASK, 0, NULL, 0, 0, NULL},
    {"dist_backend", TEXT, 1, "null", 0, 0, "nccl|gloo|mpi"},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

/* What older configurations hold. new_name NULL: dropped. */
static const struct {
    const char *old_name, *new_name;
} former[] = {
    {"image_freq", NULL},
    {"image_on_first_step", NULL},
    {"print_freq", "eval_freq"},
    {"metrics_fns", NULL},
    {"figures_fns", NULL},
    {"n_ci_mlp_neurons", NULL},
    {"schatten_pnorm", NULL},
    {"layerwise_random_recon_coeff", "stochastic_recon_layerwise_coeff"},
    {"random_mask_recon_coeff", "stochastic_recon_coeff"},
    {"lp_sparsity_coeff", "importance_minimality_coeff"},
    {"n_gate_hidden_neurons", NULL},
    {"log_ce_losses", NULL},
    {"n_random_masks", "n_mask_samples"},
};

struct parse {
    const char *name;
    const json_t *lines;
    struct pva_error *err;
};

#define FAIL(p, path, ...) spd_yaml_fail((p)->lines, (p)->name, path, (p)->err, __VA_ARGS__)

static int is_choice(const char *text, const char *choices) {
    size_t n = strlen(text);
    for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
        if (strcspn(c, "|") == n && !strncmp(c, text, n)) return 1;
    return 0;
}

static int check_number(const struct parse *p, const char *path, const json_t *v, double min, double max, int whole) {
    if (whole ? !json_is_integer(v) : !json_is_number(v))
        return FAIL(p, path, "a %s is expected", whole ? "whole number" : "number");
    double x = json_number_value(v);
    if (!(x >= min && x <= max)) return FAIL(p, path, "is %g, expected a value from %g to %g", x, min, max);
    return PVA_OK;
}

static int check_fields(const struct parse *p, const char *path, const json_t *object, const char *allowed) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)object, key, v) {
        char inner[300];
        snprintf(inner, sizeof inner, "%s.%s", path, key);
        if (!is_choice(key, allowed)) return FAIL(p, inner, "there is no such key; known are %s", allowed);
    }
    return PVA_OK;
}

static int check_task(const struct parse *p, const json_t *v) {
    if (!json_is_object(v)) return FAIL(p, "task_config", "a mapping is expected");
    const char *task = json_string_value(json_object_get(v, "task_name"));
    if (!task || !is_choice(task, "tms|residual_mlp|resid_mlp|lm"))
        return FAIL(p, "task_config.task_name", "\"%s\": expected tms, residual_mlp or lm", task ? task : "");
    if (!strcmp(task, "lm"))
        return FAIL(p, "task_config.task_name", "language models cannot be decomposed by this version; tms and residual_mlp can");
    if (check_fields(p, "task_config", v, "task_name|feature_probability|data_generation_type|synced_inputs"))
        return p->err->code;
    const json_t *probability = json_object_get(v, "feature_probability"), *type = json_object_get(v, "data_generation_type"),
                 *synced = json_object_get(v, "synced_inputs");
    if (!probability) return FAIL(p, "task_config.feature_probability", "is missing");
    if (check_number(p, "task_config.feature_probability", probability, 0, 1, 0)) return p->err->code;
    const char *types =
        "at_least_zero_active|exactly_one_active|exactly_two_active|exactly_three_active|exactly_four_active|exactly_five_active";
    if (type && (!json_is_string(type) || !is_choice(json_string_value(type), types)))
        return FAIL(p, "task_config.data_generation_type", "expected one of %s", types);
    if (!synced || json_is_null(synced)) return PVA_OK;
    size_t i, j;
    json_t *group, *feature;
    if (!json_is_array(synced)) return FAIL(p, "task_config.synced_inputs", "a list of lists of features is expected");
    json_array_foreach((json_t *)synced, i, group) {
        if (!json_is_array(group)) return FAIL(p, "task_config.synced_inputs", "a list of lists of features is expected");
        json_array_foreach(group, j, feature) {
            if (check_number(p, "task_config.synced_inputs", feature, 0, 511, 1)) return p->err->code;
        }
    }
    return PVA_OK;
}

static int check_layers(const struct parse *p, const char *path, const json_t *list, const char *field) {
    char known[64];
    size_t i;
    json_t *item;
    if (!list || json_is_null(list)) return PVA_OK;
    if (!json_is_array(list) || json_array_size(list) > PVA_SPD_MAX_PATTERNS)
        return FAIL(p, path, "a list of at most %d entries is expected", PVA_SPD_MAX_PATTERNS);
    snprintf(known, sizeof known, "layer_pattern|%s", field);
    json_array_foreach((json_t *)list, i, item) {
        if (!json_is_object(item) || !json_is_string(json_object_get(item, "layer_pattern")) ||
            strlen(json_string_value(json_object_get(item, "layer_pattern"))) > 127)
            return FAIL(p, path, "each entry needs layer_pattern and %s", field);
        if (check_fields(p, path, item, known) || check_number(p, path, json_object_get(item, field), 1, 1e6, 1))
            return p->err->code;
    }
    return PVA_OK;
}

static int check_metrics(const struct parse *p, const json_t *list) {
    size_t i;
    json_t *m;
    if (!json_is_array(list)) return FAIL(p, "eval_metrics", "a list is expected");
    json_array_foreach((json_t *)list, i, m) {
        char path[80];
        snprintf(path, sizeof path, "eval_metrics[%zu]", i);
        const char *name = json_string_value(json_object_get(m, "classname"));
        const char *known = "CI_L0|CIHistograms|ComponentActivationDensity|PermutedCIPlots|UVPlots|IdentityCIError";
        if (!name || !is_choice(name, known))
            return FAIL(p, path, "classname \"%s\": expected one of %s", name ? name : "", known);
        if (check_fields(p, path, m, "classname|extra_init_kwargs")) return p->err->code;
        const json_t *extra = json_object_get(m, "extra_init_kwargs");
        if (!extra || json_is_null(extra)) continue;
        char inner[120];
        snprintf(inner, sizeof inner, "%s.extra_init_kwargs", path);
        const char *fields = !strcmp(name, "CIHistograms")      ? "n_batches_accum"
                             : !strcmp(name, "IdentityCIError") ? "identity_ci|dense_ci"
                             : strstr(name, "Plots")            ? "identity_patterns|dense_patterns"
                                                                : "";
        if (!json_is_object(extra)) return FAIL(p, inner, "a mapping is expected");
        if (check_fields(p, inner, extra, fields)) return p->err->code;
        if (check_layers(p, inner, json_object_get(extra, "identity_ci"), "n_features") ||
            check_layers(p, inner, json_object_get(extra, "dense_ci"), "k"))
            return p->err->code;
        const json_t *n = json_object_get(extra, "n_batches_accum");
        if (n && !json_is_null(n) && check_number(p, inner, n, 1, 1e9, 1)) return p->err->code;
    }
    return PVA_OK;
}

static int check_value(const struct parse *p, const struct key *k, const json_t *v) {
    size_t i;
    json_t *item;
    if (json_is_null(v)) return k->nullable ? PVA_OK : FAIL(p, k->name, "a value is expected");
    switch (k->type) {
    case TEXT:
        if (!json_is_string(v)) return FAIL(p, k->name, "a text is expected");
        if (k->choices && !is_choice(json_string_value(v), k->choices))
            return FAIL(p, k->name, "\"%s\": expected one of %s", json_string_value(v), k->choices);
        if (strlen(json_string_value(v)) > 1000) return FAIL(p, k->name, "the text is longer than 1000 bytes");
        return PVA_OK;
    case COUNT: return check_number(p, k->name, v, k->min, k->max, 1);
    case REAL: return check_number(p, k->name, v, k->min, k->max, 0);
    case FLAG: return json_is_boolean(v) ? PVA_OK : FAIL(p, k->name, "true or false is expected");
    case COUNTS:
        if (!json_is_array(v) || json_array_size(v) < 1 || json_array_size(v) > 5)
            return FAIL(p, k->name, "a list of 1 to 5 whole numbers is expected");
        json_array_foreach((json_t *)v, i, item) {
            if (check_number(p, k->name, item, k->min, k->max, 1)) return p->err->code;
        }
        return PVA_OK;
    case TEXTS:
        if (!json_is_array(v) || json_array_size(v) < 1 || json_array_size(v) > PVA_SPD_MAX_PATTERNS)
            return FAIL(p, k->name, "a list of 1 to %d patterns is expected", PVA_SPD_MAX_PATTERNS);
        json_array_foreach((json_t *)v, i, item) {
            if (!json_is_string(item) || !json_string_length(item) || json_string_length(item) > 127)
                return FAIL(p, k->name, "a text of at most 127 bytes is expected");
        }
        return PVA_OK;
    case METRICS: return check_metrics(p, v);
    case TASK: return check_task(p, v);
    }
    return PVA_OK;
}

/* What no single key can say. */
static int check_together(const struct parse *p, const struct pva_spd_config *c, const json_t *o) {
    if (c->slow_eval_freq % c->eval_freq) return FAIL(p, "slow_eval_freq", "must be a multiple of eval_freq");
    if (c->batch_size % c->accumulation) return FAIL(p, "gradient_accumulation_steps", "must divide batch_size");
    if (!strcmp(c->lr_schedule, "exponential") && isnan(c->lr_halflife))
        return FAIL(p, "lr_exponential_halflife", "is needed by lr_schedule exponential");
    if (c->p_anneal_end < c->p_anneal_start) return FAIL(p, "p_anneal_end_frac", "lies before p_anneal_start_frac");
    if (!isnan(c->p_anneal_final) && c->p_anneal_start < 1 && c->p_anneal_final > c->pnorm)
        return FAIL(p, "p_anneal_final_p", "is larger than pnorm");
    if (strcmp(json_string_value(json_object_get(o, "output_loss_type")), "mse"))
        return FAIL(p, "output_loss_type", "the toy models' outputs are compared by mse");
    if (!json_is_null(json_object_get(o, "embedding_recon_coeff")))
        return FAIL(p, "embedding_recon_coeff", "needs a decomposed embedding, which no toy model has");
    if (json_is_true(json_object_get(o, "is_embed_unembed_recon")))
        return FAIL(p, "is_embed_unembed_recon", "needs a decomposed embedding, which no toy model has");
    return PVA_OK;
}

static double real_or_nan(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}
static int64_t count_or(const json_t *o, const char *key, int64_t absent) {
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) ? json_integer_value(v) : absent;
}
static void copy_text(char *out, size_t size, const json_t *o, const char *key) {
    const char *text = json_string_value(json_object_get(o, key));
    snprintf(out, size, "%s", text ? text : "");
}

static int read_layers(const json_t *list, const char *field, struct pva_spd_pattern *out) {
    size_t i;
    json_t *item;
    json_array_foreach((json_t *)list, i, item) {
        copy_text(out[i].name, sizeof out[i].name, item, "layer_pattern");
        out[i].value = (int)count_or(item, field, 0);
    }
    return (int)json_array_size(list);
}

static void read_metrics(const json_t *list, struct pva_spd_config *c) {
    size_t i;
    json_t *m;
    json_array_foreach((json_t *)list, i, m) {
        const char *name = json_string_value(json_object_get(m, "classname"));
        const json_t *extra = json_object_get(m, "extra_init_kwargs");
        if (!strcmp(name, "CI_L0")) c->want_l0 = 1;
        if (!strcmp(name, "ComponentActivationDensity")) c->want_density = 1;
        if (!strcmp(name, "PermutedCIPlots")) c->want_permuted = 1;
        if (!strcmp(name, "UVPlots")) c->want_uv = 1;
        if (!strcmp(name, "CIHistograms")) {
            c->want_histograms = 1;
            c->histogram_batches = (int)count_or(extra, "n_batches_accum", -1);
        }
        if (!strcmp(name, "IdentityCIError")) {
            c->want_identity = 1;
            c->n_identity = read_layers(json_object_get(extra, "identity_ci"), "n_features", c->identity);
            c->n_dense = read_layers(json_object_get(extra, "dense_ci"), "k", c->dense);
        }
    }
}

static void read_task(const json_t *task, struct pva_spd_config *c) {
    c->residual = strcmp(json_string_value(json_object_get(task, "task_name")), "tms") != 0;
    c->feature_probability = real_or_nan(task, "feature_probability");
    copy_text(c->data_type, sizeof c->data_type, task, "data_generation_type");
    if (!*c->data_type) strcpy(c->data_type, "at_least_zero_active");
    for (int i = 0; i < 512; i++) c->synced[i] = -1;
    size_t i, j;
    json_t *group, *feature;
    json_array_foreach(json_object_get(task, "synced_inputs"), i, group) {
        json_array_foreach(group, j, feature) c->synced[json_integer_value(feature)] = (int)i;
        c->n_synced++;
    }
}

static void read_all(const json_t *o, struct pva_spd_config *c) {
    size_t i;
    json_t *item;
    copy_text(c->project, sizeof c->project, o, "wandb_project");
    if (!*c->project) strcpy(c->project, "spd");
    c->seed = count_or(o, "seed", 0);
    c->components = count_or(o, "C", 0);
    c->n_mask_samples = count_or(o, "n_mask_samples", 1);
    c->gate_vector = !strcmp(json_string_value(json_object_get(o, "gate_type")), "vector_mlp");
    json_array_foreach(json_object_get(o, "gate_hidden_dims"), i, item) c->gate_hidden[c->n_gate_hidden++] =
        (int)json_integer_value(item);
    copy_text(c->sigmoid_type, sizeof c->sigmoid_type, o, "sigmoid_type");
    json_array_foreach(json_object_get(o, "target_module_patterns"), i, item)
        strcpy(c->patterns[c->n_patterns++], json_string_value(item));
    c->faithfulness = real_or_nan(o, "faithfulness_coeff");
    c->recon = real_or_nan(o, "recon_coeff");
    c->stochastic_recon = real_or_nan(o, "stochastic_recon_coeff");
    c->recon_layerwise = real_or_nan(o, "recon_layerwise_coeff");
    c->stochastic_recon_layerwise = real_or_nan(o, "stochastic_recon_layerwise_coeff");
    c->importance_minimality = real_or_nan(o, "importance_minimality_coeff");
    c->schatten = real_or_nan(o, "schatten_coeff");
    c->out_recon = real_or_nan(o, "out_recon_coeff");
    c->pnorm = real_or_nan(o, "pnorm");
    c->p_anneal_start = real_or_nan(o, "p_anneal_start_frac");
    c->p_anneal_final = real_or_nan(o, "p_anneal_final_p");
    c->p_anneal_end = real_or_nan(o, "p_anneal_end_frac");
    c->lr = real_or_nan(o, "lr");
    c->lr_halflife = real_or_nan(o, "lr_exponential_halflife");
    c->lr_warmup = real_or_nan(o, "lr_warmup_pct");
    copy_text(c->lr_schedule, sizeof c->lr_schedule, o, "lr_schedule");
    c->steps = count_or(o, "steps", 0);
    c->batch_size = count_or(o, "batch_size", 0);
    c->accumulation = count_or(o, "gradient_accumulation_steps", 1);
    c->train_log_freq = count_or(o, "train_log_freq", 0);
    c->eval_freq = count_or(o, "eval_freq", 0);
    c->eval_batch_size = count_or(o, "eval_batch_size", 0);
    c->slow_eval_freq = count_or(o, "slow_eval_freq", 0);
    c->n_eval_steps = count_or(o, "n_eval_steps", 0);
    c->save_freq = count_or(o, "save_freq", -1);
    c->examples_until_dead = count_or(o, "n_examples_until_dead", 0);
    c->slow_eval_on_first_step = json_is_true(json_object_get(o, "slow_eval_on_first_step"));
    c->alive_threshold = real_or_nan(o, "ci_alive_threshold");
    copy_text(c->target_path, sizeof c->target_path, o, "pretrained_model_path");
    read_metrics(json_object_get(o, "eval_metrics"), c);
    read_task(json_object_get(o, "task_config"), c);
}

static int map_former(json_t *given, const char *name, void (*warn)(const char *line)) {
    for (size_t i = 0; i < sizeof former / sizeof *former; i++) {
        json_t *v = json_object_get(given, former[i].old_name);
        if (!v) continue;
        char line[300];
        snprintf(line, sizeof line, "%s: %s is %s%s", name, former[i].old_name,
                 former[i].new_name ? "now called " : "no longer used and ignored", former[i].new_name ? former[i].new_name : "");
        if (warn) warn(line);
        if (former[i].new_name && !json_object_get(given, former[i].new_name)) json_object_set(given, former[i].new_name, v);
        json_object_del(given, former[i].old_name);
    }
    return PVA_OK;
}

static int finish(const struct parse *p, json_t *given, void (*warn)(const char *line), struct pva_spd_config *out) {
    const char *key;
    json_t *v;
    if (!json_is_object(given)) return pva_fail(p->err, PVA_INPUT, "%s: a mapping of settings is expected", p->name);
    map_former(given, p->name, warn);
    json_object_foreach(given, key, v) {
        int known = 0;
        for (int i = 0; i < N_KEYS; i++) known |= !strcmp(key, keys[i].name);
        if (!known) return FAIL(p, key, "there is no such setting");
    }
    json_t *full = json_object();
    int status = PVA_OK;
    for (int i = 0; i < N_KEYS && !status; i++) {
        v = json_incref(json_object_get(given, keys[i].name));
        if (!v && !keys[i].fallback) {
            status = FAIL(p, keys[i].name, "is missing");
            break;
        }
        if (!v) v = json_loads(keys[i].fallback, JSON_DECODE_ANY, NULL);
        status = check_value(p, &keys[i], v);
        if (keys[i].type == REAL && json_is_integer(v)) { /* 1 and 1.0 are the same setting */
            json_t *whole = v;
            v = json_real((double)json_integer_value(whole));
            json_decref(whole);
        }
        json_object_set_new(full, keys[i].name, v);
    }
    if (!status) {
        read_all(full, out);
        status = check_together(p, out, full);
    }
    if (!status) out->json = json_dumps(full, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(full);
    if (!status && !out->json) status = pva_fail(p->err, PVA_IO, "out of memory");
    return status;
}

static int take(json_t *given, json_t *lines, const char *name, void (*warn)(const char *line), struct pva_spd_config *out,
                struct pva_error *err) {
    struct parse p = {name, lines, err};
    memset(out, 0, sizeof *out);
    int status = finish(&p, given, warn, out);
    if (status) pva_spd_config_free(out);
    json_decref(given);
    json_decref(lines);
    return status;
}

int pva_spd_config_parse(const char *text, const char *name, void (*warn)(const char *line), struct pva_spd_config *out,
                         struct pva_error *err) {
    json_t *given, *lines;
    memset(out, 0, sizeof *out);
    if (spd_yaml_parse(text, name, &given, &lines, err)) return err->code;
    return take(given, lines, name, warn, out, err);
}

int pva_spd_config_read(const char *path, void (*warn)(const char *line), struct pva_spd_config *out, struct pva_error *err) {
    json_t *given, *lines;
    memset(out, 0, sizeof *out);
    if (spd_yaml_read(path, &given, &lines, err)) return err->code;
    return take(given, lines, path, warn, out, err);
}

int pva_spd_config_set(struct pva_spd_config *c, const char *key, const char *value, struct pva_error *err) {
    char part[200];
    json_t *root = json_loads(c->json, 0, NULL), *at = root, *v = json_loads(value, JSON_DECODE_ANY, NULL);
    snprintf(part, sizeof part, "%s", key);
    char *name = part;
    for (char *dot; (dot = strchr(name, '.')); name = dot + 1) {
        *dot = 0;
        at = json_object_get(at, name);
    }
    if (!v || !json_is_object(at)) {
        json_decref(root);
        json_decref(v);
        return pva_fail(err, PVA_USAGE, "%s cannot be set to %s", key, value);
    }
    json_object_set_new(at, name, v);
    char *text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(17));
    struct pva_spd_config other = {0};
    json_decref(root);
    int status = text ? pva_spd_config_parse(text, key, NULL, &other, err) : pva_fail(err, PVA_IO, "out of memory");
    free(text);
    if (status) return status;
    pva_spd_config_free(c);
    *c = other;
    return PVA_OK;
}

void pva_spd_config_free(struct pva_spd_config *c) {
    free(c->json);
    memset(c, 0, sizeof *c);
}

char *pva_spd_config_print(const struct pva_spd_config *c) {
    json_t *o = json_loads(c->json, 0, NULL);
    char *text = o ? spd_yaml_print(o) : NULL;
    json_decref(o);
    return text;
}
