/* backend_cuda.c - the table of operations on one GPU: checks shapes, moves memory, starts the kernels on one stream.
 *
 * Everything is asynchronous but download and sync. Operations are put off until memory is moved or waited for, and start together (cuda_calls.h).
 * What is done with the results of a product that still waits becomes its end: they are not written and read again.
 * Uploads go through pinned memory, so the caller's may be reused at once. What a kernel finds wrong (a token outside of the vocabulary) it
 * writes down on the device; download and sync read it and report it. */
#include "backend_cuda.h"
#include "backend_cuda_spd.h"
#include "cuda_calls.h"
#include "cuda_check.h"
#include "kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pva_buffer {
    char *data; /* device memory */
    size_t bytes;
};

/* Pinned host memory, filled on a stream of its own. */
struct pva_readback {
    char *host;
    size_t bytes;
    cudaEvent_t ready, copied; /* on the stream of operations, on that of copies */
};

enum { SLOTS = 8, SLOT_BYTES = 2 << 20 };

struct pva_backend {
    int device;
    struct cudaDeviceProp prop;
    enum pva_cuda_path path;
    cudaStream_t stream, copies; /* operations; readbacks */
    struct cuda_calls *calls;
    struct pva_error late; /* of calls that were started where no error can be returned */
    size_t used, limit;

    char *pinned; /* [SLOTS][SLOT_BYTES] */
    cudaEvent_t copied[SLOTS];
    int slot; /* the next one */

    char *work; /* of the kernels; its first PVA_CUDA_COUNTERS bytes are zero between them */
    size_t work_bytes;
    int32_t *fault;        /* device [2] */
    int32_t *pinned_fault; /* host copy */

    float *cosines, *sines; /* device [rope_positions, rope_half] */
    int64_t rope_positions, rope_half;
    float rope_theta;
};

#define TRY(call) \
    do { \
        if (call) return err->code; \
    } while (0)

/* A launcher's status. `stage` is what the operation was; a failure of an earlier kernel may show here first. */
static int started(const struct pva_backend *be, int status, const char *stage, const char *file, int line, struct pva_error *err) {
    if (!status) return PVA_OK;
    return pva_fail(err, PVA_IO, "GPU %d, %s: %s (%s), at %s:%d", be->device, stage, cudaGetErrorName((cudaError_t)status),
                    cudaGetErrorString((cudaError_t)status), file, line);
}
#define START(be, stage, launch, err) started(be, launch, stage, __FILE__, __LINE__, err)

/* ---- tensors ---- */

static size_t tensor_bytes(struct pva_tensor t) { return (size_t)t.rows * (size_t)t.cols * pva_dtype_size(t.dtype); }

static void *data_of(struct pva_tensor t) {
    PVA_ASSERT(t.buffer && t.rows >= 0 && t.cols >= 0 && t.offset + tensor_bytes(t) <= t.buffer->bytes);
    return t.buffer->data + t.offset;
}
static float *f32_of(struct pva_tensor t) {
    PVA_ASSERT(t.dtype == PVA_F32);
    return data_of(t);
}
static int32_t *i32_of(struct pva_tensor t, int64_t n) {
    PVA_ASSERT(t.dtype == PVA_I32 && t.rows == n && t.cols == 1);
    return data_of(t);
}
static void *either_of(struct pva_tensor t) {
    PVA_ASSERT(t.dtype == PVA_F32 || t.dtype == PVA_BF16);
    return data_of(t);
}

/* ---- device ---- */

