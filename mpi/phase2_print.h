/* phase2_print.h - what phase 2 found, for people: tables on standard output; and for other programs: CSV and JSON. Reads the finished files. */
#ifndef PHASE2_PRINT_H
#define PHASE2_PRINT_H

#include "phase2_plan.h"
#include "phase2_select.h"

/* scores: phase2.h5, open. */
int phase2_print_summary(const struct phase2_plan *plan, const struct phase2_selected *selected, struct store *scores, FILE *out, struct pva_error *err);
int phase2_print_json(const struct phase2_plan *plan, const struct phase2_selected *selected, FILE *out, struct pva_error *err);

/* exports/top-latents.csv and, with all, exports/latents.csv: every latent's row. */
int phase2_export(const struct phase2_plan *plan, int all, struct pva_error *err);

#endif
