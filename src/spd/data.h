/* data.h - synthetic inputs: sparse vectors, each a pure function of (seed, step, sample). Also the numbering of all draws.
 *
 * Philox counter: {step, sample, place, PVA_RNG_SPD | stream << 8 | use << 16}; key: the seed. For data, place is the pair of
 * features; for masks module << 24 | component / 4; for initial values the number of the draw / 4.
 */
#ifndef SPD_DATA_H
#define SPD_DATA_H

#include "kernels.h"

#include "pva/rng.h"

enum spd_stream { SPD_DRAW_TRAIN, SPD_DRAW_EVAL, SPD_DRAW_MASK, SPD_DRAW_INIT };

static inline uint32_t spd_draw_use(enum spd_stream stream, uint32_t use) {
    return (uint32_t)PVA_RNG_SPD | (uint32_t)stream << 8 | use << 16;
}

struct spd_data {
    int n_features;
    int n_active; /* exactly so many; 0: each with `probability` */
    real probability;
    real low, high;    /* of an active feature's value */
    const int *synced; /* [n_features] group or -1; NULL: none. One active member makes the whole group active, each with its own
                          value */
};

/* Rows x[feature][ld], columns [0, n): samples first, first + 1, ...; columns from n to the next multiple of SPD_LANES are 0. */
void spd_data_fill(const struct spd_data *d, const struct spd_kernels *k, uint64_t seed, uint32_t step, enum spd_stream stream,
                   uint32_t first, int n, int ld, real *x);

/* n draws of use `use`: uniform in [0, 1), or standard normal. In double: the same values whatever `real` is. */
void spd_draw_uniform(uint64_t seed, uint32_t use, size_t n, double *out);
void spd_draw_normal(uint64_t seed, uint32_t use, size_t n, double *out);

static inline int spd_padded(int n) { return (n + SPD_LANES - 1) / SPD_LANES * SPD_LANES; }

#endif
