#include "run.h"

#include "stop.h"

#include "pva/hash.h"
#include "pva/log.h"
#include "pva/tensorfile.h"

#include <errno.h>
#include <fcntl.h>
#include <gsl/gsl_version.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

const char *run_path(const struct run *run, const char *name, char *buffer) {
    snprintf(buffer, 4096, "%s/%s", run->directory, name);
    return buffer;
}

static int make_directories(const struct run *run, struct pva_error *err) {
    static const char *const names[] = {"", "checkpoints", "logs", "exports"};
    char path[4096];
    /* Parents too: a run usually lies in a directory that does not exist yet. */
    snprintf(path, sizeof path, "%s", run->directory);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0777);
        *slash = '/';
    }
    for (int i = 0; i < 4; i++)
        if (mkdir(run_path(run, names[i], path), 0777) && errno != EEXIST) return pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    return PVA_OK;
}

enum { LOCK_PATIENCE = 15 }; /* seconds */

static int take_lock(const struct par *p, struct run *run, struct pva_error *err) {
    char path[4096], owner[128] = "";
    run->lock = open(run_path(run, ".lock", path), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (run->lock < 0) return pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    /* A job whose launcher was killed may live for some seconds more. */
    int taken = fcntl(run->lock, F_SETLK, &whole);
    const struct timespec nap = {0, 100000000};
    for (int i = 0; i < LOCK_PATIENCE * 10 && taken && (errno == EACCES || errno == EAGAIN) && !stop_requested(); i++) {
        nanosleep(&nap, NULL);
        taken = fcntl(run->lock, F_SETLK, &whole);
    }
    if (taken) {
        if (errno != EACCES && errno != EAGAIN) {
            pva_log(PVA_LOG_WARNING, "%s: this file system has no locks: be sure that no other job writes this run", path);
            return PVA_OK;
        }
        ssize_t n = read(run->lock, owner, sizeof owner - 1);
        owner[n > 0 ? n : 0] = 0;
        return pva_fail(err, PVA_REFUSED, "%s is being written by another job (%s); wait for it, or stop it", run->directory, owner);
    }
    int n = snprintf(owner, sizeof owner, "host %s, process %ld", p->host, (long)getpid());
    if (ftruncate(run->lock, 0) || pwrite(run->lock, owner, (size_t)n, 0) != n) return pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    return PVA_OK;
}

int run_open(const struct par *p, const char *directory, const char *phase, struct run *run, struct pva_error *err) {
    memset(run, 0, sizeof *run);
    run->lock = -1;
    if (strlen(directory) >= sizeof run->directory) pva_fail(err, PVA_USAGE, "--run: the name is too long");
    snprintf(run->directory, sizeof run->directory, "%s", directory);
    if (!err->code && p->rank == 0 && !make_directories(run, err)) take_lock(p, run, err);
    if (par_agree(p, "open run", err)) return err->code;
    char name[128], path[4096];
    snprintf(name, sizeof name, "logs/%s-rank%d.log", phase, p->rank);
    pva_log_file(run_path(run, name, path), p->rank, err);
    return par_agree(p, "open log", err);
}

void run_close(struct run *run) {
    struct pva_error ignored = {0};
    pva_log_file(NULL, 0, &ignored);
    if (run->lock > 0) close(run->lock);
    run->lock = -1;
}

int run_publish(const char *path, const char *text, size_t n_bytes, struct pva_error *err) {
    char partial[4200];
    snprintf(partial, sizeof partial, "%s.partial", path);
    int fd = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return pva_fail(err, PVA_IO, "%s: %s", partial, strerror(errno));
    size_t done = 0;
    while (done < n_bytes) {
        ssize_t n = write(fd, text + done, n_bytes - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break;
        done += (size_t)n;
    }
    if (done < n_bytes || fsync(fd)) pva_fail(err, PVA_IO, "%s: %s", partial, strerror(errno));
    close(fd);
    if (!err->code && rename(partial, path)) pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    if (err->code) unlink(partial);
    return err->code;
}

int run_write_config(const struct run *run, const char *phase, const struct pva_options *o, struct pva_error *err) {
    char name[128], path[4096], *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f) return pva_fail(err, PVA_IO, "out of memory");
    pva_options_print_config(o, f);
    fclose(f);
    snprintf(name, sizeof name, "config-%s.yaml", phase);
    run_publish(run_path(run, name, path), text, n, err);
    free(text);
    return err->code;
}

static json_t *versions(void) {
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING], hdf5[32];
    int n;
    unsigned major, minor, release;
    MPI_Get_library_version(mpi, &n);
    mpi[strcspn(mpi, ",\n")] = 0;
    H5get_libversion(&major, &minor, &release);
    snprintf(hdf5, sizeof hdf5, "%u.%u.%u", major, minor, release);
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "pva-mpi", PVA_VERSION, "revision", PVA_REVISION, "compiler", __VERSION__, "mpi", mpi, "hdf5", hdf5,
                     "gsl", GSL_VERSION);
}

