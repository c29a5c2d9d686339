/*
 * The floor under every proxy of this shape: a relay with two event loops and nothing else.
 *
 *   relay PORT BACKEND_PORT[,BACKEND_PORT...]
 *
 * Each request costs the four system calls that a proxy with plain sockets cannot do without: recv
 * from the client, send to the backend, recv from the backend, send to the client, plus what
 * epoll_wait adds. It reads of a message only where it ends (Content-Length, or the last chunk),
 * takes the backends in turn and keeps its connections to them. No policy, header change, deadline,
 * retry, metric or log: what a router costs above this is what its features cost. For the load of
 * scripts/perf only: no pipelining, no Expect, no answer that ends with its connection.
 *
 * Events are edge-triggered and each socket is registered once. A receive that fills less than its
 * room has emptied the socket, so it is not repeated. While a message cannot be sent its source is
 * not read.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/buf.h"
#include "lib/http/chunk.h"

#define LOOPS	     2
#define BACKENDS_MAX 64
#define HEAD_MAX     16384
#define PIECE	     65536

struct loop;

/* One socket: a client's, or one to a backend. Only its loop touches it once it is registered. */
struct side {
	struct loop *loop;
	struct side *peer; /* the other end of the request in flight, or NULL */
	struct side *next; /* in the list of idle or of dead ones */
	int fd;
	bool client, dead;
	unsigned backend;
	/* The message that is being read from this socket. */
	bool in_body, chunked;
	uint64_t left;
	struct http_chunked chunks;
	struct buf head;   /* its beginning, while the head is not whole */
	struct buf unsent; /* what could not be written to this socket yet */
};

struct loop {
	int epoll;
	unsigned turn;
	struct side *idle[BACKENDS_MAX], *dead;
	char piece[PIECE];
};

static struct loop loops[LOOPS];
static uint16_t backends[BACKENDS_MAX];
static unsigned backend_count;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static struct side *side_new(struct loop *l, int fd, bool client)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
	struct side *s = calloc(1, sizeof(*s));
	int on = 1;

	if (!s)
		fail("calloc");
	*s = (struct side){.loop = l, .fd = fd, .client = client};
	buf_init(&s->head, HEAD_MAX);
	buf_init(&s->unsent, 64u << 20);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	e.data.ptr = s;
	if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &e) != 0)
		fail("epoll_ctl");
	return s;
}

/* Both ends of a request in flight go together. Freed after the round: it may have more events. */
static void drop(struct side *s)
{
	struct side *peer = s->peer;

	if (s->dead)
		return;
	s->dead = true;
	s->peer = NULL;
	(void)close(s->fd);
	if (!s->client) {
		struct side **at = &s->loop->idle[s->backend];

		while (*at && *at != s)
			at = &(*at)->next;
		if (*at)
			*at = s->next;
	}
	s->next = s->loop->dead;
	s->loop->dead = s;
	if (peer)
		drop(peer);
}

/* A connection to the backend whose turn it is. */
static struct side *backend_take(struct loop *l)
{
	unsigned i = l->turn++ % backend_count;
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons(backends[i]),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct side *s = l->idle[i];
	int fd;

	if (s) {
		l->idle[i] = s->next;
		s->next = NULL;
		return s;
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0)
		fail("connect");
	s = side_new(l, fd, false);
	s->backend = i;
	return s;
}

