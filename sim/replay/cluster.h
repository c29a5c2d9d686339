/*
 * Requests on the engines of a replay: from the decision to the last token, with hand-over,
 * transfers and failures. Used by replay.c only, which says when.
 */
#ifndef PD_SIM_REPLAY_CLUSTER_H
#define PD_SIM_REPLAY_CLUSTER_H

#include "lib/workload/schedule.h"
#include "sim/engine/links.h"
#include "sim/replay/events.h"
#include "sim/replay/side.h"

#define CLUSTER_WORKER_BITS 16 /* of an event's subject; the pool is above */

/* The order at one instant. */
enum cluster_kind { CLUSTER_STEP, CLUSTER_POOL_EVENT, CLUSTER_RETRY };

/* A request in flight. */
struct flight {
	struct flight *prev, *next; /* of all; `next` also links the spare ones */
	uint32_t req;
	uint32_t worker[REPLAY_POOLS];
	uint32_t counted[REPLAY_POOLS];
	bool counts_stay[REPLAY_POOLS]; /* until the end, not only until the prompt is computed */
	struct seq seq[REPLAY_POOLS];
	int64_t first;
	unsigned attempt;	   /* from 0 */
	bool counts[REPLAY_POOLS]; /* in flight there */
	bool answered;		   /* the client has got a token */
	bool local;		   /* P/D: the decode worker computes the prompt */
	bool over;		   /* nothing is left but blocks that prefill keeps */
};

struct cluster {
	const struct simtrace *t;
	const struct replay_config *cfg;
	struct replay_result *out;
	struct side side[REPLAY_POOLS];
	struct events heap;
	struct links links;
	struct flight *flights, *spare; /* owned */
	const uint32_t *successor; /* borrowed; per request, or NULL; see replay.h on answers */
	uint32_t *dirty;	   /* owned; engines that schedule at this instant */
	size_t ndirty;
	struct schedule *order; /* borrowed: who comes next */
	int64_t now, last_done;
	uint32_t in_flight;
	struct route_decider *decider[REPLAY_ROUTERS_MAX]; /* borrowed; NULL: always remote */
	size_t routed;					   /* requests so far */
	bool *others;  /* owned, per worker: all but the forced one */
	size_t window; /* of the result, that they are in */
	int err;       /* of a callback */
};

void cluster_release(struct cluster *c);

/* Makes room for the lists; the sides are there. */
int cluster_init(struct cluster *c) PD_MUST;

/* Starts a request that was counted in on d[0..npools), `local`: on d[1] alone. PD_ETOOBIG: it can
 * never fit, and nothing was started. */
int cluster_start(struct cluster *c, uint32_t req, const struct route_decision *d,
		  bool local) PD_MUST;
/* The event's request tries again with this decision; d NULL: there is no worker for it, which is a
 * failed attempt, too. */
int cluster_retry(struct cluster *c, struct flight *f, const struct route_decision *d,
		  bool local) PD_MUST;
/* It left the worker of this pool. */
void cluster_end(struct cluster *c, uint32_t req, size_t pool, uint32_t worker, uint32_t counted);
/* It has ended, whatever came of it: what waits for it may come. */
void cluster_over(struct cluster *c, uint32_t req);
void cluster_completed(struct cluster *c, uint32_t req, const struct flight *f);

/* An event of the heap; stale ones are ignored. */
int cluster_step(struct cluster *c, uint32_t subject, int64_t at) PD_MUST;
int cluster_transfers(struct cluster *c) PD_MUST;
/* All engines that something happened to schedule. */
int cluster_schedule(struct cluster *c) PD_MUST;

/* The decider of the router that this request comes through. */
struct route_decider *cluster_decider(struct cluster *c, uint32_t req);

/* From now on its steps take so many times as long. */
int cluster_slow(struct cluster *c, uint32_t pool, uint32_t worker, double factor) PD_MUST;

/* The engine is gone: its memory is empty. Of its requests those that have not answered yet are
 * tried again after a pause, as often as the configuration says; the others are lost. */
int cluster_fail(struct cluster *c, uint32_t pool, uint32_t worker) PD_MUST;

#endif
