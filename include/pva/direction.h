/* direction.h - a direction of the residual stream with everything that decides what it means: layer, source, formula, sign, units.
 *
 * Every direction is of unit length: v / |v|, with |v| summed in double from the first element on, times its sign. What is added to the stream is
 * coefficient x scale x direction, where the scale is what one unit stands for:
 *
 *   norm        the mean Euclidean norm of the residual stream at this layer, so that -1 .. 1 is a sensible range at any depth
 *   raw         1
 *   activation  the mean activation of the latent where it fires
 */
#ifndef PVA_DIRECTION_H
#define PVA_DIRECTION_H

#include "pva/generator.h"
#include "pva/sae.h"

#ifdef __cplusplus
extern "C" {
#endif

enum pva_direction_source {
    PVA_DIRECTION_LATENT, /* row of W_dec of an autoencoder: number = the latent */
    PVA_DIRECTION_FILE,   /* a .npy of d_model numbers */
    PVA_DIRECTION_RANDOM, /* standard normal draws: uniform on the sphere. number = which */
    PVA_DIRECTION_VALUES, /* from memory: a probe's weights, a difference of means */
};
const char *pva_direction_source_name(enum pva_direction_source s); /* "latent", "file", "random", "values" */

struct pva_direction {
    enum pva_direction_source source;
    int layer;
    int64_t number;   /* latent, or number of the random direction; else -1 */
    int sign;         /* 1 or -1, already in `unit` */
    double length;    /* |v| before normalisation */
    char name[64];    /* "L16-11225", "-L16-11225", "random 3 at L16", "probe at L16" */
    char formula[160]; /* "W_dec[11225] / |W_dec[11225]|" */
    int64_t d_model;
    float *unit; /* [d_model] */
};

/* All fail with PVA_INPUT for a vector of length 0 or with a value that is not finite, PVA_IO without memory. Free with pva_direction_free. */
int pva_direction_from_latent(const struct pva_sae *sae, int layer, int64_t latent, struct pva_direction *out, struct pva_error *err);
/* path: .npy, d_model numbers in any shape. */
int pva_direction_from_file(const char *path, int layer, int64_t d_model, struct pva_direction *out, struct pva_error *err);
/* Element i is the normal draw of (seed, PVA_RNG_CONTROL, number, layer, i). */
int pva_direction_random(uint64_t seed, int layer, int64_t number, int64_t d_model, struct pva_direction *out, struct pva_error *err);
/* name: what it is, "probe". Copied. */
int pva_direction_from_values(const float *values, int64_t d_model, int layer, const char *name, struct pva_direction *out, struct pva_error *err);
void pva_direction_flip(struct pva_direction *d); /* the other sign */
void pva_direction_free(struct pva_direction *d);

enum pva_coefficient_units { PVA_UNITS_NORM, PVA_UNITS_RAW, PVA_UNITS_ACTIVATION };
const char *pva_coefficient_units_name(enum pva_coefficient_units u); /* "norm", "raw", "activation" */
int pva_coefficient_units_parse(const char *name, enum pva_coefficient_units *out, struct pva_error *err);

/* The value of --steer: layer=L,latent=J,coefficient=C or layer=L,vector=F.npy,coefficient=C, and optionally units=U with scale=S (what one unit is;
 * raw needs none), positions=all|last|generated (all), mode=add|ablate (add), sign=-1. Each key at most once, in any order. */
struct pva_steer {
    int layer;
    int64_t latent; /* -1: a file */
    char path[1024];
    double coefficient, scale; /* scale: 1 for raw */
    enum pva_coefficient_units units;
    enum pva_positions positions;
    enum pva_hook_action action;
    int sign;
};
int pva_steer_parse(const char *text, struct pva_steer *out, struct pva_error *err); /* PVA_USAGE */

#ifdef __cplusplus
}
#endif
#endif
