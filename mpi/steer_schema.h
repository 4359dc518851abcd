/* steer_schema.h - what steer-tuning.h5 and steer.h5 hold: one slot per problem and arm, slot = place of the problem x arms + arm. */
#ifndef STEER_SCHEMA_H
#define STEER_SCHEMA_H

#include "record.h"
#include "steer_plan.h"

enum { STEER_SIMILARITY = RECORD_N_FIELDS, STEER_N_FIELDS };
enum { STEER_MOST_ATTRIBUTES = 32, STEER_N_COORDINATES = 10, STEER_NAME = 64 };

/* Storage behind a schema; the schema points into it. */
struct steer_schema {
    struct store_schema store;
    struct store_field fields[STEER_N_FIELDS];
    struct store_coordinate coordinates[STEER_N_COORDINATES];
    struct store_attribute attributes[STEER_MOST_ATTRIBUTES];
    char (*task_ids)[PHASE1_TASK_ID]; /* [problems] */
    int32_t *slot_of, *item_problem, *item_arm;
    uint8_t *side, *kind;
    int32_t *layer;
    int64_t *number;
    double *coefficient, *raw;
    char (*names)[STEER_NAME]; /* [arms] */
    char name[32], source[32];
};

/* Free with steer_schema_free, also after a failure. */
int steer_schema_fill(struct steer_schema *s, const struct steer_plan *plan, const struct steer_stage *stage, const struct followup *f,
                      struct pva_error *err);
void steer_schema_free(struct steer_schema *s);

/* What became of a stage's items, [problems x arms]. */
struct steer_outcomes {
    uint8_t *states, *verdicts, *degenerate; /* [n_items] */
    double *similarity;                      /* [n_items] */
};
int steer_outcomes_read(struct store *s, struct steer_outcomes *out, struct pva_error *err);
void steer_outcomes_free(struct steer_outcomes *out);

#endif
