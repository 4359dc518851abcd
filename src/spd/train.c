/* The loop: step 0 to steps inclusive; the last one only measures. */
#include "run.h"

#include "target.h"

#include "pva/log.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *spd_run_path(const struct spd_run *r, const char *name, char buffer[4096]) {
    snprintf(buffer, 4096, "%.3500s/%.500s", r->settings->directory, name);
    return buffer;
}

int spd_run_log(struct spd_run *r, int64_t step, const char *prefix, json_t *values, struct pva_error *err) {
    const char *key;
    json_t *v, *line = json_pack("{s:I}", "step", (json_int_t)step);
    char tag[300];
    double time = now(CLOCK_REALTIME);
    int status = PVA_OK;
    json_object_foreach(values, key, v) {
        double x = json_number_value(v);
        json_object_set(line, key, v);
        snprintf(tag, sizeof tag, "%.40s%.200s", prefix, key);
        if (r->writes && !status) status = pva_spd_events_scalar(r->events, time, step, tag, (float)x, err);
    }
    if (r->writes && !status && (json_dumpf(line, r->metrics, JSON_REAL_PRECISION(9)) || fputc('\n', r->metrics) == EOF))
        status = pva_fail(err, PVA_IO, "metrics.jsonl: %s", strerror(errno));
    json_decref(line);
    json_decref(values);
    return status;
}

static double annealed_p(const struct pva_spd_config *c, int64_t step) {
    double at = (double)step / (double)c->steps;
    if (isnan(c->p_anneal_final) || c->p_anneal_start >= 1 || at < c->p_anneal_start) return c->pnorm;
    if (at >= c->p_anneal_end) return c->p_anneal_final;
    return c->pnorm + (c->p_anneal_final - c->pnorm) * (at - c->p_anneal_start) / (c->p_anneal_end - c->p_anneal_start);
}

struct step {
    struct spd_sums sums;
    double faithfulness, total, p, lr, norm;
};

static double importance_sum(const struct spd_run *r, const struct spd_sums *s) {
    double sum = 0;
    for (int i = 0; i < r->engine->n_modules; i++) sum += s->importance[i];
    return sum;
}

static int compute(struct spd_run *r, int64_t step, int report, struct step *out, struct pva_error *err) {
    const struct pva_spd_config *c = r->config;
    out->p = annealed_p(c, step);
    out->lr = c->lr * spd_schedule(c->lr_schedule, c->lr_halflife, c->lr_warmup, step, c->steps);
    out->sums.active = r->active;
    /* Gradient accumulation splits a batch only to save memory; here a batch never lies in memory whole, and the mean of the
     * parts' means is the mean. */
    struct spd_pass p = {.seed = (uint64_t)c->seed,
                         .step = (uint32_t)step,
                         .stream = SPD_DRAW_TRAIN,
                         .batch = (int)c->batch_size,
                         .p = out->p,
                         .gradients = 1,
                         .report = report};
    if (spd_engine_pass(r->engine, &p, r->settings->ranks, &out->sums, err)) return err->code;
    out->faithfulness = spd_engine_weights_loss(r->engine, 1);
    if (r->engine->late.code) return *err = r->engine->late, err->code;
    const double coeffs[SPD_N_TERMS] = {c->recon, c->stochastic_recon, c->recon_layerwise, c->stochastic_recon_layerwise,
                                        c->out_recon};
    out->total = (isnan(c->faithfulness) ? 0 : c->faithfulness) * out->faithfulness +
                 c->importance_minimality * importance_sum(r, &out->sums);
    for (int i = 0; i < SPD_N_TERMS; i++)
        if (!isnan(coeffs[i])) out->total += coeffs[i] * out->sums.terms[i];
    if (!isnan(c->schatten)) out->total += c->schatten * out->sums.schatten;
    for (int i = 0; i < r->engine->n_modules * r->engine->C; i++)
        r->since_fired[i] = r->active[i] > 0 ? 0 : r->since_fired[i] + (double)c->batch_size;
    if (isfinite(out->total)) return PVA_OK;
    return pva_fail(err, PVA_CHECK, "step %lld: the loss is no longer a finite number; a smaller lr may help", (long long)step);
}

