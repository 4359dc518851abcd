/* The shim finds what it says it finds, and runs what is right as a device would. */
#include "check.h"
#include "cuda_check.h"

#include <cuda_bf16.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

/* ---- right kernels ---- */

__global__ void identify(int *out) {
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread]++;
}

__global__ void reverse_block(int *data) {
    __shared__ int tile[256];
    tile[threadIdx.x] = data[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    data[blockIdx.x * blockDim.x + threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

__global__ void warp_operations(unsigned *out) {
    const unsigned lane = threadIdx.x % 32, all = 0xffffffffu;
    unsigned *o = out + threadIdx.x * 16, v = threadIdx.x * 3 + 1;
    o[0] = __shfl_sync(all, v, 5);
    o[1] = __shfl_up_sync(all, v, 3);
    o[2] = __shfl_down_sync(all, v, 3);
    o[3] = __shfl_xor_sync(all, v, 9);
    o[4] = __shfl_down_sync(all, v, 1, 8);
    o[5] = __ballot_sync(all, lane % 3 == 0);
    o[6] = (unsigned)__any_sync(all, lane == 7);
    o[7] = (unsigned)__all_sync(all, lane == 7);
    o[8] = __reduce_add_sync(all, lane);
    o[9] = __reduce_max_sync(all, v);
    o[10] = __match_any_sync(all, lane / 8);
    if (lane < 8) o[11] = __shfl_xor_sync(0xffu, v, 1); /* a part of the warp */
    __syncwarp();
    o[12] = (unsigned)(__shfl_xor_sync(all, (double)v, 1) * 2);
    o[13] = (unsigned)__syncthreads_count(threadIdx.x % 2);
    o[14] = (unsigned)__syncthreads_or(threadIdx.x == 33);
    o[15] = (unsigned)__syncthreads_and(threadIdx.x == 33);
}

__global__ void count_up(int *counter, float *sum, unsigned *largest) {
    atomicAdd(counter, 1);
    atomicAdd(sum, 0.5f);
    atomicMax(largest, threadIdx.x + blockIdx.x);
}

__global__ void dynamic_shared(float *out) {
    PVA_DYNAMIC_SHARED(float, space);
    out[threadIdx.x] = space[threadIdx.x];
}

/* ---- wrong ones ---- */

__global__ void barrier_in_branch(int *out) {
    if (threadIdx.x < 16) __syncthreads();
    out[threadIdx.x] = 1;
}
__global__ void different_barriers(int *out) {
    if (threadIdx.x < 16) __syncthreads();
    else __syncthreads_or(0);
    out[threadIdx.x] = 1;
}
__global__ void uneven_loop(int *out) {
    for (unsigned i = 0; i < threadIdx.x / 32; i++) __syncthreads();
    out[threadIdx.x] = 1;
}
__global__ void shuffle_in_branch(int *out) {
    if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 2);
}
__global__ void shuffle_from_outside(int *out) {
    if (threadIdx.x < 8) out[threadIdx.x] = __shfl_sync(0xffu, 1, 20);
}
__global__ void shuffle_without_itself(int *out) { out[threadIdx.x] = __shfl_sync(0xffu, 1, 2); }
__global__ void shuffle_meets_barrier(int *out) {
    if (threadIdx.x == 3) __syncthreads();
    out[threadIdx.x] = (int)__ballot_sync(0xffffffffu, 1);
}
__global__ void beyond_shared(float *out, int by) {
    __shared__ float before[8], tile[32], after[8];
    before[threadIdx.x % 8] = after[threadIdx.x % 8] = 0;
    tile[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x + by] + before[0] + after[0];
}
__global__ void beyond_dynamic(float *out, int by) {
    PVA_DYNAMIC_SHARED(float, tile);
    tile[threadIdx.x + by] = 1;
    out[threadIdx.x] = 0;
}
__global__ void beyond_device(float *out, int by) { out[threadIdx.x + by] = 1; }
__global__ void misaligned(const float *in, float4 *out) { out[0] = *(const float4 *)(in + 1); }
__global__ void unwritten_shared(float *out) {
    __shared__ float tile[64];
    if (threadIdx.x < 31) tile[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];
}
__global__ void race(int *out) {
    __shared__ int last;
    last = (int)threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = last;
}

void check_failure(const char *part) {
    CHECK_INT(cudaGetLastError(), cudaErrorLaunchFailure);
    CHECK_HAS(simt_message(), part);
    CHECK_INT(cudaGetLastError(), cudaSuccess);
}

/* In a child, as a sanitizer ends the process. */
template <typename F> void check_dies(const char *what, F body) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(0);
        body();
        _exit(0);
    }
    int status = 0;
    CHECK_FATAL(child > 0 && waitpid(child, &status, 0) == child);
    bool died = WIFSIGNALED(status) || WEXITSTATUS(status) != 0;
    if (!died) fprintf(stderr, "not found: %s\n", what);
    CHECK(died);
}

