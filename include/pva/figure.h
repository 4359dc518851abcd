/* figure.h - a picture of a few series, drawn by gnuplot as SVG, with its data beside it.
 *
 * The SVG follows the reader's light or dark setting by itself, has no background and no fixed size, and draws text with the reader's sans-serif font. Its
 * numbers are in NAME.csv: series,x,y,low,high. Series need not be sorted; points with a NaN are left out of the picture and kept in the file.
 */
#ifndef PVA_FIGURE_H
#define PVA_FIGURE_H

#include "pva/error.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pva_series_kind {
    PVA_SERIES_LINE,
    PVA_SERIES_POINTS,
    PVA_SERIES_DOTS,      /* small, for thousands */
    PVA_SERIES_LINEPOINTS,
    PVA_SERIES_STEPS,
    PVA_SERIES_BARS,      /* y from zero */
    PVA_SERIES_INTERVALS, /* y with low .. high */
    PVA_SERIES_BAND,      /* low .. high filled, no y */
    PVA_SERIES_LEVEL,     /* one horizontal line at y[0], over the whole width */
};

/* Mid tones: each at least 3:1 against the page's light and its dark ground (WCAG 2.2, 1.4.11), and told apart by colour-blind readers too. */
enum pva_colour { PVA_BLUE, PVA_ORANGE, PVA_GREEN, PVA_RED, PVA_PURPLE, PVA_GREY, PVA_N_COLOURS };
extern const char *const pva_figure_colours[PVA_N_COLOURS]; /* "#rrggbb" */

/* A <style> element with which an SVG's currentColor and font are the reader's; for pictures that are drawn elsewhere. */
extern const char pva_figure_style[];

struct pva_series {
    const char *label; /* NULL: not in the key */
    enum pva_series_kind kind;
    enum pva_colour colour;
    int dashed;
    int64_t n;
    const double *x, *y;     /* [n]; LEVEL needs no x, BAND no y */
    const double *low, *high; /* [n]; INTERVALS and BAND */
};

struct pva_figure {
    const char *title, *x_label, *y_label;
    const double *x_range, *y_range; /* [2]; NULL: from the data */
    int x_logarithmic, y_logarithmic;
    const char *const *x_names; /* [n_x_names]: names of the places 0, 1, ... instead of numbers; NULL: numbers */
    int n_x_names;
    int width, height; /* proportions, without the key; 0: 460 x 320 */
    const struct pva_series *series;
    int n_series;
};

/* Writes DIRECTORY/NAME.svg and DIRECTORY/NAME.csv, each complete or not at all. PVA_IO when gnuplot is not there (the CSV is written all the same) or fails,
 * with what it said. */
int pva_figure_write(const struct pva_figure *figure, const char *directory, const char *name, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
