/*
 * Prefill, then decode: both workers are picked first, so that no prompt is computed that no
 * worker can decode. Each attempt has fresh coordinates: a failed decode means a new prefill. Once
 * the answer has begun nothing is repeated.
 */
#include "lib/router/way/pdflow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/pd/connector.h"
#include "lib/pd/legs.h"
#include "lib/router/fleet/known.h"
#include "lib/router/way/exchange.h"
#include "lib/router/way/heads.h"

#define PD_SPANS (2 * JSON_EDITS_MAX + 1)

#define RELEASE_TIMEOUT (5 * NS_PER_S) /* for the decode that only frees blocks */

struct pd_state {
	struct exchange *x;
	const struct pd_connector *connector;
	struct pd_pair pair;
	bool have_prefill;  /* its answer is here */
	bool unpaired;	    /* the connector cannot pair these workers: decode does all of it */
	bool sent;	    /* decode's request too, beside prefill's */
	struct buf known;   /* of the prefill worker */
	int64_t prefill_ns; /* when its answer was complete */
	int64_t picked_ns;  /* when both workers were picked */
	char id_text[300];
};

static void count(struct exchange *x, enum metrics_counter c)
{
	metrics_count(x->way->watch.metrics, x->rec.stripe, c, x->rec.route, 1);
}

static void observe(struct exchange *x, enum metrics_hist h, int64_t ns)
{
	metrics_observe(x->way->watch.metrics, x->rec.stripe, h, ns);
}

static void count_failure(struct exchange *x, enum metrics_pd_error e)
{
	metrics_add(x->way->watch.metrics, x->rec.stripe, METRIC_PD_ERRORS, e, 0, 1);
}

static void bump(_Atomic uint64_t *n)
{
	atomic_fetch_add_explicit(n, 1, memory_order_relaxed);
}

static unsigned number_of(const struct route_labels *l, struct span name)
{
	struct span v = route_label(l, name);
	char text[12] = "";

	if (v.n > 0 && v.n < sizeof(text))
		memcpy(text, v.p, v.n);
	return (unsigned)strtoul(text, NULL, 10);
}

static struct pd_end end_of(const struct pd_state *s, const struct worker *w)
{
	const struct route_labels *l =
		s->connector->flags & PD_ENDS ? fleet_labels(s->x->fleet, w) : NULL;
	struct pd_end e = {.host = span_of(w->at.host),
			   .port = w->at.port,
			   .bootstrap = w->bootstrap,
			   .rank = w->at.rank};

	if (!l)
		return e;
	e.kv = route_label(l, SPAN("kv-address"));
	e.tp_size = number_of(l, SPAN("tp-size"));
	e.dp_size = number_of(l, SPAN("dp-size"));
	e.writes = span_eq(route_label(l, SPAN("transfer-mode")), SPAN("WRITE"));
	return e;
}

/* What the connector may know. Engines refuse an id that is still in use, so repeated attempts get
 * a suffix. */
static void begin_pair(struct pd_state *s)
{
	const struct exchange *x = s->x;
	struct pd_pair *p = &s->pair;
	int n;

	pd_pair_init(p, pd_path_of(x->req->head.path), x->rec.id, rng_u64(&x->lane->rng));
	p->decode = end_of(s, x->pick[ROLE_DECODE].worker);
	if (x->pick[ROLE_PREFILL].worker)
		p->prefill = end_of(s, x->pick[ROLE_PREFILL].worker);
	if (x->pick[ROLE_PREFILL].worker && (s->connector->flags & PD_KNOWS) &&
	    known_get(x->pick[ROLE_PREFILL].worker, &s->known) == PD_OK)
		p->known = buf_span(&s->known);
	if (x->rec.attempt == 0)
		return;
	n = snprintf(s->id_text, sizeof(s->id_text), "%.*s-r%u", (int)x->rec.id.n, x->rec.id.p,
		     x->rec.attempt);
	p->id = (struct span){s->id_text, (size_t)n};
}

/* Sends the copy to the worker of the role; unless another one is to be sent beside it the answer's
 * head is in x->leg then. */
