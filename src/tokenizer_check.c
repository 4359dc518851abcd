#include "tokenizer_check.h"

#include "pva/utf8.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 }; /* wire types; groups (3, 4) do not occur in this message */
enum { MAX_PIECES = 1 << 22, MAX_PIECE_BYTES = 8000, MAX_NESTED_SYMBOLS = 64 };
enum piece_type { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

struct reader {
    const char *name;
    const unsigned char *start, *at, *end; /* start: of the file, for offsets in messages */
};

struct field {
    unsigned number, wire;
    uint64_t value;             /* VARINT, FIXED32 */
    const unsigned char *bytes; /* BYTES */
    size_t size;
};

struct piece {
    const unsigned char *text;
    size_t size;
    enum piece_type type;
};

struct vocabulary {
    size_t n, n_unknown;
    unsigned char byte_seen[256];
    struct piece *symbols; /* the user-defined ones */
    size_t n_symbols, capacity;
};

static int broken(const struct reader *r, const char *what, struct pva_error *err) {
    return pva_fail(err, PVA_INPUT, "%s: byte %td: %s: not a SentencePiece model, or a damaged one", r->name, r->at - r->start,
                    what);
}

static int read_varint(struct reader *r, uint64_t *out, struct pva_error *err) {
    *out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (r->at == r->end) return broken(r, "ends within a number", err);
        unsigned char byte = *r->at++;
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return 0;
    }
    return broken(r, "number of more than 10 bytes", err);
}

static int read_field(struct reader *r, struct field *f, struct pva_error *err) {
    uint64_t tag, size;
    if (read_varint(r, &tag, err)) return err->code;
    f->number = (unsigned)(tag >> 3 & 0x1fffffff);
    f->wire = tag & 7;
    if (tag >> 32 || f->number == 0) return broken(r, "field number out of range", err);
    size_t left = (size_t)(r->end - r->at);
    switch (f->wire) {
    case VARINT: return read_varint(r, &f->value, err);
    case BYTES:
        if (read_varint(r, &size, err)) return err->code;
        left = (size_t)(r->end - r->at);
        if (size > left) return broken(r, "field longer than the file", err);
        f->bytes = r->at;
        f->size = (size_t)size;
        r->at += size;
        return 0;
    case FIXED32:
    case FIXED64:
        size = f->wire == FIXED32 ? 4 : 8;
        if (left < size) return broken(r, "ends within a field", err);
        f->value = 0;
        for (unsigned i = 0; i < size; i++) f->value |= (uint64_t)r->at[i] << 8 * i;
        r->at += size;
        return 0;
    default: return broken(r, "unknown kind of field", err);
    }
}

/* A known field with another wire type than the format's would be skipped by one parser and read by another. */
static int expect_wire(const struct reader *r, const struct field *f, unsigned wire, struct pva_error *err) {
    return f->wire == wire ? 0 : broken(r, "field of an unexpected kind", err);
}

static struct reader enter(const struct reader *r, const struct field *f) {
    return (struct reader){r->name, r->start, f->bytes, f->bytes + f->size};
}

/* "<0x00>" .. "<0xFF>", upper case; -1 for anything else. */
static int byte_of_piece(const struct piece *p) {
    static const char digits[] = "0123456789ABCDEF";
    if (p->size != 6 || memcmp(p->text, "<0x", 3) || p->text[5] != '>' || !p->text[3] || !p->text[4]) return -1;
    const char *high = strchr(digits, p->text[3]), *low = strchr(digits, p->text[4]);
    return high && low ? (int)(16 * (high - digits) + (low - digits)) : -1;
}

static int add_symbol(const struct reader *r, const struct piece *p, struct vocabulary *v, struct pva_error *err) {
    if (v->n_symbols == v->capacity) {
        size_t capacity = v->capacity ? 2 * v->capacity : 256;
        struct piece *symbols = realloc(v->symbols, capacity * sizeof *symbols);
        if (!symbols) return pva_fail(err, PVA_IO, "%s: out of memory for %zu symbols", r->name, capacity);
        v->symbols = symbols;
        v->capacity = capacity;
    }
    v->symbols[v->n_symbols++] = *p;
    return 0;
}

