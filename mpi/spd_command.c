/* spd-run's command line, and its runs one after the other. */
#include "spd_command.h"
#include "spd_report.h"

#include "par.h"
#include "run.h"
#include "stop.h"

#include "pva/backend.h"
#include "pva/log.h"
#include "pva/options.h"
#include "pva/spd.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const struct pva_option options[] = {
    {"experiments", PVA_OPT_TEXT, "KEYS", NULL, "registered experiments, separated by commas (also -e); default: all", NULL, 0,
     0},
    {"out", PVA_OPT_TEXT, "DIR", NULL, "where run directories go; default $SPD_CACHE_DIR/runs, else ~/spd_cache/runs", NULL, 0,
     0},
    {"seed", PVA_OPT_INT, "S", NULL, "in place of the configuration's", NULL, 0, 9e15},
    {"steps", PVA_OPT_INT, "N", NULL, "in place of the configuration's", NULL, 1, 4e9},
    {"target-seed", PVA_OPT_INT, "S", "0", "where the search for a target model begins", NULL, 0, 9e15},
    {"sweep", PVA_OPT_TEXT, "FILE", NULL, "a grid of settings; without FILE sweep_params.yaml", NULL, 0, 0},
    {"list", PVA_OPT_FLAG, NULL, "no", "print the sweep's runs, a line of arguments each, for a job array", NULL, 0, 0},
    {"index", PVA_OPT_INT, "I", NULL, "only run I of the sweep, counted from 0", NULL, 0, 1e9},
    {"n-agents", PVA_OPT_INT, "N", NULL, "sweep: tasks at a time, said to slurm/spd.sh (also -n)", NULL, 1, 1e6},
    {"local", PVA_OPT_FLAG, NULL, "yes", "here, one after the other; jobs of a cluster are submitted by slurm/spd.sh", NULL, 0,
     0},
    {"report", PVA_OPT_FLAG, NULL, "no", "only write the report of the run directories named", NULL, 0, 0},
    {"create-report", PVA_OPT_FLAG, NULL, "yes", "report.html for each run, and a comparison of several", NULL, 0, 0},
    {"report-title", PVA_OPT_TEXT, "TEXT", NULL, "of the comparison", NULL, 0, 0},
    {"project", PVA_OPT_TEXT, "NAME", NULL, "first part of run directories' names; default: the configuration's wandb_project",
     NULL, 0, 0},
    {"job-suffix", PVA_OPT_TEXT, "S", NULL, "last part of them", NULL, 0, 0},
    {"cpu", PVA_OPT_FLAG, NULL, "yes", "on the CPU; --no-cpu: on this rank's GPU (targets are trained on the CPU all the same)", NULL, 0, 0},
    {"dp", PVA_OPT_INT, "N", NULL, "must be the number of ranks mpirun started: 1, 2, 4 or 8", NULL, 1, 8},
    {"threads", PVA_OPT_INT, "N", "0", "per rank; 0: the cores it may use, at most 8", NULL, 0, 8},
    {"resume", PVA_OPT_CHOICE, "HOW", "auto", "go on from a run's checkpoint, or begin again", "auto|never", 0, 0},
    {"shortcuts", PVA_OPT_FLAG, NULL, "yes", "exact shortcuts: zero inputs once, collapsed residual stream", NULL, 0, 0},
    {"quiet", PVA_OPT_FLAG, NULL, "no", "no progress, no summary", NULL, 0, 0},
    {"verbose", PVA_OPT_FLAG, NULL, "no", "say more", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};
static const struct pva_option *const tables[] = {options, NULL};

static const char synopsis[] = "[-e KEY,...] [options]\n"
                               "       spd-run CONFIG.yaml            one decomposition from a file\n"
                               "       spd-run target KEY --out DIR   train a target model only\n"
                               "       spd-run --report RUN...        the report again\n"
                               "       mpirun -n 2 spd-run ...        the same result from several ranks";

struct spd {
    const struct pva_options *o;
    struct par par;
    int parallel; /* MPI runs */
    struct pva_spd_ranks ranks;
    const struct pva_backend_ops *ops; /* a GPU's, or NULL */
    struct pva_backend *be;
    int threads;
    char out[2048];
    double started, shown;
    int64_t first_step;
    const char *label;
    int is_target;
};

struct run_spec {
    char *name, *key; /* key: NULL for a file */
    struct pva_spd_config config;
};

