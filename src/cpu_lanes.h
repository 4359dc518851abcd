/* cpu_lanes.h - sixteen float32 lanes, the unit in which the CPU backend sums.
 *
 * A file that includes this defines one of CPU_LANES_AVX512, CPU_LANES_AVX2 or CPU_LANES_C first. The three give the same bits for
 * every operation: each lane does one IEEE operation, products and sums fuse only in lanes_fma, and lanes_sum adds the lanes in
 * one fixed tree. So the result of a row does not depend on the machine's instruction set.
 */
#ifndef CPU_LANES_H
#define CPU_LANES_H

#include "pva/tensorfile.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16

#if defined(CPU_LANES_AVX512)
#include <immintrin.h>

typedef __m512 lanes;
static inline lanes lanes_set(float v) { return _mm512_set1_ps(v); }
static inline lanes lanes_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void lanes_store(float *p, lanes a) { _mm512_storeu_ps(p, a); }
static inline lanes lanes_load_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}
static inline void lanes_store_bf16(uint16_t *p, lanes a) {
    __m512i u = _mm512_castps_si512(a), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    __m512i nan = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
    r = _mm512_mask_mov_epi32(r, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), nan);
    _mm256_storeu_si256((void *)p, _mm512_cvtepi32_epi16(r));
}
static inline lanes lanes_add(lanes a, lanes b) { return _mm512_add_ps(a, b); }
static inline lanes lanes_sub(lanes a, lanes b) { return _mm512_sub_ps(a, b); }
static inline lanes lanes_mul(lanes a, lanes b) { return _mm512_mul_ps(a, b); }
static inline lanes lanes_div(lanes a, lanes b) { return _mm512_div_ps(a, b); }
static inline lanes lanes_fma(lanes a, lanes b, lanes c) { return _mm512_fmadd_ps(a, b, c); }
static inline lanes lanes_max(lanes a, lanes b) { return _mm512_max_ps(a, b); }
static inline lanes lanes_min(lanes a, lanes b) { return _mm512_min_ps(a, b); }
static inline lanes lanes_round(lanes a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline lanes lanes_pow2(lanes n) { /* 2^n for whole n in [-126, 127] */
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
static inline lanes lanes_where_less(lanes a, lanes b, lanes yes, lanes no) {
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), yes);
}
static inline unsigned lanes_mask_less(lanes a, lanes b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); } /* bit j: a[j] < b[j] */

#elif defined(CPU_LANES_AVX2)
#include <immintrin.h>

