/* The store at 1, 2 and 3 ranks: what is written reads back, commits count, damage is found, another run is refused, snapshots
 * are whole. */
#include "check.h"
#include "store_private.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5_hl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { n_slots = 60, n_layers = 3, width = 50, text_size = 40 };
enum { RESID, HALF, TOKENS, TEXT, SECONDS, COUNT, N_FIELDS };

static const struct store_field fields[N_FIELDS] = {
    [RESID] = {"resid_post", STORE_F32, 0, 2, {{"layer", n_layers}, {"d_model", width}}, NULL, "residual stream"},
    [HALF] = {"half", STORE_BF16, 0, 1, {{"d_model", width}}, NULL, "the same, rounded"},
    [TOKENS] = {"tokens", STORE_I32, 0, 1, {{"token", 7}}, NULL, NULL},
    [TEXT] = {"text", STORE_BYTES, text_size, 0, {{0}}, NULL, "completion"},
    [SECONDS] = {"seconds", STORE_F64, 0, 0, {{0}}, "s", "time of generation"},
    [COUNT] = {"count", STORE_I64, 0, 0, {{0}}, NULL, NULL},
};
static int32_t task_ids[n_slots];
static const int32_t layer_numbers[n_layers] = {4, 9, 13};
static const char difficulty[n_slots][8] = {"easy", "hard"};

static struct store_coordinate coordinates[] = {
    {{"problem", STORE_I32, 0, 1, {{"problem", n_slots}}, NULL, "task id"}, task_ids, 1},
    {{"layer", STORE_I32, 0, 1, {{"layer", n_layers}}, NULL, "layer number"}, layer_numbers, 1},
    {{"difficulty", STORE_BYTES, 8, 1, {{"problem", n_slots}}, NULL, NULL}, difficulty, 1},
};
static const struct store_attribute attributes[] = {
    {"model_sha256", STORE_TEXT, "0123456789abcdef", 0, 0, 1},
    {"max_tokens", STORE_INTEGER, NULL, 2000, 0, 1},
    {"temperature", STORE_REAL, NULL, 0, 0.1, 1},
    {"note", STORE_TEXT, "", 0, 0, 0},
};
static const struct store_schema schema = {.name = "pva-test",
                                           .version = 2,
                                           .title = "a test",
                                           .source = "mpi_store",
                                           .history = "made by a test",
                                           .slot = {"problem", n_slots},
                                           .states = "empty done too_long",
                                           .fields = fields,
                                           .n_fields = N_FIELDS,
                                           .coordinates = coordinates,
                                           .n_coordinates = 3,
                                           .attributes = attributes,
                                           .n_attributes = 4};

static struct par par;
static char dir[256];

