/*
 * The worker's answer on its way to the client.
 *
 * Short answers are complete before their first byte goes out, and a stream's head waits for its
 * first event, so that as many failures as possible can still be repaired by another attempt. Of a
 * stream only whole events are passed on: when the worker dies, the client gets an error event and
 * a proper end instead of half a sentence. In the usual case (whole chunks that hold whole events)
 * the bytes go through as they came: one recv, one send, no copy.
 */
#include "lib/router/way/relay.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/http/sse.h"
#include "lib/router/fleet/veil.h"
#include "lib/router/way/exchange.h"
#include "lib/router/way/heads.h"

#define RELAY_HOLD_MAX                                                                             \
	(1u << 20) /* answers up to this length are complete before their first byte */
#define MERGE_JSON_MAX (8u << 20) /* answers whose usage is merged */
#define RELAY_IOV      4
#define SETTLE_EVENTS  8
#define COMMENT_MAX    512 /* of a comment line that overtakes the event around it */

struct relay {
	struct exchange *x;
	struct leg *leg;
	const struct pd_prefill_usage *merge;
	bool sse;
	bool chunked;	/* we send chunks */
	bool mid_event; /* part of an event was passed on: no error event can follow */
	char last;	/* with mid_event: the last byte of that part */
	bool client_gone;
	bool settled;
	int64_t now;
};

/* May this piece of an answer end with its usage? A look at the last bytes, for most pieces of a
 * stream: "...}}" closes an object in the event, and the last event of a stream may bring the one
 * before it along. */
static bool may_tell_tokens(const struct relay *r, const char *p, size_t n)
{
	if (!r->sse)
		return n > 2;
	while (n > 0 && (p[n - 1] == '\n' || p[n - 1] == '\r' || p[n - 1] == ' ' ||
			 (p[n - 1] == '0' && n > 1 && p[n - 2] == '\n')))
		n--;
	if (n < 2)
		return false;
	if (p[n - 1] == '}')
		return p[n - 2] == '}' ||
		       (p[n - 2] == '"' && n >= 7 && memcmp(p + n - 7, "_stop\"}", 7) == 0);
	return p[n - 1] == ']' && n >= 6 && memcmp(p + n - 6, "[DONE]", 6) == 0;
}

/* What a worker's error says, for the log: the text behind the first "message" or "detail" of its
 * body as it stands there, quotes escaped; else the body's beginning. */
static void tell(struct http_conn *c, struct span body)
{
	static const char *const names[] = {"\"message\"", "\"detail\""};
	const char *end = body.p + body.n, *p = NULL, *q;

	for (size_t i = 0; !p && i < 2; i++)
		if ((p = memmem(body.p, body.n, names[i], strlen(names[i]))))
			p += strlen(names[i]);
	while (p && p < end && (*p == ' ' || *p == ':'))
		p++;
	if (p && p < end && *p == '"') {
		for (q = ++p; q < end && *q != '"'; q += 1 + (*q == '\\' && q + 1 < end))
			;
		body = (struct span){p, (size_t)(q - p)};
	}
	http_conn_tell(c, body);
}

/* Sends iov[1..n); iov[0] is free for the head, which goes out with the first bytes. */
static bool emit(struct relay *r, struct iovec *iov, size_t n)
{
	struct exchange *x = r->x;
	bool first = !x->started;
	int err;

	if (first)
		iov[0] = (struct iovec){.iov_base = x->lane->head.data,
					.iov_len = x->lane->head.len};
	x->started = true;
	x->rec.status = r->leg->call.head.status;
	if (first && x->rec.status >= 400 && n > 1)
		tell(x->conn,
		     (struct span){iov[n > 2 ? 2 : 1].iov_base, iov[n > 2 ? 2 : 1].iov_len});
	err = stream_send_iov(http_conn_stream(x->conn), first ? iov : iov + 1, first ? n : n - 1,
			      x->way->cfg->write_stall_timeout, NULL);
	if (err == PD_ETIMEOUT) {
		metrics_count(x->way->watch.metrics, x->rec.stripe, METRIC_WRITE_STALLS,
			      x->rec.route, 1);
		(void)snprintf(x->failure.why, sizeof(x->failure.why),
			       "the client read nothing for %.1f s",
			       (double)x->way->cfg->write_stall_timeout / (double)NS_PER_S);
	}
	for (size_t i = 1; i < n; i++)
		if (may_tell_tokens(r, iov[i].iov_base, iov[i].iov_len))
			pd_usage_tokens(&x->rec.tokens, iov[i].iov_base, iov[i].iov_len);
	r->client_gone = err != PD_OK;
	return !r->client_gone;
}

