/* phase2_read.h - what later phases ask of a finished phase2.h5. One process, no MPI. */
#ifndef PHASE2_READ_H
#define PHASE2_READ_H

#include "pva/error.h"

#include <stdint.h>

enum phase2_list { PHASE2_CORRECT_SEPARATION, PHASE2_INCORRECT_SEPARATION, PHASE2_CORRECT_T, PHASE2_INCORRECT_T, PHASE2_N_LISTS };
const char *phase2_list_name(enum phase2_list list); /* "correct-separation" ... */

/* One latent as phase 2 judged it on the selection split. f: firing fractions; mean: of the activation over all items of the class. */
struct phase2_latent {
    int32_t layer, latent;
    double f_correct, f_incorrect, mean_correct, mean_incorrect, pile_rate; /* pile_rate NaN: no pile phase */
    double separation, separation_low, separation_high;                     /* f_correct - f_incorrect, Newcombe 95 % */
    double t, df, p;                                                        /* Welch, two-sided */
    double familywise_p, q; /* step-down max-T over all layers and latents (firing.h); Benjamini-Hochberg over Fisher's p. NaN: dropped by the Pile filter; 1:
                               never or always fires */
    double validation_separation;                                           /* the same score on the validation split */
    double mean_active;                                                     /* mean activation where it fires, both classes */
};

struct phase2;
int phase2_open(const char *run_directory, struct phase2 **out, struct pva_error *err); /* PVA_INPUT when phase 2 is not finished: says so */
void phase2_close(struct phase2 **p);
/* Whether both files of phase 2 are there with every layer. A damaged one sets err. */
int phase2_finished(const char *run_directory, struct pva_error *err);

/* The best n latents of a list, best first: those that pass the Pile filter and whose score speaks for the list's class (above 0). *n_found <= n. */
int phase2_top(struct phase2 *p, enum phase2_list list, int n, struct phase2_latent *out, int *n_found, struct pva_error *err);
/* Every latent of a layer, [n_latents], the caller frees: for matched controls and figures. */
int phase2_layer(struct phase2 *p, int layer, struct phase2_latent **out, int64_t *n_latents, struct pva_error *err);
/* One latent. */
int phase2_latent(struct phase2 *p, int layer, int64_t latent, struct phase2_latent *out, struct pva_error *err);

/* The file of the autoencoder phase 2 used at this layer, and its fingerprint. Valid until close. */
const char *phase2_sae_path(struct phase2 *p, int layer);
const char *phase2_sae_fingerprint(struct phase2 *p, int layer);
/* Mean Euclidean norm of the captured residual stream at this layer over the selection split: the unit "norm" of a coefficient. */
double phase2_mean_norm(struct phase2 *p, int layer);
/* "aligned" or "original". */
const char *phase2_alignment(struct phase2 *p);

#endif
