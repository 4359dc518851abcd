/* simt.cc - fibres, barriers, warp operations and the runtime library's host calls behind simt.h. */
#include "simt.h"

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <vector>
#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_OWN_SWITCH 1
#else
#include <ucontext.h>
#endif
#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SIMT_NO_ASAN __attribute__((no_sanitize_address))
#else
#define SIMT_NO_ASAN
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

/* ---- changing stacks ---- */

#ifdef SIMT_OWN_SWITCH
/* Saves what the System V ABI asks a callee to keep, and the stack pointer; the rest the compiler has saved. */
extern "C" void simt_switch(void **save, void *load);
asm(".text\n.globl simt_switch\n.type simt_switch,@function\nsimt_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size simt_switch,.-simt_switch\n");
#endif

namespace {

enum { STACK = 256 << 10, MOST_THREADS = 1024, WARP = 32, FILL = 0xff }; /* 0xff bytes: a NaN in every float type */
enum state { READY, AT_BARRIER, AT_WARP, LEFT };

struct fibre {
    char *stack;
    void *at; /* saved stack pointer */
    enum state state;
    uint3 thread;
    /* at a barrier */
    const char *file;
    int line, op, predicate, result;
    /* at a warp operation */
    enum simt_warp_op warp_op;
    unsigned mask;
    int argument, width;
    uint64_t value, answer;
#ifndef SIMT_OWN_SWITCH
    ucontext_t context;
#endif
};

fibre fibres[MOST_THREADS];
int n_threads, current; /* current: the running fibre, -1: the scheduler */
void *scheduler_at;
#ifndef SIMT_OWN_SWITCH
ucontext_t scheduler_context;
#endif
const simt_kernel *kernel;
char *dynamic_shared;
unsigned order_seed;
bool broken;
char message[512];
cudaError_t last_error;
uint64_t launches, submissions, copies;
std::map<const void *, int> shared_allowed;
#ifdef SIMT_ASAN
const void *scheduler_stack;
size_t scheduler_size;
#endif

void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
void fault(const char *format, ...) {
    if (broken) return;
    broken = true;
    int n = snprintf(message, sizeof message, "kernel %s, block (%u,%u,%u): ", kernel->name, blockIdx.x, blockIdx.y, blockIdx.z);
    va_list list;
    va_start(list, format);
    vsnprintf(message + n, sizeof message - (size_t)n, format, list);
    va_end(list);
}

/* leaving: this stack is not come back to. */
void switch_to_scheduler(bool leaving) {
    fibre *f = &fibres[current];
    current = -1;
#ifdef SIMT_ASAN
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(leaving ? nullptr : &fake, scheduler_stack, scheduler_size);
#endif
#ifdef SIMT_OWN_SWITCH
    simt_switch(&f->at, scheduler_at);
#else
    swapcontext(&f->context, &scheduler_context);
#endif
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_size);
#endif
}

void run_fibre() {
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
    kernel->thread(kernel->closure);
    fibres[current].state = LEFT;
    switch_to_scheduler(true);
    abort();
}

void switch_to_fibre(int i) {
    fibre *f = &fibres[i];
    current = i;
    threadIdx = f->thread;
#ifdef SIMT_ASAN
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, f->stack, STACK);
#endif
#ifdef SIMT_OWN_SWITCH
    simt_switch(&scheduler_at, f->at);
#else
    swapcontext(&scheduler_context, &f->context);
#endif
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void prepare(int i) {
    fibre *f = &fibres[i];
    if (!f->stack) {
        char *map = (char *)mmap(nullptr, STACK + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED || mprotect(map, 4096, PROT_NONE)) {
            perror("simt: stack");
            abort();
        }
        f->stack = map + 4096;
    }
    f->state = READY;
    f->thread = {(unsigned)i % blockDim.x, (unsigned)i / blockDim.x % blockDim.y, (unsigned)i / blockDim.x / blockDim.y};
#ifdef SIMT_OWN_SWITCH
    void **top = (void **)(f->stack + STACK);
    *--top = nullptr; /* in place of a return address, as run_fibre does not return; its frame is aligned by it */
    *--top = (void *)run_fibre;
    for (int r = 0; r < 6; r++) *--top = nullptr;
    f->at = top;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK;
    makecontext(&f->context, run_fibre, 0);
#endif
}

