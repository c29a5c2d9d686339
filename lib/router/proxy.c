/*
 * The way of a request: admission with the head, then everything else with the body. From here the
 * reader goes on to regular.c or pdflow.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/http/shelf.h"
#include "lib/router/exchange.h"

#define LANE_UP_MAX   (4u << 20)
#define LANE_HEAD_MAX (2u * HTTP_HEAD_MAX)
#define LANE_KEEP     65536 /* buffers above this are given back after the request */

/* -- working memory -- */

static void lane_free(void *arg)
{
	struct lane *lane = arg;

	buf_release(&lane->up);
	buf_release(&lane->head);
	buf_release(&lane->side);
	buf_release(&lane->held);
	buf_release(&lane->prefill);
	free(lane);
}

static struct lane *lane_of(struct router *rt, struct http_conn *c)
{
	struct lane *lane = http_conn_data(c);

	if (lane)
		return lane;
	lane = calloc(1, sizeof(*lane));
	if (!lane)
		return NULL;
	/* A fiber stays with its loop, so a stripe has one writer as long as there are enough. */
	lane->stripe = loop_self() ? loop_index(loop_self()) : 0;
	rng_seed(&lane->rng,
		 rt->seed + atomic_fetch_add_explicit(&rt->lanes, 1, memory_order_relaxed));
	buf_init(&lane->up, LANE_UP_MAX);
	buf_init(&lane->head, LANE_HEAD_MAX);
	buf_init(&lane->side, 2 * MERGE_EVENT_MAX);
	buf_init(&lane->prefill, PREFILL_MAX);
	buf_init(&lane->held, MERGE_EVENT_MAX + RELAY_BUFFER_MAX);
	http_conn_set_data(c, lane, lane_free);
	return lane;
}

static void shrink(struct buf *b)
{
	if (b->cap > LANE_KEEP)
		buf_release(b);
}

/* -- reading the request -- */

static enum metrics_route route_of(struct span path)
{
	if (span_eq(path, SPAN("/v1/chat/completions")))
		return ROUTE_CHAT;
	if (span_eq(path, SPAN("/v1/completions")))
		return ROUTE_COMPLETIONS;
	if (span_eq(path, SPAN("/v1/embeddings")))
		return ROUTE_EMBEDDINGS;
	return span_starts(path, SPAN("/v1/responses")) ? ROUTE_RESPONSES : ROUTE_OTHER;
}

enum metrics_route proxy_route(struct span path)
{
	return route_of(path);
}

static const struct field *named(const struct http_head *h, const char *name)
{
	struct span want = span_of(name);

	for (size_t i = 0; i < h->nfields; i++)
		if (h->field[i].value.n > 0 && span_eq_case(h->field[i].name, want))
			return &h->field[i];
	return NULL;
}

/* Fit for a log and for every reader of headers: printable ASCII. P2P connectors of engines read
 * the address of their peer out of the request id: a client must not choose that. */
static bool may_be_id(struct span s)
{
	if (s.n > 256 || memmem(s.p, s.n, "prefill_addr_", 13) ||
	    memmem(s.p, s.n, "decode_addr_", 12))
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < ' ' || s.p[i] > '~')
			return false;
	return true;
}

/* The client's id, or one of ours. */
static void find_id(struct exchange *x)
{
	static const char hex[] = "0123456789abcdef";
	const struct router_config *c = &x->rt->cfg;
	uint64_t bits = 0;

	for (size_t i = 0; i < c->request_id_headers_n; i++) {
		const struct field *f = named(&x->req->head, c->request_id_headers[i]);

		if (f && may_be_id(f->value)) {
			x->id = f->value;
			return;
		}
	}
	memcpy(x->id_text, "req-", 4);
	for (int i = 0; i < 32; i++) {
		bits = i % 16 == 0 ? rng_u64(&x->lane->rng) : bits >> 4;
		x->id_text[4 + i] = hex[bits & 15];
	}
	x->id = (struct span){x->id_text, 36};
}