static bool emit_plain(struct relay *r, const char *p, size_t n)
{
	struct iovec iov[2] = {{0}, {.iov_base = (void *)(uintptr_t)p, .iov_len = n}};

	return emit(r, iov, 2);
}

static bool emit_chunk(struct relay *r, const char *p, size_t n, bool last)
{
	char size[24];
	struct iovec iov[RELAY_IOV];

	if (!r->chunked)
		return n == 0 || emit_plain(r, p, n);
	iov[1] = (struct iovec){.iov_base = size,
				.iov_len = (size_t)snprintf(size, sizeof(size), "%zx\r\n", n)};
	iov[2] = (struct iovec){.iov_base = (void *)(uintptr_t)p, .iov_len = n};
	iov[3] = (struct iovec){.iov_base = (void *)(uintptr_t)(last ? "\r\n0\r\n\r\n" : "\r\n"),
				.iov_len = last ? 7 : 2};
	return emit(r, iov, 4);
}

static bool emit_end(struct relay *r)
{
	return !r->chunked || emit_plain(r, "0\r\n\r\n", 5);
}

/* Events in whole events: counted by their empty lines. */
static uint64_t count_events(const char *p, size_t n)
{
	const char *end = p + n;
	uint64_t events = 0;

	while ((p = memchr(p, '\n', (size_t)(end - p))) && ++p < end) {
		if (*p == '\n' || (*p == '\r' && p + 1 < end && p[1] == '\n'))
			events++;
	}
	return events;
}

/* Bytes came from the worker, and those that make whole events went to the client: times and
 * counts. */
static void account(struct relay *r, uint64_t events, size_t bytes)
{
	struct exchange *x = r->x;
	int64_t now = r->now = clock_now();

	/* From the first byte on silence is suspicious. */
	if (!r->leg->call.ended)
		http_call_heard(&r->leg->call, now);
	if (bytes == 0)
		return;
	if (x->rec.time.first == 0) {
		x->rec.time.first = now;
		pick_computed(x, r->leg->pick);
	}
	if (r->sse && events > 0)
		metrics_observe_at(
			x->way->watch.metrics, x->rec.stripe,
			x->rec.events == 0 ? HIST_TTFT : HIST_ITL, r->leg->worker->role,
			now - (x->rec.events == 0 ? x->req->accepted_ns : x->rec.time.last));
	x->rec.time.last = now;
	x->rec.events += events;
	x->rec.bytes += bytes;
}

/* -- merged usage -- */

/* Copies whole events to lane->side, with the usage of "data:" lines merged. */
static int merge_events(struct relay *r, const char *p, size_t n)
{
	struct buf *out = &r->x->lane->side, doc;
	const char *end = p + n, *eol;
	int err = PD_OK;

	buf_clear(out);
	buf_init(&doc, MERGE_EVENT_MAX);
	for (; !err && p < end; p = eol) {
		bool changed = false;
		struct span line;

		eol = memchr(p, '\n', (size_t)(end - p));
		eol = eol ? eol + 1 : end;
		line = (struct span){p, (size_t)(eol - p)};
		if (span_starts(line, SPAN("data:")) && pd_usage_maybe(line.p, line.n)) {
			size_t skip = 5, tail = 0;

			while (skip < line.n && line.p[skip] == ' ')
				skip++;
			while (tail < line.n - skip && (eol[-1 - (ptrdiff_t)tail] == '\n' ||
							eol[-1 - (ptrdiff_t)tail] == '\r'))
				tail++;
			buf_clear(&doc);
			/* A document that cannot be merged is passed on as it is. */
			if (pd_usage_merge(p + skip, line.n - skip - tail, r->merge, &doc,
					   &changed))
				changed = false;
			if (changed) {
				err = buf_append(out, p, skip);
				err = err ? err : buf_append(out, doc.data, doc.len);
				err = err ? err : buf_append(out, eol - tail, tail);
			}
		}
		if (!err && !changed)
			err = buf_append(out, line.p, line.n);
	}
	buf_release(&doc);
	return err;
}