/* All threads stand at a barrier: the same one, and nobody missing? */
void release_barrier() {
    int count = 0, first = -1;
    for (int i = 0; i < n_threads; i++) {
        const fibre *f = &fibres[i];
        if (f->state == LEFT) {
            int waiting = 0;
            while (fibres[waiting].state == LEFT) waiting++;
            return fault("thread %d has left, thread %d waits at __syncthreads of %s:%d", i, waiting, fibres[waiting].file, fibres[waiting].line);
        }
        if (first < 0) first = i;
        const fibre *a = &fibres[first];
        if (f->line != a->line || f->op != a->op || strcmp(f->file, a->file))
            return fault("thread %d waits at __syncthreads of %s:%d, thread %d at %s:%d", first, a->file, a->line, i, f->file, f->line);
        count += f->predicate != 0;
    }
    for (int i = 0; i < n_threads; i++) {
        fibre *f = &fibres[i];
        f->result = f->op == SIMT_COUNT ? count : f->op == SIMT_AND ? count == n_threads : count > 0;
        f->state = READY;
    }
}

/* Nobody can run, and somebody has not left. */
void explain_deadlock() {
    int warp = -1, barrier = -1;
    for (int i = 0; i < n_threads; i++) {
        if (fibres[i].state == AT_WARP && warp < 0) warp = i;
        if (fibres[i].state == AT_BARRIER && barrier < 0) barrier = i;
    }
    if (warp < 0) return release_barrier();
    const fibre *f = &fibres[warp];
    for (int lane = 0; lane < WARP; lane++) {
        int other = warp / WARP * WARP + lane;
        if (!(f->mask >> lane & 1)) continue;
        if (other >= n_threads) return fault("thread %d is in a warp operation of mask %08x, which has lanes beyond the block", warp, f->mask);
        const fibre *o = &fibres[other];
        if (o->state == LEFT) return fault("thread %d waits in a warp operation of mask %08x, thread %d has left", warp, f->mask, other);
        if (o->state == AT_BARRIER)
            return fault("thread %d waits in a warp operation of mask %08x, thread %d at __syncthreads of %s:%d", warp, f->mask, other, o->file, o->line);
        if (o->mask != f->mask || o->warp_op != f->warp_op)
            return fault("threads %d and %d wait in different warp operations (masks %08x and %08x)", warp, other, f->mask, o->mask);
    }
    fault("threads wait for each other");
}

/* Over all static shared memory, the sanitizer's fences included: byte by byte, as memset would be stopped by them. */
SIMT_NO_ASAN void fill_static_shared() {
    for (volatile char *p = kernel->shared_begin; p && p < kernel->shared_end; p++) *p = (char)FILL;
}

void run_block(size_t shared, const std::vector<int> &order) {
    fill_static_shared();
    void *dynamic = nullptr;
    if (shared && posix_memalign(&dynamic, 128, shared)) abort();
    if (shared) memset(dynamic, FILL, shared);
    dynamic_shared = (char *)dynamic;
    for (int i = 0; i < n_threads; i++) prepare(i);
    for (;;) {
        /* Each warp as far as it gets alone, so that a missing barrier between warps shows. */
        for (size_t first = 0; first < order.size() && !broken;) {
            size_t end = first;
            while (end < order.size() && order[end] / WARP == order[first] / WARP) end++;
            for (bool moved = true; moved && !broken;) {
                moved = false;
                for (size_t k = first; k < end && !broken; k++)
                    if (fibres[order[k]].state == READY) switch_to_fibre(order[k]), moved = true;
            }
            first = end;
        }
        bool waiting = false, in_warp = false;
        for (int i = 0; i < n_threads; i++) waiting |= fibres[i].state != LEFT, in_warp |= fibres[i].state == AT_WARP;
        if (broken || !waiting) break;
        if (in_warp) explain_deadlock();
        else release_barrier();
    }
#ifdef SIMT_ASAN
    for (int i = 0; broken && i < n_threads; i++) __asan_unpoison_memory_region(fibres[i].stack, STACK);
#endif
    free(dynamic);
    dynamic_shared = nullptr;
}

