#include "pva/stats.h"

#include <gsl/gsl_errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static _Thread_local int64_t n_errors;
static _Thread_local char last_error[256];

static void record(const char *reason, const char *file, int line, int gsl_errno) {
    if (gsl_errno == GSL_EUNDRFLW) return;
    const char *name = file ? strrchr(file, '/') : NULL;
    n_errors++;
    snprintf(last_error, sizeof last_error, "%s:%d: %s",
             name   ? name + 1
             : file ? file
                    : "gsl",
             line, reason ? reason : gsl_strerror(gsl_errno));
}

/* Installing twice at the same time installs the same handler, so a flag is enough. */
void pva_gsl_guard(void) {
    static atomic_int installed;
    if (atomic_load_explicit(&installed, memory_order_acquire)) return;
    gsl_set_error_handler(record);
    atomic_store_explicit(&installed, 1, memory_order_release);
}

int64_t pva_gsl_errors(const char **last) {
    if (last) *last = last_error;
    return n_errors;
}
