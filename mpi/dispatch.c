#include "dispatch.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Messages of a rank to rank 0: numbers, the first the kind. A rank's last message is BYE; nothing of it is in flight after that.
 *   WANT now ahead   at most one unanswered
 *   BACK item...     answers RECALL, perhaps with none
 *   STOP, FAIL       at most one of each
 *   LEAVING          it computes nothing any more (it may still send STOP)
 *   BYE              answers RELEASE
 * Messages of rank 0 to a rank:
 *   ITEMS item...    answers WANT; with none only where nothing could have been started
 *   RECALL           once, when items are scarce: give back what is at hand and cannot be started, and ask for none ahead any
 * more END early        no more. With early = 0 at most once, when all is given and nothing can come back; with early = 1 at most
 *                    once, when the run is to stop
 *   RELEASE outcome  all ranks are LEAVING; the last message to a rank */
enum to_root { WANT, BACK, STOP, FAIL, LEAVING, BYE, TO_ROOT_KINDS };
enum to_rank { ITEMS, RECALL, END, RELEASE };
enum { TAG_TO_ROOT = 1, TAG_TO_RANK = 2, LONGEST = 1 + DISPATCH_MOST };

static const int64_t recall_message[1] = {RECALL}, end_message[2][2] = {{END, 0}, {END, 1}};

/* What rank 0 keeps of a rank, itself included. Buffers stay untouched until their sends are complete. */
struct peer {
    int wants; /* a WANT is unanswered */
    int64_t now, ahead;
    int told[2]; /* END with early = 0, 1 */
    int64_t items[LONGEST];
    MPI_Request items_sent, recall_sent, end_sent[2], release_sent;
};

struct dispatch {
    struct par par; /* with a communicator of its own: these messages meet no others */
    int (*stop_requested)(void);
    int64_t ahead, asked;
    int waiting;  /* this rank's WANT is unanswered */
    int recalled; /* items are scarce */
    int handed_back;
    int ended;                   /* no more items for this rank */
    int outcome;                 /* rank 0: of all ranks; others: as far as known */
    int64_t hand[DISPATCH_MOST]; /* items that wait for a free slot */
    int64_t n_hand;
    int told[TO_ROOT_KINDS]; /* STOP and FAIL at most once */
    int64_t message[TO_ROOT_KINDS][LONGEST];
    MPI_Request message_sent[TO_ROOT_KINDS];
    /* rank 0 alone */
    struct schedule *schedule;
    struct peer *peers; /* [size] */
    int n_back, n_leaving, n_bye, released;
    int64_t release[2];
};

/* From 20 microseconds up to 2 milliseconds: quick answers stay quick, long waits cost nothing. */
static void nap(long *nanoseconds) {
    struct timespec t = {0, *nanoseconds};
    nanosleep(&t, NULL);
    if (*nanoseconds < 2000000) *nanoseconds += *nanoseconds / 4;
}

struct dispatch *dispatch_open(const struct par *p, struct schedule *s, int ahead, int (*stop_requested)(void)) {
    struct dispatch *d = calloc(1, sizeof *d);
    MPI_Request duplicated;
    if (!d) PAR_DIE(p, PVA_IO, "no memory to distribute work");
    d->par = *p;
    PAR_CHECK(p, MPI_Comm_idup(p->comm, &d->par.comm, &duplicated));
    par_wait(p, &duplicated);
    MPI_Comm_set_errhandler(d->par.comm, MPI_ERRORS_RETURN);
    d->stop_requested = stop_requested;
    d->ahead = ahead < 0 ? 0 : ahead > DISPATCH_MOST / 2 ? DISPATCH_MOST / 2 : ahead;
    for (int i = 0; i < TO_ROOT_KINDS; i++) d->message_sent[i] = MPI_REQUEST_NULL;
    if (p->rank) return d;
    PVA_ASSERT(s);
    d->schedule = s;
    d->peers = calloc((size_t)p->size, sizeof *d->peers);
    if (!d->peers) PAR_DIE(p, PVA_IO, "no memory to distribute work among %d ranks", p->size);
    for (int r = 0; r < p->size; r++) {
        struct peer *peer = &d->peers[r];
        peer->items_sent = peer->recall_sent = peer->end_sent[0] = peer->end_sent[1] = peer->release_sent = MPI_REQUEST_NULL;
    }
    return d;
}

/* Items have arrived. */
static void take_in(struct dispatch *d, int64_t n, const int64_t *items) {
    d->waiting = 0;
    PVA_ASSERT(n <= DISPATCH_MOST - d->n_hand);
    if (n < d->asked) d->ahead = 0; /* its own shard is empty: it need not ask for that at each step */
    memcpy(d->hand + d->n_hand, items, (size_t)n * sizeof *items);
    d->n_hand += n;
}

/* ---- rank 0 ---- */

