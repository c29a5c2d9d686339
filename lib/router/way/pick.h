/*
 * A pick: one worker that was chosen for a role, counted in flight from the decision until its part
 * of the request has ended. The count goes down once: when the leg's body ends by its framing
 * (leg.h), at the latest with pick_end. Below leg and relay; owner thread: the connection's.
 */
#ifndef PD_ROUTER_PICK_H
#define PD_ROUTER_PICK_H

#include "lib/router/fleet/fleet.h"

struct exchange;

/* What a captured decision had before it: three bits and a number for each worker. */
#define PICK_SEEN_MAX (3 * ROUTE_WORKERS_MAX / 8 + 4 * ROUTE_WORKERS_MAX)

struct pick {
	struct worker *worker; /* headers and logs name it, also after the end; NULL: none */
	struct route_decision decision;
	bool counted;  /* in flight */
	bool decoding; /* among the worker's running decode legs */
	bool sent;     /* a part of the request was sent to the worker (leg.c) */
	bool again; /* nothing was sent, or on a connection that was closed: may be sent there again
		     */
	/* Owned, lazily made, in the pool's order: which workers were tried, then for each of them
	 * whether it may be tried again when no other is left. */
	bool *tried;
	uint64_t began, tick;	      /* of captured decisions: capture.h */
	uint64_t turn;		      /* of the policy, before */
	uint32_t turns;		      /* taken meanwhile, by whomever */
	struct route_explain explain; /* its array is owned, lazily made */
	size_t explain_room;
	const struct worker
		*known; /* it made an id that the request names (follow.c); compared only */
	/* What --shadow-policy picked, for the first attempt (shadow.h). `shadowed`: it decided;
	 * its worker is compared only. */
	bool shadowed, shadow_runs;
	uint64_t shadow_id;
	const struct worker *shadow;
	struct worker *accused; /* a reference; answered 5xx: its fault, or the request's? */
	bool accused_trial;
	bool acquitted; /* two workers answered 5xx: the request's fault, whoever answers so next */
};

/*
 * Chooses a worker of the role into x->pick[role] and counts it in; waits while all are at their
 * cap. PD_ENOENT: none is available; PD_EBUSY: the wait is over; PD_ECANCELED: the client left.
 */
int pick_choose(struct exchange *x, enum worker_role role) PD_MUST;
/* Chooses a prefill and a decode worker, in the order that simulate has too; while it waits none of
 * them is counted. Without a prefill worker decode alone when the configuration allows it: its
 * pick's worker is NULL then. Errors as above; *failed is the role without a worker. */
int pick_choose_pair(struct exchange *x, enum worker_role *failed) PD_MUST;
/* Its answer begins: the prompt does not wait at the worker any more. Again: nothing. */
void pick_computed(struct exchange *x, struct pick *p);
/* The worker has done its part, although the last bytes may still be on their way to the client.
 * Again: nothing. */
void pick_release(struct exchange *x, struct pick *p);
/* What a decision for the role may know of the request; borrowed from it. */
struct route_request pick_request(struct exchange *x, enum worker_role role);
/* Ends the pick: releases it, and the breaker hears the verdict. */
void pick_end(struct exchange *x, enum worker_role role, enum breaker_verdict v);
/*
 * As pick_end, after an answer 5xx. Its verdict waits for the others': when a second worker of the
 * role answers 5xx too it was the request's fault, and no breaker hears of it; else pick_judge
 * counts it as a failure of the worker.
 */
void pick_end_5xx(struct exchange *x, enum worker_role role);
/* A worker of the role has answered otherwise, or there will be no other attempt: who was accused
 * and not acquitted has failed. Again: nothing. */
void pick_judge(struct exchange *x, enum worker_role role);
/* The worker that was picked will not be called: ends the pick, and no answer names the worker. */
void pick_drop(struct exchange *x, enum worker_role role);
/* Do not pick it again in this request; when nothing was sent to it: as long as others are left.
 * True in the second case. */
bool pick_tried(struct exchange *x, enum worker_role role);
/* It has answered, and another worker of the role is to be asked: marks it as tried. False: there
 * is no other. */
bool pick_seek_other(struct exchange *x, enum worker_role role);
/* The picks in x->rec, for the observers. */
void pick_describe(struct exchange *x);
/* Is there a worker of the role that can be reached and was not tried yet? One with an open breaker
 * is the last that such a request is sent to. */
bool pick_has_untried(const struct exchange *x, enum worker_role role);

#endif
