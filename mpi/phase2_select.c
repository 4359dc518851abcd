#include "phase2_select.h"
#include "phase2_rank.h"
#include "pile_read.h"
#include "stop.h"

#include "pva/bits.h"
#include "pva/hash.h"
#include "pva/log.h"
#include "pva/multiple.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const double phase2_thresholds[PHASE2_N_THRESHOLDS] = {0.005, 0.01, 0.02, 0.05, 0.1};

/* Everything of all layers: [n_layers, n_latents], n in all. */
struct work {
    const struct phase2_plan *plan;
    const struct engine *engine;
    struct store *scores;
    int64_t n, n_latents, n_words;
    double *rate, *familywise_p, *q; /* q holds Fisher's p until it is adjusted */
    uint8_t *passes;
    int64_t *place;                  /* [n_hypotheses] */
    uint64_t *patterns;              /* [n_hypotheses, n_words] */
    int64_t n_hypotheses;
    struct selection_identity identity;
    struct selection_lists lists;
};

static int make_work(struct work *w, const struct phase2_plan *plan, const struct engine *engine, struct store *scores, struct pva_error *err) {
    memset(w, 0, sizeof *w);
    w->plan = plan, w->engine = engine, w->scores = scores;
    w->n_latents = plan->layers.n_latents, w->n = plan->layers.n * w->n_latents, w->n_words = pva_bits_words(plan->layers.n_items);
    size_t n = (size_t)w->n + 1, top = (size_t)(PHASE2_N_LISTS * plan->top) + 1;
    w->rate = malloc(n * sizeof *w->rate), w->familywise_p = malloc(n * sizeof *w->familywise_p), w->q = malloc(n * sizeof *w->q);
    w->passes = malloc(n);
    w->lists.top = plan->top;
    w->lists.layer = malloc(top * sizeof *w->lists.layer), w->lists.latent = malloc(top * sizeof *w->lists.latent);
    memcpy(w->lists.thresholds, phase2_thresholds, sizeof phase2_thresholds);
    if (!w->rate || !w->familywise_p || !w->q || !w->passes || !w->lists.layer || !w->lists.latent)
        return pva_fail(err, PVA_IO, "out of memory for %lld latents", (long long)w->n);
    return PVA_OK;
}

static void free_work(struct work *w) {
    free(w->rate), free(w->familywise_p), free(w->q), free(w->passes), free(w->place), free(w->patterns), free(w->lists.layer), free(w->lists.latent);
}

/* ---- general text ---- */

static int read_rates(struct work *w, struct phase2_selected *out, struct pva_error *err) {
    const struct phase2_layers *l = &w->plan->layers;
    char path[4096];
    struct pva_sha256 hash;
    uint8_t digest[PVA_SHA256_BYTES];
    snprintf(path, sizeof path, "%s/pile.h5", w->plan->run);
    out->had_pile = !access(path, F_OK);
    snprintf(w->identity.pile_sha256, sizeof w->identity.pile_sha256, "none");
    for (int64_t i = 0; i < w->n; i++) w->rate[i] = NAN;
    pva_sha256_start(&hash);
    for (int64_t k = 0; k < l->n && out->had_pile; k++) {
        struct pile_layer facts;
        if (pile_layer(w->plan->run, l->layer[k], &facts, err)) return err->code;
        if (memcmp(facts.sae_sha256, l->sae_sha256[k], PHASE2_SHA256) || strcmp(facts.model_sha256, w->plan->phase1.model_sha256))
            return pva_fail(err, PVA_INPUT, "%s: layer %d was measured with another %s; run pva-mpi pile with this one, or move the file away to do without", path,
                            (int)l->layer[k], strcmp(facts.model_sha256, w->plan->phase1.model_sha256) ? "model" : "autoencoder");
        if (strcmp(facts.point, strcmp(w->plan->alignment, "aligned") ? "resid_pre" : "resid_post"))
            return pva_fail(err, PVA_INPUT, "%s: was measured at %s; run pva-mpi pile with --sae-alignment %s, or move the file away", path, facts.point,
                            w->plan->alignment);
        if (pile_rates(w->plan->run, l->layer[k], w->rate + k * w->n_latents, w->n_latents, &out->n_documents, err)) return err->code;
        pva_sha256_add(&hash, w->rate + k * w->n_latents, (size_t)w->n_latents * sizeof *w->rate);
    }
    if (out->had_pile) {
        pva_sha256_finish(&hash, digest);
        pva_sha256_hex(digest, w->identity.pile_sha256);
    }
    for (int64_t i = 0; i < w->n; i++) {
        w->passes[i] = !(w->rate[i] >= w->plan->pile_threshold); /* also where nothing is known */
        out->n_passing += w->passes[i];
        for (int t = 0; t < PHASE2_N_THRESHOLDS; t++) out->thresholds_passing[t] += !(w->rate[i] >= phase2_thresholds[t]);
    }
    w->identity.n_documents = out->n_documents;
    w->identity.pile_threshold = w->plan->pile_threshold;
    w->identity.n_permutations = w->plan->n_permutations, w->identity.seed = w->plan->seed;
    w->identity.statistic = w->plan->statistic == PVA_FIRING_STUDENTISED ? "studentised" : "separation";
    w->identity.n_passing = out->n_passing;
    memcpy(w->lists.n_passing, out->thresholds_passing, sizeof w->lists.n_passing);
    return PVA_OK;
}

