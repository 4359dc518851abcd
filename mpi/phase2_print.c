#include "phase2_print.h"

#include "pva/table.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- tables ---- */

/* "n/a" for NaN, so that columns stay aligned and nobody reads it as a number. */
static const char *number(double v, const char *format, char *buffer, size_t size) {
    if (isnan(v)) snprintf(buffer, size, "n/a");
    else snprintf(buffer, size, format, v);
    return buffer;
}
#define NUMBER(v, format) number(v, format, (char[32]){0}, 32)

static int print_layers(const struct phase2_plan *plan, struct store *scores, FILE *out, struct pva_error *err) {
    const struct phase2_layers *l = &plan->layers;
    fprintf(out, "\nlayer      L0  label     FVU  near threshold    mean norm\n");
    for (int64_t i = 0; i < l->n; i++) {
        double l0, fvu, norm;
        int64_t near;
        if (store_read(scores, i, PHASE2_L0, &l0, err) || store_read(scores, i, PHASE2_FVU, &fvu, err) || store_read(scores, i, PHASE2_MEAN_NORM, &norm, err) ||
            store_read(scores, i, PHASE2_N_NEAR, &near, err))
            return err->code;
        fprintf(out, "%5d  %6s  %5s  %6s  %14lld  %11s\n", (int)l->layer[i], NUMBER(l0, "%.1f"), NUMBER(l->label_l0[i], "%.0f"), NUMBER(fvu, "%.3f"), (long long)near,
                NUMBER(norm, "%.4g"));
    }
    return PVA_OK;
}

static void print_latent(const struct phase2_latent *x, int place, FILE *out) {
    fprintf(out, "%3d  %5d %7d  %6s %6s  %7s [%6s, %6s]  %7s  %9s  %9s  %9s  %7s  %6s\n", place, (int)x->layer, (int)x->latent, NUMBER(x->f_correct, "%.3f"),
            NUMBER(x->f_incorrect, "%.3f"), NUMBER(x->separation, "%+.3f"), NUMBER(x->separation_low, "%+.3f"), NUMBER(x->separation_high, "%+.3f"),
            NUMBER(x->t, "%+.2f"), NUMBER(x->p, "%.2g"), NUMBER(x->familywise_p, "%.2g"), NUMBER(x->q, "%.2g"), NUMBER(x->validation_separation, "%+.3f"),
            NUMBER(x->pile_rate, "%.4f"));
}

static int print_lists(const struct phase2_plan *plan, struct phase2 *p, FILE *out, struct pva_error *err) {
    struct phase2_latent *top = calloc((size_t)plan->top + 1, sizeof *top);
    if (!top) return pva_fail(err, PVA_IO, "out of memory");
    for (int k = 0; k < PHASE2_N_LISTS && !err->code; k++) {
        int n;
        if (phase2_top(p, (enum phase2_list)k, (int)plan->top, top, &n, err)) break;
        fprintf(out, "\n%s%s\n", phase2_list_name((enum phase2_list)k), n ? "" : ": no latent");
        if (n)
            fprintf(out, "  #  layer  latent   f(ok) f(bad)  separation, 95 %%           Welch t          p  family p          q  validat.   pile\n");
        for (int i = 0; i < n; i++) print_latent(&top[i], i + 1, out);
    }
    free(top);
    return err->code;
}

