#include "pva/synth.h"
#include "check.h"
#include "scratch.h"

#include <omp.h>
#include <signal.h>
#include <sys/resource.h>

static struct pva_model_config small_config(void) {
    struct pva_error err = {0};
    struct pva_model_config c;
    CHECK_OK(pva_model_config_preset("gemma-2-2b", &c, &err), err);
    c.n_layers = 3;
    c.d_model = 64;
    c.d_ff = 160;
    c.n_heads = 4;
    c.n_kv_heads = 2;
    c.d_head = 16;
    c.n_vocab = 512;
    return c;
}

static float *values_of(const struct pva_model_config *c, int i, uint64_t seed, int64_t n) {
    float *v = malloc((size_t)n * sizeof *v);
    CHECK_FATAL(v != NULL);
    pva_synth_values(c, i, seed, 0, n, v);
    return v;
}

/* The same formula in another language (Python integers) gave these sums of bytes: the generator must never drift unseen. */
static void test_known_values(void) {
    static const struct {
        uint64_t seed;
        int tensor;
        int64_t element;
        int bell;
    } known[] = {
        {0ull, 0, 0, -90},
        {0ull, 0, 1, -29},
        {0ull, 1, 5, -171},
        {5ull, 8, 4095, 126},
        {5ull, 8, 4096, 23},
        {1099511627779ull, 9, 9999, 24},
        {12345678901ull, 34, 47, 47},
    };
    struct pva_model_config c = small_config();
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct pva_model_tensor t;
        float v;
        pva_model_config_tensor(&c, known[i].tensor, &t);
        double sd = t.role == PVA_EMBED ? 0.25 / sqrt(64) : t.n_dims == 2 ? 1 / sqrt((double)t.shape[1]) : 0.1;
        double mean = t.role == PVA_FINAL_NORM ? 7 : 0;
        pva_synth_values(&c, known[i].tensor, known[i].seed, known[i].element, 1, &v);
        /* one rounding of the scale, one of the product, one of the sum */
        CHECK_NEAR(v, mean + sd * known[i].bell / sqrt(21845.0), 4 * 0x1p-24 * (mean + 3.5 * sd));
    }
}

/* Mean, spread and shape within 5 standard errors, and no relation between neighbours, tensors or seeds. */
static void test_distribution(void) {
    struct pva_model_config c = small_config();
    c.n_vocab = 20000;
    const int64_t n = 20000 * 64;
    float *a = values_of(&c, 0, 1, n), *b = values_of(&c, 0, 2, n);
    double sd = 0.25 / 8, sum = 0, squares = 0, fourth = 0, largest = 0;
    double lag1 = 0, lag4096 = 0, seeds = 0;
    for (int64_t i = 0; i < n; i++) {
        double z = a[i] / sd;
        sum += z;
        squares += z * z;
        fourth += z * z * z * z;
        if (fabs(z) > largest) largest = fabs(z);
        if (i) lag1 += z * a[i - 1] / sd;
        if (i >= 4096) lag4096 += z * a[i - 4096] / sd;
        seeds += z * b[i] / sd;
    }
    double error = 1 / sqrt((double)n);
    CHECK_NEAR(sum / (double)n, 0, 5 * error);
    CHECK_NEAR(squares / (double)n, 1, 5 * error * sqrt(1.7)); /* var(z^2) = kurtosis - 1 = 1.7 */
    CHECK_NEAR(fourth / (double)n, 2.7, 5 * error * 10);       /* four uniform bytes: 3 - 1.2 / 4 */
    CHECK(largest > 3.2 && largest <= 510 / sqrt(21845.0) * (1 + 1e-6));
    CHECK_NEAR(lag1 / (double)n, 0, 5 * error);
    CHECK_NEAR(lag4096 / (double)n, 0, 5 * error);
    CHECK_NEAR(seeds / (double)n, 0, 5 * error);
    free(a);
    free(b);

    c = small_config();
    struct pva_model_tensor t;
    double previous = 0;
    for (int i = 0; i < pva_model_config_n_tensors(&c); i++) {
        pva_model_config_tensor(&c, i, &t);
        double expected = t.role == PVA_EMBED ? 0.25 / 8 : t.n_dims == 2 ? 1 / sqrt((double)t.shape[1]) : 0.1, m = 0, s = 0;
        float *v = values_of(&c, i, 7, t.n_elements);
        for (int64_t k = 0; k < t.n_elements; k++) m += v[k];
        m /= (double)t.n_elements;
        for (int64_t k = 0; k < t.n_elements; k++) s += (v[k] - m) * (v[k] - m);
        CHECK_NEAR(m, t.role == PVA_FINAL_NORM ? 7 : 0, 5 * expected / sqrt((double)t.n_elements));
        CHECK_NEAR(sqrt(s / (double)t.n_elements) / expected, 1, 5 * 0.7 / sqrt((double)t.n_elements));
        CHECK(v[0] != previous); /* another tensor, other values */
        previous = v[0];
        free(v);
    }
}

