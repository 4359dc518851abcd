/* Which python3, by running it: a name on PATH may be a wrapper, a broken link, or live where the sandbox's user cannot go. */
#include "grade_sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Prints JSON: the real executable, its version, whether ctypes works, and the directories it reads from. */
static const char question[] =
    "import sys\n"
    "if sys.version_info < (3, 8): print('{\"old\": \"%d.%d\"}' % sys.version_info[:2]); sys.exit()\n"
    "import json, os, sysconfig, select, socket, array, resource, math, decimal, hashlib, datetime\n"
    "try: import ctypes\n"
    "except ImportError: ctypes = None\n"
    "paths = {sysconfig.get_path('stdlib'), sysconfig.get_path('platstdlib')}\n"
    "for line in open('/proc/self/maps'):\n"
    "    name = line.rstrip('\\n').split(None, 5)[5:]\n"
    "    if name and name[0].startswith('/') and '.so' in name[0]: paths.add(os.path.dirname(name[0]))\n"
    "exe = os.path.realpath(sys.executable)\n"
    "print(json.dumps({'exe': exe, 'version': '%d.%d.%d' % sys.version_info[:3], 'ctypes': bool(ctypes),\n"
    "    'paths': [exe] + sorted(p for p in paths if p)}))\n";

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Runs PATH with the question; its stdout, at most n-1 bytes, within 20 s. 0 or -1. */
static int ask(const char *path, char *answer, size_t n) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC)) return -1;
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0), dup2(fds[1], 1), dup2(null, 2);
        char home[PATH_MAX + 8] = "HOME=/";
        const char *real_home = getenv("HOME"); /* wrappers such as pyenv's need it */
        if (real_home) snprintf(home, sizeof home, "HOME=%s", real_home);
        char search[4096];
        snprintf(search, sizeof search, "PATH=%s", getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin");
        char *argv[] = {(char *)path, "-S", "-s", "-E", "-B", "-c", (char *)question, NULL};
        char libraries[4096] = "LC_ALL=C.UTF-8"; /* environment modules find an interpreter's libraries this way */
        if (getenv("LD_LIBRARY_PATH")) snprintf(libraries, sizeof libraries, "LD_LIBRARY_PATH=%s", getenv("LD_LIBRARY_PATH"));
        char *envp[] = {home, search, libraries, NULL};
        execve(path, argv, envp);
        _exit(127);
    }
    close(fds[1]);
    size_t used = 0;
    double end = now() + 20;
    while (pid > 0) {
        struct pollfd p = {.fd = fds[0], .events = POLLIN};
        int left = (int)(1000 * (end - now()));
        if (left <= 0 || poll(&p, 1, left) <= 0) {
            if (left > 0 && errno == EINTR) continue;
            break;
        }
        char piece[4096];
        ssize_t got = read(fds[0], piece, sizeof piece);
        if (got <= 0) break;
        size_t keep = (size_t)got < n - 1 - used ? (size_t)got : n - 1 - used;
        memcpy(answer + used, piece, keep);
        used += keep;
    }
    answer[used] = 0;
    close(fds[0]);
    if (pid < 0) return -1;
    int status = 0;
    if (now() >= end) kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

/* Other users can enter every directory on the way and read the end. */
static int open_to_others(const char *path) {
    char part[PATH_MAX];
    struct stat st;
    snprintf(part, sizeof part, "%s", path);
    for (char *p = strchr(part + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        if (stat(part, &st) || !(st.st_mode & S_IXOTH)) return 0;
        *p = '/';
    }
    return !stat(part, &st) && (st.st_mode & S_IROTH) && (st.st_mode & S_IXOTH);
}

static int inside_system(const char *path) {
    static const char *const roots[] = {"/usr/", "/lib/", "/lib64/", "/lib32/", "/bin/"};
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++)
        if (!strncmp(path, roots[i], strlen(roots[i]))) return 1;
    return 0;
}

/* Fills `out` from the answer; 0, or -1 with a reason. */
static int accept_answer(const char *answer, int others_too, struct interpreter *out, char *why, size_t n_why) {
    json_error_t bad;
    json_t *a = json_loads(answer, 0, &bad);
    const char *old = json_string_value(json_object_get(a, "old")), *exe = json_string_value(json_object_get(a, "exe"));
    const char *version = json_string_value(json_object_get(a, "version"));
    json_t *paths = json_object_get(a, "paths"), *p;
    int rc = -1;
    size_t i;
    if (old) snprintf(why, n_why, "it is Python %s, 3.8 or newer is needed", old);
    else if (!exe || !version || !json_is_array(paths) || strlen(exe) >= sizeof out->path)
        snprintf(why, n_why, "it does not answer as a Python interpreter");
    else if (!json_is_true(json_object_get(a, "ctypes")))
        snprintf(why, n_why, "it was built without ctypes, which the sandbox needs");
    else {
        memset(out, 0, sizeof *out);
        snprintf(out->path, sizeof out->path, "%s", exe);
        snprintf(out->version, sizeof out->version, "%s", version);
        rc = 0;
        json_array_foreach(paths, i, p) {
            const char *path = json_string_value(p);
            if (!rc && (!path || path[0] != '/' || strlen(path) >= sizeof out->paths[0])) {
                snprintf(why, n_why, "it reads from \"%s\"", path ? path : "?");
                rc = -1;
            } else if (!rc && others_too && !open_to_others(path)) {
                snprintf(why, n_why, "%s is closed to other users, as whom programs run", path);
                rc = -1;
            } else if (!rc && !inside_system(path) && out->n_paths < SANDBOX_MAX_PATHS)
                snprintf(out->paths[out->n_paths++], sizeof out->paths[0], "%s", path);
        }
    }
    json_decref(a);
    return rc;
}

static int try_one(const char *path, int others_too, struct interpreter *out, char *why, size_t n_why) {
    char *answer = malloc(65536);
    int rc = -1;
    if (!answer) snprintf(why, n_why, "out of memory");
    else if (access(path, X_OK)) snprintf(why, n_why, "%s", strerror(errno));
    else if (ask(path, answer, 65536)) snprintf(why, n_why, "it does not run a Python program");
    else rc = accept_answer(answer, others_too, out, why, n_why);
    free(answer);
    return rc;
}

int interpreter_find(const char *wanted, int others_too, struct interpreter *out, struct pva_error *err) {
    char path[PATH_MAX], why[512] = "", last[600] = "";
    if (wanted && strchr(wanted, '/')) {
        if (!try_one(wanted, others_too, out, why, sizeof why)) return PVA_OK;
        return pva_fail(err, PVA_IO, "%s: cannot grade with this interpreter: %s", wanted, why);
    }
    const char *name = wanted ? wanted : "python3", *search = getenv("PATH");
    char all[8192];
    snprintf(all, sizeof all, "%s:/usr/bin:/usr/local/bin:/bin", search ? search : "");
    for (char *next = all, *dir; (dir = strsep(&next, ":"));) {
        if (!*dir || (size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path || access(path, X_OK)) continue;
        if (!try_one(path, others_too, out, why, sizeof why)) return PVA_OK;
        if (!*last) snprintf(last, sizeof last, " (%.80s: %.480s)", path, why);
    }
    return pva_fail(err, PVA_IO, "no interpreter \"%s\" that can grade on PATH or in /usr/bin%s; name one with --python", name,
                    last);
}
