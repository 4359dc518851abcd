/* Writing one safetensors file, front to back: header, then the tensors in the order of their declaration. */
#include "dtype.h"
#include "input_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The data section starts at a multiple of this, so that vector loads from a mapped file are aligned. The format allows spaces at
 * the end of the header. */
enum { ALIGNMENT = 64, BUFFER = 1 << 16 };

struct pva_tensorfile_writer {
    char *path, *partial;
    int fd;
    json_t *header;
    size_t declared, appended; /* bytes of data */
    int header_written;
    unsigned char buffer[BUFFER]; /* gathers small pieces; large ones go straight to the file */
    size_t n_buffered;
};

void pva_tensorfile_discard(struct pva_tensorfile_writer **w) {
    if (!*w) return;
    if ((*w)->fd >= 0) {
        close((*w)->fd);
        unlink((*w)->partial);
    }
    json_decref((*w)->header);
    free((*w)->path);
    free((*w)->partial);
    free(*w);
    *w = NULL;
}

int pva_tensorfile_create(const char *path, struct pva_tensorfile_writer **out, struct pva_error *err) {
    *out = NULL;
    struct pva_tensorfile_writer *w = calloc(1, sizeof *w);
    if (!w) return pva_fail(err, PVA_IO, "%s: out of memory", path);
    w->fd = -1;
    w->path = strdup(path);
    w->header = json_object();
    if (asprintf(&w->partial, "%s.partial", path) < 0) w->partial = NULL;
    if (!w->path || !w->header || !w->partial) {
        pva_fail(err, PVA_IO, "%s: out of memory", path);
    } else {
        w->fd = open(w->partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (w->fd < 0) pva_fail(err, PVA_IO, "%s: cannot create: %s", w->partial, strerror(errno));
    }
    if (err->code) pva_tensorfile_discard(&w);
    *out = w;
    return err->code;
}

int pva_tensorfile_metadata_add(struct pva_tensorfile_writer *w, const char *key, const char *value, struct pva_error *err) {
    if (w->header_written) return pva_fail(err, PVA_BUG, "%s: metadata %s added after the first data", w->path, key);
    json_t *metadata = json_object_get(w->header, "__metadata__");
    if (!metadata) {
        metadata = json_object();
        if (json_object_set_new(w->header, "__metadata__", metadata)) return pva_fail(err, PVA_IO, "%s: out of memory", w->path);
    }
    if (json_object_set_new(metadata, key, json_string(value)))
        return pva_fail(err, PVA_BUG, "%s: metadata %s is not valid UTF-8", w->path, key);
    return 0;
}

int pva_tensorfile_declare(struct pva_tensorfile_writer *w, const char *name, enum pva_dtype dtype, int n_dims,
                           const int64_t *shape, struct pva_error *err) {
    int64_t n_elements;
    size_t bytes, end;
    if (w->header_written) return pva_fail(err, PVA_BUG, "%s: tensor %s declared after the first data", w->path, name);
    if (!name[0] || !strcmp(name, "__metadata__") || json_object_get(w->header, name))
        return pva_fail(err, PVA_BUG, "%s: tensor name \"%s\" is reserved or used twice", w->path, name);
    if (n_dims < 0 || n_dims > PVA_MAX_DIMS || !dtype_extent(dtype, n_dims, shape, &n_elements, &bytes) ||
        __builtin_add_overflow(w->declared, bytes, &end) || end > INT64_MAX / 2)
        return pva_fail(err, PVA_BUG, "%s: tensor %s: its shape is too large", w->path, name);

    json_t *lengths = json_array(), *entry = NULL;
    int failed = !lengths;
    for (int d = 0; d < n_dims; d++) failed |= json_array_append_new(lengths, json_integer(shape[d]));
    if (!failed)
        entry = json_pack("{s:s, s:O, s:[I, I]}", "dtype", pva_dtype_name(dtype), "shape", lengths, "data_offsets",
                          (json_int_t)w->declared, (json_int_t)end);
    json_decref(lengths);
    if (!entry || json_object_set_new(w->header, name, entry))
        return pva_fail(err, PVA_IO, "%s: cannot declare tensor %s", w->path, name);
    w->declared = end;
    return 0;
}

static int write_all(struct pva_tensorfile_writer *w, const void *data, size_t bytes, struct pva_error *err) {
    for (size_t done = 0; done < bytes;) {
        ssize_t n = write(w->fd, (const char *)data + done, bytes - done);
        if (n >= 0) done += (size_t)n;
        else if (errno != EINTR) return pva_fail(err, PVA_IO, "%s: cannot write: %s", w->partial, strerror(errno));
    }
    return 0;
}

static int flush(struct pva_tensorfile_writer *w, struct pva_error *err) {
    size_t n = w->n_buffered;
    w->n_buffered = 0;
    return write_all(w, w->buffer, n, err);
}

static int write_header(struct pva_tensorfile_writer *w, struct pva_error *err) {
    char *text = json_dumps(w->header, JSON_COMPACT);
    if (!text) return pva_fail(err, PVA_IO, "%s: out of memory for the header", w->partial);
    size_t length = strlen(text), padded = (8 + length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT - 8;
    unsigned char prefix[8], spaces[ALIGNMENT];
    for (int i = 0; i < 8; i++) prefix[i] = (unsigned char)((uint64_t)padded >> 8 * i);
    memset(spaces, ' ', sizeof spaces);
    w->header_written = 1;
    /* A full disk is better found now than after minutes of writing. File systems without this call go on without. */
    if (fallocate(w->fd, 0, 0, (off_t)(8 + padded + w->declared)) && (errno == ENOSPC || errno == EFBIG || errno == EDQUOT))
        pva_fail(err, PVA_IO, "%s: no room for %zu bytes: %s", w->partial, 8 + padded + w->declared, strerror(errno));
    else if (!write_all(w, prefix, sizeof prefix, err) && !write_all(w, text, length, err))
        write_all(w, spaces, padded - length, err);
    free(text);
    return err->code;
}

int pva_tensorfile_append(struct pva_tensorfile_writer *w, const void *data, size_t bytes, struct pva_error *err) {
    if (bytes > w->declared - w->appended)
        return pva_fail(err, PVA_BUG, "%s: %zu bytes of data after %zu, but only %zu were declared", w->path, bytes, w->appended,
                        w->declared);
    if (!w->header_written && write_header(w, err)) return err->code;
    w->appended += bytes;
    if (bytes > BUFFER - w->n_buffered && flush(w, err)) return err->code;
    if (bytes >= BUFFER) {
        if (write_all(w, data, bytes, err)) return err->code;
        (void)sync_file_range(w->fd, 0, 0, SYNC_FILE_RANGE_WRITE); /* start now what finish would wait for; advice only */
        return 0;
    }
    if (bytes) memcpy(w->buffer + w->n_buffered, data, bytes);
    w->n_buffered += bytes;
    return 0;
}

int pva_tensorfile_finish(struct pva_tensorfile_writer **out, struct pva_error *err) {
    struct pva_tensorfile_writer *w = *out;
    if (w->appended != w->declared)
        pva_fail(err, PVA_BUG, "%s: %zu bytes of data, but %zu were declared", w->path, w->appended, w->declared);
    if (!err->code && !w->header_written) write_header(w, err);
    if (!err->code) flush(w, err);
    if (!err->code) {
        int fd = w->fd;
        w->fd = -1; /* publish closes it, and removes the partial file when it fails */
        file_publish(fd, w->partial, w->path, err);
    }
    pva_tensorfile_discard(out);
    return err->code;
}
