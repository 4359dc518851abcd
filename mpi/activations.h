/* activations.h - rows of a residual stream from a file that this program or another wrote. One process. */
#ifndef ACTIVATIONS_H
#define ACTIVATIONS_H

#include "pva/error.h"

#include <stdint.h>

struct activations {
    float *x; /* [n, d] */
    int64_t n, d;
};

/* spec: FILE.h5:/DATASET, or FILE.npy. Floating-point of any width. A dataset is [n, d]; or [n, n_layers, d] beside a dataset /layer of the layers' numbers, as
 * phase1 writes; or [n_layers, n, d], as forward writes. With three dimensions `layer` says which one; -1: not given. */
int activations_read(const char *spec, int layer, struct activations *a, struct pva_error *err);
void activations_free(struct activations *a);

#endif
