/* tokenizer.h - SentencePiece tokenizer.model (Gemma 2's), text to token ids and back.
 * Thread-safe after open. Texts are UTF-8 with explicit length: they may contain zero bytes. */
#ifndef PVA_TOKENIZER_H
#define PVA_TOKENIZER_H

#include "pva/error.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pva_tokenizer;

/* path: tokenizer.model, or a directory that holds one. */
int pva_tokenizer_open(const char *path, struct pva_tokenizer **out, struct pva_error *err);
void pva_tokenizer_close(struct pva_tokenizer **tokenizer);

int pva_tokenizer_n_vocab(const struct pva_tokenizer *t);
int pva_tokenizer_bos(const struct pva_tokenizer *t); /* -1 when the model has none */
int pva_tokenizer_eos(const struct pva_tokenizer *t);

/* No BOS is added: the prompt builder adds it, exactly once. *ids is malloc'ed, the caller frees it. */
int pva_tokenizer_encode(const struct pva_tokenizer *t, const char *text, size_t n_bytes, int32_t **ids, size_t *n_ids,
                         struct pva_error *err);

/* *text is malloc'ed and zero-terminated; *n_bytes excludes the terminator. Control tokens give no text. Ids outside
 * the vocabulary are an error. */
int pva_tokenizer_decode(const struct pva_tokenizer *t, const int32_t *ids, size_t n_ids, char **text, size_t *n_bytes,
                         struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
