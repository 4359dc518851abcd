/* Reading safetensors. The header is the only part of a file that is touched here: opening costs the parsing of some kilobytes of
 * JSON per shard, whatever the size of the data. */
#include "pva/tensorfile.h"

#include "dtype.h"
#include "input_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MAX_HEADER ((size_t)100000000) /* the format's own limit */
#define MAX_SHARDS 10000

struct shard {
    char *path;
    const char *name; /* base name, points into path */
    const unsigned char *map;
    size_t size;
    json_t *header; /* owns the tensor names and the metadata */
};

struct pva_tensorfile {
    struct shard *shards;
    size_t n_shards;
    struct pva_tensor_view *views; /* sorted by name once everything is open */
    size_t n_views, capacity;
    size_t bytes;
};

/* ---- one shard ---- */

static int read_shape(const char *file, const json_t *shape, struct pva_tensor_view *view, struct pva_error *err) {
    const char *name = view->name;
    if (!json_is_array(shape)) return pva_fail(err, PVA_INPUT, "%s: tensor %.200s has no \"shape\" array", file, name);
    size_t n_dims = json_array_size(shape);
    if (n_dims > PVA_MAX_DIMS)
        return pva_fail(err, PVA_INPUT, "%s: tensor %.200s has %zu dimensions, expected at most %d", file, name, n_dims,
                        PVA_MAX_DIMS);
    view->n_dims = (int)n_dims;
    for (size_t d = 0; d < n_dims; d++) {
        const json_t *length = json_array_get(shape, d);
        if (!json_is_integer(length) || json_integer_value(length) < 0)
            return pva_fail(err, PVA_INPUT, "%s: tensor %.200s: length %zu of its shape is not a whole number >= 0", file, name,
                            d);
        view->shape[d] = json_integer_value(length);
    }
    if (!dtype_extent(view->dtype, view->n_dims, view->shape, &view->n_elements, &view->bytes))
        return pva_fail(err, PVA_INPUT, "%s: tensor %.200s: its shape has more elements than a computer can hold", file, name);
    return 0;
}

/* The view's data pointer is offset by the start of the data section; ranges are compared with each other afterwards. */
static int read_entry(const struct shard *shard, size_t data_start, const char *name, const json_t *entry,
                      struct pva_tensor_view *view, struct pva_error *err) {
    memset(view, 0, sizeof *view);
    view->name = name;
    view->file = shard->name;
    if (!name[0]) return pva_fail(err, PVA_INPUT, "%s: a tensor has an empty name", shard->path);
    if (!json_is_object(entry))
        return pva_fail(err, PVA_INPUT, "%s: tensor %.200s: expected {dtype, shape, data_offsets}", shard->path, name);

    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype) return pva_fail(err, PVA_INPUT, "%s: tensor %.200s has no \"dtype\"", shard->path, name);
    if (!dtype_parse(dtype, &view->dtype))
        return pva_fail(err, PVA_INPUT, "%s: tensor %.200s has dtype %.40s, expected F32, BF16, F16, F64, I8-I64, U8-U64 or BOOL",
                        shard->path, name, dtype);
    if (read_shape(shard->path, json_object_get(entry, "shape"), view, err)) return err->code;

    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return pva_fail(err, PVA_INPUT, "%s: tensor %.200s: \"data_offsets\" is not [begin, end)", shard->path, name);
    json_int_t b = json_integer_value(begin), e = json_integer_value(end);
    size_t available = shard->size - data_start;
    if (b < 0 || e < b)
        return pva_fail(err, PVA_INPUT,
                        "%s: tensor %.200s: data_offsets [%" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT ") are not a range",
                        shard->path, name, b, e);
    if ((uint64_t)e > available)
        return pva_fail(err, PVA_INPUT,
                        "%s: tensor %.200s ends at byte %" JSON_INTEGER_FORMAT " of the data, but the file holds %zu: "
                        "it is truncated; download it again",
                        shard->path, name, e, available);
    if ((uint64_t)(e - b) != view->bytes)
        return pva_fail(err, PVA_INPUT,
                        "%s: tensor %.200s takes %" JSON_INTEGER_FORMAT " bytes, expected %zu for its shape and dtype %s",
                        shard->path, name, e - b, view->bytes, dtype);
    view->data = shard->map + data_start + (size_t)b;
    return 0;
}

static int by_position(const void *a, const void *b) {
    const struct pva_tensor_view *x = a, *y = b;
    const unsigned char *p = x->data, *q = y->data;
    if (p != q) return p < q ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1; /* empty tensors sit before the one that starts there */
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct pva_tensor_view *)a)->name, ((const struct pva_tensor_view *)b)->name);
}