static int rank_of(const struct spd *s) { return s->parallel ? s->par.rank : 0; }
static int agree(const struct spd *s, const char *step, struct pva_error *err) {
    return s->parallel ? par_agree(&s->par, step, err) : err->code;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int gather(void *user, const void *own, size_t bytes, void *all, struct pva_error *err) {
    const struct spd *s = user;
    if (bytes > 1u << 30)
        return pva_fail(err, PVA_IO, "a rank's share of the gradients is %zu bytes; more ranks make it smaller", bytes);
    if (MPI_Allgather(own, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, s->par.comm) == MPI_SUCCESS) return PVA_OK;
    return pva_fail(err, PVA_IO, "the ranks could not exchange gradients");
}

static void warn(const char *line) { pva_log(PVA_LOG_WARNING, "%s", line); }

static const char *time_left(double seconds, char *out, size_t size) {
    if (seconds >= 3600) snprintf(out, size, "%.0f h %02.0f min", floor(seconds / 3600), floor(fmod(seconds, 3600) / 60));
    else if (seconds >= 60) snprintf(out, size, "%.0f min %02.0f s", floor(seconds / 60), floor(fmod(seconds, 60)));
    else snprintf(out, size, "%.0f s", seconds);
    return out;
}

static int show(struct spd *s, int64_t step, int64_t steps, double loss, double error) {
    char left[32] = "?", found[40] = "";
    if (s->first_step < 0) s->first_step = step;
    double t = now();
    if (t - s->shown < 0.2) return stop_requested();
    s->shown = t;
    if (step > s->first_step)
        time_left((t - s->started) * (double)(steps - step) / (double)(step - s->first_step), left, sizeof left);
    if (!isnan(error)) snprintf(found, sizeof found, ", CI error %.0f", error);
    if (rank_of(s) == 0)
        pva_log_progress("%s: step %lld of %lld, loss %.3g%s, %s left", s->label, (long long)step, (long long)steps, loss, found,
                         left);
    return stop_requested();
}

static int on_step(void *user, int64_t step, int64_t steps, double loss, double error) {
    return show(user, step, steps, loss, error);
}
static int on_target_step(void *user, int64_t step, int64_t steps, double loss) { return show(user, step, steps, loss, NAN); }

static void begin(struct spd *s, const char *label) {
    s->label = label;
    s->started = now();
    s->shown = 0;
    s->first_step = -1;
}

/* ---- target models ---- */

static int train_target(struct spd *s, const char *key, const char *directory, struct pva_error *err) {
    struct pva_spd_target t;
    char label[64];
    snprintf(label, sizeof label, "target %s", key);
    begin(s, label);
    int status = pva_spd_target_train(key, pva_options_int(s->o, "target-seed"), s->threads, on_target_step, s, &t, err);
    pva_log_progress_end();
    if (status) return status;
    status = pva_spd_target_save(&t, directory, err);
    if (!status && !pva_options_flag(s->o, "quiet"))
        printf("target %s: loss %.3g, seed %lld, %.1f s, %s\n", key, t.loss, (long long)t.seed, now() - s->started, directory);
    fflush(stdout);
    pva_spd_target_free(&t);
    return status;
}

/* The target of a run: a directory, or the one that the recipe gives, trained when it is not there yet. Rank 0 trains. */
static int find_target(struct spd *s, const struct pva_spd_config *c, struct pva_spd_target *t, struct pva_error *err) {
    char directory[3072], file[3200];
    if (!strncmp(c->target_path, "recipe:", 7)) {
        snprintf(directory, sizeof directory, "%s/targets/%s-seed%lld", s->out, c->target_path + 7,
                 (long long)pva_options_int(s->o, "target-seed"));
        snprintf(file, sizeof file, "%s/target_config.yaml", directory);
        if (rank_of(s) == 0 && access(file, F_OK)) train_target(s, c->target_path + 7, directory, err);
        if (agree(s, "train the target", err)) return err->code;
    } else if (!*c->target_path || !strncmp(c->target_path, "wandb:", 6)) {
        return pva_fail(
            err, PVA_INPUT,
            "pretrained_model_path \"%s\": expected recipe:KEY, or a directory with target.safetensors and target_config.yaml",
            c->target_path);
    } else {
        snprintf(directory, sizeof directory, "%s", c->target_path);
    }
    return pva_spd_target_load(directory, t, err);
}

/* ---- decompositions ---- */

static void summarise(const struct spd *s, const struct run_spec *r, const struct pva_spd_result *x, const char *directory) {
    if (pva_options_flag(s->o, "quiet") || rank_of(s)) return;
    printf("%s: %lld steps in %.1f s, faithfulness %.2g, stochastic recon %.2g, layerwise %.2g, importance %.3g", r->name,
           (long long)x->step, x->seconds, x->faithfulness, x->stochastic_recon, x->stochastic_recon_layerwise,
           x->importance_minimality);
    if (!isnan(x->ci_error)) printf(", CI error %.0f (%.0f at 0.2)", x->ci_error, x->ci_error_02);
    if (!isnan(x->mmcs)) printf(", MMCS %.4f, ML2R %.4f", x->mmcs, x->ml2r);
    printf(", L0");
    for (int i = 0; i < x->n_modules; i++) printf(" %.3g", x->l0[i]);
    printf("\n  %s\n", directory);
    fflush(stdout);
}

/* result.json: what the report and scripts read. */
static int write_result(const struct run_spec *r, const struct pva_spd_result *x, const char *directory, struct pva_error *err) {
    char path[3200];
    json_t *o =
        json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:f}", "name", r->name, "step", (json_int_t)x->step, "seconds", x->seconds,
                  "faithfulness", x->faithfulness, "stochastic_recon", x->stochastic_recon, "stochastic_recon_layerwise",
                  x->stochastic_recon_layerwise, "importance_minimality", x->importance_minimality);
    json_t *l0 = json_array();
    for (int i = 0; i < x->n_modules; i++) json_array_append_new(l0, json_real(x->l0[i]));
    json_object_set_new(o, "l0", l0);
    const char *const keys[] = {"ci_error", "ci_error_0p2", "mmcs", "ml2r"};
    const double values[] = {x->ci_error, x->ci_error_02, x->mmcs, x->ml2r};
    for (int i = 0; i < 4; i++) json_object_set_new(o, keys[i], isnan(values[i]) ? json_null() : json_real(values[i]));
    snprintf(path, sizeof path, "%s/result.json", directory);
    char *text = json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(o);
    int status = text ? run_publish(path, text, strlen(text), err) : pva_fail(err, PVA_IO, "out of memory");
    free(text);
    return status;
}

