/* steer_report.h - a finished steering phase as a table, steer-summary.json and exports/steer-arms.csv. */
#ifndef STEER_REPORT_H
#define STEER_REPORT_H

#include "steer_summary.h"

struct steer_report {
    const struct steer_plan *plan;
    const struct followup *followup;
    const struct steer_stage *tuning, *validation;
    const struct steer_result *tuning_result, *validation_result;
    double level, alpha;
};

void steer_report_print(const struct steer_report *r, FILE *out);
int steer_report_write(const struct steer_report *r, struct pva_error *err);

#endif