static int no_device(cudaError_t status, struct pva_error *err) {
    char built[48];
    snprintf(built, sizeof built, "built with CUDA %d.%d", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (status == cudaErrorInsufficientDriver || status == cudaErrorNoDevice || status == cudaSuccess)
        return pva_fail(err, PVA_IO, "no GPU: %s (%s); use --backend cpu",
                        status == cudaErrorInsufficientDriver ? "the NVIDIA driver is missing or too old" : "this process sees none (CUDA_VISIBLE_DEVICES?)",
                        built);
    return pva_fail(err, PVA_IO, "no GPU: %s (%s; %s); use --backend cpu", cudaGetErrorName(status), cudaGetErrorString(status), built);
}

static void cuda_close(struct pva_backend **out) {
    struct pva_backend *be = *out;
    if (!be) return;
    if (be->stream) cudaStreamSynchronize(be->stream);
    for (int i = 0; i < SLOTS; i++)
        if (be->copied[i]) cudaEventDestroy(be->copied[i]);
    cudaFreeHost(be->pinned);
    cudaFreeHost(be->pinned_fault);
    cudaFree(be->work);
    cudaFree(be->fault);
    cudaFree(be->cosines);
    cudaFree(be->sines);
    cuda_calls_close(&be->calls);
    if (be->copies) cudaStreamDestroy(be->copies);
    if (be->stream) cudaStreamDestroy(be->stream);
    free(be);
    *out = NULL;
}

/* Device memory of ours, counted. */
static int take(struct pva_backend *be, size_t bytes, void **out, struct pva_error *err) {
    *out = NULL;
    if (be->limit && (be->used > be->limit || bytes > be->limit - be->used))
        return pva_fail(err, PVA_IO, "%.2f GiB more would pass the limit of --gpu-memory, %.2f GiB (%.2f GiB in use)", (double)bytes / 0x1p30,
                        (double)be->limit / 0x1p30, (double)be->used / 0x1p30);
    cudaError_t status = cudaMalloc(out, bytes ? bytes : 1);
    if (status) {
        size_t left = 0, total = 0;
        cudaGetLastError(); /* else the next launch would report it */
        *out = NULL;
        cudaMemGetInfo(&left, &total);
        return pva_fail(err, PVA_IO, "GPU %d has no %.2f GiB left: %.2f of %.2f GiB are free, %.2f GiB are this process's (%s); take a smaller --batch-size or a larger GPU",
                        be->device, (double)bytes / 0x1p30, (double)left / 0x1p30, (double)total / 0x1p30, (double)be->used / 0x1p30,
                        cudaGetErrorName(status));
    }
    be->used += bytes;
    return PVA_OK;
}

static int open_device(struct pva_backend *be, struct pva_error *err) {
    PVA_CUDA_TRY(cudaSetDevice(be->device), err);
    PVA_CUDA_TRY(cudaGetDeviceProperties(&be->prop, be->device), err);
    PVA_CUDA_TRY(cudaStreamCreateWithFlags(&be->stream, cudaStreamNonBlocking), err);
    PVA_CUDA_TRY(cudaStreamCreateWithFlags(&be->copies, cudaStreamNonBlocking), err);
    PVA_CUDA_TRY(cudaHostAlloc((void **)&be->pinned, (size_t)SLOTS * SLOT_BYTES, cudaHostAllocDefault), err);
    PVA_CUDA_TRY(cudaHostAlloc((void **)&be->pinned_fault, 2 * sizeof(int32_t), cudaHostAllocDefault), err);
    for (int i = 0; i < SLOTS; i++) PVA_CUDA_TRY(cudaEventCreateWithFlags(&be->copied[i], cudaEventDisableTiming), err);
    TRY(take(be, 2 * sizeof(int32_t), (void **)&be->fault, err));
    PVA_CUDA_TRY(cudaMemsetAsync(be->fault, 0, 2 * sizeof(int32_t), be->stream), err);
    PVA_CUDA_TRY(cudaStreamSynchronize(be->stream), err);
    const char *graphs = getenv("PVA_CUDA_GRAPHS"); /* "off": every kernel by itself, to find out what a failure or a time comes from */
    be->calls = cuda_calls_open(be->device, be->stream, !graphs || strcmp(graphs, "off"));
    return be->calls ? PVA_OK : pva_fail(err, PVA_IO, "out of memory");
}

static int cuda_open(const struct pva_backend_settings *settings, struct pva_backend **out, struct pva_error *err) {
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status || count < 1) return no_device(status, err);
    if (settings->isa && strcmp(settings->isa, "portable"))
        return pva_fail(err, PVA_USAGE, "--isa %s is of a CPU; with a GPU it may be portable (no tensor cores), or is left out", settings->isa);
    if (settings->device < 0 || settings->device >= count)
        return pva_fail(err, PVA_USAGE, "GPU %d is asked for, this process sees %d (0 to %d)", settings->device, count, count - 1);
    struct pva_backend *be = calloc(1, sizeof *be);
    if (!be) return pva_fail(err, PVA_IO, "out of memory");
    be->device = settings->device;
    be->limit = settings->memory_limit;
    if (open_device(be, err)) {
        char why[64];
        snprintf(why, sizeof why, "GPU %d of %d", settings->device, count);
        cuda_close(&be);
        return pva_error_prefix(err, "%s", why);
    }
    be->path = be->prop.major >= 8 && !settings->isa ? PVA_TENSOR_CORES : PVA_PORTABLE;
    *out = be;
    return PVA_OK;
}

static void cuda_describe(const struct pva_backend *be, struct pva_backend_info *info) {
    int runtime = 0, driver = 0;
    memset(info, 0, sizeof *info);
    snprintf(info->device, sizeof info->device, "%.60s (sm_%d%d%s)", be->prop.name, be->prop.major, be->prop.minor,
             be->path == PVA_PORTABLE ? ", no tensor cores" : "");
    /* What decides about bits: the portable sums are the same everywhere, the tensor cores' are their generation's. */
    if (be->path == PVA_PORTABLE) snprintf(info->isa, sizeof info->isa, "portable");
    else snprintf(info->isa, sizeof info->isa, "sm_%d%d", be->prop.major, be->prop.minor);
    cudaRuntimeGetVersion(&runtime);
    cudaDriverGetVersion(&driver);
    snprintf(info->versions, sizeof info->versions, "CUDA %d.%d, driver for %d.%d", runtime / 1000, runtime % 1000 / 10, driver / 1000, driver % 1000 / 10);
    for (int i = 0; i < 16; i++) snprintf(info->id + 2 * i, 3, "%02x", (unsigned char)be->prop.uuid.bytes[i]);
    info->memory_total = be->prop.totalGlobalMem;
    info->memory_used = be->used;
}

static int cuda_count(void) {
    int count = 0;
    return cudaGetDeviceCount(&count) ? 0 : count;
}

/* ---- memory ---- */

/* What kernels found wrong, once those so far are through, to where the host looks. */
static int send_fault(struct pva_backend *be, const char *stage, struct pva_error *err) {
    return START(be, stage, cudaMemcpyAsync(be->pinned_fault, be->fault, 2 * sizeof(int32_t), cudaMemcpyDeviceToHost, be->stream), err);
}

/* After cuda_calls_start and send_fault: waits for everything and reports what went wrong since the last time. */
static int finish(struct pva_backend *be, const char *stage, struct pva_error *err) {
    static const char *const what[] = {"", "a token id outside of the vocabulary", "a row outside of its tensor", "a direction outside of its table",
                                       "a slot, position or page outside of the cache"};
    if (be->late.code) {
        *err = be->late;
        be->late = (struct pva_error){0};
        return err->code;
    }
    TRY(START(be, stage, cudaStreamSynchronize(be->stream), err));
    int32_t kind = be->pinned_fault[0], value = be->pinned_fault[1];
    if (kind == PVA_FAULT_NONE) return PVA_OK;
    TRY(START(be, stage, cudaMemsetAsync(be->fault, 0, 2 * sizeof(int32_t), be->stream), err));
    return pva_fail(err, kind == PVA_FAULT_TOKEN ? PVA_INPUT : PVA_BUG, "GPU %d met %s: %d", be->device,
                    kind > 0 && kind < (int)(sizeof what / sizeof *what) ? what[kind] : "an unknown fault", value);
}

