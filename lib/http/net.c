/*
 * Addresses and sockets. Whoever waits here waits with poll and an absolute deadline: a limit per
 * call would never be reached by a peer that trickles bytes.
 */
#include "lib/http/net.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"

#define STALL_STEP 65536

static int url_fail(struct pd_msg *msg, const char *text, const char *why)
{
	return pd_fail(msg, PD_EINVAL, "URL '%s': %s, expected http://HOST:PORT[/base][@rank]",
		       text, why);
}

static int parse_number(const char *p, size_t n, long max, long *out)
{
	long v = 0;

	if (n == 0 || n > 9)
		return PD_EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9')
			return PD_EINVAL;
		v = v * 10 + (p[i] - '0');
	}
	*out = v;
	return v <= max ? PD_OK : PD_EINVAL;
}

static int copy_part(char *out, size_t cap, const char *p, size_t n)
{
	if (n >= cap)
		return PD_ETOOBIG;
	memcpy(out, p, n);
	out[n] = '\0';
	return PD_OK;
}

/* Cuts "@N" from the end of *n characters. */
static int parse_rank(struct net_url *u, const char *p, size_t *n)
{
	const char *at = memrchr(p, '@', *n);
	long rank;

	u->rank = -1;
	if (!at)
		return PD_OK;
	if (parse_number(at + 1, (size_t)(p + *n - at - 1), 65535, &rank))
		return PD_EINVAL;
	u->rank = (int)rank;
	*n = (size_t)(at - p);
	return PD_OK;
}

/* "host", "host:port", "[v6]:port" */
static int parse_authority(struct net_url *u, const char *p, size_t n)
{
	const char *end = p + n, *colon;
	size_t host;
	long port = 80;

	if (n > 0 && *p == '[') {
		const char *close = memchr(p, ']', n);

		if (!close || copy_part(u->host, sizeof(u->host), p + 1, (size_t)(close - p - 1)))
			return PD_EINVAL;
		colon = close + 1 < end ? close + 1 : NULL;
		if (colon && *colon != ':')
			return PD_EINVAL;
	} else {
		colon = memchr(p, ':', n);
		host = colon ? (size_t)(colon - p) : n;
		if (copy_part(u->host, sizeof(u->host), p, host))
			return PD_EINVAL;
	}
	if (!u->host[0] ||
	    (colon &&
	     (parse_number(colon + 1, (size_t)(end - colon - 1), 65535, &port) || port == 0)))
		return PD_EINVAL;
	u->port = (uint16_t)port;
	return PD_OK;
}

int net_url_parse(struct net_url *u, const char *text, struct pd_msg *msg)
{
	const char *p = text, *slash;
	size_t n, authority;

	*u = (struct net_url){.rank = -1};
	if (strncmp(p, "https://", 8) == 0)
		return url_fail(msg, text, "TLS to workers is not supported");
	if (strncmp(p, "http://", 7) != 0)
		return url_fail(msg, text, "unknown scheme");
	p += 7;
	n = strlen(p);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)p[i] <= ' ' || (unsigned char)p[i] >= 0x7f)
			return url_fail(msg, text, "white space or a control character in it");
	if (parse_rank(u, p, &n))
		return url_fail(msg, text, "bad rank after '@'");
	slash = memchr(p, '/', n);
	authority = slash ? (size_t)(slash - p) : n;
	if (parse_authority(u, p, authority) ||
	    copy_part(u->authority, sizeof(u->authority), p, authority))
		return url_fail(msg, text, "bad host or port");
	while (n > authority && p[n - 1] == '/')
		n--;
	if (copy_part(u->base, sizeof(u->base), p + authority, n - authority))
		return url_fail(msg, text, "path too long");
	return PD_OK;
}

int net_resolve(struct net_addr *a, const char *host, uint16_t port, struct pd_msg *msg)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV},
			*list = NULL;
	char service[8];
	int rc;

	(void)snprintf(service, sizeof(service), "%u", port);
	rc = getaddrinfo(host, service, &hints, &list);
	if (rc != 0)
		return pd_fail(msg, PD_ENOENT, "cannot resolve host '%s': %s", host,
			       gai_strerror(rc));
	memset(a, 0, sizeof(*a));
	memcpy(&a->sa, list->ai_addr, list->ai_addrlen);
	a->len = list->ai_addrlen;
	freeaddrinfo(list);
	return PD_OK;
}

uint16_t net_bound_port(int fd)
{
	struct sockaddr_storage sa = {0};
	socklen_t len = sizeof(sa);

	if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		return 0;
	/* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): getsockname filled it */
	return ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port
					      : ((struct sockaddr_in *)&sa)->sin_port);
}

