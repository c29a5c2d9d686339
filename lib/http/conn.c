/*
 * One connection, from the first byte to the last: read a request, hand it to the handler, go on or
 * end.
 *
 * The usual request arrives in one packet: then it costs one recv here and nothing else. When a
 * head or body comes in pieces the deadlines are absolute (a limit per call would be defeated by
 * one byte per interval).
 */
#include "lib/http/conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/net/shelf.h"

#define READ_STEP   8192
#define FIT_SLACK   8192	    /* an input buffer may be so much larger than its request */
#define TLS_LOG_NS  (NS_PER_S / 10) /* failed handshakes make a line this often at most */
#define LINGER_STEP (5 * NS_PER_S)  /* silence that ends a lingering close */
#define LINGER_MAX  (10 * NS_PER_S)

/* READ_DONE: like READ_END, but nothing was under way. */
enum read_result { READ_OK, READ_END, READ_DONE, READ_NOTHING };

static void count(_Atomic uint64_t *n)
{
	atomic_fetch_add_explicit(n, 1, memory_order_relaxed);
}

/* -- TLS -- */

static void log_handshake(struct http_conn *c, const char *why)
{
	struct http_server *s = c->server;
	int64_t now = clock_now(),
		last = atomic_load_explicit(&s->last_tls_log, memory_order_relaxed);
	char peer[80];

	if (!log_wants(s->cfg.log, LOG_INFO) || now - last < TLS_LOG_NS ||
	    !atomic_compare_exchange_strong(&s->last_tls_log, &last, now))
		return;
	net_peer_text(c->io.fd, peer, sizeof(peer));
	log_event(s->cfg.log, LOG_INFO, "tls_handshake_failed",
		  LOG_FIELDS(LOG_TEXT("client", peer), LOG_TEXT("error", why)),
		  "TLS handshake with %s failed: %s", peer, why);
}

/* As nginx and others do: a person with the wrong scheme sees why nothing works. */
static void answer_plain(struct http_conn *c)
{
	static const char body[] = "This port speaks HTTPS: use https:// instead of http://\n";
	char text[300];
	int n = snprintf(text, sizeof(text),
			 "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
			 "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
			 sizeof(body) - 1, body);

	(void)!stream_send(&c->io, text, (size_t)n, c->server->cfg.write_stall_ns);
}

/* The first bytes of a connection. The handshake has as long as a request head. */
static bool shake_hands(struct http_conn *c)
{
	struct http_server *s = c->server;
	struct pd_msg why = {0};
	bool plain = false;
	int err = stream_tls_accept(&c->io, s->cfg.tls, clock_now() + s->cfg.head_timeout_ns,
				    &plain, &why);

	if (!err) {
		count(&s->tls_handshakes);
		if (tls_resumed(c->io.tls))
			count(&s->tls_resumed);
		return true;
	}
	count(&s->tls_failures);
	log_handshake(c, why.text);
	if (plain)
		answer_plain(c);
	/* With TLS 1.3 a client whose certificate is refused has sent its request already. */
	c->drain_input = err == PD_EPROTO;
	return false;
}

/* -- reading -- */

/* The buffer of the request: just large enough, and kept when it nearly fits, so that the usual
 * request costs no allocation and a waiting one little memory. */
static int fit(struct buf *in, size_t n)
{
	if (in->cap > n && in->cap - n <= FIT_SLACK)
		return PD_OK;
	buf_release(in);
	return buf_reserve(in, n);
}

/* First bytes of a request, if there are any. */
static enum read_result read_first(struct http_conn *c)
{
	struct buf *in = &c->work->in, lent;
	enum read_result result = READ_OK;
	ssize_t n;

	if (!c->io.readable)
		return READ_NOTHING;
	buf_init(&lent, SHELF_BYTES);
	if (shelf_take(&lent))
		return READ_END;
	n = stream_recv_now(&c->io, lent.data, lent.cap - 1);
	if (n == PD_EAGAIN)
		result = READ_NOTHING;
	else if (n <= 0)
		result = READ_DONE;
	else if (fit(in, (size_t)n) || buf_append(in, lent.data, (size_t)n))
		result = READ_END;
	else
		c->fresh = false;
	shelf_give(&lent);
	return result;
}

