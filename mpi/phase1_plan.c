#include "phase1_plan.h"

#include "pva/difficulty.h"
#include "pva/hash.h"
#include "pva/log.h"
#include "pva/prompt.h"
#include "pva/tensorfile.h"
#include "run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { DEFAULT_BATCH = 16, PREFILL_ROWS = 256 }; /* a batch is at most DISPATCH_MOST */

static int out_of_memory(struct pva_error *err) { return pva_fail(err, PVA_IO, "out of memory"); }

/* ---- problems and split ---- */

static int choose_problems(struct phase1_plan *plan, const struct pva_options *o, struct pva_error *err) {
    const char *path = pva_options_text(o, "problems");
    if (pva_problems_load(path, &plan->file, err)) return err->code;
    int64_t count = (int64_t)pva_problems_count(plan->file), start = pva_options_int(o, "start");
    int64_t end = pva_options_is_set(o, "end") ? pva_options_int(o, "end") : count - 1;
    if (start > end || end >= count)
        return pva_fail(err, PVA_USAGE, "--start %lld --end %lld: %s has problems 0 to %lld", (long long)start, (long long)end, path, (long long)count - 1);
    int64_t n = plan->problems.n = end - start + 1;
    plan->problem = calloc((size_t)n, sizeof *plan->problem);
    plan->problems.task_ids = calloc((size_t)n, sizeof *plan->problems.task_ids);
    plan->problems.index = calloc((size_t)n, sizeof *plan->problems.index);
    plan->problems.part = calloc((size_t)n, sizeof *plan->problems.part);
    plan->problems.difficulty = calloc((size_t)n, sizeof *plan->problems.difficulty);
    if (!plan->problem || !plan->problems.task_ids || !plan->problems.index || !plan->problems.part || !plan->problems.difficulty)
        return out_of_memory(err);
    for (int64_t i = 0; i < n; i++) {
        const struct pva_problem *p = plan->problem[i] = pva_problems_at(plan->file, (size_t)(start + i));
        if (strlen(p->task_id) >= PHASE1_TASK_ID)
            return pva_fail(err, PVA_INPUT, "%s:%lld: the task id has %zu characters, at most %d fit", path, (long long)p->line, strlen(p->task_id),
                            PHASE1_TASK_ID - 1);
        memcpy(plan->problems.task_ids[i], p->task_id, strlen(p->task_id));
        plan->problems.index[i] = (int32_t)(start + i);
    }
    return pva_sha256_file(path, plan->problems_sha256, NULL, err);
}

/* Over the whole file, so that a problem is in the same part whatever --start and --end are. */
static int split_problems(struct phase1_plan *plan, const struct pva_options *o, struct pva_error *err) {
    size_t count = pva_problems_count(plan->file), start = (size_t)plan->problems.index[0];
    const char **codes = calloc(count, sizeof *codes);
    struct pva_split_problem *all = calloc(count, sizeof *all);
    int32_t *difficulty = calloc(count, sizeof *difficulty);
    uint8_t *parts = calloc(count, 1);
    if (!codes || !all || !difficulty || !parts) {
        out_of_memory(err);
        goto done;
    }
    for (size_t i = 0; i < count; i++) codes[i] = pva_problems_at(plan->file, i)->code;
    if (pva_difficulty(pva_options_text(o, "python"), codes, count, difficulty, err)) goto done;
    for (size_t i = 0; i < count; i++) {
        const struct pva_problem *p = pva_problems_at(plan->file, i);
        all[i] = (struct pva_split_problem){.task_id = p->task_id, .text = p->text, .difficulty = difficulty[i]};
    }
    if (pva_split(all, count, (uint64_t)plan->seed, parts, NULL, err)) goto done;
    for (int64_t i = 0; i < plan->problems.n; i++) {
        plan->problems.difficulty[i] = difficulty[start + (size_t)i];
        plan->problems.part[i] = parts[start + (size_t)i];
    }
done:
    free(codes);
    free(all);
    free(difficulty);
    free(parts);
    return err->code;
}

