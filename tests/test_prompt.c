/* Prompts: the exact text of each built-in template, template files, and what must never be in a prompt. */
#include "check.h"
#include "pva/hash.h"
#include "pva/prompt.h"

#include <unistd.h>

static const char *write_file(const char *text, size_t n) {
    static char path[32];
    strcpy(path, "prompt-test-XXXXXX");
    int fd = mkstemp(path);
    CHECK_FATAL(fd >= 0);
    CHECK_FATAL(write(fd, text, n) == (ssize_t)n);
    close(fd);
    return path;
}

/* Four problems in MBPP's format: tasks 2 to 5, one of them with line ends as in the published file and braces in its text. */
static const char problems_text[] = "{\"task_id\": 2, \"text\": \"Add two.\", \"code\": \"def add2(x):\\r\\n    return x + 2\", "
                                    "\"test_list\": [\"assert add2(1) == 3\"]}\n"
                                    "{\"task_id\": 3, \"text\": \"Say {text} and {tests}.\", \"code\": \"import math\\ndef "
                                    "say():\\n    return '{shots}'\", \"test_list\": "
                                    "[\"assert set(say()) == set('x')\", \"assert say() == {0: '{code}'}\"]}\n"
                                    "{\"task_id\": 4, \"text\": \"Sort.\", \"code\": \"def helper(v): pass\\ndef sort_it (v): "
                                    "return sorted(v)\", \"test_list\": [\"assert not "
                                    "sort_it([2, 1]) != sort_it([1, 2])\"]}\n"
                                    "{\"task_id\": 5, \"text\": \"Root.\", \"code\": \"class Node: pass\", \"test_list\": "
                                    "[\"assert root.x == 1\", \"assert 1\", \"assert 2\"]}\n";
static const char humaneval_text[] =
    "{\"task_id\": \"HumanEval/0\", \"prompt\": \"def f(x):\\n    \\\"\\\"\\\"Double.\\\"\\\"\\\"\\n\", \"entry_point\": \"f\", "
    "\"canonical_solution\": \"    return 2 * x\\n\", \"test\": \"def check(candidate):\\n    assert candidate(2) == 4\\n\"}\n";

static struct pva_problems *load(const char *text) {
    struct pva_error err = {0};
    struct pva_problems *p = NULL;
    const char *path = write_file(text, strlen(text));
    CHECK_OK(pva_problems_load(path, &p, &err), err);
    unlink(path);
    CHECK_FATAL(p);
    return p;
}

static struct pva_prompt_template *open_text(const char *text, const struct pva_problems *problems) {
    struct pva_error err = {0};
    struct pva_prompt_template *t = NULL;
    const char *path = write_file(text, strlen(text));
    CHECK_OK(pva_prompt_template_open(path, problems, &t, &err), err);
    unlink(path);
    CHECK_FATAL(t);
    return t;
}

static void check_render(const struct pva_prompt_template *t, const struct pva_problem *p, const char *expected) {
    struct pva_error err = {0};
    char *text = NULL;
    size_t n = 0;
    CHECK_OK(pva_prompt_render(t, p, &text, &n, &err), err);
    CHECK_TEXT(text, expected);
    CHECK_INT(n, strlen(expected));
    free(text);
}

static void check_file(const char *template, const struct pva_problems *problems, size_t i, const char *expected) {
    struct pva_prompt_template *t = open_text(template, problems);
    check_render(t, pva_problems_at(problems, i), expected);
    pva_prompt_template_free(&t);
    CHECK(t == NULL);
}

#define ASK2 \
    "You are an expert Python programmer, and here is your task: Add two. Your code should pass these tests:\n\nassert add2(1) " \
    "== 3\n[BEGIN]\n"
#define SHOT2 ASK2 "def add2(x):\r\n    return x + 2\n[DONE]\n\n"
#define SHOT3 \
    "You are an expert Python programmer, and here is your task: Say {text} and {tests}. Your code should pass these " \
    "tests:\n\nassert set(say()) == set('x')\n" \
    "assert say() == {0: '{code}'}\n[BEGIN]\nimport math\ndef say():\n    return '{shots}'\n[DONE]\n\n"
