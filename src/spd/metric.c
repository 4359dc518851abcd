/* How far a causal-importance matrix is from what a perfect decomposition shows, and how close components come to the target's
 * weights. */
#include "pva/spd.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Largest sum of assigned entries: shortest augmenting paths over potentials (Kuhn, Munkres; the form with one row added at a
 * time). */
static int assign(int n, int m, const double *matrix, int *column_of) {
    double *u = calloc((size_t)n + 1, sizeof *u), *v = calloc((size_t)m + 1, sizeof *v),
           *least = malloc(((size_t)m + 1) * sizeof *least);
    int *row_of = calloc((size_t)m + 1, sizeof *row_of), *before = calloc((size_t)m + 1, sizeof *before),
        ok = u && v && least && row_of && before;
    char *done = malloc((size_t)m + 1);
    ok = ok && done;
    for (int i = 1; ok && i <= n; i++) {
        int column = 0;
        row_of[0] = i;
        for (int j = 0; j <= m; j++) least[j] = INFINITY, done[j] = 0;
        do {
            int row = row_of[column], next = 0;
            double step = INFINITY;
            done[column] = 1;
            for (int j = 1; j <= m; j++) {
                if (done[j]) continue;
                double cost = -matrix[(size_t)(row - 1) * (size_t)m + (size_t)(j - 1)] - u[row] - v[j];
                if (cost < least[j]) least[j] = cost, before[j] = column;
                if (least[j] < step) step = least[j], next = j;
            }
            for (int j = 0; j <= m; j++) {
                if (done[j]) u[row_of[j]] += step, v[j] -= step;
                else least[j] -= step;
            }
            column = next;
        } while (row_of[column]);
        do {
            row_of[column] = row_of[before[column]];
            column = before[column];
        } while (column);
    }
    for (int j = 1; ok && j <= m; j++)
        if (row_of[j]) column_of[row_of[j] - 1] = j - 1;
    free(u), free(v), free(least), free(row_of), free(before), free(done);
    return ok;
}

int pva_spd_permute_identity(int n, int m, const double *matrix, int greedy, int *order, struct pva_error *err) {
    char *used = calloc((size_t)m, 1);
    if (!used) return pva_fail(err, PVA_IO, "out of memory");
    int rows = n < m ? n : m;
    if (greedy || rows >= 500 || n > m) {
        for (int i = 0; i < rows; i++) {
            int best = -1;
            for (int j = 0; j < m; j++)
                if (!used[j] &&
                    (best < 0 || matrix[(size_t)i * (size_t)m + (size_t)j] > matrix[(size_t)i * (size_t)m + (size_t)best]))
                    best = j;
            order[i] = best;
            used[best] = 1;
        }
    } else {
        if (!assign(n, m, matrix, order)) {
            free(used);
            return pva_fail(err, PVA_IO, "out of memory");
        }
        for (int i = 0; i < n; i++) used[order[i]] = 1;
    }
    for (int j = 0, at = rows; j < m; j++)
        if (!used[j]) order[at++] = j;
    free(used);
    return PVA_OK;
}

void pva_spd_permute_dense(int n, int m, const double *matrix, int *order) {
    double *sums = calloc((size_t)m, sizeof *sums);
    PVA_ASSERT(sums);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++) sums[j] += matrix[(size_t)i * (size_t)m + (size_t)j];
    for (int j = 0; j < m; j++) { /* insertion, so that equal sums keep their order */
        int at = j;
        while (at > 0 && sums[order[at - 1]] < sums[j]) order[at] = order[at - 1], at--;
        order[at] = j;
    }
    free(sums);
}

int pva_spd_identity_error(int n, int m, const double *ci, double tol, int64_t *out, struct pva_error *err) {
    if (m < n) return pva_fail(err, PVA_INPUT, "identity_ci: %d features need at least as many components, there are %d", n, m);
    int *order = malloc((size_t)m * sizeof *order);
    if (!order) return pva_fail(err, PVA_IO, "out of memory");
    int status = pva_spd_permute_identity(n, m, ci, 0, order, err);
    *out = 0;
    for (int i = 0; i < n && !status; i++)
        for (int j = 0; j < m; j++) {
            double g = ci[(size_t)i * (size_t)m + (size_t)order[j]];
            *out += i == j ? g < 1 - tol : g > tol;
        }
    free(order);
    return status;
}

int64_t pva_spd_dense_error(int n, int m, const double *ci, int k, double tol) {
    int *order = malloc((size_t)m * sizeof *order);
    PVA_ASSERT(order);
    pva_spd_permute_dense(n, m, ci, order);
    int64_t error = 0;
    for (int j = 0; j < m; j++) {
        int strong = 0;
        for (int i = 0; i < n; i++) {
            double g = ci[(size_t)i * (size_t)m + (size_t)order[j]];
            if (j < k) strong |= g >= 1 - tol;
            else error += g > tol;
        }
        if (j < k) error += !strong;
    }
    free(order);
    return error;
}

void pva_spd_similarity(int n_features, int d, int n_components, const float *w, const float *v, const float *u, double *mmcs,
                        double *ml2r, double *spread) {
    double squares = 0;
    *mmcs = *ml2r = 0;
    for (int j = 0; j < n_features; j++) {
        double best = -INFINITY, ratio = 0, length = 0;
        for (int i = 0; i < d; i++) length += (double)w[j * d + i] * (double)w[j * d + i];
        for (int c = 0; c < n_components; c++) {
            double dot = 0, own = 0, scale = v[(size_t)j * (size_t)n_components + (size_t)c];
            for (int i = 0; i < d; i++) {
                double x = scale * (double)u[(size_t)c * (size_t)d + (size_t)i];
                dot += x * (double)w[j * d + i];
                own += x * x;
            }
            double cosine = own > 0 && length > 0 ? dot / sqrt(own * length) : 0;
            /* Many components point along a feature with almost no length; among equal cosines the longest is the one meant. */
            if (cosine > best + 1e-9 || (cosine > best - 1e-9 && sqrt(own / length) > ratio))
                best = cosine > best ? cosine : best, ratio = sqrt(own / length);
        }
        *mmcs += best / n_features;
        *ml2r += ratio / n_features;
        squares += ratio * ratio;
    }
    *spread = n_features > 1 ? sqrt(fmax(0, squares - n_features * *ml2r * *ml2r) / (n_features - 1)) : 0;
}