static int make_prompts(struct phase1_plan *plan, const struct pva_options *o, const struct engine *e, struct pva_error *err) {
    int64_t n = plan->problems.n;
    plan->prompts = calloc((size_t)n, sizeof *plan->prompts);
    plan->costs = calloc((size_t)n, sizeof *plan->costs);
    if (!plan->prompts || !plan->costs) return out_of_memory(err);
    if (pva_prompt_template_open(pva_options_text(o, "prompt-template"), plan->file, &plan->template, err)) return err->code;
    plan->stop_strings = pva_prompt_template_stops(plan->template);
    for (int64_t i = 0; i < n && !err->code; i++) {
        char *text = NULL;
        size_t n_text = 0, n_ids = 0;
        if (pva_prompt_render(plan->template, plan->problem[i], &text, &n_text, err)) return err->code;
        pva_sha256_text(text, n_text, plan->prompts[i].sha256);
        engine_encode_prompt(e, text, n_text, &plan->prompts[i].ids, &n_ids, err);
        plan->costs[i] = plan->prompts[i].n = (int64_t)n_ids;
        free(text);
    }
    return err->code;
}

/* ---- memory ---- */

static struct pva_session_settings session_for(const struct phase1_plan *plan, int batch) {
    return (struct pva_session_settings){
        .n_slots = batch,
        .max_positions = plan->max_tokens,
        .max_rows = batch > PREFILL_ROWS ? batch : PREFILL_ROWS,
    };
}

static size_t bytes_for(const struct phase1_plan *plan, const struct engine *e, int batch) {
    const struct pva_model_config *c = pva_model_get_config(e->model);
    struct pva_session_settings s = session_for(plan, batch);
    /* Captured rows: of two passes. */
    int64_t rows = 2 * (plan->positions == PVA_POSITIONS_LAST_PROMPT ? batch : s.max_rows);
    /* Of a sequence in flight every position kept is in memory until it is graded; a file's slot may be as large once more. */
    int64_t kept = plan->max_positions ? (batch + 1) * plan->max_positions : 0;
    return pva_session_bytes(c, pva_model_dtype(e->model), &s) + (size_t)((rows + kept) * plan->resid_values) * sizeof(float);
}

/* The largest batch up to the one asked for that keeps within the limit. */
static int choose_batch(struct phase1_plan *plan, const struct par *p, const struct pva_options *o, const struct engine *e, struct pva_error *err) {
    int asked = (int)pva_options_int(o, "batch-size"), most = asked ? asked : DEFAULT_BATCH;
    int on_cpu = !strcmp(e->ops->name, "cpu");
    const char *name = on_cpu ? "host-memory" : "gpu-memory";
    size_t limit = pva_options_bytes(o, name), weights = on_cpu ? 0 : pva_model_weight_bytes(e->model);
    /* Few problems: not all of them to the rank that asks first. */
    int64_t share = asked ? plan->problems.n : (plan->problems.n + p->size - 1) / p->size;
    if (most > share) most = (int)share;
    plan->batch = most;
    plan->weight_bytes = pva_model_weight_bytes(e->model);
    while (limit && plan->batch > 1 && !asked && weights + bytes_for(plan, e, plan->batch) > limit) plan->batch--;
    plan->session_bytes = bytes_for(plan, e, plan->batch);
    if (!limit || weights + plan->session_bytes <= limit) return PVA_OK;
    int fits = plan->batch;
    while (fits > 0 && weights + bytes_for(plan, e, fits) > limit) fits--;
    if (fits) return pva_fail(err, PVA_USAGE, "--batch-size %d needs %.2f GiB, --%s allows %.2f: %d sequences of %lld tokens fit", asked,
                              (double)(weights + plan->session_bytes) / 0x1p30, name, (double)limit / 0x1p30, fits, (long long)plan->max_tokens);
    return pva_fail(err, PVA_USAGE, "one sequence of %lld tokens needs %.2f GiB, --%s allows %.2f: lower --max-tokens or raise the limit",
                    (long long)plan->max_tokens, (double)(weights + bytes_for(plan, e, 1)) / 0x1p30, name, (double)limit / 0x1p30);
}

