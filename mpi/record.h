/* record.h - the fields of one completion and its verdict, in the files of phase3 and steer. The prompt is phase 1's and is not repeated. */
#ifndef RECORD_H
#define RECORD_H

#include "phase1_item.h"
#include "store.h"

enum record_field {
    RECORD_N_NEW,
    RECORD_TOKENS,
    RECORD_FINISH,
    RECORD_N_TEXT,
    RECORD_TEXT,
    RECORD_N_PROGRAM,
    RECORD_PROGRAM,
    RECORD_VERDICT,
    RECORD_FAILED_TEST,
    RECORD_EXCEPTION,
    RECORD_N_FIELDS
};

enum { RECORD_BYTES_PER_TOKEN = 4 };

/* fields [RECORD_N_FIELDS]; max_new: room for generated tokens. 0: for a reader, whatever the file has. */
void record_fields(struct store_field *fields, int64_t max_new);

/* Writes the fields; commits nothing. */
int record_write(const struct phase1_item *item, const struct pva_grade_result *grade, struct store *s, struct pva_error *err);
/* The fields of a problem without a completion: no code. */
int record_write_none(struct store *s, int64_t slot, struct pva_error *err);

/* Loops, has no code, or its logits were no numbers. */
int record_degenerate(int finish, int verdict);

#endif
