/* generator.h - continuous batching: requests in, completions out, one pass over the batch at a time.
 *
 * Each pass carries one token of every running sequence and, in the rows left over, pieces of the prompts of new ones (chunked
 * prefill). A finished sequence's slot is refilled at once. When the cache is full, the sequence admitted last is put back into the queue
 * and later computed again; because a row's result does not depend on its batch, nothing of this changes a completion.
 *
 * Prompts that begin alike are computed once (session.h): up to where an intervention first acts on a position and, where that is the whole prompt, in the
 * layers below the intervention. Positions that are to be captured, and the last one of a prompt, are always computed. Requests with the same
 * prompt are best submitted one after the other: what nobody uses any more gives way to what is needed.
 */
#ifndef PVA_GENERATOR_H
#define PVA_GENERATOR_H

#include "pva/session.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Which positions of a sequence an intervention or a capture means. The prompt's last position produces the first generated token. */
enum pva_positions {
    PVA_POSITIONS_ALL,            /* every position, prompt and generated */
    PVA_POSITIONS_LAST,           /* the prompt's last position and every generated one */
    PVA_POSITIONS_GENERATED,      /* the generated tokens' own positions, the first included */
    PVA_POSITIONS_LAST_PROMPT,    /* the prompt's last position alone */
    PVA_POSITIONS_LAST_GENERATED, /* capture only: the last position computed, known when the sequence ends */
};
int pva_positions_parse(const char *name, enum pva_positions *out, struct pva_error *err);
const char *pva_positions_name(enum pva_positions p);

/* A place and a kind of change, shared by many requests; each request picks a row of `directions` and its own coefficient. */
struct pva_intervention {
    enum pva_point point;
    int layer;
    enum pva_hook_action action;   /* PVA_HOOK_ADD or PVA_HOOK_ABLATE */
    enum pva_positions positions;
    int64_t n_directions;
    const float *directions;       /* [n_directions, d_model]; copied to the device at open */
};

/* What to record of the residual stream. */
struct pva_capture {
    enum pva_point point;
    const unsigned char *layers;   /* [n_layers] marks; NULL: no capture */
    enum pva_positions positions;
};

/* NAN: the logits were not numbers (damaged weights, or a coefficient too large); the tokens before that are kept. */
enum pva_finish { PVA_FINISH_EOS, PVA_FINISH_LIMIT, PVA_FINISH_STOPPED, PVA_FINISH_CANCELLED, PVA_FINISH_NAN };
const char *pva_finish_name(enum pva_finish f); /* "eos", "limit", "stopped", "cancelled", "nan" */

struct pva_request {
    int64_t id;              /* the caller's; comes back with every event */
    uint64_t seed;           /* a draw is keyed by (seed, item, sample, step) */
    uint32_t item, sample;
    const int32_t *prompt;   /* copied; BOS included by whoever built it */
    int64_t n_prompt;        /* >= 1 */
    int64_t max_tokens;      /* of the whole sequence, prompt included */
    float temperature;       /* 0: greedy */
    int intervention;        /* index into the generator's list, or -1 */
    int direction;           /* row of its directions */
    float coefficient;
};

struct pva_completion {
    int64_t id;
    enum pva_finish finish;
    const int32_t *tokens;   /* generated ones, the EOS not included; valid during the call */
    int64_t n_tokens;
    double prefill_seconds;  /* from admission to the first token */
    double decode_seconds;   /* from the first token to the end */
};

/* Called between passes, from pva_generator_step, in the calling thread. */
struct pva_generator_events {
    void *user;
    /* After each new token (tokens[n - 1]). Nonzero: the sequence ends here, as PVA_FINISH_STOPPED. May be NULL. */
    int (*on_token)(void *user, int64_t id, const int32_t *tokens, int64_t n);
    /* A captured position: rows [n_marked_layers, d_model]. Positions of one sequence come in ascending order, each once, and before its on_done; as
     * they are copied while the device goes on, a position's next token may be told first. */
    void (*on_capture)(void *user, int64_t id, int64_t position, const float *rows);
    void (*on_done)(void *user, const struct pva_completion *c);
};

struct pva_generator_settings {
    struct pva_session_settings session;
    struct pva_capture capture;
    const struct pva_intervention *interventions;
    int n_interventions;
    struct pva_generator_events events;
    int unshared; /* every sequence computes all of its own positions: slower, the same completions */
};

struct pva_generator;

int pva_generator_open(const struct pva_model *m, const struct pva_generator_settings *settings, struct pva_generator **out, struct pva_error *err);
void pva_generator_close(struct pva_generator **g);

/* Queues a request. Fails with PVA_INPUT when its prompt does not fit into max_tokens or the session. */
int pva_generator_submit(struct pva_generator *g, const struct pva_request *r, struct pva_error *err);
void pva_generator_cancel_all(struct pva_generator *g); /* every request ends as PVA_FINISH_CANCELLED */

/* One pass. *busy: 0 when nothing is queued or running. */
int pva_generator_step(struct pva_generator *g, int *busy, struct pva_error *err);

int64_t pva_generator_queued(const struct pva_generator *g);  /* waiting for a slot */
int64_t pva_generator_running(const struct pva_generator *g);

struct pva_generator_stats {
    int64_t passes, prompt_tokens, new_tokens, recomputed_tokens, evictions; /* prompt_tokens: computed, in some layers at least */
    int64_t shared_tokens; /* positions that a sequence took over from others in all layers */
    int64_t shared_visits; /* (layer, position) pairs taken over; the session's visits are layers x positions less these */
    double prefill_seconds, decode_seconds; /* passes with and without prompt rows */
};
void pva_generator_get_stats(const struct pva_generator *g, struct pva_generator_stats *out);
struct pva_session *pva_generator_session(struct pva_generator *g);

#ifdef __cplusplus
}
#endif
#endif
