#include "pva/tokenizer.h"
#include "pva/utf8.h"
#include "check.h"
#include "scratch.h"
#include "tokenizer_check.h"

#include <jansson.h>

/* ---- vectors: {"text", "ids"} and, in ours, what the reference decodes to ---- */

static int same_ids(const json_t *expected, const int32_t *ids, size_t n) {
    if (json_array_size(expected) != n) return 0;
    for (size_t i = 0; i < n; i++)
        if (json_integer_value(json_array_get(expected, i)) != ids[i]) return 0;
    return 1;
}

/* Encodes and decodes; returns how many of the two comparisons failed. `decoded` NULL: the text itself is expected back. */
static int compare(const struct pva_tokenizer *t, const char *text, size_t n, const json_t *expected, const json_t *decoded) {
    struct pva_error err = {0};
    int32_t *ids = NULL;
    char *back = NULL;
    size_t n_ids, n_back;
    int wrong = 0;
    if (pva_tokenizer_encode(t, text, n, &ids, &n_ids, &err) || pva_tokenizer_decode(t, ids, n_ids, &back, &n_back, &err)) {
        fprintf(stderr, "\"%.60s\": %s\n", text, err.msg);
        free(ids);
        return 2;
    }
    if (expected && !same_ids(expected, ids, n_ids)) {
        wrong++;
        fprintf(stderr, "\"%.60s\": other ids than the reference's\n", text);
    }
    const char *wanted = decoded ? json_string_value(decoded) : text;
    size_t n_wanted = decoded ? json_string_length(decoded) : n;
    if (n_back != n_wanted || memcmp(back, wanted, n_back) || back[n_back]) {
        wrong++;
        fprintf(stderr, "\"%.60s\": decodes to \"%.60s\"\n", text, back);
    }
    free(ids);
    free(back);
    return wrong;
}

static int compare_file(const struct pva_tokenizer *t, const char *path, int *n_lines) {
    char *line = NULL;
    size_t capacity = 0;
    int wrong = 0;
    FILE *f = fopen(path, "r");
    CHECK_FATAL(f != NULL);
    for (ssize_t n; (n = getline(&line, &capacity, f)) > 0; ++*n_lines) {
        json_error_t why;
        json_t *record = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, &why);
        CHECK_FATAL(record && json_object_get(record, "text") && json_object_get(record, "ids"));
        const json_t *text = json_object_get(record, "text");
        wrong += compare(t, json_string_value(text), json_string_length(text), json_object_get(record, "ids"),
                         json_object_get(record, "decoded"));
        json_decref(record);
    }
    free(line);
    fclose(f);
    return wrong;
}

static struct pva_tokenizer *open_tiny(void) {
    struct pva_error err = {0};
    struct pva_tokenizer *t = NULL;
    const char *path = scratch_find("PVA_TEST_SOURCE", "tests/data/tiny-tokenizer");
    CHECK_FATAL(path != NULL);
    CHECK_OK(pva_tokenizer_open(path, &t, &err), err);
    CHECK_FATAL(t != NULL);
    return t;
}

