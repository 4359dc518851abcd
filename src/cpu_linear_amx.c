#include "cpu_linear.h"
const struct cpu_linear_kernel cpu_linear_amx={.few=16};
