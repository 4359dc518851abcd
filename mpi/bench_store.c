/* bench store: how fast records of phase 1's size go into a shared file, beside pwrite of the same bytes on the same disk, in turns. */
#include "bench.h"

#include "par.h"
#include "store.h"

#include "pva/log.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST_ROUNDS = 1000 };

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

int bench_store(const struct pva_options *o, struct pva_error *err) {
    const char *directory = pva_options_text(o, "run");
    int rounds = (int)pva_options_int(o, "repeats");
    int64_t bytes = (int64_t)pva_options_bytes(o, "record-bytes"), n = pva_options_int(o, "records");
    double store[MOST_ROUNDS], raw[MOST_ROUNDS], ratio[MOST_ROUNDS];
    struct par par = {0};
    if (bytes < 1 || bytes > 1 << 30) return pva_fail(err, PVA_USAGE, "--record-bytes: from 1 byte to 1 GiB");
    if (par_open(&par, err)) return err->code;
    if (par.rank) pva_log_screen(PVA_LOG_ERROR);
    for (int r = 0; r < rounds && !err->code; r++) { /* store_measure ends with an agreement */
        struct store_rates rates;
        if (store_measure(&par, directory, bytes, n, &rates, err)) break;
        store[r] = rates.store, raw[r] = rates.raw, ratio[r] = rates.raw > 0 ? rates.store / rates.raw : 0;
    }
    if (!err->code && par.rank == 0) {
        double s = median(store, rounds), w = median(raw, rounds), q = median(ratio, rounds);
        printf("store, %d rank%s, %lld records of %lld bytes in %s, medians of %d\n", par.size, par.size > 1 ? "s" : "", (long long)n, (long long)bytes,
               directory, rounds);
        printf("written and committed %.0f MB/s; raw pwrite %.0f MB/s: %.1f %% of it (%.1f to %.1f %%)\n", s, w, 100 * q, 100 * ratio[0],
               100 * ratio[rounds - 1]);
    }
    if (par.rank) err->msg[0] = 0; /* rank 0 says it */
    par_close(&par);
    return err->code;
}
