/*
 * The one entry point of all decisions. Counting a request in is a compare-and-swap on the worker's
 * counter: policies by load take a worker at the number in flight that they ranked it by, and when
 * another caller was faster everything is ranked again. So a burst of concurrent callers spreads as
 * if they had come one by one.
 */
#include "lib/route/decide.h"

#include "lib/base/check.h"

/* How often a pick that lost against others is repeated before the cap alone decides. */
#define TRIES_MAX 256

const char *route_reason_name(enum route_reason r)
{
	static const char *const name[] = {
		[ROUTE_REASON_KEY] = "key",	      [ROUTE_REASON_FAILOVER] = "failover",
		[ROUTE_REASON_ROTATION] = "rotation", [ROUTE_REASON_RANDOM] = "random",
		[ROUTE_REASON_LOAD] = "load",	      [ROUTE_REASON_NO_KEY] = "no_key",
		[ROUTE_REASON_PREFIX] = "prefix",     [ROUTE_REASON_MOVED] = "moved",
		[ROUTE_REASON_SCORE] = "score",	      [ROUTE_REASON_ID] = "id",
	};

	return r < sizeof(name) / sizeof(name[0]) ? name[r] : "unknown";
}

size_t route_eligible(const struct route_view *v, uint32_t *list)
{
	const struct route_worker *worker = v->pool->worker;
	const struct route_view view = *v; /* so that the loop need not read it again */
	uint32_t workers = (uint32_t)v->pool->n;
	size_t n = 0;

	for (uint32_t w = 0; w < workers; w++)
		if (route_may_pick(&view, w) &&
		    route_has_room(worker[w].slot, route_load(worker[w].slot)))
			list[n++] = w;
	return n;
}

/* Counts one more request: exactly at *expected in flight, or (NULL) at any number below the cap.
 */
static bool acquire(struct route_slot *s, const uint32_t *expected)
{
	uint32_t now = expected ? *expected : route_load(s);

	if (expected)
		return atomic_compare_exchange_strong_explicit(
			&s->in_flight, &now, now + 1, memory_order_relaxed, memory_order_relaxed);
	if (atomic_load_explicit(&s->cap, memory_order_relaxed) == 0) {
		atomic_fetch_add_explicit(&s->in_flight, 1, memory_order_relaxed);
		return true;
	}
	do {
		if (!route_has_room(s, now))
			return false;
	} while (!atomic_compare_exchange_weak_explicit(
		&s->in_flight, &now, now + 1, memory_order_relaxed, memory_order_relaxed));
	return true;
}

static void subtract(struct route_slot *s, uint32_t tokens)
{
	PD_CHECK(route_tokens(s) >= tokens);
	if (tokens > 0)
		atomic_fetch_sub_explicit(&s->tokens, tokens, memory_order_relaxed);
}

static void release(struct route_slot *s, uint32_t tokens)
{
	subtract(s, tokens);
	PD_CHECK(route_load(s) > 0); /* each pick ends once */
	/* Sequentially consistent: a look at the queue for this place may follow. */
	(void)atomic_fetch_sub(&s->in_flight, 1);
}

/* An available worker needs no permit; of a worker on probation one is taken, unless another caller
 * was faster.
 */
static bool permitted(struct route_slot *s, bool *trial)
{
	uint32_t left = atomic_load_explicit(&s->permits, memory_order_relaxed);

	*trial = false;
	if (atomic_load_explicit(&s->available, memory_order_acquire))
		return true;
	while (left > 0 && !*trial)
		*trial = atomic_compare_exchange_weak_explicit(
			&s->permits, &left, left - 1, memory_order_relaxed, memory_order_relaxed);
	return *trial;
}

static void note(struct route_decision *d, const struct route_choice *c)
{
	if (d->ncandidates == ROUTE_CANDIDATES)
		return;
	d->candidate[d->ncandidates].worker = c->worker;
	d->candidate[d->ncandidates++].score = c->score;
}

