/* Found in place of the toolkit's header when kernels are built for the CPU. */
#ifndef SIMT_CUDA_RUNTIME_H
#define SIMT_CUDA_RUNTIME_H
#include "simt.h"
#endif
