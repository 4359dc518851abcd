#include "phase2_plan.h"

#include "pva/bits.h"
#include "pva/grade.h"
#include "pva/hash.h"
#include "pva/log.h"
#include "pva/sae.h"
#include "pva/split.h"

#include <stdlib.h>
#include <string.h>

static int out_of_memory(struct pva_error *err) { return pva_fail(err, PVA_IO, "out of memory"); }

/* ---- problems ---- */

static int choose_items(struct phase2_plan *plan, struct pva_error *err) {
    static const uint8_t parts[] = {PVA_SELECTION, PVA_VALIDATION};
    const struct phase1_data *d = &plan->phase1;
    plan->slots = calloc((size_t)d->n + 1, sizeof *plan->slots);
    plan->correct = calloc((size_t)d->n + 1, 1);
    plan->layers.item_slot = calloc((size_t)d->n + 1, sizeof *plan->layers.item_slot);
    if (!plan->slots || !plan->correct || !plan->layers.item_slot) return out_of_memory(err);
    struct pva_sha256 hash;
    uint8_t digest[PVA_SHA256_BYTES];
    pva_sha256_start(&hash);
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < d->n; i++) {
            if (d->part[i] != parts[k]) continue;
            if (d->states[i] != STORE_DONE || d->verdicts[i] == PVA_UNGRADED) {
                plan->n_dropped++;
                continue;
            }
            int correct = d->verdicts[i] == PVA_PASS;
            uint8_t facts[2] = {parts[k], (uint8_t)correct};
            pva_sha256_add(&hash, d->task_ids[i], strlen(d->task_ids[i]) + 1);
            pva_sha256_add(&hash, facts, sizeof facts);
            (k ? plan->n_validation : plan->n)[correct ? PHASE2_CORRECT : PHASE2_INCORRECT]++;
            plan->correct[plan->n_items] = (uint8_t)correct;
            plan->layers.item_slot[plan->n_items] = (int32_t)i;
            plan->slots[plan->n_items++] = i;
            plan->n_selection += k == 0;
        }
    pva_sha256_finish(&hash, digest);
    pva_sha256_hex(digest, plan->labels_sha256);
    plan->layers.n_items = plan->n_selection;
    plan->layers.item_correct = plan->correct;
    if (plan->n_selection == 0)
        return pva_fail(err, PVA_INPUT, "%s: phase 1 has no graded problem in the selection split; run it on more problems", plan->run);
    if (plan->n_selection > PVA_FIRING_ITEMS)
        return pva_fail(err, PVA_INPUT, "%s: %lld problems in the selection split, at most %d can be permuted", plan->run, (long long)plan->n_selection, PVA_FIRING_ITEMS);
    return PVA_OK;
}

static int open_phase1(struct phase2_plan *plan, const struct par *p, struct pva_error *err) {
    if (phase1_open(plan->run, &plan->phase1, err) || phase1_require_complete(&plan->phase1, plan->run, err)) return err->code;
    if (plan->phase1.n_positions != 1)
        return pva_fail(err, PVA_INPUT, "%s: phase 1 captured several positions (%s); phase 2 needs one per problem: --positions last or last-generated", plan->run,
                        plan->phase1.positions);
    int64_t *damaged = NULL, n_damaged = 0;
    if (p->rank == 0 && !store_check(plan->phase1.store, &damaged, &n_damaged, err) && n_damaged)
        pva_fail(err, PVA_INPUT, "%s/phase1.h5: %lld records are damaged (the first: %s); run phase1 again, it computes them anew", plan->run, (long long)n_damaged,
                 plan->phase1.task_ids[damaged[0]]);
    free(damaged);
    return err->code ? err->code : choose_items(plan, err);
}

/* ---- layers ---- */

/* Which captured layer holds what autoencoder L reads: the stream after block L (aligned), or before it, as the original project paired them. After block l
 * is before block l + 1. */
static int source_of(const struct phase2_plan *plan, int layer) {
    int boundary = layer + !strcmp(plan->alignment, "aligned");
    return boundary - !strcmp(plan->phase1.point, "resid_post");
}

static int captured(const struct phase1_data *d, int layer) {
    for (int64_t i = 0; i < d->n_layers; i++)
        if (d->layers[i] == layer) return 1;
    return 0;
}

