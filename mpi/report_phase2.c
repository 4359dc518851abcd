/* The report on phase 2: which latents fire more often before right programs than before wrong ones. */
#include "phase1_read.h"
#include "phase2_read.h"
#include "report.h"

#include "pva/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOP = 10, MOST_LAYERS = 256 };

/* Every latent of every layer. */
struct landscape {
    int n_layers, layers[MOST_LAYERS];
    int64_t n;
    double *correct, *incorrect, *pile; /* [n] */
    double best_correct[MOST_LAYERS], best_incorrect[MOST_LAYERS], x[MOST_LAYERS];
    double pile_threshold;
};

static void free_landscape(struct landscape *l) { free(l->correct), free(l->incorrect), free(l->pile); }

static int add_layer(struct landscape *l, struct phase2 *p, int layer, struct pva_error *err) {
    struct phase2_latent *all = NULL;
    int64_t n = 0;
    if (phase2_layer(p, layer, &all, &n, err)) return err->code;
    size_t room = (size_t)(l->n + n) * sizeof(double);
    double *grown[3] = {realloc(l->correct, room), NULL, NULL};
    if (grown[0]) l->correct = grown[0], grown[1] = realloc(l->incorrect, room);
    if (grown[1]) l->incorrect = grown[1], grown[2] = realloc(l->pile, room);
    if (grown[2]) l->pile = grown[2];
    else pva_fail(err, PVA_IO, "out of memory");
    double up = 0, down = 0;
    for (int64_t i = 0; i < n && !err->code; i++) {
        l->correct[l->n + i] = all[i].f_correct, l->incorrect[l->n + i] = all[i].f_incorrect, l->pile[l->n + i] = all[i].pile_rate;
        if (all[i].pile_rate >= l->pile_threshold) continue;
        up = fmax(up, all[i].separation), down = fmin(down, all[i].separation);
    }
    if (!err->code) {
        l->layers[l->n_layers] = layer, l->x[l->n_layers] = layer, l->best_correct[l->n_layers] = up, l->best_incorrect[l->n_layers++] = -down;
        l->n += n;
    }
    free(all);
    return err->code;
}

static int has_both_classes(const struct landscape *l) {
    for (int64_t i = 0; i < l->n; i++)
        if (!isnan(l->correct[i]) && !isnan(l->incorrect[i])) return 1;
    return 0;
}

static void landscape_picture(struct report *r, const struct landscape *l) {
    double *x[2] = {malloc((size_t)l->n * sizeof(double) + 8), malloc((size_t)l->n * sizeof(double) + 8)}, *y[2] = {malloc((size_t)l->n * sizeof(double) + 8), malloc((size_t)l->n * sizeof(double) + 8)};
    int64_t n[2] = {0, 0};
    const double diagonal[] = {0, 1};
    if (x[0] && x[1] && y[0] && y[1]) {
        /* Latents that share a place are one dot: hundreds of thousands never fire. */
        enum { GRID = 400 };
        unsigned char *seen = calloc(2, GRID * GRID);
        for (int64_t i = 0; seen && i < l->n; i++) {
            int filtered = l->pile[i] >= l->pile_threshold, a = (int)(l->incorrect[i] * (GRID - 1)), b = (int)(l->correct[i] * (GRID - 1));
            if (isnan(l->incorrect[i]) || isnan(l->correct[i]) || seen[(filtered * GRID + a) * GRID + b]++) continue;
            x[filtered][n[filtered]] = l->incorrect[i], y[filtered][n[filtered]++] = l->correct[i];
        }
        free(seen);
        const struct pva_series series[] = {
            {.label = "often on general text (dropped)", .kind = PVA_SERIES_DOTS, .colour = PVA_GREY, .n = n[1], .x = x[1], .y = y[1]},
            {.label = "kept", .kind = PVA_SERIES_POINTS, .colour = PVA_BLUE, .n = n[0], .x = x[0], .y = y[0]},
            {.label = "no separation", .kind = PVA_SERIES_LINE, .colour = PVA_GREY, .dashed = 1, .n = 2, .x = diagonal, .y = diagonal},
        };
        const struct pva_figure f = {.title = "Every latent of every layer", .x_label = "fires before wrong programs (fraction)", .y_label = "fires before right programs (fraction)",
                                     .x_range = diagonal, .y_range = diagonal, .width = 460, .height = 420, .series = series, .n_series = 3};
        char alt[300];
        snprintf(alt, sizeof alt, "Fraction of right against fraction of wrong problems at which each of %lld latents fires; those far from the diagonal separate the two.", (long long)l->n);
        report_picture(r, "latents", &f, alt, "Above the diagonal: more often before right programs. Latents that share a place are one dot; the numbers have those that are drawn.");
    }
    for (int i = 0; i < 2; i++) free(x[i]), free(y[i]);
}

