/*
 * Prefill, then decode (NIXL, pull): both workers are picked first, so that no prompt is computed
 * that nobody can decode. Each attempt has fresh coordinates: a failed decode means a new prefill.
 * Once the answer has begun nothing is repeated.
 */
#include <stdio.h>

#include "lib/base/clock.h"
#include "lib/router/way/exchange.h"

#define PD_SPANS	(2 * JSON_EDITS_MAX + 1)
#define RELEASE_TIMEOUT (5 * NS_PER_S) /* for the decode that only frees blocks */

struct pd_state {
	struct exchange *x;
	enum worker_role failed; /* whose failure asks for another attempt */
	bool have_prefill;
	bool counted; /* the next attempt was granted already */
	struct pd_prefill_result prefill;
	int64_t prefill_ns; /* when its answer was complete */
	int64_t picked_ns;  /* when both workers were picked */
	char id_text[300];
	struct span id; /* the same on both legs */
};

static void count(struct exchange *x, enum metrics_counter c)
{
	metrics_count(&x->rt->metrics, x->lane->stripe, c, x->route, 1);
}

static void observe(struct exchange *x, enum metrics_hist h, int64_t ns)
{
	metrics_observe(&x->rt->metrics, x->lane->stripe, h, ns);
}

static void count_failure(struct exchange *x, enum metrics_pd_error e)
{
	metrics_add(&x->rt->metrics, x->lane->stripe, METRIC_PD_ERRORS, e, 0, 1);
}

static void bump(_Atomic uint64_t *n)
{
	atomic_fetch_add_explicit(n, 1, memory_order_relaxed);
}

/* The decode worker that was picked will not be called in this attempt: its count goes down, and no
 * answer names it. */
static void drop_decode(struct exchange *x)
{
	if (x->worker[ROLE_DECODE])
		unchoose(x, ROLE_DECODE, VERDICT_NONE);
	x->worker[ROLE_DECODE] = NULL;
}

/* The id of this attempt: engines refuse an id that is still in use, so repeated attempts get a
 * suffix. */
static void attempt_id(struct pd_state *s)
{
	const struct exchange *x = s->x;
	int n;

	s->id = x->id;
	if (x->attempt == 0)
		return;
	n = snprintf(s->id_text, sizeof(s->id_text), "%.*s-r%u", (int)x->id.n, x->id.p, x->attempt);
	s->id = (struct span){s->id_text, (size_t)n};
}

/* Sends the edited body to the worker of the role. */
static enum leg_error dispatch(struct pd_state *s, struct leg *l, enum worker_role role,
			       struct json_edit *e, int64_t first_byte)
{
	struct exchange *x = s->x;
	struct span spans[PD_SPANS];
	struct iovec iov[PD_SPANS + 1];
	size_t total, n;

	if (json_edit_finish(e, &total) ||
	    head_for_worker(&x->lane->head, x, x->worker[role], total, true, s->id))
		return LEG_LOCAL;
	n = json_edit_spans(e, spans, PD_SPANS);
	iov[0] = (struct iovec){.iov_base = x->lane->head.data, .iov_len = x->lane->head.len};
	for (size_t i = 0; i < n; i++)
		iov[i + 1] = (struct iovec){.iov_base = (void *)(uintptr_t)spans[i].p,
					    .iov_len = spans[i].n};
	return leg_exchange(l, x, x->worker[role], &x->lane->up, iov, n + 1, first_byte);
}

/* A prefill worker that is taken away loses the blocks that decode has not read: it is needed until
 * then, although its request has ended. */
static void begin_handover(struct exchange *x)
{
	x->handing = x->worker[ROLE_PREFILL];
	atomic_fetch_add(&x->handing->handovers, 1);
}

void pd_handed_over(struct exchange *x)
{
	if (x->handing)
		atomic_fetch_sub(&x->handing->handovers, 1);
	x->handing = NULL;
}

/* The prefill answer stands in lane->prefill: keep what decode needs. */
static enum exchange_result read_prefill(struct pd_state *s, const struct leg *l)
{
	struct exchange *x = s->x;
	const struct buf *b = &x->lane->prefill;

