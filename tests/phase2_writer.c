/* phase2_writer: a run with a phase 1 whose answer is known, and autoencoders for it; and the comparison of phase 2's files with sums taken here.
 *   phase2_writer make RUN SAES [VARIANT]   one-class, zero, unfinished, nan: what to make of it; pile: also a pile.h5
 *   phase2_writer check RUN [pile]          phase2.h5 as phase2_read.h gives it, against plain loops over the activations
 *
 * Latents 0..23 of a layer read one coordinate of the stream each, 24..47 its negative, 48..63 sums of four. The stream is noise, but for two coordinates: in
 * layer 2 coordinate 5 is 2 on nine of ten problems that pass and on one of ten that fail; in layer 0 coordinate 11 the other way round. */
#include "check.h"

#include "phase1_schema.h"
#include "phase2_read.h"
#include "pile_schema.h"
#include "run.h"

#include "pva/grade.h"
#include "pva/rng.h"
#include "pva/sae.h"
#include "pva/separation.h"
#include "pva/split.h"

#include <sys/stat.h>
#include <zlib.h>

enum { PROBLEMS = 201, LAYERS = 4, D = 24, LATENTS = 64, DOCUMENTS = 400 };
enum { UNGRADED = 7, TOO_LONG = 12 }; /* problems without a verdict */
static const float THRESHOLD = 0.5f;

static double draw(uint32_t a, uint32_t b, uint32_t c) { return pva_rng_uniform(99, PVA_RNG_CONTROL, a, b, c); }

static int correct(int64_t i, const char *variant) { return strcmp(variant, "one-class") && draw(1, 0, (uint32_t)i) < 0.45; }
static uint8_t part(int64_t i) { return i % 10 < 5 ? PVA_SELECTION : i % 10 == 5 ? PVA_TUNING : PVA_VALIDATION; }

static float stream(int64_t i, int layer, int c, const char *variant) {
    int planted = layer == 2 && c == 5 ? 1 : layer == 0 && c == 11 ? -1 : 0;
    if (!strcmp(variant, "zero")) return 0;
    if (!strcmp(variant, "nan") && i == 20 && layer == 1 && c == 3) return NAN;
    if (!planted) return (float)(0.6 * pva_rng_normal(98, PVA_RNG_CONTROL, (uint32_t)i, (uint32_t)layer, (uint32_t)c));
    double u = draw(2, (uint32_t)layer, (uint32_t)i);
    return (correct(i, variant) ? 1 : -1) * planted > 0 ? (u < 0.9 ? 2 + (float)u : 0.1f) : u < 0.1 ? 2 : 0.1f;
}

static float weight(int layer, int c, int latent) {
    if (latent < 2 * D) return latent % D == c ? (latent < D ? 1.0f : -1.0f) : 0;
    if ((layer == 2 && c == 5) || (layer == 0 && c == 11)) return 0;
    return (c * 7 + latent * 3 + layer) % 6 == 0 ? 0.7f : 0;
}

/* ---- an .npz: a zip of .npy files, stored ---- */

struct bytes {
    unsigned char *data;
    size_t n;
};
static void put(struct bytes *b, const void *data, size_t n) {
    CHECK_FATAL((b->data = realloc(b->data, b->n + n + 1)) != NULL);
    memcpy(b->data + b->n, data, n);
    b->n += n;
}
static void number(struct bytes *b, uint64_t v, int n) {
    for (int i = 0; i < n; i++) put(b, &(unsigned char){(unsigned char)(v >> 8 * i)}, 1);
}

static void entry(struct bytes *zip, struct bytes *directory, const char *name, int rows, int columns, const float *values) {
    struct bytes npy = {0};
    char header[129], shape[40];
    snprintf(shape, sizeof shape, rows ? "(%d, %d)" : "(%.0d%d,)", rows, columns);
    int used = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }", shape);
    put(&npy, "\x93NUMPY\x01\x00\x76\x00", 10); /* 118 bytes of header */
    put(&npy, header, (size_t)used);
    for (int i = used; i < 117; i++) put(&npy, " ", 1);
    put(&npy, "\n", 1);
    put(&npy, values, (size_t)(rows ? rows : 1) * (size_t)columns * sizeof *values);
    uint32_t crc = (uint32_t)crc32(0, npy.data, (unsigned)npy.n);
    size_t at = zip->n;
    for (int central = 0; central < 2; central++) {
        struct bytes *b = central ? directory : zip;
        number(b, central ? 0x02014b50 : 0x04034b50, 4);
        if (central) number(b, 20, 2);
        number(b, 20, 2), number(b, 0, 2), number(b, 0, 2), number(b, 0, 2), number(b, 0x21, 2), number(b, crc, 4), number(b, npy.n, 4), number(b, npy.n, 4);
        number(b, strlen(name), 2), number(b, 0, 2);
        if (central) number(b, 0, 2), number(b, 0, 2), number(b, 0, 2), number(b, 0, 4), number(b, at, 4);
        put(b, name, strlen(name));
    }
    put(zip, npy.data, npy.n);
    free(npy.data);
}

