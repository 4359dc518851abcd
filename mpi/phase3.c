/* phase3: how well phase 2's latents predict on held-out problems, at other temperatures and difficulties. */
#include "commands.h"
#include "dispatch.h"
#include "phase3_result.h"
#include "record.h"

#include "pva/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct pva_option pva_phase3_options[] = {
    {"top", PVA_OPT_INT, "N", "1", "latents from each of phase 2's lists", NULL, 1, 100},
    {"latent", PVA_OPT_TEXT, "L:J", NULL, "one more latent", NULL, 0, 0},
    {"temperatures", PVA_OPT_TEXT, "LIST", "0,0.5,1,1.5,2", "at which the validation problems are solved; phase 1's own is taken from there", NULL, 0, 0},
    {"samples", PVA_OPT_INT, "K", "3", "completions per problem at each temperature above 0", NULL, 1, PHASE3_MOST_SAMPLES},
    {"sae", PVA_OPT_TEXT, "DIR", NULL, "autoencoders for --latent where phase 2 has none", NULL, 0, 0},
    {"width", PVA_OPT_TEXT, "W", NULL, "of --sae: 16k, 131k ...", NULL, 0, 0},
    {"l0", PVA_OPT_TEXT, "L0", NULL, "of --sae: canonical, smallest, largest, or a number", NULL, 0, 0},
    {"level", PVA_OPT_REAL, "P", "0.95", "confidence level of intervals", NULL, 0.5, 0.9999},
    {"replicates", PVA_OPT_INT, "N", "2000", "bootstrap replicates of whole problems", NULL, 100, 1000000},
    {"json", PVA_OPT_FLAG, NULL, "no", "the summary as JSON on standard output, instead of tables", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

enum { MOST_TEMPERATURES = 32 };

/* Storage behind a schema; the schema points into it. */
struct phase3_schema {
    struct store_schema store;
    struct store_field fields[RECORD_N_FIELDS];
    struct store_coordinate coordinates[6];
    struct store_attribute attributes[16];
    char (*task_ids)[PHASE1_TASK_ID]; /* [problems] */
    int32_t *slot_of, *item_problem, *item_sample;
    double *item_temperature;
};

struct phase3 {
    struct followup f;
    struct phase3_result result;
    struct phase3_settings settings;
    struct phase3_schema schema;
    struct campaign campaign;
    double sampled[MOST_TEMPERATURES]; /* temperatures to generate at, rising */
    int n_sampled, with_phase1;        /* with_phase1: phase 1's own temperature was asked for */
    int64_t samples, n_items, *costs;
    double start;
};

/* ---- items: temperature x problem x sample ---- */

static int64_t place_of(const struct phase3 *p, int64_t item) { return item / p->samples % p->result.n_validation; }
static double temperature_of(const struct phase3 *p, int64_t item) { return p->sampled[item / p->samples / p->result.n_validation]; }

static int64_t problem_of(void *user, int64_t item) {
    const struct phase3 *p = user;
    return p->result.validation[place_of(p, item)];
}

static void amend_request(void *user, int64_t item, struct pva_request *r) {
    const struct phase3 *p = user;
    r->temperature = (float)temperature_of(p, item);
    r->sample = (uint32_t)(item % p->samples);
}

static int store_item(void *user, const struct phase1_item *item, const struct pva_grade_result *grade, struct pva_error *err) {
    struct phase3 *p = user;
    if (record_write(item, grade, p->campaign.results, err)) return err->code;
    return store_commit(p->campaign.results, item->slot, STORE_DONE, err);
}

static int store_too_long(void *user, int64_t item, const struct phase1_prompt *prompt, struct pva_error *err) {
    struct phase3 *p = user;
    (void)prompt;
    if (record_write_none(p->campaign.results, item, err)) return err->code;
    return store_commit(p->campaign.results, item, PHASE1_TOO_LONG, err);
}

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int read_temperatures(struct phase3 *p, const char *text, struct pva_error *err) {
    double all[MOST_TEMPERATURES];
    int n = 0;
    for (const char *at = text;; at++) {
        char *end;
        double value = strtod(at, &end);
        if (end == at || !(value >= 0 && value <= 100) || (*end && *end != ',')) return pva_fail(err, PVA_USAGE, "--temperatures %s: numbers from 0 to 100, with commas", text);
        if (n == MOST_TEMPERATURES) return pva_fail(err, PVA_USAGE, "--temperatures: at most %d", MOST_TEMPERATURES);
        all[n++] = value;
        at = end;
        if (!*at) break;
    }
    qsort(all, (size_t)n, sizeof *all, rising);
    for (int i = 0; i < n; i++) {
        if (i && all[i] == all[i - 1]) return pva_fail(err, PVA_USAGE, "--temperatures %s: %g is there twice", text, all[i]);
        /* Phase 1's own completions are used where there is nothing to draw: at 0, where every sample is the same. */
        if (all[i] == p->f.plan.temperature && (all[i] == 0 || p->samples == 1)) p->with_phase1 = 1;
        else p->sampled[p->n_sampled++] = all[i];
    }
    return PVA_OK;
}

static int plan_items(struct phase3 *p, struct pva_error *err) {
    const struct pva_options *o = p->f.options;
    p->samples = pva_options_int(o, "samples");
    p->settings = (struct phase3_settings){pva_options_real(o, "level"), pva_options_int(o, "replicates")};
    if (read_temperatures(p, pva_options_text(o, "temperatures"), err) || phase3_predictors(&p->result, &p->f, err)) return err->code;
    if (p->n_sampled && p->sampled[0] == 0 && p->samples > 1)
        return pva_fail(err, PVA_USAGE, "--temperatures: at 0 all samples are the same, and phase 1 ran at %g; leave 0 out or use --samples 1", p->f.plan.temperature);
    p->n_items = (int64_t)p->n_sampled * p->result.n_validation * p->samples;
    p->costs = malloc((size_t)(p->n_items + 1) * sizeof *p->costs);
    if (!p->costs) return pva_fail(err, PVA_IO, "out of memory");
    for (int64_t i = 0; i < p->n_items; i++) p->costs[i] = p->f.plan.costs[problem_of(p, i)];
    return PVA_OK;
}

/* ---- the file ---- */

static int fill_schema(struct phase3 *p, struct pva_error *err) {
    struct phase3_schema *s = &p->schema;
    int64_t n = p->result.n_validation, shortest = p->f.plan.max_tokens - 1;
    size_t items = (size_t)p->n_items;
    s->task_ids = calloc((size_t)n, sizeof *s->task_ids), s->slot_of = calloc((size_t)n, sizeof *s->slot_of);
    s->item_problem = calloc(items, sizeof *s->item_problem), s->item_sample = calloc(items, sizeof *s->item_sample);
    s->item_temperature = calloc(items, sizeof *s->item_temperature);
    if (!s->task_ids || !s->slot_of || !s->item_problem || !s->item_sample || !s->item_temperature) return pva_fail(err, PVA_IO, "out of memory");
    for (int64_t i = 0; i < n; i++) {
        memcpy(s->task_ids[i], p->f.plan.problems.task_ids[p->result.validation[i]], PHASE1_TASK_ID);
        s->slot_of[i] = (int32_t)p->result.validation[i];
    }
    for (int64_t i = 0; i < p->n_items; i++) {
        s->item_problem[i] = (int32_t)place_of(p, i), s->item_sample[i] = (int32_t)(i % p->samples);
        s->item_temperature[i] = temperature_of(p, i);
    }
    for (int64_t i = 0; i < p->f.plan.problems.n; i++)
        if (p->f.plan.costs[i] < shortest) shortest = p->f.plan.costs[i];
    record_fields(s->fields, p->f.plan.max_tokens - shortest);
    struct store_dim item = {"item", p->n_items}, problem = {"problem", n};
    const struct store_coordinate all[] = {
        {{.name = "task_id", .type = STORE_BYTES, .text_size = PHASE1_TASK_ID, .n_dims = 1, .dims = {problem}, .long_name = "task id of the problem"}, s->task_ids, 1},
        {{.name = "phase1_slot", .type = STORE_I32, .n_dims = 1, .dims = {problem}, .long_name = "slot of the problem in phase1.h5"}, s->slot_of, 1},
        {{.name = "item_problem", .type = STORE_I32, .n_dims = 1, .dims = {item}, .long_name = "place of the item's problem"}, s->item_problem, 1},
        {{.name = "item_sample", .type = STORE_I32, .n_dims = 1, .dims = {item}, .long_name = "number of the sample, from 0"}, s->item_sample, 1},
        {{.name = "item_temperature", .type = STORE_F64, .n_dims = 1, .dims = {item}, .long_name = "temperature"}, s->item_temperature, 1},
    };
    memcpy(s->coordinates, all, sizeof all);
    int n_attributes = followup_attributes(&p->f, s->attributes);
    s->store = (struct store_schema){
        .name = "pva-phase3",
        .version = 1,
        .title = "samples of validation problems at several temperatures",
        .source = "pva-mpi phase3",
        .slot = item,
        .states = "empty done prompt-too-long",
        .fields = s->fields,
        .n_fields = RECORD_N_FIELDS,
        .coordinates = s->coordinates,
        .n_coordinates = sizeof all / sizeof *all,
        .attributes = s->attributes,
        .n_attributes = n_attributes,
    };
    return PVA_OK;
}

/* Collective. Computes the samples; phase3.h5 is complete afterwards. */
static int sample(struct phase3 *p, struct pva_error *err) {
    int outcome = DISPATCH_COMPLETE;
    fill_schema(p, err);
    if (par_agree(&p->f.par, "plan the samples", err)) return err->code;
    struct campaign_what what = {
        .phase = "phase3",
        .unit = "samples",
        .file = "phase3.h5",
        .results = &p->schema.store,
        .verdict_field = RECORD_VERDICT,
        .n = p->n_items,
        .costs = p->costs,
        .user = p,
        .problem = problem_of,
        .request = amend_request,
        .store = store_item,
        .store_too_long = store_too_long,
    };
    if (campaign_open(&p->campaign, &what, p->f.options, &p->f.par, &p->f.run, &p->f.engine, &p->f.plan, p->f.grader, err) || campaign_run(&p->campaign, &outcome, err))
        return err->code;
    if (outcome & DISPATCH_STOPPED) return pva_fail(err, PVA_STOPPED, "stopped; everything finished is stored, run the same command to go on");
    return PVA_OK;
}

/* Rank 0: what passed at each temperature, from phase 1 and from phase3.h5. */
static int gather_outcomes(struct phase3 *p, struct pva_error *err) {
    struct phase3_result *r = &p->result;
    int64_t n = r->n_validation, per = n * p->samples;
    int own_at = 0;
    r->temperatures = calloc((size_t)(p->n_sampled + 1), sizeof *r->temperatures);
    uint8_t *verdicts = malloc((size_t)per + 1);
    if (!r->temperatures || !verdicts) pva_fail(err, PVA_IO, "out of memory");
    while (p->with_phase1 && own_at < p->n_sampled && p->sampled[own_at] < p->f.plan.temperature) own_at++;
    for (int t = 0; t < p->n_sampled + p->with_phase1 && !err->code; t++) {
        int own = p->with_phase1 && t == own_at, from = t - (p->with_phase1 && t > own_at);
        struct phase3_temperature *x = &r->temperatures[r->n_temperatures++];
        *x = (struct phase3_temperature){.temperature = own ? p->f.plan.temperature : p->sampled[from], .n_problems = n, .n_samples = own ? 1 : p->samples};
        x->outcomes = malloc((size_t)(n * x->n_samples) + 1);
        if (!x->outcomes) pva_fail(err, PVA_IO, "out of memory");
        else if (own) {
            for (int64_t i = 0; i < n; i++) x->outcomes[i] = p->f.phase1.verdicts[r->validation[i]] == PVA_PASS;
        } else if (!store_read_range(p->campaign.results, RECORD_VERDICT, from * per, per, verdicts, err)) {
            for (int64_t i = 0; i < per; i++) x->outcomes[i] = verdicts[i] == PVA_PASS;
        }
    }
    free(verdicts);
    return err->code;
}

static void print_plan(const struct phase3 *p, FILE *out) {
    const struct phase3_result *r = &p->result;
    for (int i = 0; i < r->n_predictors; i++)
        fprintf(out, "predictor   %-14s %s, predicts %s\n", r->predictors[i].name, r->predictors[i].list, r->predictors[i].predicts_failure ? "failure" : "success");
    fprintf(out, "problems    %lld validation, thresholds from %lld tuning\n", (long long)r->n_validation, (long long)r->n_tuning);
    fprintf(out, "probe       logistic regression on each of %lld layers, 5 folds\n", (long long)p->f.phase1.n_layers);
    fprintf(out, "samples     %lld problems x %d temperatures x %lld%s\n", (long long)r->n_validation, p->n_sampled, (long long)p->samples,
            p->with_phase1 ? "; phase 1's own completions besides" : "");
    fprintf(out, "batch       %d sequences of up to %lld tokens per rank: %.2f GiB besides the weights; %d rank%s\n", p->f.plan.batch, (long long)p->f.plan.max_tokens,
            (double)p->f.plan.session_bytes / 0x1p30, p->f.par.size, p->f.par.size > 1 ? "s" : "");
    fprintf(out, "to do       %lld completions, %s at phase 1's pace\n", (long long)p->n_items, followup_estimate(&p->f, p->n_items));
    fprintf(out, "to write    %.1f MB\n", (double)p->n_items * (double)p->f.plan.max_tokens * (4 + 2 * RECORD_BYTES_PER_TOKEN) / 1e6);
    fprintf(out, "sandbox     %s\n", p->f.sandbox.text);
}

static json_t *facts(const struct phase3 *p) {
    json_t *list = json_array();
    for (int i = 0; i < p->result.n_predictors; i++) json_array_append_new(list, json_string(p->result.predictors[i].name));
    return json_pack("{s:o,s:s,s:I,s:s}", "predictors", list, "temperatures", pva_options_text(p->f.options, "temperatures"), "samples", (json_int_t)p->samples, "sandbox",
                     p->f.sandbox.text);
}

static int run_phase(struct phase3 *p, struct pva_error *err) {
    int json = pva_options_flag(p->f.options, "json");
    if (followup_open_run(&p->f, p->f.par.rank ? NULL : facts(p), err)) return err->code;
    p->start = engine_now();
    if (phase3_probe(&p->result, &p->f, err) || (p->n_items && sample(p, err))) return err->code;
    if (p->f.par.rank == 0 && !gather_outcomes(p, err) && !phase3_evaluate(&p->result, &p->f, p->settings.level, p->settings.replicates, err) &&
        !phase3_report_write(&p->result, &p->f, &p->settings, json ? stdout : NULL, err)) {
        if (!json) phase3_report_print(&p->result, &p->settings, stdout);
        fflush(stdout); /* the line on stderr comes after it, also where mpirun joins the two */
        if (!p->f.quiet)
            fprintf(stderr, "pva-mpi: phase3: %d predictors, %lld samples, %.1f s on %d rank%s; %s/phase3-summary.json\n", p->result.n_predictors, (long long)p->n_items,
                    engine_now() - p->start, p->f.par.size, p->f.par.size > 1 ? "s" : "", p->f.run.directory);
    }
    return par_agree(&p->f.par, "evaluate", err);
}

int pva_command_phase3(const struct pva_options *o, struct pva_error *err) {
    struct phase3 p = {0};
    struct pva_error late = {0};
    p.result.probe_layer = -1;
    if (!followup_open(&p.f, "phase3", o, err)) {
        plan_items(&p, err);
        if (!par_agree(&p.f.par, "plan", err)) {
            if (!p.f.dry_run) run_phase(&p, err);
            else if (p.f.par.rank == 0) print_plan(&p, stdout);
        }
    }
    campaign_close(&p.campaign, &late);
    struct phase3_schema *s = &p.schema;
    free(s->task_ids), free(s->slot_of), free(s->item_problem), free(s->item_sample), free(s->item_temperature);
    free(p.costs);
    phase3_result_free(&p.result);
    return followup_close(&p.f, &late, err);
}
