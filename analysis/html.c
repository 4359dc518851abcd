#include "pva/html.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_SECTIONS = 40 };

struct pva_html {
    char path[4096], partial[4200], title[300];
    FILE *out; /* the body, in memory: the list of contents comes before it */
    char *body;
    size_t n_body;
    size_t lead; /* where in the body the summary begins; 0: there is none */
    int n_sections;
    struct {
        char id[60], title[160];
    } sections[MOST_SECTIONS];
};

/* Contrast: text on ground is at least 7:1 in both schemes, notes and links at least 4.5:1 (tests/test_contrast.c). Paper is always light. The shadows at the sides of
 * a wide table lie behind two covers that scroll with it, so they show only where there is more to see. */
static const char style[] =
    ":root{--ground:#fff;--raised:#f4f5f7;--ink:#1c1e22;--soft:#565b64;--line:#d9dce1;--link:#1f5fbf;--add:#e2f4e8;--remove:#fbe6e6;--warn:#fff3dc;--shade:#0003}\n"
    "@media screen and (prefers-color-scheme:dark){:root{--ground:#15171b;--raised:#1f2228;--ink:#e4e6ea;--soft:#a6acb6;--line:#343942;--link:#7fb0ff;--add:#173a25;"
    "--remove:#45201f;--warn:#3d3115;--shade:#fff2}}\n"
    "*{box-sizing:border-box}html{color-scheme:light dark}body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,-apple-system,sans-serif}"
    "\nmain{max-width:70rem;margin:0 auto;padding:1.5rem 1rem 4rem}h1{font-size:1.7rem;line-height:1.25;margin:.2em 0 .6em}h2{font-size:1.3rem;margin:2.4em 0 .6em;"
    "padding-top:.6em;border-top:1px solid var(--line)}h3{font-size:1.05rem;margin:1.6em 0 .4em}p{max-width:46rem;margin:.6em 0}a{color:var(--link)}\n"
    ".lead{font-size:1.12rem}.note{color:var(--soft);font-size:.93rem}.warning{background:var(--warn);padding:.6em .9em;border-radius:.4rem}\n"
    "nav ul{list-style:none;padding:0;margin:1em 0;display:flex;flex-wrap:wrap;gap:.3em 1.1em}\n"
    ".numbers{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2em 0;padding:0}\n"
    ".numbers div{flex:1 1 10rem;max-width:20rem;background:var(--raised);border-radius:.5rem;padding:.7rem .9rem}.numbers dt{font-size:.88rem;color:var(--soft)}.numbers dd{margin:0;font-size:1.5rem;"
    "font-variant-numeric:tabular-nums}.numbers dd.detail{font-size:.85rem;color:var(--soft)}\n"
    ".wide{overflow-x:auto;margin:1em 0;min-width:0;background:linear-gradient(90deg,var(--ground) 40%,transparent) 0 0/2.5rem 100% local,"
    "linear-gradient(270deg,var(--ground) 40%,transparent) 100% 0/2.5rem 100% local,linear-gradient(90deg,transparent 1px,var(--shade) 1px,transparent) 0 0/.9rem 100% scroll,"
    "linear-gradient(270deg,transparent 1px,var(--shade) 1px,transparent) 100% 0/.9rem 100% scroll;background-repeat:no-repeat}\n"
    "table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}caption{text-align:left;color:var(--soft);padding:.3em 0}"
    "caption span{display:block;max-width:min(46rem,100cqw);position:sticky;left:0}.wide{container-type:inline-size}\n"
    "th,td{padding:.28em .7em;border-bottom:1px solid var(--line);text-align:left}td{white-space:nowrap}thead th{vertical-align:bottom;line-height:1.25}td.long{white-space:normal;"
    "overflow-wrap:anywhere}td.number,th.number{text-align:right}\n"
    ".row{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(26rem,100%),1fr));gap:1rem}figure{margin:1em 0;min-width:0}figure img{width:100%;max-width:34rem;height:auto;"
    "display:block}figcaption{font-size:.9rem;color:var(--soft)}\n"
    "@media(max-width:40rem){table{font-size:.86rem}th,td{padding:.28em .5em}}\n"
    "details{margin:.8em 0}summary{cursor:pointer}pre{background:var(--raised);border-radius:.4rem;padding:.7rem .9rem;overflow-x:auto;font:.86rem/1.45 ui-monospace,"
    "monospace;margin:.5em 0}pre span{display:block;width:max-content;min-width:100%}.add{background:var(--add)}.remove{background:var(--remove)}\n"
    "@media print{nav{display:none}h2,h3{break-after:avoid}figure,tr,.numbers{break-inside:avoid}html,body{font-size:10pt}table{font-size:8pt}th,td{padding:.2em .45em}"
    ".wide{overflow:visible;background:none}pre{white-space:pre-wrap}main{max-width:none;padding:0}.row{grid-template-columns:1fr 1fr}}\n";

