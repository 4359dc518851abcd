#include "cpu_linear.h"

#if defined(__x86_64__) || defined(INTRIN_EMULATION_H) /* the tests compile this file against intrinsics in plain C */
#if !defined(INTRIN_EMULATION_H)
#include <immintrin.h>
#define TARGET __attribute__((target("avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define KEEP(v) __asm__("" : "+v"(v))
#define AS_PAIRS(v) ((__m512bh)(v))
#endif

#define PAIRS 1
#define MULTIPLY_ADD(sum, w, x) _mm512_dpbf16_ps(sum, AS_PAIRS(w), AS_PAIRS(x))
#include "cpu_linear_zmm.h"

const struct cpu_linear_kernel cpu_linear_avx512bf16 = CPU_LINEAR_KERNEL;
#endif
