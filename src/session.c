#include "pva/session.h"

#include "pages.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_STAGES = 64, SEND_ALIGN = 16 };

struct slot {
    int used;
    int64_t length;
};

/* Of a slot in one stage. The first `shared` positions, a multiple of PAGE, were computed by others: never more than in the stage before. */
struct held {
    int64_t pages, shared;
};

struct stage {
    struct pages pages;
    struct held *held; /* [n_slots] */
    int32_t *table;    /* host copy of the page table: [n_slots, max_pages] */
    int table_changed;
    struct pva_buffer *k_memory, *v_memory, *table_memory;
    /* Not in the first: of the stream before this stage, by the pages of the stage before. */
    struct pva_buffer *stream_memory;
    int32_t *enter;             /* [max_rows] */
    struct pva_kept_rows *keep; /* [max_rows] */
    int64_t n_enter;
};

struct pva_session {
    const struct pva_model *model;
    struct pva_workspace *ws;
    struct pva_session_settings settings;
    int n_stages;
    struct stage *stages;
    struct pva_stage *pass; /* [n_stages] what the model is told */
    struct slot *slots;
    int64_t max_pages;
    int64_t n_rows; /* of the coming pass */
    int32_t *row_tokens, *row_slots, *row_positions;
    /* What the device is told about the coming pass: here, and where it goes in one copy. */
    char *sent;
    struct pva_buffer *sent_memory;
    size_t n_sent; /* bytes */
    struct pva_tensor wanted, temperatures, draws; /* no buffer: not wanted */
    int64_t n_wanted, n_drawn; /* of the last pass */
};

static int64_t pages_for(int64_t positions) { return (positions + PAGE - 1) / PAGE; }

/* Keys and values of a page in all layers. */
static size_t page_bytes(const struct pva_model_config *c, enum pva_dtype operand) {
    return 2 * (size_t)c->n_layers * (size_t)c->n_kv_heads * PAGE * (size_t)c->d_head * pva_dtype_size(operand);
}

static size_t stream_bytes(const struct pva_model_config *c) { return PAGE * (size_t)c->d_model * sizeof(float); }

static int64_t total_pages(const struct pva_model_config *c, enum pva_dtype operand, const struct pva_session_settings *s) {
    int64_t one = pages_for(s->max_positions), all = s->n_slots * one, asked = s->kv_positions > 0 ? pages_for(s->kv_positions) : all;
    if (asked > all) asked = all;
    if (!s->n_splits) return asked;
    size_t each = page_bytes(c, operand) + (size_t)s->n_splits * stream_bytes(c);
    int64_t n = (int64_t)((size_t)asked * page_bytes(c, operand) / each);
    return n > one ? n : asked < one ? asked : one;
}

static int64_t max_logits(const struct pva_session_settings *s) { return s->max_logits > 0 ? s->max_logits : s->n_slots; }

/* Tokens, slots, positions, the rows that enter, and what hooks read; of the head rows, temperatures and draws. */
static size_t most_sent(const struct pva_session_settings *s) {
    size_t each_row = 4 + (size_t)s->hook_values, arrays = 6 + (size_t)s->n_splits + (size_t)s->hook_values;
    return (size_t)s->max_rows * each_row * 4 + (size_t)max_logits(s) * 16 + arrays * SEND_ALIGN;
}

static size_t table_bytes(const struct pva_session_settings *s) { return (size_t)s->n_slots * (size_t)pages_for(s->max_positions) * sizeof(int32_t); }

size_t pva_session_bytes(const struct pva_model_config *c, enum pva_dtype operand, const struct pva_session_settings *s) {
    size_t splits = (size_t)s->n_splits, pages = (size_t)total_pages(c, operand, s);
    return pages * (page_bytes(c, operand) + splits * stream_bytes(c)) + (splits + 1) * table_bytes(s) + most_sent(s) +
           pva_workspace_bytes(c, operand, s->max_rows, max_logits(s));
}

