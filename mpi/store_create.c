/* From a schema to an empty file: every dataset allocated, every dimension with its scale, every name explained. */
#include "store_private.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5_hl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* ---- the table itself -------------------------------------------------------------------------------------------- */

struct dimension {
    const char *name;
    int64_t size;
    const struct store_coordinate *scale; /* NULL: numbered 0, 1, 2 ... */
    hid_t dataset;
};

struct dimensions {
    struct dimension *list;
    int n;
};

static int add_dimension(struct dimensions *all, const struct store_dim *d, struct pva_error *err) {
    for (int i = 0; i < all->n; i++)
        if (!strcmp(all->list[i].name, d->name)) {
            if (all->list[i].size == d->size) return PVA_OK;
            return pva_fail(err, PVA_BUG, "schema: dimension %s has the sizes %lld and %lld", d->name,
                            (long long)all->list[i].size, (long long)d->size);
        }
    struct dimension *more = realloc(all->list, (size_t)(all->n + 1) * sizeof *more);
    if (!more) return pva_fail(err, PVA_IO, "schema: no memory");
    all->list = more;
    all->list[all->n++] = (struct dimension){d->name, d->size, NULL, -1};
    return PVA_OK;
}

static int check_name(const char *name, struct pva_error *err) {
    if (!name || !*name || strlen(name) >= STORE_NAME_SIZE || strchr(name, '/') || !strcmp(name, "."))
        return pva_fail(err, PVA_BUG, "schema: \"%s\" cannot be a name (1..%d characters, no slash)", name ? name : "",
                        STORE_NAME_SIZE - 1);
    return PVA_OK;
}

static int check_field(const struct store_field *f, int lowest_dims, struct pva_error *err) {
    if (check_name(f->name, err)) return err->code;
    if ((unsigned)f->type > STORE_BYTES || f->n_dims < lowest_dims || f->n_dims > STORE_MAX_DIMS ||
        (f->type == STORE_BYTES ? f->text_size < 1 : f->text_size != 0))
        return pva_fail(err, PVA_BUG, "schema: %s: type %d with text_size %lld and %d dimensions cannot be", f->name,
                        (int)f->type, (long long)f->text_size, f->n_dims);
    int64_t bytes = (int64_t)store_type_bytes(f->type, f->text_size);
    for (int i = 0; i < f->n_dims; i++) {
        if (check_name(f->dims[i].name, err)) return err->code;
        if (f->dims[i].size < 1 || __builtin_mul_overflow(bytes, f->dims[i].size, &bytes) || bytes > 1 << 30)
            return pva_fail(err, PVA_BUG, "schema: %s: dimension %s of %lld: expected at least 1, and at most 1 GiB in all",
                            f->name, f->dims[i].name, (long long)f->dims[i].size);
    }
    return PVA_OK;
}

/* Every dataset of the file has a name of its own. */
static int check_unique(const struct store_schema *s, const struct dimensions *dims, struct pva_error *err) {
    const char *names[2 + STORE_MAX_FIELDS] = {"state", "checksum"};
    int n = 2;
    for (int i = 0; i < s->n_fields; i++) names[n++] = s->fields[i].name;
    for (int i = 0; i < n; i++) {
        int times = 0;
        for (int k = 0; k < n; k++) times += !strcmp(names[i], names[k]);
        for (int k = 0; k < dims->n; k++) times += !strcmp(names[i], dims->list[k].name);
        for (int k = 0; k < s->n_coordinates; k++) times += !strcmp(names[i], s->coordinates[k].field.name);
        if (times > 1) return pva_fail(err, PVA_BUG, "schema: two datasets are named %s", names[i]);
    }
    for (int i = 0; i < s->n_coordinates; i++) {
        const char *name = s->coordinates[i].field.name;
        int times = 0;
        for (int k = 0; k < s->n_coordinates; k++) times += !strcmp(name, s->coordinates[k].field.name);
        for (int k = 0; k < dims->n; k++) times += !strcmp(name, dims->list[k].name) && dims->list[k].scale != &s->coordinates[i];
        if (times > 1) return pva_fail(err, PVA_BUG, "schema: two datasets are named %s", name);
    }
    return PVA_OK;
}

