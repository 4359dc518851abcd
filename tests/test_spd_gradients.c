/* The hand-written backward pass against central differences, in double (the sources of src/spd compiled with SPD_DOUBLE), with
 * the random draws frozen: they are functions of (seed, step, sample, ...), so the loss is one. All losses at once, then the
 * parts that differ; tied weights; and both shortcuts against the dense path. The lower leaky sigmoid's slope is deliberately not
 * its derivative, so networks are checked with sigmoids whose slope is, and that one by itself. */
#include "check.h"
#include "spd/engine.h"

static struct pva_spd_config config(const char *extra, int residual, int C) {
    char text[4000];
    struct pva_spd_config c;
    struct pva_error err = {0};
    snprintf(text, sizeof text,
             "{C: %d, %s%s pnorm: 1.7, output_loss_type: mse, lr: 0.001, steps: 10, batch_size: 40, train_log_freq: 1, "
             "eval_freq: 1, eval_batch_size: 8,"
             "slow_eval_freq: 1, n_eval_steps: 1, n_examples_until_dead: 1, pretrained_model_class: test, "
             "importance_minimality_coeff: 0.02,"
             "target_module_patterns: [%s], task_config: {task_name: %s, feature_probability: 0.3}, ci_alive_threshold: 0.1, %s}",
             C, strstr(extra, "gate_type") ? "" : "gate_type: mlp,",
             strstr(extra, "gate_hidden_dims") ? "" : "gate_hidden_dims: [3],",
             residual ? "layers.*.mlp_in, layers.*.mlp_out" : "linear1, linear2, 'hidden_layers.*'",
             residual ? "residual_mlp" : "tms", extra);
    CHECK_OK(pva_spd_config_parse(text, "test", NULL, &c, &err), err);
    CHECK_FATAL(!err.code);
    return c;
}

static double total(struct spd_engine *e, const struct pva_spd_config *c, int gradients) {
    struct pva_error err = {0};
    struct spd_sums sums = {0};
    struct spd_pass p = {.seed = 5,
                         .step = 3,
                         .stream = SPD_DRAW_TRAIN,
                         .batch = (int)c->batch_size,
                         .p = c->pnorm,
                         .gradients = gradients,
                         .report = 1};
    CHECK_OK(spd_engine_pass(e, &p, NULL, &sums, &err), err);
    const double coeffs[SPD_N_TERMS] = {c->recon, c->stochastic_recon, c->recon_layerwise, c->stochastic_recon_layerwise,
                                        c->out_recon};
    double loss = (isnan(c->faithfulness) ? 0 : c->faithfulness) * spd_engine_weights_loss(e, gradients);
    for (int i = 0; i < SPD_N_TERMS; i++) loss += isnan(coeffs[i]) ? 0 : coeffs[i] * sums.terms[i];
    for (int i = 0; i < e->n_modules; i++) loss += c->importance_minimality * sums.importance[i];
    return loss + (isnan(c->schatten) ? 0 : c->schatten * sums.schatten);
}

/* Gates whose raw values lie well inside (0, 1), where the hard sigmoids are the identity, or anywhere for the smooth one. */
static void perturb(struct spd_engine *e, int inside) {
    double *d = malloc(e->n_params * sizeof *d);
    spd_draw_normal(77, 0, e->n_params, d);
    for (size_t i = 0; i < e->n_params; i++) e->params[i] += 0.1 * d[i];
    for (int m = 0; m < e->n_modules; m++) {
        const struct spd_gate_shape *g = &e->modules[m].shape;
        for (int c = 0; inside && c < e->C; c++) {
            double *p = e->params + e->modules[m].gate + (size_t)c * (size_t)g->n_params;
            for (int i = 0; i < g->n_params - 1; i++) p[i] *= 0.3;
            p[g->n_params - 1] = 0.5;
        }
    }
    free(d);
}

