#include "pva/prompt.h"

#include "pva/hash.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STOPS = 16, MAX_SHOTS = 16 };

/* In the format of template files (prompt.h). */
static const struct {
    const char *name, *source;
} built_ins[] = {
    {"pva", "{text}\n\n{tests}\n\n# Solution:"},
    {"mbpp-3shot",
     "%stop \"[DONE]\"\n"
     "%shot\n"
     "You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n{tests}\n"
     "[BEGIN]\n{code}\n[DONE]\n\n"
     "%prompt\n"
     "{shots}You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n{tests}\n"
     "[BEGIN]\n\n"},
    {"docstring", "%stop \"\\nclass\"\n%stop \"\\nassert\"\n%stop \"\\n\\\"\\\"\\\"\"\n%stop \"\\nprint\"\n%stop \"\\nif\"\n"
                  "%stop \"\\n<|/\"\n%stop \"\\n```\"\n%prompt\n"
                  "\"\"\"\n{text}\n{test0}\n\"\"\"\n\n"},
};
enum { N_BUILT_INS = sizeof built_ins / sizeof *built_ins };

struct pva_prompt_template {
    char *name, *source;
    const char *text, *shot;    /* inside source; shot: NULL when there are no examples */
    char *stops[MAX_STOPS + 1]; /* ends with NULL */
    char *shot_tasks[MAX_SHOTS + 1];
    char *shots[MAX_SHOTS]; /* the examples, filled in */
    int n_stops, n_shots, for_humaneval;
    char sha256[PVA_SHA256_HEX];
};

/* ---- filling in ---- */

enum field { TEXT, TESTS, TEST0, ENTRY_POINT, PROMPT, SHOTS, CODE, N_FIELDS };
static const char *const fields[N_FIELDS] = {"{text}", "{tests}", "{test0}", "{entry_point}", "{prompt}", "{shots}", "{code}"};

/* The field at the start of `at`, or N_FIELDS. */
static enum field field_at(const char *at) {
    int i = 0;
    while (i < N_FIELDS && strncmp(at, fields[i], strlen(fields[i]))) i++;
    return (enum field)i;
}

/* The function that a problem's tests call: HumanEval says it; for MBPP the first name in the first test that is followed by '('
 * and that the reference program defines. Returns its length, 0 when there is none. */
static size_t entry_point(const struct pva_problem *p, const char **name) {
    *name = p->entry_point;
    if (*p->entry_point) return strlen(p->entry_point);
    for (const char *at = p->tests[0], *end; *at; at = end) {
        for (end = at; isalnum((unsigned char)*end) || *end == '_';) end++;
        size_t n = (size_t)(end - at);
        if (n == 0) end = at + 1;
        if (n == 0 || *(at + n + strspn(at + n, " ")) != '(') continue;
        for (const char *def = p->code; (def = strstr(def, "def ")); def += 4) {
            const char *defined = def + 4 + strspn(def + 4, " ");
            if (strncmp(defined, at, n) || isalnum((unsigned char)defined[n]) || defined[n] == '_') continue;
            *name = at;
            return n;
        }
    }
    return 0;
}

static int put(const struct pva_prompt_template *t, enum field what, const struct pva_problem *p, FILE *out,
               struct pva_error *err) {
    const char *name;
    switch (what) {
    case TEXT:
    case PROMPT: fputs(p->text, out); break;
    case TESTS:
        for (size_t i = 0; i < p->n_tests; i++) fprintf(out, "%s%s", i ? "\n" : "", p->tests[i]);
        break;
    case TEST0: fputs(p->tests[0], out); break;
    case ENTRY_POINT: {
        size_t n = entry_point(p, &name);
        if (!n)
            return pva_fail(
                err, PVA_INPUT,
                "task %s: its first test calls no function that its reference program defines, so it has no {entry_point}",
                p->task_id);
        fwrite(name, 1, n, out);
        break;
    }
    case SHOTS: /* never a problem's own solution */
        for (int i = 0; i < t->n_shots; i++)
            if (strcmp(t->shot_tasks[i], p->task_id)) fputs(t->shots[i], out);
        break;
    case CODE: fputs(p->code, out); break;
    case N_FIELDS: break;
    }
    return PVA_OK;
}

static int fill(const struct pva_prompt_template *t, const char *text, const struct pva_problem *p, char **filled,
                size_t *n_bytes, struct pva_error *err) {
    *filled = NULL;
    FILE *out = open_memstream(filled, n_bytes);
    if (!out) return pva_fail(err, PVA_IO, "no memory for a prompt");
    int status = PVA_OK;
    while (*text && !status) {
        enum field what = field_at(text);
        if (what == N_FIELDS) {
            fputc(*text++, out);
        } else {
            status = put(t, what, p, out, err);
            text += strlen(fields[what]);
        }
    }
    int bad = ferror(out);
    if ((fclose(out) || bad) && !status) status = pva_fail(err, PVA_IO, "no memory for a prompt");
    if (status) {
        free(*filled);
        *filled = NULL;
    }
    return status;
}

