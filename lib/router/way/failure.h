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
	char why[400]; /* for the client and the log */
	char tls[160]; /* what TLS had to say about it, or "" */
	int status;
	bool moved; /* the worker stopped responding: to go to another one costs no budget */
	enum worker_role role;	  /* whose failure it was: another attempt avoids that worker */
	enum metrics_cause cause; /* of the last failed attempt */
	int64_t wait;		  /* Retry-After to pass on, or to wait, ns */
};

/* A failed exchange, for the metrics and the next attempt. */
void failure_note(struct exchange *x, enum worker_role role, enum metrics_cause cause);
/* TLS with a worker failed, and why: for the log, and for the next failure_of_leg. */
void failure_tls(struct exchange *x, struct worker *w, const char *why);
/* What a failed leg says about the worker: breaker, ejection, x->failure. Ends the pick. */
void failure_of_leg(struct exchange *x, enum worker_role role, enum leg_error e);
/* No worker could be picked: what to tell the client. */
void failure_no_worker(struct exchange *x, enum worker_role role, int err);
/* A status that another attempt may repair. Ends the pick; the leg stays open. */
bool failure_refused(struct exchange *x, const struct leg *l, enum worker_role role);

#endif
