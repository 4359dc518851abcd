/* One autoencoder: where its five arrays lie, and what is done with them. The file may be an .npz or a safetensors file; after opening only sae_matrix
 * knows which. */
#include "pva/sae.h"

#include "input_file.h"
#include "npy_header.h"
#include "pva/hash.h"
#include "pva/npz.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A matrix in the file. npz_array is NULL in a safetensors file. */
struct sae_matrix {
    const struct pva_npy *npz_array;
    struct pva_tensor_view view; /* data NULL as long as it is compressed */
    int fortran_order;
};

struct pva_sae {
    char *path;
    struct pva_npz *npz;
    struct pva_tensorfile *tensors;
    int64_t d, m;
    float *b_enc, *threshold, *b_dec; /* [m], [m], [d] */
    struct sae_matrix w_enc, w_dec;   /* [d, m], [m, d] */
    float *w_enc_copy;                /* when the file's bytes cannot be used as they are: made by the first encoding */
};

/* ---- opening ---- */

static int require(struct pva_sae *s, const char *const names[2], int n_dims, const int64_t *shape, struct sae_matrix *out, struct pva_error *err) {
    memset(out, 0, sizeof *out);
    if (s->npz) {
        /* Older files have lower-case names. */
        const char *name = !pva_npz_find(s->npz, names[0]) && pva_npz_find(s->npz, names[1]) ? names[1] : names[0];
        if (pva_npz_require(s->npz, name, n_dims, shape, &out->npz_array, err)) return err->code;
        const struct pva_npy *a = out->npz_array;
        out->view = (struct pva_tensor_view){.name = a->name, .file = s->path, .dtype = a->dtype, .n_dims = a->n_dims, .n_elements = a->n_elements, .bytes = a->bytes};
        memcpy(out->view.shape, a->shape, sizeof a->shape);
        out->fortran_order = a->fortran_order && a->n_dims > 1;
        return a->stored ? pva_npz_data(s->npz, a, &out->view.data, err) : PVA_OK;
    }
    const struct pva_tensor_view *t = pva_tensorfile_find(s->tensors, names[0]);
    int64_t expected[2];
    for (int d = 0; d < n_dims; d++) expected[d] = shape[d] >= 0 ? shape[d] : t && t->n_dims == n_dims ? t->shape[d] : 0;
    if (pva_tensorfile_require(s->tensors, names[0], n_dims, expected, &t, err)) return pva_error_prefix(err, "%s", s->path);
    out->view = *t;
    return PVA_OK;
}

/* The bytes of a compressed matrix are made on first use. */
static int matrix_data(const struct pva_sae *s, struct sae_matrix *a, struct pva_error *err) {
    return a->view.data ? PVA_OK : pva_npz_data(s->npz, a->npz_array, &a->view.data, err);
}

static int matrix_to_f32(const struct pva_sae *s, struct sae_matrix *a, float *out, struct pva_error *err) {
    if (a->npz_array) return pva_npz_to_f32(s->npz, a->npz_array, out, err);
    pva_tensor_to_f32(&a->view, 0, a->view.n_elements, out);
    return PVA_OK;
}

/* n elements of row `row` of a [rows, cols] matrix, whatever its order. */
static int matrix_row(const struct pva_sae *s, struct sae_matrix *a, int64_t row, int64_t n, float *out, struct pva_error *err) {
    if (matrix_data(s, a, err)) return err->code;
    if (!a->fortran_order) pva_tensor_to_f32(&a->view, row * a->view.shape[1], n, out);
    else
        for (int64_t i = 0; i < n; i++) pva_tensor_to_f32(&a->view, i * a->view.shape[0] + row, 1, out + i);
    return PVA_OK;
}

