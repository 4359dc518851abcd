/* What the store asks of the file system: space that is really there, names that appear only when complete, one writer at a time.
 */
#include "store_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

char *store_path_with(const char *path, const char *suffix) {
    char *out = NULL;
    return asprintf(&out, "%s%s", path, suffix) < 0 ? NULL : out;
}

static int no_space(int fd, const char *path, int64_t bytes, int reason, struct pva_error *err) {
    struct statvfs fs;
    if (reason == ENOSPC && !fstatvfs(fd, &fs))
        return pva_fail(err, PVA_IO, "%s: %.3f GB cannot be allocated: %s (%.3f GB free)", path, bytes / 1e9, strerror(reason),
                        (double)fs.f_bavail * fs.f_frsize / 1e9);
    return pva_fail(err, PVA_IO, "%s: %.3f GB cannot be allocated: %s%s", path, bytes / 1e9, strerror(reason),
                    reason == EFBIG ? " (see ulimit -f)" : "");
}

/* Where fallocate is not supported (older NFS and Lustre), holes are filled by reading the file and writing it back. */
static int fill_holes(int fd, int64_t bytes) {
    const size_t piece = 4u << 20;
    char *buffer = malloc(piece);
    if (!buffer) return errno = ENOMEM, -1;
    int status = 0;
    for (int64_t at = 0; at < bytes && !status;) {
        size_t want = bytes - at < (int64_t)piece ? (size_t)(bytes - at) : piece;
        ssize_t got = pread(fd, buffer, want, at);
        if (got == 0) memset(buffer, 0, want), got = (ssize_t)want; /* beyond the end */
        if (got > 0) status = store_write_all(fd, buffer, (size_t)got, at), at += got;
        else if (errno != EINTR) status = -1;
    }
    int reason = errno;
    free(buffer);
    errno = reason;
    return status;
}

int store_reserve(int fd, const char *path, int64_t bytes, struct pva_error *err) {
    int status;
    do status = fallocate(fd, 0, 0, bytes);
    while (status && errno == EINTR);
    if (status && (errno == EOPNOTSUPP || errno == ENOSYS)) status = fill_holes(fd, bytes);
    return status ? no_space(fd, path, bytes, errno, err) : PVA_OK;
}

/* "dir/" of a path, "." for a bare name; malloc'd. */
static char *directory_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
}

int store_sync_directory(const char *path, struct pva_error *err) {
    char *dir = directory_of(path);
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    /* Some network file systems cannot sync a directory; there the rename itself is durable. */
    if (fd < 0 || (fsync(fd) && errno != EINVAL && errno != ENOTSUP))
        pva_fail(err, PVA_IO, "%s: the directory cannot be synced: %s", dir ? dir : path, strerror(errno));
    if (fd >= 0) close(fd);
    free(dir);
    return err->code;
}

int store_publish(const char *partial, const char *path, struct pva_error *err) {
    if (!access(path, F_OK)) {
        char *kept = store_path_with(path, ".replaced");
        if (!kept) return pva_fail(err, PVA_IO, "%s: no memory", path);
        /* A second name for the old file first, so that `path` exists at every moment; file systems without hard links get a gap.
         */
        if ((unlink(kept) && errno != ENOENT) || (link(path, kept) && rename(path, kept)))
            pva_fail(err, PVA_IO, "%s: cannot be kept as %s: %s", path, kept, strerror(errno));
        free(kept);
        if (err->code) return err->code;
    }
    if (rename(partial, path)) return pva_fail(err, PVA_IO, "%s: cannot be renamed to %s: %s", partial, path, strerror(errno));
    return store_sync_directory(path, err);
}

int store_write_all(int fd, const void *data, size_t bytes, int64_t offset) {
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pwrite(fd, (const char *)data + done, bytes - done, offset + (int64_t)done);
        if (n > 0) done += (size_t)n;
        else if (n == 0) return errno = ENOSPC, -1;
        else if (errno != EINTR) return -1;
    }
    return 0;
}

static int copy_by_hand(int from, int to, int64_t offset, size_t n) {
    char *buffer = malloc(n);
    if (!buffer) return errno = ENOMEM, -1;
    ssize_t got = pread(from, buffer, n, offset);
    if (got == 0) errno = EIO, got = -1; /* the file is shorter than it says */
    if (got > 0 && store_write_all(to, buffer, (size_t)got, offset)) got = -1;
    int reason = errno;
    free(buffer);
    errno = reason;
    return (int)got;
}

