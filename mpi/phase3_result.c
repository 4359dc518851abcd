#include "phase3_result.h"
#include "scores.h"

#include "pva/log.h"
#include "pva/rates.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int out_of_memory(struct pva_error *err) { return pva_fail(err, PVA_IO, "out of memory"); }

/* ---- predictors ---- */

static struct phase3_predictor *add_predictor(struct phase3_result *r, int64_t n, struct pva_error *err) {
    struct phase3_predictor *more = realloc(r->predictors, (size_t)(r->n_predictors + 1) * sizeof *more);
    double *scores = calloc((size_t)n + 1, sizeof *scores);
    if (more) r->predictors = more;
    if (!more || !scores) {
        free(scores);
        out_of_memory(err);
        return NULL;
    }
    more[r->n_predictors] = (struct phase3_predictor){.latent = -1, .scores = scores};
    return &more[r->n_predictors++];
}

static int activations(struct phase3_predictor *p, const struct followup *f, const char *sae_path, const char *alignment, struct pva_error *err) {
    int64_t n = f->phase1.n, *slots = malloc((size_t)(n + 1) * sizeof *slots);
    if (!slots) return out_of_memory(err);
    for (int64_t i = 0; i < n; i++) slots[i] = i;
    scores_latents(f, sae_path, alignment, p->layer, &p->latent, 1, slots, n, p->scores, err);
    free(slots);
    return err->code;
}

static int is_listed(const struct phase3_result *r, int layer, int64_t latent, int predicts_failure) {
    for (int i = 0; i < r->n_predictors; i++)
        if (r->predictors[i].layer == layer && r->predictors[i].latent == latent && r->predictors[i].predicts_failure == predicts_failure) return 1;
    return 0;
}

static int add_listed(struct phase3_result *r, const struct followup *f, struct phase2 *phase2, struct pva_error *err) {
    static const enum phase2_list order[] = {PHASE2_CORRECT_T, PHASE2_INCORRECT_T, PHASE2_CORRECT_SEPARATION, PHASE2_INCORRECT_SEPARATION};
    struct phase2_latent top[100];
    int most = (int)pva_options_int(f->options, "top");
    for (int l = 0; l < PHASE2_N_LISTS; l++) {
        int found = 0, fails = order[l] == PHASE2_INCORRECT_T || order[l] == PHASE2_INCORRECT_SEPARATION;
        if (phase2_top(phase2, order[l], most, top, &found, err)) return err->code;
        for (int i = 0; i < found; i++) {
            if (is_listed(r, top[i].layer, top[i].latent, fails)) continue;
            struct phase3_predictor *p = add_predictor(r, f->phase1.n, err);
            if (!p) return err->code;
            p->layer = top[i].layer, p->latent = top[i].latent, p->predicts_failure = fails;
            snprintf(p->name, sizeof p->name, "L%d-%lld", p->layer, (long long)p->latent);
            snprintf(p->list, sizeof p->list, "%s", phase2_list_name(order[l]));
            const char *path = phase2_sae_path(phase2, p->layer);
            if (!path) return pva_fail(err, PVA_INPUT, "phase 2 names no autoencoder for layer %d", p->layer);
            if (activations(p, f, path, phase2_alignment(phase2), err)) return err->code;
        }
    }
    return PVA_OK;
}

/* AUROC for "passed" over some slots of phase 1; NaN with one class. */
static int auroc_of(const struct followup *f, const double *scores, int part, struct pva_auroc *out, struct pva_error *err) {
    int64_t n = 0;
    double *x = malloc((size_t)(f->phase1.n + 1) * sizeof *x);
    unsigned char *y = malloc((size_t)f->phase1.n + 1);
    if (!x || !y) out_of_memory(err);
    for (int64_t i = 0; i < f->phase1.n && !err->code; i++)
        if (f->phase1.part[i] == part && f->phase1.states[i] == STORE_DONE) x[n] = scores[i], y[n++] = f->phase1.verdicts[i] == PVA_PASS;
    if (!err->code) pva_auroc(x, y, n, 0.95, out, err);
    free(x);
    free(y);
    return err->code;
}