/* The data section is exactly the tensors one after another: a hole or an overlap means that header and data do not belong
 * together. */
static int check_layout(const struct shard *shard, size_t data_start, struct pva_tensor_view *views, size_t n,
                        struct pva_error *err) {
    const unsigned char *data = shard->map + data_start, *expected = data;
    const char *before = "the header";
    if (n) qsort(views, n, sizeof *views, by_position);
    for (size_t i = 0; i < n; i++) {
        const unsigned char *p = views[i].data;
        if (p < expected)
            return pva_fail(err, PVA_INPUT, "%s: tensors %.150s and %.150s overlap at byte %td of the data", shard->path, before,
                            views[i].name, p - data);
        if (p > expected)
            return pva_fail(err, PVA_INPUT, "%s: gap of %td bytes between %.150s and tensor %.150s", shard->path, p - expected,
                            before, views[i].name);
        expected = p + views[i].bytes;
        before = views[i].name;
    }
    size_t trailing = (size_t)(shard->map + shard->size - expected);
    if (trailing) return pva_fail(err, PVA_INPUT, "%s: %zu bytes after the last tensor belong to nothing", shard->path, trailing);
    return 0;
}

static int read_tensors(struct pva_tensorfile *file, struct shard *shard, size_t data_start, struct pva_error *err) {
    size_t first = file->n_views, n = json_object_size(shard->header);
    const char *key;
    json_t *value;
    if (first + n > file->capacity) {
        size_t capacity = first + n + file->capacity;
        struct pva_tensor_view *views = realloc(file->views, capacity * sizeof *views);
        if (!views) return pva_fail(err, PVA_IO, "%s: out of memory for %zu tensors", shard->path, capacity);
        file->views = views;
        file->capacity = capacity;
    }
    json_object_foreach(shard->header, key, value) {
        if (!strcmp(key, "__metadata__")) {
            const char *k;
            json_t *v;
            if (!json_is_object(value))
                return pva_fail(err, PVA_INPUT, "%s: __metadata__ is not an object of texts", shard->path);
            json_object_foreach(value, k, v) {
                if (!json_is_string(v))
                    return pva_fail(err, PVA_INPUT, "%s: __metadata__: the value of %.200s is not a text", shard->path, k);
            }
            continue;
        }
        if (read_entry(shard, data_start, key, value, &file->views[file->n_views], err)) return err->code;
        file->bytes += file->views[file->n_views].bytes; /* each is at most half the address space and all lie in mapped files */
        file->n_views++;
    }
    n = file->n_views - first;
    return check_layout(shard, data_start, n ? file->views + first : NULL, n, err);
}

static int open_shard(struct pva_tensorfile *file, const char *path, struct pva_error *err) {
    struct shard *shard = &file->shards[file->n_shards];
    uint64_t length = 0;
    json_error_t why;
    memset(shard, 0, sizeof *shard);
    shard->path = strdup(path);
    if (!shard->path) return pva_fail(err, PVA_IO, "%s: out of memory", path);
    file->n_shards++; /* from here on, close releases it */
    shard->name = file_base_name(shard->path);
    if (file_map(path, &shard->map, &shard->size, err)) return err->code;

    if (shard->size < 8)
        return pva_fail(err, PVA_INPUT, "%s: has %zu bytes, too short for a safetensors file", path, shard->size);
    for (int i = 0; i < 8; i++) length |= (uint64_t)shard->map[i] << 8 * i;
    if (length > MAX_HEADER)
        return pva_fail(err, PVA_INPUT, "%s: header length is %" PRIu64 ", expected at most %zu: not a safetensors file", path,
                        length, MAX_HEADER);
    if (length > shard->size - 8)
        return pva_fail(err, PVA_INPUT, "%s: header takes %" PRIu64 " bytes, but only %zu follow: the file is truncated", path,
                        length, shard->size - 8);
    if (length == 0 || shard->map[8] != '{') return pva_fail(err, PVA_INPUT, "%s: byte 8: header does not start with '{'", path);
    shard->header = json_loadb((const char *)shard->map + 8, (size_t)length, JSON_REJECT_DUPLICATES, &why);
    if (!shard->header)
        return pva_fail(err, PVA_INPUT, "%s: byte %d: header is not valid JSON: %s", path, 8 + why.position, why.text);
    return read_tensors(file, shard, 8 + (size_t)length, err);
}

/* ---- index of shards ---- */

