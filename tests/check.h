/* check.h - the checks every test uses. They stay on in release builds, and a failure never goes unseen: it prints the
 * expression, both values and the place, and the process exits with the number of failures (at most 99). */
#ifndef CHECK_H
#define CHECK_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_failures, check_count;

/* With PVA_CHECK_BRIEF set the second failure is the last: for who only wants to know whether there is one. */
static inline void check_fail(void) {
    if (check_failures++ && getenv("PVA_CHECK_BRIEF")) exit(1);
}

#define CHECK(cond) \
    do { \
        check_count++; \
        if (!(cond)) { \
            check_fail(); \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #cond); \
        } \
    } while (0)

#define CHECK_INT(actual, expected) \
    do { \
        long long check_a = (long long)(actual), check_e = (long long)(expected); \
        check_count++; \
        if (check_a != check_e) { \
            check_fail(); \
            fprintf(stderr, "%s:%d: %s is %lld, expected %lld\n", __FILE__, __LINE__, #actual, check_a, check_e); \
        } \
    } while (0)

#define CHECK_TEXT(actual, expected) \
    do { \
        const char *check_a = (actual), *check_e = (expected); \
        check_count++; \
        if (!check_a || strcmp(check_a, check_e)) { \
            check_fail(); \
            fprintf(stderr, "%s:%d: %s is \"%s\", expected \"%s\"\n", __FILE__, __LINE__, #actual, check_a ? check_a : "(null)", \
                    check_e); \
        } \
    } while (0)

/* `part` must occur in `text`: for error messages. */
#define CHECK_HAS(text, part) \
    do { \
        const char *check_a = (text), *check_e = (part); \
        check_count++; \
        if (!check_a || !strstr(check_a, check_e)) { \
            check_fail(); \
            fprintf(stderr, "%s:%d: \"%s\" does not contain \"%s\"\n", __FILE__, __LINE__, check_a ? check_a : "(null)", \
                    check_e); \
        } \
    } while (0)

/* NaN fails: the comparison is written so that only a proven closeness passes. */
#define CHECK_NEAR(actual, expected, tol) \
    do { \
        double check_a = (actual), check_e = (expected), check_t = (tol); \
        check_count++; \
        if (!(fabs(check_a - check_e) <= check_t)) { \
            check_fail(); \
            fprintf(stderr, "%s:%d: %s is %.17g, expected %.17g within %g\n", __FILE__, __LINE__, #actual, check_a, check_e, \
                    check_t); \
        } \
    } while (0)

/* A status of 0, else the error's own text. */
#define CHECK_OK(call, err) \
    do { \
        int check_s = (call); \
        check_count++; \
        if (check_s) { \
            check_fail(); \
            fprintf(stderr, "%s:%d: %s: status %d: %s\n", __FILE__, __LINE__, #call, check_s, (err).msg); \
        } \
    } while (0)

/* The test cannot go on here. The condition is evaluated once. */
#define CHECK_FATAL(cond) \
    do { \
        int check_before = check_failures; \
        CHECK(cond); \
        if (check_failures > check_before) exit(99); \
    } while (0)

/* A part that cannot run on this machine says so on a line of its own; CTest shows a test as skipped only when
 * nothing else ran in it (exit 77). */
#define CHECK_SKIP(...) (printf("SKIP "), printf(__VA_ARGS__), printf("\n"))

static inline int check_report(const char *name) {
    if (check_count == 0) {
        printf("%s: nothing was checked\n", name);
        return 77;
    }
    printf("%s: %d checks, %d failed\n", name, check_count, check_failures);
    if (check_failures == 77) return 78; /* 77 means skipped */
    return check_failures > 99 ? 99 : check_failures;
}

/* Largest |a-b| over the largest |b|. NaN anywhere, or infinities that differ, give infinity. */
static inline double check_relative_error(const float *a, const float *b, size_t n) {
    double worst = 0, scale = 0;
    for (size_t i = 0; i < n; i++) {
        if (isnan(a[i]) || isnan(b[i])) return INFINITY;
        if (isinf(a[i]) || isinf(b[i])) {
            if (a[i] != b[i]) return INFINITY;
            continue;
        }
        double d = fabs((double)a[i] - b[i]), s = fabs((double)b[i]);
        if (d > worst) worst = d;
        if (s > scale) scale = s;
    }
    return scale > 0 ? worst / scale : worst > 0 ? INFINITY : 0;
}
#endif
