/* Complexity as radon counts it. The last number is the sum over MBPP's 974 reference programs that radon 6.0.1 gives. */
#include "check.h"

#include "pva/difficulty.h"

#include <jansson.h>

int main(void) {
    struct pva_error err = {0};
    static const struct {
        const char *code;
        int want;
    } cases[] = {
        {"x = 1\n", 1},
        {"", 1},
        {"def f(a):\n    return a\n", 1},
        {"def f(a):\n    if a:\n        return 1\n    elif a > 2:\n        return 2\n    return 3\n", 3},
        {"def f(a):\n    return 1 if a and (a > 1 or a < -1) else 2\n", 4},
        {"def f(a):\n    for i in a:\n        while i:\n            i -= 1\n    else:\n        pass\n", 4},
        {"def f(a):\n    return [x for x in a if x if x > 1]\n", 4},
        {"def f(a):\n    try:\n        return 1 // a\n    except ZeroDivisionError:\n        return 0\n    except TypeError:\n        return 1\n", 3},
        {"def f(a):\n    assert a\n    return lambda x: x if x else 0\n", 3},
        {"def f(a):\n    def g(b):\n        if b:\n            return 1\n    return g(a)\n", 1},
        {"class C:\n    def m(self, a):\n        return a or 1\n\ndef f():\n    return C()\n", 2},
        {"if x:\n    y = 1\nfor i in x:\n    y = 2\n", 3},
        {"def f(:\n", -1},
        {"def f(a):\r\n    if a: return 1\r\n", 2},
        {"s = 'h\xc3\xa9'\n", 1},
    };
    enum { N = sizeof cases / sizeof *cases };
    const char *codes[N];
    int32_t got[N];
    for (int i = 0; i < N; i++) codes[i] = cases[i].code;
    CHECK_OK(pva_difficulty(NULL, codes, N, got, &err), err);
    for (int i = 0; i < N; i++) CHECK_INT(got[i], cases[i].want);
    CHECK_OK(pva_difficulty(NULL, codes, 0, got, &err), err);
    CHECK_INT(pva_difficulty("no-such-python", codes, N, got, &err), PVA_IO);
    CHECK_HAS(err.msg, "no-such-python");

    char path[4096];
    struct pva_error e = {0};
    snprintf(path, sizeof path, "%s/data/mbpp.jsonl", getenv("PVA_TEST_SHARED") ? getenv("PVA_TEST_SHARED") : ".");
    FILE *f = fopen(path, "r");
    if (f) {
        static const char *all[974];
        static json_t *lines[974];
        static int32_t numbers[974];
        char *line = NULL;
        size_t size = 0, n = 0;
        while (n < 974 && getline(&line, &size, f) > 0) {
            lines[n] = json_loads(line, 0, NULL);
            all[n] = json_string_value(json_object_get(lines[n], "code"));
            n++;
        }
        CHECK_INT(n, 974);
        CHECK_OK(pva_difficulty(NULL, all, n, numbers, &e), e);
        long sum = 0, easy = 0;
        for (size_t i = 0; i < n; i++) sum += numbers[i], easy += numbers[i] == 1, json_decref(lines[i]);
        CHECK_INT(sum, 2770);
        CHECK_INT(easy, 268);
        free(line);
        fclose(f);
    } else {
        CHECK_SKIP("MBPP is not there: %s", path);
    }
    return check_report("test_difficulty");
}
