/* dtype.h - names and sizes of element types, and how many bytes a shape needs. Private to src/. */
#ifndef DTYPE_H
#define DTYPE_H

#include "pva/tensorfile.h"

/* 1 and *out for a name as safetensors writes it ("BF16"); 0 when unknown. */
int dtype_parse(const char *name, enum pva_dtype *out);

/* Number of elements and bytes of a shape; 0 when a length is negative or a product overflows. */
int dtype_extent(enum pva_dtype dtype, int n_dims, const int64_t *shape, int64_t *n_elements, size_t *bytes);

#endif
