/* The AMX kernel against tiles in plain C; the real one runs in test_cpu_linear where the machine has it. */
#include "intrin_emulation.h"

#define cpu_linear_amx emulated_amx
#include "cpu_linear_amx.c"

#include "linear_check.h"

int main(void) {
    check_subject(&(struct subject){"amx, emulated", &emulated_amx, CPU_AMX, 1});
    cpu_scratch_free(&scratch);
    return check_report("cpu_linear_amx");
}
