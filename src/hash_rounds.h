/* hash_rounds.h - SHA-256 blocks by four-round steps, the way the x86 SHA extensions want them.
 *
 * No include guard: the includer defines ROUNDS2(cdgh, abef, wk), MSG1(a, b), MSG2(a, b) and BLOCKS_NAME, and gets a function of
 * that name. The library defines them as the instructions; the test also as plain C written from their definition in Intel's
 * manual, so that the order of the steps is proven on machines without them. Needs SSSE3 for the byte swap.
 *
 * The instructions keep the eight state words in two registers: {a,b,e,f} and {c,d,g,h}, the first letter in the highest lane.
 */
static void BLOCKS_NAME(uint32_t state[8], const uint8_t *data, size_t n_blocks) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i abef = _mm_set_epi32((int)state[0], (int)state[1], (int)state[4], (int)state[5]);
    __m128i cdgh = _mm_set_epi32((int)state[2], (int)state[3], (int)state[6], (int)state[7]);
    for (; n_blocks; n_blocks--, data += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4]; /* the last sixteen words of the message schedule, w[0] the oldest four */
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            __m128i now;
            if (i < 4) {
                now = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * i)), swap);
            } else {
                /* W[t] = s1(W[t-2]) + W[t-7] + s0(W[t-15]) + W[t-16]: MSG1 gives the last two terms, MSG2 adds the first. */
                now = MSG1(w[i & 3], w[(i + 1) & 3]);
                now = _mm_add_epi32(now, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
                now = MSG2(now, w[(i + 3) & 3]);
            }
            w[i & 3] = now;
            __m128i wk = _mm_add_epi32(now, _mm_loadu_si128((const __m128i *)(sha256_constants + 4 * i)));
            cdgh = ROUNDS2(cdgh, abef, wk); /* two rounds: the new {a,b,e,f}; the old one is the new {c,d,g,h} */
            abef = ROUNDS2(abef, cdgh, _mm_shuffle_epi32(wk, 0x0E));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    uint32_t left[4], right[4];
    _mm_storeu_si128((__m128i *)left, abef);
    _mm_storeu_si128((__m128i *)right, cdgh);
    state[0] = left[3], state[1] = left[2], state[4] = left[1], state[5] = left[0];
    state[2] = right[3], state[3] = right[2], state[6] = right[1], state[7] = right[0];
}