static int read_piece(const struct reader *r, const struct field *message, struct vocabulary *v, struct pva_error *err) {
    struct reader in = enter(r, message);
    struct piece p = {NULL, 0, NORMAL};
    struct field f;
    float score = 0;
    while (in.at < in.end) {
        if (read_field(&in, &f, err)) return err->code;
        if (f.number == 1) {
            if (expect_wire(&in, &f, BYTES, err)) return err->code;
            p.text = f.bytes;
            p.size = f.size;
        } else if (f.number == 2) {
            uint32_t bits = (uint32_t)f.value;
            if (expect_wire(&in, &f, FIXED32, err)) return err->code;
            memcpy(&score, &bits, sizeof score);
        } else if (f.number == 3) {
            if (expect_wire(&in, &f, VARINT, err)) return err->code;
            if (f.value < NORMAL || f.value > BYTE)
                return pva_fail(err, PVA_INPUT, "%s: piece %zu is of the unknown type %llu", r->name, v->n,
                                (unsigned long long)f.value);
            p.type = (enum piece_type)f.value;
        }
    }
    if (!p.size || p.size >= MAX_PIECE_BYTES || memchr(p.text, 0, p.size) ||
        pva_utf8_valid_prefix((const char *)p.text, p.size) != p.size)
        return pva_fail(err, PVA_INPUT, "%s: piece %zu is not a text of 1 to %d bytes of UTF-8", r->name, v->n,
                        MAX_PIECE_BYTES - 1);
    if (!isfinite(score)) return pva_fail(err, PVA_INPUT, "%s: piece %zu has a score that is not a number", r->name, v->n);
    if (p.type == BYTE) {
        int byte = byte_of_piece(&p);
        if (byte < 0) return pva_fail(err, PVA_INPUT, "%s: byte piece %zu is not written as <0x00> to <0xFF>", r->name, v->n);
        v->byte_seen[byte] = 1;
    }
    if (++v->n > MAX_PIECES) return pva_fail(err, PVA_INPUT, "%s: more than %d pieces", r->name, MAX_PIECES);
    v->n_unknown += p.type == UNKNOWN;
    return p.type == USER_DEFINED ? add_symbol(r, &p, v, err) : 0;
}

static int read_trainer(const struct reader *r, const struct field *message, struct pva_error *err) {
    struct reader in = enter(r, message);
    struct field f;
    uint64_t model_type = 1, byte_fallback = 0;
    while (in.at < in.end) {
        if (read_field(&in, &f, err)) return err->code;
        if (f.number == 44 && f.wire == BYTES && pva_utf8_valid_prefix((const char *)f.bytes, f.size) != f.size)
            return pva_fail(err, PVA_INPUT, "%s: the text that stands for the unknown token is not UTF-8", r->name);
        if (f.number != 3 && f.number != 35) continue;
        if (expect_wire(&in, &f, VARINT, err)) return err->code;
        *(f.number == 3 ? &model_type : &byte_fallback) = f.value;
    }
    if (model_type != 2)
        return pva_fail(err, PVA_INPUT, "%s: model type is %llu, expected 2 (byte pairs, as Gemma uses)", r->name,
                        (unsigned long long)model_type);
    if (!byte_fallback)
        return pva_fail(err, PVA_INPUT, "%s: has no byte fallback, so some texts would be lost; Gemma's tokenizer has it",
                        r->name);
    return 0;
}