/* The client's trace context, or one of ours. */
static void find_trace(struct exchange *x)
{
	enum metrics_trace what;

	if (trace_read(&x->trace, &x->req->head))
		what = TRACE_PASSED;
	else if (x->trace.refused)
		what = TRACE_INVALID;
	else if (x->rt->cfg.generate_traceparent)
		what = TRACE_GENERATED;
	else
		return;
	metrics_add(&x->rt->metrics, x->lane->stripe, METRIC_TRACES, what, 0, 1);
	if (what != TRACE_PASSED && x->rt->cfg.generate_traceparent)
		trace_make(&x->trace, &x->lane->rng);
}

static void read_body(struct exchange *x)
{
	const struct json_member *stream;
	struct span body = x->req->body;
	size_t i = 0;

	while (i < body.n &&
	       (body.p[i] == ' ' || body.p[i] == '\n' || body.p[i] == '\r' || body.p[i] == '\t'))
		i++;
	/* Not an object (multipart, audio, nothing): its bytes travel as they are and only headers
	 * can carry a key. */
	if (i == body.n || body.p[i] != '{' || json_object_scan(&x->body, body.p, body.n, NULL))
		return;
	x->is_json = true;
	stream = json_object_get(&x->body, "stream");
	x->streaming = stream && stream->type == JSON_TRUE;
}

static void find_key(struct exchange *x)
{
	route_key_extract(&x->rt->cfg.keys, x->req->head.field, x->req->head.nfields,
			  x->is_json ? &x->body : NULL, &x->key);
	if (x->key.level != ROUTE_KEY_NONE)
		return;
	metrics_count(&x->rt->metrics, x->lane->stripe, METRIC_NO_KEY, x->route, 1);
	if (x->rt->cfg.keyless == KEYLESS_PREFIX && x->is_json)
		route_key_prefix(&x->body, &x->key);
}

/* -- picking -- */

void mark_tried(struct exchange *x, enum worker_role role)
{
	if (!x->tried[role])
		x->tried[role] = calloc(x->fleet->pool[role].n + 1, sizeof(bool));
	if (x->tried[role])
		x->tried[role][x->decision[role].worker] = true;
}

static void forget_tried(struct exchange *x, enum worker_role role)
{
	if (x->tried[role])
		memset(x->tried[role], 0, x->fleet->pool[role].n * sizeof(bool));
}

static int decide(struct exchange *x, enum worker_role role)
{
	struct fleet_pool *p = &x->fleet->pool[role];
	struct route_input in = {&x->key, x->tried[role], &x->lane->rng};
	int err;

	if (x->capture_id)
		x->lane->drawn = x->lane->rng;
	err = route_decide(&p->policy, p->ring, &in, &x->decision[role]);

	/* All that are left were tried: a second round, from the key's home again. */
	if (err == PD_ENOENT && x->tried[role]) {
		forget_tried(x, role);
		err = route_decide(&p->policy, p->ring, &in, &x->decision[role]);
	}
	return err;
}

void begin_attempt(struct exchange *x)
{
	x->head_ns = 0;
	if (!x->rt->cfg.access_log)
		return;
	x->times = (struct exchange_times){.first_pick = x->times.first_pick, .pick = clock_now()};
	if (x->times.first_pick == 0)
		x->times.first_pick = x->times.pick;
}

int choose(struct exchange *x, enum worker_role role)
{
	int64_t deadline = 0, step = NS_PER_MS, now;
	int err;

	while ((err = decide(x, role)) == PD_EBUSY) {
		now = clock_now();
		deadline = deadline ? deadline : now + x->rt->cfg.queue_timeout;
		if (now >= deadline)
			return PD_EBUSY;
		if (http_conn_sleep(x->conn, now + step < deadline ? now + step : deadline))
			return PD_ECANCELED;
		step = step < 50 * NS_PER_MS ? step * 2 : step;
	}
	if (err) {
		metrics_count(&x->rt->metrics, x->lane->stripe, METRIC_NO_WORKER, x->route, 1);
		return err;
	}
	x->worker[role] = x->fleet->pool[role].worker[x->decision[role].worker];
	x->released[role] = false;
	metrics_add(&x->rt->metrics, x->lane->stripe, METRIC_DECISIONS, role,
		    x->decision[role].reason, 1);
	atomic_fetch_add_explicit(&x->worker[role]->requests, 1, memory_order_relaxed);
	if (x->capture_id)
		capture_decided(x, role);
	if (x->decision[role].reason == ROUTE_REASON_FAILOVER)
		metrics_count(&x->rt->metrics, x->lane->stripe, METRIC_FAILOVERS, x->route, 1);
	return PD_OK;
}

