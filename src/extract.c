#include "pva/extract.h"

#include "extract_lexer.h"

#include <stdlib.h>
#include <string.h>

/* --- Expressions
 * ----------------------------------------------------------------------------------------------------------------- Prose is told
 * from code by what stands side by side: two operands without an operator between them are no expression. That, and a value that
 * is there, is all that is asked of the top-level statements; the body of a def is not looked at. */

enum last { NOTHING, OPERAND, LITERAL /* a string */, OPERATOR, STAR, COMMA, COLON, OPEN, DOT, LAMBDA, NOT_IN };

struct expression {
    enum last last;
    int lambdas; /* outside of brackets, whose colon has not come */
    int ifs;     /* outside of brackets, whose else has not come */
};

static int is(const struct py_token *t, enum py_kind kind, const char *text) { return t->kind == kind && !strcmp(t->text, text); }

/* `list` is words with a space before and after each. */
static int is_in(const char *list, const char *word) {
    char spaced[PY_TEXT + 2] = {' '};
    size_t n = strlen(word);
    memcpy(spaced + 1, word, n);
    spaced[n + 1] = ' ';
    return strstr(list, spaced) != NULL;
}

static int follows_operand(const struct expression *e) { return e->last == OPERAND || e->last == LITERAL; }

static int next(struct expression *e, enum last last, int allowed) {
    e->last = last;
    return allowed;
}

static int expression_keyword(struct expression *e, const char *word, int depth) {
    int operand = follows_operand(e);
    if (is_in(" True False None ", word)) return next(e, OPERAND, !operand);
    if (is_in(" and or in is ", word)) return next(e, OPERATOR, operand);
    if (!strcmp(word, "not")) return next(e, operand ? NOT_IN : OPERATOR, 1);
    if (!strcmp(word, "await")) return next(e, OPERATOR, !operand);
    if (!strcmp(word, "yield")) return next(e, STAR, e->last == OPEN); /* in a lambda; it may stand alone */
    if (!strcmp(word, "from")) return next(e, OPERATOR, e->last == STAR);
    if (!strcmp(word, "for")) return next(e, OPERATOR, operand && depth);
    if (!strcmp(word, "async")) return operand && depth; /* its "for" comes next */
    if (!strcmp(word, "if")) return e->ifs += !depth, next(e, OPERATOR, operand);
    if (!strcmp(word, "else")) return e->ifs -= !depth, next(e, OPERATOR, operand && e->ifs >= 0);
    if (!strcmp(word, "lambda")) return e->lambdas += !depth, next(e, LAMBDA, !operand);
    return 0;
}

static int expression_operator(struct expression *e, const char *op, int depth) {
    int operand = follows_operand(e), inside = depth || e->lambdas;
    switch (op[0]) {
    case '(':
    case '[': return next(e, OPEN, 1);
    case '{': return next(e, OPEN, !operand);
    case ')':
    case ']':
    case '}': return next(e, OPERAND, e->last != OPERATOR && e->last != DOT && e->last != NOT_IN);
    case '.': return op[1] ? next(e, OPERAND, !operand) : next(e, DOT, operand);
    case ',': return next(e, COMMA, operand || e->last == COLON || e->last == STAR);
    case '~': return next(e, OPERATOR, !operand);
    default: break;
    }
    if (!strcmp(op, ":")) {
        e->lambdas -= !depth;
        return next(e, COLON, e->lambdas >= 0 && e->last != OPERATOR && e->last != DOT && e->last != NOT_IN);
    }
    if (!strcmp(op, ":=")) return next(e, OPERATOR, operand && depth);
    if (!strcmp(op, "=")) return next(e, OPERATOR, operand && inside);
    if (is_in(" + - ", op)) return next(e, OPERATOR, 1);
    if (is_in(" * ** ", op)) return next(e, STAR, 1);
    if (!strcmp(op, "/") && !operand) return next(e, STAR, e->last == COMMA && inside); /* the mark among parameters */
    return next(e, OPERATOR, operand && is_in(" / // @ % < > == != <= >= <> & | ^ << >> ", op));
}

