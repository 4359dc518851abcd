/* tokenizer_check.h - is this tokenizer.model one that libsentencepiece can be trusted with? Private to src/. */
#ifndef TOKENIZER_CHECK_H
#define TOKENIZER_CHECK_H

#include "pva/error.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Walks the bytes of a ModelProto (protocol buffers) before the library sees them. The library trusts its model: a normalisation
 * table is followed without bounds, more than 64 user-defined symbols that are prefixes of one another overrun an array, and
 * broken vocabularies abort the process. So everything Gemma's tokenizer does not use is refused here, with the reason:
 *   only byte-pair models with byte fallback, an identity normaliser that adds and removes no spaces, no denormaliser;
 *   pieces non-empty, UTF-8, without zero bytes, shorter than 8000 bytes, finite scores, exactly one unknown and all 256 bytes.
 * `name` stands for the file in messages. */
int tokenizer_check(const char *name, const unsigned char *bytes, size_t size, struct pva_error *err);

#ifdef __cplusplus
}
#endif
#endif
