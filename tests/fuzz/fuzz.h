/* fuzz.h - what the fuzz targets share. Each defines LLVMFuzzerTestOneInput: with PVA_FUZZ libFuzzer calls it, else replay.c does
 * with the files of tests/fuzz/corpus/. A target ends the process when a promise of the header is broken. */
#ifndef FUZZ_H
#define FUZZ_H

#include "pva/error.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A refusal must be one of these codes, with one line of text; success must leave the error empty. */
static inline void fuzz_check_status(int status, const struct pva_error *err) {
    PVA_ASSERT(status == err->code);
    PVA_ASSERT(status == PVA_OK || status == PVA_INPUT);
    PVA_ASSERT((status == PVA_OK) == (err->msg[0] == 0));
    PVA_ASSERT(memchr(err->msg, 0, sizeof err->msg) && !strchr(err->msg, '\n'));
}

/* The bytes as a file without a disk: its path stays valid until fuzz_file_close. */
struct fuzz_file {
    int fd;
    char path[40];
};

static inline void fuzz_file_open(struct fuzz_file *f, const void *bytes, size_t size) {
    f->fd = memfd_create("fuzz", MFD_CLOEXEC);
    PVA_ASSERT(f->fd >= 0);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(f->fd, (const char *)bytes + done, size - done);
        PVA_ASSERT(n > 0);
        done += (size_t)n;
    }
    snprintf(f->path, sizeof f->path, "/proc/self/fd/%d", f->fd);
}

static inline void fuzz_file_close(struct fuzz_file *f) { close(f->fd); }

#endif
