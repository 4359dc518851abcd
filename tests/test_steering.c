/* The counts of steering and their statistics, against scipy and statsmodels (tests/golden/steering.json), the original's published counts among them. */
#include "check.h"

#include "pva/direction.h"
#include "pva/paired.h"
#include "pva/steering.h"
#include "pva/threshold.h"

#include <jansson.h>

static json_t *golden(void) {
    char path[4096];
    json_error_t why;
    const char *source = getenv("PVA_TEST_SOURCE");
    snprintf(path, sizeof path, "%s/tests/golden/steering.json", source ? source : ".");
    json_t *o = json_load_file(path, 0, &why);
    CHECK(o != NULL);
    return o;
}

static double number(const json_t *row, const char *name) { return json_number_value(json_object_get(row, name)); }

static void check_close(double actual, double expected) { CHECK_NEAR(actual, expected, 1e-9 * fabs(expected)); }

static void test_effects(const json_t *o) {
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(o, "effects"), i, row) {
        /* The pooled counts decide; how they are spread over arms decides the rank alone. */
        int64_t k = (int64_t)number(row, "k"), n = (int64_t)number(row, "n"), ck = (int64_t)number(row, "control_k"), cn = (int64_t)number(row, "control_n");
        int64_t arm_k[3] = {ck / 3, ck / 3, ck - 2 * (ck / 3)}, arm_n[3] = {cn / 3, cn / 3, cn - 2 * (cn / 3)};
        struct pva_error err = {0};
        struct pva_effect e;
        CHECK_INT(pva_effect(k, n, arm_k, arm_n, 3, 0.95, 0.05, 0.8, &e, &err), 0);
        CHECK_INT(e.control_k, ck);
        CHECK_INT(e.control_n, cn);
        check_close(e.p0, number(row, "p0"));
        check_close(e.p_binomial, number(row, "p_binomial"));
        check_close(e.p_fisher, number(row, "p_fisher"));
        check_close(e.interval.low, number(row, "low"));
        check_close(e.interval.high, number(row, "high"));
        check_close(e.difference.low, number(row, "difference_low"));
        check_close(e.difference.high, number(row, "difference_high"));
        CHECK(e.p_rank >= 0.25 && e.p_rank <= 1);
        CHECK(isnan(e.mde) || e.mde > e.p0);
    }
    CHECK(i >= 7);
    json_array_foreach(json_object_get(o, "pairs"), i, row) {
        int64_t gained = (int64_t)number(row, "gained"), lost = (int64_t)number(row, "lost");
        check_close(pva_pairs_mcnemar(gained, lost, PVA_TWO_SIDED), number(row, "p"));
        check_close(pva_pairs_mcnemar_mid_p(gained, lost, PVA_TWO_SIDED), number(row, "mid_p"));
    }
    CHECK(i >= 7);
}

/* What the original printed. */
static void test_published(void) {
    struct pva_error err = {0};
    struct pva_effect e;
    int64_t k = 22, n = 116;
    CHECK_INT(pva_effect(97, 116, &k, &n, 1, 0.95, 0.05, 0.8, &e, &err), 0);
    CHECK_NEAR(100 * e.rate, 83.62, 0.005);
    CHECK_NEAR(100 * e.control_rate, 18.97, 0.005);
    CHECK_NEAR(e.p_binomial, 5e-51, 0.5e-51);
    CHECK_NEAR(e.p_rank, 0.5, 0); /* one control: no rank can be smaller */
    k = 15, n = 272;
    CHECK_INT(pva_effect(6, 272, &k, &n, 1, 0.95, 0.05, 0.8, &e, &err), 0);
    CHECK_NEAR(100 * e.rate, 2.21, 0.005);
    CHECK_NEAR(100 * e.control_rate, 5.51, 0.005);
    CHECK_NEAR(e.p_binomial, 0.998, 0.0005);
    CHECK_NEAR(pva_baseline(272, 388).f1_always_positive, 0.8242, 5e-5);
    CHECK_NEAR(pva_baseline(116, 388).f1_always_positive, 0.4603, 5e-5);
    /* Two controls, none of which changed anything: what was printed as p < .001 */
    int64_t none[2] = {0, 0}, one[2] = {1, 1};
    CHECK_INT(pva_effect(11, 272, none, one, 2, 0.95, 0.05, 0.8, &e, &err), 0);
    CHECK_NEAR(e.p0, 1.0 / 3, 1e-15);
    CHECK(e.p_binomial > 0.99 && e.p_fisher > 0.9);
    CHECK_INT(pva_effect(11, 272, none, none, 2, 0.95, 0.05, 0.8, &e, &err), 0); /* no controls at all */
    CHECK(isnan(e.p_binomial) && isnan(e.p_rank) && isnan(e.control_rate) && e.n_controls == 0);
    CHECK_INT(pva_effect(0, 0, &k, &n, 1, 0.95, 0.05, 0.8, &e, &err), 0); /* nothing to change */
    CHECK(isnan(e.rate) && isnan(e.p_binomial) && e.interval.low == 0 && e.interval.high == 1);
}

