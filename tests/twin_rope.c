/* Rotation and the store into the paged cache, bit for bit, and rows whose page does not exist. */
#include "twin.h"

struct shape {
    int64_t n;
    int heads, kv_heads, d, page_size, bf16;
    size_t shift;
};

enum { PAGES = 9, SLOTS = 3, PER_SLOT = 3, LAYERS = 2, LAYER = 1 };
static const float theta = 10000.0f;

static void check_shape(const struct shape *s) {
    struct pva_error err = {0};
    const int64_t positions = PER_SLOT * s->page_size, half = s->d / 2;
    const int64_t q_cols = s->heads * s->d, kv_cols = s->kv_heads * s->d, cache = (int64_t)LAYERS * PAGES * s->kv_heads * s->page_size * s->d;
    const enum pva_dtype type = s->bf16 ? PVA_BF16 : PVA_F32;
    const size_t element = pva_dtype_size(type);
    TWIN_ARRAY(float, q, s->n *q_cols);
    TWIN_ARRAY(float, q_got, s->n *q_cols);
    TWIN_ARRAY(float, q_want, s->n *q_cols);
    TWIN_ARRAY(float, k, s->n *kv_cols);
    TWIN_ARRAY(float, v, s->n *kv_cols);
    TWIN_ARRAY(float, got, cache);
    TWIN_ARRAY(float, want, cache);
    TWIN_ARRAY(float, cosines, positions *half);
    TWIN_ARRAY(float, sines, positions *half);
    TWIN_ARRAY(int32_t, slot, s->n);
    TWIN_ARRAY(int32_t, position, s->n);
    int32_t table[(SLOTS + 1) * PER_SLOT], fault[2]; /* beyond the last slot the numbers go on, so that its limit is what stops */
    const int32_t none[2] = {0, 0};
    twin_shift = s->shift;
    twin_fill(q, (size_t)(s->n * q_cols), 1, 2), twin_fill(k, (size_t)(s->n * kv_cols), 2, 1), twin_fill(v, (size_t)(s->n * kv_cols), 3, 1);
    for (int i = 0; i < (SLOTS + 1) * PER_SLOT; i++) table[i] = (i * 4 + 2) % PAGES;
    for (int64_t i = 0; i < s->n; i++) slot[i] = (int32_t)(i % SLOTS), position[i] = (int32_t)((i * 5 + positions - 1) % positions);
    pva_cuda_rope_angles(theta, 0, positions, half, cosines, sines);

    struct twin_buffer dq = twin_new(q, (size_t)(s->n * q_cols) * 4), dk = twin_new(k, (size_t)(s->n * kv_cols) * 4),
                       dv = twin_new(v, (size_t)(s->n * kv_cols) * 4), dslot = twin_new(slot, (size_t)s->n * 4),
                       dposition = twin_new(position, (size_t)s->n * 4), dcos = twin_new(cosines, (size_t)(positions * half) * 4),
                       dsin = twin_new(sines, (size_t)(positions * half) * 4), dtable = twin_new(table, sizeof table),
                       dfault = twin_new(none, sizeof none), kc = twin_new(want, (size_t)cache * element), vc = twin_new(want, (size_t)cache * element);
    const struct pva_cuda_kv kv = {.k = kc.p, .v = vc.p, .type = type, .page_table = (int32_t *)dtable.p, .n_slots = SLOTS, .max_pages = PER_SLOT,
                                   .n_layers = LAYERS, .n_pages = PAGES, .page_size = s->page_size, .n_kv_heads = s->kv_heads, .d_head = s->d};
    CHECK_CUDA(pva_cuda_rope_store((float *)dq.p, (float *)dk.p, (float *)dv.p, (int32_t *)dslot.p, (int32_t *)dposition.p, s->n, s->heads,
                                   (float *)dcos.p, (float *)dsin.p, positions, &kv, LAYER, (int32_t *)dfault.p, NULL));
    twin_read(&dq, q_got), twin_read(&dfault, fault);
    CHECK_INT(fault[0], 0);

    const struct pva_attention_shape shape = {.n_heads = s->heads, .n_kv_heads = s->kv_heads, .d_head = s->d};
    const int64_t rows = (int64_t)LAYERS * PAGES * s->kv_heads * s->page_size;
    struct pva_kv_cache cpu = {.k = twin_cpu(NULL, type, rows, s->d), .v = twin_cpu(NULL, type, rows, s->d), .page_table = twin_cpu(table, PVA_I32, SLOTS, PER_SLOT),
                               .n_layers = LAYERS, .n_pages = PAGES, .page_size = s->page_size, .n_kv_heads = s->kv_heads, .d_head = s->d};
    struct pva_tensor tq = twin_cpu(q, PVA_F32, s->n, q_cols);
    CHECK_OK(pva_backend_cpu.rope_store(twin_backend, tq, twin_cpu(k, PVA_F32, s->n, kv_cols), twin_cpu(v, PVA_F32, s->n, kv_cols),
                                        twin_cpu(slot, PVA_I32, s->n, 1), twin_cpu(position, PVA_I32, s->n, 1), theta, &shape, &cpu, LAYER, &err), err);
    twin_cpu_read(tq, q_want);
    CHECK_INT(twin_differ_bits(q_got, q_want, (size_t)(s->n * q_cols)), 0);
    for (int which = 0; which < 2; which++) {
        twin_read(which ? &vc : &kc, got), twin_cpu_read(which ? cpu.v : cpu.k, want);
        CHECK_INT(s->bf16 ? twin_differ_bits_bf16((uint16_t *)got, (uint16_t *)want, (size_t)cache) : twin_differ_bits(got, want, (size_t)cache), 0);
    }

    /* The last row gets a slot, a position or a page that does not exist: it alone is left out. */
    for (int bad = 0; s->n && bad < 6; bad++) {
        const int64_t last = s->n - 1;
        int32_t slots[2] = {SLOTS, -1}, at[2] = {(int32_t)positions, -1}, pages[2] = {PAGES, -1};
        CHECK_CUDA(cudaMemcpy(dq.p, q, (size_t)(s->n * q_cols) * 4, cudaMemcpyHostToDevice));
        CHECK_CUDA(cudaMemcpy(dfault.p, none, sizeof none, cudaMemcpyHostToDevice));
        CHECK_CUDA(cudaMemcpy(dslot.p + last * 4, bad / 2 == 0 ? slots + bad % 2 : slot + last, 4, cudaMemcpyHostToDevice));
        CHECK_CUDA(cudaMemcpy(dposition.p + last * 4, bad / 2 == 1 ? at + bad % 2 : position + last, 4, cudaMemcpyHostToDevice));
        for (int i = 0; i < SLOTS * PER_SLOT; i++)
            CHECK_CUDA(cudaMemcpy(dtable.p + i * 4, bad / 2 == 2 ? pages + bad % 2 : table + i, 4, cudaMemcpyHostToDevice));
        CHECK_CUDA(pva_cuda_rope_store((float *)dq.p, (float *)dk.p, (float *)dv.p, (int32_t *)dslot.p, (int32_t *)dposition.p, s->n, s->heads,
                                       (float *)dcos.p, (float *)dsin.p, positions, &kv, LAYER, (int32_t *)dfault.p, NULL));
        twin_read(&dq, q_got), twin_read(&dfault, fault), twin_read(&kc, NULL), twin_read(&vc, NULL);
        CHECK_INT(fault[0], PVA_FAULT_PAGE);
        const int64_t done = bad / 2 == 2 ? 0 : last;
        CHECK_INT(twin_differ_bits(q_got, q_want, (size_t)(done * q_cols)), 0);
        CHECK_INT(twin_differ_bits(q_got + done * q_cols, q + done * q_cols, (size_t)((s->n - done) * q_cols)), 0);
    }
    twin_cpu_clear();
    struct twin_buffer *buffers[] = {&dq, &dk, &dv, &dslot, &dposition, &dcos, &dsin, &dtable, &dfault, &kc, &vc};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) twin_free(buffers[i]);
    void *host[] = {q, q_got, q_want, k, v, got, want, cosines, sines, slot, position};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++) free(host[i]);
}

int main(void) {
    static const struct shape shapes[] = {
        {0, 4, 2, 16, 4, 0, 0}, {1, 1, 1, 2, 1, 0, 0},     {3, 4, 2, 16, 4, 0, 4},   {3, 4, 2, 16, 4, 1, 4},
        {4, 3, 3, 34, 5, 0, 0}, {2, 8, 4, 256, 16, 0, 0},  {2, 8, 4, 256, 16, 1, 0}, {1, 16, 8, 128, 16, 1, 0},
    };
    twin_start();
    twin_check_comparators();
    for (int i = 0; twin_order(i); i++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) check_shape(&shapes[s]);
    /* Angles of a later piece of positions are those of the whole. */
    float c[40], s[40], later_c[8], later_s[8];
    pva_cuda_rope_angles(theta, 0, 10, 4, c, s);
    pva_cuda_rope_angles(theta, 8, 2, 4, later_c, later_s);
    CHECK(!memcmp(c + 32, later_c, sizeof later_c) && !memcmp(s + 32, later_s, sizeof later_s));
    return check_report("twin_rope");
}
