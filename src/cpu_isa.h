/* cpu_isa.h - which instruction set the CPU operations use, found out at run time.
 *
 * The first three give the same bits; the last two multiply bfloat16 pairs in hardware and have an order of their own
 * (cpu_linear.h). They are ordered: a later one is faster where the machine has it.
 */
#ifndef CPU_ISA_H
#define CPU_ISA_H

#include "pva/error.h"

enum cpu_isa {
    CPU_C,          /* plain C, on every machine */
    CPU_AVX2,       /* AVX2 and FMA */
    CPU_AVX512,     /* AVX-512 F, BW, DQ, VL */
    CPU_AVX512BF16, /* AVX512-BF16 as well */
    CPU_AMX,        /* AMX-TILE and AMX-BF16, with the AVX-512 above */
    CPU_ISA_COUNT
};

const char *cpu_isa_name(enum cpu_isa isa); /* "c", "avx2", "avx512", "avx512bf16", "amx" */

/* The name to its value. An unknown name is PVA_USAGE with the list of names, one this machine cannot run as well. */
int cpu_isa_parse(const char *name, enum cpu_isa *out, struct pva_error *err);

/* 1 when processor, operating system and this build all have it. Asking for CPU_AMX also asks the kernel to allow the tile
 * registers in this process, so ask before the first use. CPUID is slow in virtual machines: ask once, not per operation. */
int cpu_isa_available(enum cpu_isa isa);

enum cpu_isa cpu_isa_best(void);

#endif