/* Why no worker was taken. PD_EAGAIN: by now one could be. */
static int why_none(const struct route_view *v)
{
	int why = PD_ENOENT;

	for (uint32_t w = 0; w < v->pool->n; w++) {
		const struct route_slot *slot = v->pool->worker[w].slot;

		if (!route_may_pick(v, w))
			continue;
		why = PD_EBUSY;
		if (v->tries < TRIES_MAX && route_has_room(slot, route_load(slot)))
			return PD_EAGAIN;
	}
	return why;
}

static void describe(struct route_view *v, const struct route_choice *c, struct route_decision *d)
{
	v->settled = true;
	d->worker = c->worker;
	d->score = c->score;
	d->ties = c->ties;
	d->reason = c->reason;
	d->tokens = c->tokens ? c->tokens : v->rq->tokens;
	d->tokens_stay = c->tokens_stay;
}

static void take(struct route_slot *slot, struct route_view *v, const struct route_choice *c,
		 struct route_decision *d)
{
	describe(v, c, d);
	if (d->tokens > 0 && !v->rq->shadow)
		atomic_fetch_add_explicit(&slot->tokens, d->tokens, memory_order_relaxed);
	if (d->ncandidates == ROUTE_CANDIDATES) /* the chosen one is always shown */
		d->ncandidates--;
}

/* Has the ranking told all that somebody wants to know? */
static bool is_enough(const struct route_policy_type *rank, const struct route_view *v, bool runner,
		      const struct route_decision *d)
{
	if (v->rq->brief && (rank->flags & ROUTE_BRIEF))
		return v->settled;
	return runner && d->ncandidates == ROUTE_CANDIDATES;
}

/* One ranking, until a worker is taken and explained. PD_EAGAIN: a race was lost. */
static int rank_once(const struct route_policy_type *rank, struct route_view *v, void *walk,
		     struct route_decision *d)
{
	bool exact = (rank->flags & ROUTE_BY_LOAD) && v->tries < TRIES_MAX, first = true;
	bool runner = false; /* the one behind the chosen was seen */
	struct route_choice c = {0};
	int err;

	v->settled = false;
	rank->begin(v, walk);
	while (!is_enough(rank, v, runner, d) && rank->next(v, walk, &c)) {
		struct route_slot *slot;

		PD_CHECK(c.worker < v->pool->n);
		if (v->rq->barred && v->rq->barred[c.worker])
			continue;
		slot = v->pool->worker[c.worker].slot;
		if (first)
			d->home = c.worker;
		first = false;
		if (v->settled) {
			if (!runner)
				d->margin = c.score > d->score ? c.score - d->score
							       : d->score - c.score;
			runner = true;
		} else if (!c.passed && route_may_pick(v, c.worker) &&
			   (!exact || route_has_room(slot, c.seen))) {
			if (v->rq->dry) {
				describe(v, &c, d);
				return PD_OK;
			}
			if (v->rq->shadow) {
				if (route_has_room(slot, route_load(slot)))
					take(slot, v, &c, d);
			} else if (!acquire(slot, exact ? &c.seen : NULL)) {
				if (exact)
					return PD_EAGAIN; /* another was counted meanwhile */
			} else if (!permitted(slot, &d->trial)) {
				release(slot, 0);
				return PD_EAGAIN;
			} else {
				take(slot, v, &c, d);
			}
		}
		note(d, &c);
	}
	if (v->settled)
		return PD_OK;
	err = rank->none ? rank->none(v, walk) : PD_EAGAIN;
	return err == PD_EAGAIN ? why_none(v) : err;
}

/* Ranks again as long as races are lost. The policy of the pool hears of the pick. */
static int rank_until(const struct route_policy_type *rank, struct route_view *v, void *walk,
		      struct route_decision *d)
{
	const struct route_policy_type *learns = v->pool->state->spec.type;
	int err;

