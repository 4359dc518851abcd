/* order.h - indices in the order of their scores. */
#ifndef ORDER_H
#define ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "pva/error.h"

/* order[n]: indices so that scores rise; the order within a tie is unspecified but always the same. PVA_INPUT, naming the index,
 * on a NaN. `what` names the array in the message. */
int order_rising(const char *what, const double *scores, int64_t n, size_t *order, struct pva_error *err);

/* The end of the tie that starts at position i of the order. */
int64_t order_tie_end(const double *scores, const size_t *order, int64_t i, int64_t n);

/* malloc for n >= 0 elements; NULL and PVA_IO when there is no memory or n is negative or too large. */
void *order_array(int64_t n, size_t size, const char *what, struct pva_error *err);

#endif
