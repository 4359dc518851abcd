/* phase2: encode the captured activations with sparse autoencoders, find the latents that separate right from wrong, say how sure that is. */
#include "commands.h"
#include "dispatch.h"
#include "engine.h"
#include "phase2_layer.h"
#include "phase2_print.h"
#include "phase2_select.h"
#include "run.h"
#include "stop.h"

#include "pva/log.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct pva_option pva_phase2_options[] = {
    {"run", PVA_OPT_TEXT, "DIR", NULL, "run directory with a finished phase 1", NULL, 0, 0},
    {"sae", PVA_OPT_TEXT, "DIR", NULL, "autoencoders: layer_N/width_W/average_l0_X/params.npz, or SAELens' safetensors", NULL, 0, 0},
    {"width", PVA_OPT_TEXT, "W", NULL, "16k, 131k ...; default: the only one there is", NULL, 0, 0},
    {"l0", PVA_OPT_TEXT, "L0", "canonical", "canonical, smallest, largest, or a number", NULL, 0, 0},
    {"layers", PVA_OPT_TEXT, "SET", "all", "layers of autoencoders: all, 3, 0-5,8", NULL, 0, 0},
    {"sae-alignment", PVA_OPT_CHOICE, "HOW", "aligned", "aligned: L reads resid_post[L]; original: resid_pre[L]", "aligned|original", 0, 0},
    {"pile-threshold", PVA_OPT_REAL, "RATE", "0.02", "latents that fire on this much general text are dropped", NULL, 0, 1},
    {"permutations", PVA_OPT_INT, "N", "10000", "label permutations for the family-wise p", NULL, 1, 1e9},
    {"statistic", PVA_OPT_CHOICE, "NAME", "studentised", "what is maximised over latents", "studentised|separation", 0, 0},
    {"seed", PVA_OPT_INT, "S", "42", "of the permutations", NULL, 0, 9007199254740991.0},
    {"top", PVA_OPT_INT, "N", "10", "latents per list", NULL, 1, 1000},
    {"csv", PVA_OPT_FLAG, NULL, "yes", "every latent's row in exports/latents.csv", NULL, 0, 0},
    {"json", PVA_OPT_FLAG, NULL, "no", "the lists as JSON on standard output, instead of tables", NULL, 0, 0},
    {"resume", PVA_OPT_CHOICE, "HOW", "auto", "never: all layers anew, an existing result is kept aside", "auto|never", 0, 0},
    {"backend", PVA_OPT_CHOICE, "NAME", "auto", "where to encode and to count permutations", "auto|cpu|cuda", 0, 0},
    {"threads", PVA_OPT_INT, "N", "0", "CPU threads per rank; 0: the node's cores shared among its ranks", NULL, 0, 4096},
    {"isa", PVA_OPT_CHOICE, "SET", NULL, "CPU instruction set, instead of the best one", "c|avx2|avx512|avx512bf16|amx", 0, 0},
    {"allow-shared-gpu", PVA_OPT_FLAG, NULL, "no", "several ranks of a node may compute on one GPU", NULL, 0, 0},
    {"gpu-memory", PVA_OPT_BYTES, "SIZE", NULL, "device memory this process may take", NULL, 0, 0},
    {"dry-run", PVA_OPT_FLAG, NULL, "no", "print the plan and stop", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};

struct phase2_job {
    const struct pva_options *options;
    struct par par;
    struct run run;
    struct engine engine; /* the backend alone */
    struct phase2_plan plan;
    struct phase2_schema schema;
    struct store *store;
    uint8_t *states; /* [layers] as found at the start */
    struct phase2_scores scores;
    float *x; /* [n_items, d_model] */
    struct pva_sae *next; /* opened ahead, its reading under way */
    int64_t next_slot;
    int64_t n_left, committed;
    double bytes, start;
    int quiet;
};

/* ---- one layer after the other ---- */

