#include "scores.h"

#include "pva/split.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int scores_resid(const struct followup *f, const char *alignment, int layer, const int64_t *slots, int64_t n, float *out, struct pva_error *err) {
    const struct phase1_data *d = &f->phase1;
    int wants_pre = !strcmp(alignment, "original"), has_pre = !strcmp(d->point, "resid_pre");
    int row = layer + has_pre - wants_pre; /* resid_pre[L + 1] is resid_post[L] */
    if (!strcmp(d->point, "resid_mid")) row = layer;
    /* The store is read by this process alone; reading changes nothing of the follow-up. */
    if (row < 0) return pva_fail(err, PVA_INPUT, "the input of layer %d was not captured in phase 1 (--hook %s)", layer, d->point);
    return phase1_resid_layer((struct phase1_data *)d, row, slots, n, out, err);
}

int scores_latents(const struct followup *f, const char *sae_path, const char *alignment, int layer, const int64_t *latents, int64_t n_latents,
                   const int64_t *slots, int64_t n, double *out, struct pva_error *err) {
    struct pva_sae *sae = NULL;
    struct pva_sparse active = {0};
    float *x = malloc((size_t)(n * f->phase1.d_model + 1) * sizeof *x);
    if (!x) pva_fail(err, PVA_IO, "out of memory");
    if (err->code || pva_sae_open(sae_path, &sae, err)) goto done;
    if (pva_sae_d_model(sae) != f->phase1.d_model) {
        pva_fail(err, PVA_INPUT, "%s: is for d_model %lld, the model has %lld", sae_path, (long long)pva_sae_d_model(sae), (long long)f->phase1.d_model);
        goto done;
    }
    for (int64_t j = 0; j < n_latents; j++)
        if (latents[j] < 0 || latents[j] >= pva_sae_n_latents(sae)) {
            pva_fail(err, PVA_INPUT, "layer %d has latents 0 to %lld, there is no %lld", layer, (long long)pva_sae_n_latents(sae) - 1, (long long)latents[j]);
            goto done;
        }
    if (scores_resid(f, alignment, layer, slots, n, x, err) || pva_sae_encode(sae, f->engine.ops, f->engine.be, x, n, &active, err)) goto done;
    memset(out, 0, (size_t)(n_latents * n) * sizeof *out);
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = active.indptr[i]; k < active.indptr[i + 1]; k++)
            for (int64_t j = 0; j < n_latents; j++)
                if (active.indices[k] == latents[j]) out[j * n + i] = active.data[k];
done:
    pva_sparse_free(&active);
    pva_sae_close(&sae);
    free(x);
    return err->code;
}

int scores_mean_norm(const struct followup *f, const char *alignment, int layer, double *out, struct pva_error *err) {
    int64_t *slots = NULL, n = 0, d = f->phase1.d_model;
    float *x = NULL;
    double sum = 0;
    if (followup_slots(f, PVA_SELECTION, 0, &slots, &n, err)) goto done;
    x = malloc((size_t)(n * d + 1) * sizeof *x);
    if (!x) pva_fail(err, PVA_IO, "out of memory");
    if (n == 0) pva_fail(err, PVA_INPUT, "the selection split has no graded problem: --coefficient-units norm needs its mean residual norm; use raw");
    if (err->code || scores_resid(f, alignment, layer, slots, n, x, err)) goto done;
    for (int64_t i = 0; i < n; i++) {
        double square = 0;
        for (int64_t j = 0; j < d; j++) square += (double)x[i * d + j] * x[i * d + j];
        sum += sqrt(square);
    }
    *out = sum / (double)n;
done:
    free(slots);
    free(x);
    return err->code;
}
