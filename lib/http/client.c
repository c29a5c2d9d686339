/*
 * One call is straight-line code that reads as if it blocked: take a connection, send, read the
 * head, hand out the body.
 *
 * A connection is watched from birth to close and tried before it is waited for, so a call on a
 * warm connection costs one send and one receive. The receive buffer is lent by the thread and
 * given back whenever the call waits without bytes: hundreds of quiet streams share a few.
 */
#include "lib/http/client.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/net/shelf.h"

#define BLOCK_NS	  (50 * NS_PER_MS) /* a thread waits for an answer in recv, then in poll */
#define INFORMATIONAL_MAX 8
/* An address that does not answer leaves the others half of the time, and is left after this: what
 * a first SYN and its repetition after 1 s (RFC 6298) need. */
#define ADDRESS_NS (2 * NS_PER_S)

const char *http_call_text(enum http_call_result r)
{
	static const char *const texts[] = {
		[HTTP_CALL_OK] = "ok",
		[HTTP_CALL_CONNECT] = "cannot connect",
		[HTTP_CALL_CLOSED] = "closed the connection without a response",
		[HTTP_CALL_TIMEOUT] = "did not respond in time",
		[HTTP_CALL_CUT] = "stopped responding",
		[HTTP_CALL_BROKEN] = "sent a malformed or truncated response",
		[HTTP_CALL_CANCELED] = "the call was canceled",
		[HTTP_CALL_LOCAL] = "this router is out of memory or file descriptors",
	};

	return texts[r];
}

static void count(_Atomic uint64_t *n)
{
	atomic_fetch_add_explicit(n, 1, memory_order_relaxed);
}

static bool is_cut(const struct http_call *c)
{
	return atomic_load_explicit(&c->use.cut, memory_order_relaxed);
}

static bool canceled(const struct http_call *c)
{
	return c->canceled || (c->of && http_conn_client_left(c->of));
}

void http_call_cancel(struct http_call *c)
{
	c->canceled = true;
	if (c->up)
		stream_interrupt(c->up);
}

/* The whole call has its own limit, also while this step is within its. */
static void limit(struct http_call *c, int64_t deadline)
{
	c->up->deadline = deadline < c->deadline ? deadline : c->deadline;
}

void http_call_heard(struct http_call *c, int64_t now)
{
	struct http_use *u = &c->use;
	int64_t before = atomic_load_explicit(&u->heard, memory_order_relaxed),
		gap = now - (before ? before : u->begun);

	u->gap = gap > u->gap ? gap : u->gap;
	atomic_store_explicit(&u->heard, now, memory_order_relaxed);
	limit(c, now + c->limit.between);
}

/* -- the connection -- */

/* From now on a client that leaves ends every wait. */
static bool publish(struct http_call *c)
{
	return !c->canceled && (!c->of || http_conn_publish(c->of, c->up));
}

static void drop(struct http_call *c)
{
	if (c->of)
		(void)http_conn_withdraw(c->of);
	http_use_end(&c->use);
	stream_free(c->up);
	c->up = NULL;
}

static int connect_to(struct http_call *c, const struct net_addr *a, int64_t deadline)
{
	int err = stream_new(&c->up, a);

	if (err)
		return PD_EIO;
	if (!publish(c))
		err = PD_ECANCELED;
	if (!err && c->to.pool)
		http_pool_use(c->to.pool, c->up, clock_now(), &c->use);
	err = err ? err : stream_connect(c->up, a, deadline);
	if (err)
		drop(c);
	return err;
}

/* To the first address that takes the connection, one after the other. */
static int connect_any(struct http_call *c, const struct net_addrs *to, int64_t deadline)
{
	int err = PD_EIO;

	for (unsigned i = 0; i < to->n; i++) {
		int64_t now = clock_now(), share = (deadline - now) / 2;

		share = share < ADDRESS_NS ? share : ADDRESS_NS;
		err = connect_to(c, &to->a[i], i + 1 < to->n ? now + share : deadline);
		if (!err && i > 0 && c->to.connected)
			c->to.connected(c->to.ctx, &to->a[i]);
		if (!err || canceled(c) || is_cut(c))
			break;
	}
	return err;
}

static enum http_call_result connect_new(struct http_call *c, int64_t begun, struct pd_msg *why)
{
	int64_t deadline = begun + c->limit.connect;
	struct net_addrs to;
	int err;