/* Checks everything and collects the dimensions in their order of appearance. */
static int examine(const struct store_schema *s, struct dimensions *dims, struct pva_error *err) {
    if (check_name(s->name, err) || check_name(s->slot.name, err)) return err->code;
    if (s->slot.size < 1 || s->n_fields < 1 || s->n_fields > STORE_MAX_FIELDS)
        return pva_fail(err, PVA_BUG, "schema: %s: %lld slots and %d fields, expected 1 or more and 1..%d", s->name,
                        (long long)s->slot.size, s->n_fields, STORE_MAX_FIELDS);
    if (add_dimension(dims, &s->slot, err)) return err->code;
    for (int i = 0; i < s->n_fields + s->n_coordinates; i++) {
        const struct store_field *f = i < s->n_fields ? &s->fields[i] : &s->coordinates[i - s->n_fields].field;
        if (check_field(f, i < s->n_fields ? 0 : 1, err)) return err->code;
        for (int k = 0; k < f->n_dims; k++)
            if (add_dimension(dims, &f->dims[k], err)) return err->code;
    }
    for (int i = 0; i < s->n_coordinates; i++) {
        const struct store_field *f = &s->coordinates[i].field;
        for (int d = 0; d < dims->n; d++)
            if (f->n_dims == 1 && !strcmp(f->name, f->dims[0].name) && !strcmp(f->name, dims->list[d].name))
                dims->list[d].scale = &s->coordinates[i];
    }
    if (store_bytes(s) < 0 || s->slot.size > INT32_MAX)
        return pva_fail(err, PVA_INPUT, "schema: %s: %lld slots are more, or more bytes, than a file can have", s->name,
                        (long long)s->slot.size);
    for (int i = 0; i < s->n_attributes; i++)
        if (check_name(s->attributes[i].name, err)) return err->code;
    return check_unique(s, dims, err);
}

int store_schema_check(const struct store_schema *s, struct pva_error *err) {
    struct dimensions dims = {NULL, 0};
    examine(s, &dims, err);
    free(dims.list);
    return err->code;
}

