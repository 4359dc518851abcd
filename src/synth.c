#include "pva/synth.h"

#include "input_file.h"
#include "pva/rng.h"
#include "pva/tokenizer.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- values ---- */

enum {
    GROUP = 4096,    /* values that share one Philox block */
    CHUNK = 1 << 22, /* values made, then written */
};

/* Four bytes of a word, each uniform on 0..255: their sum has mean 510 and variance 4 * (256^2 - 1) / 12 = 21845. */
static inline int32_t bell(uint32_t w) {
    uint32_t pairs = (w & 0x00ff00ffu) + (w >> 8 & 0x00ff00ffu);
    return (int32_t)((pairs & 0xffffu) + (pairs >> 16)) - 510;
}
static const double BELL_SD = 147.80054127099807; /* sqrt(21845) */

/* Values [GROUP * group, GROUP * (group + 1)) of a tensor. Philox for every value would take longer than writing the file; so it
 * keys each group, and within one a multiply-and-shift mixer (two rounds, which compilers turn into vector code) spreads the
 * position. */
static void make_group(uint64_t seed, uint32_t tensor, uint64_t group, float mean, float scale, float *restrict out) {
    uint32_t key[4];
    pva_rng_block(seed, PVA_RNG_WEIGHTS, tensor, (uint32_t)(group >> 32), (uint32_t)group, key);
    uint32_t k0 = key[0], k1 = key[1], k2 = key[2];
    for (uint32_t l = 0; l < GROUP; l++) {
        uint32_t w = l * 0x9E3779B9u + k0;
        w = (w ^ w >> 16) * 0x7feb352du + k1;
        w = (w ^ w >> 15) * 0x846ca68bu + k2;
        out[l] = mean + scale * (float)bell(w ^ w >> 16);
    }
}

struct shape_of_values {
    float mean, scale; /* value = mean + scale * bell */
};

static struct shape_of_values shape_of(const struct pva_model_config *c, const struct pva_model_tensor *t) {
    double mean = 0, sd;
    if (t->role == PVA_EMBED) sd = 0.25 / sqrt(c->d_model);
    else if (t->n_dims == 2) sd = 1 / sqrt((double)t->shape[1]);
    else sd = 0.1;
    if (t->role == PVA_FINAL_NORM) mean = 7;
    return (struct shape_of_values){(float)mean, (float)(sd / BELL_SD)};
}

void pva_synth_values(const struct pva_model_config *config, int i, uint64_t seed, int64_t first, int64_t n, float *out) {
    struct pva_model_tensor t;
    float group[GROUP];
    pva_model_config_tensor(config, i, &t);
    PVA_ASSERT(first >= 0 && n >= 0 && n <= t.n_elements - first);
    struct shape_of_values s = shape_of(config, &t);
    for (int64_t done = 0; done < n;) {
        int64_t g = (first + done) / GROUP, offset = (first + done) % GROUP, take = GROUP - offset;
        if (take > n - done) take = n - done;
        make_group(seed, (uint32_t)i, (uint64_t)g, s.mean, s.scale, group);
        memcpy(out + done, group + offset, (size_t)take * sizeof *out);
        done += take;
    }
}

/* The same for a whole chunk in the file's dtype; first is a multiple of GROUP. */
static void make_chunk(struct shape_of_values s, int i, uint64_t seed, int64_t first, int64_t n, enum pva_dtype dtype,
                       void *out) {
#pragma omp parallel for schedule(static)
    for (int64_t g = 0; g < (n + GROUP - 1) / GROUP; g++) {
        float group[GROUP];
        int64_t at = g * GROUP, m = n - at < GROUP ? n - at : GROUP;
        make_group(seed, (uint32_t)i, (uint64_t)(first / GROUP + g), s.mean, s.scale, group);
        if (dtype == PVA_F32) {
            memcpy((float *)out + at, group, (size_t)m * sizeof *group);
        } else {
            uint16_t *bf16 = (uint16_t *)out + at;
            for (int64_t k = 0; k < m; k++) bf16[k] = pva_f32_to_bf16(group[k]);
        }
    }
}

/* ---- files ---- */

