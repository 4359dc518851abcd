/* Apache Parquet, as little of it as a table of numbers and texts needs: "PAR1", the pages column by column, a footer in thrift's compact protocol, its length,
 * "PAR1". The numbers of fields and types are those of parquet-format's parquet.thrift. */
#include "table_private.h"

#include "pva/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { ROWS_PER_GROUP = 65536, LARGEST_PAGE = 0x7fffffff };
enum thrift { THRIFT_I32 = 5, THRIFT_I64 = 6, THRIFT_BINARY = 8, THRIFT_LIST = 9, THRIFT_STRUCT = 12 };
enum { PLAIN = 0, RLE = 3, GZIP = 2, DATA_PAGE = 0, REQUIRED = 0, UTF8 = 0 };

/* Bytes that grow. A failed allocation is remembered in `bad`; what follows is ignored. */
struct bytes {
    unsigned char *data;
    size_t n, room;
    int bad;
};

static void add(struct bytes *b, const void *data, size_t n) {
    if (b->bad) return;
    if (b->n + n > b->room) {
        size_t room = 2 * (b->n + n) + 256;
        unsigned char *grown = realloc(b->data, room);
        if (!grown) {
            b->bad = 1;
            return;
        }
        b->data = grown, b->room = room;
    }
    if (n) memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void add_byte(struct bytes *b, unsigned value) {
    unsigned char c = (unsigned char)value;
    add(b, &c, 1);
}

static void add_varint(struct bytes *b, uint64_t value) {
    for (; value > 0x7f; value >>= 7) add_byte(b, (unsigned)(value & 0x7f) | 0x80);
    add_byte(b, (unsigned)value);
}

static void add_zigzag(struct bytes *b, int64_t value) { add_varint(b, (uint64_t)value << 1 ^ (value < 0 ? UINT64_MAX : 0)); }

static void add_little(struct bytes *b, uint64_t value, int n) {
    for (int i = 0; i < n; i++) add_byte(b, (unsigned)(value >> 8 * i & 0xff));
}

/* ---- thrift's compact protocol: fields are numbered in rising order within a struct; *last is the number written before ---- */

static void field(struct bytes *b, int *last, int number, enum thrift type) {
    add_byte(b, (unsigned)(number - *last) << 4 | (unsigned)type); /* differences stay below 16 here */
    *last = number;
}
static void field_i32(struct bytes *b, int *last, int number, int32_t value) {
    field(b, last, number, THRIFT_I32);
    add_zigzag(b, value);
}
static void field_i64(struct bytes *b, int *last, int number, int64_t value) {
    field(b, last, number, THRIFT_I64);
    add_zigzag(b, value);
}
static void binary(struct bytes *b, const char *text) {
    add_varint(b, strlen(text));
    add(b, text, strlen(text));
}
static void field_binary(struct bytes *b, int *last, int number, const char *text) {
    field(b, last, number, THRIFT_BINARY);
    binary(b, text);
}
static void field_list(struct bytes *b, int *last, int number, enum thrift type, int64_t n) {
    field(b, last, number, THRIFT_LIST);
    if (n < 15) add_byte(b, (unsigned)n << 4 | (unsigned)type);
    else add_byte(b, 0xf0 | (unsigned)type), add_varint(b, (uint64_t)n);
}
static void end_struct(struct bytes *b) { add_byte(b, 0); }

/* ---- pages ---- */

static int physical_type(enum pva_column_type type) {
    static const int types[] = {[PVA_COLUMN_BOOL] = 0, [PVA_COLUMN_I32] = 1, [PVA_COLUMN_I64] = 2, [PVA_COLUMN_F32] = 4, [PVA_COLUMN_F64] = 5, [PVA_COLUMN_TEXT] = 6};
    return types[type];
}

static void add_text(struct bytes *b, const char *s) {
    size_t length_at = b->n, n_before;
    add_little(b, 0, 4);
    n_before = b->n;
    for (size_t n, left = strlen(s); left; s += n, left -= n) {
        n = pva_utf8_length(s, left);
        if (n) add(b, s, n);
        else add_byte(b, '?'), n = 1;
    }
    if (b->bad) return;
    for (int i = 0; i < 4; i++) b->data[length_at + (size_t)i] = (unsigned char)((b->n - n_before) >> 8 * i & 0xff);
}

/* PLAIN: little-endian numbers, bits for booleans, length and bytes for texts. */
static void add_values(struct bytes *b, const struct pva_column *c, int64_t first, int64_t n) {
    unsigned bits = 0;
    for (int64_t row = first; row < first + n && !b->bad; row++) switch (c->type) {
        case PVA_COLUMN_BOOL:
            bits |= (unsigned)(((const uint8_t *)c->data)[row] != 0) << ((row - first) & 7);
            if (((row - first) & 7) == 7 || row == first + n - 1) add_byte(b, bits), bits = 0;
            break;
        case PVA_COLUMN_I32:
        case PVA_COLUMN_F32: {
            uint32_t value;
            memcpy(&value, (const char *)c->data + row * 4, 4);
            add_little(b, value, 4);
            break;
        }
        case PVA_COLUMN_I64:
        case PVA_COLUMN_F64: {
            uint64_t value;
            memcpy(&value, (const char *)c->data + row * 8, 8);
            add_little(b, value, 8);
            break;
        }
        case PVA_COLUMN_TEXT: add_text(b, pva_table_text(c, row)); break;
        }
}

static int compress_page(const struct bytes *from, struct bytes *to) {
    z_stream z = {0};
    if (deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) return -1;
    size_t bound = deflateBound(&z, from->n);
    free(to->data);
    *to = (struct bytes){.data = malloc(bound), .room = bound};
    z.next_in = from->data, z.avail_in = (uInt)from->n, z.next_out = to->data, z.avail_out = (uInt)bound;
    int status = to->data ? deflate(&z, Z_FINISH) : Z_MEM_ERROR;
    to->n = z.total_out;
    deflateEnd(&z);
    return status == Z_STREAM_END ? 0 : -1;
}

struct chunk {
    int64_t offset, plain_bytes, stored_bytes; /* both with the page's header */
};

static int write_chunk(const struct pva_column *c, int64_t first, int64_t n, FILE *out, int64_t *at, struct chunk *chunk, struct pva_error *err) {
    struct bytes plain = {0}, packed = {0}, header = {0};
    int last = 0, inner = 0;
    add_values(&plain, c, first, n);
    if (!plain.bad && plain.n > LARGEST_PAGE)
        pva_fail(err, PVA_IO, "column %s: %zu bytes in %lld rows are more than a Parquet page holds (2 GiB): export it as jsonl", c->name, plain.n, (long long)n);
    else if (plain.bad || compress_page(&plain, &packed) || packed.n > LARGEST_PAGE) pva_fail(err, PVA_IO, "out of memory");
    if (!err->code) {
        field_i32(&header, &last, 1, DATA_PAGE);
        field_i32(&header, &last, 2, (int32_t)plain.n);
        field_i32(&header, &last, 3, (int32_t)packed.n);
        field(&header, &last, 5, THRIFT_STRUCT);
        field_i32(&header, &inner, 1, (int32_t)n);
        field_i32(&header, &inner, 2, PLAIN);
        field_i32(&header, &inner, 3, RLE);
        field_i32(&header, &inner, 4, RLE);
        end_struct(&header);
        end_struct(&header);
        if (header.bad) pva_fail(err, PVA_IO, "out of memory");
    }
    if (!err->code) {
        fwrite(header.data, 1, header.n, out);
        fwrite(packed.data, 1, packed.n, out);
        *chunk = (struct chunk){.offset = *at, .plain_bytes = (int64_t)(header.n + plain.n), .stored_bytes = (int64_t)(header.n + packed.n)};
        *at += chunk->stored_bytes;
    }
    free(plain.data), free(packed.data), free(header.data);
    return err->code;
}

/* ---- the footer ---- */

static void add_schema(struct bytes *b, int *last, const struct pva_table *t) {
    int inner = 0;
    field_list(b, last, 2, THRIFT_STRUCT, t->n_columns + 1);
    field_binary(b, &inner, 4, "table");
    field_i32(b, &inner, 5, t->n_columns);
    end_struct(b);
    for (int c = 0; c < t->n_columns; c++) {
        inner = 0;
        field_i32(b, &inner, 1, physical_type(t->columns[c].type));
        field_i32(b, &inner, 3, REQUIRED);
        field_binary(b, &inner, 4, t->columns[c].name);
        if (t->columns[c].type == PVA_COLUMN_TEXT) field_i32(b, &inner, 6, UTF8);
        end_struct(b);
    }
}

static void add_chunk(struct bytes *b, const struct pva_column *c, const struct chunk *chunk, int64_t n_rows) {
    int outer = 0, inner = 0;
    field_i64(b, &outer, 2, chunk->offset);
    field(b, &outer, 3, THRIFT_STRUCT);
    field_i32(b, &inner, 1, physical_type(c->type));
    field_list(b, &inner, 2, THRIFT_I32, 2);
    add_zigzag(b, PLAIN), add_zigzag(b, RLE);
    field_list(b, &inner, 3, THRIFT_BINARY, 1);
    binary(b, c->name);
    field_i32(b, &inner, 4, GZIP);
    field_i64(b, &inner, 5, n_rows);
    field_i64(b, &inner, 6, chunk->plain_bytes);
    field_i64(b, &inner, 7, chunk->stored_bytes);
    field_i64(b, &inner, 9, chunk->offset);
    end_struct(b);
    end_struct(b);
}

static void add_group(struct bytes *b, const struct pva_table *t, const struct chunk *chunks, int64_t n_rows) {
    int last = 0;
    int64_t plain = 0;
    field_list(b, &last, 1, THRIFT_STRUCT, t->n_columns);
    for (int c = 0; c < t->n_columns; c++) add_chunk(b, &t->columns[c], &chunks[c], n_rows), plain += chunks[c].plain_bytes;
    field_i64(b, &last, 2, plain);
    field_i64(b, &last, 3, n_rows);
    end_struct(b);
}

int pva_table_parquet(const struct pva_table *t, FILE *out, struct pva_error *err) {
    struct bytes footer = {0};
    int last = 0;
    int64_t at = 4, n_groups = (t->n_rows + ROWS_PER_GROUP - 1) / ROWS_PER_GROUP;
    struct chunk *chunks = malloc((size_t)t->n_columns * sizeof *chunks + 1);
    if (!chunks) return pva_fail(err, PVA_IO, "out of memory");
    fwrite("PAR1", 1, 4, out);
    field_i32(&footer, &last, 1, 1);
    add_schema(&footer, &last, t);
    field_i64(&footer, &last, 3, t->n_rows);
    field_list(&footer, &last, 4, THRIFT_STRUCT, n_groups);
    for (int64_t g = 0; g < n_groups && !err->code; g++) {
        int64_t first = g * ROWS_PER_GROUP, n = t->n_rows - first < ROWS_PER_GROUP ? t->n_rows - first : ROWS_PER_GROUP;
        for (int c = 0; c < t->n_columns && !err->code; c++) write_chunk(&t->columns[c], first, n, out, &at, &chunks[c], err);
        if (!err->code) add_group(&footer, t, chunks, n);
    }
    field_binary(&footer, &last, 6, "pva-mpi version " PVA_VERSION);
    end_struct(&footer);
    size_t length = footer.n;
    add_little(&footer, length, 4);
    add(&footer, "PAR1", 4);
    if (!err->code && footer.bad) pva_fail(err, PVA_IO, "out of memory");
    if (!err->code) fwrite(footer.data, 1, footer.n, out);
    free(footer.data), free(chunks);
    return err->code;
}