/* Warp after warp, as simt_set_order asks. */
std::vector<int> thread_order() {
    std::mt19937 random(order_seed);
    std::vector<int> warps((size_t)(n_threads + WARP - 1) / WARP), lanes(WARP), order;
    for (size_t i = 0; i < warps.size(); i++) warps[i] = (int)i;
    for (int i = 0; i < WARP; i++) lanes[(size_t)i] = i;
    if (order_seed == 1) std::reverse(warps.begin(), warps.end()), std::reverse(lanes.begin(), lanes.end());
    if (order_seed > 1) std::shuffle(warps.begin(), warps.end(), random), std::shuffle(lanes.begin(), lanes.end(), random);
    for (int warp : warps)
        for (int lane : lanes)
            if (warp * WARP + lane < n_threads) order.push_back(warp * WARP + lane);
    return order;
}

uint64_t shuffled(const fibre *base, int lane, unsigned mask) {
    const fibre *f = base + lane;
    int width = f->width, first = lane & ~(width - 1), last = first + width - 1, from = lane;
    if (f->warp_op == SIMT_SHFL) from = first | (f->argument & (width - 1));
    if (f->warp_op == SIMT_SHFL_UP && lane - f->argument >= first) from = lane - f->argument;
    if (f->warp_op == SIMT_SHFL_DOWN && lane + f->argument <= last) from = lane + f->argument;
    if (f->warp_op == SIMT_SHFL_XOR && (lane ^ f->argument) <= last) from = lane ^ f->argument;
    if (from < 0 || from >= WARP || !(mask >> from & 1)) {
        fault("lane %d reads lane %d, which is not in the mask %08x", lane, from, mask);
        return 0;
    }
    return base[from].value;
}

/* All lanes of the mask have arrived: each gets its answer. */
void answer_warp(fibre *base, unsigned mask) {
    const fibre *any = nullptr;
    uint64_t sum = 0, smallest = ~0ull, largest = 0, both = ~0ull, either = 0, odd = 0;
    int32_t least = INT32_MAX, most = INT32_MIN;
    unsigned votes = 0;
    for (int i = 0; i < WARP; i++) {
        if (!(mask >> i & 1)) continue;
        any = base + i;
        uint64_t v = base[i].value;
        sum += v, both &= v, either |= v, odd ^= v;
        smallest = std::min(smallest, v), largest = std::max(largest, v);
        least = std::min(least, (int32_t)(uint32_t)v), most = std::max(most, (int32_t)(uint32_t)v);
        votes |= (unsigned)(v != 0) << i;
    }
    enum simt_warp_op op = any->warp_op;
    for (int i = 0; i < WARP; i++) {
        if (!(mask >> i & 1)) continue;
        fibre *f = base + i;
        switch (op) {
        case SIMT_WARP_SYNC: break;
        case SIMT_SHFL:
        case SIMT_SHFL_UP:
        case SIMT_SHFL_DOWN:
        case SIMT_SHFL_XOR: f->answer = shuffled(base, i, mask); break;
        case SIMT_BALLOT: f->answer = votes; break;
        case SIMT_ANY: f->answer = votes != 0; break;
        case SIMT_ALL: f->answer = votes == mask; break;
        case SIMT_MATCH:
            f->answer = 0;
            for (int j = 0; j < WARP; j++)
                if (mask >> j & 1 && base[j].value == f->value) f->answer |= 1ull << j;
            break;
        case SIMT_ADD_U: f->answer = (uint32_t)sum; break;
        case SIMT_MIN_U: f->answer = smallest; break;
        case SIMT_MAX_U: f->answer = largest; break;
        case SIMT_MIN_I: f->answer = (uint32_t)least; break;
        case SIMT_MAX_I: f->answer = (uint32_t)most; break;
        case SIMT_BIT_AND: f->answer = both; break;
        case SIMT_BIT_OR: f->answer = either; break;
        case SIMT_BIT_XOR: f->answer = odd; break;
        }
    }
    for (int i = 0; i < WARP; i++)
        if (mask >> i & 1) base[i].state = READY;
}

