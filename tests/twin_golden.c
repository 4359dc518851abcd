/* The whole model on the CUDA backend, against the same golden files and limits as the CPU: with tensor cores, and without. Under the shim
 * this runs backend_cuda.c and all kernels without a GPU. */
#include "backend_cuda.h"

#define GOLDEN_BACKEND(err) pva_backend_cuda_find(err)
#define GOLDEN_QUICK 1 /* float32 is portable anyway, and a step of the shim takes its time */
#define GOLDEN_NAME "twin_golden"
#include "test_golden.c"
