/* Bootstrap, permutations, many hypotheses: against the reference with the same draws, for any number of threads, and by what
 * they promise. */
#include "stats_golden.h"

#include "pva/auroc.h"
#include "pva/multiple.h"
#include "pva/permute.h"
#include "pva/resample.h"

#include <omp.h>

static struct pva_error err;

static void compare_bootstrap(struct golden *g, size_t r, pva_bootstrap_statistic statistic, const void *context) {
    struct pva_bootstrap b, again;
    int64_t n = golden_int(g, r, "n_replicates"), n_clusters = golden_int(g, r, "n_clusters");
    uint64_t seed = (uint64_t)golden_int(g, r, "seed");
    uint32_t stream = (uint32_t)golden_int(g, r, "stream");
    double level = golden_get(g, r, "level"), *replicates = malloc((size_t)n * sizeof *replicates),
           *others = malloc((size_t)n * sizeof *others);
    omp_set_num_threads(1);
    CHECK_OK(pva_bootstrap(statistic, context, n_clusters, n, level, seed, stream, replicates, &b, &err), err);
    golden_check(g, r, "estimate", b.estimate);
    golden_check(g, r, "standard_error", b.standard_error);
    golden_check(g, r, "low", b.bca.low);
    golden_check(g, r, "high", b.bca.high);
    golden_check(g, r, "percentile_low", b.percentile.low);
    golden_check(g, r, "percentile_high", b.percentile.high);
    golden_check(g, r, "acceleration", b.acceleration);
    CHECK_INT(b.n_replicates, n);
    for (int threads = 2; threads <= 5; threads += 3) {
        omp_set_num_threads(threads);
        CHECK_OK(pva_bootstrap(statistic, context, n_clusters, n, level, seed, stream, others, &again, &err), err);
        CHECK(memcmp(&again, &b, sizeof b) == 0 && memcmp(others, replicates, (size_t)n * sizeof *others) == 0);
    }
    CHECK_OK(pva_bootstrap(statistic, context, n_clusters, n, level, seed + 1, stream, others, &again, &err), err);
    CHECK(memcmp(others, replicates, (size_t)n * sizeof *others) != 0);
    CHECK_OK(pva_bootstrap(statistic, context, n_clusters, n, level, seed, stream + 1, others, &again, &err), err);
    CHECK(memcmp(others, replicates, (size_t)n * sizeof *others) != 0);
    free(replicates);
    free(others);
}

static double nothing(const int32_t *times, const void *context) { return NAN; }

static double first_cluster(const int32_t *times, const void *context) { return times[0] > 0; }

