/* Versioned copies beside the file. The file itself survives killed jobs; a snapshot survives what happens to the file: a damaged
 * file system, a wrong command, a half-run experiment to go back from.
 *
 * One thread of one process copies while everybody writes. The states and checksums are taken first, so whatever was committed
 * then is copied complete, and everything else is empty in the copy, its data not even copied (a hole). The thread makes no MPI
 * or HDF5 call. */
#include "store_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct range {
    int64_t offset, bytes;
};

struct store_snapshot_job {
    pthread_t thread;
    int cancel, done; /* atomic */
    char *path, *partial, *main_path;
    int from, keep;
    int64_t bytes, n_slots, state_offset, checksum_offset;
    uint8_t *states;     /* [n_slots] */
    uint32_t *checksums; /* [n_slots] */
    struct range *ranges;
    int64_t n_ranges;
    struct pva_error err;
};

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* "run/phase1.h5" -> "run/checkpoints" and "phase1"; both malloc'd. */
static int place_of(const char *path, char **directory, char **stem) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t n = strlen(name), before = (size_t)(name - path);
    if (n > 3 && !strcmp(name + n - 3, ".h5")) n -= 3;
    *stem = strndup(name, n);
    *directory = NULL;
    if (asprintf(directory, "%.*scheckpoints", (int)before, path) < 0) *directory = NULL;
    if (*stem && *directory) return 0;
    free(*stem), free(*directory);
    return -1;
}

/* phase1-00100.h5 -> 100; -1 for any other name. */
static int64_t count_of(const char *name, const char *stem) {
    size_t n = strlen(stem);
    if (strncmp(name, stem, n) || name[n] != '-') return -1;
    const char *digits = name + n + 1;
    size_t k = strspn(digits, "0123456789");
    return k >= 1 && k <= 18 && !strcmp(digits + k, ".h5") ? strtoll(digits, NULL, 10) : -1;
}

static int by_count(const void *a, const void *b) {
    const struct store_snapshot *x = a, *y = b;
    return (x->count > y->count) - (x->count < y->count);
}

int store_snapshots(const char *path, struct store_snapshot **list, int *n, struct pva_error *err) {
    char *directory, *stem;
    *list = NULL, *n = 0;
    if (place_of(path, &directory, &stem)) return pva_fail(err, PVA_IO, "%s: no memory", path);
    DIR *d = opendir(directory);
    if (!d && errno != ENOENT) pva_fail(err, PVA_IO, "%s: cannot be listed: %s", directory, strerror(errno));
    for (struct dirent *e; d && !err->code && (e = readdir(d));) {
        int64_t count = count_of(e->d_name, stem);
        struct stat st;
        if (count < 0 || fstatat(dirfd(d), e->d_name, &st, 0) || !S_ISREG(st.st_mode)) continue;
        struct store_snapshot *more = realloc(*list, (size_t)(*n + 1) * sizeof *more);
        if (more) *list = more;
        struct store_snapshot s = {NULL, count, (int64_t)st.st_blocks * 512, (int64_t)st.st_mtime};
        if (!more || asprintf(&s.path, "%s/%s", directory, e->d_name) < 0) pva_fail(err, PVA_IO, "%s: no memory", directory);
        else (*list)[(*n)++] = s;
    }
    if (d) closedir(d);
    if (*n) qsort(*list, (size_t)*n, sizeof **list, by_count);
    if (err->code) store_snapshots_free(list, n);
    free(directory), free(stem);
    return err->code;
}

void store_snapshots_free(struct store_snapshot **list, int *n) {
    for (int i = 0; i < *n; i++) free((*list)[i].path);
    free(*list);
    *list = NULL, *n = 0;
}

/* ---- the copy ---------------------------------------------------------------------------------------------------- */

