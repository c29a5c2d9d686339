/*
 * Threads and events. A thread serves one connection in plain blocking style as long as requests
 * keep coming: four system calls and two context switches per routed request. A connection that is
 * silent for a second goes back to epoll, where it costs a few hundred bytes; its thread waits for
 * the next event, and ends when there is none for 30 s. A thread that takes a connection makes sure
 * that another one waits.
 *
 * The same epoll instance tells when a client leaves (EPOLLRDHUP): whoever sees the event sets the
 * connection's flag and shuts down the upstream leg that is published, and the owner, blocked in
 * recv, wakes and cleans up. The event comes only once, so the owner tests the flag whenever it
 * publishes a leg. While a thread owns the connection, arriving bytes are its own business: EPOLLIN
 * is off.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/http/conn.h"
#include "lib/http/net.h"

#define PARK_MS	     30000
#define STOP_TAG     UINT64_MAX
#define USER_TIMEOUT 60000 /* ms until unacknowledged bytes end a connection */
#define STOP_WAIT    (5 * NS_PER_S)

static bool add_thread(struct http_server *s);

/* -- slots -- */

static struct http_conn *new_slot(struct http_server *s)
{
	unsigned n = atomic_load_explicit(&s->ntable, memory_order_relaxed);
	struct http_conn *c = n < s->max_connections ? calloc(1, sizeof(*c)) : NULL;
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
	c->index = n;
	s->table[n] = c;
	atomic_store_explicit(&s->ntable, n + 1, memory_order_release);
	return c;
}

static uint64_t tag_of(const struct http_conn *c, uint32_t generation)
{
	return (uint64_t)c->index << 32 | generation;
}

/* Which events matter: all of them while the connection is idle, only the client's leaving while a
 * thread reads it. */
static void watch(struct http_conn *c, uint32_t generation, uint32_t events)
{
	struct epoll_event ev = {.events = events | EPOLLRDHUP | EPOLLET,
				 .data.u64 = tag_of(c, generation)};

	(void)epoll_ctl(c->server->epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
}

bool ready_open(struct http_server *s, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET};
	unsigned user_timeout = USER_TIMEOUT;
	struct http_conn *c;
	uint32_t generation;
	int on = 1;

	(void)pthread_mutex_lock(&s->lock);
	c = s->spare;
	if (c)
		s->spare = c->next;
	else
		c = new_slot(s);
	(void)pthread_mutex_unlock(&s->lock);
	if (!c)
		return false;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
	/* A send to a client that does not read comes back after this time; net_send_iov judges. */
	net_set_timeouts(fd, -1, s->cfg.write_stall_ns);
	generation = CONN_GENERATION(atomic_load(&c->word));
	(void)pthread_mutex_lock(&c->lock);
	c->fd = fd;
	(void)pthread_mutex_unlock(&c->lock);
	atomic_store(&c->idle_since, clock_now());
	atomic_store(&c->fresh, true);
	atomic_store(&c->word, CONN_WORD(generation, CONN_IDLE));
	ev.data.u64 = tag_of(c, generation);
	if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0)
		return true;
	(void)pthread_mutex_lock(&c->lock);
	c->fd = -1;
	(void)pthread_mutex_unlock(&c->lock);
	atomic_store(&c->word, CONN_WORD(generation + 1, CONN_FREE));
	(void)pthread_mutex_lock(&s->lock);
	c->next = s->spare;
	s->spare = c;
	(void)pthread_mutex_unlock(&s->lock);
	return false;
}

static void close_connection(struct http_conn *c)
{
	struct http_server *s = c->server;
	uint32_t generation = CONN_GENERATION(atomic_load(&c->word));
	int fd = c->fd;

	(void)pthread_mutex_lock(&c->lock);
	c->fd = -1;
	c->up_fd = -1;
	c->woken = false;
	c->thread = NULL;
	atomic_store(&c->up_deadline, 0);
	atomic_store(&c->idle_since, 0);
	atomic_store(&c->client_left, false);
	atomic_store(&c->timed_out, false);
	atomic_store(&c->word, CONN_WORD((generation + 1) & 0x3fffffffu, CONN_FREE));
	(void)pthread_mutex_unlock(&c->lock);
	(void)close(fd); /* leaves the epoll set with its last reference */
	(void)pthread_mutex_lock(&s->lock);
	c->next = s->spare;
	s->spare = c;
	s->connections--;
	if (s->connections == 0 || atomic_load(&s->draining))
		(void)pthread_cond_broadcast(&s->changed);
	(void)pthread_mutex_unlock(&s->lock);
}

