/* Steering: adding a direction has the CPU's bits; removing one is compared with float64 and the CPU. */
#include "twin.h"

enum { DIRECTIONS = 3 };

static void check_shape(int64_t n, int64_t d, size_t shift) {
    struct pva_error err = {0};
    const size_t all = (size_t)(n * d);
    TWIN_ARRAY(float, x, all);
    TWIN_ARRAY(float, got, all);
    TWIN_ARRAY(float, want, all);
    TWIN_ARRAY(float, u, DIRECTIONS *d);
    TWIN_ARRAY(int32_t, which, n);
    TWIN_ARRAY(float, c, n);
    const int32_t none[2] = {0, 0};
    int32_t fault[2];
    twin_shift = shift;
    twin_fill(x, all, 1, 5);
    for (int64_t i = 0; i < n; i++) which[i] = (int32_t)((i + 1) % (DIRECTIONS + 1)) - 1, c[i] = i % 3 ? 0.37f * (float)(i + 1) : 0.0f;
    which[0] = DIRECTIONS - 1;
    for (int k = 0; k < DIRECTIONS; k++) {
        double norm = 0;
        for (int64_t i = 0; i < d; i++) norm += pow(u[k * d + i] = (float)cos((double)(k + i * (k + 2))), 2);
        for (int64_t i = 0; i < d; i++) u[k * d + i] = (float)(u[k * d + i] / sqrt(norm));
    }
    struct twin_buffer dx = twin_new(x, all * 4), du = twin_new(u, (size_t)(DIRECTIONS * d) * 4), dw = twin_new(which, (size_t)n * 4),
                       dc = twin_new(c, (size_t)n * 4), dfault = twin_new(none, sizeof none), da = twin_new(x, all * 4);
    CHECK_CUDA(pva_cuda_add_direction((float *)dx.p, n, d, (float *)du.p, DIRECTIONS, (int32_t *)dw.p, (float *)dc.p, (int32_t *)dfault.p, NULL));
    twin_read(&dx, got), twin_read(&dfault, fault), twin_read(&du, NULL), twin_read(&dw, NULL), twin_read(&dc, NULL);
    CHECK_INT(fault[0], 0);
    struct pva_tensor tx = twin_cpu(x, PVA_F32, n, d), ta = twin_cpu(x, PVA_F32, n, d), tu = twin_cpu(u, PVA_F32, DIRECTIONS, d);
    struct pva_tensor tw = twin_cpu(which, PVA_I32, n, 1);
    CHECK_OK(pva_backend_cpu.add_direction(twin_backend, tx, tu, tw, twin_cpu(c, PVA_F32, n, 1), &err), err);
    twin_cpu_read(tx, want);
    CHECK_INT(twin_differ_bits(got, want, all), 0);
    for (int64_t i = 0; i < n; i++)
        if (which[i] < 0) CHECK_INT(memcmp(got + i * d, x + i * d, (size_t)d * 4), 0);

    CHECK_CUDA(pva_cuda_ablate_direction((float *)da.p, n, d, (float *)du.p, DIRECTIONS, (int32_t *)dw.p, (int32_t *)dfault.p, NULL));
    twin_read(&da, got), twin_read(&dfault, fault);
    CHECK_INT(fault[0], 0);
    CHECK_OK(pva_backend_cpu.ablate_direction(twin_backend, ta, tu, tw, &err), err);
    twin_cpu_read(ta, want);
    /* Roundings of x . u: as in twin_norm, but of |x||u|, since its terms cancel; then one product and one difference. */
    const int64_t lanes = d <= 512 ? 128 : 512;
    const double unit = 0x1p-24 * 1.01, sums = (double)((d + 4 * lanes - 1) / (4 * lanes) * 4 + 10), cpu_sums = (double)((d + 15) / 16 + 5);
    for (int64_t i = 0; i < n; i++) {
        if (which[i] < 0) {
            CHECK_INT(memcmp(got + i * d, x + i * d, (size_t)d * 4), 0);
            continue;
        }
        const float *dir = u + which[i] * d;
        double along = 0, size = 0;
        size_t wrong = 0, wrong_cpu = 0;
        for (int64_t j = 0; j < d; j++) along += (double)x[i * d + j] * dir[j], size += fabs((double)x[i * d + j] * dir[j]);
        for (int64_t j = 0; j < d; j++) {
            const double exact = x[i * d + j] - along * dir[j], last = unit * (fabs(exact) + 2 * fabs(along * dir[j])) + 1e-37;
            wrong += !(fabs(got[i * d + j] - exact) <= sums * unit * size * fabs((double)dir[j]) + last);
            wrong_cpu += !(fabs((double)got[i * d + j] - want[i * d + j]) <= (sums + cpu_sums) * unit * size * fabs((double)dir[j]) + 2 * last);
        }
        CHECK_INT(wrong, 0);
        CHECK_INT(wrong_cpu, 0);
    }

    /* A direction that is not there: the row is left alone and the fault names it. */
    if (n > 0) {
        const int32_t beyond = DIRECTIONS;
        for (int ablate = 0; ablate < 2; ablate++) {
            CHECK_CUDA(cudaMemcpy(dx.p, x, all * 4, cudaMemcpyHostToDevice));
            CHECK_CUDA(cudaMemcpy(dw.p, &beyond, 4, cudaMemcpyHostToDevice));
            CHECK_CUDA(cudaMemcpy(dfault.p, none, sizeof none, cudaMemcpyHostToDevice));
            if (ablate) CHECK_CUDA(pva_cuda_ablate_direction((float *)dx.p, n, d, (float *)du.p, DIRECTIONS, (int32_t *)dw.p, (int32_t *)dfault.p, NULL));
            else CHECK_CUDA(pva_cuda_add_direction((float *)dx.p, n, d, (float *)du.p, DIRECTIONS, (int32_t *)dw.p, (float *)dc.p, (int32_t *)dfault.p, NULL));
            twin_read(&dx, got), twin_read(&dfault, fault);
            CHECK_INT(fault[0], PVA_FAULT_DIRECTION);
            CHECK_INT(fault[1], DIRECTIONS);
            CHECK_INT(memcmp(got, x, (size_t)d * 4), 0);
        }
    }
    twin_cpu_clear();
    twin_free(&dx), twin_free(&du), twin_free(&dw), twin_free(&dc), twin_free(&dfault), twin_free(&da);
    free(x), free(got), free(want), free(u), free(which), free(c);
}

int main(void) {
    twin_start();
    twin_check_comparators();
    for (int i = 0; twin_order(i); i++) {
        check_shape(0, 2304, 0);
        check_shape(1, 1, 0);
        check_shape(5, 7, 4);
        check_shape(9, 509, 0);
        check_shape(5, 2304, 0);
        check_shape(5, 2304, 4);
        check_shape(4, 3584, 0);
    }
    return check_report("twin_direction");
}
