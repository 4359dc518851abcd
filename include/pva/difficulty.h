/* difficulty.h - how hard a problem is: the cyclomatic complexity of its reference solution (McCabe, as radon counts it), found with
 * Python's own parser. The programs are parsed, not run. */
#ifndef PVA_DIFFICULTY_H
#define PVA_DIFFICULTY_H

#include "pva/error.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* difficulty[i] of codes[i], 1 or more; -1 for a program that does not parse. python: an interpreter; NULL for python3. */
int pva_difficulty(const char *python, const char *const *codes, size_t n, int32_t *difficulty, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
