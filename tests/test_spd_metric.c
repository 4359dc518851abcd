/* Anchors of the reference's unit tests for permutations and the identity error, the paper's similarity measures by hand, and
 * CRC-32C's known answers. */
#include "check.h"
#include "pva/spd.h"

static void test_identity(void) {
    struct pva_error err = {0};
    int64_t e = -1;
    const double three[] = {.7, .3, 0, .2, .2, .95, 0, 0, 0, 0, 1, 0};
    CHECK_OK(pva_spd_identity_error(3, 4, three, 0.1, &e, &err), err);
    CHECK_INT(e, 4);
    const double two[] = {.8, .2, 0, 0, 1, 0}, dense[] = {.9, .3, 0, 0, 0, .1, 0, 0};
    CHECK_OK(pva_spd_identity_error(2, 3, two, 0.1, &e, &err), err);
    CHECK_INT(e + pva_spd_dense_error(2, 4, dense, 1, 0.1), 3);
    CHECK_OK(pva_spd_identity_error(2, 3, two, 0.2, &e, &err), err);
    CHECK_INT(e + pva_spd_dense_error(2, 4, dense, 1, 0.2), 1);
    const double perfect[] = {0, 0, 1, 1, 0, 0, 0, 1, 0}; /* a permutation of the identity */
    CHECK_OK(pva_spd_identity_error(3, 3, perfect, 0.1, &e, &err), err);
    CHECK_INT(e, 0);
    CHECK_INT(pva_spd_identity_error(3, 2, perfect, 0.1, &e, &err), PVA_INPUT);
}

static void test_dense(void) {
    const double a[] = {.9, .2, 0, 0, .6, .95, 0, 0}, b[] = {.5, .4, 1, .2, .1, .6, .9, .4, .3, .2, .9, .6, .5, .4, .3},
                 c[] = {.5, .5, 0, .7, .8, 0};
    CHECK_INT(pva_spd_dense_error(2, 4, a, 1, 0.1), 2);
    CHECK_INT(pva_spd_dense_error(3, 5, b, 2, 0.1), 8);
    CHECK_INT(pva_spd_dense_error(2, 3, c, 2, 0.1), 2);
}

static double assigned(int n, int m, const double *x, const int *order) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i * m + order[i]];
    return sum;
}

static double best_of_all(int n, int m, const double *x, int row, unsigned used) { /* by trying everything */
    if (row == n) return 0;
    double best = -INFINITY;
    for (int j = 0; j < m; j++)
        if (!(used >> j & 1)) best = fmax(best, x[row * m + j] + best_of_all(n, m, x, row + 1, used | 1u << j));
    return best;
}

static void test_permutation(void) {
    struct pva_error err = {0};
    const double x[] = {0, 1, .9, 0, .9, .5};
    int order[8];
    CHECK_OK(pva_spd_permute_identity(2, 3, x, 1, order, &err), err);
    CHECK(order[0] == 1 && order[1] == 2 && order[2] == 0);
    CHECK_OK(pva_spd_permute_identity(2, 3, x, 0, order, &err), err);
    CHECK(order[0] == 2 && order[1] == 1 && order[2] == 0);
    uint32_t state = 1;
    for (int trial = 0; trial < 200; trial++) {
        double y[5 * 7];
        int n = 1 + trial % 5, m = n + trial % 3, seen = 0;
        for (int i = 0; i < n * m; i++) y[i] = (double)((state = state * 1664525u + 1013904223u) >> 16) / 65536;
        CHECK_OK(pva_spd_permute_identity(n, m, y, 0, order, &err), err);
        CHECK_NEAR(assigned(n, m, y, order), best_of_all(n, m, y, 0, 0), 1e-12);
        for (int j = 0; j < m; j++) seen |= 1 << order[j];
        CHECK_INT(seen, (1 << m) - 1);
    }
}

static void test_similarity(void) {
    /* Two features in the plane, three components: feature 0 is matched exactly at half length, feature 1 at 45 degrees with its
     * own length. */
    const float w[] = {1, 0, 0, 2}, v[] = {.5f, 0, 0, 0, 0, 1}, u[] = {1, 0, 0, 0, (float)M_SQRT2, (float)M_SQRT2};
    double mmcs, ml2r, spread;
    pva_spd_similarity(2, 2, 3, w, v, u, &mmcs, &ml2r, &spread);
    CHECK_NEAR(mmcs, (1 + M_SQRT1_2) / 2, 1e-7);
    CHECK_NEAR(ml2r, (0.5 + 1) / 2, 1e-7);
    CHECK_NEAR(spread, 0.5 * M_SQRT1_2, 1e-7);
}

static void test_crc(void) {
    unsigned char zeros[32] = {0}, ones[32], up[32];
    memset(ones, 255, sizeof ones);
    for (int i = 0; i < 32; i++) up[i] = (unsigned char)i;
    CHECK(pva_spd_crc32c("123456789", 9) == 0xe3069283u); /* RFC 3720, appendix B.4, and the usual check value */
    CHECK(pva_spd_crc32c(zeros, 32) == 0x8a9136aau);
    CHECK(pva_spd_crc32c(ones, 32) == 0x62a8ab43u);
    CHECK(pva_spd_crc32c(up, 32) == 0x46dd794eu);
}

int main(void) {
    test_identity();
    test_dense();
    test_permutation();
    test_similarity();
    test_crc();
    return check_report("test_spd_metric");
}
