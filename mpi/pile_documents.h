/* pile_documents.h - general text as documents, and the position of each that is looked at. The same on every rank. */
#ifndef PILE_DOCUMENTS_H
#define PILE_DOCUMENTS_H

#include "engine.h"

struct pile_document {
    int32_t *ids;     /* [position + 1] BOS, then the text's tokens up to the drawn position */
    int32_t n_tokens; /* of the document, BOS included, at most max_tokens */
    int32_t position; /* drawn from 1 .. n_tokens - 1 with (seed, the document's place in the file) */
};

struct pile_documents {
    int64_t n;
    struct pile_document *list; /* [n] */
    int32_t *index;             /* [n] place in the file, from 0 */
    int64_t *costs;             /* [n] tokens to compute */
    int64_t n_empty;            /* documents without a token besides BOS: left out */
    char sha256[65];            /* of the file */
};

/* JSON lines {"text": ...} when the first line begins with '{', else plain text whose documents are separated by blank lines; gzip is understood. The
 * first `most` documents, 0: all. A bad line is PVA_INPUT "FILE:LINE: why". */
int pile_documents_read(const char *path, const struct engine *e, int64_t most, int64_t max_tokens, int64_t seed, struct pile_documents *out, struct pva_error *err);
void pile_documents_free(struct pile_documents *d);

#endif
