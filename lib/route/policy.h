/*
 * A policy ranks, decide.c counts. A policy yields workers best first, lazily, and never touches a
 * slot's counters; decide.c alone takes a worker, notes what was compared and why, and begins again
 * when it lost a race. What a policy keeps is of three kinds:
 *
 *   table   immutable, made for one set of workers (a ring); goes with the pool
 *   memory  of the policy itself, outlives sets of workers; bounded, keyed by worker id
 *   signal  what a worker said about itself, in its slot (route_slot.h)
 *
 * A new policy is one file in lib/route/policy and one line in policies.c; docs/adding-a-policy.md
 * walks through one. Everything here is called by many threads at once: begin and next only read
 * what is shared, or change it by atomics; learn locks or uses atomics.
 */
#ifndef PD_ROUTE_POLICY_H
#define PD_ROUTE_POLICY_H

#include "lib/route/param.h"
#include "lib/route/pool.h"
#include "lib/route/request.h"

#define ROUTE_WALK_MAX 14592 /* bytes of a ranking under way: 14 per worker and some more */

enum {
	ROUTE_BY_KEY = 1, /* ranks by the request's key; without one `keyless` ranks */
	ROUTE_BY_LOAD =
		2,	 /* ranks by what is in flight: a pick counts only if `seen` still holds */
	ROUTE_DRAWS = 4, /* uses request.draw */
	ROUTE_WANTS_BLOCKS = 8, /* uses request.block */
	ROUTE_WANTS_PARTNER =
		16, /* of a decode pool: prefill is picked first, to be request.partner */
	ROUTE_WANTS_TOKENS = 32,  /* uses request.tokens and request.output_tokens */
	ROUTE_EXPLAINS = 64,	  /* fills request.explain: operators read its decisions */
	ROUTE_WANTS_EVENTS = 256, /* learns from STORED and EVICTED: blocks are those of engines */
	ROUTE_BRIEF = 128, /* `next` changes nothing but its walk: a brief request may stop early */
};

enum route_reason {
	ROUTE_REASON_KEY,      /* the key's home */
	ROUTE_REASON_FAILOVER, /* the next in the key's order: home is unavailable, full or was
				  tried */
	ROUTE_REASON_ROTATION, /* round robin */
	ROUTE_REASON_RANDOM,
	ROUTE_REASON_LOAD,   /* the least loaded of the candidates */
	ROUTE_REASON_NO_KEY, /* a policy by key without a key: least loaded, ties rotate */
	ROUTE_REASON_PREFIX, /* it has computed the beginning of this prompt before */
	ROUTE_REASON_MOVED,  /* home was saturated, and this worker is home from now on */
	ROUTE_REASON_SCORE,  /* the best of what scorers say together */
	ROUTE_REASON_ID,     /* not the policy's: the caller left one worker to choose, which knows
				what the request names */
	ROUTE_REASONS	     /* count */
};

/* What a ranking sees. */
struct route_view {
	const struct route_pool *pool;
	const void *params;
	void *memory;
	_Atomic uint64_t *turn; /* route_turn() */
	const struct route_request *rq;
	unsigned tries; /* how often this decision began again: what was drawn for it is kept */
	bool settled;	/* a worker was taken; what is yielded from here on explains the choice */
};

struct route_choice {
	uint32_t worker;  /* index in the pool */
	uint32_t seen;	  /* BY_LOAD: in flight when it was ranked */
	uint32_t ties;	  /* others that are equally good */
	uint32_t tokens;  /* of the prompt that the worker has to compute; 0: request.tokens */
	bool tokens_stay; /* they are in flight until the request ends, not only until its prompt is
			     computed */
	bool passed;	  /* shown to explain the choice, not to be taken: over its bound */
	double score;
	enum route_reason reason; /* of policies by key: KEY unless the home says otherwise */
};

enum route_event_kind {
	ROUTE_PICKED,	/* decide took the worker; told by decide, with the ranking */
	ROUTE_ENDED,	/* the request left the worker; told by route_end */
	ROUTE_JOINED,	/* the worker is in the pool now */
	ROUTE_LEFT,	/* the worker is not in the pool any more: what is kept of it may go */
	ROUTE_STORED,	/* the worker holds these blocks now */
	ROUTE_EVICTED,	/* the worker does not hold these blocks any more */
	ROUTE_FINISHED, /* the session of the request's key will send no more */
	ROUTE_EVENTS	/* count */
};

/* Borrowed for the call. */
struct route_event {
	enum route_event_kind kind;
	uint64_t worker;		     /* its id; FINISHED: 0 */
	int64_t at_ns;			     /* 0: not known */
	const struct route_request *request; /* PICKED, ENDED (may be NULL), FINISHED */
	const void *walk;		     /* PICKED: the ranking, if it was this policy's own */
	const uint64_t *block;		     /* STORED, EVICTED */
	size_t nblocks;			     /* EVICTED: 0 for all of the worker */
	unsigned tier; /* of these blocks: 0 device, 1 host, 2 external, 3 disk */
};

struct route_policy_type {
	const char *name, *help; /* help: half a line, what it does */
	unsigned flags;
	const struct route_param *params;	 /* ends with ROUTE_PARAM_END; NULL: none */
	size_t params_size;			 /* at most ROUTE_PARAMS_SIZE */
	size_t walk_size;			 /* at most ROUTE_WALK_MAX */
	const struct route_policy_type *keyless; /* BY_KEY: ranks requests without a key */
	/* NULL: no table. The pool has its workers, not its table. */
	int (*table_new)(const struct route_pool *pool, const void *params, void **table,
			 struct pd_msg *msg);
	void (*table_free)(void *table);
	int (*memory_new)(const void *params, void **memory); /* NULL: no memory */
	void (*memory_free)(void *memory);
	/* Begins a ranking in `walk`, which holds what the try before left when v->tries > 0. */
	void (*begin)(const struct route_view *v, void *walk);
	/* The next best worker, each at most once; false: there is no other. Workers that cannot be
	 * picked may be yielded (they explain a failover) and are passed over. */
	bool (*next)(const struct route_view *v, void *walk, struct route_choice *c);
	/* NULL: decide finds out. Why none was yielded, as route_decide returns it; PD_EAGAIN: it
	 * is for decide to find out. */
	int (*none)(const struct route_view *v, void *walk);
	void (*learn)(void *memory, const struct route_event *e); /* NULL: learns nothing */
};

/* The name of the policy that chooses in a pool. */
static inline const char *route_pool_policy(const struct route_pool *p)
{
	return p->state->spec.type->name;
}

/* May this worker be picked, its cap aside? */
static inline bool route_may_pick(const struct route_view *v, uint32_t w)
{
	const struct route_slot *s = v->pool->worker[w].slot;

	if ((v->rq->tried && v->rq->tried[w]) || (v->rq->barred && v->rq->barred[w]))
		return false;
	return atomic_load_explicit(&s->available, memory_order_acquire) ||
	       atomic_load_explicit(&s->permits, memory_order_relaxed) > 0;
}

/* Fills list with the workers that may be picked and have room. Returns how many. */
size_t route_eligible(const struct route_view *v, uint32_t *list);

/* The next number of the policy's counter, for what goes in turns. Outlives sets of workers. */
static inline uint64_t route_turn(const struct route_view *v)
{
	return atomic_fetch_add_explicit(v->turn, 1, memory_order_relaxed);
}

static inline bool route_has_key(const struct route_request *rq)
{
	return rq->key && rq->key->level != ROUTE_KEY_NONE;
}

#endif
