/* One fork server: cloned into its namespaces, waiting there until it is needed, then the interpreter with the zygote's source.
 */
#include "grade_sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The Python files, as they stand in this directory. */
#define EMBED(symbol, file) \
    __asm__(".section .rodata\n" #symbol ":\n.incbin \"" file "\"\n.byte 0\n.previous\n"); \
    extern const char symbol[] __attribute__((visibility("hidden")))
EMBED(source_peer, "grade_peer.py");
EMBED(source_candidate, "grade_candidate.py");
EMBED(source_evaluator, "grade_evaluator.py");
EMBED(source_zygote, "grade_zygote.py");

/* Modules that reseed or repair themselves after a fork would do so in every job: 170 page faults in each process, for nothing,
 * since the server has one thread. So none of them may register for it. */
static const char bootstrap[] = "import json, os\n"
                                "register, os.register_at_fork = os.register_at_fork, lambda **_: None\n"
                                "setup = json.load(os.fdopen(4))\n"
                                "for name, source in setup['sources']: exec(compile(source, name, 'exec'))\n"
                                "main(setup)\n";

/* What programs import most. Warm in every server; without a private root, nothing can be imported later, so there it is all. */
static const char *const usual[] = {"math",
                                    "cmath",
                                    "re",
                                    "copy",
                                    "time",
                                    "random",
                                    "string",
                                    "operator",
                                    "itertools",
                                    "functools",
                                    "collections",
                                    "collections.abc",
                                    "heapq",
                                    "bisect",
                                    "array",
                                    "statistics",
                                    "decimal",
                                    "fractions",
                                    "datetime",
                                    "calendar",
                                    "json",
                                    "hashlib",
                                    "textwrap",
                                    "typing",
                                    "enum",
                                    "dataclasses",
                                    "types",
                                    "numbers",
                                    "queue",
                                    "threading",
                                    "struct",
                                    "io",
                                    "inspect",
                                    "traceback",
                                    "linecache",
                                    "warnings",
                                    "contextlib",
                                    "weakref",
                                    "abc",
                                    "base64",
                                    "binascii",
                                    "unicodedata",
                                    "pprint",
                                    "reprlib",
                                    "tempfile",
                                    "shutil",
                                    "glob",
                                    "ast",
                                    "keyword",
                                    "encodings.latin_1",
                                    "encodings.ascii",
                                    "encodings.utf_16",
                                    "encodings.idna",
                                    "importlib.util",
                                    NULL};

static const char everything[] =
    "import sys, pkgutil\n"
    "skip = set('antigravity this idlelib turtle turtledemo tkinter lib2to3 test tests ensurepip venv pydoc_data msilib winreg "
    "__main__ distutils curses dbm nis ossaudiodev spwd crypt cgi cgitb rlcompleter site sitecustomize usercustomize readline "
    "pty tty'.split())\n"
    "names = getattr(sys, 'stdlib_module_names', None) or {m.name for m in pkgutil.iter_modules()} | "
    "set(sys.builtin_module_names)\n"
    "names = sorted(n for n in names if n not in skip and not n.startswith('_'))\n"
    "for package in 'asyncio collections concurrent ctypes email encodings html http importlib json logging multiprocessing "
    "unittest urllib wsgiref xml xmlrpc zoneinfo'.split():\n"
    "    try: names += [m.name for m in pkgutil.iter_modules(__import__(package).__path__, package + '.')]\n"
    "    except ImportError: pass\n"
    "names += 'concurrent.futures.thread xml.etree.ElementTree xml.dom.minidom email.mime.text'.split()\n"
    "setup['modules'] += [n for n in names if '.__' not in n and n not in ('encodings.mbcs', 'encodings.oem', "
    "'asyncio.windows_events',"
    " 'asyncio.windows_utils', 'multiprocessing.popen_spawn_win32', 'concurrent.futures.process')]\n";

int server_setup_file(const struct plan *plan, int n_slots, struct pva_error *err) {
    json_t *calls = sandbox_calls(plan, err);
    if (!calls) return -1;
    int private_root = (plan->layers & PVA_LAYER_MOUNT) != 0;
    json_t *modules = json_array(), *sources = json_array();
    for (const char *const *m = usual; *m; m++) json_array_append_new(modules, json_string(*m));
    json_array_append_new(sources, json_pack("[s, s]", "grade_peer.py", source_peer));
    json_array_append_new(sources, json_pack("[s, s]", "grade_candidate.py", source_candidate));
    json_array_append_new(sources, json_pack("[s, s]", "grade_evaluator.py", source_evaluator));
    json_array_append_new(sources, json_pack("[s, s]", "grade_zygote.py", source_zygote));
    if (!private_root) json_array_append_new(sources, json_pack("[s, s]", "everything", everything));
    json_t *setup = json_pack("{s:o, s:o, s:o, s:o, s:i, s:i, s:I}", "calls", calls, "values", sandbox_values(plan), "modules",
                              modules, "sources", sources, "n_slots", n_slots, "clone", (int)SYS_clone, "clone_flags",
                              (json_int_t)sandbox_job_flags(plan));
    int fd = memfd_create("pva-grader-setup", MFD_CLOEXEC);
    if (!setup || fd < 0 || json_dumpfd(setup, fd, JSON_COMPACT)) {
        if (fd >= 0) close(fd);
        fd = -1;
        pva_fail(err, PVA_IO, "grader: cannot write the server's setup: %s", strerror(errno));
    }
    json_decref(setup);
    return fd;
}

/* The child's side, inside the new namespaces. Never returns. */
static void live(const struct plan *plan, int go, int control, int setup, int log) {
    char byte = 0, failed[64] = "wait for the user map";
    int ok = read(go, &byte, 1) == 1 && byte == 'g';
    /* When the node runs out of memory, the system shall take a program rather than the rank. A preference: it may be refused. */
    int procfs = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC),
        score = openat(procfs, "self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    ssize_t ignored = score >= 0 ? write(score, "1000", 4) : 0;
    (void)ignored;
    if (ok) ok = !sandbox_enter(plan, failed, sizeof failed);
    int landlock = -1;
    if (ok && plan->layers & PVA_LAYER_LANDLOCK) ok = (landlock = sandbox_landlock(plan)) >= 0;
    if (!ok) {
        dprintf(log, "%s: %s\n", failed, strerror(errno));
        _exit(1);
    }
    prctl(PR_SET_NAME, "pva-grader");
    struct rlimit core = {0, 0}, files = {512, 512}, stack = {64 << 20, RLIM_INFINITY};
    setrlimit(RLIMIT_CORE, &core), setrlimit(RLIMIT_NOFILE, &files);
    getrlimit(RLIMIT_STACK, &stack);
    stack.rlim_cur = stack.rlim_max == RLIM_INFINITY || stack.rlim_max > 64 << 20 ? 64 << 20 : stack.rlim_max;
    setrlimit(RLIMIT_STACK, &stack);
    for (int s = 1; s < NSIG; s++) signal(s, SIG_DFL);
    /* A batch system asks every process of a job to stop. Only the rank is to hear it: what is being graded then is still graded, and a program that
     * such a signal ended would get a verdict that it has not earned. Programs inherit this; their end is SIGKILL. */
    static const int asking[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof asking / sizeof *asking; i++) signal(asking[i], SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    if (chdir("/")) _exit(1);

    /* High copies first, so that no fixed number is overwritten before it is read. */
    int from[] = {control, setup, procfs, landlock, log}, to[] = {FD_CONTROL, FD_SETUP, FD_PROCFS, FD_LANDLOCK, 2};
    for (int i = 0; i < 5; i++) from[i] = from[i] < 0 ? -1 : fcntl(from[i], F_DUPFD_CLOEXEC, 200);
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0), dup2(null, 1);
    for (int i = 0; i < 5; i++) {
        close(to[i]);
        if (from[i] >= 0 && dup2(from[i], to[i]) < 0) _exit(1);
    }
    if (syscall(SYS_close_range, FD_LAST + 1, ~0U, 0))
        for (int fd = FD_LAST + 1; fd < 1024; fd++) close(fd);

    struct pollfd wake = {.fd = FD_CONTROL, .events = POLLIN}; /* a spare sleeps here; the end of its owner ends it */
    while (poll(&wake, 1, -1) < 0 && errno == EINTR) {
    }
    if (!(wake.revents & POLLIN) || recv(FD_CONTROL, &byte, 1, 0) != 1) _exit(0);
    char *argv[] = {(char *)plan->python->path, "-S", "-s", "-B", "-c", (char *)bootstrap, NULL};
    char libraries[4096] = "OMP_NUM_THREADS=1"; /* all that is kept of the caller's environment: environment modules need it */
    if (getenv("LD_LIBRARY_PATH")) snprintf(libraries, sizeof libraries, "LD_LIBRARY_PATH=%s", getenv("LD_LIBRARY_PATH"));
    char *envp[] = {"PYTHONHASHSEED=0",
                    "PYTHONNOUSERSITE=1",
                    "PYTHONSAFEPATH=1",
                    "PYTHONUTF8=1",
                    "PYTHONIOENCODING=utf-8:backslashreplace",
                    "LC_ALL=C.UTF-8",
                    "TZ=UTC",
                    "PATH=/usr/bin:/bin",
                    "HOME=" SANDBOX_TMP,
                    "TMPDIR=" SANDBOX_TMP,
                    libraries,
                    NULL};
    execve(plan->python->path, argv, envp);
    dprintf(2, "%s: %s\n", plan->python->path, strerror(errno));
    _exit(127);
}

int server_start(const struct plan *plan, int setup_fd, struct server *out, struct pva_error *err) {
    int pair[2] = {-1, -1}, go[2] = {-1, -1}, rc = 0;
    char path[64];
    *out = (struct server){.control = -1, .log = -1};
    /* Each server reads the setup from an open file of its own, for the offset is the file's. */
    snprintf(path, sizeof path, "/proc/self/fd/%d", setup_fd);
    int setup = open(path, O_RDONLY | O_CLOEXEC);
    out->log = memfd_create("pva-grader-log", MFD_CLOEXEC);
    if (setup < 0 || out->log < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) || pipe2(go, O_CLOEXEC)) {
        rc = pva_fail(err, PVA_IO, "grader: cannot start a server: %s", strerror(errno));
        goto done;
    }
    pid_t pid = (pid_t)syscall(SYS_clone, sandbox_clone_flags(plan), 0, 0, 0, 0);
    if (pid == 0) {
        close(go[1]);
        close(pair[0]);
        live(plan, go[0], pair[1], setup, out->log);
    }
    if (pid < 0) {
        rc = pva_fail(err, PVA_IO, "grader: cannot start a server: %s", strerror(errno));
        goto done;
    }
    out->pid = pid;
    out->control = pair[0];
    pair[0] = -1;
    int failed = sandbox_write_maps(plan, pid);
    if (failed || write(go[1], "g", 1) != 1)
        rc = pva_fail(err, PVA_IO, "grader: cannot map the server's user: %s", strerror(failed ? failed : errno));
done:
    for (int i = 0; i < 2; i++) {
        if (pair[i] >= 0) close(pair[i]);
        if (go[i] >= 0) close(go[i]);
    }
    if (setup >= 0) close(setup);
    if (rc) server_stop(out);
    return rc;
}

