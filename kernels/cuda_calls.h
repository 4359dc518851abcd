/* cuda_calls.h - operations that were asked for and not yet started. A list of them is started at once: one after the other, or, when the same list
 * comes again, as one CUDA graph, which spares the host a launch per kernel and the device the wait for it.
 *
 * A call holds everything that decides what its kernels do, so a list that is equal byte for byte starts the same kernels with the same arguments.
 * What changes between two equal lists is only what lies in device memory. */
#ifndef CUDA_CALLS_H
#define CUDA_CALLS_H

#include "pva/error.h"

#include <cuda_runtime.h>
#include <stdint.h>

struct cuda_call {
    int (*start)(const struct cuda_call *c, cudaStream_t stream); /* a launcher of kernels.h with these arguments; its status */
    const char *stage;                                            /* names the operation in a message; a literal */
    void *p[12];
    int64_t n[14];
    float f[4];
};
_Static_assert(sizeof(struct cuda_call) == (2 + 12 + 14) * 8 + 4 * 4, "calls are compared as bytes, so they have no padding");

struct cuda_calls;

/* graphs: 0 starts every call by itself, always. NULL when there is no memory. */
struct cuda_calls *cuda_calls_open(int device, cudaStream_t stream, int graphs);
void cuda_calls_close(struct cuda_calls **calls); /* what was not started is not */

/* Puts a call behind the others. Starts them all when there are very many. */
int cuda_calls_add(struct cuda_calls *calls, const struct cuda_call *call, struct pva_error *err);
/* The last call, while it waits: what follows may be made part of it. NULL: none waits. */
struct cuda_call *cuda_calls_last(struct cuda_calls *calls);
/* Starts what was added. Needed before anything else that touches the stream, or memory that a call uses. A failure names the call. */
int cuda_calls_start(struct cuda_calls *calls, struct pva_error *err);

#endif
