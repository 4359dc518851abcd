/* Evaluation metrics, and the data of the figures as CSV: figures/<metric>_<step>.csv (slow evaluations). Pictures are made from
 * these by report.c. */
#include "run.h"

#include "pva/spd.h"

#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BINS = 100 };

/* Counts of g_lower over [0, 1] in BINS bins, per share and module, so that threads never meet. */
struct histogram {
    double *counts; /* [SPD_SHARES][n_modules][BINS] */
    int n_modules, C;
};

static void count(void *user, int share, int module, int n, int ld, const real *lower, const real *weights) {
    struct histogram *h = user;
    double *bins = h->counts + ((size_t)share * (size_t)h->n_modules + (size_t)module) * BINS;
    for (int c = 0; c < h->C; c++)
        for (int s = 0; s < n; s++) {
            int bin = (int)(lower[(size_t)c * (size_t)ld + (size_t)s] * BINS);
            if (weights[s] != 0) bins[bin < 0 ? 0 : bin >= BINS ? BINS - 1 : bin] += (double)weights[s];
        }
}

int spd_one_hot(struct spd_run *r, double *lower[], double *upper[], struct pva_error *err) {
    struct spd_engine *e = r->engine;
    const size_t F = (size_t)r->target->n_features;
    double *x = calloc(F * F, sizeof *x);
    int ok = x != NULL;
    for (size_t f = 0; ok && f < F; f++) x[f * F + f] = 0.75;
    for (int m = 0; m < e->n_modules; m++)
        ok &= (lower[m] = malloc(F * (size_t)e->C * sizeof(double))) && (upper[m] = malloc(F * (size_t)e->C * sizeof(double)));
    int status = ok ? spd_engine_importances(e, (int)F, x, lower, upper, err) : pva_fail(err, PVA_IO, "out of memory");
    free(x);
    return status;
}

static const struct pva_spd_pattern *match(const struct pva_spd_pattern *list, int n, const char *path) {
    for (int i = 0; i < n; i++)
        if (!fnmatch(list[i].name, path, 0)) return &list[i];
    return NULL;
}

int spd_ci_error(struct spd_run *r, double *const lower[], double tol, json_t *values, double *out, struct pva_error *err) {
    const struct pva_spd_config *c = r->config;
    const struct spd_engine *e = r->engine;
    const int F = r->target->n_features;
    int64_t total = 0, any = 0;
    for (int k = 0; k < e->n_modules; k++) {
        const int m = e->order[k];
        const struct pva_spd_pattern *identity = match(c->identity, c->n_identity, e->modules[m].path),
                                     *dense = match(c->dense, c->n_dense, e->modules[m].path);
        int64_t error = 0;
        if (identity) {
            if (identity->value != F)
                return pva_fail(err, PVA_INPUT, "IdentityCIError: %s has %d features, n_features says %d", e->modules[m].path, F,
                                identity->value);
            if (pva_spd_identity_error(F, e->C, lower[m], tol, &error, err)) return err->code;
        } else if (dense) {
            if (dense->value > e->C)
                return pva_fail(err, PVA_INPUT, "IdentityCIError: %s has %d components, k says %d", e->modules[m].path, e->C,
                                dense->value);
            error = pva_spd_dense_error(F, e->C, lower[m], dense->value, tol);
        } else {
            continue;
        }
        any = 1;
        total += error;
        if (values) {
            char key[120];
            snprintf(key, sizeof key, "target_solution_error/%s", e->modules[m].path);
            json_object_set_new(values, key, json_integer((json_int_t)error));
        }
    }
    *out = any ? (double)total : NAN;
    return PVA_OK;
}

static FILE *open_figure(const struct spd_run *r, const char *name, const char *module, int64_t step, char path[4096],
                         struct pva_error *err) {
    char file[300];
    snprintf(file, sizeof file, "figures/%s%s%s_%lld.csv", name, module ? "_" : "", module ? module : "", (long long)step);
    FILE *f = fopen(spd_run_path(r, file, path), "w");
    if (!f) pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    return f;
}

static int close_figure(FILE *f, const char *path, struct pva_error *err) {
    int bad = ferror(f);
    if (fclose(f) || bad) return pva_fail(err, PVA_IO, "%s: could not be written", path);
    return PVA_OK;
}

/* bin, then a column per module */
static int write_bins(const struct spd_run *r, const char *name, const double *counts, int64_t step, struct pva_error *err) {
    char path[4096];
    FILE *f = open_figure(r, name, NULL, step, path, err);
    if (!f) return err->code;
    fprintf(f, "bin");
    for (int k = 0; k < r->engine->n_modules; k++) fprintf(f, ",%s", r->engine->modules[r->engine->order[k]].path);
    for (int b = 0; b < BINS; b++) {
        fprintf(f, "\n%.2f", (double)b / BINS);
        for (int k = 0; k < r->engine->n_modules; k++)
            fprintf(f, ",%.0f", counts[(size_t)r->engine->order[k] * BINS + (size_t)b]);
    }
    fputc('\n', f);
    return close_figure(f, path, err);
}

