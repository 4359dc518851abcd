/* Trends, power, the logistic probe: against the reference, at their edges, and the power figures published for the study's
 * sizes. */
#include "stats_golden.h"

#include "pva/auroc.h"
#include "pva/power.h"
#include "pva/probe.h"
#include "pva/rates.h"
#include "pva/tables.h"
#include "pva/trend.h"

#include <omp.h>

static struct pva_error err;

static int64_t *golden_ints(const struct golden *g, size_t row, const char *column, int64_t *n) {
    double *values = golden_array(g, row, column, n);
    int64_t *out = malloc((size_t)(*n + 1) * sizeof *out);
    for (int64_t i = 0; i < *n; i++) out[i] = (int64_t)values[i];
    free(values);
    return out;
}

static void test_trends(void) {
    struct golden g = golden_open("cochran_armitage");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n, *passed = golden_ints(&g, r, "passed", &n), *total = golden_ints(&g, r, "n", &n);
        double *dose = golden_array(&g, r, "dose", &n);
        struct pva_trend t = pva_trend_cochran_armitage(passed, total, dose, n);
        golden_check(&g, r, "z", t.z);
        golden_check(&g, r, "p", t.p);
        golden_check(&g, r, "p_rising", t.p_rising);
        golden_check(&g, r, "p_falling", t.p_falling);
        free(passed), free(total), free(dose);
    }
    golden_close(&g);
    g = golden_open("page");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n, k = golden_int(&g, r, "k");
        double *data = golden_array(&g, r, "data", &n);
        struct pva_trend t = pva_trend_page(data, n / k, k);
        golden_check(&g, r, "statistic", t.statistic);
        golden_check(&g, r, "p_rising", t.p_rising);
        free(data);
    }
    golden_close(&g);
    g = golden_open("jonckheere");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n, *ids = golden_ints(&g, r, "group", &n);
        double *values = golden_array(&g, r, "values", &n);
        int32_t *group = malloc((size_t)n * sizeof *group);
        for (int64_t i = 0; i < n; i++) group[i] = (int32_t)ids[i];
        struct pva_trend t = pva_trend_jonckheere(values, group, n);
        golden_check(&g, r, "statistic", t.statistic);
        golden_check(&g, r, "p", t.p);
        CHECK_NEAR(t.p_rising + t.p_falling, 1, 1e-14);
        free(ids), free(values), free(group);
    }
    golden_close(&g);
    g = golden_open("isotonic");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n;
        double *values = golden_array(&g, r, "values", &n), *weights = golden_array(&g, r, "weights", &n);
        CHECK_OK(pva_isotonic(values, weights, n, values, &err), err);
        golden_check_list(&g, r, "fitted", values, n);
        free(values), free(weights);
    }
    golden_close(&g);

    int64_t none[] = {0, 0}, five[] = {5, 5}, off[] = {6, 5};
    double dose[] = {0, 1}, same[] = {2, 2}, bad[] = {0, NAN};
    int32_t group[] = {0, 1}, one[] = {3, 3};
    struct pva_trend t = pva_trend_cochran_armitage(none, five, dose, 2);
    CHECK(t.z == 0 && t.p == 1);
    CHECK(pva_trend_cochran_armitage(five, five, dose, 2).p == 1 && pva_trend_cochran_armitage(none, none, dose, 2).p == 1);
    CHECK(pva_trend_cochran_armitage(none, five, same, 2).p == 1 && pva_trend_cochran_armitage(NULL, NULL, NULL, 0).p == 1);
    CHECK(isnan(pva_trend_cochran_armitage(off, five, dose, 2).p) && isnan(pva_trend_cochran_armitage(five, five, bad, 2).p));
    CHECK(pva_trend_page(same, 1, 2).p == 1 && pva_trend_page(same, 0, 2).p == 1 && isnan(pva_trend_page(same, 2, 1).p) &&
          isnan(pva_trend_page(bad, 1, 2).p));
    CHECK(pva_trend_page(dose, 1, 2).z > 0 && pva_trend_page(dose, 1, 2).p_rising < 0.5);
    CHECK(pva_trend_jonckheere(same, group, 2).p == 1 && pva_trend_jonckheere(dose, one, 2).p == 1 &&
          pva_trend_jonckheere(dose, one, 0).p == 1 && isnan(pva_trend_jonckheere(bad, group, 2).z));
    CHECK(pva_trend_jonckheere(dose, group, 2).z > 0);
    double weight[] = {1, 0}, fitted[2];
    CHECK_INT(pva_isotonic(dose, weight, 2, fitted, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "item 1 of 2 has value 1 and weight 0");
    err = (struct pva_error){0};
    CHECK_INT(pva_isotonic(bad, NULL, 2, fitted, &err), PVA_INPUT);
    err = (struct pva_error){0};
    CHECK_OK(pva_isotonic(NULL, NULL, 0, NULL, &err), err);
}

