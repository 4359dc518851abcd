/* schedule.h - which rank does which item next. Knows ranks as numbers only: no MPI here.
 *
 * The items left to do are cut into one shard per rank, so that the shards cost about the same (longest item first, to the shard
 * with the least work so far). A rank takes from its own shard, longest first; when that is empty, from the shard with the most
 * work left: the slowest rank's. Costs are expectations and decide only the order; results never depend on who computes an item,
 * or when.
 *
 * Items with work in common (the completions of one prompt) form a group: they are neighbours in one shard, or in a few where the group is more than an
 * eighth of a shard, so that a rank meets them at the same time.
 *
 * A rank asks for items that it can start now and for some ahead, to have at hand when a sequence ends. What waits at one rank
 * cannot be started by another, and may wait behind the longest completion of all. So items ahead come from the rank's own shard
 * only, and when items are scarce (fewer than ranks) none is given ahead and those at hand are put back: the last ones go one by
 * one to whoever can start them. tests/bench/bench_schedule.c has the figures.
 */
#ifndef SCHEDULE_H
#define SCHEDULE_H

#include "pva/error.h"

#include <stdint.h>

struct schedule;

/* cost [n_items] >= 0, any unit: what an item is expected to take. group [n_items]: any numbers; NULL: each item for itself. done
 * [n_items]: nonzero marks are left out; NULL: none is done. All are read here only. *out: schedule_free. Fails with PVA_INPUT (a negative cost, a sum above 2^62) or PVA_IO
 * (memory). */
int schedule_create(int64_t n_items, const int64_t *cost, const int64_t *group, const uint8_t *done, int n_ranks, struct schedule **out,
                    struct pva_error *err);
void schedule_free(struct schedule **s);

/* Gives items to a rank: n_now, or all that are left, and up to n_ahead. Returns how many. With n_now > 0 it is 0 only when
 * nothing is left. An item is given once, and once more each time it is put back. items has room for n_now + n_ahead. */
int64_t schedule_take(struct schedule *s, int rank, int64_t n_now, int64_t n_ahead, int64_t *items);

/* Takes back items that were given and not started. They form a shard of their own. */
void schedule_put_back(struct schedule *s, int64_t n, const int64_t *items);

int64_t schedule_left(const struct schedule *s);                 /* items not given yet */
int schedule_scarce(const struct schedule *s);                   /* fewer left than ranks: none is given ahead any more */
int64_t schedule_shard_left(const struct schedule *s, int rank); /* of one shard */
int64_t schedule_shard_work(const struct schedule *s, int rank); /* their cost; an item of cost 0 counts as 1 */

#endif
