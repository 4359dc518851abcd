/* phase1_plan.h - everything decided before phase 1 computes: problems, split, prompts, batch, memory. The same on every rank. */
#ifndef PHASE1_PLAN_H
#define PHASE1_PLAN_H

#include "engine.h"
#include "phase1_count.h"
#include "phase1_item.h"

#include "pva/split.h"

#include <jansson.h>

struct phase1_plan {
    struct pva_problems *file;
    struct pva_prompt_template *template;
    const struct pva_problem **problem; /* [n], slot order */
    struct phase1_problems problems;
    struct phase1_prompt *prompts;      /* [n] */
    int64_t *costs;                     /* [n] prompt tokens: what is known of an item's length beforehand */
    const char *const *stop_strings;    /* ends with NULL */
    enum pva_extract_rule rule;
    int64_t seed, max_tokens;
    double temperature;

    enum pva_point point;
    enum pva_positions positions;
    unsigned char *layers;              /* [n_layers] marks */
    int64_t n_layers, resid_values;     /* captured layers; values of one position */
    int64_t max_positions;              /* kept of a problem; 0: one, without a dimension of its own */
    enum pva_dtype resid_type;

    int batch;                          /* sequences at once per rank */
    size_t weight_bytes, session_bytes, file_bytes; /* per rank: weights, session; of phase1.h5 and its diagnostics */

    char model_sha256[65], problems_sha256[65];
    char isa[16];
};

/* Collective. Reads problems, computes difficulty and split (rank 0, then told to all), renders and tokenises the prompts, chooses the
 * batch so that --gpu-memory and --host-memory hold, or says what would fit. */
int phase1_plan_make(struct phase1_plan *plan, const struct par *p, const struct pva_options *o, const struct engine *e, struct pva_error *err);
void phase1_plan_free(struct phase1_plan *plan);

void phase1_plan_identity(const struct phase1_plan *plan, const struct pva_options *o, struct phase1_identity *id);
struct pva_generator_settings phase1_plan_generator(const struct phase1_plan *plan);
/* Collective. Refuses when the files are yet to be made and the run directory's disk cannot hold them. */
int phase1_plan_check_disk(const struct phase1_plan *plan, const struct par *p, const struct pva_options *o, struct pva_error *err);
json_t *phase1_plan_facts(const struct phase1_plan *plan, const struct pva_options *o, const struct pva_sandbox *sandbox); /* for manifest.json */
void phase1_plan_print(const struct phase1_plan *plan, const struct par *p, const struct engine *e, const struct pva_sandbox *sandbox, FILE *out);

#endif