cudaError_t result(cudaError_t status) {
    if (status) last_error = status;
    return status;
}

std::map<void *, size_t> allocations;
std::map<char *, size_t> pinned;
size_t allocated;

typedef std::function<void()> work;

} // namespace

/* ---- streams ---- */

struct CUgraph_st {
    std::vector<work> nodes;
};
struct CUgraphExec_st {
    std::vector<work> nodes;
};
struct CUstream_st {
    std::deque<work> queue;
    uint64_t put = 0, done = 0, born;
    CUgraph_st *capture = nullptr;
    bool spoiled = false; /* something forbidden happened during the capture */
};
struct CUevent_st {
    struct timespec time;
    cudaStream_t stream; /* and how much had been put on it */
    uint64_t put;
    bool captured;
};

namespace {

std::set<cudaStream_t> streams;

bool capturing(cudaStream_t s) { return s && s->capture; }

void run_until(cudaStream_t s, uint64_t put) {
    while (s && s->done < put) {
        work next = std::move(s->queue.front());
        s->queue.pop_front();
        s->done++;
        next();
    }
}

void run_all() {
    for (cudaStream_t s : streams) run_until(s, s->put);
}

/* What the host waits for. The other streams stand still meanwhile, or have run ahead: the older ones in odd orders, the newer ones in even ones. */
void wait_for(cudaStream_t s, uint64_t put) {
    for (cudaStream_t other : streams)
        if (s && order_seed && (order_seed % 2 ? other->born < s->born : other->born > s->born)) run_until(other, other->put);
    run_until(s, put);
}

/* The default stream does not wait: what is put on it runs. */
void put(cudaStream_t s, work w) {
    if (!s) return w();
    if (s->capture) return s->capture->nodes.push_back(std::move(w));
    s->queue.push_back(std::move(w));
    s->put++;
}

/* During a capture in this thread, calls that wait or touch memory fail and spoil it. */
bool forbidden() {
    bool any = false;
    for (cudaStream_t s : streams)
        if (s->capture) s->spoiled = any = true;
    return any;
}

bool is_pinned(const void *p) {
    auto after = pinned.upper_bound((char *)p);
    return after != pinned.begin() && (--after, (char *)p < after->first + after->second);
}

} // namespace

/* ---- called by kernels ---- */

void *simt_dynamic_shared(void) { return dynamic_shared; }

int simt_syncthreads(int op, int predicate, const char *file, int line) {
    fibre *f = &fibres[current];
    f->file = file, f->line = line, f->op = op, f->predicate = predicate;
    f->state = AT_BARRIER;
    switch_to_scheduler(false);
    return f->result;
}

uint64_t simt_warp(enum simt_warp_op op, unsigned mask, uint64_t value, int argument, int width) {
    int me = current, lane = me % WARP;
    fibre *f = &fibres[me], *base = &fibres[me - lane];
    f->warp_op = op, f->mask = mask, f->value = value, f->argument = argument, f->width = width;
    f->state = AT_WARP;
    if (!(mask >> lane & 1)) {
        fault("lane %d calls a warp operation whose mask %08x does not hold it", lane, mask);
        switch_to_scheduler(false);
    }
    bool complete = true;
    for (int i = 0; i < WARP && complete; i++)
        if (mask >> i & 1) complete = me - lane + i < n_threads && base[i].state == AT_WARP && base[i].mask == mask && base[i].warp_op == op;
    if (complete) answer_warp(base, mask);
    if (!complete || broken) switch_to_scheduler(false);
    return f->answer;
}

void simt_submit(const simt_kernel &k, dim3 grid, dim3 block, size_t shared, cudaStream_t stream, std::function<void()> run) {
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    auto found = shared_allowed.find(k.address);
    size_t allowed = found == shared_allowed.end() ? 48 << 10 : (size_t)found->second;
    kernel = &k;
    blockIdx = {0, 0, 0};
    broken = false;
    if (!threads || threads > MOST_THREADS || block.z > 64 || !grid.x || !grid.y || !grid.z || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535) {
        fault("a device refuses a grid of (%u,%u,%u) blocks of (%u,%u,%u) threads", grid.x, grid.y, grid.z, block.x, block.y, block.z);
        last_error = cudaErrorInvalidConfiguration;
        return;
    }
    if (shared > allowed) {
        fault("%zu bytes of dynamic shared memory, %zu are allowed", shared, allowed);
        last_error = cudaErrorInvalidValue;
        return;
    }
    if (!capturing(stream)) submissions++;
    put(stream, std::move(run));
}