static int choose_capture(struct phase1_plan *plan, const struct pva_options *o, const struct engine *e, struct pva_error *err) {
    const struct pva_model_config *c = pva_model_get_config(e->model);
    plan->layers = calloc((size_t)c->n_layers, 1);
    if (!plan->layers) return out_of_memory(err);
    if (pva_point_parse(pva_options_text(o, "hook"), &plan->point, err) || pva_parse_set(pva_options_text(o, "layers"), c->n_layers, plan->layers, err))
        return err->code;
    const char *positions = pva_options_text(o, "positions");
    if (pva_positions_parse(strcmp(positions, "last") ? positions : "last-prompt", &plan->positions, err)) return err->code;
    for (int l = 0; l < c->n_layers; l++) plan->n_layers += plan->layers[l];
    plan->resid_values = plan->n_layers * c->d_model;
    plan->resid_type = strcmp(pva_options_text(o, "resid-dtype"), "f32") ? PVA_BF16 : PVA_F32;
    return PVA_OK;
}

/* How many positions a problem may have: all of a sequence, or all but the prompt. The file has room for that many in every slot. */
static int bound_positions(struct phase1_plan *plan, struct pva_error *err) {
    int64_t shortest = plan->max_tokens - 1;
    if (plan->positions != PVA_POSITIONS_ALL && plan->positions != PVA_POSITIONS_GENERATED) return PVA_OK;
    for (int64_t i = 0; i < plan->problems.n; i++)
        if (plan->costs[i] < shortest) shortest = plan->costs[i];
    plan->max_positions = plan->positions == PVA_POSITIONS_ALL ? plan->max_tokens : plan->max_tokens - shortest;
    double bytes = (double)plan->resid_values * (plan->resid_type == PVA_BF16 ? 2 : 4), slot = bytes * (double)plan->max_positions;
    if (slot <= 0x1p30) return PVA_OK;
    return pva_fail(err, PVA_USAGE, "--positions %s: %lld positions of %.1f kB are %.2f GiB a problem, 1 GiB is the most: lower --max-tokens to %lld, choose --layers, or "
                    "--resid-dtype bf16", pva_positions_name(plan->positions), (long long)plan->max_positions, bytes / 1e3, slot / 0x1p30,
                    (long long)(0x1p30 / bytes));
}

static void count_file_bytes(struct phase1_plan *plan, const struct pva_options *o, const struct engine *e) {
    struct phase1_schema *schema = malloc(sizeof *schema);
    struct diagnostics_schema *diagnostics = malloc(sizeof *diagnostics);
    struct phase1_identity id;
    PVA_ASSERT(schema && diagnostics);
    phase1_plan_identity(plan, o, &id);
    phase1_schema_fill(schema, &id, &plan->problems, pva_model_get_config(e->model), plan->layers, plan->resid_type);
    diagnostics_schema_fill(diagnostics, &plan->problems);
    plan->file_bytes = (size_t)(store_bytes(&schema->store) + store_bytes(&diagnostics->store));
    free(schema);
    free(diagnostics);
}

int phase1_plan_make(struct phase1_plan *plan, const struct par *p, const struct pva_options *o, const struct engine *e, struct pva_error *err) {
    plan->seed = pva_options_int(o, "seed");
    plan->temperature = pva_options_real(o, "temperature");
    plan->max_tokens = pva_options_int(o, "max-tokens");
    int longest = pva_model_get_config(e->model)->max_positions;
    if (plan->max_tokens > longest) {
        if (pva_options_is_set(o, "max-tokens")) pva_fail(err, PVA_USAGE, "--max-tokens %lld: the model takes %d", (long long)plan->max_tokens, longest);
        plan->max_tokens = longest;
    }
    if (!err->code && !pva_extract_rule_parse(pva_options_text(o, "extraction"), &plan->rule, err) && !choose_capture(plan, o, e, err) &&
        !choose_problems(plan, o, err) && !make_prompts(plan, o, e, err) && !bound_positions(plan, err) && !choose_batch(plan, p, o, e, err))
        run_model_fingerprint(pva_options_text(o, "model"), plan->model_sha256, err);
    if (par_agree(p, "plan", err)) return err->code;
    /* One interpreter parses the references; every rank must split alike, whatever its Python's version. */
    if (p->rank == 0) split_problems(plan, o, err);
    if (par_agree(p, "split", err)) return err->code;
    PAR_CHECK(p, MPI_Bcast(plan->problems.part, (int)plan->problems.n, MPI_UINT8_T, 0, p->comm));
    PAR_CHECK(p, MPI_Bcast(plan->problems.difficulty, (int)plan->problems.n, MPI_INT32_T, 0, p->comm));
    count_file_bytes(plan, o, e);
    return PVA_OK;
}

