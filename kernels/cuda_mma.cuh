/* cuda_mma.cuh - the two things that only a device's own instructions can do: copies that run by themselves from global to shared
 * memory, and the tensor cores' product. Under the SIMT shim both are emulated: a copy arrives when it is waited for and not
 * before, and the product reads its operands from the registers of the lanes that the instruction set manual names. */
#ifndef PVA_CUDA_MMA_CUH
#define PVA_CUDA_MMA_CUH

#include "cuda_check.h"

#include <stdint.h>

#ifdef PVA_SIMT
#include <stdio.h>

/* Copies on their way, oldest first, of each thread. */
struct simt_copy {
    void *to;
    const void *from;
    int bytes, group;
};
struct simt_queue {
    simt_copy copies[128];
    int n, group;
};
inline simt_queue simt_queues[1024];

static inline void copy_async(void *to, const void *from, int bytes) {
    simt_queue &q = simt_queues[threadIdx.x];
    if (((uintptr_t)to | (uintptr_t)from) % 16 || q.n == 128) {
        fprintf(stderr, "runtime error: copy_async at an address not aligned to 16 bytes, or more than 128 copies on their way\n");
        abort();
    }
    q.copies[q.n++] = {to, from, bytes, q.group};
}
static inline void copy_commit() { simt_queues[threadIdx.x].group++; }
template <int PENDING> static inline void copy_wait() {
    simt_queue &q = simt_queues[threadIdx.x];
    int done = 0;
    for (; done < q.n && q.copies[done].group < q.group - PENDING; done++) {
        const simt_copy &c = q.copies[done];
        memset(c.to, 0, 16);
        memcpy(c.to, c.from, (size_t)c.bytes);
    }
    q.n -= done;
    memmove(q.copies, q.copies + done, (size_t)q.n * sizeof *q.copies);
}

/* What the lanes of a warp show each other. */
inline uint32_t simt_operands[32][32][6];

static inline float simt_bf16(uint32_t pair, int odd) { return __uint_as_float(odd ? pair & 0xffff0000u : pair << 16); }

static inline void mma_bf16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    const unsigned lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4;
    uint32_t(*all)[6] = simt_operands[threadIdx.x / 32];
    const uint32_t mine[6] = {a0, a1, a2, a3, b0, b1};
    memcpy(all[lane], mine, sizeof mine);
    __syncwarp();
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = group + (i >= 2 ? 8 : 0), col = 2 * quad + i % 2;
        for (unsigned k = 0; k < 16; k++) {
            const uint32_t a = all[row % 8 * 4 + k % 8 / 2][row / 8 + (k >= 8 ? 2 : 0)], b = all[col * 4 + k % 8 / 2][4 + (k >= 8)];
            d[i] = fmaf(simt_bf16(a, k % 2), simt_bf16(b, k % 2), d[i]);
        }
    }
    __syncwarp();
}

#else

/* 16 bytes to shared memory, both addresses aligned to them; only the first `bytes` are read, the others arrive as zero. */
static __device__ __forceinline__ void copy_async(void *to, const void *from, int bytes) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "r"(bytes)
                 : "memory");
#else
    *static_cast<uint4 *>(to) = make_uint4(0, 0, 0, 0);
    for (int i = 0; i < bytes; i++) static_cast<unsigned char *>(to)[i] = static_cast<const unsigned char *>(from)[i];
#endif
}
/* What was started since the last commit is a group; wait until at most the last PENDING groups are on their way. */
static __device__ __forceinline__ void copy_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int PENDING> static __device__ __forceinline__ void copy_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

/* d [16, 8] += a [16, 16] b [16, 8], operands bfloat16 in pairs, sums float32; group = lane / 4, quad = lane % 4:
 *   d: (group, 2 quad), (group, 2 quad + 1), (group + 8, 2 quad), (group + 8, 2 quad + 1)
 *   a: row group, group + 8, group, group + 8; columns 2 quad, 2 quad + 1 in a0 and a1, 8 further in a2 and a3
 *   b: column group; rows 2 quad, 2 quad + 1 in b0, 8 further in b1
 * Only where the launcher found compute capability 8.0 or later. */
static __device__ __forceinline__ void mma_bf16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
    __trap();
#endif
}
#endif

#endif
