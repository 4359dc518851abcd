/* bench.h - what `bench` can measure besides the model itself. Each prints its figures on standard output. */
#ifndef BENCH_H
#define BENCH_H

#include "pva/error.h"
#include "pva/options.h"

int bench_count(const struct pva_options *o, struct pva_error *err); /* kernels, bytes and floors of --model's shape; runs nothing */
int bench_sae(const struct pva_options *o, struct pva_error *err);  /* encoding: --sae, or random weights of Gemma 2 2B's shape; --repeats */
int bench_store(const struct pva_options *o, struct pva_error *err); /* the shared file: --run, --record-bytes, --records, --repeats; with MPI */
int bench_maxt(const struct pva_options *o, struct pva_error *err); /* permutation max-T: --latents, --items, --permutations, --threads */

#endif
