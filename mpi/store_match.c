/* Is the open file the one the schema describes, and does it belong to this run? */
#include "store_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- identity: settings and coordinates that must be the same ---------------------------------------------------- */

/* Differences are collected, so that one line names them all (as many as fit). */
struct differences {
    char text[360];
    int n;
};

__attribute__((format(printf, 3, 4))) static void differs(struct differences *d, const char *name, const char *fmt, ...) {
    size_t used = strlen(d->text), room = sizeof d->text - used;
    if (d->n++) used += (size_t)snprintf(d->text + used, room, "%s", room > 40 ? ", " : ""), room = sizeof d->text - used;
    if (room <= 40) return;
    int n = snprintf(d->text + used, room, "%.60s", name);
    if (room <= 200) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->text + used + n, room - (size_t)n, fmt, ap);
    va_end(ap);
}

static int match_attributes(struct store *s, const struct store_schema *schema, struct differences *d, struct pva_error *err) {
    for (int i = 0; i < schema->n_attributes; i++) {
        const struct store_attribute *a = &schema->attributes[i];
        if (!a->identity) continue;
        char *text = NULL;
        int64_t integer = 0;
        double real = 0;
        if (store_get_attribute(s->file, s->path, a->name, a->kind, &text, &integer, &real, err)) return err->code;
        if (a->kind == STORE_TEXT) {
            const char *mine = a->text ? a->text : "";
            if (strcmp(text, mine)) differs(d, a->name, " is \"%.64s\" in the file and \"%.64s\" here", text, mine);
        } else if (a->kind == STORE_INTEGER) {
            if (integer != a->integer)
                differs(d, a->name, " is %lld in the file and %lld here", (long long)integer, (long long)a->integer);
        } else if (memcmp(&real, &a->real, sizeof real))
            differs(d, a->name, " is %.17g in the file and %.17g here", real, a->real);
        free(text);
    }
    return PVA_OK;
}

static int match_coordinates(struct store *s, const struct store_schema *schema, struct differences *d, struct pva_error *err) {
    for (int i = 0; i < schema->n_coordinates; i++) {
        const struct store_coordinate *c = &schema->coordinates[i];
        if (!c->identity) continue;
        size_t element = store_type_bytes(c->field.type, c->field.text_size), n = 1;
        for (int k = 0; k < c->field.n_dims; k++) n *= (size_t)c->field.dims[k].size;
        char *data = malloc(n * element);
        if (!data) return pva_fail(err, PVA_IO, "%s: no memory for /%s", s->path, c->field.name);
        if (!store_read_coordinate(s, c->field.name, c->field.type, data, n * element, err) &&
            memcmp(data, c->data, n * element)) {
            size_t at = 0;
            while (!memcmp(data + at * element, (const char *)c->data + at * element, element)) at++;
            const char *theirs = data + at * element, *mine = (const char *)c->data + at * element;
            int32_t a = 0, b = 0;
            if (c->field.type == STORE_I32) {
                memcpy(&a, theirs, sizeof a), memcpy(&b, mine, sizeof b);
                differs(d, c->field.name, "[%zu] is %d in the file and %d here", at, a, b);
            } else if (c->field.type == STORE_BYTES) {
                int most = element < 60 ? (int)element : 60;
                differs(d, c->field.name, "[%zu] is \"%.*s\" in the file and \"%.*s\" here", at, most, theirs, most, mine);
            } else differs(d, c->field.name, " differs from element %zu on", at);
        }
        free(data);
        if (err->code) return err->code;
    }
    return PVA_OK;
}

static int refuse(struct store *s, const struct differences *d, struct pva_error *err) {
    return pva_fail(err, PVA_REFUSED, "%s: belongs to another run: %s; use another run directory, or --resume never", s->path,
                    d->text);
}

/* ---- structure --------------------------------------------------------------------------------------------------- */