static void write_autoencoder(const char *directory, int layer) {
    static float w_enc[D * LATENTS], w_dec[LATENTS * D], b_enc[LATENTS], b_dec[D], threshold[LATENTS];
    struct bytes zip = {0}, list = {0};
    char path[512];
    for (int j = 0; j < LATENTS; j++) {
        threshold[j] = THRESHOLD;
        for (int c = 0; c < D; c++) w_enc[c * LATENTS + j] = w_dec[j * D + c] = weight(layer, c, j);
    }
    entry(&zip, &list, "W_dec.npy", LATENTS, D, w_dec), entry(&zip, &list, "W_enc.npy", D, LATENTS, w_enc), entry(&zip, &list, "b_dec.npy", 0, D, b_dec);
    entry(&zip, &list, "b_enc.npy", 0, LATENTS, b_enc), entry(&zip, &list, "threshold.npy", 0, LATENTS, threshold);
    size_t at = zip.n;
    put(&zip, list.data, list.n);
    number(&zip, 0x06054b50, 4), number(&zip, 0, 4), number(&zip, 5, 2), number(&zip, 5, 2), number(&zip, list.n, 4), number(&zip, at, 4), number(&zip, 0, 2);
    static const char *const folders[] = {"", "/layer_%d", "/width_64", "/average_l0_%d"};
    snprintf(path, sizeof path, "%s", directory);
    for (int k = 0; k < 4; k++) {
        size_t used = strlen(path);
        snprintf(path + used, sizeof path - used, folders[k], k == 1 ? layer : 10 + layer);
        mkdir(path, 0777);
    }
    strcat(path, "/params.npz");
    FILE *f = fopen(path, "wb");
    CHECK_FATAL(f && fwrite(zip.data, 1, zip.n, f) == zip.n && fclose(f) == 0);
    free(zip.data), free(list.data);
}

/* ---- phase 1, general text ---- */

static void write_phase1(const struct par *p, const char *run, const char *variant) {
    static char ids[PROBLEMS][PHASE1_TASK_ID];
    static int32_t index[PROBLEMS], difficulty[PROBLEMS];
    static uint8_t parts[PROBLEMS];
    struct pva_error err = {0};
    struct store *s = NULL;
    char path[512];
    for (int i = 0; i < PROBLEMS; i++) snprintf(ids[i], sizeof ids[i], "%d", 600 + i), index[i] = i, difficulty[i] = 1 + i % 5, parts[i] = part(i);
    struct phase1_problems problems = {PROBLEMS, ids, index, parts, difficulty};
    struct phase1_identity id = {.model_sha256 = "m0", .problems_sha256 = "p0", .prompt_template = "pva", .prompt_sha256 = "t0", .operand = "f32", .seed = 42,
                                 .max_tokens = 8, .extraction = "program", .point = PVA_RESID_POST, .positions = "last-prompt", .backend = "cpu", .isa = "c",
                                 .sandbox = "none", .python = "none"};
    struct pva_model_config config = {.n_layers = LAYERS, .d_model = D};
    unsigned char marks[LAYERS] = {1, 1, 1, 1};
    static struct phase1_schema schema;
    phase1_schema_fill(&schema, &id, &problems, &config, marks, PVA_F32);
    snprintf(path, sizeof path, "%s/phase1.h5", run);
    CHECK_OK(store_open(p, path, &schema.store, STORE_FRESH, &s, &err), err);
    for (int i = 0; i < PROBLEMS && s; i++) {
        static float resid[LAYERS][D];
        uint8_t verdict = i == UNGRADED ? PVA_UNGRADED : correct(i, variant) ? PVA_PASS : i % 3 ? PVA_ASSERTION : PVA_EXCEPTION;
        if (!strcmp(variant, "unfinished") && i > 150) continue;
        for (int l = 0; l < LAYERS; l++)
            for (int c = 0; c < D; c++) resid[l][c] = stream(i, l, c, variant);
        CHECK_OK(store_write(s, i, PHASE1_VERDICT, &verdict, &err), err);
        CHECK_OK(store_write(s, i, PHASE1_RESID, resid, &err), err);
        CHECK_OK(store_commit(s, i, i == TOO_LONG ? PHASE1_TOO_LONG : STORE_DONE, &err), err);
    }
    CHECK_OK(store_close(&s, &err), err);
}

