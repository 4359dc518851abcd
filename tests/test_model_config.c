#include "pva/model_config.h"
#include "check.h"
#include "scratch.h"

/* A small model as the hub writes it. Each case below changes one line of it. */
static const char *const small[] = {
    "\"architectures\": [\"Gemma2ForCausalLM\"]",
    "\"model_type\": \"gemma2\"",
    "\"num_hidden_layers\": 3",
    "\"hidden_size\": 48",
    "\"intermediate_size\": 96",
    "\"num_attention_heads\": 4",
    "\"num_key_value_heads\": 2",
    "\"head_dim\": 16",
    "\"vocab_size\": 512",
    "\"max_position_embeddings\": 128",
    "\"sliding_window\": 8",
    "\"query_pre_attn_scalar\": 144",
    "\"attn_logit_softcapping\": 50.0",
    "\"final_logit_softcapping\": 30.0",
    "\"rms_norm_eps\": 1e-06",
    "\"rope_theta\": 10000.0",
    "\"bos_token_id\": 2",
    "\"eos_token_id\": [1, 107]",
    "\"pad_token_id\": 0",
    "\"hidden_act\": \"gelu_pytorch_tanh\"",
    "\"hidden_activation\": \"gelu_pytorch_tanh\"",
    "\"torch_dtype\": \"float32\"",
    "\"attention_dropout\": 0.0",
    "\"cache_implementation\": \"hybrid\"",
    "\"transformers_version\": \"4.42.0.dev0\"",
    "\"use_cache\": true",
};
enum { N_LINES = sizeof small / sizeof *small };

/* `change` replaces the line with the same key, or is added; a key alone (`"head_dim"`) removes the line. */
static char *with(const char *change) {
    static char json[4000];
    const char *end = change ? strchr(change + 1, '"') : NULL;
    size_t key = end ? (size_t)(end - change) + 1 : 0;
    int removal = key && !change[key];
    char *at = json + sprintf(json, "{\n");
    int n = 0;
    for (int i = 0; i < N_LINES; i++)
        if (!key || strncmp(small[i], change, key)) at += sprintf(at, "%s  %s", n++ ? ",\n" : "", small[i]);
    if (key && !removal) at += sprintf(at, "%s  %s", n ? ",\n" : "", change);
    sprintf(at, "\n}\n");
    return json;
}

static int parse(const char *json, struct pva_model_config *c, struct pva_error *err) {
    return pva_model_config_parse("config.json", json, strlen(json), c, err);
}

