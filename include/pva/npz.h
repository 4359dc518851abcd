/* npz.h - numpy's arrays: .npz archives mapped in place, and single .npy files.
 *
 * An .npz is a zip file (PKWARE's APPNOTE 6.3.10) of .npy members (numpy.lib.format). numpy.savez stores its members, so that an array is a
 * range of the mapping: nothing is copied, and only what is used is read from the disk. Members of numpy.savez_compressed are
 * inflated when first asked for. zip64 is understood. What a zip library offers is a stream per member, without the offset of the stored
 * bytes; that is why the directory is parsed here, and only inflating is left to zlib.
 *
 * Every length is checked against the file before it is used. A damaged file is PVA_INPUT with one line.
 */
#ifndef PVA_NPZ_H
#define PVA_NPZ_H

#include "pva/error.h"
#include "pva/tensorfile.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One array. Little-endian f4, f8, f2, i4, i8. */
struct pva_npy {
    const char *name; /* without ".npy" */
    enum pva_dtype dtype;
    int fortran_order; /* the first index runs fastest */
    int n_dims;
    int64_t shape[PVA_MAX_DIMS];
    int64_t n_elements;
    size_t bytes;
    int stored; /* lies in the file as it is; else compressed */
};

struct pva_npz;

/* Reads the zip directory and the arrays' headers. Members that are no .npy are passed over. */
int pva_npz_open(const char *path, struct pva_npz **out, struct pva_error *err);
void pva_npz_close(struct pva_npz **npz);

size_t pva_npz_count(const struct pva_npz *npz);
const struct pva_npy *pva_npz_at(const struct pva_npz *npz, size_t i);             /* in the archive's order */
const struct pva_npy *pva_npz_find(const struct pva_npz *npz, const char *name); /* NULL: not there */

/* Fails with PVA_INPUT "FILE: NAME is [a, b], expected [c, d]" unless the array is there with this shape (a length of -1: any) and a
 * floating-point type. */
int pva_npz_require(const struct pva_npz *npz, const char *name, int n_dims, const int64_t *shape, const struct pva_npy **out, struct pva_error *err);

/* The array's bytes, valid until the archive is closed: in the mapping when stored (then without any alignment), else inflated now, once, and
 * checked against the archive's CRC-32. Not for several threads at once. */
int pva_npz_data(struct pva_npz *npz, const struct pva_npy *array, const void **data, struct pva_error *err);

/* The whole of a floating-point array as float32 (f8 is rounded), the last index fastest whatever the file's order. out: [n_elements]. */
int pva_npz_to_f32(struct pva_npz *npz, const struct pva_npy *array, float *out, struct pva_error *err);

/* A .npy file of a floating-point type as float32, the last index fastest. *values [n_elements] is the caller's to free. */
int pva_npy_read(const char *path, float **values, int64_t shape[PVA_MAX_DIMS], int *n_dims, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
