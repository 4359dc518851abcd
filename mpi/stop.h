/* stop.h - SIGTERM, SIGINT and SIGUSR1 ask for a clean end: finish what is in flight, flush, exit with 75.
 * They may come several times, mixed with SIGCONT; the handler only sets a flag. */
#ifndef STOP_H
#define STOP_H

void stop_install(void);
int stop_requested(void);          /* the signal's number, or 0 */
const char *stop_signal_name(void); /* "SIGTERM", or "" */

#endif
