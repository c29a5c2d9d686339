/*
 * vllm-router 0.1.17's policy of this name: where workers say what they hold (KV events, told as
 * STORED and EVICTED; the index is memory/holdings), by cost.
 *
 *	new   = prompt tokens to compute: all, less the leading blocks on the device (at most
 *		floor((n - 1) / block)), less the run in one other tier that begins within or right
 *		behind them, times that tier's credit; at least 1
 *	cost  = (new + tokens that wait there) * (requests in flight there + 1)
 *
 * The least cost wins; of costs of 0 tokens and requests decide. With router-temperature T > 0 a
 * worker is drawn with the weight exp(-(cost - least) / T). With kv-aware-session-affinity-ttl-secs
 * a session keeps its worker whatever the load, until it is idle for so long.
 *
 * That a prompt was sent to a worker does not count: without events this is a policy by load.
 */
#include <math.h>
#include <stdlib.h>

#include "lib/route/policy/hashing.h"
#include "lib/route/policy/prefixes.h"
#include "lib/route/policy/ranking.h"
#include "lib/route/policy/sessions.h"

struct params {
	double temperature, host, external, disk, ttl;
	int64_t blocks;
};

#define CREDIT(NAME, MEMBER, WHERE, DEFAULT)                                                       \
	{                                                                                          \
		.type = ROUTE_PARAM_REAL, .name = NAME, .arg = "F",                                \
		.help = "what a block " WHERE " is worth, beside 1 on the device",                 \
		.offset = offsetof(struct params, MEMBER), .min = 0, .max = 1,                     \
		.fallback = (DEFAULT)                                                              \
	}

static const struct route_param params[] = {
	{.type = ROUTE_PARAM_REAL,
	 .name = "router-temperature",
	 .arg = "T",
	 .help = "above 0 workers are drawn by their cost, in tokens times requests",
	 .offset = offsetof(struct params, temperature),
	 .min = 0,
	 .max = 1e12,
	 .fallback = 0},
	CREDIT("kv-penalty-host", host, "in host memory", 0.8),
	CREDIT("kv-penalty-external", external, "in an external pool", 0.6),
	CREDIT("kv-penalty-disk", disk, "on disk", 0.3),
	{.type = ROUTE_PARAM_REAL,
	 .name = "kv-aware-session-affinity-ttl-secs",
	 .arg = "SECS",
	 .help = "sessions keep their worker until they are idle for so long; 0: they do not",
	 .offset = offsetof(struct params, ttl),
	 .min = 0,
	 .max = 31536000,
	 .fallback = 0},
	PREFIXES_PARAM(struct params, blocks),
	{.type = ROUTE_PARAM_END},
};

struct memory {
	struct sessions sessions; /* first: what sessions_*() take; empty without affinity */
	struct holdings *held;
};

static void memory_free(void *memory)
{
	struct memory *m = memory;

	if (!m)
		return;
	bindings_free(m->sessions.bindings);
	holdings_free(m->held);
	free(m);
}

static int memory_new(const void *given, void **memory)
{
	const struct params *p = given;
	struct memory *m = calloc(1, sizeof(*m));
	int err;

	*memory = NULL;
	if (!m)
		return PD_ENOMEM;
	err = holdings_new(&m->held, 0, (size_t)p->blocks);
	if (!err && p->ttl > 0)
		err = bindings_new(&m->sessions.bindings, 10000, (int64_t)(p->ttl * 1e9), NULL);
	if (err) {
		memory_free(m);
		return err;
	}
	*memory = m;
	return PD_OK;
}

struct walk {
	struct ranking rest;
	uint32_t missing[ROUTE_WORKERS_MAX];
	uint32_t home, drawn; /* yielded before the others */
	enum route_reason reason;
	uint32_t at;
};

/* Tokens to compute at a worker, rounded up. */
static uint32_t new_tokens(const struct params *p, const struct route_request *rq,
			   const struct holdings_match *m)
{
	const double credit[TIERS] = {1, p->host, p->external, p->disk};
	uint64_t n = prefixes_tokens(rq), size = prefixes_block_tokens(rq);
	uint64_t most = n > 0 ? (n - 1) / size : 0;
	uint64_t device = m->device < most ? m->device : most,
		 end = m->end > device ? m->end : device;
	double cached;

	if (n == 0)
		return 0;
	cached = ((double)device +
		  (double)(end - device) * (m->end > m->device ? credit[m->tier] : 0)) *
		 (double)size;
	cached = cached < (double)(n - 1) ? cached : (double)(n - 1);
	return (uint32_t)ceil((double)n - cached);
}

static double cost_of(const struct route_view *v, uint32_t worker, uint32_t missing)
{
	const struct route_slot *s = v->pool->worker[worker].slot;
	double tokens = (double)missing + (double)route_tokens(s);

	return tokens * (route_load(s) + 1);
}