static enum leg_error dispatch(struct pd_state *s, enum worker_role role, struct pd_copy *c,
			       int64_t first_byte)
{
	struct exchange *x = s->x;
	struct worker *w = x->pick[role].worker;
	struct span spans[PD_SPANS];
	struct iovec iov[PD_SPANS + 1];
	size_t total, n;

	if (json_edit_finish(&c->body, &total) ||
	    head_for_worker(&x->lane->head, x, w, total, !x->alone, c->id, c->add, c->nadd))
		return LEG_LOCAL;
	n = json_edit_spans(&c->body, spans, PD_SPANS);
	iov[0] = (struct iovec){.iov_base = x->lane->head.data, .iov_len = x->lane->head.len};
	for (size_t i = 0; i < n; i++)
		iov[i + 1] = (struct iovec){.iov_base = (void *)(uintptr_t)spans[i].p,
					    .iov_len = spans[i].n};
	return (s->pair.at_once ? leg_send : leg_exchange)(
		x->leg, x, w, x->leg == &x->first ? &x->lane->up : &x->lane->beside, iov, n + 1,
		first_byte);
}

/* A prefill worker that is taken away loses the blocks that decode has not read: it is needed until
 * then, although its request has ended. */
static void begin_handover(struct exchange *x)
{
	x->handing = x->pick[ROLE_PREFILL].worker;
	atomic_fetch_add(&x->handing->handovers, 1);
}

/* The decode worker has fetched the blocks (its first byte is here), or never will. */
static void handed_over(struct exchange *x)
{
	if (x->handing)
		atomic_fetch_sub(&x->handing->handovers, 1);
	x->handing = NULL;
}

/* Decode's copy, by x->leg. */
static enum leg_error dispatch_decode(struct pd_state *s)
{
	struct exchange *x = s->x;
	enum leg_error e = LEG_LOCAL;
	struct pd_copy copy;

	leg_init(x->leg, &x->pick[ROLE_DECODE]);
	/* A decode that may have read blocks that can be read once needs new ones. */
	x->leg->once = s->pair.at_once || (s->pair.blocks && (s->connector->flags & PD_READ_ONCE));
	x->leg->first = handed_over;
	if (pd_copy_init(&copy, &x->body, &s->pair) == PD_OK &&
	    s->connector->decode(&s->pair, &copy, NULL) == PD_OK)
		e = dispatch(s, ROLE_DECODE, &copy,
			     x->rec.streaming ? x->way->cfg->first_byte_timeout
					      : x->way->cfg->request_timeout);
	pd_copy_release(&copy);
	return e;
}

/* -- the prefill leg -- */

static void no_params(struct pd_state *s)
{
	struct exchange *x = s->x;

	(void)snprintf(x->failure.why, sizeof(x->failure.why),
		       "prefill worker %.150s returned no %s", x->pick[ROLE_PREFILL].worker->url,
		       s->connector->returns);
	x->failure.status = 502;
	count_failure(x, PDERR_NO_PARAMS);
	failure_note(x, ROLE_PREFILL, CAUSE_NO_PARAMS);
	x->failure.again = pick_tried(x, ROLE_PREFILL);
}

/* The answer stands in lane->prefill: keep what decode needs. */
static enum outcome read_prefill(struct pd_state *s)
{
	struct exchange *x = s->x;
	const struct buf *b = &x->lane->prefill;
	struct pd_msg msg = {0};

	x->rec.time.prefilled = s->prefill_ns = clock_now();
	observe(x, HIST_PREFILL, s->prefill_ns - x->leg->call.sent_ns);
	if (s->connector->answered(&s->pair, buf_span(b), &msg)) {
		(void)snprintf(x->failure.detail, sizeof(x->failure.detail), "its body: %.140s",
			       msg.text);
		return attempt_failed(x, ROLE_PREFILL, LEG_BROKEN);
	}
	if (s->pair.learnt.n > 0)
		(void)known_learn(x->pick[ROLE_PREFILL].worker, s->pair.learnt, s->prefill_ns);
	if (!s->pair.blocks && x->way->cfg->pd_fallback == PD_FALLBACK_FAIL) {
		no_params(s);
		/* A complete answer: the worker is well, whatever its connector is. */
		pick_end(x, ROLE_PREFILL, VERDICT_SUCCESS);
		return ATTEMPT_RETRY;
	}
	if (!s->pair.blocks)
		count(x, METRIC_PD_FALLBACK);
	else
		begin_handover(x);
	s->have_prefill = true;
	pick_end(x, ROLE_PREFILL, VERDICT_SUCCESS);
	pick_judge(x, ROLE_PREFILL);
	return ATTEMPT_DONE;
}

