/*
 * Choosing is route_decide's; here is what a request adds: the workers that it tried, the wait for
 * a free place, and the count that must go down exactly once.
 */
#include "lib/router/way/pick.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/net/shelf.h"
#include "lib/route/hash.h"
#include "lib/route/key/key_extract.h"
#include "lib/pd/legs.h"
#include "lib/router/capture/capture.h"
#include "lib/router/capture/capture_note.h"
#include "lib/route/prefix.h"
#include "lib/router/way/exchange.h"
#include "lib/router/way/model.h"
#include "lib/router/way/shadow.h"

#define OFFERS_MAX 4 /* somebody else may take what was offered */

bool pick_tried(struct exchange *x, enum worker_role role)
{
	struct pick *p = &x->pick[role];
	size_t n = x->fleet->pool[role].n;

	if (!p->tried)
		p->tried = calloc(2 * n + 1, sizeof(bool));
	if (p->tried) {
		p->tried[p->decision.worker] = true;
		p->tried[n + p->decision.worker] = p->again;
	}
	return p->again;
}

bool pick_has_untried(const struct exchange *x, enum worker_role role)
{
	const struct fleet_pool *pool = &x->fleet->pool[role];
	const bool *tried = x->pick[role].tried;

	const bool *barred = model_barred(x, role);

	for (size_t i = 0; i < pool->n; i++)
		if (!(tried && tried[i]) && !(barred && barred[i]) &&
		    (atomic_load(&pool->worker[i]->slot.available) ||
		     atomic_load(&pool->worker[i]->place.usable)))
			return true;
	return false;
}

bool pick_seek_other(struct exchange *x, enum worker_role role)
{
	(void)pick_tried(x, role);
	return pick_has_untried(x, role);
}

/* The blocks of the prompt, made once: they stay for the attempts that follow. */
static void make_blocks(struct exchange *x)
{
	struct span prompt = x->rec.json ? route_prompt(x->rec.json) : SPAN("");
	size_t n = prompt.n / ROUTE_BLOCK_BYTES;

	n = n < ROUTE_BLOCKS_MAX ? n : ROUTE_BLOCKS_MAX;
	x->block = calloc(n + 1, sizeof(*x->block));
	if (x->block)
		x->nblocks = route_blocks(x->block_seed, prompt.p, prompt.n, ROUTE_BLOCK_BYTES,
					  x->block, n);
}

/* What the prompt and the answer may cost, as the client says; token counts by length, as simulate
 * has them for texts. */
static void count_tokens(struct exchange *x)
{
	static const char *const most[] = {"max_completion_tokens", "max_tokens",
					   "max_output_tokens"};
	struct span prompt = x->rec.json ? route_prompt(x->rec.json) : SPAN("");
	size_t n = (prompt.n + ROUTE_TOKEN_BYTES - 1) / ROUTE_TOKEN_BYTES;
	int64_t output = 0;

	x->tokens = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
	for (size_t i = 0; x->rec.json && i < sizeof(most) / sizeof(most[0]); i++) {
		const struct json_member *m = json_object_get(x->rec.json, most[i]);

		if (m && m->type == JSON_NUMBER && json_int(m->value, &output) == PD_OK)
			break;
		output = 0;
	}
	x->output_tokens = output < 0 ? 0 : output < UINT32_MAX ? (uint32_t)output : UINT32_MAX;
	x->tokens_known = true;
}

/* Where a policy says what it made of each worker, when the log has a line for that. */
static struct route_explain *explain_for(struct exchange *x, enum worker_role role)
{
	const struct router_config *c = x->way->cfg;
	const struct route_pool *ring = x->fleet->pool[role].ring;
	struct pick *p = &x->pick[role];

	if (!(ring->state->spec.type->flags & ROUTE_EXPLAINS) || !c->log_requests ||
	    !log_wants(c->log, LOG_INFO))
		return NULL;
	if (p->explain_room < ring->n || !p->explain.worker) {
		free(p->explain.worker);
		p->explain.worker = calloc(ring->n + 1, sizeof(*p->explain.worker));
		p->explain_room = ring->n;
	}
	p->explain.filled = false;
	return p->explain.worker ? &p->explain : NULL;
}

