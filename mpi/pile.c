/* pile: how often each latent fires on general text. Two steps: the residual stream at one position of each document (ranks share the documents), then each
 * layer's autoencoder over all of them (ranks share the layers). Each step's file lists what is finished. */
#include "commands.h"
#include "dispatch.h"
#include "engine.h"
#include "pile_documents.h"
#include "pile_schema.h"
#include "run.h"
#include "stop.h"

#include "pva/generator.h"
#include "pva/hash.h"
#include "pva/log.h"
#include "pva/sae.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct pva_option pva_pile_options[] = {
    {"run", PVA_OPT_TEXT, "DIR", NULL, "run directory", NULL, 0, 0},
    {"pile", PVA_OPT_TEXT, "FILE", NULL, "general text: JSON lines {\"text\": ...}, or plain text with blank lines between documents; optionally gzip", NULL, 0, 0},
    {"documents", PVA_OPT_INT, "N", "0", "read the first N documents; 0: all", NULL, 0, 1e9},
    {"max-tokens", PVA_OPT_INT, "N", "128", "tokens of a document that are considered, BOS included", NULL, 2, 1 << 20},
    {"sae", PVA_OPT_TEXT, "DIR", NULL, "autoencoders: layer_N/width_W/average_l0_X/params.npz below it", NULL, 0, 0},
    {"width", PVA_OPT_TEXT, "W", NULL, "16k, 131k ...; default: the only one there is", NULL, 0, 0},
    {"l0", PVA_OPT_TEXT, "L0", "canonical", "canonical, smallest, largest, or a number: the closest", NULL, 0, 0},
    {"sae-alignment", PVA_OPT_CHOICE, "HOW", "aligned", "layer L's autoencoder reads resid_post[L]; original: resid_pre[L]", "aligned|original", 0, 0},
    {"layers", PVA_OPT_TEXT, "SET", "all", "all, 3, 0-5,8", NULL, 0, 0},
    {"seed", PVA_OPT_INT, "S", "42", "of the positions drawn", NULL, 0, 9007199254740991.0},
    {"batch-size", PVA_OPT_INT, "N", "16", "documents at once per rank", NULL, 1, 256},
    {"resid-dtype", PVA_OPT_CHOICE, "TYPE", "f32", "how the residual stream is stored", "f32|bf16", 0, 0},
    {"resume", PVA_OPT_CHOICE, "HOW", "auto", "auto, or never: existing results are kept aside", "auto|never", 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

struct pile {
    const struct pva_options *options;
    struct par par;
    struct run run;
    struct engine engine;
    unsigned char *layers; /* [n_layers] marks */
    int n_layers;
    int32_t chosen[256]; /* [n_chosen] the marked ones */
    int64_t n_chosen, d, n_latents;
    struct pva_sae_file *files;  /* [n_layers] */
    char (*fingerprints)[65];    /* [n_layers] */
    char saes_sha256[65];
    struct pile_documents documents;
    struct pile_identity identity;
    struct pile_schema documents_schema, layers_schema;
    char isa[16];
    struct store *activations, *rates;
    uint8_t *states; /* of the step at work */
    struct pva_generator *generator;
    int64_t in_flight, committed;
    double start;
    int quiet;
    struct pva_error *err; /* what a callback found */
};

/* ---- what is asked for ---- */

/* Rank 0 samples the weights; the others are told. Collective. */
static int identify_saes(struct pile *p, struct pva_error *err) {
    struct pva_sha256 all;
    uint8_t digest[PVA_SHA256_BYTES];
    int64_t n_latents = 0;
    pva_sha256_start(&all);
    for (int l = 0; p->par.rank == 0 && l < p->n_layers && !err->code; l++) {
        struct pva_sae *sae = NULL;
        if (!p->layers[l]) continue;
        if (pva_sae_open(p->files[l].path, &sae, err)) break;
        if (!n_latents) n_latents = pva_sae_n_latents(sae);
        if (pva_sae_d_model(sae) != p->d)
            pva_fail(err, PVA_INPUT, "%s: is for a model with d_model %lld, this one has %lld", p->files[l].path, (long long)pva_sae_d_model(sae), (long long)p->d);
        else if (pva_sae_n_latents(sae) != n_latents)
            pva_fail(err, PVA_INPUT, "%s: has %lld latents, the layers before it %lld; one width for all layers", p->files[l].path, (long long)pva_sae_n_latents(sae),
                     (long long)n_latents);
        else if (!pva_sae_fingerprint(sae, p->fingerprints[l], err)) pva_sha256_add(&all, p->fingerprints[l], 64);
        pva_sae_close(&sae);
    }
    pva_sha256_finish(&all, digest);
    pva_sha256_hex(digest, p->saes_sha256);
    if (par_agree(&p->par, "read autoencoders", err)) return err->code;
    PAR_CHECK(&p->par, MPI_Bcast(&n_latents, 1, MPI_INT64_T, 0, p->par.comm));
    PAR_CHECK(&p->par, MPI_Bcast(p->fingerprints, p->n_layers * (int)sizeof *p->fingerprints, MPI_CHAR, 0, p->par.comm));
    PAR_CHECK(&p->par, MPI_Bcast(p->saes_sha256, sizeof p->saes_sha256, MPI_CHAR, 0, p->par.comm));
    p->n_latents = n_latents;
    return PVA_OK;
}

static int make_plan(struct pile *p, struct pva_error *err) {
    const struct pva_options *o = p->options;
    const struct pva_model_config *c = pva_model_get_config(p->engine.model);
    struct pva_backend_info info;
    p->n_layers = c->n_layers, p->d = c->d_model;
    p->layers = calloc((size_t)p->n_layers, 1), p->files = calloc((size_t)p->n_layers, sizeof *p->files), p->fingerprints = calloc((size_t)p->n_layers, sizeof *p->fingerprints);
    int64_t max_tokens = pva_options_int(o, "max-tokens");
    if (!p->layers || !p->files || !p->fingerprints || p->n_layers > 256) pva_fail(err, PVA_IO, "out of memory");
    else if (max_tokens >= c->max_positions) pva_fail(err, PVA_USAGE, "--max-tokens %lld: the model takes %d", (long long)max_tokens, c->max_positions);
    else if (!pva_parse_set(pva_options_text(o, "layers"), p->n_layers, p->layers, err) &&
             !pva_sae_scan(pva_options_text(o, "sae"), pva_options_text(o, "width"), pva_options_text(o, "l0"), p->n_layers, p->layers, p->files, err) &&
             !pile_documents_read(pva_options_text(o, "pile"), &p->engine, pva_options_int(o, "documents"), max_tokens, pva_options_int(o, "seed"), &p->documents, err))
        run_model_fingerprint(pva_options_text(o, "model"), p->identity.model_sha256, err);
    if (par_agree(&p->par, "plan", err)) return err->code;
    for (int l = 0; l < p->n_layers; l++)
        if (p->layers[l]) p->chosen[p->n_chosen++] = l;
    if (identify_saes(p, err)) return err->code;
    p->engine.ops->describe(p->engine.be, &info);
    snprintf(p->isa, sizeof p->isa, "%s", info.isa);
    memcpy(p->identity.pile_sha256, p->documents.sha256, sizeof p->identity.pile_sha256);
    p->identity.operand = pva_options_text(o, "dtype"), p->identity.backend = p->engine.ops->name, p->identity.isa = p->isa;
    p->identity.seed = pva_options_int(o, "seed"), p->identity.max_tokens = max_tokens;
    p->identity.point = strcmp(pva_options_text(o, "sae-alignment"), "aligned") ? PVA_RESID_PRE : PVA_RESID_POST;
    return PVA_OK;
}

/* ---- the main loop both steps share ---- */

struct step {
    const char *name, *unit;
    struct store *store;
    int64_t n, slots_at_once;
    const int64_t *costs;
    int (*start)(struct pile *p, int64_t slot, struct pva_error *err);
    int (*advance)(struct pile *p, struct pva_error *err); /* while items are in flight; NULL: start finishes them */
};

static void show_progress(struct pile *p, const struct step *step) {
    double t = engine_now();
    static double last;
    if (p->quiet || p->par.rank || t - last < 1) return;
    last = t;
    struct pva_error ignored = {0};
    uint8_t *states = malloc((size_t)step->n + 1);
    int64_t done = 0;
    if (states && !store_states(step->store, states, &ignored)) {
        for (int64_t i = 0; i < step->n; i++) done += states[i] != STORE_EMPTY;
        pva_log_progress("pile  %s %lld/%lld  %.0f s", step->unit, (long long)done, (long long)step->n, t - p->start);
    }
    free(states);
}

/* Collective. */
static int run_step(struct pile *p, const struct step *step, struct pva_error *err) {
    struct schedule *schedule = NULL;
    int64_t items[DISPATCH_MOST];
    p->err = err, p->committed = 0;
    p->states = malloc((size_t)step->n + 1);
    if (!p->states) pva_fail(err, PVA_IO, "out of memory");
    else if (p->par.rank == 0 && !store_states(step->store, p->states, err)) schedule_create(step->n, step->costs, NULL, p->states, p->par.size, &schedule, err);
    if (par_agree(&p->par, step->name, err)) goto done;
    struct dispatch *d = dispatch_open(&p->par, schedule, (int)(step->slots_at_once / 4), stop_requested);
    while (!err->code && (!dispatch_finished(d) || p->in_flight)) {
        int64_t room = step->slots_at_once - p->in_flight, n = p->in_flight ? dispatch_next(d, room, items) : dispatch_wait(d, room, items);
        if (dispatch_stopping(d) && p->in_flight) pva_generator_cancel_all(p->generator); /* short work: it is done again */
        for (int64_t i = 0; i < n && !err->code; i++) step->start(p, items[i], err);
        if (!err->code && p->in_flight) step->advance(p, err);
        show_progress(p, step);
    }
    pva_log_progress_end();
    if (err->code) dispatch_fail(d);
    int outcome = dispatch_close(&d);
    schedule_free(&schedule);
    if (!err->code) store_checkpoint(step->store, err);
    if (!par_agree(&p->par, step->name, err) && outcome & DISPATCH_STOPPED)
        pva_fail(err, PVA_STOPPED, "stopped; everything finished is stored, run the same command to go on");
done:
    free(p->states);
    p->states = NULL;
    return err->code;
}

/* ---- step 1: documents ---- */

static int on_token(void *user, int64_t id, const int32_t *tokens, int64_t n) {
    (void)user, (void)id, (void)tokens, (void)n;
    return 1; /* the prompt was all there is to compute */
}

static int store_resid(struct pile *p, int64_t slot, const float *rows, struct pva_error *err) {
    size_t n = (size_t)(p->n_chosen * p->d);
    if (store_field_bytes(p->activations, PILE_RESID) == n * sizeof *rows) return store_write(p->activations, slot, PILE_RESID, rows, err);
    uint16_t *narrow = malloc(n * sizeof *narrow);
    if (!narrow) return pva_fail(err, PVA_IO, "out of memory");
    for (size_t i = 0; i < n; i++) narrow[i] = pva_f32_to_bf16(rows[i]);
    store_write(p->activations, slot, PILE_RESID, narrow, err);
    free(narrow);
    return err->code;
}

static void on_capture(void *user, int64_t id, int64_t position, const float *rows) {
    struct pile *p = user;
    const struct pile_document *document = &p->documents.list[id];
    PVA_ASSERT(position == document->position);
    if (p->err->code || store_write(p->activations, id, PILE_N_TOKENS, &document->n_tokens, p->err) ||
        store_write(p->activations, id, PILE_POSITION, &document->position, p->err) || store_resid(p, id, rows, p->err) ||
        store_commit(p->activations, id, STORE_DONE, p->err))
        return;
    if (++p->committed % 500 == 0) store_checkpoint(p->activations, p->err);
}

static void on_done(void *user, const struct pva_completion *c) {
    struct pile *p = user;
    (void)c;
    p->in_flight--;
}

static int start_document(struct pile *p, int64_t slot, struct pva_error *err) {
    const struct pile_document *document = &p->documents.list[slot];
    struct pva_request request = {
        .id = slot, .prompt = document->ids, .n_prompt = document->position + 1, .max_tokens = document->position + 2, .intervention = -1};
    p->in_flight++;
    return pva_generator_submit(p->generator, &request, err);
}

static int advance_documents(struct pile *p, struct pva_error *err) {
    int busy;
    return pva_generator_step(p->generator, &busy, err);
}

static int capture_documents(struct pile *p, enum store_mode mode, struct pva_error *err) {
    char path[4096];
    int64_t batch = pva_options_int(p->options, "batch-size"), *damaged = NULL, n_damaged = 0;
    enum store_type type = strcmp(pva_options_text(p->options, "resid-dtype"), "f32") ? STORE_BF16 : STORE_F32;
    if (batch > p->documents.n) batch = p->documents.n;
    pile_documents_schema(&p->documents_schema, &p->identity, p->documents.index, p->documents.n, p->n_layers, p->layers, p->d, type);
    if (store_open(&p->par, run_path(&p->run, "pile-activations.h5", path), &p->documents_schema.store, mode, &p->activations, err) ||
        store_verify(&p->par, p->activations, &damaged, &n_damaged, err))
        return err->code;
    free(damaged);
    enum { PASS_ROWS = 512 };
    struct pva_generator_settings settings = {
        .session = {.n_slots = (int)batch, .max_positions = p->identity.max_tokens + 1, .max_rows = batch > PASS_ROWS ? batch : PASS_ROWS},
        .capture = {.point = p->identity.point, .layers = p->layers, .positions = PVA_POSITIONS_LAST_PROMPT},
        .events = {.user = p, .on_token = on_token, .on_capture = on_capture, .on_done = on_done},
    };
    pva_generator_open(p->engine.model, &settings, &p->generator, err);
    if (par_agree(&p->par, "open session", err)) return err->code;
    const struct step step = {"read documents", "documents", p->activations, p->documents.n, batch, p->documents.costs, start_document, advance_documents};
    run_step(p, &step, err);
    pva_generator_close(&p->generator);
    return err->code;
}

/* ---- step 2: layers ---- */

/* Firing counts, in the documents' order, of a block of rows. */
static void count_firing(const struct pva_sparse *a, int64_t *fired, double *sum) {
    for (int64_t j = 0; j < a->indptr[a->n_rows]; j++) {
        fired[a->indices[j]]++;
        sum[a->indices[j]] += a->data[j];
    }
}

struct layer_result {
    int64_t *fired, n_active, n_near;
    double *sum, unexplained;
};

static int encode_layer(struct pile *p, int64_t slot, const struct pva_sae *sae, struct layer_result *r, struct pva_error *err) {
    enum { BLOCK = 4096, JUDGED = 1024 };
    int64_t n = p->documents.n, judged = n < JUDGED ? n : JUDGED;
    float *x = malloc((size_t)((n < BLOCK ? n : BLOCK) * p->d) * sizeof *x), *back = malloc((size_t)(judged * p->d) * sizeof *back);
    if (!x || !back) pva_fail(err, PVA_IO, "out of memory for the activations of %lld documents", (long long)n);
    for (int64_t first = 0; first < n && !err->code; first += BLOCK) {
        int64_t m = n - first < BLOCK ? n - first : BLOCK;
        struct pva_sparse a = {0};
        for (int64_t i = 0; i < m && !err->code; i++) store_read_elements(p->activations, first + i, PILE_RESID, slot * p->d, p->d, x + i * p->d, err);
        if (err->code || pva_sae_encode(sae, p->engine.ops, p->engine.be, x, m, &a, err)) break;
        count_firing(&a, r->fired, r->sum);
        r->n_active += a.indptr[m], r->n_near += a.n_near;
        if (first == 0) {
            struct pva_sparse head = a;
            head.n_rows = judged;
            if (!pva_sae_decode(sae, &head, back, err)) r->unexplained = pva_sae_unexplained(x, back, judged, p->d);
        }
        pva_sparse_free(&a);
    }
    free(x);
    free(back);
    return err->code;
}

static int store_layer(struct pile *p, int64_t slot, const struct pva_sae *sae, const struct layer_result *r, struct pva_error *err) {
    int layer = p->chosen[slot];
    double l0 = (double)r->n_active / (double)p->documents.n, label = p->files[layer].l0;
    char path[PILE_PATH_SIZE] = {0};
    size_t n = strlen(pva_sae_path(sae)), skip = n > sizeof path ? n - sizeof path : 0;
    memcpy(path, pva_sae_path(sae) + skip, n - skip);
    if (store_write(p->rates, slot, PILE_N_FIRED, r->fired, err) || store_write(p->rates, slot, PILE_SUM, r->sum, err) ||
        store_write(p->rates, slot, PILE_MEAN_L0, &l0, err) || store_write(p->rates, slot, PILE_LABEL_L0, &label, err) ||
        store_write(p->rates, slot, PILE_UNEXPLAINED, &r->unexplained, err) || store_write(p->rates, slot, PILE_N_NEAR, &r->n_near, err) ||
        store_write(p->rates, slot, PILE_SAE_SHA256, p->fingerprints[layer], err) || store_write(p->rates, slot, PILE_SAE_PATH, path, err))
        return err->code;
    pva_log(PVA_LOG_INFO, "layer %d: mean L0 %.1f (label %.0f), %.1f %% of the variance explained, %lld pairs near a threshold", layer, l0, label,
            100 * (1 - r->unexplained), (long long)r->n_near);
    return store_commit(p->rates, slot, STORE_DONE, err);
}

static int start_layer(struct pile *p, int64_t slot, struct pva_error *err) {
    struct pva_sae *sae = NULL;
    struct layer_result r = {.fired = calloc((size_t)p->n_latents, sizeof *r.fired), .sum = calloc((size_t)p->n_latents, sizeof *r.sum), .unexplained = NAN};
    if (!r.fired || !r.sum) pva_fail(err, PVA_IO, "out of memory");
    else if (!pva_sae_open(p->files[p->chosen[slot]].path, &sae, err)) {
        pva_sae_read_ahead(sae); /* while the activations are read */
        if (!encode_layer(p, slot, sae, &r, err)) store_layer(p, slot, sae, &r, err);
    }
    pva_sae_close(&sae);
    free(r.fired);
    free(r.sum);
    return err->code;
}

static int encode_layers(struct pile *p, struct pva_error *err) {
    int64_t costs[256];
    for (int64_t i = 0; i < p->n_chosen; i++) costs[i] = 1;
    const struct step step = {"encode layers", "layers", p->rates, p->n_chosen, 1, costs, start_layer, NULL};
    return run_step(p, &step, err);
}

/* ---- the command ---- */

static int is_complete(struct pile *p, int *complete, struct pva_error *err) {
    uint8_t states[256] = {0};
    *complete = 1;
    if (!store_states(p->rates, states, err))
        for (int64_t i = 0; i < p->n_chosen; i++) *complete &= states[i] != STORE_EMPTY;
    int all = *complete;
    if (par_agree(&p->par, "read states", err)) return err->code;
    PAR_CHECK(&p->par, MPI_Allreduce(&all, complete, 1, MPI_INT, MPI_MIN, p->par.comm));
    return PVA_OK;
}

static int print_summary(struct pile *p, int cached, struct pva_error *err) {
    if (p->par.rank) return PVA_OK;
    char text[4096];
    double l0 = 0, unexplained = 0, v;
    for (int64_t i = 0; i < p->n_chosen; i++) {
        if (store_read(p->rates, i, PILE_MEAN_L0, &v, err)) return err->code;
        l0 += v / (double)p->n_chosen;
        if (store_read(p->rates, i, PILE_UNEXPLAINED, &v, err)) return err->code;
        unexplained += v / (double)p->n_chosen;
    }
    snprintf(text, sizeof text, "%lld documents, %lld layers of %lld latents: mean L0 %.1f, %.1f %% of the variance explained; %s%.1f s on %d rank%s; %s/pile.h5",
             (long long)p->documents.n, (long long)p->n_chosen, (long long)p->n_latents, l0, 100 * (1 - unexplained), cached ? "nothing left to do; " : "",
             engine_now() - p->start, p->par.size, p->par.size > 1 ? "s" : "", p->run.directory);
    pva_log(PVA_LOG_INFO, "%s", text);
    if (!p->quiet) fprintf(stderr, "pva-mpi: pile: %s\n", text);
    return PVA_OK;
}

static json_t *facts(const struct pile *p) {
    return json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:s}", "model_sha256", p->identity.model_sha256, "pile", pva_options_text(p->options, "pile"), "pile_sha256",
                     p->identity.pile_sha256, "saes_sha256", p->saes_sha256, "documents", (json_int_t)p->documents.n, "documents_without_text",
                     (json_int_t)p->documents.n_empty, "seed", (json_int_t)p->identity.seed, "resid_point", pva_point_name(p->identity.point));
}

