/*
 * Start, accept, drain, stop. One thread accepts and gives each connection to the driver. Admission
 * happens before anything is allocated, so that overload costs one accept and one fixed answer; out
 * of descriptors the acceptor pauses instead of spinning.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/http/conn.h"
#include "lib/net/net.h"

#define LISTEN_BACKLOG 4096
#define FD_RESERVE     64
#define ACCEPT_PAUSE   (100 * NS_PER_MS)
#define CUT_WAIT       (5 * NS_PER_S)

static const char overloaded[] =
	"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
	"Connection: close\r\n\r\n";

void http_server_config_default(struct http_server_config *cfg)
{
	*cfg = (struct http_server_config){
		.host = "127.0.0.1",
		.listen_fd = -1,
		.max_body = 512u << 20,
		.head_timeout_ns = 10 * NS_PER_S,
		.body_grace_ns = 10 * NS_PER_S,
		.body_min_rate = 65536,
		.idle_timeout_ns = 75 * NS_PER_S,
		.write_stall_ns = 30 * NS_PER_S,
		.stack_bytes = 256u << 10,
		.batch_threads = true,
	};
}

/* -- accepting -- */

/* A client that is about to speak TLS would not understand the text: it gets an alert. */
void server_overloaded(const struct http_server *s, int fd)
{
	static const char alert[] = {0x15, 3, 1, 0, 2, 2, 80}; /* fatal, internal_error */

	(void)send(fd, s->cfg.tls ? alert : overloaded,
		   s->cfg.tls ? sizeof(alert) : sizeof(overloaded) - 1,
		   MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void turn_away(const struct http_server *s, int fd, _Atomic uint64_t *why)
{
	atomic_fetch_add_explicit(why, 1, memory_order_relaxed);
	server_overloaded(s, fd);
	(void)close(fd);
}

/* The counter of the reason to refuse a connection; NULL: it is admitted, and counted. */
static _Atomic uint64_t *count_in(struct http_server *s, const struct sockaddr *sa, uint64_t *peer)
{
	_Atomic uint64_t *why = NULL;

	(void)pthread_mutex_lock(&s->lock);
	if (s->connections >= s->max_connections)
		why = &s->refused;
	else if (!peers_enter(&s->peers, sa, peer))
		why = &s->refused_address;
	else if (++s->connections > s->peak)
		s->peak = s->connections;
	(void)pthread_mutex_unlock(&s->lock);
	return why;
}

static void admit(struct http_server *s, int fd, const struct sockaddr *sa)
{
	_Atomic uint64_t *why;
	uint64_t peer;

	atomic_fetch_add_explicit(&s->accepted, 1, memory_order_relaxed);
	why = count_in(s, sa, &peer);
	if (!why && s->driver->open(s, fd, peer))
		return;
	turn_away(s, fd, why ? why : &s->refused);
	if (why)
		return;
	(void)pthread_mutex_lock(&s->lock);
	s->connections--;
	peers_leave(&s->peers, peer);
	(void)pthread_mutex_unlock(&s->lock);
}

/* Out of descriptors: use the reserve to take one connection off the queue and close it, then pause
 * instead of spinning. */
static void out_of_descriptors(struct http_server *s, int error)
{
	int64_t now = clock_now();
	char text[64];
	int fd;

	atomic_fetch_add_explicit(&s->accept_errors, 1, memory_order_relaxed);
	if (now - s->last_error_log > NS_PER_S) {
		s->last_error_log = now;
		log_event(s->cfg.log, LOG_ERROR, "accept_failed",
			  LOG_FIELDS(LOG_TEXT("error", pd_errno_text(error, text, sizeof(text)))),
			  "cannot accept: %s: this process has reached its limit; raise the limit "
			  "of open files or lower --max-connections",
			  pd_errno_text(error, text, sizeof(text)));
	}
	if (s->reserve_fd >= 0) {
		(void)close(s->reserve_fd);
		fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			turn_away(s, fd, &s->refused);
	}
	clock_sleep_until(now + ACCEPT_PAUSE);
	s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Takes one connection. False when there is none left to take now. */
static bool accept_one(struct http_server *s)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	int fd;

	if (s->cfg.accept_delay_ns > 0)
		clock_sleep_until(clock_now() + s->cfg.accept_delay_ns);
	fd = accept4(s->listen_fd, (struct sockaddr *)&sa, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0) {
		admit(s, fd, (const struct sockaddr *)&sa);
		return true;
	}
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return false;
	if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
		out_of_descriptors(s, errno);
		return !atomic_load(&s->draining);
	}
	/* Other errors belong to a connection that is gone already: try the next. */
	return errno != EINVAL && errno != EBADF;
}

static void *acceptor(void *arg)
{
	struct http_server *s = arg;
	struct pollfd p[2] = {{.fd = s->listen_fd, .events = POLLIN},
			      {.fd = s->wake_fd, .events = POLLIN}};

	(void)pthread_setname_np(pthread_self(), "pdctl-accept");
	while (!atomic_load(&s->draining)) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		while ((p[0].revents & POLLIN) && !atomic_load(&s->draining) && accept_one(s))
			continue;
	}
	/* What is in the accept queue would be reset by the close. An inherited socket stays open
	 * in another process, which accepts the rest. */
	for (int i = 0; s->cfg.listen_fd < 0 && i < LISTEN_BACKLOG && accept_one(s); i++)
		continue;
	(void)close(s->listen_fd);
	return NULL;
}

