/*
 * The key's hash modulo the number of workers that can be picked, in the order of the list: what
 * InfiniLM-SVC's router does (there over an unordered map). It is here to be compared with: a
 * worker that comes or goes moves nearly all sessions.
 */
#include "lib/route/policy/hashing.h"

struct walk {
	uint32_t list[ROUTE_WORKERS_MAX];
	size_t n, at, yielded; /* n: those that can be picked; the others stand behind them */
};

static void begin(const struct route_view *v, void *walk)
{
	struct walk *w = walk;

	size_t behind = v->pool->n;

	w->n = w->yielded = 0;
	for (uint32_t i = 0; i < v->pool->n; i++)
		w->list[route_may_pick(v, i) ? w->n++ : --behind] = i;
	w->at = w->n ? route_hash(ROUTE_HASH_XXH3, v->rq->key->text, v->rq->key->len) % w->n : 0;
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;

	size_t at = w->yielded < w->n ? (w->at + w->yielded) % w->n : w->yielded;

	if (w->yielded == v->pool->n)
		return false;
	*c = (struct route_choice){.worker = w->list[at],
				   .reason = ROUTE_REASON_KEY,
				   .score = (double)w->yielded / (double)v->pool->n};
	w->yielded++;
	return true;
}

const struct route_policy_type route_policy_modulo = {
	.name = "modulo",
	.help = "hash of the key modulo the number of workers, for comparison; moves most keys at "
		"a change",
	.flags = ROUTE_BY_KEY,
	.walk_size = sizeof(struct walk),
	.keyless = &route_policy_least_request,
	.begin = begin,
	.next = next,
};
