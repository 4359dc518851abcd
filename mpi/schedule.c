#include "schedule.h"

#include <stdlib.h>
#include <string.h>

struct item {
    int64_t index, cost, group;
    int64_t longest; /* cost in its group */
};

/* A rank's part of the items: items[next .. end) are still to be given, the longest first. */
struct shard {
    struct item *items;
    int64_t next, end;
    int64_t work; /* cost of what is left */
};

struct schedule {
    int n_ranks;
    int64_t left;
    struct item *sorted;  /* shard after shard */
    struct shard *shards; /* [n_ranks + 1], the last: what was put back */
    struct item *all;     /* [n_items] by index, for those put back */
};

static int by_cost(const struct item *x, const struct item *y) {
    if (x->cost != y->cost) return x->cost > y->cost ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static int by_group(const void *a, const void *b) {
    const struct item *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    return by_cost(x, y);
}

/* The group with the longest item first. */
static int longer_first(const void *a, const void *b) {
    const struct item *x = a, *y = b;
    if (x->longest != y->longest) return x->longest > y->longest ? -1 : 1;
    return by_group(a, b);
}

static void sort(struct item *items, int64_t n) {
    qsort(items, (size_t)n, sizeof *items, by_group);
    for (int64_t i = 0; i < n; i++) items[i].longest = i && items[i].group == items[i - 1].group ? items[i - 1].longest : items[i].cost;
    qsort(items, (size_t)n, sizeof *items, longer_first);
}

/* A heap of ranks: the one with the least work on top, the lower rank among equals. */
static int less(const struct shard *shards, int a, int b) {
    return shards[a].work != shards[b].work ? shards[a].work < shards[b].work : a < b;
}

static void sink(const struct shard *shards, int *heap, int n) {
    for (int at = 0;;) {
        int child = 2 * at + 1;
        if (child >= n) return;
        if (child + 1 < n && less(shards, heap[child + 1], heap[child])) child++;
        if (less(shards, heap[at], heap[child])) return;
        int swap = heap[at];
        heap[at] = heap[child], heap[child] = swap;
        at = child;
    }
}

/* Deals the sorted items, group by group, each to the shard with the least work, and lays the shards out one after the other. A group that is large for a
 * shard is cut: no piece, unless it is one item, costs more than an eighth of a shard. */
static int deal(struct schedule *s, struct item *items, int64_t total, struct pva_error *err) {
    int *heap = malloc((size_t)s->n_ranks * sizeof *heap);
    int *owner = malloc((size_t)(s->left ? s->left : 1) * sizeof *owner);
    int status = PVA_OK;
    if (!heap || !owner) {
        status = pva_fail(err, PVA_IO, "schedule: no memory for %lld items", (long long)s->left);
        goto done;
    }
    for (int r = 0; r < s->n_ranks; r++) heap[r] = r; /* all equal: in order is a heap */
    for (int64_t i = 0, most = total / s->n_ranks / 8; i < s->left; sink(s->shards, heap, s->n_ranks)) {
        struct shard *shard = &s->shards[heap[0]];
        int64_t first = i, piece = 0;
        for (; i < s->left && items[i].group == items[first].group && (i == first || piece + items[i].cost <= most); i++) {
            owner[i] = heap[0];
            piece += items[i].cost;
            shard->end++; /* a count until the places are known */
        }
        shard->work += piece;
    }
    struct item *place = s->sorted;
    for (int r = 0; r < s->n_ranks; r++) {
        struct shard *shard = &s->shards[r];
        shard->items = place;
        place += shard->end;
        shard->end = 0;
    }
    for (int64_t i = 0; i < s->left; i++) {
        struct shard *shard = &s->shards[owner[i]];
        shard->items[shard->end++] = items[i];
    }
done:
    free(heap);
    free(owner);
    return status;
}

int schedule_create(int64_t n_items, const int64_t *cost, const int64_t *group, const uint8_t *done, int n_ranks, struct schedule **out,
                    struct pva_error *err) {
    *out = NULL;
    PVA_ASSERT(n_items >= 0 && n_ranks >= 1);
    size_t room = n_items ? (size_t)n_items : 1;
    if (room > SIZE_MAX / 2 / sizeof(struct item))
        return pva_fail(err, PVA_IO, "schedule: %lld items do not fit into memory", (long long)n_items);
    struct schedule *s = calloc(1, sizeof *s);
    struct item *items = malloc(room * sizeof *items);
    int64_t total = 0;
    int status = PVA_OK;
    if (s) {
        s->sorted = malloc(2 * room * sizeof *s->sorted); /* the second half: what is put back */
        s->shards = calloc((size_t)n_ranks + 1, sizeof *s->shards);
        s->all = calloc(room, sizeof *s->all);
    }
    if (!s || !items || !s->sorted || !s->shards || !s->all) {
        status = pva_fail(err, PVA_IO, "schedule: no memory for %lld items", (long long)n_items);
        goto done;
    }
    s->n_ranks = n_ranks;
    s->shards[n_ranks].items = s->sorted + room;
    for (int64_t i = 0; i < n_items; i++) {
        if (done && done[i]) continue;
        int64_t c = cost[i] ? cost[i] : 1; /* so that a shard with items has work */
        if (c < 0 || c > ((int64_t)1 << 62) - total) {
            status = pva_fail(err, PVA_INPUT, "schedule: item %lld costs %lld; expected costs >= 0 with a sum below 2^62",
                              (long long)i, (long long)cost[i]);
            goto done;
        }
        total += c;
        items[s->left++] = (struct item){i, c, group ? group[i] : i, c};
    }
    sort(items, s->left);
    for (int64_t i = 0; i < s->left; i++) s->all[items[i].index] = items[i];
    status = deal(s, items, total, err);
done:
    free(items);
    if (status) schedule_free(&s);
    *out = s;
    return status;
}

void schedule_free(struct schedule **s) {
    if (*s) {
        free((*s)->sorted);
        free((*s)->shards);
        free((*s)->all);
        free(*s);
    }
    *s = NULL;
}

/* Where a rank's next item comes from: its own shard, else the one with the most work left (the lowest rank among equals). */
static struct shard *source(struct schedule *s, int rank) {
    struct shard *best = &s->shards[rank];
    if (best->next < best->end) return best;
    for (int r = 0; r <= s->n_ranks; r++)
        if (s->shards[r].work > best->work) best = &s->shards[r];
    return best;
}

int64_t schedule_take(struct schedule *s, int rank, int64_t n_now, int64_t n_ahead, int64_t *items) {
    PVA_ASSERT(rank >= 0 && rank < s->n_ranks && n_now >= 0 && n_ahead >= 0);
    int64_t n = n_now < s->left ? n_now : s->left;
    int64_t own = schedule_shard_left(s, rank) - n;
    if (own > 0 && s->left - n >= s->n_ranks) n += n_ahead < own ? n_ahead : own;
    for (int64_t i = 0; i < n; i++) {
        struct shard *from = source(s, rank);
        const struct item *it = &from->items[from->next++];
        from->work -= it->cost;
        items[i] = it->index;
    }
    s->left -= n;
    return n;
}

void schedule_put_back(struct schedule *s, int64_t n, const int64_t *items) {
    struct shard *back = &s->shards[s->n_ranks];
    memmove(back->items, back->items + back->next, (size_t)(back->end - back->next) * sizeof *back->items);
    back->end -= back->next;
    back->next = 0;
    for (int64_t i = 0; i < n; i++) {
        struct item it = s->all[items[i]];
        int64_t at = back->end++;
        for (; at > 0 && longer_first(&it, &back->items[at - 1]) < 0; at--) back->items[at] = back->items[at - 1];
        back->items[at] = it;
        back->work += it.cost;
        s->left++;
    }
}

int schedule_scarce(const struct schedule *s) { return s->left < s->n_ranks; }
int64_t schedule_left(const struct schedule *s) { return s->left; }
int64_t schedule_shard_left(const struct schedule *s, int rank) { return s->shards[rank].end - s->shards[rank].next; }
int64_t schedule_shard_work(const struct schedule *s, int rank) { return s->shards[rank].work; }