/* Takes the next token; 0 when no expression goes on like this. */
static int expression_token(struct expression *e, const struct py_token *t) {
    if (e->last == DOT) return next(e, OPERAND, t->kind == PY_NAME);
    if (e->last == NOT_IN) return next(e, OPERATOR, is(t, PY_KEYWORD, "in"));
    switch (t->kind) {
    case PY_NAME:
    case PY_NUMBER: return next(e, OPERAND, !follows_operand(e));
    case PY_STRING: return next(e, LITERAL, e->last != OPERAND);
    case PY_KEYWORD: return expression_keyword(e, t->text, t->depth);
    case PY_OP: return expression_operator(e, t->text, t->depth);
    default: return 0;
    }
}

/* It may end here; a tuple may end with a comma. */
static int expression_complete(const struct expression *e) {
    return (follows_operand(e) || e->last == COMMA) && !e->lambdas && !e->ifs;
}

/* --- Assignments
 * ---------------------------------------------------------------------------------------------------------------- */

struct assignment {
    enum { TARGET, ANNOTATION, VALUE } part;
    struct expression expression; /* of this part; between two '=' stands a value or one more target */
    int is_target; /* what has been read of it can be a target: names, attributes, subscripts, brackets, commas, stars */
    int is_call;   /* ... if more follows: it ends in a call */
    int has_comma, has_star; /* a starred target is one of several */
    int is_last;             /* an augmented or annotated assignment has one value */
    int annotation_dotted;   /* its first name is good only before a dot */
};

static void target_token(struct assignment *a, const struct py_token *t) {
    int operand = follows_operand(&a->expression), first = a->expression.last == NOTHING || a->expression.last == COMMA;
    if (t->depth) return;
    if (t->kind == PY_NAME) a->is_call = 0;
    else if (t->kind != PY_OP) a->is_target = 0;
    else if (is_in(" ( [ ", t->text)) a->is_call = operand && t->text[0] == '(';
    else if (is_in(" , ", t->text)) a->is_target &= !a->is_call, a->has_comma = 1;
    else if (is_in(" * ", t->text)) a->is_target &= first, a->has_star = 1;
    else if (!is_in(" ) ] . ", t->text)) a->is_target = 0;
}

static void part_begin(struct assignment *a, int part) {
    *a = (struct assignment){.part = part, .is_target = 1, .is_last = a->is_last};
}

static int annotation_first(struct assignment *a, const struct py_token *t) {
    static const char types[] =
        " int float complex bool str bytes bytearray memoryview list tuple dict set frozenset range slice object "
        "type ";
    if (t->kind == PY_STRING) return 1;
    if (t->kind != PY_NAME && t->kind != PY_KEYWORD) return 0;
    if (t->text[0] >= 'A' && t->text[0] <= 'Z') return 1;
    a->annotation_dotted = t->kind == PY_NAME && !is_in(types, t->text);
    return t->kind == PY_NAME;
}

/* 0 when no assignment goes on like this. */
static int assignment_token(struct assignment *a, const struct py_token *t) {
    int at_rest = t->kind == PY_OP && t->depth == 0 && !a->expression.lambdas, operand = follows_operand(&a->expression);
    if (at_rest && !strcmp(t->text, "=")) {
        if (a->part == ANNOTATION) {
            if (!expression_complete(&a->expression) || a->expression.last == COMMA || a->annotation_dotted) return 0;
            a->is_last = 1;
        } else if (a->is_last || !a->is_target || a->is_call || a->has_star > a->has_comma ||
                   !expression_complete(&a->expression)) {
            return 0;
        }
        part_begin(a, VALUE);
        return 1;
    }
    if (at_rest && a->part == TARGET && is_in(" : += -= *= /= //= %= @= &= |= ^= >>= <<= **= ", t->text)) {
        if (!operand || a->is_call || a->has_comma || a->has_star) return 0;
        a->is_last = t->text[0] != ':';
        part_begin(a, t->text[0] == ':' ? ANNOTATION : VALUE);
        return 1;
    }
    if (a->part == ANNOTATION) {
        if (a->expression.last == NOTHING) {
            if (!annotation_first(a, t)) return 0;
        } else if (a->annotation_dotted) {
            if (!is(t, PY_OP, ".")) return 0;
            a->annotation_dotted = 0;
        }
    } else {
        target_token(a, t);
        if (a->part == TARGET && !a->is_target) return 0;
    }
    return expression_token(&a->expression, t);
}

