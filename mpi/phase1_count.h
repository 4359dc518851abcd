/* phase1_count.h - how far a phase1.h5 is: for the progress line, the summary and `status`. */
#ifndef PHASE1_COUNT_H
#define PHASE1_COUNT_H

#include "phase1_schema.h"

#include "pva/grade.h"

struct phase1_counts {
    int64_t n, done, too_long, passed; /* n: slots; done: with a verdict */
    int64_t verdicts[PVA_N_VERDICTS];
    int64_t new_tokens;
    int64_t by_part[3][2]; /* of each part of the split: done, passed */
};

/* Works while a job writes the file. */
int phase1_count(struct store *results, struct phase1_counts *c, struct pva_error *err);

/* "3 min 20 s", "5 h 10 min", "?" when the rate is 0. Valid until the next call. */
const char *phase1_time_left(int64_t left, double rate);

#endif
