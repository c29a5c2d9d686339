/*
 * The decode worker's client: one small POST at a time over kept connections, so that thousands of
 * hand-overs per second do not use up the ports. A kept connection that turns out to be closed
 * before any answer is replaced once: reading twice is safe only because a closed connection has
 * not read anything (the server answers before it closes).
 */
#include "sim/worker/kvclient.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/http/head.h"
#include "lib/net/stream.h"

#define IDLE_MAX     64
#define IDLE_LIFE_NS (2 * NS_PER_S)
#define HEAD_MAX     8192

struct idle {
	char host[256];
	uint16_t port;
	struct stream *stream; /* of the loop that opened it */
	int64_t since;
};

struct kv_pool {
	struct tls_context *tls; /* NULL: plain HTTP */
	pthread_mutex_t lock;
	struct idle idle[IDLE_MAX];
	size_t n;
};

struct kv_pool *kv_pool_new(struct tls_context *tls)
{
	struct kv_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->tls = tls;
	(void)pthread_mutex_init(&p->lock, NULL);
	return p;
}

void kv_pool_free(struct kv_pool *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->n; i++)
		stream_free(p->idle[i].stream);
	(void)pthread_mutex_destroy(&p->lock);
	free(p);
}

/* The most recent idle connection of this loop to this worker, or NULL. Those that are too old are
 * closed on the way. */
static struct stream *take_idle(struct kv_pool *p, const char *host, uint16_t port)
{
	int64_t now = clock_now();
	struct stream *found = NULL;

	(void)pthread_mutex_lock(&p->lock);
	for (size_t i = p->n; i-- > 0 && !found;) {
		struct idle *k = &p->idle[i];
		bool mine = k->port == port && k->stream->loop == loop_self() &&
			    strcmp(k->host, host) == 0;

		if (!mine && now - k->since < IDLE_LIFE_NS)
			continue;
		if (mine && now - k->since < IDLE_LIFE_NS && stream_idle_ok(k->stream))
			found = k->stream;
		else
			stream_free(k->stream);
		*k = p->idle[--p->n];
	}
	(void)pthread_mutex_unlock(&p->lock);
	return found;
}

static void put_idle(struct kv_pool *p, const char *host, uint16_t port, struct stream *s)
{
	struct idle *k;

	(void)pthread_mutex_lock(&p->lock);
	if (p->n < IDLE_MAX && strlen(host) < sizeof(k->host)) {
		k = &p->idle[p->n++];
		(void)snprintf(k->host, sizeof(k->host), "%s", host);
		k->port = port;
		k->stream = s;
		k->since = clock_now();
		s = NULL;
	}
	(void)pthread_mutex_unlock(&p->lock);
	stream_free(s);
}

static int send_request(struct stream *s, const char *host, uint16_t port, const char *path,
			struct span body, int64_t deadline)
{
	char head[1024];
	int n = snprintf(head, sizeof(head),
			 "POST %s HTTP/1.1\r\nHost: %s:%u\r\nContent-Type: "
			 "application/json\r\nContent-Length: %zu\r\n\r\n",
			 path, host, port, body.n);
	struct iovec iov[2] = {{.iov_base = head, .iov_len = (size_t)n},
			       {.iov_base = (void *)(uintptr_t)body.p, .iov_len = body.n}};

	if (n < 0 || (size_t)n >= sizeof(head))
		return PD_ETOOBIG;
	return stream_send_iov(s, iov, 2, deadline - clock_now(), NULL);
}

/* One recv appended to `in`. */
static int receive(struct stream *s, struct buf *in)
{
	int err = buf_reserve(in, 4096);
	ssize_t n;

	if (err)
		return err;
	n = stream_recv(s, in->data + in->len, 4096);
	if (n <= 0)
		return n == 0 ? PD_ECLOSED : (int)n;
	in->len += (size_t)n;
	in->data[in->len] = '\0';
	return PD_OK;
}

/* Reads an answer with a Content-Length. */
static int read_answer(struct stream *s, struct buf *in, struct http_head *h, struct buf *answer)
{
	size_t scanned = 0;
	int err = PD_EAGAIN;

	while (err == PD_EAGAIN) {
		err = receive(s, in);
		if (!err)
			err = http_response_parse(h, in->data, in->len, &scanned, false);
	}
	if (err)
		return err;
	if (h->body != HTTP_BODY_LENGTH || h->length > answer->max)
		return PD_EPROTO;
	while (!err && in->len < h->len + h->length)
		err = receive(s, in);
	return err ? err : buf_append(answer, in->data + h->len, (size_t)h->length);
}

static int shake_hands(const struct kv_pool *p, struct stream *s, const char *host,
		       int64_t deadline)
{
	struct tls_peer *peer = tls_peer_new(host);
	int err = peer ? stream_tls_connect(s, p->tls, peer, deadline, NULL) : PD_ENOMEM;

	tls_peer_free(peer);
	return err;
}

static int connect_to(const struct kv_pool *p, const char *host, uint16_t port, int64_t deadline,
		      struct stream **out)
{
	struct net_addr addr;
	int err = net_resolve(&addr, host, port, NULL);

	*out = NULL;
	err = err ? err : stream_new(out, &addr);
	err = err ? err : stream_connect(*out, &addr, deadline);
	err = err || !p->tls ? err : shake_hands(p, *out, host, deadline);
	if (err) {
		stream_free(*out);
		*out = NULL;
	}
	return err;
}

/* Takes the stream over. */
static int exchange(struct kv_pool *p, struct stream *s, const char *host, uint16_t port,
		    const char *path, struct span body, int64_t deadline, int *status,
		    struct buf *answer, bool *silent)
{
	struct http_head *h = calloc(1, sizeof(*h));
	struct buf in;
	int err;

	s->deadline = deadline;
	err = h ? send_request(s, host, port, path, body, deadline) : PD_ENOMEM;
	buf_init(&in, HTTP_HEAD_MAX + answer->max);
	if (!err)
		err = read_answer(s, &in, h, answer);
	*silent = in.len == 0;
	if (!err)
		*status = h->status;
	if (!err && h->keep_alive && in.len == h->len + h->length)
		put_idle(p, host, port, s);
	else
		stream_free(s);
	buf_release(&in);
	if (h)
		http_head_release(h);
	free(h);
	return err;
}

int kv_pool_post(struct kv_pool *p, const char *host, uint16_t port, const char *path,
		 struct span body, int64_t deadline, int *status, struct buf *answer)
{
	struct stream *s = take_idle(p, host, port);
	bool silent;
	int err;

	if (s) {
		err = exchange(p, s, host, port, path, body, deadline, status, answer, &silent);
		if (err != PD_ECLOSED || !silent)
			return err;
		buf_clear(answer);
	}
	err = connect_to(p, host, port, deadline, &s);
	return err ? err
		   : exchange(p, s, host, port, path, body, deadline, status, answer, &silent);
}
