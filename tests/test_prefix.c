/* What sequences have in common is computed once: the same completions and captures, bit for bit, as when each computes its own; as much of it as the
 * prompts and the intervention allow; and every page is given back. */
#include "check.h"

#include "pva/generator.h"
#include "pva/synth.h"

#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 32, N_PROMPTS = 8, N_ARMS = 6, N_REQUESTS = N_PROMPTS * N_ARMS, MAX_TOKENS = 128, MAX_NEW = 14, D = 48, LAYERS = 4 };

static const int64_t lengths[N_PROMPTS] = {1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 2 * PAGE + 1, 3 * PAGE + 4, 3 * PAGE + 4};

static const struct pva_model *model;
static struct pva_error err;

struct record {
    int32_t tokens[MAX_TOKENS];
    int64_t n, n_captured;
    enum pva_finish finish;
    int done;
    int64_t positions[MAX_TOKENS];
    uint64_t captured[MAX_TOKENS]; /* of the rows' bits */
};
static struct record records[N_REQUESTS], alone[N_REQUESTS];

static int on_token(void *user, int64_t id, const int32_t *tokens, int64_t n) {
    (void)user, (void)tokens;
    return id % 11 == 3 && n == 5;
}

static void on_capture(void *user, int64_t id, int64_t position, const float *rows) {
    const uint32_t *bits = (const uint32_t *)rows;
    int n_layers = *(const int *)user;
    struct record *r = &records[id];
    CHECK_FATAL(r->n_captured < MAX_TOKENS);
    uint64_t h = 14695981039346656037u;
    for (int i = 0; i < n_layers * D; i++) h = (h ^ bits[i]) * 1099511628211u;
    r->captured[r->n_captured] = h;
    r->positions[r->n_captured++] = position;
}

static void on_done(void *user, const struct pva_completion *c) {
    (void)user;
    struct record *r = &records[c->id];
    CHECK_INT(r->done, 0);
    CHECK_FATAL(c->n_tokens <= MAX_TOKENS);
    memcpy(r->tokens, c->tokens, (size_t)c->n_tokens * sizeof *r->tokens);
    r->n = c->n_tokens, r->finish = c->finish, r->done = 1;
}

struct run {
    int n_slots, unshared, capture, cancel_after;
    int64_t max_rows, kv_positions;
    enum pva_positions positions, capture_positions;
    enum pva_point point;
    enum pva_hook_action action;
    int layer, other_layer; /* of the two interventions */
    float temperature;
};

/* Arm 0 has no intervention, arm 1 the second; the others the first: a placebo, a push, the same push, as much in another direction. */
static void set_arm(int arm, struct pva_request *q) {
    static const float coefficients[N_ARMS] = {0, -2, 0, 2, 2, 2};
    q->intervention = arm == 0 ? -1 : arm == 1;
    q->direction = arm == 5;
    q->coefficient = coefficients[arm];
}

