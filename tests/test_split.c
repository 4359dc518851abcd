/* The split: exact counts, copies together, the same whatever the file's order, and random. */
#include "check.h"
#include "pva/split.h"

enum { MOST = 2000 };
static char ids[MOST][24], texts[MOST][64];
static struct pva_split_problem problems[MOST];
static uint8_t parts[MOST], other[MOST];
static int64_t counts[PVA_N_PARTS][PVA_N_DIFFICULTIES];

/* n0, n1, n2 problems of the three difficulty bins, mixed. */
static size_t make(int n0, int n1, int n2) {
    int left[3] = {n0, n1, n2};
    size_t n = 0;
    for (uint32_t x = 12345; left[0] + left[1] + left[2];) {
        x = x * 1664525u + 1013904223u;
        int bin = (int)(x >> 16) % 3;
        if (!left[bin]) continue;
        left[bin]--;
        snprintf(ids[n], sizeof ids[n], "%zu", n + 1);
        snprintf(texts[n], sizeof texts[n], "Write function number %zu.", n);
        const int32_t difficulty[3][2] = {{1, 1}, {2, 3}, {4, 16}};
        problems[n] = (struct pva_split_problem){ids[n], texts[n], difficulty[bin][n % 2]};
        n++;
    }
    return n;
}

static void check_counts(const int64_t expected[PVA_N_PARTS][PVA_N_DIFFICULTIES]) {
    for (int p = 0; p < PVA_N_PARTS; p++)
        for (int b = 0; b < PVA_N_DIFFICULTIES; b++) CHECK_INT(counts[p][b], expected[p][b]);
}

static void names(void) {
    CHECK_TEXT(pva_part_name(PVA_SELECTION), "selection");
    CHECK_TEXT(pva_part_name(PVA_TUNING), "tuning");
    CHECK_TEXT(pva_part_name(PVA_VALIDATION), "validation");
    const int32_t difficulty[] = {-1, 1, 2, 3, 4, 5, 16, 1000}, bin[] = {0, 0, 1, 1, 2, 2, 2, 2};
    for (int i = 0; i < 8; i++) CHECK_INT(pva_difficulty_bin(difficulty[i]), bin[i]);
}

/* MBPP has 268, 435 and 271 problems in the bins: shares 134 / 26.8 / 107.2, 217.5 / 43.5 / 174 and 135.5 / 27.1 / 108.4. */
static void exact_counts(void) {
    struct pva_error err = {0};
    size_t n = make(268, 435, 271);
    const int64_t mbpp[3][3] = {{134, 218, 136}, {27, 43, 27}, {107, 174, 108}};
    for (uint64_t seed = 0; seed < 20; seed++) {
        CHECK_OK(pva_split(problems, n, seed, parts, counts, &err), err);
        check_counts(mbpp);
    }
    const struct {
        int n[3];
        int64_t expected[3][3];
    } cases[] = {{{0, 0, 0}, {{0}}},
                 {{1, 0, 0}, {{1, 0, 0}, {0}, {0}}},
                 {{2, 3, 4}, {{1, 2, 2}, {0, 0, 0}, {1, 1, 2}}},
                 {{10, 20, 100}, {{5, 10, 50}, {1, 2, 10}, {4, 8, 40}}},
                 {{7, 0, 5},
                  {{3, 0, 3}, {1, 0, 0}, {3, 0, 2}}}}; /* 3.5 .7 2.8: two ups to .8 and .7; 2.5 .5 2: the tie to the first */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        n = make(cases[i].n[0], cases[i].n[1], cases[i].n[2]);
        CHECK_OK(pva_split(problems, n, 7, parts, counts, &err), err);
        check_counts(cases[i].expected);
    }
    for (int n0 = 0; n0 <= 60; n0++) { /* every cell is within one of its exact share */
        n = make(n0, 60 - n0, 3 * n0);
        int bin[3] = {n0, 60 - n0, 3 * n0};
        CHECK_OK(pva_split(problems, n, 1, parts, counts, &err), err);
        for (int p = 0; p < 3; p++)
            for (int b = 0; b < 3; b++) CHECK(fabs((double)counts[p][b] - (p == 0 ? .5 : p == 1 ? .1 : .4) * bin[b]) < 1);
    }
}

/* The table says what parts says; and may be left out. */
static void consistent(void) {
    struct pva_error err = {0};
    size_t n = make(31, 17, 52);
    int64_t mine[3][3] = {{0}};
    CHECK_OK(pva_split(problems, n, 3, parts, counts, &err), err);
    for (size_t i = 0; i < n; i++) {
        CHECK_FATAL(parts[i] < PVA_N_PARTS);
        mine[parts[i]][pva_difficulty_bin(problems[i].difficulty)]++;
    }
    check_counts((const int64_t(*)[3])mine);
    CHECK_OK(pva_split(problems, n, 3, other, NULL, &err), err);
    CHECK(memcmp(parts, other, n) == 0);
}

