/* One value as text: what each type of option takes. */
#include "options_private.h"

#include "pva/utf8.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Numbers start with a digit, a sign or a point: the C library would also skip blanks and take "inf", "nan" and hexadecimals. */
static int looks_decimal(const char *text) {
    const char *p = text + (*text == '-' || *text == '+');
    return (isdigit((unsigned char)*p) || *p == '.') && !strpbrk(p, "xXpP");
}

static void describe_range(const struct pva_option *spec, char *out, size_t size) {
    const char *noun = spec->type == PVA_OPT_INT ? "a whole number" : "a number";
    if (spec->min == 0 && spec->max == 0) snprintf(out, size, "%s", noun);
    else if (isinf(spec->max)) snprintf(out, size, "%s of at least %.15g", noun, spec->min);
    else if (isinf(spec->min)) snprintf(out, size, "%s of at most %.15g", noun, spec->max);
    else snprintf(out, size, "%s from %.15g to %.15g", noun, spec->min, spec->max);
}

static int parse_number(struct setting *s, const char *text, struct pva_error *err) {
    const struct pva_option *spec = s->spec;
    char range[96], *end = NULL;
    describe_range(spec, range, sizeof range);
    errno = 0;
    int ok = looks_decimal(text);
    double value = 0;
    if (ok && spec->type == PVA_OPT_INT) {
        s->integer = strtoll(text, &end, 10);
        value = (double)s->integer;
        ok = errno == 0;
    } else if (ok) {
        s->real = value = strtod(text, &end);
        ok = isfinite(value); /* ERANGE is also set for results that are merely tiny */
    }
    if (!ok || !end || *end) return pva_fail(err, PVA_USAGE, "expected %s, got \"%s\"", range, text);
    if ((spec->min != 0 || spec->max != 0) && !(value >= spec->min && value <= spec->max))
        return pva_fail(err, PVA_USAGE, "expected %s, got %s", range, text);
    return 0;
}

static int parse_flag(struct setting *s, const char *text, struct pva_error *err) {
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcasecmp(text, words[i])) return s->integer = (int64_t)(i & 1), 0;
    return pva_fail(err, PVA_USAGE, "expected yes or no, got \"%s\"", text);
}

static int parse_choice(const char *choices, const char *text, struct pva_error *err) {
    size_t n = strlen(text);
    for (const char *p = choices; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (n == strcspn(p, "|") && !memcmp(p, text, n)) return 0;
    return pva_fail(err, PVA_USAGE, "expected one of %s, got \"%s\"", choices, text);
}

int options_parse_value(struct setting *s, const char *text, struct pva_error *err) {
    /* Settings are written to YAML, JSON and HDF5, all of which hold UTF-8 only. */
    if (pva_utf8_valid_prefix(text, strlen(text)) != strlen(text)) return pva_fail(err, PVA_USAGE, "expected UTF-8 text, got other bytes");
    switch (s->spec->type) {
    case PVA_OPT_FLAG: return parse_flag(s, text, err);
    case PVA_OPT_INT:
    case PVA_OPT_REAL: return parse_number(s, text, err);
    case PVA_OPT_CHOICE: return parse_choice(s->spec->choices, text, err);
    case PVA_OPT_BYTES: return pva_parse_bytes(text, &s->bytes, err);
    case PVA_OPT_TEXT:
    case PVA_OPT_LIST: break;
    }
    return 0;
}

int pva_parse_bytes(const char *text, size_t *out, struct pva_error *err) {
    static const char units[] = "KMGT";
    errno = 0;
    char *end = NULL;
    unsigned long long value = isdigit((unsigned char)*text) ? strtoull(text, &end, 10) : 0;
    const char *unit = end && *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (!end || (*end && (!unit || end[1])))
        return pva_fail(err, PVA_USAGE,
                        "expected a size in bytes such as 100000, 512M or 30G (K, M, G, T: powers of 1024), got \"%s\"", text);
    size_t factor = unit ? (size_t)1 << (10 * (unit - units + 1)) : 1, bytes;
    if (errno || __builtin_mul_overflow(value, factor, &bytes))
        return pva_fail(err, PVA_USAGE, "%s is more bytes than this machine can count", text);
    *out = bytes;
    return 0;
}

/* A number at *p, which moves behind it; -1 when there is none or it is not below n. */
static long index_at(const char **p, int n) {
    if (!isdigit((unsigned char)**p)) return -1;
    errno = 0;
    char *end;
    long i = strtol(*p, &end, 10);
    *p = end;
    return errno || i >= n ? -1 : i;
}

int pva_parse_set(const char *text, int n, unsigned char *marks, struct pva_error *err) {
    memset(marks, 0, (size_t)n);
    if (!strcmp(text, "all")) {
        memset(marks, 1, (size_t)n);
        return 0;
    }
    for (const char *p = text;;) {
        long first = index_at(&p, n), last = first;
        if (first >= 0 && *p == '-') p++, last = index_at(&p, n);
        if (first < 0 || last < first || (*p && *p != ',')) {
            memset(marks, 0, (size_t)n);
            return pva_fail(err, PVA_USAGE, "expected \"all\" or numbers and ranges from 0 to %d such as 0-5,8, got \"%s\"",
                            n - 1, text);
        }
        memset(marks + first, 1, (size_t)(last - first) + 1);
        if (!*p) return 0;
        p++;
    }
}

enum { WORD_BYTES = 48 }; /* longer words are not typing slips of our names */

/* Insertions, deletions, replacements and swaps of neighbours that turn a into b (optimal string alignment). */
static int edit_distance(const char *a, const char *b) {
    int n = (int)strlen(a), m = (int)strlen(b), d[WORD_BYTES + 1][WORD_BYTES + 1];
    for (int i = 0; i <= n; i++)
        for (int j = 0; j <= m; j++) {
            if (!i || !j) {
                d[i][j] = i + j;
                continue;
            }
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[n][m];
}

const char *options_nearest(const struct pva_options *o, const char *word) {
    static const char *const everywhere[] = {"help", "config", "show-config"};
    size_t n = strlen(word);
    if (n > WORD_BYTES) return NULL;
    const char *nearest = NULL;
    int least = (int)n / 3 + 1; /* about one slip in three letters */
    for (size_t i = 0; i < o->n_settings + 3; i++) {
        const char *name = i < o->n_settings ? o->settings[i].spec->name : everywhere[i - o->n_settings];
        if (strlen(name) > WORD_BYTES) continue;
        int distance = n >= 2 && !strncmp(name, word, n) ? 1 : edit_distance(word, name);
        if (distance < least || (distance == least && !nearest)) nearest = name, least = distance;
    }
    return nearest;
}
