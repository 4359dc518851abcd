/* The order of things: table defaults, then the command line, which names the config file, then environment and file. Each
 * value remembers its source, so the order of reading does not decide who wins. */
#include "options_private.h"
#include "pva/log.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

enum { VARIABLE_BYTES = 64 };

/* --batch-size is PVA_BATCH_SIZE in the environment. */
static void variable_name(const char *option, char out[VARIABLE_BYTES]) {
    int n = snprintf(out, VARIABLE_BYTES, "PVA_%s", option);
    PVA_ASSERT(n > 0 && n < VARIABLE_BYTES);
    for (char *p = out + 4; *p; p++) *p = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
}

static int out_of_memory(struct pva_error *err) { return pva_fail(err, PVA_IO, "out of memory while reading the options"); }

static int append(char ***items, size_t *n, const char *text, struct pva_error *err) {
    char *copy = strdup(text), **grown = realloc(*items, (*n + 1) * sizeof **items);
    if (grown) *items = grown;
    if (!copy || !grown) {
        free(copy);
        return out_of_memory(err);
    }
    grown[(*n)++] = copy;
    return 0;
}

static void clear(char ***items, size_t *n) {
    for (size_t i = 0; i < *n; i++) free((*items)[i]);
    free(*items);
    *items = NULL;
    *n = 0;
}

struct setting *options_find(const struct pva_options *o, const char *name) {
    for (size_t i = 0; i < o->n_settings; i++)
        if (!strcmp(o->settings[i].spec->name, name)) return &o->settings[i];
    return NULL;
}

int options_assign(struct setting *s, enum option_source source, const char *text, struct pva_error *err) {
    struct setting value = *s;
    int status = options_parse_value(&value, text, err);
    if (status || source < s->source) return status;
    if (s->spec->type != PVA_OPT_LIST || source > s->source) clear(&s->items, &s->n_items);
    s->source = source;
    s->integer = value.integer, s->real = value.real, s->bytes = value.bytes;
    if (s->spec->type == PVA_OPT_FLAG) text = s->integer ? "yes" : "no";
    return append(&s->items, &s->n_items, text, err);
}

void options_assign_empty_list(struct setting *s, enum option_source source) {
    if (source < s->source) return;
    clear(&s->items, &s->n_items);
    s->source = source;
}

/* Mistakes in a table are bugs of the program, found by the first run of the command. */
static void check_spec(const struct pva_options *o, const struct pva_option *spec) {
    PVA_ASSERT(!options_find(o, spec->name));
    PVA_ASSERT(strcmp(spec->name, "help") && strcmp(spec->name, "config") && strcmp(spec->name, "show-config"));
    PVA_ASSERT((spec->type == PVA_OPT_CHOICE) == (spec->choices != NULL));
    PVA_ASSERT(spec->help && (spec->argument || spec->type == PVA_OPT_FLAG || spec->type == PVA_OPT_CHOICE));
    PVA_ASSERT(spec->min <= spec->max);
}

static int create(const char *command, const struct pva_option *const *tables, struct pva_options **out, struct pva_error *err) {
    size_t n = 0;
    for (size_t t = 0; tables[t]; t++)
        for (const struct pva_option *spec = tables[t]; spec->name; spec++) n++;
    struct pva_options *o = calloc(1, sizeof *o);
    if (!o) return out_of_memory(err);
    *out = o;
    o->command = strdup(command);
    o->settings = calloc(n + 1, sizeof *o->settings);
    if (!o->command || !o->settings) return out_of_memory(err);
    for (size_t t = 0; tables[t]; t++)
        for (const struct pva_option *spec = tables[t]; spec->name; spec++) {
            check_spec(o, spec);
            struct setting *s = &o->settings[o->n_settings++];
            s->spec = spec;
            if (!spec->fallback) continue;
            int status = options_assign(s, FROM_FALLBACK, spec->fallback, err);
            PVA_ASSERT(status == 0 || status == PVA_IO);
            if (status) return status;
        }
    return 0;
}

static int unknown_option(const struct pva_options *o, const char *given, const char *name, struct pva_error *err) {
    const char *near = options_nearest(o, name);
    if (near) return pva_fail(err, PVA_USAGE, "unknown option %s; did you mean --%s?", given, near);
    return pva_fail(err, PVA_USAGE, "unknown option %s; %s --help lists what there is", given, o->command);
}

