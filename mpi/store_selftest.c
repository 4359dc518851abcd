/* Can this machine, this MPI and this file system do what the phases need, and how fast? Everything goes through the store's own
 * functions. */
#include "store_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The same name on every rank, another one in every job. */
static int scratch_name(const struct par *par, const char *dir, const char *what, char *path, size_t size,
                        struct pva_error *err) {
    long pid = (long)getpid();
    PAR_CHECK(par, MPI_Bcast(&pid, 1, MPI_LONG, 0, par->comm));
    int n = snprintf(path, size, "%s/%s-%ld.h5", dir, what, pid);
    return n < 0 || (size_t)n >= size ? pva_fail(err, PVA_USAGE, "%s: the path is too long", dir) : PVA_OK;
}

static void sweep(const struct par *par, const char *path) {
    static const char *const endings[] = {"", ".partial", ".lock", ".raw"};
    par_barrier(par);
    for (int i = 0; i < 4 && par->rank == 0; i++) {
        char *name = store_path_with(path, endings[i]);
        if (name) unlink(name);
        free(name);
    }
}

/* All ranks' bytes over the slowest rank's seconds. */
static double rate(const struct par *par, double bytes, double seconds) {
    double worst = 0;
    MPI_Request request;
    PAR_CHECK(par, MPI_Iallreduce(&seconds, &worst, 1, MPI_DOUBLE, MPI_MAX, par->comm, &request));
    par_wait(par, &request);
    return worst > 0 ? bytes / worst / 1e6 : 0;
}

/* ---- how fast ---------------------------------------------------------------------------------------------------- */

/* Records first .. last-1, dealt to the ranks in turn; returns the seconds. */
static double write_store(const struct par *par, struct store *s, const void *record, int64_t first, int64_t last,
                          struct pva_error *err) {
    double started = now();
    for (int64_t i = first + par->rank; i < last && !err->code; i += par->size)
        if (!store_write(s, i, 0, record, err)) store_commit(s, i, STORE_DONE, err);
    return now() - started;
}

static double write_raw(const struct par *par, int fd, const char *path, const void *record, int64_t bytes, int64_t first,
                        int64_t last, struct pva_error *err) {
    double started = now();
    for (int64_t i = first + par->rank; i < last && !err->code; i += par->size)
        if (pwrite(fd, record, (size_t)bytes, i * bytes) != bytes)
            pva_fail(err, PVA_IO, "%s: cannot be written: %s", path, strerror(errno));
    return now() - started;
}

int store_measure(const struct par *par, const char *dir, int64_t record_bytes, int64_t n_records, struct store_rates *rates,
                  struct pva_error *err) {
    char path[4096];
    *rates = (struct store_rates){0, 0};
    if (scratch_name(par, dir, "store-rate", path, sizeof path, err)) return err->code; /* the same on every rank */
    const struct store_field field = {"record", STORE_U8, 0, 1, {{"byte", record_bytes}}, NULL, NULL};
    const struct store_schema schema = {
        .name = "pva-rate", .version = 1, .slot = {"item", n_records}, .fields = &field, .n_fields = 1};
    struct store *s = NULL;
    struct pva_error closing = {0};
    char *raw = store_path_with(path, ".raw"), *record = NULL;
    int fd = -1;
    if (store_open(par, path, &schema, STORE_FRESH, &s, err)) goto done; /* all ranks */
    if (!err->code && (!raw || !(record = malloc((size_t)record_bytes)))) pva_fail(err, PVA_IO, "%s: no memory", path);
    if (!err->code) {
        for (int64_t i = 0; i < record_bytes; i++) record[i] = (char)(i * 131 + par->rank);
        if ((fd = open(raw, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
            pva_fail(err, PVA_IO, "%s: cannot be made: %s", raw, strerror(errno));
        else if (par->rank == 0) store_reserve(fd, raw, record_bytes * n_records, err);
    }
    if (!par_agree(par, "measuring the store", err)) {
        /* In turns, so that neither has the page cache at a better moment. */
        double raw_seconds = 0, store_seconds = 0, bytes = (double)record_bytes * (double)n_records;
        const int turns = 8;
        for (int t = 0; t < turns; t++) {
            int64_t first = n_records * t / turns, last = n_records * (t + 1) / turns;
            raw_seconds += write_raw(par, fd, raw, record, record_bytes, first, last, err);
            store_seconds += write_store(par, s, record, first, last, err);
        }
        rates->raw = rate(par, bytes, raw_seconds);
        rates->store = rate(par, bytes, store_seconds);
        par_agree(par, "measuring the store", err);
    }
    store_close(&s, &closing);
done:
    if (fd >= 0) close(fd);
    sweep(par, path);
    free(raw), free(record);
    return err->code;
}

/* ---- whether at all ---------------------------------------------------------------------------------------------- */

enum { per_rank = 4, n_values = 1000 };

static void fill(float *values, int64_t slot) {
    for (int i = 0; i < n_values; i++) values[i] = (float)(slot * n_values + i);
}

/* Every rank reads what the next one wrote. */
static void compare(const struct par *par, struct store *s, const char *path, struct pva_error *err) {
    float has[n_values], expected[n_values];
    for (int64_t i = (par->rank + 1) % par->size; i < store_n_slots(s) && !err->code; i += par->size) {
        fill(expected, i);
        int32_t owner = -1;
        if (!store_read(s, i, 0, has, err) && !store_read(s, i, 1, &owner, err) &&
            (memcmp(has, expected, sizeof has) || owner != i % par->size))
            pva_fail(err, PVA_IO,
                     "%s: what rank %lld wrote reads back differently on %s; this file system cannot hold a shared file", path,
                     (long long)(i % par->size), par->host);
    }
}

int store_selftest(const struct par *par, const char *dir, struct store_rates *rates, struct pva_error *err) {
    char path[4096];
    *rates = (struct store_rates){0, 0};
    if (scratch_name(par, dir, "store-test", path, sizeof path, err)) return err->code;
    const struct store_field fields[] = {{"values", STORE_F32, 0, 1, {{"value", n_values}}, NULL, NULL},
                                         {"owner", STORE_I32, 0, 0, {{0}}, NULL, NULL}};
    const struct store_schema schema = {
        .name = "pva-test", .version = 1, .slot = {"item", (int64_t)per_rank * par->size}, .fields = fields, .n_fields = 2};
    struct store *s = NULL;
    int64_t *damaged = NULL, n_damaged = 0;
    struct pva_error closing = {0};
    if (store_open(par, path, &schema, STORE_FRESH, &s, err)) goto done; /* all ranks */
    for (int64_t i = par->rank; !err->code && i < store_n_slots(s); i += par->size) {
        float values[n_values];
        int32_t owner = par->rank;
        fill(values, i);
        if (!store_write(s, i, 0, values, err) && !store_write(s, i, 1, &owner, err)) store_commit(s, i, STORE_DONE, err);
    }
    store_close(&s, err);
    if (!par_agree(par, "testing the store", err)) {
        if (!store_open_read(path, &schema, &s, err)) compare(par, s, path, err);
        if (!err->code && !store_check(s, &damaged, &n_damaged, err) && n_damaged)
            pva_fail(err, PVA_IO, "%s: %lld of %lld checksums do not hold; this file system cannot hold a shared file", path,
                     (long long)n_damaged, (long long)schema.slot.size);
        free(damaged);
        store_close(&s, &closing);
        par_agree(par, "testing the store", err);
    }
done:
    sweep(par, path);
    return err->code ? err->code : store_measure(par, dir, 245760, 200, rates, err);
}
