#include "spd_picture.h"

#include "pva/figure.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

int spd_matrix_read(const char *path, struct spd_matrix_file *out, struct pva_error *err) {
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t size = 0, capacity = 0, n = 0;
    int status = PVA_OK;
    memset(out, 0, sizeof *out);
    if (!f) return pva_fail(err, errno == ENOENT ? PVA_INPUT : PVA_IO, "%s: %s", path, strerror(errno));
    while (!status && getline(&line, &size, f) > 0) {
        int columns = 0;
        for (char *p = line, *end; *p && *p != '\n'; p = *end == ',' ? end + 1 : end) {
            double v = strtod(p, &end);
            if (end == p || (*end && *end != ',' && *end != '\n')) {
                status = pva_fail(err, PVA_INPUT, "%s:%d: numbers separated by commas are expected", path, out->n_rows + 1);
                break;
            }
            if (n == capacity) {
                capacity = capacity ? 2 * capacity : 1024;
                double *more = realloc(out->values, capacity * sizeof *more);
                if (!more) {
                    status = pva_fail(err, PVA_IO, "%s: out of memory", path);
                    break;
                }
                out->values = more;
            }
            out->values[n++] = v;
            columns++;
        }
        if (!status && out->n_rows && columns != out->n_cols)
            status = pva_fail(err, PVA_INPUT, "%s:%d: %d numbers, the lines before have %d", path, out->n_rows + 1, columns,
                              out->n_cols);
        out->n_cols = columns;
        out->n_rows++;
    }
    if (!status && !n) status = pva_fail(err, PVA_INPUT, "%s: is empty", path);
    free(line);
    fclose(f);
    if (status) free(out->values), memset(out, 0, sizeof *out);
    return status;
}

/* ---- PNG: a signature and chunks {length, name, data, CRC} ---- */

static void put_big(unsigned char *p, uint32_t v) {
    p[0] = (unsigned char)(v >> 24), p[1] = (unsigned char)(v >> 16), p[2] = (unsigned char)(v >> 8), p[3] = (unsigned char)v;
}

static size_t put_chunk(unsigned char *out, const char *name, const unsigned char *data, size_t n) {
    put_big(out, (uint32_t)n);
    memcpy(out + 4, name, 4);
    if (n) memcpy(out + 8, data, n);
    put_big(out + 8 + n, (uint32_t)crc32(crc32(0, NULL, 0), out + 4, (uInt)n + 4));
    return n + 12;
}

static void colour(enum spd_palette palette, double t, unsigned char rgb[3]) {
    static const double low[3][3] = {{247, 251, 255}, {255, 245, 240}, {59, 76, 192}},
                        middle[3][3] = {{107, 174, 214}, {251, 106, 74}, {221, 221, 221}},
                        high[3][3] = {{8, 48, 107}, {103, 0, 13}, {180, 4, 38}};
    t = isnan(t) || t < 0 ? 0 : t > 1 ? 1 : t;
    for (int i = 0; i < 3; i++) {
        double v = t < 0.5 ? low[palette][i] + (middle[palette][i] - low[palette][i]) * 2 * t
                           : middle[palette][i] + (high[palette][i] - middle[palette][i]) * (2 * t - 1);
        rgb[i] = (unsigned char)(v + 0.5);
    }
}

/* The matrix as a PNG, a pixel per number; the caller frees it. */
static unsigned char *encode(const struct spd_matrix_file *m, enum spd_palette palette, double limit, size_t *n) {
    const size_t row = 1 + 3 * (size_t)m->n_cols, raw = row * (size_t)m->n_rows;
    uLongf packed = compressBound(raw);
    unsigned char *pixels = calloc(raw, 1), *data = malloc(packed), *png = malloc(packed + 100), head[13] = {0};
    int ok = pixels && data && png;
    for (int i = 0; ok && i < m->n_rows; i++)
        for (int j = 0; j < m->n_cols; j++) {
            double v = m->values[(size_t)i * (size_t)m->n_cols + (size_t)j] / limit;
            colour(palette, palette == SPD_COOLWARM ? 0.5 + v / 2 : v, pixels + (size_t)i * row + 1 + 3 * (size_t)j);
        }
    ok = ok && compress2(data, &packed, pixels, raw, 9) == Z_OK;
    if (ok) {
        static const unsigned char signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
        put_big(head, (uint32_t)m->n_cols);
        put_big(head + 4, (uint32_t)m->n_rows);
        head[8] = 8, head[9] = 2; /* eight bits, red green blue */
        memcpy(png, signature, 8);
        *n = 8;
        *n += put_chunk(png + *n, "IHDR", head, sizeof head);
        *n += put_chunk(png + *n, "IDAT", data, packed);
        *n += put_chunk(png + *n, "IEND", NULL, 0);
    }
    free(pixels);
    free(data);
    if (!ok) free(png), png = NULL;
    return png;
}

