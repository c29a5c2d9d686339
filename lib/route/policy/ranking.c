#include "lib/route/policy/ranking.h"

#include <string.h>

#include "lib/base/check.h"

#define PLACE_BITS 10
#define SEEN_BITS  22
#define UNABLE	   1e9 /* behind every load */
#define SEEN_MAX   ((1u << SEEN_BITS) - 1)

_Static_assert(ROUTE_WORKERS_MAX == 1 << PLACE_BITS, "a place needs more bits");

void ranking_begin(struct ranking *r, const struct route_view *v)
{
	r->drawn = v->tries > 0 && r->drawn;
	r->begun = false;
	r->n = r->ties = 0;
}

static uint64_t cost_of(uint64_t rank)
{
	return rank >> (PLACE_BITS + SEEN_BITS);
}

void ranking_add(struct ranking *r, uint32_t worker, uint32_t seen, double cost)
{
	float rounded = (float)cost;
	uint32_t bits;

	PD_CHECK(cost >= 0);
	memcpy(&bits, &rounded,
	       sizeof(bits)); /* in the order of the numbers, as none is negative */
	r->rank[r->n++] = (uint64_t)bits << (PLACE_BITS + SEEN_BITS) |
			  (uint64_t)(seen < SEEN_MAX ? seen : SEEN_MAX) << PLACE_BITS | worker;
}

void ranking_add_all(struct ranking *r, const struct route_view *v)
{
	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_worker *w = &v->pool->worker[i];
		uint32_t load = route_load(w->slot);
		bool able = route_may_pick(v, i) && route_has_room(w->slot, load);

		ranking_add(r, i, load, (double)load / w->weight + (able ? 0 : UNABLE));
	}
}

static uint64_t cheapest(const struct ranking *r)
{
	uint64_t least = UINT64_MAX;

	for (uint32_t i = 0; i < r->n; i++)
		least = r->rank[i] < least ? r->rank[i] : least;
	return least;
}

/* Those that cost as little as the cheapest are not ordered by what is in flight: each has its
 * turn. */
static uint64_t first(struct ranking *r, const struct route_view *v, bool turns)
{
	uint64_t least = cost_of(cheapest(r)), k;

	for (uint32_t i = 0; i < r->n; i++)
		r->ties += cost_of(r->rank[i]) == least;
	if (r->ties > 1 && turns && !r->drawn) {
		r->turn = route_turn(v);
		r->drawn = true;
	}
	k = r->ties > 1 && turns ? r->turn % r->ties : 0;
	for (uint32_t i = 0;; i++)
		if (cost_of(r->rank[i]) == least && k-- == 0)
			return r->rank[i];
}

bool ranking_next(struct ranking *r, const struct route_view *v, bool turns, struct route_choice *c)
{
	uint64_t best = UINT64_MAX;
	uint32_t bits;
	float cost;

	if (r->n == 0)
		return false;
	c->ties = 0;
	if (!r->begun) {
		best = r->chosen = first(r, v, turns);
		r->last = 0;
		r->begun = true;
		c->ties = r->ties - 1;
	} else {
		for (uint32_t i = 0; i < r->n; i++)
			if (r->rank[i] >= r->last && r->rank[i] < best && r->rank[i] != r->chosen)
				best = r->rank[i];
		if (best == UINT64_MAX)
			return false;
		r->last = best + 1;
	}
	bits = (uint32_t)cost_of(best);
	memcpy(&cost, &bits, sizeof(cost));
	c->worker = (uint32_t)best & (ROUTE_WORKERS_MAX - 1);
	c->seen = (uint32_t)(best >> PLACE_BITS) & SEEN_MAX;
	c->score = cost;
	return true;
}