static struct pva_generator_stats run_all(const struct run *r) {
    static unsigned char last_layers[LAYERS] = {0, 1, 0, 1};
    static float directions[2 * D];
    static int n_captured_layers = 2;
    for (int i = 0; i < 2 * D; i++) directions[i] = (i < D ? i % D == 5 : i % D == 17) ? 1 : 0;
    struct pva_intervention interventions[2];
    for (int i = 0; i < 2; i++)
        interventions[i] = (struct pva_intervention){.point = r->point, .layer = i ? r->other_layer : r->layer, .action = r->action, .positions = r->positions,
                                                     .n_directions = 2, .directions = directions};
    struct pva_generator_settings settings = {
        .session = {.n_slots = r->n_slots, .max_positions = MAX_TOKENS, .kv_positions = r->kv_positions, .max_rows = r->max_rows},
        .capture = {.point = PVA_RESID_POST, .layers = r->capture ? last_layers : NULL, .positions = r->capture_positions},
        .interventions = interventions,
        .n_interventions = 2,
        .events = {.user = &n_captured_layers, .on_token = on_token, .on_capture = on_capture, .on_done = on_done},
        .unshared = r->unshared,
    };
    struct pva_generator *g = NULL;
    struct pva_generator_stats stats;
    memset(records, 0, sizeof records);
    CHECK_OK(pva_generator_open(model, &settings, &g, &err), err);
    CHECK_FATAL(g);
    int64_t pages_at_start = pva_session_free_positions(pva_generator_session(g)), needed = 0;
    for (int i = 0; i < N_REQUESTS; i++) {
        int64_t n = lengths[i / N_ARMS];
        int32_t ids[MAX_TOKENS];
        /* No two prompts begin alike; the last two go on alike after a page. */
        for (int64_t j = 0; j < n; j++) ids[j] = (int32_t)(4 + (j * 37 + (j < PAGE || i / N_ARMS < N_PROMPTS - 1 ? i / N_ARMS : N_PROMPTS - 2) * 11) % 200);
        struct pva_request q = {.id = i, .seed = 9, .item = (uint32_t)(i / N_ARMS), .sample = (uint32_t)(i % N_ARMS), .prompt = ids, .n_prompt = n,
                                .max_tokens = n + MAX_NEW, .temperature = r->temperature};
        set_arm(i % N_ARMS, &q);
        CHECK_OK(pva_generator_submit(g, &q, &err), err);
    }
    int busy = 1;
    for (int pass = 0; busy && !err.code && pass < 5000; pass++) {
        CHECK_OK(pva_generator_step(g, &busy, &err), err);
        if (r->cancel_after && pass + 1 == r->cancel_after) {
            CHECK(pva_session_free_positions(pva_generator_session(g)) < pages_at_start);
            pva_generator_cancel_all(g);
        }
    }
    CHECK_INT(busy, 0);
    CHECK_INT(pva_session_free_positions(pva_generator_session(g)), pages_at_start);
    pva_generator_get_stats(g, &stats);
    for (int i = 0; i < N_REQUESTS; i++) {
        CHECK_INT(records[i].done, 1);
        needed += lengths[i / N_ARMS] + records[i].n - (records[i].finish == PVA_FINISH_EOS ? 0 : 1);
    }
    for (int p = 0; p < PVA_N_POINTS && !r->cancel_after; p++)
        CHECK_INT(pva_session_visits(pva_generator_session(g), (enum pva_point)p), LAYERS * (needed + stats.recomputed_tokens) - stats.shared_visits);
    pva_generator_close(&g);
    return stats;
}

static int differ_from_alone(void) {
    int n = 0;
    for (int i = 0; i < N_REQUESTS; i++) n += memcmp(&records[i], &alone[i], sizeof alone[i]) != 0;
    return n;
}

/* Whole pages of the prompt before its last position, for all arms but the first. */
static int64_t shareable(int arms) {
    int64_t n = 0;
    for (int i = 0; i < N_PROMPTS; i++) n += (lengths[i] - 1) / PAGE * PAGE * arms;
    return n;
}

static void compare(struct run r, const char *what) {
    struct run own = r;
    own.unshared = 1, own.n_slots = 5, own.max_rows = 256, own.kv_positions = 0;
    struct pva_generator_stats stats = run_all(&own);
    CHECK_INT(stats.shared_visits, 0);
    CHECK_INT(stats.shared_tokens, 0);
    memcpy(alone, records, sizeof alone);
    static const struct run sizes[] = {
        {.n_slots = 1, .max_rows = 128}, {.n_slots = 6, .max_rows = 400}, {.n_slots = 64, .max_rows = 4096},
        {.n_slots = 7, .max_rows = 23}, {.n_slots = 9, .max_rows = 64, .kv_positions = 6 * PAGE}, {.n_slots = 3, .max_rows = 4, .kv_positions = 5 * PAGE},
    };
    for (int k = 0; k < 6; k++) {
        r.n_slots = sizes[k].n_slots, r.max_rows = sizes[k].max_rows, r.kv_positions = sizes[k].kv_positions;
        stats = run_all(&r);
        int differ = differ_from_alone();
        if (differ) printf("%s, size %d: %d differ\n", what, k, differ);
        CHECK_INT(differ, 0);
        int capture_all = r.capture && r.capture_positions == PVA_POSITIONS_ALL;
        if (capture_all && !stats.evictions) CHECK_INT(stats.shared_visits, 0);
        if (!capture_all) CHECK(stats.shared_visits > 0);
        if (k >= 4) CHECK(stats.evictions > 0);
        if (k >= 3 || capture_all) continue;
        /* Room enough: all that can be shared is. */
        if (r.positions != PVA_POSITIONS_ALL) {
            CHECK_INT(stats.shared_tokens, shareable(N_ARMS - 1));
            CHECK_INT(stats.shared_visits, LAYERS * shareable(N_ARMS - 1));
            continue;
        }
        /* The layers below a change, and all of them for the arm that repeats one: unless both are in one pass, above the layers that both take over. */
        int first = r.layer + (r.point == PVA_RESID_POST), second = r.other_layer + (r.point == PVA_RESID_POST);
        if (k == 2) CHECK_INT(stats.shared_visits, shareable(1) * (second + 4 * first));
        if (k == 0 && second >= first) CHECK_INT(stats.shared_visits, shareable(1) * (second + 3 * first + LAYERS));
    }
    r.n_slots = 6, r.max_rows = 64, r.cancel_after = 3;
    run_all(&r);
    int cancelled = 0;
    for (int i = 0; i < N_REQUESTS; i++) cancelled += records[i].finish == PVA_FINISH_CANCELLED;
    CHECK(cancelled > 0);
}