static int assignment_complete(const struct assignment *a) { return a->part == VALUE && expression_complete(&a->expression); }

/* --- Imports
 * -------------------------------------------------------------------------------------------------------------------- */

struct import {
    enum { MODULE, MODULE_DOT, MODULE_END, ITEM, ITEM_DOT, ITEM_END, ALIAS, ALIAS_END, ALL } part;
    int from;                 /* "from" module "import" items; else items are modules */
    int relative;             /* dots came before the module's name */
    int bracket, after_comma; /* 1 open, 2 closed */
};

/* 0 when no import goes on like this. */
static int import_token(struct import *m, const struct py_token *t) {
    int name = t->kind == PY_NAME, dot = is(t, PY_OP, ".");
    switch (m->part) {
    case MODULE:
        if (dot || is(t, PY_OP, "...")) return m->relative = 1;
        if (m->relative && is(t, PY_KEYWORD, "import")) return m->part = ITEM, 1;
        m->part = MODULE_END;
        return name;
    case MODULE_DOT: m->part = MODULE_END; return name;
    case MODULE_END: m->part = dot ? MODULE_DOT : ITEM; return dot || is(t, PY_KEYWORD, "import");
    case ITEM:
        if (m->from && !m->bracket && !m->after_comma) {
            if (is(t, PY_OP, "*")) return m->part = ALL, 1;
            if (is(t, PY_OP, "(")) return m->bracket = 1;
        }
        m->part = ITEM_END;
        if (m->bracket && m->after_comma && is(t, PY_OP, ")")) return m->bracket = 2;
        return name;
    case ITEM_DOT: m->part = ITEM_END; return name;
    case ALIAS: m->part = ALIAS_END; return name;
    case ITEM_END:
    case ALIAS_END:
        if (m->bracket == 2) return 0;
        if (m->part == ITEM_END && dot && !m->from) return m->part = ITEM_DOT, 1;
        if (m->part == ITEM_END && is(t, PY_KEYWORD, "as")) return m->part = ALIAS, 1;
        if (m->bracket && is(t, PY_OP, ")")) return m->bracket = 2;
        m->part = ITEM;
        return m->after_comma = is(t, PY_OP, ",");
    case ALL: return 0;
    }
    return 0;
}

static int import_complete(const struct import *m) {
    return (m->part == ITEM_END || m->part == ALIAS_END || m->part == ALL) && m->bracket != 1;
}

/* --- The first lines of def and class
 * --------------------------------------------------------------------------------------------- */

struct header {
    enum { DEF, NAME, AFTER_NAME, IN_TYPES, AFTER_TYPES, IN_PARAMETERS, AFTER_PARAMETERS, RESULT, BODY } part;
    int is_class;
    struct expression expression; /* in brackets and in the result's annotation */
};

/* 0 when no def or class goes on like this. */
static int header_token(struct header *h, const struct py_token *t) {
    int colon = is(t, PY_OP, ":") && !t->depth;
    switch (h->part) {
    case DEF: h->part = NAME; return is(t, PY_KEYWORD, "def");
    case NAME: h->part = AFTER_NAME; return t->kind == PY_NAME;
    case AFTER_NAME:
    case AFTER_TYPES:
        if (h->is_class && colon) return h->part = BODY, 1;
        if (is(t, PY_OP, "[") && h->part == AFTER_NAME) h->part = IN_TYPES;
        else if (is(t, PY_OP, "(")) h->part = IN_PARAMETERS;
        else return 0;
        h->expression = (struct expression){OPEN, 0, 0};
        return 1;
    case IN_TYPES:
    case IN_PARAMETERS:
        if (!expression_token(&h->expression, t)) return 0;
        if (t->depth == 0) h->part = h->part == IN_TYPES ? AFTER_TYPES : AFTER_PARAMETERS; /* the closing one */
        return 1;
    case AFTER_PARAMETERS:
        if (colon) return h->part = BODY, 1;
        h->part = RESULT;
        h->expression = (struct expression){NOTHING, 0, 0};
        return !h->is_class && is(t, PY_OP, "->");
    case RESULT:
        if (colon && !h->expression.lambdas) return h->part = BODY, expression_complete(&h->expression);
        return expression_token(&h->expression, t);
    case BODY: return 1;
    }
    return 0;
}

