#include "pva/prompt.h"

#include "pva/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STOPS = 8 };

struct built_in {
    const char *name, *text, *shot; /* shot: one worked example, with {code} */
    const char *stops[MAX_STOPS];
};

static const struct built_in built_ins[] = {
    {"pva", "{text}\n\n{tests}\n\n# Solution:", NULL, {NULL}},
    {"mbpp-3shot",
     "{shots}You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n",
     "You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n{code}\n[DONE]\n\n",
     {"[DONE]", NULL}},
    {"docstring", "\"\"\"\n{text}\n{test0}\n\"\"\"\n", NULL, {"\nclass ", "\nassert ", "\n\"\"\"", "\nprint", "\nif ", "\n<|/", "\n```", NULL}},
};
enum { N_BUILT_INS = sizeof built_ins / sizeof *built_ins };

static const char *const shot_tasks[] = {"2", "3", "4"};

struct pva_prompt_template {
    char *name, *text, *shots;
    const char *stops[MAX_STOPS];
    char sha256[PVA_SHA256_HEX];
};

/* ---- filling in ---- */

struct values {
    const struct pva_problem *problem;
    const char *shots;
};

static void put_tests(const struct pva_problem *p, FILE *out) {
    for (size_t i = 0; i < p->n_tests; i++) fprintf(out, "%s%s", i ? "\n" : "", p->tests[i]);
}

/* Writes what stands for the placeholder at the start of `at` and returns its length in the template; 0 when it is none. */
static size_t put_placeholder(const char *at, const struct values *v, FILE *out) {
    static const char *const names[] = {"{text}", "{tests}", "{test0}", "{entry_point}", "{shots}", "{code}"};
    for (int i = 0; i < 6; i++) {
        size_t n = strlen(names[i]);
        if (strncmp(at, names[i], n)) continue;
        switch (i) {
        case 0: fputs(v->problem->text, out); break;
        case 1: put_tests(v->problem, out); break;
        case 2: fputs(v->problem->tests[0], out); break;
        case 3: fputs(v->problem->entry_point, out); break;
        case 4: fputs(v->shots ? v->shots : "", out); break;
        case 5: fputs(v->problem->code, out); break;
        }
        return n;
    }
    return 0;
}

static void fill(const char *template, const struct values *v, FILE *out) {
    while (*template) {
        size_t n = *template == '{' ? put_placeholder(template, v, out) : 0;
        if (!n) fputc(*template, out), n = 1;
        template += n;
    }
}

/* ---- templates ---- */

static int render_shots(struct pva_prompt_template *t, const char *shot, const struct pva_problems *problems, struct pva_error *err) {
    size_t n = 0;
    FILE *f = open_memstream(&t->shots, &n);
    if (!f) return pva_fail(err, PVA_IO, "out of memory");
    for (int i = 0; i < 3 && !err->code; i++) {
        const struct pva_problem *p = pva_problems_find(problems, shot_tasks[i]);
        if (p) fill(shot, &(struct values){p, NULL}, f);
        else pva_fail(err, PVA_INPUT, "prompt template %s shows tasks 2, 3 and 4 as examples; the problem file has no task %s", t->name, shot_tasks[i]);
    }
    if (fclose(f) && !err->code) pva_fail(err, PVA_IO, "out of memory");
    return err->code;
}

static void hash_template(struct pva_prompt_template *t) {
    struct pva_sha256 h;
    uint8_t digest[PVA_SHA256_BYTES];
    pva_sha256_start(&h);
    pva_sha256_add(&h, t->text, strlen(t->text) + 1);
    pva_sha256_add(&h, t->shots ? t->shots : "", t->shots ? strlen(t->shots) + 1 : 1);
    for (int i = 0; t->stops[i]; i++) pva_sha256_add(&h, t->stops[i], strlen(t->stops[i]) + 1);
    pva_sha256_finish(&h, digest);
    pva_sha256_hex(digest, t->sha256);
}

static int load_template(struct pva_prompt_template *t, const char *name, const struct pva_problems *problems, struct pva_error *err) {
    const char *slash = strrchr(name, '/');
    t->name = strdup(slash ? slash + 1 : name);
    if (!t->name) return pva_fail(err, PVA_IO, "out of memory");
    for (int i = 0; i < N_BUILT_INS; i++) {
        if (strcmp(name, built_ins[i].name)) continue;
        t->text = strdup(built_ins[i].text);
        memcpy(t->stops, built_ins[i].stops, sizeof t->stops);
        if (!t->text) return pva_fail(err, PVA_IO, "out of memory");
        return built_ins[i].shot ? render_shots(t, built_ins[i].shot, problems, err) : PVA_OK;
    }
    size_t n = 0;
    if (pva_read_text(name, &t->text, &n, err))
        return pva_error_prefix(err, "prompt template %s is neither pva, mbpp-3shot, docstring nor a file", name);
    if (strlen(t->text) != n) return pva_fail(err, PVA_INPUT, "%s: a prompt template may hold no zero byte", name);
    if (!strstr(t->text, "{text}")) return pva_fail(err, PVA_INPUT, "%s: a prompt template must have {text} where the problem goes", name);
    return PVA_OK;
}

int pva_prompt_template_open(const char *name, const struct pva_problems *problems, struct pva_prompt_template **out, struct pva_error *err) {
    struct pva_prompt_template *t = calloc(1, sizeof *t);
    if (!t) return pva_fail(err, PVA_IO, "out of memory");
    if (load_template(t, name, problems, err)) {
        pva_prompt_template_free(&t);
        return err->code;
    }
    hash_template(t);
    *out = t;
    return PVA_OK;
}

void pva_prompt_template_free(struct pva_prompt_template **t) {
    if (!*t) return;
    free((*t)->name);
    free((*t)->text);
    free((*t)->shots);
    free(*t);
    *t = NULL;
}

const char *pva_prompt_template_name(const struct pva_prompt_template *t) { return t->name; }
const char *pva_prompt_template_sha256(const struct pva_prompt_template *t) { return t->sha256; }
const char *const *pva_prompt_template_stops(const struct pva_prompt_template *t) { return t->stops; }

int pva_prompt_render(const struct pva_prompt_template *t, const struct pva_problem *problem, char **text, size_t *n_bytes, struct pva_error *err) {
    if (problem->kind == PVA_HUMANEVAL)
        return pva_fail(err, PVA_INPUT, "task %s is a HumanEval problem; prompts are made for problems in MBPP's format", problem->task_id);
    *text = NULL;
    FILE *f = open_memstream(text, n_bytes);
    if (!f) return pva_fail(err, PVA_IO, "out of memory");
    fill(t->text, &(struct values){problem, t->shots}, f);
    if (fclose(f)) {
        free(*text);
        return pva_fail(err, PVA_IO, "out of memory");
    }
    return PVA_OK;
}
