/* options_private.h - what options.c, options_value.c, options_yaml.c and options_help.c share. */
#ifndef OPTIONS_PRIVATE_H
#define OPTIONS_PRIVATE_H

#include "pva/options.h"

/* Where a value came from; a higher one wins. */
enum option_source { FROM_NOWHERE, FROM_FALLBACK, FROM_CONFIG, FROM_ENVIRONMENT, FROM_COMMAND };

struct setting {
    const struct pva_option *spec;
    enum option_source source;
    char **items; /* [n_items] the texts as given; one unless the option is a list; owned */
    size_t n_items;
    int64_t integer; /* PVA_OPT_INT, and PVA_OPT_FLAG as 0 or 1 */
    double real;
    size_t bytes;
    int config_line; /* where the file set it; 0: it did not */
};

struct pva_options {
    char *command;
    struct setting *settings; /* [n_settings] in the order of the tables */
    size_t n_settings;
    char **positional; /* [n_positional] */
    size_t n_positional;
    char *config; /* path, NULL: none */
    int help, show_config;
};

struct setting *options_find(const struct pva_options *o, const char *name); /* NULL: there is none */

/* One more value from `source`. It must parse even where a higher source has already spoken; then it changes nothing. A list
 * grows by values from the same source. The error text starts with what was expected, the caller puts the place before it. */
int options_assign(struct setting *s, enum option_source source, const char *text, struct pva_error *err);

/* The list is given and has no items so far. */
void options_assign_empty_list(struct setting *s, enum option_source source);

/* Sets integer, real or bytes of *s from the text, by the option's type. */
int options_parse_value(struct setting *s, const char *text, struct pva_error *err);

/* `word` is unknown: the nearest of the settings' names, NULL when none is near. */
const char *options_nearest(const struct pva_options *o, const char *word);

int options_read_config(struct pva_options *o, const char *path, struct pva_error *err);

#endif