/* What a latent of the user's choice predicts is what it does on the selection split. */
static int add_given(struct phase3_result *r, const struct followup *f, struct phase2 *phase2, const char *text, struct pva_error *err) {
    const struct pva_options *o = f->options;
    int layer, used = 0, n_layers = pva_model_get_config(f->engine.model)->n_layers;
    long long latent;
    char path[3072] = "";
    struct pva_auroc auroc;
    if (sscanf(text, "%d:%lld%n", &layer, &latent, &used) != 2 || text[used] || layer < 0 || latent < 0)
        return pva_fail(err, PVA_USAGE, "--latent %s: LAYER:LATENT is expected, such as 16:11225", text);
    if (layer >= n_layers) return pva_fail(err, PVA_INPUT, "the model has layers 0 to %d, there is no %d", n_layers - 1, layer);
    if (phase2 && phase2_sae_path(phase2, layer)) snprintf(path, sizeof path, "%s", phase2_sae_path(phase2, layer));
    if (!path[0]) {
        struct pva_sae_file *files = calloc((size_t)n_layers, sizeof *files);
        unsigned char *marks = calloc((size_t)n_layers, 1);
        if (!files || !marks) out_of_memory(err);
        else if (!pva_options_text(o, "sae")) pva_fail(err, PVA_USAGE, "a latent of layer %d needs --sae DIR: phase 2 has none for it", layer);
        else {
            marks[layer] = 1;
            if (!pva_sae_scan(pva_options_text(o, "sae"), pva_options_text(o, "width"), pva_options_text(o, "l0"), n_layers, marks, files, err))
                snprintf(path, sizeof path, "%s", files[layer].path);
        }
        free(files);
        free(marks);
    }
    struct phase3_predictor *p = err->code ? NULL : add_predictor(r, f->phase1.n, err);
    if (!p) return err->code;
    p->layer = layer, p->latent = latent;
    snprintf(p->name, sizeof p->name, "L%d-%lld", layer, latent);
    snprintf(p->list, sizeof p->list, "given");
    if (activations(p, f, path, phase2 ? phase2_alignment(phase2) : "aligned", err) || auroc_of(f, p->scores, PVA_SELECTION, &auroc, err)) return err->code;
    p->predicts_failure = auroc.auroc < 0.5;
    return PVA_OK;
}

int phase3_predictors(struct phase3_result *r, const struct followup *f, struct pva_error *err) {
    struct phase2 *phase2 = NULL;
    struct pva_error missing = {0};
    const char *given = pva_options_text(f->options, "latent");
    if (phase2_open(pva_options_text(f->options, "run"), &phase2, &missing)) phase2 = NULL;
    if (!phase2 && !given) pva_fail(err, missing.code, "%s; or give --latent", missing.msg);
    if (!err->code && phase2) add_listed(r, f, phase2, err);
    if (!err->code && given) add_given(r, f, phase2, given, err);
    if (phase2) phase2_close(&phase2);
    if (!err->code && !r->n_predictors) pva_fail(err, PVA_INPUT, "phase 2 found no latent that the pile filter leaves; give --latent");
    if (err->code) return err->code;
    if (followup_slots(f, PVA_TUNING, pva_options_int(f->options, "limit"), &r->tuning, &r->n_tuning, err) ||
        followup_slots(f, PVA_VALIDATION, pva_options_int(f->options, "limit"), &r->validation, &r->n_validation, err))
        return err->code;
    if (!r->n_validation) pva_fail(err, PVA_INPUT, "the validation split has no graded problem");
    return err->code;
}

/* ---- the probe ---- */

/* Residual stream of a layer and labels on the selection split. *x is malloc'ed. */
static int selection_of(const struct followup *f, int layer, float **x, unsigned char **labels, int64_t *n, struct pva_error *err) {
    int64_t *slots = NULL, d = f->phase1.d_model;
    struct phase1_data *data = (struct phase1_data *)&f->phase1; /* reading changes nothing of it */
    *x = NULL, *labels = NULL;
    if (!followup_slots(f, PVA_SELECTION, 0, &slots, n, err)) {
        *x = malloc((size_t)(*n * d + 1) * sizeof **x), *labels = malloc((size_t)*n + 1);
        if (!*x || !*labels) out_of_memory(err);
        else if (!phase1_resid_layer(data, layer, slots, *n, *x, err))
            for (int64_t i = 0; i < *n; i++) (*labels)[i] = f->phase1.verdicts[slots[i]] == PVA_PASS;
    }
    free(slots);
    return err->code;
}

static int fit(const struct followup *f, int layer, struct pva_probe **probe, struct pva_error *err) {
    float *x;
    unsigned char *labels;
    int64_t n = 0;
    struct pva_probe_settings settings = {.standardise = 1, .seed = (uint64_t)f->plan.seed, .stream = 3};
    if (!selection_of(f, layer, &x, &labels, &n, err)) pva_probe_select(x, labels, n, f->phase1.d_model, &settings, probe, err);
    free(x);
    free(labels);
    return err->code;
}

