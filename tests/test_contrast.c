/* Colours: text of a page and series of a figure stand out from the light and from the dark ground, and no two series look alike, to colour-blind readers too.
 * Everything is computed from what the page and the figures really use. */
#include "scratch.h"

#include "pva/figure.h"
#include "pva/html.h"

#include <math.h>

/* sRGB of IEC 61966-2-1, linear. "#rgb" and "#rrggbb". */
static void linear(const char *hex, double rgb[3]) {
    int digits = (int)strspn(hex + 1, "0123456789abcdef");
    CHECK(hex[0] == '#' && (digits == 3 || digits == 6));
    for (int c = 0; c < 3; c++) {
        char pair[3] = {hex[digits == 6 ? 1 + 2 * c : 1 + c], hex[digits == 6 ? 2 + 2 * c : 1 + c], 0};
        double v = (double)strtol(pair, NULL, 16) / 255;
        rgb[c] = v <= 0.04045 ? v / 12.92 : pow((v + 0.055) / 1.055, 2.4);
    }
}

/* WCAG 2.2: relative luminance and contrast. */
static double luminance(const char *hex) {
    double rgb[3];
    linear(hex, rgb);
    return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
}
static double contrast(const char *a, const char *b) {
    double x = luminance(a), y = luminance(b);
    return (fmax(x, y) + 0.05) / (fmin(x, y) + 0.05);
}

/* Machado, Oliveira and Fernandes 2009, severity 1: what protanopes, deuteranopes and tritanopes see; and everyone else. */
static const double vision[4][3][3] = {
    {{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216}, {-0.003882, -0.048116, 1.051998}},
    {{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413}, {-0.011820, 0.042940, 0.968881}},
    {{1.255528, -0.076749, -0.178779}, {-0.078411, 0.930809, 0.147602}, {0.004733, 0.691367, 0.303900}},
    {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
};

static double lightness_curve(double t) { return t > 216.0 / 24389 ? cbrt(t) : (24389.0 / 27 * t + 16) / 116; }

/* CIE L*a*b* under D65. */
static void lab(const char *hex, const double see[3][3], double out[3]) {
    double rgb[3], seen[3];
    linear(hex, rgb);
    for (int c = 0; c < 3; c++) seen[c] = fmin(1, fmax(0, see[c][0] * rgb[0] + see[c][1] * rgb[1] + see[c][2] * rgb[2]));
    double x = lightness_curve((0.4124564 * seen[0] + 0.3575761 * seen[1] + 0.1804375 * seen[2]) / 0.95047);
    double y = lightness_curve(0.2126729 * seen[0] + 0.7151522 * seen[1] + 0.0721750 * seen[2]);
    double z = lightness_curve((0.0193339 * seen[0] + 0.1191920 * seen[1] + 0.9503041 * seen[2]) / 1.08883);
    out[0] = 116 * y - 16, out[1] = 500 * (x - y), out[2] = 200 * (y - z);
}

static double distance(const char *a, const char *b, const double see[3][3]) {
    double x[3], y[3];
    lab(a, see, x), lab(b, see, y);
    return sqrt((x[0] - y[0]) * (x[0] - y[0]) + (x[1] - y[1]) * (x[1] - y[1]) + (x[2] - y[2]) * (x[2] - y[2]));
}

/* The value of a variable of the page's style, in its nth definition: light, then dark. */
static void variable(const char *page, const char *name, int nth, char out[8]) {
    char key[40];
    snprintf(key, sizeof key, "--%s:#", name);
    const char *at = page;
    for (int i = 0; at && i <= nth; i++) at = strstr(at + 1, key);
    CHECK(at != NULL);
    snprintf(out, 8, "%.*s", 1 + (int)(at ? strspn(at + strlen(key), "0123456789abcdef") : 3), at ? at + strlen(key) - 1 : "#fff");
}

static void at_least(double least, double found, const char *a, const char *b) {
    if (found < least) printf("%s and %s: %.2f, expected at least %.1f\n", a, b, found, least);
    CHECK(found >= least);
}

int main(void) {
    char path[400], text[8], ground[8], behind[8];
    struct pva_html *h;
    struct pva_error err = {0};
    CHECK(fabs(contrast("#000", "#ffffff") - 21) < 1e-9 && fabs(contrast("#767676", "#fff") - 4.54) < 0.01);
    CHECK(distance("#ff0000", "#00ff00", vision[3]) > 150 && distance("#d04545", "#7a7a00", vision[1]) < 40);
    scratch_make();
    snprintf(path, sizeof path, "%s/page.html", scratch_directory);
    CHECK_INT(pva_html_open(path, "colours", &h, &err), PVA_OK);
    CHECK_INT(pva_html_close(&h, &err), PVA_OK);
    char *page = calloc(1, 20000);
    FILE *f = fopen(path, "r");
    CHECK(page && f);
    if (!page || !f) return 1;
    CHECK(fread(page, 1, 19999, f) > 1000);
    fclose(f);
    for (int dark = 0; dark < 2; dark++) {
        static const struct {
            const char *text, *on;
            double least;
        } pairs[] = {{"ink", "ground", 7},   {"ink", "raised", 7},    {"ink", "add", 7},    {"ink", "remove", 7},
                     {"ink", "warn", 7},     {"soft", "ground", 4.5}, {"soft", "raised", 4.5}, {"link", "ground", 4.5}};
        for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
            variable(page, pairs[i].text, dark, text), variable(page, pairs[i].on, dark, behind);
            at_least(pairs[i].least, contrast(text, behind), pairs[i].text, pairs[i].on);
        }
        variable(page, "ground", dark, ground);
        for (int c = 0; c < PVA_N_COLOURS; c++) at_least(3, contrast(pva_figure_colours[c], ground), pva_figure_colours[c], ground);
    }
    /* A difference of 2.3 can be seen at all; 20 is one of thin lines at a glance. */
    for (int see = 0; see < 4; see++)
        for (int a = 0; a < PVA_N_COLOURS; a++)
            for (int b = 0; b < a; b++)
                at_least(20, distance(pva_figure_colours[a], pva_figure_colours[b], vision[see]), pva_figure_colours[a], pva_figure_colours[b]);
    free(page);
    return check_report("test_contrast");
}
