/* schedule.h - which rank does which item next. Knows ranks as numbers only: no MPI here.
 *
 * The items left to do are cut into one shard per rank, so that the shards cost about the same (longest item first, to the shard
 * with the least work so far). A rank takes from its own shard, longest first; when that is empty, from the shard with the most
 * work left: the slowest rank's. Costs are expectations and decide only the order; results never depend on who computes an item,
 * or when.
 *
 * A rank asks for items that it can start now and for items ahead, to have at hand when a sequence ends. What waits at one rank
 * cannot be taken by another, so ahead is given only while each rank could get as much: the last items go one by one to whoever
 * can start them.
 */
#ifndef SCHEDULE_H
#define SCHEDULE_H

#include "pva/error.h"

#include <stdint.h>

struct schedule;

/* cost [n_items] >= 0, any unit: what an item is expected to take. done [n_items]: nonzero marks are left out; NULL: none is
 * done. Both are read here only. *out: schedule_free. Fails with PVA_INPUT (a negative cost, a sum above 2^62) or PVA_IO
 * (memory). */
int schedule_create(int64_t n_items, const int64_t *cost, const uint8_t *done, int n_ranks, struct schedule **out,
                    struct pva_error *err);
void schedule_free(struct schedule **s);

/* Gives up to n_now + n_ahead items to a rank; returns how many. With n_now > 0 it is 0 only when nothing is left at all.
 * Each item is given once. items has room for n_now + n_ahead. */
int64_t schedule_take(struct schedule *s, int rank, int64_t n_now, int64_t n_ahead, int64_t *items);

int64_t schedule_left(const struct schedule *s);                 /* items not given yet */
int64_t schedule_shard_left(const struct schedule *s, int rank); /* of one shard */
int64_t schedule_shard_work(const struct schedule *s, int rank); /* their cost; an item of cost 0 counts as 1 */

#endif
