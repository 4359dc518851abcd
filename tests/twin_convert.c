/* Element types: every value of the 16-bit ones, and float32 around its roundings. */
#include "twin.h"

static void check(const void *src, enum pva_dtype from, enum pva_dtype to, int64_t n, size_t shift) {
    struct pva_error err = {0};
    const size_t bytes = (size_t)n * pva_dtype_size(to);
    TWIN_ARRAY(char, got, bytes);
    TWIN_ARRAY(char, want, bytes);
    twin_shift = shift;
    struct twin_buffer dsrc = twin_new(src, (size_t)n * pva_dtype_size(from)), dst = twin_new(NULL, bytes);
    CHECK_CUDA(pva_cuda_convert(dsrc.p, from, dst.p, to, n, NULL));
    twin_read(&dst, got), twin_read(&dsrc, NULL);
    struct pva_tensor y = twin_cpu(NULL, to, 1, n);
    CHECK_OK(pva_backend_cpu.convert(twin_backend, twin_cpu(src, from, 1, n), y, &err), err);
    twin_cpu_read(y, want);
    if (to == PVA_BF16) CHECK_INT(twin_differ_bits_bf16((uint16_t *)got, (uint16_t *)want, (size_t)n), 0);
    else CHECK_INT(twin_differ_bits((float *)got, (float *)want, (size_t)n), 0);
    twin_cpu_clear();
    twin_free(&dsrc), twin_free(&dst), free(got), free(want);
}

int main(void) {
    enum { ALL = 1 << 16 };
    static uint16_t every[ALL];
    static float wide[ALL];
    twin_start();
    twin_check_comparators();
    for (int i = 0; i < ALL; i++) {
        const uint32_t low[8] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x4000, 0xc000}; /* below, on and above the halfway point */
        union { uint32_t u; float f; } v = {(uint32_t)i << 16 | low[i * 5 / 3 % 8]};
        every[i] = (uint16_t)i, wide[i] = v.f;
    }
    for (int i = 0; twin_order(i); i++)
        for (int to = PVA_F32; to <= PVA_BF16; to++) {
            check(every, PVA_F16, (enum pva_dtype)to, ALL, 0);
            check(every, PVA_BF16, (enum pva_dtype)to, ALL, 0);
            check(wide, PVA_F32, (enum pva_dtype)to, ALL, 0);
            check(wide, PVA_F32, (enum pva_dtype)to, 1009, 4);
            check(every, PVA_F16, (enum pva_dtype)to, 1, to == PVA_BF16 ? 2 : 4);
            check(every, PVA_BF16, (enum pva_dtype)to, 0, 0);
        }
    CHECK(pva_cuda_convert(every, PVA_I32, wide, PVA_F32, 4, NULL) != 0);
    CHECK(pva_cuda_convert(every, PVA_F32, wide, PVA_F16, 4, NULL) != 0);
    return check_report("twin_convert");
}
