/* Verdicts, and programs that do not want one: every hostile program under every sandbox this machine can build, as root and as a
 * user. Nothing may pass, nothing may stay behind, and the grader must go on working. */
#include "check.h"
#include "grade_cases.h"
#include "pva/grade.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct pva_problem problem_of(char **test, const char *code, const char *setup) {
    return (struct pva_problem){.kind = PVA_MBPP,
                                .task_id = "1",
                                .number = 1,
                                .text = "",
                                .code = (char *)code,
                                .setup = (char *)setup,
                                .tests = test,
                                .n_tests = 1,
                                .entry_point = ""};
}

static struct pva_grade_result grade_one(struct pva_grader *g, const struct pva_problem *p, const char *program) {
    struct pva_error err = {0};
    struct pva_grade_result r = {.verdict = PVA_N_VERDICTS};
    struct pva_grade_job job = {.id = 7, .problem = p, .program = program, .n_program = strlen(program)};
    CHECK_OK(pva_grader_run(g, &job, &r, &err), err);
    CHECK_INT(r.id, 7);
    return r;
}

/* ---- Verdict classes ---- */

struct expected {
    const char *program, *setup, *test;
    enum pva_verdict verdict;
    const char *kind, *detail;
};

static void test_verdicts(void) {
    static const char node[] = "class Node:\n    def __init__(self, v):\n        self.v = v\n        self.left = None\ndef "
                               "f(n):\n    return n.v + (f(n.left) if n.left else 0)\n";
    static const struct expected rows[] = {
        {"def f(x): return x", "", "assert f(3) == 3", PVA_PASS, "", ""},
        {"def f(x): return x", "", "assert f(3) == 4", PVA_ASSERTION, "AssertionError", "last answer was 3"},
        {"def f(x): return x", "", "assert f(3) == 4, 'why'", PVA_ASSERTION, "AssertionError", "why"},
        {"def f(x): return 1 / 0", "", "assert f(3) == 4", PVA_EXCEPTION, "ZeroDivisionError", "program line 1"},
        {"def g(x): return x", "", "assert f(3) == 4", PVA_EXCEPTION, "NameError", "'f'"},
        {"def f(): return 1", "", "assert f(3) == 4", PVA_EXCEPTION, "TypeError", ""},
        {"class E(ValueError): pass\ndef f(x): raise E('no')", "", "assert f(3) == 4", PVA_EXCEPTION, "E", "no"},
        {"import numpy_is_not_here", "", "assert 1", PVA_EXCEPTION, "ModuleNotFoundError", ""},
        {"def f(x:", "", "assert 1", PVA_SYNTAX, "SyntaxError", ""},
        {"def f(x):\nreturn 1", "", "assert 1", PVA_SYNTAX, "SyntaxError", "line 2"},
        {"def f(x):\n\treturn 1\n        return 2", "", "assert 1", PVA_SYNTAX, "SyntaxError", ""},
        {"def f(x):\n  while 1: pass", "", "assert f(3) == 4", PVA_TIMEOUT, "", "CPU time"},
        {"import time\ndef f(x): time.sleep(99)", "", "assert f(3) == 4", PVA_TIMEOUT, "", "asleep"},
        {"def f(x): return bytearray(1 << 33)", "", "assert f(3) == 4", PVA_MEMORY, "", ""},
        {"import os\ndef f(x): os.fork()", "", "assert f(3) == 4", PVA_SANDBOX, "PermissionError", ""},
        {"", "", "assert 1", PVA_NO_CODE, "", ""},
        {" \n\t\n", "", "assert 1", PVA_NO_CODE, "", ""},
        {"# nothing\n'''text'''\n", "", "assert 1", PVA_NO_CODE, "", ""},
        {"pass\n", "", "assert 1", PVA_NO_CODE, "", ""},
        {"while True: pass\n", "", "assert 1", PVA_TIMEOUT, "", "CPU time"},
        {"def f(x): return x", "", "assert f(3) ==", PVA_UNGRADED, "SyntaxError", "not Python"},
        /* values and how they travel */
        {"def f(x): return x", "",
         "assert f([1, (2.5, 'a'), {'k': {1, 2}}, None, True, b'x', 1j]) == [1, (2.5, 'a'), {'k': {1, 2}}, None, True, b'x', 1j]",
         PVA_PASS, "", ""},
        {"def f(x): return x", "", "assert f((1, 2)) == [1, 2]", PVA_ASSERTION, "AssertionError", "(1, 2)"},
        {"def f(x): return x", "", "assert f(10 ** 400) == 10 ** 400 and f(-2 ** 53) == -2 ** 53", PVA_PASS, "", ""},
        {"def f(x): return x", "",
         "assert f(0.1 + 0.2) == 0.1 + 0.2 and f(1e308 * 10) == float('inf') and str(f(-0.0)) == '-0.0'", PVA_PASS, "", ""},
        {"def f(x): return x", "", "assert f('\\ud800é\\0') == '\\ud800é\\0'", PVA_PASS, "", ""},
        {"def f(x): return x", "", "assert f(range(3)) == range(3) and f(...) is ... and f(int) is int and f(None) is None",
         PVA_PASS, "", ""},
        {"from collections import *\ndef f(x): return [Counter(x), OrderedDict(a=1), deque(x), defaultdict(int, {1: 2})]", "",
         "assert f('aab') == [{'a': 2, 'b': 1}, {'a': 1}, __import__('collections').deque('aab'), {1: 2}]", PVA_PASS, "", ""},
        {"from decimal import *\nfrom fractions import *\nimport datetime\ndef f(x): return Decimal('1.10'), Fraction(1, 3), "
         "datetime.date(2020, 1, 2), datetime.timedelta(1)",
         "",
         "import decimal, fractions, datetime\nassert f(1) == (decimal.Decimal('1.1'), fractions.Fraction(1, 3), "
         "datetime.date(2020, 1, 2), datetime.timedelta(1))",
         PVA_PASS, "", ""},
        {"from collections import namedtuple\nP = namedtuple('P', 'a b')\ndef f(x): return P(1, 2)", "", "assert f(1) == (1, 2)",
         PVA_PASS, "", ""},
        {"def f(n):\n  for i in range(n): yield i", "", "assert list(f(5000)) == list(range(5000))", PVA_PASS, "", ""},
        {"def f():\n  i = 0\n  while True:\n    yield i\n    i += 1", "",
         "g = f()\nassert [next(g) for _ in range(5)] == [0, 1, 2, 3, 4]", PVA_PASS, "", ""},
        {"f = lambda *a: map(lambda x: x + 1, a)", "", "assert tuple(f(1, 2)) == (2, 3)", PVA_PASS, "", ""},
        {"def f(g, xs): return [g(x) for x in xs]", "",
         "assert f(lambda x: x * 2, [1, 2]) == [2, 4] and f(abs, (-1,)) == [1] and f(str, iter([1])) == ['1']", PVA_PASS, "", ""},
        {"def f(x): return lambda y: x + y", "", "assert f(3)(4) == 7 and callable(f(3))", PVA_PASS, "", ""},
        {"def f(x): x.sort(); x.append(9)", "", "a = [3, 1]\nf(a)\nassert a == [1, 3, 9]", PVA_PASS, "", ""},
        {"def f(d, s): d['k'] = 1; s.add(2)", "", "d, s = {}, {1}\nf(d, s)\nassert d == {'k': 1} and s == {1, 2}", PVA_PASS, "",
         ""},
        {"def f(x): raise KeyError('k')", "",
         "try:\n    f(1)\n    assert False\nexcept KeyError as e:\n    assert e.args == ('k',)", PVA_PASS, "", ""},
        {"def f(x, *, k=1): return x + k", "", "assert f(1, k=2) == 3 and f(x=1) == 2", PVA_PASS, "", ""},
        {node, "root = Node(1)\nroot.left = Node(2)\n", "assert f(root) == 3 and isinstance(root, Node) and root.left.v == 2",
         PVA_PASS, "", ""},
        {"class V:\n  def __init__(self, x): self.x = x\n  def __add__(self, o): return V(self.x + o.x)\n  def __eq__(self, o): "
         "return self.x == o.x\n  def __len__(self): return self.x\n  "
         "def __getitem__(self, i): return i\n  def __repr__(self): return 'V'",
         "", "assert V(1) + V(2) == V(3) and len(V(4)) == 4 and V(1)[7] == 7 and str(V(1)) == 'V'", PVA_PASS, "", ""},
        {"import math\ndef f(x): return math.pi", "", "import math\nassert math.isclose(f(1), 3.14159265, rel_tol=1e-6)",
         PVA_PASS, "", ""},
        {"def f(x): return math.sqrt(x)", "import math\n", "assert f(9) == 3", PVA_PASS, "", ""},
        {"def f(x): return math.sqrt(x)", "", "assert f(9) == 3", PVA_EXCEPTION, "NameError", ""},
        {"def f(x): return 3", "", "assert f(9) == 3\nassert set(f(1) for _ in range(3)) == {3}", PVA_PASS, "", ""},
        {"set = lambda x: 0\ndef f(x): return []", "", "assert set(f(1)) == set([1, 2])", PVA_ASSERTION, "AssertionError", ""},
        {"import random\na = random.random()\ndef f(x): return a", "",
         "assert f(1) == 0.8444218515250481 and hash('a') == hash('a')", PVA_PASS, "", ""},
        {"from dataclasses import dataclass\n@dataclass\nclass A:\n  x: 'int' = 1\ndef f(x): return A().x", "",
         "assert f(1) == 1", PVA_PASS, "", ""},
        {"def f(x): return __name__", "", "assert f(1) == 'program'", PVA_PASS, "", ""},
        {"import tempfile, os\ndef f(x):\n  return input()", "", "assert f(1)", PVA_EXCEPTION, "EOFError", ""},
    };
    struct pva_error err = {0};
    struct pva_grader *g;
    struct pva_sandbox sandbox;
    struct pva_grader_settings s = {.n_jobs = 2, .cpu_seconds = 0.5};
    CHECK_OK(pva_grader_open(&s, &g, &sandbox, &err), err);
    if (err.code) return;
    printf("sandbox %s; %s %s\n", sandbox.text, sandbox.python, sandbox.version);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *test = (char *)rows[i].test;
        struct pva_problem p = problem_of(&test, "", rows[i].setup);
        struct pva_grade_result r = grade_one(g, &p, rows[i].program);
        int before = check_failures;
        CHECK_INT(r.verdict, rows[i].verdict);
        CHECK_TEXT(r.kind, rows[i].kind);
        CHECK_HAS(r.detail, rows[i].detail);
        if (check_failures != before)
            fprintf(stderr, "  row %zu: %s [%s] %s\n    %s\n    %s\n", i, pva_verdict_name(r.verdict), r.kind, r.detail,
                    rows[i].program, rows[i].test);
    }

    /* What the record keeps. */
    char *tests[] = {"assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 4"};
    struct pva_problem p = problem_of(tests, "", "");
    p.n_tests = 3;
    struct pva_grade_result r =
        grade_one(g, &p, "import sys\ndef f(x):\n    print('out', x)\n    print('é' * 3000, file=sys.stderr)\n    return x\n");
    CHECK_INT(r.failed_test, 2);
    CHECK_TEXT(r.out, "out 1\nout 2\nout 3\n");
    CHECK(strlen(r.err) >= 2000 && strlen(r.err) <= 2048);
    CHECK(r.cpu_seconds > 0 && r.cpu_seconds < 0.5 && r.peak_memory > 1 << 20 && r.wall_seconds > 0);
    CHECK_NEAR(r.cpu_limit, 0.5, 1e-12);

    /* A reference that is slow raises the limit of its programs. */
    char *slow_test[] = {"assert f(1) == 1"};
    static const char slow[] = "import time\ndef f(x):\n    while time.process_time() < 0.9: pass\n    return x\n";
    struct pva_problem q = problem_of(slow_test, slow, "");
    r = grade_one(g, &q, slow);
    CHECK_INT(r.verdict, PVA_PASS);
    CHECK(r.cpu_limit > 3 && r.cpu_seconds > 0.5);
    r = grade_one(g, &q, "def f(x):\n    while True: pass\n");
    CHECK_INT(r.verdict, PVA_TIMEOUT);
    CHECK(r.cpu_limit > 3);

    /* HumanEval: the prompt's helper is the tests' own. */
    char *check[] = {"import math\nMETADATA = {}\n\ndef check(candidate):\n    assert candidate(2) == 4\n    for i in "
                     "range(5):\n        assert helper(candidate(i)) == i * i + 1\n"};
    struct pva_problem h = {.kind = PVA_HUMANEVAL,
                            .task_id = "HumanEval/0",
                            .text = "def helper(x):\n    return x + 1\n\ndef sq(x):\n    \"\"\"Square.\"\"\"\n",
                            .code = "",
                            .setup = "",
                            .tests = check,
                            .n_tests = 1,
                            .entry_point = "sq"};
    r = grade_one(g, &h, "def helper(x):\n    return x + 1\n\ndef sq(x):\n    \"\"\"Square.\"\"\"\n    return x * x\n");
    CHECK_INT(r.verdict, PVA_PASS);
    r = grade_one(g, &h, "def helper(x):\n    return {0: 1}.get(0) or 1\n\ndef sq(x):\n    return 4\n");
    CHECK_INT(r.verdict, PVA_ASSERTION);
    CHECK_INT(r.failed_test, 1);
    r = grade_one(g, &h, "def other(x):\n    return x * x\n");
    CHECK_INT(r.verdict, PVA_EXCEPTION);
    CHECK_TEXT(r.kind, "NameError");
    pva_grader_close(&g);
    CHECK(!g);

    s.preload_imports = 1;
    CHECK_OK(pva_grader_open(&s, &g, NULL, &err), err);
    char *nine[] = {"assert f(9) == 3"};
    struct pva_problem m = problem_of(nine, "", "");
    CHECK_INT(grade_one(g, &m, "def f(x) -> List[int]: return math.sqrt(x)").verdict, PVA_PASS);
    pva_grader_close(&g);
}

