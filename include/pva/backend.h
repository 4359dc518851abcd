/* backend.h - one device and the operations of a transformer on it.
 *
 * The forward graph (src/model_forward.c) is written once over this table; src/backend_cpu.c and kernels/backend_cuda.c fill it.
 * Every operation states where it stores, in what it accumulates and where it rounds; both backends keep to it, and a twin
 * test compares them.
 *
 * Numeric policy. The residual stream is float32 always. A matrix product reads its activations in the "operand" type: float32
 * in f32 mode, bfloat16 (rounded to nearest even) in bf16 mode, and gives float32. Norms, rotations, soft-caps, softmax and
 * sums are float32. So bf16 rounds only what a matrix unit reads: norm outputs, attention outputs, GeGLU outputs, K and V.
 *
 * Invariance. Each row of each result depends on that row's inputs alone, bit for bit: not on n_rows, the other rows, the slot,
 * the page, or the number of threads.
 *
 * Errors. Shapes are the graph's responsibility: a mismatch is a bug and aborts. Device failures (memory, launch, lost device) come back
 * as PVA_IO with the stage. Operations may be asynchronous; download and sync wait, and report what went wrong before.
 */
#ifndef PVA_BACKEND_H
#define PVA_BACKEND_H

#include "pva/error.h"
#include "pva/tensorfile.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pva_spd_ops; /* pva/spd_device.h */
struct pva_backend; /* an opened device; owns its threads or streams */
struct pva_buffer;  /* memory on that device; opaque so that a host pointer cannot stand in for it */
struct pva_readback; /* host memory that a tensor is copied to while the device goes on */

/* A shaped window on a buffer: row-major, rows adjacent. Passed by value, owns nothing. */
struct pva_tensor {
    struct pva_buffer *buffer;
    size_t offset; /* bytes into the buffer; a multiple of the element size */
    enum pva_dtype dtype;
    int64_t rows, cols;
};

struct pva_backend_settings {
    int device;          /* GPU index among those that this process sees; ignored on the CPU */
    int n_threads;       /* CPU threads; 0: what OMP_NUM_THREADS or the affinity mask allows */
    size_t memory_limit; /* bytes this process may hold on the device; 0: no limit of ours */
    const char *isa;     /* CPU: force "c", "avx2", "avx512", "avx512bf16" or "amx"; GPU: "portable" for no tensor cores; NULL: the best there is */
};

struct pva_backend_info {
    char device[96];        /* "Intel Xeon ... (avx512, 2 threads)", "NVIDIA H200 (sm_90)" */
    char isa[16];           /* what decides about the last bits: the CPU instruction set in use; on a GPU "sm_90", or "portable" without tensor cores */
    int n_threads;          /* CPU threads in use; 0 on a GPU */
    size_t memory_total;    /* bytes on the device */
    char id[48];            /* tells physical devices apart, whatever their index here (a GPU's UUID); "" on the CPU */
    size_t memory_used;     /* bytes this backend has allocated (bound host memory not counted on the CPU) */
    char versions[64];      /* "CUDA 13.0, driver for 13.0"; "" on the CPU */
};

/* Keys and values of all sequences of a session, in pages of page_size positions. Page tables are per slot: position p of slot s
 * lies in page page_table[s][p / page_size], row p % page_size. Pages are shared by all layers of the cache; a page may stand in
 * the tables of several slots.
 *   k, v: [n_layers, n_pages, n_kv_heads, page_size, d_head], dtype F32 or BF16. */
struct pva_kv_cache {
    struct pva_tensor k, v;
    struct pva_tensor page_table; /* i32 [n_slots, max_pages] */
    int n_layers, n_pages, page_size, n_kv_heads, d_head;
};

struct pva_attention_shape {
    int n_heads, n_kv_heads, d_head; /* query head h reads kv head h / (n_heads / n_kv_heads) */
    float scale;                     /* query_pre_attn_scalar^-1/2 */
    float softcap;                   /* c in c * tanh(s / c), before the mask; 0: none */
    int window;                      /* keys j with i - window < j <= i are seen; 0: all j <= i */
};

