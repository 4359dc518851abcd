/* Separation, AUROC, thresholds, clusters: against the reference, at their edges, and from the published confusion counts. */
#include "stats_golden.h"

#include "pva/auroc.h"
#include "pva/cluster.h"
#include "pva/separation.h"
#include "pva/threshold.h"

static struct pva_error err;

static struct pva_sums sums_of(const double *x, int64_t n) {
    struct pva_sums s = {0};
    for (int64_t i = 0; i < n; i++) pva_sums_add(&s, x[i]);
    return s;
}

static void test_golden_separation(void) {
    struct golden g = golden_open("student_p");
    for (size_t r = 0; r < g.n_rows; r++) {
        double t = golden_get(&g, r, "t"), df = golden_get(&g, r, "df");
        golden_check(&g, r, "two_sided", pva_student_p(t, df, PVA_TWO_SIDED));
        golden_check(&g, r, "greater", pva_student_p(t, df, PVA_GREATER));
        golden_check(&g, r, "less", pva_student_p(t, df, PVA_LESS));
    }
    golden_close(&g);
    g = golden_open("welch");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n, m;
        double *x = golden_array(&g, r, "x", &n), *y = golden_array(&g, r, "y", &m);
        struct pva_sums a = sums_of(x, n), b = sums_of(y, m), first = sums_of(x, n / 2), rest = sums_of(x + n / 2, n - n / 2);
        struct pva_welch w = pva_welch(&a, &b);
        golden_check(&g, r, "t", w.t);
        golden_check(&g, r, "df", w.df);
        golden_check(&g, r, "p", w.p);
        golden_check(&g, r, "mean_difference", w.mean_difference);
        CHECK_NEAR(w.t * w.standard_error, w.mean_difference, 1e-12 * fabs(w.mean_difference));
        pva_sums_merge(&first, &rest);
        CHECK(first.n == a.n && first.n_active == a.n_active);
        golden_check(&g, r, "t", pva_welch(&first, &b).t);
        CHECK(pva_welch(&b, &a).t == -w.t);
        free(x);
        free(y);
    }
    golden_close(&g);
}

static void test_separation_edges(void) {
    double values[] = {0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1}, zeros[3] = {0}, spread[] = {1, 2, 4};
    struct pva_sums none = {0}, one = sums_of(values, 1), constant = sums_of(values, 7), shorter = sums_of(values, 3),
                    off = sums_of(zeros, 3), some = sums_of(spread, 3);
    CHECK(isnan(pva_sums_mean(&none)) && isnan(pva_sums_variance(&one)) && pva_sums_variance(&constant) == 0 &&
          pva_sums_variance(&off) == 0);
    struct pva_welch w = pva_welch(&none, &some);
    CHECK(isnan(w.t) && isnan(w.p) && isnan(w.df) && isnan(w.mean_difference));
    w = pva_welch(&one, &some);
    CHECK(isnan(w.t) && isnan(w.p) && isnan(w.standard_error) && fabs(w.mean_difference - (0.1 - 7.0 / 3)) < 1e-15);
    w = pva_welch(&off, &off);
    CHECK(w.t == 0 && w.p == 1 && isnan(w.df) && w.standard_error == 0);
    w = pva_welch(&constant, &shorter);
    CHECK(w.t == 0 && w.p == 1);
    w = pva_welch(&constant, &off);
    CHECK(w.t == INFINITY && w.p == 0);
    w = pva_welch(&off, &constant);
    CHECK(w.t == -INFINITY && w.p == 0);
    w = pva_welch(&off, &some); /* one variance 0: Welch's df is that of the other group alone */
    CHECK_NEAR(w.df, 2, 1e-14);
    pva_sums_add(&off, NAN);
    CHECK(off.n == 4 && off.n_active == 0);
    w = pva_welch(&off, &some);
    CHECK(isnan(w.t) && isnan(w.p) && isnan(w.mean_difference));

    struct pva_separation s =
        pva_separation(105, 145, 173, 344, 0.95); /* the published steering latent: .724 / .503, score .2212 */
    CHECK_NEAR(s.score, 0.2212, 5e-5);
    CHECK(s.interval.low > 0.12 && s.interval.high < 0.31);
    s = pva_separation(0, 0, 1, 5, 0.95);
    CHECK(isnan(s.f1) && isnan(s.score) && s.f2 == 0.2 && s.interval.low == -1 && s.interval.high == 1);
    s = pva_separation(6, 5, 1, 5, 0.95);
    CHECK(isnan(s.score) && isnan(s.f2) && isnan(s.interval.low));
    CHECK(isnan(pva_student_p(NAN, 3, PVA_LESS)) && isnan(pva_student_p(1, 0, PVA_LESS)) &&
          isnan(pva_student_p(1, NAN, PVA_LESS)) && isnan(pva_student_p(NAN, INFINITY, PVA_LESS)));
    CHECK(pva_student_p(INFINITY, 3, PVA_TWO_SIDED) == 0 && pva_student_p(-INFINITY, 3, PVA_GREATER) == 1 &&
          pva_student_p(-INFINITY, 3, PVA_LESS) == 0);
    CHECK_NEAR(pva_student_p(1.959963984540054, INFINITY, PVA_TWO_SIDED), 0.05, 1e-15);
}

