/* Known answers of Philox4x32-10 from the generator's own distribution (Random123, kat_vectors), the layout of the counter
 * that rng.h promises, and the moments of the draws. Every draw is fixed, so no check here depends on luck. */
#include "check.h"
#include "pva/rng.h"

static void test_known_answers(void) {
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint32_t out[4], alias[4];
        pva_philox(cases[c].counter, cases[c].key, out);
        memcpy(alias, cases[c].counter, sizeof alias);
        pva_philox(alias, cases[c].key, alias);
        for (int i = 0; i < 4; i++) {
            CHECK_INT(out[i], cases[c].expected[i]);
            CHECK_INT(alias[i], cases[c].expected[i]);
        }
    }
}

/* A stored result is reproduced only as long as this layout stays. */
static void test_layout(void) {
    uint32_t block[4], expected[4];
    const uint32_t counter[4] = {7, 4000000000u, 11, PVA_RNG_SPLIT}, key[2] = {0x89abcdefu, 0x01234567u};
    pva_rng_block(0x0123456789abcdefu, PVA_RNG_SPLIT, 4000000000u, 11, 7, block);
    pva_philox(counter, key, expected);
    for (int i = 0; i < 4; i++) CHECK_INT(block[i], expected[i]);

    uint64_t first = (uint64_t)expected[0] << 32 | expected[1];
    double u = pva_rng_uniform(0x0123456789abcdefu, PVA_RNG_SPLIT, 4000000000u, 11, 7);
    CHECK(u == ldexp((double)(first >> 11), -53));
}

static void test_every_coordinate_counts(void) {
    double base = pva_rng_uniform(1, PVA_RNG_TOKEN, 2, 3, 4);
    CHECK(base == pva_rng_uniform(1, PVA_RNG_TOKEN, 2, 3, 4));
    CHECK(base != pva_rng_uniform(2, PVA_RNG_TOKEN, 2, 3, 4));
    CHECK(base != pva_rng_uniform(1 + (UINT64_C(1) << 32), PVA_RNG_TOKEN, 2, 3, 4));
    CHECK(base != pva_rng_uniform(1, PVA_RNG_PILE, 2, 3, 4));
    CHECK(base != pva_rng_uniform(1, PVA_RNG_TOKEN, 3, 3, 4));
    CHECK(base != pva_rng_uniform(1, PVA_RNG_TOKEN, 2, 4, 4));
    CHECK(base != pva_rng_uniform(1, PVA_RNG_TOKEN, 2, 3, 5));
}

enum { N = 200000 };

/* Moments within four standard errors of their expectation. */
static void test_uniform(void) {
    double sum = 0, squares = 0, product = 0, last = 0.5, low = 1, high = 0;
    for (uint32_t i = 0; i < N; i++) {
        double u = pva_rng_uniform(42, PVA_RNG_BOOTSTRAP, i, 0, 0);
        sum += u, squares += u * u, product += (u - 0.5) * (last - 0.5);
        last = u;
        if (u < low) low = u;
        if (u > high) high = u;
    }
    CHECK(low >= 0 && high < 1);
    CHECK(low < 1e-4 && high > 1 - 1e-4);
    CHECK_NEAR(sum / N, 0.5, 4 * sqrt(1.0 / 12 / N));
    CHECK_NEAR(squares / N, 1.0 / 3, 4 * sqrt(4.0 / 45 / N));
    CHECK_NEAR(product / N, 0, 4 * sqrt(1.0 / 144 / N));
}

static void test_normal(void) {
    double m[5] = {0};
    for (uint32_t i = 0; i < N; i++) {
        double x = pva_rng_normal(42, PVA_RNG_WEIGHTS, i, 1, 2), power = 1;
        CHECK_FATAL(isfinite(x));
        for (int k = 0; k < 5; k++, power *= x) m[k] += power / N;
    }
    /* Moments 0, 1, 0, 3 of order 1 to 4; their variances are 1, 2, 15 and 96 over N. */
    CHECK_NEAR(m[1], 0, 4 * sqrt(1.0 / N));
    CHECK_NEAR(m[2], 1, 4 * sqrt(2.0 / N));
    CHECK_NEAR(m[3], 0, 4 * sqrt(15.0 / N));
    CHECK_NEAR(m[4], 3, 4 * sqrt(96.0 / N));
}

static void test_below(void) {
    int64_t counts[7] = {0};
    for (uint32_t i = 0; i < N; i++) {
        uint64_t r = pva_rng_below(9, PVA_RNG_PERMUTATION, i, 0, 0, 7);
        CHECK_FATAL(r < 7);
        counts[r]++;
        CHECK_FATAL(pva_rng_below(9, PVA_RNG_PERMUTATION, i, 0, 0, 1) == 0);
    }
    double chi2 = 0;
    for (int k = 0; k < 7; k++) chi2 += pow((double)counts[k] - N / 7.0, 2) / (N / 7.0);
    CHECK(chi2 < 22.5); /* 99.9 % of chi-squared with 6 degrees of freedom */
    CHECK(chi2 > 0.38); /* and not more even than chance allows: 0.1 % */

    /* A range that is no power of two, near 2^64: the upper quarter is reached as often as the others. */
    uint64_t n = UINT64_C(0xc000000000000000);
    int64_t upper = 0;
    for (uint32_t i = 0; i < N; i++) {
        uint64_t r = pva_rng_below(9, PVA_RNG_CONTROL, i, 0, 0, n);
        CHECK_FATAL(r < n);
        upper += r >= n / 4 * 3;
    }
    CHECK_NEAR((double)upper / N, 0.25, 4 * sqrt(0.25 * 0.75 / N));
}

int main(void) {
    test_known_answers();
    test_layout();
    test_every_coordinate_counts();
    test_uniform();
    test_normal();
    test_below();
    return check_report("rng");
}
