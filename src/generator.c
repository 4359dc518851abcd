#include "pva/generator.h"

#include "pva/rng.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const position_names[] = {"all", "last", "generated", "last-prompt", "last-generated"};
static const char *const finish_names[] = {"eos", "limit", "stopped", "cancelled", "nan"};

const char *pva_positions_name(enum pva_positions p) { return position_names[p]; }
const char *pva_finish_name(enum pva_finish f) { return finish_names[f]; }

int pva_positions_parse(const char *name, enum pva_positions *out, struct pva_error *err) {
    for (int i = 0; i < 5; i++) {
        if (strcmp(name, position_names[i])) continue;
        *out = (enum pva_positions)i;
        return PVA_OK;
    }
    return pva_fail(err, PVA_USAGE, "positions \"%s\" are unknown: all, last, generated, last-prompt or last-generated", name);
}

/* One request on its way. The tokens of its prompt and those generated lie in one array, so that a sequence that lost its pages is
 * computed again by the same code that computes a prompt. */
struct sequence {
    struct sequence *next; /* in the queue */
    struct pva_request request;
    int32_t *tokens;        /* [request.max_tokens] */
    int64_t n_tokens;       /* prompt and generated */
    int64_t n_computed;     /* of them, those whose keys and values are in the cache */
    int64_t captured_until; /* positions below were given to on_capture (or kept in last_rows) */
    float *last_rows;       /* [n_marked, d_model], for PVA_POSITIONS_LAST_GENERATED */
    int slot;
    double admitted, first_token;
};

struct intervention {
    struct pva_intervention what; /* its directions pointer is not kept */
    int first_layer;              /* whose input it changes */
    unsigned char *layers;
    struct pva_buffer *directions;
    int32_t *which_host;
    float *coefficients_host;
};

struct row {
    struct sequence *sequence;
    int64_t position;
};

/* What a pass captured, until it is delivered. */
struct captured {
    struct pva_buffer *memory; /* f32 [n_marked, n, d_model] */
    struct pva_readback *readback;
    struct row *rows;          /* [capture_rows] */
    int64_t n;
    int on_its_way;            /* the readback has begun */
};

/* A piece of a prompt that goes into this pass. */
struct piece {
    struct sequence *sequence;
    int64_t from, to;
};

struct pva_generator {
    struct pva_session *session;
    struct pva_generator_settings settings;
    int64_t d_model, n_marked, max_rows, capture_rows;

    struct sequence *queue_first, **queue_end;
    struct sequence **running; /* [n_slots], in order of admission */
    int64_t n_queued, n_running;

    struct row *rows; /* [max_rows], of this pass */
    int64_t n_rows;
    struct piece *pieces; /* [n_slots] */
    uint64_t *changes;    /* [max_positions], of one sequence */
    int *splits, n_splits;

    struct sequence **owners; /* [n_slots], of the rows that get a token in this pass */
    int64_t n_owners;
    int32_t *logit_rows, *sampled; /* [n_slots] */
    float *temperatures;
    double *draws;

    struct intervention *interventions;
    unsigned char *capture_layers;
    int32_t *capture_index_host; /* [capture_rows]: row of the pass */
    float *capture_row;          /* [n_marked, d_model] of one position */
    struct captured captured[2]; /* of this pass and of the one before, in turn: one is copied back while the other is computed */
    int turn;                    /* this pass's */
    struct pva_hook *hooks;      /* [n_interventions + 1] */