static void append_why(struct exchange *x, const char *joint, const char *text)
{
	size_t n = strlen(x->why);

	(void)snprintf(x->why + n, sizeof(x->why) - n, "%s%s", joint, text);
}

/* What keeps the workers out: the first reason that is known. */
static void append_note(struct exchange *x, const struct fleet_pool *p)
{
	char note[160];

	for (size_t i = 0; i < p->n; i++) {
		worker_note_get(p->worker[i], note, sizeof(note));
		if (!note[0])
			continue;
		append_why(x, "; worker ", p->worker[i]->url);
		append_why(x, ": ", note);
		return;
	}
}

void no_worker(struct exchange *x, enum worker_role role, int err)
{
	const struct fleet_pool *p = &x->fleet->pool[role];
	char before[sizeof(x->why)];

	x->worker[role] = NULL;
	memcpy(before, x->why, sizeof(before));
	note_cause(x, role, err == PD_EBUSY ? CAUSE_BUSY : CAUSE_NO_WORKER);
	if (err == PD_EBUSY)
		(void)snprintf(x->why, sizeof(x->why),
			       "all %s workers are at their limit of %u requests",
			       worker_role_name(role), x->rt->cfg.worker_cap);
	else
		(void)snprintf(x->why, sizeof(x->why),
			       "no available %s worker: %zu configured, %zu available",
			       worker_role_name(role), p->n, fleet_available(p));
	/* What went wrong in this request before is why there is none, or what keeps them out. */
	if (before[0] && !strstr(before, "no available"))
		append_why(x, "; before: ", before);
	else if (err != PD_EBUSY)
		append_note(x, p);
	x->why_status = 503;
}

void note_cause(struct exchange *x, enum worker_role role, enum metrics_cause cause)
{
	x->cause = cause;
	metrics_add(&x->rt->metrics, x->lane->stripe, METRIC_LEG_FAILURES, role,
		    (unsigned)cause - 1, 1);
	if (role != ROLE_REGULAR && x->worker[role])
		atomic_fetch_add_explicit(&x->worker[role]->pd_errors, 1, memory_order_relaxed);
}

static void let_go(struct exchange *x, enum worker_role role)
{
	if (x->released[role])
		return;
	if (role == ROLE_DECODE && x->decoding)
		atomic_fetch_sub_explicit(&x->worker[role]->decoding, 1, memory_order_relaxed);
	x->decoding = x->decoding && role != ROLE_DECODE;
	route_release(&x->worker[role]->slot);
	x->released[role] = true;
}

void release_early(struct exchange *x, const struct worker *w)
{
	for (int r = 0; r < ROLES; r++)
		if (x->worker[r] == w)
			let_go(x, (enum worker_role)r);
}

void unchoose(struct exchange *x, enum worker_role role, enum breaker_verdict v)
{
	struct worker *w = x->worker[role];

	let_go(x, role);
	worker_report(w, &x->rt->cfg, v, x->decision[role].trial, clock_now());
}

void blame(struct exchange *x, enum worker_role role, enum leg_error e)
{
	static const enum metrics_cause causes[] = {
		[LEG_CONNECT] = CAUSE_CONNECT, [LEG_CLOSED] = CAUSE_CLOSED,
		[LEG_TIMEOUT] = CAUSE_TIMEOUT, [LEG_BROKEN] = CAUSE_BROKEN,
		[LEG_LOCAL] = CAUSE_LOCAL,
	};
	struct worker *w = x->worker[role];
	bool ours = e == LEG_CLIENT_LEFT || e == LEG_LOCAL;

	(void)snprintf(x->why, sizeof(x->why), "%s worker %.150s: %s", worker_role_name(role),
		       w->url, leg_error_text(e));
	if (x->tls_why[0])
		append_why(x, ": ", x->tls_why);
	x->tls_why[0] = '\0';
	x->why_status = e == LEG_TIMEOUT ? 504 : e == LEG_LOCAL ? 503 : 502;
	if (e == LEG_CONNECT) {
		worker_eject(w, &x->rt->cfg, clock_now());
		health_nudge(x->rt);
	}
	mark_tried(x, role);
	if (e == LEG_CLIENT_LEFT)
		x->client_left = true;
	else
		note_cause(x, role, causes[e]);
	unchoose(x, role, ours ? VERDICT_NONE : VERDICT_FAILURE);
}

