/* One .npz, every array of it read; and the same bytes as a .npy. */
#include "fuzz.h"
#include "pva/npz.h"

static volatile unsigned char read_all; /* every byte of an array can be read */

static void read_arrays(struct pva_npz *npz) {
    for (size_t i = 0; i < pva_npz_count(npz); i++) {
        const struct pva_npy *a = pva_npz_at(npz, i);
        struct pva_error err = {0};
        const void *data;
        PVA_ASSERT(a->name && a->n_dims >= 0 && a->n_dims <= PVA_MAX_DIMS && a->bytes == (size_t)a->n_elements * pva_dtype_size(a->dtype));
        PVA_ASSERT(pva_npz_find(npz, a->name) == a);
        int status = pva_npz_data(npz, a, &data, &err);
        fuzz_check_status(status, &err);
        if (status) continue;
        for (size_t j = 0; j < a->bytes; j++) read_all = ((const unsigned char *)data)[j];
        if (a->dtype == PVA_I32 || a->dtype == PVA_I64) continue;
        float *values = malloc((size_t)a->n_elements * sizeof *values + 1);
        PVA_ASSERT(values && !pva_npz_to_f32(npz, a, values, &err));
        free(values);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_file file;
    struct pva_error err = {0};
    struct pva_npz *npz = NULL;
    float *values = NULL;
    int64_t shape[PVA_MAX_DIMS];
    int n_dims;
    if (size > 1 << 16) return 0;
    fuzz_file_open(&file, data, size);
    int status = pva_npz_open(file.path, &npz, &err);
    fuzz_check_status(status, &err);
    PVA_ASSERT((status == PVA_OK) == (npz != NULL));
    if (npz) read_arrays(npz);
    pva_npz_close(&npz);
    err = (struct pva_error){0};
    fuzz_check_status(pva_npy_read(file.path, &values, shape, &n_dims, &err), &err);
    free(values);
    fuzz_file_close(&file);
    return 0;
}
