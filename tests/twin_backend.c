/* The CUDA backend as a whole: memory, limits, transfers larger than the pinned ring, errors that a kernel met, and the same bits of a
 * model's logits alone, in pieces, in a ragged batch and on pages of others, with tensor cores and without. */
#include "backend_cuda.h"
#include "twin.h"

#include "pva/session.h"

static struct pva_error err;
static const struct pva_backend_ops *op;
static struct pva_backend *be;

static void open_backend(size_t limit, const char *isa) {
    struct pva_backend_settings settings = {.memory_limit = limit, .isa = isa};
    err = (struct pva_error){0};
    CHECK_OK(op->open(&settings, &be, &err), err);
    CHECK_FATAL(be);
}

static void check_open(void) {
    struct pva_backend_info info;
    struct pva_backend *none = NULL;
    err = (struct pva_error){0};
    CHECK(op->count && op->count() >= 1);
    CHECK_INT(op->open(&(struct pva_backend_settings){.device = op->count()}, &none, &err), PVA_USAGE);
    CHECK_HAS(err.msg, "is asked for, this process sees");
    err = (struct pva_error){0};
    CHECK_INT(op->open(&(struct pva_backend_settings){.isa = "avx2"}, &none, &err), PVA_USAGE);
    CHECK(!none);
    open_backend(0, NULL);
    op->describe(be, &info);
    CHECK_HAS(info.device, "(sm_");
    CHECK_HAS(info.versions, "CUDA ");
    CHECK_INT(strlen(info.id), 32);
    CHECK(info.isa[0] != 0);
    CHECK(info.memory_total > 0 && info.memory_used < 1 << 20 && info.n_threads == 0);
    op->close(&be);
    CHECK(!be);
    op->close(&be);
}

/* 40 MB through a ring of 16 MB and back, at odd offsets; new memory is zero. */
static void check_transfers(void) {
    enum { BYTES = (40 << 20) + 13 };
    open_backend(0, NULL);
    unsigned char *host = twin_alloc(BYTES), *back = twin_alloc(BYTES);
    struct pva_buffer *a = NULL, *b = NULL;
    for (int i = 0; i < BYTES; i++) host[i] = (unsigned char)((unsigned)i * 2654435761u >> 24);
    CHECK_OK(op->bind(be, host, BYTES, &a, &err), err);
    CHECK_OK(op->download(be, (struct pva_tensor){a, 0, PVA_U8, 1, BYTES}, back, &err), err);
    CHECK(memcmp(host, back, BYTES) == 0);
    CHECK_OK(op->alloc(be, 5000, &b, &err), err);
    CHECK_OK(op->download(be, (struct pva_tensor){b, 0, PVA_U8, 1, 5000}, back, &err), err);
    int zero = 1;
    for (int i = 0; i < 5000; i++) zero &= back[i] == 0;
    CHECK(zero);
    /* More small uploads than slots, each from memory that is changed at once. */
    for (int i = 0; i < 100; i++) {
        int32_t v = 1000 + i;
        CHECK_OK(op->upload(be, (struct pva_tensor){b, (size_t)(4 * i), PVA_I32, 1, 1}, &v, &err), err);
        v = -1;
    }
    int32_t all[100];
    CHECK_OK(op->download(be, (struct pva_tensor){b, 0, PVA_I32, 100, 1}, all, &err), err);
    int wrong = 0;
    for (int i = 0; i < 100; i++) wrong += all[i] != 1000 + i;
    CHECK_INT(wrong, 0);
    CHECK_OK(op->download(be, (struct pva_tensor){b, 0, PVA_I32, 0, 1}, all, &err), err);
    CHECK_OK(op->sync(be, &err), err);
    op->free(be, &a), op->free(be, &b);
    CHECK(!a && !b);
    op->free(be, &a);
    free(host), free(back);
    op->close(&be);
}

