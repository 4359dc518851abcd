/* Sessions and continuous batching on a small synthetic model: nothing about the batch may change a bit of a completion, and no
 * captured row may be missing. */
#include "check.h"

#include "pva/generator.h"
#include "pva/synth.h"

#include <sys/stat.h>
#include <unistd.h>

enum { N_REQUESTS = 12, MAX_TOKENS = 60, MAX_NEW = 40, D = 48, LAYERS = 4 };

static const struct pva_model *model;
static struct pva_error err;

/* What a request produced. */
struct record {
    int32_t tokens[MAX_TOKENS];
    int64_t n;
    enum pva_finish finish;
    int done;
    float captured[MAX_TOKENS][LAYERS * D];
    int64_t positions[MAX_TOKENS], n_captured, captured_at_end;
};

static struct record records[N_REQUESTS];

static int on_token(void *user, int64_t id, const int32_t *tokens, int64_t n) {
    (void)user, (void)tokens;
    return id == 3 && n == 7; /* the third request is stopped from outside */
}

static void on_capture(void *user, int64_t id, int64_t position, const float *rows) {
    (void)user;
    struct record *r = &records[id];
    CHECK_FATAL(r->n_captured < MAX_TOKENS);
    memcpy(r->captured[r->n_captured], rows, sizeof r->captured[0]);
    r->positions[r->n_captured++] = position;
}

static void on_done(void *user, const struct pva_completion *c) {
    (void)user;
    struct record *r = &records[c->id];
    CHECK_INT(r->done, 0);
    CHECK_FATAL(c->n_tokens <= MAX_TOKENS);
    memcpy(r->tokens, c->tokens, (size_t)c->n_tokens * sizeof *r->tokens);
    r->n = c->n_tokens;
    r->finish = c->finish;
    r->captured_at_end = r->n_captured;
    r->done = 1;
}

static int64_t prompt_of(int i, int32_t *ids) {
    int64_t n = 3 + (i * 5) % 17;
    ids[0] = 2;
    for (int64_t j = 1; j < n; j++) ids[j] = (int32_t)(4 + (j * 37 + i * 11) % 200);
    return n;
}

struct run {
    int n_slots, reversed;
    int64_t max_rows, kv_positions;
    enum pva_positions capture, steer;
    int steered; /* 0: no intervention; 1: coefficient as given; */
    float coefficient;
    float temperature;
    enum pva_hook_action action;
};

static struct pva_generator_stats run_all(struct run r) {
    static unsigned char layers[LAYERS] = {1, 1, 1, 1};
    static float directions[2 * D];
    for (int i = 0; i < 2 * D; i++) directions[i] = (i < D ? i % D == 5 : i % D == 17) ? 1 : 0;
    struct pva_intervention intervention = {
        .point = PVA_RESID_POST, .layer = 1, .action = r.action ? r.action : PVA_HOOK_ADD, .positions = r.steer, .n_directions = 2, .directions = directions};
    struct pva_generator_settings settings = {
        .session = {.n_slots = r.n_slots, .max_positions = MAX_TOKENS, .kv_positions = r.kv_positions, .max_rows = r.max_rows},
        .capture = {.point = PVA_RESID_POST, .layers = layers, .positions = r.capture},
        .interventions = &intervention,
        .n_interventions = 1,
        .events = {.on_token = on_token, .on_capture = on_capture, .on_done = on_done},
    };
    struct pva_generator *g = NULL;
    memset(records, 0, sizeof records);
    CHECK_OK(pva_generator_open(model, &settings, &g, &err), err);
    CHECK_FATAL(g);
    for (int k = 0; k < N_REQUESTS; k++) {
        int i = r.reversed ? N_REQUESTS - 1 - k : k;
        int32_t ids[32];
        struct pva_request q = {
            .id = i, .seed = 9, .item = (uint32_t)i, .prompt = ids, .temperature = r.temperature,
            .intervention = r.steered ? 0 : -1, .direction = i % 2, .coefficient = r.coefficient * (float)(1 + i % 3),
        };
        q.n_prompt = prompt_of(i, ids);
        q.max_tokens = q.n_prompt + MAX_NEW;
        CHECK_OK(pva_generator_submit(g, &q, &err), err);
    }
    int busy = 1, passes = 0;
    while (busy && !err.code && passes++ < 5000) CHECK_OK(pva_generator_step(g, &busy, &err), err);
    CHECK_INT(busy, 0);
    struct pva_generator_stats stats;
    pva_generator_get_stats(g, &stats);
    /* Every point of every layer was passed once per token that was not taken over: a hook that does not fire would show here. */
    int64_t computed = 0;
    for (int i = 0; i < N_REQUESTS; i++) {
        int32_t ids[32];
        CHECK_INT(records[i].done, 1);
        computed += prompt_of(i, ids) + records[i].n - (records[i].finish == PVA_FINISH_EOS ? 0 : 1);
    }
    for (int p = 0; p < PVA_N_POINTS; p++)
        CHECK_INT(pva_session_visits(pva_generator_session(g), (enum pva_point)p), LAYERS * (computed + stats.recomputed_tokens) - stats.shared_visits);
    pva_generator_close(&g);
    return stats;
}

