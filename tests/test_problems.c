/* Problem files: what reads, what is refused and how the refusal says where. */
#include "check.h"
#include "pva/problems.h"

#include <unistd.h>
#include <zlib.h>

static char path[] = "/tmp/pva-problems-XXXXXX";

static void put(const char *text, size_t n) {
    FILE *f = fopen(path, "wb");
    CHECK_FATAL(f && fwrite(text, 1, n, f) == n && !fclose(f));
}

#define M(id) "{\"task_id\": " id ", \"text\": \"t\", \"code\": \"c\", \"test_list\": [\"assert 1\"]}"

static void test_good(void) {
    struct pva_error err = {0};
    struct pva_problems *p;
    static const char *const forms[] = {
        M("1") "\n" M("2") "\n",
        "\n  " M("1") "\r\n\n" M("2"),
        "[" M("1") ",\n" M("2") "]",
        "{\"features\": [], \"rows\": [{\"row_idx\": 0, \"row\": " M("1") "}, {\"row_idx\": 1, \"row\": " M("2") "}]}",
        "{\"task_id\": \"1\", \"prompt\": \"t\", \"code\": \"c\", \"test_list\": \"[\\\"assert 1\\\"]\", \"test_imports\": "
        "[]}\n" M("2"),
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        put(forms[i], strlen(forms[i]));
        CHECK_OK(pva_problems_load(path, &p, &err), err);
        if (err.code) return;
        CHECK_INT(pva_problems_count(p), 2);
        const struct pva_problem *q = pva_problems_at(p, 0);
        CHECK_INT(q->kind, PVA_MBPP);
        CHECK_TEXT(q->task_id, "1");
        CHECK_INT(q->number, 1);
        CHECK_TEXT(q->text, "t");
        CHECK_TEXT(q->code, "c");
        CHECK_TEXT(q->setup, "");
        CHECK_TEXT(q->entry_point, "");
        CHECK_INT(q->n_tests, 1);
        CHECK_TEXT(q->tests[0], "assert 1");
        CHECK_INT(q->n_challenge_tests, 0);
        CHECK(pva_problems_find(p, "Mbpp/2") == pva_problems_at(p, 1) && pva_problems_find(p, "2") == pva_problems_at(p, 1));
        CHECK(pva_problems_find(p, "MBPP/1") == q && !pva_problems_find(p, "HumanEval/1") && !pva_problems_find(p, "3") &&
              !pva_problems_find(p, "Other/1") && !pva_problems_find(p, "1x") && !pva_problems_find(p, ""));
        pva_problems_free(&p);
        CHECK(!p);
    }

    static const char rich[] = "{\"task_id\": 5, \"text\": \"\\u00e9\", \"code\": \"a\\r\\nb\", \"test_setup_code\": \"root = "
                               "1\", \"test_imports\": [\"import math\"], "
                               "\"test_list\": [\"x\", \"y\"], \"challenge_test_list\": [\"z\"], \"more\": {\"ignored\": 1}}\n"
                               "{\"task_id\": \"HumanEval/5\", \"prompt\": \"def f():\\n\", \"entry_point\": \"f\", "
                               "\"canonical_solution\": \"  return 1\\n\", \"test\": \"def check(c): pass\"}\n";
    put(rich, sizeof rich - 1);
    CHECK_OK(pva_problems_load(path, &p, &err), err);
    if (err.code) return;
    const struct pva_problem *q = pva_problems_at(p, 0), *h = pva_problems_at(p, 1);
    CHECK_TEXT(q->text, "\xc3\xa9");
    CHECK_TEXT(q->code, "a\r\nb");
    CHECK_TEXT(q->setup, "import math\nroot = 1");
    CHECK_INT(q->n_tests, 2);
    CHECK_TEXT(q->challenge_tests[0], "z");
    CHECK_INT(h->kind, PVA_HUMANEVAL);
    CHECK_TEXT(h->code, "def f():\n  return 1\n");
    CHECK_TEXT(h->entry_point, "f");
    CHECK_INT(h->line, 2);
    CHECK_INT(h->number, 5);
    CHECK(!pva_problems_find(p, "5/") && pva_problems_find(p, "humaneval/5") == h && pva_problems_find(p, "mbpp/5") == q);
    CHECK(pva_problems_find(p, "5") == q); /* its whole name */
    pva_problems_free(&p);

    /* Compressed, whatever the file is called. */
    gzFile z = gzopen(path, "wb");
    CHECK_FATAL(z && gzputs(z, forms[0]) > 0 && gzclose(z) == Z_OK);
    CHECK_OK(pva_problems_load(path, &p, &err), err);
    if (!err.code) CHECK_INT(pva_problems_count(p), 2);
    pva_problems_free(&p);
}

