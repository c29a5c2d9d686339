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
	r->n = r->nbest = r->at = r->ties = 0;
}

static uint64_t cost_of(uint64_t rank)
{
	return rank >> (PLACE_BITS + SEEN_BITS);
}

void ranking_add(struct ranking *r, uint32_t worker, uint32_t seen, double cost)
{
	float rounded = (float)cost;
	uint32_t bits, at;
	uint64_t rank;

	PD_CHECK(cost >= 0);
	memcpy(&bits, &rounded,
	       sizeof(bits)); /* in the order of the numbers, as none is negative */
	rank = (uint64_t)bits << (PLACE_BITS + SEEN_BITS) |
	       (uint64_t)(seen < SEEN_MAX ? seen : SEEN_MAX) << PLACE_BITS | worker;
	r->rank[r->n++] = rank;
	if (r->nbest == RANKING_SORTED && rank > r->best[RANKING_SORTED - 1])
		return;
	at = r->nbest < RANKING_SORTED ? r->nbest++ : RANKING_SORTED - 1;
	for (; at > 0 && r->best[at - 1] > rank; at--)
		r->best[at] = r->best[at - 1];
	r->best[at] = rank;
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

/* Those that cost as little as the cheapest are not ordered by what is in flight: each has its
 * turn. */
static uint64_t first(struct ranking *r, const struct route_view *v, bool turns)
{
	uint64_t least = cost_of(r->best[0]), k;

	if (r->nbest < 2 || cost_of(r->best[1]) != least) {
		r->ties = 1;
		return r->best[0];
	}
	for (uint32_t i = 0; i < r->n; i++)
		r->ties += cost_of(r->rank[i]) == least;
	if (turns && !r->drawn) {
		r->turn = route_turn(v);
		r->drawn = true;
	}
	k = turns ? r->turn % r->ties : 0;
	for (uint32_t i = 0;; i++)
		if (cost_of(r->rank[i]) == least && k-- == 0)
			return r->rank[i];
}

static uint64_t next_rank(struct ranking *r)
{
	uint64_t best = UINT64_MAX;

	if (r->at < r->nbest && r->best[r->at] == r->chosen)
		r->at++;
	if (r->at < r->nbest)
		return r->best[r->at++];
	for (uint32_t i = 0; i < r->n; i++)
		if (r->rank[i] > r->last && r->rank[i] < best && r->rank[i] != r->chosen)
			best = r->rank[i];
	return best;
}

bool ranking_next(struct ranking *r, const struct route_view *v, bool turns, struct route_choice *c)
{
	uint32_t bits;
	float cost;

	if (r->n == 0)
		return false;
	c->ties = 0;
	if (!r->begun) {
		r->chosen = r->last = first(r, v, turns);
		r->begun = true;
		c->ties = r->ties - 1;
	} else {
		r->last = next_rank(r);
		if (r->last == UINT64_MAX)
			return false;
	}
	bits = (uint32_t)cost_of(r->last);
	memcpy(&cost, &bits, sizeof(cost));
	c->worker = (uint32_t)r->last & (ROUTE_WORKERS_MAX - 1);
	c->seen = (uint32_t)(r->last >> PLACE_BITS) & SEEN_MAX;
	c->score = cost;
	return true;
}
