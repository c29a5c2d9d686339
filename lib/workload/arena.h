/* Texts that stay where they are until all of them go: pieces in blocks. Not thread-safe: one owner
 * while it grows; afterwards reading by many threads is safe. */
#ifndef PD_WORKLOAD_ARENA_H
#define PD_WORKLOAD_ARENA_H

#include <stddef.h>

#include "lib/base/err.h"
#include "lib/base/span.h"

struct arena_block;

struct arena {
	struct arena_block *block; /* owned; the newest first */
	size_t used, max;	   /* bytes handed out; PD_ETOOBIG beyond max */
};

void arena_init(struct arena *a, size_t max);
void arena_release(struct arena *a);
/* A copy that lives as long as the arena. PD_ETOOBIG, PD_ENOMEM. */
int arena_copy(struct arena *a, struct span text, struct span *out) PD_MUST;

#endif
