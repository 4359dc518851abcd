#include "activations.h"

#include "pva/npz.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int allocate(struct activations *a, const char *spec, struct pva_error *err) {
    size_t values, bytes;
    if (a->n < 0 || a->d < 1 || __builtin_mul_overflow((size_t)a->n, (size_t)a->d, &values) || __builtin_mul_overflow(values, sizeof *a->x, &bytes))
        return pva_fail(err, PVA_INPUT, "%.300s: [%lld, %lld] is no matrix of activations", spec, (long long)a->n, (long long)a->d);
    a->x = malloc(bytes + 1);
    return a->x ? PVA_OK : pva_fail(err, PVA_IO, "%.300s: out of memory for [%lld, %lld]", spec, (long long)a->n, (long long)a->d);
}

static int read_npy(const char *path, struct activations *a, struct pva_error *err) {
    int64_t shape[PVA_MAX_DIMS];
    int n_dims;
    if (pva_npy_read(path, &a->x, shape, &n_dims, err)) return err->code;
    if (n_dims != 2) return pva_fail(err, PVA_INPUT, "%.300s: has %d dimensions, expected [n, d_model]", path, n_dims);
    a->n = shape[0], a->d = shape[1];
    return PVA_OK;
}

/* Place of `layer` in the file's list of layers, when that list has n entries; -1: it is not in it; -2: there is no such list. */
static int64_t find_layer(hid_t file, hsize_t n, int layer) {
    if (H5Lexists(file, "/layer", H5P_DEFAULT) <= 0) return -2;
    hid_t set = H5Dopen2(file, "/layer", H5P_DEFAULT), space = set < 0 ? -1 : H5Dget_space(set);
    int64_t at = -2;
    if (space >= 0 && H5Sget_simple_extent_ndims(space) == 1 && H5Sget_simple_extent_npoints(space) == (hssize_t)n) {
        int32_t *layers = malloc((n + 1) * sizeof *layers);
        if (layers && H5Dread(set, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, layers) >= 0) {
            at = -1;
            for (hsize_t i = 0; i < n; i++)
                if (layers[i] == layer) at = (int64_t)i;
        }
        free(layers);
    }
    if (space >= 0) H5Sclose(space);
    if (set >= 0) H5Dclose(set);
    return at;
}

/* Chooses the part of the dataset that is read. */
static int select_rows(hid_t file, hid_t space, const char *spec, int layer, struct activations *a, struct pva_error *err) {
    hsize_t shape[3], start[3] = {0}, count[3];
    int n_dims = H5Sget_simple_extent_ndims(space);
    if (n_dims != 2 && n_dims != 3) return pva_fail(err, PVA_INPUT, "%.300s: has %d dimensions, expected [n, d_model] or one more for the layers", spec, n_dims);
    H5Sget_simple_extent_dims(space, shape, NULL);
    memcpy(count, shape, sizeof count);
    a->d = (int64_t)shape[n_dims - 1], a->n = (int64_t)shape[0];
    if (n_dims == 2) return PVA_OK;
    if (layer < 0) return pva_fail(err, PVA_USAGE, "%.300s: has layers; say which with --layer", spec);
    int64_t at = find_layer(file, shape[1], layer);
    int axis = at == -2 ? 0 : 1;
    if (axis == 0) at = layer < (int64_t)shape[0] ? layer : -1;
    if (at < 0) return pva_fail(err, PVA_INPUT, "%.300s: has no layer %d", spec, layer);
    a->n = (int64_t)shape[1 - axis];
    start[axis] = (hsize_t)at, count[axis] = 1;
    if (H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) < 0) return pva_fail(err, PVA_IO, "%.300s: cannot be selected from", spec);
    return PVA_OK;
}

static int read_dataset(hid_t file, const char *spec, const char *name, int layer, struct activations *a, struct pva_error *err) {
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    if (set < 0) return pva_fail(err, PVA_INPUT, "%.300s: there is no such dataset", spec);
    hid_t space = H5Dget_space(set), type = H5Dget_type(set), memory = -1;
    if (H5Tget_class(type) != H5T_FLOAT) pva_fail(err, PVA_INPUT, "%.300s: does not hold floating-point numbers", spec);
    else if (!select_rows(file, space, spec, layer, a, err) && !allocate(a, spec, err) && a->n) {
        hsize_t whole[2] = {(hsize_t)a->n, (hsize_t)a->d};
        memory = H5Screate_simple(2, whole, NULL);
        if (H5Dread(set, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, a->x) < 0) pva_fail(err, PVA_IO, "%.300s: cannot be read; is the file whole?", spec);
    }
    if (memory >= 0) H5Sclose(memory);
    H5Tclose(type);
    H5Sclose(space);
    H5Dclose(set);
    return err->code;
}

/* The last ":/" divides file and dataset. */
static const char *find_dataset(const char *spec) {
    const char *found = NULL;
    for (const char *p = spec; (p = strstr(p, ":/")); p++) found = p;
    return found;
}

int activations_read(const char *spec, int layer, struct activations *a, struct pva_error *err) {
    char path[4096];
    size_t n = strlen(spec);
    memset(a, 0, sizeof *a);
    if (n > 4 && !strcmp(spec + n - 4, ".npy")) {
        if (read_npy(spec, a, err)) activations_free(a);
        return err->code;
    }
    const char *name = find_dataset(spec);
    if (!name) return pva_fail(err, PVA_USAGE, "%.300s: expected FILE.h5:/DATASET or FILE.npy", spec);
    snprintf(path, sizeof path, "%.*s", (int)(name - spec), spec);
    if (access(path, R_OK)) return pva_fail(err, PVA_INPUT, "%.300s: there is no such file", path);
    setenv("HDF5_USE_FILE_LOCKING", "FALSE", 1); /* a job may be writing it */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0) return pva_fail(err, PVA_INPUT, "%.300s: is no HDF5 file, or damaged", path);
    read_dataset(file, spec, name + 1, layer, a, err);
    H5Fclose(file);
    if (err->code) activations_free(a);
    return err->code;
}

void activations_free(struct activations *a) {
    free(a->x);
    memset(a, 0, sizeof *a);
}
