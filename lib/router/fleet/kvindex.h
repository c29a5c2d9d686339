/*
 * What one engine holds, by its events: its own hashes of blocks, and what the router calls these
 * blocks (the chained hash of their tokens, lib/route/prefix.h). The engine's hashes link parents
 * and removals only, so it does not matter how it makes them.
 *
 * A table of 24 bytes a block, at most KVINDEX_MAX of them. Owner thread only.
 */
#ifndef PD_ROUTER_KVINDEX_H
#define PD_ROUTER_KVINDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define KVINDEX_MAX (1u << 20)

struct kvindex_entry {
	uint64_t hash, block;
	unsigned char tiers; /* a bit for each in which it is; 0: the place is free */
};

struct kvindex {
	struct kvindex_entry *at; /* owned; a power of two */
	size_t cap, n;
};

void kvindex_release(struct kvindex *x);
/* PD_EBUSY: there are KVINDEX_MAX; PD_ENOMEM. */
int kvindex_put(struct kvindex *x, uint64_t hash, uint64_t block, unsigned tier) PD_MUST;
/* False: it is not there. */
bool kvindex_get(const struct kvindex *x, uint64_t hash, uint64_t *block);
/* Not in this tier any more. False: it was not. */
bool kvindex_remove(struct kvindex *x, uint64_t hash, unsigned tier, uint64_t *block);

#endif
