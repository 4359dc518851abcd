/* logistic.h - the solver behind probe.h: minimises penalty(theta) / 2 + c sum over items of log(1 + exp(-+f)), f = matrix theta
 * + intercept.
 *
 * Two shapes of the same problem. Primal: matrix is X [n, d], theta the weights, penalty |theta|^2. Dual (kernel): matrix is the
 * Gram matrix X X^T [n, n], weights = X^T theta, penalty theta^T matrix theta; the work per step then does not grow with d. */
#ifndef LOGISTIC_H
#define LOGISTIC_H

#include <stdint.h>

#include "pva/error.h"

struct logistic {
    int64_t n, m; /* items; parameters (d, or n when dual) */
    int dual;
    const double *matrix;        /* [n, m] */
    const unsigned char *labels; /* [n] nonzero = positive */
    double c;
    double *theta;    /* [m]; in: where to start, out: the solution */
    double intercept; /* likewise */
    int converged;    /* the last Newton step moved no f by more than 1e-10 of its size */
};

/* Both classes must be present. PVA_IO when there is no memory. */
int logistic_fit(struct logistic *l, struct pva_error *err);

/* The inner product, in a fixed order that the compiler can vectorise. */
double logistic_dot(const double *a, const double *b, int64_t n);

#endif