static int run_one(struct spd *s, struct run_spec *r, char directory[3072], struct pva_error *err) {
    struct pva_spd_target t = {0};
    struct pva_spd_result result;
    const char *project = pva_options_text(s->o, "project"), *suffix = pva_options_text(s->o, "job-suffix");
    snprintf(directory, 3072, "%s/%s-%s%s%s", s->out, project ? project : r->config.project, r->name, suffix ? "-" : "",
             suffix ? suffix : "");
    find_target(s, &r->config, &t, err);
    if (agree(s, "load the target", err)) return err->code;
    begin(s, r->name);
    struct pva_spd_settings settings = {.directory = directory,
                                        .name = r->name,
                                        .threads = s->threads,
                                        .resume = !strcmp(pva_options_text(s->o, "resume"), "auto"),
                                        .no_shortcuts = !pva_options_flag(s->o, "shortcuts"),
                                        .ranks = s->parallel ? &s->ranks : NULL,
                                        .ops = s->ops,
                                        .be = s->be,
                                        .progress = on_step,
                                        .user = s};
    pva_spd_decompose(&r->config, &t, &settings, &result, err);
    pva_log_progress_end();
    pva_spd_target_free(&t);
    if (agree(s, "decompose", err)) return err->code;
    summarise(s, r, &result, directory);
    if (rank_of(s) == 0) write_result(r, &result, directory, err);
    if (rank_of(s) == 0 && !err->code && pva_options_flag(s->o, "create-report")) {
        char page[3200];
        const char *one = directory;
        snprintf(page, sizeof page, "%s/report.html", directory);
        spd_report(&one, 1, r->name, page, err);
    }
    return agree(s, "report", err);
}

static int override(const struct spd *s, struct run_spec *r, struct pva_error *err) {
    char number[32];
    const char *const keys[] = {"seed", "steps"};
    for (int i = 0; i < 2; i++) {
        if (!pva_options_is_set(s->o, keys[i])) continue;
        snprintf(number, sizeof number, "%lld", (long long)pva_options_int(s->o, keys[i]));
        if (pva_spd_config_set(&r->config, keys[i], number, err)) return err->code;
        char *longer = NULL;
        if (asprintf(&longer, "%s-%s-%s", r->name, keys[i], number) < 0) return pva_fail(err, PVA_IO, "out of memory");
        free(r->name);
        r->name = longer;
    }
    return PVA_OK;
}