void phase1_plan_free(struct phase1_plan *plan) {
    for (int64_t i = 0; plan->prompts && i < plan->problems.n; i++) free(plan->prompts[i].ids);
    free(plan->prompts);
    free(plan->costs);
    free(plan->problem);
    free(plan->problems.task_ids);
    free(plan->problems.index);
    free(plan->problems.part);
    free(plan->problems.difficulty);
    free(plan->layers);
    pva_prompt_template_free(&plan->template);
    pva_problems_free(&plan->file);
    memset(plan, 0, sizeof *plan);
}

void phase1_plan_identity(const struct phase1_plan *plan, const struct pva_options *o, struct phase1_identity *id) {
    memset(id, 0, sizeof *id);
    memcpy(id->model_sha256, plan->model_sha256, sizeof id->model_sha256);
    memcpy(id->problems_sha256, plan->problems_sha256, sizeof id->problems_sha256);
    snprintf(id->prompt_template, sizeof id->prompt_template, "%s", pva_prompt_template_name(plan->template));
    memcpy(id->prompt_sha256, pva_prompt_template_sha256(plan->template), sizeof id->prompt_sha256);
    id->operand = pva_options_text(o, "dtype");
    id->seed = plan->seed;
    id->max_tokens = plan->max_tokens;
    id->temperature = plan->temperature;
    id->extraction = pva_extract_rule_name(plan->rule);
    id->preload_imports = pva_options_flag(o, "preload-imports");
    id->point = plan->point;
    id->positions = pva_positions_name(plan->positions);
    id->max_positions = plan->max_positions;
    id->backend = id->isa = id->sandbox = id->python = "";
}

struct pva_generator_settings phase1_plan_generator(const struct phase1_plan *plan) {
    return (struct pva_generator_settings){
        .session = session_for(plan, plan->batch),
        .capture = {.point = plan->point, .layers = plan->n_layers ? plan->layers : NULL, .positions = plan->positions},
    };
}

/* Room on the disk that will hold `path`, which need not exist yet; -1 where the file system does not say. */
static double free_bytes(const char *path) {
    char at[4096];
    struct statvfs fs;
    snprintf(at, sizeof at, "%s", path);
    while (statvfs(at, &fs)) {
        char *slash = strrchr(at, '/');
        if (errno != ENOENT || !strcmp(at, ".") || !strcmp(at, "/")) return -1;
        if (!slash) strcpy(at, ".");
        else slash[slash == at] = 0;
    }
    return fs.f_blocks ? (double)fs.f_bfree * (double)fs.f_frsize : -1;
}

int phase1_plan_check_disk(const struct phase1_plan *plan, const struct par *p, const struct pva_options *o, struct pva_error *err) {
    const char *run = pva_options_text(o, "run");
    char path[4096];
    if (run && p->rank == 0) {
        snprintf(path, sizeof path, "%s/phase1.h5", run);
        double room = free_bytes(run);
        int there = !access(path, F_OK) && strcmp(pva_options_text(o, "resume"), "never");
        if (!there && room >= 0 && (double)plan->file_bytes > room)
            pva_fail(err, PVA_IO, "%s: the results need %.3f GB, its disk has %.3f GB free: fewer problems (--start, --end), --layers or --positions, or "
                     "--resid-dtype bf16", run, (double)plan->file_bytes / 1e9, room / 1e9);
    }
    return par_agree(p, "plan", err);
}

