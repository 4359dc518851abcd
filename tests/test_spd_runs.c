/* Every registered experiment for a few steps on a small random target: the same bytes for one thread and for two, and after a
 * stop in the middle of the run and another before its end, with other numbers of threads. tests/spd.sh does the same for ranks.
 * Then what changes from step to step: learning rates and the exponent, as they are logged. */
#include "check.h"
#include "pva/spd.h"
#include "spd/target.h"

#include <dirent.h>
#include <unistd.h>

enum { STEPS = 6 };

static struct pva_spd_config small(const struct pva_spd_experiment *x) {
    const char *const settings[][2] = {{"steps", "6"},     {"batch_size", "40"},  {"eval_batch_size", "40"}, {"n_eval_steps", "2"},
                                       {"eval_freq", "2"}, {"slow_eval_freq", "4"}, {"train_log_freq", "1"},   {"save_freq", "3"}};
    struct pva_spd_config c;
    struct pva_error err = {0};
    CHECK_OK(pva_spd_config_parse(x->config, x->key, NULL, &c, &err), err);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        CHECK_OK(pva_spd_config_set(&c, settings[i][0], settings[i][1], &err), err);
    CHECK_FATAL(!err.code);
    return c;
}

static struct pva_spd_target target(const struct pva_spd_config *c, const char *key) {
    struct pva_spd_target t;
    struct pva_error err = {0};
    const int blocks = key[strlen(key) - 1] - '0', id = strstr(key, "-id") != NULL, large = strstr(key, "40-10") != NULL;
    const int F = c->n_identity ? c->identity[0].value : 0;
    if (c->residual) CHECK_OK(pva_spd_target_random(1, F, c->dense[0].value, blocks, 30, 1, &t, &err), err);
    else CHECK_OK(pva_spd_target_random(0, F, large ? 10 : 2, id, 0, 1, &t, &err), err);
    CHECK_FATAL(!err.code);
    return t;
}

static int stop_at; /* step before which the run is to stop; -1: never */
static int on_step(void *user, int64_t step, int64_t steps, double loss, double error) {
    (void)user, (void)steps, (void)loss, (void)error;
    return step == stop_at;
}

static int run(const struct pva_spd_config *c, const struct pva_spd_target *t, const char *directory, int threads, int stop) {
    struct pva_error err = {0};
    struct pva_spd_result result;
    const struct pva_spd_settings s = {
        .directory = directory, .name = "test", .threads = threads, .resume = 1, .progress = on_step};
    stop_at = stop;
    return pva_spd_decompose(c, t, &s, &result, &err);
}

static int same(const char *a, const char *b, const char *name) {
    char path[2][600], *text[2] = {0};
    size_t size[2] = {0};
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s", i ? b : a, name);
        FILE *f = fopen(path[i], "rb");
        if (!f) continue;
        text[i] = malloc(1 << 24);
        size[i] = fread(text[i], 1, 1 << 24, f);
        fclose(f);
    }
    int equal = text[0] && text[1] && size[0] && size[0] == size[1] && !memcmp(text[0], text[1], size[0]);
    free(text[0]), free(text[1]);
    if (!equal) fprintf(stderr, "%s and %s differ\n", path[0], path[1]);
    return equal;
}

static void compare(const char *a, const char *b) {
    const char *const files[] = {"metrics.jsonl", "checkpoint.safetensors", "model_3.safetensors", "model_6.safetensors",
                                 "final_config.yaml"};
    char figures[600];
    int n = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) CHECK(same(a, b, files[i]));
    snprintf(figures, sizeof figures, "%s/figures", a);
    DIR *d = opendir(figures);
    CHECK_FATAL(d);
    for (struct dirent *e; (e = readdir(d));) {
        char name[300];
        if (*e->d_name == '.') continue;
        snprintf(name, sizeof name, "figures/%.250s", e->d_name);
        CHECK(same(a, b, name));
        n++;
    }
    closedir(d);
    CHECK(n > 10);
}

static void set(struct pva_spd_config *c, const char *key, const char *value) {
    struct pva_error err = {0};
    CHECK_OK(pva_spd_config_set(c, key, value, &err), err);
}

/* The number of that name in the line of that step. */
static double logged(const char *directory, int step, const char *key) {
    char path[600], line[4000], start[40];
    double value = NAN;
    snprintf(path, sizeof path, "%s/metrics.jsonl", directory);
    snprintf(start, sizeof start, "{\"step\": %d,", step);
    FILE *f = fopen(path, "r");
    CHECK_FATAL(f);
    while (isnan(value) && fgets(line, sizeof line, f)) {
        const char *at = strncmp(line, start, strlen(start)) ? NULL : strstr(line, key);
        if (at) value = strtod(at + strlen(key) + 2, NULL);
    }
    fclose(f);
    return value;
}

