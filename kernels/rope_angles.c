/* rope_angles.c - the angles of cuda_rope.cu, on the host. */
#include "kernels.h"

#include <math.h>

void pva_cuda_rope_angles(float theta, int64_t first, int64_t n, int64_t half, float *cosines, float *sines) {
    for (int64_t i = 0; i < half; i++) {
        const float exponent = (float)(2 * i) / (float)(2 * half), inverse = 1.0f / (float)pow(theta, exponent);
        for (int64_t p = 0; p < n; p++) {
            const double angle = (float)(first + p) * inverse;
            cosines[p * half + i] = (float)cos(angle);
            sines[p * half + i] = (float)sin(angle);
        }
    }
}
