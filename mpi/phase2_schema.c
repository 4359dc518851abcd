#include "phase2_schema.h"

#include "pva/bits.h"

#include <string.h>

enum { VERSION = 1 };

static struct store_field per_latent(const char *name, enum store_type type, int64_t n_latents, const char *long_name) {
    return (struct store_field){.name = name, .type = type, .n_dims = 1, .dims = {{"latent", n_latents}}, .long_name = long_name};
}

static void fill_fields(struct store_field *f, int64_t n_latents, int64_t n_items) {
    const struct store_field all[PHASE2_N_FIELDS] = {
        [PHASE2_ACTIVE_CORRECT] = per_latent("n_active_correct", STORE_I32, n_latents, "problems that pass on which the latent fires"),
        [PHASE2_ACTIVE_INCORRECT] = per_latent("n_active_incorrect", STORE_I32, n_latents, "problems that fail on which the latent fires"),
        [PHASE2_SUM_CORRECT] = per_latent("sum_correct", STORE_F64, n_latents, "sum of the activations over problems that pass"),
        [PHASE2_SUM_INCORRECT] = per_latent("sum_incorrect", STORE_F64, n_latents, "sum of the activations over problems that fail"),
        [PHASE2_SUM_SQ_CORRECT] = per_latent("sum_sq_correct", STORE_F64, n_latents, "sum of their squares over problems that pass"),
        [PHASE2_SUM_SQ_INCORRECT] = per_latent("sum_sq_incorrect", STORE_F64, n_latents, "sum of their squares over problems that fail"),
        [PHASE2_SEPARATION] = per_latent("separation", STORE_F64, n_latents, "firing fraction over passing problems minus that over failing ones"),
        [PHASE2_SEPARATION_LOW] = per_latent("separation_low", STORE_F64, n_latents, "lower end of Newcombe's 95 % interval of the separation"),
        [PHASE2_SEPARATION_HIGH] = per_latent("separation_high", STORE_F64, n_latents, "upper end"),
        [PHASE2_T] = per_latent("t", STORE_F64, n_latents, "Welch's t of the activations, passing minus failing problems"),
        [PHASE2_DF] = per_latent("df", STORE_F64, n_latents, "its Welch-Satterthwaite degrees of freedom"),
        [PHASE2_P] = per_latent("p", STORE_F64, n_latents, "its two-sided p, of this latent alone"),
        [PHASE2_FISHER_P] = per_latent("fisher_p", STORE_F64, n_latents, "two-sided p of Fisher's exact test of the firing counts, of this latent alone"),
        [PHASE2_MEAN_ACTIVE] = per_latent("mean_active", STORE_F64, n_latents, "mean activation over the problems on which the latent fires"),
        [PHASE2_VALIDATION_CORRECT] = per_latent("validation_n_active_correct", STORE_I32, n_latents, "the same counts on the validation split"),
        [PHASE2_VALIDATION_INCORRECT] = per_latent("validation_n_active_incorrect", STORE_I32, n_latents, "problems that fail"),
        [PHASE2_VALIDATION_SEPARATION] = per_latent("validation_separation", STORE_F64, n_latents, "separation on the validation split"),
        [PHASE2_FIRES] = {.name = "fires", .type = STORE_U8, .n_dims = 2, .dims = {{"latent", n_latents}, {"byte", 8 * pva_bits_words(n_items)}},
                          .long_name = "problems of the selection split on which the latent fires: problem i is bit i % 8 of byte i / 8"},
        [PHASE2_L0] = {.name = "mean_l0", .type = STORE_F64, .long_name = "latents that fire per problem of the selection split"},
        [PHASE2_FVU] = {.name = "fvu", .type = STORE_F64, .long_name = "fraction of variance that the autoencoder leaves unexplained, first 128 problems of the selection split"},
        [PHASE2_N_NEAR] = {.name = "n_near", .type = STORE_I64, .long_name = "activations within a thousandth of their threshold"},
        [PHASE2_MEAN_NORM] = {.name = "mean_norm", .type = STORE_F64, .long_name = "mean Euclidean norm of the captured residual stream, selection split"},
    };
    memcpy(f, all, sizeof all);
}

