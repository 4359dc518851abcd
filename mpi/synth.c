/* pva-mpi synth: a model directory with random weights. */
#include "pva/synth.h"
#include "pva/log.h"
#include "pva/options.h"
#include "commands.h"

#include <string.h>
#include <time.h>

const struct pva_option pva_synth_options[] = {
    {"like", PVA_OPT_TEXT, "SHAPE", NULL, "gemma-2-2b, gemma-2-9b, gemma-2-27b or a config.json", NULL, 0, 0},
    {"out", PVA_OPT_TEXT, "DIR", NULL, "directory to make; must be absent or empty", NULL, 0, 0},
    {"dtype", PVA_OPT_CHOICE, "TYPE", "bf16", "type of the weights", "bf16|f32", 0, 0},
    {"seed", PVA_OPT_INT, "S", "0", "weights are a function of the seed alone", NULL, 0, 9007199254740992.0},
    {"shard-size", PVA_OPT_BYTES, "BYTES", "5G", "begin a new file before one grows beyond this", NULL, 0, 0},
    {"tokenizer", PVA_OPT_TEXT, "FILE", NULL, "tokenizer.model to copy into the directory", NULL, 0, 0},
    {0},
};

struct clock {
    struct timespec start;
    size_t written;
};

static double seconds_since(const struct timespec *start) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + 1e-9 * (double)(now.tv_nsec - start->tv_nsec);
}

static void show(void *context, size_t done, size_t total) {
    struct clock *clock = context;
    double seconds = seconds_since(&clock->start);
    clock->written = done;
    pva_log_progress("synth: %.2f of %.2f GB, %.2f GB/s", 1e-9 * (double)done, 1e-9 * (double)total,
                     seconds > 0 ? 1e-9 * (double)done / seconds : 0.0);
}

static int shape_of(const char *like, struct pva_model_config *config, struct pva_error *err) {
    return strchr(like, '/') || strchr(like, '.') ? pva_model_config_read(like, config, err)
                                                  : pva_model_config_preset(like, config, err);
}

int pva_command_synth(const struct pva_options *o, struct pva_error *err) {
    struct pva_model_config config;
    struct clock clock = {.written = 0};
    struct pva_synth_settings settings = {.progress = show, .context = &clock};
    if (pva_options_require(o, "like", err) || pva_options_require(o, "out", err)) return err->code;
    if (shape_of(pva_options_text(o, "like"), &config, err)) return err->code;
    settings.dtype = strcmp(pva_options_text(o, "dtype"), "f32") ? PVA_BF16 : PVA_F32;
    settings.seed = (uint64_t)pva_options_int(o, "seed");
    settings.shard_bytes = pva_options_bytes(o, "shard-size");
    settings.tokenizer = pva_options_text(o, "tokenizer");
    clock_gettime(CLOCK_MONOTONIC, &clock.start);
    pva_synth_write(&config, pva_options_text(o, "out"), &settings, err);
    pva_log_progress_end();
    if (!err->code)
        pva_log(PVA_LOG_INFO, "synth: %.1f million parameters, %.1f MB in %.1f s: %s",
                1e-6 * (double)pva_model_config_n_parameters(&config), 1e-6 * (double)clock.written, seconds_since(&clock.start),
                pva_options_text(o, "out"));
    return err->code;
}
