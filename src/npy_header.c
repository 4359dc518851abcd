#include "npy_header.h"

#include "dtype.h"

#include <stdio.h>
#include <string.h>

const char *npy_shape_text(int n_dims, const int64_t *shape, char *text, size_t size) {
    size_t n = (size_t)snprintf(text, size, "[");
    for (int d = 0; d < n_dims && n < size; d++) n += (size_t)snprintf(text + n, size - n, d ? ", %lld" : "%lld", (long long)shape[d]);
    if (n < size) snprintf(text + n, size - n, "]");
    return text;
}

/* What is left of the dictionary's text. */
struct text {
    const char *at, *end;
};

static void skip_blanks(struct text *t) {
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\n' || *t->at == '\t')) t->at++;
}

static int take(struct text *t, char c) {
    skip_blanks(t);
    if (t->at == t->end || *t->at != c) return 0;
    t->at++;
    return 1;
}

static int take_word(struct text *t, const char *word) {
    size_t n = strlen(word);
    skip_blanks(t);
    if ((size_t)(t->end - t->at) < n || memcmp(t->at, word, n)) return 0;
    t->at += n;
    return 1;
}

/* 'text' or "text" without escapes. */
static int take_string(struct text *t, char *out, size_t size) {
    skip_blanks(t);
    if (t->at == t->end || (*t->at != '\'' && *t->at != '"')) return 0;
    char quote = *t->at++;
    size_t n = 0;
    while (t->at < t->end && *t->at != quote) {
        if (*t->at == '\\' || n + 1 >= size) return 0;
        out[n++] = *t->at++;
    }
    out[n] = 0;
    return take(t, quote);
}

static int take_length(struct text *t, int64_t *out) {
    skip_blanks(t);
    int64_t v = 0;
    const char *start = t->at;
    for (; t->at < t->end && *t->at >= '0' && *t->at <= '9'; t->at++)
        if (__builtin_mul_overflow(v, (int64_t)10, &v) || __builtin_add_overflow(v, (int64_t)(*t->at - '0'), &v)) return 0;
    (void)take(t, 'L'); /* as Python 2 wrote long numbers */
    *out = v;
    return t->at > start;
}

static int take_shape(struct text *t, struct pva_npy *a) {
    if (!take(t, '(')) return 0;
    for (a->n_dims = 0; !take(t, ')'); a->n_dims++) {
        if (a->n_dims == PVA_MAX_DIMS || !take_length(t, &a->shape[a->n_dims])) return 0;
        if (!take(t, ',')) { /* one number in brackets is no tuple */
            a->n_dims++;
            return a->n_dims > 1 && take(t, ')');
        }
    }
    return 1;
}

static int read_type(const char *descr, enum pva_dtype *out) {
    static const struct {
        const char *descr;
        enum pva_dtype dtype;
    } types[] = {{"<f4", PVA_F32}, {"<f8", PVA_F64}, {"<f2", PVA_F16}, {"<i4", PVA_I32}, {"<i8", PVA_I64}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(descr, types[i].descr)) {
            *out = types[i].dtype;
            return 1;
        }
    return 0;
}

