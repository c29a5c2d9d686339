/*
 * DESIGN: the way of a request. One call stack on the connection's own fiber or thread, top to
 * bottom; what an arrow calls lies below and knows nothing of its caller.
 *
 *	router.c   on_head ----> proxy_admit ----> gate_enter        a place, or 429 / 408
 *	           on_request -> proxy_serve
 *	                            |  the body is scanned, the key found
 *	                            v
 *	           attempt_run  <-- the one retry loop: again, refusal passed on, or give up
 *	                            |  regular_attempt | pdflow_attempt   one attempt
 *	                            v
 *	           pick_choose ---> route_decide        counted in flight; waitlist while all are
 *full record_decided leg_exchange --> http_call_begin     one conversation with a worker
 *	           record_answered
 *	           attempt_answer
 *	             relay_answer -> leg_piece ...      bytes to the client as they come
 *	             leg_end, pick_end                  connection to the pool, verdict to the
 *breaker
 *	                            |
 *	                            v
 *	           record_ended                         metrics, log, access log, capture
 *	           on_request -> proxy_leave -----> gate_leave
 *
 * Guaranteed: each pick is counted down once, at the end of its body by framing or at the end of
 * its attempt (checked when the request ends). Nothing is sent to a second worker once a byte went
 * to the client. Every wait has a deadline and ends when the client leaves.
 *
 * Not guaranteed: that a refused or failed worker has not begun its work; only a P/D decode that
 * may have read its blocks is never repeated with the same ones (lib/pd/connector.h).
 */
#include "lib/router/way/proxy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/json/encoding.h"
#include "lib/net/shelf.h"
#include "lib/route/hash.h"
#include "lib/router/capture/capture.h"
#include "lib/pd/legs.h"
#include "lib/router/watch/spans.h"
#include "lib/router/way/exchange.h"
#include "lib/router/way/heads.h"
#include "lib/router/way/model.h"
#include "lib/router/way/models.h"
#include "lib/router/way/observers.h"
#include "lib/router/way/pdflow.h"
#include "lib/router/way/regular.h"
#include "lib/router/way/shadow.h"

#define LANE_UP_MAX   (4u << 20)
#define LANE_HEAD_MAX (2u * HTTP_HEAD_MAX)
#define LANE_KEEP     65536 /* buffers above this are given back after the request */

/* -- working memory -- */

static void lane_free(void *arg)
{
	struct lane *lane = arg;

	buf_release(&lane->up);
	buf_release(&lane->beside);
	buf_release(&lane->head);
	buf_release(&lane->side);
	buf_release(&lane->held);
	buf_release(&lane->prefill);
	for (int r = 0; r < ROLES; r++)
		buf_release(&lane->seen[r]);
	free(lane->second);
	free(lane);
}

static struct lane *lane_of(struct way *w, struct http_conn *c)
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
		 w->seed + atomic_fetch_add_explicit(&w->lanes, 1, memory_order_relaxed));
	buf_init(&lane->up, LANE_UP_MAX);
	buf_init(&lane->beside, LANE_UP_MAX);
	buf_init(&lane->head, LANE_HEAD_MAX);
	buf_init(&lane->side, 2 * MERGE_EVENT_MAX);
	buf_init(&lane->prefill, PREFILL_MAX);
	buf_init(&lane->held, MERGE_EVENT_MAX + HTTP_CALL_BUFFER_MAX);
	for (int r = 0; r < ROLES; r++)
		buf_init(&lane->seen[r], PICK_SEEN_MAX);
	lane->scratch.text = &lane->side;
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

/* The lengths of the names that are there, a bit each (modulo 64). */
static uint64_t name_lengths(const struct http_head *h)
{
	uint64_t lengths = 0;

	for (size_t i = 0; i < h->nfields; i++)
		lengths |= UINT64_C(1) << (h->field[i].name.n & 63);
	return lengths;
}

/* The first with a value. Most names that are asked for are not there, and their length shows it.
 */
