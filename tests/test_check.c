/* The comparators of check.h must fail when they should: a comparator that cannot fail proves nothing. Each expression
 * below is run with stderr closed to it, and the count of failures is compared and put back. */
#include "check.h"
#include "pva/error.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

static int wrong; /* expressions whose outcome was not the expected one */
static int failures_before, count_before, screen;

static void begin(void) {
    failures_before = check_failures, count_before = check_count;
    screen = dup(STDERR_FILENO);
    int null = open("/dev/null", O_WRONLY);
    if (screen < 0 || null < 0) exit(99);
    dup2(null, STDERR_FILENO);
    close(null);
}

static void end(int line, const char *what, int expected) {
    dup2(screen, STDERR_FILENO);
    close(screen);
    int failures = check_failures - failures_before, count = check_count - count_before;
    check_failures = failures_before;
    if (failures == expected && count == 1) return;
    wrong++;
    fprintf(stderr, "test_check.c:%d: %s: %d of %d checks failed, expected %d of 1\n", line, what, failures, count, expected);
}

#define PASSES(...) (begin(), ({ __VA_ARGS__; }), end(__LINE__, #__VA_ARGS__, 0))
#define FAILS(...) (begin(), ({ __VA_ARGS__; }), end(__LINE__, #__VA_ARGS__, 1))

static void test_scalars(void) {
    PASSES(CHECK(1));
    FAILS(CHECK(0));
    PASSES(CHECK_INT(INT64_MAX, INT64_MAX));
    FAILS(CHECK_INT(INT64_MAX, INT64_MAX - 1));
    FAILS(CHECK_INT(INT64_C(1) << 32, 0));
    PASSES(CHECK_TEXT("a", "a"));
    FAILS(CHECK_TEXT("a", "b"));
    FAILS(CHECK_TEXT("a", "ab"));
    FAILS(CHECK_TEXT("ab", "a"));
    FAILS(CHECK_TEXT(NULL, "a"));
    PASSES(CHECK_HAS("file.h5: no space", "no space"));
    FAILS(CHECK_HAS("file.h5: no space", "No space"));
    FAILS(CHECK_HAS("", "x"));
    FAILS(CHECK_HAS(NULL, "x"));

    struct pva_error err = {0};
    PASSES(CHECK_OK(0, err));
    FAILS(CHECK_OK(pva_fail(&err, PVA_IO, "no space"), err));
}

static void test_near(void) {
    PASSES(CHECK_NEAR(1.0, 1.0, 0));
    PASSES(CHECK_NEAR(1.0 + 1e-9, 1.0, 1e-8));
    FAILS(CHECK_NEAR(1.0 + 1e-7, 1.0, 1e-8));
    FAILS(CHECK_NEAR(NAN, 1.0, 1e9));
    FAILS(CHECK_NEAR(1.0, NAN, 1e9));
    FAILS(CHECK_NEAR(NAN, NAN, 1e9));
    FAILS(CHECK_NEAR(1.0, 1.0, NAN));
    FAILS(CHECK_NEAR(INFINITY, 1.0, 1e300));
    FAILS(CHECK_NEAR(1.0, -INFINITY, 1e300));
    FAILS(CHECK_NEAR(INFINITY, -INFINITY, 1e300));
    FAILS(CHECK_NEAR(1.0, 1.0, -1e-300));
}

static void test_relative_error(void) {
    const float a[3] = {1, -4, 0}, off[3] = {1, -4.5f, 0}, nan[3] = {1, NAN, 0}, inf[3] = {INFINITY, -4, 0},
                minus[3] = {-INFINITY, -4, 0}, zero[3] = {0, 0, 0};
    CHECK(check_relative_error(a, a, 3) == 0);
    CHECK(check_relative_error(off, a, 3) == 0.125);
    CHECK(check_relative_error(a, off, 2) == 0.5 / 4.5);
    CHECK(check_relative_error(off, a, 1) == 0); /* only the first element */
    CHECK(check_relative_error(nan, a, 3) == INFINITY);
    CHECK(check_relative_error(a, nan, 3) == INFINITY);
    CHECK(check_relative_error(nan, nan, 3) == INFINITY);
    CHECK(check_relative_error(inf, a, 3) == INFINITY);
    CHECK(check_relative_error(a, inf, 3) == INFINITY);
    CHECK(check_relative_error(inf, minus, 3) == INFINITY);
    CHECK(check_relative_error(inf, inf, 3) == 0);
    CHECK(check_relative_error(zero, zero, 3) == 0);
    CHECK(check_relative_error(a, zero, 3) == INFINITY);
    CHECK(check_relative_error(zero, a, 3) == 1);
}

/* The exit status of a process that ends with `failures` failed checks of `count`; -1 when it did not exit. */
static int report_status(int count, int failures, int fatal) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        check_count = count;
        check_failures = failures;
        if (fatal) CHECK_FATAL(failures == 0);
        exit(check_report("child"));
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}

static void test_report(void) {
    CHECK_INT(report_status(5, 0, 0), 0);
    CHECK_INT(report_status(5, 3, 0), 3);
    CHECK_INT(report_status(0, 0, 0), 77); /* nothing ran: skipped */
    CHECK_INT(report_status(500, 99, 0), 99);
    CHECK_INT(report_status(500, 100, 0), 99);
    CHECK_INT(report_status(500, 256, 0), 99); /* not 0 by wrapping round */
    CHECK(report_status(500, 77, 0) != 77);    /* 77 failures are not "skipped" */
    CHECK(report_status(500, 77, 0) > 0);
    CHECK_INT(report_status(5, 0, 1), 0);
    CHECK_INT(report_status(5, 1, 1), 99);

    int times = 0;
    CHECK_FATAL(++times); /* evaluated once */
    CHECK_INT(times, 1);
}

int main(void) {
    test_scalars();
    test_near();
    test_relative_error();
    test_report();
    CHECK_INT(wrong, 0);
    return check_report("check");
}