static void test_power(void) {
    struct golden g = golden_open("power_mcnemar");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n = golden_int(&g, r, "n");
        double gain = golden_get(&g, r, "gain"), loss = golden_get(&g, r, "loss"), alpha = golden_get(&g, r, "alpha");
        golden_check(&g, r, "power", pva_power_mcnemar(n, gain, loss, alpha));
        golden_check(&g, r, "power", pva_power_mcnemar(n, loss, gain, alpha));
    }
    golden_close(&g);
    g = golden_open("power_binomial");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n = golden_int(&g, r, "n");
        double p0 = golden_get(&g, r, "p0"), p1 = golden_get(&g, r, "p1"), alpha = golden_get(&g, r, "alpha");
        golden_check(&g, r, "two_sided", pva_power_binomial(n, p0, p1, alpha, PVA_TWO_SIDED));
        golden_check(&g, r, "greater", pva_power_binomial(n, p0, p1, alpha, PVA_GREATER));
        golden_check(&g, r, "less", pva_power_binomial(n, p0, p1, alpha, PVA_LESS));
    }
    golden_close(&g);
    g = golden_open("power_rates");
    for (size_t r = 0; r < g.n_rows; r++)
        golden_check(&g, r, "power",
                     pva_power_rates(golden_get(&g, r, "p1"), golden_int(&g, r, "n1"), golden_get(&g, r, "p2"),
                                     golden_int(&g, r, "n2"), golden_get(&g, r, "alpha")));
    golden_close(&g);
    g = golden_open("power_fisher");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n1 = golden_int(&g, r, "n1"), n2 = golden_int(&g, r, "n2");
        double p1 = golden_get(&g, r, "p1"), p2 = golden_get(&g, r, "p2"), alpha = golden_get(&g, r, "alpha");
        golden_check(&g, r, "two_sided", pva_power_fisher(p1, n1, p2, n2, alpha, PVA_TWO_SIDED));
        golden_check(&g, r, "greater", pva_power_fisher(p1, n1, p2, n2, alpha, PVA_GREATER));
        golden_check(&g, r, "less", pva_power_fisher(p1, n1, p2, n2, alpha, PVA_LESS));
    }
    golden_close(&g);

    /* Two-sided exact McNemar at 0.05: 4 % against 1 %, and 6 % against 2 %. */
    static const struct {
        int64_t n;
        double small, large;
    } published[] = {{390, 0.72, 0.76}, {487, 0.82, 0.86}, {974, 0.99, 0.99}, {280, 0.54, 0.60}, {150, 0.23, 0.31}};
    for (size_t i = 0; i < 5; i++) {
        CHECK_NEAR(pva_power_mcnemar(published[i].n, 0.04, 0.01, 0.05), published[i].small, 0.005001);
        CHECK_NEAR(pva_power_mcnemar(published[i].n, 0.06, 0.02, 0.05), published[i].large, 0.005001);
    }
    /* A minimum detectable effect has the power it was asked for, just. */
    double gain = pva_mde_mcnemar(390, 0.01, 0.05, 0.8), p1 = pva_mde_binomial(272, 0.055, 0.05, 0.8),
           rate = pva_mde_rates(116, 0.19, 116, 0.05, 0.8);
    CHECK(gain > 0.04 && gain < 0.05);
    CHECK_NEAR(pva_power_mcnemar(390, gain, 0.01, 0.05), 0.8, 1e-12);
    CHECK_NEAR(pva_power_binomial(272, 0.055, p1, 0.05, PVA_GREATER), 0.8, 1e-12);
    CHECK_NEAR(pva_power_rates(rate, 116, 0.19, 116, 0.05), 0.8, 1e-12);
    CHECK(isnan(pva_mde_mcnemar(4, 0.01, 0.05, 0.8)) && isnan(pva_mde_binomial(2, 0.5, 0.05, 0.8)) &&
          isnan(pva_mde_rates(1, 0.5, 1, 0.05, 0.8))); /* out of reach */
    CHECK(isnan(pva_mde_mcnemar(390, 0.6, 0.05, 0.8)) && isnan(pva_mde_mcnemar(390, NAN, 0.05, 0.8)) &&
          isnan(pva_mde_mcnemar(390, 0.1, 0.05, 1)) && isnan(pva_mde_binomial(9, NAN, 0.05, 0.8)));
    CHECK(pva_power_mcnemar(0, 0.1, 0.1, 0.05) == 0 && pva_power_mcnemar(100, 0, 0, 0.05) == 0 &&
          pva_power_mcnemar(100, 1, 0, 0.05) == 1);
    CHECK(isnan(pva_power_mcnemar(9, 0.7, 0.7, 0.05)) && isnan(pva_power_mcnemar(9, NAN, 0.1, 0.05)) &&
          isnan(pva_power_mcnemar(-1, 0.1, 0.1, 0.05)) && isnan(pva_power_mcnemar(9, 0.1, 0.1, 0)));
    CHECK(isnan(pva_power_binomial(9, 1.2, 0.1, 0.05, PVA_LESS)) && pva_power_binomial(0, 0.5, 0.9, 0.05, PVA_GREATER) == 0 &&
          pva_power_binomial(9, 0, 0.5, 0.05, PVA_GREATER) > 0.99);
    CHECK(isnan(pva_power_fisher(0.5, -1, 0.5, 2, 0.05, PVA_LESS)) && isnan(pva_power_fisher(0.5, 1, NAN, 2, 0.05, PVA_LESS)) &&
          pva_power_fisher(0.5, 0, 0.5, 9, 0.05, PVA_TWO_SIDED) == 0);
    CHECK(isnan(pva_power_rates(0.5, 0, 0.5, 1, 0.05)) && pva_power_rates(0, 50, 0, 50, 0.05) == 0 &&
          pva_power_rates(1, 50, 0, 50, 0.05) == 1);
    CHECK_NEAR(pva_power_mcnemar(1000000, 0.0505, 0.05, 0.05), 0.35, 0.05); /* large n: a window of outcomes, not all */
}

