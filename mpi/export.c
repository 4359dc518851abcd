/* export: a run's completions and verdicts in the formats other tools read.
 *   samples.jsonl   EvalPlus' samples: {"task_id": "Mbpp/11", "solution": ...}
 *   results.jsonl   everything of a record but the residual stream
 *   results.csv     one line per problem, without texts */
#include "commands.h"
#include "phase1_count.h"
#include "run.h"

#include <errno.h>
#include <hdf5.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct pva_option pva_export_options[] = {
    {"run", PVA_OPT_TEXT, "DIR", NULL, "run directory (or give it without --run)", NULL, 0, 0},
    {"format", PVA_OPT_TEXT, "LIST", "jsonl,csv", "jsonl, csv", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

struct table {
    struct store *store;
    int64_t n;
    uint8_t *states, *part;
    int32_t *difficulty;
    char (*task_ids)[PHASE1_TASK_ID];
    char *text, *program;
};

static const char *const part_names[] = {"selection", "tuning", "validation"};
static const char *const finish_names[] = {"eos", "limit", "final", "loop", "nan"};

static int open_table(struct table *t, const char *path, struct pva_error *err) {
    struct phase1_schema schema;
    phase1_schema_any(&schema);
    if (store_open_read(path, &schema.store, &t->store, err)) return err->code;
    t->n = store_n_slots(t->store);
    size_t n = (size_t)t->n;
    t->states = malloc(n + 1), t->part = malloc(n + 1), t->difficulty = malloc((n + 1) * sizeof *t->difficulty), t->task_ids = malloc((n + 1) * PHASE1_TASK_ID);
    t->text = malloc(store_field_bytes(t->store, PHASE1_TEXT) + 1), t->program = malloc(store_field_bytes(t->store, PHASE1_PROGRAM) + 1);
    if (!t->states || !t->part || !t->difficulty || !t->task_ids || !t->text || !t->program) return pva_fail(err, PVA_IO, "out of memory");
    if (store_states(t->store, t->states, err) || store_read_coordinate(t->store, "part", STORE_U8, t->part, n, err) ||
        store_read_coordinate(t->store, "difficulty", STORE_I32, t->difficulty, n * sizeof *t->difficulty, err))
        return err->code;
    return store_read_coordinate(t->store, "task_id", STORE_BYTES, t->task_ids, n * PHASE1_TASK_ID, err);
}

static void close_table(struct table *t) {
    struct pva_error ignored = {0};
    if (t->store) store_close(&t->store, &ignored);
    free(t->states), free(t->part), free(t->difficulty), free(t->task_ids), free(t->text), free(t->program);
}

struct record {
    int32_t n_prompt, n_new, n_text, n_program, failed_test;
    uint8_t finish, verdict;
    char exception[PHASE1_EXCEPTION_SIZE + 1];
};

static int read_record(struct table *t, int64_t slot, struct record *r, struct pva_error *err) {
    struct store *s = t->store;
    memset(r, 0, sizeof *r);
    if (store_read(s, slot, PHASE1_N_PROMPT, &r->n_prompt, err) || store_read(s, slot, PHASE1_N_NEW, &r->n_new, err) ||
        store_read(s, slot, PHASE1_N_TEXT, &r->n_text, err) || store_read(s, slot, PHASE1_N_PROGRAM, &r->n_program, err) ||
        store_read(s, slot, PHASE1_FAILED_TEST, &r->failed_test, err) || store_read(s, slot, PHASE1_FINISH, &r->finish, err) ||
        store_read(s, slot, PHASE1_VERDICT, &r->verdict, err) || store_read(s, slot, PHASE1_EXCEPTION, r->exception, err) ||
        store_read(s, slot, PHASE1_TEXT, t->text, err) || store_read(s, slot, PHASE1_PROGRAM, t->program, err))
        return err->code;
    t->text[store_field_bytes(s, PHASE1_TEXT)] = 0;
    t->program[store_field_bytes(s, PHASE1_PROGRAM)] = 0;
    if (r->verdict >= PVA_N_VERDICTS || r->finish >= 5) return pva_fail(err, PVA_INPUT, "record %lld is damaged", (long long)slot);
    return PVA_OK;
}

static const char *part_of(const struct table *t, int64_t i) { return t->part[i] < 3 ? part_names[t->part[i]] : "?"; }

static void json_line(FILE *f, json_t *o) {
    json_dumpf(o, f, JSON_COMPACT | JSON_PRESERVE_ORDER);
    fputc('\n', f);
    json_decref(o);
}

/* A text as JSON; bytes that are no UTF-8 (a completion cut in the middle of a character) become '?'. */
static json_t *json_text(char *text) {
    json_t *s = json_string(text);
    if (s) return s;
    for (char *p = text; *p; p++)
        if (*p & 0x80) *p = '?';
    return json_string(text);
}

static void write_sample(FILE *f, const struct table *t, int64_t i) {
    char id[PHASE1_TASK_ID + 8];
    int bare = strspn(t->task_ids[i], "0123456789") == strlen(t->task_ids[i]);
    snprintf(id, sizeof id, "%s%.*s", bare ? "Mbpp/" : "", PHASE1_TASK_ID, t->task_ids[i]);
    json_line(f, json_pack("{s:s,s:o}", "task_id", id, "solution", json_text(t->program)));
}

static void write_result(FILE *f, const struct table *t, int64_t i, const struct record *r) {
    json_line(f, json_pack("{s:s,s:s,s:i,s:s,s:i,s:s,s:i,s:i,s:s,s:o,s:o}", "task_id", t->task_ids[i], "part", part_of(t, i), "difficulty",
                           (int)t->difficulty[i], "verdict", pva_verdict_name((enum pva_verdict)r->verdict), "failed_test", (int)r->failed_test, "exception",
                           r->exception, "n_prompt", (int)r->n_prompt, "n_new", (int)r->n_new, "finish", finish_names[r->finish], "program",
                           json_text(t->program), "completion", json_text(t->text)));
}

static void write_csv(FILE *f, const struct table *t, int64_t i, const struct record *r) {
    fprintf(f, "%s,%s,%d,%s,%d,%s,%d,%d,%s\n", t->task_ids[i], part_of(t, i), (int)t->difficulty[i], pva_verdict_name((enum pva_verdict)r->verdict),
            (int)r->failed_test, r->exception, (int)r->n_prompt, (int)r->n_new, finish_names[r->finish]);
}

struct output {
    char path[4096], partial[4200];
    FILE *file;
};

static int open_output(struct output *out, const char *run, const char *name, struct pva_error *err) {
    snprintf(out->path, sizeof out->path, "%s/exports", run);
    mkdir(out->path, 0777);
    snprintf(out->path, sizeof out->path, "%s/exports/%s", run, name);
    snprintf(out->partial, sizeof out->partial, "%s.partial", out->path);
    out->file = fopen(out->partial, "we");
    return out->file ? PVA_OK : pva_fail(err, PVA_IO, "%s: %s", out->partial, strerror(errno));
}

static void close_output(struct output *out, int64_t n, struct pva_error *err) {
    if (!out->file) return;
    int bad = fflush(out->file) || fsync(fileno(out->file));
    bad |= fclose(out->file) != 0;
    if (!err->code && bad) pva_fail(err, PVA_IO, "%s: cannot be written: is the disk full?", out->partial);
    if (!err->code && rename(out->partial, out->path)) pva_fail(err, PVA_IO, "%s: %s", out->path, strerror(errno));
    if (err->code) unlink(out->partial);
    else printf("%s  %lld records\n", out->path, (long long)n);
}

static int parse_formats(const char *list, int *jsonl, int *csv, struct pva_error *err) {
    char copy[128];
    *jsonl = *csv = 0;
    snprintf(copy, sizeof copy, "%s", list);
    for (char *save, *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        if (!strcmp(word, "jsonl")) *jsonl = 1;
        else if (!strcmp(word, "csv")) *csv = 1;
        else return pva_fail(err, PVA_USAGE, "--format: \"%s\" is unknown: jsonl, csv", word);
    }
    return PVA_OK;
}

int pva_command_export(const struct pva_options *o, struct pva_error *err) {
    const char *const *words, *run = pva_options_text(o, "run");
    char path[4096];
    int jsonl, csv;
    size_t n_words = pva_options_positional(o, &words);
    if (!run && n_words == 1) run = words[0];
    if (!run) return pva_fail(err, PVA_USAGE, "name one run directory");
    if (parse_formats(pva_options_text(o, "format"), &jsonl, &csv, err)) return err->code;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    struct table t = {0};
    struct output samples = {0}, results = {0}, lines = {0};
    snprintf(path, sizeof path, "%s/phase1.h5", run);
    if (open_table(&t, path, err)) goto done;
    if (jsonl && (open_output(&samples, run, "samples.jsonl", err) || open_output(&results, run, "results.jsonl", err))) goto done;
    if (csv && open_output(&lines, run, "results.csv", err)) goto done;
    if (csv) fprintf(lines.file, "task_id,part,difficulty,verdict,failed_test,exception,n_prompt,n_new,finish\n");
    int64_t n = 0;
    for (int64_t i = 0; i < t.n && !err->code; i++) {
        struct record r;
        if (t.states[i] == STORE_EMPTY || read_record(&t, i, &r, err)) continue;
        if (jsonl) write_sample(samples.file, &t, i), write_result(results.file, &t, i, &r);
        if (csv) write_csv(lines.file, &t, i, &r);
        n++;
    }
    close_output(&samples, n, err);
    close_output(&results, n, err);
    close_output(&lines, n, err);
    close_table(&t);
    return err->code;
done:
    close_output(&samples, 0, err);
    close_output(&results, 0, err);
    close_output(&lines, 0, err);
    close_table(&t);
    return err->code;
}
