/* export: the tables of phase 2 and of steering. */
#include "export.h"
#include "phase1_read.h"
#include "phase2_read.h"
#include "steer_schema.h"

#include "pva/grade.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_LAYERS = 256 };

static int is_there(const char *run, const char *file) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", run, file);
    return !access(path, F_OK);
}

/* ---- latents ---- */

/* Which members of struct phase2_latent become columns, besides layer and latent. */
#define REAL(member) {#member, offsetof(struct phase2_latent, member)}
static const struct {
    const char *name;
    size_t offset;
} reals[] = {
    REAL(f_correct),      REAL(f_incorrect),     REAL(mean_correct),     REAL(mean_incorrect), REAL(pile_rate),
    REAL(separation),     REAL(separation_low),  REAL(separation_high),  REAL(t),              REAL(df),
    REAL(p),              REAL(familywise_p),    REAL(q),                REAL(validation_separation), REAL(mean_active),
};
#undef REAL
enum { N_REALS = sizeof reals / sizeof *reals };

static int gather_latents(struct phase2 *p, struct phase2_latent **all, int64_t *n, struct pva_error *err) {
    for (int layer = 0; layer < MOST_LAYERS && !err->code; layer++) {
        struct phase2_latent *some = NULL;
        int64_t more = 0;
        if (!phase2_sae_path(p, layer) || phase2_layer(p, layer, &some, &more, err)) continue;
        struct phase2_latent *grown = realloc(*all, (size_t)(*n + more) * sizeof **all);
        if (!grown) pva_fail(err, PVA_IO, "out of memory");
        else {
            *all = grown;
            memcpy(grown + *n, some, (size_t)more * sizeof *some);
            *n += more;
        }
        free(some);
    }
    return err->code;
}

int export_latents(const char *run, enum pva_table_format format, struct pva_error *err) {
    struct phase2 *p = NULL;
    struct phase2_latent *all = NULL;
    int64_t n = 0;
    if (!is_there(run, "phase2-selection.h5") || phase2_open(run, &p, err)) return err->code;
    gather_latents(p, &all, &n, err);
    int32_t *layer = malloc((size_t)n * sizeof *layer + 1), *latent = malloc((size_t)n * sizeof *latent + 1);
    double *values = malloc((size_t)n * N_REALS * sizeof *values + 1);
    if (!err->code && (!layer || !latent || !values)) pva_fail(err, PVA_IO, "out of memory");
    if (!err->code) {
        struct pva_column columns[2 + N_REALS] = {{"layer", PVA_COLUMN_I32, layer}, {"latent", PVA_COLUMN_I32, latent}};
        for (int64_t i = 0; i < n; i++) layer[i] = all[i].layer, latent[i] = all[i].latent;
        for (int c = 0; c < N_REALS; c++) {
            for (int64_t i = 0; i < n; i++) memcpy(&values[c * n + i], (const char *)&all[i] + reals[c].offset, sizeof *values);
            columns[2 + c] = (struct pva_column){reals[c].name, PVA_COLUMN_F64, values + c * n};
        }
        const struct pva_table table = {n, 2 + N_REALS, columns};
        export_table(run, "latents", &table, format, err);
    }
    free(layer), free(latent), free(values), free(all);
    phase2_close(&p);
    return err->code;
}

/* ---- steered completions ---- */

struct steered {
    struct store *s;
    struct phase1_data phase1;
    int64_t n, n_problems, n_arms;
    int32_t *phase1_slot, *item_problem, *item_arm, *arm_layer;
    uint8_t *states, *verdicts, *side, *kind;
    double *coefficient, *raw, *similarity;
    char (*names)[STEER_NAME];
    /* columns */
    const char **task_id, **side_name, **kind_name, **direction, **unsteered, **verdict, **program;
    int32_t *layer;
    double *column_coefficient, *column_raw;
};

static void *array(int64_t n, size_t size, struct pva_error *err) {
    void *p = calloc((size_t)n + 1, size);
    if (!p && !err->code) pva_fail(err, PVA_IO, "out of memory");
    return p;
}

#define READ(name, type, target, count) store_read_coordinate(x->s, name, type, target, (size_t)(count) * sizeof *(target), err)

static int read_steered(const char *run, struct steered *x, struct pva_error *err) {
    char path[4096];
    struct store_field fields[STEER_N_FIELDS] = {0};
    record_fields(fields, 0);
    fields[STEER_SIMILARITY] = (struct store_field){.name = "similarity", .type = STORE_F64};
    const struct store_schema schema = {.name = "pva-steer", .version = 1, .slot = {"item", 0}, .fields = fields, .n_fields = STEER_N_FIELDS};
    snprintf(path, sizeof path, "%s/steer.h5", run);
    if (phase1_open(run, &x->phase1, err) || store_open_read(path, &schema, &x->s, err)) return err->code;
    x->n = store_n_slots(x->s);
    x->item_problem = array(x->n, sizeof(int32_t), err), x->item_arm = array(x->n, sizeof(int32_t), err);
    if (err->code || READ("item_problem", STORE_I32, x->item_problem, x->n) || READ("item_arm", STORE_I32, x->item_arm, x->n)) return err->code;
    for (int64_t i = 0; i < x->n; i++) {
        if (x->item_problem[i] >= x->n_problems) x->n_problems = x->item_problem[i] + 1;
        if (x->item_arm[i] >= x->n_arms) x->n_arms = x->item_arm[i] + 1;
    }
    x->phase1_slot = array(x->n_problems, sizeof(int32_t), err), x->arm_layer = array(x->n_arms, sizeof(int32_t), err);
    x->side = array(x->n_arms, 1, err), x->kind = array(x->n_arms, 1, err), x->names = array(x->n_arms, sizeof *x->names, err);
    x->coefficient = array(x->n_arms, sizeof(double), err), x->raw = array(x->n_arms, sizeof(double), err);
    x->states = array(x->n, 1, err), x->verdicts = array(x->n, 1, err), x->similarity = array(x->n, sizeof(double), err);
    if (err->code || READ("phase1_slot", STORE_I32, x->phase1_slot, x->n_problems) || READ("arm_layer", STORE_I32, x->arm_layer, x->n_arms) ||
        READ("arm_side", STORE_U8, x->side, x->n_arms) || READ("arm_kind", STORE_U8, x->kind, x->n_arms) || READ("arm_name", STORE_BYTES, x->names, x->n_arms) ||
        READ("arm_coefficient", STORE_F64, x->coefficient, x->n_arms) || READ("arm_raw", STORE_F64, x->raw, x->n_arms) || store_states(x->s, x->states, err) ||
        store_read_range(x->s, RECORD_VERDICT, 0, x->n, x->verdicts, err))
        return err->code;
    return store_read_range(x->s, STEER_SIMILARITY, 0, x->n, x->similarity, err);
}
#undef READ