template <typename T> T *device(size_t n) {
    void *p = nullptr;
    CHECK_FATAL(cudaMalloc(&p, n * sizeof(T)) == cudaSuccess);
    return (T *)p;
}

void test_right(unsigned order) {
    simt_set_order(order);
    int *ids = device<int>(2 * 3 * 4 * 2 * 3 * 5);
    cudaMemset(ids, 0, 2 * 3 * 4 * 2 * 3 * 5 * sizeof(int));
    PVA_LAUNCH(identify, dim3(2, 3, 4), dim3(2, 3, 5), 0, nullptr, ids);
    for (int i = 0; i < 2 * 3 * 4 * 2 * 3 * 5; i++) CHECK_INT(ids[i], 1);
    cudaFree(ids);

    int *data = device<int>(512);
    for (int i = 0; i < 512; i++) data[i] = i;
    PVA_LAUNCH(reverse_block, 2, 256, 0, nullptr, data);
    for (int i = 0; i < 512; i++) CHECK_INT(data[i], i < 256 ? 255 - i : 767 - i);
    cudaFree(data);

    unsigned *w = device<unsigned>(64 * 16);
    PVA_LAUNCH(warp_operations, 1, 64, 0, nullptr, w);
    CHECK_INT(cudaGetLastError(), cudaSuccess);
    for (unsigned t = 0; t < 64; t++) {
        const unsigned lane = t % 32, first = t - lane, *o = w + t * 16;
        auto v = [first](unsigned l) { return (first + l) * 3 + 1; };
        CHECK_INT(o[0], v(5));
        CHECK_INT(o[1], v(lane < 3 ? lane : lane - 3));
        CHECK_INT(o[2], v(lane > 28 ? lane : lane + 3));
        CHECK_INT(o[3], v(lane ^ 9));
        CHECK_INT(o[4], v(lane % 8 == 7 ? lane : lane + 1));
        CHECK_INT(o[5], 0x49249249u);
        CHECK_INT(o[6], 1);
        CHECK_INT(o[7], 0);
        CHECK_INT(o[8], 31 * 16);
        CHECK_INT(o[9], v(31));
        CHECK_INT(o[10], 0xffu << lane / 8 * 8);
        if (lane < 8) CHECK_INT(o[11], v(lane ^ 1));
        CHECK_INT(o[12], 2 * v(lane ^ 1));
        CHECK_INT(o[13], 32);
        CHECK_INT(o[14], 1);
        CHECK_INT(o[15], 0);
    }
    cudaFree(w);

    int *counter = device<int>(1);
    float *sum = device<float>(1);
    unsigned *largest = device<unsigned>(1);
    *counter = 0, *sum = 0, *largest = 0;
    PVA_LAUNCH(count_up, 3, 100, 0, nullptr, counter, sum, largest);
    CHECK_INT(*counter, 300);
    CHECK_NEAR(*sum, 150, 0);
    CHECK_INT(*largest, 101);
    cudaFree(counter), cudaFree(sum), cudaFree(largest);
    simt_set_order(0);
}