static void test_bad(void) {
    static const struct {
        const char *text, *message;
    } rows[] = {
        {"", ": no problem in the file"},
        {"\n\n", ": no problem in the file"},
        {"[]", ": no problem in the file"},
        {M("1") "\n{\n", ":2: not a JSON object"},
        {M("1") "\n" M("1") "\n", ":2: task_id \"1\" again, first in line 1"},
        {"[" M("1") ",", ": not a JSON array"},
        {"[1]", ":1: a number, expected an object"},
        {"{\"rows\": [{\"row\": 1}]}", ":1: a number, expected an object"},
        {"{\"rows\": [1]}", ":1: missing, expected an object"},
        {"{}", ":1: \"task_id\" is missing"},
        {"{\"task_id\": 1}", ":1: neither \"test_list\" (MBPP) nor"},
        {"{\"task_id\": -1, \"text\": \"\", \"code\": \"\", \"test_list\": [\"\"]}", "\"task_id\" is negative"},
        {"{\"task_id\": \"\", \"text\": \"\", \"code\": \"\", \"test_list\": [\"\"]}", "\"task_id\" is empty"},
        {"{\"task_id\": 1.5, \"text\": \"\", \"code\": \"\", \"test_list\": [\"\"]}",
         "\"task_id\" is a number, expected a string"},
        {"{\"task_id\": 1, \"code\": \"\", \"test_list\": [\"\"]}", "neither \"text\" nor \"prompt\""},
        {"{\"task_id\": 1, \"text\": 5, \"code\": \"\", \"test_list\": [\"\"]}", "\"text\" is a number, expected a string"},
        {"{\"task_id\": 1, \"text\": \"\", \"test_list\": [\"\"]}", "\"code\" is missing"},
        {"{\"task_id\": 1, \"text\": \"\", \"code\": \"\", \"test_list\": []}", "\"test_list\" is empty"},
        {"{\"task_id\": 1, \"text\": \"\", \"code\": \"\", \"test_list\": \"assert 1\"}",
         "does not hold a JSON list: \"assert 1\""},
        {"{\"task_id\": 1, \"text\": \"\", \"code\": \"\", \"test_list\": [1]}", "\"test_list[0]\" is a number"},
        {"{\"task_id\": 1, \"text\": \"\", \"code\": \"\", \"test_list\": {}}", "\"test_list\" is an object, expected a list"},
        {"{\"task_id\": 1, \"text\": \"a\\u0000b\", \"code\": \"\", \"test_list\": [\"\"]}", "\"text\" contains a zero byte"},
        {"{\"task_id\": 1, \"task_id\": 2, \"text\": \"\", \"code\": \"\", \"test_list\": [\"\"]}", "duplicate"},
        {"{\"task_id\": 1, \"text\": \"\xff\", \"code\": \"\", \"test_list\": [\"\"]}", ":1: not a JSON object"},
        {"{\"task_id\": \"a\", \"prompt\": \"\", \"entry_point\": \"\", \"test\": \"check\"}", "\"entry_point\" is empty"},
        {"{\"task_id\": \"a\", \"prompt\": \"\", \"entry_point\": \"f(x)\", \"test\": \"check\"}", "expected a function's name"},
        {"{\"task_id\": \"a\", \"prompt\": \"\", \"entry_point\": \"f\", \"test\": \"\"}", "does not define check()"},
        {"{\"task_id\": \"a\", \"entry_point\": \"f\", \"test\": \"check\"}", "\"prompt\" is missing"},
    };
    struct pva_problems *p;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct pva_error err = {0};
        put(rows[i].text, strlen(rows[i].text));
        CHECK_INT(pva_problems_load(path, &p, &err), PVA_INPUT);
        CHECK_HAS(err.msg, rows[i].message);
        CHECK(!strncmp(err.msg, path, strlen(path)) && !p);
    }
    struct pva_error err = {0};
    CHECK_INT(pva_problems_load("/nowhere/mbpp.jsonl", &p, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "/nowhere/mbpp.jsonl: cannot open");

    /* A compressed file that ends early, at every length. */
    char text[4000];
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)('a' + (i * i) % 23);
    gzFile z = gzopen(path, "wb");
    CHECK_FATAL(z && gzwrite(z, text, sizeof text) == sizeof text && gzclose(z) == Z_OK);
    FILE *f = fopen(path, "rb");
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    for (size_t cut = 3; cut < n; cut += 7) {
        char *back;
        size_t length;
        err = (struct pva_error){0};
        put(text, cut);
        CHECK_INT(pva_read_text(path, &back, &length, &err), PVA_INPUT);
        CHECK(!back);
    }
}

static void test_mbpp(void) {
    const char *shared = getenv("PVA_TEST_SHARED");
    char file[4096];
    snprintf(file, sizeof file, "%s/data/mbpp.jsonl", shared ? shared : "");
    if (!shared || access(file, R_OK)) {
        CHECK_SKIP("the 974 problems: no %s", file);
        return;
    }
    struct pva_error err = {0};
    struct pva_problems *p;
    CHECK_OK(pva_problems_load(file, &p, &err), err);
    if (err.code) return;
    CHECK_INT(pva_problems_count(p), 974);
    size_t setups = 0, challenges = 0;
    for (size_t i = 0; i < 974; i++) {
        const struct pva_problem *q = pva_problems_at(p, i);
        CHECK(q->n_tests == 3 && q->line == (int64_t)i + 1 && *q->text && *q->code);
        setups += *q->setup != 0;
        challenges += q->n_challenge_tests > 0;
    }
    CHECK_INT(setups, 2);
    CHECK_INT(challenges, 11);
    pva_problems_free(&p);
}

int main(void) {
    int fd = mkstemp(path);
    CHECK_FATAL(fd >= 0);
    close(fd);
    test_good();
    test_bad();
    test_mbpp();
    unlink(path);
    return check_report("test_problems");
}