/* The next layer's file: mapped now, read by the system while this one is computed. A failure shows again, and is reported, when its turn comes. */
static void open_ahead(struct phase2_job *job, int64_t slot) {
    struct pva_error later = {0};
    pva_sae_close(&job->next);
    if (pva_sae_open(job->plan.layers.sae_path[slot], &job->next, &later)) return;
    pva_sae_read_ahead(job->next);
    job->next_slot = slot;
}

static int take_autoencoder(struct phase2_job *job, int64_t slot, struct pva_sae **sae, struct pva_error *err) {
    if (job->next && job->next_slot == slot) {
        *sae = job->next;
        job->next = NULL;
    } else if (!pva_sae_open(job->plan.layers.sae_path[slot], sae, err)) pva_sae_read_ahead(*sae);
    if (!err->code && (pva_sae_d_model(*sae) != job->plan.phase1.d_model || pva_sae_n_latents(*sae) != job->plan.layers.n_latents))
        pva_fail(err, PVA_INPUT, "%s: changed while it was being used", job->plan.layers.sae_path[slot]);
    return err->code;
}

static int check_finite(const struct phase2_job *job, int64_t slot, struct pva_error *err) {
    int64_t d_model = job->plan.phase1.d_model;
    for (int64_t i = 0; i < job->plan.n_items * d_model; i++)
        if (!isfinite(job->x[i]))
            return pva_fail(err, PVA_INPUT, "%s/phase1.h5: the residual stream of task %s has a value at layer %d that is not finite", job->plan.run,
                            job->plan.phase1.task_ids[job->plan.slots[i / d_model]], (int)job->plan.layers.source[slot]);
    return PVA_OK;
}

/* ahead: the layer after this one, or -1. */
static int compute_layer(struct phase2_job *job, int64_t slot, int64_t ahead, struct pva_error *err) {
    struct phase2_plan *plan = &job->plan;
    struct pva_sae *sae = NULL;
    double start = engine_now();
    if (!take_autoencoder(job, slot, &sae, err)) {
        if (ahead >= 0) open_ahead(job, ahead);
        if (!phase1_resid_layer(&plan->phase1, plan->layers.source[slot], plan->slots, plan->n_items, job->x, err) && !check_finite(job, slot, err) &&
            !phase2_scores_compute(&job->scores, sae, job->engine.ops, job->engine.be, job->x, plan->n_items, plan->n_selection, plan->correct, plan->n_validation, err) &&
            !phase2_scores_write(&job->scores, job->store, slot, err) && !store_commit(job->store, slot, STORE_DONE, err)) {
            job->committed++;
            job->bytes += (double)plan->bytes[slot];
            pva_log(PVA_LOG_INFO, "layer %d: %.2f s, L0 %.1f, FVU %.3f", (int)plan->layers.layer[slot], engine_now() - start, job->scores.mean_l0, job->scores.fvu);
        }
    }
    pva_sae_close(&sae);
    return err->code;
}

static void show_progress(struct phase2_job *job) {
    uint8_t *states = calloc((size_t)job->plan.layers.n + 1, 1);
    struct pva_error ignored = {0};
    int64_t done = 0;
    if (job->par.rank == 0 && !job->quiet && states && !store_states(job->store, states, &ignored)) {
        for (int64_t i = 0; i < job->plan.layers.n; i++) done += states[i] != STORE_EMPTY;
        pva_log_progress("phase2  %lld/%lld layers  %.2f GB/s of encoders here", (long long)done, (long long)job->plan.layers.n,
                         job->bytes / 1e9 / (engine_now() - job->start));
    }
    free(states);
}

/* Holds the layer being computed and the one after it. */
static int run_layers(struct phase2_job *job, struct dispatch *d, struct pva_error *err) {
    int64_t held[2], n = 0;
    while (!err->code && (!dispatch_finished(d) || n)) {
        n += n ? dispatch_next(d, 2 - n, held + n) : dispatch_wait(d, 1, held);
        if (dispatch_stopping(d)) break;
        if (!n) continue;
        if (n == 1) n += dispatch_next(d, 1, held + 1);
        compute_layer(job, held[0], n > 1 ? held[1] : -1, err);
        held[0] = held[1];
        n--;
        show_progress(job);
    }
    pva_log_progress_end();
    if (err->code) dispatch_fail(d);
    return err->code;
}