	deadline = deadline < c->deadline ? deadline : c->deadline;
	err = c->to.address(c->to.ctx, deadline, &to, why);
	if (err && canceled(c))
		return HTTP_CALL_CANCELED;
	if (err)
		return err == PD_ETIMEOUT && deadline == c->deadline ? HTTP_CALL_TIMEOUT
								     : HTTP_CALL_CONNECT;
	err = connect_any(c, &to, deadline);
	if (!err && c->to.tls) {
		err = stream_tls_connect(c->up, c->to.tls, c->to.name, deadline, why);
		err = err == PD_ENOMEM ? PD_EIO : err;
	}
	if (!err) {
		stream_may_block(c->up, BLOCK_NS);
		c->open_ns = clock_now() - begun;
		if (c->to.pool)
			count(&c->to.pool->connects);
		return HTTP_CALL_OK;
	}
	if (c->up)
		drop(c);
	if (canceled(c))
		return HTTP_CALL_CANCELED;
	if (is_cut(c))
		return HTTP_CALL_CONNECT;
	if (err == PD_EIO)
		return HTTP_CALL_LOCAL;
	/* Out of time for the whole call: that says nothing about the peer. */
	if (err == PD_ETIMEOUT && deadline == c->deadline)
		return HTTP_CALL_TIMEOUT;
	if (c->to.pool)
		count(&c->to.pool->connect_failures);
	return HTTP_CALL_CONNECT;
}

static enum http_call_result take_connection(struct http_call *c, int64_t now, struct pd_msg *why)
{
	struct http_pool *p = c->to.pool;

	c->reused = false;
	while (p && !c->stale && !c->reused && (c->up = http_pool_get(p, now, &c->use))) {
		c->reused = !c->probe || stream_idle_ok(c->up);
		if (!c->reused)
			http_pool_end(p, c->up, &c->use);
	}
	if (!c->reused)
		return connect_new(c, now, why);
	count(&p->reused);
	return publish(c) ? HTTP_CALL_OK : HTTP_CALL_CANCELED;
}

bool http_call_end(struct http_call *c)
{
	bool left = c->of && (c->up ? http_conn_withdraw(c->of) : http_conn_client_left(c->of));

	http_head_release(&c->head);
	if (!c->up)
		return left;
	if (!c->to.pool)
		stream_free(c->up);
	else if (c->ended && c->head.keep_alive && c->at == c->in->len && !left && !c->canceled &&
		 !c->unsent && !is_cut(c))
		http_pool_put(c->to.pool, c->up,
			      atomic_load_explicit(&c->use.heard, memory_order_relaxed), &c->use);
	else
		http_pool_end(c->to.pool, c->up, &c->use);
	c->up = NULL;
	return left;
}

/* -- the request, and the head of the answer -- */

static void set_fault(struct http_call *c, const char *why, const char *rule, size_t at)
{
	c->fault = (struct http_fault){why, rule, c->passed + at};
}

const char *http_fault_text(const struct http_fault *f, char out[HTTP_FAULT_TEXT])
{
	out[0] = '\0';
	if (f->why)
		(void)snprintf(out, HTTP_FAULT_TEXT, "byte %llu: %s (%s)",
			       (unsigned long long)f->at, f->why, f->rule);
	return out;
}

/* The connection has ended inside the answer. */
static void set_cut(struct http_call *c)
{
	set_fault(c,
		  c->head.body == HTTP_BODY_LENGTH
			  ? "the connection ended before Content-Length bytes"
			  : "the connection ended before the last chunk",
		  "RFC 9112 8", c->in->len);
}

/* A head from the bytes so far. PD_EAGAIN: more must come. Skips informational answers. */
static int parse_head(struct http_call *c, size_t *scanned, unsigned *informational)
{
	int err;

	for (;;) {
		err = http_response_parse(&c->head, c->in->data, c->in->len, scanned, c->is_head);
		if (err && err != PD_EAGAIN)
			set_fault(c, c->head.why, c->head.rule, c->head.at);
		if (err || c->head.status >= 200)
			return err;
		if (++*informational > INFORMATIONAL_MAX) {
			set_fault(c, "too many informational answers", "RFC 9110 15.2", 0);
			return PD_EPROTO;
		}
		c->passed += c->head.len;
		buf_consume(c->in, c->head.len);
		*scanned = 0;
	}
}

static enum http_call_result no_bytes(struct http_call *c, ssize_t n, bool some, struct pd_msg *why)
{
	const char *text = stream_why(c->up);

