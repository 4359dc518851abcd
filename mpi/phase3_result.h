/* phase3_result.h - how well the latents that phase 2 chose predict on problems it never saw. Rank 0's arithmetic, but for the probe. */
#ifndef PHASE3_RESULT_H
#define PHASE3_RESULT_H

#include "followup.h"
#include "phase2_read.h"

#include "pva/auroc.h"
#include "pva/cluster.h"
#include "pva/paired.h"
#include "pva/probe.h"
#include "pva/resample.h"
#include "pva/threshold.h"
#include "pva/trend.h"

/* A score per problem and what it is meant to predict. */
struct phase3_predictor {
    char name[64], list[32]; /* "L16-14439", "correct-t"; the probe: "probe at L15", "probe" */
    int layer;
    int64_t latent;          /* -1: the probe */
    int predicts_failure;
    double *scores;          /* [slots of phase 1]; higher means more of what is predicted */
};

/* One set of problems. Undefined figures are NaN. */
struct phase3_metrics {
    int64_t n, n_positive;
    int one_class;           /* only one class, or nothing: nothing can be ranked */
    struct pva_auroc auroc;
    struct pva_confusion confusion;
    double f1, precision, recall, mcc, balanced_accuracy;
    struct pva_baseline baseline;
};

struct phase3_at_temperature {
    double temperature;
    struct pva_bootstrap auroc; /* clustered by problem */
    int one_class;
};

struct phase3_score {
    struct pva_best_threshold tuning; /* the threshold, and what it reached where it was chosen */
    struct phase3_metrics on_tuning, validation, by_difficulty[PVA_N_DIFFICULTIES];
    struct pva_auroc_difference against_probe; /* the latent's AUROC less the probe's, same problems */
    struct phase3_at_temperature *temperatures;
};

enum { PHASE3_MOST_PREDICTORS = 401, PHASE3_MOST_SAMPLES = 1000 };

struct phase3_temperature {
    double temperature;
    int64_t n_problems, n_samples; /* samples per problem */
    int64_t passed;
    struct pva_cluster_mean pass_rate;
    double *pass_at; /* [n_samples] unbiased pass@k, k = 1 ..; mean over problems */
    struct pva_interval *pass_at_interval;
    unsigned char *outcomes; /* [n_problems, n_samples] 1: passed */
};

struct phase3_result {
    int n_predictors; /* the probe is the last one */
    struct phase3_predictor *predictors;
    struct phase3_score *scores;
    double probe_c, probe_cv; /* chosen regularisation, its mean AUROC over the folds */
    int probe_layer;
    double *probe_cv_by_layer; /* [n_layers of phase 1's capture] */
    int64_t n_tuning, n_validation, *tuning, *validation; /* slots of phase 1 */
    int n_temperatures;
    struct phase3_temperature *temperatures; /* ascending */
    struct pva_cochran_q cochran; /* first samples */
    struct pva_trend page;        /* pass fractions over rising temperature */
};

/* Rank-local: the candidates and their activations. top: of each list of phase 2; latent ("L:J", may be NULL): one more, with --sae. */
int phase3_predictors(struct phase3_result *r, const struct followup *f, struct pva_error *err);
/* Collective: the layers are shared among the ranks, the best by cross-validation on the selection split is fitted. Adds the probe to the predictors; a selection
 * split with one class, or too few problems for the folds, leaves it out and says so in the log. */
int phase3_probe(struct phase3_result *r, const struct followup *f, struct pva_error *err);
/* Rank-local: everything else, from temperatures[].outcomes. */
int phase3_evaluate(struct phase3_result *r, const struct followup *f, double level, int64_t replicates, struct pva_error *err);
void phase3_result_free(struct phase3_result *r);

struct phase3_settings {
    double level;
    int64_t replicates;
};
void phase3_report_print(const struct phase3_result *r, const struct phase3_settings *settings, FILE *out);
/* json: the summary is written there too; NULL: nowhere else. */
int phase3_report_write(const struct phase3_result *r, const struct followup *f, const struct phase3_settings *settings, FILE *json, struct pva_error *err);

#endif
