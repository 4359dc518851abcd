/* --config FILE.yaml in, --show-config out, both by libyaml. The file is one mapping: option names to scalars, or to lists of
 * scalars for options that may be given several times. */
#include "options_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { CONFIG_MAX_BYTES = 1 << 20 };

struct reader {
    struct pva_options *options;
    const char *path;
    const unsigned char *text; /* [n_bytes] */
    size_t n_bytes;
    yaml_parser_t parser;
    yaml_event_t event; /* the current one; next() releases the last */
    int has_event;
};

static int line_of(const struct reader *r) { return (int)r->event.start_mark.line + 1; }

static int next(struct reader *r, struct pva_error *err) {
    if (r->has_event) yaml_event_delete(&r->event);
    r->has_event = yaml_parser_parse(&r->parser, &r->event);
    if (r->has_event) return 0;
    if (r->parser.error == YAML_MEMORY_ERROR) return pva_fail(err, PVA_IO, "%s: out of memory", r->path);
    size_t line = r->parser.problem_mark.line + 1;
    if (r->parser.error == YAML_READER_ERROR) { /* below the level of lines: the library gives an offset */
        line = 1;
        for (size_t i = 0; i < r->n_bytes && i < r->parser.problem_offset; i++) line += r->text[i] == '\n';
    }
    const char *context = r->parser.context ? r->parser.context : "",
               *problem = r->parser.problem ? r->parser.problem : "not YAML";
    return pva_fail(err, PVA_INPUT, "%s:%zu: not valid YAML: %s%s%s", r->path, line, context, *context ? ": " : "", problem);
}

static int wrong(const struct reader *r, struct pva_error *err, const char *what) {
    return pva_fail(err, PVA_INPUT, "%s:%d: %s", r->path, line_of(r), what);
}

/* A plain, empty or "null" scalar is YAML's way to say nothing; quoted, the same text is text. */
static int is_nothing(const yaml_event_t *e) {
    const char *text = (const char *)e->data.scalar.value;
    if (e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) return 0;
    return !*text || !strcmp(text, "~") || !strcmp(text, "null") || !strcmp(text, "Null") || !strcmp(text, "NULL");
}

/* The current event as the text of one value. */
static int scalar(struct reader *r, const char *key, const char **text, struct pva_error *err) {
    const yaml_event_t *e = &r->event;
    const char *fault = NULL;
    if (e->type == YAML_ALIAS_EVENT) fault = "an alias stands where a value is expected; write the value out";
    else if (e->type != YAML_SCALAR_EVENT) fault = "a mapping or a list stands where one value is expected";
    else if (e->data.scalar.tag) fault = "a tag stands before the value; values need none";
    else if (memchr(e->data.scalar.value, 0, e->data.scalar.length)) fault = "the value holds a zero byte";
    else if (is_nothing(e)) fault = "there is no value; remove the line to leave the option unset";
    if (fault) return pva_fail(err, PVA_INPUT, "%s:%d: %s: %s", r->path, line_of(r), key, fault);
    *text = (const char *)e->data.scalar.value;
    return 0;
}

static int assign(struct reader *r, struct setting *s, struct pva_error *err) {
    const char *text = NULL;
    int status = scalar(r, s->spec->name, &text, err);
    if (status) return status;
    struct pva_error problem = {0};
    if (!options_assign(s, FROM_CONFIG, text, &problem)) return 0;
    int code = problem.code == PVA_USAGE ? PVA_INPUT : problem.code;
    return pva_fail(err, code, "%s:%d: %s: %s", r->path, line_of(r), s->spec->name, problem.msg);
}

static int read_value(struct reader *r, struct setting *s, struct pva_error *err) {
    if (r->event.type != YAML_SEQUENCE_START_EVENT) return assign(r, s, err);
    if (s->spec->type != PVA_OPT_LIST)
        return pva_fail(err, PVA_INPUT, "%s:%d: %s takes one value, not a list", r->path, line_of(r), s->spec->name);
    options_assign_empty_list(s, FROM_CONFIG);
    for (;;) {
        int status = next(r, err);
        if (status || r->event.type == YAML_SEQUENCE_END_EVENT) return status;
        if ((status = assign(r, s, err))) return status;
    }
}

/* The current event is a key. */
static int read_pair(struct reader *r, struct pva_error *err) {
    if (r->event.type != YAML_SCALAR_EVENT) return wrong(r, err, "the name of an option is expected");
    const char *key = (const char *)r->event.data.scalar.value;
    struct setting *s = options_find(r->options, key);
    if (!s) {
        const char *near = options_nearest(r->options, key);
        int useful = near && options_find(r->options, near);
        return pva_fail(err, PVA_INPUT, "%s:%d: %s has no option \"%s\"%s%s%s", r->path, line_of(r), r->options->command, key,
                        useful ? "; did you mean \"" : "", useful ? near : "", useful ? "\"?" : "");
    }
    if (s->config_line)
        return pva_fail(err, PVA_INPUT, "%s:%d: %s is already set in line %d", r->path, line_of(r), s->spec->name,
                        s->config_line);
    s->config_line = line_of(r);
    int status = next(r, err);
    return status ? status : read_value(r, s, err);
}

static int read_document(struct reader *r, struct pva_error *err) {
    int status = next(r, err); /* the stream's start */
    if (!status) status = next(r, err);
    if (status || r->event.type == YAML_STREAM_END_EVENT) return status; /* nothing but comments */
    if ((status = next(r, err))) return status;
    if (r->event.type == YAML_MAPPING_START_EVENT) {
        while (!(status = next(r, err)) && r->event.type != YAML_MAPPING_END_EVENT)
            if ((status = read_pair(r, err))) return status;
        if (status) return status;
    } else if (r->event.type != YAML_SCALAR_EVENT || !is_nothing(&r->event)) {
        return wrong(r, err, "expected lines of the form \"option: value\"");
    }
    if ((status = next(r, err)) || (status = next(r, err))) return status; /* the document's end, and what follows */
    if (r->event.type != YAML_STREAM_END_EVENT) return wrong(r, err, "a second document starts here; one is expected");
    return 0;
}

