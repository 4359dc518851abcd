#include "pva/repetition.h"

int64_t pva_repetition_period(const int32_t *tokens, int64_t n) {
    if (n < PVA_LOOP_TOKENS) return 0;
    for (int64_t period = 1; period <= PVA_LOOP_PERIOD; period++) {
        int64_t i = n - PVA_LOOP_TOKENS + period;
        while (i < n && tokens[i] == tokens[i - period]) i++;
        if (i == n) return period;
    }
    return 0;
}