static int new_buffer(struct pva_backend *be, size_t bytes, struct pva_buffer **out, struct pva_error *err) {
    struct pva_buffer *b = calloc(1, sizeof *b);
    if (!b) return pva_fail(err, PVA_IO, "out of memory");
    if (take(be, bytes, (void **)&b->data, err)) {
        free(b);
        return err->code;
    }
    b->bytes = bytes;
    *out = b;
    return PVA_OK;
}

/* Frees device memory once the kernels that use it are through: those that wait to be started, and, by cudaFree itself, those that run. */
static void release(struct pva_backend *be, void *data) {
    struct pva_error err = {0};
    if (data && cuda_calls_start(be->calls, &err) && !be->late.code) be->late = err;
    cudaFree(data);
}

static void cuda_free(struct pva_backend *be, struct pva_buffer **buffer) {
    if (!*buffer) return;
    release(be, (*buffer)->data);
    be->used -= (*buffer)->bytes;
    free(*buffer);
    *buffer = NULL;
}

static int cuda_alloc(struct pva_backend *be, size_t bytes, struct pva_buffer **out, struct pva_error *err) {
    TRY(new_buffer(be, bytes, out, err));
    if (bytes && START(be, "clearing memory", cudaMemsetAsync((*out)->data, 0, bytes, be->stream), err)) cuda_free(be, out);
    return err->code;
}

/* The pinned slot whose turn it is, once its last copy is through. */
static int next_slot(struct pva_backend *be, int *slot, struct pva_error *err) {
    *slot = be->slot;
    be->slot = (be->slot + 1) % SLOTS;
    return START(be, "waiting for an upload", cudaEventSynchronize(be->copied[*slot]), err);
}

static int to_device(struct pva_backend *be, char *dst, const char *host, size_t bytes, struct pva_error *err) {
    TRY(cuda_calls_start(be->calls, err));
    for (size_t at = 0; at < bytes; at += SLOT_BYTES) {
        size_t piece = bytes - at < SLOT_BYTES ? bytes - at : SLOT_BYTES;
        int slot;
        TRY(next_slot(be, &slot, err));
        char *pinned = be->pinned + (size_t)slot * SLOT_BYTES;
        memcpy(pinned, host + at, piece);
        TRY(START(be, "upload", cudaMemcpyAsync(dst + at, pinned, piece, cudaMemcpyHostToDevice, be->stream), err));
        TRY(START(be, "upload", cudaEventRecord(be->copied[slot], be->stream), err));
    }
    return PVA_OK;
}

static int cuda_bind(struct pva_backend *be, const void *host, size_t bytes, struct pva_buffer **out, struct pva_error *err) {
    TRY(new_buffer(be, bytes, out, err));
    if (to_device(be, (*out)->data, host, bytes, err)) cuda_free(be, out);
    return err->code;
}

static int cuda_upload(struct pva_backend *be, struct pva_tensor dst, const void *host, struct pva_error *err) {
    return to_device(be, data_of(dst), host, tensor_bytes(dst), err);
}

/* All slots at once in turn: the copy of one piece runs while the last one is read. The fault word follows at once: the host wakes up once. */
static int cuda_download(struct pva_backend *be, struct pva_tensor src, void *host, struct pva_error *err) {
    const char *from = data_of(src);
    size_t bytes = tensor_bytes(src), sent = 0, read = 0;
    int begin = be->slot, waiting = 0;
    TRY(cuda_calls_start(be->calls, err));
    if (!bytes) TRY(send_fault(be, "download", err));
    while (read < bytes) {
        while (sent < bytes && waiting < SLOTS) {
            size_t piece = bytes - sent < SLOT_BYTES ? bytes - sent : SLOT_BYTES;
            int slot;
            TRY(next_slot(be, &slot, err));
            TRY(START(be, "download", cudaMemcpyAsync(be->pinned + (size_t)slot * SLOT_BYTES, from + sent, piece, cudaMemcpyDeviceToHost, be->stream), err));
            TRY(START(be, "download", cudaEventRecord(be->copied[slot], be->stream), err));
            sent += piece, waiting++;
            if (sent == bytes) TRY(send_fault(be, "download", err));
        }
        size_t piece = bytes - read < SLOT_BYTES ? bytes - read : SLOT_BYTES;
        TRY(START(be, "download", cudaEventSynchronize(be->copied[begin]), err));
        memcpy((char *)host + read, be->pinned + (size_t)begin * SLOT_BYTES, piece);
        read += piece, waiting--;
        begin = (begin + 1) % SLOTS;
    }
    return finish(be, "download", err);
}

static int cuda_sync(struct pva_backend *be, struct pva_error *err) {
    TRY(cuda_calls_start(be->calls, err));
    TRY(send_fault(be, "sync", err));
    return finish(be, "sync", err);
}

/* ---- readbacks ---- */

static void cuda_readback_close(struct pva_backend *be, struct pva_readback **out) {
    struct pva_readback *r = *out;
    (void)be;
    if (!r) return;
    if (r->copied) cudaEventSynchronize(r->copied);
    if (r->ready) cudaEventDestroy(r->ready);
    if (r->copied) cudaEventDestroy(r->copied);
    cudaFreeHost(r->host);
    free(r);
    *out = NULL;
}

