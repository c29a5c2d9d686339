/*
 * The way of a request: admission with the head, then everything else with the body. From here the
 * reader goes on to regular.c or pdflow.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/net/shelf.h"
#include "lib/router/way/exchange.h"
#include "lib/router/way/models.h"
#include "lib/router/way/pdflow.h"
#include "lib/router/way/regular.h"

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
	lane->stripe = http_conn_lane(c);
	rng_seed(&lane->rng,
		 rt->seed + atomic_fetch_add_explicit(&rt->lanes, 1, memory_order_relaxed));
	buf_init(&lane->up, LANE_UP_MAX);
	buf_init(&lane->head, LANE_HEAD_MAX);
	buf_init(&lane->side, 2 * MERGE_EVENT_MAX);
	buf_init(&lane->prefill, PREFILL_MAX);
	buf_init(&lane->held, MERGE_EVENT_MAX + HTTP_CALL_BUFFER_MAX);
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

static int refuse_key(struct router *rt, struct http_conn *c, const struct http_request *r,
		      const struct auth_refusal *no)
{
	if (no->status == 0)
		return -1;
	proxy_refused(rt, c, r, no->status,
		      no->status == 401 ? ERROR_UNAUTHORIZED : ERROR_KEY_CHECK);
	log_line(rt->cfg.log, LOG_DEBUG, "refused %.*s %.*s: %d %s", (int)r->head.method.n,
		 r->head.method.p, (int)r->head.path.n, r->head.path.p, no->status, no->text);
	(void)http_reply_error(c, no->status, no->type, no->extra, "%s", no->text);
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
	struct auth_refusal no;

	if (lane)
		lane->refused = false;
	if (!auth_admit(&rt->auth, c, r, &no))
		return refuse_key(rt, c, r, &no);
	if (admin_route(r))
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
	if (!admin_route(r))
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
		free(x->pick[r].tried);
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
	if (!rt->cfg.pd || x.route == ROUTE_EMBEDDINGS) {
		x.role = rt->cfg.pd ? ROLE_PREFILL : ROLE_REGULAR;
		attempt_run(&x, regular_attempt);
	} else {
		x.repeatable = true;
		attempt_run(&x, pdflow_attempt);
	}
	finish(&x);
}

/* -- /health_generate -- */

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

void proxy_generate(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct router *rt = ctx;
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

void models_answer(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct router *rt = ctx;
	struct exchange x;

	if (!begin(&x, rt, c, r))
		return;
	models_ask_all(&x);
	fleet_put(x.fleet);
}

void proxy_on_request(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct router *rt = ctx;

	if (admin_answer(&rt->admin, c, r, false))
		return;
	if (admin_generates(r))
		proxy_generate(rt, c, r);
	else
		run(rt, c, r, false);
	gate_leave(&rt->gate);
}