void test_refusals() {
    int *out = device<int>(4096);
    PVA_LAUNCH(identify, 0, 32, 0, nullptr, out);
    CHECK_INT(cudaGetLastError(), cudaErrorInvalidConfiguration);
    PVA_LAUNCH(identify, 1, 1025, 0, nullptr, out);
    CHECK_INT(cudaGetLastError(), cudaErrorInvalidConfiguration);
    PVA_LAUNCH(identify, dim3(1, 65536), 32, 0, nullptr, out);
    CHECK_INT(cudaGetLastError(), cudaErrorInvalidConfiguration);
    PVA_LAUNCH(identify, 1, 32, 48 * 1024 + 1, nullptr, out);
    CHECK_INT(cudaGetLastError(), cudaErrorInvalidValue);
    CHECK_INT(cudaFuncSetAttribute(identify, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 << 10), cudaSuccess);
    PVA_LAUNCH(identify, 1, 32, 100 << 10, nullptr, out);
    CHECK_INT(cudaGetLastError(), cudaSuccess);
    PVA_LAUNCH(barrier_in_branch, 1, 64, 0, nullptr, out);
    check_failure("thread 16 has left, thread 0 waits at __syncthreads");
    PVA_LAUNCH(different_barriers, 1, 64, 0, nullptr, out);
    check_failure("thread 0 waits at __syncthreads of");
    PVA_LAUNCH(uneven_loop, 1, 64, 0, nullptr, out);
    check_failure("thread 0 has left, thread 32 waits");
    PVA_LAUNCH(shuffle_in_branch, 1, 64, 0, nullptr, out);
    check_failure("thread 0 has left");
    PVA_LAUNCH(shuffle_from_outside, 1, 32, 0, nullptr, out);
    check_failure("reads lane 20, which is not in the mask 000000ff");
    PVA_LAUNCH(shuffle_without_itself, 1, 32, 0, nullptr, out);
    check_failure("does not hold it");
    PVA_LAUNCH(shuffle_meets_barrier, 1, 32, 0, nullptr, out);
    check_failure("thread 3 at __syncthreads");
    PVA_LAUNCH(shuffle_in_branch, 1, 48, 0, nullptr, out);
    CHECK(cudaGetLastError() != cudaSuccess);
    PVA_LAUNCH(identify, 1, 32, 0, nullptr, out); /* a failure leaves no trace in the next launch */
    CHECK_INT(cudaGetLastError(), cudaSuccess);
    cudaFree(out);
}

void test_poison() {
    float *out = device<float>(64);
    for (int i = 0; i < 64; i++) CHECK(isnan(out[i]));
    for (int again = 0; again < 2; again++) {
        PVA_LAUNCH(unwritten_shared, 2, 64, 0, nullptr, out);
        for (int i = 0; i < 64; i++) CHECK_INT(isnan(out[i]) != 0, i >= 31);
        PVA_LAUNCH(dynamic_shared, 1, 64, 64 * 4, nullptr, out);
        for (int i = 0; i < 64; i++) CHECK(isnan(out[i]));
    }
    int *ids = device<int>(64);
    PVA_LAUNCH(race, 1, 64, 0, nullptr, ids);
    CHECK_INT(ids[0], 63);
    simt_set_order(1);
    PVA_LAUNCH(race, 1, 64, 0, nullptr, ids);
    CHECK_INT(ids[0], 0);
    simt_set_order(0);
    cudaFree(out), cudaFree(ids);
}