	if (canceled(c))
		return HTTP_CALL_CANCELED;
	if (is_cut(c))
		return HTTP_CALL_CUT;
	if (n == PD_ETIMEOUT)
		return HTTP_CALL_TIMEOUT;
	/* With TLS 1.3 a peer that refuses our certificate says so only now. */
	if (text[0])
		(void)pd_fail(why, PD_EPROTO, "%s", text);
	if (some)
		set_fault(c, "the connection ended inside the head", "RFC 9112 8", c->in->len);
	return some ? HTTP_CALL_BROKEN : HTTP_CALL_CLOSED;
}

/* Room to receive into: a lent buffer first, one of our own that grows when answers fill it. */
static int make_room(struct http_call *c)
{
	struct buf *in = c->in;

	if (!in->data)
		return shelf_take(in);
	if (c->filled && in->len == 0 && in->cap < HTTP_CALL_BUFFER_MAX) {
		c->filled = false;
		return buf_reserve(in, in->cap * 2 - 1);
	}
	return in->cap - 1 - in->len >= HTTP_CALL_BUFFER / 2 ? PD_OK
							     : buf_reserve(in, HTTP_CALL_BUFFER);
}

static enum http_call_result read_head(struct http_call *c, struct pd_msg *why)
{
	unsigned informational = 0;
	size_t scanned = 0;
	ssize_t n;
	int err;

	buf_clear(c->in);
	do {
		/* A call that waits without bytes holds no buffer, not even that of the call
		 * before. */
		if (c->in->len == 0 && !c->up->readable)
			shelf_give(c->in);
		n = stream_await(c->up);
		if (!n && make_room(c))
			return HTTP_CALL_LOCAL;
		if (!n)
			n = stream_recv(c->up, c->in->data + c->in->len,
					c->in->cap - 1 - c->in->len);
		if (n <= 0)
			return no_bytes(c, n, c->in->len > 0 || informational > 0, why);
		c->in->len += (size_t)n;
		err = parse_head(c, &scanned, &informational);
	} while (err == PD_EAGAIN);
	if (err)
		return HTTP_CALL_BROKEN;
	c->head_ns = clock_now();
	http_call_heard(c, c->head_ns);
	c->at = c->head.len;
	c->left = c->head.length;
	c->ended = c->head.body == HTTP_BODY_NONE ||
		   (c->head.body == HTTP_BODY_LENGTH && c->left == 0);
	http_chunked_init(&c->chunked);
	atomic_store_explicit(&c->use.away, true, memory_order_relaxed);
	return HTTP_CALL_OK;
}

static enum http_call_result talk(struct http_call *c, const struct iovec *iov, size_t n,
				  int64_t now, struct pd_msg *why)
{
	struct iovec copy[HTTP_CALL_IOV_MAX];
	int err;

	if (n > HTTP_CALL_IOV_MAX)
		return HTTP_CALL_LOCAL;
	memcpy(copy, iov, n * sizeof(*iov));
	if (c->sent_ns == 0 && c->count_sent)
		count(c->count_sent);
	c->sent_ns = now;
	limit(c, c->sent_ns + c->limit.first_byte);
	err = stream_send_iov(c->up, copy, n, c->limit.send, NULL);
	/* A peer that refuses a body may close while it is being sent, with its response sent
	 * before. */
	c->unsent = err != PD_OK;
	if (err == PD_ETIMEOUT)
		return HTTP_CALL_TIMEOUT;
	if (c->in_two)
		return c->of && http_conn_withdraw(c->of) ? HTTP_CALL_CANCELED : HTTP_CALL_OK;
	return read_head(c, why);
}

enum http_call_result http_call_answer(struct http_call *c, struct pd_msg *why)
{
	PD_CHECK(c->in_two && c->up);
	if (why)
		why->text[0] = '\0';
	if (!publish(c))
		return HTTP_CALL_CANCELED;
	limit(c, clock_now() + c->limit.first_byte);
	return read_head(c, why);
}

enum http_call_result http_call_begin(struct http_call *c, const struct iovec *iov, size_t n,
				      struct pd_msg *why)
{
	enum http_call_result r;
	int64_t now;

