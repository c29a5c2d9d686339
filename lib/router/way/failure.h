/*
 * What went wrong last in a request: for the client, the log, the metrics, and for the choice of
 * what follows. An attempt that fails says here what its failure means for the worker.
 */
#ifndef PD_ROUTER_FAILURE_H
#define PD_ROUTER_FAILURE_H

#include "lib/router/config/config.h"
#include "lib/router/watch/metrics.h"
#include "lib/router/way/leg.h"

struct failure {
	int status;
	bool moved; /* the worker stopped responding: to go to another one costs no budget */
	enum worker_role role;	  /* whose failure it was: another attempt avoids that worker */
	enum metrics_cause cause; /* of the last failed attempt */
	bool again;		  /* the same worker may be tried once more */
	int64_t wait;		  /* Retry-After to pass on, ns */
	const char *dropped;	  /* x-llm-d-request-dropped-reason; NULL: none */
	char why[400];		  /* for the client and the log */
	char detail[160];	  /* what TLS, or who read the answer, had to say about it, or "" */
};

/* A failed exchange, for the metrics and the next attempt. */
void failure_note(struct exchange *x, enum worker_role role, enum metrics_cause cause);
/* TLS with a worker failed, and why: for the log, and for the next failure_of_leg. */
void failure_tls(struct exchange *x, struct worker *w, const char *why);
/* What a failed leg says about the worker: breaker, ejection, x->failure. Ends the pick. */
void failure_of_leg(struct exchange *x, enum worker_role role, enum leg_error e);
/* No worker could be picked: what to tell the client. */
void failure_no_worker(struct exchange *x, enum worker_role role, int err);
/* 503 and 429: the worker is busy, not broken. Another one is asked at once; with no other left the
 * client hears it at once, with the worker's Retry-After. */
bool failure_is_load(int status) PD_MUST;
/* What an answer with this status says about its worker. */
enum breaker_verdict failure_verdict(int status);
/* Ends the pick of a whole answer with this status. */
void failure_end_answered(struct exchange *x, enum worker_role role, int status);
/* A status that another attempt may repair. Ends the pick; the leg stays open. */
bool failure_refused(struct exchange *x, const struct leg *l, enum worker_role role);

#endif
