/* The grader's owner: hands jobs to the fork server, collects verdicts, replaces a server that died, and times references. */
#include "pva/grade.h"

#include "grade_sandbox.h"
#include "grade_task.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define N_SERVERS 3         /* one at work, the others asleep: after MPI_Init no more can be forked */
#define REFERENCE_CPU 100.0 /* seconds that a reference may take when it is timed */
#define THREADS 64

enum { UNTIMED = -2, FAILING = -1 };
struct timing {
    uint64_t key;
    double seconds;
}; /* or FAILING */

struct list {
    struct task *first, **last;
    size_t n;
};

struct pva_grader {
    struct pva_grader_settings settings;
    struct interpreter python;
    struct plan plan;
    struct server servers[N_SERVERS];
    int current; /* index of the server at work; N_SERVERS: none left */
    int epoll, event;
    int signalled; /* the eventfd is readable */
    struct list queue, active, parked, done;
    int64_t serial;
    size_t pending;
    struct timing *timings;
    size_t n_timings;
    double last_look; /* for the clocks of active tasks */
    double counted_at;
    int counted; /* threads of this user, where they count against the limit */
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- Lists ---- */

static void list_clear(struct list *l) { *l = (struct list){.last = &l->first}; }

static void append(struct list *l, struct task *t) {
    t->next = NULL;
    *l->last = t;
    l->last = &t->next;
    l->n++;
}

static void prepend(struct list *l, struct task *t) {
    t->next = l->first;
    if (!l->first) l->last = &t->next;
    l->first = t;
    l->n++;
}

static void take_out(struct list *l, struct task *t) {
    struct task **p = &l->first;
    while (*p != t) p = &(*p)->next;
    *p = t->next;
    if (l->last == &t->next) l->last = p;
    l->n--;
}

static void free_all(struct list *l) {
    for (struct task *t = l->first, *next; t; t = next) {
        next = t->next;
        task_free(t);
    }
    list_clear(l);
}

/* ---- References' times ---- */

static double timing(const struct pva_grader *g, uint64_t key) {
    for (size_t i = 0; i < g->n_timings; i++)
        if (g->timings[i].key == key) return g->timings[i].seconds;
    return UNTIMED;
}

static int set_timing(struct pva_grader *g, uint64_t key, double seconds, struct pva_error *err) {
    if (!(g->n_timings & (g->n_timings + 1))) { /* 0, 1, 3, 7, ...: room for the next doubling */
        struct timing *grown = realloc(g->timings, (2 * g->n_timings + 1) * sizeof *grown);
        if (!grown) return pva_fail(err, PVA_IO, "grader: out of memory for %zu references' times", g->n_timings);
        g->timings = grown;
    }
    g->timings[g->n_timings++] = (struct timing){key, seconds};
    return PVA_OK;
}

static double limit_of(const struct pva_grader *g, const struct task *t) {
    if (t->is_reference) return fmax(REFERENCE_CPU, g->settings.cpu_seconds);
    double seconds = timing(g, t->key);
    return seconds > 0 ? fmax(g->settings.cpu_seconds, g->settings.reference_factor * seconds) : g->settings.cpu_seconds;
}

/* ---- Opening and closing ---- */

static int fill_settings(const struct pva_grader_settings *given, struct pva_grader_settings *s, struct pva_error *err) {
    *s = *given;
    if (!s->n_jobs) {
        cpu_set_t cpus;
        s->n_jobs = sched_getaffinity(0, sizeof cpus, &cpus) ? 1 : CPU_COUNT(&cpus);
        if (s->n_jobs > SANDBOX_MAX_SLOTS) s->n_jobs = SANDBOX_MAX_SLOTS;
    }
    if (s->n_jobs < 1 || s->n_jobs > SANDBOX_MAX_SLOTS)
        return pva_fail(err, PVA_USAGE, "grader: %d programs at once, expected 1 to %d", s->n_jobs, SANDBOX_MAX_SLOTS);
    if (!(s->cpu_seconds >= 0) || !(s->reference_factor >= 0) || !(s->wall_seconds >= 0) ||
        isinf(s->cpu_seconds + s->wall_seconds))
        return pva_fail(err, PVA_USAGE, "grader: a time limit is negative or not a number");
    if (s->cpu_seconds == 0) s->cpu_seconds = 10;
    if (s->reference_factor == 0) s->reference_factor = 4;
    if (s->memory == 0) s->memory = (size_t)1 << 30;
    if (s->file_bytes == 0) s->file_bytes = (size_t)16 << 20;
    if (s->memory < (size_t)128 << 20)
        return pva_fail(err, PVA_USAGE, "grader: %zu bytes per program, at least 128 MiB are needed for the interpreter itself",
                        s->memory);
    if (s->require == PVA_SANDBOX_NONE) s->require = PVA_SANDBOX_BASIC;
    return PVA_OK;
}

int pva_sandbox_probe(const struct pva_grader_settings *settings, struct pva_sandbox *out, struct pva_error *err) {
    struct pva_grader_settings s;
    struct interpreter python;
    struct plan plan;
    memset(out, 0, sizeof *out);
    int rc = fill_settings(settings, &s, err);
    rc = rc ? rc : interpreter_find(s.python, geteuid() == 0, &python, err);
    return rc ? rc : sandbox_choose(&s, &python, &plan, out, err);
}

/* Wakes the next server and waits for its greeting. */
static int wake(struct pva_grader *g, struct pva_error *err) {
    struct server *s = &g->servers[g->current];
    char text[512] = "";
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    if (send(s->control, "w", 1, MSG_NOSIGNAL) == 1) {
        struct timeval patience = {.tv_sec = 60};
        setsockopt(s->control, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        ssize_t n = recv(s->control, text, sizeof text - 1, 0);
        if (n > 0 && strstr(text, "hello") && !epoll_ctl(g->epoll, EPOLL_CTL_ADD, s->control, &e)) return PVA_OK;
    }
    server_last_words(s, text, sizeof text);
    return pva_fail(err, PVA_IO, "grader: the server (%s) did not start: %s", g->python.path, *text ? text : "no reason given");
}

int pva_grader_open(const struct pva_grader_settings *settings, struct pva_grader **out, struct pva_sandbox *sandbox,
                    struct pva_error *err) {
    struct pva_sandbox report;
    struct pva_grader *g = calloc(1, sizeof *g);
    *out = NULL;
    if (!g) return pva_fail(err, PVA_IO, "grader: out of memory");
    for (int i = 0; i < N_SERVERS; i++) g->servers[i] = (struct server){.control = -1, .log = -1};
    list_clear(&g->queue), list_clear(&g->active), list_clear(&g->parked), list_clear(&g->done);
    g->epoll = g->event = -1;
    int setup = -1, rc = fill_settings(settings, &g->settings, err);
    rc = rc ? rc : interpreter_find(g->settings.python, geteuid() == 0, &g->python, err);
    rc = rc ? rc : sandbox_choose(&g->settings, &g->python, &g->plan, &report, err);
    if (!rc && (setup = server_setup_file(&g->plan, g->settings.n_jobs, err)) < 0) rc = err->code;
    for (int i = 0; i < N_SERVERS && !rc; i++) rc = server_start(&g->plan, setup, &g->servers[i], err);
    if (setup >= 0) close(setup);
    if (!rc) {
        g->epoll = epoll_create1(EPOLL_CLOEXEC);
        g->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = g};
        if (g->epoll < 0 || g->event < 0 || epoll_ctl(g->epoll, EPOLL_CTL_ADD, g->event, &e))
            rc = pva_fail(err, PVA_IO, "grader: %s", strerror(errno));
    }
    rc = rc ? rc : wake(g, err);
    if (sandbox && !rc) *sandbox = report;
    g->last_look = now();
    if (rc) pva_grader_close(&g);
    else *out = g;
    return rc;
}

void pva_grader_close(struct pva_grader **grader) {
    struct pva_grader *g = *grader;
    *grader = NULL;
    if (!g) return;
    for (int i = 0; i < N_SERVERS; i++) server_stop(&g->servers[i]);
    free_all(&g->queue), free_all(&g->active), free_all(&g->parked), free_all(&g->done);
    if (g->epoll >= 0) close(g->epoll);
    if (g->event >= 0) close(g->event);
    free(g->timings);
    free(g);
}

int pva_grader_fd(const struct pva_grader *g) { return g->epoll; }
size_t pva_grader_pending(const struct pva_grader *g) { return g->pending; }

/* ---- Handing over ---- */

/* Threads of this user on this machine. Without a user namespace of their own, a program's threads are counted with all of them.
 */
static int threads_of_user(void) {
    DIR *proc = opendir("/proc");
    int total = 0;
    for (struct dirent *d; proc && (d = readdir(proc));) {
        char path[300], line[256];
        unsigned uid = ~0u;
        int threads = 0;
        if (!isdigit((unsigned char)d->d_name[0])) continue;
        snprintf(path, sizeof path, "/proc/%s/status", d->d_name);
        FILE *f = fopen(path, "re");
        while (f && fgets(line, sizeof line, f)) {
            if (!strncmp(line, "Uid:", 4)) uid = (unsigned)strtoul(line + 4, NULL, 10);
            if (!strncmp(line, "Threads:", 8)) threads = (int)strtol(line + 8, NULL, 10);
        }
        if (f) fclose(f);
        if (uid == getuid()) total += threads;
    }
    if (proc) closedir(proc);
    return total;
}

static int process_limit(struct pva_grader *g) {
    if (g->plan.layers & (PVA_LAYER_UID | PVA_LAYER_USER)) return THREADS;
    if (g->plan.real_root) return 0; /* root is not limited */
    if (now() > g->counted_at + 2 || !g->counted) {
        g->counted = threads_of_user();
        g->counted_at = now();
    }
    return g->counted + THREADS;
}

/* 1: handed over; 0: not now (the server's socket is full); -1: the server is gone; or an error's code. */
static int hand_over(struct pva_grader *g, struct task *t, struct pva_error *err) {
    int pair[2];
    t->cpu_limit = limit_of(g, t);
    t->serial = ++g->serial;
    double wall = g->settings.wall_seconds > 0 && !t->is_reference ? g->settings.wall_seconds : 60 + 6 * t->cpu_limit;
    int rc = task_prepare(t, g->settings.preload_imports, err);
    if (rc) return rc;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        return pva_fail(err, PVA_IO, "grader: no socket for a job: %s", strerror(errno));
    char text[256];
    int n =
        snprintf(text, sizeof text, "{\"job\":%lld,\"cpu\":%.3f,\"idle\":%.3f,\"wall\":%.3f,\"deadline\":%.3f,\"processes\":%d}",
                 (long long)t->serial, t->cpu_limit, t->cpu_limit, wall, wall + 120, process_limit(g));
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } extra;
    struct iovec part = {.iov_base = text, .iov_len = (size_t)n};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = extra.room, .msg_controllen = sizeof extra.room};
    memset(&extra, 0, sizeof extra);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &pair[1], sizeof(int));
    ssize_t sent = sendmsg(g->servers[g->current].control, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    int failure = errno;
    close(pair[1]);
    t->fd = pair[0];
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = t};
    if (sent != n) {
        task_reset(t);
        return failure == EAGAIN || failure == EWOULDBLOCK || failure == ENOBUFS || failure == ETOOMANYREFS ? 0 : -1;
    }
    if (task_send(t) != 0) e.events = EPOLLIN;
    if (epoll_ctl(g->epoll, EPOLL_CTL_ADD, t->fd, &e)) return pva_fail(err, PVA_IO, "grader: %s", strerror(errno));
    return 1;
}