static int cuda_readback_open(struct pva_backend *be, size_t bytes, struct pva_readback **out, struct pva_error *err) {
    struct pva_readback *r = calloc(1, sizeof *r);
    if (!r) return pva_fail(err, PVA_IO, "out of memory");
    r->bytes = bytes;
    if (START(be, "pinned memory for a readback", cudaHostAlloc((void **)&r->host, bytes ? bytes : 1, cudaHostAllocDefault), err) ||
        START(be, "readback", cudaEventCreateWithFlags(&r->ready, cudaEventDisableTiming), err) ||
        START(be, "readback", cudaEventCreateWithFlags(&r->copied, cudaEventDisableTiming), err)) {
        cudaGetLastError(); /* else the next launch would report it */
        cuda_readback_close(be, &r);
        return err->code;
    }
    *out = r;
    return PVA_OK;
}

static int cuda_readback_begin(struct pva_backend *be, struct pva_readback *r, struct pva_tensor src, struct pva_error *err) {
    PVA_ASSERT(tensor_bytes(src) <= r->bytes);
    TRY(cuda_calls_start(be->calls, err));
    TRY(START(be, "readback", cudaEventRecord(r->ready, be->stream), err));
    TRY(START(be, "readback", cudaStreamWaitEvent(be->copies, r->ready, 0), err));
    TRY(START(be, "readback", cudaMemcpyAsync(r->host, data_of(src), tensor_bytes(src), cudaMemcpyDeviceToHost, be->copies), err));
    return START(be, "readback", cudaEventRecord(r->copied, be->copies), err);
}

/* What waits to be started is started: the device computes while the host waits and looks. */
static int cuda_readback_wait(struct pva_backend *be, struct pva_readback *r, const void **host, struct pva_error *err) {
    *host = r->host;
    TRY(cuda_calls_start(be->calls, err));
    return START(be, "readback", cudaEventSynchronize(r->copied), err);
}

/* Work memory of at least this size. It only grows, and is large enough after the first passes. */
static int need_work(struct pva_backend *be, size_t bytes, struct pva_error *err) {
    if (bytes <= be->work_bytes) return PVA_OK;
    release(be, be->work);
    be->used -= be->work_bytes;
    be->work = NULL, be->work_bytes = 0;
    bytes = (bytes + (1 << 20) - 1) >> 20 << 20;
    if (take(be, bytes, (void **)&be->work, err)) return pva_error_prefix(err, "work memory of the kernels");
    be->work_bytes = bytes;
    return START(be, "clearing memory", cudaMemsetAsync(be->work, 0, PVA_CUDA_COUNTERS, be->stream), err);
}

/* ---- operations: each checks its shapes and puts off its launcher, with the launcher's arguments in p, n and f in their order ---- */

#define PUT(be, err, ...) cuda_calls_add((be)->calls, &(struct cuda_call){__VA_ARGS__}, err)
#define TYPE(i) (enum pva_dtype)c->n[i]

static int start_convert(const struct cuda_call *c, cudaStream_t stream) {
    return pva_cuda_convert(c->p[0], TYPE(0), c->p[1], TYPE(1), c->n[2], stream);
}
static int cuda_convert(struct pva_backend *be, struct pva_tensor src, struct pva_tensor dst, struct pva_error *err) {
    PVA_ASSERT(src.rows * src.cols == dst.rows * dst.cols);
    PVA_ASSERT(src.dtype == PVA_F32 || src.dtype == PVA_BF16 || src.dtype == PVA_F16);
    return PUT(be, err, start_convert, "convert", .p = {data_of(src), either_of(dst)}, .n = {src.dtype, dst.dtype, src.rows * src.cols});
}

static int start_embed(const struct cuda_call *c, cudaStream_t stream) {
    return pva_cuda_embed(c->p[0], c->n[0], c->p[1], TYPE(1), c->n[2], c->n[3], c->f[0], (int)c->n[4], c->p[2], c->p[3], stream);
}
static int cuda_embed(struct pva_backend *be, struct pva_tensor ids, struct pva_tensor table, float scale, int round_bf16, struct pva_tensor y,
                      struct pva_error *err) {
    PVA_ASSERT(table.cols == y.cols);
    return PUT(be, err, start_embed, "embed", .p = {i32_of(ids, y.rows), either_of(table), f32_of(y), be->fault},
               .n = {y.rows, table.dtype, table.rows, y.cols, round_bf16}, .f = {scale});
}

static int start_rmsnorm(const struct cuda_call *c, cudaStream_t stream) {
    return pva_cuda_rmsnorm(c->p[0], c->p[1], c->f[0], c->n[0], c->n[1], c->p[2], TYPE(2), stream);
}
static int cuda_rmsnorm(struct pva_backend *be, struct pva_tensor x, struct pva_tensor w, float eps, struct pva_tensor y, struct pva_error *err) {
    PVA_ASSERT(w.rows == 1 && w.cols == x.cols && y.rows == x.rows && y.cols == x.cols);
    return PUT(be, err, start_rmsnorm, "rmsnorm", .p = {f32_of(x), f32_of(w), either_of(y)}, .n = {x.rows, x.cols, y.dtype}, .f = {eps});
}

static int start_rmsnorm_add(const struct cuda_call *c, cudaStream_t stream) {
    return pva_cuda_rmsnorm_add(c->p[0], c->p[1], c->f[0], c->n[0], c->n[1], c->p[2], stream);
}
static int cuda_rmsnorm_add(struct pva_backend *be, struct pva_tensor x, struct pva_tensor w, float eps, struct pva_tensor resid, struct pva_error *err) {
    PVA_ASSERT(w.rows == 1 && w.cols == x.cols && resid.rows == x.rows && resid.cols == x.cols);
    return PUT(be, err, start_rmsnorm_add, "rmsnorm_add", .p = {f32_of(x), f32_of(w), f32_of(resid)}, .n = {x.rows, x.cols}, .f = {eps});
}