static int read_normalizer(const struct reader *r, const struct field *message, struct pva_error *err) {
    enum { RULE_NAME = 1, TABLE, DUMMY_PREFIX, REMOVE_SPACES, ESCAPE_SPACES, TABLE_SOURCE }; /* field numbers */
    struct reader in = enter(r, message);
    struct field f;
    uint64_t flags[] = {[DUMMY_PREFIX] = 1, [REMOVE_SPACES] = 1, [ESCAPE_SPACES] = 1}; /* the format's defaults */
    while (in.at < in.end) {
        if (read_field(&in, &f, err)) return err->code;
        switch (f.number) {
        case RULE_NAME:
        case TABLE_SOURCE: break; /* of no effect after training */
        case TABLE:
            if (f.wire == BYTES && !f.size) break;
            return pva_fail(err, PVA_INPUT, "%s: rewrites text by a normalisation table, expected the identity, as Gemma's does",
                            r->name);
        case DUMMY_PREFIX:
        case REMOVE_SPACES:
        case ESCAPE_SPACES:
            if (expect_wire(&in, &f, VARINT, err)) return err->code;
            flags[f.number] = f.value;
            break;
        default: return pva_fail(err, PVA_INPUT, "%s: normaliser has the unknown setting %u", r->name, f.number);
        }
    }
    if (flags[DUMMY_PREFIX] || flags[REMOVE_SPACES] || !flags[ESCAPE_SPACES])
        return pva_fail(err, PVA_INPUT,
                        "%s: adds or removes spaces (add_dummy_prefix %d, remove_extra_whitespaces %d, escape_whitespaces %d), "
                        "expected 0, 0, 1, as Gemma's does",
                        r->name, flags[DUMMY_PREFIX] != 0, flags[REMOVE_SPACES] != 0, flags[ESCAPE_SPACES] != 0);
    return 0;
}

static int by_text(const void *a, const void *b) {
    const struct piece *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->size < y->size ? x->size : y->size);
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

/* Sorted, a symbol stands right after its prefixes, so a stack of open prefixes gives the nesting depth. That no piece occurs
 * twice is left to the library, which says so by its status. */
static int check_vocabulary(const struct reader *r, struct vocabulary *v, struct pva_error *err) {
    const struct piece *open[MAX_NESTED_SYMBOLS];
    size_t depth = 0, n_bytes = 0;
    if (!v->n) return pva_fail(err, PVA_INPUT, "%s: holds no pieces: not a SentencePiece model", r->name);
    if (v->n_unknown != 1) return pva_fail(err, PVA_INPUT, "%s: %zu unknown pieces, expected exactly one", r->name, v->n_unknown);
    for (int i = 0; i < 256; i++) n_bytes += v->byte_seen[i];
    if (n_bytes != 256) return pva_fail(err, PVA_INPUT, "%s: %zu byte pieces, expected 256", r->name, n_bytes);
    if (v->n_symbols) qsort(v->symbols, v->n_symbols, sizeof *v->symbols, by_text);
    for (size_t i = 0; i < v->n_symbols; i++) {
        const struct piece *p = &v->symbols[i];
        while (depth && (open[depth - 1]->size > p->size || memcmp(open[depth - 1]->text, p->text, open[depth - 1]->size)))
            depth--;
        if (depth == MAX_NESTED_SYMBOLS)
            return pva_fail(err, PVA_INPUT, "%s: more than %d user-defined symbols begin one another", r->name,
                            MAX_NESTED_SYMBOLS);
        open[depth++] = p;
    }
    return 0;
}

static int walk(struct reader *r, struct vocabulary *v, struct pva_error *err) {
    struct field f;
    int n_trainers = 0, n_normalizers = 0;
    while (r->at < r->end) {
        if (read_field(r, &f, err)) return err->code;
        if (f.number > 5) continue; /* extensions are skipped by everybody */
        if (expect_wire(r, &f, BYTES, err)) return err->code;
        switch (f.number) {
        case 1: read_piece(r, &f, v, err); break;
        case 2:
            n_trainers++;
            read_trainer(r, &f, err);
            break;
        case 3:
            n_normalizers++;
            read_normalizer(r, &f, err);
            break;
        case 4: break; /* samples for a self-test */
        case 5:
            if (f.size) pva_fail(err, PVA_INPUT, "%s: has a denormaliser, expected none, as in Gemma's", r->name);
            break;
        }
        if (err->code) return err->code;
    }
    if (n_trainers != 1 ||
        n_normalizers != 1) /* repeated ones would be merged by the library: another content than checked here */
        return pva_fail(err, PVA_INPUT,
                        "%s: %d trainer and %d normaliser settings, expected one of each: not a SentencePiece model", r->name,
                        n_trainers, n_normalizers);
    return check_vocabulary(r, v, err);
}

int tokenizer_check(const char *name, const unsigned char *bytes, size_t size, struct pva_error *err) {
    struct reader r = {name, bytes, bytes, bytes + size};
    struct vocabulary v = {0};
    walk(&r, &v, err);
    free(v.symbols);
    return err->code;
}