static const struct field *named(const struct http_head *h, uint64_t lengths, const char *name)
{
	struct span want = span_of(name);

	if (!(lengths >> (want.n & 63) & 1))
		return NULL;
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
	const struct router_config *c = x->way->cfg;
	uint64_t lengths = name_lengths(&x->req->head), bits = 0;

	for (size_t i = 0; i < c->request_id_headers_n; i++) {
		const struct field *f = named(&x->req->head, lengths, c->request_id_headers[i]);

		if (f && may_be_id(f->value)) {
			x->rec.id = f->value;
			return;
		}
	}
	memcpy(x->id_text, "req-", 4);
	for (int i = 0; i < 32; i++) {
		bits = i % 16 == 0 ? rng_u64(&x->lane->rng) : bits >> 4;
		x->id_text[4 + i] = hex[bits & 15];
	}
	x->rec.id = (struct span){x->id_text, 36};
}

/* The client's trace context, or one of ours. */
static void find_trace(struct exchange *x)
{
	enum metrics_trace what;

	if (trace_read(&x->trace, &x->req->head))
		what = TRACE_PASSED;
	else if (x->trace.refused)
		what = TRACE_INVALID;
	else if (x->way->cfg->generate_traceparent)
		what = TRACE_GENERATED;
	else
		what = METRICS_TRACES;
	if (what != METRICS_TRACES)
		metrics_add(x->way->watch.metrics, x->rec.stripe, METRIC_TRACES, what, 0, 1);
	if (what != TRACE_PASSED && x->way->cfg->generate_traceparent)
		trace_make(&x->trace, &x->lane->rng);
	spans_begin(x->way->watch.spans, &x->trace, &x->lane->rng);
}

static void read_body(struct exchange *x)
{
	const struct json_member *stream, *model;
	struct span body;
	size_t i = 0;

	if (json_text_utf8(x->req->body, &x->utf8, &body))
		return;
	while (i < body.n &&
	       (body.p[i] == ' ' || body.p[i] == '\n' || body.p[i] == '\r' || body.p[i] == '\t'))
		i++;
	/* Not an object (multipart, audio, nothing): its bytes travel as they are and only headers
	 * can carry a key. */
	if (i == body.n || body.p[i] != '{')
		return;
	x->unread = json_object_scan(&x->body, body.p, body.n, NULL) != PD_OK;
	if (x->unread)
		return;
	x->rec.json = &x->body;
	stream = json_object_get(&x->body, "stream");
	x->rec.streaming = stream && stream->type == JSON_TRUE;
	model = json_object_get(&x->body, "model");
	if (model && model->type == JSON_STRING)
		x->model = (struct span){model->value.p + 1, model->value.n - 2};
}

/* Engines connect to the host that ec_transfer_params name: a client must not choose it. */
static bool may_pass(struct exchange *x)
{
	if (x->way->cfg->allow_ec_params || !x->rec.json ||
	    !pd_carries(&x->body, "ec_transfer_params"))
		return true;
	answer_error(x, 400, "invalid_request_error",
		     "ec_transfer_params: they name the host that an engine connects to; the "
		     "router passes them with --allow-ec-transfer-params only");
	return false;
}

static void find_key(struct exchange *x)
{
	route_key_extract(&x->way->cfg->keys, x->req->head.field, x->req->head.nfields, x->rec.json,
			  &x->key);
	if (x->key.level != ROUTE_KEY_NONE)
		return;
	metrics_count(x->way->watch.metrics, x->rec.stripe, METRIC_NO_KEY, x->rec.route, 1);
	if (x->way->cfg->keyless == KEYLESS_PREFIX && x->rec.json)
		route_key_prefix(&x->body, &x->key);
}

/* -- entry -- */

/* A worker that is this router, directly or through others, would send the request round until
 * everything is full. */
static bool has_come_round(const struct way *w, const struct http_head *h)
{
	for (size_t i = 0; i < h->nfields; i++)
		if (h->field[i].tag == HTTP_VIA &&
		    memmem(h->field[i].value.p, h->field[i].value.n, w->via.p, w->via.n))
			return true;
	return false;
}

/* Does anybody read lines about requests that come no further than the gate? */
static bool has_reader(const struct way *w)
{
	return w->cfg->access_log || (w->cfg->log_requests && log_wants(w->cfg->log, LOG_INFO));
}

