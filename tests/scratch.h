/* scratch.h - a directory for a test's files, removed when the test leaves. */
#ifndef SCRATCH_H
#define SCRATCH_H

#include "check.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch_directory[200];

static int scratch_unlink(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void scratch_remove(void) { nftw(scratch_directory, scratch_unlink, 16, FTW_DEPTH | FTW_PHYS); }

static void scratch_make(void) {
    const char *base = getenv("TMPDIR");
    snprintf(scratch_directory, sizeof scratch_directory, "%.150s/pva-test-XXXXXX", base && *base ? base : "/tmp");
    CHECK_FATAL(mkdtemp(scratch_directory) != NULL);
    atexit(scratch_remove);
}

/* Path of a file in the scratch directory. The text lives until the eighth next call. */
static const char *scratch(const char *name) {
    static char paths[8][400];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%.150s", scratch_directory, name);
    return path;
}

static inline void scratch_write(const char *name, const void *bytes, size_t size) {
    FILE *f = fopen(scratch(name), "wb");
    CHECK_FATAL(f != NULL);
    CHECK_FATAL(fwrite(bytes, 1, size, f) == size);
    CHECK_FATAL(fclose(f) == 0);
}

/* The whole of any file, followed by a zero byte; NULL when it cannot be read. The caller frees it. */
static inline char *scratch_read(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    char *bytes = NULL;
    size_t n = 0, capacity = 0;
    if (!f) return NULL;
    for (size_t got = 1; got; n += got) {
        if (capacity < n + 65536) CHECK_FATAL((bytes = realloc(bytes, capacity = 2 * capacity + 65536)) != NULL);
        got = fread(bytes + n, 1, capacity - n - 1, f);
    }
    fclose(f);
    bytes[n] = 0;
    *size = n;
    return bytes;
}

/* Path of a file of the source tree, or of the shared data; NULL when the environment does not say where they are. */
static inline const char *scratch_find(const char *variable, const char *name) {
    static char paths[8][600];
    static int next;
    const char *root = getenv(variable);
    char *path = paths[next++ % 8];
    if (!root) return NULL;
    snprintf(path, sizeof paths[0], "%.400s/%.150s", root, name);
    return access(path, R_OK) ? NULL : path;
}
#endif