static void test_tiny(void) {
    struct pva_tokenizer *t = open_tiny();
    int n_lines = 0;
    CHECK_INT(pva_tokenizer_n_vocab(t), 512);
    CHECK_INT(pva_tokenizer_bos(t), 2);
    CHECK_INT(pva_tokenizer_eos(t), 1);
    CHECK_INT(compare_file(t, scratch_find("PVA_TEST_SOURCE", "tests/data/tiny-tokenizer/vectors.jsonl"), &n_lines), 0);
    CHECK_INT(n_lines, 30);

    struct pva_error err = {0};
    int32_t *ids;
    char *text;
    size_t n;
    /* A user-defined symbol in a text is its token; a control token's name is only text. */
    CHECK_OK(pva_tokenizer_encode(t, "<start_of_turn>", 15, &ids, &n, &err), err);
    CHECK(n == 1 && ids[0] == 4);
    free(ids);
    CHECK_OK(pva_tokenizer_encode(t, "<bos>", 5, &ids, &n, &err), err);
    for (size_t i = 0; i < n; i++) CHECK(ids[i] > 3);
    free(ids);
    /* Control tokens give no text; bytes join to characters, and a lone one is replaced. */
    CHECK_OK(pva_tokenizer_decode(t, (int32_t[]){2, 0, 1, 4, 1}, 5, &text, &n, &err), err);
    CHECK_TEXT(text, "<start_of_turn>");
    CHECK_INT(n, 15);
    free(text);
    CHECK_OK(pva_tokenizer_decode(t, (int32_t[]){9 + 0xc3, 9 + 0xa9, 9 + 0xc3}, 3, &text, &n, &err), err);
    CHECK_TEXT(text, "\xc3\xa9\xef\xbf\xbd");
    free(text);
    CHECK_OK(pva_tokenizer_decode(t, NULL, 0, &text, &n, &err), err);
    CHECK(n == 0 && !text[0]);
    free(text);

    for (int i = 0; i < 4; i++) {
        const int32_t outside[] = {-1, 512, INT32_MAX, INT32_MIN};
        struct pva_error e = {0};
        CHECK_INT(pva_tokenizer_decode(t, (int32_t[]){5, outside[i]}, 2, &text, &n, &e), PVA_INPUT);
        CHECK_HAS(e.msg, "token 1 is ");
        CHECK_HAS(e.msg, "expected 0 to 511");
        CHECK(!text && n == 0);
    }
    static const struct {
        const char *text;
        size_t n, at;
    } not_utf8[] = {{"ab\xff", 3, 2},          {"\x80", 1, 0},           {"a\xc3", 2, 1},
                    {"\xed\xa0\x80", 3, 0},    {"\xc0\x80", 2, 0},       {"\xf4\x90\x80\x80", 4, 0},
                    {"\xe0\x80\x80", 3, 0},    {"ok\xf0\x9f\x99", 5, 2}, {"\xf0\x80\x80\x80", 4, 0},
                    {"\xf5\x80\x80\x80", 4, 0}};
    for (size_t i = 0; i < sizeof not_utf8 / sizeof *not_utf8; i++) {
        struct pva_error e = {0};
        char expected[60];
        snprintf(expected, sizeof expected, "text is not UTF-8 at byte %zu", not_utf8[i].at);
        CHECK_INT(pva_tokenizer_encode(t, not_utf8[i].text, not_utf8[i].n, &ids, &n, &e), PVA_INPUT);
        CHECK_TEXT(e.msg, expected);
        CHECK(!ids && n == 0);
    }
    pva_tokenizer_close(&t);
    CHECK(!t);
    pva_tokenizer_close(&t);
}

/* Characters of all planes there and back, one by one and together. */
static void test_every_character(void) {
    struct pva_tokenizer *t = open_tiny();
    char *all = malloc(4 * 0x110000);
    CHECK_FATAL(all != NULL);
    size_t n = 0;
    int wrong = 0;
    for (unsigned c = 0; c < 0x110000; c++) {
        char one[4];
        size_t k = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        if ((c >= 0xd800 && c < 0xe000) || c == 0x2581) continue; /* surrogates are no characters; U+2581 stands for a space */
        static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (size_t i = k; i-- > 0;) one[i] = (char)(i ? 0x80 | (c >> 6 * (k - 1 - i) & 0x3f) : lead[k] | c >> 6 * (k - 1));
        wrong += pva_utf8_valid_prefix(one, k) != k;
        if (c >= 0x3000 && c % 13) continue; /* the rest in samples: seconds otherwise */
        if (c < 0x1000 || c % 91 == 0) wrong += compare(t, one, k, NULL, NULL);
        memcpy(all + n, one, k);
        n += k;
    }
    CHECK_INT(wrong, 0);
    for (size_t at = 0; at < n;) { /* in texts of about 64 KB */
        size_t end = at + 65536 < n ? at + 65536 : n;
        while (end < n && (all[end] & 0xc0) == 0x80) end++;
        CHECK_INT(compare(t, all + at, end - at, NULL, NULL), 0);
        at = end;
    }
    free(all);
    pva_tokenizer_close(&t);
}

