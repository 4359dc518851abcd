#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma")
#define CPU_LANES_AVX512
#define CPU_SAE_KERNEL cpu_sae_avx512
#define CPU_SAE_ROWS 6 /* 24 sums, 4 columns and one value of x in 32 registers */
#define CPU_SAE_LANES 4
#include "cpu_sae_body.h"
#else
#include "cpu_sae.h"
const struct cpu_sae_kernel cpu_sae_avx512; /* never chosen here */
#endif