/* ---- is it there already? ---- */

static int same_text(struct store *s, const char *name, const char *value) {
    struct pva_error ignored = {0};
    char text[128];
    return !store_text(s, name, text, sizeof text, &ignored) && !strcmp(text, value);
}
static int same_integer(struct store *s, const char *name, int64_t value) {
    struct pva_error ignored = {0};
    int64_t found;
    return !store_integer(s, name, &found, &ignored) && found == value;
}

static int is_current(const struct work *w, const char *path, struct phase2_selected *out) {
    struct selection_schema schema;
    struct store *s = NULL;
    struct pva_error ignored = {0};
    const struct selection_identity *id = &w->identity;
    double threshold;
    selection_schema_any(&schema);
    if (access(path, F_OK) || store_open_read(path, &schema.store, &s, &ignored)) return 0;
    int64_t n = store_n_slots(s);
    uint8_t *states = calloc((size_t)n + 1, 1);
    int same = states && n == w->plan->layers.n && store_dim_size(s, "latent") == w->n_latents &&
               !store_read_coordinate(s, "top_layer", STORE_I32, w->lists.layer, (size_t)(PHASE2_N_LISTS * w->lists.top) * sizeof *w->lists.layer, &ignored) &&
               same_text(s, "pile_sha256", id->pile_sha256) && same_text(s, "statistic", id->statistic) && same_integer(s, "seed", id->seed) &&
               same_integer(s, "n_permutations", id->n_permutations) && !store_real(s, "pile_threshold", &threshold, &ignored) &&
               threshold == id->pile_threshold && !store_states(s, states, &ignored);
    for (int64_t i = 0; same && i < n; i++) same = states[i] == STORE_DONE;
    if (same) store_integer(s, "n_hypotheses", &out->n_hypotheses, &ignored);
    free(states);
    store_close(&s, &ignored);
    return same;
}

/* ---- family-wise p and q ---- */

/* Firing sets of the latents that pass and ever fire; Fisher's p of the latents that pass. */
static int collect(struct work *w, struct pva_error *err) {
    size_t row = (size_t)w->n_words * sizeof(uint64_t), layer_bytes = (size_t)w->n_latents * row, latents = (size_t)w->n_latents;
    uint64_t *fires = malloc(layer_bytes + 8);
    int32_t *active[2] = {malloc((latents + 1) * sizeof(int32_t)), malloc((latents + 1) * sizeof(int32_t))};
    int64_t room = 0;
    if (!fires || !active[0] || !active[1]) pva_fail(err, PVA_IO, "out of memory");
    for (int64_t k = 0; k < w->plan->layers.n && !err->code; k++) {
        double *fisher = w->q + k * w->n_latents;
        if (store_read(w->scores, k, PHASE2_FIRES, fires, err) || store_read(w->scores, k, PHASE2_ACTIVE_CORRECT, active[0], err) ||
            store_read(w->scores, k, PHASE2_ACTIVE_INCORRECT, active[1], err) || store_read(w->scores, k, PHASE2_FISHER_P, fisher, err))
            break;
        for (int64_t j = 0; j < w->n_latents; j++) {
            int64_t i = k * w->n_latents + j, n_active = active[0][j] + active[1][j];
            if (!w->passes[i] || n_active == 0 || n_active == w->plan->n_selection) {
                fisher[j] = NAN; /* dropped, or no hypothesis */
                continue;
            }
            if (w->n_hypotheses == room) {
                room = room ? 2 * room : 65536;
                uint64_t *patterns = realloc(w->patterns, (size_t)room * row + 8);
                if (patterns) w->patterns = patterns;
                int64_t *place = realloc(w->place, (size_t)room * sizeof *place);
                if (place) w->place = place;
                if (!patterns || !place) {
                    pva_fail(err, PVA_IO, "out of memory for the firing sets of %lld latents", (long long)room);
                    break;
                }
            }
            memcpy(w->patterns + w->n_hypotheses * w->n_words, fires + j * w->n_words, row);
            w->place[w->n_hypotheses++] = i;
        }
    }
    free(fires), free(active[0]), free(active[1]);
    return err->code;
}