static void escape(FILE *out, const char *s) {
    for (; *s; s++) switch (*s) {
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '&': fputs("&amp;", out); break;
        case '"': fputs("&quot;", out); break;
        default:
            if ((unsigned char)*s >= 0x20 || *s == '\n' || *s == '\t') fputc(*s, out);
        }
}

int pva_html_open(const char *path, const char *title, struct pva_html **out, struct pva_error *err) {
    struct pva_html *h = *out = calloc(1, sizeof *h);
    if (!h) return pva_fail(err, PVA_IO, "out of memory");
    snprintf(h->path, sizeof h->path, "%s", path);
    snprintf(h->partial, sizeof h->partial, "%s.partial", path);
    snprintf(h->title, sizeof h->title, "%s", title);
    if (!(h->out = open_memstream(&h->body, &h->n_body))) {
        free(h);
        *out = NULL;
        return pva_fail(err, PVA_IO, "out of memory");
    }
    return PVA_OK;
}

static void write_page(FILE *out, const struct pva_html *h) {
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
          "<title>", out);
    escape(out, h->title);
    fprintf(out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n<h1>", style);
    escape(out, h->title);
    fputs("</h1>\n", out);
    if (h->lead) fwrite(h->body + h->lead, 1, h->n_body - h->lead, out);
    if (h->n_sections > 1) {
        fputs("<nav aria-label=\"Contents\"><ul>\n", out);
        for (int i = 0; i < h->n_sections; i++) {
            fprintf(out, "<li><a href=\"#%s\">", h->sections[i].id);
            escape(out, h->sections[i].title);
            fputs("</a></li>\n", out);
        }
        fputs("</ul></nav>\n", out);
    }
    size_t sections = h->lead ? h->lead : h->n_body;
    fwrite(h->body, 1, sections, out);
    fputs("</main>\n</body>\n</html>\n", out);
}

int pva_html_close(struct pva_html **page, struct pva_error *err) {
    struct pva_html *h = *page;
    if (!h) return err->code;
    int bad = fclose(h->out) != 0;
    if (bad && !err->code) pva_fail(err, PVA_IO, "out of memory");
    FILE *out = err->code ? NULL : fopen(h->partial, "we");
    if (!err->code && !out) pva_fail(err, PVA_IO, "%s: %s", h->partial, strerror(errno));
    if (out) {
        write_page(out, h);
        bad = fflush(out) || ferror(out) || fsync(fileno(out));
        bad |= fclose(out) != 0;
        if (bad || rename(h->partial, h->path)) {
            pva_fail(err, PVA_IO, "%s: cannot be written: %s", h->path, strerror(errno));
            unlink(h->partial);
        }
    }
    free(h->body), free(h);
    *page = NULL;
    return err->code;
}

/* ---- text ---- */

void pva_html_section(struct pva_html *h, const char *id, const char *title) {
    if (h->n_sections < MOST_SECTIONS) {
        snprintf(h->sections[h->n_sections].id, sizeof h->sections->id, "%s", id);
        snprintf(h->sections[h->n_sections++].title, sizeof h->sections->title, "%s", title);
    }
    fprintf(h->out, "<h2 id=\"%s\">", id);
    escape(h->out, title);
    fputs("</h2>\n", h->out);
}

void pva_html_lead(struct pva_html *h) {
    if (!fflush(h->out)) h->lead = h->n_body;
}

void pva_html_heading(struct pva_html *h, const char *title) {
    fputs("<h3>", h->out);
    escape(h->out, title);
    fputs("</h3>\n", h->out);
}

static void escape_formatted(FILE *out, const char *fmt, va_list ap) {
    char *text = NULL;
    if (vasprintf(&text, fmt, ap) < 0) return;
    escape(out, text);
    free(text);
}

void pva_html_paragraph(struct pva_html *h, const char *kind, const char *fmt, ...) {
    va_list ap;
    if (*kind) fprintf(h->out, "<p class=\"%s\">", kind);
    else fputs("<p>", h->out);
    va_start(ap, fmt);
    escape_formatted(h->out, fmt, ap);
    va_end(ap);
    fputs("</p>\n", h->out);
}

