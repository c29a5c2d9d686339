/*
 * The workers that can take a request, in turns. With weights the turns go along a list in which
 * each worker stands as often as its weight says, evenly spread (smooth weighted round robin, as in
 * nginx): of weights 5, 1, 1 the list is a a b a c a a. A worker that cannot take its turn is
 * passed over.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/route/policy.h"

struct table {
	size_t n;
	uint16_t worker[];
};

static int table_new(const struct route_pool *pool, const void *params, void **table,
		     struct pd_msg *msg)
{
	int64_t *credit;
	struct table *t;

	(void)params;
	(void)msg;
	*table = NULL;
	if (!pool->weighted)
		return PD_OK;
	credit = calloc(pool->n, sizeof(*credit));
	t = malloc(sizeof(*t) + pool->weight * sizeof(*t->worker));
	if (!credit || !t) {
		free(credit);
		free(t);
		return PD_ENOMEM;
	}
	for (t->n = 0; t->n < pool->weight; t->n++) {
		size_t best = 0;

		for (size_t i = 0; i < pool->n; i++) {
			credit[i] += pool->worker[i].weight;
			best = credit[i] > credit[best] ? i : best;
		}
		credit[best] -= (int64_t)pool->weight;
		t->worker[t->n] = (uint16_t)best;
	}
	free(credit);
	*table = t;
	return PD_OK;
}

struct walk {
	uint32_t list[ROUTE_WORKERS_MAX];
	size_t n;
	uint64_t turn;
};

static void begin(const struct route_view *v, void *walk)
{
	struct walk *w = walk;

	w->n = route_eligible(v, w->list);
	w->turn = w->n ? route_turn(v) : 0;
}

/* Whose turn it is in the list; the first behind it that can take the request. */
static uint32_t in_list(const struct table *t, const struct walk *w)
{
	for (size_t i = 0; i < t->n; i++) {
		uint32_t worker = t->worker[(w->turn + i) % t->n];
		size_t low = 0, high = w->n; /* w->list is sorted */

		while (low < high) {
			size_t middle = (low + high) / 2;

			if (w->list[middle] < worker)
				low = middle + 1;
			else
				high = middle;
		}
		if (low < w->n && w->list[low] == worker)
			return worker;
	}
	return w->list[0];
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	const struct table *t = v->pool->table;
	struct walk *w = walk;

	if (w->n == 0)
		return false;
	*c = (struct route_choice){.worker = t ? in_list(t, w) : w->list[w->turn % w->n],
				   .reason = ROUTE_REASON_ROTATION};
	w->n = 0;
	return true;
}

const struct route_policy_type route_policy_round_robin = {
	.name = "round_robin",
	.help = "one worker after the other, as often as its weight says",
	.walk_size = sizeof(struct walk),
	.table_new = table_new,
	.table_free = free,
	.begin = begin,
	.next = next,
};
