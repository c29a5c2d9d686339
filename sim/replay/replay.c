/*
 * The loop has three sources of time: the heap (results of engines, timed pool events), the links
 * between the pools, and the arrivals (sorted, so an index suffices). Engines schedule when all of
 * one instant has happened.
 */
#include "sim/replay/replay.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "sim/replay/cluster.h"

const char *replay_action_name(enum replay_action a)
{
	static const char *const name[] = {"join", "leave", "fail", "slow"};

	return name[a];
}

#define AHEAD 8 /* requests; their memory is far apart */

static int pool_event(struct cluster *c, const struct replay_event *e)
{
	struct side *s = &c->side[e->pool];

	if (c->cfg->happened)
		c->cfg->happened[e - c->cfg->events] = c->routed;
	if (e->action == REPLAY_SLOW)
		return s->engine ? cluster_slow(c, e->pool, e->worker, e->factor) : PD_OK;
	side_available(s, e->worker, e->action == REPLAY_JOIN);
	side_tell(s, e->worker, e->action == REPLAY_JOIN ? ROUTE_JOINED : ROUTE_LEFT, c->now);
	if (e->action != REPLAY_LEAVE)
		s->failed[e->worker] = e->action == REPLAY_FAIL;
	if (e->action != REPLAY_FAIL)
		return PD_OK;
	side_forget(s, c->t, e->worker);
	return s->engine ? cluster_fail(c, e->pool, e->worker) : PD_OK;
}

static void note_choice(struct cluster *c, uint32_t req, const struct route_pair *pair)
{
	struct replay_request *r = &c->out->request[req];

	if (!c->out->request)
		return;
	for (size_t p = 0; p < c->cfg->npools; p++)
		r->worker[p] = p == 0 && pair->local ? VROUTER_LOCAL : pair->decision[p].worker;
	r->started_ns = -1;
	r->attempts++;
}

/* Of a request that is being routed. */
static void note_found(struct cluster *c, uint32_t req, uint64_t tokens)
{
	struct replay_result *out = c->out;
	size_t n = c->t->n, *w = &c->window;

	if (out->request) {
		out->request[req].cached = (uint32_t)tokens;
		return;
	}
	while (*w + 1 < REPLAY_WINDOWS && c->routed - 1 >= n * (*w + 1) / REPLAY_WINDOWS)
		++*w;
	out->window_tokens[*w] += simtrace_request(c->t, req).input_tokens;
	out->window_hits[*w] += (double)tokens;
}

/* Chooses a worker in every pool; *none: there is none. */
static int choose(struct cluster *c, uint32_t req, unsigned attempt, struct route_pair *pair,
		  bool *none)
{
	size_t npools = c->cfg->npools;
	struct replay_choice *choices = c->cfg->choices ? c->cfg->choices + req * npools : NULL;
	struct route_key key;
	int err;

	for (size_t p = 0; p < npools; p++) {
		pair->pool[p] = side_router(&c->side[p], c->t, req)->pool;
		side_refresh(&c->side[p], c->t, req, c->now);
		pair->request[p] = side_request(&c->side[p], c->t, req, c->now, &key);
		if (c->others && attempt == 0 && req == c->cfg->forced_request)
			pair->request[p].tried = c->others;
		if (attempt > 0)
			pair->request[p].draw =
				route_dice(c->cfg->seed, c->side[p].router->role, req, attempt);
	}
	err = npools == 2 ? route_decide_pair(pair)
			  : route_decide(pair->pool[0], &pair->request[0], &pair->decision[0]);
	for (size_t p = 0; choices && attempt == 0 && p < npools; p++)
		choices[p] = err ? (struct replay_choice){VROUTER_REFUSED, ROUTE_REASON_NO_KEY}
			     : p == 0 && pair->local
				     ? (struct replay_choice){VROUTER_LOCAL, ROUTE_REASON_NO_KEY}
				     : (struct replay_choice){pair->decision[p].worker,
							      pair->decision[p].reason};
	*none = err == PD_ENOENT || err == PD_EBUSY;
	if (*none)
		return PD_OK;
	note_choice(c, req, pair);
	for (size_t p = pair->local; !err && p < npools; p++) {
		const struct replay_worker *w = &c->side[p].work[pair->decision[p].worker];
		uint64_t before = w->hit_tokens;

		err = side_routed(&c->side[p], c->t, req, &pair->decision[p]);
		if (p == 0) /* without engines they are found now */
			note_found(c, req, w->hit_tokens - before);
	}
	return err;
}