/* -- start and stop -- */

/* By default half of the descriptors, because each connection may need one to a worker; more are
 * an explicit choice. */
static unsigned connection_limit(unsigned asked)
{
	struct rlimit r;
	rlim_t most = 1024;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &r);
		(void)getrlimit(RLIMIT_NOFILE, &r);
		most = r.rlim_cur < 2000000 ? r.rlim_cur : 2000000;
		most = most > 2 * FD_RESERVE ? most - FD_RESERVE : FD_RESERVE;
	}
	if (asked == 0)
		return (unsigned)(most / 2);
	return asked < most ? asked : (unsigned)most;
}

static int init_parts(struct http_server *s, struct pd_msg *msg)
{
	pthread_condattr_t attr;
	int err = PD_OK;

	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->changed, &attr);
	(void)pthread_condattr_destroy(&attr);
	s->max_connections = connection_limit(s->cfg.max_connections);
	s->table = calloc(s->max_connections, sizeof(struct http_conn *));
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (!s->table || s->wake_fd < 0 ||
	    peers_init(&s->peers, s->cfg.max_per_address, s->max_connections))
		return pd_fail(msg, PD_ENOMEM,
			       "cannot start the server: out of memory or descriptors");
	s->port = s->cfg.port;
	s->listen_fd = s->cfg.listen_fd;
	if (s->listen_fd < 0)
		err = net_listen(s->cfg.host, &s->port, LISTEN_BACKLOG, &s->listen_fd, msg);
	else if (fcntl(s->listen_fd, F_SETFL, O_NONBLOCK) < 0)
		err = pd_fail(msg, PD_EIO, "the inherited listening socket cannot be used");
	else
		s->port = net_bound_port(s->listen_fd);
	return err;
}

static void close_all(struct http_server *s)
{
	const int fds[] = {s->wake_fd, s->reserve_fd};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			(void)close(fds[i]);
}

static int start_threads(struct http_server *s, struct pd_msg *msg)
{
	if (s->driver->start(s) == PD_OK && pthread_create(&s->acceptor, NULL, acceptor, s) == 0)
		return PD_OK;
	(void)s->driver->stop(s);
	s->driver->free(s);
	return pd_fail(
		msg, PD_ENOMEM,
		"cannot start the connection threads: out of memory, threads or descriptors");
}

int http_server_start(struct http_server **out, const struct http_server_config *cfg,
		      struct pd_msg *msg)
{
	struct http_server *s = calloc(1, sizeof(*s));
	int err;