static double best_cv(const struct pva_probe *p, double *c) {
    double best = -1;
    for (int64_t i = 0; i < p->n_c; i++)
        if (p->auroc[i] > best) best = p->auroc[i], *c = p->grid[i];
    return best;
}

/* Enough problems of both classes for five folds? */
static int can_probe(const struct followup *f) {
    int64_t n[2] = {0};
    for (int64_t i = 0; i < f->phase1.n; i++)
        if (f->phase1.part[i] == PVA_SELECTION && f->phase1.states[i] == STORE_DONE) n[f->phase1.verdicts[i] == PVA_PASS]++;
    return n[0] >= 5 && n[1] >= 5 && f->phase1.n_positions == 1;
}

int phase3_probe(struct phase3_result *r, const struct followup *f, struct pva_error *err) {
    int n_layers = (int)f->phase1.n_layers, best = 0;
    double *mine = calloc((size_t)n_layers + 1, sizeof *mine);
    r->probe_cv_by_layer = calloc((size_t)n_layers + 1, sizeof *r->probe_cv_by_layer);
    r->probe_layer = -1, r->probe_c = r->probe_cv = NAN;
    if (!mine || !r->probe_cv_by_layer) out_of_memory(err);
    int possible = can_probe(f);
    for (int l = f->par.rank; possible && l < n_layers && !err->code; l += f->par.size) {
        struct pva_probe *probe = NULL;
        double c;
        if (!fit(f, f->phase1.layers[l], &probe, err)) mine[l] = best_cv(probe, &c);
        pva_probe_free(&probe);
    }
    if (par_agree(&f->par, "fit probes", err)) goto done;
    if (!possible) {
        if (f->par.rank == 0) pva_log(PVA_LOG_WARNING, "no probe: the selection split has fewer than 5 problems of one class, or phase 1 kept several positions");
        goto done;
    }
    /* One rank has each layer's figure, all others 0: the sum is exact. */
    PAR_CHECK(&f->par, MPI_Allreduce(mine, r->probe_cv_by_layer, n_layers, MPI_DOUBLE, MPI_SUM, f->par.comm));
    for (int l = 1; l < n_layers; l++)
        if (r->probe_cv_by_layer[l] > r->probe_cv_by_layer[best]) best = l;
    r->probe_layer = f->phase1.layers[best];
    struct pva_probe *probe = NULL;
    struct phase3_predictor *p = add_predictor(r, f->phase1.n, err);
    float *row = malloc((size_t)f->phase1.d_model * sizeof *row);
    if (!row) out_of_memory(err);
    if (p && row && !fit(f, r->probe_layer, &probe, err)) {
        r->probe_cv = best_cv(probe, &r->probe_c);
        p->layer = r->probe_layer;
        snprintf(p->name, sizeof p->name, "probe at L%d", p->layer);
        snprintf(p->list, sizeof p->list, "probe");
        for (int64_t i = 0; i < f->phase1.n && !err->code; i++)
            if (f->phase1.states[i] == STORE_DONE && !phase1_resid_layer((struct phase1_data *)&f->phase1, p->layer, &i, 1, row, err))
                pva_probe_scores(probe, row, 1, &p->scores[i]);
    }
    pva_probe_free(&probe);
    free(row);
    par_agree(&f->par, "fit the probe", err);
done:
    free(mine);
    return err->code;
}

/* ---- metrics ---- */

/* difficulty -1: all. */
static int measure(const struct phase3_predictor *p, const struct followup *f, const int64_t *slots, int64_t n, int difficulty, double threshold, double level,
                   struct phase3_metrics *m, struct pva_error *err) {
    double *x = malloc((size_t)(n + 1) * sizeof *x);
    unsigned char *y = malloc((size_t)n + 1);
    *m = (struct phase3_metrics){.f1 = NAN, .precision = NAN, .recall = NAN, .mcc = NAN, .balanced_accuracy = NAN};
    if (!x || !y) out_of_memory(err);
    for (int64_t i = 0; i < n && !err->code; i++) {
        if (difficulty >= 0 && pva_difficulty_bin(f->phase1.difficulty[slots[i]]) != difficulty) continue;
        x[m->n] = p->scores[slots[i]];
        y[m->n] = (f->phase1.verdicts[slots[i]] == PVA_PASS) != p->predicts_failure;
        m->n_positive += y[m->n++];
    }
    m->one_class = m->n_positive == 0 || m->n_positive == m->n;
    m->baseline = pva_baseline(m->n_positive, m->n);
    if (!err->code && !pva_auroc(x, y, m->n, level, &m->auroc, err) && !isnan(threshold) && !pva_confusion_count(x, y, m->n, threshold, &m->confusion, err)) {
        m->f1 = pva_confusion_f1(&m->confusion), m->precision = pva_confusion_precision(&m->confusion), m->recall = pva_confusion_recall(&m->confusion);
        m->mcc = pva_confusion_mcc(&m->confusion), m->balanced_accuracy = pva_confusion_balanced_accuracy(&m->confusion);
    }
    free(x);
    free(y);
    return err->code;
}