/* --- The probe -------------------------------------------------------------------------------------------------------------- */

/* As probe_data in make_stats.py. */
static float *probe_data(uint64_t seed, int64_t n, int64_t d, unsigned char *labels) {
    float *x = malloc((size_t)(n * d) * sizeof *x);
    for (int64_t i = 0; i < n * d; i++) x[i] = (float)(golden_uniform(&seed) * 2 - 1);
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t j = 0; j < d && j < 3; j++) sum += x[i * d + j];
        labels[i] = sum / 2 + golden_uniform(&seed) * 2 - 1 > 0;
    }
    return x;
}

/* The largest component of the objective's gradient, over the largest sum that enters it. */
static double gradient(const struct pva_probe *probe, const float *x, const unsigned char *labels, int64_t n) {
    double worst = 0, scale = 0, *scores = malloc((size_t)n * sizeof *scores);
    pva_probe_scores(probe, x, n, scores);
    for (int64_t j = -1; j < probe->d; j++) {
        double sum = 0, size = 0;
        for (int64_t i = 0; i < n; i++) {
            double feature = j < 0 ? 1 : x[i * probe->d + j],
                   residual = labels[i] ? 1 / (1 + exp(scores[i])) : -1 / (1 + exp(-scores[i]));
            sum += residual * feature;
            size += fabs(feature);
        }
        worst = fmax(worst, fabs((j < 0 ? 0 : probe->weights[j]) - probe->c * sum));
        scale = fmax(scale, probe->c * size);
    }
    free(scores);
    return worst / scale;
}

