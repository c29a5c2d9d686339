/*
 * Try first, wait only when the kernel says so. The loop's edge-triggered events leave two marks
 * (there may be bytes; the peer has ended), so a receive that would find nothing is not even tried:
 * one system call per packet. Without a loop poll says it: of this socket, and of the client's,
 * whose leaving ends the wait.
 */
#include "lib/net/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"

#define STALL_STEP 65536

static void notify(struct loop_watch *w, uint32_t events)
{
	struct stream *s = (struct stream *)w;

	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		s->ended = true;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		s->readable = true;
	if (s->waiter && (events & (s->waits_for | EPOLLHUP | EPOLLERR)))
		loop_wake(s->waiter);
	if (s->on_event)
		s->on_event(s, events);
}

int stream_open(struct stream *s, int fd, struct loop *l)
{
	int on = 1;

	/* Without events only a receive tells whether there are bytes. */
	*s = (struct stream){.watch.notify = notify,
			     .readable = !l,
			     .fd = fd,
			     .loop = l,
			     .deadline = CLOCK_NEVER,
			     .guard = s->guard,
			     .on_event = s->on_event};
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return l ? loop_watch(l, fd, &s->watch) : PD_OK;
}

/* poll and epoll have the same events; what is asked for besides errors. */
_Static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT && POLLERR == EPOLLERR &&
		       POLLHUP == EPOLLHUP && POLLRDHUP == EPOLLRDHUP,
	       "events of poll are passed on as those of epoll");

static struct pollfd asked(const struct stream *s, uint32_t events)
{
	uint32_t all = events & (POLLIN | POLLOUT);

	/* The end is told once: poll would say it again and again. */
	if (!s->ended)
		all |= POLLRDHUP;
	return (struct pollfd){.fd = s->fd, .events = (short)all};
}

static void told(struct stream *s, const struct pollfd *p)
{
	if (p->revents)
		notify(&s->watch, (uint32_t)p->revents);
}

/* Blocks the thread. Both streams are told what poll saw, as a loop would tell them. */
static int wait_thread(struct stream *s, uint32_t events, int64_t deadline)
{
	struct stream *g = s->guard;
	struct pollfd p[2] = {asked(s, events)};
	int rc;

	PD_CHECK(!loop_self());
	if (g)
		p[1] = asked(g, 0);
	s->waits_for = events;
	do
		rc = poll(p, g ? 2 : 1, clock_poll_ms(deadline));
	while (rc < 0 && errno == EINTR);
	if (rc > 0) {
		told(s, &p[0]);
		if (g)
			told(g, &p[1]);
	}
	s->waits_for = 0;
	if (s->interrupted)
		return PD_ECLOSED;
	return rc > 0 ? PD_OK : rc == 0 ? PD_ETIMEOUT : PD_EIO;
}

void stream_rest(struct stream *s, int wake_fd, int64_t deadline)
{
	struct pollfd p[2] = {asked(s, 0), {.fd = wake_fd, .events = POLLIN}};
	int64_t ns = deadline > 0 ? deadline - clock_now() : 0;
	struct timespec ts = {0};

	if (ns > 0)
		ts = (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
	if (ppoll(p, 2, deadline >= CLOCK_NEVER ? NULL : &ts, NULL) > 0)
		told(s, &p[0]);
}

/* Until one of the events may have come. */
static int wait_for(struct stream *s, uint32_t events, int64_t deadline)
{
	bool in_time;

	PD_CHECK(s->fd >= 0 && !s->waiter);
	if (s->interrupted)
		return PD_ECLOSED;
	if (!s->loop || !loop_fiber())
		return wait_thread(s, events, deadline);
	s->waiter = loop_fiber();
	s->waits_for = events;
	in_time = loop_wait(deadline, false);
	s->waiter = NULL;
	s->waits_for = 0;
	if (s->interrupted)
		return PD_ECLOSED;
	return in_time ? PD_OK : PD_ETIMEOUT;
}

/* -- connecting -- */

int stream_new(struct stream **out, const struct net_addr *a)
{
	struct stream *s = calloc(1, sizeof(*s));

	*out = NULL;
	if (!s)
		return PD_ENOMEM;
	s->fd = socket(a->len > 0 ? a->sa.any.sa_family : AF_UNIX,
		       SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0) {
		free(s);
		return PD_EIO;
	}
	*out = s;
	return PD_OK;
}

int stream_connect(struct stream *s, const struct net_addr *a, int64_t deadline)
{
	int so_error = 0, err;
	socklen_t len = sizeof(so_error);
	bool waits = (a->len > 0 ? connect(s->fd, &a->sa.any, a->len)
				 : connect(s->fd, (const struct sockaddr *)a->sa.local,
					   sizeof(*a->sa.local))) < 0;

	if (waits && errno != EINPROGRESS)
		return errno == EAGAIN || errno == EADDRNOTAVAIL ? PD_EIO : PD_ECLOSED;
	/* Watched from here on: before connect a socket reports that it is not connected. */
	err = stream_open(s, s->fd, loop_fiber() ? loop_self() : NULL);
	if (!err && waits)
		err = wait_for(s, EPOLLOUT, deadline);
	if (err || !waits)
		return err;
	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &so_error, &len) < 0)
		return PD_EIO;
	errno = so_error;
	return so_error == 0 ? PD_OK : PD_ECLOSED;
}