static int log_step(struct spd_run *r, int64_t step, const struct step *s, struct pva_error *err) {
    const struct pva_spd_config *c = r->config;
    const char *const names[SPD_N_TERMS] = {"recon", "stochastic_recon", "recon_layerwise", "stochastic_recon_layerwise",
                                            "output_recon"};
    const double coeffs[SPD_N_TERMS] = {c->recon, c->stochastic_recon, c->recon_layerwise, c->stochastic_recon_layerwise,
                                        c->out_recon};
    json_t *o = json_object();
    char key[200];
    if (!isnan(c->faithfulness)) json_object_set_new(o, "train/loss/faithfulness", json_real(s->faithfulness));
    for (int i = 0; i < SPD_N_TERMS; i++) {
        snprintf(key, sizeof key, "train/loss/%s", names[i]);
        if (!isnan(coeffs[i])) json_object_set_new(o, key, json_real(s->sums.terms[i]));
    }
    json_object_set_new(o, "train/loss/importance_minimality", json_real(importance_sum(r, &s->sums)));
    if (!isnan(c->schatten)) json_object_set_new(o, "train/loss/schatten", json_real(s->sums.schatten));
    json_object_set_new(o, "train/loss/total", json_real(s->total));
    for (int k = 0; k < r->engine->n_modules; k++) {
        int m = r->engine->order[k], alive = 0;
        double active = 0;
        for (int i = 0; i < r->engine->C; i++) {
            active += r->active[m * r->engine->C + i];
            alive += r->since_fired[m * r->engine->C + i] < (double)c->examples_until_dead;
        }
        snprintf(key, sizeof key, "train/%s/l0", r->engine->modules[m].path);
        json_object_set_new(o, key, json_real(active / (double)c->batch_size));
        snprintf(key, sizeof key, "train/%s/n_alive_%g", r->engine->modules[m].path, c->alive_threshold);
        json_object_set_new(o, key, json_integer(alive));
    }
    json_object_set_new(o, "train/misc/grad_norm", json_real(s->norm));
    json_object_set_new(o, "train/misc/lr", json_real(s->lr));
    json_object_set_new(o, "train/misc/current_p", json_real(s->p));
    return spd_run_log(r, step, "", o, err);
}

/* 1 when any rank was asked to stop. */
static int wants_stop(struct spd_run *r, int64_t step, double loss, struct pva_error *err) {
    const struct pva_spd_settings *s = r->settings;
    int32_t stop = s->progress && s->progress(s->user, step, r->config->steps, loss, r->ci_error), all[SPD_SHARES] = {0},
            any = stop;
    if (!s->ranks || s->ranks->size == 1) return stop;
    if (s->ranks->gather(s->ranks->user, &stop, sizeof stop, all, err)) return 1;
    for (int i = 0; i < s->ranks->size; i++) any |= all[i];
    return any;
}

