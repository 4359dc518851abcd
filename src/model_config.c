#include "pva/model_config.h"

#include "input_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG ((size_t)16 << 20)
#define SUPPORTED "Gemma2ForCausalLM (gemma-2-2b, -9b, -27b and their -it variants)"

/* Bounds far above any published model, low enough that no product of two overflows 63 bits. */
enum {
    MAX_LAYERS = 1024,
    MAX_WIDTH = 1 << 20, /* d_model, d_ff, n_heads * d_head */
    MAX_HEADS = 1024,
    MAX_D_HEAD = 4096,
    MAX_VOCAB = 1 << 24,
    MAX_POSITIONS = 1 << 26,
};

/* ---- values ---- */

/* `name` is the file, `key` the place in it. */
static int wrong(const char *name, const char *key, const char *expected, const json_t *value, struct pva_error *err) {
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    pva_fail(err, PVA_INPUT, "%s: %s is %.100s, expected %s", name, key, value ? text ? text : "a value" : "missing", expected);
    free(text);
    return err->code;
}

/* fallback < 0: the key is required. */
static int get_int(const char *name, const json_t *root, const char *key, int fallback, int max, int *out,
                   struct pva_error *err) {
    char expected[64];
    const json_t *value = json_object_get(root, key);
    if (!value && fallback >= 0) return *out = fallback, 0;
    if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > max) {
        snprintf(expected, sizeof expected, "a whole number from 1 to %d", max);
        return wrong(name, key, expected, value, err);
    }
    *out = (int)json_integer_value(value);
    return 0;
}

/* Positive and finite. nullable: null means 0, switched off. */
static int get_real(const char *name, const json_t *root, const char *key, double fallback, int nullable, double *out,
                    struct pva_error *err) {
    const json_t *value = json_object_get(root, key);
    if (!value) return *out = fallback, 0;
    if (nullable && json_is_null(value)) return *out = 0, 0;
    *out = json_number_value(value); /* 0 for anything that is not a number */
    return *out > 0 && isfinite(*out)
               ? 0
               : wrong(name, key, nullable ? "a positive number or null" : "a positive number", value, err);
}

static int get_id(const char *name, const json_t *root, const char *key, int fallback, int *out, struct pva_error *err) {
    const json_t *value = json_object_get(root, key);
    if (!value) return *out = fallback, 0;
    if (json_is_null(value)) return *out = -1, 0;
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= MAX_VOCAB)
        return wrong(name, key, "a token id or null", value, err);
    *out = (int)json_integer_value(value);
    return 0;
}

static int get_eos(const char *name, const json_t *value, struct pva_model_config *c, struct pva_error *err) {
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    if (json_is_null(value)) return c->n_eos = 0, 0;
    if (n == 0 || n > PVA_MAX_EOS) return wrong(name, "eos_token_id", "one token id or a list of 1 to 16", value, err);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= MAX_VOCAB)
            return wrong(name, "eos_token_id", "a token id or a list of them", value, err);
        c->eos_ids[i] = (int)json_integer_value(id);
    }
    c->n_eos = (int)n;
    return 0;
}

/* A switch that would change the arithmetic must be absent, null or `wanted`. */
static int expect_flag(const char *name, const json_t *root, const char *key, int wanted, struct pva_error *err) {
    const json_t *value = json_object_get(root, key);
    if (!value || json_is_null(value) || (json_is_boolean(value) && json_is_true(value) == wanted)) return 0;
    return wrong(name, key,
                 wanted ? "true: this model is not supported otherwise" : "false: this model is not supported otherwise", value,
                 err);
}

static int expect_absent(const char *name, const json_t *root, const char *key, struct pva_error *err) {
    const json_t *value = json_object_get(root, key);
    return !value || json_is_null(value) ? 0 : wrong(name, key, "nothing: this is not supported", value, err);
}

/* ---- parts of config.json ---- */

