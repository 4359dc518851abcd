#if defined(__x86_64__) && !defined(SPD_DOUBLE)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,prefer-vector-width=512")
#define SPD_AVX512
#define SPD_KERNELS spd_kernels_avx512
#include "kernels_body.h"
#else
#include "kernels.h"
const struct spd_kernels spd_kernels_avx512; /* never chosen here */
#endif