void test_fences() {
    float *out = device<float>(33);
    PVA_LAUNCH(beyond_shared, 1, 32, 0, nullptr, out, 0);
    PVA_LAUNCH(beyond_dynamic, 1, 32, 128, nullptr, out, 0);
    PVA_LAUNCH(beyond_device, 1, 32, 0, nullptr, out, 1);
    CHECK_INT(cudaGetLastError(), cudaSuccess);
#if defined(SIMT_ASAN) && !defined(__clang__)
    check_dies("read after static shared memory", [=] { PVA_LAUNCH(beyond_shared, 1, 32, 0, nullptr, out, 1); });
    check_dies("read before static shared memory", [=] { PVA_LAUNCH(beyond_shared, 1, 32, 0, nullptr, out, -1); });
#endif
#ifdef SIMT_ASAN
    check_dies("write after dynamic shared memory", [=] { PVA_LAUNCH(beyond_dynamic, 1, 32, 128, nullptr, out, 1); });
    check_dies("write before dynamic shared memory", [=] { PVA_LAUNCH(beyond_dynamic, 1, 32, 128, nullptr, out, -1); });
    check_dies("write after device memory", [=] { PVA_LAUNCH(beyond_device, 1, 32, 0, nullptr, out, 2); });
    check_dies("write before device memory", [=] { PVA_LAUNCH(beyond_device, 1, 32, 0, nullptr, out, -1); });
    check_dies("misaligned float4", [=] { PVA_LAUNCH(misaligned, 1, 1, 0, nullptr, out, (float4 *)out); });
#else
    CHECK_SKIP("fences: built without AddressSanitizer");
#endif
    cudaFree(out);
    CHECK_INT(simt_device_bytes(), 0);
}

__global__ void add_one(int *x) { x[threadIdx.x]++; }
struct pair {
    int a, b;
};
__global__ void add_pair(int *x, pair p) { x[threadIdx.x] += p.a * p.b; }
__global__ void add_value(int *x, int value) { x[threadIdx.x] += value; }

/* What is on a stream runs when it is waited for and not before; an event marks a place in it; streams wait for each other. */
void test_streams() {
    cudaStream_t a, b;
    cudaEvent_t early, late;
    int *x = device<int>(64), *host, plain[4] = {0};
    cudaStreamCreate(&a), cudaStreamCreate(&b);
    cudaEventCreate(&early), cudaEventCreate(&late);
    CHECK_INT(cudaMallocHost((void **)&host, 16), cudaSuccess);
    for (int i = 0; i < 4; i++) host[i] = 10;
    cudaMemset(x, 0, 64 * sizeof(int));
    cudaMemcpyAsync(x, host, 16, cudaMemcpyHostToDevice, a);
    cudaEventRecord(early, a);
    PVA_LAUNCH(add_one, 1, 4, 0, a, x);
    cudaEventRecord(late, a);
    host[0] = 20; /* too early: the copy takes it */
    pair numbers = {3, 5}, *p = &numbers; /* arguments are taken at the launch */
    PVA_LAUNCH(add_pair, 1, 4, 0, b, x + 4, *p);
    p->a = 100;
    CHECK_INT(cudaEventQuery(early), cudaErrorNotReady);
    CHECK_INT(cudaEventSynchronize(early), cudaSuccess);
    CHECK_INT(x[0], 20);
    CHECK_INT(x[1], 10);
    CHECK_INT(cudaEventQuery(late), cudaErrorNotReady);
    cudaStreamWaitEvent(b, late, 0);
    cudaMemcpyAsync(host, x, 16, cudaMemcpyDeviceToHost, b);
    CHECK_INT(host[1], 10);
    CHECK_INT(cudaStreamSynchronize(b), cudaSuccess);
    CHECK_INT(host[1], 11);
    CHECK_INT(x[4], 15);
    CHECK_INT(cudaEventQuery(late), cudaSuccess);
    PVA_LAUNCH(add_one, 1, 4, 0, a, x);
    cudaMemcpyAsync(plain, x, 16, cudaMemcpyDeviceToHost, a); /* not pinned: waits */
    CHECK_INT(plain[3], 12);
    PVA_LAUNCH(barrier_in_branch, 1, 64, 0, a, x);
    CHECK_INT(cudaGetLastError(), cudaSuccess); /* a device says so later */
    CHECK_INT(cudaStreamSynchronize(a), cudaErrorLaunchFailure);
    CHECK_INT(cudaGetLastError(), cudaErrorLaunchFailure);
    cudaEventDestroy(early), cudaEventDestroy(late);
    cudaStreamDestroy(a), cudaStreamDestroy(b);
    cudaFreeHost(host), cudaFree(x);
}