/* What the filter would leave, and which latent each list would begin with, at other thresholds. */
static int print_sensitivity(const struct phase2_plan *plan, FILE *out, struct pva_error *err) {
    struct selection_schema schema;
    struct store *s = NULL;
    char path[4096];
    int64_t passing[PHASE2_N_THRESHOLDS];
    int32_t layer[PHASE2_N_THRESHOLDS][PHASE2_N_LISTS], latent[PHASE2_N_THRESHOLDS][PHASE2_N_LISTS];
    selection_schema_any(&schema);
    snprintf(path, sizeof path, "%s/phase2-selection.h5", plan->run);
    if (store_open_read(path, &schema.store, &s, err)) return err->code;
    if (!store_read_coordinate(s, "n_passing", STORE_I64, passing, sizeof passing, err) && !store_read_coordinate(s, "best_layer", STORE_I32, layer, sizeof layer, err) &&
        !store_read_coordinate(s, "best_latent", STORE_I32, latent, sizeof latent, err)) {
        fprintf(out, "\npile threshold   latents left");
        for (int k = 0; k < PHASE2_N_LISTS; k++) fprintf(out, "  %22s", phase2_list_name((enum phase2_list)k));
        fprintf(out, "\n");
        for (int t = 0; t < PHASE2_N_THRESHOLDS; t++) {
            fprintf(out, "%12.1f %%  %13lld", 100 * phase2_thresholds[t], (long long)passing[t]);
            for (int k = 0; k < PHASE2_N_LISTS; k++) {
                char name[32] = "none";
                if (layer[t][k] >= 0) snprintf(name, sizeof name, "%d:%d", (int)layer[t][k], (int)latent[t][k]);
                fprintf(out, "  %22s", name);
            }
            fprintf(out, "\n");
        }
    }
    struct pva_error late = {0};
    store_close(&s, &late);
    return err->code;
}

int phase2_print_summary(const struct phase2_plan *plan, const struct phase2_selected *selected, struct store *scores, FILE *out, struct pva_error *err) {
    const struct phase2_layers *l = &plan->layers;
    struct phase2 *p = NULL;
    fprintf(out, "selection   %lld problems: %lld pass, %lld fail; validation %lld: %lld pass, %lld fail\n", (long long)plan->n_selection, (long long)plan->n[0],
            (long long)plan->n[1], (long long)(plan->n_items - plan->n_selection), (long long)plan->n_validation[0], (long long)plan->n_validation[1]);
    if (plan->n[0] == 0 || plan->n[1] == 0)
        fprintf(out, "            one class is empty: nothing can be separated, all scores are undefined and every family-wise p is 1\n");
    fprintf(out, "latents     %lld layers x %lld: %lld; autoencoder L reads %s[%s] (%s alignment)\n", (long long)l->n, (long long)l->n_latents,
            (long long)(l->n * l->n_latents), plan->phase1.point, l->source[0] == l->layer[0] ? "L" : l->source[0] < l->layer[0] ? "L-1" : "L+1", plan->alignment);
    if (selected->had_pile)
        fprintf(out, "filter      %lld fire on less than %.3g %% of %lld documents and stay, %lld are dropped\n", (long long)selected->n_passing, 100 * plan->pile_threshold,
                (long long)selected->n_documents, (long long)(l->n * l->n_latents - selected->n_passing));
    else fprintf(out, "filter      none: this run has no pile.h5; latents that fire on any text are in the lists (pva-mpi pile)\n");
    fprintf(out, "inference   %lld latents fire on some problems and not on all; family-wise p: step-down max-T of the %s separation, %lld permutations, seed %lld;\n"
                 "            q: Benjamini-Hochberg over Fisher's p; Welch's p is that of one latent alone\n",
            (long long)selected->n_hypotheses, plan->statistic == PVA_FIRING_STUDENTISED ? "studentised" : "absolute", (long long)plan->n_permutations,
            (long long)plan->seed);
    if (print_layers(plan, scores, out, err) || phase2_open(plan->run, &p, err)) return err->code;
    print_lists(plan, p, out, err);
    phase2_close(&p);
    return err->code || !selected->had_pile ? err->code : print_sensitivity(plan, out, err);
}

/* ---- JSON ---- */

