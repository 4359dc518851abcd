/* Every registered experiment for a few steps on a small random target: the same bytes for one thread and for two, and after a
 * stop in the middle of the run and another before its end, with other numbers of threads. tests/spd.sh does the same for ranks. */
#include "check.h"
#include "pva/spd.h"

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
        CHECK_INT(run(&c, &t, two, 3, -1), PVA_OK);
        compare(one, two);
        pva_spd_target_free(&t);
        pva_spd_config_free(&c);
    }
    snprintf(command, sizeof command, "rm -r '%s'", top);
    CHECK_INT(system(command), 0);
    return check_report("test_spd_runs");
}
