/* vector_write.h - a direction of the residual stream as files that other programs steer with.
 *
 * Each file appears under its name when it is complete (written as PATH.partial, synced, renamed). PVA_IO when it cannot be written.
 */
#ifndef PVA_VECTOR_WRITE_H
#define PVA_VECTOR_WRITE_H

#include "pva/error.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* numpy's format, version 1.0: float32, C order. n_dims 1 to 4. */
int pva_npy_write(const char *path, const float *values, int n_dims, const int64_t *shape, struct pva_error *err);

/* A control vector for llama.cpp (--control-vector): GGUF version 3 with the architecture "controlvector" and one tensor, direction.L [d_model] f32, which it adds
 * to the output of block L: resid_post[L]. That program has no vector for block 0: layer 0 is PVA_USAGE. model_hint: "gemma2". */
int pva_gguf_control_vector_write(const char *path, const char *model_hint, int n_layers, int layer, const float *direction, int64_t d_model,
                                  struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
