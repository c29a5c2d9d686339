/*
 * What the policies share: private to lib/route. Thread-safe like route_decide.
 */
#ifndef PD_ROUTE_CHOICE_H
#define PD_ROUTE_CHOICE_H

#include "lib/route/decide.h"

#define ROUTE_BITS (ROUTE_WORKERS_MAX / 64)

/* A set of workers. */
struct route_set {
	uint64_t word[ROUTE_BITS];
};

static inline void route_set_clear(struct route_set *s, size_t n)
{
	for (size_t i = 0; i < (n + 63) / 64; i++)
		s->word[i] = 0;
}

static inline bool route_set_has(const struct route_set *s, uint32_t w)
{
	return s->word[w / 64] >> (w % 64) & 1;
}

static inline void route_set_add(struct route_set *s, uint32_t w)
{
	s->word[w / 64] |= (uint64_t)1 << (w % 64);
}

/* May this worker be picked, its cap aside? */
static inline bool route_may_pick(const struct route_pool *pool, const struct route_input *in,
				  uint32_t w)
{
	if (in->tried && in->tried[w])
		return false;
	return atomic_load_explicit(&pool->worker[w].slot->available, memory_order_acquire) ||
	       atomic_load_explicit(&pool->worker[w].slot->permits, memory_order_relaxed) > 0;
}

/* Is there room below the cap at this number in flight? */
static inline bool route_has_room(const struct route_slot *s, uint32_t in_flight)
{
	uint32_t cap = atomic_load_explicit(&s->cap, memory_order_relaxed);

	return cap == 0 || in_flight < cap;
}

static inline uint32_t route_load(const struct route_slot *s)
{
	return atomic_load_explicit(&s->in_flight, memory_order_relaxed);
}

/* Counts one more request unless the worker is at its cap. *before gets the number in flight
 * before. */
bool route_acquire(struct route_slot *s, uint32_t *before);
/* Counts one more request only if there are still exactly `expected` in flight. */
bool route_acquire_at(struct route_slot *s, uint32_t expected);

/* Appends a candidate while there is room. */
void route_note(struct route_decision *d, uint32_t worker, double score);

/* Fills list with the workers that may be picked and have room; *why says what is wrong when there
 * are none. */
size_t route_eligible(const struct route_pool *pool, const struct route_input *in, uint32_t *list,
		      int *why);

/* The policies. PD_ENOENT and PD_EBUSY as route_decide. */
int route_pick_ring(const struct route_pool *pool, const struct route_input *in,
		    struct route_decision *d) PD_MUST;
int route_pick_rendezvous(const struct route_pool *pool, const struct route_input *in,
			  struct route_decision *d) PD_MUST;
int route_pick_least(struct route_policy *p, const struct route_pool *pool,
		     const struct route_input *in, struct route_decision *d) PD_MUST;
int route_pick_rotation(struct route_policy *p, const struct route_pool *pool,
			const struct route_input *in, struct route_decision *d) PD_MUST;
int route_pick_random(const struct route_pool *pool, const struct route_input *in,
		      struct route_decision *d) PD_MUST;
int route_pick_two(const struct route_pool *pool, const struct route_input *in,
		   struct route_decision *d) PD_MUST;

void route_order_ring(const struct route_pool *pool, const struct route_key *key, uint32_t *order);
void route_order_rendezvous(const struct route_pool *pool, const struct route_key *key,
			    uint32_t *order);

#endif
