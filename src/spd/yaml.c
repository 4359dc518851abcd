#include "yaml.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_DEPTH = 16, MAX_BYTES = 1 << 20 };

struct reader {
    yaml_parser_t parser;
    yaml_event_t event;
    int has_event;
    const char *name;
    json_t *lines;
    struct pva_error *err;
};

static int next(struct reader *r) {
    if (r->has_event) yaml_event_delete(&r->event);
    r->has_event = yaml_parser_parse(&r->parser, &r->event);
    if (r->has_event) return PVA_OK;
    return pva_fail(r->err, PVA_INPUT, "%s:%zu: not valid YAML: %s", r->name, r->parser.problem_mark.line + 1,
                    r->parser.problem ? r->parser.problem : "unreadable");
}

static int wrong(struct reader *r, const char *what) {
    return pva_fail(r->err, PVA_INPUT, "%s:%zu: %s", r->name, r->event.start_mark.line + 1, what);
}

static int among(const char *text, const char *list) { /* list: words, each followed by a blank */
    size_t n = strlen(text);
    for (const char *p = list; *p; p += strcspn(p, " ") + 1)
        if (strcspn(p, " ") == n && !memcmp(p, text, n)) return 1;
    return 0;
}

static json_t *scalar(const yaml_event_t *e) {
    const char *text = (const char *)e->data.scalar.value;
    size_t n = e->data.scalar.length;
    if (e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) return json_stringn(text, n);
    if (!n || among(text, "~ null Null NULL ")) return json_null();
    if (among(text, "true True TRUE ")) return json_true();
    if (among(text, "false False FALSE ")) return json_false();
    if (strspn(text, "+-.0123456789eE_") == n && strspn(text, "+-.eE_") < n) {
        char clean[64], *end;
        size_t k = 0;
        for (size_t i = 0; i < n && k + 1 < sizeof clean; i++)
            if (text[i] != '_') clean[k++] = text[i]; /* 40_000, as Python's YAML reads it */
        clean[k] = 0;
        errno = 0;
        long long whole = strtoll(clean, &end, 10);
        if (!*end && !errno) return json_integer(whole);
        double number = strtod(clean, &end);
        if (!*end && isfinite(number)) return json_real(number);
    }
    return json_stringn(text, n);
}

/* The current event is the first of a value. */
static int value(struct reader *r, const char *path, int depth, json_t **out) {
    yaml_event_t *e = &r->event;
    if (depth > MAX_DEPTH) return wrong(r, "nested too deeply");
    if (e->type == YAML_ALIAS_EVENT) return wrong(r, "an alias stands where a value is expected; write the value out");
    if (e->type == YAML_SCALAR_EVENT) {
        if (e->data.scalar.tag) return wrong(r, "a tag stands before the value; values need none");
        if (memchr(e->data.scalar.value, 0, e->data.scalar.length)) return wrong(r, "the value holds a zero byte");
        *out = scalar(e);
        return *out ? PVA_OK : wrong(r, "the text is not UTF-8");
    }
    int status = PVA_OK;
    if (e->type == YAML_SEQUENCE_START_EVENT) {
        *out = json_array();
        while (!(status = next(r)) && e->type != YAML_SEQUENCE_END_EVENT) {
            json_t *item = NULL;
            char inner[512];
            snprintf(inner, sizeof inner, "%.460s[%zu]", path, json_array_size(*out));
            if ((status = value(r, inner, depth + 1, &item))) {
                json_decref(item);
                break;
            }
            json_array_append_new(*out, item);
        }
        return status;
    }
    if (e->type != YAML_MAPPING_START_EVENT) return wrong(r, "a value is expected");
    *out = json_object();
    while (!(status = next(r)) && e->type != YAML_MAPPING_END_EVENT) {
        if (e->type != YAML_SCALAR_EVENT) return wrong(r, "a key is expected");
        char key[200], inner[512];
        if (e->data.scalar.length >= sizeof key || memchr(e->data.scalar.value, 0, e->data.scalar.length))
            return wrong(r, "this key is too long");
        snprintf(key, sizeof key, "%s", (const char *)e->data.scalar.value);
        snprintf(inner, sizeof inner, "%.250s%s%s", path, *path ? "." : "", key);
        if (json_object_get(*out, key)) return wrong(r, "this key stands twice");
        json_object_set_new(r->lines, inner, json_integer((json_int_t)e->start_mark.line + 1));
        json_t *item = NULL;
        if ((status = next(r)) || (status = value(r, inner, depth + 1, &item))) return json_decref(item), status;
        if (json_object_set_new(*out, key, item)) return wrong(r, "this key is not UTF-8");
    }
    return status;
}

