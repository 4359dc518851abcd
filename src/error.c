#include "pva/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void keep_one_line(char *text) {
    for (unsigned char *p = (unsigned char *)text; *p; p++)
        if (*p < 0x20 || *p == 0x7f) *p = '?';
}

int pva_fail(struct pva_error *err, int code, const char *fmt, ...) {
    if (err->code) return err->code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    keep_one_line(err->msg);
    err->code = code;
    return code;
}

int pva_error_prefix(struct pva_error *err, const char *fmt, ...) {
    char prefix[sizeof err->msg], text[sizeof err->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(prefix, sizeof prefix, fmt, ap);
    va_end(ap);
    memcpy(text, err->msg, sizeof text);
    size_t n = strlen(prefix);
    if (n > sizeof err->msg - 3) n = sizeof err->msg - 3;
    memcpy(err->msg, prefix, n);
    snprintf(err->msg + n, sizeof err->msg - n, ": %.*s", (int)(sizeof err->msg - n - 3), text);
    keep_one_line(err->msg);
    return err->code;
}

void pva_broken(const char *file, int line, const char *what) {
    fprintf(stderr, "pva: broken invariant at %s:%d: %s\n", file, line, what);
    abort();
}
