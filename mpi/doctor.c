/* doctor: what this machine can do, one line each; exit 1 when something needed is missing. Under a launcher every rank looks at its own node. */
#include "commands.h"
#include "engine.h"
#include "store.h"

#include "pva/grade.h"
#include "pva/log.h"
#include "pva/problems.h"
#include "pva/sae.h"

#include <gnu/libc-version.h>
#include <hdf5.h>
#include <jansson.h>
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct pva_option pva_doctor_options[] = {
    {"problems", PVA_OPT_TEXT, "FILE", NULL, "also read this problem file", NULL, 0, 0},
    {"sae", PVA_OPT_TEXT, "DIR", NULL, "also look at these autoencoders: one for each layer of --model, or a single file", NULL, 0, 0},
    {"width", PVA_OPT_TEXT, "W", NULL, "of the autoencoders: 16k, 131k ...; default: the only one there is", NULL, 0, 0},
    {"l0", PVA_OPT_TEXT, "L0", "canonical", "of the autoencoders: canonical, smallest, largest, or a number: the closest", NULL, 0, 0},
    {"layers", PVA_OPT_TEXT, "SET", "all", "of the autoencoders: all, 3, 0-5,8", NULL, 0, 0},
    {"run", PVA_OPT_TEXT, "DIR", ".", "an existing directory on the file system that will hold the results", NULL, 0, 0},
    {"python", PVA_OPT_TEXT, "PATH", NULL, "interpreter for the graded programs", NULL, 0, 0},
    {"json", PVA_OPT_FLAG, NULL, "no", "one JSON object instead of lines", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

enum verdict { FINE, ABSENT, FAILED }; /* absent: optional and not there */
enum { MOST_FINDINGS = 48, MOST_VALUES = 4, MOST_GPUS = 16 };

/* Plain bytes: travels between ranks. */
struct finding {
    enum verdict verdict;
    char what[16], text[600];
    int n_values;
    struct {
        char name[24];
        double value;
    } values[MOST_VALUES];
};

struct findings {
    int n, rank;
    char host[64];
    struct finding list[MOST_FINDINGS];
};

static struct finding *note(struct findings *f, enum verdict v, const char *what, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static struct finding *note(struct findings *f, enum verdict v, const char *what, const char *fmt, ...) {
    PVA_ASSERT(f->n < MOST_FINDINGS);
    struct finding *one = &f->list[f->n++];
    va_list ap;
    one->verdict = v;
    snprintf(one->what, sizeof one->what, "%s", what);
    va_start(ap, fmt);
    vsnprintf(one->text, sizeof one->text, fmt, ap);
    va_end(ap);
    return one;
}

static void value(struct finding *one, const char *name, double v) {
    PVA_ASSERT(one->n_values < MOST_VALUES);
    snprintf(one->values[one->n_values].name, sizeof one->values[0].name, "%s", name);
    one->values[one->n_values++].value = v;
}

/* ---- each rank for itself ---- */

static void check_memory(struct findings *f) {
    long pages = sysconf(_SC_PHYS_PAGES), free_pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
    struct finding *one = note(f, FINE, "host", "%d cores for this process, %.1f GiB memory (%.1f free), glibc %s", cores,
                               (double)pages * (double)page / 0x1p30, (double)free_pages * (double)page / 0x1p30, gnu_get_libc_version());
    value(one, "cores", cores);
    value(one, "memory_bytes", (double)pages * (double)page);
}

/* A product of a 7B model's MLP shape, 512 rows, in bfloat16. */
static void check_matmul(struct findings *f, const struct engine *e) {
    enum { N = 512, K = 2304, M = 9216 };
    struct pva_error err = {0};
    struct pva_buffer *x = NULL, *w = NULL, *y = NULL;
    double best = 1e30;
    if (!e->ops->alloc(e->be, N * K * 2, &x, &err) && !e->ops->alloc(e->be, (size_t)M * K * 2, &w, &err) && !e->ops->alloc(e->be, (size_t)N * M * 4, &y, &err)) {
        for (int r = 0; r < 3 && !err.code; r++) {
            double start = engine_now();
            if (!e->ops->linear(e->be, (struct pva_tensor){x, 0, PVA_BF16, N, K}, (struct pva_tensor){w, 0, PVA_BF16, M, K},
                                (struct pva_tensor){y, 0, PVA_F32, N, M}, &err))
                e->ops->sync(e->be, &err);
            if (engine_now() - start < best) best = engine_now() - start;
        }
    }
    e->ops->free(e->be, &x);
    e->ops->free(e->be, &w);
    e->ops->free(e->be, &y);
    if (err.code) note(f, FAILED, "matmul", "%s", err.msg);
    else
        value(note(f, FINE, "matmul", "bf16 %d x %d x %d: %.0f GFLOP/s", N, K, M, 2.0 * N * K * M / best / 1e9), "gflops", 2.0 * N * K * M / best / 1e9);
}

/* Each GPU that this process sees, whatever --backend says. */
static void check_gpus(struct findings *f) {
    struct engine e = {0};
    struct pva_error err = {0};
    e.ops = pva_backend_find("cuda", &err);
    if (!e.ops) {
        note(f, ABSENT, "gpu", "%s", err.msg);
        return;
    }
    for (int i = 0; i < e.ops->count() && i < MOST_GPUS; i++) {
        struct pva_backend_settings settings = {.device = i};
        struct pva_backend_info info;
        err = (struct pva_error){0};
        if (e.ops->open(&settings, &e.be, &err)) {
            note(f, FAILED, "gpu", "%s", err.msg);
            continue;
        }
        e.ops->describe(e.be, &info);
        value(note(f, FINE, "gpu", "%d: %s, %.1f GiB, %s", i, info.device, (double)info.memory_total / 0x1p30, info.versions), "memory_bytes",
              (double)info.memory_total);
        check_matmul(f, &e);
        e.ops->close(&e.be);
    }
}

static void check_backend(struct findings *f, const struct par *p, const struct pva_options *o) {
    struct engine e = {0};
    struct pva_error err = {0};
    struct pva_backend_info info;
    if (engine_open_device(p, o, &e, &err)) {
        note(f, FAILED, "backend", "%s", err.msg);
        return;
    }
    e.ops->describe(e.be, &info);
    note(f, FINE, "backend", "%s: %s", e.ops->name, info.device);
    check_matmul(f, &e);
    engine_close(&e);
    check_gpus(f);
}

static void check_sandbox(struct findings *f, const struct pva_options *o) {
    struct pva_grader_settings settings = {.python = pva_options_text(o, "python"), .n_jobs = 1};
    struct pva_sandbox sandbox;
    struct pva_error err = {0};
    if (pva_sandbox_probe(&settings, &sandbox, &err)) {
        note(f, FAILED, "sandbox", "%s", err.msg);
        return;
    }
    struct finding *one = note(f, FINE, "sandbox", "%s", sandbox.text);
    value(one, "level", sandbox.level);
    value(one, "layers", sandbox.layers);
    value(one, "landlock_abi", sandbox.landlock_abi);
    note(f, FINE, "python", "%s, %s", sandbox.version, sandbox.python);
}

/* ---- the job as a whole ---- */

static void check_libraries(struct findings *f, const struct par *p) {
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
    int n = 0;
    unsigned major = 0, minor = 0, release = 0;
    MPI_Get_library_version(mpi, &n);
    mpi[strcspn(mpi, ",\n")] = 0;
    struct finding *one = note(f, FINE, "mpi", "%s; %d rank%s on %d node%s", mpi, p->size, p->size > 1 ? "s" : "", p->n_nodes, p->n_nodes > 1 ? "s" : "");
    value(one, "ranks", p->size);
    value(one, "nodes", p->n_nodes);
    H5get_libversion(&major, &minor, &release);
#ifdef H5_HAVE_PARALLEL
    note(f, FINE, "hdf5", "%u.%u.%u, parallel", major, minor, release);
#else
    note(f, FAILED, "hdf5", "%u.%u.%u is a serial build; the parallel one is needed", major, minor, release);
#endif
}

/* Collective: one file, written by every rank, read by every other. */
static void check_store(struct findings *f, const struct par *p, const struct pva_options *o) {
    const char *directory = pva_options_text(o, "run");
    struct store_rates rates;
    struct pva_error err = {0};
    if (store_selftest(p, directory, &rates, &err)) {
        note(f, FAILED, "store", "%s", err.msg);
        return;
    }
    struct finding *one = note(f, FINE, "store", "a file shared by %d rank%s in %s holds; %.0f MB/s, raw pwrite %.0f MB/s", p->size, p->size > 1 ? "s" : "",
                               directory, rates.store, rates.raw);
    value(one, "store_mb_per_s", rates.store);
    value(one, "pwrite_mb_per_s", rates.raw);
}

/* n_layers and d_model stay 0 when there is no model that opens. */
static void check_model(struct findings *f, const struct pva_options *o, int *n_layers, int64_t *d_model) {
    struct engine e = {0};
    struct pva_error err = {0};
    if (!pva_options_text(o, "model")) return;
    if (engine_open(o, 0, &e, &err)) {
        note(f, FAILED, "model", "%s", err.msg);
        engine_close(&e);
        return;
    }
    const struct pva_model_config *c = pva_model_get_config(e.model);
    *n_layers = c->n_layers, *d_model = c->d_model;
    struct finding *one =
        note(f, FINE, "model", "%s, %d layers, d_model %d, %.3f G parameters, %.2f GB read per token, opened in %.3f s, %.2f GB converted", c->architecture,
             c->n_layers, c->d_model, (double)pva_model_parameters(e.model) / 1e9, (double)pva_model_weight_bytes(e.model) / 1e9, e.open_seconds,
             (double)pva_model_converted(e.model) / 1e9);
    value(one, "parameters", (double)pva_model_parameters(e.model));
    value(one, "open_seconds", e.open_seconds);
    if (e.tokenizer) note(f, FINE, "tokenizer", "%d tokens", pva_tokenizer_n_vocab(e.tokenizer));
    else note(f, ABSENT, "tokenizer", "no tokenizer.model in the directory: only token ids can be given");
    engine_close(&e);
}

static void check_problems(struct findings *f, const struct pva_options *o) {
    const char *path = pva_options_text(o, "problems");
    struct pva_problems *problems = NULL;
    struct pva_error err = {0};
    if (!path) return;
    if (pva_problems_load(path, &problems, &err)) {
        note(f, FAILED, "problems", "%s", err.msg);
        return;
    }
    size_t n = pva_problems_count(problems), tests = 0, human = 0;
    for (size_t i = 0; i < n; i++) {
        const struct pva_problem *p = pva_problems_at(problems, i);
        tests += p->n_tests;
        human += p->kind == PVA_HUMANEVAL;
    }
    value(note(f, FINE, "problems", "%zu problems (%s), %zu tests", n, human == n ? "HumanEval" : human ? "MBPP and HumanEval" : "MBPP", tests), "problems",
          (double)n);
    pva_problems_free(&problems);
}

static int look_at_sae(const char *path, int64_t d_model, int64_t *n_latents, struct pva_error *err) {
    struct pva_sae *sae = NULL;
    if (pva_sae_open(path, &sae, err)) return err->code;
    *n_latents = pva_sae_n_latents(sae);
    if (d_model && pva_sae_d_model(sae) != d_model)
        pva_fail(err, PVA_INPUT, "%s: reads %lld values, the model's residual stream has %lld", path, (long long)pva_sae_d_model(sae), (long long)d_model);
    pva_sae_close(&sae);
    return err->code;
}

static void check_sae(struct findings *f, const struct pva_options *o, int n_layers, int64_t d_model) {
    const char *path = pva_options_text(o, "sae");
    struct pva_error err = {0}, none = {0};
    int64_t n_latents = 0, least = INT64_MAX, most = 0;
    if (!path) return;
    if (!look_at_sae(path, d_model, &n_latents, n_layers ? &none : &err)) { /* a single one */
        note(f, FINE, "sae", "%s: %lld latents", path, (long long)n_latents);
        return;
    }
    struct pva_sae_file *files = calloc((size_t)n_layers + 1, sizeof *files);
    unsigned char *layers = calloc((size_t)n_layers + 1, 1);
    PVA_ASSERT(files && layers);
    int n = 0;
    if (!n_layers) note(f, FAILED, "sae", "%s; for a directory of autoencoders name the model, too (--model)", err.msg);
    else if (!pva_parse_set(pva_options_text(o, "layers"), n_layers, layers, &err) &&
             !pva_sae_scan(path, pva_options_text(o, "width"), pva_options_text(o, "l0"), n_layers, layers, files, &err))
        for (int l = 0; l < n_layers && !err.code; l++) {
            if (!layers[l] || look_at_sae(files[l].path, d_model, &n_latents, &err)) continue;
            n++;
            if (n_latents < least) least = n_latents;
            if (n_latents > most) most = n_latents;
        }
    if (n_layers && err.code) note(f, FAILED, "sae", "%s", err.msg);
    else if (n_layers) {
        char range[64];
        snprintf(range, sizeof range, "%lld to %lld", (long long)least, (long long)most);
        value(note(f, FINE, "sae", "%d layers have one, of %s latents", n, least < most ? range : strchr(range, 'o') + 2), "layers", n);
    }
    free(files);
    free(layers);
}

/* ---- telling ---- */

static const char *const words[] = {"ok", "-", "FAIL"}, *const statuses[] = {"ok", "absent", "fail"};

/* Colour is for people: on a terminal, unless they have set NO_COLOR. Open MPI's ranks have a terminal for stdout wherever that goes in the end, but not for stderr. */
static const char *const *colours_of_verdicts(void) {
    static const char *const plain[] = {"", "", ""}, *const bright[] = {"\033[32m", "", "\033[1;31m"};
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && isatty(STDERR_FILENO) && !(no && *no) && !(term && !strcmp(term, "dumb")) ? bright : plain;
}

static void print_lines(const struct findings *f) {
    const char *const *colours = colours_of_verdicts();
    for (int i = 0; i < f->n; i++) {
        const struct finding *one = &f->list[i];
        printf("%s%-5s%s %-10s ", colours[one->verdict], words[one->verdict], *colours[one->verdict] ? "\033[0m" : "", one->what);
        if (f->rank) printf("rank %d on %s: ", f->rank, f->host);
        printf("%s\n", one->text);
    }
}

static void add_json(json_t *checks, const struct findings *f) {
    for (int i = 0; i < f->n; i++) {
        const struct finding *one = &f->list[i];
        json_t *o = json_pack("{s:s,s:s,s:i,s:s,s:s}", "check", one->what, "status", statuses[one->verdict], "rank", f->rank, "host", f->host, "text", one->text);
        for (int k = 0; k < one->n_values; k++) json_object_set_new(o, one->values[k].name, json_real(one->values[k].value));
        json_array_append_new(checks, o);
    }
}

static int count_failures(const struct findings *f) {
    int n = 0;
    for (int i = 0; i < f->n; i++) n += f->list[i].verdict == FAILED;
    return n;
}

/* Rank 0 tells what all have found; the failures of all ranks. Collective. */
static int tell(const struct findings *mine, const struct par *p, int as_json) {
    struct findings *all = p->rank == 0 ? calloc((size_t)p->size, sizeof *all) : NULL;
    int failures = 0;
    if (p->rank == 0) PVA_ASSERT(all);
    PAR_CHECK(p, MPI_Gather(mine, sizeof *mine, MPI_BYTE, all, sizeof *mine, MPI_BYTE, 0, p->comm));
    for (int r = 0; all && r < p->size; r++) failures += count_failures(&all[r]);
    PAR_CHECK(p, MPI_Bcast(&failures, 1, MPI_INT, 0, p->comm));
    if (all && as_json) {
        json_t *checks = json_array();
        for (int r = 0; r < p->size; r++) add_json(checks, &all[r]);
        json_t *o = json_pack("{s:s,s:b,s:i,s:o}", "version", PVA_VERSION, "ok", failures == 0, "failures", failures, "checks", checks);
        json_dumpf(o, stdout, JSON_INDENT(2));
        printf("\n");
        json_decref(o);
    } else if (all) {
        printf("pva-mpi %s\n", PVA_VERSION);
        for (int r = 0; r < p->size; r++) print_lines(&all[r]);
    }
    free(all);
    return failures;
}

int pva_command_doctor(const struct pva_options *o, struct pva_error *err) {
    struct findings *f = calloc(1, sizeof *f);
    struct par par = {0};
    if (!f) return pva_fail(err, PVA_IO, "out of memory");
    check_memory(f);
    check_sandbox(f, o); /* forks: before MPI */
    if (par_open(&par, err)) {
        free(f);
        return err->code;
    }
    if (par.rank) pva_log_screen(PVA_LOG_ERROR);
    f->rank = par.rank;
    memcpy(f->host, par.host, sizeof f->host);
    check_backend(f, &par, o);
    struct findings *whole = par.rank ? calloc(1, sizeof *whole) : f; /* what concerns the job is said once, by rank 0 */
    PVA_ASSERT(whole);
    if (par.rank == 0) {
        int n_layers = 0;
        int64_t d_model = 0;
        check_libraries(f, &par);
        check_model(f, o, &n_layers, &d_model);
        check_problems(f, o);
        check_sae(f, o, n_layers, d_model);
    }
    check_store(whole, &par, o);
    int failures = tell(f, &par, pva_options_flag(o, "json"));
    if (par.rank) free(whole);
    free(f);
    par_close(&par);
    return failures ? PVA_CHECK : PVA_OK;
}