/* A request that comes no further than the gate, for the observers. */
static void tell_refused(struct way *w, struct http_conn *c, const struct http_request *r,
			 enum record_stage stage, int status, enum metrics_error error,
			 uint64_t number)
{
	struct lane *lane = w->cfg->access_log ? lane_of(w, c) : NULL;
	char peer[NET_ADDR_TEXT] = "";
	struct record rec = {
		.to = &w->watch,
		.stage = stage,
		.status = status,
		.error = error,
		.number = number,
		.tokens = PD_TOKENS_UNKNOWN,
		.why = "",
		.told = http_conn_told(c),
		.who = http_conn_who(c),
	};

	if (r) {
		rec.head = &r->head;
		rec.route = route_of(r->head.path);
		rec.time.accepted = r->accepted_ns;
	}
	if (lane) {
		http_conn_peer(c, peer);
		rec.peer = span_of(peer);
		rec.scratch = &lane->scratch;
	}
	rec.time.ended = clock_now();
	record_ended(&rec);
}

void proxy_refused(struct way *w, struct http_conn *c, const struct http_request *r, int status,
		   enum metrics_error error)
{
	tell_refused(w, c, r, RECORD_REFUSED, status, error, 0);
}

void proxy_bad_request(struct way *w, struct http_conn *c, const struct http_request *r, int status)
{
	struct lane *lane = has_reader(w) ? lane_of(w, c) : NULL;

	if (!lane)
		return;
	lane->refused = r ? r->accepted_ns : 0;
	tell_refused(w, c, r, RECORD_BAD, status, ERROR_INVALID, 0);
}

static int refuse_loop(struct way *w, struct http_conn *c, const struct http_request *r)
{
	static const char text[] = "forwarding loop: the URL of a worker leads back to this router";

	atomic_fetch_add(&w->loops, 1);
	http_conn_tell(c, span_of(text));
	tell_refused(w, c, r, RECORD_REFUSED, 508, ERROR_LOOP, capture_begin(w->watch.capture));
	(void)http_reply_error(c, 508, "server_error", NULL, "%s", text);
	return -1;
}

static int refuse_place(struct way *w, struct http_conn *c, const struct http_request *r, int err)
{
	uint64_t number = capture_begin(w->watch.capture);

	if (err == PD_EBUSY) {
		tell_refused(w, c, r, RECORD_REFUSED, 429, ERROR_QUEUE_FULL, number);
		(void)http_reply_error(c, 429, "overloaded_error", "Retry-After: 1\r\n",
				       "at capacity: %u requests in flight, %u queued",
				       w->cfg->max_concurrent, w->cfg->queue_size);
	} else if (err == PD_ETIMEOUT) {
		tell_refused(w, c, r, RECORD_REFUSED, 408, ERROR_QUEUE_TIMEOUT, number);
		(void)http_reply_error(c, 408, "timeout_error", "Retry-After: 1\r\n",
				       "timed out after %.1f s in the admission queue",
				       (double)w->cfg->queue_timeout / (double)NS_PER_S);
	} else {
		tell_refused(w, c, r, RECORD_REFUSED, 0, ERROR_NONE, number);
	}
	return -1;
}

/* A whole number of at most 1000 either way; anything else is 0. */
static int priority_of(struct span text)
{
	bool minus = text.n > 0 && text.p[0] == '-';
	int v = 0;

	for (size_t i = minus; i < text.n; i++) {
		if (text.p[i] < '0' || text.p[i] > '9' || v > 1000)
			return 0;
		v = v * 10 + (text.p[i] - '0');
	}
	v = v > 1000 ? 1000 : v;
	return minus ? -v : v;
}

static int64_t priority_in(const struct router_config *c, const struct http_head *h)
{
	const struct field *f =
		c->priority_header ? named(h, name_lengths(h), c->priority_header) : NULL;

	return f ? priority_of(f->value) : 0;
}

static struct gate_flow flow_of(const struct router_config *c, const struct http_head *h)
{
	uint64_t lengths = name_lengths(h);
	const struct field *flow =
		c->fairness_header ? named(h, lengths, c->fairness_header) : NULL;

	return (struct gate_flow){
		.priority = (int)priority_in(c, h),
		.id = flow ? route_hash(ROUTE_HASH_XXH3, flow->value.p, flow->value.n) : 0};
}

static int wait_for_place(struct way *w, struct http_conn *c, const struct http_request *r)
{
	enum metrics_route route = route_of(r->head.path);
	struct lane *lane = lane_of(w, c);
	int64_t began = clock_now();
	struct gate_flow flow;
	int err;

	if (route == ROUTE_EMBEDDINGS)
		atomic_fetch_add_explicit(&w->embeddings_waiting, 1, memory_order_relaxed);
	flow = flow_of(w->cfg, &r->head);
	err = gate_enter(&w->gate, c, &flow, r->accepted_ns + w->cfg->queue_timeout);
	if (route == ROUTE_EMBEDDINGS)
		atomic_fetch_sub_explicit(&w->embeddings_waiting, 1, memory_order_relaxed);
	if (err)
		return refuse_place(w, c, r, err);
	if (lane)
		lane->queued_ns = clock_now() - began;
	return 0;
}

