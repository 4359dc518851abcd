#include "pva/separation.h"

#include "pva/rates.h"

#include <float.h>
#include <math.h>

double pva_sums_mean(const struct pva_sums *s) { return s->n > 0 ? s->sum / (double)s->n : NAN; }

double pva_sums_variance(const struct pva_sums *s) {
    if (s->n < 2) return NAN;
    double n = (double)s->n, squares = s->sum_sq - s->sum * (s->sum / n);
    if (squares <= DBL_EPSILON * n * s->sum_sq) return 0;
    return squares / (n - 1);
}

struct pva_welch pva_welch(const struct pva_sums *group1, const struct pva_sums *group2) {
    struct pva_welch out = {NAN, NAN, NAN, pva_sums_mean(group1) - pva_sums_mean(group2), NAN};
    double v1 = pva_sums_variance(group1) / (double)group1->n, v2 = pva_sums_variance(group2) / (double)group2->n, v = v1 + v2;
    if (isnan(v) || isnan(out.mean_difference)) return out;
    out.standard_error = sqrt(v);
    if (v > 0) {
        double r1 = v1 / v, r2 = v2 / v; /* the ratios do not underflow where v^2 would */
        out.t = out.mean_difference / out.standard_error;
        out.df = 1 / (r1 * r1 / (double)(group1->n - 1) + r2 * r2 / (double)(group2->n - 1));
        out.p = pva_student_p(out.t, out.df, PVA_TWO_SIDED);
    } else {
        /* The means of equal constants may differ in their last digit when the groups differ in size. */
        double scale = fabs(pva_sums_mean(group1)) + fabs(pva_sums_mean(group2)), n = (double)(group1->n + group2->n);
        int equal = fabs(out.mean_difference) <= DBL_EPSILON * n * scale;
        out.t = equal ? 0 : copysign(INFINITY, out.mean_difference);
        out.p = equal;
    }
    return out;
}

struct pva_separation pva_separation(int64_t active1, int64_t n1, int64_t active2, int64_t n2, double level) {
    struct pva_separation out = {NAN, NAN, NAN, pva_rates_newcombe(active1, n1, active2, n2, level)};
    if (active1 < 0 || active1 > n1 || active2 < 0 || active2 > n2) return out;
    out.f1 = n1 > 0 ? (double)active1 / (double)n1 : NAN;
    out.f2 = n2 > 0 ? (double)active2 / (double)n2 : NAN;
    out.score = out.f1 - out.f2;
    return out;
}
