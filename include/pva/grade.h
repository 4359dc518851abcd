/* grade.h - hostile Python programs in, verdicts out.
 *
 * How. A fork server (a warm python3 that never sees a program) is started by pva_grader_open, which must be called before
 * MPI_Init, before CUDA is touched and before threads are started: it forks. For each job the server forks an evaluator, which
 * forks a candidate into a sandbox; only then does the evaluator read the job. The candidate gets the program and nothing else.
 * The evaluator holds the tests and executes them itself; where a test calls the program, the arguments go to the candidate and
 * plain data comes back, which the evaluator compares. It then sends the verdict with the job's nonce through a socket that no
 * program ever had.
 *
 * What a pass proves. Every test was executed to its end, by an interpreter in which the program never ran, on values that the
 * program's process returned for those arguments. The tests, the expected values, the nonce and the verdict never were in the
 * program's memory. So replacing built-ins, walking frames or the garbage collector, rewriting memory or bytecode, sys.settrace,
 * atexit, threads, signals, scanned descriptors, os._exit(0), or native code that took over the whole process change nothing but
 * the values. An object of the program's own class cannot compare itself with an expected value (verdict: sandbox), and the
 * program cannot redefine a built-in or a module that the tests use. A subclass of a built-in counts as its built-in value. What
 * it does not prove. (1) That the program computes: it may return memorised answers; the tests are public. (2) That it changed
 * its arguments honestly: changes made to a list, dict, set or bytearray argument are copied back, as Python means it, so a test
 * that compares a result with an argument it passed before trusts both. (3) Tests that only look at truth, or at behaviour of a
 * class that the problem asks for, see what that class says. (4) The kernel: a program that breaks it breaks out. Where
 * evaluation apart differs from one shared module: names that the tests define are not visible to the program (their imports
 * are); objects keep their identity per process; a test cannot pass the program an object that is neither data, function,
 * iterator nor instance of a class the tests define.
 *
 * Sandbox. Layers are tried once, when the grader opens, by carrying out the same system calls as every later job; `struct
 * pva_sandbox` says what is active. Files: with a private root (mount namespace) the program sees the interpreter read-only and
 * its own temporary directory in memory, bounded in size, which ends with the process. Without one it cannot open, create or
 * change any file at all, and imports work for what the server loaded beforehand: the whole standard library. Either way nothing
 * lands on a disk, so nothing is left to sweep.
 */
#ifndef PVA_GRADE_H
#define PVA_GRADE_H

#include "pva/error.h"
#include "pva/problems.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pva_verdict {
    PVA_PASS,
    PVA_ASSERTION, /* a test's own assert failed */
    PVA_EXCEPTION, /* the program or a test raised; a crash or an early exit; `kind` names it */
    PVA_SYNTAX,    /* the program does not compile */
    PVA_TIMEOUT,   /* CPU seconds, or asleep, or the generous wall limit */
    PVA_MEMORY,    /* MemoryError, or killed by the system */
    PVA_SANDBOX,   /* a forbidden call was refused and the program died of it, or it meddled with its tests */
    PVA_NO_CODE,   /* the program is empty, or only comments */
    PVA_UNGRADED,  /* the grader itself failed on this job, twice; `detail` says how. Not a property of the program */
    PVA_N_VERDICTS
};

const char *pva_verdict_name(enum pva_verdict v); /* "pass", "assertion", ..., "error" */

/* ---- The sandbox ---- */

enum pva_sandbox_layer {
    PVA_LAYER_UID = 1,     /* own user ids per slot, none of them in use (root only) */
    PVA_LAYER_USER = 2,    /* user namespace */
    PVA_LAYER_PROCESS = 4, /* pid, network and IPC namespaces: sees and reaches no process, interface or shared memory */
    PVA_LAYER_MOUNT = 8,   /* private root: sees no file but the interpreter */
    PVA_LAYER_NO_NEW_PRIVS = 16,
    PVA_LAYER_SECCOMP = 32, /* allow-list of system calls: no process, socket, signal, trace, mount, key, shared memory */
    PVA_LAYER_LANDLOCK = 64,
    PVA_LAYER_LIMITS = 128, /* address space, CPU, file size, descriptors, threads, core */
};

enum pva_sandbox_level { PVA_SANDBOX_NONE, PVA_SANDBOX_BASIC, PVA_SANDBOX_STRONG };
/* basic: seccomp, no_new_privs, limits. strong: basic and PROCESS and MOUNT. */

