/* Opening, writing, committing, reading, checking. store_create.c makes a file, store_match.c compares it with its schema. */
#include "store_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

/* ---- open and close ---------------------------------------------------------------------------------------------- */

/* Byte-range locks even where the file system seems not to need them: for network file systems that are not recognised. */
static const char range_locks_variable[] = "PVA_STORE_RANGE_LOCKS";

static const double lock_patience = 15; /* seconds: the ranks of a killed job are gone after about 3 */
static const double name_patience = 60; /* seconds until another node must see a new name */

static void store_free(struct store **store) {
    struct store *s = *store;
    *store = NULL;
    if (!s) return;
    store_snapshot_stop(s);
    if (s->file > 0) H5Fclose(s->file);
    H5Eclear2(H5E_DEFAULT);
    if (s->fd >= 0) close(s->fd);
    store_lock_release(s->path, &s->lock_fd);
    free(s->fields), free(s->known), free(s->unsynced), free(s->pending), free(s->slot_buffer), free(s->path);
    free(s);
}

static struct store *store_new(const char *path, int writable, struct pva_error *err) {
    struct store *s = calloc(1, sizeof *s);
    if (!s || !(s->path = strdup(path))) {
        pva_fail(err, PVA_IO, "%s: no memory", path);
        free(s);
        return NULL;
    }
    s->writable = writable;
    s->fd = s->lock_fd = -1;
    return s;
}

/* What makes a file the same file on every node. */
struct place {
    int64_t bytes;
    uint64_t inode;
};

