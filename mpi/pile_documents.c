#include "pile_documents.h"

#include "pva/hash.h"
#include "pva/problems.h"
#include "pva/rng.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int out_of_memory(struct pva_error *err) { return pva_fail(err, PVA_IO, "out of memory"); }

struct reader {
    const char *path;
    const struct engine *engine;
    int64_t most, max_tokens, seed;
    int64_t n_read; /* documents of the file so far */
    int64_t room;
    struct pile_documents *out;
};

static int add_document(struct reader *r, const char *text, size_t n, struct pva_error *err) {
    struct pile_documents *out = r->out;
    int64_t index = r->n_read++;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    /* No more text is tokenised than max_tokens of the longest can take; what is cut is whole characters. */
    size_t longest = (size_t)r->max_tokens * 64;
    if (n > longest)
        for (n = longest; n && ((unsigned char)text[n] & 0xc0) == 0x80;) n--;
    if (engine_encode_prompt(r->engine, text, n, &ids, &n_ids, err)) return pva_error_prefix(err, "%s: document %lld", r->path, (long long)index + 1);
    if ((int64_t)n_ids > r->max_tokens) n_ids = (size_t)r->max_tokens;
    if (n_ids < 2) {
        out->n_empty++;
        free(ids);
        return PVA_OK;
    }
    if (out->n == r->room) {
        int64_t room = 2 * r->room + 1024;
        struct pile_document *list = realloc(out->list, (size_t)room * sizeof *list);
        if (list) out->list = list;
        int32_t *places = realloc(out->index, (size_t)room * sizeof *places);
        if (places) out->index = places;
        int64_t *costs = realloc(out->costs, (size_t)room * sizeof *costs);
        if (costs) out->costs = costs;
        if (!list || !places || !costs) {
            free(ids);
            return out_of_memory(err);
        }
        r->room = room;
    }
    int32_t position = 1 + (int32_t)pva_rng_below((uint64_t)r->seed, PVA_RNG_PILE, (uint32_t)index, 0, 0, (uint64_t)n_ids - 1);
    out->list[out->n] = (struct pile_document){.ids = ids, .n_tokens = (int32_t)n_ids, .position = position};
    out->index[out->n] = (int32_t)index;
    out->costs[out->n++] = position + 1;
    return PVA_OK;
}

static int add_json(struct reader *r, const char *line, size_t n, int64_t number, struct pva_error *err) {
    json_error_t why;
    json_t *value = json_loadb(line, n, JSON_ALLOW_NUL, &why);
    const json_t *text = json_object_get(value, "text");
    if (!value) pva_fail(err, PVA_INPUT, "%s:%lld: not valid JSON: %s", r->path, (long long)number, why.text);
    else if (!json_is_string(text)) pva_fail(err, PVA_INPUT, "%s:%lld: has no \"text\"", r->path, (long long)number);
    else add_document(r, json_string_value(text), json_string_length(text), err);
    json_decref(value);
    return err->code;
}

static int is_blank(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != ' ' && p[i] != '\t' && p[i] != '\r') return 0;
    return 1;
}

static int read_all(struct reader *r, const char *text, size_t n, struct pva_error *err) {
    const char *end = text + n, *document = NULL;
    const char *first = text;
    while (first < end && (*first == ' ' || *first == '\n' || *first == '\r' || *first == '\t')) first++;
    int json = first < end && *first == '{';
    int64_t number = 0;
    for (const char *line = text; line < end && !err->code && (!r->most || r->n_read < r->most);) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t length = (size_t)((stop ? stop : end) - line);
        int blank = is_blank(line, length);
        number++;
        if (json) {
            if (!blank) add_json(r, line, length, number, err);
        } else if (blank) {
            if (document) add_document(r, document, (size_t)(line - document), err);
            document = NULL;
        } else if (!document) {
            document = line;
        }
        line = stop ? stop + 1 : end;
    }
    if (document && !err->code && (!r->most || r->n_read < r->most)) add_document(r, document, (size_t)(end - document), err);
    return err->code;
}

int pile_documents_read(const char *path, const struct engine *e, int64_t most, int64_t max_tokens, int64_t seed, struct pile_documents *out, struct pva_error *err) {
    struct reader r = {.path = path, .engine = e, .most = most, .max_tokens = max_tokens, .seed = seed, .out = out};
    char *text = NULL;
    size_t n = 0;
    memset(out, 0, sizeof *out);
    if (pva_read_text(path, &text, &n, err)) return err->code;
    pva_sha256_text(text, n, out->sha256);
    if (!read_all(&r, text, n, err) && !out->n) pva_fail(err, PVA_INPUT, "%s: has no document with a token in it", path);
    free(text);
    if (err->code) pile_documents_free(out);
    return err->code;
}

void pile_documents_free(struct pile_documents *d) {
    for (int64_t i = 0; i < d->n; i++) free(d->list[i].ids);
    free(d->list);
    free(d->index);
    free(d->costs);
    memset(d, 0, sizeof *d);
}
