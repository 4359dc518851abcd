/* cpu_maxt.h - maxt_count of pva/backend.h on plain pointers. */
#ifndef CPU_MAXT_H
#define CPU_MAXT_H

#include "pva/backend.h"

struct cpu_maxt_args {
    const uint64_t *sets; /* [n_sets, n_words] */
    int64_t n_words;
    const int32_t *groups; /* [n_groups, PVA_MAXT_GROUP] */
    int64_t n_groups;
    const double *scores; /* [n_levels] */
    int64_t n_levels, n_items, n1;
    int studentised;
    const uint64_t *labels; /* [blocks, n_words, PVA_MAXT_BLOCK] */
    int64_t n;
    int64_t *n_at_least; /* [n_levels] */
    int n_threads;
};

/* PVA_IO when there is no memory. */
int cpu_maxt_count(const struct cpu_maxt_args *a, struct pva_error *err);

#endif
