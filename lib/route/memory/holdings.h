/*
 * Which worker holds which blocks: the approximate prefix tree of cache_aware and least_tokens
 * (learnt from picks) and the index of kv_aware (learnt from events of the workers). As a block's
 * hash stands for everything up to it, a tree is a table: a worker's match is the number of leading
 * blocks that it holds.
 *
 * Bounded twice: blocks of a worker (the least recently used goes first), and blocks in all, where
 * the worker with the most gives. Memory grows with what is held, up to the second bound: 32 bytes
 * a block and 4 to 8 for the table. Thread-safe: one lock, held for as long as the blocks of a
 * prompt take.
 */
#ifndef PD_ROUTE_HOLDINGS_H
#define PD_ROUTE_HOLDINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/route/pool.h"

#define HOLDINGS_MAX (64u << 20) /* blocks in all */

/* Where a worker has a block, best first. */
enum holdings_tier { TIER_DEVICE, TIER_HOST, TIER_EXTERNAL, TIER_DISK, TIERS };

struct holdings;

int holdings_new(struct holdings **out, size_t per_worker, size_t in_all) PD_MUST;
void holdings_free(struct holdings *h);
size_t holdings_bytes(struct holdings *h);
size_t holdings_count(struct holdings *h, uint64_t worker); /* blocks of a worker */
size_t holdings_all(struct holdings *h);

/* The worker holds these blocks, which are as good as new. Without memory some are missing. */
void holdings_add(struct holdings *h, uint64_t worker, enum holdings_tier tier,
		  const uint64_t *block, size_t n);
/* It does not hold them any more in this tier (TIERS: in none). */
void holdings_remove(struct holdings *h, uint64_t worker, enum holdings_tier tier,
		     const uint64_t *block, size_t n);
void holdings_drop_worker(struct holdings *h, uint64_t worker);
/* Down to `per_worker` blocks each: for a bound that is kept now and then instead of always. */
void holdings_trim(struct holdings *h, size_t per_worker);

/* How much of a prompt a worker has: leading blocks on its device, and the longest run of one other
 * tier that begins within or right behind them. */
struct holdings_match {
	uint32_t device;
	uint32_t end;  /* of that run; device when there is none */
	uint32_t tier; /* of that run */
};

/* For each worker of the pool. match[pool->n]. */
void holdings_match(struct holdings *h, const struct route_pool *pool, const uint64_t *block,
		    size_t n, struct holdings_match *match);

#endif
