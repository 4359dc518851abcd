/* .npz and .npy: arrays in every layout numpy writes, and a table of damaged files, each refused with one line that says what is wrong. */
#include "check.h"
#include "scratch.h"

#include "pva/npz.h"

#include <zlib.h>

static struct pva_error err;

/* ---- a zip file made by hand ---- */

struct bytes {
    unsigned char data[8192];
    size_t n;
};

static void put(struct bytes *b, const void *data, size_t n) {
    CHECK_FATAL(b->n + n <= sizeof b->data);
    memcpy(b->data + b->n, data, n);
    b->n += n;
}
static void put_number(struct bytes *b, uint64_t v, int n) {
    for (int i = 0; i < n; i++) put(b, &(unsigned char){(unsigned char)(v >> 8 * i)}, 1);
}

static void put_npy(struct bytes *b, int version, const char *header, const void *data, size_t n) {
    put(b, "\x93NUMPY", 6);
    put_number(b, (uint64_t)version, 2);
    put_number(b, strlen(header), version == 1 ? 2 : 4);
    put(b, header, strlen(header));
    put(b, data, n);
}

#define HEADER "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n"
static const float six[6] = {0, 1, 2, 3, 4, 5};

struct entry {
    const char *name;
    const struct bytes *npy;
    int deflate, zip64;
};

