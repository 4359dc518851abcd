/* From completions to programs: hand-written cases, each also byte by byte with hostile continuations; random splices; the
 * reference solutions of MBPP. */
#include "check.h"

#include "pva/extract.h"
#include "pva/rng.h"

#include <jansson.h>
#include <time.h>

#define F "def f(x):\n    return x\n"
#define G "def g(y):\n    return y\n"
#define SAME NULL /* the program is the completion */

static const struct {
    const char *completion, *program;
} cases[] = {
    /* nothing */
    {"", ""},
    {"\n\n  \n\t\n", ""},
    {"\r\n\f\r", ""},
    {"```python\n", ""},
    {"``", ""},
    /* one function, and how it ends */
    {F, SAME},
    {"\n\n" F, F},
    {"def f(x):\n    return x", F},
    {F "\n\n   \n", F},
    {F "\nprint(f(1))\n", F},
    {F "print(f(1)).x = 1\n", F "print(f(1)).x = 1\n"},
    {F "f(1)\n" G, F},
    {F "assert f(1) == 1\n", F},
    {F "\nif __name__ == \"__main__\":\n    print(f(2))\n", F},
    {F "for i in range(3):\n    pass\n", F},
    {F "while True: pass\n", F},
    {F "with open('x') as h: pass\n", F},
    {F "try:\n    pass\nexcept: pass\n", F},
    {F "return x\n", F},
    {F "pass\n", F},
    {F "del f\n", F},
    {F "'text'\n", F},
    {F "...\n", F},
    {F "x + 1 = 2\n", F},
    {F "  x = 1\n", F "  x = 1\n"},
    {F "x = 1\n  y = 2\n", F "x = 1\n"},
    {F "```\nThis returns x.\n", F},
    {F "\n```\n\n```python\n" G "```\n", F},
    {"```python\n" F "```\nDone.", F},
    {"\n```\n" F, F},
    {"```py\n\n```\n" F, ""},
    {"# c\n```\n" F, "# c\n"},
    {F "\nThis function returns x.\n", F},
    {F "[END]\n", F},
    {F "<eos>", F},
    {F "\n\"\"\"\nTest the code\n\"\"\"\n", F},
    {F "\n'''\n" G "'''\n", F},
    /* no program */
    {"Here is the code:\n\n" F, ""},
    {" " F, ""},
    {"\t# c\n" F, "\t# c\n" F},
    {"print(1)\n" F, ""},
    {"    return x\n", ""},
    {"42", ""},
    {"$ python\n", ""},
    {"- x = 5\n", ""},
    {"* x = 5\n", ""},
    {"(see below) = 5\n", ""},
    /* not finished */
    {F "def g(", F},
    {F "def g(y)", F},
    {F "def g(y):", F},
    {F "def g(y):  # c\n\n  # only a comment\n", F},
    {F "def g(y):\nx = 1\n", F},
    {F "def g(y):\n    return (y +\n", F},
    {F "def g(y):\n    return y +", F "def g(y):\n    return y +\n"},
    {F "def g(y):\n    return 'abc", F "def g(y):\n    return 'abc\n"},
    {F "def g(y):\n    '''doc", F},
    {F "def g(y):\n    '''doc''", F},
    {F "def g(y):\n    r", F "def g(y):\n    r\n"},
    {F "def g(y): \\", F},
    {F "def g(y): \\\n  return y", F "def g(y): \\\n  return y\n"},
    {F "@wraps", F},
    {F "@wraps\n\n# c\n", F},
    {F "@wraps\nx = 1\n", F},
    {F "import", F},
    {F "import math as", F},
    {F "from math import (sqrt,", F},
    {F "x =", F},
    {F "x = 1 +", F},
    {F "x = [1,\n", F},
    {F "x = 'abc", F},
    {F "x = 1 \\\n", F},
    {F "x", F},
    {F "de", F},
    {F "# c", F "# c\n"},
    /* helpers, imports, decorators, classes, async */
    {"import math\nfrom collections import defaultdict, deque as d\n\n" F "\n\n" G, SAME},
    {"import os.path as p, sys; from . import a; from ...b.c import *\nfrom x import (a,\n  b as c, # d\n)\n", SAME},
    {"from functools import lru_cache\n\n@lru_cache(maxsize=None)\n@a.b\n\n# c\ndef f(x):\n    return x\n", SAME},
    {"class Node:\n    def __init__(self, v=None):\n        self.v = v\n\n    @property\n    def w(self): return self.v\n\n" F,
     SAME},
    {"@dataclass\nclass A(B, metaclass=M):\n  x: int = 0\n", SAME},
    {"class A[T: int](B[T]): pass\ndef f[*Ts](*a: *Ts, **k) -> {1: 2}: pass\n", SAME},
    {"async def f(x):\n    async with x as y:\n        await y\n", SAME},
    {"async for x in y:\n    pass\n", ""},
    {F F F, SAME},
    {F "\n# Test\nprint(f(1))\n", F "\n# Test\n"},
    {"def f(x): return x\ndef g(x): pass; return x\nf = g; h = f;\n", SAME},
    {"def f(x): return (x,\n  1)\n    y\n", "def f(x): return (x,\n  1)\n"},
    {"import math\nimport the module first\n", "import math\n"},
    {"from the start, we\n", ""},
    {"class of problems:\n  x\n", ""},
    {"class is\n", ""},
    {"def the function:\n  x\n", ""},
    {"import sys; sys.setrecursionlimit(9999)\n" F, ""},
    {"@user said this\n" F, ""},
    /* bodies */
    {"def f(x):\n# at the margin\n    y = 1\n\n# again\n\n\n        # deep\n    return y\n# after\n" G, SAME},
    {"def f(x):\n\ty = x\n\treturn y\n \nx = 1\n", SAME},
    {"def f(x):\n    s = '''\ndef not_this():\nprint(1)\n'''\n    return s\nprint(2)",
     "def f(x):\n    s = '''\ndef not_this():\nprint(1)\n'''\n    return s\n"},
    {"def f(\n  a,  # def g(\n  b=')',\n):\n    return (a +\nb)\n" G, SAME},
    {"def f(x):\n    return x + \\\n1\nf(1)", "def f(x):\n    return x + \\\n1\n"},
    {"def f(x) -> Dict[str, int]:\n    return \"\\\"def \" + 'it''s' + r'\\' + \"\"\"a\\\"\"\"b\"\"\"\n'",
     "def f(x) -> Dict[str, int]:\n    return \"\\\"def \" + 'it''s' + r'\\' + \"\"\"a\\\"\"\"b\"\"\"\n"},
    {"def f(x):\n    return '\\\n(((' # \"\"\"\n" G "(", "def f(x):\n    return '\\\n(((' # \"\"\"\n" G},
    {"def f(x=lambda a, *b: (a, b), *, y: 'int' = {1: 2}) -> (lambda: 1): return x\n", SAME},
    {"def f(x):\r\n\treturn x\r\n\r\ndef g(y):\r\n\treturn y\r\nf(1)\r\n",
     "def f(x):\r\n\treturn x\r\n\r\ndef g(y):\r\n\treturn y\n"},
    {"def f(x):\r    return x\rf(1)\r", "def f(x):\r    return x\n"},
    {F "\f\n\f" G, F "\f\n\f" G},
    {"def f(x):\n    return x)\n" G "f(1)\n", "def f(x):\n    return x)\n" G},
    /* strings with prefixes; fields of f-strings */
    {"a = r'\\'' b'x' + Rb\"\\\\\" + F'{a}' + u'' + fR'''{\na}\n''' 'z'\n", SAME},
    {"a = f\"{x[\"a\"]:>{w}} {{ {y!r} {'}'}\" + f'{f'{1}'}'\nb", "a = f\"{x[\"a\"]:>{w}} {{ {y!r} {'}'}\" + f'{f'{1}'}'\n"},
    {"a = f'\\N{DASH} \\{b}'\nc = f'{b:%H:%M}'\nd = f'{'\n" F, "a = f'\\N{DASH} \\{b}'\nc = f'{b:%H:%M}'\n"},
    {"a = ub'x'\n", ""},
    {"a = 'x\n'\n", ""},
    {"'''Module.\ndef f():\n'''\nimport os\n'again'\n", "'''Module.\ndef f():\n'''\nimport os\n"},
    {"# c\n\"a\" 'b'  # d\n" F, SAME},
    {"'a'.x = 1\n", ""},
    {"\"\"\"not closed\n" F, ""},
    /* assignments and prose that looks like them */
    {"x = 5\ny, (z, *w) = a = [1], {2: 3}\nm[0].n -= 1\nk: int = 3\n(p) = q = ()\nx,= 1,\n", SAME},
    {"x: List[int] = []\ny: 'T' = 1\nz: typing.Any = 2\nw: dict[str, int] = {}\nv: None = None\n", SAME},
    {"Output: x = 5\n", ""},
    {"Output: True\n", ""},
    {"Output: 5\n", ""},
    {"x: int\n", ""},
    {"x = 5 apples\n", ""},
    {"x = 5, y = 3\n", ""},
    {"x = 5 and b = 6\n", ""},
    {"x = the answer\n", ""},
    {"x = 2y\n", ""},
    {"x = y.\n", ""},
    {"x == 5\n", ""},
    {"x += y = 1\n", ""},
    {"f(x) = 5\n", ""},
    {"x := 5\n", ""},
    {"x, y += 1\n", ""},
    {"True = 1\n", ""},
    {"x = 5)\n", ""},
    {"x = (1]\n", ""},
    {"x = 5 if y\n", ""},
    {"Time complexity: O(n)\n", ""},
    {"Result = 5.\n", SAME}, /* 5. is a number */
    {"x = 1if y else.5\ny = 0x1F+1_0e-3j-1.real\nz = not a not in b is not c\n", "x = 1if y else.5\n"},
    {"x = [i async for i in y if not i]\nl = lambda a, b=1, /, *c: a if b else c\nm = (lambda: (yield))\nn = a[1:, ..., ::2] @ "
     "~b\n",
     SAME},
    {"x = await y\nmatch = type = case = print\n", SAME},
    {"x = 1; print(x)\n", ""},
    {"x = 1; y = 2;\n; z = 3\n", "x = 1; y = 2;\n"},
    {"x = 1\n\\\n" F, "x = 1\n\\\n" F},
    /* a line joined to an empty one, which Python needs */
    {"import math\\\n\n" F, SAME},
    {"import math\\\n\nprint(1)\n", "import math\\\n\n"},
    {"def f(x):\n    return x \\\n  \n\nf(1)\n", "def f(x):\n    return x \\\n\n"},
    {F "# not joined \\\nf(1)\n", F "# not joined \\\n"},
    {"def f(x):\n  \x1d\nf(1)\n", "def f(x):\n  \x1d\n"}, /* no blank to Python: a body, though a bad one */
    {F "\v\n", F},
    /* beyond ASCII */
    {"d\xc3\xa9"
     "f = 1\ndef \xe5\x87\xbd\xe6\x95\xb0(\xc3\xa9t\xc3\xa9):\n    return '\xe2\x80\x9c\xf0\x9f\x99\x82'\n\xe2\x86\x92 x",
     "d\xc3\xa9"
     "f = 1\ndef \xe5\x87\xbd\xe6\x95\xb0(\xc3\xa9t\xc3\xa9):\n    return '\xe2\x80\x9c\xf0\x9f\x99\x82'\n"},
    {"x = \xff\xfe\n\x01\n", "x = \xff\xfe\n"},
};