	x->times.prefill_end = s->prefill_ns = x->prefilled_ns = clock_now();
	observe(x, HIST_PREFILL, s->prefill_ns - l->call.sent_ns);
	if (pd_nixl_prefill_result(&s->prefill, b->data, b->len, NULL)) {
		blame(x, ROLE_PREFILL, LEG_BROKEN);
		return RESULT_RETRY;
	}
	if (s->prefill.params.n == 0 && x->rt->cfg.pd_fallback == PD_FALLBACK_FAIL) {
		(void)snprintf(x->why, sizeof(x->why),
			       "prefill worker %.150s returned no kv_transfer_params",
			       x->worker[ROLE_PREFILL]->url);
		x->why_status = 502;
		count_failure(x, PDERR_NO_PARAMS);
		note_cause(x, ROLE_PREFILL, CAUSE_NO_PARAMS);
		mark_tried(x, ROLE_PREFILL);
		unchoose(x, ROLE_PREFILL, VERDICT_FAILURE);
		return RESULT_RETRY;
	}
	if (s->prefill.params.n == 0)
		count(x, METRIC_PD_FALLBACK);
	s->have_prefill = true;
	if (s->prefill.params.n > 0)
		begin_handover(x);
	unchoose(x, ROLE_PREFILL, VERDICT_SUCCESS);
	return RESULT_DONE;
}

/* The answer of a prefill leg whose head is here. RESULT_DONE: go on, unless the client was
 * answered. */
static enum exchange_result prefill_answered(struct pd_state *s, struct leg *l)
{
	struct exchange *x = s->x;
	int err;

	metrics_observe_at(&x->rt->metrics, x->lane->stripe, HIST_LEG, ROLE_PREFILL,
			   l->call.head_ns - l->call.sent_ns);
	if (refused(x, l)) {
		drop_decode(x);
		s->counted = retry_refusal(x, l, ROLE_PREFILL);
		return s->counted ? RESULT_RETRY : RESULT_DONE;
	}
	if (l->call.head.status >= 300) {
		bump(&x->worker[ROLE_PREFILL]->pd_errors);
		drop_decode(x);
		if (relay_answer(x, l, NULL) == RELAY_RETRY)
			give_up(x);
		(void)http_call_end(&l->call);
		unchoose(x, ROLE_PREFILL,
			 l->call.head.status >= 500 ? VERDICT_FAILURE : VERDICT_SUCCESS);
		return RESULT_DONE;
	}
	buf_clear(&x->lane->prefill);
	err = http_call_collect(&l->call, &x->lane->prefill);
	if (http_call_end(&l->call) && !x->detached)
		x->client_left = true;
	if (err == PD_ETOOBIG)
		metrics_add(&x->rt->metrics, x->lane->stripe, METRIC_PD_BODY_OVER, 0, 0, 1);
	if (err) {
		blame(x, ROLE_PREFILL,
		      x->client_left	   ? LEG_CLIENT_LEFT
		      : err == PD_ETIMEOUT ? LEG_TIMEOUT
					   : LEG_BROKEN);
		return x->client_left ? RESULT_DONE : RESULT_RETRY;
	}
	return read_prefill(s, l);
}

static enum exchange_result prefill_leg(struct pd_state *s)
{
	struct exchange *x = s->x;
	struct leg l = {.worker = NULL};
	struct json_edit edit;
	struct pd_msg msg = {0};
	enum leg_error e;

	if (json_edit_init(&edit, &x->body) ||
	    pd_nixl_prefill(&edit, pd_path_of(x->req->head.path), &msg)) {
		json_edit_release(&edit);
		unchoose(x, ROLE_PREFILL, VERDICT_NONE);
		x->worker[ROLE_PREFILL] = NULL;
		drop_decode(x);
		count(x, METRIC_PD_DUPLICATE);
		answer_error(x, 400, "invalid_request_error", msg.text);
		return RESULT_DONE;
	}
	e = dispatch(s, &l, ROLE_PREFILL, &edit, x->rt->cfg.first_byte_timeout);
	json_edit_release(&edit);
	x->times.sent = l.call.sent_ns;
	if (x->dispatched_ns == 0)
		x->dispatched_ns = l.call.sent_ns;
	if (e == LEG_OK)
		return prefill_answered(s, &l);
	(void)http_call_end(&l.call);
	blame(x, ROLE_PREFILL, e);
	s->failed = ROLE_PREFILL;
	if (e == LEG_CLIENT_LEFT)
		return RESULT_DONE;
	return e == LEG_CONNECT ? RESULT_RETRY_FREE : RESULT_RETRY;
}

/* The client left after prefill: a decode of one token makes the decode worker fetch and so free
 * the blocks. */