/* One tokenizer, several threads: everybody gets the ids that one thread gets. */
static void test_threads(void) {
    static const char text[] = "def count_words(text):\n    return len(text.split())  # caf\xc3\xa9 \xf0\x9f\x99\x82\n";
    struct pva_tokenizer *t = open_tiny();
    struct pva_error err = {0};
    int32_t *expected;
    size_t n;
    int wrong = 0;
    CHECK_OK(pva_tokenizer_encode(t, text, sizeof text - 1, &expected, &n, &err), err);
#pragma omp parallel for num_threads(4) reduction(+ : wrong)
    for (int i = 0; i < 400; i++) {
        struct pva_error e = {0};
        int32_t *ids;
        char *back;
        size_t n_ids, n_back;
        wrong += pva_tokenizer_encode(t, text, sizeof text - 1, &ids, &n_ids, &e) || n_ids != n ||
                 memcmp(ids, expected, n * sizeof *ids);
        wrong += pva_tokenizer_decode(t, ids, n_ids, &back, &n_back, &e) || strcmp(back, text);
        free(ids);
        free(back);
    }
    CHECK_INT(wrong, 0);
    free(expected);
    pva_tokenizer_close(&t);
}

/* ---- Gemma's own ---- */

static int round_trip_mbpp(const struct pva_tokenizer *t, const char *path, int *n_texts) {
    char *line = NULL;
    size_t capacity = 0;
    int wrong = 0;
    FILE *f = fopen(path, "r");
    CHECK_FATAL(f != NULL);
    for (ssize_t n; (n = getline(&line, &capacity, f)) > 0;) {
        json_t *record = json_loadb(line, (size_t)n, 0, NULL);
        CHECK_FATAL(record != NULL);
        const json_t *texts[40] = {json_object_get(record, "text"), json_object_get(record, "code"),
                                   json_object_get(record, "test_setup_code")};
        size_t n_here = 3;
        const char *const lists[] = {"test_list", "challenge_test_list"};
        for (int k = 0; k < 2; k++)
            for (size_t i = 0; i < json_array_size(json_object_get(record, lists[k])) && n_here < 40; i++)
                texts[n_here++] = json_array_get(json_object_get(record, lists[k]), i);
        for (size_t i = 0; i < n_here; i++, ++*n_texts) {
            CHECK_FATAL(json_is_string(texts[i]));
            wrong += compare(t, json_string_value(texts[i]), json_string_length(texts[i]), NULL, NULL);
        }
        json_decref(record);
    }
    free(line);
    fclose(f);
    return wrong;
}

static void test_gemma(void) {
    struct pva_error err = {0};
    struct pva_tokenizer *t;
    int n_lines = 0, n_texts = 0;
    const char *model = scratch_find("PVA_TEST_SHARED", "data/gemma2-tokenizer/tokenizer.model");
    const char *vectors = scratch_find("PVA_TEST_SHARED", "data/gemma2-tokenizer/vectors.jsonl");
    const char *mbpp = scratch_find("PVA_TEST_SHARED", "data/mbpp.jsonl");
    if (!model || !vectors) {
        CHECK_SKIP("Gemma's tokenizer: its model and vectors are not on this machine");
        return;
    }
    CHECK_OK(pva_tokenizer_open(model, &t, &err), err);
    CHECK_FATAL(t != NULL);
    CHECK_INT(pva_tokenizer_n_vocab(t), 256000);
    CHECK_INT(pva_tokenizer_bos(t), 2);
    CHECK_INT(pva_tokenizer_eos(t), 1);
    CHECK_INT(compare_file(t, vectors, &n_lines), 0);
    CHECK_INT(n_lines, 326);
    if (mbpp) {
        CHECK_INT(round_trip_mbpp(t, mbpp, &n_texts), 0);
        CHECK(n_texts > 974 * 6);
    } else {
        CHECK_SKIP("MBPP texts there and back: not on this machine");
    }
    printf("Gemma: %d vectors, %d MBPP texts there and back\n", n_lines, n_texts);
    pva_tokenizer_close(&t);
}

