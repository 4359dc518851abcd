/* bench: figures of this machine beside the limit measured on it in the same run. */
#include "bench.h"
#include "commands.h"
#include "engine.h"

#include "pva/session.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct pva_option pva_bench_options[] = {
    {"batch-size", PVA_OPT_INT, "N", "1", "sequences decoded at once", NULL, 1, 4096},
    {"prompt-tokens", PVA_OPT_INT, "N", "128", "length of each prompt", NULL, 1, 1 << 20},
    {"new-tokens", PVA_OPT_INT, "N", "16", "decode passes to time", NULL, 4, 1 << 20},
    {"hooks", PVA_OPT_FLAG, NULL, "no", "generate: also with a direction per sequence, and with every layer captured", NULL, 0, 0},
    {"repeats", PVA_OPT_INT, "N", "3", "prefill: passes to time; sae: encodings", NULL, 1, 1000},
    {"sae", PVA_OPT_TEXT, "PATH", NULL, "sae: an autoencoder; default: random weights, [2304, 16384]", NULL, 0, 0},
    {"run", PVA_OPT_TEXT, "DIR", ".", "store: a directory on the disk to measure", NULL, 0, 0},
    {"record-bytes", PVA_OPT_BYTES, "SIZE", "240K", "store: of one record; 26 layers of 2304 values", NULL, 0, 0},
    {"records", PVA_OPT_INT, "N", "1000", "store: records of all ranks", NULL, 1, 1e8},
    {"latents", PVA_OPT_INT, "N", "425984", "maxt: latents; 26 layers of 16,384", NULL, 1, 1e8},
    {"items", PVA_OPT_INT, "N", "489", "maxt: problems", NULL, 2, 16384},
    {"permutations", PVA_OPT_INT, "N", "10000", "maxt: label permutations", NULL, 1, 1e9},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* Bytes per second that all threads together read from memory: a sum over 1 GiB, best of 5 after one warm-up. */
static double read_bandwidth(int n_threads) {
    size_t n = (size_t)1 << 27;
    uint64_t *data = malloc(n * sizeof *data), sum = 0;
    double best = 0;
    if (!data) return 0;
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (size_t i = 0; i < n; i++) data[i] = i;
    for (int r = 0; r < 6; r++) {
        double start = engine_now();
#pragma omp parallel for num_threads(n_threads) schedule(static) reduction(+ : sum)
        for (size_t i = 0; i < n; i++) sum += data[i];
        double rate = (double)(n * sizeof *data) / (engine_now() - start);
        if (r && rate > best) best = rate;
    }
    if (sum == 42) fputs("", stderr); /* the sum is used, so that the loop stays */
    free(data);
    return best;
}

static struct pva_tensor whole(struct pva_buffer *b, enum pva_dtype dtype, int64_t rows, int64_t cols) {
    return (struct pva_tensor){b, 0, dtype, rows, cols};
}

/* Bytes per second that a GPU copies from its memory to its memory, read and written both counted: best of 5 rounds over 512 MiB after one warm-up. */
static int copy_bandwidth(const struct engine *e, double *rate, struct pva_error *err) {
    enum { COPIES = 10 };
    int64_t n = (int64_t)1 << 27;
    struct pva_buffer *from = NULL, *to = NULL;
    *rate = 0;
    if (!e->ops->alloc(e->be, (size_t)n * 4, &from, err) && !e->ops->alloc(e->be, (size_t)n * 4, &to, err))
        for (int r = 0; r < 6 && !e->ops->sync(e->be, err); r++) {
            double start = engine_now();
            for (int i = 0; i < COPIES && !err->code; i++) e->ops->convert(e->be, whole(from, PVA_F32, 1, n), whole(to, PVA_F32, 1, n), err);
            if (e->ops->sync(e->be, err)) break;
            double now = COPIES * 2.0 * (double)n * 4 / (engine_now() - start);
            if (r && now > *rate) *rate = now;
        }
    e->ops->free(e->be, &from);
    e->ops->free(e->be, &to);
    return err->code;
}

/* Operations per second of the backend's own matrix product at the model's largest shape and n rows: what prefill could reach if it were nothing
 * else. On a GPU many products are timed together, or it would be the time to start one. */