/* Room for more; the capacity grows with what has arrived, and to no more than `rest` needs when
 * that is little. When a head, or the beginning of one, moves with the buffer its spans are found
 * again at once: a refusal looks at them too. */
static int make_room(struct http_conn *c, size_t rest)
{
	struct buf *in = &c->work->in;
	size_t few = rest < READ_STEP ? rest : READ_STEP, left = in->max - in->len, scanned = 0,
	       step = few < READ_STEP || in->len < READ_STEP ? few : in->len;
	uintptr_t before = (uintptr_t)in->data;
	int err;

	if (in->cap - in->len > few)
		return PD_OK;
	if ((in->len < SHELF_BYTES / 2 || !shelf_grow(in, READ_STEP)) &&
	    buf_reserve(in, step < left ? step : left))
		return PD_ENOMEM;
	if ((uintptr_t)in->data == before)
		return PD_OK;
	err = http_request_parse(&c->work->req.head, in->data, in->len, &scanned);
	return err == PD_EAGAIN ? PD_OK : err;
}

/* More bytes before the deadline; `rest` is how many are missing, SIZE_MAX: unknown. */
static ssize_t read_more(struct http_conn *c, size_t rest, int64_t deadline)
{
	ssize_t n = make_room(c, rest);

	if (n)
		return n;
	if (c->work->in.cap - 1 == c->work->in.len)
		return PD_ETOOBIG;
	c->io.deadline = deadline;
	n = stream_recv(&c->io, c->work->in.data + c->work->in.len,
			c->work->in.cap - 1 - c->work->in.len);
	if (n > 0)
		c->work->in.len += (size_t)n;
	else if (n == PD_ETIMEOUT)
		count(&c->server->read_timeouts);
	return n;
}

static enum read_result refuse(struct http_conn *c, int status, const char *why)
{
	count(&c->server->bad_requests);
	c->close_after = true;
	c->drain_input = true;
	if (c->extra.n == 0 && c->server->cfg.own_lines)
		c->extra = c->server->cfg.own_lines(c->server->cfg.ctx, &c->work->req.head);
	(void)http_reply_error(c, status, "invalid_request_error", NULL, "%s", why);
	if (c->server->cfg.on_refuse)
		c->server->cfg.on_refuse(c->server->cfg.ctx, c,
					 c->work->req.head.len > 0 ? &c->work->req : NULL, status);
	return READ_END;
}

static enum read_result read_head(struct http_conn *c)
{
	struct http_request *r = &c->work->req;
	int64_t deadline = 0;
	size_t scanned = 0;
	ssize_t n;
	int err;

	r->accepted_ns = clock_now();
	c->work->told[0] = '\0';
	c->work->who = NULL;
	while ((err = http_request_parse(&r->head, c->work->in.data, c->work->in.len, &scanned)) ==
	       PD_EAGAIN) {
		if (deadline == 0)
			deadline = r->accepted_ns + c->server->cfg.head_timeout_ns;
		n = read_more(c, SIZE_MAX, deadline);
		if (n == PD_ETIMEOUT)
			return refuse(c, 408, "the request head did not arrive in time");
		if (n <= 0)
			return READ_END;
	}
	if (err)
		return refuse(c, r->head.refuse ? r->head.refuse : 400,
			      r->head.why ? r->head.why : "bad request");
	r->head_ns = r->accepted_ns;
	r->body_ns = 0;
	return READ_OK;
}

static int64_t body_deadline(const struct http_conn *c, size_t got)
{
	const struct http_server_config *cfg = &c->server->cfg;
	int64_t earned = cfg->body_min_rate ? (int64_t)(got / cfg->body_min_rate) * NS_PER_S : 0;

	return c->work->req.head_ns + cfg->body_grace_ns + earned;
}

static enum read_result body_failed(struct http_conn *c, ssize_t n)
{
	if (n == PD_ETIMEOUT)
		return refuse(c, 408, "the request body did not arrive in time");
	if (n == PD_ENOMEM || n == PD_ETOOBIG)
		return refuse(c, 413, "the request body is too large");
	return READ_END;
}

static enum read_result read_body_length(struct http_conn *c)
{
	size_t at = c->work->req.head.len, length = (size_t)c->work->req.head.length;
	ssize_t n;

