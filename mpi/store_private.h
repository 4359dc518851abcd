/* store_private.h - what the store's files share among themselves. */
#ifndef STORE_PRIVATE_H
#define STORE_PRIVATE_H

#include "store.h"

#include <hdf5.h>

/* One dataset with its first dimension running over the slots. */
struct store_column {
    char name[STORE_NAME_SIZE];
    enum store_type type;
    int n_dims; /* without the slot dimension */
    int64_t dims[STORE_MAX_DIMS];
    char dim_names[STORE_MAX_DIMS][STORE_NAME_SIZE];
    size_t element_bytes, slot_bytes;
    int64_t offset; /* of slot 0 in the file, as HDF5 says */
};

/* A slot of which some fields are written and which is not committed yet. */
struct store_pending {
    int64_t slot;
    uint64_t written; /* bit f: field f */
    uint32_t crc[STORE_MAX_FIELDS];
};

struct store_snapshot_job;

struct store {
    char *path;
    int writable;
    hid_t file;      /* read-only: attributes and coordinates */
    int fd;          /* the slots' bytes */
    int lock_fd;     /* -1: none */
    int range_locks; /* every write takes a byte-range lock */
    int64_t n_slots;
    char slot_name[STORE_NAME_SIZE];
    int n_fields;
    struct store_column *fields; /* [n_fields] */
    struct store_column state, checksum;
    uint8_t *known;    /* [n_slots] the states as this rank knows them */
    uint8_t *unsynced; /* [n_slots] 1: committed by this rank since its last checkpoint */
    struct store_pending *pending;
    int n_pending, max_pending;
    void *slot_buffer; /* [largest slot_bytes] */
    struct store_snapshot_job *snapshot;
};

/* store_snapshot.c: removes unfinished snapshots of the file at main_path. Under the exclusive lock, or by the writer of snapshots himself. */
void store_snapshot_sweep(const char *main_path);

/* store_hdf5.c */
void store_hdf5_init(void);
/* Records a failure with HDF5's innermost message after the text. */
int store_hdf5_fail(struct pva_error *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
hid_t store_type_make(enum store_type type, int64_t text_size);
const char *store_type_name(enum store_type type);
size_t store_type_bytes(enum store_type type, int64_t text_size);
/* Attributes of `object`. Writing and reading of one value; text is of fixed length. */
int store_put_text(hid_t object, const char *name, const char *text);
int store_put_integer(hid_t object, const char *name, int64_t value);
int store_put_real(hid_t object, const char *name, double value);
int store_get_attribute(hid_t object, const char *path, const char *name, int kind, char **text, int64_t *integer, double *real,
                        struct pva_error *err);
/* A dataset of the file itself: not behind a soft or external link, contiguous, inside the file, without external storage. */
int store_dataset_open(hid_t file, const char *path, int64_t file_bytes, const char *name, hid_t *dataset, int64_t *offset,
                       struct pva_error *err);

/* store_create.c */
int store_schema_check(const struct store_schema *schema, struct pva_error *err);
int store_create(const char *path, const struct store_schema *schema, struct pva_error *err); /* makes path.partial, then path */

/* store_match.c: the open file against the schema; fills the store's columns. */
int store_match(struct store *s, const struct store_schema *schema, int64_t file_bytes, struct pva_error *err);

/* store_files.c: the file system's part. */
char *store_path_with(const char *path, const char *suffix); /* malloc'd path + suffix */
int store_reserve(int fd, const char *path, int64_t bytes, struct pva_error *err);
int store_sync_directory(const char *path, struct pva_error *err); /* of the file `path` */
/* The complete partial file takes its final name; an existing file is kept as NAME.replaced. */
int store_publish(const char *partial, const char *path, struct pva_error *err);
int store_copy_bytes(int from, int to, int64_t offset, int64_t bytes, const int *cancel); /* 0, or -1 and errno */
int store_write_all(int fd, const void *data, size_t bytes, int64_t offset);              /* 0, or -1 and errno */
/* 1: nodes cache this file by pages and see each other's writes late (NFS, SMB). */
int store_needs_range_locks(int fd);
int store_range_lock(int fd, int locked, int64_t offset, int64_t bytes); /* waits; 0, or -1 and errno */
/* NAME.lock. wait_seconds for other jobs to end; *fd = -1 where the file system knows no locks. */
int store_lock_exclusive(const char *path, double wait_seconds, int *fd, struct pva_error *err);
int store_lock_share(const char *path, int *fd, struct pva_error *err); /* turns an exclusive one into a shared one */
void store_lock_release(const char *path, int *fd);

/* store_checksum.c: zlib's CRC-32, with the processor's carry-less multiplication where it has one. */
uint32_t store_crc(uint32_t crc, const void *data, size_t bytes);

/* store.c */
int store_column_read(struct store *s, const struct store_column *c, int64_t first, int64_t n, void *data, struct pva_error *err);

void store_snapshot_stop(struct store *s);

#endif
