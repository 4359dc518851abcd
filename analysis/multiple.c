#include "pva/multiple.h"

#include "order.h"

#include <gsl/gsl_sort_double.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

static void holm(double *p, int64_t n) {
    double running = 0;
    for (int64_t i = 0; i < n; i++) p[i] = running = fmin(1, fmax(running, (double)(n - i) * p[i]));
}

static void benjamini_hochberg(double *p, int64_t n, double factor) {
    double running = 1;
    for (int64_t i = n - 1; i >= 0; i--) p[i] = running = fmin(running, factor * p[i] * ((double)n / (double)(i + 1)));
}

static double harmonic(int64_t n) {
    double sum = 0;
    for (int64_t i = n; i >= 1; i--) sum += 1 / (double)i;
    return sum;
}

int pva_adjust(enum pva_adjustment adjustment, const double *p, int64_t n, double *adjusted, struct pva_error *err) {
    double *sorted = order_array(n, sizeof *sorted, "adjusted p", err);
    int64_t *item = order_array(n, sizeof *item, "adjusted p", err), kept = 0;
    size_t *order = order_array(n, sizeof *order, "adjusted p", err);
    if (!sorted || !item || !order) goto done;
    for (int64_t i = 0; i < n; i++) {
        if (p[i] < 0 || p[i] > 1) {
            pva_fail(err, PVA_INPUT, "adjusted p: item %" PRId64 " of %" PRId64 " is %g, expected 0 to 1", i, n, p[i]);
            goto done;
        }
        if (!isnan(p[i])) sorted[kept] = p[i], item[kept++] = i;
    }
    if (kept > 0) gsl_sort_index(order, sorted, 1, (size_t)kept);
    for (int64_t i = 0; i < n; i++) adjusted[i] = p[i];
    for (int64_t i = 0; i < kept; i++) sorted[i] = p[item[order[i]]];
    if (adjustment == PVA_HOLM) holm(sorted, kept);
    else benjamini_hochberg(sorted, kept, adjustment == PVA_BY ? harmonic(kept) : 1);
    for (int64_t i = 0; i < kept; i++) adjusted[item[order[i]]] = sorted[i];
done:
    free(sorted);
    free(item);
    free(order);
    return err->code;
}
