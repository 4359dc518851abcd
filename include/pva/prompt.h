/* prompt.h - from a problem to the text a model continues. One builder for every phase.
 *
 * A template is text with fields:
 *   {text}         the description (MBPP)          {tests}        the tests, one per line
 *   {test0}        the first test                  {entry_point}  the function that the tests call
 *   {shots}        worked examples                 {prompt}       imports, signature and docstring (HumanEval)
 * Another word in braces is refused as a slip; all other braces are text.
 *
 * Built in:
 *   pva          description, blank line, tests, blank line, "# Solution:"
 *   mbpp-3shot   the published few-shot format: tasks 2, 3 and 4 of the problem file as examples, [BEGIN] and [DONE]
 *   docstring    description and first test as a docstring
 * Or a file: the template, less the file's last line end. When it begins with '%', such lines come first:
 *   %stop "\n[DONE]"   a string that ends a completion, in JSON's notation; may be repeated
 *   %shots 2 3 4       the tasks shown as examples (these, when the line is missing)
 *   %shot              the lines from here to %prompt are an example; it may have {code}, the reference program
 *   %prompt            the rest of the file is the template
 *
 * A problem never sees itself among the examples. A prompt never contains BOS; whoever tokenises it puts it there, once.
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

/* name: a built-in one, else a file. `problems` is where the examples come from (NULL is fine for a template without). PVA_INPUT
 * when the file cannot be read or understood ("FILE:LINE: ..."), or an example's task is not there. */
int pva_prompt_template_open(const char *name, const struct pva_problems *problems, struct pva_prompt_template **out,
                             struct pva_error *err);
void pva_prompt_template_free(struct pva_prompt_template **t);

const char *pva_prompt_template_name(const struct pva_prompt_template *t);   /* as given, without directories */
const char *pva_prompt_template_sha256(const struct pva_prompt_template *t); /* over text, shots and stop strings, 64 digits */
/* Strings that end a completion; they and what follows are not part of it. Ends with NULL. */
const char *const *pva_prompt_template_stops(const struct pva_prompt_template *t);

/* *text is malloc'ed and zero-terminated, the caller frees it. A template with {prompt} takes HumanEval problems, any other MBPP
 * ones: PVA_INPUT when they do not fit. No template may end with {prompt}, because what is graded is a whole program. */
int pva_prompt_render(const struct pva_prompt_template *t, const struct pva_problem *problem, char **text, size_t *n_bytes,
                      struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
