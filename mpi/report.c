/* report: one page about a run, from its finished files, without the model. */
#include "report.h"

#include "commands.h"
#include "phase1_read.h"

#include "pva/log.h"

#include <errno.h>
#include <hdf5.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct pva_option pva_report_options[] = {
    {"run", PVA_OPT_TEXT, "DIR", NULL, "run directory (or give it without --run)", NULL, 0, 0},
    {"figures-only", PVA_OPT_FLAG, NULL, "no", "draw the figures and write their numbers again, leave report.html alone", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

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

json_t *report_json(const struct report *r, const char *name, struct pva_error *err) {
    char path[4096];
    json_error_t why;
    snprintf(path, sizeof path, "%s/%s", r->run, name);
    if (access(path, F_OK)) return NULL;
    json_t *o = json_load_file(path, 0, &why);
    if (!o) pva_fail(err, PVA_INPUT, "%s: line %d: %s", path, why.line, why.text);
    return o;
}

void report_missing(struct report *r, const char *id, const char *title, const char *command) {
    pva_html_section(r->page, id, title);
    pva_html_paragraph(r->page, "note", "Not run yet: pva-mpi %s --run %s", command, r->run);
}

/* ---- how it was made: everything of the manifest, key by key ---- */

struct facts {
    int64_t n;
    char *text[400];
};

static void add_fact(struct facts *f, const char *key, const char *value) {
    if (f->n + 2 > 400) return;
    f->text[f->n++] = strdup(key);
    f->text[f->n++] = strdup(value);
}

static void flatten(struct facts *f, const char *prefix, const json_t *o) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)o, key, value) {
        char name[200], text[400];
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", key);
        if (json_is_object(value)) flatten(f, name, value);
        else if (json_is_string(value)) add_fact(f, name, json_string_value(value));
        else if (json_is_integer(value)) snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value)), add_fact(f, name, text);
        else if (json_is_real(value)) snprintf(text, sizeof text, "%g", json_real_value(value)), add_fact(f, name, text);
        else if (json_is_boolean(value)) add_fact(f, name, json_is_true(value) ? "yes" : "no");
    }
}

static void provenance(struct report *r) {
    pva_html_section(r->page, "provenance", "How it was made");
    if (!r->manifest) {
        pva_html_paragraph(r->page, "note", "The run has no manifest.json.");
        return;
    }
    struct facts f = {0};
    const char *keys[200], *values[200];
    json_t *starts = json_object_get(r->manifest, "starts"), *last = json_array_get(starts, json_array_size(starts) - 1);
    flatten(&f, "last start", last);
    json_t *rest = json_copy(r->manifest);
    json_object_del(rest, "starts");
    flatten(&f, "", rest);
    json_decref(rest);
    for (int64_t i = 0; i < f.n / 2; i++) keys[i] = f.text[2 * i], values[i] = f.text[2 * i + 1];
    const struct pva_column columns[] = {{"what", PVA_COLUMN_TEXT, keys}, {"value", PVA_COLUMN_TEXT, values}};
    const struct pva_table table = {f.n / 2, 2, columns};
    pva_html_paragraph(r->page, "", "Started %zu time%s. Every draw is keyed by the seed, the problem, the sample and the step, so the same command on any number of "
                       "ranks gives the same bytes.", json_array_size(starts), json_array_size(starts) == 1 ? "" : "s");
    pva_html_details_begin(r->page, "Versions, hashes, seeds, sandbox, hosts");
    pva_html_table(r->page, "From manifest.json", &table, NULL, NULL);
    pva_html_details_end(r->page);
    for (int64_t i = 0; i < f.n; i++) free(f.text[i]);
}

/* ---- the summary ---- */

static void summary(struct report *r) {
    const struct report_summary *s = &r->summary;
    char detail[4][260];
    pva_html_figures_begin(r->page);
    snprintf(detail[0], sizeof detail[0], "%lld of %lld; 95 %%: %.1f to %.1f", (long long)s->n_passed, (long long)s->n_problems, 100 * s->pass_rate.low, 100 * s->pass_rate.high);
    pva_html_figure_number(r->page, "problems solved", detail[0], "%.1f %%", s->n_problems ? 100.0 * (double)s->n_passed / (double)s->n_problems : 0.0);
    if (!isnan(s->best_familywise_p)) {
        snprintf(detail[1], sizeof detail[1], "%s; separation %+.3f", s->best_latent, s->best_separation);
        pva_html_figure_number(r->page, "best latent, family-wise p", detail[1], "%.2g", s->best_familywise_p);
    }
    if (!isnan(s->auroc)) {
        snprintf(detail[2], sizeof detail[2], "95 %%: %.2f to %.2f; dense probe %.2f", s->auroc_low, s->auroc_high, s->probe_auroc);
        pva_html_figure_number(r->page, "best latent's AUROC", detail[2], "%.3f", s->auroc);
    }
    if (!isnan(s->correction)) {
        snprintf(detail[3], sizeof detail[3], "95 %%: %.1f to %.1f; p against controls %.2g", 100 * s->correction_low, 100 * s->correction_high, s->correction_p);
        pva_html_figure_number(r->page, "corrected by steering", detail[3], "%.1f %%", 100 * s->correction);
    }
    if (!isnan(s->corruption)) {
        snprintf(detail[3], sizeof detail[3], "95 %%: %.1f to %.1f; p against controls %.2g", 100 * s->corruption_low, 100 * s->corruption_high, s->corruption_p);
        pva_html_figure_number(r->page, "corrupted by steering", detail[3], "%.1f %%", 100 * s->corruption);
    }
    pva_html_figures_end(r->page);
    pva_html_paragraph(r->page, "lead", "%s%s%s", isnan(s->best_familywise_p)   ? "The latents have not been scored yet."
                                                  : s->best_familywise_p < 0.05 ? "At least one latent separates right programs from wrong ones beyond what the best of many does by chance."
                                                                                : "No latent separates right programs from wrong ones beyond what the best of many does by chance.",
                       isnan(s->auroc) ? "" : s->auroc_low > 0.5 ? " On held-out problems the best one predicts better than chance." : " On held-out problems none predicts better than chance.",
                       isnan(s->correction) ? "" : s->correction_p <= 0.05 || s->corruption_p <= 0.05 ? " Steering along it changes outcomes more than its controls do."
                                                                                                        : " Steering along it changes no more than its controls do.");
}

/* ---- the page ---- */

/* Gemma 2's smallest is 2304 wide. */
static void organism(struct report *r) {
    if (r->summary.d_model >= 1024) return;
    pva_html_paragraph(r->page, "warning", "A model with a stream of %lld numbers is a model organism: it shows how the method works, and says nothing about a language model people use.",
                       (long long)r->summary.d_model);
}

static int write_sections(struct report *r, struct pva_error *err) {
    r->manifest = report_json(r, "manifest.json", err);
    if (err->code || report_phase1(r, err) || report_phase2(r, err) || report_phase3(r, err) || report_steer(r, err)) return err->code;
    provenance(r);
    pva_html_lead(r->page);
    summary(r);
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
