#include "steer_summary.h"

#include "pva/multiple.h"
#include "pva/power.h"
#include "pva/rates.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The problems of the stage's part in slot order, and where each stands in the stage; -1 behind a closed gate. */
struct judged {
    int64_t n, *slots, *place;
    unsigned char *before, *after, *degenerate;
    double *similarity;
};

static void judged_free(struct judged *j) { free(j->slots), free(j->place), free(j->before), free(j->after), free(j->degenerate), free(j->similarity); }

static int judged_make(const struct steer_plan *plan, const struct steer_stage *stage, const struct followup *f, struct judged *j, struct pva_error *err) {
    int64_t n = 0, at = 0;
    if (followup_slots(f, stage->part, plan->limit, &j->slots, &n, err)) return err->code;
    j->place = malloc((size_t)(n + 1) * sizeof *j->place), j->similarity = malloc((size_t)(n + 1) * sizeof *j->similarity);
    j->before = malloc((size_t)n + 1), j->after = malloc((size_t)n + 1), j->degenerate = malloc((size_t)n + 1);
    if (!j->place || !j->similarity || !j->before || !j->after || !j->degenerate) return pva_fail(err, PVA_IO, "out of memory");
    for (int64_t i = 0; i < n; i++) {
        uint8_t verdict = f->phase1.verdicts[j->slots[i]];
        if ((verdict == PVA_PASS && plan->failing_only) || (verdict != PVA_PASS && plan->passing_only)) continue;
        j->slots[j->n] = j->slots[i];
        j->before[j->n] = verdict;
        int steered = at < stage->n_problems && stage->problems[at] == j->slots[j->n];
        j->place[j->n++] = steered ? at++ : -1;
    }
    PVA_ASSERT(at == stage->n_problems);
    return PVA_OK;
}

static int finish_of(const struct followup *f, int64_t slot, uint8_t *finish, struct pva_error *err) {
    return store_read(f->phase1.store, slot, PHASE1_FINISH, finish, err);
}

/* One arm's outcomes over all judged problems. Items not computed yet do not count (they are not there when a stage is complete). */
static int fill_arm(const struct steer_stage *stage, const struct followup *f, const struct steer_outcomes *o, int arm, struct judged *j, struct pva_error *err) {
    for (int64_t i = 0; i < j->n; i++) {
        uint8_t finish;
        if (j->place[i] < 0) {
            if (finish_of(f, j->slots[i], &finish, err)) return err->code;
            j->after[i] = j->before[i], j->similarity[i] = 1, j->degenerate[i] = (uint8_t)record_degenerate(finish, j->before[i]);
            continue;
        }
        int64_t item = j->place[i] * stage->n_arms + arm;
        j->after[i] = o->states[item] == STORE_EMPTY ? PVA_N_VERDICTS : o->verdicts[item];
        j->similarity[i] = o->similarity[item], j->degenerate[i] = o->degenerate[item];
    }
    return PVA_OK;
}

int steer_result_make(const struct steer_plan *plan, const struct steer_stage *stage, const struct followup *f, const struct steer_outcomes *o, double level,
                      struct steer_result *r, struct pva_error *err) {
    struct judged j = {0};
    double *p = malloc((size_t)stage->n_arms * sizeof *p);
    *r = (struct steer_result){.arms = calloc((size_t)stage->n_arms, sizeof *r->arms)};
    for (int side = 0; side < STEER_N_SIDES; side++) r->sides[side] = (struct steer_side_result){.treated = -1, .zero = -1, .flipped = -1, .mde_mcnemar = NAN};
    if (!p || !r->arms) pva_fail(err, PVA_IO, "out of memory");
    if (err->code || judged_make(plan, stage, f, &j, err)) goto done;
    r->n = j.n, r->n_open = stage->n_problems;
    for (int64_t i = 0; i < j.n; i++) r->n_passing += j.before[i] == PVA_PASS, r->n_failing += j.before[i] != PVA_PASS;
    for (int a = 0; a < stage->n_arms; a++) {
        if (fill_arm(stage, f, o, a, &j, err)) goto done;
        struct steer_arm_result *arm = &r->arms[a];
        const struct pva_pairs *pairs = &arm->counts.pairs;
        arm->counts = pva_steering_count(NULL, j.before, j.after, j.degenerate, j.similarity, j.n);
        arm->correction = pva_rate_clopper_pearson(pairs->gained, pairs->gained + pairs->neither, level);
        arm->corruption = pva_rate_clopper_pearson(pairs->lost, pairs->lost + pairs->both, level);
        arm->net = pva_pairs_newcombe(pairs, level);
        arm->mcnemar = pva_pairs_mcnemar(pairs->gained, pairs->lost, PVA_TWO_SIDED);
        arm->mid_p = pva_pairs_mcnemar_mid_p(pairs->gained, pairs->lost, PVA_TWO_SIDED);
        p[a] = stage->arms[a].kind == STEER_TREATED ? arm->mcnemar : NAN;
    }
    pva_adjust(PVA_HOLM, p, stage->n_arms, p, err);
    for (int a = 0; a < stage->n_arms; a++) r->arms[a].holm = p[a];
done:
    judged_free(&j);
    free(p);
    return err->code;
}