/* -- streams of events -- */

/* Whole events, and comment lines behind them. */
static size_t passable(const char *p, size_t n)
{
	size_t whole = sse_complete(p, n);

	return whole < n && p[whole] == ':' ? whole + sse_comments(p + whole, n - whole) : whole;
}

/* All bytes there are, when they are whole chunks of whole events. Leaves the leg untouched when
 * they are not. */
static bool pass_as_is(struct relay *r)
{
	struct leg *l = r->leg;
	struct http_mark before = http_call_mark(&l->call);
	struct span piece;
	uint64_t events = 0; /* counted in the data: chunk framing has line ends of its own */
	bool whole = true; /* every chunk: the end of one may lie about a line of the one before */
	int err;

	/* Inside a chunk: its data has been passed on in a chunk of ours, and the rest of its
	 * framing must not follow. */
	if (!http_chunked_at_boundary(&before.chunked) || r->mid_event || r->x->learns)
		return false;
	if (!r->chunked || l->call.head.body != HTTP_BODY_CHUNKED || r->x->lane->held.len > 0 ||
	    (r->merge && pd_usage_maybe(l->call.in->data + before.at, l->call.in->len - before.at)))
		return false;
	while (leg_piece(l, &piece, &err)) {
		events += count_events(piece.p, piece.n);
		whole = whole && passable(piece.p, piece.n) == piece.n;
	}
	if (err || !whole || l->call.chunked.extras ||
	    !(l->call.ended ? l->call.at == l->call.in->len
			    : http_chunked_at_boundary(&l->call.chunked))) {
		http_call_rewind(&l->call, &before);
		return false;
	}
	if (l->call.at == before.at)
		return true; /* only the head is here: it waits for the first event */
	if (emit_plain(r, l->call.in->data + before.at, l->call.at - before.at))
		account(r, events, l->call.at - before.at);
	return true;
}

/*
 * Length of the whole events and comment lines at the front of `held`. With a part of an event
 * passed on before, `held` does not begin with a line: a first line end that stands alone there
 * closes an empty line only behind another line end, of which it may also be the second half.
 */
static size_t whole_events(const struct relay *r, const struct buf *held)
{
	const char *p = held->data;
	size_t n = held->len == 0 ? 0
		   : r->mid_event ? sse_complete(p, held->len)
				  : passable(p, held->len);
	bool alone = n == 1 || (n == 2 && p[0] == '\r' && p[1] == '\n');

	if (!r->mid_event)
		return n;
	if (!alone)
		return n > 0 ? n + sse_comments(p + n, held->len - n) : 0;
	if (r->last != '\n' && (r->last != '\r' || p[0] == '\n'))
		return 0;
	return n;
}

/* Whole comment lines inside the event that begins at `at` move in front of it: readers skip them
 * wherever they stand, and who sends one wants it to arrive now. The new beginning of the event. */
static size_t lift_comments(struct buf *held, size_t at)
{
	char line[COMMENT_MAX], *p = held->data;
	size_t from = at;

	for (;;) {
		const char *lf = memmem(p + from, held->len - from, "\n:", 2), *end;
		size_t start, n;

		if (!lf)
			return at;
		start = (size_t)(lf - p) + 1;
		end = memchr(p + start, '\n', held->len - start);
		if (!end)
			return at;
		n = (size_t)(end - p) + 1 - start;
		from = start + n - 1;
		if (n > sizeof(line))
			continue;
		memcpy(line, p + start, n);
		memmove(p + at + n, p + at, start - at);
		memcpy(p + at, line, n);
		at += n;
	}
}

