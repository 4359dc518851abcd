#include "phase1_schema.h"

#include <string.h>

enum { VERSION = 1 };

static const struct store_dim position = {"position", 0}, generated = {"generated", 0}, layer = {"layer", 0}, model_axis = {"model", 0};

static struct store_dim sized(struct store_dim d, int64_t size) {
    d.size = size;
    return d;
}

static void fill_fields(struct store_field *f, int64_t max_tokens, int64_t n_layers, int64_t d_model, enum store_type resid) {
    int64_t text = max_tokens * PHASE1_BYTES_PER_TOKEN;
    const struct store_field all[PHASE1_MOST_FIELDS] = {
        [PHASE1_N_PROMPT] = {.name = "n_prompt", .type = STORE_I32, .units = "token", .long_name = "tokens of the prompt, BOS included"},
        [PHASE1_N_NEW] = {.name = "n_new", .type = STORE_I32, .units = "token", .long_name = "tokens generated, end of text not counted"},
        [PHASE1_TOKENS] = {.name = "tokens", .type = STORE_I32, .n_dims = 1, .dims = {sized(position, max_tokens)},
                           .long_name = "token ids: the prompt, then what was generated, then zeros"},
        [PHASE1_FINISH] = {.name = "finish", .type = STORE_U8,
                           .long_name = "why generation ended: 0 end of text, 1 token limit, 2 nothing could change the program any more, 3 repetition loop, "
                                        "4 the logits were not numbers"},
        [PHASE1_N_TEXT] = {.name = "n_text", .type = STORE_I32, .units = "byte", .long_name = "length of the completion; more than the text's size: cut there"},
        [PHASE1_TEXT] = {.name = "text", .type = STORE_BYTES, .text_size = text, .long_name = "completion, UTF-8"},
        [PHASE1_N_PROGRAM] = {.name = "n_program", .type = STORE_I32, .units = "byte", .long_name = "length of the program; more than its size: cut there"},
        [PHASE1_PROGRAM] = {.name = "program", .type = STORE_BYTES, .text_size = text, .long_name = "the program that was graded"},
        [PHASE1_VERDICT] = {.name = "verdict", .type = STORE_U8,
                            .long_name = "0 pass, 1 assertion, 2 exception, 3 syntax, 4 timeout, 5 memory, 6 sandbox, 7 no-code, 8 grader error"},
        [PHASE1_FAILED_TEST] = {.name = "failed_test", .type = STORE_I32, .long_name = "index of the test that failed, -1: none, or before the tests"},
        [PHASE1_EXCEPTION] = {.name = "exception", .type = STORE_BYTES, .text_size = PHASE1_EXCEPTION_SIZE, .long_name = "type of the exception"},
        [PHASE1_PROMPT_SHA256] = {.name = "prompt_sha256", .type = STORE_BYTES, .text_size = 64, .long_name = "SHA-256 of the rendered prompt"},
        [PHASE1_RESID] = {.name = "resid", .type = resid, .n_dims = 2, .dims = {sized(layer, n_layers), sized(model_axis, d_model)},
                          .long_name = "residual stream at the captured position; the point and position are attributes of the file"},
        [PHASE1_N_POSITIONS] = {.name = "n_positions", .type = STORE_I32, .units = "token", .long_name = "positions of resid that are filled"},
    };
    memcpy(f, all, sizeof all);
}

/* Many positions: one more dimension, before the layers. All of them are those of `tokens`. */
void phase1_schema_positions(struct phase1_schema *s, const char *positions, int64_t max_positions) {
    struct store_field *resid = &s->fields[PHASE1_RESID];
    resid->dims[2] = resid->dims[1];
    resid->dims[1] = resid->dims[0];
    resid->dims[0] = sized(strcmp(positions, "all") ? generated : position, max_positions);
    resid->n_dims = 3;
    resid->long_name = "residual stream, the first n_positions rows; row 0 is the first token, or the first generated one (attribute resid_position)";
}

static struct store_attribute text_attribute(const char *name, const char *value, int identity) {
    return (struct store_attribute){.name = name, .kind = STORE_TEXT, .text = value, .identity = identity};
}
static struct store_attribute integer_attribute(const char *name, int64_t value) {
    return (struct store_attribute){.name = name, .kind = STORE_INTEGER, .integer = value, .identity = 1};
}

