/*
 * Who of a pool may be picked, given all of them. What a worker is by itself (healthy, its breaker,
 * whether it asked for a pause) is its own; here is what depends on the others:
 *
 * - Breakers never take out more than a part of the workers that can be reached (Envoy's panic
 *   threshold): beyond it the pool is in panic, and all that can be reached may be picked. A single
 *   worker's breaker so takes it never out. Workers that cannot be reached or fail their probes are
 *   not counted and stay out.
 * - A worker that asked for a pause (503 or 429 with Retry-After) is passed over as long as another
 *   one may be picked.
 *
 * route_slot.available of the members is written here only. Thread-safe; the lock is taken with a
 * worker's lock held, never the other way round.
 */
#ifndef PD_ROUTER_ROTATION_H
#define PD_ROUTER_ROTATION_H

#include <pthread.h>
#include <stdatomic.h>

#include "lib/router/config/config.h"

struct worker;

struct rotation {
	pthread_mutex_t lock;
	/* -- under the lock -- */
	struct worker *first; /* the members, by place.next */
	enum worker_role role;
	const struct router_config *cfg; /* NULL: nothing is said */
	int64_t panic_since, degraded_since;
	/* -- -- */
	_Atomic bool panic;
	_Atomic bool degraded;	 /* of the prefill pool: no worker may be picked */
	_Atomic uint64_t panics; /* how often panic began */
};

/* A member's part, in struct worker. Under the rotation's lock. */
struct rotation_place {
	struct rotation *of; /* NULL: of none. Written with the worker's lock held too */
	struct worker *next;
	_Atomic bool usable; /* healthy, not draining; read without the lock too */
	bool closed;	     /* its breaker */
	bool resting;	     /* asked for a pause */
};

int rotation_init(struct rotation *r) PD_MUST;
void rotation_release(struct rotation *r);
/* What the following decisions and lines go by; borrowed. Looks at the pool once. */
void rotation_configure(struct rotation *r, enum worker_role role, const struct router_config *c);
/* With the worker's lock held. */
void rotation_join(struct rotation *r, struct worker *w);
void rotation_leave(struct worker *w);
/* The worker's place says what it is now: decides for all members. */
void rotation_set(struct worker *w, bool usable, bool closed, bool resting);

#endif