static json_t *real(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static json_t *latent_object(const struct phase2_latent *x) {
    return json_pack("{s:i,s:i,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "layer", (int)x->layer, "latent", (int)x->latent, "f_correct", real(x->f_correct),
                     "f_incorrect", real(x->f_incorrect), "separation", real(x->separation), "separation_low", real(x->separation_low), "separation_high",
                     real(x->separation_high), "t", real(x->t), "df", real(x->df), "p", real(x->p), "familywise_p", real(x->familywise_p), "q", real(x->q),
                     "validation_separation", real(x->validation_separation), "pile_rate", real(x->pile_rate));
}

int phase2_print_json(const struct phase2_plan *plan, const struct phase2_selected *selected, FILE *out, struct pva_error *err) {
    struct phase2 *p = NULL;
    struct phase2_latent *top = calloc((size_t)plan->top + 1, sizeof *top);
    json_t *lists = json_object();
    if (!top) pva_fail(err, PVA_IO, "out of memory");
    else phase2_open(plan->run, &p, err);
    for (int k = 0; k < PHASE2_N_LISTS && !err->code; k++) {
        int n;
        json_t *list = json_array();
        if (!phase2_top(p, (enum phase2_list)k, (int)plan->top, top, &n, err))
            for (int i = 0; i < n; i++) json_array_append_new(list, latent_object(&top[i]));
        json_object_set_new(lists, phase2_list_name((enum phase2_list)k), list);
    }
    json_t *all = json_pack("{s:I,s:I,s:I,s:I,s:b,s:I,s:s,s:I,s:I,s:O}", "correct", (json_int_t)plan->n[0], "incorrect", (json_int_t)plan->n[1], "latents",
                            (json_int_t)(plan->layers.n * plan->layers.n_latents), "passing", (json_int_t)selected->n_passing, "pile_filter", selected->had_pile,
                            "hypotheses", (json_int_t)selected->n_hypotheses, "sae_alignment", plan->alignment, "permutations", (json_int_t)plan->n_permutations,
                            "seed", (json_int_t)plan->seed, "lists", lists);
    if (!err->code && all) {
        json_dumpf(all, out, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
        fputc('\n', out);
    }
    json_decref(all);
    json_decref(lists);
    phase2_close(&p);
    free(top);
    return err->code;
}

/* ---- CSV ---- */

struct output {
    char path[4096], partial[4200];
    FILE *file;
};

static int open_output(struct output *o, const char *run, const char *name, struct pva_error *err) {
    snprintf(o->path, sizeof o->path, "%s/exports/%s", run, name);
    snprintf(o->partial, sizeof o->partial, "%s.partial", o->path);
    o->file = fopen(o->partial, "we");
    return o->file ? PVA_OK : pva_fail(err, PVA_IO, "%s: %s", o->partial, strerror(errno));
}

static int close_output(struct output *o, struct pva_error *err) {
    if (!o->file) return err->code;
    int bad = fflush(o->file) || ferror(o->file) || fsync(fileno(o->file));
    bad |= fclose(o->file) != 0;
    if (bad && !err->code) pva_fail(err, PVA_IO, "%s: cannot be written: is the disk full?", o->partial);
    if (!err->code && rename(o->partial, o->path)) pva_fail(err, PVA_IO, "%s: %s", o->path, strerror(errno));
    if (err->code) unlink(o->partial);
    return err->code;
}

enum { N_NUMBERS = 16 };
static const char *const number_names[N_NUMBERS] = {"f_correct", "f_incorrect", "mean_correct", "mean_incorrect", "separation", "separation_low", "separation_high", "t",
                                                    "df", "p", "familywise_p", "q", "validation_separation", "mean_active", "pile_rate", "mean_difference"};

static void numbers_of(const struct phase2_latent *x, double out[N_NUMBERS]) {
    const double all[N_NUMBERS] = {x->f_correct, x->f_incorrect, x->mean_correct, x->mean_incorrect, x->separation, x->separation_low, x->separation_high, x->t, x->df,
                                   x->p, x->familywise_p, x->q, x->validation_separation, x->mean_active, x->pile_rate, x->mean_correct - x->mean_incorrect};
    memcpy(out, all, sizeof all);
}

/* Nine digits: the file is for looking and plotting, the exact values are in phase2.h5. NaN is an empty field. */
static void write_rows(FILE *f, const struct phase2_latent *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double v[N_NUMBERS];
        numbers_of(&x[i], v);
        fprintf(f, "%d,%d", (int)x[i].layer, (int)x[i].latent);
        for (int k = 0; k < N_NUMBERS; k++) {
            if (isnan(v[k])) fputc(',', f);
            else if (v[k] == 0) fputs(",0", f);
            else fprintf(f, ",%.9g", v[k]);
        }
        fputc('\n', f);
    }
}

static int export_all(const struct phase2_plan *plan, struct phase2 *p, struct pva_error *err) {
    struct output o = {0};
    if (open_output(&o, plan->run, "latents.csv", err)) return err->code;
    fprintf(o.file, "layer,latent");
    for (int k = 0; k < N_NUMBERS; k++) fprintf(o.file, ",%s", number_names[k]);
    fputc('\n', o.file);
    for (int64_t i = 0; i < plan->layers.n && !err->code; i++) {
        struct phase2_latent *x = NULL;
        int64_t n;
        if (!phase2_layer(p, plan->layers.layer[i], &x, &n, err)) write_rows(o.file, x, n);
        free(x);
    }
    return close_output(&o, err);
}

static int export_top(const struct phase2_plan *plan, struct phase2 *p, struct pva_error *err) {
    int64_t most = PHASE2_N_LISTS * plan->top, n_rows = 0;
    struct phase2_latent *top = calloc((size_t)most + 1, sizeof *top);
    const char **list = calloc((size_t)most + 1, sizeof *list);
    int32_t *whole = calloc((size_t)(3 * most) + 1, sizeof *whole), *place = whole, *layer = whole + most, *latent = whole + 2 * most;
    double *values = calloc((size_t)(N_NUMBERS * most) + 1, sizeof *values);
    struct output o = {0};
    if (!top || !list || !whole || !values) pva_fail(err, PVA_IO, "out of memory");
    for (int k = 0; k < PHASE2_N_LISTS && !err->code; k++) {
        int n;
        if (phase2_top(p, (enum phase2_list)k, (int)plan->top, top + n_rows, &n, err)) break;
        for (int i = 0; i < n; i++) list[n_rows + i] = phase2_list_name((enum phase2_list)k), place[n_rows + i] = i + 1;
        n_rows += n;
    }
    for (int64_t i = 0; i < n_rows && !err->code; i++) {
        double v[N_NUMBERS];
        numbers_of(&top[i], v);
        for (int k = 0; k < N_NUMBERS; k++) values[k * most + i] = v[k];
        layer[i] = top[i].layer, latent[i] = top[i].latent;
    }
    struct pva_column columns[4 + N_NUMBERS] = {{"list", PVA_COLUMN_TEXT, list}, {"place", PVA_COLUMN_I32, place}, {"layer", PVA_COLUMN_I32, layer},
                                                {"latent", PVA_COLUMN_I32, latent}};
    for (int k = 0; k < N_NUMBERS; k++) columns[4 + k] = (struct pva_column){number_names[k], PVA_COLUMN_F64, values + k * most};
    struct pva_table table = {n_rows, 4 + N_NUMBERS, columns};
    if (!err->code && !open_output(&o, plan->run, "top-latents.csv", err)) pva_table_write(&table, PVA_TABLE_CSV, o.file, err);
    close_output(&o, err);
    free(top), free(list), free(whole), free(values);
    return err->code;
}

int phase2_export(const struct phase2_plan *plan, int all, struct pva_error *err) {
    struct phase2 *p = NULL;
    if (phase2_open(plan->run, &p, err)) return err->code;
    if (!export_top(plan, p, err) && all) export_all(plan, p, err);
    phase2_close(&p);
    return err->code;
}
