#include "steer_plan.h"
#include "scores.h"

#include "pva/hash.h"
#include "pva/threshold.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *steer_side_name(int side) {
    static const char *const names[] = {"correct", "incorrect", "given"};
    return names[side];
}
const char *steer_kind_name(int kind) {
    static const char *const names[] = {"treated", "zero", "flipped", "random", "matched"};
    return names[kind];
}

/* ---- the grid ---- */

static int add_coefficient(struct steer_plan *plan, double value, struct pva_error *err) {
    if (plan->n_grid == 1000) return pva_fail(err, PVA_USAGE, "--coefficients: more than 1000");
    double *more = realloc(plan->grid, (size_t)(plan->n_grid + 1) * sizeof *more);
    if (!more) return pva_fail(err, PVA_IO, "out of memory");
    plan->grid = more;
    /* -1 + 5 * 0.2 is 0, whatever the last digit says. */
    more[plan->n_grid++] = fabs(value) < 1e-12 ? 0 : value;
    return PVA_OK;
}

static int read_number(const char *text, char stop, const char **end, double *out, struct pva_error *err) {
    char *after;
    *out = strtod(text, &after);
    *end = after;
    if (after == text || !isfinite(*out) || (*after != stop && *after))
        return pva_fail(err, PVA_USAGE, "--coefficients \"%s\": LOW:HIGH:STEP or a list of numbers is expected", text);
    return PVA_OK;
}

static int read_grid(struct steer_plan *plan, const char *text, struct pva_error *err) {
    const char *at = text;
    if (strchr(text, ':')) {
        double low, high, step;
        if (read_number(at, ':', &at, &low, err) || *at++ != ':' || read_number(at, ':', &at, &high, err) || *at++ != ':' ||
            read_number(at, 0, &at, &step, err) || !(step > 0) || high < low)
            return err->code ? err->code : pva_fail(err, PVA_USAGE, "--coefficients %s: LOW:HIGH:STEP is expected, with STEP above 0", text);
        int64_t n = (int64_t)floor((high - low) / step + 1e-9);
        for (int64_t i = 0; i <= n && !err->code; i++) add_coefficient(plan, low + (double)i * step, err);
        return err->code;
    }
    for (double value; !err->code; at++) {
        if (read_number(at, ',', &at, &value, err) || add_coefficient(plan, value, err) || !*at) break;
    }
    return err->code;
}

static int has_push(const struct steer_plan *plan) {
    for (int i = 0; i < plan->n_grid; i++)
        if (plan->grid[i] != 0) return 1;
    return 0;
}

/* ---- candidates ---- */

static struct steer_candidate *add_candidate(struct steer_plan *plan, int side, struct pva_error *err) {
    struct steer_candidate *more = realloc(plan->candidates, (size_t)(plan->n_candidates + 1) * sizeof *more);
    if (!more) {
        pva_fail(err, PVA_IO, "out of memory");
        return NULL;
    }
    plan->candidates = more;
    more[plan->n_candidates] = (struct steer_candidate){.side = side, .scale = 1, .separation = NAN, .firing_rate = NAN};
    return &more[plan->n_candidates++];
}

double steer_firing_rate(const struct followup *f, const struct phase2_latent *l) {
    int64_t n[2] = {0};
    for (int64_t i = 0; i < f->phase1.n; i++)
        if (f->phase1.part[i] == PVA_SELECTION && f->phase1.states[i] == STORE_DONE) n[f->phase1.verdicts[i] == PVA_PASS]++;
    double sum = (n[1] ? l->f_correct * (double)n[1] : 0) + (n[0] ? l->f_incorrect * (double)n[0] : 0);
    return n[0] + n[1] ? sum / (double)(n[0] + n[1]) : NAN;
}

static int find_scale(const struct steer_plan *plan, const struct followup *f, struct steer_candidate *c, const struct phase2_latent *latent,
                      struct pva_error *err) {
    int layer = c->direction.layer;
    if (plan->mode == STEER_ABLATE || plan->units == PVA_UNITS_RAW) c->scale = 1;
    else if (plan->units == PVA_UNITS_NORM) {
        if (plan->phase2) c->scale = phase2_mean_norm(plan->phase2, layer);
        if (!plan->phase2 || !(c->scale > 0)) scores_mean_norm(f, plan->alignment, layer, &c->scale, err);
    } else if (!latent) {
        return pva_fail(err, PVA_USAGE, "--coefficient-units activation needs a latent that phase 2 has measured; use norm or raw");
    } else {
        c->scale = latent->mean_active;
    }
    if (!err->code && !(c->scale > 0 && isfinite(c->scale)))
        pva_fail(err, PVA_INPUT, "%s: one unit of the coefficient would be %g", c->direction.name, c->scale);
    return err->code;
}

