/* The store's test program: a job like a phase's, small. Every byte it writes follows from the slot's number, so that any file
 * can be checked without knowing its history.
 *
 *     store_writer write FILE [options]   under mpirun or alone: opens or resumes, verifies, fills all slots, leaves
 *     store_writer check FILE [options]   alone: every committed slot's content, and the logs, against what must be there
 *     store_writer list FILE              the snapshots
 *     store_writer bench DIR              write rates at several record sizes, medians of 5
 *
 * --log PREFIX: each rank appends the number of each slot to PREFIX.RANK when its commit has returned. */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { n_layers = 3, d_model = 2304, n_tokens = 200, text_size = 1000, n_fields = 8 };

static struct options {
    int64_t slots, nap_us, checkpoint_every, snapshot_every, keep, stop_after;
    int version, type, layers, hide, pause_ms;
    const char *model, *log, *from, *prompt, *name;
    int64_t first_task;
    enum store_mode mode;
} o = {.slots = 40,
       .checkpoint_every = 50,
       .snapshot_every = 100,
       .keep = 3,
       .version = 3,
       .type = STORE_F32,
       .layers = n_layers,
       .hide = -1,
       .model = "model-a",
       .prompt = "prompt-a",
       .name = "pva-test"};

/* ---- the table --------------------------------------------------------------------------------------------------- */

static struct store_field fields[n_fields];
static struct store_coordinate coordinates[3];
static struct store_attribute attributes[4];
static int32_t layers[64] = {0, 6, 25, 30, 40};

static struct store_schema schema(int slots_matter) {
    const struct store_field all[n_fields] = {
        {"tokens", STORE_I32, 0, 1, {{"token", n_tokens}}, NULL, "token ids, padded with -1"},
        {"text", STORE_BYTES, text_size, 0, {{0}}, NULL, "completion"},
        {"verdict", STORE_U8, 0, 0, {{0}}, NULL, "class of the verdict"},
        {"seconds", STORE_F64, 0, 0, {{0}}, "s", "time of generation"},
        {"n_generated", STORE_I64, 0, 0, {{0}}, NULL, "tokens generated"},
        {"resid_post", (enum store_type)o.type, 0, 2, {{"layer", o.layers}, {"d_model", d_model}}, NULL, "residual stream"},
        {"score", STORE_F32, 0, 1, {{"layer", o.layers}}, NULL, NULL},
        {"sign", STORE_I8, 0, 0, {{0}}, NULL, NULL},
    };
    int n = 0;
    for (int i = 0; i < n_fields; i++)
        if (i != o.hide) fields[n++] = all[i];
    static int32_t *tasks;
    static char *prompts;
    free(tasks), free(prompts);
    tasks = calloc((size_t)o.slots, sizeof *tasks), prompts = calloc((size_t)o.slots, 32);
    if (!tasks || !prompts) exit(70);
    for (int64_t i = 0; i < o.slots; i++) {
        tasks[i] = (int32_t)(o.first_task + i);
        snprintf(prompts + 32 * i, 32, "%s number %lld", o.prompt, (long long)i);
    }
    coordinates[0] =
        (struct store_coordinate){{"problem", STORE_I32, 0, 1, {{"problem", o.slots}}, NULL, "task_id"}, tasks, slots_matter};
    coordinates[1] =
        (struct store_coordinate){{"layer", STORE_I32, 0, 1, {{"layer", o.layers}}, NULL, "layer number"}, layers, 1};
    coordinates[2] = (struct store_coordinate){{"prompt", STORE_BYTES, 32, 1, {{"problem", o.slots}}, NULL, "the prompt"},
                                               prompts,
                                               slots_matter};
    attributes[0] = (struct store_attribute){"model_sha256", STORE_TEXT, o.model, 0, 0, 1};
    attributes[1] = (struct store_attribute){"max_tokens", STORE_INTEGER, NULL, 2000, 0, 1};
    attributes[2] = (struct store_attribute){"temperature", STORE_REAL, NULL, 0, 0.7, 1};
    attributes[3] = (struct store_attribute){"host", STORE_TEXT, "anywhere", 0, 0, 0};
    return (struct store_schema){.name = o.name,
                                 .version = o.version,
                                 .title = "test of the store",
                                 .source = "store_writer",
                                 .history = "made by a test",
                                 .slot = {"problem", slots_matter ? o.slots : 0},
                                 .states = "empty done too_long",
                                 .fields = fields,
                                 .n_fields = n,
                                 .coordinates = coordinates,
                                 .n_coordinates = 3,
                                 .attributes = attributes,
                                 .n_attributes = 4};
}

