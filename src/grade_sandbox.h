/* grade_sandbox.h - the sandbox's layers, as lists of system calls. Private to the grader.
 *
 * A list is JSON: [[name, syscall number, [argument, ...]], ...], arguments as grade_zygote.py reads them. C works the lists
 * out, tries them once in a process of its own, and hands the same lists to the fork server, which carries them out for
 * every job: what was tried is what runs. */
#ifndef GRADE_SANDBOX_H
#define GRADE_SANDBOX_H

#include "pva/grade.h"

#include <jansson.h>
#include <sys/types.h>

#define SANDBOX_MAX_SLOTS 64
#define SANDBOX_MAX_PATHS 64
#define SANDBOX_TMP "/sandbox/tmp" /* the job's directory inside the private root; /tmp points there */

/* Descriptors the fork server inherits, at fixed numbers. */
enum { FD_CONTROL = 3, FD_SETUP = 4, FD_PROCFS = 5, FD_LANDLOCK = 6, FD_LAST = 6 };

struct interpreter {
    char path[256], version[32];
    char paths[SANDBOX_MAX_PATHS][256]; /* what it needs to see besides the system's directories */
    int n_paths;
};

struct plan {
    unsigned layers;
    int landlock_abi;
    int real_root;  /* may give out user ids */
    uid_t uid_base; /* outer id of the server's root (user namespace) or base of the slots' ids */
    uid_t own_uid;  /* of the caller, for the one-line map */
    gid_t own_gid;
    size_t file_bytes, memory;
    int count_threads; /* a limit on threads has an effect (root's own id is exempt) */
    const struct interpreter *python;
};

/* grade_seccomp.c: an allow-list as classic BPF, *code malloc'ed. files: 0 none at all, 1 reading, 2 reading and writing.
 * supervisor: may also receive descriptors. */
int sandbox_filter(int files, int supervisor, unsigned char **code, size_t *n_bytes, struct pva_error *err);

/* grade_root.c: in a fresh mount namespace, a root of its own with what the interpreter needs, read-only. 0, or -1 with the step
 * in `failed` and errno set. */
int sandbox_build_root(const struct plan *plan, char *failed, size_t n_failed);

/* grade_sandbox.c */
int sandbox_choose(const struct pva_grader_settings *settings, const struct interpreter *python, struct plan *plan,
                   struct pva_sandbox *report, struct pva_error *err);
json_t *sandbox_calls(const struct plan *plan, struct pva_error *err); /* object of lists; NULL with err */
json_t *sandbox_values(const struct plan *plan);                       /* the numbers its names stand for */
unsigned long sandbox_clone_flags(const struct plan *plan);            /* of a server */
unsigned long sandbox_job_flags(const struct plan *plan);              /* of a candidate */
int sandbox_write_maps(const struct plan *plan, pid_t child);          /* by the parent; 0 or errno */
int sandbox_enter(const struct plan *plan, char *failed,
                  size_t n_failed);            /* by the child, once mapped: ids, root; -1 with errno */
int sandbox_landlock(const struct plan *plan); /* a ruleset's descriptor or -1 */

/* grade_python.c */
int interpreter_find(const char *wanted, int others_too, struct interpreter *out, struct pva_error *err);

/* grade_server.c: one fork server: a process that waits, in its sandbox, for the first byte of attention. */
struct server {
    pid_t pid;   /* 0: none */
    int control; /* SOCK_SEQPACKET; -1: none */
    int log;     /* what it wrote to stderr, a memory file */
};
int server_start(const struct plan *plan, int setup_fd, struct server *out, struct pva_error *err);
void server_stop(struct server *s);
void server_last_words(const struct server *s, char *text, size_t n);               /* last line of its stderr */
int server_setup_file(const struct plan *plan, int n_slots, struct pva_error *err); /* fd or -1 */

#endif