static int by_offset(const void *a, const void *b) {
    const struct store_column *x = *(struct store_column *const *)a, *y = *(struct store_column *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static void add_range(struct store_snapshot_job *j, int64_t offset, int64_t end) {
    if (end <= offset) return;
    struct range *last = j->n_ranges ? &j->ranges[j->n_ranges - 1] : NULL;
    if (last && last->offset + last->bytes == offset) last->bytes = end - last->offset;
    else j->ranges[j->n_ranges++] = (struct range){offset, end - offset};
}

/* Everything outside the fields, and of each field the committed slots. */
static int plan_ranges(struct store *s, struct store_snapshot_job *j) {
    struct store_column *order[STORE_MAX_FIELDS];
    int64_t runs = 0, at = 0;
    for (int64_t i = 0; i < s->n_slots; i++) runs += j->states[i] && (i == 0 || !j->states[i - 1]);
    if (!(j->ranges = calloc((size_t)((runs + 1) * s->n_fields + 1), sizeof *j->ranges))) return -1;
    for (int f = 0; f < s->n_fields; f++) order[f] = &s->fields[f];
    qsort(order, (size_t)s->n_fields, sizeof order[0], by_offset);
    for (int f = 0; f < s->n_fields; f++) {
        const struct store_column *c = order[f];
        add_range(j, at, c->offset);
        for (int64_t i = 0, end; i < s->n_slots; i = end + 1) {
            for (end = i; end < s->n_slots && j->states[end]; end++) {
            }
            add_range(j, c->offset + i * (int64_t)c->slot_bytes, c->offset + end * (int64_t)c->slot_bytes);
        }
        at = c->offset + s->n_slots * (int64_t)c->slot_bytes;
    }
    add_range(j, at, j->bytes);
    return 0;
}

void store_snapshot_sweep(const char *main_path) {
    char *directory, *stem;
    if (place_of(main_path, &directory, &stem)) return;
    DIR *d = opendir(directory);
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t k = strlen(e->d_name);
        if (k <= 8 || strcmp(e->d_name + k - 8, ".partial")) continue;
        e->d_name[k - 8] = 0;
        int ours = count_of(e->d_name, stem) >= 0;
        e->d_name[k - 8] = '.';
        if (ours) unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d) closedir(d);
    free(directory), free(stem);
}

/* Oldest first, so that a crash in between leaves the newest; then what earlier, killed attempts left. */
static void remove_old(const struct store_snapshot_job *j) {
    struct store_snapshot *list = NULL;
    struct pva_error ignored = {0};
    int n = 0;
    if (!store_snapshots(j->main_path, &list, &n, &ignored))
        for (int i = 0; i < n - j->keep; i++) unlink(list[i].path);
    store_snapshots_free(&list, &n);
    store_snapshot_sweep(j->main_path);
}

static void copy(struct store_snapshot_job *j) {
    struct pva_error *err = &j->err;
    int fd = open(j->partial, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), bad = fd < 0 || ftruncate(fd, j->bytes);
    for (int64_t i = 0; i < j->n_ranges && !bad; i++)
        bad = store_copy_bytes(j->from, fd, j->ranges[i].offset, j->ranges[i].bytes, &j->cancel);
    bad = bad || store_write_all(fd, j->states, (size_t)j->n_slots, j->state_offset) ||
          store_write_all(fd, j->checksums, (size_t)j->n_slots * sizeof *j->checksums, j->checksum_offset) || fsync(fd);
    if (bad && errno != ECANCELED) pva_fail(err, PVA_IO, "%s: the snapshot cannot be written: %s", j->path, strerror(errno));
    if (fd >= 0 && close(fd) && !bad)
        bad = 1, pva_fail(err, PVA_IO, "%s: the snapshot cannot be closed: %s", j->path, strerror(errno));
    if (!bad && rename(j->partial, j->path))
        bad = 1, pva_fail(err, PVA_IO, "%s: the snapshot cannot be renamed: %s", j->path, strerror(errno));
    if (bad) unlink(j->partial);
    else if (!store_sync_directory(j->path, err)) remove_old(j);
}

static void *run(void *job) {
    struct store_snapshot_job *j = job;
    copy(j);
    __atomic_store_n(&j->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void job_free(struct store_snapshot_job *j) {
    if (!j) return;
    if (j->from >= 0) close(j->from);
    free(j->path), free(j->partial), free(j->main_path), free(j->states), free(j->checksums), free(j->ranges);
    free(j);
}

/* The thread is over: its result, and the room for the next. */
static int reap(struct store *s, struct pva_error *err) {
    struct store_snapshot_job *j = s->snapshot;
    pthread_join(j->thread, NULL);
    s->snapshot = NULL;
    if (j->err.code) pva_fail(err, j->err.code, "%s", j->err.msg);
    job_free(j);
    return err->code;
}

int store_snapshot_start(struct store *s, int64_t count, int keep, struct pva_error *err) {
    struct stat st;
    if (!s->writable || count < 0 || keep < 1)
        return pva_fail(err, PVA_BUG, "%s: a snapshot of %lld, keeping %d, of a file open for %s", s->path, (long long)count,
                        keep, s->writable ? "writing" : "reading only");
    if (s->snapshot) {
        if (!__atomic_load_n(&s->snapshot->done, __ATOMIC_ACQUIRE)) return PVA_OK;
        if (reap(s, err)) return err->code;
    }
    struct store_snapshot_job *j = calloc(1, sizeof *j);
    char *directory = NULL, *stem = NULL;
    if (!j || place_of(s->path, &directory, &stem)) {
        free(j);
        return pva_fail(err, PVA_IO, "%s: no memory for a snapshot", s->path);
    }
    j->keep = keep, j->n_slots = s->n_slots, j->state_offset = s->state.offset, j->checksum_offset = s->checksum.offset;
    j->from = open(s->path, O_RDONLY | O_CLOEXEC);
    if (asprintf(&j->path, "%s/%s-%05lld.h5", directory, stem, (long long)count) < 0) j->path = NULL;
    j->partial = j->path ? store_path_with(j->path, ".partial") : NULL;
    j->main_path = strdup(s->path);
    j->states = malloc((size_t)s->n_slots);
    j->checksums = malloc((size_t)s->n_slots * sizeof *j->checksums);
    if (!j->partial || !j->main_path || !j->states || !j->checksums)
        pva_fail(err, PVA_IO, "%s: no memory for a snapshot", s->path);
    else if (j->from < 0 || fstat(j->from, &st))
        pva_fail(err, PVA_IO, "%s: cannot be opened for a snapshot: %s", s->path, strerror(errno));
    else if (mkdir(directory, 0777) && errno != EEXIST)
        pva_fail(err, PVA_IO, "%s: cannot be made: %s", directory, strerror(errno));
    /* States before checksums: a committed slot's checksum is already there. */
    else if (!store_states(s, j->states, err) && !store_column_read(s, &s->checksum, 0, s->n_slots, j->checksums, err)) {
        for (int64_t i = 0; i < s->n_slots; i++)
            if (!j->states[i]) j->checksums[i] = 0;
        j->bytes = st.st_size;
        /* Signals are the main thread's business. */
        sigset_t all, was;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &was);
        if (plan_ranges(s, j) || pthread_create(&j->thread, NULL, run, j))
            pva_fail(err, PVA_IO, "%s: the snapshot cannot be started", s->path);
        pthread_sigmask(SIG_SETMASK, &was, NULL);
    }
    free(directory), free(stem);
    if (err->code) job_free(j);
    else s->snapshot = j;
    return err->code;
}

int store_snapshot_poll(struct store *s, int *running, struct pva_error *err) {
    *running = 0;
    if (!s->snapshot) return PVA_OK;
    if (__atomic_load_n(&s->snapshot->done, __ATOMIC_ACQUIRE)) return reap(s, err);
    *running = 1;
    return PVA_OK;
}

int store_snapshot_wait(struct store *s, struct pva_error *err) { return s->snapshot ? reap(s, err) : PVA_OK; }

void store_snapshot_stop(struct store *s) {
    struct pva_error ignored = {0};
    if (!s->snapshot) return;
    __atomic_store_n(&s->snapshot->cancel, 1, __ATOMIC_RELAXED);
    reap(s, &ignored);
}

/* ---- back from a copy -------------------------------------------------------------------------------------------- */

static void copy_file(const char *from, const char *path, struct pva_error *err) {
    char *partial = store_path_with(path, ".partial");
    int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
    struct stat st;
    if (!partial) pva_fail(err, PVA_IO, "%s: no memory", path);
    else if (in < 0 || fstat(in, &st)) pva_fail(err, PVA_IO, "%s: cannot be opened: %s", from, strerror(errno));
    else if ((unlink(partial) && errno != ENOENT) || (out = open(partial, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) < 0)
        pva_fail(err, PVA_IO, "%s: cannot be made: %s", partial, strerror(errno));
    else if (!store_reserve(out, path, st.st_size, err)) {
        if (store_copy_bytes(in, out, 0, st.st_size, NULL) || fsync(out))
            pva_fail(err, PVA_IO, "%s: cannot be copied to %s: %s", from, path, strerror(errno));
        else store_publish(partial, path, err);
    }
    if (out >= 0) {
        if (err->code) unlink(partial);
        close(out);
    }
    if (in >= 0) close(in);
    free(partial);
}

int store_copy(const struct par *par, const char *from, const char *path, const struct store_schema *schema,
               struct pva_error *err) {
    if (!err->code && par->rank == 0) {
        struct store *s = NULL;
        struct pva_error closing = {0};
        int lock = -1;
        if (!store_lock_exclusive(path, 15, &lock, err) && !store_open_read(from, schema, &s, err)) copy_file(from, path, err);
        store_close(&s, &closing);
        store_lock_release(path, &lock);
    }
    return par_agree(par, "copying the results", err);
}
