#include "phase1_item.h"

#include "pva/repetition.h"

#include <stdlib.h>
#include <string.h>

static int out_of_memory(struct pva_error *err) { return pva_fail(err, PVA_IO, "out of memory"); }

int phase1_item_create(int64_t slot, const struct phase1_prompt *prompt, enum pva_extract_rule rule, int64_t resid_values, int many,
                       struct phase1_item **out, struct pva_error *err) {
    struct phase1_item *item = calloc(1, sizeof *item);
    if (!item) return out_of_memory(err);
    item->slot = slot;
    item->prompt = prompt;
    item->many = many;
    item->resid_room = many ? prompt->n + 64 : 1;
    item->resid = calloc((size_t)(item->resid_room * resid_values) + 1, sizeof *item->resid);
    item->text_room = 1024;
    item->text = malloc(item->text_room);
    if (!item->resid || !item->text) out_of_memory(err);
    else pva_extract_create(rule, &item->extract, err);
    if (err->code) {
        phase1_item_free(&item);
        return err->code;
    }
    item->text[0] = 0;
    *out = item;
    return PVA_OK;
}

void phase1_item_free(struct phase1_item **item) {
    if (!*item) return;
    pva_extract_free(&(*item)->extract);
    free((*item)->text);
    free((*item)->resid);
    free((*item)->program);
    free((*item)->tokens);
    free(*item);
    *item = NULL;
}

int phase1_item_capture(struct phase1_item *item, const float *rows, int64_t resid_values, struct pva_error *err) {
    int64_t at = item->many ? item->n_positions : 0;
    if (at == item->resid_room) {
        int64_t room = 2 * item->resid_room;
        float *more = realloc(item->resid, (size_t)(room * resid_values + 1) * sizeof *more);
        if (!more) return out_of_memory(err);
        item->resid = more;
        item->resid_room = room;
    }
    memcpy(item->resid + at * resid_values, rows, (size_t)resid_values * sizeof *rows);
    item->n_positions = at + 1;
    return PVA_OK;
}

static int append_text(struct phase1_item *item, const char *text, size_t n, struct pva_error *err) {
    if (item->n_text + n + 1 > item->text_room) {
        size_t room = 2 * (item->n_text + n + 1);
        char *more = realloc(item->text, room);
        if (!more) return out_of_memory(err);
        item->text = more;
        item->text_room = room;
    }
    memcpy(item->text + item->n_text, text, n);
    item->n_text += n;
    item->text[item->n_text] = 0;
    return PVA_OK;
}

/* A character may be spread over several byte tokens; until it is whole the decoder shows the replacement character at the end. */
static int is_incomplete(const char *text, size_t n, int64_t n_tokens) {
    return n_tokens < 4 && n >= 3 && !memcmp(text + n - 3, "\xef\xbf\xbd", 3);
}

/* Text of the tokens not yet taken. `all`: do not wait for the rest of a character. */
static int take_text(struct phase1_item *item, const struct pva_tokenizer *t, const int32_t *tokens, int64_t n, int all, struct pva_error *err) {
    char *text = NULL;
    size_t n_text = 0;
    if (n <= item->n_fed) return PVA_OK;
    if (pva_tokenizer_decode(t, tokens + item->n_fed, (size_t)(n - item->n_fed), &text, &n_text, err)) return err->code;
    if (all || !is_incomplete(text, n_text, n - item->n_fed)) {
        item->n_fed = n;
        if (!append_text(item, text, n_text, err)) pva_extract_feed(item->extract, text, n_text, err);
    }
    free(text);
    return err->code;
}

/* Where the first stop string begins at or after `from`; the text's length when there is none. */
static size_t find_stop(const char *text, size_t n, size_t from, const char *const *stop_strings) {
    size_t first = n;
    for (int i = 0; stop_strings[i]; i++) {
        const char *at = memmem(text + from, n - from, stop_strings[i], strlen(stop_strings[i]));
        if (at && (size_t)(at - text) < first) first = (size_t)(at - text);
    }
    return first;
}

size_t phase1_find_stop(const char *text, size_t n, const char *const *stop_strings) { return find_stop(text, n, 0, stop_strings); }

