/* simt.h - CUDA's programming model on one CPU thread, so that the sources in kernels/ also compile as C++ and run under
 * AddressSanitizer where there is no GPU.
 *
 * Blocks run one after another, the threads of a block as fibres that change places at barriers and warp operations. What was put on a stream (not on
 * the default one) runs as late as CUDA allows: when the stream, an event behind it, or the device is waited for. What it finds:
 *   a barrier or warp operation that not all its threads reach         the launch fails, cudaGetLastError says so, simt_message() where
 *   threads that wait at different barriers                            the same
 *   a grid, block or shared memory that a device would refuse          the same
 *   reads and writes outside of device or shared memory                AddressSanitizer, to the byte (static shared memory: gcc only)
 *   misaligned vector accesses                                         UndefinedBehaviorSanitizer
 *   shared or device memory read before it was written                 both start as NaN in every block and allocation
 *   results that depend on which thread comes first (races)            simt_set_order(): run twice, compare
 *   memory read or changed by the host before its copy was waited for  a wrong result
 *   what a stream that is being captured forbids                       the errors that CUDA gives
 * What it cannot: races between blocks, memory order, blocks that wait for each other (they would wait for ever), time.
 *
 * cuda_runtime.h and cuda_bf16.h in this folder include this file in place of the toolkit's.
 */
#ifndef SIMT_H
#define SIMT_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif

#define CUDART_VERSION 0
#define PVA_SIMT 1 /* for the few places where a kernel has a path that only a device can run */

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the part of the runtime library that launchers, twins and the backend use ---- */

typedef enum {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoDevice = 100,
    cudaErrorInsufficientDriver = 35,
    cudaErrorLaunchOutOfResources = 701,
    cudaErrorLaunchFailure = 719,
    cudaErrorNotReady = 600,
    cudaErrorIllegalState = 401,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorStreamCaptureImplicit = 906
} cudaError_t;

typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;
typedef struct CUgraph_st *cudaGraph_t;
typedef struct CUgraphExec_st *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed };
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8, cudaFuncAttributePreferredSharedMemoryCarveout = 9 };
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum { cudaStreamNonBlocking = 1, cudaEventDefault = 0, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0 };
struct cudaDeviceProp {
    char name[256];
    struct {
        char bytes[16];
    } uuid;
    int major, minor, multiProcessorCount;
    size_t totalGlobalMem, sharedMemPerBlockOptin;
};

cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device);
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaMemGetInfo(size_t *left, size_t *total);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **p, size_t bytes);
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemset(void *p, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreate(cudaStream_t *stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);
const char *cudaGetErrorName(cudaError_t status);
const char *cudaGetErrorString(cudaError_t status);
cudaError_t simt_func_set_attribute(const void *kernel, enum cudaFuncAttribute attr, int value);

/* ---- the test's side ---- */

/* Each warp runs until all its threads wait at a barrier or have left, then the next. In which order: 0 ascending, 1 descending, else
 * warps and lanes shuffled by this seed. Streams: 0 as late as possible, odd the older of two first, even the newer. */
void simt_set_order(unsigned seed);
const char *simt_message(void);     /* why the last failed launch failed; "" */
uint64_t simt_launches(void);       /* kernels that ran so far */
uint64_t simt_copies(void);         /* between host and device, that a stream was given so far */
uint64_t simt_submissions(void);    /* times that the host started a kernel or a graph so far */
size_t simt_device_bytes(void);     /* allocated by cudaMalloc and not freed */

#ifdef __cplusplus
} /* extern "C" */

#include <functional>
#include <tuple>
#include <type_traits>

static inline cudaError_t cudaMalloc(float **p, size_t bytes) { return cudaMalloc((void **)p, bytes); }
template <typename F> static inline cudaError_t cudaFuncSetAttribute(F *kernel, cudaFuncAttribute attr, int value) {
    return simt_func_set_attribute((const void *)kernel, attr, value);
}

/* ---- the language ---- */

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
/* One block runs at a time, so its shared memory can be static. The section makes it known to the launcher, which fills it with
 * NaN before each block; -fsanitize-sections keeps it fenced there. */