static int tune(const struct phase3_result *r, const struct phase3_predictor *p, const struct followup *f, struct pva_best_threshold *out, struct pva_error *err) {
    double *x = malloc((size_t)(r->n_tuning + 1) * sizeof *x);
    unsigned char *y = malloc((size_t)r->n_tuning + 1);
    if (!x || !y) out_of_memory(err);
    for (int64_t i = 0; i < r->n_tuning && !err->code; i++) {
        x[i] = p->scores[r->tuning[i]];
        y[i] = (f->phase1.verdicts[r->tuning[i]] == PVA_PASS) != p->predicts_failure;
    }
    if (!err->code) pva_threshold_best_f1(x, y, r->n_tuning, out, err);
    free(x);
    free(y);
    return err->code;
}

/* Both on the validation split, for the latent's label; the probe's score is the log odds of passing. */
static int compare(const struct phase3_result *r, const struct phase3_predictor *p, const struct phase3_predictor *probe, const struct followup *f, double level,
                   struct pva_auroc_difference *out, struct pva_error *err) {
    int64_t n = r->n_validation;
    double *x = malloc((size_t)(2 * n + 1) * sizeof *x);
    unsigned char *y = malloc((size_t)n + 1);
    if (!x || !y) out_of_memory(err);
    for (int64_t i = 0; i < n && !err->code; i++) {
        x[i] = p->scores[r->validation[i]];
        x[n + i] = p->predicts_failure ? -probe->scores[r->validation[i]] : probe->scores[r->validation[i]];
        y[i] = (f->phase1.verdicts[r->validation[i]] == PVA_PASS) != p->predicts_failure;
    }
    if (!err->code) pva_auroc_compare(x, x + n, y, n, level, out, err);
    free(x);
    free(y);
    return err->code;
}

/* The score is the problem's, the label each sample's: whole problems are resampled. */
static int at_temperature(const struct phase3_result *r, const struct phase3_predictor *p, const struct phase3_temperature *t, const struct followup *f, double level,
                          int64_t replicates, struct phase3_at_temperature *out, struct pva_error *err) {
    int64_t n = t->n_problems * t->n_samples, positive = 0;
    double *x = malloc((size_t)(n + 1) * sizeof *x);
    unsigned char *y = malloc((size_t)n + 1);
    int32_t *cluster = malloc((size_t)(n + 1) * sizeof *cluster);
    struct pva_clustered_scores *scores = NULL;
    *out = (struct phase3_at_temperature){.temperature = t->temperature, .auroc = {.estimate = NAN, .bca = {NAN, NAN}, .percentile = {NAN, NAN}}};
    if (!x || !y || !cluster) out_of_memory(err);
    for (int64_t i = 0; i < n && !err->code; i++) {
        x[i] = p->scores[r->validation[i / t->n_samples]];
        y[i] = t->outcomes[i] != p->predicts_failure;
        cluster[i] = (int32_t)(i / t->n_samples);
        positive += y[i];
    }
    out->one_class = positive == 0 || positive == n;
    if (!err->code && !out->one_class && !pva_clustered_scores_create(x, y, cluster, n, t->n_problems, &scores, err))
        pva_bootstrap(pva_clustered_auroc, scores, t->n_problems, replicates, level, (uint64_t)f->plan.seed, 3, NULL, &out->auroc, err);
    pva_clustered_scores_free(&scores);
    free(x), free(y), free(cluster);
    return err->code;
}

/* ---- temperatures ---- */

