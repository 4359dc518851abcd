/* table.h - columns of equal length, and the formats other tools read them in: CSV, JSON lines, Apache Parquet.
 *
 *   CSV      RFC 4180 with "\n": a field with a comma, quote or line end is quoted. Numbers so that they read back to the same value; NaN is an empty field
 *   JSONL    one object per row, keys in column order. NaN and infinities, which JSON lacks, become null
 *   PARQUET  version 1 of the format (parquet-format, thrift compact protocol): required columns, plain encoding, gzip pages, row groups of 65,536 rows. Equal
 *            tables give equal bytes
 */
#ifndef PVA_TABLE_H
#define PVA_TABLE_H

#include "pva/error.h"

#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pva_column_type {
    PVA_COLUMN_BOOL, /* uint8_t, 0 or 1 */
    PVA_COLUMN_I32,
    PVA_COLUMN_I64,
    PVA_COLUMN_F32,
    PVA_COLUMN_F64,
    PVA_COLUMN_TEXT, /* const char *, UTF-8 (bytes that are not become '?'); NULL is "" */
};

struct pva_column {
    const char *name;
    enum pva_column_type type;
    const void *data; /* [n_rows] of the type; the caller's */
};

struct pva_table {
    int64_t n_rows;
    int n_columns;
    const struct pva_column *columns;
};

enum pva_table_format { PVA_TABLE_CSV, PVA_TABLE_JSONL, PVA_TABLE_PARQUET, PVA_TABLE_N_FORMATS };
const char *pva_table_format_name(enum pva_table_format format); /* also the usual ending of the file's name: "csv", "jsonl", "parquet" */
int pva_table_format_parse(const char *name, enum pva_table_format *out, struct pva_error *err);

/* Writes to `out` from its present position, which for PARQUET must be the file's beginning. The caller closes it and looks for write errors (ferror); what fails
 * here is a column too large for the format (2 GiB per column and row group) and memory. */
int pva_table_write(const struct pva_table *table, enum pva_table_format format, FILE *out, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