static int read_vector(struct pva_sae *s, const char *const names[2], int64_t n, int threshold, float **out, struct pva_error *err) {
    struct sae_matrix v;
    if (require(s, names, 1, &n, &v, err)) return err->code;
    *out = malloc(((size_t)n + 1) * sizeof **out);
    if (!*out) return pva_fail(err, PVA_IO, "%s: out of memory", s->path);
    if (matrix_to_f32(s, &v, *out, err)) return err->code;
    for (int64_t i = 0; i < n; i++) {
        float f = (*out)[i];
        if (!isfinite(f)) return pva_fail(err, PVA_INPUT, "%s: %s[%lld] is %s: the file is damaged", s->path, names[0], (long long)i, isnan(f) ? "NaN" : "infinite");
        if (threshold && f < 0)
            return pva_fail(err, PVA_INPUT, "%s: %s[%lld] is %g, expected >= 0, as JumpReLU has it", s->path, names[0], (long long)i, (double)f);
    }
    return PVA_OK;
}

static int read_arrays(struct pva_sae *s, struct pva_error *err) {
    static const char *const w_enc[2] = {"W_enc", "w_enc"}, *const w_dec[2] = {"W_dec", "w_dec"}, *const b_enc[2] = {"b_enc", "b_enc"},
                      *const b_dec[2] = {"b_dec", "b_dec"}, *const threshold[2] = {"threshold", "threshold"};
    if (require(s, w_enc, 2, (int64_t[]){-1, -1}, &s->w_enc, err)) return err->code;
    s->d = s->w_enc.view.shape[0], s->m = s->w_enc.view.shape[1];
    if (s->d < 1 || s->m < 1 || s->m > INT32_MAX)
        return pva_fail(err, PVA_INPUT, "%s: W_enc is [%lld, %lld], expected [d_model, n_latents]", s->path, (long long)s->d, (long long)s->m);
    if (require(s, w_dec, 2, (int64_t[]){s->m, s->d}, &s->w_dec, err) || read_vector(s, b_enc, s->m, 0, &s->b_enc, err) ||
        read_vector(s, b_dec, s->d, 0, &s->b_dec, err) || read_vector(s, threshold, s->m, 1, &s->threshold, err))
        return err->code;
    return PVA_OK;
}

static int text_is_one_of(const json_t *value, const char *const *allowed) {
    if (!value || json_is_null(value)) return 1;
    for (int i = 0; json_is_string(value) && allowed[i]; i++)
        if (!strcmp(json_string_value(value), allowed[i])) return 1;
    return 0;
}

static const json_t *config_value(const json_t *config, const char *key) {
    const json_t *v = json_object_get(config, key);
    return v ? v : json_object_get(json_object_get(config, "metadata"), key); /* where SAELens 6 keeps some */
}

/* SAELens' cfg.json beside its weights, where there is one: it must describe the formula this program computes. */
static int check_config(const char *weights, struct pva_error *err) {
    char path[4096];
    const char *slash = strrchr(weights, '/');
    snprintf(path, sizeof path, "%.*scfg.json", slash ? (int)(slash - weights + 1) : 0, weights);
    json_t *config = NULL;
    if (!file_exists(path)) return PVA_OK;
    if (file_read_json(path, 1 << 22, &config, err)) return err->code;
    if (!text_is_one_of(config_value(config, "architecture"), (const char *[]){"jumprelu", NULL}))
        pva_fail(err, PVA_INPUT, "%s: architecture %.40s, expected jumprelu", path, json_string_value(config_value(config, "architecture")));
    else if (json_is_true(config_value(config, "apply_b_dec_to_input")))
        pva_fail(err, PVA_INPUT, "%s: apply_b_dec_to_input is true; encoders that subtract b_dec first are not supported", path);
    else if (!text_is_one_of(config_value(config, "normalize_activations"), (const char *[]){"none", "", NULL}))
        pva_fail(err, PVA_INPUT, "%s: normalize_activations is set; expected none", path);
    json_decref(config);
    return err->code;
}

/* A folder stands for the weights in it. */
static int find_weights(const char *path, char *out, size_t size, struct pva_error *err) {
    static const char *const names[] = {"params.npz", "sae_weights.safetensors"};
    snprintf(out, size, "%s", path);
    if (!file_is_directory(path)) return PVA_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(out, size, "%s/%s", path, names[i]);
        if (file_exists(out)) return PVA_OK;
    }
    return pva_fail(err, PVA_INPUT, "%s: neither params.npz nor sae_weights.safetensors is in it", path);
}