static json_t *slurm_variables(void) {
    json_t *o = json_object();
    for (char **e = environ; *e; e++) {
        char name[128];
        const char *equals = strchr(*e, '=');
        if (strncmp(*e, "SLURM_", 6) || !equals || equals - *e >= (long)sizeof name) continue;
        memcpy(name, *e, (size_t)(equals - *e));
        name[equals - *e] = 0;
        if (!strcmp(name, "SLURM_JWT")) continue; /* a credential */
        json_object_set_new(o, name, json_string(equals + 1));
    }
    return o;
}

int run_write_manifest(const struct run *run, const struct par *p, const char *phase, const char *hosts, json_t *facts, struct pva_error *err) {
    char path[4096], when[32];
    time_t t = time(NULL);
    struct tm utc;
    json_error_t why;
    run_path(run, "manifest.json", path);
    json_t *manifest = access(path, F_OK) ? json_object() : json_load_file(path, 0, &why);
    if (!json_is_object(manifest)) {
        json_decref(manifest);
        json_decref(facts);
        return pva_fail(err, PVA_INPUT, "%s:%d: %s; move it away and run again", path, why.line, why.text);
    }
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &utc));
    json_t *start = json_pack("{s:s,s:s,s:i,s:s,s:o,s:o}", "phase", phase, "time", when, "ranks", p->size, "hosts", hosts, "versions", versions(), "slurm",
                              slurm_variables());
    json_t *starts = json_object_get(manifest, "starts");
    if (!json_is_array(starts)) {
        starts = json_array();
        json_object_set_new(manifest, "starts", starts);
    }
    json_array_append_new(starts, start);
    json_object_set_new(manifest, phase, facts);
    char *text = json_dumps(manifest, JSON_INDENT(2));
    if (text) run_publish(path, text, strlen(text), err);
    else pva_fail(err, PVA_IO, "out of memory");
    free(text);
    json_decref(manifest);
    return err->code;
}

void run_list_hosts(const struct par *p, char *out, size_t size) {
    char *all = p->rank == 0 ? calloc((size_t)p->size, sizeof p->host) : NULL;
    if (p->rank == 0) PVA_ASSERT(all);
    PAR_CHECK(p, MPI_Gather(p->host, sizeof p->host, MPI_CHAR, all, sizeof p->host, MPI_CHAR, 0, p->comm));
    out[0] = 0;
    for (int i = 0; all && i < p->size; i++) {
        int first = 1, count = 0;
        for (int j = 0; j < p->size; j++)
            if (!strcmp(all + (size_t)i * sizeof p->host, all + (size_t)j * sizeof p->host)) {
                if (j < i) first = 0;
                count++;
            }
        size_t used = strlen(out);
        if (first) snprintf(out + used, size - used, "%s%s:%d", used ? " " : "", all + (size_t)i * sizeof p->host, count);
    }
    free(all);
}

int run_model_fingerprint(const char *model_directory, char out[65], struct pva_error *err) {
    enum { SAMPLE = 65536, SAMPLES = 4 };
    struct pva_tensorfile *file = NULL;
    struct pva_sha256 hash;
    char path[4096], config[PVA_SHA256_HEX];
    uint8_t digest[PVA_SHA256_BYTES];
    snprintf(path, sizeof path, "%s/config.json", model_directory);
    if (pva_sha256_file(path, config, NULL, err) || pva_tensorfile_open(model_directory, &file, err)) return err->code;
    pva_sha256_start(&hash);
    pva_sha256_add(&hash, config, sizeof config);
    for (size_t i = 0; i < pva_tensorfile_count(file); i++) {
        const struct pva_tensor_view *t = pva_tensorfile_at(file, i);
        pva_sha256_add(&hash, t->name, strlen(t->name) + 1);
        pva_sha256_add(&hash, pva_dtype_name(t->dtype), 3);
        pva_sha256_add(&hash, t->shape, sizeof t->shape[0] * (size_t)t->n_dims);
        for (size_t s = 0; s < SAMPLES; s++) {
            size_t at = t->bytes / SAMPLES * s, n = t->bytes - at < SAMPLE ? t->bytes - at : SAMPLE;
            pva_sha256_add(&hash, (const char *)t->data + at, n);
        }
    }
    pva_sha256_finish(&hash, digest);
    pva_sha256_hex(digest, out);
    pva_tensorfile_close(&file);
    return PVA_OK;
}