void proxy_trim_path(struct http_request *r)
{
	struct span *path = &r->head.path;

	if (path->n < 2 || path->p[path->n - 1] != '/' ||
	    !(span_eq(r->head.method, SPAN("POST")) || span_starts(*path, SPAN("/v1/"))))
		return;
	while (path->n > 1 && path->p[path->n - 1] == '/')
		path->n--;
}

/* -- flow control of --epp-config -- */

static int refuse_flow(struct way *w, struct http_conn *c, const struct http_request *r,
		       enum flow_end how)
{
	static const struct {
		int status;
		enum metrics_error error;
		const char *reason, *text;
	} ends[FLOW_ENDS] = {
		[FLOW_FULL] = {429, ERROR_QUEUE_FULL, "rejected-saturated",
			       "saturated, and the queue of this priority is full"},
		[FLOW_EXPIRED] = {429, ERROR_QUEUE_TIMEOUT, "rejected-ttl-expired",
				  "the time to live in the queue is over"},
		[FLOW_NO_WORKERS] = {503, ERROR_NO_WORKERS, "rejected-no-endpoints",
				     "no worker is available"},
	};
	uint64_t number = capture_begin(w->watch.capture);
	char extra[120];

	if (how == FLOW_CLIENT_LEFT) {
		tell_refused(w, c, r, RECORD_REFUSED, 0, ERROR_NONE, number);
		return -1;
	}
	(void)snprintf(extra, sizeof(extra),
		       "Retry-After: 1\r\nx-llm-d-request-dropped-reason: %s\r\n",
		       ends[how].reason);
	tell_refused(w, c, r, RECORD_REFUSED, ends[how].status, ends[how].error, number);
	(void)http_reply_error(c, ends[how].status,
			       ends[how].status == 429 ? "overloaded_error" : "server_error", extra,
			       "%s", ends[how].text);
	return -1;
}

/* The first of two names that is there, also when it is empty. */
static const struct field *either(const struct http_head *h, struct span now, struct span before)
{
	const struct field *old = NULL;

	for (size_t i = 0; i < h->nfields; i++) {
		if (span_eq_case(h->field[i].name, now))
			return &h->field[i];
		if (!old && span_eq_case(h->field[i].name, before))
			old = &h->field[i];
	}
	return old;
}

/* Whole milliseconds; -1: none, or no such number. */
static int64_t slo_of(const struct http_head *h)
{
	const struct field *f = either(h, SPAN("x-llm-d-slo-ttft-ms"), SPAN("x-slo-ttft-ms"));
	int64_t ms = 0;

	if (!f || f->value.n == 0 || f->value.n > 12)
		return -1;
	for (size_t i = 0; i < f->value.n; i++) {
		if (f->value.p[i] < '0' || f->value.p[i] > '9')
			return -1;
		ms = ms * 10 + (f->value.p[i] - '0');
	}
	return ms > INT64_MAX / 4 / NS_PER_MS ? -1 : ms * NS_PER_MS;
}

static int wait_for_flow(struct way *w, struct http_conn *c, const struct http_request *r)
{
	const struct router_config *cfg = w->cfg;
	const struct field *flow =
		cfg->fairness_header ? named(&r->head, name_lengths(&r->head), cfg->fairness_header)
				     : either(&r->head, SPAN("x-llm-d-inference-fairness-id"),
					      SPAN("x-gateway-inference-fairness-id"));
	const struct flow_request request = {
		.priority = priority_in(cfg, &r->head),
		.id = flow ? flow->value : SPAN(""),
		.bytes = r->head.body == HTTP_BODY_LENGTH && r->head.length < INT64_MAX / 4
				 ? (int64_t)r->head.length
				 : 0,
		.accepted = r->accepted_ns,
		.slo_ns = slo_of(&r->head),
		.give_up = r->accepted_ns + cfg->request_timeout,
	};
	struct lane *lane = lane_of(w, c);
	int64_t began = clock_now();
	enum flow_end how;

	if (!lane)
		return refuse_place(w, c, r, PD_EBUSY);
	how = flowgate_enter(w->flow, c, &request);
	if (how != FLOW_BEGINS)
		return refuse_flow(w, c, r, how);
	lane->begun = true;
	lane->queued_ns = clock_now() - began;
	return 0;
}

