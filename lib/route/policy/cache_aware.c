/*
 * The default of vllm-router and of SGLang's model gateway (SMG): the worker that got the longest
 * part of this prompt before, unless the workers are unevenly loaded.
 *
 *	most in flight - least > balance-abs-threshold, and most > least * balance-rel-threshold:
 *		the least loaded
 *	else the best match, if it is more than cache-threshold of the prompt: of the workers with
 *		exactly this match the least loaded
 *	else	the least loaded (vllm-router), or the one with the smallest tree (SMG)
 *
 * The tree is approximate: blocks of 16 tokens of text, not the engine's tokens, so that no engine
 *is asked (vllm-router has every worker tokenize every prompt), and a worker without such a route
 *costs nothing. It sees whole chats. Each worker's part is trimmed to max-tree-size characters, the
 * least recently used first: at once, or every eviction-interval seconds. Ties take turns; `first`
 * is vllm-router's rule, by which light traffic stays on one worker.
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "lib/route/policy/prefixes.h"
#include "lib/route/policy/ranking.h"

#define BEHIND 1e6 /* more than is ever in flight */

struct params {
	double threshold, balance_rel, interval;
	int64_t balance_abs, tree, blocks, ties, cold;
};

static const struct route_param params[] = {
	{.type = ROUTE_PARAM_REAL,
	 .name = "cache-threshold",
	 .arg = "F",
	 .help = "part of the prompt that a worker must have got before to be chosen for it",
	 .offset = offsetof(struct params, threshold),
	 .min = 0,
	 .max = 1,
	 .fallback = 0.3},
	{.type = ROUTE_PARAM_INT,
	 .name = "balance-abs-threshold",
	 .arg = "N",
	 .help = "difference in requests in flight from which on load decides",
	 .offset = offsetof(struct params, balance_abs),
	 .min = 0,
	 .max = 1000000,
	 .fallback = 64},
	{.type = ROUTE_PARAM_REAL,
	 .name = "balance-rel-threshold",
	 .arg = "F",
	 .help = "and the factor between most and least in flight",
	 .offset = offsetof(struct params, balance_rel),
	 .min = 0,
	 .max = 1000000,
	 .fallback = 1.5},
	{.type = ROUTE_PARAM_REAL,
	 .name = "eviction-interval",
	 .alias = "eviction-interval-secs",
	 .arg = "SECS",
	 .help = "how often trees are trimmed to --max-tree-size; 0: always",
	 .offset = offsetof(struct params, interval),
	 .min = 0,
	 .max = 31536000,
	 .fallback = 120},
	{.type = ROUTE_PARAM_INT,
	 .name = "max-tree-size",
	 .arg = "CHARS",
	 .help = "characters of prompts that are remembered of a worker",
	 .offset = offsetof(struct params, tree),
	 .min = 64,
	 .max = 9007199254740992.0,
	 .fallback = 33554432},
	{.type = ROUTE_PARAM_CHOICE,
	 .name = "cache-ties",
	 .arg = "turns|first",
	 .help = "of equally loaded workers each in turn, or (vllm-router) the first of the list",
	 .offset = offsetof(struct params, ties),
	 .choices = "turns|first"},
	{.type = ROUTE_PARAM_CHOICE,
	 .name = "cache-miss",
	 .arg = "least-loaded|smallest-tree",
	 .help = "where prompts go that no worker knows; smallest-tree is SMG's",
	 .offset = offsetof(struct params, cold),
	 .choices = "least-loaded|smallest-tree"},
	PREFIXES_PARAM(struct params, blocks),
	{.type = ROUTE_PARAM_END},
};

struct memory {
	struct holdings *held;
	size_t per_worker;
	int64_t interval;
	_Atomic int64_t trimmed;
};

static void memory_free(void *memory)
{
	struct memory *m = memory;

	if (m)
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
	m->per_worker = (size_t)p->tree / ROUTE_BLOCK_BYTES;
	m->per_worker = m->per_worker > 0 ? m->per_worker : 1;
	m->interval = (int64_t)(p->interval * 1e9);
	err = holdings_new(&m->held, m->interval > 0 ? 0 : m->per_worker, (size_t)p->blocks);
	if (err) {
		free(m);
		return err;
	}
	*memory = m;
	return PD_OK;
}

