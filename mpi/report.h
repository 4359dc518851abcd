/* report.h - report.html, section by section. Each phase's section reads that phase's finished files and says when they are missing. */
#ifndef REPORT_H
#define REPORT_H

#include "pva/figure.h"
#include "pva/html.h"
#include "pva/rates.h"

#include <jansson.h>

/* What steering along one direction did, of n problems that could change; p after Holm. */
struct report_effect {
    char direction[60];
    int64_t k, n;
    double rate, low, high, p, controls;
};

/* What the summary at the top says; NaN and empty where a phase is missing. Filled by the sections. Latents are named as everywhere: L3-712. */
struct report_summary {
    int64_t n_problems, n_passed, d_model;
    struct pva_interval pass_rate;
    int64_t n_latents;
    char best_latent[40];
    double best_separation, best_familywise_p;
    int64_t n_validation;
    int n_predictors; /* latents, without the probe */
    char best_predictor[60];
    double auroc, auroc_low, auroc_high, probe_auroc, probe_low, probe_high;
    struct report_effect correction, corruption;
};

struct report {
    const char *run;       /* directory */
    char figures[3200];    /* run/report */
    struct pva_html *page;
    json_t *manifest;      /* NULL: none */
    struct report_summary summary;
    int without_gnuplot;   /* it was missing or failed: said once */
};

/* Appends to a text of at most size - 1 bytes; what does not fit is left out. */
void report_add(char *text, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Draws, and puts the picture with its numbers' address into the page. A picture that cannot be drawn is no error of the report. */
void report_picture(struct report *r, const char *name, const struct pva_figure *figure, const char *alt, const char *caption);

/* RUN/name as JSON; NULL when it is not there. A damaged file, or one without its array `member`, is an error. */
json_t *report_json(const struct report *r, const char *name, const char *member, struct pva_error *err);

/* A section for a phase that has not run, or whose last file is not there yet: how far it is, and how to go on. command: "phase3"; arguments: "--sae DIR" or "". */
void report_missing(struct report *r, const char *id, const char *title, const char *command, const char *arguments);

/* The sections. They return err->code. */
int report_phase1(struct report *r, struct pva_error *err);
int report_phase2(struct report *r, struct pva_error *err);
int report_phase3(struct report *r, struct pva_error *err);
int report_steer(struct report *r, struct pva_error *err);

#endif