/* argv[*i] starts with "--"; *i moves on when the next word is its value. */
static int read_long_option(struct pva_options *o, int argc, char **argv, int *i, struct pva_error *err) {
    const char *word = argv[*i], *equals = strchr(word, '=');
    char name[128], given[132];
    size_t n = equals ? (size_t)(equals - word) - 2 : strlen(word) - 2;
    if (n >= sizeof name) return pva_fail(err, PVA_USAGE, "unknown option %.100s...", word);
    memcpy(name, word + 2, n);
    name[n] = 0;
    snprintf(given, sizeof given, "--%s", name);

    int is_config = !strcmp(name, "config"), is_show = !strcmp(name, "show-config"), negated = 0;
    struct setting *s = options_find(o, name);
    if (!s && !strncmp(name, "no-", 3)) {
        s = options_find(o, name + 3);
        if (s && s->spec->type != PVA_OPT_FLAG) s = NULL;
        negated = s != NULL;
    }
    if (!s && !is_config && !is_show) return unknown_option(o, given, name, err);

    if (is_show || (s && s->spec->type == PVA_OPT_FLAG)) {
        if (equals && s)
            return pva_fail(err, PVA_USAGE, "%s takes no value; --%s or --no-%s", given, s->spec->name, s->spec->name);
        if (equals) return pva_fail(err, PVA_USAGE, "%s takes no value", given);
        if (is_show) return o->show_config = 1, 0;
        return options_assign(s, FROM_COMMAND, negated ? "no" : "yes", err);
    }

    const char *value = equals ? equals + 1 : *i + 1 < argc ? argv[*i + 1] : NULL;
    if (!value) return pva_fail(err, PVA_USAGE, "%s needs a value", given);
    if (!equals) {
        /* Taking the next option as a value would hide that one was forgotten. */
        if (!strncmp(value, "--", 2))
            return pva_fail(err, PVA_USAGE, "%s needs a value, but %s follows; write %s=%s if it is the value", given, value,
                            given, value);
        ++*i;
    }
    if (is_config) {
        free(o->config);
        o->config = strdup(value);
        return o->config ? 0 : out_of_memory(err);
    }
    if (options_assign(s, FROM_COMMAND, value, err)) return pva_error_prefix(err, "%s", given);
    return 0;
}

static int read_command_line(struct pva_options *o, int argc, char **argv, struct pva_error *err) {
    int only_positional = 0, status = 0;
    for (int i = 1; i < argc && !status; i++) {
        const char *word = argv[i];
        if (only_positional || word[0] != '-' || !word[1]) status = append(&o->positional, &o->n_positional, word, err);
        else if (!strcmp(word, "--")) only_positional = 1;
        else if (word[1] == '-') status = read_long_option(o, argc, argv, &i, err);
        else status = unknown_option(o, word, word + 1, err);
    }
    return status;
}

static int read_environment(struct pva_options *o, struct pva_error *err) {
    char name[VARIABLE_BYTES];
    const char *value = getenv("PVA_CONFIG");
    if (!o->config && value && *value && !(o->config = strdup(value))) return out_of_memory(err);
    for (size_t i = 0; i < o->n_settings; i++) {
        variable_name(o->settings[i].spec->name, name);
        value = getenv(name);
        if (value && *value && options_assign(&o->settings[i], FROM_ENVIRONMENT, value, err))
            return pva_error_prefix(err, "%s", name);
    }
    return 0;
}

/* A variable of ours that no option of this command reads may belong to another command, or be a slip of the pen. */
static void warn_of_unread_variables(const struct pva_options *o) {
    for (char **entry = environ; *entry; entry++) {
        size_t n = strcspn(*entry, "=");
        char name[VARIABLE_BYTES], known[VARIABLE_BYTES], option[VARIABLE_BYTES];
        if (strncmp(*entry, "PVA_", 4) || !strncmp(*entry, "PVA_TEST_", 9) || n >= sizeof name) continue;
        memcpy(name, *entry, n);
        name[n] = 0;
        int read = !strcmp(name, "PVA_MPI") || !strcmp(name, "PVA_CONFIG");
        for (size_t i = 0; i < o->n_settings && !read; i++) {
            variable_name(o->settings[i].spec->name, known);
            read = !strcmp(name, known);
        }
        if (read) continue;
        for (size_t i = 4; i <= n; i++) option[i - 4] = name[i] == '_' ? '-' : (char)tolower((unsigned char)name[i]);
        const char *near = options_nearest(o, option);
        if (near && options_find(o, near)) variable_name(near, known);
        else near = NULL;
        pva_log(PVA_LOG_WARNING, "%s: the environment sets %s, which is no option of this command%s%s%s", o->command, name,
                near ? "; did you mean " : "", near ? known : "", near ? "?" : "");
    }
}

