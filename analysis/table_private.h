/* table_private.h - what table.c and table_parquet.c share. */
#ifndef TABLE_PRIVATE_H
#define TABLE_PRIVATE_H

#include "pva/table.h"

const char *pva_table_text(const struct pva_column *c, int64_t row); /* never NULL */
int pva_table_parquet(const struct pva_table *t, FILE *out, struct pva_error *err);

#endif
