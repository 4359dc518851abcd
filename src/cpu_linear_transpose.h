/* cpu_linear_transpose.h - sixteen registers of sixteen 32-bit lanes, turned over. The file that includes it defines INLINE. */
#ifndef CPU_LINEAR_TRANSPOSE_H
#define CPU_LINEAR_TRANSPOSE_H

enum { LANES = 16 };

/* out[i] = lane i of the sixteen inputs. */
INLINE void transpose(__m512 r[LANES]) {
    __m512 t[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i += 4) { /* r[i + q]: lane 4l + q of rows i .. i+3, for each quarter l */
        r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 16
    for (int q = 0; q < 4; q++) {
        __m512 even_low = _mm512_shuffle_f32x4(r[q], r[4 + q], 0x88), odd_low = _mm512_shuffle_f32x4(r[q], r[4 + q], 0xdd);
        __m512 even_high = _mm512_shuffle_f32x4(r[8 + q], r[12 + q], 0x88),
               odd_high = _mm512_shuffle_f32x4(r[8 + q], r[12 + q], 0xdd);
        t[q] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
        t[8 + q] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
        t[4 + q] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
        t[12 + q] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) r[i] = t[i];
}

INLINE __mmask16 first_lanes(int64_t n) { return (__mmask16)(n < LANES ? (1u << n) - 1 : 0xffffu); }

#endif