static int ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

int pva_sae_open(const char *path, struct pva_sae **out, struct pva_error *err) {
    char weights[4096];
    struct pva_sae *s = NULL;
    *out = NULL;
    if (find_weights(path, weights, sizeof weights, err)) return err->code;
    if (!(s = calloc(1, sizeof *s)) || !(s->path = strdup(weights))) {
        free(s);
        return pva_fail(err, PVA_IO, "%s: out of memory", weights);
    }
    int status = ends_with(weights, ".safetensors") ? check_config(weights, err) || pva_tensorfile_open(weights, &s->tensors, err)
                                                    : pva_npz_open(weights, &s->npz, err);
    if (status || read_arrays(s, err)) pva_sae_close(&s);
    *out = s;
    return err->code;
}

void pva_sae_close(struct pva_sae **sae) {
    struct pva_sae *s = *sae;
    if (!s) return;
    pva_npz_close(&s->npz);
    if (s->tensors) pva_tensorfile_close(&s->tensors);
    free(s->b_enc);
    free(s->threshold);
    free(s->b_dec);
    free(s->w_enc_copy);
    free(s->path);
    free(s);
    *sae = NULL;
}

const char *pva_sae_path(const struct pva_sae *sae) { return sae->path; }
int64_t pva_sae_d_model(const struct pva_sae *sae) { return sae->d; }
int64_t pva_sae_n_latents(const struct pva_sae *sae) { return sae->m; }
size_t pva_sae_bytes(const struct pva_sae *sae) { return sae->w_enc.view.bytes + (size_t)(2 * sae->m + sae->d) * sizeof(float); }
const float *pva_sae_thresholds(const struct pva_sae *sae) { return sae->threshold; }

void pva_sae_read_ahead(const struct pva_sae *sae) {
    const char *data = sae->w_enc.view.data;
    if (!data || sae->w_enc_copy) return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), skip = (uintptr_t)data % page;
    madvise((void *)(data - skip), sae->w_enc.view.bytes + skip, MADV_WILLNEED);
}

int pva_sae_decoder_row(const struct pva_sae *sae, int64_t latent, float *out, struct pva_error *err) {
    if (latent < 0 || latent >= sae->m)
        return pva_fail(err, PVA_INPUT, "%s: no latent %lld, it has %lld (0-%lld)", sae->path, (long long)latent, (long long)sae->m, (long long)sae->m - 1);
    if (matrix_row(sae, (struct sae_matrix *)&sae->w_dec, latent, sae->d, out, err)) return err->code;
    for (int64_t i = 0; i < sae->d; i++)
        if (!isfinite(out[i])) return pva_fail(err, PVA_INPUT, "%s: W_dec[%lld, %lld] is not finite: the file is damaged", sae->path, (long long)latent, (long long)i);
    return PVA_OK;
}

/* ---- encoding ---- */

void pva_sparse_free(struct pva_sparse *s) {
    free(s->indptr);
    free(s->indices);
    free(s->data);
    memset(s, 0, sizeof *s);
}

/* W_enc as float32, row-major: in the mapping where the file has it so. */
static int encoder_weights(struct pva_sae *s, const void **w, struct pva_error *err) {
    if (matrix_data(s, &s->w_enc, err)) return err->code;
    *w = s->w_enc.view.data;
    if (s->w_enc.view.dtype == PVA_F32 && !s->w_enc.fortran_order) return PVA_OK;
    if (!s->w_enc_copy) {
        float *copy = malloc((size_t)(s->d * s->m) * sizeof *copy);
        if (!copy) return pva_fail(err, PVA_IO, "%s: out of memory for W_enc [%lld, %lld]", s->path, (long long)s->d, (long long)s->m);
        if (matrix_to_f32(s, &s->w_enc, copy, err)) {
            free(copy);
            return err->code;
        }
        s->w_enc_copy = copy;
    }
    *w = s->w_enc_copy;
    return PVA_OK;
}