static const struct {
    const char *completion, *program;
} first_cases[] = {
    {"", ""},
    {" \v no function\n \x1c", "no function"},
    {"import math\n" F "\n\n" G, "def f(x):\n    return x"},
    {"@d\nasync def f(x):\n\treturn x\n\n", "def f(x):\n\treturn x"},
    {"undef def x\n  y \n \tz\n#", "def def x\n  y \n \tz"},
    {"dedef f(\n)", "def f("},
    {"def f():\r\n  x\r\n\r\ny", "def f():\r\n  x"},
    {"class A:\n  def f(self): pass\n  def g(self): pass\nx", "def f(self): pass\n  def g(self): pass"},
    {"de f", "de f"},
    {"def", "def"},
};

static const char *const continuations[] = {"",       "\n",        "\ndef g():\n    pass\n",
                                            ")",      "'''",       "\"\"\"\n",
                                            " = 1\n", "\n    x\n", ":\n  y\n",
                                            "]})'",   "\\\n",      "\r\n" F,
                                            "# c\n",  "```\n",     "(\n",
                                            ".x = 2", "=",         "import a\n"};
enum { N_CONTINUATIONS = sizeof continuations / sizeof *continuations };

static char *extract(enum pva_extract_rule rule, const char *text, size_t n_text, size_t *n) {
    struct pva_error err = {0};
    char *program = NULL;
    CHECK_OK(pva_extract(rule, text, n_text, &program, n, &err), err);
    CHECK_FATAL(program && program[*n] == 0);
    return program;
}