/* The content of a field of a slot, from a small counter-based mixer. */
static void content(int64_t slot, int field, unsigned char *out, size_t bytes) {
    uint64_t x = (uint64_t)slot * 0x9e3779b97f4a7c15u + (uint64_t)field * 0xd1342543de82ef95u + 1;
    for (size_t i = 0; i < bytes; i++) {
        if (i % 8 == 0) x ^= x >> 31, x *= 0xbf58476d1ce4e5b9u, x ^= x >> 27, x += i;
        out[i] = (unsigned char)(x >> 8 * (i % 8));
    }
    if (field == 1) /* text: letters, of varying length, padded */
        for (size_t i = 0; i < bytes; i++) out[i] = i < (size_t)(slot * 37 % text_size) ? (unsigned char)('a' + out[i] % 26) : 0;
}

static int state_of(int64_t slot) { return slot % 7 == 5 ? 2 : STORE_DONE; }

/* ---- write ------------------------------------------------------------------------------------------------------- */

static void append(const struct par *par, int64_t slot) {
    char name[4096], line[32];
    snprintf(name, sizeof name, "%s.%d", o.log, par->rank);
    int fd = open(name, O_WRONLY | O_CREAT | O_APPEND, 0666), n = snprintf(line, sizeof line, "%lld\n", (long long)slot);
    if (fd < 0 || write(fd, line, (size_t)n) != n) exit(70);
    close(fd);
}

static void nap(int64_t us) {
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    if (us > 0) nanosleep(&t, NULL);
}

/* No collective call in here: what a rank finds is its own affair until it has left. */
static void fill(const struct par *par, struct store *s, struct pva_error *err) {
    uint8_t *states = malloc((size_t)o.slots);
    unsigned char *data = malloc(1 << 20);
    int64_t mine = 0;
    if (!states || !data) exit(70);
    store_states(s, states, err);
    for (int64_t slot = par->rank; slot < o.slots && !err->code; slot += par->size) {
        if (states[slot]) continue;
        if (o.stop_after && mine == o.stop_after) break;
        for (int f = 0; f < schema(1).n_fields && !err->code; f++) {
            size_t bytes = store_field_bytes(s, f);
            if (bytes > 1 << 20) exit(70);
            content(slot, f, data, bytes);
            store_write(s, slot, f, data, err);
            nap(o.nap_us / n_fields);
        }
        if (err->code || store_commit(s, slot, state_of(slot), err)) break;
        if (o.log) append(par, slot);
        mine++;
        if (mine % o.checkpoint_every == 0) store_checkpoint(s, err);
        if (par->rank == 0 && !err->code) {
            int running;
            struct pva_error snapshot = {0};
            store_snapshot_poll(s, &running, &snapshot);
            if (mine * par->size % o.snapshot_every < par->size)
                store_snapshot_start(s, mine * par->size, (int)o.keep, &snapshot);
            if (snapshot.code) fprintf(stderr, "store_writer: warning: %s\n", snapshot.msg);
        }
    }
    free(states), free(data);
}