static int run_phase(struct pile *p, struct pva_error *err) {
    char hosts[2048], path[4096];
    enum store_mode mode = strcmp(pva_options_text(p->options, "resume"), "never") ? STORE_RESUME : STORE_REPLACE;
    int complete = 0, before = 0;
    if (run_open(&p->par, pva_options_text(p->options, "run"), "pile", &p->run, err)) return err->code;
    run_list_hosts(&p->par, hosts, sizeof hosts);
    p->start = engine_now();
    pile_layers_schema(&p->layers_schema, &p->identity, p->documents.n, p->n_layers, p->layers, p->n_latents, p->saes_sha256);
    int64_t *damaged = NULL, n_damaged = 0;
    if (store_open(&p->par, run_path(&p->run, "pile.h5", path), &p->layers_schema.store, mode, &p->rates, err) ||
        store_verify(&p->par, p->rates, &damaged, &n_damaged, err))
        return err->code;
    free(damaged);
    if (p->par.rank == 0 && !run_write_config(&p->run, "pile", p->options, err)) run_write_manifest(&p->run, &p->par, "pile", hosts, facts(p), err);
    if (par_agree(&p->par, "write manifest", err) || is_complete(p, &before, err)) return err->code;
    if (!before && (capture_documents(p, mode, err) || encode_layers(p, err) || is_complete(p, &complete, err))) return err->code;
    print_summary(p, before, err);
    return par_agree(&p->par, "summary", err);
}

