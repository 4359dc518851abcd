/* export: a run's completions, verdicts and activations in the formats other tools read.
 *   samples.jsonl            EvalPlus' samples: {"task_id": "Mbpp/11", "solution": ...}
 *   results.jsonl, .parquet  everything of a record but the residual stream
 *   results.csv              the same without the texts
 *   latents.*, steering.*    every latent's row; every steered completion, in the same three formats
 *   activations.safetensors  "resid" [n, ...] as it was captured, "passed" and "index" [n]
 *   direction-LxJ.npy, .gguf the decoder's direction of latent J at layer L, of unit length: for numpy, and as llama.cpp's control vector */
#include "commands.h"
#include "export.h"
#include "phase1_read.h"
#include "phase2_read.h"
#include "run.h"

#include "pva/direction.h"
#include "pva/grade.h"
#include "pva/split.h"
#include "pva/table.h"
#include "pva/tensorfile.h"
#include "pva/vector_write.h"

#include <errno.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct pva_option pva_export_options[] = {
    {"run", PVA_OPT_TEXT, "DIR", NULL, "run directory (or give it without --run)", NULL, 0, 0},
    {"format", PVA_OPT_TEXT, "LIST", "jsonl,csv", "of jsonl, csv, parquet, safetensors", NULL, 0, 0},
    {"direction", PVA_OPT_TEXT, "L:J", NULL, "also the direction of latent J of layer L, from phase 2's autoencoders", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

/* The records that are there, column by column. */
struct records {
    struct phase1_data data;
    int64_t n;
    int64_t *slot; /* [n] */
    char *exceptions; /* [n] of PHASE1_EXCEPTION_SIZE + 1 */
    int32_t *index, *difficulty, *n_prompt, *n_new, *failed_test;
    const char **task_id, **part, **verdict, **exception, **finish, **program, **completion;
    uint8_t *passed;
};

static const char *const finish_names[] = {"eos", "limit", "final", "loop", "nan"};

static void *array(int64_t n, size_t size, struct pva_error *err) {
    void *p = calloc((size_t)n + 1, size);
    if (!p && !err->code) pva_fail(err, PVA_IO, "out of memory");
    return p;
}

static void allocate(struct records *r, int64_t n, struct pva_error *err) {
    r->slot = array(n, sizeof *r->slot, err);
    r->exceptions = array(n, PHASE1_EXCEPTION_SIZE + 1, err);
    int32_t **integers[] = {&r->index, &r->difficulty, &r->n_prompt, &r->n_new, &r->failed_test};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) *integers[i] = array(n, sizeof(int32_t), err);
    const char ***texts[] = {&r->task_id, &r->part, &r->verdict, &r->exception, &r->finish, &r->program, &r->completion};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) *texts[i] = array(n, sizeof(char *), err);
    r->passed = array(n, 1, err);
}

static void free_records(struct records *r) {
    phase1_close(&r->data);
    for (int64_t i = 0; i < r->n; i++) free((char *)r->program[i]), free((char *)r->completion[i]);
    free(r->slot), free(r->exceptions), free(r->index), free(r->difficulty), free(r->n_prompt), free(r->n_new), free(r->failed_test);
    free(r->task_id), free(r->part), free(r->verdict), free(r->exception), free(r->finish), free(r->program), free(r->completion), free(r->passed);
}

static const char *read_text(struct store *s, int64_t slot, int field, struct pva_error *err) {
    char *text = array((int64_t)store_field_bytes(s, field), 1, err);
    if (text && !err->code) store_read(s, slot, field, text, err);
    return text;
}

/* Record i from its slot. */
static int read_record(struct records *r, int64_t i, struct pva_error *err) {
    struct store *s = r->data.store;
    int64_t slot = r->slot[i];
    uint8_t verdict = r->data.verdicts[slot], finish = 0;
    char *exception = r->exceptions + i * (PHASE1_EXCEPTION_SIZE + 1);
    if (store_read(s, slot, PHASE1_N_PROMPT, &r->n_prompt[i], err) || store_read(s, slot, PHASE1_N_NEW, &r->n_new[i], err) ||
        store_read(s, slot, PHASE1_FAILED_TEST, &r->failed_test[i], err) || store_read(s, slot, PHASE1_FINISH, &finish, err) ||
        store_read(s, slot, PHASE1_EXCEPTION, exception, err))
        return err->code;
    if (finish >= sizeof finish_names / sizeof *finish_names) return pva_fail(err, PVA_INPUT, "record %lld is damaged", (long long)slot);
    r->verdict[i] = pva_verdict_name((enum pva_verdict)verdict);
    r->passed[i] = verdict == PVA_PASS;
    r->finish[i] = finish_names[finish];
    r->exception[i] = exception;
    r->program[i] = read_text(s, slot, PHASE1_PROGRAM, err);
    r->completion[i] = read_text(s, slot, PHASE1_TEXT, err);
    return err->code;
}