/* What one encoding holds on the device and the host. */
struct encoding {
    const struct pva_backend_ops *ops;
    struct pva_backend *be;
    struct pva_buffer *w, *bias, *threshold, *x, *indices, *values, *tallies;
    int32_t *host_indices, *host_tallies;
    float *host_values;
    int64_t rows, span; /* most rows, most latents at once */
};

static int open_encoding(struct encoding *e, struct pva_sae *s, int64_t n, struct pva_error *err) {
    const void *weights = NULL;
    if (encoder_weights(s, &weights, err)) return err->code;
    /* Room for every latent of a span to be active. */
    enum { MOST_ROWS = 4096, MOST_ENTRIES = 1 << 22 };
    e->rows = n < MOST_ROWS ? n : MOST_ROWS;
    e->span = MOST_ENTRIES / e->rows / 1024 * 1024;
    if (e->span > s->m) e->span = s->m;
    size_t entries = (size_t)(e->rows * e->span), tallies = (size_t)e->rows * PVA_JUMPRELU_TALLIES;
    e->host_indices = malloc(entries * sizeof *e->host_indices);
    e->host_values = malloc(entries * sizeof *e->host_values);
    e->host_tallies = malloc(tallies * sizeof *e->host_tallies);
    if (!e->host_indices || !e->host_values || !e->host_tallies) return pva_fail(err, PVA_IO, "out of memory to encode %lld rows", (long long)n);
    const struct pva_backend_ops *ops = e->ops;
    if (ops->bind(e->be, weights, (size_t)(s->d * s->m) * sizeof(float), &e->w, err) || ops->bind(e->be, s->b_enc, (size_t)s->m * sizeof(float), &e->bias, err) ||
        ops->bind(e->be, s->threshold, (size_t)s->m * sizeof(float), &e->threshold, err) ||
        ops->alloc(e->be, (size_t)(e->rows * s->d) * sizeof(float), &e->x, err) || ops->alloc(e->be, entries * sizeof(int32_t), &e->indices, err) ||
        ops->alloc(e->be, entries * sizeof(float), &e->values, err) || ops->alloc(e->be, tallies * sizeof(int32_t), &e->tallies, err))
        return err->code;
    return PVA_OK;
}

static void close_encoding(struct encoding *e) {
    struct pva_buffer **buffers[] = {&e->w, &e->bias, &e->threshold, &e->x, &e->indices, &e->values, &e->tallies};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) e->ops->free(e->be, buffers[i]);
    free(e->host_indices);
    free(e->host_values);
    free(e->host_tallies);
}

/* The active latents of rows first .. first + n within one span, appended to each row's list. */
struct row_list {
    int32_t *indices;
    float *values;
    int64_t n, room;
};

static int append_row(struct row_list *row, const int32_t *indices, const float *values, int64_t n, struct pva_error *err) {
    if (row->n + n > row->room) {
        int64_t room = 2 * row->room + n;
        int32_t *i = realloc(row->indices, (size_t)room * sizeof *i);
        if (i) row->indices = i;
        float *v = realloc(row->values, (size_t)room * sizeof *v);
        if (v) row->values = v;
        if (!i || !v) return pva_fail(err, PVA_IO, "out of memory for %lld active latents of a row", (long long)room);
        row->room = room;
    }
    if (n) {
        memcpy(row->indices + row->n, indices, (size_t)n * sizeof *indices);
        memcpy(row->values + row->n, values, (size_t)n * sizeof *values);
    }
    row->n += n;
    return PVA_OK;
}

