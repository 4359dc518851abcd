#include "spd_submit.h"

#include "pva/spd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_WORDS = 1024 };

int spd_submit_wanted(const struct pva_options *o) {
    if (pva_options_flag(o, "list") || pva_options_flag(o, "report") || pva_options_is_set(o, "index")) return 0;
    return !pva_options_flag(o, "local") || (pva_options_is_set(o, "n-agents") && !pva_options_is_set(o, "local"));
}

static int find_script(char path[4096], struct pva_error *err) {
    const char *const places[] = {"../slurm/spd.sh", "../share/pva-mpi/slurm/spd.sh"};
    char program[2048];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n < 0) return pva_fail(err, PVA_IO, "/proc/self/exe: %s", strerror(errno));
    program[n] = 0;
    *strrchr(program, '/') = 0;
    for (int i = 0; i < 2; i++) {
        snprintf(path, 4096, "%s/%s", program, places[i]);
        if (!access(path, X_OK)) return PVA_OK;
    }
    return pva_fail(err, PVA_USAGE, "%s/%s and %s are not there: submit with your copy of spd.sh, or run here with --local",
                    program, places[0], places[1]);
}

static char *copy(const char *text) {
    char *c = strdup(text);
    PVA_ASSERT(c);
    return c;
}

/* What the script itself understands, or what decides that it is called. */
static int is_consumed(const char *name) {
    const char *const names[] = {"experiments", "sweep", "n-agents", "local", "list", "report"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) return 1;
    return 0;
}

int spd_submit(const struct pva_options *o, const struct pva_option *options, struct pva_error *err) {
    char *words[MOST_WORDS], script[4096];
    const char *const *files, *keys = pva_options_text(o, "experiments"), *sweep = pva_options_text(o, "sweep");
    size_t n_files = pva_options_positional(o, &files), n = 0;
    if (pva_options_is_set(o, "dp") && pva_options_int(o, "dp") > 1)
        return pva_fail(err, PVA_USAGE, "--dp %lld: a job of the array is one rank", (long long)pva_options_int(o, "dp"));
    if (n_files && (keys || sweep || !strcmp(files[0], "target")))
        return pva_fail(err, PVA_USAGE, "an array is made of --experiments, of --sweep or of configuration files");
    if (n_files > MOST_WORDS / 2) return pva_fail(err, PVA_USAGE, "more than %d configuration files", MOST_WORDS / 2);
    if (find_script(script, err)) return err->code;
    words[n++] = script;
    if (pva_options_is_set(o, "n-agents")) {
        words[n++] = copy("--at-most");
        words[n++] = copy(pva_options_text(o, "n-agents"));
    }
    if (!pva_options_flag(o, "cpu")) words[n++] = copy("--gpu");
    if (sweep) {
        words[n++] = copy("--sweep");
        words[n++] = copy(sweep);
    }
    char *list = keys ? copy(keys) : NULL;
    for (char *word = list ? strtok(list, ", ") : NULL; word && n < MOST_WORDS / 4; word = strtok(NULL, ", ")) {
        const struct pva_spd_experiment *known;
        if (pva_spd_experiment_find(word, &known, err)) break;
        words[n++] = word;
    }
    if (err->code) {
        free(list);
        return err->code;
    }
    for (size_t i = 0; i < n_files; i++) words[n++] = copy(files[i]);
    words[n++] = copy("--");
    for (const struct pva_option *x = options; x->name; x++) {
        if (!pva_options_is_set(o, x->name) || is_consumed(x->name)) continue;
        const int made = x->type == PVA_OPT_FLAG
                             ? asprintf(&words[n++], "--%s%s", pva_options_flag(o, x->name) ? "" : "no-", x->name)
                             : asprintf(&words[n++], "--%s=%s", x->name, pva_options_text(o, x->name));
        if (made < 0) return pva_fail(err, PVA_IO, "out of memory");
    }
    words[n] = NULL;
    execv(script, words);
    return pva_fail(err, PVA_IO, "%s: %s", script, strerror(errno));
}
