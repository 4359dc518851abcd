/* generate: continue prompts with continuous batching, JSONL on stdout in the order of the prompts. */
#include "commands.h"
#include "engine.h"

#include "pva/direction.h"
#include "pva/generator.h"
#include "pva/log.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const struct pva_option pva_generate_options[] = {
    {"prompt", PVA_OPT_TEXT, "TEXT", NULL, "the prompt; BOS is put before it", NULL, 0, 0},
    {"prompts", PVA_OPT_TEXT, "FILE", NULL, "JSONL, a prompt per line: {\"prompt\": TEXT} or {\"ids\": [...]} (with BOS), optional \"id\"", NULL, 0, 0},
    {"max-new-tokens", PVA_OPT_INT, "N", "128", "tokens to generate at most, per prompt", NULL, 1, 1 << 20},
    {"temperature", PVA_OPT_REAL, "T", "0", "0: greedy", NULL, 0, 100},
    {"seed", PVA_OPT_INT, "S", "0", "draws are keyed by (seed, prompt number, sample, step)", NULL, 0, 9007199254740991.0},
    {"samples", PVA_OPT_INT, "K", "1", "completions per prompt", NULL, 1, 1 << 20},
    {"batch-size", PVA_OPT_INT, "N", "16", "sequences at once", NULL, 1, 4096},
    {"steer", PVA_OPT_TEXT, "SPEC", NULL, "layer=L, then latent=J or vector=F.npy, coefficient=C; units=, scale=, positions=, mode=, sign=", NULL, 0, 0},
    {"sae", PVA_OPT_TEXT, "PATH", NULL, "of the latent: an autoencoder's file, or a directory of them", NULL, 0, 0},
    {"width", PVA_OPT_TEXT, "W", NULL, "in a directory of autoencoders: 16k, 131k ...", NULL, 0, 0},
    {"l0", PVA_OPT_TEXT, "L0", NULL, "likewise: canonical, smallest, largest, or a number", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

struct prompt {
    json_t *id; /* NULL: its number */
    int32_t *ids;
    size_t n;
    char *text; /* NULL when given as ids */
};

struct result {
    int done;
    enum pva_finish finish;
    int32_t *tokens;
    int64_t n;
};

struct job {
    struct engine engine;
    struct prompt *prompts;
    size_t n_prompts;
    int64_t samples;
    struct result *results; /* [n_prompts * samples] */
    size_t printed;
    int64_t tokens, finished, max_new;
    double start;
    int quiet;
    struct pva_steer steer; /* --steer */
    struct pva_direction direction;
    struct pva_intervention intervention;
    struct pva_error *err;
};

static int add_prompt(struct job *job, struct prompt p, struct pva_error *err) {
    struct prompt *more = realloc(job->prompts, (job->n_prompts + 1) * sizeof *more);
    if (!more) return pva_fail(err, PVA_IO, "out of memory");
    job->prompts = more;
    more[job->n_prompts++] = p;
    return PVA_OK;
}

static int prompt_from_json(struct job *job, const json_t *line, struct prompt *p, struct pva_error *err) {
    const json_t *text = json_object_get(line, "prompt"), *ids = json_object_get(line, "ids");
    if (!json_is_object(line) || (!json_is_string(text) && !json_is_array(ids)))
        return pva_fail(err, PVA_INPUT, "expected {\"prompt\": TEXT} or {\"ids\": [...]}");
    p->id = json_incref(json_object_get(line, "id"));
    if (json_is_string(text)) {
        p->text = strdup(json_string_value(text));
        return engine_encode_prompt(&job->engine, json_string_value(text), json_string_length(text), &p->ids, &p->n, err);
    }
    p->n = json_array_size(ids);
    p->ids = malloc((p->n + 1) * sizeof *p->ids);
    if (!p->ids) return pva_fail(err, PVA_IO, "out of memory");
    for (size_t i = 0; i < p->n; i++) {
        const json_t *id = json_array_get(ids, i);
        json_int_t v = json_integer_value(id);
        if (!json_is_integer(id) || v < 0 || v >= pva_model_get_config(job->engine.model)->n_vocab)
            return pva_fail(err, PVA_INPUT, "ids[%zu] is no token of the vocabulary of %d", i, (int)pva_model_get_config(job->engine.model)->n_vocab);
        p->ids[i] = (int32_t)v;
    }
    return p->n ? PVA_OK : pva_fail(err, PVA_INPUT, "ids is empty");
}

static int read_prompts(struct job *job, const char *path, struct pva_error *err) {
    FILE *f = fopen(path, "re");
    if (!f) return pva_fail(err, PVA_INPUT, "%s: %s", path, strerror(errno));
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    for (long number = 1; !err->code && (n = getline(&line, &size, f)) >= 0; number++) {
        if (strspn(line, " \t\r\n") == (size_t)n) continue;
        json_error_t why;
        json_t *root = json_loadb(line, (size_t)n, JSON_REJECT_DUPLICATES, &why);
        struct prompt p = {0};
        if (!root) pva_fail(err, PVA_INPUT, "%s", why.text);
        else if (!prompt_from_json(job, root, &p, err)) add_prompt(job, p, err);
        if (err->code) pva_error_prefix(err, "%s:%ld", path, number);
        json_decref(root);
    }
    if (!err->code && ferror(f)) pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    free(line);
    fclose(f);
    if (!err->code && !job->n_prompts) pva_fail(err, PVA_INPUT, "%s: no prompts", path);
    return err->code;
}

static void print_result(struct job *job, size_t i) {
    const struct prompt *p = &job->prompts[i / (size_t)job->samples];
    struct result *r = &job->results[i];
    char *text = NULL;
    size_t n_text = 0;
    struct pva_error ignored = {0};
    json_t *tokens = json_array(), *o = json_object();
    for (int64_t t = 0; t < r->n; t++) json_array_append_new(tokens, json_integer(r->tokens[t]));
    json_object_set_new(o, "id", p->id ? json_incref(p->id) : json_integer((json_int_t)(i / (size_t)job->samples)));
    if (job->samples > 1) json_object_set_new(o, "sample", json_integer((json_int_t)(i % (size_t)job->samples)));
    if (p->text) json_object_set_new(o, "prompt", json_string(p->text));
    if (job->engine.tokenizer && !pva_tokenizer_decode(job->engine.tokenizer, r->tokens, (size_t)r->n, &text, &n_text, &ignored)) {
        /* Byte tokens may be no UTF-8 together; JSON needs it, and the ids keep what was generated exactly. */
        json_t *s = json_stringn(text, n_text);
        json_object_set_new(o, "text", s ? s : json_null());
    }
    json_object_set_new(o, "ids", tokens);
    json_object_set_new(o, "finish", json_string(pva_finish_name(r->finish)));
    json_dumpf(o, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
    fputc('\n', stdout);
    fflush(stdout);
    json_decref(o);
    free(text);
    free(r->tokens);
    r->tokens = NULL;
}

static int on_token(void *user, int64_t id, const int32_t *tokens, int64_t n) {
    struct job *job = user;
    (void)id, (void)tokens, (void)n;
    job->tokens++;
    double seconds = engine_now() - job->start;
    if (!job->quiet && seconds > 0.5)
        pva_log_progress("%lld/%zu done  %lld tokens  %.1f tokens/s", (long long)job->finished, job->n_prompts * (size_t)job->samples,
                         (long long)job->tokens, (double)job->tokens / seconds);
    return 0;
}

static void on_done(void *user, const struct pva_completion *c) {
    struct job *job = user;
    struct result *r = &job->results[c->id];
    r->finish = c->finish;
    r->n = c->n_tokens;
    r->tokens = malloc((size_t)(c->n_tokens + 1) * sizeof *r->tokens);
    if (!r->tokens) {
        pva_fail(job->err, PVA_IO, "out of memory");
        return;
    }
    memcpy(r->tokens, c->tokens, (size_t)c->n_tokens * sizeof *r->tokens);
    r->done = 1;
    job->finished++;
    while (job->printed < job->n_prompts * (size_t)job->samples && job->results[job->printed].done) print_result(job, job->printed++);
}

/* The file of the autoencoder of --steer's layer. */
static int find_sae(const struct job *job, const struct pva_options *o, char path[3072], struct pva_error *err) {
    const char *sae = pva_options_text(o, "sae");
    int n_layers = pva_model_get_config(job->engine.model)->n_layers;
    struct stat st;
    if (!sae) return pva_fail(err, PVA_USAGE, "--steer with a latent needs --sae PATH");
    if (!stat(sae, &st) && S_ISREG(st.st_mode)) {
        snprintf(path, 3072, "%s", sae);
        return PVA_OK;
    }
    struct pva_sae_file *files = calloc((size_t)n_layers, sizeof *files);
    unsigned char *marks = calloc((size_t)n_layers, 1);
    if (!files || !marks) pva_fail(err, PVA_IO, "out of memory");
    else {
        marks[job->steer.layer] = 1;
        if (!pva_sae_scan(sae, pva_options_text(o, "width"), pva_options_text(o, "l0"), n_layers, marks, files, err))
            snprintf(path, 3072, "%s", files[job->steer.layer].path);
    }
    free(files);
    free(marks);
    return err->code;
}

static int open_steering(struct job *job, const struct pva_options *o, struct pva_error *err) {
    const struct pva_model_config *c = pva_model_get_config(job->engine.model);
    const char *text = pva_options_text(o, "steer");
    char path[3072];
    struct pva_sae *sae = NULL;
    if (!text || pva_steer_parse(text, &job->steer, err)) return err->code;
    if (job->steer.layer >= c->n_layers) return pva_fail(err, PVA_USAGE, "--steer: the model has layers 0 to %d, there is no %d", c->n_layers - 1, job->steer.layer);
    if (job->steer.latent < 0) pva_direction_from_file(job->steer.path, job->steer.layer, c->d_model, &job->direction, err);
    else if (!find_sae(job, o, path, err) && !pva_sae_open(path, &sae, err)) {
        if (pva_sae_d_model(sae) != c->d_model)
            pva_fail(err, PVA_INPUT, "%s: is for d_model %lld, the model has %lld", path, (long long)pva_sae_d_model(sae), (long long)c->d_model);
        else pva_direction_from_latent(sae, job->steer.layer, job->steer.latent, &job->direction, err);
    }
    pva_sae_close(&sae);
    if (!err->code && job->steer.sign < 0) pva_direction_flip(&job->direction);
    job->intervention = (struct pva_intervention){.point = PVA_RESID_POST, .layer = job->steer.layer, .action = job->steer.action, .positions = job->steer.positions,
                                                  .n_directions = 1, .directions = job->direction.unit};
    return err->code;
}

static int run_job(struct job *job, const struct pva_options *o, struct pva_error *err) {
    const struct pva_model_config *c = pva_model_get_config(job->engine.model);
    int64_t longest = 0, total = (int64_t)job->n_prompts * job->samples, batch = pva_options_int(o, "batch-size");
    for (size_t i = 0; i < job->n_prompts; i++) {
        if ((int64_t)job->prompts[i].n >= c->max_positions)
            return pva_fail(err, PVA_INPUT, "prompt %zu has %zu tokens, the model takes %lld", i, job->prompts[i].n, (long long)c->max_positions);
        if ((int64_t)job->prompts[i].n > longest) longest = (int64_t)job->prompts[i].n;
    }
    int64_t positions = longest + job->max_new < c->max_positions ? longest + job->max_new : c->max_positions;
    if (batch > total) batch = total;
    struct pva_generator_settings settings = {
        .session = {.n_slots = (int)batch, .max_positions = positions, .max_rows = batch > 256 ? batch : 256},
        .interventions = &job->intervention,
        .n_interventions = job->direction.unit != NULL,
        .events = {.user = job, .on_token = on_token, .on_done = on_done},
    };
    struct pva_generator *g = NULL;
    if (pva_generator_open(job->engine.model, &settings, &g, err)) return err->code;
    job->start = engine_now();
    for (int64_t i = 0; i < total && !err->code; i++) {
        const struct prompt *p = &job->prompts[i / job->samples];
        int64_t limit = (int64_t)p->n + job->max_new < positions ? (int64_t)p->n + job->max_new : positions;
        struct pva_request request = {
            .id = i,
            .seed = (uint64_t)pva_options_int(o, "seed"),
            .item = (uint32_t)(i / job->samples),
            .sample = (uint32_t)(i % job->samples),
            .prompt = p->ids,
            .n_prompt = (int64_t)p->n,
            .max_tokens = limit,
            .temperature = (float)pva_options_real(o, "temperature"),
            .intervention = job->direction.unit ? 0 : -1,
            .coefficient = (float)(job->steer.coefficient * job->steer.scale),
        };
        pva_generator_submit(g, &request, err);
    }
    int busy = 1;
    while (busy && !err->code) pva_generator_step(g, &busy, err);
    pva_log_progress_end();
    if (!job->quiet && !err->code) {
        struct pva_generator_stats s;
        pva_generator_get_stats(g, &s);
        double wall = engine_now() - job->start, decode = s.decode_seconds > 0 ? s.decode_seconds : wall;
        fprintf(stderr, "pva-mpi: %lld prompt tokens and %lld shared, %lld new tokens in %.2f s (decode %.2f tokens/s, %.1f ms a pass); model opened in %.2f s\n",
                (long long)s.prompt_tokens, (long long)s.shared_tokens, (long long)s.new_tokens, wall, (double)s.new_tokens / wall, 1e3 * decode / (double)(s.passes ? s.passes : 1),
                job->engine.open_seconds);
    }
    pva_generator_close(&g);
    return err->code;
}

int pva_command_generate(const struct pva_options *o, struct pva_error *err) {
    struct job job = {.samples = pva_options_int(o, "samples"), .max_new = pva_options_int(o, "max-new-tokens"), .quiet = pva_options_flag(o, "quiet"), .err = err};
    const char *prompt = pva_options_text(o, "prompt"), *prompts = pva_options_text(o, "prompts");
    if (!prompt == !prompts) return pva_fail(err, PVA_USAGE, "give --prompt TEXT or --prompts FILE");
    if (engine_open(o, prompt != NULL, &job.engine, err) || open_steering(&job, o, err)) goto done;
    if (prompt) {
        struct prompt p = {.text = strdup(prompt)};
        if (engine_encode_prompt(&job.engine, prompt, strlen(prompt), &p.ids, &p.n, err) || add_prompt(&job, p, err)) goto done;
    } else if (read_prompts(&job, prompts, err)) {
        goto done;
    }
    job.results = calloc(job.n_prompts * (size_t)job.samples, sizeof *job.results);
    if (!job.results) {
        pva_fail(err, PVA_IO, "out of memory");
        goto done;
    }
    run_job(&job, o, err);
done:
    for (size_t i = 0; job.results && i < job.n_prompts * (size_t)job.samples; i++) free(job.results[i].tokens);
    for (size_t i = 0; i < job.n_prompts; i++) {
        json_decref(job.prompts[i].id);
        free(job.prompts[i].ids);
        free(job.prompts[i].text);
    }
    free(job.prompts);
    free(job.results);
    pva_direction_free(&job.direction);
    engine_close(&job.engine);
    return err->code;
}
