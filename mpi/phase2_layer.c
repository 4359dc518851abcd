#include "phase2_layer.h"

#include "pva/bits.h"
#include "pva/separation.h"
#include "pva/tables.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_DOUBLES = 13, N_COUNTS = 4, FVU_ITEMS = 128 };
static const double LEVEL = 0.95;

int phase2_scores_create(struct phase2_scores *s, int64_t n_latents, const int64_t n[2], struct pva_error *err) {
    memset(s, 0, sizeof *s);
    size_t m = (size_t)n_latents, table = (size_t)(n[0] + 1) * (size_t)(n[1] + 1);
    s->n_latents = n_latents, s->n_words = pva_bits_words(n[0] + n[1]);
    s->n[0] = n[0], s->n[1] = n[1];
    s->block = calloc(m * N_DOUBLES + 1, sizeof *s->block);
    s->counts = calloc(m * N_COUNTS + 1, sizeof *s->counts);
    s->fires = calloc(m * (size_t)s->n_words + 1, sizeof *s->fires);
    s->fisher_table = malloc(table * sizeof *s->fisher_table);
    if (!s->block || !s->counts || !s->fires || !s->fisher_table) {
        phase2_scores_free(s);
        return pva_fail(err, PVA_IO, "out of memory for the sums of %lld latents", (long long)n_latents);
    }
    for (size_t i = 0; i < table; i++) s->fisher_table[i] = NAN;
    double **arrays[N_DOUBLES] = {&s->sum[0], &s->sum[1], &s->sum_sq[0], &s->sum_sq[1], &s->separation, &s->low, &s->high, &s->t, &s->df, &s->p, &s->fisher_p,
                                  &s->mean_active, &s->validation_separation};
    for (size_t i = 0; i < N_DOUBLES; i++) *arrays[i] = s->block + i * m;
    s->active[0] = s->counts, s->active[1] = s->counts + m, s->validation_active[0] = s->counts + 2 * m, s->validation_active[1] = s->counts + 3 * m;
    return PVA_OK;
}

void phase2_scores_free(struct phase2_scores *s) {
    free(s->block), free(s->counts), free(s->fires), free(s->fisher_table);
    memset(s, 0, sizeof *s);
}

static void add_up(struct phase2_scores *s, const struct pva_sparse *a, int64_t n_selection, const uint8_t *correct) {
    size_t m = (size_t)s->n_latents;
    memset(s->block, 0, m * N_DOUBLES * sizeof *s->block);
    memset(s->counts, 0, m * N_COUNTS * sizeof *s->counts);
    memset(s->fires, 0, m * (size_t)s->n_words * sizeof *s->fires);
    for (int64_t i = 0; i < a->n_rows; i++) {
        int class = correct[i] ? PHASE2_CORRECT : PHASE2_INCORRECT, selection = i < n_selection;
        for (int64_t k = a->indptr[i]; k < a->indptr[i + 1]; k++) {
            int64_t latent = a->indices[k];
            double v = a->data[k];
            if (!(v > 0)) continue; /* a threshold of 0 lets nothing else through */
            if (!selection) {
                s->validation_active[class][latent]++;
                continue;
            }
            s->active[class][latent]++;
            s->sum[class][latent] += v;
            s->sum_sq[class][latent] += v * v;
            s->fires[latent * s->n_words + i / 64] |= (uint64_t)1 << i % 64;
        }
    }
}

static double fisher(struct phase2_scores *s, int64_t k1, int64_t k2) {
    double *p = &s->fisher_table[k1 * (s->n[1] + 1) + k2];
    if (isnan(*p)) *p = pva_table_fisher(k1, s->n[0], k2, s->n[1], PVA_TWO_SIDED);
    return *p;
}

