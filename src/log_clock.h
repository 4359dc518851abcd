/* log_clock.h - the clock that paces progress lines, so that a test need not wait for 30 s. */
#ifndef LOG_CLOCK_H
#define LOG_CLOCK_H

/* Seconds on a clock that never goes back. */
extern double (*pva_log_seconds)(void);

#endif