/* What a decode worker was to do alone another one does alone. */
static bool stays_local(void *context, struct route_pair *p)
{
	(void)context;
	(void)p;
	return false;
}

/* The request's worker has failed before it answered: other workers, if there are. */
static int try_again(struct cluster *c, struct flight *f)
{
	struct route_pair pair = {.ask = f->local	 ? stays_local
					 : c->decider[0] ? route_decider_ask
							 : NULL,
				  .prefill_first = c->cfg->prefill_first,
				  .context = cluster_decider(c, f->req)};
	bool none;
	int err = choose(c, f->req, f->attempt, &pair, &none);

	return err ? err : cluster_retry(c, f, none ? NULL : pair.decision, pair.local);
}

/* Routes the request in every pool and starts it. */
static int arrive(struct cluster *c, uint32_t req)
{
	struct route_pair pair = {.ask = c->decider[0] ? route_decider_ask : NULL,
				  .prefill_first = c->cfg->prefill_first,
				  .context = cluster_decider(c, req)};
	bool none;
	struct replay_request none_kept = {0};
	struct replay_request *r = c->out->request ? &c->out->request[req] : &none_kept;
	int err;

	r->issued_ns = c->now;
	err = choose(c, req, 0, &pair, &none);
	if (none) {
		c->out->refused++;
		r->fate = REPLAY_REFUSED;
		cluster_over(c, req);
		return c->err;
	}
	c->out->local += pair.local;
	if (err)
		return err;
	if (++c->in_flight > c->out->peak_in_flight)
		c->out->peak_in_flight = c->in_flight;
	if (!c->cfg->routing_only) {
		err = cluster_start(c, req, pair.decision, pair.local);
		if (err != PD_ETOOBIG)
			return err;
		c->in_flight--;
		cluster_over(c, req);
		c->out->refused++;
		r->fate = REPLAY_REFUSED;
		r->worker[0] = r->worker[1] = VROUTER_REFUSED;
	}
	for (size_t p = pair.local; p < c->cfg->npools; p++)
		cluster_end(c, req, p, pair.decision[p].worker, pair.decision[p].tokens);
	if (c->cfg->routing_only)
		cluster_completed(c, req, NULL);
	return PD_OK;
}

/* Events of a pool that are tied to a number happen before the request that is routed as such. */
static int next_arrival(struct cluster *c, uint32_t req)
{
	const struct replay_config *cfg = c->cfg;
	size_t number = c->routed;
	int err = PD_OK;

	for (size_t i = 0; !err && i < cfg->nevents; i++)
		if (cfg->events[i].by_request && cfg->events[i].request == number)
			err = pool_event(c, &cfg->events[i]);
	if (cfg->sequence)
		cfg->sequence[number] = req;
	c->routed++;
	if (c->t->made) {
		simtrace_prefetch(c->t, (size_t)req + 3 * AHEAD);
		for (size_t p = 0; p < cfg->npools; p++)
			side_prefetch(&c->side[p], c->t, req, AHEAD);
	}
	if (!err)
		err = arrive(c, req);
	return err ? err : c->err;
}

static int loop(struct cluster *c)
{
	const struct replay_config *cfg = c->cfg;
	int err = PD_OK;

	for (size_t i = 0; cfg->happened && i < cfg->nevents; i++)
		cfg->happened[i] = UINT64_MAX;
	while (!err) {
		const struct event *e = events_peek(&c->heap);
		int64_t heap = e ? e->at : CLOCK_NEVER, links = links_next(&c->links);
		int64_t arrival = schedule_due(c->order), at;
		struct event ev;

		if (arrival != SCHEDULE_NEVER && arrival < c->now)
			arrival = c->now;
		at = links < heap ? links : heap;
		at = arrival < at ? arrival : at;
		if (c->ndirty > 0 && at > c->now) {
			err = cluster_schedule(c);
			continue;
		}
		if (at == CLOCK_NEVER)
			break;
		c->now = at;
		if (links <= at) {
			err = cluster_transfers(c);
		} else if (heap <= at) {
			(void)events_pop(&c->heap, &ev);
			err = ev.kind == CLUSTER_STEP ? cluster_step(c, ev.subject, ev.at)
			      : ev.kind == CLUSTER_RETRY
				      ? try_again(c, (struct flight *)(uintptr_t)ev.value)
				      : pool_event(c, &cfg->events[ev.subject]);
		} else {
			err = next_arrival(c, schedule_take(c->order).item);
		}
		err = err ? err : c->err;
	}
	return err;
}

