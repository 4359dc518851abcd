/* TensorBoard's event file: records of {length, masked CRC of the length, data, masked CRC of the data}, the data a protocol
 * buffer Event. */
#include "pva/spd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pva_spd_events {
    FILE *file;
    char *path;
};

/* Castagnoli's polynomial, reflected. */
uint32_t pva_spd_crc32c(const void *data, size_t n) {
    const unsigned char *p = data;
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static uint32_t masked(const void *data, size_t n) {
    uint32_t crc = pva_spd_crc32c(data, n);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static size_t put_little(unsigned char *out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) out[i] = (unsigned char)(value >> (8 * i));
    return (size_t)bytes;
}

static size_t put_varint(unsigned char *out, uint64_t value) {
    size_t n = 0;
    for (; value >= 128; value >>= 7) out[n++] = (unsigned char)(value | 128);
    out[n++] = (unsigned char)value;
    return n;
}

static int put_record(struct pva_spd_events *e, const unsigned char *data, size_t n, struct pva_error *err) {
    unsigned char head[12], tail[4];
    put_little(head, n, 8);
    put_little(head + 8, masked(head, 8), 4);
    put_little(tail, masked(data, n), 4);
    if (fwrite(head, 1, 12, e->file) == 12 && fwrite(data, 1, n, e->file) == n && fwrite(tail, 1, 4, e->file) == 4) return PVA_OK;
    return pva_fail(err, PVA_IO, "%s: %s", e->path, strerror(errno));
}

static size_t put_double(unsigned char *out, double value) {
    uint64_t bits;
    memcpy(&bits, &value, 8);
    return put_little(out, bits, 8);
}

int pva_spd_events_open(const char *path, int append, double wall_time, struct pva_spd_events **out, struct pva_error *err) {
    struct pva_spd_events *e = calloc(1, sizeof *e);
    *out = NULL;
    if (!e || !(e->path = strdup(path))) {
        free(e);
        return pva_fail(err, PVA_IO, "out of memory");
    }
    e->file = fopen(path, append ? "ab" : "wb");
    if (!e->file) {
        pva_fail(err, PVA_IO, "%s: %s", path, strerror(errno));
        pva_spd_events_close(&e, err);
        return err->code;
    }
    *out = e;
    if (append && ftell(e->file) > 0) return PVA_OK;
    unsigned char data[64];
    size_t n = 0;
    const char version[] = "brain.Event:2"; /* the first record says which format follows */
    data[n++] = 1 << 3 | 1;                 /* wall_time: double */
    n += put_double(data + n, wall_time);
    data[n++] = 3 << 3 | 2; /* file_version: text */
    data[n++] = sizeof version - 1;
    memcpy(data + n, version, sizeof version - 1);
    return put_record(e, data, n + sizeof version - 1, err);
}

int pva_spd_events_scalar(struct pva_spd_events *e, double wall_time, int64_t step, const char *tag, float value,
                          struct pva_error *err) {
    unsigned char item[320], summary[352], data[400];
    size_t n_tag = strlen(tag), n = 0, n_summary = 0, n_data = 0;
    if (n_tag > 250) return pva_fail(err, PVA_INPUT, "%s: the name of a scalar is longer than 250 bytes", e->path);
    item[n++] = 1 << 3 | 2; /* Summary.Value.tag */
    n += put_varint(item + n, n_tag);
    memcpy(item + n, tag, n_tag);
    n += n_tag;
    item[n++] = 2 << 3 | 5; /* Summary.Value.simple_value: float */
    uint32_t bits;
    memcpy(&bits, &value, 4);
    n += put_little(item + n, bits, 4);
    summary[n_summary++] = 1 << 3 | 2; /* Summary.value */
    n_summary += put_varint(summary + n_summary, n);
    memcpy(summary + n_summary, item, n);
    n_summary += n;
    data[n_data++] = 1 << 3 | 1; /* Event.wall_time */
    n_data += put_double(data + n_data, wall_time);
    data[n_data++] = 2 << 3; /* Event.step */
    n_data += put_varint(data + n_data, (uint64_t)step);
    data[n_data++] = 5 << 3 | 2; /* Event.summary */
    n_data += put_varint(data + n_data, n_summary);
    memcpy(data + n_data, summary, n_summary);
    return put_record(e, data, n_data + n_summary, err);
}

int pva_spd_events_close(struct pva_spd_events **events, struct pva_error *err) {
    struct pva_spd_events *e = *events;
    int status = PVA_OK;
    if (!e) return PVA_OK;
    if (e->file && fclose(e->file)) status = pva_fail(err, PVA_IO, "%s: %s", e->path, strerror(errno));
    free(e->path);
    free(e);
    *events = NULL;
    return status;
}
