/* encode: activations in, active latents out, as a compressed sparse matrix in HDF5. */
#include "activations.h"
#include "commands.h"
#include "engine.h"

#include "pva/sae.h"

#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct pva_option pva_encode_options[] = {
    {"sae", PVA_OPT_TEXT, "PATH", NULL, "an autoencoder (params.npz, safetensors, its folder), or a directory of them with --layer", NULL, 0, 0},
    {"layer", PVA_OPT_INT, "L", NULL, "which layer, of the autoencoders and of activations that have several", NULL, 0, 255},
    {"width", PVA_OPT_TEXT, "W", NULL, "in a directory: 16k, 131k ...; default: the only one there is", NULL, 0, 0},
    {"l0", PVA_OPT_TEXT, "L0", "canonical", "in a directory: canonical, smallest, largest, or a number: the closest", NULL, 0, 0},
    {"activations", PVA_OPT_TEXT, "FILE:/DATASET", NULL, "[n, d_model] in HDF5, or a .npy file; phase1.h5:/resid and forward's /resid_post with --layer", NULL, 0, 0},
    {"out", PVA_OPT_TEXT, "FILE", NULL, "HDF5 file to write: indptr, indices, data, n_latents", NULL, 0, 0},
    {"overwrite", PVA_OPT_FLAG, NULL, "no", "replace FILE if it exists", NULL, 0, 0},
    {"backend", PVA_OPT_CHOICE, "NAME", "auto", "where to compute", "auto|cpu|cuda", 0, 0},
    {"threads", PVA_OPT_INT, "N", "0", "CPU threads; 0: as many as this process may use", NULL, 0, 4096},
    {"isa", PVA_OPT_CHOICE, "SET", NULL, "CPU instruction set, instead of the best one", "c|avx2|avx512|avx512bf16|amx", 0, 0},
    {"gpu-memory", PVA_OPT_BYTES, "SIZE", NULL, "device memory this process may take", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

/* A file, a folder with weights in it, or a directory in which one has to be chosen. */
static int open_sae(const struct pva_options *o, int layer, struct pva_sae **sae, double *label, struct pva_error *err) {
    const char *path = pva_options_text(o, "sae");
    struct stat st;
    char npz[4096], safetensors[4096];
    snprintf(npz, sizeof npz, "%s/params.npz", path);
    snprintf(safetensors, sizeof safetensors, "%s/sae_weights.safetensors", path);
    *label = NAN;
    if (stat(path, &st) || !S_ISDIR(st.st_mode) || !access(npz, F_OK) || !access(safetensors, F_OK)) return pva_sae_open(path, sae, err);
    if (layer < 0) return pva_fail(err, PVA_USAGE, "%s: is a directory of autoencoders; say which with --layer", path);
    unsigned char marks[256] = {0};
    struct pva_sae_file *files = calloc((size_t)layer + 1, sizeof *files);
    if (!files) return pva_fail(err, PVA_IO, "out of memory");
    marks[layer] = 1;
    if (!pva_sae_scan(path, pva_options_text(o, "width"), pva_options_text(o, "l0"), layer + 1, marks, files, err)) {
        *label = files[layer].l0;
        pva_sae_open(files[layer].path, sae, err);
    }
    free(files);
    return err->code;
}

static int write_set(hid_t file, const char *name, hid_t type, hid_t memory_type, int64_t n, const void *data, const char *long_name) {
    hsize_t length = (hsize_t)n;
    hid_t space = n < 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &length, NULL);
    hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    herr_t bad = set < 0 ? -1 : H5Dwrite(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
    hid_t text = H5Tcopy(H5T_C_S1), scalar = H5Screate(H5S_SCALAR);
    H5Tset_size(text, strlen(long_name));
    hid_t attribute = set < 0 ? -1 : H5Acreate2(set, "long_name", text, scalar, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, text, long_name) < 0) bad = -1;
    if (attribute >= 0) H5Aclose(attribute);
    H5Sclose(scalar);
    H5Tclose(text);
    if (set >= 0 && H5Dclose(set) < 0) bad = -1;
    H5Sclose(space);
    return bad < 0;
}

static int write_attribute(hid_t file, const char *name, hid_t type, const void *value) {
    hid_t space = H5Screate(H5S_SCALAR), attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    herr_t bad = attribute < 0 ? -1 : H5Awrite(attribute, type, value);
    if (attribute >= 0) H5Aclose(attribute);
    H5Sclose(space);
    return bad < 0;
}

