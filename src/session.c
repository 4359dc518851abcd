#include "pva/session.h"

#include <stdlib.h>
#include <string.h>

/* One page holds 32 positions: at most 31 are wasted per sequence, and the table of a 2000-token sequence has 63 entries. */
enum { PAGE = 32 };

struct slot {
    int used;
    int64_t length, pages;
};

struct pva_session {
    const struct pva_model *model;
    struct pva_workspace *ws;
    struct pva_session_settings settings;
    struct pva_kv_cache kv;
    struct pva_buffer *k_memory, *v_memory, *table_memory;

    struct slot *slots;
    int32_t *table; /* host copy of the page table: [n_slots, max_pages] */
    int64_t max_pages;
    int32_t *free_pages;
    int64_t n_free;
    int table_changed;
    int32_t *positions; /* [max_rows] */
};

static int64_t pages_for(int64_t positions) { return (positions + PAGE - 1) / PAGE; }

static int64_t total_pages(const struct pva_session_settings *s) {
    int64_t all = s->n_slots * pages_for(s->max_positions);
    if (s->kv_positions <= 0) return all;
    int64_t asked = pages_for(s->kv_positions);
    return asked < all ? asked : all;
}

static int64_t max_logits(const struct pva_session_settings *s) { return s->max_logits > 0 ? s->max_logits : s->n_slots; }

static size_t kv_bytes(const struct pva_model_config *c, enum pva_dtype operand, int64_t pages) {
    return (size_t)c->n_layers * (size_t)pages * (size_t)c->n_kv_heads * PAGE * (size_t)c->d_head * pva_dtype_size(operand);
}

size_t pva_session_bytes(const struct pva_model_config *c, enum pva_dtype operand, const struct pva_session_settings *s) {
    size_t table = (size_t)s->n_slots * (size_t)pages_for(s->max_positions) * sizeof(int32_t);
    return 2 * kv_bytes(c, operand, total_pages(s)) + table + pva_workspace_bytes(c, operand, s->max_rows, max_logits(s));
}

int pva_session_open(const struct pva_model *m, const struct pva_session_settings *settings, struct pva_session **out, struct pva_error *err) {
    const struct pva_model_config *c = pva_model_get_config(m);
    const struct pva_backend_ops *op = pva_model_ops(m);
    struct pva_backend *be = pva_model_backend(m);
    PVA_ASSERT(settings->n_slots > 0 && settings->max_rows > 0 && settings->max_positions > 0);
    if (settings->max_positions > c->max_positions)
        return pva_fail(err, PVA_USAGE, "sequences of %lld tokens asked for, the model's limit is %lld", (long long)settings->max_positions,
                        (long long)c->max_positions);
    struct pva_session *s = calloc(1, sizeof *s);
    if (!s) return pva_fail(err, PVA_IO, "out of memory");
    s->model = m;
    s->settings = *settings;
    s->settings.max_logits = max_logits(settings);
    s->max_pages = pages_for(settings->max_positions);
    int64_t pages = total_pages(settings);
    size_t table_bytes = (size_t)(settings->n_slots * s->max_pages) * sizeof(int32_t);
    s->slots = calloc((size_t)settings->n_slots, sizeof *s->slots);
    s->table = calloc(1, table_bytes);
    s->free_pages = calloc((size_t)pages, sizeof *s->free_pages);
    s->positions = calloc((size_t)settings->max_rows, sizeof *s->positions);
    if (!s->slots || !s->table || !s->free_pages || !s->positions) {
        pva_fail(err, PVA_IO, "out of memory");
        goto fail;
    }
    for (int64_t i = 0; i < pages; i++) s->free_pages[i] = (int32_t)(pages - 1 - i);
    s->n_free = pages;
    size_t bytes = kv_bytes(c, pva_model_dtype(m), pages);
    if (op->alloc(be, bytes, &s->k_memory, err) || op->alloc(be, bytes, &s->v_memory, err) || op->alloc(be, table_bytes, &s->table_memory, err)) {
        pva_error_prefix(err, "key/value cache for %lld positions", (long long)(pages * PAGE));
        goto fail;
    }
    if (pva_workspace_create(m, settings->max_rows, s->settings.max_logits, &s->ws, err)) goto fail;
    int64_t rows = (int64_t)c->n_layers * pages * c->n_kv_heads * PAGE;
    s->kv = (struct pva_kv_cache){
        .k = {s->k_memory, 0, pva_model_dtype(m), rows, c->d_head},
        .v = {s->v_memory, 0, pva_model_dtype(m), rows, c->d_head},
        .page_table = {s->table_memory, 0, PVA_I32, settings->n_slots, s->max_pages},
        .n_layers = c->n_layers,
        .n_pages = (int)pages,
        .page_size = PAGE,
        .n_kv_heads = c->n_kv_heads,
        .d_head = c->d_head,
    };
    *out = s;
    return PVA_OK;
fail:
    pva_session_close(&s);
    return err->code;
}