	while (c->work->in.len - at < length) {
		n = read_more(c, length - (c->work->in.len - at),
			      body_deadline(c, c->work->in.len - at));
		if (n <= 0)
			return body_failed(c, n);
	}
	c->work->req.body.n = length;
	return READ_OK;
}

/* Decodes in place: the payload moves down over the framing, what follows the body moves down
 * behind it. */
static enum read_result read_body_chunked(struct http_conn *c)
{
	size_t at = c->work->req.head.len, raw = at, body = 0, used;
	struct http_chunked chunked;
	struct span piece;
	ssize_t n;

	http_chunked_init(&chunked);
	while (!chunked.done) {
		if (raw == c->work->in.len) {
			c->work->in.len = raw = at + body;
			n = read_more(c, SIZE_MAX, body_deadline(c, body));
			if (n <= 0)
				return body_failed(c, n);
		}
		if (http_chunked_feed(&chunked, c->work->in.data + raw, c->work->in.len - raw,
				      &used, &piece))
			return refuse(c, 400, "malformed chunked body");
		/* What is announced counts too: a body that will be refused is not waited for. */
		if (body + piece.n + http_chunked_rest(&chunked) > c->server->cfg.max_body)
			return refuse(c, 413, "the request body is too large");
		if (piece.n > 0)
			memmove(c->work->in.data + at + body, piece.p, piece.n);
		body += piece.n;
		raw += used;
	}
	memmove(c->work->in.data + at + body, c->work->in.data + raw, c->work->in.len - raw);
	c->work->in.len -= raw - at - body;
	c->work->req.body.n = body;
	return READ_OK;
}

static enum read_result read_body(struct http_conn *c)
{
	struct http_request *r = &c->work->req;
	enum read_result result = READ_OK;

	r->body.n = 0;
	if (r->head.expect_continue && c->work->in.len == r->head.len &&
	    r->head.body != HTTP_BODY_NONE &&
	    stream_send(&c->io, "HTTP/1.1 100 Continue\r\n\r\n", 25, c->server->cfg.write_stall_ns))
		return READ_END;
	if (r->head.body == HTTP_BODY_LENGTH)
		result = read_body_length(c);
	else if (r->head.body == HTTP_BODY_CHUNKED)
		result = read_body_chunked(c);
	r->body.p = c->work->in.data + r->head.len;
	return result;
}

static enum read_result admit(struct http_conn *c)
{
	struct http_request *r = &c->work->req;

	if (r->head.body == HTTP_BODY_LENGTH && r->head.length > c->server->cfg.max_body)
		return refuse(c, 413, "the request body is larger than this server accepts");
	if (!c->server->cfg.on_head)
		return READ_OK;
	/* A refusal leaves the body unread, so it must say that the connection ends. */
	c->close_after = true;
	if (c->server->cfg.on_head(c->server->cfg.ctx, c, r) == 0) {
		c->close_after = false;
		return READ_OK;
	}
	c->drain_input = r->head.body != HTTP_BODY_NONE;
	return READ_END;
}

static enum read_result read_request(struct http_conn *c)
{
	enum read_result result = c->work->in.len > 0 ? READ_OK : read_first(c);
	size_t had;

	c->started = c->complete = c->chunked_out = false;
	c->extra = (struct span){0};
	if (result == READ_OK)
		result = read_head(c);
	if (result == READ_OK)
		result = admit(c);
	if (result != READ_OK)
		return result;
	if (c->work->req.head.body == HTTP_BODY_NONE) {
		c->work->req.body = (struct span){c->work->in.data + c->work->req.head.len, 0};
		return READ_OK;
	}
	c->work->req.head_ns = c->server->cfg.on_head ? clock_now() : c->work->req.accepted_ns;
	had = c->work->in.len;
	result = read_body(c);
	/* The usual body came with its head. */
	if (c->work->in.len == had)
		c->work->req.body_ns = c->work->req.head_ns;
	if (result != READ_OK && c->server->cfg.on_abandon)
		c->server->cfg.on_abandon(c->server->cfg.ctx, c, &c->work->req);
	return result;
}

/* After an early answer: a reset would destroy the reply, so say "no more" and let the peer finish,
 * within bounds. */