static const struct {
    const char *change, *message;
} bad[] = {
    {"\"architectures\": [\"LlamaForCausalLM\"]", "architectures is [\"LlamaForCausalLM\"], expected one of: Gemma2ForCausalLM"},
    {"\"architectures\": [\"Gemma2ForCausalLM\", \"X\"]", "expected one of: Gemma2ForCausalLM"},
    {"\"architectures\": \"Gemma2ForCausalLM\"", "expected one of: Gemma2ForCausalLM"},
    {"\"architectures\"", "architectures is missing, expected one of: Gemma2ForCausalLM (gemma-2-2b, -9b, -27b"},
    {"\"model_type\": \"gemma3\"", "model_type is \"gemma3\", expected \"gemma2\""},
    {"\"num_hidden_layers\"", "num_hidden_layers is missing, expected a whole number from 1 to 1024"},
    {"\"num_hidden_layers\": 0", "num_hidden_layers is 0, expected a whole number"},
    {"\"num_hidden_layers\": 1025", "num_hidden_layers is 1025"},
    {"\"num_hidden_layers\": 3.0", "num_hidden_layers is 3.0, expected a whole number"},
    {"\"hidden_size\": -48", "hidden_size is -48"},
    {"\"hidden_size\": \"48\"", "hidden_size is \"48\""},
    {"\"hidden_size\": 1099511627776", "hidden_size is 1099511627776, expected a whole number from 1 to 1048576"},
    {"\"hidden_size\": null", "hidden_size is null"},
    {"\"intermediate_size\": true", "intermediate_size is true"},
    {"\"intermediate_size\"", "intermediate_size is missing"},
    {"\"num_attention_heads\": 5", "num_attention_heads is 5, expected a multiple of num_key_value_heads 2"},
    {"\"num_key_value_heads\": 8", "num_attention_heads is 4, expected a multiple of num_key_value_heads 8"},
    {"\"num_key_value_heads\"", "num_key_value_heads is missing"},
    {"\"head_dim\": 15", "head_dim is 15, expected an even number"},
    {"\"head_dim\"", "head_dim is missing"},
    {"\"vocab_size\": 0", "vocab_size is 0"},
    {"\"vocab_size\": 100", "eos_token_id is 107, expected less than vocab_size 100"},
    {"\"max_position_embeddings\": 0", "max_position_embeddings is 0"},
    {"\"sliding_window\": 0", "sliding_window is 0"},
    {"\"sliding_window\": null", "sliding_window is null"},
    {"\"query_pre_attn_scalar\": 0", "query_pre_attn_scalar is 0, expected a positive number"},
    {"\"query_pre_attn_scalar\": 1e-60", "query_pre_attn_scalar is 1e-60, expected a positive float32"},
    {"\"attn_logit_softcapping\": -50", "attn_logit_softcapping is -50, expected a positive number or null"},
    {"\"attn_logit_softcapping\": false", "attn_logit_softcapping is false"},
    {"\"final_logit_softcapping\": 0", "final_logit_softcapping is 0, expected a positive number or null"},
    {"\"rms_norm_eps\": 0.0", "rms_norm_eps is 0.0"},
    {"\"rms_norm_eps\": null", "rms_norm_eps is null"},
    {"\"rope_theta\": \"big\"", "rope_theta is \"big\""},
    {"\"rope_theta\": 1e300", "rope_theta is 1e+300, expected a positive float32"},
    {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}", "rope_scaling is {\"type\":\"linear\""},
    {"\"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 10000.0}", "rope_parameters is {\"rope_type\":\"yarn\""},
    {"\"rope_parameters\": 7", "rope_parameters is 7"},
    {"\"bos_token_id\": 512", "bos_token_id is 512, expected less than vocab_size 512"},
    {"\"bos_token_id\": -2", "bos_token_id is -2, expected a token id or null"},
    {"\"pad_token_id\": 1.5", "pad_token_id is 1.5"},
    {"\"eos_token_id\": []", "eos_token_id is [], expected one token id or a list"},
    {"\"eos_token_id\": [1, \"x\"]", "eos_token_id is [1,\"x\"]"},
    {"\"eos_token_id\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "expected one token id or a list of 1 to 16"},
    {"\"eos_token_id\": -1", "eos_token_id is -1"},
    {"\"hidden_activation\": \"relu\"", "hidden_activation is \"relu\", expected \"gelu_pytorch_tanh\""},
    {"\"hidden_activation\": \"gelu\"", "hidden_activation is \"gelu\", expected \"gelu_pytorch_tanh\""},
    {"\"torch_dtype\": \"int8\"", "torch_dtype is \"int8\", expected \"float32\", \"bfloat16\" or \"float16\""},
    {"\"torch_dtype\": 32", "torch_dtype is 32"},
    {"\"tie_word_embeddings\": false", "tie_word_embeddings is false, expected true"},
    {"\"attention_bias\": true", "attention_bias is true, expected false"},
    {"\"attention_bias\": 0", "attention_bias is 0, expected false"},
    {"\"use_bidirectional_attention\": true", "use_bidirectional_attention is true"},
    {"\"is_encoder_decoder\": true", "is_encoder_decoder is true"},
    {"\"quantization_config\": {\"bits\": 4}", "quantization_config is {\"bits\":4}, expected nothing"},
    {"\"layer_types\": [\"sliding_attention\", \"full_attention\"]",
     "layer_types is [\"sliding_attention\",\"full_attention\"], expected a list of 3"},
    {"\"layer_types\": [\"full_attention\", \"sliding_attention\", \"full_attention\"]",
     "layer_types[0] is \"full_attention\", expected \"sliding_attention\""},
    {"\"layer_types\": [\"sliding_attention\", 1, \"sliding_attention\"]", "layer_types[1] is 1, expected \"full_attention\""},
    {"\"head_dim\": 16, \"head_dim\": 32", "duplicate object key"},
};

static void test_bad(void) {
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct pva_error err = {0};
        struct pva_model_config c;
        int status = parse(with(bad[i].change), &c, &err);
        if (status != PVA_INPUT) fprintf(stderr, "%s: accepted\n", bad[i].change);
        CHECK_INT(status, PVA_INPUT);
        CHECK_HAS(err.msg, bad[i].message);
        CHECK_HAS(err.msg, "config.json: ");
    }
    static const char *const not_json[] = {"", "{", "[]", "3", "null", "{\"a\": }", "\xff\xfe", "{} {}"};
    for (size_t i = 0; i < sizeof not_json / sizeof *not_json; i++) {
        struct pva_error err = {0};
        struct pva_model_config c;
        CHECK_INT(parse(not_json[i], &c, &err), PVA_INPUT);
        CHECK_HAS(err.msg, "JSON");
    }
}

