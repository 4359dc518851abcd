/* The schedule alone, ranks as numbers: every item exactly once whatever the asking order; longest first; from the slowest. */
#include "check.h"
#include "schedule.h"

static uint64_t random_state = 88172645463325252u;
static uint64_t draw(uint64_t n) {
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return (random_state >> 11) % n;
}

enum costs { EQUAL, RISING, FEW_LONG, ZERO, ONE_HUGE, RANDOM, N_COSTS };

static int64_t cost_of(enum costs kind, int64_t i, int64_t n) {
    switch (kind) {
    case EQUAL: return 100;
    case RISING: return i;
    case FEW_LONG: return i % 20 == 7 ? 2000 : 60;
    case ZERO: return 0;
    case ONE_HUGE: return i == n / 2 ? (int64_t)1 << 40 : 1 + i % 3;
    default: return (int64_t)draw(1000);
    }
}

/* One whole run with the ranks asking in a random order for random amounts. */
static void drain(int64_t n, int ranks, enum costs kind, int done_percent) {
    struct pva_error err = {0};
    struct schedule *s;
    int64_t *cost = malloc((size_t)(n + 1) * sizeof *cost), items[64];
    uint8_t *done = malloc((size_t)(n + 1)), *seen = calloc((size_t)(n + 1), 1);
    int64_t left = 0, total = 0, longest = 0;
    for (int64_t i = 0; i < n; i++) {
        cost[i] = cost_of(kind, i, n);
        done[i] = draw(100) < (uint64_t)done_percent ? (uint8_t)(1 + draw(255)) : 0;
        if (done[i]) continue;
        int64_t c = cost[i] ? cost[i] : 1;
        left++, total += c, longest = c > longest ? c : longest;
    }
    CHECK_OK(schedule_create(n, cost, NULL, done_percent ? done : NULL, ranks, &s, &err), err);
    CHECK_INT(schedule_left(s), left);

    /* Balanced: the fullest shard is within one item of the mean (what dealing to the least loaded guarantees). */
    int64_t sum = 0, most = 0, count = 0;
    for (int r = 0; r < ranks; r++) {
        int64_t w = schedule_shard_work(s, r);
        sum += w, most = w > most ? w : most, count += schedule_shard_left(s, r);
    }
    CHECK_INT(sum, total);
    CHECK_INT(count, left);
    CHECK(most * ranks <= total + longest * (ranks - 1));

    int64_t given = 0, *last = malloc((size_t)ranks * sizeof *last);
    for (int r = 0; r < ranks; r++) last[r] = INT64_MAX;
    for (int rounds = 0; given < left && rounds < 1000000; rounds++) {
        int r = (int)draw((uint64_t)ranks);
        int64_t now = (int64_t)draw(5), ahead = (int64_t)draw(5), before = schedule_left(s);
        int64_t own = schedule_shard_left(s, r), got = schedule_take(s, r, now, ahead, items);
        CHECK(got <= now + ahead && got <= before && (now == 0 || before == 0 || got > 0));
        CHECK(got >= (now < before ? now : before)); /* what can start now is never held back */
        for (int64_t i = 0; i < got; i++) {
            CHECK_FATAL(items[i] >= 0 && items[i] < n);
            CHECK(!seen[items[i]] && !(done_percent && done[items[i]]));
            seen[items[i]] = 1;
            if (i < own) { /* from its own shard: never longer than the one before */
                int64_t c = cost[items[i]] ? cost[items[i]] : 1;
                CHECK(c <= last[r]);
                last[r] = c;
            }
        }
        given += got;
        CHECK_INT(schedule_left(s), before - got);
    }
    CHECK_INT(given, left);
    for (int r = 0; r < ranks; r++) {
        CHECK_INT(schedule_take(s, r, 3, 3, items), 0);
        CHECK_INT(schedule_shard_left(s, r), 0);
        CHECK_INT(schedule_shard_work(s, r), 0);
    }
    schedule_free(&s);
    CHECK(s == NULL);
    free(cost), free(done), free(seen), free(last);
}

static void every_item_once(void) {
    const int64_t counts[] = {0, 1, 2, 3, 7, 16, 63, 64, 65, 974, 5000};
    const int sizes[] = {1, 2, 3, 8, 64, 257};
    for (int c = 0; c < 11; c++)
        for (int z = 0; z < 6; z++)
            for (int kind = 0; kind < N_COSTS; kind++)
                for (int percent = 0; percent <= 100; percent += 50)
                    if (counts[c] < 5000 || kind == RANDOM) drain(counts[c], sizes[z], (enum costs)kind, percent);
}