void pva_html_figures_begin(struct pva_html *h) { fputs("<dl class=\"numbers\">\n", h->out); }
void pva_html_figures_end(struct pva_html *h) { fputs("</dl>\n", h->out); }

void pva_html_figure_number(struct pva_html *h, const char *name, const char *detail, const char *fmt, ...) {
    va_list ap;
    fputs("<div><dt>", h->out);
    escape(h->out, name);
    fputs("</dt><dd>", h->out);
    va_start(ap, fmt);
    escape_formatted(h->out, fmt, ap);
    va_end(ap);
    fputs("</dd>", h->out);
    if (detail && *detail) {
        fputs("<dd class=\"detail\">", h->out);
        escape(h->out, detail);
        fputs("</dd>", h->out);
    }
    fputs("</div>\n", h->out);
}

/* ---- tables ---- */

const char *pva_html_p(double p, char text[16]) {
    snprintf(text, 16, isnan(p) ? "\xe2\x80\x93" : p < 0.001 ? "%.1e" : "%.3f", p);
    return text;
}

static void write_cell(FILE *out, const struct pva_column *c, int64_t row, const char *format) {
    char text[64] = "\xe2\x80\x93";
    if (c->type == PVA_COLUMN_TEXT) {
        const char *s = ((const char *const *)c->data)[row];
        escape(out, s ? s : "");
        return;
    }
    if (c->type == PVA_COLUMN_BOOL) snprintf(text, sizeof text, "%s", ((const uint8_t *)c->data)[row] ? "yes" : "no");
    else if (c->type == PVA_COLUMN_I32) snprintf(text, sizeof text, "%d", ((const int32_t *)c->data)[row]);
    else if (c->type == PVA_COLUMN_I64) snprintf(text, sizeof text, "%lld", (long long)((const int64_t *)c->data)[row]);
    else {
        double x = c->type == PVA_COLUMN_F32 ? (double)((const float *)c->data)[row] : ((const double *)c->data)[row];
        if (format && !strcmp(format, "p")) pva_html_p(x, text);
        else if (!isnan(x)) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(text, sizeof text, format ? format : "%.6g", x);
#pragma GCC diagnostic pop
        }
    }
    escape(out, text);
}

