#include "grade_task.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_MAX ((size_t)1 << 20)

static const char *const names[PVA_N_VERDICTS] = {"pass",   "assertion", "exception", "syntax", "timeout",
                                                  "memory", "sandbox",   "no-code",   "error"};

const char *pva_verdict_name(enum pva_verdict v) {
    PVA_ASSERT(v < PVA_N_VERDICTS);
    return names[v];
}

struct task *task_create(const struct pva_grade_job *job) {
    struct task *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->job = *job;
    t->fd = -1;
    t->program = malloc(job->n_program + 1);
    if (!t->program) return free(t), NULL;
    if (job->n_program) memcpy(t->program, job->program, job->n_program);
    t->program[job->n_program] = 0;
    t->job.program = t->program;
    t->key = task_key(job->problem);
    return t;
}

void task_reset(struct task *t) {
    if (t->fd >= 0) close(t->fd);
    free(t->payload);
    free(t->answer);
    t->fd = -1;
    t->payload = t->answer = NULL;
    t->n_payload = t->sent = t->n_answer = 0;
    t->ended = t->exit_known = t->status = t->late = 0;
    t->waited = 0;
}

void task_free(struct task *t) {
    if (!t) return;
    task_reset(t);
    free(t->program);
    free(t);
}

/* FNV-1a over what decides how long the reference takes. */
uint64_t task_key(const struct pva_problem *p) {
    uint64_t h = 0xcbf29ce484222325u;
    const char *texts[] = {p->task_id, p->code, p->setup, p->entry_point};
    for (size_t i = 0; i < 4 + p->n_tests; i++)
        for (const char *s = i < 4 ? texts[i] : p->tests[i - 4]; *s; s++) h = (h ^ (unsigned char)*s) * 0x100000001b3u;
    return h;
}

static char *hex(const void *bytes, size_t n) {
    static const char digits[] = "0123456789abcdef";
    char *out = malloc(2 * n + 1);
    if (!out) return NULL;
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[((const unsigned char *)bytes)[i] >> 4];
        out[2 * i + 1] = digits[((const unsigned char *)bytes)[i] & 15];
    }
    out[2 * n] = 0;
    return out;
}

int task_prepare(struct task *t, int preload, struct pva_error *err) {
    const struct pva_problem *p = t->job.problem;
    unsigned char secret[16];
    if (getrandom(secret, sizeof secret, 0) != sizeof secret)
        return pva_fail(err, PVA_IO, "grader: no random numbers: %s", strerror(errno));
    char *nonce = hex(secret, sizeof secret), *program = hex(t->program, t->job.n_program);
    json_t *tests = json_array(), *payload = NULL;
    if (nonce && program) {
        snprintf(t->nonce, sizeof t->nonce, "%s", nonce);
        for (size_t i = 0; i < p->n_tests; i++) json_array_append_new(tests, json_string(p->tests[i]));
        if (t->job.with_challenge)
            for (size_t i = 0; i < p->n_challenge_tests; i++) json_array_append_new(tests, json_string(p->challenge_tests[i]));
        size_t expected = p->n_tests + (t->job.with_challenge ? p->n_challenge_tests : 0);
        if (json_array_size(tests) == expected)
            payload = json_pack("{s:s, s:s, s:b, s:s, s:s, s:s, s:s, s:s, s:O}", "nonce", nonce, "program", program, "preload",
                                preload, "kind", p->kind == PVA_HUMANEVAL ? "humaneval" : "mbpp", "prompt", p->text, "reference",
                                p->code, "setup", p->setup, "entry_point", p->entry_point, "tests", tests);
    }
    t->payload = payload ? json_dumps(payload, JSON_COMPACT) : NULL;
    t->n_payload = t->payload ? strlen(t->payload) : 0;
    json_decref(payload);
    json_decref(tests);
    free(nonce);
    free(program);
    if (!t->payload) return pva_fail(err, PVA_IO, "grader: out of memory for a job of task %s", p->task_id);
    return PVA_OK;
}