static void test_similarity(void) {
    const int32_t a[] = {1, 2, 3, 4, 5, 6, 7}, b[] = {1, 2, 9, 4, 6, 7, 8}, none[] = {0};
    CHECK_NEAR(pva_token_similarity(a, 7, a, 7), 1, 0);
    CHECK_NEAR(pva_token_similarity(none, 0, none, 0), 1, 0);
    CHECK_NEAR(pva_token_similarity(a, 7, none, 0), 0, 0);
    /* replace 3 by 9, drop 5, add 8 */
    CHECK_NEAR(pva_token_similarity(a, 7, b, 7), 1 - 3.0 / 7, 1e-15);
    CHECK_NEAR(pva_token_similarity(b, 7, a, 7), 1 - 3.0 / 7, 1e-15);
    CHECK_NEAR(pva_token_similarity(a, 4, a, 7), 4.0 / 7, 1e-15);
    CHECK_NEAR(pva_token_similarity(a, 7, a + 3, 4), 4.0 / 7, 1e-15);
    /* kitten, sitting: the textbook's 3 of 7 */
    const int32_t kitten[] = {'k', 'i', 't', 't', 'e', 'n'}, sitting[] = {'s', 'i', 't', 't', 'i', 'n', 'g'};
    CHECK_NEAR(pva_token_similarity(kitten, 6, sitting, 7), 1 - 3.0 / 7, 1e-15);
    CHECK(pva_token_similarity(a, 7, b, 7) < 1); /* 1 means the same, nothing else does */
}

static void test_counts(void) {
    const unsigned char before[] = {0, 0, 1, 1, 2, 0, 9}, after[] = {0, 1, 0, 7, 2, 0, 0}, degenerate[] = {0, 0, 0, 1, 0, 0, 1}, used[] = {1, 1, 1, 1, 1, 0, 1};
    const double similarity[] = {1, 0.5, 0.25, 0, 1, 1, 1};
    struct pva_steering_counts c = pva_steering_count(used, before, after, degenerate, similarity, 7);
    CHECK_INT(c.n, 5); /* one is not used, one has no valid verdict */
    CHECK_INT(c.pairs.both, 1);
    CHECK_INT(c.pairs.lost, 1);
    CHECK_INT(c.pairs.gained, 1);
    CHECK_INT(c.pairs.neither, 2);
    CHECK_INT(c.degenerate, 1);
    CHECK_INT(c.same, 2);
    CHECK_NEAR(c.similarity, 2.75 / 5, 1e-15);
    CHECK_NEAR(c.similarity_passing, 0.75, 1e-15);
    CHECK_NEAR(c.similarity_failing, 1.25 / 3, 1e-15);
    CHECK_INT(c.shift[PVA_ASSERTION][PVA_NO_CODE], 1);
    CHECK_INT(c.shift[PVA_PASS][PVA_ASSERTION], 1);
    c = pva_steering_count(NULL, before, after, degenerate, similarity, 0);
    CHECK(c.n == 0 && isnan(c.similarity));
}

