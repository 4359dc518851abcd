/* phase1_read.h - what later phases and exports ask of a phase1.h5: labels, parts, activations. One process, no MPI. */
#ifndef PHASE1_READ_H
#define PHASE1_READ_H

#include "phase1_schema.h"

struct phase1_data {
    char path[4096];     /* of phase1.h5 */
    struct store *store; /* for fields not listed here; n_positions is a field of it where there are several positions */
    int64_t n;           /* slots */
    char (*task_ids)[PHASE1_TASK_ID];
    int32_t *index, *difficulty; /* [n] place in the problem file; cyclomatic complexity of the reference */
    uint8_t *part;               /* [n] enum of split.h */
    uint8_t *states;             /* [n] STORE_EMPTY, STORE_DONE, PHASE1_TOO_LONG, as they were when it was opened */
    uint8_t *verdicts;           /* [n] enum pva_verdict; meaningful where done */
    int64_t n_done;              /* slots that are not empty */
    int32_t *layers;             /* [n_layers] the captured ones, ascending */
    int64_t n_layers, d_model;
    int64_t n_positions;   /* captured positions a slot has room for */
    int has_positions;     /* the position is a dimension of the file */
    enum pva_dtype resid_type; /* F32 or BF16 */
    char model_sha256[65]; /* of the weights */
    char point[16], positions[24]; /* "resid_post", "last" */
};

/* run: a run directory, or the path of a phase1.h5. PVA_INPUT when there is none or it is something else. */
int phase1_open(const char *run, struct phase1_data *d, struct pva_error *err);
void phase1_close(struct phase1_data *d);

/* Refuses a run that is not finished, with what to type. */
int phase1_require_complete(const struct phase1_data *d, const char *run, struct pva_error *err);

/* The residual stream of one slot: all captured layers and positions. out: [n_positions,] n_layers, d_model. */
int phase1_resid(struct phase1_data *d, int64_t slot, float *out, struct pva_error *err);

/* One layer of chosen slots, out [n, d_model]. layer: of the model. Needs n_positions == 1. */
int phase1_resid_layer(struct phase1_data *d, int layer, const int64_t *slots, int64_t n, float *out, struct pva_error *err);

#endif
