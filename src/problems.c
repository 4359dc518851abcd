#include "pva/problems.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#define FILE_MAX ((size_t)1 << 30)

struct pva_problems {
    struct pva_problem *all; /* [n], in file order */
    size_t n, room;
    size_t *by_id; /* [n] indices in order of task id, for look-up and for finding repetitions */
};

/* ---- Files ---- */

int pva_read_text(const char *path, char **text, size_t *n_bytes, struct pva_error *err) {
    *text = NULL;
    errno = 0;
    gzFile f = gzopen(path, "rb"); /* reads a plain file as it is */
    if (!f) return pva_fail(err, PVA_INPUT, "%s: cannot open: %s", path, errno ? strerror(errno) : "out of memory");
    size_t used = 0, room = 0;
    int rc = PVA_OK;
    for (;;) {
        if (room - used < 65536) {
            size_t more = room ? 2 * room : 1 << 20;
            char *grown = realloc(*text, more + 1);
            if (!grown) {
                rc = pva_fail(err, PVA_IO, "%s: out of memory after %zu bytes", path, used);
                break;
            }
            *text = grown;
            room = more;
        }
        int n = gzread(f, *text + used, 65536), code;
        if (n < 0 || (n == 0 && !gzeof(f))) {
            const char *why = gzerror(f, &code);
            rc = pva_fail(err, PVA_INPUT, "%s: cannot read after %zu bytes: %s", path, used,
                          code == Z_ERRNO ? strerror(errno) : why);
            break;
        }
        if (n == 0) break;
        used += (size_t)n;
        if (used > FILE_MAX) {
            rc = pva_fail(err, PVA_INPUT, "%s: more than 1 GiB of text", path);
            break;
        }
    }
    int direct = gzdirect(f), closed = gzclose_r(f); /* a compressed file that ends early is found out here */
    if (!rc && closed != Z_OK)
        rc = pva_fail(err, PVA_INPUT, "%s: %s", path,
                      direct ? "cannot read to the end" : "the compressed file ends early or is damaged");
    if (rc) {
        free(*text);
        *text = NULL;
        return rc;
    }
    (*text)[used] = 0;
    *n_bytes = used;
    return PVA_OK;
}

/* ---- One record ---- */

static const char *type_name(const json_t *v) {
    static const char *const names[] = {"an object", "an array", "a string", "a number", "a number", "true", "false", "null"};
    return v ? names[json_typeof(v)] : "missing";
}

static int has(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return v && !json_is_null(v);
}

/* A copy of a string without zero bytes. */
static int copy_text(const json_t *v, const char *key, char **out, struct pva_error *err) {
    if (!json_is_string(v)) return pva_fail(err, PVA_INPUT, "\"%s\" is %s, expected a string", key, type_name(v));
    if (strlen(json_string_value(v)) != json_string_length(v))
        return pva_fail(err, PVA_INPUT, "\"%s\" contains a zero byte", key);
    *out = strdup(json_string_value(v));
    return *out ? PVA_OK : pva_fail(err, PVA_IO, "out of memory");
}

static int get_text(const json_t *o, const char *key, int optional, char **out, struct pva_error *err) {
    if (optional && !has(o, key)) {
        *out = strdup("");
        return *out ? PVA_OK : pva_fail(err, PVA_IO, "out of memory");
    }
    return copy_text(json_object_get(o, key), key, out, err);
}

/* A list of strings, or a string that holds one as JSON. */
static int get_list(const json_t *o, const char *key, int optional, char ***out, size_t *n, struct pva_error *err) {
    const json_t *v = json_object_get(o, key);
    json_t *parsed = NULL;
    *out = NULL;
    *n = 0;
    if (optional && !has(o, key)) return PVA_OK;
    if (json_is_string(v)) {
        json_error_t bad;
        parsed = json_loadb(json_string_value(v), json_string_length(v), JSON_DECODE_ANY, &bad);
        if (!json_is_array(parsed)) {
            json_decref(parsed);
            return pva_fail(err, PVA_INPUT, "\"%s\" is a string that does not hold a JSON list: \"%.60s\"", key,
                            json_string_value(v));
        }
        v = parsed;
    }
    int rc = PVA_OK;
    if (!json_is_array(v)) rc = pva_fail(err, PVA_INPUT, "\"%s\" is %s, expected a list of strings", key, type_name(v));
    size_t count = json_array_size(v);
    if (!rc && count && !(*out = calloc(count, sizeof **out))) rc = pva_fail(err, PVA_IO, "out of memory");
    for (size_t i = 0; i < count && !rc; i++) {
        char item[64];
        snprintf(item, sizeof item, "%.40s[%zu]", key, i);
        rc = copy_text(json_array_get(v, i), item, &(*out)[i], err);
        if (!rc) *n = i + 1;
    }
    json_decref(parsed);
    return rc;
}

