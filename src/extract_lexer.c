#include "extract_lexer.h"

#include <string.h>

enum mode {
    LINE_START, /* only blanks so far on this line, and no bracket, string or continuation from the line before */
    BETWEEN,    /* between tokens */
    WORD,
    NUMBER,
    OPERATOR,
    OPENING,   /* n_pending quotes of a string's beginning */
    STRING,    /* inside; n_pending closing quotes of a triple-quoted one */
    BRACE,     /* after one { in an f-string: a field, or {{ */
    COMMENT,   /* also the rest of a fence's line */
    BACKSLASH, /* must be followed by a line end */
    FENCE,     /* n_pending backticks at the start of a line */
};

enum number { INTEGER, FRACTION, EXPONENT_LETTER, EXPONENT_SIGN, EXPONENT, BASED };

struct sink {
    struct py_token *out;
    int n;
};

static int is_word_start(unsigned char c) { return c >= 0x80 || c == '_' || (c | 32) - 'a' + 0u < 26u; }

static int is_digit(unsigned char c) { return c >= '0' && c <= '9'; }

static int is_word(unsigned char c) { return is_word_start(c) || is_digit(c); }

static int is_blank(unsigned char c) { return c == ' ' || c == '\t' || c == '\f'; }

static int is_keyword(const char *word) {
    static const char *const keywords[] = {"False",  "None",   "True",    "and",      "as",       "assert", "async",
                                           "await",  "break",  "class",   "continue", "def",      "del",    "elif",
                                           "else",   "except", "finally", "for",      "from",     "global", "if",
                                           "import", "in",     "is",      "lambda",   "nonlocal", "not",    "or",
                                           "pass",   "raise",  "return",  "try",      "while",    "with",   "yield"};
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
        if (!strcmp(word, keywords[i])) return 1;
    return 0;
}

/* Whether `text` of n bytes is an operator, or can become one. Two dots can: they come before a third, or are two operators. */
static int is_operator(const char *text, size_t n) {
    static const char operators[] =
        " + - * / % @ & | ^ ~ < > = : . , ; ! ** // << >> <= >= == != <> -> := += -= *= /= %= @= &= |= ^= "
        ".. ... **= //= <<= >>= ";
    char spaced[8] = {' '};
    memcpy(spaced + 1, text, n);
    spaced[n + 1] = ' ';
    return strstr(operators, spaced) != NULL;
}

static int is_string_prefix(const char *word, size_t n) {
    static const char prefixes[] = " r u b f t br rb fr rf tr rt ";
    char spaced[5] = {' '};
    if (n > 2) return 0;
    for (size_t i = 0; i < n; i++) spaced[i + 1] = (char)(word[i] | 32);
    spaced[n + 1] = ' ';
    return strstr(prefixes, spaced) != NULL;
}

/* Tokens of a replacement field are part of the string around it. */
static void emit(const struct py_lexer *l, struct sink *s, enum py_kind kind, const char *text) {
    if (l->n_fields) return;
    struct py_token *t = &s->out[s->n++];
    *t = (struct py_token){.kind = kind, .depth = l->depth + l->overflow, .indented = l->indented, .offset = l->line_start};
    for (int i = 0; text && text[i] && i < PY_TEXT - 1; i++) t->text[i] = text[i];
}

static void word_add(struct py_lexer *l, unsigned char c) {
    if (l->n_word < PY_TEXT - 1) {
        l->word[l->n_word] = (char)c;
        l->word[l->n_word + 1] = 0;
    }
    l->n_word++;
}

static void word_begin(struct py_lexer *l, enum mode mode, unsigned char c) {
    l->mode = mode;
    l->n_word = 0;
    word_add(l, c);
}

static void string_end(struct py_lexer *l, struct sink *s, enum py_kind kind) {
    l->mode = BETWEEN;
    l->n_pending = l->escaped = l->spec = 0;
    emit(l, s, kind, NULL);
}

/* --- Brackets and replacement fields ------------------------------------------------------------------------------------------
 */

static void bracket_open(struct py_lexer *l, struct sink *s, unsigned char c) {
    emit(l, s, PY_OP, (char[]){(char)c, 0});
    if (l->depth == PY_BRACKETS) l->overflow++;
    else l->brackets[l->depth++] = c;
}