/* What was learnt of a worker that fails by it may be of another process. */
static void forget(struct pd_state *s)
{
	if (s->pair.at_once)
		(void)known_learn(s->x->pick[ROLE_PREFILL].worker, (struct span){0}, clock_now());
}

/* The connector made no copy of the body. */
static enum outcome refuse(struct pd_state *s, int err, const struct pd_msg *msg)
{
	struct exchange *x = s->x;

	if (err != PD_ENOENT) {
		pick_drop(x, ROLE_PREFILL);
		pick_drop(x, ROLE_DECODE);
		count(x, METRIC_PD_DUPLICATE);
		answer_error(x, 400, "invalid_request_error", msg->text);
		return ATTEMPT_DONE;
	}
	if (x->way->cfg->pd_fallback == PD_FALLBACK_FAIL) {
		no_params(s);
		pick_end(x, ROLE_PREFILL, VERDICT_NONE);
		return ATTEMPT_RETRY;
	}
	count(x, METRIC_PD_FALLBACK);
	pick_drop(x, ROLE_PREFILL);
	s->unpaired = true;
	return ATTEMPT_DONE;
}

/* The decode worker's request beside the one that x->leg has sent to prefill. Prefill's answer ends
 * before decode's begins, so they are read in that order. */
static enum leg_error send_decode(struct pd_state *s)
{
	struct exchange *x = s->x;
	enum leg_error e;

	if (!x->lane->second)
		x->lane->second = malloc(sizeof(*x->lane->second));
	if (!x->lane->second)
		return LEG_LOCAL;
	x->leg = x->lane->second;
	e = dispatch_decode(s);
	s->sent = true;
	x->rec.time.decode_sent = x->leg->call.sent_ns;
	x->leg = &x->first;
	return e;
}

static void end_decode(struct pd_state *s)
{
	if (s->sent)
		(void)leg_end(s->x->lane->second);
	s->sent = false;
}

/* Decode will not be heard: its request ends. */
static void drop_decode(struct pd_state *s)
{
	end_decode(s);
	pick_drop(s->x, ROLE_DECODE);
}

/* ATTEMPT_DONE with s->have_prefill or s->unpaired: decode may follow. */
static enum outcome prefill_leg(struct pd_state *s)
{
	struct exchange *x = s->x;
	struct http_call *c = &x->leg->call;
	enum leg_error e, other = LEG_OK;
	struct pd_copy copy;
	struct pd_msg msg = {0};
	int err;

