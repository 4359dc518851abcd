#include "cpu_bits.h"

#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq")
#include <immintrin.h>

/* 32 columns at a time: a row's word is broadcast once for four vectors of columns, so that a (row, column, word) costs an and, a count and an addition in
 * an eighth of a vector each. The columns' words come from the first-level cache; the extremes stay in registers over all rows. */
void cpu_bits_extremes_avx512(const uint64_t *rows, int64_t n_rows, int64_t n_words, const uint64_t *columns, int64_t n_columns, int64_t *high, int64_t *low) {
    enum { VECTORS = PVA_BITS_COLUMNS / 8 };
    for (int64_t c = 0; c < n_columns; c += PVA_BITS_COLUMNS) {
        __m512i most[VECTORS], least[VECTORS];
        for (int i = 0; i < VECTORS; i++) most[i] = _mm512_loadu_si512(high + c + 8 * i), least[i] = _mm512_loadu_si512(low + c + 8 * i);
        for (int64_t r = 0; r < n_rows; r++) {
            const uint64_t *row = rows + r * n_words, *column = columns + c;
            __m512i sum[VECTORS];
            for (int i = 0; i < VECTORS; i++) sum[i] = _mm512_setzero_si512();
            for (int64_t w = 0; w < n_words; w++, column += n_columns) {
                __m512i word = _mm512_set1_epi64((long long)row[w]);
                for (int i = 0; i < VECTORS; i++)
                    sum[i] = _mm512_add_epi64(sum[i], _mm512_popcnt_epi64(_mm512_and_si512(word, _mm512_loadu_si512(column + 8 * i))));
            }
            for (int i = 0; i < VECTORS; i++) most[i] = _mm512_max_epi64(most[i], sum[i]), least[i] = _mm512_min_epi64(least[i], sum[i]);
        }
        for (int i = 0; i < VECTORS; i++) _mm512_storeu_si512(high + c + 8 * i, most[i]), _mm512_storeu_si512(low + c + 8 * i, least[i]);
    }
}
#else
void cpu_bits_extremes_avx512(const uint64_t *rows, int64_t n_rows, int64_t n_words, const uint64_t *columns, int64_t n_columns, int64_t *high, int64_t *low) {
    cpu_bits_extremes_c(rows, n_rows, n_words, columns, n_columns, high, low); /* never chosen here */
}
#endif
