/* Overlap counts: every instruction set against bit-by-bit counting, at sizes around its block lengths. */
#include "check.h"

#include "pva/bits.h"
#include "pva/rng.h"

static uint64_t word(uint32_t a, uint32_t b, int density) {
    uint32_t r[4];
    uint64_t out = ~(uint64_t)0;
    for (int i = 0; i < density; i++) {
        pva_rng_block(7, PVA_RNG_CONTROL, a, b, (uint32_t)i, r);
        out &= (uint64_t)r[0] << 32 | r[1];
    }
    return out;
}

static int64_t shared_bits(const uint64_t *row, const uint64_t *column, int64_t n_words, int64_t stride) {
    int64_t n = 0;
    for (int64_t w = 0; w < n_words; w++)
        for (int bit = 0; bit < 64; bit++) n += row[w] >> bit & column[w * stride] >> bit & 1;
    return n;
}

static void compare(int64_t n_rows, int64_t n_words, int64_t n_columns, int density) {
    enum { GUARD = 8 };
    uint64_t *rows = malloc((size_t)(n_rows * n_words + 1) * 8), *columns = malloc((size_t)(n_words * n_columns + 1) * 8);
    int64_t *high = malloc((size_t)(n_columns + GUARD) * 8), *low = malloc((size_t)(n_columns + GUARD) * 8);
    CHECK_FATAL(rows && columns && high && low);
    for (int64_t i = 0; i < n_rows * n_words; i++) rows[i] = word((uint32_t)i, 1, density);
    for (int64_t i = 0; i < n_words * n_columns; i++) columns[i] = word((uint32_t)i, 2, 1);
    for (int64_t c = 0; c < n_columns + GUARD; c++) high[c] = 3, low[c] = INT32_MAX;
    pva_bits_extremes(rows, n_rows, n_words, columns, n_columns, high, low);
    int wrong = 0;
    for (int64_t c = 0; c < n_columns + GUARD; c++) {
        int64_t most = 3, least = INT32_MAX;
        for (int64_t r = 0; r < n_rows && c < n_columns; r++) {
            int64_t n = shared_bits(rows + r * n_words, columns + c, n_words, n_columns);
            if (n > most) most = n;
            if (n < least) least = n;
        }
        wrong += high[c] != most || low[c] != least;
    }
    CHECK_INT(wrong, 0);
    free(rows), free(columns), free(high), free(low);
}

int main(void) {
    static const char *const names[] = {"c", "avx2", "avx512"};
    struct pva_error err = {0};
    uint64_t a[3] = {~(uint64_t)0, 5, (uint64_t)1 << 63}, b[3] = {1, 7, ~(uint64_t)0};
    CHECK_INT(pva_bits_count(a, 3), 67);
    CHECK_INT(pva_bits_count_and(a, b, 3), 4);
    CHECK_INT(pva_bits_words(0), 0);
    CHECK_INT(pva_bits_words(64), 1);
    CHECK_INT(pva_bits_words(65), 2);
    for (int i = 0; i < 3; i++) {
        if (pva_bits_choose(names[i], &err)) {
            CHECK_SKIP("%s", err.msg);
            err.code = 0;
            continue;
        }
        CHECK_TEXT(pva_bits_isa(), names[i]);
        for (int density = 0; density < 4; density++) {
            compare(5, 8, 64, density);
            compare(1, 1, 32, density);
            compare(3, 16, 96, density);
        }
        compare(2, 31, 32, 0); /* every bit set: the byte sums at their limit, and one word more */
        compare(2, 32, 32, 0);
        compare(1, 200, 32, 0);
        compare(0, 4, 32, 1);
        compare(4, 0, 32, 1);
        compare(4, 4, 0, 1);
    }
    CHECK_OK(pva_bits_choose(NULL, &err), err);
    CHECK_INT(pva_bits_choose("vax", &err), PVA_USAGE);
    CHECK_HAS(err.msg, "its best is");
    return check_report("bits");
}
