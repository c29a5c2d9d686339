/*
 * The one definition of a prefix block: a block's hash is the XXH3 of its bytes seeded with the
 * hash of the block before it, so equal hashes mean equal beginnings. Of text a block is
 * ROUTE_BLOCK_BYTES of the JSON of `messages`, `prompt` or `input`; of token ids it is a block of
 * ids. Pure, thread-safe.
 */
#ifndef PD_ROUTE_PREFIX_H
#define PD_ROUTE_PREFIX_H

#include <stddef.h>
#include <stdint.h>

#define ROUTE_TOKEN_BYTES                                                                          \
	4u /* bytes of text that stand for a token where tokens are not counted                    \
	    */
#define ROUTE_BLOCK_TOKENS 16u /* of a block, unless configured otherwise */
#define ROUTE_BLOCK_BYTES  (ROUTE_BLOCK_TOKENS * ROUTE_TOKEN_BYTES)
#define ROUTE_BLOCKS_MAX   4096 /* blocks of a prompt that a decision looks at */

/* The hash of one block of n bytes behind `parent` (0, or a seed: there is none). */
uint64_t route_block(uint64_t parent, const void *p, size_t n);

/*
 * Hashes of the full blocks of `block` bytes each, at most `max` of them, into out. Returns how
 * many there are.
 */
size_t route_blocks(uint64_t parent, const void *p, size_t n, size_t block, uint64_t *out,
		    size_t max);

#endif