static void check_captures(enum pva_positions positions) {
    for (int i = 0; i < N_REQUESTS; i++) {
        const struct record *r = &records[i];
        int32_t ids[32];
        int64_t n_prompt = prompt_of(i, ids), last = n_prompt + r->n - (r->finish == PVA_FINISH_EOS ? 1 : 2);
        int64_t first = positions == PVA_POSITIONS_ALL ? 0 : positions == PVA_POSITIONS_GENERATED ? n_prompt : n_prompt - 1;
        int64_t want = positions == PVA_POSITIONS_LAST_PROMPT || positions == PVA_POSITIONS_LAST_GENERATED ? 1 : last - first + 1;
        if (positions == PVA_POSITIONS_LAST_GENERATED) first = last;
        CHECK_INT(r->n_captured, want);
        CHECK_INT(r->captured_at_end, want); /* all of them before on_done */
        for (int64_t k = 0; k < r->n_captured; k++) CHECK_INT(r->positions[k], first + k);
    }
}

/* The reference: one sequence at a time, every pass the whole sequence anew (no cache is re-used). */
static void recompute(int i, const struct run *r, int64_t n_new, int32_t *out) {
    int32_t ids[128], slots[128] = {0};
    int64_t n_prompt = prompt_of(i, ids), n = n_prompt;
    static float direction[2 * D];
    static unsigned char layers[LAYERS] = {0, 1, 0, 0};
    for (int k = 0; k < 2 * D; k++) direction[k] = (k < D ? k % D == 5 : k % D == 17) ? 1 : 0;
    const struct pva_backend_ops *op = pva_model_ops(model);
    struct pva_backend *be = pva_model_backend(model);
    for (int64_t t = 0; t < n_new; t++, n++) {
        struct pva_session_settings settings = {.n_slots = 1, .max_positions = 128, .max_rows = 128};
        struct pva_session *s = NULL;
        struct pva_buffer *d = NULL, *w = NULL, *c = NULL;
        int32_t which[128], last = (int32_t)(n - 1);
        float coefficients[128], temperature = r->temperature;
        CHECK_OK(pva_session_open(model, &settings, &s, &err), err);
        CHECK_INT(pva_session_claim(s), 0);
        CHECK(pva_session_reserve(s, 0, n));
        op->alloc(be, sizeof direction, &d, &err), op->alloc(be, sizeof which, &w, &err), op->alloc(be, sizeof coefficients, &c, &err);
        for (int64_t p = 0; p < n; p++) {
            int on = r->steer == PVA_POSITIONS_ALL || p >= n_prompt - (r->steer == PVA_POSITIONS_LAST);
            which[p] = r->steered && on ? i % 2 : -1;
            coefficients[p] = r->coefficient * (float)(1 + i % 3);
        }
        struct pva_hook hook = {.point = PVA_RESID_POST, .action = r->action ? r->action : PVA_HOOK_ADD, .layers = layers,
                                .directions = {d, 0, PVA_F32, 2, D}, .which = {w, 0, PVA_I32, n, 1}, .coefficients = {c, 0, PVA_F32, n, 1}};
        op->upload(be, hook.directions, direction, &err), op->upload(be, hook.which, which, &err), op->upload(be, hook.coefficients, coefficients, &err);
        double draw = 0.5;
        pva_session_want(s, &last, 1, &temperature, &draw);
        CHECK_OK(pva_session_append(s, n, ids, slots, &hook, 1, &err), err);
        CHECK_OK(pva_session_tokens(s, 1, &ids[n], &err), err);
        out[t] = ids[n];
        op->free(be, &d), op->free(be, &w), op->free(be, &c);
        pva_session_close(&s);
    }
}

