/* Operations that start together: as CUDA graphs or one by one they give the same bits, while sequences come, go, change pages, and are steered; a graph
 * runs again only for what is equal in everything; a decode step has as many kernels as `bench count` says. */
#include "backend_cuda.h"
#include "cuda_calls.h"
#include "twin.h"

#include "pva/session.h"

static struct pva_error err;

enum { STEPS_A = 14, STEPS_B = 5, STEPS_C = 4, PROMPT = 21, DIRECTIONS = 2 };

/* What one run of the scenario leaves. */
struct trace {
    float *logits; /* of every pass, one after the other */
    int64_t n;
    uint64_t kernels, started, copies; /* of the last pass, from what is sent to the tokens; in the end, of the last decode step of the first part */
    int n_layers;
};

struct scene {
    const struct pva_backend_ops *op;
    struct pva_backend *be;
    struct pva_session *s;
    struct pva_buffer *directions;
    unsigned char layers[64];
    int64_t vocab, d;
    struct trace *trace;
};

/* Counts what a pass takes, from its begin to its end. */
static void mark(struct trace *t, int end) {
#ifdef PVA_SIMT
    static uint64_t kernels, started, copies;
    t->kernels = simt_launches() - kernels, t->started = simt_submissions() - started, t->copies = simt_copies() - copies;
    if (!end) kernels = simt_launches(), started = simt_submissions(), copies = simt_copies();
#else
    (void)t, (void)end;
#endif
}

/* One pass of n rows, steered by a coefficient that changes every time; the logits of all rows go to the trace, the largest of each back to tokens. */
static void pass(struct scene *c, int n, int32_t *tokens, const int32_t *slots) {
    int32_t which[64], rows[64], sampled[64];
    float coefficients[64], temperatures[64] = {0};
    double draws[64] = {0};
    for (int i = 0; i < n; i++) which[i] = (i + (int)c->trace->n) % (DIRECTIONS + 1) - 1, coefficients[i] = 0.25f * (float)(c->trace->n % 7) + (float)i, rows[i] = i;
    mark(c->trace, 0);
    struct pva_hook hook = {
        .point = PVA_RESID_POST, .action = PVA_HOOK_ADD, .layers = c->layers,
        .directions = {c->directions, 0, PVA_F32, DIRECTIONS, c->d}, .which = pva_session_send(c->s, PVA_I32, which, n),
        .coefficients = pva_session_send(c->s, PVA_F32, coefficients, n),
    };
    pva_session_want(c->s, rows, n, temperatures, draws);
    CHECK_OK(pva_session_append(c->s, n, tokens, slots, &hook, 1, &err), err);
    CHECK_OK(pva_session_tokens(c->s, n, sampled, &err), err);
    mark(c->trace, 1);
    CHECK_OK(pva_session_read_logits(c->s, n, c->trace->logits + c->trace->n * c->vocab, &err), err);
    c->trace->n += n;
    for (int i = 0; i < n; i++) tokens[i] = sampled[i];
}

/* The prompt of a new slot, its second half beside a row of each of the running ones. The first half's pass may not have begun when the device is told about
 * the second. */
static int join_slot(struct scene *c, int prompt, int n_running, int32_t *tokens, int32_t *slots) {
    int32_t ids[64], where[64];
    int slot = pva_session_claim(c->s);
    CHECK(pva_session_reserve(c->s, slot, prompt));
    for (int i = 0; i < n_running; i++) {
        CHECK(pva_session_reserve(c->s, slots[i], pva_session_length(c->s, slots[i]) + 1));
        ids[i] = tokens[i], where[i] = slots[i];
    }
    for (int i = 0; i < prompt; i++) ids[n_running + i] = 3 + (i * 37 + slot * 11) % 200, where[n_running + i] = slot;
    CHECK_OK(pva_session_append(c->s, prompt / 2, ids + n_running, where + n_running, NULL, 0, &err), err);
    memmove(ids + n_running, ids + n_running + prompt / 2, (size_t)(prompt - prompt / 2) * sizeof *ids);
    const int n = n_running + prompt - prompt / 2;
    pass(c, n, ids, where);
    memcpy(tokens, ids, (size_t)n_running * sizeof *ids);
    tokens[n_running] = ids[n - 1], slots[n_running] = slot;
    return n_running + 1;
}

