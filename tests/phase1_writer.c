/* Changes records of a finished phase 1 as the scripts ask: phase1_writer RUN SLOT text FILE (the completion becomes the file's content), SLOT FIELD
 * OFFSET (a byte of a field is flipped), SLOT empty. The record is committed anew, so that its checksum holds. */
#include "phase1_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int change(struct store *s, int64_t slot, int argc, char **argv, struct pva_error *err) {
    if (store_reopen(s, slot, err) || !strcmp(argv[3], "empty")) return err->code;
    int field = store_field_index(s, argv[3]);
    if (field < 0 || argc < 5) return pva_fail(err, PVA_USAGE, "no field %s", argv[3]);
    size_t bytes = store_field_bytes(s, field);
    char *data = calloc(1, bytes);
    if (!data) return pva_fail(err, PVA_IO, "out of memory");
    if (field == PHASE1_TEXT) {
        FILE *f = fopen(argv[4], "r");
        int32_t n = f ? (int32_t)fread(data, 1, bytes, f) : -1;
        if (f) fclose(f);
        if (n < 0) pva_fail(err, PVA_INPUT, "%s", argv[4]);
        else store_write(s, slot, PHASE1_N_TEXT, &n, err);
    } else if (!store_read(s, slot, field, data, err)) {
        data[strtoull(argv[4], NULL, 10) % bytes] ^= 1;
    }
    if (!err->code && !store_write(s, slot, field, data, err)) store_commit(s, slot, STORE_DONE, err);
    free(data);
    return err->code;
}

int main(int argc, char **argv) {
    struct pva_error err = {0};
    struct phase1_source source;
    struct phase1_schema schema;
    struct par par;
    struct store *s = NULL;
    if (argc < 4 || par_open(&par, &err)) return 2;
    if (!phase1_source_open(argv[1], &source, &err)) {
        phase1_source_schema(&source, &source.identity, &source.problems, &schema);
        if (!store_open(&par, source.data.path, &schema.store, STORE_RESUME, &s, &err)) change(s, atoll(argv[2]), argc, argv, &err);
    }
    if (s) store_close(&s, &err);
    phase1_source_close(&source);
    par_close(&par);
    if (err.code) fprintf(stderr, "phase1_writer: %s\n", err.msg);
    return err.code;
}
