/* steer_plan.h - which directions are pushed how far on which problems. The same on every rank.
 *
 * Three stages. Tuning: on the tuning split every candidate direction meets every coefficient of the grid; the best of each side is chosen. Validation:
 * on the validation split the chosen ones are repeated among their controls. Dose: on the tuning split again, a few of the same controls meet every
 * coefficient, so that the dose-response of the chosen direction has something to stand beside. An arm is one direction with one coefficient; a stage is a
 * table of problems x arms.
 */
#ifndef STEER_PLAN_H
#define STEER_PLAN_H

#include "followup.h"
#include "phase2_read.h"

#include "pva/direction.h"

/* What a direction is meant to do. */
enum steer_side {
    STEER_CORRECT,   /* fires more before right programs: pushing along it should correct */
    STEER_INCORRECT, /* fires more before wrong ones: pushing along it should corrupt */
    STEER_GIVEN,     /* the user's own */
    STEER_N_SIDES
};
const char *steer_side_name(int side); /* "correct", "incorrect", "given" */

enum steer_kind { STEER_TREATED, STEER_ZERO, STEER_FLIPPED, STEER_RANDOM, STEER_MATCHED, STEER_N_KINDS };
const char *steer_kind_name(int kind); /* "treated", "zero", "flipped", "random", "matched" */

enum steer_mode { STEER_ADD, STEER_ABLATE, STEER_GATED };

struct steer_candidate {
    int side;
    struct pva_direction direction;
    double scale;       /* what one unit of the coefficient is */
    double separation;  /* of phase 2; NaN: not a latent, or no phase 2 */
    double firing_rate; /* on the selection split; NaN likewise */
};

struct steer_arm {
    int side, kind;
    int candidate;           /* that it tries, or is a control of */
    int layer;
    int64_t number;          /* latent, number of the random direction, -1 */
    double coefficient, raw; /* in units; times the scale: what is added along the unit vector */
    int intervention, row;   /* in the stage's list; row of its directions */
    char name[64];
};

/* The unit vectors of one layer and action, as the generator takes them. */
struct steer_bank {
    int layer;
    enum pva_hook_action action;
    int64_t n;
    float *rows; /* [n, d_model] */
};

enum { STEER_TUNING, STEER_VALIDATION, STEER_DOSE, STEER_N_STAGES };

struct steer_stage {
    const char *name; /* "steer-tuning", "steer", "steer-dose" */
    int part;
    int64_t n_problems, n_items; /* items = problems x arms; item = place of the problem x n_arms + arm */
    int64_t *problems;           /* [n_problems] slots of phase 1 */
    int64_t *costs;              /* [n_items] */
    struct steer_arm *arms;
    int n_arms, arm_room;
    struct steer_bank *banks; /* one intervention each */
    struct pva_intervention *interventions;
    int n_banks;
    char directions_sha256[65];
};

struct steer_plan {
    enum steer_mode mode;
    enum pva_positions positions;
    enum pva_coefficient_units units;
    enum pva_point point;
    int failing_only, passing_only; /* by phase 1's verdict */
    int64_t limit;
    int n_controls, n_dose_controls; /* random directions, and matched latents: validation; the first of them: dose */
    double *grid; /* [n_grid] */
    int n_grid;
    struct steer_candidate *candidates;
    int n_candidates;
    struct phase2 *phase2; /* NULL: not there, and not needed */
    char sae_fingerprints[65]; /* SHA-256 over those of the autoencoders used; "" */
    const char *alignment;
    /* gated: steer a problem only where the predictor's activation at the prompt's last token is above the threshold */
    int gate_layer;
    int64_t gate_latent;
    double gate_threshold, gate_f1;
    unsigned char *open; /* [problems of phase 1]; NULL: all */
};

/* Rank-local. Reads the options, finds candidates and scales. */
int steer_plan_make(struct steer_plan *plan, const struct followup *f, struct pva_error *err);
void steer_plan_free(struct steer_plan *plan);

/* Opens the autoencoder of a layer: the one phase 2 used, else below --sae. */
int steer_open_sae(const struct steer_plan *plan, const struct followup *f, int layer, struct pva_sae **sae, struct pva_error *err);
/* Of a latent over the selection split, from the rates of its two classes. */
double steer_firing_rate(const struct followup *f, const struct phase2_latent *l);

/* Whether there is a dose stage: adding, at more than one coefficient, with controls asked for. */
int steer_plan_has_dose(const struct steer_plan *plan);

/* The stages. chosen: an arm of the tuning stage per side, NULL for a side that is not tried. */
int steer_stage_tuning(const struct steer_plan *plan, const struct followup *f, struct steer_stage *stage, struct pva_error *err);
int steer_stage_validation(const struct steer_plan *plan, const struct followup *f, const struct steer_arm *const chosen[STEER_N_SIDES],
                           struct steer_stage *stage, struct pva_error *err);
int steer_stage_dose(const struct steer_plan *plan, const struct followup *f, const struct steer_arm *const chosen[STEER_N_SIDES], struct steer_stage *stage,
                     struct pva_error *err);
void steer_stage_free(struct steer_stage *stage);

void steer_plan_print(const struct steer_plan *plan, const struct followup *f, const struct steer_stage *tuning, FILE *out);

#endif
