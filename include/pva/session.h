/* session.h - sequences in flight over one model: slots, a paged key/value cache, one forward pass at a time.
 *
 * A slot is one sequence. Its keys and values lie in pages that are taken when the sequence grows and given back when the slot is
 * released, so memory follows use. Which pages a sequence gets does not change a bit of its results.
 *
 * What two sequences have in common from their beginnings on is computed once, in whole pages: a row is added with what acts on it besides its token
 * (`change`), and a sequence may hold pages of others, or of released ones, whose rows were the same. Layers below the one where changes act are the same
 * whatever the change; `splits` gives them pages of their own, so that a row need be computed from there on only.
 * Not thread-safe: one session belongs to one thread.
 */
#ifndef PVA_SESSION_H
#define PVA_SESSION_H

#include "pva/model.h"

#ifdef __cplusplus
extern "C" {
#endif

struct pva_session_settings {
    int n_slots;            /* sequences at once */
    int64_t max_positions;  /* longest sequence, prompt included */
    int64_t kv_positions;   /* positions the cache can hold in all; 0: n_slots * max_positions */
    int64_t max_rows;       /* tokens per pass: bounds the prefill chunk */
    int64_t max_logits;     /* rows with logits per pass; 0: n_slots */
    int hook_values;        /* calls of pva_session_send before a pass: numbers per row that hooks read */
    const int *splits;      /* [n_splits] layers, rising, in 1 .. n_layers - 1: those from there on have pages of their own. Read by open and bytes */
    int n_splits;           /* the streams kept there are paid for with positions of the cache, as long as one longest sequence fits */
};

struct pva_session;

int pva_session_open(const struct pva_model *m, const struct pva_session_settings *settings, struct pva_session **out, struct pva_error *err);
void pva_session_close(struct pva_session **s);
/* Bytes a session with these settings takes on the device. */
size_t pva_session_bytes(const struct pva_model_config *c, enum pva_dtype operand, const struct pva_session_settings *settings);

int pva_session_claim(struct pva_session *s);              /* a free slot of length 0, or -1 */
void pva_session_release(struct pva_session *s, int slot); /* gives back its pages */
int64_t pva_session_length(const struct pva_session *s, int slot);
int64_t pva_session_free_positions(const struct pva_session *s); /* that can still be taken, in whole pages */

/* Takes the pages for positions < length. Returns 1, or 0 (and takes nothing) when the cache is full. length <= max_positions. */
int pva_session_reserve(struct pva_session *s, int slot, int64_t length);

/* Holds what other sequences have of this one, in whole pages, while its length is a multiple of a page. tokens, changes: of its positions 0 .. n - 1; changes
 * (0: nothing) act in layers from `layer` on. The positions that every layer has now are part of its length; of others the lower layers may be there. Call it
 * before reserve, and again later if others may have got further. Returns the length. */
int64_t pva_session_share(struct pva_session *s, int slot, const int32_t *tokens, const uint64_t *changes, int layer, int64_t n);

/* A row of the next pass: a token and what acts on it from `layer` on, at a position whose page is reserved; its slot's earlier ones were added or are there.
 * Others can share it from now on, in this pass already. Rows come in the order of the layer where they are first computed, which is returned
 * for a row by pva_session_enters; at most max_rows. */
int pva_session_enters(const struct pva_session *s, int slot, int64_t position);
void pva_session_add(struct pva_session *s, int slot, int64_t position, int32_t token, uint64_t change, int layer);
/* What hooks read in the next pass: n <= max_rows values of 4 bytes, at most hook_values times. They are kept here and sent when the pass runs, in one
 * copy with all else that the device is told about it. Returns where they are during that pass, [n, 1]. */
struct pva_tensor pva_session_send(struct pva_session *s, enum pva_dtype dtype, const void *values, int64_t n);
/* Rows of the next pass (0: its first) that get logits, n <= max_logits, and by temperatures and draws [n] (backend.h, sample; NULL: none) a token each.
 * Once a pass. */
void pva_session_want(struct pva_session *s, const int32_t *rows, int64_t n, const float *temperatures, const double *draws);
/* The pass over the rows added, and what is wanted of them. Hooks as in model.h. */
int pva_session_run(struct pva_session *s, struct pva_hook *hooks, int n_hooks, struct pva_error *err);

/* Add and run for rows that nobody shares: row i is token tokens[i] of slot slots[i], at the slot's next position; the rows of a slot are in
 * order. Pages must have been reserved. n_rows <= max_rows. */
int pva_session_append(struct pva_session *s, int64_t n_rows, const int32_t *tokens, const int32_t *slots, struct pva_hook *hooks, int n_hooks,
                       struct pva_error *err);

/* After a pass, of the n rows wanted of it: their tokens [n], their logits [n, n_vocab]. Waits for the device. */
int pva_session_tokens(struct pva_session *s, int64_t n, int32_t *tokens, struct pva_error *err);
int pva_session_read_logits(struct pva_session *s, int64_t n, float *out, struct pva_error *err);

const struct pva_model *pva_session_model(const struct pva_session *s);
/* (layer, row) pairs computed that passed a hook point since open: must equal layers x tokens, less what was shared. */
int64_t pva_session_visits(const struct pva_session *s, enum pva_point point);

#ifdef __cplusplus
}
#endif
#endif
