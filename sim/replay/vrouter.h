/*
 * The router inside the simulator: a pool of virtual workers, their slots, one policy object and
 * one random stream around route_decide(), which is the only code that chooses. Nothing here
 * decides.
 *
 * vrouter_sequence() answers the question "what does serve do with these keys in this order": every
 * request ends before the next begins. A test compares it with the response headers of a running
 * router. Not thread-safe: the owner thread only.
 */
#ifndef PD_SIM_REPLAY_VROUTER_H
#define PD_SIM_REPLAY_VROUTER_H

#include "lib/base/rng.h"
#include "lib/base/span.h"
#include "lib/route/decide.h"
#include "lib/route/pool.h"

struct vrouter_config {
	const char *const *names; /* identities on the ring, n of them */
	size_t n;
	enum route_policy_kind policy;
	enum route_hash hash;
	unsigned vnodes;
	uint64_t seed;
};

struct vrouter {
	struct route_pool *pool;
	struct route_slot *slot; /* owned, pool->n of them */
	struct route_policy policy;
	struct rng rng;
	struct route_key key; /* scratch */
};

int vrouter_init(struct vrouter *v, const struct vrouter_config *cfg, struct pd_msg *msg) PD_MUST;
void vrouter_release(struct vrouter *v);

/* Picks a worker and counts it in flight; errors of route_decide. An empty key means none. */
int vrouter_pick(struct vrouter *v, struct span key, struct route_decision *out) PD_MUST;
/* The request on this worker ended: once for each pick. */
void vrouter_done(struct vrouter *v, uint32_t worker);

#define VROUTER_REFUSED UINT32_MAX

/*
 * Picks for n keys one after the other, each released before the next; worker[i] is the choice or
 * VROUTER_REFUSED when no worker was available.
 */
int vrouter_sequence(struct vrouter *v, const struct span *key, size_t n, uint32_t *worker) PD_MUST;

/* True for the policies that give a key a home. */
bool vrouter_has_homes(enum route_policy_kind policy);

#endif