static void release_blocks(struct pd_state *s)
{
	struct exchange *x = s->x;
	struct leg l = {.worker = NULL};
	struct json_edit edit;

	x->detached = true;
	x->deadline = clock_now() + RELEASE_TIMEOUT;
	if (json_edit_init(&edit, &x->body) == PD_OK &&
	    pd_nixl_prefill(&edit, pd_path_of(x->req->head.path), NULL) == PD_OK &&
	    pd_nixl_decode(&edit, s->prefill.params) == PD_OK &&
	    dispatch(s, &l, ROLE_DECODE, &edit, RELEASE_TIMEOUT) == LEG_OK) {
		buf_clear(&x->lane->side);
		if (http_call_collect(&l.call, &x->lane->side))
			l.call.ended = false;
		count(x, METRIC_PD_RELEASED);
	}
	(void)http_call_end(&l.call);
	json_edit_release(&edit);
	unchoose(x, ROLE_DECODE, VERDICT_NONE);
	x->client_left = true;
}

/* The head of decode's answer is here. */
static void count_decode(const struct pd_state *s, const struct leg *l)
{
	struct exchange *x = s->x;

	metrics_observe_at(&x->rt->metrics, x->lane->stripe, HIST_LEG, ROLE_DECODE,
			   l->call.head_ns - l->call.sent_ns);
	bump(&x->worker[ROLE_DECODE]->pd_requests);
	if (!s->have_prefill)
		return;
	bump(&x->worker[ROLE_PREFILL]->pd_requests);
	observe(x, HIST_HANDOVER_FIRST, l->call.head_ns - s->prefill_ns);
}

static enum exchange_result decode_answered(struct pd_state *s, struct leg *l)
{
	struct exchange *x = s->x;
	enum breaker_verdict v = l->call.head.status >= 500 ? VERDICT_FAILURE : VERDICT_SUCCESS;
	enum relay_end end;

	count_decode(s, l);
	if (refused(x, l)) {
		s->counted = retry_refusal(x, l, ROLE_DECODE);
		return s->counted ? RESULT_RETRY : RESULT_DONE;
	}
	x->head_ns = l->call.head_ns;
	if (l->call.head.status >= 400)
		bump(&x->worker[ROLE_DECODE]->pd_errors);
	end = relay_answer(x, l, s->have_prefill ? &s->prefill : NULL);
	(void)http_call_end(&l->call);
	if (end == RELAY_RETRY) {
		blame(x, ROLE_DECODE, x->why_status == 504 ? LEG_TIMEOUT : LEG_BROKEN);
		return RESULT_RETRY;
	}
	if (end == RELAY_CUT) {
		x->fault = ERROR_STREAM_CUT;
		bump(&x->worker[ROLE_DECODE]->pd_errors);
		bump(&x->worker[ROLE_DECODE]->pd_cut);
	}
	unchoose(x, ROLE_DECODE,
		 end == RELAY_CUT	    ? VERDICT_FAILURE
		 : end == RELAY_CLIENT_LEFT ? VERDICT_NONE
					    : v);
	return RESULT_DONE;
}

/* With prefilled blocks their coordinates, verbatim; without them none, not even ones that the
 * client made up. */
static int edit_decode(const struct pd_state *s, struct json_edit *e)
{
	if (s->have_prefill && s->prefill.params.n > 0)
		return pd_nixl_decode(e, s->prefill.params);
	return json_edit_remove(e, "kv_transfer_params");
}

/* From here on the decode worker does not wait for prefill any more. */
static void begin_decoding(struct exchange *x)
{
	atomic_fetch_add_explicit(&x->worker[ROLE_DECODE]->decoding, 1, memory_order_relaxed);
	x->decoding = true;
}

static enum exchange_result decode_leg(struct pd_state *s)
{
	struct exchange *x = s->x;
	struct leg l = {.worker = NULL};
	struct json_edit edit;
	enum leg_error e = LEG_LOCAL;

	s->failed = ROLE_DECODE;
	/* The blocks can be read once: a decode that may have read them needs new ones. */
	l.once = s->have_prefill && s->prefill.params.n > 0;
	if (s->have_prefill && clock_now() - s->prefill_ns > x->rt->cfg.pd_lease) {
		drop_decode(x);
		count_failure(x, PDERR_LEASE);
		note_cause(x, ROLE_DECODE, CAUSE_LEASE);
		(void)snprintf(
			x->why, sizeof(x->why),
			"the lease on the prefilled blocks passed before decode was dispatched");
		x->why_status = 504;
		return RESULT_RETRY;
	}
	begin_decoding(x);
	if (json_edit_init(&edit, &x->body) == PD_OK && edit_decode(s, &edit) == PD_OK)
		e = dispatch(s, &l, ROLE_DECODE, &edit,
			     x->streaming ? x->rt->cfg.first_byte_timeout
					  : x->rt->cfg.request_timeout);
	json_edit_release(&edit);
	*(s->have_prefill ? &x->times.decode_sent : &x->times.sent) = l.call.sent_ns;
	if (x->dispatched_ns == 0)
		x->dispatched_ns = l.call.sent_ns;
	if (l.call.sent_ns)
		observe(x, HIST_PD_PENDING, l.call.sent_ns - s->picked_ns);
	if (s->have_prefill && l.call.sent_ns)
		observe(x, HIST_HANDOVER, l.call.sent_ns - s->prefill_ns);
	if (e == LEG_OK)
		return decode_answered(s, &l);
	(void)http_call_end(&l.call);
	/* The client left before a byte of the request was sent: nobody told decode about the
	 * blocks yet. */
	if (e == LEG_CLIENT_LEFT && l.call.sent_ns == 0 && s->have_prefill &&
	    s->prefill.params.n > 0) {
		release_blocks(s);
		return RESULT_DONE;
	}
	blame(x, ROLE_DECODE, e);
	if (e == LEG_CLIENT_LEFT)
		return RESULT_DONE;
	return e == LEG_CONNECT ? RESULT_RETRY_FREE : RESULT_RETRY;
}

