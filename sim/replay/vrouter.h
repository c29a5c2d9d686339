/*
 * The router inside the simulator: a pool of virtual workers and their slots around
 * route_decide(), which is the only code that chooses. Nothing here decides.
 *
 * vrouter_sequence() makes the decisions of serve for these keys in this order, when every request
 * ends before the next begins. A test compares it with the response headers of a running router.
 * Not thread-safe: the owner thread only.
 */
#ifndef PD_SIM_REPLAY_VROUTER_H
#define PD_SIM_REPLAY_VROUTER_H

#include "lib/base/span.h"
#include "lib/route/decide.h"
#include "lib/route/hash.h"

struct vrouter_config {
	const char *const *names; /* identities on the ring, n of them */
	size_t n;
	const struct route_labels *labels; /* of each; NULL: none */
	struct route_spec policy;
	unsigned role; /* of the pool in the dice: 0 plain, 1 prefill, 2 decode */
	uint64_t seed;
};

struct vrouter {
	struct route_pool *pool;
	struct route_slot *slot; /* owned, pool->n of them */
	unsigned role;
	uint64_t seed;
};

int vrouter_init(struct vrouter *v, const struct vrouter_config *cfg, struct pd_msg *msg) PD_MUST;
void vrouter_release(struct vrouter *v);

/* The draw of the request with this number, from 0, as a router with the same seed makes it. */
static inline uint64_t vrouter_draw(const struct vrouter *v, uint64_t number)
{
	return route_dice(v->seed, v->role, number, 0);
}

#define VROUTER_REFUSED UINT32_MAX
#define VROUTER_LOCAL	(UINT32_MAX - 1) /* P/D: no prefill worker, the decode worker does it */

/*
 * Picks for n keys one after the other, each released before the next; worker[i] is the choice or
 * VROUTER_REFUSED when no worker was available.
 */
int vrouter_sequence(struct vrouter *v, const struct span *key, size_t n, uint32_t *worker) PD_MUST;

#endif
