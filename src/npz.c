/* Reading .npz: the end record, the central directory, each member's own header, then the .npy header in front of its data. Only the last two
 * are touched per array, whatever its size. */
#include "pva/npz.h"

#include "input_file.h"
#include "npy_header.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <zlib.h>

enum { END_SIZE = 22, END64_LOCATOR_SIZE = 20, END64_SIZE = 56, CENTRAL_SIZE = 46, LOCAL_SIZE = 30, MAX_COMMENT = 65535, MAX_MEMBERS = 65536 };
enum { STORED = 0, DEFLATED = 8 };
enum { MOST_DEFLATED = 1032 }; /* a deflated byte stands for at most that many */

struct member {
    struct pva_npy array;
    char *name;
    const unsigned char *bytes; /* of the member as it lies in the file */
    uint64_t packed, size;      /* bytes in the file, bytes of the .npy */
    size_t header;              /* of the .npy */
    uint32_t crc;
    int method;
    unsigned char *inflated; /* data without the header, owned */
};

struct pva_npz {
    char *path;
    const unsigned char *map;
    size_t size;
    struct member *members;
    size_t n_members;
};

static uint32_t u16(const unsigned char *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t u32(const unsigned char *p) { return u16(p) | u16(p + 2) << 16; }
static uint64_t u64(const unsigned char *p) { return u32(p) | (uint64_t)u32(p + 4) << 32; }

/* ---- the directory ---- */

static const unsigned char *find_end(const struct pva_npz *z) {
    if (z->size < END_SIZE) return NULL;
    size_t last = z->size - END_SIZE, first = last > MAX_COMMENT ? last - MAX_COMMENT : 0;
    for (size_t at = last + 1; at-- > first;) /* the record ends with the file: its comment must be just as long as it says */
        if (!memcmp(z->map + at, "PK\5\6", 4) && u16(z->map + at + 20) == last - at) return z->map + at;
    return NULL;
}

static int find_directory(const struct pva_npz *z, uint64_t *offset, uint64_t *bytes, uint64_t *count, struct pva_error *err) {
    const unsigned char *end = find_end(z);
    if (!end) {
        if (z->size >= 4 && !memcmp(z->map, "PK\3\4", 4))
            return pva_fail(err, PVA_INPUT, "%s: the zip directory at its end is missing: it is truncated; download it again", z->path);
        return pva_fail(err, PVA_INPUT, "%s: is no .npz (zip) file", z->path);
    }
    if (u16(end + 4) != 0 || u16(end + 6) != 0)
        if (u16(end + 4) != 0xffff || u16(end + 6) != 0xffff) return pva_fail(err, PVA_INPUT, "%s: is one part of a split zip file", z->path);
    *count = u16(end + 10), *bytes = u32(end + 12), *offset = u32(end + 16);
    size_t at = (size_t)(end - z->map);
    if (*count != 0xffff && *bytes != 0xffffffff && *offset != 0xffffffff) return PVA_OK;
    if (at < END64_LOCATOR_SIZE || memcmp(end - END64_LOCATOR_SIZE, "PK\6\7", 4)) return PVA_OK; /* the values mean themselves */
    uint64_t at64 = u64(end - END64_LOCATOR_SIZE + 8);
    if (at < END64_LOCATOR_SIZE + END64_SIZE || at64 > at - END64_LOCATOR_SIZE - END64_SIZE || memcmp(z->map + at64, "PK\6\6", 4))
        return pva_fail(err, PVA_INPUT, "%s: its zip64 end record is not where it should be: the file is damaged", z->path);
    const unsigned char *end64 = z->map + at64;
    *count = u64(end64 + 32), *bytes = u64(end64 + 40), *offset = u64(end64 + 48);
    return PVA_OK;
}

/* In the extra field 1 the values that do not fit into 32 bits follow one another, those that do are left out. */
static int read_zip64(const unsigned char *extra, size_t n, uint64_t *values[3]) {
    int wanted = 0;
    for (int i = 0; i < 3; i++) wanted += *values[i] == 0xffffffff;
    if (!wanted) return 1;
    while (n >= 4) {
        size_t id = u16(extra), size = u16(extra + 2);
        extra += 4, n -= 4;
        if (size > n) return 0;
        if (id == 1) {
            for (int i = 0; i < 3; i++) {
                if (*values[i] != 0xffffffff) continue;
                if (size < 8) return 0;
                *values[i] = u64(extra);
                extra += 8, size -= 8;
            }
            return 1;
        }
        extra += size, n -= size;
    }
    return 0;
}

/* The data begin after the member's own header, whose name and extra field may differ in length from the directory's. */
static int locate(const struct pva_npz *z, struct member *m, uint64_t offset, uint64_t directory, struct pva_error *err) {
    const char *name = m->name;
    if (directory < LOCAL_SIZE || offset > directory - LOCAL_SIZE || memcmp(z->map + offset, "PK\3\4", 4))
        return pva_fail(err, PVA_INPUT, "%s: %.100s: no member begins at byte %llu, where the directory says: the file is damaged", z->path, name,
                        (unsigned long long)offset);
    const unsigned char *local = z->map + offset;
    uint64_t start = offset + LOCAL_SIZE + u16(local + 26) + u16(local + 28);
    if (start > directory || m->packed > directory - start)
        return pva_fail(err, PVA_INPUT, "%s: %.100s: its %llu bytes reach into the directory: the file is damaged", z->path, name, (unsigned long long)m->packed);
    m->bytes = z->map + start;
    return PVA_OK;
}

static int inflate_into(const struct member *m, unsigned char *out, size_t n, uint64_t *got, int *ended) {
    z_stream s = {0};
    if (inflateInit2(&s, -MAX_WBITS) != Z_OK) return 0;
    uint64_t left_in = m->packed, left_out = n;
    const unsigned char *in = m->bytes;
    int status = Z_OK;
    enum { MOST = 1 << 30 };
    do {
        uInt give = (uInt)(left_in < MOST ? left_in : MOST), room = (uInt)(left_out < MOST ? left_out : MOST);
        s.next_in = (unsigned char *)in, s.avail_in = give, s.next_out = out, s.avail_out = room;
        status = inflate(&s, Z_NO_FLUSH);
        in += give - s.avail_in, left_in -= give - s.avail_in;
        out += room - s.avail_out, left_out -= room - s.avail_out;
        if (give == s.avail_in && room == s.avail_out) break;
    } while (status == Z_OK && left_out);
    inflateEnd(&s);
    *got = n - left_out;
    *ended = status == Z_STREAM_END;
    return status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR;
}

static int read_array(const struct pva_npz *z, struct member *m, struct pva_error *err) {
    char what[400];
    snprintf(what, sizeof what, "%.250s: %.100s", z->path, m->name);
    size_t most = m->size < NPY_MAX_HEADER ? (size_t)m->size : NPY_MAX_HEADER;
    if (m->method == STORED) {
        if (m->packed != m->size)
            return pva_fail(err, PVA_INPUT, "%s: stored in %llu bytes, but it has %llu: the directory is damaged", what, (unsigned long long)m->packed,
                            (unsigned long long)m->size);
        return npy_header_parse(m->bytes, most, m->size, what, &m->array, &m->header, err);
    }
    if (m->size / MOST_DEFLATED > m->packed)
        return pva_fail(err, PVA_INPUT, "%s: %llu compressed bytes cannot become %llu: the directory is damaged", what, (unsigned long long)m->packed,
                        (unsigned long long)m->size);
    unsigned char *start = malloc(most + 1);
    uint64_t got;
    int ended;
    if (!start) return pva_fail(err, PVA_IO, "%s: out of memory", what);
    if (!inflate_into(m, start, most, &got, &ended) || got < most) pva_fail(err, PVA_INPUT, "%s: cannot be inflated: the file is damaged", what);
    else npy_header_parse(start, most, m->size, what, &m->array, &m->header, err);
    free(start);
    return err->code;
}

/* One entry of the directory at z->map + *at. */
static int read_entry(struct pva_npz *z, uint64_t *at, uint64_t directory, uint64_t end, struct pva_error *err) {
    if (end - *at < CENTRAL_SIZE || memcmp(z->map + *at, "PK\1\2", 4))
        return pva_fail(err, PVA_INPUT, "%s: the zip directory is damaged at byte %llu", z->path, (unsigned long long)*at);
    const unsigned char *e = z->map + *at;
    size_t n_name = u16(e + 28), n_extra = u16(e + 30), n_comment = u16(e + 32);
    if (end - *at - CENTRAL_SIZE < n_name + n_extra + n_comment)
        return pva_fail(err, PVA_INPUT, "%s: the zip directory is damaged at byte %llu", z->path, (unsigned long long)*at);
    *at += CENTRAL_SIZE + n_name + n_extra + n_comment;
    const char *name = (const char *)e + CENTRAL_SIZE;
    if (n_name < 5 || memcmp(name + n_name - 4, ".npy", 4)) return PVA_OK;
    struct member *m = &z->members[z->n_members];
    if (!(m->name = strndup(name, n_name - 4))) return pva_fail(err, PVA_IO, "%s: out of memory", z->path);
    z->n_members++;
    m->array.name = m->name;
    m->method = (int)u16(e + 10), m->crc = u32(e + 16), m->packed = u32(e + 20), m->size = u32(e + 24);
    m->array.stored = m->method == STORED;
    uint64_t offset = u32(e + 42);
    if (strlen(m->name) != n_name - 4) return pva_fail(err, PVA_INPUT, "%s: a member's name has a zero byte in it", z->path);
    if (u16(e + 8) & 1) return pva_fail(err, PVA_INPUT, "%s: %.100s is encrypted", z->path, m->name);
    if (m->method != STORED && m->method != DEFLATED)
        return pva_fail(err, PVA_INPUT, "%s: %.100s: compression method %d, expected 0 (stored) or 8 (deflated)", z->path, m->name, m->method);
    if (!read_zip64(e + CENTRAL_SIZE + n_name, n_extra, (uint64_t *[3]){&m->size, &m->packed, &offset}))
        return pva_fail(err, PVA_INPUT, "%s: %.100s: its zip64 sizes are missing from the directory", z->path, m->name);
    for (size_t i = 0; i + 1 < z->n_members; i++)
        if (!strcmp(z->members[i].name, m->name)) return pva_fail(err, PVA_INPUT, "%s: has two arrays named %.100s", z->path, m->name);
    if (locate(z, m, offset, directory, err)) return err->code;
    return read_array(z, m, err);
}

int pva_npz_open(const char *path, struct pva_npz **out, struct pva_error *err) {
    struct pva_npz *z = calloc(1, sizeof *z);
    uint64_t directory = 0, bytes = 0, count = 0;
    *out = NULL;
    if (!z || !(z->path = strdup(path))) {
        free(z);
        return pva_fail(err, PVA_IO, "%s: out of memory", path);
    }
    if (file_map(path, &z->map, &z->size, err) || find_directory(z, &directory, &bytes, &count, err)) goto done;
    if (directory > z->size || bytes > z->size - directory || count > bytes / CENTRAL_SIZE || count > MAX_MEMBERS) {
        pva_fail(err, PVA_INPUT, "%s: the zip directory (%llu entries, %llu bytes at %llu) does not fit into the file of %zu bytes", path,
                 (unsigned long long)count, (unsigned long long)bytes, (unsigned long long)directory, z->size);
        goto done;
    }
    if (!(z->members = calloc((size_t)count + 1, sizeof *z->members))) {
        pva_fail(err, PVA_IO, "%s: out of memory", path);
        goto done;
    }
    uint64_t at = directory;
    for (uint64_t i = 0; i < count; i++)
        if (read_entry(z, &at, directory, directory + bytes, err)) goto done;
done:
    if (err->code) pva_npz_close(&z);
    else *out = z;
    return err->code;
}

void pva_npz_close(struct pva_npz **npz) {
    struct pva_npz *z = *npz;
    if (!z) return;
    for (size_t i = 0; i < z->n_members; i++) {
        free(z->members[i].name);
        free(z->members[i].inflated);
    }
    free(z->members);
    if (z->map) munmap((void *)z->map, z->size);
    free(z->path);
    free(z);
    *npz = NULL;
}

size_t pva_npz_count(const struct pva_npz *npz) { return npz->n_members; }

const struct pva_npy *pva_npz_at(const struct pva_npz *npz, size_t i) {
    PVA_ASSERT(i < npz->n_members);
    return &npz->members[i].array;
}

const struct pva_npy *pva_npz_find(const struct pva_npz *npz, const char *name) {
    for (size_t i = 0; i < npz->n_members; i++)
        if (!strcmp(npz->members[i].name, name)) return &npz->members[i].array;
    return NULL;
}

static int is_real(enum pva_dtype t) { return t == PVA_F32 || t == PVA_F64 || t == PVA_F16; }

int pva_npz_require(const struct pva_npz *npz, const char *name, int n_dims, const int64_t *shape, const struct pva_npy **out, struct pva_error *err) {
    const struct pva_npy *a = pva_npz_find(npz, name);
    char is[200], expected[200], names[200] = "";
    if (!a) {
        for (size_t i = 0, n = 0; i < npz->n_members && n < sizeof names - 1; i++)
            n += (size_t)snprintf(names + n, sizeof names - n, i ? ", %.30s" : "%.30s", npz->members[i].name);
        return pva_fail(err, PVA_INPUT, "%s: has no array %s; it has %s", npz->path, name, npz->n_members ? names : "none");
    }
    if (!is_real(a->dtype)) return pva_fail(err, PVA_INPUT, "%s: %s is %s, expected f4, f8 or f2", npz->path, name, pva_dtype_name(a->dtype));
    int fits = a->n_dims == n_dims;
    for (int d = 0; fits && d < n_dims; d++) fits = shape[d] < 0 || a->shape[d] == shape[d];
    if (!fits) {
        npy_shape_text(a->n_dims, a->shape, is, sizeof is);
        return pva_fail(err, PVA_INPUT, "%s: %s is %s, expected %s", npz->path, name, is, npy_shape_text(n_dims, shape, expected, sizeof expected));
    }
    *out = a;
    return PVA_OK;
}

static int inflate_whole(const struct pva_npz *z, struct member *m, struct pva_error *err) {
    unsigned char *all = malloc((size_t)m->size + 1);
    uint64_t got;
    int ended;
    if (!all) return pva_fail(err, PVA_IO, "%s: %.100s: out of memory for %llu bytes", z->path, m->name, (unsigned long long)m->size);
    /* One byte more than expected is asked for, so that the stream's end is seen, and a longer stream too. */
    if (!inflate_into(m, all, (size_t)m->size + 1, &got, &ended) || !ended || got != m->size)
        pva_fail(err, PVA_INPUT, "%s: %.100s: cannot be inflated to its %llu bytes: the file is damaged", z->path, m->name, (unsigned long long)m->size);
    else if (crc32_z(0, all, (size_t)m->size) != m->crc)
        pva_fail(err, PVA_INPUT, "%s: %.100s: its checksum is not the directory's: the file is damaged; download it again", z->path, m->name);
    if (err->code) {
        free(all);
        return err->code;
    }
    memmove(all, all + m->header, m->array.bytes); /* so that the data are aligned */
    m->inflated = all;
    return PVA_OK;
}

int pva_npz_data(struct pva_npz *npz, const struct pva_npy *array, const void **data, struct pva_error *err) {
    struct member *m = (struct member *)(void *)array; /* its first member */
    PVA_ASSERT(m >= npz->members && m < npz->members + npz->n_members);
    if (m->method != STORED && !m->inflated && inflate_whole(npz, m, err)) return err->code;
    *data = m->method == STORED ? m->bytes + m->header : m->inflated;
    return PVA_OK;
}

int pva_npz_to_f32(struct pva_npz *npz, const struct pva_npy *array, float *out, struct pva_error *err) {
    const void *data;
    PVA_ASSERT(is_real(array->dtype));
    if (pva_npz_data(npz, array, &data, err)) return err->code;
    npy_to_f32(array, data, out);
    return PVA_OK;
}

int pva_npy_read(const char *path, float **values, int64_t shape[PVA_MAX_DIMS], int *n_dims, struct pva_error *err) {
    const unsigned char *map;
    size_t size, header;
    struct pva_npy a = {.stored = 1};
    *values = NULL;
    if (file_map(path, &map, &size, err)) return err->code;
    if (npy_header_parse(map, size < NPY_MAX_HEADER ? size : NPY_MAX_HEADER, size, path, &a, &header, err)) goto done;
    if (!is_real(a.dtype)) {
        pva_fail(err, PVA_INPUT, "%s: is %s, expected f4, f8 or f2", path, pva_dtype_name(a.dtype));
        goto done;
    }
    *values = malloc(((size_t)a.n_elements + 1) * sizeof **values);
    if (!*values) {
        pva_fail(err, PVA_IO, "%s: out of memory for %lld values", path, (long long)a.n_elements);
        goto done;
    }
    npy_to_f32(&a, map + header, *values);
    memcpy(shape, a.shape, sizeof a.shape);
    *n_dims = a.n_dims;
done:
    munmap((void *)map, size);
    return err->code;
}