int net_listen(const char *host, uint16_t *port, int backlog, int *fd, struct pd_msg *msg)
{
	struct net_addr a;
	char text[128];
	int on = 1, err = net_resolve(&a, host, *port, msg);

	if (err)
		return err;
	*fd = socket(a.sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*fd < 0)
		return pd_fail(msg, PD_EIO, "cannot create a socket: %s",
			       pd_errno_text(errno, text, sizeof(text)));
	(void)setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(*fd, (struct sockaddr *)&a.sa, a.len) < 0 || listen(*fd, backlog) < 0) {
		(void)pd_fail(msg, PD_EIO, "cannot listen on %s:%u: %s", host, *port,
			      pd_errno_text(errno, text, sizeof(text)));
		(void)close(*fd);
		*fd = -1;
		return PD_EIO;
	}
	*port = net_bound_port(*fd);
	return PD_OK;
}

/* Waits for the outcome of a non-blocking connect. */
static int finish_connect(int fd, int64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int rc, so_error = 0;
	socklen_t len = sizeof(so_error);

	do
		rc = poll(&p, 1, clock_poll_ms(deadline));
	while (rc < 0 && errno == EINTR);
	if (rc == 0)
		return PD_ETIMEOUT;
	if (rc < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &so_error, &len) < 0)
		return PD_EIO;
	errno = so_error;
	return so_error == 0 ? PD_OK : PD_ECLOSED;
}

int net_connect(const struct net_addr *a, int64_t deadline, int *out)
{
	int on = 1, err = PD_OK,
	    fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*out = -1;
	if (fd < 0)
		return PD_EIO;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, (const struct sockaddr *)&a->sa, a->len) < 0)
		err = errno == EINPROGRESS			  ? finish_connect(fd, deadline)
		      : errno == EAGAIN || errno == EADDRNOTAVAIL ? PD_EIO
								  : PD_ECLOSED;
	if (!err && fcntl(fd, F_SETFL, 0) < 0)
		err = PD_EIO;
	if (err) {
		int saved = errno;

		(void)close(fd);
		errno = saved;
		return err;
	}
	*out = fd;
	return PD_OK;
}

static struct timeval to_timeval(int64_t ns)
{
	return (struct timeval){.tv_sec = ns / NS_PER_S, .tv_usec = ns % NS_PER_S / NS_PER_US};
}

void net_set_timeouts(int fd, int64_t recv_ns, int64_t send_ns)
{
	struct timeval in = to_timeval(recv_ns), out = to_timeval(send_ns);

	if (recv_ns >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &in, sizeof(in));
	if (send_ns >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &out, sizeof(out));
}

ssize_t net_recv(int fd, void *p, size_t n)
{
	ssize_t got;

	do
		got = recv(fd, p, n, 0);
	while (got < 0 && errno == EINTR);
	if (got >= 0)
		return got;
	return errno == EAGAIN || errno == EWOULDBLOCK ? PD_ETIMEOUT : PD_ECLOSED;
}

ssize_t net_recv_by(int fd, void *p, size_t n, int64_t deadline)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	ssize_t got;
	int rc;

	for (;;) {
		got = recv(fd, p, n, MSG_DONTWAIT);
		if (got >= 0)
			return got;
		if (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK)
			return PD_ECLOSED;
		rc = poll(&pfd, 1, clock_poll_ms(deadline));
		if (rc == 0)
			return PD_ETIMEOUT;
		if (rc < 0 && errno != EINTR)
			return PD_EIO;
	}
}

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

int net_send_iov(int fd, struct iovec *iov, size_t n, int64_t stall_ns, size_t *total)
{
	int64_t deadline = 0;
	size_t progress = 0;

	advance(&iov, &n, 0);
	while (n > 0) {
		struct msghdr m = {.msg_iov = iov, .msg_iovlen = n > 64 ? 64 : n};
		ssize_t sent = sendmsg(fd, &m, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
			return PD_ECLOSED;
		if (sent > 0) {
			progress += (size_t)sent;
			if (total)
				*total += (size_t)sent;
			advance(&iov, &n, (size_t)sent);
		}
		if (n == 0)
			break;
		if (deadline == 0 || progress >= STALL_STEP) {
			/* The call itself may have waited for the socket's send timeout already. */
			deadline = clock_now() + stall_ns - (sent < 0 ? stall_ns : 0);
			progress = 0;
		}
		if (clock_now() >= deadline)
			return PD_ETIMEOUT;
	}
	return PD_OK;
}

int net_send(int fd, const void *p, size_t n, int64_t stall_ns)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = n};

	return net_send_iov(fd, &iov, 1, stall_ns, NULL);
}

bool net_idle_ok(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}