static int open_descriptor(struct store *s, struct place *place, struct pva_error *err) {
    struct stat st;
    unsigned char head[8] = {0};
    s->fd = open(s->path, (s->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (s->fd < 0 || fstat(s->fd, &st))
        return pva_fail(err, errno == ENOENT || errno == ENOTDIR ? PVA_INPUT : PVA_IO, "%s: cannot be opened: %s", s->path,
                        strerror(errno));
    if (!S_ISREG(st.st_mode)) return pva_fail(err, PVA_INPUT, "%s: is not a regular file", s->path);
    if (st.st_size == 0) return pva_fail(err, PVA_INPUT, "%s: is empty, expected an HDF5 file", s->path);
    if (pread(s->fd, head, sizeof head, 0) < 0) return pva_fail(err, PVA_IO, "%s: cannot be read: %s", s->path, strerror(errno));
    if (memcmp(head, "\x89HDF\r\n\x1a\n", 8)) return pva_fail(err, PVA_INPUT, "%s: is not an HDF5 file", s->path);
    *place = (struct place){st.st_size, st.st_ino};
    return PVA_OK;
}

static int open_hdf5(struct store *s, const struct store_schema *schema, int64_t bytes, struct pva_error *err) {
    if ((s->file = H5Fopen(s->path, H5F_ACC_RDONLY, H5P_DEFAULT)) < 0)
        store_hdf5_fail(err, PVA_INPUT, "%s: cannot be opened (truncated or damaged?)", s->path);
    if (err->code || store_match(s, schema, bytes, err)) return err->code;
    size_t largest = 1;
    for (int i = 0; i < s->n_fields; i++)
        if (s->fields[i].slot_bytes > largest) largest = s->fields[i].slot_bytes;
    s->slot_buffer = malloc(largest);
    s->known = calloc((size_t)s->n_slots, 1);
    s->unsynced = calloc((size_t)s->n_slots, 1);
    if (!s->slot_buffer || !s->known || !s->unsynced)
        return pva_fail(err, PVA_IO, "%s: no memory for %lld slots", s->path, (long long)s->n_slots);
    return store_states(s, s->known, err);
}

/* A damaged file is not the end when there is a snapshot that opens: say so in the same line. */
static void hint_snapshot(const char *path, const struct store_schema *schema, struct pva_error *err) {
    struct store_snapshot *list = NULL;
    struct store *s = NULL;
    struct pva_error ignored = {0};
    int n = 0;
    size_t used = strlen(err->msg);
    if (err->code == PVA_INPUT && !store_snapshots(path, &list, &n, &ignored) && n &&
        !store_open_read(list[n - 1].path, schema, &s, &ignored))
        snprintf(err->msg + used, sizeof err->msg - used, "; the newest snapshot: --resume %s", list[n - 1].path);
    store_free(&s);
    store_snapshots_free(&list, &n);
}

/* Rank 0: the lock, the file if there is none, and where it is. */
static int prepare(struct store *s, const struct store_schema *schema, enum store_mode mode, struct place *place,
                   struct pva_error *err) {
    struct stat st;
    if (store_schema_check(schema, err) || store_lock_exclusive(s->path, lock_patience, &s->lock_fd, err)) return err->code;
    store_snapshot_sweep(s->path); /* a killed job leaves half a snapshot; nobody else is writing now */
    int there = !lstat(s->path, &st);
    if (there && mode == STORE_FRESH)
        return pva_fail(err, PVA_REFUSED, "%s: exists already and would be overwritten; resume it, or use another run directory",
                        s->path);
    if ((!there || mode == STORE_REPLACE) && store_create(s->path, schema, err)) return err->code;
    if (store_lock_share(s->path, &s->lock_fd, err)) return err->code;
    if (stat(s->path, &st)) return pva_fail(err, PVA_IO, "%s: cannot be found: %s", s->path, strerror(errno));
    *place = (struct place){st.st_size, st.st_ino};
    return PVA_OK;
}

/* Another node's view of a directory may be some seconds old. */
static int await_name(const char *path, const char *host, const struct place *place, struct pva_error *err) {
    const struct timespec nap = {0, 50000000};
    for (double waited = 0;; waited += 0.05) {
        struct stat st;
        int status = stat(path, &st);
        if (!status && st.st_size == place->bytes && st.st_ino == place->inode) return PVA_OK;
        if (waited >= name_patience)
            return pva_fail(err, PVA_IO, "%s: %s on %s; the run directory must be on a file system that all nodes share", path,
                            status ? strerror(errno) : "is another file than rank 0 sees", host);
        nanosleep(&nap, NULL);
    }
}

int store_open(const struct par *par, const char *path, const struct store_schema *schema, enum store_mode mode,
               struct store **store, struct pva_error *err) {
    *store = NULL;
    store_hdf5_init();
    struct place place = {0, 0}, mine;
    struct store *s = err->code ? NULL : store_new(path, 1, err);
    if (s && par->rank == 0) prepare(s, schema, mode, &place, err);
    if (!par_agree(par, "opening the results", err)) {
        PAR_CHECK(par, MPI_Bcast(&place, sizeof place, MPI_BYTE, 0, par->comm));
        if (!await_name(path, par->host, &place, err) && (par->rank == 0 || !store_lock_share(path, &s->lock_fd, err)) &&
            !open_descriptor(s, &mine, err) && !open_hdf5(s, schema, mine.bytes, err)) {
            s->range_locks = getenv(range_locks_variable) || (par->n_nodes > 1 && store_needs_range_locks(s->fd));
            if (s->range_locks && (store_range_lock(s->fd, 1, 0, 1) || store_range_lock(s->fd, 0, 0, 1)))
                pva_fail(err, PVA_IO,
                         "%s: this network file system has no byte-range locks (%s), and without them nodes can undo "
                         "each other's writes; use one node, or another file system",
                         path, strerror(errno));
        }
        if (err->code) hint_snapshot(path, schema, err);
        par_agree(par, "opening the results", err);
    }
    if (err->code) store_free(&s);
    *store = s;
    return err->code;
}

int store_open_read(const char *path, const struct store_schema *schema, struct store **store, struct pva_error *err) {
    struct place place;
    *store = NULL;
    store_hdf5_init();
    struct store *s = store_new(path, 0, err);
    if (s && !open_descriptor(s, &place, err)) open_hdf5(s, schema, place.bytes, err);
    if (err->code) store_free(&s);
    *store = s;
    return err->code;
}

int store_close(struct store **store, struct pva_error *err) {
    if (!*store) return PVA_OK;
    struct pva_error mine = {0};
    if ((*store)->writable) store_checkpoint(*store, &mine);
    store_free(store);
    return mine.code ? pva_fail(err, mine.code, "%s", mine.msg) : PVA_OK;
}

/* ---- what it holds ----------------------------------------------------------------------------------------------- */

int64_t store_n_slots(const struct store *s) { return s->n_slots; }

int store_field_index(const struct store *s, const char *name) {
    for (int i = 0; i < s->n_fields; i++)
        if (!strcmp(s->fields[i].name, name)) return i;
    return -1;
}

int store_field_shape(const struct store *s, int field, int64_t *shape) {
    memcpy(shape, s->fields[field].dims, sizeof s->fields[field].dims);
    return s->fields[field].n_dims;
}

int64_t store_dim_size(const struct store *s, const char *name) {
    if (!strcmp(s->slot_name, name)) return s->n_slots;
    for (int i = 0; i < s->n_fields; i++)
        for (int k = 0; k < s->fields[i].n_dims; k++)
            if (!strcmp(s->fields[i].dim_names[k], name)) return s->fields[i].dims[k];
    return -1;
}

size_t store_field_bytes(const struct store *s, int field) { return s->fields[field].slot_bytes; }
int64_t store_field_text_size(const struct store *s, int field) { return (int64_t)s->fields[field].element_bytes; }

/* ---- one dataset, some slots ------------------------------------------------------------------------------------- */

/* `bytes` bytes of the column from byte `at` of the file on. */
static int read_bytes(struct store *s, const struct store_column *c, int64_t at, size_t bytes, void *data, struct pva_error *err) {
    int64_t slot = (at - c->offset) / (int64_t)(c->slot_bytes ? c->slot_bytes : 1);
    for (size_t done = 0; done < bytes;) {
        ssize_t got = pread(s->fd, (char *)data + done, bytes - done, at + (int64_t)done);
        if (got > 0) done += (size_t)got;
        else if (got == 0)
            return pva_fail(err, PVA_INPUT, "%s: ends inside /%s, slot %lld: truncated", s->path, c->name, (long long)slot);
        else if (errno != EINTR)
            return pva_fail(err, PVA_IO, "%s: /%s, slot %lld, cannot be read: %s", s->path, c->name, (long long)slot,
                            strerror(errno));
    }
    return PVA_OK;
}

int store_column_read(struct store *s, const struct store_column *c, int64_t first, int64_t n, void *data,
                      struct pva_error *err) {
    return read_bytes(s, c, c->offset + first * (int64_t)c->slot_bytes, (size_t)n * c->slot_bytes, data, err);
}

static int column_write(struct store *s, const struct store_column *c, int64_t slot, const void *data, struct pva_error *err) {
    int64_t at = c->offset + slot * (int64_t)c->slot_bytes, bytes = (int64_t)c->slot_bytes;
    int bad = s->range_locks && store_range_lock(s->fd, 1, at, bytes);
    bad = bad || store_write_all(s->fd, data, c->slot_bytes, at);
    bad = bad || (s->range_locks && store_range_lock(s->fd, 0, at, bytes));
    if (bad)
        return pva_fail(err, PVA_IO, "%s: /%s, slot %lld, cannot be written: %s", s->path, c->name, (long long)slot,
                        strerror(errno));
    return PVA_OK;
}

/* ---- slots ------------------------------------------------------------------------------------------------------- */

static int check_place(const struct store *s, int64_t slot, int64_t n, int field, struct pva_error *err) {
    if (slot < 0 || n < 0 || n > s->n_slots || slot > s->n_slots - n || field < 0 || field >= s->n_fields)
        return pva_fail(err, PVA_BUG, "%s: slots %lld..%lld of field %d: there are %lld slots and %d fields", s->path,
                        (long long)slot, (long long)(slot + n - 1), field, (long long)s->n_slots, s->n_fields);
    return PVA_OK;
}

static int check_open_slot(const struct store *s, int64_t slot, struct pva_error *err) {
    if (!s->writable) return pva_fail(err, PVA_BUG, "%s: is open for reading only", s->path);
    if (s->known[slot]) return pva_fail(err, PVA_BUG, "%s: slot %lld is committed already", s->path, (long long)slot);
    return PVA_OK;
}

static struct store_pending *pending_of(struct store *s, int64_t slot, struct pva_error *err) {
    for (int i = 0; i < s->n_pending; i++)
        if (s->pending[i].slot == slot) return &s->pending[i];
    if (s->n_pending == s->max_pending) {
        int more = s->max_pending ? 2 * s->max_pending : 8;
        struct store_pending *p = realloc(s->pending, (size_t)more * sizeof *p);
        if (!p) return pva_fail(err, PVA_IO, "%s: no memory", s->path), NULL;
        s->pending = p, s->max_pending = more;
    }
    struct store_pending *p = &s->pending[s->n_pending++];
    p->slot = slot, p->written = 0;
    return p;
}

int store_write(struct store *s, int64_t slot, int field, const void *data, struct pva_error *err) {
    if (check_place(s, slot, 1, field, err) || check_open_slot(s, slot, err)) return err->code;
    const struct store_column *c = &s->fields[field];
    struct store_pending *p = pending_of(s, slot, err);
    if (!p || column_write(s, c, slot, data, err)) return err->code;
    p->written |= (uint64_t)1 << field;
    p->crc[field] = store_crc(0, data, c->slot_bytes);
    return PVA_OK;
}

int store_write_head(struct store *s, int64_t slot, int field, const void *data, size_t bytes, struct pva_error *err) {
    if (check_place(s, slot, 1, field, err)) return err->code;
    size_t all = s->fields[field].slot_bytes;
    if (bytes > all) return pva_fail(err, PVA_BUG, "%s: %zu bytes into /%s, which has %zu", s->path, bytes, s->fields[field].name, all);
    if (bytes == all) return store_write(s, slot, field, data, err);
    if (bytes) memcpy(s->slot_buffer, data, bytes);
    memset((char *)s->slot_buffer + bytes, 0, all - bytes);
    return store_write(s, slot, field, s->slot_buffer, err);
}

int store_commit(struct store *s, int64_t slot, int state, struct pva_error *err) {
    if (check_place(s, slot, 1, 0, err) || check_open_slot(s, slot, err)) return err->code;
    if (state <= STORE_EMPTY || state > 255)
        return pva_fail(err, PVA_BUG, "%s: slot %lld: %d is no state to commit", s->path, (long long)slot, state);
    struct store_pending *p = pending_of(s, slot, err);
    if (!p) return err->code;
    uint32_t sum = 0;
    for (int f = 0; f < s->n_fields; f++) {
        size_t bytes = s->fields[f].slot_bytes;
        if (!(p->written >> f & 1)) {
            memset(s->slot_buffer, 0, bytes);
            if (store_write(s, slot, f, s->slot_buffer, err)) return err->code;
        }
        sum = f ? (uint32_t)crc32_combine(sum, p->crc[f], (z_off_t)bytes) : p->crc[0];
    }
    uint8_t byte = (uint8_t)state;
    sum = store_crc(sum, &byte, 1);
    /* The order is the promise: data, checksum, state. */
    if (column_write(s, &s->checksum, slot, &sum, err) || column_write(s, &s->state, slot, &byte, err)) return err->code;
    *p = s->pending[--s->n_pending];
    s->known[slot] = byte;
    s->unsynced[slot] = 1;
    return PVA_OK;
}

static int set_empty(struct store *s, int64_t slot, struct pva_error *err) {
    const uint8_t empty = STORE_EMPTY;
    if (column_write(s, &s->state, slot, &empty, err)) return err->code;
    s->known[slot] = STORE_EMPTY;
    s->unsynced[slot] = 0;
    return PVA_OK;
}

int store_reopen(struct store *s, int64_t slot, struct pva_error *err) {
    if (check_place(s, slot, 1, 0, err)) return err->code;
    if (!s->writable || !s->known[slot])
        return pva_fail(err, PVA_BUG, "%s: slot %lld is not committed", s->path, (long long)slot);
    struct store_pending *p = pending_of(s, slot, err);
    if (!p) return err->code;
    for (int f = 0; f < s->n_fields; f++) {
        if (store_column_read(s, &s->fields[f], slot, 1, s->slot_buffer, err)) return err->code;
        p->crc[f] = store_crc(0, s->slot_buffer, s->fields[f].slot_bytes);
        p->written |= (uint64_t)1 << f;
    }
    return set_empty(s, slot, err);
}

int store_retain(const struct par *par, struct store *s, const uint8_t *states, struct pva_error *err) {
    for (int64_t i = 0; i < s->n_slots && par->rank == 0 && !err->code; i++)
        if (s->known[i] && !states[i]) set_empty(s, i, err);
    if (par_agree(par, "opening the results", err)) return err->code;
    for (int64_t i = 0; i < s->n_slots; i++)
        if (!states[i]) s->known[i] = STORE_EMPTY;
    return PVA_OK;
}

int store_read_range(struct store *s, int field, int64_t first, int64_t n, void *data, struct pva_error *err) {
    return check_place(s, first, n, field, err) ? err->code : store_column_read(s, &s->fields[field], first, n, data, err);
}

int store_read(struct store *s, int64_t slot, int field, void *data, struct pva_error *err) {
    return store_read_range(s, field, slot, 1, data, err);
}

/* n values from byte `at` on, as float32. bfloat16 is read into the upper half of the caller's array and widened from the front:
 * the reader never overtakes. */
static int read_as_floats(struct store *s, const struct store_column *c, int64_t at, size_t n, float *data, struct pva_error *err) {
    if (c->type == STORE_F32) return read_bytes(s, c, at, n * 4, data, err);
    if (c->type != STORE_BF16)
        return pva_fail(err, PVA_BUG, "%s: /%s is %s, expected float32 or bfloat16", s->path, c->name, store_type_name(c->type));
    unsigned char *out = (unsigned char *)data, *in = out + 2 * n;
    if (read_bytes(s, c, at, n * 2, in, err)) return err->code;
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, in + 2 * i, sizeof half);
        uint32_t bits = (uint32_t)half << 16;
        memcpy(out + 4 * i, &bits, sizeof bits);
    }
    return PVA_OK;
}

