/*
 * Threads: one acceptor, a cache of parked connection threads, the reaper. A finished connection
 * thread parks for 30 s, because creating a thread costs more than serving a request. Admission
 * happens before a thread is found or made, so that overload costs one accept and one fixed answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>
#include <netinet/tcp.h>

#include "lib/base/clock.h"
#include "lib/http/conn.h"
#include "lib/http/net.h"

#define PARK_NS	       (30 * NS_PER_S)
#define LISTEN_BACKLOG 4096
#define FD_RESERVE     64
#define ACCEPT_PAUSE   (100 * NS_PER_MS)
#define USER_TIMEOUT   60000 /* ms until unacknowledged bytes end a connection */
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

/* -- connection threads -- */

static void open_connection(struct http_conn *c)
{
	int on = 1;
	unsigned user_timeout = USER_TIMEOUT;

	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
	reaper_watch(c);
}

static void close_connection(struct http_conn *c)
{
	int fd = c->fd;

	reaper_forget(c);
	(void)pthread_mutex_lock(&c->lock);
	c->fd = -1;
	c->up_fd = -1;
	c->generation++;
	c->woken = false;
	atomic_store(&c->client_left, false);
	atomic_store(&c->state, CONN_PARKED);
	(void)pthread_mutex_unlock(&c->lock);
	c->peer_text[0] = '\0';
	(void)close(fd);
}

static void unlink_parked(struct http_server *s, struct http_conn *c)
{
	struct http_conn **p = &s->parked;

	while (*p && *p != c)
		p = &(*p)->next;
	if (*p) {
		*p = c->next;
		s->parked_n--;
	}
}

/* Waits for the next descriptor. False: the thread ends. Called and returns with the server's lock
 * held. */
static bool park(struct http_server *s, struct http_conn *c)
{
	int64_t until = clock_now() + PARK_NS;
	struct timespec ts = {.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S};
	int rc = 0;

	s->connections--;
	c->next = s->parked;
	s->parked = c;
	s->parked_n++;
	(void)pthread_cond_broadcast(&s->changed);
	while (c->fd < 0 && !c->exit && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&c->wake, &s->lock, &ts);
	if (c->fd >= 0)
		return true;
	unlink_parked(s, c);
	return false;
}

static void *conn_thread(void *arg)
{
	struct http_conn *c = arg;
	struct http_server *s = c->server;
	struct sched_param zero = {0};

	if (s->cfg.batch_threads)
		(void)sched_setscheduler(0, SCHED_BATCH, &zero);
	(void)pthread_setname_np(pthread_self(), "pdctl-conn");
	(void)pthread_mutex_lock(&s->lock);
	do {
		(void)pthread_mutex_unlock(&s->lock);
		open_connection(c);
		conn_serve(c);
		close_connection(c);
		(void)pthread_mutex_lock(&s->lock);
	} while (park(s, c));
	buf_release(&c->in);
	c->next = s->spare;
	s->spare = c;
	s->threads--;
	(void)pthread_cond_broadcast(&s->changed);
	(void)pthread_mutex_unlock(&s->lock);
	return NULL;
}

static struct http_conn *new_slot(struct http_server *s)
{
	struct http_conn *c = calloc(1, sizeof(*c));
	pthread_condattr_t attr;

	if (!c)
		return NULL;
	c->server = s;
	c->fd = c->up_fd = -1;
	(void)pthread_mutex_init(&c->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&c->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	buf_init(&c->in, s->cfg.max_body + 2 * HTTP_HEAD_MAX);
	c->index = s->ntable;
	s->table[s->ntable++] = c;
	return c;
}

static bool start_thread(struct http_server *s, struct http_conn *c)
{
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setstacksize(&attr, s->cfg.stack_bytes);
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&thread, &attr, conn_thread, c);
	(void)pthread_attr_destroy(&attr);
	if (rc == 0)
		s->threads++;
	return rc == 0;
}

static void give(struct http_conn *c, int fd, const struct sockaddr_storage *peer)
{
	(void)pthread_mutex_lock(&c->lock);
	c->fd = fd;
	c->peer = *peer;
	(void)pthread_mutex_unlock(&c->lock);
}