static int matrix_rate(const struct engine *e, int64_t n, double *rate, struct pva_error *err) {
    const struct pva_model_config *c = pva_model_get_config(e->model);
    int64_t k = c->d_model, m = c->d_ff;
    int products = e->ops->count ? 20 : 1;
    enum pva_dtype t = pva_model_dtype(e->model);
    struct pva_buffer *x = NULL, *w = NULL, *y = NULL;
    double seconds[7];
    if (!e->ops->alloc(e->be, (size_t)(n * k) * pva_dtype_size(t), &x, err) && !e->ops->alloc(e->be, (size_t)(m * k) * pva_dtype_size(t), &w, err) &&
        !e->ops->alloc(e->be, (size_t)(n * m) * sizeof(float), &y, err)) {
        for (int r = 0; r < 7 && !err->code; r++) {
            double start = engine_now();
            for (int i = 0; i < products && !err->code; i++) e->ops->linear(e->be, whole(x, t, n, k), whole(w, t, m, k), whole(y, PVA_F32, n, m), err);
            if (!err->code) e->ops->sync(e->be, err);
            seconds[r] = engine_now() - start;
        }
        *rate = products * 2.0 * (double)n * (double)k * (double)m / median(seconds + 1, 6);
    }
    e->ops->free(e->be, &x);
    e->ops->free(e->be, &w);
    e->ops->free(e->be, &y);
    return err->code;
}

struct bench {
    struct engine engine;
    struct pva_session *session;
    int64_t batch, prompt, rows;
    int32_t *tokens, *slots, *logit_rows;
    float *temperatures;
    double *draws;
};

static int open_bench(struct bench *b, const struct pva_options *o, int64_t new_tokens, struct pva_error *err) {
    b->batch = pva_options_int(o, "batch-size");
    b->prompt = pva_options_int(o, "prompt-tokens");
    b->rows = b->batch > 512 ? b->batch : 512;
    struct pva_session_settings settings = {.n_slots = (int)b->batch, .max_positions = b->prompt + new_tokens, .max_rows = b->rows, .hook_values = 2};
    if (engine_open(o, 0, &b->engine, err) || pva_session_open(b->engine.model, &settings, &b->session, err)) return err->code;
    size_t n = (size_t)b->rows;
    b->tokens = calloc(n, sizeof *b->tokens);
    b->slots = calloc(n, sizeof *b->slots);
    b->logit_rows = calloc(n, sizeof *b->logit_rows);
    b->temperatures = calloc(n, sizeof *b->temperatures);
    b->draws = calloc(n, sizeof *b->draws);
    if (!b->tokens || !b->slots || !b->logit_rows || !b->temperatures || !b->draws) return pva_fail(err, PVA_IO, "out of memory");
    return PVA_OK;
}

static void close_bench(struct bench *b) {
    pva_session_close(&b->session);
    engine_close(&b->engine);
    free(b->tokens);
    free(b->slots);
    free(b->logit_rows);
    free(b->temperatures);
    free(b->draws);
}

/* The prompt of every slot, as many rows per pass as fit; tokens are arbitrary but valid. */
static int prefill(struct bench *b, struct pva_error *err) {
    int64_t vocab = pva_model_get_config(b->engine.model)->n_vocab, total = b->batch * b->prompt;
    for (int64_t at = 0; at < total; at += b->rows) {
        int64_t n = total - at < b->rows ? total - at : b->rows;
        for (int64_t i = 0; i < n; i++) {
            b->tokens[i] = (int32_t)((at + i) * 7919 % vocab);
            b->slots[i] = (int32_t)((at + i) / b->prompt);
        }
        if (pva_session_append(b->session, n, b->tokens, b->slots, NULL, 0, err)) return err->code;
    }
    return b->engine.ops->sync(b->engine.be, err);
}

static int claim_all(struct bench *b, int64_t length, struct pva_error *err) {
    for (int64_t i = 0; i < b->batch; i++)
        if (!pva_session_reserve(b->session, pva_session_claim(b->session), length)) return pva_fail(err, PVA_IO, "the cache is too small");
    return PVA_OK;
}

/* What stands in the passes that are timed in turn. */
enum { PLAIN, STEERED, CAPTURED, KINDS };

/* As a generator's: a direction and a coefficient per row, sent with every pass; every layer's rows, of which one pass's come back during the next. */
struct bench_hooks {
    struct pva_buffer *directions, *captured[2];
    struct pva_readback *readback[2];
    unsigned char *all, *middle; /* marks of layers */
    int32_t *rows; /* 0, 1, ... */
    int64_t passes; /* that captured */
};

