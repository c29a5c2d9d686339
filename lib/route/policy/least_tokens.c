/*
 * The worker where the fewest tokens wait: prompt tokens of requests in flight that are not yet
 * computed, those of this prompt that the worker would have to compute (what it got before counts
 * as cached), and expected output of requests in flight. Requests differ by a factor of a thousand
 * in work, so their number says little; llm-d's token-load-scorer is of the same kind.
 */
#include <stdlib.h>

#include "lib/route/policy/prefixes.h"
#include "lib/route/policy/ranking.h"

struct params {
	int64_t blocks, output;
};

static const struct route_param params[] = {
	PREFIXES_PARAM(struct params, blocks),
	{.type = ROUTE_PARAM_INT,
	 .name = "expected-output-tokens",
	 .arg = "N",
	 .help = "what the answer of a request in flight counts, in prompt tokens",
	 .offset = offsetof(struct params, output),
	 .min = 0,
	 .max = 1048576,
	 .fallback = 64},
	{.type = ROUTE_PARAM_END},
};

static int memory_new(const void *given, void **memory)
{
	const struct params *p = given;
	struct holdings *h;
	int err = holdings_new(&h, 0, (size_t)p->blocks);

	*memory = h;
	return err;
}

static void memory_free(void *memory)
{
	holdings_free(memory);
}

struct walk {
	struct ranking rest;
	uint32_t missing[ROUTE_WORKERS_MAX]; /* tokens of the prompt to compute there */
};

static uint32_t missing_at(const struct route_request *rq, uint32_t blocks)
{
	uint64_t all = prefixes_tokens(rq), cached = prefixes_cached(rq, blocks);

	return all > cached ? (uint32_t)(all - cached) : all > 0 ? 1 : 0;
}

static void begin(const struct route_view *v, void *walk)
{
	const struct params *p = v->params;
	struct holdings_match match[ROUTE_WORKERS_MAX];
	struct walk *w = walk;

	holdings_match(v->memory, v->pool, v->rq->block, v->rq->nblocks, match);
	ranking_begin(&w->rest, v);
	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_worker *at = &v->pool->worker[i];
		uint32_t load = route_load(at->slot);
		double cost = (double)route_tokens(at->slot) + (double)p->output * load;

		w->missing[i] = missing_at(v->rq, match[i].device);
		if (route_may_pick(v, i) && route_has_room(at->slot, load))
			ranking_add(&w->rest, i, load, (cost + w->missing[i]) / at->weight);
	}
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;

	*c = (struct route_choice){.reason = ROUTE_REASON_LOAD};
	if (!ranking_next(&w->rest, v, true, c))
		return false;
	c->tokens = w->missing[c->worker];
	return true;
}

static void learn(void *memory, const struct route_event *e)
{
	if (e->kind == ROUTE_PICKED)
		holdings_add(memory, e->worker, TIER_DEVICE, e->request->block,
			     e->request->nblocks);
	else if (e->kind == ROUTE_LEFT)
		holdings_drop_worker(memory, e->worker);
}

const struct route_policy_type route_policy_least_tokens = {
	.name = "least_tokens",
	.help = "the worker with the fewest tokens to compute, with those of this prompt that it "
		"does not have",
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