int phase1_item_token(struct phase1_item *item, const struct pva_tokenizer *t, const char *const *stop_strings, const int32_t *tokens, int64_t n,
                      int *stop, struct pva_error *err) {
    size_t longest = 0, before = item->n_text;
    for (int i = 0; stop_strings[i]; i++)
        if (strlen(stop_strings[i]) > longest) longest = strlen(stop_strings[i]);
    if (take_text(item, t, tokens, n, 0, err)) return err->code;
    size_t from = before > longest ? before - longest : 0;
    item->stopped = find_stop(item->text, item->n_text, from, stop_strings) < item->n_text || pva_extract_is_final(item->extract);
    if (n % 32 == 0) item->looping = pva_repetition_period(tokens, n) > 0;
    *stop = item->stopped || item->looping;
    return PVA_OK;
}

int phase1_item_complete(struct phase1_item *item, const struct pva_tokenizer *t, const char *const *stop_strings, enum pva_extract_rule rule,
                         const struct pva_completion *c, struct pva_error *err) {
    if (take_text(item, t, c->tokens, c->n_tokens, 1, err)) return err->code;
    size_t end = find_stop(item->text, item->n_text, 0, stop_strings);
    item->finish = c->finish == PVA_FINISH_EOS   ? PHASE1_EOS
                   : c->finish == PVA_FINISH_NAN ? PHASE1_NAN
                   : c->finish == PVA_FINISH_LIMIT ? PHASE1_LIMIT
                   : item->stopped               ? PHASE1_FINAL
                                                 : PHASE1_LOOP;
    item->n_new = c->n_tokens;
    item->tokens = malloc((size_t)(c->n_tokens + 1) * sizeof *item->tokens);
    if (!item->tokens) return out_of_memory(err);
    memcpy(item->tokens, c->tokens, (size_t)c->n_tokens * sizeof *item->tokens);
    item->prefill_seconds = c->prefill_seconds;
    item->decode_seconds = c->decode_seconds;
    return pva_extract(rule, item->text, end, &item->program, &item->n_program, err);
}

/* A text into a field of fixed size: cut where it does not fit, filled up with zeros. */
static int write_text(struct store *s, int64_t slot, int field, const char *text, size_t n, struct pva_error *err) {
    size_t size = store_field_bytes(s, field);
    char *padded = calloc(1, size);
    if (!padded) return out_of_memory(err);
    memcpy(padded, text, n < size ? n : size);
    store_write(s, slot, field, padded, err);
    free(padded);
    return err->code;
}

static int write_i32(struct store *s, int64_t slot, int field, int64_t value, struct pva_error *err) {
    int32_t v = (int32_t)value;
    return store_write(s, slot, field, &v, err);
}

static int write_u8(struct store *s, int64_t slot, int field, int value, struct pva_error *err) {
    uint8_t v = (uint8_t)value;
    return store_write(s, slot, field, &v, err);
}

static int write_resid(const struct phase1_item *item, struct store *s, struct pva_error *err) {
    size_t n = (size_t)((item->many ? item->n_positions : 1) * store_dim_size(s, "layer") * store_dim_size(s, "model"));
    if (item->many && write_i32(s, item->slot, PHASE1_N_POSITIONS, item->n_positions, err)) return err->code;
    if (store_field_text_size(s, PHASE1_RESID) == sizeof *item->resid)
        return store_write_head(s, item->slot, PHASE1_RESID, item->resid, n * sizeof *item->resid, err);
    uint16_t *narrow = malloc(n * sizeof *narrow + 1);
    if (!narrow) return out_of_memory(err);
    for (size_t i = 0; i < n; i++) narrow[i] = pva_f32_to_bf16(item->resid[i]);
    store_write_head(s, item->slot, PHASE1_RESID, narrow, n * sizeof *narrow, err);
    free(narrow);
    return err->code;
}

static int write_tokens(const struct phase1_item *item, int64_t max_tokens, struct store *s, struct pva_error *err) {
    int32_t *tokens = calloc((size_t)max_tokens, sizeof *tokens);
    if (!tokens) return out_of_memory(err);
    memcpy(tokens, item->prompt->ids, (size_t)item->prompt->n * sizeof *tokens);
    memcpy(tokens + item->prompt->n, item->tokens, (size_t)item->n_new * sizeof *tokens);
    store_write(s, item->slot, PHASE1_TOKENS, tokens, err);
    free(tokens);
    return err->code;
}

