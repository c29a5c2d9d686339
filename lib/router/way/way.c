/* The name in Via is new for each process: a request that comes back to it goes in circles. */
#include "lib/router/way/way.h"

#include <string.h>

#include "lib/router/keys/keys.h"

int way_init(struct way *w, bool keyed)
{
	const struct router_config *c = w->cfg;
	unsigned char id[4];
	int err;

	buf_init(&w->own, KEY_MAX + 256);
	err = gate_init(&w->gate, c->max_concurrent, c->queue_size);
	w->gate.rate = c->rate;
	w->gate.burst = c->max_concurrent;
	w->gate.fair = c->priority_header || c->fairness_header;
	retry_budget_init(&w->budget, c->retry_budget);
	err = err ? err : follow_init(&w->follow, c->remember_ids);
	if (!err && c->pd && c->decider.kind != ROUTE_DECIDER_always)
		err = route_decider_new(&w->decider, &c->decider);
	if (!err && c->epp && c->epp->flow.on)
		err = flowgate_new(&w->flow, c->epp, w->fleet);
	w->seed = c->seed;
	if (w->seed == 0)
		rng_system_bytes((unsigned char *)&w->seed, sizeof(w->seed));
	rng_system_bytes(id, sizeof(id));
	if (!err)
		err = buf_printf(&w->own, "Via: 1.1 pdctl-%02x%02x%02x%02x\r\n", id[0], id[1],
				 id[2], id[3]);
	if (!err && c->api_key)
		err = buf_printf(&w->own, "Authorization: Bearer %s\r\n", c->api_key);
	w->drop_credentials = c->api_key || (keyed && !c->forward_credentials);
	w->via = (struct span){w->own.data ? w->own.data + 9 : NULL, 14};
	w->own_lines = buf_span(&w->own);
	return err;
}

void way_release(struct way *w)
{
	gate_release(&w->gate);
	flowgate_free(w->flow);
	follow_release(&w->follow);
	route_decider_free(w->decider);
	if (w->own.data)
		explicit_bzero(w->own.data, w->own.len);
	buf_release(&w->own);
}

struct way_queues way_queues(struct way *w)
{
	struct gate *g = &w->gate;
	struct flowgate_stats s = {0};

	if (w->flow)
		flowgate_stats(w->flow, &s);
	return (struct way_queues){.waiting = atomic_load(&g->waiting) + s.waiting,
				   .queued = atomic_load(&g->queued) + s.queued,
				   .full = atomic_load(&g->full) + s.full,
				   .timed_out = atomic_load(&g->timed_out) + s.expired,
				   .left = atomic_load(&g->left) + s.left,
				   .saturation = (uint64_t)(s.saturation * 100 + 0.5)};
}