static void expect(enum pva_extract_rule rule, const char *text, size_t n_text, const char *program, size_t n_program,
                   const char *what) {
    size_t n;
    char *got = extract(rule, text, n_text, &n);
    check_count++;
    if (n != n_program || memcmp(got, program, n)) {
        check_fail();
        fprintf(stderr, "%s, of \"%.*s\": program is \"%s\", expected \"%s\"\n", what, (int)n_text, text, got, program);
    }
    free(got);
}

/* Feeds byte by byte. At each one: the program is that of the bytes so far; once final, it is that of every continuation, and
 * stays final. Returns how many bytes it took to be final, or -1. */
static long feed_bytes(enum pva_extract_rule rule, const char *text, size_t n_text) {
    struct pva_error err = {0};
    struct pva_extract *x;
    long final_at = -1;
    char *longer = malloc(n_text + 100);
    CHECK_FATAL(longer && !pva_extract_create(rule, &x, &err));
    for (size_t i = 0; i <= n_text; i++) {
        char *program;
        size_t n;
        if (i) CHECK_OK(pva_extract_feed(x, text + i - 1, 1, &err), err);
        CHECK_OK(pva_extract_program(x, &program, &n, &err), err);
        expect(rule, text, i, program, n, "byte by byte");
        if (pva_extract_is_final(x) && final_at < 0) {
            final_at = (long)i;
            expect(rule, text, n_text, program, n, "final too early");
            for (int c = 0; c < N_CONTINUATIONS; c++) {
                size_t n_more = strlen(continuations[c]);
                memcpy(longer, text, i);
                memcpy(longer + i, continuations[c], n_more);
                expect(rule, longer, i + n_more, program, n, "final, continued");
            }
        }
        CHECK_INT(pva_extract_is_final(x), final_at >= 0);
        free(program);
    }
    pva_extract_free(&x);
    CHECK(x == NULL);
    free(longer);
    return final_at;
}