static int read_file(const char *path, unsigned char **text, size_t *n_bytes, struct pva_error *err) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        int code = errno == ENOENT || errno == ENOTDIR ? PVA_INPUT : PVA_IO;
        return pva_fail(err, code, "--config %s: %s", path, strerror(errno));
    }
    *text = malloc(CONFIG_MAX_BYTES + 1);
    *n_bytes = *text ? fread(*text, 1, CONFIG_MAX_BYTES + 1, f) : 0;
    int status = 0;
    if (!*text) status = pva_fail(err, PVA_IO, "--config %s: out of memory", path);
    else if (ferror(f)) status = pva_fail(err, errno == EISDIR ? PVA_INPUT : PVA_IO, "--config %s: %s", path, strerror(errno));
    else if (*n_bytes > CONFIG_MAX_BYTES)
        status = pva_fail(err, PVA_INPUT, "--config %s: larger than 1 MiB, which no set of options is", path);
    fclose(f);
    return status;
}

int options_read_config(struct pva_options *o, const char *path, struct pva_error *err) {
    unsigned char *text = NULL;
    size_t n_bytes = 0;
    int status = read_file(path, &text, &n_bytes, err);
    if (!status) {
        struct reader r = {.options = o, .path = path, .text = text, .n_bytes = n_bytes};
        if (yaml_parser_initialize(&r.parser)) {
            yaml_parser_set_input_string(&r.parser, text, n_bytes);
            status = read_document(&r, err);
            if (r.has_event) yaml_event_delete(&r.event);
            yaml_parser_delete(&r.parser);
        } else {
            status = pva_fail(err, PVA_IO, "%s: out of memory", path);
        }
    }
    free(text);
    return status;
}

/* Emits one event; the emitter owns it from then on. */
static int emit(yaml_emitter_t *emitter, int initialised, yaml_event_t *event) {
    return initialised && yaml_emitter_emit(emitter, event);
}

static int emit_scalar(yaml_emitter_t *emitter, const char *text, yaml_scalar_style_t style) {
    yaml_event_t e;
    int ok = yaml_scalar_event_initialize(&e, NULL, NULL, (const yaml_char_t *)text, (int)strlen(text), 1, 1, style);
    return emit(emitter, ok, &e);
}

static int emit_setting(yaml_emitter_t *emitter, const struct setting *s) {
    enum pva_option_type type = s->spec->type;
    /* Quoted, so that a text like "no" or "12" stays one for every reader of YAML. */
    int is_text = type == PVA_OPT_TEXT || type == PVA_OPT_LIST || type == PVA_OPT_CHOICE;
    yaml_scalar_style_t style = is_text ? YAML_DOUBLE_QUOTED_SCALAR_STYLE : YAML_PLAIN_SCALAR_STYLE;
    yaml_event_t e;
    if (!emit_scalar(emitter, s->spec->name, YAML_PLAIN_SCALAR_STYLE)) return 0;
    if (type != PVA_OPT_LIST) return emit_scalar(emitter, s->items[0], style);
    if (!emit(emitter, yaml_sequence_start_event_initialize(&e, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE), &e)) return 0;
    for (size_t i = 0; i < s->n_items; i++)
        if (!emit_scalar(emitter, s->items[i], style)) return 0;
    return emit(emitter, yaml_sequence_end_event_initialize(&e), &e);
}

/* A list that the user emptied is a value, unlike one that nobody gave. */
static int has_value(const struct setting *s) { return s->n_items > 0 || s->source > FROM_FALLBACK; }

static int emit_all(yaml_emitter_t *emitter, const struct pva_options *o) {
    yaml_event_t e;
    if (!emit(emitter, yaml_stream_start_event_initialize(&e, YAML_UTF8_ENCODING), &e)) return 0;
    if (!emit(emitter, yaml_document_start_event_initialize(&e, NULL, NULL, NULL, 1), &e)) return 0;
    if (!emit(emitter, yaml_mapping_start_event_initialize(&e, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE), &e)) return 0;
    for (size_t i = 0; i < o->n_settings; i++)
        if (has_value(&o->settings[i]) && !emit_setting(emitter, &o->settings[i])) return 0;
    if (!emit(emitter, yaml_mapping_end_event_initialize(&e), &e)) return 0;
    if (!emit(emitter, yaml_document_end_event_initialize(&e, 1), &e)) return 0;
    return emit(emitter, yaml_stream_end_event_initialize(&e), &e) && yaml_emitter_flush(emitter);
}

void pva_options_print_config(const struct pva_options *o, FILE *out) {
    fprintf(out, "# %s\n", o->command);
    for (size_t i = 0; i < o->n_settings; i++)
        if (!has_value(&o->settings[i])) fprintf(out, "# %s: unset\n", o->settings[i].spec->name);
    yaml_emitter_t emitter;
    PVA_ASSERT(yaml_emitter_initialize(&emitter));
    yaml_emitter_set_output_file(&emitter, out);
    yaml_emitter_set_unicode(&emitter, 1);
    yaml_emitter_set_width(&emitter, -1);
    /* What can fail here is the writing, which the caller sees by ferror(out), and memory. */
    if (!emit_all(&emitter, o)) PVA_ASSERT(emitter.error == YAML_WRITER_ERROR);
    yaml_emitter_delete(&emitter);
}