int phase1_store_diagnostics(struct store *s, int64_t slot, int rank, double prefill_seconds, double decode_seconds, const struct pva_grade_result *g,
                             struct pva_error *err) {
    if (write_i32(s, slot, DIAGNOSTICS_RANK, rank, err) || store_write(s, slot, DIAGNOSTICS_PREFILL_SECONDS, &prefill_seconds, err) ||
        store_write(s, slot, DIAGNOSTICS_DECODE_SECONDS, &decode_seconds, err) ||
        store_write(s, slot, DIAGNOSTICS_GRADE_CPU_SECONDS, &g->cpu_seconds, err) ||
        store_write(s, slot, DIAGNOSTICS_GRADE_WALL_SECONDS, &g->wall_seconds, err) || store_write(s, slot, DIAGNOSTICS_PEAK_MEMORY, &g->peak_memory, err) ||
        write_text(s, slot, DIAGNOSTICS_DETAIL, g->detail, strlen(g->detail), err) || write_text(s, slot, DIAGNOSTICS_STDOUT, g->out, strlen(g->out), err) ||
        write_text(s, slot, DIAGNOSTICS_STDERR, g->err, strlen(g->err), err))
        return err->code;
    return store_commit(s, slot, STORE_DONE, err);
}

int phase1_write_grade(struct store *s, int64_t slot, const char *program, size_t n_program, const struct pva_grade_result *g, struct pva_error *err) {
    if (write_i32(s, slot, PHASE1_N_PROGRAM, (int64_t)n_program, err) || write_text(s, slot, PHASE1_PROGRAM, program, n_program, err) ||
        write_u8(s, slot, PHASE1_VERDICT, (int)g->verdict, err) || write_i32(s, slot, PHASE1_FAILED_TEST, g->failed_test, err))
        return err->code;
    return write_text(s, slot, PHASE1_EXCEPTION, g->kind, strlen(g->kind), err);
}

int phase1_item_store(const struct phase1_item *item, const struct pva_grade_result *grade, int rank, int64_t max_tokens, struct store *results,
                      struct store *diagnostics, struct pva_error *err) {
    struct store *s = results;
    int64_t slot = item->slot;
    /* The diagnostics first: a slot of the results is the sign that both are there. A killed run may have left them already. */
    if (phase1_store_diagnostics(diagnostics, slot, rank, item->prefill_seconds, item->decode_seconds, grade, err)) return err->code;
    if (write_i32(s, slot, PHASE1_N_PROMPT, item->prompt->n, err) || write_i32(s, slot, PHASE1_N_NEW, item->n_new, err) ||
        write_tokens(item, max_tokens, s, err) || write_u8(s, slot, PHASE1_FINISH, (int)item->finish, err) ||
        write_i32(s, slot, PHASE1_N_TEXT, (int64_t)item->n_text, err) || write_text(s, slot, PHASE1_TEXT, item->text, item->n_text, err) ||
        phase1_write_grade(s, slot, item->program, item->n_program, grade, err) ||
        write_text(s, slot, PHASE1_PROMPT_SHA256, item->prompt->sha256, 64, err) || write_resid(item, s, err))
        return err->code;
    return store_commit(s, slot, STORE_DONE, err);
}

int phase1_store_too_long(int64_t slot, const struct phase1_prompt *prompt, int rank, struct store *results, struct store *diagnostics,
                          struct pva_error *err) {
    if (write_i32(diagnostics, slot, DIAGNOSTICS_RANK, rank, err) || store_commit(diagnostics, slot, STORE_DONE, err)) return err->code;
    if (write_i32(results, slot, PHASE1_N_PROMPT, prompt->n, err) || write_u8(results, slot, PHASE1_VERDICT, PVA_NO_CODE, err) ||
        write_i32(results, slot, PHASE1_FAILED_TEST, -1, err) || write_text(results, slot, PHASE1_PROMPT_SHA256, prompt->sha256, 64, err))
        return err->code;
    return store_commit(results, slot, PHASE1_TOO_LONG, err);
}
