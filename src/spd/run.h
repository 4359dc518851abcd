/* run.h - a decomposition on its way: what training, evaluation and checkpoints share. */
#ifndef SPD_RUN_H
#define SPD_RUN_H

#include "engine.h"

#include <jansson.h>
#include <stdio.h>

struct spd_run {
    const struct pva_spd_config *config;
    const struct pva_spd_target *target;
    const struct pva_spd_settings *settings;
    struct spd_engine *engine;
    int writes;          /* rank 0 */
    double *since_fired; /* [n_modules][C]: samples since a component last passed the threshold */
    double *active;      /* [n_modules][C], scratch */
    FILE *metrics;       /* metrics.jsonl */
    struct pva_spd_events *events;
    double ci_error, ci_error_02; /* of the newest slow evaluation */
};

const char *spd_run_path(const struct spd_run *r, const char *name, char buffer[4096]);
/* One object per line of metrics.jsonl, and its numbers to the event file under prefix + key. Takes the object. */
int spd_run_log(struct spd_run *r, int64_t step, const char *prefix, json_t *values, struct pva_error *err);

/* checkpoint.safetensors: everything that the next step depends on, and how long metrics.jsonl and the event file were. */
int spd_checkpoint_write(struct spd_run *r, int64_t next_step, struct pva_error *err);
/* *next_step: 0 when there is none. Cuts the logs back to that moment. A checkpoint of other settings is PVA_REFUSED. */
int spd_checkpoint_read(struct spd_run *r, int64_t *next_step, struct pva_error *err);
/* model_STEP.safetensors: V, U and gates under the reference's names. */
int spd_model_write(const struct spd_run *r, int64_t step, struct pva_error *err);

/* The metrics asked for. slow: also those that draw figures. Collective. */
int spd_evaluate(struct spd_run *r, int64_t step, int slow, struct pva_error *err);
/* Causal importances of one-hot inputs of height 0.75, [n_features][C] per module; the caller frees lower[m] and upper[m]. */
int spd_one_hot(struct spd_run *r, double *lower[], double *upper[], struct pva_error *err);
/* Sum over modules; NAN where no pattern names one. values (may be NULL) gets an entry per module. */
int spd_ci_error(struct spd_run *r, double *const lower[], double tol, json_t *values, double *out, struct pva_error *err);

#endif
