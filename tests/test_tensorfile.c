#include "pva/tensorfile.h"
#include "check.h"
#include "scratch.h"

#include <signal.h>
#include <sys/resource.h>

/* A safetensors file as text: header length, header, n bytes of data counting 0, 1, 2, ... */
static void write_file(const char *name, const char *header, uint64_t claimed_length, size_t n_data) {
    size_t length = strlen(header), size = 8 + length + n_data;
    unsigned char *bytes = malloc(size);
    CHECK_FATAL(bytes != NULL);
    if (claimed_length == UINT64_MAX) claimed_length = length;
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(claimed_length >> 8 * i);
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < n_data; i++) bytes[8 + length + i] = (unsigned char)i;
    scratch_write(name, bytes, size);
    free(bytes);
}

#define WHOLE UINT64_MAX /* claim the header's true length */

static const struct {
    const char *label, *header;
    uint64_t claimed;
    size_t n_data;
    const char *message; /* part of it */
} malformed[] = {
    {"header longer than the file", "{}", 100, 0, "header takes 100 bytes, but only 2 follow: the file is truncated"},
    {"header length beyond the cap", "{}", 100000001, 0, "header length is 100000001, expected at most 100000000"},
    {"header length of 2^64-1", "{}", UINT64_MAX - 1, 0, "not a safetensors file"},
    {"header length 0", "", 0, 4, "header does not start with '{'"},
    {"header is a list", "[1, 2]", WHOLE, 0, "byte 8: header does not start with '{'"},
    {"header begins with a space", " {}", WHOLE, 0, "header does not start with '{'"},
    {"JSON cut short", "{\"a\": {\"dtype\"", WHOLE, 0, "header is not valid JSON"},
    {"text after the JSON", "{} x", WHOLE, 0, "header is not valid JSON"},
    {"name not UTF-8", "{\"\xff\": {\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", WHOLE, 4, "not valid JSON"},
    {"name twice",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":\"U8\",\"shape\":[1],"
     "\"data_offsets\":[1,2]}}",
     WHOLE, 2, "duplicate object key"},
    {"key twice in an entry", "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", WHOLE, 1,
     "duplicate"},
    {"name empty", "{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", WHOLE, 1, "a tensor has an empty name"},
    {"name with a zero byte", "{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", WHOLE, 1,
     "not valid JSON"},
    {"entry is a number", "{\"a\": 3}", WHOLE, 0, "tensor a: expected {dtype, shape, data_offsets}"},
    {"no dtype", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", WHOLE, 4, "tensor a has no \"dtype\""},
    {"dtype unknown", "{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[0,1]}}", WHOLE, 1,
     "tensor a has dtype F8_E4M3"},
    {"dtype in lower case", "{\"a\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", WHOLE, 4,
     "has dtype f32, expected F32"},
    {"no shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", WHOLE, 4, "tensor a has no \"shape\""},
    {"negative length", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", WHOLE, 4, "length 0 of its shape"},
    {"fractional length", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,1.0],\"data_offsets\":[0,8]}}", WHOLE, 8,
     "length 1 of its shape"},
    {"length beyond 63 bits", "{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775808],\"data_offsets\":[0,4]}}", WHOLE, 4,
     "too big integer"},
    {"product overflows", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", WHOLE, 0,
     "more elements than a computer can hold"},
    {"product overflows before a zero", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,0],\"data_offsets\":[0,0]}}",
     WHOLE, 0, "more elements than a computer can hold"},
    {"bytes overflow", "{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", WHOLE, 0,
     "more elements than a computer can hold"},
    {"nine dimensions", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", WHOLE, 1,
     "9 dimensions"},
    {"no offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", WHOLE, 4, "\"data_offsets\" is not [begin, end)"},
    {"three offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", WHOLE, 4, "\"data_offsets\" is not"},
    {"offsets reversed", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", WHOLE, 4, "[4, 0) are not a range"},
    {"offset negative", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", WHOLE, 4, "[-4, 0) are not a range"},
    {"data truncated", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", WHOLE, 15,
     "tensor a ends at byte 16 of the data, but the file holds 15: it is truncated"},
    {"range larger than the shape", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,12]}}", WHOLE, 12,
     "tensor a takes 12 bytes, expected 8 for its shape and dtype F32"},
    {"gap",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]"
     "}}",
     WHOLE, 5, "gap of 1 bytes between a and tensor b"},
    {"gap at the start", "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", WHOLE, 3,
     "gap of 1 bytes between the header"},
    {"overlap",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[2,5]"
     "}}",
     WHOLE, 5, "tensors a and b overlap at byte 2"},
    {"two tensors on the same bytes",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"I8\",\"shape\":[2],"
     "\"data_offsets\":[0,2]}}",
     WHOLE, 2, "tensors a and b overlap at byte 0"},
    {"bytes after the last tensor", "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", WHOLE, 3,
     "1 bytes after the last tensor belong to nothing"},
    {"data of no tensor", "{}", WHOLE, 1, "1 bytes after the last tensor"},
    {"metadata not an object", "{\"__metadata__\": \"pt\"}", WHOLE, 0, "__metadata__ is not an object of texts"},
    {"metadata not a text", "{\"__metadata__\": {\"format\": 3}}", WHOLE, 0, "the value of format is not a text"},
};

