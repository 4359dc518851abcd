#include "steer_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 1 };

static int allocate(struct steer_schema *s, const struct steer_stage *stage, struct pva_error *err) {
    size_t problems = (size_t)stage->n_problems, items = (size_t)stage->n_items, arms = (size_t)stage->n_arms;
    s->task_ids = calloc(problems, sizeof *s->task_ids), s->slot_of = calloc(problems, sizeof *s->slot_of);
    s->item_problem = calloc(items, sizeof *s->item_problem), s->item_arm = calloc(items, sizeof *s->item_arm);
    s->side = calloc(arms, 1), s->kind = calloc(arms, 1), s->layer = calloc(arms, sizeof *s->layer), s->number = calloc(arms, sizeof *s->number);
    s->coefficient = calloc(arms, sizeof *s->coefficient), s->raw = calloc(arms, sizeof *s->raw), s->names = calloc(arms, sizeof *s->names);
    if (!s->task_ids || !s->slot_of || !s->item_problem || !s->item_arm || !s->side || !s->kind || !s->layer || !s->number || !s->coefficient || !s->raw ||
        !s->names)
        return pva_fail(err, PVA_IO, "out of memory");
    return PVA_OK;
}

static void fill_coordinates(struct steer_schema *s, const struct steer_stage *stage, const struct followup *f) {
    struct store_dim item = {"item", stage->n_items}, problem = {"problem", stage->n_problems}, arm = {"arm", stage->n_arms};
    for (int64_t i = 0; i < stage->n_problems; i++) {
        memcpy(s->task_ids[i], f->plan.problems.task_ids[stage->problems[i]], PHASE1_TASK_ID);
        s->slot_of[i] = (int32_t)stage->problems[i];
    }
    for (int64_t i = 0; i < stage->n_items; i++) s->item_problem[i] = (int32_t)(i / stage->n_arms), s->item_arm[i] = (int32_t)(i % stage->n_arms);
    for (int a = 0; a < stage->n_arms; a++) {
        const struct steer_arm *from = &stage->arms[a];
        s->side[a] = (uint8_t)from->side, s->kind[a] = (uint8_t)from->kind, s->layer[a] = from->layer, s->number[a] = from->number;
        s->coefficient[a] = from->coefficient, s->raw[a] = from->raw;
        memcpy(s->names[a], from->name, sizeof s->names[a]);
    }
    const struct store_coordinate all[STEER_N_COORDINATES] = {
        {{.name = "task_id", .type = STORE_BYTES, .text_size = PHASE1_TASK_ID, .n_dims = 1, .dims = {problem}, .long_name = "task id of the problem"}, s->task_ids, 1},
        {{.name = "phase1_slot", .type = STORE_I32, .n_dims = 1, .dims = {problem}, .long_name = "slot of the problem in phase1.h5"}, s->slot_of, 1},
        {{.name = "item_problem", .type = STORE_I32, .n_dims = 1, .dims = {item}, .long_name = "place of the item's problem"}, s->item_problem, 1},
        {{.name = "item_arm", .type = STORE_I32, .n_dims = 1, .dims = {item}, .long_name = "the item's arm"}, s->item_arm, 1},
        {{.name = "arm_name", .type = STORE_BYTES, .text_size = STEER_NAME, .n_dims = 1, .dims = {arm}, .long_name = "direction of the arm"}, s->names, 1},
        {{.name = "arm_side", .type = STORE_U8, .n_dims = 1, .dims = {arm}, .long_name = "0 correct, 1 incorrect, 2 given: what the tested direction is meant to do"}, s->side, 1},
        {{.name = "arm_kind", .type = STORE_U8, .n_dims = 1, .dims = {arm}, .long_name = "0 treated, 1 zero, 2 flipped, 3 random, 4 matched latent"}, s->kind, 1},
        {{.name = "arm_layer", .type = STORE_I32, .n_dims = 1, .dims = {arm}, .long_name = "layer of the model"}, s->layer, 1},
        {{.name = "arm_coefficient", .type = STORE_F64, .n_dims = 1, .dims = {arm}, .long_name = "coefficient, in the units of the attribute units"}, s->coefficient, 1},
        {{.name = "arm_raw", .type = STORE_F64, .n_dims = 1, .dims = {arm}, .long_name = "what is added along the unit vector"}, s->raw, 1},
    };
    memcpy(s->coordinates, all, sizeof all);
}