void simt_run(const simt_kernel &k, dim3 grid, dim3 block, size_t shared) {
    kernel = &k;
    launches++;
    broken = false;
    n_threads = (int)(block.x * block.y * block.z);
    blockDim = block, gridDim = grid;
    std::vector<int> order = thread_order();
    for (unsigned z = 0; z < grid.z && !broken; z++)
        for (unsigned y = 0; y < grid.y && !broken; y++)
            for (unsigned x = 0; x < grid.x && !broken; x++) {
                blockIdx = {x, y, z};
                run_block(shared, order);
            }
    if (broken) last_error = cudaErrorLaunchFailure;
}

/* ---- the test's side ---- */

void simt_set_order(unsigned seed) { order_seed = seed; }
const char *simt_message(void) { return message; }
uint64_t simt_launches(void) { return launches; }
uint64_t simt_copies(void) { return copies; }
uint64_t simt_submissions(void) { return submissions; }
size_t simt_device_bytes(void) { return allocated; }

/* ---- the runtime library ---- */

cudaError_t cudaGetDeviceCount(int *count) { return *count = 1, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device) {
    memset(prop, 0, sizeof *prop);
    snprintf(prop->name, sizeof prop->name, "SIMT on one CPU thread");
    prop->major = 8, prop->minor = 0, prop->multiProcessorCount = 4;
    prop->totalGlobalMem = (size_t)4 << 30, prop->sharedMemPerBlockOptin = 227 << 10;
    return result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device) {
    if (device) return result(cudaErrorInvalidDevice);
    *value = attr == cudaDevAttrMultiProcessorCount ? 4 : attr == cudaDevAttrComputeCapabilityMajor ? 8
             : attr == cudaDevAttrMaxSharedMemoryPerBlockOptin ? 227 << 10 : 0;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = 0, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { return *version = 0, cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t *left, size_t *total) {
    *total = (size_t)4 << 30;
    *left = *total - std::min(*total, allocated);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
    *p = nullptr;
    if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
    if (!bytes) return cudaSuccess;
    if (posix_memalign(p, 256, bytes)) return result(cudaErrorMemoryAllocation);
    memset(*p, FILL, bytes);
    allocations[*p] = bytes;
    allocated += bytes;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    if (!p) return cudaSuccess;
    if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
    run_all();
    auto found = allocations.find(p);
    if (found == allocations.end()) return result(cudaErrorInvalidValue);
    allocated -= found->second;
    allocations.erase(found);
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **p, size_t bytes) {
    *p = nullptr;
    if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
    *p = malloc(bytes ? bytes : 1);
    if (*p) pinned[(char *)*p] = bytes;
    return result(*p ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags) { return (void)flags, cudaMallocHost(p, bytes); }
cudaError_t cudaFreeHost(void *p) {
    if (!p) return cudaSuccess;
    if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
    run_all();
    pinned.erase((char *)p);
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind) {
    (void)kind;
    if (forbidden()) return result(cudaErrorStreamCaptureImplicit);
    if (bytes) memcpy(dst, src, bytes);
    return cudaSuccess;
}
/* Memory that is not pinned is copied before this returns. */
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    bool waits = (kind == cudaMemcpyHostToDevice && !is_pinned(src)) || (kind == cudaMemcpyDeviceToHost && !is_pinned(dst));
    if (stream && stream->capture && stream->spoiled) return result(cudaErrorStreamCaptureInvalidated);
    copies += kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToHost;
    put(stream, [=] {
        if (bytes) memcpy(dst, src, bytes);
    });
    if (waits && !capturing(stream)) run_until(stream, stream ? stream->put : 0);
    return cudaSuccess;
}
cudaError_t cudaMemset(void *p, int value, size_t bytes) {
    if (forbidden()) return result(cudaErrorStreamCaptureImplicit);
    if (bytes) memset(p, value, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream) {
    if (stream && stream->capture && stream->spoiled) return result(cudaErrorStreamCaptureInvalidated);
    put(stream, [=] {
        if (bytes) memset(p, value, bytes);
    });
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithFlags(stream, 0); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    (void)flags;
    static uint64_t born;
    streams.insert(*stream = new CUstream_st);
    (*stream)->born = born++;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    run_until(stream, stream->put);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    if (capturing(stream)) return stream->spoiled = true, result(cudaErrorStreamCaptureUnsupported);
    if (!stream) return cudaDeviceSynchronize();
    wait_for(stream, stream->put);
    return last_error == cudaErrorLaunchFailure ? last_error : cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    (void)flags;
    cudaStream_t on = event->stream;
    uint64_t until = event->put;
    if (event->captured || capturing(stream)) return result(cudaErrorStreamCaptureUnsupported); /* forks and joins: not modelled */
    if (on) put(stream, [=] { run_until(on, until); });
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    (void)mode;
    if (!stream) return result(cudaErrorStreamCaptureUnsupported);
    if (stream->capture) return result(cudaErrorIllegalState);
    stream->capture = new CUgraph_st;
    stream->spoiled = false;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    *graph = nullptr;
    if (!capturing(stream)) return result(cudaErrorIllegalState);
    if (stream->spoiled) delete stream->capture;
    else *graph = stream->capture;
    stream->capture = nullptr;
    return result(*graph ? cudaSuccess : cudaErrorStreamCaptureInvalidated);
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags) {
    (void)flags;
    *exec = graph ? new CUgraphExec_st{graph->nodes} : nullptr;
    return result(graph ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    if (!exec) return result(cudaErrorInvalidValue);
    submissions++;
    for (const work &node : exec->nodes) put(stream, node);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return delete exec, cudaSuccess; }

cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    (void)flags;
    *event = new CUevent_st();
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    if (streams.count(event->stream)) run_until(event->stream, event->put);
    return delete event, cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    event->captured = capturing(stream);
    event->stream = stream;
    put(stream, [=] { clock_gettime(CLOCK_MONOTONIC, &event->time); });
    event->put = stream ? stream->put : 0;
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    if (event->captured) return forbidden(), result(cudaErrorStreamCaptureUnsupported);
    return !event->stream || event->stream->done >= event->put ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (event->captured) return forbidden(), result(cudaErrorStreamCaptureUnsupported);
    wait_for(event->stream, event->put);
    return last_error == cudaErrorLaunchFailure ? last_error : cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    const struct timespec *a = &from->time, *b = &to->time;
    *ms = (float)((double)(b->tv_sec - a->tv_sec) * 1e3 + (double)(b->tv_nsec - a->tv_nsec) * 1e-6);
    return cudaSuccess;
}

/* A failed kernel is reported by the launch's cudaGetLastError already; a device would tell at the next synchronisation. */
cudaError_t cudaDeviceSynchronize(void) {
    if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
    run_all();
    return last_error == cudaErrorLaunchFailure ? last_error : cudaSuccess;
}
cudaError_t cudaGetLastError(void) {
    cudaError_t status = last_error;
    last_error = cudaSuccess;
    return status;
}
cudaError_t cudaPeekAtLastError(void) { return last_error; }
const char *cudaGetErrorName(cudaError_t status) {
    switch (status) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorLaunchOutOfResources: return "cudaErrorLaunchOutOfResources";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorIllegalState: return "cudaErrorIllegalState";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureImplicit: return "cudaErrorStreamCaptureImplicit";
    }
    return "cudaErrorUnknown";
}
const char *cudaGetErrorString(cudaError_t status) { return broken ? message : cudaGetErrorName(status); }

cudaError_t simt_func_set_attribute(const void *kernel, enum cudaFuncAttribute attr, int value) {
    if (attr != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || value > 227 << 10) return result(cudaErrorInvalidValue);
    shared_allowed[kernel] = value;
    return cudaSuccess;
}