static void test_cases(void) {
    int n = (int)(sizeof cases / sizeof *cases);
    for (int i = 0; i < n; i++) {
        const char *text = cases[i].completion, *program = cases[i].program ? cases[i].program : text;
        expect(PVA_EXTRACT_PROGRAM, text, strlen(text), program, strlen(program), "case");
        feed_bytes(PVA_EXTRACT_PROGRAM, text, strlen(text));
        /* Whatever the program, taking it out of itself changes nothing. */
        expect(PVA_EXTRACT_PROGRAM, program, strlen(program), program, strlen(program), "again");
    }
    for (size_t i = 0; i < sizeof first_cases / sizeof *first_cases; i++) {
        const char *text = first_cases[i].completion, *program = first_cases[i].program;
        expect(PVA_EXTRACT_FIRST_FUNCTION, text, strlen(text), program, strlen(program), "first-function");
        feed_bytes(PVA_EXTRACT_FIRST_FUNCTION, text, strlen(text));
    }
    printf("%d cases of program, %zu of first-function\n", n, sizeof first_cases / sizeof *first_cases);
}

static void test_zero_bytes(void) {
    static const char text[] = "x = '\0'\ndef f():\n    return '''\0'''  # \0\n\0", bad[] = F "x = 1 \0\n";
    expect(PVA_EXTRACT_PROGRAM, text, sizeof text - 1, text, sizeof text - 2, "zero bytes");
    expect(PVA_EXTRACT_PROGRAM, bad, sizeof bad - 1, F, strlen(F), "zero byte in a statement");
    feed_bytes(PVA_EXTRACT_PROGRAM, text, sizeof text - 1);
    feed_bytes(PVA_EXTRACT_PROGRAM, bad, sizeof bad - 1);
}

