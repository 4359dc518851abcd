/* CRC-32 as zlib computes it, so that zlib.crc32 in Python checks a file. zlib alone does about 1 GB/s, which would halve the
 * write rate of the store; with carry-less multiplication it runs at memory speed.
 *
 * A CRC is the remainder of the message as a polynomial over GF(2). 64 bytes, read as four 128-bit polynomials, are carried over
 * the next 64 by multiplying their halves with x^n mod P, which leaves the remainder unchanged (Gopal et al., "Fast CRC
 * Computation for Generic Polynomials Using PCLMULQDQ", 2009, which also lists the constants for this P: x^(8n + 32) and x^(8n - 32) mod P with
 * their bits in reverse, shifted by one, to carry over n bytes). What is left in the end is a 16-byte message with the same remainder, and zlib
 * takes it from there. Processors with 512-bit registers carry 256 bytes at a time. */
#include "store_private.h"

#include <zlib.h>

static uint32_t crc_zlib(uint32_t crc, const unsigned char *p, size_t n) {
    while (n) { /* zlib counts in unsigned int */
        unsigned part = n > 1u << 30 ? 1u << 30 : (unsigned)n;
        crc = (uint32_t)crc32(crc, p, part);
        p += part, n -= part;
    }
    return crc;
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("pclmul,sse4.1"))) static inline __m128i fold(__m128i x, __m128i k, __m128i next) {
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(x, k, 0x00), _mm_clmulepi64_si128(x, k, 0x11)), next);
}

/* The remainder of the four polynomials x followed by the bytes from q to end. */
__attribute__((target("pclmul,sse4.1"))) static uint32_t crc_finish(const __m128i x[4], const __m128i *q, const unsigned char *end) {
    const __m128i over_64 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4), over_16 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
    __m128i x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
    for (; end - (const unsigned char *)q >= 64; q += 4) {
        x0 = fold(x0, over_64, _mm_loadu_si128(q));
        x1 = fold(x1, over_64, _mm_loadu_si128(q + 1));
        x2 = fold(x2, over_64, _mm_loadu_si128(q + 2));
        x3 = fold(x3, over_64, _mm_loadu_si128(q + 3));
    }
    x0 = fold(fold(fold(x0, over_16, x1), over_16, x2), over_16, x3);
    unsigned char rest[16];
    _mm_storeu_si128((__m128i *)rest, x0);
    uint32_t crc = (uint32_t)crc32(0xffffffffu, rest, sizeof rest); /* ~0 is zlib's name for a remainder of 0 */
    return crc_zlib(crc, (const unsigned char *)q, (size_t)(end - (const unsigned char *)q));
}

__attribute__((target("pclmul,sse4.1"))) static uint32_t crc_folded(uint32_t crc, const unsigned char *p, size_t n) {
    const __m128i *q = (const __m128i *)p;
    __m128i x[4];
    for (int i = 0; i < 4; i++) x[i] = _mm_loadu_si128(q + i);
    x[0] = _mm_xor_si128(x[0], _mm_cvtsi32_si128((int)~crc)); /* the remainder so far belongs to the first four bytes */
    return crc_finish(x, q + 4, p + n);
}

#define WIDE __attribute__((target("avx512f,vpclmulqdq,pclmul,sse4.1")))
WIDE static inline __m512i fold_wide(__m512i x, __m512i k, __m512i next) {
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(x, k, 0x00), _mm512_clmulepi64_epi128(x, k, 0x11), next, 0x96); /* a ^ b ^ c */
}

/* The same with sixteen polynomials: 256 bytes at a time over the next 256. */
WIDE static uint32_t crc_wide(uint32_t crc, const unsigned char *p, size_t n) {
    const __m512i over_256 = _mm512_broadcast_i32x4(_mm_set_epi64x(0x1322d1430, 0x11542778a));
    const __m512i over_64 = _mm512_broadcast_i32x4(_mm_set_epi64x(0x1c6e41596, 0x154442bd4));
    const unsigned char *end = p + n;
    __m512i x0 = _mm512_loadu_si512(p), x1 = _mm512_loadu_si512(p + 64), x2 = _mm512_loadu_si512(p + 128), x3 = _mm512_loadu_si512(p + 192);
    x0 = _mm512_xor_si512(x0, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)~crc)));
    for (p += 256; end - p >= 256; p += 256) {
        x0 = fold_wide(x0, over_256, _mm512_loadu_si512(p));
        x1 = fold_wide(x1, over_256, _mm512_loadu_si512(p + 64));
        x2 = fold_wide(x2, over_256, _mm512_loadu_si512(p + 128));
        x3 = fold_wide(x3, over_256, _mm512_loadu_si512(p + 192));
    }
    x0 = fold_wide(fold_wide(fold_wide(x0, over_64, x1), over_64, x2), over_64, x3);
    __m128i x[4];
    _mm512_storeu_si512(x, x0);
    return crc_finish(x, (const __m128i *)p, end);
}
#endif

uint32_t store_crc(uint32_t crc, const void *data, size_t bytes) {
#if defined(__x86_64__)
    if (bytes >= 512 && __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("pclmul"))
        return crc_wide(crc, data, bytes);
    if (bytes >= 256 && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1")) return crc_folded(crc, data, bytes);
#endif
    return crc_zlib(crc, data, bytes);
}
