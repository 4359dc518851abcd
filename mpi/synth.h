/* synth.h - the synth command: its options and its body. */
#ifndef SYNTH_COMMAND_H
#define SYNTH_COMMAND_H

#include "pva/options.h"

extern const struct pva_option pva_synth_options[];
int pva_command_synth(const struct pva_options *o, struct pva_error *err);

#endif
