#include "dispatch.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Messages of a rank to rank 0: three numbers. A rank's last message is BYE; nothing of it is in flight after that.
 *   WANT now ahead   at most one unanswered
 *   STOP, FAIL       at most one of each
 *   LEAVING          it computes nothing any more (it may still send STOP)
 *   BYE              answers RELEASE
 * Messages of rank 0 to a rank:
 *   ITEMS item...    answers WANT, perhaps with none ("ask again when a slot is free")
 *   END early        no more. With early = 0 at most once, when all is given; with early = 1 at most once, when the run is to
 * stop RELEASE outcome  all ranks are LEAVING; the last message to a rank */
enum to_root { WANT, STOP, FAIL, LEAVING, BYE, TO_ROOT_KINDS };
enum to_rank { ITEMS, END, RELEASE };
enum { TAG_TO_ROOT = 1, TAG_TO_RANK = 2 };

static const int64_t end_message[2][2] = {{END, 0}, {END, 1}};

/* What rank 0 keeps of another rank. The buffer stays untouched until its send is complete. */
struct peer {
    int told[2]; /* END with early = 0, 1 */
    int64_t items[1 + DISPATCH_MOST];
    MPI_Request items_sent, end_sent[2], release_sent;
};

struct dispatch {
    struct par par; /* with a communicator of its own: these messages meet no others */
    int (*stop_requested)(void);
    int waiting;             /* a WANT is unanswered */
    int ended;               /* no more items for this rank */
    int outcome;             /* rank 0: of all ranks; others: as far as known */
    int sent[TO_ROOT_KINDS]; /* STOP and FAIL at most once */
    int64_t message[TO_ROOT_KINDS][3];
    MPI_Request message_sent[TO_ROOT_KINDS];
    int64_t inbox[1 + DISPATCH_MOST]; /* items that arrived and were not handed out: inbox[first .. first + n) */
    int64_t inbox_first, inbox_n;
    /* rank 0 alone */
    struct schedule *schedule;
    struct peer *peers; /* [size], the first unused */
    int n_leaving, n_bye, released;
    int64_t now, ahead; /* its own request: no message, but answered in its turn like the others' */
    int64_t release[2];
};

/* From 20 microseconds up to 2 milliseconds: quick answers stay quick, long waits cost nothing. */
static void nap(long *nanoseconds) {
    struct timespec t = {0, *nanoseconds};
    nanosleep(&t, NULL);
    if (*nanoseconds < 2000000) *nanoseconds += *nanoseconds / 4;
}

struct dispatch *dispatch_open(const struct par *p, struct schedule *s, int (*stop_requested)(void)) {
    struct dispatch *d = calloc(1, sizeof *d);
    MPI_Request duplicated;
    if (!d) PAR_DIE(p, PVA_IO, "no memory to distribute work");
    d->par = *p;
    PAR_CHECK(p, MPI_Comm_idup(p->comm, &d->par.comm, &duplicated));
    par_wait(p, &duplicated);
    MPI_Comm_set_errhandler(d->par.comm, MPI_ERRORS_RETURN);
    d->stop_requested = stop_requested;
    for (int i = 0; i < TO_ROOT_KINDS; i++) d->message_sent[i] = MPI_REQUEST_NULL;
    if (p->rank) return d;
    PVA_ASSERT(s);
    d->schedule = s;
    d->peers = calloc((size_t)p->size, sizeof *d->peers);
    if (!d->peers) PAR_DIE(p, PVA_IO, "no memory to distribute work among %d ranks", p->size);
    for (int r = 0; r < p->size; r++) {
        struct peer *peer = &d->peers[r];
        peer->items_sent = peer->end_sent[0] = peer->end_sent[1] = peer->release_sent = MPI_REQUEST_NULL;
    }
    return d;
}

/* ---- rank 0 ---- */

static void send_end(struct dispatch *d, int rank, int early) {
    struct peer *peer = &d->peers[rank];
    if (peer->told[early] || peer->told[1]) return;
    peer->told[early] = 1;
    PAR_CHECK(&d->par, MPI_Isend(end_message[early], 2, MPI_INT64_T, rank, TAG_TO_RANK, d->par.comm, &peer->end_sent[early]));
}

