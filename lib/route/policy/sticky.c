/*
 * A table of sessions: the first request of a session goes to the worker with the fewest requests
 * in flight, of equal ones to that with the fewest sessions, then to the first in the rendezvous
 * order of the session. It stays there until it is idle for session-ttl-secs, and moves for good
 * when its worker is saturated: more than load-factor times its share in flight, and at least two
 * more than the worker it moves to. Other than with bounded loads it does not come back with the
 * next request, which would cost its prefix once more.
 */
#include "lib/route/policy/hashing.h"
#include "lib/route/policy/ranking.h"
#include "lib/route/policy/sessions.h"

struct params {
	struct session_params session;
	double factor;
};

static const struct route_param params[] = {
	ROUTE_SESSION_PARAMS(struct params, session),
	ROUTE_LOAD_FACTOR_PARAM(struct params, factor),
	{.type = ROUTE_PARAM_END},
};

struct walk {
	uint32_t first[2]; /* before all others: home, and where it would be bound */
	uint32_t n, at;
	enum route_reason reason; /* of the first */
	struct ranking rest;
};

/* The best place for a session that has none: by requests in flight, sessions, rendezvous. */
static uint32_t best_place(const struct route_view *v, uint64_t session)
{
	uint32_t best = ROUTE_NO_WORKER;
	double best_load = 0;
	int64_t best_sessions = 0;
	uint64_t best_rank = 0;

	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_worker *w = &v->pool->worker[i];
		uint32_t in_flight = route_load(w->slot);
		double load = (double)in_flight / w->weight;
		int64_t bound;
		uint64_t rank;

		if (!route_may_pick(v, i) || !route_has_room(w->slot, in_flight) ||
		    (best != ROUTE_NO_WORKER && load > best_load))
			continue;
		bound = sessions_at(v, i);
		rank = route_dice(session, 0, w->id, 0);
		if (best != ROUTE_NO_WORKER && load == best_load &&
		    (bound > best_sessions || (bound == best_sessions && rank < best_rank)))
			continue;
		best = i;
		best_load = load;
		best_sessions = bound;
		best_rank = rank;
	}
	return best;
}

static bool saturated(const struct route_view *v, uint32_t home, uint32_t other)
{
	const struct params *p = v->params;
	const struct route_worker *h = &v->pool->worker[home], *o = &v->pool->worker[other];
	struct route_bound bound;

	if (route_load(h->slot) < route_load(o->slot) + 2)
		return false;
	route_bound_of(&bound, v, p->factor);
	return route_load(h->slot) >= route_bound_at(&bound, h);
}

static void begin(const struct route_view *v, void *walk)
{
	uint64_t session = sessions_id(v->rq);
	uint32_t home = sessions_home(v, session), other = best_place(v, session);
	struct walk *w = walk;

	w->n = w->at = 0;
	w->reason = ROUTE_REASON_KEY;
	if (home == ROUTE_NO_WORKER && other != ROUTE_NO_WORKER)
		home = sessions_claim(v, session, other);
	if (home != ROUTE_NO_WORKER && other != ROUTE_NO_WORKER && other != home &&
	    route_may_pick(v, home) && saturated(v, home, other)) {
		w->first[w->n++] = other;
		w->reason = ROUTE_REASON_MOVED;
	}
	if (home != ROUTE_NO_WORKER)
		w->first[w->n++] = home;
	if (other != ROUTE_NO_WORKER && other != home && w->reason == ROUTE_REASON_KEY)
		w->first[w->n++] = other;
	ranking_begin(&w->rest, v);
	ranking_add_all(&w->rest, v);
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	const struct route_worker *worker;
	struct walk *w = walk;

	*c = (struct route_choice){.reason = ROUTE_REASON_KEY};
	if (w->at < w->n) {
		c->worker = w->first[w->at];
		c->reason = w->at++ == 0 ? w->reason : ROUTE_REASON_KEY;
		c->seen = route_load(v->pool->worker[c->worker].slot);
	} else {
		do {
			if (!ranking_next(&w->rest, v, false, c))
				return false;
		} while ((w->n > 0 && c->worker == w->first[0]) ||
			 (w->n > 1 && c->worker == w->first[1]));
		c->ties = 0;
	}
	worker = &v->pool->worker[c->worker];
	c->score = (double)c->seen / worker->weight;
	return true;
}

const struct route_policy_type route_policy_sticky = {
	.name = "sticky",
	.help = "a session stays where it was first placed, by load; moves when that worker is "
		"saturated",
	.flags = ROUTE_BY_KEY | ROUTE_BY_LOAD,
	.params = params,
	.params_size = sizeof(struct params),
	.walk_size = sizeof(struct walk),
	.keyless = &route_policy_least_request,
	.table_new = sessions_table_new,
	.table_free = sessions_table_free,
	.memory_new = sessions_memory_new,
	.memory_free = sessions_memory_free,
	.begin = begin,
	.next = next,
	.learn = sessions_learn,
};