void steer_result_free(struct steer_result *r) {
    free(r->arms);
    memset(r, 0, sizeof *r);
}

/* What an arm that pushes is compared with: the controls of its side at its coefficient. */
struct rivals {
    const struct steer_stage *stage;
    const struct steer_result *result;
    int kind; /* STEER_RANDOM, STEER_MATCHED; -1: both */
};

static int is_rival(const struct rivals *c, int a, const struct steer_arm *of) {
    const struct steer_arm *arm = &c->stage->arms[a];
    if (arm->side != of->side || arm->coefficient != of->coefficient) return 0;
    return c->kind < 0 ? arm->kind == STEER_RANDOM || arm->kind == STEER_MATCHED : arm->kind == c->kind;
}

static int effect_against(const struct steer_arm *arm, const struct pva_pairs *own, const struct rivals *c, int corruption, double level, double alpha,
                          struct pva_effect *out, struct pva_error *err) {
    size_t room = (size_t)c->stage->n_arms + 1;
    int64_t *k = malloc(room * sizeof *k), *n = malloc(room * sizeof *n), controls = 0;
    if (!k || !n) pva_fail(err, PVA_IO, "out of memory");
    else {
        for (int a = 0; a < c->stage->n_arms; a++) {
            const struct pva_pairs *pairs = &c->result->arms[a].counts.pairs;
            if (!is_rival(c, a, arm)) continue;
            k[controls] = corruption ? pairs->lost : pairs->gained;
            n[controls++] = corruption ? pairs->lost + pairs->both : pairs->gained + pairs->neither;
        }
        pva_effect(corruption ? own->lost : own->gained, corruption ? own->lost + own->both : own->gained + own->neither, k, n, controls, level, alpha, 0.8, out,
                   err);
    }
    free(k);
    free(n);
    return err->code;
}

static int effects(const struct steer_stage *stage, const struct steer_result *r, int treated, int corruption, double level, double alpha,
                   struct steer_effects *out, struct pva_error *err) {
    const int kinds[] = {-1, STEER_RANDOM, STEER_MATCHED};
    struct pva_effect *const outs[] = {&out->all, &out->random, &out->matched};
    out->holm = NAN;
    for (int i = 0; i < 3 && !err->code; i++)
        effect_against(&stage->arms[treated], &r->arms[treated].counts.pairs, &(struct rivals){stage, r, kinds[i]}, corruption, level, alpha, outs[i], err);
    return err->code;
}

int steer_result_effects(const struct steer_stage *stage, double level, double alpha, struct steer_result *r, struct pva_error *err) {
    double p[2 * STEER_N_SIDES];
    for (int a = 0; a < stage->n_arms; a++) {
        struct steer_side_result *s = &r->sides[stage->arms[a].side];
        if (stage->arms[a].kind == STEER_TREATED) s->treated = a;
        if (stage->arms[a].kind == STEER_ZERO) s->zero = a;
        if (stage->arms[a].kind == STEER_FLIPPED) s->flipped = a;
    }
    for (int side = 0; side < STEER_N_SIDES; side++) {
        struct steer_side_result *s = &r->sides[side];
        p[2 * side] = p[2 * side + 1] = NAN;
        if (s->treated < 0) continue;
        if (effects(stage, r, s->treated, 0, level, alpha, &s->correction, err) || effects(stage, r, s->treated, 1, level, alpha, &s->corruption, err))
            return err->code;
        p[2 * side] = s->correction.all.p_binomial, p[2 * side + 1] = s->corruption.all.p_binomial;
        s->mde_mcnemar = r->n ? pva_mde_mcnemar(r->n, (double)r->arms[s->treated].counts.pairs.lost / (double)r->n, alpha, 0.8) : NAN;
    }
    if (pva_adjust(PVA_HOLM, p, 2 * STEER_N_SIDES, p, err)) return err->code;
    for (int side = 0; side < STEER_N_SIDES; side++) r->sides[side].correction.holm = p[2 * side], r->sides[side].corruption.holm = p[2 * side + 1];
    return PVA_OK;
}

