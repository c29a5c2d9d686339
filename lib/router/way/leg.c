/*
 * The body's functions are wrapped for one reason: the read of an answer's last byte
 * ends the worker's part, and no caller needs to be told. A detached request goes on although
 * its client has left.
 */
#include "lib/router/way/leg.h"

#include "lib/net/shelf.h"
#include "lib/router/way/exchange.h"

static int address_of(void *ctx, int64_t deadline, struct net_addrs *out, struct pd_msg *why)
{
	(void)deadline;
	(void)why; /* is for TLS */
	return worker_addresses(ctx, out, NULL);
}

static void connected(void *ctx, const struct net_addr *a)
{
	worker_prefer(ctx, a);
}

struct http_target leg_target(const struct router_config *cfg, struct worker *w)
{
	return (struct http_target){.pool = &w->pool,
				    .tls = w->peer ? cfg->worker_tls : NULL,
				    .name = w->peer,
				    .address = address_of,
				    .connected = connected,
				    .ctx = w};
}

void leg_count(struct exchange *x, struct worker *w, const struct http_call *c,
	       enum http_call_result r, const struct pd_msg *why)
{
	if (c->open_ns > 0)
		metrics_observe_at(x->way->watch.metrics, x->rec.stripe, HIST_CONNECT, w->role,
				   c->open_ns);
	if (c->stale)
		metrics_count(x->way->watch.metrics, x->rec.stripe, METRIC_STALE, x->rec.route, 1);
	/* What is wrong with its certificate is worth a line and goes to the client. */
	if (why->text[0] && r != HTTP_CALL_CANCELED && r != HTTP_CALL_LOCAL)
		failure_tls(x, w, why->text);
}

static enum http_call_result begin(struct leg *l, struct exchange *x, struct worker *w,
				   struct buf *in, const struct iovec *iov, size_t n,
				   int64_t first_byte, struct pd_msg *why)
{
	const struct router_config *cfg = x->way->cfg;
	struct http_call *c = &l->call;

	l->x = x;
	l->worker = w;
	c->to = leg_target(cfg, w);
	c->in = in;
	c->of = x->detached ? NULL : x->conn;
	c->limit = (struct http_limits){.connect = cfg->connect_timeout,
					.send = cfg->write_stall_timeout,
					.first_byte = first_byte,
					.between = cfg->inter_token_timeout};
	c->deadline = x->deadline;
	c->is_head = span_eq(x->req->head.method, SPAN("HEAD"));
	c->repeat = x->repeatable && !l->once;
	c->probe = !x->repeatable || c->in_two;
	c->count_sent = &w->requests;
	return http_call_begin(c, iov, n, why);
}

/* What the call came to. */
static enum leg_error counted(struct leg *l, enum http_call_result r, const struct pd_msg *why)
{
	struct exchange *x = l->x;
	struct http_call *c = &l->call;

	leg_count(x, l->worker, c, r, why);
	if (l->pick) {
		l->pick->sent = c->sent_ns && r != HTTP_CALL_CONNECT;
		/* The peer may have closed an idle connection before it saw the request. */
		l->pick->again = !l->pick->sent || (r == HTTP_CALL_CLOSED && c->reused);
	}
	if (r == HTTP_CALL_OK)
		metrics_observe_at(x->way->watch.metrics, x->rec.stripe, HIST_LEG, l->worker->role,
				   c->head_ns - c->sent_ns);
	return (enum leg_error)r;
}

enum leg_error leg_exchange(struct leg *l, struct exchange *x, struct worker *w, struct buf *in,
			    const struct iovec *iov, size_t n, int64_t first_byte)
{
	struct pd_msg why;
	enum http_call_result r = begin(l, x, w, in, iov, n, first_byte, &why);

	return counted(l, r, &why);
}

enum leg_error leg_send(struct leg *l, struct exchange *x, struct worker *w, struct buf *in,
			const struct iovec *iov, size_t n, int64_t first_byte)
{
	enum http_call_result r;
	struct pd_msg why;

	l->call.in_two = true;
	r = begin(l, x, w, in, iov, n, first_byte, &why);
	if (r != HTTP_CALL_OK)
		return counted(l, r, &why);
	if (l->pick)
		l->pick->sent = true;
	return LEG_OK;
}

enum leg_error leg_answer(struct leg *l)
{
	struct pd_msg why;
	enum http_call_result r = http_call_answer(&l->call, &why);

	return counted(l, r, &why);
}

/* Bytes of the body came, or its end. */
static void heard(struct leg *l)
{
	if (l->first)
		l->first(l->x);
	l->first = NULL;
	if (l->call.ended && l->pick)
		pick_release(l->x, l->pick);
}

bool leg_piece(struct leg *l, struct span *piece, int *err)
{
	bool some = http_call_piece(&l->call, piece, err);

	if (some || l->call.ended)
		heard(l);
	return some;
}

ssize_t leg_more(struct leg *l)
{
	ssize_t n = http_call_more(&l->call);

	if (n == 0)
		heard(l);
	return n;
}

int leg_collect(struct leg *l, struct buf *out)
{
	int err = http_call_collect(&l->call, out);

	if (!err)
		heard(l);
	return err;
}

int leg_whole(struct leg *l, struct span *body)
{
	int err = http_call_whole(&l->call, body);

	if (!err)
		heard(l);
	return err;
}

bool leg_end(struct leg *l)
{
	bool left = http_call_end(&l->call);

	/* A request that backs off or waits for a worker keeps no buffer. */
	if (l->call.in) {
		buf_clear(l->call.in);
		shelf_give(l->call.in);
	}
	return left;
}
