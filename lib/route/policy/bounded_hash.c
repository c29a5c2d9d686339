/*
 * Consistent hashing with bounded loads: the first worker from the key's place on the ring that has
 * fewer than load-factor times its share of all requests in flight. Without memory: a session whose
 * home is over the bound goes elsewhere for this request and comes back with the next one.
 */
#include "lib/route/policy/hashing.h"

#define PATIENCE 100

struct params {
	struct ring_params ring;
	double factor;
};

static const struct route_param params[] = {
	ROUTE_RING_HASH_PARAM(struct params, ring.hash),
	ROUTE_VNODES_PARAM(struct params, ring.vnodes),
	ROUTE_LOAD_FACTOR_PARAM(struct params, factor),
	{.type = ROUTE_PARAM_END},
};

struct walk {
	struct route_bound bound;
	struct ring_walk ring;
};

static void begin(const struct route_view *v, void *walk)
{
	const struct params *p = v->params;
	const struct ring *r = v->pool->table;
	struct walk *w = walk;

	route_bound_of(&w->bound, v, p->factor);
	ring_walk_begin(&w->ring, r, v->pool->n,
			route_hash(r->hash, v->rq->key->text, v->rq->key->len), false);
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;

	*c = (struct route_choice){.reason = ROUTE_REASON_KEY};
	if (!ring_walk_next(&w->ring, v->pool->table, v->pool->n, &c->worker, &c->score))
		return false;
	c->seen = route_load(v->pool->worker[c->worker].slot);
	/* When races were lost again and again the bound must not be why nobody is found. */
	c->passed = v->tries < PATIENCE &&
		    c->seen >= route_bound_at(&w->bound, &v->pool->worker[c->worker]);
	return true;
}

const struct route_policy_type route_policy_bounded_hash = {
	.name = "bounded_hash",
	.help = "as consistent_hash, but past workers that have more than their share in flight",
	.flags = ROUTE_BY_KEY | ROUTE_BY_LOAD,
	.params = params,
	.params_size = sizeof(struct params),
	.walk_size = sizeof(struct walk),
	.keyless = &route_policy_least_request,
	.table_new = route_ring_table,
	.table_free = route_ring_table_free,
	.begin = begin,
	.next = next,
};