static void to_rank(struct dispatch *d, int rank, const int64_t *message, int64_t n, MPI_Request *sent) {
    PAR_CHECK(&d->par, MPI_Isend(message, (int)n, MPI_INT64_T, rank, TAG_TO_RANK, d->par.comm, sent));
}

static void end(struct dispatch *d, int rank, int early) {
    struct peer *peer = &d->peers[rank];
    peer->wants = 0;
    if (peer->told[early] || peer->told[1]) return;
    peer->told[early] = 1;
    if (rank) to_rank(d, rank, end_message[early], 2, &peer->end_sent[early]);
    else d->ended = 1, d->waiting = 0;
}

/* The run ends early: everybody is told at once, whether he has asked or not. */
static void end_all(struct dispatch *d, int outcome) {
    if (d->released) return; /* too late to stop anything: everything was computed, and the ranks expect no more messages */
    d->outcome |= outcome;
    for (int r = 0; r < d->par.size; r++) end(d, r, 1);
}

static void give(struct dispatch *d, int rank) {
    struct peer *peer = &d->peers[rank];
    par_wait(&d->par, &peer->items_sent); /* it asks again, so it has received the last answer: complete already */
    peer->wants = 0;
    peer->items[0] = ITEMS;
    int64_t n = schedule_take(d->schedule, rank, peer->now, d->recalled ? 0 : peer->ahead, peer->items + 1);
    if (rank) to_rank(d, rank, peer->items, 1 + n, &peer->items_sent);
    else take_in(d, n, peer->items + 1);
}

/* Answers whoever waits, as far as there is something to say. A rank that could start something waits while items may still come
 * back. */
static void settle(struct dispatch *d) {
    for (int r = 0; r < d->par.size; r++) {
        struct peer *peer = &d->peers[r];
        int64_t left = schedule_left(d->schedule);
        if (!peer->wants || d->outcome) continue;
        if (left || !peer->now) give(d, r);
        else if (d->n_back == d->par.size) end(d, r, 0);
    }
    if (d->recalled || d->outcome || !schedule_scarce(d->schedule)) return;
    d->recalled = 1;
    for (int r = 1; r < d->par.size; r++) to_rank(d, r, recall_message, 1, &d->peers[r].recall_sent);
}

static void come_back(struct dispatch *d, int64_t n, const int64_t *items) {
    schedule_put_back(d->schedule, n, items);
    d->n_back++;
}

static void serve(struct dispatch *d) {
    for (;;) {
        int there, n;
        int64_t m[LONGEST];
        MPI_Status from;
        PAR_CHECK(&d->par, MPI_Iprobe(MPI_ANY_SOURCE, TAG_TO_ROOT, d->par.comm, &there, &from));
        if (!there) break;
        struct peer *peer = &d->peers[from.MPI_SOURCE];
        PAR_CHECK(&d->par, MPI_Get_count(&from, MPI_INT64_T, &n));
        if (n < 1 || n > LONGEST) PAR_DIE(&d->par, PVA_BUG, "rank %d sent a message of %d numbers", from.MPI_SOURCE, n);
        PAR_CHECK(&d->par, MPI_Recv(m, n, MPI_INT64_T, from.MPI_SOURCE, TAG_TO_ROOT, d->par.comm, MPI_STATUS_IGNORE));
        switch (m[0]) {
        case WANT: peer->wants = 1, peer->now = m[1], peer->ahead = m[2]; break;
        case BACK: come_back(d, n - 1, m + 1); break;
        case STOP: end_all(d, DISPATCH_STOPPED); break;
        case FAIL: end_all(d, DISPATCH_FAILED); break;
        case LEAVING: d->n_leaving++; break;
        case BYE: d->n_bye++; break;
        default: PAR_DIE(&d->par, PVA_BUG, "rank %d sent a message of kind %lld", from.MPI_SOURCE, (long long)m[0]);
        }
    }
    settle(d);
}

/* ---- the other ranks ---- */

static void tell(struct dispatch *d, enum to_root kind, int64_t n, const int64_t *numbers) {
    int64_t *m = d->message[kind];
    par_wait(&d->par, &d->message_sent[kind]); /* the one before was answered: complete already */
    m[0] = kind;
    if (n) memcpy(m + 1, numbers, (size_t)n * sizeof *m);
    PAR_CHECK(&d->par, MPI_Isend(m, (int)n + 1, MPI_INT64_T, 0, TAG_TO_ROOT, d->par.comm, &d->message_sent[kind]));
}