	PD_CHECK(c->in && c->to.address && !c->up);
	c->ended = c->unsent = c->filled = c->stale = false;
	c->use = (struct http_use){0};
	c->open_ns = c->sent_ns = 0;
	c->fault.why = NULL;
	c->passed = 0;
	for (;;) {
		if (why)
			why->text[0] = '\0';
		now = clock_now();
		r = take_connection(c, now, why);
		if (r == HTTP_CALL_OK)
			r = talk(c, iov, n, c->reused ? now : clock_now(), why);
		if (r != HTTP_CALL_CLOSED || !c->reused || !c->repeat || c->in_two)
			return r;
		(void)http_call_end(c);
		count(&c->to.pool->stale);
		c->stale = true;
	}
}

/* -- the body -- */

ssize_t http_call_more(struct http_call *c)
{
	struct buf *in = c->in;
	ssize_t n;
	int err;

	PD_CHECK(c->up && c->at <= in->len);
	atomic_store_explicit(&c->use.away, false, memory_order_relaxed);
	if (c->at == in->len) {
		c->filled = in->len > 0 && in->len + 1 == in->cap;
		c->passed += in->len;
		c->at = in->len = 0;
	}
	/* A call that waits without bytes holds no buffer. */
	if (in->len == 0 && !c->up->readable)
		shelf_give(in);
	err = stream_await(c->up);
	err = err ? err : make_room(c);
	n = err ? err : stream_recv(c->up, in->data + in->len, in->cap - 1 - in->len);
	/* What follows may wait for somebody else: the client, who reads slowly. */
	atomic_store_explicit(&c->use.away, true, memory_order_relaxed);
	if (n > 0)
		in->len += (size_t)n;
	else if (is_cut(c))
		n = PD_ETIMEOUT;
	else if (n == 0 && c->head.body == HTTP_BODY_CLOSE)
		c->ended = true;
	else if (n == 0)
		n = PD_ECLOSED;
	if (n == PD_ECLOSED)
		set_cut(c);
	return n;
}

bool http_call_piece(struct http_call *c, struct span *piece, int *err)
{
	size_t used;

	PD_CHECK(c->at <= c->in->len);
	*err = PD_OK;
	*piece = (struct span){0};
	while (!c->ended && c->at < c->in->len) {
		const char *p = c->in->data + c->at;
		size_t n = c->in->len - c->at;

		if (c->head.body != HTTP_BODY_CHUNKED) {
			if (c->head.body == HTTP_BODY_LENGTH) {
				n = n < c->left ? n : (size_t)c->left;
				c->left -= n;
				c->ended = c->left == 0;
			}
			*piece = (struct span){p, n};
			c->at += n;
			return true;
		}
		*err = http_chunked_feed(&c->chunked, p, n, &used, piece);
		if (*err) {
			c->fault.why = http_chunked_why(&c->chunked, &c->fault.rule);
			c->fault.at = c->passed + c->at + used;
			return false;
		}
		c->at += used;
		c->ended = c->chunked.done;
		if (piece->n > 0)
			return true;
	}
	return false;
}

int http_call_collect(struct http_call *c, struct buf *out)
{
	struct span piece;
	ssize_t n;
	int err;

	for (;;) {
		while (http_call_piece(c, &piece, &err)) {
			err = buf_append(out, piece.p, piece.n);
			if (err)
				return err;
		}
		if (err || c->ended)
			return err;
		n = http_call_more(c);
		if (n < 0)
			return (int)n;
		if (n > 0)
			http_call_heard(c, clock_now());
	}
}

int http_call_whole(struct http_call *c, struct span *body)
{
	struct buf *in = c->in;
	size_t need = c->at + (size_t)c->left;
	ssize_t n;
	int err;

	PD_CHECK(c->up && c->head.body == HTTP_BODY_LENGTH);
	if (in->len < need && need >= in->cap) {
		err = buf_reserve(in, need - in->len);
		if (err)
			return err;
	}
	atomic_store_explicit(&c->use.away, false, memory_order_relaxed);
	while (in->len < need) {
		n = stream_recv(c->up, in->data + in->len, need - in->len);
		if ((n == 0 || n == PD_ECLOSED) && !is_cut(c))
			set_cut(c);
		if (n <= 0)
			return is_cut(c) ? PD_ETIMEOUT : n == 0 ? PD_ECLOSED : (int)n;
		in->len += (size_t)n;
		if (in->len < need)
			http_call_heard(c, clock_now());
	}
	*body = (struct span){in->data + c->at, (size_t)c->left};
	c->at = need;
	c->left = 0;
	c->ended = true;
	return PD_OK;
}
