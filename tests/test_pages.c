/* The pages of a cache as numbers: free ones are found until they are taken, the one unused for longest first; contents must
 * match in full. */
#include "check.h"
#include "pages.h"

enum { N = 6 };

static struct pages p;
static int32_t tokens[PAGE];
static uint64_t changes[PAGE];

/* A full page that differs from others in its last token. */
static int32_t take_full(uint64_t parent, int32_t last) {
    int32_t page = pages_take(&p);
    CHECK_FATAL(page >= 0);
    tokens[PAGE - 1] = last;
    for (int i = 0; i < PAGE; i++) pages_fill(&p, page, parent, tokens[i], changes[i]);
    return page;
}

static int32_t find(uint64_t parent, int32_t last) {
    tokens[PAGE - 1] = last;
    return pages_find(&p, parent, tokens, changes);
}

int main(void) {
    struct pva_error err = {0};
    int32_t page[N];
    for (int i = 0; i < PAGE; i++) tokens[i] = 3 * i, changes[i] = i > 20 ? 1ull << 52 : 0;
    CHECK_OK(pages_create(&p, N, &err), err);
    CHECK_INT(find(0, 0), -1);
    for (int i = 0; i < N; i++) {
        page[i] = take_full(i < 4 ? 0 : p.all[page[0]].life, i);
        CHECK_INT(p.n_free, N - 1 - i);
    }
    CHECK_INT(pages_take(&p), -1);
    for (int i = 0; i < 4; i++) CHECK_INT(find(0, i), page[i]);
    CHECK_INT(find(0, 4), -1); /* it has a page before it */
    CHECK_INT(find(p.all[page[0]].life, 4), page[4]);
    CHECK_INT(find(p.all[page[1]].life, 4), -1);
    changes[30]++;
    CHECK_INT(find(0, 2), -1);
    changes[30]--;
    tokens[0]++;
    CHECK_INT(find(0, 2), -1);
    tokens[0]--;

    /* Two users: free with the second's release. */
    pages_hold(&p, page[2]);
    pages_release(&p, page[2]);
    CHECK_INT(p.n_free, 0);
    for (int i = 3; i >= 0; i--) pages_release(&p, page[i]); /* 3 is unused for longest */
    CHECK_INT(p.n_free, 4);
    CHECK_INT(find(0, 3), page[3]);
    pages_hold(&p, page[3]); /* held again: not to be taken */
    CHECK_INT(p.n_free, 3);
    pages_release(&p, page[3]); /* and now the one unused for the shortest time */
    CHECK_INT(pages_take(&p), page[2]);
    CHECK_INT(find(0, 2), -1);
    CHECK_INT(find(0, 3), page[3]);
    uint64_t old = p.all[page[1]].life;
    int32_t part = pages_take(&p);
    CHECK_INT(part, page[1]);
    CHECK(p.all[part].life != old);
    pages_fill(&p, part, 0, tokens[0], changes[0]);
    pages_release(&p, part); /* not full, so it cannot be found: taken before page 0 */
    CHECK_INT(pages_take(&p), part);
    CHECK_INT(p.all[part].filled, 0);
    CHECK_INT(pages_take(&p), page[0]);
    CHECK_INT(pages_take(&p), page[3]);
    CHECK_INT(pages_take(&p), -1);
    pages_free(&p);
    return check_report("test_pages");
}
