#include "pva/difficulty.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* difficulty.py, carried inside the library. */
__asm__(".section .rodata\n"
        "difficulty_script: .incbin \"difficulty.py\"\n"
        ".byte 0\n"
        ".previous\n");
extern const char difficulty_script[];

static int write_codes(int fd, const char *const *codes, size_t n, struct pva_error *err) {
    FILE *f = fdopen(dup(fd), "w");
    if (!f) return pva_fail(err, PVA_IO, "difficulty: %s", strerror(errno));
    for (size_t i = 0; i < n && !err->code; i++) {
        json_t *text = json_string(codes[i]);
        if (!text || json_dumpf(text, f, JSON_ENCODE_ANY)) pva_fail(err, PVA_INPUT, "program %zu is no UTF-8 text", i);
        fputc('\n', f);
        json_decref(text);
    }
    if (fclose(f) && !err->code) pva_fail(err, PVA_IO, "difficulty: %s", strerror(errno));
    lseek(fd, 0, SEEK_SET);
    return err->code;
}

static int read_numbers(int fd, size_t n, int32_t *difficulty, struct pva_error *err) {
    lseek(fd, 0, SEEK_SET);
    FILE *f = fdopen(dup(fd), "r");
    if (!f) return pva_fail(err, PVA_IO, "difficulty: %s", strerror(errno));
    char line[64], *end;
    for (size_t i = 0; i < n && !err->code; i++) {
        long v = fgets(line, sizeof line, f) ? strtol(line, &end, 10) : 0;
        if (v == 0 || *end != '\n' || v < -1 || v > INT32_MAX) pva_fail(err, PVA_IO, "difficulty: the interpreter answered nothing usable for program %zu", i);
        else difficulty[i] = (int32_t)v;
    }
    fclose(f);
    return err->code;
}

/* Files in memory instead of pipes: neither side can wait for the other. */
int pva_difficulty(const char *python, const char *const *codes, size_t n, int32_t *difficulty, struct pva_error *err) {
    char *const argv[] = {(char *)(python ? python : "python3"), "-I", "-S", "-c", (char *)difficulty_script, NULL};
    char *const environment[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8", NULL};
    int in = memfd_create("programs", MFD_CLOEXEC), out = memfd_create("numbers", MFD_CLOEXEC), status = 0;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t stops;
    pid_t child;
    if (in < 0 || out < 0) {
        pva_fail(err, PVA_IO, "difficulty: %s", strerror(errno));
        goto done;
    }
    if (write_codes(in, codes, n, err)) goto done;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in, 0);
    posix_spawn_file_actions_adddup2(&actions, out, 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    /* A launcher sends a job's stop signals to whole process groups; this fraction of a second is not worth dying for. */
    sigemptyset(&stops);
    sigaddset(&stops, SIGTERM), sigaddset(&stops, SIGINT), sigaddset(&stops, SIGUSR1);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setsigmask(&attributes, &stops);
    int failed = posix_spawnp(&child, argv[0], &actions, &attributes, argv, environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (failed) {
        pva_fail(err, PVA_IO, "%s cannot be started: %s; --python names another interpreter", argv[0], strerror(failed));
        goto done;
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status)) pva_fail(err, PVA_IO, "%s could not measure the difficulty of the problems; is it Python 3.8 or newer?", argv[0]);
    else read_numbers(out, n, difficulty, err);
done:
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    return err->code;
}
