/* spd.h - stochastic parameter decomposition of small networks, as spd-run does it.
 *
 * The weights of a trained network are written as sums of rank-one subcomponents, W ~ (V U)^T, and small gates learn which of
 * them each input needs. Method: Bushnaq, Braun, Sharkey, "Stochastic Parameter Decomposition", arXiv 2506.20790; names of
 * settings, losses, metrics and files follow its reference implementation (goodfire-ai/spd at adb5f849).
 *
 * Everything is deterministic: draws are Philox numbers of (seed, step, sample, module, component, use), sums over samples are
 * taken in a fixed number of shares joined in one order. A result does not depend on the number of threads or ranks, on a restart
 * or on the processor's instruction set.
 */
#ifndef PVA_SPD_H
#define PVA_SPD_H

#include "pva/backend.h"
#include "pva/error.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what can be decomposed: the registry ---- */

struct pva_spd_experiment {
    const char *key; /* "tms_5-2" */
    const char *title;
    double minutes;      /* expected on the reference's GPU */
    const char *expects; /* what a perfect result looks like, one line */
    const char *config;  /* the decomposition's settings, YAML */
};
const struct pva_spd_experiment *pva_spd_experiment_at(int i); /* NULL beyond the last */
/* PVA_USAGE with the list of keys when there is none of that name. */
int pva_spd_experiment_find(const char *key, const struct pva_spd_experiment **out, struct pva_error *err);

/* ---- settings ---- */

enum { PVA_SPD_MAX_PATTERNS = 16, PVA_SPD_MAX_MODULES = 16, PVA_SPD_MAX_METRICS = 16 };

struct pva_spd_pattern {
    char name[128]; /* fnmatch pattern over module paths */
    int value;      /* n_features or k */
};

/* Absent numbers (null in the YAML) are NAN, absent counts -1. `json` holds every key, defaults filled in. */
struct pva_spd_config {
    char *json; /* owned: the settings as one JSON object, for final_config.yaml and comparisons */
    char project[64];
    int64_t seed, components, n_mask_samples;
    int gate_vector; /* gate_type vector_mlp */
    int n_gate_hidden, gate_hidden[5];
    char sigmoid_type[24];
    int n_patterns;
    char patterns[PVA_SPD_MAX_PATTERNS][128];
    double faithfulness, recon, stochastic_recon, recon_layerwise, stochastic_recon_layerwise, importance_minimality, schatten,
        out_recon;
    double pnorm, p_anneal_start, p_anneal_final, p_anneal_end;
    double lr, lr_halflife, lr_warmup;
    char lr_schedule[16];
    int64_t steps, batch_size, accumulation, train_log_freq, eval_freq, eval_batch_size, slow_eval_freq, n_eval_steps, save_freq,
        examples_until_dead;
    int slow_eval_on_first_step;
    double alive_threshold;
    char target_path[1024]; /* "recipe:KEY" or a directory written by pva_spd_target_save */
    int residual;           /* task: 0 TMS, 1 residual MLP */
    double feature_probability;
    char data_type[32];
    int n_synced; /* feature -> group, -1: none; only when n_synced > 0 */
    int synced[512];
    /* metrics asked for, with their arguments */
    int want_l0, want_histograms, want_density, want_permuted, want_uv, want_identity, histogram_batches;
    int n_identity, n_dense;
    struct pva_spd_pattern identity[PVA_SPD_MAX_PATTERNS], dense[PVA_SPD_MAX_PATTERNS];
};

/* `text` is YAML or JSON; `name` is what messages call it. Unknown and repeated keys, wrong types and contradictions are
 * PVA_INPUT with the key and, where it is known, the line. Keys that older versions had are mapped or dropped; `warn` (may be
 * NULL) is told. */
int pva_spd_config_parse(const char *text, const char *name, void (*warn)(const char *line), struct pva_spd_config *out,
                         struct pva_error *err);
int pva_spd_config_read(const char *path, void (*warn)(const char *line), struct pva_spd_config *out, struct pva_error *err);
/* Sets one key ("seed", "task_config.feature_probability") to a JSON value, and checks everything again. */
int pva_spd_config_set(struct pva_spd_config *c, const char *key, const char *value, struct pva_error *err);
void pva_spd_config_free(struct pva_spd_config *c);
/* The settings as YAML; the caller frees it. NULL: out of memory. */
char *pva_spd_config_print(const struct pva_spd_config *c);

/* ---- sweeps: a YAML of `global:` and one section per experiment, leaves `{values: [...]}` ---- */

struct pva_spd_sweep_run {
    char *name, *experiment, *config, *parameters; /* config: YAML to parse; parameters: what the sweep set, JSON */
};
/* All runs of `keys` under the grid in `path`, experiments in the order given, the last parameter varying fastest. Owned by the
 * caller. */
int pva_spd_sweep_expand(const char *path, const char *const *keys, int n_keys, struct pva_spd_sweep_run **runs, int *n_runs,
                         struct pva_error *err);
void pva_spd_sweep_free(struct pva_spd_sweep_run **runs, int n_runs);

/* ---- target models ---- */

struct pva_spd_layer { /* one linear map: out = in * weight */
    char name[48];     /* "linear1", "layers.0.mlp_in" */
    int n_in, n_out;
    float *weight; /* [n_in, n_out] */
};

