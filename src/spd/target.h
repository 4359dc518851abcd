/* target.h - what the parts of src/spd share about target models and small files. */
#ifndef SPD_TARGET_H
#define SPD_TARGET_H

#include "pva/spd.h"

struct spd_recipe {
    const char *key;
    int residual, n_features, n_hidden, n_extra, n_embed, zero_bias;
    int64_t steps, batch;
    double lr;
    int cosine;
    double probability;
};
int spd_recipe_find(const char *key, const struct spd_recipe **out, struct pva_error *err);

/* Zeroed weights of the given shape. n_extra: identity layers of a TMS, or blocks of a residual MLP. */
int spd_target_shape(int residual, int n_features, int n_hidden, int n_extra, int n_embed, struct pva_spd_target *t,
                     struct pva_error *err);
/* torch.nn.Linear's default: uniform within 1 / sqrt(fan in); identity layers are the identity; embeddings are random rows of
 * length one. */
void spd_target_initialise(struct pva_spd_target *t, int64_t seed, int zero_bias);

/* cos(pi/2 t / (T - 1)) and the rest, with linear warm-up. */
double spd_schedule(const char *kind, double halflife, double warmup, int64_t step, int64_t steps);

/* Text to a file under its final name, whole or not at all; and mkdir -p. */
int spd_write_text(const char *path, const char *text, struct pva_error *err);
int spd_make_directory(const char *path, struct pva_error *err);

#endif
