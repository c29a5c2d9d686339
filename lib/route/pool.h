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

#include <stdbool.h>

#include "lib/base/err.h"
#include "lib/route/route_slot.h"
#include "lib/route/state.h"

#define ROUTE_WORKERS_MAX 1024
#define ROUTE_NAME_MAX	  1024 /* bytes of a worker's name */
#define ROUTE_WEIGHT_MAX  100
#define ROUTE_NO_WORKER	  UINT32_MAX

struct route_worker {
	char *name; /* owned */
	size_t name_len;
	uint64_t id;		 /* of the name: memories use it, never the index */
	struct route_slot *slot; /* borrowed */
	uint32_t weight;	 /* 1 to ROUTE_WEIGHT_MAX */
};

struct route_pool {
	size_t n;
	struct route_worker *worker; /* in configuration order */
	struct route_state *state;   /* a reference */
	void *table;		     /* what the policy made for these workers; NULL: none */
	uint64_t weight;	     /* of all workers */
	bool weighted;		     /* they are not all equal */
	uint16_t *by_id;	     /* owned; places in `worker` by id */
	size_t by_id_mask;
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

/* The place of the worker with this id; ROUTE_NO_WORKER: it is not in the pool. */
uint32_t route_pool_find(const struct route_pool *p, uint64_t id);

/*
 * Tells the policy of `now` which workers joined, and which left when `before` had the same policy
 * with the same memory. before NULL: all joined.
 */
void route_pool_announce(const struct route_pool *before, const struct route_pool *now,
			 int64_t at_ns);

#endif
