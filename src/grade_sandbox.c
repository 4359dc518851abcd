/* Which layers this machine offers, found by doing: the lists of system calls are worked out, carried out once in a process of
 * its own, and kept only if that process came to its end inside them. */
#include "grade_sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif
#define UID_SPAN (2 * SANDBOX_MAX_SLOTS + 3)

/* ---- Landlock, by its numbers: distributions' headers lag behind their kernels ---- */

struct ruleset_attr {
    uint64_t handled_access_fs, handled_access_net, scoped;
};
struct path_attr {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

enum {
    LL_EXECUTE = 1,
    LL_WRITE_FILE = 2,
    LL_READ_FILE = 4,
    LL_READ_DIR = 8,
    LL_MAKE_CHAR = 64,
    LL_MAKE_SOCK = 512,
    LL_MAKE_BLOCK = 2048,
    LL_ABI_1 = (1 << 13) - 1,
    LL_REFER = 1 << 13,
    LL_TRUNCATE = 1 << 14,
    LL_IOCTL_DEV = 1 << 15,
};

static int landlock_abi(void) {
    long v = syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */);
    return v > 0 ? (int)v : 0;
}

static int landlock_allow(int ruleset, const char *path, uint64_t access) {
    int fd = open(path, O_PATH | O_CLOEXEC);
    struct path_attr rule = {.allowed_access = access, .parent_fd = fd};
    long rc = fd < 0 ? -1 : syscall(SYS_landlock_add_rule, ruleset, 1 /* LANDLOCK_RULE_PATH_BENEATH */, &rule, 0);
    if (fd >= 0) close(fd);
    return (int)rc;
}

/* Inside the private root, everything may be read and the job's directory changed; without one, no file may be touched at all. No
 * TCP, no signals or abstract sockets to the outside. */
