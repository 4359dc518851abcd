/* split.h - selection, tuning and validation problems: 50 / 10 / 40, seeded, the three alike in difficulty.
 *
 * Problems are grouped by their text (white space apart): a text's copies are never in two parts. Each difficulty bin is dealt
 * out by itself, with shares rounded by largest remainder, so that every part has the whole's profile as closely as whole
 * problems allow: each count is within one problem of its exact share, plus the members that a group brings along from another
 * bin (a group counts for the bin of its lowest task id). The draws are keyed by (seed, task id): the order of the file does not
 * matter. A split is made over a whole problem file; a sub-range of it (--start, --end) keeps its parts.
 */
#ifndef PVA_SPLIT_H
#define PVA_SPLIT_H

#include "pva/error.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pva_part { PVA_SELECTION, PVA_TUNING, PVA_VALIDATION, PVA_N_PARTS };
const char *pva_part_name(enum pva_part part); /* "selection" */

enum { PVA_N_DIFFICULTIES = 3 };
/* 0: complexity 1 (and programs that do not parse); 1: 2 or 3; 2: 4 and more. */
int pva_difficulty_bin(int32_t difficulty);

struct pva_split_problem {
    const char *task_id, *text;
    int32_t difficulty; /* cyclomatic complexity */
};

/* parts [n]: enum pva_part. counts (may be NULL): problems by part and difficulty bin. PVA_INPUT when a task id is there
 * twice. */
int pva_split(const struct pva_split_problem *problems, size_t n, uint64_t seed, uint8_t *parts,
              int64_t counts[PVA_N_PARTS][PVA_N_DIFFICULTIES], struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
