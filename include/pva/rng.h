/* rng.h - counter-based random numbers.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC'11). A draw is a pure function of
 * its key and counter: no stream, no state, so a result cannot depend on the rank, the batch or a restart.
 */
#ifndef PVA_RNG_H
#define PVA_RNG_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a draw is for. Part of the counter, so that two uses of the same (seed, item, sample, step) never share a number. */
enum pva_rng_use {
    PVA_RNG_TOKEN = 1,       /* the next token of a completion */
    PVA_RNG_SPLIT = 2,       /* selection / tuning / validation */
    PVA_RNG_PILE = 3,        /* the position read in a general text */
    PVA_RNG_PERMUTATION = 4, /* label permutations */
    PVA_RNG_BOOTSTRAP = 5,   /* resampling of problems */
    PVA_RNG_CONTROL = 6,     /* random directions and matched latents */
    PVA_RNG_WEIGHTS = 7,     /* synthetic weights */
    PVA_RNG_SPD = 8,         /* stochastic masks and data of spd-run */
};

/* Ten rounds. out may alias counter. */
void pva_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Four 32-bit words for one (seed, use, item, sample, step). item < 2^32, sample < 2^24. */
void pva_rng_block(uint64_t seed, enum pva_rng_use use, uint32_t item, uint32_t sample, uint32_t step, uint32_t out[4]);

/* The first 53 bits of that block as a double in [0, 1). */
double pva_rng_uniform(uint64_t seed, enum pva_rng_use use, uint32_t item, uint32_t sample, uint32_t step);

/* A standard normal draw (Box-Muller on the same block). */
double pva_rng_normal(uint64_t seed, enum pva_rng_use use, uint32_t item, uint32_t sample, uint32_t step);

/* A uniform integer in [0, n), n >= 1, without modulo bias beyond 2^-64. */
uint64_t pva_rng_below(uint64_t seed, enum pva_rng_use use, uint32_t item, uint32_t sample, uint32_t step, uint64_t n);

#ifdef __cplusplus
}
#endif
#endif