/* -- trying again -- */

static bool has_untried(struct exchange *x, enum worker_role role)
{
	struct fleet_pool *p = &x->fleet->pool[role];

	for (size_t i = 0; i < p->n; i++)
		if (atomic_load(&p->worker[i]->slot.available) &&
		    !(x->tried[role] && x->tried[role][i]))
			return true;
	return false;
}

static void count_retry(struct exchange *x, int64_t wait)
{
	struct metrics *m = &x->rt->metrics;
	unsigned stripe = x->lane->stripe, nth = x->attempt - 1;

	metrics_count(m, stripe, METRIC_RETRIES, x->route, 1);
	if (x->cause != CAUSE_NONE)
		metrics_add(m, stripe, METRIC_RETRY_CAUSES, (unsigned)x->cause - 1, 0, 1);
	metrics_observe_at(m, stripe, HIST_BACKOFF, nth < LABELS_ATTEMPT ? nth : LABELS_ATTEMPT - 1,
			   wait);
}

bool try_again(struct exchange *x, enum worker_role failed, bool free_of_charge)
{
	const struct router_config *c = &x->rt->cfg;
	int64_t now = clock_now(), wait;
	bool other = has_untried(x, failed);

	if (x->client_left || x->started || c->retries_off || x->attempt + 1 >= c->retry_max)
		return false;
	wait = retry_backoff(c, x->attempt, &x->lane->rng);
	/* Another worker need not wait for what this one asked for; the same one does. */
	if (!other && x->wait_ns > wait)
		wait = x->wait_ns;
	if (wait > c->retry_cap || now + wait >= x->deadline)
		return false;
	/* Spent last: an attempt that is not made costs nothing. */
	if (!free_of_charge && !retry_budget_spend(&x->rt->budget)) {
		metrics_count(&x->rt->metrics, x->lane->stripe, METRIC_BUDGET_EMPTY, x->route, 1);
		return false;
	}
	if (other && free_of_charge)
		wait = 0;
	x->attempt++;
	x->wait_ns = 0;
	count_retry(x, wait);
	/* A wake-up that was meant for the queue may still be there: the pause is kept all the
	 * same. */
	while (wait > 0 && !x->client_left && clock_now() < now + wait)
		x->client_left = http_conn_sleep(x->conn, now + wait);
	return !x->client_left;
}

bool refused(struct exchange *x, const struct leg *l)
{
	const struct field *after = http_field_tag(&l->head, HTTP_RETRY_AFTER);

	if (!retry_status(l->head.status))
		return false;
	x->wait_ns = after ? retry_after(after->value) : 0;
	return true;
}

/* An answer that is here as a whole is consumed, so that the connection can be used again; the next
 * attempt waits for nothing. */
static void drop_answer(struct exchange *x, struct leg *l)
{
	buf_clear(&x->lane->side);
	if (l->head.body == HTTP_BODY_LENGTH && l->head.length <= l->in->len - l->at &&
	    leg_collect(l, x, &x->lane->side))
		l->ended = false;
	(void)leg_end(l, x);
}

bool retry_refusal(struct exchange *x, struct leg *l, enum worker_role role)
{
	mark_tried(x, role);
	note_cause(x, role, CAUSE_STATUS);
	unchoose(x, role, l->head.status >= 500 ? VERDICT_FAILURE : VERDICT_SUCCESS);
	if (x->repeatable && try_again(x, role, false)) {
		drop_answer(x, l);
		return true;
	}
	x->head_ns = l->head_ns;
	if (relay_answer(x, l, NULL) == RELAY_RETRY)
		give_up(x);
	(void)leg_end(l, x);
	return false;
}

void give_up(struct exchange *x)
{
	if (x->client_left || x->started)
		return;
	if (x->why_status == 503 && x->wait_ns == 0)
		x->wait_ns = NS_PER_S;
	x->head_ns = 0;
	x->fault = x->cause == CAUSE_NO_WORKER || x->cause == CAUSE_BUSY ? ERROR_NO_WORKERS
									 : ERROR_BACKEND;
	answer_error(x, x->why_status ? x->why_status : 502, "upstream_error",
		     x->why[0] ? x->why : "no worker could answer");
}

