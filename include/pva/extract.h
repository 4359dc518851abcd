/* extract.h - from what a model wrote to the program that is graded.
 *
 * Rule `program`: the longest run of complete top-level blocks from the start of the completion. Blocks are
 *   - imports, and assignments (also augmented, annotated and to several targets), one or several to a line with ';'
 *   - def, async def and class with their decorators, up to the last line of their body
 *   - comments and blank lines
 * The run ends at the first top-level line that is none of these: prose, a bare expression, print, assert, if, for, while, with,
 * try, a closing code fence, an indented line that belongs to nothing. So `if __name__ == "__main__":` ends it. A block is
 * complete when its brackets and triple-quoted strings are closed and a def or class has a body; an incomplete block at the end
 * is left out. The stored program is the text of the run without trailing blanks, ended by one newline, or by two after a
 * backslash that joins lines; "" when there is none.
 * Before the first block, blank lines are skipped, and so is one opening code fence ("```python"). A string that stands alone as
 * the first statement (a module's docstring) counts as a comment. Prose before the program is not skipped: such a completion is
 * not a program, and its verdict is no-code.
 * Prose that happens to be an assignment ("Output: x = 5") is told apart by what a type looks like: an annotation must begin with
 * a built-in type's name, a capital letter, a string or a dotted name, and a value must follow it. Imports, assignments,
 * decorators and the first lines of def and class are looked at closely enough for that: two operands side by side ("x = the
 * answer", "class of problems:") or a value that is missing ("x = 1 +") are none of these. Bodies are not looked at, but for
 * brackets and strings. An unfinished last line is judged as if it ended: "return x +" in a body stays, "x = 1 +" does not.
 *
 * Rule `first-function`: what the original project did. From the first "def " to the first newline that is followed by
 * something else than a blank or a newline, right-stripped; without "def ", the text stripped. Kept for comparison: it loses
 * helpers, imports, decorators and classes.
 *
 * Incremental use: the generator feeds text as it comes and stops when pva_extract_is_final() says that no continuation can
 * change the program. That answer is never given too early; the tests check it byte by byte.
 */
#ifndef PVA_EXTRACT_H
#define PVA_EXTRACT_H

#include "pva/error.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pva_extract_rule { PVA_EXTRACT_PROGRAM, PVA_EXTRACT_FIRST_FUNCTION };

/* "program", "first-function". */
const char *pva_extract_rule_name(enum pva_extract_rule rule);
int pva_extract_rule_parse(const char *name, enum pva_extract_rule *out, struct pva_error *err);

struct pva_extract;

/* The text is bytes: UTF-8 as far as this cares, zero bytes allowed, \n, \r\n and \r end lines. Nothing here fails but memory. */
int pva_extract_create(enum pva_extract_rule rule, struct pva_extract **out, struct pva_error *err);
void pva_extract_free(struct pva_extract **x);
int pva_extract_feed(struct pva_extract *x, const char *text, size_t n_bytes, struct pva_error *err);

/* 1 when pva_extract_program() would give the same bytes whatever were fed from now on. */
int pva_extract_is_final(const struct pva_extract *x);

/* The program if the completion ended here. More may be fed afterwards. *program is malloc'ed, zero-terminated; the caller frees
 * it. */
int pva_extract_program(const struct pva_extract *x, char **program, size_t *n_bytes, struct pva_error *err);

/* All at once. */
int pva_extract(enum pva_extract_rule rule, const char *text, size_t n_text, char **program, size_t *n_bytes,
                struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