/* -- events -- */

static void client_gone(struct http_conn *c, uint32_t generation)
{
	(void)pthread_mutex_lock(&c->lock);
	if (CONN_GENERATION(atomic_load(&c->word)) == generation && c->fd >= 0) {
		atomic_store(&c->client_left, true);
		if (c->up_fd >= 0)
			(void)shutdown(c->up_fd, SHUT_RDWR);
		(void)pthread_cond_signal(&c->wake);
	}
	(void)pthread_mutex_unlock(&c->lock);
}

/* True when the caller owns the connection now; a busy one is only told that there is more. */
static bool take(struct http_conn *c, uint32_t generation)
{
	uint64_t word = atomic_load(&c->word), next;

	do {
		if (CONN_GENERATION(word) != generation || CONN_STATE(word) == CONN_FREE ||
		    CONN_STATE(word) == CONN_PENDING)
			return false;
		next = CONN_WORD(generation,
				 CONN_STATE(word) == CONN_IDLE ? CONN_BUSY : CONN_PENDING);
	} while (!atomic_compare_exchange_weak(&c->word, &word, next));
	return CONN_STATE(word) == CONN_IDLE;
}

bool ready_give_back(struct http_conn *c)
{
	uint64_t word = atomic_load(&c->word);
	uint32_t generation = CONN_GENERATION(word);

	(void)pthread_mutex_lock(&c->lock);
	c->thread = NULL;
	(void)pthread_mutex_unlock(&c->lock);
	/* Armed before it is given away: afterwards the descriptor may be somebody else's. An event
	 * in between makes it PENDING. */
	watch(c, generation, EPOLLIN);
	if (CONN_STATE(word) == CONN_BUSY &&
	    atomic_compare_exchange_strong(&c->word, &word, CONN_WORD(generation, CONN_IDLE)))
		return true;
	atomic_store(&c->word, CONN_WORD(generation, CONN_BUSY));
	return false;
}

void ready_own(struct http_conn *c, struct http_thread *t)
{
	watch(c, CONN_GENERATION(atomic_load(&c->word)), 0);
	(void)pthread_mutex_lock(&c->lock);
	c->thread = t;
	(void)pthread_mutex_unlock(&c->lock);
}

static void handle(struct http_server *s, struct http_thread *t, const struct epoll_event *ev)
{
	uint32_t generation = (uint32_t)ev->data.u64;
	struct http_conn *c = s->table[ev->data.u64 >> 32];
	bool gone = (ev->events & (EPOLLHUP | EPOLLERR)) ||
		    ((ev->events & EPOLLRDHUP) && !s->cfg.half_close_ok);

	if (gone)
		client_gone(c, generation);
	if (!take(c, generation))
		return;
	/* Somebody must wait for the next event while this thread works. */
	if (atomic_fetch_sub(&s->waiting, 1) == 1)
		(void)add_thread(s);
	if (conn_serve(c, t))
		close_connection(c);
	atomic_fetch_add(&s->waiting, 1);
}

/* -- threads -- */

/* A thread that is not needed any more ends, but never the last one that waits. */
static bool may_leave(struct http_server *s)
{
	int n = atomic_load(&s->waiting);

	while (n > 1)
		if (atomic_compare_exchange_weak(&s->waiting, &n, n - 1))
			return true;
	return false;
}

static void loop(struct http_server *s, struct http_thread *t)
{
	struct epoll_event ev;

	while (!atomic_load(&s->stopping)) {
		int n = epoll_wait(s->epoll_fd, &ev, 1, PARK_MS);

		if (n == 1 && ev.data.u64 != STOP_TAG)
			handle(s, t, &ev);
		else if (n == 0 && may_leave(s))
			return;
	}
	atomic_fetch_sub(&s->waiting, 1);
}

static void *thread_main(void *arg)
{
	struct http_thread *t = arg;
	struct http_server *s = t->server;
	struct sched_param zero = {0};

	t->id = pthread_self();
	if (s->cfg.batch_threads)
		(void)sched_setscheduler(0, SCHED_BATCH, &zero);
	(void)pthread_setname_np(pthread_self(), "pdctl-conn");
	loop(s, t);
	if (t->data_release)
		t->data_release(t->data);
	buf_release(&t->in);
	atomic_fetch_sub(&s->kept, t->counted);
	free(t);
	(void)pthread_mutex_lock(&s->lock);
	s->threads--;
	(void)pthread_cond_broadcast(&s->changed);
	(void)pthread_mutex_unlock(&s->lock);
	return NULL;
}

