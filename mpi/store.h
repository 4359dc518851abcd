/* store.h - the file every phase writes: a table of preallocated slots in HDF5, shared by all ranks.
 *
 * One slot holds one finished item (a problem, a sample, a layer). A schema, given as a plain table, says which datasets there
 * are:
 *
 *     /FIELD      [n_slots, ...shape]   one per field; contiguous, allocated when the file is made
 *     /COORDINATE [...]                 known when the file is made: task ids, layer numbers, prompts, splits
 *     /state      uint8  [n_slots]      0 = empty, 1 = done, further values as the schema names them: THE list of finished work
 *     /checksum   uint32 [n_slots]      CRC-32 (zlib.crc32) over the slot's bytes of every field in table order, then its state
 * byte
 *
 * Every dimension has a dimension scale, every dataset units and long_name, the root CF's attributes, the schema's name and
 * version and the caller's attributes. h5ls, h5dump, h5py, MATLAB and Julia read it; there are no variable-length datasets,
 * filters or chunks. bfloat16 is a 16-bit floating-point type that h5py reads as float32.
 *
 * Nothing is lost when a job dies. All metadata is written once: rank 0 makes NAME.partial, allocates every byte (a full disk
 * shows now, not after hours), syncs it and renames it. From then on only raw data inside datasets changes, so no kill can tear
 * the file's structure. store_commit writes a slot's checksum after its data and its state byte after that: a dead process leaves
 * committed slots and empty ones. A dead machine may leave a state byte without its data; store_verify finds these by their
 * checksums and empties them.
 *
 * HDF5 makes and describes the file; the slots' bytes are written where HDF5 says they lie (H5Dget_offset), by each rank for
 * itself. The ranks do not write through HDF5's own MPI-IO driver, for what was seen with HDF5 1.10.8 and Open MPI 4.1.4: closing
 * a file that was open for writing rewrites its superblock, and when the disk has died by then, MPI_Finalize crashes; MPI-IO
 * reports a failed write as a success of 0 bytes and prints a line of its own; opening and closing wait for ranks that may be
 * gone. Here no call between opening and closing waits for anyone, and a rank whose disk has died returns one line with the
 * system's reason, closes, and reaches the caller's par_agree while the others write on. What MPI-IO does for network file
 * systems is kept: where nodes cache pages (NFS, SMB), writes of several nodes take byte-range locks (PVA_STORE_RANGE_LOCKS=1
 * asks for them elsewhere).
 *
 * A lock file (NAME.lock, gone after the last close) keeps a second job, or a resumed job whose killed predecessor still has a
 * rank alive, from writing at the same time. Readers take no lock and disturb nobody.
 *
 * A store is used by one thread. Codes: PVA_INPUT the file is not what it should be; PVA_REFUSED it belongs to another run, or
 * another job writes it; PVA_IO disk, quota, permission; PVA_BUG a broken promise of the caller.
 */
#ifndef STORE_H
#define STORE_H

#include "par.h"

#include <stddef.h>
#include <stdint.h>

enum store_type {
    STORE_I8,
    STORE_U8,
    STORE_I32,
    STORE_U32,
    STORE_I64,
    STORE_F32,
    STORE_F64,
    STORE_BF16,  /* uint16_t in memory: the upper half of a float */
    STORE_BYTES, /* text of a fixed length, padded with zero bytes */
    STORE_ANY_FLOAT, /* store_open_read only: STORE_F32 or STORE_BF16, whichever the file has */
};

enum { STORE_EMPTY = 0, STORE_DONE = 1 };
enum { STORE_MAX_DIMS = 3, STORE_MAX_FIELDS = 64, STORE_NAME_SIZE = 64 };
enum { STORE_ANY_DIMS = -1 }; /* store_open_read only, as n_dims: as many as the file has */

struct store_dim {
    const char *name; /* one name has one size in a file */
    int64_t size;     /* 0, for store_open_read only: whatever the file has */
};

struct store_field {
    const char *name;
    enum store_type type;
    int64_t text_size; /* STORE_BYTES: bytes of one element (0 for store_open_read: whatever the file has); else 0 */
    int n_dims;        /* 0..3, without the slot dimension */
    struct store_dim dims[STORE_MAX_DIMS];
    const char *units;     /* NULL: "1", a pure number */
    const char *long_name; /* NULL: the name */
};