static void test_golden_probe(void) {
    struct golden g = golden_open("probe");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n = golden_int(&g, r, "n"), d = golden_int(&g, r, "d");
        unsigned char *labels = malloc((size_t)n);
        float *x = probe_data((uint64_t)golden_int(&g, r, "seed"), n, d, labels);
        double *scores = malloc((size_t)n * sizeof *scores);
        struct pva_probe *probe;
        int standardise = (int)golden_int(&g, r, "standardise");
        CHECK_OK(pva_probe_fit(x, labels, n, d, golden_get(&g, r, "c"), standardise, &probe, &err), err);
        CHECK_FATAL(probe);
        CHECK(probe->converged);
        pva_probe_scores(probe, x, n, scores);
        golden_check_list(&g, r, "scores", scores, n);
        if (!standardise) CHECK(gradient(probe, x, labels, n) < 1e-13);
        pva_probe_free(&probe);
        CHECK(!probe);
        free(labels), free(x), free(scores);
    }
    golden_close(&g);
    g = golden_open("probe_select");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n = golden_int(&g, r, "n"), d = golden_int(&g, r, "d"), n_c;
        unsigned char *labels = malloc((size_t)n);
        float *x = probe_data((uint64_t)golden_int(&g, r, "seed"), n, d, labels);
        double *grid = golden_array(&g, r, "grid", &n_c), *folds = malloc((size_t)n * sizeof *folds);
        int32_t *fold = malloc((size_t)n * sizeof *fold);
        struct pva_probe_settings settings = {.c = grid,
                                              .n_c = n_c,
                                              .n_folds = (int32_t)golden_int(&g, r, "folds"),
                                              .standardise = (int)golden_int(&g, r, "standardise"),
                                              .seed = 77,
                                              .stream = 4};
        struct pva_probe *probe, *again;
        CHECK_OK(pva_probe_folds(settings.seed, settings.stream, labels, n, settings.n_folds, fold, &err), err);
        for (int64_t i = 0; i < n; i++) folds[i] = fold[i];
        golden_check_list(&g, r, "fold", folds, n);
        omp_set_num_threads(1);
        CHECK_OK(pva_probe_select(x, labels, n, d, &settings, &probe, &err), err);
        omp_set_num_threads(3);
        CHECK_OK(pva_probe_select(x, labels, n, d, &settings, &again, &err), err);
        CHECK_FATAL(probe && again);
        golden_check_list(&g, r, "auroc", probe->auroc, probe->n_c);
        golden_check(&g, r, "best", probe->c);
        CHECK(memcmp(probe->weights, again->weights, (size_t)d * sizeof *probe->weights) == 0 &&
              probe->intercept == again->intercept);
        pva_probe_free(&probe);
        pva_probe_free(&again);
        free(labels), free(x), free(grid), free(folds), free(fold);
    }
    golden_close(&g);
}