static void count_parts(const struct phase1_plan *plan, int64_t counts[3]) {
    memset(counts, 0, 3 * sizeof *counts);
    for (int64_t i = 0; i < plan->problems.n; i++)
        if (plan->problems.part[i] < 3) counts[plan->problems.part[i]]++;
}

json_t *phase1_plan_facts(const struct phase1_plan *plan, const struct pva_options *o, const struct pva_sandbox *sandbox) {
    int64_t parts[3];
    count_parts(plan, parts);
    json_t *facts = json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:f,s:{s:I,s:I,s:I,s:I},s:s,s:s,s:s,s:i}", "model_sha256", plan->model_sha256, "problems_sha256",
                     plan->problems_sha256, "prompt_template", pva_prompt_template_name(plan->template), "prompt_template_sha256",
                     pva_prompt_template_sha256(plan->template), "seed", (json_int_t)plan->seed, "max_tokens", (json_int_t)plan->max_tokens, "temperature",
                     plan->temperature, "problems", "all", (json_int_t)plan->problems.n, "selection", (json_int_t)parts[0], "tuning", (json_int_t)parts[1],
                     "validation", (json_int_t)parts[2], "sandbox", sandbox->text, "python", sandbox->version, "interpreter", sandbox->python, "batch",
                     plan->batch);
    json_object_set_new(facts, "model", json_string(pva_options_text(o, "model")));
    json_object_set_new(facts, "problem_file", json_string(pva_options_text(o, "problems")));
    return facts;
}

void phase1_plan_print(const struct phase1_plan *plan, const struct par *p, const struct engine *e, const struct pva_sandbox *sandbox, FILE *out) {
    struct pva_backend_info info;
    int64_t parts[3], shortest = INT64_MAX, longest = 0, too_long = 0;
    count_parts(plan, parts);
    for (int64_t i = 0; i < plan->problems.n; i++) {
        if (plan->costs[i] < shortest) shortest = plan->costs[i];
        if (plan->costs[i] > longest) longest = plan->costs[i];
        too_long += plan->costs[i] >= plan->max_tokens;
    }
    e->ops->describe(e->be, &info);
    const struct pva_model_config *c = pva_model_get_config(e->model);
    fprintf(out, "model       %d layers, d_model %d, %.2f GB of weights (%.2f GB converted, %s)\n", c->n_layers, c->d_model, (double)plan->weight_bytes / 1e9,
            (double)pva_model_converted(e->model) / 1e9, p->local_size > 1 ? "one copy per node" : "one copy");
    fprintf(out, "device      %s; %d rank%s on %d node%s\n", info.device, p->size, p->size > 1 ? "s" : "", p->n_nodes, p->n_nodes > 1 ? "s" : "");
    fprintf(out, "problems    %lld: %lld selection, %lld tuning, %lld validation\n", (long long)plan->problems.n, (long long)parts[0], (long long)parts[1],
            (long long)parts[2]);
    fprintf(out, "prompts     template %s, %lld to %lld tokens%s", pva_prompt_template_name(plan->template), (long long)shortest, (long long)longest,
            too_long ? "" : "\n");
    if (too_long) fprintf(out, "; %lld do not fit into %lld and will be marked so\n", (long long)too_long, (long long)plan->max_tokens);
    fprintf(out, "batch       %d sequences of up to %lld tokens per rank: %.2f GiB besides the weights\n", plan->batch, (long long)plan->max_tokens,
            (double)plan->session_bytes / 0x1p30);
    fprintf(out, "capture     %s, %lld layers, %s", pva_point_name(plan->point), (long long)plan->n_layers, pva_positions_name(plan->positions));
    if (plan->max_positions) fprintf(out, ", up to %lld positions", (long long)plan->max_positions);
    fprintf(out, ": %.1f kB a problem\n",
            (double)plan->resid_values * (double)(plan->max_positions ? plan->max_positions : 1) * (plan->resid_type == PVA_BF16 ? 2 : 4) / 1e3);
    fprintf(out, "sandbox     %s\n", sandbox->text);
    fprintf(out, "to write    %.1f MB\n", (double)plan->file_bytes / 1e6);
}
