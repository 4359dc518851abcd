#include "cpu_bits.h"
#include "cpu_isa.h"

#include <string.h>

/* Without an instruction for it: pairs, nibbles, bytes, then the sum of the bytes in the highest one. */
static inline uint64_t count_word(uint64_t x) {
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    return ((x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56;
}

int64_t pva_bits_count(const uint64_t *set, int64_t n_words) { return pva_bits_count_and(set, set, n_words); }

int64_t pva_bits_count_and(const uint64_t *a, const uint64_t *b, int64_t n_words) {
    uint64_t sum = 0;
    for (int64_t w = 0; w < n_words; w++) sum += count_word(a[w] & b[w]);
    return (int64_t)sum;
}

void cpu_bits_extremes_c(const uint64_t *rows, int64_t n_rows, int64_t n_words, const uint64_t *columns, int64_t n_columns, int64_t *high, int64_t *low) {
    enum { AT_ONCE = 8 };
    for (int64_t c = 0; c < n_columns; c += AT_ONCE)
        for (int64_t r = 0; r < n_rows; r++) {
            uint64_t sum[AT_ONCE] = {0};
            for (int64_t w = 0; w < n_words; w++) {
                uint64_t word = rows[r * n_words + w];
                const uint64_t *column = columns + w * n_columns + c;
                for (int i = 0; i < AT_ONCE; i++) sum[i] += count_word(word & column[i]);
            }
            for (int i = 0; i < AT_ONCE; i++) {
                if ((int64_t)sum[i] > high[c + i]) high[c + i] = (int64_t)sum[i];
                if ((int64_t)sum[i] < low[c + i]) low[c + i] = (int64_t)sum[i];
            }
        }
}

static const struct {
    const char *name;
    cpu_bits_extremes extremes;
} sets[] = {{"c", cpu_bits_extremes_c}, {"avx2", cpu_bits_extremes_avx2}, {"avx512", cpu_bits_extremes_avx512}};
enum { N_SETS = sizeof sets / sizeof *sets };

static int available(int set) {
#if defined(__x86_64__)
    if (set == 1) return cpu_isa_available(CPU_AVX2);
    if (set == 2) return cpu_isa_available(CPU_AVX512) && __builtin_cpu_supports("avx512vpopcntdq");
#endif
    return set == 0;
}

static int in_use = -1; /* read and written whole; two threads that find it unset find the same value */

static int current(void) {
    int set = __atomic_load_n(&in_use, __ATOMIC_RELAXED);
    if (set >= 0) return set;
    for (set = N_SETS - 1; !available(set);) set--;
    __atomic_store_n(&in_use, set, __ATOMIC_RELAXED);
    return set;
}

const char *pva_bits_isa(void) { return sets[current()].name; }

int pva_bits_choose(const char *isa, struct pva_error *err) {
    int set = 0;
    while (isa && set < N_SETS && strcmp(isa, sets[set].name)) set++;
    if (isa && (set == N_SETS || !available(set))) return pva_fail(err, PVA_USAGE, "bit counts by \"%s\": this machine has none; its best is %s", isa, pva_bits_isa());
    __atomic_store_n(&in_use, isa ? set : -1, __ATOMIC_RELAXED);
    return PVA_OK;
}

void pva_bits_extremes(const uint64_t *rows, int64_t n_rows, int64_t n_words, const uint64_t *columns, int64_t n_columns, int64_t *high, int64_t *low) {
    PVA_ASSERT(n_columns % PVA_BITS_COLUMNS == 0);
    sets[current()].extremes(rows, n_rows, n_words, columns, n_columns, high, low);
}
