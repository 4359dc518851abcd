/* The registered experiments: every setting of the reference's configurations, but for one seed. A seed gives other draws here than there, and tms_40-10
 * depends on it: with 0 and 1 features are left without a component of their own, with 3 each has one (tests/bench/RESULTS.md). */
#include "pva/spd.h"

#include <stdio.h>
#include <string.h>

#define TMS(seed, c, modules, importance, p, identity, dense_plots, dense, target) \
    "wandb_project: spd\nseed: " seed "\nC: " c \
    "\nn_mask_samples: 1\ngate_type: mlp\ngate_hidden_dims: [16]\nsigmoid_type: leaky_hard\n" \
    "target_module_patterns: [" modules \
    "]\nfaithfulness_coeff: 1.0\nrecon_coeff: null\nstochastic_recon_coeff: 1.0\nrecon_layerwise_coeff: null\n" \
    "stochastic_recon_layerwise_coeff: 1.0\nimportance_minimality_coeff: " importance "\npnorm: " p \
    "\noutput_loss_type: mse\nbatch_size: 4096\n" \
    "eval_batch_size: 4096\nsteps: 40000\nlr: 1.0e-3\nlr_schedule: cosine\nlr_warmup_pct: 0.0\ntrain_log_freq: 100\neval_freq: " \
    "1000\nn_eval_steps: 100\n" \
    "slow_eval_freq: 5000\nsave_freq: null\nci_alive_threshold: 0.1\nn_examples_until_dead: 4096000\neval_metrics:\n" \
    "  - {classname: CIHistograms, extra_init_kwargs: {n_batches_accum: 5}}\n  - {classname: ComponentActivationDensity}\n" \
    "  - {classname: PermutedCIPlots, extra_init_kwargs: {identity_patterns: [linear1, linear2], dense_patterns: [" dense_plots \
    "]}}\n" \
    "  - {classname: UVPlots, extra_init_kwargs: {identity_patterns: [linear1, linear2], dense_patterns: [" dense_plots "]}}\n" \
    "  - {classname: IdentityCIError, extra_init_kwargs: {identity_ci: [{layer_pattern: linear1, n_features: " identity "}, " \
    "{layer_pattern: linear2, n_features: " identity "}], dense_ci: [" dense "]}}\n  - {classname: CI_L0}\n" \
    "pretrained_model_class: spd.experiments.tms.models.TMSModel\npretrained_model_path: recipe:" target "\n" \
    "task_config: {task_name: tms, feature_probability: 0.05, data_generation_type: at_least_zero_active}\n"

#define RESIDUAL(c, hidden, importance, lr, steps, dead, identity, dense, target) \
    "wandb_project: spd\nseed: 0\nC: " c "\nn_mask_samples: 1\ngate_type: mlp\ngate_hidden_dims: [" hidden \
    "]\nsigmoid_type: leaky_hard\n" \
    "target_module_patterns: [layers.*.mlp_in, layers.*.mlp_out]\nfaithfulness_coeff: 1.0\nout_recon_coeff: 0.0\nrecon_coeff: " \
    "null\nstochastic_recon_coeff: 1.0\n" \
    "recon_layerwise_coeff: null\nstochastic_recon_layerwise_coeff: 1.0\nimportance_minimality_coeff: " importance \
    "\npnorm: 2.0\noutput_loss_type: mse\n" \
    "batch_size: 2048\neval_batch_size: 2048\nsteps: " steps "\nlr: " lr \
    "\nlr_schedule: constant\nlr_warmup_pct: 0.0\ntrain_log_freq: 50\neval_freq: 500\n" \
    "n_eval_steps: 100\nslow_eval_freq: 5000\nsave_freq: null\nci_alive_threshold: 0.1\nn_examples_until_dead: " dead \
    "\neval_metrics:\n" \
    "  - {classname: CIHistograms, extra_init_kwargs: {n_batches_accum: 5}}\n  - {classname: ComponentActivationDensity}\n" \
    "  - {classname: PermutedCIPlots, extra_init_kwargs: {identity_patterns: [layers.*.mlp_in], dense_patterns: " \
    "[layers.*.mlp_out]}}\n" \
    "  - {classname: UVPlots, extra_init_kwargs: {identity_patterns: [layers.*.mlp_in], dense_patterns: [layers.*.mlp_out]}}\n" \
    "  - {classname: IdentityCIError, extra_init_kwargs: {identity_ci: [{layer_pattern: layers.*.mlp_in, n_features: " identity \
    "}], " \
    "dense_ci: [{layer_pattern: layers.*.mlp_out, k: " dense "}]}}\n  - {classname: CI_L0}\n" \
    "pretrained_model_class: spd.experiments.resid_mlp.models.ResidMLP\npretrained_model_path: recipe:" target "\n" \
    "task_config: {task_name: residual_mlp, feature_probability: 0.01, data_generation_type: at_least_zero_active}\n"