/* On general text every third latent fires on 5 % of the documents, the others on 0.5 %. */
static double rate_of(int latent) { return latent % 3 == 0 ? 0.05 : 0.005; }

static void write_pile(const struct par *p, const char *run, const char *saes) {
    static struct pile_schema schema;
    struct pile_identity id = {.model_sha256 = "m0", .pile_sha256 = "g0", .operand = "f32", .backend = "cpu", .seed = 42, .max_tokens = 8, .point = PVA_RESID_POST,
                               .isa = "c"};
    struct pva_error err = {0};
    struct store *s = NULL;
    unsigned char marks[LAYERS] = {1, 1, 1, 1};
    struct pva_sae_file files[LAYERS];
    char path[512];
    pile_layers_schema(&schema, &id, DOCUMENTS, LAYERS, marks, LATENTS, "all");
    snprintf(path, sizeof path, "%s/pile.h5", run);
    CHECK_OK(pva_sae_scan(saes, NULL, NULL, LAYERS, marks, files, &err), err);
    CHECK_OK(store_open(p, path, &schema.store, STORE_FRESH, &s, &err), err);
    for (int l = 0; l < LAYERS && s; l++) {
        int64_t fired[LATENTS];
        char sha256[65];
        struct pva_sae *sae = NULL;
        for (int j = 0; j < LATENTS; j++) fired[j] = (int64_t)(rate_of(j) * DOCUMENTS + 0.5);
        CHECK_OK(pva_sae_open(files[l].path, &sae, &err) || pva_sae_fingerprint(sae, sha256, &err), err);
        pva_sae_close(&sae);
        CHECK_OK(store_write(s, l, PILE_N_FIRED, fired, &err) || store_write(s, l, PILE_SAE_SHA256, sha256, &err) || store_commit(s, l, STORE_DONE, &err), err);
    }
    CHECK_OK(store_close(&s, &err), err);
}

static int make(int argc, char **argv) {
    const char *variant = argc > 4 ? argv[4] : "";
    struct pva_error err = {0};
    struct par p;
    CHECK_OK(par_open(&p, &err), err);
    mkdir(argv[2], 0777);
    write_phase1(&p, argv[2], variant);
    for (int l = 0; l < LAYERS; l++) write_autoencoder(argv[3], l);
    if (!strcmp(variant, "pile")) write_pile(&p, argv[2], argv[3]);
    par_close(&p);
    return check_failures;
}

/* ---- check ---- */

static double activation(int64_t i, int layer, int latent) {
    float z = 0;
    for (int c = 0; c < D; c++) z += stream(i, layer, c, "") * weight(layer, c, latent);
    return z > THRESHOLD ? z : 0;
}

static int same(double a, double b, double tolerance) { return isnan(b) ? isnan(a) : fabs(a - b) <= tolerance * (1 + fabs(b)); }

static void check_latent(const struct phase2_latent *x, int layer, int latent, int pile) {
    struct pva_sums sums[2] = {{0}}, validation[2] = {{0}};
    for (int64_t i = 0; i < PROBLEMS; i++) {
        if (i == UNGRADED || i == TOO_LONG || part(i) == PVA_TUNING) continue;
        struct pva_sums *to = part(i) == PVA_SELECTION ? sums : validation;
        pva_sums_add(&to[!correct(i, "")], activation(i, layer, latent));
    }
    struct pva_welch w = pva_welch(&sums[0], &sums[1]);
    struct pva_separation s = pva_separation(sums[0].n_active, sums[0].n, sums[1].n_active, sums[1].n, 0.95),
                          v = pva_separation(validation[0].n_active, validation[0].n, validation[1].n_active, validation[1].n, 0.95);
    int64_t n_active = sums[0].n_active + sums[1].n_active;
    double mean_active = n_active ? (sums[0].sum + sums[1].sum) / (double)n_active : NAN;
    CHECK_INT(x->layer, layer);
    CHECK_INT(x->latent, latent);
    CHECK(same(x->f_correct, s.f1, 0) && same(x->f_incorrect, s.f2, 0) && same(x->separation, s.score, 0));
    CHECK(same(x->separation_low, s.interval.low, 0) && same(x->separation_high, s.interval.high, 0) && same(x->validation_separation, v.score, 0));
    /* The encoder adds in another order: float32 sums of few terms of the order of 1. */
    CHECK(same(x->mean_correct, pva_sums_mean(&sums[0]), 1e-6) && same(x->mean_incorrect, pva_sums_mean(&sums[1]), 1e-6));
    CHECK(same(x->t, w.t, 1e-5) && same(x->df, w.df, 1e-5) && same(x->p, w.p, 1e-5) && same(x->mean_active, mean_active, 1e-6));
    if (pile) CHECK(same(x->pile_rate, rate_of(latent), 1e-12) && isnan(x->familywise_p) == (latent % 3 == 0) && isnan(x->q) == (latent % 3 == 0));
    else CHECK(isnan(x->pile_rate) && x->familywise_p > 0 && x->familywise_p <= 1 && x->q >= 0 && x->q <= 1);
    int planted = (layer == 2 && latent == 5) || (layer == 0 && latent == 11 && x->separation < 0);
    if (!pile || latent % 3) CHECK_INT(x->familywise_p < 0.05, planted);
}