static int finish(struct spd_run *r, const struct step *last, struct pva_spd_result *out, struct pva_error *err) {
    struct spd_engine *e = r->engine;
    double *lower[PVA_SPD_MAX_MODULES] = {0}, *upper[PVA_SPD_MAX_MODULES] = {0};
    out->faithfulness = last->faithfulness;
    out->stochastic_recon = last->sums.terms[SPD_STOCHASTIC_RECON];
    out->stochastic_recon_layerwise = last->sums.terms[SPD_STOCHASTIC_RECON_LAYERWISE];
    out->importance_minimality = importance_sum(r, &last->sums);
    out->ci_error = out->ci_error_02 = out->mmcs = out->ml2r = NAN;
    out->n_modules = e->n_modules;
    for (int k = 0; k < e->n_modules; k++) {
        out->l0[k] = 0;
        for (int c = 0; c < e->C; c++) out->l0[k] += r->active[e->order[k] * e->C + c] / (double)r->config->batch_size;
    }
    int status = spd_engine_fetch(e, err);
    if (!status) status = spd_one_hot(r, lower, upper, err);
    if (!status && r->config->want_identity) status = spd_ci_error(r, lower, 0.1, NULL, &out->ci_error, err);
    if (!status && r->config->want_identity) status = spd_ci_error(r, lower, 0.2, NULL, &out->ci_error_02, err);
    for (int m = 0; m < e->n_modules; m++) free(lower[m]), free(upper[m]);
    if (status || r->target->residual) return status;
    const int F = r->target->n_features, H = r->target->n_hidden, C = e->C;
    for (int i = 0; i < e->n_modules; i++) {
        const struct spd_module *m = &e->modules[i];
        int is_first = m->layer == 0;
        if (!is_first && m->layer != r->target->n_layers - 1) continue; /* features live in the first and the last matrix */
        float *w = malloc((size_t)F * (size_t)H * sizeof *w), *v = malloc((size_t)F * (size_t)C * sizeof *v),
              *u = malloc((size_t)C * (size_t)H * sizeof *u);
        if (!w || !v || !u) status = pva_fail(err, PVA_IO, "out of memory");
        for (int f = 0; f < F && !status; f++) {
            for (int h = 0; h < H; h++)
                w[f * H + h] =
                    is_first ? r->target->layers[m->layer].weight[f * H + h] : r->target->layers[m->layer].weight[h * F + f];
            for (int c = 0; c < C; c++)
                v[f * C + c] = (float)(is_first ? e->params[m->v + (size_t)(f * C + c)] : e->params[m->u + (size_t)(c * F + f)]);
        }
        for (int c = 0; c < C && !status; c++)
            for (int h = 0; h < H; h++)
                u[c * H + h] = (float)(is_first ? e->params[m->u + (size_t)(c * H + h)] : e->params[m->v + (size_t)(h * C + c)]);
        double mmcs, ml2r;
        if (!status) {
            pva_spd_similarity(F, H, C, w, v, u, &mmcs, &ml2r);
            if (isnan(out->mmcs) || mmcs < out->mmcs) out->mmcs = mmcs;
            if (isnan(out->ml2r) || ml2r < out->ml2r) out->ml2r = ml2r;
        }
        free(w), free(v), free(u);
    }
    return status;
}

/* Steps are short: on a busy machine waiting for a second thread costs more than it computes. Now and then a few steps are timed
 * with one thread and with all, and the faster way is kept; the result is the same. */
enum { PROBE_EVERY = 512, PROBE_STEPS = 8 };
struct probe {
    double began, alone;
};
static void choose_threads(struct spd_engine *e, int64_t step, struct probe *p) {
    const int64_t phase = step % PROBE_EVERY;
    if (e->most_threads == 1 || phase > 2 * PROBE_STEPS || phase % PROBE_STEPS) return;
    double t = now(CLOCK_MONOTONIC);
    if (phase == 0) e->threads = 1;
    if (phase == PROBE_STEPS) {
        p->alone = t - p->began;
        e->threads = e->most_threads;
    }
    if (phase == 2 * PROBE_STEPS && p->began && p->alone < t - p->began) e->threads = 1;
    p->began = t;
}

static int train(struct spd_run *r, int64_t first, struct pva_spd_result *out, struct pva_error *err) {
    const struct pva_spd_config *c = r->config;
    struct step s = {.total = NAN};
    struct probe probe = {0};
    double saved = now(CLOCK_MONOTONIC);
    int status = PVA_OK;
    for (int64_t step = first; step <= c->steps; step++) {
        const int last = step == c->steps, log = step % c->train_log_freq == 0;
        if (wants_stop(r, step, s.total, err)) {
            if (!err->code) status = spd_checkpoint_write(r, step, err);
            if (!err->code)
                pva_fail(err, PVA_STOPPED, "stopped before step %lld of %lld; the same command goes on", (long long)step,
                         (long long)c->steps);
            return err->code;
        }
        choose_threads(r->engine, step, &probe);
        if ((status = compute(r, step, log || last, &s, err))) return status;
        if (log) {
            s.norm = spd_engine_gradient_norm(r->engine);
            if ((status = log_step(r, step, &s, err))) return status;
        }
        if (last && (status = finish(r, &s, out, err))) return status; /* before evaluation reuses the buffers */
        if (step % c->eval_freq == 0 || last) { /* the last step always measures everything: a run ends with its figures */
            int slow = last || (step % c->slow_eval_freq == 0 && (step > 0 || c->slow_eval_on_first_step));
            if ((status = spd_evaluate(r, step, slow, err))) return status;
        }
        if (!last) s.norm = spd_engine_update(r->engine, s.lr, step);
        if (last || (c->save_freq > 0 && step > 0 && step % c->save_freq == 0)) {
            if ((status = spd_model_write(r, step, err)) || (status = spd_checkpoint_write(r, step + 1, err))) return status;
        } else if (now(CLOCK_MONOTONIC) - saved > 60) {
            if ((status = spd_checkpoint_write(r, step + 1, err))) return status;
            saved = now(CLOCK_MONOTONIC);
        }
    }
    out->step = c->steps;
    return PVA_OK;
}