/* A JumpReLU encoder and the range of its latents to compute. */
struct pva_jumprelu {
    struct pva_tensor w_enc;     /* F32 [d, n_latents], as it lies in the file: the latents adjacent, at any address */
    struct pva_tensor b_enc;     /* F32 [1, n_latents] */
    struct pva_tensor threshold; /* F32 [1, n_latents], finite, >= 0 */
    int64_t first, count;        /* latents first .. first + count - 1 */
};
enum { PVA_JUMPRELU_ACTIVE, PVA_JUMPRELU_NEAR, PVA_JUMPRELU_BAD, PVA_JUMPRELU_TALLIES };

enum { PVA_MOST_LINEARS = 3 };

/* Sets in the order in which the step-down max-T takes them (pva/firing.h). A group has one K, 0 < K < N, and one level; groups lie side by side, levels rising;
 * each level has one group at least. At most 16,384 items, so that m^2 below is exact. */
struct pva_maxt {
    struct pva_tensor sets;   /* U64 [n_sets, n_words], as in pva/bits.h */
    struct pva_tensor groups; /* I32 [n_groups, PVA_MAXT_GROUP] */
    struct pva_tensor scores; /* F64 [n_levels, 1], rising: what was observed */
    int64_t n_items, n1;      /* N; items of class 1 */
    int studentised;
};
enum { PVA_MAXT_FIRST, PVA_MAXT_SETS, PVA_MAXT_ACTIVE, PVA_MAXT_LEVEL, PVA_MAXT_GROUP }; /* a group's first set, number of sets, K, level */
enum { PVA_MAXT_BLOCK = 128 }; /* permutations side by side */

/* Of a set that has a of its K items in class 1, m = a N - K n1: m^2 / (K (N - K)), a quotient of two exact integers, or |m|. */
static inline double pva_maxt_statistic(int studentised, int64_t m, int64_t active, int64_t n_items) {
    if (!studentised) return (double)(m < 0 ? -m : m);
    int64_t spread = active * (n_items - active);
    return spread > 0 ? (double)(m * m) / (double)spread : 0;
}

struct pva_backend_ops {
    const char *name; /* "cpu", "cuda" */

    int (*open)(const struct pva_backend_settings *settings, struct pva_backend **out, struct pva_error *err);
    void (*close)(struct pva_backend **be);
    void (*describe)(const struct pva_backend *be, struct pva_backend_info *info);

    /* Memory. alloc gives zeroed memory. bind makes read-only host memory (a mapped weight file) usable on the device: the CPU
     * points at it, so it must outlive the buffer; a GPU copies it. */
    int (*alloc)(struct pva_backend *be, size_t bytes, struct pva_buffer **out, struct pva_error *err);
    int (*bind)(struct pva_backend *be, const void *host, size_t bytes, struct pva_buffer **out, struct pva_error *err);
    void (*free)(struct pva_backend *be, struct pva_buffer **buffer);
    int (*upload)(struct pva_backend *be, struct pva_tensor dst, const void *host, struct pva_error *err);
    int (*download)(struct pva_backend *be, struct pva_tensor src, void *host, struct pva_error *err);
    int (*sync)(struct pva_backend *be, struct pva_error *err);

    /* A download that does not wait: begin copies src (at most `bytes`) as it is after the operations so far, beside those that follow, which must not
     * write to src; wait ends the copy and gives the memory, which stays as it is until the next begin. */
    int (*readback_open)(struct pva_backend *be, size_t bytes, struct pva_readback **out, struct pva_error *err);
    int (*readback_begin)(struct pva_backend *be, struct pva_readback *r, struct pva_tensor src, struct pva_error *err);
    int (*readback_wait)(struct pva_backend *be, struct pva_readback *r, const void **host, struct pva_error *err);
    void (*readback_close)(struct pva_backend *be, struct pva_readback **r);

    /* dst = src converted element by element: F32, BF16, F16 -> F32, BF16 (nearest even). For weights, once, at load. */
    int (*convert)(struct pva_backend *be, struct pva_tensor src, struct pva_tensor dst, struct pva_error *err);