static int add_run(struct run_spec **runs, int *n, const char *name, const char *key, const char *yaml, const char *path,
                   struct pva_error *err) {
    struct run_spec *more = realloc(*runs, (size_t)(*n + 1) * sizeof *more);
    if (!more) return pva_fail(err, PVA_IO, "out of memory");
    *runs = more;
    struct run_spec *r = &more[*n];
    memset(r, 0, sizeof *r);
    r->name = strdup(name);
    r->key = key ? strdup(key) : NULL;
    (*n)++;
    return yaml ? pva_spd_config_parse(yaml, name, warn, &r->config, err) : pva_spd_config_read(path, warn, &r->config, err);
}

static int split_keys(const char *text, const char **keys, int *n, char *buffer, size_t size, struct pva_error *err) {
    const struct pva_spd_experiment *x;
    *n = 0;
    if (!text) {
        for (int i = 0; (x = pva_spd_experiment_at(i)); i++) keys[(*n)++] = x->key;
        return PVA_OK;
    }
    snprintf(buffer, size, "%s", text);
    for (char *word = strtok(buffer, ", "); word && *n < 64; word = strtok(NULL, ", ")) {
        if (pva_spd_experiment_find(word, &x, err)) return err->code;
        keys[(*n)++] = x->key;
    }
    return *n ? PVA_OK : pva_fail(err, PVA_USAGE, "--experiments names none");
}

/* The runs asked for, or, with --list, their lines on stdout (*n stays 0). */
static int collect(struct spd *s, const char *const *words, size_t n_words, struct run_spec **runs, int *n,
                   struct pva_error *err) {
    const char *keys[64], *sweep = pva_options_text(s->o, "sweep"), *experiments = pva_options_text(s->o, "experiments");
    char buffer[1000];
    int n_keys;
    if (n_words) {
        if (experiments || sweep) return pva_fail(err, PVA_USAGE, "either configuration files or --experiments and --sweep");
        for (size_t i = 0; i < n_words; i++) {
            const char *base = strrchr(words[i], '/') ? strrchr(words[i], '/') + 1 : words[i];
            char name[256];
            snprintf(name, sizeof name, "%.200s", base);
            if (strrchr(name, '.')) *strrchr(name, '.') = 0;
            if (add_run(runs, n, name, NULL, NULL, words[i], err)) return err->code;
        }
        return PVA_OK;
    }
    if (split_keys(experiments, keys, &n_keys, buffer, sizeof buffer, err)) return err->code;
    if (!sweep) {
        if (pva_options_flag(s->o, "list")) {
            for (int i = 0; i < n_keys; i++) printf("-e %s\n", keys[i]);
            return PVA_OK;
        }
        for (int i = 0; i < n_keys; i++) {
            const struct pva_spd_experiment *x;
            if (pva_spd_experiment_find(keys[i], &x, err) || add_run(runs, n, x->key, x->key, x->config, NULL, err))
                return err->code;
        }
        return PVA_OK;
    }
    struct pva_spd_sweep_run *all;
    int count;
    if (pva_spd_sweep_expand(sweep, keys, n_keys, &all, &count, err)) return err->code;
    char full[4096];
    if (!realpath(sweep, full)) snprintf(full, sizeof full, "%s", sweep);
    if (pva_options_flag(s->o, "list")) {
        for (int i = 0; i < count; i++)
            printf("--sweep '%s'%s%s --index %d # %s\n", full, experiments ? " -e " : "", experiments ? experiments : "", i,
                   all[i].name);
    } else if (pva_options_is_set(s->o, "index")) {
        int64_t i = pva_options_int(s->o, "index");
        if (i >= count) pva_fail(err, PVA_USAGE, "--index %lld: the sweep has runs 0 to %d", (long long)i, count - 1);
        else add_run(runs, n, all[i].name, all[i].experiment, all[i].config, NULL, err);
    } else {
        for (int i = 0; i < count && !err->code; i++) add_run(runs, n, all[i].name, all[i].experiment, all[i].config, NULL, err);
    }
    pva_spd_sweep_free(&all, count);
    return err->code;
}