static int read_dictionary(struct text *t, const char *what, struct pva_npy *a, struct pva_error *err) {
    char key[24], descr[24];
    int seen[3] = {0};
    if (!take(t, '{')) return pva_fail(err, PVA_INPUT, "%s: its header is no dictionary {'descr': ..., 'fortran_order': ..., 'shape': ...}", what);
    while (!take(t, '}')) {
        if (!take_string(t, key, sizeof key) || !take(t, ':')) return pva_fail(err, PVA_INPUT, "%s: its header is damaged: expected 'key': value", what);
        int which = !strcmp(key, "descr") ? 0 : !strcmp(key, "fortran_order") ? 1 : !strcmp(key, "shape") ? 2 : 3;
        if (which == 3 || seen[which]++) return pva_fail(err, PVA_INPUT, "%s: its header has '%s' %s", what, key, which == 3 ? "that no array has" : "twice");
        if (which == 0) {
            if (!take_string(t, descr, sizeof descr) || !read_type(descr, &a->dtype))
                return pva_fail(err, PVA_INPUT, "%s: its type is not one of '<f4' '<f8' '<f2' '<i4' '<i8'", what);
        } else if (which == 1) {
            a->fortran_order = take_word(t, "True");
            if (!a->fortran_order && !take_word(t, "False")) return pva_fail(err, PVA_INPUT, "%s: 'fortran_order' is neither True nor False", what);
        } else if (!take_shape(t, a)) {
            return pva_fail(err, PVA_INPUT, "%s: 'shape' is no tuple of at most %d lengths", what, PVA_MAX_DIMS);
        }
        if (!take(t, ',')) {
            if (take(t, '}')) break;
            return pva_fail(err, PVA_INPUT, "%s: its header is damaged: expected , or }", what);
        }
    }
    skip_blanks(t);
    if (!seen[0] || !seen[1] || !seen[2] || t->at != t->end)
        return pva_fail(err, PVA_INPUT, "%s: its header is damaged: expected 'descr', 'fortran_order' and 'shape' and nothing else", what);
    return PVA_OK;
}

int npy_header_parse(const unsigned char *bytes, size_t available, uint64_t total, const char *what, struct pva_npy *a, size_t *header,
                     struct pva_error *err) {
    if (available < 10 || memcmp(bytes, "\x93NUMPY", 6)) return pva_fail(err, PVA_INPUT, "%s: does not begin as a .npy array does", what);
    int version = bytes[6];
    if (version < 1 || version > 3) return pva_fail(err, PVA_INPUT, "%s: .npy version %d, expected 1, 2 or 3", what, version);
    size_t prefix = version == 1 ? 10 : 12, length = (size_t)bytes[8] | (size_t)bytes[9] << 8;
    if (version > 1 && available >= prefix) length |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
    if (available < prefix || length > available - prefix)
        return pva_fail(err, PVA_INPUT, "%s: its header has %zu bytes, %s", what, length, total > available ? "more than this program reads" : "the array ends before");
    struct text t = {(const char *)bytes + prefix, (const char *)bytes + prefix + length};
    if (read_dictionary(&t, what, a, err)) return err->code;
    char shape[200];
    if (!dtype_extent(a->dtype, a->n_dims, a->shape, &a->n_elements, &a->bytes))
        return pva_fail(err, PVA_INPUT, "%s: %s has more elements than a computer can hold", what, npy_shape_text(a->n_dims, a->shape, shape, sizeof shape));
    *header = prefix + length;
    if (total - *header != a->bytes)
        return pva_fail(err, PVA_INPUT, "%s: %llu bytes of data, expected %zu for its shape %s", what, (unsigned long long)(total - *header), a->bytes,
                        npy_shape_text(a->n_dims, a->shape, shape, sizeof shape));
    return PVA_OK;
}

void npy_to_f32(const struct pva_npy *a, const void *data, float *out) {
    struct pva_tensor_view view = {.dtype = a->dtype, .n_elements = a->n_elements, .bytes = a->bytes, .data = data};
    if (!a->fortran_order || a->n_dims < 2) {
        pva_tensor_to_f32(&view, 0, a->n_elements, out);
        return;
    }
    /* The file's element i has the indices index[]; they count up, the first fastest. at: the same place, the last fastest. */
    int64_t index[PVA_MAX_DIMS] = {0}, step[PVA_MAX_DIMS], at = 0;
    step[a->n_dims - 1] = 1;
    for (int d = a->n_dims - 2; d >= 0; d--) step[d] = step[d + 1] * a->shape[d + 1];
    enum { PIECE = 1024 };
    float piece[PIECE];
    for (int64_t i = 0; i < a->n_elements; i += PIECE) {
        int64_t n = a->n_elements - i < PIECE ? a->n_elements - i : PIECE;
        pva_tensor_to_f32(&view, i, n, piece);
        for (int64_t j = 0; j < n; j++) {
            out[at] = piece[j];
            for (int d = 0; d < a->n_dims; d++) {
                at += step[d];
                if (++index[d] < a->shape[d]) break;
                at -= step[d] * a->shape[d];
                index[d] = 0;
            }
        }
    }
}
