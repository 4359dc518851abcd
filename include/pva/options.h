/* options.h - one table of options per command; values from four places.
 *
 * Precedence: command line > environment (PVA_BATCH_SIZE for --batch-size) > --config FILE.yaml > default in the table.
 * Long options only, GNU style: --name value, --name=value, --flag, --no-flag; "--" ends them. Given twice, the last one wins
 * (a list grows); a value that begins with "--" needs the "=" form. -h alone is --help. An empty variable counts as unset.
 * What does not parse, and an unknown option or YAML key, is an error that names the place and the nearest known name:
 * PVA_USAGE on the command line and in the environment, PVA_INPUT with file and line in the file. A value that a higher
 * source overrides must parse too. An unknown PVA_* variable may belong to another command: it is a warning in the log
 * (PVA_MPI and PVA_TEST_* are the tests').
 *
 * The file is one mapping of option names to scalars, or to lists of scalars for PVA_OPT_LIST; keys are unique; tags and
 * aliases are refused. All texts are UTF-8.
 */
#ifndef PVA_OPTIONS_H
#define PVA_OPTIONS_H

#include "pva/error.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pva_option_type {
    PVA_OPT_FLAG,   /* yes/no */
    PVA_OPT_INT,    /* whole number within [min, max] */
    PVA_OPT_REAL,   /* finite number within [min, max] */
    PVA_OPT_TEXT,   /* any text */
    PVA_OPT_CHOICE, /* one of `choices`, separated by '|' */
    PVA_OPT_BYTES,  /* 30G, 512M, 100000: a size, powers of 1024 */
    PVA_OPT_LIST,   /* may be given several times; in YAML a list or one scalar */
};

struct pva_option {
    const char *name; /* without the dashes */
    enum pva_option_type type;
    const char *argument; /* name of the value in --help, e.g. "DIR"; NULL for flags */
    const char *fallback; /* default as text; NULL: unset */
    const char *help;     /* one line */
    const char *choices;  /* for PVA_OPT_CHOICE */
    double min, max;      /* for INT and REAL; both 0: unlimited; one side may be INFINITY */
};

/* A command's table ends with an entry whose name is NULL. Tables can be shared: a command passes a list of tables. */
struct pva_options;

/* Reads argv[1..argc-1], the environment and --config. `command` is what the user types, "pva-mpi generate". `tables` ends
 * with NULL; the tables outlive the options; "help", "config" and "show-config" are understood everywhere and are in no table.
 * With --help nothing else is read, so that help is given whatever else is wrong. *out is owned by the caller. A table that
 * contradicts itself (a name twice, a default out of range) is a bug and aborts. */
int pva_options_parse(const char *command, const struct pva_option *const *tables, int argc, char **argv,
                      struct pva_options **out, struct pva_error *err);
/* What an earlier command was given: the tables' defaults and a file that pva_options_print_config wrote; no environment. */
int pva_options_read_file(const char *command, const struct pva_option *const *tables, const char *path, struct pva_options **out,
                          struct pva_error *err);
/* One value from the program itself; it wins over every source. */
int pva_options_set(struct pva_options *o, const char *name, const char *value, struct pva_error *err);
void pva_options_free(struct pva_options **options);

/* Typed reads of an option that is in the tables with that type (anything else is a bug and aborts); text reads any type but
 * a list. Unset: NULL, 0 or no items. The text lives as long as the options. */
const char *pva_options_text(const struct pva_options *o, const char *name);
int pva_options_is_set(const struct pva_options *o, const char *name);       /* given by the user, not by the default */
int64_t pva_options_int(const struct pva_options *o, const char *name);
double pva_options_real(const struct pva_options *o, const char *name);
int pva_options_flag(const struct pva_options *o, const char *name);
size_t pva_options_bytes(const struct pva_options *o, const char *name);
size_t pva_options_list(const struct pva_options *o, const char *name, const char *const **items); /* count */
size_t pva_options_positional(const struct pva_options *o, const char *const **items);            /* count */

/* The same question for several commands: fails with PVA_USAGE naming the option when it is unset. */
int pva_options_require(const struct pva_options *o, const char *name, struct pva_error *err);

int pva_options_wants_help(const struct pva_options *o);
int pva_options_wants_config(const struct pva_options *o);
/* `synopsis` follows the command on the usage line; further lines of it are printed as they are. */
void pva_options_print_help(const char *command, const char *synopsis, const struct pva_option *const *tables, FILE *out);
/* The resolved settings as YAML that --config reads back to the same values; unset ones as comments. See ferror(out). */
void pva_options_print_config(const struct pva_options *o, FILE *out);

/* "30G" -> bytes. K, M, G, T (or k, m, g, t) are powers of 1024. Whole numbers only. */
int pva_parse_bytes(const char *text, size_t *out, struct pva_error *err);
/* "all", "3", "0-5,8,10-12" within [0, n): sets marks[i], [n], to 1 for the chosen ones, 0 else; on failure all to 0. */
int pva_parse_set(const char *text, int n, unsigned char *marks, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
