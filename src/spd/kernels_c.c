#define SPD_KERNELS spd_kernels_c
#include "kernels_body.h"
