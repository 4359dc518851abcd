/* problems.h - programming problems with tests, as records: MBPP and HumanEval, from JSON files.
 *
 * Read formats, recognised by their content, optionally gzip-compressed:
 *   JSON lines     one problem per line (mbpp.jsonl, HumanEval.jsonl)
 *   JSON array     [{...}, ...] (a hub export)
 *   rows           {"rows": [{"row": {...}}, ...]} (the hub's rows API, saved)
 * MBPP:      "text" or "prompt"; "code"; "task_id"; "test_list"; optional "test_setup_code", "test_imports", "challenge_test_list".
 * HumanEval: "task_id"; "prompt"; "entry_point"; "test"; "canonical_solution".
 * A list given as a JSON string (as some exports do) is parsed. Other keys are ignored.
 *
 * Nothing is skipped: the first line that is not a complete problem fails the load with PVA_INPUT, "FILE:LINE: what". In an array
 * the line is where the problem would begin if each stood on its own line: its number.
 */
#ifndef PVA_PROBLEMS_H
#define PVA_PROBLEMS_H

#include "pva/error.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pva_problem_kind { PVA_MBPP, PVA_HUMANEVAL };

/* All texts are UTF-8, zero-terminated, without zero bytes inside, owned by the set. Line ends are kept as in the file. */
struct pva_problem {
    enum pva_problem_kind kind;
    char *task_id;       /* as in the file; a number as its digits */
    int64_t number;      /* the number in the task id ("HumanEval/17" -> 17), -1 when there is none */
    char *text;          /* MBPP: the sentence; HumanEval: the prompt (imports, helpers, signature and docstring) */
    char *code;          /* reference program. HumanEval: prompt + canonical solution; "" when the file has none */
    char *setup;         /* test_imports and test_setup_code: runs after the program, before the tests; "" when none */
    char **tests;        /* [n_tests] at least one. HumanEval: one, the source that defines check(candidate) */
    size_t n_tests;
    char **challenge_tests; /* [n_challenge_tests] */
    size_t n_challenge_tests;
    char *entry_point; /* HumanEval: the function that check() gets; MBPP: "" */
    int64_t line;      /* in the file, from 1 */
};

struct pva_problems;

int pva_problems_load(const char *path, struct pva_problems **out, struct pva_error *err);
void pva_problems_free(struct pva_problems **problems);

size_t pva_problems_count(const struct pva_problems *p);
const struct pva_problem *pva_problems_at(const struct pva_problems *p, size_t i); /* in file order */

/* By task id: exact, else by number, where "Mbpp/17", "MBPP/17" and "17" name the MBPP problem 17, "HumanEval/17" and "17" the
 * HumanEval one. NULL when there is none or when a bare number fits several. */
const struct pva_problem *pva_problems_find(const struct pva_problems *p, const char *task_id);

/* A whole text file in memory, decompressed when it begins with gzip's magic bytes; zero-terminated. At most 1 GiB.
 * *text is malloc'ed, the caller frees it. */
int pva_read_text(const char *path, char **text, size_t *n_bytes, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