static void decode(struct scene *c, int steps, int n, int32_t *tokens, const int32_t *slots) {
    for (int i = 0; i < steps; i++) {
        for (int j = 0; j < n; j++) CHECK(pva_session_reserve(c->s, slots[j], pva_session_length(c->s, slots[j]) + 1));
        pass(c, n, tokens, slots);
    }
}

static void play(const char *graphs, int steered, struct trace *trace) {
    const char *source = getenv("PVA_TEST_SOURCE");
    char folder[4096];
    float directions[DIRECTIONS * 512];
    int32_t tokens[8], slots[8];
    struct pva_model *m = NULL;
    struct scene c = {.op = pva_backend_cuda_find(&err), .trace = trace};
    struct pva_session_settings settings = {.n_slots = 3, .max_positions = 64, .max_rows = 64, .max_logits = 64, .hook_values = 2};
    setenv("PVA_CUDA_GRAPHS", graphs, 1);
    snprintf(folder, sizeof folder, "%s/tests/golden/gemma2-window", source ? source : ".");
    CHECK_OK(c.op->open(&(struct pva_backend_settings){0}, &c.be, &err), err);
    CHECK_OK(pva_model_open(folder, c.op, c.be, PVA_BF16, &m, &err), err);
    CHECK_FATAL(m);
    const struct pva_model_config *config = pva_model_get_config(m);
    c.vocab = config->n_vocab, c.d = config->d_model, trace->n_layers = config->n_layers;
    CHECK_FATAL(c.d <= 512 && config->n_layers <= 64);
    c.layers[1] = (unsigned char)steered;
    trace->logits = twin_alloc((size_t)(200 * c.vocab) * sizeof(float));
    for (int i = 0; i < DIRECTIONS * c.d; i++) directions[i] = (float)pva_rng_normal(2, PVA_RNG_WEIGHTS, 0, 0, (uint32_t)i);
    CHECK_OK(c.op->bind(c.be, directions, (size_t)(DIRECTIONS * c.d) * 4, &c.directions, &err), err);
    CHECK_OK(pva_session_open(m, &settings, &c.s, &err), err);

    int n = join_slot(&c, PROMPT, 0, tokens, slots);
    n = join_slot(&c, 3, n, tokens, slots);
    decode(&c, STEPS_A, n, tokens, slots); /* the first sequence takes its second page on the way */
    const struct trace first = *trace;
    n = join_slot(&c, 30, n, tokens, slots); /* more rows than before: the kernels' work memory may move */
    decode(&c, STEPS_B, n, tokens, slots);
    pva_session_release(c.s, slots[0]); /* the next one gets its pages in another order, and its slot */
    memmove(slots, slots + 1, 2 * sizeof *slots), memmove(tokens, tokens + 1, 2 * sizeof *tokens);
    n = join_slot(&c, 2, 2, tokens, slots);
    decode(&c, STEPS_C, n, tokens, slots);
    trace->kernels = first.kernels, trace->started = first.started, trace->copies = first.copies;

    pva_session_close(&c.s);
    c.op->free(c.be, &c.directions);
    pva_model_close(&m);
    c.op->close(&c.be);
    unsetenv("PVA_CUDA_GRAPHS");
    for (int64_t i = 0; i < trace->n * c.vocab && !check_failures; i++) CHECK(isfinite(trace->logits[i]));
    trace->n *= c.vocab;
}

static void check_same_bits(void) {
    struct trace plain[2] = {0}, graphs[2] = {0};
    for (int steered = 0; steered < 2 && !check_failures; steered++) {
        play("off", steered, &plain[steered]);
        play("on", steered, &graphs[steered]);
        CHECK_INT(plain[steered].n, graphs[steered].n);
        CHECK_INT(twin_differ_bits(plain[steered].logits, graphs[steered].logits, (size_t)plain[steered].n), 0);
#ifdef PVA_SIMT
        /* mpi/bench_count.c: 8 kernels a layer, 8 outside; a norm of its own and the step itself where a layer is steered. */
        uint64_t kernels = (uint64_t)(8 * plain[steered].n_layers + 8 + 2 * steered);
        CHECK_INT(plain[steered].kernels, kernels);
        CHECK_INT(plain[steered].started, kernels);
        CHECK_INT(graphs[steered].kernels, kernels);
        CHECK_INT(graphs[steered].started, 1);
        CHECK_INT(plain[steered].copies, 3); /* all that the device is told, steering too; the tokens and the fault word */
        CHECK_INT(graphs[steered].copies, 3);
#endif
    }
    CHECK(twin_differ_bits(plain[0].logits, plain[1].logits, (size_t)plain[0].n) > 0); /* the steering does something */
    for (int steered = 0; steered < 2; steered++) free(plain[steered].logits), free(graphs[steered].logits);
}