static void test_latents(struct phase2_scores *s, const int64_t n_validation[2]) {
    for (int64_t j = 0; j < s->n_latents; j++) {
        struct pva_sums sums[2];
        for (int c = 0; c < 2; c++) sums[c] = (struct pva_sums){s->n[c], s->active[c][j], s->sum[c][j], s->sum_sq[c][j]};
        struct pva_welch welch = pva_welch(&sums[0], &sums[1]);
        struct pva_separation separation = pva_separation(s->active[0][j], s->n[0], s->active[1][j], s->n[1], LEVEL);
        int64_t active = s->active[0][j] + s->active[1][j];
        s->separation[j] = separation.score, s->low[j] = separation.interval.low, s->high[j] = separation.interval.high;
        s->t[j] = welch.t, s->df[j] = welch.df, s->p[j] = welch.p;
        s->fisher_p[j] = fisher(s, s->active[0][j], s->active[1][j]);
        s->mean_active[j] = active ? (s->sum[0][j] + s->sum[1][j]) / (double)active : NAN;
        s->validation_separation[j] =
            pva_separation(s->validation_active[0][j], n_validation[0], s->validation_active[1][j], n_validation[1], LEVEL).score;
    }
}

static double mean_norm(const float *x, int64_t n, int64_t d_model) {
    double norms = 0;
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t k = 0; k < d_model; k++) sum += (double)x[i * d_model + k] * x[i * d_model + k];
        norms += sqrt(sum);
    }
    return n ? norms / (double)n : NAN;
}

/* Over a sample: rows of W_dec are read one by one, and a layer's reading shall be that of W_enc. */
static int unexplained(struct phase2_scores *s, const struct pva_sae *sae, const float *x, const struct pva_sparse *a, int64_t n_selection, struct pva_error *err) {
    int64_t n = n_selection < FVU_ITEMS ? n_selection : FVU_ITEMS, d_model = pva_sae_d_model(sae);
    struct pva_sparse part = *a;
    float *again = malloc((size_t)(n * d_model) * sizeof *again + 1);
    if (!again) return pva_fail(err, PVA_IO, "out of memory");
    part.n_rows = n;
    if (!pva_sae_decode(sae, &part, again, err)) s->fvu = pva_sae_unexplained(x, again, n, d_model);
    free(again);
    return err->code;
}

int phase2_scores_compute(struct phase2_scores *s, const struct pva_sae *sae, const struct pva_backend_ops *ops, struct pva_backend *be, const float *x,
                          int64_t n_items, int64_t n_selection, const uint8_t *correct, const int64_t n_validation[2], struct pva_error *err) {
    struct pva_sparse a = {0};
    if (pva_sae_encode(sae, ops, be, x, n_items, &a, err)) return err->code;
    add_up(s, &a, n_selection, correct);
    test_latents(s, n_validation);
    s->mean_l0 = n_selection ? (double)a.indptr[n_selection] / (double)n_selection : NAN;
    s->mean_norm = mean_norm(x, n_selection, pva_sae_d_model(sae));
    s->n_near = a.n_near;
    unexplained(s, sae, x, &a, n_selection, err);
    pva_sparse_free(&a);
    return err->code;
}

int phase2_scores_write(const struct phase2_scores *s, struct store *store, int64_t slot, struct pva_error *err) {
    const void *data[PHASE2_N_FIELDS] = {
        [PHASE2_ACTIVE_CORRECT] = s->active[0], [PHASE2_ACTIVE_INCORRECT] = s->active[1], [PHASE2_SUM_CORRECT] = s->sum[0], [PHASE2_SUM_INCORRECT] = s->sum[1],
        [PHASE2_SUM_SQ_CORRECT] = s->sum_sq[0], [PHASE2_SUM_SQ_INCORRECT] = s->sum_sq[1], [PHASE2_SEPARATION] = s->separation, [PHASE2_SEPARATION_LOW] = s->low,
        [PHASE2_SEPARATION_HIGH] = s->high, [PHASE2_T] = s->t, [PHASE2_DF] = s->df, [PHASE2_P] = s->p, [PHASE2_FISHER_P] = s->fisher_p,
        [PHASE2_MEAN_ACTIVE] = s->mean_active, [PHASE2_VALIDATION_CORRECT] = s->validation_active[0], [PHASE2_VALIDATION_INCORRECT] = s->validation_active[1],
        [PHASE2_VALIDATION_SEPARATION] = s->validation_separation, [PHASE2_FIRES] = s->fires, [PHASE2_L0] = &s->mean_l0, [PHASE2_FVU] = &s->fvu,
        [PHASE2_N_NEAR] = &s->n_near, [PHASE2_MEAN_NORM] = &s->mean_norm,
    };
    for (int f = 0; f < PHASE2_N_FIELDS; f++)
        if (store_write(store, slot, f, data[f], err)) return err->code;
    return PVA_OK;
}