static int open_hooks(const struct bench *b, struct bench_hooks *h, struct pva_error *err) {
    const struct pva_backend_ops *op = b->engine.ops;
    struct pva_backend *be = b->engine.be;
    const struct pva_model_config *c = pva_model_get_config(b->engine.model);
    size_t values = (size_t)(c->n_layers * b->batch) * (size_t)c->d_model * sizeof(float);
    h->all = malloc((size_t)c->n_layers);
    h->middle = calloc((size_t)c->n_layers, 1);
    h->rows = malloc((size_t)b->batch * sizeof *h->rows);
    if (!h->all || !h->middle || !h->rows) return pva_fail(err, PVA_IO, "out of memory");
    memset(h->all, 1, (size_t)c->n_layers);
    h->middle[c->n_layers / 2] = 1;
    for (int64_t i = 0; i < b->batch; i++) h->rows[i] = (int32_t)i;
    if (op->alloc(be, (size_t)b->batch * (size_t)c->d_model * sizeof(float), &h->directions, err)) return err->code;
    for (int i = 0; i < 2; i++)
        if (op->alloc(be, values, &h->captured[i], err) || op->readback_open(be, values, &h->readback[i], err)) return err->code;
    return PVA_OK;
}

static void close_hooks(const struct bench *b, struct bench_hooks *h) {
    const struct pva_backend_ops *op = b->engine.ops;
    struct pva_backend *be = b->engine.be;
    for (int i = 0; be && i < 2; i++) {
        op->readback_close(be, &h->readback[i]);
        op->free(be, &h->captured[i]);
    }
    if (be) op->free(be, &h->directions);
    free(h->all);
    free(h->middle);
    free(h->rows);
}

static int decode_pass(struct bench *b, struct bench_hooks *h, int kind, struct pva_error *err) {
    const struct pva_backend_ops *op = b->engine.ops;
    struct pva_backend *be = b->engine.be;
    const struct pva_model_config *c = pva_model_get_config(b->engine.model);
    int now = (int)(h->passes % 2);
    struct pva_hook hook = {.point = PVA_RESID_POST, .action = kind == STEERED ? PVA_HOOK_ADD : PVA_HOOK_CAPTURE, .layers = kind == STEERED ? h->middle : h->all};
    if (kind == STEERED) {
        hook.directions = whole(h->directions, PVA_F32, b->batch, c->d_model);
        hook.which = pva_session_send(b->session, PVA_I32, h->rows, b->batch);
        hook.coefficients = pva_session_send(b->session, PVA_F32, b->temperatures, b->batch);
    } else if (kind == CAPTURED) {
        hook.rows = pva_session_send(b->session, PVA_I32, h->rows, b->batch);
        hook.captured = whole(h->captured[now], PVA_F32, c->n_layers * b->batch, c->d_model);
    }
    pva_session_want(b->session, b->logit_rows, b->batch, b->temperatures, b->draws);
    if (pva_session_append(b->session, b->batch, b->tokens, b->slots, &hook, kind != PLAIN, err)) return err->code;
    if (kind == CAPTURED) {
        const void *host;
        if (op->readback_begin(be, h->readback[now], hook.captured, err) || (h->passes && op->readback_wait(be, h->readback[!now], &host, err))) return err->code;
        h->passes++;
    }
    return pva_session_tokens(b->session, b->batch, b->tokens, err);
}

/* Bytes of keys and values that a decode pass at this context reads: even layers see a window of it. */
static double kv_bytes(const struct pva_model *m, double batch, double context) {
    const struct pva_model_config *c = pva_model_get_config(m);
    double window = c->window > 0 && context > c->window ? c->window : context;
    double seen = (double)((c->n_layers + 1) / 2) * window + (double)(c->n_layers / 2) * context;
    return batch * 2 * (double)c->n_kv_heads * c->d_head * (double)pva_dtype_size(pva_model_dtype(m)) * seen;
}

static int print_generate(const struct bench *b, double *seconds[KINDS], int passes, int kinds, struct pva_error *err) {
    struct pva_backend_info info;
    double pass[KINDS], limit = 0, context = (double)b->prompt + kinds * passes / 2.0;
    double weights = (double)pva_model_weight_bytes(b->engine.model), kv = kv_bytes(b->engine.model, (double)b->batch, context);
    b->engine.ops->describe(b->engine.be, &info);
    for (int k = 0; k < kinds; k++) pass[k] = median(seconds[k] + 3, passes - 3); /* the first two make a GPU's graph */
    if (info.n_threads > 0) limit = read_bandwidth(info.n_threads);
    else if (copy_bandwidth(&b->engine, &limit, err)) return err->code;
    printf("%s\n", info.device);
    printf("decode, %lld sequence%s, context %.0f: %.2f ms a pass, %.2f tokens/s\n", (long long)b->batch, b->batch > 1 ? "s" : "", context, 1e3 * pass[PLAIN],
           (double)b->batch / pass[PLAIN]);
    printf("weights %.3f GB, keys and values %.3f GB a pass: %.2f GB/s; memory %s %.2f GB/s: %.1f %% of it\n", weights / 1e9, kv / 1e9,
           (weights + kv) / pass[PLAIN] / 1e9, info.n_threads > 0 ? "read" : "copy", limit / 1e9, 100 * (weights + kv) / pass[PLAIN] / limit);
    if (kinds == KINDS)
        printf("a direction per sequence: %+.1f %% of a pass; all %d layers captured: %+.1f %%\n", 100 * (pass[STEERED] / pass[PLAIN] - 1),
               pva_model_get_config(b->engine.model)->n_layers, 100 * (pass[CAPTURED] / pass[PLAIN] - 1));
    return PVA_OK;
}

