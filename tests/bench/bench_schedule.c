/* bench_schedule.c - replays completion lengths on many simulated ranks under the real schedule, and says how busy they are.
 *
 *     bench_schedule          all tables          bench_schedule quick      the gates alone, as a test
 *
 * Model. A rank decodes up to B sequences at once; a step gives each of them one token and takes the same time however many there
 * are. A finished slot is refilled from what the rank has at hand, which is what mpi/dispatch.c does. A request reaches rank 0
 * after half of `delay` steps (it answers between its own steps), the answer arrives after the other half. The ranks come up to
 * `skew` steps apart.
 *
 * What "busy" means. Nobody knows a completion's length beforehand, so a run ends with a tail in which nothing is left to start
 * and slots run empty one after the other. How long it is depends on the longest completions, not on the schedule: with 974
 * items, a tenfold spread and 64 ranks no schedule keeps all slots full to the end, and with 64 x 16 slots every item starts at
 * once. So several figures are told apart. Unit: slot-steps, ranks x B x steps.
 *
 *   busy     useful / (useful + wasted). Wasted are the slots that stand idle while as many items wait to be started, anywhere.
 *            This is what the schedule answers for: ">= 95 % busy" is a gate on this figure.
 *
 *   ideal    the steps of list scheduling (one queue by expected cost, no messages, each item to the first free slot) over the
 *            steps taken: what messages, shards and items at the wrong rank cost in time. >= 95 % is a gate here too.
 *            Above 100 % another order was luckier.
 *
 *   bound    the least possible number of steps, max(ceil(total / slots), longest), over the steps taken. Only foresight
 *            reaches 100 %: without it, up to one longest completion more is unavoidable (Graham 1969).
 *
 *   raw      useful slot-steps over all until the last rank ends. It cannot exceed total / (slots x longest).
 */
#include "../check.h"
#include "pva/rng.h"
#include "schedule.h"

#include <jansson.h>
#include <time.h>

enum { MOST_ITEMS = 9740, MOST_AHEAD = 512 };

struct load {
    const char *name;
    int64_t n, total, longest;
    int64_t length[MOST_ITEMS]; /* tokens each completion takes */
    int64_t cost[MOST_ITEMS];   /* what the schedule is told */
};

struct setting {
    int ranks, slots, ahead, delay, skew;
    int keep; /* 1: what is at hand is not called back when items are scarce */
    int slow; /* rank 1 takes this many times as long per step */
};

struct figures {
    double busy, raw, bound, ideal, steps;
    int64_t started;
};

/* ---- lengths ---- */

/* MBPP's reference programs and prompts (description and tests), in characters, at quantiles 0, .01, .05, .1, .25, .5, .75, .9,
 * .95, .99, 1: for machines without the file. There the two are drawn independently; in the file their correlation is 0.2. */
static const double quantile_at[] = {0, .01, .05, .1, .25, .5, .75, .9, .95, .99, 1};
static const double code_characters[] = {30, 44, 63, 76, 99, 146, 218, 343, 417, 669, 1331};
static const double prompt_characters[] = {116, 124, 141, 158, 182, 223, 297, 402, 477, 701, 4290};
static const double characters_per_token = 3; /* a scale: it changes no ratio but that to the delay and the 2000-token limit */

static double quantile(const double *value, double q) {
    int i = 0;
    while (i < 9 && q > quantile_at[i + 1]) i++;
    double f = (q - quantile_at[i]) / (quantile_at[i + 1] - quantile_at[i]);
    return exp(log(value[i]) + f * (log(value[i + 1]) - log(value[i])));
}

static int64_t tokens(double characters) { return (int64_t)ceil(characters / characters_per_token); }

