/* phase2_select.h - the second pass of phase 2, over all layers together: filter by general text, family-wise p and q, lists. Writes phase2-selection.h5. */
#ifndef PHASE2_SELECT_H
#define PHASE2_SELECT_H

#include "engine.h"
#include "phase2_plan.h"
#include "run.h"

struct phase2_selected {
    int had_pile, was_current;      /* was_current: nothing had to be computed */
    int64_t n_documents, n_passing, n_hypotheses, n_distinct;
    double seconds;                 /* of the permutations */
    int64_t thresholds_passing[PHASE2_N_THRESHOLDS];
};

/* Collective; ends with an agreement. scores: phase2.h5 with all layers done; permutations are counted on the engine's device. PVA_STOPPED when
 * stop_requested() becomes true. */
int phase2_select(const struct phase2_plan *plan, const struct par *p, const struct run *run, const struct engine *engine, struct store *scores,
                  struct phase2_selected *out, struct pva_error *err);

extern const double phase2_thresholds[PHASE2_N_THRESHOLDS]; /* of the sensitivity table */

#endif