static int run_all(struct spd *s, struct run_spec *runs, int n, struct pva_error *err) {
    char(*directories)[3072] = calloc((size_t)n, sizeof *directories);
    const char **list = calloc((size_t)n, sizeof *list);
    int n_good = 0, failed = 0;
    if (!directories || !list) pva_fail(err, PVA_IO, "out of memory");
    for (int i = 0; i < n && !err->code; i++) {
        struct pva_error one = {0};
        if (n > 1 && rank_of(s) == 0 && !pva_options_flag(s->o, "quiet"))
            printf("[%d/%d] %s\n", i + 1, n, runs[i].name), fflush(stdout);
        run_one(s, &runs[i], directories[i], &one);
        if (!one.code) {
            list[n_good++] = directories[i];
        } else if (one.code == PVA_STOPPED || n == 1) {
            *err = one;
        } else { /* one failure does not keep the others from running */
            if (rank_of(s) == 0) fprintf(stderr, "spd-run: %s: %s\n", runs[i].name, one.msg);
            failed = one.code;
        }
    }
    if (!err->code && n_good > 1 && rank_of(s) == 0 && pva_options_flag(s->o, "create-report")) {
        char page[3200];
        const char *suffix = pva_options_text(s->o, "job-suffix"), *title = pva_options_text(s->o, "report-title");
        snprintf(page, sizeof page, "%s/report%s%s.html", s->out, suffix ? "-" : "", suffix ? suffix : "");
        if (!spd_report(list, n_good, title ? title : "Comparison", page, err) && !pva_options_flag(s->o, "quiet"))
            printf("comparison: %s\n", page);
    }
    free(directories);
    free(list);
    return err->code ? err->code : failed;
}

static int choose_out(struct spd *s, struct pva_error *err) {
    const char *out = pva_options_text(s->o, "out"), *cache = getenv("SPD_CACHE_DIR"), *home = getenv("HOME");
    if (out) snprintf(s->out, sizeof s->out, "%s", out);
    else if (cache && *cache) snprintf(s->out, sizeof s->out, "%s/runs", cache);
    else if (home && *home) snprintf(s->out, sizeof s->out, "%s/spd_cache/runs", home);
    else return pva_fail(err, PVA_USAGE, "neither --out nor SPD_CACHE_DIR nor HOME says where runs go");
    return PVA_OK;
}

static int execute(struct spd *s, struct pva_error *err) {
    const char *const *words;
    size_t n_words = pva_options_positional(s->o, &words);
    struct run_spec *runs = NULL;
    int n = 0, status;
    if (pva_options_flag(s->o, "report")) {
        if (!n_words) return pva_fail(err, PVA_USAGE, "--report needs run directories");
        char page[3200];
        const char *title = pva_options_text(s->o, "report-title"), *out = pva_options_text(s->o, "out");
        snprintf(page, sizeof page, "%s%s", n_words == 1 ? words[0] : out ? out : ".", "/report.html");
        if (rank_of(s) == 0 && !spd_report(words, (int)n_words,
                                           title          ? title
                                           : n_words == 1 ? words[0]
                                                          : "Comparison",
                                           page, err))
            printf("%s\n", page);
        return agree(s, "report", err);
    }
    if (n_words && !strcmp(words[0], "target")) {
        char directory[3072];
        if (n_words != 2) return pva_fail(err, PVA_USAGE, "name one target: spd-run target KEY");
        snprintf(directory, sizeof directory, "%s%s%s", s->out, pva_options_is_set(s->o, "out") ? "" : "/targets/",
                 pva_options_is_set(s->o, "out") ? "" : words[1]);
        if (rank_of(s) == 0) train_target(s, words[1], directory, err);
        return agree(s, "train the target", err);
    }
    status = collect(s, words, n_words, &runs, &n, err);
    for (int i = 0; i < n && !status; i++) status = override(s, &runs[i], err);
    if (!status && n) status = run_all(s, runs, n, err);
    for (int i = 0; i < n; i++) {
        free(runs[i].name);
        free(runs[i].key);
        pva_spd_config_free(&runs[i].config);
    }
    free(runs);
    return status;
}

