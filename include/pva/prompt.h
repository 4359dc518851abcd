/* prompt.h - from a problem to the text a model continues. One builder for every phase.
 *
 * A template is text with placeholders: {text}, {tests} (one per line), {test0} (the first), {entry_point}, {shots} (worked examples). Braces
 * that name none of these are text. Built in:
 *   pva          text, blank line, tests, blank line, "# Solution:"
 *   mbpp-3shot   the published few-shot format: tasks 2, 3 and 4 of the problem file as examples, [BEGIN] and [DONE]
 *   docstring    text and first test as a docstring
 * or a file. A prompt never contains BOS; whoever tokenises it puts it there, once.
 */
#ifndef PVA_PROMPT_H
#define PVA_PROMPT_H

#include "pva/error.h"
#include "pva/problems.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pva_prompt_template;

/* name: a built-in one, else a file. `problems` is where {shots} come from; fails with PVA_INPUT when the template has {shots} and tasks 2, 3, 4
 * are not there. A file without {text} is refused. */
int pva_prompt_template_open(const char *name, const struct pva_problems *problems, struct pva_prompt_template **out, struct pva_error *err);
void pva_prompt_template_free(struct pva_prompt_template **t);

const char *pva_prompt_template_name(const struct pva_prompt_template *t);   /* as given, without directories */
const char *pva_prompt_template_sha256(const struct pva_prompt_template *t); /* over text, shots and stop strings, 64 digits */
/* Strings that end a completion; they and what follows are not part of it. Ends with NULL. */
const char *const *pva_prompt_template_stops(const struct pva_prompt_template *t);

/* *text is malloc'ed and zero-terminated, the caller frees it. HumanEval problems are refused: their prompt is the beginning of the program. */
int pva_prompt_render(const struct pva_prompt_template *t, const struct pva_problem *problem, char **text, size_t *n_bytes, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
