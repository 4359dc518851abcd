/* Decompositions as a whole on the CUDA backend, against the processor: trained parameters, moments, metrics and figures, for every kind of gate and target.
 * Under the shim exp and pow are the processor's, so every bit must be the same; a device's own may differ in the last digits, which a few steps do not blow
 * up. Also restarts, two ranks, and what is refused. */
#include "backend_cuda.h"
#include "scratch.h"
#include "twin.h"

#include "pva/spd.h"
#include "pva/spd_device.h"
#include "pva/tensorfile.h"

#include <sys/socket.h>
#include <sys/wait.h>

static struct pva_error err;
static const struct pva_backend_ops *op;
static struct pva_backend *be;

static void parse(const char *extra, int residual, struct pva_spd_config *c) {
    char text[4000];
    snprintf(text, sizeof text,
             "{C: 6, %s%s lr: 0.01, steps: 3, batch_size: 300, train_log_freq: 1, output_loss_type: mse, eval_freq: 2, eval_batch_size: 24, slow_eval_freq: 2, "
             "n_eval_steps: 2, save_freq: 2, n_examples_until_dead: 1, pretrained_model_class: test, importance_minimality_coeff: 0.02, "
             "target_module_patterns: [%s], task_config: {task_name: %s, feature_probability: 0.3}, ci_alive_threshold: 0.1, "
             "eval_metrics: [{classname: CI_L0}, {classname: CIHistograms}, {classname: UVPlots}], %s}",
             strstr(extra, "gate_type") ? "" : "gate_type: mlp,", strstr(extra, "gate_hidden_dims") ? "" : "gate_hidden_dims: [3],",
             residual ? "layers.*.mlp_in, layers.*.mlp_out" : "linear1, linear2, 'hidden_layers.*'", residual ? "residual_mlp" : "tms", extra);
    CHECK_OK(pva_spd_config_parse(text, "test", NULL, c, &err), err);
    CHECK_FATAL(!err.code);
}

static int stop_at_2(void *user, int64_t step, int64_t steps, double loss, double error) {
    (void)user, (void)steps, (void)loss, (void)error;
    return step == 2;
}

/* on_device: 2: stopped in between. */
static void run(const struct pva_spd_config *c, const struct pva_spd_target *t, const char *name, int on_device, struct pva_spd_result *out) {
    char path[400];
    snprintf(path, sizeof path, "%s", scratch(name));
    mkdir(path, 0777);
    struct pva_spd_settings s = {.directory = path, .name = name, .threads = 2, .resume = 1, .ops = on_device ? op : NULL, .be = on_device ? be : NULL};
    if (on_device == 2) {
        s.progress = stop_at_2;
        CHECK_INT(pva_spd_decompose(c, t, &s, out, &err), PVA_STOPPED);
        err = (struct pva_error){0};
        s.progress = NULL;
    }
    CHECK_OK(pva_spd_decompose(c, t, &s, out, &err), err);
    CHECK_FATAL(!err.code);
}

static const char *in(const char *run, const char *file) {
    char name[150];
    snprintf(name, sizeof name, "%s/%s", run, file);
    return scratch(name);
}

static inline void same_file(const char *a, const char *b, const char *file) {
    size_t n = 0, m = 0;
    char *x = scratch_read(in(a, file), &n), *y = scratch_read(in(b, file), &m);
    CHECK(x && y && n > 0 && n == m && !memcmp(x, y, n));
    free(x), free(y);
}

/* Tensor by tensor of a model file. */
static void near_model(const char *a, const char *b, const char *file) {
    struct pva_tensorfile *f[2];
    for (int i = 0; i < 2; i++) CHECK_OK(pva_tensorfile_open(in(i ? b : a, file), &f[i], &err), err);
    CHECK_FATAL(!err.code);
    for (size_t i = 0; i < pva_tensorfile_count(f[0]); i++) {
        const struct pva_tensor_view *x = pva_tensorfile_at(f[0], i), *y = pva_tensorfile_find(f[1], x->name);
        CHECK_FATAL(y && x->bytes == y->bytes);
        for (size_t k = 0; k < x->bytes / sizeof(float); k++) CHECK_NEAR(((const float *)x->data)[k], ((const float *)y->data)[k], 1e-3);
    }
    for (int i = 0; i < 2; i++) pva_tensorfile_close(&f[i]);
}

enum how { WHOLE, RESTARTED, IN_CHUNKS }; /* in chunks: not all of a share at once, so that sums have another order */