static void test_schedules(void) {
    CHECK_NEAR(spd_schedule("constant", NAN, 0, 7, 10), 1, 0);
    CHECK_NEAR(spd_schedule("linear", NAN, 0, 4, 10), 0.6, 1e-15);
    CHECK_NEAR(spd_schedule("cosine", NAN, 0, 0, 10), 1, 0);
    CHECK_NEAR(spd_schedule("cosine", NAN, 0, 3, 10), 0.8660254037844386, 1e-12); /* a third of the quarter: 30 degrees */
    CHECK_NEAR(spd_schedule("cosine", NAN, 0, 9, 10), 0, 1e-12);
    CHECK_NEAR(spd_schedule("exponential", 5, 0, 10, 100), 0.25, 1e-15);
    /* a fifth of the steps to warm up; what follows counts from there */
    CHECK_NEAR(spd_schedule("cosine", NAN, 0.2, 0, 10), 0, 0);
    CHECK_NEAR(spd_schedule("cosine", NAN, 0.2, 1, 10), 0.5, 1e-15);
    CHECK_NEAR(spd_schedule("cosine", NAN, 0.2, 2, 10), 1, 0);
    CHECK_NEAR(spd_schedule("linear", NAN, 0.2, 4, 10), 0.75, 1e-15);
}

static void test_settings(const char *top) {
    struct pva_spd_config c = small(pva_spd_experiment_at(0));
    struct pva_spd_target t = target(&c, "tms_5-2");
    char plain[300], parts[300];
    set(&c, "steps", "10");
    set(&c, "lr_exponential_halflife", "4");
    set(&c, "lr_schedule", "\"exponential\"");
    set(&c, "lr_warmup_pct", "0.2");
    set(&c, "pnorm", "2.0");
    set(&c, "p_anneal_start_frac", "0.2");
    set(&c, "p_anneal_end_frac", "0.7");
    set(&c, "p_anneal_final_p", "1.0");
    snprintf(plain, sizeof plain, "%s/plain", top);
    snprintf(parts, sizeof parts, "%s/parts", top);
    CHECK_INT(run(&c, &t, plain, 1, -1), PVA_OK);
    CHECK_NEAR(logged(plain, 1, "train/misc/lr"), 0.5e-3, 1e-9);
    CHECK_NEAR(logged(plain, 2, "train/misc/lr"), 1e-3, 1e-9);
    CHECK_NEAR(logged(plain, 6, "train/misc/lr"), 0.5e-3, 1e-9);
    CHECK_NEAR(logged(plain, 1, "train/misc/current_p"), 2, 1e-9);
    CHECK_NEAR(logged(plain, 2, "train/misc/current_p"), 2, 1e-9);
    CHECK_NEAR(logged(plain, 4, "train/misc/current_p"), 1.6, 1e-7);
    CHECK_NEAR(logged(plain, 7, "train/misc/current_p"), 1, 1e-9);
    CHECK_NEAR(logged(plain, 10, "train/misc/current_p"), 1, 1e-9);
    /* Gradients accumulated over parts of a batch are the batch's. */
    set(&c, "gradient_accumulation_steps", "4");
    CHECK_INT(run(&c, &t, parts, 1, -1), PVA_OK);
    CHECK(same(plain, parts, "metrics.jsonl"));
    pva_spd_target_free(&t);
    pva_spd_config_free(&c);
}

int main(void) {
    const struct pva_spd_experiment *x;
    char top[] = "/tmp/spd-runs-XXXXXX", one[300], two[300], command[400];
    CHECK_FATAL(mkdtemp(top));
    for (int i = 0; (x = pva_spd_experiment_at(i)); i++) {
        struct pva_spd_config c = small(x);
        struct pva_spd_target t = target(&c, x->key);
        snprintf(one, sizeof one, "%s/%s-one", top, x->key);
        snprintf(two, sizeof two, "%s/%s-two", top, x->key);
        CHECK_INT(run(&c, &t, one, 1, -1), PVA_OK);
        CHECK_INT(run(&c, &t, two, 2, 3), PVA_STOPPED);
        CHECK_INT(run(&c, &t, two, 1, STEPS), PVA_STOPPED);
        CHECK_INT(run(&c, &t, two, 2, -1), PVA_OK);
        compare(one, two);
        pva_spd_target_free(&t);
        pva_spd_config_free(&c);
    }
    test_schedules();
    test_settings(top);
    snprintf(command, sizeof command, "rm -r '%s'", top);
    CHECK_INT(system(command), 0);
    return check_report("test_spd_runs");
}