static int compute(struct phase2_job *job, int *outcome, struct pva_error *err) {
    struct schedule *schedule = NULL;
    struct phase2_plan *plan = &job->plan;
    job->x = malloc((size_t)(plan->n_items * plan->phase1.d_model) * sizeof *job->x + 1);
    if (!job->x) pva_fail(err, PVA_IO, "out of memory for %lld activations", (long long)plan->n_items);
    else if (!phase2_scores_create(&job->scores, plan->layers.n_latents, plan->n, err) && job->par.rank == 0)
        schedule_create(plan->layers.n, plan->bytes, NULL, job->states, job->par.size, &schedule, err);
    if (par_agree(&job->par, "plan work", err)) return err->code;
    struct dispatch *d = dispatch_open(&job->par, schedule, 1, stop_requested);
    job->start = engine_now();
    run_layers(job, d, err);
    *outcome = dispatch_close(&d);
    schedule_free(&schedule);
    pva_sae_close(&job->next);
    if (!err->code) store_checkpoint(job->store, err);
    if (!par_agree(&job->par, "encode", err) && (*outcome & DISPATCH_STOPPED))
        return pva_fail(err, PVA_STOPPED, "stopped; the layers that are finished are stored, run the same command to go on");
    return err->code;
}

/* ---- opening ---- */

static int open_backend(struct phase2_job *job, struct pva_error *err) {
    int threads = (int)pva_options_int(job->options, "threads"), share = omp_get_max_threads() / job->par.local_size;
    omp_set_num_threads(threads ? threads : share > 1 ? share : 1); /* the backend's default, and what the permutations use */
    engine_open_device(&job->par, job->options, &job->engine, err);
    return par_agree(&job->par, "open device", err);
}

static int open_store(struct phase2_job *job, struct pva_error *err) {
    struct pva_backend_info info;
    struct phase2_identity id;
    char path[4096], selection[4096];
    int64_t *damaged = NULL, n_damaged = 0, n = job->plan.layers.n;
    job->engine.ops->describe(job->engine.be, &info);
    phase2_plan_identity(&job->plan, job->engine.ops->name, info.isa, &id);
    phase2_schema_fill(&job->schema, &id, &job->plan.layers);
    int anew = !strcmp(pva_options_text(job->options, "resume"), "never");
    if (store_open(&job->par, run_path(&job->run, "phase2.h5", path), &job->schema.store, anew ? STORE_REPLACE : STORE_RESUME, &job->store, err))
        return err->code == PVA_REFUSED ? pva_error_prefix(err, "phase 2 was run differently (--resume never starts over)") : err->code;
    if (store_verify(&job->par, job->store, &damaged, &n_damaged, err)) return err->code;
    if (n_damaged && job->par.rank == 0) pva_log(PVA_LOG_WARNING, "%lld stored layers were damaged and are computed again", (long long)n_damaged);
    free(damaged);
    job->states = calloc((size_t)n + 1, 1);
    if (!job->states) pva_fail(err, PVA_IO, "out of memory");
    else store_states(job->store, job->states, err);
    for (int64_t i = 0; i < n && !err->code; i++) job->n_left += job->states[i] == STORE_EMPTY;
    /* What followed from the old layers does not describe the new ones. */
    if (!err->code && job->n_left && job->par.rank == 0) unlink(run_path(&job->run, "phase2-selection.h5", selection));
    return par_agree(&job->par, "read states", err);
}

/* ---- the whole ---- */