/* Being late is no error but costs tokens: the usual ends must be seen as soon as they can be. */
static void test_promptness(void) {
    static const struct {
        const char *text;
        long at;
    } prompt[] = {
        {F "assert f(1) == 1\n", sizeof F - 1 + 7}, /* the blank after assert */
        {F "print(f(1))\n", sizeof F - 1 + 12},     /* print(f(1)).x = 1 is an assignment */
        {F "if x:", sizeof F - 1 + 3},
        {F "```\n", sizeof F - 1 + 3},
        {F "This is\n", sizeof F - 1 + 8}, /* "is" is an operator that no target has */
        {F "The function\n", sizeof F - 1 + 13},
        {F "  \n\n" G, -1},
        {"Here is", -1},
        {"Here is ", 8},
        {"def f(x):\nprint", 11},
        {F "# c\n", -1},
        {"import math\nimport the module first", 29 + 1},
    };
    for (size_t i = 0; i < sizeof prompt / sizeof *prompt; i++)
        CHECK_INT(feed_bytes(PVA_EXTRACT_PROGRAM, prompt[i].text, strlen(prompt[i].text)), prompt[i].at);
    CHECK_INT(feed_bytes(PVA_EXTRACT_FIRST_FUNCTION, F G, strlen(F G)), (long)strlen(F) + 1);
}

