/* backend_cuda.h - what libpva-cuda.so gives to the program that opens it. */
#ifndef BACKEND_CUDA_H
#define BACKEND_CUDA_H

#include "pva/backend.h"

/* The table, or NULL and one line saying why this machine cannot use it: no driver, no device. Found by name (src/backend.c). */
__attribute__((visibility("default"))) const struct pva_backend_ops *pva_backend_cuda_find(struct pva_error *err);

#endif
