#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma")
#define CPU_LANES_AVX512
#define CPU_ROWS_TABLE cpu_rows_avx512
#include "cpu_rows_body.h"
#else
#include "cpu_rows.h"
const struct cpu_rows cpu_rows_avx512; /* never chosen here */
#endif