/* Any closing bracket closes the innermost one, so that a slip of the model does not swallow the rest; it is reported as bad. */
static void bracket_close(struct py_lexer *l, struct sink *s, unsigned char c) {
    unsigned char open = c == ')' ? '(' : c == ']' ? '[' : '{', innermost = l->depth ? l->brackets[l->depth - 1] : 0;
    if (l->overflow) {
        l->overflow--;
        emit(l, s, PY_BAD, NULL); /* Python refuses so many */
    } else if (innermost == 'f') {
        if (c != '}') return;
        int i = --l->n_fields;
        l->depth = l->fields[i].depth;
        l->quote = l->fields[i].quote;
        l->triple = l->fields[i].triple;
        l->spec = l->fields[i].spec;
        l->formatted = 1;
        l->mode = STRING;
        l->n_pending = l->escaped = 0;
    } else if (!innermost) {
        emit(l, s, PY_BAD, NULL);
    } else {
        l->depth--;
        emit(l, s, innermost == open ? PY_OP : PY_BAD, (char[]){(char)c, 0});
    }
}

static int field_can_open(const struct py_lexer *l) { return l->n_fields < PY_FIELDS && l->depth < PY_BRACKETS; }

static void field_open(struct py_lexer *l) {
    int i = l->n_fields++;
    l->fields[i].quote = l->quote;
    l->fields[i].triple = l->triple;
    l->fields[i].spec = l->spec;
    l->fields[i].depth = l->depth;
    l->brackets[l->depth++] = 'f';
    l->spec = 0;
    l->mode = BETWEEN;
}

/* After the colon of a field comes its format, which is text again until the closing brace. */
static int field_format(struct py_lexer *l) {
    if (!l->n_fields || l->overflow || l->brackets[l->depth - 1] != 'f') return 0;
    int i = l->n_fields - 1;
    l->quote = l->fields[i].quote;
    l->triple = l->fields[i].triple;
    l->formatted = l->spec = 1;
    l->mode = STRING;
    l->n_pending = l->escaped = 0;
    return 1;
}

/* A line ends inside a string that holds no line ends: the string ends there, with all the fields inside it. */
static void string_break(struct py_lexer *l, struct sink *s, int field) {
    if (field < l->n_fields) {
        l->n_fields = field;
        l->depth = l->fields[field].depth;
        l->overflow = 0;
    }
    string_end(l, s, PY_BAD);
}

/* The outermost single-quoted f-string that we are in a field of; n_fields when there is none. */
static int field_single(const struct py_lexer *l) {
    int i = 0;
    while (i < l->n_fields && l->fields[i].triple) i++;
    return i;
}

/* --- One byte in each mode -----------------------------------------------------------------------------------------------------
 */

static void step(struct py_lexer *l, struct sink *s, unsigned char c);

static void pending_end(struct py_lexer *l, struct sink *s) {
    enum mode mode = l->mode;
    l->mode = BETWEEN;
    switch (mode) {
    case WORD: emit(l, s, l->n_word < PY_TEXT && is_keyword(l->word) ? PY_KEYWORD : PY_NAME, l->word); break;
    case NUMBER:
        if (l->number == EXPONENT_SIGN) emit(l, s, PY_BAD, NULL);
        else emit(l, s, PY_NUMBER, NULL);
        if (l->number == EXPONENT_LETTER) emit(l, s, PY_NAME, "e");
        break;
    case OPERATOR:
        if (!strcmp(l->word, "..")) emit(l, s, PY_OP, "."), emit(l, s, PY_OP, ".");
        else emit(l, s, strcmp(l->word, "!") ? PY_OP : PY_BAD, l->word);
        break;
    default: break;
    }
}