/* Splices of pieces chosen to meet at bad places; fed in pieces of random length, and byte by byte. */
static void test_random(void) {
    static const char *const pieces[] = {"def f(x):\n",
                                         "    return x\n",
                                         "\treturn (x",
                                         ")\n",
                                         "def ",
                                         "class A",
                                         "(B)",
                                         ":",
                                         ":\n",
                                         "\n",
                                         "\r\n",
                                         "\r",
                                         " ",
                                         "    ",
                                         "x",
                                         " = ",
                                         "5",
                                         "'",
                                         "'''",
                                         "\"",
                                         "\"\"\"",
                                         "\\",
                                         "\\\n",
                                         "#",
                                         "# c\n",
                                         "f'",
                                         "{",
                                         "}",
                                         "{x",
                                         "}'",
                                         "[",
                                         "]",
                                         "(",
                                         ",",
                                         ";",
                                         "@d\n",
                                         "async ",
                                         "import ",
                                         "from ",
                                         "a.b",
                                         " as ",
                                         "```",
                                         "```python\n",
                                         "print(1)\n",
                                         "if ",
                                         "else",
                                         "not ",
                                         "in ",
                                         "lambda ",
                                         "yield",
                                         "0x",
                                         "1e",
                                         "..",
                                         ".",
                                         "*",
                                         "->",
                                         "int",
                                         "\f",
                                         "\xc3\xa9",
                                         "!",
                                         ":=",
                                         "+=",
                                         "=",
                                         "x = 1\n",
                                         "import math\n",
                                         F,
                                         G,
                                         "'''doc'''\n",
                                         "rb'",
                                         "T: int = 1\n"};
    uint32_t draw = 0;
#define BELOW(n) pva_rng_below(20240711, PVA_RNG_WEIGHTS, (uint32_t)round, 0, draw++, n)
    int n_final = 0, n_programs = 0, rounds = 6000;
    for (int round = 0; round < rounds; round++) {
        char text[400];
        size_t n_text = 0, n_whole, n_fed;
        int n_pieces = 1 + (int)BELOW(14);
        for (int i = 0; i < n_pieces; i++) {
            const char *piece = pieces[BELOW(sizeof pieces / sizeof *pieces)];
            size_t n = strlen(piece);
            if (n_text + n > sizeof text) break;
            memcpy(text + n_text, piece, n);
            n_text += n;
        }
        enum pva_extract_rule rule = round % 10 ? PVA_EXTRACT_PROGRAM : PVA_EXTRACT_FIRST_FUNCTION;
        n_final += feed_bytes(rule, text, n_text) >= 0;
        struct pva_error err = {0};
        struct pva_extract *x;
        char *whole = extract(rule, text, n_text, &n_whole), *fed;
        CHECK_FATAL(!pva_extract_create(rule, &x, &err));
        for (size_t at = 0; at < n_text;) {
            size_t n = (size_t)BELOW(9);
            if (n > n_text - at) n = n_text - at;
            CHECK_OK(pva_extract_feed(x, text + at, n, &err), err);
            at += n;
        }
        CHECK_OK(pva_extract_program(x, &fed, &n_fed, &err), err);
        CHECK(n_fed == n_whole && !memcmp(fed, whole, n_fed));
        n_programs += n_whole > 0;
        if (rule == PVA_EXTRACT_PROGRAM) expect(rule, whole, n_whole, whole, n_whole, "again");
        free(whole);
        free(fed);
        pva_extract_free(&x);
    }
    CHECK(n_final > rounds / 4 && n_programs > rounds / 8); /* the splices reach both */
}

/* 100 kB by three bytes, with a question after each: linear, so a small part of a second on any machine. */
static void test_long(void) {
    enum { LONG = 1 << 17 };
    struct pva_error err = {0};
    struct pva_extract *x;
    size_t n = strlen(F);
    char *text = malloc(LONG + n);
    CHECK_FATAL(text && !pva_extract_create(PVA_EXTRACT_PROGRAM, &x, &err));
    for (size_t i = 0; i < LONG; i += n) memcpy(text + i, F, n);
    clock_t begin = clock();
    for (size_t i = 0; i < LONG; i += 3) {
        CHECK_FATAL(!pva_extract_feed(x, text + i, LONG - i < 3 ? LONG - i : 3, &err));
        CHECK_FATAL(!pva_extract_is_final(x));
    }
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    printf("%d bytes in %.1f ms\n", LONG, seconds * 1e3);
    CHECK(seconds < 2);
    pva_extract_free(&x);
    /* Brackets deeper than any parser takes. */
    memset(text, '(', LONG);
    memcpy(text, "x=", 2);
    expect(PVA_EXTRACT_PROGRAM, text, LONG, "", 0, "deep");
    memcpy(text, "def f(x):\n ", 11);
    expect(PVA_EXTRACT_PROGRAM, text, LONG, "", 0, "deep");
    memset(text + 11 + (LONG - 11) / 2, ')', LONG - 11 - (LONG - 11) / 2);
    text[LONG - 1] = '\n';
    expect(PVA_EXTRACT_PROGRAM, text, LONG, text, LONG, "deep and closed");
    free(text);
}