/* --- Top-level blocks
 * ------------------------------------------------------------------------------------------------------------- */

enum phase {
    BETWEEN_BLOCKS, /* all so far belongs to the program */
    FIRST_TOKEN,    /* of a statement */
    IMPORT,
    ASSIGNMENT,
    DOCSTRING,
    DECORATOR,
    DECORATED, /* at the line after a decorator */
    HEADER,
    HEADER_END,  /* at the line after a header: its body must follow */
    INLINE_BODY, /* on the header's line */
    INDENTED_BODY,
    ENDED, /* the program is known */
};

struct blocks {
    enum phase phase;
    int decorated, semicolon; /* what came before FIRST_TOKEN */
    int has_start, has_fence, has_statement;
    size_t start, end; /* of the run; `end` stands still while a block is incomplete */
    struct import import;
    struct assignment assignment;
    struct expression decorator;
    struct header header;
};

static enum phase first_token(struct blocks *b, const struct py_token *t) {
    int alone = !b->decorated && !b->semicolon, can_document = !b->has_statement;
    b->has_statement = 1;
    if (!b->semicolon) {
        if (is(t, PY_OP, "@")) return b->decorator = (struct expression){NOTHING, 0, 0}, DECORATOR;
        b->header = (struct header){.part = is(t, PY_KEYWORD, "async") ? DEF : NAME, .is_class = is(t, PY_KEYWORD, "class")};
        if (t->kind == PY_KEYWORD && is_in(" def async class ", t->text)) return HEADER;
    }
    if (b->decorated) return ENDED;
    if (t->kind == PY_STRING) return alone && can_document ? DOCSTRING : ENDED;
    if (t->kind == PY_KEYWORD && is_in(" import from ", t->text)) {
        int from = t->text[0] == 'f';
        b->import = (struct import){.part = from ? MODULE : ITEM, .from = from};
        return IMPORT;
    }
    if (t->kind != PY_NAME && !(t->kind == PY_OP && is_in(" ( [ * ", t->text))) return ENDED;
    b->assignment.is_last = 0;
    part_begin(&b->assignment, TARGET);
    return assignment_token(&b->assignment, t) ? ASSIGNMENT : ENDED;
}

static enum phase line_begins(struct blocks *b, const struct py_token *t) {
    enum phase phase = b->phase;
    if (phase == INDENTED_BODY && t->indented) return phase;
    if (phase == HEADER_END) return t->indented && t->kind == PY_LINE ? INDENTED_BODY : ENDED;
    if (phase != DECORATED) b->end = t->offset;
    if (t->kind == PY_FENCE && !b->has_start && !b->has_fence) return b->has_fence = 1, phase;
    if (t->indented || t->kind == PY_FENCE) return ENDED;
    if (!b->has_start) b->start = t->offset, b->has_start = 1;
    b->decorated = phase == DECORATED;
    b->semicolon = 0;
    return FIRST_TOKEN;
}

static enum phase line_ends(const struct blocks *b) {
    switch (b->phase) {
    case FIRST_TOKEN: return b->semicolon ? BETWEEN_BLOCKS : ENDED;
    case IMPORT: return import_complete(&b->import) ? BETWEEN_BLOCKS : ENDED;
    case ASSIGNMENT: return assignment_complete(&b->assignment) ? BETWEEN_BLOCKS : ENDED;
    case DOCSTRING: return BETWEEN_BLOCKS;
    case DECORATOR: return expression_complete(&b->decorator) && b->decorator.last != COMMA ? DECORATED : ENDED;
    case HEADER: return b->header.part == BODY ? HEADER_END : ENDED;
    case INLINE_BODY: return BETWEEN_BLOCKS;
    default: return b->phase;
    }
}