static int run_write(const char *path) {
    struct par par;
    struct pva_error err = {0};
    struct store *s = NULL;
    int64_t *damaged = NULL, n_damaged = 0;
    if (par_open(&par, &err)) {
        fprintf(stderr, "store_writer: %s\n", err.msg);
        return err.code;
    }
    struct store_schema table = schema(1);
    if (o.from) store_copy(&par, o.from, path, &table, &err);
    if (!err.code) store_open(&par, path, &table, o.mode, &s, &err);
    if (!err.code) store_verify(&par, s, &damaged, &n_damaged, &err);
    if (!err.code) {
        if (par.rank == 0 && n_damaged) printf("damaged %lld, first %lld\n", (long long)n_damaged, (long long)damaged[0]);
        fill(&par, s, &err);
        if (o.pause_ms) nap(o.pause_ms * 1000);
        struct pva_error snapshot = {0};
        if (par.rank == 0 && !err.code && store_snapshot_wait(s, &snapshot))
            fprintf(stderr, "store_writer: warning: %s\n", snapshot.msg);
        par_agree(&par, "writing", &err);
    }
    struct pva_error closing = {0};
    store_close(&s, &closing);
    if (!err.code) err = closing, par_agree(&par, "closing", &err);
    free(damaged);
    if (par.rank == 0 && err.code) fprintf(stderr, "store_writer: %s\n", err.msg);
    int code = err.code;
    par_close(&par);
    return code;
}

/* ---- check ------------------------------------------------------------------------------------------------------- */

/* Counts how often each slot was logged. */
static void read_logs(int *logged) {
    for (int rank = 0; o.log && rank < 64; rank++) {
        char name[4096];
        snprintf(name, sizeof name, "%s.%d", o.log, rank);
        FILE *f = fopen(name, "r");
        long long slot;
        while (f && fscanf(f, "%lld", &slot) == 1)
            if (slot >= 0 && slot < o.slots) logged[slot]++;
        if (f) fclose(f);
    }
}

static int run_check(const char *path) {
    struct pva_error err = {0};
    struct store *s = NULL;
    struct store_schema table = schema(0);
    int64_t *damaged = NULL, n_damaged = 0, done = 0, wrong = 0, lost = 0, doubled = 0;
    unsigned char *has = malloc(1 << 20), *expected = malloc(1 << 20);
    if (!has || !expected) return 70;
    if (store_open_read(path, &table, &s, &err) || store_check(s, &damaged, &n_damaged, &err)) {
        fprintf(stderr, "store_writer: %s\n", err.msg);
        return err.code;
    }
    o.slots = store_n_slots(s);
    uint8_t *states = calloc((size_t)o.slots, 1);
    int *logged = calloc((size_t)o.slots, sizeof *logged);
    if (!states || !logged) return 70;
    read_logs(logged); /* first: a job may still be committing, and it logs after it commits */
    if (store_states(s, states, &err)) return 70;
    for (int64_t i = 0; i < o.slots; i++) {
        done += states[i] != 0;
        lost += logged[i] && !states[i];
        doubled += logged[i] > 1;
        if (states[i] && states[i] != state_of(i)) wrong++;
        else if (states[i])
            for (int f = 0; f < table.n_fields; f++) {
                content(i, f, expected, store_field_bytes(s, f));
                if (store_read(s, i, f, has, &err) || memcmp(has, expected, store_field_bytes(s, f))) {
                    wrong++;
                    break;
                }
            }
    }
    printf("committed %lld of %lld, damaged %lld, wrong %lld, lost %lld, doubled %lld\n", (long long)done, (long long)o.slots,
           (long long)n_damaged, (long long)wrong, (long long)lost, (long long)doubled);
    store_close(&s, &err);
    free(damaged), free(states), free(logged), free(has), free(expected);
    return n_damaged || wrong || lost || doubled || err.code ? 1 : 0;
}

static int run_list(const char *path) {
    struct store_snapshot *list;
    struct pva_error err = {0};
    int n;
    if (store_snapshots(path, &list, &n, &err)) fprintf(stderr, "store_writer: %s\n", err.msg);
    for (int i = 0; i < n; i++) printf("%s %lld\n", list[i].path, (long long)list[i].count);
    store_snapshots_free(&list, &n);
    return err.code;
}