static void test_good(void) {
    struct pva_error err = {0};
    struct pva_model_config c;
    CHECK_OK(parse(with(NULL), &c, &err), err);
    CHECK_TEXT(c.architecture, "Gemma2ForCausalLM");
    CHECK_INT(c.n_layers, 3);
    CHECK_INT(c.d_model, 48);
    CHECK_INT(c.d_ff, 96);
    CHECK_INT(c.n_heads, 4);
    CHECK_INT(c.n_kv_heads, 2);
    CHECK_INT(c.d_head, 16);
    CHECK_INT(c.n_vocab, 512);
    CHECK_INT(c.max_positions, 128);
    CHECK_INT(c.window, 8);
    CHECK(c.query_pre_attn_scalar == 144 && c.attn_softcap == 50 && c.final_softcap == 30 && c.rms_eps == 1e-6 &&
          c.rope_theta == 10000);
    CHECK_INT(c.bos_id, 2);
    CHECK_INT(c.pad_id, 0);
    CHECK_INT(c.n_eos, 2);
    CHECK_INT(c.eos_ids[1], 107);
    CHECK_TEXT(c.hidden_activation, "gelu_pytorch_tanh");
    CHECK_TEXT(c.torch_dtype, "float32");

    /* Absent keys with a default; null where transformers gives it a meaning. */
    const char *least =
        "{\"architectures\":[\"Gemma2ForCausalLM\"],\"num_hidden_layers\":1,\"hidden_size\":2304,\"intermediate_size\":9216,"
        "\"num_attention_heads\":8,\"num_key_value_heads\":4,\"head_dim\":256,\"vocab_size\":256000}";
    CHECK_OK(parse(least, &c, &err), err);
    CHECK(c.max_positions == 8192 && c.window == 4096 && c.query_pre_attn_scalar == 256 && c.attn_softcap == 50 &&
          c.final_softcap == 30);
    CHECK(c.rms_eps == 1e-6 && c.rope_theta == 10000 && c.bos_id == 2 && c.pad_id == 0 && c.n_eos == 1 && c.eos_ids[0] == 1);
    CHECK_TEXT(c.torch_dtype, "float32");
    CHECK_OK(parse(with("\"attn_logit_softcapping\": null"), &c, &err), err);
    CHECK(c.attn_softcap == 0);
    CHECK_OK(parse(with("\"final_logit_softcapping\": null"), &c, &err), err);
    CHECK(c.final_softcap == 0);
    CHECK_OK(parse(with("\"eos_token_id\": 1"), &c, &err), err);
    CHECK(c.n_eos == 1 && c.eos_ids[0] == 1);
    CHECK_OK(parse(with("\"eos_token_id\": null"), &c, &err), err);
    CHECK_INT(c.n_eos, 0);
    CHECK_OK(parse(with("\"bos_token_id\": null"), &c, &err), err);
    CHECK_INT(c.bos_id, -1);

    static const char *const accepted[] = {
        "\"hidden_activation\"",
        "\"hidden_activation\": null",
        "\"hidden_act\"",
        "\"model_type\"",
        "\"torch_dtype\"",
        "\"torch_dtype\": null",
        "\"tie_word_embeddings\": true",
        "\"tie_word_embeddings\": null",
        "\"attention_bias\": false",
        "\"quantization_config\": null",
        "\"rope_scaling\": null",
        "\"use_bidirectional_attention\": null",
        "\"layer_types\": null",
        "\"layer_types\": [\"sliding_attention\", \"full_attention\", \"sliding_attention\"]",
        "\"unheard_of\": {\"a\": [1, 2]}",
    };
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        CHECK_OK(parse(with(accepted[i]), &c, &err), err);
        CHECK_TEXT(c.hidden_activation, "gelu_pytorch_tanh");
    }
    CHECK_OK(parse(with("\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 5000.0}"), &c, &err), err);
    CHECK(c.rope_theta == 5000);
    CHECK_OK(parse(with("\"torch_dtype\": \"bfloat16\""), &c, &err), err);
    CHECK_TEXT(c.torch_dtype, "bfloat16");
    char *json = with("\"torch_dtype\""); /* newer files say dtype */
    strcpy(strrchr(json, '\n') - 2, ",\n\"dtype\": \"bfloat16\"}");
    CHECK_OK(parse(json, &c, &err), err);
    CHECK_TEXT(c.torch_dtype, "bfloat16");

    /* Early files have hidden_act alone, and "gelu" there means the tanh form. */
    json = with("\"hidden_activation\"");
    char *act = strstr(json, "gelu_pytorch_tanh");
    CHECK_FATAL(act != NULL);
    memcpy(act, "gelu\",\"x\":\"....", 15);
    CHECK_OK(parse(json, &c, &err), err);
    memcpy(act, "silu", 4);
    CHECK_INT(parse(json, &c, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "hidden_act is \"silu\"");
}

