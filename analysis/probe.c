#include "pva/probe.h"

#include "pva/auroc.h"
#include "pva/rng.h"

#include "logistic.h"
#include "order.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int pva_probe_folds(uint64_t seed, uint32_t stream, const unsigned char *labels, int64_t n, int32_t n_folds, int32_t *fold,
                    struct pva_error *err) {
    int64_t *items = order_array(n, sizeof *items, "probe: folds", err), count[2] = {0, 0};
    if (!items) return err->code;
    for (int positive = 1; positive >= 0; positive--) { /* the positives first */
        int64_t *class = items + (positive ? 0 : count[1]), size = 0;
        for (int64_t i = 0; i < n; i++)
            if ((labels[i] != 0) == positive) class[size++] = i;
        count[positive] = size;
        if (n_folds < 2 || size < n_folds) {
            pva_fail(err, PVA_INPUT,
                     "probe: %" PRId64 " of %" PRId64 " items are %s; %" PRId32
                     " folds need at least 2 folds and as many items of each class",
                     size, n, positive ? "positive" : "negative", n_folds);
            break;
        }
        int64_t first = positive ? 0 : count[1];
        for (int64_t i = size - 1; i > 0; i--) {
            uint64_t j = pva_rng_below(seed, PVA_RNG_PERMUTATION, 0, stream, (uint32_t)(first + i), (uint64_t)i + 1);
            int64_t kept = class[i];
            class[i] = class[j];
            class[j] = kept;
        }
        for (int64_t i = 0; i < size; i++) fold[class[i]] = (int32_t)((first + i) % n_folds);
    }
    free(items);
    return err->code;
}

/* --- Features ------------------------------------------------------------------------------------------------------------- */

/* All items, prepared with the mean and deviation of those fitted on. */
struct features {
    int64_t n, d;
    double *x;              /* [n, d] (x - mean) / deviation */
    double *mean, *inverse; /* [d] */
};

static void features_free(struct features *f) { free(f->x), free(f->mean), free(f->inverse); }

/* fold NULL, or items with fold[i] == left_out are not looked at for mean and deviation. Centring changes nothing but the
 * rounding: the intercept is free. */
static int features_prepare(const float *x, int64_t n, int64_t d, const int32_t *fold, int32_t left_out, int standardise,
                            struct features *f, struct pva_error *err) {
    int64_t n_values, used = 0;
    *f = (struct features){.n = n, .d = d};
    if (__builtin_mul_overflow(n, d, &n_values)) n_values = INT64_MAX;
    f->x = order_array(n_values, sizeof *f->x, "probe", err);
    f->mean = order_array(d, sizeof *f->mean, "probe", err);
    f->inverse = order_array(d, sizeof *f->inverse, "probe", err);
    if (!f->x || !f->mean || !f->inverse) return err->code;
    memset(f->mean, 0, (size_t)d * sizeof *f->mean);
    for (int64_t j = 0; j < d; j++) f->inverse[j] = standardise ? 0 : 1;
    for (int64_t i = 0; i < n; i++) {
        if (fold && fold[i] == left_out) continue;
        used++;
        for (int64_t j = 0; j < d; j++) f->mean[j] += x[i * d + j];
    }
    for (int64_t j = 0; j < d; j++) f->mean[j] /= (double)used;
    for (int64_t i = 0; i < n; i++) {
        double *row = f->x + i * d;
        for (int64_t j = 0; j < d; j++) row[j] = x[i * d + j] - f->mean[j];
        if (!standardise || (fold && fold[i] == left_out)) continue;
        for (int64_t j = 0; j < d; j++) f->inverse[j] += row[j] * row[j];
    }
    if (!standardise) return 0;
    for (int64_t j = 0; j < d; j++) {
        double deviation = sqrt(f->inverse[j] / (double)used);
        /* What is below the rounding of the mean is a constant. */
        f->inverse[j] = deviation > 1e-14 * fabs(f->mean[j]) ? 1 / deviation : 1;
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++) f->x[i * d + j] *= f->inverse[j];
    return 0;
}

/* --- One set of items to fit on, and others to score ------------------------------------------------------------------------ */

struct task {
    struct logistic solver;
    double *matrix, *other; /* [n, m]; for the items left out the rows that give their scores, [n_other, m] */
    unsigned char *labels, *other_labels;
    int64_t n_other;
};

static void task_free(struct task *t) {
    free(t->matrix), free(t->other), free(t->labels), free(t->other_labels), free(t->solver.theta);
}

/* Row i of the matrix for items[0..n): the features themselves, or the inner products with all items fitted on. */
static void fill_rows(const struct features *f, const int64_t *rows, int64_t n_rows, const int64_t *columns, int64_t m, int dual,
                      double *out) {
    for (int64_t i = 0; i < n_rows; i++) {
        const double *row = f->x + rows[i] * f->d;
        if (!dual) memcpy(out + i * m, row, (size_t)m * sizeof *out);
        for (int64_t j = 0; dual && j < m; j++)
            out[i * m + j] = rows == columns && j < i ? out[j * m + i] : logistic_dot(row, f->x + columns[j] * f->d, f->d);
    }
}