static int fill_columns(struct steered *x, int64_t *rows, struct pva_error *err) {
    const char ***texts[] = {&x->task_id, &x->side_name, &x->kind_name, &x->direction, &x->unsteered, &x->verdict, &x->program};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) *texts[i] = array(x->n, sizeof(char *), err);
    x->layer = array(x->n, sizeof(int32_t), err), x->column_coefficient = array(x->n, sizeof(double), err), x->column_raw = array(x->n, sizeof(double), err);
    for (int64_t i = 0; i < x->n && !err->code; i++) {
        int32_t problem = x->item_problem[i], arm = x->item_arm[i];
        if (x->states[i] == STORE_EMPTY) continue;
        int64_t slot = problem < 0 || arm < 0 ? -1 : x->phase1_slot[problem], row = *rows;
        if (slot < 0 || slot >= x->phase1.n || x->verdicts[i] >= PVA_N_VERDICTS || x->side[arm] >= STEER_N_SIDES || x->kind[arm] >= STEER_N_KINDS)
            return pva_fail(err, PVA_INPUT, "steer.h5: item %lld is damaged", (long long)i);
        char *program = array((int64_t)store_field_bytes(x->s, RECORD_PROGRAM), 1, err);
        if (!program || store_read(x->s, i, RECORD_PROGRAM, program, err)) {
            free(program);
            return err->code;
        }
        x->program[row] = program, x->task_id[row] = x->phase1.task_ids[slot], x->direction[row] = x->names[arm];
        x->side_name[row] = steer_side_name(x->side[arm]), x->kind_name[row] = steer_kind_name(x->kind[arm]);
        x->unsteered[row] = pva_verdict_name((enum pva_verdict)x->phase1.verdicts[slot]), x->verdict[row] = pva_verdict_name((enum pva_verdict)x->verdicts[i]);
        x->layer[row] = x->arm_layer[arm], x->column_coefficient[row] = x->coefficient[arm], x->column_raw[row] = x->raw[arm], x->similarity[row] = x->similarity[i];
        ++*rows;
    }
    return err->code;
}

static void free_steered(struct steered *x, int64_t rows) {
    struct pva_error ignored = {0};
    if (x->s) store_close(&x->s, &ignored);
    phase1_close(&x->phase1);
    for (int64_t i = 0; i < rows && x->program; i++) free((char *)x->program[i]);
    free(x->phase1_slot), free(x->item_problem), free(x->item_arm), free(x->arm_layer), free(x->states), free(x->verdicts), free(x->side), free(x->kind);
    free(x->coefficient), free(x->raw), free(x->similarity), free(x->names), free(x->layer), free(x->column_coefficient), free(x->column_raw);
    free(x->task_id), free(x->side_name), free(x->kind_name), free(x->direction), free(x->unsteered), free(x->verdict), free(x->program);
}

int export_steering(const char *run, enum pva_table_format format, struct pva_error *err) {
    struct steered x = {0};
    int64_t rows = 0;
    if (!is_there(run, "steer.h5")) return PVA_OK;
    if (!read_steered(run, &x, err) && !fill_columns(&x, &rows, err)) {
        const struct pva_column columns[] = {
            {"task_id", PVA_COLUMN_TEXT, x.task_id},
            {"side", PVA_COLUMN_TEXT, x.side_name},
            {"arm", PVA_COLUMN_TEXT, x.kind_name},
            {"direction", PVA_COLUMN_TEXT, x.direction},
            {"layer", PVA_COLUMN_I32, x.layer},
            {"coefficient", PVA_COLUMN_F64, x.column_coefficient},
            {"raw", PVA_COLUMN_F64, x.column_raw},
            {"unsteered", PVA_COLUMN_TEXT, x.unsteered},
            {"verdict", PVA_COLUMN_TEXT, x.verdict},
            {"similarity", PVA_COLUMN_F64, x.similarity},
            {"program", PVA_COLUMN_TEXT, x.program},
        };
        int n_columns = sizeof columns / sizeof *columns;
        const struct pva_table table = {rows, format == PVA_TABLE_CSV ? n_columns - 1 : n_columns, columns};
        export_table(run, "steering", &table, format, err);
    }
    free_steered(&x, rows);
    return err->code;
}
