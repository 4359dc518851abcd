/* What a target model has learned: its features' directions, how much they share, and how it answers each of them alone. */
#include "spd_report.h"

#include "spd_picture.h"

#include "pva/figure.h"
#include "pva/html.h"
#include "pva/log.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { BINS = 40, CURVES = 5, POINTS = 81 };
static const double HEIGHT = 0.75; /* of a feature shown alone */

struct drawing {
    const struct pva_spd_target *t;
    struct pva_html *page;
    char figures[3200];
    int no_gnuplot;
};

static void draw(struct drawing *d, const char *name, const struct pva_figure *figure) {
    struct pva_error err = {0};
    char svg[4096], csv[300];
    if (pva_figure_write(figure, d->figures, name, &err) && !d->no_gnuplot++) pva_log(PVA_LOG_WARNING, "%s", err.msg);
    snprintf(svg, sizeof svg, "%s/%s.svg", d->figures, name);
    snprintf(csv, sizeof csv, "figures/%s.csv", name);
    pva_html_picture(d->page, svg, csv, figure->title, NULL);
}

static double label(const struct pva_spd_target *t, int f, double x) {
    return t->residual ? x + fmax(0, (double)t->label_coeffs[f] * x) : fabs(x);
}

/* The rows of W in the plane: a regular polygon when every feature found a place. */
static void draw_polygon(struct drawing *d) {
    const struct pva_spd_target *t = d->t;
    struct pva_error err = {0};
    char svg[4096];
    double x[512], y[512];
    int group[512] = {0};
    if (t->residual || t->n_hidden != 2) return;
    for (int f = 0; f < t->n_features; f++)
        x[f] = (double)t->layers[0].weight[2 * f], y[f] = (double)t->layers[0].weight[2 * f + 1];
    snprintf(svg, sizeof svg, "%s/polygon.svg", d->figures);
    if (spd_arrows(t->n_features, x, y, group, "Features in the hidden plane", svg, &err))
        pva_log(PVA_LOG_WARNING, "%s", err.msg);
    pva_html_picture(d->page, svg, NULL, "An arrow per feature: its row of W", NULL);
}

static void draw_cosines(struct drawing *d) {
    const struct pva_spd_target *t = d->t;
    const int h = t->n_hidden;
    double bins[BINS], counts[BINS] = {0};
    if (t->residual) return;
    for (int b = 0; b < BINS; b++) bins[b] = -1 + (b + 0.5) * 2 / BINS;
    for (int i = 0; i < t->n_features; i++)
        for (int j = 0; j < i; j++) {
            const float *a = t->layers[0].weight + (size_t)i * (size_t)h, *b = t->layers[0].weight + (size_t)j * (size_t)h;
            double ab = 0, aa = 0, bb = 0;
            for (int k = 0; k < h; k++)
                ab += (double)a[k] * (double)b[k], aa += (double)a[k] * (double)a[k], bb += (double)b[k] * (double)b[k];
            int bin = aa > 0 && bb > 0 ? (int)((ab / sqrt(aa * bb) + 1) * BINS / 2) : BINS / 2;
            counts[bin < 0 ? 0 : bin >= BINS ? BINS - 1 : bin]++;
        }
    const double range[2] = {-1, 1};
    struct pva_series series = {.kind = PVA_SERIES_BARS, .colour = PVA_BLUE, .n = BINS, .x = bins, .y = counts};
    draw(d, "cosine_similarity_distribution",
         &(struct pva_figure){.title = "Cosines between features",
                              .x_label = "cosine of two rows of W",
                              .y_label = "pairs",
                              .x_range = range,
                              .series = &series,
                              .n_series = 1});
}