/* -- entry -- */

/* A worker that is this router, directly or through others, would send the request round until
 * everything is full. */
static bool has_come_round(const struct router *rt, const struct http_head *h)
{
	for (size_t i = 0; i < h->nfields; i++)
		if (h->field[i].tag == HTTP_VIA &&
		    memmem(h->field[i].value.p, h->field[i].value.n, rt->via.p, rt->via.n))
			return true;
	return false;
}

void proxy_refused(struct router *rt, struct http_conn *c, const struct http_request *r, int status,
		   enum metrics_error error)
{
	enum metrics_route route = route_of(r->head.path);
	struct lane *lane = rt->cfg.access_log ? lane_of(rt, c) : NULL;

	metrics_code(&rt->metrics, 0, route, status);
	metrics_error(&rt->metrics, 0, route, error);
	if (lane)
		access_refused(rt, lane, c, r, status,
			       error == ERROR_NONE ? "client_left" : metrics_error_name(error));
}

/* The server's own refusals: it counts them itself (pdctl_bad_requests_total). */
void proxy_on_refuse(void *ctx, struct http_conn *c, const struct http_request *r, int status)
{
	struct router *rt = ctx;
	struct lane *lane = rt->cfg.access_log ? lane_of(rt, c) : NULL;

	if (!lane)
		return;
	lane->refused = true;
	access_refused(rt, lane, c, r, status, "bad_request");
}

/* A request that goes no further than the gate. */
static void count_refusal(struct router *rt, struct http_conn *c, const struct http_request *r,
			  int status, enum metrics_error error)
{
	enum metrics_route route = route_of(r->head.path);

	proxy_refused(rt, c, r, status, error);
	if (route == ROUTE_EMBEDDINGS)
		metrics_embeddings(&rt->metrics, 0, status);
	if (rt->capture)
		capture_refused(rt->capture, r, route, status);
}

static int refuse_loop(struct router *rt, struct http_conn *c, const struct http_request *r)
{
	atomic_fetch_add(&rt->loops, 1);
	count_refusal(rt, c, r, 508, ERROR_LOOP);
	(void)http_reply_error(
		c, 508, "server_error", NULL,
		"this request has passed this router before: one of its workers leads "
		"back to it");
	return -1;
}

static int refuse_place(struct router *rt, struct http_conn *c, const struct http_request *r,
			int err)
{
	if (err == PD_EBUSY) {
		count_refusal(rt, c, r, 429, ERROR_QUEUE_FULL);
		(void)http_reply_error(c, 429, "overloaded_error", "Retry-After: 1\r\n",
				       "%u requests are in work and %u wait: the router is full",
				       rt->cfg.max_concurrent, rt->cfg.queue_size);
	} else if (err == PD_ETIMEOUT) {
		count_refusal(rt, c, r, 408, ERROR_QUEUE_TIMEOUT);
		(void)http_reply_error(c, 408, "timeout_error", "Retry-After: 1\r\n",
				       "waited %.1f s in the queue for a place",
				       (double)rt->cfg.queue_timeout / (double)NS_PER_S);
	} else {
		count_refusal(rt, c, r, 0, ERROR_NONE);
	}
	return -1;
}

static int wait_for_place(struct router *rt, struct http_conn *c, const struct http_request *r)
{
	enum metrics_route route = route_of(r->head.path);
	struct lane *lane = lane_of(rt, c);
	int64_t began = clock_now();
	int err;

	if (route == ROUTE_EMBEDDINGS)
		atomic_fetch_add_explicit(&rt->embeddings_waiting, 1, memory_order_relaxed);
	err = gate_enter(&rt->gate, c, r->accepted_ns + rt->cfg.queue_timeout);
	if (route == ROUTE_EMBEDDINGS)
		atomic_fetch_sub_explicit(&rt->embeddings_waiting, 1, memory_order_relaxed);
	if (err)
		return refuse_place(rt, c, r, err);
	if (lane)
		lane->queued_ns = clock_now() - began;
	return 0;
}

int proxy_on_head(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct router *rt = ctx;
	struct lane *lane = rt->cfg.access_log ? http_conn_data(c) : NULL;

	if (lane)
		lane->refused = false;
	if (!auth_admit(rt, c, r))
		return -1;
	if (admin_route(rt, r))
		return 0;
	if (has_come_round(rt, &r->head))
		return refuse_loop(rt, c, r);
	return gate_try(&rt->gate) ? 0 : wait_for_place(rt, c, r);
}

