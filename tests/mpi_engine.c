/* Opening a model on several ranks: float32 weights used as bfloat16 are converted once per node, and give the logits of a model
 * opened alone, bit for bit. Failures reach every rank with one message. */
#include "check.h"
#include "commands.h"
#include "engine.h"

#include "pva/session.h"
#include "pva/synth.h"

#include <dirent.h>
#include <unistd.h>

enum { N = 9, VOCAB = 120 };

static void logits_of(const struct engine *e, float *out, struct pva_error *err) {
    const int32_t tokens[N] = {2, 5, 9, 100, 7, 7, 8, 50, 3}, slots[N] = {0}, rows[N] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    struct pva_session_settings settings = {.n_slots = 1, .max_positions = 16, .max_rows = N, .max_logits = N};
    struct pva_session *s = NULL;
    CHECK_OK(pva_session_open(e->model, &settings, &s, err), *err);
    CHECK_FATAL(s);
    CHECK_INT(pva_session_claim(s), 0);
    CHECK(pva_session_reserve(s, 0, N));
    pva_session_want(s, rows, N, NULL, NULL);
    CHECK_OK(pva_session_append(s, N, tokens, slots, NULL, 0, err), *err);
    CHECK_OK(pva_session_read_logits(s, N, out, err), *err);
    pva_session_close(&s);
}

static int leftovers(void) {
    int n = 0;
    char prefix[64];
    snprintf(prefix, sizeof prefix, "pva-weights-%ld-", (long)getuid());
    DIR *d = opendir("/dev/shm");
    for (struct dirent *e; d && (e = readdir(d));) n += !strncmp(e->d_name, prefix, strlen(prefix));
    if (d) closedir(d);
    return n;
}

int main(void) {
    struct par p;
    struct pva_error err = {0};
    char directory[64] = "/tmp/mpi_engine.XXXXXX", path[128], command[160];
    static float alone[N * VOCAB], shared[N * VOCAB];
    CHECK_OK(par_open(&p, &err), err);
    if (p.rank == 0) {
        struct pva_model_config c;
        struct pva_synth_settings settings = {.dtype = PVA_F32, .seed = 8};
        CHECK_FATAL(mkdtemp(directory));
        CHECK_OK(pva_model_config_preset("gemma-2-2b", &c, &err), err);
        c.n_layers = 2, c.d_model = 40, c.d_ff = 64, c.n_heads = 2, c.n_kv_heads = 1, c.d_head = 16, c.n_vocab = VOCAB, c.max_positions = 64, c.window = 5;
        snprintf(path, sizeof path, "%s/model", directory);
        CHECK_OK(pva_synth_write(&c, path, &settings, &err), err);
    }
    MPI_Bcast(directory, sizeof directory, MPI_CHAR, 0, p.comm);
    snprintf(path, sizeof path, "%s/model", directory);
    const struct pva_option *const tables[] = {pva_engine_options, NULL};
    char *argv[] = {"test", "--model", path, "--threads", "1", NULL};
    struct pva_options *o = NULL;
    CHECK_OK(pva_options_parse("test", tables, 5, argv, &o, &err), err);
    struct engine e;
    CHECK_OK(engine_open(o, 0, &e, &err), err);
    CHECK(pva_model_converted(e.model) > 0);
    logits_of(&e, alone, &err);
    engine_close(&e);
    CHECK_OK(engine_open_shared(&p, o, 0, &e, &err), err);
    CHECK_FATAL(e.model);
    CHECK_INT(pva_model_converted(e.model) > 0, p.local_size == 1);
    logits_of(&e, shared, &err);
    CHECK(!memcmp(alone, shared, sizeof alone));
    engine_close(&e);
    par_barrier(&p);
    CHECK_INT(leftovers(), 0);
    pva_options_free(&o);

    /* A damaged file: every rank gets the message. */
    par_barrier(&p);
    if (p.rank == 0) {
        snprintf(command, sizeof command, "truncate -s -4 %s/model/model.safetensors", directory);
        CHECK_INT(system(command), 0);
    }
    par_barrier(&p);
    CHECK_OK(pva_options_parse("test", tables, 5, argv, &o, &err), err);
    CHECK_INT(engine_open_shared(&p, o, 0, &e, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "model.safetensors");
    engine_close(&e);
    pva_options_free(&o);
    par_barrier(&p);
    CHECK_INT(leftovers(), 0);

    if (p.rank == 0) {
        snprintf(command, sizeof command, "rm -rf %s", directory);
        CHECK_INT(system(command), 0);
    }
    int rank = p.rank, bad = check_failures, all = 0;
    MPI_Allreduce(&bad, &all, 1, MPI_INT, MPI_SUM, p.comm);
    check_failures = all;
    par_close(&p);
    return rank ? (all > 99 ? 99 : all) : check_report("mpi_engine");
}