    /* y[i] = table[ids[i]] * scale.   ids i32 [n, 1], table [n_vocab, d] F32 or BF16, y F32 [n, d].
     * round_bf16: the product is rounded to bfloat16 (what a bf16 model was trained with). */
    int (*embed)(struct pva_backend *be, struct pva_tensor ids, struct pva_tensor table, float scale, int round_bf16,
                 struct pva_tensor y, struct pva_error *err);

    /* y = x / sqrt(mean(x^2) + eps) * (1 + w).   x F32 [n, d], w F32 [1, d], y F32 or BF16 [n, d]. The mean is summed in a
     * power of two of float32 lanes (lane j of n takes the elements j, j+n, ...) that are then added pairwise: 16 on the CPU, as many as a block
     * has threads on a GPU (kernels.h). */
    int (*rmsnorm)(struct pva_backend *be, struct pva_tensor x, struct pva_tensor w, float eps, struct pva_tensor y,
                   struct pva_error *err);

    /* resid += x / sqrt(mean(x^2) + eps) * (1 + w).   x, resid F32 [n, d]. */
    int (*rmsnorm_add)(struct pva_backend *be, struct pva_tensor x, struct pva_tensor w, float eps, struct pva_tensor resid,
                       struct pva_error *err);

    /* rmsnorm_add, then y = norm(resid) by w_next: the end of a sublayer and the start of the next. The bits of rmsnorm_add followed by rmsnorm.
     * x, resid F32 [n, d], y F32 or BF16 [n, d]. */
    int (*rmsnorm_add_rmsnorm)(struct pva_backend *be, struct pva_tensor x, struct pva_tensor w, struct pva_tensor w_next, float eps,
                               struct pva_tensor resid, struct pva_tensor y, struct pva_error *err);

    /* y = x W^T.   x F32 or BF16 [n, k], w F32 or BF16 [m, k] (the hub's [out, in] layout, never repacked), y F32 [n, m].
     * Sums in float32, one fixed order per instruction set. A BF16 x with an F32 w is not supported (convert the weight). */
    int (*linear)(struct pva_backend *be, struct pva_tensor x, struct pva_tensor w, struct pva_tensor y, struct pva_error *err);

    /* y[i] = x w[i]^T for i < count <= PVA_MOST_LINEARS: products of one x, the bits of `linear` one by one. */
    int (*linears)(struct pva_backend *be, struct pva_tensor x, const struct pva_tensor *w, const struct pva_tensor *y, int count,
                   struct pva_error *err);

    /* Rotates q in place and k on its way into the cache; v is stored as it is.   q F32 [n, n_heads * d_head], k, v F32
     * [n, n_kv_heads * d_head]; slots, positions i32 [n, 1]. Pairs (i, i + d_head/2), angle = position * theta^(-2i/d_head), cos and
     * sin in float32. `layer` selects the cache's layer. */
    int (*rope_store)(struct pva_backend *be, struct pva_tensor q, struct pva_tensor k, struct pva_tensor v, struct pva_tensor slots,
                      struct pva_tensor positions, float theta, const struct pva_attention_shape *shape,
                      const struct pva_kv_cache *kv, int layer, struct pva_error *err);

    /* out[i] = softmax(cap(scale * q[i] K^T)) V over the keys that row i's slot holds up to its own position and that the window
     * shows.   q F32 [n, n_heads * d_head], out F32 or BF16 [n, n_heads * d_head]. Keys are taken in pieces of a fixed size that
     * begin at position 0, so the sum's order depends on the position alone. */
    int (*attention)(struct pva_backend *be, struct pva_tensor q, struct pva_tensor slots, struct pva_tensor positions,
                     const struct pva_attention_shape *shape, const struct pva_kv_cache *kv, int layer, struct pva_tensor out,
                     struct pva_error *err);

    /* y = gelu_tanh(gate) * up.   gate, up F32 [n, d_ff], y F32 or BF16 [n, d_ff]. What gate and up hold afterwards is undefined.
     * gelu_tanh(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). */
    int (*geglu)(struct pva_backend *be, struct pva_tensor gate, struct pva_tensor up, struct pva_tensor y, struct pva_error *err);

