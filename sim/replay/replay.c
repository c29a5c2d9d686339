/*
 * The loop has three sources of time: the heap (step ends, hand-overs, timed pool events), the
 * arrivals (sorted, so an index suffices) and pool events tied to a request number. A step end that
 * a change of the batch has made obsolete carries an old generation and is dropped when it is
 * popped, which is cheaper than removing it from the heap.
 */
#include "sim/replay/replay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "sim/replay/events.h"
#include "sim/replay/side.h"

enum kind { STEP_END, HAND_OVER, POOL_EVENT };

#define WORKER_BITS 16 /* of an event's subject; the pool is above */
#define HEAP_MAX    (64u << 20)

struct flight {
	uint32_t worker[REPLAY_POOLS];
	uint32_t missing; /* P/D: tokens to hand over */
	int64_t issued;	  /* when it was routed; after its arrival with max_concurrency */
	int64_t first;	  /* first token */
	bool prefilled;	  /* P/D: the prefill worker was released */
	bool lost;
};

struct run {
	const struct simtrace *t;
	const struct replay_config *cfg;
	struct side side[REPLAY_POOLS];
	struct events heap;
	struct flight *flight; /* owned, one per request */
	int64_t now, last_done;
	uint32_t in_flight;
	struct replay_result *out;
};

/* The request left the worker of this pool. */
static void done(struct run *r, uint32_t req, size_t pool)
{
	struct side *s = &r->side[pool];
	struct route_key key;
	struct route_request rq;
	bool heard = s->router.pool->state->spec.type->learn != NULL;

	if (heard)
		rq = side_request(s, r->t, req, r->now, &key);
	route_end(s->router.pool, r->flight[req].worker[pool], heard ? &rq : NULL);
}

static int push(struct run *r, int64_t at, enum kind kind, uint32_t subject, uint64_t value)
{
	struct event e = {.at = at, .kind = kind, .subject = subject, .value = value};

	return events_push(&r->heap, &e);
}

/* What a router would read from the engine now. */
static void signal_load(struct run *r, uint32_t pool, uint32_t worker)
{
	const struct vengine *e = &r->side[pool].engine[worker];
	uint64_t kv = 0;

	for (size_t i = 0; e->p.kv_tokens > 0 && i < e->nrun; i++)
		kv += e->run[i].ctx;
	route_signal_set(&r->side[pool].router.slot[worker].signal, (int32_t)e->nwait,
			 (int32_t)e->nrun, e->p.kv_tokens ? (double)kv / (double)e->p.kv_tokens : 0,
			 r->now);
}

static int schedule_step(struct run *r, uint32_t pool, uint32_t worker)
{
	const struct vengine *e = &r->side[pool].engine[worker];

	return push(r, e->end, STEP_END, pool << WORKER_BITS | worker, e->gen);
}

static int submit(struct run *r, uint32_t pool, uint32_t req, uint32_t prefill, uint32_t output)
{
	uint32_t worker = r->flight[req].worker[pool];
	struct vengine *e = &r->side[pool].engine[worker];
	uint32_t gen = e->gen;
	int err = vengine_submit(e, r->now, req, prefill, r->t->req[req].input_tokens, output);

	signal_load(r, pool, worker);
	if (err || e->gen == gen)
		return err;
	return schedule_step(r, pool, worker);
}

static void completed(struct run *r, uint32_t req)
{
	const struct sim_request *q = &r->t->req[req];
	struct flight *f = &r->flight[req];
	double e2e = (double)(r->now - f->issued) / 1e6;
	double first = (double)(f->first - f->issued) / 1e6;

	r->in_flight--;
	r->last_done = r->now;
	r->out->completed++;
	r->out->input_tokens += q->input_tokens;
	r->out->output_tokens += q->output_tokens;
	if (r->cfg->routing_only)
		return;
	r->out->e2el[r->out->nlatencies] = e2e;
	r->out->ttft[r->out->nlatencies++] = first;
	if (q->output_tokens > 1)
		r->out->tpot[r->out->ntpot++] = (e2e - first) / (double)(q->output_tokens - 1);
}

/* P/D: the prompt is computed; the blocks that the decode worker misses are transferred. */
static int hand_over(struct run *r, uint32_t req)
{
	struct flight *f = &r->flight[req];
	double ms = r->cfg->transfer_ms + r->cfg->transfer_us_token * f->missing / 1e3;

	f->prefilled = true;
	done(r, req, 0);
	return push(r, r->now + llround(ms * 1e6), HAND_OVER, req, 0);
}