/* ---- Hostile programs ---- */

static int count_ours(const char *dir) { /* entries a hostile program would have made */
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) n += strstr(e->d_name, "hostile") != NULL;
    if (d) closedir(d);
    return n;
}

static int count_descendants(void) { /* processes named like ours, children of this one or of its servers */
    char path[64], line[256];
    int n = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *e; proc && (e = readdir(proc));) {
        snprintf(path, sizeof path, "/proc/%.20s/status", e->d_name);
        FILE *f = fopen(path, "re");
        while (f && fgets(line, sizeof line, f))
            if (!strncmp(line, "PPid:", 5) && atoi(line + 5) == getpid()) n++;
        if (f) fclose(f);
    }
    if (proc) closedir(proc);
    return n;
}

static int ipc_segments(void) {
    int n = 0, c;
    static const char *const files[] = {"/proc/sysvipc/shm", "/proc/sysvipc/msg", "/proc/sysvipc/sem"};
    for (int i = 0; i < 3; i++) {
        FILE *f = fopen(files[i], "re");
        while (f && (c = getc(f)) != EOF) n += c == '\n';
        if (f) fclose(f);
    }
    return n;
}

/* In a process of its own, as user `uid` (0: root): the whole table, several at once. */
static int hostile_table(unsigned without, uid_t uid, enum pva_sandbox_level expected) {
    if (uid != geteuid() && (setresgid(uid, uid, uid) || setresuid(uid, uid, uid))) return 77;
    prctl(PR_SET_DUMPABLE, 1); /* as after exec: otherwise its /proc entries stay root's */
    struct pva_error err = {0};
    struct pva_grader *g;
    struct pva_sandbox sandbox;
    struct pva_grader_settings s = {.n_jobs = 3, .cpu_seconds = 0.5, .memory = (size_t)512 << 20, .without = without};
    int files = count_ours("/tmp") + count_ours("/var/tmp") + count_ours("/dev/shm"), segments = ipc_segments();
    CHECK_OK(pva_grader_open(&s, &g, &sandbox, &err), err);
    if (err.code) return check_report("hostile");
    char title[512];
    snprintf(title, sizeof title, "as user %u, %s", (unsigned)uid, sandbox.text);
    if (sandbox.level < expected) {
        CHECK_SKIP("this machine does not offer that: %s", title);
        pva_grader_close(&g);
        return 77;
    }
    char *test = "assert f(3) == 9";
    struct pva_problem p = problem_of(&test, "", "");
    const size_t n = sizeof hostile / sizeof *hostile, n_honest = sizeof honest / sizeof *honest;
    double start = now();
    for (size_t i = 0; i < n + n_honest; i++) {
        const struct hostile *h = i < n ? &hostile[i] : &honest[i - n];
        size_t length = strcmp(h->name, "hidden source") ? strlen(h->program) : strlen(h->program) + 2;
        struct pva_grade_job job = {.id = (int64_t)i, .problem = &p, .program = h->program, .n_program = length};
        CHECK_OK(pva_grader_submit(g, &job, &err), err);
    }
    int counts[PVA_N_VERDICTS + 1] = {0};
    for (size_t i = 0; i < n + n_honest; i++) {
        struct pva_grade_result r = {.verdict = PVA_N_VERDICTS};
        int got = 0;
        while (!got && !err.code) pva_grader_poll(g, -1, &r, &got, &err);
        CHECK_OK(err.code, err);
        if (err.code) break;
        int is_hostile = (size_t)r.id < n,
            bad = is_hostile ? r.verdict == PVA_PASS || r.verdict == PVA_UNGRADED : r.verdict != PVA_PASS;
        if (bad)
            fprintf(stderr, "%s: %s: %s [%s] %s\n%s\n", title, is_hostile ? hostile[r.id].name : honest[(size_t)r.id - n].name,
                    pva_verdict_name(r.verdict), r.kind, r.detail, r.err);
        if (getenv("PVA_SHOW"))
            printf("  %-36s %-10s %-18s %s\n", is_hostile ? hostile[r.id].name : honest[(size_t)r.id - n].name,
                   pva_verdict_name(r.verdict), r.kind, r.detail);
        CHECK(!bad);
        if (is_hostile) counts[r.verdict]++;
    }
    CHECK_INT(pva_grader_pending(g), 0);
    CHECK_INT(grade_one(g, &p, "def f(x): return 9").verdict, PVA_PASS);
    double elapsed = now() - start;
    pva_grader_close(&g);
    CHECK_INT(count_descendants(), 0);
    CHECK_INT(count_ours("/tmp") + count_ours("/var/tmp") + count_ours("/dev/shm"), files);
    CHECK_INT(ipc_segments(), segments);
    printf("%zu hostile programs %s:", n, title);
    for (int v = 0; v < PVA_N_VERDICTS; v++)
        if (counts[v]) printf(" %d %s", counts[v], pva_verdict_name((enum pva_verdict)v));
    printf("; %.1f s\n", elapsed);
    return check_report("hostile");
}