static int put(struct side *s, const char *p, size_t n)
{
	ssize_t sent = s->unsent.len ? 0 : send(s->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (sent < 0 && errno != EAGAIN)
		return PD_ECLOSED;
	sent = sent < 0 ? 0 : sent;
	return (size_t)sent == n ? PD_OK : buf_append(&s->unsent, p + sent, n - (size_t)sent);
}

/* Learns from a whole head how long its message is. */
static void head_read(struct side *s, const char *p, const char *end)
{
	const char *line = p;

	s->in_body = true;
	s->chunked = false;
	s->left = 0;
	while ((line = memchr(line, '\n', (size_t)(end - line))) != NULL && ++line < end) {
		if (strncasecmp(line, "content-length:", 15) == 0)
			s->left = strtoull(line + 15, NULL, 10);
		else if (strncasecmp(line, "transfer-encoding:", 18) == 0)
			s->chunked = true;
	}
	http_chunked_init(&s->chunks);
}

/* Follows n bytes of a body; PD_OK with *over at its end, PD_EPROTO for bytes behind it. */
static int body_read(struct side *s, const char *p, size_t n, bool *over)
{
	struct span payload;
	size_t used;

	if (!s->chunked) {
		if (n > s->left)
			return PD_EPROTO;
		s->left -= n;
		*over = s->left == 0;
		return PD_OK;
	}
	for (; n > 0 && !s->chunks.done; p += used, n -= used)
		if (http_chunked_feed(&s->chunks, p, n, &used, &payload))
			return PD_EPROTO;
	*over = s->chunks.done;
	return n ? PD_EPROTO : PD_OK;
}

/* What was received goes to the other end; at the end of an answer the backend is idle again. */
static int relay(struct side *s, const char *p, size_t n)
{
	const char *end, *body = p;
	bool over;
	int err;

	if (!s->in_body) {
		if (s->head.len) {
			err = buf_append(&s->head, p, n);
			if (err)
				return err;
			p = s->head.data;
			n = s->head.len;
		}
		end = memmem(p, n, "\r\n\r\n", 4);
		if (!end)
			return s->head.len ? PD_OK : buf_append(&s->head, p, n);
		head_read(s, p, end);
		body = end + 4;
	}
	if (!s->peer) {
		if (!s->client)
			return PD_EPROTO; /* an answer without a request */
		s->peer = backend_take(s->loop);
		s->peer->peer = s;
	}
	err = body_read(s, body, n - (size_t)(body - p), &over);
	if (!err)
		err = put(s->peer, p, n);
	buf_clear(&s->head);
	if (err || !over)
		return err;
	s->in_body = false;
	if (!s->client) {
		struct side **idle = &s->loop->idle[s->backend];

		s->peer->peer = NULL;
		s->peer = NULL;
		s->next = *idle;
		*idle = s;
	}
	return PD_OK;
}

static void readable(struct side *s)
{
	struct loop *l = s->loop;
	ssize_t n;

	do {
		if (s->peer && s->peer->unsent.len)
			return; /* read on when that is sent */
		n = recv(s->fd, l->piece, PIECE, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0 || relay(s, l->piece, (size_t)n)) {
			drop(s);
			return;
		}
	} while (n == PIECE && !s->dead);
}

static void writable(struct side *s)
{
	ssize_t n = send(s->fd, s->unsent.data, s->unsent.len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN) {
		drop(s);
		return;
	}
	buf_consume(&s->unsent, n < 0 ? 0 : (size_t)n);
	if (!s->unsent.len && s->peer)
		readable(s->peer);
}

static void *run(void *arg)
{
	struct loop *l = arg;
	struct epoll_event events[256];

	for (;;) {
		int n = epoll_wait(l->epoll, events, 256, -1);

		for (int i = 0; i < n; i++) {
			struct side *s = events[i].data.ptr;

			if (!s->dead && s->unsent.len && (events[i].events & EPOLLOUT))
				writable(s);
			if (!s->dead && (events[i].events & ~(uint32_t)EPOLLOUT))
				readable(s);
		}
		while (l->dead) {
			struct side *s = l->dead;

			l->dead = s->next;
			buf_release(&s->head);
			buf_release(&s->unsent);
			free(s);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	char *at = argc == 3 ? argv[2] : NULL;

	while (at && *at && backend_count < BACKENDS_MAX) {
		backends[backend_count++] = (uint16_t)strtoul(at, &at, 10);
		at += *at == ',';
	}
	if (backend_count == 0) {
		(void)fprintf(stderr, "usage: relay PORT BACKEND_PORT[,BACKEND_PORT...]\n");
		return 2;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	a.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
	    bind(listener, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(listener, 4096) != 0)
		fail("listen");
	for (int i = 0; i < LOOPS; i++) {
		pthread_t thread;

		loops[i].epoll = epoll_create1(EPOLL_CLOEXEC);
		if (loops[i].epoll < 0 || pthread_create(&thread, NULL, run, &loops[i]) != 0)
			fail("loop");
	}
	/* Clients in turn to the loops, so that both have the same work. */
	for (unsigned i = 0;; i++) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0 && errno != EINTR && errno != ECONNABORTED)
			fail("accept4");
		if (fd >= 0)
			(void)side_new(&loops[i % LOOPS], fd, true);
	}
}
