/* Rates, tables and pairs: against exact rational numbers and 40-digit arithmetic (tests/golden/make_stats.py), the edges that
 * have no reference, and the counts published for the original study. */
#include "stats_golden.h"

#include "pva/paired.h"
#include "pva/rates.h"
#include "pva/tables.h"

#include <gsl/gsl_errno.h>
#include <gsl/gsl_sf_gamma.h>

static void test_golden_rates(void) {
    struct golden g = golden_open("binomial_test");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t k = golden_int(&g, r, "k"), n = golden_int(&g, r, "n");
        double p0 = golden_get(&g, r, "p0");
        golden_check(&g, r, "two_sided", pva_rate_binomial_test(k, n, p0, PVA_TWO_SIDED));
        golden_check(&g, r, "greater", pva_rate_binomial_test(k, n, p0, PVA_GREATER));
        golden_check(&g, r, "less", pva_rate_binomial_test(k, n, p0, PVA_LESS));
    }
    golden_close(&g);
    g = golden_open("rate_interval");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t k = golden_int(&g, r, "k"), n = golden_int(&g, r, "n");
        double level = golden_get(&g, r, "level");
        struct pva_interval exact = pva_rate_clopper_pearson(k, n, level), wilson = pva_rate_wilson(k, n, level);
        golden_check(&g, r, "exact_low", exact.low);
        golden_check(&g, r, "exact_high", exact.high);
        golden_check(&g, r, "wilson_low", wilson.low);
        golden_check(&g, r, "wilson_high", wilson.high);
    }
    golden_close(&g);
    g = golden_open("newcombe");
    for (size_t r = 0; r < g.n_rows; r++) {
        struct pva_interval i = pva_rates_newcombe(golden_int(&g, r, "k1"), golden_int(&g, r, "n1"), golden_int(&g, r, "k2"),
                                                   golden_int(&g, r, "n2"), golden_get(&g, r, "level"));
        golden_check(&g, r, "low", i.low);
        golden_check(&g, r, "high", i.high);
    }
    golden_close(&g);
    g = golden_open("pass_at_k");
    for (size_t r = 0; r < g.n_rows; r++)
        golden_check(&g, r, "value", pva_pass_at_k(golden_int(&g, r, "n"), golden_int(&g, r, "c"), golden_int(&g, r, "k")));
    golden_close(&g);
}

static void test_golden_tables(void) {
    struct golden g = golden_open("fisher");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t k1 = golden_int(&g, r, "k1"), n1 = golden_int(&g, r, "n1"), k2 = golden_int(&g, r, "k2"),
                n2 = golden_int(&g, r, "n2");
        golden_check(&g, r, "two_sided", pva_table_fisher(k1, n1, k2, n2, PVA_TWO_SIDED));
        golden_check(&g, r, "greater", pva_table_fisher(k1, n1, k2, n2, PVA_GREATER));
        golden_check(&g, r, "less", pva_table_fisher(k1, n1, k2, n2, PVA_LESS));
        golden_check(&g, r, "two_sided", pva_table_fisher(k2, n2, k1, n1, PVA_TWO_SIDED));
        golden_check(&g, r, "greater", pva_table_fisher(k2, n2, k1, n1, PVA_LESS));
    }
    golden_close(&g);
    g = golden_open("odds_ratio");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t k1 = golden_int(&g, r, "k1"), n1 = golden_int(&g, r, "n1"), k2 = golden_int(&g, r, "k2"),
                n2 = golden_int(&g, r, "n2");
        struct pva_odds_ratio o = pva_table_odds_ratio(k1, n1, k2, n2, golden_get(&g, r, "level"));
        golden_check(&g, r, "conditional", o.conditional);
        golden_check(&g, r, "low", o.interval.low);
        golden_check(&g, r, "high", o.interval.high);
    }
    golden_close(&g);
    g = golden_open("boschloo");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t k1 = golden_int(&g, r, "k1"), n1 = golden_int(&g, r, "n1"), k2 = golden_int(&g, r, "k2"),
                n2 = golden_int(&g, r, "n2");
        double greater = pva_table_boschloo(k1, n1, k2, n2, PVA_GREATER);
        golden_check(&g, r, "two_sided", pva_table_boschloo(k1, n1, k2, n2, PVA_TWO_SIDED));
        golden_check(&g, r, "greater", greater);
        golden_check(&g, r, "less", pva_table_boschloo(k1, n1, k2, n2, PVA_LESS));
        CHECK(greater <= pva_table_fisher(k1, n1, k2, n2, PVA_GREATER) * (1 + 1e-12));
    }
    golden_close(&g);
}

