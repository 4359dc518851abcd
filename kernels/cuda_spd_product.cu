/* cuda_spd_product.cu - the matrix products of a decomposition: with samples, over samples, and of matrices alone. */
#include "cuda_spd_math.cuh"

namespace {

enum { OUTPUTS = 4, WARPS = SPD_THREADS / 32 }; /* outputs of a thread; a warp has 32 samples */

__global__ void __launch_bounds__(SPD_THREADS) matmul(int n, int ld, int n_in, int n_out, const float *e, int stride_in, int stride_out, const float *in,
                                                       float *out) {
    const int s = (int)blockIdx.x * 32 + (int)threadIdx.x % 32, first = ((int)blockIdx.y * WARPS + (int)threadIdx.x / 32) * OUTPUTS;
    if (s >= n || first >= n_out) return;
    float sum[OUTPUTS];
    const float *column[OUTPUTS];
#pragma unroll
    for (int q = 0; q < OUTPUTS; q++) {
        const int j = first + q < n_out ? first + q : n_out - 1;
        column[q] = e + (size_t)j * stride_out;
        sum[q] = out[(size_t)j * ld + s];
    }
    for (int i = 0; i < n_in; i++) {
        const float x = in[(size_t)i * ld + s];
#pragma unroll
        for (int q = 0; q < OUTPUTS; q++) sum[q] = fmaf(column[q][(size_t)i * stride_in], x, sum[q]);
    }
#pragma unroll
    for (int q = 0; q < OUTPUTS; q++)
        if (first + q < n_out) out[(size_t)(first + q) * ld + s] = sum[q];
}

enum { TILE = 4 }; /* rows and columns of de that sixteen threads add up; one thread keeps each sum */

__global__ void __launch_bounds__(SPD_THREADS) outer(int n, int ld, int n_in, int n_out, const float *in, const float *dout, float *de) {
    const int lane = (int)threadIdx.x % SPD_LANES, tiles_j = (n_out + TILE - 1) / TILE, tiles = (n_in + TILE - 1) / TILE * tiles_j;
    const int tile = (int)blockIdx.x * SPD_SUMS + (int)threadIdx.x / SPD_LANES, known = tile < tiles ? tile : tiles - 1;
    const int i0 = known / tiles_j * TILE, j0 = known % tiles_j * TILE;
    const float *rows[TILE], *columns[TILE];
    float sum[TILE * TILE] = {}, mine = 0;
#pragma unroll
    for (int q = 0; q < TILE; q++) {
        rows[q] = in + (size_t)(i0 + q < n_in ? i0 + q : n_in - 1) * ld;
        columns[q] = dout + (size_t)(j0 + q < n_out ? j0 + q : n_out - 1) * ld;
    }
    for (int s = lane; s < n; s += SPD_LANES) {
        float x[TILE], y[TILE];
#pragma unroll
        for (int q = 0; q < TILE; q++) x[q] = rows[q][s], y[q] = columns[q][s];
#pragma unroll
        for (int q = 0; q < TILE * TILE; q++) sum[q] = fmaf(x[q / TILE], y[q % TILE], sum[q]);
    }
#pragma unroll
    for (int q = 0; q < TILE * TILE; q++) {
        const float joined = join_lanes(sum[q]);
        if (lane == q) mine = joined;
    }
    const int i = i0 + lane / TILE, j = j0 + lane % TILE;
    if (tile < tiles && i < n_in && j < n_out) de[(size_t)i * n_out + j] += mine;
}

enum { SIDE = 32, ROWS = 8 }; /* a block has SIDE x SIDE outputs, a thread SIDE / ROWS of one column */

struct product_args {
    int n_i, n_k, n_j;
    const float *a, *b;
    ptrdiff_t a_row, a_col, b_row, b_col, out_row;
    float *out;
};

__global__ void __launch_bounds__(SIDE *ROWS) product(const product_args p) {
    __shared__ float a[SIDE][SIDE + 1], b[SIDE][SIDE + 1];
    const int x = (int)threadIdx.x % SIDE, y = (int)threadIdx.x / SIDE, i0 = (int)blockIdx.y * SIDE, j = (int)blockIdx.x * SIDE + x;
    float sum[SIDE / ROWS];
#pragma unroll
    for (int q = 0; q < SIDE / ROWS; q++) {
        const int i = i0 + y + q * ROWS;
        sum[q] = i < p.n_i && j < p.n_j ? p.out[i * p.out_row + j] : 0.0f;
    }
    for (int k0 = 0; k0 < p.n_k; k0 += SIDE) {
        const int depth = p.n_k - k0 < SIDE ? p.n_k - k0 : SIDE;
#pragma unroll
        for (int q = 0; q < SIDE; q += ROWS) { /* neighbouring threads read what lies side by side */
            const int i = p.a_col == 1 ? y + q : x, ka = p.a_col == 1 ? x : y + q;
            a[i][ka] = i0 + i < p.n_i && ka < depth ? p.a[(i0 + i) * p.a_row + (k0 + ka) * p.a_col] : 0.0f;
            const int c = p.b_col == 1 ? x : y + q, kb = p.b_col == 1 ? y + q : x, column = (int)blockIdx.x * SIDE + c;
            b[kb][c] = column < p.n_j && kb < depth ? p.b[(k0 + kb) * p.b_row + column * p.b_col] : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < depth; k++) { /* not beyond n_k: adding 0 would turn -0 into 0 */
            const float right = b[k][x];
#pragma unroll
            for (int q = 0; q < SIDE / ROWS; q++) sum[q] = fmaf(a[y + q * ROWS][k], right, sum[q]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int q = 0; q < SIDE / ROWS; q++) {
        const int i = i0 + y + q * ROWS;
        if (i < p.n_i && j < p.n_j) p.out[i * p.out_row + j] = sum[q];
    }
}

} // namespace

int pva_cuda_spd_matmul(int n, int ld, int n_in, int n_out, const float *e, int stride_in, int stride_out, const float *in, float *out,
                        cudaStream_t stream) {
    if (n == 0 || n_out == 0) return 0;
    const dim3 grid((unsigned)((n + 31) / 32), (unsigned)((n_out + WARPS * OUTPUTS - 1) / (WARPS * OUTPUTS)));
    PVA_LAUNCH(matmul, grid, SPD_THREADS, 0, stream, n, ld, n_in, n_out, e, stride_in, stride_out, in, out);
    return launch_status();
}

int pva_cuda_spd_outer(int n, int ld, int n_in, int n_out, const float *in, const float *dout, float *de, cudaStream_t stream) {
    const int tiles = ((n_in + TILE - 1) / TILE) * ((n_out + TILE - 1) / TILE);
    if (tiles == 0) return 0;
    PVA_LAUNCH(outer, (unsigned)((tiles + SPD_SUMS - 1) / SPD_SUMS), SPD_THREADS, 0, stream, n, ld, n_in, n_out, in, dout, de);
    return launch_status();
}

int pva_cuda_spd_product(int n_i, int n_k, int n_j, const float *a, ptrdiff_t a_row, ptrdiff_t a_col, const float *b, ptrdiff_t b_row, ptrdiff_t b_col,
                         float *out, ptrdiff_t out_row, cudaStream_t stream) {
    if (n_i == 0 || n_j == 0) return 0;
    const product_args p = {n_i, n_k, n_j, a, b, a_row, a_col, b_row, b_col, out_row, out};
    const dim3 grid((unsigned)((n_j + SIDE - 1) / SIDE), (unsigned)((n_i + SIDE - 1) / SIDE));
    PVA_LAUNCH(product, grid, SIDE *ROWS, 0, stream, p);
    return launch_status();
}