/* test_imports and test_setup_code as one text, a line each. */
static int get_setup(const json_t *o, char **out, struct pva_error *err) {
    char **imports = NULL, *code = NULL;
    size_t n = 0, size = 1;
    int rc = get_list(o, "test_imports", 1, &imports, &n, err);
    rc = rc ? rc : get_text(o, "test_setup_code", 1, &code, err);
    for (size_t i = 0; i < n; i++) size += strlen(imports[i]) + 1;
    if (!rc) {
        char *p = *out = malloc(size + strlen(code));
        if (!p) rc = pva_fail(err, PVA_IO, "out of memory");
        for (size_t i = 0; i < n && p; i++) p += sprintf(p, "%s\n", imports[i]);
        if (p) strcpy(p, code);
    }
    for (size_t i = 0; i < n; i++) free(imports[i]);
    free(imports);
    free(code);
    return rc;
}

static int get_id(const json_t *o, struct pva_problem *p, struct pva_error *err) {
    const json_t *v = json_object_get(o, "task_id");
    if (json_is_integer(v)) {
        char digits[32];
        if (json_integer_value(v) < 0) return pva_fail(err, PVA_INPUT, "\"task_id\" is negative");
        snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(v));
        p->task_id = strdup(digits);
        if (!p->task_id) return pva_fail(err, PVA_IO, "out of memory");
    } else {
        int rc = copy_text(v, "task_id", &p->task_id, err);
        if (rc) return rc;
    }
    const char *slash = strrchr(p->task_id, '/'), *digits = slash ? slash + 1 : p->task_id;
    char *end;
    errno = 0;
    long long number = isdigit((unsigned char)*digits) ? strtoll(digits, &end, 10) : -1;
    p->number = number >= 0 && !errno && !*end ? number : -1;
    return *p->task_id ? PVA_OK : pva_fail(err, PVA_INPUT, "\"task_id\" is empty");
}

static void clear(struct pva_problem *p) {
    for (size_t i = 0; i < p->n_tests; i++) free(p->tests[i]);
    for (size_t i = 0; i < p->n_challenge_tests; i++) free(p->challenge_tests[i]);
    free(p->tests), free(p->challenge_tests);
    free(p->task_id), free(p->text), free(p->code), free(p->setup), free(p->entry_point);
    memset(p, 0, sizeof *p);
}

static int read_human_eval(const json_t *o, struct pva_problem *p, struct pva_error *err) {
    char *solution = NULL;
    p->kind = PVA_HUMANEVAL;
    int rc = get_text(o, "prompt", 0, &p->text, err);
    rc = rc ? rc : get_text(o, "entry_point", 0, &p->entry_point, err);
    rc = rc ? rc : get_text(o, "canonical_solution", 1, &solution, err);
    rc = rc ? rc : get_setup(o, &p->setup, err);
    if (!rc) {
        p->code = malloc(strlen(p->text) + strlen(solution) + 1);
        p->tests = calloc(1, sizeof *p->tests);
        if (!p->code || !p->tests) rc = pva_fail(err, PVA_IO, "out of memory");
    }
    if (!rc) {
        sprintf(p->code, "%s%s", *solution ? p->text : "", solution);
        rc = get_text(o, "test", 0, &p->tests[0], err);
        if (!rc) p->n_tests = 1;
    }
    if (!rc && !*p->entry_point) rc = pva_fail(err, PVA_INPUT, "\"entry_point\" is empty");
    for (const char *c = p->entry_point; !rc && *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '_' && (unsigned char)*c < 0x80)
            rc = pva_fail(err, PVA_INPUT, "\"entry_point\" is \"%.60s\", expected a function's name", p->entry_point);
    if (!rc && !strstr(p->tests[0], "check")) rc = pva_fail(err, PVA_INPUT, "\"test\" does not define check()");
    free(solution);
    return rc;
}