static int open_stage(struct pva_session *s, int i, int first_layer, int end_layer, struct pva_error *err) {
    const struct pva_model_config *c = pva_model_get_config(s->model);
    const struct pva_backend_ops *op = pva_model_ops(s->model);
    struct pva_backend *be = pva_model_backend(s->model);
    enum pva_dtype operand = pva_model_dtype(s->model);
    struct stage *t = &s->stages[i];
    int64_t pages = total_pages(c, operand, &s->settings), rows = (end_layer - first_layer) * pages * c->n_kv_heads * PAGE;
    size_t bytes = (size_t)rows * (size_t)c->d_head * pva_dtype_size(operand), each = (size_t)s->settings.max_rows;
    PVA_ASSERT(first_layer < end_layer);
    if (pages_create(&t->pages, pages, err)) return err->code;
    t->held = calloc((size_t)s->settings.n_slots, sizeof *t->held);
    t->table = calloc(1, table_bytes(&s->settings));
    t->enter = malloc(each * sizeof *t->enter);
    t->keep = malloc(each * sizeof *t->keep);
    if (!t->held || !t->table || !t->enter || !t->keep) return pva_fail(err, PVA_IO, "out of memory");
    if (op->alloc(be, bytes, &t->k_memory, err) || op->alloc(be, bytes, &t->v_memory, err) || op->alloc(be, table_bytes(&s->settings), &t->table_memory, err) ||
        (i && op->alloc(be, (size_t)pages * stream_bytes(c), &t->stream_memory, err)))
        return pva_error_prefix(err, "key/value cache for %lld positions", (long long)(pages * PAGE));
    s->pass[i] = (struct pva_stage){
        .first_layer = first_layer,
        .kv = {.k = {t->k_memory, 0, operand, rows, c->d_head},
               .v = {t->v_memory, 0, operand, rows, c->d_head},
               .page_table = {t->table_memory, 0, PVA_I32, s->settings.n_slots, s->max_pages},
               .n_layers = end_layer - first_layer,
               .n_pages = (int)pages,
               .page_size = PAGE,
               .n_kv_heads = c->n_kv_heads,
               .d_head = c->d_head},
        .stream = {t->stream_memory, 0, PVA_F32, pages * PAGE, c->d_model},
        .keep = t->keep,
    };
    return PVA_OK;
}

int pva_session_open(const struct pva_model *m, const struct pva_session_settings *settings, struct pva_session **out, struct pva_error *err) {
    const struct pva_model_config *c = pva_model_get_config(m);
    PVA_ASSERT(settings->n_slots > 0 && settings->max_rows > 0 && settings->max_positions > 0 && settings->n_splits < MOST_STAGES);
    if (settings->max_positions > c->max_positions)
        return pva_fail(err, PVA_USAGE, "sequences of %lld tokens asked for, the model's limit is %lld", (long long)settings->max_positions,
                        (long long)c->max_positions);
    struct pva_session *s = calloc(1, sizeof *s);
    if (!s) return pva_fail(err, PVA_IO, "out of memory");
    s->model = m;
    s->settings = *settings;
    s->settings.max_logits = max_logits(settings);
    s->settings.splits = NULL; /* the caller's memory */
    s->max_pages = pages_for(settings->max_positions);
    size_t n = (size_t)settings->n_splits + 1, rows = (size_t)settings->max_rows;
    s->n_stages = settings->n_splits + 1;
    s->stages = calloc(n, sizeof *s->stages);
    s->pass = calloc(n, sizeof *s->pass);
    s->slots = calloc((size_t)settings->n_slots, sizeof *s->slots);
    s->row_tokens = malloc(rows * sizeof *s->row_tokens);
    s->row_slots = malloc(rows * sizeof *s->row_slots);
    s->row_positions = malloc(rows * sizeof *s->row_positions);
    s->sent = calloc(1, most_sent(&s->settings));
    if (!s->stages || !s->pass || !s->slots || !s->row_tokens || !s->row_slots || !s->row_positions || !s->sent) {
        s->n_stages = s->stages ? s->n_stages : 0;
        pva_fail(err, PVA_IO, "out of memory");
        goto fail;
    }
    for (int i = 0; i < s->n_stages; i++)
        if (open_stage(s, i, i ? settings->splits[i - 1] : 0, i < settings->n_splits ? settings->splits[i] : c->n_layers, err)) goto fail;
    if (pva_workspace_create(m, settings->max_rows, s->settings.max_logits, &s->ws, err) ||
        pva_model_ops(m)->alloc(pva_model_backend(m), most_sent(&s->settings), &s->sent_memory, err))
        goto fail;
    for (int64_t i = 0; i < settings->max_rows; i++) s->row_tokens[i] = (int32_t)i;
    if (pva_model_ops(m)->upload(pva_model_backend(m), s->ws->numbers, s->row_tokens, err)) goto fail;
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
    for (int i = 0; i < s->n_stages; i++) {
        struct stage *t = &s->stages[i];
        op->free(be, &t->k_memory);
        op->free(be, &t->v_memory);
        op->free(be, &t->table_memory);
        op->free(be, &t->stream_memory);
        pages_free(&t->pages);
        free(t->held);
        free(t->table);
        free(t->enter);
        free(t->keep);
    }
    free(s->stages);
    free(s->pass);
    free(s->slots);
    free(s->row_tokens);
    free(s->row_slots);
    free(s->row_positions);
    op->free(be, &s->sent_memory);
    free(s->sent);
    free(s);
    *session = NULL;
}

