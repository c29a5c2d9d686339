/*
 * A pool: an immutable list of workers, the policy that chooses among them with the table it made
 * for them, and the live slots that decisions count in.
 *
 * A worker's identity is its name (default: its URL, with "@rank" when it has a rank), so a changed
 * port moves no session. The pool never changes after route_pool_new; a reload builds a new one
 * that points to the same slots and, when the policy stays, to the same state. Reading is
 * thread-safe.
 */
#ifndef PD_ROUTE_POOL_H
#define PD_ROUTE_POOL_H

#include "lib/base/err.h"
#include "lib/route/route_slot.h"
#include "lib/route/state.h"

#define ROUTE_WORKERS_MAX 1024
#define ROUTE_NAME_MAX	  1024 /* bytes of a worker's name */

struct route_worker {
	char *name;		 /* owned */
	uint64_t id;		 /* of the name: memories use it, never the index */
	struct route_slot *slot; /* borrowed */
};

struct route_pool {
	size_t n;
	struct route_worker *worker; /* in configuration order */
	struct route_state *state;   /* a reference */
	void *table;		     /* what the policy made for these workers; NULL: none */
};

/*
 * names[i] belongs to slots[i]; names are copied; the pool takes a reference to the state.
 * PD_EINVAL for n > ROUTE_WORKERS_MAX, an empty name or one longer than ROUTE_NAME_MAX, two equal
 * names, or what the policy's table refuses. n may be 0.
 */
int route_pool_new(struct route_pool **out, const char *const *names,
		   struct route_slot *const *slots, size_t n, struct route_state *state,
		   struct pd_msg *msg) PD_MUST;
void route_pool_free(struct route_pool *p);

/*
 * Tells the policy of `now` which workers joined, and which left when `before` had the same policy
 * with the same memory. before NULL: all joined.
 */
void route_pool_announce(const struct route_pool *before, const struct route_pool *now,
			 int64_t at_ns);

#endif
