/*
 * Which workers there are to read from is what requests say, so the table of them is bounded: the
 * one that was used longest ago makes room. When all are in use a call has a connection of its own.
 */
#include "sim/worker/kvclient.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/http/client.h"
#include "lib/net/resolver.h"
#include "lib/net/shelf.h"

#define PEERS_MAX    64
#define IDLE_MAX     64 /* connections to one of them */
#define IDLE_LIFE_NS (2 * NS_PER_S)
#define TRIM_NS	     NS_PER_S

struct kv_peer {
	char host[256];
	uint16_t port;
	struct http_pool pool;
	struct tls_peer *name; /* NULL: plain HTTP */
	unsigned users;	       /* this and the next under the lock */
	int64_t used;
	bool listed;
};

struct kv_client {
	struct tls_context *tls; /* NULL: plain HTTP */
	struct resolver *resolver;
	pthread_mutex_t lock;
	struct kv_peer *peer[PEERS_MAX]; /* owned */
	size_t n;
	int64_t next_trim;
};

struct kv_client *kv_client_new(struct tls_context *tls)
{
	struct kv_client *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->tls = tls;
	(void)pthread_mutex_init(&k->lock, NULL);
	if (resolver_new(&k->resolver) == PD_OK)
		return k;
	(void)pthread_mutex_destroy(&k->lock);
	free(k);
	return NULL;
}

static void peer_free(struct kv_peer *p)
{
	http_pool_release(&p->pool);
	tls_peer_free(p->name);
	free(p);
}

void kv_client_free(struct kv_client *k)
{
	if (!k)
		return;
	for (size_t i = 0; i < k->n; i++)
		peer_free(k->peer[i]);
	resolver_free(k->resolver);
	(void)pthread_mutex_destroy(&k->lock);
	free(k);
}

/* -- peers -- */

static struct kv_peer *peer_new(const struct kv_client *k, const char *host, uint16_t port)
{
	struct kv_peer *p = strlen(host) < sizeof(p->host) ? calloc(1, sizeof(*p)) : NULL;

	if (!p)
		return NULL;
	(void)snprintf(p->host, sizeof(p->host), "%s", host);
	p->port = port;
	p->name = k->tls ? tls_peer_new(host) : NULL;
	if ((!k->tls || p->name) && http_pool_init(&p->pool, IDLE_MAX, IDLE_LIFE_NS) == PD_OK)
		return p;
	tls_peer_free(p->name);
	free(p);
	return NULL;
}

/* Into the table, in the place of the one that was used longest ago when it is full. */
static void list(struct kv_client *k, struct kv_peer *p)
{
	size_t at = k->n;

	if (k->n == PEERS_MAX) {
		for (size_t i = 0; i < k->n; i++)
			if (k->peer[i]->users == 0 &&
			    (at == k->n || k->peer[i]->used < k->peer[at]->used))
				at = i;
		if (at == k->n)
			return;
		peer_free(k->peer[at]);
	} else {
		k->n++;
	}
	k->peer[at] = p;
	p->listed = true;
}

/* The peer with a user more; NULL: out of memory, or the name is too long. */
static struct kv_peer *take_peer(struct kv_client *k, const char *host, uint16_t port, int64_t now)
{
	struct kv_peer *p = NULL;

	(void)pthread_mutex_lock(&k->lock);
	for (size_t i = 0; i < k->n; i++) {
		if (now >= k->next_trim)
			http_pool_trim(&k->peer[i]->pool, now);
		if (k->peer[i]->port == port && strcmp(k->peer[i]->host, host) == 0)
			p = k->peer[i];
	}
	if (now >= k->next_trim)
		k->next_trim = now + TRIM_NS;
	if (!p) {
		p = peer_new(k, host, port);
		if (p)
			list(k, p);
	}
	if (p) {
		p->users++;
		p->used = now;
	}
	(void)pthread_mutex_unlock(&k->lock);
	return p;
}

