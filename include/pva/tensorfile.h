/* tensorfile.h - named tensors in safetensors files, one or sharded, mapped and never copied.
 *
 * Format: u64 little-endian header length; JSON {name: {dtype, shape, data_offsets: [begin, end)}}, offsets from the end of the
 * header; data. Everything is checked before it is used: lengths against the file, products against overflow, ranges against
 * each other (no gap, no overlap), names against repetition.
 */
#ifndef PVA_TENSORFILE_H
#define PVA_TENSORFILE_H

#include "pva/error.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pva_dtype { PVA_F32, PVA_BF16, PVA_F16, PVA_F64, PVA_I8, PVA_U8, PVA_I16, PVA_U16, PVA_I32, PVA_U32, PVA_I64, PVA_U64, PVA_BOOL };

size_t pva_dtype_size(enum pva_dtype dtype);      /* bytes */
const char *pva_dtype_name(enum pva_dtype dtype); /* "F32", as safetensors writes it */

#define PVA_MAX_DIMS 8

/* A view into the mapping: valid until the file is closed. `data` has no alignment promise beyond what the file gives. */
struct pva_tensor_view {
    const char *name;
    const char *file; /* which shard, for messages */
    enum pva_dtype dtype;
    int n_dims;
    int64_t shape[PVA_MAX_DIMS];
    int64_t n_elements;
    size_t bytes;
    const void *data;
};

struct pva_tensorfile;

/* path: a .safetensors file, an .index.json, or a directory holding model.safetensors or model.safetensors.index.json.
 * With an index, every shard is opened, every tensor must be in the shard the index names, and none may be missing. */
int pva_tensorfile_open(const char *path, struct pva_tensorfile **out, struct pva_error *err);
void pva_tensorfile_close(struct pva_tensorfile **file);

size_t pva_tensorfile_count(const struct pva_tensorfile *file);
const struct pva_tensor_view *pva_tensorfile_at(const struct pva_tensorfile *file, size_t i); /* in order of name */
const struct pva_tensor_view *pva_tensorfile_find(const struct pva_tensorfile *file, const char *name); /* NULL: not there */
size_t pva_tensorfile_bytes(const struct pva_tensorfile *file); /* of all tensors */

/* Value of one key of the header's __metadata__, NULL when absent. */
const char *pva_tensorfile_metadata(const struct pva_tensorfile *file, const char *key);

/* Fails with PVA_INPUT "FILE: tensor NAME is [a, b], expected [c, d]" unless the tensor is there with this shape and one of
 * F32, BF16, F16. */
int pva_tensorfile_require(const struct pva_tensorfile *file, const char *name, int n_dims, const int64_t *shape,
                           const struct pva_tensor_view **out, struct pva_error *err);

/* Copies n elements starting at `first`, converted to float32 (exact for F32, BF16, F16; rounded for F64). */
void pva_tensor_to_f32(const struct pva_tensor_view *t, int64_t first, int64_t n, float *out);

/* Writing, for synthetic models and exports: declare all tensors, then give their data in that order, in pieces of any size.
 * The file appears under its name only when it is complete (written as path.partial, synced, renamed). */
struct pva_tensorfile_writer;
int pva_tensorfile_create(const char *path, struct pva_tensorfile_writer **out, struct pva_error *err);
int pva_tensorfile_declare(struct pva_tensorfile_writer *w, const char *name, enum pva_dtype dtype, int n_dims,
                           const int64_t *shape, struct pva_error *err);
int pva_tensorfile_metadata_add(struct pva_tensorfile_writer *w, const char *key, const char *value, struct pva_error *err);
int pva_tensorfile_append(struct pva_tensorfile_writer *w, const void *data, size_t bytes, struct pva_error *err);
int pva_tensorfile_finish(struct pva_tensorfile_writer **w, struct pva_error *err);
void pva_tensorfile_discard(struct pva_tensorfile_writer **w); /* removes the partial file */

/* Single values. bf16 rounds to nearest even and keeps NaN a NaN. */
static inline float pva_bf16_to_f32(uint16_t h) {
    union { uint32_t u; float f; } v = {(uint32_t)h << 16};
    return v.f;
}
static inline uint16_t pva_f32_to_bf16(float f) {
    union { float f; uint32_t u; } v = {f};
    if ((v.u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(v.u >> 16 | 0x40);
    return (uint16_t)((v.u + 0x7fffu + (v.u >> 16 & 1)) >> 16);
}
float pva_f16_to_f32(uint16_t h);

#ifdef __cplusplus
}
#endif
#endif
