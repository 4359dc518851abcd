/* A disk that fails on request, for tests: preloaded into a program, it makes chosen calls on chosen files return chosen errors.
 *
 *     STORE_FAULT="CALL:ERRNO:RANK:AFTER[,...]"    CALL: pwrite fallocate fsync fdatasync link lock range copy; ERRNO: a number;
 *                                                  RANK: -1 for all; AFTER: successful calls first
 *     STORE_FAULT_FILE=PART                        only files whose path contains this
 *     STORE_FAULT_NAP=MICROSECONDS                 each pwrite to them takes so much longer */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static struct fault {
    char call[16];
    int error, rank, after;
} faults[8];
static int n_faults = -1;

static void load(void) {
    const char *p = getenv("STORE_FAULT");
    n_faults = 0;
    while (p && *p && n_faults < 8) {
        struct fault *f = &faults[n_faults];
        if (sscanf(p, "%15[a-z]:%d:%d:%d", f->call, &f->error, &f->rank, &f->after) == 4) n_faults++;
        p = strchr(p, ',');
        if (p) p++;
    }
}

static int on_our_file(int fd) {
    const char *part = getenv("STORE_FAULT_FILE");
    char name[64], path[4096] = "";
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    return part && readlink(name, path, sizeof path - 1) > 0 && strstr(path, part) != NULL;
}

/* 1, with errno set, when this call is to fail. fd -1: the call has no descriptor of the file. */
static int fails(const char *call, int fd) {
    if (n_faults < 0) load();
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    for (int i = 0; i < n_faults; i++) {
        struct fault *f = &faults[i];
        if (strcmp(f->call, call) || (f->rank >= 0 && f->rank != (rank ? atoi(rank) : 0)) || (fd >= 0 && !on_our_file(fd)))
            continue;
        if (f->after-- > 0) continue;
        errno = f->error;
        return 1;
    }
    return 0;
}

#define REAL(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

static void nap(int fd) {
    const char *microseconds = getenv("STORE_FAULT_NAP");
    if (microseconds && on_our_file(fd)) usleep((useconds_t)atoi(microseconds));
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at) {
    nap(fd);
    return fails("pwrite", fd) ? -1 : REAL(ssize_t, "pwrite", int, const void *, size_t, off_t)(fd, p, n, at);
}
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at) {
    return fails("pwrite", fd) ? -1 : REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t)(fd, p, n, at);
}
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at) {
    return fails("pwrite", fd) ? -1 : REAL(ssize_t, "pwritev", int, const struct iovec *, int, off_t)(fd, v, n, at);
}
ssize_t write(int fd, const void *p, size_t n) {
    return fails("pwrite", fd) ? -1 : REAL(ssize_t, "write", int, const void *, size_t)(fd, p, n);
}
int fallocate(int fd, int mode, off_t at, off_t n) {
    return fails("fallocate", fd) ? -1 : REAL(int, "fallocate", int, int, off_t, off_t)(fd, mode, at, n);
}
int fsync(int fd) { return fails("fsync", fd) ? -1 : REAL(int, "fsync", int)(fd); }
int fdatasync(int fd) { return fails("fdatasync", fd) ? -1 : REAL(int, "fdatasync", int)(fd); }
int link(const char *a, const char *b) { return fails("link", -1) ? -1 : REAL(int, "link", const char *, const char *)(a, b); }
ssize_t copy_file_range(int in, loff_t *i, int out, loff_t *o, size_t n, unsigned flags) {
    return fails("copy", out)
               ? -1
               : REAL(ssize_t, "copy_file_range", int, loff_t *, int, loff_t *, size_t, unsigned)(in, i, out, o, n, flags);
}
int fcntl(int fd, int cmd, ...) {
    va_list ap;
    va_start(ap, cmd);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    if ((cmd == F_OFD_SETLK && fails("lock", fd)) || (cmd == F_OFD_SETLKW && fails("range", fd))) return -1;
    return REAL(int, "fcntl", int, int, ...)(fd, cmd, arg);
}
