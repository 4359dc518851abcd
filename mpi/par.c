#include "par.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int par_launched_with_others(void) {
    const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
    for (int i = 0; i < 3; i++) {
        const char *v = getenv(sizes[i]);
        /* A shell inside an allocation has SLURM's variables too; only a step's tasks have a process id of theirs. */
        if (i == 2 && !getenv("PMIX_RANK")) continue;
        if (v && strtol(v, NULL, 10) > 1) return 1;
    }
    return 0;
}

static int launched(void) { return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK") || getenv("PMI_RANK"); }

/* mpirun says so; under srun it is not known before MPI has started. */
static int on_one_node(void) {
    const char *all = getenv("OMPI_COMM_WORLD_SIZE"), *here = getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
    return all && here && !strcmp(all, here);
}

int par_open(struct par *p, struct pva_error *err) {
    memset(p, 0, sizeof *p);
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0); /* containers often forbid reading another process's memory */
    setenv("OMPI_MCA_btl_base_warn_component_unused", "0", 0);
    if (!launched()) setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
    if (on_one_node()) setenv("OMPI_MCA_btl", "^tcp", 0); /* memory is enough; Open MPI 5 complains of the network interfaces of some machines */
    int provided, initialised = 0;
    MPI_Initialized(&initialised);
    if (!initialised && MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
        return pva_fail(err, PVA_IO, "MPI could not be started");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (MPI_Comm_dup(MPI_COMM_WORLD, &p->comm) != MPI_SUCCESS) return pva_fail(err, PVA_IO, "MPI_Comm_dup failed");
    MPI_Comm_set_errhandler(p->comm, MPI_ERRORS_RETURN);
    MPI_Comm_rank(p->comm, &p->rank);
    MPI_Comm_size(p->comm, &p->size);
    if (gethostname(p->host, sizeof p->host - 1)) snprintf(p->host, sizeof p->host, "?");
    PAR_CHECK(p, MPI_Comm_split_type(p->comm, MPI_COMM_TYPE_SHARED, p->rank, MPI_INFO_NULL, &p->node));
    PAR_CHECK(p, MPI_Comm_rank(p->node, &p->local_rank));
    PAR_CHECK(p, MPI_Comm_size(p->node, &p->local_size));
    int first = p->local_rank == 0;
    PAR_CHECK(p, MPI_Allreduce(&first, &p->n_nodes, 1, MPI_INT, MPI_SUM, p->comm));
    return PVA_OK;
}

static int kept;

void par_keep(int keep) { kept = keep; }

void par_close(struct par *p) {
    if (!p->size) return;
    par_barrier(p); /* a rank that is early would spin in MPI_Finalize */
    MPI_Comm_free(&p->node);
    MPI_Comm_free(&p->comm);
    if (!kept) MPI_Finalize();
    memset(p, 0, sizeof *p);
}

int par_agree(const struct par *p, const char *step, struct pva_error *err) {
    struct {
        int failed, rank;
    } mine = {err->code != 0, p->rank}, first;
    /* MAXLOC takes the lowest rank among equals: the first that failed, or rank 0 when none has. */
    PAR_CHECK(p, MPI_Allreduce(&mine, &first, 1, MPI_2INT, MPI_MAXLOC, p->comm));
    if (!first.failed) return PVA_OK;
    struct pva_error theirs = *err;
    if (p->rank == first.rank) {
        if (p->size > 1) pva_error_prefix(&theirs, "%s: rank %d on %s", step, p->rank, p->host);
        else pva_error_prefix(&theirs, "%s", step);
    }
    PAR_CHECK(p, MPI_Bcast(&theirs, sizeof theirs, MPI_BYTE, first.rank, p->comm));
    *err = theirs;
    return err->code;
}

void par_die(const struct par *p, int code, const char *file, int line, const char *fmt, ...) {
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "pva-mpi: rank %d of %d on %s: %s (%s:%d)\n", p->rank, p->size, p->host, text, file, line);
    fflush(NULL);
    MPI_Abort(MPI_COMM_WORLD, code ? code : PVA_BUG);
    _exit(code ? code : PVA_BUG); /* MPI_Abort may return while the launcher is busy killing us */
}

void par_die_mpi(const struct par *p, int mpi_status, const char *file, int line, const char *call) {
    char why[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    MPI_Error_string(mpi_status, why, &n);
    par_die(p, PVA_IO, file, line, "%.120s: %.200s", call, why);
}

void par_wait(const struct par *p, MPI_Request *request) {
    /* From 20 microseconds up to 2 milliseconds: quick answers stay quick, long waits cost nothing. */
    struct timespec nap = {0, 20000};
    for (int done = 0;;) {
        PAR_CHECK(p, MPI_Test(request, &done, MPI_STATUS_IGNORE));
        if (done) return;
        nanosleep(&nap, NULL);
        if (nap.tv_nsec < 2000000) nap.tv_nsec += nap.tv_nsec / 4;
    }
}

void par_barrier(const struct par *p) {
    MPI_Request request;
    PAR_CHECK(p, MPI_Ibarrier(p->comm, &request));
    par_wait(p, &request);
}
