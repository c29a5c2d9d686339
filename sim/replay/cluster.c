/*
 * An event of the heap says when an engine's result is due. When that changes a further event is
 * pushed, and the old one is ignored when it is popped, which is cheaper than removing it.
 */
#include "sim/replay/cluster.h"

#include <math.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"

#define HEAP_MAX (64u << 20)

static struct stepper *engine(struct cluster *c, size_t pool, uint32_t worker)
{
	return &c->side[pool].engine[worker];
}

int cluster_init(struct cluster *c)
{
	size_t n = 0;

	events_init(&c->heap, HEAP_MAX);
	for (size_t p = 0; p < c->cfg->npools; p++)
		n += c->side[p].n;
	c->dirty = calloc(n + 1, sizeof(*c->dirty));
	if (c->cfg->force)
		c->others = calloc(c->side[0].n + 1, sizeof(*c->others));
	if (!c->dirty || (c->cfg->force && !c->others))
		return PD_ENOMEM;
	for (size_t i = 0; c->others && i < c->side[0].n; i++)
		c->others[i] = i != c->cfg->forced_worker;
	return links_init(&c->links, c->side[0].n, c->side[1].n);
}

void cluster_release(struct cluster *c)
{
	for (struct flight *f = c->flights, *next; f; f = next) {
		next = f->next;
		free(f->seq[0].block);
		free(f->seq[1].block);
		free(f);
	}
	for (struct flight *f = c->spare, *next; f; f = next) {
		next = f->next;
		free(f);
	}
	for (size_t p = 0; p < c->cfg->npools; p++)
		side_release(&c->side[p]);
	events_release(&c->heap);
	links_release(&c->links);
	free(c->dirty);
	free(c->others);
}

/* What a router would read from the engine now. */
static void signal_load(struct cluster *c, size_t pool, uint32_t worker)
{
	const struct stepper *e = engine(c, pool, worker);
	struct kvpool_stats kv;

	kvpool_stats(e->sched.kv, &kv);
	side_signal(
		&c->side[pool], worker,
		&(struct side_load){
			(int32_t)(e->sched.wait.n + e->sched.remote.n), (int32_t)e->sched.nrun,
			kv.usable == KVPOOL_BLOCKS_MAX ? 0 : (double)kv.held / (double)kv.usable},
		c->now);
}

/* Something happened to this engine. */
static int touched(struct cluster *c, size_t pool, uint32_t worker)
{
	struct side *s = &c->side[pool];
	struct stepper *e = engine(c, pool, worker);
	int64_t next = stepper_next(e);
	struct event ev = {.at = next,
			   .kind = CLUSTER_STEP,
			   .subject = (uint32_t)pool << CLUSTER_WORKER_BITS | worker};

	if (stepper_wants(e) && !s->dirty[worker]) {
		s->dirty[worker] = true;
		c->dirty[c->ndirty++] = ev.subject;
	}
	if (next == CLOCK_NEVER || next == s->watched[worker])
		return PD_OK;
	s->watched[worker] = next;
	return events_push(&c->heap, &ev);
}

int cluster_schedule(struct cluster *c)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < c->ndirty; i++) {
		uint32_t pool = c->dirty[i] >> CLUSTER_WORKER_BITS,
			 worker = c->dirty[i] & ((1u << CLUSTER_WORKER_BITS) - 1);

		c->side[pool].dirty[worker] = false;
		err = stepper_schedule(engine(c, pool, worker), c->now);
		err = err ? err : c->err;
		signal_load(c, pool, worker);
		if (!err)
			err = touched(c, pool, worker);
	}
	c->ndirty = 0;
	return err;
}

void cluster_end(struct cluster *c, uint32_t req, size_t pool, uint32_t worker, uint32_t counted)
{
	struct side *s = &c->side[pool];
	struct route_key key;
	struct route_request rq = {.key = NULL};

	if (s->router->pool->state->spec.type->learn)
		rq = side_request(s, c->t, req, c->now, &key);
	rq.counted = counted;
	route_end(side_router(s, c->t, req)->pool, worker, &rq);
	s->flying[worker]--;
}

static void leave(struct cluster *c, struct flight *f, size_t pool)
{
	if (f->counts[pool])
		cluster_end(c, f->req, pool, f->worker[pool], f->counted[pool]);
	f->counts[pool] = false;
}

