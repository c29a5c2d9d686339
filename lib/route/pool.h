/*
 * A pool: an immutable list of workers with the rings built over them, and the live slots that
 * decisions count in.
 *
 * A worker's identity on a ring is its name (default: its URL, with "@rank" when it has a rank), so
 * a changed port moves no session. The pool never changes after route_pool_new; a reload builds a
 * new one that points to the same slots. Reading is thread-safe; slots are atomics.
 */
#ifndef PD_ROUTE_POOL_H
#define PD_ROUTE_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/route/hash.h"

#define ROUTE_WORKERS_MAX 1024
#define ROUTE_VNODES	  160
#define ROUTE_VNODES_MAX  65536
#define ROUTE_POINTS_MAX  (1u << 24) /* workers times virtual nodes: 256 MiB of ring */
#define ROUTE_NAME_MAX	  1024	     /* bytes of a worker's name */

/* What changes while requests run. Owned by the caller (serve: one per worker for its life;
 * simulate: an array). */
struct route_slot {
	_Atomic uint32_t in_flight; /* requests picked and not yet released */
	_Atomic uint64_t picks;	    /* decisions for this worker, ever */
	/* Healthy, breaker closed, not draining; unavailable workers are never picked. */
	_Atomic bool available;
	/* Most requests in flight; 0 = no cap. A worker at its cap is passed over. */
	_Atomic uint32_t cap;
	_Atomic uint32_t permits; /* picks allowed although the worker is not available: the single
				     probe of a half-open circuit breaker; each pick takes one */
};

struct route_worker {
	char *name;		 /* owned; identity on the ring */
	struct route_slot *slot; /* borrowed */
};

struct route_point {
	uint64_t pos;
	uint32_t worker;
};

struct route_pool {
	size_t n;
	struct route_worker *worker; /* in configuration order */
	enum route_hash hash;
	unsigned vnodes;
	size_t npoints;
	/* Sorted by pos; equal positions: the later worker won, as in vllm-router. */
	struct route_point *point;
	size_t on_ring; /* workers with at least one point; less than n only when points collide */
};

/*
 * names[i] belongs to slots[i]; names are copied. Virtual node key "{name}:{i}". PD_EINVAL for n >
 * ROUTE_WORKERS_MAX, vnodes out of 1..ROUTE_VNODES_MAX, n * vnodes > ROUTE_POINTS_MAX, an empty
 * name or one longer than ROUTE_NAME_MAX, or two equal names. n may be 0.
 */
int route_pool_new(struct route_pool **out, const char *const *names,
		   struct route_slot *const *slots, size_t n, enum route_hash hash, unsigned vnodes,
		   struct pd_msg *msg) PD_MUST;
void route_pool_free(struct route_pool *p);

/* Index of the first point with pos >= h, else 0. npoints must be > 0. */
size_t route_pool_lookup(const struct route_pool *p, uint64_t h);

#endif