static void test_bootstrap(void) {
    struct golden g = golden_open("bootstrap_mean");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n, n_clusters = golden_int(&g, r, "n_clusters");
        double *payload = golden_array(&g, r, "payload", &n);
        struct pva_clustered_sums sums = {payload, payload + n_clusters, n_clusters};
        compare_bootstrap(&g, r, pva_clustered_mean, &sums);
        free(payload);
    }
    golden_close(&g);
    g = golden_open("bootstrap_auroc");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n;
        double *payload = golden_array(&g, r, "payload", &n);
        n /= 3;
        int32_t *clusters = malloc((size_t)n * sizeof *clusters);
        unsigned char *labels = malloc((size_t)n);
        for (int64_t i = 0; i < n; i++) clusters[i] = (int32_t)payload[i], labels[i] = payload[n + i] != 0;
        struct pva_clustered_scores *scores;
        CHECK_OK(pva_clustered_scores_create(payload + 2 * n, labels, clusters, n, golden_int(&g, r, "n_clusters"), &scores,
                                             &err),
                 err);
        compare_bootstrap(&g, r, pva_clustered_auroc, scores);
        pva_clustered_scores_free(&scores);
        CHECK(!scores);
        free(payload), free(clusters), free(labels);
    }
    golden_close(&g);

    struct pva_bootstrap b;
    double sum[] = {2, 2, 2}, count[] = {4, 4, 4}, none[] = {0, 0, 0};
    struct pva_clustered_sums same = {sum, count, 3}, empty = {none, none, 3}, single = {sum, count, 1};
    CHECK_OK(pva_bootstrap(pva_clustered_mean, &same, 3, 50, 0.95, 1, 0, NULL, &b, &err), err);
    CHECK(b.bca.low == 0.5 && b.bca.high == 0.5 && b.standard_error == 0 && b.acceleration == 0 && b.bias == 0);
    CHECK_OK(pva_bootstrap(pva_clustered_mean, &empty, 3, 50, 0.95, 1, 0, NULL, &b, &err), err);
    CHECK(isnan(b.estimate) && isnan(b.bca.low) && isnan(b.percentile.low) && b.n_undefined == 50);
    CHECK_OK(pva_bootstrap(pva_clustered_mean, &single, 1, 50, 0.95, 1, 0, NULL, &b, &err), err);
    CHECK(b.estimate == 0.5 && isnan(b.bca.low) && b.percentile.low == 0.5);
    CHECK_OK(pva_bootstrap(nothing, NULL, 3, 1, 0.95, 1, 0, NULL, &b, &err), err);
    CHECK(b.n_undefined == 1 && isnan(b.standard_error));
    double above[] = {2, 3, 4}, jackknife[] = {1, 2, 3}, bias, acceleration;
    CHECK(isnan(pva_bootstrap_bca(1, above, 3, jackknife, 3, 0.95, &bias, &acceleration).low) && isinf(bias));
    CHECK_INT(pva_bootstrap(nothing, NULL, 0, 1, 0.95, 1, 0, NULL, &b, &err), PVA_INPUT);
    err = (struct pva_error){0};
    CHECK_INT(pva_bootstrap(nothing, NULL, 1, 0, 0.95, 1, 0, NULL, &b, &err), PVA_INPUT);
    err = (struct pva_error){0};
    CHECK_INT(pva_bootstrap(nothing, NULL, 1, 1, NAN, 1, 0, NULL, &b, &err), PVA_INPUT);
    err = (struct pva_error){0};
    /* Draws with replacement: a cluster is missing from (1 - 1/n)^n of them. */
    CHECK_OK(pva_bootstrap(first_cluster, NULL, 20, 20000, 0.95, 5, 0, NULL, &b, &err), err);
    CHECK_NEAR(b.standard_error * b.standard_error, 0.3585 * 0.6415, 0.005);

    double scores[] = {1, NAN};
    unsigned char labels[] = {0, 1};
    int32_t clusters[] = {0, 2};
    struct pva_clustered_scores *s;
    CHECK_INT(pva_clustered_scores_create(scores, labels, clusters, 2, 2, &s, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "item 1 is in cluster 2, expected 0 to 1");
    err = (struct pva_error){0};
    CHECK_INT(pva_clustered_scores_create(scores, labels, clusters, 2, 3, &s, &err), PVA_INPUT);
    CHECK(!s);
    CHECK_HAS(err.msg, "NaN");
    err = (struct pva_error){0};
}

