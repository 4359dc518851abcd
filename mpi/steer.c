/* steer: does pushing along a direction change what the model writes, more than controls do? */
#include "commands.h"
#include "dispatch.h"
#include "steer_report.h"

#include "pva/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct pva_option pva_steer_options[] = {
    {"latent", PVA_OPT_TEXT, "L:J", NULL, "steer along latent J of layer L, instead of phase 2's best", NULL, 0, 0},
    {"vector", PVA_OPT_TEXT, "FILE", NULL, "steer along a vector of d_model numbers (.npy), added at --layer", NULL, 0, 0},
    {"layer", PVA_OPT_INT, "L", "0", "of --vector", NULL, 0, 1000},
    {"top", PVA_OPT_INT, "N", "1", "candidates from each of phase 2's lists, compared on the tuning split", NULL, 1, 100},
    {"coefficients", PVA_OPT_TEXT, "GRID", "-1:1:0.2", "LOW:HIGH:STEP or a list with commas", NULL, 0, 0},
    {"coefficient-units", PVA_OPT_CHOICE, "U", "norm", "x mean residual norm, as it is, x mean activation of the latent", "norm|raw|activation", 0, 0},
    {"steer-positions", PVA_OPT_CHOICE, "P", "all", "every one; the prompt's last and every generated one; generated ones", "all|last|generated", 0, 0},
    {"mode", PVA_OPT_CHOICE, "MODE", "add", "add c d; remove d (h - (h.d) d); add only where a predictor of failure is above its threshold", "add|ablate|gated", 0, 0},
    {"gate", PVA_OPT_TEXT, "L:J", NULL, "the predictor of --mode gated; default: phase 2's best by t", NULL, 0, 0},
    {"gate-threshold", PVA_OPT_REAL, "X", NULL, "open the gate above this activation; default: the best F1 on the tuning split", NULL, 0, 0},
    {"controls", PVA_OPT_INT, "K", "20", "random directions, and matched latents, per tested direction", NULL, 0, 1000},
    {"dose-controls", PVA_OPT_INT, "K", "2", "the first K of these meet every coefficient, on the tuning split: the band of the dose-response", NULL, 0, 1000},
    {"correction-only", PVA_OPT_FLAG, NULL, "no", "steer only problems that fail unsteered", NULL, 0, 0},
    {"corruption-only", PVA_OPT_FLAG, NULL, "no", "steer only problems that pass unsteered", NULL, 0, 0},
    {"sae", PVA_OPT_TEXT, "DIR", NULL, "autoencoders for --latent and --gate where phase 2 has none", NULL, 0, 0},
    {"width", PVA_OPT_TEXT, "W", NULL, "of --sae: 16k, 131k ...", NULL, 0, 0},
    {"l0", PVA_OPT_TEXT, "L0", NULL, "of --sae: canonical, smallest, largest, or a number", NULL, 0, 0},
    {"level", PVA_OPT_REAL, "P", "0.95", "confidence level of intervals", NULL, 0.5, 0.9999},
    {"alpha", PVA_OPT_REAL, "A", "0.05", "significance level of the power figures", NULL, 0.0001, 0.5},
    {"json", PVA_OPT_FLAG, NULL, "no", "the summary as JSON on standard output, instead of tables", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

struct steer {
    struct followup f;
    struct steer_plan plan;
    struct steer_stage stages[STEER_N_STAGES];
    struct steer_result results[STEER_N_STAGES];
    /* of the stage under way */
    struct steer_stage *stage;
    struct steer_schema schema;
    struct campaign campaign;
    double start;
};

static int64_t problem_of(void *user, int64_t item) {
    const struct steer *s = user;
    return s->stage->problems[item / s->stage->n_arms];
}

static void amend_request(void *user, int64_t item, struct pva_request *r) {
    const struct steer *s = user;
    const struct steer_arm *a = &s->stage->arms[item % s->stage->n_arms];
    r->intervention = a->intervention;
    r->direction = a->row;
    r->coefficient = (float)a->raw;
}

/* How much of the unsteered completion is left. */
static int compare_with_unsteered(struct steer *s, const struct phase1_item *item, double *similarity, struct pva_error *err) {
    struct store *phase1 = s->f.phase1.store;
    int64_t slot = problem_of(s, item->slot);
    int32_t n_prompt, n_new, *tokens = malloc(store_field_bytes(phase1, PHASE1_TOKENS));
    if (!tokens) return pva_fail(err, PVA_IO, "out of memory");
    if (!store_read(phase1, slot, PHASE1_N_PROMPT, &n_prompt, err) && !store_read(phase1, slot, PHASE1_N_NEW, &n_new, err) &&
        !store_read(phase1, slot, PHASE1_TOKENS, tokens, err)) {
        *similarity = pva_token_similarity(tokens + n_prompt, n_new, item->tokens, item->n_new);
        if (isnan(*similarity)) pva_fail(err, PVA_IO, "out of memory");
    }
    free(tokens);
    return err->code;
}

static int store_item(void *user, const struct phase1_item *item, const struct pva_grade_result *grade, struct pva_error *err) {
    struct steer *s = user;
    double similarity;
    if (compare_with_unsteered(s, item, &similarity, err) || record_write(item, grade, s->campaign.results, err) ||
        store_write(s->campaign.results, item->slot, STEER_SIMILARITY, &similarity, err))
        return err->code;
    return store_commit(s->campaign.results, item->slot, STORE_DONE, err);
}

static int store_too_long(void *user, int64_t item, const struct phase1_prompt *prompt, struct pva_error *err) {
    struct steer *s = user;
    (void)prompt;
    if (record_write_none(s->campaign.results, item, err)) return err->code;
    return store_commit(s->campaign.results, item, PHASE1_TOO_LONG, err);
}

/* Collective. Computes a planned stage to its end and counts it. */
static int run_stage(struct steer *s, int which, struct pva_error *err) {
    struct steer_stage *stage = &s->stages[which];
    struct steer_outcomes outcomes = {0};
    struct pva_error late = {0};
    char file[64];
    int outcome = DISPATCH_COMPLETE;
    const struct pva_options *o = s->f.options;
    s->stage = stage;
    snprintf(file, sizeof file, "%s.h5", stage->name);
    steer_schema_fill(&s->schema, &s->plan, stage, &s->f, err);
    if (par_agree(&s->f.par, "plan the stage", err)) goto done;
    struct campaign_what what = {
        .phase = stage->name,
        .unit = "completions",
        .file = file,
        .results = &s->schema.store,
        .verdict_field = RECORD_VERDICT,
        .n = stage->n_items,
        .costs = stage->costs,
        .interventions = stage->interventions,
        .n_interventions = stage->n_banks,
        .user = s,
        .problem = problem_of,
        .request = amend_request,
        .store = store_item,
        .store_too_long = store_too_long,
    };
    if (campaign_open(&s->campaign, &what, o, &s->f.par, &s->f.run, &s->f.engine, &s->f.plan, s->f.grader, err) || campaign_run(&s->campaign, &outcome, err))
        goto done;
    if (outcome & DISPATCH_STOPPED) {
        pva_fail(err, PVA_STOPPED, "stopped; everything finished is stored, run the same command to go on");
        goto done;
    }
    if (!steer_outcomes_read(s->campaign.results, &outcomes, err))
        steer_result_make(&s->plan, stage, &s->f, &outcomes, pva_options_real(o, "level"), &s->results[which], err);
    par_agree(&s->f.par, "count", err);
done:
    campaign_close(&s->campaign, &late);
    steer_outcomes_free(&outcomes);
    steer_schema_free(&s->schema);
    par_agree(&s->f.par, "close the stage", &late);
    if (late.code && !err->code) *err = late;
    return err->code;
}

static json_t *facts(const struct steer *s) {
    json_t *o = json_pack("{s:s,s:s,s:s,s:s}", "point", pva_point_name(s->plan.point), "positions", pva_positions_name(s->plan.positions), "units",
                          pva_coefficient_units_name(s->plan.units), "sandbox", s->f.sandbox.text);
    json_t *list = json_array();
    for (int i = 0; i < s->plan.n_candidates; i++) json_array_append_new(list, json_string(s->plan.candidates[i].direction.name));
    json_object_set_new(o, "candidates", list);
    return o;
}

static int write_report(struct steer *s, struct pva_error *err) {
    const struct pva_options *o = s->f.options;
    int json = pva_options_flag(o, "json");
    int64_t items = 0;
    struct steer_report report = {&s->plan, &s->f, s->stages, s->results, pva_options_real(o, "level"), pva_options_real(o, "alpha"), NULL, 0};
    if (!steer_dose_points(s->stages, s->results, report.level, report.alpha, &report.dose, &report.n_dose, err) &&
        !steer_report_write(&report, json ? stdout : NULL, err) && !json)
        steer_report_print(&report, stdout);
    free(report.dose);
    fflush(stdout); /* the line on stderr comes after it, also where mpirun joins the two */
    for (int i = 0; i < STEER_N_STAGES; i++) items += s->stages[i].n_items;
    if (!err->code && !s->f.quiet)
        fprintf(stderr, "pva-mpi: steer: %lld completions, %.1f s on %d rank%s; %s/steer-summary.json\n", (long long)items, engine_now() - s->start, s->f.par.size,
                s->f.par.size > 1 ? "s" : "", s->f.run.directory);
    return err->code;
}

static int run_phase(struct steer *s, struct pva_error *err) {
    const struct steer_arm *chosen[STEER_N_SIDES];
    const struct pva_options *o = s->f.options;
    if (followup_open_run(&s->f, s->f.par.rank ? NULL : facts(s), err)) return err->code;
    s->start = engine_now();
    if (run_stage(s, STEER_TUNING, err)) return err->code;
    if (!steer_choose(&s->stages[STEER_TUNING], &s->results[STEER_TUNING], chosen, err))
        steer_stage_validation(&s->plan, &s->f, chosen, &s->stages[STEER_VALIDATION], err);
    if (par_agree(&s->f.par, "choose coefficients", err) || run_stage(s, STEER_VALIDATION, err)) return err->code;
    if (steer_plan_has_dose(&s->plan)) {
        steer_stage_dose(&s->plan, &s->f, chosen, &s->stages[STEER_DOSE], err);
        if (par_agree(&s->f.par, "plan the controls", err) || run_stage(s, STEER_DOSE, err)) return err->code;
    }
    steer_result_effects(&s->stages[STEER_VALIDATION], pva_options_real(o, "level"), pva_options_real(o, "alpha"), &s->results[STEER_VALIDATION], err);
    if (!err->code && s->f.par.rank == 0) write_report(s, err);
    return par_agree(&s->f.par, "report", err);
}

int pva_command_steer(const struct pva_options *o, struct pva_error *err) {
    struct steer s = {0};
    struct pva_error late = {0};
    if (!followup_open(&s.f, "steer", o, err)) {
        if (!steer_plan_make(&s.plan, &s.f, err)) steer_stage_tuning(&s.plan, &s.f, &s.stages[STEER_TUNING], err);
        if (!par_agree(&s.f.par, "plan", err)) {
            if (!s.f.dry_run) run_phase(&s, err);
            else if (s.f.par.rank == 0) steer_plan_print(&s.plan, &s.f, &s.stages[STEER_TUNING], stdout);
        }
    }
    for (int i = 0; i < STEER_N_STAGES; i++) {
        steer_result_free(&s.results[i]);
        steer_stage_free(&s.stages[i]);
    }
    steer_plan_free(&s.plan);
    return followup_close(&s.f, &late, err);
}