static int start_rmsnorm_add_rmsnorm(const struct cuda_call *c, cudaStream_t stream) {
    return pva_cuda_rmsnorm_add_rmsnorm(c->p[0], c->p[1], c->p[2], c->f[0], c->n[0], c->n[1], c->p[3], c->p[4], TYPE(2), stream);
}
static int cuda_rmsnorm_add_rmsnorm(struct pva_backend *be, struct pva_tensor x, struct pva_tensor w, struct pva_tensor w_next, float eps,
                                    struct pva_tensor resid, struct pva_tensor y, struct pva_error *err) {
    PVA_ASSERT(w.rows == 1 && w.cols == x.cols && w_next.rows == 1 && w_next.cols == x.cols);
    PVA_ASSERT(resid.rows == x.rows && resid.cols == x.cols && y.rows == x.rows && y.cols == x.cols);
    return PUT(be, err, start_rmsnorm_add_rmsnorm, "rmsnorm_add_rmsnorm", .p = {f32_of(x), f32_of(w), f32_of(w_next), f32_of(resid), either_of(y)},
               .n = {x.rows, x.cols, y.dtype}, .f = {eps});
}

/* p: x, work, each product's w and y, the end's y. n: x's type, w's type, rows, k, path, count, each product's m, the end, its y's type. */
static int start_linear(const struct cuda_call *c, cudaStream_t stream) {
    struct pva_cuda_product products[PVA_MOST_LINEARS];
    const int count = (int)c->n[5];
    for (int i = 0; i < count; i++) products[i] = (struct pva_cuda_product){c->p[2 + 2 * i], c->p[3 + 2 * i], c->n[6 + i]};
    const struct pva_cuda_end end = {(enum pva_cuda_ending)c->n[9], c->f[0], c->p[8], TYPE(10)};
    return pva_cuda_linear(c->p[0], TYPE(0), products, count, TYPE(1), c->n[2], c->n[3], &end, (enum pva_cuda_path)c->n[4], c->p[1], stream);
}
static int cuda_linears(struct pva_backend *be, struct pva_tensor x, const struct pva_tensor *w, const struct pva_tensor *y, int count,
                        struct pva_error *err) {
    PVA_ASSERT(count >= 1 && count <= PVA_MOST_LINEARS);
    struct pva_cuda_product products[PVA_MOST_LINEARS];
    struct cuda_call call = {start_linear, "linear", .p = {either_of(x)}, .n = {x.dtype, w[0].dtype, x.rows, x.cols, be->path, count}};
    for (int i = 0; i < count; i++) {
        PVA_ASSERT(x.cols == w[i].cols && y[i].rows == x.rows && y[i].cols == w[i].rows && !(x.dtype == PVA_BF16 && w[i].dtype == PVA_F32));
        if (w[i].dtype != w[0].dtype) { /* a kernel reads weights of one type */
            TRY(cuda_linears(be, x, w, y, i, err));
            return cuda_linears(be, x, w + i, y + i, count - i, err);
        }
        products[i] = (struct pva_cuda_product){either_of(w[i]), f32_of(y[i]), w[i].rows};
        call.p[2 + 2 * i] = either_of(w[i]), call.p[3 + 2 * i] = f32_of(y[i]), call.n[6 + i] = w[i].rows;
    }
    TRY(need_work(be, pva_cuda_linear_bytes(x.rows, products, count, x.cols), err));
    call.p[1] = be->work;
    return cuda_calls_add(be->calls, &call, err);
}
static int cuda_linear(struct pva_backend *be, struct pva_tensor x, struct pva_tensor w, struct pva_tensor y, struct pva_error *err) {
    return cuda_linears(be, x, &w, &y, 1, err);
}

/* The last waiting call, if it is a product that gives just these `count` tensors, and nothing is done with them yet; NULL: it is not. */
static struct cuda_call *product_of(struct pva_backend *be, const struct pva_tensor *y, int count) {
    struct cuda_call *c = cuda_calls_last(be->calls);
    if (!c || c->start != start_linear || c->n[5] != count || c->n[9] != PVA_END_PLAIN) return NULL;
    for (int i = 0; i < count; i++)
        if (c->p[3 + 2 * i] != f32_of(y[i]) || c->n[2] != y[i].rows || c->n[6 + i] != y[i].cols) return NULL;
    return c;
}

/* Whether a product reads x where y would be written. */
static int overwrites(const struct cuda_call *c, struct pva_tensor y) {
    const char *x = c->p[0], *to = data_of(y);
    return to < x + (size_t)(c->n[2] * c->n[3]) * pva_dtype_size(TYPE(0)) && x < to + tensor_bytes(y);
}

/* The angles of all positions that the cache's tables have: which ones come is known on the device only. */
static int need_angles(struct pva_backend *be, int64_t positions, int64_t half, float theta, struct pva_error *err) {
    if (positions <= be->rope_positions && half == be->rope_half && theta == be->rope_theta) return PVA_OK;
    size_t old = (size_t)(be->rope_positions * be->rope_half) * sizeof(float), bytes = (size_t)(positions * half) * sizeof(float);
    release(be, be->cosines);
    release(be, be->sines);
    be->cosines = be->sines = NULL;
    be->rope_positions = 0;
    be->used -= 2 * old;
    float *host = malloc(2 * bytes);
    if (!host) return pva_fail(err, PVA_IO, "out of memory for %lld positions", (long long)positions);
    pva_cuda_rope_angles(theta, 0, positions, half, host, host + positions * half);
    if (!take(be, bytes, (void **)&be->cosines, err)) {
        if (take(be, bytes, (void **)&be->sines, err)) {
            cudaFree(be->cosines);
            be->cosines = NULL;
            be->used -= bytes;
        } else {
            be->rope_positions = positions, be->rope_half = half, be->rope_theta = theta;
            if (!to_device(be, (char *)be->cosines, (const char *)host, bytes, err)) to_device(be, (char *)be->sines, (const char *)host + bytes, bytes, err);
        }
    }
    free(host);
    return err->code;
}

