/*
 * The ring of consistent hashing: each worker has points on it, virtual node i at the hash of
 * "{name}:{i}", as many times the virtual nodes as its weight says. One flat sorted array: looking
 * up is a binary search over memory that lies together, and two rings of the same names are equal
 * byte for byte, so that several routers agree. Immutable after ring_new, so reading is
 * thread-safe.
 */
#ifndef PD_ROUTE_RING_H
#define PD_ROUTE_RING_H

#include "lib/route/hash.h"
#include "lib/route/pool.h"

#define ROUTE_VNODES	 160
#define ROUTE_VNODES_MAX 65536
#define ROUTE_POINTS_MAX (1u << 24) /* workers times virtual nodes: 256 MiB of ring */

struct ring_point {
	uint64_t pos;
	uint32_t worker;
};

struct ring {
	enum route_hash hash;
	unsigned vnodes;
	size_t npoints;
	/* Sorted by pos; equal positions: the later worker won, as in vllm-router. */
	struct ring_point *point;
	size_t on_ring; /* workers with at least one point; less than n only when points collide */
};

/* PD_EINVAL for vnodes out of 1..ROUTE_VNODES_MAX, or more points than ROUTE_POINTS_MAX. */
int ring_new(struct ring **out, const struct route_pool *pool, enum route_hash hash,
	     unsigned vnodes, struct pd_msg *msg) PD_MUST;
void ring_free(struct ring *r);

/* Index of the first point with pos >= h, else 0. npoints must be > 0. */
size_t ring_lookup(const struct ring *r, uint64_t h);

/*
 * The workers from a place on the ring on, each once: as they come behind it, or (nearest) by their
 * distance in either direction, which levels the shares of a ring with few points. The walk visits
 * distinct workers and not points: with few workers many neighbouring points belong to the worker
 * that was just passed over.
 */
struct ring_walk {
	uint64_t hash;
	size_t at, back, left; /* next point in each direction, points left */
	size_t found, missing; /* distinct workers seen; where the search for pointless ones is */
	bool nearest;
	uint64_t seen[ROUTE_WORKERS_MAX / 64];
};

void ring_walk_begin(struct ring_walk *w, const struct ring *r, size_t n, uint64_t hash,
		     bool nearest);
/* *far is the distance as a fraction of the ring. False: all n were there. */
bool ring_walk_next(struct ring_walk *w, const struct ring *r, size_t n, uint32_t *worker,
		    double *far);

#endif