static pid_t in_a_child(unsigned without, uid_t uid, enum pva_sandbox_level expected) {
    fflush(stdout);
    pid_t pid = fork();
    CHECK_FATAL(pid >= 0);
    if (pid == 0) {
        check_failures = check_count = 0;
        int rc = hostile_table(without, uid, expected);
        fflush(stdout);
        _exit(rc);
    }
    return pid;
}

static void test_hostile(void) {
    const unsigned bare = PVA_LAYER_USER | PVA_LAYER_PROCESS | PVA_LAYER_MOUNT | PVA_LAYER_LANDLOCK;
    CHECK(sizeof hostile / sizeof *hostile >= 60);
    uid_t user = geteuid() ? geteuid() : 64123;
    pid_t pids[5];
    int n = 0; /* all at once: graders on one node do not disturb each other */
    if (!geteuid()) {
        pids[n++] = in_a_child(0, 0, PVA_SANDBOX_STRONG);
        pids[n++] = in_a_child(bare, 0, PVA_SANDBOX_BASIC);
        if (getenv("PVA_FULL")) pids[n++] = in_a_child(PVA_LAYER_USER, 0, PVA_SANDBOX_STRONG);
    } else CHECK_SKIP("the rounds as root");
    pids[n++] = in_a_child(0, user, PVA_SANDBOX_STRONG);
    pids[n++] = in_a_child(bare, user, PVA_SANDBOX_BASIC);
    while (n--) {
        int status = -1;
        while (waitpid(pids[n], &status, 0) < 0 && errno == EINTR) {
        }
        CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77));
    }
}