static void layer_picture(struct report *r, const struct landscape *l) {
    const struct pva_series series[] = {
        {.label = "before right programs", .kind = PVA_SERIES_LINEPOINTS, .colour = PVA_BLUE, .n = l->n_layers, .x = l->x, .y = l->best_correct},
        {.label = "before wrong programs", .kind = PVA_SERIES_LINEPOINTS, .colour = PVA_RED, .n = l->n_layers, .x = l->x, .y = l->best_incorrect},
    };
    const struct pva_figure f = {.title = "Best separation of each layer", .x_label = "layer", .y_label = "separation", .width = 460, .height = 420, .series = series,
                                 .n_series = 2};
    int up = 0, down = 0;
    char alt[300];
    for (int i = 1; i < l->n_layers; i++) {
        if (l->best_correct[i] > l->best_correct[up]) up = i;
        if (l->best_incorrect[i] > l->best_incorrect[down]) down = i;
    }
    snprintf(alt, sizeof alt, "The largest separation among the latents of each layer; before right programs at most %.3f, at layer %d, before wrong ones %.3f, at layer %d.",
             l->best_correct[up], l->layers[up], l->best_incorrect[down], l->layers[down]);
    report_picture(r, "separation-by-layer", &f, alt,
                   "After the filter on general text. The maximum of thousands of latents is large by chance alone: see the family-wise p.");
}

/* Where a GemmaScope latent is described; NULL for other autoencoders. */
static char *neuronpedia(const char *sae_path, int64_t d_model, int layer, int64_t latent) {
    const char *model = d_model == 2304 ? "gemma-2-2b" : d_model != 3584 ? NULL : strstr(sae_path, "gemma-scope-9b-it") ? "gemma-2-9b-it" : "gemma-2-9b";
    const char *width = strstr(sae_path, "width_");
    char *address = NULL;
    if (!model || !width || !strstr(sae_path, "gemma-scope")) return NULL;
    size_t n = strcspn(width + 6, "/");
    if (asprintf(&address, "https://www.neuronpedia.org/%s/%d-gemmascope-res-%.*s/%lld", model, layer, (int)n, width + 6, (long long)latent) < 0) return NULL;
    return address;
}

static int top_table(struct report *r, struct phase2 *p, enum phase2_list list, const char *title, const char *caption, int64_t d_model, struct pva_error *err) {
    struct phase2_latent top[TOP];
    int n = 0;
    char names[TOP][40], *links[TOP] = {0};
    const char *name[TOP];
    double column[9][TOP];
    if (phase2_top(p, list, TOP, top, &n, err)) return err->code;
    pva_html_heading(r->page, title);
    if (n == 0) {
        pva_html_paragraph(r->page, "note", "No latent separates the classes in this direction.");
        return PVA_OK;
    }
    for (int i = 0; i < n; i++) {
        const struct phase2_latent *t = &top[i];
        snprintf(names[i], sizeof names[i], "L%d-%d", t->layer, t->latent);
        name[i] = names[i];
        const char *path = phase2_sae_path(p, t->layer);
        links[i] = neuronpedia(path ? path : "", d_model, t->layer, t->latent);
        const double values[9] = {t->f_correct, t->f_incorrect, t->separation, t->separation_low, t->separation_high, t->t, t->familywise_p, t->validation_separation, t->pile_rate};
        for (int c = 0; c < 9; c++) column[c][i] = values[c];
    }
    const struct pva_column columns[] = {
        {"latent", PVA_COLUMN_TEXT, name},   {"fires before right", PVA_COLUMN_F64, column[0]}, {"before wrong", PVA_COLUMN_F64, column[1]},
        {"separation", PVA_COLUMN_F64, column[2]},   {"95\xc2\xa0% from", PVA_COLUMN_F64, column[3]},    {"to", PVA_COLUMN_F64, column[4]},
        {"Welch\xc2\xa0t", PVA_COLUMN_F64, column[5]},      {"family-wise p", PVA_COLUMN_F64, column[6]}, {"separation on validation", PVA_COLUMN_F64, column[7]},
        {"fires on general text", PVA_COLUMN_F64, column[8]},
    };
    const char *const formats[] = {NULL, "%.3f", "%.3f", "%+.3f", "%+.3f", "%+.3f", "%+.2f", "p", "%+.3f", "%.4f"};
    const struct pva_table table = {n, sizeof columns / sizeof *columns, columns};
    pva_html_table(r->page, caption, &table, formats, (const char *const *)links);
    struct report_summary *s = &r->summary;
    if (isnan(s->best_familywise_p) || top[0].familywise_p < s->best_familywise_p) {
        snprintf(s->best_latent, sizeof s->best_latent, "L%d-%d", top[0].layer, top[0].latent);
        s->best_separation = top[0].separation, s->best_familywise_p = top[0].familywise_p;
    }
    for (int i = 0; i < n; i++) free(links[i]);
    return PVA_OK;
}

