/*
 * Two workers are drawn and the one with fewer requests in flight is taken, the first when they are
 * equal: nearly as even as the least loaded of all, and routers that know nothing of each other do
 * not all choose the same one.
 */
#include "lib/route/hash.h"
#include "lib/route/policy.h"

struct walk {
	uint32_t list[ROUTE_WORKERS_MAX];
	struct route_choice two[2];
	size_t n, at;
};

static struct route_choice drawn(const struct route_view *v, uint32_t worker)
{
	uint32_t load = route_load(v->pool->worker[worker].slot);

	return (struct route_choice){
		.worker = worker, .seen = load, .score = load, .reason = ROUTE_REASON_LOAD};
}

static void begin(const struct route_view *v, void *walk)
{
	struct walk *w = walk;
	size_t n = route_eligible(v, w->list), i = route_below(v->rq->draw, 0, n), k;

	w->at = 0;
	w->n = n < 2 ? n : 2;
	if (n > 0)
		w->two[0] = drawn(v, w->list[i]);
	if (n < 2)
		return;
	k = route_below(v->rq->draw, 1, n - 1);
	w->two[1] = drawn(v, w->list[k + (k >= i)]);
	if (w->two[1].seen < w->two[0].seen) {
		struct route_choice lesser = w->two[1];

		w->two[1] = w->two[0];
		w->two[0] = lesser;
	}
	w->two[0].ties = w->two[0].seen == w->two[1].seen;
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;

	(void)v;
	if (w->at == w->n)
		return false;
	*c = w->two[w->at++];
	return true;
}

const struct route_policy_type route_policy_power_of_two = {
	.name = "power_of_two",
	.help = "two workers are drawn, the one with fewer requests in flight is taken",
	.flags = ROUTE_BY_LOAD | ROUTE_DRAWS,
	.walk_size = sizeof(struct walk),
	.begin = begin,
	.next = next,
};