static void step_number(struct py_lexer *l, struct sink *s, unsigned char c) {
    unsigned char low = is_word_start(c) && c < 0x80 ? c | 32 : c;
    switch (l->number) {
    case BASED:
        if (is_digit(c) || c == '_' || (low >= 'a' && low <= 'f')) return;
        break;
    case EXPONENT_LETTER:
        if (is_digit(c)) return (void)(l->number = EXPONENT);
        if (c == '+' || c == '-') return (void)(l->number = EXPONENT_SIGN);
        emit(l, s, PY_NUMBER, NULL); /* "1else": the letter began a word */
        word_begin(l, WORD, 'e');
        step(l, s, c);
        return;
    case EXPONENT_SIGN:
        if (is_digit(c)) return (void)(l->number = EXPONENT);
        break;
    default:
        if (is_digit(c) || c == '_') return (void)l->n_word++;
        if (c == '.' && l->number == INTEGER) return (void)(l->number = FRACTION);
        if (low == 'e' && l->number != EXPONENT) return (void)(l->number = EXPONENT_LETTER);
        if ((low == 'x' || low == 'o' || low == 'b') && l->number == INTEGER && l->n_word == 1 && l->word[0] == '0')
            return (void)(l->number = BASED);
        if (low == 'j') {
            l->mode = BETWEEN;
            emit(l, s, PY_NUMBER, NULL);
            return;
        }
    }
    pending_end(l, s);
    step(l, s, c);
}

static void step_opening(struct py_lexer *l, struct sink *s, unsigned char c) {
    if (c == l->quote && ++l->n_pending < 3) return;
    l->mode = STRING;
    l->triple = l->n_pending == 3;
    if (l->n_pending == 2) { /* an empty one */
        string_end(l, s, PY_STRING);
        step(l, s, c);
        return;
    }
    l->n_pending = 0;
    if (!l->triple) step(l, s, c);
}

static void step_string(struct py_lexer *l, struct sink *s, unsigned char c) {
    if (l->escaped) {
        l->escaped = 0;
        if (c != '{') return; /* an escape does not hide a field */
    }
    if (c != l->quote) l->n_pending = 0;
    if (c == '\\') l->escaped = 1;
    else if (c == l->quote) {
        if (l->triple && ++l->n_pending < 3) return;
        if (l->spec) string_break(l, s, l->n_fields - 1); /* the quote ends the string though the field is open */
        else string_end(l, s, PY_STRING);
    } else if (c == '\n' && !l->triple) {
        string_break(l, s, field_single(l));
        step(l, s, c);
    } else if (c == '{' && l->formatted) {
        if (l->spec && field_can_open(l)) field_open(l);
        else l->mode = BRACE;
    } else if (c == '}' && l->spec) {
        bracket_close(l, s, c);
    }
}

static void step_between(struct py_lexer *l, struct sink *s, unsigned char c) {
    if (is_blank(c)) return;
    if (c == '\n') {
        int broken = field_single(l);
        if (broken < l->n_fields) string_break(l, s, broken);
        l->mode = BETWEEN;
        l->continued = 0;
        if (l->depth + l->overflow) return; /* a field is a bracket too */
        emit(l, s, PY_NEWLINE, NULL);
        l->mode = LINE_START;
        l->fresh = 1;
        l->indented = 0;
        return;
    }
    l->continued = 0;
    if (is_word_start(c)) word_begin(l, WORD, c);
    else if (is_digit(c)) {
        word_begin(l, NUMBER, c);
        l->number = INTEGER;
    } else if (c == '"' || c == '\'') {
        l->mode = OPENING;
        l->quote = c;
        l->n_pending = 1;
        l->triple = l->formatted = l->spec = l->escaped = 0;
    } else if (c == '#') l->mode = COMMENT, l->n_pending = 0;
    else if (c == '\\') l->mode = BACKSLASH;
    else if (c == '(' || c == '[' || c == '{') bracket_open(l, s, c);
    else if (c == ')' || c == ']' || c == '}') bracket_close(l, s, c);
    else if (c == ':' && field_format(l)) return;
    else if (c && is_operator((char[]){(char)c, 0}, 1)) word_begin(l, OPERATOR, c);
    else emit(l, s, PY_BAD, NULL);
}

