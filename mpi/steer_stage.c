/* steer: the stages. Which arms meet which problems. */
#include "steer_plan.h"

#include "pva/hash.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int add_row(struct steer_stage *stage, int layer, enum pva_hook_action action, const float *unit, int64_t d_model, int *bank, int *row,
                   struct pva_error *err) {
    int b = 0;
    while (b < stage->n_banks && (stage->banks[b].layer != layer || stage->banks[b].action != action)) b++;
    if (b == stage->n_banks) {
        struct steer_bank *more = realloc(stage->banks, (size_t)(b + 1) * sizeof *more);
        if (!more) return pva_fail(err, PVA_IO, "out of memory");
        stage->banks = more;
        more[stage->n_banks++] = (struct steer_bank){.layer = layer, .action = action};
    }
    struct steer_bank *to = &stage->banks[b];
    float *rows = realloc(to->rows, (size_t)((to->n + 1) * d_model) * sizeof *rows);
    if (!rows) return pva_fail(err, PVA_IO, "out of memory");
    to->rows = rows;
    memcpy(rows + to->n * d_model, unit, (size_t)d_model * sizeof *rows);
    *bank = b;
    *row = (int)to->n++;
    return PVA_OK;
}

/* One more arm that pushes along d. raw is the coefficient as it is added. */
static int add_arm(struct steer_stage *stage, const struct steer_plan *plan, int candidate, int kind, const struct pva_direction *d, double coefficient,
                   struct pva_error *err) {
    const struct steer_candidate *c = &plan->candidates[candidate];
    if (stage->n_arms == stage->arm_room) {
        int room = stage->arm_room ? 2 * stage->arm_room : 64;
        struct steer_arm *more = realloc(stage->arms, (size_t)room * sizeof *more);
        if (!more) return pva_fail(err, PVA_IO, "out of memory");
        stage->arms = more, stage->arm_room = room;
    }
    struct steer_arm *a = &stage->arms[stage->n_arms];
    *a = (struct steer_arm){.side = c->side, .kind = kind, .candidate = candidate, .layer = d->layer, .number = d->number, .coefficient = coefficient,
                            .raw = coefficient * c->scale};
    memcpy(a->name, d->name, sizeof a->name);
    /* Without a push an ablation's direction is added with coefficient 0: the same path for the one thing that must change nothing. */
    enum pva_hook_action action = plan->mode == STEER_ABLATE && kind != STEER_ZERO ? PVA_HOOK_ABLATE : PVA_HOOK_ADD;
    if (add_row(stage, d->layer, action, d->unit, d->d_model, &a->intervention, &a->row, err)) return err->code;
    stage->n_arms++;
    return PVA_OK;
}

static int choose_problems(struct steer_stage *stage, const struct steer_plan *plan, const struct followup *f, struct pva_error *err) {
    int64_t n = 0, kept = 0, *slots = NULL;
    if (followup_slots(f, stage->part, plan->limit, &slots, &n, err)) return err->code;
    for (int64_t i = 0; i < n; i++) {
        int passed = f->phase1.verdicts[slots[i]] == PVA_PASS;
        if ((passed && plan->failing_only) || (!passed && plan->passing_only) || (plan->open && !plan->open[slots[i]])) continue;
        slots[kept++] = slots[i];
    }
    stage->problems = slots;
    stage->n_problems = kept;
    if (kept == 0)
        pva_fail(err, PVA_INPUT, "the %s split has no %sproblem to steer (%lld graded%s)", pva_part_name((enum pva_part)stage->part),
                 plan->failing_only ? "failing " : plan->passing_only ? "passing " : "", (long long)n, plan->open ? ", the gate closed" : "");
    return err->code;
}

