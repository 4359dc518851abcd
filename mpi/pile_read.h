/* pile_read.h - what later phases ask of a finished pile.h5: how often each latent fires on general text. One process, no MPI. */
#ifndef PILE_READ_H
#define PILE_READ_H

#include "pva/error.h"

#include <stdint.h>

/* rates [n_latents]: the fraction of the documents, one position each, on which the latent was active. *n_documents may be NULL. PVA_INPUT
 * when there is no pile.h5, the layer is not in it or not finished, or it has another number of latents. */
int pile_rates(const char *run_directory, int layer, double *rates, int64_t n_latents, int64_t *n_documents, struct pva_error *err);

/* What the pile phase saw of one layer's autoencoder. */
struct pile_layer {
    char sae_sha256[65];           /* pva_sae_fingerprint */
    char sae_path[512];            /* its end when it is longer */
    char model_sha256[65];         /* of the weights, as phase1.h5 has it */
    char point[16];                /* "resid_post"; "resid_pre" with the original's alignment */
    int64_t n_documents, n_latents;
    double mean_l0;                /* active latents per position */
    double label_l0;               /* average_l0_X of the folder's name; NaN: it does not say */
    double unexplained;            /* fraction of variance unexplained, over the first 1024 documents */
    int64_t n_near;                /* pairs with |z - threshold| < 1e-3 threshold */
};
int pile_layer(const char *run_directory, int layer, struct pile_layer *out, struct pva_error *err);

#endif
