/* Tables as CSV, JSONL and Parquet. What a Parquet file holds is read by its consumers, where they are installed: consumers.sh. */
#include "check.h"

#include "pva/table.h"
#include "pva/utf8.h"

enum { N = 5 };
static const uint8_t flags[N] = {1, 0, 1, 1, 0};
static const int32_t small[N] = {0, -1, 2147483647, -2147483647 - 1, 7};
static const int64_t large[N] = {0, -1, INT64_MAX, INT64_MIN, 1234567890123};
static const float singles[N] = {0.1f, -0.0f, 3.4028235e38f, 1e-45f, 1.5f};
static const double reals[N] = {0.1, NAN, INFINITY, -1.7976931348623157e308, 5e-324};
static const char *const texts[N] = {"plain", "a,\"b\"\nc", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\x8d", "cut \xe2\x82", NULL};

static const struct pva_column columns[] = {
    {"flag", PVA_COLUMN_BOOL, flags}, {"small", PVA_COLUMN_I32, small}, {"large", PVA_COLUMN_I64, large},
    {"single", PVA_COLUMN_F32, singles}, {"real", PVA_COLUMN_F64, reals}, {"text, quoted", PVA_COLUMN_TEXT, texts},
};
static const struct pva_table table = {N, sizeof columns / sizeof *columns, columns};

static char *written(const struct pva_table *t, enum pva_table_format format, size_t *n) {
    struct pva_error err = {0};
    char *text = NULL;
    FILE *f = open_memstream(&text, n);
    CHECK_INT(pva_table_write(t, format, f, &err), PVA_OK);
    fclose(f);
    return text;
}

static void test_csv(void) {
    size_t n;
    char *text = written(&table, PVA_TABLE_CSV, &n);
    CHECK_TEXT(text, "flag,small,large,single,real,\"text, quoted\"\n"
                     "1,0,0,0.1,0.1,plain\n"
                     "0,-1,-1,-0,,\"a,\"\"b\"\"\nc\"\n"
                     "1,2147483647,9223372036854775807,3.4028235e+38,inf,caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\x8d\n"
                     "1,-2147483648,-9223372036854775808,1.4013e-45,-1.7976931348623157e+308,cut ??\n"
                     "0,7,1234567890123,1.5,4.94065645841247e-324,\n");
    free(text);
}

static void test_jsonl(void) {
    size_t n;
    char *text = written(&table, PVA_TABLE_JSONL, &n);
    CHECK_HAS(text, "{\"flag\":true,\"small\":0,\"large\":0,\"single\":0.1,\"real\":0.1,\"text, quoted\":\"plain\"}\n");
    CHECK_HAS(text, "\"real\":null,\"text, quoted\":\"a,\\\"b\\\"\\nc\"}\n");
    CHECK_HAS(text, "\"text, quoted\":\"cut ??\"}\n");
    free(text);
}

/* Magic at both ends, the footer's length within the file, equal tables equal bytes. */
static void test_parquet(void) {
    size_t n, again;
    char *file = written(&table, PVA_TABLE_PARQUET, &n), *second = written(&table, PVA_TABLE_PARQUET, &again);
    CHECK(n > 12 && !memcmp(file, "PAR1", 4) && !memcmp(file + n - 4, "PAR1", 4));
    uint32_t length;
    memcpy(&length, file + n - 8, 4);
    CHECK(length > 0 && length < n - 12);
    CHECK(n == again && !memcmp(file, second, n));
    struct pva_table empty = {0, table.n_columns, columns};
    free(second);
    second = written(&empty, PVA_TABLE_PARQUET, &again);
    CHECK(again < n && !memcmp(second + again - 4, "PAR1", 4));
    free(file), free(second);
}

/* For consumers.sh: test_table DIR writes the table, and one of 150,000 rows (three row groups), in every format. */
static int write_files(const char *directory) {
    enum { MANY = 150000 };
    int64_t *number = malloc(MANY * sizeof *number);
    double *root = malloc(MANY * sizeof *root);
    uint8_t *odd = malloc(MANY);
    const char **name = malloc(MANY * sizeof *name);
    for (int64_t i = 0; i < MANY; i++) number[i] = i * i, root[i] = sqrt((double)i), odd[i] = i & 1, name[i] = texts[i % 4 == 3 ? 0 : i % 4];
    struct pva_column long_columns[] = {{"number", PVA_COLUMN_I64, number}, {"root", PVA_COLUMN_F64, root}, {"odd", PVA_COLUMN_BOOL, odd}, {"name", PVA_COLUMN_TEXT, name}};
    struct pva_table tables[2] = {table, {MANY, 4, long_columns}};
    for (int t = 0; t < 2; t++)
        for (int f = 0; f < PVA_TABLE_N_FORMATS; f++) {
            char path[4096];
            struct pva_error err = {0};
            snprintf(path, sizeof path, "%s/%s.%s", directory, t ? "long" : "short", pva_table_format_name((enum pva_table_format)f));
            FILE *out = fopen(path, "w");
            CHECK(out && !pva_table_write(&tables[t], (enum pva_table_format)f, out, &err));
            CHECK(out && !fclose(out));
        }
    free(number), free(root), free(odd), free(name);
    return check_report("test_table");
}

static void test_utf8(void) {
    CHECK_INT(pva_utf8_length("a", 1), 1);
    CHECK_INT(pva_utf8_length("", 0), 0);
    CHECK_INT(pva_utf8_length("\xc3\xa9", 2), 2);
    CHECK_INT(pva_utf8_length("\xc3\xa9", 1), 0);
    CHECK_INT(pva_utf8_length("\xc0\x80", 2), 0);
    CHECK_INT(pva_utf8_length("\xe0\x9f\xbf", 3), 0);
    CHECK_INT(pva_utf8_length("\xed\xa0\x80", 3), 0);
    CHECK_INT(pva_utf8_length("\xf4\x90\x80\x80", 4), 0);
    CHECK_INT(pva_utf8_length("\xf4\x8f\xbf\xbf", 4), 4);
    CHECK_INT(pva_utf8_length("\xff", 1), 0);
    CHECK_INT(pva_utf8_valid_prefix("ab\xe2\x82\xac\xe2\x82", 7), 5);
}

static void test_names(void) {
    enum pva_table_format f;
    struct pva_error err = {0};
    CHECK(!pva_table_format_parse("parquet", &f, &err) && f == PVA_TABLE_PARQUET);
    CHECK_INT(pva_table_format_parse("xls", &f, &err), PVA_USAGE);
    CHECK_HAS(err.msg, "csv, jsonl, parquet");
}

int main(int argc, char **argv) {
    if (argc == 2) return write_files(argv[1]);
    test_csv();
    test_jsonl();
    test_parquet();
    test_utf8();
    test_names();
    return check_report("test_table");
}
