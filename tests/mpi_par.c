/* Agreement: whatever rank fails, all leave with its message and its code. */
#include "check.h"
#include "par.h"

int main(void) {
    struct par p;
    struct pva_error err = {0};
    CHECK_OK(par_open(&p, &err), err);
    CHECK(p.size >= 1 && p.local_size <= p.size && p.local_rank < p.local_size && p.n_nodes >= 1);
    CHECK_INT(par_agree(&p, "nothing", &err), PVA_OK);
    for (int failing = 0; failing < p.size; failing++) {
        struct pva_error e = {0};
        char want[64];
        if (p.rank >= failing) pva_fail(&e, PVA_INPUT, "shard %d is missing", p.rank); /* several fail: the lowest is told of */
        CHECK_INT(par_agree(&p, "load", &e), PVA_INPUT);
        snprintf(want, sizeof want, "shard %d is missing", failing);
        CHECK_HAS(e.msg, want);
        CHECK_HAS(e.msg, "load: ");
        if (p.size > 1) CHECK_HAS(e.msg, p.host);
    }
    par_barrier(&p);
    int bad = check_failures, all = 0;
    MPI_Allreduce(&bad, &all, 1, MPI_INT, MPI_SUM, p.comm);
    check_failures = all;
    int rank = p.rank;
    par_close(&p);
    return rank ? (check_failures > 99 ? 99 : check_failures) : check_report("mpi_par");
}