static void test_one_dtype(enum pva_dtype dtype, const char *directory) {
    struct pva_backend *be = NULL;
    struct pva_backend_settings bs = {.n_threads = 2};
    struct pva_model *m = NULL;
    static struct record first[N_REQUESTS];
    CHECK_OK(pva_backend_cpu.open(&bs, &be, &err), err);
    CHECK_OK(pva_model_open(directory, &pva_backend_cpu, be, dtype, &m, &err), err);
    CHECK_FATAL(m);
    model = m;
    for (int temperature = 0; temperature < 2; temperature++) {
        struct run base = {.n_slots = 5, .max_rows = 64, .capture = PVA_POSITIONS_ALL, .temperature = (float)temperature * 0.8f};
        run_all(base);
        check_captures(PVA_POSITIONS_ALL);
        CHECK_INT(records[3].finish, PVA_FINISH_STOPPED);
        CHECK_INT(records[3].n, 7);
        memcpy(first, records, sizeof first);
        int64_t evictions = 0;
        struct run other[] = {base, base, base, base, base};
        other[0].n_slots = 1;
        other[1].n_slots = 12, other[1].max_rows = 13, other[1].reversed = 1; /* prompts cut into pieces */
        other[2].n_slots = 16, other[2].max_rows = 512;
        other[3].n_slots = 8, other[3].kv_positions = 128;                    /* the cache overflows: sequences are computed again */
        other[4].steered = 1, other[4].coefficient = 0;                       /* coefficient 0 is a true placebo */
        for (int k = 0; k < 5; k++) {
            evictions += run_all(other[k]).evictions;
            CHECK(!memcmp(records, first, sizeof first));
        }
        CHECK(evictions > 0);
    }
    run_all((struct run){.n_slots = 5, .max_rows = 64, .capture = PVA_POSITIONS_ALL});
    memcpy(first, records, sizeof first);
    enum pva_positions capture[] = {PVA_POSITIONS_LAST_PROMPT, PVA_POSITIONS_LAST, PVA_POSITIONS_GENERATED, PVA_POSITIONS_LAST_GENERATED};
    for (int k = 0; k < 4; k++) {
        run_all((struct run){.n_slots = 4, .max_rows = 16, .capture = capture[k], .kv_positions = 160});
        check_captures(capture[k]);
        for (int i = 0; i < N_REQUESTS; i++)
            for (int64_t c = 0; c < records[i].n_captured; c++) /* the same rows as when all positions were captured */
                CHECK(!memcmp(records[i].captured[c], first[i].captured[records[i].positions[c]], sizeof first[i].captured[0]));
    }
    enum pva_positions steer[] = {PVA_POSITIONS_ALL, PVA_POSITIONS_LAST, PVA_POSITIONS_GENERATED};
    for (int k = 0; k < 5; k++) {
        struct run r = {.n_slots = 7, .max_rows = 32, .capture = PVA_POSITIONS_LAST_PROMPT, .steer = steer[k % 3], .steered = 1, .coefficient = 3,
                        .action = k >= 3 ? PVA_HOOK_ABLATE : PVA_HOOK_ADD};
        int changed = 0;
        struct run plain = r;
        plain.steered = 0;
        run_all(plain);
        memcpy(first, records, sizeof first);
        run_all(r);
        for (int i = 0; i < N_REQUESTS; i++) {
            int32_t want[12];
            int64_t n = records[i].n < 12 ? records[i].n : 12;
            changed += first[i].n != records[i].n || memcmp(first[i].tokens, records[i].tokens, sizeof first[i].tokens);
            recompute(i, &r, n, want);
            CHECK(!memcmp(want, records[i].tokens, (size_t)n * sizeof *want));
        }
        CHECK(changed > 0 || r.action == PVA_HOOK_ABLATE); /* a steering that does nothing would pass every other check */
    }
    pva_model_close(&m);
    pva_backend_cpu.close(&be);
}