#define HIDDEN(k) "{layer_pattern: hidden_layers.0, k: " k "}"

static const struct pva_spd_experiment experiments[] = {
    {"tms_5-2", "Toy model of superposition, 5 features in 2 dimensions", 0.4,
     "CI error 0: 5 components in each of linear1 and linear2; MMCS 1, ML2R close to 1",
     TMS("0", "20", "linear1, linear2", "3.0e-3", "1.0", "5", "", "", "tms_5-2")},
    {"tms_5-2-id", "The same with an identity layer between", 0.6,
     "CI error 0: 5, 5 and, in the identity, 2 dense components; MMCS 1, ML2R close to 1",
     TMS("0", "20", "linear1, linear2, hidden_layers.0", "3.0e-3", "1.0", "5", "hidden_layers.0", HIDDEN("2"), "tms_5-2-id")},
    {"tms_40-10", "Toy model of superposition, 40 features in 10 dimensions", 15,
     "CI error 0: 40 components in each of linear1 and linear2 (not with every seed); MMCS 1, ML2R close to 1",
     TMS("3", "200", "linear1, linear2", "1.0e-4", "2.0", "40", "", "", "tms_40-10")},
    {"tms_40-10-id", "The same with an identity layer between", 22,
     "CI error 0: 40, 40 and, in the identity, 10 dense components; MMCS 1, ML2R close to 1",
     TMS("0", "200", "linear1, linear2, hidden_layers.0", "1.0e-4", "2.0", "40", "hidden_layers.0", HIDDEN("10"), "tms_40-10-id")},
    {"resid_mlp1", "Residual MLP of one block, 100 features, 50 neurons", 6,
     "CI error 0: 100 components in mlp_in, 50 dense ones in mlp_out",
     RESIDUAL("100", "16", "1.0e-5", "2.0e-3", "30000", "204800", "100", "50", "resid_mlp1")},
    {"resid_mlp2", "Residual MLP of two blocks, 100 features, 25 neurons each", 92,
     "100 components over both mlp_in, 25 dense ones in each mlp_out",
     RESIDUAL("400", "16", "1.0e-5", "1.0e-3", "50000", "1024000", "100", "25", "resid_mlp2")},
    {"resid_mlp3", "Residual MLP of three blocks, 102 features, 17 neurons each", 1030,
     "102 components over the three mlp_in, 17 dense ones in each mlp_out",
     RESIDUAL("500", "128", "5.0e-6", "1.0e-3", "100000", "1024000", "102", "17", "resid_mlp3")},
};
enum { N_EXPERIMENTS = sizeof experiments / sizeof *experiments };

const struct pva_spd_experiment *pva_spd_experiment_at(int i) { return i >= 0 && i < N_EXPERIMENTS ? &experiments[i] : NULL; }

int pva_spd_experiment_find(const char *key, const struct pva_spd_experiment **out, struct pva_error *err) {
    char list[300] = "";
    for (int i = 0; i < N_EXPERIMENTS; i++) {
        if (!strcmp(key, experiments[i].key)) {
            *out = &experiments[i];
            return PVA_OK;
        }
        strcat(strcat(list, i ? ", " : ""), experiments[i].key);
    }
    if (!strcmp(key, "ss_emb"))
        return pva_fail(err, PVA_USAGE, "ss_emb decomposes a language model, which this version cannot do; there are %s", list);
    return pva_fail(err, PVA_USAGE, "there is no experiment \"%s\"; there are %s", key, list);
}
