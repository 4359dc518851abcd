/* stats_golden.h - reads tests/golden/stats.json (made by make_stats.py) and compares with it. */
#ifndef STATS_GOLDEN_H
#define STATS_GOLDEN_H

#include "check.h"

#include <jansson.h>

/* The gate of every statistic, relative to the value itself: no absolute part hides a small p. */
#define GOLDEN_LIMIT 1e-9

struct golden {
    const char *name;
    json_t *columns, *rows;
    size_t n_rows;
    double worst; /* largest relative error seen */
};

static json_t *golden_file;

static inline double golden_number(const json_t *v) {
    const char *text = json_string_value(v);
    if (!text) return json_number_value(v);
    return strcmp(text, "nan") == 0 ? NAN : strcmp(text, "inf") == 0 ? INFINITY : -INFINITY;
}

static inline struct golden golden_open(const char *name) {
    if (!golden_file) {
        char path[4096];
        json_error_t error;
        const char *source = getenv("PVA_TEST_SOURCE");
        snprintf(path, sizeof path, "%s/tests/golden/stats.json", source ? source : ".");
        golden_file = json_load_file(path, 0, &error);
        if (!golden_file) fprintf(stderr, "%s: %s\n", path, error.text);
        CHECK_FATAL(golden_file);
    }
    json_t *table = json_object_get(json_object_get(golden_file, "tables"), name);
    if (!table) fprintf(stderr, "there is no table %s\n", name);
    CHECK_FATAL(table);
    struct golden g = {name, json_object_get(table, "columns"), json_object_get(table, "rows"), 0, 0};
    g.n_rows = json_array_size(g.rows);
    CHECK_FATAL(g.n_rows > 0);
    return g;
}

static inline const json_t *golden_cell(const struct golden *g, size_t row, const char *column) {
    for (size_t c = 0; c < json_array_size(g->columns); c++)
        if (strcmp(json_string_value(json_array_get(g->columns, c)), column) == 0)
            return json_array_get(json_array_get(g->rows, row), c);
    fprintf(stderr, "%s has no column %s\n", g->name, column);
    CHECK_FATAL(0);
    return NULL;
}

static inline double golden_get(const struct golden *g, size_t row, const char *column) {
    return golden_number(golden_cell(g, row, column));
}

static inline int64_t golden_int(const struct golden *g, size_t row, const char *column) {
    return (int64_t)json_integer_value(golden_cell(g, row, column));
}

/* A list of numbers, nested lists one after the other. The caller frees it. */
static inline double *golden_list(const json_t *list, int64_t *n) {
    size_t size = json_array_size(list), used = 0;
    double *out = malloc((size + 1) * sizeof *out);
    for (size_t i = 0; i < size; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_array(v)) {
            out[used++] = golden_number(v);
            continue;
        }
        int64_t inner;
        double *values = golden_list(v, &inner);
        out = realloc(out, (used + (size_t)inner + size - i + 1) * sizeof *out);
        memcpy(out + used, values, (size_t)inner * sizeof *out);
        used += (size_t)inner;
        free(values);
    }
    *n = (int64_t)used;
    return out;
}

static inline double *golden_array(const struct golden *g, size_t row, const char *column, int64_t *n) {
    return golden_list(golden_cell(g, row, column), n);
}

static inline unsigned char *golden_labels(const struct golden *g, size_t row, const char *column, int64_t *n) {
    double *values = golden_array(g, row, column, n);
    unsigned char *out = malloc((size_t)*n + 1);
    for (int64_t i = 0; i < *n; i++) out[i] = values[i] != 0;
    free(values);
    return out;
}

/* NaN must meet NaN, an infinity the same infinity, 0 exactly 0; else the difference relative to what is expected. */
static inline double golden_error(double actual, double expected) {
    if (isnan(expected) || isnan(actual)) return isnan(expected) && isnan(actual) ? 0 : INFINITY;
    if (actual == expected) return 0;
    if (isinf(actual) || isinf(expected) || expected == 0) return INFINITY;
    return fabs(actual - expected) / fabs(expected);
}

static inline void golden_compare(struct golden *g, size_t row, const char *what, double actual, double expected, double limit) {
    double error = golden_error(actual, expected);
    check_count++;
    if (error > g->worst) g->worst = error;
    if (error <= limit) return;
    check_fail();
    char *text = json_dumps(json_array_get(g->rows, row), JSON_COMPACT);
    fprintf(stderr, "%s.%s, row %zu: %.17g, expected %.17g, relative error %.3g; %.300s\n", g->name, what, row, actual, expected,
            error, text);
    free(text);
}

static inline void golden_check(struct golden *g, size_t row, const char *column, double actual) {
    golden_compare(g, row, column, actual, golden_get(g, row, column), GOLDEN_LIMIT);
}

static inline void golden_check_list(struct golden *g, size_t row, const char *column, const double *actual, int64_t n) {
    int64_t m;
    double *expected = golden_array(g, row, column, &m);
    CHECK_INT(n, m);
    for (int64_t i = 0; i < n && i < m; i++) golden_compare(g, row, column, actual[i], expected[i], GOLDEN_LIMIT);
    free(expected);
}

static inline void golden_close(const struct golden *g) {
    printf("  %s: %zu rows, worst relative error %.2g\n", g->name, g->n_rows, g->worst);
}

/* The stream of numbers that make_stats.py uses for larger inputs (splitmix64), in [0, 1), 24 bits. */
static inline double golden_uniform(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)((z ^ (z >> 31)) >> 40) * 0x1p-24;
}
#endif
