#include "cpu_isa.h"

#include <stdint.h>
#include <string.h>

static const char *const names[CPU_ISA_COUNT] = {"c", "avx2", "avx512", "avx512bf16", "amx"};

const char *cpu_isa_name(enum cpu_isa isa) { return (unsigned)isa < CPU_ISA_COUNT ? names[isa] : "?"; }

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* A processor's feature is usable when the operating system also saves its registers: XCR0 says which it saves. */
static uint64_t saved_registers(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0; /* OSXSAVE: XGETBV exists */
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static int all(uint64_t value, uint64_t mask) { return (value & mask) == mask; }

/* Linux gives the 8 KiB of tile registers only to a process that asked (ARCH_REQ_XCOMP_PERM for XTILEDATA). */
static int tiles_permitted(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
    return 0;
#endif
}

int cpu_isa_available(enum cpu_isa isa) {
    if (isa == CPU_C) return 1;
    unsigned a, b, c, d, fma, ebx7, edx7, eax71 = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    fma = c >> 12 & 1;
    if (!__get_cpuid_count(7, 0, &a, &ebx7, &c, &edx7)) return 0;
    if (a >= 1) __get_cpuid_count(7, 1, &eax71, &b, &c, &d);
    uint64_t saved = saved_registers();

    int avx2 = fma && (ebx7 >> 5 & 1) && all(saved, 0x6);                                          /* xmm, ymm */
    int avx512 = avx2 && all(ebx7, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) && all(saved, 0xe6); /* masks, zmm */
    int avx512bf16 = avx512 && (eax71 >> 5 & 1);
    switch (isa) {
    case CPU_AVX2: return avx2;
    case CPU_AVX512: return avx512;
    case CPU_AVX512BF16: return avx512bf16;
    case CPU_AMX: return avx512 && all(edx7, 1u << 24 | 1u << 22) && all(saved, 0x60000) && tiles_permitted();
    default: return 0;
    }
}

#else

int cpu_isa_available(enum cpu_isa isa) { return isa == CPU_C; }

#endif

enum cpu_isa cpu_isa_best(void) {
    int isa = CPU_ISA_COUNT - 1;
    while (isa > CPU_C && !cpu_isa_available((enum cpu_isa)isa)) isa--;
    return (enum cpu_isa)isa;
}

int cpu_isa_parse(const char *name, enum cpu_isa *out, struct pva_error *err) {
    for (int i = 0; i < CPU_ISA_COUNT; i++) {
        if (strcmp(name, names[i])) continue;
        if (!cpu_isa_available((enum cpu_isa)i))
            return pva_fail(err, PVA_USAGE, "instruction set %s: this machine does not have it; its best is %s", name,
                            cpu_isa_name(cpu_isa_best()));
        *out = (enum cpu_isa)i;
        return PVA_OK;
    }
    return pva_fail(err, PVA_USAGE, "instruction set \"%s\": expected one of c, avx2, avx512, avx512bf16, amx", name);
}
