/* engine.h - what every command that runs a model opens first: a backend, the model on it, its tokenizer. */
#ifndef ENGINE_H
#define ENGINE_H

#include "par.h"

#include "pva/model.h"
#include "pva/options.h"
#include "pva/tokenizer.h"

struct engine {
    const struct pva_backend_ops *ops;
    struct pva_backend *be;
    struct pva_model *model;
    struct pva_tokenizer *tokenizer;
    double open_seconds;
};

/* --backend, --threads, --isa, --gpu-memory alone: no model. */
int engine_open_backend(const struct pva_options *o, struct engine *e, struct pva_error *err);
/* Collective, but each rank has its own outcome: the same with the device of this rank (device.h), cores divided among the node's ranks when
 * --threads is 0. */
int engine_open_device(const struct par *p, const struct pva_options *o, struct engine *e, struct pva_error *err);
/* Also --model, --dtype. needs_tokenizer: fail without tokenizer.model; else it may stay NULL. */
int engine_open(const struct pva_options *o, int needs_tokenizer, struct engine *e, struct pva_error *err);
/* Collective: the same on every rank, in such a way that the ranks of a node hold the weights in memory once. Weights in the device's
 * type are mapped from the file by all; others are converted once per node into shared memory (or $TMPDIR when that is too small). Cores are
 * divided among the node's ranks when --threads is 0. Fails on all ranks or on none. */
int engine_open_shared(const struct par *p, const struct pva_options *o, int needs_tokenizer, struct engine *e, struct pva_error *err);
void engine_close(struct engine *e);

/* BOS, then the text's tokens. *ids is malloc'ed. */
int engine_encode_prompt(const struct engine *e, const char *text, size_t n_bytes, int32_t **ids, size_t *n, struct pva_error *err);

double engine_now(void); /* seconds of a monotonic clock */

#endif