/* This rank's share, in pieces, so that a signal is heard. */
static int count_share(const struct work *w, const struct par *p, const struct pva_firing *f, int64_t *counts, struct pva_error *err) {
    enum { PIECE = 1024, STREAM = 2 };
    int64_t n = w->plan->n_permutations, first = 1 + n * p->rank / p->size, end = 1 + n * (p->rank + 1) / p->size;
    for (int64_t at = first; at < end; at += PIECE) {
        if (stop_requested()) return pva_fail(err, PVA_STOPPED, "stopped while permuting; all layers are stored, run the same command to go on");
        if (pva_firing_count(f, (uint64_t)w->plan->seed, STREAM, at, end - at < PIECE ? end - at : PIECE, counts, err)) break;
    }
    return err->code;
}

/* Collective. */
static int infer(struct work *w, const struct par *p, struct phase2_selected *out, struct pva_error *err) {
    struct pva_firing *f = NULL;
    int64_t *counts = NULL, n_levels = 0;
    double *p_values = NULL, start = engine_now();
    if (!collect(w, err) && !pva_firing_create(w->plan->correct, w->plan->n_selection, w->patterns, w->n_hypotheses, w->plan->statistic, w->engine->ops,
                                            w->engine->be, &f, err)) {
        n_levels = pva_firing_levels(f);
        out->n_hypotheses = w->identity.n_hypotheses = pva_firing_hypotheses(f);
        out->n_distinct = pva_firing_distinct(f);
        counts = calloc((size_t)n_levels + 1, sizeof *counts);
        p_values = malloc((size_t)(w->n_hypotheses + 1) * sizeof *p_values);
        if (!counts || !p_values) pva_fail(err, PVA_IO, "out of memory");
    }
    if (!err->code) count_share(w, p, f, counts, err);
    if (!par_agree(p, "permute labels", err)) {
        PVA_ASSERT(n_levels <= INT32_MAX);
        PAR_CHECK(p, MPI_Allreduce(MPI_IN_PLACE, counts, (int)n_levels, MPI_INT64_T, MPI_SUM, p->comm));
        for (int64_t i = 0; i < w->n; i++) w->familywise_p[i] = w->passes[i] ? 1 : NAN;
        if (!pva_firing_finish(f, counts, w->plan->n_permutations, p_values, err) && !pva_adjust(PVA_BH, w->q, w->n, w->q, err)) {
            for (int64_t i = 0; i < w->n_hypotheses; i++) w->familywise_p[w->place[i]] = p_values[i];
            for (int64_t i = 0; i < w->n; i++)
                if (w->passes[i] && isnan(w->q[i])) w->q[i] = 1;
        }
        par_agree(p, "adjust p values", err);
    }
    pva_firing_free(&f);
    free(counts), free(p_values);
    out->seconds = engine_now() - start;
    return err->code;
}

/* ---- lists ---- */