static void test_adjust(void) {
    static const char *const name[] = {"holm", "bh", "by"};
    struct golden g = golden_open("adjust");
    for (size_t r = 0; r < g.n_rows; r++) {
        for (int m = PVA_HOLM; m <= PVA_BY; m++) {
            int64_t n;
            double *p = golden_array(&g, r, "p", &n);
            CHECK_OK(pva_adjust((enum pva_adjustment)m, p, n, p, &err), err); /* in place */
            golden_check_list(&g, r, name[m], p, n);
            free(p);
        }
    }
    golden_close(&g);
    double p[] = {0.01, NAN, 0.04, 0.03}, q[4];
    CHECK_OK(pva_adjust(PVA_HOLM, p, 4, q, &err), err); /* three hypotheses */
    CHECK(isnan(q[1]) && fabs(q[0] - 0.03) < 1e-15 && fabs(q[2] - 0.06) < 1e-15 && fabs(q[3] - 0.06) < 1e-15);
    CHECK_OK(pva_adjust(PVA_BH, p + 1, 1, q, &err), err);
    CHECK(isnan(q[0]));
    CHECK_OK(pva_adjust(PVA_BY, NULL, 0, NULL, &err), err);
    p[2] = 1.5;
    CHECK_INT(pva_adjust(PVA_BH, p, 4, q, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "item 2 of 4 is 1.5");
    err = (struct pva_error){0};
}

/* Hypothesis h: the number of positives among its active items; integers, so ties are exact. */
struct firing {
    const double *active; /* [n_hypotheses, n] */
    int64_t n, n_hypotheses;
};

static void count_firing(const unsigned char *labels, double *statistics, const void *context) {
    const struct firing *f = context;
    for (int64_t h = 0; h < f->n_hypotheses; h++) {
        statistics[h] = 0;
        for (int64_t i = 0; i < f->n; i++) statistics[h] += labels[i] * f->active[h * f->n + i];
    }
}

static void test_maxt(void) {
    struct golden g = golden_open("maxt");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n, m, count = golden_int(&g, r, "n_permutations");
        unsigned char *labels = golden_labels(&g, r, "labels", &n);
        double *active = golden_array(&g, r, "active", &m);
        m /= n;
        struct firing f = {active, n, m};
        uint64_t seed = (uint64_t)golden_int(&g, r, "seed");
        uint32_t stream = (uint32_t)golden_int(&g, r, "stream");
        double *observed = malloc((size_t)m * sizeof *observed), *p = malloc((size_t)m * sizeof *p),
               *again = malloc((size_t)m * sizeof *again);
        double *permuted = malloc((size_t)(m * count) * sizeof *permuted), *one = malloc((size_t)m * sizeof *one),
               *first = malloc((size_t)n * sizeof *first);
        unsigned char *shuffled = malloc((size_t)n);
        omp_set_num_threads(1);
        CHECK_OK(pva_maxt_labels(count_firing, &f, labels, n, m, count, seed, stream, observed, p, &err), err);
        golden_check_list(&g, r, "observed", observed, m);
        golden_check_list(&g, r, "p", p, m);
        omp_set_num_threads(3);
        CHECK_OK(pva_maxt_labels(count_firing, &f, labels, n, m, count, seed, stream, observed, again, &err), err);
        CHECK(memcmp(p, again, (size_t)m * sizeof *p) == 0);
        for (int64_t b = 1; b <= count; b++) {
            pva_permute_labels(seed, stream, (uint32_t)b, labels, n, shuffled);
            for (int64_t i = 0; i < n && b == 1; i++) first[i] = shuffled[i];
            count_firing(shuffled, one, &f);
            for (int64_t h = 0; h < m; h++) permuted[h * count + b - 1] = one[h];
        }
        golden_check_list(&g, r, "first", first, n);
        CHECK_OK(pva_maxt_matrix(observed, permuted, m, count, again, &err), err);
        CHECK(memcmp(p, again, (size_t)m * sizeof *p) == 0);

        /* As a stream whose lower half enters as its maxima alone: the upper half has the same p. */
        int64_t *order = malloc((size_t)m * sizeof *order), *at_least = malloc((size_t)m * sizeof *at_least), half = m / 2;
        double *running = malloc((size_t)count * sizeof *running);
        for (int64_t i = 0; i < m; i++) order[i] = i;
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = i + 1; j < m; j++)
                if (observed[order[j]] < observed[order[i]]) {
                    int64_t kept = order[i];
                    order[i] = order[j];
                    order[j] = kept;
                }
        pva_maxt_start(running, count);
        for (int64_t i = 0; i < half; i++)
            for (int64_t b = 0; b < count; b++) running[b] = fmax(running[b], permuted[order[i] * count + b]);
        for (int64_t i = half; i < m; i++)
            pva_maxt_add(running, count, &observed[order[i]], permuted + order[i] * count, 1, &at_least[i - half]);
        pva_maxt_finish(at_least, m - half, count, one);
        for (int64_t i = half; i < m; i++) CHECK(one[i - half] == p[order[i]]);
        free(labels), free(active), free(observed), free(p), free(again), free(permuted), free(one), free(first), free(shuffled),
            free(order), free(at_least), free(running);
    }
    golden_close(&g);

    unsigned char labels[] = {1, 1, 0, 0, 0, 1, 0, 1, 1, 0}, out[10];
    pva_permute_labels(3, 0, 0, labels, 10, out);
    CHECK(memcmp(out, labels, 10) == 0);
    int sum = 0;
    pva_permute_labels(3, 0, 9, labels, 10, out);
    for (int i = 0; i < 10; i++) sum += out[i];
    CHECK(sum == 5 && memcmp(out, labels, 10) != 0);
    pva_permute_labels(3, 0, 1, labels, 0, out);
    double observed[] = {2, NAN, 1}, permuted[] = {1, 3, NAN, NAN, 5, NAN, 0, NAN, 0, 0, 0, NAN}, p[3];
    CHECK_OK(pva_maxt_matrix(observed, permuted, 3, 4, p, &err), err);
    /* Hypothesis 1 has no statistic, but its permuted values (5 in the first) still count against the others. */
    CHECK(isnan(p[1]) && p[0] == 3.0 / 5 && p[2] == 3.0 / 5);
    CHECK_OK(pva_maxt_matrix(NULL, NULL, 0, 4, NULL, &err), err);
    struct firing f = {observed, 0, 0};
    CHECK_INT(pva_maxt_labels(count_firing, &f, labels, 0, 0, 0, 1, 0, NULL, NULL, &err), PVA_INPUT);
    err = (struct pva_error){0};
    CHECK_OK(pva_maxt_labels(count_firing, &f, labels, 0, 0, 3, 1, 0, observed, p, &err), err);
}