/* Takes in what rank 0 has sent. Returns 1 when RELEASE was among it. */
static int receive(struct dispatch *d) {
    for (;;) {
        int there, n;
        MPI_Status status;
        int64_t m[LONGEST];
        PAR_CHECK(&d->par, MPI_Iprobe(0, TAG_TO_RANK, d->par.comm, &there, &status));
        if (!there) return 0;
        PAR_CHECK(&d->par, MPI_Get_count(&status, MPI_INT64_T, &n));
        if (n < 1 || n > LONGEST) PAR_DIE(&d->par, PVA_BUG, "rank 0 sent a message of %d numbers", n);
        PAR_CHECK(&d->par, MPI_Recv(m, n, MPI_INT64_T, 0, TAG_TO_RANK, d->par.comm, MPI_STATUS_IGNORE));
        switch (m[0]) {
        case ITEMS: take_in(d, n - 1, m + 1); break;
        case RECALL: d->recalled = 1; break;
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
    if (d->told[kind]) return;
    d->told[kind] = 1;
    d->n_hand = 0;
    d->ended = 1;
    if (d->par.rank == 0) {
        end_all(d, outcome);
    } else {
        d->outcome |= outcome;
        tell(d, kind, 0, NULL);
    }
}

void dispatch_stop(struct dispatch *d) { end_early(d, STOP, DISPATCH_STOPPED); }
void dispatch_fail(struct dispatch *d) { end_early(d, FAIL, DISPATCH_FAILED); }

static void watch(struct dispatch *d) {
    if (d->stop_requested && d->stop_requested()) dispatch_stop(d);
}

static void hand_back(struct dispatch *d) {
    d->handed_back = 1;
    if (d->par.rank) tell(d, BACK, d->n_hand, d->hand);
    else come_back(d, d->n_hand, d->hand);
    d->n_hand = 0;
}

static void ask(struct dispatch *d, int64_t now) {
    int64_t want[2] = {now, d->recalled || d->n_hand > d->ahead ? 0 : d->ahead - d->n_hand};
    if (want[0] > DISPATCH_MOST - d->n_hand - want[1]) want[0] = DISPATCH_MOST - d->n_hand - want[1];
    if (want[0] + want[1] == 0) return;
    d->waiting = 1;
    d->asked = want[0] + want[1];
    if (d->par.rank) {
        tell(d, WANT, 2, want);
    } else {
        struct peer *self = &d->peers[0];
        self->wants = 1, self->now = want[0], self->ahead = want[1];
    }
}

int64_t dispatch_next(struct dispatch *d, int64_t n_free, int64_t *items) {
    watch(d);
    if (d->par.rank) receive(d);
    else serve(d);
    if (d->outcome) d->n_hand = 0; /* left for the next run */
    int64_t n = d->n_hand < n_free ? d->n_hand : n_free;
    if (n < 0) n = 0;
    memcpy(items, d->hand, (size_t)n * sizeof *items);
    d->n_hand -= n;
    memmove(d->hand, d->hand + n, (size_t)d->n_hand * sizeof *d->hand);
    if (d->ended) return n;
    if (d->recalled && !d->handed_back) hand_back(d);
    if (!d->waiting) ask(d, n_free > n ? n_free - n : 0);
    return n;
}

int64_t dispatch_wait(struct dispatch *d, int64_t n_free, int64_t *items) {
    PVA_ASSERT(n_free >= 1);
    for (long pause = 20000;; nap(&pause)) {
        int64_t n = dispatch_next(d, n_free, items);
        if (n || dispatch_finished(d)) return n;
    }
}

int dispatch_finished(const struct dispatch *d) { return d->ended && d->n_hand == 0; }
int dispatch_stopping(const struct dispatch *d) { return d->outcome != 0; }

static void close_root(struct dispatch *d) {
    int others = d->par.size - 1;
    for (long pause = 20000; d->n_leaving < others; nap(&pause)) {
        watch(d); /* a rank that still computes must hear of it */
        serve(d);
    }
    d->released = 1;
    d->release[0] = RELEASE;
    d->release[1] = d->outcome;
    for (int r = 1; r <= others; r++) to_rank(d, r, d->release, 2, &d->peers[r].release_sent);
    for (long pause = 20000; serve(d), d->n_bye < others;) nap(&pause);
    for (int r = 1; r <= others; r++) {
        struct peer *peer = &d->peers[r];
        MPI_Request *sent[] = {&peer->items_sent, &peer->recall_sent, &peer->end_sent[0], &peer->end_sent[1],
                               &peer->release_sent};
        for (int i = 0; i < 5; i++) par_wait(&d->par, sent[i]);
    }
}

static void close_other(struct dispatch *d) {
    tell(d, LEAVING, 0, NULL);
    for (long pause = 20000; !receive(d); nap(&pause)) watch(d);
    tell(d, BYE, 0, NULL);
    for (int i = 0; i < TO_ROOT_KINDS; i++) par_wait(&d->par, &d->message_sent[i]);
}

int dispatch_close(struct dispatch **dispatch) {
    struct dispatch *d = *dispatch;
    *dispatch = NULL;
    if (!d) return DISPATCH_COMPLETE;
    if (!dispatch_finished(d)) dispatch_stop(d);
    if (d->par.rank) close_other(d);
    else close_root(d);
    int outcome = d->outcome;
    MPI_Comm_free(&d->par.comm);
    free(d->peers);
    free(d);
    return outcome;
}