static int make_lists(struct work *w, struct pva_error *err) {
    const struct phase2_layers *l = &w->plan->layers;
    enum { T = PHASE2_N_THRESHOLDS };
    struct phase2_ranking lists[PHASE2_N_LISTS], firsts[T][PHASE2_N_LISTS];
    struct phase2_best *best = calloc((size_t)(PHASE2_N_LISTS * (w->lists.top + T)) + 1, sizeof *best);
    double *separation = malloc((size_t)(w->n_latents + 1) * sizeof *separation), *t = malloc((size_t)(w->n_latents + 1) * sizeof *t);
    if (!best || !separation || !t) pva_fail(err, PVA_IO, "out of memory");
    for (int k = 0; k < PHASE2_N_LISTS; k++) {
        lists[k] = (struct phase2_ranking){best + k * w->lists.top, (int)w->lists.top, 0};
        for (int h = 0; h < T; h++) firsts[h][k] = (struct phase2_ranking){best + PHASE2_N_LISTS * w->lists.top + h * PHASE2_N_LISTS + k, 1, 0};
    }
    for (int64_t slot = 0; slot < l->n && !err->code; slot++) {
        if (store_read(w->scores, slot, PHASE2_SEPARATION, separation, err) || store_read(w->scores, slot, PHASE2_T, t, err)) break;
        for (int64_t j = 0; j < w->n_latents; j++)
            for (int k = 0; k < PHASE2_N_LISTS; k++) {
                int64_t i = slot * w->n_latents + j;
                double score = phase2_list_score((enum phase2_list)k, separation[j], t[j]);
                if (!(score > 0)) continue;
                if (w->passes[i]) phase2_ranking_offer(&lists[k], score, l->layer[slot], (int32_t)j);
                for (int h = 0; h < T; h++)
                    if (!(w->rate[i] >= phase2_thresholds[h])) phase2_ranking_offer(&firsts[h][k], score, l->layer[slot], (int32_t)j);
            }
    }
    for (int k = 0; k < PHASE2_N_LISTS && !err->code; k++) {
        for (int i = 0; i < w->lists.top; i++) {
            w->lists.layer[k * w->lists.top + i] = i < lists[k].n ? lists[k].best[i].layer : -1;
            w->lists.latent[k * w->lists.top + i] = i < lists[k].n ? lists[k].best[i].latent : -1;
        }
        for (int h = 0; h < T; h++) {
            w->lists.best_layer[h][k] = firsts[h][k].n ? firsts[h][k].best[0].layer : -1;
            w->lists.best_latent[h][k] = firsts[h][k].n ? firsts[h][k].best[0].latent : -1;
        }
    }
    free(best), free(separation), free(t);
    return err->code;
}

/* ---- the file ---- */

static int write_slots(const struct work *w, struct store *s, struct pva_error *err) {
    for (int64_t k = 0; k < w->plan->layers.n; k++) {
        int64_t at = k * w->n_latents;
        if (store_write(s, k, SELECTION_PILE_RATE, w->rate + at, err) || store_write(s, k, SELECTION_PASSES, w->passes + at, err) ||
            store_write(s, k, SELECTION_FAMILYWISE_P, w->familywise_p + at, err) || store_write(s, k, SELECTION_Q, w->q + at, err) ||
            store_commit(s, k, STORE_DONE, err))
            return err->code;
    }
    return store_checkpoint(s, err);
}

/* Collective. What it replaces follows from phase2.h5 in seconds and is not kept. */
static int write_file(const struct work *w, const struct par *p, const char *path, struct pva_error *err) {
    struct selection_schema schema;
    struct store *s = NULL;
    struct pva_error late = {0};
    if (p->rank == 0) unlink(path);
    par_barrier(p);
    selection_schema_fill(&schema, &w->identity, &w->plan->layers, &w->lists);
    if (store_open(p, path, &schema.store, STORE_FRESH, &s, err)) return err->code;
    if (p->rank == 0) write_slots(w, s, err);
    if (store_close(&s, &late) && !err->code) *err = late;
    return par_agree(p, "write selection", err);
}

int phase2_select(const struct phase2_plan *plan, const struct par *p, const struct run *run, const struct engine *engine, struct store *scores,
                  struct phase2_selected *out, struct pva_error *err) {
    struct work w;
    char path[4096];
    *out = (struct phase2_selected){0};
    run_path(run, "phase2-selection.h5", path);
    if (!make_work(&w, plan, engine, scores, err)) read_rates(&w, out, err);
    if (!par_agree(p, "read firing rates", err)) {
        out->was_current = p->rank == 0 && is_current(&w, path, out);
        PAR_CHECK(p, MPI_Bcast(&out->was_current, 1, MPI_INT, 0, p->comm));
        if (!out->was_current && !infer(&w, p, out, err)) {
            make_lists(&w, err);
            if (!par_agree(p, "rank latents", err)) write_file(&w, p, path, err);
        }
    }
    free_work(&w);
    return err->code;
}
