/* cuda_spd_gate.cu - one small network per component: forward, and backward to its parameters and its input.
 *
 * Of a sample's forward and of its backward to the input one thread does everything, in the CPU's order. A parameter's gradient is a sum over samples, with
 * sixteen threads for its lanes. The scalar gate with one hidden layer, which all registered toys have, needs no memory between the two; deeper ones keep
 * their layers in the work memory, component after component where it has no room for all. */
#include "cuda_spd_math.cuh"

namespace {

struct gate_args {
    int n, ld, n_components, in_step;
    spd_gate_shape g;
    const float *params, *in, *draw;
    float *raw, *cache, *dparams, *din;
    /* deeper gates: [n_components][width][n] of each; dx [n_components][d[0]][n] where components share their input */
    int width;
    float *z, *active, *dz, *dx;
};

/* ---- scalar in, one hidden layer ---- */

__global__ void __launch_bounds__(SPD_THREADS) forward_one(const gate_args a) {
    const int s = (int)blockIdx.x * SPD_THREADS + (int)threadIdx.x, c = (int)blockIdx.y, hidden = a.g.d[1];
    if (s >= a.n) return;
    const float *w0 = a.params + (size_t)c * a.g.n_params, *b0 = w0 + hidden, *w1 = b0 + hidden;
    const float h = a.in[(size_t)c * a.in_step + s];
    float sum = w1[hidden];
    for (int k = 0; k < hidden; k++) {
        const float z = fmaf(w0[k], h, b0[k]), cdf = normal_cdf(z);
        if (a.cache) a.cache[((size_t)c * hidden + k) * a.ld + s] = cdf;
        sum = fmaf(w1[k] * z, cdf, sum);
    }
    a.raw[(size_t)c * a.ld + s] = sum;
}

/* Sixteen threads per hidden unit of each component, and per last bias. */
__global__ void __launch_bounds__(SPD_THREADS) backward_one(const gate_args a) {
    const int lane = (int)threadIdx.x % SPD_LANES, hidden = a.g.d[1], units = hidden + 1;
    const int64_t unit = (int64_t)blockIdx.x * SPD_SUMS + (int)threadIdx.x / SPD_LANES, all = (int64_t)a.n_components * units;
    const int64_t known = unit < all ? unit : all - 1;
    const int c = (int)(known / units), k = (int)(known % units);
    const float *w0 = a.params + (size_t)c * a.g.n_params, *draw = a.draw + (size_t)c * a.ld, *in = a.in + (size_t)c * a.in_step;
    float s0 = 0, sb = 0, s1 = 0;
    if (k == hidden) {
        for (int s = lane; s < a.n; s += SPD_LANES) s1 += draw[s];
    } else {
        const float w = w0[k], b = w0[hidden + k], u = w0[2 * hidden + k];
        const float *cache = a.cache ? a.cache + ((size_t)c * hidden + k) * a.ld : NULL;
        for (int s = lane; s < a.n; s += SPD_LANES) {
            const float h = in[s], d = draw[s], z = fmaf(w, h, b), cdf = cache ? cache[s] : normal_cdf(z);
            s1 = fmaf(d, z * cdf, s1);
            const float dz = d * u * fmaf(z, normal_density(z), cdf);
            sb += dz;
            s0 = fmaf(dz, h, s0);
        }
    }
    s0 = join_lanes(s0), sb = join_lanes(sb), s1 = join_lanes(s1);
    if (lane || unit >= all) return;
    float *dparams = a.dparams + (size_t)c * a.g.n_params;
    if (k < hidden) dparams[k] += s0, dparams[hidden + k] += sb;
    dparams[2 * hidden + k] += s1;
}

/* The input's gradient; where components share it, one thread takes them one after the other. */
__global__ void __launch_bounds__(SPD_THREADS) input_one(const gate_args a) {
    const int s = (int)blockIdx.x * SPD_THREADS + (int)threadIdx.x, hidden = a.g.d[1];
    if (s >= a.n) return;
    const int first = (int)blockIdx.y, end = a.in_step ? first + 1 : a.n_components;
    float *din = a.din + (size_t)first * a.in_step + s, sum = *din;
    for (int c = first; c < end; c++) {
        const float *w0 = a.params + (size_t)c * a.g.n_params, h = a.in[(size_t)c * a.in_step + s], d = a.draw[(size_t)c * a.ld + s];
        for (int k = 0; k < hidden; k++) {
            const float w = w0[k], z = fmaf(w, h, w0[hidden + k]), cdf = a.cache ? a.cache[((size_t)c * hidden + k) * a.ld + s] : normal_cdf(z);
            sum = fmaf(d * w0[2 * hidden + k] * fmaf(z, normal_density(z), cdf), w, sum);
        }
    }
    *din = sum;
}

/* ---- any depth, any width ---- */

/* z and gelu(z) of all hidden layers; returns the last value. */
__device__ __forceinline__ float run_layers(const gate_args &a, int c, int s) {
    const float *w = a.params + (size_t)c * a.g.n_params, *in = a.in + (size_t)c * a.in_step + s;
    float *z = a.z + (size_t)c * a.width * a.n + s, *active = a.active + (size_t)c * a.width * a.n + s;
    float last = 0;
    for (int l = 0, below = 0, at = 0; l < a.g.n_layers; l++) {
        const int d_in = a.g.d[l], d_out = a.g.d[l + 1];
        for (int k = 0; k < d_out; k++) {
            float sum = w[d_in * d_out + k];
            for (int i = 0; i < d_in; i++) sum = fmaf(w[i * d_out + k], l ? active[(size_t)(below + i) * a.n] : in[(size_t)i * a.ld], sum);
            z[(size_t)(at + k) * a.n] = last = sum;
            active[(size_t)(at + k) * a.n] = sum * normal_cdf(sum);
        }
        below = at, at += d_out;
        w += d_in * d_out + d_out;
    }
    return last;
}

__global__ void __launch_bounds__(SPD_THREADS) forward_deep(const gate_args a) {
    const int s = (int)blockIdx.x * SPD_THREADS + (int)threadIdx.x, c = (int)blockIdx.y;
    if (s < a.n) a.raw[(size_t)c * a.ld + s] = run_layers(a, c, s);
}

__global__ void __launch_bounds__(SPD_THREADS) backward_deep(const gate_args a) {
    const int s = (int)blockIdx.x * SPD_THREADS + (int)threadIdx.x, c = (int)blockIdx.y;
    if (s >= a.n) return;
    run_layers(a, c, s);
    const float *z = a.z + (size_t)c * a.width * a.n + s, *w = a.params + (size_t)c * a.g.n_params + a.g.n_params;
    float *dz = a.dz + (size_t)c * a.width * a.n + s;
    int top = a.width - 1;
    dz[(size_t)top * a.n] = a.draw[(size_t)c * a.ld + s];
    for (int l = a.g.n_layers - 1; l >= 0; l--) { /* dz[top...] belongs to this layer's output */
        const int d_in = a.g.d[l], d_out = a.g.d[l + 1], below = top - d_in;
        w -= d_in * d_out + d_out;
        if (l == 0 && !a.din) return;
        for (int i = 0; i < d_in; i++) {
            float dx = 0;
            for (int k = 0; k < d_out; k++) dx = fmaf(w[i * d_out + k], dz[(size_t)(top + k) * a.n], dx);
            if (l) {
                const float v = z[(size_t)(below + i) * a.n];
                dz[(size_t)(below + i) * a.n] = dx * fmaf(v, normal_density(v), normal_cdf(v));
            } else if (a.in_step) {
                a.din[(size_t)c * a.in_step + (size_t)i * a.ld + s] += dx;
            } else {
                a.dx[((size_t)c * d_in + i) * a.n + s] = dx;
            }
        }
        top = below;
    }
}

/* Sixteen threads per parameter: the sum of each sixteen samples is added before the next, as on the CPU. */
__global__ void __launch_bounds__(SPD_THREADS) params_deep(const gate_args a) {
    const int lane = (int)threadIdx.x % SPD_LANES;
    const int64_t sum = (int64_t)blockIdx.x * SPD_SUMS + (int)threadIdx.x / SPD_LANES, all = (int64_t)a.n_components * a.g.n_params;
    const int64_t known = sum < all ? sum : all - 1;
    const int c = (int)(known / a.g.n_params);
    int left = (int)(known % a.g.n_params), l = 0, below = 0, at = 0;
    while (left >= (a.g.d[l] + 1) * a.g.d[l + 1]) {
        left -= (a.g.d[l] + 1) * a.g.d[l + 1];
        below = at, at += a.g.d[++l];
    }
    const int i = left / a.g.d[l + 1]; /* d[l]: the bias */
    const float *dz = a.dz + ((size_t)c * a.width + at + left % a.g.d[l + 1]) * a.n;
    const float *x = l ? a.active + ((size_t)c * a.width + below + i) * a.n : a.in + (size_t)c * a.in_step + (size_t)i * a.ld;
    float total = a.dparams[known];
    for (int s = lane; s < a.n; s += SPD_LANES) total += join_lanes(i < a.g.d[l] ? dz[s] * x[s] : dz[s]);
    if (lane == 0 && sum < all) a.dparams[known] = total;
}

__global__ void __launch_bounds__(SPD_THREADS) join_inputs(const gate_args a) {
    const int s = (int)blockIdx.x * SPD_THREADS + (int)threadIdx.x, i = (int)blockIdx.y;
    if (s >= a.n) return;
    float *din = a.din + (size_t)i * a.ld + s, sum = *din;
    for (int c = 0; c < a.n_components; c++) sum += a.dx[((size_t)c * a.g.d[0] + i) * a.n + s];
    *din = sum;
}

/* ---- */

bool is_scalar(const spd_gate_shape *g) { return g->n_layers == 2 && g->d[0] == 1; }

int width_of(const spd_gate_shape *g) {
    int width = 0;
    for (int l = 0; l < g->n_layers; l++) width += g->d[l + 1];
    return width;
}

size_t component_bytes(int n, const spd_gate_shape *g) { return (size_t)(3 * width_of(g) + g->d[0]) * (size_t)n * sizeof(float); }

dim3 samples_by(int n, int rows) { return dim3((unsigned)((n + SPD_THREADS - 1) / SPD_THREADS), (unsigned)rows); }
unsigned sums_of(int64_t n) { return (unsigned)((n + SPD_SUMS - 1) / SPD_SUMS); }

/* The components from `first` on that the work memory has room for. */
gate_args part_of(const gate_args &all, int first, void *work, size_t work_bytes) {
    gate_args a = all;
    const size_t room = work_bytes / component_bytes(all.n, &all.g), left = (size_t)(all.n_components - first);
    a.n_components = (int)(left < room ? left : room);
    a.params += (size_t)first * a.g.n_params, a.in += (size_t)first * a.in_step;
    if (a.raw) a.raw += (size_t)first * a.ld;
    if (a.draw) a.draw += (size_t)first * a.ld;
    if (a.dparams) a.dparams += (size_t)first * a.g.n_params;
    if (a.din) a.din += (size_t)first * a.in_step;
    a.width = width_of(&a.g);
    const size_t numbers = (size_t)a.n_components * (size_t)a.width * (size_t)a.n;
    a.z = (float *)work, a.active = a.z + numbers, a.dz = a.active + numbers, a.dx = a.dz + numbers;
    return a;
}

} // namespace