/* Per request the next one of its key, if that continues it: its prompt begins with the same full
 * blocks and is at least as long as prompt and answer. */
static int find_successors(const struct simtrace *t, uint32_t **out)
{
	uint32_t *next = reallocarray(NULL, t->n + 1, sizeof(*next)),
		 *last = reallocarray(NULL, t->nkeys + 1, sizeof(*last));

	for (size_t k = 0; last && k < t->nkeys; k++)
		last[k] = SIM_NO_PICK;
	for (size_t i = t->n; next && last && i-- > 0;) {
		const struct sim_request *r = &t->req[i], *s;
		uint32_t full = r->input_tokens / t->block_tokens;

		next[i] = r->key == SIM_NO_KEY ? SIM_NO_PICK : last[r->key];
		if (r->key != SIM_NO_KEY)
			last[r->key] = (uint32_t)i;
		if (next[i] == SIM_NO_PICK)
			continue;
		s = &t->req[next[i]];
		if (full == 0 || full > r->nblocks || full > s->nblocks ||
		    s->input_tokens < r->input_tokens + r->output_tokens ||
		    t->block[r->block + full - 1] != t->block[s->block + full - 1])
			next[i] = SIM_NO_PICK;
	}
	free(last);
	if (!last) {
		free(next);
		next = NULL;
	}
	*out = next;
	return next ? PD_OK : PD_ENOMEM;
}

static int results_new(struct replay_result *out, size_t n)
{
	out->request = reallocarray(NULL, n + 1, sizeof(*out->request));
	for (size_t i = 0; out->request && i < n; i++)
		out->request[i] = (struct replay_request){
			-1, -1, -1, -1, {VROUTER_REFUSED, VROUTER_REFUSED}, 0, REPLAY_LEFT_OVER, 0};
	return out->request ? PD_OK : PD_ENOMEM;
}

int replay_run(const struct simtrace *t, const struct replay_config *cfg, struct replay_result *out,
	       struct pd_msg *msg)
{
	struct cluster c = {.t = t, .cfg = cfg, .out = out};
	const struct schedule_limits limits = {.in_flight_max = cfg->max_concurrency,
					       .sessions_max = cfg->concurrent_sessions};
	const struct schedule_input order = simtrace_schedule(t);
	uint32_t *successor = NULL;
	int err;

	memset(out, 0, sizeof(*out));
	err = engine_params_check(&cfg->engine, msg);
	if (err)
		return err;
	err = t->made ? PD_OK : results_new(out, t->n);
	if (!err && !cfg->routing_only)
		err = find_successors(t, &successor);
	if (err)
		(void)pd_fail(msg, PD_ENOMEM, "out of memory for %zu requests", t->n);
	c.successor = successor;
	if (!err)
		err = schedule_new(&c.order, &order, &limits, msg);
	for (size_t k = 0; !err && cfg->npools == 2 && k < (cfg->routers ? cfg->routers : 1); k++)
		if (cfg->decider.kind != ROUTE_DECIDER_always)
			err = route_decider_new(&c.decider[k], &cfg->decider);
	for (size_t p = 0; !err && p < cfg->npools; p++)
		err = side_init(&c.side[p], t, cfg, p, msg);
	if (!err) {
		err = cluster_init(&c);
		for (size_t i = 0; !err && i < cfg->nevents; i++)
			if (!cfg->events[i].by_request)
				err = events_push(&c.heap,
						  &(struct event){.at = cfg->events[i].at_ns,
								  .kind = CLUSTER_POOL_EVENT,
								  .subject = (uint32_t)i});
		if (!err)
			err = loop(&c);
		if (err)
			(void)pd_fail(msg, err, "cannot replay: %s", pd_err_text(err));
	}
	out->npools = cfg->npools;
	out->requests = t->n;
	if (out->completed > 0)
		out->duration_s = (double)(c.last_done - simtrace_request(t, 0).arrival_ns) / 1e9;
	for (size_t p = 0; !err && p < cfg->npools; p++)
		side_result(&c.side[p], t, &cfg->pool[p].policy, &out->pool[p]);
	if (err)
		replay_result_release(out);
	cluster_release(&c);
	schedule_free(c.order);
	for (size_t k = 0; k < REPLAY_ROUTERS_MAX; k++)
		route_decider_free(c.decider[k]);
	free(successor);
	return err;
}

void replay_result_release(struct replay_result *r)
{
	for (size_t p = 0; p < REPLAY_POOLS; p++)
		free(r->pool[p].worker);
	free(r->request);
	free(r->token);
	memset(r, 0, sizeof(*r));
}
