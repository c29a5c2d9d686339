/*
 * The key's place on the ring, and from there the workers as they come: next on the ring, never
 * "the first healthy one". So the sessions of a worker that fails spread over all others, and each
 * returns to its home when the worker comes back.
 */
#include "lib/route/policy/hashing.h"

struct params {
	struct ring_params ring;
	int64_t lookup;
};

static const struct route_param params[] = {
	ROUTE_RING_HASH_PARAM(struct params, ring.hash),
	ROUTE_VNODES_PARAM(struct params, ring.vnodes),
	{.type = ROUTE_PARAM_CHOICE,
	 .name = "ring-lookup",
	 .arg = "next|nearest",
	 .help = "a key's worker is the next on the ring, or the nearest in either direction",
	 .offset = offsetof(struct params, lookup),
	 .choices = "next|nearest"},
	{.type = ROUTE_PARAM_END},
};

static void begin(const struct route_view *v, void *walk)
{
	const struct params *p = v->params;
	const struct ring *r = v->pool->table;

	ring_walk_begin(walk, r, v->pool->n, route_hash(r->hash, v->rq->key->text, v->rq->key->len),
			p->lookup == 1);
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	*c = (struct route_choice){.reason = ROUTE_REASON_KEY};
	return ring_walk_next(walk, v->pool->table, v->pool->n, &c->worker, &c->score);
}

const struct route_policy_type route_policy_consistent_hash = {
	.name = "consistent_hash",
	.help = "a key's requests stay on one worker; a ring decides which",
	.flags = ROUTE_BY_KEY | ROUTE_BRIEF,
	.params = params,
	.params_size = sizeof(struct params),
	.walk_size = sizeof(struct ring_walk),
	.keyless = &route_policy_least_request,
	.table_new = route_ring_table,
	.table_free = route_ring_table_free,
	.begin = begin,
	.next = next,
};
