/* Items over messages: every item exactly once, with random delays; stops and failures from any rank; nothing hangs, nothing
 * spins. */
#include "check.h"
#include "dispatch.h"

#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static struct par par;
static uint64_t random_state;
static uint64_t draw(uint64_t n) {
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return (random_state >> 11) % n;
}

static void pause_us(uint64_t us) {
    struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    nanosleep(&t, NULL);
}

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int stop_flag;
static int stop_asked(void) { return stop_flag; }

/* What a run shall suffer. */
struct plan {
    int64_t n;
    int slots, ahead;  /* sequences at once; asked for beyond them */
    uint64_t step_us;  /* the longest step; each is random */
    int steps_most;    /* of an item */
    int bad_rank;      /* -1: none */
    int64_t bad_after; /* it acts when it has started that many items, or is in close */
    enum { SIGNAL, STOP_CALL, FAIL_CALL, LEAVE } how;
    int stuck_rank; /* -1, or a rank whose first item takes stuck_steps steps */
    int stuck_steps;
    int drop;       /* what runs is dropped as soon as the run is to stop */
    int slow_rank;  /* -1, or a rank whose steps take ten times as long */
    int steal_only; /* all cost in one shard: the others' items come from it */
    const uint8_t *done;
};

struct result {
    int outcome;
    int64_t started_here, finished_here, started, twice, lost, dropped_here;
    double wall, cpu;
};

/* The main loop of a phase with steps that sleep. */
static struct result run(const struct plan *plan) {
    struct result res = {0};
    struct pva_error err = {0};
    struct schedule *s = NULL;
    int64_t *cost = malloc((size_t)(plan->n + 1) * sizeof *cost), items[64];
    int *counts = calloc((size_t)(plan->n + 1), sizeof *counts), *all = calloc((size_t)(plan->n + 1), sizeof *all);
    int left[64] = {0}; /* steps each slot still has to do */
    int running = 0, acted = 0;
    for (int64_t i = 0; i < plan->n; i++) cost[i] = plan->steal_only ? (i == 0 ? 1000000 : 0) : (int64_t)(i * 7919 % 1000);
    if (par.rank == 0) CHECK_OK(schedule_create(plan->n, cost, NULL, plan->done, par.size, &s, &err), err);
    stop_flag = 0;
    struct dispatch *d = dispatch_open(&par, s, plan->ahead, stop_asked);
    while (!dispatch_finished(d) || running) {
        int64_t n = running ? dispatch_next(d, plan->slots - running, items) : dispatch_wait(d, plan->slots, items);
        CHECK(n <= plan->slots - running);
        for (int i = 0; i < plan->slots && n; i++) {
            if (left[i]) continue;
            int64_t item = items[--n];
            CHECK_FATAL(item >= 0 && item < plan->n);
            counts[item]++;
            res.started_here++;
            left[i] = 1 + (int)draw((uint64_t)plan->steps_most);
            if (par.rank == plan->stuck_rank && res.started_here == 1) left[i] = plan->stuck_steps;
            running++;
        }
        if (par.rank == plan->bad_rank && !acted && res.started_here >= plan->bad_after) {
            acted = 1;
            if (plan->how == SIGNAL) stop_flag = 15;
            if (plan->how == STOP_CALL) dispatch_stop(d);
            if (plan->how == FAIL_CALL) dispatch_fail(d);
            if (plan->how != SIGNAL) break; /* leaves at once, with items in hand and perhaps a request on its way */
        }
        if (plan->drop && dispatch_stopping(d)) {
            res.dropped_here = running;
            break;
        }
        if (!running) continue;
        if (plan->step_us) pause_us(draw(plan->step_us) * (par.rank == plan->slow_rank ? 10 : 1));
        for (int i = 0; i < plan->slots; i++)
            if (left[i] && --left[i] == 0) running--, res.finished_here++;
    }
    if (par.rank == plan->bad_rank && plan->how == SIGNAL && !acted) stop_flag = 15; /* a signal while it waits in close */
    double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    res.outcome = dispatch_close(&d);
    CHECK(d == NULL);
    res.wall = seconds(CLOCK_MONOTONIC) - wall, res.cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    /* Collective calls are allowed again, and all ranks agree about how it ended. */
    int least, most;
    MPI_Allreduce(&res.outcome, &least, 1, MPI_INT, MPI_MIN, par.comm);
    MPI_Allreduce(&res.outcome, &most, 1, MPI_INT, MPI_MAX, par.comm);
    CHECK_INT(least, most);
    MPI_Allreduce(counts, all, (int)plan->n + 1, MPI_INT, MPI_SUM, par.comm);
    for (int64_t i = 0; i < plan->n; i++) {
        int expected = plan->done && plan->done[i] ? 0 : 1;
        res.started += all[i];
        res.twice += all[i] > expected;
        res.lost += all[i] < expected;
    }
    schedule_free(&s);
    free(cost), free(counts), free(all);
    return res;
}