/* ---- slots and their pages ---- */

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

static int32_t *entry_of(const struct pva_session *s, const struct stage *t, int slot, int64_t page) { return &t->table[slot * s->max_pages + page]; }

/* The life of the page before a slot's page; 0: there is none. */
static uint64_t parent_of(const struct pva_session *s, const struct stage *t, int slot, int64_t page) {
    return page ? t->pages.all[*entry_of(s, t, slot, page - 1)].life : 0;
}

void pva_session_release(struct pva_session *s, int slot) {
    *used_slot(s, slot) = (struct slot){0};
    for (int i = 0; i < s->n_stages; i++) {
        struct stage *t = &s->stages[i];
        /* From the end, so that a beginning can be found for longer than what follows it. */
        for (int64_t p = t->held[slot].pages; p-- > 0;) pages_release(&t->pages, *entry_of(s, t, slot, p));
        t->held[slot] = (struct held){0};
    }
}

int64_t pva_session_length(const struct pva_session *s, int slot) { return used_slot(s, slot)->length; }

int64_t pva_session_free_positions(const struct pva_session *s) {
    int64_t least = INT64_MAX;
    for (int i = 0; i < s->n_stages; i++)
        if (s->stages[i].pages.n_free < least) least = s->stages[i].pages.n_free;
    return least * PAGE;
}

int pva_session_reserve(struct pva_session *s, int slot, int64_t length) {
    used_slot(s, slot);
    PVA_ASSERT(length <= s->settings.max_positions);
    for (int i = 0; i < s->n_stages; i++)
        if (pages_for(length) - s->stages[i].held[slot].pages > s->stages[i].pages.n_free) return 0;
    for (int i = 0; i < s->n_stages; i++) {
        struct stage *t = &s->stages[i];
        struct held *h = &t->held[slot];
        for (; h->pages < pages_for(length); t->table_changed = 1) *entry_of(s, t, slot, h->pages++) = pages_take(&t->pages);
    }
    return 1;
}

/* The stage that `layer` is in: from there on a change is felt. */
static int stage_of(const struct pva_session *s, int layer) {
    if (layer >= pva_model_get_config(s->model)->n_layers) return s->n_stages;
    int i = 0;
    while (i + 1 < s->n_stages && s->pass[i + 1].first_layer <= layer) i++;
    return i;
}

/* Puts another's page in the place of one that is reserved, or at the end. */
static void hold_page(const struct pva_session *s, struct stage *t, int slot, int64_t place, int32_t page) {
    struct held *h = &t->held[slot];
    pages_hold(&t->pages, page);
    if (place < h->pages) pages_release(&t->pages, *entry_of(s, t, slot, place));
    else h->pages++;
    PVA_ASSERT(place < h->pages);
    *entry_of(s, t, slot, place) = page;
    h->shared = (place + 1) * PAGE;
    t->table_changed = 1;
}

int64_t pva_session_share(struct pva_session *s, int slot, const int32_t *tokens, const uint64_t *changes, int layer, int64_t n) {
    static const uint64_t unchanged[PAGE];
    struct slot *at = used_slot(s, slot);
    int first_changed = stage_of(s, layer), most = s->n_stages;
    for (int64_t place = at->length / PAGE; most && at->length % PAGE == 0 && (place + 1) * PAGE <= n; place++) {
        int32_t found[MOST_STAGES];
        int have = 0; /* stages from the first on */
        for (; have < most; have++) {
            const struct stage *t = &s->stages[have];
            found[have] = place * PAGE < t->held[slot].shared ? *entry_of(s, t, slot, place)
                                                              : pages_find(&t->pages, parent_of(s, t, slot, place), tokens + place * PAGE,
                                                                           have < first_changed ? unchanged : changes + place * PAGE);
            if (found[have] < 0) break;
        }
        /* Whoever goes on from a stage needs the whole page's stream before the next. */
        while (have && have < s->n_stages && s->stages[have - 1].pages.all[found[have - 1]].kept < PAGE) have--;
        for (int i = 0; i < have; i++)
            if (place * PAGE >= s->stages[i].held[slot].shared) hold_page(s, &s->stages[i], slot, place, found[i]);
        most = have;
        if (have == s->n_stages) at->length = (place + 1) * PAGE;
    }
    return at->length;
}

