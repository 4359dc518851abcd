/* dispatch.h - items travel from rank 0's schedule to the ranks while all of them compute, rank 0 too.
 *
 * Point-to-point messages only. Rank 0 answers when its own loop calls dispatch_next, between two decode steps; so that nobody
 * waits for that, each rank has a few items ahead at hand. They stay in here until a slot is free for them: when little is left,
 * rank 0 calls them back, and gives the last ones to whoever can start them. A main loop is:
 *
 *     struct dispatch *d = dispatch_open(par, schedule, ahead, stop_requested);
 *     while (!dispatch_finished(d) || computing) {
 *         n = computing ? dispatch_next(d, n_free, items) : dispatch_wait(d, n_free, items);
 *         start the n items;
 *         one decode step, and if it fails { dispatch_fail(d); break; }
 *     }
 *     outcome = dispatch_close(&d);
 *     par_agree(...)
 *
 * Between open and close no rank does anything collective. A rank that is done, or waits, sleeps. One rank that stops (a signal)
 * or fails ends the run for all: rank 0 tells every rank at once, dispatch_finished becomes true, and each leaves through
 * dispatch_close when it has finished, or dropped, what it had started. What was given out and not computed is simply not done:
 * the next run's schedule has it again.
 */
#ifndef DISPATCH_H
#define DISPATCH_H

#include "par.h"
#include "schedule.h"

#define DISPATCH_MOST 256 /* items at hand and in one answer */

enum dispatch_outcome {
    DISPATCH_COMPLETE = 0, /* every item was handed out, and no rank stopped or failed */
    DISPATCH_STOPPED = 1,  /* a rank was asked to stop */
    DISPATCH_FAILED = 2,   /* a rank failed: its error is for par_agree */
};

struct dispatch;

/* Collective. The schedule is rank 0's (others pass NULL) and must outlive the dispatch. ahead: items to have at hand beyond
 * those that can be started, 0 to DISPATCH_MOST / 2; a quarter of the slots plus one is good (tests/bench/bench_schedule.c).
 * stop_requested (may be NULL) is asked by next, wait and close; nonzero is a dispatch_stop. Does not return on failure
 * (par_die). */
struct dispatch *dispatch_open(const struct par *p, struct schedule *s, int ahead, int (*stop_requested)(void));

/* Items to start now: at most n_free, into items. Asks for more where needed, so it is to be called between all steps, with
 * n_free = 0 too; on rank 0 it also answers the others. Never waits. 0: none yet, or finished. */
int64_t dispatch_next(struct dispatch *d, int64_t n_free, int64_t *items);

/* The same for a rank that has nothing to compute: sleeps until there are items or dispatch_finished. n_free >= 1. */
int64_t dispatch_wait(struct dispatch *d, int64_t n_free, int64_t *items);

int dispatch_finished(const struct dispatch *d); /* no items will come to this rank any more */
int dispatch_stopping(const struct dispatch *d); /* and the run ends early */

void dispatch_stop(struct dispatch *d); /* this rank was asked to stop: all shall */
void dispatch_fail(struct dispatch *d); /* this rank cannot go on: all shall stop */

/* Called by every rank. Rank 0 goes on answering until all ranks are here; the others sleep and still pass a stop on. Returns the
 * same outcome on every rank (bits of enum dispatch_outcome), after which collective calls are allowed again. Closing before
 * dispatch_finished is a stop. NULL inside: nothing happens, DISPATCH_COMPLETE. */
int dispatch_close(struct dispatch **d);

#endif