static int read_architecture(const char *name, const json_t *root, struct pva_model_config *c, struct pva_error *err) {
    const json_t *list = json_object_get(root, "architectures"), *type = json_object_get(root, "model_type");
    const char *architecture = json_string_value(json_array_get(list, 0));
    if (json_array_size(list) != 1 || !architecture || strcmp(architecture, "Gemma2ForCausalLM"))
        return wrong(name, "architectures", "one of: " SUPPORTED, list, err);
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "gemma2")))
        return wrong(name, "model_type", "\"gemma2\"", type, err);
    snprintf(c->architecture, sizeof c->architecture, "%s", architecture);
    return 0;
}

/* Early checkpoints carry hidden_act alone; transformers then uses the tanh form whether it says gelu or gelu_pytorch_tanh. */
static int read_activation(const char *name, const json_t *root, struct pva_model_config *c, struct pva_error *err) {
    const char *key = "hidden_activation";
    const json_t *value = json_object_get(root, key);
    int old = 0;
    if (!value || json_is_null(value)) {
        key = "hidden_act";
        value = json_object_get(root, key);
        old = 1;
    }
    const char *text = json_string_value(value);
    int absent = old && (!value || json_is_null(value));
    if (!absent && !(text && (!strcmp(text, "gelu_pytorch_tanh") || (old && !strcmp(text, "gelu")))))
        return wrong(name, key, "\"gelu_pytorch_tanh\"", value, err);
    snprintf(c->hidden_activation, sizeof c->hidden_activation, "gelu_pytorch_tanh");
    return 0;
}

static int read_dtype(const char *name, const json_t *root, struct pva_model_config *c, struct pva_error *err) {
    static const char *const known[] = {"float32", "bfloat16", "float16"};
    const char *key = json_object_get(root, "torch_dtype") ? "torch_dtype" : "dtype";
    const json_t *value = json_object_get(root, key);
    const char *text = !value || json_is_null(value) ? "float32" : json_string_value(value);
    for (size_t i = 0; text && i < sizeof known / sizeof *known; i++)
        if (!strcmp(text, known[i])) return snprintf(c->torch_dtype, sizeof c->torch_dtype, "%s", text), 0;
    return wrong(name, key, "\"float32\", \"bfloat16\" or \"float16\"", value, err);
}

/* Older files say rope_theta, newer ones rope_parameters {rope_type, rope_theta}. */
static int read_rope(const char *name, const json_t *root, struct pva_model_config *c, struct pva_error *err) {
    const json_t *nested = json_object_get(root, "rope_parameters");
    if (expect_absent(name, root, "rope_scaling", err)) return err->code;
    if (!nested || json_is_null(nested)) return get_real(name, root, "rope_theta", 10000, 0, &c->rope_theta, err);
    const json_t *type = json_object_get(nested, "rope_type");
    if (!json_is_object(nested) || (type && (!json_is_string(type) || strcmp(json_string_value(type), "default"))))
        return wrong(name, "rope_parameters", "rope_type \"default\" and a rope_theta", nested, err);
    if (json_object_get(nested, "rope_theta")) return get_real(name, nested, "rope_theta", 10000, 0, &c->rope_theta, err);
    return get_real(name, root, "rope_theta", 10000, 0, &c->rope_theta, err);
}

static int check_layer_types(const char *name, const json_t *root, const struct pva_model_config *c, struct pva_error *err) {
    const json_t *types = json_object_get(root, "layer_types");
    char key[48], expected[48];
    if (!types || json_is_null(types)) return 0;
    if (!json_is_array(types) || json_array_size(types) != (size_t)c->n_layers) {
        snprintf(expected, sizeof expected, "a list of %d layers", c->n_layers);
        return wrong(name, "layer_types", expected, types, err);
    }
    for (int i = 0; i < c->n_layers; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        const char *wanted = i % 2 ? "full_attention" : "sliding_attention";
        if (type && !strcmp(type, wanted)) continue;
        snprintf(key, sizeof key, "layer_types[%d]", i);
        snprintf(expected, sizeof expected, "\"%s\"", wanted);
        return wrong(name, key, expected, json_array_get(types, (size_t)i), err);
    }
    return 0;
}

