/* Rows of a table: the embedding and gather_rows, bit for bit, and what is outside of the table. */
#include "twin.h"

static void check_embed(int64_t n, int64_t n_vocab, int64_t d, enum pva_dtype type, int round_bf16, size_t shift) {
    struct pva_error err = {0};
    const float scale = sqrtf((float)d) * 1.01f;
    size_t element = pva_dtype_size(type), all = (size_t)(n * d);
    TWIN_ARRAY(float, table, n_vocab *d);
    TWIN_ARRAY(uint16_t, table16, n_vocab *d);
    TWIN_ARRAY(float, want, n *d);
    TWIN_ARRAY(float, got, n *d);
    TWIN_ARRAY(int32_t, ids, n);
    twin_shift = shift;
    twin_fill(table, (size_t)(n_vocab * d), 1, 0.3);
    for (int64_t i = 0; i < n_vocab * d; i++) table16[i] = pva_f32_to_bf16(table[i]);
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)((i * 7 + n_vocab - 1) % n_vocab); /* the last row first */
    const void *bytes = type == PVA_BF16 ? (const void *)table16 : table;

    struct twin_buffer did = twin_new(ids, (size_t)n * 4), dtable = twin_new(bytes, (size_t)(n_vocab * d) * element), dy = twin_new(NULL, all * 4);
    const int32_t none[2] = {0, 0};
    int32_t fault[2];
    struct twin_buffer dfault = twin_new(none, sizeof none);
    CHECK_CUDA(pva_cuda_embed((int32_t *)did.p, n, dtable.p, type, n_vocab, d, scale, round_bf16, (float *)dy.p, (int32_t *)dfault.p, NULL));
    twin_read(&dy, got), twin_read(&dtable, NULL), twin_read(&did, NULL), twin_read(&dfault, fault);
    CHECK_INT(fault[0], 0);

    struct pva_tensor y = twin_cpu(NULL, PVA_F32, n, d);
    CHECK_OK(pva_backend_cpu.embed(twin_backend, twin_cpu(ids, PVA_I32, n, 1), twin_cpu(bytes, type, n_vocab, d), scale, round_bf16, y, &err), err);
    twin_cpu_read(y, want);
    CHECK_INT(twin_differ_bits(got, want, all), 0);

    if (type == PVA_F32) {
        CHECK_CUDA(pva_cuda_gather_rows((float *)dtable.p, n_vocab, d, (int32_t *)did.p, n, (float *)dy.p, (int32_t *)dfault.p, NULL));
        twin_read(&dy, got), twin_read(&dfault, fault);
        CHECK_INT(fault[0], 0);
        CHECK_OK(pva_backend_cpu.gather_rows(twin_backend, twin_cpu(bytes, type, n_vocab, d), twin_cpu(ids, PVA_I32, n, 1), y, &err), err);
        twin_cpu_read(y, want);
        CHECK_INT(twin_differ_bits(got, want, all), 0);
    }
    twin_cpu_clear();
    twin_free(&did), twin_free(&dtable), twin_free(&dy), twin_free(&dfault);
    free(table), free(table16), free(want), free(got), free(ids);
}

static void check_outside(void) {
    enum { N = 4, V = 3, D = 6 };
    float table[V * D], got[N * D];
    const int32_t bad[3][N] = {{0, V + 100, 2, -5}, {1, 0, -1, 2}, {0, 1, V, 2}}, none[2] = {0, 0}, wrong[3][2] = {{V + 100, -5}, {-1, -1}, {V, V}};
    twin_shift = 0;
    twin_fill(table, V * D, 5, 1);
    for (int k = 0; k < 6; k++) {
        const int32_t *ids = bad[k / 2];
        int32_t fault[2];
        struct twin_buffer did = twin_new(ids, sizeof bad[0]), dtable = twin_new(table, sizeof table), dy = twin_new(NULL, sizeof got);
        struct twin_buffer dfault = twin_new(none, sizeof none);
        if (k % 2) CHECK_CUDA(pva_cuda_embed((int32_t *)did.p, N, dtable.p, PVA_F32, V, D, 2, 0, (float *)dy.p, (int32_t *)dfault.p, NULL));
        else CHECK_CUDA(pva_cuda_gather_rows((float *)dtable.p, V, D, (int32_t *)did.p, N, (float *)dy.p, (int32_t *)dfault.p, NULL));
        twin_read(&dy, got), twin_read(&dfault, fault);
        CHECK_INT(fault[0], k % 2 ? PVA_FAULT_TOKEN : PVA_FAULT_ROW);
        CHECK(fault[1] == wrong[k / 2][0] || fault[1] == wrong[k / 2][1]);
        for (int i = 0; i < N * D; i++) {
            int32_t id = ids[i / D];
            if (id < 0 || id >= V) CHECK(isnan(got[i]));
            else CHECK(got[i] == table[id * D + i % D] * (k % 2 ? 2 : 1));
        }
        /* Without a place for faults it must not write one. */
        CHECK_CUDA(pva_cuda_gather_rows((float *)dtable.p, V, D, (int32_t *)did.p, N, (float *)dy.p, NULL, NULL));
        twin_read(&dy, got);
        twin_free(&did), twin_free(&dtable), twin_free(&dy), twin_free(&dfault);
    }
}

int main(void) {
    twin_start();
    twin_check_comparators();
    for (int i = 0; twin_order(i); i++) {
        for (int type = PVA_F32; type <= PVA_BF16; type++)
            for (int round = 0; round < 2; round++) {
                check_embed(0, 10, 8, (enum pva_dtype)type, round, 0);
                check_embed(1, 1, 1, (enum pva_dtype)type, round, 0);
                check_embed(7, 5, 13, (enum pva_dtype)type, round, 4);
                check_embed(5, 11, 2304, (enum pva_dtype)type, round, 0);
                check_embed(3, 11, 2304, (enum pva_dtype)type, round, 4);
                check_embed(3, 5, 3584, (enum pva_dtype)type, round, 8);
            }
        check_outside();
    }
    return check_report("twin_embed");
}