static int choose_layers(struct phase2_plan *plan, const struct pva_options *o, unsigned char *marks, int n_layers, struct pva_error *err) {
    const char *set = pva_options_text(o, "layers");
    int all = !strcmp(set, "all");
    if (!strcmp(plan->phase1.point, "resid_mid"))
        return pva_fail(err, PVA_INPUT, "%s: phase 1 captured resid_mid; the autoencoders read resid_post: run phase1 with --hook resid_post", plan->run);
    if (pva_parse_set(set, n_layers, marks, err)) return pva_error_prefix(err, "--layers");
    int64_t n = 0;
    for (int l = 0; l < n_layers; l++) {
        if (!marks[l]) continue;
        int source = source_of(plan, l), beyond = all && l > plan->phase1.layers[plan->phase1.n_layers - 1]; /* perhaps beyond the model's last */
        if (beyond || !captured(&plan->phase1, source)) {
            if (!all)
                return pva_fail(err, PVA_USAGE, "--layers %d: with --sae-alignment %s it reads %s[%d], which phase 1 did not capture", l, plan->alignment,
                                plan->phase1.point, source);
            marks[l] = 0;
        }
        n += marks[l];
    }
    if (n == 0) return pva_fail(err, PVA_INPUT, "%s: phase 1 captured no layer that an autoencoder reads with --sae-alignment %s", plan->run, plan->alignment);
    struct phase2_layers *out = &plan->layers;
    out->n = n;
    out->layer = calloc((size_t)n, sizeof *out->layer), out->source = calloc((size_t)n, sizeof *out->source);
    out->label_l0 = calloc((size_t)n, sizeof *out->label_l0);
    out->sae_path = calloc((size_t)n, sizeof *out->sae_path), out->sae_sha256 = calloc((size_t)n, sizeof *out->sae_sha256);
    plan->bytes = calloc((size_t)n, sizeof *plan->bytes);
    if (!out->layer || !out->source || !out->label_l0 || !out->sae_path || !out->sae_sha256 || !plan->bytes) return out_of_memory(err);
    n = 0;
    for (int l = 0; l < n_layers; l++)
        if (marks[l]) out->layer[n] = l, out->source[n++] = source_of(plan, l);
    return PVA_OK;
}

/* Rank 0: the files, what they are. */
static int inspect_autoencoders(struct phase2_plan *plan, const struct pva_options *o, const unsigned char *marks, int n_layers, struct pva_error *err) {
    struct phase2_layers *l = &plan->layers;
    struct pva_sae_file *files = calloc((size_t)n_layers, sizeof *files);
    if (!files) return out_of_memory(err);
    if (pva_sae_scan(pva_options_text(o, "sae"), pva_options_text(o, "width"), pva_options_text(o, "l0"), n_layers, marks, files, err)) goto done;
    for (int64_t i = 0; i < l->n; i++) {
        const struct pva_sae_file *file = &files[l->layer[i]];
        struct pva_sae *sae = NULL;
        char sha256[65];
        if (pva_sae_open(file->path, &sae, err)) break;
        int64_t d_model = pva_sae_d_model(sae), n_latents = pva_sae_n_latents(sae);
        if (i == 0) l->n_latents = n_latents;
        if (strlen(file->path) >= PHASE2_PATH) pva_fail(err, PVA_INPUT, "%s: the path is longer than %d bytes", file->path, PHASE2_PATH - 1);
        else if (d_model != plan->phase1.d_model)
            pva_fail(err, PVA_INPUT, "%s: d_model is %lld, phase 1 captured %lld values: this autoencoder belongs to another model", file->path, (long long)d_model,
                     (long long)plan->phase1.d_model);
        else if (n_latents != l->n_latents)
            pva_fail(err, PVA_INPUT, "%s: %lld latents, layer %d has %lld; choose one --width for all", file->path, (long long)n_latents, (int)l->layer[0],
                     (long long)l->n_latents);
        else if (!pva_sae_fingerprint(sae, sha256, err)) {
            memcpy(l->sae_path[i], file->path, strlen(file->path));
            memcpy(l->sae_sha256[i], sha256, PHASE2_SHA256);
            l->label_l0[i] = file->l0;
            plan->bytes[i] = (int64_t)pva_sae_bytes(sae);
        }
        pva_sae_close(&sae);
        if (err->code) break;
    }
done:
    free(files);
    return err->code;
}