	do {
		*d = (struct route_decision){.draw = v->rq->draw};
		err = rank_once(rank, v, walk, d);
		v->tries++;
	} while (err == PD_EAGAIN);
	if (!err && learns->learn && !v->rq->dry)
		learns->learn(v->memory,
			      &(struct route_event){.kind = ROUTE_PICKED,
						    .worker = v->pool->worker[d->worker].id,
						    .at_ns = v->rq->now_ns,
						    .request = v->rq,
						    .walk = rank == learns ? walk : NULL});
	return err;
}

/* Two frames, so that a ranking that needs little does not push what it calls a page or two down
 * the stack: each fiber would keep those pages. */
#define WALK_SMALL 512

static __attribute__((noinline)) int rank_small(const struct route_policy_type *rank,
						struct route_view *v, struct route_decision *d)
{
	_Alignas(max_align_t) unsigned char walk[WALK_SMALL];

	return rank_until(rank, v, walk, d);
}

static __attribute__((noinline)) int rank_large(const struct route_policy_type *rank,
						struct route_view *v, struct route_decision *d)
{
	_Alignas(max_align_t) unsigned char walk[ROUTE_WALK_MAX];

	return rank_until(rank, v, walk, d);
}

int route_decide(const struct route_pool *pool, const struct route_request *rq,
		 struct route_decision *out)
{
	struct route_state *s = pool->state;
	const struct route_policy_type *type = s->spec.type, *rank = type;
	bool by_key = type->flags & ROUTE_BY_KEY, keyed = by_key && route_has_key(rq);
	_Atomic uint64_t turn = rq->dry ? s->turn : 0;
	struct route_view v = {.pool = pool,
			       .params = s->spec.params,
			       .memory = s->memory,
			       .turn = rq->dry ? &turn : &s->turn,
			       .rq = rq};
	int err;

	if (pool->n == 0)
		return PD_ENOENT;
	if (by_key && !keyed)
		rank = type->keyless;
	err = rank->walk_size <= WALK_SMALL && !rq->dry ? rank_small(rank, &v, out)
	      : rq->walk				? rank_until(rank, &v, rq->walk, out)
							: rank_large(rank, &v, out);
	if (err)
		return err;
	if (!keyed)
		out->home = out->worker;
	if (keyed)
		out->reason = out->worker == out->home ? out->reason : ROUTE_REASON_FAILOVER;
	else if (by_key)
		out->reason = ROUTE_REASON_NO_KEY;
	if (rq->dry || rq->shadow)
		return PD_OK;
	atomic_fetch_add_explicit(&pool->worker[out->worker].slot->picks, 1, memory_order_relaxed);
	return PD_OK;
}

void route_commit(const struct route_pool *pool, const struct route_request *rq,
		  const struct route_decision *d)
{
	const struct route_policy_type *type = pool->state->spec.type;
	struct route_slot *slot = pool->worker[d->worker].slot;
	bool own = !(type->flags & ROUTE_BY_KEY) || route_has_key(rq);

	atomic_fetch_add_explicit(&slot->in_flight, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&slot->picks, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&slot->tokens, d->tokens, memory_order_relaxed);
	if (type->learn)
		route_tell(pool->state, &(struct route_event){.kind = ROUTE_PICKED,
							      .worker = pool->worker[d->worker].id,
							      .at_ns = rq->now_ns,
							      .request = rq,
							      .walk = own ? rq->walk : NULL});
}

void route_end(const struct route_pool *pool, uint32_t worker, const struct route_request *rq)
{
	if (!rq || !rq->shadow)
		release(pool->worker[worker].slot, rq ? rq->counted : 0);
	if (pool->state->spec.type->learn)
		route_tell(pool->state, &(struct route_event){.kind = ROUTE_ENDED,
							      .worker = pool->worker[worker].id,
							      .at_ns = rq ? rq->now_ns : 0,
							      .request = rq});
}