	leg_init(x->leg, &x->pick[ROLE_PREFILL]);
	err = pd_copy_init(&copy, &x->body, &s->pair);
	err = err ? err : s->connector->prefill(&s->pair, &copy, &msg);
	if (err) {
		pd_copy_release(&copy);
		return refuse(s, err, &msg);
	}
	e = dispatch(s, ROLE_PREFILL, &copy, x->way->cfg->first_byte_timeout);
	pd_copy_release(&copy);
	x->rec.time.sent = c->sent_ns;
	if (x->rec.time.dispatched == 0)
		x->rec.time.dispatched = c->sent_ns;
	if (e == LEG_OK && s->pair.at_once) {
		other = send_decode(s);
		e = other == LEG_OK ? leg_answer(x->leg) : LEG_OK;
	}
	if (other != LEG_OK) {
		(void)leg_end(x->leg);
		end_decode(s);
		pick_drop(x, ROLE_PREFILL);
		return attempt_failed(x, ROLE_DECODE, other);
	}
	if (e != LEG_OK) {
		(void)leg_end(x->leg);
		forget(s);
		return attempt_failed(x, ROLE_PREFILL, e);
	}
	if (c->head.status >= 300) {
		drop_decode(s);
		forget(s);
		if (!retry_status(c->head.status))
			bump(&x->pick[ROLE_PREFILL].worker->pd_errors);
		return attempt_answer(x, ROLE_PREFILL, NULL);
	}
	buf_clear(&x->lane->prefill);
	err = leg_collect(x->leg, &x->lane->prefill);
	x->rec.client_left |= leg_end(x->leg);
	if (err == PD_ETOOBIG)
		metrics_add(x->way->watch.metrics, x->rec.stripe, METRIC_PD_BODY_OVER, 0, 0, 1);
	if (err)
		return attempt_failed(x, ROLE_PREFILL,
				      x->rec.client_left   ? LEG_CLIENT_LEFT
				      : err == PD_ETIMEOUT ? LEG_TIMEOUT
							   : LEG_BROKEN);
	return read_prefill(s);
}

/* -- the decode leg -- */

static bool must_release(const struct pd_state *s)
{
	return s->pair.blocks && !s->pair.at_once && s->connector->release;
}

/* The decode worker is made to fetch and so free the blocks; the client is not asked any more.
 * `pick`: NULL when it has ended. */
static void free_blocks(struct pd_state *s, struct pick *pick)
{
	struct exchange *x = s->x;
	struct pd_copy copy;

	x->detached = true;
	x->deadline = clock_now() + RELEASE_TIMEOUT;
	leg_init(x->leg, pick);
	if (pd_copy_init(&copy, &x->body, &s->pair) == PD_OK &&
	    s->connector->release(&s->pair, &copy, NULL) == PD_OK &&
	    dispatch(s, ROLE_DECODE, &copy, RELEASE_TIMEOUT) == LEG_OK) {
		buf_clear(&x->lane->side);
		if (leg_collect(x->leg, &x->lane->side))
			x->leg->call.ended = false;
		count(x, METRIC_PD_RELEASED);
	}
	(void)leg_end(x->leg);
	pd_copy_release(&copy);
}

/* The client left after prefill. */
static enum outcome release_blocks(struct pd_state *s)
{
	free_blocks(s, &s->x->pick[ROLE_DECODE]);
	pick_end(s->x, ROLE_DECODE, VERDICT_NONE);
	s->x->rec.client_left = true;
	return ATTEMPT_DONE;
}

/* The head of decode's answer is here. */
static enum outcome decode_answered(struct pd_state *s)
{
	struct exchange *x = s->x;
	const struct http_call *c = &x->leg->call;
	struct worker *w = x->pick[ROLE_DECODE].worker;
	enum outcome o;

	bump(&w->pd_requests);
	if (s->have_prefill)
		bump(&x->pick[ROLE_PREFILL].worker->pd_requests);
	if (c->head.status >= 400 && !retry_status(c->head.status))
		bump(&w->pd_errors);
	o = attempt_answer(x, ROLE_DECODE, s->have_prefill ? &s->pair.usage : NULL);
	if (o == ATTEMPT_DONE && x->rec.error == ERROR_STREAM_CUT) {
		bump(&w->pd_errors);
		bump(&w->pd_cut);
	}
	/* It refused what prefill took (a limit that its model's length does not allow, say), and
	 * the client knows. Nobody else will ever read these blocks. */
	if (o == ATTEMPT_DONE && x->rec.status / 100 == 4 && s->have_prefill && must_release(s))
		free_blocks(s, NULL);
	return o;
}

static enum outcome lease_passed(struct exchange *x)
{
	pick_drop(x, ROLE_DECODE);
	count_failure(x, PDERR_LEASE);
	failure_note(x, ROLE_DECODE, CAUSE_LEASE);
	(void)snprintf(x->failure.why, sizeof(x->failure.why),
		       "the lease on the prefilled blocks passed before decode was dispatched");
	x->failure.status = 504;
	x->failure.again = true;
	return ATTEMPT_RETRY;
}