/* Data known when the file is made. `field.dims` lists ALL its dimensions (1..3), the slot dimension by its name where it has
 * one. One-dimensional and named like its dimension, it becomes that dimension's scale; a dimension without gets 0, 1, 2 ... */
struct store_coordinate {
    struct store_field field;
    const void *data;
    int identity; /* opening compares it: other data means another run */
};

struct store_attribute {
    const char *name;
    enum { STORE_TEXT, STORE_INTEGER, STORE_REAL } kind;
    const char *text;
    int64_t integer;
    double real;
    int identity; /* opening compares it: another value means another run (hashes of model and prompt, settings that change
                     results) */
};

struct store_schema {
    const char *name; /* "pva-phase1"; stored as the attribute `schema` */
    int version;      /* stored as `schema_version`; another one is refused */
    const char *title, *source;
    const char *history;   /* NULL: "<UTC time> created" */
    struct store_dim slot; /* name of the slot dimension, number of slots */
    const char *states;    /* names of the states in order, separated by blanks; NULL: "empty done" */
    const struct store_field *fields;
    int n_fields; /* 1..64 */
    const struct store_coordinate *coordinates;
    int n_coordinates;
    const struct store_attribute *attributes;
    int n_attributes;
};

struct store;

enum store_mode {
    STORE_RESUME,  /* open it, or make it when there is none */
    STORE_FRESH,   /* make it; refuse when there is one */
    STORE_REPLACE, /* make it; an existing one is kept as NAME.replaced */
};

/* Bytes of data the file will hold (metadata adds some kB); -1 when the product overflows. For --dry-run. */
int64_t store_bytes(const struct store_schema *schema);

/* Collective; ends with an agreement, so that all ranks return the same. Refuses a file whose identity attributes or
 * coordinates differ from the schema's, naming each with both values. Everything in `schema` is copied. */
int store_open(const struct par *par, const char *path, const struct store_schema *schema, enum store_mode mode,
               struct store **store, struct pva_error *err);

/* Read-only, this process alone, without MPI; while a job is writing the file, too. */
int store_open_read(const char *path, const struct store_schema *schema, struct store **store, struct pva_error *err);

/* Not collective. Makes what was committed durable (store_checkpoint), stops a snapshot in progress. Always frees. */
int store_close(struct store **store, struct pva_error *err);

int64_t store_n_slots(const struct store *store);
int store_field_index(const struct store *store, const char *name);  /* place in the table, or -1 */
int store_field_shape(const struct store *store, int field, int64_t *shape); /* sizes without the slots', [STORE_MAX_DIMS]; how many */
int64_t store_dim_size(const struct store *store, const char *name); /* of any named dimension, or -1 */
size_t store_field_bytes(const struct store *store, int field);      /* of one slot */
int64_t store_field_text_size(const struct store *store, int field); /* bytes of one element: of a text, of a number */

/* ---- one slot; never collective ---------------------------------------------------------------------------------- */

/* `data` [...shape] of the field's type, exactly store_field_bytes bytes. The slot must not be committed. */
int store_write(struct store *store, int64_t slot, int field, const void *data, struct pva_error *err);
/* The same for a field of which only the first `bytes` bytes are there; the rest becomes zero. */
int store_write_head(struct store *store, int64_t slot, int field, const void *data, size_t bytes, struct pva_error *err);

/* After the slot's fields. A field that was not written becomes zero, so that a slot's content never depends on an earlier,
 * unfinished attempt. `state` is one of the schema's, not STORE_EMPTY. */
int store_commit(struct store *store, int64_t slot, int state, struct pva_error *err);

/* A committed slot becomes empty again and keeps its content, so that some of its fields can be rewritten and the slot committed
 * anew. A kill in between loses the slot: amend a copy (store_copy), not the only file. */
int store_reopen(struct store *store, int64_t slot, struct pva_error *err);

/* Collective; ends with an agreement. Empties the committed slots whose states[i] is STORE_EMPTY, for every rank: what a second file of a
 * phase holds and its results do not. states [n_slots], the same on every rank. */
int store_retain(const struct par *par, struct store *store, const uint8_t *states, struct pva_error *err);

