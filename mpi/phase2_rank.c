#include "phase2_rank.h"

#include <string.h>

const char *phase2_list_name(enum phase2_list list) {
    static const char *const names[PHASE2_N_LISTS] = {"correct-separation", "incorrect-separation", "correct-t", "incorrect-t"};
    return (unsigned)list < PHASE2_N_LISTS ? names[list] : "?";
}

double phase2_list_score(enum phase2_list list, double separation, double t) {
    switch (list) {
    case PHASE2_CORRECT_SEPARATION: return separation;
    case PHASE2_INCORRECT_SEPARATION: return -separation;
    case PHASE2_CORRECT_T: return t;
    default: return -t;
    }
}

static int better(const struct phase2_best *a, const struct phase2_best *b) {
    if (a->score != b->score) return a->score > b->score;
    return a->layer != b->layer ? a->layer < b->layer : a->latent < b->latent;
}

void phase2_ranking_offer(struct phase2_ranking *r, double score, int32_t layer, int32_t latent) {
    const struct phase2_best candidate = {score, layer, latent};
    if (!(score > 0) || r->most < 1 || (r->n == r->most && !better(&candidate, &r->best[r->n - 1]))) return;
    int low = 0, high = r->n;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (better(&r->best[middle], &candidate)) low = middle + 1;
        else high = middle;
    }
    if (r->n < r->most) r->n++;
    memmove(r->best + low + 1, r->best + low, (size_t)(r->n - 1 - low) * sizeof *r->best);
    r->best[low] = candidate;
}