static void test_pieces_agree(void) {
    struct pva_model_config c = small_config();
    int64_t n = 512 * 64;
    float *whole = values_of(&c, 0, 3, n), *piece = malloc((size_t)n * sizeof *piece);
    CHECK_FATAL(piece != NULL);
    for (int64_t first = 0, step = 1; first < n; step = step * 5 % 9001 + 1) {
        int64_t take = n - first < step ? n - first : step;
        pva_synth_values(&c, 0, 3, first, take, piece);
        CHECK(!memcmp(piece, whole + first, (size_t)take * sizeof *piece));
        first += take;
    }
    free(whole);
    free(piece);
}

/* Every tensor of the table is there, in its shape and dtype, with the values pva_synth_values says; nothing else is. */
static void check_model(const char *directory, const struct pva_model_config *c, enum pva_dtype dtype, uint64_t seed) {
    struct pva_error err = {0};
    struct pva_tensorfile *file;
    struct pva_model_config back;
    CHECK_OK(pva_model_config_read(directory, &back, &err), err);
    CHECK_TEXT(back.torch_dtype, dtype == PVA_F32 ? "float32" : "bfloat16");
    snprintf(back.torch_dtype, sizeof back.torch_dtype, "%s", c->torch_dtype);
    CHECK(!memcmp(&back, c, sizeof back));
    CHECK_OK(pva_tensorfile_open(directory, &file, &err), err);
    CHECK_FATAL(file != NULL);
    CHECK_INT(pva_tensorfile_count(file), pva_model_config_n_tensors(c));
    CHECK_INT(pva_tensorfile_bytes(file), pva_model_config_n_parameters(c) * (int64_t)pva_dtype_size(dtype));
    CHECK_TEXT(pva_tensorfile_metadata(file, "format"), "pt");
    for (int i = 0; i < pva_model_config_n_tensors(c); i++) {
        struct pva_model_tensor t;
        const struct pva_tensor_view *view;
        pva_model_config_tensor(c, i, &t);
        CHECK_OK(pva_tensorfile_require(file, t.name, t.n_dims, t.shape, &view, &err), err);
        CHECK_FATAL(view && view->dtype == dtype);
        float *wanted = values_of(c, i, seed, t.n_elements), *got = malloc((size_t)t.n_elements * sizeof *got);
        CHECK_FATAL(got != NULL);
        pva_tensor_to_f32(view, 0, t.n_elements, got);
        if (dtype == PVA_BF16)
            for (int64_t k = 0; k < t.n_elements; k++) wanted[k] = pva_bf16_to_f32(pva_f32_to_bf16(wanted[k]));
        CHECK(!memcmp(wanted, got, (size_t)t.n_elements * sizeof *got));
        free(wanted);
        free(got);
    }
    pva_tensorfile_close(&file);
}

static void remember(void *context, size_t done, size_t total) {
    size_t *seen = context;
    CHECK(done > seen[0] && done <= total);
    seen[0] = done;
    seen[1] = total;
}