struct route_request pick_request(struct exchange *x, enum worker_role role)
{
	const struct route_pool *ring = x->fleet->pool[role].ring;
	enum worker_role other = role == ROLE_PREFILL ? ROLE_DECODE : ROLE_PREFILL;
	const struct pick *partner = &x->pick[other];
	unsigned wants = ring->state->spec.type->flags;
	const struct route_decider *decider = role == ROLE_DECODE ? x->way->decider : NULL;
	struct route_explain *explain = explain_for(x, role);
	uint32_t told = wants & ROUTE_WANTS_EVENTS ? kvfollow_block_tokens(x->way->events) : 0;
	bool by_tokens;

	if (x->fleet->pool[role].shadow)
		wants |= x->fleet->pool[role].shadow->state->spec.type->flags;
	wants |= decider && route_decider_wants_blocks(decider) ? ROUTE_WANTS_BLOCKS : 0;
	if ((wants & ROUTE_WANTS_BLOCKS) && !x->block)
		make_blocks(x);
	if ((wants & (ROUTE_WANTS_BLOCKS | ROUTE_WANTS_TOKENS)) && !x->tokens_known)
		count_tokens(x);
	if (x->number == 0)
		x->number =
			1 + atomic_fetch_add_explicit(&x->way->decisions, 1, memory_order_relaxed);
	if (told > 0)
		render_prompt(x, role, told);
	by_tokens = told > 0 && x->rendered.block_tokens == told;
	return (struct route_request){
		.key = &x->key,
		.block = by_tokens ? x->rendered.block : x->block,
		.nblocks = by_tokens ? x->rendered.nblocks : x->nblocks,
		.block_tokens = by_tokens ? told : 0,
		.tokens = by_tokens ? x->rendered.tokens : x->tokens,
		.output_tokens = x->output_tokens,
		.model = x->model,
		.body = x->req->body,
		.header = x->req->head.field,
		.nheaders = x->req->head.nfields,
		.partner = role != ROLE_REGULAR && partner->worker
				   ? &x->fleet->pool[other].ring->worker[partner->decision.worker]
				   : NULL,
		.tried = x->pick[role].tried,
		.barred = model_barred(x, role),
		.now_ns = x->now,
		.draw = route_dice(x->way->seed, role, x->number - 1, x->rec.attempt),
		.explain = explain,
		/* The capture has the candidates, and so has the log at debug. */
		.brief = !x->rec.number && !explain && !log_wants(x->way->cfg->log, LOG_DEBUG),
	};
}

/* What the capture has to know of a decision that begins now. */
static void look(struct exchange *x, enum worker_role role)
{
	const struct route_pool *ring = x->fleet->pool[role].ring;
	struct pick *p = &x->pick[role];
	struct buf *b = &x->lane->seen[role];
	size_t words = (ring->n + 63) / 64, bytes = 3 * words * 8 + ring->n * 4;
	const bool *barred = model_barred(x, role);
	uint64_t *usable, *tried, *never;
	uint32_t *load;

	if (!x->rec.number)
		return;
	p->began = capture_clock(x->way->watch.capture);
	p->turn = atomic_load_explicit(&ring->state->turn, memory_order_relaxed);
	buf_clear(b);
	if (buf_reserve(b, bytes))
		return;
	b->len = bytes;
	memset(b->data, 0, 3 * words * 8);
	usable = (void *)b->data;
	tried = usable + words;
	never = tried + words;
	load = (void *)(never + words);
	for (size_t i = 0; i < ring->n; i++) {
		const struct route_slot *s = ring->worker[i].slot;

		load[i] = route_load(s);
		if (atomic_load_explicit(&s->available, memory_order_acquire) ||
		    atomic_load_explicit(&s->permits, memory_order_relaxed) > 0)
			usable[i / 64] |= UINT64_C(1) << i % 64;
		if (p->tried && p->tried[i])
			tried[i / 64] |= UINT64_C(1) << i % 64;
		if (barred && barred[i])
			never[i / 64] |= UINT64_C(1) << i % 64;
	}
}

/* It is made; `n` of one moment get numbers one after the other. */
static void looked(struct exchange *x, const enum worker_role *role, unsigned n)
{
	uint64_t tick;

	if (!x->rec.number)
		return;
	tick = capture_tick(x->way->watch.capture, n);
	for (unsigned i = 0; i < n; i++) {
		const struct route_state *s = x->fleet->pool[role[i]].ring->state;
		struct pick *p = &x->pick[role[i]];

		/* One after the other, unless something else happened: then at any time since. */
		if (tick == p->began + 1)
			p->began += i;
		p->tick = tick + i;
		p->turns =
			(uint32_t)(atomic_load_explicit(&s->turn, memory_order_relaxed) - p->turn);
	}
}