static int require_options(const struct pva_options *o, struct pva_error *err) {
    static const char *const names[] = {"run", "model", "sae", "pile"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (pva_options_require(o, names[i], err)) return err->code;
    return PVA_OK;
}

int pva_command_pile(const struct pva_options *o, struct pva_error *err) {
    struct pile *p = calloc(1, sizeof *p);
    struct pva_error late = {0};
    if (!p) return pva_fail(err, PVA_IO, "out of memory");
    p->options = o, p->quiet = pva_options_flag(o, "quiet");
    stop_install();
    if (par_open(&p->par, err)) {
        free(p);
        return err->code;
    }
    if (p->par.rank) pva_log_screen(PVA_LOG_ERROR);
    require_options(o, err);
    if (!par_agree(&p->par, "start", err) && !engine_open_shared(&p->par, o, 1, &p->engine, err) && !make_plan(p, err)) run_phase(p, err);
    pva_generator_close(&p->generator);
    if (p->activations) store_close(&p->activations, &late);
    if (p->rates) store_close(&p->rates, &late);
    pile_documents_free(&p->documents);
    free(p->layers);
    free(p->files);
    free(p->fingerprints);
    engine_close(&p->engine);
    run_close(&p->run);
    par_agree(&p->par, "close", &late);
    if (late.code && !err->code) *err = late;
    if (p->par.rank) err->msg[0] = 0; /* rank 0 says it */
    par_close(&p->par);
    free(p);
    return err->code;
}