/* The worker that the dice give, by weight exp(-(cost - least) / T). */
static uint32_t draw_one(const struct route_view *v, const struct walk *w, double temperature)
{
	double least = INFINITY, sum = 0, at;
	uint32_t last = ROUTE_NO_WORKER;

	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_slot *s = v->pool->worker[i].slot;

		if (route_may_pick(v, i) && route_has_room(s, route_load(s)))
			least = fmin(least, cost_of(v, i, w->missing[i]));
	}
	for (int pass = 0; pass < 2; pass++) {
		at = (double)(route_below(v->rq->draw, 0, UINT64_C(1) << 53)) / 9007199254740992.0 *
		     sum;
		for (uint32_t i = 0; i < v->pool->n; i++) {
			const struct route_slot *s = v->pool->worker[i].slot;
			double weight;

			if (!route_may_pick(v, i) || !route_has_room(s, route_load(s)))
				continue;
			weight = exp(-(cost_of(v, i, w->missing[i]) - least) / temperature);
			last = i;
			if (pass == 0)
				sum += weight;
			else if ((at -= weight) < 0)
				return i;
		}
	}
	return last;
}

static bool has_session(const struct route_request *rq)
{
	return route_has_key(rq) && rq->key->level == ROUTE_KEY_SESSION && sessions_named(rq);
}

static void begin(const struct route_view *v, void *walk)
{
	const struct params *p = v->params;
	struct memory *m = v->memory;
	struct holdings_match match[ROUTE_WORKERS_MAX];
	struct walk *w = walk;

	w->home = w->drawn = ROUTE_NO_WORKER;
	w->at = 0;
	w->reason = ROUTE_REASON_LOAD;
	if (m->sessions.bindings && has_session(v->rq))
		w->home = sessions_home(v, sessions_id(v->rq));
	holdings_match(m->held, v->pool, v->rq->block, v->rq->nblocks, match);
	for (uint32_t i = 0; i < v->pool->n; i++) {
		w->missing[i] = new_tokens(p, v->rq, &match[i]);
		if (match[i].end > 0)
			w->reason = ROUTE_REASON_PREFIX;
	}
	if (w->home == ROUTE_NO_WORKER && p->temperature > 0)
		w->drawn = draw_one(v, w, p->temperature);
	ranking_begin(&w->rest, v);
	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_slot *s = v->pool->worker[i].slot;
		uint32_t load = route_load(s);

		if (route_may_pick(v, i) && route_has_room(s, load) && i != w->home &&
		    i != w->drawn) /* costs of 0: by requests */
			ranking_add(&w->rest, i, load,
				    cost_of(v, i, w->missing[i]) + (double)load / 4096);
	}
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;
	uint32_t only = w->home != ROUTE_NO_WORKER ? w->home : w->drawn;
	bool first = w->at++ == 0;

	*c = (struct route_choice){.reason = first ? w->reason : ROUTE_REASON_FAILOVER};
	if (first && only != ROUTE_NO_WORKER) {
		c->worker = only;
		c->seen = route_load(v->pool->worker[only].slot);
		if (only == w->home)
			c->reason = ROUTE_REASON_KEY;
	} else if (!ranking_next(&w->rest, v, true, c)) {
		return false;
	}
	c->tokens = w->missing[c->worker];
	c->score = cost_of(v, c->worker, c->tokens);
	return true;
}

static enum holdings_tier tier_of(const struct route_event *e)
{
	return e->tier < TIERS ? (enum holdings_tier)e->tier : TIER_DEVICE;
}

static void learn(void *memory, const struct route_event *e)
{
	struct memory *m = memory;

	switch (e->kind) {
	case ROUTE_STORED:
		holdings_add(m->held, e->worker, tier_of(e), e->block, e->nblocks);
		break;
	case ROUTE_EVICTED: /* without blocks: all of them, as after a gap in the events */
		if (e->nblocks > 0)
			holdings_remove(m->held, e->worker, tier_of(e), e->block, e->nblocks);
		else
			holdings_drop_worker(m->held, e->worker);
		break;
	case ROUTE_LEFT:
		holdings_drop_worker(m->held, e->worker);
		break;
	default:
		break;
	}
	if (m->sessions.bindings &&
	    (e->kind == ROUTE_LEFT || (e->request && has_session(e->request))))
		sessions_learn(&m->sessions, e);
}

const struct route_policy_type route_policy_kv_aware = {
	.name = "kv_aware",
	.help = "vllm-router's: the least cost by blocks that workers report, tokens and requests",
	.flags = ROUTE_BY_LOAD | ROUTE_DRAWS | ROUTE_WANTS_BLOCKS | ROUTE_WANTS_TOKENS |
		 ROUTE_WANTS_EVENTS,
	.params = params,
	.params_size = sizeof(struct params),
	.walk_size = sizeof(struct walk),
	.memory_new = memory_new,
	.memory_free = memory_free,
	.begin = begin,
	.next = next,
	.learn = learn,
};