struct pva_sandbox {
    enum pva_sandbox_level level;
    unsigned layers;  /* enum pva_sandbox_layer */
    int landlock_abi; /* 0: the kernel has none */
    unsigned uid;     /* first user id of the range with PVA_LAYER_UID, else 0 */
    char python[256]; /* the interpreter */
    char version[32]; /* "3.11.2" */
    char text[400];   /* one line: "strong: uid, user, ...; without: landlock (why)" */
};

/* ---- The grader ---- */

struct pva_grader_settings {
    const char *python;      /* path or name; NULL: python3 from PATH, then the usual places; the first that works */
    int n_jobs;              /* programs at once; 0: the CPUs this process may use */
    double cpu_seconds;      /* per program; 0: 10 */
    double reference_factor; /* a program gets at least this many times its reference's CPU time; 0: 4. The reference is timed
                                when a program first runs into the limit, or beforehand by pva_grader_calibrate */
    double wall_seconds;     /* 0: 60 + 6 times the CPU seconds. Asleep without CPU use, it ends after its CPU seconds */
    size_t memory;           /* bytes of address space; 0: 1 GiB */
    size_t file_bytes;       /* bytes in the temporary directory and in one file; 0: 16 MiB */
    int preload_imports;     /* run the usual standard imports before the program */
    enum pva_sandbox_level require; /* refuse to open with less; NONE (zero) means BASIC */
    int allow_none;                 /* --sandbox=none-i-understand: open even without seccomp */
    unsigned without;               /* layers to leave out, for tests */
};

struct pva_grade_job {
    int64_t id;                        /* the caller's; comes back with the result */
    const struct pva_problem *problem; /* must outlive the job */
    const char *program;               /* bytes, copied */
    size_t n_program;
    int with_challenge; /* challenge tests too */
};

/* Plain bytes. Texts are UTF-8 and zero-terminated. */
struct pva_grade_result {
    int64_t id;
    enum pva_verdict verdict;
    int failed_test;           /* index of the test (HumanEval: of the assert) that failed, -1: none or before the tests */
    double cpu_seconds;        /* of the candidate's process */
    double wall_seconds;       /* of the job */
    double cpu_limit;          /* CPU seconds it was allowed */
    int64_t peak_memory;       /* bytes resident */
    char kind[80];             /* type of the exception, name of the signal; "" otherwise */
    char detail[500];          /* one line */
    char out[2049], err[2049]; /* the first 2 KiB of stdout and stderr */
};

struct pva_grader;

/* Starts the servers and waits until one greets. PVA_REFUSED when the sandbox is weaker than required, PVA_IO when no interpreter
 * works. From the thread that will live longest: the servers die with it. `sandbox` may be NULL. */
int pva_grader_open(const struct pva_grader_settings *settings, struct pva_grader **out, struct pva_sandbox *sandbox,
                    struct pva_error *err);
void pva_grader_close(struct pva_grader **g); /* kills what is under way; returns when all processes are gone */

/* Queues a job; never blocks. Results come in the order of completion. Not for several threads at once. */
int pva_grader_submit(struct pva_grader *g, const struct pva_grade_job *job, struct pva_error *err);

/* Moves jobs and results. Waits up to timeout_ms (0: not at all, -1: for ever) until a result is there; *n_results is 0 or 1.
 * If the server dies it is replaced and its jobs run again; a job whose server dies twice fails the call with PVA_IO. */
int pva_grader_poll(struct pva_grader *g, int timeout_ms, struct pva_grade_result *result, int *n_results, struct pva_error *err);

/* Readable when poll has something to do. */
int pva_grader_fd(const struct pva_grader *g);
size_t pva_grader_pending(const struct pva_grader *g); /* submitted, result not yet given out */

/* Times each problem's reference on this machine; submit nothing else meanwhile. seconds [n]: CPU seconds, or -1 when the
 * reference does not pass. Later jobs of these problems get their limits from it. `progress` may be NULL. */
int pva_grader_calibrate(struct pva_grader *g, const struct pva_problem *const *problems, size_t n, double *seconds,
                         void (*progress)(size_t done, size_t n), struct pva_error *err);

/* One job from start to end. */
int pva_grader_run(struct pva_grader *g, const struct pva_grade_job *job, struct pva_grade_result *result, struct pva_error *err);

/* What this machine can do, without starting anything that stays: for doctor. PVA_REFUSED as pva_grader_open. */
int pva_sandbox_probe(const struct pva_grader_settings *settings, struct pva_sandbox *out, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
