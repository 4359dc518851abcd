/* CRC-32 as zlib computes it, so that zlib.crc32 in Python checks a file. zlib alone does about 1 GB/s, which would halve the
 * write rate of the store; with carry-less multiplication it runs at memory speed.
 *
 * A CRC is the remainder of the message as a polynomial over GF(2). 64 bytes, read as four 128-bit polynomials, are carried over
 * the next 64 by multiplying their halves with x^n mod P, which leaves the remainder unchanged (Gopal et al., "Fast CRC
 * Computation for Generic Polynomials Using PCLMULQDQ", 2009, which also lists the constants for this P). What is left in the end
 * is a 16-byte message with the same remainder, and zlib takes it from there. */
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

__attribute__((target("pclmul,sse4.1"))) static uint32_t crc_folded(uint32_t crc, const unsigned char *p, size_t n) {
    const __m128i over_64 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4), over_16 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
    const __m128i *q = (const __m128i *)p;
    __m128i x0 = _mm_loadu_si128(q), x1 = _mm_loadu_si128(q + 1), x2 = _mm_loadu_si128(q + 2), x3 = _mm_loadu_si128(q + 3);
    x0 = _mm_xor_si128(x0, _mm_cvtsi32_si128((int)~crc)); /* the remainder so far belongs to the first four bytes */
    for (q += 4, n -= 64; n >= 64; q += 4, n -= 64) {
        x0 = fold(x0, over_64, _mm_loadu_si128(q));
        x1 = fold(x1, over_64, _mm_loadu_si128(q + 1));
        x2 = fold(x2, over_64, _mm_loadu_si128(q + 2));
        x3 = fold(x3, over_64, _mm_loadu_si128(q + 3));
    }
    x0 = fold(fold(fold(x0, over_16, x1), over_16, x2), over_16, x3);
    unsigned char rest[16];
    _mm_storeu_si128((__m128i *)rest, x0);
    crc = (uint32_t)crc32(0xffffffffu, rest, sizeof rest); /* ~0 is zlib's name for a remainder of 0 */
    return crc_zlib(crc, (const unsigned char *)q, n);
}
#endif

uint32_t store_crc(uint32_t crc, const void *data, size_t bytes) {
#if defined(__x86_64__)
    if (bytes >= 256 && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1")) return crc_folded(crc, data, bytes);
#endif
    return crc_zlib(crc, data, bytes);
}
