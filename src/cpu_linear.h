/* cpu_linear.h - the matrix product of the CPU backend: y = x W^T, on weights as the hub stores them.
 *
 * Weights stay where they are mapped, row-major [out, in], and are never repacked: a model opens at once, its pages are shared by
 * all processes of a node, and no second copy exists. What is packed is the activations, a few rows at a time, into scratch.
 *
 * Row invariance. y[i] depends on x[i] and w alone, bit for bit: not on n, on i, on the other rows, on n_threads. Every kernel
 * therefore has one order of summation, whatever the shape:
 *
 *   c, avx2, avx512 (float32 and bfloat16 operands; bfloat16 is widened, which is exact). Sixteen float32 lanes start at 0. Lane
 * j takes k = j, j+16, j+32, ... ascending, one fused multiply-add each; the last step is filled up with zeros. Then lanes j and
 *     j+8 are added, of these eight j and j+4, of these four j and j+2, at last the two. The three sets give the same bits (a NaN
 *     is a NaN in all; its payload is not promised).
 *   avx512bf16 (both operands bfloat16). Sixteen lanes; lane j takes the pairs (2j, 2j+1) of each 32 values of k ascending, as
 *     VDPBF16PS does: the odd value is multiplied and added first, then the even one. The lanes are added as above.
 *   amx (both operands bfloat16). One accumulator; for each 32 values of k ascending TDPBF16PS sums the 16 even and the 16 odd
 *     products each ascending from 0, adds the two sums, and adds that to the accumulator.
 *   The hardware of the last two takes denormal inputs as zero and flushes denormal results. With an F32 operand, avx512bf16 and
 *   amx use the avx512 kernel.
 */
#ifndef CPU_LINEAR_H
#define CPU_LINEAR_H

#include "cpu_isa.h"
#include "pva/tensorfile.h"

#include <stddef.h>
#include <stdint.h>

/* Work memory of one caller, kept between calls so that the hot path allocates nothing. Zero-initialise; the product makes it
 * larger when it must, up to a bound that depends on k and the threads but not on n. One call at a time. */
struct cpu_scratch {
    void *data;
    size_t bytes;
};
void cpu_scratch_free(struct cpu_scratch *scratch); /* and leaves it zero-initialised */

struct cpu_linear_args {
    const void *x;                 /* [n, k] */
    const void *w;                 /* [m, k]; neither needs alignment */
    float *y;                      /* [n, m] */
    enum pva_dtype x_type, w_type; /* PVA_F32 or PVA_BF16; a BF16 x with an F32 w is refused */
    int64_t n, m, k;               /* any may be 0; k = 0 gives zeros */
    enum cpu_isa isa;              /* must be available */
    int n_threads;                 /* at least 1 */
    struct cpu_scratch *scratch;
};

/* Shapes and types are the caller's responsibility: a mismatch aborts, and so does the end of memory for the scratch. */
void cpu_linear(const struct cpu_linear_args *a);

/* ------------------------------------------------------------------------------------------------------------------------------
 * Between cpu_linear.c, which cuts the work into blocks and hands them to threads, and cpu_linear_<isa>.c. */

static inline int64_t cpu_linear_size(enum pva_dtype type) { return type == PVA_BF16 ? 2 : 4; } /* bytes of an operand */

enum { CPU_LINEAR_GROUP = 16 }; /* work is cut along m in multiples of this */

/* Rows of x to be packed as one tile of a block. */
struct cpu_linear_rows {
    const void *x; /* [rows, k] */
    enum pva_dtype type, w_type;
    int64_t rows, k;
    int64_t tile_rows;     /* at least rows; what is missing is 0 */
    int64_t tile, n_tiles; /* which of the block */
};

/* Some rows of x against some of w. The rows are packed in tiles, and the tiles of a block together. */
struct cpu_linear_block {
    const void *x;     /* as the kernel's pack left it, 64-byte aligned */
    int64_t tile_rows; /* rows of a tile; the last tile may have fewer */
    int few;           /* n_rows of the whole product is at most the kernel's few */
    const void *w;     /* [m, k] */
    enum pva_dtype w_type;
    float *y; /* [n, m] */
    int64_t n, m, k;
};

struct cpu_linear_kernel {
    int64_t few;                     /* up to so many rows of x go another way, and are one block */
    int64_t (*tile_rows)(int64_t n); /* at most 16 */
    int64_t block_rows;              /* rows of x a thread works on at a time; beyond few a multiple of tile_rows(n) */
    int64_t m_rows; /* rows of w a thread takes at a time when there are plenty; a multiple of CPU_LINEAR_GROUP */
    size_t (*tile_bytes)(int64_t tile_rows, int64_t k);
    void (*pack)(const struct cpu_linear_rows *x, int few, void *block);                      /* one tile */
    size_t thread_bytes;                                                                      /* scratch of a thread */
    void (*product)(const struct cpu_linear_block *b, int64_t m0, int64_t m1, void *scratch); /* y[:, m0 .. m1) */
    void (*enter)(void); /* what each thread does before and after its products; NULL: nothing */
    void (*leave)(void);
};

void cpu_linear_with(const struct cpu_linear_args *a, const struct cpu_linear_kernel *kernel);

/* Sixteen 32-bit lanes make a step: 16 values as float32, or 32 bfloat16 in pairs. Missing values are 0, and the last span is as
 * short as it may be.
 *   across: block[span of `span` steps][tile][step][tile_rows][16 lanes], the lanes in the order of these quarters
 *   along:  block[span of `span` steps][16 lanes][tile][step][tile_rows]
 *   down:   block[span of `span` steps][tile][step][16 lanes][tile_rows] */
void cpu_linear_pack_across(const struct cpu_linear_rows *x, int pairs, int64_t span, const int quarters[4], void *block);
void cpu_linear_pack_along(const struct cpu_linear_rows *x, int pairs, int64_t span, void *block);
void cpu_linear_pack_down(const struct cpu_linear_rows *x, int pairs, int64_t span, void *block);

extern const struct cpu_linear_kernel cpu_linear_c;
#if defined(__x86_64__)
extern const struct cpu_linear_kernel cpu_linear_avx2, cpu_linear_avx512, cpu_linear_avx512bf16, cpu_linear_amx;
#endif

#endif