/* A readback sees the tensor as it was when it began, is not touched by what follows, and is there after its wait; two take turns. */
static void check_readbacks(void) {
    enum { N = 1000 };
    struct pva_buffer *src[2] = {0}, *ids = NULL, *ones = NULL, *other = NULL;
    struct pva_readback *r[2] = {0}, *never = NULL;
    const void *host;
    float *value = twin_alloc(N * 4);
    open_backend(0, NULL);
    CHECK_OK(op->readback_open(be, 10, &never, &err), err);
    CHECK_OK(op->bind(be, (int32_t[N]){0}, N * 4, &ids, &err), err);
    CHECK_OK(op->alloc(be, N * 4, &ones, &err), err);
    CHECK_OK(op->alloc(be, N * 4, &other, &err), err);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(op->readback_open(be, N * 4, &r[i], &err), err);
        CHECK_OK(op->alloc(be, N * 4, &src[i], &err), err);
    }
    for (int turn = 0; turn < 6; turn++) {
        int wrong = 0, now = turn % 2;
        for (int i = 0; i < N; i++) value[i] = (float)(turn * N + i);
        CHECK_OK(op->upload(be, (struct pva_tensor){ones, 0, PVA_F32, 1, N}, value, &err), err);
        /* The operation that writes the tensor has only been asked for when the readback begins. */
        CHECK_OK(op->gather_rows(be, (struct pva_tensor){ones, 0, PVA_F32, 1, N}, (struct pva_tensor){ids, 0, PVA_I32, 1, 1},
                                 (struct pva_tensor){src[now], 0, PVA_F32, 1, N}, &err), err);
        CHECK_OK(op->readback_begin(be, r[now], (struct pva_tensor){src[now], 0, PVA_F32, 1, N - turn}, &err), err);
        if (turn == 0) continue;
        /* Nor does what was asked for since then wait for the host. */
        CHECK_OK(op->gather_rows(be, (struct pva_tensor){ones, 0, PVA_F32, 1, N}, (struct pva_tensor){ids, 0, PVA_I32, 1, 1},
                                 (struct pva_tensor){other, 0, PVA_F32, 1, N}, &err), err);
#ifdef PVA_SIMT
        uint64_t started = simt_submissions();
#endif
        CHECK_OK(op->readback_wait(be, r[!now], &host, &err), err);
#ifdef PVA_SIMT
        CHECK_INT(simt_submissions() - started, 1);
#endif
        for (int i = 0; i < N - turn + 1; i++) wrong += ((const float *)host)[i] != (float)((turn - 1) * N + i);
        CHECK_INT(wrong, 0);
    }
    for (int i = 0; i < 2; i++) {
        op->free(be, &src[i]);
        op->readback_close(be, &r[i]); /* one of them was never waited for */
        op->readback_close(be, &r[i]);
        CHECK(!r[i]);
    }
    op->readback_close(be, &never);
    op->free(be, &ids), op->free(be, &ones), op->free(be, &other);
    free(value);
    op->close(&be);
}

static struct pva_tensor new_tensor(struct pva_buffer **keep, const void *host, enum pva_dtype dtype, int64_t rows, int64_t cols) {
    size_t bytes = (size_t)(rows * cols) * pva_dtype_size(dtype);
    if (host) CHECK_OK(op->bind(be, host, bytes, keep, &err), err);
    else CHECK_OK(op->alloc(be, bytes, keep, &err), err);
    return (struct pva_tensor){*keep, 0, dtype, rows, cols};
}

