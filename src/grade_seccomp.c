/* The allow-list of system calls. Everything else fails with EPERM, so that Python reports a PermissionError the verdict can
 * name. */
#include "grade_sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Memory, time, threads, and descriptors that are already open. */
static const char *const always[] = {"read",
                                     "write",
                                     "readv",
                                     "writev",
                                     "pread64",
                                     "pwrite64",
                                     "preadv",
                                     "pwritev",
                                     "lseek",
                                     "close",
                                     "close_range",
                                     "fstat",
                                     "dup",
                                     "dup2",
                                     "dup3",
                                     "pipe",
                                     "pipe2",
                                     "poll",
                                     "ppoll",
                                     "select",
                                     "pselect6",
                                     "epoll_create",
                                     "epoll_create1",
                                     "epoll_ctl",
                                     "epoll_wait",
                                     "epoll_pwait",
                                     "eventfd2",
                                     "mmap",
                                     "munmap",
                                     "mremap",
                                     "mprotect",
                                     "madvise",
                                     "brk",
                                     "futex",
                                     "futex_waitv",
                                     "set_robust_list",
                                     "get_robust_list",
                                     "rseq",
                                     "set_tid_address",
                                     "sched_yield",
                                     "sched_getaffinity",
                                     "sched_getparam",
                                     "sched_getscheduler",
                                     "getpriority",
                                     "getcpu",
                                     "nanosleep",
                                     "clock_nanosleep",
                                     "clock_gettime",
                                     "clock_getres",
                                     "gettimeofday",
                                     "time",
                                     "times",
                                     "getrusage",
                                     "timer_create",
                                     "timer_settime",
                                     "timer_gettime",
                                     "timer_delete",
                                     "setitimer",
                                     "getitimer",
                                     "alarm",
                                     "pause",
                                     "rt_sigaction",
                                     "rt_sigprocmask",
                                     "rt_sigreturn",
                                     "rt_sigpending",
                                     "rt_sigtimedwait",
                                     "rt_sigsuspend",
                                     "sigaltstack",
                                     "restart_syscall",
                                     "exit",
                                     "exit_group",
                                     "getpid",
                                     "getppid",
                                     "gettid",
                                     "getuid",
                                     "geteuid",
                                     "getgid",
                                     "getegid",
                                     "getresuid",
                                     "getresgid",
                                     "getgroups",
                                     "getpgrp",
                                     "getpgid",
                                     "getsid",
                                     "uname",
                                     "sysinfo",
                                     "getrandom",
                                     "arch_prctl",
                                     "membarrier",
                                     "umask",
                                     "wait4",
                                     "waitid",
                                     "getrlimit",
                                     "getcwd",
                                     "recvfrom",
                                     "shutdown",
                                     NULL};

/* Looking at files. What can be seen is the private root's business. */
static const char *const reading[] = {"stat",       "lstat",     "newfstatat", "statx",      "access",   "faccessat",
                                      "faccessat2", "readlink",  "readlinkat", "getdents64", "getdents", "chdir",
                                      "fchdir",     "statfs",    "fstatfs",    "fadvise64",  "getxattr", "lgetxattr",
                                      "fgetxattr",  "listxattr", "llistxattr", "flistxattr", NULL};

/* Changing them: only where the temporary directory is the one place that can be changed. */
static const char *const writing[] = {"open",     "openat",    "creat",     "unlink",    "unlinkat",        "rename",
                                      "renameat", "renameat2", "mkdir",     "mkdirat",   "rmdir",           "ftruncate",
                                      "truncate", "fsync",     "fdatasync", "fallocate", "copy_file_range", "sendfile",
                                      "chmod",    "fchmod",    "fchmodat",  "utimensat", "symlink",         "symlinkat",
                                      "link",     "linkat",    NULL};

static int add(scmp_filter_ctx filter, uint32_t action, const char *name, unsigned n, const struct scmp_arg_cmp *args) {
    int number = seccomp_syscall_resolve_name(name);
    if (number < 0) return 0; /* this architecture or library does not have it */
    int rc = seccomp_rule_add_array(filter, action, number, n, args);
    return rc == -EDOM || rc == -EEXIST ? 0 : rc;
}

static int allow(scmp_filter_ctx filter, const char *const *names) {
    int rc = 0;
    for (; *names && !rc; names++) rc = add(filter, SCMP_ACT_ALLOW, *names, 0, NULL);
    return rc;
}