/* Without flow control a saturated pool refuses those of negative priority. */
static bool may_come(struct way *w, const struct http_request *r)
{
	struct fleet *f;
	double s;

	if (!w->cfg->epp || w->flow || priority_in(w->cfg, &r->head) >= 0)
		return true;
	f = fleet_get(w->fleet);
	s = flow_saturation(w->cfg->epp, f, 0, clock_now());
	fleet_put(f);
	return s < 1;
}

int proxy_admit(struct way *w, struct http_conn *c, struct http_request *r)
{
	struct lane *lane;
	int64_t queued;

	if (has_come_round(w, &r->head))
		return refuse_loop(w, c, r);
	if (!may_come(w, r)) {
		tell_refused(w, c, r, RECORD_REFUSED, 429, ERROR_QUEUE_FULL,
			     capture_begin(w->watch.capture));
		(void)http_reply_error(c, 429, "overloaded_error", "Retry-After: 1\r\n",
				       "saturated: a request of negative priority is refused");
		return -1;
	}
	if (w->flow && wait_for_flow(w, c, r))
		return -1;
	if (gate_try(&w->gate))
		return 0;
	lane = http_conn_data(c);
	queued = w->flow && lane ? lane->queued_ns : 0;
	if (wait_for_place(w, c, r)) {
		if (lane)
			lane_picked(w, lane);
		return -1;
	}
	if (queued > 0)
		lane->queued_ns += queued;
	return 0;
}

void proxy_leave(struct way *w)
{
	gate_leave(&w->gate);
}

void proxy_abandon(struct way *w, struct http_conn *c, const struct http_request *r)
{
	struct lane *lane = has_reader(w) ? lane_of(w, c) : http_conn_data(c);

	if (lane && lane->refused != r->accepted_ns)
		tell_refused(w, c, r, RECORD_ABANDONED, 0, ERROR_NONE, 0);
	if (lane) {
		lane->queued_ns = 0;
		lane_picked(w, lane);
	}
}

/* The error that the client saw, if any. */
static enum metrics_error error_of(const struct record *r)
{
	if (r->client_left || r->error != ERROR_NONE)
		return r->client_left ? ERROR_NONE : r->error;
	if (r->status > 0 && r->status < 400)
		return ERROR_NONE;
	return r->status == 0 || r->status >= 500 || retry_status(r->status) ? ERROR_BACKEND
									     : ERROR_NOT_RETRYABLE;
}

/* -- one request -- */

/* False: answered already, there is no memory. */
static bool begin(struct exchange *x, struct way *w, struct http_conn *c, struct http_request *r)
{
	/* Not the texts and the big arrays: who fills them needs no zeros before. */
	memset(x, 0, offsetof(struct exchange, failure.why));
	x->failure.why[0] = x->failure.detail[0] = '\0';
	x->key.level = ROUTE_KEY_NONE;
	x->way = w;
	x->conn = c;
	x->req = r;
	x->leg = &x->first;
	x->lane = lane_of(w, c);
	if (!x->lane) {
		(void)http_reply_error(c, 503, "server_error", "Retry-After: 1\r\n",
				       "out of memory");
		return false;
	}
	x->fleet = fleet_get(w->fleet);
	x->now = r->body_ns;
	x->deadline = r->accepted_ns + w->cfg->request_timeout;
	x->rec = (struct record){
		.to = &w->watch,
		.stripe = x->lane->stripe,
		.route = route_of(r->head.path),
		.head = &r->head,
		.body = r->body,
		.key = &x->key,
		.trace = &x->trace,
		.fleet = x->fleet,
		.time = {.accepted = r->accepted_ns,
			 .queued = x->lane->queued_ns,
			 .head = r->head_ns,
			 .body = r->body_ns},
		.tokens = PD_TOKENS_UNKNOWN,
		.why = x->failure.why,
		.told = "",
		.who = http_conn_who(c),
		.scratch = &x->lane->scratch,
	};
	x->lane->queued_ns = 0;
	x->repeatable = x->rec.route != ROUTE_OTHER || span_eq(r->head.method, SPAN("GET")) ||
			span_eq(r->head.method, SPAN("HEAD"));
	find_id(x);
	find_trace(x);
	return true;
}

