/* steer_summary.h - from outcomes to answers: rates of every arm, the choice on the tuning split, effects against controls. */
#ifndef STEER_SUMMARY_H
#define STEER_SUMMARY_H

#include "steer_schema.h"

#include "pva/steering.h"

struct steer_arm_result {
    struct pva_steering_counts counts;    /* problems behind a closed gate count as unchanged */
    struct pva_interval correction, corruption, net; /* Clopper-Pearson of the two rates; Newcombe of the difference in pass rate */
    double mcnemar, mid_p, holm;          /* two-sided, exact and mid-p; Holm over the arms that push (tuning: the grid; validation: the treated ones) */
};

struct steer_effects {
    struct pva_effect all, random, matched; /* against which control arms */
    double holm;                            /* of all.p_binomial, over the stage's effects */
};

struct steer_side_result {
    int treated, zero, flipped; /* arms, -1: none */
    struct steer_effects correction, corruption;
    double mde_mcnemar; /* the least rate of gained problems that McNemar's test finds with power 0.8 at alpha, at the observed rate of lost ones */
};

struct steer_result {
    int64_t n, n_open;                  /* problems judged; of these steered at all (gate) */
    int64_t n_failing, n_passing;       /* by phase 1 */
    struct steer_arm_result *arms;      /* [n_arms] of the stage */
    struct steer_side_result sides[STEER_N_SIDES];
};

/* Rates of all arms. */
int steer_result_make(const struct steer_plan *plan, const struct steer_stage *stage, const struct followup *f, const struct steer_outcomes *o, double level,
                      struct steer_result *out, struct pva_error *err);
/* Also the sides' effects against their controls (the validation stage). */
int steer_result_effects(const struct steer_stage *stage, double level, double alpha, struct steer_result *r, struct pva_error *err);
void steer_result_free(struct steer_result *r);

/* The chosen direction of a side at one coefficient, on the tuning split, against the dose stage's controls at the same coefficient. */
struct steer_dose_point {
    int arm;                                  /* of the tuning stage */
    int n_controls;                           /* 0: no dose stage, or no push */
    struct pva_effect correction, corruption;
    double degenerate, degenerate_least, degenerate_most; /* fractions of the problems: its own, of the controls (NaN: none) */
};

/* In the tuning stage's order. *out is malloc'ed. */
int steer_dose_points(const struct steer_stage stages[STEER_N_STAGES], const struct steer_result results[STEER_N_STAGES], double level, double alpha,
                      struct steer_dose_point **out, int *n, struct pva_error *err);

/* The best arm of each side on the tuning split, NULL where there is none. correct: the highest correction rate; incorrect: the highest mean of corruption
 * rate and similarity over passing problems (a push that only destroys the text does not win); given: the most changed verdicts. Then
 * the fewest corrupted, the smaller |coefficient|, the earlier arm. PVA_INPUT when the split has no problem that a side could change. */
int steer_choose(const struct steer_stage *stage, const struct steer_result *r, const struct steer_arm *chosen[STEER_N_SIDES], struct pva_error *err);

#endif
