/* kernels.h - what kernels/cuda_*.cu gives to backend_cuda.c: one launcher per operation, plain C.
 *
 * All pointers are device memory, row-major, rows adjacent, aligned to their element (a launcher looks for itself whether it may use
 * wider accesses). A launcher checks nothing the graph has checked, starts its kernels on `stream` and returns at once with
 * cudaGetLastError() as an int, 0 when they started. An empty shape starts nothing and is 0. The numeric contract of each operation
 * stands in pva/backend.h; "the CPU's bits" below means that the same input gives the same bits as src/cpu_rows*.
 *
 * The kernels are compiled without contraction (--fmad=false): a product and a sum fuse only where the source says fmaf.
 *
 * fault: int32 [2] in device memory or NULL, zero at first. A kernel that meets an id, a row or a page outside of its table writes
 * {what, value} there once and goes on without touching memory outside; the backend reads it when it synchronises. */
#ifndef PVA_KERNELS_H
#define PVA_KERNELS_H

#include "pva/backend.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st; /* cudaStream_t is a pointer to it, in the toolkit's headers too */

enum pva_cuda_fault { PVA_FAULT_NONE, PVA_FAULT_TOKEN, PVA_FAULT_ROW, PVA_FAULT_DIRECTION, PVA_FAULT_PAGE };

/* ---- cuda_embed.cu ---- */

/* y [n, d] = table[ids] * scale. The CPU's bits. A token outside the table gives a row of NaN and a fault. */
int pva_cuda_embed(const int32_t *ids, int64_t n, const void *table, enum pva_dtype table_type, int64_t n_vocab, int64_t d, float scale,
                   int round_bf16, float *y, int32_t *fault, struct CUstream_st *stream);

/* dst[i] = src[rows[i]]: src [n_src, d], dst [m, d]. A row outside src gives NaN and a fault. */
int pva_cuda_gather_rows(const float *src, int64_t n_src, int64_t d, const int32_t *rows, int64_t m, float *dst, int32_t *fault,
                         struct CUstream_st *stream);

/* ---- cuda_norm.cu ---- */

/* The mean is summed in T = 128 or 512 lanes (by d alone; lane j takes the fours j, j + T, ... of neighbours), then pairwise: shorter sums than
 * the CPU's 16 lanes, so the results differ in the last bits. */
int pva_cuda_rmsnorm(const float *x, const float *w, float eps, int64_t n, int64_t d, void *y, enum pva_dtype y_type,
                     struct CUstream_st *stream);
int pva_cuda_rmsnorm_add(const float *x, const float *w, float eps, int64_t n, int64_t d, float *resid, struct CUstream_st *stream);

/* resid += norm(x, w); y = norm(resid, w_next): the end of a sublayer and the start of the next in one pass, the same bits as
 * rmsnorm_add followed by rmsnorm. */
int pva_cuda_rmsnorm_add_rmsnorm(const float *x, const float *w, const float *w_next, float eps, int64_t n, int64_t d, float *resid,
                                 void *y, enum pva_dtype y_type, struct CUstream_st *stream);

/* ---- cuda_rope.cu ---- */

/* struct pva_kv_cache with device pointers. */
struct pva_cuda_kv {
    void *k, *v;               /* [n_layers, n_pages, n_kv_heads, page_size, d_head], F32 or BF16 */
    enum pva_dtype type;
    const int32_t *page_table; /* [n_slots, max_pages] */
    int n_slots, max_pages, n_layers, n_pages, page_size, n_kv_heads, d_head;
};

/* q is rotated in place; k is rotated on its way into the cache and itself left alone. The CPU's bits. cosines, sines [n_positions, d_head / 2]: what
 * pva_cuda_rope_angles writes, uploaded. A slot, position or page outside its table: the row is left alone, and a fault. */
int pva_cuda_rope_store(float *q, const float *k, const float *v, const int32_t *slots, const int32_t *positions, int64_t n, int n_heads,
                        const float *cosines, const float *sines, int64_t n_positions, const struct pva_cuda_kv *kv, int layer,
                        int32_t *fault, struct CUstream_st *stream);