/* ---- reading a template ---- */

static int line_of(const struct pva_prompt_template *t, const char *at) {
    int line = 1;
    for (const char *p = t->source; p < at; p++) line += *p == '\n';
    return line;
}

/* A word in braces that is no field is taken for a slip, and refused; other braces are text. */
static int check_text(const struct pva_prompt_template *t, const char *text, enum field forbidden, const char *why,
                      struct pva_error *err) {
    for (const char *at = text; (at = strchr(at, '{')); at++) {
        enum field what = field_at(at);
        size_t n = strspn(at + 1, "abcdefghijklmnopqrstuvwxyz_0123456789");
        if (what == forbidden) return pva_fail(err, PVA_INPUT, "%s:%d: %s %s", t->name, line_of(t, at), fields[what], why);
        if (what == N_FIELDS && islower((unsigned char)at[1]) && at[n + 1] == '}')
            return pva_fail(err, PVA_INPUT,
                            "%s:%d: {%.*s} is no field; there are {text} {tests} {test0} {entry_point} {prompt} {shots}", t->name,
                            line_of(t, at), (int)(n < 40 ? n : 40), at + 1);
    }
    return PVA_OK;
}

static int add_stop(struct pva_prompt_template *t, const char *line, struct pva_error *err) {
    json_t *value = json_loads(line + 5, JSON_DECODE_ANY, NULL);
    const char *text = json_string_value(value);
    int status = PVA_OK;
    if (!text || !*text)
        status = pva_fail(err, PVA_INPUT, "%s:%d: expected %%stop and a string in JSON's notation, like \"\\nassert\"", t->name,
                          line_of(t, line));
    else if (t->n_stops == MAX_STOPS) status = pva_fail(err, PVA_INPUT, "%s: more than %d stop strings", t->name, MAX_STOPS);
    else if (!(t->stops[t->n_stops] = strdup(text))) status = pva_fail(err, PVA_IO, "no memory for a prompt template");
    else t->n_stops++;
    json_decref(value);
    return status;
}

static int add_shots(struct pva_prompt_template *t, const char *ids, struct pva_error *err) {
    while (*(ids += strspn(ids, " \t\r"))) {
        size_t n = strcspn(ids, " \t\r");
        if (t->n_shots == MAX_SHOTS) return pva_fail(err, PVA_INPUT, "%s: more than %d examples", t->name, MAX_SHOTS);
        if (!(t->shot_tasks[t->n_shots] = strndup(ids, n))) return pva_fail(err, PVA_IO, "no memory for a prompt template");
        t->n_shots++;
        ids += n;
    }
    return PVA_OK;
}

/* Cuts the source into its parts: every line's end that matters becomes a zero. */
static int parse(struct pva_prompt_template *t, char *source, struct pva_error *err) {
    size_t n = strlen(source);
    if (n && source[n - 1] == '\n') source[n - 1] = 0; /* the file's last line end is not the prompt's */
    t->text = source;
    for (char *line = source, *next; *source == '%'; line = next) {
        char *end = strchr(line, '\n');
        if (!end)
            return pva_fail(err, PVA_INPUT, "%s: a template that begins with %% needs a line %%prompt before the prompt's text",
                            t->name);
        next = end + 1;
        *end = 0; /* for the time being: the source is hashed before, and line numbers count up to here */
        int status = PVA_OK;
        if (!strcmp(line, "%prompt")) {
            *end = '\n';
            t->text = next;
            return PVA_OK;
        }
        if (!strncmp(line, "%stop ", 6)) status = add_stop(t, line, err);
        else if (!strncmp(line, "%shots ", 7)) status = add_shots(t, line + 7, err);
        else if (!strcmp(line, "%shot") && !t->shot) {
            *end = '\n';
            char *stop = !strncmp(next, "%prompt\n", 8) ? next : strstr(next, "\n%prompt\n");
            if (!stop) return pva_fail(err, PVA_INPUT, "%s: the example after %%shot must end with a line %%prompt", t->name);
            t->shot = next;
            t->text = stop + (stop == next ? 8 : 9);
            *(stop == next ? stop : stop + 1) = 0; /* in place of the percent sign */
            return PVA_OK;
        } else
            status = pva_fail(err, PVA_INPUT, "%s:%d: expected %%stop, %%shots, %%shot or %%prompt", t->name, line_of(t, line));
        *end = '\n';
        if (status) return status;
    }
    return PVA_OK;
}

static int make_shots(struct pva_prompt_template *t, const struct pva_problems *problems, struct pva_error *err) {
    if (!t->n_shots && add_shots(t, "2 3 4", err)) return err->code;
    for (int i = 0; i < t->n_shots; i++) {
        size_t n = 0;
        const struct pva_problem *p = problems ? pva_problems_find(problems, t->shot_tasks[i]) : NULL;
        if (!p)
            return pva_fail(err, PVA_INPUT, "prompt template %s shows task %s as an example; the problem file has no such task",
                            t->name, t->shot_tasks[i]);
        if (fill(t, t->shot, p, &t->shots[i], &n, err)) return err->code;
        free(t->shot_tasks[i]); /* by its full name from here on */
        if (!(t->shot_tasks[i] = strdup(p->task_id))) return pva_fail(err, PVA_IO, "no memory for a prompt template");
    }
    return PVA_OK;
}