/* ---- Refusals, death of servers, two graders ---- */

static void test_refusals(void) {
    struct pva_error err = {0};
    struct pva_grader *g;
    struct pva_grader_settings s = {.n_jobs = 1, .without = PVA_LAYER_SECCOMP};
    CHECK_INT(pva_grader_open(&s, &g, NULL, &err), PVA_REFUSED);
    CHECK_HAS(err.msg, "--sandbox=none-i-understand");
    CHECK(!g);
    err = (struct pva_error){0};
    s.allow_none = 1;
    struct pva_sandbox sandbox;
    CHECK_OK(pva_grader_open(&s, &g, &sandbox, &err), err);
    CHECK_INT(sandbox.level, PVA_SANDBOX_NONE);
    pva_grader_close(&g);
    s = (struct pva_grader_settings){.n_jobs = 1, .without = PVA_LAYER_MOUNT, .require = PVA_SANDBOX_STRONG};
    err = (struct pva_error){0};
    CHECK_INT(pva_grader_open(&s, &g, NULL, &err), PVA_REFUSED);
    CHECK_HAS(err.msg, "--require-sandbox");
    s = (struct pva_grader_settings){.n_jobs = 1, .python = "/nowhere/python3"};
    err = (struct pva_error){0};
    CHECK_INT(pva_grader_open(&s, &g, NULL, &err), PVA_IO);
    CHECK_HAS(err.msg, "/nowhere/python3");
    s = (struct pva_grader_settings){.n_jobs = 1, .python = "/bin/true"};
    err = (struct pva_error){0};
    CHECK_INT(pva_grader_open(&s, &g, NULL, &err), PVA_IO);
    s = (struct pva_grader_settings){.n_jobs = 65};
    err = (struct pva_error){0};
    CHECK_INT(pva_grader_open(&s, &g, NULL, &err), PVA_USAGE);
}