static void check_cache(const struct pva_attention_shape *shape, const struct pva_kv_cache *kv, int layer) {
    PVA_ASSERT(kv->d_head == shape->d_head && kv->n_kv_heads == shape->n_kv_heads && layer >= 0 && layer < kv->n_layers);
    PVA_ASSERT(kv->page_table.dtype == PVA_I32 && kv->k.dtype == kv->v.dtype && kv->k.cols == kv->d_head);
    PVA_ASSERT(kv->k.rows == (int64_t)kv->n_layers * kv->n_pages * kv->n_kv_heads * kv->page_size && kv->v.rows == kv->k.rows);
}

/* A cache in a call: p from `p` on: keys, values, page table; n from `n` on. */
static void put_cache(struct cuda_call *c, int p, int n, const struct pva_kv_cache *kv) {
    c->p[p] = either_of(kv->k), c->p[p + 1] = either_of(kv->v), c->p[p + 2] = data_of(kv->page_table);
    const int64_t shape[] = {kv->k.dtype, kv->page_table.rows, kv->page_table.cols, kv->n_layers, kv->n_pages, kv->page_size, kv->n_kv_heads, kv->d_head};
    memcpy(c->n + n, shape, sizeof shape);
}
static struct pva_cuda_kv cache_of(const struct cuda_call *c, int p, int n) {
    const int64_t *s = c->n + n;
    return (struct pva_cuda_kv){
        .k = c->p[p], .v = c->p[p + 1], .page_table = c->p[p + 2], .type = (enum pva_dtype)s[0], .n_slots = (int)s[1], .max_pages = (int)s[2],
        .n_layers = (int)s[3], .n_pages = (int)s[4], .page_size = (int)s[5], .n_kv_heads = (int)s[6], .d_head = (int)s[7],
    };
}

static int start_rope_store(const struct cuda_call *c, cudaStream_t stream) {
    const struct pva_cuda_kv kv = cache_of(c, 8, 4);
    return pva_cuda_rope_store(c->p[0], c->p[1], c->p[2], c->p[3], c->p[4], c->n[0], (int)c->n[1], c->p[5], c->p[6], c->n[2], &kv, (int)c->n[3], c->p[7], stream);
}
static int cuda_rope_store(struct pva_backend *be, struct pva_tensor q, struct pva_tensor k, struct pva_tensor v, struct pva_tensor slots,
                           struct pva_tensor positions, float theta, const struct pva_attention_shape *shape, const struct pva_kv_cache *kv, int layer,
                           struct pva_error *err) {
    int64_t n = q.rows;
    int d = shape->d_head;
    check_cache(shape, kv, layer);
    PVA_ASSERT(d % 2 == 0 && q.cols == shape->n_heads * d && k.cols == shape->n_kv_heads * d && v.cols == k.cols && k.rows == n && v.rows == n);
    TRY(need_angles(be, kv->page_table.cols * kv->page_size, d / 2, theta, err));
    struct cuda_call call = {start_rope_store, "rope_store",
                             .p = {f32_of(q), f32_of(k), f32_of(v), i32_of(slots, n), i32_of(positions, n), be->cosines, be->sines, be->fault},
                             .n = {n, shape->n_heads, be->rope_positions, layer}};
    put_cache(&call, 8, 4, kv);
    return cuda_calls_add(be->calls, &call, err);
}

static int start_attention(const struct cuda_call *c, cudaStream_t stream) {
    const struct pva_cuda_kv kv = cache_of(c, 6, 5);
    const struct pva_attention_shape shape = {
        .n_heads = (int)c->n[1], .n_kv_heads = kv.n_kv_heads, .d_head = kv.d_head, .scale = c->f[0], .softcap = c->f[1], .window = (int)c->n[2],
    };
    return pva_cuda_attention(c->p[0], c->p[1], c->p[2], c->n[0], &shape, &kv, (int)c->n[3], c->p[3], TYPE(4), c->p[4], c->p[5], stream);
}
static int cuda_attention(struct pva_backend *be, struct pva_tensor q, struct pva_tensor slots, struct pva_tensor positions,
                          const struct pva_attention_shape *shape, const struct pva_kv_cache *kv, int layer, struct pva_tensor out,
                          struct pva_error *err) {
    int64_t n = q.rows;
    check_cache(shape, kv, layer);
    PVA_ASSERT(q.cols == shape->n_heads * shape->d_head && out.rows == n && out.cols == q.cols);
    struct cuda_call call = {start_attention, "attention", .p = {f32_of(q), i32_of(slots, n), i32_of(positions, n), either_of(out)},
                             .n = {n, shape->n_heads, shape->window, layer, out.dtype}, .f = {shape->scale, shape->softcap}};
    put_cache(&call, 6, 5, kv);
    const struct pva_cuda_kv cache = cache_of(&call, 6, 5);
    TRY(need_work(be, pva_cuda_attention_bytes(n, shape->n_heads, &cache, shape->window), err));
    call.p[4] = be->work, call.p[5] = be->fault;
    return cuda_calls_add(be->calls, &call, err);
}