#define SHOT4 \
    "You are an expert Python programmer, and here is your task: Sort. Your code should pass these tests:\n\nassert not " \
    "sort_it([2, 1]) != sort_it([1, 2])\n" \
    "[BEGIN]\ndef helper(v): pass\ndef sort_it (v): return sorted(v)\n[DONE]\n\n"
#define ASK5 \
    "You are an expert Python programmer, and here is your task: Root. Your code should pass these tests:\n\nassert root.x == " \
    "1\nassert 1\nassert 2\n[BEGIN]\n"

static void built_in(const struct pva_problems *problems) {
    struct pva_error err = {0};
    struct pva_prompt_template *t;
    CHECK_OK(pva_prompt_template_open("pva", NULL, &t, &err), err);
    CHECK_TEXT(pva_prompt_template_name(t), "pva");
    CHECK(pva_prompt_template_stops(t)[0] == NULL);
    check_render(t, pva_problems_at(problems, 0), "Add two.\n\nassert add2(1) == 3\n\n# Solution:");
    check_render(
        t, pva_problems_at(problems, 1),
        "Say {text} and {tests}.\n\nassert set(say()) == set('x')\nassert say() == {0: '{code}'}\n\n# Solution:"); /* values are
                                                                                                                      not filled
                                                                                                                      in */
    check_render(t, pva_problems_at(problems, 3), "Root.\n\nassert root.x == 1\nassert 1\nassert 2\n\n# Solution:");
    pva_prompt_template_free(&t);

    CHECK_OK(pva_prompt_template_open("mbpp-3shot", problems, &t, &err), err);
    CHECK_TEXT(pva_prompt_template_stops(t)[0], "[DONE]");
    CHECK(pva_prompt_template_stops(t)[1] == NULL);
    check_render(t, pva_problems_at(problems, 3), SHOT2 SHOT3 SHOT4 ASK5);
    check_render(t, pva_problems_at(problems, 0), SHOT3 SHOT4 ASK2); /* never its own solution */
    pva_prompt_template_free(&t);

    CHECK_OK(pva_prompt_template_open("docstring", problems, &t, &err), err);
    check_render(t, pva_problems_at(problems, 3), "\"\"\"\nRoot.\nassert root.x == 1\n\"\"\"\n");
    const char *const stops[] = {"\nclass", "\nassert", "\n\"\"\"", "\nprint", "\nif", "\n<|/", "\n```"};
    for (int i = 0; i < 7; i++) CHECK_TEXT(pva_prompt_template_stops(t)[i], stops[i]);
    CHECK(pva_prompt_template_stops(t)[7] == NULL);
    pva_prompt_template_free(&t);
    pva_prompt_template_free(&t);
}

static void files(const struct pva_problems *problems) {
    check_file("{text}", problems, 0, "Add two.");
    check_file("{text}\n", problems, 0, "Add two.");
    check_file("{text}\n\n", problems, 0, "Add two.\n");
    check_file("{} {0} { x } {Text} {\"a\": {text}}", problems, 0, "{} {0} { x } {Text} {\"a\": Add two.}");
    check_file("{text}{text}{tests}", problems, 0, "Add two.Add two.assert add2(1) == 3");
    check_file("{text} {entry_point}", problems, 0, "Add two. add2");
    check_file("{text} {entry_point}", problems, 2, "Sort. sort_it");
    check_file("{entry_point}: {text} {test0}", problems, 1, "say: Say {text} and {tests}. assert set(say()) == set('x')");
    check_file("%prompt\n%{text}", problems, 0, "%Add two.");
    check_file("%shots 4\n%shot\n{text}>{code}\n\n%prompt\n{shots}{text}>\n", problems, 0,
               "Sort.>def helper(v): pass\ndef sort_it (v): return sorted(v)\n\nAdd two.>");
    check_file("%shot\n%prompt\n{shots}{text}", problems, 0, "Add two."); /* an empty example */
    struct pva_prompt_template *t = open_text("%stop \"\\n[DONE]\"\n%stop \"\\u00e9\"\n%prompt\n{text}", problems);
    CHECK_TEXT(pva_prompt_template_stops(t)[0], "\n[DONE]");
    CHECK_TEXT(pva_prompt_template_stops(t)[1], "\xc3\xa9");
    CHECK(pva_prompt_template_stops(t)[2] == NULL);
    pva_prompt_template_free(&t);
}