static void test_files(void) {
    struct pva_error err = {0};
    struct pva_model_config c, back;
    CHECK_OK(parse(with(NULL), &c, &err), err);
    c.rms_eps = 1.25e-5;
    c.final_softcap = 0;
    c.bos_id = -1;
    CHECK_OK(pva_model_config_write(&c, scratch_directory, &err), err);
    CHECK_OK(pva_model_config_read(scratch_directory, &back, &err), err);
    CHECK(!memcmp(&c, &back, sizeof c));
    CHECK_OK(pva_model_config_read(scratch("config.json"), &back, &err), err);
    CHECK(!memcmp(&c, &back, sizeof c));

    /* What ends a text is said by generation_config.json, when it says so. */
    static const struct {
        const char *json;
        int n_eos, last;
    } generation[] = {{"{\"eos_token_id\": [1, 107, 3]}", 3, 3},
                      {"{\"eos_token_id\": 5}", 1, 5},
                      {"{}", 2, 107},
                      {"{\"eos_token_id\": null}", 2, 107}};
    for (size_t i = 0; i < sizeof generation / sizeof *generation; i++) {
        scratch_write("generation_config.json", generation[i].json, strlen(generation[i].json));
        CHECK_OK(pva_model_config_read(scratch_directory, &back, &err), err);
        CHECK_INT(back.n_eos, generation[i].n_eos);
        CHECK_INT(back.eos_ids[back.n_eos - 1], generation[i].last);
    }
    static const char *const broken[] = {"{", "{\"eos_token_id\": 512}", "{\"eos_token_id\": \"</s>\"}", "[1]"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct pva_error e = {0};
        scratch_write("generation_config.json", broken[i], strlen(broken[i]));
        CHECK_INT(pva_model_config_read(scratch_directory, &back, &e), PVA_INPUT);
        CHECK_HAS(e.msg, "generation_config.json: ");
    }
    struct pva_error e = {0};
    CHECK_INT(pva_model_config_read(scratch("elsewhere"), &back, &e), PVA_INPUT);
    CHECK_HAS(e.msg, "elsewhere: cannot open");
    CHECK_FATAL(mkdir(scratch("bare"), 0700) == 0);
    e = (struct pva_error){0};
    CHECK_INT(pva_model_config_read(scratch("bare"), &back, &e), PVA_INPUT);
    CHECK_HAS(e.msg, "bare/config.json: cannot open");
    e = (struct pva_error){0};
    CHECK_INT(pva_model_config_write(&c, scratch("absent"), &e), PVA_IO);
}