int store_read_floats(struct store *s, int field, int64_t first, int64_t n, float *data, struct pva_error *err) {
    if (check_place(s, first, n, field, err)) return err->code;
    const struct store_column *c = &s->fields[field];
    return read_as_floats(s, c, c->offset + first * (int64_t)c->slot_bytes, (size_t)n * (c->slot_bytes / c->element_bytes), data, err);
}

int store_read_elements(struct store *s, int64_t slot, int field, int64_t first, int64_t n, float *data, struct pva_error *err) {
    if (check_place(s, slot, 1, field, err)) return err->code;
    const struct store_column *c = &s->fields[field];
    int64_t element = (int64_t)c->element_bytes, all = (int64_t)c->slot_bytes / element;
    if (first < 0 || n < 0 || n > all || first > all - n)
        return pva_fail(err, PVA_BUG, "%s: elements %lld..%lld of /%s, which has %lld", s->path, (long long)first,
                        (long long)(first + n - 1), c->name, (long long)all);
    return read_as_floats(s, c, c->offset + slot * (int64_t)c->slot_bytes + first * element, (size_t)n, data, err);
}

int store_states(struct store *s, uint8_t *states, struct pva_error *err) {
    return store_column_read(s, &s->state, 0, s->n_slots, states, err);
}

/* ---- durable, and proven ----------------------------------------------------------------------------------------- */

