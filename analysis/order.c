#include "order.h"

#include <gsl/gsl_sort_double.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

void *order_array(int64_t n, size_t size, const char *what, struct pva_error *err) {
    size_t bytes;
    if (n < 0) {
        pva_fail(err, PVA_INPUT, "%s: %" PRId64 " items; the number of items cannot be negative", what, n);
        return NULL;
    }
    void *out = __builtin_mul_overflow((size_t)n, size, &bytes) ? NULL : malloc(bytes ? bytes : 1);
    if (!out) pva_fail(err, PVA_IO, "%s: no memory for %" PRId64 " items of %zu bytes", what, n, size);
    return out;
}

int order_rising(const char *what, const double *scores, int64_t n, size_t *order, struct pva_error *err) {
    for (int64_t i = 0; i < n; i++)
        if (isnan(scores[i]))
            return pva_fail(err, PVA_INPUT, "%s: item %" PRId64 " of %" PRId64 " is NaN; scores must be numbers", what, i, n);
    if (n > 0) gsl_sort_index(order, scores, 1, (size_t)n);
    return 0;
}

int64_t order_tie_end(const double *scores, const size_t *order, int64_t i, int64_t n) {
    double value = scores[order[i]];
    while (i < n && scores[order[i]] == value) i++;
    return i;
}