/* The autoencoder of a layer: the one phase 2 used, else below --sae. */
static int sae_of_layer(const struct steer_plan *plan, const struct followup *f, int layer, char path[3072], struct pva_error *err) {
    const struct pva_options *o = f->options;
    int n_layers = pva_model_get_config(f->engine.model)->n_layers;
    if (layer < 0 || layer >= n_layers) return pva_fail(err, PVA_INPUT, "the model has layers 0 to %d, there is no %d", n_layers - 1, layer);
    const char *used = plan->phase2 ? phase2_sae_path(plan->phase2, layer) : NULL;
    if (used) {
        snprintf(path, 3072, "%s", used);
        return PVA_OK;
    }
    if (!pva_options_text(o, "sae")) return pva_fail(err, PVA_USAGE, "a latent of layer %d needs --sae DIR: phase 2 has none for it", layer);
    struct pva_sae_file *files = calloc((size_t)n_layers, sizeof *files);
    unsigned char *marks = calloc((size_t)n_layers, 1);
    if (!files || !marks) pva_fail(err, PVA_IO, "out of memory");
    else {
        marks[layer] = 1;
        if (!pva_sae_scan(pva_options_text(o, "sae"), pva_options_text(o, "width"), pva_options_text(o, "l0"), n_layers, marks, files, err))
            snprintf(path, 3072, "%s", files[layer].path);
    }
    free(files);
    free(marks);
    return err->code;
}

int steer_open_sae(const struct steer_plan *plan, const struct followup *f, int layer, struct pva_sae **sae, struct pva_error *err) {
    char path[3072];
    if (sae_of_layer(plan, f, layer, path, err) || pva_sae_open(path, sae, err)) return err->code;
    if (pva_sae_d_model(*sae) == f->phase1.d_model) return PVA_OK;
    pva_fail(err, PVA_INPUT, "%s: is for d_model %lld, the model has %lld", path, (long long)pva_sae_d_model(*sae), (long long)f->phase1.d_model);
    pva_sae_close(sae);
    return err->code;
}

static int add_latent(struct steer_plan *plan, const struct followup *f, int side, int layer, int64_t latent, struct pva_error *err) {
    struct pva_sae *sae = NULL;
    struct phase2_latent facts;
    struct steer_candidate *c = add_candidate(plan, side, err);
    if (!c || steer_open_sae(plan, f, layer, &sae, err)) return err->code;
    if (!pva_direction_from_latent(sae, layer, latent, &c->direction, err)) {
        if (plan->phase2 && !phase2_latent(plan->phase2, layer, latent, &facts, err)) {
            c->separation = facts.separation;
            c->firing_rate = steer_firing_rate(f, &facts);
        }
        if (!err->code) find_scale(plan, f, c, plan->phase2 ? &facts : NULL, err);
    }
    pva_sae_close(&sae);
    return err->code;
}

static int parse_latent(const char *option, const char *text, int *layer, int64_t *latent, struct pva_error *err) {
    long long j = 0;
    int used = 0;
    if (sscanf(text, "%d:%lld%n", layer, &j, &used) != 2 || text[used] || *layer < 0 || j < 0)
        return pva_fail(err, PVA_USAGE, "--%s %s: LAYER:LATENT is expected, such as 16:11225", option, text);
    *latent = j;
    return PVA_OK;
}

static int add_listed(struct steer_plan *plan, const struct followup *f, int side, struct pva_error *err) {
    struct phase2_latent top[100];
    int n = (int)pva_options_int(f->options, "top"), found = 0;
    if (phase2_top(plan->phase2, side == STEER_CORRECT ? PHASE2_CORRECT_SEPARATION : PHASE2_INCORRECT_SEPARATION, n, top, &found, err)) return err->code;
    if (!found) return pva_fail(err, PVA_INPUT, "phase 2 found no %s-predicting latent that the pile filter leaves; give --latent or --vector", steer_side_name(side));
    for (int i = 0; i < found && !err->code; i++) add_latent(plan, f, side, top[i].layer, top[i].latent, err);
    return err->code;
}