static int task_prepare(const struct features *f, const unsigned char *labels, const int32_t *fold, int32_t left_out,
                        struct task *t, struct pva_error *err) {
    *t = (struct task){.n_other = 0};
    int64_t *items = order_array(f->n, sizeof *items, "probe", err), n = 0, m, n_matrix, n_other_values;
    if (!items) return err->code;
    for (int64_t i = 0; i < f->n; i++) { /* those fitted on from the front, the others from the back */
        if (fold && fold[i] == left_out) items[f->n - ++t->n_other] = i;
        else items[n++] = i;
    }
    int dual = f->d >= n;
    m = dual ? n : f->d;
    if (__builtin_mul_overflow(n, m, &n_matrix)) n_matrix = INT64_MAX;
    if (__builtin_mul_overflow(t->n_other, m, &n_other_values)) n_other_values = INT64_MAX;
    t->matrix = order_array(n_matrix, sizeof *t->matrix, "probe", err);
    t->other = order_array(n_other_values, sizeof *t->other, "probe", err);
    t->labels = order_array(n, 1, "probe", err);
    t->other_labels = order_array(t->n_other, 1, "probe", err);
    double *theta = order_array(m, sizeof *theta, "probe", err);
    t->solver = (struct logistic){.n = n, .m = m, .dual = dual, .matrix = t->matrix, .labels = t->labels, .theta = theta};
    if (!err->code) {
        for (int64_t i = 0; i < n; i++) t->labels[i] = labels[items[i]];
        for (int64_t i = 0; i < t->n_other; i++) t->other_labels[i] = labels[items[n + i]];
        fill_rows(f, items, n, items, m, dual, t->matrix);
        fill_rows(f, items + n, t->n_other, items, m, dual, t->other);
        memset(theta, 0, (size_t)m * sizeof *theta);
    }
    free(items);
    return err->code;
}

/* AUROC on the items left out, for every C; each fit starts from the last solution. */
static int cross_validate(const float *x, const unsigned char *labels, int64_t n, int64_t d, const struct pva_probe *grid,
                          int standardise, const int32_t *fold, int32_t left_out, double *auroc, struct pva_error *err) {
    struct features f;
    struct task t = {.n_other = 0};
    double *scores = NULL;
    if (features_prepare(x, n, d, fold, left_out, standardise, &f, err) || task_prepare(&f, labels, fold, left_out, &t, err))
        goto done;
    scores = order_array(t.n_other, sizeof *scores, "probe", err);
    for (int64_t k = 0; scores && k < grid->n_c; k++) {
        struct pva_auroc area;
        t.solver.c = grid->grid[k];
        if (logistic_fit(&t.solver, err)) break;
        for (int64_t i = 0; i < t.n_other; i++)
            scores[i] = logistic_dot(t.other + i * t.solver.m, t.solver.theta, t.solver.m) + t.solver.intercept;
        if (pva_auroc(scores, t.other_labels, t.n_other, 0.95, &area, err)) break;
        auroc[k] = area.auroc;
    }
done:
    features_free(&f);
    task_free(&t);
    free(scores);
    return err->code;
}

/* --- The probe ------------------------------------------------------------------------------------------------------------ */

static int check_input(const float *x, const unsigned char *labels, int64_t n, int64_t d, struct pva_error *err) {
    int64_t n_positive = 0, n_values;
    if (n < 1 || d < 1 || __builtin_mul_overflow(n, d, &n_values))
        return pva_fail(err, PVA_INPUT, "probe: %" PRId64 " items of %" PRId64 " features; at least 1 of each is needed", n, d);
    for (int64_t i = 0; i < n; i++) n_positive += labels[i] != 0;
    if (n_positive == 0 || n_positive == n)
        return pva_fail(err, PVA_INPUT, "probe: all %" PRId64 " items are %s; both classes are needed", n,
                        n_positive ? "positive" : "negative");
    for (int64_t i = 0; i < n_values; i++)
        if (!isfinite(x[i]))
            return pva_fail(err, PVA_INPUT, "probe: feature %" PRId64 " of item %" PRId64 " is %g; features must be finite",
                            i % d, i / d, (double)x[i]);
    return 0;
}

static struct pva_probe *probe_create(int64_t d, const double *grid, int64_t n_c, struct pva_error *err) {
    struct pva_probe *p = order_array(1, sizeof *p, "probe", err);
    if (!p) return NULL;
    *p = (struct pva_probe){.d = d, .n_c = n_c};
    p->weights = order_array(d, sizeof *p->weights, "probe", err);
    p->grid = order_array(n_c, sizeof *p->grid, "probe", err);
    p->auroc = order_array(n_c, sizeof *p->auroc, "probe", err);
    if (err->code) pva_probe_free(&p);
    else if (n_c > 0) memcpy(p->grid, grid, (size_t)n_c * sizeof *grid);
    return p;
}

