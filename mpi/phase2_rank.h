/* phase2_rank.h - the best latents of a list, with ties broken the same way everywhere: score, then lower layer, then lower latent. */
#ifndef PHASE2_RANK_H
#define PHASE2_RANK_H

#include "phase2_read.h"

struct phase2_best {
    double score; /* larger is better, whatever the list */
    int32_t layer, latent;
};

/* The n best so far, best first. */
struct phase2_ranking {
    struct phase2_best *best; /* [most], the caller's */
    int most, n;
};

/* What a list orders by, from a latent's separation and t. */
double phase2_list_score(enum phase2_list list, double separation, double t);

/* Scores that are not above 0 (and NaN) are not ranked: such a latent does not speak for the list's class. */
void phase2_ranking_offer(struct phase2_ranking *r, double score, int32_t layer, int32_t latent);

#endif
