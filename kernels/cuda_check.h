/* cuda_check.h - what every kernel file and the backend need to start kernels and to report what went wrong. C and CUDA C++. */
#ifndef PVA_CUDA_CHECK_H
#define PVA_CUDA_CHECK_H

#include "pva/error.h"

#include <cuda_runtime.h>

/* In C: returns from the function with PVA_IO and one line naming the call, its place and the driver's words. */
#define PVA_CUDA_TRY(call, err) \
    do { \
        cudaError_t cuda_status_ = (cudaError_t)(call); \
        if (cuda_status_ != cudaSuccess) \
            return pva_fail(err, PVA_IO, "%s failed: %s (%s) at %s:%d", #call, cudaGetErrorName(cuda_status_), \
                            cudaGetErrorString(cuda_status_), __FILE__, __LINE__); \
    } while (0)

/* The two spellings that a C++ compiler cannot read stand here alone. tests/simt defines its own before this. */
#ifndef PVA_LAUNCH
#define PVA_LAUNCH(kernel, grid, block, shared, stream, ...) (kernel)<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
#define PVA_DYNAMIC_SHARED(type, name) \
    extern __shared__ __align__(16) unsigned char pva_dynamic_shared[]; \
    type *name = reinterpret_cast<type *>(pva_dynamic_shared)
#endif

#endif
