/* HDF5's conventions turned into ours: one line of error instead of a printed stack, types, attributes, datasets that are what
 * they look like. */
#include "store_private.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void store_hdf5_init(void) {
    static int done;
    if (done) return;
    done = 1;
    /* Locks of HDF5's own would shut readers out while a job writes, and fail on file systems without locks. */
    setenv("HDF5_USE_FILE_LOCKING", "FALSE", 1);
    H5open();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    /* A write beyond `ulimit -f` must come back as an error, not kill the process. */
    struct sigaction was;
    if (!sigaction(SIGXFSZ, NULL, &was) && was.sa_handler == SIG_DFL) signal(SIGXFSZ, SIG_IGN);
}

struct reason {
    char text[240];
    int n;
};

/* Innermost first. MPI's own text comes before the name of the call that failed; both are wanted, the API layers above are not.
 */
static herr_t collect(unsigned n, const H5E_error2_t *e, void *out) {
    struct reason *r = out;
    if (r->n >= 2 || !e->desc || !*e->desc) return 0;
    size_t used = strlen(r->text);
    snprintf(r->text + used, sizeof r->text - used, "%s%s", r->n ? " < " : "", e->desc);
    r->n += e->min_num == H5E_MPIERRSTR ? 1 : 2;
    return 0;
}

int store_hdf5_fail(struct pva_error *err, int code, const char *fmt, ...) {
    struct reason why = {"", 0};
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &why);
    H5Eclear2(H5E_DEFAULT);
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return why.n ? pva_fail(err, code, "%s: HDF5: %s", text, why.text) : pva_fail(err, code, "%s", text);
}

static const struct {
    const char *name;
    size_t bytes;
} types[] = {{"int8", 1},    {"uint8", 1},   {"int32", 4},    {"uint32", 4}, {"int64", 8},
             {"float32", 4}, {"float64", 8}, {"bfloat16", 2}, {"text", 0}};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian and written as they lie in memory");

const char *store_type_name(enum store_type type) { return types[type].name; }

size_t store_type_bytes(enum store_type type, int64_t text_size) {
    return type == STORE_BYTES ? (size_t)text_size : types[type].bytes;
}

hid_t store_type_make(enum store_type type, int64_t text_size) {
    hid_t t;
    switch (type) {
    case STORE_I8: return H5Tcopy(H5T_STD_I8LE);
    case STORE_U8: return H5Tcopy(H5T_STD_U8LE);
    case STORE_I32: return H5Tcopy(H5T_STD_I32LE);
    case STORE_U32: return H5Tcopy(H5T_STD_U32LE);
    case STORE_I64: return H5Tcopy(H5T_STD_I64LE);
    case STORE_F32: return H5Tcopy(H5T_IEEE_F32LE);
    case STORE_F64: return H5Tcopy(H5T_IEEE_F64LE);
    case STORE_BF16: /* sign at bit 15, 8 bits of exponent at 7, 7 bits of mantissa, bias 127 */
        t = H5Tcopy(H5T_IEEE_F32LE);
        if (t < 0 || H5Tset_fields(t, 15, 7, 8, 0, 7) < 0 || H5Tset_size(t, 2) < 0 || H5Tset_ebias(t, 127) < 0) return -1;
        return t;
    case STORE_BYTES:
        t = H5Tcopy(H5T_C_S1);
        if (t < 0 || H5Tset_size(t, (size_t)text_size) < 0 || H5Tset_strpad(t, H5T_STR_NULLPAD) < 0 ||
            H5Tset_cset(t, H5T_CSET_UTF8) < 0)
            return -1;
        return t;
    case STORE_ANY_FLOAT: break; /* what a file has is one of the above */
    }
    return -1;
}

static int put(hid_t object, const char *name, hid_t type, const void *value) {
    hid_t space = H5Screate(H5S_SCALAR), a = -1;
    int bad = space < 0 || type < 0 || (a = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT)) < 0 ||
              H5Awrite(a, type, value) < 0;
    if (a >= 0 && H5Aclose(a) < 0) bad = 1;
    if (space >= 0) H5Sclose(space);
    return bad ? -1 : 0;
}

int store_put_text(hid_t object, const char *name, const char *text) {
    size_t n = strlen(text);
    hid_t type = store_type_make(STORE_BYTES, n ? (int64_t)n : 1); /* a string of size 0 cannot be */
    int status = put(object, name, type, text);
    if (type >= 0) H5Tclose(type);
    return status;
}
int store_put_integer(hid_t object, const char *name, int64_t value) { return put(object, name, H5T_STD_I64LE, &value); }
int store_put_real(hid_t object, const char *name, double value) { return put(object, name, H5T_IEEE_F64LE, &value); }