static int from_file(struct load *w) {
    const char *shared = getenv("PVA_TEST_SHARED");
    char path[4096], line[65536];
    snprintf(path, sizeof path, "%s/data/mbpp.jsonl", shared ? shared : "../shared");
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    while (w->n < 974 && fgets(line, sizeof line, f)) {
        json_t *o = json_loads(line, 0, NULL), *tests = json_object_get(o, "test_list");
        CHECK_FATAL(o && json_string_value(json_object_get(o, "code")) && json_is_array(tests));
        double prompt = (double)json_string_length(json_object_get(o, "text"));
        for (size_t i = 0; i < json_array_size(tests); i++) prompt += (double)json_string_length(json_array_get(tests, i));
        w->length[w->n] = tokens((double)json_string_length(json_object_get(o, "code")));
        w->cost[w->n++] = tokens(prompt);
        json_decref(o);
    }
    fclose(f);
    return 1;
}

/* times: samples per item. limit_percent: that many of a hundred items run to the limit of 2000 tokens, prompt included. known:
 * the schedule is told the true lengths, as when a run is repeated with a change. */
static struct load *make_load(const char *name, int times, int limit_percent, int known) {
    struct load *w = calloc(1, sizeof *w);
    CHECK_FATAL(w);
    w->name = name;
    if (!from_file(w))
        for (; w->n < 974; w->n++) {
            double a = pva_rng_uniform(1, PVA_RNG_PERMUTATION, (uint32_t)w->n, 0, 0),
                   b = pva_rng_uniform(1, PVA_RNG_PERMUTATION, (uint32_t)w->n, 1, 0);
            w->length[w->n] = tokens(quantile(code_characters, a));
            w->cost[w->n] = tokens(quantile(prompt_characters, b));
        }
    for (int64_t i = 0; i < 974; i++)
        if (pva_rng_uniform(2, PVA_RNG_PERMUTATION, (uint32_t)i, 0, 0) * 100 < limit_percent)
            w->length[i] = 2000 - w->cost[i] % 2000;
    w->n *= times;
    for (int64_t i = 974; i < w->n; i++) w->length[i] = w->length[i - 974], w->cost[i] = w->cost[i - 974];
    for (int64_t i = 0; i < w->n; i++) {
        if (known) w->cost[i] = w->length[i];
        w->total += w->length[i];
        if (w->length[i] > w->longest) w->longest = w->length[i];
    }
    return w;
}

/* ---- the simulation: time in ticks, TICKS to an ordinary step ---- */

enum { TICKS = 10 };

struct rank {
    int64_t begin, period;    /* ticks */
    int64_t left[64];         /* steps each slot still has */
    int64_t hand[MOST_AHEAD]; /* items that wait here */
    int n_hand, n_answer;
    int64_t answer[MOST_AHEAD];    /* on its way */
    int64_t reaches_root, arrives; /* when the request, the answer come in; -1: none under way */
    int64_t hands_back;            /* when what was called back comes in */
    int64_t back[MOST_AHEAD];
    int n_back, running;
    int64_t now, ahead;
};

static int64_t start_of(const struct setting *v, int r, uint64_t seed) {
    return v->skew ? (int64_t)pva_rng_below(seed, PVA_RNG_PERMUTATION, (uint32_t)r, 7, 0, (uint64_t)v->skew * TICKS) : 0;
}

static int fill(struct rank *k, const struct load *w, const struct setting *v, struct figures *out) {
    int running = 0;
    for (int i = 0; i < v->slots; i++) {
        if (!k->left[i] && k->n_hand) {
            k->left[i] = w->length[k->hand[0]];
            memmove(k->hand, k->hand + 1, (size_t)--k->n_hand * sizeof *k->hand);
            out->started++;
        }
        running += k->left[i] > 0;
    }
    return running;
}

/* Rank 0 answers; a request that finds nothing waits there. When little is left it calls back what waits at the ranks. */
static void answer(struct rank *k, int r, struct schedule *s, const struct setting *v, int64_t t, int64_t *recalled) {
    if (k->now && schedule_left(s) == 0) return;
    k->n_answer = (int)schedule_take(s, r, k->now, k->ahead, k->answer);
    k->reaches_root = -1;
    k->arrives = t + (int64_t)v->delay * TICKS - (int64_t)v->delay * TICKS / 2;
    if (*recalled < 0 && schedule_scarce(s) && !v->keep) *recalled = t;
}