static void expect_failure(const char *label, const char *path, int code, const char *message) {
    struct pva_error err = {0};
    struct pva_tensorfile *file = (void *)&err;
    int status = pva_tensorfile_open(path, &file, &err);
    if (status != code || err.code != code || file || !strstr(err.msg, message))
        fprintf(stderr, "%s: status %d, \"%s\"; expected %d with \"%s\"\n", label, status, err.msg, code, message);
    CHECK(status == code && err.code == code && file == NULL);
    CHECK_HAS(err.msg, message);
}

static void test_malformed(void) {
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        write_file("bad.safetensors", malformed[i].header, malformed[i].claimed, malformed[i].n_data);
        expect_failure(malformed[i].label, scratch("bad.safetensors"), PVA_INPUT, malformed[i].message);
        struct pva_error err = {0};
        struct pva_tensorfile *file;
        pva_tensorfile_open(scratch("bad.safetensors"), &file, &err);
        CHECK_HAS(err.msg, "bad.safetensors: "); /* every message names the file */
    }
    scratch_write("bad.safetensors", "", 0);
    expect_failure("empty file", scratch("bad.safetensors"), PVA_INPUT, "is empty");
    scratch_write("bad.safetensors", "\2\0\0\0\0\0\0", 7);
    expect_failure("seven bytes", scratch("bad.safetensors"), PVA_INPUT, "has 7 bytes, too short");
    expect_failure("missing", scratch("nowhere.safetensors"), PVA_INPUT, "cannot open: No such file");
    expect_failure("empty directory", scratch_directory, PVA_INPUT,
                   "holds neither model.safetensors nor model.safetensors.index.json");
    CHECK_FATAL(mkfifo(scratch("pipe.safetensors"), 0600) == 0);
    expect_failure("named pipe", scratch("pipe.safetensors"), PVA_INPUT, "is a device or pipe, expected a regular file");
    expect_failure("device", "/dev/null", PVA_INPUT, "is a device or pipe");
    CHECK_FATAL(symlink("loop.safetensors", scratch("loop.safetensors")) == 0);
    expect_failure("link to itself", scratch("loop.safetensors"), PVA_INPUT, "cannot open");
}