static int start_geglu(const struct cuda_call *c, cudaStream_t stream) { return pva_cuda_geglu(c->p[0], c->p[1], c->n[0], c->p[2], TYPE(1), stream); }
static int cuda_geglu(struct pva_backend *be, struct pva_tensor gate, struct pva_tensor up, struct pva_tensor y, struct pva_error *err) {
    PVA_ASSERT(up.rows == gate.rows && up.cols == gate.cols && y.rows == gate.rows && y.cols == gate.cols);
    struct cuda_call *c = product_of(be, (struct pva_tensor[]){gate, up}, 2);
    if (c && !overwrites(c, y)) return c->n[9] = PVA_END_GEGLU, c->n[10] = y.dtype, c->p[8] = either_of(y), PVA_OK;
    return PUT(be, err, start_geglu, "geglu", .p = {f32_of(gate), f32_of(up), either_of(y)}, .n = {gate.rows * gate.cols, y.dtype});
}

static int start_gather_rows(const struct cuda_call *c, cudaStream_t stream) {
    return pva_cuda_gather_rows(c->p[0], c->n[0], c->n[1], c->p[1], c->n[2], c->p[2], c->p[3], stream);
}
static int cuda_gather_rows(struct pva_backend *be, struct pva_tensor src, struct pva_tensor rows, struct pva_tensor dst, struct pva_error *err) {
    PVA_ASSERT(src.cols == dst.cols);
    return PUT(be, err, start_gather_rows, "gather_rows", .p = {f32_of(src), i32_of(rows, dst.rows), f32_of(dst), be->fault},
               .n = {src.rows, src.cols, dst.rows});
}

static int start_add_direction(const struct cuda_call *c, cudaStream_t stream) {
    return pva_cuda_add_direction(c->p[0], c->n[0], c->n[1], c->p[1], c->n[2], c->p[2], c->p[3], c->p[4], stream);
}
static int cuda_add_direction(struct pva_backend *be, struct pva_tensor x, struct pva_tensor directions, struct pva_tensor which,
                              struct pva_tensor coefficients, struct pva_error *err) {
    PVA_ASSERT(directions.cols == x.cols && coefficients.rows == x.rows && coefficients.cols == 1);
    return PUT(be, err, start_add_direction, "add_direction",
               .p = {f32_of(x), f32_of(directions), i32_of(which, x.rows), f32_of(coefficients), be->fault}, .n = {x.rows, x.cols, directions.rows});
}

static int start_ablate_direction(const struct cuda_call *c, cudaStream_t stream) {
    return pva_cuda_ablate_direction(c->p[0], c->n[0], c->n[1], c->p[1], c->n[2], c->p[2], c->p[3], stream);
}
static int cuda_ablate_direction(struct pva_backend *be, struct pva_tensor x, struct pva_tensor directions, struct pva_tensor which,
                                 struct pva_error *err) {
    PVA_ASSERT(directions.cols == x.cols);
    return PUT(be, err, start_ablate_direction, "ablate_direction", .p = {f32_of(x), f32_of(directions), i32_of(which, x.rows), be->fault},
               .n = {x.rows, x.cols, directions.rows});
}

static int start_softcap(const struct cuda_call *c, cudaStream_t stream) { return pva_cuda_softcap(c->p[0], c->n[0], c->f[0], stream); }
static int cuda_softcap(struct pva_backend *be, struct pva_tensor logits, float cap, struct pva_error *err) {
    struct cuda_call *c = product_of(be, &logits, 1);
    if (c) return c->n[9] = PVA_END_SOFTCAP, c->f[0] = cap, PVA_OK;
    return PUT(be, err, start_softcap, "softcap", .p = {f32_of(logits)}, .n = {logits.rows * logits.cols}, .f = {cap});
}

static int start_sample(const struct cuda_call *c, cudaStream_t stream) {
    return pva_cuda_sample(c->p[0], c->n[0], c->n[1], c->p[1], c->p[2], c->p[3], c->p[4], stream);
}
static int cuda_sample(struct pva_backend *be, struct pva_tensor logits, struct pva_tensor temperatures, struct pva_tensor draws,
                       struct pva_tensor tokens, struct pva_error *err) {
    int64_t n = logits.rows, v = logits.cols;
    PVA_ASSERT(v > 0 && temperatures.rows == n && temperatures.cols == 1 && draws.rows == n && draws.dtype == PVA_F64);
    TRY(need_work(be, PVA_CUDA_COUNTERS + pva_cuda_sample_bytes(n, v), err));
    return PUT(be, err, start_sample, "sample", .p = {f32_of(logits), f32_of(temperatures), data_of(draws), i32_of(tokens, n), be->work + PVA_CUDA_COUNTERS},
               .n = {n, v});
}

