/* phase2_plan.h - everything decided before phase 2 computes: problems, layers, autoencoders, memory. The same on every rank. */
#ifndef PHASE2_PLAN_H
#define PHASE2_PLAN_H

#include "par.h"
#include "phase1_read.h"
#include "phase2_schema.h"

#include "pva/firing.h"
#include "pva/options.h"

#include <jansson.h>
#include <stdio.h>

struct phase2_plan {
    const char *run;
    struct phase1_data phase1;
    int64_t *slots;                 /* [n_items] of phase1.h5: the selection split, then the validation split */
    uint8_t *correct;               /* [n_items] */
    int64_t n_items, n_selection, n_dropped; /* n_dropped: without a verdict */
    int64_t n[2], n_validation[2];  /* by class */
    struct phase2_layers layers;
    int64_t *bytes;                 /* [layers.n] of the autoencoder that an encoding reads */
    const char *alignment;
    char labels_sha256[65];

    double pile_threshold;
    int64_t n_permutations, seed, top;
    enum pva_firing_statistic statistic;

    size_t layer_memory, selection_memory, file_bytes; /* per rank, besides the mapped autoencoder; of both files */
};

/* Collective; ends with an agreement. */
int phase2_plan_make(struct phase2_plan *plan, const struct par *p, const struct pva_options *o, struct pva_error *err);
void phase2_plan_free(struct phase2_plan *plan);

/* backend, isa: of the device that encodes. */
void phase2_plan_identity(const struct phase2_plan *plan, const char *backend, const char *isa, struct phase2_identity *id);
json_t *phase2_plan_facts(const struct phase2_plan *plan); /* for manifest.json */
void phase2_plan_print(const struct phase2_plan *plan, const struct par *p, const char *device, FILE *out);

#endif