void pva_html_table(struct pva_html *h, const char *caption, const struct pva_table *t, const char *const *formats, const char *const *links) {
    FILE *out = h->out;
    fputs("<div class=\"wide\" tabindex=\"0\"><table>\n", out);
    if (caption && *caption) fputs("<caption><span>", out), escape(out, caption), fputs("</span></caption>\n", out);
    fputs("<thead><tr>", out);
    for (int c = 0; c < t->n_columns; c++) {
        fprintf(out, "<th scope=\"col\"%s>", t->columns[c].type == PVA_COLUMN_TEXT ? "" : " class=\"number\"");
        escape(out, t->columns[c].name);
        fputs("</th>", out);
    }
    fputs("</tr></thead>\n<tbody>\n", out);
    for (int64_t row = 0; row < t->n_rows; row++) {
        fputs("<tr>", out);
        for (int c = 0; c < t->n_columns; c++) {
            const char *link = c == 0 && links ? links[row] : NULL;
            const char *text = t->columns[c].type == PVA_COLUMN_TEXT ? ((const char *const *)t->columns[c].data)[row] : NULL;
            if (t->columns[c].type != PVA_COLUMN_TEXT) fputs("<td class=\"number\">", out);
            else fputs(text && strlen(text) > 40 ? "<td class=\"long\">" : "<td>", out);
            if (link) fputs("<a href=\"", out), escape(out, link), fputs("\">", out);
            write_cell(out, &t->columns[c], row, formats ? formats[c] : NULL);
            fputs(link ? "</a></td>" : "</td>", out);
        }
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

void pva_html_file(struct pva_html *h, const char *what, const char *address) {
    fputs("<p class=\"note\">", h->out);
    escape(h->out, what);
    fputs(": <a href=\"", h->out), escape(h->out, address), fputs("\">", h->out), escape(h->out, address), fputs("</a></p>\n", h->out);
}

/* ---- pictures ---- */

static void base64(FILE *out, const unsigned char *data, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = (unsigned)data[i] << 16 | (i + 1 < n ? (unsigned)data[i + 1] << 8 : 0) | (i + 2 < n ? data[i + 2] : 0);
        fputc(digits[v >> 18], out), fputc(digits[v >> 12 & 63], out);
        fputc(i + 1 < n ? digits[v >> 6 & 63] : '=', out), fputc(i + 2 < n ? digits[v & 63] : '=', out);
    }
}

/* As an image of its own, so that names inside the picture cannot meet those of another. */
void pva_html_picture(struct pva_html *h, const char *svg, const char *csv, const char *alt, const char *caption) {
    FILE *in = fopen(svg, "re");
    fputs("<figure>", h->out);
    if (!in) {
        fputs("<p class=\"note\">", h->out);
        escape(h->out, alt);
        fputs(" (not drawn: gnuplot was missing or failed)</p>", h->out);
    } else {
        unsigned char buffer[3 * 4096];
        fputs("<img src=\"data:image/svg+xml;base64,", h->out);
        for (size_t n; (n = fread(buffer, 1, sizeof buffer, in)) > 0;) base64(h->out, buffer, n);
        fputs("\" alt=\"", h->out);
        escape(h->out, alt);
        fputs("\">", h->out);
        fclose(in);
    }
    fputs("<figcaption>", h->out);
    if (caption) escape(h->out, caption);
    if (csv) fputs(" <a href=\"", h->out), escape(h->out, csv), fputs("\">numbers (CSV)</a>", h->out);
    fputs("</figcaption></figure>\n", h->out);
}

void pva_html_row_begin(struct pva_html *h) { fputs("<div class=\"row\">\n", h->out); }
void pva_html_row_end(struct pva_html *h) { fputs("</div>\n", h->out); }

/* ---- programs ---- */

void pva_html_details_begin(struct pva_html *h, const char *title) {
    fputs("<details><summary>", h->out);
    escape(h->out, title);
    fputs("</summary>\n", h->out);
}
void pva_html_details_end(struct pva_html *h) { fputs("</details>\n", h->out); }

void pva_html_code(struct pva_html *h, const char *title, const char *text) {
    if (title) pva_html_details_begin(h, title);
    fputs("<pre>", h->out);
    escape(h->out, text);
    fputs("</pre>\n", h->out);
    if (title) pva_html_details_end(h);
}

static size_t split_lines(const char *text, const char **lines, size_t *lengths, size_t most) {
    size_t n = 0;
    for (const char *c = text; *c && n < most; n++) {
        lines[n] = c;
        lengths[n] = strcspn(c, "\n");
        c += lengths[n] + (c[lengths[n]] == '\n');
    }
    return n;
}

static void write_line(FILE *out, const char *class, const char *mark, const char *line, size_t n) {
    char copy[2000];
    snprintf(copy, sizeof copy, "%.*s", (int)(n < sizeof copy ? n : sizeof copy - 1), line);
    if (*class) fprintf(out, "<span class=\"%s\">", class);
    else fputs("<span>", out);
    fputs(mark, out);
    escape(out, copy);
    fputs("</span>", out);
}

/* By the longest common subsequence of lines; programs are short. */
void pva_html_difference(struct pva_html *h, const char *title, const char *before, const char *after) {
    enum { MOST = 200 };
    const char *a[MOST], *b[MOST];
    size_t na[MOST], nb[MOST], n = split_lines(before, a, na, MOST), m = split_lines(after, b, nb, MOST);
    int(*common)[MOST + 1] = calloc(MOST + 1, sizeof *common);
    if (!common) return;
#define SAME(i, j) (na[i] == nb[j] && !memcmp(a[i], b[j], na[i]))
    for (size_t i = n; i-- > 0;)
        for (size_t j = m; j-- > 0;)
            common[i][j] = SAME(i, j) ? common[i + 1][j + 1] + 1 : common[i + 1][j] > common[i][j + 1] ? common[i + 1][j] : common[i][j + 1];
    if (title) pva_html_details_begin(h, title);
    fputs("<pre>", h->out);
    for (size_t i = 0, j = 0; i < n || j < m;) {
        if (i < n && j < m && SAME(i, j)) write_line(h->out, "", "  ", a[i], na[i]), i++, j++;
        else if (i < n && (j == m || common[i + 1][j] >= common[i][j + 1])) write_line(h->out, "remove", "- ", a[i], na[i]), i++;
        else write_line(h->out, "add", "+ ", b[j], nb[j]), j++;
    }
#undef SAME
    fputs("</pre>\n", h->out);
    if (title) pva_html_details_end(h);
    free(common);
}
