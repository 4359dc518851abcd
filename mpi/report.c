/* report: one page about a run, from its finished files, without the model. */
#include "report.h"

#include "commands.h"
#include "phase1_read.h"

#include "pva/log.h"

#include <errno.h>
#include <hdf5.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct pva_option pva_report_options[] = {
    {"run", PVA_OPT_TEXT, "DIR", NULL, "run directory (or give it without --run)", NULL, 0, 0},
    {"figures-only", PVA_OPT_FLAG, NULL, "no", "draw the figures and write their numbers again, leave report.html alone", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

void report_add(char *text, size_t size, const char *format, ...) {
    size_t used = strlen(text);
    va_list values;
    va_start(values, format);
    vsnprintf(text + used, size - used, format, values);
    va_end(values);
}

void report_picture(struct report *r, const char *name, const struct pva_figure *figure, const char *alt, const char *caption) {
    struct pva_error err = {0};
    char svg[4096], csv[300];
    if (pva_figure_write(figure, r->figures, name, &err) && !r->without_gnuplot) {
        r->without_gnuplot = 1;
        pva_log(PVA_LOG_WARNING, "%s", err.msg);
    }
    snprintf(svg, sizeof svg, "%s/%s.svg", r->figures, name);
    snprintf(csv, sizeof csv, "report/%s.csv", name);
    pva_html_picture(r->page, svg, csv, alt, caption);
}

json_t *report_json(const struct report *r, const char *name, const char *member, struct pva_error *err) {
    char path[4096];
    json_error_t why;
    snprintf(path, sizeof path, "%s/%s", r->run, name);
    if (access(path, F_OK)) return NULL;
    json_t *o = json_load_file(path, 0, &why);
    if (!o) pva_fail(err, PVA_INPUT, "%s: line %d: %s", path, why.line, why.text);
    else if (!json_is_array(json_object_get(o, member))) {
        pva_fail(err, PVA_INPUT, "%s: expected an object with an array \"%s\", as the phase writes it", path, member);
        json_decref(o);
        o = NULL;
    }
    return o;
}

void report_missing(struct report *r, const char *id, const char *title, const char *command, const char *arguments) {
    static const char *const endings[2] = {"", "-tuning"};
    char path[4096];
    int begun = 0;
    for (int i = 0; i < 2; i++) snprintf(path, sizeof path, "%s/%s%s.h5", r->run, command, endings[i]), begun |= !access(path, F_OK);
    pva_html_section(r->page, id, title);
    pva_html_paragraph(r->page, "note", "%s: pva-mpi %s --run %s%s%s", !begun ? "Not run yet" : "Begun and not finished; the same command goes on", command, r->run,
                       *arguments ? " " : "", arguments);
}

/* ---- how it was made: everything of the manifest, key by key ---- */

enum { MOST_FACTS = 1000 }; /* a model of 46 layers has 138 about its autoencoders */

struct facts {
    int64_t n;
    char *keys[MOST_FACTS], *values[MOST_FACTS];
};

static void flatten(struct facts *f, const char *name, const json_t *value) {
    char text[400] = "";
    const char *key;
    json_t *member;
    size_t i;
    json_object_foreach((json_t *)value, key, member) {
        snprintf(text, sizeof text, "%s%s%s", name, *name ? "." : "", key);
        flatten(f, text, member);
    }
    json_array_foreach((json_t *)value, i, member) {
        snprintf(text, sizeof text, "%s[%zu]", name, i);
        flatten(f, text, member);
    }
    if (json_is_object(value) || json_is_array(value) || f->n == MOST_FACTS) return;
    if (json_is_integer(value)) snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
    if (json_is_real(value)) snprintf(text, sizeof text, "%g", json_real_value(value));
    if (json_is_boolean(value)) snprintf(text, sizeof text, "%s", json_is_true(value) ? "yes" : "no");
    f->keys[f->n] = strdup(name), f->values[f->n] = strdup(json_is_string(value) ? json_string_value(value) : text);
    f->n++;
}

static const char *fact(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "?";
}

/* One row a command. */
static void start_table(struct report *r, const json_t *starts) {
    enum { MOST = 200, TEXTS = 8 };
    static const char *const names[TEXTS] = {"phase", "time", "hosts", "revision", "compiler", "mpi", "hdf5", "job"};
    size_t n = json_array_size(starts), from = n > MOST ? n - MOST : 0;
    const char *(*text)[MOST] = calloc(TEXTS, sizeof *text);
    if (!text) return;
    for (size_t i = from; i < n; i++) {
        const json_t *start = json_array_get(starts, i), *versions = json_object_get(start, "versions"), *job = json_object_get(json_object_get(start, "slurm"), "SLURM_JOB_ID");
        for (int c = 0; c < TEXTS - 1; c++) text[c][i - from] = fact(c < 3 ? start : versions, names[c]);
        text[TEXTS - 1][i - from] = json_is_string(job) ? json_string_value(job) : "-";
    }
    struct pva_column columns[TEXTS];
    for (int c = 0; c < TEXTS; c++) columns[c] = (struct pva_column){names[c], PVA_COLUMN_TEXT, text[c]};
    const struct pva_table table = {(int64_t)(n - from), TEXTS, columns};
    pva_html_table(r->page, "The commands that wrote into this run; hosts with their numbers of ranks.", &table, NULL, NULL);
    free(text);
}

static void provenance(struct report *r) {
    pva_html_section(r->page, "provenance", "How it was made");
    struct facts *f = calloc(1, sizeof *f);
    if (!r->manifest || !f) {
        pva_html_paragraph(r->page, "note", "The run has no manifest.json.");
        free(f);
        return;
    }
    const json_t *starts = json_object_get(r->manifest, "starts"), *first = json_array_get(starts, 0), *last = json_array_get(starts, json_array_size(starts) - 1);
    const json_t *phase1 = json_object_get(r->manifest, "phase1"), *versions = json_object_get(last, "versions");
    if (phase1)
        pva_html_paragraph(r->page, "", "Prompt template %s, seed %lld, temperature %g, prompt and program together at most %lld tokens. Programs ran under Python %s in a "
                           "sandbox: %s.", fact(phase1, "prompt_template"), (long long)json_integer_value(json_object_get(phase1, "seed")),
                           json_number_value(json_object_get(phase1, "temperature")), (long long)json_integer_value(json_object_get(phase1, "max_tokens")), fact(phase1, "python"),
                           fact(phase1, "sandbox"));
    pva_html_paragraph(r->page, "", "pva-mpi %s, revision %s; %zu command%s wrote into this run, the first on %.10s, the last on %.10s. Every draw is keyed by the seed, the "
                       "problem, the sample and the step, so the same command on any number of ranks gives the same bytes.", fact(versions, "pva-mpi"), fact(versions, "revision"), json_array_size(starts),
                       json_array_size(starts) == 1 ? "" : "s", fact(first, "time"), fact(last, "time"));
    json_t *rest = json_copy(r->manifest);
    json_object_del(rest, "starts");
    flatten(f, "", rest);
    json_decref(rest);
    const struct pva_column columns[] = {{"what", PVA_COLUMN_TEXT, f->keys}, {"value", PVA_COLUMN_TEXT, f->values}};
    const struct pva_table table = {f->n, 2, columns};
    pva_html_details_begin(r->page, "Versions, hashes, seeds, hosts: all of manifest.json");
    start_table(r, starts);
    pva_html_table(r->page, "What they worked with.", &table, NULL, NULL);
    pva_html_details_end(r->page);
    for (int64_t i = 0; i < f->n; i++) free(f->keys[i]), free(f->values[i]);
    free(f);
}

/* ---- the summary: a row of figures, and a sentence for each ---- */

static void effect_number(struct report *r, const char *name, const struct report_effect *e) {
    char detail[260], p[16];
    if (isnan(e->rate)) return;
    snprintf(detail, sizeof detail, "%s: %lld of %lld; 95 %%: %.1f to %.1f; controls %.1f %%; p %s", e->direction, (long long)e->k, (long long)e->n, 100 * e->low, 100 * e->high,
             100 * e->controls, pva_html_p(e->p, p));
    pva_html_figure_number(r->page, name, detail, "%.1f %%", 100 * e->rate);
}

static void summary_numbers(struct report *r) {
    const struct report_summary *s = &r->summary;
    char detail[260], p[16];
    pva_html_figures_begin(r->page);
    snprintf(detail, sizeof detail, "%lld of %lld; 95 %%: %.1f to %.1f", (long long)s->n_passed, (long long)s->n_problems, 100 * s->pass_rate.low, 100 * s->pass_rate.high);
    if (s->n_problems) pva_html_figure_number(r->page, "problems solved", detail, "%.1f %%", 100.0 * (double)s->n_passed / (double)s->n_problems);
    if (!isnan(s->best_familywise_p)) {
        snprintf(detail, sizeof detail, "%s; separation %+.3f", s->best_latent, s->best_separation);
        pva_html_figure_number(r->page, "best latent, family-wise p", detail, "%s", pva_html_p(s->best_familywise_p, p));
    }
    if (!isnan(s->auroc)) {
        int n = snprintf(detail, sizeof detail, "%s; 95 %%: %.3f to %.3f", s->best_predictor, s->auroc_low, s->auroc_high);
        if (!isnan(s->probe_auroc)) snprintf(detail + n, sizeof detail - (size_t)n, "; probe %.3f", s->probe_auroc);
        pva_html_figure_number(r->page, "best latent's AUROC", detail, "%.3f", s->auroc);
    }
    effect_number(r, "corrected by steering", &s->correction);
    effect_number(r, "corrupted by steering", &s->corruption);
    pva_html_figures_end(r->page);
}

/* The last n components of a path. */
static const char *tail_of(const char *path, int n) {
    const char *c = path ? path + strlen(path) : NULL;
    while (c && c > path && (c[-1] != '/' || !c[0] || --n > 0)) c--;
    return c;
}

static void summary_solutions(struct report *r) {
    const struct report_summary *s = &r->summary;
    const json_t *phase1 = json_object_get(r->manifest, "phase1");
    const char *model = tail_of(json_string_value(json_object_get(phase1, "model")), 2), *problems = tail_of(json_string_value(json_object_get(phase1, "problem_file")), 1);
    pva_html_paragraph(r->page, "lead", "The model%s%s wrote a program for %lld problems%s%s; %lld of them passed all their tests.", model ? " in " : "", model ? model : "",
                       (long long)s->n_problems, problems ? " of " : "", problems ? problems : "", (long long)s->n_passed);
}

static void summary_latents(struct report *r) {
    const struct report_summary *s = &r->summary;
    if (isnan(s->best_familywise_p)) return;
    char p[16];
    pva_html_paragraph(r->page, "lead", "%s of %lld latents separates right programs from wrong ones beyond what the best of so many does by chance: the %s is %s (p %s).",
                       s->best_familywise_p < 0.05 ? "At least one" : "None", (long long)s->n_latents, s->best_familywise_p < 0.05 ? "clearest" : "nearest", s->best_latent,
                       pva_html_p(s->best_familywise_p, p));
}

static void summary_prediction(struct report *r) {
    const struct report_summary *s = &r->summary;
    if (isnan(s->auroc) && isnan(s->probe_auroc)) return;
    char probe[160] = "", reaches[80] = "";
    if (!isnan(s->probe_auroc)) snprintf(reaches, sizeof reaches, "; a linear probe of the whole stream reaches %.3f", s->probe_auroc);
    if (s->probe_low > 0.5) snprintf(probe, sizeof probe, " A linear probe of the whole stream does: AUROC %.3f (%.3f to %.3f).", s->probe_auroc, s->probe_low, s->probe_high);
    else if (!isnan(s->probe_auroc)) snprintf(probe, sizeof probe, " Nor does a linear probe of the whole stream.");
    if (s->auroc_low > 0.5)
        pva_html_paragraph(r->page, "lead", "On %lld held-out problems the best of %d chosen latents, %s, predicts better than chance: AUROC %.3f%s.",
                           (long long)s->n_validation, s->n_predictors, s->best_predictor, s->auroc, reaches);
    else pva_html_paragraph(r->page, "lead", "On %lld held-out problems none of the %d chosen latents predicts better than chance.%s", (long long)s->n_validation, s->n_predictors, probe);
}

static void summary_steering(struct report *r) {
    const struct report_effect *both[2] = {&r->summary.correction, &r->summary.corruption};
    static const char *const what[2] = {"corrects failing", "corrupts passing"};
    if (isnan(both[0]->rate) && isnan(both[1]->rate)) return;
    int found = 0;
    for (int i = 0; i < 2; i++) {
        if (!(both[i]->p <= 0.05)) continue;
        found = 1;
        pva_html_paragraph(r->page, "lead", "Steering along %s %s problems more often than the controls do: %.1f against %.1f %%.", both[i]->direction, what[i], 100 * both[i]->rate,
                           100 * both[i]->controls);
    }
    if (!found) pva_html_paragraph(r->page, "lead", "Steering along the chosen latents changes no more than their controls do.");
}

/* ---- the page ---- */

/* Gemma 2's smallest is 2304 wide. */
static void organism(struct report *r) {
    if (r->summary.d_model >= 1024) return;
    pva_html_paragraph(r->page, "warning", "A model with a stream of %lld numbers is a model organism: it shows how the method works, and says nothing about a language model people use.",
                       (long long)r->summary.d_model);
}

static int write_sections(struct report *r, struct pva_error *err) {
    r->manifest = report_json(r, "manifest.json", "starts", err);
    if (err->code || report_phase1(r, err) || report_phase2(r, err) || report_phase3(r, err) || report_steer(r, err)) return err->code;
    provenance(r);
    pva_html_lead(r->page);
    summary_numbers(r);
    summary_solutions(r), summary_latents(r), summary_prediction(r), summary_steering(r);
    organism(r);
    return PVA_OK;
}

int pva_command_report(const struct pva_options *o, struct pva_error *err) {
    const char *const *words, *run = pva_options_text(o, "run");
    char path[4096];
    size_t n_words = pva_options_positional(o, &words);
    if (!run && n_words == 1) run = words[0];
    if (!run) return pva_fail(err, PVA_USAGE, "name one run directory");
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    struct report r = {.run = run};
    snprintf(r.figures, sizeof r.figures, "%.3100s/report", run);
    snprintf(path, sizeof path, "%s/phase1.h5", run);
    if (access(path, F_OK)) return pva_fail(err, PVA_INPUT, "%s: there is no phase 1 here; run pva-mpi phase1 --run %s first", run, run);
    if (mkdir(r.figures, 0777) && errno != EEXIST) return pva_fail(err, PVA_IO, "%s: %s", r.figures, strerror(errno));
    int figures_only = pva_options_flag(o, "figures-only");
    snprintf(path, sizeof path, figures_only ? "%s/report/.page" : "%s/report.html", run);
    const char *name = strrchr(run, '/');
    char title[300];
    snprintf(title, sizeof title, "pva-mpi: %s", name && name[1] ? name + 1 : run);
    if (!pva_html_open(path, title, &r.page, err)) write_sections(&r, err);
    pva_html_close(&r.page, err);
    if (figures_only) unlink(path);
    if (!err->code) printf("%s%s\n", figures_only ? r.figures : path, r.without_gnuplot ? "  (without figures: gnuplot is missing)" : "");
    if (r.manifest) json_decref(r.manifest);
    return err->code;
}