static void put_base64(FILE *f, const unsigned char *p, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        fputc(digits[v >> 18], f);
        fputc(digits[v >> 12 & 63], f);
        fputc(i + 1 < n ? digits[v >> 6 & 63] : '=', f);
        fputc(i + 2 < n ? digits[v & 63] : '=', f);
    }
}

static void put_text(FILE *f, const char *text) {
    for (; *text; text++) {
        if (*text == '<') fputs("&lt;", f);
        else if (*text == '>') fputs("&gt;", f);
        else if (*text == '&') fputs("&amp;", f);
        else fputc(*text, f);
    }
}

static int close_picture(FILE *f, const char *path, struct pva_error *err) {
    int bad = ferror(f);
    if (fclose(f) || bad) return pva_fail(err, PVA_IO, "%s: could not be written", path);
    return PVA_OK;
}

int spd_heat_map(const struct spd_matrix_file *m, enum spd_palette palette, double limit, const char *title, const char *rows,
                 const char *columns, const char *path, struct pva_error *err) {
    const double width = 540, height = fmin(360, fmax(60, width * 0.9 * m->n_rows / m->n_cols));
    size_t n;
    unsigned char *png = encode(m, palette, limit > 0 ? limit : 1, &n);
    if (!png) return pva_fail(err, PVA_IO, "%s: out of memory", path);
    FILE *f = fopen(path, "w");
    if (!f) {
        free(png);
        return pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    }
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" viewBox=\"0 0 %.0f %.0f\" "
            "font-size=\"12\" fill=\"currentColor\">%s",
            width + 20, height + 60, pva_figure_style);
    fprintf(f, "<text x=\"%.0f\" y=\"16\" text-anchor=\"middle\">", width / 2 + 20);
    put_text(f, title);
    fprintf(f,
            "</text><image x=\"20\" y=\"24\" width=\"%.0f\" height=\"%.0f\" preserveAspectRatio=\"none\" "
            "style=\"image-rendering:pixelated\" xlink:href=\"data:image/png;base64,",
            width - 10, height);
    put_base64(f, png, n);
    fprintf(f, "\"/><text x=\"20\" y=\"%.0f\">", height + 42);
    put_text(f, columns);
    fprintf(f, " (%d)</text><text transform=\"translate(14 %.0f) rotate(-90)\" text-anchor=\"middle\">", m->n_cols,
            24 + height / 2);
    put_text(f, rows);
    fprintf(f, " (%d)</text><defs><linearGradient id=\"colours\">", m->n_rows);
    for (int i = 0; i < 3; i++) {
        unsigned char rgb[3];
        colour(palette, i / 2.0, rgb);
        fprintf(f, "<stop offset=\"%.1f\" stop-color=\"#%02x%02x%02x\"/>", i / 2.0, rgb[0], rgb[1], rgb[2]);
    }
    fprintf(f,
            "</linearGradient></defs><rect x=\"%.0f\" y=\"%.0f\" width=\"100\" height=\"10\" fill=\"url(#colours)\"/>"
            "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"end\">%.3g</text><text x=\"%.0f\" y=\"%.0f\">%.3g</text></svg>\n",
            width - 140, height + 33, width - 145, height + 42, palette == SPD_COOLWARM ? -limit : 0.0, width - 35, height + 42,
            limit);
    free(png);
    return close_picture(f, path, err);
}

int spd_arrows(int n, const double *x, const double *y, const int *group, const char *title, const char *path,
               struct pva_error *err) {
    const char *const colours[3] = {pva_figure_colours[PVA_GREY], pva_figure_colours[PVA_BLUE], pva_figure_colours[PVA_ORANGE]};
    static const char *const names[3] = {"target", "components", "their sum"};
    static const double widths[3] = {5, 2, 2};
    double largest = 1e-12;
    for (int i = 0; i < n; i++) largest = fmax(largest, fmax(fabs(x[i]), fabs(y[i])));
    FILE *f = fopen(path, "w");
    if (!f) return pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-180 -196 360 390\" font-size=\"12\" fill=\"currentColor\">%s"
               "<text y=\"-180\" text-anchor=\"middle\">", pva_figure_style);
    put_text(f, title);
    fputs("</text>", f);
    for (int g = 0; g < 3; g++) {
        int any = 0;
        for (int i = 0; i < n; i++) {
            if (group[i] != g) continue;
            any = 1;
            double a = 150 * x[i] / largest, b = -150 * y[i] / largest;
            fprintf(f,
                    "<line x1=\"0\" y1=\"0\" x2=\"%.2f\" y2=\"%.2f\" stroke=\"%s\" stroke-width=\"%.0f\" %s/><circle cx=\"%.2f\" "
                    "cy=\"%.2f\" r=\"%.0f\" fill=\"%s\"/>",
                    a, b, colours[g], widths[g], g == 2 ? "stroke-dasharray=\"4 3\" " : "", a, b, 1 + widths[g], colours[g]);
        }
        if (any) fprintf(f, "<text x=\"%d\" y=\"184\" fill=\"%s\">%s</text>", -170 + 100 * g, colours[g], names[g]);
    }
    fputs("</svg>\n", f);
    return close_picture(f, path, err);
}
