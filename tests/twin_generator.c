/* Captures while the device goes on: what a generator on the CUDA backend reports of every position is, bit for bit, what one pass over the finished
 * sequence and a plain download give. */
#include "backend_cuda.h"
#include "twin.h"

#include "pva/generator.h"

enum { REQUESTS = 5, MOST = 24, NEW = 9 };

struct record {
    int32_t tokens[MOST];
    int64_t n_prompt, n;
    float *captured[MOST]; /* [n_layers, d_model] each */
};

static struct pva_error err;
static struct record records[REQUESTS];
static int64_t values; /* of a position */

static int64_t prompt_of(int i, int32_t *ids) {
    int64_t n = 2 + i * 5 % 11;
    for (int64_t j = 0; j < n; j++) ids[j] = (int32_t)(2 + (j * 37 + i * 11) % 200);
    return n;
}

static void on_capture(void *user, int64_t id, int64_t position, const float *rows) {
    (void)user;
    CHECK_FATAL(position < MOST && !records[id].captured[position]);
    records[id].captured[position] = twin_alloc((size_t)values * sizeof(float));
    memcpy(records[id].captured[position], rows, (size_t)values * sizeof(float));
}

static void on_done(void *user, const struct pva_completion *c) {
    (void)user;
    struct record *r = &records[c->id];
    r->n_prompt = prompt_of((int)c->id, r->tokens);
    CHECK_FATAL(r->n_prompt + c->n_tokens <= MOST);
    memcpy(r->tokens + r->n_prompt, c->tokens, (size_t)c->n_tokens * sizeof *r->tokens);
    r->n = r->n_prompt + c->n_tokens;
}

static void generate(const struct pva_model *m, const unsigned char *layers, int n_slots, int64_t max_rows) {
    struct pva_generator_settings settings = {
        .session = {.n_slots = n_slots, .max_positions = 64, .max_rows = max_rows},
        .capture = {.point = PVA_RESID_POST, .layers = layers, .positions = PVA_POSITIONS_ALL},
        .events = {.on_capture = on_capture, .on_done = on_done},
    };
    struct pva_generator *g = NULL;
    int busy = 1;
    memset(records, 0, sizeof records);
    CHECK_OK(pva_generator_open(m, &settings, &g, &err), err);
    for (int i = 0; i < REQUESTS; i++) {
        int32_t ids[MOST];
        struct pva_request q = {.id = i, .prompt = ids, .intervention = -1};
        q.n_prompt = prompt_of(i, ids);
        q.max_tokens = q.n_prompt + 1 + i * 3 % NEW;
        CHECK_OK(pva_generator_submit(g, &q, &err), err);
    }
    while (busy && !check_failures) CHECK_OK(pva_generator_step(g, &busy, &err), err);
    pva_generator_close(&g);
}

/* The sequence in one pass; every position but the last token's, which nobody has computed yet. */
static void check_sequence(const struct pva_model *m, const unsigned char *layers, struct record *r) {
    const struct pva_backend_ops *op = pva_model_ops(m);
    struct pva_backend *be = pva_model_backend(m);
    const struct pva_model_config *c = pva_model_get_config(m);
    struct pva_session_settings settings = {.n_slots = 1, .max_positions = 64, .max_rows = 64};
    struct pva_session *s = NULL;
    struct pva_buffer *index = NULL, *memory = NULL;
    int32_t rows[MOST], slots[MOST] = {0};
    int64_t n = r->n - 1;
    float *all = twin_alloc((size_t)(n * values) * sizeof(float));
    for (int i = 0; i < MOST; i++) rows[i] = i;
    CHECK_OK(pva_session_open(m, &settings, &s, &err), err);
    CHECK_INT(pva_session_claim(s), 0);
    CHECK(pva_session_reserve(s, 0, n));
    CHECK_OK(op->bind(be, rows, sizeof rows, &index, &err), err);
    CHECK_OK(op->alloc(be, (size_t)(n * values) * sizeof(float), &memory, &err), err);
    struct pva_hook hook = {.point = PVA_RESID_POST, .action = PVA_HOOK_CAPTURE, .layers = layers, .rows = {index, 0, PVA_I32, n, 1},
                            .captured = {memory, 0, PVA_F32, c->n_layers * n, c->d_model}};
    CHECK_OK(pva_session_append(s, n, r->tokens, slots, &hook, 1, &err), err);
    CHECK_OK(op->download(be, hook.captured, all, &err), err);
    for (int64_t p = 0; p < MOST; p++) {
        CHECK_INT(r->captured[p] != NULL, p < n);
        for (int l = 0; p < n && r->captured[p] && l < c->n_layers; l++)
            CHECK_INT(twin_differ_bits(r->captured[p] + l * c->d_model, all + (l * n + p) * c->d_model, (size_t)c->d_model), 0);
    }
    pva_session_close(&s);
    op->free(be, &index), op->free(be, &memory);
    free(all);
}

int main(void) {
    const char *source = getenv("PVA_TEST_SOURCE");
    char folder[4096];
    unsigned char layers[64];
    struct pva_backend *be = NULL;
    struct pva_model *m = NULL;
    twin_start();
    const struct pva_backend_ops *op = pva_backend_cuda_find(&err);
    snprintf(folder, sizeof folder, "%s/tests/golden/gemma2-window", source ? source : ".");
    CHECK_OK(op->open(&(struct pva_backend_settings){0}, &be, &err), err);
    CHECK_OK(pva_model_open(folder, op, be, PVA_BF16, &m, &err), err);
    CHECK_FATAL(m);
    const struct pva_model_config *c = pva_model_get_config(m);
    values = (int64_t)c->n_layers * c->d_model;
    memset(layers, 1, sizeof layers);
    static const int slots[] = {1, 3, 2}, max_rows[] = {16, 7, 16};
    for (int k = 0; k < 3 && !check_failures; k++) {
#ifdef PVA_SIMT
        simt_set_order((unsigned)k); /* a copy that begins late, operations that run ahead of it */
#endif
        generate(m, layers, slots[k], max_rows[k]);
        for (int i = 0; i < REQUESTS; i++) {
            check_sequence(m, layers, &records[i]);
            for (int p = 0; p < MOST; p++) free(records[i].captured[p]);
        }
    }
    pva_model_close(&m);
    op->close(&be);
#ifdef PVA_SIMT
    CHECK_INT(simt_device_bytes(), 0);
#endif
    return check_report("twin_generator");
}