static const struct plan usual = {
    .n = 60, .slots = 4, .ahead = 2, .step_us = 300, .steps_most = 12, .bad_rank = -1, .stuck_rank = -1, .slow_rank = -1};

static void complete(void) {
    const int64_t sizes[] = {0, 1, 2, 5, 60, 300};
    for (int i = 0; i < 6; i++)
        for (int slots = 1; slots <= 16; slots *= 4) {
            struct plan p = usual;
            p.n = sizes[i], p.slots = slots, p.ahead = slots / 2, p.step_us = i == 5 ? 0 : 200;
            struct result r = run(&p);
            CHECK_INT(r.outcome, DISPATCH_COMPLETE);
            CHECK_INT(r.twice + r.lost, 0);
            CHECK_INT(r.started_here, r.finished_here);
        }
    struct plan p = usual;
    uint8_t done[60];
    for (int i = 0; i < 60; i++) done[i] = i % 3 != 1;
    p.done = done;
    struct result r = run(&p); /* a resumed run */
    CHECK_INT(r.started, 20);
    CHECK_INT(r.twice + r.lost, 0);
    memset(done, 1, sizeof done);
    r = run(&p); /* nothing left at all */
    CHECK_INT(r.outcome, DISPATCH_COMPLETE);
    CHECK_INT(r.started, 0);
}

/* A slow rank, rank 0 too, does less; the others take its items. */
static void slow(void) {
    if (par.size == 1) return;
    for (int who = 0; who < par.size; who++) {
        struct plan p = usual;
        p.n = 120, p.slots = 2, p.ahead = 1, p.slow_rank = who;
        /* A machine with other work may hold up the other ranks just then; it hardly does so three times. */
        int less = 0;
        for (int attempt = 0; attempt < 3 && !less; attempt++) {
            struct result r = run(&p);
            CHECK_INT(r.twice + r.lost, 0);
            less = par.rank != who || r.started_here < 120 / par.size;
            MPI_Allreduce(MPI_IN_PLACE, &less, 1, MPI_INT, MPI_LAND, par.comm);
        }
        CHECK(less);
    }
    struct plan p = usual;
    p.steal_only = 1, p.step_us = 3000, p.slots = 1, p.ahead = 0;
    struct result r = run(&p);
    CHECK_INT(r.twice + r.lost, 0);
    CHECK(r.started_here > 0);
}

/* Nothing waits behind a long item: what a rank has at hand is called back for the others, who wait for it if they must. */
static void stuck(void) {
    if (par.size == 1) return;
    for (int who = 0; who < par.size; who++)
        for (int ahead = 0; ahead <= 6; ahead += 3) {
            struct plan p = usual;
            p.n = 40, p.slots = 1, p.ahead = ahead, p.steps_most = 3, p.step_us = 1000, p.stuck_rank = who, p.stuck_steps = 400;
            if (ahead == 6) p.n = 16, p.step_us = 4000, p.slow_rank = who, p.stuck_steps = 40; /* it hears of it late */
            struct result r = run(&p);
            CHECK_INT(r.outcome, DISPATCH_COMPLETE);
            CHECK_INT(r.twice + r.lost, 0);
            if (par.rank == who) CHECK_INT(r.started_here, 1);
        }
}

static void ended_early(void) {
    for (int who = 0; who < par.size; who++)
        for (int how = SIGNAL; how <= LEAVE; how++)
            for (int64_t after = 0; after <= 9; after += 3) {
                struct plan p = usual;
                p.n = 400, p.bad_rank = who, p.how = how, p.bad_after = after, p.step_us = 150;
                struct result r = run(&p);
                CHECK_INT(r.outcome, how == FAIL_CALL ? DISPATCH_FAILED : DISPATCH_STOPPED);
                CHECK_INT(r.twice, 0);
                CHECK(r.started < 400); /* it did end early */
                if (par.rank != who || how == SIGNAL)
                    CHECK_INT(r.started_here, r.finished_here); /* what had begun was finished */
            }
    /* All at once. */
    struct plan p = usual;
    p.bad_rank = par.rank, p.how = FAIL_CALL, p.bad_after = 1;
    struct result r = run(&p);
    CHECK_INT(r.outcome, DISPATCH_FAILED);
    CHECK_INT(r.twice, 0);
    /* One fails while another is stopped. */
    p.how = par.rank ? SIGNAL : FAIL_CALL;
    r = run(&p);
    CHECK(r.outcome & DISPATCH_FAILED);
    CHECK_INT(r.twice, 0);
}

