/* bench count: what a decode step and a prompt take by the graph alone, without running anything: kernels started, bytes, operations, and the
 * least time on the devices the program is written for. Bandwidth and rate are the makers' figures, so these are floors. */
#include "bench.h"

#include "pva/model_config.h"

#include <stdio.h>
#include <string.h>

/* A layer's kernels: product of q, k, v; rotation; attention; its product; norm, sum and norm; product of gate and up with GeGLU; its product; norm, sum
 * and norm. Outside of the layers: embedding and first norm; gather, norm and soft-capped product of the head; three of sampling. Copies: all that the
 * device is told about the step; tokens and fault word back. twin_graph holds the backend to this. */
enum { OF_A_LAYER = 8, OUTSIDE = 8, COPIES = 3 };

static const struct {
    const char *name;
    double bandwidth, rate; /* bytes/s; bfloat16 operations/s, dense */
} devices[] = {{"H200", 4.8e12, 989e12}, {"H100", 3.35e12, 989e12}, {"A100 80 GB", 2.04e12, 312e12}};

/* Seconds between two kernels that depend on each other: each started by the host, as nodes of one graph. Assumed, to be replaced by what
 * tests/gpu/measure.sh finds. */
static const double GAP_LAUNCH = 3e-6, GAP_GRAPH = 1e-6;

static double window_sum(double context, int window) { return window > 0 && context > window ? window : context; }

int bench_count(const struct pva_options *o, struct pva_error *err) {
    const char *model = pva_options_text(o, "model");
    struct pva_model_config c;
    if (pva_options_require(o, "model", err)) return err->code;
    if (strchr(model, '/') || strchr(model, '.') ? pva_model_config_read(model, &c, err) : pva_model_config_preset(model, &c, err)) return err->code;
    const double batch = (double)pva_options_int(o, "batch-size"), context = (double)pva_options_int(o, "prompt-tokens");
    const double element = strcmp(pva_options_text(o, "dtype"), "f32") ? 2 : 4, layers = c.n_layers, d = c.d_model, f = c.d_ff, vocab = c.n_vocab;
    const double heads = (double)c.n_heads * c.d_head, kv_heads = (double)c.n_kv_heads * c.d_head;
    const double head_weights = vocab * d, body = (double)pva_model_config_n_parameters(&c) - head_weights;
    /* Even layers see a window of the context. */
    const double seen = (double)((c.n_layers + 1) / 2) * window_sum(context, c.window) + (double)(c.n_layers / 2) * context;
    const double weights = element * (body + head_weights), kv = batch * element * 2 * kv_heads * (seen + layers);
    /* Each kernel's reads and writes, the weights and the cache apart; most of it stays in a cache of the device. */
    const double of_layer = 2 * (12 + element) * d + 2 * element * d + 4 * (heads + 2 * kv_heads) + 8 * heads + 8 * kv_heads + (4 + element) * heads +
                            (element * heads + 4 * d) + 2 * element * f + 4 * d;
    const double of_head = (12 + 2 * element) * d + 12 * vocab, activations = batch * (layers * of_layer + of_head);
    const double flops = batch * (2 * (body + head_weights) + 4 * heads * seen);
    const int kernels = c.n_layers * OF_A_LAYER + OUTSIDE;
    printf("%d layers, d_model %d, %s; %.0f sequence%s, context %.0f\n", c.n_layers, c.d_model, element == 2 ? "bf16" : "f32", batch, batch > 1 ? "s" : "", context);
    printf("decode step: %d kernels (%d a layer, %d outside), %d copies, %.0f GFLOP\n", kernels, OF_A_LAYER, OUTSIDE, COPIES, flops / 1e9);
    printf("bytes: weights %.3f GB, keys and values %.3f GB, activations %.3f GB (of which logits %.3f GB)\n", weights / 1e9, kv / 1e9, activations / 1e9,
           batch * 12 * vocab / 1e9);
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        const double reading = (weights + kv) / devices[i].bandwidth, counting = flops / devices[i].rate, floor = reading > counting ? reading : counting;
        const double plain = floor + kernels * GAP_LAUNCH, graph = floor + kernels * GAP_GRAPH;
        printf("%-10s floor %7.3f ms, %8.0f tokens/s; with %.0f us between kernels %7.3f ms (%2.0f %%), with %.0f us %7.3f ms (%2.0f %%)\n", devices[i].name, 1e3 * floor,
               batch / floor, 1e6 * GAP_LAUNCH, 1e3 * plain, 100 * floor / plain, 1e6 * GAP_GRAPH, 1e3 * graph, 100 * floor / graph);
    }
    const double tokens = batch * context, prefill = tokens * 2 * body + batch * 2 * heads * context * seen;
    printf("prompts: %.1f TFLOP without the head; at 60 %% of 989 TFLOP/s %.1f ms\n", prefill / 1e12, 1e3 * prefill / (0.6 * 989e12));
    return PVA_OK;
}