int task_send(struct task *t) {
    while (t->sent < t->n_payload) {
        ssize_t n = send(t->fd, t->payload + t->sent, t->n_payload - t->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
        t->sent += (size_t)n;
    }
    free(t->payload);
    t->payload = NULL;
    shutdown(t->fd, SHUT_WR);
    return 1;
}

int task_receive(struct task *t) {
    for (;;) {
        char piece[8192];
        ssize_t n = recv(t->fd, piece, sizeof piece, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
        if (n <= 0) return t->ended = 1, 0;
        if (t->n_answer + (size_t)n > ANSWER_MAX) return -1;
        char *grown = realloc(t->answer, t->n_answer + (size_t)n + 1);
        if (!grown) return -1;
        t->answer = grown;
        memcpy(t->answer + t->n_answer, piece, (size_t)n);
        t->n_answer += (size_t)n;
        t->answer[t->n_answer] = 0;
    }
}

/* Text of a JSON string, cut to fit at a character's boundary; control characters become blanks when it shall be one line. */
static void take(const json_t *answer, const char *key, char *out, size_t n, int one_line) {
    const char *s = json_string_value(json_object_get(answer, key));
    snprintf(out, n, "%s", s ? s : "");
    size_t length = strlen(out);
    if (s && strlen(s) > length)
        while (length && ((unsigned char)s[length] & 0xc0) == 0x80) out[--length] = 0;
    for (unsigned char *p = (unsigned char *)out; one_line && *p; p++)
        if (*p < 0x20 || *p == 0x7f) *p = ' ';
}

int task_parse(struct task *t) {
    struct pva_grade_result *r = &t->result;
    if (!t->n_answer || t->answer[t->n_answer - 1] != '\n') return -1;
    json_t *a = json_loads(t->answer, JSON_ALLOW_NUL, NULL);
    const char *nonce = json_string_value(json_object_get(a, "nonce")),
               *verdict = json_string_value(json_object_get(a, "verdict"));
    int rc = -1;
    if (nonce && verdict && !strcmp(nonce, t->nonce))
        for (int v = 0; v < PVA_N_VERDICTS; v++)
            if (!strcmp(verdict, names[v])) {
                memset(r, 0, sizeof *r);
                r->verdict = (enum pva_verdict)v;
                rc = 0;
            }
    if (!rc) {
        r->id = t->job.id;
        r->failed_test = (int)json_integer_value(json_object_get(a, "index"));
        r->cpu_seconds = json_number_value(json_object_get(a, "cpu"));
        r->wall_seconds = json_number_value(json_object_get(a, "wall"));
        r->peak_memory = json_integer_value(json_object_get(a, "peak"));
        r->cpu_limit = t->cpu_limit;
        take(a, "kind", r->kind, sizeof r->kind, 1);
        take(a, "detail", r->detail, sizeof r->detail, 1);
        take(a, "stdout", r->out, sizeof r->out, 0);
        take(a, "stderr", r->err, sizeof r->err, 0);
    }
    json_decref(a);
    return rc;
}

int task_ended(struct task *t) {
    struct pva_grade_result *r = &t->result;
    int signal_number = WIFSIGNALED(t->status) ? WTERMSIG(t->status) : 0;
    int exhausted = t->late || signal_number == SIGXCPU;
    memset(r, 0, sizeof *r);
    r->id = t->job.id;
    r->failed_test = -1;
    r->cpu_limit = t->cpu_limit;
    r->wall_seconds = t->waited;
    r->verdict = exhausted ? PVA_TIMEOUT : PVA_UNGRADED;
    if (exhausted) snprintf(r->detail, sizeof r->detail, "checking what the program returned took too long");
    else if (signal_number) snprintf(r->detail, sizeof r->detail, "the evaluator was ended by signal %d", signal_number);
    else
        snprintf(r->detail, sizeof r->detail, "the evaluator ended with status %d and without a verdict", WEXITSTATUS(t->status));
    return exhausted;
}