static int read_root(const char *name, const json_t *root, struct pva_model_config *c, struct pva_error *err) {
    memset(c, 0, sizeof *c);
    if (read_architecture(name, root, c, err)) return err->code;
    if (get_int(name, root, "num_hidden_layers", -1, MAX_LAYERS, &c->n_layers, err) ||
        get_int(name, root, "hidden_size", -1, MAX_WIDTH, &c->d_model, err) ||
        get_int(name, root, "intermediate_size", -1, MAX_WIDTH, &c->d_ff, err) ||
        get_int(name, root, "num_attention_heads", -1, MAX_HEADS, &c->n_heads, err) ||
        get_int(name, root, "num_key_value_heads", -1, MAX_HEADS, &c->n_kv_heads, err) ||
        get_int(name, root, "head_dim", -1, MAX_D_HEAD, &c->d_head, err) ||
        get_int(name, root, "vocab_size", -1, MAX_VOCAB, &c->n_vocab, err) ||
        get_int(name, root, "max_position_embeddings", 8192, MAX_POSITIONS, &c->max_positions, err) ||
        get_int(name, root, "sliding_window", 4096, MAX_POSITIONS, &c->window, err))
        return err->code;
    if (get_real(name, root, "query_pre_attn_scalar", 256, 0, &c->query_pre_attn_scalar, err) ||
        get_real(name, root, "attn_logit_softcapping", 50, 1, &c->attn_softcap, err) ||
        get_real(name, root, "final_logit_softcapping", 30, 1, &c->final_softcap, err) ||
        get_real(name, root, "rms_norm_eps", 1e-6, 0, &c->rms_eps, err) || read_rope(name, root, c, err))
        return err->code;

    const json_t *eos = json_object_get(root, "eos_token_id");
    c->n_eos = 1;
    c->eos_ids[0] = 1;
    if (get_id(name, root, "bos_token_id", 2, &c->bos_id, err) || get_id(name, root, "pad_token_id", 0, &c->pad_id, err) ||
        (eos && get_eos(name, eos, c, err)))
        return err->code;
    if (read_activation(name, root, c, err) || read_dtype(name, root, c, err)) return err->code;
    if (expect_flag(name, root, "tie_word_embeddings", 1, err) || expect_flag(name, root, "attention_bias", 0, err) ||
        expect_flag(name, root, "use_bidirectional_attention", 0, err) || expect_flag(name, root, "is_encoder_decoder", 0, err) ||
        expect_absent(name, root, "quantization_config", err))
        return err->code;
    if (check_layer_types(name, root, c, err)) return err->code;
    return pva_model_config_check(name, c, err);
}

/* ---- public ---- */

static int in_range(const char *name, const char *what, int value, int max, struct pva_error *err) {
    if (value >= 1 && value <= max) return 0;
    return pva_fail(err, PVA_INPUT, "%s: %s is %d, expected 1 to %d", name, what, value, max);
}

static int is_id(const char *name, const char *what, int id, const struct pva_model_config *c, struct pva_error *err) {
    if (id >= -1 && id < c->n_vocab) return 0;
    return pva_fail(err, PVA_INPUT, "%s: %s is %d, expected less than vocab_size %d", name, what, id, c->n_vocab);
}

