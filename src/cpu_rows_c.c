#define CPU_LANES_C
#define CPU_ROWS_TABLE cpu_rows_c
#include "cpu_rows_body.h"
