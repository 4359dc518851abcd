/* The forward graph against transformers (tests/golden): stage by stage, so that a failure names the first layer and point that
 * drift; logits; greedy texts, alone and in a ragged batch; steering at all positions and from the last prompt position on. */
#include "check.h"

#include "pva/generator.h"
#include "pva/tensorfile.h"

#include <dirent.h>

/* Limits of the contract: float32 differs from the reference by the order of sums alone; bfloat16 by the rounding of operands.
 * Some of these small models amplify a rounding more than that; there the limit is what transformers' own bfloat16 run of the same
 * model is away from its float32 run. */
static const double F32_LIMIT = 1e-5, BF16_LIMIT = 3e-2;

static struct pva_error err;
static struct pva_backend *be;
#ifndef GOLDEN_BACKEND /* twin_golden.c runs the same on the CUDA backend */
#define GOLDEN_BACKEND(err) (&pva_backend_cpu)
#define GOLDEN_QUICK 0
#define GOLDEN_NAME "test_golden"
#endif
static const struct pva_backend_ops *op; /* or what PVA_TEST_BACKEND names */
static struct pva_model *model;
static struct pva_tensorfile *expected;
static const char *name;

static const struct pva_tensor_view *golden(const char *key) {
    const struct pva_tensor_view *v = pva_tensorfile_find(expected, key);
    if (!v) fprintf(stderr, "%s has no %s\n", name, key);
    CHECK_FATAL(v);
    return v;
}

static float *golden_f32(const char *key) {
    const struct pva_tensor_view *v = golden(key);
    float *out = malloc((size_t)v->n_elements * sizeof *out + 1);
    pva_tensor_to_f32(v, 0, v->n_elements, out);
    return out;
}

static const int32_t *golden_i32(const char *key, int64_t *n) {
    const struct pva_tensor_view *v = golden(key);
    CHECK_FATAL(v->dtype == PVA_I32);
    *n = v->n_elements;
    return v->data;
}

enum { MAX_ROWS = 256 };

static struct pva_session *open_session(int n_slots) {
    struct pva_session_settings s = {.n_slots = n_slots, .max_positions = 128, .max_rows = MAX_ROWS, .max_logits = MAX_ROWS};
    struct pva_session *session = NULL;
    CHECK_OK(pva_session_open(model, &s, &session, &err), err);
    CHECK_FATAL(session);
    return session;
}

static struct pva_buffer *upload(const void *data, size_t bytes) {
    struct pva_buffer *b = NULL;
    CHECK_OK(op->alloc(be, bytes, &b, &err), err);
    CHECK_OK(op->upload(be, (struct pva_tensor){b, 0, PVA_U8, 1, (int64_t)bytes}, data, &err), err);
    return b;
}

/* Returns 1 and says where when a stage differs by more than the limit. */
static int stage_drifts(const char *what, int layer, const float *actual, const float *want, size_t n, double limit) {
    double error = check_relative_error(actual, want, n);
    check_count++;
    if (error <= limit) return 0;
    check_fail();
    fprintf(stderr, "%s: first drift at layer %d, %s: relative error %.3g, limit %.3g\n", name, layer, what, error, limit);
    return 1;
}

