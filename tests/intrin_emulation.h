/* intrin_emulation.h - the intrinsics of cpu_linear_avx512bf16.c and cpu_linear_amx.c in plain C, so that their logic is tested
 * on machines that do not have the instructions. A test includes this file, then the source.
 *
 * VDPBF16PS and TDPBF16PS follow the pseudo-code of Intel's instruction set reference: products are added by fused multiply-add,
 * rounded to nearest even; denormal inputs, bfloat16 and float32, count as zero; denormal results become zero. */
#ifndef INTRIN_EMULATION_H
#define INTRIN_EMULATION_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    uint32_t u[16]; /* lanes as bits, so that a pair of bfloat16 travels unchanged */
} emulated_m512;
typedef uint16_t emulated_mask16;

#define __m512 emulated_m512
#define __m512i emulated_m512
#define __mmask16 emulated_mask16
#define TARGET
#define KEEP(v)
#define AS_PAIRS(v) (v)
#define _MM_HINT_T0 0
#define _MM_HINT_T1 0
#define _mm_prefetch(p, hint) ((void)(p))

static inline float emulated_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t emulated_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline __m512 _mm512_setzero_ps(void) { return (__m512){{0}}; }

static inline __m512 _mm512_set1_ps(float f) {
    __m512 r;
    for (int i = 0; i < 16; i++) memcpy(&r.u[i], &f, sizeof f);
    return r;
}

static inline __m512 _mm512_loadu_ps(const void *p) {
    __m512 r;
    memcpy(&r, p, sizeof r);
    return r;
}

static inline __m512i _mm512_maskz_loadu_epi8(uint64_t mask, const void *p) {
    __m512i r = {{0}};
    for (int i = 0; i < 64; i++)
        if (mask >> i & 1) memcpy((char *)&r + i, (const char *)p + i, 1); /* masked bytes are not touched */
    return r;
}

static inline __m512 _mm512_castsi512_ps(__m512i v) { return v; }

static inline void _mm512_storeu_ps(void *p, __m512 v) { memcpy(p, &v, sizeof v); }

static inline void _mm512_mask_storeu_ps(void *p, __mmask16 mask, __m512 v) {
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) memcpy((char *)p + 4 * i, &v.u[i], 4);
}

static inline __m512 _mm512_add_ps(__m512 a, __m512 b) {
    for (int i = 0; i < 16; i++) a.u[i] = emulated_bits(emulated_float(a.u[i]) + emulated_float(b.u[i]));
    return a;
}

/* Quarters of a, a, b, b as two bits each say. */
static inline __m512 _mm512_shuffle_f32x4(__m512 a, __m512 b, int which) {
    __m512 r;
    for (int q = 0; q < 4; q++) memcpy(r.u + 4 * q, (q < 2 ? a.u : b.u) + 4 * (which >> 2 * q & 3), 16);
    return r;
}

/* The same with the lanes of each quarter. */
static inline __m512 _mm512_shuffle_ps(__m512 a, __m512 b, int which) {
    __m512 r;
    for (int i = 0; i < 16; i++) r.u[i] = (i % 4 < 2 ? a.u : b.u)[i / 4 * 4 + (which >> 2 * (i % 4) & 3)];
    return r;
}

static inline __m512 _mm512_unpacklo_ps(__m512 a, __m512 b) {
    __m512 r;
    for (int i = 0; i < 16; i++) r.u[i] = (i % 2 ? b.u : a.u)[i / 4 * 4 + i % 4 / 2];
    return r;
}

static inline __m512 _mm512_unpackhi_ps(__m512 a, __m512 b) {
    __m512 r;
    for (int i = 0; i < 16; i++) r.u[i] = (i % 2 ? b.u : a.u)[i / 4 * 4 + 2 + i % 4 / 2];
    return r;
}

/* ---- bfloat16 products */

static inline float emulated_flush(float f) { return fabsf(f) < 0x1p-126f ? copysignf(0, f) : f; } /* a NaN stays */

/* sum + a * b, where a and b are the low (0) or high (1) halves of their lanes. */
static inline float emulated_fma(float sum, uint32_t a, uint32_t b, int high) {
    float fa = emulated_flush(emulated_float(high ? a & 0xffff0000u : a << 16));
    float fb = emulated_flush(emulated_float(high ? b & 0xffff0000u : b << 16));
    return emulated_flush(fmaf(fa, fb, emulated_flush(sum)));
}

static inline __m512 _mm512_dpbf16_ps(__m512 sum, __m512 a, __m512 b) {
    for (int i = 0; i < 16; i++) {
        float s = emulated_fma(emulated_float(sum.u[i]), a.u[i], b.u[i], 1);
        sum.u[i] = emulated_bits(emulated_fma(s, a.u[i], b.u[i], 0));
    }
    return sum;
}

/* ---- tiles: one thread's at a time is enough, tests of the emulated kernel with several threads have a copy each */

struct emulated_tile {
    uint32_t row[16][16];
};
static _Thread_local struct emulated_tile emulated_tiles[8];
static _Thread_local int emulated_tiles_ready;

/* Only the shape that the kernel uses is there: palette 1, all tiles 16 rows of 64 bytes. Anything else would fault or behave
 * otherwise on hardware, so it ends the test. */
static inline void _tile_loadconfig(const void *config) {
    const unsigned char *c = config;
    int ok = c[0] == 1 && c[1] == 0;
    for (int t = 0; t < 8; t++) ok &= c[16 + 2 * t] == 64 && c[17 + 2 * t] == 0 && c[48 + t] == 16;
    for (int t = 8; t < 16; t++) ok &= c[16 + 2 * t] == 0 && c[17 + 2 * t] == 0 && c[48 + t] == 0;
    if (!ok) __builtin_trap();
    memset(emulated_tiles, 0, sizeof emulated_tiles);
    emulated_tiles_ready = 1;
}

static inline void _tile_release(void) { emulated_tiles_ready = 0; }

static inline struct emulated_tile *emulated_tile(int t) {
    if (!emulated_tiles_ready || t < 0 || t > 7) __builtin_trap(); /* the hardware's fault */
    return &emulated_tiles[t];
}

static inline void _tile_zero(int t) { memset(emulated_tile(t), 0, sizeof(struct emulated_tile)); }

static inline void _tile_loadd(int t, const void *base, int64_t stride) {
    for (int r = 0; r < 16; r++) memcpy(emulated_tile(t)->row[r], (const char *)base + r * stride, 64);
}

static inline void _tile_stored(int t, void *base, int64_t stride) {
    for (int r = 0; r < 16; r++) memcpy((char *)base + r * stride, emulated_tile(t)->row[r], 64);
}

static inline void _tile_dpbf16ps(int sum, int a, int b) {
    const struct emulated_tile *ta = emulated_tile(a), *tb = emulated_tile(b);
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            float even = 0, odd = 0;
            for (int p = 0; p < 16; p++) {
                even = emulated_fma(even, ta->row[m][p], tb->row[p][n], 0);
                odd = emulated_fma(odd, ta->row[m][p], tb->row[p][n], 1);
            }
            float *s = (float *)&emulated_tile(sum)->row[m][n], old;
            memcpy(&old, s, sizeof old);
            float r = emulated_flush(emulated_flush(old) + emulated_flush(even + odd));
            memcpy(s, &r, sizeof r);
        }
}

#endif