int store_get_attribute(hid_t object, const char *path, const char *name, int kind, char **text, int64_t *integer, double *real,
                        struct pva_error *err) {
    static const char *const kinds[] = {"a text", "an integer", "a real number"};
    if (text) *text = NULL;
    htri_t there = H5Aexists(object, name);
    if (there == 0) return pva_fail(err, PVA_INPUT, "%s: attribute %s is missing", path, name);
    hid_t a = there < 0 ? -1 : H5Aopen(object, name, H5P_DEFAULT), type = -1, space = -1;
    if (a < 0 || (type = H5Aget_type(a)) < 0 || (space = H5Aget_space(a)) < 0) {
        store_hdf5_fail(err, PVA_INPUT, "%s: attribute %s cannot be opened", path, name);
        goto done;
    }
    H5T_class_t class = H5Tget_class(type), wanted[] = {H5T_STRING, H5T_INTEGER, H5T_FLOAT};
    size_t size = H5Tget_size(type);
    if (class != wanted[kind] || H5Sget_simple_extent_npoints(space) != 1 || size > 1u << 22 ||
        (kind == STORE_TEXT && H5Tis_variable_str(type))) {
        pva_fail(err, PVA_INPUT, "%s: attribute %s is not %s", path, name, kinds[kind]);
        goto done;
    }
    herr_t status = -1;
    if (kind == STORE_TEXT) {
        if (!(*text = calloc(1, size + 1))) {
            pva_fail(err, PVA_IO, "%s: no memory for attribute %s", path, name);
            goto done;
        }
        status = H5Aread(a, type, *text);
    } else if (kind == STORE_INTEGER) status = H5Aread(a, H5T_NATIVE_INT64, integer);
    else status = H5Aread(a, H5T_NATIVE_DOUBLE, real);
    if (status < 0) {
        store_hdf5_fail(err, PVA_INPUT, "%s: attribute %s cannot be read", path, name);
        if (text) free(*text), *text = NULL;
    }
done:
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    if (a >= 0) H5Aclose(a);
    return err->code;
}

int store_dataset_open(hid_t file, const char *path, int64_t file_bytes, const char *name, hid_t *dataset, int64_t *offset,
                       struct pva_error *err) {
    *dataset = -1;
    htri_t there = H5Lexists(file, name, H5P_DEFAULT);
    if (there == 0) return pva_fail(err, PVA_INPUT, "%s: dataset /%s is missing", path, name);
    /* A file from elsewhere may point at other files: through links, or with its raw data. We would read or overwrite those. */
    H5L_info_t link;
    if (there < 0 || H5Lget_info(file, name, &link, H5P_DEFAULT) < 0)
        return store_hdf5_fail(err, PVA_INPUT, "%s: dataset /%s cannot be found", path, name);
    if (link.type != H5L_TYPE_HARD)
        return pva_fail(err, PVA_INPUT, "%s: /%s is a link to something else, expected a dataset", path, name);
    hid_t d = H5Dopen2(file, name, H5P_DEFAULT), plist = -1, type = -1, space = -1;
    if (d < 0 || (plist = H5Dget_create_plist(d)) < 0 || (type = H5Dget_type(d)) < 0 || (space = H5Dget_space(d)) < 0) {
        store_hdf5_fail(err, PVA_INPUT, "%s: /%s cannot be opened as a dataset", path, name);
        goto done;
    }
    haddr_t at = H5Dget_offset(d);
    H5Eclear2(H5E_DEFAULT);
    hssize_t points = H5Sget_simple_extent_npoints(space);
    int64_t bytes = 0;
    if (H5Pget_layout(plist) != H5D_CONTIGUOUS || H5Pget_external_count(plist) != 0 || at == HADDR_UNDEF || points <= 0) {
        pva_fail(err, PVA_INPUT, "%s: /%s does not lie in one piece inside the file, expected a preallocated contiguous dataset",
                 path, name);
        goto done;
    }
    if (__builtin_mul_overflow((int64_t)points, (int64_t)H5Tget_size(type), &bytes) || (int64_t)at > file_bytes ||
        bytes > file_bytes - (int64_t)at) {
        pva_fail(err, PVA_INPUT, "%s: /%s reaches beyond the end of the file (%lld bytes): truncated?", path, name,
                 (long long)file_bytes);
        goto done;
    }
    *offset = (int64_t)at;
    *dataset = d, d = -1;
done:
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    if (plist >= 0) H5Pclose(plist);
    if (d >= 0) H5Dclose(d);
    return err->code;
}