    /* dst[i] = src[rows[i]].   src, dst F32, rows i32 [m, 1]. This is capture, and the choice of the rows that need logits. */
    int (*gather_rows)(struct pva_backend *be, struct pva_tensor src, struct pva_tensor rows, struct pva_tensor dst,
                       struct pva_error *err);

    /* x[i] += coefficients[i] * directions[which[i]].   x F32 [n, d], directions F32 [n_directions, d], which i32 [n, 1] (negative: the row
     * is left alone), coefficients F32 [n, 1]. A product, then a sum: coefficient 0 changes no bit (except that -0 becomes 0). */
    int (*add_direction)(struct pva_backend *be, struct pva_tensor x, struct pva_tensor directions, struct pva_tensor which,
                         struct pva_tensor coefficients, struct pva_error *err);

    /* x[i] -= (x[i] . u) u  with u = directions[which[i]], of unit length.   Types as add_direction; the product x . u is summed in
     * lanes as in rmsnorm. */
    int (*ablate_direction)(struct pva_backend *be, struct pva_tensor x, struct pva_tensor directions, struct pva_tensor which,
                            struct pva_error *err);

    /* logits = cap * tanh(logits / cap), in place.   F32 [n, n_vocab]. */
    int (*softcap)(struct pva_backend *be, struct pva_tensor logits, float cap, struct pva_error *err);

    /* One token per row.   logits F32 [n, n_vocab]; temperatures F32 [n, 1]; draws F64 as [n, 1] in [0, 1); tokens i32 [n, 1].
     * Temperature 0: the largest logit, ties to the lowest id. Otherwise the first id whose cumulated exp((l - max) / T), summed in
     * pieces of 1024 ids, exceeds draw * total. A row with a NaN gives -1. */
    int (*sample)(struct pva_backend *be, struct pva_tensor logits, struct pva_tensor temperatures, struct pva_tensor draws,
                  struct pva_tensor tokens, struct pva_error *err);

    /* z = x W_enc + b_enc, and of it the latents with z > threshold (strictly).   x F32 [n, d]; indices I32 [n, count] and values F32 [n, count] have room
     * for all: the active latents of row 0, ascending, then those of row 1 directly after them, and so on; what lies behind the last is undefined.
     * tallies I32 [n, 3]: a row's number of active latents, its number with |z - threshold| < 1e-3 |threshold|, the lowest latent whose z is not finite
     * (-1: none). Float32 throughout. The products are summed by fused multiply-adds over 256 elements of x in their order, these sums are added in
     * their order, then b_enc: the same bits in every instruction set of the CPU. */
    int (*jumprelu_encode)(struct pva_backend *be, struct pva_tensor x, const struct pva_jumprelu *sae, struct pva_tensor indices,
                           struct pva_tensor values, struct pva_tensor tallies, struct pva_error *err);

    /* n_at_least [n_levels] I64: of n permutations, how many have their largest statistic over the sets of a level and of those below it at or above
     * scores[level].   labels U64 [ceil(n / PVA_MAXT_BLOCK) * n_words, PVA_MAXT_BLOCK]: word w of the permuted labels b (bit 1: class 1) of block k is
     * [k * n_words + w][b]; those beyond n are 0. Counts of bits and comparisons of equal quotients: the same numbers on every device. */
    int (*maxt_count)(struct pva_backend *be, const struct pva_maxt *m, struct pva_tensor labels, int64_t n, struct pva_tensor n_at_least,
                      struct pva_error *err);

    /* Devices that this process could open, by index from 0; without opening one. NULL: there is nothing to choose from (the CPU). */
    int (*count)(void);

    /* The operations of a decomposition on this device; NULL on the CPU, where src/spd has its own. */
    const struct pva_spd_ops *spd;
};

/* "cpu", "cuda" or "auto" (CUDA when a device is there, else the CPU). NULL with the reason in err when this build or this machine cannot. */
const struct pva_backend_ops *pva_backend_find(const char *name, struct pva_error *err);

extern const struct pva_backend_ops pva_backend_cpu;

#ifdef __cplusplus
}
#endif
#endif