/* ---- a pass ---- */

static int first_stage(const struct pva_session *s, int slot, int64_t position) {
    int i = 0;
    while (i < s->n_stages && s->stages[i].held[slot].shared > position) i++;
    PVA_ASSERT(i < s->n_stages);
    return i;
}

int pva_session_enters(const struct pva_session *s, int slot, int64_t position) { return s->pass[first_stage(s, slot, position)].first_layer; }

/* The row's stream before a stage is kept, together with its neighbours' of the same page. A row alone, as decoding has them, is not
 * worth the trouble: then nobody enters with this page. */
static void keep_row(struct pva_stage *to, struct pva_kept_rows *keep, struct page *page, int64_t row, int64_t at) {
    struct pva_kept_rows *last = to->n_keep ? &keep[to->n_keep - 1] : NULL;
    if (last && last->row + last->n == row && last->to + last->n == at && at % PAGE) page->kept += ++last->n == 2 ? 2 : 1;
    else keep[to->n_keep++] = (struct pva_kept_rows){row, at, 1};
}

static int64_t add_row(struct pva_session *s, int slot, int64_t position, int32_t token, int first) {
    struct slot *at = used_slot(s, slot);
    PVA_ASSERT(s->n_rows < s->settings.max_rows && position < s->settings.max_positions);
    for (int i = 0; i < s->n_stages; i++) {
        PVA_ASSERT(position / PAGE < s->stages[i].held[slot].pages);
        if (i >= first) s->pass[i].n_rows++;
        else PVA_ASSERT(s->n_rows >= s->pass[i].n_rows); /* rows that enter later come later */
    }
    PVA_ASSERT(s->pass[first].n_rows == s->n_rows + 1);
    s->row_tokens[s->n_rows] = token;
    s->row_slots[s->n_rows] = slot;
    s->row_positions[s->n_rows] = (int32_t)position;
    if (at->length <= position) at->length = position + 1;
    return s->n_rows++;
}

void pva_session_add(struct pva_session *s, int slot, int64_t position, int32_t token, uint64_t change, int layer) {
    int first = first_stage(s, slot, position), first_changed = stage_of(s, layer);
    int64_t row = add_row(s, slot, position, token, first), place = position / PAGE;
    if (first) {
        struct stage *t = &s->stages[first];
        t->enter[t->n_enter++] = *entry_of(s, &s->stages[first - 1], slot, place) * PAGE + (int32_t)(position % PAGE);
    }
    for (int i = first; i < s->n_stages; i++) {
        struct stage *t = &s->stages[i];
        int32_t page = *entry_of(s, t, slot, place);
        PVA_ASSERT(t->pages.all[page].filled == position % PAGE);
        pages_fill(&t->pages, page, parent_of(s, t, slot, place), token, i < first_changed ? 0 : change);
        if (i + 1 < s->n_stages) keep_row(&s->pass[i + 1], s->stages[i + 1].keep, &t->pages.all[page], row, (int64_t)page * PAGE + position % PAGE);
    }
}

/* Rows that stayed alone are not kept. */
static int64_t drop_single(struct pva_kept_rows *keep, int64_t n) {
    int64_t left = 0;
    for (int64_t i = 0; i < n; i++)
        if (keep[i].n > 1) keep[left++] = keep[i];
    return left;
}

struct pva_tensor pva_session_send(struct pva_session *s, enum pva_dtype dtype, const void *values, int64_t n) {
    const struct pva_tensor to = {s->sent_memory, s->n_sent, dtype, n, 1};
    size_t bytes = (size_t)n * pva_dtype_size(dtype);
    PVA_ASSERT(s->n_sent + bytes <= most_sent(&s->settings));
    if (n) memcpy(s->sent + s->n_sent, values, bytes);
    s->n_sent += (bytes + SEND_ALIGN - 1) / SEND_ALIGN * SEND_ALIGN;
    return to;
}

