/* phase1_item.h - one completion on its way: tokens to text, text to program, program to verdict, all of it into its slot. */
#ifndef PHASE1_ITEM_H
#define PHASE1_ITEM_H

#include "phase1_schema.h"

#include "pva/extract.h"
#include "pva/generator.h"
#include "pva/grade.h"
#include "pva/tokenizer.h"

/* How a completion ended, as stored in `finish`. */
enum phase1_finish { PHASE1_EOS, PHASE1_LIMIT, PHASE1_FINAL, PHASE1_LOOP, PHASE1_NAN };

struct phase1_prompt {
    int32_t *ids; /* BOS first */
    int64_t n;
    char sha256[65];
};

struct phase1_item {
    int64_t slot;
    const struct phase1_prompt *prompt;
    struct pva_extract *extract;
    char *text; /* [n_text], zero-terminated */
    size_t n_text, text_room;
    int64_t n_fed; /* tokens whose text is in `text` */
    int looping, stopped;
    float *resid;  /* [n_positions, n_layers, d_model], with room for resid_room positions */
    int64_t n_positions, resid_room;
    int many;      /* positions; else the latest one is kept */
    char *program; /* after completion */
    size_t n_program;
    int32_t *tokens; /* generated: [n_new] */
    int64_t n_new;
    enum phase1_finish finish;
    double prefill_seconds, decode_seconds;
};

/* resid_values: n_layers * d_model. many: every captured position is kept. */
int phase1_item_create(int64_t slot, const struct phase1_prompt *prompt, enum pva_extract_rule rule, int64_t resid_values, int many,
                       struct phase1_item **out, struct pva_error *err);
void phase1_item_free(struct phase1_item **item);

/* The residual stream at the next captured position: rows [resid_values]. */
int phase1_item_capture(struct phase1_item *item, const float *rows, int64_t resid_values, struct pva_error *err);

/* Takes the text of tokens[0..n). *stop: the stored program cannot change any more, a stop string came, or the text loops. stop_strings
 * ends with NULL. */
int phase1_item_token(struct phase1_item *item, const struct pva_tokenizer *t, const char *const *stop_strings, const int32_t *tokens, int64_t n,
                      int *stop, struct pva_error *err);

/* Generation is over: fixes tokens, text and program. */
int phase1_item_complete(struct phase1_item *item, const struct pva_tokenizer *t, const char *const *stop_strings, enum pva_extract_rule rule,
                         const struct pva_completion *c, struct pva_error *err);

/* Where the first stop string begins; n when there is none. What is extracted ends there. */
size_t phase1_find_stop(const char *text, size_t n, const char *const *stop_strings);

/* Writes and commits the slot in both files. `max_tokens` is the size of the tokens field. */
int phase1_item_store(const struct phase1_item *item, const struct pva_grade_result *grade, int rank, int64_t max_tokens, struct store *results,
                      struct store *diagnostics, struct pva_error *err);
/* The parts of a slot that grading decides: program, verdict, failed test, exception. Commits nothing. */
int phase1_write_grade(struct store *results, int64_t slot, const char *program, size_t n_program, const struct pva_grade_result *grade,
                       struct pva_error *err);
/* Writes and commits the slot of the diagnostics. */
int phase1_store_diagnostics(struct store *diagnostics, int64_t slot, int rank, double prefill_seconds, double decode_seconds,
                             const struct pva_grade_result *grade, struct pva_error *err);
/* The slot of a prompt that does not fit. */
int phase1_store_too_long(int64_t slot, const struct phase1_prompt *prompt, int rank, struct store *results, struct store *diagnostics,
                          struct pva_error *err);

#endif