int sandbox_landlock(const struct plan *plan) {
    int abi = plan->landlock_abi;
    uint64_t all = LL_ABI_1 | (abi >= 2 ? LL_REFER : 0) | (abi >= 3 ? LL_TRUNCATE : 0) | (abi >= 5 ? LL_IOCTL_DEV : 0);
    struct ruleset_attr attr = {.handled_access_fs = all, .handled_access_net = abi >= 4 ? 3 : 0, .scoped = abi >= 6 ? 3 : 0};
    size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
    int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    if (fd < 0 || !(plan->layers & PVA_LAYER_MOUNT)) return fd;
    uint64_t own = all & ~(uint64_t)(LL_EXECUTE | LL_MAKE_CHAR | LL_MAKE_BLOCK | LL_MAKE_SOCK | LL_IOCTL_DEV);
    if (landlock_allow(fd, "/", LL_READ_FILE | LL_READ_DIR | LL_EXECUTE) || landlock_allow(fd, "/sandbox", own) ||
        landlock_allow(fd, "/dev", LL_READ_FILE | LL_WRITE_FILE | LL_READ_DIR)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* ---- The lists ---- */

/* A step that got lost for want of memory would be a hole in the sandbox: it ends the program instead. */
static void step(json_t *list, const char *name, long number, json_t *args) {
    PVA_ASSERT(args);
    PVA_ASSERT(!json_array_append_new(list, json_pack("[s, I, o]", name, (json_int_t)number, args)));
}

static json_t *blob(const void *data, size_t n) {
    char *hex = malloc(2 * n + 1);
    if (!hex) return NULL;
    for (size_t i = 0; i < n; i++) sprintf(hex + 2 * i, "%02x", ((const unsigned char *)data)[i]);
    json_t *o = json_pack("{s:s}", "hex", hex);
    free(hex);
    return o;
}

static void write_file(json_t *list, const char *name, const char *text) { /* below the process's own /proc entry */
    char path[64];
    snprintf(path, sizeof path, "self/%s", name);
    step(list, name, SYS_openat, json_pack("[s, {s:s}, i]", "procfs", "text", path, O_WRONLY));
    step(list, name, SYS_write, json_pack("[s, {s:s}, I]", "result", "text", text, (json_int_t)strlen(text)));
}

static void set_ids(json_t *list, const char *who) {
    step(list, "drop groups", SYS_setgroups, json_pack("[i, i]", 0, 0));
    step(list, "set group", SYS_setresgid, json_pack("[s, s, s]", who, who, who));
    step(list, "set user", SYS_setresuid, json_pack("[s, s, s]", who, who, who));
}

static void set_capabilities(json_t *list) {
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    step(list, "drop capabilities", SYS_capset, json_pack("[o, o]", blob(&head, sizeof head), blob(data, sizeof data)));
}

static void control(json_t *list, const char *name, int option, long value) {
    step(list, name, SYS_prctl, json_pack("[i, I, i, i, i]", option, (json_int_t)value, 0, 0, 0));
}

/* A limit below what the caller already has. */
static void limit(json_t *list, const char *name, int what, rlim_t value) {
    struct rlimit64 now, l = {value, value};
    if (!prlimit64(0, (enum __rlimit_resource)what, NULL, &now) && now.rlim_max < value) l.rlim_cur = l.rlim_max = now.rlim_max;
    step(list, name, SYS_prlimit64, json_pack("[i, i, o, i]", 0, what, blob(&l, sizeof l), 0));
}

static int seal(json_t *list, const struct plan *plan, int files, int supervisor, struct pva_error *err) {
    if (!(plan->layers & PVA_LAYER_SECCOMP)) return PVA_OK;
    unsigned char *code;
    size_t n;
    int rc = sandbox_filter(files, supervisor, &code, &n, err);
    if (rc) return rc;
    json_t *hex = blob(code, n);
    json_object_set(hex, "filter", json_object_get(hex, "hex"));
    json_object_del(hex, "hex");
    step(list, "system call filter", SYS_prctl, json_pack("[i, i, o]", PR_SET_SECCOMP, 2 /* SECCOMP_MODE_FILTER */, hex));
    free(code);
    return PVA_OK;
}

json_t *sandbox_calls(const struct plan *plan, struct pva_error *err) {
    unsigned layers = plan->layers;
    json_t *evaluator = json_array(), *candidate = json_array(), *sealing = json_array();
    int private_root = (layers & PVA_LAYER_MOUNT) != 0, own_caps = plan->real_root || layers & PVA_LAYER_USER;

    /* The candidate, in namespaces of its own already: its descriptors, limits, directory, ids, capabilities, what it may reach,
     * and at the very last the filter. */
    step(candidate, "stdin", SYS_dup3, json_pack("[s, i, i]", "null", 0, 0));
    step(candidate, "stdout", SYS_dup3, json_pack("[s, i, i]", "out", 1, 0));
    step(candidate, "stderr", SYS_dup3, json_pack("[s, i, i]", "err", 2, 0));
    step(candidate, "channel", SYS_dup3, json_pack("[s, i, i]", "channel", FD_CONTROL, 0));
    step(candidate, "session", SYS_setsid, json_array());
    step(candidate, "CPU limit", SYS_prlimit64, json_pack("[i, i, s, i]", 0, RLIMIT_CPU, "cpu", 0));
    limit(candidate, "memory limit", RLIMIT_AS, plan->memory);
    limit(candidate, "file limit", RLIMIT_FSIZE, plan->file_bytes);
    limit(candidate, "descriptor limit", RLIMIT_NOFILE, 64);
    if (private_root) {
        char options[96];
        snprintf(options, sizeof options, "size=%zu,nr_inodes=256,mode=1777", plan->file_bytes);
        step(candidate, "temporary directory", SYS_mount,
             json_pack("[{s:s}, {s:s}, {s:s}, I, {s:s}]", "text", "tmp", "text", SANDBOX_TMP, "text", "tmpfs",
                       (json_int_t)(MS_NOSUID | MS_NODEV | MS_NOEXEC), "text", options));
    }
    if (layers & PVA_LAYER_UID) set_ids(candidate, "candidate_uid");
    else if (layers & PVA_LAYER_USER) { /* one id is all there is; a namespace of its own counts its threads apart */
        step(candidate, "user namespace", SYS_unshare, json_pack("[I]", (json_int_t)CLONE_NEWUSER));
        write_file(candidate, "setgroups", "deny");
        write_file(candidate, "uid_map", "1000 0 1\n");
        write_file(candidate, "gid_map", "1000 0 1\n");
    }
    if (own_caps) set_capabilities(candidate);
    if (plan->count_threads)
        step(candidate, "thread limit", SYS_prlimit64, json_pack("[i, i, s, i]", 0, RLIMIT_NPROC, "threads", 0));
    step(candidate, "directory", SYS_chdir, json_pack("[{s:s}]", "text", private_root ? SANDBOX_TMP : "/"));
    control(candidate, "die with the server", PR_SET_PDEATHSIG, SIGKILL);
    control(candidate, "not traceable", PR_SET_DUMPABLE, 0);
    control(candidate, "no new privileges", PR_SET_NO_NEW_PRIVS, 1);
    if (layers & PVA_LAYER_LANDLOCK) step(candidate, "landlock", SYS_landlock_restrict_self, json_pack("[s, i]", "landlock", 0));
    int rc = seal(sealing, plan, private_root ? 2 : 0, 0, err);

    /* The evaluator: it reads modules and descriptors, and nothing more. */
    limit(evaluator, "memory limit", RLIMIT_AS, plan->memory);
    limit(evaluator, "file limit", RLIMIT_FSIZE, 1 << 20);
    if (layers & PVA_LAYER_UID) set_ids(evaluator, "evaluator_uid");
    if (own_caps) set_capabilities(evaluator);
    control(evaluator, "die with the server", PR_SET_PDEATHSIG, SIGKILL);
    control(evaluator, "not traceable", PR_SET_DUMPABLE, 0);
    control(evaluator, "no new privileges", PR_SET_NO_NEW_PRIVS, 1);
    rc = rc ? rc : seal(evaluator, plan, private_root ? 1 : 0, 1, err);

    json_t *all = json_pack("{s:o, s:o, s:o}", "evaluator", evaluator, "candidate", candidate, "candidate_seal", sealing);
    if (!rc && !all) rc = pva_fail(err, PVA_IO, "sandbox: out of memory");
    if (!rc) return all;
    json_decref(all);
    return NULL;
}

json_t *sandbox_values(const struct plan *plan) {
    /* Inside its user namespace the server's ids begin at 0, and root's at the base. */
    int inside = (plan->layers & PVA_LAYER_USER) != 0;
    return json_pack("{s:I, s:i, s:i}", "uid", (json_int_t)(inside ? 0 : plan->uid_base), "procfs", FD_PROCFS, "landlock",
                     FD_LANDLOCK);
}

/* ---- Entering ---- */

unsigned long sandbox_clone_flags(const struct plan *plan) {
    unsigned long flags = SIGCHLD;
    if (plan->layers & PVA_LAYER_USER) flags |= CLONE_NEWUSER;
    if (plan->layers & PVA_LAYER_PROCESS) flags |= CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC;
    if (plan->layers & PVA_LAYER_MOUNT) flags |= CLONE_NEWNS;
    return flags;
}

unsigned long sandbox_job_flags(const struct plan *plan) {
    return SIGCHLD | (plan->layers & PVA_LAYER_PROCESS ? CLONE_NEWPID : 0) | (plan->layers & PVA_LAYER_MOUNT ? CLONE_NEWNS : 0);
}

static int put(pid_t pid, const char *name, const char *text) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    int rc = write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : errno;
    close(fd);
    return rc;
}

int sandbox_write_maps(const struct plan *plan, pid_t child) {
    if (!(plan->layers & PVA_LAYER_USER)) return 0;
    char users[64], groups[64];
    int ranged = (plan->layers & PVA_LAYER_UID) != 0;
    snprintf(users, sizeof users, "0 %u %u\n", ranged ? plan->uid_base : plan->own_uid, ranged ? (unsigned)UID_SPAN : 1u);
    snprintf(groups, sizeof groups, "0 %u %u\n", ranged ? plan->uid_base : plan->own_gid, ranged ? (unsigned)UID_SPAN : 1u);
    int rc = ranged ? 0 : put(child, "setgroups", "deny");
    rc = rc ? rc : put(child, "uid_map", users);
    return rc ? rc : put(child, "gid_map", groups);
}

int sandbox_enter(const struct plan *plan, char *failed, size_t n_failed) {
    snprintf(failed, n_failed, "set ids");
    if (plan->layers & PVA_LAYER_USER) {
        if (setresgid(0, 0, 0) || (plan->layers & PVA_LAYER_UID && setgroups(0, NULL)) || setresuid(0, 0, 0)) return -1;
    }
    if (prctl(PR_SET_PDEATHSIG, SIGKILL)) return -1;
    if (plan->layers & PVA_LAYER_MOUNT) return sandbox_build_root(plan, failed, n_failed);
    return 0;
}

/* ---- Trying ---- */

static int run_calls(json_t *list, json_t *values, char *failed, size_t n_failed) {
    size_t i, j;
    json_t *entry, *arg;
    json_array_foreach(list, i, entry) {
        long a[6] = {0};
        struct {
            unsigned short n;
            const void *code;
        } program;
        unsigned char *bytes = NULL;
        json_array_foreach(json_array_get(entry, 2), j, arg) {
            json_t *hex = json_object_get(arg, "hex"), *filter = json_object_get(arg, "filter"),
                   *text = json_object_get(arg, "text");
            if (json_is_string(arg)) a[j] = (long)json_integer_value(json_object_get(values, json_string_value(arg)));
            else if (text) a[j] = (long)json_string_value(text);
            else if (hex || filter) {
                const char *s = json_string_value(hex ? hex : filter);
                size_t n = strlen(s) / 2;
                bytes = malloc(n); /* the process ends soon */
                for (size_t k = 0; bytes && k < n; k++) sscanf(s + 2 * k, "%2hhx", &bytes[k]);
                program.n = (unsigned short)(n / 8), program.code = bytes;
                a[j] = (long)(hex ? (void *)bytes : (void *)&program);
            } else a[j] = (long)json_integer_value(arg);
        }
        long result = syscall(json_integer_value(json_array_get(entry, 1)), a[0], a[1], a[2], a[3], a[4], a[5]);
        if (result < 0) {
            int saved = errno;
            snprintf(failed, n_failed, "%s", json_string_value(json_array_get(entry, 0)));
            errno = saved;
            return -1;
        }
        json_object_set_new(values, "result", json_integer(result));
    }
    return 0;
}

struct report {
    int error;
    char step[64];
};

/* Carries out the lists in a process of its own, which reports and then waits for its end. */
static pid_t rehearse_one(unsigned long flags, json_t *calls, json_t *values, const char *first, const char *second, int filtered,
                          int out) {
    pid_t pid = (pid_t)syscall(SYS_clone, flags, 0, 0, 0, 0);
    if (pid) return pid;
    struct report r = {0};
    if (run_calls(json_object_get(calls, first), values, r.step, sizeof r.step) ||
        run_calls(json_object_get(calls, second), values, r.step, sizeof r.step))
        r.error = errno ? errno : EINVAL;
    else if (filtered && (socket(AF_INET, SOCK_STREAM, 0) >= 0 || errno != EPERM)) {
        snprintf(r.step, sizeof r.step, "system call filter does not filter");
        r.error = EINVAL;
    }
    if (write(out, &r, sizeof r) != sizeof r) _exit(1);
    for (;;) pause();
}

/* The lists put descriptors at low numbers: what must survive them goes high. */
static int high(int fd) {
    int up = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 64);
    if (fd >= 0) close(fd);
    return up;
}

