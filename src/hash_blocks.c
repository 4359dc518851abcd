#include "hash_blocks.h"

#include <string.h>

const uint32_t sha256_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static inline uint32_t big_endian(const uint8_t *p) {
    uint32_t w;
    memcpy(&w, p, 4);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    w = __builtin_bswap32(w);
#endif
    return w;
}

/* One round with the eight words in place: the caller renames them instead of moving them. */
#define ROUND(a, b, c, d, e, f, g, h, wk) \
    do { \
        h += (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + (g ^ (e & (f ^ g))) + (wk); \
        d += h; \
        h += (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) | (c & (a | b))); \
    } while (0)

static inline __attribute__((always_inline)) void blocks(uint32_t state[8], const uint8_t *data, size_t n_blocks) {
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
    for (; n_blocks; n_blocks--, data += 64) {
        uint32_t w[16]; /* the last sixteen words of the message schedule, a ring */
        for (int i = 0; i < 16; i++) w[i] = big_endian(data + 4 * i);
        for (int t = 0; t < 64; t += 16) {
            if (t)
#pragma GCC unroll 16
                for (int i = 0; i < 16; i++) {
                    uint32_t x = w[(i + 1) & 15], y = w[(i + 14) & 15];
                    w[i] += (rotate(x, 7) ^ rotate(x, 18) ^ x >> 3) + w[(i + 9) & 15] + (rotate(y, 17) ^ rotate(y, 19) ^ y >> 10);
                }
            const uint32_t *k = sha256_constants + t;
#pragma GCC unroll 2
            for (int i = 0; i < 16; i += 8) {
                ROUND(a, b, c, d, e, f, g, h, w[i] + k[i]);
                ROUND(h, a, b, c, d, e, f, g, w[i + 1] + k[i + 1]);
                ROUND(g, h, a, b, c, d, e, f, w[i + 2] + k[i + 2]);
                ROUND(f, g, h, a, b, c, d, e, w[i + 3] + k[i + 3]);
                ROUND(e, f, g, h, a, b, c, d, w[i + 4] + k[i + 4]);
                ROUND(d, e, f, g, h, a, b, c, w[i + 5] + k[i + 5]);
                ROUND(c, d, e, f, g, h, a, b, w[i + 6] + k[i + 6]);
                ROUND(b, c, d, e, f, g, h, a, w[i + 7] + k[i + 7]);
            }
        }
        a = state[0] += a, b = state[1] += b, c = state[2] += c, d = state[3] += d;
        e = state[4] += e, f = state[5] += f, g = state[6] += g, h = state[7] += h;
    }
}

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

/* RORX and ANDN (BMI) save a fifth of the plain instructions; the arithmetic is the same. */
__attribute__((target("bmi,bmi2"))) static void blocks_bmi(uint32_t state[8], const uint8_t *data, size_t n_blocks) {
    blocks(state, data, n_blocks);
}

void sha256_blocks_portable(uint32_t state[8], const uint8_t *data, size_t n_blocks) {
    if (__builtin_cpu_supports("bmi2") && __builtin_cpu_supports("bmi")) blocks_bmi(state, data, n_blocks);
    else blocks(state, data, n_blocks);
}

int sha256_has_instructions(void) {
    static int known = -1; /* every thread computes the same value, so a race is harmless */
    int answer = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (answer >= 0) return answer;
    unsigned a, b, c, d;
    /* CPUID leaf 7, EBX bit 29: the SHA extensions. They use the same registers as SSE, which every x86-64 system saves. */
    answer = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1) && __builtin_cpu_supports("sse4.1");
    __atomic_store_n(&known, answer, __ATOMIC_RELAXED);
    return answer;
}

#pragma GCC push_options
#pragma GCC target("sha,sse4.1")
#define ROUNDS2(cdgh, abef, wk) _mm_sha256rnds2_epu32(cdgh, abef, wk)
#define MSG1(a, b) _mm_sha256msg1_epu32(a, b)
#define MSG2(a, b) _mm_sha256msg2_epu32(a, b)
#define BLOCKS_NAME blocks_instructions
#include "hash_rounds.h"
#pragma GCC pop_options

void sha256_blocks_instructions(uint32_t state[8], const uint8_t *data, size_t n_blocks) {
    blocks_instructions(state, data, n_blocks);
}

#else

void sha256_blocks_portable(uint32_t state[8], const uint8_t *data, size_t n_blocks) { blocks(state, data, n_blocks); }
int sha256_has_instructions(void) { return 0; }
void sha256_blocks_instructions(uint32_t state[8], const uint8_t *data, size_t n_blocks) {
    (void)state, (void)data, (void)n_blocks;
}

#endif