size_t pva_cuda_spd_gate_bytes(int n, int n_components, const struct spd_gate_shape *g) {
    const size_t one = component_bytes(n, g), most = (size_t)64 << 20, room = most / (one ? one : 1);
    if (is_scalar(g)) return 0;
    return (room < 1 ? 1 : room < (size_t)n_components ? room : (size_t)n_components) * one;
}

int pva_cuda_spd_gate_forward(int n, int ld, int n_components, const struct spd_gate_shape *g, const float *params, const float *in, int in_step, float *raw,
                              float *cache, void *work, size_t work_bytes, cudaStream_t stream) {
    gate_args all = {};
    all.n = n, all.ld = ld, all.n_components = n_components, all.in_step = in_step, all.g = *g;
    all.params = params, all.in = in, all.raw = raw, all.cache = cache;
    if (n == 0 || n_components == 0) return 0;
    if (is_scalar(g)) {
        PVA_LAUNCH(forward_one, samples_by(n, n_components), SPD_THREADS, 0, stream, all);
        return launch_status();
    }
    int status = 0;
    for (int first = 0; first < n_components && !status;) {
        const gate_args a = part_of(all, first, work, work_bytes);
        PVA_LAUNCH(forward_deep, samples_by(n, a.n_components), SPD_THREADS, 0, stream, a);
        status = launch_status();
        first += a.n_components;
    }
    return status;
}