static void check_run(const char *run, int pile) {
    struct pva_error err = {0};
    struct phase2 *p = NULL;
    struct phase2_latent top[300], *all = NULL;
    int n;
    int64_t n_latents;
    CHECK_OK(phase2_open(run, &p, &err), err);
    CHECK_FATAL(p != NULL);
    for (int l = 0; l < LAYERS; l++) {
        double norm = 0;
        int64_t count = 0;
        CHECK_OK(phase2_layer(p, l, &all, &n_latents, &err), err);
        CHECK_INT(n_latents, LATENTS);
        for (int j = 0; j < LATENTS; j++) {
            struct phase2_latent one;
            check_latent(&all[j], l, j, pile);
            CHECK_OK(phase2_latent(p, l, j, &one, &err), err);
            CHECK(!memcmp(&one, &all[j], sizeof one));
        }
        free(all);
        for (int64_t i = 0; i < PROBLEMS; i++) {
            double sum = 0;
            if (i == UNGRADED || i == TOO_LONG || part(i) != PVA_SELECTION) continue;
            for (int c = 0; c < D; c++) sum += pow(stream(i, l, c, ""), 2);
            norm += sqrt(sum), count++;
        }
        CHECK_NEAR(phase2_mean_norm(p, l), norm / (double)count, 1e-9);
        CHECK_HAS(phase2_sae_path(p, l), "params.npz");
        CHECK_INT(strlen(phase2_sae_fingerprint(p, l)), 64);
    }
    CHECK_TEXT(phase2_alignment(p), "aligned");
    for (int k = 0; k < PHASE2_N_LISTS; k++) {
        double before = INFINITY;
        CHECK_OK(phase2_top(p, (enum phase2_list)k, 300, top, &n, &err), err);
        CHECK(n > 20 && n < LAYERS * LATENTS);
        for (int i = 0; i < n; i++) {
            double score = k < 2 ? top[i].separation : top[i].t;
            if (k % 2) score = -score;
            CHECK(score > 0 && score <= before && (!pile || top[i].latent % 3));
            CHECK(i == 0 || score < before || top[i - 1].layer < top[i].layer || (top[i - 1].layer == top[i].layer && top[i - 1].latent < top[i].latent));
            before = score;
        }
        CHECK_INT(top[0].layer, k % 2 ? 0 : 2);
        CHECK_INT(top[0].latent, k % 2 ? 11 : 5);
        CHECK_OK(phase2_top(p, (enum phase2_list)k, 1, top, &n, &err), err);
        CHECK_INT(n, 1);
    }
    CHECK_INT(phase2_latent(p, 9, 0, top, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "no layer 9");
    err.code = 0;
    CHECK_INT(phase2_latent(p, 0, LATENTS, top, &err), PVA_INPUT);
    CHECK(phase2_sae_path(p, 9) == NULL && isnan(phase2_mean_norm(p, 9)));
    phase2_close(&p);
    CHECK(p == NULL);
    phase2_close(&p);
}

int main(int argc, char **argv) {
    if (argc > 3 && !strcmp(argv[1], "make")) return make(argc, argv);
    if (argc > 2 && !strcmp(argv[1], "check")) {
        check_run(argv[2], argc > 3);
        return check_report("phase2_writer check");
    }
    fprintf(stderr, "phase2_writer make RUN SAES [VARIANT] | check RUN [pile]\n");
    return 2;
}