static void arrive(struct rank *k) {
    memcpy(k->hand + k->n_hand, k->answer, (size_t)k->n_answer * sizeof *k->answer);
    k->n_hand += k->n_answer;
    k->arrives = -1;
}

/* The border of two steps on a rank: slots end, are filled again, more is asked for. Returns the useful slots of the step that
 * begins. */
static int border(struct rank *k, int r, const struct load *w, struct schedule *s, const struct setting *v, int64_t t,
                  int64_t *recalled, struct figures *out) {
    for (int i = 0; i < v->slots; i++)
        if (k->left[i]) k->left[i]--;
    int running = fill(k, w, v, out);
    if (*recalled >= 0 && k->hands_back < 0 && t >= *recalled + (int64_t)v->delay * TICKS / 2) {
        k->hands_back = t + (int64_t)v->delay * TICKS / 2;
        memcpy(k->back, k->hand, (size_t)k->n_hand * sizeof *k->hand);
        k->n_back = k->n_hand, k->n_hand = 0;
    }
    if (k->reaches_root >= 0 || k->arrives >= 0) return running;
    k->now = v->slots - running, k->ahead = v->ahead > k->n_hand && k->hands_back < 0 ? v->ahead - k->n_hand : 0;
    if (k->now + k->ahead == 0) return running;
    k->reaches_root = t + (int64_t)v->delay * TICKS / 2;
    if (v->delay == 0) {
        answer(k, r, s, v, t, recalled);
        if (k->arrives == t) arrive(k), running = fill(k, w, v, out);
    }
    return running;
}

/* Steps of list scheduling: the items in order of cost, each to the slot that is free first. A heap of the slots' free times. */
static double list_steps(const struct load *w, const struct setting *v, uint64_t seed) {
    struct setting one = *v;
    int n = one.ranks * one.slots;
    int64_t *heap = malloc((size_t)n * sizeof *heap), end = 0, item;
    int *of = malloc((size_t)n * sizeof *of);
    struct schedule *s;
    struct pva_error err = {0};
    CHECK_FATAL(heap && of);
    CHECK_OK(schedule_create(w->n, w->cost, NULL, NULL, 1, &s, &err), err); /* one shard: longest first */
    for (int i = 0; i < n; i++) heap[i] = start_of(v, i % v->ranks, seed), of[i] = i % v->ranks;
    while (schedule_take(s, 0, 1, 0, &item)) {
        int first = 0;
        for (int i = 1; i < n; i++)
            if (heap[i] < heap[first]) first = i;
        heap[first] += w->length[item] * TICKS * (of[first] == 1 && v->slow ? v->slow : 1);
        if (heap[first] > end) end = heap[first];
    }
    schedule_free(&s);
    free(heap), free(of);
    return (double)end / TICKS;
}

