#include "check.h"
#include "log_clock.h"
#include "pva/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static double now;
static double clock_of_test(void) { return now; }

static char directory[] = "test_log_XXXXXX";
static char log_path[64], screen_path[64];
static struct pva_error err;

static char *read_all(const char *path) {
    static char text[1 << 20];
    FILE *f = fopen(path, "rb");
    CHECK_FATAL(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static int n_lines(const char *text) {
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

/* What `body` writes to stderr when that is a file. */
static char *screen_of(void (*body)(void)) {
    int saved = dup(STDERR_FILENO), file = open(screen_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK_FATAL(saved >= 0 && file >= 0);
    dup2(file, STDERR_FILENO);
    body();
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(file);
    return read_all(screen_path);
}

static void one_of_each(void) {
    pva_log(PVA_LOG_ERROR, "error %d", 1);
    pva_log(PVA_LOG_WARNING, "warning %s", "two");
    pva_log(PVA_LOG_INFO, "info");
    pva_log(PVA_LOG_DEBUG, "debug");
}

static void test_levels(void) {
    CHECK_TEXT(screen_of(one_of_each), "pva-mpi: error 1\npva-mpi: warning two\n"); /* before any setting */
    pva_log_screen(PVA_LOG_ERROR);
    CHECK_TEXT(screen_of(one_of_each), "pva-mpi: error 1\n");
    pva_log_screen(PVA_LOG_DEBUG);
    CHECK_TEXT(screen_of(one_of_each), "pva-mpi: error 1\npva-mpi: warning two\npva-mpi: info\npva-mpi: debug\n");
    pva_log_screen(PVA_LOG_WARNING);
}

static void hostile(void) {
    pva_log(PVA_LOG_ERROR, "%s", "two\nlines\033[2J");
    char longer[10000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    pva_log(PVA_LOG_ERROR, "%s", longer);
}

static void test_one_line(void) {
    char *text = screen_of(hostile);
    CHECK_HAS(text, "pva-mpi: two?lines?[2J\npva-mpi: xxx");
    CHECK_INT(n_lines(text), 2);
    CHECK_HAS(text, "xxx...\n");
    CHECK(strlen(text) > 4000 && strlen(text) < 5000);
}

static void test_file(void) {
    CHECK_OK(pva_log_file(log_path, 3, &err), err);
    screen_of(one_of_each);
    CHECK_OK(pva_log_file(log_path, 4, &err), err); /* again: appended, not started over */
    screen_of(hostile);
    CHECK_OK(pva_log_file(NULL, 0, &err), err);
    screen_of(one_of_each); /* no longer */
    char *text = read_all(log_path);
    CHECK_INT(n_lines(text), 6);
    regex_t pattern;
    CHECK_FATAL(!regcomp(&pattern,
                         "^(20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\.[0-9]{3}Z "
                         "(error|warning|info|debug) rank [34]: [^\n]+\n){6}$",
                         REG_EXTENDED));
    CHECK_INT(regexec(&pattern, text, 0, NULL, 0), 0);
    regfree(&pattern);
    CHECK_HAS(text, "Z error rank 3: error 1\n");
    CHECK_HAS(text, "Z debug rank 3: debug\n");
    CHECK_HAS(text, "Z error rank 4: two?lines?[2J\n");

    CHECK_INT(pva_log_file("/nowhere/at/all.log", 0, &err), PVA_IO);
    CHECK_TEXT(err.msg, "log file /nowhere/at/all.log: cannot be opened for append: No such file or directory");
    memset(&err, 0, sizeof err);
}

/* A full disk is said once; the work goes on. */
static void test_full_disk(void) {
    if (access("/dev/full", W_OK)) {
        CHECK_SKIP("a full disk: no /dev/full here");
        return;
    }
    CHECK_OK(pva_log_file("/dev/full", 0, &err), err);
    char *text = screen_of(one_of_each);
    CHECK_TEXT(text, "pva-mpi: error 1\npva-mpi: the log file cannot be written (No space left on device) and is "
                     "closed\npva-mpi: warning two\n");
    CHECK_OK(pva_log_file(NULL, 0, &err), err);
}

static void progress_for_100_s(void) {
    for (int i = 0; i <= 100; i++, now += 1) pva_log_progress("%d of 100", i);
    pva_log_progress_end();
}

static void test_progress_off_terminal(void) {
    CHECK_FATAL(unlink(log_path) == 0);
    CHECK_OK(pva_log_file(log_path, 0, &err), err);
    CHECK_TEXT(screen_of(progress_for_100_s), "pva-mpi: 30 of 100\npva-mpi: 60 of 100\npva-mpi: 90 of 100\n");
    CHECK_TEXT(screen_of(progress_for_100_s),
               "pva-mpi: 30 of 100\npva-mpi: 60 of 100\npva-mpi: 90 of 100\n"); /* counted afresh */
    CHECK_INT(n_lines(read_all(log_path)), 6);
    CHECK_HAS(read_all(log_path), "Z progress rank 0: 90 of 100\n");
    pva_log_screen(PVA_LOG_ERROR);
    CHECK_TEXT(screen_of(progress_for_100_s), "");
    CHECK_INT(n_lines(read_all(log_path)), 9); /* quiet is about the screen */
    pva_log_screen(PVA_LOG_WARNING);
    CHECK_OK(pva_log_file(NULL, 0, &err), err);
}

static void on_terminal(void) {
    pva_log_progress("first");
    now += 0.1;
    pva_log_progress("too soon");
    pva_log(PVA_LOG_WARNING, "between");
    now += 0.15;
    pva_log_progress("second, which is longer than the terminal is wide");
    pva_log_screen(PVA_LOG_ERROR);
    now += 1;
    pva_log_progress("quiet");
    pva_log_screen(PVA_LOG_WARNING);
    now += 1;
    pva_log_progress("12345678 \xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9");
    pva_log_progress_end();
    pva_log_progress_end();
    pva_log(PVA_LOG_ERROR, "after");
}

static void test_progress_on_terminal(void) {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) || unlockpt(master)) {
        CHECK_SKIP("progress on a terminal: no pseudo-terminal here");
        return;
    }
    int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    CHECK_FATAL(terminal >= 0);
    struct winsize size = {.ws_row = 24, .ws_col = 19};
    struct termios raw;
    CHECK_FATAL(ioctl(terminal, TIOCSWINSZ, &size) == 0 && tcgetattr(terminal, &raw) == 0);
    cfmakeraw(&raw);
    CHECK_FATAL(tcsetattr(terminal, TCSANOW, &raw) == 0);
    int saved = dup(STDERR_FILENO);
    dup2(terminal, STDERR_FILENO);
    on_terminal();
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(terminal);
    /* A pseudo-terminal hands over what was written in pieces of its own choosing; with its last writer gone the reading ends in EIO. */
    char text[2000];
    size_t n = 0;
    for (ssize_t got; n < sizeof text - 1 && (got = read(master, text + n, sizeof text - 1 - n)) > 0;) n += (size_t)got;
    text[n] = 0;
    close(master);
    CHECK_TEXT(text, "\rfirst\033[K"
                     "\r\033[Kpva-mpi: between\nfirst"
                     "\rsecond, which is l\033[K"
                     "\r12345678 \xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\033[K"
                     "\r\033[K"
                     "pva-mpi: after\n");
}

enum { THREADS = 4, MESSAGES = 500 };

static void *chatter(void *who) {
    for (int i = 0; i < MESSAGES; i++) pva_log(PVA_LOG_ERROR, "thread %d message %d end", *(int *)who, i);
    return NULL;
}

static void all_chatter(void) {
    pthread_t threads[THREADS];
    int who[THREADS];
    for (int i = 0; i < THREADS; i++) {
        who[i] = i;
        CHECK_FATAL(pthread_create(&threads[i], NULL, chatter, &who[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
}

/* Every message is there, whole, and each thread's are in order. */
static void test_threads(void) {
    char *text = screen_of(all_chatter);
    int next[THREADS] = {0}, wrong = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        int thread = -1, message = -1, length = 0;
        sscanf(line, "pva-mpi: thread %d message %d end%n", &thread, &message, &length);
        if (thread < 0 || thread >= THREADS || line[length] || message != next[thread]++) wrong++;
    }
    CHECK_INT(wrong, 0);
    for (int i = 0; i < THREADS; i++) CHECK_INT(next[i], MESSAGES);
}

int main(void) {
    CHECK_FATAL(mkdtemp(directory));
    snprintf(log_path, sizeof log_path, "%s/log", directory);
    snprintf(screen_path, sizeof screen_path, "%s/screen", directory);
    double a = pva_log_seconds();
    usleep(20000);
    double b = pva_log_seconds();
    CHECK(b - a >= 0.02 && b - a < 5);
    pva_log_seconds = clock_of_test;
    test_levels();
    test_one_line();
    test_file();
    test_full_disk();
    test_progress_off_terminal();
    test_progress_on_terminal();
    test_threads();
    unlink(log_path);
    unlink(screen_path);
    CHECK_INT(rmdir(directory), 0);
    return check_report("log");
}
