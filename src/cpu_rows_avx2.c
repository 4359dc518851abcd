#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#define CPU_LANES_AVX2
#define CPU_ROWS_TABLE cpu_rows_avx2
#include "cpu_rows_body.h"
#else
#include "cpu_rows.h"
const struct cpu_rows cpu_rows_avx2; /* never chosen here */
#endif
