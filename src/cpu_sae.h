/* cpu_sae.h - the JumpReLU encoder on the CPU: a product with W_enc as it lies in the file, threshold and compaction in one pass.
 *
 * The latents are divided into groups, a thread's unit of work. A group's part of 256 rows of W_enc (a chunk) is copied into the cache, in the order in which
 * the product reads it, and multiplied with all rows of x before the next is read: each byte of W_enc comes from memory once. With few rows of x
 * there is nothing to gain from a copy, and W_enc streams through.
 */
#ifndef CPU_SAE_H
#define CPU_SAE_H

#include "cpu_isa.h"

#include <stdint.h>

enum { CPU_SAE_CHUNK = 256 }; /* rows of W_enc summed before they are added to what was before: part of the result's definition */

struct cpu_sae_args {
    const float *x;  /* [n, d] */
    int64_t n, d;
    const char *w;   /* float32 [d, stride], its columns from the first one asked for; at any address */
    int64_t stride;  /* elements from one row to the next */
    int64_t first, count;
    const float *bias, *threshold; /* [count] */
    int32_t *indices, *tallies;    /* [n, count], [n, 3], backend.h */
    float *values;                 /* [n, count] */
    int n_threads;
    enum cpu_isa isa;
};

int cpu_sae_encode(const struct cpu_sae_args *a, struct pva_error *err);

/* One instruction set's part. */
struct cpu_sae_kernel {
    int width; /* latents one call of multiply computes */
    int rows;  /* rows of x that it takes at once; it is called with any number */

    /* z[i] (+)= x[i] W for the n rows of x, over k <= CPU_SAE_CHUNK rows of W, which are `w_step` floats apart at any address.
     * x: rows ldx apart; z: [n, ldz], `width` columns of it. begin: z is set, else added to. */
    void (*multiply)(const float *x, int64_t n, int64_t ldx, int64_t k, const char *w, int64_t w_step, float *z, int64_t ldz, int begin);

    /* The same for few rows and a multiple of 16 columns, W read where it lies, row after row, so that it goes as fast as memory gives it; the sums
     * pass through the cache instead. z is set, never added to. */
    void (*stream)(const float *x, int64_t n, int64_t ldx, int64_t k, const char *w, int64_t w_step, int64_t columns, float *z, int64_t ldz);

    /* z[0 .. count) of one row + bias: the active ones to indices and values; counts are added to tally[ACTIVE], tally[NEAR]; tally[BAD] is set if it
     * is -1. count need not be a multiple of anything. `first` is the number of z[0]'s latent. */
    void (*threshold)(const float *z, const float *bias, const float *threshold, int64_t first, int64_t count, int32_t *indices, float *values,
                      int32_t *tally);
};
extern const struct cpu_sae_kernel cpu_sae_c, cpu_sae_avx2, cpu_sae_avx512;

#endif