static void test_stages(double limit) {
    const struct pva_model_config *c = pva_model_get_config(model);
    int64_t n;
    const int32_t *tokens = golden_i32("tokens", &n);
    size_t per_layer = (size_t)n * (size_t)c->d_model;
    int32_t rows[MAX_ROWS], slots[MAX_ROWS] = {0};
    unsigned char *layers = malloc((size_t)c->n_layers);
    float *want[PVA_N_POINTS], *host = malloc(per_layer * (size_t)c->n_layers * sizeof *host), *logits = malloc((size_t)(n * c->n_vocab) * 4);
    struct pva_buffer *stream[PVA_N_POINTS] = {0};
    struct pva_hook hooks[PVA_N_POINTS];
    memset(layers, 1, (size_t)c->n_layers);
    for (int i = 0; i < MAX_ROWS; i++) rows[i] = i;
    struct pva_buffer *index = upload(rows, sizeof rows);
    for (int p = 0; p < PVA_N_POINTS; p++) {
        CHECK_OK(op->alloc(be, per_layer * (size_t)c->n_layers * 4, &stream[p], &err), err);
        hooks[p] = (struct pva_hook){.point = (enum pva_point)p, .action = PVA_HOOK_CAPTURE, .layers = layers, .rows = {index, 0, PVA_I32, n, 1},
                                     .captured = {stream[p], 0, PVA_F32, c->n_layers * n, c->d_model}};
        want[p] = golden_f32(pva_point_name((enum pva_point)p));
    }
    struct pva_session *s = open_session(1);
    CHECK_INT(pva_session_claim(s), 0);
    CHECK(pva_session_reserve(s, 0, n));
    pva_session_want(s, rows, n, NULL, NULL);
    CHECK_OK(pva_session_append(s, n, tokens, slots, hooks, PVA_N_POINTS, &err), err);
    CHECK_OK(pva_session_read_logits(s, n, logits, &err), err);
    for (int p = 0; p < PVA_N_POINTS; p++) {
        CHECK_INT(hooks[p].calls, c->n_layers * n);
        CHECK_INT(pva_session_visits(s, (enum pva_point)p), c->n_layers * n);
    }
    int drifted = 0;
    float *got[PVA_N_POINTS];
    for (int p = 0; p < PVA_N_POINTS; p++) {
        CHECK_OK(op->download(be, hooks[p].captured, host, &err), err);
        got[p] = malloc(per_layer * (size_t)c->n_layers * 4);
        memcpy(got[p], host, per_layer * (size_t)c->n_layers * 4);
    }
    for (int l = 0; l < c->n_layers && !drifted; l++)
        for (int p = 0; p < PVA_N_POINTS && !drifted; p++)
            drifted = stage_drifts(pva_point_name((enum pva_point)p), l, got[p] + (size_t)l * per_layer, want[p] + (size_t)l * per_layer, per_layer, limit);
    float *want_logits = golden_f32("logits");
    if (!drifted) stage_drifts("logits", c->n_layers, logits, want_logits, (size_t)(n * c->n_vocab), limit);
    /* The same best token wherever the reference's margin exceeds what the limit allows. */
    double scale = 0;
    for (int64_t i = 0; i < n * c->n_vocab; i++) scale = fabs((double)want_logits[i]) > scale ? fabs((double)want_logits[i]) : scale;
    for (int64_t r = 0; r < n; r++) {
        const float *a = logits + r * c->n_vocab, *b = want_logits + r * c->n_vocab;
        int64_t best = 0, second = -1, mine = 0;
        for (int64_t i = 1; i < c->n_vocab; i++) {
            if (b[i] > b[best]) second = best, best = i;
            else if (second < 0 || b[i] > b[second]) second = i;
            if (a[i] > a[mine]) mine = i;
        }
        if ((double)b[best] - b[second] > 2 * limit * scale) CHECK_INT(mine, best);
    }
    for (int p = 0; p < PVA_N_POINTS; p++) {
        op->free(be, &stream[p]);
        free(want[p]);
        free(got[p]);
    }
    op->free(be, &index);
    pva_session_close(&s);
    free(layers), free(host), free(logits), free(want_logits);
}

/* Three sequences of different lengths in one pass, their rows interleaved. n_compared: how many of them the limit is meant for (how
 * far transformers' bfloat16 run is off is known for the first only). */
static void test_ragged(double limit, int n_compared) {
    const char *const keys[3][2] = {{"tokens", "logits"}, {"ragged0_tokens", "ragged0_logits"}, {"ragged1_tokens", "ragged1_logits"}};
    const struct pva_model_config *c = pva_model_get_config(model);
    const int32_t *ids[3];
    int64_t n[3], at[3] = {0}, total = 0;
    int32_t tokens[MAX_ROWS], slots[MAX_ROWS], rows[MAX_ROWS];
    struct pva_session *s = open_session(3);
    for (int i = 0; i < 3; i++) {
        ids[i] = golden_i32(keys[i][0], &n[i]);
        CHECK_INT(pva_session_claim(s), i);
        CHECK(pva_session_reserve(s, i, n[i]));
    }
    for (int more = 1; more;) {
        more = 0;
        for (int i = 0; i < 3; i++)
            if (at[i] < n[i]) {
                tokens[total] = ids[i][at[i]++];
                slots[total] = i;
                rows[total] = (int32_t)total;
                total++;
                more = 1;
            }
    }
    float *logits = malloc((size_t)(total * c->n_vocab) * 4), *mine = malloc((size_t)(total * c->n_vocab) * 4);
    pva_session_want(s, rows, total, NULL, NULL);
    CHECK_OK(pva_session_append(s, total, tokens, slots, NULL, 0, &err), err);
    CHECK_OK(pva_session_read_logits(s, total, logits, &err), err);
    for (int i = 0; i < n_compared; i++) {
        int64_t k = 0;
        for (int64_t r = 0; r < total; r++)
            if (slots[r] == i) memcpy(mine + k++ * c->n_vocab, logits + r * c->n_vocab, (size_t)c->n_vocab * 4);
        float *want = golden_f32(keys[i][1]);
        stage_drifts(keys[i][1], c->n_layers, mine, want, (size_t)(n[i] * c->n_vocab), limit);
        free(want);
    }
    free(logits), free(mine);
    pva_session_close(&s);
}