static int finish(struct phase2_job *job, const struct phase2_selected *selected, struct pva_error *err) {
    const struct pva_options *o = job->options;
    if (job->par.rank == 0 && !phase2_export(&job->plan, pva_options_flag(o, "csv"), err)) {
        if (pva_options_flag(o, "json")) phase2_print_json(&job->plan, selected, stdout, err);
        else if (!job->quiet) phase2_print_summary(&job->plan, selected, job->store, stdout, err);
        fflush(stdout); /* the line on stderr comes after it, also where mpirun joins the two */
        char text[4096];
        snprintf(text, sizeof text, "%lld of %lld layers computed, %lld latents%s; permutations %.1f s; %.1f s on %d rank%s; %s/phase2.h5",
                 (long long)job->n_left, (long long)job->plan.layers.n, (long long)(job->plan.layers.n * job->plan.layers.n_latents),
                 selected->was_current ? ", selection unchanged" : "", selected->seconds, engine_now() - job->start, job->par.size, job->par.size > 1 ? "s" : "",
                 job->plan.run);
        pva_log(PVA_LOG_INFO, "%s", text);
        if (!job->quiet) fprintf(stderr, "pva-mpi: phase2: %s\n", text);
    }
    return par_agree(&job->par, "write exports", err);
}

static int run_phase(struct phase2_job *job, struct pva_error *err) {
    char hosts[2048];
    int outcome = DISPATCH_COMPLETE;
    struct phase2_selected selected;
    job->start = engine_now();
    run_list_hosts(&job->par, hosts, sizeof hosts);
    if (open_store(job, err)) return err->code;
    if (job->par.rank == 0 && !run_write_config(&job->run, "phase2", job->options, err))
        run_write_manifest(&job->run, &job->par, "phase2", hosts, phase2_plan_facts(&job->plan), err);
    if (par_agree(&job->par, "write manifest", err)) return err->code;
    if (job->par.rank == 0 && !job->quiet && job->n_left && job->n_left < job->plan.layers.n)
        fprintf(stderr, "pva-mpi: phase2: resuming: %lld of %lld layers are done\n", (long long)(job->plan.layers.n - job->n_left), (long long)job->plan.layers.n);
    if (!strcmp(job->plan.alignment, "original") && job->par.rank == 0)
        pva_log(PVA_LOG_WARNING, "--sae-alignment original: each autoencoder reads the stream one block before the one it was trained on");
    if (job->n_left && compute(job, &outcome, err)) return err->code;
    if (phase2_select(&job->plan, &job->par, &job->run, &job->engine, job->store, &selected, err)) return err->code;
    return finish(job, &selected, err);
}

int pva_command_phase2(const struct pva_options *o, struct pva_error *err) {
    struct phase2_job job = {.options = o, .quiet = pva_options_flag(o, "quiet")};
    struct pva_error late = {0};
    int dry = pva_options_flag(o, "dry-run");
    stop_install();
    if (par_open(&job.par, err)) return err->code;
    if (job.par.rank) pva_log_screen(PVA_LOG_ERROR);
    if (!pva_options_require(o, "run", err)) pva_options_require(o, "sae", err);
    if (!err->code && access(pva_options_text(o, "run"), F_OK)) pva_fail(err, PVA_INPUT, "%s: there is no such run", pva_options_text(o, "run"));
    if (!par_agree(&job.par, "start", err) && !open_backend(&job, err) && (dry || !run_open(&job.par, pva_options_text(o, "run"), "phase2", &job.run, err)) &&
        !phase2_plan_make(&job.plan, &job.par, o, err)) {
        struct pva_backend_info info;
        job.engine.ops->describe(job.engine.be, &info);
        if (!dry) run_phase(&job, err);
        else if (job.par.rank == 0) phase2_plan_print(&job.plan, &job.par, info.device, stdout);
    }
    phase2_scores_free(&job.scores);
    free(job.x), free(job.states);
    if (job.store) store_close(&job.store, &late);
    phase2_plan_free(&job.plan);
    engine_close(&job.engine);
    if (!dry) run_close(&job.run);
    par_agree(&job.par, "close", &late);
    if (late.code && !err->code) *err = late;
    if (job.par.rank) err->msg[0] = 0; /* rank 0 says it */
    par_close(&job.par);
    return err->code;
}