static int finish_stage(struct steer_stage *stage, const struct steer_plan *plan, const struct followup *f, struct pva_error *err) {
    struct pva_sha256 hash;
    uint8_t digest[PVA_SHA256_BYTES];
    stage->n_items = stage->n_problems * stage->n_arms;
    stage->costs = malloc((size_t)stage->n_items * sizeof *stage->costs);
    stage->interventions = calloc((size_t)stage->n_banks, sizeof *stage->interventions);
    if (!stage->costs || !stage->interventions) return pva_fail(err, PVA_IO, "out of memory");
    for (int64_t i = 0; i < stage->n_items; i++) stage->costs[i] = f->plan.costs[stage->problems[i / stage->n_arms]];
    pva_sha256_start(&hash);
    for (int b = 0; b < stage->n_banks; b++) {
        const struct steer_bank *bank = &stage->banks[b];
        stage->interventions[b] = (struct pva_intervention){.point = plan->point, .layer = bank->layer, .action = bank->action, .positions = plan->positions,
                                                            .n_directions = bank->n, .directions = bank->rows};
        pva_sha256_add(&hash, bank->rows, (size_t)(bank->n * f->phase1.d_model) * sizeof *bank->rows);
    }
    pva_sha256_finish(&hash, digest);
    pva_sha256_hex(digest, stage->directions_sha256);
    return PVA_OK;
}

int steer_stage_tuning(const struct steer_plan *plan, const struct followup *f, struct steer_stage *stage, struct pva_error *err) {
    *stage = (struct steer_stage){.name = "steer-tuning", .part = PVA_TUNING};
    if (choose_problems(stage, plan, f, err)) return err->code;
    for (int c = 0; c < plan->n_candidates; c++)
        for (int i = 0; i < plan->n_grid && !err->code; i++)
            add_arm(stage, plan, c, plan->grid[i] == 0 ? STEER_ZERO : STEER_TREATED, &plan->candidates[c].direction, plan->grid[i], err);
    return err->code ? err->code : finish_stage(stage, plan, f, err);
}

/* ---- controls ---- */

static const double matched_separation = 0.01; /* a matched latent tells right from wrong less than this */

struct match {
    int64_t latent;
    double distance;
};
static int nearer(const void *a, const void *b) {
    const struct match *x = a, *y = b;
    if (x->distance != y->distance) return x->distance < y->distance ? -1 : 1;
    return (x->latent > y->latent) - (x->latent < y->latent);
}

/* What a candidate is compared with: random directions and matched latents of its layer, both in a fixed order, so that the first few are always the same. */
struct controls {
    struct pva_direction *directions; /* [n] */
    int *kinds;
    int n;
};

static void controls_free(struct controls *c) {
    for (int i = 0; i < c->n; i++) pva_direction_free(&c->directions[i]);
    free(c->directions);
    free(c->kinds);
}

/* Latents of the same layer that tell nothing, the ones as often active as the candidate first. */
static int find_matched(struct controls *c, const struct steer_plan *plan, const struct followup *f, int candidate, int n_each, struct pva_error *err) {
    const struct steer_candidate *of = &plan->candidates[candidate];
    struct phase2_latent *latents = NULL;
    struct match *matches = NULL;
    struct pva_sae *sae = NULL;
    int64_t n = 0, found = 0;
    if (!plan->phase2 || !n_each || isnan(of->firing_rate)) return PVA_OK;
    if (phase2_layer(plan->phase2, of->direction.layer, &latents, &n, err)) return err->code;
    matches = malloc((size_t)(n + 1) * sizeof *matches);
    if (!matches) pva_fail(err, PVA_IO, "out of memory");
    for (int64_t i = 0; i < n && !err->code; i++) {
        double rate = steer_firing_rate(f, &latents[i]);
        if (!(fabs(latents[i].separation) < matched_separation) || !(rate > 0) || latents[i].latent == of->direction.number) continue;
        matches[found++] = (struct match){latents[i].latent, fabs(rate - of->firing_rate)};
    }
    if (!err->code && found) {
        qsort(matches, (size_t)found, sizeof *matches, nearer);
        steer_open_sae(plan, f, of->direction.layer, &sae, err);
    }
    for (int64_t i = 0; i < found && i < n_each && !err->code; i++)
        if (!pva_direction_from_latent(sae, of->direction.layer, matches[i].latent, &c->directions[c->n], err)) c->kinds[c->n++] = STEER_MATCHED;
    pva_sae_close(&sae);
    free(matches);
    free(latents);
    return err->code;
}