/* File names of an index are joined to its directory, so they must stay inside it. */
static int check_shard_name(const char *index, const char *tensor, const json_t *value, struct pva_error *err) {
    const char *name = json_string_value(value);
    if (!name) return pva_fail(err, PVA_INPUT, "%s: weight_map: the file of %.200s is not a text", index, tensor);
    if (!name[0] || name[0] == '.' || strchr(name, '/') || strchr(name, '\\'))
        return pva_fail(err, PVA_INPUT, "%s: weight_map: %.200s is said to be in \"%.150s\", expected a plain file name", index,
                        tensor, name);
    return 0;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Distinct shard names in order; malloc'ed array of texts that belong to the JSON. */
static int list_shards(const char *index, json_t *map, const char ***out, size_t *n_out, struct pva_error *err) {
    const char *key;
    json_t *value;
    size_t n = 0, distinct = 0;
    const char **names = calloc(json_object_size(map), sizeof *names);
    if (!names) return pva_fail(err, PVA_IO, "%s: out of memory", index);
    json_object_foreach(map, key, value) {
        if (check_shard_name(index, key, value, err)) {
            free(names);
            return err->code;
        }
        names[n++] = json_string_value(value);
    }
    qsort(names, n, sizeof *names, by_text);
    for (size_t i = 0; i < n; i++)
        if (!distinct || strcmp(names[distinct - 1], names[i])) names[distinct++] = names[i];
    if (distinct > MAX_SHARDS) {
        free(names);
        return pva_fail(err, PVA_INPUT, "%s: names %zu files, expected at most %d", index, distinct, MAX_SHARDS);
    }
    *out = names;
    *n_out = distinct;
    return 0;
}

/* Index and shards must tell the same story. views are sorted by name here. */
static int check_against_index(const struct pva_tensorfile *file, const char *index, json_t *map, struct pva_error *err) {
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value) {
        const struct pva_tensor_view *view = pva_tensorfile_find(file, key);
        const char *named = json_string_value(value);
        if (!view) return pva_fail(err, PVA_INPUT, "%s: tensor %.200s is missing from %.150s", index, key, named);
        if (strcmp(view->file, named))
            return pva_fail(err, PVA_INPUT, "%s: tensor %.200s is in %.120s, expected it in %.120s", index, key, view->file,
                            named);
    }
    for (size_t i = 0; i < file->n_views; i++)
        if (!json_object_get(map, file->views[i].name))
            return pva_fail(err, PVA_INPUT, "%s: tensor %.200s of %.150s is not listed", index, file->views[i].name,
                            file->views[i].file);
    return 0;
}

static int sort_by_name(struct pva_tensorfile *file, struct pva_error *err) {
    struct pva_tensor_view *v = file->views;
    if (file->n_views) qsort(v, file->n_views, sizeof *v, by_name);
    for (size_t i = 1; i < file->n_views; i++)
        if (!strcmp(v[i - 1].name, v[i].name))
            return pva_fail(err, PVA_INPUT, "%s: tensor %.200s is also in %.150s", v[i - 1].file, v[i].name, v[i].file);
    return 0;
}

static int open_index(struct pva_tensorfile *file, const char *index, struct pva_error *err) {
    json_t *root = NULL, *map;
    const char **names = NULL;
    char *directory = NULL;
    size_t n = 0;
    if (file_read_json(index, MAX_HEADER, &root, err)) return err->code;
    map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || !json_object_size(map)) {
        pva_fail(err, PVA_INPUT, "%s: expected an object \"weight_map\" of tensor: file", index);
        goto done;
    }
    if (list_shards(index, map, &names, &n, err)) goto done;
    directory = strndup(index, (size_t)(file_base_name(index) - index));
    file->shards = calloc(n, sizeof *file->shards);
    if (!directory || !file->shards) {
        pva_fail(err, PVA_IO, "%s: out of memory for %zu shards", index, n);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        char *path = NULL; /* directory ends with its slash, or is empty */
        if (asprintf(&path, "%s%s", directory, names[i]) < 0) {
            pva_fail(err, PVA_IO, "%s: out of memory", index);
            goto done;
        }
        open_shard(file, path, err);
        free(path);
        if (err->code) goto done;
    }
    if (sort_by_name(file, err)) goto done;
    check_against_index(file, index, map, err);
done:
    free(names);
    free(directory);
    json_decref(root);
    return err->code;
}

/* ---- public ---- */

static int ends_with(const char *text, const char *tail) {
    size_t n = strlen(text), m = strlen(tail);
    return n >= m && !strcmp(text + n - m, tail);
}