static void shape_text(const int64_t *size, int n, char *out, size_t room) {
    size_t used = (size_t)snprintf(out, room, "[");
    for (int i = 0; i < n && used < room; i++)
        used += (size_t)snprintf(out + used, room - used, "%s%lld", i ? ", " : "", (long long)size[i]);
    if (used < room) snprintf(out + used, room - used, "]");
}

/* Is this HDF5 type what the store writes for `type`? */
static int is_type(hid_t found, enum store_type type) {
    hid_t wanted = store_type_make(type, 0);
    int same = wanted >= 0 && H5Tequal(found, wanted) > 0;
    if (wanted >= 0) H5Tclose(wanted);
    H5Eclear2(H5E_DEFAULT);
    return same;
}

/* Looks one dataset over the slots up and compares type and shape. What the schema leaves open (store.h, for reading) is taken
 * from the file. */
static int match_column(struct store *s, const struct store_field *wish, int64_t file_bytes, struct store_column *c,
                        struct pva_error *err) {
    struct store_field field = *wish, *f = &field;
    *c = (struct store_column){0};
    snprintf(c->name, sizeof c->name, "%s", f->name);
    for (int i = 0; i < f->n_dims; i++) snprintf(c->dim_names[i], STORE_NAME_SIZE, "%s", f->dims[i].name);
    hid_t d = -1;
    if (store_dataset_open(s->file, s->path, file_bytes, f->name, &d, &c->offset, err)) return err->code;
    hid_t type = H5Dget_type(d), space = H5Dget_space(d), wanted = -1;
    int rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    hsize_t size[H5S_MAX_RANK] = {0};
    if (type < 0 || rank < 0 || H5Sget_simple_extent_dims(space, size, NULL) < 0) {
        store_hdf5_fail(err, PVA_INPUT, "%s: /%s has no type or shape", s->path, f->name);
        goto done;
    }
    if (f->n_dims == STORE_ANY_DIMS) {
        f->n_dims = rank - 1 < 0 ? 0 : rank - 1 > STORE_MAX_DIMS ? STORE_MAX_DIMS : rank - 1;
        for (int i = 0; i < f->n_dims; i++) f->dims[i] = (struct store_dim){"", 0};
    }
    if (f->type == STORE_ANY_FLOAT) f->type = is_type(type, STORE_BF16) ? STORE_BF16 : STORE_F32;
    c->type = f->type, c->n_dims = f->n_dims;
    int64_t text_size = f->text_size;
    if (f->type == STORE_BYTES && text_size == 0 && H5Tget_class(type) == H5T_STRING && !H5Tis_variable_str(type))
        text_size = (int64_t)H5Tget_size(type);
    wanted = f->type == STORE_BYTES && text_size < 1 ? -1 : store_type_make(f->type, text_size);
    if (wanted < 0 || H5Tequal(type, wanted) <= 0) {
        H5Eclear2(H5E_DEFAULT);
        if (f->type == STORE_BYTES && f->text_size)
            pva_fail(err, PVA_INPUT, "%s: /%s has another type, expected text of %lld bytes", s->path, f->name,
                     (long long)f->text_size);
        else pva_fail(err, PVA_INPUT, "%s: /%s has another type, expected %s", s->path, f->name, store_type_name(f->type));
        goto done;
    }
    int64_t has[H5S_MAX_RANK], expected[STORE_MAX_DIMS + 1] = {s->n_slots};
    int same = rank == f->n_dims + 1;
    for (int i = 0; i < rank; i++) has[i] = (int64_t)size[i];
    for (int i = 1; i <= f->n_dims; i++) expected[i] = f->dims[i - 1].size ? f->dims[i - 1].size : i < rank ? has[i] : 0;
    for (int i = 0; same && i < rank; i++) same = has[i] == expected[i];
    c->element_bytes = c->slot_bytes = store_type_bytes(f->type, text_size);
    for (int i = 0; same && i < f->n_dims; i++) {
        c->dims[i] = expected[i + 1];
        if (__builtin_mul_overflow(c->slot_bytes, (size_t)c->dims[i], &c->slot_bytes) || c->slot_bytes > 1u << 30) same = 0;
    }
    if (!same) {
        char a[120], b[120];
        shape_text(has, rank, a, sizeof a);
        shape_text(expected, f->n_dims + 1, b, sizeof b);
        pva_fail(err, PVA_INPUT, "%s: /%s is %s, expected %s", s->path, f->name, a, b);
    }
done:
    if (wanted >= 0) H5Tclose(wanted);
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    H5Dclose(d);
    return err->code;
}

