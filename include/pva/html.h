/* html.h - one self-contained page: text, tables, pictures. No script, no network; light and dark, screen and paper, narrow and wide.
 *
 * Everything given as text is escaped. The page appears under its name when it is closed without an error; until then it is PATH.partial.
 */
#ifndef PVA_HTML_H
#define PVA_HTML_H

#include "pva/error.h"
#include "pva/table.h"

#ifdef __cplusplus
extern "C" {
#endif

struct pva_html;

int pva_html_open(const char *path, const char *title, struct pva_html **out, struct pva_error *err);
/* Publishes the page, or removes what was written when err is set already or writing failed. Frees. */
int pva_html_close(struct pva_html **page, struct pva_error *err);

/* A heading with a place in the list of contents at the top. id: letters, digits and dashes, once per page. */
void pva_html_section(struct pva_html *page, const char *id, const char *title);
/* From here on, what is written comes first on the page, before the sections: a summary is known last. */
void pva_html_lead(struct pva_html *page);
void pva_html_heading(struct pva_html *page, const char *title); /* below a section */

/* `kind`: "" a paragraph, "lead" the sentences that matter most, "note" an aside, "warning" what limits a result. */
void pva_html_paragraph(struct pva_html *page, const char *kind, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* A large number with its name, for the row of figures at the top: begin, some, end. */
void pva_html_figures_begin(struct pva_html *page);
void pva_html_figure_number(struct pva_html *page, const char *name, const char *detail, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void pva_html_figures_end(struct pva_html *page);

/* formats: per column how its numbers are shown ("%.3f", "p" for p values as pva_html_p has them), or NULL for the shortest; a NaN is a dash. Wide tables scroll by
 * themselves. links: NULL, or per row an address for its first cell (NULL: none). */
void pva_html_table(struct pva_html *page, const char *caption, const struct pva_table *table, const char *const *formats, const char *const *links);

/* A p value with three decimals, below 0.001 as "1.5e-06"; NaN is a dash. Returns text. */
const char *pva_html_p(double p, char text[16]);
/* A note that names a file beside the page: "what: address". */
void pva_html_file(struct pva_html *page, const char *what, const char *address);

/* The picture in the file `svg` (read now, carried in the page), its description for those who do not see it, and where its numbers are (relative to the page;
 * NULL: nowhere). A file that is not there becomes a sentence that says so. */
void pva_html_picture(struct pva_html *page, const char *svg, const char *csv, const char *alt, const char *caption);
/* Pictures between these stand side by side where there is room. */
void pva_html_row_begin(struct pva_html *page);
void pva_html_row_end(struct pva_html *page);

/* Text as it is, in a fixed-width block, below a line that opens it. */
void pva_html_code(struct pva_html *page, const char *title, const char *text);
void pva_html_details_begin(struct pva_html *page, const char *title);
void pva_html_details_end(struct pva_html *page);
/* Two texts line by line: what only the first has, what only the second has, what both have. */
void pva_html_difference(struct pva_html *page, const char *title, const char *before, const char *after);

#ifdef __cplusplus
}
#endif
#endif
