/* repetition.h - has a text fallen into a loop? */
#ifndef PVA_REPETITION_H
#define PVA_REPETITION_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PVA_LOOP_TOKENS = 256, PVA_LOOP_PERIOD = 64 };

/* The period (1 .. PVA_LOOP_PERIOD tokens) with which the last PVA_LOOP_TOKENS tokens repeat exactly, or 0. */
int64_t pva_repetition_period(const int32_t *tokens, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