/* Passes on the whole events at the front of `held`; everything when the stream ended or an event
 * is too large to hold. */
static void pass_held(struct relay *r, bool ended)
{
	struct buf *held = &r->x->lane->held;
	size_t n = whole_events(r, held);
	const char *p = held->data;
	size_t len;

	if (n > 0)
		r->mid_event = false;
	if (n < held->len && !r->mid_event)
		n = lift_comments(held, n);
	if (n < held->len && (ended || held->len - n > MERGE_EVENT_MAX)) {
		n = held->len;
		r->mid_event = !ended;
		r->last = p[n - 1];
	}
	len = n;
	if (r->x->learns)
		follow_learn_events(r->x, (struct span){p, n});
	if (n > 0 && r->merge && pd_usage_maybe(p, n) && merge_events(r, p, n) == PD_OK) {
		p = r->x->lane->side.data;
		len = r->x->lane->side.len;
	}
	if (n > 0 ? emit_chunk(r, p, len, ended) : !ended || emit_end(r))
		account(r, n > 0 ? count_events(p, len) : 0, len);
	buf_consume(held, n);
}

static int pump_events(struct relay *r)
{
	struct span piece;
	int err;

	if (pass_as_is(r))
		return PD_OK;
	while (leg_piece(r->leg, &piece, &err)) {
		err = buf_append(&r->x->lane->held, piece.p, piece.n);
		if (err)
			return err;
	}
	/* The events before a fault came whole. */
	if (r->leg->call.ended || r->x->lane->held.len > 0)
		pass_held(r, !err && r->leg->call.ended);
	return err;
}

/* -- other bodies -- */

/* All bytes there are, when they are whole chunks with nothing in them but data: extensions end at
 * this hop, and trailers could name what only we name. Leaves the leg untouched when they are not.
 */
static bool pass_chunks(struct relay *r)
{
	struct leg *l = r->leg;
	struct http_mark before = http_call_mark(&l->call);
	struct span piece;
	int err;

	if (!http_chunked_at_boundary(&before.chunked))
		return false;
	while (leg_piece(l, &piece, &err))
		continue;
	if (err || l->call.chunked.extras ||
	    !(l->call.ended || http_chunked_at_boundary(&l->call.chunked))) {
		http_call_rewind(&l->call, &before);
		return false;
	}
	if (l->call.at > before.at &&
	    emit_plain(r, l->call.in->data + before.at, l->call.at - before.at))
		account(r, 0, l->call.at - before.at);
	return true;
}

/* The data in one chunk of ours. */
static int pump_chunks(struct relay *r)
{
	struct buf *held = &r->x->lane->held;
	struct leg *l = r->leg;
	struct span piece;
	int err;

	if (pass_chunks(r))
		return PD_OK;
	while (leg_piece(l, &piece, &err)) {
		err = buf_append(held, piece.p, piece.n);
		if (err)
			return err;
	}
	if (err)
		return err;
	if (held->len > 0 ? emit_chunk(r, held->data, held->len, l->call.ended)
			  : !l->call.ended || emit_end(r))
		account(r, 0, held->len);
	buf_clear(held);
	return PD_OK;
}

static int pump_bytes(struct relay *r)
{
	struct leg *l = r->leg;
	struct span piece;
	int err;

	if (l->call.head.body == HTTP_BODY_CHUNKED && r->chunked)
		return pump_chunks(r);
	while (leg_piece(l, &piece, &err) && !r->client_gone)
		if (r->chunked ? emit_chunk(r, piece.p, piece.n, false)
			       : emit_plain(r, piece.p, piece.n))
			account(r, 0, piece.n);
	return err;
}

/* -- ends -- */

static enum relay_end client_left(struct relay *r)
{
	r->x->rec.client_left = true;
	http_conn_wrote(r->x->conn, false);
	return RELAY_CLIENT_LEFT;
}