static enum outcome decode_leg(struct pd_state *s)
{
	struct exchange *x = s->x;
	struct pick *p = &x->pick[ROLE_DECODE];
	const struct http_call *c;
	enum leg_error e;

	if (s->have_prefill && !s->sent && clock_now() - s->prefill_ns > x->way->cfg->pd_lease)
		return lease_passed(x);
	/* From here on the decode worker does not wait for prefill any more. */
	p->decoding = true;
	atomic_fetch_add_explicit(&p->worker->decoding, 1, memory_order_relaxed);
	if (s->sent) {
		x->leg = x->lane->second;
		e = leg_answer(x->leg);
	} else {
		e = dispatch_decode(s);
	}
	c = &x->leg->call;
	*(s->have_prefill ? &x->rec.time.decode_sent : &x->rec.time.sent) = c->sent_ns;
	if (x->rec.time.dispatched == 0)
		x->rec.time.dispatched = c->sent_ns;
	if (c->sent_ns)
		observe(x, HIST_PD_PENDING, c->sent_ns - s->picked_ns);
	if (s->have_prefill && c->sent_ns && !s->sent)
		observe(x, HIST_HANDOVER, c->sent_ns - s->prefill_ns);
	if (e == LEG_OK)
		return decode_answered(s);
	(void)leg_end(x->leg);
	/* The client left before a byte of the request was sent: decode does not know of the
	 * blocks yet. */
	if (e == LEG_CLIENT_LEFT && c->sent_ns == 0 && must_release(s))
		return release_blocks(s);
	return attempt_failed(x, ROLE_DECODE, e);
}

/* -- both -- */

/* A request may name its prefill worker, or several, of which the first that is there and may be
 * picked counts. Only workers of this router: the header chooses, it does not open connections.
 * False: answered. */
static bool prefiller_pin(struct exchange *x)
{
	const struct fleet_pool *pool = &x->fleet->pool[ROLE_PREFILL];
	const struct field *f = x->way->cfg->prefiller_header
					? http_field(&x->req->head, "x-prefiller-host-port")
					: NULL;
	struct span rest = f ? f->value : (struct span){0};
	const struct worker *found = NULL;
	struct pd_msg msg;
	bool usable = false;

	while (rest.n > 0 && !usable) {
		const char *comma = memchr(rest.p, ',', rest.n);
		size_t n = comma ? (size_t)(comma - rest.p) : rest.n;
		struct span one = span_trim((struct span){rest.p, n});

		rest.p += comma ? n + 1 : n;
		rest.n -= comma ? n + 1 : n;
		for (size_t i = 0; i < pool->n && !usable; i++)
			if (span_eq(one, span_of(pool->worker[i]->at.authority))) {
				usable = atomic_load(&pool->worker[i]->slot.available);
				found = usable || !found ? pool->worker[i] : found;
			}
	}
	if (usable)
		follow_pin_to(x, ROLE_PREFILL, found);
	if (found || !f || f->value.n == 0)
		return true;
	(void)pd_fail(&msg, PD_EINVAL,
		      "x-prefiller-host-port: found '%.*s', expected the host:port of a prefill "
		      "worker of this router",
		      (int)(f->value.n < 200 ? f->value.n : 200), f->value.p);
	answer_error(x, 400, "invalid_request_error", msg.text);
	return false;
}

/* It failed: now the policy has the others. */
static void prefiller_unpin(struct exchange *x)
{
	const struct fleet_pool *pool = &x->fleet->pool[ROLE_PREFILL];
	struct pick *p = &x->pick[ROLE_PREFILL];

	for (size_t i = 0; p->known && p->tried && i < pool->n; i++)
		if (pool->worker[i] != p->known)
			p->tried[i] = p->tried[pool->n + i] = false;
}

