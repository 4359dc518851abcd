/* Pages: what is given comes out escaped, complete, and only when it is whole. */
#include "scratch.h"

#include "pva/html.h"

static char *read_all(const char *path) {
    FILE *f = fopen(path, "r");
    char *text = calloc(1, 100000);
    CHECK(f != NULL);
    if (f) text[fread(text, 1, 99999, f)] = 0, fclose(f);
    return text;
}

static int has(const char *text, const char *part) { return strstr(text, part) != NULL; }

static void fill(struct pva_html *h) {
    const char *const names[] = {"a<b", "caf\xc3\xa9"};
    const double values[] = {0.125, NAN};
    const int64_t counts[] = {7, -1};
    const struct pva_column columns[] = {{"name & more", PVA_COLUMN_TEXT, names}, {"value", PVA_COLUMN_F64, values}, {"n", PVA_COLUMN_I64, counts}};
    const struct pva_table table = {2, 3, columns};
    const char *const formats[] = {NULL, "%.2f", NULL}, *const links[] = {"https://example.org/?a=1&b=2", NULL};
    pva_html_section(h, "one", "First <section>");
    pva_html_paragraph(h, "lead", "%d of %d, \"quoted\"", 3, 4);
    pva_html_table(h, "A caption", &table, formats, links);
    const double ps[] = {0.25, 1.46e-6, NAN};
    const struct pva_column p = {"p", PVA_COLUMN_F64, ps};
    pva_html_table(h, NULL, &(struct pva_table){3, 1, &p}, (const char *const[]){"p"}, NULL);
    pva_html_file(h, "All & more", "exports/all.csv");
    pva_html_section(h, "two", "Second");
    pva_html_figures_begin(h);
    pva_html_figure_number(h, "pass rate", "of 12", "%.1f %%", 50.0);
    pva_html_figures_end(h);
    pva_html_picture(h, "/nowhere.svg", "report/x.csv", "what it shows", "caption");
    pva_html_difference(h, "before and after", "same\nold\nend", "same\nnew\nmore\nend");
    pva_html_code(h, NULL, "if a < b:\n    pass");
}

static void test_page(void) {
    char path[400];
    struct pva_html *h;
    struct pva_error err = {0};
    snprintf(path, sizeof path, "%s/page.html", scratch_directory);
    CHECK_INT(pva_html_open(path, "A & B", &h, &err), PVA_OK);
    fill(h);
    CHECK(access(path, F_OK) != 0);
    CHECK_INT(pva_html_close(&h, &err), PVA_OK);
    char *text = read_all(path);
    CHECK(has(text, "<title>A &amp; B</title>") && has(text, "<a href=\"#one\">First &lt;section&gt;</a>") && has(text, "<h2 id=\"two\">Second</h2>"));
    CHECK(has(text, "<p class=\"lead\">3 of 4, &quot;quoted&quot;</p>"));
    CHECK(has(text, "<td><a href=\"https://example.org/?a=1&amp;b=2\">a&lt;b</a></td><td class=\"number\">0.12</td><td class=\"number\">7</td>"));
    CHECK(has(text, "<td>caf\xc3\xa9</td><td class=\"number\">\xe2\x80\x93</td><td class=\"number\">-1</td>"));
    CHECK(has(text, "<td class=\"number\">0.250</td>") && has(text, "<td class=\"number\">1.5e-06</td></tr>\n<tr><td class=\"number\">\xe2\x80\x93</td></tr>"));
    CHECK(has(text, "<p class=\"note\">All &amp; more: <a href=\"exports/all.csv\">exports/all.csv</a></p>"));
    CHECK(has(text, "<dd>50.0 %</dd><dd class=\"detail\">of 12</dd>"));
    CHECK(has(text, "what it shows (not drawn") && has(text, "href=\"report/x.csv\""));
    CHECK(has(text, "<pre><span>  same</span><span class=\"remove\">- old</span><span class=\"add\">+ new</span><span class=\"add\">+ more</span><span>  end</span></pre>"));
    CHECK(has(text, "if a &lt; b:") && !has(text, "<script") && !has(text, "http-equiv"));
    free(text);
}

static void test_picture(void) {
    char svg[400], path[400];
    struct pva_html *h;
    struct pva_error err = {0};
    snprintf(svg, sizeof svg, "%s/p.svg", scratch_directory);
    snprintf(path, sizeof path, "%s/picture.html", scratch_directory);
    FILE *f = fopen(svg, "w");
    fputs("<svg/>\n", f);
    fclose(f);
    CHECK_INT(pva_html_open(path, "t", &h, &err), PVA_OK);
    pva_html_picture(h, svg, NULL, "a \"picture\"", NULL);
    CHECK_INT(pva_html_close(&h, &err), PVA_OK);
    char *text = read_all(path);
    CHECK(has(text, "<img src=\"data:image/svg+xml;base64,PHN2Zy8+Cg==\" alt=\"a &quot;picture&quot;\">"));
    CHECK(!has(text, "<nav"));
    free(text);
}

static void test_failure(void) {
    char path[400];
    struct pva_html *h;
    struct pva_error err = {0};
    snprintf(path, sizeof path, "%s/failed.html", scratch_directory);
    CHECK_INT(pva_html_open(path, "t", &h, &err), PVA_OK);
    pva_fail(&err, PVA_INPUT, "what the caller found");
    CHECK_INT(pva_html_close(&h, &err), PVA_INPUT);
    CHECK_TEXT(err.msg, "what the caller found");
    CHECK(access(path, F_OK) != 0 && h == NULL);
    err = (struct pva_error){0};
    CHECK_INT(pva_html_open("/nowhere/at/all.html", "t", &h, &err), PVA_OK);
    CHECK_INT(pva_html_close(&h, &err), PVA_IO);
    CHECK_HAS(err.msg, "/nowhere/at/all.html");
}

int main(void) {
    scratch_make();
    test_page();
    test_picture();
    test_failure();
    return check_report("test_html");
}