static bool start_thread(struct http_server *s)
{
	struct http_thread *t = calloc(1, sizeof(*t));
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	if (!t)
		return false;
	t->server = s;
	buf_init(&t->in, s->cfg.max_body + 2 * HTTP_HEAD_MAX);
	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setstacksize(&attr, s->cfg.stack_bytes);
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&thread, &attr, thread_main, t);
	(void)pthread_attr_destroy(&attr);
	if (rc != 0)
		free(t);
	return rc == 0;
}

/* When none can be made the requests wait for a thread that finishes. */
static bool add_thread(struct http_server *s)
{
	bool room;

	(void)pthread_mutex_lock(&s->lock);
	room = s->threads < s->max_connections + 1 && !atomic_load(&s->stopping);
	s->threads += room;
	(void)pthread_mutex_unlock(&s->lock);
	if (!room)
		return false;
	atomic_fetch_add(&s->waiting, 1);
	if (start_thread(s))
		return true;
	atomic_fetch_sub(&s->waiting, 1);
	atomic_fetch_add_explicit(&s->thread_failures, 1, memory_order_relaxed);
	(void)pthread_mutex_lock(&s->lock);
	s->threads--;
	(void)pthread_mutex_unlock(&s->lock);
	return false;
}

int ready_start(struct http_server *s)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = STOP_TAG};

	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	s->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (s->epoll_fd < 0 || s->stop_fd < 0 ||
	    epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->stop_fd, &ev) < 0)
		return PD_EIO;
	return add_thread(s) ? PD_OK : PD_ENOMEM;
}

bool ready_stop(struct http_server *s)
{
	int64_t deadline = clock_now() + STOP_WAIT;
	struct timespec ts = {.tv_sec = deadline / NS_PER_S, .tv_nsec = deadline % NS_PER_S};
	uint64_t one = 1;
	bool none;
	int rc = 0;

	atomic_store(&s->stopping, true);
	if (write(s->stop_fd, &one, sizeof(one)) < 0)
		log_line(s->cfg.log, LOG_WARN, "cannot wake the connection threads");
	(void)pthread_mutex_lock(&s->lock);
	while (s->threads > 0 && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&s->changed, &s->lock, &ts);
	none = s->threads == 0;
	(void)pthread_mutex_unlock(&s->lock);
	return none;
}

/* -- the owner's side of leaving clients and of the upstream leg -- */

bool http_conn_publish(struct http_conn *c, int fd)
{
	bool left;

	(void)pthread_mutex_lock(&c->lock);
	left = atomic_load(&c->client_left) || atomic_load(&c->server->cut);
	if (!left) {
		c->up_fd = fd;
		atomic_store_explicit(&c->timed_out, false, memory_order_relaxed);
	}
	(void)pthread_mutex_unlock(&c->lock);
	return !left;
}

void http_conn_deadline(struct http_conn *c, int64_t deadline)
{
	atomic_store_explicit(&c->up_deadline, deadline, memory_order_relaxed);
}

bool http_conn_withdraw(struct http_conn *c)
{
	bool left;

	atomic_store_explicit(&c->up_deadline, 0, memory_order_relaxed);
	(void)pthread_mutex_lock(&c->lock);
	c->up_fd = -1;
	left = atomic_load(&c->client_left) || atomic_load(&c->timed_out);
	(void)pthread_mutex_unlock(&c->lock);
	return left;
}

bool http_conn_client_left(const struct http_conn *c)
{
	return atomic_load(&c->client_left);
}

bool http_conn_timed_out(const struct http_conn *c)
{
	return atomic_load(&c->timed_out);
}

bool http_conn_sleep(struct http_conn *c, int64_t deadline)
{
	struct timespec ts = {.tv_sec = deadline / NS_PER_S, .tv_nsec = deadline % NS_PER_S};
	int rc = 0;

	(void)pthread_mutex_lock(&c->lock);
	while (rc != ETIMEDOUT && !c->woken && !atomic_load(&c->client_left) &&
	       !atomic_load(&c->server->cut))
		rc = deadline >= CLOCK_NEVER ? pthread_cond_wait(&c->wake, &c->lock)
					     : pthread_cond_timedwait(&c->wake, &c->lock, &ts);
	c->woken = false;
	(void)pthread_mutex_unlock(&c->lock);
	return atomic_load(&c->client_left) || atomic_load(&c->server->cut);
}

void http_conn_wake(struct http_conn *c)
{
	(void)pthread_mutex_lock(&c->lock);
	c->woken = true;
	(void)pthread_cond_signal(&c->wake);
	(void)pthread_mutex_unlock(&c->lock);
}