static int read_mbpp(const json_t *o, struct pva_problem *p, struct pva_error *err) {
    p->kind = PVA_MBPP;
    if (!has(o, "text") && !has(o, "prompt")) return pva_fail(err, PVA_INPUT, "neither \"text\" nor \"prompt\"");
    int rc = get_text(o, has(o, "text") ? "text" : "prompt", 0, &p->text, err);
    rc = rc ? rc : get_text(o, "code", 0, &p->code, err);
    rc = rc ? rc : get_setup(o, &p->setup, err);
    rc = rc ? rc : get_list(o, "test_list", 0, &p->tests, &p->n_tests, err);
    rc = rc ? rc : get_list(o, "challenge_test_list", 1, &p->challenge_tests, &p->n_challenge_tests, err);
    if (!rc && !(p->entry_point = strdup(""))) rc = pva_fail(err, PVA_IO, "out of memory");
    if (!rc && !p->n_tests) rc = pva_fail(err, PVA_INPUT, "\"test_list\" is empty");
    return rc;
}

/* `p` is cleared again on failure. */
static int read_problem(const json_t *o, int64_t line, struct pva_problem *p, struct pva_error *err) {
    memset(p, 0, sizeof *p);
    p->line = line;
    int rc = json_is_object(o) ? get_id(o, p, err) : pva_fail(err, PVA_INPUT, "%s, expected an object", type_name(o));
    if (!rc && has(o, "entry_point") && has(o, "test")) rc = read_human_eval(o, p, err);
    else if (!rc && has(o, "test_list")) rc = read_mbpp(o, p, err);
    else if (!rc) rc = pva_fail(err, PVA_INPUT, "neither \"test_list\" (MBPP) nor \"entry_point\" and \"test\" (HumanEval)");
    if (rc) clear(p);
    return rc;
}

static int add(struct pva_problems *set, const json_t *o, int64_t line, struct pva_error *err) {
    if (set->n == set->room) {
        size_t room = set->room ? 2 * set->room : 256;
        struct pva_problem *grown = realloc(set->all, room * sizeof *grown);
        if (!grown) return pva_fail(err, PVA_IO, "out of memory");
        set->all = grown;
        set->room = room;
    }
    int rc = read_problem(o, line, &set->all[set->n], err);
    if (!rc) set->n++;
    return rc;
}

/* ---- Whole files ---- */

static int read_lines(struct pva_problems *set, const char *text, size_t n, struct pva_error *err) {
    int64_t line = 1;
    for (const char *p = text, *end = text + n; p < end; line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t length = (size_t)((stop ? stop : end) - p), blanks = 0;
        while (blanks < length && strchr(" \t\r", p[blanks]) && p[blanks]) blanks++;
        if (blanks < length) {
            json_error_t bad;
            json_t *o = json_loadb(p, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &bad);
            int rc =
                o ? add(set, o, line, err) : pva_fail(err, PVA_INPUT, "not a JSON object: %s (column %d)", bad.text, bad.column);
            json_decref(o);
            if (rc) return pva_error_prefix(err, "%lld", (long long)line), rc;
        }
        p = stop ? stop + 1 : end;
    }
    return PVA_OK;
}

/* [{...}] or {"rows": [{"row": {...}}]}; 1 when the file is one of these, and then *rc is the outcome. */
static int read_export(struct pva_problems *set, const char *text, size_t n, int *rc, struct pva_error *err) {
    json_error_t bad;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &bad), *rows = root;
    int wrapped = json_is_object(root) && json_is_array(json_object_get(root, "rows"));
    if (wrapped) rows = json_object_get(root, "rows");
    int is_export = json_is_array(rows);
    size_t first = 0;
    while (first < n && isspace((unsigned char)text[first])) first++;
    if (!root && first < n && text[first] == '[') {
        *rc = pva_fail(err, PVA_INPUT, "%d: not a JSON array: %s (column %d)", bad.line, bad.text, bad.column);
        return 1;
    }
    for (size_t i = 0; is_export && !*rc && i < json_array_size(rows); i++) {
        json_t *o = json_array_get(rows, i);
        if (wrapped) o = json_object_get(o, "row");
        *rc = add(set, o, (int64_t)i + 1, err);
        if (*rc) pva_error_prefix(err, "%zu", i + 1);
    }
    json_decref(root);
    return is_export;
}