/* rows x columns of a matrix with its columns in the given order (NULL: as they are) */
static int write_matrix(const struct spd_run *r, const char *name, const char *module, int64_t step, int n, int m,
                        const double *values, const int *order, struct pva_error *err) {
    char path[4096];
    FILE *f = open_figure(r, name, module, step, path, err);
    if (!f) return err->code;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++)
            fprintf(f, "%.4g%c", values[(size_t)i * (size_t)m + (size_t)(order ? order[j] : j)], j == m - 1 ? '\n' : ',');
    return close_figure(f, path, err);
}

static int write_parameters(const struct spd_run *r, const struct spd_module *m, int64_t step, const int *order,
                            struct pva_error *err) {
    const struct spd_engine *e = r->engine;
    const size_t C = (size_t)e->C, d_in = (size_t)m->d_in, d_out = (size_t)m->d_out, largest = d_in > d_out ? d_in : d_out;
    double *values = malloc(largest * C * sizeof *values);
    if (!values) return pva_fail(err, PVA_IO, "out of memory");
    for (size_t i = 0; i < d_in * C; i++) values[i] = (double)e->params[m->v + i];
    int status = write_matrix(r, "V", m->path, step, m->d_in, e->C, values, order, err);
    for (size_t b = 0; b < d_out; b++) /* U with components as columns too, so that one order serves both */
        for (size_t c = 0; c < C; c++) values[b * C + c] = (double)e->params[m->u + c * d_out + b];
    if (!status) status = write_matrix(r, "U", m->path, step, m->d_out, e->C, values, order, err);
    free(values);
    return status;
}

static int draw_matrices(struct spd_run *r, int64_t step, double *const lower[], double *const upper[], struct pva_error *err) {
    const struct spd_engine *e = r->engine;
    const int F = r->target->n_features;
    int *order = malloc((size_t)e->C * sizeof *order), status = order ? PVA_OK : pva_fail(err, PVA_IO, "out of memory");
    for (int m = 0; m < e->n_modules && !status; m++) {
        const struct spd_module *module = &e->modules[m];
        int dense = match(r->config->dense, r->config->n_dense, module->path) &&
                    !match(r->config->identity, r->config->n_identity, module->path);
        for (int which = 0; which < 2 && !status; which++) { /* the upper leaky order, computed last, serves U and V too */
            const double *matrix = which ? upper[m] : lower[m];
            if (dense) pva_spd_permute_dense(F, e->C, matrix, order);
            else status = pva_spd_permute_identity(F, e->C, matrix, 0, order, err);
            if (!status && r->config->want_permuted)
                status = write_matrix(r, which ? "causal_importances_upper_leaky" : "causal_importances", module->path, step, F,
                                      e->C, matrix, order, err);
        }
        if (!status && r->config->want_uv) status = write_parameters(r, module, step, order, err);
    }
    free(order);
    return status;
}

struct counts {
    double *active, *batch; /* [n_modules][C] */
    struct histogram histogram;
};

static int run_batches(struct spd_run *r, int64_t step, int slow, struct counts *k, struct pva_error *err) {
    const struct pva_spd_config *c = r->config;
    struct spd_engine *e = r->engine;
    const size_t n = (size_t)e->n_modules * (size_t)e->C;
    for (int64_t b = 0; b < c->n_eval_steps; b++) {
        const int histogram = slow && c->want_histograms && (c->histogram_batches < 0 || b < c->histogram_batches);
        struct spd_sums sums = {.active = k->batch};
        struct spd_pass p = {.seed = (uint64_t)c->seed,
                             .step = (uint32_t)step,
                             .stream = SPD_DRAW_EVAL,
                             .first_sample = (uint32_t)(b * c->eval_batch_size),
                             .batch = (int)c->eval_batch_size,
                             .p = c->pnorm,
                             .report = -1,
                             .seen = histogram ? count : NULL,
                             .user = &k->histogram};
        if (spd_engine_pass(e, &p, r->settings->ranks, &sums, err)) return err->code;
        for (size_t i = 0; i < n; i++) k->active[i] += k->batch[i];
    }
    return PVA_OK;
}