static int start_jumprelu(const struct cuda_call *c, cudaStream_t stream) {
    return pva_cuda_jumprelu(c->p[0], c->n[0], c->n[1], c->p[1], c->p[2], c->p[3], c->n[2], c->n[3], c->n[4], c->p[4], c->p[5], c->p[6], c->p[7], stream);
}
static int cuda_jumprelu_encode(struct pva_backend *be, struct pva_tensor x, const struct pva_jumprelu *sae, struct pva_tensor indices,
                                struct pva_tensor values, struct pva_tensor tallies, struct pva_error *err) {
    int64_t n = x.rows, d = x.cols, m = sae->w_enc.cols;
    PVA_ASSERT(sae->w_enc.rows == d && sae->b_enc.cols == m && sae->threshold.cols == m && sae->w_enc.offset % sizeof(float) == 0);
    PVA_ASSERT(sae->first >= 0 && sae->count >= 0 && sae->first <= m && sae->count <= m - sae->first);
    PVA_ASSERT(indices.dtype == PVA_I32 && indices.rows == n && indices.cols == sae->count && values.rows == n && values.cols == sae->count);
    PVA_ASSERT(tallies.dtype == PVA_I32 && tallies.rows == n && tallies.cols == PVA_JUMPRELU_TALLIES);
    TRY(need_work(be, PVA_CUDA_COUNTERS + pva_cuda_jumprelu_bytes(n, sae->count), err));
    return PUT(be, err, start_jumprelu, "jumprelu_encode",
               .p = {f32_of(x), f32_of(sae->w_enc), f32_of(sae->b_enc), f32_of(sae->threshold), data_of(indices), f32_of(values), data_of(tallies),
                     be->work + PVA_CUDA_COUNTERS},
               .n = {n, d, m, sae->first, sae->count});
}

static int start_maxt_count(const struct cuda_call *c, cudaStream_t stream) {
    const struct pva_cuda_maxt device = {
        .sets = c->p[0], .groups = c->p[1], .scores = c->p[2], .n_sets = c->n[0], .n_words = c->n[1], .n_groups = c->n[2], .n_levels = c->n[3],
        .n_items = c->n[4], .n1 = c->n[5], .studentised = (int)c->n[6],
    };
    return pva_cuda_maxt_count(&device, c->p[3], c->n[7], c->p[4], c->p[5], (size_t)c->n[8], stream);
}
static int cuda_maxt_count(struct pva_backend *be, const struct pva_maxt *m, struct pva_tensor labels, int64_t n, struct pva_tensor n_at_least,
                           struct pva_error *err) {
    PVA_ASSERT(m->sets.dtype == PVA_U64 && m->groups.dtype == PVA_I32 && m->groups.cols == PVA_MAXT_GROUP && m->scores.dtype == PVA_F64 && m->scores.cols == 1);
    PVA_ASSERT(labels.dtype == PVA_U64 && labels.cols == PVA_MAXT_BLOCK && labels.rows == (n + PVA_MAXT_BLOCK - 1) / PVA_MAXT_BLOCK * m->sets.cols);
    PVA_ASSERT(n_at_least.dtype == PVA_I64 && n_at_least.rows == m->scores.rows && n_at_least.cols == 1);
    size_t bytes = pva_cuda_maxt_bytes(m->groups.rows, n);
    TRY(need_work(be, PVA_CUDA_COUNTERS + bytes, err));
    return PUT(be, err, start_maxt_count, "maxt_count",
               .p = {data_of(m->sets), data_of(m->groups), data_of(m->scores), data_of(labels), data_of(n_at_least), be->work + PVA_CUDA_COUNTERS},
               .n = {m->sets.rows, m->sets.cols, m->groups.rows, m->scores.rows, m->n_items, m->n1, m->studentised, n, (int64_t)bytes});
}

static const struct pva_backend_ops backend_cuda = {
    .name = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .describe = cuda_describe,
    .alloc = cuda_alloc,
    .bind = cuda_bind,
    .free = cuda_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .sync = cuda_sync,
    .readback_open = cuda_readback_open,
    .readback_begin = cuda_readback_begin,
    .readback_wait = cuda_readback_wait,
    .readback_close = cuda_readback_close,
    .convert = cuda_convert,
    .embed = cuda_embed,
    .rmsnorm = cuda_rmsnorm,
    .rmsnorm_add = cuda_rmsnorm_add,
    .rmsnorm_add_rmsnorm = cuda_rmsnorm_add_rmsnorm,
    .linear = cuda_linear,
    .linears = cuda_linears,
    .rope_store = cuda_rope_store,
    .attention = cuda_attention,
    .geglu = cuda_geglu,
    .gather_rows = cuda_gather_rows,
    .add_direction = cuda_add_direction,
    .ablate_direction = cuda_ablate_direction,
    .softcap = cuda_softcap,
    .sample = cuda_sample,
    .jumprelu_encode = cuda_jumprelu_encode,
    .maxt_count = cuda_maxt_count,
    .count = cuda_count,
    .spd = &pva_spd_ops_cuda,
};

const struct pva_backend_ops *pva_backend_cuda_find(struct pva_error *err) {
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (!status && count > 0) return &backend_cuda;
    no_device(status, err);
    return NULL;
}

/* ---- for the other table ---- */

/* What starts kernels by itself comes after the operations that wait. */
struct CUstream_st *pva_cuda_stream(struct pva_backend *be) {
    struct pva_error err = {0};
    if (cuda_calls_start(be->calls, &err) && !be->late.code) be->late = err;
    return be->stream;
}

void *pva_cuda_address(const struct pva_buffer *buffer) { return buffer->data; }

int pva_cuda_work(struct pva_backend *be, size_t bytes, void **work, struct pva_error *err) {
    TRY(need_work(be, PVA_CUDA_COUNTERS + bytes, err));
    *work = be->work + PVA_CUDA_COUNTERS;
    return PVA_OK;
}

int pva_cuda_send(struct pva_backend *be, void *to, const void *host, size_t bytes, struct pva_error *err) { return to_device(be, to, host, bytes, err); }

int pva_cuda_receive(struct pva_backend *be, void *host, const void *from, size_t bytes, struct pva_error *err) {
    struct pva_buffer whole = {(char *)from, bytes};
    return cuda_download(be, (struct pva_tensor){&whole, 0, PVA_U8, 1, (int64_t)bytes}, host, err);
}

int pva_cuda_started(const struct pva_backend *be, int status, const char *stage, struct pva_error *err) { return START(be, stage, status, err); }