static int step_end(struct run *r, const struct event *ev)
{
	uint32_t pool = ev->subject >> WORKER_BITS,
		 worker = ev->subject & ((1u << WORKER_BITS) - 1);
	struct side *s = &r->side[pool];
	struct vengine *e = &s->engine[worker];
	bool leg = r->cfg->npools == 2 && pool == 0;
	size_t n;
	int err;

	if (!e->stepping || e->gen != (uint32_t)ev->value)
		return PD_OK;
	err = vengine_step_end(e, &n);
	for (size_t i = 0; !err && i < n; i++) {
		struct vengine_output o = e->out[i];

		if ((o.marks & VENGINE_FIRST) && !leg)
			r->flight[o.req].first = r->now;
		if (!(o.marks & VENGINE_DONE))
			continue;
		if (leg) {
			err = hand_over(r, o.req);
			continue;
		}
		done(r, o.req, pool);
		completed(r, o.req);
	}
	signal_load(r, pool, worker);
	if (err || !e->stepping)
		return err;
	return schedule_step(r, pool, worker);
}

/* The request was on a worker that failed. */
static void lose(struct run *r, uint32_t req)
{
	struct flight *f = &r->flight[req];

	if (f->lost)
		return;
	f->lost = true;
	for (size_t p = 0; p < r->cfg->npools; p++)
		if (p > 0 || !f->prefilled)
			done(r, req, p);
	r->in_flight--;
	r->out->lost++;
}

static int fail_worker(struct run *r, uint32_t pool, uint32_t worker)
{
	struct vengine *e = &r->side[pool].engine[worker];
	size_t n;
	int err = vengine_abort(e, &n);

	if (err)
		return err;
	for (size_t i = 0; i < n; i++)
		lose(r, e->out[i].req);
	kvcache_clear(r->side[pool].cache[worker]);
	return PD_OK;
}

static int pool_event(struct run *r, const struct replay_event *e)
{
	struct side *s = &r->side[e->pool];

	s->router.slot[e->worker].available = e->action == REPLAY_JOIN;
	side_tell(s, e->worker, e->action == REPLAY_JOIN ? ROUTE_JOINED : ROUTE_LEFT, r->now);
	if (e->action != REPLAY_LEAVE)
		s->failed[e->worker] = e->action == REPLAY_FAIL;
	return e->action == REPLAY_FAIL ? fail_worker(r, e->pool, e->worker) : PD_OK;
}

/* P/D: the blocks have arrived. The request is lost when the decode worker has failed meanwhile. */
static int handed_over(struct run *r, uint32_t req)
{
	struct flight *f = &r->flight[req];

	if (f->lost)
		return PD_OK;
	if (r->side[1].failed[f->worker[1]]) {
		lose(r, req);
		return PD_OK;
	}
	return submit(r, 1, req, 0, r->t->req[req].output_tokens);
}

static int handle(struct run *r, const struct event *e)
{
	r->now = e->at;
	switch ((enum kind)e->kind) {
	case STEP_END:
		return step_end(r, e);
	case HAND_OVER:
		return handed_over(r, e->subject);
	case POOL_EVENT:
		return pool_event(r, &r->cfg->events[e->subject]);
	}
	return PD_EINVAL;
}