int store_copy_bytes(int from, int to, int64_t offset, int64_t bytes, const int *cancel) {
    int in_kernel = 1;
    for (int64_t end = offset + bytes; offset < end;) {
        if (cancel && __atomic_load_n(cancel, __ATOMIC_RELAXED)) return errno = ECANCELED, -1;
        size_t n = end - offset < 4 << 20 ? (size_t)(end - offset) : (size_t)4 << 20;
        loff_t in = offset, out = offset;
        ssize_t done = in_kernel ? copy_file_range(from, &in, to, &out, n, 0) : copy_by_hand(from, to, offset, n);
        if (done > 0) offset += done;
        else if (done < 0 && errno == EINTR) continue;
        /* 0 and these errors: other file systems, old kernels, special mounts. The copy by hand says what is really wrong. */
        else if (in_kernel &&
                 (done == 0 || errno == EXDEV || errno == ENOSYS || errno == EOPNOTSUPP || errno == EINVAL || errno == EBADF))
            in_kernel = 0;
        else return -1;
    }
    return 0;
}

/* ---- byte ranges ------------------------------------------------------------------------------------------------- */

/* An NFS client may write a whole cached page back when a program changed some bytes of it, and so undo what another node wrote
 * beside them; not while a byte-range lock is held, and releasing one flushes. MPI-IO does the same there. */
int store_needs_range_locks(int fd) {
    const uint32_t types[] = {0x6969 /* NFS */, 0x517b /* SMB */, 0xff534d42u /* CIFS */, 0xfe534d42u /* SMB 2 */};
    struct statfs fs;
    if (fstatfs(fd, &fs)) return 0;
    for (int i = 0; i < 4; i++)
        if ((uint32_t)fs.f_type == types[i]) return 1;
    return 0;
}

int store_range_lock(int fd, int locked, int64_t offset, int64_t bytes) {
    struct flock l = {.l_type = locked ? F_WRLCK : F_UNLCK, .l_whence = SEEK_SET, .l_start = offset, .l_len = bytes};
    int status;
    do status = fcntl(fd, F_OFD_SETLKW, &l);
    while (status && errno == EINTR);
    return status;
}

/* ---- the lock ---------------------------------------------------------------------------------------------------- */

/* Locks of the open file description: they belong to the descriptor, not the process, and end with the process however it ends.
 */
static int lock(int fd, short type) {
    struct flock l = {.l_type = type, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_SETLK, &l);
}

/* Between our open and our lock the last owner may have removed the name. */
static int still_named(int fd, const char *name) {
    struct stat a, b;
    return !fstat(fd, &a) && !stat(name, &b) && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

int store_lock_exclusive(const char *path, double wait_seconds, int *fd, struct pva_error *err) {
    char *name = store_path_with(path, ".lock"), owner[120] = "";
    *fd = -1;
    if (!name) return pva_fail(err, PVA_IO, "%s: no memory", path);
    const struct timespec nap = {0, 20000000};
    for (double waited = 0;; waited += 0.02) {
        int f = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (f < 0) {
            pva_fail(err, PVA_IO, "%s: cannot be written there: %s", path, strerror(errno));
            break;
        }
        if (!lock(f, F_WRLCK)) {
            if (still_named(f, name)) {
                char host[64] = "?";
                gethostname(host, sizeof host - 1);
                int n = snprintf(owner, sizeof owner, "process %ld on %s\n", (long)getpid(), host);
                if (ftruncate(f, 0) || pwrite(f, owner, (size_t)n, 0) != n) owner[0] = 0; /* only a courtesy to whoever waits */
                *fd = f;
                break;
            }
            close(f);
            continue;
        }
        if (errno != EAGAIN && errno != EACCES) { /* no locks on this file system: nothing to guard with */
            unlink(name);
            close(f);
            break;
        }
        if (waited >= wait_seconds) {
            ssize_t n = pread(f, owner, sizeof owner - 1, 0);
            owner[n > 0 ? n : 0] = 0;
            owner[strcspn(owner, "\n")] = 0;
            pva_fail(err, PVA_REFUSED, "%s: another job is writing it (%s); wait for it to end, or stop it", path,
                     owner[0] ? owner : "its lock file is locked");
            close(f);
            break;
        }
        close(f);
        nanosleep(&nap, NULL);
    }
    free(name);
    return err->code;
}

int store_lock_share(const char *path, int *fd, struct pva_error *err) {
    if (*fd < 0) {
        char *name = store_path_with(path, ".lock");
        *fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
        free(name);
        if (*fd < 0) return PVA_OK; /* rank 0 has none either */
    }
    if (lock(*fd, F_RDLCK)) return pva_fail(err, PVA_REFUSED, "%s: another job has just taken it", path);
    return PVA_OK;
}

void store_lock_release(const char *path, int *fd) {
    if (*fd < 0) return;
    char *name = store_path_with(path, ".lock");
    /* Unlock first, then try for all of it: of ranks that leave together, the last to unlock succeeds or another one holds it. */
    lock(*fd, F_UNLCK);
    if (name && !lock(*fd, F_WRLCK) && still_named(*fd, name)) unlink(name);
    free(name);
    close(*fd);
    *fd = -1;
}
