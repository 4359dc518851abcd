#include "check.h"

#include "pva/repetition.h"

int main(void) {
    static int32_t t[400];
    for (int period = 1; period <= 80; period++) {
        for (int i = 0; i < 400; i++) t[i] = i < 100 ? 1000 + i : i % period;
        CHECK_INT(pva_repetition_period(t, 400), period <= PVA_LOOP_PERIOD ? period : 0);
        CHECK_INT(pva_repetition_period(t, 355), 0); /* the loop is one token too short */
        CHECK_INT(pva_repetition_period(t, 356), period <= PVA_LOOP_PERIOD ? period : 0);
        t[300] = -1;
        CHECK_INT(pva_repetition_period(t, 400), 0);
    }
    CHECK_INT(pva_repetition_period(t, 0), 0);
    return check_report("test_repetition");
}
