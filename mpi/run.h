/* run.h - a run directory: config.yaml, manifest.json, the phase files, checkpoints/, logs/, exports/.
 *
 * One job writes a run at a time: a lock file, held by rank 0 with a POSIX record lock (works over NFS and ends with the process), says so.
 * Files are published whole: written as NAME.partial, synced, renamed.
 */
#ifndef RUN_H
#define RUN_H

#include "par.h"

#include "pva/options.h"

#include <jansson.h>

struct run {
    char directory[3072];
    int lock; /* descriptor, rank 0 */
};

/* Collective. Makes the directory and its subdirectories, takes the lock, starts this rank's log (logs/PHASE-rankN.log, appended). */
int run_open(const struct par *p, const char *directory, const char *phase, struct run *run, struct pva_error *err);
void run_close(struct run *run);

/* directory/name; the buffer must hold 4096 bytes. */
const char *run_path(const struct run *run, const char *name, char *buffer);

/* Rank 0: the resolved settings of a phase as config-PHASE.yaml. */
int run_write_config(const struct run *run, const char *phase, const struct pva_options *o, struct pva_error *err);

/* Rank 0: puts `facts` under the phase's name into manifest.json and appends this start (time, ranks, hosts, SLURM's variables, versions) to
 * its list of starts. What earlier starts and phases wrote is kept. */
int run_write_manifest(const struct run *run, const struct par *p, const char *phase, const char *hosts, json_t *facts, struct pva_error *err);

/* Text to a file under its final name, whole or not at all. */
int run_publish(const char *path, const char *text, size_t n_bytes, struct pva_error *err);

/* Collective: the nodes' names and how many ranks each has, "node1:2 node2:1", on rank 0. */
void run_list_hosts(const struct par *p, char *out, size_t size);

/* Tells models apart without reading all of their bytes: SHA-256, as 64 hexadecimal digits, over config.json, the tensors' names, types and shapes, and
 * 64 KiB samples of each tensor's data. */
struct pva_tensorfile;
int run_model_fingerprint(const char *model_directory, char out[65], struct pva_error *err);

#endif
