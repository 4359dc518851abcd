#include "check.h"
#include "pva/error.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_first_failure_wins(void) {
    struct pva_error err = {0};
    CHECK_INT(pva_fail(&err, PVA_INPUT, "%s:%d: expected %d, got %d", "a.json", 3, 4, 5), PVA_INPUT);
    CHECK_INT(err.code, PVA_INPUT);
    CHECK_TEXT(err.msg, "a.json:3: expected 4, got 5");
    CHECK_INT(pva_fail(&err, PVA_IO, "a consequence"), PVA_INPUT);
    CHECK_INT(err.code, PVA_INPUT);
    CHECK_TEXT(err.msg, "a.json:3: expected 4, got 5");
}

static void test_prefix(void) {
    struct pva_error err = {0};
    pva_fail(&err, PVA_IO, "no space");
    CHECK_INT(pva_error_prefix(&err, "rank %d", 2), PVA_IO);
    CHECK_INT(pva_error_prefix(&err, "phase1"), PVA_IO);
    CHECK_TEXT(err.msg, "phase1: rank 2: no space");
}

static void test_one_line(void) {
    struct pva_error err = {0};
    pva_fail(&err, PVA_INPUT, "key %s",
             "a\nb\r\t\033[2J\x7f \xc2\x9b"
             "2J \xc3\xa9");
    CHECK_TEXT(err.msg, "key a?b???[2J? ??2J \xc3\xa9");
    pva_error_prefix(&err, "file\n%s", "x\033");
    CHECK_TEXT(err.msg, "file?x?: key a?b???[2J? ??2J \xc3\xa9");
}

/* A message that is too long is cut, not overrun, and a long prefix leaves at least half of the room to the cause. */
static void test_long(void) {
    struct {
        struct pva_error err;
        char guard[16];
    } g;
    char longer[2000];
    memset(&g, 0, sizeof g);
    memset(g.guard, 'G', sizeof g.guard);
    memset(longer, 'p', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;

    pva_fail(&g.err, PVA_INPUT, "%s", longer);
    CHECK_INT(strlen(g.err.msg), sizeof g.err.msg - 1);
    pva_error_prefix(&g.err, "model.safetensors");
    CHECK_INT(strlen(g.err.msg), sizeof g.err.msg - 1);
    CHECK(!strncmp(g.err.msg, "model.safetensors: ppp", 22));

    memset(&g.err, 0, sizeof g.err);
    pva_fail(&g.err, PVA_INPUT, "the cause");
    pva_error_prefix(&g.err, "%s", longer);
    CHECK_INT(strlen(g.err.msg), sizeof g.err.msg - 1);
    CHECK_HAS(g.err.msg, "ppp: the cause");

    memset(&g.err, 0, sizeof g.err);
    pva_fail(&g.err, PVA_INPUT, "CAUSE%sEND", longer);
    pva_error_prefix(&g.err, "PREFIX%s", longer);
    CHECK_INT(strlen(g.err.msg), sizeof g.err.msg - 1);
    CHECK(!strncmp(g.err.msg, "PREFIXp", 7));
    CHECK_HAS(g.err.msg, "p: CAUSEp");
    for (size_t i = 0; i < sizeof g.guard; i++) CHECK_INT(g.guard[i], 'G');
}

/* The place and the text must reach stderr, and the process must die by SIGABRT, in every build type. */
static void test_broken_invariant(void) {
    int fds[2];
    CHECK_FATAL(pipe(fds) == 0);
    pid_t child = fork();
    CHECK_FATAL(child >= 0);
    if (child == 0) {
        dup2(fds[1], STDERR_FILENO);
        PVA_ASSERT(1 + 1 == 2);
        PVA_ASSERT(1 + 1 == 3);
        _exit(0);
    }
    close(fds[1]);
    char text[500] = "";
    ssize_t n = read(fds[0], text, sizeof text - 1);
    close(fds[0]);
    int status = 0;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK_FATAL(n > 0);
    CHECK_HAS(text, "test_error.c:");
    CHECK_HAS(text, "1 + 1 == 3");
    CHECK_INT(strchr(text, '\n') - text, n - 1);
}

int main(void) {
    test_first_failure_wins();
    test_prefix();
    test_one_line();
    test_long();
    test_broken_invariant();
    return check_report("error");
}