static void fill_attributes(struct steer_schema *s, const struct steer_plan *plan, const struct steer_stage *stage, const struct followup *f) {
    static const char *const modes[] = {"add", "ablate", "gated"};
    int n = followup_attributes(f, s->attributes);
    const struct store_attribute own[] = {
        {.name = "temperature", .kind = STORE_REAL, .real = f->plan.temperature, .identity = 1},
        {.name = "mode", .kind = STORE_TEXT, .text = modes[plan->mode], .identity = 1},
        {.name = "steer_point", .kind = STORE_TEXT, .text = pva_point_name(plan->point), .identity = 1},
        {.name = "steer_positions", .kind = STORE_TEXT, .text = pva_positions_name(plan->positions), .identity = 1},
        {.name = "units", .kind = STORE_TEXT, .text = pva_coefficient_units_name(plan->units), .identity = 1},
        {.name = "alignment", .kind = STORE_TEXT, .text = plan->alignment, .identity = 1},
        {.name = "directions_sha256", .kind = STORE_TEXT, .text = stage->directions_sha256, .identity = 1},
        {.name = "autoencoders_sha256", .kind = STORE_TEXT, .text = plan->sae_fingerprints, .identity = 1},
        {.name = "part", .kind = STORE_TEXT, .text = pva_part_name((enum pva_part)stage->part), .identity = 1},
        {.name = "gate_layer", .kind = STORE_INTEGER, .integer = plan->open ? plan->gate_layer : -1, .identity = 1},
        {.name = "gate_latent", .kind = STORE_INTEGER, .integer = plan->open ? plan->gate_latent : -1, .identity = 1},
        {.name = "gate_threshold", .kind = STORE_REAL, .real = plan->open ? plan->gate_threshold : 0, .identity = 1},
    };
    PVA_ASSERT(n + (int)(sizeof own / sizeof *own) <= STEER_MOST_ATTRIBUTES);
    memcpy(s->attributes + n, own, sizeof own);
    s->store.attributes = s->attributes;
    s->store.n_attributes = n + (int)(sizeof own / sizeof *own);
}

int steer_schema_fill(struct steer_schema *s, const struct steer_plan *plan, const struct steer_stage *stage, const struct followup *f,
                      struct pva_error *err) {
    memset(s, 0, sizeof *s);
    if (allocate(s, stage, err)) return err->code;
    int64_t shortest = f->plan.max_tokens - 1;
    for (int64_t i = 0; i < f->plan.problems.n; i++)
        if (f->plan.costs[i] < shortest) shortest = f->plan.costs[i];
    record_fields(s->fields, f->plan.max_tokens - shortest);
    s->fields[STEER_SIMILARITY] = (struct store_field){
        .name = "similarity", .type = STORE_F64, .long_name = "to the unsteered completion: 1 - edit distance / longer length, over tokens; 1: the same"};
    fill_coordinates(s, stage, f);
    snprintf(s->name, sizeof s->name, "pva-%s", stage->name);
    s->store = (struct store_schema){
        .name = s->name,
        .version = VERSION,
        .title = "completions and verdicts of problems under steering",
        .source = "pva-mpi steer",
        .slot = {"item", stage->n_items},
        .states = "empty done prompt-too-long",
        .fields = s->fields,
        .n_fields = STEER_N_FIELDS,
        .coordinates = s->coordinates,
        .n_coordinates = STEER_N_COORDINATES,
    };
    fill_attributes(s, plan, stage, f);
    return PVA_OK;
}

void steer_schema_free(struct steer_schema *s) {
    free(s->task_ids), free(s->slot_of), free(s->item_problem), free(s->item_arm), free(s->side), free(s->kind), free(s->layer), free(s->number);
    free(s->coefficient), free(s->raw), free(s->names);
    memset(s, 0, sizeof *s);
}

int steer_outcomes_read(struct store *s, struct steer_outcomes *out, struct pva_error *err) {
    size_t n = (size_t)store_n_slots(s);
    out->states = malloc(n), out->verdicts = malloc(n), out->degenerate = malloc(n), out->similarity = malloc(n * sizeof *out->similarity);
    if (!out->states || !out->verdicts || !out->degenerate || !out->similarity) return pva_fail(err, PVA_IO, "out of memory");
    if (store_states(s, out->states, err) || store_read_range(s, RECORD_VERDICT, 0, (int64_t)n, out->verdicts, err) ||
        store_read_range(s, RECORD_FINISH, 0, (int64_t)n, out->degenerate, err) ||
        store_read_range(s, STEER_SIMILARITY, 0, (int64_t)n, out->similarity, err))
        return err->code;
    for (size_t i = 0; i < n; i++) out->degenerate[i] = (uint8_t)record_degenerate(out->degenerate[i], out->verdicts[i]);
    return PVA_OK;
}

void steer_outcomes_free(struct steer_outcomes *out) {
    free(out->states), free(out->verdicts), free(out->degenerate), free(out->similarity);
    memset(out, 0, sizeof *out);
}
