/* grade.h - the command `pva-mpi grade`. Must run before MPI_Init: it forks. */
#ifndef PVA_MPI_GRADE_H
#define PVA_MPI_GRADE_H

#include "pva/error.h"
#include "pva/options.h"

extern const struct pva_option pva_grade_options[];
int pva_command_grade(const struct pva_options *o, struct pva_error *err);

#endif