static struct figures replay(const struct load *w, const struct setting *v, uint64_t seed) {
    struct figures out = {0};
    struct pva_error err = {0};
    struct schedule *s;
    struct rank *ranks = calloc((size_t)v->ranks, sizeof *ranks);
    CHECK_FATAL(ranks && v->slots <= 64 && v->slots + v->ahead <= MOST_AHEAD);
    CHECK_OK(schedule_create(w->n, w->cost, NULL, NULL, v->ranks, &s, &err), err);
    for (int r = 0; r < v->ranks; r++) {
        ranks[r].begin = start_of(v, r, seed);
        ranks[r].period = TICKS * (r == 1 && v->slow ? v->slow : 1);
        ranks[r].reaches_root = ranks[r].arrives = ranks[r].hands_back = -1;
    }
    double wasted = 0, useful = 0;
    int64_t last = 0, recalled = -1;
    for (int64_t t = 0; out.started < w->n || t <= last; t++) {
        for (int r = 0; r < v->ranks; r++) { /* rank 0's answers */
            struct rank *k = &ranks[r];
            if (k->hands_back == t) schedule_put_back(s, k->n_back, k->back), k->n_back = 0;
            if (k->reaches_root >= 0 && k->reaches_root <= t) answer(k, r, s, v, t, &recalled);
            if (k->arrives >= 0 && k->arrives <= t && t >= k->begin) arrive(k);
        }
        int64_t idle = 0;
        for (int r = 0; r < v->ranks; r++) {
            struct rank *k = &ranks[r];
            if (t < k->begin) continue; /* not there yet: no fault of the schedule */
            if ((t - k->begin) % k->period == 0) {
                k->running = border(k, r, w, s, v, t, &recalled, &out);
                if (k->running && t + k->period > last) last = t + k->period;
            }
            useful += k->running;
            idle += v->slots - k->running;
        }
        wasted += (double)(idle < w->n - out.started ? idle : w->n - out.started);
    }
    CHECK_INT(out.started, w->n);
    CHECK_INT(schedule_left(s), 0);
    double capacity = (double)v->ranks * v->slots, total = (double)w->total;
    double least = ceil(total / capacity) > (double)w->longest ? ceil(total / capacity) : (double)w->longest;
    if (!v->slow) CHECK(useful == total * TICKS);
    out.steps = (double)last / TICKS;
    out.busy = useful / (useful + wasted);
    out.raw = useful / (capacity * (double)last);
    out.bound = least / out.steps;
    out.ideal = list_steps(w, v, seed) / out.steps;
    schedule_free(&s);
    free(ranks);
    return out;
}

/* The mean over several starts. */
static struct figures mean(const struct load *w, const struct setting *v, int starts) {
    struct figures m = {0};
    for (int i = 0; i < starts; i++) {
        struct figures f = replay(w, v, (uint64_t)i);
        m.busy += f.busy / starts, m.raw += f.raw / starts, m.bound += f.bound / starts, m.ideal += f.ideal / starts,
            m.steps += f.steps / starts;
    }
    return m;
}

static void row(const struct load *w, struct setting v, int starts) {
    struct figures f = mean(w, &v, starts);
    printf("%-22s %5lld %4d %4d %5d %5d %4d %4s  %7.0f  %5.1f  %5.1f  %5.1f  %5.1f\n", w->name, (long long)w->n, v.ranks, v.slots,
           v.ahead, v.delay, v.skew, v.keep ? "yes" : "", f.steps, 100 * f.busy, 100 * f.raw, 100 * f.bound, 100 * f.ideal);
}

static void heading(const char *title) {
    printf("\n%s\n%-22s %5s %4s %4s %5s %5s %4s %4s  %7s  %5s  %5s  %5s  %5s\n", title, "lengths", "items", "rank", "B", "ahead",
           "delay", "skew", "keep", "steps", "busy", "raw", "bound", "ideal");
}

static void tables(struct load **w, int n) {
    heading("From 15 items per slot to fewer than one");
    for (int i = 0; i < n; i++)
        for (int slots = 1; slots <= 16; slots *= 2)
            row(w[i], (struct setting){.ranks = 64, .slots = slots, .ahead = slots / 4 + 1, .delay = 2, .skew = 20}, 4);
    heading("How many to have ahead, by the delay of an answer");
    const int delays[] = {1, 2, 5, 10, 20};
    for (int i = 0; i < 5; i++)
        for (int ahead = 0; ahead <= 8; ahead = ahead ? 2 * ahead : 1)
            row(w[0], (struct setting){.ranks = 64, .slots = 4, .ahead = ahead, .delay = delays[i]}, 1);
    heading("Calling back what is at hand, or not");
    for (int slots = 1; slots <= 4; slots *= 2)
        for (int keep = 0; keep <= 1; keep++)
            row(w[1], (struct setting){.ranks = 64, .slots = slots, .ahead = slots, .delay = 2, .keep = keep}, 1);
    heading("One rank three times as slow; more ranks");
    row(w[0], (struct setting){.ranks = 64, .slots = 2, .ahead = 1, .delay = 2, .slow = 3}, 1);
    row(w[n - 1], (struct setting){.ranks = 64, .slots = 8, .ahead = 3, .delay = 2, .slow = 3}, 1);
    row(w[n - 1], (struct setting){.ranks = 256, .slots = 8, .ahead = 3, .delay = 2, .skew = 20}, 1);
}

