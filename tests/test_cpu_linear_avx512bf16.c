/* The AVX512-BF16 kernel against the instruction in plain C; the real one runs in test_cpu_linear where the machine has it. */
#include "intrin_emulation.h"

#define cpu_linear_avx512bf16 emulated_avx512bf16
#include "cpu_linear_avx512bf16.c"

#include "linear_check.h"

int main(void) {
    check_subject(&(struct subject){"avx512bf16, emulated", &emulated_avx512bf16, CPU_AVX512BF16, 1});
    cpu_scratch_free(&scratch);
    return check_report("cpu_linear_avx512bf16");
}
