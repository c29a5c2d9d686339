/*
 * The one retry loop. A flow (regular.h, pdflow.h) makes one attempt and says what it came to;
 * whether there is another one, and what the client hears when there is none, is decided here.
 */
#ifndef PD_ROUTER_ATTEMPT_H
#define PD_ROUTER_ATTEMPT_H

#include "lib/router/way/leg.h"

struct exchange;
struct pd_prefill_usage;

enum outcome {
	ATTEMPT_DONE,	    /* answered, or the client left */
	ATTEMPT_RETRY,	    /* x->failure says why; nothing was sent to the client */
	ATTEMPT_RETRY_FREE, /* the same, and nothing was sent to a worker: costs no budget */
	ATTEMPT_ELSEWHERE,  /* it does not know what the request names; its leg is open too */
	ATTEMPT_REFUSED, /* a status that another attempt may repair: its leg is open in x->leg */
};

/* Attempts (x->attempt counts them from 0) until one is done, the client left or retries are used
 * up; then the client has an answer. `one_attempt` picks anew each time and has ended its picks
 * when it returns. */
void attempt_run(struct exchange *x, enum outcome (*one_attempt)(struct exchange *x));

/* -- steps that the flows share -- */

/* The workers of an attempt are picked: its clock starts, and the log says why they. */
void attempt_picked(struct exchange *x);
/* Sending to a worker ended with an error: what it means for the worker and for the request. */
enum outcome attempt_failed(struct exchange *x, enum worker_role role, enum leg_error e);
/* The head of the answer of x->leg is here, which is the client's unless another attempt may repair
 * it: passes it on. Leg and pick have ended, but the leg for ATTEMPT_REFUSED. `merge` may be NULL.
 */
enum outcome attempt_answer(struct exchange *x, enum worker_role role,
			    const struct pd_prefill_usage *merge);

#endif