/* The worker failed. A stream that stands between two events gets an error event and its end;
 * anything else is cut visibly. */
static enum relay_end worker_failed(struct relay *r, int err)
{
	struct exchange *x = r->x;
	char text[1024], said[VEIL_MAX], fault[HTTP_FAULT_TEXT];
	int n;

	if (http_conn_client_left(x->conn))
		return client_left(r);
	(void)http_fault_text(&r->leg->call.fault, fault);
	(void)snprintf(
		x->failure.why, sizeof(x->failure.why), "worker %.150s %s%s%s", r->leg->worker->url,
		err == PD_EPROTO	     ? "sent a malformed answer"
		: err != PD_ETIMEOUT	     ? "ended its answer early"
		: clock_now() >= x->deadline ? "did not finish within the time limit of a request"
					     : "stalled in the middle of its answer",
		err != PD_ETIMEOUT && fault[0] ? ": " : "", err != PD_ETIMEOUT ? fault : "");
	x->failure.status = err == PD_ETIMEOUT ? 504 : 502;
	if (!x->started)
		return RELAY_RETRY;
	metrics_count(x->way->watch.metrics, x->rec.stripe, METRIC_STREAM_ERRORS, x->rec.route, 1);
	log_event(x->way->cfg->log, LOG_WARN, "stream_cut",
		  LOG_FIELDS(LOG_SPAN("request_id", x->rec.id),
			     LOG_TEXT("worker", r->leg->worker->url),
			     LOG_TEXT("reason", x->failure.why),
			     LOG_NUMBER("events", x->rec.events),
			     LOG_NUMBER("bytes", x->rec.bytes)),
		  "stream cut: request=%.*s %s after %llu events, %llu bytes", (int)x->rec.id.n,
		  x->rec.id.p, x->failure.why, (unsigned long long)x->rec.events,
		  (unsigned long long)x->rec.bytes);
	if (!r->sse || r->mid_event || r->leg->call.head.body == HTTP_BODY_LENGTH) {
		http_conn_abort(x->conn, true);
		return RELAY_CUT;
	}
	n = snprintf(text, sizeof(text),
		     "data: "
		     "{\"error\":{\"message\":\"%.300s\",\"type\":\"upstream_error\",\"param\":"
		     "null,\"code\":%d}}\n\n",
		     veil(x->fleet, x->way->cfg->expose_workers, x->failure.why, said),
		     x->failure.status);
	http_conn_wrote(x->conn, emit_chunk(r, text, (size_t)n, true) && r->chunked);
	return RELAY_CUT;
}

/* A stream that has gone on for some events will go on: what the request needed on its way here is
 * given back. */
static void settle(struct relay *r)
{
	r->settled = true;
	buf_release(&r->x->lane->head);
	loop_trim_stack();
}

static int more(struct relay *r)
{
	ssize_t n;

	if (!r->settled && r->x->rec.events >= SETTLE_EVENTS)
		settle(r);
	if (r->now > r->x->deadline)
		return PD_ETIMEOUT;
	n = leg_more(r->leg);
	return n < 0 ? (int)n : PD_OK;
}

static enum relay_end stream(struct relay *r)
{
	struct exchange *x = r->x;
	struct leg *l = r->leg;
	bool length = l->call.head.body == HTTP_BODY_LENGTH;
	int err;

	r->chunked = !length && x->req->head.minor >= 1;
	if (head_frame(&x->lane->head, x, length ? (size_t)l->call.head.length : HEAD_CHUNKED))
		return worker_failed(r, PD_ENOMEM);
	for (;;) {
		err = r->sse && !length ? pump_events(r) : pump_bytes(r);
		if (r->client_gone)
			return client_left(r);
		if (err || l->call.ended)
			break;
		err = more(r);
		if (err)
			break;
		if (l->call.ended && l->call.at == l->call.in->len &&
		    l->call.head.body == HTTP_BODY_CLOSE) {
			/* The end by closing: what is held goes out, then our own end. */
			if (r->sse)
				pass_held(r, true);
			else if (!emit_end(r))
				r->client_gone = true;
			if (r->client_gone)
				return client_left(r);
			break;
		}
	}
	if (err)
		return worker_failed(r, err);
	/* Nothing was sent yet when the body was empty. */
	if (!x->started &&
	    !(r->chunked && l->call.head.body != HTTP_BODY_CHUNKED ? emit_end(r)
								   : emit_plain(r, "", 0)))
		return client_left(r);
	http_conn_wrote(x->conn, length || r->chunked);
	return RELAY_DONE;
}

