#include "engine.h"

#include "device.h"

#include <errno.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const struct pva_option pva_engine_options[] = {
    {"model", PVA_OPT_TEXT, "DIR", NULL, "model directory: config.json, safetensors, tokenizer.model", NULL, 0, 0},
    {"dtype", PVA_OPT_CHOICE, "TYPE", "bf16", "operand type of matrix products", "bf16|f32", 0, 0},
    {"backend", PVA_OPT_CHOICE, "NAME", "auto", "where to compute", "auto|cpu|cuda", 0, 0},
    {"threads", PVA_OPT_INT, "N", "0", "CPU threads; 0: as many as this process may use", NULL, 0, 4096},
    {"isa", PVA_OPT_CHOICE, "SET", NULL, "instruction set, instead of the best one; portable: a GPU without its tensor cores", "c|avx2|avx512|avx512bf16|amx|portable", 0, 0},
    {"allow-shared-gpu", PVA_OPT_FLAG, NULL, "no", "several ranks of a node may compute on one GPU", NULL, 0, 0},
    {"gpu-memory", PVA_OPT_BYTES, "SIZE", NULL, "device memory this process may take", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

double engine_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static enum pva_dtype operand_of(const struct pva_options *o) { return strcmp(pva_options_text(o, "dtype"), "f32") ? PVA_BF16 : PVA_F32; }

static int open_backend(const struct par *p, const struct pva_options *o, int n_threads, struct engine *e, struct pva_error *err) {
    struct pva_backend_settings settings = {
        .n_threads = n_threads,
        .memory_limit = pva_options_bytes(o, "gpu-memory"),
        .isa = pva_options_text(o, "isa"),
    };
    memset(e, 0, sizeof *e);
    e->ops = pva_backend_find(pva_options_text(o, "backend"), err);
    if (!e->ops) return err->code;
    if (!strcmp(e->ops->name, "cpu")) settings.memory_limit = 0;
    if (p && e->ops->count &&
        device_choose(p->local_rank, p->local_size, e->ops->count(), pva_options_flag(o, "allow-shared-gpu"), &settings.device, err))
        return err->code;
    return e->ops->open(&settings, &e->be, err);
}

int engine_open_backend(const struct pva_options *o, struct engine *e, struct pva_error *err) {
    return open_backend(NULL, o, (int)pva_options_int(o, "threads"), e, err);
}

int engine_open_device(const struct par *p, const struct pva_options *o, struct engine *e, struct pva_error *err) {
    char mine[DEVICE_ID] = "", (*ids)[DEVICE_ID] = calloc((size_t)p->local_size, sizeof *ids);
    int threads = (int)pva_options_int(o, "threads"), gpu = 0;
    PVA_ASSERT(ids);
    if (!threads) threads = omp_get_max_threads() / p->local_size > 1 ? omp_get_max_threads() / p->local_size : 1;
    if (!open_backend(p, o, threads, e, err) && e->ops->count) {
        struct pva_backend_info info;
        e->ops->describe(e->be, &info);
        memcpy(mine, info.id, sizeof mine);
        gpu = 1;
    }
    /* A rank that failed says so by its empty name; the others go on and may fail in their turn. */
    PAR_CHECK(p, MPI_Allgather(mine, DEVICE_ID, MPI_CHAR, ids, DEVICE_ID, MPI_CHAR, p->node));
    if (gpu && !err->code) device_check(p->local_rank, p->local_size, (const char(*)[DEVICE_ID])ids, pva_options_flag(o, "allow-shared-gpu"), err);
    free(ids);
    if (err->code) engine_close(e);
    return err->code;
}

/* weights: --model itself, or a converted copy of it. */
static int open_model(const struct pva_options *o, const char *weights, int needs_tokenizer, struct engine *e, struct pva_error *err) {
    const char *directory = pva_options_text(o, "model");
    if (pva_model_open(weights, e->ops, e->be, operand_of(o), &e->model, err)) return err->code;
    struct pva_error missing = {0};
    if (pva_tokenizer_open(directory, &e->tokenizer, needs_tokenizer ? err : &missing) && needs_tokenizer) return err->code;
    if (e->tokenizer && pva_tokenizer_n_vocab(e->tokenizer) > pva_model_get_config(e->model)->n_vocab)
        return pva_fail(err, PVA_INPUT, "%s: tokenizer.model has %d tokens, the model's vocabulary %d: they do not belong together", directory,
                        pva_tokenizer_n_vocab(e->tokenizer), (int)pva_model_get_config(e->model)->n_vocab);
    return PVA_OK;
}

int engine_open(const struct pva_options *o, int needs_tokenizer, struct engine *e, struct pva_error *err) {
    double start = engine_now();
    memset(e, 0, sizeof *e);
    if (pva_options_require(o, "model", err) || engine_open_backend(o, e, err)) return err->code;
    open_model(o, pva_options_text(o, "model"), needs_tokenizer, e, err);
    e->open_seconds = engine_now() - start;
    return err->code;
}

static void remove_shared_copy(const char *directory) {
    static const char *const names[] = {"config.json", "generation_config.json", "model.safetensors", "model.safetensors.partial"};
    char path[512];
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        unlink(path);
    }
    rmdir(directory);
}

/* One converted copy for the node's ranks, made by the first of them. Removed by name as soon as all have mapped it. */
static void make_shared_copy(const struct pva_options *o, char *directory, size_t size, struct pva_error *err) {
    const char *places[] = {"/dev/shm", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp"};
    for (int i = 0; i < 2; i++) {
        struct pva_error why = {0};
        snprintf(directory, size, "%s/pva-weights-%ld-XXXXXX", places[i], (long)getuid());
        if (!mkdtemp(directory)) pva_fail(&why, PVA_IO, "%s: %s", directory, strerror(errno));
        else if (!pva_model_write_bf16(pva_options_text(o, "model"), directory, &why)) return;
        remove_shared_copy(directory);
        if (why.code != PVA_IO || i == 1) {
            *err = why;
            return;
        }
    }
}

int engine_open_shared(const struct par *p, const struct pva_options *o, int needs_tokenizer, struct engine *e, struct pva_error *err) {
    double start = engine_now();
    int needs = 0;
    char weights[256] = "";
    memset(e, 0, sizeof *e);
    pva_options_require(o, "model", err);
    if (par_agree(p, "start", err)) return err->code;
    if (!engine_open_device(p, o, e, err) && p->local_size > 1 && !strcmp(e->ops->name, "cpu"))
        pva_model_needs_conversion(pva_options_text(o, "model"), operand_of(o), &needs, err);
    if (par_agree(p, "open device", err)) return err->code;
    if (needs && p->local_rank == 0) make_shared_copy(o, weights, sizeof weights, err);
    if (par_agree(p, "convert weights", err)) return err->code;
    PAR_CHECK(p, MPI_Bcast(weights, sizeof weights, MPI_CHAR, 0, p->node));
    open_model(o, weights[0] ? weights : pva_options_text(o, "model"), needs_tokenizer, e, err);
    int status = par_agree(p, "load model", err);
    if (weights[0] && p->local_rank == 0) remove_shared_copy(weights);
    e->open_seconds = engine_now() - start;
    return status;
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