static void test_golden_pairs(void) {
    struct golden g = golden_open("mcnemar");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t gained = golden_int(&g, r, "gained"), lost = golden_int(&g, r, "lost");
        golden_check(&g, r, "two_sided", pva_pairs_mcnemar(gained, lost, PVA_TWO_SIDED));
        golden_check(&g, r, "greater", pva_pairs_mcnemar(gained, lost, PVA_GREATER));
        golden_check(&g, r, "less", pva_pairs_mcnemar(gained, lost, PVA_LESS));
        golden_check(&g, r, "mid_two_sided", pva_pairs_mcnemar_mid_p(gained, lost, PVA_TWO_SIDED));
        golden_check(&g, r, "mid_greater", pva_pairs_mcnemar_mid_p(gained, lost, PVA_GREATER));
        golden_check(&g, r, "mid_less", pva_pairs_mcnemar_mid_p(gained, lost, PVA_LESS));
    }
    golden_close(&g);
    g = golden_open("pair_odds");
    for (size_t r = 0; r < g.n_rows; r++) {
        struct pva_interval i;
        int64_t gained = golden_int(&g, r, "gained"), lost = golden_int(&g, r, "lost");
        double odds = pva_pairs_odds(gained, lost, golden_get(&g, r, "level"), &i);
        golden_check(&g, r, "low", i.low);
        golden_check(&g, r, "high", i.high);
        CHECK(gained + lost == 0 ? isnan(odds) : odds == (double)gained / (double)lost);
    }
    golden_close(&g);
    g = golden_open("newcombe_paired");
    for (size_t r = 0; r < g.n_rows; r++) {
        struct pva_pairs p = {golden_int(&g, r, "both"), golden_int(&g, r, "lost"), golden_int(&g, r, "gained"),
                              golden_int(&g, r, "neither")};
        struct pva_interval i = pva_pairs_newcombe(&p, golden_get(&g, r, "level"));
        golden_check(&g, r, "low", i.low);
        golden_check(&g, r, "high", i.high);
    }
    golden_close(&g);
    g = golden_open("cochran_q");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n, k = golden_int(&g, r, "k");
        unsigned char *passed = golden_labels(&g, r, "data", &n);
        struct pva_cochran_q q = pva_cochran_q(passed, n / k, k);
        golden_check(&g, r, "q", q.q);
        golden_check(&g, r, "df", q.df);
        golden_check(&g, r, "p", q.p);
        free(passed);
    }
    golden_close(&g);
}