static int write_text_attribute(hid_t file, const char *name, const char *value) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(value) ? strlen(value) : 1);
    int bad = write_attribute(file, name, type, value);
    H5Tclose(type);
    return bad;
}

static int write_sparse(const char *path, const struct pva_sparse *a, const struct pva_sae *sae, const char *fingerprint, struct pva_error *err) {
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (file < 0) return pva_fail(err, PVA_IO, "%s: cannot be created", path);
    int64_t n = a->indptr[a->n_rows];
    int bad = write_set(file, "indptr", H5T_STD_I64LE, H5T_NATIVE_INT64, a->n_rows + 1, a->indptr, "row i has the entries indptr[i] .. indptr[i + 1] - 1");
    bad |= write_set(file, "indices", H5T_STD_I32LE, H5T_NATIVE_INT32, n, a->indices, "active latents, ascending in each row");
    bad |= write_set(file, "data", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, n, a->data, "their activations");
    bad |= write_set(file, "n_latents", H5T_STD_I64LE, H5T_NATIVE_INT64, -1, &a->n_latents, "latents of the autoencoder: the matrix has that many columns");
    bad |= write_attribute(file, "n_near", H5T_NATIVE_INT64, &a->n_near);
    bad |= write_text_attribute(file, "sae", pva_sae_path(sae)) | write_text_attribute(file, "sae_sha256", fingerprint);
    bad |= H5Fclose(file) < 0;
    return bad ? pva_fail(err, PVA_IO, "%s: cannot be written: is the disk full?", path) : PVA_OK;
}

static int run(const struct pva_options *o, struct engine *e, const char *path, struct pva_error *err) {
    int layer = pva_options_is_set(o, "layer") ? (int)pva_options_int(o, "layer") : -1;
    struct activations x = {0};
    struct pva_sae *sae = NULL;
    struct pva_sparse a = {0};
    char partial[4096], fingerprint[65];
    double label = NAN, seconds = 0;
    if ((size_t)snprintf(partial, sizeof partial, "%s.partial", path) >= sizeof partial) return pva_fail(err, PVA_USAGE, "--out: the name is too long");
    if (open_sae(o, layer, &sae, &label, err)) goto done;
    pva_sae_read_ahead(sae);
    if (activations_read(pva_options_text(o, "activations"), layer, &x, err)) goto done;
    if (x.d != pva_sae_d_model(sae)) {
        pva_fail(err, PVA_INPUT, "%s: is for activations of d_model %lld, these have %lld", pva_sae_path(sae), (long long)pva_sae_d_model(sae), (long long)x.d);
        goto done;
    }
    seconds = engine_now();
    if (pva_sae_encode(sae, e->ops, e->be, x.x, x.n, &a, err)) goto done;
    seconds = engine_now() - seconds;
    if (pva_sae_fingerprint(sae, fingerprint, err) || write_sparse(partial, &a, sae, fingerprint, err) || err->code) unlink(partial);
    else if (rename(partial, path)) pva_fail(err, PVA_IO, "%s: cannot be renamed to %s", partial, path);
    else if (!pva_options_flag(o, "quiet")) {
        char named[40] = "";
        if (!isnan(label)) snprintf(named, sizeof named, " (its label: %.0f)", label);
        fprintf(stderr, "pva-mpi: encode: %lld rows, %lld latents: mean L0 %.1f%s, %lld near a threshold; %.2f s; %s\n", (long long)x.n, (long long)a.n_latents,
                x.n ? (double)a.indptr[x.n] / (double)x.n : 0.0, named, (long long)a.n_near, seconds, path);
    }
done:
    pva_sparse_free(&a);
    activations_free(&x);
    pva_sae_close(&sae);
    return err->code;
}

int pva_command_encode(const struct pva_options *o, struct pva_error *err) {
    const char *path = pva_options_text(o, "out");
    struct engine e = {0};
    if (pva_options_require(o, "sae", err) || pva_options_require(o, "activations", err) || pva_options_require(o, "out", err)) return err->code;
    if (!pva_options_flag(o, "overwrite") && access(path, F_OK) == 0) return pva_fail(err, PVA_REFUSED, "%s exists; --overwrite replaces it", path);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    if (!engine_open_backend(o, &e, err)) run(o, &e, path, err);
    engine_close(&e);
    return err->code;
}