/* Hands the descriptor to a parked thread or to a new one. Called with the server's lock held. */
static bool hand_over(struct http_server *s, int fd, const struct sockaddr_storage *peer)
{
	struct http_conn *c = s->parked;

	if (c) {
		unlink_parked(s, c);
		give(c, fd, peer);
		(void)pthread_cond_signal(&c->wake);
		return true;
	}
	c = s->spare;
	if (c)
		s->spare = c->next;
	else
		c = new_slot(s);
	if (!c)
		return false;
	give(c, fd, peer);
	if (start_thread(s, c))
		return true;
	give(c, -1, peer);
	c->next = s->spare;
	s->spare = c;
	return false;
}

/* -- accepting -- */

static void turn_away(struct http_server *s, int fd, _Atomic uint64_t *why)
{
	(void)send(fd, overloaded, sizeof(overloaded) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)close(fd);
	atomic_fetch_add_explicit(why, 1, memory_order_relaxed);
	(void)s;
}

static void admit(struct http_server *s, int fd, const struct sockaddr_storage *peer)
{
	bool full, taken = false;

	atomic_fetch_add_explicit(&s->accepted, 1, memory_order_relaxed);
	(void)pthread_mutex_lock(&s->lock);
	full = s->connections >= s->max_connections;
	if (!full)
		taken = hand_over(s, fd, peer);
	if (taken && ++s->connections > s->peak)
		s->peak = s->connections;
	(void)pthread_mutex_unlock(&s->lock);
	if (!taken)
		turn_away(s, fd, full ? &s->refused : &s->thread_failures);
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
		log_line(s->cfg.log, LOG_ERROR,
			 "cannot accept: %s; raise the limit of open files or lower "
			 "--max-connections",
			 pd_errno_text(error, text, sizeof(text)));
	}
	if (s->reserve_fd >= 0) {
		(void)close(s->reserve_fd);
		fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			turn_away(s, fd, &s->refused);
	}
	clock_sleep_until(now + ACCEPT_PAUSE);
	s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Takes one connection. False when there is none left to take now. */
static bool accept_one(struct http_server *s)
{
	struct sockaddr_storage peer = {0};
	socklen_t len = sizeof(peer);
	int fd;

	if (s->cfg.accept_delay_ns > 0)
		clock_sleep_until(clock_now() + s->cfg.accept_delay_ns);
	fd = accept4(s->listen_fd, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC);
	if (fd >= 0) {
		admit(s, fd, &peer);
		return true;
	}
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return false;
	if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
		out_of_descriptors(s, errno);
	/* Everything else is a pending error of a connection that is gone already: try the next. */
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
	(void)close(s->listen_fd);
	return NULL;
}

/* -- start and stop -- */

static unsigned connection_limit(unsigned asked)
{
	struct rlimit r;
	unsigned most = 1024;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &r);
		(void)getrlimit(RLIMIT_NOFILE, &r);
		most = r.rlim_cur > 2 * FD_RESERVE
			       ? (unsigned)((r.rlim_cur < 2000000 ? r.rlim_cur : 2000000) -
					    FD_RESERVE) /
					 2
			       : FD_RESERVE / 2;
	}
	return asked > 0 && asked < most ? asked : most;
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
	if (!s->table || s->wake_fd < 0)
		return pd_fail(msg, PD_ENOMEM,
			       "cannot start the server: out of memory or descriptors");
	s->port = s->cfg.port;
	s->listen_fd = s->cfg.listen_fd;
	if (s->listen_fd < 0)
		err = net_listen(s->cfg.host, &s->port, LISTEN_BACKLOG, &s->listen_fd, msg);
	else if (fcntl(s->listen_fd, F_SETFL, O_NONBLOCK) < 0)
		err = pd_fail(msg, PD_EIO, "the inherited listening socket is not usable");
	return err;
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
	s->listen_fd = s->wake_fd = s->epoll_fd = s->reserve_fd = -1;
	err = init_parts(s, msg);
	if (!err && reaper_start(s))
		err = pd_fail(msg, PD_EIO, "cannot start the thread that watches clients");
	if (!err && pthread_create(&s->acceptor, NULL, acceptor, s) != 0) {
		err = pd_fail(msg, PD_ENOMEM, "cannot start the thread that accepts connections");
		reaper_stop(s);
	}
	if (!err) {
		*out = s;
		return PD_OK;
	}
	if (s->listen_fd >= 0)
		(void)close(s->listen_fd);
	if (s->wake_fd >= 0)
		(void)close(s->wake_fd);
	if (s->reserve_fd >= 0)
		(void)close(s->reserve_fd);
	free(s->table);
	free(s);
	return err;
}