/* ---- bad models, built field by field ---- */

struct proto {
    unsigned char bytes[400000];
    size_t n;
};

static void put_varint(struct proto *p, uint64_t v) {
    do {
        p->bytes[p->n++] = (unsigned char)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        v >>= 7;
    } while (v);
}

static void put_bytes(struct proto *p, unsigned field, const void *bytes, size_t n) {
    put_varint(p, field << 3 | 2);
    put_varint(p, n);
    memcpy(p->bytes + p->n, bytes, n);
    p->n += n;
}

static void put_number(struct proto *p, unsigned field, uint64_t v) {
    put_varint(p, field << 3);
    put_varint(p, v);
}

static void put_piece_n(struct proto *p, const char *text, size_t n, float score, unsigned type) {
    static struct proto piece;
    piece.n = 0;
    put_bytes(&piece, 1, text, n);
    put_varint(&piece, 2 << 3 | 5);
    memcpy(piece.bytes + piece.n, &score, 4);
    piece.n += 4;
    put_number(&piece, 3, type);
    put_bytes(p, 1, piece.bytes, piece.n);
}

static void put_piece(struct proto *p, const char *text, float score, unsigned type) {
    put_piece_n(p, text, strlen(text), score, type);
}

enum damage {
    NONE,
    NO_UNKNOWN,
    TWO_UNKNOWN,
    NO_BYTES,
    BAD_BYTE,
    TWICE,
    EMPTY,
    ZERO_BYTE,
    NOT_UTF8,
    TOO_LONG,
    NAN_SCORE,
    BAD_TYPE,
    UNIGRAM,
    NO_FALLBACK,
    CHARSMAP,
    DUMMY_PREFIX,
    REMOVE_SPACES,
    NO_ESCAPE,
    DENORMALIZER,
    TWO_TRAINERS,
    NO_NORMALIZER,
    NESTED,
    WRONG_WIRE,
    GROUP,
    BAD_SURFACE,
    STRANGE_NORMALIZER,
    SELF_TEST,
    TEXT_LOST,
    NO_SPACE,
    N_DAMAGES
};