static int read_records(struct records *r, const char *run, struct pva_error *err) {
    struct phase1_data *d = &r->data;
    if (phase1_open(run, d, err)) return err->code;
    allocate(r, d->n, err);
    for (int64_t slot = 0; slot < d->n && !err->code; slot++) {
        if (d->states[slot] == STORE_EMPTY) continue;
        int64_t i = r->n++;
        r->slot[i] = slot, r->task_id[i] = d->task_ids[slot], r->index[i] = d->index[slot], r->difficulty[i] = d->difficulty[slot];
        r->part[i] = d->part[slot] < PVA_N_PARTS ? pva_part_name((enum pva_part)d->part[slot]) : "?";
        read_record(r, i, err);
    }
    return err->code;
}

/* ---- files ---- */

int export_table(const char *run, const char *name, const struct pva_table *table, enum pva_table_format format, struct pva_error *err) {
    char path[4096], partial[4200];
    snprintf(path, sizeof path, "%s/exports/%s.%s", run, name, pva_table_format_name(format));
    snprintf(partial, sizeof partial, "%s.partial", path);
    FILE *out = fopen(partial, "we");
    if (!out) return pva_fail(err, PVA_IO, "%s: %s", partial, strerror(errno));
    pva_table_write(table, format, out, err);
    int bad = fflush(out) || ferror(out) || fsync(fileno(out));
    bad |= fclose(out) != 0;
    if (!err->code && bad) pva_fail(err, PVA_IO, "%s: cannot be written: is the disk full?", partial);
    if (!err->code && rename(partial, path)) pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    if (err->code) unlink(partial);
    else printf("%s  %lld records\n", path, (long long)table->n_rows);
    return err->code;
}

static int write_samples(const char *run, const struct records *r, struct pva_error *err) {
    char(*names)[PHASE1_TASK_ID + 8] = array(r->n, sizeof *names, err);
    const char **ids = array(r->n, sizeof *ids, err);
    for (int64_t i = 0; i < r->n && !err->code; i++) {
        int bare = strspn(r->task_id[i], "0123456789") == strlen(r->task_id[i]);
        snprintf(names[i], sizeof names[i], "%s%s", bare ? "Mbpp/" : "", r->task_id[i]);
        ids[i] = names[i];
    }
    const struct pva_column columns[] = {{"task_id", PVA_COLUMN_TEXT, ids}, {"solution", PVA_COLUMN_TEXT, r->program}};
    struct pva_table table = {r->n, 2, columns};
    if (!err->code) export_table(run, "samples", &table, PVA_TABLE_JSONL, err);
    free(names), free(ids);
    return err->code;
}

static int write_results(const char *run, const struct records *r, enum pva_table_format format, struct pva_error *err) {
    const struct pva_column columns[] = {
        {"task_id", PVA_COLUMN_TEXT, r->task_id},
        {"index", PVA_COLUMN_I32, r->index},
        {"part", PVA_COLUMN_TEXT, r->part},
        {"difficulty", PVA_COLUMN_I32, r->difficulty},
        {"passed", PVA_COLUMN_BOOL, r->passed},
        {"verdict", PVA_COLUMN_TEXT, r->verdict},
        {"failed_test", PVA_COLUMN_I32, r->failed_test},
        {"exception", PVA_COLUMN_TEXT, r->exception},
        {"n_prompt", PVA_COLUMN_I32, r->n_prompt},
        {"n_new", PVA_COLUMN_I32, r->n_new},
        {"finish", PVA_COLUMN_TEXT, r->finish},
        {"program", PVA_COLUMN_TEXT, r->program},
        {"completion", PVA_COLUMN_TEXT, r->completion},
    };
    int n_columns = sizeof columns / sizeof *columns, n_texts = 2;
    struct pva_table table = {r->n, format == PVA_TABLE_CSV ? n_columns - n_texts : n_columns, columns};
    return export_table(run, "results", &table, format, err);
}