/* Whatever was computed when a generator is told to stop was captured, and is told before the end of its sequence. */
static void test_cancelled(const char *directory) {
    struct pva_backend *be = NULL;
    struct pva_backend_settings bs = {.n_threads = 1};
    struct pva_model *m = NULL;
    static unsigned char layers[LAYERS] = {1, 1, 1, 1};
    CHECK_OK(pva_backend_cpu.open(&bs, &be, &err), err);
    CHECK_OK(pva_model_open(directory, &pva_backend_cpu, be, PVA_F32, &m, &err), err);
    for (int steps = 0; steps < 6; steps++) {
        struct pva_generator_settings settings = {
            .session = {.n_slots = 5, .max_positions = MAX_TOKENS, .max_rows = 128},
            .capture = {.point = PVA_RESID_POST, .layers = layers, .positions = PVA_POSITIONS_ALL},
            .events = {.on_token = on_token, .on_capture = on_capture, .on_done = on_done},
        };
        struct pva_generator *g = NULL;
        int busy, running = 0;
        memset(records, 0, sizeof records);
        CHECK_OK(pva_generator_open(m, &settings, &g, &err), err);
        for (int i = 0; i < N_REQUESTS; i++) {
            int32_t ids[32];
            struct pva_request q = {.id = i, .seed = 9, .item = (uint32_t)i, .prompt = ids, .intervention = -1};
            q.n_prompt = prompt_of(i, ids);
            q.max_tokens = q.n_prompt + MAX_NEW;
            CHECK_OK(pva_generator_submit(g, &q, &err), err);
        }
        for (int i = 0; i < steps; i++) CHECK_OK(pva_generator_step(g, &busy, &err), err);
        pva_generator_cancel_all(g);
        for (int i = 0; i < N_REQUESTS; i++) {
            const struct record *r = &records[i];
            int32_t ids[32];
            CHECK_INT(r->done, 1);
            CHECK_INT(r->captured_at_end, r->n_captured);
            if (r->finish != PVA_FINISH_CANCELLED) continue;
            running += r->n > 0;
            CHECK_INT(r->n_captured, r->n ? prompt_of(i, ids) + r->n - 1 : 0);
        }
        CHECK(running > 0 || !steps);
        pva_generator_close(&g);
    }
    pva_model_close(&m);
    pva_backend_cpu.close(&be);
}

static void test_bad_requests(const char *directory) {
    struct pva_backend *be = NULL;
    struct pva_backend_settings bs = {.n_threads = 1};
    struct pva_model *m = NULL;
    struct pva_generator *g = NULL;
    struct pva_error e = {0};
    int32_t ids[4] = {2, 5, 6, 7};
    CHECK_OK(pva_backend_cpu.open(&bs, &be, &err), err);
    CHECK_OK(pva_model_open(directory, &pva_backend_cpu, be, PVA_F32, &m, &err), err);
    struct pva_generator_settings settings = {.session = {.n_slots = 2, .max_positions = 16, .max_rows = 8}};
    CHECK_OK(pva_generator_open(m, &settings, &g, &err), err);
    struct pva_request q = {.prompt = ids, .n_prompt = 4, .max_tokens = 4, .intervention = -1};
    CHECK_INT(pva_generator_submit(g, &q, &e), PVA_INPUT);
    CHECK_HAS(e.msg, "the prompt has 4 tokens, the whole sequence may have 4");
    memset(&e, 0, sizeof e);
    q.max_tokens = 17;
    CHECK_INT(pva_generator_submit(g, &q, &e), PVA_INPUT);
    CHECK_HAS(e.msg, "does not fit");
    memset(&e, 0, sizeof e);
    q.n_prompt = 0;
    CHECK_INT(pva_generator_submit(g, &q, &e), PVA_INPUT);
    pva_generator_close(&g);
    memset(&e, 0, sizeof e);
    settings.session.max_positions = 100000;
    CHECK_INT(pva_generator_open(m, &settings, &g, &e), PVA_USAGE);
    CHECK_HAS(e.msg, "the model's limit is");
    pva_model_close(&m);
    pva_backend_cpu.close(&be);
}

int main(void) {
    char directory[] = "/tmp/test_generator.XXXXXX", path[128];
    CHECK_FATAL(mkdtemp(directory));
    struct pva_model_config c;
    CHECK_OK(pva_model_config_preset("gemma-2-2b", &c, &err), err);
    c.n_layers = LAYERS, c.d_model = D, c.d_ff = 80, c.n_heads = 4, c.n_kv_heads = 2, c.d_head = 16, c.n_vocab = 211, c.window = 9;
    c.max_positions = 256;
    struct pva_synth_settings settings = {.dtype = PVA_BF16, .seed = 4};
    snprintf(path, sizeof path, "%s/model", directory);
    CHECK_OK(pva_synth_write(&c, path, &settings, &err), err);
    test_one_dtype(PVA_F32, path);
    test_one_dtype(PVA_BF16, path);
    test_cancelled(path);
    test_bad_requests(path);
    snprintf(path, sizeof path, "rm -rf %s", directory);
    CHECK_INT(system(path), 0);
    return check_report("test_generator");
}