static void test_golden_scores(void) {
    struct golden g = golden_open("auroc");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n;
        double *scores = golden_array(&g, r, "scores", &n);
        unsigned char *labels = golden_labels(&g, r, "labels", &n);
        struct pva_auroc a;
        struct pva_best_threshold best;
        CHECK_OK(pva_auroc(scores, labels, n, 0.95, &a, &err), err);
        golden_check(&g, r, "auroc", a.auroc);
        golden_check(&g, r, "variance", a.variance);
        golden_check(&g, r, "low", a.interval.low);
        golden_check(&g, r, "high", a.interval.high);
        golden_check(&g, r, "average_precision", a.average_precision);
        CHECK_INT(a.n_positive + a.n_negative, n);
        CHECK_OK(pva_threshold_best_f1(scores, labels, n, &best, &err), err);
        golden_check(&g, r, "best_threshold", best.threshold);
        golden_check(&g, r, "best_f1", best.f1);
        if (a.n_positive > 0) { /* the same comparison, counted again */
            struct pva_confusion c;
            CHECK_OK(pva_confusion_count(scores, labels, n, best.threshold, &c, &err), err);
            CHECK(memcmp(&c, &best.confusion, sizeof c) == 0);
        }
        free(scores);
        free(labels);
    }
    golden_close(&g);
    g = golden_open("auroc_difference");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n;
        double *first = golden_array(&g, r, "scores1", &n), *second = golden_array(&g, r, "scores2", &n);
        unsigned char *labels = golden_labels(&g, r, "labels", &n);
        struct pva_auroc_difference d, same;
        CHECK_OK(pva_auroc_compare(first, second, labels, n, 0.95, &d, &err), err);
        golden_check(&g, r, "difference", d.difference);
        golden_check(&g, r, "variance", d.variance);
        golden_check(&g, r, "z", d.z);
        golden_check(&g, r, "p", d.p);
        CHECK_OK(pva_auroc_compare(first, first, labels, n, 0.95, &same, &err), err);
        CHECK(same.difference == 0 && same.variance == 0 && same.z == 0 && same.p == 1);
        free(first);
        free(second);
        free(labels);
    }
    golden_close(&g);
    g = golden_open("curve"); /* scikit-learn's points are for score >= threshold; the sets of predictions are the same */
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n, n_points, n_positive = 0, m;
        double *scores = golden_array(&g, r, "scores", &n);
        unsigned char *labels = golden_labels(&g, r, "labels", &n);
        struct pva_curve_point *points = malloc((size_t)(n + 1) * sizeof *points);
        CHECK_OK(pva_auroc_curve(scores, labels, n, points, &n_points, &err), err);
        for (int64_t i = 0; i < n; i++) n_positive += labels[i];
        double *fpr = malloc((size_t)n_points * sizeof *fpr), *tpr = malloc((size_t)n_points * sizeof *tpr),
               *precision = malloc((size_t)n_points * sizeof *precision);
        for (int64_t i = 0; i < n_points; i++) {
            struct pva_confusion c;
            double tp = (double)points[i].true_positives, fp = (double)points[i].false_positives;
            fpr[i] = fp / (double)(n - n_positive), tpr[i] = tp / (double)n_positive;
            precision[i] = tp + fp > 0 ? tp / (tp + fp) : 1; /* its convention for no prediction */
            CHECK_OK(pva_confusion_count(scores, labels, n, points[i].threshold, &c, &err), err);
            CHECK(c.true_positives == points[i].true_positives && c.false_positives == points[i].false_positives);
        }
        golden_check_list(&g, r, "fpr", fpr, n_points);
        golden_check_list(&g, r, "tpr", tpr, n_points);
        double *theirs = golden_array(&g, r, "precision", &m); /* thresholds rising, the point without predictions last */
        CHECK_INT(m, n_points);
        for (int64_t i = 0; i < m; i++) golden_compare(&g, r, "precision", precision[m - 1 - i], theirs[i], GOLDEN_LIMIT);
        free(theirs), free(fpr), free(tpr), free(precision), free(points), free(scores), free(labels);
    }
    golden_close(&g);
    g = golden_open("confusion");
    for (size_t r = 0; r < g.n_rows; r++) {
        struct pva_confusion c = {golden_int(&g, r, "tp"), golden_int(&g, r, "fp"), golden_int(&g, r, "tn"),
                                  golden_int(&g, r, "fn")};
        golden_check(&g, r, "precision", pva_confusion_precision(&c));
        golden_check(&g, r, "recall", pva_confusion_recall(&c));
        golden_check(&g, r, "specificity", pva_confusion_specificity(&c));
        golden_check(&g, r, "accuracy", pva_confusion_accuracy(&c));
        golden_check(&g, r, "f1", pva_confusion_f1(&c));
        golden_check(&g, r, "balanced_accuracy", pva_confusion_balanced_accuracy(&c));
        golden_check(&g, r, "mcc", pva_confusion_mcc(&c));
    }
    golden_close(&g);
}

