#include "lib/router/way/shadow.h"

#include "lib/base/clock.h"
#include "lib/router/way/exchange.h"

static void note(struct exchange *x, enum worker_role role, bool picked,
		 const struct route_decision *d)
{
	const struct fleet_pool *pool = &x->fleet->pool[role];
	struct pick *p = &x->pick[role];

	p->shadowed = true;
	if (!picked)
		return;
	p->shadow = pool->worker[d->worker];
	p->shadow_id = pool->shadow->worker[d->worker].id;
	p->shadow_runs = true;
	atomic_fetch_add_explicit(&pool->worker[d->worker]->shadow_picks, 1, memory_order_relaxed);
}

static struct route_request shadow_request(struct exchange *x, enum worker_role role, void *walk)
{
	struct route_request rq = pick_request(x, role);

	rq.partner = NULL;
	rq.explain = NULL;
	rq.walk = walk;
	rq.shadow = rq.brief = true;
	return rq;
}

/* Frames of their own: a fiber keeps the pages that its stack once reached. */
static __attribute__((noinline)) void decide_one(struct exchange *x, enum worker_role role,
						 void *walk)
{
	struct route_request rq = shadow_request(x, role, walk);
	struct route_decision d;

	note(x, role, route_decide(x->fleet->pool[role].shadow, &rq, &d) == PD_OK, &d);
}

/* Whether the prompt is computed remotely is no question of the policy: it picks both. */
static __attribute__((noinline)) void decide_two(struct exchange *x, void *walk)
{
	static const enum worker_role role[ROUTE_ENDS] = {
		[ROUTE_PREFILL] = ROLE_PREFILL, [ROUTE_DECODE] = ROLE_DECODE};
	const char *label = x->way->cfg->pair_label;
	struct route_pair pair = {.prefill_first = x->way->cfg->prefill_first,
				  .label = label ? span_of(label) : SPAN(""),
				  .decode_alone = x->may_decode_alone};

	for (int i = 0; i < ROUTE_ENDS; i++) {
		pair.pool[i] = x->fleet->pool[role[i]].shadow;
		pair.request[i] = shadow_request(x, role[i], walk);
	}
	(void)!route_decide_pair(&pair);
	for (int i = 0; i < ROUTE_ENDS; i++)
		note(x, role[i], pair.picked[i], &pair.decision[i]);
}

void shadow_decide(struct exchange *x, bool pair, enum worker_role role, void *walk)
{
	if (x->pick[pair ? ROLE_DECODE : role].shadowed)
		return;
	if (pair)
		decide_two(x, walk);
	else
		decide_one(x, role, walk);
}

void shadow_compare(struct exchange *x, enum worker_role role)
{
	struct metrics *m = x->way->watch.metrics;
	const struct pick *p = &x->pick[role];
	uint32_t picked, other;

	metrics_add(m, x->rec.stripe, METRIC_SHADOW, role,
		    !p->shadow		     ? SHADOW_NONE
		    : p->shadow == p->worker ? SHADOW_SAME
					     : SHADOW_OTHER,
		    1);
	if (!p->shadow || p->shadow == p->worker)
		return;
	picked = route_load(&p->worker->slot);
	other = route_load(&p->shadow->slot);
	picked -= picked > 0; /* this request is counted there */
	if (picked > other)
		metrics_add(m, x->rec.stripe, METRIC_SHADOW_REGRET, role, 0, picked - other);
	else if (other > picked)
		metrics_add(m, x->rec.stripe, METRIC_SHADOW_GAIN, role, 0, other - picked);
}

void shadow_renew(struct exchange *x)
{
	for (int r = 0; r < ROLES; r++) {
		const struct fleet_pool *pool = &x->fleet->pool[r];
		struct pick *p = &x->pick[r];
		uint32_t at = p->shadow && pool->shadow
				      ? route_pool_find(pool->shadow, p->shadow_id)
				      : ROUTE_NO_WORKER;

		p->shadow = at == ROUTE_NO_WORKER ? NULL : pool->worker[at];
	}
}

void shadow_end(struct exchange *x, enum worker_role role)
{
	struct route_pool *pool = x->fleet->pool[role].shadow;
	struct pick *p = &x->pick[role];
	struct route_request rq;

	p->shadow_runs = false;
	if (!pool || !pool->state->spec.type->learn)
		return;
	rq = shadow_request(x, role, NULL);
	rq.now_ns = clock_now();
	route_tell(pool->state, &(struct route_event){.kind = ROUTE_ENDED,
						      .worker = p->shadow_id,
						      .at_ns = rq.now_ns,
						      .request = &rq});
}