static enum phase next_phase(struct blocks *b, const struct py_token *t) {
    int semicolon = is(t, PY_OP, ";") && !t->depth;
    if (t->kind == PY_LINE || t->kind == PY_FENCE) return line_begins(b, t);
    if (t->kind == PY_NEWLINE) return line_ends(b);
    if (t->kind == PY_COMMENT) {
        if (!b->has_start) b->start = t->offset, b->has_start = 1;
        return b->phase;
    }
    switch (b->phase) {
    case FIRST_TOKEN: return first_token(b, t);
    case IMPORT:
    case ASSIGNMENT:
        if (semicolon) return b->semicolon = 1, line_ends(b) == ENDED ? ENDED : FIRST_TOKEN;
        if (b->phase == IMPORT) return import_token(&b->import, t) ? IMPORT : ENDED;
        return assignment_token(&b->assignment, t) ? ASSIGNMENT : ENDED;
    case DOCSTRING: return t->kind == PY_STRING ? DOCSTRING : ENDED;
    case DECORATOR: return expression_token(&b->decorator, t) ? DECORATOR : ENDED;
    case HEADER:
        if (b->header.part == BODY) return t->kind == PY_BAD ? ENDED : INLINE_BODY;
        return header_token(&b->header, t) ? HEADER : ENDED;
    default: return b->phase; /* bodies may hold anything */
    }
}

/* --- Rule first-function
 * ---------------------------------------------------------------------------------------------------------- */

struct first {
    int matched;       /* bytes of "def " that the text ends with; 4 from the first one on */
    int after_newline; /* the last byte was \n */
    int ended;
    size_t start, end;
};

static void first_byte(struct first *f, char c, size_t offset) {
    static const char def[] = "def ";
    if (f->matched < 4) {
        f->matched = c == def[f->matched] ? f->matched + 1 : c == 'd';
        if (f->matched == 4) f->start = offset - 3;
    } else if (f->after_newline && c != ' ' && c != '\t' && c != '\n') {
        f->ended = 1;
        f->end = offset - 1;
    }
    f->after_newline = c == '\n';
}

/* --- The outside
 * ------------------------------------------------------------------------------------------------------------------ */

struct pva_extract {
    enum pva_extract_rule rule;
    char *text;
    size_t n_text, capacity;
    struct py_lexer lexer;
    struct blocks blocks;
    struct first first;
};

static const char *const rule_names[] = {"program", "first-function"};

const char *pva_extract_rule_name(enum pva_extract_rule rule) { return rule_names[rule]; }

int pva_extract_rule_parse(const char *name, enum pva_extract_rule *out, struct pva_error *err) {
    for (int i = 0; i < 2; i++) {
        if (strcmp(name, rule_names[i])) continue;
        *out = (enum pva_extract_rule)i;
        return PVA_OK;
    }
    return pva_fail(err, PVA_USAGE, "extraction rule \"%s\" is unknown: program or first-function", name);
}

int pva_extract_create(enum pva_extract_rule rule, struct pva_extract **out, struct pva_error *err) {
    *out = calloc(1, sizeof **out);
    if (!*out) return pva_fail(err, PVA_IO, "extraction: out of memory");
    (*out)->rule = rule;
    py_lexer_start(&(*out)->lexer);
    return PVA_OK;
}

void pva_extract_free(struct pva_extract **x) {
    if (!*x) return;
    free((*x)->text);
    free(*x);
    *x = NULL;
}

int pva_extract_is_final(const struct pva_extract *x) {
    return x->rule == PVA_EXTRACT_PROGRAM ? x->blocks.phase == ENDED : x->first.ended;
}

static int reserve(struct pva_extract *x, size_t n_bytes, struct pva_error *err) {
    if (n_bytes <= x->capacity - x->n_text) return PVA_OK;
    size_t capacity = x->capacity > SIZE_MAX / 4 || n_bytes > SIZE_MAX / 4 ? 0 : 2 * x->capacity + n_bytes + 256;
    char *text = capacity ? realloc(x->text, capacity) : NULL;
    if (!text) return pva_fail(err, PVA_IO, "extraction: no memory for %zu bytes after %zu", n_bytes, x->n_text);
    x->text = text;
    x->capacity = capacity;
    return PVA_OK;
}