static int encode_span(struct encoding *e, const struct pva_sae *s, int64_t n, int64_t first, struct row_list *rows, int64_t *n_near, struct pva_error *err) {
    int64_t count = s->m - first < e->span ? s->m - first : e->span;
    struct pva_tensor x = {e->x, 0, PVA_F32, n, s->d}, indices = {e->indices, 0, PVA_I32, n, count}, values = {e->values, 0, PVA_F32, n, count},
                      tallies = {e->tallies, 0, PVA_I32, n, PVA_JUMPRELU_TALLIES};
    struct pva_jumprelu op = {.w_enc = {e->w, 0, PVA_F32, s->d, s->m}, .b_enc = {e->bias, 0, PVA_F32, 1, s->m}, .threshold = {e->threshold, 0, PVA_F32, 1, s->m},
                              .first = first, .count = count};
    if (e->ops->jumprelu_encode(e->be, x, &op, indices, values, tallies, err) || e->ops->download(e->be, tallies, e->host_tallies, err)) return err->code;
    const int32_t *t = e->host_tallies;
    for (int64_t i = 0; i < n; i++)
        if (t[i * PVA_JUMPRELU_TALLIES + PVA_JUMPRELU_BAD] >= 0)
            return pva_fail(err, PVA_INPUT, "%s: latent %d of W_enc is not finite (NaN or infinite weights): the file is damaged", s->path,
                            (int)t[i * PVA_JUMPRELU_TALLIES + PVA_JUMPRELU_BAD]);
    int64_t n_active = 0;
    for (int64_t i = 0; i < n; i++) n_active += t[i * PVA_JUMPRELU_TALLIES + PVA_JUMPRELU_ACTIVE];
    indices.rows = values.rows = 1, indices.cols = values.cols = n_active;
    if (e->ops->download(e->be, indices, e->host_indices, err) || e->ops->download(e->be, values, e->host_values, err)) return err->code;
    for (int64_t i = 0, at = 0; i < n; i++, t += PVA_JUMPRELU_TALLIES) {
        if (append_row(&rows[i], e->host_indices + at, e->host_values + at, t[PVA_JUMPRELU_ACTIVE], err)) return err->code;
        at += t[PVA_JUMPRELU_ACTIVE];
        *n_near += t[PVA_JUMPRELU_NEAR];
    }
    return PVA_OK;
}

static int join_rows(struct pva_sparse *out, const struct row_list *rows, struct pva_error *err) {
    int64_t n = out->n_rows;
    out->indptr[0] = 0;
    for (int64_t i = 0; i < n; i++) out->indptr[i + 1] = out->indptr[i] + rows[i].n;
    out->indices = malloc((size_t)(out->indptr[n] + 1) * sizeof *out->indices);
    out->data = malloc((size_t)(out->indptr[n] + 1) * sizeof *out->data);
    if (!out->indices || !out->data) return pva_fail(err, PVA_IO, "out of memory for %lld active latents", (long long)out->indptr[n]);
    for (int64_t i = 0; i < n; i++)
        if (rows[i].n) {
            memcpy(out->indices + out->indptr[i], rows[i].indices, (size_t)rows[i].n * sizeof *out->indices);
            memcpy(out->data + out->indptr[i], rows[i].values, (size_t)rows[i].n * sizeof *out->data);
        }
    return PVA_OK;
}

int pva_sae_encode(const struct pva_sae *sae, const struct pva_backend_ops *ops, struct pva_backend *be, const float *x, int64_t n, struct pva_sparse *out,
                   struct pva_error *err) {
    struct pva_sae *s = (struct pva_sae *)sae; /* what is made on first use does not change what it is */
    struct encoding e = {.ops = ops, .be = be};
    memset(out, 0, sizeof *out);
    out->n_rows = n, out->n_latents = s->m;
    if (!ops->jumprelu_encode) return pva_fail(err, PVA_USAGE, "backend %s does not encode; use --backend cpu", ops->name);
    for (int64_t i = 0; i < n * s->d; i++)
        if (!isfinite(x[i]))
            return pva_fail(err, PVA_INPUT, "row %lld of the activations has %s at %lld", (long long)(i / s->d), isnan(x[i]) ? "NaN" : "infinity", (long long)(i % s->d));
    struct row_list *rows = calloc((size_t)n + 1, sizeof *rows);
    out->indptr = calloc((size_t)n + 1, sizeof *out->indptr);
    if (!rows || !out->indptr) pva_fail(err, PVA_IO, "out of memory to encode %lld rows", (long long)n);
    if (!err->code && n) {
        pva_sae_read_ahead(s);
        open_encoding(&e, s, n, err);
        for (int64_t first = 0; first < n && !err->code; first += e.rows) {
            int64_t m = n - first < e.rows ? n - first : e.rows;
            ops->upload(be, (struct pva_tensor){e.x, 0, PVA_F32, m, s->d}, x + first * s->d, err);
            for (int64_t latent = 0; latent < s->m && !err->code; latent += e.span) encode_span(&e, s, m, latent, rows + first, &out->n_near, err);
        }
        close_encoding(&e);
    }
    if (!err->code) join_rows(out, rows, err);
    for (int64_t i = 0; rows && i < n; i++) {
        free(rows[i].indices);
        free(rows[i].values);
    }
    free(rows);
    if (err->code) pva_sparse_free(out);
    return err->code;
}