static int by_id(const void *a, const void *b, void *all) {
    const struct pva_problem *x = (struct pva_problem *)all + *(const size_t *)a,
                             *y = (struct pva_problem *)all + *(const size_t *)b;
    int c = strcmp(x->task_id, y->task_id);
    return c ? c : (x->line > y->line) - (x->line < y->line);
}

static int index_ids(struct pva_problems *set, struct pva_error *err) {
    set->by_id = malloc(set->n * sizeof *set->by_id);
    if (!set->by_id) return pva_fail(err, PVA_IO, "out of memory");
    for (size_t i = 0; i < set->n; i++) set->by_id[i] = i;
    qsort_r(set->by_id, set->n, sizeof *set->by_id, by_id, set->all);
    for (size_t i = 1; i < set->n; i++) {
        const struct pva_problem *x = &set->all[set->by_id[i - 1]], *y = &set->all[set->by_id[i]];
        if (!strcmp(x->task_id, y->task_id))
            return pva_fail(err, PVA_INPUT, "%lld: task_id \"%s\" again, first in line %lld", (long long)y->line, y->task_id,
                            (long long)x->line);
    }
    return PVA_OK;
}

int pva_problems_load(const char *path, struct pva_problems **out, struct pva_error *err) {
    char *text;
    size_t n;
    *out = NULL;
    int rc = pva_read_text(path, &text, &n, err);
    if (rc) return rc;
    struct pva_problems *set = calloc(1, sizeof *set);
    if (!set) rc = pva_fail(err, PVA_IO, "out of memory");
    if (!rc && !read_export(set, text, n, &rc, err)) rc = read_lines(set, text, n, err);
    free(text);
    if (!rc && !set->n) rc = pva_fail(err, PVA_INPUT, "no problem in the file");
    rc = rc ? rc : index_ids(set, err);
    if (rc) {
        pva_problems_free(&set);
        /* "FILE:LINE: what" */
        struct pva_error whole = {0};
        pva_fail(&whole, rc, isdigit((unsigned char)err->msg[0]) ? "%s:%s" : "%s: %s", path, err->msg);
        *err = whole;
    } else *out = set;
    return rc;
}

void pva_problems_free(struct pva_problems **problems) {
    struct pva_problems *set = *problems;
    *problems = NULL;
    if (!set) return;
    for (size_t i = 0; i < set->n; i++) clear(&set->all[i]);
    free(set->all);
    free(set->by_id);
    free(set);
}

size_t pva_problems_count(const struct pva_problems *p) { return p->n; }

const struct pva_problem *pva_problems_at(const struct pva_problems *p, size_t i) {
    PVA_ASSERT(i < p->n);
    return &p->all[i];
}

/* The set's kind a task id claims by its part before the last slash; -1: any. -2: none that we know. */
static int claimed_kind(const char *task_id) {
    const char *slash = strrchr(task_id, '/');
    size_t n = slash ? (size_t)(slash - task_id) : 0;
    if (!slash) return -1;
    if ((n == 4 && !strncasecmp(task_id, "mbpp", 4)) || (n == 8 && !strncasecmp(task_id, "mbppplus", 8))) return PVA_MBPP;
    if ((n == 9 && !strncasecmp(task_id, "humaneval", 9)) || (n == 13 && !strncasecmp(task_id, "humanevalplus", 13)))
        return PVA_HUMANEVAL;
    return -2;
}

const struct pva_problem *pva_problems_find(const struct pva_problems *p, const char *task_id) {
    size_t low = 0, high = p->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct pva_problem *x = &p->all[p->by_id[middle]];
        int c = strcmp(task_id, x->task_id);
        if (!c) return x;
        if (c < 0) high = middle;
        else low = middle + 1;
    }
    int kind = claimed_kind(task_id);
    const char *slash = strrchr(task_id, '/'), *digits = slash ? slash + 1 : task_id;
    char *end;
    errno = 0;
    long long number = isdigit((unsigned char)*digits) ? strtoll(digits, &end, 10) : -1;
    if (kind == -2 || number < 0 || errno || *end) return NULL;
    const struct pva_problem *found = NULL;
    for (size_t i = 0; i < p->n; i++) {
        const struct pva_problem *x = &p->all[i];
        if (x->number != number || (kind >= 0 && (int)x->kind != kind)) continue;
        if (claimed_kind(x->task_id) == -2) continue; /* "Other/17" is only found by its whole name */
        if (found) return NULL;
        found = x;
    }
    return found;
}