/* The life of a server with an evaluator and a candidate, without Python. In their cages a socket must be impossible. */
static int rehearse(const struct plan *plan, json_t *calls, struct report *r) {
    int procfs = high(open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC)), landlock = -1, pair[2], status;
    if (sandbox_enter(plan, r->step, sizeof r->step)) return -1;
    snprintf(r->step, sizeof r->step, "landlock");
    if (plan->layers & PVA_LAYER_LANDLOCK && (landlock = high(sandbox_landlock(plan))) < 0) return -1;
    json_t *values = sandbox_values(plan);
    json_int_t base = json_integer_value(json_object_get(values, "uid"));
    json_object_set_new(values, "procfs", json_integer(procfs));
    json_object_set_new(values, "landlock", json_integer(landlock));
    struct rlimit64 cpu = {0}, threads = {0};
    prlimit64(0, RLIMIT_CPU, NULL, &cpu), prlimit64(0, RLIMIT_NPROC, NULL, &threads);
    int null = high(open("/dev/null", O_RDONLY | O_CLOEXEC));
    static const char *const descriptors[] = {"null", "out", "err", "channel"};
    for (int i = 0; i < 4; i++) json_object_set_new(values, descriptors[i], json_integer(null));
    json_object_set_new(values, "cpu", json_integer((json_int_t)(intptr_t)&cpu));
    json_object_set_new(values, "threads", json_integer((json_int_t)(intptr_t)&threads));
    json_object_set_new(values, "candidate_uid", json_integer(base + 1));
    json_object_set_new(values, "evaluator_uid", json_integer(base + 2));
    for (int i = 0; i < 2; i++) {
        snprintf(r->step, sizeof r->step, "new process");
        if (pipe2(pair, O_CLOEXEC) || (pair[0] = high(pair[0])) < 0 || (pair[1] = high(pair[1])) < 0) return -1;
        pid_t pid = rehearse_one(i ? SIGCHLD : sandbox_job_flags(plan), calls, values, i ? "evaluator" : "candidate",
                                 i ? "" : "candidate_seal", plan->layers & PVA_LAYER_SECCOMP, pair[1]);
        if (pid < 0) return -1;
        close(pair[1]);
        struct report inner = {0};
        if (read(pair[0], &inner, sizeof inner) != sizeof inner) return errno = EPIPE, -1;
        if (inner.error) return *r = inner, errno = inner.error, -1;
        snprintf(r->step, sizeof r->step, "end a process");
        if (kill(pid, SIGKILL) || waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status)) return -1;
        close(pair[0]);
    }
    return 0;
}

