#include "phase2_rank.h"
#include "phase2_schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct phase2 {
    struct store *scores, *selection;
    int64_t n_layers, n_latents;
    int32_t *layers;               /* [n_layers] */
    char (*sae_path)[PHASE2_PATH + 1], (*sae_sha256)[PHASE2_SHA256 + 1];
    double *mean_norm;
    int64_t n[2], n_validation[2]; /* problems by class */
    char alignment[16];
};

static void *array(int64_t n, size_t size, struct pva_error *err) {
    void *p = calloc((size_t)n + 1, size);
    if (!p) pva_fail(err, PVA_IO, "out of memory");
    return p;
}

/* ---- opening ---- */

/* The file and how many of its layers are done; without the file *out stays NULL. */
static int open_counted(const char *path, const struct store_schema *schema, struct store **out, int64_t *done, struct pva_error *err) {
    if (access(path, F_OK) || store_open_read(path, schema, out, err)) return err->code;
    int64_t n = store_n_slots(*out);
    uint8_t *states = array(n, 1, err);
    *done = 0;
    if (states && !store_states(*out, states, err))
        for (int64_t i = 0; i < n; i++) *done += states[i] == STORE_DONE;
    free(states);
    return err->code;
}

static int open_finished(const char *run, const char *name, const struct store_schema *schema, struct store **out, struct pva_error *err) {
    char path[4096];
    int64_t done = 0;
    snprintf(path, sizeof path, "%s/%s", run, name);
    if (open_counted(path, schema, out, &done, err)) return err->code;
    if (!*out)
        return pva_fail(err, PVA_INPUT, "%s: phase 2 %s here; run pva-mpi phase2 --run %s", path, strcmp(name, "phase2.h5") ? "is not finished" : "was not run", run);
    if (done < store_n_slots(*out))
        pva_fail(err, PVA_INPUT, "%s: phase 2 is not finished: %lld of %lld layers; run pva-mpi phase2 --run %s again", path, (long long)done,
                 (long long)store_n_slots(*out), run);
    return err->code;
}

int phase2_finished(const char *run, struct pva_error *err) {
    static const char *const names[2] = {"phase2.h5", "phase2-selection.h5"};
    struct phase2_schema phase2;
    struct selection_schema selection;
    phase2_schema_any(&phase2);
    selection_schema_any(&selection);
    const struct store_schema *const schemas[2] = {&phase2.store, &selection.store};
    int finished = 1;
    for (int i = 0; i < 2 && !err->code; i++) {
        char path[4096];
        struct store *s = NULL;
        struct pva_error ignored = {0};
        int64_t done = 0;
        snprintf(path, sizeof path, "%s/%s", run, names[i]);
        open_counted(path, schemas[i], &s, &done, err);
        finished &= s && !err->code && done == store_n_slots(s);
        if (s) store_close(&s, &ignored);
    }
    return finished;
}

/* Fixed-length texts of the file, each with a final zero. */
static int read_texts(struct store *s, const char *name, int64_t n, size_t size, char *out, struct pva_error *err) {
    char *packed = array(n, size, err);
    if (packed && !store_read_coordinate(s, name, STORE_BYTES, packed, (size_t)n * size, err))
        for (int64_t i = 0; i < n; i++) memcpy(out + (size_t)i * (size + 1), packed + (size_t)i * size, size);
    free(packed);
    return err->code;
}

static int read_facts(struct phase2 *p, struct pva_error *err) {
    struct store *s = p->scores;
    int64_t n = p->n_layers = store_n_slots(s);
    p->n_latents = store_dim_size(s, "latent");
    if (store_n_slots(p->selection) != n || store_dim_size(p->selection, "latent") != p->n_latents)
        return pva_fail(err, PVA_INPUT, "phase2-selection.h5 is not of this phase2.h5; run pva-mpi phase2 again");
    p->layers = array(n, sizeof *p->layers, err);
    p->sae_path = array(n, sizeof *p->sae_path, err), p->sae_sha256 = array(n, sizeof *p->sae_sha256, err);
    p->mean_norm = array(n, sizeof *p->mean_norm, err);
    if (err->code || store_read_coordinate(s, "layer", STORE_I32, p->layers, (size_t)n * sizeof *p->layers, err) ||
        read_texts(s, "sae_path", n, PHASE2_PATH, (char *)p->sae_path, err) || read_texts(s, "sae_sha256", n, PHASE2_SHA256, (char *)p->sae_sha256, err) ||
        store_read_range(s, PHASE2_MEAN_NORM, 0, n, p->mean_norm, err) || store_text(s, "sae_alignment", p->alignment, sizeof p->alignment, err) ||
        store_integer(s, "n_correct", &p->n[0], err) || store_integer(s, "n_incorrect", &p->n[1], err) ||
        store_integer(s, "validation_n_correct", &p->n_validation[0], err))
        return err->code;
    return store_integer(s, "validation_n_incorrect", &p->n_validation[1], err);
}

