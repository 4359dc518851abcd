#include "pva/log.h"
#include "log_clock.h"
#include "one_line.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* A line longer than this is cut; it ends in "..." then. */
enum { LINE_BYTES = 4096 };

static const double redraw_seconds = 0.2, line_seconds = 30;

static double monotonic_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double (*pva_log_seconds)(void) = monotonic_seconds;

/* One per process: stderr is one per process too. */
static struct {
    pthread_mutex_t lock;
    enum pva_log_level level;
    int file; /* -1: none */
    int rank;
    char drawn[LINE_BYTES]; /* the progress line that stands on the terminal; "" when none does */
    double last_drawn, last_line;
    int in_progress; /* since the first progress message after a start or an end */
    const char *program;
} state = {PTHREAD_MUTEX_INITIALIZER, PVA_LOG_WARNING, -1, 0, "", 0, 0, 0, "pva-mpi"};

/* One write per line, so that lines of several ranks in one file or pipe do not mix. The result says whether all went out. */
static int put(int fd, const char *text, size_t n) {
    while (n > 0) {
        ssize_t done = write(fd, text, n);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return 0;
        text += done;
        n -= (size_t)done;
    }
    return 1;
}

static void format_line(char out[LINE_BYTES], const char *fmt, va_list ap) {
    int n = vsnprintf(out, LINE_BYTES, fmt, ap);
    if (n < 0) snprintf(out, LINE_BYTES, "(a message that could not be formatted: \"%s\")", fmt);
    if (n >= LINE_BYTES) memcpy(out + LINE_BYTES - 4, "...", 4);
    pva_one_line(out);
}

static void to_screen(const char *text) {
    char line[LINE_BYTES + 64];
    /* On a terminal the message takes the place of the progress line, which is drawn again below it. */
    int n = snprintf(line, sizeof line, "%s%s: %s\n", state.drawn[0] ? "\r\033[K" : "", state.program, text);
    put(STDERR_FILENO, line, (size_t)n);
    if (state.drawn[0]) put(STDERR_FILENO, state.drawn, strlen(state.drawn));
}

static void to_file(const char *kind, const char *text) {
    if (state.file < 0) return;
    struct timespec now;
    struct tm utc;
    char when[32], line[LINE_BYTES + 128];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
    int n = snprintf(line, sizeof line, "%s.%03ldZ %s rank %d: %s\n", when, now.tv_nsec / 1000000, kind, state.rank, text);
    if (put(state.file, line, (size_t)n)) return;
    /* A full disk must not stop the work, but it must not go unseen either. */
    char notice[128];
    snprintf(notice, sizeof notice, "the log file cannot be written (%s) and is closed", strerror(errno));
    close(state.file);
    state.file = -1;
    to_screen(notice);
}

void pva_log_program(const char *name) { state.program = name; }

void pva_log_screen(enum pva_log_level level) {
    pthread_mutex_lock(&state.lock);
    state.level = level;
    pthread_mutex_unlock(&state.lock);
}

int pva_log_file(const char *path, int rank, struct pva_error *err) {
    int fd = -1;
    if (path) {
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (fd < 0) return pva_fail(err, PVA_IO, "log file %s: cannot be opened for append: %s", path, strerror(errno));
    }
    pthread_mutex_lock(&state.lock);
    if (state.file >= 0) close(state.file);
    state.file = fd;
    state.rank = rank;
    pthread_mutex_unlock(&state.lock);
    return 0;
}

void pva_log(enum pva_log_level level, const char *fmt, ...) {
    static const char *const kinds[] = {"error", "warning", "info", "debug"};
    char text[LINE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    format_line(text, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&state.lock);
    if (level <= state.level) to_screen(text);
    to_file(kinds[level], text);
    pthread_mutex_unlock(&state.lock);
}

/* What fits on one row of the terminal: a line that wraps could not be redrawn. UTF-8 sequences are kept whole. */
static size_t fitting(const char *text) {
    struct winsize w;
    size_t columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 ? w.ws_col : 80, n = strlen(text);
    if (n < columns) return n;
    n = columns - 1;
    while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80) n--;
    return n;
}

static void draw(const char *text, double now) {
    if (state.drawn[0] && now - state.last_drawn < redraw_seconds) return;
    size_t n = fitting(text);
    char line[LINE_BYTES + 16];
    int bytes = snprintf(line, sizeof line, "\r%.*s\033[K", (int)n, text);
    put(STDERR_FILENO, line, (size_t)bytes);
    memcpy(state.drawn, text, n);
    state.drawn[n] = 0;
    state.last_drawn = now;
}

void pva_log_progress(const char *fmt, ...) {
    char text[LINE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    format_line(text, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&state.lock);
    double now = pva_log_seconds();
    int quiet = state.level < PVA_LOG_WARNING;
    if (!state.in_progress) state.in_progress = 1, state.last_line = now;
    int terminal = isatty(STDERR_FILENO);
    if (!quiet && terminal) draw(text, now);
    if (now - state.last_line >= line_seconds) {
        state.last_line = now;
        if (!quiet && !terminal) to_screen(text);
        to_file("progress", text);
    }
    pthread_mutex_unlock(&state.lock);
}

void pva_log_progress_end(void) {
    pthread_mutex_lock(&state.lock);
    if (state.drawn[0]) put(STDERR_FILENO, "\r\033[K", 4);
    state.drawn[0] = 0;
    state.in_progress = 0;
    pthread_mutex_unlock(&state.lock);
}