/* Local headers and data, the directory, the end records. at[0]: the directory's offset; at[1]: the first end record's. */
static void make_zip(struct bytes *z, const struct entry *entries, int n, int zip64_end, size_t at[2]) {
    static struct bytes directory, packed;
    z->n = directory.n = 0;
    for (int i = 0; i < n; i++) {
        const struct entry *e = &entries[i];
        const struct bytes *stored = e->npy;
        uint32_t crc = (uint32_t)crc32(0, e->npy->data, (uInt)e->npy->n);
        size_t offset = z->n, name = strlen(e->name);
        if (e->deflate) {
            z_stream s = {0};
            CHECK_FATAL(deflateInit2(&s, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
            s.next_in = (unsigned char *)e->npy->data, s.avail_in = (uInt)e->npy->n, s.next_out = packed.data, s.avail_out = sizeof packed.data;
            CHECK_FATAL(deflate(&s, Z_FINISH) == Z_STREAM_END);
            packed.n = s.total_out;
            deflateEnd(&s);
            stored = &packed;
        }
        for (int central = 0; central < 2; central++) {
            struct bytes *b = central ? &directory : z;
            put(b, central ? "PK\1\2\55\0" : "PK\3\4", central ? 6 : 4);
            put_number(b, 45, 2), put_number(b, 0, 2), put_number(b, e->deflate ? 8 : 0, 2), put_number(b, 0, 4), put_number(b, crc, 4);
            put_number(b, e->zip64 ? 0xffffffff : stored->n, 4), put_number(b, e->zip64 ? 0xffffffff : e->npy->n, 4);
            /* Extra fields differ in length between the two headers, as numpy's do. */
            size_t sizes = e->zip64 ? (central ? 28 : 20) : 0;
            put_number(b, name, 2), put_number(b, sizes + (central ? 0 : 5), 2);
            if (central) put_number(b, 0, 8), put_number(b, 0, 2), put_number(b, e->zip64 ? 0xffffffff : offset, 4);
            put(b, e->name, name);
            if (!central) put(b, "\x99\x99\1\0\0", 5);
            if (e->zip64) {
                put_number(b, 1, 2), put_number(b, sizes - 4, 2), put_number(b, e->npy->n, 8), put_number(b, stored->n, 8);
                if (central) put_number(b, offset, 8);
            }
            if (!central) put(b, stored->data, stored->n);
        }
    }
    at[0] = z->n;
    put(z, directory.data, directory.n);
    at[1] = z->n;
    if (zip64_end) {
        put(z, "PK\6\6", 4);
        put_number(z, 44, 8), put_number(z, 45, 2), put_number(z, 45, 2), put_number(z, 0, 8), put_number(z, (uint64_t)n, 8), put_number(z, (uint64_t)n, 8);
        put_number(z, directory.n, 8), put_number(z, at[0], 8);
        put(z, "PK\6\7", 4);
        put_number(z, 0, 4), put_number(z, at[1], 8), put_number(z, 1, 4);
    }
    put(z, "PK\5\6", 4);
    put_number(z, 0, 4), put_number(z, zip64_end ? 0xffff : (uint64_t)n, 2), put_number(z, zip64_end ? 0xffff : (uint64_t)n, 2);
    put_number(z, zip64_end ? 0xffffffff : directory.n, 4), put_number(z, zip64_end ? 0xffffffff : at[0], 4), put_number(z, 0, 2);
}

/* ---- whole files ---- */

static const char *golden(const char *name) {
    static char paths[4][700];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/tests/golden/sae/%s", getenv("PVA_TEST_SOURCE"), name);
    return path;
}

static void test_made(void) {
    for (int way = 0; way < 8; way++) {
        static struct bytes one, two, text, z;
        struct pva_npz *npz = NULL;
        size_t at[2];
        float out[6];
        one.n = two.n = text.n = 0;
        put_npy(&one, 1, HEADER, six, sizeof six);
        put_npy(&two, 2, "{\"shape\": (3,2),\"fortran_order\":True ,'descr':'<f8'}", (double[]){0, 1, 2, 3, 4, 5}, 48);
        put(&text, "not an array", 12);
        const struct entry entries[] = {{"W.npy", &one, way & 1, way & 2}, {"notes.txt", &text, 0, 0}, {"F.npy", &two, way & 1, way & 2}};
        make_zip(&z, entries, 3, way & 4, at);
        scratch_write("made.npz", z.data, z.n);
        CHECK_OK(pva_npz_open(scratch("made.npz"), &npz, &err), err);
        CHECK_FATAL(npz != NULL);
        CHECK_INT(pva_npz_count(npz), 2);
        const struct pva_npy *w = pva_npz_find(npz, "W"), *f = pva_npz_find(npz, "F");
        CHECK_FATAL(w && f && !pva_npz_find(npz, "notes"));
        CHECK(w == pva_npz_at(npz, 0) && w->n_dims == 2 && w->shape[0] == 2 && w->shape[1] == 3 && w->stored == !(way & 1));
        CHECK_OK(pva_npz_to_f32(npz, w, out, &err), err);
        CHECK(!memcmp(out, six, sizeof six));
        CHECK_OK(pva_npz_to_f32(npz, f, out, &err), err); /* columns 0 1 2 and 3 4 5 become rows */
        CHECK(!memcmp(out, (float[]){0, 3, 1, 4, 2, 5}, sizeof out));
        const void *first, *second;
        CHECK(!pva_npz_data(npz, w, &first, &err) && !pva_npz_data(npz, w, &second, &err) && first == second);

        const struct pva_npy *found;
        CHECK_OK(pva_npz_require(npz, "W", 2, (int64_t[]){-1, 3}, &found, &err), err);
        struct pva_error e = {0};
        CHECK_INT(pva_npz_require(npz, "W", 2, (int64_t[]){3, 2}, &found, &e), PVA_INPUT);
        CHECK_HAS(e.msg, "made.npz: W is [2, 3], expected [3, 2]");
        e = (struct pva_error){0};
        CHECK_INT(pva_npz_require(npz, "threshold", 1, (int64_t[]){-1}, &found, &e), PVA_INPUT);
        CHECK_HAS(e.msg, "has no array threshold; it has W, F");
        pva_npz_close(&npz);
    }
}

static void test_numpy(void) {
    float *v;
    int64_t shape[PVA_MAX_DIMS];
    int n_dims;
    CHECK_OK(pva_npy_read(golden("vector_f8.npy"), &v, shape, &n_dims, &err), err);
    CHECK(n_dims == 1 && shape[0] == 5 && v[1] == (float)(1 / 3.0) && v[4] == (float)(4 / 3.0));
    free(v);
    CHECK_OK(pva_npy_read(golden("vector_f2.npy"), &v, shape, &n_dims, &err), err);
    CHECK(n_dims == 1 && shape[0] == 9 && isfinite(v[8]));
    free(v);
    CHECK_OK(pva_npy_read(golden("matrix_fortran.npy"), &v, shape, &n_dims, &err), err);
    CHECK(n_dims == 3 && shape[0] == 2 && shape[1] == 3 && shape[2] == 4);
    for (int i = 0; i < 24; i++) CHECK_INT(v[i], i);
    free(v);
    for (int version = 2; version <= 3; version++) {
        CHECK_OK(pva_npy_read(golden(version == 2 ? "version2.npy" : "version3.npy"), &v, shape, &n_dims, &err), err);
        for (int i = 0; i < 6; i++) CHECK_INT(v[i], i);
        free(v);
    }
    struct pva_error e = {0};
    CHECK_INT(pva_npy_read(golden("integers.npy"), &v, shape, &n_dims, &e), PVA_INPUT);
    CHECK_HAS(e.msg, "is I64, expected f4, f8 or f2");
}

/* ---- damaged ones ---- */

static void check_refused(const char *what, const char *says) {
    struct pva_npz *npz = NULL;
    struct pva_error e = {0};
    float out[64];
    int status = pva_npz_open(scratch("bad.npz"), &npz, &e);
    if (!status && pva_npz_count(npz)) status = pva_npz_to_f32(npz, pva_npz_at(npz, 0), out, &e); /* compressed data are looked at now */
    if (status != PVA_INPUT || !strstr(e.msg, says)) fprintf(stderr, "%s: status %d: %s\n", what, status, e.msg);
    CHECK_INT(status, PVA_INPUT);
    CHECK_HAS(e.msg, says);
    CHECK(!strchr(e.msg, '\n'));
    pva_npz_close(&npz);
}

static void test_headers(void) {
    static const struct {
        const char *header, *says;
    } bad[] = {
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }", "its type is not one of"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }", "its type is not one of"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }", "its type is not one of"},
        {"{'descr': '<f4', 'fortran_order': Maybe, 'shape': (2, 3), }", "neither True nor False"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }", "24 bytes of data, expected 32 for its shape [2, 4]"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6), }", "no tuple"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3), }", "no tuple"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 3), }", "no tuple"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000, 4000000000), }", "more elements than a computer can hold"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1, 2, 3), }", "at most 8"},
        {"{'descr': '<f4', 'fortran_order': False, }", "expected 'descr', 'fortran_order' and 'shape'"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", "'descr' twice"},
        {"{'descr': '<f4', 'order': False, 'shape': (2, 3), }", "that no array has"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } + 1", "nothing else"},
        {"{'descr': '<f4', 'fortran_order': False 'shape': (2, 3), }", "expected , or }"},
        {"{'descr", "expected 'key': value"},
        {"", "no dictionary"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        static struct bytes npy, z;
        size_t at[2];
        npy.n = 0;
        put_npy(&npy, 1, bad[i].header, six, sizeof six);
        make_zip(&z, &(struct entry){"W.npy", &npy, 0, 0}, 1, 0, at);
        scratch_write("bad.npz", z.data, z.n);
        check_refused(bad[i].header, bad[i].says);
        float *v;
        int64_t shape[PVA_MAX_DIMS];
        int n_dims;
        struct pva_error e = {0};
        scratch_write("bad.npy", npy.data, npy.n);
        CHECK_INT(pva_npy_read(scratch("bad.npy"), &v, shape, &n_dims, &e), PVA_INPUT);
        CHECK_HAS(e.msg, bad[i].says);
    }
}