static void answer(struct dispatch *d, int rank, int64_t now, int64_t ahead) {
    struct peer *peer = &d->peers[rank];
    if (peer->told[0] || peer->told[1]) return; /* its request and END crossed */
    par_wait(&d->par, &peer->items_sent);       /* it asks again, so it has received the last answer: complete already */
    peer->items[0] = ITEMS;
    int n = 1 + (int)schedule_take(d->schedule, rank, now, ahead, peer->items + 1);
    PAR_CHECK(&d->par, MPI_Isend(peer->items, n, MPI_INT64_T, rank, TAG_TO_RANK, d->par.comm, &peer->items_sent));
    if (schedule_left(d->schedule) == 0) send_end(d, rank, 0); /* at once: it need not ask again to learn that */
}

/* The run ends early: everybody is told at once, whether he has asked or not. */
static void end_all(struct dispatch *d, int outcome) {
    if (d->released) return; /* too late to stop anything: everything was computed, and the ranks expect no more messages */
    d->outcome |= outcome;
    d->ended = 1;
    for (int r = 1; r < d->par.size; r++) send_end(d, r, 1);
}

static void serve(struct dispatch *d) {
    for (;;) {
        int there;
        int64_t m[3];
        MPI_Status from;
        PAR_CHECK(&d->par, MPI_Iprobe(MPI_ANY_SOURCE, TAG_TO_ROOT, d->par.comm, &there, &from));
        if (!there) return;
        PAR_CHECK(&d->par, MPI_Recv(m, 3, MPI_INT64_T, from.MPI_SOURCE, TAG_TO_ROOT, d->par.comm, MPI_STATUS_IGNORE));
        switch (m[0]) {
        case WANT: answer(d, from.MPI_SOURCE, m[1], m[2]); break;
        case STOP: end_all(d, DISPATCH_STOPPED); break;
        case FAIL: end_all(d, DISPATCH_FAILED); break;
        case LEAVING: d->n_leaving++; break;
        case BYE: d->n_bye++; break;
        default: PAR_DIE(&d->par, PVA_BUG, "rank %d sent a message of kind %lld", from.MPI_SOURCE, (long long)m[0]);
        }
    }
}

static void serve_self(struct dispatch *d) {
    if (!d->waiting) return;
    d->waiting = 0;
    if (d->ended) return;
    d->inbox_first = 0;
    d->inbox_n = schedule_take(d->schedule, 0, d->now, d->ahead, d->inbox);
    if (schedule_left(d->schedule) == 0) d->ended = 1;
}

/* ---- the other ranks ---- */

static void tell(struct dispatch *d, enum to_root kind, int64_t now, int64_t ahead) {
    int64_t *m = d->message[kind];
    par_wait(&d->par, &d->message_sent[kind]); /* the one before was answered: complete already */
    m[0] = kind, m[1] = now, m[2] = ahead;
    PAR_CHECK(&d->par, MPI_Isend(m, 3, MPI_INT64_T, 0, TAG_TO_ROOT, d->par.comm, &d->message_sent[kind]));
}

/* Takes in what rank 0 has sent. Returns 1 when RELEASE was among it. */
static int receive(struct dispatch *d) {
    for (;;) {
        int there, n;
        MPI_Status status;
        int64_t m[1 + DISPATCH_MOST];
        PAR_CHECK(&d->par, MPI_Iprobe(0, TAG_TO_RANK, d->par.comm, &there, &status));
        if (!there) return 0;
        PAR_CHECK(&d->par, MPI_Get_count(&status, MPI_INT64_T, &n));
        if (n < 1 || n > 1 + DISPATCH_MOST) PAR_DIE(&d->par, PVA_BUG, "rank 0 sent a message of %d numbers", n);
        PAR_CHECK(&d->par, MPI_Recv(m, n, MPI_INT64_T, 0, TAG_TO_RANK, d->par.comm, MPI_STATUS_IGNORE));
        switch (m[0]) {
        case ITEMS:
            d->waiting = 0;
            if (d->ended) break; /* this rank has stopped meanwhile */
            d->inbox_first = 0;
            d->inbox_n = n - 1;
            memcpy(d->inbox, m + 1, (size_t)(n - 1) * sizeof *m);
            break;
        case END:
            d->waiting = 0;
            d->ended = 1;
            if (m[1]) d->outcome |= DISPATCH_STOPPED; /* or failed: RELEASE tells */
            break;
        case RELEASE: d->outcome = (int)m[1]; return 1;
        default: PAR_DIE(&d->par, PVA_BUG, "rank 0 sent a message of kind %lld", (long long)m[0]);
        }
    }
}

