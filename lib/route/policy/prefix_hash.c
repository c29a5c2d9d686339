/*
 * The beginning of the prompt, prefix-tokens long, as a key on the ring, with bounded loads: as in
 * SGLang's model gateway (256 tokens, bound 1.25, else the least loaded of all, without a walk) and
 * KubeAI (the first characters). Prompts of less than a block have no beginning: by session key, or
 * the least loaded.
 */
#include "lib/route/policy/hashing.h"
#include "lib/route/policy/ranking.h"
#include "lib/route/prefix.h"

struct params {
	struct ring_params ring;
	double factor;
	int64_t tokens;
};

static const struct route_param params[] = {
	ROUTE_RING_HASH_PARAM(struct params, ring.hash),
	ROUTE_VNODES_PARAM(struct params, ring.vnodes),
	ROUTE_LOAD_FACTOR_PARAM(struct params, factor),
	{.type = ROUTE_PARAM_INT,
	 .name = "prefix-tokens",
	 .arg = "N",
	 .help = "tokens of the prompt's beginning that are hashed",
	 .offset = offsetof(struct params, tokens),
	 .min = 1,
	 .max = 65536,
	 .fallback = 256},
	{.type = ROUTE_PARAM_END},
};

struct walk {
	uint32_t home;
	double far; /* on the ring */
	bool over, yielded;
	struct ranking rest;
};

/* The first worker on the ring that can be picked; ROUTE_NO_WORKER without a beginning or key. */
static uint32_t home_of(const struct route_view *v, double *far)
{
	const struct params *p = v->params;
	const struct route_request *rq = v->rq;
	const struct ring *r = v->pool->table;
	uint32_t size = rq->block_tokens ? rq->block_tokens : ROUTE_BLOCK_TOKENS, worker;
	size_t blocks = ((size_t)p->tokens + size - 1) / size;
	struct ring_walk walk;
	uint64_t at;

	blocks = blocks < rq->nblocks ? blocks : rq->nblocks;
	if (blocks > 0)
		at = route_hash(r->hash, &rq->block[blocks - 1], sizeof(*rq->block));
	else if (route_has_key(rq))
		at = route_hash(r->hash, rq->key->text, rq->key->len);
	else
		return ROUTE_NO_WORKER;
	ring_walk_begin(&walk, r, v->pool->n, at, false);
	while (ring_walk_next(&walk, r, v->pool->n, &worker, far))
		if (route_may_pick(v, worker))
			return worker;
	return ROUTE_NO_WORKER;
}

static void begin(const struct route_view *v, void *walk)
{
	const struct params *p = v->params;
	struct route_bound bound;
	struct walk *w = walk;

	w->home = home_of(v, &w->far);
	w->yielded = w->home == ROUTE_NO_WORKER;
	w->over = false;
	if (!w->yielded) {
		const struct route_worker *home = &v->pool->worker[w->home];
		uint32_t load = route_load(home->slot);

		route_bound_of(&bound, v, p->factor);
		w->over = !route_has_room(home->slot, load) || load >= route_bound_at(&bound, home);
	}
	ranking_begin(&w->rest, v);
	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_worker *at = &v->pool->worker[i];
		uint32_t load = route_load(at->slot);

		if (route_may_pick(v, i) && route_has_room(at->slot, load) && i != w->home)
			ranking_add(&w->rest, i, load, (double)load / at->weight);
	}
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;

	*c = (struct route_choice){.reason = ROUTE_REASON_LOAD};
	if (!w->yielded && (!w->over || w->rest.n == 0)) {
		w->yielded = true;
		c->worker = w->home;
		c->seen = route_load(v->pool->worker[w->home].slot);
		c->score = (double)c->seen / v->pool->worker[w->home].weight;
		c->reason = ROUTE_REASON_PREFIX;
		return true;
	}
	if (!ranking_next(&w->rest, v, true, c))
		return false;
	if (w->home != ROUTE_NO_WORKER)
		c->reason = ROUTE_REASON_FAILOVER;
	return true;
}

const struct route_policy_type route_policy_prefix_hash = {
	.name = "prefix_hash",
	.help = "the beginning of the prompt on a ring; the least loaded when that worker is over "
		"its bound",
	.flags = ROUTE_BY_LOAD | ROUTE_WANTS_BLOCKS,
	.params = params,
	.params_size = sizeof(struct params),
	.walk_size = sizeof(struct walk),
	.table_new = route_ring_table,
	.table_free = route_ring_table_free,
	.begin = begin,
	.next = next,
};
