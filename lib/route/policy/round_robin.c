/* The workers that can take a request, in turns. */
#include "lib/route/policy.h"

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

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;

	(void)v;
	if (w->n == 0)
		return false;
	*c = (struct route_choice){.worker = w->list[w->turn % w->n],
				   .reason = ROUTE_REASON_ROTATION};
	w->n = 0;
	return true;
}

const struct route_policy_type route_policy_round_robin = {
	.name = "round_robin",
	.help = "one worker after the other",
	.walk_size = sizeof(struct walk),
	.begin = begin,
	.next = next,
};