/* -- TLS -- */

/* What to wait for before a receive or a send is tried again. */
static uint32_t events_for(const struct stream *s, uint32_t plain)
{
	static const uint32_t wanted[] = {
		[TLS_WANT_READ] = EPOLLIN | EPOLLRDHUP, [TLS_WANT_WRITE] = EPOLLOUT};

	return s->tls_wants == TLS_WANT_NOTHING ? plain : wanted[s->tls_wants];
}

static int handshake(struct stream *s, int64_t deadline, struct pd_msg *msg)
{
	int err;

	if (!s->tls)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	while ((err = tls_handshake(s->tls, &s->tls_wants, msg)) == PD_EAGAIN) {
		err = wait_for(s, events_for(s, 0), deadline);
		if (err)
			return pd_fail(msg, err, "%s",
				       err == PD_ETIMEOUT ? "the handshake timed out"
							  : "interrupted");
	}
	/* What came right behind the handshake may have been taken in already. */
	s->readable = true;
	return err;
}

int stream_tls_accept(struct stream *s, struct tls_context *c, int64_t deadline, bool *plain,
		      struct pd_msg *msg)
{
	int err;

	s->tls = tls_accept_new(c, s->fd);
	err = handshake(s, deadline, msg);
	*plain = err == PD_EPROTO && tls_plain_http(s->tls);
	if (err) {
		tls_free(s->tls);
		s->tls = NULL;
		s->tls_wants = TLS_WANT_NOTHING;
	}
	return err;
}

int stream_tls_connect(struct stream *s, struct tls_context *c, struct tls_peer *peer,
		       int64_t deadline, struct pd_msg *msg)
{
	s->tls = tls_connect_new(c, peer, s->fd);
	return handshake(s, deadline, msg);
}

void stream_goodbye(struct stream *s)
{
	enum tls_want want;

	if (s->tls && s->fd >= 0 && !s->interrupted)
		(void)!tls_close_notify(s->tls, &want);
}

const char *stream_why(const struct stream *s)
{
	return s->tls && tls_refused(s->tls) ? tls_error(s->tls) : "";
}

static ssize_t recv_tls(struct stream *s, void *p, size_t n)
{
	ssize_t got = tls_recv(s->tls, p, n, &s->tls_wants);

	if (got > 0 ? tls_drained(s->tls) && !s->ended : got == PD_EAGAIN)
		s->readable = false;
	return got == PD_EPROTO ? PD_ECLOSED : got;
}

void stream_close(struct stream *s)
{
	tls_free(s->tls);
	s->tls = NULL;
	if (s->fd >= 0)
		(void)close(s->fd); /* and no loop watches it any more */
	s->fd = -1;
}

static void free_here(struct loop_task *t)
{
	struct stream *s = (struct stream *)((char *)t - offsetof(struct stream, task));

	stream_goodbye(s);
	stream_close(s);
	free(s);
}

void stream_free(struct stream *s)
{
	if (!s)
		return;
	s->task.run = free_here;
	if (s->loop && s->loop != loop_self())
		loop_post(s->loop, &s->task); /* its loop may be about to tell it something */
	else
		free_here(&s->task);
}

