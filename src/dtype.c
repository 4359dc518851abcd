#include "dtype.h"

#include <string.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [PVA_F32] = {"F32", 4}, [PVA_BF16] = {"BF16", 2}, [PVA_F16] = {"F16", 2},   [PVA_F64] = {"F64", 8}, [PVA_I8] = {"I8", 1},
    [PVA_U8] = {"U8", 1},   [PVA_I16] = {"I16", 2},   [PVA_U16] = {"U16", 2},   [PVA_I32] = {"I32", 4}, [PVA_U32] = {"U32", 4},
    [PVA_I64] = {"I64", 8}, [PVA_U64] = {"U64", 8},   [PVA_BOOL] = {"BOOL", 1},
};
enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };
_Static_assert(N_DTYPES == PVA_BOOL + 1, "every dtype has a name and a size");

size_t pva_dtype_size(enum pva_dtype dtype) {
    PVA_ASSERT((unsigned)dtype < N_DTYPES);
    return dtypes[dtype].size;
}

const char *pva_dtype_name(enum pva_dtype dtype) {
    PVA_ASSERT((unsigned)dtype < N_DTYPES);
    return dtypes[dtype].name;
}

int dtype_parse(const char *name, enum pva_dtype *out) {
    for (int i = 0; i < N_DTYPES; i++)
        if (!strcmp(name, dtypes[i].name)) return *out = (enum pva_dtype)i, 1;
    return 0;
}

int dtype_extent(enum pva_dtype dtype, int n_dims, const int64_t *shape, int64_t *n_elements, size_t *bytes) {
    int64_t n = 1;
    for (int d = 0; d < n_dims; d++) {
        if (shape[d] < 0) return 0;
        /* A zero makes the product zero whatever follows, but the rest must still be sane: [2^62, 2^62, 0] is not. */
        if (__builtin_mul_overflow(n > 0 ? n : 1, shape[d], &n)) return 0;
    }
    for (int d = 0; d < n_dims; d++)
        if (shape[d] == 0) n = 0;
    size_t total;
    if (__builtin_mul_overflow((size_t)n, pva_dtype_size(dtype), &total) || total > SIZE_MAX / 2) return 0;
    *n_elements = n;
    *bytes = total;
    return 1;
}

float pva_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    union {
        uint32_t u;
        float f;
    } v;
    if (exponent == 31) {
        v.u = sign | 0x7f800000u | fraction << 13;
    } else if (exponent) {
        v.u = sign | (exponent + 112) << 23 | fraction << 13; /* 112 = 127 - 15, the difference of the biases */
    } else {
        v.f = (float)fraction * 0x1p-24f; /* subnormal or zero: exact */
        v.u |= sign;
    }
    return v.f;
}

void pva_tensor_to_f32(const struct pva_tensor_view *t, int64_t first, int64_t n, float *out) {
    PVA_ASSERT(first >= 0 && n >= 0 && first <= t->n_elements && n <= t->n_elements - first);
    const unsigned char *p = (const unsigned char *)t->data + (size_t)first * pva_dtype_size(t->dtype);
    switch (t->dtype) { /* memcpy: a file may place its tensors at odd addresses */
    case PVA_F32:
        if (n) memcpy(out, p, (size_t)n * sizeof *out);
        return;
    case PVA_BF16:
        for (int64_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, p + 2 * i, sizeof h);
            out[i] = pva_bf16_to_f32(h);
        }
        return;
    case PVA_F16:
        for (int64_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, p + 2 * i, sizeof h);
            out[i] = pva_f16_to_f32(h);
        }
        return;
    case PVA_F64:
        for (int64_t i = 0; i < n; i++) {
            double d;
            memcpy(&d, p + 8 * i, sizeof d);
            out[i] = (float)d;
        }
        return;
    default: pva_broken(__FILE__, __LINE__, "only floating-point tensors are converted to float32");
    }
}
