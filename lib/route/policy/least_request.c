/*
 * The worker with the fewest requests in flight; idle workers take turns instead of the first one
 * taking all. Also ranks requests without a key for the policies by key.
 */
#include "lib/route/policy.h"

/* In one number, so that the next best is found without a branch: load above, worker below. */
struct walk {
	uint64_t rank[ROUTE_WORKERS_MAX];
	uint64_t turn, last; /* last: the rank that was yielded before */
	uint32_t n, ties;
	bool drawn;
};

static void begin(const struct route_view *v, void *walk)
{
	struct walk *w = walk;
	uint32_t least = UINT32_MAX;

	w->drawn = v->tries > 0 && w->drawn;
	w->n = w->ties = 0;
	w->last = 0;
	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_slot *slot = v->pool->worker[i].slot;
		uint32_t load = route_load(slot);

		if (!route_may_pick(v, i) || !route_has_room(slot, load))
			continue;
		if (w->n == 0 || load < least) {
			least = load;
			w->ties = 0;
		}
		w->ties += load == least;
		w->rank[w->n++] = (uint64_t)load << 32 | i;
	}
	if (w->ties > 1 && !w->drawn) { /* turns are used up only where there is a tie */
		w->turn = route_turn(v);
		w->drawn = true;
	}
}

/* The place of the k-th of the least loaded. */
static uint32_t nth_tie(const struct walk *w, uint32_t least, uint64_t k)
{
	for (uint32_t i = 0;; i++)
		if (w->rank[i] >> 32 == least && k-- == 0)
			return i;
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;
	uint64_t best = UINT64_MAX;

	(void)v;
	for (uint32_t i = 0; i < w->n; i++)
		best = w->rank[i] >= w->last && w->rank[i] < best ? w->rank[i] : best;
	if (best == UINT64_MAX)
		return false;
	c->ties = 0;
	if (w->last == 0 && w->ties > 0) { /* the first: whose turn it is; the others follow */
		uint32_t at = nth_tie(w, (uint32_t)(best >> 32), w->drawn ? w->turn % w->ties : 0);

		best = w->rank[at];
		w->rank[at] = UINT64_MAX;
		c->ties = w->ties - 1;
		w->ties = 0;
	} else {
		w->last = best + 1;
	}
	c->worker = (uint32_t)best;
	c->seen = (uint32_t)(best >> 32);
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