int store_read(struct store *store, int64_t slot, int field, void *data, struct pva_error *err);
/* [n, ...shape], slots first .. first+n-1, whatever their state. */
int store_read_range(struct store *store, int field, int64_t first, int64_t n, void *data, struct pva_error *err);
/* Of one slot the elements first .. first+n-1, counted through all its dimensions, as float32 from a field of type STORE_F32 or
 * STORE_BF16. */
int store_read_elements(struct store *store, int64_t slot, int field, int64_t first, int64_t n, float *data,
                        struct pva_error *err);
/* [n, ...shape] likewise. */
int store_read_floats(struct store *store, int field, int64_t first, int64_t n, float *data, struct pva_error *err);

/* The states of all slots as they are in the file now. [n_slots] */
int store_states(struct store *store, uint8_t *states, struct pva_error *err);

/* What was committed on this node survives a power cut when this returns 0. Any rank, any time. When the disk reports that it
 * lost data, the slots this rank committed since its last checkpoint are emptied: they will be computed again. */
int store_checkpoint(struct store *store, struct pva_error *err);

/* Collective; ends with an agreement. Reads every committed slot, the slots shared among the ranks, and empties those whose
 * checksum does not hold. *damaged: [*n_damaged] slot numbers, ascending, the same on every rank; the caller frees it. */
int store_verify(const struct par *par, struct store *store, int64_t **damaged, int64_t *n_damaged, struct pva_error *err);
/* The same for one process, changing nothing. */
int store_check(struct store *store, int64_t **damaged, int64_t *n_damaged, struct pva_error *err);

/* ---- what was stored when the file was made ---------------------------------------------------------------------- */

int store_read_coordinate(struct store *store, const char *name, enum store_type type, void *data, size_t bytes,
                          struct pva_error *err);
/* A text longer than size-1 fails. */
int store_text(struct store *store, const char *attribute, char *text, size_t size, struct pva_error *err);
int store_integer(struct store *store, const char *attribute, int64_t *value, struct pva_error *err);
int store_real(struct store *store, const char *attribute, double *value, struct pva_error *err);

/* ---- snapshots: checkpoints/NAME-00100.h5 beside the file -------------------------------------------------------- */

/* Starts a copy in a thread of this process and returns within a millisecond or so; the other ranks write on. What is committed
 * now is in the copy, everything else is empty there. The copy appears under its name when complete and synced; then all but the
 * newest `keep` are removed. One at a time: while one is running this does nothing. Needs a store opened by store_open. */
int store_snapshot_start(struct store *store, int64_t count, int keep, struct pva_error *err);
/* *running: 1 while it copies. A snapshot that failed says so here, once; the store itself is not affected. */
int store_snapshot_poll(struct store *store, int *running, struct pva_error *err);
int store_snapshot_wait(struct store *store, struct pva_error *err);

struct store_snapshot {
    char *path;
    int64_t count; /* from its name */
    int64_t bytes; /* on disk */
    int64_t time;  /* of its completion, seconds since 1970 */
};
/* Ascending by count; none is no error. Free with store_snapshots_free. `path` is the phase's file, which need not exist. */
int store_snapshots(const char *path, struct store_snapshot **list, int *n, struct pva_error *err);
void store_snapshots_free(struct store_snapshot **list, int *n);

/* Collective; ends with an agreement. Checks `from` (a snapshot or any file of this schema and identity), then puts a copy of it
 * in the place of `path` in one step. An existing `path` is kept as NAME.replaced. */
int store_copy(const struct par *par, const char *from, const char *path, const struct store_schema *schema,
               struct pva_error *err);

/* ---- can this machine do it? ------------------------------------------------------------------------------------- */

struct store_rates {
    double store; /* MB/s (1e6) of store_write + store_commit, all ranks together */
    double raw;   /* pwrite of the same bytes into an allocated file in the same directory */
};
/* Collective; ends with an agreement. Files are made in `dir` and removed. */
int store_measure(const struct par *par, const char *dir, int64_t record_bytes, int64_t n_records, struct store_rates *rates,
                  struct pva_error *err);
/* Collective; ends with an agreement. Makes, writes from every rank, reads back across ranks, verifies, measures. */
int store_selftest(const struct par *par, const char *dir, struct store_rates *rates, struct pva_error *err);

#endif
