/* One pool during a replay: its router, engines or caches, and what is counted per worker and per
 * key. Used by replay.c and cluster.c only. */
#ifndef PD_SIM_REPLAY_SIDE_H
#define PD_SIM_REPLAY_SIDE_H

#include "sim/replay/replay.h"

/* What an engine says of itself. */
struct side_load {
	int32_t waiting, running;
	double kv_usage;
};

/* What a router has read of a worker: known now, and read but not known yet. */
struct side_reading {
	struct side_load next;
	int64_t tick; /* when that was read; INT64_MIN: nothing yet */
	bool pending;
};

struct side {
	struct vrouter *router; /* owned, nrouters */
	size_t nrouters;
	bool by_session;
	size_t n;
	uint32_t *flying;	      /* owned, n; requests in flight there, of all routers */
	struct stepcost *cost;	      /* owned, n; of the engines, before slow events */
	struct side_load *load;	      /* owned, n */
	struct side_reading *reading; /* owned, per router and worker; NULL: always current */
	int64_t scrape_ns, delay_ns;
	struct stepper *engine; /* owned, n; NULL when routing only */
	int64_t *watched;	/* owned, n; when the engine's next event in the heap is */
	bool *dirty;		/* owned, n; the engine has to schedule at this instant */
	struct kvpool **cache;	/* owned, n; routing only */
	/* Instead of caches when the requests are computed: per worker, the latest turn of each
	 * session that came here, plus one, and which groups did. owned */
	uint8_t **turns;
	bool **groups;
	struct replay_worker *work; /* owned, n; handed to the result */
	uint32_t
		*last; /* per key: worker of its latest request, VROUTER_REFUSED before the first */
	bool *failed;  /* owned, n: the process is gone */
	bool *broken;  /* per key: has changed its worker */
	uint64_t moves, follow_ups;
	bool hide_keys;
	size_t pool;	 /* index of this pool in the choices of a request */
	uint32_t *alias; /* owned; worker of the trace to worker of this pool, VROUTER_REFUSED: not
			    in this pool */
	uint64_t compared, agreed; /* with the choices of a capture */
	uint64_t reasons[REPLAY_REASONS];
	uint64_t moved[REPLAY_REASONS], moved_gone; /* see struct replay_pool_result */
};

int side_init(struct side *s, const struct simtrace *t, const struct replay_config *cfg,
	      size_t pool, struct pd_msg *msg) PD_MUST;
void side_release(struct side *s);
/* The router that a request comes through. */
size_t side_replica(const struct side *s, const struct simtrace *t, uint32_t req);
static inline struct vrouter *side_router(const struct side *s, const struct simtrace *t,
					  uint32_t req)
{
	return &s->router[s->nrouters > 1 ? side_replica(s, t, req) : 0];
}
void side_available(struct side *s, uint32_t worker, bool is);
/* The engine's state has changed: routers see it at their next scrape. */
void side_signal(struct side *s, uint32_t worker, const struct side_load *load, int64_t now);
/* What the router of this request has read by now. */
void side_refresh(struct side *s, const struct simtrace *t, uint32_t req, int64_t now);

/* A worker joined or left. */
void side_tell(struct side *s, uint32_t worker, enum route_event_kind kind, int64_t now);

/* Brings near what the computed requests behind this one will count: the worker of the session,
 * then (of nearer ones) what that worker has of it. */
static inline void side_prefetch(const struct side *s, const struct simtrace *t, size_t i,
				 size_t ahead)
{
	uint32_t key;

	if (!t->made->key || i + 2 * ahead >= t->n)
		return;
	__builtin_prefetch(&s->last[simtrace_request(t, i + 2 * ahead).key], 1);
	key = simtrace_request(t, i + ahead).key;
	if (s->last[key] < s->n)
		__builtin_prefetch(&s->turns[s->last[key]][t->made->session[i + ahead]], 1);
}

/* The worker's cache is empty again. */
void side_forget(struct side *s, const struct simtrace *t, uint32_t worker);

/* Request number `req` as route_decide() gets it; it borrows *key, which is filled. */
struct route_request side_request(const struct side *s, const struct simtrace *t, uint32_t req,
				  int64_t now, struct route_key *key);
/* Counts a routed request; routing only: its blocks are looked up. PD_ENOMEM. */
int side_routed(struct side *s, const struct simtrace *t, uint32_t req,
		const struct route_decision *d) PD_MUST;
/* So many tokens of its prompt were found in the worker's memory. */
void side_hit(struct side *s, const struct simtrace *t, uint32_t worker, uint32_t tokens);

void side_result(struct side *s, const struct simtrace *t, const struct route_spec *policy,
		 struct replay_pool_result *out);

#endif
