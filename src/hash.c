#include "pva/hash.h"

#include "hash_blocks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void blocks(uint32_t state[8], const uint8_t *data, size_t n_blocks) {
    if (sha256_has_instructions()) sha256_blocks_instructions(state, data, n_blocks);
    else sha256_blocks_portable(state, data, n_blocks);
}

const char *pva_sha256_method(void) { return sha256_has_instructions() ? "sha-ni" : "portable"; }

void pva_sha256_start(struct pva_sha256 *h) {
    /* Fractional parts of the square roots of the first eight primes. */
    static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(h->state, initial, sizeof initial);
    h->n_bytes = 0;
}

void pva_sha256_add(struct pva_sha256 *h, const void *data, size_t n) {
    const uint8_t *p = data;
    size_t held = h->n_bytes % 64;
    if (n == 0) return;
    h->n_bytes += n;
    if (held) {
        size_t take = 64 - held < n ? 64 - held : n;
        memcpy(h->block + held, p, take);
        if (held + take < 64) return;
        blocks(h->state, h->block, 1);
        p += take, n -= take;
    }
    if (n >= 64) blocks(h->state, p, n / 64);
    memcpy(h->block, p + n / 64 * 64, n % 64);
}

void pva_sha256_finish(struct pva_sha256 *h, uint8_t digest[PVA_SHA256_BYTES]) {
    uint8_t tail[128] = {0}; /* what is left, a one bit, zeros, the length in bits: one block or two */
    size_t held = h->n_bytes % 64, end = held < 56 ? 64 : 128;
    memcpy(tail, h->block, held);
    tail[held] = 0x80;
    for (int i = 0; i < 8; i++) tail[end - 1 - (size_t)i] = (uint8_t)(h->n_bytes * 8 >> (8 * i));
    blocks(h->state, tail, end / 64);
    for (int i = 0; i < PVA_SHA256_BYTES; i++) digest[i] = (uint8_t)(h->state[i / 4] >> (24 - 8 * (i % 4)));
}

void pva_sha256_hex(const uint8_t digest[PVA_SHA256_BYTES], char hex[PVA_SHA256_HEX]) {
    for (int i = 0; i < PVA_SHA256_BYTES; i++) {
        hex[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    hex[2 * PVA_SHA256_BYTES] = 0;
}

void pva_sha256_text(const void *data, size_t n, char hex[PVA_SHA256_HEX]) {
    struct pva_sha256 h;
    uint8_t digest[PVA_SHA256_BYTES];
    pva_sha256_start(&h);
    pva_sha256_add(&h, data, n);
    pva_sha256_finish(&h, digest);
    pva_sha256_hex(digest, hex);
}

int pva_sha256_file(const char *path, char hex[PVA_SHA256_HEX], uint64_t *n_bytes, struct pva_error *err) {
    enum { BUFFER = 1 << 20 };
    struct pva_sha256 h;
    struct stat st;
    uint8_t digest[PVA_SHA256_BYTES];
    uint8_t *buffer = NULL;
    int status = PVA_OK;
    hex[0] = 0;
    /* Not blocking: the open of a pipe that nobody writes to would wait for ever. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return pva_fail(err, PVA_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    if (fstat(fd, &st)) status = pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode)) status = pva_fail(err, PVA_INPUT, "%s: is not a regular file", path);
    else if (!(buffer = malloc(BUFFER))) status = pva_fail(err, PVA_IO, "%s: no memory for a buffer of %d bytes", path, BUFFER);
    if (status) goto done;
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    pva_sha256_start(&h);
    for (ssize_t got; (got = read(fd, buffer, BUFFER)) != 0;) {
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            status = pva_fail(err, PVA_IO, "%s: reading failed at byte %llu: %s", path, (unsigned long long)h.n_bytes,
                              strerror(errno));
            goto done;
        }
        pva_sha256_add(&h, buffer, (size_t)got);
    }
    if (n_bytes) *n_bytes = h.n_bytes;
    pva_sha256_finish(&h, digest);
    pva_sha256_hex(digest, hex);
done:
    free(buffer);
    close(fd);
    return status;
}