/* Each feature alone: what comes out at its own place, coloured by how far that is from the label; and all places as a matrix. */
static void draw_responses(struct drawing *d) {
    const struct pva_spd_target *t = d->t;
    const int F = t->n_features;
    const double limits[3] = {0.1, 0.3, INFINITY};
    const enum pva_colour colours[3] = {PVA_GREEN, PVA_ORANGE, PVA_RED};
    const char *const labels[3] = {"within 0.1", "within 0.3", "beyond"};
    double *x = calloc((size_t)F, sizeof *x), *place = calloc(3 * (size_t)F, sizeof *place),
           *height = calloc(3 * (size_t)F, sizeof *height);
    struct spd_matrix_file m = {F, F, calloc((size_t)F * (size_t)F, sizeof(double))};
    PVA_ASSERT(x && place && height && m.values);
    int n[3] = {0};
    double largest = 0;
    for (int f = 0; f < F; f++) {
        double *y = m.values + (size_t)f * (size_t)F;
        x[f] = HEIGHT;
        pva_spd_target_apply(t, x, y);
        x[f] = 0;
        double off = fabs(y[f] - label(t, f, HEIGHT));
        int k = off < limits[0] ? 0 : off < limits[1] ? 1 : 2;
        place[k * F + n[k]] = f;
        height[k * F + n[k]++] = y[f];
        for (int j = 0; j < F; j++) largest = fmax(largest, fabs(y[j]));
    }
    double wanted = label(t, 0, HEIGHT);
    const double range[2] = {0, 1.1 * fmax(largest, wanted)}, places[2] = {-1, F};
    struct pva_series series[4];
    int n_series = 0;
    for (int k = 0; k < 3; k++)
        if (n[k])
            series[n_series++] = (struct pva_series){.label = labels[k],
                                                     .kind = PVA_SERIES_POINTS,
                                                     .colour = colours[k],
                                                     .n = n[k],
                                                     .x = place + k * F,
                                                     .y = height + k * F};
    series[n_series++] =
        (struct pva_series){.label = "label", .kind = PVA_SERIES_LEVEL, .colour = PVA_GREY, .dashed = 1, .n = 1, .y = &wanted};
    draw(d, "feature_representation_analysis",
         &(struct pva_figure){.title = "Each feature alone, at 0.75",
                              .x_label = "feature",
                              .y_label = "output at the same place",
                              .x_range = places,
                              .y_range = range,
                              .series = series,
                              .n_series = n_series});
    struct pva_error err = {0};
    char svg[4096];
    snprintf(svg, sizeof svg, "%s/feature_responses.svg", d->figures);
    if (spd_heat_map(&m, t->residual ? SPD_COOLWARM : SPD_BLUES, largest, "Each feature alone, at 0.75: all outputs", "features",
                     "outputs", svg, &err))
        pva_log(PVA_LOG_WARNING, "%s", err.msg);
    pva_html_picture(d->page, svg, NULL, "A row per feature shown alone, a column per output", NULL);
    free(x), free(place), free(height), free(m.values);
}

/* Output against input for a few features of a residual MLP: a line that bends at 0. */
static void draw_curves(struct drawing *d) {
    const struct pva_spd_target *t = d->t;
    const int n = t->n_features < CURVES ? t->n_features : CURVES;
    double at[POINTS], wanted[POINTS], curve[CURVES][POINTS], x[512] = {0}, y[512];
    char names[CURVES][24];
    struct pva_series series[CURVES + 1];
    if (!t->residual) return;
    for (int f = 0; f < n; f++) {
        for (int i = 0; i < POINTS; i++) {
            x[f] = at[i] = -1 + 2.0 * i / (POINTS - 1);
            pva_spd_target_apply(t, x, y);
            curve[f][i] = y[f];
            wanted[i] = label(t, 0, at[i]);
        }
        x[f] = 0;
        snprintf(names[f], sizeof names[f], "feature %d", f);
        series[f] = (struct pva_series){
            .label = names[f], .kind = PVA_SERIES_LINE, .colour = (enum pva_colour)f, .n = POINTS, .x = at, .y = curve[f]};
    }
    series[n] = (struct pva_series){
        .label = "label", .kind = PVA_SERIES_LINE, .colour = PVA_GREY, .dashed = 1, .n = POINTS, .x = at, .y = wanted};
    draw(d, "feature_curves",
         &(struct pva_figure){.title = "Response of features, each alone",
                              .x_label = "input",
                              .y_label = "output at the same place",
                              .series = series,
                              .n_series = n + 1});
}

int spd_target_report(const struct pva_spd_target *t, const char *directory, struct pva_error *err) {
    struct drawing d = {.t = t};
    char path[3200], title[64];
    snprintf(d.figures, sizeof d.figures, "%.3000s/figures", directory);
    snprintf(path, sizeof path, "%.3000s/report.html", directory);
    snprintf(title, sizeof title, "Target %s", t->recipe);
    if (mkdir(d.figures, 0777) && errno != EEXIST) return pva_fail(err, PVA_IO, "%s: %s", d.figures, strerror(errno));
    if (pva_html_open(path, title, &d.page, err)) return err->code;
    pva_html_figures_begin(d.page);
    pva_html_figure_number(d.page, "Loss", "mean of the last batches", "%.3g", t->loss);
    pva_html_figure_number(d.page, "Seed", t->residual ? NULL : "the first from the one asked for that represents every feature",
                           "%lld", (long long)t->seed);
    pva_html_figures_end(d.page);
    pva_html_section(d.page, "features", "Features");
    pva_html_row_begin(d.page);
    draw_polygon(&d);
    draw_cosines(&d);
    draw_responses(&d);
    draw_curves(&d);
    pva_html_row_end(d.page);
    if (d.no_gnuplot) pva_html_paragraph(d.page, "warning", "gnuplot was not found: the curves are in figures/ as CSV only.");
    return pva_html_close(&d.page, err);
}