    struct pva_generator_stats stats;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int out_of_memory(struct pva_error *err) { return pva_fail(err, PVA_IO, "out of memory"); }

/* ---- open and close ---- */

/* The first layer whose keys and values an intervention changes; n_layers: none. A change within a layer counts for the whole of it. */
static int first_changed(const struct pva_intervention *v) { return v->layer + (v->point == PVA_RESID_POST); }

static int open_intervention(struct pva_generator *g, const struct pva_model *m, const struct pva_intervention *from, struct intervention *to,
                             struct pva_error *err) {
    const struct pva_backend_ops *op = pva_model_ops(m);
    struct pva_backend *be = pva_model_backend(m);
    int n_layers = pva_model_get_config(m)->n_layers;
    if (from->layer < 0 || from->layer >= n_layers)
        return pva_fail(err, PVA_USAGE, "intervention at layer %d: the model has layers 0 to %d", from->layer, n_layers - 1);
    PVA_ASSERT(from->action != PVA_HOOK_CAPTURE && from->positions != PVA_POSITIONS_LAST_GENERATED);
    PVA_ASSERT(from->n_directions > 0 && from->n_directions < 1 << 20); /* change_at */
    size_t bytes = (size_t)(from->n_directions * g->d_model) * sizeof(float);
    to->what = *from;
    to->what.directions = NULL;
    to->layers = calloc((size_t)n_layers, 1);
    to->which_host = calloc((size_t)g->max_rows, sizeof *to->which_host);
    to->coefficients_host = calloc((size_t)g->max_rows, sizeof *to->coefficients_host);
    if (!to->layers || !to->which_host || !to->coefficients_host) return out_of_memory(err);
    to->layers[from->layer] = 1;
    to->first_layer = first_changed(from);
    if (op->alloc(be, bytes, &to->directions, err)) return err->code;
    return op->upload(be, (struct pva_tensor){to->directions, 0, PVA_F32, from->n_directions, g->d_model}, from->directions, err);
}

static int rising(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* Where a prompt is changed as a whole, the layers below are all that sequences can have in common. */
static int plan_splits(struct pva_generator *g, int n_layers, struct pva_error *err) {
    g->splits = calloc((size_t)g->settings.n_interventions + 1, sizeof *g->splits);
    if (!g->splits) return out_of_memory(err);
    int n = 0;
    for (int i = 0; i < g->settings.n_interventions && !g->settings.unshared; i++) {
        const struct pva_intervention *v = &g->settings.interventions[i];
        int layer = first_changed(v);
        if (v->positions == PVA_POSITIONS_ALL && layer > 0 && layer < n_layers) g->splits[n++] = layer;
    }
    qsort(g->splits, (size_t)n, sizeof *g->splits, rising);
    for (int i = 0; i < n; i++)
        if (!i || g->splits[i] != g->splits[i - 1]) g->splits[g->n_splits++] = g->splits[i];
    g->settings.session.splits = g->splits;
    g->settings.session.n_splits = g->n_splits;
    return PVA_OK;
}

static int open_capture(struct pva_generator *g, const struct pva_model *m, struct pva_error *err) {
    const struct pva_backend_ops *op = pva_model_ops(m);
    struct pva_backend *be = pva_model_backend(m);
    const struct pva_capture *c = &g->settings.capture;
    int n_layers = pva_model_get_config(m)->n_layers;
    if (!c->layers) return PVA_OK;
    g->capture_layers = malloc((size_t)n_layers);
    if (!g->capture_layers) return out_of_memory(err);
    memcpy(g->capture_layers, c->layers, (size_t)n_layers);
    for (int i = 0; i < n_layers; i++) g->n_marked += g->capture_layers[i] = g->capture_layers[i] != 0;
    g->settings.capture.layers = g->capture_layers;
    g->capture_rows = c->positions == PVA_POSITIONS_LAST_PROMPT ? g->settings.session.n_slots : g->max_rows;
    int64_t values = g->n_marked * g->capture_rows * g->d_model;
    g->capture_index_host = malloc((size_t)g->capture_rows * sizeof *g->capture_index_host);
    g->capture_row = malloc((size_t)(g->n_marked * g->d_model) * sizeof *g->capture_row);
    if (!g->capture_index_host || !g->capture_row) return out_of_memory(err);
    for (int i = 0; i < 2; i++) {
        struct captured *k = &g->captured[i];
        k->rows = calloc((size_t)g->capture_rows, sizeof *k->rows);
        if (!k->rows) return out_of_memory(err);
        if (op->alloc(be, (size_t)values * sizeof(float), &k->memory, err) || op->readback_open(be, (size_t)values * sizeof(float), &k->readback, err))
            return err->code;
    }
    return PVA_OK;
}

int pva_generator_open(const struct pva_model *m, const struct pva_generator_settings *settings, struct pva_generator **out, struct pva_error *err) {
    struct pva_generator *g = calloc(1, sizeof *g);
    if (!g) return out_of_memory(err);
    g->settings = *settings;
    g->queue_end = &g->queue_first;
    g->d_model = pva_model_get_config(m)->d_model;
    g->max_rows = settings->session.max_rows;
    size_t slots = (size_t)settings->session.n_slots, rows = (size_t)g->max_rows;
    if (g->max_rows < settings->session.n_slots) {
        pva_fail(err, PVA_USAGE, "%lld rows per pass cannot carry %d sequences", (long long)g->max_rows, settings->session.n_slots);
        goto fail;
    }
    g->running = calloc(slots, sizeof *g->running);
    g->rows = calloc(rows, sizeof *g->rows);
    g->pieces = calloc(slots, sizeof *g->pieces);
    g->changes = calloc((size_t)settings->session.max_positions, sizeof *g->changes);
    g->owners = calloc(slots, sizeof *g->owners);
    g->logit_rows = calloc(slots, sizeof *g->logit_rows);
    g->sampled = calloc(slots, sizeof *g->sampled);
    g->temperatures = calloc(slots, sizeof *g->temperatures);
    g->draws = calloc(slots, sizeof *g->draws);
    g->interventions = calloc((size_t)settings->n_interventions + 1, sizeof *g->interventions);
    g->hooks = calloc((size_t)settings->n_interventions + 1, sizeof *g->hooks);
    if (!g->running || !g->rows || !g->pieces || !g->changes || !g->owners || !g->logit_rows || !g->sampled || !g->temperatures || !g->draws ||
        !g->interventions || !g->hooks) {
        out_of_memory(err);
        goto fail;
    }
    g->settings.session.hook_values = 2 * settings->n_interventions + (settings->capture.layers != NULL);
    if (plan_splits(g, pva_model_get_config(m)->n_layers, err) || pva_session_open(m, &g->settings.session, &g->session, err)) goto fail;
    for (int i = 0; i < settings->n_interventions; i++)
        if (open_intervention(g, m, &settings->interventions[i], &g->interventions[i], err)) goto fail;
    if (open_capture(g, m, err)) goto fail;
    *out = g;
    return PVA_OK;
fail:
    pva_generator_close(&g);
    return err->code;
}

static void free_sequence(struct sequence *q) {
    if (!q) return;
    free((int32_t *)q->request.prompt);
    free(q->tokens);
    free(q->last_rows);
    free(q);
}

void pva_generator_close(struct pva_generator **generator) {
    struct pva_generator *g = *generator;
    if (!g) return;
    for (struct sequence *q = g->queue_first, *next; q; q = next) {
        next = q->next;
        free_sequence(q);
    }
    for (int64_t i = 0; i < g->n_running; i++) free_sequence(g->running[i]);
    if (g->session) {
        const struct pva_backend_ops *op = pva_model_ops(pva_session_model(g->session));
        struct pva_backend *be = pva_model_backend(pva_session_model(g->session));
        for (int i = 0; i < g->settings.n_interventions; i++) {
            struct intervention *v = &g->interventions[i];
            op->free(be, &v->directions);
            free(v->layers);
            free(v->which_host);
            free(v->coefficients_host);
        }
        for (int i = 0; i < 2; i++) {
            op->readback_close(be, &g->captured[i].readback);
            op->free(be, &g->captured[i].memory);
            free(g->captured[i].rows);
        }
    }
    pva_session_close(&g->session);
    free(g->running);
    free(g->rows);
    free(g->pieces);
    free(g->changes);
    free(g->splits);
    free(g->owners);
    free(g->logit_rows);
    free(g->sampled);
    free(g->temperatures);
    free(g->draws);
    free(g->interventions);
    free(g->hooks);
    free(g->capture_layers);
    free(g->capture_index_host);
    free(g->capture_row);
    free(g);
    *generator = NULL;
}

static int position_matches(enum pva_positions positions, int64_t position, int64_t n_prompt) {
    switch (positions) {
    case PVA_POSITIONS_ALL: return 1;
    case PVA_POSITIONS_LAST: return position >= n_prompt - 1;
    case PVA_POSITIONS_GENERATED: return position >= n_prompt;
    case PVA_POSITIONS_LAST_PROMPT: return position == n_prompt - 1;
    case PVA_POSITIONS_LAST_GENERATED: return position >= n_prompt - 1; /* the latest one wins */
    }
    return 0;
}

/* ---- what sequences have in common ---- */

/* What acts on a row besides its token, as a number: the same for two requests only if it is the same. A coefficient of 0 is no exception:
 * a placebo goes its whole way. */
static uint64_t change_at(const struct pva_generator *g, const struct pva_request *q, int64_t position) {
    if (q->intervention < 0 || !position_matches(g->interventions[q->intervention].what.positions, position, q->n_prompt)) return 0;
    uint32_t coefficient;
    memcpy(&coefficient, &q->coefficient, sizeof coefficient);
    return (uint64_t)(q->intervention + 1) << 52 | (uint64_t)q->direction << 32 | coefficient;
}

static int changed_layer(const struct pva_generator *g, const struct pva_request *q) {
    return q->intervention < 0 ? 0 : g->interventions[q->intervention].first_layer;
}

static int capture_due(const struct pva_generator *g, const struct sequence *q, int64_t position) {
    return g->n_marked && position >= q->captured_until && position_matches(g->settings.capture.positions, position, q->request.n_prompt);
}

/* Goes on with what others have computed. Not the last position, whose logits are wanted, and none that is to be captured. */
static void share(struct pva_generator *g, struct sequence *q) {
    int64_t n = 0;
    if (g->settings.unshared) return;
    for (; n < q->n_tokens - 1 && (n < q->n_computed || !capture_due(g, q, n)); n++) g->changes[n] = change_at(g, &q->request, n);
    q->n_computed = pva_session_share(g->session, q->slot, q->tokens, g->changes, changed_layer(g, &q->request), n);
}

/* ---- queue ---- */

int pva_generator_submit(struct pva_generator *g, const struct pva_request *r, struct pva_error *err) {
    const struct pva_session_settings *s = &g->settings.session;
    if (r->n_prompt < 1) return pva_fail(err, PVA_INPUT, "an empty prompt");
    if (r->max_tokens > s->max_positions || (s->kv_positions > 0 && r->max_tokens > s->kv_positions))
        return pva_fail(err, PVA_INPUT, "a sequence of up to %lld tokens does not fit: the session holds %lld", (long long)r->max_tokens,
                        (long long)(s->kv_positions > 0 && s->kv_positions < s->max_positions ? s->kv_positions : s->max_positions));
    if (r->n_prompt >= r->max_tokens)
        return pva_fail(err, PVA_INPUT, "the prompt has %lld tokens, the whole sequence may have %lld", (long long)r->n_prompt, (long long)r->max_tokens);
    PVA_ASSERT(r->intervention < g->settings.n_interventions && r->intervention < 4095); /* change_at */
    if (r->intervention >= 0) PVA_ASSERT(r->direction >= 0 && r->direction < g->interventions[r->intervention].what.n_directions);
    struct sequence *q = calloc(1, sizeof *q);
    int32_t *prompt = malloc((size_t)r->n_prompt * sizeof *prompt), *tokens = malloc((size_t)r->max_tokens * sizeof *tokens);
    float *last_rows = g->settings.capture.positions == PVA_POSITIONS_LAST_GENERATED && g->n_marked
                           ? malloc((size_t)(g->n_marked * g->d_model) * sizeof *last_rows)
                           : NULL;
    if (!q || !prompt || !tokens) {
        free(q);
        free(prompt);
        free(tokens);
        free(last_rows);
        return out_of_memory(err);
    }
    memcpy(prompt, r->prompt, (size_t)r->n_prompt * sizeof *prompt);
    memcpy(tokens, r->prompt, (size_t)r->n_prompt * sizeof *tokens);
    *q = (struct sequence){.request = *r, .tokens = tokens, .n_tokens = r->n_prompt, .last_rows = last_rows, .slot = -1};
    q->request.prompt = prompt;
    *g->queue_end = q;
    g->queue_end = &q->next;
    g->n_queued++;
    return PVA_OK;
}

static struct sequence *queue_pop(struct pva_generator *g) {
    struct sequence *q = g->queue_first;
    g->queue_first = q->next;
    if (!g->queue_first) g->queue_end = &g->queue_first;
    g->n_queued--;
    q->next = NULL;
    return q;
}

static void queue_push_front(struct pva_generator *g, struct sequence *q) {
    q->next = g->queue_first;
    if (!g->queue_first) g->queue_end = &q->next;
    g->queue_first = q;
    g->n_queued++;
}

static void count_shared(struct pva_generator *g, int64_t from, int64_t to) {
    g->stats.shared_tokens += to - from;
    g->stats.shared_visits += (to - from) * pva_model_get_config(pva_session_model(g->session))->n_layers;
}

/* A waiting sequence starts when a slot is free and the pages for all tokens it has so far, and one more, are. */
static void admit(struct pva_generator *g) {
    while (g->queue_first && g->n_running < g->settings.session.n_slots) {
        struct sequence *q = g->queue_first;
        q->slot = pva_session_claim(g->session);
        q->n_computed = 0;
        PVA_ASSERT(q->slot >= 0);
        share(g, q);
        if (!pva_session_reserve(g->session, q->slot, q->n_tokens)) {
            pva_session_release(g->session, q->slot);
            q->slot = -1;
            return;
        }
        count_shared(g, 0, q->n_computed);
        queue_pop(g);
        if (q->admitted == 0) q->admitted = now();
        g->running[g->n_running++] = q;
    }
}

static void evict_last(struct pva_generator *g) {
    struct sequence *q = g->running[--g->n_running];
    pva_session_release(g->session, q->slot);
    g->stats.evictions++;
    g->stats.recomputed_tokens += q->n_computed;
    q->slot = -1;
    queue_push_front(g, q);
}

static int deliver_captures(struct pva_generator *g, struct captured *k, struct pva_error *err) {
    const struct pva_model *m = pva_session_model(g->session);
    const struct pva_generator_events *e = &g->settings.events;
    const void *host;
    int64_t n = k->n;
    if (!k->on_its_way) return PVA_OK;
    k->on_its_way = 0;
    if (pva_model_ops(m)->readback_wait(pva_model_backend(m), k->readback, &host, err)) return err->code;
    for (int64_t i = 0; i < n; i++) {
        const struct row *r = &k->rows[i];
        float *to = r->sequence->last_rows ? r->sequence->last_rows : g->capture_row;
        for (int64_t l = 0; l < g->n_marked; l++) memcpy(to + l * g->d_model, (const float *)host + (l * n + i) * g->d_model, (size_t)g->d_model * sizeof *to);
        if (!r->sequence->last_rows && e->on_capture) e->on_capture(e->user, r->sequence->request.id, r->position, to);
    }
    return PVA_OK;
}

static void finish(struct pva_generator *g, struct sequence *q, enum pva_finish how) {
    const struct pva_generator_events *e = &g->settings.events;
    double end = now();
    if (q->last_rows && q->captured_until > 0 && e->on_capture) e->on_capture(e->user, q->request.id, q->captured_until - 1, q->last_rows);
    struct pva_completion done = {
        .id = q->request.id,
        .finish = how,
        .tokens = q->tokens + q->request.n_prompt,
        .n_tokens = q->n_tokens - q->request.n_prompt,
        .prefill_seconds = q->first_token > 0 ? q->first_token - q->admitted : q->admitted > 0 ? end - q->admitted : 0,
        .decode_seconds = q->first_token > 0 ? end - q->first_token : 0,
    };
    if (q->slot >= 0) pva_session_release(g->session, q->slot);
    if (e->on_done) e->on_done(e->user, &done);
    free_sequence(q);
}

/* The captures that are still on their way, of the older pass first. */
static int deliver_all(struct pva_generator *g, struct pva_error *err) {
    return deliver_captures(g, &g->captured[!g->turn], err) || deliver_captures(g, &g->captured[g->turn], err) ? err->code : PVA_OK;
}

void pva_generator_cancel_all(struct pva_generator *g) {
    struct pva_error err = {0}; /* a device that fails here has failed the caller before */
    deliver_all(g, &err);
    while (g->n_running) finish(g, g->running[--g->n_running], PVA_FINISH_CANCELLED);
    while (g->queue_first) finish(g, queue_pop(g), PVA_FINISH_CANCELLED);
}

/* ---- one pass ---- */

static void add_row(struct pva_generator *g, struct sequence *q, int64_t position) {
    const struct pva_request *r = &q->request;
    g->rows[g->n_rows++] = (struct row){q, position};
    g->stats.shared_visits += pva_session_enters(g->session, q->slot, position);
    pva_session_add(g->session, q->slot, position, q->tokens[position], change_at(g, r, position), changed_layer(g, r));
}

/* Those of the piece's rows that are first computed in this layer. */
static void add_entering(struct pva_generator *g, const struct piece *p, int layer) {
    for (int64_t position = p->from; position < p->to; position++)
        if (pva_session_enters(g->session, p->sequence->slot, position) == layer) add_row(g, p->sequence, position);
}

/* Decoding sequences first, one row each; then prompts, oldest first, in what room is left. A prompt that begins like an older one meets that one's rows
 * in the pass: it can share them from this pass on. */
static void plan_rows(struct pva_generator *g) {
    int64_t n_pieces = 0;
    g->n_rows = 0;
    for (int64_t i = 0; i < g->n_running; i++) {
        struct sequence *q = g->running[i];
        while (q->slot >= 0 && !pva_session_reserve(g->session, q->slot, q->n_tokens)) evict_last(g);
        if (q->slot >= 0 && q->n_tokens - q->n_computed == 1) add_row(g, q, q->n_computed);
    }
    int64_t room = g->max_rows - g->n_rows;
    for (int64_t i = 0; i < g->n_running && room > 0; i++) {
        struct sequence *q = g->running[i];
        if (q->n_tokens - q->n_computed <= 1) continue;
        int64_t before = q->n_computed, left;
        share(g, q);
        count_shared(g, before, q->n_computed);
        left = q->n_tokens - q->n_computed;
        g->pieces[n_pieces] = (struct piece){q, q->n_computed, q->n_computed + (left < room ? left : room)};
        room -= g->pieces[n_pieces].to - g->pieces[n_pieces].from;
        add_entering(g, &g->pieces[n_pieces++], 0);
    }
    for (int k = 0; k < g->n_splits; k++)
        for (int64_t i = 0; i < n_pieces; i++) add_entering(g, &g->pieces[i], g->splits[k]);
}

static void plan_interventions(struct pva_generator *g, int *n_hooks) {
    for (int i = 0; i < g->settings.n_interventions; i++) {
        struct intervention *v = &g->interventions[i];
        int used = 0; /* by a row of this pass */
        for (int64_t r = 0; r < g->n_rows; r++) {
            const struct pva_request *q = &g->rows[r].sequence->request;
            int on = q->intervention == i && position_matches(v->what.positions, g->rows[r].position, q->n_prompt);
            v->which_host[r] = on ? q->direction : -1;
            v->coefficients_host[r] = on ? q->coefficient : 0;
            used |= on;
        }
        if (!used) continue;
        g->hooks[(*n_hooks)++] = (struct pva_hook){
            .point = v->what.point,
            .action = v->what.action,
            .layers = v->layers,
            .directions = {v->directions, 0, PVA_F32, v->what.n_directions, g->d_model},
            .which = pva_session_send(g->session, PVA_I32, v->which_host, g->n_rows),
            .coefficients = pva_session_send(g->session, PVA_F32, v->coefficients_host, g->n_rows),
        };
    }
}

static void plan_capture(struct pva_generator *g, int *n_hooks) {
    const struct pva_capture *c = &g->settings.capture;
    struct captured *k = &g->captured[g->turn = !g->turn];
    k->n = 0;
    if (!g->n_marked) return;
    for (int64_t r = 0; r < g->n_rows; r++) {
        if (!capture_due(g, g->rows[r].sequence, g->rows[r].position)) continue;
        PVA_ASSERT(k->n < g->capture_rows);
        g->capture_index_host[k->n] = (int32_t)r;
        k->rows[k->n++] = g->rows[r];
    }
    if (!k->n) return;
    g->hooks[(*n_hooks)++] = (struct pva_hook){
        .point = c->point,
        .action = PVA_HOOK_CAPTURE,
        .layers = g->capture_layers,
        .rows = pva_session_send(g->session, PVA_I32, g->capture_index_host, k->n),
        .captured = {k->memory, 0, PVA_F32, g->n_marked * k->n, g->d_model},
    };
}

/* Of every sequence that this pass brings to its end, the next token. */
static void plan_tokens(struct pva_generator *g) {
    g->n_owners = 0;
    for (int64_t r = 0; r < g->n_rows; r++) {
        struct sequence *q = g->rows[r].sequence;
        if (g->rows[r].position != q->n_tokens - 1) continue;
        int64_t n = g->n_owners++;
        g->logit_rows[n] = (int32_t)r;
        g->temperatures[n] = q->request.temperature;
        g->draws[n] = pva_rng_uniform(q->request.seed, PVA_RNG_TOKEN, q->request.item, q->request.sample, (uint32_t)(q->n_tokens - q->request.n_prompt));
        g->owners[n] = q;
    }
    pva_session_want(g->session, g->logit_rows, g->n_owners, g->temperatures, g->draws);
}

/* Sends this pass's captures on their way. */
static int read_captures(struct pva_generator *g, struct pva_error *err) {
    const struct pva_model *m = pva_session_model(g->session);
    struct captured *k = &g->captured[g->turn];
    struct pva_tensor captured = {k->memory, 0, PVA_F32, g->n_marked * k->n, g->d_model};
    if (k->n && pva_model_ops(m)->readback_begin(pva_model_backend(m), k->readback, captured, err)) return err->code;
    k->on_its_way = k->n > 0;
    for (int64_t i = 0; i < k->n; i++) k->rows[i].sequence->captured_until = k->rows[i].position + 1;
    return PVA_OK;
}

static int is_eos(const struct pva_model_config *c, int32_t token) {
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos_ids[i] == token) return 1;
    return 0;
}

/* Whether the sequence ends with this token, and how. */
static int take_token(struct pva_generator *g, struct sequence *q, int32_t token, enum pva_finish *how) {
    const struct pva_generator_events *e = &g->settings.events;
    if (q->first_token == 0) q->first_token = now();
    if (token < 0) {
        *how = PVA_FINISH_NAN;
        return 1;
    }
    if (is_eos(pva_model_get_config(pva_session_model(g->session)), token)) {
        *how = PVA_FINISH_EOS;
        return 1;
    }
    q->tokens[q->n_tokens++] = token;
    g->stats.new_tokens++;
    if (e->on_token && e->on_token(e->user, q->request.id, q->tokens + q->request.n_prompt, q->n_tokens - q->request.n_prompt)) {
        *how = PVA_FINISH_STOPPED;
        return 1;
    }
    *how = PVA_FINISH_LIMIT;
    return q->n_tokens >= q->request.max_tokens;
}

static int take_tokens(struct pva_generator *g, struct pva_error *err) {
    /* The last pass's captures are delivered while the device computes, before its tokens are waited for. */
    if (deliver_captures(g, &g->captured[!g->turn], err) || pva_session_tokens(g->session, g->n_owners, g->sampled, err)) return err->code;
    for (int64_t i = 0; i < g->n_owners; i++) {
        struct sequence *q = g->owners[i];
        enum pva_finish how;
        if (!take_token(g, q, g->sampled[i], &how)) continue;
        if (deliver_all(g, err)) return err->code; /* of the sequence that ends, before its end is told */
        int64_t at = 0;
        while (g->running[at] != q) at++;
        memmove(g->running + at, g->running + at + 1, (size_t)(--g->n_running - at) * sizeof *g->running);
        finish(g, q, how);
    }
    return PVA_OK;
}

int pva_generator_step(struct pva_generator *g, int *busy, struct pva_error *err) {
    double start = now();
    int n_hooks = 0;
    admit(g);
    plan_rows(g);
    plan_interventions(g, &n_hooks);
    plan_capture(g, &n_hooks);
    plan_tokens(g);
    if (pva_session_run(g->session, g->hooks, n_hooks, err)) return err->code;
    int64_t prompt_rows = 0;
    for (int64_t r = 0; r < g->n_rows; r++) {
        struct sequence *q = g->rows[r].sequence;
        if (q->n_computed <= g->rows[r].position) q->n_computed = g->rows[r].position + 1;
        prompt_rows += g->rows[r].position < q->request.n_prompt;
    }
    if (read_captures(g, err) || take_tokens(g, err)) return err->code;
    if (g->n_rows) {
        g->stats.passes++;
        g->stats.prompt_tokens += prompt_rows;
        *(prompt_rows ? &g->stats.prefill_seconds : &g->stats.decode_seconds) += now() - start;
    }
    *busy = g->n_running > 0 || g->n_queued > 0;
    return PVA_OK;
}

int64_t pva_generator_queued(const struct pva_generator *g) { return g->n_queued; }
int64_t pva_generator_running(const struct pva_generator *g) { return g->n_running; }
void pva_generator_get_stats(const struct pva_generator *g, struct pva_generator_stats *out) { *out = g->stats; }
struct pva_session *pva_generator_session(struct pva_generator *g) { return g->session; }