int pva_model_config_check(const char *name, const struct pva_model_config *c, struct pva_error *err) {
    if (in_range(name, "num_hidden_layers", c->n_layers, MAX_LAYERS, err) ||
        in_range(name, "hidden_size", c->d_model, MAX_WIDTH, err) ||
        in_range(name, "intermediate_size", c->d_ff, MAX_WIDTH, err) ||
        in_range(name, "num_attention_heads", c->n_heads, MAX_HEADS, err) ||
        in_range(name, "num_key_value_heads", c->n_kv_heads, MAX_HEADS, err) ||
        in_range(name, "head_dim", c->d_head, MAX_D_HEAD, err) || in_range(name, "vocab_size", c->n_vocab, MAX_VOCAB, err) ||
        in_range(name, "max_position_embeddings", c->max_positions, MAX_POSITIONS, err) ||
        in_range(name, "sliding_window", c->window, MAX_POSITIONS, err))
        return err->code;
    if (c->n_heads % c->n_kv_heads)
        return pva_fail(err, PVA_INPUT, "%s: num_attention_heads is %d, expected a multiple of num_key_value_heads %d", name,
                        c->n_heads, c->n_kv_heads);
    if (c->d_head % 2)
        return pva_fail(err, PVA_INPUT, "%s: head_dim is %d, expected an even number: RoPE rotates halves", name, c->d_head);
    if (c->n_heads * c->d_head > MAX_WIDTH)
        return pva_fail(err, PVA_INPUT, "%s: num_attention_heads * head_dim is %d, expected at most %d", name,
                        c->n_heads * c->d_head, MAX_WIDTH);
    const struct {
        const char *what;
        double value;
        int may_be_zero;
    } reals[] = {{"query_pre_attn_scalar", c->query_pre_attn_scalar, 0},
                 {"attn_logit_softcapping", c->attn_softcap, 1},
                 {"final_logit_softcapping", c->final_softcap, 1},
                 {"rms_norm_eps", c->rms_eps, 0},
                 {"rope_theta", c->rope_theta, 0}};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        /* The arithmetic is float32: what vanishes or overflows there is not usable. */
        float f = (float)reals[i].value;
        if (!(isfinite(f) && (f > 0 || (reals[i].may_be_zero && reals[i].value == 0))))
            return pva_fail(err, PVA_INPUT, "%s: %s is %g, expected a positive float32", name, reals[i].what, reals[i].value);
    }
    if (c->n_eos < 0 || c->n_eos > PVA_MAX_EOS)
        return pva_fail(err, PVA_INPUT, "%s: %d end-of-text tokens, expected at most %d", name, c->n_eos, PVA_MAX_EOS);
    if (is_id(name, "bos_token_id", c->bos_id, c, err) || is_id(name, "pad_token_id", c->pad_id, c, err)) return err->code;
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos_ids[i] < 0 || is_id(name, "eos_token_id", c->eos_ids[i], c, err))
            return pva_fail(err, PVA_INPUT, "%s: eos_token_id is %d, expected 0 or more", name, c->eos_ids[i]);
    return 0;
}

int pva_model_config_parse(const char *name, const char *json, size_t n_bytes, struct pva_model_config *out,
                           struct pva_error *err) {
    json_error_t why;
    json_t *root = json_loadb(json, n_bytes, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return pva_fail(err, PVA_INPUT, "%s: line %d, column %d: not valid JSON: %s", name, why.line, why.column, why.text);
    if (!json_is_object(root)) pva_fail(err, PVA_INPUT, "%s: expected a JSON object {...}", name);
    else read_root(name, root, out, err);
    json_decref(root);
    return err->code;
}

static int read_generation_config(const char *path, struct pva_model_config *c, struct pva_error *err) {
    json_t *root = NULL;
    if (file_read_json(path, MAX_CONFIG, &root, err)) return err->code;
    const json_t *eos = json_object_get(root, "eos_token_id");
    if (eos && !json_is_null(eos) && !get_eos(path, eos, c, err)) pva_model_config_check(path, c, err);
    json_decref(root);
    return err->code;
}

int pva_model_config_read(const char *path, struct pva_model_config *out, struct pva_error *err) {
    int directory = file_is_directory(path);
    char *config = directory ? file_join(path, "config.json") : strdup(path);
    char *generation = directory ? file_join(path, "generation_config.json") : NULL;
    json_t *root = NULL;
    if (!config || (directory && !generation)) pva_fail(err, PVA_IO, "%s: out of memory", path);
    else if (!file_read_json(config, MAX_CONFIG, &root, err)) read_root(config, root, out, err);
    if (!err->code && generation && file_exists(generation)) read_generation_config(generation, out, err);
    json_decref(root);
    free(config);
    free(generation);
    return err->code;
}

int pva_model_config_preset(const char *name, struct pva_model_config *out, struct pva_error *err) {
    static const struct {
        const char *name;
        int n_layers, d_model, d_ff, n_heads, n_kv_heads, d_head;
        double query_pre_attn_scalar;
    } presets[] = {
        {"gemma-2-2b", 26, 2304, 9216, 8, 4, 256, 256},
        {"gemma-2-9b", 42, 3584, 14336, 16, 8, 256, 256},
        {"gemma-2-27b", 46, 4608, 36864, 32, 16, 128, 144},
    };
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        if (strcmp(name, presets[i].name)) continue;
        *out = (struct pva_model_config){
            .architecture = "Gemma2ForCausalLM",
            .n_layers = presets[i].n_layers,
            .d_model = presets[i].d_model,
            .d_ff = presets[i].d_ff,
            .n_heads = presets[i].n_heads,
            .n_kv_heads = presets[i].n_kv_heads,
            .d_head = presets[i].d_head,
            .n_vocab = 256000,
            .max_positions = 8192,
            .window = 4096,
            .query_pre_attn_scalar = presets[i].query_pre_attn_scalar,
            .attn_softcap = 50,
            .final_softcap = 30,
            .rms_eps = 1e-6,
            .rope_theta = 10000,
            .bos_id = 2,
            .pad_id = 0,
            .n_eos = 1,
            .eos_ids = {1},
            .hidden_activation = "gelu_pytorch_tanh",
            .torch_dtype = "float32",
        };
        return 0;
    }
    return pva_fail(err, PVA_USAGE, "unknown model shape %.100s, expected gemma-2-2b, gemma-2-9b, gemma-2-27b or a config.json",
                    name);
}

