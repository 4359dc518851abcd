#include "spd_report.h"

#include "spd_picture.h"

#include "pva/figure.h"
#include "pva/html.h"
#include "pva/log.h"
#include "pva/spd.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_CURVES = 80 };
static const char STEPS[] = "thousands of steps";

struct curve { /* one key of metrics.jsonl, over thousands of steps */
    char key[128];
    int64_t n, capacity;
    double *x, *y;
};

struct run {
    const char *directory;
    char name[256], figures[3200];
    const char *link; /* figures, as the page being written calls them; NULL: they are not below it */
    int n_curves, n_modules;
    struct curve curves[MAX_CURVES];
    char modules[PVA_SPD_MAX_MODULES][64];
    json_t *result;
    int no_gnuplot;
};

static struct curve *find_curve(struct run *r, const char *key, int make) {
    for (int i = 0; i < r->n_curves; i++)
        if (!strcmp(r->curves[i].key, key)) return &r->curves[i];
    if (!make || r->n_curves == MAX_CURVES || strlen(key) >= sizeof r->curves->key) return NULL;
    struct curve *c = &r->curves[r->n_curves++];
    memset(c, 0, sizeof *c);
    strcpy(c->key, key);
    return c;
}

static int read_line(struct run *r, const char *line, int number, const char *path, struct pva_error *err) {
    json_t *o = json_loads(line, 0, NULL), *v;
    const char *key;
    if (!json_is_object(o)) {
        json_decref(o);
        return pva_fail(err, PVA_INPUT, "%s:%d: a JSON object is expected", path, number);
    }
    double step = json_number_value(json_object_get(o, "step"));
    json_object_foreach(o, key, v) {
        struct curve *c = strcmp(key, "step") && json_is_number(v) ? find_curve(r, key, 1) : NULL;
        if (!c) continue;
        if (c->n == c->capacity) {
            c->capacity = c->capacity ? 2 * c->capacity : 64;
            c->x = realloc(c->x, (size_t)c->capacity * sizeof *c->x);
            c->y = realloc(c->y, (size_t)c->capacity * sizeof *c->y);
            PVA_ASSERT(c->x && c->y);
        }
        c->x[c->n] = step / 1000;
        c->y[c->n++] = json_number_value(v);
        size_t n = strlen(key);
        if (!strncmp(key, "train/", 6) && n > 9 && !strcmp(key + n - 3, "/l0") && r->n_modules < PVA_SPD_MAX_MODULES) {
            char name[64];
            snprintf(name, sizeof name, "%.*s", (int)(n - 9), key + 6);
            int seen = 0;
            for (int i = 0; i < r->n_modules; i++) seen |= !strcmp(r->modules[i], name);
            if (!seen) strcpy(r->modules[r->n_modules++], name);
        }
    }
    json_decref(o);
    return PVA_OK;
}

static void close_run(struct run *r) {
    for (int i = 0; i < r->n_curves; i++) free(r->curves[i].x), free(r->curves[i].y);
    json_decref(r->result);
    r->n_curves = 0;
    r->result = NULL;
}

static int open_run(const char *directory, struct run *r, struct pva_error *err) {
    char path[4096], *line = NULL;
    size_t size = 0, n = strlen(directory);
    memset(r, 0, sizeof *r);
    r->directory = directory;
    while (n > 1 && directory[n - 1] == '/') n--;
    size_t first = n;
    while (first > 0 && directory[first - 1] != '/') first--;
    snprintf(r->name, sizeof r->name, "%.*s", (int)(n - first), directory + first);
    snprintf(r->figures, sizeof r->figures, "%.3000s/figures", directory);
    snprintf(path, sizeof path, "%.3000s/metrics.jsonl", directory);
    FILE *f = fopen(path, "r");
    if (!f) return pva_fail(err, errno == ENOENT ? PVA_INPUT : PVA_IO, "%s: %s", path, strerror(errno));
    int status = PVA_OK;
    for (int number = 1; !status && getline(&line, &size, f) > 0; number++) status = read_line(r, line, number, path, err);
    free(line);
    fclose(f);
    snprintf(path, sizeof path, "%.3000s/result.json", directory);
    r->result = json_load_file(path, 0, NULL); /* absent while a run is on its way */
    if (status) close_run(r);
    return status;
}