static void test_score_edges(void) {
    double scores[] = {1, NAN, 3}, infinite[] = {-INFINITY, INFINITY, 0, -INFINITY};
    unsigned char labels[] = {0, 1, 1}, mixed[] = {0, 1, 1, 0};
    struct pva_auroc a;
    struct pva_auroc_difference d;
    struct pva_best_threshold best;
    struct pva_confusion c;
    struct pva_curve_point points[5];
    int64_t n_points;
    err = (struct pva_error){0};
    CHECK_INT(pva_auroc(scores, labels, 3, 0.95, &a, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "item 1 of 3 is NaN");
    CHECK(isnan(a.auroc));
    err = (struct pva_error){0};
    CHECK_INT(pva_auroc_compare(scores, scores, labels, 3, 0.95, &d, &err), PVA_INPUT);
    err = (struct pva_error){0};
    CHECK_INT(pva_threshold_best_f1(scores, labels, 3, &best, &err), PVA_INPUT);
    err = (struct pva_error){0};
    CHECK_INT(pva_confusion_count(scores, labels, 3, 1, &c, &err), PVA_INPUT);
    err = (struct pva_error){0};
    CHECK_INT(pva_confusion_count(scores, labels, 1, NAN, &c, &err), PVA_INPUT);
    err = (struct pva_error){0};
    CHECK_INT(pva_auroc(scores, labels, -1, 0.95, &a, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "-1 items");
    err = (struct pva_error){0};
    CHECK_OK(pva_auroc(infinite, mixed, 4, 0.95, &a, &err), err);
    CHECK(a.auroc == 1 && a.variance == 0 && a.interval.low == 1 && a.interval.high == 1);
    CHECK_OK(pva_auroc_curve(infinite, mixed, 4, points, &n_points, &err), err);
    CHECK(n_points == 3 && points[2].threshold == -INFINITY && points[2].false_positives == 0 && points[2].true_positives == 2);
    CHECK_OK(pva_auroc(NULL, NULL, 0, 0.95, &a, &err), err);
    CHECK(isnan(a.auroc) && isnan(a.average_precision) && a.n_positive == 0 && a.n_negative == 0);
    CHECK_OK(pva_auroc_curve(NULL, NULL, 0, points, &n_points, &err), err);
    CHECK(n_points == 1 && points[0].threshold == -INFINITY);
    CHECK_OK(pva_threshold_best_f1(NULL, NULL, 0, &best, &err), err);
    CHECK(isnan(best.threshold) && isnan(best.f1));
    CHECK_OK(pva_auroc_compare(infinite, infinite, labels + 1, 2, 0.95, &d, &err), err); /* one class */
    CHECK(isnan(d.difference) && isnan(d.p));
    CHECK_OK(pva_auroc(infinite, mixed, 4, 1.5, &a, &err), err); /* a level that cannot be: no interval */
    CHECK(a.auroc == 1 && isnan(a.interval.low));
    double first[] = {4, 3, 2, 1}, second[] = {1, 2, 3, 4};
    unsigned char sorted[] = {1, 1, 0, 0};
    CHECK_OK(pva_auroc_compare(first, second, sorted, 4, 0.95, &d, &err), err); /* opposite and perfect: no variance, no doubt */
    CHECK(d.difference == 1 && d.variance == 0 && d.z == INFINITY && d.p == 0);

    /* What lies exactly at the threshold is negative, in every function. */
    double ties[] = {2, 2, 5};
    unsigned char y[] = {1, 0, 1};
    CHECK_OK(pva_confusion_count(ties, y, 3, 2, &c, &err), err);
    CHECK(c.true_positives == 1 && c.false_positives == 0 && c.false_negatives == 1 && c.true_negatives == 1);
    CHECK(isnan(pva_baseline(0, 0).base_rate) && isnan(pva_baseline(3, 2).base_rate) &&
          pva_baseline(0, 4).f1_always_positive == 0);
    CHECK(isnan(pva_auroc_hanley_mcneil(NAN, 5, 5, 0.95).low) && isnan(pva_auroc_hanley_mcneil(0.5, 0, 5, 0.95).low));
}

static void test_published(void) {
    /* Predicting "will fail" on 388 validation problems of which 272 fail: the published F1 .8208 is below that of always saying
     * so. */
    struct pva_confusion incorrect = {268, 113, 3, 4}, correct = {96, 169, 103, 20};
    CHECK_NEAR(pva_confusion_f1(&incorrect), 0.8208, 5e-5);
    CHECK_NEAR(pva_confusion_precision(&incorrect), 0.7034, 5e-5);
    CHECK_NEAR(pva_confusion_recall(&incorrect), 0.9853, 5e-5);
    CHECK_NEAR(pva_baseline(272, 388).f1_always_positive, 0.8242, 5e-5);
    CHECK(pva_baseline(272, 388).f1_always_positive > pva_confusion_f1(&incorrect));
    CHECK_NEAR(pva_confusion_f1(&correct), 0.5039, 5e-5);
    CHECK_NEAR(pva_confusion_recall(&correct), 0.8276, 5e-5);
    CHECK_NEAR(pva_baseline(116, 388).f1_always_positive, 0.4603, 5e-5);
    CHECK_NEAR(pva_baseline(239, 388).f1_always_positive, 0.7624, 5e-5); /* the instruct model */
    CHECK_NEAR(pva_baseline(139, 164).f1_always_positive, 0.9175, 5e-5); /* HumanEval */
    static const struct {
        double auroc;
        int64_t n_positive, n_negative;
        double low, high;
    } intervals[] = {{0.6430, 116, 272, 0.581, 0.705},
                     {0.6650, 272, 116, 0.609, 0.721},
                     {0.6465, 239, 149, 0.592, 0.701},
                     {0.5555, 149, 239, 0.496, 0.615}};
    for (size_t i = 0; i < 4; i++) {
        struct pva_interval h =
            pva_auroc_hanley_mcneil(intervals[i].auroc, intervals[i].n_positive, intervals[i].n_negative, 0.95);
        CHECK_NEAR(h.low, intervals[i].low, 0.00051);
        CHECK_NEAR(h.high, intervals[i].high, 0.00051);
    }
}

static void test_clusters(void) {
    struct golden g = golden_open("cluster_mean");
    for (size_t r = 0; r < g.n_rows; r++) {
        int64_t n;
        double *values = golden_array(&g, r, "values", &n), *ids = golden_array(&g, r, "clusters", &n);
        int64_t *clusters = malloc((size_t)n * sizeof *clusters);
        for (int64_t i = 0; i < n; i++) clusters[i] = (int64_t)ids[i];
        struct pva_cluster_mean m;
        CHECK_OK(pva_cluster_mean(values, clusters, n, 0.95, &m, &err), err);
        golden_check(&g, r, "mean", m.mean);
        golden_check(&g, r, "standard_error", m.standard_error);
        golden_check(&g, r, "low", m.interval.low);
        golden_check(&g, r, "high", m.interval.high);
        golden_check(&g, r, "independent", m.standard_error_if_independent);
        if (m.n_clusters == n) CHECK_NEAR(m.standard_error, m.standard_error_if_independent, 1e-14 * m.standard_error);
        free(values), free(ids), free(clusters);
    }
    golden_close(&g);
    struct pva_cluster_mean m;
    double values[] = {1, NAN};
    int64_t clusters[] = {INT64_MIN, INT64_MAX};
    CHECK_OK(pva_cluster_mean(values, clusters, 0, 0.95, &m, &err), err);
    CHECK(isnan(m.mean) && isnan(m.standard_error) && m.n_clusters == 0);
    CHECK_OK(pva_cluster_mean(values, clusters, 1, 0.95, &m, &err), err);
    CHECK(m.mean == 1 && isnan(m.standard_error) && isnan(m.interval.low) && isnan(m.standard_error_if_independent) &&
          m.n_clusters == 1);
    CHECK_INT(pva_cluster_mean(values, clusters, 2, 0.95, &m, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "item 1 of 2 is NaN");
    err = (struct pva_error){0};
    values[1] = 3;
    CHECK_OK(pva_cluster_mean(values, clusters, 2, 7, &m, &err), err);
    CHECK(m.mean == 2 && m.standard_error == 1 && isnan(m.interval.low));
}

int main(void) {
    test_golden_separation();
    test_separation_edges();
    test_golden_scores();
    test_score_edges();
    test_published();
    test_clusters();
    json_decref(golden_file);
    return check_report("stats_scores");
}