typedef struct {
    __m256 lo, hi;
} lanes;
static inline lanes lanes_set(float v) { return (lanes){_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
static inline lanes lanes_load(const float *p) { return (lanes){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void lanes_store(float *p, lanes a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
static inline __m256 lanes_half_bf16(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16));
}
static inline lanes lanes_load_bf16(const uint16_t *p) { return (lanes){lanes_half_bf16(p), lanes_half_bf16(p + 8)}; }
static inline __m128i lanes_half_to_bf16(__m256 a) {
    __m256i u = _mm256_castps_si256(a), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    __m256i nan = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
    r = _mm256_blendv_epi8(r, nan, _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)));
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
static inline void lanes_store_bf16(uint16_t *p, lanes a) {
    _mm_storeu_si128((void *)p, lanes_half_to_bf16(a.lo));
    _mm_storeu_si128((void *)(p + 8), lanes_half_to_bf16(a.hi));
}
static inline lanes lanes_add(lanes a, lanes b) { return (lanes){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
static inline lanes lanes_sub(lanes a, lanes b) { return (lanes){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
static inline lanes lanes_mul(lanes a, lanes b) { return (lanes){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
static inline lanes lanes_div(lanes a, lanes b) { return (lanes){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
static inline lanes lanes_fma(lanes a, lanes b, lanes c) {
    return (lanes){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
static inline lanes lanes_max(lanes a, lanes b) { return (lanes){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
static inline lanes lanes_min(lanes a, lanes b) { return (lanes){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
static inline lanes lanes_round(lanes a) {
    return (lanes){_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                   _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
static inline __m256 lanes_half_pow2(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
static inline lanes lanes_pow2(lanes n) { return (lanes){lanes_half_pow2(n.lo), lanes_half_pow2(n.hi)}; }
static inline lanes lanes_where_less(lanes a, lanes b, lanes yes, lanes no) {
    return (lanes){_mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
                   _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
static inline unsigned lanes_mask_less(lanes a, lanes b) {
    unsigned lo = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ));
    return lo | (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)) << 8;
}

#else

typedef struct {
    float v[LANES];
} lanes;
#define LANES_OF(expression) \
    lanes r; \
    for (int j = 0; j < LANES; j++) r.v[j] = (expression); \
    return r
static inline lanes lanes_set(float v) { LANES_OF(v); }
static inline lanes lanes_load(const float *p) { LANES_OF(p[j]); }
static inline void lanes_store(float *p, lanes a) { memcpy(p, a.v, sizeof a.v); }
static inline lanes lanes_load_bf16(const uint16_t *p) { LANES_OF(pva_bf16_to_f32(p[j])); }
static inline void lanes_store_bf16(uint16_t *p, lanes a) {
    for (int j = 0; j < LANES; j++) p[j] = pva_f32_to_bf16(a.v[j]);
}
static inline lanes lanes_add(lanes a, lanes b) { LANES_OF(a.v[j] + b.v[j]); }
static inline lanes lanes_sub(lanes a, lanes b) { LANES_OF(a.v[j] - b.v[j]); }
static inline lanes lanes_mul(lanes a, lanes b) { LANES_OF(a.v[j] * b.v[j]); }
static inline lanes lanes_div(lanes a, lanes b) { LANES_OF(a.v[j] / b.v[j]); }
static inline lanes lanes_fma(lanes a, lanes b, lanes c) { LANES_OF(fmaf(a.v[j], b.v[j], c.v[j])); }
/* As the vector instructions: the second operand when the two do not compare. */
static inline lanes lanes_max(lanes a, lanes b) { LANES_OF(a.v[j] > b.v[j] ? a.v[j] : b.v[j]); }
static inline lanes lanes_min(lanes a, lanes b) { LANES_OF(a.v[j] < b.v[j] ? a.v[j] : b.v[j]); }
static inline lanes lanes_round(lanes a) { LANES_OF(rintf(a.v[j])); }
static inline float lanes_one_pow2(float n) {
    union { uint32_t u; float f; } v = {n >= -126 && n <= 127 ? (uint32_t)((int32_t)n + 127) << 23 : 0};
    return v.f;
}
static inline lanes lanes_pow2(lanes n) { LANES_OF(lanes_one_pow2(n.v[j])); }
static inline lanes lanes_where_less(lanes a, lanes b, lanes yes, lanes no) { LANES_OF(a.v[j] < b.v[j] ? yes.v[j] : no.v[j]); }
static inline unsigned lanes_mask_less(lanes a, lanes b) {
    unsigned mask = 0;
    for (int j = 0; j < LANES; j++) mask |= (unsigned)(a.v[j] < b.v[j]) << j;
    return mask;
}
#undef LANES_OF

#endif

/* The last n < 16 elements; the missing lanes are zero. */
static inline lanes lanes_load_part(const float *p, int64_t n) {
    float part[LANES] = {0};
    memcpy(part, p, (size_t)n * sizeof *p);
    return lanes_load(part);
}
static inline lanes lanes_load_part_bf16(const uint16_t *p, int64_t n) {
    uint16_t part[LANES] = {0};
    memcpy(part, p, (size_t)n * sizeof *p);
    return lanes_load_bf16(part);
}
static inline void lanes_store_part(float *p, lanes a, int64_t n) {
    float part[LANES];
    lanes_store(part, a);
    memcpy(p, part, (size_t)n * sizeof *p);
}
static inline void lanes_store_part_bf16(uint16_t *p, lanes a, int64_t n) {
    uint16_t part[LANES];
    lanes_store_bf16(part, a);
    memcpy(p, part, (size_t)n * sizeof *p);
}

/* (0+8, 1+9, ...), then +4, +2, +1. */
static inline float lanes_sum(lanes a) {
    float v[LANES];
    lanes_store(v, a);
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) v[j] += v[j + half];
    return v[0];
}

/* exp(x) for x <= 88, about 1 unit in the last place: x = n ln 2 + r, |r| <= ln 2 / 2, a degree-6 polynomial in r (Taylor's
 * coefficients, the last two adjusted to the interval). Below -87.3 it stays at 1.2e-38. NaN stays NaN. */
static inline lanes lanes_exp(lanes x) {
    x = lanes_min(lanes_set(88.0f), lanes_max(lanes_set(-87.3f), x));
    lanes n = lanes_round(lanes_mul(x, lanes_set(1.44269504f)));
    lanes r = lanes_fma(n, lanes_set(-0.693359375f), x);
    r = lanes_fma(n, lanes_set(2.12194440e-4f), r);
    lanes p = lanes_set(1.3981999e-3f);
    p = lanes_fma(p, r, lanes_set(8.3334519e-3f));
    p = lanes_fma(p, r, lanes_set(4.16657962e-2f));
    p = lanes_fma(p, r, lanes_set(1.66666657e-1f));
    p = lanes_fma(p, r, lanes_set(0.5f));
    p = lanes_fma(p, r, lanes_set(1.0f));
    p = lanes_fma(p, r, lanes_set(1.0f));
    return lanes_mul(p, lanes_pow2(n));
}

/* tanh(x): x + x^3 P(x^2) for |x| < 0.625 (Cephes' minimax coefficients), else 1 - 2 / (exp(2|x|) + 1) with x's sign. */
static inline lanes lanes_tanh(lanes x) {
    lanes zero = lanes_set(0.0f), minus = lanes_sub(zero, x), size = lanes_max(minus, x), x2 = lanes_mul(x, x);
    lanes p = lanes_set(-5.70498872745e-3f);
    p = lanes_fma(p, x2, lanes_set(2.06390887954e-2f));
    p = lanes_fma(p, x2, lanes_set(-5.37397155531e-2f));
    p = lanes_fma(p, x2, lanes_set(1.33314422036e-1f));
    p = lanes_fma(p, x2, lanes_set(-3.33332819422e-1f));
    lanes small = lanes_fma(lanes_mul(p, x2), x, x);
    lanes e = lanes_exp(lanes_add(size, size));
    lanes big = lanes_sub(lanes_set(1.0f), lanes_div(lanes_set(2.0f), lanes_add(e, lanes_set(1.0f))));
    big = lanes_where_less(x, zero, lanes_sub(zero, big), big);
    return lanes_where_less(size, lanes_set(0.625f), small, big);
}
#endif
