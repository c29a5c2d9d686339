/*
 * Maglev hashing (Eisenbud et al., NSDI 2016): a table of prime size that the workers fill in
 * turns, each along a permutation of its own, so that shares are even to a fraction of a percent
 * and a key costs one look. A worker that leaves the list moves a little more than its own keys;
 * one that is only unavailable moves none but its own: they go to the next worker in the table.
 * Workers fill in the order of their ids, so the order of the list decides nothing; a worker of
 * weight 2 takes two turns where others take one.
 */
#include <stdlib.h>

#include "lib/route/policy/hashing.h"

#define SIZE_MAX_PRIME 5000011

struct params {
	int64_t size;
};

static const struct route_param params[] = {
	{.type = ROUTE_PARAM_INT,
	 .name = "maglev-size",
	 .arg = "PRIME",
	 .help = "places in the table of maglev, a prime number",
	 .offset = offsetof(struct params, size),
	 .min = 2,
	 .max = SIZE_MAX_PRIME,
	 .fallback = 65537},
	{.type = ROUTE_PARAM_END},
};

struct table {
	size_t size;
	uint16_t worker[];
};

static bool is_prime(uint32_t n)
{
	for (uint32_t d = 2; d * d <= n; d++)
		if (n % d == 0)
			return false;
	return n > 1;
}

struct filler {
	uint64_t id, at, skip;
	uint32_t worker, weight;
};

static int by_id(const void *a, const void *b)
{
	const struct filler *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static void fill(struct table *t, struct filler *f, size_t n)
{
	size_t filled = 0;

	for (;;) {
		for (size_t i = 0; i < n; i++) {
			for (uint32_t k = 0; k < f[i].weight; k++) {
				while (t->worker[f[i].at] != UINT16_MAX)
					f[i].at = (f[i].at + f[i].skip) % t->size;
				t->worker[f[i].at] = (uint16_t)f[i].worker;
				if (++filled == t->size)
					return;
			}
		}
	}
}

static int table_new(const struct route_pool *pool, const void *given, void **table,
		     struct pd_msg *msg)
{
	const struct params *p = given;
	size_t size = (size_t)p->size;
	struct filler *f;
	struct table *t;

	*table = NULL;
	if (!is_prime((uint32_t)size))
		return pd_fail(msg, PD_EINVAL, "maglev-size: found %zu, expected a prime number",
			       size);
	f = calloc(pool->n ? pool->n : 1, sizeof(*f));
	t = malloc(sizeof(*t) + size * sizeof(*t->worker));
	if (!f || !t) {
		free(f);
		free(t);
		return PD_ENOMEM;
	}
	t->size = size;
	memset(t->worker, 0xff, size * sizeof(*t->worker));
	for (size_t i = 0; i < pool->n; i++) {
		const struct route_worker *w = &pool->worker[i];
		uint64_t other = route_murmur64a(w->name, strlen(w->name), 1);

		f[i] = (struct filler){.id = w->id,
				       .at = w->id % size,
				       .skip = other % (size - 1) + 1,
				       .worker = (uint32_t)i,
				       .weight = w->weight};
	}
	qsort(f, pool->n, sizeof(*f), by_id);
	if (pool->n > 0)
		fill(t, f, pool->n);
	free(f);
	*table = t;
	return PD_OK;
}

struct walk {
	size_t at, left;       /* places of the table */
	size_t found, missing; /* distinct workers; where the search for those without a place is */
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
	const struct table *t = v->pool->table;
	struct walk *w = walk;

	w->at = route_hash(ROUTE_HASH_XXH3, v->rq->key->text, v->rq->key->len) % t->size;
	w->left = t->size;
	w->found = w->missing = 0;
	memset(w->seen, 0, (v->pool->n + 63) / 64 * sizeof(*w->seen));
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	const struct table *t = v->pool->table;
	struct walk *w = walk;

	while (w->left > 0 && w->found < v->pool->n) {
		uint32_t worker = t->worker[w->at];

		w->at = w->at + 1 == t->size ? 0 : w->at + 1;
		w->left--;
		if (!mark(w, worker))
			continue;
		*c = (struct route_choice){.worker = worker,
					   .reason = ROUTE_REASON_KEY,
					   .score = (double)(t->size - w->left - 1) /
						    (double)t->size};
		return true;
	}
	for (; w->missing < v->pool->n; w->missing++) { /* more workers than places */
		if (!mark(w, (uint32_t)w->missing))
			continue;
		*c = (struct route_choice){
			.worker = (uint32_t)w->missing, .reason = ROUTE_REASON_KEY, .score = 1};
		return true;
	}
	return false;
}

const struct route_policy_type route_policy_maglev = {
	.name = "maglev",
	.help = "a key's requests stay on one worker; a table decides which, in even shares",
	.flags = ROUTE_BY_KEY,
	.params = params,
	.params_size = sizeof(struct params),
	.walk_size = sizeof(struct walk),
	.keyless = &route_policy_least_request,
	.table_new = table_new,
	.table_free = free,
	.begin = begin,
	.next = next,
};