/* The process id of a child of ours that runs Python. */
static pid_t server_pid(void) {
    char path[64], line[256];
    pid_t found = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *e; proc && (e = readdir(proc));) {
        int ours = 0, python = 0;
        snprintf(path, sizeof path, "/proc/%.20s/status", e->d_name);
        FILE *f = fopen(path, "re");
        while (f && fgets(line, sizeof line, f)) {
            ours |= !strncmp(line, "PPid:", 5) && atoi(line + 5) == getpid();
            python |= !strncmp(line, "Name:", 5) && strstr(line, "python");
        }
        if (f) fclose(f);
        if (ours && python) found = atoi(e->d_name);
    }
    if (proc) closedir(proc);
    return found;
}

static void test_death(void) {
    struct pva_error err = {0};
    struct pva_grader *g;
    struct pva_grader_settings s = {.n_jobs = 2};
    char *test = "assert f(3) == 9";
    struct pva_problem p = problem_of(&test, "", "");
    CHECK_OK(pva_grader_open(&s, &g, NULL, &err), err);
    static const char slow[] = "import time\ntime.sleep(0.3)\ndef f(x): return 9\n";
    for (int round = 0; round < 2; round++) { /* the first server dies, then its first successor; no job twice in the same way */
        for (int i = 0; i < 6; i++) {
            struct pva_grade_job job = {.id = i, .problem = &p, .program = slow, .n_program = strlen(slow)};
            CHECK_OK(pva_grader_submit(g, &job, &err), err);
        }
        struct pva_grade_result r;
        int got = 0, passed = 0, done = 0;
        while (!got && !err.code) pva_grader_poll(g, -1, &r, &got, &err);
        done += got, passed += got && r.verdict == PVA_PASS;
        pid_t pid = server_pid();
        CHECK(pid > 0);
        if (pid > 0) kill(pid, SIGKILL);
        while (done < 6 && !err.code) {
            pva_grader_poll(g, -1, &r, &got, &err);
            done += got, passed += got && r.verdict == PVA_PASS;
        }
        CHECK_OK(err.code, err);
        CHECK_INT(passed, 6);
    }
    pid_t pid = server_pid();
    if (pid > 0) kill(pid, SIGKILL); /* the last one */
    struct pva_grade_job job = {.id = 1, .problem = &p, .program = slow, .n_program = strlen(slow)};
    struct pva_grade_result r;
    CHECK_INT(pva_grader_run(g, &job, &r, &err), PVA_IO);
    CHECK_HAS(err.msg, "server ended");
    pva_grader_close(&g);
    CHECK_INT(count_descendants(), 0);
}

