/* spd_command.h - the whole of spd-run: what it was asked for, done. Leaves the one line about a failure in err (empty on ranks
 * that must not print it) and returns the exit code. */
#ifndef SPD_COMMAND_H
#define SPD_COMMAND_H

#include "pva/error.h"

int spd_command(int argc, char **argv, struct pva_error *err);

#endif