static int match_name(struct store *s, const struct store_schema *schema, struct pva_error *err) {
    char *name = NULL;
    int64_t version = 0;
    if (H5Aexists(s->file, "schema") == 0)
        return pva_fail(err, PVA_INPUT, "%s: is an HDF5 file, but has no attribute schema, expected \"%s\"", s->path,
                        schema->name);
    if (store_get_attribute(s->file, s->path, "schema", STORE_TEXT, &name, NULL, NULL, err)) return err->code;
    if (strcmp(name, schema->name))
        pva_fail(err, PVA_INPUT, "%s: its schema is \"%.80s\", expected \"%s\"", s->path, name, schema->name);
    else if (!store_get_attribute(s->file, s->path, "schema_version", STORE_INTEGER, NULL, &version, NULL, err) &&
             version != schema->version)
        pva_fail(err, PVA_INPUT, "%s: schema_version is %lld, this program uses %d", s->path, (long long)version,
                 schema->version);
    free(name);
    return err->code;
}

/* The number of slots is the length of /state. */
static int match_slots(struct store *s, const struct store_schema *schema, int64_t file_bytes, struct differences *d,
                       struct pva_error *err) {
    hid_t state = -1;
    int64_t offset;
    if (store_dataset_open(s->file, s->path, file_bytes, "state", &state, &offset, err)) return err->code;
    hid_t space = H5Dget_space(state);
    s->n_slots = space < 0 ? -1 : (int64_t)H5Sget_simple_extent_npoints(space);
    if (space >= 0) H5Sclose(space);
    H5Dclose(state);
    if (s->n_slots < 1) return store_hdf5_fail(err, PVA_INPUT, "%s: /state has no slots", s->path);
    if (schema->slot.size && s->n_slots != schema->slot.size) {
        char name[100];
        snprintf(name, sizeof name, "the number of slots (%s)", schema->slot.name);
        differs(d, name, " is %lld in the file and %lld here", (long long)s->n_slots, (long long)schema->slot.size);
    }
    return PVA_OK;
}

int store_match(struct store *s, const struct store_schema *schema, int64_t file_bytes, struct pva_error *err) {
    struct differences d = {"", 0};
    if (match_name(s, schema, err) || match_attributes(s, schema, &d, err) || match_slots(s, schema, file_bytes, &d, err))
        return err->code;
    if (d.n) return refuse(s, &d, err);
    const struct store_field state = {"state", STORE_U8, 0, 0, {{0}}, NULL, NULL},
                             sum = {"checksum", STORE_U32, 0, 0, {{0}}, NULL, NULL};
    if (match_column(s, &state, file_bytes, &s->state, err) || match_column(s, &sum, file_bytes, &s->checksum, err))
        return err->code;
    snprintf(s->slot_name, sizeof s->slot_name, "%s", schema->slot.name);
    s->fields = calloc((size_t)schema->n_fields, sizeof *s->fields);
    if (!s->fields) return pva_fail(err, PVA_IO, "%s: no memory", s->path);
    for (; s->n_fields < schema->n_fields; s->n_fields++)
        if (match_column(s, &schema->fields[s->n_fields], file_bytes, &s->fields[s->n_fields], err)) return err->code;
    if (match_coordinates(s, schema, &d, err)) return err->code;
    return d.n ? refuse(s, &d, err) : PVA_OK;
}