/* Shares of other ranks are missing from a rank's histogram. */
static int join_histogram(struct spd_run *r, struct histogram *h, struct pva_error *err) {
    const struct pva_spd_ranks *ranks = r->settings->ranks;
    const size_t per_share = (size_t)h->n_modules * BINS;
    if (ranks && ranks->size > 1) {
        const size_t count = SPD_SHARES / (size_t)ranks->size * per_share;
        double *all = malloc(SPD_SHARES * per_share * sizeof *all);
        if (!all) return pva_fail(err, PVA_IO, "out of memory");
        int status = ranks->gather(ranks->user, h->counts + count * (size_t)ranks->rank, count * sizeof *all, all, err);
        if (!status) memcpy(h->counts, all, SPD_SHARES * per_share * sizeof *all);
        free(all);
        if (status) return status;
    }
    for (size_t s = 1; s < SPD_SHARES; s++)
        for (size_t i = 0; i < per_share; i++) h->counts[i] += h->counts[s * per_share + i];
    return PVA_OK;
}

static int draw_density(struct spd_run *r, int64_t step, const double *active, double samples, struct pva_error *err) {
    const struct spd_engine *e = r->engine;
    double *bins = calloc((size_t)e->n_modules * BINS, sizeof *bins);
    if (!bins) return pva_fail(err, PVA_IO, "out of memory");
    for (int m = 0; m < e->n_modules; m++)
        for (int c = 0; c < e->C; c++) {
            int bin = (int)(active[m * e->C + c] / samples * BINS);
            bins[m * BINS + (bin >= BINS ? BINS - 1 : bin)]++;
        }
    int status = write_bins(r, "component_activation_density", bins, step, err);
    free(bins);
    return status;
}

static int report(struct spd_run *r, int64_t step, int slow, struct counts *k, json_t *values, struct pva_error *err) {
    const struct pva_spd_config *c = r->config;
    struct spd_engine *e = r->engine;
    const double samples = (double)(c->n_eval_steps * c->eval_batch_size);
    char key[120];
    for (int i = 0; c->want_l0 && i < e->n_modules; i++) {
        const int m = e->order[i];
        double sum = 0;
        for (int j = 0; j < e->C; j++) sum += k->active[m * e->C + j];
        snprintf(key, sizeof key, "l0_%g/%s", c->alive_threshold, e->modules[m].path);
        json_object_set_new(values, key, json_real(sum / samples));
    }
    if (!slow) return PVA_OK;
    if (c->want_histograms && join_histogram(r, &k->histogram, err)) return err->code;
    if (r->writes && c->want_histograms && write_bins(r, "causal_importance_values", k->histogram.counts, step, err))
        return err->code;
    if (r->writes && c->want_density && draw_density(r, step, k->active, samples, err)) return err->code;
    if (!c->want_identity && !c->want_permuted && !c->want_uv) return PVA_OK;
    double *lower[PVA_SPD_MAX_MODULES] = {0}, *upper[PVA_SPD_MAX_MODULES] = {0};
    int status = spd_one_hot(r, lower, upper, err);
    if (!status && c->want_identity) {
        json_t *by_module = json_object();
        status = spd_ci_error(r, lower, 0.1, by_module, &r->ci_error, err);
        if (!status) status = spd_ci_error(r, lower, 0.2, NULL, &r->ci_error_02, err);
        if (!status && !isnan(r->ci_error)) {
            json_object_set_new(values, "target_solution_error/total", json_real(r->ci_error));
            json_object_set_new(values, "target_solution_error/total_0p2", json_real(r->ci_error_02));
            json_object_update(values, by_module);
        }
        json_decref(by_module);
    }
    if (!status && r->writes && (c->want_permuted || c->want_uv)) status = draw_matrices(r, step, lower, upper, err);
    for (int m = 0; m < e->n_modules; m++) free(lower[m]), free(upper[m]);
    return status;
}

int spd_evaluate(struct spd_run *r, int64_t step, int slow, struct pva_error *err) {
    const struct pva_spd_config *c = r->config;
    struct spd_engine *e = r->engine;
    const size_t n = (size_t)e->n_modules * (size_t)e->C;
    struct counts k = {calloc(n, sizeof(double)),
                       calloc(n, sizeof(double)),
                       {calloc((size_t)SPD_SHARES * (size_t)e->n_modules * BINS, sizeof(double)), e->n_modules, e->C}};
    json_t *values = json_object();
    int status = k.active && k.batch && k.histogram.counts && values ? PVA_OK : pva_fail(err, PVA_IO, "out of memory");
    if (!status && slow) status = spd_engine_fetch(e, err);
    if (!status && (c->want_l0 || (slow && (c->want_histograms || c->want_density))))
        status = run_batches(r, step, slow, &k, err);
    if (!status) status = report(r, step, slow, &k, values, err);
    if (!status && json_object_size(values)) status = spd_run_log(r, step, "eval/", values, err);
    else json_decref(values);
    free(k.active);
    free(k.batch);
    free(k.histogram.counts);
    return status;
}