static void share_autoencoders(struct phase2_plan *plan, const struct par *p) {
    struct phase2_layers *l = &plan->layers;
    PAR_CHECK(p, MPI_Bcast(&l->n_latents, 1, MPI_INT64_T, 0, p->comm));
    PAR_CHECK(p, MPI_Bcast(l->sae_path, (int)(l->n * PHASE2_PATH), MPI_CHAR, 0, p->comm));
    PAR_CHECK(p, MPI_Bcast(l->sae_sha256, (int)(l->n * PHASE2_SHA256), MPI_CHAR, 0, p->comm));
    PAR_CHECK(p, MPI_Bcast(l->label_l0, (int)l->n, MPI_DOUBLE, 0, p->comm));
    PAR_CHECK(p, MPI_Bcast(plan->bytes, (int)l->n, MPI_INT64_T, 0, p->comm));
}

/* ---- the whole ---- */

static void estimate(struct phase2_plan *plan) {
    const struct phase2_layers *l = &plan->layers;
    struct phase2_identity id = {.alignment = "", .point = "", .positions = "", .backend = "", .isa = ""};
    struct selection_identity sid = {.pile_sha256 = "", .statistic = ""};
    struct selection_lists lists = {.top = plan->top};
    struct phase2_schema *s = calloc(1, sizeof *s);
    struct selection_schema *t = calloc(1, sizeof *t);
    if (s && t) {
        phase2_schema_fill(s, &id, l), selection_schema_fill(t, &sid, l, &lists);
        plan->file_bytes = (size_t)(store_bytes(&s->store) + store_bytes(&t->store));
    }
    free(s), free(t);
    size_t words = (size_t)pva_bits_words(l->n_items), latents = (size_t)l->n_latents, all = latents * (size_t)l->n;
    /* Room that an encoding takes for its answer (8 Mi entries on the device and on the host), activations, then what a layer's slot holds. */
    plan->layer_memory = ((size_t)1 << 23) * 16 + 3 * (size_t)plan->n_items * (size_t)plan->phase1.d_model * sizeof(float) + latents * (152 + 8 * words);
    plan->selection_memory = all * (3 * sizeof(double) + 1 + sizeof(int64_t) + 8 * words) + pva_firing_bytes(l->n_items, (int64_t)all) + all * 16;
}

int phase2_plan_make(struct phase2_plan *plan, const struct par *p, const struct pva_options *o, struct pva_error *err) {
    unsigned char marks[512] = {0};
    int n_layers = 0;
    memset(plan, 0, sizeof *plan);
    plan->run = pva_options_text(o, "run");
    plan->alignment = pva_options_text(o, "sae-alignment");
    plan->pile_threshold = pva_options_real(o, "pile-threshold");
    plan->n_permutations = pva_options_int(o, "permutations");
    plan->seed = pva_options_int(o, "seed");
    plan->top = pva_options_int(o, "top");
    plan->statistic = strcmp(pva_options_text(o, "statistic"), "studentised") ? PVA_FIRING_SEPARATION : PVA_FIRING_STUDENTISED;
    open_phase1(plan, p, err);
    if (par_agree(p, "read phase 1", err)) return err->code;
    n_layers = plan->phase1.n_layers ? plan->phase1.layers[plan->phase1.n_layers - 1] + 2 : 1;
    if (n_layers > (int)sizeof marks) pva_fail(err, PVA_INPUT, "%s: layer %d was captured, at most %zu are possible", plan->run, n_layers - 2, sizeof marks - 2);
    else if (!choose_layers(plan, o, marks, n_layers, err) && p->rank == 0) inspect_autoencoders(plan, o, marks, n_layers, err);
    if (par_agree(p, "open autoencoders", err)) return err->code;
    share_autoencoders(plan, p);
    estimate(plan);
    return par_agree(p, "plan", err);
}

