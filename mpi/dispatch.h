/* dispatch.h - items travel from rank 0's schedule to the ranks while all of them compute, rank 0 too.
 *
 * Point-to-point messages only. Rank 0 answers when its own loop calls dispatch_poll, between two decode steps, so ranks ask
 * ahead of need. A main loop is:
 *
 *     struct dispatch *d = dispatch_open(par, schedule, stop_requested);
 *     while (!dispatch_finished(d) || still computing) {
 *         dispatch_want(d, free slots, ahead);
 *         n = nothing to compute ? dispatch_wait(d, items, max) : dispatch_poll(d, items, max);
 *         start the n items; one decode step;
 *         if (it failed) { dispatch_fail(d); break; }
 *         if (dispatch_stopping(d)) drop what has not been started, finish or drop what has;
 *     }
 *     outcome = dispatch_close(&d);
 *     par_agree(...)
 *
 * Between open and close no rank does anything collective. A rank that is done, or waits, sleeps. One rank that stops (a signal)
 * or fails ends the run for all: rank 0 tells every rank at once that there is no more, and each leaves through dispatch_close.
 * What was given out and not computed is simply not done; the next run's schedule has it again.
 */
#ifndef DISPATCH_H
#define DISPATCH_H

#include "par.h"
#include "schedule.h"

#define DISPATCH_MOST 256 /* items in one answer */

enum dispatch_outcome {
    DISPATCH_COMPLETE = 0, /* every item was given to a rank, and no rank stopped or failed */
    DISPATCH_STOPPED = 1,  /* a rank was asked to stop */
    DISPATCH_FAILED = 2,   /* a rank failed: its error is for par_agree */
};

struct dispatch;

/* Collective. The schedule counts on rank 0 alone (others may pass NULL) and must outlive the dispatch. stop_requested (may be
 * NULL) is asked by poll, wait and close; when it returns nonzero, that is a dispatch_stop. Does not return on failure (par_die).
 */
struct dispatch *dispatch_open(const struct par *p, struct schedule *s, int (*stop_requested)(void));

/* Asks for up to n_now items that can be started at once and n_ahead to have at hand (schedule_take). Does not wait. Nothing
 * happens while an earlier request is unanswered, when all is given, or when both are 0. Together at most DISPATCH_MOST are asked
 * for. */
void dispatch_want(struct dispatch *d, int64_t n_now, int64_t n_ahead);

/* Items that have arrived, at most `max`; those over `max` wait for the next call. On rank 0 it also answers the others: call it
 * between steps. Never waits. 0: nothing yet, or finished. */
int64_t dispatch_poll(struct dispatch *d, int64_t *items, int64_t max);

/* The same, but sleeps until there are items, or dispatch_finished, or nothing has been asked for. max >= 1. */
int64_t dispatch_wait(struct dispatch *d, int64_t *items, int64_t max);

int dispatch_finished(const struct dispatch *d); /* no items will come to this rank any more */
int dispatch_stopping(const struct dispatch *d); /* the run ends early: start nothing more */

void dispatch_stop(struct dispatch *d); /* this rank was asked to stop: all shall */
void dispatch_fail(struct dispatch *d); /* this rank cannot go on: all shall stop */

/* Called by every rank. Rank 0 goes on answering until all ranks are here; the others sleep and still pass a stop on. Returns the
 * same outcome on every rank (bits of enum dispatch_outcome), after which collective calls are allowed again. Closing before
 * dispatch_finished is a stop. NULL inside: nothing happens, DISPATCH_COMPLETE. */
int dispatch_close(struct dispatch **d);

#endif