void pva_session_close(struct pva_session **session) {
    struct pva_session *s = *session;
    if (!s) return;
    const struct pva_backend_ops *op = pva_model_ops(s->model);
    struct pva_backend *be = pva_model_backend(s->model);
    pva_workspace_free(&s->ws);
    op->free(be, &s->k_memory);
    op->free(be, &s->v_memory);
    op->free(be, &s->table_memory);
    free(s->slots);
    free(s->table);
    free(s->free_pages);
    free(s->positions);
    free(s);
    *session = NULL;
}

int pva_session_claim(struct pva_session *s) {
    for (int i = 0; i < s->settings.n_slots; i++) {
        if (s->slots[i].used) continue;
        s->slots[i] = (struct slot){.used = 1};
        return i;
    }
    return -1;
}

static struct slot *used_slot(const struct pva_session *s, int slot) {
    PVA_ASSERT(slot >= 0 && slot < s->settings.n_slots && s->slots[slot].used);
    return &s->slots[slot];
}

void pva_session_release(struct pva_session *s, int slot) {
    struct slot *t = used_slot(s, slot);
    for (int64_t i = t->pages; i-- > 0;) s->free_pages[s->n_free++] = s->table[slot * s->max_pages + i];
    *t = (struct slot){0};
}

int64_t pva_session_length(const struct pva_session *s, int slot) { return used_slot(s, slot)->length; }

int64_t pva_session_free_positions(const struct pva_session *s) { return s->n_free * PAGE; }

int pva_session_reserve(struct pva_session *s, int slot, int64_t length) {
    struct slot *t = used_slot(s, slot);
    PVA_ASSERT(length <= s->settings.max_positions);
    int64_t more = pages_for(length) - t->pages;
    if (more <= 0) return 1;
    if (more > s->n_free) return 0;
    while (more-- > 0) s->table[slot * s->max_pages + t->pages++] = s->free_pages[--s->n_free];
    s->table_changed = 1;
    return 1;
}

int pva_session_append(struct pva_session *s, int64_t n_rows, const int32_t *tokens, const int32_t *slots, struct pva_hook *hooks, int n_hooks,
                       struct pva_error *err) {
    PVA_ASSERT(n_rows <= s->settings.max_rows);
    for (int64_t i = 0; i < n_rows; i++) {
        struct slot *t = used_slot(s, slots[i]);
        PVA_ASSERT(t->length < t->pages * PAGE);
        s->positions[i] = (int32_t)t->length++;
    }
    if (s->table_changed) {
        if (pva_model_ops(s->model)->upload(pva_model_backend(s->model), s->kv.page_table, s->table, err)) return err->code;
        s->table_changed = 0;
    }
    return pva_model_forward(s->model, s->ws, &s->kv, n_rows, tokens, slots, s->positions, hooks, n_hooks,
                             pva_model_get_config(s->model)->n_layers, err);
}

int pva_session_logits(struct pva_session *s, const int32_t *rows, int64_t n, struct pva_error *err) {
    return pva_model_logits(s->model, s->ws, rows, n, err);
}

static struct pva_tensor rows_of(struct pva_tensor t, int64_t n) {
    t.rows = n;
    return t;
}

int pva_session_sample(struct pva_session *s, int64_t n, const float *temperatures, const double *draws, int32_t *tokens, struct pva_error *err) {
    const struct pva_backend_ops *op = pva_model_ops(s->model);
    struct pva_backend *be = pva_model_backend(s->model);
    struct pva_workspace *ws = s->ws;
    if (n == 0) return PVA_OK;
    if (op->upload(be, rows_of(ws->temperatures, n), temperatures, err) || op->upload(be, rows_of(ws->draws, n), draws, err) ||
        op->sample(be, rows_of(ws->logits, n), rows_of(ws->temperatures, n), rows_of(ws->draws, n), rows_of(ws->sampled, n), err))
        return err->code;
    return op->download(be, rows_of(ws->sampled, n), tokens, err);
}

int pva_session_read_logits(struct pva_session *s, int64_t n, float *out, struct pva_error *err) {
    return pva_model_ops(s->model)->download(pva_model_backend(s->model), rows_of(s->ws->logits, n), out, err);
}

const struct pva_model *pva_session_model(const struct pva_session *s) { return s->model; }

int64_t pva_session_visits(const struct pva_session *s, enum pva_point point) { return s->ws->visits[point]; }