static json_t *id_or_null(int id) { return id < 0 ? json_null() : json_integer(id); }

static json_t *real_or_null(double value) { return value > 0 ? json_real(value) : json_null(); }

static json_t *eos_value(const struct pva_model_config *c) {
    if (c->n_eos == 0) return json_null();
    if (c->n_eos == 1) return json_integer(c->eos_ids[0]);
    json_t *list = json_array();
    for (int i = 0; i < c->n_eos; i++) json_array_append_new(list, json_integer(c->eos_ids[i]));
    return list;
}

int pva_model_config_write(const struct pva_model_config *c, const char *directory, struct pva_error *err) {
    char *config = file_join(directory, "config.json"), *generation = file_join(directory, "generation_config.json");
    json_t *root =
        json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:o, s:o, s:f, s:f, s:o, s:o, s:o, s:s, s:s, "
                  "s:s, s:b, s:b}",
                  "architectures", c->architecture, "model_type", "gemma2", "num_hidden_layers", c->n_layers, "hidden_size",
                  c->d_model, "intermediate_size", c->d_ff, "num_attention_heads", c->n_heads, "num_key_value_heads",
                  c->n_kv_heads, "head_dim", c->d_head, "vocab_size", c->n_vocab, "max_position_embeddings", c->max_positions,
                  "sliding_window", c->window, "query_pre_attn_scalar", c->query_pre_attn_scalar, "attn_logit_softcapping",
                  real_or_null(c->attn_softcap), "final_logit_softcapping", real_or_null(c->final_softcap), "rms_norm_eps",
                  c->rms_eps, "rope_theta", c->rope_theta, "bos_token_id", id_or_null(c->bos_id), "eos_token_id", eos_value(c),
                  "pad_token_id", id_or_null(c->pad_id), "hidden_activation", c->hidden_activation, "hidden_act",
                  c->hidden_activation, "torch_dtype", c->torch_dtype, "tie_word_embeddings", 1, "attention_bias", 0);
    json_t *sampling = json_pack("{s:b, s:o, s:o, s:o}", "_from_model_config", 1, "bos_token_id", id_or_null(c->bos_id),
                                 "eos_token_id", eos_value(c), "pad_token_id", id_or_null(c->pad_id));
    if (!config || !generation || !root || !sampling) pva_fail(err, PVA_IO, "%s: out of memory", directory);
    else if (!file_write_json(config, root, err)) file_write_json(generation, sampling, err);
    json_decref(root);
    json_decref(sampling);
    free(config);
    free(generation);
    return err->code;
}