/* On the host: cosines and sines [n, half] of positions first, first + 1, ..., as the CPU backend computes them. */
void pva_cuda_rope_angles(float theta, int64_t first, int64_t n, int64_t half, float *cosines, float *sines);

/* ---- cuda_geglu.cu ---- */

/* The CPU's bits. */
int pva_cuda_geglu(const float *gate, const float *up, int64_t n_elements, void *y, enum pva_dtype y_type, struct CUstream_st *stream);

/* ---- cuda_direction.cu ---- */

/* The CPU's bits. which < 0: the row is left alone; which >= n_directions: left alone, and a fault. */
int pva_cuda_add_direction(float *x, int64_t n, int64_t d, const float *directions, int64_t n_directions, const int32_t *which,
                           const float *coefficients, int32_t *fault, struct CUstream_st *stream);
/* The product x . u is summed in as many lanes as a mean in cuda_norm.cu. */
int pva_cuda_ablate_direction(float *x, int64_t n, int64_t d, const float *directions, int64_t n_directions, const int32_t *which,
                              int32_t *fault, struct CUstream_st *stream);

/* ---- cuda_sample.cu ---- */

/* The CPU's bits. */
int pva_cuda_softcap(float *logits, int64_t n_elements, float cap, struct CUstream_st *stream);

/* The CPU's token for the same logits. work: pva_cuda_sample_bytes(n, n_vocab) bytes, aligned to 8. */
int pva_cuda_sample(const float *logits, int64_t n, int64_t n_vocab, const float *temperatures, const double *draws, int32_t *tokens,
                    void *work, struct CUstream_st *stream);
size_t pva_cuda_sample_bytes(int64_t n, int64_t n_vocab);

/* ---- cuda_convert.cu ---- */

/* F32, BF16, F16 -> F32, BF16. The CPU's bits (a NaN stays a NaN, its payload may change). */
int pva_cuda_convert(const void *src, enum pva_dtype src_type, void *dst, enum pva_dtype dst_type, int64_t n_elements,
                     struct CUstream_st *stream);

/* ---- cuda_linear.cu ---- */

/* y_i [n, m_i] = x [n, k] W_i^T for `count` products, at most PVA_MOST_LINEARS, in one launch; W_i [m_i, k] as the hub stores it; x F32 or BF16, W F32
 * or BF16, not BF16 with F32.
 *
 * One order of summation for every n, m, count and device, so that a row's bits depend on that row alone and not on which tile size runs: k is cut into
 * ceil(k / 1024) pieces of equal length, rounded up to a multiple of 32; each piece's accumulator starts at 0 and takes 32 values of k at a
 * time, ascending; the pieces are added ascending.
 *   PVA_TENSOR_CORES (both BF16, compute capability 8.0 or later): a step of 32 values is two mma.m16n8k16 with W as their first
 *     operand: the k with k mod 8 < 4, then those with k mod 8 >= 4. The order inside an mma is the device's, the same for each
 *     row and column of the tile; float32 accumulators.
 *   PVA_PORTABLE (any types, any device): one fused multiply-add per k, ascending.
 * work: pva_cuda_linear_bytes, aligned to 256; its first PVA_CUDA_COUNTERS bytes zero before the first call, and zero again after each. Calls on
 * one stream may share it. */
enum pva_cuda_path { PVA_PORTABLE, PVA_TENSOR_CORES };
enum { PVA_CUDA_COUNTERS = 4096 };
struct pva_cuda_product {
    const void *w;
    float *y;
    int64_t m;
};
/* What becomes of the sums, in the arithmetic of pva_cuda_softcap and pva_cuda_geglu and so with their bits.
 *   PVA_END_PLAIN: they are y.
 *   PVA_END_SOFTCAP, of one product: y = cap * tanh(sum / cap).
 *   PVA_END_GEGLU, of two with one m, gate and up: y of the end, F32 or BF16 [n, m], = gelu_tanh(gate's sum) * up's. The products' own y are left alone. */