static int find_candidates(struct steer_plan *plan, const struct followup *f, struct pva_error *err) {
    const struct pva_options *o = f->options;
    const char *latent = pva_options_text(o, "latent"), *vector = pva_options_text(o, "vector");
    int layer = 0;
    int64_t number = -1;
    if (latent && vector) return pva_fail(err, PVA_USAGE, "give --latent or --vector, not both");
    if (latent) return parse_latent("latent", latent, &layer, &number, err) ? err->code : add_latent(plan, f, STEER_GIVEN, layer, number, err);
    if (vector) {
        int n_layers = pva_model_get_config(f->engine.model)->n_layers;
        layer = (int)pva_options_int(o, "layer");
        if (!pva_options_is_set(o, "layer")) return pva_fail(err, PVA_USAGE, "--vector needs --layer L: where it is added");
        if (layer >= n_layers) return pva_fail(err, PVA_USAGE, "--layer %d: the model has layers 0 to %d", layer, n_layers - 1);
        struct steer_candidate *c = add_candidate(plan, STEER_GIVEN, err);
        if (!c || pva_direction_from_file(vector, layer, f->phase1.d_model, &c->direction, err)) return err->code;
        return find_scale(plan, f, c, NULL, err);
    }
    if (!plan->phase2) return PVA_OK; /* the caller has the reason */
    if (!plan->passing_only && add_listed(plan, f, STEER_CORRECT, err)) return err->code;
    if (!plan->failing_only && add_listed(plan, f, STEER_INCORRECT, err)) return err->code;
    return PVA_OK;
}

/* ---- the gate ---- */

/* The predictor of failure, its threshold from the tuning split, and which problems it opens. */
static int set_gate(struct steer_plan *plan, const struct followup *f, struct pva_error *err) {
    const char *text = pva_options_text(f->options, "gate");
    char path[3072];
    int64_t n = f->phase1.n, n_tuning = 0, *slots = malloc((size_t)n * sizeof *slots);
    double *scores = malloc((size_t)n * sizeof *scores), *tuning = malloc((size_t)n * sizeof *tuning);
    unsigned char *failed = malloc((size_t)n);
    plan->open = calloc((size_t)n, 1);
    struct pva_best_threshold best;
    if (!slots || !scores || !tuning || !failed || !plan->open) {
        pva_fail(err, PVA_IO, "out of memory");
        goto done;
    }
    if (text) {
        if (parse_latent("gate", text, &plan->gate_layer, &plan->gate_latent, err)) goto done;
    } else {
        struct phase2_latent top;
        int found = 0;
        if (!plan->phase2) {
            pva_fail(err, PVA_USAGE, "--mode gated needs --gate L:J, a latent that predicts failure: there is no phase 2 to take one from");
            goto done;
        }
        if (phase2_top(plan->phase2, PHASE2_INCORRECT_T, 1, &top, &found, err)) goto done;
        if (!found) {
            pva_fail(err, PVA_INPUT, "phase 2 found no incorrect-predicting latent for the gate; give --gate L:J");
            goto done;
        }
        plan->gate_layer = top.layer, plan->gate_latent = top.latent;
    }
    for (int64_t i = 0; i < n; i++) slots[i] = i;
    if (sae_of_layer(plan, f, plan->gate_layer, path, err) ||
        scores_latents(f, path, plan->alignment, plan->gate_layer, &plan->gate_latent, 1, slots, n, scores, err))
        goto done;
    for (int64_t i = 0; i < n; i++)
        if (f->phase1.part[i] == PVA_TUNING && f->phase1.states[i] == STORE_DONE) {
            tuning[n_tuning] = scores[i];
            failed[n_tuning++] = f->phase1.verdicts[i] != PVA_PASS;
        }
    if (pva_threshold_best_f1(tuning, failed, n_tuning, &best, err)) goto done;
    if (pva_options_is_set(f->options, "gate-threshold")) best = (struct pva_best_threshold){.threshold = pva_options_real(f->options, "gate-threshold"), .f1 = NAN};
    if (isnan(best.threshold)) {
        pva_fail(err, PVA_INPUT, "no problem of the tuning split failed: a gate cannot be tuned");
        goto done;
    }
    plan->gate_threshold = best.threshold, plan->gate_f1 = best.f1;
    for (int64_t i = 0; i < n; i++) plan->open[i] = scores[i] > best.threshold;
done:
    free(slots), free(scores), free(tuning), free(failed);
    return err->code;
}