static void step(struct py_lexer *l, struct sink *s, unsigned char c) {
    switch ((enum mode)l->mode) {
    case LINE_START:
        if (c == ' ' || c == '\t') l->indented = 1;
        else if (c == '\f') l->indented = 0; /* as Python counts columns */
        else if (c == '\n') l->fresh = 1, l->indented = 0;
        else if (c == '#') l->mode = COMMENT, l->n_pending = 1, emit(l, s, PY_COMMENT, NULL);
        else if (c == '`') l->mode = FENCE, l->n_pending = 1;
        else {
            emit(l, s, PY_LINE, NULL);
            l->mode = BETWEEN;
            l->n_pending = 0;
            step_between(l, s, c);
        }
        return;
    case FENCE:
        if (c != '`') {
            emit(l, s, PY_LINE, NULL);
            emit(l, s, PY_BAD, NULL);
            l->mode = BETWEEN;
            step_between(l, s, c);
        } else if (++l->n_pending == 3) {
            emit(l, s, PY_FENCE, NULL);
            l->mode = COMMENT;
        }
        return;
    case COMMENT:
        if (c != '\n') return;
        if (l->n_pending) { /* nothing else on this line */
            l->mode = LINE_START;
            l->fresh = 1;
            l->indented = l->n_pending = 0;
        } else {
            l->mode = BETWEEN;
            step_between(l, s, c);
        }
        return;
    case BACKSLASH:
        l->mode = BETWEEN;
        if (c == '\n') l->continued = 1;
        else {
            emit(l, s, PY_BAD, NULL);
            step_between(l, s, c);
        }
        return;
    case WORD:
        if (is_word(c)) word_add(l, c);
        else if ((c == '"' || c == '\'') && is_string_prefix(l->word, l->n_word)) {
            int formatted = strpbrk(l->word, "fFtT") != NULL;
            step_between(l, s, c);
            l->formatted = (uint8_t)formatted;
        } else {
            pending_end(l, s);
            step_between(l, s, c);
        }
        return;
    case OPERATOR:
        if (!strcmp(l->word, ".") && is_digit(c)) {
            word_begin(l, NUMBER, c);
            l->number = FRACTION;
            return;
        }
        word_add(l, c);
        if (c && l->n_word <= 3 && is_operator(l->word, l->n_word)) return;
        l->word[--l->n_word] = 0;
        pending_end(l, s);
        step_between(l, s, c);
        return;
    case BRACE:
        l->mode = STRING;
        if (c == '{') return;
        if (field_can_open(l)) field_open(l);
        step(l, s, c);
        return;
    case NUMBER: step_number(l, s, c); return;
    case OPENING: step_opening(l, s, c); return;
    case STRING: step_string(l, s, c); return;
    case BETWEEN: step_between(l, s, c); return;
    }
}

/* --- The outside
 * ---------------------------------------------------------------------------------------------------------------- */

void py_lexer_start(struct py_lexer *l) { *l = (struct py_lexer){.mode = LINE_START, .fresh = 1}; }

int py_lexer_byte(struct py_lexer *l, unsigned char byte, size_t offset, struct py_token out[PY_TOKENS]) {
    struct sink s = {out, 0};
    if (l->after_cr && byte == '\n') {
        l->after_cr = 0;
        return 0;
    }
    l->after_cr = byte == '\r';
    if (l->fresh) {
        l->fresh = 0;
        l->line_start = offset;
    }
    step(l, &s, byte == '\r' ? '\n' : byte);
    return s.n;
}

int py_lexer_is_open(const struct py_lexer *l) {
    int in_string = l->mode == STRING || l->mode == BRACE;
    return l->depth || l->overflow || (in_string && l->triple);
}

int py_lexer_end(struct py_lexer *l, struct py_token out[PY_TOKENS]) {
    struct sink s = {out, 0};
    switch ((enum mode)l->mode) {
    case LINE_START: return 0;
    case FENCE:
        emit(l, &s, PY_LINE, NULL);
        emit(l, &s, PY_BAD, NULL);
        break;
    case COMMENT:
        if (l->n_pending) return 0;
        break;
    case OPENING: emit(l, &s, l->n_pending == 2 ? PY_STRING : PY_BAD, NULL); break;
    case STRING:
    case BRACE:
    case BACKSLASH: emit(l, &s, PY_BAD, NULL); break;
    default: pending_end(l, &s);
    }
    if (l->continued) emit(l, &s, PY_BAD, NULL); /* a continuation of nothing */
    if (!py_lexer_is_open(l)) emit(l, &s, PY_NEWLINE, NULL);
    return s.n;
}
