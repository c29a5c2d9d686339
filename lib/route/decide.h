/*
 * decide(): the only code that chooses a worker. serve calls it with live slots, simulate with
 * simulated ones; the same requests in the same order against the same slots give the same
 * decisions.
 *
 * No I/O, no clock, no thread: time, randomness and load come in as arguments. Thread-safe for
 * concurrent callers: the pick and the count in flight are one atomic step, so a burst does not
 * herd onto one worker.
 */
#ifndef PD_ROUTE_DECIDE_H
#define PD_ROUTE_DECIDE_H

#include "lib/base/rng.h"
#include "lib/route/key.h"
#include "lib/route/pool.h"

enum route_policy_kind {
	ROUTE_CONSISTENT_HASH,
	ROUTE_RENDEZVOUS_HASH,
	ROUTE_ROUND_ROBIN,
	ROUTE_RANDOM,
	ROUTE_POWER_OF_TWO,
	ROUTE_LEAST_REQUEST,
	ROUTE_POLICIES /* count */
};

/* One policy object per pool and command; its state is the round-robin cursor. */
struct route_policy {
	enum route_policy_kind kind;
	_Atomic uint64_t cursor; /* round robin, and the rotation of ties */
};

enum route_reason {
	ROUTE_REASON_KEY,      /* the key's home on the ring or by score */
	ROUTE_REASON_FAILOVER, /* the next in the key's order: home is unavailable, full or was
				  tried */
	ROUTE_REASON_ROTATION, /* round robin */
	ROUTE_REASON_RANDOM,
	ROUTE_REASON_LOAD,   /* the least loaded of the candidates */
	ROUTE_REASON_NO_KEY, /* hash policy without a key: least loaded, ties rotate */
};

#define ROUTE_CANDIDATES 4

struct route_input {
	const struct route_key *key; /* level NONE: no key */
	const bool *tried;	     /* per worker: do not pick again; NULL: none */
	struct rng *rng;	     /* the caller's own */
};

struct route_decision {
	uint32_t worker; /* index in the pool */
	enum route_reason reason;
	uint32_t home; /* hash policies: the key's first choice, available or not; else = worker */
	bool trial;    /* took a permit: the one request that a worker on probation may get */
	uint32_t ties; /* other candidates that were equally good */
	double score;  /* of the chosen: least_request and power_of_two: its in-flight count before;
			  rendezvous: the hash as a fraction of 2^64; ring: distance on the ring as a
			  fraction */
	double margin; /* distance to the runner-up, in the same unit; 0 when there is none */
	struct {
		uint32_t worker;
		double score;
	} candidate[ROUTE_CANDIDATES]; /* what was compared, best first */
	uint32_t ncandidates;
};

const char *route_policy_name(enum route_policy_kind k);
/* PD_EINVAL with the known names, and the nearest one when it is close. */
int route_policy_parse(const char *name, enum route_policy_kind *out, struct pd_msg *msg) PD_MUST;
const char *route_reason_name(enum route_reason r);
void route_policy_init(struct route_policy *p, enum route_policy_kind k);

/*
 * Picks a worker, raises its in_flight and picks. PD_ENOENT: no worker is available (or all were
 * tried); PD_EBUSY: the available ones are all at their cap. The caller calls route_release exactly
 * once for each success.
 */
int route_decide(struct route_policy *p, const struct route_pool *pool,
		 const struct route_input *in, struct route_decision *out) PD_MUST;
void route_release(struct route_slot *slot);

/*
 * The same choice without counting (for `explain`, simulation of moved keys): the key's order of
 * preference over all workers, filled into order[0..n). Hash policies only; PD_EINVAL otherwise.
 */
int route_order(const struct route_policy *p, const struct route_pool *pool,
		const struct route_key *key, uint32_t *order) PD_MUST;

#endif
