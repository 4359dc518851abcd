/* status: how far each phase of a run is; works while a job writes it. checkpoints: the snapshots of a run. */
#include "commands.h"
#include "phase1_count.h"

#include "pva/split.h"

#include <hdf5.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

const struct pva_option pva_status_options[] = {
    {"run", PVA_OPT_TEXT, "DIR", NULL, "run directory (or give it without --run)", NULL, 0, 0},
    {"json", PVA_OPT_FLAG, NULL, "no", "status: as JSON", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

static const char *run_of(const struct pva_options *o, struct pva_error *err) {
    const char *const *words, *run = pva_options_text(o, "run");
    size_t n = pva_options_positional(o, &words);
    if (!run && n == 1) return words[0];
    if (run && n == 0) return run;
    pva_fail(err, PVA_USAGE, "name one run directory");
    return NULL;
}

/* The rate since the run's last start, from the age of its log: what a person would estimate. */
static double seconds_since_start(const char *run) {
    char path[4096];
    struct stat lock, results;
    snprintf(path, sizeof path, "%s/.lock", run);
    if (stat(path, &lock)) return 0;
    snprintf(path, sizeof path, "%s/phase1.h5", run);
    if (stat(path, &results)) return 0;
    return (double)(results.st_mtime - lock.st_mtime);
}

/* ---- what there is to say, as JSON; the text is made from it ---- */

static json_t *phase1_status(const char *run, const struct phase1_counts *c) {
    int64_t finished = c->done + c->too_long;
    json_t *o = json_pack("{s:I,s:I,s:b,s:I,s:I,s:I,s:I}", "problems", (json_int_t)c->n, "finished", (json_int_t)finished, "complete", finished == c->n, "graded",
                          (json_int_t)c->done, "passed", (json_int_t)c->passed, "prompt_too_long", (json_int_t)c->too_long, "new_tokens", (json_int_t)c->new_tokens);
    json_t *parts = json_object(), *verdicts = json_object();
    for (int p = 0; p < PVA_N_PARTS; p++)
        json_object_set_new(parts, pva_part_name((enum pva_part)p), json_pack("{s:I,s:I}", "graded", (json_int_t)c->by_part[p][0], "passed", (json_int_t)c->by_part[p][1]));
    for (int v = 0; v < PVA_N_VERDICTS; v++)
        if (c->verdicts[v]) json_object_set_new(verdicts, pva_verdict_name((enum pva_verdict)v), json_integer((json_int_t)c->verdicts[v]));
    json_object_set_new(o, "parts", parts);
    json_object_set_new(o, "verdicts", verdicts);
    double seconds = seconds_since_start(run);
    if (finished < c->n && finished && seconds > 0) json_object_set_new(o, "problems_per_second", json_real((double)finished / seconds));
    return o;
}

/* Slots of a phase's file, whatever is in them; *o stays NULL where the phase has not begun. */
static int count_slots(const char *run, const char *file, const char *schema_name, const char *unit, json_t **o, struct pva_error *err) {
    char path[4096];
    const struct store_schema any = {.name = schema_name, .version = 1};
    struct store *s = NULL;
    struct pva_error late = {0};
    snprintf(path, sizeof path, "%s/%s", run, file);
    if (access(path, F_OK) || store_open_read(path, &any, &s, err)) return err->code;
    int64_t n = store_n_slots(s), done = 0;
    uint8_t *states = malloc((size_t)n + 1);
    if (!states) pva_fail(err, PVA_IO, "out of memory");
    else if (!store_states(s, states, err)) {
        for (int64_t i = 0; i < n; i++) done += states[i] != STORE_EMPTY;
        *o = json_pack("{s:s,s:I,s:I,s:b}", "unit", unit, "of", (json_int_t)n, "finished", (json_int_t)done, "complete", done == n);
    }
    free(states);
    store_close(&s, &late);
    return err->code;
}

static const struct {
    const char *phase, *file, *schema, *unit;
} others[] = {
    {"pile", "pile.h5", "pva-pile", "layers"},
    {"phase2", "phase2.h5", "pva-phase2", "layers encoded"},
    {"selection", "phase2-selection.h5", "pva-phase2-selection", "layers ranked"},
    {"phase3", "phase3.h5", "pva-phase3", "completions"},
    {"steer-tuning", "steer-tuning.h5", "pva-steer-tuning", "completions"},
    {"steer", "steer.h5", "pva-steer", "completions"},
    {"steer-dose", "steer-dose.h5", "pva-steer-dose", "completions"},
};

static int gather(const char *run, json_t *all, struct pva_error *err) {
    char path[4096];
    struct phase1_schema schema;
    struct phase1_counts counts;
    struct store *s = NULL;
    struct pva_error late = {0};
    snprintf(path, sizeof path, "%s/phase1.h5", run);
    if (!access(path, F_OK)) {
        phase1_schema_any(&schema);
        if (!store_open_read(path, &schema.store, &s, err) && !phase1_count(s, &counts, err)) json_object_set_new(all, "phase1", phase1_status(run, &counts));
        if (s) store_close(&s, &late);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others && !err->code; i++) {
        json_t *o = NULL;
        count_slots(run, others[i].file, others[i].schema, others[i].unit, &o, err);
        if (o) json_object_set_new(all, others[i].phase, o);
    }
    return err->code;
}

/* ---- as text ---- */

static long long number(const json_t *o, const char *key) { return json_integer_value(json_object_get(o, key)); }
static double percent(long long part, long long all) { return all ? 100.0 * (double)part / (double)all : 0.0; }

static void print_phase1(const json_t *o) {
    const char *key;
    json_t *value;
    long long n = number(o, "problems"), finished = number(o, "finished");
    printf("phase1       %lld of %lld problems%s", finished, n, finished == n ? ", complete" : "");
    if (!finished) {
        printf("\n");
        return;
    }
    printf(", pass rate %.1f %% (%lld of %lld), %lld new tokens\n", percent(number(o, "passed"), number(o, "graded")), number(o, "passed"), number(o, "graded"),
           number(o, "new_tokens"));
    json_object_foreach(json_object_get(o, "parts"), key, value) if (number(value, "graded"))
        printf("  %-10s %5lld graded, %5.1f %% pass\n", key, number(value, "graded"), percent(number(value, "passed"), number(value, "graded")));
    printf("  verdicts  ");
    json_object_foreach(json_object_get(o, "verdicts"), key, value) printf(" %s %lld", key, (long long)json_integer_value(value));
    if (number(o, "prompt_too_long")) printf(" prompt-too-long %lld", number(o, "prompt_too_long"));
    printf("\n");
    double rate = json_real_value(json_object_get(o, "problems_per_second"));
    if (rate > 0) printf("  about %s left at the mean rate of %.2f problems/s\n", phase1_time_left(n - finished, rate), rate);
}

static void print_all(const json_t *all) {
    const json_t *first = json_object_get(all, "phase1");
    printf("run          %s\n", json_string_value(json_object_get(all, "run")));
    if (first) print_phase1(first);
    else printf("phase1       not started\n");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const json_t *o = json_object_get(all, others[i].phase);
        if (o)
            printf("%-12s %lld of %lld %s%s\n", others[i].phase, number(o, "finished"), number(o, "of"), others[i].unit,
                   number(o, "finished") == number(o, "of") ? ", complete" : "");
    }
}

int pva_command_status(const struct pva_options *o, struct pva_error *err) {
    const char *run = run_of(o, err);
    if (!run) return err->code;
    if (access(run, F_OK)) return pva_fail(err, PVA_INPUT, "%s: there is no such run", run);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    json_t *all = json_pack("{s:s}", "run", run);
    if (!all) return pva_fail(err, PVA_INPUT, "%s: the name is not UTF-8", run);
    gather(run, all, err);
    if (err->code && json_object_size(all) == 1) {
        json_decref(all);
        return err->code;
    }
    if (pva_options_flag(o, "json")) json_dumpf(all, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER), printf("\n");
    else print_all(all);
    json_decref(all);
    return err->code;
}

int pva_command_checkpoints(const struct pva_options *o, struct pva_error *err) {
    const char *run = run_of(o, err);
    struct store_snapshot *list = NULL;
    int n = 0;
    char path[4096], when[32];
    if (!run) return err->code;
    snprintf(path, sizeof path, "%s/phase1.h5", run);
    if (store_snapshots(path, &list, &n, err)) return err->code;
    if (n == 0) printf("no snapshots in %s/checkpoints\n", run);
    for (int i = 0; i < n; i++) {
        time_t t = (time_t)list[i].time;
        struct tm utc;
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&t, &utc));
        printf("%s  %lld records  %.1f MB  %s\n", list[i].path, (long long)list[i].count, (double)list[i].bytes / 1e6, when);
    }
    if (n) printf("a phase starts from one with --resume PATH\n");
    store_snapshots_free(&list, &n);
    return PVA_OK;
}
