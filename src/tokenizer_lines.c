/* JSON lines through the tokenizer: what `pva-mpi tokenize` does. */
#include "pva/tokenizer.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* {"text": ...} -> {"ids": [...]} */
static int encode_line(const struct pva_tokenizer *t, const json_t *line, int add_bos, FILE *out, struct pva_error *err) {
    const json_t *text = json_object_get(line, "text");
    int32_t *ids;
    size_t n;
    if (!json_is_string(text)) return pva_fail(err, PVA_INPUT, "expected {\"text\": \"...\"}");
    if (pva_tokenizer_encode(t, json_string_value(text), json_string_length(text), &ids, &n, err)) return err->code;
    fputs("{\"ids\": [", out);
    if (add_bos) fprintf(out, "%d%s", pva_tokenizer_bos(t), n ? ", " : "");
    for (size_t i = 0; i < n; i++) fprintf(out, i ? ", %" PRId32 : "%" PRId32, ids[i]);
    fputs("]}\n", out);
    free(ids);
    return 0;
}

static int read_ids(const json_t *list, int32_t *ids, struct pva_error *err) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return pva_fail(err, PVA_INPUT, "element %zu of \"ids\" is not a token id", i);
        ids[i] = (int32_t)json_integer_value(id);
    }
    return 0;
}

/* {"ids": [...]} -> {"text": ...} */
static int decode_line(const struct pva_tokenizer *t, const json_t *line, FILE *out, struct pva_error *err) {
    const json_t *list = json_object_get(line, "ids");
    char *text = NULL;
    size_t n;
    if (!json_is_array(list)) return pva_fail(err, PVA_INPUT, "expected {\"ids\": [...]}");
    int32_t *ids = malloc((json_array_size(list) + 1) * sizeof *ids);
    if (!ids) return pva_fail(err, PVA_IO, "out of memory");
    if (!read_ids(list, ids, err)) pva_tokenizer_decode(t, ids, json_array_size(list), &text, &n, err);
    free(ids);
    if (err->code) return err->code;
    json_t *value = json_stringn(text, n);
    free(text);
    if (!value) return pva_fail(err, PVA_INPUT, "the tokens do not make a UTF-8 text");
    json_t *object = json_pack("{s:o}", "text", value);
    int failed = !object || json_dumpf(object, out, 0);
    json_decref(object);
    if (failed) return pva_fail(err, PVA_IO, "cannot write: %s", strerror(errno));
    fputc('\n', out);
    return 0;
}

static int is_blank(const char *line, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n", line[i]) || !line[i]) return 0;
    return 1;
}

int pva_tokenizer_lines(const struct pva_tokenizer *t, FILE *in, const char *name, FILE *out,
                        enum pva_tokenizer_direction direction, int add_bos, int64_t *n_lines, struct pva_error *err) {
    char *line = NULL;
    size_t capacity = 0;
    int64_t number = 0;
    *n_lines = 0;
    if (add_bos && pva_tokenizer_bos(t) < 0)
        return pva_fail(err, PVA_INPUT, "the tokenizer has no token for the beginning of a text");
    for (ssize_t n; !err->code && (n = getline(&line, &capacity, in)) >= 0;) {
        json_error_t why;
        number++;
        if (is_blank(line, (size_t)n)) continue;
        json_t *record = json_loadb(line, (size_t)n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
        if (!record) pva_fail(err, PVA_INPUT, "column %d: not valid JSON: %s", why.column, why.text);
        else if (direction == PVA_TO_TEXT) decode_line(t, record, out, err);
        else encode_line(t, record, add_bos, out, err);
        json_decref(record);
        if (err->code) pva_error_prefix(err, "%s: line %" PRId64, name, number);
        else if (ferror(out)) pva_fail(err, PVA_IO, "cannot write: %s", strerror(errno));
        else ++*n_lines;
    }
    free(line);
    if (!err->code && ferror(in))
        pva_fail(err, PVA_IO, "%s: line %" PRId64 ": cannot read: %s", name, number + 1, strerror(errno));
    if (!err->code && fflush(out)) pva_fail(err, PVA_IO, "cannot write: %s", strerror(errno));
    return err->code;
}
