/* export.h - what the files of export share. */
#ifndef EXPORT_H
#define EXPORT_H

#include "pva/table.h"

/* RUN/exports/NAME.FORMAT, complete or not at all; says so on standard output. */
int export_table(const char *run, const char *name, const struct pva_table *table, enum pva_table_format format, struct pva_error *err);

/* latents: every latent's row, when phase 2 is finished. steering: every steered completion of the validation part, when there are any. Nothing where the phase
 * has not run. */
int export_latents(const char *run, enum pva_table_format format, struct pva_error *err);
int export_steering(const char *run, enum pva_table_format format, struct pva_error *err);

#endif
