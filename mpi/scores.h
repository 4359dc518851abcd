/* scores.h - activations of single latents at the position phase 1 captured: predictors and gates. */
#ifndef SCORES_H
#define SCORES_H

#include "followup.h"

#include "pva/sae.h"

/* The residual stream where an autoencoder of `layer` reads it, of chosen slots of phase 1; out [n, d_model]. alignment "aligned": resid_post[layer]; "original":
 * resid_pre[layer], the same stream as resid_post[layer - 1]. PVA_INPUT where phase 1 did not capture that. */
int scores_resid(const struct followup *f, const char *alignment, int layer, const int64_t *slots, int64_t n, float *out, struct pva_error *err);

/* Activations of n_latents latents of one layer (0 where they do not fire), out [n_latents, n]. */
int scores_latents(const struct followup *f, const char *sae_path, const char *alignment, int layer, const int64_t *latents, int64_t n_latents,
                   const int64_t *slots, int64_t n, double *out, struct pva_error *err);

/* Mean Euclidean norm of the stream at a layer over the selection split. */
int scores_mean_norm(const struct followup *f, const char *alignment, int layer, double *out, struct pva_error *err);

#endif
