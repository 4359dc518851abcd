/* phase1_schema.h - what phase1.h5 and phase1-diagnostics.h5 hold. One slot per problem.
 *
 * phase1.h5 is what the science reads: the same bytes whatever the ranks, the batch and the restarts. phase1-diagnostics.h5
 * keeps what can differ from run to run: times, memory, what programs printed.
 */
#ifndef PHASE1_SCHEMA_H
#define PHASE1_SCHEMA_H

#include "store.h"

#include "pva/hook.h"
#include "pva/model_config.h"
#include "pva/tensorfile.h"

enum phase1_field {
    PHASE1_N_PROMPT,
    PHASE1_N_NEW,
    PHASE1_TOKENS,
    PHASE1_FINISH,
    PHASE1_N_TEXT,
    PHASE1_TEXT,
    PHASE1_N_PROGRAM,
    PHASE1_PROGRAM,
    PHASE1_VERDICT,
    PHASE1_FAILED_TEST,
    PHASE1_EXCEPTION,
    PHASE1_PROMPT_SHA256,
    PHASE1_RESID,
    PHASE1_N_FIELDS,
    PHASE1_N_POSITIONS = PHASE1_N_FIELDS, /* only where resid has many positions */
    PHASE1_MOST_FIELDS
};

enum diagnostics_field {
    DIAGNOSTICS_RANK,
    DIAGNOSTICS_PREFILL_SECONDS,
    DIAGNOSTICS_DECODE_SECONDS,
    DIAGNOSTICS_GRADE_CPU_SECONDS,
    DIAGNOSTICS_GRADE_WALL_SECONDS,
    DIAGNOSTICS_PEAK_MEMORY,
    DIAGNOSTICS_DETAIL,
    DIAGNOSTICS_STDOUT,
    DIAGNOSTICS_STDERR,
    DIAGNOSTICS_N_FIELDS
};

/* States of a slot of phase1.h5 besides STORE_EMPTY and STORE_DONE. */
enum { PHASE1_TOO_LONG = 2 }; /* the prompt does not fit into max_tokens: a result, with no completion */

enum { PHASE1_TASK_ID = 40, PHASE1_EXCEPTION_SIZE = 80, PHASE1_DETAIL = 500, PHASE1_OUTPUT = 2048, PHASE1_BYTES_PER_TOKEN = 8 };

/* What decides a result; two runs that differ in any of it do not mix. */
struct phase1_identity {
    char model_sha256[65];    /* fingerprint of the weights, run.h */
    char problems_sha256[65]; /* of the file */
    char prompt_template[64], prompt_sha256[65];
    const char *operand; /* "bf16", "f32" */
    int64_t seed, max_tokens;
    double temperature;
    const char *extraction;
    int preload_imports;
    enum pva_point point;
    const char *positions; /* "last-prompt", "last-generated", "all", "generated" */
    int64_t max_positions; /* residual rows of a problem; 0: one, and resid has no dimension for it */
    /* Recorded, not compared. */
    const char *backend, *isa, *sandbox, *python;
};

/* The problems of the run, in slot order. Arrays are the caller's and must live until store_open has returned. */
struct phase1_problems {
    int64_t n;
    char (*task_ids)[PHASE1_TASK_ID]; /* [n] */
    int32_t *index;                   /* [n] place in the problem file */
    uint8_t *part;                    /* [n] enum of split.h */
    int32_t *difficulty;              /* [n] */
};

/* Storage behind a schema; the schema points into it. */
struct phase1_schema {
    struct store_schema store;
    struct store_field fields[PHASE1_MOST_FIELDS];
    struct store_coordinate coordinates[6];
    struct store_attribute attributes[24];
    int32_t layers[256]; /* the captured ones */
};

/* resid is [problem, layer, model] for one position, [problem, position, layer, model] for all (row p: the token tokens[p]) and
 * [problem, generated, layer, model] for the generated ones (row i: the token tokens[n_prompt + i]); of the latter two the first
 * n_positions rows of a problem are filled, the others are zero: the token generated last is not computed when generation stops at it.
 * captured: marks [n_layers]. type: PVA_F32 or PVA_BF16, how the residual stream is stored. */
void phase1_schema_fill(struct phase1_schema *s, const struct phase1_identity *identity, const struct phase1_problems *problems,
                        const struct pva_model_config *config, const unsigned char *captured, enum pva_dtype type);

struct diagnostics_schema {
    struct store_schema store;
    struct store_field fields[DIAGNOSTICS_N_FIELDS];
    struct store_coordinate coordinates[1];
};
void diagnostics_schema_fill(struct diagnostics_schema *s, const struct phase1_problems *problems);

/* resid with many positions: "all" or "generated". max_positions 0: whatever the file has. */
void phase1_schema_positions(struct phase1_schema *s, const char *positions, int64_t max_positions);

/* For readers (status, export, regrade): every size is whatever the file has. */
void phase1_schema_any(struct phase1_schema *s);

#endif
