#include "pva/table.h"

#include "table_private.h"

#include "pva/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[PVA_TABLE_N_FORMATS] = {"csv", "jsonl", "parquet"};

const char *pva_table_format_name(enum pva_table_format format) { return names[format]; }

int pva_table_format_parse(const char *name, enum pva_table_format *out, struct pva_error *err) {
    for (int f = 0; f < PVA_TABLE_N_FORMATS; f++)
        if (!strcmp(name, names[f])) {
            *out = (enum pva_table_format)f;
            return PVA_OK;
        }
    return pva_fail(err, PVA_USAGE, "\"%s\" is no format of a table: csv, jsonl, parquet", name);
}

/* The shortest of 15, 16 and 17 digits (6 to 9 for a float) that reads back to the same value. */
static void print_real(double x, int single, FILE *out) {
    char text[40];
    for (int digits = single ? 6 : 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        double back = strtod(text, NULL);
        if (single ? (float)back == (float)x : back == x) break;
    }
    fputs(text, out);
}

static double real_at(const struct pva_column *c, int64_t row) {
    return c->type == PVA_COLUMN_F32 ? (double)((const float *)c->data)[row] : ((const double *)c->data)[row];
}

static int64_t integer_at(const struct pva_column *c, int64_t row) {
    if (c->type == PVA_COLUMN_BOOL) return ((const uint8_t *)c->data)[row] != 0;
    return c->type == PVA_COLUMN_I32 ? ((const int32_t *)c->data)[row] : ((const int64_t *)c->data)[row];
}

const char *pva_table_text(const struct pva_column *c, int64_t row) {
    const char *text = ((const char *const *)c->data)[row];
    return text ? text : "";
}

static void csv_text(const char *s, FILE *out) {
    const char *end = s + strlen(s);
    int quoted = s[strcspn(s, ",\"\r\n")] != 0;
    if (quoted) fputc('"', out);
    for (size_t n; *s; s += n) {
        n = pva_utf8_length(s, (size_t)(end - s));
        if (*s == '"') fputc('"', out);
        if (n) fwrite(s, 1, n, out);
        else fputc('?', out), n = 1;
    }
    if (quoted) fputc('"', out);
}

static void json_text(const char *s, FILE *out) {
    const char *end = s + strlen(s);
    fputc('"', out);
    for (size_t n; *s; s += n) {
        n = pva_utf8_length(s, (size_t)(end - s));
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') fputc('\\', out), fputc(c, out);
        else if (c == '\n') fputs("\\n", out);
        else if (c == '\t') fputs("\\t", out);
        else if (c < 0x20) fprintf(out, "\\u%04x", c);
        else if (n) fwrite(s, 1, n, out);
        else fputc('?', out), n = 1;
    }
    fputc('"', out);
}

static void write_cell(const struct pva_column *c, int64_t row, int json, FILE *out) {
    switch (c->type) {
    case PVA_COLUMN_BOOL:
        if (json) fputs(integer_at(c, row) ? "true" : "false", out);
        else fputc(integer_at(c, row) ? '1' : '0', out);
        break;
    case PVA_COLUMN_I32:
    case PVA_COLUMN_I64: fprintf(out, "%lld", (long long)integer_at(c, row)); break;
    case PVA_COLUMN_F32:
    case PVA_COLUMN_F64: {
        double x = real_at(c, row);
        if (json && !isfinite(x)) fputs("null", out);
        else if (!isnan(x)) print_real(x, c->type == PVA_COLUMN_F32, out);
        break;
    }
    case PVA_COLUMN_TEXT: json ? json_text(pva_table_text(c, row), out) : csv_text(pva_table_text(c, row), out); break;
    }
}

static void write_csv(const struct pva_table *t, FILE *out) {
    for (int c = 0; c < t->n_columns; c++) {
        if (c) fputc(',', out);
        csv_text(t->columns[c].name, out);
    }
    fputc('\n', out);
    for (int64_t row = 0; row < t->n_rows; row++) {
        for (int c = 0; c < t->n_columns; c++) {
            if (c) fputc(',', out);
            write_cell(&t->columns[c], row, 0, out);
        }
        fputc('\n', out);
    }
}

static void write_jsonl(const struct pva_table *t, FILE *out) {
    for (int64_t row = 0; row < t->n_rows; row++) {
        for (int c = 0; c < t->n_columns; c++) {
            fputs(c ? "," : "{", out);
            json_text(t->columns[c].name, out);
            fputc(':', out);
            write_cell(&t->columns[c], row, 1, out);
        }
        fputs("}\n", out);
    }
}

int pva_table_write(const struct pva_table *table, enum pva_table_format format, FILE *out, struct pva_error *err) {
    switch (format) {
    case PVA_TABLE_CSV: write_csv(table, out); break;
    case PVA_TABLE_JSONL: write_jsonl(table, out); break;
    default: return pva_table_parquet(table, out, err);
    }
    return PVA_OK;
}
