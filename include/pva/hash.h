/* hash.h - SHA-256 (FIPS 180-4), for prompts, templates and files of weights.
 *
 * The processor's SHA instructions are used when it has them (checked once, at run time); the digest does not depend on that.
 */
#ifndef PVA_HASH_H
#define PVA_HASH_H

#include "pva/error.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PVA_SHA256_BYTES 32
#define PVA_SHA256_HEX 65 /* 64 lower-case hexadecimal digits and the final zero */

/* A digest in the making. Plain bytes: a copy is a fork of the stream. */
struct pva_sha256 {
    uint32_t state[8];
    uint64_t n_bytes;  /* taken so far; below 2^61 */
    uint8_t block[64]; /* the first n_bytes % 64 are waiting for the rest of their block */
};

void pva_sha256_start(struct pva_sha256 *h);
/* Appends n bytes; how a message is cut into pieces does not change its digest. data may be NULL when n is 0. */
void pva_sha256_add(struct pva_sha256 *h, const void *data, size_t n);
/* The digest of all bytes added. *h is spent: start it again before the next message. */
void pva_sha256_finish(struct pva_sha256 *h, uint8_t digest[PVA_SHA256_BYTES]);

/* The digest as text. */
void pva_sha256_hex(const uint8_t digest[PVA_SHA256_BYTES], char hex[PVA_SHA256_HEX]);
/* One message in memory, digest as text. */
void pva_sha256_text(const void *data, size_t n, char hex[PVA_SHA256_HEX]);
/* A regular file, read once from start to end with a buffer of 1 MiB. Fails with PVA_INPUT when it cannot be opened or is no
 * regular file, PVA_IO when reading fails; hex is then empty. n_bytes (may be NULL) gets the file's size as read. */
int pva_sha256_file(const char *path, char hex[PVA_SHA256_HEX], uint64_t *n_bytes, struct pva_error *err);

/* "sha-ni" or "portable": what this machine uses. */
const char *pva_sha256_method(void);

#ifdef __cplusplus
}
#endif
#endif