static void test_one(const char *directory, enum pva_dtype dtype, int all) {
    struct pva_backend *be = NULL;
    struct pva_backend_settings bs = {.n_threads = 1};
    struct pva_model *m = NULL;
    CHECK_OK(pva_backend_cpu.open(&bs, &be, &err), err);
    CHECK_OK(pva_model_open(directory, &pva_backend_cpu, be, dtype, &m, &err), err);
    CHECK_FATAL(m);
    model = m;
    const struct run base = {.positions = PVA_POSITIONS_ALL, .point = PVA_RESID_POST, .action = PVA_HOOK_ADD, .layer = 1, .other_layer = 2,
                             .capture = 1, .capture_positions = PVA_POSITIONS_LAST};
    struct run r = base;
    compare(r, "all");
    if (!all) goto done;
    r.temperature = 0.8f, r.action = PVA_HOOK_ABLATE;
    compare(r, "all, ablate");
    r = base, r.positions = PVA_POSITIONS_LAST;
    compare(r, "last");
    r.positions = PVA_POSITIONS_GENERATED, r.capture = 0;
    compare(r, "generated");
    r = base, r.capture_positions = PVA_POSITIONS_ALL;
    compare(r, "all positions captured");
    r.capture_positions = PVA_POSITIONS_LAST_GENERATED, r.point = PVA_RESID_PRE, r.layer = 2, r.other_layer = 0;
    compare(r, "before a layer, and before the first");
    r.point = PVA_RESID_MID, r.layer = 1, r.other_layer = 3;
    compare(r, "within layers");
    r.point = PVA_RESID_POST, r.layer = LAYERS - 1, r.other_layer = 1, r.capture_positions = PVA_POSITIONS_GENERATED;
    compare(r, "after the last layer");
done:
    pva_model_close(&m);
    pva_backend_cpu.close(&be);
}

int main(void) {
    char directory[] = "/tmp/test_prefix.XXXXXX", path[128];
    CHECK_FATAL(mkdtemp(directory));
    struct pva_model_config c;
    CHECK_OK(pva_model_config_preset("gemma-2-2b", &c, &err), err);
    c.n_layers = LAYERS, c.d_model = D, c.d_ff = 80, c.n_heads = 4, c.n_kv_heads = 2, c.d_head = 16, c.n_vocab = 211, c.window = 9;
    c.max_positions = 256;
    struct pva_synth_settings settings = {.dtype = PVA_BF16, .seed = 4};
    snprintf(path, sizeof path, "%s/model", directory);
    CHECK_OK(pva_synth_write(&c, path, &settings, &err), err);
    test_one(path, PVA_F32, 0);
    test_one(path, PVA_BF16, 1);
    snprintf(path, sizeof path, "rm -rf %s", directory);
    CHECK_INT(system(path), 0);
    return check_report("test_prefix");
}