void phase1_schema_fill(struct phase1_schema *s, const struct phase1_identity *id, const struct phase1_problems *problems,
                        const struct pva_model_config *config, const unsigned char *captured, enum pva_dtype type) {
    memset(s, 0, sizeof *s);
    int n_layers = 0, n = 0;
    for (int l = 0; l < config->n_layers; l++)
        if (captured[l]) s->layers[n_layers++] = l;
    fill_fields(s->fields, id->max_tokens, n_layers, config->d_model, type == PVA_BF16 ? STORE_BF16 : STORE_F32);
    if (id->max_positions) phase1_schema_positions(s, id->positions, id->max_positions);
    struct store_dim problem = {"problem", problems->n};
    const struct store_coordinate coordinates[] = {
        {{.name = "task_id", .type = STORE_BYTES, .text_size = PHASE1_TASK_ID, .n_dims = 1, .dims = {problem}, .long_name = "task id of the problem"},
         problems->task_ids, 1},
        {{.name = "index", .type = STORE_I32, .n_dims = 1, .dims = {problem}, .long_name = "place in the problem file, from 0"}, problems->index, 1},
        {{.name = "part", .type = STORE_U8, .n_dims = 1, .dims = {problem}, .long_name = "split: 0 selection, 1 tuning, 2 validation"}, problems->part, 1},
        {{.name = "difficulty", .type = STORE_I32, .n_dims = 1, .dims = {problem}, .long_name = "cyclomatic complexity of the reference solution"},
         problems->difficulty, 1},
        {{.name = "layer", .type = STORE_I32, .n_dims = 1, .dims = {sized(layer, n_layers)}, .long_name = "layer of the model, from 0"}, s->layers, 1},
    };
    memcpy(s->coordinates, coordinates, sizeof coordinates);
    s->attributes[n++] = text_attribute("model_sha256", id->model_sha256, 1);
    s->attributes[n++] = text_attribute("problems_sha256", id->problems_sha256, 1);
    s->attributes[n++] = text_attribute("prompt_template", id->prompt_template, 1);
    s->attributes[n++] = text_attribute("prompt_template_sha256", id->prompt_sha256, 1);
    s->attributes[n++] = text_attribute("operand", id->operand, 1);
    s->attributes[n++] = integer_attribute("seed", id->seed);
    s->attributes[n++] = integer_attribute("max_tokens", id->max_tokens);
    s->attributes[n++] = (struct store_attribute){.name = "temperature", .kind = STORE_REAL, .real = id->temperature, .identity = 1};
    s->attributes[n++] = text_attribute("extraction", id->extraction, 1);
    s->attributes[n++] = integer_attribute("preload_imports", id->preload_imports);
    s->attributes[n++] = text_attribute("resid_point", pva_point_name(id->point), 1);
    s->attributes[n++] = text_attribute("resid_position", id->positions, 1);
    s->attributes[n++] = text_attribute("backend", id->backend, 1);
    s->attributes[n++] = text_attribute("isa", id->isa, 0);
    s->attributes[n++] = text_attribute("sandbox", id->sandbox, 0);
    s->attributes[n++] = text_attribute("python", id->python, 0);
    s->store = (struct store_schema){
        .name = "pva-phase1",
        .version = VERSION,
        .title = "completions, verdicts and residual streams",
        .source = "pva-mpi phase1",
        .slot = problem,
        .states = "empty done prompt-too-long",
        .fields = s->fields,
        .n_fields = id->max_positions ? PHASE1_MOST_FIELDS : PHASE1_N_FIELDS,
        .coordinates = s->coordinates,
        .n_coordinates = sizeof coordinates / sizeof *coordinates,
        .attributes = s->attributes,
        .n_attributes = n,
    };
}

void phase1_schema_any(struct phase1_schema *s) {
    memset(s, 0, sizeof *s);
    fill_fields(s->fields, 0, 0, 0, STORE_F32);
    s->store = (struct store_schema){
        .name = "pva-phase1",
        .version = VERSION,
        .slot = {"problem", 0},
        .states = "empty done prompt-too-long",
        .fields = s->fields,
        .n_fields = PHASE1_N_FIELDS - 1, /* the residual stream's type is the file's choice; who wants it asks for it */
    };
}

void diagnostics_schema_fill(struct diagnostics_schema *s, const struct phase1_problems *problems) {
    memset(s, 0, sizeof *s);
    const struct store_field all[DIAGNOSTICS_N_FIELDS] = {
        [DIAGNOSTICS_RANK] = {.name = "rank", .type = STORE_I32, .long_name = "rank that computed it"},
        [DIAGNOSTICS_PREFILL_SECONDS] = {.name = "prefill_seconds", .type = STORE_F64, .units = "s", .long_name = "from admission to the first token"},
        [DIAGNOSTICS_DECODE_SECONDS] = {.name = "decode_seconds", .type = STORE_F64, .units = "s", .long_name = "from the first token to the last"},
        [DIAGNOSTICS_GRADE_CPU_SECONDS] = {.name = "grade_cpu_seconds", .type = STORE_F64, .units = "s", .long_name = "CPU time of the program under its tests"},
        [DIAGNOSTICS_GRADE_WALL_SECONDS] = {.name = "grade_wall_seconds", .type = STORE_F64, .units = "s", .long_name = "time of grading"},
        [DIAGNOSTICS_PEAK_MEMORY] = {.name = "peak_memory", .type = STORE_I64, .units = "byte", .long_name = "largest resident memory of the program"},
        [DIAGNOSTICS_DETAIL] = {.name = "detail", .type = STORE_BYTES, .text_size = PHASE1_DETAIL, .long_name = "one line about the verdict"},
        [DIAGNOSTICS_STDOUT] = {.name = "stdout", .type = STORE_BYTES, .text_size = PHASE1_OUTPUT, .long_name = "what the program printed, its first 2 KiB"},
        [DIAGNOSTICS_STDERR] = {.name = "stderr", .type = STORE_BYTES, .text_size = PHASE1_OUTPUT, .long_name = "what it printed on standard error"},
    };
    memcpy(s->fields, all, sizeof all);
    s->coordinates[0] = (struct store_coordinate){
        {.name = "task_id", .type = STORE_BYTES, .text_size = PHASE1_TASK_ID, .n_dims = 1, .dims = {{"problem", problems->n}}, .long_name = "task id of the problem"},
        problems->task_ids,
        1,
    };
    s->store = (struct store_schema){
        .name = "pva-phase1-diagnostics",
        .version = VERSION,
        .title = "times, memory and output of phase 1: not reproducible",
        .source = "pva-mpi phase1",
        .slot = {"problem", problems->n},
        .fields = s->fields,
        .n_fields = DIAGNOSTICS_N_FIELDS,
        .coordinates = s->coordinates,
        .n_coordinates = 1,
    };
}