/* To every process below this one; returns how many. */
static int signal_descendants(pid_t parent, int number) {
    char path[64], line[256];
    int n = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *e; proc && (e = readdir(proc));) {
        int child = 0;
        snprintf(path, sizeof path, "/proc/%.20s/status", e->d_name);
        FILE *f = fopen(path, "re");
        while (f && fgets(line, sizeof line, f)) child |= !strncmp(line, "PPid:", 5) && atoi(line + 5) == parent;
        if (f) fclose(f);
        if (child) n += 1 + signal_descendants(atoi(e->d_name), number), kill(atoi(e->d_name), number);
    }
    if (proc) closedir(proc);
    return n;
}

/* A batch system that ends a job sends its signal to all processes: programs in flight keep their verdicts, and the grader goes on. */
static void test_asked_to_stop(unsigned without) {
    static const int numbers[] = {SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGUSR2};
    struct pva_error err = {0};
    struct pva_grader *g;
    struct pva_grader_settings s = {.n_jobs = 2, .require = PVA_SANDBOX_BASIC, .without = without};
    char *test = "assert f(3) == 9";
    struct pva_problem p = problem_of(&test, "", "");
    CHECK_OK(pva_grader_open(&s, &g, NULL, &err), err);
    static const char slow[] = "import time\ntime.sleep(0.3)\ndef f(x): return 9\n";
    for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) {
        struct pva_grade_job job = {.id = 7, .problem = &p, .program = slow, .n_program = strlen(slow)};
        struct pva_grade_result r = {.verdict = PVA_N_VERDICTS};
        int got = 0, most = 0;
        CHECK_OK(pva_grader_submit(g, &job, &err), err);
        while (!got && !err.code) {
            int n = signal_descendants(getpid(), numbers[k]);
            if (n > most) most = n;
            pva_grader_poll(g, 30, &r, &got, &err);
        }
        CHECK(most >= 3); /* a server, an evaluator, the program */
        CHECK_OK(err.code, err);
        CHECK_INT(r.verdict, PVA_PASS);
    }
    pva_grader_close(&g);
}

