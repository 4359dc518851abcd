/* bits.h - how much sets overlap: counts of the bits that two bit sets share, for many pairs at once.
 *
 * A set over n items is n_words = ceil(n / 64) words; item i is bit i % 64 of word i / 64; bits beyond n are 0. All instruction sets (AVX-512 with VPOPCNTDQ,
 * AVX2, plain C, chosen at run time) give the same numbers, for they count.
 */
#ifndef PVA_BITS_H
#define PVA_BITS_H

#include "pva/error.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PVA_BITS_COLUMNS = 32 }; /* columns come in multiples of this */

static inline int64_t pva_bits_words(int64_t n_items) { return (n_items + 63) / 64; }

int64_t pva_bits_count(const uint64_t *set, int64_t n_words);
int64_t pva_bits_count_and(const uint64_t *a, const uint64_t *b, int64_t n_words);

/* high[c] = max(high[c], max over rows r of |row r and column c|), low[c] likewise the least; start with 0 and INT32_MAX.
 * rows [n_rows, n_words]; columns [n_words, n_columns]: the words of n_columns sets side by side, n_columns a multiple of PVA_BITS_COLUMNS; high, low
 * [n_columns]. The work is n_rows * n_words * n_columns words. */
void pva_bits_extremes(const uint64_t *rows, int64_t n_rows, int64_t n_words, const uint64_t *columns, int64_t n_columns, int64_t *high, int64_t *low);

/* The instruction set in use: "avx512", "avx2" or "c". choose: another one, for tests and benchmarks, before any thread counts; NULL: the best. PVA_USAGE
 * when this machine does not have it. */
const char *pva_bits_isa(void);
int pva_bits_choose(const char *isa, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