/* Routes the request in every pool and starts it. */
static int arrive(struct run *r, uint32_t req)
{
	size_t npools = r->cfg->npools;
	struct replay_choice *choices = r->cfg->choices ? r->cfg->choices + req * npools : NULL;
	struct flight *f = &r->flight[req];
	struct route_pair pair = {.prefill_first = false};
	struct route_key key;
	uint32_t uncached, compute = 0;
	int err, refused;

	f->issued = r->now;
	for (size_t p = 0; p < npools; p++) {
		pair.pool[p] = r->side[p].router.pool;
		pair.request[p] = side_request(&r->side[p], r->t, req, r->now, &key);
	}
	refused = npools == 2 ? route_decide_pair(&pair)
			      : route_decide(pair.pool[0], &pair.request[0], &pair.decision[0]);
	for (size_t p = 0; choices && p < npools; p++)
		choices[p] = refused ? (struct replay_choice){VROUTER_REFUSED, ROUTE_REASON_NO_KEY}
				     : (struct replay_choice){pair.decision[p].worker,
							      pair.decision[p].reason};
	if (refused == PD_ENOENT || refused == PD_EBUSY) {
		r->out->refused++;
		return PD_OK;
	}
	err = refused;
	for (size_t p = 0; !err && p < npools; p++) {
		f->worker[p] = pair.decision[p].worker;
		err = side_routed(&r->side[p], r->t, &r->t->req[req], &pair.decision[p], &uncached);
		f->missing = uncached;
		if (p == 0)
			compute = uncached > 0 ? uncached : 1;
	}
	if (err)
		return err;
	if (++r->in_flight > r->out->peak_in_flight)
		r->out->peak_in_flight = r->in_flight;
	if (!r->cfg->routing_only)
		return submit(r, 0, req, compute, npools == 2 ? 1 : r->t->req[req].output_tokens);
	for (size_t p = 0; p < npools; p++)
		done(r, req, p);
	completed(r, req);
	return PD_OK;
}

static int loop(struct run *r)
{
	const struct replay_config *cfg = r->cfg;
	const struct event *e;
	struct event ev;
	size_t next = 0;
	int err = PD_OK;

	while (!err) {
		bool enter = next < r->t->n &&
			     (cfg->max_concurrency == 0 || r->in_flight < cfg->max_concurrency);
		int64_t at = enter && r->t->req[next].arrival_ns > r->now
				     ? r->t->req[next].arrival_ns
				     : r->now;

		e = events_peek(&r->heap);
		if (e && (!enter || e->at <= at)) {
			(void)events_pop(&r->heap, &ev);
			err = handle(r, &ev);
			continue;
		}
		if (!enter)
			break;
		r->now = at;
		for (size_t i = 0; !err && i < cfg->nevents; i++)
			if (cfg->events[i].by_request && cfg->events[i].request == next)
				err = pool_event(r, &cfg->events[i]);
		if (!err)
			err = arrive(r, (uint32_t)next++);
	}
	return err;
}

int replay_run(const struct simtrace *t, const struct replay_config *cfg, struct replay_result *out,
	       struct pd_msg *msg)
{
	struct run r = {.t = t, .cfg = cfg, .out = out};
	size_t n = t->n ? t->n : 1;
	int err;

	memset(out, 0, sizeof(*out));
	err = vengine_params_check(&cfg->engine, msg);
	if (err)
		return err;
	events_init(&r.heap, HEAP_MAX);
	r.flight = calloc(n, sizeof(*r.flight));
	out->ttft = reallocarray(NULL, n, sizeof(double));
	out->tpot = reallocarray(NULL, n, sizeof(double));
	out->e2el = reallocarray(NULL, n, sizeof(double));
	if (!r.flight || !out->ttft || !out->tpot || !out->e2el)
		err = pd_fail(msg, PD_ENOMEM, "out of memory for %zu requests", t->n);
	for (size_t p = 0; !err && p < cfg->npools; p++)
		err = side_init(&r.side[p], t, cfg, p, msg);
	if (!err) {
		for (size_t i = 0; !err && i < cfg->nevents; i++)
			if (!cfg->events[i].by_request)
				err = push(&r, cfg->events[i].at_ns, POOL_EVENT, (uint32_t)i, 0);
		if (!err)
			err = loop(&r);
		if (err)
			(void)pd_fail(msg, err, "cannot replay: %s", pd_err_text(err));
	}
	out->npools = cfg->npools;
	out->requests = t->n;
	if (out->completed > 0)
		out->duration_s = (double)(r.last_done - t->req[0].arrival_ns) / 1e9;
	for (size_t p = 0; !err && p < cfg->npools; p++)
		side_result(&r.side[p], t, &cfg->pool[p].policy, &out->pool[p]);
	if (err)
		replay_result_release(out);
	for (size_t p = 0; p < cfg->npools; p++)
		side_release(&r.side[p]);
	events_release(&r.heap);
	free(r.flight);
	return err;
}

void replay_result_release(struct replay_result *r)
{
	for (size_t p = 0; p < REPLAY_POOLS; p++)
		free(r->pool[p].worker);
	free(r->ttft);
	free(r->e2el);
	free(r->tpot);
	memset(r, 0, sizeof(*r));
}