void phase2_plan_free(struct phase2_plan *plan) {
    struct phase2_layers *l = &plan->layers;
    phase1_close(&plan->phase1);
    free(plan->slots), free(plan->correct), free(plan->bytes);
    free(l->layer), free(l->source), free(l->label_l0), free(l->sae_path), free(l->sae_sha256), free(l->item_slot);
    memset(plan, 0, sizeof *plan);
}

void phase2_plan_identity(const struct phase2_plan *plan, const char *backend, const char *isa, struct phase2_identity *id) {
    *id = (struct phase2_identity){.alignment = plan->alignment, .point = plan->phase1.point, .positions = plan->phase1.positions, .backend = backend, .isa = isa};
    memcpy(id->model_sha256, plan->phase1.model_sha256, sizeof id->model_sha256);
    memcpy(id->labels_sha256, plan->labels_sha256, sizeof id->labels_sha256);
    memcpy(id->n, plan->n, sizeof id->n);
    memcpy(id->n_validation, plan->n_validation, sizeof id->n_validation);
}

json_t *phase2_plan_facts(const struct phase2_plan *plan) {
    const struct phase2_layers *l = &plan->layers;
    json_t *saes = json_array();
    for (int64_t i = 0; i < l->n; i++)
        json_array_append_new(saes, json_pack("{s:i,s:s,s:s%}", "layer", (int)l->layer[i], "file", l->sae_path[i], "sha256", l->sae_sha256[i], (size_t)PHASE2_SHA256));
    return json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:f,s:I,s:I,s:s,s:o}", "model_sha256", plan->phase1.model_sha256, "labels_sha256", plan->labels_sha256,
                     "sae_alignment", plan->alignment, "correct", (json_int_t)plan->n[PHASE2_CORRECT], "incorrect", (json_int_t)plan->n[PHASE2_INCORRECT],
                     "validation_correct", (json_int_t)plan->n_validation[PHASE2_CORRECT], "validation_incorrect",
                     (json_int_t)plan->n_validation[PHASE2_INCORRECT], "latents", (json_int_t)l->n_latents, "pile_threshold", plan->pile_threshold, "permutations",
                     (json_int_t)plan->n_permutations, "seed", (json_int_t)plan->seed, "statistic",
                     plan->statistic == PVA_FIRING_STUDENTISED ? "studentised" : "separation", "autoencoders", saes);
}

void phase2_plan_print(const struct phase2_plan *plan, const struct par *p, const char *device, FILE *out) {
    const struct phase2_layers *l = &plan->layers;
    int64_t bytes = 0;
    for (int64_t i = 0; i < l->n; i++) bytes += plan->bytes[i];
    fprintf(out, "device      %s, %d rank%s\n", device, p->size, p->size > 1 ? "s" : "");
    fprintf(out, "selection   %lld problems: %lld pass, %lld fail\n", (long long)plan->n_selection, (long long)plan->n[0], (long long)plan->n[1]);
    fprintf(out, "validation  %lld problems: %lld pass, %lld fail\n", (long long)(plan->n_items - plan->n_selection), (long long)plan->n_validation[0],
            (long long)plan->n_validation[1]);
    if (plan->n_dropped) fprintf(out, "left out    %lld problems of these splits without a verdict\n", (long long)plan->n_dropped);
    fprintf(out, "pairing     autoencoder of layer %d reads %s[%d] (%s)\n", (int)l->layer[0], plan->phase1.point, (int)l->source[0], plan->alignment);
    fprintf(out, "layers      %lld, %lld latents each: %lld; %.2f GB of encoders to read\n", (long long)l->n, (long long)l->n_latents, (long long)(l->n * l->n_latents),
            (double)bytes / 1e9);
    for (int64_t i = 0; i < l->n; i++) fprintf(out, "  %-4d %s\n", (int)l->layer[i], l->sae_path[i]);
    fprintf(out, "inference   %lld permutations, seed %lld, %s\n", (long long)plan->n_permutations, (long long)plan->seed,
            plan->statistic == PVA_FIRING_STUDENTISED ? "studentised" : "separation");
    fprintf(out, "memory      at most %.2f GB per rank while encoding, besides the mapped file; %.2f GB while permuting\n", (double)plan->layer_memory / 1e9,
            (double)plan->selection_memory / 1e9);
    fprintf(out, "to write    %.3f GB\n", (double)plan->file_bytes / 1e9);
}
