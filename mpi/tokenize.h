/* tokenize.h - the tokenize command: its options and its body. */
#ifndef TOKENIZE_COMMAND_H
#define TOKENIZE_COMMAND_H

#include "pva/options.h"

extern const struct pva_option pva_tokenize_options[];
int pva_command_tokenize(const struct pva_options *o, struct pva_error *err);

#endif
