/*
 * What changes while requests run, one slot per worker. serve keeps it with the worker for the
 * worker's life, simulate in an array. Policies read it, decide.c alone counts in it, the owner
 * sets the rest. All fields are atomics; no lock.
 */
#ifndef PD_ROUTE_SLOT_H
#define PD_ROUTE_SLOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* What a worker said about itself, and when. Written by the code that reads the worker's figures.
 */
struct route_signal {
	_Atomic int32_t waiting, running; /* requests in the engine's queue, and in its batch */
	_Atomic double kv_usage;	  /* the part of its KV memory in use, as it says: 0 to 1 */
	_Atomic int64_t at_ns;		  /* 0: never read */
};

#define ROUTE_ADAPTERS_MAX 32 /* LoRA adapters of a worker that are known by name */

/* Which adapters a worker has loaded and which wait for a place, as hashes of their names
 * (route_adapter()). Readers may see one list older than the other. */
struct route_adapters {
	_Atomic uint32_t nactive, nwaiting; /* distinct names, also those beyond the arrays */
	_Atomic uint32_t max;		    /* places; 0: not known */
	_Atomic uint64_t active[ROUTE_ADAPTERS_MAX], waiting[ROUTE_ADAPTERS_MAX];
};

struct route_slot {
	_Atomic uint32_t in_flight; /* requests picked and not yet ended */
	_Atomic uint64_t picks;	    /* decisions for this worker, ever */
	_Atomic uint64_t tokens;    /* of prompts, to be computed by those in flight */
	/* Healthy, breaker closed, not draining; unavailable workers are never picked. */
	_Atomic bool available;
	/* Most requests in flight; 0 = no cap. A worker at its cap is passed over. */
	_Atomic uint32_t cap;
	_Atomic uint32_t permits; /* picks allowed although the worker is not available: the single
				     probe of a half-open circuit breaker; each pick takes one */
	struct route_signal signal;
	struct route_adapters adapters;
};

/* The time is written last: a reader that loads it first sees figures at least that new. */
static inline void route_signal_set(struct route_signal *s, int32_t waiting, int32_t running,
				    double kv_usage, int64_t at_ns)
{
	atomic_store_explicit(&s->waiting, waiting, memory_order_relaxed);
	atomic_store_explicit(&s->running, running, memory_order_relaxed);
	atomic_store_explicit(&s->kv_usage, kv_usage, memory_order_relaxed);
	atomic_store_explicit(&s->at_ns, at_ns, memory_order_release);
}

static inline uint64_t route_tokens(const struct route_slot *s)
{
	return atomic_load_explicit(&s->tokens, memory_order_relaxed);
}

static inline uint32_t route_load(const struct route_slot *s)
{
	return atomic_load_explicit(&s->in_flight, memory_order_relaxed);
}

/* Is there room below the cap at this number in flight? */
static inline bool route_has_room(const struct route_slot *s, uint32_t in_flight)
{
	uint32_t cap = atomic_load_explicit(&s->cap, memory_order_relaxed);

	return cap == 0 || in_flight < cap;
}

#endif
