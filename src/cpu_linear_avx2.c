#include "cpu_linear.h"
const struct cpu_linear_kernel cpu_linear_avx2={.few=16};