/* ---- the plan ---- */

static int read_options(struct steer_plan *plan, const struct pva_options *o, struct pva_error *err) {
    const char *mode = pva_options_text(o, "mode");
    plan->mode = !strcmp(mode, "add") ? STEER_ADD : !strcmp(mode, "ablate") ? STEER_ABLATE : STEER_GATED;
    plan->failing_only = pva_options_flag(o, "correction-only");
    plan->passing_only = pva_options_flag(o, "corruption-only");
    plan->limit = pva_options_int(o, "limit");
    plan->n_controls = (int)pva_options_int(o, "controls");
    plan->n_dose_controls = (int)pva_options_int(o, "dose-controls");
    if (plan->n_dose_controls > plan->n_controls) plan->n_dose_controls = plan->n_controls; /* they are the first of these */
    if (plan->failing_only && plan->passing_only) return pva_fail(err, PVA_USAGE, "--correction-only and --corruption-only leave nothing");
    if (pva_positions_parse(pva_options_text(o, "steer-positions"), &plan->positions, err) ||
        pva_coefficient_units_parse(pva_options_text(o, "coefficient-units"), &plan->units, err))
        return err->code;
    if (plan->mode == STEER_GATED && plan->positions == PVA_POSITIONS_ALL) {
        if (pva_options_is_set(o, "steer-positions"))
            return pva_fail(err, PVA_USAGE, "--mode gated decides at the prompt's last token: --steer-positions last or generated");
        plan->positions = PVA_POSITIONS_LAST;
    }
    if (plan->mode == STEER_ABLATE) return add_coefficient(plan, 1, err);
    if (read_grid(plan, pva_options_text(o, "coefficients"), err)) return err->code;
    return has_push(plan) ? PVA_OK : pva_fail(err, PVA_USAGE, "--coefficients %s: all of them are 0", pva_options_text(o, "coefficients"));
}

static int hash_autoencoders(struct steer_plan *plan, struct pva_error *err) {
    struct pva_sha256 hash;
    uint8_t digest[PVA_SHA256_BYTES];
    if (!plan->phase2) return PVA_OK;
    pva_sha256_start(&hash);
    for (int i = 0; i < plan->n_candidates; i++) {
        const char *print = phase2_sae_fingerprint(plan->phase2, plan->candidates[i].direction.layer);
        if (print) pva_sha256_add(&hash, print, strlen(print));
    }
    pva_sha256_finish(&hash, digest);
    pva_sha256_hex(digest, plan->sae_fingerprints);
    return err->code;
}

int steer_plan_make(struct steer_plan *plan, const struct followup *f, struct pva_error *err) {
    struct pva_error missing = {0};
    *plan = (struct steer_plan){.point = PVA_RESID_POST, .alignment = "aligned"};
    if (read_options(plan, f->options, err)) return err->code;
    int own = pva_options_text(f->options, "latent") || pva_options_text(f->options, "vector");
    phase2_open(pva_options_text(f->options, "run"), &plan->phase2, &missing);
    if (missing.code) plan->phase2 = NULL;
    if (!plan->phase2 && !own) return pva_fail(err, missing.code, "%s; or give --latent or --vector", missing.msg);
    if (plan->phase2) plan->alignment = phase2_alignment(plan->phase2);
    if (!strcmp(plan->alignment, "original")) plan->point = PVA_RESID_PRE;
    if (find_candidates(plan, f, err) || (plan->mode == STEER_GATED && set_gate(plan, f, err))) return err->code;
    return hash_autoencoders(plan, err);
}

void steer_plan_free(struct steer_plan *plan) {
    for (int i = 0; i < plan->n_candidates; i++) pva_direction_free(&plan->candidates[i].direction);
    free(plan->candidates);
    free(plan->grid);
    free(plan->open);
    if (plan->phase2) phase2_close(&plan->phase2);
    memset(plan, 0, sizeof *plan);
}

