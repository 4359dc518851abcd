/* phase2_schema.h - what phase2.h5 and phase2-selection.h5 hold. One slot per layer in both.
 *
 * phase2.h5 is what the encoder says: sums, tests and firing sets of every latent, a layer at a time, the same bytes whatever the ranks and the restarts.
 * phase2-selection.h5 is what follows from all layers together (general text, family-wise p, q, lists): seconds of work, made anew whenever a setting of it
 * or phase2.h5 changes. */
#ifndef PHASE2_SCHEMA_H
#define PHASE2_SCHEMA_H

#include "phase2_read.h"
#include "store.h"

enum { PHASE2_CORRECT, PHASE2_INCORRECT, PHASE2_CLASSES };
enum { PHASE2_PATH = 512, PHASE2_SHA256 = 64, PHASE2_N_THRESHOLDS = 5 };

enum phase2_field {
    PHASE2_ACTIVE_CORRECT,
    PHASE2_ACTIVE_INCORRECT,
    PHASE2_SUM_CORRECT,
    PHASE2_SUM_INCORRECT,
    PHASE2_SUM_SQ_CORRECT,
    PHASE2_SUM_SQ_INCORRECT,
    PHASE2_SEPARATION,
    PHASE2_SEPARATION_LOW,
    PHASE2_SEPARATION_HIGH,
    PHASE2_T,
    PHASE2_DF,
    PHASE2_P,
    PHASE2_FISHER_P,
    PHASE2_MEAN_ACTIVE,
    PHASE2_VALIDATION_CORRECT,
    PHASE2_VALIDATION_INCORRECT,
    PHASE2_VALIDATION_SEPARATION,
    PHASE2_FIRES,
    PHASE2_L0,
    PHASE2_FVU,
    PHASE2_N_NEAR,
    PHASE2_MEAN_NORM,
    PHASE2_N_FIELDS
};

enum selection_field { SELECTION_PILE_RATE, SELECTION_PASSES, SELECTION_FAMILYWISE_P, SELECTION_Q, SELECTION_N_FIELDS };

/* What decides the scores; all of it is compared when a run is resumed. */
struct phase2_identity {
    char model_sha256[65], labels_sha256[65]; /* labels: task ids, parts and verdicts of the problems that were used */
    const char *alignment, *point, *positions, *backend;
    int64_t n[2], n_validation[2]; /* problems by class */
    const char *isa;               /* recorded only */
};

/* The layers and problems, in slot order. Arrays are the caller's and live until store_open has returned. */
struct phase2_layers {
    int64_t n, n_latents, n_items;   /* n_items: problems of the selection split, in the order of the firing sets */
    int32_t *layer, *source;         /* [n] of the autoencoder; captured layer that it reads */
    double *label_l0;                /* [n] */
    char (*sae_path)[PHASE2_PATH];   /* [n] */
    char (*sae_sha256)[PHASE2_SHA256]; /* [n] */
    int32_t *item_slot;              /* [n_items] slot in phase1.h5 */
    uint8_t *item_correct;           /* [n_items] */
};

struct phase2_schema {
    struct store_schema store;
    struct store_field fields[PHASE2_N_FIELDS];
    struct store_coordinate coordinates[8];
    struct store_attribute attributes[16];
};
void phase2_schema_fill(struct phase2_schema *s, const struct phase2_identity *id, const struct phase2_layers *layers);
void phase2_schema_any(struct phase2_schema *s); /* for readers: the sizes are whatever the file has */

/* What decides the selection. */
struct selection_identity {
    double pile_threshold;
    char pile_sha256[65]; /* of the rates; "none": no pile phase */
    int64_t n_documents, n_permutations, seed;
    const char *statistic;
    int64_t n_passing, n_hypotheses; /* recorded only */
};

struct selection_lists {
    int64_t top;
    int32_t *layer, *latent;    /* [PHASE2_N_LISTS, top], best first; -1: the list ends */
    double thresholds[PHASE2_N_THRESHOLDS];
    int64_t n_passing[PHASE2_N_THRESHOLDS];
    int32_t best_layer[PHASE2_N_THRESHOLDS][PHASE2_N_LISTS], best_latent[PHASE2_N_THRESHOLDS][PHASE2_N_LISTS]; /* what the lists would begin with */
};

struct selection_schema {
    struct store_schema store;
    struct store_field fields[SELECTION_N_FIELDS];
    struct store_coordinate coordinates[8];
    struct store_attribute attributes[10];
};
void selection_schema_fill(struct selection_schema *s, const struct selection_identity *id, const struct phase2_layers *layers, const struct selection_lists *lists);
void selection_schema_any(struct selection_schema *s);

#endif
