/* log.h - what the program says while it works. Results go to stdout or files; this goes to stderr and to a log file.
 * One line per message: control characters become '?', and what is longer than 4 KB is cut. Safe to call from threads.
 * What happens to a message never stops the work: if the log file cannot be written any more, that is said once. */
#ifndef PVA_LOG_H
#define PVA_LOG_H

#include "pva/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum pva_log_level { PVA_LOG_ERROR, PVA_LOG_WARNING, PVA_LOG_INFO, PVA_LOG_DEBUG };

/* What messages on the screen begin with, instead of "pva-mpi". Kept as a pointer. */
void pva_log_program(const char *name);

/* Screen: messages up to `level` go to stderr, as "pva-mpi: text". Default PVA_LOG_WARNING. Ranks other than 0 pass
 * PVA_LOG_ERROR so that a job says things once. */
void pva_log_screen(enum pva_log_level level);

/* File: everything (of progress a line every 30 s), each line with UTC time, level and rank: "2026-03-01T12:00:00.250Z
 * warning rank 3: text". Opened for append, so several ranks may share one; NULL closes. PVA_IO when it cannot be opened. */
int pva_log_file(const char *path, int rank, struct pva_error *err);

void pva_log(enum pva_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Progress on stderr: on a terminal one line, redrawn at most 5 times a second; elsewhere a line every 30 s, counted from
 * the first call; none at PVA_LOG_ERROR. progress_end clears the redrawn line. */
void pva_log_progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void pva_log_progress_end(void);

#ifdef __cplusplus
}
#endif
#endif
