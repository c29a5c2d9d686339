/*
 * The KV memory of one engine, block-exact, by the rules of vLLM's V1 block pool: blocks with a
 * reference count, a prefix cache over the very same blocks, and one queue of free blocks, which is
 * the LRU list.
 *
 * A block is named by a 64-bit hash that stands for all tokens up to its end. A free block keeps
 * its name, and can be hit, until it is taken. Blocks are taken from the queue's head. Freed blocks
 * with a name go to the tail, those without one to the head, in the order that kvpool_drop()
 * states. Several blocks may hold one name: a hit takes the one that was named first. Of the
 * configured blocks one is kept back (vLLM's null block).
 *
 * Every operation is O(1) per block. Memory grows with use, not with capacity. Pure data structure:
 * no clock, deterministic. Not thread-safe.
 */
#ifndef PD_SIM_ENGINE_KVPOOL_H
#define PD_SIM_ENGINE_KVPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define KVPOOL_BLOCKS_MAX UINT32_C(0x7fffffff)

struct kvpool;

struct kvpool_stats {
	size_t usable;	    /* blocks that can be held at once; KVPOOL_BLOCKS_MAX: unlimited */
	size_t held;	    /* by at least one request */
	size_t named;	    /* held or free */
	uint64_t evictions; /* names that were lost because their block was taken */
};

/* usable: blocks beside the null block, at most KVPOOL_BLOCKS_MAX; 0: unlimited. NULL when out of
 * memory. */
struct kvpool *kvpool_new(size_t usable);
void kvpool_free(struct kvpool *p);

/* Blocks that can be taken now: those of the free queue, named ones included. */
size_t kvpool_available(const struct kvpool *p);
void kvpool_stats(const struct kvpool *p, struct kvpool_stats *out);

/* Leading names that are present; *idle (may be NULL): how many of their blocks stand in the free
 * queue. Changes nothing. */
size_t kvpool_match(const struct kvpool *p, const uint64_t *name, size_t n, size_t *idle);

/* Holds the blocks of n names that are all present (see kvpool_match). */
void kvpool_hold(struct kvpool *p, const uint64_t *name, size_t n, uint32_t *block);

/* Holds n blocks from the queue's head; named ones lose their name. n <= kvpool_available(p).
 * PD_ENOMEM: nothing was taken. */
int kvpool_take(struct kvpool *p, uint32_t *block, size_t n) PD_MUST;

/* Names a held block that has no name. */
void kvpool_name(struct kvpool *p, uint32_t block, uint64_t name);

/* One reference less for each block, from the last to the first. Those that are free then: with a
 * name, appended to the tail in that order; without one, put before the head as a group in that
 * order, so that the last block of the request becomes the new head. */
void kvpool_drop(struct kvpool *p, const uint32_t *block, size_t n);

/* A whole request at once, for studies without engines: *hits as kvpool_match() before; then all n
 * blocks are inserted or made the most recent ones, the first block last. Blocks of a prompt that
 * exceeds the memory push out its own tail. No block may be held. */
int kvpool_access(struct kvpool *p, const uint64_t *name, size_t n, size_t *hits) PD_MUST;

/* Told of each name that no block has any more; NULL: nobody. It changes nothing here. */
void kvpool_watch(struct kvpool *p, void (*lost)(void *ctx, uint64_t name), void *ctx);

/* Forgets the names of all free blocks. */
void kvpool_forget(struct kvpool *p);

#endif