/* The kernels' work memory grows between two operations, of which the first has not started yet. */
static void check_growing_work(void) {
    enum { K = 2048, M = 16, ROWS = 8, HEADS = 8, D = 16, PAGES = 2000, PAGE = 32 };
    struct pva_buffer *b[9] = {0};
    float *x = twin_alloc(K * 4), *w = twin_alloc(M * K * 4), y[M];
    int32_t positions[ROWS];
    int wrong = 0;
    for (int i = 0; i < K; i++) x[i] = 1;
    for (int i = 0; i < M * K; i++) w[i] = (float)(i / K);
    for (int i = 0; i < ROWS; i++) positions[i] = i;
    open_backend(0, NULL);
    struct pva_tensor tx = new_tensor(&b[0], x, PVA_F32, 1, K), tw = new_tensor(&b[1], w, PVA_F32, M, K), ty = new_tensor(&b[2], NULL, PVA_F32, 1, M);
    struct pva_tensor q = new_tensor(&b[3], NULL, PVA_F32, ROWS, HEADS * D), out = new_tensor(&b[4], NULL, PVA_F32, ROWS, HEADS * D);
    struct pva_tensor slots = new_tensor(&b[5], NULL, PVA_I32, ROWS, 1), at = new_tensor(&b[6], positions, PVA_I32, ROWS, 1);
    struct pva_tensor cache = new_tensor(&b[7], NULL, PVA_F32, PAGE, D), table = new_tensor(&b[8], NULL, PVA_I32, 1, PAGES);
    const struct pva_kv_cache kv = {.k = cache, .v = cache, .page_table = table, .n_layers = 1, .n_pages = 1, .page_size = PAGE, .n_kv_heads = 1, .d_head = D};
    const struct pva_attention_shape shape = {.n_heads = HEADS, .n_kv_heads = 1, .d_head = D, .scale = 1};
    struct pva_backend_info before, after;
    CHECK_OK(op->linear(be, tx, tw, ty, &err), err);
    op->describe(be, &before);
    CHECK_OK(op->attention(be, q, slots, at, &shape, &kv, 0, out, &err), err);
    op->describe(be, &after);
    CHECK(after.memory_used > before.memory_used);
    CHECK_OK(op->download(be, ty, y, &err), err);
    for (int i = 0; i < M; i++) wrong += y[i] != (float)(i * K);
    CHECK_INT(wrong, 0);
    for (int i = 0; i < 9; i++) op->free(be, &b[i]);
    free(x), free(w);
    op->close(&be);
}

static void check_limit(void) {
    struct pva_buffer *a = NULL, *b = NULL;
    struct pva_backend_info info;
    open_backend(3 << 20, NULL);
    CHECK_OK(op->alloc(be, 2 << 20, &a, &err), err);
    CHECK_INT(op->alloc(be, 2 << 20, &b, &err), PVA_IO);
    CHECK_HAS(err.msg, "--gpu-memory");
    CHECK(!b);
    op->free(be, &a);
    err = (struct pva_error){0};
    CHECK_OK(op->alloc(be, 2 << 20, &b, &err), err);
    op->describe(be, &info);
    CHECK(info.memory_used >= 2 << 20 && info.memory_used <= 3 << 20);
    op->free(be, &b);
    CHECK_INT(op->alloc(be, (size_t)1 << 60, &b, &err), PVA_IO);
    op->close(&be);
}