/* ---- Results ---- */

static void finish(struct pva_grader *g, struct task *t) {
    append(&g->done, t);
    uint64_t one = 1;
    if (!g->signalled && write(g->event, &one, sizeof one) == sizeof one) g->signalled = 1;
}

/* The reference's time is known: programs that waited for it get their verdict or another try. */
static void release(struct pva_grader *g, uint64_t key) {
    for (struct task *t = g->parked.first, *next; t; t = next) {
        next = t->next;
        if (t->key != key) continue;
        take_out(&g->parked, t);
        if (limit_of(g, t) > t->cpu_limit) {
            task_reset(t);
            append(&g->queue, t);
        } else finish(g, t);
    }
}

/* A task has its result. */
static int deliver(struct pva_grader *g, struct task *t, struct pva_error *err) {
    const struct pva_problem *p = t->job.problem;
    take_out(&g->active, t);
    if (t->fd >= 0) {
        close(t->fd); /* which also leaves the epoll set */
        t->fd = -1;
    }
    if (t->is_reference) {
        uint64_t key = t->key;
        int rc = set_timing(g, key, t->result.verdict == PVA_PASS ? t->result.cpu_seconds : FAILING, err);
        task_free(t);
        release(g, key);
        return rc;
    }
    int ran_out = t->result.verdict == PVA_TIMEOUT && t->result.cpu_seconds > 0.9 * t->cpu_limit;
    if (!ran_out || !*p->code || timing(g, t->key) != UNTIMED) {
        if (ran_out && limit_of(g, t) > t->cpu_limit) { /* another program had the reference timed meanwhile */
            task_reset(t);
            append(&g->queue, t);
        } else finish(g, t);
        return PVA_OK;
    }
    int under_way = 0;
    for (struct task *o = g->parked.first; o; o = o->next) under_way |= o->key == t->key;
    append(&g->parked, t);
    if (under_way) return PVA_OK;
    struct pva_grade_job job = {.problem = p, .program = p->code, .n_program = strlen(p->code)};
    struct task *reference = task_create(&job);
    if (!reference) return pva_fail(err, PVA_IO, "grader: out of memory");
    reference->is_reference = 1;
    prepend(&g->queue, reference);
    return PVA_OK;
}