static void test_damaged(void) {
    /* Bytes changed in a good file: counted from its start, the directory or the end record. */
    enum { START, DIRECTORY, END, NOWHERE };
    static const struct {
        const char *what;
        int deflate, zip64, from, at;
        const char *bytes;
        int n;
        const char *says;
    } bad[] = {
        {"array magic", 0, 0, START, 30 + 5 + 5, "\0", 1, "does not begin as a .npy array does"},
        {"array version", 0, 0, START, 30 + 5 + 5 + 6, "\7", 1, ".npy version 7"},
        {"header length", 0, 0, START, 30 + 5 + 5 + 8, "\xff\xff", 2, "the array ends before"},
        {"local signature", 0, 0, START, 0, "XX", 2, "no member begins at byte 0"},
        {"local name length", 0, 0, START, 26, "\xff\xff", 2, "reach into the directory"},
        {"directory signature", 0, 0, DIRECTORY, 0, "XX", 2, "zip directory is damaged"},
        {"encrypted", 0, 0, DIRECTORY, 8, "\1", 1, "is encrypted"},
        {"method", 0, 0, DIRECTORY, 10, "\14", 1, "compression method 12"},
        {"stored size", 0, 0, DIRECTORY, 20, "\1", 1, "but it has"},
        {"both sizes", 0, 0, DIRECTORY, 20, "\xf0\xff\xff\x0f\xf0\xff\xff\x0f", 8, "reach into the directory"},
        {"inflated size", 1, 0, DIRECTORY, 24, "\xf0\xff\xff\x0f", 4, "cannot become"},
        {"one byte longer", 1, 0, DIRECTORY, 24, "\x60\0", 1, "bytes of data, expected"},
        {"checksum", 1, 0, DIRECTORY, 16, "\1\2\3\4", 4, "its checksum is not the directory's"},
        {"compressed bytes", 1, 0, START, 30 + 5 + 5, "\xff\xff\xff", 3, "cannot be inflated"},
        {"offset", 0, 0, DIRECTORY, 42, "\xf0\xff\xff\x0f", 4, "no member begins"},
        {"name length", 0, 0, DIRECTORY, 28, "\xff\xff", 2, "zip directory is damaged"},
        {"zero in the name", 0, 0, DIRECTORY, 46, "\0", 1, "zero byte"},
        {"no zip64 sizes", 0, 1, DIRECTORY, 46 + 5, "\2", 1, "zip64 sizes are missing"},
        {"zip64 field too short", 0, 1, DIRECTORY, 46 + 5 + 2, "\4", 1, "zip64 sizes are missing"},
        {"zip64 size", 0, 1, DIRECTORY, 46 + 5 + 4 + 8, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, "reach into the directory"},
        {"split", 0, 0, END, 4, "\1", 1, "split zip file"},
        {"directory's place", 0, 0, END, 16, "\xf0\xff\xff\x0f", 4, "does not fit into the file"},
        {"directory's size", 0, 0, END, 12, "\xf0\xff\xff\x0f", 4, "does not fit into the file"},
        {"count", 0, 0, END, 10, "\xf0\xff", 2, "does not fit into the file"},
        {"one more", 0, 0, END, 10, "\2", 1, "does not fit into the file"},
        {"comment length", 0, 0, END, 20, "\1", 1, "is truncated"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        static struct bytes npy, z;
        size_t at[2];
        npy.n = 0;
        put_npy(&npy, 1, HEADER, six, sizeof six);
        make_zip(&z, &(struct entry){"W.npy", &npy, bad[i].deflate, bad[i].zip64}, 1, 0, at);
        size_t place = (size_t)bad[i].at + (bad[i].from == DIRECTORY ? at[0] : bad[i].from == END ? at[1] : 0);
        CHECK_FATAL(place + (size_t)bad[i].n <= z.n);
        CHECK(memcmp(z.data + place, bad[i].bytes, (size_t)bad[i].n) != 0);
        memcpy(z.data + place, bad[i].bytes, (size_t)bad[i].n);
        scratch_write("bad.npz", z.data, z.n);
        check_refused(bad[i].what, bad[i].says);
    }
}

/* Every beginning of a file is refused, and no change of one byte makes the reader leave the file. */
static void test_every_byte(void) {
    for (int way = 0; way < 4; way++) {
        static struct bytes npy, z;
        size_t at[2];
        npy.n = 0;
        put_npy(&npy, 1, HEADER, six, sizeof six);
        const struct entry entries[] = {{"W.npy", &npy, way & 1, way & 2}, {"V.npy", &npy, way & 1, way & 2}};
        make_zip(&z, entries, 2, way & 2, at);
        for (size_t n = 1; n < z.n; n++) {
            struct pva_npz *npz = NULL;
            struct pva_error e = {0};
            scratch_write("bad.npz", z.data, n);
            CHECK_INT(pva_npz_open(scratch("bad.npz"), &npz, &e), PVA_INPUT);
            pva_npz_close(&npz);
        }
        for (size_t i = 0; i < z.n; i++) {
            struct pva_npz *npz = NULL;
            struct pva_error e = {0};
            unsigned char was = z.data[i];
            z.data[i] ^= (unsigned char)(i % 2 ? 0xff : 0x04);
            scratch_write("bad.npz", z.data, z.n);
            int status = pva_npz_open(scratch("bad.npz"), &npz, &e);
            for (size_t j = 0; !status && j < pva_npz_count(npz); j++) {
                float out[64];
                const struct pva_npy *a = pva_npz_at(npz, j);
                if (a->n_elements <= 64 && a->dtype == PVA_F32) status = pva_npz_to_f32(npz, a, out, &e);
            }
            CHECK(status == PVA_OK || status == PVA_INPUT);
            pva_npz_close(&npz);
            z.data[i] = was;
        }
    }
    struct pva_npz *npz = NULL;
    struct pva_error e = {0};
    scratch_write("text.npz", "hello", 5);
    CHECK_INT(pva_npz_open(scratch("text.npz"), &npz, &e), PVA_INPUT);
    CHECK_HAS(e.msg, "is no .npz (zip) file");
    e = (struct pva_error){0};
    CHECK_INT(pva_npz_open(scratch("nothing.npz"), &npz, &e), PVA_INPUT);
    CHECK_HAS(e.msg, "cannot open");
}

int main(void) {
    if (!getenv("PVA_TEST_SOURCE")) return 77;
    scratch_make();
    test_made();
    test_numpy();
    test_headers();
    test_damaged();
    test_every_byte();
    return check_report("npz");
}
