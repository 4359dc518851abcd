/* pva-mpi: finds the command, reads its options, runs it, prints the one line about a failure. */
#include "commands.h"

#include "pva/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command commands[] = {
    {"doctor", "test-gpu", "what this machine can do", "[--model DIR]", {pva_common_options, pva_engine_options, pva_doctor_options, NULL}, pva_command_doctor},
    {"run", NULL, "phase1, pile, phase2, phase3, steer, report in order, each skipped when complete", "--run DIR --model DIR --problems FILE --sae DIR [--pile FILE]",
     {pva_common_options, pva_engine_options, pva_run_options, NULL}, pva_command_run},
    {"phase1", NULL, "generate, grade, capture", "--run DIR --model DIR --problems FILE", {pva_common_options, pva_engine_options, pva_phase1_options, pva_campaign_options, NULL},
     pva_command_phase1},
    {"pile", NULL, "how often each latent fires on general text", "--run DIR --model DIR --sae DIR --pile FILE",
     {pva_common_options, pva_engine_options, pva_pile_options, NULL}, pva_command_pile},
    {"phase2", NULL, "encode, separation scores, ranking, family-wise p", "--run DIR --sae DIR", {pva_common_options, pva_phase2_options, NULL}, pva_command_phase2},
    {"phase3", NULL, "prediction on held-out problems, at other temperatures and difficulties", "--run DIR",
     {pva_common_options, pva_engine_options, pva_followup_options, pva_campaign_options, pva_phase3_options, NULL}, pva_command_phase3},
    {"steer", NULL, "push along directions; correction, corruption, controls, significance", "--run DIR",
     {pva_common_options, pva_engine_options, pva_followup_options, pva_campaign_options, pva_steer_options, NULL}, pva_command_steer},
    {"report", NULL, "report.html and figures from a run's finished files", "RUN [--figures-only]", {pva_common_options, pva_report_options, NULL}, pva_command_report},
    {"status", NULL, "how far a run is", "RUN", {pva_common_options, pva_status_options, NULL}, pva_command_status},
    {"checkpoints", NULL, "list a run's snapshots", "RUN", {pva_common_options, pva_status_options, NULL}, pva_command_checkpoints},
    {"export", NULL, "a run as JSONL, CSV, Parquet and safetensors", "RUN [--format jsonl,csv]", {pva_common_options, pva_export_options, NULL}, pva_command_export},
    {"regrade", NULL, "extraction and tests again from a run's completions, without the model", "RUN --out DIR",
     {pva_common_options, pva_regrade_options, NULL}, pva_command_regrade},
    {"replay", NULL, "one record again, side by side with what is stored", "RUN --task ID", {pva_common_options, pva_replay_options, NULL},
     pva_command_replay},
    {"encode", NULL, "activations to active latents of an autoencoder", "--sae PATH --activations FILE:/DATASET --out FILE",
     {pva_common_options, pva_encode_options, NULL}, pva_command_encode},
    {"forward", NULL, "one forward pass: logits and residual stream to an HDF5 file", "--model DIR (--text S | --tokens LIST) --out FILE",
     {pva_common_options, pva_engine_options, pva_forward_options, NULL}, pva_command_forward},
    {"generate", NULL, "continue prompts; JSONL on stdout", "--model DIR (--prompt S | --prompts FILE)",
     {pva_common_options, pva_engine_options, pva_generate_options, NULL}, pva_command_generate},
    {"tokenize", NULL, "text to token ids and back; JSONL in, JSONL out", "--model DIR [--decode]", {pva_common_options, pva_tokenize_options, NULL},
     pva_command_tokenize},
    {"grade", NULL, "run programs against their tests, confined", "--problems FILE --samples FILE --out FILE",
     {pva_common_options, pva_grade_options, NULL}, pva_command_grade},
    {"synth", NULL, "write a model of random weights, for benchmarks and tests", "--like NAME --out DIR", {pva_common_options, pva_synth_options, NULL},
     pva_command_synth},
    {"bench", NULL, "figures against the limit measured in the same run", "generate|prefill|sae|store|maxt|count", {pva_common_options, pva_engine_options, pva_bench_options, NULL},
     pva_command_bench},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_commands(FILE *out) {
    fprintf(out, "usage: pva-mpi COMMAND [options]      pva-mpi COMMAND --help\n\n");
    for (int i = 0; i < N_COMMANDS; i++) fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\nexit status: 0 done, 1 a check failed, 2 wrong usage, 3 bad input, 4 I/O or device, 5 refused, 75 stopped (run again to resume)\n");
}

static const struct command *find_command(const char *name) {
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(commands[i].name, name) || (commands[i].alias && !strcmp(commands[i].alias, name))) return &commands[i];
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        print_commands(stderr);
        return PVA_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
        print_commands(stdout);
        return PVA_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("pva-mpi %s\n", PVA_VERSION);
        return PVA_OK;
    }
    const struct command *c = find_command(argv[1]);
    if (!c) {
        fprintf(stderr, "pva-mpi: no command \"%s\"; pva-mpi --help lists them\n", argv[1]);
        return PVA_USAGE;
    }
    struct pva_error err = {0};
    struct pva_options *o = NULL;
    int status = pva_options_parse(c->name, c->tables, argc - 1, argv + 1, &o, &err);
    if (!status && pva_options_wants_help(o)) {
        char title[64];
        snprintf(title, sizeof title, "pva-mpi %s", c->name);
        pva_options_print_help(title, c->synopsis, c->tables, stdout);
    } else if (!status && pva_options_wants_config(o)) {
        pva_options_print_config(o, stdout);
    } else if (!status) {
        if (pva_options_flag(o, "quiet")) pva_log_screen(PVA_LOG_ERROR);
        if (pva_options_flag(o, "verbose")) pva_log_screen(PVA_LOG_INFO);
        status = c->run(o, &err);
    }
    pva_options_free(&o);
    if (status && err.msg[0]) fprintf(stderr, "pva-mpi: %s: %s\n", c->name, err.msg);
    /* Results that could not be written are a failure, however well the work went. */
    if ((fflush(stdout) || ferror(stdout)) && !status) {
        fprintf(stderr, "pva-mpi: %s: standard output could not be written\n", c->name);
        status = PVA_IO;
    }
    return status;
}
