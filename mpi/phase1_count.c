#include "phase1_count.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int phase1_count(struct store *results, struct phase1_counts *c, struct pva_error *err) {
    memset(c, 0, sizeof *c);
    c->n = store_n_slots(results);
    size_t n = (size_t)c->n;
    uint8_t *states = malloc(n + 1), *verdicts = malloc(n + 1), *parts = malloc(n + 1);
    int32_t *new_tokens = malloc((n + 1) * sizeof *new_tokens);
    if (!states || !verdicts || !parts || !new_tokens) {
        pva_fail(err, PVA_IO, "out of memory");
        goto done;
    }
    if (store_states(results, states, err) || store_read_range(results, PHASE1_VERDICT, 0, c->n, verdicts, err) ||
        store_read_range(results, PHASE1_N_NEW, 0, c->n, new_tokens, err) ||
        store_read_coordinate(results, "part", STORE_U8, parts, n, err))
        goto done;
    for (size_t i = 0; i < n; i++) {
        if (states[i] == STORE_EMPTY) continue;
        if (states[i] == PHASE1_TOO_LONG) {
            c->too_long++;
            continue;
        }
        int passed = verdicts[i] == PVA_PASS;
        c->done++;
        c->passed += passed;
        c->new_tokens += new_tokens[i];
        if (verdicts[i] < PVA_N_VERDICTS) c->verdicts[verdicts[i]]++;
        if (parts[i] < 3) c->by_part[parts[i]][0]++, c->by_part[parts[i]][1] += passed;
    }
done:
    free(states);
    free(verdicts);
    free(parts);
    free(new_tokens);
    return err->code;
}

const char *phase1_time_left(int64_t left, double rate) {
    static char text[48];
    if (!(rate > 0)) return "?";
    double seconds = (double)left / rate;
    if (seconds < 100) snprintf(text, sizeof text, "%.0f s", seconds);
    else if (seconds < 6000) snprintf(text, sizeof text, "%d min %02d s", (int)seconds / 60, (int)seconds % 60);
    else snprintf(text, sizeof text, "%lld h %02d min", (long long)(seconds / 3600), (int)((int64_t)seconds / 60 % 60));
    return text;
}
