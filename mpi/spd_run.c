/* spd-run: stochastic parameter decomposition. The command itself is in spd_command.c. */
#include "spd_command.h"

#include "pva/log.h"

#include <stdio.h>

int main(int argc, char **argv) {
    struct pva_error err = {0};
    pva_log_program("spd-run");
    int status = spd_command(argc, argv, &err);
    if (status && err.msg[0]) fprintf(stderr, "spd-run: %s\n", err.msg);
    if ((fflush(stdout) || ferror(stdout)) && !status) {
        fprintf(stderr, "spd-run: standard output could not be written\n");
        status = PVA_IO;
    }
    return status;
}
