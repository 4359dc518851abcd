/* input_file.h - whole files as bytes or JSON, read defensively and written atomically. Private to src/. */
#ifndef INPUT_FILE_H
#define INPUT_FILE_H

#include "pva/error.h"

#include <jansson.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Last component of a path; points into it. */
const char *file_base_name(const char *path);

/* "directory/name" in malloc'ed memory; NULL when out of memory. */
char *file_join(const char *directory, const char *name);

/* 1 when something of that name can be stat'ed and it is a directory / anything else; 0 else. */
int file_is_directory(const char *path);
int file_exists(const char *path);

/* Maps a regular, non-empty file read-only. *map is unmapped by the caller with munmap(*map, *size). */
int file_map(const char *path, const unsigned char **map, size_t *size, struct pva_error *err);

/* The whole of a regular, non-empty file of at most max_bytes, in malloc'ed memory followed by a zero byte. */
int file_read(const char *path, size_t max_bytes, char **bytes, size_t *size, struct pva_error *err);

/* A file that holds one JSON object, no key twice. *out is released with json_decref. */
int file_read_json(const char *path, size_t max_bytes, json_t **out, struct pva_error *err);

/* Written as path.partial, synced, renamed: the name never shows half a file. */
int file_write_bytes(const char *path, const void *bytes, size_t size, struct pva_error *err);
int file_write_json(const char *path, const json_t *value, struct pva_error *err);

/* Renames path.partial's finished file descriptor into place: fsync, close, rename, fsync of the directory.
 * Closes fd in every case. */
int file_publish(int fd, const char *partial, const char *path, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