/* ---- bench ------------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int run_bench(const char *dir) {
    static const int64_t records[] = {10240, 245760, 614400};
    struct par par;
    struct pva_error err = {0};
    if (par_open(&par, &err)) return err.code;
    if (par.rank == 0) printf("| ranks | record | store MB/s | raw pwrite MB/s | store / raw |\n|---|---|---|---|---|\n");
    for (int k = 0; k < 3 && !err.code; k++) {
        double store[5], raw[5], ratio[5];
        for (int i = 0; i < 5 && !err.code; i++) {
            struct store_rates r;
            if (store_measure(&par, dir, records[k], 150000000 / records[k], &r, &err)) break;
            store[i] = r.store, raw[i] = r.raw, ratio[i] = r.store / r.raw;
        }
        qsort(store, 5, sizeof *store, by_value), qsort(raw, 5, sizeof *raw, by_value), qsort(ratio, 5, sizeof *ratio, by_value);
        if (par.rank == 0 && !err.code)
            printf("| %d | %lld kB | %.0f | %.0f | %.2f (%.2f-%.2f) |\n", par.size, (long long)records[k] / 1024, store[2],
                   raw[2], ratio[2], ratio[0], ratio[4]);
    }
    if (par.rank == 0 && err.code) fprintf(stderr, "store_writer: %s\n", err.msg);
    int code = err.code;
    par_close(&par);
    return code;
}

static int run_selftest(const char *dir) {
    struct par par;
    struct pva_error err = {0};
    struct store_rates r;
    if (par_open(&par, &err)) return err.code;
    if (!store_selftest(&par, dir, &r, &err) && par.rank == 0) printf("store works: %.0f MB/s, raw %.0f MB/s\n", r.store, r.raw);
    if (par.rank == 0 && err.code) fprintf(stderr, "store_writer: %s\n", err.msg);
    int code = err.code;
    par_close(&par);
    return code;
}

int main(int argc, char **argv) {
    static const struct option known[] = {{"slots", 1, 0, 's'},
                                          {"nap", 1, 0, 'n'},
                                          {"checkpoint-every", 1, 0, 'c'},
                                          {"snapshot-every", 1, 0, 'a'},
                                          {"keep", 1, 0, 'k'},
                                          {"log", 1, 0, 'l'},
                                          {"from", 1, 0, 'f'},
                                          {"fresh", 0, 0, 'F'},
                                          {"replace", 0, 0, 'R'},
                                          {"model", 1, 0, 'm'},
                                          {"version", 1, 0, 'v'},
                                          {"type", 1, 0, 't'},
                                          {"layers", 1, 0, 'L'},
                                          {"hide", 1, 0, 'h'},
                                          {"first-task", 1, 0, 'T'},
                                          {"prompt", 1, 0, 'p'},
                                          {"stop-after", 1, 0, 'x'},
                                          {"pause", 1, 0, 'w'},
                                          {"name", 1, 0, 'N'},
                                          {0, 0, 0, 0}};
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        long long n = optarg ? strtoll(optarg, NULL, 10) : 0;
        switch (c) {
        case 's': o.slots = n; break;
        case 'n': o.nap_us = n; break;
        case 'c': o.checkpoint_every = n; break;
        case 'a': o.snapshot_every = n; break;
        case 'k': o.keep = n; break;
        case 'l': o.log = optarg; break;
        case 'f': o.from = optarg; break;
        case 'F': o.mode = STORE_FRESH; break;
        case 'R': o.mode = STORE_REPLACE; break;
        case 'm': o.model = optarg; break;
        case 'p': o.prompt = optarg; break;
        case 'v': o.version = (int)n; break;
        case 't': o.type = (int)n; break;
        case 'L': o.layers = (int)n; break;
        case 'h': o.hide = (int)n; break;
        case 'T': o.first_task = n; break;
        case 'x': o.stop_after = n; break;
        case 'N': o.name = optarg; break;
        case 'w': o.pause_ms = (int)n; break;
        default: return 2;
        }
    }
    if (argc - optind != 2 || o.slots < 1 || o.layers < 1 || o.layers > 64) {
        fprintf(stderr, "usage: store_writer write|check|list|bench|selftest FILE_OR_DIRECTORY [options]\n");
        return 2;
    }
    const char *verb = argv[optind], *path = argv[optind + 1];
    if (!strcmp(verb, "write")) return run_write(path);
    if (!strcmp(verb, "check")) return run_check(path);
    if (!strcmp(verb, "list")) return run_list(path);
    if (!strcmp(verb, "bench")) return run_bench(path);
    if (!strcmp(verb, "selftest")) return run_selftest(path);
    fprintf(stderr, "store_writer: no verb \"%s\"\n", verb);
    return 2;
}
