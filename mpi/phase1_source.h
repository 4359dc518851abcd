/* phase1_source.h - a phase 1 that is on disk already: for commands that look at its records again (regrade, replay). */
#ifndef PHASE1_SOURCE_H
#define PHASE1_SOURCE_H

#include "phase1_read.h"

#include "pva/options.h"

struct phase1_source {
    struct phase1_data data;
    int64_t n_empty;       /* slots not computed yet */
    struct phase1_problems problems; /* the data's arrays */
    struct phase1_identity identity; /* points into `texts` */
    char texts[7][80];     /* operand, extraction, positions, backend, isa, python, the resid point */
    int n_layers;          /* of the model as far as captured: the last captured one plus 1 */
    unsigned char *layers; /* [n_layers] marks */
    char regraded_from[3200]; /* "" for what phase 1 itself wrote */
};

/* One process, no MPI. PVA_INPUT when there is no run, or no phase 1 in it. */
int phase1_source_open(const char *run_directory, struct phase1_source *s, struct pva_error *err);
void phase1_source_close(struct phase1_source *s);

/* The slot of a task: by its id as stored, or by its number ("Mbpp/17", "17"). -1: none. */
int64_t phase1_source_find(const struct phase1_source *s, const char *task_id);

/* A schema of the same shape under another identity, for `problems` of it. */
void phase1_source_schema(const struct phase1_source *s, const struct phase1_identity *identity, const struct phase1_problems *problems,
                          struct phase1_schema *schema);

/* The settings the run was made with (config-phase1.yaml). The caller frees. */
int phase1_source_options(const char *run_directory, struct pva_options **out, struct pva_error *err);

#endif