static void check(const char *extra, int residual, int blocks, enum how how) {
    struct pva_spd_config c;
    struct pva_spd_target t;
    struct pva_spd_result cpu, cuda;
    char a[32], b[32];
    static int number;
    snprintf(a, sizeof a, "cpu%d", number), snprintf(b, sizeof b, "cuda%d", number);
    number++;
    parse(extra, residual, &c);
    CHECK_OK(pva_spd_target_random(residual, residual ? 7 : 5, 3, blocks, 9, 11, &t, &err), err);
    run(&c, &t, a, 0, &cpu);
    const struct pva_backend_ops *whole = op;
    struct pva_spd_ops small = *op->spd;
    struct pva_backend_ops chunked = *op;
    small.chunk = 2 * SPD_LANES, chunked.spd = &small;
    if (how == IN_CHUNKS) op = &chunked;
    run(&c, &t, b, how == RESTARTED ? 2 : 1, &cuda);
    op = whole;
#ifdef PVA_SIMT
    if (how != IN_CHUNKS) {
        same_file(a, b, "model_3.safetensors"), same_file(a, b, "model_2.safetensors");
        same_file(a, b, "figures/causal_importance_values_2.csv");
    }
#endif
    near_model(a, b, "model_3.safetensors");
    CHECK_NEAR(cuda.faithfulness, cpu.faithfulness, 1e-3 * cpu.faithfulness);
    CHECK_NEAR(cuda.importance_minimality, cpu.importance_minimality, 1e-3 * cpu.importance_minimality);
    CHECK_NEAR(cuda.stochastic_recon, cpu.stochastic_recon, 1e-3 * cpu.stochastic_recon);
    CHECK(cpu.stochastic_recon > 0 && cpu.faithfulness > 0);
    pva_spd_target_free(&t);
    pva_spd_config_free(&c);
}

/* Two ranks by a pair of sockets: each sends its own and waits for the other's. */
struct two {
    int rank, socket;
};
static int gather_two(void *user, const void *own, size_t bytes, void *all, struct pva_error *e) {
    const struct two *t = user;
    char *place[2] = {all, (char *)all + bytes};
    memcpy(place[t->rank], own, bytes);
    for (int turn = 0; turn < 2; turn++) /* rank 0 sends first: neither waits for room in the socket while the other does */
        for (size_t at = 0; at < bytes;) {
            ssize_t n = turn == t->rank ? write(t->socket, (const char *)own + at, bytes - at) : read(t->socket, place[!t->rank] + at, bytes - at);
            if (n <= 0) return pva_fail(e, PVA_IO, "the other rank is gone");
            at += (size_t)n;
        }
    return PVA_OK;
}

/* The same from two ranks as in the folder that is named. */
static inline void check_ranks(const char *extra, const char *alone) {
    struct pva_spd_config c;
    struct pva_spd_target t;
    struct pva_spd_result out;
    int pair[2], status = 1;
    parse(extra, 0, &c);
    CHECK_OK(pva_spd_target_random(0, 5, 3, 1, 9, 11, &t, &err), err);
    CHECK_FATAL(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    pid_t child = fork();
    CHECK_FATAL(child >= 0);
    struct two two = {child == 0, pair[child == 0]};
    struct pva_spd_ranks ranks = {two.rank, 2, gather_two, &two};
    struct pva_backend *own = NULL;
    CHECK_OK(op->open(&(struct pva_backend_settings){0}, &own, &err), err);
    struct pva_spd_settings s = {.directory = scratch("ranks"), .name = "ranks", .threads = 1, .ranks = &ranks, .ops = op, .be = own};
    mkdir(s.directory, 0777);
    CHECK_OK(pva_spd_decompose(&c, &t, &s, &out, &err), err);
    op->close(&own);
    if (child == 0) _exit(check_failures ? 1 : 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    same_file(alone, "ranks", "model_3.safetensors");
    close(pair[0]), close(pair[1]);
    pva_spd_target_free(&t);
    pva_spd_config_free(&c);
}

static void check_refusals(void) {
    struct pva_spd_config c;
    struct pva_spd_target t;
    struct pva_spd_result out;
    parse("stochastic_recon_coeff: 1, schatten_coeff: 0.1, pnorm: 2", 0, &c);
    CHECK_OK(pva_spd_target_random(0, 5, 3, 1, 9, 11, &t, &err), err);
    const struct pva_spd_settings s = {.directory = scratch("refused"), .name = "x", .threads = 1, .ops = op, .be = be};
    CHECK_INT(pva_spd_decompose(&c, &t, &s, &out, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "schatten_coeff");
    err = (struct pva_error){0};
    pva_spd_target_free(&t);
    pva_spd_config_free(&c);
}

int main(void) {
    twin_start();
    op = pva_backend_cuda_find(&err);
    CHECK_FATAL(op && op->spd);
    scratch_make();
    CHECK_OK(op->open(&(struct pva_backend_settings){0}, &be, &err), err);
    static const char first[] = "faithfulness_coeff: 0.7, stochastic_recon_coeff: 1, stochastic_recon_layerwise_coeff: 1, recon_coeff: 0.5, "
                                "sigmoid_type: leaky_hard, pnorm: 2";
    check(first, 0, 1, RESTARTED);
    check(first, 0, 2, IN_CHUNKS);
    check("faithfulness_coeff: 1, stochastic_recon_coeff: 1, out_recon_coeff: 0.4, sigmoid_type: swish_hard, pnorm: 1.7, gate_hidden_dims: [3, 4]", 1, 2, WHOLE);
    check("stochastic_recon_coeff: 1, recon_layerwise_coeff: 0.3, sigmoid_type: normal, pnorm: 1, gate_type: vector_mlp", 0, 1, WHOLE);
    check_refusals();
#ifdef PVA_SIMT /* a device's context does not survive a fork */
    check_ranks(first, "cuda0");
#endif
    op->close(&be);
#ifdef PVA_SIMT
    CHECK_INT(simt_device_bytes(), 0);
#endif
    return check_report("twin_spd_run");
}