int64_t store_bytes(const struct store_schema *s) {
    int64_t total = 0, slot = 5; /* state and checksum */
    for (int i = 0; i < s->n_fields + s->n_coordinates; i++) {
        const struct store_field *f = i < s->n_fields ? &s->fields[i] : &s->coordinates[i - s->n_fields].field;
        int64_t bytes = (int64_t)store_type_bytes(f->type, f->text_size), *sum = i < s->n_fields ? &slot : &total;
        for (int k = 0; k < f->n_dims; k++)
            if (__builtin_mul_overflow(bytes, f->dims[k].size, &bytes)) return -1;
        if (__builtin_add_overflow(*sum, bytes, sum)) return -1;
    }
    if (__builtin_mul_overflow(slot, s->slot.size, &slot) || __builtin_add_overflow(total, slot, &total)) return -1;
    return total;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

struct making {
    hid_t file, plist;
    const char *path;
    struct dimensions dims;
};

static int describe(hid_t d, const char *units, const char *long_name) {
    return (units && store_put_text(d, "units", units)) || store_put_text(d, "long_name", long_name) ? -1 : 0;
}

/* A contiguous dataset over named dimensions; data NULL: left as allocated, which reads as zeros. */
static int make_dataset(struct making *m, const struct store_field *f, const struct store_dim *slot, const void *data, hid_t *out,
                        struct pva_error *err) {
    hsize_t size[STORE_MAX_DIMS + 1];
    int n = 0;
    if (slot) size[n++] = (hsize_t)slot->size;
    for (int i = 0; i < f->n_dims; i++) size[n++] = (hsize_t)f->dims[i].size;
    hid_t type = store_type_make(f->type, f->text_size), space = H5Screate_simple(n, size, NULL);
    hid_t d = type < 0 || space < 0 ? -1 : H5Dcreate2(m->file, f->name, type, space, H5P_DEFAULT, m->plist, H5P_DEFAULT);
    const char *units = f->units ? f->units : f->type == STORE_BYTES ? NULL : "1";
    if (d < 0 || (data && H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) ||
        describe(d, units, f->long_name ? f->long_name : f->name))
        store_hdf5_fail(err, PVA_IO, "%s: dataset /%s cannot be made", m->path, f->name);
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    if (out && !err->code) *out = d;
    else if (d >= 0) H5Dclose(d);
    return err->code;
}

static int make_scale(struct making *m, struct dimension *d, struct pva_error *err) {
    if (d->scale) make_dataset(m, &d->scale->field, NULL, d->scale->data, &d->dataset, err);
    else {
        int64_t *numbers = calloc((size_t)d->size, sizeof *numbers);
        if (!numbers) return pva_fail(err, PVA_IO, "%s: no memory for %lld numbers", m->path, (long long)d->size);
        for (int64_t i = 0; i < d->size; i++) numbers[i] = i;
        struct store_field f = {d->name, STORE_I64, 0, 1, {{d->name, d->size}}, NULL, "position, counted from 0"};
        make_dataset(m, &f, NULL, numbers, &d->dataset, err);
        free(numbers);
    }
    if (!err->code && H5DSset_scale(d->dataset, d->name) < 0)
        store_hdf5_fail(err, PVA_IO, "%s: /%s cannot be made a dimension scale", m->path, d->name);
    return err->code;
}

static int attach(struct making *m, hid_t dataset, const char *name, unsigned at, struct pva_error *err) {
    for (int i = 0; i < m->dims.n; i++)
        if (!strcmp(m->dims.list[i].name, name)) {
            if (H5DSattach_scale(dataset, m->dims.list[i].dataset, at) < 0)
                store_hdf5_fail(err, PVA_IO, "%s: dimension scale %s cannot be attached", m->path, name);
            return err->code;
        }
    return pva_fail(err, PVA_BUG, "%s: dimension %s is not in the schema", m->path, name);
}

/* A dataset with its scales attached, then closed. */
static int make_variable(struct making *m, const struct store_field *f, const struct store_dim *slot, const void *data,
                         hid_t *keep, struct pva_error *err) {
    hid_t d = -1;
    if (make_dataset(m, f, slot, data, &d, err)) return err->code;
    unsigned at = 0;
    if (slot) attach(m, d, slot->name, at++, err);
    for (int i = 0; i < f->n_dims && !err->code; i++) attach(m, d, f->dims[i].name, at++, err);
    if (keep && !err->code) *keep = d;
    else if (H5Dclose(d) < 0) store_hdf5_fail(err, PVA_IO, "%s: dataset /%s cannot be made", m->path, f->name);
    return err->code;
}

static int make_root_attributes(struct making *m, const struct store_schema *s, struct pva_error *err) {
    char created[64];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ created", &utc);
    hid_t f = m->file;
    int bad = store_put_text(f, "Conventions", "CF-1.8") || store_put_text(f, "title", s->title ? s->title : s->name) ||
              store_put_text(f, "source", s->source ? s->source : "pva-mpi") ||
              store_put_text(f, "history", s->history ? s->history : created) || store_put_text(f, "schema", s->name) ||
              store_put_integer(f, "schema_version", s->version);
    for (int i = 0; i < s->n_attributes && !bad; i++) {
        const struct store_attribute *a = &s->attributes[i];
        bad = a->kind == STORE_TEXT      ? store_put_text(f, a->name, a->text ? a->text : "")
              : a->kind == STORE_INTEGER ? store_put_integer(f, a->name, a->integer)
                                         : store_put_real(f, a->name, a->real);
        if (bad) return store_hdf5_fail(err, PVA_IO, "%s: attribute %s cannot be written", m->path, a->name);
    }
    return bad ? store_hdf5_fail(err, PVA_IO, "%s: the root attributes cannot be written", m->path) : PVA_OK;
}

/* /state and /checksum, with zeros written: here it matters. */
static int make_book(struct making *m, const struct store_schema *s, struct pva_error *err) {
    void *zeros = calloc((size_t)s->slot.size, 4);
    if (!zeros) return pva_fail(err, PVA_IO, "%s: no memory for %lld slots", m->path, (long long)s->slot.size);
    const struct store_field state = {"state", STORE_U8, 0, 0, {{0}}, NULL, "state of the slot: the list of finished work"};
    const struct store_field sum = {"checksum", STORE_U32, 0, 0, {{0}}, NULL, "checksum of the slot"};
    hid_t d = -1;
    if (!make_variable(m, &state, &s->slot, zeros, &d, err)) {
        const char *names = s->states ? s->states : "empty done";
        uint8_t values[256];
        hsize_t n = 1;
        for (const char *p = names; *p; p++) n += *p == ' ';
        for (int i = 0; i < 256; i++) values[i] = (uint8_t)i;
        hid_t space = n <= 256 ? H5Screate_simple(1, &n, NULL) : -1;
        hid_t a = space < 0 ? -1 : H5Acreate2(d, "flag_values", H5T_STD_U8LE, space, H5P_DEFAULT, H5P_DEFAULT);
        if (a < 0 || H5Awrite(a, H5T_STD_U8LE, values) < 0 || store_put_text(d, "flag_meanings", names))
            store_hdf5_fail(err, PVA_IO, "%s: the names of the states cannot be written", m->path);
        if (a >= 0) H5Aclose(a);
        if (space >= 0) H5Sclose(space);
        H5Dclose(d), d = -1;
    }
    if (!err->code && !make_variable(m, &sum, &s->slot, zeros, &d, err)) {
        char *order = calloc((size_t)s->n_fields, STORE_NAME_SIZE + 1);
        for (int i = 0; order && i < s->n_fields; i++) {
            if (i) strcat(order, " ");
            strcat(order, s->fields[i].name);
        }
        if (!order || store_put_text(d, "fields", order) ||
            store_put_text(d, "algorithm",
                           "CRC-32 (zlib) over the slot's bytes in these datasets, in this order, then its state byte"))
            store_hdf5_fail(err, PVA_IO, "%s: the checksum cannot be described", m->path);
        free(order);
        H5Dclose(d);
    }
    free(zeros);
    return err->code;
}

static int make_content(struct making *m, const struct store_schema *s, struct pva_error *err) {
    if (make_root_attributes(m, s, err)) return err->code;
    for (int i = 0; i < m->dims.n; i++)
        if (make_scale(m, &m->dims.list[i], err)) return err->code;
    for (int i = 0; i < s->n_coordinates; i++) {
        int is_scale = 0;
        for (int d = 0; d < m->dims.n; d++) is_scale |= m->dims.list[d].scale == &s->coordinates[i];
        if (!is_scale && make_variable(m, &s->coordinates[i].field, NULL, s->coordinates[i].data, NULL, err)) return err->code;
    }
    if (make_book(m, s, err)) return err->code;
    for (int i = 0; i < s->n_fields; i++)
        if (make_variable(m, &s->fields[i], &s->slot, NULL, NULL, err)) return err->code;
    return PVA_OK;
}

/* Format 1.8: all metadata carry checksums of their own, so that a flipped bit is an error and not a wild pointer; and, other
 * than the formats after it, it has no "open for writing" mark that a killed job would leave behind. */
static int make_hdf5(struct making *m, const char *at, const struct store_schema *s, struct pva_error *err) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), create = H5Pcreate(H5P_FILE_CREATE);
    m->plist = H5Pcreate(H5P_DATASET_CREATE);
    if (access < 0 || create < 0 || m->plist < 0 || H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) < 0 ||
        H5Pset_alignment(access, 2048, 4096) < 0 || H5Pset_obj_track_times(create, 0) < 0 ||
        H5Pset_layout(m->plist, H5D_CONTIGUOUS) < 0 || H5Pset_alloc_time(m->plist, H5D_ALLOC_TIME_EARLY) < 0 ||
        H5Pset_fill_time(m->plist, H5D_FILL_TIME_NEVER) < 0 || H5Pset_obj_track_times(m->plist, 0) < 0 ||
        (m->file = H5Fcreate(at, H5F_ACC_TRUNC, create, access)) < 0)
        store_hdf5_fail(err, PVA_IO, "%s: cannot be made", m->path);
    unlink(at); /* nothing is left behind, whatever happens from here on */
    if (!err->code) make_content(m, s, err);
    for (int i = 0; i < m->dims.n; i++)
        if (m->dims.list[i].dataset >= 0) H5Dclose(m->dims.list[i].dataset);
    if (m->file >= 0 && H5Fclose(m->file) < 0) store_hdf5_fail(err, PVA_IO, "%s: cannot be made", m->path);
    if (m->plist >= 0) H5Pclose(m->plist);
    if (create >= 0) H5Pclose(create);
    if (access >= 0) H5Pclose(access);
    return err->code;
}

