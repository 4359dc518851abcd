#include "pva/rng.h"

#include <math.h>

void pva_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

void pva_rng_block(uint64_t seed, enum pva_rng_use use, uint32_t item, uint32_t sample, uint32_t step, uint32_t out[4]) {
    uint32_t counter[4] = {step, item, sample, (uint32_t)use}, key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    pva_philox(counter, key, out);
}

static double unit(uint32_t high, uint32_t low) { return (double)(((uint64_t)high << 32 | low) >> 11) * 0x1p-53; }

double pva_rng_uniform(uint64_t seed, enum pva_rng_use use, uint32_t item, uint32_t sample, uint32_t step) {
    uint32_t w[4];
    pva_rng_block(seed, use, item, sample, step, w);
    return unit(w[0], w[1]);
}

double pva_rng_normal(uint64_t seed, enum pva_rng_use use, uint32_t item, uint32_t sample, uint32_t step) {
    uint32_t w[4];
    pva_rng_block(seed, use, item, sample, step, w);
    double u = 1.0 - unit(w[0], w[1]), v = unit(w[2], w[3]); /* u in (0, 1], so the logarithm is finite */
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

uint64_t pva_rng_below(uint64_t seed, enum pva_rng_use use, uint32_t item, uint32_t sample, uint32_t step, uint64_t n) {
    uint32_t w[4];
    pva_rng_block(seed, use, item, sample, step, w);
    uint64_t r = (uint64_t)w[0] << 32 | w[1];
    return (uint64_t)(((unsigned __int128)r * n) >> 64);
}
