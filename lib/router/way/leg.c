/*
 * One conversation with a worker: take a connection, send, read the head, hand out the body, give
 * the connection back.
 *
 * While it lasts its stream is published, so a client that leaves ends it at once. A pooled
 * connection that turns out dead is replaced once, and only if not one byte of the answer came.
 */
#include <string.h>

#include "lib/base/clock.h"
#include "lib/net/shelf.h"
#include "lib/router/way/exchange.h"

#define INFORMATIONAL_MAX 8
#define LEG_IOV_MAX	  48

const char *leg_error_text(enum leg_error e)
{
	static const char *const texts[] = {
		"ok",
		"cannot connect",
		"closed the connection without an answer",
		"did not answer in time",
		"sent a malformed or cut answer",
		"client left",
		"out of memory or descriptors",
	};

	return texts[e];
}

static void count(_Atomic uint64_t *n)
{
	atomic_fetch_add_explicit(n, 1, memory_order_relaxed);
}

/* From now on the client's leaving ends every wait. */
static bool publish(struct leg *l, struct exchange *x)
{
	return http_conn_publish(x->conn, l->up) || x->detached;
}

static void drop(struct leg *l, struct exchange *x)
{
	(void)http_conn_withdraw(x->conn);
	stream_free(l->up);
	l->up = NULL;
}

/* TLS with a worker. What is wrong with its certificate is worth a line and goes to the client. */
static int shake_hands(struct leg *l, struct exchange *x, int64_t deadline)
{
	struct pd_msg why = {0};
	int err = stream_tls_connect(l->up, x->rt->cfg.worker_tls, l->worker->peer, deadline, &why);

	if (!err || err == PD_ENOMEM)
		return err ? PD_EIO : PD_OK;
	if (http_conn_client_left(x->conn) && !x->detached)
		return err;
	explain_tls(x, l->worker, why.text);
	return err;
}

static enum leg_error connect_fresh(struct leg *l, struct exchange *x)
{
	int64_t begun = clock_now(), deadline = begun + x->rt->cfg.connect_timeout;
	struct net_addr a;
	int err;

	worker_address(l->worker, &a);
	err = stream_new(&l->up, &a);
	if (err)
		return LEG_LOCAL;
	if (!publish(l, x)) {
		drop(l, x);
		return LEG_CLIENT_LEFT;
	}
	err = stream_connect(l->up, &a, deadline);
	if (!err && l->worker->peer)
		err = shake_hands(l, x, deadline);
	if (!err) {
		count(&l->worker->connects);
		metrics_observe_at(&x->rt->metrics, x->lane->stripe, HIST_CONNECT, l->worker->role,
				   clock_now() - begun);
		return LEG_OK;
	}
	drop(l, x);
	if (http_conn_client_left(x->conn) && !x->detached)
		return LEG_CLIENT_LEFT;
	if (err == PD_EIO)
		return LEG_LOCAL;
	count(&l->worker->connect_failures);
	return LEG_CONNECT;
}

/* A pooled connection. One that was in use a moment ago is trusted, unless the request may not be
 * sent again when the trust was wrong. */
static bool from_pool(struct leg *l, const struct exchange *x)
{
	while ((l->up = http_pool_get(&l->worker->pool, clock_now()))) {
		if (x->repeatable || stream_idle_ok(l->up))
			return true;
		http_pool_end(&l->worker->pool, l->up);
	}
	return false;
}

static enum leg_error take_connection(struct leg *l, struct exchange *x, bool fresh)
{
	l->reused = !fresh && from_pool(l, x);
	if (!l->reused)
		return connect_fresh(l, x);
	count(&l->worker->reused);
	return publish(l, x) ? LEG_OK : LEG_CLIENT_LEFT;
}

void leg_limit(struct leg *l, const struct exchange *x, int64_t deadline)
{
	/* The whole request has its own limit, also while this step is within its. */
	l->up->deadline = deadline < x->deadline ? deadline : x->deadline;
}