/* Published parameter counts: 2.614, 9.242 and 27.227 billion. */
static void test_presets(void) {
    static const struct {
        const char *name;
        int n_layers;
        int64_t n_parameters;
    } presets[] = {{"gemma-2-2b", 26, 2614341888}, {"gemma-2-9b", 42, 9241705984}, {"gemma-2-27b", 46, 27227128320}};
    struct pva_error err = {0};
    struct pva_model_config c;
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        CHECK_OK(pva_model_config_preset(presets[i].name, &c, &err), err);
        CHECK_OK(pva_model_config_check(presets[i].name, &c, &err), err);
        CHECK_INT(c.n_layers, presets[i].n_layers);
        CHECK_INT(pva_model_config_n_parameters(&c), presets[i].n_parameters);
        CHECK(c.query_pre_attn_scalar == (i == 2 ? 144 : 256));
    }
    CHECK_INT(pva_model_config_preset("gemma-3-4b", &c, &err), PVA_USAGE);
    CHECK_HAS(err.msg, "expected gemma-2-2b, gemma-2-9b, gemma-2-27b or a config.json");
}

static void test_table(void) {
    struct pva_error err = {0};
    struct pva_model_config c;
    struct pva_model_tensor t;
    CHECK_OK(parse(with(NULL), &c, &err), err);
    static const struct {
        const char *name;
        int64_t rows, cols;
    } layer[] = {
        {"input_layernorm.weight", 48, 0},
        {"self_attn.q_proj.weight", 64, 48},
        {"self_attn.k_proj.weight", 32, 48},
        {"self_attn.v_proj.weight", 32, 48},
        {"self_attn.o_proj.weight", 48, 64},
        {"post_attention_layernorm.weight", 48, 0},
        {"pre_feedforward_layernorm.weight", 48, 0},
        {"mlp.gate_proj.weight", 96, 48},
        {"mlp.up_proj.weight", 96, 48},
        {"mlp.down_proj.weight", 48, 96},
        {"post_feedforward_layernorm.weight", 48, 0},
    };
    CHECK_INT(pva_model_config_n_tensors(&c), 2 + 3 * 11);
    for (int i = 0; i < pva_model_config_n_tensors(&c); i++) {
        char name[100];
        pva_model_config_tensor(&c, i, &t);
        CHECK_INT(pva_model_config_tensor_find(&c, t.name), i);
        CHECK_INT(pva_model_config_tensor_index(&c, t.role, t.layer), i);
        if (i == 0) {
            CHECK_TEXT(t.name, "model.embed_tokens.weight");
            CHECK(t.role == PVA_EMBED && t.layer == -1 && t.n_dims == 2 && t.shape[0] == 512 && t.shape[1] == 48);
        } else if (i == 34) {
            CHECK_TEXT(t.name, "model.norm.weight");
            CHECK(t.role == PVA_FINAL_NORM && t.layer == -1 && t.n_dims == 1 && t.shape[0] == 48 && t.n_elements == 48);
        } else {
            int k = (i - 1) % 11;
            snprintf(name, sizeof name, "model.layers.%d.%s", (i - 1) / 11, layer[k].name);
            CHECK_TEXT(t.name, name);
            CHECK_INT(t.layer, (i - 1) / 11);
            CHECK_INT(t.n_dims, layer[k].cols ? 2 : 1);
            CHECK_INT(t.shape[0], layer[k].rows);
            CHECK_INT(t.n_elements, layer[k].rows * (layer[k].cols ? layer[k].cols : 1));
        }
    }
    static const char *const strangers[] = {
        "",
        "lm_head.weight",
        "model.layers.3.mlp.up_proj.weight",
        "model.layers.-1.mlp.up_proj.weight",
        "model.layers.00.mlp.up_proj.weight",
        "model.layers.99999999999999999999.mlp.up_proj.weight",
        "model.layers.1.mlp.up_proj",
        "model.layers..mlp.up_proj.weight",
        "model.layers.1mlp.up_proj.weight",
        "model.layers.1.model.norm.weight",
        "model.norm.weight2",
        "MODEL.norm.weight",
    };
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++)
        CHECK_INT(pva_model_config_tensor_find(&c, strangers[i]), -1);
}

int main(void) {
    scratch_make();
    test_bad();
    test_good();
    test_files();
    test_presets();
    test_table();
    return check_report("model_config");
}
