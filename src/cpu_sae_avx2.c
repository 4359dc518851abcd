#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#define CPU_LANES_AVX2
#define CPU_SAE_KERNEL cpu_sae_avx2
#define CPU_SAE_ROWS 6 /* 12 sums, 2 columns and one value of x in 16 registers */
#define CPU_SAE_LANES 1
#include "cpu_sae_body.h"
#else
#include "cpu_sae.h"
const struct cpu_sae_kernel cpu_sae_avx2; /* never chosen here */
#endif