/* ---- everybody ---- */

static void end_early(struct dispatch *d, enum to_root kind, int outcome) {
    if (d->sent[kind]) return;
    d->sent[kind] = 1;
    d->inbox_n = 0;
    if (d->par.rank == 0) {
        end_all(d, outcome);
        return;
    }
    d->outcome |= outcome;
    d->ended = 1;
    tell(d, kind, 0, 0);
}

void dispatch_stop(struct dispatch *d) { end_early(d, STOP, DISPATCH_STOPPED); }
void dispatch_fail(struct dispatch *d) { end_early(d, FAIL, DISPATCH_FAILED); }

static void watch(struct dispatch *d) {
    if (d->stop_requested && d->stop_requested()) dispatch_stop(d);
}

void dispatch_want(struct dispatch *d, int64_t n_now, int64_t n_ahead) {
    if (d->waiting || d->ended || d->inbox_n || (n_now <= 0 && n_ahead <= 0)) return;
    n_now = n_now < 0 ? 0 : n_now > DISPATCH_MOST ? DISPATCH_MOST : n_now;
    n_ahead = n_ahead < 0 ? 0 : n_ahead > DISPATCH_MOST - n_now ? DISPATCH_MOST - n_now : n_ahead;
    d->waiting = 1;
    if (d->par.rank == 0) d->now = n_now, d->ahead = n_ahead;
    else tell(d, WANT, n_now, n_ahead);
}

int64_t dispatch_poll(struct dispatch *d, int64_t *items, int64_t max) {
    watch(d);
    if (d->par.rank == 0) serve(d), serve_self(d);
    else receive(d);
    if (d->outcome) d->inbox_n = 0; /* not started: left for the next run */
    int64_t n = d->inbox_n < max ? d->inbox_n : max;
    memcpy(items, d->inbox + d->inbox_first, (size_t)n * sizeof *items);
    d->inbox_first += n;
    d->inbox_n -= n;
    return n;
}

int64_t dispatch_wait(struct dispatch *d, int64_t *items, int64_t max) {
    for (long pause = 20000;; nap(&pause)) {
        int64_t n = dispatch_poll(d, items, max);
        if (n || !d->waiting) return n;
    }
}

int dispatch_finished(const struct dispatch *d) { return d->ended && d->inbox_n == 0; }
int dispatch_stopping(const struct dispatch *d) { return d->outcome != 0; }

static void close_root(struct dispatch *d) {
    int others = d->par.size - 1;
    for (long pause = 20000; d->n_leaving < others; nap(&pause)) {
        watch(d); /* a rank that still computes must hear of it */
        int before = d->n_leaving;
        serve(d);
        if (d->n_leaving > before) pause = 20000;
    }
    d->released = 1;
    d->release[0] = RELEASE;
    d->release[1] = d->outcome;
    for (int r = 1; r <= others; r++)
        PAR_CHECK(&d->par, MPI_Isend(d->release, 2, MPI_INT64_T, r, TAG_TO_RANK, d->par.comm, &d->peers[r].release_sent));
    for (long pause = 20000; serve(d), d->n_bye < others;) nap(&pause);
    for (int r = 1; r <= others; r++) {
        struct peer *peer = &d->peers[r];
        MPI_Request *sent[] = {&peer->items_sent, &peer->end_sent[0], &peer->end_sent[1], &peer->release_sent};
        for (int i = 0; i < 4; i++) par_wait(&d->par, sent[i]);
    }
}

static void close_other(struct dispatch *d) {
    tell(d, LEAVING, 0, 0);
    for (long pause = 20000; !receive(d); nap(&pause)) watch(d);
    tell(d, BYE, 0, 0);
    for (int i = 0; i < TO_ROOT_KINDS; i++) par_wait(&d->par, &d->message_sent[i]);
}

int dispatch_close(struct dispatch **dispatch) {
    struct dispatch *d = *dispatch;
    *dispatch = NULL;
    if (!d) return DISPATCH_COMPLETE;
    if (!dispatch_finished(d)) dispatch_stop(d);
    if (d->par.rank == 0) close_root(d);
    else close_other(d);
    int outcome = d->outcome;
    MPI_Comm_free(&d->par.comm);
    free(d->peers);
    free(d);
    return outcome;
}
