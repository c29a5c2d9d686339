#include "lib/route/policy/hashing.h"

int route_ring_table(const struct route_pool *pool, const void *params, void **table,
		     struct pd_msg *msg)
{
	const struct ring_params *p = params;
	struct ring *r;
	int err = ring_new(&r, pool, (enum route_hash)p->hash, (unsigned)p->vnodes, msg);

	*table = r;
	return err;
}

void route_ring_table_free(void *table)
{
	ring_free(table);
}

void route_bound_of(struct route_bound *b, const struct route_view *v, double factor)
{
	uint64_t total = 1, weight = 0;

	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_worker *w = &v->pool->worker[i];
		uint32_t load = route_load(w->slot);

		if (!route_may_pick(v, i) || !route_has_room(w->slot, load))
			continue;
		total += load;
		weight += w->weight;
	}
	b->per_weight = weight ? factor * (double)total / (double)weight : 0;
}