/* Whether `plan` works from beginning to end. */
static int try_plan(const struct plan *plan, struct report *r, struct pva_error *err) {
    memset(r, 0, sizeof *r);
    json_t *calls = sandbox_calls(plan, err);
    if (!calls) return -1;
    int up[2], down[2];
    snprintf(r->step, sizeof r->step, "pipe");
    r->error = EMFILE;
    if (pipe2(up, O_CLOEXEC)) return json_decref(calls), -1;
    if (pipe2(down, O_CLOEXEC)) return close(up[0]), close(up[1]), json_decref(calls), -1;
    pid_t pid = (pid_t)syscall(SYS_clone, sandbox_clone_flags(plan), 0, 0, 0, 0);
    if (pid == 0) {
        char go = 0;
        close(down[1]);
        up[1] = high(up[1]);
        struct report mine = {0};
        if (read(down[0], &go, 1) != 1 || go != 'g') _exit(1);
        if (rehearse(plan, calls, &mine)) mine.error = errno ? errno : EINVAL;
        _exit(write(up[1], &mine, sizeof mine) != sizeof mine);
    }
    if (pid < 0) {
        r->error = errno;
        snprintf(r->step, sizeof r->step, "new namespaces");
    } else {
        close(up[1]);
        up[1] = -1;
        int rc = sandbox_write_maps(plan, pid);
        if (rc) {
            r->error = rc;
            snprintf(r->step, sizeof r->step, "user map");
            kill(pid, SIGKILL);
        } else if (write(down[1], "g", 1) != 1 || read(up[0], r, sizeof *r) != sizeof *r) {
            r->error = EPIPE;
            snprintf(r->step, sizeof r->step, "the trial ended early");
        }
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    close(up[0]), close(down[0]), close(down[1]);
    if (up[1] >= 0) close(up[1]);
    json_decref(calls);
    return r->error ? -1 : 0;
}

/* ---- Choosing ---- */

/* A range of user ids that this process may give out and that nobody has. 0: none. */
static uid_t free_uids(void) {
    unsigned inside, outside, count, limit = 0;
    FILE *map = fopen("/proc/self/uid_map", "re");
    if (!map) return 0;
    while (fscanf(map, "%u %u %u", &inside, &outside, &count) == 3)
        if (inside == 0) limit = count; /* ids 0 ... limit-1 exist here */
    fclose(map);
    unsigned pid = (unsigned)getpid();
    for (unsigned i = 0; i < 64; i++) { /* graders on one node start from different places */
        uid_t base = limit > 20000000 ? 2000000 + (pid + i) % 65536 * 256 : 10000 + (pid + i) % 128 * 256;
        if (limit < 10000 + 129 * 256) return 0;
        int taken = 0;
        for (uid_t u = base; u < base + UID_SPAN && !taken; u += 32) taken = getpwuid(u) != NULL;
        if (!taken) return base;
    }
    return 0;
}

static void describe(struct pva_sandbox *s, const struct plan *plan, const char *why_not) {
    static const struct {
        unsigned bit;
        const char *name;
    } names[] = {{PVA_LAYER_UID, "own user ids"},
                 {PVA_LAYER_USER, "user namespace"},
                 {PVA_LAYER_PROCESS, "pid+net+ipc namespaces"},
                 {PVA_LAYER_MOUNT, "private root"},
                 {PVA_LAYER_NO_NEW_PRIVS, "no_new_privs"},
                 {PVA_LAYER_SECCOMP, "seccomp"},
                 {PVA_LAYER_LANDLOCK, "landlock"},
                 {PVA_LAYER_LIMITS, "limits"}};
    static const char *const levels[] = {"none", "basic", "strong"};
    size_t n = (size_t)snprintf(s->text, sizeof s->text, "%s:", levels[s->level]);
    for (int missing = 0; missing < 2; missing++) {
        const char *before = missing ? "; without " : " ";
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if ((plan->layers & names[i].bit ? 0 : 1) == missing && n < sizeof s->text) {
                n += (size_t)snprintf(s->text + n, sizeof s->text - n, "%s%s", before, names[i].name);
                if (!missing && names[i].bit == PVA_LAYER_LANDLOCK && n < sizeof s->text)
                    n += (size_t)snprintf(s->text + n, sizeof s->text - n, " %d", plan->landlock_abi);
                before = ", ";
            }
    }
    if (*why_not && n < sizeof s->text) snprintf(s->text + n, sizeof s->text - n, " (%s)", why_not);
}

static int refuse(const struct pva_grader_settings *settings, struct pva_sandbox *s, struct pva_error *err) {
    if (settings->allow_none) return PVA_OK;
    if (s->level == PVA_SANDBOX_NONE)
        return pva_fail(err, PVA_REFUSED,
                        "no sandbox: this kernel offers no system call filter (%s); generated programs are not run without "
                        "one unless you say --sandbox=none-i-understand",
                        s->text);
    if (s->level < settings->require)
        return pva_fail(err, PVA_REFUSED, "the sandbox is %s, --require-sandbox asks for more", s->text);
    return PVA_OK;
}

int sandbox_choose(const struct pva_grader_settings *settings, const struct interpreter *python, struct plan *plan,
                   struct pva_sandbox *report, struct pva_error *err) {
    /* From strong to weak. Root may do without a user namespace; a plain user may not. */
    static const unsigned namespaces[] = {PVA_LAYER_USER | PVA_LAYER_PROCESS | PVA_LAYER_MOUNT,
                                          PVA_LAYER_PROCESS | PVA_LAYER_MOUNT,
                                          PVA_LAYER_USER | PVA_LAYER_PROCESS,
                                          PVA_LAYER_PROCESS,
                                          PVA_LAYER_USER,
                                          0};
    unsigned offered = ~settings->without;
    memset(plan, 0, sizeof *plan);
    memset(report, 0, sizeof *report);
    plan->python = python;
    plan->file_bytes = settings->file_bytes;
    plan->memory = settings->memory;
    plan->own_uid = geteuid(), plan->own_gid = getegid();
    plan->real_root = plan->own_uid == 0;
    unsigned common = PVA_LAYER_NO_NEW_PRIVS | PVA_LAYER_LIMITS | (PVA_LAYER_SECCOMP & offered);
    if (plan->real_root && offered & PVA_LAYER_UID && (plan->uid_base = free_uids())) common |= PVA_LAYER_UID;
    if (offered & PVA_LAYER_LANDLOCK && (plan->landlock_abi = landlock_abi())) common |= PVA_LAYER_LANDLOCK;

    /* The whole ladder with everything, then without each layer that may be missing, until one plan runs to its end. */
    static const unsigned spare[] = {0,
                                     PVA_LAYER_LANDLOCK,
                                     PVA_LAYER_UID,
                                     PVA_LAYER_UID | PVA_LAYER_LANDLOCK,
                                     PVA_LAYER_SECCOMP,
                                     PVA_LAYER_SECCOMP | PVA_LAYER_LANDLOCK | PVA_LAYER_UID};
    char why[160] = "";
    int found = 0;
    for (size_t i = 0; i < sizeof spare / sizeof *spare && !found; i++) {
        if ((spare[i] & common) != spare[i]) continue;
        for (size_t j = 0; j < sizeof namespaces / sizeof *namespaces && !found; j++) {
            if ((namespaces[j] & offered) != namespaces[j]) continue;
            struct report r;
            plan->layers = (common & ~spare[i]) | namespaces[j];
            plan->count_threads = !plan->real_root || plan->layers & (PVA_LAYER_UID | PVA_LAYER_USER);
            found = !try_plan(plan, &r, err);
            if (err->code) return err->code;
            if (!found && !*why) snprintf(why, sizeof why, "%s: %s", r.step, strerror(r.error));
        }
    }
    if (!found) plan->layers = 0;
    if (!(plan->layers & PVA_LAYER_LANDLOCK)) plan->landlock_abi = 0;
    if (!(plan->layers & PVA_LAYER_UID)) plan->uid_base = 0;
    unsigned basic = PVA_LAYER_NO_NEW_PRIVS | PVA_LAYER_LIMITS | PVA_LAYER_SECCOMP,
             strong = basic | PVA_LAYER_PROCESS | PVA_LAYER_MOUNT;
    report->layers = plan->layers;
    report->landlock_abi = plan->landlock_abi;
    report->uid = plan->uid_base;
    report->level = (plan->layers & strong) == strong ? PVA_SANDBOX_STRONG
                    : (plan->layers & basic) == basic ? PVA_SANDBOX_BASIC
                                                      : PVA_SANDBOX_NONE;
    snprintf(report->python, sizeof report->python, "%s", python->path);
    snprintf(report->version, sizeof report->version, "%s", python->version);
    describe(report, plan, why);
    return refuse(settings, report, err);
}