/* ---- the dose-response ---- */

static double degenerate_rate(const struct steer_arm_result *x) { return x->counts.n ? (double)x->counts.degenerate / (double)x->counts.n : NAN; }

int steer_dose_points(const struct steer_stage stages[STEER_N_STAGES], const struct steer_result results[STEER_N_STAGES], double level, double alpha,
                      struct steer_dose_point **out, int *n, struct pva_error *err) {
    const struct steer_stage *tuning = &stages[STEER_TUNING], *validation = &stages[STEER_VALIDATION], *dose = &stages[STEER_DOSE];
    const struct rivals rivals = {dose, &results[STEER_DOSE], -1};
    int chosen[STEER_N_SIDES];
    *n = 0;
    *out = calloc((size_t)tuning->n_arms + 1, sizeof **out);
    if (!*out) return pva_fail(err, PVA_IO, "out of memory");
    for (int side = 0; side < STEER_N_SIDES; side++) {
        int treated = results[STEER_VALIDATION].sides[side].treated;
        chosen[side] = treated < 0 ? -1 : validation->arms[treated].candidate;
    }
    for (int a = 0; a < tuning->n_arms && !err->code; a++) {
        const struct steer_arm *arm = &tuning->arms[a];
        const struct steer_arm_result *x = &results[STEER_TUNING].arms[a];
        if (chosen[arm->side] != arm->candidate) continue;
        struct steer_dose_point *p = &(*out)[(*n)++];
        *p = (struct steer_dose_point){.arm = a, .degenerate = degenerate_rate(x), .degenerate_least = NAN, .degenerate_most = NAN};
        effect_against(arm, &x->counts.pairs, &rivals, 0, level, alpha, &p->correction, err);
        effect_against(arm, &x->counts.pairs, &rivals, 1, level, alpha, &p->corruption, err);
        for (int c = 0; c < dose->n_arms; c++) {
            if (!is_rival(&rivals, c, arm)) continue;
            p->n_controls++;
            double rate = degenerate_rate(&results[STEER_DOSE].arms[c]);
            p->degenerate_least = fmin(p->degenerate_least, rate), p->degenerate_most = fmax(p->degenerate_most, rate);
        }
    }
    return err->code;
}

/* ---- the choice ---- */

static double objective(int side, const struct pva_steering_counts *c) {
    const struct pva_pairs *p = &c->pairs;
    double failing = (double)(p->gained + p->neither), passing = (double)(p->lost + p->both);
    if (side == STEER_CORRECT) return (double)p->gained / failing;
    if (side == STEER_INCORRECT) return ((double)p->lost / passing + c->similarity_passing) / 2;
    return (double)(p->gained + p->lost) / (failing + passing);
}

static int is_better(int side, const struct steer_arm *a, const struct pva_steering_counts *ca, const struct steer_arm *b, const struct pva_steering_counts *cb) {
    double x = objective(side, ca), y = objective(side, cb);
    if (x != y) return x > y;
    if (side == STEER_CORRECT && ca->pairs.lost != cb->pairs.lost) return ca->pairs.lost < cb->pairs.lost;
    return fabs(a->coefficient) < fabs(b->coefficient);
}

int steer_choose(const struct steer_stage *stage, const struct steer_result *r, const struct steer_arm *chosen[STEER_N_SIDES], struct pva_error *err) {
    for (int side = 0; side < STEER_N_SIDES; side++) {
        int best = -1;
        chosen[side] = NULL;
        for (int a = 0; a < stage->n_arms; a++) {
            if (stage->arms[a].side != side || stage->arms[a].kind != STEER_TREATED) continue;
            if (best < 0 || is_better(side, &stage->arms[a], &r->arms[a].counts, &stage->arms[best], &r->arms[best].counts)) best = a;
        }
        if (best < 0) continue;
        if (side == STEER_CORRECT && !r->n_failing)
            return pva_fail(err, PVA_INPUT, "all %lld problems of the tuning split pass: there is nothing to correct; use --corruption-only", (long long)r->n);
        if (side == STEER_INCORRECT && !r->n_passing)
            return pva_fail(err, PVA_INPUT, "no problem of the tuning split passes: there is nothing to corrupt; use --correction-only");
        chosen[side] = &stage->arms[best];
    }
    return PVA_OK;
}