static struct store_attribute text(const char *name, const char *value, int identity) {
    return (struct store_attribute){.name = name, .kind = STORE_TEXT, .text = value, .identity = identity};
}
static struct store_attribute integer(const char *name, int64_t value, int identity) {
    return (struct store_attribute){.name = name, .kind = STORE_INTEGER, .integer = value, .identity = identity};
}

static struct store_schema schema_of(const char *name, const char *title) {
    return (struct store_schema){.name = name, .version = VERSION, .title = title, .source = "pva-mpi phase2", .slot = {"layer", 0}};
}

void phase2_schema_any(struct phase2_schema *s) {
    memset(s, 0, sizeof *s);
    fill_fields(s->fields, 0, 0);
    s->store = schema_of("pva-phase2", "firing of every latent on problems that pass and on problems that fail");
    s->store.fields = s->fields, s->store.n_fields = PHASE2_N_FIELDS;
}

void phase2_schema_fill(struct phase2_schema *s, const struct phase2_identity *id, const struct phase2_layers *l) {
    phase2_schema_any(s);
    fill_fields(s->fields, l->n_latents, l->n_items);
    struct store_dim layer = {"layer", l->n}, item = {"item", l->n_items};
    const struct store_coordinate coordinates[] = {
        {{.name = "layer", .type = STORE_I32, .n_dims = 1, .dims = {layer}, .long_name = "layer of the autoencoder, from 0"}, l->layer, 1},
        {{.name = "source_layer", .type = STORE_I32, .n_dims = 1, .dims = {layer}, .long_name = "captured layer of phase 1 that it reads"}, l->source, 1},
        {{.name = "label_l0", .type = STORE_F64, .n_dims = 1, .dims = {layer}, .long_name = "mean L0 in the name of the autoencoder's folder"}, l->label_l0, 0},
        {{.name = "sae_path", .type = STORE_BYTES, .text_size = PHASE2_PATH, .n_dims = 1, .dims = {layer}, .long_name = "file of the autoencoder"}, l->sae_path, 0},
        {{.name = "sae_sha256", .type = STORE_BYTES, .text_size = PHASE2_SHA256, .n_dims = 1, .dims = {layer}, .long_name = "fingerprint of the autoencoder"},
         l->sae_sha256, 1},
        {{.name = "item_slot", .type = STORE_I32, .n_dims = 1, .dims = {item}, .long_name = "slot in phase1.h5 of the problems of the selection split"},
         l->item_slot, 1},
        {{.name = "item_correct", .type = STORE_U8, .n_dims = 1, .dims = {item}, .long_name = "1: the problem passes"}, l->item_correct, 1},
    };
    memcpy(s->coordinates, coordinates, sizeof coordinates);
    int n = 0;
    s->attributes[n++] = text("model_sha256", id->model_sha256, 1);
    s->attributes[n++] = text("labels_sha256", id->labels_sha256, 1);
    s->attributes[n++] = text("sae_alignment", id->alignment, 1);
    s->attributes[n++] = text("resid_point", id->point, 1);
    s->attributes[n++] = text("resid_position", id->positions, 1);
    s->attributes[n++] = text("backend", id->backend, 1);
    s->attributes[n++] = text("isa", id->isa, 0);
    s->attributes[n++] = integer("n_correct", id->n[PHASE2_CORRECT], 1);
    s->attributes[n++] = integer("n_incorrect", id->n[PHASE2_INCORRECT], 1);
    s->attributes[n++] = integer("validation_n_correct", id->n_validation[PHASE2_CORRECT], 1);
    s->attributes[n++] = integer("validation_n_incorrect", id->n_validation[PHASE2_INCORRECT], 1);
    s->store.slot = layer;
    s->store.coordinates = s->coordinates, s->store.n_coordinates = sizeof coordinates / sizeof *coordinates;
    s->store.attributes = s->attributes, s->store.n_attributes = n;
}

