/* model_convert.c - a copy of a model whose matrices are bfloat16, for processes that share it through one mapping. */
#include "pva/model.h"
#include "pva/tensorfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1 << 20 }; /* elements converted at a time */

/* Matrices become bfloat16; vectors (norms) stay exact in float32 and are small. */
static enum pva_dtype target_type(const struct pva_tensor_view *t) { return t->n_dims == 2 ? PVA_BF16 : PVA_F32; }

int pva_model_needs_conversion(const char *directory, enum pva_dtype operand, int *needs, struct pva_error *err) {
    struct pva_tensorfile *file = NULL;
    *needs = 0;
    if (pva_tensorfile_open(directory, &file, err)) return err->code;
    for (size_t i = 0; i < pva_tensorfile_count(file); i++) {
        const struct pva_tensor_view *t = pva_tensorfile_at(file, i);
        *needs |= t->n_dims == 2 && t->dtype != PVA_BF16 && t->dtype != operand;
    }
    pva_tensorfile_close(&file);
    return PVA_OK;
}

static int append_converted(struct pva_tensorfile_writer *w, const struct pva_tensor_view *t, float *wide, uint16_t *narrow, struct pva_error *err) {
    for (int64_t first = 0; first < t->n_elements && !err->code; first += PIECE) {
        int64_t n = t->n_elements - first < PIECE ? t->n_elements - first : PIECE;
        pva_tensor_to_f32(t, first, n, wide);
        if (target_type(t) == PVA_F32) {
            pva_tensorfile_append(w, wide, (size_t)n * sizeof *wide, err);
            continue;
        }
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n; i++) narrow[i] = pva_f32_to_bf16(wide[i]);
        pva_tensorfile_append(w, narrow, (size_t)n * sizeof *narrow, err);
    }
    return err->code;
}

int pva_model_write_bf16(const char *directory, const char *out_directory, struct pva_error *err) {
    struct pva_model_config config;
    struct pva_tensorfile *file = NULL;
    struct pva_tensorfile_writer *w = NULL;
    char path[4096];
    float *wide = malloc(PIECE * sizeof *wide);
    uint16_t *narrow = malloc(PIECE * sizeof *narrow);
    if (!wide || !narrow) {
        pva_fail(err, PVA_IO, "out of memory");
        goto done;
    }
    if (pva_model_config_read(directory, &config, err) || pva_tensorfile_open(directory, &file, err)) goto done;
    snprintf(config.torch_dtype, sizeof config.torch_dtype, "bfloat16");
    if (pva_model_config_write(&config, out_directory, err)) goto done;
    snprintf(path, sizeof path, "%s/model.safetensors", out_directory);
    if (pva_tensorfile_create(path, &w, err)) goto done;
    for (size_t i = 0; i < pva_tensorfile_count(file) && !err->code; i++) {
        const struct pva_tensor_view *t = pva_tensorfile_at(file, i);
        pva_tensorfile_declare(w, t->name, target_type(t), t->n_dims, t->shape, err);
    }
    for (size_t i = 0; i < pva_tensorfile_count(file) && !err->code; i++) append_converted(w, pva_tensorfile_at(file, i), wide, narrow, err);
    if (!err->code) pva_tensorfile_finish(&w, err);
done:
    pva_tensorfile_discard(&w);
    pva_tensorfile_close(&file);
    free(wide);
    free(narrow);
    return err->code;
}
