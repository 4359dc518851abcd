#include "pva/split.h"

#include "pva/rng.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[PVA_N_PARTS] = {"selection", "tuning", "validation"};
static const int64_t tenths[PVA_N_PARTS] = {5, 1, 4};

const char *pva_part_name(enum pva_part part) { return names[part]; }

int pva_difficulty_bin(int32_t difficulty) { return difficulty <= 1 ? 0 : difficulty <= 3 ? 1 : 2; }

/* One text and its copies. */
struct group {
    size_t first; /* the member with the lowest task id: it stands for the group */
    size_t size;
    uint64_t draw;   /* its place among the groups */
    uint32_t choice; /* its part, when it has several members */
    int bin;         /* of the first member */
};

struct key {
    char *text; /* words with single blanks between */
    size_t index;
};

static char *normalised(const char *text) {
    char *out = malloc(strlen(text) + 2), *p = out;
    if (!out) return NULL;
    for (int blank = 1; *text; text++) {
        int space = strchr(" \t\r\n\v\f", *text) != NULL;
        if (!space) *p++ = *text;
        else if (!blank) *p++ = ' ';
        blank = space;
    }
    while (p > out && p[-1] == ' ') p--;
    *p = 0;
    return out;
}

static int by_task(const void *a, const void *b, void *problems) {
    const struct pva_split_problem *all = problems;
    return strcmp(all[((const struct key *)a)->index].task_id, all[((const struct key *)b)->index].task_id);
}

static int by_text(const void *a, const void *b, void *problems) {
    int order = strcmp(((const struct key *)a)->text, ((const struct key *)b)->text);
    return order ? order : by_task(a, b, problems);
}

/* Larger groups first: they are the hardest to place. Among equals the draw decides. */
static int by_draw(const void *a, const void *b, void *problems) {
    const struct pva_split_problem *all = problems;
    const struct group *x = a, *y = b;
    if (x->bin != y->bin) return x->bin - y->bin;
    if (x->size != y->size) return x->size < y->size ? 1 : -1;
    if (x->draw != y->draw) return x->draw < y->draw ? -1 : 1;
    return strcmp(all[x->first].task_id, all[y->first].task_id);
}

static struct group make_group(const struct pva_split_problem *problems, size_t first, size_t size, uint64_t seed) {
    uint32_t hash = 2166136261u, w[4]; /* FNV-1a of the task id; should two collide, their ids decide the order */
    for (const unsigned char *p = (const unsigned char *)problems[first].task_id; *p; p++) hash = (hash ^ *p) * 16777619u;
    pva_rng_block(seed, PVA_RNG_SPLIT, hash, 0, 0, w);
    return (struct group){first, size, (uint64_t)w[0] << 32 | w[1], w[2], pva_difficulty_bin(problems[first].difficulty)};
}

/* n problems into shares that add up to n: the floor, then one more for the largest remainders (the earlier part among equals).
 */
static void quotas(int64_t n, int64_t quota[PVA_N_PARTS]) {
    int64_t rest[PVA_N_PARTS], left = n;
    for (int p = 0; p < PVA_N_PARTS; p++) {
        quota[p] = n / 10 * tenths[p] + n % 10 * tenths[p] / 10;
        rest[p] = n % 10 * tenths[p] % 10;
        left -= quota[p];
    }
    for (; left > 0; left--) {
        int best = 0;
        for (int p = 1; p < PVA_N_PARTS; p++)
            if (rest[p] > rest[best]) best = p;
        quota[best]++;
        rest[best] = -1;
    }
}

/* The part of the next group. A group of several is drawn among the parts with room for it, in proportion to their room (the
 * roomiest when there is none); single problems, which come after them in drawn order, fill what is left exactly. */
static int place(const struct group *g, int64_t quota[PVA_N_PARTS]) {
    int64_t size = (int64_t)g->size, room = 0;
    int best = 0;
    for (int p = 0; p < PVA_N_PARTS; p++) {
        if (quota[p] > quota[best]) best = p;
        if (quota[p] >= size) room += quota[p];
    }
    if (size > 1 && room) {
        int64_t at = (int64_t)((uint64_t)g->choice * (uint64_t)room >> 32);
        for (best = 0; quota[best] < size || at >= quota[best]; best++)
            if (quota[best] >= size) at -= quota[best];
    } else if (size == 1) {
        for (best = 0; best < PVA_N_PARTS - 1 && quota[best] <= 0;) best++;
    }
    quota[best] -= size;
    return best;
}

int pva_split(const struct pva_split_problem *problems, size_t n, uint64_t seed, uint8_t *parts,
              int64_t counts[PVA_N_PARTS][PVA_N_DIFFICULTIES], struct pva_error *err) {
    struct key *keys = calloc(n + 1, sizeof *keys);
    struct group *groups = calloc(n + 1, sizeof *groups);
    size_t *group_begin = calloc(n + 1, sizeof *group_begin), n_groups = 0;
    if (!keys || !groups || !group_begin) pva_fail(err, PVA_IO, "out of memory");
    for (size_t i = 0; i < n && !err->code; i++) {
        keys[i] = (struct key){normalised(problems[i].text), i};
        if (!keys[i].text) pva_fail(err, PVA_IO, "out of memory");
    }
    if (err->code) goto done;
    void *all = (void *)(uintptr_t)problems; /* only read */
    qsort_r(keys, n, sizeof *keys, by_task, all);
    for (size_t i = 1; i < n; i++) {
        const struct pva_split_problem *p = &problems[keys[i].index];
        if (strcmp(p->task_id, problems[keys[i - 1].index].task_id)) continue;
        pva_fail(err, PVA_INPUT, "task %s is there twice; a split needs every task id once", p->task_id);
        goto done;
    }
    qsort_r(keys, n, sizeof *keys, by_text, all);
    /* Equal texts stand together; a group is remembered by where it begins among the sorted keys. */
    for (size_t i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && !strcmp(keys[i].text, keys[j].text); j++) {
        }
        size_t first = keys[i].index;
        groups[n_groups++] = make_group(problems, first, j - i, seed);
        group_begin[first] = i;
    }
    qsort_r(groups, n_groups, sizeof *groups, by_draw, all);
    int64_t left[PVA_N_PARTS] = {0};
    for (size_t g = 0; g < n_groups; g++) {
        if (g == 0 || groups[g].bin != groups[g - 1].bin) {
            int64_t in_bin = 0;
            for (size_t k = g; k < n_groups && groups[k].bin == groups[g].bin; k++) in_bin += (int64_t)groups[k].size;
            quotas(in_bin, left);
        }
        int part = place(&groups[g], left);
        for (size_t k = 0; k < groups[g].size; k++) parts[keys[group_begin[groups[g].first] + k].index] = (uint8_t)part;
    }
    if (counts) memset(counts, 0, sizeof counts[0] * PVA_N_PARTS);
    for (size_t i = 0; counts && i < n; i++) counts[parts[i]][pva_difficulty_bin(problems[i].difficulty)]++;
done:
    for (size_t i = 0; keys && i < n; i++) free(keys[i].text);
    free(keys);
    free(groups);
    free(group_begin);
    return err->code;
}
