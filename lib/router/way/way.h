/*
 * What the requests of a router share below its entry: whom they may ask, what limits them, who
 * watches. Borrowed parts outlive the servers; the rest is thread-safe.
 */
#ifndef PD_ROUTER_WAY_H
#define PD_ROUTER_WAY_H

#include "lib/route/policy/decider.h"
#include "lib/router/fleet/catalog.h"
#include "lib/router/fleet/fleet.h"
#include "lib/router/fleet/health.h"
#include "lib/router/fleet/kvfollow.h"
#include "lib/router/watch/request_record.h"
#include "lib/router/way/flowgate.h"
#include "lib/router/way/follow.h"
#include "lib/router/way/gate.h"
#include "lib/router/way/retry.h"

struct way {
	/* borrowed */
	const struct router_config *cfg;
	struct fleet_holder *fleet;
	struct health *health;
	struct catalog *catalog; /* NULL: any worker takes any model */
	struct watch watch;
	const struct kvfollow *events; /* NULL: none are followed */
	/* its own */
	struct gate gate;
	struct flowgate *flow; /* before the gate; NULL: no flow control of --epp-config */
	struct retry_budget budget;
	struct follow_table follow;
	struct route_decider *decider; /* of P/D; NULL: all requests are prefilled remotely */
	uint64_t seed;
	_Atomic unsigned lanes;
	_Atomic uint64_t decisions;	     /* requests that made one: the number in their dice */
	_Atomic unsigned embeddings_waiting; /* in the gate's queue */
	_Atomic uint64_t loops;		     /* requests that had passed this router before */
	struct buf own;			     /* memory of own_lines */
	struct span own_lines; /* what we add to every request for a worker: Via, Authorization */
	struct span via;       /* our name in Via; lies in own_lines */
	bool drop_credentials; /* the client's Authorization and X-Api-Key end here */
};

/* `keyed`: clients bring keys of ours, which workers need not see. The borrowed parts are set by
 * the caller. PD_ENOMEM. */
int way_init(struct way *w, bool keyed) PD_MUST;
/* Both queues of admission: flow control's and the gate's. */
struct way_queues {
	uint64_t waiting, queued, full, timed_out, left;
	uint64_t saturation; /* percent; 0 without flow control */
};
struct way_queues way_queues(struct way *w);
/* After way_init, also when that failed. */
void way_release(struct way *w);

#endif