struct pva_spd_target {
    int residual; /* 0: y = relu(x L0 L1 ... + bias); 1: r = x E, r += relu(r in_l) out_l for each block, y = r R */
    int n_features, n_hidden, n_embed, n_blocks, tied;
    int n_layers; /* linear maps, in the order of the computation */
    struct pva_spd_layer layers[PVA_SPD_MAX_MODULES];
    float *bias;            /* [n_features], TMS */
    float *embed, *readout; /* [n_features, n_embed], [n_embed, n_features], residual MLP */
    float *label_coeffs;    /* [n_features], residual MLP */
    char recipe[32];        /* key it was trained by */
    int64_t seed;           /* that succeeded */
    double loss;            /* at the end of training */
};

/* Trains by the recipe of `key` on `threads` threads. TMS with two hidden dimensions falls into poor optima for most seeds:
 * further seeds are tried, up to 32, until every feature is represented (row norm above 0.5). `progress` (may be NULL) is called
 * now and then; a non-zero return stops with PVA_STOPPED. */
int pva_spd_target_train(const char *key, int64_t seed, int threads,
                         int (*progress)(void *user, int64_t step, int64_t steps, double loss), void *user,
                         struct pva_spd_target *out, struct pva_error *err);
/* directory/target.safetensors (names and orientation of torch.nn.Linear) and directory/target_config.yaml. */
int pva_spd_target_save(const struct pva_spd_target *t, const char *directory, struct pva_error *err);
int pva_spd_target_load(const char *directory, struct pva_spd_target *out, struct pva_error *err);
void pva_spd_target_free(struct pva_spd_target *t);
/* A target of that shape with small random weights: for tests. */
int pva_spd_target_random(int residual, int n_features, int n_hidden, int n_extra, int n_embed, int64_t seed,
                          struct pva_spd_target *out, struct pva_error *err);

/* ---- decomposing ---- */

/* Ranks as the trainer needs them: it hands in `n` numbers of its own and gets those of all ranks, in rank order. May be NULL:
 * one rank. */
struct pva_spd_ranks {
    int rank, size; /* size divides 8 */
    int (*gather)(void *user, const void *own, size_t bytes, void *all, struct pva_error *err);
    void *user;
};

struct pva_spd_settings {
    const char *directory; /* of the run; made if needed */
    const char *name;
    int threads;
    int resume;       /* 1: go on from the newest checkpoint where there is one */
    int no_shortcuts; /* compute zero rows and the residual stream densely */
    const struct pva_spd_ranks *ranks;
    /* An opened backend whose operations include a decomposition's (ops->spd); NULL: the processor. Where a share of the batch is longer than the processor's
     * chunks, and where exp and pow are the device's own, a result's last digits are another device's. */
    const struct pva_backend_ops *ops;
    struct pva_backend *be;
    int (*progress)(void *user, int64_t step, int64_t steps, double loss,
                    double error); /* error: identity CI error, NAN unknown. Non-zero: stop */
    void *user;
};

struct pva_spd_result {
    double faithfulness, stochastic_recon, stochastic_recon_layerwise, importance_minimality;
    double ci_error, ci_error_02; /* NAN where not defined */
    double mmcs, ml2r;            /* TMS: smallest over the two matrices that the features live in; NAN else */
    double l0[PVA_SPD_MAX_MODULES];
    int n_modules;
    int64_t step;
    double seconds; /* of this start */
};

/* Trains the decomposition and writes the run directory: final_config.yaml, target.safetensors, metrics.jsonl, events.*,
 * model_N.safetensors, checkpoint.safetensors, figures/. PVA_STOPPED when `progress` asked to stop: a checkpoint was written, the
 * same call with resume goes on and ends in the same bytes. Collective when ranks are given; only rank 0 writes. */
int pva_spd_decompose(const struct pva_spd_config *c, const struct pva_spd_target *t, const struct pva_spd_settings *s,
                      struct pva_spd_result *out, struct pva_error *err);

/* ---- measures ---- */

/* column[i] of the n x m matrix (n <= m) is assigned to row i so that the sum is largest (Hungarian method, n < 500), else
 * greedily row by row; the remaining columns follow. order: [m]. */
int pva_spd_permute_identity(int n, int m, const double *matrix, int greedy, int *order, struct pva_error *err);
void pva_spd_permute_dense(int n, int m, const double *matrix, int *order); /* by column sum, descending */
/* Distance of a causal-importance matrix (n inputs x m components) from the identity, and from k dense columns: number of entries
 * off by more than tol. */
int pva_spd_identity_error(int n, int m, const double *ci, double tol, int64_t *out, struct pva_error *err);
int64_t pva_spd_dense_error(int n, int m, const double *ci, int k, double tol);
/* Paper, Table 1. w: [n_features, d] one row per feature; v: [n_features, C]; u: [C, d]. For each feature the component with the
 * largest cosine of its contribution v[j][c] u[c] with w[j]: mean cosine, and mean ratio of lengths. */
void pva_spd_similarity(int n_features, int d, int n_components, const float *w, const float *v, const float *u, double *mmcs,
                        double *ml2r);

/* ---- TensorBoard event files: TFRecord with masked CRC-32C, scalar summaries ---- */

uint32_t pva_spd_crc32c(const void *data, size_t n);
struct pva_spd_events;
/* append: keeps what an earlier start wrote. */
int pva_spd_events_open(const char *path, int append, double wall_time, struct pva_spd_events **out, struct pva_error *err);
int pva_spd_events_scalar(struct pva_spd_events *e, double wall_time, int64_t step, const char *tag, float value,
                          struct pva_error *err);
int pva_spd_events_close(struct pva_spd_events **e, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