/* The gates: 95 % busy while there is anything to start, and 95 % of what one ideal queue would reach. */
static void gates(struct load **w, int n) {
    for (int i = 0; i < n; i++)
        for (int slots = 1; slots <= 16; slots *= 4) {
            struct setting v = {.ranks = 64, .slots = slots, .ahead = slots / 4 + 1, .delay = 2, .skew = 0};
            struct figures f = mean(w[i], &v, 1);
            printf("%s, %lld items, 64 ranks x %d: busy %.1f %%, ideal %.1f %%, bound %.1f %%, raw %.1f %%\n", w[i]->name,
                   (long long)w[i]->n, slots, 100 * f.busy, 100 * f.ideal, 100 * f.bound, 100 * f.raw);
            CHECK(f.busy >= 0.95);
            CHECK(f.ideal >= 0.95);
        }
}

/* The figures themselves must be right where they are known. */
static void known_cases(void) {
    struct load *w = calloc(1, sizeof *w);
    CHECK_FATAL(w);
    w->n = 64, w->total = 640, w->longest = 10;
    for (int i = 0; i < 64; i++) w->length[i] = w->cost[i] = 10;
    struct setting v = {.ranks = 8, .slots = 2};
    struct figures f = replay(w, &v, 0); /* 64 equal items on 16 slots: four waves, no delay */
    CHECK_NEAR(f.steps, 40, 1e-9);
    CHECK_NEAR(f.raw, 1, 1e-9);
    CHECK_NEAR(f.bound, 1, 1e-9);
    CHECK_NEAR(f.ideal, 1, 1e-9);
    v.delay = 4; /* nothing ahead: four steps lost in each wave */
    f = replay(w, &v, 0);
    CHECK_NEAR(f.steps, 56, 1e-9);
    CHECK_NEAR(f.raw, 640.0 / (56 * 16), 1e-9);
    CHECK_NEAR(f.busy, 640.0 / 896, 1e-9); /* 4 steps x 16 slots x 4 waves, each time with 16 items waiting or more */
    v.ahead = 2; /* two at hand: only the first wave waits, and the last, whose items have been called back */
    f = replay(w, &v, 0);
    CHECK_NEAR(f.steps, 48, 1e-9);
    w->length[63] = 400, w->cost[63] = 0, w->total += 390, w->longest = 400; /* one long item, last in the queue */
    v.delay = v.ahead = 0;
    f = replay(w, &v, 0);
    CHECK_NEAR(f.steps, 430, 1e-9);
    CHECK_NEAR(f.bound, 400.0 / 430, 1e-9);
    CHECK_NEAR(f.raw, 1030.0 / (430 * 16), 1e-9);
    CHECK_NEAR(f.busy, 1, 1e-9);
    free(w);
}

int main(int argc, char **argv) {
    int quick = argc > 1 && strcmp(argv[1], "quick") == 0;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    double began = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    struct load *w[] = {make_load("mbpp", 1, 0, 0), make_load("mbpp, 5% at limit", 1, 5, 0), make_load("mbpp, known", 1, 0, 1),
                        make_load("5% at limit, known", 1, 5, 1), make_load("mbpp x10, 5% at limit", 10, 5, 0)};
    int n = (int)(sizeof w / sizeof *w);
    for (int i = 0; i < n; i++)
        printf("%s: %lld items, mean %.1f tokens, longest %lld\n", w[i]->name, (long long)w[i]->n,
               (double)w[i]->total / (double)w[i]->n, (long long)w[i]->longest);
    known_cases();
    gates(w, n);
    if (!quick) tables(w, n);
    for (int i = 0; i < n; i++) free(w[i]);
    clock_gettime(CLOCK_MONOTONIC, &t);
    printf("%.1f s\n", (double)t.tv_sec + 1e-9 * (double)t.tv_nsec - began);
    return check_report("bench_schedule");
}