/* Where nothing was sent the request may go again. False: there is no such worker. */
static bool forget_some(struct exchange *x, enum worker_role role)
{
	size_t n = x->fleet->pool[role].n;
	bool *tried = x->pick[role].tried, some = false;

	for (size_t i = 0; tried && i < n; i++)
		if (tried[n + i]) {
			tried[i] = tried[n + i] = false;
			some = true;
		}
	return some;
}

/* The request has failed at all that may be picked: one that can be reached is better than none,
 * whatever its breaker says. */
static bool offer_some(struct exchange *x, enum worker_role role)
{
	const struct fleet_pool *pool = &x->fleet->pool[role];
	const bool *tried = x->pick[role].tried, *barred = model_barred(x, role);
	bool some = false;

	for (size_t i = 0; tried && i < pool->n; i++)
		some |= !tried[i] && !(barred && barred[i]) && worker_offer(pool->worker[i]);
	return some;
}

/* No other is left: once more where the request could not be sent, from the key's home again. */
static int decide(struct exchange *x, enum worker_role role, void *walk)
{
	struct pick *p = &x->pick[role];
	struct route_request rq = pick_request(x, role);
	int err, offers = 0;

	rq.walk = walk;
	do {
		look(x, role);
		err = route_decide(x->fleet->pool[role].ring, &rq, &p->decision);
	} while (err == PD_ENOENT &&
		 (forget_some(x, role) || (offers++ < OFFERS_MAX && offer_some(x, role))));
	p->counted = err == PD_OK;
	if (!err)
		looked(x, &role, 1);
	return err;
}

/* Both in the one order of lib/route; until both are there none is counted. */
static int decide_pair(struct exchange *x, enum worker_role *failed, void *walk)
{
	static const enum worker_role role[ROUTE_ENDS] = {
		[ROUTE_PREFILL] = ROLE_PREFILL, [ROUTE_DECODE] = ROLE_DECODE};
	struct route_decider *decider = x->way->decider;
	const char *label = x->way->cfg->pair_label;
	struct route_pair pair = {.ask = decider ? route_decider_ask : NULL,
				  .context = decider,
				  .prefill_first = x->way->cfg->prefill_first,
				  .label = label ? span_of(label) : SPAN("")};
	int err, offers = 0;

	for (int i = 0; i < ROUTE_ENDS; i++) {
		pair.pool[i] = x->fleet->pool[role[i]].ring;
		pair.request[i] = pick_request(x, role[i]);
		pair.request[i].walk = walk;
	}
	for (;;) {
		/* First all prefill workers that can be reached. */
		pair.decode_alone = x->may_decode_alone &&
				    (offers >= OFFERS_MAX || !pick_has_untried(x, ROLE_PREFILL));
		for (int i = 0; i < ROUTE_ENDS; i++)
			look(x, role[i]);
		err = route_decide_pair(&pair);
		if (!err)
			break;
		*failed = role[pair.failed];
		if (err == PD_ENOENT &&
		    (forget_some(x, *failed) || (offers++ < OFFERS_MAX && offer_some(x, *failed))))
			continue;
		if (err != PD_ENOENT || !x->may_decode_alone || *failed != ROLE_PREFILL ||
		    pair.decode_alone)
			return err;
		offers = OFFERS_MAX;
	}
	for (int i = 0; i < ROUTE_ENDS; i++) {
		x->pick[role[i]].decision = pair.decision[i];
		x->pick[role[i]].counted = pair.picked[i];
	}
	looked(x, role, ROUTE_ENDS);
	if (decider) {
		x->alone = x->rec.local = pair.local;
		x->rec.missing = pair.missing;
		x->rec.decider = route_decider_name(route_decider_spec_of(decider)->kind);
	}
	return PD_OK;
}

/* Some rankings need more memory than should stand on a fiber's stack, which would keep it. It is
 * lent: nothing waits meanwhile. */
static int decide_lent(struct exchange *x, bool pair, enum worker_role *role)
{
	struct buf lent;
	int err;

	_Static_assert(ROUTE_WALK_MAX <= SHELF_BYTES, "a ranking fits a lent buffer");
	buf_init(&lent, SHELF_BYTES);
	(void)!shelf_take(&lent);
	if (x->way->cfg->has_shadow && x->rec.attempt == 0)
		shadow_decide(x, pair, *role, lent.data);
	err = pair ? decide_pair(x, role, lent.data) : decide(x, *role, lent.data);
	shelf_give(&lent);
	return err;
}

