/* gelu_tanh(gate) * up: the CPU's bits, in both output types. */
#include "twin.h"

static void check_shape(int64_t rows, int64_t cols, size_t shift) {
    struct pva_error err = {0};
    const size_t n = (size_t)(rows * cols);
    TWIN_ARRAY(float, gate, n);
    TWIN_ARRAY(float, up, n);
    TWIN_ARRAY(float, got, n);
    TWIN_ARRAY(float, want, n);
    TWIN_ARRAY(uint16_t, got16, n);
    TWIN_ARRAY(uint16_t, want16, n);
    static const float special[] = {INFINITY, -INFINITY, NAN, 0.625f, -0.625f, 88.5f, 1e-38f, -1e-42f};
    twin_shift = shift;
    twin_fill(gate, n, 1, 3), twin_fill(up, n, 2, 1);
    for (size_t i = 0; i < 8 && n > 20; i++) gate[n - 1 - i] = special[i];
    struct twin_buffer dgate = twin_new(gate, n * 4), dup = twin_new(up, n * 4), dy = twin_new(NULL, n * 4), dy16 = twin_new(NULL, n * 2);
    CHECK_CUDA(pva_cuda_geglu((float *)dgate.p, (float *)dup.p, (int64_t)n, dy.p, PVA_F32, NULL));
    CHECK_CUDA(pva_cuda_geglu((float *)dgate.p, (float *)dup.p, (int64_t)n, dy16.p, PVA_BF16, NULL));
    twin_read(&dy, got), twin_read(&dy16, got16), twin_read(&dgate, NULL), twin_read(&dup, NULL);

    struct pva_tensor g = twin_cpu(gate, PVA_F32, rows, cols), u = twin_cpu(up, PVA_F32, rows, cols);
    struct pva_tensor y = twin_cpu(NULL, PVA_F32, rows, cols), y16 = twin_cpu(NULL, PVA_BF16, rows, cols);
    CHECK_OK(pva_backend_cpu.geglu(twin_backend, g, u, y, &err), err);
    CHECK_OK(pva_backend_cpu.geglu(twin_backend, g, u, y16, &err), err);
    twin_cpu_read(y, want), twin_cpu_read(y16, want16);
    CHECK_INT(twin_differ_bits(got, want, n), 0);
    CHECK_INT(twin_differ_bits_bf16(got16, want16, n), 0);
    twin_cpu_clear();
    twin_free(&dgate), twin_free(&dup), twin_free(&dy), twin_free(&dy16);
    free(gate), free(up), free(got), free(want), free(got16), free(want16);
}

int main(void) {
    twin_start();
    twin_check_comparators();
    for (int i = 0; twin_order(i); i++) {
        check_shape(0, 16, 0);
        check_shape(1, 1, 0);
        check_shape(1, 3, 4);
        check_shape(7, 509, 0);
        check_shape(2, 9216, 0);
        check_shape(1, 14336, 4);
    }
    check_shape(147, 14336, 0); /* more than the grid takes in one go */
    return check_report("twin_geglu");
}
