/* tokenizer.h - SentencePiece tokenizer.model (Gemma 2's), text to token ids and back.
 * Thread-safe after open. Texts are UTF-8 with explicit length: they may contain zero bytes. */
#ifndef PVA_TOKENIZER_H
#define PVA_TOKENIZER_H

#include "pva/error.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

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

/* No BOS is added: the prompt builder adds it, exactly once. *ids is malloc'ed, the caller frees it. Text that is not UTF-8, or
 * longer than 16 MiB, is refused. User-defined symbols in the text ("<start_of_turn>") become their one token; control tokens
 * ("<bos>") are never made from text. */
int pva_tokenizer_encode(const struct pva_tokenizer *t, const char *text, size_t n_bytes, int32_t **ids, size_t *n_ids,
                         struct pva_error *err);

/* *text is malloc'ed and zero-terminated; *n_bytes excludes the terminator. Control tokens give no text. Ids outside
 * the vocabulary are an error. Bytes that are not UTF-8 give U+FFFD each. Decoding what was encoded gives the text back, except
 * that U+2581, which stands for a space in the vocabulary, comes back as one. */
int pva_tokenizer_decode(const struct pva_tokenizer *t, const int32_t *ids, size_t n_ids, char **text, size_t *n_bytes,
                         struct pva_error *err);

enum pva_tokenizer_direction { PVA_TO_IDS, PVA_TO_TEXT };

/* JSON lines, in order: {"text": ...} to {"ids": [...]}, or the reverse. Other keys are ignored, blank lines skipped. A bad line
 * ends the work: PVA_INPUT "NAME: line N: why", the lines before it are written. add_bos puts the BOS id before each line's.
 * *n_lines: lines written. */
int pva_tokenizer_lines(const struct pva_tokenizer *t, FILE *in, const char *name, FILE *out,
                        enum pva_tokenizer_direction direction, int add_bos, int64_t *n_lines, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
