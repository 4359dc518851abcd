/* spd_report.h - report.html from finished run directories: curves, tables, figures; with several runs a comparison. */
#ifndef SPD_REPORT_H
#define SPD_REPORT_H

#include "pva/spd.h"

/* Reads metrics.jsonl, the newest figures/NAME_STEP.csv and the target; needs no model. Pictures go to each run's figures/.
 * Without gnuplot the curves stay CSV and the page says so. path: the page's. title:
 * NULL: the run's name. */
int spd_report(const char *const *directories, int n, const char *title, const char *path, struct pva_error *err);
/* DIRECTORY/report.html of a target model: directions of its features, cosines between them, answers to each alone. */
int spd_target_report(const struct pva_spd_target *t, const char *directory, struct pva_error *err);

#endif
