#include "data.h"

#include <math.h>
#include <string.h>

enum { MOST_FEATURES = 512 };

/* Exactly n_active features: those with the largest draws. */
static void keep_largest(int n_features, int n_active, real *draws) {
    for (int k = 0; k < n_active; k++) {
        int best = -1;
        for (int f = 0; f < n_features; f++)
            if (draws[f] >= 0 && (best < 0 || draws[f] > draws[best])) best = f;
        if (best >= 0) draws[best] = -1; /* chosen */
    }
}

static void choose(const struct spd_data *d, int s, int ld, const real *draws, real *x) {
    real own[MOST_FEATURES];
    unsigned char active[MOST_FEATURES], group[MOST_FEATURES] = {0};
    for (int f = 0; f < d->n_features; f++) own[f] = draws[f * SPD_LANES];
    if (d->n_active) keep_largest(d->n_features, d->n_active, own);
    for (int f = 0; f < d->n_features; f++) {
        active[f] = d->n_active ? own[f] < 0 : own[f] < d->probability;
        if (active[f] && d->synced && d->synced[f] >= 0) group[d->synced[f]] = 1;
    }
    for (int f = 0; f < d->n_features; f++)
        if (!active[f] && !(d->synced && d->synced[f] >= 0 && group[d->synced[f]])) x[(size_t)f * ld + s] = 0;
}

void spd_data_fill(const struct spd_data *d, const struct spd_kernels *k, uint64_t seed, uint32_t step, enum spd_stream stream,
                   uint32_t first, int n, int ld, real *x) {
    const uint32_t use = spd_draw_use(stream, 0);
    const int plain = !d->n_active && !d->synced;
    real draws[MOST_FEATURES * SPD_LANES]; /* whether it is active; x holds the values meanwhile */
    for (int s = 0; s < n; s += SPD_LANES) {
        uint32_t sample[SPD_LANES];
        for (int l = 0; l < SPD_LANES; l++) sample[l] = first + (uint32_t)(s + l);
        for (int f = 0; f < d->n_features; f += 2) {
            real pair[4 * SPD_LANES];
            k->uniform(SPD_LANES, SPD_LANES, seed, step, sample, (uint32_t)f / 2, use, 4, pair);
            for (int i = 0; i < 2 && f + i < d->n_features; i++) {
                const real *p = pair + 2 * i * SPD_LANES, *v = p + SPD_LANES;
                real *out = x + (size_t)(f + i) * ld + s;
                if (plain)
                    for (int l = 0; l < SPD_LANES; l++) out[l] = p[l] < d->probability ? d->low + (d->high - d->low) * v[l] : 0;
                else {
                    for (int l = 0; l < SPD_LANES; l++) out[l] = d->low + (d->high - d->low) * v[l];
                    memcpy(draws + (f + i) * SPD_LANES, p, SPD_LANES * sizeof *p);
                }
            }
        }
        if (!plain)
            for (int l = 0; l < SPD_LANES; l++) choose(d, s + l, ld, draws + l, x);
    }
    for (int f = 0; f < d->n_features; f++)
        for (int s = n; s < spd_padded(n); s++) x[(size_t)f * ld + s] = 0;
}

static void words(uint64_t seed, uint32_t use, size_t block, uint32_t out[4]) {
    const uint32_t counter[4] = {0, 0, (uint32_t)block, spd_draw_use(SPD_DRAW_INIT, use)},
                   key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    pva_philox(counter, key, out);
}

void spd_draw_uniform(uint64_t seed, uint32_t use, size_t n, double *out) {
    uint32_t w[4];
    for (size_t i = 0; i < n; i++) {
        if (i % 4 == 0) words(seed, use, i / 4, w);
        out[i] = (w[i % 4] >> 8) * 0x1p-24;
    }
}

void spd_draw_normal(uint64_t seed, uint32_t use, size_t n, double *out) {
    uint32_t w[4];
    for (size_t i = 0; i < n; i++) {
        if (i % 2 == 0) words(seed, use, i / 2, w);
        double u = (w[0] + 1.0) * 0x1p-32, v = w[1] * 0x1p-32 * 6.283185307179586;
        out[i] = sqrt(-2 * log(u)) * (i % 2 ? sin(v) : cos(v));
    }
}