/* ---- what will be done ---- */

int steer_plan_has_dose(const struct steer_plan *plan) {
    int pushes = 0;
    for (int i = 0; i < plan->n_grid; i++) pushes += plan->grid[i] != 0;
    return plan->n_dose_controls > 0 && plan->mode != STEER_ABLATE && pushes > 1;
}

void steer_plan_print(const struct steer_plan *plan, const struct followup *f, const struct steer_stage *tuning, FILE *out) {
    static const char *const modes[] = {"add", "ablate", "gated"};
    int64_t validation = 0, failing = 0, sides = 0, kinds = plan->phase2 ? 2 : 1;
    for (int64_t i = 0; i < f->phase1.n; i++) {
        if (f->phase1.part[i] != PVA_VALIDATION || f->phase1.states[i] != STORE_DONE || (plan->limit && validation == plan->limit)) continue;
        validation++, failing += f->phase1.verdicts[i] != PVA_PASS;
    }
    int64_t steered = plan->failing_only ? failing : plan->passing_only ? validation - failing : validation;
    int64_t per_side = 3 - (plan->mode == STEER_ABLATE) + plan->n_controls * kinds, pushes = 0;
    for (int i = 0; i < plan->n_grid; i++) pushes += plan->grid[i] != 0;
    for (int side = 0; side < STEER_N_SIDES; side++)
        for (int c = 0; c < plan->n_candidates; c++)
            if (plan->candidates[c].side == side) {
                sides++;
                break;
            }
    int64_t dose = steer_plan_has_dose(plan) ? pushes * plan->n_dose_controls * kinds : 0; /* arms of a side */
    int64_t items = tuning->n_items + sides * (steered * per_side + tuning->n_problems * dose);
    const char *plural = sides > 1 ? "s" : "";
    fprintf(out, "mode        %s at %s, positions %s, units %s\n", modes[plan->mode], pva_point_name(plan->point), pva_positions_name(plan->positions),
            pva_coefficient_units_name(plan->units));
    for (int c = 0; c < plan->n_candidates; c++)
        fprintf(out, "candidate   %-9s %s, layer %d: one unit is %.4g\n", steer_side_name(plan->candidates[c].side), plan->candidates[c].direction.name,
                plan->candidates[c].direction.layer, plan->candidates[c].scale);
    if (plan->open) fprintf(out, "gate        L%d-%lld > %.6g (F1 %.3f on the tuning split)\n", plan->gate_layer, (long long)plan->gate_latent, plan->gate_threshold, plan->gate_f1);
    fprintf(out, "tuning      %lld problems x %d arms\n", (long long)tuning->n_problems, tuning->n_arms);
    fprintf(out, "validation  %s%lld problems (%lld of %lld fail) x %lld side%s x up to %lld arms: treated, %s%d random%s\n", plan->open ? "up to " : "",
            (long long)steered, (long long)failing, (long long)validation, (long long)sides, plural, (long long)per_side,
            plan->mode == STEER_ABLATE ? "zero, " : "zero, flipped, ", plan->n_controls, plan->phase2 ? " and as many matched latents" : "; no phase 2, no matched latents");
    if (dose)
        fprintf(out, "dose        %lld problems of the tuning split x %lld side%s x up to %lld arms: %lld coefficients x %d random%s\n", (long long)tuning->n_problems,
                (long long)sides, plural, (long long)dose, (long long)pushes, plan->n_dose_controls, plan->phase2 ? " and as many matched latents" : "");
    else fprintf(out, "dose        no controls along the coefficients\n");
    fprintf(out, "batch       %d sequences of up to %lld tokens per rank: %.2f GiB besides the weights; %d rank%s\n", f->plan.batch, (long long)f->plan.max_tokens,
            (double)f->plan.session_bytes / 0x1p30, f->par.size, f->par.size > 1 ? "s" : "");
    fprintf(out, "to do       %lld completions, %s at phase 1's pace (steered ones run longer)\n", (long long)items, followup_estimate(f, items));
    fprintf(out, "to write    %.1f MB\n", (double)items * (double)f->plan.max_tokens * (4 + 2 * 4) / 1e6);
    fprintf(out, "sandbox     %s\n", f->sandbox.text);
}