static int bench_generate(struct bench *b, int passes, int kinds, struct pva_error *err) {
    struct bench_hooks hooks = {0};
    double *all = malloc((size_t)(KINDS * passes) * sizeof *all), *seconds[KINDS] = {all, all + passes, all + 2 * passes};
    if (!all) return pva_fail(err, PVA_IO, "out of memory");
    if (!claim_all(b, b->prompt + kinds * passes, err) && !open_hooks(b, &hooks, err)) prefill(b, err);
    for (int64_t i = 0; i < b->batch; i++) b->logit_rows[i] = (int32_t)i, b->slots[i] = (int32_t)i, b->tokens[i] = 5;
    for (int p = 0; p < kinds * passes && !err->code; p++) {
        double start = engine_now();
        decode_pass(b, &hooks, p % kinds, err);
        seconds[p % kinds][p / kinds] = engine_now() - start;
        for (int64_t i = 0; i < b->batch; i++)
            if (b->tokens[i] < 0) b->tokens[i] = 5;
    }
    if (!err->code) print_generate(b, seconds, passes, kinds, err);
    close_hooks(b, &hooks);
    free(all);
    return err->code;
}

static int bench_prefill(struct bench *b, int repeats, struct pva_error *err) {
    double seconds[1000], rate = 0, large = 0;
    for (int r = -1; r < repeats && !err->code; r++) { /* the first warms up */
        if (claim_all(b, b->prompt, err)) break;
        double start = engine_now();
        prefill(b, err);
        if (r >= 0) seconds[r] = engine_now() - start;
        for (int64_t i = 0; i < b->batch; i++) pva_session_release(b->session, (int)i);
    }
    if (err->code || matrix_rate(&b->engine, 512, &rate, err)) return err->code;
    if (b->engine.ops->count && matrix_rate(&b->engine, 4096, &large, err)) return err->code;
    int64_t rows = large > rate ? 4096 : 512; /* a GPU may need more rows than a pass has */
    if (large > rate) rate = large;
    struct pva_backend_info info;
    b->engine.ops->describe(b->engine.be, &info);
    const struct pva_model_config *c = pva_model_get_config(b->engine.model);
    double time = median(seconds, repeats), tokens = (double)(b->batch * b->prompt);
    double head = (double)c->n_vocab * (double)c->d_model, per_token = (double)pva_model_parameters(b->engine.model) - head;
    printf("%s\n", info.device);
    printf("prefill, %lld x %lld tokens: %.1f ms, %.1f tokens/s\n", (long long)b->batch, (long long)b->prompt, 1e3 * time, tokens / time);
    printf("%.1f GFLOP/s in matrix products; the product alone, %lld rows: %.1f GFLOP/s: %.1f %% of it\n", 2 * per_token * tokens / time / 1e9,
           (long long)rows, rate / 1e9, 100 * 2 * per_token * tokens / time / rate);
    return PVA_OK;
}

int pva_command_bench(const struct pva_options *o, struct pva_error *err) {
    const char *const *what;
    int one = pva_options_positional(o, &what) == 1;
    if (one && !strcmp(what[0], "count")) return bench_count(o, err);
    if (one && !strcmp(what[0], "maxt")) return bench_maxt(o, err);
    if (one && !strcmp(what[0], "sae")) return bench_sae(o, err);
    if (one && !strcmp(what[0], "store")) return bench_store(o, err);
    if (!one || (strcmp(what[0], "generate") && strcmp(what[0], "prefill")))
        return pva_fail(err, PVA_USAGE, "say what to measure: generate, prefill, sae, store, maxt or count");
    int generate = !strcmp(what[0], "generate"), passes = (int)pva_options_int(o, "new-tokens"), kinds = pva_options_flag(o, "hooks") ? KINDS : 1;
    struct bench b = {0};
    if (!open_bench(&b, o, generate ? kinds * passes : 0, err)) {
        if (generate) bench_generate(&b, passes, kinds, err);
        else bench_prefill(&b, (int)pva_options_int(o, "repeats"), err);
    }
    close_bench(&b);
    return err->code;
}