/* The family-wise error over 3000 data sets without any effect: at alpha = 0.1 the rate is 0.1 but for a binomial error of
 * 0.0055; and planted hypotheses are found whatever the others do. */
static void test_family_wise_error(void) {
    enum { N = 24, M = 30, SETS = 3000, PERMUTATIONS = 99 };
    uint64_t state = 42;
    int rejected = 0, planted_found = 0;
    double *active = malloc((size_t)(N * M) * sizeof *active), observed[M], p[M];
    for (int set = 0; set < SETS + 20; set++) {
        unsigned char labels[N];
        for (int i = 0; i < N; i++) labels[i] = i < N / 2;
        for (int h = 0; h < M; h++)
            for (int i = 0; i < N; i++)
                active[h * N + i] = golden_uniform(&state); /* continuous: no ties, so the test is exact */
        if (set >= SETS)
            for (int i = 0; i < N; i++) active[7 * N + i] += 3 * labels[i];
        struct firing f = {active, N, M};
        CHECK_OK(pva_maxt_labels(count_firing, &f, labels, N, M, PERMUTATIONS, (uint64_t)set, 0, observed, p, &err), err);
        double least = 1;
        for (int h = 0; h < M; h++) least = fmin(least, p[h]);
        if (set < SETS) rejected += least <= 0.1;
        else planted_found += p[7] == 0.01;
    }
    printf("  max-T: %d of %d null sets rejected at 0.1, %d of 20 planted hypotheses found\n", rejected, SETS, planted_found);
    CHECK_NEAR(rejected / (double)SETS, 0.1, 4 * 0.0055);
    CHECK_INT(planted_found, 20);
    free(active);
}

int main(void) {
    test_bootstrap();
    test_adjust();
    test_maxt();
    test_family_wise_error();
    json_decref(golden_file);
    return check_report("stats_resample");
}
