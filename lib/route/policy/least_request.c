/*
 * The worker with the fewest requests in flight; idle workers take turns instead of the first one
 * taking all. Also ranks requests without a key for the policies by key.
 */
#include "lib/route/policy.h"

#define SHOWN 5 /* the chosen one and those that explain it */

/* In one number, so that one comparison orders them: load above, worker below. */
struct walk {
	uint64_t rank[ROUTE_WORKERS_MAX];
	uint64_t best[SHOWN]; /* the smallest ranks, sorted */
	uint64_t turn, chosen, last;
	uint32_t n, nbest, at, ties;
	bool drawn;
};

static void begin(const struct route_view *v, void *walk)
{
	struct walk *w = walk;
	uint64_t worst = UINT64_MAX; /* a rank below it is among the best */
	uint32_t least = 0;

	w->drawn = v->tries > 0 && w->drawn;
	w->n = w->nbest = w->at = w->ties = 0;
	w->chosen = UINT64_MAX;
	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_slot *slot = v->pool->worker[i].slot;
		uint32_t load = route_load(slot), at;
		uint64_t rank = (uint64_t)load << 32 | i;

		if (!route_may_pick(v, i) || !route_has_room(slot, load))
			continue;
		if (w->n == 0 || load < least) {
			least = load;
			w->ties = 0;
		}
		w->ties += load == least;
		w->rank[w->n++] = rank;
		if (rank > worst)
			continue;
		at = w->nbest < SHOWN ? w->nbest++ : SHOWN - 1;
		for (; at > 0 && w->best[at - 1] > rank; at--)
			w->best[at] = w->best[at - 1];
		w->best[at] = rank;
		worst = w->nbest < SHOWN ? UINT64_MAX : w->best[SHOWN - 1];
	}
	if (w->ties > 1 && !w->drawn) { /* turns are used up only where there is a tie */
		w->turn = route_turn(v);
		w->drawn = true;
	}
}

/* The k-th of the least loaded. */
static uint64_t nth_tie(const struct walk *w, uint64_t k)
{
	uint64_t least = w->best[0] >> 32;

	for (uint32_t i = 0;; i++)
		if (w->rank[i] >> 32 == least && k-- == 0)
			return w->rank[i];
}

/* Behind those that are sorted the rest is searched, which is needed only when all of them filled
 * up in between. */
static uint64_t next_rank(struct walk *w)
{
	uint64_t best = UINT64_MAX;

	if (w->at < w->nbest && w->best[w->at] == w->chosen)
		w->at++;
	if (w->at < w->nbest)
		return w->best[w->at++];
	for (uint32_t i = 0; i < w->n; i++)
		if (w->rank[i] > w->last && w->rank[i] < best && w->rank[i] != w->chosen)
			best = w->rank[i];
	return best;
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;

	(void)v;
	c->ties = 0;
	if (w->n == 0)
		return false;
	if (w->chosen == UINT64_MAX) { /* the first: whose turn it is; the others follow */
		w->chosen = w->last = w->ties > 1 ? nth_tie(w, w->turn % w->ties) : w->best[0];
		c->ties = w->ties - 1;
	} else {
		w->last = next_rank(w);
	}
	if (w->last == UINT64_MAX)
		return false;
	c->worker = (uint32_t)w->last;
	c->seen = (uint32_t)(w->last >> 32);
	c->score = c->seen;
	c->reason = ROUTE_REASON_LOAD;
	return true;
}

const struct route_policy_type route_policy_least_request = {
	.name = "least_request",
	.help = "the worker with the fewest requests in flight; ties take turns",
	.flags = ROUTE_BY_LOAD,
	.walk_size = sizeof(struct walk),
	.begin = begin,
	.next = next,
};
