#define CPU_LANES_C
#define CPU_SAE_KERNEL cpu_sae_c
#define CPU_SAE_ROWS 2
#define CPU_SAE_LANES 1
#include "cpu_sae_body.h"