int phase2_open(const char *run, struct phase2 **out, struct pva_error *err) {
    struct phase2_schema schema;
    struct selection_schema selection;
    struct phase2 *p = *out = array(1, sizeof *p, err);
    if (!p) return err->code;
    phase2_schema_any(&schema);
    selection_schema_any(&selection);
    if (open_finished(run, "phase2.h5", &schema.store, &p->scores, err) || open_finished(run, "phase2-selection.h5", &selection.store, &p->selection, err) ||
        read_facts(p, err))
        phase2_close(out);
    return err->code;
}

void phase2_close(struct phase2 **p) {
    struct pva_error ignored = {0};
    if (!*p) return;
    if ((*p)->scores) store_close(&(*p)->scores, &ignored);
    if ((*p)->selection) store_close(&(*p)->selection, &ignored);
    free((*p)->layers), free((*p)->sae_path), free((*p)->sae_sha256), free((*p)->mean_norm);
    free(*p);
    *p = NULL;
}

/* ---- latents ---- */

static int64_t slot_of(const struct phase2 *p, int layer) {
    for (int64_t i = 0; i < p->n_layers; i++)
        if (p->layers[i] == layer) return i;
    return -1;
}

static int find_slot(const struct phase2 *p, int layer, int64_t *slot, struct pva_error *err) {
    *slot = slot_of(p, layer);
    return *slot >= 0 ? PVA_OK : pva_fail(err, PVA_INPUT, "phase 2 has no layer %d; it has %d to %d", layer, (int)p->layers[0], (int)p->layers[p->n_layers - 1]);
}

/* Elements first .. first + n of a field's array, as double. */
static int read_part(struct phase2 *p, struct store *s, int64_t slot, int field, int64_t first, int64_t n, double *out, void *whole, struct pva_error *err) {
    if (store_read(s, slot, field, whole, err)) return err->code;
    if (store_field_bytes(s, field) == (size_t)p->n_latents * sizeof(double)) memcpy(out, (double *)whole + first, (size_t)n * sizeof *out);
    else
        for (int64_t i = 0; i < n; i++) out[i] = ((int32_t *)whole)[first + i];
    return PVA_OK;
}

static double ratio(double a, int64_t n) { return n > 0 ? a / (double)n : NAN; }

