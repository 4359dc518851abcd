/* backend_cuda_spd.h - what backend_cuda.c lends to backend_cuda_spd.c: one device, one stream, one account of memory for both tables. */
#ifndef PVA_BACKEND_CUDA_SPD_H
#define PVA_BACKEND_CUDA_SPD_H

#include "pva/spd_device.h"

struct CUstream_st;

struct CUstream_st *pva_cuda_stream(struct pva_backend *be);
void *pva_cuda_address(const struct pva_buffer *buffer);
/* Work memory until the next call, behind the counters. */
int pva_cuda_work(struct pva_backend *be, size_t bytes, void **work, struct pva_error *err);
int pva_cuda_send(struct pva_backend *be, void *to, const void *host, size_t bytes, struct pva_error *err);
int pva_cuda_receive(struct pva_backend *be, void *host, const void *from, size_t bytes, struct pva_error *err); /* waits */
/* Of a launcher's status. */
int pva_cuda_started(const struct pva_backend *be, int status, const char *stage, struct pva_error *err);

extern const struct pva_spd_ops pva_spd_ops_cuda;

#endif