/* A signal that reaches a rank which is already done and waits in close must stop the one that still computes. */
static void stopped_while_waiting(void) {
    if (par.size == 1) return;
    for (int slow_rank = 0; slow_rank < par.size; slow_rank++) {
        struct plan p = usual;
        p.n = 4 * par.size, p.slots = 1, p.steps_most = 1, p.stuck_rank = slow_rank, p.stuck_steps = 2000, p.step_us = 10000,
        p.drop = 1;
        p.bad_rank = (slow_rank + 1) % par.size, p.how = SIGNAL, p.bad_after = 1000;
        struct result r = run(&p);
        CHECK_INT(r.outcome, DISPATCH_STOPPED);
        CHECK_INT(r.twice, 0);
        CHECK_INT(r.dropped_here, par.rank == slow_rank);
    }
}

/* Ranks that wait for a slow one leave the processor to others: while it has not come yet, and while it computes the last item.
 */
static void asleep(void) {
    if (par.size == 1) return;
    for (int late = 0; late <= 1; late++)
        for (int slow_rank = 0; slow_rank < par.size; slow_rank++) {
            struct pva_error err = {0};
            struct schedule *s = NULL;
            int64_t cost = 1, item, n = 0;
            if (par.rank == 0) CHECK_OK(schedule_create(1, &cost, NULL, NULL, par.size, &s, &err), err);
            double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
            struct dispatch *d = dispatch_open(&par, s, 1, NULL);
            if (late && par.rank == slow_rank) pause_us(400000);
            if (!late && par.rank != slow_rank) { /* so that the slow one gets the item; rank 0 must answer meanwhile */
                pause_us(par.rank ? 50000 : 10000);
                if (par.rank == 0) dispatch_next(d, 0, &item), pause_us(40000), dispatch_next(d, 0, &item);
            }
            while (!dispatch_finished(d)) {
                n = dispatch_wait(d, 1, &item);
                if (!late && n) pause_us(400000);
            }
            CHECK_INT(dispatch_close(&d), DISPATCH_COMPLETE);
            wall = seconds(CLOCK_MONOTONIC) - wall, cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
            CHECK(wall >= 0.39);
            CHECK(cpu <= 0.25 * wall);
            schedule_free(&s);
        }
}

/* One at a time with a large reserve, and far more asked for than one answer holds. */
static void in_portions(void) {
    struct pva_error err = {0};
    int64_t cost[900], items[2000];
    for (int i = 0; i < 900; i++) cost[i] = i;
    for (int ahead = 0; ahead <= 1000; ahead += 500)
        for (int64_t n_free = 1; n_free <= 2000; n_free += 1999) {
            struct schedule *s = NULL;
            int mine[900] = {0}, all[900];
            if (par.rank == 0) CHECK_OK(schedule_create(900, cost, NULL, NULL, par.size, &s, &err), err);
            struct dispatch *d = dispatch_open(&par, s, ahead, NULL);
            CHECK_INT(dispatch_next(d, 0, items), 0);
            CHECK_INT(dispatch_next(d, -3, items), 0);
            while (!dispatch_finished(d)) {
                int64_t n = dispatch_wait(d, n_free, items);
                CHECK(n <= n_free);
                for (int64_t i = 0; i < n; i++) {
                    CHECK_FATAL(items[i] >= 0 && items[i] < 900);
                    mine[items[i]]++;
                }
            }
            CHECK_INT(dispatch_wait(d, 1, items), 0);
            CHECK(!dispatch_stopping(d));
            CHECK_INT(dispatch_close(&d), DISPATCH_COMPLETE);
            CHECK_INT(dispatch_close(&d), DISPATCH_COMPLETE); /* nothing open: nothing happens */
            MPI_Allreduce(mine, all, 900, MPI_INT, MPI_SUM, par.comm);
            for (int i = 0; i < 900; i++) CHECK_INT(all[i], 1);
            schedule_free(&s);
        }
}

int main(void) {
    struct pva_error err = {0};
    alarm(100); /* a hang is a failure */
    CHECK_OK(par_open(&par, &err), err);
    random_state = 88172645463325252u + (uint64_t)par.rank * 7919;
    double start = seconds(CLOCK_MONOTONIC);
    complete();
    slow();
    stuck();
    ended_early();
    stopped_while_waiting();
    asleep();
    in_portions();
    int rank = par.rank, all = 0;
    MPI_Allreduce(&check_failures, &all, 1, MPI_INT, MPI_SUM, par.comm);
    check_failures = all;
    if (rank == 0) printf("mpi_dispatch: %d rank(s), %.1f s\n", par.size, seconds(CLOCK_MONOTONIC) - start);
    par_close(&par);
    return rank ? (check_failures > 99 ? 99 : check_failures) : check_report("mpi_dispatch");
}