static void test_steered_logits(double limit) {
    const struct pva_model_config *c = pva_model_get_config(model);
    int64_t n, one;
    const int32_t *tokens = golden_i32("tokens", &n), *layer = golden_i32("steer_layer", &one);
    float *vector = golden_f32("steer_vector"), *coefficient = golden_f32("steer_coefficient"), *want = golden_f32("steered_logits");
    float *logits = malloc((size_t)(n * c->n_vocab) * 4), coefficients[MAX_ROWS];
    int32_t which[MAX_ROWS] = {0}, slots[MAX_ROWS] = {0}, rows[MAX_ROWS];
    unsigned char *layers = calloc((size_t)c->n_layers, 1);
    layers[*layer] = 1;
    for (int i = 0; i < MAX_ROWS; i++) rows[i] = i, coefficients[i] = coefficient[0];
    struct pva_buffer *d = upload(vector, (size_t)c->d_model * 4), *w = upload(which, sizeof which), *k = upload(coefficients, sizeof coefficients);
    struct pva_hook hook = {.point = PVA_RESID_POST, .action = PVA_HOOK_ADD, .layers = layers, .directions = {d, 0, PVA_F32, 1, c->d_model},
                            .which = {w, 0, PVA_I32, n, 1}, .coefficients = {k, 0, PVA_F32, n, 1}};
    struct pva_session *s = open_session(1);
    pva_session_claim(s);
    CHECK(pva_session_reserve(s, 0, n));
    pva_session_want(s, rows, n, NULL, NULL);
    CHECK_OK(pva_session_append(s, n, tokens, slots, &hook, 1, &err), err);
    CHECK_OK(pva_session_read_logits(s, n, logits, &err), err);
    CHECK_INT(hook.calls, n);
    stage_drifts("steered logits", *layer, logits, want, (size_t)(n * c->n_vocab), limit);
    op->free(be, &d), op->free(be, &w), op->free(be, &k);
    pva_session_close(&s);
    free(vector), free(coefficient), free(want), free(logits), free(layers);
}

struct text {
    const char *prompt, *want;
    int intervention;
    int compared;
};

static struct text texts[] = {
    {"tokens", "greedy_tokens", -1, 0},         {"ragged0_tokens", "ragged0_greedy_tokens", -1, 0}, {"ragged1_tokens", "ragged1_greedy_tokens", -1, 0},
    {"tokens", "steered_all_greedy", 0, 0}, {"tokens", "steered_last_greedy", 1, 0},
};
enum { N_TEXTS = sizeof texts / sizeof *texts };

static void on_done(void *user, const struct pva_completion *done) {
    (void)user;
    int64_t n;
    const int32_t *want = golden_i32(texts[done->id].want, &n);
    /* The reference went on after an EOS. */
    CHECK(done->n_tokens == n || done->finish == PVA_FINISH_EOS);
    for (int64_t i = 0; i < done->n_tokens; i++)
        if (done->tokens[i] != want[i]) {
            check_fail();
            fprintf(stderr, "%s: %s: token %lld is %d, expected %d\n", name, texts[done->id].want, (long long)i, done->tokens[i], want[i]);
            break;
        }
    texts[done->id].compared = 1;
}