static void build(struct proto *p, enum damage d) {
    static struct proto spec;
    char text[9000];
    p->n = 0;
    if (d != NO_UNKNOWN) put_piece(p, "<unk>", 0, 2);
    if (d == TWO_UNKNOWN) put_piece(p, "<unk2>", 0, 2);
    put_piece(p, "<s>", 0, 3);
    for (int i = 0; i < (d == NO_BYTES ? 255 : 256); i++) {
        snprintf(text, sizeof text, d == BAD_BYTE && i == 200 ? "<0x%02x>" : "<0x%02X>", i);
        put_piece(p, text, 0, 6);
    }
    put_piece(p, "a", d == NAN_SCORE ? NAN : -1, d == BAD_TYPE ? 9 : d == TEXT_LOST ? 3 : 1);
    put_piece(p, "ab", -2, 1);
    put_piece(p, d == NO_SPACE ? "c" : "\xe2\x96\x81", -3, 1); /* U+2581, which stands for a space */
    if (d == TWICE) put_piece(p, "ab", -3, 4);
    if (d == EMPTY) put_piece(p, "", 0, 1);
    if (d == ZERO_BYTE) put_piece_n(p, "a\0b", 3, 0, 1);
    if (d == NOT_UTF8) put_piece(p, "\xc3(", 0, 1);
    memset(text, 'x', sizeof text);
    if (d == TOO_LONG) put_piece_n(p, text, 8000, 0, 1);
    for (size_t i = 1; d == NESTED && i <= 65; i++) put_piece_n(p, text, i, 0, 4);
    if (d == WRONG_WIRE) put_number(p, 1, 5);
    if (d == GROUP) put_varint(p, 7 << 3 | 3);

    spec.n = 0;
    put_number(&spec, 3, d == UNIGRAM ? 1 : 2);
    if (d != NO_FALLBACK) put_number(&spec, 35, 1);
    if (d == BAD_SURFACE) put_bytes(&spec, 44, "\xff", 1);
    put_bytes(p, 2, spec.bytes, spec.n);
    if (d == TWO_TRAINERS) put_bytes(p, 2, spec.bytes, spec.n);
    spec.n = 0;
    put_bytes(&spec, 1, "identity", 8);
    if (d == CHARSMAP) put_bytes(&spec, 2, "\4\0\0\0\0\0\0\0a", 9);
    if (d != DUMMY_PREFIX) put_number(&spec, 3, 0);
    put_number(&spec, 4, d == REMOVE_SPACES);
    put_number(&spec, 5, d != NO_ESCAPE);
    if (d == STRANGE_NORMALIZER) put_bytes(&spec, 7, "/etc/report", 11);
    if (d != NO_NORMALIZER) put_bytes(p, 3, spec.bytes, spec.n);
    if (d == DENORMALIZER) put_bytes(p, 5, spec.bytes, spec.n);
    spec.n = 0;
    put_bytes(&spec, 1, "\n\2ab\22\1x", 7); /* a sample: "ab" should give the pieces "x" */
    if (d == SELF_TEST) put_bytes(p, 4, spec.bytes, spec.n);
}

