#include "logistic.h"

#include "order.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 200, MAX_HALVINGS = 60 };

double logistic_dot(const double *a, const double *b, int64_t n) {
    double s[8] = {0}, rest = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) s[k] += a[i + k] * b[i + k];
    for (; i < n; i++) rest += a[i] * b[i];
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])) + rest;
}

/* In place, lower triangle; a is [n, n] and positive definite up to rounding. GSL's takes 2.5 times as long, and this is nearly
 * all the time a probe takes. */
static void cholesky(double *a, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double *row = a + i * n;
        for (int64_t j = 0; j < i; j++) row[j] = (row[j] - logistic_dot(row, a + j * n, j)) / a[j * n + j];
        double pivot = row[i] - logistic_dot(row, row, i);
        row[i] = sqrt(pivot > 1e-300 ? pivot : 1e-300);
    }
}

static void cholesky_solve(const double *a, int64_t n, double *b) {
    for (int64_t i = 0; i < n; i++) b[i] = (b[i] - logistic_dot(a + i * n, b, i)) / a[i * n + i];
    for (int64_t i = n - 1; i >= 0; i--) {
        b[i] /= a[i * n + i];
        for (int64_t j = 0; j < i; j++) b[j] -= a[i * n + j] * b[i];
    }
}

struct work {
    double *linear, *next_linear; /* [n] matrix theta, here and after the full step */
    double *next_theta;           /* [m] */
    double *residual, *weight;    /* [n] y - p; p (1 - p) */
    double *a;                    /* [size, size] the system of one step */
    double *u, *v;                /* [size] */
    int64_t size;
    double next_intercept;
};

static void multiply(const struct logistic *l, const double *theta, double *linear) {
    for (int64_t i = 0; i < l->n; i++) linear[i] = logistic_dot(l->matrix + i * l->m, theta, l->m);
}

static double objective(const struct logistic *l, const double *theta, const double *linear, double intercept) {
    double loss = 0, penalty = l->dual ? logistic_dot(theta, linear, l->n) : logistic_dot(theta, theta, l->m);
    for (int64_t i = 0; i < l->n; i++) {
        double margin = l->labels[i] ? linear[i] + intercept : -(linear[i] + intercept);
        loss += margin > 0 ? log1p(exp(-margin)) : log1p(exp(margin)) - margin;
    }
    return penalty / 2 + l->c * loss;
}

static void residuals(const struct logistic *l, struct work *w) {
    for (int64_t i = 0; i < l->n; i++) {
        double f = w->linear[i] + l->intercept, e = exp(-fabs(f)), small = e / (1 + e);
        w->residual[i] = l->labels[i] ? (f > 0 ? small : 1 - small) : (f > 0 ? small - 1 : -small);
        w->weight[i] = fmax(small / (1 + e), 1e-26); /* the floor bends the direction far out, not the solution */
    }
}

/* The Newton step as a weighted ridge regression on the working response z = f + residual / weight:
 * (K + (c W)^-1) theta + intercept = z, sum theta = 0. With S = sqrt(c W), B = 1 + S K S has no eigenvalue below 1 whatever K is.
 */
static void step_dual(const struct logistic *l, struct work *w) {
    int64_t n = l->n;
    for (int64_t i = 0; i < n; i++) {
        double s = sqrt(l->c * w->weight[i]);
        w->u[i] = s * (w->linear[i] + l->intercept) + sqrt(l->c / w->weight[i]) * w->residual[i];
        w->v[i] = s;
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++) w->a[i * n + j] = w->v[i] * w->v[j] * l->matrix[i * n + j] + (i == j);
    cholesky(w->a, n);
    cholesky_solve(w->a, n, w->u);
    cholesky_solve(w->a, n, w->v);
    double sum_u = 0, sum_v = 0;
    for (int64_t i = 0; i < n; i++) {
        double s = sqrt(l->c * w->weight[i]);
        sum_u += w->u[i] *= s;
        sum_v += w->v[i] *= s;
    }
    w->next_intercept = sum_u / sum_v;
    for (int64_t i = 0; i < n; i++) w->next_theta[i] = w->u[i] - w->next_intercept * w->v[i];
}

