/* extract_lexer.h - Python's tokens from a text that arrives byte by byte.
 *
 * The state is plain data without pointers: a copy can be driven to the end of the text while the original waits for more.
 * Nothing fails: what Python would refuse becomes a PY_BAD token, and what follows is read as well as it can be.
 * Strings are lexed as Python 3.12 does (a replacement field of an f-string may hold any quotes), with one exception: a field of
 * a single-quoted f-string does not run over a line end. Older Pythons refuse every text on which the two differ.
 */
#ifndef PVA_EXTRACT_LEXER_H
#define PVA_EXTRACT_LEXER_H

#include <stddef.h>
#include <stdint.h>

enum py_kind {
    PY_LINE,    /* a logical line begins that holds more than blanks and a comment */
    PY_NEWLINE, /* ... and ends */
    PY_COMMENT, /* a line that holds a comment only begins; it sends nothing else */
    PY_FENCE,   /* a line that begins with three backticks; it sends nothing else */
    PY_NAME,    /* also names beyond ASCII: every byte from 0x80 on is taken for a letter */
    PY_KEYWORD, /* the reserved words, not the soft ones (match, type, ...) */
    PY_NUMBER,
    PY_STRING, /* one literal, prefix and replacement fields included */
    PY_OP,
    PY_BAD, /* a character, string or continuation that no Python text can hold here */
};

enum { PY_TEXT = 12, PY_BRACKETS = 200, PY_FIELDS = 8, PY_TOKENS = 4 };

struct py_token {
    enum py_kind kind;
    char text[PY_TEXT]; /* NAME, KEYWORD, OP: its first PY_TEXT - 1 bytes, zero-terminated */
    int depth;          /* brackets open around it; an opening bracket and its closing one have the same depth */
    int indented;       /* LINE, COMMENT, FENCE: blanks before it */
    size_t offset;      /* LINE, COMMENT, FENCE: where the line starts */
};

struct py_lexer {
    uint8_t mode;      /* enum mode in the .c file */
    uint8_t after_cr;  /* the last byte was \r: a \n now belongs to it */
    uint8_t fresh;     /* no byte of this physical line has been seen */
    uint8_t indented;  /* blanks before the first character of the line */
    uint8_t continued; /* the last thing seen is a backslash at a line end */
    uint8_t n_pending; /* bytes of an operator, of an opening or closing quote, of a fence */
    uint8_t number;    /* enum number in the .c file */
    uint8_t quote, triple, formatted, spec, escaped;
    char word[PY_TEXT];
    size_t n_word;                 /* may exceed what `word` holds */
    int depth, overflow;           /* open brackets; those beyond PY_BRACKETS */
    uint8_t brackets[PY_BRACKETS]; /* ( [ { or, for a replacement field, f */
    int n_fields;                  /* replacement fields of f-strings we are inside of, and the strings they interrupt */
    struct {
        uint8_t quote, triple, spec;
        int depth; /* outside of the string */
    } fields[PY_FIELDS];
    size_t line_start;
};

/* A zeroed lexer needs this before its first byte. */
void py_lexer_start(struct py_lexer *l);

/* `offset` counts the bytes before this one. Returns how many tokens it completed. */
int py_lexer_byte(struct py_lexer *l, unsigned char byte, size_t offset, struct py_token out[PY_TOKENS]);

/* The text ends: the tokens that this completes. PY_NEWLINE is among them only when no bracket and no string is open. */
int py_lexer_end(struct py_lexer *l, struct py_token out[PY_TOKENS]);

/* A bracket or a triple-quoted string is open, also as an unfinished line's last thing. */
int py_lexer_is_open(const struct py_lexer *l);

#endif