static void humaneval(const struct pva_problems *mbpp) {
    struct pva_error err = {0};
    struct pva_problems *h = load(humaneval_text);
    check_file("Complete:\n{prompt}\n# {entry_point}, whole:\n", h, 0,
               "Complete:\ndef f(x):\n    \"\"\"Double.\"\"\"\n\n# f, whole:");
    struct pva_prompt_template *t = open_text("{prompt}#", h);
    char *text = (char *)"x";
    size_t n;
    CHECK_INT(pva_prompt_render(t, pva_problems_at(mbpp, 0), &text, &n, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "task 2 is of MBPP");
    CHECK(text == NULL);
    pva_prompt_template_free(&t);
    err.code = 0;
    CHECK_OK(pva_prompt_template_open("pva", h, &t, &err), err);
    CHECK_INT(pva_prompt_render(t, pva_problems_at(h, 0), &text, &n, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "HumanEval");
    pva_prompt_template_free(&t);
    pva_problems_free(&h);
}

static void mistakes(const struct pva_problems *problems) {
    const struct {
        const char *text, *message;
    } cases[] = {
        {"", "must have {text}"},
        {"Solve it.", "must have {text}"},
        {"{text}\n{tets}", ":2: {tets} is no field"},
        {"%prompt\n{text}\n\n{code}", ":4: {code} would show the model the solution"},
        {"{prompt}", "may not end with {prompt}"},
        {"{text}{shots}", "need each other"},
        {"%shot\n{text}\n%prompt\n{text}", "need each other"},
        {"%shot\n{shots}\n%prompt\n{shots}{text}", ":2: {shots} cannot stand in an example"},
        {"%shot\n{text}\n\n{cde}\n%prompt\n{shots}{text}", ":4: {cde} is no field"},
        {"%shot\n{text}\n%prompt\n{shots}\n{text}{nothing}", ":5: {nothing} is no field"},
        {"%shot\n{text}\n{shots}{text}", "must end with a line %prompt"},
        {"%shots 2 99\n%shot\n{text}\n%prompt\n{shots}{text}", "shows task 99"},
        {"%stop \"x\"\n%stop x\n%prompt\n{text}", ":2: expected %stop and a string"},
        {"%stop \"\"\n%prompt\n{text}", ":1: expected %stop and a string"},
        {"%stop 3\n%prompt\n{text}", ":1: expected %stop and a string"},
        {"%prompt\n%stop \"a\"", "must have {text}"},
        {"%what\n%prompt\n{text}", ":1: expected %stop, %shots, %shot or %prompt"},
        {"%stop \"a\"\n{text}", "%prompt"},
        {"%", "needs a line %prompt"},
    };
    struct pva_prompt_template *t = (struct pva_prompt_template *)1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pva_error err = {0};
        const char *path = write_file(cases[i].text, strlen(cases[i].text));
        CHECK_INT(pva_prompt_template_open(path, problems, &t, &err), PVA_INPUT);
        CHECK_HAS(err.msg, cases[i].message);
        CHECK_HAS(err.msg, path);
        CHECK(t == NULL);
        unlink(path);
    }
    struct pva_error err = {0};
    const char *path = write_file("{text}\0more", 11);
    CHECK_INT(pva_prompt_template_open(path, problems, &t, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "zero byte");
    unlink(path);
    err.code = 0;
    CHECK(pva_prompt_template_open("no-such-template", problems, &t, &err) != PVA_OK);
    CHECK_HAS(err.msg, "no-such-template");
    CHECK_HAS(err.msg, "mbpp-3shot");
    err.code = 0;
    CHECK_INT(pva_prompt_template_open("mbpp-3shot", NULL, &t, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "task 2");
    err.code = 0;
    t = open_text("{text} {entry_point}", problems);
    char *text;
    size_t n;
    CHECK_INT(pva_prompt_render(t, pva_problems_at(problems, 3), &text, &n, &err),
              PVA_INPUT); /* its tests call nothing of its own */
    CHECK_HAS(err.msg, "task 5");
    CHECK(text == NULL);
    pva_prompt_template_free(&t);
}

/* The digest stands for everything that shapes prompts and completions, and for nothing else. */
static void digests(const struct pva_problems *problems) {
    const char *const different[] = {"{text}",
                                     "{text} ",
                                     "%stop \"a\"\n%prompt\n{text}",
                                     "%stop \"b\"\n%prompt\n{text}",
                                     "%shot\n{text}\n%prompt\n{shots}{text}",
                                     "%shots 2 3\n%shot\n{text}\n%prompt\n{shots}{text}",
                                     "%shots 3 2\n%shot\n{text}\n%prompt\n{shots}{text}"};
    enum { N = sizeof different / sizeof *different };
    char digest[N][PVA_SHA256_HEX];
    for (int i = 0; i < N; i++) {
        struct pva_prompt_template *t = open_text(different[i], problems);
        strcpy(digest[i], pva_prompt_template_sha256(t));
        CHECK_INT(strlen(digest[i]), 64);
        for (int j = 0; j < i; j++) CHECK(strcmp(digest[i], digest[j]) != 0);
        pva_prompt_template_free(&t);
    }
    struct pva_prompt_template *t = open_text("{text}\n", problems); /* the file's last line end changes nothing */
    CHECK_TEXT(pva_prompt_template_sha256(t), digest[0]);
    pva_prompt_template_free(&t);
}

/* All of MBPP through all templates. */
static void mbpp(void) {
    char path[4096];
    const char *shared = getenv("PVA_TEST_SHARED"), *const names[] = {"pva", "mbpp-3shot", "docstring"};
    snprintf(path, sizeof path, "%s/data/mbpp.jsonl", shared ? shared : "../shared");
    if (access(path, R_OK)) {
        CHECK_SKIP("MBPP's prompts: %s is not there", path);
        return;
    }
    struct pva_error err = {0};
    struct pva_problems *problems = NULL;
    CHECK_OK(pva_problems_load(path, &problems, &err), err);
    CHECK_FATAL(problems);
    struct pva_prompt_template *entry = open_text("{text}\n{entry_point}", problems);
    for (int k = 0; k < 3; k++) {
        struct pva_prompt_template *t;
        CHECK_OK(pva_prompt_template_open(names[k], problems, &t, &err), err);
        for (size_t i = 0; i < pva_problems_count(problems); i++) {
            const struct pva_problem *p = pva_problems_at(problems, i);
            char *text = NULL;
            size_t n = 0;
            CHECK_OK(pva_prompt_render(t, p, &text, &n, &err), err);
            CHECK_FATAL(text);
            CHECK(strlen(text) == n && strstr(text, "assert assert") == NULL);
            CHECK_HAS(text, p->text);
            CHECK_HAS(text, p->tests[0]);
            CHECK(strstr(text, p->code) == NULL || strlen(p->code) < 8);
            free(text);
            if (k == 0) CHECK_OK(pva_prompt_render(entry, p, &text, &n, &err), err);
            if (k == 0) free(text);
        }
        pva_prompt_template_free(&t);
    }
    pva_prompt_template_free(&entry);
    pva_problems_free(&problems);
}

int main(void) {
    struct pva_problems *problems = load(problems_text);
    CHECK_INT(pva_problems_count(problems), 4);
    built_in(problems);
    files(problems);
    humaneval(problems);
    mistakes(problems);
    digests(problems);
    mbpp();
    pva_problems_free(&problems);
    return check_report("test_prompt");
}