static void test_directions(void) {
    struct pva_error err = {0};
    struct pva_direction a, b;
    const float values[] = {3, 0, -4}, zero[3] = {0}, broken[] = {1, NAN, 0};
    CHECK_INT(pva_direction_from_values(values, 3, 7, "probe", &a, &err), 0);
    CHECK_NEAR(a.length, 5, 0);
    CHECK(a.unit[0] == 0.6f && a.unit[1] == 0 && a.unit[2] == -0.8f && a.sign == 1 && a.layer == 7);
    CHECK_TEXT(a.name, "probe at L7");
    pva_direction_flip(&a);
    CHECK(a.unit[0] == -0.6f && a.sign == -1);
    CHECK_TEXT(a.name, "-probe at L7");
    pva_direction_flip(&a);
    CHECK_TEXT(a.name, "probe at L7");
    pva_direction_free(&a);
    CHECK_INT(pva_direction_from_values(zero, 3, 0, "v", &a, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "length 0");
    memset(&err, 0, sizeof err);
    CHECK_INT(pva_direction_from_values(broken, 3, 0, "v", &a, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "finite");
    memset(&err, 0, sizeof err);
    /* Random directions: of unit length, the same again, different by number, layer and seed, and about orthogonal. */
    CHECK_INT(pva_direction_random(42, 3, 0, 512, &a, &err), 0);
    CHECK_INT(pva_direction_random(42, 3, 0, 512, &b, &err), 0);
    CHECK(!memcmp(a.unit, b.unit, 512 * sizeof *a.unit));
    pva_direction_free(&b);
    const struct { uint64_t seed; int layer; int64_t number; } others[] = {{43, 3, 0}, {42, 4, 0}, {42, 3, 1}};
    for (int i = 0; i < 3; i++) {
        double dot = 0, square = 0;
        CHECK_INT(pva_direction_random(others[i].seed, others[i].layer, others[i].number, 512, &b, &err), 0);
        for (int j = 0; j < 512; j++) dot += (double)a.unit[j] * b.unit[j], square += (double)b.unit[j] * b.unit[j];
        CHECK_NEAR(square, 1, 1e-6);
        CHECK_NEAR(dot, 0, 0.25); /* standard deviation 1 / sqrt(512) = 0.044 */
        pva_direction_free(&b);
    }
    pva_direction_free(&a);
}

static void refuses(const char *text, const char *part) {
    struct pva_error err = {0};
    struct pva_steer s;
    CHECK_INT(pva_steer_parse(text, &s, &err), PVA_USAGE);
    CHECK_HAS(err.msg, part);
}

static void test_steer_option(void) {
    struct pva_error err = {0};
    struct pva_steer s;
    CHECK_INT(pva_steer_parse("layer=3,latent=17,coefficient=-2.5", &s, &err), 0);
    CHECK(s.layer == 3 && s.latent == 17 && s.coefficient == -2.5 && s.scale == 1 && s.units == PVA_UNITS_RAW && s.positions == PVA_POSITIONS_ALL && s.sign == 1);
    CHECK_INT(pva_steer_parse("vector=a.npy,positions=last,layer=0,units=norm,scale=40,coefficient=1,sign=-1", &s, &err), 0);
    CHECK(s.latent == -1 && !strcmp(s.path, "a.npy") && s.scale == 40 && s.positions == PVA_POSITIONS_LAST && s.sign == -1);
    CHECK_INT(pva_steer_parse("layer=1,latent=0,mode=ablate", &s, &err), 0);
    CHECK(s.action == PVA_HOOK_ABLATE);
    refuses("latent=1,coefficient=1", "layer=L is missing");
    refuses("layer=1,coefficient=1", "one of them");
    refuses("layer=1,latent=1,vector=x,coefficient=1", "one of them");
    refuses("layer=1,latent=1", "coefficient=C is missing");
    refuses("layer=1,latent=1,coefficient=nan", "a number is expected");
    refuses("layer=1,latent=1,coefficient=1x", "a number is expected");
    refuses("layer=-1,latent=1,coefficient=1", "whole number");
    refuses("layer=1,latent=1.5,coefficient=1", "whole number");
    refuses("layer=1,layer=2,latent=1,coefficient=1", "twice");
    refuses("layer=1,latent=1,coefficient=1,colour=red", "unknown");
    refuses("layer=1,latent=1,coefficient=1,units=norm", "needs scale");
    refuses("layer=1,latent=1,coefficient=1,scale=2", "scale belongs");
    refuses("layer=1,latent=1,coefficient=1,positions=last-generated", "all, last or generated");
    refuses("layer=1,latent=1,coefficient=1,mode=push", "add or ablate");
    refuses("layer=1,latent=1,coefficient=1,sign=2", "1 or -1");
    refuses("layer", "KEY=VALUE");
}

int main(void) {
    json_t *o = golden();
    test_effects(o);
    json_decref(o);
    test_published();
    test_similarity();
    test_counts();
    test_directions();
    test_steer_option();
    return check_report("steering");
}