static void test_write(void) {
    struct pva_error err = {0};
    struct pva_model_config c = small_config();
    size_t seen[2] = {0, 0};
    const char *tokenizer = scratch_find("PVA_TEST_SOURCE", "tests/data/tiny-tokenizer/tokenizer.model");
    CHECK_FATAL(tokenizer != NULL);
    struct pva_synth_settings s = {.dtype = PVA_BF16, .seed = 9, .tokenizer = tokenizer, .progress = remember, .context = seen};
    CHECK_OK(pva_synth_write(&c, scratch("one///"), &s, &err), err);
    CHECK(seen[0] == seen[1] && seen[1] == (size_t)pva_model_config_n_parameters(&c) * 2);
    check_model(scratch("one"), &c, PVA_BF16, 9);
    CHECK(access(scratch("one.partial"), F_OK) != 0 && access(scratch("one/model.safetensors"), R_OK) == 0);
    size_t n, m;
    char *copy = scratch_read(scratch("one/tokenizer.model"), &n), *original = scratch_read(tokenizer, &m);
    CHECK(copy && original && n == m && !memcmp(copy, original, n));
    free(copy);
    free(original);

    /* Shards: none above the limit unless a single tensor is; the index agrees with them (opening checks it). */
    s = (struct pva_synth_settings){.dtype = PVA_F32, .seed = 1ull << 40, .shard_bytes = 50000};
    CHECK_OK(pva_synth_write(&c, scratch("many"), &s, &err), err);
    check_model(scratch("many"), &c, PVA_F32, 1ull << 40);
    CHECK(access(scratch("many/model.safetensors.index.json"), R_OK) == 0 &&
          access(scratch("many/model.safetensors"), F_OK) != 0);
    CHECK(access(scratch("many/tokenizer.model"), F_OK) != 0);
    struct pva_tensorfile *file;
    CHECK_OK(pva_tensorfile_open(scratch("many"), &file, &err), err);
    for (size_t i = 0; file && i < pva_tensorfile_count(file); i++) {
        size_t in_shard = 0;
        int tensors = 0;
        for (size_t k = 0; k < pva_tensorfile_count(file); k++) {
            if (strcmp(pva_tensorfile_at(file, k)->file, pva_tensorfile_at(file, i)->file)) continue;
            in_shard += pva_tensorfile_at(file, k)->bytes;
            tensors++;
        }
        CHECK(in_shard <= 50000 || tensors == 1);
    }
    pva_tensorfile_close(&file);
}

/* Large enough for several groups per thread: the bytes are the same for any number of threads. */
static void test_threads(void) {
    struct pva_error err = {0};
    struct pva_model_config c = small_config();
    struct pva_synth_settings s = {.dtype = PVA_BF16, .seed = 4};
    char *bytes[2];
    size_t n[2];
    int before = omp_get_max_threads();
    c.n_vocab = 3001;
    for (int i = 0; i < 2; i++) {
        omp_set_num_threads(i ? 3 : 1);
        CHECK_OK(pva_synth_write(&c, scratch(i ? "three" : "single"), &s, &err), err);
        bytes[i] = scratch_read(scratch(i ? "three/model.safetensors" : "single/model.safetensors"), &n[i]);
    }
    omp_set_num_threads(before);
    CHECK_FATAL(bytes[0] && bytes[1]);
    CHECK(n[0] == n[1] && !memcmp(bytes[0], bytes[1], n[0]));
    free(bytes[0]);
    free(bytes[1]);
}