static void set_link(struct run *r, const char *page) {
    const char *name = strrchr(page, '/');
    size_t n = name ? (size_t)(name + 1 - page) : 0;
    r->link = strncmp(r->figures, page, n) || (!n && *r->figures == '/') ? NULL : r->figures + n;
}

static double last(struct run *r, const char *key) {
    struct curve *c = find_curve(r, key, 0);
    return c && c->n ? c->y[c->n - 1] : NAN;
}
static double result(const struct run *r, const char *key) {
    const json_t *v = json_object_get(r->result, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static void picture(struct run *r, struct pva_html *page, const char *name, const struct pva_figure *figure, const char *alt) {
    struct pva_error err = {0};
    char svg[4096], csv[4096];
    if (!figure->n_series) return;
    if (pva_figure_write(figure, r->figures, name, &err) && !r->no_gnuplot++) pva_log(PVA_LOG_WARNING, "%s", err.msg);
    snprintf(svg, sizeof svg, "%s/%s.svg", r->figures, name);
    snprintf(csv, sizeof csv, "%s/%s.csv", r->link ? r->link : "", name);
    pva_html_picture(page, svg, r->link ? csv : NULL, alt, NULL);
}

static struct pva_series line(const struct curve *c, const char *label, int i) {
    return (struct pva_series){.label = label,
                               .kind = PVA_SERIES_LINE,
                               .colour = (enum pva_colour)(i % PVA_N_COLOURS),
                               .dashed = i >= PVA_N_COLOURS,
                               .n = c->n,
                               .x = c->x,
                               .y = c->y};
}

/* A picture of the curves with those keys, as far as there are any. */
static void draw_curves(struct run *r, struct pva_html *page, const char *name, const char *title, const char *y, int logarithmic,
                        const char *const *keys, const char *const *labels, int n_keys) {
    struct pva_series series[8];
    int n = 0;
    for (int i = 0; i < n_keys && n < 8; i++) {
        struct curve *c = find_curve(r, keys[i], 0);
        if (c && c->n) series[n] = line(c, labels[i], n), n++;
    }
    struct pva_figure figure = {
        .title = title, .x_label = STEPS, .y_label = y, .y_logarithmic = logarithmic, .series = series, .n_series = n};
    picture(r, page, name, &figure, title);
}

/* brief: without what a comparison leaves out */
static void draw_losses(struct run *r, struct pva_html *page, int brief) {
    const char *const recon[] = {"train/loss/stochastic_recon", "train/loss/stochastic_recon_layerwise", "train/loss/recon",
                                 "train/loss/recon_layerwise", "train/loss/output_recon"};
    const char *const recon_labels[] = {"stochastic", "stochastic, layerwise", "by importance", "by importance, layerwise",
                                        "unmasked"};
    const char *const faith[] = {"train/loss/faithfulness"}, *const importance[] = {"train/loss/importance_minimality"},
                      *const error[] = {"target_solution_error/total", "target_solution_error/total_0p2"};
    const char *const none[] = {NULL}, *const tolerances[] = {"tolerance 0.1", "tolerance 0.2"};
    char l0[PVA_SPD_MAX_MODULES][100];
    const char *keys[PVA_SPD_MAX_MODULES], *labels[PVA_SPD_MAX_MODULES];
    for (int i = 0; i < r->n_modules; i++) {
        snprintf(l0[i], sizeof l0[i], "train/%s/l0", r->modules[i]);
        keys[i] = l0[i];
        labels[i] = r->modules[i];
    }
    draw_curves(r, page, "loss_recon", "Reconstruction", "mean squared error", 1, recon, recon_labels, 5);
    draw_curves(r, page, "loss_faithfulness", "Faithfulness", "mean squared error of weights", 1, faith, none, 1);
    draw_curves(r, page, "loss_importance", "Importance minimality", "sum of importances^p", 1, importance, none, 1);
    if (!brief) draw_curves(r, page, "l0", "Active components per sample", "L0", 0, keys, labels, r->n_modules);
    draw_curves(r, page, "ci_error", "Distance from the ideal importances", "entries off", 0, error, tolerances, 2);
}

/* ---- newest figures ---- */

/* figures/NAME_STEP.csv with the largest step; -1: none. */
static int64_t newest(const struct run *r, const char *name) {
    DIR *d = opendir(r->figures);
    int64_t best = -1;
    size_t n = strlen(name);
    for (struct dirent *e; d && (e = readdir(d));) {
        char *end;
        if (strncmp(e->d_name, name, n) || e->d_name[n] != '_') continue;
        long long step = strtoll(e->d_name + n + 1, &end, 10);
        if (end != e->d_name + n + 1 && !strcmp(end, ".csv") && step > best) best = step;
    }
    if (d) closedir(d);
    return best;
}

static int read_newest(const struct run *r, const char *name, struct spd_matrix_file *m, char csv[4096]) {
    struct pva_error err = {0};
    int64_t step = newest(r, name);
    snprintf(csv, 4096, "%s/%s_%lld.csv", r->figures, name, (long long)step);
    return step < 0 ? 1 : spd_matrix_read(csv, m, &err);
}

/* Histograms: a column per module, first line the names. */
static void draw_bins(struct run *r, struct pva_html *page, const char *name, enum pva_series_kind kind, const char *title,
                      const char *x_label, const char *y_label) {
    char path[4096], *line = NULL;
    size_t size = 0;
    double bins[200], counts[PVA_SPD_MAX_MODULES][200];
    int n = 0, columns = 0;
    snprintf(path, sizeof path, "%s/%s_%lld.csv", r->figures, name, (long long)newest(r, name));
    FILE *f = fopen(path, "r");
    if (!f) return;
    for (int number = 0; getline(&line, &size, f) > 0 && n < 200; number++) {
        if (!number) continue;
        char *p = line;
        bins[n] = strtod(p, &p);
        for (columns = 0; *p == ',' && columns < PVA_SPD_MAX_MODULES; columns++) counts[columns][n] = strtod(p + 1, &p);
        n++;
    }
    free(line);
    fclose(f);
    for (int m = 0; m < columns && m < r->n_modules; m++) {
        char own[200], heading[200];
        struct pva_series series = {.kind = kind, .colour = PVA_BLUE, .n = n, .x = bins, .y = counts[m]};
        double most = 1;
        for (int i = 0; i < n; i++) most = fmax(most, counts[m][i]);
        const double width = n > 1 ? bins[1] - bins[0] : 1, across[2] = {-width, bins[n - 1] + 2 * width},
                     up[2] = {0.5, 2 * most};
        snprintf(own, sizeof own, "%s_%s", name, r->modules[m]);
        snprintf(heading, sizeof heading, "%s: %s", r->modules[m], title);
        struct pva_figure figure = {.title = heading,
                                    .x_label = x_label,
                                    .y_label = y_label,
                                    .x_range = across,
                                    .y_range = up,
                                    .y_logarithmic = 1,
                                    .series = &series,
                                    .n_series = 1};
        picture(r, page, own, &figure, heading);
    }
}

static double largest(const struct spd_matrix_file *m) {
    double v = 0;
    for (size_t i = 0; i < (size_t)m->n_rows * (size_t)m->n_cols; i++) v = fmax(v, fabs(m->values[i]));
    return v;
}

static void draw_heat_map(struct run *r, struct pva_html *page, const char *name, const char *module, enum spd_palette palette,
                          double limit, const char *title, const char *rows) {
    struct spd_matrix_file m;
    struct pva_error err = {0};
    char full[200], csv[4096], svg[4096], heading[200], link[4096];
    snprintf(full, sizeof full, "%s_%s", name, module);
    if (read_newest(r, full, &m, csv)) return;
    snprintf(svg, sizeof svg, "%s/%s.svg", r->figures, full);
    snprintf(heading, sizeof heading, "%s: %s", module, title);
    if (spd_heat_map(&m, palette, limit > 0 ? limit : largest(&m), heading, rows, "components", svg, &err))
        pva_log(PVA_LOG_WARNING, "%s", err.msg);
    free(m.values);
    snprintf(link, sizeof link, "%.3000s%s", r->link ? r->link : "", csv + strlen(r->figures));
    pva_html_picture(page, svg, r->link ? link : NULL, heading, NULL);
}

static void draw_importances(struct run *r, struct pva_html *page) {
    pva_html_section(page, "importances", "Causal importances");
    pva_html_paragraph(page, "",
                       "One row per input feature, alone and at height 0.75; one column per component, permuted towards the "
                       "identity, or by their sums where dense ones are expected.");
    pva_html_row_begin(page);
    for (int i = 0; i < r->n_modules; i++) {
        draw_heat_map(r, page, "causal_importances", r->modules[i], SPD_BLUES, 1, "importances", "features");
        draw_heat_map(r, page, "causal_importances_upper_leaky", r->modules[i], SPD_REDS, 1, "importances, leaky above 1",
                      "features");
    }
    draw_bins(r, page, "causal_importance_values", PVA_SERIES_STEPS, "importances of all samples", "importance", "count");
    draw_bins(r, page, "component_activation_density", PVA_SERIES_BARS, "how often components are active", "share of samples",
              "components");
    pva_html_row_end(page);
    pva_html_section(page, "components", "Components");
    pva_html_row_begin(page);
    for (int i = 0; i < r->n_modules; i++) {
        draw_heat_map(r, page, "V", r->modules[i], SPD_COOLWARM, 0, "V", "inputs");
        draw_heat_map(r, page, "U", r->modules[i], SPD_COOLWARM, 0, "U", "outputs");
    }
    pva_html_row_end(page);
}

/* ---- what the components are made of, beside the target ---- */

/* TMS in two dimensions: for each feature the target's column, the components' contributions that are not negligible, and their
 * sum. */
static void draw_vectors(struct run *r, struct pva_html *page, const struct pva_spd_target *t) {
    struct spd_matrix_file v, u;
    struct pva_error err = {0};
    char csv[4096], svg[4096];
    if (t->residual || t->n_hidden != 2 || read_newest(r, "V_linear1", &v, csv)) return;
    if (read_newest(r, "U_linear1", &u, csv)) {
        free(v.values);
        return;
    }
    const int F = t->n_features, C = v.n_cols;
    double *x = calloc((size_t)F * (size_t)(C + 2), sizeof *x), *y = calloc((size_t)F * (size_t)(C + 2), sizeof *y);
    int *group = calloc((size_t)F * (size_t)(C + 2), sizeof *group), n = 0;
    PVA_ASSERT(x && y && group);
    for (int f = 0; f < F && v.n_rows == F && u.n_rows == 2 && u.n_cols == C; f++) {
        double sum[2] = {0, 0};
        x[n] = (double)t->layers[0].weight[f * 2], y[n] = (double)t->layers[0].weight[f * 2 + 1], group[n++] = 0;
        for (int c = 0; c < C; c++) {
            double a = v.values[f * C + c] * u.values[c], b = v.values[f * C + c] * u.values[C + c];
            sum[0] += a, sum[1] += b;
            if (hypot(a, b) > 0.017) x[n] = a, y[n] = b, group[n++] = 1;
        }
        x[n] = sum[0], y[n] = sum[1], group[n++] = 2;
    }
    snprintf(svg, sizeof svg, "%s/vectors.svg", r->figures);
    if (spd_arrows(n, x, y, group, "Features in the hidden plane", svg, &err)) pva_log(PVA_LOG_WARNING, "%s", err.msg);
    pva_html_picture(page, svg, NULL, "An arrow per feature: the target's weights, the components' and their sum", NULL);
    free(x), free(y), free(group), free(v.values), free(u.values);
}

/* The same for the first features of the first block, each neuron a point. target, own: [feature][neuron]. */
static void draw_stripes(struct run *r, struct pva_html *page, const struct pva_spd_target *t, const double *target,
                         const double *own) {
    enum { MOST = 10 };
    const int M = t->n_hidden, n = (t->n_features < MOST ? t->n_features : MOST) * M;
    double *left = malloc((size_t)n * sizeof *left), *right = malloc((size_t)n * sizeof *right);
    PVA_ASSERT(left && right);
    for (int i = 0; i < n; i++) left[i] = i / M - 0.15, right[i] = i / M + 0.15;
    struct pva_series series[2] = {
        {.label = "target", .kind = PVA_SERIES_POINTS, .colour = PVA_GREY, .n = n, .x = left, .y = target},
        {.label = "its component", .kind = PVA_SERIES_POINTS, .colour = PVA_BLUE, .n = n, .x = right, .y = own}};
    struct pva_figure figure = {.title = "Neuron contributions, first features",
                                .x_label = "feature",
                                .y_label = "contribution of each neuron",
                                .series = series,
                                .n_series = 2};
    picture(r, page, "neuron_stripes", &figure, figure.title);
    free(left);
    free(right);
}

/* What MMCS and ML2R are means of: per feature of a TMS the best component's cosine and its length beside the target's. */
static void draw_similarity(struct run *r, struct pva_html *page, const struct pva_spd_target *t) {
    struct spd_matrix_file v, u;
    char csv[4096];
    if (t->residual || read_newest(r, "V_linear1", &v, csv)) return;
    if (read_newest(r, "U_linear1", &u, csv)) {
        free(v.values);
        return;
    }
    const int F = t->n_features, H = t->n_hidden, C = v.n_cols, fits = v.n_rows == F && u.n_rows == H && u.n_cols == C;
    float *own = malloc((size_t)C * sizeof *own), *rows = malloc((size_t)C * (size_t)H * sizeof *rows);
    double place[512], cosine[512], ratio[512], spread, one = 1;
    PVA_ASSERT(own && rows);
    for (int c = 0; c < C && fits; c++)
        for (int h = 0; h < H; h++) rows[c * H + h] = (float)u.values[h * C + c];
    for (int f = 0; f < F && fits; f++) {
        for (int c = 0; c < C; c++) own[c] = (float)v.values[f * C + c];
        place[f] = f;
        pva_spd_similarity(1, H, C, t->layers[0].weight + (size_t)f * (size_t)H, own, rows, &cosine[f], &ratio[f], &spread);
    }
    struct pva_series series[3] = {
        {.label = "cosine", .kind = PVA_SERIES_POINTS, .colour = PVA_BLUE, .n = F, .x = place, .y = cosine},
        {.label = "ratio of lengths", .kind = PVA_SERIES_POINTS, .colour = PVA_ORANGE, .n = F, .x = place, .y = ratio},
        {.kind = PVA_SERIES_LEVEL, .colour = PVA_GREY, .dashed = 1, .n = 1, .y = &one}};
    const double across[2] = {-1, F};
    struct pva_figure figure = {.title = "Best component of each feature",
                                .x_label = "feature",
                                .y_label = "component against target",
                                .x_range = across,
                                .series = series,
                                .n_series = 3};
    if (fits) picture(r, page, "similarity", &figure, figure.title);
    free(own), free(rows), free(v.values), free(u.values);
}

/* NeuronContribution(i) = (W_U[:, i] W_out) o (W_in W_E[i, :]) for feature i: the target's, against that of the one component of
 * mlp_in with the largest. */
static void draw_contributions(struct run *r, struct pva_html *page, const struct pva_spd_target *t) {
    if (!t->residual) return;
    const int F = t->n_features, E = t->n_embed, M = t->n_hidden;
    size_t n = 0, most = (size_t)F * (size_t)M * (size_t)t->n_blocks;
    double *x = malloc(most * sizeof *x), *y = malloc(most * sizeof *y);
    PVA_ASSERT(x && y);
    for (int b = 0; b < t->n_blocks; b++) {
        struct spd_matrix_file v, u, v2, u2;
        char name[100], csv[4096];
        memset(&v, 0, sizeof v), memset(&u, 0, sizeof u), memset(&v2, 0, sizeof v2), memset(&u2, 0, sizeof u2);
        int bad = 0;
        snprintf(name, sizeof name, "V_layers.%d.mlp_in", b);
        bad |= read_newest(r, name, &v, csv);
        name[0] = 'U';
        bad |= read_newest(r, name, &u, csv);
        snprintf(name, sizeof name, "V_layers.%d.mlp_out", b);
        bad |= read_newest(r, name, &v2, csv);
        name[0] = 'U';
        bad |= read_newest(r, name, &u2, csv);
        bad |= v.n_rows != E || u.n_rows != M || v2.n_rows != M || u2.n_rows != E;
        const int C = v.n_cols;
        const float *in = t->layers[2 * b].weight, *out = t->layers[2 * b + 1].weight; /* [E, M], [M, E] */
        for (int f = 0; f < F && !bad; f++) {
            double best = -INFINITY, target[512], chosen[512] = {0}, write[512], ours[512];
            if (M > 512) break;
            for (int m = 0; m < M; m++) {
                double a = 0, w = 0;
                for (int e = 0; e < E; e++) {
                    a += (double)t->embed[(size_t)f * (size_t)E + (size_t)e] * (double)in[(size_t)e * (size_t)M + (size_t)m];
                    w += (double)out[(size_t)m * (size_t)E + (size_t)e] * (double)t->readout[(size_t)e * (size_t)F + (size_t)f];
                }
                target[m] = a * w;
                ours[m] = 0;
            }
            for (int c = 0; c < v2.n_cols; c++) { /* W_out = sum of its components */
                double w = 0;
                for (int e = 0; e < E; e++)
                    w += u2.values[(size_t)e * (size_t)v2.n_cols + (size_t)c] *
                         (double)t->readout[(size_t)e * (size_t)F + (size_t)f];
                for (int m = 0; m < M; m++) ours[m] += v2.values[(size_t)m * (size_t)v2.n_cols + (size_t)c] * w;
            }
            for (int c = 0; c < C; c++) {
                double a = 0, top = -INFINITY;
                for (int e = 0; e < E; e++)
                    a += (double)t->embed[(size_t)f * (size_t)E + (size_t)e] * v.values[(size_t)e * (size_t)C + (size_t)c];
                for (int m = 0; m < M; m++) {
                    write[m] = a * u.values[(size_t)m * (size_t)C + (size_t)c] * ours[m];
                    top = fmax(top, write[m]);
                }
                if (top > best) best = top, memcpy(chosen, write, (size_t)M * sizeof *write);
            }
            for (int m = 0; m < M; m++) x[n] = target[m], y[n++] = chosen[m];
        }
        free(v.values), free(u.values), free(v2.values), free(u2.values);
    }
    if (n) {
        double low = 0, high = 0, mx = 0, my = 0, sxy = 0, sxx = 0, syy = 0;
        for (size_t i = 0; i < n; i++)
            low = fmin(low, fmin(x[i], y[i])), high = fmax(high, fmax(x[i], y[i])), mx += x[i] / (double)n,
            my += y[i] / (double)n;
        for (size_t i = 0; i < n; i++)
            sxy += (x[i] - mx) * (y[i] - my), sxx += (x[i] - mx) * (x[i] - mx), syy += (y[i] - my) * (y[i] - my);
        char title[100];
        snprintf(title, sizeof title, "Neuron contributions, r = %.4f", sxy / sqrt(sxx * syy));
        double ends[2] = {low, high};
        struct pva_series series[2] = {{.kind = PVA_SERIES_DOTS, .colour = PVA_BLUE, .n = (int64_t)n, .x = x, .y = y},
                                       {.kind = PVA_SERIES_LINE, .colour = PVA_GREY, .dashed = 1, .n = 2, .x = ends, .y = ends}};
        struct pva_figure figure = {
            .title = title, .x_label = "target", .y_label = "its component", .series = series, .n_series = 2};
        picture(r, page, "neuron_contributions", &figure, title);
        draw_stripes(r, page, t, x, y);
    }
    free(x);
    free(y);
}

/* ---- pages ---- */

static void write_head(struct run *r, struct pva_html *page) {
    pva_html_figures_begin(page);
    if (!isnan(result(r, "ci_error")))
        pva_html_figure_number(page, "CI error", "entries of the importance matrices off by more than 0.1", "%.0f",
                               result(r, "ci_error"));
    if (!isnan(result(r, "mmcs")))
        pva_html_figure_number(page, "MMCS", "mean largest cosine with the target's features", "%.4f", result(r, "mmcs"));
    if (!isnan(result(r, "ml2r")))
        pva_html_figure_number(page, "ML2R", "mean ratio of lengths, +- over features", "%.3f \u00b1 %.3f", result(r, "ml2r"),
                               result(r, "ml2r_std"));
    pva_html_figure_number(page, "Faithfulness", NULL, "%.2g", last(r, "train/loss/faithfulness"));
    pva_html_figure_number(page, "Stochastic reconstruction", NULL, "%.2g", last(r, "train/loss/stochastic_recon"));
    pva_html_figures_end(page);
    struct curve *c = find_curve(r, "train/loss/total", 0);
    if (!r->result)
        pva_html_paragraph(page, "warning", "This run has not finished: what follows is as far as step %.0f.",
                           c && c->n ? 1000 * c->x[c->n - 1] : 0.0);
}

static int write_single(struct run *r, const char *title, const char *path, struct pva_error *err) {
    struct pva_html *page;
    struct pva_spd_target t;
    struct pva_error no_target = {0};
    char file[4096];
    if (pva_html_open(path, title, &page, err)) return err->code;
    write_head(r, page);
    pva_html_section(page, "losses", "Losses");
    pva_html_row_begin(page);
    draw_losses(r, page, 0);
    pva_html_row_end(page);
    draw_importances(r, page);
    if (!pva_spd_target_load(r->directory, &t, &no_target)) {
        pva_html_section(page, "beside", "Beside the target");
        pva_html_row_begin(page);
        draw_vectors(r, page, &t);
        draw_similarity(r, page, &t);
        draw_contributions(r, page, &t);
        pva_html_row_end(page);
        pva_spd_target_free(&t);
    }
    if (r->no_gnuplot) pva_html_paragraph(page, "warning", "gnuplot was not found: the curves are in figures/ as CSV only.");
    snprintf(file, sizeof file, "%.3000s/final_config.yaml", r->directory);
    FILE *f = fopen(file, "r");
    char *text = f ? calloc(1, 65536) : NULL;
    if (text && fread(text, 1, 65535, f)) pva_html_code(page, "Settings", text);
    free(text);
    if (f) fclose(f);
    return pva_html_close(&page, err);
}

/* The same curve of several runs in one picture; beside the page, for it belongs to none of them. */
static void draw_together(struct run *runs, int n, struct pva_html *page, const char *path) {
    enum { MOST = 12, N = 4 };
    const char *const keys[N] = {"train/loss/stochastic_recon", "train/loss/faithfulness", "train/loss/importance_minimality",
                                 "target_solution_error/total"};
    const char *const titles[N] = {"Stochastic reconstruction", "Faithfulness", "Importance minimality",
                                   "Distance from the ideal importances"};
    const char *const y[N] = {"mean squared error", "mean squared error of weights", "sum of importances^p", "entries off"};
    char *dot = strrchr(path, '.');
    struct run all = {0}; /* a place for pictures, as a run is */
    snprintf(all.figures, sizeof all.figures, "%.*s-figures", (int)(dot ? dot - path : (int)strlen(path)), path);
    set_link(&all, path);
    if (n > MOST || (mkdir(all.figures, 0777) && errno != EEXIST)) return;
    pva_html_section(page, "together", "Together");
    pva_html_row_begin(page);
    for (int k = 0; k < N; k++) {
        struct pva_series series[MOST];
        int n_series = 0;
        for (int i = 0; i < n; i++) {
            struct curve *c = find_curve(&runs[i], keys[k], 0);
            if (c && c->n) series[n_series++] = line(c, runs[i].name, i);
        }
        char name[32];
        snprintf(name, sizeof name, "together_%d", k);
        struct pva_figure figure = {.title = titles[k],
                                    .x_label = STEPS,
                                    .y_label = y[k],
                                    .y_logarithmic = k < 3,
                                    .series = series,
                                    .n_series = n_series};
        picture(&all, page, name, &figure, titles[k]);
    }
    pva_html_row_end(page);
}

static int write_comparison(struct run *runs, int n, const char *title, const char *path, struct pva_error *err) {
    enum { N = 7 };
    const char *const keys[N] = {
        "ci_error", "ci_error_0p2", "mmcs", "ml2r", "faithfulness", "stochastic_recon", "stochastic_recon_layerwise"};
    const char *const heads[N] = {"CI error", "at 0.2", "MMCS", "ML2R", "faithfulness", "stochastic", "layerwise"};
    const char *const formats[N + 1] = {NULL, "%.0f", "%.0f", "%.4f", "%.4f", "%.2g", "%.2g", "%.2g"};
    struct pva_html *page;
    const char **names = calloc((size_t)n, sizeof *names);
    double *values = calloc((size_t)n * N, sizeof *values);
    struct pva_column columns[N + 1];
    PVA_ASSERT(names && values);
    if (pva_html_open(path, title, &page, err)) {
        free(names), free(values);
        return err->code;
    }
    for (int i = 0; i < n; i++) {
        names[i] = runs[i].name;
        for (int k = 0; k < N; k++) values[k * n + i] = result(&runs[i], keys[k]);
    }
    columns[0] = (struct pva_column){"run", PVA_COLUMN_TEXT, names};
    for (int k = 0; k < N; k++) columns[k + 1] = (struct pva_column){heads[k], PVA_COLUMN_F64, values + (size_t)k * (size_t)n};
    struct pva_table table = {n, N + 1, columns};
    pva_html_section(page, "runs", "Runs");
    pva_html_table(page, "At the last step", &table, formats, NULL);
    draw_together(runs, n, page, path);
    for (int i = 0; i < n; i++) {
        char id[32];
        snprintf(id, sizeof id, "run-%d", i);
        pva_html_section(page, id, runs[i].name);
        pva_html_row_begin(page);
        draw_losses(&runs[i], page, 1);
        for (int m = 0; m < runs[i].n_modules; m++)
            draw_heat_map(&runs[i], page, "causal_importances_upper_leaky", runs[i].modules[m], SPD_REDS, 1,
                          "importances, leaky above 1", "features");
        pva_html_row_end(page);
    }
    free(names);
    free(values);
    return pva_html_close(&page, err);
}

int spd_report(const char *const *directories, int n, const char *title, const char *path, struct pva_error *err) {
    struct run *runs = calloc((size_t)n, sizeof *runs);
    int status = runs ? PVA_OK : pva_fail(err, PVA_IO, "out of memory"), opened = 0;
    for (; opened < n && !status; opened++) {
        status = open_run(directories[opened], &runs[opened], err);
        set_link(&runs[opened], path);
    }
    if (!status)
        status = n == 1 ? write_single(&runs[0], title ? title : runs[0].name, path, err)
                        : write_comparison(runs, n, title, path, err);
    for (int i = 0; i < opened; i++) close_run(&runs[i]);
    free(runs);
    return status;
}