/* What a kernel met is told by the next download, once. */
static void check_faults(void) {
    const int32_t ids[3] = {0, 7, 2};
    struct pva_buffer *i = NULL, *table = NULL, *y = NULL;
    float out[12];
    open_backend(0, NULL);
    CHECK_OK(op->bind(be, ids, sizeof ids, &i, &err), err);
    CHECK_OK(op->alloc(be, 5 * 4 * 4, &table, &err), err);
    CHECK_OK(op->alloc(be, sizeof out, &y, &err), err);
    struct pva_tensor result = {y, 0, PVA_F32, 3, 4};
    CHECK_OK(op->embed(be, (struct pva_tensor){i, 0, PVA_I32, 3, 1}, (struct pva_tensor){table, 0, PVA_F32, 5, 4}, 1, 0, result, &err), err);
    CHECK_INT(op->download(be, result, out, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "outside of the vocabulary: 7");
    err = (struct pva_error){0};
    CHECK_OK(op->download(be, result, out, &err), err);
    op->free(be, &i), op->free(be, &table), op->free(be, &y);
    op->close(&be);
}

enum { LENGTH = 23, OTHER = 9 };

/* Logits of LENGTH tokens, `piece` at a time; with another sequence's rows between them, in a slot that is not the first, when beside is set. */
static void logits_of(const struct pva_model *m, const int32_t *tokens, int piece, int beside, float *out) {
    const struct pva_model_config *c = pva_model_get_config(m);
    struct pva_session_settings settings = {.n_slots = 2, .max_positions = 64, .max_rows = 64, .max_logits = 64};
    struct pva_session *s = NULL;
    CHECK_OK(pva_session_open(m, &settings, &s, &err), err);
    CHECK_FATAL(s);
    int32_t ids[64], slots[64], rows[64];
    int first = pva_session_claim(s), mine = first;
    if (beside) {
        mine = pva_session_claim(s);
        CHECK(pva_session_reserve(s, first, OTHER));
    }
    CHECK(pva_session_reserve(s, mine, LENGTH));
    for (int at = 0, other = 0; at < LENGTH;) {
        int n = 0, mine_n = 0;
        for (int i = 0; i < piece && at < LENGTH; i++, at++) {
            if (beside && other < OTHER && i % 2 == 0) ids[n] = tokens[LENGTH - 1 - other++], slots[n++] = first;
            rows[mine_n++] = n;
            ids[n] = tokens[at], slots[n++] = mine;
        }
        pva_session_want(s, rows, mine_n, NULL, NULL);
        CHECK_OK(pva_session_append(s, n, ids, slots, NULL, 0, &err), err);
        CHECK_OK(pva_session_read_logits(s, mine_n, out + (int64_t)(at - mine_n) * c->n_vocab, &err), err);
    }
    pva_session_close(&s);
}

/* Three sequences of the same tokens in one pass: one computes them, one takes over a page in all layers, and one in the first layer only and enters
 * there. A change that is none gives the third pages of its own with the same bits. */
static void check_shared(const struct pva_model *m) {
    enum { N = 40, PAGE = 32, TAIL = N - PAGE, ROWS = 2 * N + TAIL };
    static const int split = 1;
    static const uint64_t changes[2][N] = {{0}, {[0 ... N - 1] = 7}};
    struct pva_session_settings settings = {.n_slots = 6, .max_positions = 64, .max_rows = ROWS, .max_logits = ROWS, .splits = &split, .n_splits = 1};
    struct pva_session *s = NULL;
    size_t vocab = (size_t)pva_model_get_config(m)->n_vocab;
    float *logits = twin_alloc(ROWS * vocab * 4);
    int32_t ids[N], rows[ROWS];
    for (int i = 0; i < N; i++) ids[i] = 3 + i * 37 % 200;
    for (int i = 0; i < ROWS; i++) rows[i] = i;
    CHECK_OK(pva_session_open(m, &settings, &s, &err), err);
    CHECK_FATAL(s);
    for (int slot = 0; slot < 3; slot++) {
        CHECK_INT(pva_session_claim(s), slot);
        CHECK_INT(pva_session_share(s, slot, ids, changes[slot == 2], split, N - 1), slot == 1 ? PAGE : 0);
        CHECK(pva_session_reserve(s, slot, N));
        for (int i = slot ? PAGE : 0; i < N; i++) pva_session_add(s, slot, i, ids[i], changes[slot == 2][i], split);
    }
    CHECK_INT(pva_session_enters(s, 2, 0), split);
    for (int i = 0; i < PAGE; i++) pva_session_add(s, 2, i, ids[i], changes[1][i], split);
    pva_session_want(s, rows, ROWS, NULL, NULL);
    CHECK_OK(pva_session_run(s, NULL, 0, &err), err);
    CHECK_INT(pva_session_visits(s, PVA_RESID_PRE), pva_model_get_config(m)->n_layers * ROWS - split * PAGE);
    CHECK_OK(pva_session_read_logits(s, ROWS, logits, &err), err);
    CHECK(fabsf(logits[5]) > 0);
    CHECK_INT(twin_differ_bits(logits + N * vocab, logits + PAGE * vocab, TAIL * vocab), 0);
    CHECK_INT(twin_differ_bits(logits + (N + TAIL) * vocab, logits + PAGE * vocab, TAIL * vocab), 0);
    CHECK_INT(twin_differ_bits(logits + (N + 2 * TAIL) * vocab, logits, PAGE * vocab), 0);
    CHECK(twin_differ_bits(logits + PAGE * vocab, logits, TAIL * vocab) > 0);
    free(logits);
    pva_session_close(&s);
}

static struct pva_tensor window(struct pva_buffer *b, size_t at, enum pva_dtype type, int64_t rows, int64_t cols) {
    return (struct pva_tensor){b, at, type, rows, cols};
}

/* GeGLU and soft-cap right behind a product become its end, and only of just that product: the same bits as after a wait, whichever way they go. */
static void check_ends(void) {
    enum { N = 3, K = 24, M = 21, X = N * K * 4, Y = N * M * 4, GAP = 1024 };
    struct pva_buffer *w[2] = {0}, *all = NULL;
    float x[N * K], weights[2][M * K], y[2][N * M];
    for (int i = 0; i < N * K; i++) x[i] = (float)pva_rng_normal(3, PVA_RNG_WEIGHTS, 0, 0, (uint32_t)i);
    for (int i = 0; i < 2 * M * K; i++) weights[i / (M * K)][i % (M * K)] = (float)pva_rng_normal(3, PVA_RNG_WEIGHTS, 1, 0, (uint32_t)i);
    open_backend(0, NULL);
    for (int i = 0; i < 2; i++) CHECK_OK(op->bind(be, weights[i], sizeof weights[i], &w[i], &err), err);
    CHECK_OK(op->alloc(be, 4 * GAP, &all, &err), err);
    const struct pva_tensor in = window(all, 0, PVA_F32, N, K), gate = window(all, GAP, PVA_F32, N, M), up = window(all, 2 * GAP, PVA_F32, N, M);
    const struct pva_tensor matrices[] = {window(w[0], 0, PVA_F32, M, K), window(w[1], 0, PVA_F32, M, K)}, sums[] = {gate, up};
    /* What follows the two products: GeGLU of just them, the other way round, into x, into gate; of a part of them; after a third operation. */
    static const struct {
        int swapped, rows, between, kernels;
        size_t to;
    } cases[] = {{0, N, 0, 1, 3 * GAP}, {1, N, 0, 2, 3 * GAP}, {0, N, 0, 2, X - 4}, {0, N, 0, 1, GAP}, {0, N - 1, 0, 2, 3 * GAP}, {0, N, 1, 3, 3 * GAP}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const int64_t rows = cases[c].rows;
        const struct pva_tensor out = window(all, cases[c].to, PVA_F32, rows, M), first = window(all, cases[c].swapped ? 2 * GAP : GAP, PVA_F32, rows, M),
                                second = window(all, cases[c].swapped ? GAP : 2 * GAP, PVA_F32, rows, M);
        for (int apart = 0; apart < 2; apart++) {
            CHECK_OK(op->upload(be, in, x, &err), err);
            CHECK_OK(op->upload(be, window(all, 3 * GAP, PVA_F32, N, M), (float[N * M]){0}, &err), err);
#ifdef PVA_SIMT
            const uint64_t before = simt_launches();
#endif
            CHECK_OK(op->linears(be, in, matrices, sums, 2, &err), err);
            if (apart) CHECK_OK(op->sync(be, &err), err);
            if (cases[c].between) CHECK_OK(op->softcap(be, window(all, 3 * GAP, PVA_F32, N, M), 1, &err), err);
            CHECK_OK(op->geglu(be, first, second, out, &err), err);
            CHECK_OK(op->download(be, out, y[apart], &err), err);
#ifdef PVA_SIMT
            CHECK_INT(simt_launches() - before, apart ? 2 + cases[c].between : cases[c].kernels);
#endif
        }
        CHECK_INT(twin_differ_bits(y[0], y[1], (size_t)(rows * M)), 0);
        int some = 0;
        for (int i = 0; i < rows * M; i++) some += y[0][i] != 0;
        CHECK(some > rows * M / 2);
    }
    /* The soft-cap of one product, of a part of it, of another tensor, twice. */
    for (int part = 0; part < 4; part++) {
        const int64_t rows = part == 1 ? N - 1 : N;
        for (int apart = 0; apart < 2; apart++) {
            CHECK_OK(op->upload(be, in, x, &err), err);
#ifdef PVA_SIMT
            const uint64_t before = simt_launches();
#endif
            CHECK_OK(op->linear(be, in, matrices[0], gate, &err), err);
            if (apart) CHECK_OK(op->sync(be, &err), err);
            CHECK_OK(op->softcap(be, window(all, part == 2 ? 2 * GAP : GAP, PVA_F32, rows, M), 2, &err), err);
            if (part == 3) CHECK_OK(op->softcap(be, gate, 0.5f, &err), err);
            CHECK_OK(op->download(be, gate, y[apart], &err), err);
#ifdef PVA_SIMT
            CHECK_INT(simt_launches() - before, (part ? 2 : 1) + (apart && (!part || part == 3)));
#endif
        }
        CHECK_INT(twin_differ_bits(y[0], y[1], N * M), 0);
        int above = 0;
        for (int i = 0; i < N * M; i++) above += fabsf(y[0][i]) > (part == 3 ? 0.5f : 2.0f);
        CHECK(part == 1 || part == 2 ? above > 0 : above == 0);
    }
    for (int i = 0; i < 2; i++) op->free(be, &w[i]);
    op->free(be, &all);
    op->close(&be);
}

static void check_invariance(const char *isa) {
    const char *source = getenv("PVA_TEST_SOURCE");
    char folder[4096];
    struct pva_model *m = NULL;
    snprintf(folder, sizeof folder, "%s/tests/golden/gemma2-window", source ? source : ".");
    open_backend(0, isa);
    CHECK_OK(pva_model_open(folder, op, be, PVA_BF16, &m, &err), err);
    CHECK_FATAL(m);
    size_t all = (size_t)(LENGTH * pva_model_get_config(m)->n_vocab);
    int32_t tokens[LENGTH];
    float *whole = twin_alloc(all * 4), *other = twin_alloc(all * 4);
    for (int i = 0; i < LENGTH; i++) tokens[i] = 3 + i * 37 % 200;
    logits_of(m, tokens, LENGTH, 0, whole);
    CHECK(fabsf(whole[5]) > 0);
    for (int i = 0; i < 4; i++) {
        static const int pieces[4] = {1, 5, LENGTH, 2};
        logits_of(m, tokens, pieces[i], i >= 2, other);
        CHECK_INT(twin_differ_bits(other, whole, all), 0);
    }
    tokens[LENGTH - 1]++;
    logits_of(m, tokens, LENGTH, 0, other);
    CHECK(twin_differ_bits(other, whole, all) > 0);
    free(whole), free(other);
    check_shared(m);
    pva_model_close(&m);
    op->close(&be);
}

int main(void) {
    twin_start();
    op = pva_backend_cuda_find(&err);
    CHECK_FATAL(op);
    check_open();
    check_transfers();
    check_readbacks();
    check_ends();
    check_growing_work();
    check_limit();
    check_faults();
    check_invariance(NULL);
    check_invariance("portable");
#ifdef PVA_SIMT
    CHECK_INT(simt_device_bytes(), 0); /* everything was given back */
#endif
    return check_report("twin_backend");
}