uint16_t http_server_port(const struct http_server *s)
{
	return s->port;
}

/* Applies shutdown() to connections in one of two ways: only idle ones (their recv ends), or all of
 * them and their upstream legs. */
static void end_connections(struct http_server *s, bool all)
{
	(void)pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < s->ntable; i++) {
		struct http_conn *c = s->table[i];

		(void)pthread_mutex_lock(&c->lock);
		if (c->fd >= 0 && all) {
			(void)shutdown(c->fd, SHUT_RDWR);
			if (c->up_fd >= 0)
				(void)shutdown(c->up_fd, SHUT_RDWR);
			(void)pthread_cond_signal(&c->wake);
		} else if (c->fd >= 0 && atomic_load(&c->state) == CONN_IDLE) {
			(void)shutdown(c->fd, SHUT_RD);
		}
		(void)pthread_mutex_unlock(&c->lock);
	}
	(void)pthread_mutex_unlock(&s->lock);
}

void http_server_drain(struct http_server *s)
{
	uint64_t one = 1;

	if (atomic_exchange(&s->draining, true))
		return;
	if (write(s->wake_fd, &one, sizeof(one)) < 0)
		log_line(s->cfg.log, LOG_WARN, "cannot wake the acceptor");
	(void)pthread_join(s->acceptor, NULL);
	end_connections(s, false);
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
		atomic_store(&s->cut, true);
		end_connections(s, true);
		(void)wait_for_none(s, clock_now() + CUT_WAIT);
	}
	return left;
}

/* Tells parked threads to end and waits until all threads are gone; false when some are stuck in a
 * handler. */
static bool end_threads(struct http_server *s)
{
	int64_t deadline = clock_now() + CUT_WAIT;
	struct timespec ts = {.tv_sec = deadline / NS_PER_S, .tv_nsec = deadline % NS_PER_S};
	int rc = 0;

	(void)pthread_mutex_lock(&s->lock);
	for (struct http_conn *c = s->parked; c; c = c->next) {
		c->exit = true;
		(void)pthread_cond_signal(&c->wake);
	}
	while (s->threads > 0 && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&s->changed, &s->lock, &ts);
	rc = s->threads == 0;
	(void)pthread_mutex_unlock(&s->lock);
	return rc;
}

void http_server_free(struct http_server *s)
{
	if (!s)
		return;
	http_server_drain(s);
	(void)http_server_wait(s, clock_now());
	reaper_stop(s);
	/* A thread that does not end keeps its memory: the process is about to exit anyway, a crash
	 * would be worse. */
	if (!end_threads(s))
		return;
	for (unsigned i = 0; i < s->ntable; i++)
		conn_release(s->table[i]);
	(void)close(s->wake_fd);
	if (s->reserve_fd >= 0)
		(void)close(s->reserve_fd);
	free(s->table);
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->changed);
	free(s);
}

void http_server_stats(const struct http_server *s, struct http_server_stats *out)
{
	struct http_server *w = (struct http_server *)(uintptr_t)s; /* for the lock */

	(void)pthread_mutex_lock(&w->lock);
	*out = (struct http_server_stats){
		.connections = s->connections,
		.peak_connections = s->peak,
		.threads = s->threads,
		.parked = s->parked_n,
	};
	(void)pthread_mutex_unlock(&w->lock);
	out->accepted = atomic_load_explicit(&s->accepted, memory_order_relaxed);
	out->refused = atomic_load_explicit(&s->refused, memory_order_relaxed);
	out->accept_errors = atomic_load_explicit(&s->accept_errors, memory_order_relaxed);
	out->thread_failures = atomic_load_explicit(&s->thread_failures, memory_order_relaxed);
	out->bad_requests = atomic_load_explicit(&s->bad_requests, memory_order_relaxed);
	out->client_left = atomic_load_explicit(&s->left, memory_order_relaxed);
	out->read_timeouts = atomic_load_explicit(&s->read_timeouts, memory_order_relaxed);
	out->write_stalls = atomic_load_explicit(&s->write_stalls, memory_order_relaxed);
}
