/* One safetensors file. Input that starts with '{' is a header, up to its first zero byte, then the data: the length in front is
 * put there, so that the fuzzer need not find it. Anything else is the file as it is. */
#include "fuzz.h"
#include "pva/tensorfile.h"

static volatile unsigned char read_all; /* every byte of a tensor can be read */

static void use(const struct pva_tensorfile *file) {
    size_t total = 0;
    for (size_t i = 0; i < pva_tensorfile_count(file); i++) {
        const struct pva_tensor_view *v = pva_tensorfile_at(file, i), *same;
        struct pva_error err = {0};
        int floating = v->dtype == PVA_F32 || v->dtype == PVA_BF16 || v->dtype == PVA_F16;
        PVA_ASSERT(pva_tensorfile_find(file, v->name) == v);
        PVA_ASSERT(v->bytes == (size_t)v->n_elements * pva_dtype_size(v->dtype));
        for (size_t b = 0; b < v->bytes; b++) read_all ^= ((const unsigned char *)v->data)[b];
        int status = pva_tensorfile_require(file, v->name, v->n_dims, v->shape, &same, &err);
        fuzz_check_status(status, &err);
        PVA_ASSERT(status ? !floating : floating && same == v);
        if (floating || v->dtype == PVA_F64) {
            float some[16];
            int64_t n = v->n_elements < 16 ? v->n_elements : 16;
            pva_tensor_to_f32(v, v->n_elements - n, n, some);
        }
        total += v->bytes;
    }
    PVA_ASSERT(total == pva_tensorfile_bytes(file));
    (void)pva_tensorfile_metadata(file, "format");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct pva_error err = {0};
    struct pva_tensorfile *file;
    struct fuzz_file f;
    if (size && data[0] == '{') {
        const uint8_t *zero = memchr(data, 0, size);
        size_t length = zero ? (size_t)(zero - data) : size, rest = zero ? size - length - 1 : 0;
        uint8_t *whole = malloc(8 + length + rest);
        PVA_ASSERT(whole);
        for (int i = 0; i < 8; i++) whole[i] = (uint8_t)((uint64_t)length >> 8 * i);
        memcpy(whole + 8, data, length);
        if (rest) memcpy(whole + 8 + length, zero + 1, rest);
        fuzz_file_open(&f, whole, 8 + length + rest);
        free(whole);
    } else {
        fuzz_file_open(&f, data, size);
    }
    int status = pva_tensorfile_open(f.path, &file, &err);
    fuzz_check_status(status, &err);
    PVA_ASSERT((status == 0) == (file != NULL));
    if (file) use(file);
    pva_tensorfile_close(&file);
    fuzz_file_close(&f);
    return 0;
}