/* Every prefix of a good file is a bad file, and no bit of the length or of the offsets can change unseen. */
static void test_truncated(void) {
    const char *header =
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},\"b\":{\"dtype\":\"BF16\",\"shape\":[],"
        "\"data_offsets\":[24,26]}}";
    size_t n = 0;
    write_file("good.safetensors", header, WHOLE, 26);
    char *bytes = scratch_read(scratch("good.safetensors"), &n);
    CHECK_FATAL(bytes && n == 8 + strlen(header) + 26);
    for (size_t size = 0; size < n; size++) {
        struct pva_error err = {0};
        struct pva_tensorfile *file = NULL;
        scratch_write("cut.safetensors", bytes, size);
        CHECK_INT(pva_tensorfile_open(scratch("cut.safetensors"), &file, &err), PVA_INPUT);
        CHECK(!file);
    }
    for (size_t bit = 0; bit < 64; bit++) {
        struct pva_error err = {0};
        struct pva_tensorfile *file = NULL;
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        scratch_write("flip.safetensors", bytes, n);
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        CHECK_INT(pva_tensorfile_open(scratch("flip.safetensors"), &file, &err), PVA_INPUT);
        CHECK(!file);
    }
    free(bytes);
}

static void test_good_file(void) {
    /* The header's odd length puts every tensor at an odd address. */
    const char *header =
        "{\"__metadata__\":{\"format\":\"pt\"},\"z\":{\"dtype\":\"U8\",\"shape\":[0,5],\"data_offsets\":[8,8]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"a\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"new\":1,"
        "\"data_offsets\":[8,12]},\"s\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[12,20]}}  ";
    struct pva_error err = {0};
    struct pva_tensorfile *file;
    float values[2], expected[2];
    write_file("odd.safetensors", header, WHOLE, 20);
    CHECK_OK(pva_tensorfile_open(scratch("odd.safetensors"), &file, &err), err);
    CHECK_FATAL(file != NULL);
    CHECK_INT(pva_tensorfile_count(file), 4);
    CHECK_INT(pva_tensorfile_bytes(file), 20);
    const char *order[] = {"a", "b", "s", "z"};
    for (size_t i = 0; i < 4; i++) {
        CHECK_TEXT(pva_tensorfile_at(file, i)->name, order[i]);
        CHECK(pva_tensorfile_find(file, order[i]) == pva_tensorfile_at(file, i));
    }
    CHECK(!pva_tensorfile_find(file, "c") && !pva_tensorfile_find(file, "") && !pva_tensorfile_find(file, "__metadata__"));
    CHECK_TEXT(pva_tensorfile_metadata(file, "format"), "pt");
    CHECK(!pva_tensorfile_metadata(file, "made by"));
    const struct pva_tensor_view *b = pva_tensorfile_find(file, "b");
    CHECK_TEXT(b->file, "odd.safetensors");
    CHECK_INT(b->n_dims, 1);
    CHECK_INT(b->n_elements, 2);
    CHECK_INT(b->bytes, 8);
    CHECK(b->dtype == PVA_F32 && ((uintptr_t)b->data & 1) == (strlen(header) & 1));
    const unsigned char counting[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    memcpy(expected, counting, 8);
    pva_tensor_to_f32(b, 0, 2, values);
    CHECK(!memcmp(values, expected, 8));
    CHECK_INT(pva_tensorfile_find(file, "s")->n_elements, 1);
    CHECK_INT(pva_tensorfile_find(file, "z")->n_elements, 0);

    const struct pva_tensor_view *view;
    CHECK_OK(pva_tensorfile_require(file, "a", 2, (int64_t[]){1, 2}, &view, &err), err);
    CHECK(view == pva_tensorfile_at(file, 0));
    static const struct {
        const char *name;
        int n_dims;
        int64_t shape[2];
        const char *message;
    } wrong[] = {{"a", 2, {2, 1}, "odd.safetensors: tensor a is [1, 2], expected [2, 1]"},
                 {"a", 1, {2}, "odd.safetensors: tensor a is [1, 2], expected [2]"},
                 {"c", 2, {3, 4}, "odd.safetensors: tensor c is missing, expected [3, 4]"},
                 {"z", 2, {0, 5}, "odd.safetensors: tensor z is U8, expected F32, BF16 or F16"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct pva_error e = {0};
        CHECK_INT(pva_tensorfile_require(file, wrong[i].name, wrong[i].n_dims, wrong[i].shape, &view, &e), PVA_INPUT);
        CHECK(!view);
        CHECK_HAS(e.msg, wrong[i].message);
    }
    pva_tensorfile_close(&file);
    CHECK(!file);
    pva_tensorfile_close(&file);

    write_file("none.safetensors", "{}", WHOLE, 0);
    CHECK_OK(pva_tensorfile_open(scratch("none.safetensors"), &file, &err), err);
    CHECK_INT(pva_tensorfile_count(file), 0);
    CHECK(!pva_tensorfile_find(file, "a"));
    pva_tensorfile_close(&file);
}

/* ---- shards ---- */

static const char *one_tensor(const char *name) {
    static char header[200];
    snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", name);
    return header;
}

static void test_shards(void) {
    struct pva_error err = {0};
    struct pva_tensorfile *file;
    const char *good = "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"b\":\"two.safetensors\",\"a\":\"one.safetensors\"}}";
    char path[400];
    snprintf(path, sizeof path, "%s/model", scratch_directory);
    CHECK_FATAL(mkdir(path, 0700) == 0);
    write_file("model/one.safetensors", one_tensor("a"), WHOLE, 4);
    write_file("model/two.safetensors", one_tensor("b"), WHOLE, 4);
    scratch_write("model/model.safetensors.index.json", good, strlen(good));
    CHECK_OK(pva_tensorfile_open(path, &file, &err), err);
    CHECK_FATAL(file != NULL);
    CHECK_INT(pva_tensorfile_count(file), 2);
    CHECK_TEXT(pva_tensorfile_find(file, "a")->file, "one.safetensors");
    CHECK_TEXT(pva_tensorfile_find(file, "b")->file, "two.safetensors");
    pva_tensorfile_close(&file);
    CHECK_OK(pva_tensorfile_open(scratch("model/model.safetensors.index.json"), &file, &err), err);
    pva_tensorfile_close(&file);

    static const struct {
        const char *label, *index, *message;
    } bad[] = {
        {"shard missing", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"three.safetensors\"}}",
         "three.safetensors: cannot open"},
        {"tensor missing", "{\"weight_map\":{\"a\":\"one.safetensors\",\"c\":\"two.safetensors\"}}",
         "tensor c is missing from two.safetensors"},
        {"tensor in another shard", "{\"weight_map\":{\"a\":\"two.safetensors\",\"b\":\"one.safetensors\"}}",
         "tensor a is in one.safetensors, expected it in two.safetensors"},
        {"tensor not listed", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\",\"d\":\"both.safetensors\"}}",
         "tensor e of both.safetensors is not listed"},
        {"tensor in two shards", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"again.safetensors\"}}",
         "tensor a is also in"},
        {"path upwards", "{\"weight_map\":{\"a\":\"../model/one.safetensors\"}}", "expected a plain file name"},
        {"absolute path", "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "expected a plain file name"},
        {"dot dot", "{\"weight_map\":{\"a\":\"..\"}}", "expected a plain file name"},
        {"empty file name", "{\"weight_map\":{\"a\":\"\"}}", "expected a plain file name"},
        {"backslash", "{\"weight_map\":{\"a\":\"..\\\\one\"}}", "expected a plain file name"},
        {"file is a number", "{\"weight_map\":{\"a\":1}}", "the file of a is not a text"},
        {"map empty", "{\"weight_map\":{}}", "expected an object \"weight_map\""},
        {"map a list", "{\"weight_map\":[\"one.safetensors\"]}", "expected an object \"weight_map\""},
        {"no map", "{\"metadata\":{}}", "expected an object \"weight_map\""},
        {"tensor twice", "{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"two.safetensors\"}}", "duplicate object key"},
        {"a list", "[]", "expected a JSON object"},
        {"cut short", "{\"weight_map\":", "not valid JSON"},
        {"shard truncated", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"cut.safetensors\"}}",
         "cut.safetensors: tensor b ends at"},
        {"shard is a directory", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"folder\"}}", "folder: is a directory"},
    };
    write_file("model/both.safetensors",
               "{\"d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"e\":{\"dtype\":\"U8\",\"shape\":[1],\"data_"
               "offsets\":[1,2]}}",
               WHOLE, 2);
    write_file("model/again.safetensors",
               "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_"
               "offsets\":[1,2]}}",
               WHOLE, 2);
    write_file("model/cut.safetensors", one_tensor("b"), WHOLE, 3);
    CHECK_FATAL(mkdir(scratch("model/folder"), 0700) == 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        scratch_write("model/model.safetensors.index.json", bad[i].index, strlen(bad[i].index));
        expect_failure(bad[i].label, path, PVA_INPUT, bad[i].message);
    }
    CHECK_FATAL(unlink(scratch("model/model.safetensors.index.json")) == 0);

    /* The hub's cache keeps links to files elsewhere: these are followed. A single file is preferred to an index. */
    CHECK_FATAL(symlink("one.safetensors", scratch("model/model.safetensors")) == 0);
    CHECK_OK(pva_tensorfile_open(path, &file, &err), err);
    CHECK_INT(pva_tensorfile_count(file), 1);
    pva_tensorfile_close(&file);
}

/* Opening reads headers only: forty gigabytes of holes cost no more page faults than a kilobyte. */
static void test_opening_touches_no_data(void) {
    enum { SHARDS = 10 };
    const long long bytes = 1LL << 32;
    char header[200], name[40], index[2000] = "{\"weight_map\":{";
    struct pva_error err = {0};
    struct pva_tensorfile *file;
    struct rusage before, after;
    CHECK_FATAL(mkdir(scratch("big"), 0700) == 0);
    for (int i = 0; i < SHARDS; i++) {
        snprintf(header, sizeof header, "{\"t%d\":{\"dtype\":\"U8\",\"shape\":[%lld],\"data_offsets\":[0,%lld]}}", i, bytes,
                 bytes);
        snprintf(name, sizeof name, "big/s%d", i);
        write_file(name, header, WHOLE, 0);
        if (truncate(scratch(name), (off_t)(8 + strlen(header)) + bytes)) {
            CHECK_SKIP("large sparse files: this file system refuses them");
            return;
        }
        sprintf(index + strlen(index), "%s\"t%d\":\"s%d\"", i ? "," : "", i, i);
    }
    strcat(index, "}}");
    scratch_write("big/model.safetensors.index.json", index, strlen(index));
    getrusage(RUSAGE_SELF, &before);
    CHECK_OK(pva_tensorfile_open(scratch("big"), &file, &err), err);
    getrusage(RUSAGE_SELF, &after);
    CHECK(after.ru_minflt - before.ru_minflt + after.ru_majflt - before.ru_majflt < 1000);
    CHECK_FATAL(file != NULL);
    CHECK(pva_tensorfile_bytes(file) == (size_t)(SHARDS * bytes));
    pva_tensorfile_close(&file);
}

/* ---- conversion ---- */

static void test_conversion(void) {
    /* All 65536 half floats against the definition: (-1)^s * 2^(e-15) * (1 + f/1024). */
    int wrong = 0;
    for (unsigned h = 0; h < 65536; h++) {
        int e = h >> 10 & 31, f = h & 1023;
        double value = e == 31 ? (f ? NAN : INFINITY) : e ? ldexp(1 + f / 1024.0, e - 15) : ldexp(f, -24);
        float got = pva_f16_to_f32((uint16_t)h);
        if (h & 0x8000) value = -value;
        wrong += isnan(value) ? !isnan(got) : !((double)got == value && !signbit(got) == !signbit(value));
    }
    CHECK_INT(wrong, 0);
    for (unsigned h = wrong = 0; h < 65536; h++) { /* bf16 is the upper half of a float32; there and back is the identity */
        float got = pva_bf16_to_f32((uint16_t)h);
        uint16_t back = pva_f32_to_bf16(got);
        wrong += isnan(got) ? !isnan(pva_bf16_to_f32(back)) : back != h;
    }
    CHECK_INT(wrong, 0);
    CHECK_INT(pva_f32_to_bf16(1.00390625f), 0x3f80); /* 1 + 2^-8, a tie: to even, down */
    CHECK_INT(pva_f32_to_bf16(1.01171875f), 0x3f82); /* 1 + 3 * 2^-8, a tie: to even, up */
    CHECK_INT(pva_f32_to_bf16(3.4e38f), 0x7f80);     /* beyond the largest bf16 */

    const uint16_t halves[] = {0x3c00, 0xc000, 0x0001, 0x7c00};
    const double doubles[] = {0.1, -1e300, 3};
    float out[4];
    struct pva_tensor_view t = {.dtype = PVA_F16, .n_elements = 4, .bytes = 8, .data = halves};
    pva_tensor_to_f32(&t, 1, 3, out);
    CHECK(out[0] == -2.0f && out[1] == 0x1p-24f && isinf(out[2]));
    t = (struct pva_tensor_view){.dtype = PVA_F64, .n_elements = 3, .bytes = 24, .data = doubles};
    pva_tensor_to_f32(&t, 0, 3, out);
    CHECK(out[0] == 0.1f && isinf(out[1]) && out[1] < 0 && out[2] == 3.0f);
    t = (struct pva_tensor_view){.dtype = PVA_BF16, .n_elements = 4, .bytes = 8, .data = halves};
    pva_tensor_to_f32(&t, 0, 2, out);
    CHECK(out[0] == pva_bf16_to_f32(0x3c00) && out[1] == pva_bf16_to_f32(0xc000));

    static const size_t sizes[] = {4, 2, 2, 8, 1, 1, 2, 2, 4, 4, 8, 8, 1};
    for (int d = PVA_F32; d <= PVA_BOOL; d++) CHECK_INT(pva_dtype_size((enum pva_dtype)d), sizes[d]);
    CHECK_TEXT(pva_dtype_name(PVA_BF16), "BF16");
}

/* ---- writing ---- */

static void test_writer(void) {
    struct pva_error err = {0};
    struct pva_tensorfile_writer *w;
    struct pva_tensorfile *file;
    enum { N = 100003 };
    float *values = malloc(N * sizeof *values);
    CHECK_FATAL(values != NULL);
    for (int i = 0; i < N; i++) values[i] = (float)i * 0.5f;
    const char *path = scratch("written.safetensors");
    CHECK_OK(pva_tensorfile_create(path, &w, &err), err);
    CHECK_OK(pva_tensorfile_metadata_add(w, "format", "pt", &err), err);
    CHECK_OK(pva_tensorfile_declare(w, "z", PVA_F32, 1, (int64_t[]){N}, &err), err);
    CHECK_OK(pva_tensorfile_declare(w, "empty", PVA_I32, 2, (int64_t[]){3, 0}, &err), err);
    CHECK_OK(pva_tensorfile_declare(w, "\"quoted\" \xc3\xa9", PVA_BF16, 0, NULL, &err), err);
    /* Pieces of every size: small, around the buffer, large. */
    for (size_t done = 0, step = 1; done < N * sizeof(float); step = step * 7 % 300007 + 1) {
        size_t n = N * sizeof(float) - done < step ? N * sizeof(float) - done : step;
        CHECK_OK(pva_tensorfile_append(w, (char *)values + done, n, &err), err);
        done += n;
    }
    CHECK(access(path, F_OK) != 0); /* not there before it is complete */
    CHECK_OK(pva_tensorfile_append(w, &(uint16_t){0x3f80}, 2, &err), err);
    CHECK_OK(pva_tensorfile_finish(&w, &err), err);
    CHECK(!w && access(scratch("written.safetensors.partial"), F_OK) != 0);
    CHECK_OK(pva_tensorfile_open(path, &file, &err), err);
    CHECK_FATAL(file != NULL);
    CHECK_INT(pva_tensorfile_count(file), 3);
    const struct pva_tensor_view *z = pva_tensorfile_find(file, "z");
    CHECK_FATAL(z && z->bytes == N * sizeof(float));
    CHECK(!memcmp(z->data, values, z->bytes));
    CHECK_INT((uintptr_t)z->data % 64, 0);
    CHECK(pva_tensorfile_find(file, "\"quoted\" \xc3\xa9") != NULL);
    CHECK_TEXT(pva_tensorfile_metadata(file, "format"), "pt");
    pva_tensorfile_close(&file);

    /* Misuse is said, and leaves nothing under the name. */
    const char *other = scratch("other.safetensors");
    for (int misuse = 0; misuse < 6; misuse++) {
        struct pva_error e = {0};
        CHECK_OK(pva_tensorfile_create(other, &w, &e), e);
        CHECK_OK(pva_tensorfile_declare(w, "a", PVA_F32, 1, (int64_t[]){2}, &e), e);
        if (misuse == 0) CHECK_INT(pva_tensorfile_declare(w, "a", PVA_F32, 1, (int64_t[]){2}, &e), PVA_BUG);
        if (misuse == 1) CHECK_INT(pva_tensorfile_append(w, values, 9, &e), PVA_BUG);
        if (misuse == 2) {
            CHECK_OK(pva_tensorfile_append(w, values, 4, &e), e);
            CHECK_INT(pva_tensorfile_declare(w, "b", PVA_F32, 1, (int64_t[]){2}, &e), PVA_BUG);
        }
        if (misuse == 3) CHECK_INT(pva_tensorfile_declare(w, "b", PVA_F32, 2, (int64_t[]){1LL << 40, 1LL << 40}, &e), PVA_BUG);
        if (misuse == 4) CHECK_INT(pva_tensorfile_declare(w, "__metadata__", PVA_F32, 1, (int64_t[]){2}, &e), PVA_BUG);
        if (misuse == 5) {
            CHECK_OK(pva_tensorfile_append(w, values, 4, &e), e);
            CHECK_INT(pva_tensorfile_finish(&w, &e), PVA_BUG);
            CHECK_HAS(e.msg, "4 bytes of data, but 8 were declared");
        }
        pva_tensorfile_discard(&w);
        CHECK(!w && access(other, F_OK) != 0 && access(scratch("other.safetensors.partial"), F_OK) != 0);
    }
    struct pva_error e = {0};
    CHECK_INT(pva_tensorfile_create(scratch("no/such/file"), &w, &e), PVA_IO);
    CHECK_HAS(e.msg, "cannot create");
    CHECK(!w);
    free(values);
}

/* A limit on the file size stands in for a full disk: one clear line, nothing left behind. */
static void test_no_room(void) {
    struct rlimit old, small = {1 << 20, RLIM_INFINITY};
    struct pva_error err = {0};
    struct pva_tensorfile_writer *w;
    const char *path = scratch("full.safetensors");
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    CHECK_FATAL(setrlimit(RLIMIT_FSIZE, &small) == 0);
    CHECK_OK(pva_tensorfile_create(path, &w, &err), err);
    CHECK_OK(pva_tensorfile_declare(w, "a", PVA_F32, 1, (int64_t[]){1 << 20}, &err), err);
    char *zeros = calloc(1, 4 << 20);
    CHECK_FATAL(zeros != NULL);
    CHECK_INT(pva_tensorfile_append(w, zeros, 4 << 20, &err), PVA_IO);
    CHECK_HAS(err.msg, "full.safetensors.partial: ");
    CHECK_INT(pva_tensorfile_finish(&w, &err), PVA_IO);
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK(!w && access(path, F_OK) != 0 && access(scratch("full.safetensors.partial"), F_OK) != 0);
    free(zeros);
}

int main(void) {
    scratch_make();
    test_malformed();
    test_truncated();
    test_good_file();
    test_shards();
    test_opening_touches_no_data();
    test_conversion();
    test_writer();
    test_no_room();
    return check_report("tensorfile");
}