/* A file of no importance, in memory if there is room for `bytes`; its name in at[]. The name follows from the partial file's, so
 * that the next attempt removes what a job left that was killed before it could. */
static int open_scratch(char *at, size_t size, int64_t bytes, const char *partial, struct pva_error *err) {
    const char *places[] = {"/dev/shm", getenv("TMPDIR"), "/tmp"};
    char *whole = realpath(partial, NULL);
    uint32_t key = whole ? store_crc(0, whole, strlen(whole)) : 0;
    free(whole);
    for (int i = 0; i < 3; i++) {
        struct statvfs fs;
        if (!places[i] || statvfs(places[i], &fs) || (double)fs.f_bavail * (double)fs.f_frsize < 2.0 * (double)bytes) continue;
        int n = snprintf(at, size, "%s/pva-store-%u-%08x", places[i], (unsigned)getuid(), key);
        if (n < 0 || (size_t)n >= size) continue;
        unlink(at);
        int fd = open(at, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd >= 0) return fd;
    }
    pva_fail(err, PVA_IO, "%s: no temporary space (%.1f MB in /dev/shm, TMPDIR or /tmp) to prepare it in", partial,
             2e-6 * (double)bytes);
    return -1;
}

/* Everything that HDF5 wrote: the pieces between the holes. */
static int copy_written(int from, int to, int64_t bytes) {
    for (int64_t at = 0, end; at < bytes; at = end) {
        if ((at = lseek(from, at, SEEK_DATA)) < 0) return errno == ENXIO ? 0 : -1;
        if ((end = lseek(from, at, SEEK_HOLE)) < 0) return -1;
        if (end > bytes) end = bytes;
        if (store_copy_bytes(from, to, at, end - at, NULL)) return -1;
    }
    return 0;
}