static void test_probe_edges(void) {
    enum { N = 12, D = 3 };
    unsigned char labels[N], same[N] = {0};
    float *x = probe_data(9, N, D, labels);
    struct pva_probe *probe;
    for (int i = 0; i < N; i++) labels[i] = i < 4;
    CHECK_INT(pva_probe_fit(x, same, N, D, 1, 0, &probe, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "all 12 items are negative");
    CHECK(!probe);
    err = (struct pva_error){0};
    const double wrong[] = {0, -1, NAN, INFINITY};
    for (int i = 0; i < 4; i++) {
        CHECK_INT(pva_probe_fit(x, labels, N, D, wrong[i], 0, &probe, &err), PVA_INPUT);
        err = (struct pva_error){0};
    }
    CHECK_INT(pva_probe_fit(x, labels, 0, D, 1, 0, &probe, &err), PVA_INPUT);
    err = (struct pva_error){0};
    CHECK_INT(pva_probe_fit(x, labels, N, 0, 1, 0, &probe, &err), PVA_INPUT);
    err = (struct pva_error){0};
    struct pva_probe_settings settings = {.n_folds = 5};
    CHECK_INT(pva_probe_select(x, labels, N, D, &settings, &probe, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "4 of 12 items are positive; 5 folds");
    err = (struct pva_error){0};
    settings.n_folds = 1;
    CHECK_INT(pva_probe_select(x, labels, N, D, &settings, &probe, &err), PVA_INPUT);
    err = (struct pva_error){0};
    double falling[] = {1, 1};
    settings = (struct pva_probe_settings){.n_folds = 2, .c = falling, .n_c = 2};
    CHECK_INT(pva_probe_select(x, labels, N, D, &settings, &probe, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "C number 1 of the grid is 1");
    err = (struct pva_error){0};
    settings.n_c = 0;
    CHECK_INT(pva_probe_select(x, labels, N, D, &settings, &probe, &err), PVA_INPUT);
    err = (struct pva_error){0};
    /* A constant feature, and the usual grid, with as many folds as positives. */
    for (int i = 0; i < N; i++) x[i * D + 1] = 7;
    settings = (struct pva_probe_settings){.n_folds = 4, .standardise = 1};
    CHECK_OK(pva_probe_select(x, labels, N, D, &settings, &probe, &err), err);
    CHECK_FATAL(probe);
    CHECK(probe->n_c == 11 && probe->weights[1] == 0 && isfinite(probe->intercept) && probe->converged);
    pva_probe_free(&probe);
    pva_probe_free(&probe);
    x[2 * D + 1] = NAN;
    CHECK_INT(pva_probe_fit(x, labels, N, D, 1, 0, &probe, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "feature 1 of item 2");
    err = (struct pva_error){0};
    /* Features that say nothing: the intercept is the log odds of the classes. */
    memset(x, 0, sizeof *x * N * D);
    CHECK_OK(pva_probe_fit(x, labels, N, D, 1, 1, &probe, &err), err);
    CHECK_FATAL(probe);
    CHECK_NEAR(probe->intercept, log(4.0 / 8), 1e-13);
    pva_probe_free(&probe);
    free(x);
}

/* Both shapes of the problem solve the same problem: d = n - 1 is primal, one more feature of zeros makes it dual. */
static void test_probe_shapes(void) {
    enum { N = 60, D = 59 };
    unsigned char labels[N];
    float *x = probe_data(21, N, D, labels), *wide = calloc(N * (D + 1), sizeof *wide);
    for (int i = 0; i < N; i++) memcpy(wide + i * (D + 1), x + i * D, D * sizeof *x);
    for (double c = 1e-5; c < 2e5; c *= 10) {
        struct pva_probe *primal, *dual;
        double worst = 0, scale = 0;
        CHECK_OK(pva_probe_fit(x, labels, N, D, c, 0, &primal, &err), err);
        CHECK_OK(pva_probe_fit(wide, labels, N, D + 1, c, 0, &dual, &err), err);
        CHECK_FATAL(primal && dual);
        for (int j = 0; j < D; j++)
            worst = fmax(worst, fabs(primal->weights[j] - dual->weights[j])), scale = fmax(scale, fabs(primal->weights[j]));
        CHECK(primal->converged && dual->converged && dual->weights[D] == 0);
        CHECK_NEAR(worst / scale, 0, 1e-9);
        CHECK(gradient(dual, wide, labels, N) < 1e-12);
        pva_probe_free(&primal);
        pva_probe_free(&dual);
    }
    free(x);
    free(wide);
}

int main(void) {
    test_trends();
    test_power();
    test_golden_probe();
    test_probe_edges();
    test_probe_shapes();
    json_decref(golden_file);
    return check_report("stats_models");
}
