/* Memory is taken only for what the workload has: a trace without sessions is one array of times.
 */
#include "lib/workload/schedule_plan.h"

#include <math.h>
#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"

#define TIME_MAX 4e18 /* ns */

struct stamp {
	int64_t at_ns;
	uint32_t item;
};

static int by_stamp(const void *a, const void *b)
{
	const struct stamp *x = a, *y = b;

	if (x->at_ns != y->at_ns)
		return x->at_ns < y->at_ns ? -1 : 1;
	return x->item < y->item ? -1 : x->item > y->item;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

/* The last group has no next time stamp; it spreads over the gap before it. */
static int spread(struct schedule_plan *p, uint64_t seed)
{
	struct stamp *order = reallocarray(NULL, p->n + 1, sizeof(*order));
	int64_t *moved = reallocarray(NULL, p->n + 1, sizeof(*moved)), gap = 0;
	struct rng rng;
	size_t end;
	int err = order && moved ? PD_OK : PD_ENOMEM;

	rng_seed(&rng, seed);
	for (size_t i = 0; !err && i < p->n; i++)
		order[i] = (struct stamp){p->at_ns[i], (uint32_t)i};
	if (!err)
		qsort(order, p->n, sizeof(*order), by_stamp);
	for (size_t i = 0; !err && i < p->n; i = end) {
		for (end = i + 1; end < p->n && order[end].at_ns == order[i].at_ns;)
			end++;
		if (end < p->n)
			gap = order[end].at_ns - order[i].at_ns;
		if (end - i == 1)
			continue;
		for (size_t j = i; j < end; j++)
			moved[j] = order[i].at_ns + (int64_t)rng_below(&rng, (uint64_t)gap);
		qsort(moved + i, end - i, sizeof(*moved), by_value);
		for (size_t j = i; j < end; j++)
			p->at_ns[order[j].item] = moved[j];
	}
	free(order);
	free(moved);
	return err;
}

static int stamps(struct schedule_plan *p, const struct workload *w,
		  const struct schedule_options *o, struct pd_msg *msg)
{
	for (size_t i = 0; i < p->n; i++) {
		double at = (double)w->req[i].arrival_ns / o->speedup;

		if (w->req[i].arrival_ns < 0)
			return pd_fail(msg, PD_EINVAL,
				       "--timestamps: record %zu of the file (line %u) has no time "
				       "stamp",
				       i + 1, w->req[i].line);
		if (!(at < TIME_MAX))
			return pd_fail(msg, PD_EINVAL,
				       "--speedup: %g moves the time stamp of line %u beyond 126 "
				       "years",
				       o->speedup, w->req[i].line);
		p->at_ns[i] = llround(at);
	}
	p->stamped = true;
	return o->spread ? spread(p, o->seed) : PD_OK;
}

/* Each session counts its own clock on. The draws of a user depend on its number only. */
static int users(struct schedule_plan *p, const struct workload *w,
		 const struct schedule_options *o, struct pd_msg *msg)
{
	struct rng *rng = reallocarray(NULL, (size_t)w->nsessions + 1, sizeof(*rng));
	double *at = calloc((size_t)w->nsessions + 1, sizeof(*at)), mean = 1 / o->session_rate;
	int err = rng && at ? PD_OK : PD_ENOMEM;

	for (size_t u = 0; !err && u < w->nsessions; u++) {
		uint64_t state = o->seed ^ ((uint64_t)u << 32);

		rng_seed(&rng[u], rng_splitmix(&state));
		at[u] = rng_unit(&rng[u]) * mean;
	}
	for (size_t i = 0; !err && i < p->n; i++) {
		uint32_t u = w->req[i].session_no;
		uint64_t state = ~o->seed ^ ((uint64_t)i << 32);
		double t = u == WORKLOAD_NO_SESSION
				   ? (double)(rng_splitmix(&state) >> 11) * 0x1p-53 * mean
				   : at[u];

		if (!(t * 1e9 < TIME_MAX))
			err = pd_fail(msg, PD_EINVAL,
				      "--session-rate: %g is too low for %zu requests",
				      o->session_rate, p->n);
		else
			p->at_ns[i] = llround(t * 1e9);
		if (!err && u != WORKLOAD_NO_SESSION)
			at[u] += rng_exp(&rng[u], mean);
	}
	free(rng);
	free(at);
	return err;
}

static int set_times(struct schedule_plan *p, const struct workload *w,
		     const struct schedule_options *o, struct pd_msg *msg)
{
	int err;

	p->at_ns = reallocarray(NULL, p->n + 1, sizeof(*p->at_ns));
	if (!p->at_ns)
		return PD_ENOMEM;
	if (o->timestamps)
		return stamps(p, w, o, msg);
	if (o->session_rate > 0)
		return users(p, w, o, msg);
	if (o->nphases > 0) {
		err = arrivals_phases_fill(p->at_ns, p->n, o->phase, o->nphases, o->burstiness,
					   o->seed);
		return err ? pd_fail(msg, PD_EINVAL,
				     "--ramp: cannot schedule %zu requests with these rates", p->n)
			   : PD_OK;
	}
	err = arrivals_fill(p->at_ns, p->n, o->request_rate, o->burstiness, o->seed);
	return err ? pd_fail(msg, PD_EINVAL,
			     "--request-rate: cannot schedule %zu requests at %g per second", p->n,
			     o->request_rate)
		   : PD_OK;
}

/* A turn follows the request that the workload names; everything else is free. A part of a workload
 * has lost what lies behind its end. */
static int set_order(struct schedule_plan *p, const struct workload *w,
		     const struct schedule_options *o)
{
	bool ordered = false, think = false;

	for (size_t i = 0; i < p->n; i++) {
		ordered |= w->req[i].ordered;
		think |= w->req[i].delay_ns > 0 && w->req[i].before != WORKLOAD_NO_REQUEST;
	}
	if (!ordered)
		return PD_OK;
	p->before = reallocarray(NULL, p->n + 1, sizeof(*p->before));
	p->session = reallocarray(NULL, p->n + 1, sizeof(*p->session));
	p->think_ns = think ? calloc(p->n + 1, sizeof(*p->think_ns)) : NULL;
	if (!p->before || !p->session || (think && !p->think_ns))
		return PD_ENOMEM;
	p->nsessions = w->nsessions;
	for (size_t i = 0; i < p->n; i++) {
		const struct workload_request *r = &w->req[i];
		uint32_t before = r->before;

		while (before != WORKLOAD_NO_REQUEST && before >= p->n)
			before = w->req[before].before;
		p->before[i] = before == WORKLOAD_NO_REQUEST ? SCHEDULE_NONE : before;
		p->session[i] = r->ordered ? r->session_no : SCHEDULE_NONE;
		if (think && r->delay_ns > 0)
			p->think_ns[i] = llround((double)r->delay_ns / o->speedup);
	}
	return PD_OK;
}

int schedule_plan_make(struct schedule_plan *p, const struct workload *w,
		       const struct schedule_options *o, struct pd_msg *msg)
{
	int err = PD_OK;

	*p = (struct schedule_plan){.n = o->requests > 0 ? o->requests : w->n};
	if (p->n > w->n)
		err = pd_fail(msg, PD_EINVAL,
			      "--num-prompts: found %zu, expected at most %zu, the records of the "
			      "file",
			      p->n, w->n);
	else if (!(o->speedup > 0))
		err = pd_fail(msg, PD_EINVAL, "--speedup: found %g, expected more than 0",
			      o->speedup);
	if (!err)
		err = set_times(p, w, o, msg);
	if (!err)
		err = set_order(p, w, o);
	if (err == PD_ENOMEM)
		(void)pd_fail(msg, err, "out of memory for the schedule of %zu requests", p->n);
	if (err)
		schedule_plan_release(p);
	return err;
}

void schedule_plan_release(struct schedule_plan *p)
{
	free(p->at_ns);
	free(p->think_ns);
	free(p->before);
	free(p->session);
	*p = (struct schedule_plan){0};
}

struct schedule_input schedule_plan_input(const struct schedule_plan *p)
{
	return (struct schedule_input){.n = p->n,
				       .at_ns = p->at_ns,
				       .think_ns = p->think_ns,
				       .before = p->before,
				       .session = p->session,
				       .nsessions = p->nsessions,
				       .stamped = p->stamped};
}