static void test_refusals(void) {
    struct pva_model_config c = small_config();
    struct pva_synth_settings s = {.dtype = PVA_BF16};
    struct pva_error err = {0};
    CHECK_FATAL(mkdir(scratch("full"), 0700) == 0);
    scratch_write("full/thesis.tex", "x", 1);
    CHECK_INT(pva_synth_write(&c, scratch("full"), &s, &err), PVA_REFUSED);
    CHECK_HAS(err.msg, "full: exists and is not an empty directory");
    CHECK(access(scratch("full/thesis.tex"), R_OK) == 0);
    err = (struct pva_error){0};
    scratch_write("file", "x", 1);
    CHECK_INT(pva_synth_write(&c, scratch("file"), &s, &err), PVA_REFUSED);

    /* An empty directory is filled; what an interrupted attempt left is replaced. */
    err = (struct pva_error){0};
    CHECK_FATAL(mkdir(scratch("empty"), 0700) == 0 && mkdir(scratch("empty.partial"), 0700) == 0);
    scratch_write("empty.partial/model-00001-of-00009.safetensors.partial", "x", 1);
    CHECK_OK(pva_synth_write(&c, scratch("empty"), &s, &err), err);
    check_model(scratch("empty"), &c, PVA_BF16, 0);
    CHECK(access(scratch("empty.partial"), F_OK) != 0);
    CHECK(access(scratch("empty/model-00001-of-00009.safetensors.partial"), F_OK) != 0);

    /* A strange file in the leftovers is not removed. */
    CHECK_FATAL(mkdir(scratch("odd.partial"), 0700) == 0);
    scratch_write("odd.partial/notes.txt", "x", 1);
    CHECK_INT(pva_synth_write(&c, scratch("odd"), &s, &err), PVA_IO);
    CHECK_HAS(err.msg, "odd.partial: cannot make the directory");
    CHECK(access(scratch("odd.partial/notes.txt"), R_OK) == 0);

    static const struct {
        int n_vocab, n_heads;
        enum pva_dtype dtype;
        const char *tokenizer;
        int code;
        const char *message;
    } bad[] = {{511, 4, PVA_BF16, "tokenizer.model", PVA_INPUT, "has 512 tokens, expected at most the model's vocab_size 511"},
               {512, 4, PVA_BF16, "vectors.jsonl", PVA_INPUT, "vectors.jsonl: "},
               {512, 4, PVA_BF16, "missing", PVA_INPUT, "missing: cannot open"},
               {512, 3, PVA_BF16, NULL, PVA_INPUT, "num_attention_heads is 3, expected a multiple"},
               {512, 4, PVA_F16, NULL, PVA_USAGE, "written as BF16 or F32, not F16"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct pva_error e = {0};
        char path[700];
        const char *directory = scratch_find("PVA_TEST_SOURCE", "tests/data/tiny-tokenizer");
        CHECK_FATAL(directory != NULL);
        snprintf(path, sizeof path, "%s/%s", directory, bad[i].tokenizer ? bad[i].tokenizer : "");
        c.n_vocab = bad[i].n_vocab;
        c.n_heads = bad[i].n_heads;
        s = (struct pva_synth_settings){.dtype = bad[i].dtype, .tokenizer = bad[i].tokenizer ? path : NULL};
        CHECK_INT(pva_synth_write(&c, scratch("bad"), &s, &e), bad[i].code);
        CHECK_HAS(e.msg, bad[i].message);
        CHECK(access(scratch("bad"), F_OK) != 0 && access(scratch("bad.partial"), F_OK) != 0); /* nothing is left */
    }
    struct pva_error e = {0};
    c = small_config();
    s.tokenizer = NULL;
    s.dtype = PVA_F32;
    CHECK_INT(pva_synth_write(&c, scratch("no/where"), &s, &e), PVA_IO);
    CHECK_HAS(e.msg, "no/where.partial: cannot make the directory");
}

/* A limit on the file size stands in for a full disk. */
static void test_no_room(void) {
    struct rlimit old, small;
    struct pva_model_config c = small_config();
    struct pva_synth_settings s = {.dtype = PVA_F32, .shard_bytes = 50000};
    struct pva_error err = {0};
    getrlimit(RLIMIT_FSIZE, &old);
    small = (struct rlimit){100000, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    CHECK_FATAL(setrlimit(RLIMIT_FSIZE, &small) == 0);
    CHECK_INT(pva_synth_write(&c, scratch("tight"), &s, &err), PVA_IO);
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK_HAS(err.msg, "tight.partial/model-00001-of-");
    CHECK(access(scratch("tight"), F_OK) != 0 && access(scratch("tight.partial"), F_OK) != 0);
}

int main(void) {
    scratch_make();
    test_known_values();
    test_distribution();
    test_pieces_agree();
    test_write();
    test_threads();
    test_refusals();
    test_no_room();
    return check_report("synth");
}
