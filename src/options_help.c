/* --help in the GNU manner: one option per line, texts aligned and wrapped, defaults shown. */
#include "options_private.h"

#include <string.h>

enum { TEXT_COLUMN = 30, LINE_COLUMNS = 80 };

static const struct pva_option everywhere[] = {
    {"config", PVA_OPT_TEXT, "FILE", NULL, "read options from FILE, YAML lines of the form \"option: value\"", NULL, 0, 0},
    {"show-config", PVA_OPT_TEXT, NULL, NULL, "print the resolved options as such a file and exit", NULL, 0, 0},
    {"help", PVA_OPT_TEXT, NULL, NULL, "print this and exit", NULL, 0, 0},
    {NULL, PVA_OPT_TEXT, NULL, NULL, NULL, NULL, 0, 0},
};

/* Writes the words of `text` from TEXT_COLUMN on; *column is where the line stands. */
static void wrap(const char *text, int *column, FILE *out) {
    for (const char *p = text + strspn(text, " "); *p; p += strspn(p, " ")) {
        int n = (int)strcspn(p, " "), fresh = *column == TEXT_COLUMN;
        if (!fresh && *column + 1 + n > LINE_COLUMNS) {
            fprintf(out, "\n%*s", TEXT_COLUMN, "");
            *column = TEXT_COLUMN;
            fresh = 1;
        }
        *column += fprintf(out, "%s%.*s", fresh ? "" : " ", n, p);
        p += n;
    }
}

static void print_option(const struct pva_option *spec, FILE *out) {
    const char *argument = spec->argument ? spec->argument : spec->choices;
    int column = fprintf(out, "  --%s%s%s%s", spec->type == PVA_OPT_FLAG ? "[no-]" : "", spec->name, argument ? " " : "",
                         argument ? argument : "");
    if (column > TEXT_COLUMN - 2) {
        fprintf(out, "\n");
        column = 0;
    }
    fprintf(out, "%*s", TEXT_COLUMN - column, "");
    column = TEXT_COLUMN;
    wrap(spec->help, &column, out);
    if (spec->argument && spec->choices) {
        char choices[256];
        snprintf(choices, sizeof choices, "(%s)", spec->choices);
        wrap(choices, &column, out);
    }
    if (spec->type == PVA_OPT_LIST) wrap("(may be given several times)", &column, out);
    if (spec->fallback) {
        char fallback[256];
        snprintf(fallback, sizeof fallback, "[default: %s]", spec->fallback);
        wrap(fallback, &column, out);
    }
    fprintf(out, "\n");
}

void pva_options_print_help(const char *command, const char *synopsis, const struct pva_option *const *tables, FILE *out) {
    fprintf(out, "Usage: %s %s\n", command, synopsis);
    for (size_t t = 0; tables[t]; t++) {
        fprintf(out, "\n");
        for (const struct pva_option *spec = tables[t]; spec->name; spec++) print_option(spec, out);
    }
    fprintf(out, "\n");
    for (const struct pva_option *spec = everywhere; spec->name; spec++) print_option(spec, out);
    fprintf(out, "\nOptions may also stand in the environment (--batch-size: PVA_BATCH_SIZE) and in\n"
                 "the --config file. The command line wins, then the environment, then the file.\n");
}
