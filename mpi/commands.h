/* commands.h - the commands of pva-mpi. Each lives in the file of its name: a table of options and a body.
 * A body returns a status and leaves the one line about it in err; main prints it. */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "pva/error.h"
#include "pva/options.h"

struct command {
    const char *name, *alias; /* alias may be NULL */
    const char *summary;      /* for the list of commands */
    const char *synopsis;     /* what follows the name in its help */
    const struct pva_option *tables[6]; /* ends with NULL */
    int (*run)(const struct pva_options *o, struct pva_error *err);
};

/* Understood by every command. */
extern const struct pva_option pva_common_options[];

extern const struct pva_option pva_engine_options[];   /* engine.h */
extern const struct pva_option pva_campaign_options[]; /* campaign.h */
extern const struct pva_option pva_followup_options[]; /* followup.h */

#define PVA_COMMAND(name) \
    extern const struct pva_option pva_##name##_options[]; \
    int pva_command_##name(const struct pva_options *o, struct pva_error *err)
PVA_COMMAND(bench);
PVA_COMMAND(doctor);
PVA_COMMAND(encode);
PVA_COMMAND(export);
PVA_COMMAND(forward);
PVA_COMMAND(generate);
PVA_COMMAND(grade);
PVA_COMMAND(phase1);
PVA_COMMAND(phase2);
PVA_COMMAND(phase3);
PVA_COMMAND(pile);
PVA_COMMAND(regrade);
PVA_COMMAND(replay);
PVA_COMMAND(report);
PVA_COMMAND(run);
PVA_COMMAND(status);
PVA_COMMAND(steer);
PVA_COMMAND(synth);
PVA_COMMAND(tokenize);

int pva_command_checkpoints(const struct pva_options *o, struct pva_error *err); /* status' options */

#endif
