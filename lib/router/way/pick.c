/*
 * Choosing is route_decide's; here is what a request adds: the workers that it tried, the wait for
 * a free place, and the count that must go down exactly once.
 */
#include "lib/router/way/pick.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/router/way/exchange.h"

void pick_tried(struct exchange *x, enum worker_role role)
{
	struct pick *p = &x->pick[role];

	if (!p->tried)
		p->tried = calloc(x->fleet->pool[role].n + 1, sizeof(bool));
	if (p->tried)
		p->tried[p->decision.worker] = true;
}

bool pick_has_untried(const struct exchange *x, enum worker_role role)
{
	const struct fleet_pool *pool = &x->fleet->pool[role];
	const bool *tried = x->pick[role].tried;

	for (size_t i = 0; i < pool->n; i++)
		if (atomic_load(&pool->worker[i]->slot.available) && !(tried && tried[i]))
			return true;
	return false;
}

static int decide(struct exchange *x, enum worker_role role)
{
	struct fleet_pool *pool = &x->fleet->pool[role];
	struct pick *p = &x->pick[role];
	struct route_input in = {&x->key, p->tried, &x->lane->rng};
	int err;

	if (x->way->watch.capture)
		p->drawn = x->lane->rng;
	err = route_decide(&pool->policy, pool->ring, &in, &p->decision);

	/* All that are left were tried: a second round, from the key's home again. */
	if (err == PD_ENOENT && p->tried) {
		memset(p->tried, 0, pool->n * sizeof(bool));
		err = route_decide(&pool->policy, pool->ring, &in, &p->decision);
	}
	return err;
}

int pick_choose(struct exchange *x, enum worker_role role)
{
	int64_t deadline = 0, step = NS_PER_MS, now;
	struct pick *p = &x->pick[role];
	int err;

	while ((err = decide(x, role)) == PD_EBUSY) {
		now = clock_now();
		deadline = deadline ? deadline : now + x->way->cfg->queue_timeout;
		if (now >= deadline)
			return PD_EBUSY;
		if (http_conn_sleep(x->conn, now + step < deadline ? now + step : deadline))
			return PD_ECANCELED;
		step = step < 50 * NS_PER_MS ? step * 2 : step;
	}
	if (err) {
		metrics_count(x->way->watch.metrics, x->rec.stripe, METRIC_NO_WORKER, x->rec.route,
			      1);
		return err;
	}
	p->worker = x->fleet->pool[role].worker[p->decision.worker];
	p->counted = true;
	atomic_fetch_add_explicit(&p->worker->requests, 1, memory_order_relaxed);
	x->rec.decisions++;
	return PD_OK;
}

void pick_release(struct exchange *x, struct pick *p)
{
	(void)x;
	if (!p->counted)
		return;
	if (p->decoding)
		atomic_fetch_sub_explicit(&p->worker->decoding, 1, memory_order_relaxed);
	p->decoding = p->counted = false;
	route_release(&p->worker->slot);
}

void pick_end(struct exchange *x, enum worker_role role, enum breaker_verdict v)
{
	struct pick *p = &x->pick[role];

	pick_release(x, p);
	worker_report(p->worker, x->way->cfg, v, p->decision.trial, clock_now());
}

void pick_drop(struct exchange *x, enum worker_role role)
{
	if (x->pick[role].worker)
		pick_end(x, role, VERDICT_NONE);
	x->pick[role].worker = NULL;
}

void pick_describe(struct exchange *x)
{
	for (int r = 0; r < ROLES; r++)
		x->rec.pick[r] = (struct record_pick){x->pick[r].worker, &x->pick[r].decision,
						      &x->pick[r].drawn};
}