void pva_probe_free(struct pva_probe **probe) {
    if (*probe) free((*probe)->weights), free((*probe)->grid), free((*probe)->auroc);
    free(*probe);
    *probe = NULL;
}

/* Fits all items with probe->c. */
static int fit(const float *x, const unsigned char *labels, int64_t n, int standardise, struct pva_probe *probe,
               struct pva_error *err) {
    struct features f;
    struct task t = {.n_other = 0};
    int64_t d = probe->d;
    if (features_prepare(x, n, d, NULL, 0, standardise, &f, err) || task_prepare(&f, labels, NULL, 0, &t, err)) goto done;
    t.solver.c = probe->c;
    if (logistic_fit(&t.solver, err)) goto done;
    memset(probe->weights, 0, (size_t)d * sizeof *probe->weights);
    if (!t.solver.dual) memcpy(probe->weights, t.solver.theta, (size_t)d * sizeof *probe->weights);
    for (int64_t i = 0; t.solver.dual && i < n; i++)
        for (int64_t j = 0; j < d; j++) probe->weights[j] += t.solver.theta[i] * f.x[i * d + j];
    probe->intercept = t.solver.intercept;
    for (int64_t j = 0; j < d; j++) {
        probe->weights[j] *= f.inverse[j];
        probe->intercept -= probe->weights[j] * f.mean[j];
    }
    probe->converged = t.solver.converged;
done:
    features_free(&f);
    task_free(&t);
    return err->code;
}

int pva_probe_fit(const float *x, const unsigned char *labels, int64_t n, int64_t d, double c, int standardise,
                  struct pva_probe **out, struct pva_error *err) {
    *out = NULL;
    if (!(c > 0 && isfinite(c))) return pva_fail(err, PVA_INPUT, "probe: C is %g, expected a number above 0", c);
    if (check_input(x, labels, n, d, err)) return err->code;
    *out = probe_create(d, NULL, 0, err);
    if (!*out) return err->code;
    (*out)->c = c;
    if (fit(x, labels, n, standardise, *out, err)) pva_probe_free(out);
    return err->code;
}

int pva_probe_select(const float *x, const unsigned char *labels, int64_t n, int64_t d, const struct pva_probe_settings *settings,
                     struct pva_probe **out, struct pva_error *err) {
    static const double usual[] = {1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 1e1, 1e2, 1e3, 1e4, 1e5};
    const double *grid = settings->c ? settings->c : usual;
    int64_t n_c = settings->c ? settings->n_c : (int64_t)(sizeof usual / sizeof *usual), best = 0, n_aurocs;
    int32_t n_folds = settings->n_folds ? settings->n_folds : 5;
    *out = NULL;
    if (n_c < 1) return pva_fail(err, PVA_INPUT, "probe: the grid of C is empty");
    for (int64_t k = 0; k < n_c; k++)
        if (!(grid[k] > (k > 0 ? grid[k - 1] : 0) && isfinite(grid[k])))
            return pva_fail(err, PVA_INPUT, "probe: C number %" PRId64 " of the grid is %g; the grid must be above 0 and rise", k,
                            grid[k]);
    if (check_input(x, labels, n, d, err)) return err->code;
    int32_t *fold = order_array(n, sizeof *fold, "probe", err);
    double *auroc = NULL;
    struct pva_probe *probe = NULL;
    if (!fold || pva_probe_folds(settings->seed, settings->stream, labels, n, n_folds, fold, err)) goto done;
    if (__builtin_mul_overflow(n_c, (int64_t)n_folds, &n_aurocs)) n_aurocs = INT64_MAX;
    auroc = order_array(n_aurocs, sizeof *auroc, "probe", err);
    probe = probe_create(d, grid, n_c, err);
    if (!auroc || !probe) goto done;
#pragma omp parallel for schedule(dynamic, 1)
    for (int32_t k = 0; k < n_folds; k++) {
        struct pva_error local = {0};
        if (cross_validate(x, labels, n, d, probe, settings->standardise, fold, k, auroc + k * n_c, &local)) {
#pragma omp critical
            pva_fail(err, local.code, "%s", local.msg);
        }
    }
    if (err->code) goto done;
    for (int64_t k = 0; k < n_c; k++) {
        double sum = 0;
        for (int32_t i = 0; i < n_folds; i++) sum += auroc[i * n_c + k];
        probe->auroc[k] = sum / n_folds;
        if (probe->auroc[k] > probe->auroc[best]) best = k;
    }
    probe->c = grid[best];
    if (!fit(x, labels, n, settings->standardise, probe, err)) *out = probe, probe = NULL;
done:
    pva_probe_free(&probe);
    free(fold);
    free(auroc);
    return err->code;
}

void pva_probe_scores(const struct pva_probe *probe, const float *x, int64_t n, double *scores) {
    for (int64_t i = 0; i < n; i++) {
        double sum = probe->intercept;
        for (int64_t j = 0; j < probe->d; j++) sum += probe->weights[j] * x[i * probe->d + j];
        scores[i] = sum;
    }
}