int store_checkpoint(struct store *s, struct pva_error *err) {
    if (!s->writable) return PVA_OK;
    if (fdatasync(s->fd)) {
        /* The kernel may have dropped pages it could not write, and forgets the error once it is told. What is not known to be on
         * disk must not count as finished. */
        pva_fail(err, PVA_IO, "%s: cannot be synced: %s", s->path, strerror(errno));
        struct pva_error ignored = {0};
        for (int64_t i = 0; i < s->n_slots; i++)
            if (s->unsynced[i]) set_empty(s, i, &ignored);
        return err->code;
    }
    memset(s->unsynced, 0, (size_t)s->n_slots);
    return PVA_OK;
}

/* 1: the slot's bytes are what was committed. A slot that cannot be read is as bad as one with other bytes. */
static int slot_holds(struct store *s, int64_t slot, uint8_t state) {
    struct pva_error unreadable = {0};
    uint32_t sum = 0, stored = 0;
    for (int f = 0; f < s->n_fields; f++) {
        if (store_column_read(s, &s->fields[f], slot, 1, s->slot_buffer, &unreadable)) return 0;
        sum = store_crc(sum, s->slot_buffer, s->fields[f].slot_bytes);
    }
    return !store_column_read(s, &s->checksum, slot, 1, &stored, &unreadable) && stored == store_crc(sum, &state, 1);
}

