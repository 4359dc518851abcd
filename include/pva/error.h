/* error.h - how a function says that it failed.
 *
 * A function that can fail returns int: 0, or one of the codes below, and then `err` holds one line that names the object,
 * what was expected, what was found and, where it helps, the fix. It never prints, exits or calls MPI.
 * The codes are the program's exit codes, so a status can be returned from main as it is.
 */
#ifndef PVA_ERROR_H
#define PVA_ERROR_H

#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pva_status {
    PVA_OK = 0,
    PVA_CHECK = 1,    /* a check failed (doctor, replay) */
    PVA_USAGE = 2,    /* wrong options */
    PVA_INPUT = 3,    /* bad input: file, line or offset, what was expected */
    PVA_IO = 4,       /* I/O, device or memory; a retry may help */
    PVA_REFUSED = 5,  /* refused for safety: weak sandbox, would overwrite */
    PVA_BUG = 70,     /* a broken promise inside the program */
    PVA_STOPPED = 75, /* stopped on request; the same command resumes */
};

/* Plain bytes, so that ranks can broadcast it. Zero-initialise before use. */
struct pva_error {
    int code;      /* 0 while nothing failed */
    char msg[500]; /* one line, no newline */
};

/* Records a failure and returns `code`. The first failure wins: it is the cause, later ones are consequences.
 * Control characters in the text become '?', because the text may quote hostile input and must stay one line. */
int pva_fail(struct pva_error *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the recorded text (a file name, a tensor); returns err->code. */
int pva_error_prefix(struct pva_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Invariants that hold in release builds too: prints one line with file:line to stderr and aborts. Never for input. */
void pva_broken(const char *file, int line, const char *what) __attribute__((noreturn));
#define PVA_ASSERT(cond) ((cond) ? (void)0 : pva_broken(__FILE__, __LINE__, #cond))

#ifdef __cplusplus
}
#endif
#endif