/* ---- lists of calls, by themselves ---- */

static int start_convert(const struct cuda_call *c, cudaStream_t stream) {
    return c->n[1] ? (int)cudaErrorInvalidValue : pva_cuda_convert(c->p[0], PVA_F32, c->p[1], PVA_F32, c->n[0], stream);
}

enum { N = 20, LENGTH = 5 };

/* src to rows 0, 1, ... of dst [LENGTH + 1, N], but the last call copies `count` values to row `last`; the call `bad` cannot be started. */
static int copies(struct cuda_calls *calls, cudaStream_t stream, float *src, float *dst, int last, int count, int bad, float out[LENGTH + 1][N]) {
    struct pva_error why = {0};
    CHECK_CUDA(cudaMemset(dst, 0, (LENGTH + 1) * N * sizeof(float)));
    CHECK_CUDA(cudaDeviceSynchronize());
    for (int i = 0; i < LENGTH; i++) {
        int is_last = i == LENGTH - 1;
        struct cuda_call call = {start_convert, "copy", .p = {src, dst + (is_last ? last : i) * N}, .n = {is_last ? count : N, i == bad}};
        CHECK_OK(cuda_calls_add(calls, &call, &why), why);
    }
    int status = cuda_calls_start(calls, &why);
    if (bad >= 0) CHECK_HAS(why.msg, "copy: cudaErrorInvalidValue");
    CHECK_CUDA(cudaStreamSynchronize(stream));
    CHECK_CUDA(cudaMemcpy(out, dst, (LENGTH + 1) * N * sizeof(float), cudaMemcpyDeviceToHost));
    return status;
}

static void check_lists(void) {
    float host[N], out[LENGTH + 1][N], *src, *dst;
    cudaStream_t stream;
    CHECK_CUDA(cudaMalloc((void **)&src, sizeof host));
    CHECK_CUDA(cudaMalloc((void **)&dst, sizeof out));
    CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    struct cuda_calls *calls = cuda_calls_open(0, stream, 1);
    CHECK_FATAL(calls);
    /* Lists that differ in one address or one number of their last call, more than graphs are kept: in turn, then each often enough to become one. */
    for (int round = 0; round < 5; round++)
        for (int list = 0; list < 2 * N; list++) {
            int last = LENGTH - 1 + list / N, count = 1 + list % N, wrong = 0;
            for (int j = 0; j < N; j++) host[j] = (float)(100 * round + list + j + 1);
            CHECK_CUDA(cudaMemcpy(src, host, sizeof host, cudaMemcpyHostToDevice));
            for (int again = 0; again < (round < 3 ? 1 : 3); again++) {
                CHECK_INT(copies(calls, stream, src, dst, last, count, -1, out), PVA_OK);
                for (int i = 0; i <= LENGTH; i++)
                    for (int j = 0; j < N; j++) wrong += out[i][j] != (i < LENGTH - 1 || (i == last && j < count) ? host[j] : 0);
                CHECK_INT(wrong, 0);
            }
        }
    /* A call that cannot be started is named, also when it would have become a graph; the others work on. */
    for (int i = 0; i < 3; i++) CHECK_INT(copies(calls, stream, src, dst, 0, N, 3, out), PVA_IO);
    CHECK_INT(copies(calls, stream, src, dst, LENGTH, N, -1, out), PVA_OK);
    CHECK(out[LENGTH][0] == host[0]);
    cuda_calls_close(&calls);
    CHECK(!calls);
    CHECK_CUDA(cudaStreamDestroy(stream));
    CHECK_CUDA(cudaFree(src));
    CHECK_CUDA(cudaFree(dst));
}

int main(void) {
    twin_start();
    check_lists();
    check_same_bits();
#ifdef PVA_SIMT
    CHECK_INT(simt_device_bytes(), 0);
#endif
    return check_report("twin_graph");
}
