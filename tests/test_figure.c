/* Figures: the numbers beside them exactly, the pictures as well-formed SVG with the right number of marks. Without gnuplot the pictures are skipped. */
#include "scratch.h"

#include "pva/figure.h"

static const double x[] = {0, 1, 2, 3}, y[] = {0.5, 0.25, NAN, 1}, low[] = {0.4, 0.2, NAN, 0.9}, high[] = {0.6, 0.3, NAN, 1.1}, half = 0.5;

static char *read_all(const char *name) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", scratch_directory, name);
    FILE *f = fopen(path, "r");
    char *text = calloc(1, 200000);
    CHECK(f != NULL);
    if (f) text[fread(text, 1, 199999, f)] = 0, fclose(f);
    return text;
}

static int count(const char *text, const char *part) {
    int n = 0;
    for (const char *c = text; (c = strstr(c, part)); c++) n++;
    return n;
}

static int have_gnuplot(void) { return !system("gnuplot --version >/dev/null 2>&1"); }

static const struct pva_series series[] = {
    {.label = "band", .kind = PVA_SERIES_BAND, .colour = PVA_GREY, .n = 4, .x = x, .low = low, .high = high},
    {.label = "with \"quotes\" & <angles>", .kind = PVA_SERIES_POINTS, .colour = PVA_BLUE, .n = 4, .x = x, .y = y},
    {.label = "measured", .kind = PVA_SERIES_INTERVALS, .colour = PVA_RED, .n = 4, .x = x, .y = y, .low = low, .high = high},
    {.kind = PVA_SERIES_LEVEL, .colour = PVA_GREEN, .dashed = 1, .y = &half},
};

static void test_csv(void) {
    struct pva_figure f = {.title = "A title; plot \"nothing\" & more", .x_label = "x_1", .y_label = "y", .series = series, .n_series = 4};
    struct pva_error err = {0};
    int status = pva_figure_write(&f, scratch_directory, "one", &err);
    CHECK_INT(status, have_gnuplot() ? PVA_OK : PVA_IO);
    char *csv = read_all("one.csv");
    CHECK_TEXT(csv, "series,x,y,low,high\n"
                    "\"band\",0,,0.4,0.6\n\"band\",1,,0.2,0.3\n\"band\",2,,,\n\"band\",3,,0.9,1.1\n"
                    "\"with \"\"quotes\"\" & <angles>\",0,0.5,,\n\"with \"\"quotes\"\" & <angles>\",1,0.25,,\n\"with \"\"quotes\"\" & <angles>\",2,,,\n"
                    "\"with \"\"quotes\"\" & <angles>\",3,1,,\n"
                    "\"measured\",0,0.5,0.4,0.6\n\"measured\",1,0.25,0.2,0.3\n\"measured\",2,,,\n\"measured\",3,1,0.9,1.1\n"
                    "\"\",,0.5,,\n");
    free(csv);
    if (!have_gnuplot()) return;
    char *svg = read_all("one.svg");
    CHECK(strstr(svg, "prefers-color-scheme:dark") && strstr(svg, "&lt;angles") && strstr(svg, "<title>A title; plot \"nothing\" &amp; more</title>"));
    CHECK(!strstr(svg, "Gnuplot") && !strstr(svg, "black") && !strstr(svg, "GNUPLOT"));
    CHECK_INT(count(svg, "<use xlink:href='#gpPt6'"), 3 + 3 + 2); /* three points, three intervals, two marks in the key */
    CHECK_INT(count(svg, "</svg>"), 1);
    free(svg);
}

static void test_edges(void) {
    const char *const names[] = {"easy", "medium", "hard"};
    const double values[] = {0.2, 0.5, 0.9};
    struct pva_series bars = {.kind = PVA_SERIES_BARS, .n = 3, .x = x, .y = values}, nothing = {.label = "n", .kind = PVA_SERIES_LINE, .n = 0};
    struct pva_figure f = {.x_names = names, .n_x_names = 3, .series = &bars, .n_series = 1}, empty = {.series = &nothing, .n_series = 1};
    struct pva_error err = {0};
    CHECK_INT(pva_figure_write(&f, scratch_directory, "bars", &err), PVA_OK);
    char *svg = read_all("bars.svg");
    CHECK(strstr(svg, "medium") && strstr(svg, "hard"));
    CHECK(strstr(svg, "<text> 0</text>") != NULL); /* bars stand on zero, whatever the least of them is */
    free(svg);
    CHECK_INT(pva_figure_write(&empty, scratch_directory, "empty", &err), PVA_OK);
    svg = read_all("empty.svg");
    CHECK(strstr(svg, "no data") != NULL);
    free(svg);
    CHECK_INT(pva_figure_write(&f, "/nowhere/at/all", "bars", &err), PVA_IO);
    CHECK_HAS(err.msg, "/nowhere/at/all");
    char *path = strdup(getenv("PATH"));
    setenv("PATH", "/nowhere", 1);
    err = (struct pva_error){0};
    CHECK_INT(pva_figure_write(&f, scratch_directory, "without", &err), PVA_IO);
    CHECK_HAS(err.msg, "gnuplot");
    setenv("PATH", path, 1);
    free(path);
    free(read_all("without.csv"));
}

int main(void) {
    scratch_make();
    test_csv();
    if (have_gnuplot()) test_edges();
    else CHECK_SKIP("the pictures: no gnuplot");
    return check_report("test_figure");
}