static void finish(struct exchange *x)
{
	struct record *rec = &x->rec;
	char peer[NET_ADDR_TEXT];

	/* Also when it was not noticed before: it is no error of ours. */
	rec->client_left |= !x->started && http_conn_client_left(x->conn);
	if (rec->client_left && !x->started)
		http_conn_abort(x->conn, false);
	rec->error = error_of(rec);
	rec->model = x->model;
	rec->told = rec->status >= 400 ? http_conn_told(x->conn) : "";
	if (x->way->cfg->access_log) {
		http_conn_peer(x->conn, peer);
		rec->peer = span_of(peer);
	}
	if (rec->time.ended == 0)
		rec->time.ended = clock_now();
	lane_picked(x->way, x->lane);
	pick_describe(x);
	record_ended(rec);
	for (int r = 0; r < ROLES; r++) {
		PD_CHECK(!x->pick[r].counted && !x->pick[r].decoding);
		if (x->pick[r].shadow_runs)
			shadow_end(x, (enum worker_role)r);
		free(x->pick[r].tried);
		free(x->pick[r].explain.worker);
	}
	PD_CHECK(!x->handing);
	free(x->block);
	render_release(&x->rendered);
	buf_release(&x->utf8);
	model_release(x);
	if (rec->json)
		json_object_release(&x->body);
	fleet_put(x->fleet);
	buf_clear(&x->lane->up);
	shelf_give(&x->lane->up);
	buf_clear(&x->lane->beside);
	shelf_give(&x->lane->beside);
	shrink(&x->lane->head);
	shrink(&x->lane->side);
	shrink(&x->lane->held);
	shrink(&x->lane->prefill);
}

/* To the workers. */
static void go(struct exchange *x)
{
	bool pd = x->way->cfg->pd, embeds = x->rec.route == ROUTE_EMBEDDINGS;

	x->follows = x->rec.route == ROUTE_RESPONSES ||
		     (x->rec.route == ROUTE_OTHER && follow_path(x->req->head.path));
	/* What an id stands for is with the decode worker that answered, and with no prefill
	 * worker.
	 */
	x->alone = x->follows && (follow_pin(x) || x->rec.route != ROUTE_RESPONSES);
	if (pd && !embeds && pdflow_takes(x)) {
		attempt_run(x, pdflow_attempt);
		return;
	}
	x->role = !pd ? ROLE_REGULAR : embeds && !x->alone ? ROLE_PREFILL : ROLE_DECODE;
	attempt_run(x, regular_attempt);
}

static void run(struct way *w, struct http_conn *c, struct http_request *r, bool probe)
{
	struct metrics *m = w->watch.metrics;
	struct exchange x;

	if (!begin(&x, w, c, r))
		return;
	if (probe)
		x.rec.route = ROUTE_OTHER; /* no client asked for tokens */
	metrics_count(m, x.rec.stripe, METRIC_RECEIVED, x.rec.route, 1);
	metrics_observe(m, x.rec.stripe, HIST_QUEUE, x.rec.time.queued);
	if (r->body.n > 0)
		metrics_count(m, x.rec.stripe, METRIC_BYTES_IN, x.rec.route, r->body.n);
	retry_budget_earn(&w->budget);
	x.rec.number = capture_begin(w->watch.capture);
	read_body(&x);
	model_alias(&x);
	find_key(&x);
	if (may_pass(&x) && model_admit(&x))
		go(&x);
	r->body = x.rec.body;
	finish(&x);
}

void proxy_serve(struct way *w, struct http_conn *c, struct http_request *r)
{
	run(w, c, r, false);
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

void proxy_generate(struct way *w, struct http_conn *c, struct http_request *r)
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
	run(w, c, r, true);
	swap_request(r, &o);
}

void proxy_models(struct way *w, struct http_conn *c, struct http_request *r)
{
	struct span target = r->head.target, path = r->head.path;
	struct exchange x;

	if (!begin(&x, w, c, r))
		return;
	/* Workers know it by its long name only. */
	if (span_eq(path, SPAN("/models")))
		r->head.target = r->head.path = SPAN("/v1/models");
	models_ask_all(&x);
	r->head.target = target;
	r->head.path = path;
	fleet_put(x.fleet);
}
