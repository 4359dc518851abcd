#include "input_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const char *file_base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

char *file_join(const char *directory, const char *name) {
    char *path = NULL;
    return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

int file_is_directory(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

/* Missing or forbidden files are the user's input; everything else (EIO, EMFILE) may go away by itself. */
static int open_failed(const char *path, struct pva_error *err) {
    int input =
        errno == ENOENT || errno == ENOTDIR || errno == EACCES || errno == ELOOP || errno == ENAMETOOLONG || errno == EISDIR;
    return pva_fail(err, input ? PVA_INPUT : PVA_IO, "%s: cannot open: %s", path, strerror(errno));
}

/* O_NONBLOCK: opening a named pipe that nobody writes to must not hang before fstat can refuse it. */
static int open_regular(const char *path, int *fd, size_t *size, struct pva_error *err) {
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return open_failed(path, err);
    if (fstat(*fd, &st)) {
        pva_fail(err, PVA_IO, "%s: cannot stat: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        pva_fail(err, PVA_INPUT, "%s: is %s, expected a regular file", path,
                 S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
    } else if (st.st_size == 0) {
        pva_fail(err, PVA_INPUT, "%s: is empty; was its download or copy interrupted?", path);
    } else if ((uintmax_t)st.st_size > SIZE_MAX / 2) {
        pva_fail(err, PVA_INPUT, "%s: has %jd bytes, too many to map", path, (intmax_t)st.st_size);
    }
    if (err->code) {
        close(*fd);
        *fd = -1;
        return err->code;
    }
    *size = (size_t)st.st_size;
    return 0;
}

int file_map(const char *path, const unsigned char **map, size_t *size, struct pva_error *err) {
    int fd;
    if (open_regular(path, &fd, size, err)) return err->code;
    void *p = mmap(NULL, *size, PROT_READ, MAP_SHARED, fd, 0);
    int saved = errno;
    close(fd);
    if (p == MAP_FAILED) return pva_fail(err, PVA_IO, "%s: cannot map %zu bytes: %s", path, *size, strerror(saved));
    *map = p;
    return 0;
}

int file_read(const char *path, size_t max_bytes, char **bytes, size_t *size, struct pva_error *err) {
    int fd;
    size_t n = 0, done = 0;
    *bytes = NULL;
    if (open_regular(path, &fd, &n, err)) return err->code;
    if (n > max_bytes) {
        close(fd);
        return pva_fail(err, PVA_INPUT, "%s: has %zu bytes, expected at most %zu", path, n, max_bytes);
    }
    char *buffer = malloc(n + 1);
    if (!buffer) {
        close(fd);
        return pva_fail(err, PVA_IO, "%s: out of memory for %zu bytes", path, n);
    }
    while (done < n) {
        ssize_t got = read(fd, buffer + done, n - done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        done += (size_t)got;
    }
    int saved = errno;
    close(fd);
    if (done < n) {
        free(buffer);
        return pva_fail(err, PVA_IO, "%s: read %zu of %zu bytes: %s", path, done, n, strerror(saved));
    }
    buffer[n] = 0;
    *bytes = buffer;
    *size = n;
    return 0;
}

int file_read_json(const char *path, size_t max_bytes, json_t **out, struct pva_error *err) {
    char *bytes;
    size_t size;
    json_error_t why;
    *out = NULL;
    if (file_read(path, max_bytes, &bytes, &size, err)) return err->code;
    json_t *root = json_loadb(bytes, size, JSON_REJECT_DUPLICATES, &why);
    free(bytes);
    if (!root)
        return pva_fail(err, PVA_INPUT, "%s: line %d, column %d: not valid JSON: %s", path, why.line, why.column, why.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return pva_fail(err, PVA_INPUT, "%s: expected a JSON object {...}", path);
    }
    *out = root;
    return 0;
}

static void sync_directory_of(const char *path) {
    char *copy = strdup(path);
    if (!copy) return;
    char *slash = strrchr(copy, '/');
    if (slash) slash[slash == copy ? 1 : 0] = 0;
    int fd = open(slash ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    if (fd < 0) return;
    (void)fsync(fd); /* some file systems refuse it; the rename itself has been reported as done */
    close(fd);
}

int file_publish(int fd, const char *partial, const char *path, struct pva_error *err) {
    if (fsync(fd)) pva_fail(err, PVA_IO, "%s: cannot sync: %s", partial, strerror(errno));
    if (close(fd)) pva_fail(err, PVA_IO, "%s: cannot close: %s", partial, strerror(errno));
    if (!err->code && rename(partial, path))
        pva_fail(err, PVA_IO, "%s: cannot rename from %s: %s", path, partial, strerror(errno));
    if (err->code) {
        unlink(partial);
        return err->code;
    }
    sync_directory_of(path);
    return 0;
}

int file_write_bytes(const char *path, const void *bytes, size_t size, struct pva_error *err) {
    char *partial = NULL;
    if (asprintf(&partial, "%s.partial", path) < 0) return pva_fail(err, PVA_IO, "%s: out of memory", path);
    int fd = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) {
        pva_fail(err, PVA_IO, "%s: cannot create: %s", partial, strerror(errno));
        free(partial);
        return err->code;
    }
    for (size_t done = 0; done < size && !err->code;) {
        ssize_t n = write(fd, (const char *)bytes + done, size - done);
        if (n >= 0) done += (size_t)n;
        else if (errno != EINTR) pva_fail(err, PVA_IO, "%s: cannot write: %s", partial, strerror(errno));
    }
    if (err->code) {
        close(fd);
        unlink(partial);
    } else {
        file_publish(fd, partial, path, err);
    }
    free(partial);
    return err->code;
}

int file_write_json(const char *path, const json_t *value, struct pva_error *err) {
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    if (!text) return pva_fail(err, PVA_IO, "%s: out of memory", path);
    size_t n = strlen(text);
    text[n] = '\n'; /* the terminator's place: the text is written by length */
    file_write_bytes(path, text, n + 1, err);
    free(text);
    return err->code;
}