/* All five texts in one batch, steered and not, prompts cut into pieces. */
static void test_greedy(int64_t max_rows) {
    int64_t n_new, one;
    golden_i32("greedy_tokens", &n_new);
    float *vector = golden_f32("steer_vector"), *coefficient = golden_f32("steer_coefficient");
    struct pva_intervention interventions[2] = {
        {.point = PVA_RESID_POST, .layer = *golden_i32("steer_layer", &one), .action = PVA_HOOK_ADD, .positions = PVA_POSITIONS_ALL, .n_directions = 1, .directions = vector},
    };
    interventions[1] = interventions[0];
    interventions[1].positions = PVA_POSITIONS_LAST;
    struct pva_generator_settings settings = {
        .session = {.n_slots = 3, .max_positions = 128, .max_rows = max_rows},
        .interventions = interventions,
        .n_interventions = 2,
        .events = {.on_done = on_done},
    };
    struct pva_generator *g = NULL;
    CHECK_OK(pva_generator_open(model, &settings, &g, &err), err);
    CHECK_FATAL(g);
    for (int i = 0; i < N_TEXTS; i++) {
        int64_t n;
        const int32_t *ids = golden_i32(texts[i].prompt, &n);
        struct pva_request r = {.id = i, .prompt = ids, .n_prompt = n, .max_tokens = n + n_new, .intervention = texts[i].intervention, .coefficient = coefficient[0]};
        texts[i].compared = 0;
        CHECK_OK(pva_generator_submit(g, &r, &err), err);
    }
    for (int busy = 1; busy && !err.code;) CHECK_OK(pva_generator_step(g, &busy, &err), err);
    for (int i = 0; i < N_TEXTS; i++) CHECK_INT(texts[i].compared, 1);
    pva_generator_close(&g);
    free(vector), free(coefficient);
}

static void test_folder(const char *folder, const char *isa) {
    char path[4200];
    snprintf(path, sizeof path, "%s/expected.safetensors", folder);
    CHECK_OK(pva_tensorfile_open(path, &expected, &err), err);
    CHECK_FATAL(expected);
    for (int bf16 = isa && GOLDEN_QUICK; bf16 < 2; bf16++) {
        struct pva_backend_settings settings = {.n_threads = 1, .isa = isa};
        CHECK_OK(op->open(&settings, &be, &err), err);
        CHECK_OK(pva_model_open(folder, op, be, bf16 ? PVA_BF16 : PVA_F32, &model, &err), err);
        CHECK_FATAL(model);
        double limit = F32_LIMIT;
        if (bf16) {
            float *theirs = golden_f32("logits_bf16"), *exact = golden_f32("logits");
            double distance = check_relative_error(theirs, exact, (size_t)golden("logits")->n_elements);
            limit = distance > BF16_LIMIT ? distance : BF16_LIMIT;
            printf("%s: bf16 limit %.3g (transformers' own distance %.3g)\n", name, limit, distance);
            free(theirs), free(exact);
        }
        test_stages(limit);
        test_ragged(limit, limit > BF16_LIMIT ? 1 : 3);
        test_steered_logits(limit);
        if (!bf16 && !GOLDEN_QUICK) test_greedy(64);
        if (!bf16 && (!GOLDEN_QUICK || !strcmp(name, "gemma2-gqa2") || !strcmp(name, "gemma2-window"))) test_greedy(5);
        pva_model_close(&model);
        op->close(&be);
    }
    pva_tensorfile_close(&expected);
}

int main(void) {
    const char *source = getenv("PVA_TEST_SOURCE"), *backend = getenv("PVA_TEST_BACKEND");
    char root[4096], folder[4400];
    op = backend ? pva_backend_find(backend, &err) : GOLDEN_BACKEND(&err);
    if (!op) {
        CHECK_SKIP("%s", err.msg);
        return 77;
    }
    snprintf(root, sizeof root, "%s/tests/golden", source ? source : ".");
    DIR *d = opendir(root);
    CHECK_FATAL(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (strncmp(e->d_name, "gemma2-", 7)) continue;
        snprintf(folder, sizeof folder, "%s/%s", root, e->d_name);
        name = e->d_name;
        test_folder(folder, NULL);
        if (!GOLDEN_QUICK || !strcmp(name, "gemma2-gqa2")) test_folder(folder, op == &pva_backend_cpu ? "c" : "portable");
        n++;
    }
    closedir(d);
    CHECK(n >= 4);
    return check_report(GOLDEN_NAME);
}