struct job {
    const struct pva_model_config *config;
    const struct pva_synth_settings *settings;
    const char *directory; /* the partial one */
    int n_tensors, n_shards;
    int *shard_of; /* [n_tensors] */
    size_t done, total;
    void *chunk; /* CHUNK values */
};

static size_t tensor_bytes(const struct job *job, int i) {
    struct pva_model_tensor t;
    pva_model_config_tensor(job->config, i, &t);
    return (size_t)t.n_elements * pva_dtype_size(job->settings->dtype);
}

static void plan_shards(struct job *job) {
    size_t in_shard = 0, limit = job->settings->shard_bytes;
    int shard = 0;
    for (int i = 0; i < job->n_tensors; i++) {
        size_t bytes = tensor_bytes(job, i);
        if (limit && in_shard && bytes > limit - (in_shard < limit ? in_shard : limit)) {
            shard++;
            in_shard = 0;
        }
        in_shard += bytes;
        job->shard_of[i] = shard;
        job->total += bytes;
    }
    job->n_shards = shard + 1;
}

static void shard_name(const struct job *job, int shard, char *name, size_t size) {
    if (job->n_shards == 1) snprintf(name, size, "model.safetensors");
    else snprintf(name, size, "model-%05d-of-%05d.safetensors", shard + 1, job->n_shards);
}

static int append_tensor(struct job *job, int i, struct pva_tensorfile_writer *w, struct pva_error *err) {
    struct pva_model_tensor t;
    const struct pva_synth_settings *s = job->settings;
    pva_model_config_tensor(job->config, i, &t);
    struct shape_of_values shape = shape_of(job->config, &t);
    for (int64_t first = 0; first < t.n_elements; first += CHUNK) {
        int64_t n = t.n_elements - first < CHUNK ? t.n_elements - first : CHUNK;
        size_t bytes = (size_t)n * pva_dtype_size(s->dtype);
        make_chunk(shape, i, s->seed, first, n, s->dtype, job->chunk);
        if (pva_tensorfile_append(w, job->chunk, bytes, err)) return err->code;
        job->done += bytes;
        if (s->progress) s->progress(s->context, job->done, job->total);
    }
    return 0;
}

static int write_shard(struct job *job, int shard, struct pva_error *err) {
    char name[64];
    struct pva_tensorfile_writer *w = NULL;
    shard_name(job, shard, name, sizeof name);
    char *path = file_join(job->directory, name);
    if (!path) return pva_fail(err, PVA_IO, "%s: out of memory", job->directory);
    int status = pva_tensorfile_create(path, &w, err);
    free(path);
    if (status || pva_tensorfile_metadata_add(w, "format", "pt", err)) goto done; /* transformers wants to be told */
    for (int i = 0; i < job->n_tensors; i++) {
        struct pva_model_tensor t;
        if (job->shard_of[i] != shard) continue;
        pva_model_config_tensor(job->config, i, &t);
        if (pva_tensorfile_declare(w, t.name, job->settings->dtype, t.n_dims, t.shape, err)) goto done;
    }
    for (int i = 0; i < job->n_tensors; i++)
        if (job->shard_of[i] == shard && append_tensor(job, i, w, err)) goto done;
    pva_tensorfile_finish(&w, err);
done:
    pva_tensorfile_discard(&w);
    return err->code;
}

static int write_index(const struct job *job, struct pva_error *err) {
    json_t *map = json_object(),
           *root = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)job->total, "weight_map", map);
    char *path = file_join(job->directory, "model.safetensors.index.json"), name[64];
    for (int i = 0; i < job->n_tensors; i++) {
        struct pva_model_tensor t;
        pva_model_config_tensor(job->config, i, &t);
        shard_name(job, job->shard_of[i], name, sizeof name);
        if (json_object_set_new(map, t.name, json_string(name))) pva_fail(err, PVA_IO, "%s: out of memory", job->directory);
    }
    if (!root || !path) pva_fail(err, PVA_IO, "%s: out of memory", job->directory);
    if (!err->code) file_write_json(path, root, err);
    json_decref(map);
    json_decref(root);
    free(path);
    return err->code;
}