/* Before the first attempt: may it be sent at all, and to how many workers? False: answered. */
static bool acceptable(struct exchange *x)
{
	const struct pd_connector *by = x->way->cfg->connector;
	enum pd_path path = pd_path_of(x->req->head.path);
	bool two = path != PD_PATH_OTHER && span_eq(x->req->head.method, SPAN("POST"));
	struct pd_msg msg = {0};
	enum pd_alone why;

	if (two)
		count(x, METRIC_PD_REQUESTS);
	if (!x->rec.json) {
		struct json_object again;

		if (json_object_scan(&again, x->req->body.p, x->req->body.n, &msg) == PD_OK) {
			json_object_release(&again);
			(void)pd_fail(&msg, PD_EINVAL, "the body must be a JSON object");
		}
		answer_error(x, 400, "invalid_request_error", msg.text);
		return false;
	}
	if (by->check && by->check(&x->body, &msg)) {
		answer_error(x, 400, "invalid_request_error", msg.text);
		return false;
	}
	why = two && !(by->flags & PD_WHOLE) ? pd_alone_of(path, &x->body) : PD_TWO_LEGS;
	if (two && x->alone && why == PD_TWO_LEGS)
		why = PD_ALONE_known_id;
	if (two && !x->alone && why == PD_TWO_LEGS && !prefiller_pin(x))
		return false;
	x->repeatable |= two;
	x->alone |= !two || why != PD_TWO_LEGS;
	if (why != PD_TWO_LEGS)
		metrics_add(x->way->watch.metrics, x->rec.stripe, METRIC_PD_ALONE,
			    (unsigned)why - 1, 0, 1);
	return true;
}

/* Both workers, or the decode worker alone; *failed is the role without a worker. */
static int choose(struct exchange *x, enum worker_role *failed)
{
	if (!x->alone)
		return pick_choose_pair(x, failed);
	*failed = ROLE_DECODE;
	return pick_choose(x, ROLE_DECODE);
}

bool pdflow_takes(const struct exchange *x)
{
	return x->rec.json || x->unread ||
	       (pd_path_of(x->req->head.path) != PD_PATH_OTHER &&
		span_eq(x->req->head.method, SPAN("POST")));
}

enum outcome pdflow_attempt(struct exchange *x)
{
	struct pd_state s = {.x = x, .connector = x->way->cfg->connector};
	enum worker_role failed;
	enum outcome o;
	bool alone;
	int err;

	if (x->rec.attempt == 0) {
		x->may_decode_alone = x->way->cfg->pd_fallback == PD_FALLBACK_DECODE_ONLY;
		if (!acceptable(x))
			return ATTEMPT_DONE;
	}
	if (x->rec.attempt == 1 && x->way->cfg->prefiller_header)
		prefiller_unpin(x);
	if (x->prefilled)
		count(x, METRIC_PD_REPREFILL);
	x->prefilled = false;
	err = choose(x, &failed);
	if (err == PD_ECANCELED) {
		x->rec.client_left = true;
		return ATTEMPT_DONE;
	}
	if (err) {
		count_failure(x, PDERR_SELECTION);
		failure_no_worker(x, failed, err);
		return ATTEMPT_RETRY_FREE;
	}
	if (!x->pick[ROLE_PREFILL].worker && !x->alone)
		count(x, METRIC_PD_FALLBACK);
	s.picked_ns = clock_now();
	buf_init(&s.known, KNOWN_MAX);
	x->leg = &x->first;
	begin_pair(&s);
	attempt_picked(x);
	alone = !x->pick[ROLE_PREFILL].worker;
	o = alone ? ATTEMPT_DONE : prefill_leg(&s);
	if (!alone && !s.have_prefill && !s.unpaired)
		drop_decode(&s);
	else if (x->rec.client_left && s.sent)
		drop_decode(&s);
	else if (x->rec.client_left && must_release(&s))
		o = release_blocks(&s);
	else
		o = decode_leg(&s);
	buf_release(&s.known);
	handed_over(x);
	if (s.have_prefill && (o == ATTEMPT_RETRY || o == ATTEMPT_RETRY_FREE))
		count(x, METRIC_PD_REPREFILL);
	x->prefilled = s.have_prefill && o == ATTEMPT_REFUSED;
	pd_pair_release(&s.pair);
	return o;
}