/* One tensor over all records, and what a reader needs to use it. */
static int write_activations(const char *run, struct records *r, struct pva_error *err) {
    struct phase1_data *d = &r->data;
    struct pva_tensorfile_writer *w = NULL;
    char path[4096];
    int64_t several[] = {r->n, d->n_positions, d->n_layers, d->d_model}, one[] = {r->n, d->n_layers, d->d_model};
    float *row = array(d->n_positions * d->n_layers * d->d_model, sizeof *row, err);
    snprintf(path, sizeof path, "%s/exports/activations.safetensors", run);
    if (!err->code && !pva_tensorfile_create(path, &w, err) && !pva_tensorfile_metadata_add(w, "point", d->point, err) &&
        !pva_tensorfile_metadata_add(w, "position", d->positions, err) &&
        !pva_tensorfile_declare(w, "resid", PVA_F32, d->n_positions > 1 ? 4 : 3, d->n_positions > 1 ? several : one, err) &&
        !pva_tensorfile_declare(w, "index", PVA_I32, 1, &r->n, err) && !pva_tensorfile_declare(w, "layers", PVA_I32, 1, &d->n_layers, err) &&
        !pva_tensorfile_declare(w, "passed", PVA_U8, 1, &r->n, err)) {
        for (int64_t i = 0; i < r->n && !err->code; i++)
            if (!phase1_resid(d, r->slot[i], row, err))
                pva_tensorfile_append(w, row, (size_t)(d->n_positions * d->n_layers * d->d_model) * sizeof *row, err);
        if (!err->code && !pva_tensorfile_append(w, r->index, (size_t)r->n * sizeof *r->index, err) &&
            !pva_tensorfile_append(w, d->layers, (size_t)d->n_layers * sizeof *d->layers, err) && !pva_tensorfile_append(w, r->passed, (size_t)r->n, err) &&
            !pva_tensorfile_finish(&w, err))
            printf("%s  %lld records\n", path, (long long)r->n);
    }
    if (w) pva_tensorfile_discard(&w);
    free(row);
    return err->code;
}

static int write_direction(const char *run, const char *which, struct pva_error *err) {
    int layer, used = 0;
    long long latent;
    char path[4096];
    struct phase2 *p = NULL;
    struct pva_sae *sae = NULL;
    if (sscanf(which, "%d:%lld%n", &layer, &latent, &used) != 2 || which[used])
        return pva_fail(err, PVA_USAGE, "--direction: \"%s\": expected LAYER:LATENT, as in 20:1234", which);
    if (phase2_open(run, &p, err)) return err->code;
    struct pva_direction d = {0};
    const char *file = phase2_sae_path(p, layer);
    if (!file) pva_fail(err, PVA_INPUT, "%s: phase 2 has no layer %d", run, layer);
    else if (!pva_sae_open(file, &sae, err)) pva_direction_from_latent(sae, layer, latent, &d, err);
    snprintf(path, sizeof path, "%s/exports/direction-%dx%lld.npy", run, layer, latent);
    if (!err->code && !pva_npy_write(path, d.unit, 1, &d.d_model, err)) printf("%s\n", path);
    snprintf(path, sizeof path, "%s/exports/direction-%dx%lld.gguf", run, layer, latent);
    if (!err->code && layer > 0 && !pva_gguf_control_vector_write(path, "gemma2", layer + 2, layer, d.unit, d.d_model, err)) printf("%s\n", path);
    pva_direction_free(&d);
    pva_sae_close(&sae);
    phase2_close(&p);
    return err->code;
}

/* Which of the formats are wanted: marks[PVA_TABLE_N_FORMATS + 1], the last one for safetensors. */
static int parse_formats(const char *list, int *marks, struct pva_error *err) {
    char copy[128];
    snprintf(copy, sizeof copy, "%s", list);
    for (char *save, *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        enum pva_table_format format;
        struct pva_error no_table = {0};
        if (!strcmp(word, "safetensors")) marks[PVA_TABLE_N_FORMATS] = 1;
        else if (!pva_table_format_parse(word, &format, &no_table)) marks[format] = 1;
        else return pva_fail(err, PVA_USAGE, "--format: \"%s\" is unknown: jsonl, csv, parquet, safetensors", word);
    }
    return PVA_OK;
}

int pva_command_export(const struct pva_options *o, struct pva_error *err) {
    const char *const *words, *run = pva_options_text(o, "run");
    char path[4096];
    int marks[PVA_TABLE_N_FORMATS + 1] = {0};
    size_t n_words = pva_options_positional(o, &words);
    if (!run && n_words == 1) run = words[0];
    if (!run) return pva_fail(err, PVA_USAGE, "name one run directory");
    if (parse_formats(pva_options_text(o, "format"), marks, err)) return err->code;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    struct records r = {0};
    if (!read_records(&r, run, err)) {
        snprintf(path, sizeof path, "%s/exports", run);
        mkdir(path, 0777);
        if (marks[PVA_TABLE_JSONL]) write_samples(run, &r, err);
        for (int f = 0; f < PVA_TABLE_N_FORMATS && !err->code; f++)
            if (marks[f] && !write_results(run, &r, (enum pva_table_format)f, err) && !export_latents(run, (enum pva_table_format)f, err))
                export_steering(run, (enum pva_table_format)f, err);
        if (marks[PVA_TABLE_N_FORMATS] && !err->code) write_activations(run, &r, err);
        if (pva_options_text(o, "direction") && !err->code) write_direction(run, pva_options_text(o, "direction"), err);
    }
    free_records(&r);
    return err->code;
}