static const char *in_dir(const char *name) {
    static char path[4][400];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

/* ---- content ----------------------------------------------------------------------------------------------------- */

struct slot {
    float resid[n_layers * width];
    uint16_t half[width];
    int32_t tokens[7];
    char text[text_size];
    double seconds;
    int64_t count;
};

static void make(int64_t i, struct slot *s) {
    memset(s, 0, sizeof *s);
    for (int k = 0; k < n_layers * width; k++) s->resid[k] = (float)(i * 1000 + k) * 0.25f;
    for (int k = 0; k < width; k++) s->half[k] = (uint16_t)(0x3f80 + (i * 50 + k) % 200);
    for (int k = 0; k < 7; k++) s->tokens[k] = (int32_t)(i * 7 + k);
    snprintf(s->text, sizeof s->text, "completion %lld", (long long)i);
    s->seconds = 0.5 * (double)i;
    s->count = -i;
}

static int write_slot(struct store *st, int64_t i, struct pva_error *err) {
    struct slot s;
    make(i, &s);
    if (store_write(st, i, TEXT, s.text, err) || store_write(st, i, RESID, s.resid, err) ||
        store_write(st, i, HALF, s.half, err) || store_write(st, i, TOKENS, s.tokens, err) ||
        store_write(st, i, SECONDS, &s.seconds, err) || store_write(st, i, COUNT, &s.count, err))
        return err->code;
    return store_commit(st, i, i % 5 == 3 ? 2 : STORE_DONE, err);
}

static int same_slot(struct store *st, int64_t i) {
    struct slot has, want;
    struct pva_error err = {0};
    memset(&has, 0, sizeof has);
    make(i, &want);
    return !store_read(st, i, RESID, has.resid, &err) && !store_read(st, i, HALF, has.half, &err) &&
           !store_read(st, i, TOKENS, has.tokens, &err) && !store_read(st, i, TEXT, has.text, &err) &&
           !store_read(st, i, SECONDS, &has.seconds, &err) && !store_read(st, i, COUNT, &has.count, &err) &&
           !memcmp(&has, &want, sizeof has);
}

/* ---- the parts --------------------------------------------------------------------------------------------------- */

static void write_and_read(const char *path) {
    struct pva_error err = {0};
    struct store *st = NULL;
    uint8_t states[n_slots];
    CHECK_OK(store_open(&par, path, &schema, STORE_FRESH, &st, &err), err);
    CHECK_FATAL(st != NULL);
    CHECK_INT(store_n_slots(st), n_slots);
    CHECK_INT(store_field_index(st, "text"), TEXT);
    CHECK_INT(store_field_index(st, "nothing"), -1);
    CHECK_INT(store_dim_size(st, "d_model"), width);
    CHECK_INT(store_dim_size(st, "problem"), n_slots);
    CHECK_INT(store_field_bytes(st, RESID), n_layers * width * 4);
    for (int64_t i = par.rank; i < n_slots; i += par.size) {
        if (i == 10 || i == 11) continue;
        CHECK_OK(write_slot(st, i, &err), err);
    }
    if (10 % par.size == par.rank) { /* written, but not committed; the other: committed, half written */
        double x = 3;
        CHECK_OK(store_write(st, 10, SECONDS, &x, &err), err);
    }
    if (11 % par.size == par.rank) {
        double x = 3;
        CHECK_OK(store_write(st, 11, SECONDS, &x, &err), err);
        CHECK_OK(store_commit(st, 11, 2, &err), err);
        CHECK_INT(store_write(st, 11, SECONDS, &x, &err), PVA_BUG);
        CHECK_HAS(err.msg, "committed already");
        err = (struct pva_error){0};
    }
    CHECK_INT(store_write(st, n_slots, SECONDS, &st, &err), PVA_BUG);
    err = (struct pva_error){0};
    CHECK_INT(store_commit(st, 10, STORE_EMPTY, &err), PVA_BUG);
    err = (struct pva_error){0};
    CHECK_OK(store_checkpoint(st, &err), err);
    CHECK_OK(store_close(&st, &err), err);
    CHECK(st == NULL);
    par_barrier(&par);
    CHECK(access(in_dir("a.h5.lock"), F_OK) != 0);

    CHECK_OK(store_open_read(path, &schema, &st, &err), err);
    CHECK_FATAL(st != NULL);
    CHECK_OK(store_states(st, states, &err), err);
    for (int64_t i = 0; i < n_slots; i++) {
        CHECK_INT(states[i], i == 10 ? 0 : i == 11 ? 2 : i % 5 == 3 ? 2 : 1);
        if (i != 10 && i != 11) CHECK(same_slot(st, i));
    }
    char text[text_size];
    memset(text, 1, sizeof text);
    CHECK_OK(store_read(st, 11, TEXT, text, &err), err);
    CHECK(!text[0] && !memcmp(text, text + 1, text_size - 1));
    float values[3 * width], expected;
    CHECK_OK(store_read_floats(st, HALF, 4, 3, values, &err), err);
    for (int k = 0; k < 3 * width; k++) {
        struct slot s;
        make(4 + k / width, &s);
        uint32_t bits = (uint32_t)s.half[k % width] << 16;
        memcpy(&expected, &bits, 4);
        CHECK(values[k] == expected);
    }
    float resid[2 * n_layers * width];
    CHECK_OK(store_read_floats(st, RESID, 20, 2, resid, &err), err);
    CHECK(resid[0] == 5000.0f && resid[n_layers * width] == 5250.0f);
    CHECK_INT(store_write(st, 10, SECONDS, text, &err), PVA_BUG);
    err = (struct pva_error){0};
    int64_t *damaged, n_damaged, integer = 0;
    double real = 0;
    char name[20];
    int32_t ids[n_slots];
    CHECK_OK(store_check(st, &damaged, &n_damaged, &err), err);
    CHECK_INT(n_damaged, 0);
    free(damaged);
    CHECK_OK(store_read_coordinate(st, "problem", STORE_I32, ids, sizeof ids, &err), err);
    CHECK(!memcmp(ids, task_ids, sizeof ids));
    CHECK_OK(store_text(st, "model_sha256", name, sizeof name, &err), err);
    CHECK_TEXT(name, "0123456789abcdef");
    CHECK_OK(store_text(st, "note", name, sizeof name, &err), err);
    CHECK_TEXT(name, "");
    CHECK_OK(store_integer(st, "max_tokens", &integer, &err), err);
    CHECK_INT(integer, 2000);
    CHECK_OK(store_real(st, "temperature", &real, &err), err);
    CHECK(real == 0.1);
    CHECK_INT(store_integer(st, "temperature", &integer, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "is not an integer");
    err = (struct pva_error){0};
    CHECK_INT(store_text(st, "title", name, 3, &err), PVA_INPUT);
    err = (struct pva_error){0};
    CHECK_OK(store_close(&st, &err), err);
    par_barrier(&par);
}

/* A reader's checksum from the file alone, as the header describes it. */
static void checksum_is_zlibs(const char *path) {
    struct pva_error err = {0};
    struct store *st;
    CHECK_OK(store_open_read(path, &schema, &st, &err), err);
    CHECK_FATAL(st != NULL);
    uint32_t stored[n_slots];
    CHECK_OK(store_column_read(st, &st->checksum, 0, n_slots, stored, &err), err);
    struct slot s;
    make(8, &s);
    uLong sum = crc32(0, (Bytef *)s.resid, sizeof s.resid);
    sum = crc32(sum, (Bytef *)s.half, sizeof s.half);
    sum = crc32(sum, (Bytef *)s.tokens, sizeof s.tokens);
    sum = crc32(sum, (Bytef *)s.text, sizeof s.text);
    sum = crc32(sum, (Bytef *)&s.seconds, 8);
    sum = crc32(sum, (Bytef *)&s.count, 8);
    CHECK_INT(stored[8], crc32(sum, (Bytef *)"\2", 1));
    CHECK_INT(stored[10], 0);
    store_close(&st, &err);

    unsigned char noise[3000];
    for (int i = 0; i < 3000; i++) noise[i] = (unsigned char)(i * i >> 3);
    for (size_t at = 0; at < 20; at++)
        for (size_t n = 0; n < 2900; n += 1 + n / 50)
            CHECK_INT(store_crc((uint32_t)at * 77777, noise + at, n), crc32(at * 77777, noise + at, (uInt)n));
}

static char *load(const char *path, size_t *bytes) {
    struct stat st;
    int fd = open(path, O_RDONLY);
    CHECK_FATAL(fd >= 0 && !fstat(fd, &st));
    char *data = malloc((size_t)st.st_size);
    ssize_t got = data ? read(fd, data, (size_t)st.st_size) : -1;
    CHECK_FATAL(got == st.st_size);
    close(fd);
    *bytes = (size_t)st.st_size;
    return data;
}

/* Blanks what is meant to change, so that the rest can be compared. */
static void blank_slots(const struct store *st, char *data) {
    memset(data + st->state.offset, 0, n_slots);
    memset(data + st->checksum.offset, 0, n_slots * 4);
    for (int f = 0; f < N_FIELDS; f++) memset(data + st->fields[f].offset, 0, n_slots * st->fields[f].slot_bytes);
}

/* Another rank count goes on where this one stopped; a file once made keeps every byte of its metadata. */
static void resume(const char *path) {
    struct pva_error err = {0};
    struct store *st = NULL;
    uint8_t states[n_slots];
    size_t before_bytes = 0, after_bytes = 0;
    char *before = NULL, *after;
    int64_t *damaged, n_damaged;
    CHECK_OK(store_open(&par, path, &schema, STORE_RESUME, &st, &err), err);
    CHECK_FATAL(st != NULL);
    if (par.rank == 0) before = load(path, &before_bytes);
    CHECK_OK(par_agree(&par, "test", &err), err);
    for (int64_t i = par.rank; i < 30; i += par.size) CHECK_OK(write_slot(st, i, &err), err);
    CHECK_OK(store_close(&st, &err), err);
    CHECK_OK(par_agree(&par, "test", &err), err);
    if (par.rank == 0) {
        struct par alone = par;
        alone.comm = MPI_COMM_SELF, alone.size = alone.local_size = 1;
        CHECK_OK(store_open(&alone, path, &schema, STORE_RESUME, &st, &err), err);
        CHECK_FATAL(st != NULL);
        CHECK_OK(store_verify(&alone, st, &damaged, &n_damaged, &err), err);
        CHECK_INT(n_damaged, 0);
        free(damaged);
        CHECK_OK(store_states(st, states, &err), err);
        for (int64_t i = 0; i < n_slots; i++) {
            CHECK_INT(states[i] != 0, i < 30);
            if (!states[i]) CHECK_OK(write_slot(st, i, &err), err);
        }
        for (int64_t i = 0; i < n_slots; i++) CHECK(same_slot(st, i));
        after = load(path, &after_bytes);
        CHECK_INT(before_bytes, after_bytes);
        blank_slots(st, before), blank_slots(st, after);
        CHECK(!memcmp(before, after, before_bytes));
        CHECK_OK(store_close(&st, &err), err);
        free(before), free(after);
    }
    par_barrier(&par);
}

static void expect_refusal(const char *path, const struct store_schema *s, int code, const char *part) {
    struct pva_error err = {0};
    struct store *st = NULL;
    CHECK_INT(store_open(&par, path, s, STORE_RESUME, &st, &err), code);
    CHECK(st == NULL);
    CHECK_HAS(err.msg, part);
    CHECK(!strchr(err.msg, '\n'));
}

static void refuse_other_runs(const char *path) {
    struct store_attribute other[4];
    struct store_schema s = schema;
    memcpy(other, attributes, sizeof other);
    s.attributes = other;
    other[0].text = "fedcba", other[1].integer = 1000;
    expect_refusal(
        path, &s, PVA_REFUSED,
        "model_sha256 is \"0123456789abcdef\" in the file and \"fedcba\" here, max_tokens is 2000 in the file and 1000");
    other[0] = attributes[0], other[1] = attributes[1], other[2].real = 0.2;
    expect_refusal(path, &s, PVA_REFUSED, "temperature is 0.1");
    other[2] = attributes[2], other[3].text = "no identity";
    struct pva_error err = {0};
    struct store *st;
    CHECK_OK(store_open(&par, path, &s, STORE_RESUME, &st, &err), err);
    store_close(&st, &err);
    par_barrier(&par);
    s = schema, s.version = 3;
    expect_refusal(path, &s, PVA_INPUT, "schema_version is 2, this program uses 3");
    s = schema, s.name = "pva-other";
    expect_refusal(path, &s, PVA_INPUT, "its schema is \"pva-test\", expected \"pva-other\"");
    s = schema, s.slot.size = n_slots + 1, s.n_coordinates = 0;
    expect_refusal(path, &s, PVA_REFUSED, "the number of slots (problem) is 60 in the file and 61 here");
    task_ids[7]++;
    expect_refusal(path, &schema, PVA_REFUSED, "problem[7] is 18 in the file and 19 here");
    task_ids[7]--;
    struct store_field table[N_FIELDS + 1];
    memcpy(table, fields, sizeof fields);
    s = schema, s.fields = table;
    table[SECONDS].type = STORE_F32;
    expect_refusal(path, &s, PVA_INPUT, "/seconds has another type, expected float32");
    table[SECONDS] = fields[SECONDS], table[TOKENS].dims[0].size = 8;
    expect_refusal(path, &s, PVA_INPUT, "/tokens is [60, 7], expected [60, 8]");
    table[TOKENS] = fields[TOKENS], table[TEXT].text_size = 41;
    expect_refusal(path, &s, PVA_INPUT, "expected text of 41 bytes");
    table[TEXT] = fields[TEXT], table[N_FIELDS] = (struct store_field){.name = "more", .type = STORE_U8},
    s.n_fields = N_FIELDS + 1;
    expect_refusal(path, &s, PVA_INPUT, "dataset /more is missing");
    err = (struct pva_error){0};
    CHECK_INT(store_open(&par, path, &schema, STORE_FRESH, &st, &err), PVA_REFUSED);
    CHECK_HAS(err.msg, "would be overwritten");
    par_barrier(&par);
}

/* A broken table is the program's mistake and says so before a file is made. */
static void broken_tables(void) {
    struct store_field table[N_FIELDS];
    struct store_schema s = schema;
    const char *path = in_dir("never.h5");
    memcpy(table, fields, sizeof fields);
    s.fields = table;
    table[HALF].dims[0].size = 0;
    expect_refusal(path, &s, PVA_BUG, "dimension d_model of 0");
    table[HALF].dims[0].size = 51;
    expect_refusal(path, &s, PVA_BUG, "d_model has the sizes 50 and 51");
    table[HALF] = fields[HALF], table[TEXT].name = "a/b";
    expect_refusal(path, &s, PVA_BUG, "\"a/b\" cannot be a name");
    table[TEXT] = fields[TEXT], table[TEXT].text_size = 0;
    expect_refusal(path, &s, PVA_BUG, "text_size 0");
    table[TEXT] = fields[TEXT], table[TEXT].name = "half";
    expect_refusal(path, &s, PVA_BUG, "two datasets are named half");
    table[TEXT].name = "layer";
    expect_refusal(path, &s, PVA_BUG, "two datasets are named layer");
    table[TEXT] = fields[TEXT], s.n_fields = 0;
    expect_refusal(path, &s, PVA_BUG, "0 fields");
    s = schema, s.slot.size = INT64_MAX / 4, s.n_coordinates = 0;
    expect_refusal(path, &s, PVA_INPUT, "slots");
    CHECK(access(path, F_OK) != 0);
    CHECK_INT(store_bytes(&schema),
              n_slots * (n_layers * width * 4 + width * 2 + 28 + text_size + 16 + 5) + n_slots * 4 + 12 + n_slots * 8);
}

static void flip(const char *path, int64_t at) {
    unsigned char byte;
    int fd = open(path, O_RDWR);
    CHECK_FATAL(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 0x10;
    CHECK_FATAL(pwrite(fd, &byte, 1, at) == 1);
    close(fd);
}

static void find_damage(const char *path) {
    struct pva_error err = {0};
    struct store *st = NULL;
    int64_t *damaged = NULL, n_damaged = 0;
    uint8_t states[n_slots];
    CHECK_OK(store_open(&par, path, &schema, STORE_RESUME, &st, &err), err);
    CHECK_FATAL(st != NULL);
    if (par.rank == 0) {
        flip(path, st->fields[RESID].offset + 5 * (int64_t)st->fields[RESID].slot_bytes + 7);
        flip(path, st->fields[COUNT].offset + 59 * 8);
        flip(path, st->checksum.offset + 4 * 20);
        flip(path, st->state.offset + 33); /* done becomes 17 */
    }
    par_barrier(&par);
    CHECK_OK(store_verify(&par, st, &damaged, &n_damaged, &err), err);
    CHECK_INT(n_damaged, 4);
    if (n_damaged == 4) CHECK(damaged[0] == 5 && damaged[1] == 20 && damaged[2] == 33 && damaged[3] == 59);
    CHECK_OK(store_states(st, states, &err), err);
    for (int64_t i = 0; i < n_slots; i++) CHECK_INT(states[i] == 0, i == 5 || i == 20 || i == 33 || i == 59);
    par_barrier(&par);
    for (int64_t i = par.rank; i < n_damaged; i += par.size) CHECK_OK(write_slot(st, damaged[i], &err), err);
    free(damaged);
    par_barrier(&par);
    CHECK_OK(store_verify(&par, st, &damaged, &n_damaged, &err), err);
    CHECK_INT(n_damaged, 0);
    free(damaged);

    /* Amended in place: content kept, one field replaced. */
    if (par.rank == par.size - 1) {
        double seconds = 77;
        CHECK_OK(store_reopen(st, 6, &err), err);
        CHECK_OK(store_write(st, 6, SECONDS, &seconds, &err), err);
        CHECK_OK(store_commit(st, 6, STORE_DONE, &err), err);
        int32_t tokens[7];
        CHECK_OK(store_read(st, 6, TOKENS, tokens, &err), err);
        CHECK_INT(tokens[3], 45);
        CHECK_OK(store_read(st, 6, SECONDS, &seconds, &err), err);
        CHECK(seconds == 77);
        CHECK_INT(store_reopen(st, n_slots, &err), PVA_BUG);
        err = (struct pva_error){0};
    }
    par_barrier(&par);
    CHECK_OK(store_verify(&par, st, &damaged, &n_damaged, &err), err);
    CHECK_INT(n_damaged, 0);
    free(damaged);
    CHECK_OK(store_close(&st, &err), err);
    par_barrier(&par);
}

static void snapshots(void) {
    struct pva_error err = {0};
    struct store *st = NULL, *copy = NULL;
    const char *path = in_dir("snap.h5");
    struct store_snapshot *list = NULL;
    int n = 0, running = 0;
    uint8_t states[n_slots];
    CHECK_OK(store_open(&par, path, &schema, STORE_FRESH, &st, &err), err);
    CHECK_FATAL(st != NULL);
    CHECK_OK(store_snapshots(path, &list, &n, &err), err);
    CHECK_INT(n, 0);
    for (int64_t i = par.rank; i < n_slots; i += par.size) {
        CHECK_OK(write_slot(st, i, &err), err);
        if (par.rank == 0 && i % 6 == 0) {
            CHECK_OK(store_snapshot_start(st, i, 3, &err), err); /* skipped while one is running */
            CHECK_OK(store_snapshot_poll(st, &running, &err), err);
        }
    }
    CHECK_OK(store_snapshot_wait(st, &err), err);
    par_barrier(&par);
    if (par.rank == 0) {
        int fd = open(in_dir("checkpoints/snap-00001.h5.partial"), O_CREAT | O_WRONLY, 0600); /* left by a killed job */
        close(fd);
        CHECK(mkdir(in_dir("checkpoints/snap-00002.h5"), 0700) == 0); /* none of ours */
        for (int k = 0; k < 4; k++) {
            CHECK_OK(store_snapshot_start(st, 100 + 3 * k, 3, &err), err);
            CHECK_OK(store_snapshot_poll(st, &running, &err), err);
            CHECK_OK(store_snapshot_wait(st, &err), err);
        }
        CHECK_OK(store_snapshots(path, &list, &n, &err), err);
        CHECK_INT(n, 3);
        for (int k = 0; k < n; k++) {
            CHECK_INT(list[k].count, 103 + 3 * k);
            CHECK(list[k].bytes > 0 && list[k].time > 0);
            CHECK_OK(store_open_read(list[k].path, &schema, &copy, &err), err);
            CHECK_FATAL(copy != NULL);
            for (int64_t i = 0; i < n_slots; i++) CHECK(same_slot(copy, i));
            CHECK_OK(store_close(&copy, &err), err);
        }
        store_snapshots_free(&list, &n);
        CHECK(access(in_dir("checkpoints/snap-00001.h5.partial"), F_OK) != 0);
        CHECK(rmdir(in_dir("checkpoints/snap-00002.h5")) == 0);
        CHECK_INT(store_snapshot_start(st, -1, 3, &err), PVA_BUG);
        err = (struct pva_error){0};
    }
    CHECK_OK(store_close(&st, &err), err);
    par_barrier(&par);

    /* One of a half-written file: what was not committed is empty and takes no space. */
    path = in_dir("half.h5");
    CHECK_OK(store_open(&par, path, &schema, STORE_FRESH, &st, &err), err);
    CHECK_FATAL(st != NULL);
    for (int64_t i = par.rank; i < 20; i += par.size) CHECK_OK(write_slot(st, i, &err), err);
    double seconds = 9;
    CHECK_OK(store_write(st, 40 + par.rank, SECONDS, &seconds, &err), err);
    par_barrier(&par);
    if (par.rank == 0) {
        CHECK_OK(store_snapshot_start(st, 20, 3, &err), err);
        CHECK_OK(store_snapshot_wait(st, &err), err);
    }
    par_barrier(&par);
    for (int64_t i = 20 + par.rank; i < 30; i += par.size) CHECK_OK(write_slot(st, i, &err), err);
    CHECK_OK(store_close(&st, &err), err);
    par_barrier(&par);

    /* Back to it: the file is replaced in one step, the old one kept. */
    CHECK_OK(store_copy(&par, in_dir("checkpoints/half-00020.h5"), path, &schema, &err), err);
    CHECK_OK(store_open(&par, path, &schema, STORE_RESUME, &st, &err), err);
    CHECK_FATAL(st != NULL);
    CHECK_OK(store_states(st, states, &err), err);
    for (int64_t i = 0; i < n_slots; i++) CHECK_INT(states[i] != 0, i < 20);
    CHECK_OK(store_read(st, 40, SECONDS, &seconds, &err), err);
    CHECK(seconds == 0);
    for (int64_t i = 0; i < 20; i++) CHECK(same_slot(st, i));
    CHECK_OK(store_close(&st, &err), err);
    par_barrier(&par);
    CHECK(access(in_dir("half.h5.replaced"), F_OK) == 0);
    task_ids[0] = 5;
    CHECK_INT(store_copy(&par, in_dir("checkpoints/half-00020.h5"), path, &schema, &err), PVA_REFUSED);
    task_ids[0] = 11;
    err = (struct pva_error){0};
    CHECK_INT(store_copy(&par, in_dir("checkpoints/half-00099.h5"), path, &schema, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "No such file");
    par_barrier(&par);
}

/* While one job holds the file, a second one is told; readers are not. */
static void one_job(const char *path) {
    struct pva_error err = {0};
    struct store *st = NULL, *reader = NULL;
    int lock = -1;
    CHECK_OK(store_open(&par, path, &schema, STORE_RESUME, &st, &err), err);
    CHECK_INT(store_lock_exclusive(path, 0.05, &lock, &err), PVA_REFUSED);
    CHECK_HAS(err.msg, "another job is writing it (process ");
    CHECK_INT(lock, -1);
    err = (struct pva_error){0};
    CHECK_OK(store_open_read(path, &schema, &reader, &err), err);
    store_close(&reader, &err);
    par_barrier(&par);
    store_close(&st, &err);
    par_barrier(&par);
    if (par.rank == 0) {
        CHECK_OK(store_lock_exclusive(path, 0, &lock, &err), err);
        CHECK(lock >= 0);
        store_lock_release(path, &lock);
    }
    par_barrier(&par);
}

static void readable_by_hdf5(const char *path) {
    static const struct {
        const char *dataset, *scales[3];
        int rank;
    } expected[] = {{"resid_post", {"problem", "layer", "d_model"}, 3},
                    {"tokens", {"problem", "token"}, 2},
                    {"state", {"problem"}, 1},
                    {"difficulty", {"problem"}, 1}};
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    CHECK_FATAL(file >= 0);
    for (int i = 0; i < 4; i++) {
        hid_t d = H5Dopen2(file, expected[i].dataset, H5P_DEFAULT);
        CHECK_FATAL(d >= 0);
        for (int k = 0; k < expected[i].rank; k++) {
            hid_t scale = H5Dopen2(file, expected[i].scales[k], H5P_DEFAULT);
            CHECK(scale >= 0 && H5DSis_scale(scale) == 1);
            CHECK_INT(H5DSget_num_scales(d, (unsigned)k), 1);
            CHECK_INT(H5DSis_attached(d, scale, (unsigned)k), 1);
            H5Dclose(scale);
        }
        CHECK(H5Aexists(d, "long_name") > 0);
        CHECK_INT(H5Aexists(d, "units") > 0, i != 3);
        H5Dclose(d);
    }
    /* HDF5's own conversion of the 16-bit type. */
    float values[n_slots * width];
    hid_t d = H5Dopen2(file, "half", H5P_DEFAULT);
    CHECK(H5Dread(d, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    for (int i = 0; i < n_slots * width; i++) {
        struct slot s;
        float want;
        make(i / width, &s);
        uint32_t bits = (uint32_t)s.half[i % width] << 16;
        memcpy(&want, &bits, 4);
        if (i / width != 10 && i / width != 11) CHECK(values[i] == want);
    }
    H5Dclose(d);
    H5Fclose(file);
}

/* A flipped bit anywhere outside the slots: an error in one line or no harm, never a crash, never other slots' data. */
static void flipped_metadata(const char *path) {
    struct pva_error err = {0};
    struct store *st;
    size_t bytes;
    int refused = 0, harmless = 0;
    CHECK_OK(store_open_read(path, &schema, &st, &err), err);
    CHECK_FATAL(st != NULL);
    char *mask = malloc(1 << 20), *data = load(path, &bytes);
    CHECK_FATAL(mask && bytes < 1 << 20);
    memset(mask, 1, bytes);
    blank_slots(st, mask);
    store_close(&st, &err);
    const char *broken = in_dir("flipped.h5");
    uint32_t x = 1;
    for (int tries = 0; tries < 400;) {
        x = x * 1664525 + 1013904223;
        size_t at = (x >> 8) % bytes;
        if (!mask[at]) continue;
        tries++;
        if (!data[at] && tries % 4) continue; /* most of the metadata's room is unused zeros */
        data[at] ^= (char)(1 << (x >> 5 & 7));
        int fd = open(broken, O_RDWR | O_CREAT | O_TRUNC, 0600);
        ssize_t put = write(fd, data, bytes);
        CHECK_FATAL(put == (ssize_t)bytes);
        close(fd);
        data[at] ^= (char)(1 << (x >> 5 & 7));
        err = (struct pva_error){0};
        if (store_open_read(broken, &schema, &st, &err)) {
            CHECK(err.code == PVA_INPUT || err.code == PVA_REFUSED);
            CHECK(err.msg[0] && !strchr(err.msg, '\n'));
            refused++;
        } else {
            for (int64_t i = 0; i < n_slots; i++)
                if (i != 10 && i != 11) CHECK(same_slot(st, i));
            store_close(&st, &err);
            harmless++;
        }
    }
    CHECK(refused > 20);
    CHECK(harmless > 0);
    free(mask), free(data);
}

/* Files made to point elsewhere: reading or writing "their" slots would touch other files, or memory that is not theirs. */
static void hostile(const char *path) {
    enum { SOFT, EXTERNAL, CHUNKED, OUTSIDE, GROUP, VLEN, HUGE_SHAPE, N_KINDS };
    static const char *const expected[N_KINDS] = {"/seconds is a link",
                                                  "/seconds is a link",
                                                  "does not lie in one piece",
                                                  "does not lie in one piece",
                                                  "/seconds cannot be opened as a dataset",
                                                  "attribute schema is not a text",
                                                  "/seconds is"};
    const char *bad = in_dir("hostile.h5");
    size_t bytes;
    char *data = load(path, &bytes);
    for (int kind = 0; kind < N_KINDS; kind++) {
        int fd = open(bad, O_RDWR | O_CREAT | O_TRUNC, 0600);
        ssize_t put = write(fd, data, bytes);
        CHECK_FATAL(put == (ssize_t)bytes);
        close(fd);
        hid_t f = H5Fopen(bad, H5F_ACC_RDWR, H5P_DEFAULT), plist = H5Pcreate(H5P_DATASET_CREATE), d = -1, space = -1;
        hsize_t n = n_slots, many[2] = {n_slots, (hsize_t)1 << 40};
        CHECK_FATAL(f >= 0);
        if (kind != VLEN) CHECK(H5Ldelete(f, "seconds", H5P_DEFAULT) >= 0);
        space = kind == HUGE_SHAPE ? H5Screate_simple(2, many, NULL) : H5Screate_simple(1, &n, NULL);
        switch (kind) {
        case SOFT: CHECK(H5Lcreate_soft("/count", f, "seconds", H5P_DEFAULT, H5P_DEFAULT) >= 0); break;
        case EXTERNAL: CHECK(H5Lcreate_external("a.h5", "/seconds", f, "seconds", H5P_DEFAULT, H5P_DEFAULT) >= 0); break;
        case CHUNKED: CHECK(H5Pset_chunk(plist, 1, &n) >= 0); break;
        case OUTSIDE: CHECK(H5Pset_external(plist, "/etc/hostname", 0, n_slots * 8) >= 0); break;
        case GROUP:
            d = H5Gcreate2(f, "seconds", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
            H5Gclose(d);
            break;
        case VLEN: {
            hid_t type = H5Tcopy(H5T_C_S1), scalar = H5Screate(H5S_SCALAR);
            const char *value = "pva-test";
            CHECK(H5Tset_size(type, H5T_VARIABLE) >= 0 && H5Adelete(f, "schema") >= 0);
            hid_t a = H5Acreate2(f, "schema", type, scalar, H5P_DEFAULT, H5P_DEFAULT);
            CHECK(a >= 0 && H5Awrite(a, type, &value) >= 0);
            H5Aclose(a), H5Sclose(scalar), H5Tclose(type);
            break;
        }
        default: CHECK(H5Pset_alloc_time(plist, H5D_ALLOC_TIME_LATE) >= 0);
        }
        if (kind == CHUNKED || kind == OUTSIDE || kind == HUGE_SHAPE) {
            d = H5Dcreate2(f, "seconds", H5T_IEEE_F64LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
            CHECK(d >= 0);
            H5Dclose(d);
        }
        H5Sclose(space), H5Pclose(plist);
        CHECK(H5Fclose(f) >= 0);
        struct pva_error err = {0};
        struct store *st = NULL;
        CHECK_INT(store_open_read(bad, &schema, &st, &err), PVA_INPUT);
        if (kind == HUGE_SHAPE)
            CHECK(strstr(err.msg, "does not lie") || strstr(err.msg, "reaches beyond") || strstr(err.msg, expected[kind]));
        else CHECK_HAS(err.msg, expected[kind]);
        store_close(&st, &err);
    }
    free(data);
}

/* Slots that another file does not have are written anew, by whichever rank they come to; and a field may be given in part. */
static void retain(const char *path) {
    struct pva_error err = {0};
    struct store *st = NULL;
    uint8_t keep[n_slots], states[n_slots];
    CHECK_OK(store_open(&par, path, &schema, STORE_FRESH, &st, &err), err);
    CHECK_FATAL(st != NULL);
    for (int64_t i = par.rank; i < n_slots; i += par.size) CHECK_OK(write_slot(st, i, &err), err);
    CHECK_OK(store_close(&st, &err), err);
    par_barrier(&par);
    for (int i = 0; i < n_slots; i++) keep[i] = i % 3 != 0;
    CHECK_OK(store_open(&par, path, &schema, STORE_RESUME, &st, &err), err);
    CHECK_FATAL(st != NULL);
    CHECK_OK(store_retain(&par, st, keep, &err), err);
    CHECK_OK(store_states(st, states, &err), err);
    for (int i = 0; i < n_slots; i++) CHECK_INT(states[i] != STORE_EMPTY, keep[i]);
    par_barrier(&par);
    for (int64_t i = 0; i < n_slots; i++) {
        if (keep[i] || i / 3 % par.size != (par.rank + 1) % par.size) continue; /* another rank than before */
        int32_t head[7] = {0}, has[7] = {9, 9, 9, 9, 9, 9, 9};
        for (int k = 0; k < 7; k++) head[k] = (int32_t)(i * 7 + k);
        CHECK_OK(store_write_head(st, i, TOKENS, head, 3 * sizeof *head, &err), err);
        CHECK_OK(store_read(st, i, TOKENS, has, &err), err);
        for (int k = 0; k < 7; k++) CHECK_INT(has[k], k < 3 ? head[k] : 0);
        CHECK(store_write_head(st, i, TOKENS, head, 8 * sizeof *head, &err) == PVA_BUG);
        memset(&err, 0, sizeof err);
        CHECK_OK(write_slot(st, i, &err), err);
    }
    CHECK_OK(store_close(&st, &err), err);
    par_barrier(&par);
    int64_t *damaged = NULL, n_damaged = -1;
    CHECK_OK(store_open(&par, path, &schema, STORE_RESUME, &st, &err), err);
    CHECK_FATAL(st != NULL);
    CHECK_OK(store_verify(&par, st, &damaged, &n_damaged, &err), err);
    CHECK_INT(n_damaged, 0);
    free(damaged);
    for (int64_t i = 0; i < n_slots; i++) CHECK(same_slot(st, i));
    CHECK_OK(store_close(&st, &err), err);
}

int main(void) {
    struct pva_error err = {0};
    if (par_open(&par, &err)) return 99;
    if (par.rank == 0) {
        snprintf(dir, sizeof dir, "mpi_store:a b.XXXXXX"); /* as time stamps and people name directories */
        const char *made = mkdtemp(dir);
        CHECK_FATAL(made != NULL);
    }
    MPI_Bcast(dir, sizeof dir, MPI_BYTE, 0, par.comm);
    for (int i = 0; i < n_slots; i++) task_ids[i] = 11 + i;
    store_hdf5_init();

    write_and_read(in_dir("a.h5"));
    checksum_is_zlibs(in_dir("a.h5"));
    readable_by_hdf5(in_dir("a.h5"));
    resume(in_dir("b.h5"));
    refuse_other_runs(in_dir("b.h5"));
    broken_tables();
    find_damage(in_dir("b.h5"));
    one_job(in_dir("b.h5"));
    snapshots();
    retain(in_dir("r.h5"));
    if (par.rank == 0) flipped_metadata(in_dir("a.h5")), hostile(in_dir("a.h5"));
    par_barrier(&par);
    setenv("PVA_STORE_RANGE_LOCKS", "1", 1); /* as on a network file system */
    resume(in_dir("locked.h5"));
    unsetenv("PVA_STORE_RANGE_LOCKS");

    struct store_rates rates;
    CHECK_OK(store_selftest(&par, dir, &rates, &err), err);
    CHECK(rates.store > 0 && rates.raw > 0);
    CHECK(store_selftest(&par, in_dir("no such directory"), &rates, &err) == PVA_IO);
    CHECK_HAS(err.msg, "No such file or directory");

    par_barrier(&par);
    char command[300];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    if (par.rank == 0) CHECK_INT(system(command), 0);
    int failed = check_report("mpi_store"), worst = 0;
    MPI_Allreduce(&failed, &worst, 1, MPI_INT, MPI_MAX, par.comm);
    par_close(&par);
    return worst;
}
