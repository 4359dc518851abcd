/* par.h - many processes as one program: start, agree, stop.
 *
 * Collective calls stand only at the top level of a step, never under an `if` that depends on the rank or on local data. A step ends with
 * par_agree: either every rank goes on, or every rank leaves by the same way with the same code. Nothing returns between an agreement
 * and the next collective call.
 */
#ifndef PAR_H
#define PAR_H

#include "pva/error.h"

#include <mpi.h>

struct par {
    MPI_Comm comm;               /* a duplicate of the world */
    MPI_Comm node;               /* the ranks that share this node's memory */
    int rank, size;
    int local_rank, local_size;  /* on this node */
    int n_nodes;
    char host[64];
};

/* Starts MPI with settings that are silent and do not burn a core while waiting, where the user has not chosen his own. A process
 * started without a launcher is a world of one. Errors of MPI calls are returned, not fatal. */
int par_open(struct par *p, struct pva_error *err);
void par_close(struct par *p); /* collective; leaves *p zeroed; harmless when not open */

/* MPI starts once per process: while keep is 1, par_close leaves it running for the next par_open. For one program of several phases. */
void par_keep(int keep);

/* 1 when a launcher (mpirun, srun) started this process as one of several, known without starting MPI. */
int par_launched_with_others(void);

/* Collective. 0 when no rank has failed. Otherwise the lowest failing rank's error, with "step: rank R on HOST: " before it (rank and
 * host only when there are several), is put into err on every rank and its code returned everywhere. */
int par_agree(const struct par *p, const char *step, struct pva_error *err);

/* Going on is impossible: one line with step, rank, host and place, then MPI_Abort with `code` (which must not be 0). */
void par_die(const struct par *p, int code, const char *file, int line, const char *fmt, ...) __attribute__((noreturn, format(printf, 5, 6)));
#define PAR_DIE(p, code, ...) par_die(p, code, __FILE__, __LINE__, __VA_ARGS__)
/* An MPI call that must not fail. */
#define PAR_CHECK(p, call) \
    do { \
        int par_status = (call); \
        if (par_status != MPI_SUCCESS) par_die_mpi(p, par_status, __FILE__, __LINE__, #call); \
    } while (0)
void par_die_mpi(const struct par *p, int mpi_status, const char *file, int line, const char *call) __attribute__((noreturn));

/* Sleeps until the request is complete: a blocked rank must not take the core that another rank computes on. */
void par_wait(const struct par *p, MPI_Request *request);
/* A barrier that sleeps. */
void par_barrier(const struct par *p);

#endif