/* bad: [last - first] */
static int find_damaged(struct store *s, int64_t first, int64_t last, int64_t *bad, int64_t *n_bad, struct pva_error *err) {
    uint8_t *states = malloc((size_t)s->n_slots);
    *n_bad = 0;
    if (!states) return pva_fail(err, PVA_IO, "%s: no memory", s->path);
    if (!store_states(s, states, err)) {
        memcpy(s->known, states, (size_t)s->n_slots);
        for (int64_t i = first; i < last; i++)
            if (states[i] && !slot_holds(s, i, states[i])) bad[(*n_bad)++] = i;
    }
    free(states);
    return err->code;
}

int store_check(struct store *s, int64_t **damaged, int64_t *n_damaged, struct pva_error *err) {
    *n_damaged = 0;
    *damaged = calloc((size_t)s->n_slots, sizeof **damaged);
    if (!*damaged) return pva_fail(err, PVA_IO, "%s: no memory", s->path);
    return find_damaged(s, 0, s->n_slots, *damaged, n_damaged, err);
}

int store_verify(const struct par *par, struct store *s, int64_t **damaged, int64_t *n_damaged, struct pva_error *err) {
    /* Shares of consecutive slots; one byte per slot says what each rank found. */
    int64_t first = s->n_slots * par->rank / par->size, last = s->n_slots * (par->rank + 1) / par->size, n = 0;
    int64_t *list = calloc((size_t)s->n_slots, sizeof *list);
    uint8_t *bad = calloc((size_t)s->n_slots, 1);
    *damaged = NULL, *n_damaged = 0;
    if (!list || !bad) pva_fail(err, PVA_IO, "%s: no memory", s->path);
    if (!err->code) find_damaged(s, first, last, list, &n, err);
    for (int64_t i = 0; i < n && !err->code; i++) {
        set_empty(s, list[i], err);
        bad[list[i]] = 1;
    }
    if (!par_agree(par, "checking the results", err)) {
        MPI_Request request;
        PAR_CHECK(par, MPI_Iallreduce(MPI_IN_PLACE, bad, (int)s->n_slots, MPI_UINT8_T, MPI_MAX, par->comm, &request));
        par_wait(par, &request);
        for (int64_t i = n = 0; i < s->n_slots; i++)
            if (bad[i]) s->known[i] = STORE_EMPTY, list[n++] = i;
        *damaged = list, *n_damaged = n, list = NULL;
    }
    free(list), free(bad);
    return err->code;
}