/* At most n_each of each kind. Free with controls_free, also after a failure. */
static int controls_find(struct controls *c, const struct steer_plan *plan, const struct followup *f, int candidate, int n_each, struct pva_error *err) {
    const struct pva_direction *of = &plan->candidates[candidate].direction;
    size_t room = 2 * (size_t)n_each + 1;
    *c = (struct controls){.directions = calloc(room, sizeof *c->directions), .kinds = calloc(room, sizeof *c->kinds)};
    if (!c->directions || !c->kinds) return pva_fail(err, PVA_IO, "out of memory");
    for (int k = 0; k < n_each; k++) {
        int64_t number = (int64_t)plan->candidates[candidate].side * 100000 + k;
        if (pva_direction_random((uint64_t)f->plan.seed, of->layer, number, of->d_model, &c->directions[c->n], err)) return err->code;
        c->kinds[c->n++] = STEER_RANDOM;
    }
    return find_matched(c, plan, f, candidate, n_each, err);
}

static int add_controls(struct steer_stage *stage, const struct steer_plan *plan, int candidate, const struct controls *c, double coefficient, struct pva_error *err) {
    for (int i = 0; i < c->n && !err->code; i++) add_arm(stage, plan, candidate, c->kinds[i], &c->directions[i], coefficient, err);
    return err->code;
}

int steer_stage_validation(const struct steer_plan *plan, const struct followup *f, const struct steer_arm *const chosen[STEER_N_SIDES],
                           struct steer_stage *stage, struct pva_error *err) {
    *stage = (struct steer_stage){.name = "steer", .part = PVA_VALIDATION};
    if (choose_problems(stage, plan, f, err)) return err->code;
    for (int side = 0; side < STEER_N_SIDES && !err->code; side++) {
        if (!chosen[side]) continue;
        struct controls controls;
        int candidate = chosen[side]->candidate;
        double coefficient = chosen[side]->coefficient;
        const struct pva_direction *d = &plan->candidates[candidate].direction;
        if (add_arm(stage, plan, candidate, STEER_TREATED, d, coefficient, err) || add_arm(stage, plan, candidate, STEER_ZERO, d, 0, err) ||
            (plan->mode != STEER_ABLATE && add_arm(stage, plan, candidate, STEER_FLIPPED, d, -coefficient, err)))
            return err->code;
        if (!controls_find(&controls, plan, f, candidate, plan->n_controls, err)) add_controls(stage, plan, candidate, &controls, coefficient, err);
        controls_free(&controls);
    }
    return err->code ? err->code : finish_stage(stage, plan, f, err);
}

int steer_stage_dose(const struct steer_plan *plan, const struct followup *f, const struct steer_arm *const chosen[STEER_N_SIDES], struct steer_stage *stage,
                     struct pva_error *err) {
    *stage = (struct steer_stage){.name = "steer-dose", .part = PVA_TUNING};
    if (choose_problems(stage, plan, f, err)) return err->code;
    for (int side = 0; side < STEER_N_SIDES && !err->code; side++) {
        if (!chosen[side]) continue;
        struct controls controls;
        controls_find(&controls, plan, f, chosen[side]->candidate, plan->n_dose_controls, err);
        for (int i = 0; i < plan->n_grid && !err->code; i++)
            if (plan->grid[i] != 0) add_controls(stage, plan, chosen[side]->candidate, &controls, plan->grid[i], err);
        controls_free(&controls);
    }
    return err->code ? err->code : finish_stage(stage, plan, f, err);
}

void steer_stage_free(struct steer_stage *stage) {
    for (int b = 0; b < stage->n_banks; b++) free(stage->banks[b].rows);
    free(stage->banks);
    free(stage->interventions);
    free(stage->problems);
    free(stage->costs);
    free(stage->arms);
    memset(stage, 0, sizeof *stage);
}
