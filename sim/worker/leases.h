/*
 * KV blocks that a prefill worker keeps for a decode worker, under a lease. An entry is live until
 * it is read or its lease has ended; afterwards a tombstone stays, which tells a second read and a
 * late read from an unknown id. All leases last equally long, so the oldest live one is the next to
 * expire. Bounded by LEASES_MAX entries: the oldest tombstone goes first.
 * Not thread-safe: the caller locks.
 */
#ifndef PD_SIM_WORKER_LEASES_H
#define PD_SIM_WORKER_LEASES_H

#include <stdint.h>

#include "lib/base/span.h"

#define LEASES_MAX   65536
#define LEASES_SLOTS 16384

enum lease_state { LEASE_LIVE, LEASE_READ, LEASE_EXPIRED };

struct core_job;

/* Blocks that a finished job of the engine keeps. */
struct lease_blocks {
	struct core_job *job;  /* NULL: none */
	const uint32_t *block; /* the job's */
	size_t n;
};

struct lease {
	enum lease_state state;
	struct lease_blocks held; /* live only */
	uint64_t prompt_hash;	  /* of all prompt tokens */
	int64_t expires;	  /* monotonic ns */
	char *request_id;	  /* remote_request_id; owned, with xid in one allocation */
	char *xid;		  /* X-Request-Id of the prefill leg; "" when it had none */
	struct lease *chain, *older, *newer;
};

struct lease_list {
	struct lease *oldest, *newest;
	size_t n;
};

struct lease_table {
	struct lease *slot[LEASES_SLOTS];
	struct lease_list live, dead;
};

void leases_init(struct lease_table *t);
/* Frees the entries; blocks must have been taken out before (leases_due with time INT64_MAX). */
void leases_release(struct lease_table *t);
/* NULL when out of memory. */
struct lease *leases_add(struct lease_table *t, struct span request_id, struct span xid,
			 int64_t expires, const struct lease_blocks *held);
struct lease *leases_find(const struct lease_table *t, struct span request_id);
/* The oldest live lease that has ended at `now`, or NULL. */
struct lease *leases_due(const struct lease_table *t, int64_t now);
/* Ends a live lease and hands its blocks to the caller; the entry becomes a tombstone. */
void leases_end(struct lease_table *t, struct lease *l, enum lease_state state,
		struct lease_blocks *held);

#endif
