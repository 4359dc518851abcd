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
    const struct pva_option *tables[5]; /* ends with NULL */
    int (*run)(const struct pva_options *o, struct pva_error *err);
};

/* Understood by every command. */
extern const struct pva_option pva_common_options[];

extern const struct pva_option pva_engine_options[]; /* engine.h */
extern const struct pva_option pva_bench_options[], pva_doctor_options[], pva_export_options[], pva_report_options[], pva_forward_options[], pva_generate_options[],
    pva_grade_options[], pva_phase1_options[], pva_regrade_options[], pva_replay_options[], pva_status_options[], pva_synth_options[], pva_tokenize_options[];

int pva_command_bench(const struct pva_options *o, struct pva_error *err);
int pva_command_checkpoints(const struct pva_options *o, struct pva_error *err);
int pva_command_doctor(const struct pva_options *o, struct pva_error *err);
int pva_command_export(const struct pva_options *o, struct pva_error *err);
int pva_command_report(const struct pva_options *o, struct pva_error *err);
int pva_command_forward(const struct pva_options *o, struct pva_error *err);
int pva_command_generate(const struct pva_options *o, struct pva_error *err);
int pva_command_grade(const struct pva_options *o, struct pva_error *err);
int pva_command_phase1(const struct pva_options *o, struct pva_error *err);
int pva_command_regrade(const struct pva_options *o, struct pva_error *err);
int pva_command_replay(const struct pva_options *o, struct pva_error *err);
int pva_command_status(const struct pva_options *o, struct pva_error *err);
int pva_command_synth(const struct pva_options *o, struct pva_error *err);
int pva_command_tokenize(const struct pva_options *o, struct pva_error *err);

#endif
