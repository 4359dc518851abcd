#include "pva/vector_write.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "both formats are little-endian and written as memory holds them");

/* Both files are small: made in memory, then published whole. */
struct content {
    char *bytes;
    size_t n;
    FILE *out;
};

static int begin(struct content *c, const char *path, struct pva_error *err) {
    c->out = open_memstream(&c->bytes, &c->n);
    return c->out ? PVA_OK : pva_fail(err, PVA_IO, "%s: out of memory", path);
}

static int publish(struct content *c, const char *path, struct pva_error *err) {
    char *partial = NULL;
    if (fclose(c->out) || asprintf(&partial, "%s.partial", path) < 0) {
        free(c->bytes);
        return pva_fail(err, PVA_IO, "%s: out of memory", path);
    }
    FILE *out = fopen(partial, "we");
    if (!out) pva_fail(err, PVA_IO, "%s: %s", partial, strerror(errno));
    else {
        int bad = fwrite(c->bytes, 1, c->n, out) != c->n || fflush(out) || fsync(fileno(out));
        bad |= fclose(out) != 0;
        if (bad || rename(partial, path)) {
            pva_fail(err, PVA_IO, "%s: cannot be written: %s", path, strerror(errno));
            unlink(partial);
        }
    }
    free(partial), free(c->bytes);
    return err->code;
}

int pva_npy_write(const char *path, const float *values, int n_dims, const int64_t *shape, struct pva_error *err) {
    struct content c;
    char header[256];
    int used = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
    int64_t n = 1;
    if (n_dims < 1 || n_dims > 4) return pva_fail(err, PVA_BUG, "%s: %d dimensions", path, n_dims);
    for (int i = 0; i < n_dims; i++) {
        used += snprintf(header + used, sizeof header - (size_t)used, n_dims == 1 ? "%lld," : i ? ", %lld" : "%lld", (long long)shape[i]);
        n *= shape[i];
    }
    used += snprintf(header + used, sizeof header - (size_t)used, "), }");
    if (begin(&c, path, err)) return err->code;
    int total = (10 + used + 1 + 63) / 64 * 64; /* the data begin at a multiple of 64 */
    fwrite("\x93NUMPY\x01\x00", 1, 8, c.out);
    uint16_t length = (uint16_t)(total - 10);
    fwrite(&length, 2, 1, c.out);
    fprintf(c.out, "%s%*s\n", header, total - 10 - used - 1, "");
    fwrite(values, sizeof *values, (size_t)n, c.out);
    return publish(&c, path, err);
}

/* ---- GGUF ---- */

enum { GGUF_UINT32 = 4, GGUF_STRING = 8, GGUF_F32 = 0, GGUF_ALIGNMENT = 32 };

static void put(FILE *out, uint64_t value, size_t bytes) { fwrite(&value, 1, bytes, out); }

static void put_text(FILE *out, const char *text) {
    put(out, strlen(text), 8);
    fwrite(text, 1, strlen(text), out);
}

static void put_pair(FILE *out, const char *key, const char *value) {
    put_text(out, key);
    put(out, GGUF_STRING, 4);
    put_text(out, value);
}

int pva_gguf_control_vector_write(const char *path, const char *model_hint, int n_layers, int layer, const float *direction, int64_t d_model,
                                  struct pva_error *err) {
    struct content c;
    char name[40];
    if (layer < 1 || layer >= n_layers)
        return pva_fail(err, PVA_USAGE, "%s: a control vector of llama.cpp acts after blocks 1 to %d, not %d: use the .npy file", path, n_layers - 1, layer);
    if (begin(&c, path, err)) return err->code;
    snprintf(name, sizeof name, "direction.%d", layer);
    fwrite("GGUF", 1, 4, c.out);
    put(c.out, 3, 4);
    put(c.out, 1, 8); /* tensors */
    put(c.out, 3, 8); /* pairs */
    put_pair(c.out, "general.architecture", "controlvector");
    put_pair(c.out, "controlvector.model_hint", model_hint);
    put_text(c.out, "controlvector.layer_count");
    put(c.out, GGUF_UINT32, 4);
    put(c.out, (uint64_t)n_layers, 4);
    put_text(c.out, name);
    put(c.out, 1, 4); /* dimensions */
    put(c.out, (uint64_t)d_model, 8);
    put(c.out, GGUF_F32, 4);
    put(c.out, 0, 8); /* offset in the data */
    for (long at = ftell(c.out); at % GGUF_ALIGNMENT; at++) fputc(0, c.out);
    fwrite(direction, sizeof *direction, (size_t)d_model, c.out);
    for (long at = ftell(c.out); at % GGUF_ALIGNMENT; at++) fputc(0, c.out);
    return publish(&c, path, err);
}
