/* followup.h - what phase3 and steer open first: the finished phase 1 of a run, with its settings, model, problems and prompts.
 *
 * A follow-up takes its settings from config-phase1.yaml, so `pva-mpi steer --run DIR` says everything. What the user gives now (--model, --problems
 * after a move; --threads, --batch-size ...) wins; whatever would change a result is compared with phase1.h5 and refused.
 */
#ifndef FOLLOWUP_H
#define FOLLOWUP_H

#include "campaign.h"
#include "phase1_read.h"

struct followup {
    const char *phase;
    const struct pva_options *options; /* of the follow-up */
    struct pva_options *base;          /* of phase 1 */
    struct par par;
    struct pva_grader *grader;
    struct pva_sandbox sandbox;
    struct run run;
    struct engine engine;
    struct phase1_plan plan;
    struct phase1_identity identity; /* of phase 1 */
    struct phase1_data phase1;
    double seconds_per_item;         /* of one rank at phase 1's pace; NaN: not known */
    int quiet, dry_run;
};

/* Collective from where it starts MPI on; call it first. Fails on all ranks or on none; followup_close in any case. */
int followup_open(struct followup *f, const char *phase, const struct pva_options *o, struct pva_error *err);

/* Collective. Takes the run's lock, writes config-PHASE.yaml and the manifest. facts: rank 0's, taken over (others pass NULL). */
int followup_open_run(struct followup *f, json_t *facts, struct pva_error *err);

/* Collective. Frees everything, turns an error caused by a signal into PVA_STOPPED, ends MPI; returns the status of the command. late: what closing
 * the stores reported. */
int followup_close(struct followup *f, struct pva_error *late, struct pva_error *err);

/* Slots of a part (enum of split.h) that phase 1 graded, ascending, at most `limit` (0: all). *slots is malloc'ed. */
int followup_slots(const struct followup *f, int part, int64_t limit, int64_t **slots, int64_t *n, struct pva_error *err);

/* "about 3 min 20 s" for n completions at phase 1's pace, on these ranks; "?" */
const char *followup_estimate(const struct followup *f, int64_t n);

/* The attributes that say which run a file of a follow-up belongs to. Returns how many; attributes has room for 12. */
int followup_attributes(const struct followup *f, struct store_attribute *attributes);

#endif
