#include "cpu_bits.h"

#if defined(__x86_64__)
#pragma GCC target("avx2")
#include <immintrin.h>

/* Bits are counted by a table lookup per half byte (Mula); sums stay bytes for up to 31 words, which hold at most 8 * 31 = 248 each, and are then added up. */
void cpu_bits_extremes_avx2(const uint64_t *rows, int64_t n_rows, int64_t n_words, const uint64_t *columns, int64_t n_columns, int64_t *high, int64_t *low) {
    enum { VECTORS = 4, AT_ONCE = 4 * VECTORS, WORDS = 31 };
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i half = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
    for (int64_t c = 0; c < n_columns; c += AT_ONCE)
        for (int64_t r = 0; r < n_rows; r++) {
            __m256i sum[VECTORS] = {zero, zero, zero, zero};
            for (int64_t w0 = 0; w0 < n_words; w0 += WORDS) {
                int64_t end = n_words - w0 < WORDS ? n_words : w0 + WORDS;
                __m256i bytes[VECTORS] = {zero, zero, zero, zero};
                for (int64_t w = w0; w < end; w++) {
                    __m256i word = _mm256_set1_epi64x((long long)rows[r * n_words + w]);
                    for (int i = 0; i < VECTORS; i++) {
                        __m256i both = _mm256_and_si256(word, _mm256_loadu_si256((const __m256i *)(columns + w * n_columns + c + 4 * i)));
                        __m256i right = _mm256_shuffle_epi8(table, _mm256_and_si256(both, half));
                        __m256i left = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(both, 4), half));
                        bytes[i] = _mm256_add_epi8(bytes[i], _mm256_add_epi8(right, left));
                    }
                }
                for (int i = 0; i < VECTORS; i++) sum[i] = _mm256_add_epi64(sum[i], _mm256_sad_epu8(bytes[i], zero));
            }
            /* Counts are below 2^31, so the upper halves are 0 and 32-bit comparisons do. */
            for (int i = 0; i < VECTORS; i++) {
                __m256i *most = (__m256i *)(high + c + 4 * i), *least = (__m256i *)(low + c + 4 * i);
                _mm256_storeu_si256(most, _mm256_max_epi32(_mm256_loadu_si256(most), sum[i]));
                _mm256_storeu_si256(least, _mm256_min_epi32(_mm256_loadu_si256(least), sum[i]));
            }
        }
}
#else
void cpu_bits_extremes_avx2(const uint64_t *rows, int64_t n_rows, int64_t n_words, const uint64_t *columns, int64_t n_columns, int64_t *high, int64_t *low) {
    cpu_bits_extremes_c(rows, n_rows, n_words, columns, n_columns, high, low); /* never chosen here */
}
#endif
