/* Any worker that can take a request, with equal chances. */
#include "lib/route/hash.h"
#include "lib/route/policy.h"

struct walk {
	uint32_t list[ROUTE_WORKERS_MAX];
	size_t n;
};

static void begin(const struct route_view *v, void *walk)
{
	struct walk *w = walk;

	w->n = route_eligible(v, w->list);
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;

	if (w->n == 0)
		return false;
	*c = (struct route_choice){.worker = w->list[route_below(v->rq->draw, 0, w->n)],
				   .reason = ROUTE_REASON_RANDOM};
	w->n = 0;
	return true;
}

const struct route_policy_type route_policy_random = {
	.name = "random",
	.help = "any worker, with equal chances",
	.flags = ROUTE_DRAWS,
	.walk_size = sizeof(struct walk),
	.begin = begin,
	.next = next,
};
