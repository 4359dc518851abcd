/* grade_task.h - one job on its way: what is sent, what comes back. Private to the grader. */
#ifndef GRADE_TASK_H
#define GRADE_TASK_H

#include "pva/grade.h"

#include <stdint.h>

struct task {
    struct task *next;
    int64_t serial; /* the server's name for it */
    struct pva_grade_job job;
    char *program;    /* owned copy of job.program */
    int is_reference; /* times a reference; its result stays inside */
    uint64_t key;     /* of its problem's timing */
    double cpu_limit;
    int attempts;

    int fd;        /* our end of its socket; -1: not handed over */
    char *payload; /* what the evaluator reads, NULL once sent */
    size_t n_payload, sent;
    char *answer; /* what it wrote so far */
    size_t n_answer;
    int ended; /* its socket is at the end */
    int exit_known, status, late;
    double waited; /* seconds since it was handed over */
    char nonce[33];
    struct pva_grade_result result;
};

/* A copy of the job; NULL when out of memory. */
struct task *task_create(const struct pva_grade_job *job);
void task_free(struct task *t);
/* Forgets a run that led nowhere, so that it can begin again. */
void task_reset(struct task *t);

/* Builds the payload with a fresh nonce. */
int task_prepare(struct task *t, int preload, struct pva_error *err);
/* Writes what the socket takes and shuts it down after the last byte. 1: all sent, 0: more to come, -1: the other end is gone. */
int task_send(struct task *t);
/* Reads what is there. 0, or -1 when memory ran out or the answer is absurdly long. */
int task_receive(struct task *t);
/* Fills t->result from the answer. 0, or -1 when it is not a whole answer with the right nonce. */
int task_parse(struct task *t);
/* Fills t->result for an evaluator that ended without an answer. 1: that is the program's doing, 0: the grader's. */
int task_ended(struct task *t);

uint64_t task_key(const struct pva_problem *p);

#endif
