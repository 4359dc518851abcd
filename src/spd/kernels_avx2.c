#if defined(__x86_64__) && !defined(SPD_DOUBLE)
#pragma GCC target("avx2,fma")
#define SPD_AVX2
#define SPD_KERNELS spd_kernels_avx2
#include "kernels_body.h"
#else
#include "kernels.h"
const struct spd_kernels spd_kernels_avx2; /* never chosen here */
#endif
