#include "pages.h"

#include <stdlib.h>
#include <string.h>

int pages_create(struct pages *p, int64_t n, struct pva_error *err) {
    PVA_ASSERT(n > 0 && n < INT32_MAX);
    *p = (struct pages){.n = n, .n_free = n};
    p->all = calloc((size_t)n + 1, sizeof *p->all);
    p->keys = calloc((size_t)n, sizeof *p->keys);
    if (!p->all || !p->keys) return pva_fail(err, PVA_IO, "out of memory");
    for (int64_t i = 0; i <= n; i++) {
        p->all[i].next = (int32_t)(i < n ? i + 1 : 0);
        p->all[i].prev = (int32_t)(i > 0 ? i - 1 : n);
    }
    return PVA_OK;
}

void pages_free(struct pages *p) {
    free(p->all);
    free(p->keys);
    *p = (struct pages){0};
}

static void unlink_free(struct pages *p, int32_t page) {
    struct page *at = &p->all[page];
    p->all[at->prev].next = at->next;
    p->all[at->next].prev = at->prev;
    p->n_free--;
}

int32_t pages_take(struct pages *p) {
    if (!p->n_free) return -1;
    int32_t page = p->all[p->n].next;
    struct page *at = &p->all[page];
    unlink_free(p, page);
    p->keys[page] = 0;
    at->life = ++p->lives;
    at->filled = at->kept = 0;
    at->users = 1;
    return page;
}

void pages_hold(struct pages *p, int32_t page) {
    if (p->all[page].users++ == 0) unlink_free(p, page);
}

void pages_release(struct pages *p, int32_t page) {
    struct page *at = &p->all[page];
    PVA_ASSERT(at->users > 0);
    if (--at->users) return;
    /* What cannot be found is taken before anything that can. */
    int32_t ring = (int32_t)p->n, before = p->keys[page] ? p->all[ring].prev : ring;
    at->prev = before;
    at->next = p->all[before].next;
    p->all[at->next].prev = page;
    p->all[before].next = page;
    p->n_free++;
}

/* Only narrows the search: pages_find compares the contents themselves. Never 0. */
static uint64_t key_of(uint64_t parent, const int32_t *tokens, const uint64_t *changes) {
    uint64_t h = parent;
    for (int i = 0; i < PAGE; i++) {
        h = (h ^ (uint64_t)(uint32_t)tokens[i] ^ changes[i] << 1) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return h ? h : 1;
}

void pages_fill(struct pages *p, int32_t page, uint64_t parent, int32_t token, uint64_t change) {
    struct page *at = &p->all[page];
    PVA_ASSERT(at->users > 0 && at->filled < PAGE);
    at->parent = parent;
    at->tokens[at->filled] = token;
    at->changes[at->filled++] = change;
    if (at->filled == PAGE) p->keys[page] = key_of(parent, at->tokens, at->changes);
}

int32_t pages_find(const struct pages *p, uint64_t parent, const int32_t *tokens, const uint64_t *changes) {
    uint64_t key = key_of(parent, tokens, changes);
    for (int64_t i = 0; i < p->n; i++) {
        const struct page *at = &p->all[i];
        if (p->keys[i] == key && at->parent == parent && !memcmp(at->tokens, tokens, sizeof at->tokens) &&
            !memcmp(at->changes, changes, sizeof at->changes))
            return (int32_t)i;
    }
    return -1;
}
