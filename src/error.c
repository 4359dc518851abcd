#include "pva/error.h"
#include "one_line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pva_one_line(char *text) {
    for (unsigned char *p = (unsigned char *)text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f) *p = '?';
        else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f) p[0] = p[1] = '?';
    }
}

int pva_fail(struct pva_error *err, int code, const char *fmt, ...) {
    if (err->code) return err->code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    pva_one_line(err->msg);
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
    /* What does not fit is cut, from the prefix first: at least half of the room is for the cause. */
    size_t room = sizeof err->msg - sizeof ": ", n_prefix = strlen(prefix), n_text = strlen(text);
    size_t kept = n_text < room / 2 ? n_text : room / 2;
    if (n_prefix > room - kept) n_prefix = room - kept;
    if (n_text > room - n_prefix) n_text = room - n_prefix;
    snprintf(err->msg, sizeof err->msg, "%.*s: %.*s", (int)n_prefix, prefix, (int)n_text, text);
    pva_one_line(err->msg);
    return err->code;
}

void pva_broken(const char *file, int line, const char *what) {
    fprintf(stderr, "pva: broken invariant at %s:%d: %s\n", file, line, what);
    abort();
}