static void test_two_graders(void) {
    struct pva_error err = {0};
    struct pva_grader *a, *b;
    struct pva_grader_settings s = {.n_jobs = 2};
    char *test = "assert f(3) == 9";
    struct pva_problem p = problem_of(&test, "", "");
    CHECK_OK(pva_grader_open(&s, &a, NULL, &err), err);
    CHECK_OK(pva_grader_open(&s, &b, NULL, &err), err);
    for (int i = 0; i < 20; i++) {
        struct pva_grade_job job = {.id = i, .problem = &p, .program = "def f(x): return 9", .n_program = 18};
        CHECK_OK(pva_grader_submit(i % 2 ? a : b, &job, &err), err);
    }
    int passed = 0;
    for (int i = 0; i < 20; i++) {
        struct pva_grade_result r;
        int got = 0;
        while (!got && !err.code) pva_grader_poll(i % 2 ? a : b, -1, &r, &got, &err);
        passed += r.verdict == PVA_PASS && r.id % 2 == i % 2;
        if (i == 11) { /* the others do not need its companion */
            struct pollfd fd = {.fd = pva_grader_fd(a), .events = POLLIN};
            CHECK(poll(&fd, 1, 10000) >= 0);
        }
    }
    CHECK_INT(passed, 20);
    pva_grader_close(&a);
    CHECK_INT(grade_one(b, &p, "def f(x): return 9").verdict, PVA_PASS);
    pva_grader_close(&b);
}

/* The owner is killed: its servers and programs go with it. */
static void test_orphans(void) {
    int fds[2];
    CHECK_FATAL(!pipe(fds));
    pid_t pid = fork();
    if (pid == 0) {
        struct pva_error err = {0};
        struct pva_grader *g;
        struct pva_grader_settings s = {.n_jobs = 1};
        char *test = "assert f(3) == 9";
        struct pva_problem p = problem_of(&test, "", "");
        if (pva_grader_open(&s, &g, NULL, &err)) _exit(1);
        struct pva_grade_job job = {.problem = &p, .program = "import time\nwhile True: time.sleep(0.01)\n", .n_program = 39};
        struct pva_grade_result r;
        int got;
        pva_grader_submit(g, &job, &err);
        pva_grader_poll(g, 500, &r, &got, &err);
        pid_t server = server_pid();
        if (write(fds[1], &server, sizeof server) != sizeof server) _exit(1);
        for (;;) pause();
    }
    pid_t server = 0;
    CHECK_INT(read(fds[0], &server, sizeof server), sizeof server);
    CHECK(server > 0 && !kill(server, 0));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    double end = now() + 5;
    while (now() < end && !kill(server, 0)) {
        char path[64], line[64] = "";
        snprintf(path, sizeof path, "/proc/%d/stat", (int)server);
        FILE *f = fopen(path, "re");
        if (f && fgets(line, sizeof line, f) && strstr(line, ") Z")) end = 0; /* dead, waiting for a parent that does not look */
        if (f) fclose(f);
        usleep(10000);
    }
    CHECK(end == 0 || kill(server, 0));
    close(fds[0]), close(fds[1]);
}

int main(void) {
    test_refusals();
    test_verdicts();
    test_two_graders();
    test_death();
    test_asked_to_stop(0);
    test_asked_to_stop(PVA_LAYER_PROCESS);
    test_orphans();
    test_hostile();
    return check_report("test_grade");
}
