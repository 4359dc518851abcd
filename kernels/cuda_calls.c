#include "cuda_calls.h"

#include <stdlib.h>
#include <string.h>

/* A decode step of Gemma 2 27B has 46 * 8 + 6 calls, with a hook at every point three times 46 more. Batches of different sizes are different
 * lists: as many graphs as a generator with 32 slots needs to run empty. */
enum { MOST_CALLS = 1024, FEWEST_OF_GRAPH = 4, MOST_GRAPHS = 32, MOST_SEEN = 64 };

struct graph {
    struct cuda_call *calls;
    int n;
    cudaGraphExec_t exec;
    uint64_t used; /* when, in starts */
};

struct cuda_calls {
    int device, graphs_on;
    cudaStream_t stream;
    struct cuda_call waiting[MOST_CALLS];
    int n;
    struct graph graphs[MOST_GRAPHS];
    uint64_t seen[MOST_SEEN]; /* digests of lists that came once: most prompts' do not come again */
    uint64_t starts;
};

struct cuda_calls *cuda_calls_open(int device, cudaStream_t stream, int graphs) {
    struct cuda_calls *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->device = device, c->stream = stream, c->graphs_on = graphs;
    return c;
}

static void drop(struct graph *g) {
    if (g->exec) cudaGraphExecDestroy(g->exec);
    free(g->calls);
    *g = (struct graph){0};
}

void cuda_calls_close(struct cuda_calls **calls) {
    if (!*calls) return;
    for (int i = 0; i < MOST_GRAPHS; i++) drop(&(*calls)->graphs[i]);
    free(*calls);
    *calls = NULL;
}

int cuda_calls_add(struct cuda_calls *c, const struct cuda_call *call, struct pva_error *err) {
    if (c->n == MOST_CALLS && cuda_calls_start(c, err)) return err->code;
    c->waiting[c->n++] = *call;
    return PVA_OK;
}

struct cuda_call *cuda_calls_last(struct cuda_calls *c) { return c->n ? &c->waiting[c->n - 1] : NULL; }

static uint64_t digest(const struct cuda_call *calls, int n) {
    uint64_t h = (uint64_t)n, word;
    const char *bytes = (const char *)calls;
    for (size_t i = 0; i < (size_t)n * sizeof *calls; i += sizeof word) {
        memcpy(&word, bytes + i, sizeof word);
        h = (h ^ word) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 29;
    }
    return h;
}

static struct graph *find(struct cuda_calls *c) {
    for (int i = 0; i < MOST_GRAPHS; i++) {
        struct graph *g = &c->graphs[i];
        if (g->n == c->n && !memcmp(g->calls, c->waiting, (size_t)c->n * sizeof *c->waiting)) return g;
    }
    return NULL;
}

/* Whether this list came before; from now on it has. */
static int came_before(struct cuda_calls *c) {
    uint64_t d = digest(c->waiting, c->n);
    for (int i = 0; i < MOST_SEEN; i++)
        if (c->seen[i] == d) return 1;
    c->seen[c->starts % MOST_SEEN] = d;
    return 0;
}

/* The waiting calls as a graph, in the place of the one that was used longest ago. NULL: this device or driver makes none of them. */
static struct graph *make(struct cuda_calls *c) {
    struct graph *g = &c->graphs[0], new = {.n = c->n};
    cudaGraph_t captured = NULL;
    for (int i = 1; i < MOST_GRAPHS; i++)
        if (c->graphs[i].used < g->used) g = &c->graphs[i];
    new.calls = malloc((size_t)c->n * sizeof *new.calls);
    if (!new.calls) return NULL;
    memcpy(new.calls, c->waiting, (size_t)c->n * sizeof *new.calls);
    cudaError_t status = cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal);
    if (!status) {
        int refused = 0;
        for (int i = 0; i < c->n && !refused; i++) refused = c->waiting[i].start(&c->waiting[i], c->stream);
        status = cudaStreamEndCapture(c->stream, &captured);
        if (refused) status = (cudaError_t)refused;
    }
    if (!status) status = cudaGraphInstantiateWithFlags(&new.exec, captured, 0);
    if (captured) cudaGraphDestroy(captured);
    if (status) {
        cudaGetLastError(); /* else the next launch would report it */
        drop(&new);
        return NULL;
    }
    if (g->exec) cudaStreamSynchronize(c->stream); /* it may still run */
    drop(g);
    *g = new;
    return g;
}

static int failed(const struct cuda_calls *c, int status, const char *stage, struct pva_error *err) {
    return pva_fail(err, PVA_IO, "GPU %d, %s: %s (%s)", c->device, stage, cudaGetErrorName((cudaError_t)status), cudaGetErrorString((cudaError_t)status));
}

int cuda_calls_start(struct cuda_calls *c, struct pva_error *err) {
    int n = c->n, status = 0;
    if (!n) return PVA_OK;
    c->starts++;
    if (c->graphs_on && n >= FEWEST_OF_GRAPH) {
        struct graph *g = find(c);
        if (!g && came_before(c) && !(g = make(c))) c->graphs_on = 0;
        if (g) {
            c->n = 0;
            g->used = c->starts;
            status = (int)cudaGraphLaunch(g->exec, c->stream);
            return status ? failed(c, status, "a graph of operations", err) : PVA_OK;
        }
    }
    c->n = 0;
    for (int i = 0; i < n; i++)
        if ((status = c->waiting[i].start(&c->waiting[i], c->stream))) return failed(c, status, c->waiting[i].stage, err);
    return PVA_OK;
}
