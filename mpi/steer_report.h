/* steer_report.h - a finished steering phase as a table, steer-summary.json and exports/steer-arms.csv. */
#ifndef STEER_REPORT_H
#define STEER_REPORT_H

#include "steer_summary.h"

struct steer_report {
    const struct steer_plan *plan;
    const struct followup *followup;
    const struct steer_stage *stages; /* [STEER_N_STAGES]; the dose stage may have no arms */
    const struct steer_result *results;
    double level, alpha;
    struct steer_dose_point *dose; /* [n_dose] */
    int n_dose;
};

void steer_report_print(const struct steer_report *r, FILE *out);
/* json: the summary is written there too; NULL: nowhere else. */
int steer_report_write(const struct steer_report *r, FILE *json, struct pva_error *err);

#endif
