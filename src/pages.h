/* pages.h - the pages of a paged cache: which are free, who holds them, and what they contain.
 *
 * A page is filled position by position with what determines its keys and values: the token and what acts on the row besides it
 * (a number, 0 for nothing), after all positions of the page before. Two pages with the same contents hold the same bits, so a
 * sequence may hold another's page instead of computing it. A page that nobody holds keeps its contents, and can be found, until
 * it is the free page unused for longest and is taken for something else.
 */
#ifndef PAGES_H
#define PAGES_H

#include "pva/error.h"

#include <stdint.h>

/* At most 31 positions are wasted per sequence, and the table of a 2000-token sequence has 63 entries. */
enum { PAGE = 32 };

struct page {
    uint64_t life;   /* a new one, above 0, each time the page is taken */
    uint64_t parent; /* life of the page before it; 0: it begins a sequence */
    int32_t tokens[PAGE];
    uint64_t changes[PAGE];
    int filled; /* positions of which the contents are known */
    int kept;   /* positions of which the stream behind the page's layers is kept (session.c) */
    int users;
    int32_t next, prev; /* while free */
};

struct pages {
    int64_t n, n_free;
    struct page *all; /* [n + 1]; the last is the ring of the free ones: next is unused for longest */
    uint64_t *keys;   /* [n] of a full page's contents; 0: cannot be found */
    uint64_t lives;
};

int pages_create(struct pages *p, int64_t n, struct pva_error *err);
void pages_free(struct pages *p);

int32_t pages_take(struct pages *p); /* an empty page with one user; -1 when none is free */
void pages_hold(struct pages *p, int32_t page);
void pages_release(struct pages *p, int32_t page);

/* The next position of a page. parent: of the page before, as in struct page. */
void pages_fill(struct pages *p, int32_t page, uint64_t parent, int32_t token, uint64_t change);
/* A page with these contents [PAGE], or -1. Looks at every page's key: some microseconds for ten thousand pages. */
int32_t pages_find(const struct pages *p, uint64_t parent, const int32_t *tokens, const uint64_t *changes);

#endif