/* A small case by hand: costs 9 8 7 6 5 4 3 2 1 on three ranks. */
static void by_hand(void) {
    const int64_t cost[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    struct pva_error err = {0};
    struct schedule *s;
    int64_t items[9];
    CHECK_OK(schedule_create(9, cost, NULL, NULL, 3, &s, &err), err);
    /* Dealt: 9|8|7 -> 6 to the 7, 5 to the 8, 4 to the 9 (13 each) -> 3, 2, 1 to ranks 0, 1, 2. */
    CHECK_INT(schedule_shard_work(s, 0), 16);
    CHECK_INT(schedule_shard_work(s, 1), 15);
    CHECK_INT(schedule_shard_work(s, 2), 14);
    CHECK_INT(schedule_take(s, 1, 3, 0, items), 3);
    CHECK(items[0] == 7 && items[1] == 4 && items[2] == 1); /* 8 5 2: its own, longest first */
    CHECK_INT(schedule_take(s, 2, 1, 0, items), 1);
    CHECK_INT(items[0], 6);
    /* Rank 1 is done. Work left: 16, 0, 7. It takes 9 from rank 0 (left 7), then 4 (a tie: the lower rank), then 6 from rank 2.
     */
    CHECK_INT(schedule_take(s, 1, 3, 0, items), 3);
    CHECK(items[0] == 8 && items[1] == 3 && items[2] == 5);
    CHECK_INT(schedule_shard_work(s, 0), 3);
    CHECK_INT(schedule_shard_work(s, 2), 1);
    CHECK_INT(schedule_take(s, 2, 9, 9, items), 2); /* its own 1, then rank 0's 3 */
    CHECK(items[0] == 0 && items[1] == 2);
    CHECK_INT(schedule_take(s, 0, 1, 1, items), 0);
    schedule_free(&s);
}

/* A rank without work always takes from the shard with the most left. */
static void from_the_slowest(void) {
    enum { N = 2000, RANKS = 16 };
    int64_t cost[N], items[4];
    struct pva_error err = {0};
    struct schedule *s;
    for (int i = 0; i < N; i++) cost[i] = 1 + (int64_t)draw(500);
    CHECK_OK(schedule_create(N, cost, NULL, NULL, RANKS, &s, &err), err);
    int steals = 0;
    while (schedule_left(s)) {
        int r = draw(3) ? (int)draw(4) : (int)draw(RANKS); /* ranks 0 to 3 are fast */
        int64_t work[RANKS], most = 0;
        for (int i = 0; i < RANKS; i++) work[i] = schedule_shard_work(s, i), most = work[i] > most ? work[i] : most;
        int64_t own = schedule_shard_left(s, r);
        CHECK_INT(schedule_take(s, r, 1, 0, items), 1);
        for (int i = 0; i < RANKS; i++) {
            int64_t taken = work[i] - schedule_shard_work(s, i);
            if (!taken) continue;
            CHECK_INT(taken, cost[items[0]]);
            CHECK(own ? i == r : work[i] == most);
        }
        steals += !own;
    }
    CHECK(steals > 100);
    schedule_free(&s);
}

/* Ahead: from the own shard only, and not when items are scarce. */
static void ahead(void) {
    int64_t cost[40] = {0}, items[99];
    struct pva_error err = {0};
    struct schedule *s;
    CHECK_OK(schedule_create(40, cost, NULL, NULL, 4, &s, &err), err); /* rank r has r, r + 4, ... */
    CHECK_INT(schedule_take(s, 0, 2, 5, items), 7);
    for (int i = 0; i < 7; i++) CHECK_INT(items[i], 4 * i);
    CHECK_INT(schedule_take(s, 0, 5, 5, items), 5); /* three of its own, two of others: none ahead */
    CHECK(items[2] == 36 && items[3] == 1 && items[4] == 2);
    CHECK_INT(schedule_take(s, 0, 0, 5, items), 0); /* its shard is empty: it gets only what it can start */
    CHECK_INT(schedule_take(s, 1, 9, 4, items), 9);
    CHECK_INT(schedule_take(s, 2, 1, 99, items), 9); /* 18 left after the one */
    CHECK_INT(schedule_shard_left(s, 3), 10);
    CHECK_INT(schedule_take(s, 3, 6, 0, items), 6);
    CHECK(!schedule_scarce(s));
    CHECK_INT(schedule_take(s, 3, 1, 3, items), 1); /* three left are too few for four ranks */
    CHECK(schedule_scarce(s));
    CHECK_INT(schedule_take(s, 3, 0, 3, items), 0);
    CHECK_INT(schedule_take(s, 2, 9, 9, items), 3);
    schedule_free(&s);
}

/* What is put back is given again: longest first, to whoever asks; as often as that happens. */
static void put_back(void) {
    enum { N = 200 };
    int64_t cost[N], items[N], hold[N];
    int given[N] = {0}, returned[N] = {0};
    struct pva_error err = {0};
    struct schedule *s;
    for (int i = 0; i < N; i++) cost[i] = 1 + (int64_t)draw(50);
    CHECK_OK(schedule_create(N, cost, NULL, NULL, 3, &s, &err), err);
    CHECK_INT(schedule_take(s, 0, N, 0, hold), N);
    CHECK_INT(schedule_left(s), 0);
    schedule_put_back(s, 0, hold);
    CHECK_INT(schedule_left(s), 0);
    schedule_put_back(s, N, hold);
    CHECK_INT(schedule_left(s), N);
    CHECK_INT(schedule_take(s, 1, N, 0, items), N);
    for (int i = 1; i < N; i++)
        CHECK(cost[items[i]] < cost[items[i - 1]] || (cost[items[i]] == cost[items[i - 1]] && items[i] > items[i - 1]));
    schedule_free(&s);

    CHECK_OK(schedule_create(N, cost, NULL, NULL, 3, &s, &err), err);
    for (int round = 0; schedule_left(s) > 0 && round < 100000; round++) {
        int64_t left = schedule_left(s), n = schedule_take(s, (int)draw(3), 1 + (int64_t)draw(6), (int64_t)draw(6), items);
        CHECK(n > 0);
        for (int64_t i = 0; i < n; i++) given[items[i]]++;
        int64_t back = round < 500 ? (int64_t)draw((uint64_t)n + 1)
                                   : 0; /* the last ones it got, as a rank does with what it has not started */
        for (int64_t i = n - back; i < n; i++) returned[items[i]]++;
        schedule_put_back(s, back, items + n - back);
        CHECK_INT(schedule_left(s), left - n + back);
    }
    int64_t work = 0, twice = 0;
    for (int r = 0; r < 3; r++) work += schedule_shard_work(s, r);
    CHECK_INT(work, 0);
    for (int i = 0; i < N; i++) {
        CHECK_INT(given[i], returned[i] + 1);
        twice += given[i] > 1;
    }
    CHECK(twice > 10);
    schedule_free(&s);
}

/* Groups stay together, in the order of their longest items, and are cut only where they are large for a shard. */
static void groups(void) {
    enum { GROUPS = 60, EACH = 20, N = GROUPS * EACH };
    int64_t cost[N], group[N], items[N];
    struct pva_error err = {0};
    struct schedule *s;
    for (int ranks = 1; ranks <= 64; ranks *= 4) {
        int64_t total = 0;
        for (int i = 0; i < N; i++) group[i] = i * 7 % GROUPS, cost[i] = 10 + group[i] * 13 % 40, total += cost[i]; /* of a group equal, as of a problem */
        CHECK_OK(schedule_create(N, cost, group, NULL, ranks, &s, &err), err);
        int64_t meetings = 0, most = 0; /* (group, shard) pairs */
        for (int r = 0; r < ranks; r++) most = schedule_shard_work(s, r) > most ? schedule_shard_work(s, r) : most;
        CHECK(most * ranks <= total + total / 8 + 50 * ranks);
        for (int r = 0; r < ranks; r++) {
            int64_t n = schedule_take(s, r, schedule_shard_left(s, r), 0, items), seen[GROUPS] = {0};
            for (int64_t i = 0; i < n; i++) {
                int64_t g = group[items[i]];
                if (i && g == group[items[i - 1]]) continue;
                CHECK_INT(seen[g]++, 0); /* not left and come back to */
                CHECK(!i || cost[items[i]] <= cost[items[i - 1]]);
                meetings++;
            }
        }
        CHECK_INT(schedule_left(s), 0);
        CHECK(ranks > 1 || meetings == GROUPS);
        CHECK(ranks > 4 || meetings <= GROUPS + 4); /* 15 groups a rank: hardly one is more than an eighth */
        CHECK(ranks > 16 || meetings <= N / 5); /* an eighth is five items or more */
        schedule_free(&s);
    }
}

static void mistakes(void) {
    struct pva_error err = {0};
    struct schedule *s = (struct schedule *)&err;
    int64_t negative[2] = {4, -1}, huge[2] = {INT64_MAX / 2, INT64_MAX / 2};
    CHECK_INT(schedule_create(2, negative, NULL, NULL, 2, &s, &err), PVA_INPUT);
    CHECK(s == NULL);
    CHECK_HAS(err.msg, "item 1 costs -1");
    err.code = 0;
    CHECK_INT(schedule_create(2, huge, NULL, NULL, 2, &s, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "sum");
    err.code = 0;
    uint8_t done[2] = {0, 1};
    CHECK_OK(schedule_create(2, negative, NULL, done, 2, &s, &err), err); /* the cost of what is done does not matter */
    CHECK_INT(schedule_left(s), 1);
    schedule_free(&s);
    schedule_free(&s);
}

int main(void) {
    every_item_once();
    by_hand();
    from_the_slowest();
    ahead();
    put_back();
    groups();
    mistakes();
    return check_report("test_schedule");
}