/* Gives the record back, unless prefill still keeps blocks of it. */
static void retire(struct cluster *c, struct flight *f)
{
	f->over = true;
	if (f->seq[0].state == SEQ_HELD)
		return;
	if (f->prev)
		f->prev->next = f->next;
	else
		c->flights = f->next;
	if (f->next)
		f->next->prev = f->prev;
	f->next = c->spare;
	c->spare = f;
}

void cluster_over(struct cluster *c, uint32_t req)
{
	/* Without engines an answer takes no time. What follows it still comes after what was
	 * there before, as it does on any server. */
	int64_t end = c->now + c->cfg->routing_only;
	int err = schedule_ended(c->order, req, end);

	if (err)
		c->err = err;
}

void cluster_completed(struct cluster *c, uint32_t req, const struct flight *f)
{
	const struct sim_request got = simtrace_request(c->t, req), *q = &got;
	struct replay_result *out = c->out;

	c->in_flight--;
	cluster_over(c, req);
	c->last_done = c->now;
	out->completed++;
	out->input_tokens += q->input_tokens;
	out->output_tokens += q->output_tokens;
	if (!out->request)
		return;
	out->request[req].fate = REPLAY_COMPLETED;
	out->request[req].done_ns = c->now;
	if (f)
		out->request[req].first_ns = f->first;
}

/* ---- engines ---- */

/* The blocks of prompt and answer: those of the request that continues this one, if it is known. */
static void names_of(const struct cluster *c, uint32_t req, struct seq *q)
{
	const struct sim_request *r = &c->t->req[req], *next;
	uint32_t full = r->input_tokens / c->t->block_tokens, more, most;

	q->name = c->t->block + r->block;
	q->nnames = full < r->nblocks ? full : r->nblocks;
	if (!c->successor || c->successor[req] == SIM_NO_PICK || q->nnames < full)
		return;
	next = &c->t->req[c->successor[req]];
	more = next->input_tokens / c->t->block_tokens;
	most = (r->input_tokens + r->output_tokens) / c->t->block_tokens;
	more = more < next->nblocks ? more : next->nblocks;
	q->name = c->t->block + next->block;
	q->nnames = more < most ? more : most;
}

static int submit(struct cluster *c, struct flight *f, size_t pool)
{
	const struct sim_request *r = &c->t->req[f->req];
	bool leg = c->cfg->npools == 2 && pool == 0;
	struct stepper *e = engine(c, pool, f->worker[pool]);
	struct seq *q = &f->seq[pool];

	*q = (struct seq){.id = f->req,
			  .prompt = r->input_tokens,
			  .output = leg ? 1 : r->output_tokens,
			  .kv = leg			 ? SEQ_HOLD
				: pool == 1 && !f->local ? SEQ_FETCH
							 : SEQ_LOCAL,
			  .owner = f};
	names_of(c, f->req, q);
	stepper_add(e, q, c->now);
	signal_load(c, pool, f->worker[pool]);
	return touched(c, pool, f->worker[pool]);
}

static bool same_host(const struct replay_config *cfg, const struct flight *f)
{
	const struct replay_node *a = cfg->pool[0].node, *b = cfg->pool[1].node;

	return a && b && a[f->worker[0]].host != 0 && a[f->worker[0]].host == b[f->worker[1]].host;
}

/* The decode engine has taken room; what it misses flows. */
static void fetch(void *ctx, struct stepper *e, struct seq *q, int64_t now)
{
	struct cluster *c = ctx;
	const struct replay_config *cfg = c->cfg;
	struct flight *f = q->owner;
	uint32_t missing = q->prompt - q->cached;
	bool near = cfg->host_link && same_host(cfg, f);
	int err;

	(void)e;
	err = links_start(&c->links, now, f->worker[0], f->worker[1],
			  llround((near ? cfg->host_transfer_ms : cfg->transfer_ms) * 1e6),
			  llround((near ? cfg->host_transfer_us_token : cfg->transfer_us_token) *
				  missing * 1e3),
			  f);
	if (err)
		c->err = err;
}

static void released(void *ctx, struct stepper *e, struct seq *q)
{
	struct flight *f = q->owner;

	(void)e;
	if (f->over)
		retire(ctx, f);
}