static void check_gradients(const char *name, const char *extra, int residual, int blocks, int inside, int shortcuts) {
    struct pva_error err = {0};
    struct pva_spd_target t;
    struct spd_engine *e;
    struct pva_spd_config c = config(extra, residual, 6);
    CHECK_OK(pva_spd_target_random(residual, residual ? 7 : 5, 3, blocks, 9, 11, &t, &err), err);
    CHECK_OK(spd_engine_create(&c, &t, 1, shortcuts, &e, &err), err);
    CHECK_FATAL(!err.code);
    spd_engine_initialise(e, 3);
    perturb(e, inside);
    double loss = total(e, &c, 1), worst = 0, scale = 0;
    double *grad = malloc(e->n_params * sizeof *grad);
    memcpy(grad, e->on.grads, e->n_params * sizeof *grad);
    CHECK(isfinite(loss) && loss > 0);
    size_t n_zero = 0, stride = e->n_params > 400 ? 3 : 1;
    for (size_t i = 0; i < e->n_params; i += stride) {
        const double h = 1e-5, kept = e->params[i];
        e->params[i] = kept + h;
        double up = total(e, &c, 0);
        e->params[i] = kept - h;
        double down = total(e, &c, 0);
        e->params[i] = kept;
        double numeric = (up - down) / (2 * h), off = fabs(numeric - grad[i]);
        if (!(off <= worst)) worst = off;
        if (fabs(grad[i]) > scale) scale = fabs(grad[i]);
        n_zero += grad[i] == 0;
    }
    /* Central differences are off by h^2 f''' / 6 and by the loss's rounding over h: both near 1e-10 here. */
    if (!(worst <= 1e-8 * (1 + scale))) fprintf(stderr, "%s: worst difference %g, largest gradient %g\n", name, worst, scale);
    CHECK(worst <= 1e-8 * (1 + scale));
    CHECK(scale > 1e-4);
    CHECK(n_zero < e->n_params / stride / 3);
    free(grad);
    spd_engine_free(&e);
    pva_spd_target_free(&t);
    pva_spd_config_free(&c);
}

#define ALL \
    "faithfulness_coeff: 0.7, recon_coeff: 0.5, stochastic_recon_coeff: 1.1, recon_layerwise_coeff: 0.3, " \
    "stochastic_recon_layerwise_coeff: 0.9, schatten_coeff: 0.05, " \
    "out_recon_coeff: 0.4, n_mask_samples: 2"

/* The same gradients and sums, whether zero rows and the stream's width are computed or not. */
static void check_shortcuts(const char *extra, int residual, int blocks) {
    struct pva_error err = {0};
    struct pva_spd_target t;
    struct spd_engine *e[2];
    struct spd_sums sums[2];
    struct pva_spd_config c = config(extra, residual, 6);
    CHECK_OK(pva_spd_target_random(residual, residual ? 7 : 5, 3, blocks, 9, 11, &t, &err), err);
    memset(sums, 0, sizeof sums);
    double loss[2];
    for (int k = 0; k < 2; k++) {
        CHECK_OK(spd_engine_create(&c, &t, 1, k, &e[k], &err), err);
        CHECK_FATAL(!err.code);
        spd_engine_initialise(e[k], 3);
        perturb(e[k], 0);
        sums[k].active = calloc((size_t)(e[k]->n_modules * e[k]->C), sizeof *sums[k].active);
        struct spd_pass p = {.seed = 5,
                             .step = 3,
                             .stream = SPD_DRAW_TRAIN,
                             .batch = (int)c.batch_size,
                             .p = c.pnorm,
                             .gradients = 1,
                             .report = 1};
        CHECK_OK(spd_engine_pass(e[k], &p, NULL, &sums[k], &err), err);
        loss[k] = total(e[k], &c, 1);
    }
    CHECK_NEAR(loss[1], loss[0], 1e-13 * fabs(loss[0]));
    double worst = 0;
    for (size_t i = 0; i < e[0]->n_params; i++) worst = fmax(worst, fabs(e[0]->on.grads[i] - e[1]->on.grads[i]));
    CHECK(worst <= 1e-14);
    for (int i = 0; i < SPD_N_TERMS; i++) CHECK_NEAR(sums[1].terms[i], sums[0].terms[i], 1e-14);
    for (int i = 0; i < e[0]->n_modules * e[0]->C; i++) CHECK(sums[0].active[i] == sums[1].active[i]);
    for (int k = 0; k < 2; k++) {
        free(sums[k].active);
        spd_engine_free(&e[k]);
    }
    pva_spd_target_free(&t);
    pva_spd_config_free(&c);
}

