/* campaign.h - many completions, computed by all ranks and kept: what phase1, phase3 and steer share.
 *
 * An item is one slot of a store: a problem of the plan, a request for the generator, a program, a verdict. A campaign opens the stores (new,
 * resumed, or from a snapshot), hands the items that are not stored yet to the ranks, generates in one batch per rank, grades while it
 * generates, stores, checkpoints, takes snapshots, shows progress, and ends early and cleanly when asked. What an item is, which request it makes
 * and where its result goes, is said by the phase in `what`.
 *
 *     campaign_open_grader(...)              before MPI
 *     par_open, engine, plan, run_open
 *     campaign_open(...)                     collective
 *     campaign_run(...)                      collective
 *     campaign_close(...)                    each rank for itself
 */
#ifndef CAMPAIGN_H
#define CAMPAIGN_H

#include "engine.h"
#include "phase1_item.h"
#include "phase1_plan.h"
#include "run.h"
#include "store.h"

#include "pva/generator.h"

/* What a phase says of its items. Callbacks are called by one thread; user is theirs. */
struct campaign_what {
    const char *phase;                        /* "phase1": messages, progress */
    const char *unit;                         /* "problems" */
    const char *file, *diagnostics_file;      /* in the run directory; no diagnostics: NULL */
    const struct store_schema *results, *diagnostics;
    int verdict_field;                        /* u8, of results: for the pass rate shown */
    int64_t n;                                /* slots */
    const int64_t *costs;                     /* [n] expected work of a slot, any unit */
    const struct pva_intervention *interventions;
    int n_interventions;
    int capture;                              /* the plan's capture is wanted */
    void *user;
    int64_t (*problem)(void *user, int64_t slot);                          /* its place in the plan; NULL: the slot itself */
    void (*request)(void *user, int64_t slot, struct pva_request *r);      /* amends the plan's request (temperature, sample, intervention); may be NULL */
    int (*store)(void *user, const struct phase1_item *item, const struct pva_grade_result *grade, struct pva_error *err);
    int (*store_too_long)(void *user, int64_t slot, const struct phase1_prompt *prompt, struct pva_error *err); /* a prompt that does not fit */
};

struct campaign {
    struct campaign_what what;
    const struct pva_options *options;
    const struct par *par;
    const struct run *run;
    const struct engine *engine;
    const struct phase1_plan *plan;
    struct pva_grader *grader;
    struct store *results, *diagnostics;
    uint8_t *states; /* [n] as found at the start */
    int64_t done_at_start;
    struct pva_generator *generator;
    struct phase1_item **items; /* [n], those of this rank */
    int64_t in_flight, grading, committed, new_tokens;
    double start, last_count;
    int64_t snapshot_at;
    int quiet;
    struct pva_error *err; /* what a callback found */
};

/* --grade-jobs; 0 stands for half of the processors: a GPU writes programs faster than one process grades them. */
int campaign_grade_jobs(const struct pva_options *o);

/* --python, --grade-jobs, --preload-imports, --require-sandbox, --sandbox; with --dry-run only looks what the sandbox could be. Forks: before MPI
 * and before any thread. */
int campaign_open_grader(const struct pva_options *o, int preload_imports, struct pva_grader **grader, struct pva_sandbox *sandbox, struct pva_error *err);

void campaign_close_grader(struct pva_grader **grader);
/* Opens one grader for all campaigns of this process, which campaign_open_grader then lends and campaign_close_grader leaves open: between phases, with MPI
 * running, none can be started. campaign_end_grader closes it. */
int campaign_keep_grader(const struct pva_options *o, int preload_imports, struct pva_error *err);
void campaign_end_grader(void);

/* Collective. Fills *c; everything pointed to must live until campaign_close. Opens or makes the files as --resume says, empties damaged slots. */
int campaign_open(struct campaign *c, const struct campaign_what *what, const struct pva_options *o, const struct par *par, const struct run *run,
                  const struct engine *engine, const struct phase1_plan *plan, struct pva_grader *grader, struct pva_error *err);

/* Collective. Computes what is not stored yet. *outcome: enum dispatch_outcome, the same on every rank. */
int campaign_run(struct campaign *c, int *outcome, struct pva_error *err);

/* Not collective: syncs and closes the stores, frees. err: the first failure to do so. Harmless on a zeroed campaign. */
void campaign_close(struct campaign *c, struct pva_error *err);

/* Collective. A signal during the start can end a helper process before it is out of its reach; that is a stop, not a failure: err becomes
 * PVA_STOPPED. */
void campaign_explain_stop(const struct par *par, struct pva_error *err);

#endif