static double pile_threshold(const struct report *r) {
    double value = json_number_value(json_object_get(json_object_get(r->manifest, "phase2"), "pile_threshold"));
    return value > 0 ? value : 0.02;
}

int report_phase2(struct report *r, struct pva_error *err) {
    struct phase2 *p = NULL;
    struct phase1_data d;
    r->summary.best_separation = r->summary.best_familywise_p = NAN;
    if (!phase2_finished(r->run, err)) {
        if (!err->code) report_missing(r, "latents", "Latents", "phase2", "--sae DIR");
        return err->code;
    }
    if (phase1_open(r->run, &d, err)) return err->code;
    struct landscape l = {.pile_threshold = pile_threshold(r)};
    if (!phase2_open(r->run, &p, err)) {
        pva_html_section(r->page, "latents", "Latents");
        if (strcmp(phase2_alignment(p), "aligned"))
            pva_html_paragraph(r->page, "warning", "Alignment \"%s\": each autoencoder was given the stream one layer before the one it was trained on.", phase2_alignment(p));
        for (int layer = 0; layer < MOST_LAYERS && !err->code; layer++)
            if (phase2_sae_path(p, layer)) add_layer(&l, p, layer, err);
        pva_html_paragraph(r->page, "", "%lld latents of %d layers read the residual stream at the captured position (%s). L3-712 is latent 712 of layer 3's autoencoder. "
                           "Separation: the fraction of right programs before which a latent fires less the fraction of wrong ones, on the selection part. The family-wise p is the chance that the best of all these latents separates random labels as well as this one "
                           "does; below 0.05 a latent is a finding, above it is a guess.", (long long)l.n, l.n_layers, d.positions);
        if (l.n && isnan(l.pile[0]))
            pva_html_paragraph(r->page, "note", "Without general text (pva-mpi pile), nothing was dropped for firing on everything.");
        if (!err->code && has_both_classes(&l)) {
            pva_html_row_begin(r->page);
            landscape_picture(r, &l), layer_picture(r, &l);
            pva_html_row_end(r->page);
        } else if (!err->code) pva_html_paragraph(r->page, "warning", "All programs of the selection part are right, or all are wrong: there is nothing to separate.");
    }
    if (!err->code && !top_table(r, p, PHASE2_CORRECT_SEPARATION, "Latents that fire before right programs", "By separation. Newcombe intervals; the interval does not know that the best of many was chosen.",
                                 d.d_model, err) &&
        !top_table(r, p, PHASE2_INCORRECT_SEPARATION, "Latents that fire before wrong programs", "By separation.", d.d_model, err)) {
        pva_html_file(r->page, "All latents", "exports/latents.csv");
        pva_html_file(r->page, "The best ones, by Welch's t too", "exports/top-latents.csv");
    }
    r->summary.n_latents = l.n;
    free_landscape(&l);
    if (p) phase2_close(&p);
    phase1_close(&d);
    return err->code;
}
