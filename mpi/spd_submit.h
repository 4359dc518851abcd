/* spd_submit.h - spd-run on a login node: its runs as an array of SLURM jobs. */
#ifndef SPD_SUBMIT_H
#define SPD_SUBMIT_H

#include "pva/options.h"

/* --no-local, or --n-agents without --local; not when the runs are only listed, or one of them is named by its index. */
int spd_submit_wanted(const struct pva_options *o);
/* Becomes slurm/spd.sh, found beside the program: in the build's source tree or where it was installed. Returns only with an
 * error. options: the command's table. */
int spd_submit(const struct pva_options *o, const struct pva_option *options, struct pva_error *err);

#endif
