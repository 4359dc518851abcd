/* npy_header.h - the header of a .npy array, a Python dictionary in text. Private to src/. */
#ifndef NPY_HEADER_H
#define NPY_HEADER_H

#include "pva/npz.h"

enum { NPY_MAX_HEADER = 65536 + 12 }; /* the longest version 1 header; numpy's own stay below 200 bytes */

/* Parses the `available` first bytes of an array that has `total` bytes with its header. Sets everything of *a but name and stored; *header: bytes
 * before the data. The rest, total - *header, must be exactly the shape's bytes. `what` names the array in messages. */
int npy_header_parse(const unsigned char *bytes, size_t available, uint64_t total, const char *what, struct pva_npy *a, size_t *header,
                     struct pva_error *err);

/* "[2304, 16384]" into text, which is returned. */
const char *npy_shape_text(int n_dims, const int64_t *shape, char *text, size_t size);

/* A whole array, row-major, as float32. */
void npy_to_f32(const struct pva_npy *a, const void *data, float *out);

#endif