/* ---- what was stored when the file was made ---------------------------------------------------------------------- */

int store_read_coordinate(struct store *s, const char *name, enum store_type type, void *data, size_t bytes,
                          struct pva_error *err) {
    struct stat st;
    hid_t d = -1, has = -1, want = -1;
    int64_t offset;
    if (fstat(s->fd, &st)) return pva_fail(err, PVA_IO, "%s: %s", s->path, strerror(errno));
    if (store_dataset_open(s->file, s->path, st.st_size, name, &d, &offset, err)) return err->code;
    has = H5Dget_type(d);
    want = has >= 0 && type == STORE_BYTES ? H5Tcopy(has) : store_type_make(type, 1);
    if (has < 0 || want < 0 || H5Tequal(has, want) <= 0 ||
        (type == STORE_BYTES && (H5Tget_class(has) != H5T_STRING || H5Tis_variable_str(has))))
        pva_fail(err, PVA_INPUT, "%s: /%s has another type, expected %s", s->path, name, store_type_name(type));
    else if (H5Dget_storage_size(d) != bytes)
        pva_fail(err, PVA_INPUT, "%s: /%s has %llu bytes, expected %zu", s->path, name,
                 (unsigned long long)H5Dget_storage_size(d), bytes);
    else if (H5Dread(d, want, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        store_hdf5_fail(err, PVA_IO, "%s: /%s cannot be read", s->path, name);
    H5Eclear2(H5E_DEFAULT);
    if (want >= 0) H5Tclose(want);
    if (has >= 0) H5Tclose(has);
    H5Dclose(d);
    return err->code;
}

int store_text(struct store *s, const char *attribute, char *text, size_t size, struct pva_error *err) {
    char *all = NULL;
    if (store_get_attribute(s->file, s->path, attribute, STORE_TEXT, &all, NULL, NULL, err)) return err->code;
    if (strlen(all) < size) memcpy(text, all, strlen(all) + 1);
    else
        pva_fail(err, PVA_INPUT, "%s: attribute %s has %zu characters, expected at most %zu", s->path, attribute, strlen(all),
                 size - 1);
    free(all);
    return err->code;
}

int store_integer(struct store *s, const char *attribute, int64_t *value, struct pva_error *err) {
    return store_get_attribute(s->file, s->path, attribute, STORE_INTEGER, NULL, value, NULL, err);
}

int store_real(struct store *s, const char *attribute, double *value, struct pva_error *err) {
    return store_get_attribute(s->file, s->path, attribute, STORE_REAL, NULL, NULL, value, err);
}