/* Hanging up lets the server end its children and wait for them; only one that does not is killed, and then its pid namespace or
 * the death signal ends the rest. */
void server_stop(struct server *s) {
    if (s->control >= 0) close(s->control);
    if (s->pid > 0) {
        pid_t done = 0;
        for (int i = 0; i < 2000 && !done; i++) {
            done = waitpid(s->pid, NULL, WNOHANG);
            if (!done) usleep(i < 100 ? 100 : 1000);
        }
        if (!done) {
            kill(s->pid, SIGKILL);
            while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR) {
            }
        }
    }
    if (s->log >= 0) close(s->log);
    *s = (struct server){.control = -1, .log = -1};
}

void server_last_words(const struct server *s, char *text, size_t n) {
    char tail[2048];
    off_t size = s->log >= 0 ? lseek(s->log, 0, SEEK_END) : 0,
          from = size > (off_t)sizeof tail - 1 ? size - (off_t)sizeof tail + 1 : 0;
    ssize_t got = size > 0 ? pread(s->log, tail, sizeof tail - 1, from) : 0;
    while (got > 0 && tail[got - 1] == '\n') got--;
    tail[got > 0 ? got : 0] = 0;
    char *line = strrchr(tail, '\n');
    snprintf(text, n, "%s", line ? line + 1 : tail);
}