void proxy_on_abandon(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct router *rt = ctx;
	struct lane *lane = rt->cfg.access_log ? lane_of(rt, c) : http_conn_data(c);

	if (lane && rt->cfg.access_log && !lane->refused)
		access_refused(rt, lane, c, r, 0, "client_left");
	if (lane)
		lane->queued_ns = 0;
	if (!admin_route(rt, r))
		gate_leave(&rt->gate);
}

/* The error that the client saw, if any. */
static enum metrics_error error_of(const struct exchange *x)
{
	if (x->client_left || x->fault != ERROR_NONE)
		return x->client_left ? ERROR_NONE : x->fault;
	if (x->status > 0 && x->status < 400)
		return ERROR_NONE;
	return x->status == 0 || x->status >= 500 || retry_status(x->status) ? ERROR_BACKEND
									     : ERROR_NOT_RETRYABLE;
}

static void count_end(struct exchange *x, enum metrics_error error)
{
	struct metrics *m = &x->rt->metrics;
	unsigned stripe = x->lane->stripe;
	int64_t since = x->req->accepted_ns, now = clock_now();
	bool good = x->status >= 200 && x->status < 300;

	if (good)
		metrics_count(m, stripe, METRIC_REQUESTS, x->route, 1);
	metrics_code(m, stripe, x->route, x->status);
	metrics_error(m, stripe, x->route, error);
	if (x->attempt > 0 && (error == ERROR_BACKEND || error == ERROR_NO_WORKERS))
		metrics_count(m, stripe, METRIC_RETRIES_EXHAUSTED, x->route, 1);
	if (x->events > 0)
		metrics_count(m, stripe, METRIC_EVENTS, x->route, x->events);
	if (x->bytes > 0)
		metrics_count(m, stripe, METRIC_BYTES, x->route, x->bytes);
	metrics_observe_at(m, stripe, HIST_DURATION, x->route, now - since);
	if (good && !x->rt->cfg.pd)
		metrics_observe(m, stripe, HIST_GENERATE,
				(x->streaming && x->head_ns ? x->head_ns : now) - since);
	if (x->route == ROUTE_EMBEDDINGS) {
		metrics_embeddings(m, stripe, x->status);
		metrics_observe(m, stripe, HIST_EMBEDDINGS, now - since);
	} else if (x->rt->cfg.pd) {
		metrics_observe_at(m, stripe, HIST_PD_DURATION, x->route,
				   (x->head_ns ? x->head_ns : now) - since);
	}
}

static void finish(struct exchange *x)
{
	struct metrics *m = &x->rt->metrics;
	unsigned stripe = x->lane->stripe;
	bool left = x->client_left || (!x->started && http_conn_client_left(x->conn));
	enum metrics_error error;

	x->client_left = left; /* also when nobody noticed before: it is no error of ours */
	if (left) {
		metrics_count(m, stripe, METRIC_CLIENT_LEFT, x->route, 1);
		if (!x->started)
			http_conn_abort(x->conn, false);
	}
	error = error_of(x);
	count_end(x, error);
	explain_end(x);
	if (x->capture_id)
		capture_ended(x, left);
	access_end(x, error);
	for (int r = 0; r < ROLES; r++)
		free(x->tried[r]);
	if (x->is_json)
		json_object_release(&x->body);
	fleet_put(x->fleet);
	buf_clear(&x->lane->up);
	shelf_give(&x->lane->up);
	shrink(&x->lane->head);
	shrink(&x->lane->side);
	shrink(&x->lane->held);
	shrink(&x->lane->prefill);
}