/* Latents first .. first + n of a slot. */
static int read_latents(struct phase2 *p, int64_t slot, int64_t first, int64_t n, struct phase2_latent *out, struct pva_error *err) {
    enum { COLUMNS = 17 };
    static const int scores[] = {PHASE2_ACTIVE_CORRECT, PHASE2_ACTIVE_INCORRECT, PHASE2_SUM_CORRECT, PHASE2_SUM_INCORRECT, PHASE2_SEPARATION, PHASE2_SEPARATION_LOW,
                                 PHASE2_SEPARATION_HIGH, PHASE2_T, PHASE2_DF, PHASE2_P, PHASE2_VALIDATION_SEPARATION, PHASE2_MEAN_ACTIVE};
    static const int selection[] = {SELECTION_PILE_RATE, SELECTION_FAMILYWISE_P, SELECTION_Q};
    enum { N_SCORES = sizeof scores / sizeof *scores, N_SELECTION = sizeof selection / sizeof *selection };
    double *columns = array(n * COLUMNS, sizeof *columns, err), *whole = array(p->n_latents, sizeof *whole, err), *c[COLUMNS];
    for (int k = 0; k < COLUMNS && columns; k++) c[k] = columns + k * n;
    for (int k = 0; k < N_SCORES && !err->code; k++) read_part(p, p->scores, slot, scores[k], first, n, c[k], whole, err);
    for (int k = 0; k < N_SELECTION && !err->code; k++) read_part(p, p->selection, slot, selection[k], first, n, c[N_SCORES + k], whole, err);
    for (int64_t i = 0; i < n && !err->code; i++)
        out[i] = (struct phase2_latent){
            .layer = p->layers[slot], .latent = (int32_t)(first + i), .f_correct = ratio(c[0][i], p->n[0]), .f_incorrect = ratio(c[1][i], p->n[1]),
            .mean_correct = ratio(c[2][i], p->n[0]), .mean_incorrect = ratio(c[3][i], p->n[1]), .separation = c[4][i], .separation_low = c[5][i],
            .separation_high = c[6][i], .t = c[7][i], .df = c[8][i], .p = c[9][i], .validation_separation = c[10][i], .mean_active = c[11][i],
            .pile_rate = c[12][i], .familywise_p = c[13][i], .q = c[14][i],
        };
    free(columns), free(whole);
    return err->code;
}

int phase2_layer(struct phase2 *p, int layer, struct phase2_latent **out, int64_t *n_latents, struct pva_error *err) {
    int64_t slot;
    *out = NULL;
    *n_latents = 0;
    if (find_slot(p, layer, &slot, err) || !(*out = array(p->n_latents, sizeof **out, err))) return err->code;
    if (read_latents(p, slot, 0, p->n_latents, *out, err)) {
        free(*out);
        *out = NULL;
    } else *n_latents = p->n_latents;
    return err->code;
}

int phase2_latent(struct phase2 *p, int layer, int64_t latent, struct phase2_latent *out, struct pva_error *err) {
    int64_t slot;
    if (find_slot(p, layer, &slot, err)) return err->code;
    if (latent < 0 || latent >= p->n_latents)
        return pva_fail(err, PVA_INPUT, "layer %d has no latent %lld; it has %lld, from 0", layer, (long long)latent, (long long)p->n_latents);
    return read_latents(p, slot, latent, 1, out, err);
}

int phase2_top(struct phase2 *p, enum phase2_list list, int n, struct phase2_latent *out, int *n_found, struct pva_error *err) {
    double *separation = array(p->n_latents, sizeof *separation, err), *t = array(p->n_latents, sizeof *t, err);
    uint8_t *passes = array(p->n_latents, 1, err);
    struct phase2_ranking r = {array(n, sizeof *r.best, err), n, 0};
    *n_found = 0;
    for (int64_t slot = 0; slot < p->n_layers && !err->code; slot++) {
        if (store_read(p->scores, slot, PHASE2_SEPARATION, separation, err) || store_read(p->scores, slot, PHASE2_T, t, err) ||
            store_read(p->selection, slot, SELECTION_PASSES, passes, err))
            break;
        for (int64_t j = 0; j < p->n_latents; j++)
            if (passes[j]) phase2_ranking_offer(&r, phase2_list_score(list, separation[j], t[j]), p->layers[slot], (int32_t)j);
    }
    for (int i = 0; i < r.n && !err->code; i++) phase2_latent(p, r.best[i].layer, r.best[i].latent, &out[i], err);
    if (!err->code) *n_found = r.n;
    free(separation), free(t), free(passes), free(r.best);
    return err->code;
}

/* ---- facts ---- */

const char *phase2_sae_path(struct phase2 *p, int layer) {
    int64_t slot = slot_of(p, layer);
    return slot < 0 ? NULL : p->sae_path[slot];
}
const char *phase2_sae_fingerprint(struct phase2 *p, int layer) {
    int64_t slot = slot_of(p, layer);
    return slot < 0 ? NULL : p->sae_sha256[slot];
}
double phase2_mean_norm(struct phase2 *p, int layer) {
    int64_t slot = slot_of(p, layer);
    return slot < 0 ? NAN : p->mean_norm[slot];
}
const char *phase2_alignment(struct phase2 *p) { return p->alignment; }