static void linger(struct http_conn *c)
{
	int64_t now = clock_now(), end = now + LINGER_MAX;
	char *waste = malloc(65536);

	stream_goodbye(&c->io);
	(void)shutdown(c->io.fd, SHUT_WR);
	while (waste && (now = clock_now()) < end) {
		int64_t step = now + LINGER_STEP;

		c->io.deadline = step < end ? step : end;
		if (stream_recv(&c->io, waste, 65536) <= 0)
			break;
	}
	free(waste);
}

/* A fiber keeps a small input buffer for its next request; a larger one is for all to take. */
static void put_away(struct http_work *w)
{
	if (w->in.cap >= SHELF_BYTES)
		shelf_give(&w->in);
}

static void handle(struct http_conn *c)
{
	struct http_server *s = c->server;

	if (c->work->req.body_ns == 0)
		c->work->req.body_ns = clock_now();
	s->cfg.on_request(s->cfg.ctx, c, &c->work->req);
	if (!c->started)
		(void)http_reply_error(c, 500, "server_error", NULL,
				       "the request was not answered");
	if (c->client_left && !c->complete)
		count(&s->left);
}

static bool goes_on(const struct http_conn *c)
{
	return c->complete && !c->close_after && c->work->req.head.keep_alive && !c->client_left;
}

/* READ_OK: the last one was answered, and the connection does not go on. */
static enum read_result serve_requests(struct http_conn *c)
{
	struct http_work *t = c->work;
	enum read_result result;

	while ((result = read_request(c)) == READ_OK) {
		handle(c);
		if (!goes_on(c))
			break;
		buf_consume(&t->in, t->req.head.len + t->req.body.n);
		put_away(t);
	}
	return result;
}

bool conn_serve(struct http_conn *c, struct http_work *t)
{
	enum read_result result;

	PD_CHECK(!c->work && !c->idle && c->io.fd >= 0);
	c->work = t;
	c->close_after = c->drain_input = false;
	if (c->server->cfg.tls && !c->io.tls && !shake_hands(c))
		result = READ_END;
	else
		result = serve_requests(c);
	if (c->drain_input)
		linger(c);
	else if (result == READ_DONE || (result == READ_OK && c->complete))
		stream_goodbye(&c->io);
	buf_clear(&t->in);
	put_away(t);
	c->work = NULL;
	return result != READ_NOTHING;
}

void work_init(struct http_work *w, struct http_server *s, unsigned lane)
{
	*w = (struct http_work){.server = s, .lane = lane};
	buf_init(&w->in, s->cfg.max_body + 2 * HTTP_HEAD_MAX);
}

void work_release(struct http_work *w)
{
	if (w->data_release)
		w->data_release(w->data);
	buf_release(&w->in);
	http_head_release(&w->req.head);
}

/* -- small accessors -- */

void http_conn_set_extra(struct http_conn *c, struct span lines)
{
	c->extra = lines;
}

struct span http_conn_extra(const struct http_conn *c)
{
	return c->extra;
}

void http_conn_peer(const struct http_conn *c, char text[NET_ADDR_TEXT])
{
	net_peer_addr(c->io.fd, text);
}

struct stream *http_conn_stream(struct http_conn *c)
{
	return &c->io;
}

void http_conn_wrote(struct http_conn *c, bool complete)
{
	c->started = true;
	c->complete = complete;
}

bool http_conn_closing(const struct http_conn *c)
{
	return c->close_after || !c->work->req.head.keep_alive || atomic_load(&c->server->draining);
}

void http_conn_set_data(struct http_conn *c, void *data, void (*release)(void *))
{
	c->work->data = data;
	c->work->data_release = release;
}

void *http_conn_data(const struct http_conn *c)
{
	return c->work->data;
}

unsigned http_conn_lane(const struct http_conn *c)
{
	return c->work->lane;
}

void http_conn_abort(struct http_conn *c, bool hard)
{
	struct linger reset = {.l_onoff = 1, .l_linger = 0};

	if (hard)
		(void)setsockopt(c->io.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	else
		(void)shutdown(c->io.fd, SHUT_RDWR);
	c->started = true;
	c->complete = false;
	c->drain_input = false;
}