#define __shared__ static __attribute__((section("simt_shared")))
/* Dynamic shared memory, by the name that both compilers understand (see kernels/cuda_check.h). */
#define PVA_DYNAMIC_SHARED(type, name) type *name = (type *)simt_dynamic_shared()
#define PVA_LAUNCH(kernel, grid, block, shared, stream, ...) \
    simt_launch(#kernel, (const void *)(kernel), dim3(grid), dim3(block), (shared), (stream), simt_bind((kernel), __VA_ARGS__))
/* From the linker: all static shared memory of this program or shared library. */
extern "C" char __start_simt_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_simt_shared[] __attribute__((weak, visibility("hidden")));

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

#define SIMT_VECTOR(T, name) \
    struct __align__(2 * sizeof(T)) name##2 { T x, y; }; \
    struct name##3 { T x, y, z; }; \
    struct __align__(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 { T x, y, z, w; }; \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SIMT_VECTOR(float, float)
SIMT_VECTOR(double, double)
SIMT_VECTOR(int, int)
SIMT_VECTOR(short, short)
SIMT_VECTOR(unsigned short, ushort)
SIMT_VECTOR(signed char, char)
SIMT_VECTOR(unsigned char, uchar)
struct __align__(8) uint2 { unsigned x, y; };
struct __align__(16) uint4 { unsigned x, y, z, w; };
struct __align__(16) longlong2 { long long x, y; };
struct __align__(16) ulonglong2 { unsigned long long x, y; };
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

/* ---- running ---- */

struct simt_kernel {
    const char *name;
    const void *address;
    char *shared_begin, *shared_end; /* static shared memory */
    void (*thread)(const void *closure);
    const void *closure;
};
void simt_run(const simt_kernel &kernel, dim3 grid, dim3 block, size_t shared);
/* Whether a device would take such a launch; then puts `run` on the stream. */
void simt_submit(const simt_kernel &kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream, std::function<void()> run);
void *simt_dynamic_shared(void);
int simt_syncthreads(int op, int predicate, const char *file, int line);

/* A kernel with its arguments as they are now: a stream may run it when what they were taken from is gone. */
template <typename... P, typename... A> static auto simt_bind(void (*kernel)(P...), A &&...arguments) {
    return [kernel, all = std::tuple<std::decay_t<P>...>(std::forward<A>(arguments)...)] { std::apply(kernel, all); };
}

template <typename F>
static void simt_launch(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream, const F &thread) {
    const simt_kernel k = {name, kernel, __start_simt_shared, __stop_simt_shared, [](const void *f) { (*(const F *)f)(); }, nullptr};
    simt_submit(k, grid, block, shared, stream, [=] {
        simt_kernel with = k;
        with.closure = &thread; /* this function's copy of the arguments */
        simt_run(with, grid, block, shared);
    });
}

enum { SIMT_SYNC, SIMT_COUNT, SIMT_AND, SIMT_OR };
#define __syncthreads() ((void)simt_syncthreads(SIMT_SYNC, 0, __FILE__, __LINE__))
#define __syncthreads_count(p) simt_syncthreads(SIMT_COUNT, (p), __FILE__, __LINE__)
#define __syncthreads_and(p) simt_syncthreads(SIMT_AND, (p), __FILE__, __LINE__)
#define __syncthreads_or(p) simt_syncthreads(SIMT_OR, (p), __FILE__, __LINE__)

/* ---- warps: all lanes of the mask must come to the same operation ---- */

enum simt_warp_op {
    SIMT_WARP_SYNC, SIMT_SHFL, SIMT_SHFL_UP, SIMT_SHFL_DOWN, SIMT_SHFL_XOR, SIMT_BALLOT, SIMT_ANY, SIMT_ALL, SIMT_MATCH,
    SIMT_ADD_U, SIMT_MIN_U, SIMT_MAX_U, SIMT_MIN_I, SIMT_MAX_I, SIMT_BIT_AND, SIMT_BIT_OR, SIMT_BIT_XOR
};
uint64_t simt_warp(enum simt_warp_op op, unsigned mask, uint64_t value, int argument, int width);

template <typename T> static inline T simt_shuffle(enum simt_warp_op op, unsigned mask, T value, int argument, int width) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "shuffles move up to 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = simt_warp(op, mask, bits, argument, width);
    memcpy(&value, &bits, sizeof value);
    return value;
}
template <typename T> static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32) { return simt_shuffle(SIMT_SHFL, mask, v, lane, width); }
template <typename T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
    return simt_shuffle(SIMT_SHFL_UP, mask, v, (int)by, width);
}
template <typename T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
    return simt_shuffle(SIMT_SHFL_DOWN, mask, v, (int)by, width);
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32) {
    return simt_shuffle(SIMT_SHFL_XOR, mask, v, with, width);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu) { simt_warp(SIMT_WARP_SYNC, mask, 0, 0, 32); }
