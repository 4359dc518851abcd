#include "pva/cluster.h"

#include "distribution.h"
#include "order.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

struct member {
    int64_t cluster, item;
};

/* By cluster, then by item: the order of the sums does not depend on how qsort works. */
static int compare_members(const void *a, const void *b) {
    const struct member *x = a, *y = b;
    if (x->cluster != y->cluster) return x->cluster < y->cluster ? -1 : 1;
    return x->item < y->item ? -1 : x->item > y->item;
}

int pva_cluster_mean(const double *values, const int64_t *clusters, int64_t n, double level, struct pva_cluster_mean *out,
                     struct pva_error *err) {
    *out = (struct pva_cluster_mean){NAN, NAN, {NAN, NAN}, NAN, n, 0};
    struct member *members = order_array(n, sizeof *members, "cluster mean", err);
    if (!members) return err->code;
    double sum = 0, squares = 0, between = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(values[i])) {
            pva_fail(err, PVA_INPUT, "cluster mean: item %" PRId64 " of %" PRId64 " is NaN", i, n);
            goto done;
        }
        members[i] = (struct member){clusters[i], i};
        sum += values[i];
    }
    if (n == 0) goto done;
    out->mean = sum / (double)n;
    qsort(members, (size_t)n, sizeof *members, compare_members);
    for (int64_t i = 0; i < n;) {
        double deviation = 0;
        int64_t cluster = members[i].cluster;
        for (; i < n && members[i].cluster == cluster; i++) {
            double d = values[members[i].item] - out->mean;
            deviation += d;
            squares += d * d;
        }
        between += deviation * deviation;
        out->n_clusters++;
    }
    double g = (double)out->n_clusters, count = (double)n;
    if (n > 1) out->standard_error_if_independent = sqrt(squares / (count - 1) / count);
    if (out->n_clusters > 1) {
        out->standard_error = sqrt(g / (g - 1) * between) / count;
        if (level > 0 && level < 1) {
            double half = student_quantile(0.5 + level / 2, g - 1) * out->standard_error;
            out->interval = (struct pva_interval){out->mean - half, out->mean + half};
        }
    }
done:
    free(members);
    return err->code;
}
