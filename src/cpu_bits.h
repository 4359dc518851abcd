/* cpu_bits.h - the instruction sets behind bits.h. */
#ifndef CPU_BITS_H
#define CPU_BITS_H

#include "pva/bits.h"

typedef void (*cpu_bits_extremes)(const uint64_t *rows, int64_t n_rows, int64_t n_words, const uint64_t *columns, int64_t n_columns, int64_t *high, int64_t *low);

void cpu_bits_extremes_c(const uint64_t *, int64_t, int64_t, const uint64_t *, int64_t, int64_t *, int64_t *);
void cpu_bits_extremes_avx2(const uint64_t *, int64_t, int64_t, const uint64_t *, int64_t, int64_t *, int64_t *);
void cpu_bits_extremes_avx512(const uint64_t *, int64_t, int64_t, const uint64_t *, int64_t, int64_t *, int64_t *);

#endif