static int copy_tokenizer(const struct job *job, struct pva_error *err) {
    struct pva_tokenizer *t = NULL;
    const char *from = job->settings->tokenizer;
    char *bytes = NULL, *source = file_is_directory(from) ? file_join(from, "tokenizer.model") : strdup(from);
    char *path = file_join(job->directory, "tokenizer.model");
    size_t size;
    if (!source || !path) pva_fail(err, PVA_IO, "%s: out of memory", from);
    else if (pva_tokenizer_open(source, &t, err)) goto done;
    else if (pva_tokenizer_n_vocab(t) > job->config->n_vocab)
        pva_fail(err, PVA_INPUT, "%s: has %d tokens, expected at most the model's vocab_size %d", source,
                 pva_tokenizer_n_vocab(t), job->config->n_vocab);
    else if (!file_read(source, (size_t)1 << 30, &bytes, &size, err)) file_write_bytes(path, bytes, size, err);
done:
    pva_tokenizer_close(&t);
    free(bytes);
    free(source);
    free(path);
    return err->code;
}

static int write_all(struct job *job, struct pva_error *err) {
    struct pva_model_config config = *job->config;
    snprintf(config.torch_dtype, sizeof config.torch_dtype, "%s", job->settings->dtype == PVA_F32 ? "float32" : "bfloat16");
    if (job->settings->tokenizer && copy_tokenizer(job, err)) return err->code; /* first: it can be wrong, and costs nothing */
    if (pva_model_config_write(&config, job->directory, err)) return err->code;
    for (int shard = 0; shard < job->n_shards; shard++)
        if (write_shard(job, shard, err)) return err->code;
    return job->n_shards > 1 ? write_index(job, err) : 0;
}

/* ---- the directory ---- */

static int is_ours(const char *name) {
    return !strncmp(name, "model", 5) || !strncmp(name, "config.json", 11) || !strncmp(name, "generation_config.json", 22) ||
           !strncmp(name, "tokenizer.model", 15);
}

/* Removes what an earlier or failed attempt left; other files, and then the directory, stay. */
static void remove_partial(const char *directory) {
    DIR *d = opendir(directory);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));)
        if (is_ours(e->d_name)) unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(directory);
}

static int is_empty_or_absent(const char *directory) {
    DIR *d = opendir(directory);
    int n = 0;
    if (!d) return errno == ENOENT;
    for (struct dirent *e; (e = readdir(d));) n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return n == 0;
}

static int write_into(struct job *job, const char *final, struct pva_error *err) {
    remove_partial(job->directory);
    if (mkdir(job->directory, 0777))
        return pva_fail(err, PVA_IO, "%s: cannot make the directory: %s", job->directory, strerror(errno));
    job->shard_of = calloc((size_t)job->n_tensors, sizeof *job->shard_of);
    job->chunk = malloc((size_t)CHUNK * sizeof(float));
    if (!job->shard_of || !job->chunk) pva_fail(err, PVA_IO, "%s: out of memory", final);
    else plan_shards(job);
    if (!err->code && !write_all(job, err) && rename(job->directory, final)) /* over an empty directory this is atomic too */
        pva_fail(err, PVA_IO, "%s: cannot rename from %s: %s", final, job->directory, strerror(errno));
    if (err->code) remove_partial(job->directory);
    free(job->shard_of);
    free(job->chunk);
    return err->code;
}

int pva_synth_write(const struct pva_model_config *config, const char *directory, const struct pva_synth_settings *settings,
                    struct pva_error *err) {
    if (pva_model_config_check("model shape", config, err)) return err->code;
    if (settings->dtype != PVA_BF16 && settings->dtype != PVA_F32)
        return pva_fail(err, PVA_USAGE, "synthetic weights are written as BF16 or F32, not %s", pva_dtype_name(settings->dtype));
    size_t length = strlen(directory);
    while (length > 1 && directory[length - 1] == '/') length--;
    char *final = strndup(directory, length), *partial = NULL;
    if (!final || asprintf(&partial, "%s.partial", final) < 0) pva_fail(err, PVA_IO, "%s: out of memory", directory);
    else if (!is_empty_or_absent(final))
        pva_fail(err, PVA_REFUSED, "%s: exists and is not an empty directory; choose another, or remove it first", final);
    else {
        struct job job = {.config = config,
                          .settings = settings,
                          .directory = partial,
                          .n_tensors = pva_model_config_n_tensors(config)};
        write_into(&job, final, err);
    }
    free(final);
    free(partial);
    return err->code;
}
