/* A root directory of its own: a small memory file system with the system's programs and the interpreter bound read-only. */
#include "grade_sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#define OLD "/oldroot"

struct attributes {
    uint64_t set, clear, propagation, userns;
}; /* struct mount_attr, which older headers lack */

static int make_parents(const char *path) {
    char part[PATH_MAX];
    snprintf(part, sizeof part, "%s", path);
    for (char *p = strchr(part + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        if (mkdir(part, 0755) && errno != EEXIST) return -1;
        *p = '/';
    }
    return 0;
}

/* Read-only, and what hangs below as well. Kernels before 5.12 can only do one mount at a time: there the bind was not recursive,
 * and the flags that the original mount is locked to must be repeated. */
static int make_read_only(const char *path, int recursive) {
    struct attributes a = {.set = 1 /* MOUNT_ATTR_RDONLY */ | 2 /* MOUNT_ATTR_NOSUID */};
    if (!syscall(SYS_mount_setattr, AT_FDCWD, path, recursive ? 0x8000 /* AT_RECURSIVE */ : 0, &a, sizeof a)) return 0;
    if (errno != ENOSYS || recursive) return -1;
    struct statvfs st;
    if (statvfs(path, &st)) return -1;
    unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID;
    if (st.f_flag & ST_NODEV) flags |= MS_NODEV;
    if (st.f_flag & ST_NOEXEC) flags |= MS_NOEXEC;
    if (st.f_flag & ST_NOATIME) flags |= MS_NOATIME;
    if (st.f_flag & ST_NODIRATIME) flags |= MS_NODIRATIME;
    if (st.f_flag & ST_RELATIME) flags |= MS_RELATIME;
    return mount(NULL, path, NULL, flags, NULL);
}

/* Shows /oldroot/PATH at PATH. What does not exist is left out. */
static int show(const char *path, int read_only) {
    char from[PATH_MAX], target[PATH_MAX];
    struct stat st;
    if ((size_t)snprintf(from, sizeof from, OLD "%s", path) >= sizeof from) return errno = ENAMETOOLONG, -1;
    if (lstat(from, &st)) return 0;
    if (make_parents(path)) return -1;
    if (S_ISLNK(st.st_mode)) { /* /lib -> usr/lib */
        ssize_t n = readlink(from, target, sizeof target - 1);
        if (n < 0) return -1;
        target[n] = 0;
        return symlink(target, path) && errno != EEXIST ? -1 : 0;
    }
    if (S_ISDIR(st.st_mode)) {
        if (mkdir(path, 0755) && errno != EEXIST) return -1;
    } else {
        int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
        if (fd < 0) return -1;
        close(fd);
    }
    int recursive = S_ISDIR(st.st_mode) != 0;
    struct attributes nothing = {0}; /* a kernel that knows the call does nothing here; one that does not says ENOSYS */
    if (recursive && syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &nothing, sizeof nothing) && errno == ENOSYS) recursive = 0;
    if (mount(from, path, NULL, MS_BIND | (recursive ? MS_REC : 0), NULL)) return -1;
    return read_only ? make_read_only(path, recursive) : 0;
}

#define STEP(what, call) \
    do { \
        if ((call) < 0) { \
            int saved = errno; \
            snprintf(failed, n_failed, "%s", what); \
            errno = saved; \
            return -1; \
        } \
    } while (0)

int sandbox_build_root(const struct plan *plan, char *failed, size_t n_failed) {
    static const char *const bases[] = {"/tmp", "/var/tmp", "/run", "/mnt", "/dev/shm"};
    static const char *const system_paths[] = {
        "/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache", "/etc/alternatives"};
    static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"};
    const char *base = NULL;
    struct stat st;
    for (size_t i = 0; i < sizeof bases / sizeof *bases && !base; i++)
        if (!stat(bases[i], &st) && S_ISDIR(st.st_mode)) base = bases[i];
    if (!base) base = "/tmp";

    STEP("make mounts private", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    STEP("mount a root", mount("root", base, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0755"));
    STEP("enter the root", chdir(base));
    STEP("make the old root's place", mkdir("oldroot", 0755));
    STEP("change the root", syscall(SYS_pivot_root, ".", "oldroot"));
    STEP("enter the new root", chdir("/"));
    for (size_t i = 0; i < sizeof system_paths / sizeof *system_paths; i++) STEP(system_paths[i], show(system_paths[i], 1));
    for (int i = 0; i < plan->python->n_paths; i++) STEP(plan->python->paths[i], show(plan->python->paths[i], 1));
    STEP("make /dev", mkdir("/dev", 0755));
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) STEP(devices[i], show(devices[i], 0));
    STEP("make the job's place", mkdir("/sandbox", 0755));
    STEP("make the job's directory", mkdir(SANDBOX_TMP, 0755));
    if (stat("/tmp", &st)) STEP("point /tmp there", symlink(SANDBOX_TMP, "/tmp"));
    STEP("leave the old root", umount2(OLD, MNT_DETACH));
    STEP("remove its place", rmdir(OLD));
    STEP("make the root read-only", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL));
    return 0;
}