/* The first step that computes a request. Admitted ones stand behind the running ones. */
static void scheduled(void *ctx, struct stepper *e, const struct stepper_step *step)
{
	struct cluster *c = ctx;

	(void)e;
	for (size_t i = step->s.n; i-- > 0 && step->s.entry[i].part != SCHED_RUNNING;) {
		const struct seq *q = step->s.entry[i].seq;
		struct replay_request *r = q ? &c->out->request[q->id] : NULL;

		if (r && r->started_ns < 0)
			r->started_ns = step->begin;
	}
}

int cluster_start(struct cluster *c, uint32_t req, const struct route_decision *d, bool local)
{
	const struct sim_request *r = &c->t->req[req];
	size_t npools = c->cfg->npools, first = local ? 1 : 0;
	struct flight *f = c->spare;

	for (size_t p = first; p < npools; p++)
		if (!sched_fits(&engine(c, p, d[p].worker)->sched, r->input_tokens,
				npools == 2 && p == 0 ? 1 : r->output_tokens))
			return PD_ETOOBIG;
	if (f)
		c->spare = f->next;
	else
		f = malloc(sizeof(*f));
	if (!f)
		return PD_ENOMEM;
	*f = (struct flight){.req = req, .next = c->flights, .local = local};
	if (local)
		f->worker[0] = UINT32_MAX;
	if (c->flights)
		c->flights->prev = f;
	c->flights = f;
	for (size_t p = first; p < npools; p++) {
		struct stepper *e = engine(c, p, d[p].worker);

		f->worker[p] = d[p].worker;
		f->counted[p] = d[p].tokens;
		f->counts_stay[p] = d[p].tokens_stay;
		f->counts[p] = true;
		e->ctx = c;
		e->fetch = fetch;
		e->scheduled = scheduled;
		e->scheduled_ctx = c;
		e->released = released;
	}
	return submit(c, f, first);
}

/* ---- what happens ---- */

/* serve's backoff without its jitter: half as much again each time. */
static int64_t backoff(const struct replay_config *cfg, unsigned attempt)
{
	int64_t ns = cfg->backoff_ns ? cfg->backoff_ns : REPLAY_BACKOFF_NS;

	while (attempt-- > 0)
		ns += ns / 2;
	return ns;
}

/* An attempt has failed: there is another one, or the request is lost. */
static int lose(struct cluster *c, struct flight *f)
{
	struct event again = {.at = c->now + backoff(c->cfg, f->attempt),
			      .kind = CLUSTER_RETRY,
			      .value = (uint64_t)(uintptr_t)f};

	for (size_t p = 0; p < c->cfg->npools; p++)
		leave(c, f, p);
	if (!f->answered &&
	    ++f->attempt < (c->cfg->attempts ? c->cfg->attempts : REPLAY_ATTEMPTS)) {
		for (size_t p = 0; p < c->cfg->npools; p++)
			f->seq[p] = (struct seq){.state = SEQ_NEW};
		return events_push(&c->heap, &again);
	}
	c->in_flight--;
	cluster_over(c, f->req);
	c->out->lost++;
	c->out->request[f->req].fate = REPLAY_LOST;
	retire(c, f);
	return PD_OK;
}

int cluster_retry(struct cluster *c, struct flight *f, const struct route_decision *d, bool local)
{
	if (!d)
		return lose(c, f);
	f->local = local;
	if (local)
		f->worker[0] = UINT32_MAX;
	for (size_t p = local ? 1 : 0; p < c->cfg->npools; p++) {
		f->worker[p] = d[p].worker;
		f->counted[p] = d[p].tokens;
		f->counts[p] = true;
	}
	c->out->retried++;
	return submit(c, f, local ? 1 : 0);
}

/* P/D: the prompt is computed. The request is lost when the decode worker has failed meanwhile. */
static int hand_over(struct cluster *c, struct flight *f)
{
	leave(c, f, 0);
	if (!c->side[1].failed[f->worker[1]])
		return submit(c, f, 1);
	stepper_abort(engine(c, 0, f->worker[0]), &f->seq[0], c->now);
	return lose(c, f);
}

static int note_tokens(struct cluster *c, uint32_t req, uint32_t n)
{
	struct replay_result *out = c->out;

	while (n-- > 0) {
		if (out->ntokens == out->token_cap) {
			size_t cap = out->token_cap ? 2 * out->token_cap : 4096;
			void *grown = reallocarray(out->token, cap, sizeof(*out->token));

			if (!grown)
				return PD_ENOMEM;
			out->token = grown;
			out->token_cap = cap;
		}
		out->token[out->ntokens++] = (struct replay_token){c->now, req};
	}
	return PD_OK;
}

