/* A completion, in both rules. Fed in pieces, it gives what it gives at once; once final, nothing that follows changes the
 * program; a program taken out of itself stays what it is. */
#include "fuzz.h"
#include "pva/extract.h"

static char *program_of(const struct pva_extract *x, size_t *n) {
    struct pva_error err = {0};
    char *program;
    PVA_ASSERT(!pva_extract_program(x, &program, n, &err) && program[*n] == 0);
    return program;
}

static void expect(enum pva_extract_rule rule, const char *text, size_t n_text, const char *program, size_t n_program) {
    struct pva_error err = {0};
    char *got;
    size_t n;
    PVA_ASSERT(!pva_extract(rule, text, n_text, &got, &n, &err));
    PVA_ASSERT(n == n_program && !memcmp(got, program, n));
    free(got);
}

static void continue_final(enum pva_extract_rule rule, const char *text, size_t n_text, const char *program, size_t n_program) {
    static const char *const more[] = {
        "\n", "\ndef g():\n    pass\n", ")", "'''", " = 1\n", "\n    x\n", ":\n  y\n", "\\\n", "\"", "}"};
    char *longer = malloc(n_text + 30);
    PVA_ASSERT(longer);
    memcpy(longer, text, n_text);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        memcpy(longer + n_text, more[i], strlen(more[i]));
        expect(rule, longer, n_text + strlen(more[i]), program, n_program);
    }
    free(longer);
}

static void check_rule(enum pva_extract_rule rule, const char *text, size_t size) {
    struct pva_error err = {0};
    struct pva_extract *x;
    size_t n, at = 0;
    int final = 0;
    PVA_ASSERT(!pva_extract_create(rule, &x, &err));
    for (size_t step = 1; at < size; step = step % 3 + 1) {
        size_t n_piece = size - at < step ? size - at : step;
        PVA_ASSERT(!pva_extract_feed(x, text + at, n_piece, &err));
        at += n_piece;
        PVA_ASSERT(pva_extract_is_final(x) >= final);
        if (size < 40 || at % 32 < 2 || pva_extract_is_final(x) > final) {
            char *program = program_of(x, &n);
            expect(rule, text, at, program, n);
            if (pva_extract_is_final(x) > final) {
                expect(rule, text, size, program, n);
                continue_final(rule, text, at, program, n);
            }
            free(program);
        }
        final = pva_extract_is_final(x);
    }
    char *program = program_of(x, &n);
    expect(rule, text, size, program, n);
    if (rule == PVA_EXTRACT_PROGRAM) expect(rule, program, n, program, n);
    free(program);
    pva_extract_free(&x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check_rule(PVA_EXTRACT_PROGRAM, (const char *)data, size);
    check_rule(PVA_EXTRACT_FIRST_FUNCTION, (const char *)data, size);
    return 0;
}