static void fill_selection_fields(struct store_field *f, int64_t n_latents) {
    const struct store_field all[SELECTION_N_FIELDS] = {
        [SELECTION_PILE_RATE] = per_latent("pile_rate", STORE_F64, n_latents, "fraction of general text on which the latent fires; NaN: no pile phase"),
        [SELECTION_PASSES] = per_latent("passes", STORE_U8, n_latents, "1: below the threshold on general text"),
        [SELECTION_FAMILYWISE_P] = per_latent("familywise_p", STORE_F64, n_latents,
                                              "step-down max-T over all latents of all layers that pass, label permutations; NaN: dropped"),
        [SELECTION_Q] = per_latent("q", STORE_F64, n_latents, "Benjamini-Hochberg over Fisher's p of the same latents; NaN: dropped"),
    };
    memcpy(f, all, sizeof all);
}

void selection_schema_any(struct selection_schema *s) {
    memset(s, 0, sizeof *s);
    fill_selection_fields(s->fields, 0);
    s->store = schema_of("pva-phase2-selection", "which latents separate right from wrong, all layers together");
    s->store.fields = s->fields, s->store.n_fields = SELECTION_N_FIELDS;
}

void selection_schema_fill(struct selection_schema *s, const struct selection_identity *id, const struct phase2_layers *l, const struct selection_lists *lists) {
    selection_schema_any(s);
    fill_selection_fields(s->fields, l->n_latents);
    struct store_dim layer = {"layer", l->n}, list = {"list", PHASE2_N_LISTS}, place = {"place", lists->top}, threshold = {"threshold", PHASE2_N_THRESHOLDS};
    const struct store_coordinate coordinates[] = {
        {{.name = "layer", .type = STORE_I32, .n_dims = 1, .dims = {layer}, .long_name = "layer of the autoencoder, from 0"}, l->layer, 1},
        {{.name = "top_layer", .type = STORE_I32, .n_dims = 2, .dims = {list, place},
          .long_name = "the best latents of each list (correct-separation, incorrect-separation, correct-t, incorrect-t): layer; -1: the list ends"},
         lists->layer, 0},
        {{.name = "top_latent", .type = STORE_I32, .n_dims = 2, .dims = {list, place}, .long_name = "the same: latent"}, lists->latent, 0},
        {{.name = "threshold", .type = STORE_F64, .n_dims = 1, .dims = {threshold}, .long_name = "rates on general text to filter at"}, lists->thresholds, 0},
        {{.name = "n_passing", .type = STORE_I64, .n_dims = 1, .dims = {threshold}, .long_name = "latents below each"}, lists->n_passing, 0},
        {{.name = "best_layer", .type = STORE_I32, .n_dims = 2, .dims = {threshold, list}, .long_name = "the first of each list at each threshold: layer"},
         lists->best_layer, 0},
        {{.name = "best_latent", .type = STORE_I32, .n_dims = 2, .dims = {threshold, list}, .long_name = "the same: latent"}, lists->best_latent, 0},
    };
    memcpy(s->coordinates, coordinates, sizeof coordinates);
    int n = 0;
    s->attributes[n++] = (struct store_attribute){.name = "pile_threshold", .kind = STORE_REAL, .real = id->pile_threshold, .identity = 1};
    s->attributes[n++] = text("pile_sha256", id->pile_sha256, 1);
    s->attributes[n++] = integer("n_documents", id->n_documents, 1);
    s->attributes[n++] = integer("n_permutations", id->n_permutations, 1);
    s->attributes[n++] = integer("seed", id->seed, 1);
    s->attributes[n++] = text("statistic", id->statistic, 1);
    s->attributes[n++] = integer("n_passing", id->n_passing, 0);
    s->attributes[n++] = integer("n_hypotheses", id->n_hypotheses, 0);
    s->store.slot = layer;
    s->store.coordinates = s->coordinates, s->store.n_coordinates = sizeof coordinates / sizeof *coordinates;
    s->store.attributes = s->attributes, s->store.n_attributes = n;
}