/* The evaluator is gone. Either there is an answer, or its exit status tells whose fault that is. */
static int conclude(struct pva_grader *g, struct task *t, struct pva_error *err) {
    if (!t->ended) return PVA_OK;
    if (!task_parse(t)) return deliver(g, t, err);
    if (!t->exit_known) return PVA_OK;
    if (task_ended(t) || ++t->attempts > 1) {
        char text[256];
        server_last_words(&g->servers[g->current], text, sizeof text);
        size_t n = strlen(t->result.detail);
        if (t->result.verdict == PVA_UNGRADED && *text) snprintf(t->result.detail + n, sizeof t->result.detail - n, ": %s", text);
        return deliver(g, t, err);
    }
    take_out(&g->active, t);
    task_reset(t);
    prepend(&g->queue, t);
    return PVA_OK;
}

/* The server is gone, and with it all that was under way and has not answered. */
static int replace_server(struct pva_grader *g, const char *why, struct pva_error *err) {
    char text[256] = "";
    server_last_words(&g->servers[g->current], text, sizeof text);
    server_stop(&g->servers[g->current]);
    for (struct task *t = g->active.first, *next; t; t = next) {
        next = t->next;
        while (!t->ended && !task_receive(t)) /* all writers are dead, so this comes to an end */
            if (!t->ended) usleep(1000);
        if (!task_parse(t)) {
            int rc = deliver(g, t, err);
            if (rc) return rc;
            continue;
        }
        if (++t->attempts > 1)
            return pva_fail(err, PVA_IO, "grader: the server ended twice (%s) while it graded task %s: %s", why,
                            t->job.problem->task_id, *text ? text : "no reason given");
        take_out(&g->active, t);
        task_reset(t);
        prepend(&g->queue, t);
    }
    if (++g->current == N_SERVERS)
        return pva_fail(err, PVA_IO, "grader: the server ended %d times (%s), no spare is left: %s", N_SERVERS, why,
                        *text ? text : "no reason given");
    return wake(g, err);
}