static int allow_value(scmp_filter_ctx filter, const char *name, unsigned arg, uint64_t value) {
    struct scmp_arg_cmp only = SCMP_CMP64(arg, SCMP_CMP_EQ, value);
    return add(filter, SCMP_ACT_ALLOW, name, 1, &only);
}

static int allow_masked(scmp_filter_ctx filter, const char *name, unsigned arg, uint64_t mask, uint64_t value) {
    struct scmp_arg_cmp only = SCMP_CMP64(arg, SCMP_CMP_MASKED_EQ, mask, value);
    return add(filter, SCMP_ACT_ALLOW, name, 1, &only);
}

static int fill(scmp_filter_ctx filter, int files, int supervisor) {
    static const int fcntls[] = {F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC};
    static const unsigned long ioctls[] = {TCGETS, TIOCGWINSZ, FIONREAD, FIOCLEX, FIONCLEX, FIONBIO};
    static const int prctls[] = {15 /* PR_SET_NAME */, 16 /* PR_GET_NAME */, 3 /* PR_GET_DUMPABLE */};
    int rc = allow(filter, always);

    /* Threads, but no processes; glibc falls back from clone3, whose flags a filter cannot see. */
    rc = rc ? rc
            : allow_masked(filter, "clone", 0, CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, CLONE_THREAD | CLONE_SIGHAND | CLONE_VM);
    rc = rc ? rc : add(filter, SCMP_ACT_ERRNO(ENOSYS), "clone3", 0, NULL);
    rc = rc ? rc : add(filter, SCMP_ACT_ERRNO(ENOSYS), "openat2", 0, NULL);
    /* Its own limits, not another process's; no F_SETOWN, which would send signals. */
    rc = rc ? rc : allow_value(filter, "prlimit64", 0, 0);
    for (size_t i = 0; i < sizeof fcntls / sizeof *fcntls; i++)
        rc = rc ? rc : allow_value(filter, "fcntl", 1, (uint64_t)fcntls[i]);
    for (size_t i = 0; i < sizeof ioctls / sizeof *ioctls; i++) rc = rc ? rc : allow_value(filter, "ioctl", 1, ioctls[i]);
    for (size_t i = 0; i < sizeof prctls / sizeof *prctls; i++)
        rc = rc ? rc : allow_value(filter, "prctl", 0, (uint64_t)prctls[i]);
    /* A pair of connected sockets without an address, and sending on it: asyncio wakes itself up this way. */
    rc = rc ? rc : allow_value(filter, "socketpair", 0, 1 /* AF_UNIX */);
    rc = rc ? rc : allow_value(filter, "sendto", 4, 0);

    if (files >= 1) rc = rc ? rc : allow(filter, reading);
    if (files == 1) {
        rc = rc ? rc : allow_masked(filter, "open", 1, O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY), 0);
        rc = rc ? rc : allow_masked(filter, "openat", 2, O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY), 0);
    }
    if (files == 2) rc = rc ? rc : allow(filter, writing);
    if (files == 0) { /* fstat by its newer names: an empty path and AT_EMPTY_PATH; the path itself a filter cannot read */
        rc = rc ? rc : allow_masked(filter, "newfstatat", 3, AT_EMPTY_PATH, AT_EMPTY_PATH);
        rc = rc ? rc : allow_masked(filter, "statx", 2, AT_EMPTY_PATH, AT_EMPTY_PATH);
    }
    if (supervisor) rc = rc ? rc : add(filter, SCMP_ACT_ALLOW, "recvmsg", 0, NULL);
    return rc;
}

int sandbox_filter(int files, int supervisor, unsigned char **code, size_t *n_bytes, struct pva_error *err) {
    *code = NULL;
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int fd = memfd_create("filter", MFD_CLOEXEC), rc = filter && fd >= 0 ? 0 : -ENOMEM;
    if (!rc) rc = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (!rc) seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* older libraries lack it; then the filter is slower */
    if (!rc) rc = fill(filter, files, supervisor);
    if (!rc) rc = seccomp_export_bpf(filter, fd);
    struct stat st;
    if (!rc && fstat(fd, &st)) rc = -errno;
    if (!rc) {
        *n_bytes = (size_t)st.st_size;
        *code = malloc(*n_bytes);
        if (!*code || pread(fd, *code, *n_bytes, 0) != (ssize_t)*n_bytes) rc = -EIO;
    }
    if (filter) seccomp_release(filter);
    if (fd >= 0) close(fd);
    if (!rc) return PVA_OK;
    free(*code);
    *code = NULL;
    return pva_fail(err, PVA_IO, "sandbox: cannot build the system call filter: %s", strerror(-rc));
}