bool leg_end(struct leg *l, struct exchange *x)
{
	bool left;

	http_head_release(&l->head);
	if (!l->up)
		return http_conn_client_left(x->conn);
	left = http_conn_withdraw(x->conn) && !x->detached;
	if (l->ended && l->head.keep_alive && l->at == l->in->len && !left && !l->unsent)
		http_pool_put(&l->worker->pool, l->up, clock_now());
	else
		http_pool_end(&l->worker->pool, l->up);
	l->up = NULL;
	return left;
}

/* A head from the bytes so far. PD_EAGAIN: more must come. Skips informational answers. */
static int parse_head(struct leg *l, struct exchange *x, size_t *scanned, unsigned *informational)
{
	bool is_head = span_eq(x->req->head.method, SPAN("HEAD"));
	int err;

	for (;;) {
		err = http_response_parse(&l->head, l->in->data, l->in->len, scanned, is_head);
		if (err || l->head.status >= 200)
			return err;
		if (l->head.status == 101 || ++*informational > INFORMATIONAL_MAX)
			return PD_EPROTO;
		buf_consume(l->in, l->head.len);
		*scanned = 0;
	}
}

static enum leg_error no_bytes(const struct leg *l, struct exchange *x, ssize_t n, bool some)
{
	const char *why = stream_why(l->up);

	if (http_conn_client_left(x->conn) && !x->detached)
		return LEG_CLIENT_LEFT;
	if (n == PD_ETIMEOUT)
		return LEG_TIMEOUT;
	/* With TLS 1.3 a worker that refuses our certificate says so only now. */
	if (why[0])
		explain_tls(x, l->worker, why);
	return some ? LEG_BROKEN : LEG_CLOSED;
}

/* Room to receive into: a lent buffer first, one of our own that grows when answers fill it. */
static int make_room(struct leg *l)
{
	struct buf *in = l->in;

	if (!in->data)
		return shelf_take(in);
	if (l->filled && in->len == 0 && in->cap < RELAY_BUFFER_MAX) {
		l->filled = false;
		return buf_reserve(in, in->cap * 2 - 1);
	}
	return in->cap - 1 - in->len >= RELAY_BUFFER / 2 ? PD_OK : buf_reserve(in, RELAY_BUFFER);
}

static enum leg_error read_head(struct leg *l, struct exchange *x)
{
	unsigned informational = 0;
	size_t scanned = 0;
	ssize_t n;
	int err;

	buf_clear(l->in);
	do {
		n = stream_await(l->up);
		if (!n && make_room(l))
			return LEG_LOCAL;
		if (!n)
			n = stream_recv(l->up, l->in->data + l->in->len,
					l->in->cap - 1 - l->in->len);
		if (n <= 0)
			return no_bytes(l, x, n, l->in->len > 0 || informational > 0);
		l->in->len += (size_t)n;
		err = parse_head(l, x, &scanned, &informational);
	} while (err == PD_EAGAIN);
	if (err)
		return LEG_BROKEN;
	l->head_ns = clock_now();
	leg_limit(l, x, l->head_ns + x->rt->cfg.inter_token_timeout);
	l->at = l->head.len;
	l->left = l->head.length;
	l->ended = l->head.body == HTTP_BODY_NONE ||
		   (l->head.body == HTTP_BODY_LENGTH && l->left == 0);
	http_chunked_init(&l->chunked);
	return LEG_OK;
}

