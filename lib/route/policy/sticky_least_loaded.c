/*
 * vllm-router 0.1.17's policy of this name: a new session is bound to the worker with the fewest
 * sessions, of equal ones to that with the highest fbi_hash("{id}:{worker}"); it stays there until
 * it is idle for session-ttl-secs or finished, whatever the load. Requests without a session go to
 * the least loaded worker (vllm-router sends all of them to one).
 */
#include "lib/route/policy/hashing.h"
#include "lib/route/policy/ranking.h"
#include "lib/route/policy/sessions.h"

struct params {
	struct session_params session;
};

static const struct route_param params[] = {
	ROUTE_SESSION_PARAMS(struct params, session),
	{.type = ROUTE_PARAM_END},
};

struct walk {
	uint32_t home;
	bool yielded;
	struct ranking rest;
};

static uint32_t fewest_sessions(const struct route_view *v)
{
	struct span id = sessions_raw(v->rq);
	char text[ROUTE_KEY_MAX + 1 + ROUTE_NAME_MAX];
	uint32_t best = ROUTE_NO_WORKER;
	int64_t fewest = 0;
	uint64_t highest = 0;

	memcpy(text, id.p, id.n);
	text[id.n] = ':';
	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_worker *w = &v->pool->worker[i];
		int64_t sessions = sessions_at(v, i);
		uint64_t hash;

		if (!route_may_pick(v, i) || !route_has_room(w->slot, route_load(w->slot)) ||
		    (best != ROUTE_NO_WORKER && sessions > fewest))
			continue;
		memcpy(text + id.n + 1, w->name, w->name_len);
		hash = route_fbi_hash(text, id.n + 1 + w->name_len);
		if (best != ROUTE_NO_WORKER && sessions == fewest && hash <= highest)
			continue;
		best = i;
		fewest = sessions;
		highest = hash;
	}
	return best;
}

static void begin(const struct route_view *v, void *walk)
{
	uint64_t session = sessions_id(v->rq);
	struct walk *w = walk;

	w->home = sessions_home(v, session);
	if (w->home == ROUTE_NO_WORKER) {
		w->home = fewest_sessions(v);
		if (w->home != ROUTE_NO_WORKER)
			w->home = sessions_claim(v, session, w->home);
	}
	w->yielded = w->home == ROUTE_NO_WORKER;
	ranking_begin(&w->rest, v);
	for (uint32_t i = 0; i < v->pool->n; i++)
		if (i != w->home)
			ranking_add(&w->rest, i, 0, (double)(sessions_at(v, i) + 1));
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;

	*c = (struct route_choice){.reason = ROUTE_REASON_KEY, .worker = w->home};
	if (w->yielded && !ranking_next(&w->rest, v, false, c))
		return false;
	w->yielded = true;
	c->ties = 0;
	c->score = (double)sessions_at(v, c->worker);
	return true;
}

const struct route_policy_type route_policy_sticky_least_loaded = {
	.name = "sticky_least_loaded",
	.help = "vllm-router's: a session is bound to the worker with the fewest sessions",
	.flags = ROUTE_BY_KEY,
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