void pva_session_want(struct pva_session *s, const int32_t *rows, int64_t n, const float *temperatures, const double *draws) {
    PVA_ASSERT(n <= s->settings.max_logits && !s->wanted.buffer);
    if (n == 0) return;
    s->wanted = pva_session_send(s, PVA_I32, rows, n);
    if (!draws) return;
    s->temperatures = pva_session_send(s, PVA_F32, temperatures, n);
    s->draws = pva_session_send(s, PVA_F64, draws, n);
}

static struct pva_tensor rows_of(struct pva_tensor t, int64_t n) {
    t.rows = n;
    return t;
}

static int run_pass(struct pva_session *s, struct pva_hook *hooks, int n_hooks, struct pva_error *err) {
    const struct pva_backend_ops *op = pva_model_ops(s->model);
    struct pva_backend *be = pva_model_backend(s->model);
    struct pva_workspace *ws = s->ws;
    for (int i = 0; i < s->n_stages; i++) {
        struct stage *t = &s->stages[i];
        struct pva_stage *p = &s->pass[i];
        if (t->table_changed && op->upload(be, p->kv.page_table, t->table, err)) return err->code;
        t->table_changed = 0;
        p->n_keep = drop_single(t->keep, p->n_keep);
        p->enter = pva_session_send(s, PVA_I32, t->enter, t->n_enter);
    }
    const struct pva_rows rows = {
        .tokens = pva_session_send(s, PVA_I32, s->row_tokens, s->n_rows),
        .slots = pva_session_send(s, PVA_I32, s->row_slots, s->n_rows),
        .positions = pva_session_send(s, PVA_I32, s->row_positions, s->n_rows),
    };
    if (op->upload(be, (struct pva_tensor){s->sent_memory, 0, PVA_U8, (int64_t)s->n_sent, 1}, s->sent, err) ||
        pva_model_forward(s->model, ws, s->pass, s->n_stages, &rows, hooks, n_hooks, err))
        return err->code;
    if (s->wanted.buffer && pva_model_logits(s->model, ws, s->wanted, err)) return err->code;
    if (!s->draws.buffer) return PVA_OK;
    int64_t n = s->wanted.rows;
    return op->sample(be, rows_of(ws->logits, n), s->temperatures, s->draws, rows_of(ws->sampled, n), err);
}

int pva_session_run(struct pva_session *s, struct pva_hook *hooks, int n_hooks, struct pva_error *err) {
    int status = run_pass(s, hooks, n_hooks, err);
    s->n_wanted = s->wanted.rows, s->n_drawn = s->draws.rows;
    s->wanted = s->temperatures = s->draws = (struct pva_tensor){0};
    s->n_sent = 0;
    s->n_rows = 0;
    for (int i = 0; i < s->n_stages; i++) s->pass[i].n_rows = s->pass[i].n_keep = s->stages[i].n_enter = 0;
    return status;
}

int pva_session_append(struct pva_session *s, int64_t n_rows, const int32_t *tokens, const int32_t *slots, struct pva_hook *hooks, int n_hooks,
                       struct pva_error *err) {
    for (int64_t i = 0; i < n_rows; i++) add_row(s, slots[i], pva_session_length(s, slots[i]), tokens[i], 0);
    return pva_session_run(s, hooks, n_hooks, err);
}

int pva_session_tokens(struct pva_session *s, int64_t n, int32_t *tokens, struct pva_error *err) {
    PVA_ASSERT(n == s->n_drawn);
    return n ? pva_model_ops(s->model)->download(pva_model_backend(s->model), rows_of(s->ws->sampled, n), tokens, err) : PVA_OK;
}

int pva_session_read_logits(struct pva_session *s, int64_t n, float *out, struct pva_error *err) {
    PVA_ASSERT(n == s->n_wanted);
    return pva_model_ops(s->model)->download(pva_model_backend(s->model), rows_of(s->ws->logits, n), out, err);
}

const struct pva_model *pva_session_model(const struct pva_session *s) { return s->model; }

int64_t pva_session_visits(const struct pva_session *s, enum pva_point point) { return s->ws->visits[point]; }
