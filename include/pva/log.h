/* log.h - what the program says while it works. Results go to stdout or files; this goes to stderr and to a log file.
 * One line per message. Safe to call from threads. */
#ifndef PVA_LOG_H
#define PVA_LOG_H

#include "pva/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum pva_log_level { PVA_LOG_ERROR, PVA_LOG_WARNING, PVA_LOG_INFO, PVA_LOG_DEBUG };

/* Screen: messages up to `level` go to stderr, as "pva-mpi: text". Default PVA_LOG_WARNING. Ranks other than 0 pass
 * PVA_LOG_ERROR so that a job says things once. */
void pva_log_screen(enum pva_log_level level);

/* File: everything, each line with UTC time, level and rank. Opened for append; NULL closes. */
int pva_log_file(const char *path, int rank, struct pva_error *err);

void pva_log(enum pva_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Progress on stderr: on a terminal one line, redrawn at most 5 times a second; elsewhere a line every 30 s, and none when
 * quiet. `done` clears the redrawn line. */
void pva_log_progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void pva_log_progress_end(void);

#ifdef __cplusplus
}
#endif
#endif