/* False: answered already, there is no memory. */
static bool begin(struct exchange *x, struct router *rt, struct http_conn *c,
		  struct http_request *r)
{
	/* Not the big arrays: a scan fills what it uses. */
	memset(x, 0, offsetof(struct exchange, body));
	memset(&x->is_json, 0, sizeof(*x) - offsetof(struct exchange, is_json));
	x->rt = rt;
	x->conn = c;
	x->req = r;
	x->lane = lane_of(rt, c);
	if (!x->lane) {
		(void)http_reply_error(c, 503, "server_error", "Retry-After: 1\r\n",
				       "out of memory");
		return false;
	}
	x->queued_ns = x->lane->queued_ns;
	x->lane->queued_ns = 0;
	x->route = route_of(r->head.path);
	x->fleet = fleet_get(&rt->fleet);
	x->deadline = r->accepted_ns + rt->cfg.request_timeout;
	x->repeatable = x->route != ROUTE_OTHER || span_eq(r->head.method, SPAN("GET")) ||
			span_eq(r->head.method, SPAN("HEAD"));
	find_id(x);
	find_trace(x);
	return true;
}

static void run(struct router *rt, struct http_conn *c, struct http_request *r, bool probe)
{
	struct exchange x;

	if (!begin(&x, rt, c, r))
		return;
	if (probe)
		x.route = ROUTE_OTHER; /* no client asked for tokens */
	metrics_count(&rt->metrics, x.lane->stripe, METRIC_RECEIVED, x.route, 1);
	metrics_observe(&rt->metrics, x.lane->stripe, HIST_QUEUE, x.queued_ns);
	if (r->body.n > 0)
		metrics_count(&rt->metrics, x.lane->stripe, METRIC_BYTES_IN, x.route, r->body.n);
	retry_budget_earn(&rt->budget);
	x.capture_id = capture_begin(rt->capture);
	x.usage = (struct capture_usage){-1, -1, -1};
	read_body(&x);
	find_key(&x);
	if (!rt->cfg.pd)
		regular_flow(&x, ROLE_REGULAR);
	else if (x.route == ROUTE_EMBEDDINGS)
		regular_flow(&x, ROLE_PREFILL);
	else
		pd_flow(&x);
	finish(&x);
}

/* -- /health_generate -- */

bool proxy_generates(const struct http_request *r)
{
	return span_eq(r->head.path, SPAN("/health_generate"));
}

/* What a request says, while another takes its place: the connection goes on from the original. */
struct original {
	struct span method, target, path, body;
	enum http_body framing;
	uint64_t length;
};

static void swap_request(struct http_request *r, struct original *o)
{
	struct original now = {r->head.method, r->head.target, r->head.path,
			       r->body,	       r->head.body,   r->head.length};

	r->head.method = o->method;
	r->head.target = o->target;
	r->head.path = o->path;
	r->body = o->body;
	r->head.body = o->framing;
	r->head.length = o->length;
	*o = now;
}

/* The fields that describe a body are those of ours. */
static void describe_json(struct http_head *h)
{
	struct field *type;
	size_t kept = 0;

	for (size_t i = 0; i < h->nfields; i++)
		if (h->field[i].tag != HTTP_CONTENT_TYPE &&
		    h->field[i].tag != HTTP_CONTENT_ENCODING)
			h->field[kept++] = h->field[i];
	h->nfields = kept;
	type = http_head_room(h);
	if (type) {
		*type = (struct field){SPAN("Content-Type"), SPAN("application/json"),
				       HTTP_CONTENT_TYPE};
		h->nfields++;
	}
}

void proxy_generate(struct router *rt, struct http_conn *c, struct http_request *r)
{
	static const char body[] = "{\"prompt\":\"ping\",\"max_tokens\":1,\"temperature\":0}";
	struct original o = {SPAN("POST"), SPAN("/v1/completions"), SPAN("/v1/completions"),
			     SPAN(body),   HTTP_BODY_LENGTH,	    sizeof(body) - 1};

	if (!span_eq(r->head.method, SPAN("GET"))) {
		(void)http_reply_error(c, 405, "invalid_request_error", "Allow: GET\r\n",
				       "use GET");
		return;
	}
	describe_json(&r->head);
	swap_request(r, &o);
	run(rt, c, r, true);
	swap_request(r, &o);
}

void models_answer(struct router *rt, struct http_conn *c, struct http_request *r)
{
	struct exchange x;

	if (!begin(&x, rt, c, r))
		return;
	models_ask_all(&x);
	fleet_put(x.fleet);
}

void proxy_on_request(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct router *rt = ctx;

	if (admin_answer(rt, c, r, false))
		return;
	if (proxy_generates(r))
		proxy_generate(rt, c, r);
	else
		run(rt, c, r, false);
	gate_leave(&rt->gate);
}