	*out = NULL;
	if (!s)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	s->cfg = *cfg;
	s->driver = cfg->io == HTTP_IO_THREADS ? &http_threads : &http_events;
	s->listen_fd = s->wake_fd = s->reserve_fd = -1;
	err = init_parts(s, msg);
	if (!err)
		err = start_threads(s, msg);
	if (!err) {
		*out = s;
		return PD_OK;
	}
	close_all(s);
	if (s->listen_fd >= 0)
		(void)close(s->listen_fd);
	free(s->table);
	peers_release(&s->peers);
	free(s);
	return err;
}

uint16_t http_server_port(const struct http_server *s)
{
	return s->port;
}

void http_server_drain(struct http_server *s)
{
	uint64_t one = 1;

	if (atomic_exchange(&s->draining, true))
		return;
	if (write(s->wake_fd, &one, sizeof(one)) < 0)
		log_event(s->cfg.log, LOG_WARN, "acceptor_lost", LOG_NO_FIELDS,
			  "cannot wake the acceptor");
	(void)pthread_join(s->acceptor, NULL);
	/* The driver ends idle connections, now and as they become idle. */
}

/* Waits until no connection is left or the deadline; returns how many are left. */
static unsigned wait_for_none(struct http_server *s, int64_t deadline)
{
	struct timespec ts = {.tv_sec = deadline / NS_PER_S, .tv_nsec = deadline % NS_PER_S};
	unsigned left;
	int rc = 0;

	(void)pthread_mutex_lock(&s->lock);
	while (s->connections > 0 && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&s->changed, &s->lock, &ts);
	left = s->connections;
	(void)pthread_mutex_unlock(&s->lock);
	return left;
}

unsigned http_server_wait(struct http_server *s, int64_t deadline)
{
	unsigned left = wait_for_none(s, deadline);

	if (left > 0) {
		if (!atomic_exchange(&s->cut, true))
			s->driver->cut(s);
		(void)wait_for_none(s, clock_now() + CUT_WAIT);
	}
	return left;
}

bool http_server_stop(struct http_server *s)
{
	if (!s || s->stopped)
		return true;
	http_server_drain(s);
	(void)http_server_wait(s, clock_now());
	s->stopped = s->driver->stop(s);
	return s->stopped;
}

bool http_server_free(struct http_server *s)
{
	if (!s)
		return true;
	/* A handler that does not end keeps its memory: the process is about to exit anyway, a
	 * crash would be worse. */
	if (!http_server_stop(s))
		return false;
	s->driver->free(s);
	slots_free(s);
	close_all(s);
	free(s->table);
	peers_release(&s->peers);
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->changed);
	free(s);
	return true;
}

void http_server_stats(const struct http_server *s, struct http_server_stats *out)
{
	struct http_server *w = (struct http_server *)(uintptr_t)s; /* for the lock */

	(void)pthread_mutex_lock(&w->lock);
	*out = (struct http_server_stats){
		.connections = s->connections,
		.peak_connections = s->peak,
	};
	(void)pthread_mutex_unlock(&w->lock);
	s->driver->stats(s, out);
	out->accepted = atomic_load_explicit(&s->accepted, memory_order_relaxed);
	out->refused_address = atomic_load_explicit(&s->refused_address, memory_order_relaxed);
	out->refused = atomic_load_explicit(&s->refused, memory_order_relaxed);
	out->accept_errors = atomic_load_explicit(&s->accept_errors, memory_order_relaxed);
	out->bad_requests = atomic_load_explicit(&s->bad_requests, memory_order_relaxed);
	out->client_left = atomic_load_explicit(&s->left, memory_order_relaxed);
	out->read_timeouts = atomic_load_explicit(&s->read_timeouts, memory_order_relaxed);
	out->write_stalls = atomic_load_explicit(&s->write_stalls, memory_order_relaxed);
	out->tls_handshakes = atomic_load_explicit(&s->tls_handshakes, memory_order_relaxed);
	out->tls_resumed = atomic_load_explicit(&s->tls_resumed, memory_order_relaxed);
	out->tls_failures = atomic_load_explicit(&s->tls_failures, memory_order_relaxed);
}