static void drop_peer(struct kv_client *k, struct kv_peer *p)
{
	bool last;

	(void)pthread_mutex_lock(&k->lock);
	last = --p->users == 0 && !p->listed;
	(void)pthread_mutex_unlock(&k->lock);
	if (last)
		peer_free(p);
}

/* -- the address of one -- */

struct where {
	struct kv_client *client;
	const struct kv_peer *peer;
	struct http_conn *conn;
};

/* The handler sleeps; when its client has left, which ends that, it looks again soon. */
static bool sleep_on(void *who, int64_t deadline)
{
	int64_t soon = clock_now() + 5 * NS_PER_MS;

	if (!http_conn_sleep(who, deadline))
		return false;
	soon = soon < deadline ? soon : deadline;
	if (loop_fiber())
		(void)loop_wait(soon, true);
	else
		clock_sleep_until(soon);
	return false;
}

static void wake_up(void *who)
{
	http_conn_wake(who);
}

static int find(void *ctx, int64_t deadline, struct net_addrs *out, struct pd_msg *why)
{
	const struct where *w = ctx;
	struct errand_sleeper who = {sleep_on, wake_up, w->conn};

	return resolver_find(w->client->resolver, w->peer->host, w->peer->port, &who, deadline, out,
			     why);
}

/* -- a call -- */

static int error_of(enum http_call_result r)
{
	static const int errors[] = {
		[HTTP_CALL_OK] = PD_OK,		 [HTTP_CALL_CONNECT] = PD_EIO,
		[HTTP_CALL_CLOSED] = PD_ECLOSED, [HTTP_CALL_TIMEOUT] = PD_ETIMEOUT,
		[HTTP_CALL_BROKEN] = PD_EPROTO,	 [HTTP_CALL_CANCELED] = PD_ECANCELED,
		[HTTP_CALL_LOCAL] = PD_ENOMEM,
	};

	return errors[r];
}

int kv_client_post(struct kv_client *k, struct http_conn *c, const char *host, uint16_t port,
		   const char *path, struct span body, int64_t deadline, int *status,
		   struct buf *answer, struct pd_msg *msg)
{
	int64_t now = clock_now(), left = deadline - now;
	struct kv_peer *p = take_peer(k, host, port, now);
	struct where where = {k, p, c};
	struct buf in;
	struct http_call call = {
		.in = &in,
		.limit = {.connect = left, .send = left, .first_byte = left, .between = left},
		.deadline = deadline,
		.repeat = true,
	};
	enum http_call_result r;
	struct pd_msg why;
	char head[1024];
	int n, err;

	if (!p)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	n = snprintf(head, sizeof(head),
		     "POST %s HTTP/1.1\r\nHost: %s:%u\r\nContent-Type: application/json\r\n"
		     "Content-Length: %zu\r\n\r\n",
		     path, host, port, body.n);
	if (n < 0 || (size_t)n >= sizeof(head)) {
		drop_peer(k, p);
		return pd_fail(msg, PD_ETOOBIG, "request head over %zu bytes", sizeof(head));
	}
	call.to = (struct http_target){
		.pool = &p->pool, .tls = k->tls, .name = p->name, .address = find, .ctx = &where};
	buf_init(&in, HTTP_HEAD_MAX + answer->max);
	r = http_call_begin(
		&call,
		(const struct iovec[]){{head, (size_t)n}, {(void *)(uintptr_t)body.p, body.n}}, 2,
		&why);
	err = error_of(r);
	*status = call.head.status;
	if (err)
		(void)pd_fail(msg, err, "%s%s%s", http_call_text(r), why.text[0] ? ": " : "",
			      why.text);
	else if ((err = http_call_collect(&call, answer)))
		(void)pd_fail(msg, err, "the answer ended early: %s", pd_err_text(err));
	(void)http_call_end(&call);
	buf_clear(&in);
	shelf_give(&in);
	buf_release(&in);
	drop_peer(k, p);
	return err;
}