/* -- waiting -- */

/* The fleet may have changed during a wait, in which nothing is picked: what was tried stays tried.
 */
static void renew_fleet(struct exchange *x)
{
	struct fleet *now = fleet_get(x->way->fleet), *old = x->fleet;

	for (int r = 0; now != old && r < ROLES; r++) {
		struct pick *p = &x->pick[r];
		size_t n = old->pool[r].n, m = now->pool[r].n;
		bool *tried = p->tried ? calloc(2 * m + 1, sizeof(bool)) : NULL;

		PD_CHECK(!p->counted);
		p->worker = NULL;
		for (size_t i = 0; tried && i < n; i++)
			for (size_t k = 0; p->tried[i] && k < m; k++)
				if (now->pool[r].worker[k] == old->pool[r].worker[i]) {
					tried[k] = true;
					tried[m + k] = p->tried[n + i];
				}
		free(p->tried);
		p->tried = tried;
	}
	x->fleet = now;
	x->rec.fleet = now;
	x->now = clock_now();
	if (now != old) {
		shadow_renew(x);
		model_renew(x);
	}
	fleet_put(old);
}

/* Does an earlier request wait for a worker of the role, or of one of the pair? The list `at`
 * does not count: a waiter that is called there has its turn. */
static bool must_wait(struct exchange *x, bool pair, enum worker_role *role,
		      const struct waitlist *at, int64_t ticket)
{
	const struct waitlist *l = x->way->fleet->waiting;

	if (!pair)
		return at != &l[*role] && waitlist_ahead(&l[*role], ticket);
	for (int r = ROLE_PREFILL; r <= ROLE_DECODE; r++)
		if (at != &l[r] && waitlist_ahead(&l[r], ticket)) {
			*role = (enum worker_role)r;
			return true;
		}
	return false;
}

/* Queues while all workers are at their cap; nothing is counted meanwhile. `pair`: prefill
 * and decode; else *role. */
static int choose(struct exchange *x, bool pair, enum worker_role *role)
{
	struct waitlist *lists = x->way->fleet->waiting, *at = NULL;
	struct waiter w = {.conn = x->conn, .ticket = WAITLIST_NO_TICKET};
	int64_t deadline = 0;
	int err;

	for (;;) {
		err = must_wait(x, pair, role, at, w.ticket) ? PD_EBUSY
							     : decide_lent(x, pair, role);
		if (err != PD_EBUSY)
			break;
		if (!at) {
			w.ticket = clock_now();
			deadline = w.ticket + x->way->cfg->queue_timeout;
		}
		/* What the first pick of a pair held for a moment is free again. */
		if (pair)
			waitlist_call(&lists[*role == ROLE_PREFILL ? ROLE_DECODE : ROLE_PREFILL]);
		if (at == &lists[*role]) {
			waitlist_pass(at, &w);
		} else {
			if (at)
				waitlist_leave(at, &w);
			at = &lists[*role];
			w.particular = x->pick[*role].tried != NULL;
			waitlist_join(at, &w);
		}
		err = waitlist_turn(at, &w, deadline);
		if (err)
			break;
		renew_fleet(x);
	}
	if (at)
		waitlist_leave(at, &w);
	if (err && err != PD_ECANCELED)
		metrics_count(x->way->watch.metrics, x->rec.stripe, METRIC_NO_WORKER, x->rec.route,
			      1);
	return err == PD_ETIMEOUT ? PD_EBUSY : err;
}

static void chosen(struct exchange *x, enum worker_role role)
{
	struct pick *p = &x->pick[role];

	p->worker = p->counted ? x->fleet->pool[role].worker[p->decision.worker] : NULL;
	p->sent = false;
	p->again = true;
	if (p->known && p->worker == p->known)
		p->decision.reason = ROUTE_REASON_ID;
	if (p->worker)
		x->rec.decisions++;
	lane_picked(x->way, x->lane);
	if (p->shadowed && p->worker && x->rec.attempt == 0)
		shadow_compare(x, role);
}

int pick_choose(struct exchange *x, enum worker_role role)
{
	int err = choose(x, false, &role);

	if (!err)
		chosen(x, role);
	return err;
}