static inline unsigned __ballot_sync(unsigned mask, int p) { return (unsigned)simt_warp(SIMT_BALLOT, mask, p != 0, 0, 32); }
static inline int __any_sync(unsigned mask, int p) { return (int)simt_warp(SIMT_ANY, mask, p != 0, 0, 32); }
static inline int __all_sync(unsigned mask, int p) { return (int)simt_warp(SIMT_ALL, mask, p != 0, 0, 32); }
template <typename T> static inline unsigned __match_any_sync(unsigned mask, T v) {
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    return (unsigned)simt_warp(SIMT_MATCH, mask, bits, 0, 32);
}
static inline unsigned __reduce_add_sync(unsigned mask, unsigned v) { return (unsigned)simt_warp(SIMT_ADD_U, mask, v, 0, 32); }
static inline unsigned __reduce_min_sync(unsigned mask, unsigned v) { return (unsigned)simt_warp(SIMT_MIN_U, mask, v, 0, 32); }
static inline unsigned __reduce_max_sync(unsigned mask, unsigned v) { return (unsigned)simt_warp(SIMT_MAX_U, mask, v, 0, 32); }
static inline int __reduce_add_sync(unsigned mask, int v) { return (int)simt_warp(SIMT_ADD_U, mask, (uint32_t)v, 0, 32); }
static inline int __reduce_min_sync(unsigned mask, int v) { return (int)simt_warp(SIMT_MIN_I, mask, (uint32_t)v, 0, 32); }
static inline int __reduce_max_sync(unsigned mask, int v) { return (int)simt_warp(SIMT_MAX_I, mask, (uint32_t)v, 0, 32); }
static inline unsigned __reduce_and_sync(unsigned mask, unsigned v) { return (unsigned)simt_warp(SIMT_BIT_AND, mask, v, 0, 32); }
static inline unsigned __reduce_or_sync(unsigned mask, unsigned v) { return (unsigned)simt_warp(SIMT_BIT_OR, mask, v, 0, 32); }
static inline unsigned __activemask(void) { return 0xffffffffu; }

/* ---- atomics: between fibres nothing interrupts a statement ---- */

template <typename T> struct simt_same { typedef T type; };
template <typename T> using simt_t = typename simt_same<T>::type;
template <typename T, typename F> static inline T simt_swap(T *at, F f) {
    T old = *at;
    *at = f(old);
    return old;
}
template <typename T> static inline T atomicAdd(T *at, simt_t<T> v) { return simt_swap(at, [v](T o) { return (T)(o + v); }); }
template <typename T> static inline T atomicSub(T *at, simt_t<T> v) { return simt_swap(at, [v](T o) { return (T)(o - v); }); }
template <typename T> static inline T atomicMax(T *at, simt_t<T> v) { return simt_swap(at, [v](T o) { return o < v ? v : o; }); }
template <typename T> static inline T atomicMin(T *at, simt_t<T> v) { return simt_swap(at, [v](T o) { return v < o ? v : o; }); }
template <typename T> static inline T atomicExch(T *at, simt_t<T> v) { return simt_swap(at, [v](T) { return v; }); }
template <typename T> static inline T atomicAnd(T *at, simt_t<T> v) { return simt_swap(at, [v](T o) { return (T)(o & v); }); }
template <typename T> static inline T atomicOr(T *at, simt_t<T> v) { return simt_swap(at, [v](T o) { return (T)(o | v); }); }
template <typename T> static inline T atomicXor(T *at, simt_t<T> v) { return simt_swap(at, [v](T o) { return (T)(o ^ v); }); }
template <typename T> static inline T atomicCAS(T *at, simt_t<T> expected, simt_t<T> v) {
    return simt_swap(at, [=](T o) { return o == expected ? v : o; });
}
static inline unsigned atomicInc(unsigned *at, unsigned limit) {
    return simt_swap(at, [limit](unsigned o) { return o >= limit ? 0 : o + 1; });
}
static inline void __threadfence(void) {}
static inline void __threadfence_block(void) {}
static inline void __threadfence_system(void) {}
static inline void __nanosleep(unsigned) {}

/* ---- arithmetic: the IEEE operations by their device names ---- */

static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline float rsqrtf(float a) { return 1.0f / sqrtf(a); } /* a device differs in the last two bits */
template <typename To, typename From> static inline To simt_bits(From v) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    memcpy(&to, &v, sizeof to);
    return to;
}
static inline int __float_as_int(float v) { return simt_bits<int>(v); }
static inline unsigned __float_as_uint(float v) { return simt_bits<unsigned>(v); }
static inline float __int_as_float(int v) { return simt_bits<float>(v); }
static inline float __uint_as_float(unsigned v) { return simt_bits<float>(v); }
static inline long long __double_as_longlong(double v) { return simt_bits<long long>(v); }
static inline double __longlong_as_double(long long v) { return simt_bits<double>(v); }
static inline int __float2int_rn(float v) { return (int)rintf(v); }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
template <typename T> static inline T __ldg(const T *p) { return *p; }
template <typename T> static inline T __ldcs(const T *p) { return *p; }
template <typename T> static inline T __ldcg(const T *p) { return *p; }
template <typename T> static inline void __stcs(T *p, simt_t<T> v) { *p = v; }
template <typename T> static inline void __stcg(T *p, simt_t<T> v) { *p = v; }
template <typename A, typename B> static inline auto min(A a, B b) -> typename std::common_type<A, B>::type {
    typedef typename std::common_type<A, B>::type T;
    return (T)b < (T)a ? (T)b : (T)a;
}
template <typename A, typename B> static inline auto max(A a, B b) -> typename std::common_type<A, B>::type {
    typedef typename std::common_type<A, B>::type T;
    return (T)a < (T)b ? (T)b : (T)a;
}
#endif /* __cplusplus */
#endif
