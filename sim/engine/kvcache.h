/*
 * The prefix cache of one engine: blocks of a fixed number of tokens, named by a 64-bit hash that
 * stands for the whole prefix up to and including the block. Used by the simulated worker (with
 * pins) and by the simulator (with or without).
 *
 * A block is pinned while at least one request holds it. Otherwise it is in the free list, where it
 * keeps its hash until it is evicted: the free list is the LRU list. Rules of vLLM
 * V1: a hit takes the block out of the free list; freed blocks are appended last block first, so
 * the tail of a prompt is evicted before its head; two blocks may carry the same hash (two requests
 * computed the same prefix at once), and evicting one leaves the other findable.
 *
 * Capacity 0 means unlimited: nothing is evicted. Every operation is O(1) per block. Pure data
 * structure: no clock, no I/O, deterministic. Not thread-safe: the caller locks.
 */
#ifndef PD_SIM_ENGINE_KVCACHE_H
#define PD_SIM_ENGINE_KVCACHE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define KVCACHE_BLOCKS_MAX UINT32_C(0x7fffffff)

struct kvcache;

/* The blocks one request holds, in order of the prompt. Owned array; released by kvcache_unpin.
 * Zero-initialise. */
struct kvcache_pin {
	uint32_t *block; /* block numbers */
	size_t n;
	size_t hits; /* how many of the first blocks came from the cache */
};

struct kvcache_stats {
	size_t capacity;    /* 0: unlimited */
	size_t pinned;	    /* blocks held by requests */
	size_t cached;	    /* blocks with a hash, pinned or not */
	uint64_t evictions; /* evictions: blocks that lost their hash to a new one */
};

/* capacity in blocks, at most KVCACHE_BLOCKS_MAX; memory grows with use, not with capacity. NULL
 * when out of memory. */
struct kvcache *kvcache_new(size_t capacity);
void kvcache_free(struct kvcache *c);

/* How many of the leading hashes are present. Changes nothing, recency included. */
size_t kvcache_match(const struct kvcache *c, const uint64_t *hash, size_t n);

/*
 * One request without pins (routing studies): *hits as by kvcache_match before, then all n blocks
 * are inserted or refreshed from the last to the first, so the first is the most recent. Blocks
 * that find no room because everything is pinned are left out. PD_ENOMEM.
 */
int kvcache_access(struct kvcache *c, const uint64_t *hash, size_t n, size_t *hits) PD_MUST;

/*
 * Holds nblocks blocks: the leading matches among hash[0..max_hits), then fresh ones without a hash
 * (see kvcache_commit). max_hits <= nblocks; the hashes of one request are distinct. All or
 * nothing: PD_EBUSY when too few blocks are free now, PD_ETOOBIG when nblocks can never fit,
 * PD_ENOMEM. `pin` must be empty.
 */
int kvcache_pin(struct kvcache *c, const uint64_t *hash, size_t max_hits, size_t nblocks,
		struct kvcache_pin *pin) PD_MUST;

/* Names block `at` of the pin once its tokens are computed; from now on it can be hit. Nothing when
 * it has a hash already. */
void kvcache_commit(struct kvcache *c, const struct kvcache_pin *pin, size_t at, uint64_t hash);

/* Frees all blocks of the pin, last first, and empties it. Safe on an empty pin. */
void kvcache_unpin(struct kvcache *c, struct kvcache_pin *pin);

/* Forgets the hashes of all blocks that are not pinned. */
void kvcache_clear(struct kvcache *c);

void kvcache_stats(const struct kvcache *c, struct kvcache_stats *out);

#endif