static int hear(struct pva_grader *g, struct pva_error *err) {
    for (;;) {
        char text[512];
        ssize_t n = recv(g->servers[g->current].control, text, sizeof text - 1, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return PVA_OK;
        if (n <= 0) return replace_server(g, "it hung up", err);
        text[n] = 0;
        json_t *m = json_loads(text, 0, NULL);
        int64_t serial = json_integer_value(json_object_get(m, "job"));
        for (struct task *t = g->active.first; t; t = t->next)
            if (t->serial == serial) {
                t->exit_known = 1;
                t->status = (int)json_integer_value(json_object_get(m, "status"));
                t->late = json_is_true(json_object_get(m, "late"));
                json_decref(m);
                m = NULL;
                int rc = task_receive(t) ? pva_fail(err, PVA_IO, "grader: an answer that does not end") : conclude(g, t, err);
                if (rc) return rc;
                break;
            }
        json_decref(m);
    }
}

/* ---- The caller's side ---- */

static int blank(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isspace((unsigned char)text[i])) return 0;
    return 1;
}

int pva_grader_submit(struct pva_grader *g, const struct pva_grade_job *job, struct pva_error *err) {
    struct task *t = task_create(job);
    if (!t) return pva_fail(err, PVA_IO, "grader: out of memory for a program of %zu bytes", job->n_program);
    g->pending++;
    if (blank(job->program, job->n_program)) {
        t->result =
            (struct pva_grade_result){.id = job->id, .verdict = PVA_NO_CODE, .failed_test = -1, .cpu_limit = limit_of(g, t)};
        snprintf(t->result.detail, sizeof t->result.detail, "the program is empty");
        finish(g, t);
    } else append(&g->queue, t);
    return PVA_OK;
}

/* Gives the server as many jobs as it can run and one ahead for each, so that it never waits for us. */
static int pump(struct pva_grader *g, struct pva_error *err) {
    while (g->queue.first && g->active.n < 2 * (size_t)g->settings.n_jobs) {
        struct task *t = g->queue.first;
        int rc = hand_over(g, t, err);
        if (rc == 0) return PVA_OK;
        if (rc < 0) {
            rc = replace_server(g, "it does not take jobs", err);
            if (rc) return rc;
        } else if (rc > 1 || err->code) return err->code;
        else {
            take_out(&g->queue, t);
            append(&g->active, t);
        }
    }
    return PVA_OK;
}

