/* hash_blocks.h - the SHA-256 compression function over whole blocks, twice: the two must agree on every input. */
#ifndef HASH_BLOCKS_H
#define HASH_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

extern const uint32_t sha256_constants[64]; /* fractional parts of the cube roots of the first 64 primes */

void sha256_blocks_portable(uint32_t state[8], const uint8_t *data, size_t n_blocks);

/* With the x86 SHA extensions. sha256_has_instructions tells whether it may be called; elsewhere it does nothing. */
int sha256_has_instructions(void);
void sha256_blocks_instructions(uint32_t state[8], const uint8_t *data, size_t n_blocks);

#endif
