#include "engine.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

const struct pva_option pva_engine_options[] = {
    {"model", PVA_OPT_TEXT, "DIR", NULL, "model directory: config.json, safetensors, tokenizer.model", NULL, 0, 0},
    {"dtype", PVA_OPT_CHOICE, "TYPE", "bf16", "operand type of matrix products", "bf16|f32", 0, 0},
    {"backend", PVA_OPT_CHOICE, "NAME", "auto", "where to compute", "auto|cpu|cuda", 0, 0},
    {"threads", PVA_OPT_INT, "N", "0", "CPU threads; 0: as many as this process may use", NULL, 0, 4096},
    {"isa", PVA_OPT_CHOICE, "SET", NULL, "CPU instruction set, instead of the best one", "c|avx2|avx512|avx512bf16|amx", 0, 0},
    {"gpu-memory", PVA_OPT_BYTES, "SIZE", NULL, "device memory this process may take", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

double engine_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int engine_open_backend(const struct pva_options *o, struct engine *e, struct pva_error *err) {
    struct pva_backend_settings settings = {
        .n_threads = (int)pva_options_int(o, "threads"),
        .memory_limit = pva_options_bytes(o, "gpu-memory"),
        .isa = pva_options_text(o, "isa"),
    };
    memset(e, 0, sizeof *e);
    e->ops = pva_backend_find(pva_options_text(o, "backend"), err);
    if (!e->ops) return err->code;
    if (!strcmp(e->ops->name, "cpu")) settings.memory_limit = 0;
    return e->ops->open(&settings, &e->be, err);
}

int engine_open(const struct pva_options *o, int needs_tokenizer, struct engine *e, struct pva_error *err) {
    double start = engine_now();
    memset(e, 0, sizeof *e);
    if (pva_options_require(o, "model", err) || engine_open_backend(o, e, err)) return err->code;
    const char *directory = pva_options_text(o, "model");
    enum pva_dtype dtype = strcmp(pva_options_text(o, "dtype"), "f32") ? PVA_BF16 : PVA_F32;
    if (pva_model_open(directory, e->ops, e->be, dtype, &e->model, err)) return err->code;
    struct pva_error missing = {0};
    if (pva_tokenizer_open(directory, &e->tokenizer, needs_tokenizer ? err : &missing) && needs_tokenizer) return err->code;
    if (e->tokenizer && pva_tokenizer_n_vocab(e->tokenizer) > pva_model_get_config(e->model)->n_vocab)
        return pva_fail(err, PVA_INPUT, "%s: tokenizer.model has %d tokens, the model's vocabulary %d: they do not belong together", directory,
                        pva_tokenizer_n_vocab(e->tokenizer), (int)pva_model_get_config(e->model)->n_vocab);
    e->open_seconds = engine_now() - start;
    return PVA_OK;
}

void engine_close(struct engine *e) {
    pva_tokenizer_close(&e->tokenizer);
    pva_model_close(&e->model);
    if (e->be) e->ops->close(&e->be);
}

int engine_encode_prompt(const struct engine *e, const char *text, size_t n_bytes, int32_t **ids, size_t *n, struct pva_error *err) {
    int32_t *plain = NULL;
    size_t n_plain = 0;
    if (!e->tokenizer) return pva_fail(err, PVA_INPUT, "a text needs tokenizer.model in the model directory; token ids do not");
    if (pva_tokenizer_encode(e->tokenizer, text, n_bytes, &plain, &n_plain, err)) return err->code;
    *ids = malloc((n_plain + 1) * sizeof **ids);
    if (!*ids) {
        free(plain);
        return pva_fail(err, PVA_IO, "out of memory");
    }
    (*ids)[0] = (int32_t)pva_model_get_config(e->model)->bos_id;
    memcpy(*ids + 1, plain, n_plain * sizeof *plain);
    *n = n_plain + 1;
    free(plain);
    return PVA_OK;
}