/* A capture runs nothing; its graph runs with the arguments of then; what CUDA forbids meanwhile fails and spoils the capture. */
void test_graphs() {
    cudaStream_t s;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    int *x = device<int>(4), value = 5;
    void *p;
    cudaStreamCreate(&s);
    cudaMemset(x, 0, 16);
    CHECK_INT(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeThreadLocal), cudaErrorStreamCaptureUnsupported);
    CHECK_INT(cudaStreamEndCapture(s, &graph), cudaErrorIllegalState);
    CHECK_INT(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    CHECK_INT(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), cudaErrorIllegalState);
    uint64_t before = simt_submissions();
    PVA_LAUNCH(add_value, 1, 4, 0, s, x, value);
    value = 100;
    PVA_LAUNCH(add_one, 1, 4, 0, s, x);
    CHECK_INT(simt_submissions() - before, 0);
    CHECK_INT(cudaStreamEndCapture(s, &graph), cudaSuccess);
    CHECK_INT(cudaStreamSynchronize(s), cudaSuccess);
    CHECK_INT(x[0], 0);
    CHECK_INT(cudaGraphInstantiateWithFlags(&exec, graph, 0), cudaSuccess);
    cudaGraphDestroy(graph);
    for (int i = 0; i < 3; i++) CHECK_INT(cudaGraphLaunch(exec, s), cudaSuccess);
    CHECK_INT(x[0], 0);
    CHECK_INT(cudaStreamSynchronize(s), cudaSuccess);
    CHECK_INT(x[3], 18);
    CHECK_INT(simt_submissions() - before, 3);
    cudaGraphExecDestroy(exec);
    cudaGetLastError();
    for (int what = 0; what < 6; what++) {
        CHECK_INT(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), cudaSuccess);
        cudaError_t status = what == 0   ? cudaStreamSynchronize(s)
                             : what == 1 ? cudaDeviceSynchronize()
                             : what == 2 ? cudaMalloc(&p, 16)
                             : what == 3 ? cudaFree(x)
                             : what == 4 ? cudaMemcpy(&value, x, 4, cudaMemcpyDeviceToHost)
                                         : cudaMemset(x, 0, 16);
        CHECK_INT(status, what < 4 ? cudaErrorStreamCaptureUnsupported : cudaErrorStreamCaptureImplicit);
        CHECK_INT(cudaStreamEndCapture(s, &graph), cudaErrorStreamCaptureInvalidated);
        CHECK(!graph);
        CHECK_INT(cudaGetLastError(), cudaErrorStreamCaptureInvalidated);
    }
    CHECK_INT(x[0], 18);
    cudaStreamDestroy(s);
    cudaFree(x);
}

void test_types() {
    CHECK_INT(sizeof(float4), 16);
    CHECK_INT(alignof(float4), 16);
    CHECK_INT(alignof(uint2), 8);
    CHECK_INT(__float2bfloat16_rn(1.00390625f).bits, 0x3f80); /* halfway, to even */
    CHECK_INT(__float2bfloat16_rn(1.01171875f).bits, 0x3f82);
    CHECK(isnan(__bfloat162float(__float2bfloat16_rn(NAN))));
}

} // namespace

int main() {
    for (unsigned order = 0; order < 4; order++) test_right(order);
    test_refusals();
    test_poison();
    test_streams();
    test_graphs();
    test_fences();
    test_types();
    return check_report("test_simt");
}