static void test_bad_models(void) {
    static const char *const messages[N_DAMAGES] = {
        [NO_UNKNOWN] = "0 unknown pieces, expected exactly one",
        [TWO_UNKNOWN] = "2 unknown pieces, expected exactly one",
        [NO_BYTES] = "255 byte pieces, expected 256",
        [BAD_BYTE] = "byte piece 202 is not written as <0x00> to <0xFF>",
        [TWICE] = "ab is already defined",
        [EMPTY] = "piece 261 is not a text of 1 to 7999 bytes",
        [ZERO_BYTE] = "piece 261 is not a text",
        [NOT_UTF8] = "piece 261 is not a text",
        [TOO_LONG] = "piece 261 is not a text",
        [NAN_SCORE] = "piece 258 has a score that is not a number",
        [BAD_TYPE] = "piece 258 is of the unknown type 9",
        [UNIGRAM] = "model type is 1, expected 2",
        [NO_FALLBACK] = "has no byte fallback",
        [CHARSMAP] = "rewrites text by a normalisation table",
        [DUMMY_PREFIX] = "adds or removes spaces (add_dummy_prefix 1,",
        [REMOVE_SPACES] = "remove_extra_whitespaces 1",
        [NO_ESCAPE] = "escape_whitespaces 0",
        [DENORMALIZER] = "has a denormaliser",
        [TWO_TRAINERS] = "2 trainer and 1 normaliser settings",
        [NO_NORMALIZER] = "1 trainer and 0 normaliser settings",
        [NESTED] = "more than 64 user-defined symbols begin one another",
        [WRONG_WIRE] = "field of an unexpected kind",
        [GROUP] = "unknown kind of field",
        [BAD_SURFACE] = "stands for the unknown token is not UTF-8",
        [STRANGE_NORMALIZER] = "normaliser has the unknown setting 7",
        [SELF_TEST] = "Self-test failures",
        [NO_SPACE] = "a short text does not survive encoding and decoding",
        [TEXT_LOST] = "tokenizer.model: ", /* the library says it in its own words */
    };
    static struct proto p;
    char path[400];
    snprintf(path, sizeof path, "%s", scratch("tokenizer.model"));
    for (int d = NONE; d < N_DAMAGES; d++) {
        struct pva_error err = {0};
        struct pva_tokenizer *t = (void *)&err;
        build(&p, (enum damage)d);
        scratch_write("tokenizer.model", p.bytes, p.n);
        int status = pva_tokenizer_open(d % 2 ? path : scratch_directory, &t, &err);
        if (d == NONE) { /* undamaged, it works: the damage is what is refused */
            CHECK_OK(status, err);
            CHECK_FATAL(t != NULL);
            CHECK_INT(pva_tokenizer_n_vocab(t), 261);
            CHECK_INT(pva_tokenizer_bos(t), 1);
            CHECK_INT(pva_tokenizer_eos(t), -1);
            CHECK_INT(compare(t, "ab ba\n", 6, NULL, NULL), 0);
            pva_tokenizer_close(&t);
            continue;
        }
        if (status != PVA_INPUT) fprintf(stderr, "damage %d: status %d\n", d, status);
        CHECK_INT(status, PVA_INPUT);
        CHECK(!t);
        CHECK_HAS(err.msg, messages[d]);
        CHECK_HAS(err.msg, "tokenizer.model: ");
    }

    /* Cut anywhere, or with any byte changed, the small model either is refused or still works; nothing ends the process. */
    build(&p, NONE);
    int refused = 0, opened = 0;
    for (size_t i = 0; i < p.n; i += 3) {
        struct pva_error err = {0};
        struct pva_tokenizer *t = NULL;
        size_t n = i % 2 ? i : p.n;
        unsigned char kept = p.bytes[i];
        p.bytes[i] = (unsigned char)(kept ^ (1 + i * 37 % 255));
        scratch_write("tokenizer.model", p.bytes, n);
        p.bytes[i] = kept;
        if (pva_tokenizer_open(path, &t, &err)) refused++;
        else opened++;
        CHECK((t != NULL) == (err.code == 0));
        pva_tokenizer_close(&t);
    }
    CHECK(refused > opened);

    struct pva_error err = {0};
    struct pva_tokenizer *t;
    CHECK_INT(pva_tokenizer_open(scratch("none"), &t, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "none: cannot open");
    err = (struct pva_error){0};
    scratch_write("tokenizer.model", "", 0);
    CHECK_INT(pva_tokenizer_open(path, &t, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "is empty");
    err = (struct pva_error){0};
    scratch_write("tokenizer.model", "version https://git-lfs.github.com/spec/v1\n", 43); /* a pointer instead of the file */
    CHECK_INT(pva_tokenizer_open(path, &t, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "not a SentencePiece model");
}

/* ---- JSON lines ---- */

static int run_lines(const struct pva_tokenizer *t, const char *input, enum pva_tokenizer_direction direction, int add_bos,
                     char **output, size_t *n_output, int64_t *n_lines, struct pva_error *err) {
    FILE *in = fmemopen((void *)(uintptr_t)input, strlen(input), "r"), *out = open_memstream(output, n_output);
    CHECK_FATAL(in && out);
    int status = pva_tokenizer_lines(t, in, "input", out, direction, add_bos, n_lines, err);
    fclose(in);
    fclose(out);
    return status;
}

static void test_lines(void) {
    struct pva_tokenizer *t = open_tiny();
    struct pva_error err = {0};
    char *out, *back;
    size_t n, n_back;
    int64_t n_lines;
    const char *input =
        "{\"text\": \"\"}\n\n{\"task_id\": 3, \"text\": \" \"}\r\n{\"text\": \"caf\\u00e9\\u0000 \\ud83d\\ude42\\n\\\"\"}";
    CHECK_OK(run_lines(t, input, PVA_TO_IDS, 0, &out, &n, &n_lines, &err), err);
    CHECK_INT(n_lines, 3);
    CHECK(!strncmp(out, "{\"ids\": []}\n{\"ids\": [462]}\n{\"ids\": [", 36));
    CHECK_OK(run_lines(t, out, PVA_TO_TEXT, 0, &back, &n_back, &n_lines, &err), err);
    CHECK_TEXT(back, "{\"text\": \"\"}\n{\"text\": \" \"}\n{\"text\": \"caf\xc3\xa9\\u0000 \xf0\x9f\x99\x82\\n\\\"\"}\n");
    free(out);
    free(back);
    CHECK_OK(run_lines(t, "{\"text\": \" \"}\n{\"text\": \"\"}\n", PVA_TO_IDS, 1, &out, &n, &n_lines, &err), err);
    CHECK_TEXT(out, "{\"ids\": [2, 462]}\n{\"ids\": [2]}\n");
    free(out);

    static const struct {
        const char *input;
        enum pva_tokenizer_direction direction;
        const char *message;
    } bad[] = {
        {"{\"text\": \"a\"}\n{\"text\": }\n", PVA_TO_IDS, "input: line 2: column 10: not valid JSON"},
        {"{\"text\": \"a\"}\n\n[\"a\"]\n", PVA_TO_IDS, "input: line 3: expected {\"text\": \"...\"}"},
        {"{\"text\": \"a\"}\n{\"ids\": [1]}\n", PVA_TO_IDS, "input: line 2: expected {\"text\": \"...\"}"},
        {"{\"text\": \"a\"}\n{\"text\": 1}\n", PVA_TO_IDS, "input: line 2: expected"},
        {"{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n", PVA_TO_IDS, "input: line 2: "},
        {"{\"text\": \"a\"}\n{\"text\": \"\\ud800\"}\n", PVA_TO_IDS, "input: line 2: "},
        {"{\"ids\": [4]}\n{\"ids\": [512]}\n", PVA_TO_TEXT, "input: line 2: token 0 is 512, expected 0 to 511"},
        {"{\"ids\": [4]}\n{\"ids\": [1, -1]}\n", PVA_TO_TEXT, "input: line 2: element 1 of \"ids\" is not a token id"},
        {"{\"ids\": [4]}\n{\"ids\": [1.5]}\n", PVA_TO_TEXT, "input: line 2: element 0 of \"ids\""},
        {"{\"ids\": [4]}\n{\"ids\": [99999999999]}\n", PVA_TO_TEXT, "input: line 2: element 0 of \"ids\""},
        {"{\"ids\": [4]}\n{\"ids\": 3}\n", PVA_TO_TEXT, "input: line 2: expected {\"ids\": [...]}"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct pva_error e = {0};
        CHECK_INT(run_lines(t, bad[i].input, bad[i].direction, 0, &out, &n, &n_lines, &e), PVA_INPUT);
        CHECK_HAS(e.msg, bad[i].message);
        CHECK_INT(n_lines, 1);
        CHECK(n > 0 && out[n - 1] == '\n' && strchr(out, '\n') == out + n - 1); /* the good line before it is out */
        free(out);
    }
    FILE *in = fmemopen((char[]){"{\"text\": \"a\"}\n"}, 14, "r"), *full = fopen("/dev/full", "w");
    CHECK_FATAL(in != NULL);
    if (full) {
        struct pva_error e = {0};
        CHECK_INT(pva_tokenizer_lines(t, in, "input", full, PVA_TO_IDS, 0, &n_lines, &e), PVA_IO);
        CHECK_HAS(e.msg, "cannot write: ");
        fclose(full);
    }
    fclose(in);
    pva_tokenizer_close(&t);
}

int main(void) {
    scratch_make();
    test_tiny();
    test_every_character();
    test_threads();
    test_gemma();
    test_bad_models();
    test_lines();
    return check_report("tokenizer");
}