static void hash_template(struct pva_prompt_template *t) {
    struct pva_sha256 h;
    uint8_t digest[PVA_SHA256_BYTES];
    pva_sha256_start(&h);
    pva_sha256_add(&h, t->text, strlen(t->text) + 1);
    for (int i = 0; i < t->n_shots; i++) pva_sha256_add(&h, t->shots[i], strlen(t->shots[i]) + 1);
    pva_sha256_add(&h, "", 1);
    for (int i = 0; i < t->n_stops; i++) pva_sha256_add(&h, t->stops[i], strlen(t->stops[i]) + 1);
    pva_sha256_finish(&h, digest);
    pva_sha256_hex(digest, t->sha256);
}

static int load_template(struct pva_prompt_template *t, const char *name, const struct pva_problems *problems,
                         struct pva_error *err) {
    const char *slash = strrchr(name, '/');
    t->name = strdup(slash ? slash + 1 : name);
    for (int i = 0; i < N_BUILT_INS; i++)
        if (!strcmp(name, built_ins[i].name)) t->source = strdup(built_ins[i].source);
    if (!t->source) {
        size_t n = 0;
        if (pva_read_text(name, &t->source, &n, err))
            return pva_error_prefix(err, "prompt template %s is neither pva, mbpp-3shot, docstring nor a file", name);
        if (strlen(t->source) != n) return pva_fail(err, PVA_INPUT, "%s: a prompt template may hold no zero byte", name);
    }
    if (!t->name) return pva_fail(err, PVA_IO, "no memory for a prompt template");
    if (parse(t, t->source, err)) return err->code;
    if (t->shot && check_text(t, t->shot, SHOTS, "cannot stand in an example", err)) return err->code;
    if (check_text(t, t->text, CODE, "would show the model the solution", err)) return err->code;
    int shots = strstr(t->text, "{shots}") != NULL;
    t->for_humaneval = strstr(t->text, "{prompt}") != NULL;
    if (!t->for_humaneval && !strstr(t->text, "{text}"))
        return pva_fail(err, PVA_INPUT,
                        "%s: a prompt template must have {text} (MBPP) or {prompt} (HumanEval) where the problem goes", name);
    size_t n = strlen(t->text);
    if (n >= 8 && !strcmp(t->text + n - 8, "{prompt}"))
        return pva_fail(err, PVA_INPUT,
                        "%s: a template may not end with {prompt}: the completion would be the rest of a function, and what is "
                        "graded is a whole program",
                        name);
    if (shots != (t->shot != NULL)) return pva_fail(err, PVA_INPUT, "%s: {shots} and a section %%shot need each other", name);
    return t->shot ? make_shots(t, problems, err) : PVA_OK;
}

int pva_prompt_template_open(const char *name, const struct pva_problems *problems, struct pva_prompt_template **out,
                             struct pva_error *err) {
    *out = NULL;
    struct pva_prompt_template *t = calloc(1, sizeof *t);
    if (!t) return pva_fail(err, PVA_IO, "no memory for a prompt template");
    int status = load_template(t, name, problems, err);
    if (status) {
        pva_prompt_template_free(&t);
        return status;
    }
    hash_template(t);
    *out = t;
    return PVA_OK;
}

void pva_prompt_template_free(struct pva_prompt_template **t) {
    if (!*t) return;
    for (int i = 0; i < (*t)->n_stops; i++) free((*t)->stops[i]);
    for (int i = 0; i < MAX_SHOTS; i++) free((*t)->shot_tasks[i]), free((*t)->shots[i]);
    free((*t)->name);
    free((*t)->source);
    free(*t);
    *t = NULL;
}

const char *pva_prompt_template_name(const struct pva_prompt_template *t) { return t->name; }
const char *pva_prompt_template_sha256(const struct pva_prompt_template *t) { return t->sha256; }
const char *const *pva_prompt_template_stops(const struct pva_prompt_template *t) { return (const char *const *)t->stops; }

int pva_prompt_render(const struct pva_prompt_template *t, const struct pva_problem *problem, char **text, size_t *n_bytes,
                      struct pva_error *err) {
    *text = NULL;
    if ((problem->kind == PVA_HUMANEVAL) != t->for_humaneval)
        return pva_fail(err, PVA_INPUT, "task %s is of %s; the prompt template %s is for %s (%s)", problem->task_id,
                        t->for_humaneval ? "MBPP" : "HumanEval", t->name, t->for_humaneval ? "HumanEval" : "MBPP",
                        t->for_humaneval ? "{prompt}" : "{text}");
    return fill(t, t->text, problem, text, n_bytes, err);
}