int pva_cuda_spd_gate_backward(int n, int ld, int n_components, const struct spd_gate_shape *g, const float *params, const float *in, int in_step,
                               const float *cache, const float *draw, float *dparams, float *din, void *work, size_t work_bytes, cudaStream_t stream) {
    gate_args all = {};
    all.n = n, all.ld = ld, all.n_components = n_components, all.in_step = in_step, all.g = *g;
    all.params = params, all.in = in, all.cache = const_cast<float *>(cache), all.draw = draw, all.dparams = dparams, all.din = din;
    if (n == 0 || n_components == 0) return 0;
    if (is_scalar(g)) {
        PVA_LAUNCH(backward_one, sums_of((int64_t)n_components * (g->d[1] + 1)), SPD_THREADS, 0, stream, all);
        const int status = launch_status();
        if (status || !din) return status;
        PVA_LAUNCH(input_one, samples_by(n, in_step ? n_components : 1), SPD_THREADS, 0, stream, all);
        return launch_status();
    }
    int status = 0;
    for (int first = 0; first < n_components && !status;) {
        const gate_args a = part_of(all, first, work, work_bytes);
        PVA_LAUNCH(backward_deep, samples_by(n, a.n_components), SPD_THREADS, 0, stream, a);
        status = launch_status();
        if (!status) {
            PVA_LAUNCH(params_deep, sums_of((int64_t)a.n_components * g->n_params), SPD_THREADS, 0, stream, a);
            status = launch_status();
        }
        if (!status && din && !in_step) {
            PVA_LAUNCH(join_inputs, samples_by(n, g->d[0]), SPD_THREADS, 0, stream, a);
            status = launch_status();
        }
        first += a.n_components;
    }
    return status;
}
