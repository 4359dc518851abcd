/* spd_picture.h - pictures that gnuplot does not draw well: matrices as heat maps, and the features of a TMS as arrows. All as
 * SVG. */
#ifndef SPD_PICTURE_H
#define SPD_PICTURE_H

#include "pva/error.h"

struct spd_matrix_file {
    int n_rows, n_cols;
    double *values; /* [n_rows, n_cols], owned */
};
/* Numbers separated by commas, a row per line. */
int spd_matrix_read(const char *path, struct spd_matrix_file *out, struct pva_error *err);

enum spd_palette { SPD_BLUES, SPD_REDS, SPD_COOLWARM }; /* the first two from 0 to `limit`, the last from -limit to limit */
/* A row per row. The numbers stand beside it: the CSV it was made from. */
int spd_heat_map(const struct spd_matrix_file *m, enum spd_palette palette, double limit, const char *title, const char *rows,
                 const char *columns, const char *path, struct pva_error *err);

/* Arrows in the plane from 0: one group per colour. x, y: [n]; group: [n] in [0, 3): target, components, sum. */
int spd_arrows(int n, const double *x, const double *y, const int *group, const char *title, const char *path,
               struct pva_error *err);

#endif