/* HDF5 writes to memory and we write to the disk: a disk that fails in the middle of HDF5's work leaves it with a half-closed
 * file, on which 1.10.8 crashes when MPI_Finalize ends it, and with a reason in many words. */
static int make_partial(struct making *m, int fd, const char *partial, const struct store_schema *s, struct pva_error *err) {
    char at[4096];
    struct stat st;
    int64_t metadata = 65536 + 16384 * (int64_t)(s->n_fields + m->dims.n + s->n_coordinates), prepared = metadata;
    for (int i = 0; i < m->dims.n; i++) prepared += 8 * m->dims.list[i].size;
    for (int i = 0; i < s->n_coordinates; i++) {
        const struct store_field *f = &s->coordinates[i].field;
        int64_t bytes = (int64_t)store_type_bytes(f->type, f->text_size);
        for (int k = 0; k < f->n_dims; k++) bytes *= f->dims[k].size;
        prepared += bytes;
    }
    if (store_reserve(fd, m->path, store_bytes(s) + prepared, err)) return err->code;
    int scratch = open_scratch(at, sizeof at, prepared, partial, err);
    if (scratch < 0) return err->code;
    if (!make_hdf5(m, at, s, err)) {
        if (fstat(scratch, &st)) pva_fail(err, PVA_IO, "%s: %s", m->path, strerror(errno));
        else if (!store_reserve(fd, m->path, st.st_size, err) &&
                 (copy_written(scratch, fd, st.st_size) || ftruncate(fd, st.st_size) || fsync(fd)))
            pva_fail(err, PVA_IO, "%s: cannot be written: %s", partial, strerror(errno));
    }
    close(scratch);
    return err->code;
}

int store_create(const char *path, const struct store_schema *s, struct pva_error *err) {
    struct making m = {-1, -1, path, {NULL, 0}};
    char *partial = store_path_with(path, ".partial");
    int fd = -1;
    if (!partial) return pva_fail(err, PVA_IO, "%s: no memory", path);
    if (examine(s, &m.dims, err)) goto done;
    if ((unlink(partial) && errno != ENOENT) || (fd = open(partial, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) < 0) {
        pva_fail(err, PVA_IO, "%s: cannot be made: %s", partial, strerror(errno));
        goto done;
    }
    if (!make_partial(&m, fd, partial, s, err)) store_publish(partial, path, err);
    if (err->code) unlink(partial);
done:
    if (fd >= 0) close(fd);
    free(m.dims.list);
    free(partial);
    return err->code;
}