void route_computed(const struct route_pool *pool, uint32_t worker, uint32_t tokens)
{
	subtract(pool->worker[worker].slot, tokens);
}

/* The first pick comes to nothing: neither its place nor its permit was used. */
static void take_back(struct route_pair *p, int end)
{
	const struct route_decision *d = &p->decision[end];

	if (d->trial)
		atomic_fetch_add_explicit(&p->pool[end]->worker[d->worker].slot->permits, 1,
					  memory_order_relaxed);
	p->request[end].counted = d->tokens;
	route_end(p->pool[end], d->worker, &p->request[end]);
	p->picked[end] = false;
}

/* First among those that share the partner's label, then among all. */
static int decide_near(const struct route_pair *p, int end, struct route_decision *d)
{
	const struct route_pool *pool = p->pool[end];
	struct route_request rq = p->request[end];
	struct span want = rq.partner && p->label.n > 0 ? route_label(&rq.partner->labels, p->label)
							: (struct span){NULL, 0};
	bool far[ROUTE_WORKERS_MAX];
	size_t near = 0;
	int err;

	for (size_t i = 0; want.p && i < pool->n; i++) {
		struct span has = route_label(&pool->worker[i].labels, p->label);

		far[i] = (rq.tried && rq.tried[i]) || !has.p || !span_eq(has, want);
		near += !far[i];
	}
	if (near > 0) {
		rq.tried = far;
		err = route_decide(pool, &rq, d);
		if (err != PD_ENOENT && err != PD_EBUSY)
			return err;
	}
	return route_decide(pool, &p->request[end], d);
}

int route_decide_pair(struct route_pair *p)
{
	const struct route_policy_type *decode = p->pool[ROUTE_DECODE]->state->spec.type;
	bool prefill_first = p->prefill_first || (decode->flags & ROUTE_WANTS_PARTNER);
	const int order[ROUTE_ENDS] = {prefill_first ? ROUTE_PREFILL : ROUTE_DECODE,
				       prefill_first ? ROUTE_DECODE : ROUTE_PREFILL};

	p->picked[ROUTE_PREFILL] = p->picked[ROUTE_DECODE] = p->local = false;
	for (int i = 0; i < ROUTE_ENDS; i++) {
		int end = order[i], other = order[!i], err;

		if (end == ROUTE_PREFILL && p->local)
			break;
		p->request[end].partner =
			p->picked[other] ? &p->pool[other]->worker[p->decision[other].worker]
					 : NULL;
		err = decide_near(p, end, &p->decision[end]);
		p->picked[end] = err == PD_OK;
		if (!err && end == ROUTE_DECODE && p->ask && !p->ask(p->context, p)) {
			p->local = true;
			if (p->picked[ROUTE_PREFILL])
				take_back(p, ROUTE_PREFILL);
		}
		if (!err || (err == PD_ENOENT && end == ROUTE_PREFILL && p->decode_alone))
			continue;
		p->failed = end;
		if (p->picked[other])
			take_back(p, other);
		return err;
	}
	return PD_OK;
}

int route_order(const struct route_pool *pool, const struct route_key *key, uint32_t *order)
{
	const struct route_spec *spec = &pool->state->spec;
	struct route_request rq = {.key = key};
	struct route_view v = {.pool = pool,
			       .params = spec->params,
			       .memory = pool->state->memory,
			       .turn = &pool->state->turn,
			       .rq = &rq,
			       .settled = true};
	_Alignas(max_align_t) unsigned char walk[ROUTE_WALK_MAX];
	struct route_choice c;

	if (!(spec->type->flags & ROUTE_BY_KEY) || !route_has_key(&rq))
		return PD_EINVAL;
	spec->type->begin(&v, walk);
	for (size_t n = 0; n < pool->n && spec->type->next(&v, walk, &c); n++)
		order[n] = c.worker;
	return PD_OK;
}