/* Counted with Python 3.11's ast: `code` of a line qualifies when each statement of ast.parse(code).body is an Import,
 * ImportFrom, Assign, AugAssign, AnnAssign with a value, FunctionDef, AsyncFunctionDef or ClassDef. All 974 do: 1020 FunctionDef,
 * 146 Import, 47 ImportFrom, 16 Assign, 4 ClassDef. */
enum { N_PROBLEMS = 974, N_QUALIFY = 974 };

static void test_references(void) {
    const char *shared = getenv("PVA_TEST_SHARED");
    char path[600];
    snprintf(path, sizeof path, "%.500s/data/mbpp.jsonl", shared ? shared : "");
    FILE *f = fopen(path, "r");
    if (!f) {
        CHECK_SKIP("the reference solutions of MBPP: no data/mbpp.jsonl in PVA_TEST_SHARED");
        return;
    }
    char *line = NULL;
    size_t capacity = 0;
    int n_lines = 0, n_whole = 0, n_early = 0;
    for (ssize_t n_line; (n_line = getline(&line, &capacity, f)) > 0; n_lines++) {
        struct pva_error err = {0};
        struct pva_extract *x;
        json_t *problem = json_loadb(line, (size_t)n_line, 0, NULL), *value = json_object_get(problem, "code");
        CHECK_FATAL(json_is_string(value));
        const char *code = json_string_value(value);
        size_t n_code = json_string_length(value), n, n_text = n_code;
        char *program;
        while (n_text && strchr(" \t\r\n", code[n_text - 1])) n_text--;
        while (n_text && strchr("\r\n", *code)) code++, n_code--, n_text--; /* one begins with a blank line */
        CHECK_FATAL(!pva_extract_create(PVA_EXTRACT_PROGRAM, &x, &err));
        for (size_t i = 0; i < n_code; i++) {
            CHECK_FATAL(!pva_extract_feed(x, code + i, 1, &err));
            n_early += pva_extract_is_final(x);
        }
        CHECK_OK(pva_extract_feed(x, "\n\nprint(1)\n", 11, &err), err);
        CHECK(pva_extract_is_final(x));
        CHECK_OK(pva_extract_program(x, &program, &n, &err), err);
        n_whole += n == n_text + 1 && !memcmp(program, code, n_text) && program[n_text] == '\n';
        free(program);
        program = extract(PVA_EXTRACT_PROGRAM, json_string_value(value), json_string_length(value), &n);
        CHECK(n == n_text + 1 && !memcmp(program, code, n_text));
        free(program);
        pva_extract_free(&x);
        json_decref(problem);
    }
    free(line);
    fclose(f);
    CHECK_INT(n_lines, N_PROBLEMS);
    CHECK_INT(n_whole, N_QUALIFY);
    CHECK_INT(n_early, 0);
}

static void test_rules(void) {
    struct pva_error err = {0};
    enum pva_extract_rule rule = PVA_EXTRACT_PROGRAM;
    CHECK_TEXT(pva_extract_rule_name(PVA_EXTRACT_PROGRAM), "program");
    CHECK_TEXT(pva_extract_rule_name(PVA_EXTRACT_FIRST_FUNCTION), "first-function");
    CHECK_OK(pva_extract_rule_parse("first-function", &rule, &err), err);
    CHECK_INT(rule, PVA_EXTRACT_FIRST_FUNCTION);
    CHECK_OK(pva_extract_rule_parse("program", &rule, &err), err);
    CHECK_INT(rule, PVA_EXTRACT_PROGRAM);
    CHECK_INT(pva_extract_rule_parse("Program", &rule, &err), PVA_USAGE);
    CHECK_HAS(err.msg, "\"Program\" is unknown: program or first-function");
}

int main(void) {
    test_rules();
    test_cases();
    test_zero_bytes();
    test_promptness();
    test_random();
    test_long();
    test_references();
    return check_report("test_extract");
}