static void test_edges(void) {
    const double bad[] = {-0.1, 1.1, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        CHECK(isnan(pva_rate_binomial_test(1, 2, bad[i], PVA_TWO_SIDED)));
        CHECK(isnan(pva_rate_clopper_pearson(1, 2, bad[i]).low) && isnan(pva_rate_wilson(1, 2, bad[i]).high));
        CHECK(isnan(pva_rates_newcombe(1, 2, 1, 2, bad[i]).low) && isnan(pva_table_odds_ratio(1, 2, 1, 2, bad[i]).interval.low));
        CHECK(isnan(pva_pairs_newcombe(&(struct pva_pairs){1, 1, 1, 1}, bad[i]).low));
    }
    CHECK(isnan(pva_rate_clopper_pearson(1, 2, 0).low) && isnan(pva_rate_clopper_pearson(1, 2, 1).low));
    CHECK(isnan(pva_rate_binomial_test(-1, 2, 0.5, PVA_LESS)) && isnan(pva_rate_binomial_test(3, 2, 0.5, PVA_LESS)));
    CHECK(isnan(pva_rate_wilson(3, 2, 0.95).low) && isnan(pva_rate_wilson(-1, 2, 0.95).low) &&
          isnan(pva_rates_newcombe(3, 2, 1, 2, 0.95).low));
    CHECK(isnan(pva_table_fisher(3, 2, 0, 0, PVA_LESS)) && isnan(pva_table_boschloo(0, 1, 5, 2, PVA_LESS)) &&
          isnan(pva_table_odds_ratio(-1, 2, 0, 2, 0.95).sample));
    CHECK(isnan(pva_pairs_mcnemar(-1, 2, PVA_TWO_SIDED)) && isnan(pva_pairs_mcnemar(INT64_MAX, 2, PVA_TWO_SIDED)) &&
          isnan(pva_pairs_cohen_g(0, 0)));
    CHECK(isnan(pva_pairs_newcombe(&(struct pva_pairs){1, -1, 1, 1}, 0.95).low) &&
          isnan(pva_pairs_newcombe(&(struct pva_pairs){INT64_MAX, 1, INT64_MAX, 1}, 0.95).low));
    CHECK(isnan(pva_pass_at_k(5, 6, 1)) && isnan(pva_pass_at_k(5, 2, 0)) && isnan(pva_pass_at_k(5, 2, 6)) &&
          isnan(pva_pass_at_k(0, 0, 1)));

    /* No data: p is 1, the interval is everything. */
    for (int side = PVA_TWO_SIDED; side <= PVA_LESS; side++) {
        enum pva_alternative a = (enum pva_alternative)side;
        CHECK(pva_rate_binomial_test(0, 0, 0.3, a) == 1 && pva_table_fisher(0, 0, 3, 5, a) == 1 &&
              pva_table_fisher(0, 0, 0, 0, a) == 1);
        CHECK(pva_table_boschloo(0, 0, 3, 5, a) == 1 && pva_pairs_mcnemar(0, 0, a) == 1 && pva_pairs_mcnemar_mid_p(0, 0, a) == 1);
        CHECK(pva_rank_p(1, NULL, 0, a) == 1);
    }
    struct pva_interval i = pva_rate_clopper_pearson(0, 0, 0.95);
    CHECK(i.low == 0 && i.high == 1);
    i = pva_rate_wilson(0, 0, 0.95);
    CHECK(i.low == 0 && i.high == 1);
    i = pva_rates_newcombe(0, 0, 1, 2, 0.95);
    CHECK(i.low == -1 && i.high == 1);
    i = pva_pairs_newcombe(&(struct pva_pairs){0, 0, 0, 0}, 0.95);
    CHECK(i.low == -1 && i.high == 1);
    struct pva_odds_ratio o = pva_table_odds_ratio(0, 5, 0, 7, 0.95);
    CHECK(isnan(o.sample) && isnan(o.conditional) && o.interval.low == 0 && isinf(o.interval.high));
    o = pva_table_odds_ratio(5, 5, 1, 7, 0.95);
    CHECK(isinf(o.sample) && isinf(o.conditional) && isinf(o.interval.high) && o.interval.low > 1);
    CHECK_NEAR(pva_table_odds_ratio(3, 10, 2, 8, 0.95).sample, 3.0 * 6 / (2 * 7), 1e-15);

    double controls[] = {1, 2, 3, 3};
    CHECK_NEAR(pva_rank_p(3, controls, 4, PVA_GREATER), 3.0 / 5, 1e-15);
    CHECK_NEAR(pva_rank_p(3.5, controls, 4, PVA_GREATER), 1.0 / 5, 1e-15);
    CHECK_NEAR(pva_rank_p(0, controls, 4, PVA_LESS), 1.0 / 5, 1e-15);
    CHECK_NEAR(pva_rank_p(9, controls, 4, PVA_TWO_SIDED), 2.0 / 5, 1e-15);
    CHECK(pva_rank_p(2.5, controls, 4, PVA_TWO_SIDED) == 1);
    controls[2] = NAN;
    CHECK(isnan(pva_rank_p(1, controls, 4, PVA_GREATER)) && isnan(pva_rank_p(NAN, controls, 2, PVA_GREATER)));

    unsigned char before[] = {1, 1, 0, 0, 1}, after[] = {1, 0, 1, 0, 2};
    struct pva_pairs p = pva_pairs_count(before, after, 5);
    CHECK(p.both == 2 && p.lost == 1 && p.gained == 1 && p.neither == 1);
    CHECK_NEAR(pva_pairs_cohen_g(15, 5), 0.25, 1e-15);
    unsigned char same[] = {1, 1, 0, 0, 1, 1};
    struct pva_cochran_q q = pva_cochran_q(same, 3, 2);
    CHECK(q.q == 0 && q.p == 1 && q.df == 1);
    CHECK(pva_cochran_q(same, 0, 2).p == 1 && isnan(pva_cochran_q(same, 6, 1).p));
    /* Large counts neither overflow nor crawl. */
    CHECK_NEAR(pva_rate_binomial_test(500100000, 1000000000, 0.5, PVA_GREATER), 1.2695e-10, 1e-13);
    CHECK(pva_rate_clopper_pearson(1, 1000000000, 0.95).low > 2.53e-11);
}