int pva_sae_decode(const struct pva_sae *sae, const struct pva_sparse *a, float *out, struct pva_error *err) {
    PVA_ASSERT(a->n_latents == sae->m);
    float *row = malloc((size_t)sae->d * sizeof *row);
    if (!row) return pva_fail(err, PVA_IO, "out of memory");
    for (int64_t i = 0; i < a->n_rows && !err->code; i++) {
        float *to = out + i * sae->d;
        memset(to, 0, (size_t)sae->d * sizeof *to);
        for (int64_t j = a->indptr[i]; j < a->indptr[i + 1] && !pva_sae_decoder_row(sae, a->indices[j], row, err); j++)
            for (int64_t k = 0; k < sae->d; k++) to[k] = fmaf(a->data[j], row[k], to[k]);
        for (int64_t k = 0; k < sae->d; k++) to[k] += sae->b_dec[k];
    }
    free(row);
    return err->code;
}

double pva_sae_unexplained(const float *x, const float *reconstruction, int64_t n, int64_t d_model) {
    double left = 0, whole = 0;
    for (int64_t k = 0; k < d_model; k++) {
        double mean = 0;
        for (int64_t i = 0; i < n; i++) mean += x[i * d_model + k];
        mean /= (double)n;
        for (int64_t i = 0; i < n; i++) {
            double v = x[i * d_model + k], r = v - reconstruction[i * d_model + k];
            left += r * r, whole += (v - mean) * (v - mean);
        }
    }
    return whole > 0 ? left / whole : NAN;
}

int pva_sae_fingerprint(const struct pva_sae *sae, char out[65], struct pva_error *err) {
    enum { SAMPLES = 64, LONGEST = 256 };
    struct pva_sae *s = (struct pva_sae *)sae;
    struct pva_sha256 h;
    uint8_t digest[PVA_SHA256_BYTES];
    float row[LONGEST];
    char text[64];
    pva_sha256_start(&h);
    pva_sha256_add(&h, text, (size_t)snprintf(text, sizeof text, "jumprelu %lld %lld\n", (long long)s->d, (long long)s->m));
    pva_sha256_add(&h, s->threshold, (size_t)s->m * sizeof *s->threshold);
    pva_sha256_add(&h, s->b_enc, (size_t)s->m * sizeof *s->b_enc);
    pva_sha256_add(&h, s->b_dec, (size_t)s->d * sizeof *s->b_dec);
    struct sae_matrix *matrices[] = {&s->w_enc, &s->w_dec};
    for (int i = 0; i < 2; i++)
        for (int64_t j = 0; j < SAMPLES; j++) { /* beginnings of rows all over the matrix */
            int64_t rows = matrices[i]->view.shape[0], cols = matrices[i]->view.shape[1], n = cols < LONGEST ? cols : LONGEST;
            if (matrix_row(s, matrices[i], j * rows / SAMPLES, n, row, err)) return err->code;
            pva_sha256_add(&h, row, (size_t)n * sizeof *row);
        }
    pva_sha256_finish(&h, digest);
    pva_sha256_hex(digest, out);
    return PVA_OK;
}
