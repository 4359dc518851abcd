/* utf8.h - what is UTF-8: no overlong forms, no surrogates, nothing beyond U+10FFFF (Unicode 15, table 3-7). */
#ifndef PVA_UTF8_H
#define PVA_UTF8_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of the character at text, 1 to 4; 0 when text[0..n) does not begin with a whole one. */
size_t pva_utf8_length(const char *text, size_t n);

/* Length of the valid UTF-8 at the start of text: n when all of it is. */
size_t pva_utf8_valid_prefix(const char *text, size_t n);

#ifdef __cplusplus
}
#endif
#endif