static int cores(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

/* The GPU of this rank's place on its node; ranks share one where there are fewer, as a decomposition leaves most of it idle. */
static int open_gpu(struct spd *s, int local_rank, struct pva_error *err) {
    struct pva_backend_settings settings = {0};
    s->ops = pva_backend_find("cuda", err);
    if (!s->ops) {
        char *advice = strstr(err->msg, "; use --backend"); /* of the other program */
        if (advice) *advice = 0;
        return pva_error_prefix(err, "--no-cpu");
    }
    settings.device = local_rank % s->ops->count();
    return s->ops->open(&settings, &s->be, err);
}

static int start(struct spd *s, struct pva_error *err) {
    int local = 1, local_rank = 0;
    if (par_launched_with_others()) {
        if (par_open(&s->par, err)) return err->code;
        s->parallel = 1;
        s->ranks = (struct pva_spd_ranks){s->par.rank, s->par.size, gather, s};
        local = s->par.local_size, local_rank = s->par.local_rank;
        if (s->par.rank) pva_log_screen(PVA_LOG_ERROR);
    }
    int size = s->parallel ? s->par.size : 1;
    if (pva_options_is_set(s->o, "dp") && pva_options_int(s->o, "dp") != size)
        pva_fail(err, PVA_USAGE, "--dp %lld, but there %s %d rank%s: start with mpirun -n %lld",
                 (long long)pva_options_int(s->o, "dp"), size == 1 ? "is" : "are", size, size == 1 ? "" : "s",
                 (long long)pva_options_int(s->o, "dp"));
    if (!err->code && !pva_options_flag(s->o, "cpu")) open_gpu(s, local_rank, err);
    if (!pva_options_flag(s->o, "local")) pva_fail(err, PVA_USAGE, "--no-local: jobs of a cluster are submitted by slurm/spd.sh");
    s->threads = (int)pva_options_int(s->o, "threads");
    if (!s->threads) s->threads = cores() / local;
    if (s->threads < 1) s->threads = 1;
    if (s->threads > 8) s->threads = 8;
    if (!err->code) choose_out(s, err);
    return agree(s, "start", err);
}

/* Spellings that pva_options does not know: -e, -n, underscores, and --sweep without a file. */
static int respell(int argc, char **argv, char **out) {
    int n = 0;
    for (int i = 0; i < argc; i++) {
        char *a = argv[i];
        if (!strcmp(a, "-e")) a = "--experiments";
        else if (!strcmp(a, "-n")) a = "--n-agents";
        else if (!strcmp(a, "--data-parallelism")) a = "--dp";
        else if (!strcmp(a, "--sweep") && (i + 1 == argc || argv[i + 1][0] == '-')) a = "--sweep=sweep_params.yaml";
        else if (!strncmp(a, "--", 2) && memchr(a, '_', strcspn(a, "="))) {
            a = strdup(a);
            for (char *c = a; c && *c && *c != '='; c++)
                if (*c == '_') *c = '-';
        }
        if (!a) return -1;
        out[n++] = a;
    }
    out[n] = NULL;
    return n;
}

int spd_command(int argc, char **argv, struct pva_error *err) {
    struct spd s = {0};
    struct pva_options *o = NULL;
    char **words = calloc((size_t)argc + 1, sizeof *words);
    int n = words ? respell(argc, argv, words) : -1, status;
    if (n < 0) return pva_fail(err, PVA_IO, "out of memory");
    if (n > 1 && !strcmp(words[1], "--version")) {
        printf("spd-run %s\n", PVA_VERSION);
        return PVA_OK;
    }
    status = pva_options_parse("spd-run", tables, n, words, &o, err);
    if (!status && pva_options_wants_help(o)) {
        pva_options_print_help("spd-run", synopsis, tables, stdout);
        printf("\nexperiments:\n");
        for (int i = 0; pva_spd_experiment_at(i); i++)
            printf("  %-13s %s\n                %s\n", pva_spd_experiment_at(i)->key, pva_spd_experiment_at(i)->title,
                   pva_spd_experiment_at(i)->expects);
    } else if (!status && pva_options_wants_config(o)) {
        pva_options_print_config(o, stdout);
    } else if (!status) {
        s.o = o;
        if (pva_options_flag(o, "quiet")) pva_log_screen(PVA_LOG_ERROR);
        if (pva_options_flag(o, "verbose")) pva_log_screen(PVA_LOG_INFO);
        stop_install();
        status = start(&s, err);
        if (!status) status = execute(&s, err);
        if (rank_of(&s)) err->msg[0] = 0; /* rank 0 says it */
        if (s.be) s.ops->close(&s.be);
        if (s.parallel) par_close(&s.par);
    }
    pva_options_free(&o);
    free(words);
    return status;
}
