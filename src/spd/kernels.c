#include "kernels.h"

#include "cpu_isa.h"

#include <stdlib.h>

const struct spd_kernels *spd_kernels_best(void) {
    if (sizeof(real) == sizeof(double)) return &spd_kernels_c;
    enum cpu_isa best = cpu_isa_best();
    const char *wanted = getenv("PVA_TEST_SPD_ISA"); /* the tests compare the tables */
    if (wanted && cpu_isa_parse(wanted, &best, &(struct pva_error){0})) best = CPU_C;
    return best >= CPU_AVX512 ? &spd_kernels_avx512 : best == CPU_AVX2 ? &spd_kernels_avx2 : &spd_kernels_c;
}