enum pva_cuda_ending { PVA_END_PLAIN, PVA_END_SOFTCAP, PVA_END_GEGLU };
struct pva_cuda_end {
    enum pva_cuda_ending how;
    float cap;
    void *y;
    enum pva_dtype y_type;
};
int pva_cuda_linear(const void *x, enum pva_dtype x_type, const struct pva_cuda_product *products, int count, enum pva_dtype w_type, int64_t n, int64_t k,
                    const struct pva_cuda_end *end, enum pva_cuda_path path, void *work, struct CUstream_st *stream);
/* For every end. */
size_t pva_cuda_linear_bytes(int64_t n, const struct pva_cuda_product *products, int count, int64_t k);

/* The same with a tile of bm rows of W and bn rows of x, its pieces in different blocks or not: for tests, which show that it changes no bit,
 * and for tuning. Tensor cores: 16x8, 32x8, 64x8, 64x16, 64x32, 64x64, 128x128; portable: 16x8, 32x8, 64x8, 64x16, 64x64. Others are
 * cudaErrorInvalidValue. work: with split, 4 n ceil(k / 1024) bytes per row of all W more than PVA_CUDA_COUNTERS (GeGLU: of each W's rows, rounded up to a
 * multiple of 8); at most 1024 tiles then. */
struct pva_cuda_tile {
    int bm, bn, split;
};
int pva_cuda_linear_with(const struct pva_cuda_tile *tile, const void *x, enum pva_dtype x_type, const struct pva_cuda_product *products, int count,
                         enum pva_dtype w_type, int64_t n, int64_t k, const struct pva_cuda_end *end, enum pva_cuda_path path, void *work,
                         struct CUstream_st *stream);

/* ---- cuda_attention.cu ---- */

/* Queries, scores, weights and sums are float32, as on the CPU. The order of sums: a score is one chain of fused multiply-adds over d_head;
 * positions are taken in parts of 64 that begin at position 0; in a part the weights exp(score - the part's maximum) are summed in 32 lanes
 * (lane j takes the positions j, j + 32, ...), then pairwise, and the values by one chain of fused multiply-adds over the positions; parts are
 * joined ascending, each rescaled to the larger maximum. It depends on the row's position and window alone, and is the same on every
 * device. d_head even, at most 256; at most 16 query heads to a key/value head. work as for pva_cuda_linear. A slot, position or page outside
 * of its table is a fault, and reads as zeros. */
int pva_cuda_attention(const float *q, const int32_t *slots, const int32_t *positions, int64_t n, const struct pva_attention_shape *shape,
                       const struct pva_cuda_kv *kv, int layer, void *out, enum pva_dtype out_type, void *work, int32_t *fault,
                       struct CUstream_st *stream);
size_t pva_cuda_attention_bytes(int64_t n, int n_heads, const struct pva_cuda_kv *kv, int window);

/* ---- cuda_sae.cu ---- */

/* The latents first .. first + count - 1 of n rows, as jumprelu_encode in backend.h. The CPU's bits. work: pva_cuda_jumprelu_bytes bytes. */
int pva_cuda_jumprelu(const float *x, int64_t n, int64_t d, const float *w_enc, const float *b_enc, const float *threshold, int64_t n_latents,
                      int64_t first, int64_t count, int32_t *indices, float *values, int32_t *tallies, void *work, struct CUstream_st *stream);
size_t pva_cuda_jumprelu_bytes(int64_t n, int64_t count);

/* ---- cuda_maxt.cu ---- */

/* struct pva_maxt with device pointers. */
struct pva_cuda_maxt {
    const uint64_t *sets;
    const int32_t *groups;
    const double *scores;
    int64_t n_sets, n_words, n_groups, n_levels, n_items, n1;
    int studentised;
};

/* maxt_count of backend.h: the CPU's numbers. work: work_bytes, aligned to 4, 1 KiB n_groups at least; what is in it at a time is a whole number of those.
 * pva_cuda_maxt_bytes: for all at once, but not more than 256 MiB when less will do. */
int pva_cuda_maxt_count(const struct pva_cuda_maxt *m, const uint64_t *labels, int64_t n, int64_t *n_at_least, void *work, size_t work_bytes,
                        struct CUstream_st *stream);
size_t pva_cuda_maxt_bytes(int64_t n_groups, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