/* Both picks, or why not. */
static enum exchange_result pick_both(struct pd_state *s)
{
	struct exchange *x = s->x;
	int err;

	x->worker[ROLE_PREFILL] = x->worker[ROLE_DECODE] = NULL;
	err = choose(x, ROLE_DECODE);
	s->failed = ROLE_DECODE;
	if (err == PD_OK) {
		err = choose(x, ROLE_PREFILL);
		if (err == PD_OK)
			return RESULT_DONE;
		if (err == PD_ENOENT && x->rt->cfg.pd_fallback == PD_FALLBACK_DECODE_ONLY) {
			count(x, METRIC_PD_FALLBACK);
			x->worker[ROLE_PREFILL] = NULL;
			return RESULT_DONE;
		}
		drop_decode(x);
		s->failed = ROLE_PREFILL;
	}
	if (err == PD_ECANCELED) {
		x->client_left = true;
		return RESULT_DONE;
	}
	count_failure(x, PDERR_SELECTION);
	no_worker(x, s->failed, err);
	return RESULT_RETRY_FREE;
}

static enum exchange_result attempt(struct pd_state *s)
{
	struct exchange *x = s->x;
	enum exchange_result result = pick_both(s);

	s->have_prefill = s->counted = false;
	if (result != RESULT_DONE || x->client_left)
		return result;
	s->picked_ns = clock_now();
	attempt_id(s);
	begin_attempt(x);
	explain_decision(x);
	if (x->worker[ROLE_PREFILL]) {
		s->failed = ROLE_PREFILL;
		result = prefill_leg(s);
		if (result != RESULT_DONE || x->started || (x->client_left && !s->have_prefill)) {
			drop_decode(x);
			return result;
		}
		if (x->client_left && s->prefill.params.n > 0) {
			release_blocks(s);
			return RESULT_DONE;
		}
	}
	result = decode_leg(s);
	if (result != RESULT_DONE && s->have_prefill)
		count(x, METRIC_PD_REPREFILL);
	return result;
}

static bool acceptable(struct exchange *x)
{
	if (!span_eq(x->req->head.method, SPAN("POST"))) {
		answer_error(x, 405, "invalid_request_error",
			     "in prefill/decode mode only POST requests are routed");
		return false;
	}
	if (pd_path_of(x->req->head.path) == PD_PATH_OTHER) {
		answer_error(
			x, 404, "not_found_error",
			"this path is not served in prefill/decode mode: /v1/chat/completions, "
			"/v1/completions, /v1/responses, /v1/embeddings");
		return false;
	}
	if (!x->is_json) {
		struct json_object again;
		struct pd_msg msg = {0};

		if (json_object_scan(&again, x->req->body.p, x->req->body.n, &msg) == PD_OK) {
			json_object_release(&again);
			(void)pd_fail(&msg, PD_EINVAL, "the body must be a JSON object");
		}
		answer_error(x, 400, "invalid_request_error", msg.text);
		return false;
	}
	if (pd_nixl_hidden_params(&x->body)) {
		answer_error(
			x, 400, "invalid_request_error",
			"kv_transfer_params in extra_args or vllm_xargs: they name the host that "
			"an engine connects to, which is the router's to choose");
		return false;
	}
	return true;
}

void pd_flow(struct exchange *x)
{
	struct pd_state s = {.x = x};
	enum exchange_result result;

	count(x, METRIC_PD_REQUESTS);
	if (!acceptable(x))
		return;
	x->repeatable = true;
	for (;;) {
		result = attempt(&s);
		pd_handed_over(x);
		if (result == RESULT_DONE)
			return;
		if (!s.counted && !try_again(x, s.failed, result == RESULT_RETRY_FREE)) {
			give_up(x);
			return;
		}
	}
}