/* -- receiving -- */

ssize_t stream_recv_now(struct stream *s, void *p, size_t n)
{
	ssize_t got;

	if (s->tls)
		return recv_tls(s, p, n);
	do
		got = recv(s->fd, p, n, s->patient ? 0 : MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	s->patient = false;
	/* Less than asked for: there is nothing more, and what comes next makes an event. But the
	 * event of the end may have come already. */
	if (got > 0 && (size_t)got < n && !s->ended)
		s->readable = false;
	if (got >= 0)
		return got;
	if (errno != EAGAIN && errno != EWOULDBLOCK)
		return PD_ECLOSED;
	s->readable = false;
	return PD_EAGAIN;
}

void stream_may_block(struct stream *s, int64_t ns)
{
	struct timeval limit = {.tv_sec = ns / NS_PER_S, .tv_usec = ns % NS_PER_S / 1000};

	s->may_block = !s->loop && !s->tls &&
		       setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0 &&
		       fcntl(s->fd, F_SETFL, 0) == 0;
}

int stream_await(struct stream *s)
{
	int err;

	if (s->readable || s->patient)
		return PD_OK;
	err = wait_for(s, events_for(s, EPOLLIN | EPOLLRDHUP), s->deadline);
	if (!err)
		s->readable = true;
	/* What had arrived before an interruption counts. */
	return s->readable ? PD_OK : err;
}

ssize_t stream_recv(struct stream *s, void *p, size_t n)
{
	ssize_t got;
	int err;

	for (;;) {
		err = stream_await(s);
		if (err)
			return err;
		got = stream_recv_now(s, p, n);
		if (got != PD_EAGAIN)
			return got;
	}
}

/* -- sending -- */

/* Removes `sent` bytes from the front of the vector. */
static void advance(struct iovec **iov, size_t *n, size_t sent)
{
	while (*n > 0 && sent >= (*iov)->iov_len) {
		sent -= (*iov)->iov_len;
		(*iov)++;
		(*n)--;
	}
	if (*n > 0) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + sent;
		(*iov)->iov_len -= sent;
	}
}

/* Some bytes of the vector; PD_EAGAIN when the peer takes none now. */
static ssize_t send_some(struct stream *s, struct iovec *iov, size_t n)
{
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = n > 64 ? 64 : n};
	ssize_t sent;

	if (s->interrupted)
		return PD_ECLOSED;
	if (s->tls)
		return tls_send(s->tls, iov, n, &s->tls_wants);
	do
		sent = sendmsg(s->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	if (sent >= 0)
		return sent;
	return errno == EAGAIN || errno == EWOULDBLOCK ? PD_EAGAIN : PD_ECLOSED;
}

int stream_send_iov(struct stream *s, struct iovec *iov, size_t n, int64_t stall_ns, size_t *total)
{
	int64_t deadline = 0;
	size_t progress = 0;
	int err = PD_OK;

	advance(&iov, &n, 0);
	while (n > 0 && !err) {
		ssize_t sent = send_some(s, iov, n);

		if (sent >= 0) {
			progress += (size_t)sent;
			if (total)
				*total += (size_t)sent;
			advance(&iov, &n, (size_t)sent);
			continue;
		}
		if (sent != PD_EAGAIN)
			return (int)sent;
		if (deadline == 0 || progress >= STALL_STEP) {
			deadline = clock_now() + stall_ns;
			progress = 0;
		}
		err = wait_for(s, events_for(s, EPOLLOUT), deadline);
	}
	s->patient = s->may_block && s->guard && !s->readable && !err;
	return err;
}

int stream_send(struct stream *s, const void *p, size_t n, int64_t stall_ns)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = n};

	return stream_send_iov(s, &iov, 1, stall_ns, NULL);
}

void stream_interrupt(struct stream *s)
{
	PD_CHECK(!s->loop || s->loop == loop_self());
	s->interrupted = true;
	if (s->waiter)
		loop_wake(s->waiter);
}

bool stream_idle_ok(struct stream *s)
{
	char byte;
	ssize_t n;

	if (s->ended)
		return false;
	if (s->tls)
		return tls_idle_ok(s->tls);
	n = recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}
