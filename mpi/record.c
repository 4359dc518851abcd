#include "record.h"

#include <stdlib.h>
#include <string.h>

void record_fields(struct store_field *f, int64_t max_new) {
    int64_t text = max_new * RECORD_BYTES_PER_TOKEN;
    const struct store_field all[RECORD_N_FIELDS] = {
        [RECORD_N_NEW] = {.name = "n_new", .type = STORE_I32, .units = "token", .long_name = "tokens generated, end of text not counted"},
        [RECORD_TOKENS] = {.name = "tokens", .type = STORE_I32, .n_dims = 1, .dims = {{"step", max_new}}, .long_name = "generated token ids, then zeros"},
        [RECORD_FINISH] = {.name = "finish", .type = STORE_U8,
                           .long_name = "why generation ended: 0 end of text, 1 token limit, 2 nothing could change the program any more, 3 repetition loop, "
                                        "4 the logits were not numbers"},
        [RECORD_N_TEXT] = {.name = "n_text", .type = STORE_I32, .units = "byte", .long_name = "length of the completion; more than the text's size: cut there"},
        [RECORD_TEXT] = {.name = "text", .type = STORE_BYTES, .text_size = text, .long_name = "completion, UTF-8"},
        [RECORD_N_PROGRAM] = {.name = "n_program", .type = STORE_I32, .units = "byte", .long_name = "length of the program; more than its size: cut there"},
        [RECORD_PROGRAM] = {.name = "program", .type = STORE_BYTES, .text_size = text, .long_name = "the program that was graded"},
        [RECORD_VERDICT] = {.name = "verdict", .type = STORE_U8,
                            .long_name = "0 pass, 1 assertion, 2 exception, 3 syntax, 4 timeout, 5 memory, 6 sandbox, 7 no-code, 8 grader error"},
        [RECORD_FAILED_TEST] = {.name = "failed_test", .type = STORE_I32, .long_name = "index of the test that failed, -1: none, or before the tests"},
        [RECORD_EXCEPTION] = {.name = "exception", .type = STORE_BYTES, .text_size = PHASE1_EXCEPTION_SIZE, .long_name = "type of the exception"},
    };
    memcpy(f, all, sizeof all);
}

/* `n` bytes into a field of fixed size: cut where they do not fit, filled up with zeros. */
static int write_padded(struct store *s, int64_t slot, int field, const void *data, size_t n, struct pva_error *err) {
    size_t size = store_field_bytes(s, field);
    char *padded = calloc(1, size + 1);
    if (!padded) return pva_fail(err, PVA_IO, "out of memory");
    memcpy(padded, data, n < size ? n : size);
    store_write(s, slot, field, padded, err);
    free(padded);
    return err->code;
}

static int write_i32(struct store *s, int64_t slot, int field, int64_t value, struct pva_error *err) {
    int32_t v = (int32_t)value;
    return store_write(s, slot, field, &v, err);
}

static int write_u8(struct store *s, int64_t slot, int field, int value, struct pva_error *err) {
    uint8_t v = (uint8_t)value;
    return store_write(s, slot, field, &v, err);
}

int record_write(const struct phase1_item *item, const struct pva_grade_result *g, struct store *s, struct pva_error *err) {
    int64_t slot = item->slot;
    if (write_i32(s, slot, RECORD_N_NEW, item->n_new, err) || write_padded(s, slot, RECORD_TOKENS, item->tokens, (size_t)item->n_new * 4, err) ||
        write_u8(s, slot, RECORD_FINISH, (int)item->finish, err) || write_i32(s, slot, RECORD_N_TEXT, (int64_t)item->n_text, err) ||
        write_padded(s, slot, RECORD_TEXT, item->text, item->n_text, err) || write_i32(s, slot, RECORD_N_PROGRAM, (int64_t)item->n_program, err) ||
        write_padded(s, slot, RECORD_PROGRAM, item->program, item->n_program, err) || write_u8(s, slot, RECORD_VERDICT, (int)g->verdict, err) ||
        write_i32(s, slot, RECORD_FAILED_TEST, g->failed_test, err))
        return err->code;
    return write_padded(s, slot, RECORD_EXCEPTION, g->kind, strlen(g->kind), err);
}

int record_write_none(struct store *s, int64_t slot, struct pva_error *err) {
    if (write_u8(s, slot, RECORD_VERDICT, PVA_NO_CODE, err)) return err->code;
    return write_i32(s, slot, RECORD_FAILED_TEST, -1, err);
}

int record_degenerate(int finish, int verdict) { return finish == PHASE1_LOOP || finish == PHASE1_NAN || verdict == PVA_NO_CODE; }
