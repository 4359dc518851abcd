/* run: the phases in order, in one process per rank: MPI starts once, and so does the grader, which must be there before MPI is. */
#include "campaign.h"
#include "commands.h"
#include "phase1_read.h"
#include "phase2_read.h"
#include "pile_read.h"
#include "stop.h"

#include "pva/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const struct pva_option pva_run_options[] = {
    {"run", PVA_OPT_TEXT, "DIR", NULL, "run directory; made if needed, resumed if it holds the same run", NULL, 0, 0},
    {"problems", PVA_OPT_TEXT, "FILE", NULL, "MBPP or HumanEval, JSONL or JSON, optionally gzip", NULL, 0, 0},
    {"sae", PVA_OPT_TEXT, "DIR", NULL, "autoencoders", NULL, 0, 0},
    {"width", PVA_OPT_TEXT, "W", NULL, "of the autoencoders: 16k, 131k ...; default: the only one there is", NULL, 0, 0},
    {"l0", PVA_OPT_TEXT, "L0", NULL, "of the autoencoders: canonical, smallest, largest, or a number", NULL, 0, 0},
    {"pile", PVA_OPT_TEXT, "FILE", NULL, "general text; without it the pile phase is left out", NULL, 0, 0},
    {"start", PVA_OPT_INT, "I", NULL, "first problem, counted from 0 in the file", NULL, 0, 1e9},
    {"end", PVA_OPT_INT, "J", NULL, "last problem, included", NULL, 0, 1e9},
    {"limit", PVA_OPT_INT, "N", NULL, "phase3 and steer: at most so many problems of each part of the split", NULL, 0, 1e9},
    {"batch-size", PVA_OPT_INT, "N", NULL, "sequences at once per rank", NULL, 0, 256},
    {"host-memory", PVA_OPT_BYTES, "SIZE", NULL, "memory one rank may take besides the weights", NULL, 0, 0},
    {"preload-imports", PVA_OPT_FLAG, NULL, "no", "the usual imports before each program", NULL, 0, 0},
    {"grade-jobs", PVA_OPT_INT, "N", "0", "programs graded at once per rank; 0: half of the processors that it may use, at most 16", NULL, 0, 64},
    {"python", PVA_OPT_TEXT, "PATH", NULL, "interpreter for the graded programs", NULL, 0, 0},
    {"require-sandbox", PVA_OPT_CHOICE, "LEVEL", "basic", "refuse to run programs with less", "basic|strong", 0, 0},
    {"sandbox", PVA_OPT_CHOICE, "MODE", "auto", "none-i-understand runs hostile code without seccomp", "auto|none-i-understand", 0, 0},
    {"set", PVA_OPT_LIST, "PHASE.OPTION=VALUE", NULL, "an option of one phase, such as steer.controls=50; may be repeated", NULL, 0, 0},
    {"dry-run", PVA_OPT_FLAG, NULL, "no", "say what is complete and what would run, and stop", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

struct phase {
    const char *name;
    const struct pva_option *tables[6]; /* ends with NULL */
    int (*run)(const struct pva_options *o, struct pva_error *err);
    int (*complete)(const char *run);
    const char *result;                 /* file in the run directory */
    int alone;                          /* one process does it; the others wait */
};

static int phase1_complete(const char *run) {
    struct phase1_data d;
    struct pva_error ignored = {0};
    int complete = !phase1_open(run, &d, &ignored) && d.n_done == d.n;
    phase1_close(&d);
    return complete;
}

static int pile_complete(const char *run) {
    struct phase1_data d;
    struct pile_layer layer;
    struct pva_error ignored = {0};
    int complete = !phase1_open(run, &d, &ignored);
    for (int64_t l = 0; complete && l < d.n_layers; l++) complete = !pile_layer(run, d.layers[l], &layer, &ignored);
    phase1_close(&d);
    return complete;
}

static int phase2_complete(const char *run) {
    struct phase2 *p = NULL;
    struct pva_error ignored = {0};
    int complete = !phase2_open(run, &p, &ignored);
    if (p) phase2_close(&p);
    return complete;
}

/* The summary is written when all is done; it is stale when what it came from is younger. */
static int summary_complete(const char *run, const char *name) {
    char path[4096];
    struct stat summary, phase2;
    snprintf(path, sizeof path, "%s/%s", run, name);
    if (stat(path, &summary)) return 0;
    snprintf(path, sizeof path, "%s/phase2.h5", run);
    return stat(path, &phase2) || summary.st_mtime >= phase2.st_mtime;
}
static int phase3_complete(const char *run) { return summary_complete(run, "phase3-summary.json"); }
static int steer_complete(const char *run) { return summary_complete(run, "steer-summary.json"); }
static int never_complete(const char *run) {
    (void)run;
    return 0;
}

static const struct phase phases[] = {
    {"phase1", {pva_common_options, pva_engine_options, pva_phase1_options, pva_campaign_options, NULL}, pva_command_phase1, phase1_complete, "phase1.h5", 0},
    {"pile", {pva_common_options, pva_engine_options, pva_pile_options, NULL}, pva_command_pile, pile_complete, "pile.h5", 0},
    {"phase2", {pva_common_options, pva_phase2_options, NULL}, pva_command_phase2, phase2_complete, "phase2.h5", 0},
    {"phase3", {pva_common_options, pva_engine_options, pva_followup_options, pva_campaign_options, pva_phase3_options, NULL}, pva_command_phase3, phase3_complete, "phase3-summary.json", 0},
    {"steer", {pva_common_options, pva_engine_options, pva_followup_options, pva_campaign_options, pva_steer_options, NULL}, pva_command_steer, steer_complete, "steer-summary.json", 0},
    {"report", {pva_common_options, pva_report_options, NULL}, pva_command_report, never_complete, "report.html", 1},
};
enum { N_PHASES = sizeof phases / sizeof *phases, MOST_WORDS = 200 };

static int knows(const struct phase *p, const char *name) {
    for (int t = 0; p->tables[t]; t++)
        for (const struct pva_option *o = p->tables[t]; o->name; o++)
            if (!strcmp(o->name, name)) return 1;
    return 0;
}

/* The phase's command line: what the user gave to run and the phase knows, then what was set for it alone. */
static int options_of(const struct phase *p, const struct pva_options *o, struct pva_options **out, struct pva_error *err) {
    const struct pva_option *const tables[] = {pva_common_options, pva_engine_options, pva_run_options};
    const char *const *set;
    size_t n_set = pva_options_list(o, "set", &set), n_name = strlen(p->name);
    char *words[MOST_WORDS] = {NULL};
    int n = 0;
    words[n++] = strdup(p->name);
    for (int t = 0; t < 3; t++)
        for (const struct pva_option *x = tables[t]; x->name && n < MOST_WORDS; x++) {
            if (!strcmp(x->name, "set") || !strcmp(x->name, "dry-run") || !knows(p, x->name) || !pva_options_is_set(o, x->name)) continue;
            if (x->type == PVA_OPT_FLAG) n += asprintf(&words[n], "--%s%s", pva_options_flag(o, x->name) ? "" : "no-", x->name) > 0;
            else n += asprintf(&words[n], "--%s=%s", x->name, pva_options_text(o, x->name)) > 0;
        }
    for (size_t i = 0; i < n_set && n < MOST_WORDS; i++)
        if (!strncmp(set[i], p->name, n_name) && set[i][n_name] == '.') n += asprintf(&words[n], "--%s", set[i] + n_name + 1) > 0;
    pva_options_parse(p->name, p->tables, n, words, out, err);
    for (int i = 0; i < n; i++) free(words[i]);
    return err->code;
}

static int check_set(const struct pva_options *o, struct pva_error *err) {
    const char *const *set;
    size_t n = pva_options_list(o, "set", &set);
    for (size_t i = 0; i < n; i++) {
        int known = 0;
        for (int p = 0; p < N_PHASES; p++) {
            size_t length = strlen(phases[p].name);
            known |= !strncmp(set[i], phases[p].name, length) && set[i][length] == '.';
        }
        if (!known) return pva_fail(err, PVA_USAGE, "--set %s: PHASE.OPTION=VALUE is expected, with phase1, pile, phase2, phase3, steer or report", set[i]);
    }
    if (n > 100) return pva_fail(err, PVA_USAGE, "--set: at most 100");
    return PVA_OK;
}

static int run_phases(const struct par *par, const struct pva_options *o, struct pva_error *err) {
    const char *run = pva_options_text(o, "run");
    int dry = pva_options_flag(o, "dry-run"), quiet = pva_options_flag(o, "quiet");
    for (int i = 0; i < N_PHASES && !err->code; i++) {
        const struct phase *p = &phases[i];
        struct pva_options *own = NULL;
        int left_out = !strcmp(p->name, "pile") && !pva_options_text(o, "pile"), complete = 0;
        if (par->rank == 0 && !left_out) complete = p->complete(run);
        PAR_CHECK(par, MPI_Bcast(&complete, 1, MPI_INT, 0, par->comm));
        if (par->rank == 0 && (dry || !quiet)) {
            const char *state = left_out ? "left out: no --pile" : complete ? "complete" : dry ? "to do" : "starts";
            fprintf(dry ? stdout : stderr, dry ? "%-8s %s\n" : "pva-mpi: run: %s: %s\n", p->name, state);
        }
        if (left_out || complete || dry) continue;
        options_of(p, o, &own, err);
        if (par_agree(par, p->name, err)) return err->code;
        if (!p->alone || par->rank == 0) p->run(own, err);
        pva_options_free(&own);
        fflush(stdout);
        /* A command takes the text from all ranks but the first, which says it. */
        int code = err->code, worst = 0;
        PAR_CHECK(par, MPI_Allreduce(&code, &worst, 1, MPI_INT, MPI_MAX, par->comm));
        if (worst && !err->code) pva_fail(err, worst, "%s failed on another rank", p->name);
        if (err->code && par->rank == 0) pva_error_prefix(err, "%s", p->name);
    }
    return err->code;
}

int pva_command_run(const struct pva_options *o, struct pva_error *err) {
    struct par par = {0};
    struct pva_error late = {0};
    stop_install();
    if (!pva_options_require(o, "run", err) && !check_set(o, err) && !pva_options_flag(o, "dry-run"))
        campaign_keep_grader(o, pva_options_flag(o, "preload-imports"), err); /* before MPI: it forks */
    par_keep(1);
    if (par_open(&par, &late)) {
        campaign_end_grader();
        return pva_fail(err, late.code, "%s", late.msg);
    }
    if (par.rank) pva_log_screen(PVA_LOG_ERROR);
    if (!par_agree(&par, "start", err)) run_phases(&par, o, err);
    campaign_end_grader();
    if (par.rank) err->msg[0] = 0;
    par_keep(0);
    par_close(&par);
    return err->code;
}