/* -- answers that are complete before they are passed on -- */

static enum relay_end send_whole(struct relay *r, const char *p, size_t n)
{
	struct exchange *x = r->x;

	if (x->learns)
		follow_learn(x, (struct span){p, n});
	if (head_frame(&x->lane->head, x, n))
		return worker_failed(r, PD_ENOMEM);
	if (!emit_plain(r, p, n))
		return client_left(r);
	account(r, 0, n);
	x->rec.time.ended = r->now;
	http_conn_wrote(x->conn, true);
	return RELAY_DONE;
}

static enum relay_end whole(struct relay *r)
{
	struct span body;
	int err = leg_whole(r->leg, &body);

	return err ? worker_failed(r, err) : send_whole(r, body.p, body.n);
}

/* With the usage merged, or for what is to be learnt from an answer of unknown length. */
static enum relay_end collected(struct relay *r)
{
	struct buf body, doc;
	enum relay_end end;
	bool changed = false;
	int err;

	/* An answer without Content-Length may turn out larger than what is merged. */
	buf_init(&body, PREFILL_MAX);
	buf_init(&doc, 2 * MERGE_JSON_MAX);
	err = leg_collect(r->leg, &body);
	if (!err && r->merge && body.len <= MERGE_JSON_MAX &&
	    pd_usage_merge(body.data, body.len, r->merge, &doc, &changed))
		changed = false; /* not a JSON document: passed on as it is */
	if (err)
		end = worker_failed(r, err);
	else
		end = send_whole(r, changed ? doc.data : body.data, changed ? doc.len : body.len);
	buf_release(&body);
	buf_release(&doc);
	return end;
}

static bool type_is(const struct field *f, struct span type)
{
	return f && f->value.n >= type.n && strncasecmp(f->value.p, type.p, type.n) == 0;
}

enum relay_end relay_answer(struct exchange *x, struct leg *l, const struct pd_prefill_usage *merge)
{
	const struct field *type = http_field_tag(&l->call.head, HTTP_CONTENT_TYPE);
	bool plain = !http_field_tag(&l->call.head, HTTP_CONTENT_ENCODING),
	     known = l->call.head.body == HTTP_BODY_LENGTH;
	struct relay r = {
		.x = x, .leg = l, .merge = plain && l->call.head.status == 200 ? merge : NULL};

	r.sse = plain && type_is(type, SPAN("text/event-stream"));
	buf_clear(&x->lane->held);
	if (head_for_client(&x->lane->head, x, &l->call.head))
		return worker_failed(&r, PD_ENOMEM);
	if (l->call.head.body == HTTP_BODY_NONE) {
		bool silent = l->call.head.status == 204 || l->call.head.status == 304 ||
			      span_eq(x->req->head.method, SPAN("HEAD"));

		if (head_frame(&x->lane->head, x, silent ? HEAD_NO_BODY : 0))
			return worker_failed(&r, PD_ENOMEM);
		if (!emit_plain(&r, "", 0))
			return client_left(&r);
		http_conn_wrote(x->conn, true);
		return RELAY_DONE;
	}
	/* Contents of files may be of any length; what a POST answers has its end. */
	if (!r.sse &&
	    (r.merge || (x->learns && plain && span_eq(x->req->head.method, SPAN("POST")))) &&
	    type_is(type, SPAN("application/json")) &&
	    (!known || l->call.head.length <= MERGE_JSON_MAX))
		return collected(&r);
	if (known && l->call.head.length <= RELAY_HOLD_MAX)
		return whole(&r);
	return stream(&r);
}