static enum leg_error talk(struct leg *l, struct exchange *x, const struct iovec *iov, size_t n,
			   int64_t first_byte)
{
	struct iovec copy[LEG_IOV_MAX];
	int err;

	if (n > LEG_IOV_MAX)
		return LEG_LOCAL;
	memcpy(copy, iov, n * sizeof(*iov));
	l->sent_ns = clock_now();
	leg_limit(l, x, l->sent_ns + first_byte);
	err = stream_send_iov(l->up, copy, n, x->rt->cfg.write_stall_timeout, NULL);
	/* A worker that refuses a body may close while we send: its answer may be there all the
	 * same. */
	l->unsent = err != PD_OK;
	if (err == PD_ETIMEOUT)
		return LEG_TIMEOUT;
	return read_head(l, x);
}

enum leg_error leg_exchange(struct leg *l, struct exchange *x, struct worker *w, struct buf *in,
			    const struct iovec *iov, size_t n, int64_t first_byte)
{
	enum leg_error e;

	l->worker = w;
	l->in = in;
	l->ended = l->unsent = l->filled = false;
	for (bool fresh = false;; fresh = true) {
		e = take_connection(l, x, fresh);
		if (e == LEG_OK)
			e = talk(l, x, iov, n, first_byte);
		if (e != LEG_CLOSED || !l->reused || !x->repeatable || l->once)
			return e;
		(void)leg_end(l, x);
		count(&w->stale);
		metrics_count(&x->rt->metrics, x->lane->stripe, METRIC_STALE, x->route, 1);
	}
}

ssize_t leg_more(struct leg *l)
{
	ssize_t n;
	int err;

	if (l->at == l->in->len) {
		l->filled = l->in->len > 0 && l->in->len + 1 == l->in->cap;
		l->at = l->in->len = 0;
	}
	/* Whoever waits with nothing in hand keeps no buffer: hundreds of streams share a few. */
	if (l->in->len == 0 && !l->up->readable)
		shelf_give(l->in);
	err = stream_await(l->up);
	err = err ? err : make_room(l);
	if (err)
		return err;
	n = stream_recv(l->up, l->in->data + l->in->len, l->in->cap - 1 - l->in->len);
	if (n > 0)
		l->in->len += (size_t)n;
	return n;
}

static void piece_of_length(struct leg *l, struct span *piece)
{
	size_t n = l->in->len - l->at;

	if (l->head.body == HTTP_BODY_LENGTH && n > l->left)
		n = (size_t)l->left;
	*piece = (struct span){l->in->data + l->at, n};
	l->at += n;
	if (l->head.body == HTTP_BODY_LENGTH) {
		l->left -= n;
		l->ended = l->left == 0;
	}
}

bool leg_piece(struct leg *l, struct span *piece, int *err)
{
	size_t used;

	*err = PD_OK;
	*piece = (struct span){0};
	while (!l->ended && l->at < l->in->len) {
		if (l->head.body != HTTP_BODY_CHUNKED) {
			piece_of_length(l, piece);
			return true;
		}
		*err = http_chunked_feed(&l->chunked, l->in->data + l->at, l->in->len - l->at,
					 &used, piece);
		if (*err)
			return false;
		l->at += used;
		l->ended = l->chunked.done;
		if (piece->n > 0)
			return true;
	}
	return false;
}

/* No more bytes: the proper end of a body that lasts until the connection closes, or a failure. */
static int end_or_error(struct leg *l, ssize_t n)
{
	if (n == 0 && l->head.body == HTTP_BODY_CLOSE) {
		l->ended = true;
		return PD_OK;
	}
	return n == 0 ? PD_ECLOSED : (int)n;
}

int leg_collect(struct leg *l, struct exchange *x, struct buf *out)
{
	struct span piece;
	ssize_t n;
	int err;

	while (!l->ended) {
		while (leg_piece(l, &piece, &err)) {
			err = buf_append(out, piece.p, piece.n);
			if (err)
				return err;
		}
		if (err || l->ended)
			return err;
		n = leg_more(l);
		if (n <= 0) {
			err = end_or_error(l, n);
			if (err)
				return err;
		} else {
			leg_limit(l, x, clock_now() + x->rt->cfg.inter_token_timeout);
		}
	}
	return PD_OK;
}