static void test_sigmoids(void) {
    double x[32], y[32], one[32], slope[32], up[32], down[32];
    const struct spd_kernels *k = spd_kernels_best();
    for (int i = 0; i < 32; i++) x[i] = -1.03 + 0.1 * i, one[i] = 1;
    for (int type = SPD_NORMAL; type <= SPD_SWISH_HARD; type++) {
        double a[32], b[32];
        memset(slope, 0, sizeof slope);
        k->sigmoid(32, (enum spd_sigmoid)type, x, y);
        k->sigmoid_backward(32, (enum spd_sigmoid)type, x, one, slope);
        for (int i = 0; i < 32; i++) a[i] = x[i] + 1e-6, b[i] = x[i] - 1e-6;
        k->sigmoid(32, (enum spd_sigmoid)type, a, up);
        k->sigmoid(32, (enum spd_sigmoid)type, b, down);
        for (int i = 0; i < 32; i++) {
            double numeric = (up[i] - down[i]) / 2e-6;
            if (type == SPD_LOWER_LEAKY_HARD) {
                CHECK_NEAR(y[i], x[i] < 0 ? 0 : x[i] > 1 ? 1 : x[i], 0); /* no leak forwards */
                CHECK_NEAR(slope[i], x[i] <= 0 ? 0.01 : x[i] > 1 ? 0 : 1, 0);
            } else {
                CHECK_NEAR(slope[i], numeric, 1e-8);
            }
        }
    }
    /* 1/2 + [u(z-1/2) - s(z)] + [s(z+1/2) - u(z)] at x = 1/2: z = 0, by hand u(-1/2) = -1/2 sigmoid(5), s(1/2) = 1/2 sigmoid(5)
     */
    double half = 0.5, value[16] = {0}, in[16];
    for (int i = 0; i < 16; i++) in[i] = half;
    k->sigmoid(16, SPD_SWISH_HARD, in, value);
    CHECK_NEAR(value[0], 0.5, 1e-15);
}

int main(void) {
    check_gradients("tms, smooth", ALL ", sigmoid_type: normal", 0, 1, 0, 1);
    check_gradients("tms, dense", ALL ", sigmoid_type: normal", 0, 1, 0, 0);
    check_gradients("tms, leaky hard inside", ALL ", sigmoid_type: leaky_hard", 0, 1, 1, 1);
    check_gradients("tms, swish", ALL ", sigmoid_type: swish_hard", 0, 1, 1, 1);
    check_gradients("tms, two hidden layers in the gates", ALL ", sigmoid_type: normal, gate_hidden_dims: [3, 4]", 0, 1, 0, 1);
    check_gradients("tms, vector gates", ALL ", sigmoid_type: normal, gate_type: vector_mlp", 0, 1, 0, 1);
    check_gradients("residual, one block", ALL ", sigmoid_type: normal", 1, 1, 0, 1);
    check_gradients("residual, three blocks",
                    "stochastic_recon_coeff: 1.1, stochastic_recon_layerwise_coeff: 0.9, sigmoid_type: normal", 1, 3, 0, 1);
    check_gradients("residual, two blocks, all losses", ALL ", sigmoid_type: normal", 1, 2, 0, 1);
    check_gradients("residual, dense", ALL ", sigmoid_type: normal", 1, 2, 0, 0);
    check_gradients("residual, vector gates", ALL ", sigmoid_type: normal, gate_type: vector_mlp", 1, 2, 0, 1);
    check_shortcuts(ALL ", sigmoid_type: leaky_hard", 0, 1);
    check_shortcuts(ALL ", sigmoid_type: leaky_hard", 1, 3);
    check_shortcuts(ALL ", sigmoid_type: leaky_hard, gate_hidden_dims: [4, 2]", 1, 1);
    test_sigmoids();
    return check_report("test_spd_gradients");
}
