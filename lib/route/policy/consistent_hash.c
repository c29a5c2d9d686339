/*
 * The key's place on the ring, and from there the workers as they come: next on the ring, never
 * "the first healthy one". So the sessions of a worker that fails spread over all others, and each
 * returns to its home when the worker comes back.
 *
 * The walk visits distinct workers and not points: with few workers many neighbouring points belong
 * to the worker that was just passed over.
 */
#include "lib/route/policy/hashing.h"
#include "lib/route/policy/ring.h"

struct params {
	int64_t hash, vnodes;
};

static const struct route_param params[] = {
	ROUTE_RING_HASH_PARAM(struct params, hash),
	{.type = ROUTE_PARAM_INT,
	 .name = "virtual-nodes",
	 .alias = "vnodes",
	 .arg = "N",
	 .help = "points per worker on the ring",
	 .offset = offsetof(struct params, vnodes),
	 .min = 1,
	 .max = ROUTE_VNODES_MAX,
	 .fallback = ROUTE_VNODES},
	{.type = ROUTE_PARAM_END},
};

static int table_new(const struct route_pool *pool, const void *given, void **table,
		     struct pd_msg *msg)
{
	const struct params *p = given;
	struct ring *r;
	int err = ring_new(&r, pool, (enum route_hash)p->hash, (unsigned)p->vnodes, msg);

	*table = r;
	return err;
}

static void table_free(void *table)
{
	ring_free(table);
}

struct walk {
	uint64_t hash;
	size_t at, left;       /* next point, points left */
	size_t found, missing; /* distinct workers seen; where the search for pointless ones is */
	uint64_t seen[ROUTE_WORKERS_MAX / 64];
};

static bool mark(struct walk *w, uint32_t worker)
{
	uint64_t bit = (uint64_t)1 << worker % 64, *word = &w->seen[worker / 64];
	bool fresh = !(*word & bit);

	*word |= bit;
	w->found += fresh;
	return fresh;
}

static void begin(const struct route_view *v, void *walk)
{
	const struct ring *r = v->pool->table;
	struct walk *w = walk;

	w->hash = route_hash(r->hash, v->rq->key->text, v->rq->key->len);
	w->at = r->npoints ? ring_lookup(r, w->hash) : 0;
	w->left = r->npoints;
	w->found = w->missing = 0;
	memset(w->seen, 0, (v->pool->n + 63) / 64 * sizeof(*w->seen));
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	const struct ring *r = v->pool->table;
	struct walk *w = walk;

	while (w->left > 0 && w->found < r->on_ring) {
		const struct ring_point *p = &r->point[w->at];

		w->at = w->at + 1 == r->npoints ? 0 : w->at + 1;
		w->left--;
		if (!mark(w, p->worker))
			continue;
		*c = (struct route_choice){
			.worker = p->worker,
			.score = (double)(p->pos - w->hash) / ROUTE_HASH_SPAN,
		};
		return true;
	}
	/* A worker whose points all collided is still there, a whole turn away. */
	for (; w->missing < v->pool->n; w->missing++) {
		if (!mark(w, (uint32_t)w->missing))
			continue;
		*c = (struct route_choice){.worker = (uint32_t)w->missing, .score = 1};
		return true;
	}
	return false;
}

const struct route_policy_type route_policy_consistent_hash = {
	.name = "consistent_hash",
	.help = "a key's requests stay on one worker; a ring decides which",
	.flags = ROUTE_BY_KEY,
	.params = params,
	.params_size = sizeof(struct params),
	.walk_size = sizeof(struct walk),
	.keyless = &route_policy_least_request,
	.table_new = table_new,
	.table_free = table_free,
	.begin = begin,
	.next = next,
};
