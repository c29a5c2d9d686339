/*
 * decide(): the only code that takes a worker. serve calls it with live slots, simulate with
 * simulated ones; the same requests in the same order against the same slots give the same
 * decisions.
 *
 * No I/O, no clock, no thread: time, randomness and load come in as arguments. Thread-safe for
 * concurrent callers: the pick and the count in flight are one atomic step, so a burst does not
 * herd onto one worker.
 */
#ifndef PD_ROUTE_DECIDE_H
#define PD_ROUTE_DECIDE_H

#include "lib/route/policy.h"

#define ROUTE_CANDIDATES 4

struct route_decision {
	uint32_t worker; /* index in the pool */
	enum route_reason reason;
	uint32_t home; /* by key: the key's first choice, available or not; else = worker */
	bool trial;    /* took a permit: the one request that a worker on probation may get */
	uint32_t ties; /* other candidates that were equally good */
	double score;  /* of the chosen: least_request and power_of_two: its in-flight count before;
			  rendezvous: the hash as a fraction of 2^64; ring: distance on the ring as a
			  fraction */
	uint32_t tokens;  /* counted in the worker's slot until route_computed or route_end */
	bool tokens_stay; /* until route_end */
	double margin;	  /* distance to the runner-up, in the same unit; 0 when there is none, as
			     with a brief request */
	struct {
		uint32_t worker;
		double score;
	} candidate[ROUTE_CANDIDATES]; /* what was compared, best first; brief: up to the chosen */
	uint32_t ncandidates;
	uint64_t draw; /* what the request brought */
};

const char *route_reason_name(enum route_reason r);

/*
 * Picks a worker, raises its in_flight and picks. PD_ENOENT: no worker is available (or all were
 * tried); PD_EBUSY: the available ones are all at their cap; PD_EPROTO: the policy's filters leave
 * none, whatever is available. The caller calls route_end exactly
 * once for each success.
 */
int route_decide(const struct route_pool *pool, const struct route_request *rq,
		 struct route_decision *out) PD_MUST;

/*
 * Counts in what a dry route_decide() of this request found, as it would have been counted then,
 * and lets the policy learn from that ranking (rq->walk), whatever has happened since.
 */
void route_commit(const struct route_pool *pool, const struct route_request *rq,
		  const struct route_decision *d);

/* The request left the worker: its counts fall (rq->counted is the tokens of the decision), and the
 * policy hears of it. rq may be NULL: no tokens were counted. */
void route_end(const struct route_pool *pool, uint32_t worker, const struct route_request *rq);

/*
 * A shadow: with rq->shadow a decision counts nothing, and neither does its end; the policy learns
 * from both as if it was followed. Give it a pool of the same slots with a state of its own.
 */

/* The prompt is computed: its tokens, those of the decision, do not wait at the worker any more.
 * route_end gets none then. */
void route_computed(const struct route_pool *pool, uint32_t worker, uint32_t tokens);

/* The two ends of a prefill/decode pair. */
enum { ROUTE_PREFILL, ROUTE_DECODE, ROUTE_ENDS };

struct route_pair {
	const struct route_pool *pool[ROUTE_ENDS];
	struct route_request request[ROUTE_ENDS]; /* partner is filled in */
	bool prefill_first; /* the other order, as if the decode policy said ROUTE_WANTS_PARTNER */
	/* Asked when the decode worker is picked: is the prompt to be computed by another? NULL:
	 * always. See lib/route/policy/decider.h. */
	bool (*ask)(void *context, struct route_pair *p);
	void *context;
	/* The second worker is one whose label of this name has the first one's value, if one of
	 * them can take the request. n 0: no preference. */
	struct span label;
	bool decode_alone; /* without a prefill worker (PD_ENOENT) decode alone is a success */
	/* results */
	bool local;	  /* `ask` said no: there is no prefill pick */
	uint32_t missing; /* prompt tokens that the decode worker does not have, if `ask` knows */
	struct route_decision decision[ROUTE_ENDS];
	bool picked[ROUTE_ENDS]; /* counted in flight, to be ended by route_end */
	int failed;		 /* the end that has no worker, on failure */
};

/*
 * Both picks in one order everywhere: decode first, so that no prompt is computed that no worker
 * can decode; the second sees the first as its partner. Errors of route_decide for the end
 * `failed`; nothing is counted in flight then.
 */
int route_decide_pair(struct route_pair *p) PD_MUST;

/*
 * The same ranking without counting (for `explain`, simulation of moved keys): the key's order of
 * preference over all workers, filled into order[0..n). Policies by key only; PD_EINVAL otherwise.
 */
int route_order(const struct route_pool *pool, const struct route_key *key,
		uint32_t *order) PD_MUST;

#endif