int pick_choose_pair(struct exchange *x, enum worker_role *failed)
{
	int err;

	x->pick[ROLE_PREFILL].worker = x->pick[ROLE_DECODE].worker = NULL;
	err = choose(x, true, failed);
	if (err)
		return err;
	chosen(x, ROLE_DECODE);
	chosen(x, ROLE_PREFILL);
	if (x->rec.local)
		metrics_add(x->way->watch.metrics, x->rec.stripe, METRIC_PD_ALONE,
			    PD_ALONE_decider - 1, 0, 1);
	else if (!x->pick[ROLE_PREFILL].worker)
		metrics_count(x->way->watch.metrics, x->rec.stripe, METRIC_NO_WORKER, x->rec.route,
			      1);
	return PD_OK;
}

void pick_computed(struct exchange *x, struct pick *p)
{
	if (p->decision.tokens_stay)
		return;
	if (p->counted && p->decision.tokens > 0) {
		uint64_t began = x->rec.number ? capture_clock(x->way->watch.capture) : 0;

		route_computed(x->fleet->pool[p - x->pick].ring, p->decision.worker,
			       p->decision.tokens);
		if (x->rec.number)
			capture_released(&x->rec, (unsigned)(p - x->pick), p->decision.worker, true,
					 x->now, began);
	}
	p->decision.tokens = 0;
}

void pick_release(struct exchange *x, struct pick *p)
{
	enum worker_role role = (enum worker_role)(p - x->pick);
	const struct route_pool *ring = x->fleet->pool[role].ring;
	struct route_request rq = {.key = NULL};
	uint64_t began;

	if (!p->counted)
		return;
	if (p->shadow_runs)
		shadow_end(x, role);
	pick_computed(x, p);
	if (p->decoding)
		atomic_fetch_sub_explicit(&p->worker->decoding, 1, memory_order_relaxed);
	p->decoding = p->counted = false;
	if (ring->state->spec.type->learn) {
		x->now = clock_now();
		rq = pick_request(x, role);
	}
	began = x->rec.number ? capture_clock(x->way->watch.capture) : 0;
	route_end(ring, p->decision.worker, &rq);
	if (x->rec.number)
		capture_released(&x->rec, role, p->decision.worker, false, x->now, began);
	waitlist_call(&x->way->fleet->waiting[role]);
}

void pick_end(struct exchange *x, enum worker_role role, enum breaker_verdict v)
{
	struct pick *p = &x->pick[role];

	pick_release(x, p);
	if (v == VERDICT_NONE && p->sent)
		atomic_fetch_add_explicit(&p->worker->neutral, 1, memory_order_relaxed);
	if (worker_awaits(p->worker, v, p->decision.trial))
		worker_report(p->worker, x->way->cfg, v, p->decision.trial, clock_now());
}

/* -- answers 5xx: the worker's fault, or the request's -- */

/* The verdict that waited. */
static void accuse(struct exchange *x, struct pick *p, enum breaker_verdict v)
{
	struct worker *w = p->accused;

	p->accused = NULL;
	if (v == VERDICT_NONE)
		atomic_fetch_add_explicit(&w->neutral, 1, memory_order_relaxed);
	worker_report(w, x->way->cfg, v, p->accused_trial, clock_now());
	worker_unref(w);
}

void pick_end_5xx(struct exchange *x, enum worker_role role)
{
	struct pick *p = &x->pick[role];

	if (p->accused || p->acquitted) {
		if (p->accused)
			accuse(x, p, VERDICT_NONE);
		p->acquitted = true;
		pick_end(x, role, VERDICT_NONE);
		return;
	}
	pick_release(x, p);
	atomic_fetch_add(&p->worker->refs, 1);
	p->accused = p->worker;
	p->accused_trial = p->decision.trial;
}

void pick_judge(struct exchange *x, enum worker_role role)
{
	if (x->pick[role].accused)
		accuse(x, &x->pick[role], VERDICT_FAILURE);
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
		x->rec.pick[r] = (struct record_pick){x->pick[r].worker,
						      &x->pick[r].decision,
						      &x->pick[r].explain,
						      x->pick[r].began,
						      x->pick[r].tick,
						      x->pick[r].turn,
						      x->pick[r].turns,
						      buf_span(&x->lane->seen[r]),
						      x->pick[r].shadowed && x->rec.attempt == 0,
						      x->pick[r].shadow};
	x->rec.block = x->block;
	x->rec.nblocks = x->nblocks;
	x->rec.tokens_seen = x->tokens;
	x->rec.output_seen = x->output_tokens;
}