/* (X 1)^T c W (X 1) + diag(1, ..., 1, 0): the intercept is the last parameter and is not penalised. */
static void step_primal(const struct logistic *l, struct work *w) {
    int64_t d = l->m, size = w->size;
    memset(w->a, 0, (size_t)(size * size) * sizeof *w->a);
    memset(w->u, 0, (size_t)size * sizeof *w->u);
    for (int64_t i = 0; i < l->n; i++) {
        const double *x = l->matrix + i * d;
        double cw = l->c * w->weight[i], cr = l->c * w->residual[i];
        for (int64_t j = 0; j < d; j++) {
            double scaled = cw * x[j];
            for (int64_t k = 0; k <= j; k++) w->a[j * size + k] += scaled * x[k];
            w->a[d * size + j] += scaled;
            w->u[j] += cr * x[j];
        }
        w->a[d * size + d] += cw;
        w->u[d] += cr;
    }
    for (int64_t j = 0; j < d; j++) {
        w->a[j * size + j] += 1;
        w->u[j] -= l->theta[j];
    }
    cholesky(w->a, size);
    cholesky_solve(w->a, size, w->u);
    for (int64_t j = 0; j < d; j++) w->next_theta[j] = l->theta[j] + w->u[j];
    w->next_intercept = l->intercept + w->u[d];
}

/* Moves towards the full step until the objective does not rise, which for a convex function ends. Returns the largest change of
 * an f relative to 1 + |f|. */
static double search(struct logistic *l, struct work *w, double *value) {
    double moved = 0, share = 1, best = *value;
    for (int k = 0; k < MAX_HALVINGS; k++, share /= 2) {
        if (k > 0) {
            for (int64_t j = 0; j < l->m; j++) w->next_theta[j] = l->theta[j] + (w->next_theta[j] - l->theta[j]) / 2;
            for (int64_t i = 0; i < l->n; i++) w->next_linear[i] = w->linear[i] + (w->next_linear[i] - w->linear[i]) / 2;
            w->next_intercept = l->intercept + (w->next_intercept - l->intercept) / 2;
        }
        best = objective(l, w->next_theta, w->next_linear, w->next_intercept);
        if (best <= *value + 1e-13 * fabs(*value)) break;
    }
    *value = best;
    for (int64_t i = 0; i < l->n; i++) {
        double f = w->next_linear[i] + w->next_intercept;
        moved = fmax(moved, fabs(f - w->linear[i] - l->intercept) / (1 + fabs(f)));
    }
    memcpy(l->theta, w->next_theta, (size_t)l->m * sizeof *l->theta);
    memcpy(w->linear, w->next_linear, (size_t)l->n * sizeof *w->linear);
    l->intercept = w->next_intercept;
    return moved;
}

int logistic_fit(struct logistic *l, struct pva_error *err) {
    int64_t n = l->n, size = l->dual ? n : l->m + 1, n_doubles;
    if (__builtin_mul_overflow(size, size, &n_doubles) || __builtin_add_overflow(n_doubles, 4 * n + l->m + 2 * size, &n_doubles))
        n_doubles = INT64_MAX;
    double *memory = order_array(n_doubles, sizeof *memory, "probe", err);
    if (!memory) return err->code;
    struct work w = {.linear = memory,
                     .next_linear = memory + n,
                     .residual = memory + 2 * n,
                     .weight = memory + 3 * n,
                     .next_theta = memory + 4 * n,
                     .size = size};
    w.u = w.next_theta + l->m, w.v = w.u + size, w.a = w.v + size;
    multiply(l, l->theta, w.linear);
    double value = objective(l, l->theta, w.linear, l->intercept);
    l->converged = 0;
    for (int step = 0; step < MAX_STEPS && !l->converged; step++) {
        residuals(l, &w);
        if (l->dual) step_dual(l, &w);
        else step_primal(l, &w);
        multiply(l, w.next_theta, w.next_linear);
        l->converged = search(l, &w, &value) <= 1e-10;
    }
    free(memory);
    return 0;
}