int spd_yaml_parse(const char *text, const char *name, json_t **out, json_t **lines, struct pva_error *err) {
    struct reader r = {.name = name, .err = err, .lines = json_object()};
    *out = NULL;
    if (lines) *lines = NULL;
    if (!yaml_parser_initialize(&r.parser)) return pva_fail(err, PVA_IO, "%s: out of memory", name);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, strlen(text));
    int status = next(&r);
    if (!status) status = next(&r);
    if (!status && r.event.type == YAML_STREAM_END_EVENT) status = pva_fail(err, PVA_INPUT, "%s: nothing is in it", name);
    if (!status) status = next(&r);
    if (!status) status = value(&r, "", 0, out);
    if (!status) status = next(&r);
    if (!status) status = next(&r);
    if (!status && r.event.type != YAML_STREAM_END_EVENT) status = wrong(&r, "a second document starts here; one is expected");
    if (r.has_event) yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    if (status) json_decref(*out), *out = NULL;
    if (lines && !status) *lines = r.lines;
    else json_decref(r.lines);
    return status;
}

int spd_yaml_read(const char *path, json_t **out, json_t **lines, struct pva_error *err) {
    *out = NULL;
    FILE *f = fopen(path, "rb");
    if (!f) return pva_fail(err, errno == ENOENT || errno == ENOTDIR ? PVA_INPUT : PVA_IO, "%s: %s", path, strerror(errno));
    char *text = malloc(MAX_BYTES + 1);
    size_t n = text ? fread(text, 1, MAX_BYTES, f) : 0;
    int status = PVA_OK;
    if (!text) status = pva_fail(err, PVA_IO, "%s: out of memory", path);
    else if (ferror(f)) status = pva_fail(err, PVA_INPUT, "%s: %s", path, strerror(errno));
    else if (n == MAX_BYTES) status = pva_fail(err, PVA_INPUT, "%s: larger than 1 MiB, which no settings are", path);
    else if (memchr(text, 0, n)) status = pva_fail(err, PVA_INPUT, "%s: holds a zero byte", path);
    fclose(f);
    if (!status) {
        text[n] = 0;
        status = spd_yaml_parse(text, path, out, lines, err);
    }
    free(text);
    return status;
}

static int needs_quotes(const char *text) {
    if (!*text || strspn(text, "+-.0123456789eE_") == strlen(text)) return 1;
    if (among(text, "~ null Null NULL true True TRUE false False FALSE yes no on off y n Yes No On Off YES NO ON OFF Y N "))
        return 1;
    if (strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./") != strlen(text)) return 1;
    return strchr("-.?", text[0]) != NULL;
}

static void print(FILE *f, const json_t *v, int indent, int in_list) {
    if (json_is_object(v) && json_object_size(v)) {
        const char *key;
        json_t *item;
        int first = 1;
        json_object_foreach((json_t *)v, key, item) {
            if (!(first && in_list)) fprintf(f, "%*s", indent, "");
            first = 0;
            fprintf(f, "%s:", key);
            int nested = (json_is_object(item) && json_object_size(item)) || (json_is_array(item) && json_array_size(item));
            fputs(nested ? "\n" : " ", f);
            print(f, item, nested ? indent + 2 : 0, 0);
        }
    } else if (json_is_array(v) && json_array_size(v)) {
        size_t i;
        json_t *item;
        json_array_foreach((json_t *)v, i, item) {
            fprintf(f, "%*s- ", indent, "");
            int block = json_is_array(item) && json_array_size(item);
            if (block) { /* a list in a list: in one line */
                json_dumpf(item, f, JSON_REAL_PRECISION(17) | JSON_COMPACT);
                fputc('\n', f);
            } else {
                print(f, item, indent + 2, 1);
            }
        }
    } else if (json_is_string(v) && !needs_quotes(json_string_value(v))) {
        fprintf(f, "%s\n", json_string_value(v));
    } else if (json_is_real(v)) { /* the shortest text that reads back to the same number, with a point so that it stays a real */
        char text[40];
        int digits = 1;
        do snprintf(text, sizeof text, "%.*g", digits, json_real_value(v));
        while (strtod(text, NULL) != json_real_value(v) && digits++ < 17);
        char *e = strchr(text, 'e');
        if (strchr(text, '.')) fprintf(f, "%s\n", text);
        else if (e) fprintf(f, "%.*s.0%s\n", (int)(e - text), text, e);
        else fprintf(f, "%s.0\n", text);
    } else {
        json_dumpf(v, f, JSON_ENCODE_ANY | JSON_COMPACT);
        fputc('\n', f);
    }
}

char *spd_yaml_print(const json_t *value) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f) return NULL;
    print(f, value, 0, 0);
    if (fclose(f)) free(text), text = NULL;
    return text;
}

int spd_yaml_fail(const json_t *lines, const char *name, const char *path, struct pva_error *err, const char *fmt, ...) {
    char text[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    const json_t *line = json_object_get(lines, path);
    if (line) return pva_fail(err, PVA_INPUT, "%s:%lld: %s: %s", name, (long long)json_integer_value(line), path, text);
    return pva_fail(err, PVA_INPUT, "%s: %s: %s", name, path, text);
}
