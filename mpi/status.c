/* status: how far each phase of a run is; works while a job writes it. checkpoints: the snapshots of a run. */
#include "commands.h"
#include "phase1_count.h"
#include "pile_schema.h"
#include "record.h"

#include "pva/split.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

const struct pva_option pva_status_options[] = {
    {"run", PVA_OPT_TEXT, "DIR", NULL, "run directory (or give it without --run)", NULL, 0, 0},
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

static void print_counts(const char *run, const struct phase1_counts *c) {
    int64_t finished = c->done + c->too_long;
    printf("phase1      %lld of %lld problems%s, pass rate %.1f %% (%lld of %lld), %lld new tokens\n", (long long)finished, (long long)c->n,
           finished == c->n ? ", complete" : "", c->done ? 100.0 * (double)c->passed / (double)c->done : 0.0, (long long)c->passed, (long long)c->done,
           (long long)c->new_tokens);
    for (int p = 0; p < 3; p++)
        if (c->by_part[p][0])
            printf("  %-10s %lld graded, %.1f %% pass\n", pva_part_name((enum pva_part)p), (long long)c->by_part[p][0], 100.0 * (double)c->by_part[p][1] / (double)c->by_part[p][0]);
    printf("  verdicts  ");
    for (int v = 0; v < PVA_N_VERDICTS; v++)
        if (c->verdicts[v]) printf(" %s %lld", pva_verdict_name((enum pva_verdict)v), (long long)c->verdicts[v]);
    if (c->too_long) printf(" prompt-too-long %lld", (long long)c->too_long);
    printf("\n");
    double seconds = seconds_since_start(run);
    if (finished < c->n && finished && seconds > 0)
        printf("  about %s left at the mean rate of %.2f problems/s\n", phase1_time_left(c->n - finished, (double)finished / seconds), (double)finished / seconds);
}

/* Nothing where the phase has not begun. */
static int print_pile(const char *run, struct pva_error *err) {
    char path[4096];
    struct pile_schema schema;
    struct store *s = NULL;
    uint8_t states[256] = {0};
    int64_t documents = 0, done = 0;
    snprintf(path, sizeof path, "%s/pile.h5", run);
    if (access(path, F_OK)) return PVA_OK;
    pile_layers_any(&schema);
    if (store_open_read(path, &schema.store, &s, err)) return err->code;
    int64_t n = store_n_slots(s);
    if (n > (int64_t)sizeof states) pva_fail(err, PVA_INPUT, "%s: %lld layers, expected at most %zu", path, (long long)n, sizeof states);
    else if (!store_states(s, states, err) && !store_integer(s, "n_documents", &documents, err)) {
        for (int64_t i = 0; i < n; i++) done += states[i] != STORE_EMPTY;
        printf("pile        %lld of %lld layers%s, %lld documents\n", (long long)done, (long long)n, done == n ? ", complete" : "", (long long)documents);
    }
    struct pva_error late = {0};
    store_close(&s, &late);
    return err->code;
}

/* A file of completions: phase3's samples, steer's two stages. */
static int print_completions(const char *run, const char *name, const char *unit, struct pva_error *err) {
    char path[4096], schema_name[64];
    struct store_field fields[RECORD_N_FIELDS];
    struct store *s = NULL;
    struct pva_error late = {0};
    snprintf(path, sizeof path, "%s/%s.h5", run, name);
    if (access(path, F_OK)) return PVA_OK;
    snprintf(schema_name, sizeof schema_name, "pva-%s", name);
    record_fields(fields, 0);
    const struct store_schema schema = {.name = schema_name, .version = 1, .slot = {"item", 0}, .states = "empty done prompt-too-long", .fields = fields, .n_fields = RECORD_N_FIELDS};
    if (store_open_read(path, &schema, &s, err)) return err->code;
    int64_t n = store_n_slots(s), done = 0;
    uint8_t *states = malloc((size_t)n);
    if (!states) pva_fail(err, PVA_IO, "out of memory");
    else if (!store_states(s, states, err)) {
        for (int64_t i = 0; i < n; i++) done += states[i] != STORE_EMPTY;
        printf("%-11s %lld of %lld %s%s\n", name, (long long)done, (long long)n, unit, done == n ? ", complete" : "");
    }
    free(states);
    store_close(&s, &late);
    return err->code;
}

int pva_command_status(const struct pva_options *o, struct pva_error *err) {
    const char *run = run_of(o, err);
    char path[4096];
    if (!run) return err->code;
    if (access(run, F_OK)) return pva_fail(err, PVA_INPUT, "%s: there is no such run", run);
    snprintf(path, sizeof path, "%s/phase1.h5", run);
    printf("run         %s\n", run);
    if (access(path, F_OK)) {
        printf("phase1      not started\n");
        return print_pile(run, err);
    }
    struct phase1_schema schema;
    struct phase1_counts counts;
    struct store *s = NULL;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    phase1_schema_any(&schema);
    if (!store_open_read(path, &schema.store, &s, err) && !phase1_count(s, &counts, err)) print_counts(run, &counts);
    struct pva_error late = {0};
    if (s) store_close(&s, &late);
    if (!err->code && !print_pile(run, err) && !print_completions(run, "phase3", "samples", err) && !print_completions(run, "steer-tuning", "completions", err))
        print_completions(run, "steer", "completions", err);
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