static int open_logs(struct spd_run *r, int append, struct pva_error *err) {
    char path[4096];
    if (!r->writes) return PVA_OK;
    r->metrics = fopen(spd_run_path(r, "metrics.jsonl", path), append ? "ab" : "wb");
    if (!r->metrics) return pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    return pva_spd_events_open(spd_run_path(r, "events.out.tfevents.0.spd-run", path), append, now(CLOCK_REALTIME), &r->events,
                               err);
}

static int write_settings(const struct spd_run *r, struct pva_error *err) {
    char path[4096];
    if (!r->writes) return PVA_OK;
    if (spd_make_directory(spd_run_path(r, "figures", path), err) || pva_spd_target_save(r->target, r->settings->directory, err))
        return err->code;
    char *text = pva_spd_config_print(r->config);
    if (!text) return pva_fail(err, PVA_IO, "out of memory");
    int status = spd_write_text(spd_run_path(r, "final_config.yaml", path), text, err);
    free(text);
    return status;
}

int pva_spd_decompose(const struct pva_spd_config *c, const struct pva_spd_target *t, const struct pva_spd_settings *s,
                      struct pva_spd_result *out, struct pva_error *err) {
    struct spd_run r = {
        .config = c, .target = t, .settings = s, .writes = !s->ranks || s->ranks->rank == 0, .ci_error = NAN, .ci_error_02 = NAN};
    double start = now(CLOCK_MONOTONIC);
    int64_t first = 0;
    memset(out, 0, sizeof *out);
    if (s->ranks && (s->ranks->size < 1 || SPD_SHARES % s->ranks->size))
        return pva_fail(err, PVA_USAGE, "%d ranks: a batch is cut into %d shares, so 1, 2, 4 or 8 ranks can work on it",
                        s->ranks->size, SPD_SHARES);
    int status = spd_engine_create_on(s->ops, s->be, c, t, s->threads, !s->no_shortcuts, &r.engine, err);
    if (status) return status;
    size_t n = (size_t)r.engine->n_modules * (size_t)r.engine->C;
    r.since_fired = calloc(n, sizeof *r.since_fired);
    r.active = calloc(n, sizeof *r.active);
    if (!r.since_fired || !r.active) status = pva_fail(err, PVA_IO, "out of memory");
    if (!status) spd_engine_initialise(r.engine, (uint64_t)c->seed);
    if (!status && s->resume) status = spd_checkpoint_read(&r, &first, err);
    if (!status) spd_engine_place(r.engine);
    if (!status && !(s->resume && first)) status = write_settings(&r, err);
    if (!status && first > c->steps) { /* finished before: only measure again */
        struct step last;
        status = compute(&r, c->steps, 1, &last, err);
        if (!status) status = finish(&r, &last, out, err);
        out->step = c->steps;
    } else {
        if (!status) status = open_logs(&r, first > 0, err);
        if (!status) status = train(&r, first, out, err);
    }
    if (r.metrics && fclose(r.metrics) && !status) status = pva_fail(err, PVA_IO, "metrics.jsonl: %s", strerror(errno));
    pva_spd_events_close(&r.events, err);
    out->seconds = now(CLOCK_MONOTONIC) - start;
    free(r.since_fired);
    free(r.active);
    spd_engine_free(&r.engine);
    return status ? status : err->code;
}