struct walk {
	struct ranking rest;
	uint32_t missing[ROUTE_WORKERS_MAX];
	enum route_reason reason;
	bool turns;
};

/* Are the workers so unevenly loaded that the cache does not count? */
static bool uneven(const struct params *p, uint32_t least, uint32_t most)
{
	return most - least > (uint64_t)p->balance_abs && most > least * p->balance_rel;
}

static void begin(const struct route_view *v, void *walk)
{
	const struct params *p = v->params;
	struct memory *m = v->memory;
	struct holdings_match match[ROUTE_WORKERS_MAX];
	uint32_t least = UINT32_MAX, most = 0, best = 0;
	struct walk *w = walk;
	bool by_cache, by_tree;

	holdings_match(m->held, v->pool, v->rq->block, v->rq->nblocks, match);
	w->turns = p->ties == 0;
	for (uint32_t i = 0; i < v->pool->n; i++) {
		uint32_t load = route_load(v->pool->worker[i].slot);
		uint64_t all = prefixes_tokens(v->rq),
			 cached = prefixes_cached(v->rq, match[i].device);

		w->missing[i] = all > cached ? (uint32_t)(all - cached) : all > 0 ? 1 : 0;
		if (!route_may_pick(v, i) || !route_has_room(v->pool->worker[i].slot, load))
			continue;
		least = load < least ? load : least;
		most = load > most ? load : most;
		best = match[i].device > best ? match[i].device : best;
	}
	by_cache = best > 0 && !uneven(p, least, most) &&
		   (double)prefixes_cached(v->rq, best) >
			   p->threshold * (double)prefixes_tokens(v->rq);
	by_tree = !by_cache && p->cold == 1 && !uneven(p, least, most);
	w->reason = by_cache ? ROUTE_REASON_PREFIX : ROUTE_REASON_LOAD;
	ranking_begin(&w->rest, v);
	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_worker *at = &v->pool->worker[i];
		uint32_t load = route_load(at->slot);
		double cost = by_tree ? (double)holdings_count(m->held, at->id) : load;

		if (!route_may_pick(v, i) || !route_has_room(at->slot, load))
			continue;
		/* Those without the match stand behind all that have it. */
		ranking_add(&w->rest, i, load,
			    cost + (by_cache && match[i].device != best ? BEHIND : 0));
	}
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;
	bool first = !w->rest.begun;

	*c = (struct route_choice){.reason = ROUTE_REASON_LOAD};
	if (!ranking_next(&w->rest, v, w->turns, c))
		return false;
	c->reason = first ? w->reason : ROUTE_REASON_FAILOVER;
	c->score = c->seen;
	c->tokens = w->missing[c->worker];
	return true;
}

static void learn(void *memory, const struct route_event *e)
{
	struct memory *m = memory;
	int64_t last = atomic_load_explicit(&m->trimmed, memory_order_relaxed);

	if (e->kind == ROUTE_LEFT)
		holdings_drop_worker(m->held, e->worker);
	if (e->kind != ROUTE_PICKED)
		return;
	holdings_add(m->held, e->worker, TIER_DEVICE, e->request->block, e->request->nblocks);
	if (m->interval > 0 && e->at_ns - last >= m->interval &&
	    atomic_compare_exchange_strong(&m->trimmed, &last, e->at_ns))
		holdings_trim(m->held, m->per_worker);
}

const struct route_policy_type route_policy_cache_aware = {
	.name = "cache_aware",
	.help = "vllm-router's and SMG's: the worker that got most of the prompt before, unless "
		"the load is uneven",
	.flags = ROUTE_BY_LOAD | ROUTE_WANTS_BLOCKS | ROUTE_WANTS_TOKENS,
	.params = params,
	.params_size = sizeof(struct params),
	.walk_size = sizeof(struct walk),
	.memory_new = memory_new,
	.memory_free = memory_free,
	.begin = begin,
	.next = next,
	.learn = learn,
};