/* Counts published for the original study, with its p values and intervals (two significant digits unless more are given). */
static void test_published(void) {
    CHECK_NEAR(pva_rate_binomial_test(97, 116, 0.1897, PVA_GREATER), 5e-51, 0.5e-51);
    CHECK_NEAR(pva_rate_binomial_test(6, 272, 15.0 / 272, PVA_GREATER), 0.998, 0.0005);
    CHECK(pva_rate_binomial_test(11, 272, 0, PVA_GREATER) == 0); /* a baseline that by definition corrects nothing: vacuous */
    CHECK(pva_rate_binomial_test(17, 116, 1, PVA_GREATER) == 1); /* and one control corrupted of one: p0 = 1 */
    static const struct {
        int64_t k, n;
        double low, high;
    } wilson[] = {{11, 272, 0.023, 0.071}, {17, 116, 0.094, 0.222}, {75, 116, 0.556, 0.728}};
    for (size_t i = 0; i < 3; i++) {
        struct pva_interval w = pva_rate_wilson(wilson[i].k, wilson[i].n, 0.95);
        CHECK_NEAR(w.low, wilson[i].low, 0.0005);
        CHECK_NEAR(w.high, wilson[i].high, 0.0005);
    }
    /* What the study could have said: the same counts with the control's own uncertainty. */
    double fisher = pva_table_fisher(97, 116, 22, 116, PVA_GREATER), boschloo = pva_table_boschloo(97, 116, 22, 116, PVA_GREATER);
    CHECK(fisher < 1e-23 && fisher > 1e-26 && boschloo < fisher);
    CHECK(pva_table_fisher(6, 272, 15, 272, PVA_GREATER) > 0.97 && pva_table_fisher(2, 2, 11, 272, PVA_TWO_SIDED) < 0.01);
    CHECK(pva_table_fisher(11, 272, 0, 2, PVA_GREATER) > 0.9); /* a control of 2 problems is no evidence at all */
    CHECK(pva_pairs_mcnemar(11, 17, PVA_TWO_SIDED) > 0.3);     /* the net loss of 6 of 388 is no evidence either */
    /* Newcombe's worked example (Stat. Med. 17:2635, table III): 36, 12, 2, 0 of 50 gives 0.0569 to 0.3404. */
    struct pva_interval newcombe = pva_pairs_newcombe(&(struct pva_pairs){36, 2, 12, 0}, 0.95);
    CHECK_NEAR(newcombe.low, 0.0569, 5e-5);
    CHECK_NEAR(newcombe.high, 0.3404, 5e-5);
    /* The smallest p values of few discordant pairs. */
    CHECK_NEAR(pva_pairs_mcnemar(5, 0, PVA_TWO_SIDED), 0.0625, 1e-16);
    CHECK_NEAR(pva_pairs_mcnemar(6, 0, PVA_TWO_SIDED), 0.03125, 1e-16);
    CHECK_NEAR(pva_pairs_mcnemar(8, 0, PVA_TWO_SIDED), 0.0078125, 1e-16);
}

/* GSL must not abort the process, whoever calls it, and its message must be kept. */
static void test_gsl_guard(void) {
    const char *last;
    int64_t before = pva_gsl_errors(&last), after;
    pva_gsl_guard();
    pva_gsl_guard();
    CHECK(isnan(gsl_sf_lngamma(0))); /* reports its domain error, then that its caller could not go on */
    after = pva_gsl_errors(&last);
    CHECK(after > before);
    CHECK_HAS(last, "gamma.c");
    gsl_error("lost", "/some/path/file.c", 7, GSL_ELOSS);
    CHECK_INT(pva_gsl_errors(&last), after + 1);
    CHECK_TEXT(last, "file.c:7: lost");
    gsl_error("small", "/some/path/file.c", 8, GSL_EUNDRFLW);
    CHECK_INT(pva_gsl_errors(NULL), after + 1);
}

int main(void) {
    /* First of all, before anybody asked for the guard: a statistic that drives GSL out of range lives. */
    CHECK(pva_normal_p(1e300, PVA_GREATER) == 0 && pva_normal_p(INFINITY, PVA_TWO_SIDED) == 0 &&
          isnan(pva_normal_p(NAN, PVA_TWO_SIDED)));
    test_golden_rates();
    test_golden_tables();
    test_golden_pairs();
    test_edges();
    test_published();
    test_gsl_guard();
    json_decref(golden_file);
    return check_report("stats_rates");
}