static int open_any(struct pva_tensorfile *file, const char *path, struct pva_error *err) {
    if (ends_with(path, ".json")) return open_index(file, path, err);
    file->shards = calloc(1, sizeof *file->shards);
    if (!file->shards) return pva_fail(err, PVA_IO, "%s: out of memory", path);
    return open_shard(file, path, err) ? err->code : sort_by_name(file, err);
}

static int open_directory(struct pva_tensorfile *file, const char *directory, struct pva_error *err) {
    char *single = file_join(directory, "model.safetensors"), *index = file_join(directory, "model.safetensors.index.json");
    if (!single || !index) pva_fail(err, PVA_IO, "%s: out of memory", directory);
    else if (file_exists(single)) open_any(file, single, err);
    else if (file_exists(index)) open_any(file, index, err);
    else pva_fail(err, PVA_INPUT, "%s: holds neither model.safetensors nor model.safetensors.index.json", directory);
    free(single);
    free(index);
    return err->code;
}

int pva_tensorfile_open(const char *path, struct pva_tensorfile **out, struct pva_error *err) {
    *out = NULL;
    struct pva_tensorfile *file = calloc(1, sizeof *file);
    if (!file) return pva_fail(err, PVA_IO, "%s: out of memory", path);
    if (file_is_directory(path)) open_directory(file, path, err);
    else open_any(file, path, err);
    if (err->code) pva_tensorfile_close(&file);
    *out = file;
    return err->code;
}

void pva_tensorfile_close(struct pva_tensorfile **file) {
    if (!*file) return;
    for (size_t i = 0; i < (*file)->n_shards; i++) {
        struct shard *shard = &(*file)->shards[i];
        json_decref(shard->header);
        if (shard->map) munmap((void *)(uintptr_t)shard->map, shard->size);
        free(shard->path);
    }
    free((*file)->shards);
    free((*file)->views);
    free(*file);
    *file = NULL;
}

size_t pva_tensorfile_count(const struct pva_tensorfile *file) { return file->n_views; }

size_t pva_tensorfile_bytes(const struct pva_tensorfile *file) { return file->bytes; }

const struct pva_tensor_view *pva_tensorfile_at(const struct pva_tensorfile *file, size_t i) {
    PVA_ASSERT(i < file->n_views);
    return &file->views[i];
}

const struct pva_tensor_view *pva_tensorfile_find(const struct pva_tensorfile *file, const char *name) {
    struct pva_tensor_view key = {.name = name};
    return file->n_views ? bsearch(&key, file->views, file->n_views, sizeof key, by_name) : NULL;
}

const char *pva_tensorfile_metadata(const struct pva_tensorfile *file, const char *key) {
    for (size_t i = 0; i < file->n_shards; i++) {
        const char *value = json_string_value(json_object_get(json_object_get(file->shards[i].header, "__metadata__"), key));
        if (value) return value;
    }
    return NULL;
}

static const char *shape_text(int n_dims, const int64_t *shape, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "[");
    for (int d = 0; d < n_dims && used < size; d++)
        used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, d ? ", " : "", shape[d]);
    if (used < size) snprintf(text + used, size - used, "]");
    return text;
}

int pva_tensorfile_require(const struct pva_tensorfile *file, const char *name, int n_dims, const int64_t *shape,
                           const struct pva_tensor_view **out, struct pva_error *err) {
    char actual[PVA_MAX_DIMS * 22 + 3], expected[PVA_MAX_DIMS * 22 + 3];
    *out = NULL;
    const struct pva_tensor_view *view = pva_tensorfile_find(file, name);
    if (!view)
        return pva_fail(err, PVA_INPUT, "%s: tensor %.200s is missing, expected %s", file->shards[0].path, name,
                        shape_text(n_dims, shape, expected, sizeof expected));
    if (view->n_dims != n_dims || memcmp(view->shape, shape, (size_t)n_dims * sizeof *shape))
        return pva_fail(err, PVA_INPUT, "%s: tensor %.200s is %s, expected %s", view->file, name,
                        shape_text(view->n_dims, view->shape, actual, sizeof actual),
                        shape_text(n_dims, shape, expected, sizeof expected));
    if (view->dtype != PVA_F32 && view->dtype != PVA_BF16 && view->dtype != PVA_F16)
        return pva_fail(err, PVA_INPUT, "%s: tensor %.200s is %s, expected F32, BF16 or F16", view->file, name,
                        pva_dtype_name(view->dtype));
    *out = view;
    return 0;
}