/* Clocks of what is under way; a pause of this process (a suspended job) counts as two seconds. */
static int look_at_clocks(struct pva_grader *g, struct pva_error *err) {
    double t1 = now(), step = fmin(t1 - g->last_look, 2.0);
    g->last_look = t1;
    for (struct task *t = g->active.first; t; t = t->next)
        if ((t->waited += step) > 2 * (60 + 6 * t->cpu_limit + g->settings.wall_seconds) + 600 && g->active.first == t)
            return replace_server(g, "it stood still", err);
    return PVA_OK;
}

int pva_grader_poll(struct pva_grader *g, int timeout_ms, struct pva_grade_result *result, int *n_results,
                    struct pva_error *err) {
    double end = timeout_ms < 0 ? INFINITY : now() + 1e-3 * timeout_ms;
    *n_results = 0;
    if (g->current >= N_SERVERS) return pva_fail(err, PVA_IO, "grader: no server is left");
    for (;;) {
        int rc = look_at_clocks(g, err);
        rc = rc ? rc : pump(g, err);
        if (rc) return rc;
        double left = end - now();
        int wait = g->done.first || left <= 0 ? 0 : left > 1 ? 1000 : (int)(1000 * left) + 1;
        if (!g->done.first && !g->pending) return PVA_OK; /* nothing to wait for */
        struct epoll_event events[32];
        int n = epoll_wait(g->epoll, events, 32, wait);
        if (n < 0 && errno != EINTR) return pva_fail(err, PVA_IO, "grader: %s", strerror(errno));
        int talked = 0;
        for (int i = 0; i < n && !rc; i++) {
            struct task *t = events[i].data.ptr;
            if (!t) talked = 1; /* last, for it may end tasks whose events are still in this batch */
            else if ((void *)t != (void *)g) {
                if (events[i].events & EPOLLOUT && task_send(t) != 0) {
                    struct epoll_event e = {.events = EPOLLIN, .data.ptr = t};
                    epoll_ctl(g->epoll, EPOLL_CTL_MOD, t->fd, &e);
                }
                if (task_receive(t)) rc = pva_fail(err, PVA_IO, "grader: an answer that does not end");
                if (t->ended && !t->exit_known) epoll_ctl(g->epoll, EPOLL_CTL_DEL, t->fd, NULL);
                rc = rc ? rc : conclude(g, t, err);
            }
        }
        if (!rc && talked) rc = hear(g, err);
        rc = rc ? rc : pump(g, err);
        if (rc) return rc;
        if (g->done.first) break;
        if (now() >= end) return PVA_OK;
    }
    struct task *t = g->done.first;
    take_out(&g->done, t);
    *result = t->result;
    *n_results = 1;
    g->pending--;
    task_free(t);
    uint64_t count;
    if (!g->done.first && g->signalled && read(g->event, &count, sizeof count) == sizeof count) g->signalled = 0;
    return PVA_OK;
}

int pva_grader_run(struct pva_grader *g, const struct pva_grade_job *job, struct pva_grade_result *result,
                   struct pva_error *err) {
    int n = 0, rc = pva_grader_submit(g, job, err);
    while (!rc && !n) rc = pva_grader_poll(g, -1, result, &n, err);
    return rc;
}

int pva_grader_calibrate(struct pva_grader *g, const struct pva_problem *const *problems, size_t n, double *seconds,
                         void (*progress)(size_t done, size_t n), struct pva_error *err) {
    int rc = PVA_OK;
    size_t before = g->n_timings, wanted = 0, shown = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        if (timing(g, task_key(problems[i])) != UNTIMED) continue;
        struct pva_grade_job job = {.problem = problems[i], .program = problems[i]->code, .n_program = strlen(problems[i]->code)};
        struct task *t = *problems[i]->code ? task_create(&job) : NULL;
        if (!t) {
            rc = *problems[i]->code ? pva_fail(err, PVA_IO, "grader: out of memory")
                                    : set_timing(g, task_key(problems[i]), FAILING, err);
            wanted++;
            continue;
        }
        t->is_reference = 1;
        append(&g->queue, t);
        wanted++;
    }
    g->pending++; /* so that polling waits for tasks that have no result of their own */
    while (!rc && (g->queue.first || g->active.first)) {
        struct pva_grade_result unused;
        int got = 0;
        rc = pva_grader_poll(g, 200, &unused, &got, err);
        PVA_ASSERT(!got); /* nothing else may be under way */
        if (progress && g->n_timings - before != shown) progress(shown = g->n_timings - before, wanted);
    }
    g->pending--;
    for (size_t i = 0; i < n && !rc && seconds; i++) seconds[i] = timing(g, task_key(problems[i]));
    return rc;
}