int cluster_step(struct cluster *c, uint32_t subject, int64_t at)
{
	uint32_t pool = subject >> CLUSTER_WORKER_BITS,
		 worker = subject & ((1u << CLUSTER_WORKER_BITS) - 1);
	bool leg = c->cfg->npools == 2 && pool == 0;
	struct stepper *e = engine(c, pool, worker);
	int err;

	if (stepper_next(e) != at)
		return PD_OK;
	err = stepper_finish(e);
	for (size_t i = 0; !err && i < e->sched.nout; i++) {
		struct sched_output o = e->sched.out[i];
		struct flight *f = o.seq->owner;

		if (o.marks & SCHED_FIRST) {
			if (leg || c->cfg->npools == 1 || f->local)
				c->out->request[f->req].cached = o.seq->cached;
			if (o.seq->cached > 0)
				side_hit(&c->side[pool], c->t, worker, o.seq->cached);
			f->first = c->now;
			f->answered |= !leg;
			/* The prompt does not wait at its worker any more. */
			if (!f->counts_stay[pool]) {
				route_computed(side_router(&c->side[pool], c->t, f->req)->pool,
					       worker, f->counted[pool]);
				f->counted[pool] = 0;
			}
		}
		if (c->cfg->detailed && !leg)
			err = note_tokens(c, f->req, o.tokens);
		if (err || !(o.marks & SCHED_DONE))
			continue;
		if (leg) {
			err = hand_over(c, f);
			continue;
		}
		leave(c, f, pool);
		cluster_completed(c, f->req, f);
		retire(c, f);
	}
	signal_load(c, pool, worker);
	return err ? err : touched(c, pool, worker);
}

int cluster_transfers(struct cluster *c)
{
	struct flight *f;
	int err = PD_OK;

	while (!err && (f = links_ended(&c->links, c->now)) != NULL) {
		err = stepper_told(engine(c, 1, f->worker[1]), &f->seq[1], c->now);
		if (!err && f->seq[0].state == SEQ_HELD)
			err = stepper_told(engine(c, 0, f->worker[0]), &f->seq[0], c->now);
		if (!err)
			err = touched(c, 1, f->worker[1]);
		if (!err)
			err = touched(c, 0, f->worker[0]);
	}
	return err;
}

static bool fetched(const struct seq *q)
{
	return q->state == SEQ_LOADED || q->state == SEQ_RUNNING ||
	       (q->state == SEQ_WAITING && q->kv == SEQ_LOCAL);
}

struct route_decider *cluster_decider(struct cluster *c, uint32_t req)
{
	return c->decider[side_replica(&c->side[0], c->t, req)];
}

int cluster_slow(struct cluster *c, uint32_t pool, uint32_t worker, double factor)
{
	struct stepcost cost = c->side[pool].cost[worker];

	cost.a *= factor;
	cost.b *= factor;
	cost.c *= factor;
	cost.d *= factor;
	cost.e *= factor;
	stepper_cost(engine(c, pool, worker), &cost, c->now);
	return touched(c, pool, worker);
}

int cluster_fail(struct cluster *c, uint32_t pool, uint32_t worker)
{
	struct stepper *e = engine(c, pool, worker);
	struct flight *next;

	for (struct flight *f = c->flights; f; f = next) {
		bool begun = f->seq[pool].state != SEQ_NEW && f->seq[pool].state != SEQ_DONE;

		next = f->next;
		if (f->worker[pool] != worker || !begun)
			continue;
		links_cancel(&c->links, c->now, f);
		stepper_abort(e, &f->seq[pool], c->now);
		if (f->over)
			retire(c, f);
		/* What decode has, or computes anew, does not need prefill any more. */
		if (f->over || (pool == 0 && fetched(&f->seq[1])))
			continue;
		/* The other side hears of it at once. */
		if (c->cfg->npools == 2 && f->seq[!pool].state != SEQ_NEW) {
			stepper_abort(engine(c, !pool, f->worker[!pool]), &f->seq[!pool], c->now);
			if (touched(c, !pool, f->worker[!pool]))
				return PD_ENOMEM;
		}
		if (lose(c, f))
			return PD_ENOMEM;
	}
	kvpool_forget(e->sched.kv);
	return touched(c, pool, worker);
}
