/* synth.h - models with random weights, in the hub's layout: for benchmarks and tests.
 *
 * A weight is a pure function of (seed, index of its tensor, index of the element): a mixed word keyed by Philox, its four bytes
 * summed to a bell shape (at most 3.45 standard deviations), so any part can be made by any thread.
 * Scales keep a deep model sane: projections have standard deviation 1/sqrt(fan_in), norms 0.1 around 0. The embedding has
 * 0.25/sqrt(d_model), small against what the layers add, so that greedy text does not repeat its last token at once; the
 * final norm lies around 7 to make up for it: logits spread over about 2 units.
 */
#ifndef PVA_SYNTH_H
#define PVA_SYNTH_H

#include "pva/error.h"
#include "pva/model_config.h"
#include "pva/tensorfile.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pva_synth_settings {
    enum pva_dtype dtype; /* PVA_BF16 or PVA_F32 */
    uint64_t seed;
    size_t shard_bytes;    /* a new file is begun when the next tensor would exceed this; 0: one file */
    const char *tokenizer; /* a tokenizer.model to copy along; NULL: none. Its vocabulary must fit the model's */
    void (*progress)(void *context, size_t bytes_done, size_t bytes_total); /* NULL: silent */
    void *context;
};

/* Makes `directory` with config.json, generation_config.json, model*.safetensors and, with several shards, their index.
 * Everything is written in directory.partial, which is then renamed: no half model under the final name.
 * PVA_REFUSED when the directory exists and is not empty. Needs about 50 MB of memory whatever the model's size. */
int pva_synth_write(const struct pva_model_config *config, const char *directory, const struct pva_synth_settings *settings,
                    struct pva_error *err);

/* Elements [first, first + n) of tensor i of the table in model_config.h, before rounding to the file's dtype. */
void pva_synth_values(const struct pva_model_config *config, int i, uint64_t seed, int64_t first, int64_t n, float *out);

#ifdef __cplusplus
}
#endif
#endif