static int rates_at(struct phase3_temperature *t, double level, struct pva_error *err) {
    int64_t n = t->n_problems * t->n_samples;
    double *values = malloc((size_t)(n + 1) * sizeof *values);
    int64_t *cluster = malloc((size_t)(n + 1) * sizeof *cluster);
    t->pass_at = calloc((size_t)t->n_samples + 1, sizeof *t->pass_at), t->pass_at_interval = calloc((size_t)t->n_samples + 1, sizeof *t->pass_at_interval);
    if (!values || !cluster || !t->pass_at || !t->pass_at_interval) out_of_memory(err);
    for (int64_t i = 0; i < n && !err->code; i++) values[i] = t->outcomes[i], cluster[i] = i / t->n_samples, t->passed += t->outcomes[i];
    if (!err->code) pva_cluster_mean(values, cluster, n, level, &t->pass_rate, err);
    for (int64_t k = 1; k <= t->n_samples && !err->code; k++) {
        struct pva_cluster_mean mean;
        for (int64_t i = 0; i < t->n_problems; i++) {
            int64_t passed = 0;
            for (int64_t s = 0; s < t->n_samples; s++) passed += t->outcomes[i * t->n_samples + s];
            values[i] = pva_pass_at_k(t->n_samples, passed, k);
            cluster[i] = i;
        }
        if (pva_cluster_mean(values, cluster, t->n_problems, level, &mean, err)) break;
        t->pass_at[k - 1] = mean.mean, t->pass_at_interval[k - 1] = mean.interval;
    }
    free(values);
    free(cluster);
    return err->code;
}

static int trends(struct phase3_result *r, struct pva_error *err) {
    int64_t n = r->n_validation, k = r->n_temperatures;
    double *fraction = malloc((size_t)(n * k + 1) * sizeof *fraction);
    unsigned char *first = malloc((size_t)(n * k) + 1);
    if (!fraction || !first) out_of_memory(err);
    for (int64_t j = 0; j < k && !err->code; j++) {
        const struct phase3_temperature *t = &r->temperatures[j];
        for (int64_t i = 0; i < n; i++) {
            int64_t passed = 0;
            for (int64_t s = 0; s < t->n_samples; s++) passed += t->outcomes[i * t->n_samples + s];
            fraction[i * k + j] = (double)passed / (double)t->n_samples;
            first[i * k + j] = t->outcomes[i * t->n_samples];
        }
    }
    if (!err->code) {
        r->cochran = pva_cochran_q(first, n, k);
        r->page = pva_trend_page(fraction, n, k);
    }
    free(fraction);
    free(first);
    return err->code;
}

int phase3_evaluate(struct phase3_result *r, const struct followup *f, double level, int64_t replicates, struct pva_error *err) {
    const struct phase3_predictor *probe = r->probe_layer >= 0 ? &r->predictors[r->n_predictors - 1] : NULL;
    r->scores = calloc((size_t)r->n_predictors, sizeof *r->scores);
    if (!r->scores) return out_of_memory(err);
    for (int i = 0; i < r->n_temperatures; i++)
        if (rates_at(&r->temperatures[i], level, err)) return err->code;
    if (trends(r, err)) return err->code;
    for (int i = 0; i < r->n_predictors; i++) {
        const struct phase3_predictor *p = &r->predictors[i];
        struct phase3_score *s = &r->scores[i];
        s->against_probe = (struct pva_auroc_difference){NAN, NAN, {NAN, NAN}, NAN, NAN};
        s->temperatures = calloc((size_t)r->n_temperatures + 1, sizeof *s->temperatures);
        if (!s->temperatures) return out_of_memory(err);
        if (tune(r, p, f, &s->tuning, err) || measure(p, f, r->tuning, r->n_tuning, -1, s->tuning.threshold, level, &s->on_tuning, err) ||
            measure(p, f, r->validation, r->n_validation, -1, s->tuning.threshold, level, &s->validation, err))
            return err->code;
        for (int d = 0; d < PVA_N_DIFFICULTIES; d++)
            if (measure(p, f, r->validation, r->n_validation, d, s->tuning.threshold, level, &s->by_difficulty[d], err)) return err->code;
        if (probe && p != probe && compare(r, p, probe, f, level, &s->against_probe, err)) return err->code;
        for (int t = 0; t < r->n_temperatures; t++)
            if (at_temperature(r, p, &r->temperatures[t], f, level, replicates, &s->temperatures[t], err)) return err->code;
    }
    return PVA_OK;
}

void phase3_result_free(struct phase3_result *r) {
    for (int i = 0; i < r->n_predictors; i++) {
        free(r->predictors[i].scores);
        if (r->scores) free(r->scores[i].temperatures);
    }
    for (int i = 0; i < r->n_temperatures; i++) free(r->temperatures[i].pass_at), free(r->temperatures[i].pass_at_interval), free(r->temperatures[i].outcomes);
    free(r->predictors), free(r->scores), free(r->probe_cv_by_layer), free(r->tuning), free(r->validation), free(r->temperatures);
    memset(r, 0, sizeof *r);
}