/* Help is given whatever else is wrong. A value that starts with two dashes needs "=", so this word is never one. */
static int asks_for_help(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--help") || (i == 1 && !strcmp(argv[i], "-h"))) return 1;
    return 0;
}

int pva_options_parse(const char *command, const struct pva_option *const *tables, int argc, char **argv,
                      struct pva_options **out, struct pva_error *err) {
    struct pva_options *o = NULL;
    *out = NULL;
    int status = create(command, tables, &o, err);
    if (!status && asks_for_help(argc, argv)) {
        o->help = 1;
        *out = o;
        return 0;
    }
    if (!status) status = read_command_line(o, argc, argv, err);
    if (!status) status = read_environment(o, err);
    if (!status && o->config) status = options_read_config(o, o->config, err);
    if (status) {
        pva_options_free(&o);
        return status;
    }
    warn_of_unread_variables(o);
    *out = o;
    return 0;
}

int pva_options_read_file(const char *command, const struct pva_option *const *tables, const char *path, struct pva_options **out,
                          struct pva_error *err) {
    struct pva_options *o = NULL;
    *out = NULL;
    if (create(command, tables, &o, err) || options_read_config(o, path, err)) pva_options_free(&o);
    *out = o;
    return err->code;
}

int pva_options_set(struct pva_options *o, const char *name, const char *value, struct pva_error *err) {
    struct setting *s = options_find(o, name);
    PVA_ASSERT(s);
    char *copy = strdup(value); /* it may be the option's own present text */
    if (!copy) return out_of_memory(err);
    if (options_assign(s, FROM_COMMAND, copy, err)) pva_error_prefix(err, "%s", name);
    free(copy);
    return err->code;
}

void pva_options_free(struct pva_options **options) {
    struct pva_options *o = *options;
    *options = NULL;
    if (!o) return;
    for (size_t i = 0; i < o->n_settings; i++) clear(&o->settings[i].items, &o->settings[i].n_items);
    clear(&o->positional, &o->n_positional);
    free(o->settings);
    free(o->command);
    free(o->config);
    free(o);
}

static const struct setting *get(const struct pva_options *o, const char *name) {
    const struct setting *s = options_find(o, name);
    PVA_ASSERT(s);
    return s;
}

static const struct setting *get_typed(const struct pva_options *o, const char *name, enum pva_option_type type) {
    const struct setting *s = get(o, name);
    PVA_ASSERT(s->spec->type == type);
    return s;
}

const char *pva_options_text(const struct pva_options *o, const char *name) {
    const struct setting *s = get(o, name);
    PVA_ASSERT(s->spec->type != PVA_OPT_LIST);
    return s->n_items ? s->items[0] : NULL;
}

int pva_options_is_set(const struct pva_options *o, const char *name) { return get(o, name)->source > FROM_FALLBACK; }
int64_t pva_options_int(const struct pva_options *o, const char *name) { return get_typed(o, name, PVA_OPT_INT)->integer; }
double pva_options_real(const struct pva_options *o, const char *name) { return get_typed(o, name, PVA_OPT_REAL)->real; }
int pva_options_flag(const struct pva_options *o, const char *name) { return (int)get_typed(o, name, PVA_OPT_FLAG)->integer; }
size_t pva_options_bytes(const struct pva_options *o, const char *name) { return get_typed(o, name, PVA_OPT_BYTES)->bytes; }

size_t pva_options_list(const struct pva_options *o, const char *name, const char *const **items) {
    const struct setting *s = get_typed(o, name, PVA_OPT_LIST);
    *items = (const char *const *)s->items;
    return s->n_items;
}

size_t pva_options_positional(const struct pva_options *o, const char *const **items) {
    *items = (const char *const *)o->positional;
    return o->n_positional;
}

int pva_options_require(const struct pva_options *o, const char *name, struct pva_error *err) {
    const struct setting *s = get(o, name);
    if (s->n_items) return 0;
    char variable[VARIABLE_BYTES];
    variable_name(name, variable);
    return pva_fail(err, PVA_USAGE, "--%s is needed: %s (or %s in the environment, or \"%s:\" in --config)", name, s->spec->help,
                    variable, name);
}

int pva_options_wants_help(const struct pva_options *o) { return o->help; }
int pva_options_wants_config(const struct pva_options *o) { return o->show_config; }
