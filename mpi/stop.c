#include "stop.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t signal_seen;

static void remember(int number) {
    if (!signal_seen) signal_seen = number;
}

void stop_install(void) {
    const int numbers[] = {SIGTERM, SIGINT, SIGUSR1};
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = remember;
    a.sa_flags = SA_RESTART; /* a write in progress goes on; the main loop asks stop_requested */
    sigemptyset(&a.sa_mask);
    for (int i = 0; i < 3; i++) sigaction(numbers[i], &a, NULL);
}

int stop_requested(void) { return signal_seen; }

const char *stop_signal_name(void) {
    switch (signal_seen) {
    case SIGTERM: return "SIGTERM";
    case SIGINT: return "SIGINT";
    case SIGUSR1: return "SIGUSR1";
    }
    return "";
}