/* MBPP has four pairs with equal texts; here also a triple over all bins, and blanks that differ. */
static void copies(void) {
    struct pva_error err = {0};
    size_t n = make(268, 435, 271);
    const int pairs[4][2] = {{76, 347}, {216, 872}, {217, 602}, {248, 704}};
    const int32_t difficulty[4][2] = {{2, 2}, {3, 1}, {3, 3}, {2, 2}}; /* as in MBPP: one pair lies in two bins */
    int bin[3] = {0}, went[3] = {0}, moved = 0;
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 2; k++) {
            snprintf(texts[pairs[i][k]], sizeof texts[0], k ? "  Copy %d\tof\r\n a text " : "Copy %d of a text", i);
            problems[pairs[i][k]].difficulty = difficulty[i][k];
        }
    for (size_t i = 0; i < n; i++) bin[pva_difficulty_bin(problems[i].difficulty)]++;
    for (uint64_t seed = 0; seed < 200; seed++) {
        CHECK_OK(pva_split(problems, n, seed, parts, counts, &err), err);
        for (int i = 0; i < 4; i++) {
            CHECK_INT(parts[pairs[i][0]], parts[pairs[i][1]]);
            went[parts[pairs[i][0]]]++;
        }
        for (int p = 0; p < 3; p++) /* one problem of another bin may have come along: within one group */
            for (int b = 0; b < 3; b++) CHECK(fabs((double)counts[p][b] - (p == 0 ? .5 : p == 1 ? .1 : .4) * bin[b]) < 2);
        moved += counts[0][0] != 134;
    }
    /* Pairs are drawn like single problems: 50, 10, 40 % of 800, four standard deviations. */
    CHECK_NEAR(went[0], 400, 57);
    CHECK_NEAR(went[1], 80, 34);
    CHECK_NEAR(went[2], 320, 56);
    CHECK(moved > 0);

    n = make(30, 30, 30);
    for (size_t i = 0; i < 50; i++) strcpy(texts[i], "The same for all."); /* a group larger than any bin's share */
    CHECK_OK(pva_split(problems, n, 1, parts, counts, &err), err);
    for (size_t i = 1; i < 50; i++) CHECK_INT(parts[i], parts[0]);
    int64_t sum = 0;
    for (int p = 0; p < 3; p++)
        for (int b = 0; b < 3; b++) sum += counts[p][b];
    CHECK_INT(sum, 90);
    for (size_t i = 0; i < n; i++) strcpy(texts[i], i % 2 ? "" : " \n");
    CHECK_OK(pva_split(problems, n, 1, parts, counts, &err), err); /* one group of all */
    for (size_t i = 1; i < n; i++) CHECK_INT(parts[i], parts[0]);
}

/* The order of the file does not matter; the seed does. */
static void keyed(void) {
    struct pva_error err = {0};
    size_t n = make(268, 435, 271);
    strcpy(texts[100], texts[500]);
    CHECK_OK(pva_split(problems, n, 42, parts, counts, &err), err);
    struct pva_split_problem shuffled[MOST];
    size_t from[MOST];
    uint32_t x = 99;
    for (size_t i = 0; i < n; i++) from[i] = i;
    for (size_t i = n - 1; i > 0; i--) {
        x = x * 1664525u + 1013904223u;
        size_t j = (size_t)(((uint64_t)x * (i + 1)) >> 32), swap = from[i];
        from[i] = from[j], from[j] = swap;
    }
    for (size_t i = 0; i < n; i++) shuffled[i] = problems[from[i]];
    CHECK_OK(pva_split(shuffled, n, 42, other, NULL, &err), err);
    int same = 0;
    for (size_t i = 0; i < n; i++) same += other[i] == parts[from[i]];
    CHECK_INT(same, n);
    /* A run over --start 100 --end 199 splits the whole file and reads its range: nothing depends on what the range is. */
    CHECK_OK(pva_split(problems, n, 42, other, NULL, &err), err);
    CHECK(memcmp(parts + 100, other + 100, 100) == 0);
    /* Two seeds agree by chance only: .25 + .01 + .16 = 42 % of the problems, four standard deviations of 974. */
    int agree = 0;
    CHECK_OK(pva_split(problems, n, 43, other, NULL, &err), err);
    for (size_t i = 0; i < n; i++) agree += parts[i] == other[i];
    CHECK_NEAR(agree, 0.42 * (double)n, 62);
    CHECK_OK(pva_split(problems, n, 42 + ((uint64_t)1 << 40), other, NULL, &err), err); /* all 64 bits of the seed count */
    CHECK(memcmp(parts, other, n) != 0);
}

/* Each problem is equally likely to be anywhere: over many seeds every one is in each part about as often as it should. */
static void fair(void) {
    enum { SEEDS = 2000, N = 40 };
    static int went[N][3];
    struct pva_error err = {0};
    size_t n = make(10, 20, 10);
    CHECK_FATAL(n == N);
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        CHECK_OK(pva_split(problems, n, seed, parts, NULL, &err), err);
        for (size_t i = 0; i < n; i++) went[i][parts[i]]++;
    }
    const double share[3] = {.5, .1, .4};
    for (size_t i = 0; i < n; i++)
        for (int p = 0; p < 3; p++) CHECK_NEAR(went[i][p], share[p] * SEEDS, 4.5 * sqrt(SEEDS * share[p] * (1 - share[p])));
}

static void mistakes(void) {
    struct pva_error err = {0};
    size_t n = make(5, 5, 5);
    strcpy(ids[9], ids[3]);
    CHECK_INT(pva_split(problems, n, 1, parts, counts, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "task 4 is there twice");
}

int main(void) {
    names();
    exact_counts();
    consistent();
    copies();
    keyed();
    fair();
    mistakes();
    return check_report("test_split");
}
