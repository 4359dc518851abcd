/* device.h - where a decomposition computes: a table of operations and what they work with. */
#ifndef SPD_DEVICE_H
#define SPD_DEVICE_H

#include "kernels.h"

#include <math.h>

struct spd_device {
    const struct pva_spd_ops *ops;
    void *own;
};

enum { SPD_MOST_COLUMNS = 256 }; /* of a chunk on the processor */

struct spd_device spd_device_cpu(const struct spd_kernels *k);

static inline real spd_power(real x, double p) {
    return p == 1 ? x : p == 2 ? x * x : sizeof(real) == 4 ? (real)powf((float)x, (float)p) : (real)pow(x, p);
}

#endif
