/* sae.h - JumpReLU sparse autoencoders: GemmaScope's files, encoding, rows of the decoder.
 *
 *   z = x W_enc + b_enc (b_dec is not subtracted)      a = z where z > threshold (strictly), else 0      x' = a W_dec + b_dec
 *
 * (Rajamanoharan et al., "Jumping Ahead", 2024; GemmaScope's tutorial.) `layer_L` of a residual-stream release reads resid_post[L]. Products are float32 with
 * float32 sums, whatever the model runs in: a latent near its threshold is decided by the last digits, so how many are near is counted.
 */
#ifndef PVA_SAE_H
#define PVA_SAE_H

#include "pva/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One autoencoder on disk. */
struct pva_sae_file {
    char path[3072];
    int layer;
    int64_t n_latents; /* of the file itself: its header is read */
    double l0;         /* from the folder's name, average_l0_82; NaN when the file does not say */
};

/* Finds one autoencoder for each marked layer below `directory`, at any depth: layer_N/width_W/average_l0_X/params.npz, or SAELens' sae_weights.safetensors below
 * layer_N or blocks.N.hook_resid_post.
 * width: "16k", "131k" ...; NULL: the only one there is (several are PVA_USAGE). l0: NULL or "canonical" (the release's table when its name, such as
 * gemma-scope-2b-pt-res, is in the path; else closest to 100), "smallest", "largest", or a number (the closest); ties go to the smaller L0, then to the first
 * path. layers: marks [n_layers]. out: [n_layers], entry L belongs to layer L, those of unmarked layers have an empty path. A marked layer without one is
 * PVA_INPUT and names it. The files chosen are opened once, so a damaged one is found here. */
int pva_sae_scan(const char *directory, const char *width, const char *l0, int n_layers, const unsigned char *layers, struct pva_sae_file *out,
                 struct pva_error *err);

struct pva_sae;

/* Maps the file; reads thresholds and biases, nothing else. path: params.npz or a safetensors file or its folder. PVA_INPUT for a missing key, a shape or type that
 * does not fit, a damaged file. Weights are checked for NaN when they are read. */
int pva_sae_open(const char *path, struct pva_sae **out, struct pva_error *err);
void pva_sae_close(struct pva_sae **sae);

int64_t pva_sae_d_model(const struct pva_sae *sae);
int64_t pva_sae_n_latents(const struct pva_sae *sae);
size_t pva_sae_bytes(const struct pva_sae *sae); /* read by an encoding: W_enc and the vectors */
const char *pva_sae_path(const struct pva_sae *sae); /* of the weights */
const float *pva_sae_thresholds(const struct pva_sae *sae); /* [n_latents] */

/* Asks the system to read W_enc into memory in the background: call it for the next layer's file, then encode with this one's. */
void pva_sae_read_ahead(const struct pva_sae *sae);

/* out [d_model]: row `latent` of W_dec as it is stored (about, not exactly, of unit length). */
int pva_sae_decoder_row(const struct pva_sae *sae, int64_t latent, float *out, struct pva_error *err);

/* Active latents of n rows, compressed by row: row i holds entries indptr[i] .. indptr[i+1], latents ascending. */
struct pva_sparse {
    int64_t n_rows, n_latents;
    int64_t *indptr;  /* [n_rows + 1] */
    int32_t *indices; /* [indptr[n_rows]] */
    float *data;      /* [indptr[n_rows]], > threshold */
    int64_t n_near;   /* pairs with |z - threshold| < 1e-3 |threshold| */
};
void pva_sparse_free(struct pva_sparse *s);

/* x: [n, d_model] in host memory, finite. The dense [n, n_latents] is never written. A row's result does not depend on the other rows, the number of
 * threads or the CPU's instruction set (backend.h, jumprelu_encode). W_enc is used where it is mapped; a compressed, column-major or not float32 one is
 * converted once and kept. A W_enc with a NaN or an infinity is PVA_INPUT and names the latent.
 * Besides the result it takes at most 32 MiB on the host, and on the device 32 MiB, 4096 rows of x, and W_enc (a GPU) or about 2 MiB a thread (the CPU). Not for several threads with one `sae`. */
int pva_sae_encode(const struct pva_sae *sae, const struct pva_backend_ops *ops, struct pva_backend *be, const float *x, int64_t n,
                   struct pva_sparse *out, struct pva_error *err);

/* x' [n, d_model] from encoded rows. */
int pva_sae_decode(const struct pva_sae *sae, const struct pva_sparse *a, float *out, struct pva_error *err);

/* Fraction of variance unexplained: sum |x - x'|^2 / sum |x - mean of x|^2 over n rows, in double. NaN when the rows are all the same. */
double pva_sae_unexplained(const float *x, const float *reconstruction, int64_t n, int64_t d_model);

/* SHA-256, 64 hexadecimal digits, over shapes, thresholds and samples of the weights: tells autoencoders apart. */
int pva_sae_fingerprint(const struct pva_sae *sae, char out[65], struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