int pva_extract_feed(struct pva_extract *x, const char *text, size_t n_bytes, struct pva_error *err) {
    if (pva_extract_is_final(x)) return PVA_OK; /* nothing more is needed */
    int status = reserve(x, n_bytes, err);
    if (status) return status;
    for (size_t i = 0; i < n_bytes && !pva_extract_is_final(x); i++) {
        if (x->rule == PVA_EXTRACT_PROGRAM) {
            struct py_token tokens[PY_TOKENS];
            int n = py_lexer_byte(&x->lexer, (unsigned char)text[i], x->n_text, tokens);
            for (int k = 0; k < n && x->blocks.phase != ENDED; k++) x->blocks.phase = next_phase(&x->blocks, &tokens[k]);
        } else {
            first_byte(&x->first, text[i], x->n_text);
        }
        x->text[x->n_text++] = text[i];
    }
    return PVA_OK;
}

/* Where the run ends if the text ends here: a copy of the state is led to the end. */
static size_t run_end(const struct pva_extract *x) {
    struct blocks b = x->blocks;
    struct py_lexer lexer = x->lexer;
    struct py_token tokens[PY_TOKENS];
    int n = py_lexer_end(&lexer, tokens);
    for (int k = 0; k < n && b.phase != ENDED; k++) b.phase = next_phase(&b, &tokens[k]);
    int complete = b.phase == BETWEEN_BLOCKS || b.phase == INDENTED_BODY;
    return complete && !py_lexer_is_open(&lexer) ? x->n_text : b.end;
}

/* What each rule strips: Python's blanks, as the lexer knows them; what the str.strip() of the original does, as far as ASCII
 * goes. */
static int is_space(enum pva_extract_rule rule, char c) {
    if (rule == PVA_EXTRACT_PROGRAM) return c && strchr(" \t\f\r\n", c);
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

/* Whether the text's last character is a backslash that joins its line to the next. Python wants that next line, though empty. */
static int joins_lines(const char *text, size_t n) {
    if (!n || text[n - 1] != '\\') return 0;
    struct py_lexer lexer;
    struct py_token tokens[PY_TOKENS];
    py_lexer_start(&lexer);
    for (size_t i = 0; i < n; i++) py_lexer_byte(&lexer, (unsigned char)text[i], i, tokens);
    py_lexer_byte(&lexer, '\n', n, tokens);
    return lexer.continued;
}

int pva_extract_program(const struct pva_extract *x, char **program, size_t *n_bytes, struct pva_error *err) {
    size_t start, end;
    if (x->rule == PVA_EXTRACT_PROGRAM) {
        start = x->blocks.start;
        end = x->blocks.has_start ? run_end(x) : 0;
    } else {
        start = x->first.matched == 4 ? x->first.start : 0;
        end = x->first.ended ? x->first.end : x->n_text;
        while (start < end && x->first.matched < 4 && is_space(x->rule, x->text[start])) start++;
    }
    while (end > start && is_space(x->rule, x->text[end - 1])) end--;
    size_t n = end > start ? end - start : 0;
    char *copy = malloc(n + 3);
    if (!copy) return pva_fail(err, PVA_IO, "extraction: no memory for %zu bytes", n);
    if (n) memcpy(copy, x->text + start, n);
    if (n && x->rule == PVA_EXTRACT_PROGRAM) {
        if (joins_lines(copy, n)) copy[n++] = '\n';
        copy[n++] = '\n';
    }
    copy[n] = 0;
    *program = copy;
    *n_bytes = n;
    return PVA_OK;
}

int pva_extract(enum pva_extract_rule rule, const char *text, size_t n_text, char **program, size_t *n_bytes,
                struct pva_error *err) {
    struct pva_extract *x;
    int status = pva_extract_create(rule, &x, err);
    if (!status) status = pva_extract_feed(x, text, n_text, err);
    if (!status) status = pva_extract_program(x, program, n_bytes, err);
    pva_extract_free(&x);
    return status;
}
