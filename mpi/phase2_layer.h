/* phase2_layer.h - one layer of phase 2: encode the captured activations, count and add by class, test each latent. No ranks here.
 *
 * The counting and adding stays on the host, whatever encodes. The active latents come down in any case, as the firing sets and the unexplained variance are
 * made of them: 8 bytes each, so at 730 problems, an L0 of 100 and 16,384 latents 0.6 MB a layer, next to 151 MB of encoder that go up. Sums and sets made on
 * a device would be more to fetch, not less: per latent 4 counts, 4 doubles and n_words words, 1.8 MB. */
#ifndef PHASE2_LAYER_H
#define PHASE2_LAYER_H

#include "phase2_schema.h"

#include "pva/sae.h"

/* Everything a slot of phase2.h5 holds. Classes: PHASE2_CORRECT, PHASE2_INCORRECT. */
struct phase2_scores {
    int64_t n_latents, n_words;
    int32_t *active[2], *validation_active[2]; /* [n_latents] */
    double *sum[2], *sum_sq[2];
    double *separation, *low, *high, *t, *df, *p, *fisher_p, *mean_active, *validation_separation;
    uint64_t *fires; /* [n_latents, n_words] bits.h */
    double mean_l0, fvu, mean_norm;
    int64_t n_near;
    double *block; /* the arrays of doubles */
    int32_t *counts;
    double *fisher_table; /* [n correct + 1, n incorrect + 1], NaN: not needed yet */
    int64_t n[2];
};

int phase2_scores_create(struct phase2_scores *s, int64_t n_latents, const int64_t n[2], struct pva_error *err);
void phase2_scores_free(struct phase2_scores *s);

/* x [n_items, d_model]: the first n_selection rows are the selection split, the rest is validation; correct [n_items]. Sums are taken in the order of the rows.
 * n_validation: by class. */
int phase2_scores_compute(struct phase2_scores *s, const struct pva_sae *sae, const struct pva_backend_ops *ops, struct pva_backend *be, const float *x,
                          int64_t n_items, int64_t n_selection, const uint8_t *correct, const int64_t n_validation[2], struct pva_error *err);

/* Into its slot; not committed. */
int phase2_scores_write(const struct phase2_scores *s, struct store *store, int64_t slot, struct pva_error *err);

#endif
